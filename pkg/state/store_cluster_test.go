package state

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// anotherCluster adds a cluster of the name, with one machine of the other name, to a set.
func anotherCluster(set *capi.Set, cluster, machine string) *capi.Set {
	other := testSet(machine)
	c, m := other.Clusters[0], other.Machines[0]
	c.Key, c.Infra.Key, m.ClusterName = key(cluster), key(cluster), cluster
	set.Clusters = append(set.Clusters, c)
	set.Machines = append(set.Machines, m)
	return set
}

func protection(t *testing.T, s apply.Store, name string) bool {
	t.Helper()
	r, ok, err := s.Record(t.Context(), key(name))
	must(t, err)
	all, err := s.Records(t.Context())
	must(t, err)
	i := slices.IndexFunc(all, func(r capi.Record) bool { return r.Key == key(name) })
	if !ok || i < 0 || all[i].Protected != r.Protected {
		t.Fatalf("Record: %v, %v; Records: %v", ok, r.Protected, all)
	}
	return r.Protected
}

func TestProtect(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			var missing *MissingError
			for _, on := range []bool{true, false} {
				if err := s.Protect(ctx, key("a"), on); !errors.As(err, &missing) || missing.Key != key("a") {
					t.Errorf("an unknown machine: %v", err)
				}
			}
			must(t, s.Sync(ctx, testSet("a", "b")))
			r := capi.Record{Key: key("a"), PlunderMachine: key("a"), Cluster: "c", MAC: "00:50:56:a5:11:20"}
			must(t, s.SaveRecord(ctx, r))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("b"), Cluster: "c"}))
			if protection(t, s, "a") {
				t.Error("protected from the start")
			}
			for range 2 {
				must(t, s.Protect(ctx, key("a"), true))
			}
			if !protection(t, s, "a") || protection(t, s, "b") {
				t.Error("not protected, or the wrong one")
			}
			// What is saved and given afterwards does not say so, and takes nothing off.
			must(t, s.SaveRecord(ctx, r))
			if inSync, err := s.Look(ctx, testSet("a", "b")); !inSync || err != nil {
				t.Errorf("in sync %v, %v", inSync, err)
			}
			must(t, s.Sync(ctx, testSet("a", "b")))
			if !protection(t, s, "a") {
				t.Error("the protection went unasked")
			}
			if done, _, err := s.Condemn(ctx, key("a")); done || !errors.Is(err, capi.ErrProtected) {
				t.Errorf("condemned: %v, %v", done, err)
			}
			if done, _, err := s.CondemnCluster(ctx, key("c")); done || !errors.Is(err, capi.ErrProtected) {
				t.Errorf("condemned the cluster: %v, %v", done, err)
			}
			for range 2 {
				must(t, s.Protect(ctx, key("a"), false))
			}
			if protection(t, s, "a") {
				t.Error("still protected")
			}
			got, _, err := s.Record(ctx, key("a"))
			if diff := cmp.Diff(r, got); err != nil || diff != "" {
				t.Errorf("err %v\n%s", err, diff)
			}
			if done, _, err := s.Condemn(ctx, key("a")); !done || err != nil {
				t.Errorf("condemned: %v, %v", done, err)
			}
		})
	}
}

