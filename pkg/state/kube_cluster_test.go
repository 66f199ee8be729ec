package state

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// clusterWithKeys is a cluster with a machine that has hardware (cp) and one that has
// none (worker), its kubeconfig and its keys.
func clusterWithKeys(t *testing.T, k *Kubernetes, ns string) capi.Key {
	t.Helper()
	c := capi.Key{Namespace: ns, Name: "c"}
	must(t, k.Sync(t.Context(), decode(t, manifests("v1beta1", ns, "worker"))))
	_, err := k.SavePKI(t.Context(), c, testPKI("c"))
	must(t, err)
	must(t, k.SaveClusterRecord(t.Context(), readyCluster(ns)))
	must(t, k.SaveRecord(t.Context(), readyRecord(ns, "cp", 0)))
	waits := readyRecord(ns, "worker", 1)
	waits.MAC, waits.ProviderID, waits.Ready, waits.Phase = "", "", false, capi.PhasePending
	must(t, k.SaveRecord(t.Context(), waits))
	must(t, k.SaveKubeconfig(t.Context(), c, []byte("kubeconfig")))
	return c
}

// left is everything in a namespace that we could have made.
func left(t *testing.T, env *kubetest.Env, ns string) []string {
	t.Helper()
	out := env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "get",
		"clusters.cluster.x-k8s.io,machines,plunderclusters,plundermachines,secrets,leases", "-o", "name")
	return strings.Fields(out)
}

// A cluster's deletion is killed at each of its writes, and run again; or it misses the
// answer to one, and tries again. As long as anything of it is left the cluster is
// listed, and in the end nothing is.
func TestKubeDeleteClusterKilledAtEveryWrite(t *testing.T) {
	env := kubeServer(t)
	destroy := func(k *Kubernetes, c capi.Key) error {
		done, observation, err := k.CondemnCluster(t.Context(), c)
		if err == nil && !done {
			err = fmt.Errorf("waits for %s", observation)
		}
		cp := capi.Key{Namespace: c.Namespace, Name: "cp"}
		if err == nil {
			_, _, err = k.Condemn(t.Context(), cp)
		}
		if err == nil {
			err = k.DeleteRecord(t.Context(), cp)
		}
		if err == nil {
			err = k.DeleteCluster(t.Context(), c)
		}
		return err
	}
	for _, once := range []bool{false, true} {
		killed := 0
		for n, finished := 0, false; !finished; n++ {
			t.Run(fmt.Sprintf("%d once %v", n, once), func(t *testing.T) {
				ns := env.Namespace(t)
				c := clusterWithKeys(t, newStore(t, env, ns), ns)
				k := killedStore(t, env, ns, n, once)
				err := destroy(k, c)
				switch {
				case err == nil:
					finished = true
				case !errors.Is(err, errKilled):
					t.Fatal(err)
				default:
					killed++
				}
				if !once {
					k = newStore(t, env, ns)
				}
				listed, listErr := k.ClusterRecords(t.Context(), ns)
				must(t, listErr)
				if there := left(t, env, ns); len(listed) == 0 && len(there) > 0 {
					t.Errorf("the cluster is not listed any more, but there is %v", there)
				}
				if err != nil && len(listed) > 0 {
					must(t, destroy(k, c))
				}
				if there := left(t, env, ns); len(there) > 0 {
					t.Errorf("left: %v", there)
				}
				if macs, err := k.Claims(t.Context()); len(macs) > 0 || err != nil {
					t.Errorf("claimed: %v, %v", macs, err)
				}
			})
			if t.Failed() || n > 60 {
				t.Fatalf("given up after %d writes", n)
			}
		}
		if killed < 10 {
			t.Errorf("killed %d times only", killed)
		}
	}
}

