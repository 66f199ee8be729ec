package kube

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/plunder-app/capplunder/internal/kubetest"
	definitions "github.com/plunder-app/capplunder/pkg/install"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// capi is the release of Cluster API whose CRDs most tests use: v1beta1 only.
const capi = "v1.10.10"

var installs sync.Map // *kubetest.Env -> *sync.Once

// install puts the definitions and the role into a cluster, once, and gives the role
// to the group of those who run the program.
func install(t *testing.T, env *kubetest.Env) {
	t.Helper()
	once, _ := installs.LoadOrStore(env, new(sync.Once))
	once.(*sync.Once).Do(func() {
		admin := env.Kubeconfig(t)
		target, err := kube.Find(kube.Options{Kubeconfig: admin, UserAgent: "install", Getenv: func(string) string { return "" }})
		if err != nil {
			t.Fatal(err)
		}
		client, err := kube.Dial(target)
		if err != nil {
			t.Fatal(err)
		}
		if err := definitions.Install(t.Context(), client, definitions.Options{}, func(string, string, string) {}); err != nil {
			t.Fatal(err)
		}
		env.Kubectl(t, admin, "create", "clusterrolebinding", operators, "--clusterrole=capplunder", "--group="+operators)
	})
}

// operators is the group of users who have the shipped role and no other rights. All
// tests run the program as one of them.
const operators = "operators"

func operator(t *testing.T, env *kubetest.Env) *rest.Config {
	t.Helper()
	return env.UserConfig(t, "operator", operators)
}

// Two runs for two clusters at one plunder server with exactly as many machines as
// both need: every machine is used, none twice.
func TestTwoClustersShareOneRack(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	const each = 25
	r := newRack(t, 2*each)
	sites := []*site{newSite(t, env, r, "v1beta1", each-1), newSite(t, env, r, "v1beta1", each-1)}
	var wg sync.WaitGroup
	for _, s := range sites {
		wg.Go(func() {
			if r := s.run(append(s.apply(), "--skip-kubernetes")...); r.code != 0 {
				t.Errorf("%s", r)
			}
		})
	}
	wg.Wait()
	macs := map[string]string{}
	for _, s := range sites {
		s.provisioned()
		for name, rec := range s.records() {
			if other, ok := macs[rec.MAC]; ok {
				t.Errorf("%s is given to %s and to %s/%s", rec.MAC, other, s.namespace, name)
			}
			macs[rec.MAC] = s.namespace + "/" + name
		}
	}
	if len(macs) != 2*each {
		t.Errorf("%d machines are used, want %d", len(macs), 2*each)
	}
}

// Two runs for one cluster: one works, the other is told who does, and exits 9.
func TestTwoRunsForOneCluster(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	// The first is at work long enough for the second to see that it is alive.
	s := newSite(t, env, newRackWith(t, 2, 5*time.Second), "v1beta1", 0)
	var second, third run
	first := s.during("deployment", s.apply(), func() {
		second = s.run(s.apply()...)
		third = s.run(append(s.apply(), "--lock-timeout", "1m")...)
	})
	if first.code != 0 {
		t.Fatalf("the first: %s", first)
	}
	if second.code != 9 || !strings.Contains(second.stderr, "capplunder apply") {
		t.Errorf("the second: %s", second)
	}
	if third.code != 0 || strings.Count(third.stdout, `"type":"Skipped"`) != 1 {
		t.Errorf("the third, which waits: %s", third)
	}
	s.provisioned()
}

// A run that has nothing to do sends no write to Kubernetes, whatever the versions.
func TestSecondRunWritesNothing(t *testing.T) {
	for _, v := range []struct {
		release, version string
	}{{capi, "v1beta1"}, {"v1.14.2", "v1beta2"}, {"v0.4.8", "v1alpha4"}, {"v0.3.25", "v1alpha3"}, {"v0.3.25", "v1alpha2"}} {
		t.Run(v.version, func(t *testing.T) {
			env := kubetest.ServerWith(t, v.release)
			install(t, env)
			s := newSite(t, env, newRack(t, 3), v.version, 1)
			s.must(s.apply()...)
			s.provisioned()
			for name, rec := range s.records() {
				row := strings.Fields(s.kubectl("get", "machines."+v.version+".cluster.x-k8s.io", name, "--no-headers", "-o", "wide"))
				if !slices.Contains(row, rec.ProviderID) || !slices.ContainsFunc(row, func(c string) bool { return strings.EqualFold(c, "Running") }) {
					t.Errorf("kubectl get machines says %q", row)
				}
			}
			env.ResetAudit(t)
			for _, args := range [][]string{s.apply(), {"apply", "--cluster", "c"}} {
				if r := s.must(args...); strings.Count(r.stdout, `"type":"Skipped"`) != 2 {
					t.Errorf("%s", r)
				}
			}
			for _, e := range env.Audit(t) {
				if e.Verb != "get" && e.Verb != "list" && e.Verb != "watch" && strings.HasPrefix(e.UserAgent, "capplunder") {
					t.Errorf("write: %+v", e)
				}
			}
		})
	}
}

