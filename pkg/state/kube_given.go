package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// annotationGiven is the SHA-256 of the manifest that was applied last. A manifest that
// no longer says what it said before is applied again, although all that it still says
// may be there.
const annotationGiven = annotationPrefix + "manifest"

// RefusedError says that the API server does not take a given object as it is.
type RefusedError struct {
	Kind   string
	Key    capi.Key
	Origin capi.Origin
	Err    error // of the API
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: %s %s: the cluster refuses it: %v", e.Origin, e.Kind, e.Key, e.Err)
}

// Unwrap implements errors.Unwrap.
func (e *RefusedError) Unwrap() error { return e.Err }

// FieldConflict is a field that somebody else gave another value.
type FieldConflict struct {
	Field string // ".spec.version"
	Owner string // `"kubectl-edit" using cluster.x-k8s.io/v1beta1`
}

// ConflictError says that others own fields of a given object and gave them other
// values. KubernetesOptions.ForceConflicts takes them over.
type ConflictError struct {
	Kind   string
	Key    capi.Key
	Origin capi.Origin
	Fields []FieldConflict
	Err    error // of the API
}

// Error implements error.
func (e *ConflictError) Error() string {
	parts := make([]string, 0, len(e.Fields))
	for _, f := range e.Fields {
		parts = append(parts, fmt.Sprintf("%s is owned by %s", f.Field, f.Owner))
	}
	return fmt.Sprintf("%s: %s %s: others gave fields of it other values: %s: take that over into the manifest, or add --force-conflicts to overwrite it",
		e.Origin, e.Kind, e.Key, strings.Join(parts, "; "))
}

// Unwrap implements errors.Unwrap.
func (e *ConflictError) Unwrap() error { return e.Err }

// gift is a given object that the cluster does not have like that.
type gift struct {
	r      kube.Resource
	key    capi.Key
	origin capi.Origin
	given  *unstructured.Unstructured
}

// gifts are the objects of a set that came from files and are not in the cluster as
// they say, in the order in which they can be understood: a Machine comes after what
// it refers to.
func (k *Kubernetes) gifts(v *view, set *capi.Set) ([]gift, error) {
	var list []gift
	var problems []error
	add := func(r kube.Resource, key capi.Key, origin capi.Origin, manifest func() (object, error)) {
		live := v.of(r, key)
		if origin.File == "" || deleting(live) || live != nil && external(live.Object) {
			return
		}
		o, err := manifest()
		if err == nil {
			o, err = toApply(o)
		}
		if err == nil && live != nil && protects(live.Object) && !protects(o) {
			// A field that is not given any more is taken away by server-side apply.
			o.in("metadata", "annotations")[capi.AnnotationProtected] = live.GetAnnotations()[capi.AnnotationProtected]
		}
		if err == nil {
			err = r.ForManifest(o.version(), live)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %s %s: %w", origin, r.Kind, key, err))
			return
		}
		if !has(r, live, o) {
			list = append(list, gift{r, key, origin, &unstructured.Unstructured{Object: o}})
		}
	}
	for _, c := range set.Clusters {
		add(k.clusters(), c.Key, c.Origin, func() (object, error) { return clusterManifest(c) })
		if c.Infra != nil {
			add(k.plunderClusters(), c.Infra.Key, c.Infra.Origin, func() (object, error) { return plunderClusterManifest(c.Infra) })
		}
	}
	for _, m := range set.Machines {
		if m.Deleting {
			continue
		}
		add(k.plunderMachines(), m.Infra.Key, m.Infra.Origin, func() (object, error) { return plunderMachineManifest(m.Infra) })
	}
	for _, m := range set.Machines {
		if m.Deleting {
			continue
		}
		add(k.machines(), m.Key, m.Origin, func() (object, error) {
			o, err := machineManifest(m)
			if err == nil && m.Version != "" {
				o.in("spec")["version"] = m.Version // with its "v", which Cluster API's webhook would add
			}
			return o, err
		})
	}
	return list, errors.Join(problems...)
}

// toApply is a manifest as it is applied: without what only the cluster gives an
// object, and with its hash. An empty control plane endpoint is none, to the decoder
// and to us; applied, it would be in conflict with the one that we fill in.
func toApply(o object) (object, error) {
	meta := map[string]any{}
	for _, name := range []string{"name", "namespace", "labels", "annotations"} {
		if value, ok := o.at("metadata")[name]; ok {
			meta[name] = value
		}
	}
	o["metadata"] = meta
	if o["spec"] == nil {
		o["spec"] = map[string]any{} // required by some versions
	}
	if e := o.at("spec", "controlPlaneEndpoint"); e != nil && o.text("spec", "controlPlaneEndpoint", "host") == "" {
		delete(o.at("spec"), "controlPlaneEndpoint")
	}
	raw, err := json.Marshal(o) // keys in order
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	o.in("metadata", "annotations")[annotationGiven] = "sha256:" + hex.EncodeToString(sum[:])
	return o, nil
}

