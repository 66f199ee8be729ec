package kube

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/plunder-app/capplunder/internal/kubetest"
)

// gate is a proxy before the API server that sees every write.
type gate struct {
	url    string
	writes atomic.Int64
	// onWrite is called with the number of a write, before it is passed on or after
	// it was answered.
	onWrite atomic.Pointer[func(n int64, answered bool)]
}

func newGate(t *testing.T, env *kubetest.Env) *gate {
	t.Helper()
	g := &gate{}
	proxy := apiProxy(t, env)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			proxy.ServeHTTP(w, r)
			return
		}
		n := g.writes.Add(1)
		if f := g.onWrite.Load(); f != nil {
			(*f)(n, false)
		}
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		if f := g.onWrite.Load(); f != nil {
			(*f)(n, true)
		}
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	g.url = server.URL
	return g
}

// through makes the site talk to the API server through the gate.
func (s *site) through(g *gate) {
	s.t.Helper()
	s.throughURL(g.url)
}

// throughURL makes the site talk to the API server through a proxy.
func (s *site) throughURL(proxy string) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: gate, cluster: {server: %q}}]
users: [{name: gate, user: {}}]
contexts: [{name: gate, context: {cluster: gate, user: gate, namespace: %s}}]
current-context: gate
`, proxy, s.namespace)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.kubeconfig = path
}

// killed runs the program until its n-th write, before or after the API server has
// handled it.
func (s *site) killed(g *gate, n int64, answered bool, args ...string) bool {
	s.t.Helper()
	g.writes.Store(0)
	var done atomic.Bool
	s.start(args, func(kill func()) {
		strike := func(i int64, a bool) {
			if i == n && a == answered && !done.Swap(true) {
				kill()
			}
		}
		g.onWrite.Store(&strike)
	}, nil)
	g.onWrite.Store(nil)
	return done.Load()
}

// Killed at every write to Kubernetes, before and after it: the next run converges,
// nothing is installed twice, and a run after that writes nothing.
func TestKilledAtEveryWrite(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	count := func() int64 {
		s := newSite(t, env, newRack(t, 3), "v1beta1", 1)
		g := newGate(t, env)
		s.through(g)
		s.must(s.apply()...)
		s.provisioned()
		return g.writes.Load()
	}
	writes := count()
	t.Logf("an apply makes %d writes; it is killed before and after each of them", writes)
	if writes < 20 {
		t.Errorf("suspiciously few")
	}
	for n := range writes {
		for _, answered := range []bool{false, true} {
			t.Run(fmt.Sprintf("write-%d-answered-%t", n+1, answered), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, env, newRack(t, 3), "v1beta1", 1)
				g := newGate(t, env)
				s.through(g)
				if !s.killed(g, n+1, answered, s.apply()...) {
					t.Logf("it ended before")
				}
				s.must(s.apply()...)
				s.provisioned()
				g.writes.Store(0)
				s.rack.sim.ForgetCalls()
				r := s.must(s.apply()...)
				if w, m := g.writes.Load(), s.rack.sim.Mutations(); w > 0 || len(m) > 0 || strings.Count(r.stdout, `"type":"Skipped"`) != 2 {
					t.Errorf("a third run changes nothing, but: %d writes, %v\n%s", w, m, r)
				}
			})
		}
	}
}

// The same for a delete: the machine is wiped, nothing is installed, and nothing of it
// is left behind in Kubernetes.
func TestKilledDeleteAtEveryWrite(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	remove := []string{"delete", "machine", "w01", "--yes"}
	setUp := func(t *testing.T) (*site, *gate) {
		t.Helper()
		s := newSite(t, env, newRack(t, 3), "v1beta1", 1)
		s.must(append(s.apply(), "--skip-kubernetes")...)
		g := newGate(t, env)
		s.through(g)
		return s, g
	}
	s, g := setUp(t)
	s.must(remove...)
	writes := g.writes.Load()
	t.Logf("a delete makes %d writes; it is killed before and after each of them", writes)
	for n := range writes {
		for _, answered := range []bool{false, true} {
			t.Run(fmt.Sprintf("write-%d-answered-%t", n+1, answered), func(t *testing.T) {
				t.Parallel()
				s, g := setUp(t)
				mac := s.records()["w01"].MAC
				s.killed(g, n+1, answered, remove...)
				// Deleted already counts as deleted: then there is nothing left to name.
				if r := s.run(remove...); r.code != 0 && !strings.Contains(r.stderr, "has no Machine") {
					t.Fatalf("%s", r)
				}
				for _, m := range s.rack.sim.Machines() {
					if m.MAC == mac && (!m.Wiped || m.Installs != 1) {
						t.Errorf("%+v", m)
					}
				}
				if left := s.kubectl("get", "machines,plundermachines", "-o", "name"); strings.Contains(left, "w01") {
					t.Errorf("left: %s", left)
				}
				leases := env.Kubectl(t, s.admin, "-n", "capplunder-system", "get", "leases", "-o", `jsonpath={.items[*].spec.holderIdentity}`)
				if strings.Contains(leases, s.namespace+"/w01") {
					t.Errorf("still reserved: %s", leases)
				}
			})
		}
	}
}
