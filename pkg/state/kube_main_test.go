package state

import (
	"fmt"
	"os"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/kube"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// kubeServer is a shared API server with Cluster API's definitions of v1beta1 and ours.
func kubeServer(t testing.TB) *kubetest.Env {
	t.Helper()
	env := kubetest.ServerWith(t, kubetest.CAPIv1beta1)
	install(t, env)
	return env
}

// install does what `capplunder init` does. It may be called again.
func install(t testing.TB, env *kubetest.Env) {
	t.Helper()
	c, err := kube.Dial(targetOf(env.Config))
	must(t, err)
	for _, m := range append(crd.RBAC(), crd.Bases()...) {
		gvk := m.Object.GroupVersionKind()
		plural := map[string]string{"Namespace": "namespaces", "ClusterRole": "clusterroles", "CustomResourceDefinition": "customresourcedefinitions"}[gvk.Kind]
		_, err := c.Dynamic.Resource(gvk.GroupVersion().WithResource(plural)).Create(t.Context(), m.Object, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	for _, plural := range []string{"plunderclusters", "plundermachines"} {
		gvr := schema.GroupVersionResource{Group: "infrastructure.cluster.x-k8s.io", Version: "v1alpha1", Resource: plural}
		eventually(t, func() error {
			_, err := c.Dynamic.Resource(gvr).List(t.Context(), metav1.ListOptions{})
			return err
		})
	}
}

func targetOf(config *rest.Config) *kube.Target {
	config = rest.CopyConfig(config)
	config.Timeout = 10 * time.Second
	return &kube.Target{Config: config, Namespace: "default", Context: "test", Server: config.Host, Source: "test"}
}

func connect(t testing.TB, config *rest.Config) *kube.Client {
	t.Helper()
	var c *kube.Client
	eventually(t, func() (err error) {
		c, err = kube.Connect(t.Context(), targetOf(config))
		return err
	})
	return c
}

// openKube opens the store on a server; leases last for the duration (0: as usual).
func openKube(t testing.TB, config *rest.Config, lease time.Duration) *Kubernetes {
	t.Helper()
	k, err := OpenKubernetes(connect(t, config), KubernetesOptions{LeaseDuration: lease})
	must(t, err)
	return k
}

// eventually waits for something that takes a server a moment.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("still after a minute: %w", err))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
