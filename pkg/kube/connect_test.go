package kube_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

const userAgent = "capplunder-test"

// find is the target of a kubeconfig file.
func find(t *testing.T, kubeconfig string) *kube.Target {
	t.Helper()
	target, err := kube.Find(kube.Options{Kubeconfig: kubeconfig, UserAgent: userAgent, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// refused is Connect where it has to fail with an error of type E.
func refused[E error](t *testing.T, target *kube.Target) E {
	t.Helper()
	_, err := kube.Connect(t.Context(), target)
	e, ok := errors.AsType[E](err)
	if !ok {
		t.Fatalf("error %T %v", err, err)
	}
	return e
}

// connected is Connect where it has to succeed.
func connected(t *testing.T, target *kube.Target) *kube.Client {
	t.Helper()
	c, err := kube.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// install makes or changes a CRD of ours and waits until the API server says that it is
// established. status: it has the subresource, which the CRDs of 2019 had not.
func install(t *testing.T, env *kubetest.Env, kind string, status bool, labels map[string]string) {
	t.Helper()
	keep := true
	crd := &apiextensionsv1.CustomResourceDefinition{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
		ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(kind) + "s.infrastructure.cluster.x-k8s.io", Labels: labels},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "infrastructure.cluster.x-k8s.io", Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: kind, Plural: strings.ToLower(kind) + "s"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1alpha1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &keep}},
			}},
		},
	}
	if status {
		crd.Spec.Versions[0].Subresources = &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}}
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(crd)
	if err != nil {
		t.Fatal(err)
	}
	delete(object, "status")
	client := dynamic.NewForConfigOrDie(env.Config).Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions"))
	u := &unstructured.Unstructured{Object: object}
	options := metav1.ApplyOptions{FieldManager: "test", Force: true}
	for {
		got, err := client.Apply(t.Context(), crd.Name, u, options)
		if err != nil {
			t.Fatal(err)
		}
		conditions, _, _ := unstructured.NestedSlice(got.Object, "status", "conditions")
		if slices.ContainsFunc(conditions, func(c any) bool {
			m, ok := c.(map[string]any)
			return ok && m["type"] == "Established" && m["status"] == "True"
		}) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

var contracts = map[string]string{"cluster.x-k8s.io/v1beta1": "v1alpha1", "cluster.x-k8s.io/v1beta2": "v1alpha1"}

// lease says who leads Cluster API's managers; "" is nobody.
func lease(t *testing.T, admin kubernetes.Interface, namespace, holder string, renewed time.Time) {
	t.Helper()
	client, name, at := admin.CoordinationV1().Leases(namespace), "controller-leader-election-capi", metav1.NewMicroTime(renewed)
	_ = client.Delete(t.Context(), name, metav1.DeleteOptions{})
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &at}}
	if _, err := client.Create(t.Context(), l, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// One cluster, from bare to one with a live manager, then without answers. The steps
// build on each other.
func TestConnect(t *testing.T) {
	env := kubetest.Private(t)
	admin := kubernetes.NewForConfigOrDie(env.Config)
	target := find(t, env.Kubeconfig(t))
	namespace := env.Namespace(t)

	none := refused[*kube.NotInstalledError](t, target)
	if want := []string{kube.CRDCluster, kube.CRDMachine, kube.CRDPlunderCluster, kube.CRDPlunderMachine}; !slices.Equal(none.CRDs, want) {
		t.Errorf("missing %v, want %v", none.CRDs, want)
	}
	if none.NextCommand() != "capplunder init --standalone" || !strings.Contains(none.Error(), "install Cluster API") {
		t.Errorf("%v; next %s", none, none.NextCommand())
	}

	env.InstallCAPI(t, kubetest.CAPIv1beta2)
	install(t, env, "PlunderCluster", true, nil)
	one := refused[*kube.NotInstalledError](t, target)
	if !slices.Equal(one.CRDs, []string{kube.CRDPlunderMachine}) || one.NextCommand() != "capplunder init" {
		t.Errorf("missing %v; next %s", one.CRDs, one.NextCommand())
	}

	install(t, env, "PlunderMachine", false, nil)
	c := connected(t, target)
	want := kube.Schema{
		Cluster: kube.Resource{
			Group: "cluster.x-k8s.io", Kind: "Cluster", Plural: "clusters", Served: []string{"v1beta2", "v1beta1"}, Storage: "v1beta2",
			HasStatus: map[string]bool{"v1beta1": true, "v1beta2": true}, Contracts: map[string][]string{},
		},
		PlunderMachine: kube.Resource{
			Group: "infrastructure.cluster.x-k8s.io", Kind: "PlunderMachine", Plural: "plundermachines", Served: []string{"v1alpha1"}, Storage: "v1alpha1",
			Lossless: true, HasStatus: map[string]bool{"v1alpha1": false}, Contracts: map[string][]string{},
		},
	}
	want.Machine, want.PlunderCluster = want.Cluster, want.PlunderMachine
	want.Machine.Kind, want.Machine.Plural = "Machine", "machines"
	want.PlunderCluster.Kind, want.PlunderCluster.Plural, want.PlunderCluster.HasStatus = "PlunderCluster", "plunderclusters", map[string]bool{"v1alpha1": true}
	if diff := cmp.Diff(want, c.Schema, cmpopts.IgnoreFields(kube.Resource{}, "Schemas")); diff != "" {
		t.Error(diff)
	}

	t.Run("versions", versions(c, namespace))

	lease(t, admin, namespace, "capi-0", time.Now().Add(-time.Hour))
	if m := connected(t, target).Schema.Manager; m.Live {
		t.Errorf("a manager of an hour ago is live: %v", m)
	}
	lease(t, admin, namespace, "", time.Now())
	if m := connected(t, target).Schema.Manager; m.Live {
		t.Errorf("a manager that ended in order is live: %v", m)
	}
	lease(t, admin, namespace, "capi-0", time.Now().Add(time.Minute)) // its clock is ahead
	e := refused[*kube.ContractError](t, target)
	if want := []string{kube.CRDPlunderCluster, kube.CRDPlunderMachine}; !slices.Equal(e.CRDs, want) || e.NextCommand() != "capplunder init" ||
		e.Evidence != "Lease "+namespace+"/controller-leader-election-capi, held by capi-0" {
		t.Errorf("%v, CRDs %v", e, e.CRDs)
	}
	install(t, env, "PlunderMachine", true, contracts)
	install(t, env, "PlunderCluster", true, contracts)
	s := connected(t, target).Schema
	if !s.Manager.Live || !slices.Equal(s.PlunderMachine.Contracts["v1beta2"], []string{"v1alpha1"}) || !s.PlunderMachine.HasStatus["v1alpha1"] {
		t.Errorf("schema %+v", s)
	}

	lease(t, admin, namespace, "", time.Now())
	deployment(t, admin, namespace, 0)
	if m := connected(t, target).Schema.Manager; m.Live {
		t.Errorf("a manager that is scaled to nothing is live: %v", m)
	}
	deployment(t, admin, namespace, 1)
	if m := connected(t, target).Schema.Manager; m.Evidence != "Deployment "+namespace+"/capi-controller-manager" {
		t.Errorf("a manager that just starts: %+v", m)
	}

	t.Run("rights", rights(env, admin))

	requests := env.Audit(t)
	seen := 0
	for _, r := range requests {
		if r.UserAgent == userAgent {
			seen++
			if r.Write() && r.Group != "cluster.x-k8s.io" { // Machines are the test's own
				t.Errorf("a connection writes: %s", r)
			}
		}
	}
	if seen == 0 {
		t.Error("the audit log has no request with our user agent")
	}

	target.Config.Timeout = 300 * time.Millisecond
	env.PauseAPIServer(t)
	if _, err := kube.Connect(t.Context(), target); !errors.Is(err, capi.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("from an API server that hangs: %v", err)
	}
	env.ResumeAPIServer(t)
	env.StopAPIServer(t)
	_, err := c.Core.Secrets(namespace).Get(t.Context(), "x", metav1.GetOptions{})
	if err = c.Explain(err, "get", "Secret "+namespace+"/x"); !errors.Is(err, capi.ErrUnavailable) {
		t.Errorf("from an API server that is gone, over an open connection: %v", err)
	}
	if _, err := kube.Connect(t.Context(), target); !errors.Is(err, capi.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("from an API server that is gone: %v", err)
	}
}

// versions shows why ForManifest refuses what it refuses, and that VersionOf finds the
// version in which an object was written, whatever version it is read at.
func versions(c *kube.Client, namespace string) func(*testing.T) {
	return func(t *testing.T) {
		machine := func(version, name string, ref map[string]any) (*unstructured.Unstructured, error) {
			u := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "cluster.x-k8s.io/" + version, "kind": "Machine",
				"metadata": map[string]any{"name": name},
				"spec": map[string]any{
					"clusterName": "c", "bootstrap": map[string]any{"dataSecretName": "x"},
					"infrastructureRef": ref,
				},
			}}
			return c.Dynamic.Resource(c.Schema.Machine.GVR(version)).Namespace(namespace).Create(t.Context(), u, metav1.CreateOptions{})
		}
		get := func(version, name string) *unstructured.Unstructured {
			u, err := c.Dynamic.Resource(c.Schema.Machine.GVR(version)).Namespace(namespace).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(c.Explain(err, "get", "Machine "+name))
			}
			return u
		}
		ref := func(u *unstructured.Unstructured, field string) string {
			s, _, _ := unstructured.NestedString(u.Object, "spec", "infrastructureRef", field)
			return s
		}

		if _, err := machine("v1beta2", "new", map[string]any{"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "PlunderMachine", "name": "new"}); err != nil {
			t.Fatal(err)
		}
		if u := get("v1beta2", "new"); ref(u, "apiGroup") == "" || c.Schema.Machine.VersionOf(u) != "v1beta2" || c.Schema.Machine.ForManifest("v1beta2", u) != nil {
			t.Errorf("written in v1beta2: %v", u)
		}
		if u := get("v1beta1", "new"); ref(u, "apiGroup") != "" || c.Schema.Machine.VersionOf(u) != "v1beta2" || c.Schema.Machine.ForManifest("v1beta1", u) == nil {
			t.Errorf("written in v1beta2, read at v1beta1: %v", u)
		}

		if c.Schema.Machine.ForManifest("v1beta1", nil) == nil {
			t.Error("a new Machine in v1beta1 is fine where v1beta2 is stored")
		}
		if _, err := machine("v1beta1", "old", map[string]any{"apiVersion": "infrastructure.cluster.x-k8s.io/v1alpha1", "kind": "PlunderMachine", "name": "old"}); err != nil {
			t.Fatal(err)
		}
		if u := get("v1beta1", "old"); ref(u, "apiVersion") != "" || ref(u, "name") != "old" {
			t.Errorf("nothing was lost, ForManifest need not refuse this: %v", u)
		}
		if u := get("v1beta2", "old"); c.Schema.Machine.VersionOf(u) != "v1beta1" {
			t.Errorf("written in v1beta1: VersionOf says %s", c.Schema.Machine.VersionOf(u))
		}
	}
}

