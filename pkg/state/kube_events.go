package state

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/retry"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// eventsPage is how many events are asked for at once.
const eventsPage = 500

// eventLog writes and reads Kubernetes Events. An event is in the cluster when add
// returns: there is nothing to be flushed. Events of the core API are used, which can be
// counted; those of events.k8s.io cannot be changed by more than their series.
type eventLog struct {
	client *kube.Client

	mu   sync.Mutex
	uids map[string]types.UID // of the objects that events were about, by kind and key
}

func newEventLog(client *kube.Client) *eventLog {
	return &eventLog{client: client, uids: map[string]types.UID{}}
}

// add writes an event, or counts one that differs in nothing but its times.
func (l *eventLog) add(ctx context.Context, e capi.Event) error {
	uid, err := l.uid(ctx, e)
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
	api := l.client.Core.Events(event.Namespace)
	for {
		_, err := api.Create(ctx, event, metav1.CreateOptions{FieldManager: managedBy})
		switch {
		case err == nil:
			return nil
		case apierrors.IsNotFound(err):
			return &NamespaceError{Namespace: event.Namespace, For: "event about " + e.Kind + " " + e.Object.String(), Err: err}
		case !apierrors.IsAlreadyExists(err):
			return l.client.Explain(err, "create", what)
		}
		err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			there, err := api.Get(ctx, event.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"count":%d,"lastTimestamp":%q}`,
				there.ResourceVersion, there.Count+1, now.UTC().Format(time.RFC3339))
			_, err = api.Patch(ctx, event.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: managedBy})
			return err
		})
		if apierrors.IsNotFound(err) {
			continue // events expire, after an hour usually
		}
		return l.client.Explain(err, "patch", what)
	}
}

// uid is that of the event's object, "" when it is not there. kubectl describe finds
// events by it. It is asked for once: an object is gone before the last event about it.
func (l *eventLog) uid(ctx context.Context, e capi.Event) (types.UID, error) {
	if e.Kind != "PlunderMachine" {
		return "", nil
	}
	id := e.Kind + " " + e.Object.String()
	l.mu.Lock()
	uid, ok := l.uids[id]
	l.mu.Unlock()
	if ok {
		return uid, nil
	}
	resource := l.client.Schema.PlunderMachine
	gvr := resource.GVR(resource.VersionOf(&unstructured.Unstructured{}))
	u, err := l.client.Dynamic.Resource(gvr).Namespace(e.Object.Namespace).Get(ctx, e.Object.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", l.client.Explain(err, "get", id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uids[id] = u.GetUID()
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

// list returns the events of capplunder in all namespaces.
func (l *eventLog) list(ctx context.Context) ([]capi.Event, error) {
	var events []capi.Event
	opts := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("source", managedBy).String(), Limit: eventsPage}
	for {
		page, err := l.client.Core.Events(metav1.NamespaceAll).List(ctx, opts)
		if apierrors.IsResourceExpired(err) && opts.Continue != "" {
			events, opts.Continue, opts.Limit = nil, "", 0 // it took too long in pages
			continue
		}
		if err != nil {
			return nil, l.client.Explain(err, "list", "Events")
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
