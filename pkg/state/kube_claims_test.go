package state

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// newReservations keeps them in a namespace of the test's.
func newReservations(t *testing.T) (r reservations, namespace string) {
	t.Helper()
	env := kubeServer(t)
	ns := env.Namespace(t)
	return reservations{client: connect(t, env.Config), namespace: ns}, ns
}

// plunderMachine makes one, and returns its UID.
func plunderMachine(t *testing.T, r reservations, key capi.Key) types.UID {
	t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": plunderAPIVersion, "kind": "PlunderMachine",
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
		"spec":     map[string]any{},
	}}
	gvr := r.client.Schema.PlunderMachine.GVR("v1alpha1")
	made, err := r.client.Dynamic.Resource(gvr).Namespace(key.Namespace).Create(t.Context(), u, metav1.CreateOptions{})
	must(t, err)
	return made.GetUID()
}

func removePlunderMachine(t *testing.T, r reservations, key capi.Key) {
	t.Helper()
	gvr := r.client.Schema.PlunderMachine.GVR("v1alpha1")
	must(t, r.client.Dynamic.Resource(gvr).Namespace(key.Namespace).Delete(t.Context(), key.Name, metav1.DeleteOptions{}))
}

func claimOf(ns, name, mac, address string) capi.Record {
	k := capi.Key{Namespace: ns, Name: name}
	return capi.Record{Key: k, PlunderMachine: k, Cluster: "c", MAC: mac, Address: address}
}

// reserved lists the Leases with their versions, to see what was written.
func (r reservations) reserved(t *testing.T) map[string]string {
	t.Helper()
	list, err := r.leases().List(t.Context(), metav1.ListOptions{})
	must(t, err)
	found := map[string]string{}
	for _, l := range list.Items {
		found[l.Name] = holderOf(&l) + " " + l.ResourceVersion
	}
	return found
}

func (r reservations) names(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(r.reserved(t)))
}