// Secrets that somebody else made, keeps or took over stay.
func TestKubeDeleteClusterForeignSecrets(t *testing.T) {
	env, ns, k := shared(t)
	c := clusterWithKeys(t, k, ns)
	secrets := connect(t, env.Config).Core.Secrets(ns)
	edit := func(name string, change func(*corev1.Secret)) {
		t.Helper()
		s, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
		must(t, err)
		change(s)
		_, err = secrets.Update(t.Context(), s, metav1.UpdateOptions{})
		must(t, err)
	}
	yes := true
	edit("c-kubeconfig", func(s *corev1.Secret) {
		s.OwnerReferences = append(s.OwnerReferences, metav1.OwnerReference{
			APIVersion: "controlplane.cluster.x-k8s.io/v1beta1", Kind: "KubeadmControlPlane", Name: "cp", UID: "1", Controller: &yes,
		})
	})
	edit("c-ca", func(s *corev1.Secret) { delete(s.Labels, "app.kubernetes.io/managed-by") })
	edit("c-sa", func(s *corev1.Secret) { s.Labels["cluster.x-k8s.io/cluster-name"] = "another" })
	_, err := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "c-mine"}}, metav1.CreateOptions{})
	must(t, err)
	must(t, k.DeleteRecord(t.Context(), capi.Key{Namespace: ns, Name: "cp"}))
	must(t, k.DeleteCluster(t.Context(), c))
	if diff := cmp.Diff([]string{"secret/c-ca", "secret/c-kubeconfig", "secret/c-mine", "secret/c-sa"}, left(t, env, ns)); diff != "" {
		t.Error(diff)
	}
}

// Who may not delete secrets, because the role is that of an earlier version, is told
// before the cluster is let go.
func TestKubeDeleteClusterForbidden(t *testing.T) {
	env, ns, k := shared(t)
	c := clusterWithKeys(t, k, ns)
	must(t, k.DeleteRecord(t.Context(), capi.Key{Namespace: ns, Name: "cp"}))
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "create", "role", "reader", "--verb=get", "--resource=secrets")
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "create", "rolebinding", "reader", "--role=reader", "--user=reader")
	reader, err := kube.Dial(targetOf(env.UserConfig(t, "reader")))
	must(t, err)
	mine := k.client.Core
	k.client.Core = reader.Core
	var forbidden *kube.ForbiddenError
	if err := k.DeleteCluster(t.Context(), c); !errors.As(err, &forbidden) || !strings.Contains(err.Error(), "may not delete secrets") {
		t.Errorf("got %v", err)
	}
	k.client.Core = mine
	if all, err := k.ClusterRecords(t.Context(), ns); len(all) != 1 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	must(t, k.DeleteCluster(t.Context(), c))
	if there := left(t, env, ns); len(there) > 0 {
		t.Errorf("left: %v", there)
	}
}

