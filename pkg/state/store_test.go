package state

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
)

var (
	_ apply.Store = (*Local)(nil)
	_ apply.Store = (*Memory)(nil)
	_ apply.Store = (*Kubernetes)(nil)
)

// stores are the stores that the tests below run against: they must not differ.
func stores() []storeCase {
	return append(storesHere(), storeCase{"kubernetes", func(t *testing.T) apply.Store { t.Helper(); return openEmptyKube(t) }})
}

// storesHere are those that no other computer sees. They have one lock for everything,
// and their clock can be turned: locks and events of the Kubernetes store have tests of
// their own.
func storesHere() []storeCase {
	return []storeCase{
		{"local", func(t *testing.T) apply.Store { t.Helper(); return openLocal(t) }},
		{"memory", func(t *testing.T) apply.Store { t.Helper(); return NewMemory() }},
	}
}

type storeCase struct {
	name string
	open func(t *testing.T) apply.Store
}

func openLocal(tb testing.TB) *Local {
	tb.Helper()
	l, err := OpenLocal(tb.TempDir() + "/state")
	must(tb, err)
	return l
}

func key(name string) capi.Key { return capi.ParseKey(name, "default") }

// testSet is a cluster "c" with the named machines, the first of them its control
// plane.
func testSet(names ...string) *capi.Set {
	from := capi.Origin{File: "test.yaml", Document: 1, Line: 1}
	c := &capi.Cluster{
		Key: key("c"), APIVersion: "cluster.x-k8s.io/v1beta1", Origin: from,
		Infra: &capi.PlunderCluster{Key: key("c"), Origin: from},
	}
	set := &capi.Set{Clusters: []*capi.Cluster{c}}
	for i, name := range names {
		m := &capi.Machine{
			Key: key(name), APIVersion: "cluster.x-k8s.io/v1beta1", ClusterName: "c", Cluster: c,
			ControlPlane: i == 0, Version: "v1.34.1", Origin: from,
			Infra: &capi.PlunderMachine{Key: key(name), Origin: from, Spec: capi.PlunderMachineSpec{DeploymentType: "preseed"}},
		}
		set.Machines = append(set.Machines, m)
		c.Machines = append(c.Machines, m)
	}
	return set
}

// fill sets every field of a struct to something that is not zero, so that a
// field which is added later is in the tests without being named there.
func fill(v reflect.Value, seed *int) {
	*seed++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("text %d: \"quoted\" # {y}\n <tag> ü", *seed))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*seed) + 1<<53)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), seed)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, *seed, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), seed)
		}
	default:
		panic("fill does not know " + v.Kind().String())
	}
}

func fullRecord(t *testing.T, k capi.Key) capi.Record {
	t.Helper()
	var r capi.Record
	seed := 0
	fill(reflect.ValueOf(&r).Elem(), &seed)
	r.Key, r.PlunderMachine = k, k
	r.Protected = false // no part of the record
	// What is shown in spec and status has to be what it says it is.
	r.MAC, r.Address, r.HostName = "00:50:56:a5:11:20", "192.168.1.123", k.Name+"-x7f3q"
	r.ProviderID, r.Phase, r.Reason = capi.ProviderID(r.MAC), capi.PhaseProvisioned, "Because"
	return r
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			must(t, s.Sync(ctx, testSet("a", "b")))
			if _, ok, err := s.Record(ctx, key("a")); ok || err != nil {
				t.Errorf("a machine that was only synced has a record: %v, %v", ok, err)
			}
			want := fullRecord(t, key("a"))
			must(t, s.SaveRecord(ctx, want))
			got, ok, err := s.Record(ctx, key("a"))
			if diff := cmp.Diff(want, got); err != nil || !ok || diff != "" {
				t.Errorf("ok %v, err %v\n%s", ok, err, diff)
			}
			// And with nothing in it.
			empty := capi.Record{Key: key("b"), PlunderMachine: key("b")}
			must(t, s.SaveRecord(ctx, empty))
			must(t, s.SaveRecord(ctx, want))
			records, err := s.Records(ctx)
			if diff := cmp.Diff([]capi.Record{want, empty}, records); err != nil || diff != "" {
				t.Errorf("err %v\n%s", err, diff)
			}
			// Back to nothing, to see that no field stays behind.
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("a")}))
			got, ok, err = s.Record(ctx, key("a"))
			if diff := cmp.Diff(capi.Record{Key: key("a"), PlunderMachine: key("a")}, got); err != nil || !ok || diff != "" {
				t.Errorf("ok %v, err %v\n%s", ok, err, diff)
			}
		})
	}
}

