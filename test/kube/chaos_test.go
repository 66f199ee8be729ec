package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/test/program"
)

// chaosSeeds is how many seeds the chaos tests run with, chaosFirst the first of them:
// go test ./test/kube -run Chaos -chaos.seeds 50
var (
	chaosSeeds = flag.Int("chaos.seeds", 3, "number of seeds of the chaos tests")
	chaosFirst = flag.Int("chaos.first", 1, "first seed of the chaos tests")
)

// fault is what becomes of one request.
type fault int

const (
	noFault      fault = iota
	refuse500          // not handled: 500
	refuse503          // not handled: 503 with Retry-After
	refuse429          // not handled: 429 with Retry-After
	conflict           // a write that is not handled: 409
	cutBefore          // the connection is cut, the request never arrived
	cutAfter           // handled, but the connection is cut before the answer
	answer500          // handled, but the answer says 500
	lateConflict       // a write that is handled, but the answer is 409, as a retrying proxy gives it
	delay              // handled, 50 to 250 ms late; once in a run after the client has given up
	kinds
)

// chaos is a proxy before the API server whose faults are drawn from a seed: what
// becomes of the n-th request of one kind for one object is always the same, whatever
// else is under way.
type chaos struct {
	url    string
	seed   atomic.Int64
	rate   atomic.Int64 // faults per thousand requests; 0 is a healthy server
	grace  atomic.Int64 // how many requests are served well first
	writes atomic.Int64

	mu     sync.Mutex
	times  map[string]int
	log    []string
	late   bool   // a request was handled after the client had given up
	strike func() // at the write that killAt counts down to
	killAt int64
}

func newChaos(t *testing.T, env *kubetest.Env) *chaos {
	t.Helper()
	c := &chaos{times: map[string]int{}}
	proxy := apiProxy(t, env)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(proxy, w, r) }))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// begin draws the faults of one run.
func (c *chaos) begin(seed int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.times)
	c.log, c.late = nil, false
	c.seed.Store(seed)
	c.rate.Store([]int64{30, 90, 200}[seed%3])
	c.grace.Store(seed * 37 % 97)
}

// heal ends the faults.
func (c *chaos) heal() {
	c.rate.Store(0)
	c.writes.Store(0)
}

// onWrite calls strike before the n-th write from now on is looked at.
func (c *chaos) onWrite(n int64, strike func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killAt, c.strike = n, strike
}

// draw says what becomes of a request.
func (c *chaos) draw(r *http.Request) (fault, uint64) {
	rate := uint64(c.rate.Load())
	if rate == 0 || c.grace.Add(-1) >= 0 {
		return noFault, 0
	}
	what := r.Method + " " + r.URL.Path
	c.mu.Lock()
	defer c.mu.Unlock()
	c.times[what]++
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %d", c.seed.Load(), what, c.times[what])
	n := h.Sum64()
	n ^= n >> 29
	if n%1000 >= rate {
		return noFault, n
	}
	f := fault(1 + n/1000%uint64(kinds-1))
	if r.Method == http.MethodGet && (f == conflict || f == lateConflict) {
		f = delay
	}
	c.log = append(c.log, fmt.Sprintf("%d %s", f, what))
	return f, n / 1000 / uint64(kinds)
}

// once is true the first time in a run.
func (c *chaos) once() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.late
	c.late = true
	return first
}

func (c *chaos) serve(proxy http.Handler, w http.ResponseWriter, r *http.Request) {
	// A server sees that a client has gone only after it has read the whole request.
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // killed while it was sending
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.Method != http.MethodGet {
		c.writes.Add(1)
		c.mu.Lock()
		if c.killAt--; c.killAt == 0 && c.strike != nil {
			c.strike()
		}
		c.mu.Unlock()
	}
	f, n := c.draw(r)
	switch f {
	case refuse500:
		answer(w, http.StatusInternalServerError, "InternalError", "etcdserver: leader changed")
		return
	case refuse503:
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusServiceUnavailable, "ServiceUnavailable", "apiserver is shutting down")
		return
	case refuse429:
		w.Header().Set("Retry-After", "1")
		answer(w, http.StatusTooManyRequests, "TooManyRequests", "too many requests, please try again later")
		return
	case conflict:
		answer(w, http.StatusConflict, "Conflict", "the object has been modified")
		return
	case cutBefore:
		cut(w)
		return
	case delay:
		time.Sleep(time.Duration(50+n%200) * time.Millisecond)
		if n%8 == 0 && c.once() {
			select {
			case <-r.Context().Done():
			case <-time.After(patience):
			}
		}
	default:
	}
	// Whether the client still waits is nothing to the API server.
	got := httptest.NewRecorder()
	proxy.ServeHTTP(got, r.WithContext(context.WithoutCancel(r.Context())))
	switch f {
	case cutAfter:
		cut(w)
		return
	case answer500:
		answer(w, http.StatusInternalServerError, "InternalError", "etcdserver: request timed out")
		return
	case lateConflict:
		answer(w, http.StatusConflict, "Conflict", "the object has been modified")
		return
	default:
	}
	for k, v := range got.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(got.Code)
	_, _ = io.Copy(w, got.Body)
}

