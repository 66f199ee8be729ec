package state

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// eventsPage is how many events are asked for at once.
const eventsPage = 500

// AddEvent implements the Store interface of pkg/apply. The event is in the cluster when
// AddEvent returns: there is nothing to be flushed. It is one of the core API, which can
// be counted; of those of events.k8s.io only the series can be changed.
func (k *Kubernetes) AddEvent(ctx context.Context, e capi.Event) error {
	uid, err := k.uidOf(ctx, e)
	if err != nil {
		return err
	}
	now := metav1.NewTime(time.Now())
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Object.Namespace, Name: kubeEventName(e, uid),
			Labels: map[string]string{labelManagedBy: managedBy},
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: plunderAPIVersion, Kind: e.Kind, Namespace: e.Object.Namespace, Name: e.Object.Name, UID: uid,
		},
		Type: e.Type, Reason: e.Reason, Message: e.Message, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: corev1.EventSource{Component: managedBy}, ReportingController: managedBy,
	}
	what := "Event " + event.Namespace + "/" + event.Name
	api := k.client.Core.Events(event.Namespace)
	for {
		_, err := api.Create(ctx, event, metav1.CreateOptions{FieldManager: fieldManager})
		switch {
		case err == nil:
			return nil
		case apierrors.IsNotFound(err):
			return &NamespaceError{Namespace: event.Namespace, For: "event about " + e.Kind + " " + e.Object.String(), Err: err}
		case !apierrors.IsAlreadyExists(err):
			return k.client.Explain(err, "create", what)
		}
		there, err := api.Get(ctx, event.Name, metav1.GetOptions{})
		if err == nil {
			patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"count":%d,"lastTimestamp":%q}`,
				there.ResourceVersion, there.Count+1, now.UTC().Format(time.RFC3339))
			_, err = api.Patch(ctx, event.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: fieldManager})
		}
		// Somebody else counted, or it is gone: events expire.
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return k.client.Explain(err, "patch", what)
		}
	}
}

// uidOf is that of the event's object, by which kubectl describe finds events; "" when
// the object is not there.
func (k *Kubernetes) uidOf(ctx context.Context, e capi.Event) (types.UID, error) {
	if e.Kind != k.plunderMachines().Kind {
		return "", nil
	}
	u, err := k.recallOrFetch(ctx, k.plunderMachines(), e.Object)
	if u == nil || err != nil {
		return "", err
	}
	return u.GetUID(), nil
}

// kubeEventName is the same for events that add up: those about one object, not about
// another that had its name before.
func kubeEventName(e capi.Event, uid types.UID) string {
	e.Kind += string(uid)
	name := eventName(e)
	if len(name) > validation.DNS1123SubdomainMaxLength {
		name = shortHash(e.Object.Name, 16) + name[len(e.Object.Name):]
	}
	return name
}

// Events implements the Store interface of pkg/apply: those that capplunder wrote and
// the cluster still has, which keeps them for an hour if it was not told otherwise.
func (k *Kubernetes) Events(ctx context.Context) ([]capi.Event, error) {
	var events []capi.Event
	opts := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("source", managedBy).String(), Limit: eventsPage}
	for {
		page, err := k.client.Core.Events(metav1.NamespaceAll).List(ctx, opts)
		if apierrors.IsResourceExpired(err) && opts.Continue != "" {
			events, opts.Continue, opts.Limit = nil, "", 0 // it took too long in pages
			continue
		}
		if err != nil {
			return nil, k.client.Explain(err, "list", "Events")
		}
		for i := range page.Items {
			events = append(events, eventOf(&page.Items[i]))
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			sortEvents(events)
			return events, nil
		}
	}
}

func eventOf(e *corev1.Event) capi.Event {
	return capi.Event{
		Type: e.Type, Reason: e.Reason, Kind: e.InvolvedObject.Kind,
		Object:  capi.Key{Namespace: e.InvolvedObject.Namespace, Name: e.InvolvedObject.Name},
		Message: e.Message, Count: int(e.Count), FirstTime: e.FirstTimestamp.UTC(), LastTime: e.LastTimestamp.UTC(),
	}
}