// A manifest protects with the annotation on the Machine or on the PlunderMachine. One
// that no longer has it, or has "false", takes nothing off.
func TestManifestsProtect(t *testing.T) {
	for _, c := range stores() {
		for _, at := range []string{"Machine", "PlunderMachine"} {
			t.Run(c.name+" "+at, func(t *testing.T) {
				s := c.open(t)
				ctx := t.Context()
				with := func(value string) *capi.Set {
					set := testSet("a")
					annotations := map[string]string{capi.AnnotationProtected: value}
					if at == "Machine" {
						set.Machines[0].Annotations = annotations
					} else {
						set.Machines[0].Infra.Annotations = annotations
					}
					return set
				}
				give := func(set *capi.Set, want bool) {
					t.Helper()
					must(t, s.Sync(ctx, set))
					if inSync, err := s.Look(ctx, set); !inSync || err != nil {
						t.Errorf("in sync %v, %v", inSync, err)
					}
					if got := protection(t, s, "a"); got != want {
						t.Errorf("protected %v", got)
					}
				}
				must(t, s.Sync(ctx, testSet("a")))
				must(t, s.SaveRecord(ctx, capi.Record{Key: key("a"), MAC: "00:50:56:a5:11:20"}))
				give(with("false"), false)
				if inSync, err := s.Look(ctx, with("true")); inSync || err != nil {
					t.Errorf("not protected yet, but in sync %v, %v", inSync, err)
				}
				give(with("true"), true)
				give(testSet("a"), true)
				give(with("false"), true)
				must(t, s.Protect(ctx, key("a"), false))
				give(testSet("a"), false)
				give(with("yes"), true)
				must(t, s.Protect(ctx, key("a"), false))
				if protection(t, s, "a") {
					t.Error("still protected")
				}
				give(with("yes"), true) // again, and so again
			})
		}
	}
}

func TestClusterRecords(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			if all, err := s.ClusterRecords(ctx); len(all) > 0 || err != nil {
				t.Errorf("%v, %v", all, err)
			}
			must(t, s.Sync(ctx, anotherCluster(testSet("a"), "b", "x")))
			saved := capi.ClusterRecord{Key: key("c"), PlunderCluster: key("c"), InitMachine: "a", Phase: capi.PhaseProvisioned, Ready: true}
			must(t, s.SaveClusterRecord(ctx, saved))
			want := []capi.ClusterRecord{{Key: key("b"), PlunderCluster: key("b")}, saved}
			for _, namespaces := range [][]string{nil, {"default"}, {"kube-system", "default"}} {
				all, err := s.ClusterRecords(ctx, namespaces...)
				if diff := cmp.Diff(want, all); err != nil || diff != "" {
					t.Errorf("%v: err %v\n%s", namespaces, err, diff)
				}
			}
			if all, err := s.ClusterRecords(ctx, "kube-system"); len(all) > 0 || err != nil {
				t.Errorf("of another namespace: %v, %v", all, err)
			}
		})
	}
}

func TestCondemnCluster(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			if done, _, err := s.CondemnCluster(ctx, key("never-seen")); !done || err != nil {
				t.Errorf("%v, %v", done, err)
			}
			must(t, s.Sync(ctx, anotherCluster(testSet("a"), "b", "x")))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("a"), Cluster: "c", MAC: "00:50:56:a5:11:20"}))
			saved := capi.ClusterRecord{Key: key("c"), PlunderCluster: key("c"), InitMachine: "a", Phase: capi.PhaseProvisioned}
			must(t, s.SaveClusterRecord(ctx, saved))
			for range 2 {
				if done, _, err := s.CondemnCluster(ctx, key("c")); !done || err != nil {
					t.Errorf("%v, %v", done, err)
				}
				// A run that read the record before saves it now.
				saved.InitMachine = ""
				must(t, s.SaveClusterRecord(ctx, saved))
				for name, want := range map[string]bool{"c": true, "b": false} {
					set := anotherCluster(testSet("a"), "b", "x")
					if _, err := s.Look(ctx, set); err != nil {
						t.Error(err)
					}
					i := slices.IndexFunc(set.Clusters, func(c *capi.Cluster) bool { return c.Name == name })
					r, _, err := s.ClusterRecord(ctx, key(name))
					if got := r.Phase == capi.PhaseDeleting || set.Clusters[i].Deleting; got != want || err != nil {
						t.Errorf("cluster %s is being deleted: %v, %v", name, got, err)
					}
				}
			}
			if all, err := s.ClusterRecords(ctx); len(all) != 2 || err != nil {
				t.Errorf("%v, %v", all, err)
			}
		})
	}
}

