package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/kube"
	"github.com/plunder-app/capplunder/pkg/state"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// From nothing to everything and back, on one cluster.
func TestLifecycle(t *testing.T) {
	env := kubetest.Private(t)
	kubeconfig := env.Kubeconfig(t)
	c := dial(t, kubeconfig)
	secret := &Secret{Key: capi.Key{Namespace: crd.Namespace, Name: SecretName}, Data: []byte("address: 192.0.2.1\n")}
	everything := Options{Standalone: true, Secret: secret}

	t.Run("before", func(t *testing.T) {
		_, err := kube.Connect(t.Context(), find(t, kubeconfig))
		var missing *kube.NotInstalledError
		if !errors.As(err, &missing) || len(missing.CRDs) != 4 || missing.NextCommand() != "capplunder init --standalone" {
			t.Fatalf("got %v", err)
		}
		if r := uninstall(t, c); len(r) != 0 {
			t.Errorf("nothing is there, but uninstall did %q", r)
		}
		if _, err := ReadSecret(t.Context(), c, secret.Key); !isRefused(err, "has no secret capplunder-system/plunder") {
			t.Errorf("no secret: %v", err)
		}
	})
	t.Run("without Cluster API", func(t *testing.T) {
		if r := install(t, c, Options{}); !r.all(Created) || len(r) != 5 {
			t.Errorf("got %q", r)
		}
		_, err := kube.Connect(t.Context(), find(t, kubeconfig))
		var missing *kube.NotInstalledError
		if !errors.As(err, &missing) || len(missing.CRDs) != 2 || missing.NextCommand() != "capplunder init --standalone" {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("the rest", func(t *testing.T) {
		r := install(t, c, everything)
		want := reports{
			"unchanged Namespace capplunder-system", "unchanged ClusterRole capplunder",
			"unchanged CustomResourceDefinition plunderclusters.infrastructure.cluster.x-k8s.io",
			"unchanged CustomResourceDefinition plundermachines.infrastructure.cluster.x-k8s.io",
			"unchanged CustomResourceDefinition plundermachinetemplates.infrastructure.cluster.x-k8s.io",
			"created CustomResourceDefinition clusters.cluster.x-k8s.io",
			"created CustomResourceDefinition machines.cluster.x-k8s.io",
			"created Secret capplunder-system/plunder",
		}
		if !slices.Equal(r, want) {
			t.Errorf("got  %q\nwant %q", r, want)
		}
		if _, err := kube.Connect(t.Context(), find(t, kubeconfig)); err != nil {
			t.Error(err)
		}
	})
	t.Run("again", func(t *testing.T) {
		before := versions(t, c, everything)
		if r := install(t, c, everything); !r.all(Unchanged) {
			t.Errorf("got %q", r)
		}
		if after := versions(t, c, everything); !slices.Equal(before, after) {
			t.Errorf("resource versions were %q and are %q", before, after)
		}
	})
	t.Run("another configuration", func(t *testing.T) {
		secret.Data = []byte("address: 192.0.2.2\n")
		r := install(t, c, everything)
		if last := r[len(r)-1]; last != "updated Secret capplunder-system/plunder" {
			t.Errorf("got %q", last)
		}
		data, err := ReadSecret(t.Context(), c, secret.Key)
		if err != nil || string(data) != "address: 192.0.2.2\n" {
			t.Errorf("got %q, %v", data, err)
		}
		elsewhere := &Secret{Key: capi.Key{Namespace: "nowhere", Name: "x"}}
		if err := Install(t.Context(), c, Options{Secret: elsewhere}, new(reports).report); !isRefused(err, "namespace of the secret nowhere/x does not exist") {
			t.Errorf("a namespace that is not there: %v", err)
		}
		if _, err := c.Core.Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSecret(t.Context(), c, capi.Key{Namespace: "default", Name: "other"}); !isRefused(err, "has no key plunderclient.yaml") {
			t.Errorf("no key: %v", err)
		}
	})
	t.Run("fields of others", func(t *testing.T) {
		role := crd.RBAC()[1].Object
		_, err := resource(c, role).Patch(t.Context(), role.GetName(), types.MergePatchType, []byte(`{"rules":[]}`), metav1.PatchOptions{FieldManager: "somebody"})
		if err != nil {
			t.Fatal(err)
		}
		err = Install(t.Context(), c, everything, new(reports).report)
		var conflict *ConflictError
		if !errors.As(err, &conflict) || !strings.Contains(err.Error(), "ClusterRole capplunder: others have set .rules (\"somebody\"") {
			t.Fatalf("got %v", err)
		}
		forced := everything
		forced.Force = true
		if r := install(t, c, forced); r[1] != "updated ClusterRole capplunder" {
			t.Errorf("got %q", r[1])
		}
		if r := install(t, c, everything); !r.all(Unchanged) {
			t.Errorf("got %q", r)
		}
	})
	t.Run("older than what is there", func(t *testing.T) {
		d := crd.Bases()[1].Object
		add := `[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/future","value":{"type":"string"}}]`
		if _, err := resource(c, d).Patch(t.Context(), d.GetName(), types.JSONPatchType, []byte(add), metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
			t.Fatal(err)
		}
		before := versions(t, c, everything)
		if err := Install(t.Context(), c, everything, new(reports).report); !isRefused(err, "installed by a newer capplunder: this one does not know v1alpha1 spec.future,") {
			t.Errorf("got %v", err)
		}
		if after := versions(t, c, everything); !slices.Equal(before, after) {
			t.Errorf("refused, and yet something was written: %q, %q", before, after)
		}
		remove := `[{"op":"remove","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/future"}]`
		if _, err := resource(c, d).Patch(t.Context(), d.GetName(), types.JSONPatchType, []byte(remove), metav1.PatchOptions{FieldManager: fieldManager}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("no rights", func(t *testing.T) {
		user := dial(t, env.UserKubeconfig(t, "somebody"))
		err := Install(t.Context(), user, everything, new(reports).report)
		var rights *RightsError
		if !errors.As(err, &rights) || !strings.Contains(err.Error(), "user somebody may not get namespaces") {
			t.Errorf("got %v", err)
		}
		if _, err := PlanUninstall(t.Context(), user); !errors.As(err, &rights) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("uninstall with machines", func(t *testing.T) {
		var all []string
		for i := range 12 {
			o := object(t, fmt.Sprintf(plunderMachine, fmt.Sprintf("m%02d", i), "{}"))
			if _, err := apply(t.Context(), c, "default", o); err != nil {
				t.Fatal(err)
			}
			all = append(all, o.GetName())
		}
		before := versions(t, c, everything)
		_, err := PlanUninstall(t.Context(), c)
		var refused *RefusedError
		if !errors.As(err, &refused) || !isRefused(err, "PlunderMachine default/m00, ") || !isRefused(err, "and 2 more") || refused.Next != "capplunder get machines -A" {
			t.Errorf("got %v", err)
		}
		if after := versions(t, c, everything); !slices.Equal(before, after) {
			t.Errorf("refused, and yet something was written: %q, %q", before, after)
		}
		for _, name := range all {
			o := object(t, fmt.Sprintf(plunderMachine, name, "{}"))
			if err := in(c, o, "default").Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		cluster := object(t, "{apiVersion: cluster.x-k8s.io/v1beta1, kind: Cluster, metadata: {name: c}}")
		if _, err := apply(t.Context(), c, "default", cluster); err != nil {
			t.Fatal(err)
		}
		if _, err := PlanUninstall(t.Context(), c); !isRefused(err, "Cluster default/c") {
			t.Errorf("got %v", err)
		}
		if err := in(c, cluster, "default").Delete(t.Context(), "c", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("uninstall with reservations", func(t *testing.T) {
		holder, nobody := "default/worker", ""
		for name, by := range map[string]*string{"mac-1": &holder, "free": &nobody} {
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{HolderIdentity: by}}
			if _, err := c.Leases.Leases(crd.Namespace).Create(t.Context(), lease, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		r := uninstall(t, c)
		want := reports{
			"deleted CustomResourceDefinition clusters.cluster.x-k8s.io",
			"deleted CustomResourceDefinition machines.cluster.x-k8s.io",
			"deleted CustomResourceDefinition plunderclusters.infrastructure.cluster.x-k8s.io",
			"deleted CustomResourceDefinition plundermachines.infrastructure.cluster.x-k8s.io",
			"deleted CustomResourceDefinition plundermachinetemplates.infrastructure.cluster.x-k8s.io",
			"deleted Secret capplunder-system/plunder",
			"deleted ClusterRole capplunder",
			"kept Namespace capplunder-system: Leases in it are held: mac-1",
		}
		if !slices.Equal(r, want) {
			t.Errorf("got  %q\nwant %q", r, want)
		}
		if err := c.Leases.Leases(crd.Namespace).Delete(t.Context(), "mac-1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if r := uninstall(t, c); !slices.Equal(r, reports{"deleted Namespace capplunder-system"}) {
			t.Errorf("got %q", r)
		}
		if r := uninstall(t, c); len(r) != 0 { // no controller is here to finish that deletion
			t.Errorf("got %q", r)
		}
	})
}

// isRefused reports whether err is a refusal that says text.
func isRefused(err error, text string) bool {
	var refused *RefusedError
	return errors.As(err, &refused) && strings.Contains(err.Error(), text)
}

// versions are the resource versions of everything that is installed.
func versions(t *testing.T, c *kube.Client, o Options) []string {
	t.Helper()
	var list []string
	for _, m := range Manifests(o) {
		u, err := get(t.Context(), c, m.Object)
		if err != nil || u == nil {
			t.Fatalf("%s: %v", Name(m.Object), err)
		}
		list = append(list, Name(u)+" "+u.GetResourceVersion())
	}
	return list
}

// Cluster API's own definitions are never touched.
func TestWithClusterAPI(t *testing.T) {
	env := kubetest.Private(t)
	env.InstallCAPI(t, kubetest.CAPIv1beta1)
	kubeconfig := env.Kubeconfig(t)
	c := dial(t, kubeconfig)
	err := Install(t.Context(), c, Options{Standalone: true}, new(reports).report)
	if !isRefused(err, "clusters.cluster.x-k8s.io is there, and Cluster API's own") || !isRefused(firstOf(err), "") {
		t.Fatalf("got %v", err)
	}
	if u, err := get(t.Context(), c, crd.RBAC()[0].Object); u != nil || err != nil {
		t.Errorf("refused, and yet there is a namespace: %v", err)
	}
	if r := install(t, c, Options{}); !r.all(Created) {
		t.Errorf("got %q", r)
	}
	if _, err := kube.Connect(t.Context(), find(t, kubeconfig)); err != nil {
		t.Error(err)
	}
	if r := uninstall(t, c); !r.all(Deleted) || len(r) != 5 {
		t.Errorf("got %q", r)
	}
	for _, m := range crd.Standalone() {
		if u, err := get(t.Context(), c, m.Object); u == nil || err != nil {
			t.Errorf("%s of Cluster API is gone: %v", m.Object.GetName(), err)
		}
	}
}

// firstOf is the first of joined errors.
func firstOf(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()[0]
	}
	return err
}

// The definitions of 2019 become ours; what is stored stays. A namespace that was there
// before is not ours to remove.
func TestOverThoseOf2019(t *testing.T) {
	env := kubetest.Private(t)
	kubeconfig := env.Kubeconfig(t)
	c := dial(t, kubeconfig)
	env.Kubectl(t, kubeconfig, "create", "namespace", crd.Namespace)
	env.Kubectl(t, kubeconfig, "apply", "-f", "testdata/2019.yaml")
	env.Kubectl(t, kubeconfig, "wait", "--for=condition=Established", "crd/plundermachines.infrastructure.cluster.x-k8s.io", "--timeout=60s")
	machine := object(t, fmt.Sprintf(plunderMachine, "old", `{ipaddress: "192.168.1.123", deploymentType: preseed}`))
	machine.Object["status"] = map[string]any{"ready": true, "machineName": "old-1", "macaddress": "00:50:56:a5:11:20"}
	if _, err := in(c, machine, "default").Create(t.Context(), machine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	p, err := PlanUninstall(t.Context(), c)
	if err != nil || len(p.Remove) != 0 || len(p.Keep) != 2 {
		t.Errorf("what is not ours would go: %v, %v", p, err)
	}
	r := install(t, c, Options{})
	for _, want := range []string{
		"unchanged Namespace capplunder-system: it was there before",
		"updated CustomResourceDefinition plundermachines.infrastructure.cluster.x-k8s.io: replaces the definition of 2019; status is a subresource now",
	} {
		if !slices.Contains(r, want) {
			t.Errorf("no %q in %q", want, r)
		}
	}
	if r := install(t, c, Options{}); !r.all(Unchanged) {
		t.Errorf("got %q", r)
	}
	u, err := in(c, machine, "default").Patch(t.Context(), "old", types.MergePatchType, []byte(`{"status":{"initialization":{"provisioned":true}}}`), metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(u.Object["status"]); !strings.Contains(got, "old-1") || !strings.Contains(got, "provisioned:true") {
		t.Errorf("status is %s", got)
	}
	if err := in(c, machine, "default").Delete(t.Context(), "old", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if r := uninstall(t, c); !slices.Contains(r, "kept Namespace capplunder-system: capplunder did not install it") {
		t.Errorf("got %q", r)
	}
}

// What is printed can be applied with kubectl, and is what init would have applied.
func TestManifestsForKubectl(t *testing.T) {
	env := kubetest.Private(t)
	kubeconfig := env.Kubeconfig(t)
	var all []string
	for _, m := range Manifests(Options{Standalone: true}) {
		all = append(all, string(m.YAML))
	}
	env.Kubectl(t, kubeconfig, "apply", "-f", writeFile(t, strings.Join(all, "---\n")))
	r := install(t, dial(t, kubeconfig), Options{Standalone: true})
	for _, line := range r {
		if strings.HasPrefix(line, Created) {
			t.Errorf("%s, although kubectl was to have created it", line)
		}
	}
	if r := install(t, dial(t, kubeconfig), Options{Standalone: true}); !r.all(Unchanged) {
		t.Errorf("got %q", r)
	}
}

// Two people prepare one cluster at the same time.
func TestManyAtOnce(t *testing.T) {
	env := kubetest.Private(t)
	kubeconfig := env.Kubeconfig(t)
	errs := make(chan error)
	const people = 6
	for range people {
		c := dial(t, kubeconfig)
		go func() { errs <- Install(t.Context(), c, Options{Standalone: true}, new(reports).report) }()
	}
	for range people {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// Where reservations are made is what is installed.
func TestNamespaceIsThatOfTheStore(t *testing.T) {
	if crd.Namespace != state.SystemNamespace {
		t.Errorf("installed: %s, used: %s", crd.Namespace, state.SystemNamespace)
	}
}
