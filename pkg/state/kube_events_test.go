package state

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// eventsIn are the events of the store in one namespace, without their times.
func eventsIn(t *testing.T, k *Kubernetes, namespace string) []capi.Event {
	t.Helper()
	all, err := k.Events(t.Context())
	must(t, err)
	all = slices.DeleteFunc(all, func(e capi.Event) bool { return e.Object.Namespace != namespace })
	for i := range all {
		e := &all[i]
		if e.FirstTime.After(e.LastTime) || time.Since(e.FirstTime) > time.Hour || e.FirstTime.Location() != time.UTC {
			t.Errorf("from %s to %s", e.FirstTime, e.LastTime)
		}
		e.FirstTime, e.LastTime = time.Time{}, time.Time{}
	}
	return all
}

func TestKubernetesEvents(t *testing.T) {
	env := kubeServer(t)
	ns := env.Namespace(t)
	k := openKube(t, env.Config, 0)
	ctx := t.Context()
	r := reservations{client: k.client}
	about := func(name, typ, reason, message string) capi.Event {
		return capi.Event{Type: typ, Reason: reason, Kind: "PlunderMachine", Object: capi.Key{Namespace: ns, Name: name}, Message: message}
	}
	uids := map[string]string{}
	for _, name := range []string{"controlplane", "worker"} {
		uids[name] = string(plunderMachine(t, r, capi.Key{Namespace: ns, Name: name}))
	}
	// As the seed of the project shows it.
	list := []capi.Event{
		about("controlplane", capi.EventWarning, capi.ReasonNoHardware, "Plunder has no available hardware to provision"),
		about("controlplane", capi.EventNormal, capi.ReasonProvision, "Plunder has begun provisioning the Operating System"),
		about("worker", capi.EventNormal, capi.ReasonProvision, "Plunder has begun provisioning the Operating System"),
		about("controlplane", capi.EventNormal, capi.ReasonProvision, "Host has been successfully provisioned OS in 7m1s"),
	}
	for _, e := range list {
		must(t, k.AddEvent(ctx, e))
	}
	must(t, k.AddEvent(ctx, list[0]))
	must(t, k.AddEvent(ctx, list[0]))

	out := env.Kubectl(t, kubetest.WriteKubeconfig(t, env.Config, ns), "get", "events", "--sort-by=.metadata.creationTimestamp")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	age := regexp.MustCompile(`^[0-9ms]+ `)
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(age.ReplaceAllString(line, "AGO ")), " ")
	}
	slices.Sort(lines[1:])
	want := []string{
		"LAST SEEN TYPE REASON OBJECT MESSAGE",
		"AGO Normal PlunderProvision plundermachine/controlplane Host has been successfully provisioned OS in 7m1s",
		"AGO Normal PlunderProvision plundermachine/controlplane Plunder has begun provisioning the Operating System",
		"AGO Normal PlunderProvision plundermachine/worker Plunder has begun provisioning the Operating System",
		"AGO Warning NoHardwareFound plundermachine/controlplane Plunder has no available hardware to provision",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("kubectl get events:\n%s\n%s", out, diff)
	}
	if out := env.Kubectl(t, env.Kubeconfig(t), "describe", "plundermachine", "-n", ns, "controlplane"); !strings.Contains(out, "(x3 over") {
		t.Errorf("kubectl describe does not show the events:\n%s", out)
	}

	for i := range list {
		list[i].Count = 1
	}
	list[0].Count = 3
	byText := func(a, b capi.Event) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
	got := eventsIn(t, k, ns)
	slices.SortFunc(got, byText)
	slices.SortFunc(list, byText)
	if diff := cmp.Diff(list, got); diff != "" {
		t.Error(diff)
	}
	raw, err := k.client.Core.Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "source=capplunder"})
	must(t, err)
	for _, e := range raw.Items {
		if o := e.InvolvedObject; o.APIVersion != plunderAPIVersion || string(o.UID) != uids[o.Name] || o.UID == "" || e.ReportingController != "capplunder" {
			t.Errorf("%+v", e)
		}
	}
}

func TestKubernetesEventsAddUp(t *testing.T) {
	env := kubeServer(t)
	ns := env.Namespace(t)
	ctx := t.Context()
	e := capi.Event{
		Type: capi.EventNormal, Reason: capi.ReasonDelete, Kind: "PlunderMachine", // one that is not there, with a long name
		Object: capi.Key{Namespace: ns, Name: strings.Repeat("x", 253)}, Message: `it's: "gone"` + "\n" + strings.Repeat("long ", 1000),
	}
	k := openKube(t, env.Config, 0)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := k.AddEvent(ctx, e); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	e.Count = 10
	if diff := cmp.Diff([]capi.Event{e}, eventsIn(t, k, ns)); diff != "" {
		t.Error(diff)
	}

	// An object that has the name of an earlier one has events of its own.
	r := reservations{client: k.client}
	m := capi.Event{Type: capi.EventNormal, Reason: capi.ReasonDelete, Kind: "PlunderMachine", Object: capi.Key{Namespace: ns, Name: "m"}, Message: "x"}
	for range 2 {
		plunderMachine(t, r, m.Object)
		must(t, k.AddEvent(ctx, m))
		removePlunderMachine(t, r, m.Object)
		k.forget(k.plunderMachines(), m.Object)
	}
	raw, err := k.client.Core.Events(ns).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=m"})
	must(t, err)
	if len(raw.Items) != 2 || raw.Items[0].InvolvedObject.UID == raw.Items[1].InvolvedObject.UID {
		t.Errorf("%+v", raw.Items)
	}
}
