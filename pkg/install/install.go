// Package install puts into a Kubernetes cluster what capplunder needs there, and takes
// it away again: definitions of kinds, a namespace, a role, and the configuration of the
// plunder client as a secret. It decides what may be replaced and what may be removed.
// It must not know machines, except that they are there, and it never prints.
package install

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// fieldManager is the name under which fields of installed objects are owned.
const fieldManager = "capplunder"

// establishLimit is how long definitions may take to be served. It is a matter of a
// second, unless the API server has much else to do.
const establishLimit = time.Minute

// What happened to an object.
const (
	Created   = "created"
	Updated   = "updated"
	Unchanged = "unchanged"
	Deleted   = "deleted"
	Kept      = "kept"
)

// Report is told what happened to each object, in the order in which it happened.
// detail is for people, and mostly empty.
type Report func(object, what, detail string)

// Options say what to install.
type Options struct {
	// Standalone adds definitions of Cluster and Machine, for a cluster without Cluster API.
	Standalone bool
	// Secret, if not nil, is the configuration of the plunder client to store.
	Secret *Secret
	// Force takes fields over that others have set to something else.
	Force bool
}

// Secret is the configuration of the plunder client.
type Secret struct {
	Key  capi.Key
	Data []byte // content of plunderclient.yaml
}

// RefusedError says why nothing was done: it would have done harm.
type RefusedError struct {
	Reason string
	Next   string // a command to go on with, or ""
}

func (e *RefusedError) Error() string { return e.Reason }

// NextCommand is a command to go on with.
func (e *RefusedError) NextCommand() string { return e.Next }

// ConflictError says that somebody else set fields of an object to something else.
type ConflictError struct {
	Object string   // "CustomResourceDefinition x"
	Fields []string // `.spec.versions, set by "kubectl"`
	Err    error
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s: others have set %s: to take that over, use --force-conflicts", e.Object, strings.Join(e.Fields, "; "))
}

func (e *ConflictError) Unwrap() error { return e.Err }

// Manifests are the objects that Install installs, in its order: what others need comes
// first.
func Manifests(o Options) []crd.Manifest {
	list := slices.Concat(crd.RBAC(), crd.Bases())
	if o.Standalone {
		list = append(list, crd.Standalone()...)
	}
	if o.Secret != nil {
		list = append(list, crd.Manifest{Object: o.Secret.object()})
	}
	return list
}

// Install applies the manifests, server-side, and waits until the definitions are
// served. Running it again changes nothing. What may not be replaced is found before
// anything is written: a *RefusedError. Its other errors are *ConflictError,
// *wait.TimeoutError and those of kube.Client.Explain.
func Install(ctx context.Context, c *kube.Client, o Options, report Report) error {
	manifests := Manifests(o)
	found := make([]*unstructured.Unstructured, len(manifests))
	var problems []error
	for i, m := range manifests {
		var err error
		if found[i], err = get(ctx, c, m.Object); err != nil {
			return err
		}
		problems = append(problems, replaceable(found[i], m.Object))
	}
	problems = append(problems, o.Secret.check(ctx, c))
	if err := errors.Join(problems...); err != nil {
		return err
	}
	for i, m := range manifests {
		what, detail, err := put(ctx, c, m.Object, found[i], o.Force)
		if err != nil {
			return err
		}
		report(Name(m.Object), what, detail)
	}
	for _, m := range manifests {
		if isDefinition(m.Object) {
			if err := established(ctx, c, m.Object); err != nil {
				return err
			}
		}
	}
	return nil
}

// get returns nil when there is no such object.
func get(ctx context.Context, c *kube.Client, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	u, err := resource(c, o).Get(ctx, o.GetName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // no object is an answer
	case err != nil:
		return nil, explain(c, err, "get", o)
	}
	return u, nil
}

// put applies one object and says what that did.
func put(ctx context.Context, c *kube.Client, o, found *unstructured.Unstructured, force bool) (what, detail string, err error) {
	switch {
	case found != nil && o.GetKind() == "Namespace" && !ours(found):
		// Were it marked as ours, uninstalling would take it away from whoever made it.
		return Unchanged, "it was there before", nil
	case found != nil && beforeUs(found):
		force, detail = true, "replaces the definition of 2019; status is a subresource now"
	}
	u, err := resource(c, o).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager, Force: force})
	if apierrors.IsConflict(err) {
		return "", "", conflict(o, err)
	}
	if err != nil {
		return "", "", explain(c, err, "apply", o)
	}
	switch {
	case found == nil:
		return Created, detail, nil
	case u.GetResourceVersion() != found.GetResourceVersion():
		return Updated, detail, nil
	}
	return Unchanged, "", nil
}

