package state

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/pager"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// fieldManager is who the API server says wrote our fields.
const fieldManager = "capplunder"

// Kubernetes is a store in a Kubernetes cluster: the Cluster API objects themselves.
//
//   - the record of a Machine is the annotation AnnotationRecord of its
//     PlunderMachine, the record of a Cluster that of its PlunderCluster (of the
//     Cluster itself, if it has none). It is written in one request, and it alone is
//     read back;
//   - spec and status of the Plunder objects show the same, as the contract of an
//     infrastructure provider has it. Where no Cluster API manager works, Machine and
//     Cluster show it too, as such a manager would;
//   - a finalizer keeps the objects until the machine was given back.
//
// Everything is read afresh but for the base of a patch: a patch carries the
// resource version that it was computed for, and is computed anew when somebody else
// was faster.
type Kubernetes struct {
	client *kube.Client
	opts   KubernetesOptions
	claims claimer

	mu      sync.Mutex
	seen    map[objectID]*unstructured.Unstructured // as the cluster last answered; never changed in place
	removed map[capi.Key]bool                       // clusters, by DeleteCluster
}

// KubernetesOptions change how the store works. The zero value is right.
type KubernetesOptions struct {
	// ForceConflicts takes over fields of given manifests that other field managers own.
	ForceConflicts bool
	// LeaseDuration is after how long without renewal another run's lock is taken over;
	// 0 is the default.
	LeaseDuration time.Duration
}

// claimer keeps a MAC or an address from being given twice. All of it is safe to
// repeat.
type claimer interface {
	// take claims the record's MAC and address, as far as it has them.
	take(ctx context.Context, r capi.Record, claimant types.UID) error
	// drop gives up all that the machine claims, but for these.
	drop(ctx context.Context, key capi.Key, keepMAC, keepAddress string) error
	// macs says who holds which MAC.
	macs(ctx context.Context) (map[string]capi.Key, error)
}

// OpenKubernetes opens the store in a cluster. No request is sent.
func OpenKubernetes(c *kube.Client, opts KubernetesOptions) (*Kubernetes, error) {
	if c == nil || c.Schema.PlunderMachine.Plural == "" {
		return nil, fmt.Errorf("open the Kubernetes store: the client does not know what the cluster serves")
	}
	return &Kubernetes{
		client: c, opts: opts,
		claims: reservations{client: c, namespace: SystemNamespace},
		seen:   map[objectID]*unstructured.Unstructured{}, removed: map[capi.Key]bool{},
	}, nil
}

// String is that of the cluster.
func (k *Kubernetes) String() string { return k.client.String() }

// objectID names an object among all kinds.
type objectID struct {
	kind string
	key  capi.Key
}

// String is "Kind namespace/name".
func (id objectID) String() string { return id.kind + " " + id.key.String() }

func (k *Kubernetes) clusters() kube.Resource        { return k.client.Schema.Cluster }
func (k *Kubernetes) machines() kube.Resource        { return k.client.Schema.Machine }
func (k *Kubernetes) plunderClusters() kube.Resource { return k.client.Schema.PlunderCluster }
func (k *Kubernetes) plunderMachines() kube.Resource { return k.client.Schema.PlunderMachine }

// at is where objects of a kind are, in one version of it.
func (k *Kubernetes) at(r kube.Resource, version, namespace string) dynamic.ResourceInterface {
	return k.client.Dynamic.Resource(r.GVR(version)).Namespace(namespace)
}

func keyOf(u *unstructured.Unstructured) capi.Key {
	return capi.Key{Namespace: u.GetNamespace(), Name: u.GetName()}
}

// remember keeps an answer as the base of the next patch.
func (k *Kubernetes) remember(r kube.Resource, u *unstructured.Unstructured) {
	slim(u)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen[objectID{r.Kind, keyOf(u)}] = u
}

// slim drops half of an object: which of its fields each manager has set. Nobody here
// asks for more than the versions in which they did (VersionOf).
func slim(u *unstructured.Unstructured) {
	entries, _ := object(u.Object).at("metadata")["managedFields"].([]any)
	for _, entry := range entries {
		if entry, ok := entry.(map[string]any); ok {
			delete(entry, "fieldsV1")
		}
	}
}

func (k *Kubernetes) forget(r kube.Resource, key capi.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.seen, objectID{r.Kind, key})
}

// recall is the last answer about an object, or nil.
func (k *Kubernetes) recall(r kube.Resource, key capi.Key) *unstructured.Unstructured {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.seen[objectID{r.Kind, key}]
}

// recallOrFetch is for what does not change, or is checked when it is written.
func (k *Kubernetes) recallOrFetch(ctx context.Context, r kube.Resource, key capi.Key) (*unstructured.Unstructured, error) {
	if u := k.recall(r, key); u != nil && ctx.Err() == nil {
		return u, nil
	}
	return k.fetch(ctx, r, key)
}

// fetch reads an object in the version that it is written in; nil when there is none.
func (k *Kubernetes) fetch(ctx context.Context, r kube.Resource, key capi.Key) (*unstructured.Unstructured, error) {
	known := k.recall(r, key)
	if known == nil {
		known = &unstructured.Unstructured{}
	}
	for version := r.VersionOf(known); ; {
		u, err := k.at(r, version, key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			k.forget(r, key)
			return nil, nil
		}
		if err != nil {
			return nil, k.client.Explain(err, "get", objectID{r.Kind, key}.String())
		}
		if right := r.VersionOf(u); right != version {
			version = right
			continue
		}
		k.remember(r, u)
		return u, nil
	}
}

// pageSize is how many objects one answer to a list brings.
const pageSize = 500

// list reads all objects of a kind in a namespace ("" for all), each in the version
// that it is written in.
func (k *Kubernetes) list(ctx context.Context, r kube.Resource, namespace string) (map[capi.Key]*unstructured.Unstructured, error) {
	found := map[capi.Key]*unstructured.Unstructured{}
	first := r.VersionOf(&unstructured.Unstructured{})
	var others []string
	err := k.each(ctx, r, first, namespace, func(u *unstructured.Unstructured) {
		found[keyOf(u)] = u
		if v := r.VersionOf(u); v != first && !slices.Contains(others, v) {
			others = append(others, v)
		}
	})
	for _, version := range others {
		if err != nil {
			break
		}
		err = k.each(ctx, r, version, namespace, func(u *unstructured.Unstructured) {
			if r.VersionOf(u) == version {
				found[keyOf(u)] = u
			}
		})
	}
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.seen { // what is gone
		if id.kind == r.Kind && (namespace == "" || id.key.Namespace == namespace) {
			delete(k.seen, id)
		}
	}
	for key, u := range found {
		k.seen[objectID{r.Kind, key}] = u
	}
	return found, nil
}

// each calls f with every object of a kind in a namespace ("" for all).
func (k *Kubernetes) each(ctx context.Context, r kube.Resource, version, namespace string, f func(*unstructured.Unstructured)) error {
	pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		return k.at(r, version, namespace).List(ctx, opts)
	})
	pages.PageSize = pageSize
	err := pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		if u, ok := o.(*unstructured.Unstructured); ok {
			slim(u)
			f(u)
		}
		return nil
	})
	where := " in all namespaces"
	if namespace != "" {
		where = " in namespace " + namespace
	}
	return k.client.Explain(err, "list", r.Plural+where)
}

// atOnce is how many requests are under way at once.
const atOnce = 8

// together calls f for 0 to n-1, a few at a time, and returns the first error.
func together(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return f(ctx, i)
		})
	}
	return g.Wait()
}