func TestDeleteCluster(t *testing.T) {
	for _, c := range stores() {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t)
			ctx := t.Context()
			must(t, s.DeleteCluster(ctx, key("never-seen")))
			set := func() *capi.Set { return anotherCluster(testSet("a", "b", "n"), "d", "x") }
			must(t, s.Sync(ctx, set()))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("a"), Cluster: "c", MAC: "00:50:56:a5:11:20"}))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("b"), Cluster: "c", Address: "192.168.1.9"})) // never had hardware
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("x"), Cluster: "d", MAC: "00:50:56:a5:11:21"}))
			for _, name := range []string{"c", "d"} {
				must(t, s.SaveKubeconfig(ctx, key(name), []byte("kubeconfig of "+name)))
				_, err := s.SavePKI(ctx, key(name), testPKI(name))
				must(t, err)
				must(t, s.SaveClusterRecord(ctx, capi.ClusterRecord{Key: key(name), PlunderCluster: key(name), InitMachine: "a"}))
			}
			var occupied *OccupiedError
			if err := s.DeleteCluster(ctx, key("c")); !errors.As(err, &occupied) || !slices.Equal(occupied.Machines, []capi.Key{key("a")}) {
				t.Errorf("with a machine that has hardware: %v", err)
			}
			must(t, s.DeleteRecord(ctx, key("a")))
			must(t, s.Protect(ctx, key("n"), true))
			if err := s.DeleteCluster(ctx, key("c")); !errors.Is(err, capi.ErrProtected) {
				t.Errorf("with a protected machine: %v", err)
			}
			must(t, s.Protect(ctx, key("n"), false))
			if data, ok, err := s.Kubeconfig(ctx, key("c")); !ok || len(data) == 0 || err != nil {
				t.Errorf("refused, and yet: %v, %v", ok, err)
			}
			for range 2 {
				must(t, s.DeleteCluster(ctx, key("c")))
				all, err := s.ClusterRecords(ctx)
				if len(all) != 1 || all[0].Key != key("d") || err != nil {
					t.Errorf("%v, %v", all, err)
				}
				if _, ok, err := s.ClusterRecord(ctx, key("c")); ok || err != nil {
					t.Errorf("the record is there: %v", err)
				}
				records, err := s.Records(ctx)
				if len(records) != 1 || records[0].Key != key("x") || err != nil {
					t.Errorf("%v, %v", records, err)
				}
				for name, want := range map[string]bool{"c": false, "d": true} {
					_, ok, err := s.Kubeconfig(ctx, key(name))
					pki, pkiErr := s.PKI(ctx, key(name))
					if ok != want || (pki != nil) != want || err != nil || pkiErr != nil {
						t.Errorf("%s: kubeconfig %v %v, PKI %v %v", name, ok, err, pki != nil, pkiErr)
					}
				}
				var missing *NotSyncedError
				for _, name := range []string{"a", "b", "n"} {
					if err := s.SaveRecord(ctx, capi.Record{Key: key(name)}); !errors.As(err, &missing) {
						t.Errorf("the objects of %s are there: %v", name, err)
					}
				}
				if err := s.SaveClusterRecord(ctx, capi.ClusterRecord{Key: key("c")}); !errors.As(err, &missing) {
					t.Errorf("the Cluster is there: %v", err)
				}
			}
			// A new one of the name has nothing of it; what b claimed is free.
			must(t, s.Sync(ctx, set()))
			must(t, s.SaveRecord(ctx, capi.Record{Key: key("n"), Cluster: "c", Address: "192.168.1.9"}))
			if _, ok, err := s.ClusterRecord(ctx, key("c")); ok || err != nil {
				t.Errorf("a new cluster has a record: %v", err)
			}
			fresh, err := s.SavePKI(ctx, key("c"), testPKI("new"))
			if diff := cmp.Diff(testPKI("new"), fresh); err != nil || diff != "" {
				t.Errorf("err %v\n%s", err, diff)
			}
		})
	}
}
