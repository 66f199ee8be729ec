package state

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// maxEventsPerObject is how many different events of one object are kept; those
// seen longest ago go first. A machine's whole life is about twenty.
const maxEventsPerObject = 200

// addEvent adds e to the events of its object: one that differs from a stored one
// in nothing but its times raises that one's count.
func addEvent(events []capi.Event, e capi.Event, now time.Time) []capi.Event {
	now = now.UTC().Round(0)
	for i := range events {
		o := &events[i]
		if o.Type == e.Type && o.Reason == e.Reason && o.Message == e.Message && o.Kind == e.Kind && o.Object == e.Object {
			o.Count++
			o.LastTime = now
			return events
		}
	}
	e.Count, e.FirstTime, e.LastTime = 1, now, now
	events = append(events, e)
	if len(events) > maxEventsPerObject {
		sortEvents(events)
		events = slices.Delete(events, 0, len(events)-maxEventsPerObject)
	}
	return events
}

// sortEvents sorts by last time, oldest first; what happened at one instant keeps
// a fixed order.
func sortEvents(events []capi.Event) {
	slices.SortStableFunc(events, func(a, b capi.Event) int {
		return cmp.Or(
			a.LastTime.Compare(b.LastTime),
			a.FirstTime.Compare(b.FirstTime),
			compareKeys(a.Object, b.Object),
			strings.Compare(a.Kind, b.Kind),
			strings.Compare(a.Reason, b.Reason),
			strings.Compare(a.Message, b.Message),
		)
	})
}

func compareKeys(a, b capi.Key) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// storedEvents is how the events of one object are stored: as kubectl get events
// -o yaml shows them.
type storedEvents struct {
	APIVersion string        `json:"apiVersion"`
	Items      []storedEvent `json:"items"`
	Kind       string        `json:"kind"`
}

type storedEvent struct {
	APIVersion     string         `json:"apiVersion"`
	Kind           string         `json:"kind"`
	Type           string         `json:"type"`
	Reason         string         `json:"reason"`
	Message        string         `json:"message"`
	Count          int            `json:"count"`
	FirstTimestamp time.Time      `json:"firstTimestamp"`
	LastTimestamp  time.Time      `json:"lastTimestamp"`
	InvolvedObject involvedObject `json:"involvedObject"`
	Metadata       capi.Key       `json:"metadata"`
}

type involvedObject struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func encodeEvents(events []capi.Event) ([]byte, error) {
	list := storedEvents{APIVersion: "v1", Kind: "List", Items: make([]storedEvent, 0, len(events))}
	for _, e := range events {
		list.Items = append(list.Items, storedEvent{
			APIVersion: "v1", Kind: "Event", Type: e.Type, Reason: e.Reason, Message: e.Message,
			Count: e.Count, FirstTimestamp: e.FirstTime, LastTimestamp: e.LastTime,
			InvolvedObject: involvedObject{Kind: e.Kind, Namespace: e.Object.Namespace, Name: e.Object.Name},
			Metadata:       capi.Key{Namespace: e.Object.Namespace, Name: eventName(e)},
		})
	}
	return yaml.Marshal(list)
}

func decodeEvents(data []byte) ([]capi.Event, error) {
	var list storedEvents
	if err := yaml.UnmarshalStrict(data, &list); err != nil {
		return nil, err
	}
	if list.Kind != "List" {
		return nil, fmt.Errorf("it holds %q, not a List", list.Kind)
	}
	events := make([]capi.Event, 0, len(list.Items))
	for _, s := range list.Items {
		events = append(events, capi.Event{
			Type: s.Type, Reason: s.Reason, Kind: s.InvolvedObject.Kind,
			Object:  capi.Key{Namespace: s.InvolvedObject.Namespace, Name: s.InvolvedObject.Name},
			Message: s.Message, Count: s.Count, FirstTime: s.FirstTimestamp, LastTime: s.LastTimestamp,
		})
	}
	return events, nil
}

// eventName is "<object>.<16 hex digits>", the same for events that add up.
func eventName(e capi.Event) string {
	h := fnv.New64a()
	for _, s := range []string{e.Kind, e.Type, e.Reason, e.Message} {
		// Writing to a hash does not fail; the zero byte keeps the parts apart.
		_, _ = h.Write(append([]byte(s), 0))
	}
	return fmt.Sprintf("%s.%016x", e.Object.Name, h.Sum64())
}
