package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// On a Lease that is a reservation.
const (
	labelReserves = annotationPrefix + "reserves" // what: "mac" or "address"
	labelMachine  = annotationPrefix + "machine"  // for whom: labelValue of the Machine's key
	labelCluster  = annotationPrefix + "cluster"  // labelValue of its Cluster's key

	annotationValue    = annotationPrefix + "value"           // the MAC or the address
	annotationClaimant = annotationPrefix + "plunder-machine" // "name uid" of the PlunderMachine
)

// kind of what is reserved.
type reserves string

const (
	reservesMAC     reserves = "mac"
	reservesAddress reserves = "address"
)

// what is the kind's name in a TakenError.
func (k reserves) what() string {
	if k == reservesMAC {
		return "MAC"
	}
	return "address"
}

// reservations are who has which MAC and which address, of everybody who uses the
// cluster: one Lease for each, that does not expire. The API server lets only one
// create it. A reservation is made before anything is recorded or posted, and given up
// after the machine was given back, just before its record goes.
type reservations struct {
	client    *kube.Client
	namespace string
}

// reservation is one of them.
type reservation struct {
	kind  reserves
	value string
}

func reservationsOf(rec capi.Record) []reservation {
	var list []reservation
	if rec.MAC != "" {
		list = append(list, reservation{reservesMAC, rec.MAC})
	}
	if rec.Address != "" {
		list = append(list, reservation{reservesAddress, rec.Address})
	}
	return list
}

// name of the Lease, e.g. mac-00-50-56-a5-11-20 or ip-192-168-1-10.
func (v reservation) name() string {
	prefix := "mac-"
	if v.kind == reservesAddress {
		prefix = "ip-"
	}
	name := prefix + strings.NewReplacer(":", "-", ".", "-").Replace(v.value)
	if len(validation.IsDNS1123Label(name)) > 0 {
		return prefix + "h" + shortHash(v.value, 16)
	}
	return name
}

// take reserves the MAC and the address of rec, as far as it has them, for its Machine.
// claimant is the UID of its PlunderMachine. What is its own already is not written. If
// another machine has one of them the error is a *TakenError, and nothing more is
// reserved than before.
func (r reservations) take(ctx context.Context, rec capi.Record, claimant types.UID) error {
	var made []*coordinationv1.Lease
	for _, v := range reservationsOf(rec) {
		lease, err := r.reserve(ctx, v, rec, claimant)
		if err != nil {
			for _, m := range made {
				_ = r.remove(ctx, m) // what stays is swept when the cluster is locked the next time
			}
			return err
		}
		if lease != nil {
			made = append(made, lease)
		}
	}
	return nil
}

// reserve returns the Lease if it made one, and nil if it was there.
func (r reservations) reserve(ctx context.Context, v reservation, rec capi.Record, claimant types.UID) (*coordinationv1.Lease, error) {
	holder := rec.Key.String()
	want := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.namespace, Name: v.name(),
			Labels: map[string]string{
				labelManagedBy: managedBy,
				labelReserves:  string(v.kind),
				labelMachine:   labelValue(rec.Key),
				labelCluster:   labelValue(capi.Key{Namespace: rec.Namespace, Name: rec.Cluster}),
			},
			Annotations: map[string]string{
				annotationValue:    v.value,
				annotationClaimant: rec.PlunderMachine.Name + " " + string(claimant),
			},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder},
	}
	what := "Lease " + r.namespace + "/" + want.Name
	for {
		// Nearly always it is free, so creating it is tried without looking first.
		made, err := r.leases().Create(ctx, want, metav1.CreateOptions{FieldManager: fieldManager})
		switch {
		case err == nil:
			return made, nil
		case apierrors.IsNotFound(err):
			return nil, &NamespaceError{Namespace: r.namespace, For: "reserve " + v.what() + " " + v.value, Err: err}
		case !apierrors.IsAlreadyExists(err):
			return nil, r.client.Explain(err, "create", what)
		}
		there, err := r.leases().Get(ctx, want.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue // given up just now
		}
		if err != nil {
			return nil, r.client.Explain(err, "get", what)
		}
		return nil, r.mine(ctx, there, v, rec, claimant)
	}
}

func (v reservation) what() string { return v.kind.what() }

// mine returns nil if the reservation is the machine's own, and else a *TakenError.
func (r reservations) mine(ctx context.Context, there *coordinationv1.Lease, v reservation, rec capi.Record, claimant types.UID) error {
	_, uid := claimantOf(there)
	if holderOf(there) == rec.String() && (uid == claimant || uid == "" || claimant == "") {
		return nil
	}
	taken := &TakenError{Key: rec.Key, Holder: capi.ParseKey(holderOf(there), ""), What: v.what(), Value: v.value}
	lives, err := r.claimantLives(ctx, there)
	if err != nil {
		return err
	}
	if lives == nil {
		taken.GiveUp = fmt.Sprintf("kubectl delete lease -n %s %s", there.Namespace, there.Name)
	}
	return taken
}