func TestClusterRecordRoundTrip(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			must(t, s.Sync(ctx, testSet("a")))
			if _, ok, err := s.ClusterRecord(ctx, key("c")); ok || err != nil {
				t.Errorf("ok %v, err %v", ok, err)
			}
			var want capi.ClusterRecord
			seed := 0
			fill(reflect.ValueOf(&want).Elem(), &seed)
			want.Key, want.PlunderCluster = key("c"), key("c")
			want.Phase, want.Endpoint = capi.PhaseProvisioned, capi.Endpoint{Host: "192.168.1.123", Port: 6443}
			must(t, s.SaveClusterRecord(ctx, want))
			got, ok, err := s.ClusterRecord(ctx, key("c"))
			if diff := cmp.Diff(want, got); err != nil || !ok || diff != "" {
				t.Errorf("ok %v, err %v\n%s", ok, err, diff)
			}
			// A second apply changes nothing of it.
			must(t, s.Sync(ctx, testSet("a")))
			got, _, err = s.ClusterRecord(ctx, key("c"))
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("after Sync: err %v\n%s", err, diff)
			}
		})
	}
}

func TestSaveWithoutSync(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			var missing *NotSyncedError
			if err := s.SaveRecord(ctx, capi.Record{Key: key("a")}); !errors.As(err, &missing) || missing.Kind != "Machine" {
				t.Errorf("SaveRecord: %v", err)
			}
			if err := s.SaveClusterRecord(ctx, capi.ClusterRecord{Key: key("c")}); !errors.As(err, &missing) || missing.Kind != "Cluster" {
				t.Errorf("SaveClusterRecord: %v", err)
			}
			set := testSet("a")
			set.Clusters[0].Infra = nil
			must(t, s.Sync(ctx, set))
			must(t, s.SaveClusterRecord(ctx, capi.ClusterRecord{Key: key("c")}))
			if err := s.SaveClusterRecord(ctx, capi.ClusterRecord{Key: key("c"), PlunderCluster: key("c")}); !errors.As(err, &missing) || missing.Kind != "PlunderCluster" {
				t.Errorf("SaveClusterRecord: %v", err)
			}
			if err := s.SaveRecord(ctx, capi.Record{Key: key("a"), PlunderMachine: key("x")}); err == nil {
				t.Error("a record for another PlunderMachine was saved")
			}
		})
	}
}

func TestNothingIsGivenTwice(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			must(t, s.Sync(ctx, testSet("a", "b")))
			a := capi.Record{Key: key("a"), MAC: "00:50:56:a5:11:20", Address: "192.168.1.123"}
			must(t, s.SaveRecord(ctx, a))
			must(t, s.SaveRecord(ctx, a)) // its own
			for _, tt := range []struct {
				r    capi.Record
				what string
			}{
				{capi.Record{Key: key("b"), MAC: a.MAC, Address: "192.168.1.124"}, "MAC"},
				{capi.Record{Key: key("b"), MAC: "00:50:56:a5:b5:f1", Address: a.Address}, "address"},
			} {
				var taken *TakenError
				err := s.SaveRecord(ctx, tt.r)
				if !errors.As(err, &taken) || taken.Holder != a.Key || taken.Key != tt.r.Key || taken.What != tt.what {
					t.Errorf("%s: %v", tt.what, err)
				}
				if _, ok, err := s.Record(ctx, key("b")); ok || err != nil {
					t.Errorf("%s: the refused record was saved (%v)", tt.what, err)
				}
			}
			// Given back, they are free: by a change, or by deletion.
			b := capi.Record{Key: key("b"), MAC: a.MAC, Address: "192.168.1.124"}
			a.MAC = ""
			must(t, s.SaveRecord(ctx, a))
			must(t, s.SaveRecord(ctx, b))
			must(t, s.DeleteRecord(ctx, a.Key))
			b.Address = "192.168.1.123"
			must(t, s.SaveRecord(ctx, b))
		})
	}
}

