package state

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// openEmptyKube opens the store on an API server that is for the tests of all stores
// alone, after it has taken away what the test before left there.
func openEmptyKube(t *testing.T) *Kubernetes {
	t.Helper()
	env := kubetest.ServerWith(t, kubetest.CAPIMany)
	install(t, env)
	k := openKube(t, env.Config, 0)
	k.claims = reservations{client: k.client, namespace: env.Namespace(t)}
	all := connect(t, env.Config)
	secrets, err := all.Core.Secrets("default").List(t.Context(), metav1.ListOptions{FieldSelector: "type=" + secretType})
	must(t, err)
	for i := range secrets.Items {
		must(t, all.Core.Secrets("default").Delete(t.Context(), secrets.Items[i].Name, metav1.DeleteOptions{}))
	}
	admin := all.Dynamic
	for _, r := range []kube.Resource{k.machines(), k.plunderMachines(), k.clusters(), k.plunderClusters()} {
		all, err := k.list(t.Context(), r, "")
		must(t, err)
		for at, u := range all {
			api := admin.Resource(r.GVR(object(u.Object).version())).Namespace(at.Namespace)
			_, err := api.Patch(t.Context(), at.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
			must(t, err)
			if err := api.Delete(t.Context(), at.Name, metav1.DeleteOptions{}); err != nil && !deleting(u) {
				t.Fatal(err)
			}
			k.forget(r, at)
		}
	}
	return k
}
