package state

import (
	"errors"
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Under a Cluster API manager nothing is ours but the PlunderMachine: a run that is
// killed at any write of its removal leaves no reservation that nobody would find.
func TestKubeKilledUnderAManager(t *testing.T) {
	env := kubeServer(t)
	killed := 0
	for n := range 20 {
		ns := env.Namespace(t)
		k := newStore(t, env, ns)
		set := decode(t, manifests("v1beta1", ns))
		must(t, k.Sync(t.Context(), set))
		asManager(t, k, ns, "cp")
		key := capi.Key{Namespace: ns, Name: "cp"}
		k = newStore(t, env, ns)
		must(t, k.SaveRecord(t.Context(), readyRecord(ns, "cp", 0)))
		if macs, err := k.Claims(t.Context()); len(macs) != 1 || err != nil {
			t.Fatalf("%v, %v", macs, err)
		}
		env.Kubectl(t, env.Kubeconfig(t), "-n", ns, "delete", "plundermachine", "cp-infra", "--wait=false")

		err := killedStore(t, env, ns, n, false).DeleteRecord(t.Context(), key)
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		again := newStore(t, env, ns)
		_, there, recordErr := again.Record(t.Context(), key)
		must(t, recordErr)
		if there {
			must(t, again.DeleteRecord(t.Context(), key))
		}
		if left, err := again.reserved(t, ns); left != "" || err != nil {
			t.Errorf("killed at write %d, the record was there %v: still reserved: %s %v", n, there, left, err)
		}
		if err == nil {
			break
		}
		killed++
	}
	if killed < 3 {
		t.Errorf("killed %d times only", killed)
	}
}

// reserved are the names of all Leases in a namespace.
func (k *Kubernetes) reserved(t *testing.T, namespace string) (names string, err error) {
	t.Helper()
	list, err := reservations{client: k.client, namespace: namespace}.list(t.Context(), labels.Set{})
	for i := range list {
		names += fmt.Sprintf(" %s", list[i].Name)
	}
	return names, err
}