func TestSyncKeepsTheClaim(t *testing.T) {
	changes := []struct {
		name   string
		change func(m *capi.Machine)
		want   string // of the error; "" when the change is allowed
	}{
		{"nothing", func(*capi.Machine) {}, ""},
		{"the same MAC, pinned later", func(m *capi.Machine) { m.Infra.Spec.MACAddress = "00:50:56:a5:11:20" }, ""},
		{"another version", func(m *capi.Machine) { m.Version = "v1.35.0" }, ""},
		{
			"another MAC", func(m *capi.Machine) { m.Infra.Spec.MACAddress = "00:50:56:a5:b5:f1" },
			`PlunderMachine default/a: spec.macaddress: changed from 00:50:56:a5:11:20 to 00:50:56:a5:b5:f1, but the machine was already given 00:50:56:a5:11:20: run "capplunder delete machine -n default a" first`,
		},
		{
			"another address", func(m *capi.Machine) { m.Infra.Spec.IPAddress = "192.168.1.9" },
			`PlunderMachine default/a: spec.ipaddress: changed from 192.168.1.123 to 192.168.1.9, but the machine was already given 192.168.1.123: run "capplunder delete machine -n default a" first`,
		},
		{
			"another PlunderMachine", func(m *capi.Machine) { m.Infra.Key = key("x") },
			`Machine default/a: spec.infrastructureRef: changed from default/a to default/x, but the machine was already given default/a: run "capplunder delete machine -n default a" first`,
		},
		{
			"another Machine of the PlunderMachine", func(m *capi.Machine) { m.Key = key("n") },
			`PlunderMachine default/a: its Machine: changed from default/a to default/n, but the machine was already given default/a: run "capplunder delete machine -n default a" first`,
		},
		{
			"another provider ID", func(m *capi.Machine) { m.ProviderID = "plunder://00:50:56:a5:b5:f1" },
			`Machine default/a: spec.providerID: changed from plunder://00:50:56:a5:11:20 to plunder://00:50:56:a5:b5:f1, but the machine was already given plunder://00:50:56:a5:11:20: run "capplunder delete machine -n default a" first`,
		},
	}
	for _, tt := range changes {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range stores() {
				t.Run(c.name, func(t *testing.T) {
					s := c.open(t)
					ctx := t.Context()
					must(t, s.Sync(ctx, testSet("a")))
					r := capi.Record{
						Key: key("a"), PlunderMachine: key("a"), MAC: "00:50:56:a5:11:20", Address: "192.168.1.123",
						ProviderID: "plunder://00:50:56:a5:11:20", Ready: true,
					}
					must(t, s.SaveRecord(ctx, r))
					set := testSet("a", "b")
					tt.change(set.Machines[0])
					err := s.Sync(ctx, set)
					if tt.want == "" {
						must(t, err)
					} else {
						var claimed *ClaimedError
						if !errors.As(err, &claimed) || err.Error() != tt.want {
							t.Errorf("got  %v\nwant %s", err, tt.want)
						}
						// Nothing of the rest was written either.
						var missing *NotSyncedError
						if err := s.SaveRecord(ctx, capi.Record{Key: key("b")}); !errors.As(err, &missing) {
							t.Errorf("a refused Sync wrote b: %v", err)
						}
					}
					got, ok, err := s.Record(ctx, key("a"))
					if diff := cmp.Diff(r, got); err != nil || !ok || diff != "" {
						t.Errorf("ok %v, err %v\n%s", ok, err, diff)
					}
				})
			}
		})
	}
}

