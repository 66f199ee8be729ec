package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

func request(patience time.Duration, clusters ...capi.Key) capi.LockRequest {
	return capi.LockRequest{Command: "apply", Clusters: clusters, Patience: patience}
}

// editLease changes a lease as somebody else would.
func editLease(tb testing.TB, k *Kubernetes, namespace, name string, change func(*coordinationv1.Lease)) {
	tb.Helper()
	api := k.client.Leases.Leases(namespace)
	must(tb, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		l, err := api.Get(tb.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(l)
		_, err = api.Update(tb.Context(), l, metav1.UpdateOptions{})
		return err
	}))
}

func TestKubernetesLock(t *testing.T) {
	env := kubeServer(t)
	ns := env.Namespace(t)
	a, b := openKube(t, env.Config, 0), openKube(t, env.Config, 0)
	c, d := capi.Key{Namespace: ns, Name: "c"}, capi.Key{Namespace: ns, Name: "d"}

	held, unlock, err := a.Lock(t.Context(), request(0, c))
	must(t, err)
	l, err := a.client.Leases.Leases(ns).Get(t.Context(), "capplunder-c", metav1.GetOptions{})
	must(t, err)
	if host, _ := os.Hostname(); !strings.HasPrefix(*l.Spec.HolderIdentity, fmt.Sprintf("%s_%d_", host, os.Getpid())) ||
		*l.Spec.LeaseDurationSeconds != 30 || l.Spec.RenewTime == nil || l.Spec.AcquireTime == nil || l.Labels[labelManagedBy] != "capplunder" {
		t.Errorf("%+v", l)
	}

	// The holder is a living process of this computer, so nobody waits to find out.
	start := time.Now()
	_, _, err = b.Lock(t.Context(), request(0, d, c))
	var locked *LockedError
	if !errors.As(err, &locked) || locked.Holder.PID != os.Getpid() || locked.Holder.Command != "apply" {
		t.Fatalf("%v", err)
	}
	if time.Since(start) > 20*time.Second {
		t.Errorf("it took %s", time.Since(start))
	}
	if want := `Cluster ` + ns + `/c of cluster https://127.0.0.1:`; !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), ` is in use by "capplunder apply" (process `) {
		t.Errorf("got %s", err)
	}
	// What it had taken before it failed is free again; another cluster is nobody's business.
	_, unlockD, err := b.Lock(t.Context(), request(0, d))
	must(t, err)
	must(t, unlockD())

	// With patience it waits until the lock is free.
	var told atomic.Value
	got := make(chan error)
	go func() {
		_, unlock, err := b.Lock(t.Context(), capi.LockRequest{
			Command: "delete machine a", Clusters: []capi.Key{c, c}, Patience: time.Minute,
			Observe: func(s string) { told.Store(s) },
		})
		if err == nil {
			err = unlock()
		}
		got <- err
	}()
	eventually(t, func() error {
		if s, _ := told.Load().(string); !strings.HasPrefix(s, `Cluster `+ns+`/c is in use by "capplunder apply"`) {
			return fmt.Errorf("told %q", s)
		}
		return nil
	})
	if held.Err() != nil {
		t.Error(context.Cause(held))
	}
	must(t, unlock())
	must(t, <-got)
	l, err = a.client.Leases.Leases(ns).Get(t.Context(), "capplunder-c", metav1.GetOptions{})
	must(t, err)
	if *l.Spec.HolderIdentity != "" || l.Annotations[annotationHolder] != "" || *l.Spec.LeaseTransitions != 1 {
		t.Errorf("given back: %+v", l)
	}

	// Nothing to lock, nowhere to write.
	_, unlock, err = a.Lock(t.Context(), request(0))
	must(t, err)
	must(t, unlock())
	var missing *NamespaceError
	_, _, err = a.Lock(t.Context(), request(0, capi.Key{Namespace: ns + "-missing", Name: "c"}))
	if !errors.As(err, &missing) || missing.NextCommand() != "kubectl create namespace "+ns+"-missing" {
		t.Errorf("got %v", err)
	}
}

func TestKubernetesLockIsForbidden(t *testing.T) {
	env := kubeServer(t)
	k := openKube(t, env.Config, 0)
	forbidden, err := kube.Dial(targetOf(env.UserConfig(t, "eve")))
	must(t, err)
	forbidden.Schema = k.client.Schema
	k.client = forbidden
	var refused *kube.ForbiddenError
	if _, _, err := k.Lock(t.Context(), request(0, key("c"))); !errors.As(err, &refused) || refused.Resource != "leases.coordination.k8s.io" {
		t.Errorf("got %v", err)
	}
}