// answer is an error of the API.
func answer(w http.ResponseWriter, code int, reason, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
	})
}

// cut ends the connection without an answer.
func cut(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// fits checks how a run under chaos ended: with a code and a text for what can go
// wrong, and a command to type next.
func (s *site) fits(r run, codes ...int) {
	s.t.Helper()
	if !slices.Contains(append(codes, 0, 4, 6), r.code) || strings.Contains(r.stderr, "panic") || strings.Contains(r.stderr, "goroutine ") ||
		r.code != 0 && !strings.Contains(r.stderr, "next: ") {
		s.t.Errorf("%s", r)
	}
}

// settled checks that Kubernetes, plunder and the reservations agree.
func (s *site) settled(c *chaos) {
	s.t.Helper()
	s.provisioned()
	want := map[string]bool{}
	for name, rec := range s.records() {
		key := s.namespace + "/" + name
		want["mac-"+strings.ReplaceAll(rec.MAC, ":", "-")+" "+key] = true
		want["ip-"+strings.ReplaceAll(rec.Address, ".", "-")+" "+key] = true
	}
	for _, lease := range s.reservations() {
		if !want[lease] {
			s.t.Errorf("reserved for nobody: %s", lease)
		}
		delete(want, lease)
	}
	if len(want) > 0 {
		s.t.Errorf("not reserved: %v", want)
	}
	used := 0
	for _, m := range s.rack.sim.Machines() {
		if m.Installs > 1 {
			s.t.Errorf("installed %d times: %+v", m.Installs, m)
		}
		used += m.Installs
	}
	c.heal()
	s.rack.sim.ForgetCalls()
	r := s.must(s.apply()...)
	if w, m := c.writes.Load(), s.rack.sim.Mutations(); w > 0 || len(m) > 0 || strings.Count(r.stdout, `"type":"Skipped"`) != len(s.machines) {
		s.t.Errorf("a run with nothing to do: %d writes, %v\n%s", w, m, r)
	}
}

// reservations are the Leases of MACs and addresses of the site's machines: "name holder".
func (s *site) reservations() []string {
	s.t.Helper()
	var mine []string
	all := s.env.Kubectl(s.t, s.admin, "-n", "capplunder-system", "get", "leases", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.holderIdentity}{"\n"}{end}`)
	for line := range strings.SplitSeq(all, "\n") {
		if _, holder, _ := strings.Cut(line, " "); strings.HasPrefix(holder, s.namespace+"/") {
			mine = append(mine, line)
		}
	}
	return mine
}

// installs is how often a machine of the rack was installed, in all.
func (s *site) installs() (n int) {
	for _, m := range s.rack.sim.Machines() {
		n += m.Installs
	}
	return n
}

// Whatever becomes of single requests, a run ends with a word that fits, and the next
// one with a healthy API server converges; the same for a deletion.
func TestChaos(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	for i := range *chaosSeeds {
		seed := int64(*chaosFirst + i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, env, newRack(t, 5), "v1beta1", 3)
			c := newChaos(t, env)
			s.throughURL(c.url)
			ended := ""
			for try := range int64(3) {
				c.begin(seed*10 + try)
				r := s.run(append(s.apply(), "--record-timeout", "5s")...)
				s.fits(r)
				ended += fmt.Sprintf(" %d(%d)", r.code, len(c.log))
				if r.code == 0 {
					break
				}
			}
			c.heal()
			s.must(s.apply()...)
			s.settled(c)
			if n := s.installs(); n != len(s.machines) {
				t.Errorf("%d installations", n)
			}

			mac := s.records()["w02"].MAC
			remove := []string{"delete", "machine", "w02", "--yes"}
			for try := range int64(3) {
				c.begin(seed*10 + 5 + try)
				r := s.run(remove...)
				if !s.gone(r) {
					s.fits(r)
				}
				ended += fmt.Sprintf(" d%d(%d)", r.code, len(c.log))
				if r.code == 0 {
					break
				}
			}
			c.heal()
			if r := s.run(remove...); r.code != 0 && !s.gone(r) {
				t.Errorf("%s", r)
			}
			for _, m := range s.rack.sim.Machines() {
				if m.MAC == mac && (!m.Wiped || m.Installs != 1) {
					t.Errorf("%+v", m)
				}
			}
			s.machines = slices.DeleteFunc(s.machines, func(name string) bool { return name == "w02" })
			if left := s.kubectl("get", "machines,plundermachines", "-o", "name"); strings.Contains(left, "w02") {
				t.Errorf("left: %s", left)
			}
			for _, lease := range s.reservations() {
				if strings.HasSuffix(lease, "/w02") {
					t.Errorf("still reserved: %s", lease)
				}
			}
			t.Logf("ended with%s", ended)
		})
	}
}

// gone reports whether a run says that the machine to delete is not there any more.
func (s *site) gone(r run) bool {
	return r.code == 2 && strings.Contains(r.stderr, "has no Machine")
}

// during runs the program and does something when it has begun a step for the first time.
func (s *site) during(step string, args []string, do func()) run {
	s.t.Helper()
	var once sync.Once
	return s.start(args, nil, func(line string) {
		var e struct{ Type, Step string }
		if err := json.Unmarshal([]byte(line), &e); err == nil && e.Type == "Started" && e.Step == step {
			once.Do(do)
		}
	})
}

// What people do to objects while a run is at work, or between two.
func TestPeopleInTheMiddle(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	setUp := func(t *testing.T) (*site, *chaos) {
		t.Helper()
		t.Parallel()
		s := newSite(t, env, newRack(t, 4), "v1beta1", 1)
		c := newChaos(t, env)
		s.throughURL(c.url)
		return s, c
	}
	t.Run("the lock is deleted", func(t *testing.T) {
		s, c := setUp(t)
		r := s.during("os", s.apply(), func() { s.kubectl("delete", "lease", "--all") })
		if r.code != 0 {
			t.Errorf("%s", r)
		}
		s.settled(c)
	})
	t.Run("the lock is deleted and another run begins", func(t *testing.T) {
		s, c := setUp(t)
		var second run
		// For a moment both are at work, and stand in each other's way.
		first := s.during("hardware", append(s.apply(), "--timeout", "15s"), func() {
			s.kubectl("delete", "lease", "--all")
			second = s.run(append(s.apply(), "--timeout", "10s")...)
		})
		s.fits(first, 7, 9)
		s.fits(second, 7, 9)
		s.must(s.apply()...)
		s.settled(c)
		if n := s.installs(); n != len(s.machines) {
			t.Errorf("%d installations", n)
		}
	})
	t.Run("a PlunderMachine is forced away", func(t *testing.T) {
		s, _ := setUp(t)
		r := s.during("os", s.apply(), func() {
			s.kubectl("patch", "plundermachine", "w01", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
			s.kubectl("delete", "plundermachine", "w01")
		})
		s.fits(r)
		r = s.run(s.apply()...)
		// Nobody knows what runs on that hardware: it stays reserved until a person says so.
		if r.code == 0 || !strings.Contains(r.stderr, "kubectl delete lease") {
			t.Errorf("%s", r)
		}
		if n := s.installs(); n != len(s.machines) {
			t.Errorf("%d installations", n)
		}
	})
	t.Run("the namespace is being deleted", func(t *testing.T) {
		s, _ := setUp(t)
		r := s.during("os", s.apply(), func() { s.kubectl("delete", "namespace", s.namespace, "--wait=false") })
		s.fits(r)
		r = s.run(s.apply()...)
		s.fits(r)
	})
	t.Run("the record is not JSON", func(t *testing.T) {
		s, c := setUp(t)
		s.must(s.apply()...)
		good := s.kubectl("get", "plundermachine", "w01", "-o", `jsonpath={.metadata.annotations.capplunder\.plunder-app\.io/record}`)
		s.kubectl("annotate", "--overwrite", "plundermachine", "w01", "capplunder.plunder-app.io/record={")
		for _, args := range [][]string{s.apply(), {"apply", "--cluster", "c"}, {"delete", "machine", "cp", "--yes"}, {"get", "machines"}} {
			r := s.run(args...)
			if r.code != 4 || !strings.Contains(r.stderr, s.namespace+"/w01") || !strings.Contains(r.stderr, "kubectl edit") {
				t.Errorf("%v: %s", args, r)
			}
		}
		// That is nothing to others.
		other := newSite(t, env, newRack(t, 1), "v1beta1", 0)
		other.must(append(other.apply(), "--skip-kubernetes")...)
		s.kubectl("annotate", "--overwrite", "plundermachine", "w01", "capplunder.plunder-app.io/record="+good)
		s.settled(c)
	})
	t.Run("the record is edited in the middle", func(t *testing.T) {
		s, _ := setUp(t)
		r := s.during("os", s.apply(), func() {
			s.kubectl("annotate", "--overwrite", "plundermachine", "w01", "capplunder.plunder-app.io/record={")
		})
		s.fits(r)
	})
	t.Run("a ready machine is to be another", func(t *testing.T) {
		s, c := setUp(t)
		s.must(s.apply()...)
		for _, p := range []struct {
			kind, field, now, before string
			code                     int
			says                     string
		}{
			{"plundermachine", "macaddress", `"00:50:56:00:00:01"`, "null", 6, "spec.macaddress of PlunderMachine " + s.namespace + "/w01"},
			{"plundermachine", "ipaddress", `"10.255.0.1"`, fmt.Sprintf("%q", s.records()["w01"].Address), 8, "capplunder delete machine"},
			{"machine", "version", `"v1.33.0"`, `"v1.34.1"`, 0, "delete the machine to install v1.33.0"},
		} {
			before := s.records()
			s.kubectl("patch", p.kind, "w01", "--type=merge", "-p", fmt.Sprintf(`{"spec":{%q:%s}}`, p.field, p.now))
			r := s.run("apply", "--cluster", "c")
			if r.code != p.code || !strings.Contains(r.stderr+r.stdout, p.says) || !maps.Equal(before, s.records()) {
				t.Errorf("%s: %s", p.field, r)
			}
			s.kubectl("patch", p.kind, "w01", "--type=merge", "-p", fmt.Sprintf(`{"spec":{%q:%s}}`, p.field, p.before))
		}
		s.settled(c)
	})
	t.Run("a Machine gets another name", func(t *testing.T) {
		s, _ := setUp(t)
		s.must(s.apply()...)
		before := s.records()["w01"]
		text := s.kubectl("get", "machine", "w01", "-o", "json")
		var m map[string]any
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		s.kubectl("patch", "machine", "w01", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
		s.kubectl("delete", "machine", "w01")
		m["metadata"] = map[string]any{"name": "renamed", "labels": m["metadata"].(map[string]any)["labels"]}
		delete(m, "status")
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		file := s.home + "/renamed.json"
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		s.kubectl("apply", "-f", file)
		r := s.run("apply", "--cluster", "c")
		if r.code != 8 || !strings.Contains(r.stderr, "capplunder delete machine") {
			t.Errorf("%s", r)
		}
		if now := s.records()["w01"]; now != before || s.installs() != len(s.machines) {
			t.Errorf("%+v, %d installations", now, s.installs())
		}
	})
	t.Run("the definitions are installed again", func(t *testing.T) {
		s, c := setUp(t)
		r := s.during("os", s.apply(), func() {
			if r := program.Do(t, program.Options{Args: []string{"init", "--kubeconfig", s.admin}, Patience: patience}); r.Code != 0 {
				t.Errorf("%s", r)
			}
		})
		if r.code != 0 {
			t.Errorf("%s", r)
		}
		s.settled(c)
	})
}

// Two clusters at one plunder server, both under chaos, one of them killed now and then:
// no hardware goes to both.
func TestChaosAtOneRack(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	for i := range *chaosSeeds {
		seed := int64(*chaosFirst + i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := newRack(t, 6)
			sites := []*site{newSite(t, env, r, "v1beta1", 2), newSite(t, env, r, "v1beta1", 2)}
			proxies := []*chaos{newChaos(t, env), newChaos(t, env)}
			each := func(f func(s *site, c *chaos, i int64)) {
				var wg sync.WaitGroup
				for i, s := range sites {
					wg.Go(func() { f(s, proxies[i], int64(i)) })
				}
				wg.Wait()
			}
			each(func(s *site, c *chaos, i int64) {
				s.throughURL(c.url)
				c.begin(seed*20 + i)
				if i == 1 {
					at := seed * 13 % 60
					s.start(s.apply(), func(kill func()) { c.onWrite(at, kill) }, nil)
					c.onWrite(0, nil)
					c.begin(seed*20 + 10)
				}
				s.fits(s.run(append(s.apply(), "--record-timeout", "5s", "--hardware-timeout", "30s")...), 5)
			})
			each(func(s *site, c *chaos, _ int64) {
				c.heal()
				s.must(s.apply()...)
			})
			macs := map[string]string{}
			for i, s := range sites {
				s.settled(proxies[i])
				for name, rec := range s.records() {
					if other, ok := macs[rec.MAC]; ok {
						t.Errorf("%s is given to %s and to %s/%s", rec.MAC, other, s.namespace, name)
					}
					macs[rec.MAC] = s.namespace + "/" + name
				}
			}
			if n := sites[0].installs(); n != 6 {
				t.Errorf("%d installations", n)
			}
		})
	}
}
