package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// leaseServer keeps Leases in memory as an API server does, resource versions
// included, and answers without a network: so time can be virtual. What a real server
// does is tested with one, in kube_lock_test.go.
type leaseServer struct {
	mu     sync.Mutex
	leases map[string]*coordinationv1.Lease
	writes []time.Time
	n      int
	down   func(*http.Request) (*http.Response, error) // not nil: what every request ends with
}

func newLeaseServer() *leaseServer {
	return &leaseServer{leases: map[string]*coordinationv1.Lease{}}
}

func (s *leaseServer) client(t *testing.T) *kube.Client {
	t.Helper()
	c, err := kube.Dial(&kube.Target{
		Config: jsonConfig(s),
		Server: "https://api.test", Context: "test", Source: "test",
	})
	must(t, err)
	return c
}

func jsonConfig(rt http.RoundTripper) *rest.Config {
	return &rest.Config{
		Host: "https://api.test", Transport: rt, Timeout: 10 * time.Second, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: "application/json"},
	}
}

func (s *leaseServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return s.down(r)
	}
	path := strings.TrimPrefix(r.URL.Path, "/apis/coordination.k8s.io/v1/namespaces/")
	var given coordinationv1.Lease
	if r.Body != nil {
		if err := json.NewDecoder(r.Body).Decode(&given); err != nil {
			return nil, err
		}
	}
	if r.Method == http.MethodPost {
		path += "/" + given.Name
	}
	there := s.leases[path]
	switch {
	case r.Method == http.MethodPost && there != nil:
		return failure(r, http.StatusConflict, metav1.StatusReasonAlreadyExists)
	case r.Method != http.MethodPost && there == nil:
		return failure(r, http.StatusNotFound, metav1.StatusReasonNotFound)
	case r.Method == http.MethodPut && given.ResourceVersion != there.ResourceVersion:
		return failure(r, http.StatusConflict, metav1.StatusReasonConflict)
	case r.Method == http.MethodGet:
		return answer(r, http.StatusOK, there)
	}
	s.put(path, &given)
	return answer(r, http.StatusOK, &given)
}

// put stores a lease; s.mu is held.
func (s *leaseServer) put(path string, l *coordinationv1.Lease) {
	s.n++
	l.TypeMeta = metav1.TypeMeta{Kind: "Lease", APIVersion: "coordination.k8s.io/v1"}
	l.Namespace, l.Name, _ = strings.Cut(path, "/leases/")
	l.ResourceVersion = strconv.Itoa(s.n)
	s.leases[path] = l.DeepCopy()
	s.writes = append(s.writes, time.Now())
}

// edit changes a lease as somebody else would.
func (s *leaseServer) edit(path string, change func(*coordinationv1.Lease)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &coordinationv1.Lease{}
	if there := s.leases[path]; there != nil {
		l = there.DeepCopy()
	}
	change(l)
	s.put(path, l)
}

// holder is who holds a lease.
func (s *leaseServer) holder(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return holderOf(s.leases[path])
}

// written is when leases were written.
func (s *leaseServer) written() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

func (s *leaseServer) setDown(f func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = f
}

func answer(r *http.Request, code int, body any) (*http.Response, error) {
	data, err := json.Marshal(body)
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(data)), Request: r, ContentLength: int64(len(data)),
	}, err
}

// refusing is what a computer without an API server answers.
func refusing(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
}

func failure(r *http.Request, code int, reason metav1.StatusReason) (*http.Response, error) {
	return answer(r, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reason, Message: string(reason),
	})
}

// holderElsewhere writes a lease as a run on another computer does.
func holderElsewhere(identity string, seconds int32) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) {
		now := metav1.NowMicro()
		l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds, l.Spec.RenewTime = &identity, &seconds, &now
		said, _ := json.Marshal(leaseHolder{Holder: Holder{PID: 4711, Host: "elsewhere", User: "ann", Command: "apply", Since: now.Time}})
		metav1.SetMetaDataAnnotation(&l.ObjectMeta, annotationHolder, string(said))
	}
}

const leaseC = "default/leases/capplunder-c"

func lockC(ctx context.Context, l locks, patience time.Duration, observe func(string)) (context.Context, func() error, error) {
	return l.clusters(ctx, capi.LockRequest{Command: "apply", Clusters: []capi.Key{key("c")}, Patience: patience, Observe: observe})
}

func TestLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		held, unlock, err := lockC(t.Context(), locks{client: s.client(t)}, 0, nil)
		must(t, err)
		start := time.Now()
		time.Sleep(95 * time.Second)
		synctest.Wait()
		if held.Err() != nil {
			t.Error(context.Cause(held))
		}
		must(t, unlock())
		must(t, unlock())
		var at []string
		for _, w := range s.written() {
			at = append(at, w.Sub(start).String())
		}
		if got, want := strings.Join(at, " "), "0s 10s 20s 30s 40s 50s 1m0s 1m10s 1m20s 1m30s 1m35s"; got != want {
			t.Errorf("writes at %s, want %s", got, want)
		}
		if held.Err() == nil {
			t.Error("after unlock the lock is still held")
		}
		time.Sleep(time.Minute)
		if len(s.written()) != len(at) {
			t.Error("a released lock is renewed")
		}
	})
}

func TestSilentHolderLosesTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		s.edit(leaseC, holderElsewhere("elsewhere", 40))
		time.Sleep(time.Hour) // its clock, or ours, may be wrong: that it is old proves nothing
		start := time.Now()
		var told string
		_, unlock, err := lockC(t.Context(), locks{client: s.client(t)}, 0, func(seen string) { told = seen })
		must(t, err)
		if took := time.Since(start); took < 40*time.Second || took > 42*time.Second {
			t.Errorf("it was taken over after %s", took)
		}
		if want := `Cluster default/c is in use by "capplunder apply" (process 4711 of ann on elsewhere) since `; !strings.HasPrefix(told, want) || !strings.HasSuffix(told, ", if that still runs") {
			t.Errorf("told %q", told)
		}
		must(t, unlock())
	})
}

func TestLiveHolderKeepsTheLock(t *testing.T) {
	for _, patience := range []time.Duration{0, 10 * time.Minute} {
		t.Run(patience.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newLeaseServer()
				s.edit(leaseC, holderElsewhere("elsewhere", 30))
				alive, stop := context.WithCancel(t.Context())
				defer stop()
				go func() {
					for alive.Err() == nil {
						time.Sleep(25 * time.Second)
						s.edit(leaseC, holderElsewhere("elsewhere", 30))
					}
				}()
				start := time.Now()
				_, _, err := lockC(t.Context(), locks{client: s.client(t)}, patience, nil)
				var locked *LockedError
				if !errors.As(err, &locked) || locked.Holder.Host != "elsewhere" || locked.Holder.PID != 4711 {
					t.Fatal(err)
				}
				least := max(patience, 25*time.Second) // before, it might have been dead
				if took := time.Since(start); took < least || took > least+2*time.Second {
					t.Errorf("it gave up after %s", took)
				}
				stop()
				time.Sleep(26 * time.Second)
			})
		})
	}
}

func TestOutageDoesNotLoseTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		held, unlock, err := s.lockFrom(t, "a")
		must(t, err)
		s.setDown(refusing)
		time.Sleep(time.Hour)
		if held.Err() != nil {
			t.Error(context.Cause(held))
		}
		// Somebody else starts to wait just when the server is back.
		s.setDown(nil)
		before := len(s.written())
		if _, _, err := s.lockFrom(t, "b"); !errors.As(err, new(*LockedError)) {
			t.Errorf("it was taken from a holder that had no chance to renew: %v", err)
		}
		if len(s.written()) == before {
			t.Error("it was not renewed after the outage")
		}

		// Down again, it cannot be given back; that does not take forever.
		s.setDown(refusing)
		start := time.Now()
		if err := unlock(); !errors.Is(err, capi.ErrUnavailable) || !strings.Contains(err.Error(), "unlock Cluster default/c (it unlocks itself within 30s)") {
			t.Errorf("unlock: %v", err)
		}
		if took := time.Since(start); took > releaseLimit {
			t.Errorf("unlock took %s", took)
		}
	})
}

// lockFrom locks cluster c as a run of another computer, whose processes say nothing
// to those of this one.
func (s *leaseServer) lockFrom(t *testing.T, identity string) (context.Context, func() error, error) {
	t.Helper()
	l := newLeaseLock(s.client(t), "default", "capplunder-c", "Cluster default/c", "apply", clusterLease)
	l.identity, l.holder.Process = identity, process{}
	held, cancel := context.WithCancelCause(t.Context())
	h, err := l.acquire(held, 0, nil, cancel)
	if err != nil {
		return nil, nil, err
	}
	return held, func() error { return h.giveBack(held) }, nil
}

func TestWaitingThroughAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		s.edit(leaseC, holderElsewhere("elsewhere", 30))
		// The holder was silent for 20s, then nobody could speak for 20s. It is dead all the
		// same, but that is known only when it was silent for 30s in one piece.
		time.AfterFunc(20*time.Second, func() { s.setDown(refusing) })
		time.AfterFunc(40*time.Second, func() { s.setDown(nil) })
		start := time.Now()
		_, unlock, err := lockC(t.Context(), locks{client: s.client(t)}, 0, nil)
		must(t, err)
		if took := time.Since(start); took < 70*time.Second || took > 73*time.Second {
			t.Errorf("it was taken over after %s", took)
		}
		must(t, unlock())

		// A cluster that does not answer at all is not waited for.
		s.setDown(refusing)
		start = time.Now()
		if _, _, err := lockC(t.Context(), locks{client: s.client(t)}, time.Hour, nil); !errors.Is(err, capi.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		if time.Since(start) > 0 {
			t.Errorf("it took %s", time.Since(start))
		}
	})
}

func TestLockIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		held, unlock, err := lockC(t.Context(), locks{client: s.client(t)}, 0, nil)
		must(t, err)
		s.setDown(refusing)
		time.Sleep(5 * time.Minute)
		s.setDown(nil)
		s.edit(leaseC, holderElsewhere("elsewhere", 30)) // faster than our next renewal
		time.Sleep(2 * time.Second)
		synctest.Wait()
		var lost *LockLostError
		if !errors.As(context.Cause(held), &lost) || lost.What != "Cluster default/c" || lost.Holder.Host != "elsewhere" {
			t.Fatalf("cause %v", context.Cause(held))
		}
		must(t, unlock())
		if got := s.holder(leaseC); got != "elsewhere" {
			t.Errorf("unlock gave another's lock to %q", got)
		}
	})
}

// The cluster answers, but does not let us renew any more: the lock is gone when others
// could have it, for we cannot even look.
func TestRefusedRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		held, _, err := lockC(t.Context(), locks{client: s.client(t)}, 0, nil)
		must(t, err)
		s.setDown(func(r *http.Request) (*http.Response, error) {
			return failure(r, http.StatusUnauthorized, metav1.StatusReasonUnauthorized)
		})
		time.Sleep(20 * time.Second)
		if held.Err() != nil {
			t.Error("it ended too early")
		}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		var lost *LockLostError
		if !errors.As(context.Cause(held), &lost) || !strings.Contains(lost.Error(), "renew them") {
			t.Errorf("cause %v", context.Cause(held))
		}
	})
}

func TestLeaseThatSomebodyDeletedOrEmptied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		held, unlock, err := lockC(t.Context(), locks{client: s.client(t)}, 0, nil)
		must(t, err)
		identity := s.holder(leaseC)
		s.mu.Lock()
		delete(s.leases, leaseC)
		s.mu.Unlock()
		time.Sleep(11 * time.Second)
		if got := s.holder(leaseC); got != identity || held.Err() != nil {
			t.Errorf("deleted: holder %q, %v", got, context.Cause(held))
		}
		s.edit(leaseC, func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil })
		time.Sleep(11 * time.Second)
		if got := s.holder(leaseC); got != identity || held.Err() != nil {
			t.Errorf("emptied: holder %q, %v", got, context.Cause(held))
		}
		must(t, unlock())
	})
}

// Whether a write happened is unknown when there was no answer to it.
func TestTakenWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLeaseServer()
		c := s.client(t)
		lossy := &lossyTransport{leaseServer: s}
		c2, err := kube.Dial(&kube.Target{Config: jsonConfig(lossy)})
		must(t, err)
		s.edit(leaseC, func(*coordinationv1.Lease) {})
		lossy.lose = 1 // the first write
		held, unlock, err := lockC(t.Context(), locks{client: c2}, 0, nil)
		must(t, err)
		if held.Err() != nil {
			t.Error(held.Err())
		}
		must(t, unlock())

		// And when it is given up then: it keeps nobody waiting.
		ctx, cancel := context.WithCancel(t.Context())
		lossy.lose, lossy.lost = 1, cancel
		if _, _, err := lockC(ctx, locks{client: c2}, 0, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		start := time.Now()
		_, unlock, err = lockC(t.Context(), locks{client: c}, 0, nil)
		must(t, err)
		if time.Since(start) > 0 {
			t.Errorf("it had to wait %s", time.Since(start))
		}
		must(t, unlock())
	})
}

// lossyTransport loses answers to writes that were done.
type lossyTransport struct {
	*leaseServer
	lose int
	lost func()
}

func (l *lossyTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.leaseServer.RoundTrip(r)
	if r.Method == http.MethodGet || l.lose == 0 {
		return resp, err
	}
	l.lose--
	if l.lost != nil {
		l.lost()
	}
	return refusing(r)
}