// A holder elsewhere that has died is waited for as long as it promised to be there.
func TestKubernetesStaleLock(t *testing.T) {
	env := kubeServer(t)
	ns := env.Namespace(t)
	k := openKube(t, env.Config, 2*time.Second)
	c := capi.Key{Namespace: ns, Name: "c"}
	_, unlock, err := k.Lock(t.Context(), request(0, c))
	must(t, err)
	must(t, unlock())
	editLease(t, k, ns, "capplunder-c", holderElsewhere("elsewhere", 2))

	start := time.Now()
	_, unlock, err = k.Lock(t.Context(), request(0, c))
	must(t, err)
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("taken over after %s", took)
	}
	must(t, unlock())
}

const (
	lockKubeconfigEnv = "CAPPLUNDER_TEST_LOCK_KUBECONFIG"
	lockNamespaceEnv  = "CAPPLUNDER_TEST_LOCK_NAMESPACE"
)

// TestKubernetesLockChild is the process that the next test kills; by itself it does
// nothing.
func TestKubernetesLockChild(t *testing.T) {
	path := os.Getenv(lockKubeconfigEnv)
	if path == "" {
		return
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	must(t, err)
	k := openKube(t, config, 10*time.Minute)
	_, _, err = k.Lock(t.Context(), request(0, capi.Key{Namespace: os.Getenv(lockNamespaceEnv), Name: "c"}))
	must(t, err)
	_, err = k.LockServer(t.Context(), "https://"+os.Getenv(lockNamespaceEnv))
	must(t, err)
	fmt.Println("locked")
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
}

func TestKubernetesLockOfADeadProcess(t *testing.T) {
	env := kubeServer(t)
	ns := env.Namespace(t)
	k := openKube(t, env.Config, 10*time.Minute)
	exe, err := os.Executable()
	must(t, err)
	child := exec.CommandContext(t.Context(), exe, "-test.run=^TestKubernetesLockChild$")
	child.Env = append(os.Environ(), lockKubeconfigEnv+"="+env.Kubeconfig(t), lockNamespaceEnv+"="+ns)
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	must(t, err)
	defer stdin.Close()
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	t.Cleanup(func() { kill(child) })
	line := make([]byte, len("locked\n"))
	if _, err := io.ReadFull(out, line); string(line) != "locked\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	c := capi.Key{Namespace: ns, Name: "c"}
	var locked *LockedError
	if _, _, err := k.Lock(t.Context(), request(0, c)); !errors.As(err, &locked) || locked.Holder.PID != child.Process.Pid {
		t.Errorf("while it lives: %v", err)
	}
	kill(child)
	start := time.Now()
	_, unlock, err := k.Lock(t.Context(), request(0, c))
	must(t, err)
	unlockServer, err := k.LockServer(t.Context(), "https://"+ns)
	must(t, err)
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	must(t, unlockServer())
	must(t, unlock())
}

// The API server stops, hangs, comes back, and somebody else was faster.
func TestKubernetesLockThroughAnOutage(t *testing.T) {
	env := kubetest.Private(t)
	env.InstallCAPI(t, kubetest.CAPIv1beta1)
	install(t, env)
	ns := env.Namespace(t)
	k := openKube(t, env.Config, 2*time.Second)
	c := capi.Key{Namespace: ns, Name: "c"}
	held, unlock, err := k.Lock(t.Context(), request(0, c))
	must(t, err)
	taken, err := k.client.Leases.Leases(ns).Get(t.Context(), "capplunder-c", metav1.GetOptions{})
	must(t, err)

	env.StopAPIServer(t)
	outage := time.Now()
	if _, _, err := k.Lock(t.Context(), request(time.Minute, c)); !errors.Is(err, capi.ErrUnavailable) {
		t.Errorf("a lock without a server: %v", err)
	}
	time.Sleep(time.Until(outage.Add(6 * time.Second))) // three times as long as the lock lasts
	if held.Err() != nil {
		t.Errorf("the outage ended it: %v", context.Cause(held))
	}
	env.StartAPIServer(t)
	eventually(t, func() error {
		l, err := k.client.Leases.Leases(ns).Get(t.Context(), "capplunder-c", metav1.GetOptions{})
		switch {
		case err != nil:
			return err
		case *l.Spec.HolderIdentity != *taken.Spec.HolderIdentity:
			return fmt.Errorf("held by %s", *l.Spec.HolderIdentity)
		case !l.Spec.RenewTime.After(outage):
			return errors.New("not renewed after the outage")
		}
		return nil
	})
	if held.Err() != nil {
		t.Errorf("after the outage: %v", context.Cause(held))
	}

	// Giving back does not wait for a server that hangs.
	other, unlockOther, err := k.Lock(t.Context(), request(0, capi.Key{Namespace: ns, Name: "d"}, capi.Key{Namespace: ns, Name: "e"}))
	must(t, err)
	env.PauseAPIServer(t)
	start := time.Now()
	err = unlockOther()
	if took := time.Since(start); took > 2*releaseLimit {
		t.Errorf("unlock took %s", took)
	}
	if !errors.Is(err, capi.ErrUnavailable) || !strings.Contains(err.Error(), "unlock Cluster "+ns+"/d (it unlocks itself within 2s)") {
		t.Errorf("unlock: %v", err)
	}
	if other.Err() == nil {
		t.Error("it is still held")
	}
	env.ResumeAPIServer(t)

	eventually(t, func() error { // it may need a moment to find its tongue
		_, err := k.client.Leases.Leases(ns).Get(t.Context(), "capplunder-c", metav1.GetOptions{})
		return err
	})
	editLease(t, k, ns, "capplunder-c", holderElsewhere("elsewhere", 60))
	select {
	case <-held.Done():
	case <-time.After(time.Minute):
		t.Fatal("the lock is another's, and its holder does not know")
	}
	var lost *LockLostError
	if !errors.As(context.Cause(held), &lost) || lost.Holder.Host != "elsewhere" || lost.What != "Cluster "+ns+"/c" {
		t.Errorf("cause %v", context.Cause(held))
	}
	must(t, unlock())
	l, err := k.client.Leases.Leases(ns).Get(t.Context(), "capplunder-c", metav1.GetOptions{})
	must(t, err)
	if *l.Spec.HolderIdentity != "elsewhere" {
		t.Errorf("unlock gave another's lock to %q", *l.Spec.HolderIdentity)
	}
}

// Runs that want the same clusters, named in any order, all get them in turn.
func TestKubernetesLocksOfManyClusters(t *testing.T) {
	env := kubeServer(t)
	ns := env.Namespace(t)
	names := []capi.Key{{Namespace: ns, Name: "a"}, {Namespace: ns, Name: "b"}, {Namespace: ns, Name: "c"}}
	var wg sync.WaitGroup
	var inside atomic.Int32
	for i := range 4 {
		k := openKube(t, env.Config, 0)
		mine := slices.Clone(names)
		for range i {
			mine = append(mine[1:], mine[0])
		}
		wg.Go(func() {
			for range 3 {
				_, unlock, err := k.Lock(t.Context(), request(2*time.Minute, mine...))
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the same locks")
				}
				inside.Add(-1)
				if err := unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestKubernetesServerLock(t *testing.T) {
	env := kubeServer(t)
	url := "https://" + env.Namespace(t) + ".example"
	var wg sync.WaitGroup
	var inside, turns atomic.Int32
	for i := range 5 {
		k := openKube(t, env.Config, 0)
		wg.Go(func() {
			for range 4 {
				unlock, err := k.LockServer(t.Context(), []string{url, url + ":443/"}[i%2])
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the lock of one server")
				}
				turns.Add(1)
				inside.Add(-1)
				if err := unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if turns.Load() != 20 {
		t.Errorf("%d turns", turns.Load())
	}
	// For people who wonder what it is.
	k := openKube(t, env.Config, time.Second)
	name := "server-" + shortHash(url+":443", 8)
	l, err := k.client.Leases.Leases(SystemNamespace).Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	if l.Annotations[annotationServer] != url+":443" {
		t.Errorf("%v", l.Annotations)
	}

	// A holder that died is waited out, one that is lost is told of.
	editLease(t, k, SystemNamespace, name, holderElsewhere("elsewhere", 1))
	unlock, err := k.LockServer(t.Context(), url)
	must(t, err)
	editLease(t, k, SystemNamespace, name, holderElsewhere("elsewhere", 600))
	var lost *LockLostError
	if err := unlock(); !errors.As(err, &lost) {
		t.Errorf("got %v", err)
	}

	// Interrupted while waiting.
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := k.LockServer(ctx, url); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