// The API server goes away in the middle of an apply and does not come back: the
// machine is installed all the same, its provider ID is printed, exit 4. The next
// run takes it over as it is.
func TestAPIServerGoneInTheMiddle(t *testing.T) {
	env := kubetest.Private(t)
	env.InstallCAPI(t, capi)
	install(t, env)
	s := newSite(t, env, newRack(t, 3), "v1beta1", 1)
	var once sync.Once
	r := s.start(append(s.apply(), "--record-timeout", "3s"), nil, func(line string) {
		var e struct{ Type, Step string }
		if err := json.Unmarshal([]byte(line), &e); err == nil && e.Type == "Started" && e.Step == "os" {
			once.Do(func() { env.StopAPIServer(t) })
		}
	})
	if r.code != 4 {
		t.Errorf("%s", r)
	}
	ready := 0
	for _, m := range s.rack.sim.Machines() {
		if m.HostName == "" {
			continue
		}
		ready++
		if !strings.Contains(r.stderr, "plunder://"+m.MAC) {
			t.Errorf("%s is not named: %s", m.MAC, r.stderr)
		}
	}
	if ready != 2 || !strings.Contains(r.stderr, "next: capplunder apply") {
		t.Errorf("%d machines were installed; %s", ready, r.stderr)
	}
	env.StartAPIServer(t)
	s.must(s.apply()...)
	s.provisioned()
}

// What the role does not allow is an error that names it. That it allows everything
// else is what all the other tests show.
func TestWithoutTheRole(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	s := newSite(t, env, newRack(t, 1), "v1beta1", 0)
	s.kubeconfig = env.UserKubeconfig(t, "stranger")
	r := s.run(s.apply()...)
	if r.code != 4 {
		t.Errorf("%s", r)
	}
	for _, part := range []string{"get", "customresourcedefinitions", "user stranger", "--clusterrole=capplunder"} {
		if !strings.Contains(r.stderr, part) {
			t.Errorf("%q is not named: %s", part, r.stderr)
		}
	}
}

