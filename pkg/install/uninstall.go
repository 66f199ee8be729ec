package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// removeLimit is how long definitions may take to be gone.
const removeLimit = time.Minute

// Plan says what Uninstall does.
type Plan struct {
	Remove []*unstructured.Unstructured // in this order
	Keep   []KeptObject
}

// KeptObject is an object that stays although Install has one of its name.
type KeptObject struct{ Object, Why string }

// PlanUninstall looks for what was installed, and changes nothing. As long as there are
// objects of the kinds that would go it refuses: they say which hardware is whose. The
// error is then a *RefusedError that names them.
func PlanUninstall(ctx context.Context, c *kube.Client) (*Plan, error) {
	p := &Plan{}
	for _, m := range slices.Concat(crd.Standalone(), crd.Bases()) {
		if err := p.add(ctx, c, m.Object); err != nil {
			return nil, err
		}
	}
	if err := unused(ctx, c, p.Remove); err != nil {
		return nil, err
	}
	secrets, err := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).List(ctx, metav1.ListOptions{LabelSelector: labelClientConfig + "=true"})
	if err != nil {
		return nil, asAdministrator(c.Explain(err, "list", "Secrets labelled "+labelClientConfig+" in all namespaces"))
	}
	for i := range secrets.Items {
		p.Remove = append(p.Remove, &secrets.Items[i])
	}
	for _, m := range crd.RBAC() {
		if err := p.add(ctx, c, m.Object); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// add looks for an object and decides about it.
func (p *Plan) add(ctx context.Context, c *kube.Client, o *unstructured.Unstructured) error {
	found, err := get(ctx, c, o)
	if err != nil || found == nil || o.GetKind() == "Namespace" && found.GetDeletionTimestamp() != nil {
		return err // it was never there, or goes already
	}
	why := ""
	switch {
	case o.GetLabels()[capi.LabelStandalone] != "" && found.GetLabels()[capi.LabelStandalone] == "":
		return nil // Cluster API's own, which is there for more than us
	case !ours(found):
		why = "capplunder did not install it"
	case o.GetKind() == "Namespace":
		why, err = inUse(ctx, c, o.GetName(), time.Now())
	}
	switch {
	case err != nil:
		return err
	case why != "":
		p.Keep = append(p.Keep, KeptObject{Object: Name(found), Why: why})
	default:
		p.Remove = append(p.Remove, found)
	}
	return nil
}

// unused refuses as long as there are objects of these definitions.
func unused(ctx context.Context, c *kube.Client, definitions []*unstructured.Unstructured) error {
	const shown = 10
	var left []string
	next := "kubectl get machines,plundermachines,plunderclusters,plundermachinetemplates -A"
	for _, d := range definitions {
		gvr := defined(d)
		objects, err := c.Dynamic.Resource(gvr).List(ctx, metav1.ListOptions{})
		if err != nil {
			return asAdministrator(c.Explain(err, "list", gvr.Resource+" in all namespaces"))
		}
		for _, o := range objects.Items {
			left = append(left, Name(&o))
			if o.GetKind() == "PlunderMachine" {
				next = "capplunder get machines -A"
			}
		}
	}
	switch {
	case len(left) == 0:
		return nil
	case len(left) > shown:
		left = append(left[:shown], fmt.Sprintf("and %d more", len(left)-shown))
	}
	return &RefusedError{Reason: "these are still there, and would be lost with their definitions: " + strings.Join(left, ", ") + "; give machines back with capplunder delete machine", Next: next}
}

// defined is the resource of a definition, at the version that is stored.
func defined(definition *unstructured.Unstructured) schema.GroupVersionResource {
	gvr := schema.GroupVersionResource{}
	gvr.Group, _, _ = unstructured.NestedString(definition.Object, "spec", "group")
	gvr.Resource, _, _ = unstructured.NestedString(definition.Object, "spec", "names", "plural")
	versions, _, _ := unstructured.NestedSlice(definition.Object, "spec", "versions")
	for _, v := range versions {
		v, _ := v.(map[string]any)
		name, _ := v["name"].(string)
		if served, _ := v["served"].(bool); served && (gvr.Version == "" || v["storage"] == true) {
			gvr.Version = name
		}
	}
	return gvr
}

// inUse says why the namespace has to stay: somebody holds a Lease in it, a machine's
// hardware or address or the lock of a plunder server. What its kinds were may be gone;
// the reservations of a machine that was removed by hand are not.
func inUse(ctx context.Context, c *kube.Client, namespace string, now time.Time) (string, error) {
	leases, err := c.Leases.Leases(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", asAdministrator(c.Explain(err, "list", "Leases in "+namespace))
	}
	var held []string
	for _, l := range leases.Items {
		if holds(l.Spec, now) {
			held = append(held, l.Name)
		}
	}
	if len(held) == 0 {
		return "", nil
	}
	slices.Sort(held)
	return "Leases in it are held: " + strings.Join(held, ", "), nil
}

// holds reports whether a Lease has a holder. One without a duration is held for good.
func holds(l coordinationv1.LeaseSpec, now time.Time) bool {
	switch {
	case l.HolderIdentity == nil || *l.HolderIdentity == "":
		return false
	case l.LeaseDurationSeconds == nil || l.RenewTime == nil:
		return true
	}
	return now.Before(l.RenewTime.Add(time.Duration(*l.LeaseDurationSeconds) * time.Second))
}

// Uninstall removes what the plan says and waits until the definitions are gone. What
// was replaced since the plan was made stays, with an error. Definitions go first: if
// one cannot, everything else is still there.
func Uninstall(ctx context.Context, c *kube.Client, p *Plan, report Report) error {
	for _, o := range p.Remove {
		uid := o.GetUID()
		err := resource(c, o).Delete(ctx, o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			return explain(c, err, "delete", o)
		}
		report(Name(o), Deleted, "")
	}
	for _, k := range p.Keep {
		report(k.Object, Kept, k.Why)
	}
	for _, o := range p.Remove {
		if isDefinition(o) {
			if err := gone(ctx, c, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// gone waits until a definition is gone, so that it can be installed anew.
func gone(ctx context.Context, c *kube.Client, o *unstructured.Unstructured) error {
	return until(ctx, c, o, "remove", removeLimit, func(u *unstructured.Unstructured) (string, error) {
		if u == nil || u.GetUID() != o.GetUID() {
			return "", nil
		}
		return "it is still being deleted", wait.Pending(nil)
	})
}