func TestReservationsHaveOneWinner(t *testing.T) {
	r, ns := newReservations(t)
	const machines, macs = 20, 10
	for i := range machines {
		plunderMachine(t, r, capi.Key{Namespace: ns, Name: fmt.Sprintf("m%d", i)})
	}
	var mu sync.Mutex
	winners := map[string]capi.Key{}
	var wg sync.WaitGroup
	for i := range machines {
		wg.Go(func() {
			for j := range macs {
				mac := fmt.Sprintf("00:50:56:00:00:%02x", (i+j)%macs)
				rec := claimOf(ns, fmt.Sprintf("m%d", i), mac, "")
				err := r.take(t.Context(), rec, "")
				mu.Lock()
				var taken *TakenError
				switch {
				case err == nil && winners[mac] != (capi.Key{}):
					t.Errorf("%s: won by %s and by %s", mac, winners[mac], rec.Key)
				case err == nil:
					winners[mac] = rec.Key
				case !errors.As(err, &taken) || !errors.Is(err, capi.ErrMACTaken) || taken.Key != rec.Key || taken.Value != mac:
					t.Errorf("%s: %v", mac, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(winners) != macs {
		t.Errorf("%d of %d were won", len(winners), macs)
	}
	got, err := r.macs(t.Context())
	if diff := cmp.Diff(winners, got); err != nil || diff != "" {
		t.Errorf("err %v\n%s", err, diff)
	}
}

func TestReservations(t *testing.T) {
	r, ns := newReservations(t)
	ctx := t.Context()
	a, b := claimOf(ns, "a", "00:50:56:a5:11:20", "192.168.1.10"), claimOf(ns, "b", "00:50:56:a5:b5:f1", "192.168.1.11")
	uid := plunderMachine(t, r, a.Key)
	plunderMachine(t, r, b.Key)

	must(t, r.take(ctx, claimOf(ns, "nothing", "", ""), ""))
	must(t, r.take(ctx, a, uid))
	before := r.reserved(t)
	if got, want := slices.Sorted(maps.Keys(before)), []string{"ip-192-168-1-10", "mac-00-50-56-a5-11-20"}; !slices.Equal(got, want) {
		t.Fatalf("%v", got)
	}
	must(t, r.take(ctx, a, uid)) // its own
	must(t, r.take(ctx, a, ""))
	if diff := cmp.Diff(before, r.reserved(t)); diff != "" {
		t.Errorf("what was its own was written:\n%s", diff)
	}

	// One of two is taken: then neither is reserved.
	var taken *TakenError
	wrong := b
	wrong.Address = a.Address
	err := r.take(ctx, wrong, "")
	if !errors.As(err, &taken) || taken.Holder != a.Key || taken.What != "address" || errors.Is(err, capi.ErrMACTaken) || taken.GiveUp != "" {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, r.reserved(t)); diff != "" {
		t.Errorf("a refused claim left something:\n%s", diff)
	}
	must(t, r.take(ctx, b, ""))

	// Giving up, all but what is kept, and never what another one has.
	must(t, r.drop(ctx, a.Key, a.MAC, b.Address))
	if got, want := r.names(t), []string{"ip-192-168-1-11", "mac-00-50-56-a5-11-20", "mac-00-50-56-a5-b5-f1"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	must(t, r.drop(ctx, a.Key, "", ""))
	must(t, r.drop(ctx, a.Key, "", ""))
	if got, want := r.names(t), []string{"ip-192-168-1-11", "mac-00-50-56-a5-b5-f1"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	macs, err := r.macs(ctx)
	if diff := cmp.Diff(map[string]capi.Key{b.MAC: b.Key}, macs); err != nil || diff != "" {
		t.Errorf("err %v\n%s", err, diff)
	}

	// Before `capplunder init`.
	r.namespace = "capplunder-nowhere"
	var missing *NamespaceError
	if err := r.take(ctx, a, uid); !errors.As(err, &missing) || !strings.Contains(err.Error(), "there is no namespace capplunder-nowhere") {
		t.Errorf("got %v", err)
	}
	if got := (&NamespaceError{Namespace: SystemNamespace}).NextCommand(); got != "capplunder init" {
		t.Errorf("next: %s", got)
	}
}

// What was seen is deleted, not what is there by now.
func TestReservationIsNotAnothersToRemove(t *testing.T) {
	r, ns := newReservations(t)
	ctx := t.Context()
	a, b := claimOf(ns, "a", "00:50:56:a5:11:20", ""), claimOf(ns, "b", "00:50:56:a5:11:20", "")
	must(t, r.take(ctx, a, ""))
	seen, err := r.leases().Get(ctx, "mac-00-50-56-a5-11-20", metav1.GetOptions{})
	must(t, err)
	must(t, r.drop(ctx, a.Key, "", ""))
	must(t, r.take(ctx, b, ""))
	if err := r.remove(ctx, seen); !apierrors.IsConflict(err) {
		t.Errorf("got %v", err)
	}
	macs, err := r.macs(ctx)
	if err != nil || macs[b.MAC] != b.Key {
		t.Errorf("%v, %v", macs, err)
	}
}

// What runs on the hardware of a PlunderMachine that is gone is unknown.
func TestReservationOfNobody(t *testing.T) {
	r, ns := newReservations(t)
	ctx := t.Context()
	a, b := claimOf(ns, "a", "00:50:56:a5:11:20", ""), claimOf(ns, "b", "00:50:56:a5:11:20", "")
	uid := plunderMachine(t, r, a.Key)
	must(t, r.take(ctx, a, uid))
	removePlunderMachine(t, r, a.Key)
	giveUp := "kubectl delete lease -n " + ns + " mac-00-50-56-a5-11-20"

	var taken *TakenError
	err := r.take(ctx, b, "")
	if !errors.As(err, &taken) || taken.GiveUp != giveUp || !errors.Is(err, capi.ErrMACTaken) ||
		!strings.Contains(err.Error(), "whose PlunderMachine is not there any more") || !strings.Contains(err.Error(), giveUp) {
		t.Errorf("got %v", err)
	}
	// Another PlunderMachine of its name is not it.
	again := plunderMachine(t, r, a.Key)
	for _, rec := range []capi.Record{a, b} {
		if err := r.take(ctx, rec, again); !errors.As(err, &taken) || taken.GiveUp != giveUp {
			t.Errorf("%s: %v", rec.Key, err)
		}
	}
	must(t, r.sweep(ctx, capi.Key{Namespace: ns, Name: "c"}, nil))
	if got := r.names(t); len(got) != 1 {
		t.Errorf("swept: %v", got)
	}
}

func TestSweep(t *testing.T) {
	env := kubeServer(t)
	k := openKube(t, env.Config, 0)
	ns := env.Namespace(t)
	r := reservations{client: k.client, namespace: env.Namespace(t)}
	ctx := t.Context()
	c := capi.Key{Namespace: ns, Name: "c"}
	recorded := claimOf(ns, "recorded", "00:50:56:00:00:01", "10.0.0.1")
	changing := claimOf(ns, "changing", "00:50:56:00:00:02", "10.0.0.2")
	unrecorded := claimOf(ns, "unrecorded", "00:50:56:00:00:03", "10.0.0.3")
	foreign := claimOf(ns, "foreign", "00:50:56:00:00:04", "10.0.0.4")
	foreign.Cluster = "d"
	late := claimOf(ns, "late", "00:50:56:00:00:05", "10.0.0.5")
	var records []capi.Record
	for _, rec := range []capi.Record{recorded, changing, unrecorded, foreign, late} {
		uid := plunderMachine(t, r, rec.Key)
		must(t, r.take(ctx, rec, uid))
		if rec.Name == "unrecorded" || rec.Name == "foreign" {
			continue
		}
		_, err := k.change(ctx, k.plunderMachines(), rec.Key, func(o object) error { return setRecord(o, capi.Record{}, rec, true) })
		must(t, err)
		if rec.Name != "late" { // a list that does not show it yet proves nothing
			records = append(records, rec)
		}
		if rec.Name == "changing" {
			rec.MAC = "00:50:56:00:00:12" // it was to get another one when the run was killed
			must(t, r.take(ctx, rec, uid))
		}
	}
	must(t, r.sweep(ctx, c, records))
	want := []string{
		"ip-10-0-0-1", "ip-10-0-0-2", "ip-10-0-0-4", "ip-10-0-0-5",
		"mac-00-50-56-00-00-01", "mac-00-50-56-00-00-02", "mac-00-50-56-00-00-04", "mac-00-50-56-00-00-05",
	}
	if got := r.names(t); !slices.Equal(got, want) {
		t.Errorf("left: %v", got)
	}

	// Somebody deletes a Lease: what is recorded is reserved again.
	must(t, r.leases().Delete(ctx, "mac-00-50-56-00-00-01", metav1.DeleteOptions{}))
	must(t, r.sweep(ctx, c, records))
	if got := r.names(t); !slices.Equal(got, want) {
		t.Errorf("after one was deleted: %v", got)
	}
	// If another machine was quicker, nobody goes on.
	must(t, r.leases().Delete(ctx, "mac-00-50-56-00-00-01", metav1.DeleteOptions{}))
	foreign.MAC = recorded.MAC
	must(t, r.take(ctx, foreign, ""))
	var taken *TakenError
	if err := r.sweep(ctx, c, records); !errors.As(err, &taken) || taken.Holder != foreign.Key {
		t.Errorf("got %v", err)
	}
}

// Whoever locks a cluster finds nothing that a killed run left reserved.
func TestLockSweeps(t *testing.T) {
	env := kubeServer(t)
	k := openKube(t, env.Config, 0)
	ns := env.Namespace(t)
	r := reservations{client: k.client, namespace: SystemNamespace}
	rec := claimOf(ns, "m", "02:00:00:00:00:99", "")
	must(t, r.take(t.Context(), rec, plunderMachine(t, r, rec.Key)))
	claims, err := k.Claims(t.Context())
	must(t, err)
	if claims[rec.MAC] != rec.Key {
		t.Fatalf("%v", claims)
	}
	_, unlock, err := k.Lock(t.Context(), request(0, capi.Key{Namespace: ns, Name: "c"}))
	must(t, err)
	defer unlock()
	claims, err = k.Claims(t.Context())
	must(t, err)
	if _, ok := claims[rec.MAC]; ok {
		t.Error("it is still reserved")
	}
}
