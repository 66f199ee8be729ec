package state

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// manifests are a cluster "c" with one control plane machine "cp" and workers, in an
// API version.
func manifests(version, namespace string, workers ...string) string {
	ref := func(kind, name string) string {
		if version == "v1beta2" {
			return fmt.Sprintf("{apiGroup: infrastructure.cluster.x-k8s.io, kind: %s, name: %s}", kind, name)
		}
		return fmt.Sprintf("{apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: %s, name: %s}", kind, name)
	}
	endpoint := "" // as many manifests have it; v1beta2 refuses it
	if version != "v1beta2" && version != "v1alpha2" {
		endpoint = "\n  controlPlaneEndpoint: {host: \"\", port: 0}"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: cluster.x-k8s.io/%s
kind: Cluster
metadata: {name: c, namespace: %s}
spec:
  clusterNetwork: {pods: {cidrBlocks: ["10.244.0.0/16"]}}
  infrastructureRef: %s%s
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderCluster
metadata: {name: c, namespace: %s}
`, version, namespace, ref("PlunderCluster", "c"), endpoint, namespace)
	for i, name := range append([]string{"cp"}, workers...) {
		labels, spec := "cluster.x-k8s.io/cluster-name: c", `bootstrap: {data: ""}`
		if version != "v1alpha2" {
			labels, spec = `team: blue`, "clusterName: c\n  bootstrap: {dataSecretName: \"\"}"
		}
		if i == 0 {
			labels += `, cluster.x-k8s.io/control-plane: "true"`
		}
		fmt.Fprintf(&b, `---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: %s-infra, namespace: %s}
spec: {ipaddress: 192.168.1.%d, deploymentType: preseed}
---
apiVersion: cluster.x-k8s.io/%s
kind: Machine
metadata: {name: %s, namespace: %s, labels: {%s}}
spec:
  version: v1.34.1
  %s
  infrastructureRef: %s
`, name, namespace, 10+i, version, name, namespace, labels, spec, ref("PlunderMachine", name+"-infra"))
	}
	return b.String()
}

// decode reads manifests as apply -f does.
func decode(t *testing.T, text string) *capi.Set {
	t.Helper()
	docs, err := Files(t.Context(), FileOptions{Paths: []string{stdinName}, Stdin: strings.NewReader(text)})
	must(t, err)
	set, err := capi.Decode(docs)
	must(t, err)
	return set
}

// readyRecord is that of the i-th machine of manifests, provisioned.
func readyRecord(namespace, name string, i int) capi.Record {
	mac := fmt.Sprintf("00:50:56:a5:11:%02x", i)
	return capi.Record{
		Key:            capi.Key{Namespace: namespace, Name: name},
		PlunderMachine: capi.Key{Namespace: namespace, Name: name + "-infra"},
		Cluster:        "c", ControlPlane: i == 0, Version: "v1.34.1", Kubernetes: "v1.34.1", DeploymentType: "preseed",
		MAC: mac, Address: fmt.Sprintf("192.168.1.%d", 10+i), HostName: name + "-x7f3q",
		NodeName: name + "-x7f3q", NodeUID: "8a4b5e9c-0000-4000-8000-000000000000",
		ProviderID: capi.ProviderID(mac), Ready: true, Phase: capi.PhaseRunning,
		UpdatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func readyCluster(namespace string) capi.ClusterRecord {
	k := capi.Key{Namespace: namespace, Name: "c"}
	return capi.ClusterRecord{
		Key: k, PlunderCluster: k, Endpoint: capi.Endpoint{Host: "192.168.1.10", Port: 6443},
		InitMachine: "cp", Initialized: true, Ready: true, Phase: capi.PhaseProvisioned,
	}
}

// newStore is a store that has read nothing yet, with claims of its own.
func newStore(t *testing.T, env *kubetest.Env, claims string) *Kubernetes {
	t.Helper()
	k := openKube(t, env.Config, 0)
	k.claims = reservations{client: k.client, namespace: claims}
	return k
}

// provision does what a run does for all machines of a set.
func provision(t *testing.T, k *Kubernetes, set *capi.Set) {
	t.Helper()
	must(t, k.Sync(t.Context(), set))
	ns := set.Clusters[0].Namespace
	must(t, k.SaveClusterRecord(t.Context(), readyCluster(ns)))
	for i, m := range set.Machines {
		must(t, k.SaveRecord(t.Context(), readyRecord(ns, m.Name, i)))
	}
}

// writesIn are the writes in a namespace since ResetAudit, dry runs included: those are
// requests of a write's verb, too.
func writesIn(t *testing.T, env *kubetest.Env, namespace string) []string {
	t.Helper()
	var writes []string
	for _, e := range env.Audit(t) {
		if e.Namespace == namespace && !slices.Contains([]string{"get", "list", "watch"}, e.Verb) {
			writes = append(writes, e.String())
		}
	}
	return writes
}

func live(t *testing.T, k *Kubernetes, r kube.Resource, namespace, name string) object {
	t.Helper()
	u, err := k.fetch(t.Context(), r, capi.Key{Namespace: namespace, Name: name})
	must(t, err)
	if u == nil {
		t.Fatalf("there is no %s %s/%s", r.Kind, namespace, name)
	}
	return u.Object
}

// What the objects say in each API version that can be served without a conversion
// webhook, and that a second run writes nothing.
func TestKubeVersions(t *testing.T) {
	const (
		ready = `addresses: 192.168.1.11 worker-x7f3q`
		node  = `{"apiVersion":"v1","kind":"Node","name":"worker-x7f3q","uid":"8a4b5e9c-0000-4000-8000-000000000000"}`
	)
	for _, tt := range []struct {
		capi, version   string
		machine, status string // what kubectl's columns are made of
		cluster         string
	}{
		{
			kubetest.CAPIv1alpha3, "v1alpha2", "plunder://00:50:56:a5:11:01",
			`{"bootstrapReady":true,"infrastructureReady":true,"nodeRef":` + node + `,"phase":"running"}`,
			`{"controlPlaneInitialized":true,"infrastructureReady":true,"phase":"provisioned"}`,
		},
		{
			kubetest.CAPIv1alpha3, "v1alpha3", "plunder://00:50:56:a5:11:01",
			`{"bootstrapReady":true,"infrastructureReady":true,"nodeRef":` + node + `,"phase":"Running"}`,
			`{"controlPlaneInitialized":true,"infrastructureReady":true,"phase":"Provisioned"}`,
		},
		{
			kubetest.CAPIv1alpha4, "v1alpha4", "plunder://00:50:56:a5:11:01",
			`{"bootstrapReady":true,"infrastructureReady":true,"nodeRef":` + node + `,"phase":"Running"}`,
			`{"controlPlaneReady":true,"infrastructureReady":true,"phase":"Provisioned"}`,
		},
		{
			kubetest.CAPIv1beta1, "v1beta1", "plunder://00:50:56:a5:11:01",
			`{"bootstrapReady":true,"infrastructureReady":true,"nodeRef":` + node + `,"phase":"Running"}`,
			`{"controlPlaneReady":true,"infrastructureReady":true,"phase":"Provisioned"}`,
		},
		{
			kubetest.CAPIv1beta2, "v1beta2", "plunder://00:50:56:a5:11:01",
			`{"initialization":{"bootstrapDataSecretCreated":true,"infrastructureProvisioned":true},"nodeRef":{"name":"worker-x7f3q"},"phase":"Running"}`,
			`{"initialization":{"controlPlaneInitialized":true,"infrastructureProvisioned":true},"phase":"Provisioned"}`,
		},
	} {
		t.Run(tt.version, func(t *testing.T) {
			var env *kubetest.Env
			if tt.capi == kubetest.CAPIv1beta1 {
				env = kubeServer(t)
			} else {
				env = kubetest.Private(t) // one at a time: they take memory
				env.InstallCAPI(t, tt.capi)
				install(t, env)
			}
			ns := env.Namespace(t)
			text := manifests(tt.version, ns, "worker")
			k := newStore(t, env, ns)
			if inSync, err := k.Look(t.Context(), decode(t, text)); inSync || err != nil {
				t.Fatalf("before anything is given: %v, %v", inSync, err)
			}
			provision(t, k, decode(t, text))

			// A second run, by another process.
			k = newStore(t, env, ns)
			env.ResetAudit(t)
			set := decode(t, text)
			if inSync, err := k.Look(t.Context(), set); !inSync || err != nil {
				t.Errorf("in sync %v, %v", inSync, err)
			}
			provision(t, k, set)
			if writes := writesIn(t, env, ns); len(writes) > 0 {
				t.Errorf("a second run wrote:\n%s", strings.Join(writes, "\n"))
			}

			m := live(t, k, k.machines(), ns, "worker")
			if got := m.text("apiVersion"); got != "cluster.x-k8s.io/"+tt.version {
				t.Errorf("the Machine is read as %s", got)
			}
			status := m.at("status")
			var addresses []string
			for _, a := range status["addresses"].([]any) {
				addresses = append(addresses, object(a.(map[string]any)).text("address"))
			}
			if got := "addresses: " + strings.Join(addresses, " "); got != ready || m.text("spec", "providerID") != tt.machine {
				t.Errorf("%s, provider ID %s", got, m.text("spec", "providerID"))
			}
			delete(status, "addresses")
			delete(status, "conditions")
			wantJSON(t, "Machine", status, tt.status)
			c := live(t, k, k.clusters(), ns, "c")
			delete(c.at("status"), "apiEndpoints") // v1alpha3 has no place for it, and stores this one
			wantJSON(t, "Cluster", c.at("status"), tt.cluster)
			if tt.version != "v1alpha2" {
				wantJSON(t, "Cluster", c.at("spec", "controlPlaneEndpoint"), `{"host":"192.168.1.10","port":6443}`)
			}
			pm := live(t, k, k.plunderMachines(), ns, "worker-infra")
			if pm.text("spec", "providerID") != tt.machine || pm.at("status")["ready"] != true || pm.at("status", "initialization")["provisioned"] != true {
				t.Errorf("PlunderMachine: %v", pm["status"])
			}

			// What was stored can be worked on without the files.
			docs, err := k.Intents(t.Context(), Selection{Namespace: ns, Cluster: "c"})
			must(t, err)
			again, err := capi.DecodeOptions{Lenient: true}.Decode(docs)
			must(t, err)
			if len(again.Machines) != 2 || again.Machines[0].Name != "cp" || !again.Machines[0].ControlPlane ||
				again.Machines[1].Version != "v1.34.1" || again.Machines[1].Infra.Spec.IPAddress != "192.168.1.11" || len(again.Warnings) > 0 {
				t.Errorf("%+v, warnings %v", again.Machines, again.Warnings)
			}
			env.ResetAudit(t)
			if inSync, err := k.Look(t.Context(), again); !inSync || err != nil {
				t.Errorf("the stored objects: in sync %v, %v", inSync, err)
			}
			must(t, k.Sync(t.Context(), again))
			if writes := writesIn(t, env, ns); len(writes) > 0 {
				t.Errorf("a run without files wrote:\n%s", strings.Join(writes, "\n"))
			}

			// Bootstrap data, where the version has it.
			kubeconfig := env.Kubeconfig(t)
			where := `{"dataSecretName":"boot"}`
			if tt.version == "v1alpha2" {
				where = `{"data":"` + base64.StdEncoding.EncodeToString([]byte(cloudConfig)) + `"}`
			}
			env.Kubectl(t, kubeconfig, "-n", ns, "create", "secret", "generic", "boot", "--from-literal=value="+cloudConfig)
			env.Kubectl(t, kubeconfig, "-n", ns, "patch", "machines."+tt.version+".cluster.x-k8s.io", "worker", "--type=merge", "-p", `{"spec":{"bootstrap":`+where+`}}`)
			data, seen, err := k.BootstrapData(t.Context(), capi.Key{Namespace: ns, Name: "worker"})
			if err != nil || data == nil || string(data.Value) != cloudConfig || data.Format != capi.FormatCloudConfig {
				t.Errorf("%v, %q, %v", data, seen, err)
			}

			// And it goes, as kubectl deletes it.
			env.Kubectl(t, kubeconfig, "-n", ns, "delete", "machines", "--all", "--wait=false")
			env.Kubectl(t, kubeconfig, "-n", ns, "delete", "clusters", "--all", "--wait=false")
			condemned, err := k.Condemned(t.Context(), []capi.Key{{Namespace: ns, Name: "c"}})
			must(t, err)
			if len(condemned) != 2 || condemned[1].MAC != "00:50:56:a5:11:01" {
				t.Errorf("condemned: %+v", condemned)
			}
			for _, r := range condemned {
				must(t, k.DeleteRecord(t.Context(), r.Key))
			}
			if left := env.Kubectl(t, kubeconfig, "-n", ns, "get", "clusters,machines,plunderclusters,plundermachines", "-o", "name"); left != "" {
				t.Errorf("left over: %s", left)
			}
			if macs, err := k.Claims(t.Context()); err != nil || len(macs) > 0 {
				t.Errorf("still claimed: %v, %v", macs, err)
			}
		})
	}
}

func wantJSON(t *testing.T, what string, got any, want string) {
	t.Helper()
	w, err := decodeJSON([]byte(want))
	must(t, err)
	g, err := difference(nil, map[string]any{"x": got})
	must(t, err)
	if diff := cmp.Diff(map[string]any(w), g["x"]); diff != "" {
		t.Errorf("%s:\n%s", what, diff)
	}
}

// shared is a namespace and a store on the server that tests share.
func shared(t *testing.T) (*kubetest.Env, string, *Kubernetes) {
	t.Helper()
	env := kubeServer(t)
	ns := env.Namespace(t)
	return env, ns, newStore(t, env, ns)
}

// asManager makes objects look as a live Cluster API manager leaves them (CAPI
// contract section 2).
func asManager(t *testing.T, k *Kubernetes, ns string, machines ...string) {
	t.Helper()
	set := func(r kube.Resource, name string, edit edit) {
		_, err := k.change(t.Context(), r, capi.Key{Namespace: ns, Name: name}, edit)
		must(t, err)
	}
	finalizer := func(name string) edit {
		return func(o object) error {
			o.in("metadata")["finalizers"] = []any{name}
			return nil
		}
	}
	set(k.clusters(), "c", finalizer("cluster.cluster.x-k8s.io"))
	set(k.plunderClusters(), "c", func(o object) error {
		own(o, k.recall(k.clusters(), capi.Key{Namespace: ns, Name: "c"}), true)
		label(o, "c")
		return nil
	})
	for _, name := range machines {
		set(k.machines(), name, finalizer("machine.cluster.x-k8s.io"))
		set(k.plunderMachines(), name+"-infra", func(o object) error {
			own(o, k.recall(k.machines(), capi.Key{Namespace: ns, Name: name}), true)
			label(o, "c")
			return nil
		})
	}
}

func TestKubeManaged(t *testing.T) {
	env, ns, k := shared(t)
	text := manifests("v1beta1", ns, "worker")
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "apply", "-f", writeTemp(t, text))
	for _, r := range []kube.Resource{k.clusters(), k.machines(), k.plunderClusters(), k.plunderMachines()} {
		_, err := k.list(t.Context(), r, ns)
		must(t, err)
	}
	asManager(t, k, ns, "cp", "worker")
	env.ResetAudit(t)
	set := decode(t, text)
	provision(t, newStore(t, env, ns), set)
	failed := readyRecord(ns, "worker", 1)
	failed.Ready, failed.Phase, failed.Reason, failed.Message = false, capi.PhaseFailed, "InstallFailed", "no disk"
	must(t, k.SaveRecord(t.Context(), failed))
	if status := live(t, k, k.plunderMachines(), ns, "worker-infra").at("status"); status["failureReason"] != nil {
		t.Errorf("a manager would take this for the last word: %v", status)
	}
	for _, w := range writesIn(t, env, ns) {
		if !strings.Contains(w, " plunder") && !strings.Contains(w, " leases.") {
			t.Errorf("not ours: %s", w)
		}
	}

	// Deletion: the manager has to delete the PlunderMachine.
	key := capi.Key{Namespace: ns, Name: "worker"}
	done, seen, err := k.Condemn(t.Context(), key)
	if done || err != nil || !strings.Contains(seen, "Cluster API") {
		t.Errorf("done %v, %q, %v", done, seen, err)
	}
	if err := k.DeleteRecord(t.Context(), key); err == nil {
		t.Error("forgotten before Cluster API let it go")
	}
	all := []capi.Key{{Namespace: ns, Name: "c"}}
	if records, err := k.Condemned(t.Context(), all); len(records) > 0 || err != nil {
		t.Errorf("condemned: %v, %v", records, err)
	}
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "delete", "plundermachine", "worker-infra", "--wait=false")
	if done, _, err := k.Condemn(t.Context(), key); !done || err != nil {
		t.Errorf("done %v, %v", done, err)
	}
	if records, err := k.Condemned(t.Context(), all); len(records) != 1 || records[0].Key != key || err != nil {
		t.Errorf("condemned: %v, %v", records, err)
	}
	must(t, k.DeleteRecord(t.Context(), key))
	if left := env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "get", "machines,plundermachines", "-o", "name"); left != "machine.cluster.x-k8s.io/cp\nmachine.cluster.x-k8s.io/worker\nplundermachine.infrastructure.cluster.x-k8s.io/cp-infra\n" {
		t.Errorf("left: %s", left)
	}

	// A Cluster that is deleted: Cluster API v1.14.2 deletes the Machines, and the
	// PlunderCluster a moment after the last of them is gone. Nobody is there by then.
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "delete", "cluster/c", "machine/cp", "plundermachine/cp-infra", "--wait=false")
	must(t, k.DeleteRecord(t.Context(), capi.Key{Namespace: ns, Name: "cp"}))
	if left := env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "get", "plundercluster", "-o", "jsonpath={.items[*].metadata.finalizers}"); left != "" {
		t.Errorf("the PlunderCluster waits for %s", left)
	}
	if left := env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "get", "cluster", "-o", "jsonpath={.items[*].metadata.finalizers}"); left != `["cluster.cluster.x-k8s.io"]` {
		t.Errorf("the Cluster waits for %s", left)
	}
}

func writeTemp(t *testing.T, text string) string {
	t.Helper()
	path := t.TempDir() + "/manifests.yaml"
	must(t, writeFile(path, []byte(text)))
	return path
}

// Two processes that know different states of an object both get their writes in.
func TestKubeConflicts(t *testing.T) {
	env, ns, a := shared(t)
	b := newStore(t, env, ns)
	set := decode(t, manifests("v1beta1", ns))
	must(t, a.Sync(t.Context(), set))
	must(t, b.Sync(t.Context(), set))
	r := readyRecord(ns, "cp", 0)
	r.Ready, r.ProviderID = false, ""
	must(t, a.SaveRecord(t.Context(), r))
	r.Step = "os" // b has not seen what a wrote
	must(t, b.SaveRecord(t.Context(), r))
	r.Step = "packages"
	must(t, a.SaveRecord(t.Context(), r))
	got, ok, err := b.Record(t.Context(), r.Key)
	if diff := cmp.Diff(r, got); diff != "" || !ok || err != nil {
		t.Errorf("%v %v\n%s", ok, err, diff)
	}
}

// Each write sends what changed and the resource version, and nothing else.
func TestKubePatchesAreMinimal(t *testing.T) {
	_, ns, k := shared(t)
	set := decode(t, manifests("v1beta1", ns))
	provision(t, k, set)
	r := readyRecord(ns, "cp", 0)
	u := k.recall(k.plunderMachines(), r.PlunderMachine)
	next := r
	next.BootID = "not shown in status"
	p, err := k.patch(k.plunderMachines(), u, func(o object) error { return setRecord(o, r, next, true) })
	must(t, err)
	if p.status != nil || len(p.main) != 1 || len(p.main["metadata"].(map[string]any)) != 1 {
		t.Errorf("main %v, status %v", p.main, p.status)
	}
	next.Ready = false
	p, err = k.patch(k.plunderMachines(), u, func(o object) error { return setRecord(o, r, next, true) })
	must(t, err)
	status := object(p.status).at("status")
	if len(status) != 3 || status["ready"] != false || status["conditions"] == nil || object(p.status).at("status", "initialization")["provisioned"] != false {
		t.Errorf("status %v", p.status)
	}
	p, err = k.patch(k.plunderMachines(), u, func(o object) error { return setRecord(o, r, r, true) })
	if must(t, err); !p.empty() {
		t.Errorf("nothing changed, and yet: %v %v", p.main, p.status)
	}
}

// A run that was killed between the record and what shows it.
func TestKubeLaggingStatusIsRepaired(t *testing.T) {
	env, ns, k := shared(t)
	set := decode(t, manifests("v1beta1", ns))
	provision(t, k, set)
	r := readyRecord(ns, "cp", 0)
	r.Ready, r.ProviderID, r.Phase, r.Reason = false, "", capi.PhaseFailed, "Because"
	old := readyRecord(ns, "cp", 0)
	u := k.recall(k.plunderMachines(), r.PlunderMachine)
	p, err := k.patch(k.plunderMachines(), u, func(o object) error { return setRecord(o, old, r, true) })
	must(t, err)
	p.status = nil
	_, err = k.send(t.Context(), k.plunderMachines(), u, p)
	must(t, err)

	k = newStore(t, env, ns)
	got, ok, err := k.Record(t.Context(), r.Key)
	if diff := cmp.Diff(r, got); diff != "" || !ok || err != nil {
		t.Errorf("%v %v\n%s", ok, err, diff)
	}
	if inSync, err := k.Look(t.Context(), set); inSync || err != nil {
		t.Errorf("in sync %v, %v", inSync, err)
	}
	must(t, k.Sync(t.Context(), set))
	if inSync, err := k.Look(t.Context(), set); !inSync || err != nil {
		t.Errorf("after Sync: in sync %v, %v", inSync, err)
	}
	if status := live(t, k, k.plunderMachines(), ns, "cp-infra").at("status"); status["ready"] != false || status["failureReason"] != "Because" {
		t.Errorf("status %v", status)
	}
	if status := live(t, k, k.machines(), ns, "cp").at("status"); status["phase"] != "Failed" || status["infrastructureReady"] != false {
		t.Errorf("the Machine's status %v", status)
	}
}

// A status without a record is another program's.
func TestKubeStatusWithoutRecord(t *testing.T) {
	env, ns, k := shared(t)
	set := decode(t, manifests("v1beta1", ns))
	must(t, k.Sync(t.Context(), set))
	at := capi.Key{Namespace: ns, Name: "cp-infra"}
	_, err := k.change(t.Context(), k.plunderMachines(), at, func(o object) error {
		o.in("status")["ready"], o.in("status")["machineName"] = true, "cp-abcde"
		return nil
	})
	must(t, err)
	t.Cleanup(func() { // other tests read all namespaces
		_ = k.at(k.plunderMachines(), "v1alpha1", ns).Delete(t.Context(), at.Name, metav1.DeleteOptions{})
		env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "patch", "plundermachine", at.Name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	})
	var unreadable *UnreadableError
	_, err = k.Look(t.Context(), set)
	if !errors.As(err, &unreadable) || unreadable.Key != at {
		t.Errorf("Look: %v", err)
	}
	_, err = k.Records(t.Context())
	if !errors.As(err, &unreadable) || !strings.Contains(err.Error(), "annotation "+AnnotationRecord+" is missing") {
		t.Errorf("Records: %v", err)
	}
	err = k.SaveRecord(t.Context(), readyRecord(ns, "cp", 0))
	if !errors.As(err, &unreadable) {
		t.Errorf("SaveRecord: %v", err)
	}
}

func TestKubeRefusedManifests(t *testing.T) {
	env, ns, k := shared(t)
	text := manifests("v1beta1", ns, "a", "b")
	set := decode(t, text)
	for _, m := range set.Machines {
		if m.Name == "a" {
			m.Object["spec"].(map[string]any)["unknownField"] = true
		}
		if m.Name == "b" {
			m.Object["spec"].(map[string]any)["failureDomain"] = int64(5)
		}
	}
	env.ResetAudit(t)
	err := k.Sync(t.Context(), set)
	var refused *RefusedError
	if !errors.As(err, &refused) || strings.Count(err.Error(), "the cluster refuses it") != 2 || !strings.Contains(err.Error(), "unknownField") {
		t.Errorf("%v", err)
	}
	if left := env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "get", "clusters,machines,plunderclusters,plundermachines", "-o", "name"); left != "" {
		t.Errorf("something was written: %s", left)
	}

	var version *kube.VersionError
	if err := k.Sync(t.Context(), decode(t, manifests("v1beta2", ns))); !errors.As(err, &version) {
		t.Errorf("another version: %v", err)
	}
	var missing *NamespaceError
	set = decode(t, manifests("v1beta1", "nowhere"))
	if _, err := k.Look(t.Context(), set); !errors.As(err, &missing) || missing.NextCommand() != "kubectl create namespace nowhere" {
		t.Errorf("Look: %v", err)
	}
	if err := k.Sync(t.Context(), set); !errors.As(err, &missing) {
		t.Errorf("Sync: %v", err)
	}
}

// Others' changes to what a manifest says are not overwritten, unless that is wanted.
func TestKubeFieldConflicts(t *testing.T) {
	env, ns, k := shared(t)
	text := manifests("v1beta1", ns)
	must(t, k.Sync(t.Context(), decode(t, text)))
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "patch", "machine", "cp", "--type=merge", "-p", `{"spec":{"version":"v1.33.0"}}`)
	var conflict *ConflictError
	err := k.Sync(t.Context(), decode(t, text))
	if !errors.As(err, &conflict) || len(conflict.Fields) != 1 || conflict.Fields[0].Field != ".spec.version" ||
		!strings.Contains(err.Error(), "kubectl-patch") || !strings.Contains(err.Error(), "--force-conflicts") {
		t.Errorf("%v", err)
	}
	k.opts.ForceConflicts = true
	must(t, k.Sync(t.Context(), decode(t, text)))
	if got := live(t, k, k.machines(), ns, "cp").text("spec", "version"); got != "v1.34.1" {
		t.Errorf("version %s", got)
	}
	// What a manifest does not say any more goes, and what others added stays.
	k.opts.ForceConflicts = false
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "annotate", "machine", "cp", "theirs=stays")
	must(t, k.Sync(t.Context(), decode(t, strings.Replace(text, "team: blue, ", "", 1))))
	meta := live(t, k, k.machines(), ns, "cp").at("metadata")
	if object(meta).text("labels", "team") != "" || object(meta).text("annotations", "theirs") != "stays" {
		t.Errorf("metadata %v", meta)
	}
}

func TestKubeMarks(t *testing.T) {
	env, ns, k := shared(t)
	text := manifests("v1beta1", ns, "a", "b")
	must(t, k.Sync(t.Context(), decode(t, text)))
	kubectl := func(args ...string) {
		env.Kubectl(t, env.Kubeconfig(t), append([]string{"-n", ns}, args...)...)
	}
	kubectl("annotate", "plundermachine", "a-infra", "cluster.x-k8s.io/paused=")
	kubectl("delete", "plundermachine", "b-infra", "--wait=false")
	set := decode(t, text)
	env.ResetAudit(t)
	_, err := k.Look(t.Context(), set)
	must(t, err)
	var marks []string
	for _, m := range set.Machines {
		marks = append(marks, fmt.Sprintf("%s paused %v deleting %v", m.Name, m.Paused, m.Deleting))
	}
	if diff := cmp.Diff([]string{"a paused true deleting false", "b paused false deleting true", "cp paused false deleting false"}, marks); diff != "" {
		t.Error(diff)
	}
	must(t, k.Sync(t.Context(), set))
	if writes := writesIn(t, env, ns); len(writes) > 0 {
		t.Errorf("%v", writes)
	}
	// A machine that never got a record is forgotten like any other.
	condemned, err := k.Condemned(t.Context(), []capi.Key{{Namespace: ns, Name: "c"}})
	if diff := cmp.Diff([]capi.Record{{Key: capi.Key{Namespace: ns, Name: "b"}, PlunderMachine: capi.Key{Namespace: ns, Name: "b-infra"}, Cluster: "c"}}, condemned); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	kubectl("annotate", "plundermachine", "b-infra", "cluster.x-k8s.io/paused=")
	if condemned, err = k.Condemned(t.Context(), []capi.Key{{Namespace: ns, Name: "c"}}); len(condemned) > 0 || err != nil {
		t.Errorf("paused: %v, %v", condemned, err)
	}
	kubectl("patch", "cluster", "c", "--type=merge", "-p", `{"spec":{"paused":true}}`)
	_, err = k.Look(t.Context(), set)
	must(t, err)
	if !set.Clusters[0].Paused || !set.Machines[2].Paused {
		t.Error("the cluster's pause is not seen")
	}
}

// A PlunderCluster that another system owns is not written, and the record is kept in
// the Cluster.
func TestKubeExternallyManaged(t *testing.T) {
	env, ns, k := shared(t)
	text := manifests("v1beta1", ns)
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "apply", "-f", writeTemp(t, strings.Replace(text,
		"kind: PlunderCluster\nmetadata: {name: c, ", "kind: PlunderCluster\nmetadata: {annotations: {cluster.x-k8s.io/managed-by: terraform}, name: c, ", 1)))
	env.ResetAudit(t)
	set := decode(t, text)
	provision(t, k, set)
	for _, w := range writesIn(t, env, ns) {
		if strings.Contains(w, "plunderclusters") {
			t.Error(w)
		}
	}
	got, ok, err := k.ClusterRecord(t.Context(), capi.Key{Namespace: ns, Name: "c"})
	if diff := cmp.Diff(readyCluster(ns), got); diff != "" || !ok || err != nil {
		t.Errorf("%v %v\n%s", ok, err, diff)
	}
	if inSync, err := k.Look(t.Context(), set); !inSync || err != nil {
		t.Errorf("in sync %v, %v", inSync, err)
	}
}

// A cluster whose definitions are those of 2019: no status subresource, and a status
// that knows little and requires two fields together (CAPI contract section 14).
func TestKubeDefinitionsOf2019(t *testing.T) {
	env := kubetest.Private(t)
	env.InstallCAPI(t, kubetest.CAPIv1alpha3)
	install(t, env)
	kubeconfig := env.Kubeconfig(t)
	for kind, status := range map[string]string{
		"plundermachines": `{"type":"object","required":["machineName","ready"],"properties":{"ready":{"type":"boolean"},"machineName":{"type":"string"},"ipaddress":{"type":"string"},"macaddress":{"type":"string"}}}`,
		"plunderclusters": `{"type":"object","properties":{"ready":{"type":"boolean"}}}`,
	} {
		env.Kubectl(t, kubeconfig, "patch", "crd", kind+".infrastructure.cluster.x-k8s.io", "--type=json", "-p",
			`[{"op":"remove","path":"/spec/versions/0/subresources"},
			{"op":"replace","path":"/spec/versions/0/schema/openAPIV3Schema/properties/status","value":`+status+`}]`)
	}
	ns := env.Namespace(t)
	text := manifests("v1alpha2", ns)
	var k *Kubernetes
	eventually(t, func() error { // the API server takes up new definitions a moment later
		k = newStore(t, env, ns)
		for _, r := range []kube.Resource{k.plunderMachines(), k.plunderClusters()} {
			if r.HasStatus["v1alpha1"] {
				return errors.New("there is a status subresource")
			}
			probe := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": plunderAPIVersion, "kind": r.Kind, "metadata": map[string]any{"generateName": "probe-"},
				"spec": map[string]any{}, "status": map[string]any{"ready": true, "machineName": "x"},
			}}
			api := k.at(r, "v1alpha1", ns)
			u, err := api.Create(t.Context(), probe, metav1.CreateOptions{})
			must(t, err)
			must(t, api.Delete(t.Context(), u.GetName(), metav1.DeleteOptions{}))
			if u.Object["status"] == nil {
				return errors.New("the old definitions are still in use")
			}
		}
		return nil
	})
	provision(t, k, decode(t, text))
	k = newStore(t, env, ns)
	wantJSON(t, "status", live(t, k, k.plunderMachines(), ns, "cp-infra").at("status"),
		`{"ready":true,"machineName":"cp-x7f3q","ipaddress":"192.168.1.10","macaddress":"00:50:56:a5:11:00"}`)
	env.ResetAudit(t)
	provision(t, k, decode(t, text))
	if writes := writesIn(t, env, ns); len(writes) > 0 {
		t.Errorf("a second run wrote:\n%s", strings.Join(writes, "\n"))
	}
	r, ok, err := k.Record(t.Context(), capi.Key{Namespace: ns, Name: "cp"})
	if diff := cmp.Diff(readyRecord(ns, "cp", 0), r); diff != "" || !ok || err != nil {
		t.Errorf("%v %v\n%s", ok, err, diff)
	}
}

// Owners, labels and finalizers, where no manager sets them (CAPI contract section 2).
func TestKubeWiring(t *testing.T) {
	_, ns, k := shared(t)
	must(t, k.Sync(t.Context(), decode(t, manifests("v1beta1", ns))))
	for _, tt := range []struct {
		r          kube.Resource
		name       string
		owner      kube.Resource
		ownerName  string
		controller bool
	}{
		{k.clusters(), "c", kube.Resource{}, "", false},
		{k.plunderClusters(), "c", k.clusters(), "c", false},
		{k.machines(), "cp", k.clusters(), "c", false},
		{k.plunderMachines(), "cp-infra", k.machines(), "cp", true},
	} {
		u := &unstructured.Unstructured{Object: live(t, k, tt.r, ns, tt.name)}
		if f := u.GetFinalizers(); len(f) != 1 || f[0] != Finalizer {
			t.Errorf("%s: finalizers %v", tt.r.Kind, f)
		}
		if tt.ownerName == "" {
			continue
		}
		refs := u.GetOwnerReferences()
		owner := &unstructured.Unstructured{Object: live(t, k, tt.owner, ns, tt.ownerName)}
		if len(refs) != 1 || refs[0].UID != owner.GetUID() || refs[0].Kind != tt.owner.Kind || refs[0].APIVersion != owner.GetAPIVersion() ||
			(refs[0].Controller != nil && *refs[0].Controller) != tt.controller {
			t.Errorf("%s: owners %+v", tt.r.Kind, refs)
		}
		if got := u.GetLabels()[capi.LabelCluster]; got != "c" {
			t.Errorf("%s: label %q", tt.r.Kind, got)
		}
	}
}

// A Machine whose finalizer was taken off by force is gone, but what it had is not.
func TestKubeMachineForcedAway(t *testing.T) {
	env, ns, k := shared(t)
	set := decode(t, manifests("v1beta1", ns))
	provision(t, k, set)
	kubeconfig := env.Kubeconfig(t)
	env.Kubectl(t, kubeconfig, "-n", ns, "patch", "machine", "cp", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	env.Kubectl(t, kubeconfig, "-n", ns, "delete", "machine", "cp")

	k = newStore(t, env, ns)
	// Nobody said that its host is to be wiped: the manifests may be given again.
	if condemned, err := k.Condemned(t.Context(), []capi.Key{{Namespace: ns, Name: "c"}}); len(condemned) > 0 || err != nil {
		t.Errorf("condemned %v, %v", condemned, err)
	}
	r, ok, err := k.Record(t.Context(), capi.Key{Namespace: ns, Name: "cp"})
	if !ok || err != nil || !r.Claimed() {
		t.Fatalf("%v, %v, %v", r, ok, err)
	}
	r.Phase, r.Ready = capi.PhaseDeleting, false
	must(t, k.SaveRecord(t.Context(), r))
	if done, _, err := k.Condemn(t.Context(), r.Key); !done || err != nil {
		t.Errorf("done %v, %v", done, err)
	}
	must(t, k.DeleteRecord(t.Context(), r.Key))
	if left := env.Kubectl(t, kubeconfig, "-n", ns, "get", "machines,plundermachines", "-o", "name"); left != "" {
		t.Errorf("left over: %s", left)
	}
	if macs, err := k.Claims(t.Context()); err != nil || len(macs) > 0 {
		t.Errorf("still claimed: %v, %v", macs, err)
	}
}

// Under a manager a cluster's record has no place but its PlunderCluster.
func TestKubeManagedClusterWithoutPlunderCluster(t *testing.T) {
	env, ns, k := shared(t)
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "apply", "-f", writeTemp(t, fmt.Sprintf(
		"apiVersion: cluster.x-k8s.io/v1beta1\nkind: Cluster\nmetadata: {name: c, namespace: %s, finalizers: [cluster.cluster.x-k8s.io]}\n", ns)))
	err := k.SaveClusterRecord(t.Context(), capi.ClusterRecord{Key: capi.Key{Namespace: ns, Name: "c"}})
	if err == nil || !strings.Contains(err.Error(), "give it a PlunderCluster") {
		t.Errorf("%v", err)
	}
}

// An API server that does not answer is that, whatever is asked.
func TestKubeUnavailable(t *testing.T) {
	env, ns, _ := shared(t)
	k := killedStore(t, env, ns, 0, false)
	set := decode(t, manifests("v1beta1", ns))
	provision(t, newStore(t, env, ns), set)
	r := readyRecord(ns, "cp", 0)
	r.Step = "changed"
	if err := k.SaveRecord(t.Context(), r); !errors.Is(err, capi.ErrUnavailable) { // reads, then is cut off
		t.Errorf("SaveRecord: %v", err)
	}
	_, lookErr := k.Look(t.Context(), set)
	_, _, recordErr := k.Record(t.Context(), r.Key)
	_, recordsErr := k.Records(t.Context())
	_, _, clusterErr := k.ClusterRecord(t.Context(), capi.Key{Namespace: ns, Name: "c"})
	_, condemnedErr := k.Condemned(t.Context(), []capi.Key{{Namespace: ns, Name: "c"}})
	_, _, condemnErr := k.Condemn(t.Context(), r.Key)
	_, intentsErr := k.Intents(t.Context(), Selection{Namespace: ns, Cluster: "c"})
	_, clustersErr := k.Clusters(t.Context())
	for name, err := range map[string]error{
		"Look": lookErr, "Sync": k.Sync(t.Context(), set), "Record": recordErr, "Records": recordsErr, "ClusterRecord": clusterErr,
		"Condemned": condemnedErr, "Condemn": condemnErr, "Intents": intentsErr, "Clusters": clustersErr,
		"DeleteRecord": k.DeleteRecord(t.Context(), r.Key),
	} {
		if !errors.Is(err, capi.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