// deployment makes Cluster API's manager, or scales it.
func deployment(t *testing.T, admin kubernetes.Interface, namespace string, replicas int32) {
	t.Helper()
	labels := map[string]string{"cluster.x-k8s.io/provider": "cluster-api"}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "capi-controller-manager", Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "manager", Image: "manager"}}},
			},
		},
	}
	client := admin.AppsV1().Deployments(namespace)
	_ = client.Delete(t.Context(), d.Name, metav1.DeleteOptions{})
	if _, err := client.Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// rights shows what a user needs for Connect, and what is said about the rest.
func rights(env *kubetest.Env, admin kubernetes.Interface) func(*testing.T) {
	return func(t *testing.T) {
		target := find(t, env.UserKubeconfig(t, "jane"))
		e := refused[*kube.ForbiddenError](t, target)
		if e.Verb != "get" || e.Resource != "customresourcedefinitions.apiextensions.k8s.io" || e.Namespace != "" || e.User != "jane" {
			t.Errorf("%+v", e)
		}
		if want := "user jane may not get customresourcedefinitions.apiextensions.k8s.io cluster-wide; the ClusterRole capplunder"; !strings.Contains(e.Error(), want) {
			t.Errorf("error %q lacks %q", e, want)
		}

		grant := func(name string, rules ...rbacv1.PolicyRule) {
			t.Helper()
			role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
			if _, err := admin.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			binding := &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "jane"}},
			}
			if _, err := admin.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		// The authorizer learns of a new binding a moment later.
		await := func(what string, done func(error) bool) {
			t.Helper()
			var err error
			for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				if _, err = kube.Connect(t.Context(), target); done(err) {
					return
				}
			}
			t.Fatalf("%s: %v", what, err)
		}
		grant("definitions", rbacv1.PolicyRule{
			APIGroups: []string{"apiextensions.k8s.io"}, Resources: []string{"customresourcedefinitions"}, Verbs: []string{"get"},
			ResourceNames: []string{kube.CRDCluster, kube.CRDMachine, kube.CRDPlunderCluster, kube.CRDPlunderMachine},
		})
		await("forbidden to look at leases", func(err error) bool {
			e, ok := errors.AsType[*kube.ForbiddenError](err)
			return ok && e.Verb == "list" && e.Resource == "leases.coordination.k8s.io"
		})
		grant("lease", rbacv1.PolicyRule{
			APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"list"},
			ResourceNames: []string{"controller-leader-election-capi"},
		})
		await("forbidden to look at Deployments only", func(err error) bool { return err == nil })
		if m := connected(t, target).Schema.Manager; m.Live {
			t.Errorf("saw a Deployment without the right to: %v", m)
		}
	}
}
