package state

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// edit changes an object to what it should be. It may run more than once, each time
// on the object as it is then.
type edit func(o object) error

// triesOnConflict is how often a patch is computed anew because somebody else was
// faster. Each time is a request, and somebody's success: no pause is needed.
const triesOnConflict = 20

// change patches just what edit changes of an object, and sends nothing if that is
// nothing. It returns nil when there is no such object.
func (k *Kubernetes) change(ctx context.Context, r kube.Resource, key capi.Key, edit edit) (*unstructured.Unstructured, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("patch %s: %w", objectID{r.Kind, key}, err)
	}
	u := k.recall(r, key)
	var err error
	for range triesOnConflict {
		if u == nil {
			if u, err = k.fetch(ctx, r, key); u == nil || err != nil {
				return nil, err
			}
		}
		var p patch
		if p, err = k.patch(r, u, edit); err != nil {
			return nil, err
		}
		switch u, err = k.send(ctx, r, u, p); {
		case apierrors.IsNotFound(err):
			k.forget(r, key)
			return nil, nil
		case !apierrors.IsConflict(err):
			return u, err
		}
		k.forget(r, key)
		u = nil
	}
	return nil, err
}

// patch is the difference between an object and what it should be, as JSON merge
// patches (RFC 7386): of what the main resource takes, and of its status. Nil is no
// difference.
type patch struct{ main, status map[string]any }

func (p patch) empty() bool { return p.main == nil && p.status == nil }

// patch computes the difference that edit makes.
func (k *Kubernetes) patch(r kube.Resource, u *unstructured.Unstructured, edit edit) (patch, error) {
	wanted := object(u.DeepCopy().Object)
	if err := edit(wanted); err != nil {
		return patch{}, err
	}
	version := wanted.version()
	r.Prune(version, wanted)
	if reflect.DeepEqual(u.Object, map[string]any(wanted)) {
		return patch{}, nil // nearly always, in a run that has nothing to do
	}
	diff, err := difference(u.Object, wanted)
	if err != nil {
		return patch{}, fmt.Errorf("%s: %w", objectID{r.Kind, keyOf(u)}, err)
	}
	var p patch
	if status, ok := diff["status"]; ok && r.HasStatus[version] {
		delete(diff, "status")
		p.status = map[string]any{"status": status}
	}
	if len(diff) > 0 {
		p.main = diff
	}
	return p, nil
}

// difference is the merge patch that turns one object into another.
func difference(from, to map[string]any) (map[string]any, error) {
	a, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	raw, err := jsonpatch.CreateMergePatch(a, b)
	if err != nil {
		return nil, err
	}
	return decodeJSON(raw)
}

// send sends a patch of u and returns the object as it is then. The main resource
// comes first: it has the record, and provider ID before done flag is the order that
// every reader understands. Each patch is for the resource version that it was
// computed from, because a merge patch replaces lists (finalizers, conditions) whole.
func (k *Kubernetes) send(ctx context.Context, r kube.Resource, u *unstructured.Unstructured, p patch) (*unstructured.Unstructured, error) {
	version := object(u.Object).version()
	for _, part := range []struct {
		diff         map[string]any
		subresources []string
	}{{p.main, nil}, {p.status, []string{"status"}}} {
		if part.diff == nil {
			continue
		}
		object(part.diff).in("metadata")["resourceVersion"] = u.GetResourceVersion()
		raw, err := json.Marshal(part.diff)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", objectID{r.Kind, keyOf(u)}, err)
		}
		answer, err := k.at(r, version, u.GetNamespace()).
			Patch(ctx, u.GetName(), types.MergePatchType, raw, metav1.PatchOptions{FieldManager: fieldManager}, part.subresources...)
		if err != nil {
			return nil, k.client.Explain(err, "patch", objectID{r.Kind, keyOf(u)}.String())
		}
		k.remember(r, answer)
		u = answer
	}
	return u, nil
}