// A Cluster API manager deletes the worker Machines first, and lets the Cluster go.
func TestKubeDeleteClusterManaged(t *testing.T) {
	env, ns, k := shared(t)
	text := manifests("v1beta1", ns, "worker")
	kubectl := func(args ...string) string {
		t.Helper()
		return env.Kubectl(t, env.Kubeconfig(t), append([]string{"-n", ns}, args...)...)
	}
	kubectl("apply", "-f", writeTemp(t, text))
	for _, r := range []kube.Resource{k.clusters(), k.machines(), k.plunderClusters(), k.plunderMachines()} {
		_, err := k.list(t.Context(), r, ns)
		must(t, err)
	}
	asManager(t, k, ns, "cp", "worker")
	c := capi.Key{Namespace: ns, Name: "c"}
	k = newStore(t, env, ns)
	must(t, k.Sync(t.Context(), decode(t, text)))
	must(t, k.SaveClusterRecord(t.Context(), readyCluster(ns)))
	must(t, k.SaveKubeconfig(t.Context(), c, []byte("kubeconfig")))

	// What is protected is protected from the manager, too, as far as it is ours to say.
	cp, worker := capi.Key{Namespace: ns, Name: "cp"}, capi.Key{Namespace: ns, Name: "worker"}
	must(t, k.Protect(t.Context(), cp, true))
	if on := live(t, k, k.machines(), ns, "cp").text("metadata", "annotations", capi.AnnotationProtected); on != "" {
		t.Errorf("the manager's Machine was written: %q", on)
	}
	if _, _, err := k.CondemnCluster(t.Context(), c); !errors.Is(err, capi.ErrProtected) {
		t.Errorf("got %v", err)
	}
	kubectl("annotate", "machine", "cp", capi.AnnotationProtected+"=true")
	must(t, k.Protect(t.Context(), cp, false))
	if paused := kubectl("annotate", "cluster", "c", "cluster.x-k8s.io/paused="); paused == "" {
		t.Error("not annotated")
	}
	if _, _, err := k.CondemnCluster(t.Context(), c); !errors.Is(err, capi.ErrPaused) {
		t.Errorf("got %v", err)
	}
	kubectl("annotate", "cluster", "c", "cluster.x-k8s.io/paused-")

	if done, seen, err := k.CondemnCluster(t.Context(), c); done || err != nil || !strings.Contains(seen, "has not deleted Machine "+worker.String()) {
		t.Errorf("done %v, %q, %v", done, seen, err)
	}
	if got := kubectl("get", "cluster", "c", "-o", "jsonpath={.metadata.deletionTimestamp}"); got == "" {
		t.Error("the Cluster is not being deleted")
	}
	if err := k.DeleteCluster(t.Context(), c); !errors.Is(err, capi.ErrPending) {
		t.Errorf("removed before Cluster API did its part: %v", err)
	}
	kubectl("delete", "machine/worker", "plundermachine/worker-infra", "--wait=false")
	if done, seen, err := k.CondemnCluster(t.Context(), c); !done || err != nil {
		t.Errorf("done %v, %q, %v", done, seen, err)
	}
	if err := k.DeleteCluster(t.Context(), c); !errors.Is(err, capi.ErrPending) || !strings.Contains(err.Error(), "Machine "+cp.String()+": Cluster API has not deleted the PlunderMachine") {
		t.Errorf("got %v", err)
	}
	kubectl("delete", "plundermachine/cp-infra", "--wait=false")
	for range 2 {
		must(t, k.DeleteCluster(t.Context(), c))
	}
	want := []string{
		"cluster.cluster.x-k8s.io/c", "machine.cluster.x-k8s.io/cp", "machine.cluster.x-k8s.io/worker",
		"plundercluster.infrastructure.cluster.x-k8s.io/c", // the manager deletes it at the end; it waits for nobody
	}
	if diff := cmp.Diff(want, left(t, env, ns)); diff != "" {
		t.Error(diff)
	}
	if waits := kubectl("get", "plundercluster", "c", "-o", "jsonpath={.metadata.finalizers}"); waits != "" {
		t.Errorf("it waits for %s", waits)
	}
}

// Which clusters are listed: those for plunder, and what is left of one whose Cluster
// somebody forced away. That can be removed like any other.
func TestKubeClusterRecords(t *testing.T) {
	env, ns, k := shared(t)
	kubectl := func(args ...string) {
		t.Helper()
		env.Kubectl(t, env.Kubeconfig(t), append([]string{"-n", ns}, args...)...)
	}
	list := func() (names []string) {
		t.Helper()
		all, err := k.ClusterRecords(t.Context(), ns)
		must(t, err)
		for _, r := range all {
			names = append(names, r.Name+" of "+r.PlunderCluster.Name)
		}
		return names
	}
	text := manifests("v1beta1", ns)
	other := strings.NewReplacer("kind: PlunderCluster,", "kind: MetalCluster,", "infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderCluster", "infrastructure.cluster.x-k8s.io/v1beta1, kind: MetalCluster",
		"{name: c, ", "{name: other, ").Replace(strings.Split(text, "---")[0])
	kubectl("apply", "-f", writeTemp(t, other))
	if got := list(); len(got) > 0 {
		t.Errorf("another provider's: %v", got)
	}
	set := decode(t, text)
	must(t, k.Sync(t.Context(), set))
	if diff := cmp.Diff([]string{"c of c"}, list()); diff != "" {
		t.Error(diff)
	}
	must(t, k.SaveClusterRecord(t.Context(), readyCluster(ns)))
	c := capi.Key{Namespace: ns, Name: "c"}
	kubectl("patch", "cluster", "c", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	kubectl("delete", "cluster", "c")
	k = newStore(t, env, ns)
	if diff := cmp.Diff([]string{"c of c"}, list()); diff != "" {
		t.Error(diff)
	}
	must(t, k.DeleteCluster(t.Context(), c))
	if diff := cmp.Diff([]string{"cluster.cluster.x-k8s.io/other"}, left(t, env, ns)); diff != "" {
		t.Error(diff)
	}
	kubectl("apply", "-f", writeTemp(t, text))
	kubectl("annotate", "plundercluster", "c", AnnotationRecord+"={")
	if all, err := k.ClusterRecords(t.Context(), ns); err == nil || strings.Count(err.Error(), "PlunderCluster "+ns+"/c") != 1 {
		t.Errorf("unreadable: %v, %v", all, err)
	}
}

// A PlunderCluster that another system owns stays.
func TestKubeDeleteClusterExternallyManaged(t *testing.T) {
	env, ns, k := shared(t)
	text := strings.Replace(manifests("v1beta1", ns), "kind: PlunderCluster\nmetadata: {name: c, ",
		"kind: PlunderCluster\nmetadata: {annotations: {cluster.x-k8s.io/managed-by: terraform}, name: c, ", 1)
	env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "apply", "-f", writeTemp(t, text))
	must(t, k.Sync(t.Context(), decode(t, text)))
	must(t, k.SaveClusterRecord(t.Context(), readyCluster(ns)))
	must(t, k.DeleteCluster(t.Context(), capi.Key{Namespace: ns, Name: "c"}))
	if diff := cmp.Diff([]string{"plundercluster.infrastructure.cluster.x-k8s.io/c"}, left(t, env, ns)); diff != "" {
		t.Error(diff)
	}
}