// conflict reads what the API server says about whose fields an apply would change.
func conflict(o *unstructured.Unstructured, err error) error {
	e := &ConflictError{Object: Name(o), Err: err}
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			if cause.Type == metav1.CauseTypeFieldManagerConflict {
				e.Fields = append(e.Fields, fmt.Sprintf("%s (%s)", cause.Field, strings.TrimPrefix(cause.Message, "conflict with ")))
			}
		}
	}
	if len(e.Fields) == 0 { // a write in between
		return fmt.Errorf("apply %s: %w", e.Object, err)
	}
	return e
}

// established waits until the API server serves a definition.
func established(ctx context.Context, c *kube.Client, o *unstructured.Unstructured) error {
	return until(ctx, c, o, "serve", establishLimit, func(u *unstructured.Unstructured) (string, error) {
		if u == nil {
			return "", fmt.Errorf("%s was deleted again", Name(o))
		}
		if reason := condition(u, "NamesAccepted", "False"); reason != "" {
			return "", fmt.Errorf("%s: the cluster does not accept its names: %s", Name(o), reason)
		}
		if condition(u, "Established", "True") == "" {
			return "it is not established yet", wait.Pending(nil)
		}
		return "", nil
	})
}

// until reads a definition again and again until look is satisfied with it; it gets nil
// when there is none. A cluster that does not answer for a while is waited for.
func until(ctx context.Context, c *kube.Client, o *unstructured.Unstructured, what string, limit time.Duration, look func(*unstructured.Unstructured) (string, error)) error {
	return wait.Until(ctx, wait.Spec{
		What: what, Object: Name(o),
		Interval: 250 * time.Millisecond,
		Limit:    limit,
	}, func(ctx context.Context) (string, error) {
		u, err := get(ctx, c, o)
		switch {
		case errors.Is(err, capi.ErrUnavailable):
			return "", wait.Pending(err)
		case err != nil:
			return "", err
		}
		return look(u)
	})
}

// condition is the message of a condition that has this status, else "".
func condition(u *unstructured.Unstructured, kind, status string) string {
	list, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, item := range list {
		if c, _ := item.(map[string]any); c["type"] == kind && c["status"] == status {
			text, _ := c["message"].(string)
			if text == "" {
				text = status
			}
			return text
		}
	}
	return ""
}

// Name is what an object is called in reports and errors: "Secret ns/name".
func Name(o *unstructured.Unstructured) string {
	if o.GetNamespace() == "" {
		return o.GetKind() + " " + o.GetName()
	}
	return o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
}

func isDefinition(o *unstructured.Unstructured) bool {
	return o.GetKind() == "CustomResourceDefinition"
}

// resource is where objects like o live.
func resource(c *kube.Client, o *unstructured.Unstructured) dynamic.ResourceInterface {
	gvk := o.GroupVersionKind()
	gvr := schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: plurals(gvk.Kind)}
	if ns := o.GetNamespace(); ns != "" {
		return c.Dynamic.Resource(gvr).Namespace(ns)
	}
	return c.Dynamic.Resource(gvr)
}

// plurals is the plural of a kind that is installed here; all are regular.
func plurals(kind string) string { return strings.ToLower(kind) + "s" }

func explain(c *kube.Client, err error, verb string, o *unstructured.Unstructured) error {
	return asAdministrator(c.Explain(err, verb, Name(o)))
}

// asAdministrator changes what a user is told who lacks a right: the role that runs
// capplunder does not give it, installing is for administrators.
func asAdministrator(err error) error {
	var forbidden *kube.ForbiddenError
	if errors.As(err, &forbidden) {
		return &RightsError{ForbiddenError: forbidden}
	}
	return err
}

// RightsError says that the user may not install or uninstall.
type RightsError struct{ *kube.ForbiddenError }

func (e *RightsError) Error() string {
	where := ""
	if e.Namespace != "" && e.Resource != "namespaces" {
		where = " in namespace " + e.Namespace
	}
	return fmt.Sprintf("%s: user %s may not %s %s%s: init is for administrators of the cluster, who can also apply what init -o yaml prints", e.Target, e.User, e.Verb, e.Resource, where)
}

func (e *RightsError) Unwrap() error { return e.Err }

// NextCommand is what an administrator types instead.
func (e *RightsError) NextCommand() string {
	return "capplunder init -o yaml"
}