// claimantLives returns the PlunderMachine that a reservation was made for, or nil when
// that is not there any more; another one of the same name is not it.
func (r reservations) claimantLives(ctx context.Context, lease *coordinationv1.Lease) (*unstructured.Unstructured, error) {
	holder := capi.ParseKey(holderOf(lease), "")
	name, uid := claimantOf(lease)
	if name == "" || holder.Namespace == "" {
		return nil, nil //nolint:nilnil // not one of ours
	}
	resource := r.client.Schema.PlunderMachine
	gvr := resource.GVR(resource.VersionOf(&unstructured.Unstructured{}))
	u, err := r.client.Dynamic.Resource(gvr).Namespace(holder.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // likewise
	case err != nil:
		return nil, r.client.Explain(err, "get", "PlunderMachine "+holder.Namespace+"/"+name)
	case uid != "" && u.GetUID() != uid:
		return nil, nil //nolint:nilnil // likewise
	}
	return u, nil
}

func claimantOf(l *coordinationv1.Lease) (name string, uid types.UID) {
	name, id, _ := strings.Cut(l.Annotations[annotationClaimant], " ")
	return name, types.UID(id)
}

// drop gives up everything that a Machine has reserved but this MAC and this address.
func (r reservations) drop(ctx context.Context, key capi.Key, keepMAC, keepAddress string) error {
	list, err := r.list(ctx, labels.Set{labelMachine: labelValue(key)})
	if err != nil {
		return err
	}
	keep := capi.Record{MAC: keepMAC, Address: keepAddress}
	var errs []error
	for i := range list {
		if holderOf(&list[i]) == key.String() && !shows(keep, &list[i]) {
			errs = append(errs, r.remove(ctx, &list[i]))
		}
	}
	return errors.Join(errs...)
}

// shows reports whether a record has what a Lease reserves.
func shows(rec capi.Record, l *coordinationv1.Lease) bool {
	for _, v := range reservationsOf(rec) {
		if l.Name == v.name() {
			return true
		}
	}
	return false
}

// remove deletes a reservation, if it is still the one that was seen.
func (r reservations) remove(ctx context.Context, seen *coordinationv1.Lease) error {
	err := r.leases().Delete(ctx, seen.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &seen.UID, ResourceVersion: &seen.ResourceVersion},
	})
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return r.client.Explain(err, "delete", "Lease "+seen.Namespace+"/"+seen.Name)
}

// macs says which Machine has reserved which MAC.
func (r reservations) macs(ctx context.Context) (map[string]capi.Key, error) {
	list, err := r.list(ctx, labels.Set{labelReserves: string(reservesMAC)})
	if err != nil {
		return nil, err
	}
	macs := make(map[string]capi.Key, len(list))
	for i := range list {
		if mac := list[i].Annotations[annotationValue]; mac != "" {
			macs[mac] = capi.ParseKey(holderOf(&list[i]), "")
		}
	}
	return macs, nil
}

// sweep gives up what machines of a cluster have reserved and no record of theirs
// shows: a run was killed between the two, and had not used it yet. The lock of the
// cluster must be held, and records be read under it. What a PlunderMachine had that is
// not there any more stays reserved: nobody knows what runs on that hardware. And what
// their records show and nobody has reserved, because somebody deleted a Lease, is
// reserved again.
func (r reservations) sweep(ctx context.Context, cluster capi.Key, records []capi.Record) error {
	list, err := r.list(ctx, labels.Set{labelCluster: labelValue(cluster)})
	if err != nil {
		return err
	}
	reserved := make(map[string]bool, len(list))
	for i := range list {
		reserved[list[i].Name] = true
	}
	for _, rec := range records {
		if rec.Namespace != cluster.Namespace || rec.Cluster != cluster.Name {
			continue
		}
		if slices.ContainsFunc(reservationsOf(rec), func(v reservation) bool { return !reserved[v.name()] }) {
			if err := r.take(ctx, rec, ""); err != nil {
				return err
			}
		}
	}
	known := make(map[string]capi.Record, len(records))
	for _, rec := range records {
		known[rec.String()] = rec
	}
	var errs []error
	for i := range list {
		lease := &list[i]
		if shows(known[holderOf(lease)], lease) {
			continue
		}
		u, err := r.claimantLives(ctx, lease)
		if err != nil {
			return err
		}
		if u == nil {
			continue
		}
		// The PlunderMachine itself has the last word, not the list of records.
		rec, ok, err := machineRecord(u)
		switch {
		case err != nil:
			continue // unknown: the record must be repaired first, which others say
		case ok && rec.String() == holderOf(lease) && shows(rec, lease):
			continue
		}
		errs = append(errs, r.remove(ctx, lease))
	}
	return errors.Join(errs...)
}

func (r reservations) leases() coordinationv1client.LeaseInterface {
	return r.client.Leases.Leases(r.namespace)
}

func (r reservations) list(ctx context.Context, with labels.Set) ([]coordinationv1.Lease, error) {
	with[labelManagedBy] = managedBy
	list, err := r.leases().List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(with).String()})
	if err != nil {
		return nil, r.client.Explain(err, "list", "Leases in "+r.namespace)
	}
	return list.Items, nil
}

// labelValue is "namespace.name" where that can be a label's value (a namespace has no
// dots, so it stands for one object only), else a hash.
func labelValue(key capi.Key) string {
	value := key.Namespace + "." + key.Name
	if len(validation.IsValidLabelValue(value)) > 0 {
		return shortHash(value, 16)
	}
	return value
}
