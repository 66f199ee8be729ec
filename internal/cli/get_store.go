package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// store is the store, and what of it is wanted.
func (o *getOptions) store(ctx context.Context) (st *opened, keeps func(namespace string) bool, err error) {
	st, err = o.f.Store(ctx, storeOptions{namespaceOptions: o.namespaceOptions})
	if err != nil {
		return nil, nil, err
	}
	return st, func(namespace string) bool { return o.all || namespace == st.namespace }, nil
}

func machinesResource() resource {
	return resource{
		name:    "machines",
		aliases: []string{"machine", "ma"},
		short:   "Show recorded machines",
		long: `Show recorded machines: what was asked for, the hardware that was given, and how
far each came. This reads the store and sends no request.`,
		example: `  capplunder get machines
  capplunder get machines worker -o yaml
  capplunder get machines -A -o wide --watch
  capplunder get machines -o jsonpath='{.items[*].providerID}'`,
		namespaced: true,
		named:      true,
		fetch: func(ctx context.Context, o *getOptions) (list, error) {
			store, _, err := o.store(ctx)
			if err != nil {
				return list{}, err
			}
			var namespaces []string
			if !o.all {
				namespaces = append(namespaces, store.namespace)
			}
			records, err := store.Records(ctx, namespaces...)
			if err != nil {
				return list{}, err
			}
			l, err := choose(machineList(records, o.all), "machine", o.names)
			if err != nil {
				return list{}, nextError{err, name + " get machines -A"}
			}
			for _, it := range l.items {
				if m, ok := it.object.(recordedMachine); ok && m.Dirty {
					l.notices = append(l.notices, dirtyNotice(m.Record, o.f.place)...)
				}
			}
			return l, nil
		},
	}
}

// recordedMachine is a machine as JSON and YAML.
type recordedMachine struct {
	capi.Record
	// Protected is not in the record itself.
	Protected bool `json:"protected,omitempty"`
}

// phaseDirty is shown in place of the phase of a machine whose wipe was begun and is not
// proved.
const phaseDirty = "Dirty"

// shownPhase is the phase for people.
func shownPhase(r capi.Record) string {
	if r.Dirty {
		return phaseDirty
	}
	return string(r.Phase)
}

// dirtyNotice says what is the matter with a dirty machine, and what to type.
func dirtyNotice(r capi.Record, place string) []string {
	why := r.Message
	if why == "" {
		why = "a wipe was begun and is not proved"
	}
	return []string{
		fmt.Sprintf("Machine %s is dirty, and not free: %s", r.Key, why),
		"next: " + name + " delete machine " + r.Key.String() + place,
	}
}

// machineList lists records. The first columns are those of `kubectl get machines`
// with the 2019 provider.
func machineList(records []capi.Record, namespaces bool) list {
	l := list{kind: "MachineList", columns: []ui.Column{
		{Name: "NAME"}, {Name: "PROVIDERID"}, {Name: "PHASE"},
		{Name: "CLUSTER", Wide: true}, {Name: "ROLE", Wide: true}, {Name: "VERSION", Wide: true},
		{Name: "MAC ADDRESS", Wide: true}, {Name: "ADDRESS", Wide: true}, {Name: "HOST NAME", Wide: true},
		{Name: "STEP", Wide: true}, {Name: "PROTECTED", Wide: true}, {Name: "AGE", Wide: true},
	}}
	if namespaces {
		l.columns = append([]ui.Column{{Name: "NAMESPACE"}}, l.columns...)
	}
	for _, r := range records {
		role := capi.RoleWorker
		if r.ControlPlane {
			role = capi.RoleControlPlane
		}
		protected := ""
		if r.Protected {
			protected = "yes"
		}
		cells := []string{
			r.Name, r.ProviderID, shownPhase(r), r.Cluster, role, r.Version,
			r.MAC, r.Address, r.HostName, r.Step, protected, age(r.ClaimedAt),
		}
		if namespaces {
			cells = append([]string{r.Namespace}, cells...)
		}
		l.items = append(l.items, item{
			name: "machine/" + r.Name, key: r.Key.String(), cells: cells, object: recordedMachine{r, r.Protected},
			mark:  fmt.Sprint(shownPhase(r), r.ProviderID, r.Step, r.MAC, r.Address, r.HostName, r.Reason, r.Message, r.Protected),
			brief: fmt.Sprint(shownPhase(r), r.ProviderID),
		})
	}
	return l
}

func eventsResource() resource {
	return resource{
		name:    "events",
		aliases: []string{"event", "ev"},
		short:   "Show what happened to machines",
		long: `Show what happened to machines, oldest first: NoHardwareFound, PlunderProvision,
PlunderInstall and PlunderDelete. This reads the store and sends no request.`,
		example: `  capplunder get events
  capplunder get events -A --watch`,
		namespaced: true,
		fetch: func(ctx context.Context, o *getOptions) (list, error) {
			store, keeps, err := o.store(ctx)
			if err != nil {
				return list{}, err
			}
			events, err := store.Events(ctx)
			if err != nil {
				return list{}, err
			}
			l := list{kind: "EventList", columns: []ui.Column{
				{Name: "LAST SEEN"}, {Name: "TYPE"}, {Name: "REASON"}, {Name: "OBJECT"}, {Name: "MESSAGE"},
				{Name: "COUNT", Wide: true}, {Name: "FIRST SEEN", Wide: true},
			}}
			if o.all {
				l.columns = append([]ui.Column{{Name: "NAMESPACE"}}, l.columns...)
			}
			for _, e := range events {
				if !keeps(e.Object.Namespace) {
					continue
				}
				object := strings.ToLower(e.Kind) + "/" + e.Object.Name
				cells := []string{age(e.LastTime), e.Type, e.Reason, object, e.Message, fmt.Sprint(e.Count), age(e.FirstTime)}
				if o.all {
					cells = append([]string{e.Object.Namespace}, cells...)
				}
				l.items = append(l.items, item{
					name: "event/" + object + "/" + e.Reason, cells: cells, object: e,
					key:  fmt.Sprint(e.Kind, e.Object, e.Type, e.Reason, e.Message),
					mark: fmt.Sprint(e.Count, e.LastTime),
				})
			}
			return l, nil
		},
	}
}

// age is the time since t as kubectl writes it, "" when t is not known.
func age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return duration.HumanDuration(time.Since(t))
}