func TestSyncReportsAllChangesAtOnce(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			must(t, s.Sync(ctx, testSet("a", "b")))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("a"), MAC: "00:50:56:a5:11:21", Address: "192.168.1.1"}))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("b"), MAC: "00:50:56:a5:11:22", Address: "192.168.1.2"}))
			set := testSet("a", "b")
			set.Machines[0].Infra.Spec.MACAddress = "00:50:56:a5:11:23"
			set.Machines[1].Infra.Spec.MACAddress = "00:50:56:a5:11:24"
			set.Machines[1].Infra.Spec.IPAddress = "192.168.1.3"
			if err := s.Sync(ctx, set); err == nil || strings.Count(err.Error(), "already given") != 3 {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSyncOfLessDeletesNothing(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			must(t, s.Sync(ctx, testSet("a", "b")))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("b"), MAC: "00:50:56:a5:11:21"}))
			must(t, s.Sync(ctx, testSet("a")))
			if _, ok, err := s.Record(ctx, key("b")); !ok || err != nil {
				t.Errorf("ok %v, err %v", ok, err)
			}
		})
	}
}

func TestDeleteRecord(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			must(t, s.DeleteRecord(ctx, key("never-seen")))
			must(t, s.Sync(ctx, testSet("a", "b")))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("a")}))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("b")}))
			must(t, s.DeleteRecord(ctx, key("a")))
			must(t, s.DeleteRecord(ctx, key("a")))
			records, err := s.Records(ctx)
			if err != nil || len(records) != 1 || records[0].Key != key("b") {
				t.Errorf("%v, %v", records, err)
			}
			var missing *NotSyncedError
			if err := s.SaveRecord(ctx, capi.Record{Key: key("a")}); !errors.As(err, &missing) {
				t.Errorf("the objects of a deleted machine are still there: %v", err)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	for _, c := range storesHere() {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, s := t.Context(), c.open(t)
				if events, err := s.Events(ctx); len(events) != 0 || err != nil {
					t.Errorf("%v, %v", events, err)
				}
				start := time.Now().UTC().Round(0)
				at := func(d time.Duration) time.Time { return start.Add(d) }
				noHardware := capi.Event{Type: capi.EventWarning, Reason: capi.ReasonNoHardware, Kind: "PlunderMachine", Object: key("b"), Message: "No Hardware found"}
				install := capi.Event{Type: capi.EventNormal, Reason: capi.ReasonInstall, Kind: "PlunderMachine", Object: key("a"), Message: "it's: \"up\"\n"}
				for _, e := range []capi.Event{noHardware, install, noHardware, noHardware} {
					must(t, s.AddEvent(ctx, e))
					time.Sleep(time.Second)
				}
				other := install
				other.Object = capi.Key{Namespace: "other", Name: "a"}
				must(t, s.AddEvent(ctx, other))

				install.Count, install.FirstTime, install.LastTime = 1, at(time.Second), at(time.Second)
				noHardware.Count, noHardware.FirstTime, noHardware.LastTime = 3, at(0), at(3*time.Second)
				other.Count, other.FirstTime, other.LastTime = 1, at(4*time.Second), at(4*time.Second)
				events, err := s.Events(ctx)
				if diff := cmp.Diff([]capi.Event{install, noHardware, other}, events); err != nil || diff != "" {
					t.Errorf("err %v\n%s", err, diff)
				}
			})
		})
	}
}

func TestEventsAreBounded(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var events []capi.Event
	for i := range maxEventsPerObject + 50 {
		events = addEvent(events, capi.Event{Message: fmt.Sprint(i)}, start.Add(time.Duration(i)*time.Second))
		// The first is seen again and again, and so must stay.
		events = addEvent(events, capi.Event{Message: "0"}, start.Add(time.Duration(i)*time.Second))
	}
	if len(events) != maxEventsPerObject {
		t.Errorf("%d events", len(events))
	}
	if !slices.ContainsFunc(events, func(e capi.Event) bool { return e.Message == "0" && e.Count > maxEventsPerObject }) {
		t.Error("an old event that was seen again was dropped")
	}
	if slices.ContainsFunc(events, func(e capi.Event) bool { return e.Message == "1" }) {
		t.Error("the oldest event is still there")
	}
}