// has reports whether a live object is as a manifest says: it was applied last, or
// never, and all that it says is there. Others may have added to it.
func has(r kube.Resource, live *unstructured.Unstructured, given object) bool {
	if live == nil {
		return false
	}
	wanted, _ := deepCopy(map[string]any(given)).(map[string]any)
	if _, applied := live.GetAnnotations()[annotationGiven]; !applied {
		delete(object(wanted).at("metadata", "annotations"), annotationGiven)
	}
	r.Prune(given.version(), wanted)
	delete(wanted, "apiVersion")
	if contains(live.Object, wanted) {
		return true
	}
	there, err := json.Marshal(live.Object)
	if err != nil {
		return false
	}
	o, err := decodeJSON(there) // numbers of one type
	return err == nil && contains(map[string]any(o), wanted)
}

// contains reports whether all of part is in whole. Lists have their elements in
// order. Null and an empty mapping say nothing.
func contains(whole, part any) bool {
	switch part := part.(type) {
	case map[string]any:
		w, ok := whole.(map[string]any)
		if !ok && whole != nil {
			return false
		}
		for name, value := range part {
			if !contains(w[name], value) {
				return false
			}
		}
		return true
	case []any:
		w, _ := whole.([]any)
		if len(w) != len(part) {
			return false
		}
		for i := range part {
			if !contains(w[i], part[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(whole, part)
}

// give applies given objects, in their order. All of them are tried before the first
// is written: a manifest that the server refuses leaves nothing half given.
func (k *Kubernetes) give(ctx context.Context, gifts []gift) error {
	if len(gifts) > 1 {
		var mu sync.Mutex
		refused := make([]error, len(gifts))
		err := together(ctx, len(gifts), func(ctx context.Context, i int) error {
			_, err := k.apply(ctx, gifts[i], true)
			if !isRefusal(err) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			refused[i] = err
			return nil
		})
		if err := errors.Join(errors.Join(refused...), err); err != nil {
			return err
		}
	}
	// Kind by kind, a few of each at once.
	for start := 0; start < len(gifts); {
		end := start
		for end < len(gifts) && gifts[end].r.Kind == gifts[start].r.Kind {
			end++
		}
		batch := gifts[start:end]
		err := together(ctx, len(batch), func(ctx context.Context, i int) error {
			u, err := k.apply(ctx, batch[i], false)
			if err == nil {
				k.remember(batch[i].r, u)
			}
			return err
		})
		if err != nil {
			return err
		}
		start = end
	}
	return nil
}

// isRefusal reports whether an error is about the given object.
func isRefusal(err error) bool {
	var refused *RefusedError
	var conflict *ConflictError
	return errors.As(err, &refused) || errors.As(err, &conflict)
}

// notTyped is how the API server begins the message about a field that the definition
// does not have, or has as another type. The answer's code is 500, as if it were ill.
const notTyped = "failed to create typed patch object"

func (k *Kubernetes) apply(ctx context.Context, g gift, dryRun bool) (*unstructured.Unstructured, error) {
	opts := metav1.ApplyOptions{FieldManager: fieldManager, Force: k.opts.ForceConflicts}
	if dryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	var u *unstructured.Unstructured
	var err error
	for range triesOnConflict {
		u, err = k.at(g.r, object(g.given.Object).version(), g.key.Namespace).Apply(ctx, g.key.Name, g.given, opts)
		if !apierrors.IsConflict(err) || len(fieldConflicts(err)) > 0 {
			break // else somebody else was faster, which says nothing about the fields
		}
	}
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return u, nil
	case apierrors.IsNotFound(err) && errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Kind == "namespaces":
		return nil, &NamespaceError{Namespace: g.key.Namespace, For: objectID{g.r.Kind, g.key}.String(), Err: err}
	case apierrors.IsConflict(err):
		if fields := fieldConflicts(err); len(fields) > 0 {
			return nil, &ConflictError{Kind: g.r.Kind, Key: g.key, Origin: g.origin, Fields: fields, Err: err}
		}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), strings.Contains(err.Error(), notTyped):
		return nil, &RefusedError{Kind: g.r.Kind, Key: g.key, Origin: g.origin, Err: err}
	}
	return nil, k.client.Explain(err, "apply", objectID{g.r.Kind, g.key}.String())
}

// fieldConflicts reads the causes that the API server gives of a conflict.
func fieldConflicts(err error) []FieldConflict {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	var fields []FieldConflict
	for _, c := range status.Status().Details.Causes {
		if c.Type == metav1.CauseTypeFieldManagerConflict {
			fields = append(fields, FieldConflict{Field: c.Field, Owner: strings.TrimPrefix(c.Message, "conflict with ")})
		}
	}
	slices.SortFunc(fields, func(a, b FieldConflict) int { return strings.Compare(a.Field, b.Field) })
	return fields
}