func TestWatcher(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	lease := func(holder string, renewed int) *coordinationv1.Lease {
		at := metav1.NewMicroTime(start.Add(time.Duration(renewed) * time.Hour)) // of whatever clock
		seconds := int32(10)
		return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &at, LeaseDurationSeconds: &seconds}}
	}
	type look struct {
		at            int // seconds
		lease         *coordinationv1.Lease
		expired       bool
		alive, change bool
	}
	for name, looks := range map[string][]look{
		"silent": {
			{0, lease("a", -5), false, false, false},
			{9, lease("a", -5), false, false, false},
			{10, lease("a", -5), true, false, false},
		},
		"renews": {
			{0, lease("a", 0), false, false, false},
			{9, lease("a", 1), false, true, false},
			{18, lease("a", 1), false, true, false},
			{19, lease("a", 1), true, true, false},
		},
		"another holder": {
			{0, lease("a", 0), false, false, false},
			{9, lease("b", 0), false, true, true},
			{11, lease("b", 0), false, true, false},
		},
		"an outage in between": {
			{0, lease("a", 0), false, false, false},
			{9, nil, false, false, false},
			{15, lease("a", 0), false, false, false},
			{24, lease("a", 0), false, false, false},
			{25, lease("a", 0), true, false, false},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var w watcher
			for _, l := range looks {
				if l.lease == nil {
					w.restart()
					continue
				}
				expired := w.see(l.lease, time.Hour, start.Add(time.Duration(l.at)*time.Second))
				if expired != l.expired || w.alive != l.alive || w.changed != l.change {
					t.Errorf("at %ds: expired %v, alive %v, changed %v", l.at, expired, w.alive, w.changed)
				}
			}
		})
	}
}

func TestProcess(t *testing.T) {
	me := processOf(os.Getpid())
	if runtime.GOOS != "linux" { // elsewhere nothing is known of any process
		if got := me.look(os.Getpid()); me != (process{}) || got != processUnknown {
			t.Errorf("%+v: %v", me, got)
		}
		return
	}
	if got := me.look(os.Getpid()); got != processRuns {
		t.Errorf("this process: %v", got)
	}
	for name, change := range map[string]func(*process){
		"another computer":     func(p *process) { p.Boot = "x" },
		"another container":    func(p *process) { p.PIDNamespace = "x" },
		"nothing known":        func(p *process) { *p = process{} },
		"an unknown beginning": func(p *process) { p.Started = "" },
	} {
		p := me
		change(&p)
		if got := p.look(os.Getpid()); got != processUnknown {
			t.Errorf("%s: %v", name, got)
		}
	}
	reused := me
	reused.Started += "0"
	if got := reused.look(os.Getpid()); got != processGone {
		t.Errorf("another process with its ID: %v", got)
	}

	child := exec.CommandContext(t.Context(), "sleep", "600")
	must(t, child.Start())
	pid := child.Process.Pid
	p := processOf(pid)
	if got := p.look(pid); got != processRuns {
		t.Errorf("the child: %v", got)
	}
	must(t, child.Process.Signal(syscall.SIGKILL))
	eventually(t, func() error {
		if got := p.look(pid); got != processGone {
			return fmt.Errorf("killed, but nobody asked for its exit code: %v", got)
		}
		return nil
	})
	_ = child.Wait()
	if got := p.look(pid); got != processGone {
		t.Errorf("gone: %v", got)
	}
}

func TestLeaseNames(t *testing.T) {
	long := strings.Repeat("x", 253)
	for in, want := range map[string]string{
		"c":  "capplunder-c",
		long: "capplunder-" + shortHash(long, 16),
	} {
		if got := clusterLeaseName(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
	for in, want := range map[string]string{
		"https://10.0.0.1:60443":              "https://10.0.0.1:60443",
		"https://Plunder.Example/":            "https://plunder.example:443",
		"http://plunder":                      "http://plunder:80",
		"https://ann:secret@plunder:1/x/?q=1": "https://plunder:1/x",
		"https://[fe80::1]:60443":             "https://[fe80::1]:60443",
		"not a URL":                           "not a URL",
	} {
		if got := serverAddress(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[reservation]string{
		{reservesMAC, "00:50:56:a5:11:20"}:  "mac-00-50-56-a5-11-20",
		{reservesAddress, "192.168.1.10"}:   "ip-192-168-1-10",
		{reservesAddress, "fe80::"}:         "ip-h" + shortHash("fe80::", 16),
		{reservesMAC, "text \"quoted\" <>"}: "mac-h" + shortHash("text \"quoted\" <>", 16),
	} {
		if got := in.name(); got != want {
			t.Errorf("%v: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[capi.Key]string{
		key("worker"):                      "default.worker",
		{Namespace: "default", Name: long}: shortHash("default."+long, 16),
	} {
		if got := labelValue(in); got != want {
			t.Errorf("%v: %s, want %s", in, got, want)
		}
	}
}