// The lock of a removed cluster goes with it, unless somebody holds it by then.
func TestKubeDeleteClusterLock(t *testing.T) {
	_, ns, k := shared(t)
	c := capi.Key{Namespace: ns, Name: "c"}
	lock := func() error {
		_, err := k.client.Leases.Leases(ns).Get(t.Context(), "capplunder-c", metav1.GetOptions{})
		return err
	}
	for _, taken := range []bool{false, true} {
		must(t, k.Sync(t.Context(), decode(t, manifests("v1beta1", ns))))
		_, unlock, err := k.Lock(t.Context(), request(0, c))
		must(t, err)
		must(t, k.DeleteCluster(t.Context(), c))
		must(t, lock())
		if taken {
			editLease(t, k, ns, "capplunder-c", holderElsewhere("ann", 30))
		}
		if err := unlock(); (err != nil) != taken { // the lock was lost
			t.Errorf("taken %v: %v", taken, err)
		}
		if err := lock(); apierrors.IsNotFound(err) == taken {
			t.Errorf("taken %v: %v", taken, err)
		}
	}
}

// Cluster API has no phase for a machine whose wipe is not proved: its condition tells.
func TestKubeShowsDirty(t *testing.T) {
	_, ns, k := shared(t)
	must(t, k.Sync(t.Context(), decode(t, manifests("v1beta1", ns))))
	r := readyRecord(ns, "cp", 0)
	r.Ready, r.Phase, r.Reason, r.Dirty = false, capi.PhaseDeleting, "Deleting", true
	for _, message := range []string{"", "/dev/sda: what was read back is not zero"} {
		r.Message = message
		must(t, k.SaveRecord(t.Context(), r))
		for _, at := range []struct {
			r              kube.Resource
			name, kind     string
			phase, message string
		}{
			{k.machines(), "cp", "InfrastructureReady", "Deleting", message},
			{k.plunderMachines(), "cp-infra", "Ready", "", message},
		} {
			status := live(t, k, at.r, ns, at.name).at("status")
			conditions, _ := status["conditions"].([]any)
			i := slices.IndexFunc(conditions, func(c any) bool { return c.(map[string]any)["type"] == at.kind })
			if i < 0 {
				t.Fatalf("%s: no condition %s in %v", at.name, at.kind, status)
			}
			c := object(conditions[i].(map[string]any))
			if c.text("status") != "False" || c.text("reason") != "Dirty" || c.text("message") == "" || message != "" && c.text("message") != message {
				t.Errorf("%s: %v", at.name, c)
			}
			if phase := object(status).text("phase"); phase != at.phase {
				t.Errorf("%s: phase %q", at.name, phase)
			}
		}
	}
}