func TestLock(t *testing.T) {
	for _, c := range storesHere() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			before := time.Now().Add(-time.Second)
			_, unlock, err := s.Lock(t.Context(), capi.LockRequest{Command: "apply"})
			must(t, err)
			must(t, s.Sync(t.Context(), testSet("a"))) // its own writes go through

			var locked *LockedError
			_, _, err = s.Lock(t.Context(), capi.LockRequest{Command: "delete machine a"})
			if !errors.As(err, &locked) {
				t.Fatalf("the second lock: %v", err)
			}
			if h := locked.Holder; h.Command != "apply" || h.PID == 0 || h.Host == "" || h.User == "" || h.Since.Before(before) {
				t.Errorf("holder %+v", h)
			}
			for _, part := range []string{s.String(), `"capplunder apply" (process `, " since 20", "wait for it to end"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}

			// With patience it waits, in vain or not.
			if _, _, err = s.Lock(t.Context(), capi.LockRequest{Command: "x", Patience: 30 * time.Millisecond}); !errors.As(err, &locked) {
				t.Errorf("after its patience: %v", err)
			}
			time.AfterFunc(20*time.Millisecond, func() { _ = unlock() })
			_, again, err := s.Lock(t.Context(), capi.LockRequest{Command: "delete machine a", Patience: time.Minute})
			must(t, err)
			must(t, unlock()) // once more does nothing
			if _, _, err = s.Lock(t.Context(), capi.LockRequest{Command: "x"}); !errors.As(err, &locked) || locked.Holder.Command != "delete machine a" {
				t.Errorf("%v", err)
			}
			must(t, again())

			// Interrupted while waiting.
			_, unlock, err = s.Lock(t.Context(), capi.LockRequest{Command: "apply"})
			must(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			if _, _, err := s.Lock(ctx, capi.LockRequest{Command: "x", Patience: time.Minute}); !errors.Is(err, context.Canceled) || errors.As(err, &locked) {
				t.Errorf("interrupted: %v", err)
			}
			must(t, unlock())
		})
	}
}

func TestDeadContext(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			must(t, s.Sync(t.Context(), testSet("a")))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, _, lockErr := s.Lock(ctx, capi.LockRequest{Command: "x"})
			_, _, recordErr := s.Record(ctx, key("a"))
			_, _, clusterErr := s.ClusterRecord(ctx, key("c"))
			for name, err := range map[string]error{
				"Lock": lockErr, "Record": recordErr, "ClusterRecord": clusterErr,
				"Sync": s.Sync(ctx, testSet("b")), "SaveRecord": s.SaveRecord(ctx, capi.Record{Key: key("a")}),
				"DeleteRecord": s.DeleteRecord(ctx, key("a")), "AddEvent": s.AddEvent(ctx, capi.Event{}),
				"SaveClusterRecord": s.SaveClusterRecord(ctx, capi.ClusterRecord{Key: key("c")}),
			} {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func TestMemoryFailures(t *testing.T) {
	fail := errors.New("no")
	m := NewMemory()
	v := reflect.ValueOf(m).Elem()
	n := 0
	for i := range v.NumField() {
		if strings.HasPrefix(v.Type().Field(i).Name, "Fail") {
			v.Field(i).Set(reflect.ValueOf(fail))
			n++
		}
	}
	ctx := t.Context()
	_, _, err1 := m.Lock(ctx, capi.LockRequest{Command: "x"})
	_, _, err2 := m.Record(ctx, key("a"))
	_, err3 := m.Records(ctx)
	_, _, err4 := m.ClusterRecord(ctx, key("c"))
	_, err5 := m.Events(ctx)
	_, err6 := m.ClusterRecords(ctx)
	_, _, err7 := m.CondemnCluster(ctx, key("c"))
	errs := []error{
		err1, err2, err3, err4, err5, err6, err7, m.DeleteCluster(ctx, key("c")), m.Protect(ctx, key("a"), true), m.Sync(ctx, testSet("a")), m.SaveRecord(ctx, capi.Record{}), m.DeleteRecord(ctx, key("a")),
		m.SaveClusterRecord(ctx, capi.ClusterRecord{}), m.AddEvent(ctx, capi.Event{}),
	}
	if len(errs) != n {
		t.Errorf("%d methods tried, %d can fail", len(errs), n)
	}
	for i, err := range errs {
		if !errors.Is(err, fail) {
			t.Errorf("method %d: %v", i, err)
		}
	}
}
