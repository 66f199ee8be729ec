package state

import (
	"fmt"
	"os"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/kube"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// kubeServer is a shared API server with Cluster API's definitions of v1beta1 and ours.
func kubeServer(tb testing.TB) *kubetest.Env {
	tb.Helper()
	env := kubetest.ServerWith(tb, kubetest.CAPIv1beta1)
	install(tb, env)
	return env
}

// install does what `capplunder init` does. It may be called again.
func install(tb testing.TB, env *kubetest.Env) {
	tb.Helper()
	c, err := kube.Dial(targetOf(env.Config))
	must(tb, err)
	for _, m := range append(crd.RBAC(), crd.Bases()...) {
		gvk := m.Object.GroupVersionKind()
		plural := map[string]string{"Namespace": "namespaces", "ClusterRole": "clusterroles", "CustomResourceDefinition": "customresourcedefinitions"}[gvk.Kind]
		_, err := c.Dynamic.Resource(gvk.GroupVersion().WithResource(plural)).Create(tb.Context(), m.Object, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			tb.Fatal(err)
		}
	}
	binding := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": map[string]any{"name": operators},
		"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": crd.Role},
		"subjects": []any{map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": operators}},
	}}
	bindings := schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}
	if _, err := c.Dynamic.Resource(bindings).Create(tb.Context(), binding, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		tb.Fatal(err)
	}
	for _, plural := range []string{"plunderclusters", "plundermachines"} {
		gvr := schema.GroupVersionResource{Group: "infrastructure.cluster.x-k8s.io", Version: "v1alpha1", Resource: plural}
		eventually(tb, func() error {
			_, err := c.Dynamic.Resource(gvr).List(tb.Context(), metav1.ListOptions{})
			return err
		})
	}
}

// operators is the group of those who have the shipped role.
const operators = "operators"

func targetOf(config *rest.Config) *kube.Target {
	config = rest.CopyConfig(config)
	config.Timeout = 10 * time.Second
	config.WarningHandler = rest.NoWarnings{}
	return &kube.Target{Config: config, Namespace: "default", Context: "test", Server: config.Host, Source: "test"}
}

func connect(tb testing.TB, config *rest.Config) *kube.Client {
	tb.Helper()
	var c *kube.Client
	eventually(tb, func() (err error) {
		c, err = kube.Connect(tb.Context(), targetOf(config))
		return err
	})
	return c
}

// openKube opens the store on a server, as somebody who has the shipped role and no
// other rights; leases last for the duration (0: as usual).
func openKube(tb testing.TB, config *rest.Config, lease time.Duration) *Kubernetes {
	tb.Helper()
	config = rest.CopyConfig(config)
	if len(config.Impersonate.UserName) == 0 {
		config.Impersonate = rest.ImpersonationConfig{UserName: "operator", Groups: []string{operators, "system:authenticated"}}
	}
	k, err := OpenKubernetes(connect(tb, config), KubernetesOptions{LeaseDuration: lease})
	must(tb, err)
	return k
}

// eventually waits for something that takes a server a moment.
func eventually(tb testing.TB, f func() error) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatal(fmt.Errorf("still after a minute: %w", err))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