// What is deleted with kubectl is wiped and forgotten by the next apply.
func TestKubectlDelete(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	s := newSite(t, env, newRack(t, 3), "v1beta1", 1)
	s.must(s.apply()...)
	macs := map[string]bool{}
	for _, rec := range s.records() {
		macs[rec.MAC] = true
	}
	s.kubectl("delete", "machines", "--all", "--wait=false")
	r := s.must("apply", "--cluster", "c")
	if n := strings.Count(r.stdout, `"type":"Deleted"`); n != 2 {
		t.Errorf("%d deleted: %s", n, r)
	}
	for _, m := range s.rack.sim.Machines() {
		if macs[m.MAC] && !m.Wiped {
			t.Errorf("not wiped: %+v", m)
		}
	}
	for _, kind := range []string{"machines", "plundermachines"} {
		if out := s.kubectl("get", kind, "-o", "name"); strings.TrimSpace(out) != "" {
			t.Errorf("left: %s", out)
		}
	}
	for _, line := range strings.Split(env.Kubectl(t, s.admin, "-n", "capplunder-system", "get", "leases", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.holderIdentity}{"\n"}{end}`), "\n") {
		if strings.HasSuffix(line, s.namespace+"/cp") || strings.HasSuffix(line, s.namespace+"/w01") {
			t.Errorf("still reserved: %s", line)
		}
	}
	// The Cluster without machines can go, too.
	s.kubectl("delete", "cluster", "c", "--wait=false")
	s.must("apply", "--cluster", "c")
	if out := s.kubectl("get", "clusters,plunderclusters", "-o", "name"); strings.TrimSpace(out) != "" {
		t.Errorf("left: %s", out)
	}
	// And all over again.
	s.must(s.apply()...)
	if n := len(s.records()); n != 2 {
		t.Errorf("%d machines", n)
	}
}

// With CAPI's controllers at work (their finalizers and owner references are there),
// only Plunder objects are written.
func TestManagedMachinesAreLeftAlone(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	s := newSite(t, env, newRack(t, 2), "v1beta1", 0)
	kubectl := s.kubectl
	kubectl("apply", "-f", s.manifests)
	// As a real manager leaves them.
	uid := func(kind, name string) string {
		return kubectl("get", kind, name, "-o", "jsonpath={.metadata.uid}")
	}
	patch := func(kind, name, finalizer, owner string, controller bool) {
		p := map[string]any{"metadata": map[string]any{"labels": map[string]any{"cluster.x-k8s.io/cluster-name": "c"}}}
		meta := p["metadata"].(map[string]any)
		if finalizer != "" {
			meta["finalizers"] = []string{finalizer}
		}
		if kind, name, ok := strings.Cut(owner, "/"); ok {
			meta["ownerReferences"] = []map[string]any{{
				"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": kind, "name": name, "uid": uid(strings.ToLower(kind), name),
				"controller": controller, "blockOwnerDeletion": controller,
			}}
		}
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		kubectl("patch", kind, name, "--type=merge", "-p", string(raw))
	}
	patch("cluster", "c", "cluster.cluster.x-k8s.io", "", false)
	patch("machine", "cp", "machine.cluster.x-k8s.io", "Cluster/c", false)
	patch("plundermachine", "cp", "", "Machine/cp", true)
	patch("plundercluster", "c", "", "Cluster/c", true)

	env.ResetAudit(t)
	s.must("apply", "--cluster", "c")
	s.provisioned()
	for _, e := range env.Audit(t) {
		read := e.Verb == "get" || e.Verb == "list" || e.Verb == "watch"
		if !read && e.Namespace == s.namespace && (e.Resource == "machines" || e.Resource == "clusters") {
			t.Errorf("written: %+v", e)
		}
	}
	got := kubectl("get", "plundermachine", "cp", "-o", `jsonpath={.spec.providerID} {.status.ready} {.status.initialization.provisioned}`)
	if want := fmt.Sprintf("%s true true", s.records()["cp"].ProviderID); got != want {
		t.Errorf("the PlunderMachine says %q, want %q", got, want)
	}
}

// What is paused is neither installed nor wiped, whoever asks.
func TestPausedIsLeftAlone(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	s := newSite(t, env, newRack(t, 3), "v1beta1", 1)
	s.must(s.apply()...)
	kubectl := s.kubectl
	pauses := []struct{ pause, resume []string }{
		{[]string{"annotate", "machine", "w01", "cluster.x-k8s.io/paused="}, []string{"annotate", "machine", "w01", "cluster.x-k8s.io/paused-"}},
		{[]string{"annotate", "plundermachine", "w01", "cluster.x-k8s.io/paused="}, []string{"annotate", "plundermachine", "w01", "cluster.x-k8s.io/paused-"}},
		{[]string{"patch", "cluster", "c", "--type=merge", "-p", `{"spec":{"paused":true}}`}, []string{"patch", "cluster", "c", "--type=merge", "-p", `{"spec":{"paused":null}}`}},
	}
	for _, p := range pauses {
		kubectl(p.pause...)
		before := fmt.Sprint(s.records()["w01"])
		s.rack.sim.ForgetCalls()
		if r := s.run("delete", "machine", "w01", "--yes"); r.code != 8 || !strings.Contains(r.stderr, "is paused") {
			t.Errorf("%v: %s", p.pause, r)
		}
		for _, c := range s.rack.sim.Mutations() { // its host was looked at, before it was shown
			if c.Function != "POST /parlay" || !strings.Contains(string(c.Body), "capplunder probe#") {
				t.Errorf("%v: %s", p.pause, c.Function)
			}
		}
		if after := fmt.Sprint(s.records()["w01"]); after != before {
			t.Errorf("%v: record %s, then %s", p.pause, before, after)
		}
		// A deletion that a person began with kubectl waits as well.
		if p.pause[1] == "cluster" {
			kubectl("delete", "machine", "w01", "--wait=false")
			if r := s.run("apply", "--cluster", "c"); r.code != 0 || strings.Contains(r.stdout, `"type":"Deleted"`) {
				t.Errorf("%s", r)
			}
		}
		kubectl(p.resume...)
	}
	// An apply of one machine is not about another.
	if r := s.must("apply", "machine", "cp"); strings.Contains(r.stdout, `"type":"Deleted"`) {
		t.Errorf("%s", r)
	}
	if r := s.must("apply", "machine", "w01"); strings.Count(r.stdout, `"type":"Deleted"`) != 1 {
		t.Errorf("%s", r)
	}
}
