package kill

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/state"
)

// destroySamples is how many of the requests a destroy is killed at that change something,
// before and after them; it is killed at every event.
const destroySamples = 24

func destroyRack() simulator.Config {
	return simulator.Config{
		Machines: 7, OSInstall: 200 * time.Millisecond, KubernetesInstall: 100 * time.Millisecond,
		BootLoop: 100 * time.Millisecond, BootTime: 100 * time.Millisecond, SSHLatency: 5 * time.Millisecond, POSTCost: time.Microsecond,
		Disk: []host.DiskConfig{{Name: "sda", Bytes: 64 << 30}, {Name: "sdb", Bytes: 128 << 30, Rotational: true}, {Name: "sdc", Bytes: 8 << 30, Removable: true, USB: true}},
	}
}

func destroy() []string { return []string{"destroy", "--cluster", "ha", "--yes"} }

// bystander is one machine of a cluster of its own; spec is of its PlunderMachine.
func bystander(t *testing.T, name, address, spec string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".yaml")
	text := fmt.Sprintf(`apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata: {name: %[1]s}
spec:
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderCluster, name: %[1]s}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderCluster
metadata: {name: %[1]s}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: %[1]s}
spec: {ipaddress: %[2]s, deploymentType: preseed%[3]s}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Machine
metadata: {name: %[1]s}
spec:
  clusterName: %[1]s
  version: v1.34.1
  bootstrap: {dataSecretName: ""}
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, name: %[1]s}
`, name, address, spec)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"apply", "-f", path, "--skip-kubernetes"}
}

// installedCluster is a cluster of five machines, and a machine that is nobody's business,
// as files: a rack and a state directory, for many rigs to begin with.
type installedCluster struct {
	rack, state string
	address     string                 // of the server, which the records name
	records     map[string]capi.Record // by the machine's name
}

func installOnce(t *testing.T) installedCluster {
	t.Helper()
	r := newRigOf(t, destroyRack())
	r.must("apply", "-f", haManifests(t, ""))
	r.must(bystander(t, "bystander", "192.168.1.230", "")...)
	c := installedCluster{rack: filepath.Join(t.TempDir(), "rack.json"), state: r.state, address: r.address, records: map[string]capi.Record{}}
	for _, rec := range r.records() {
		c.records[rec.Name] = rec
	}
	if len(c.records) != 6 {
		t.Fatalf("machines: %v", c.records)
	}
	if err := r.sim.Save(c.rack); err != nil {
		t.Fatal(err)
	}
	return c
}

// rig is a server and a state directory that begin there.
func (c installedCluster) rig(t *testing.T) *rig {
	t.Helper()
	sim, err := simulator.Load(destroyRack(), c.rack)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigWith(t, sim)
	sim.OnRequest(func(c simulator.Call) {
		if c.Function == "POST /parlay" {
			r.remember(c.Body)
		}
	})
	err = filepath.WalkDir(c.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(c.state, path)
		if err != nil {
			return err
		}
		to := filepath.Join(r.state, rel)
		if d.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, []byte(strings.ReplaceAll(string(data), c.address, r.address)), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// destroyed checks that the five machines are back in the pool, that each was wiped by
// the order that was posted for it and no other, and that nothing else happened.
func (r *rig) destroyed(c installedCluster, before map[string]int) {
	r.t.Helper()
	for _, rec := range r.records() {
		if rec.Name != "bystander" {
			r.t.Errorf("a record is left: %+v", rec)
		}
	}
	if r.clusterLeft() {
		r.t.Error("the cluster is left")
	}
	client, err := plunder.LoadConfig(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	api, err := plunder.New(client)
	if err != nil {
		r.t.Fatal(err)
	}
	defer api.Close()
	left, err := api.Deployments(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	after := r.installs()
	r.wipes(c)
	for name, rec := range c.records {
		mac := rec.MAC
		m := r.machine(mac)
		if after[mac] != before[mac] {
			r.t.Errorf("%s (%s) was installed %d times, then %d", name, mac, before[mac], after[mac])
		}
		if name == "bystander" {
			if m.Wiped || m.Phase != "up" || m.Boots != r.boots[mac] {
				r.t.Errorf("the bystander is no longer what it was: %+v", m)
			}
			continue
		}
		if d, ok := left.ByMAC(mac); ok && d.BootConfigName != "reboot" {
			r.t.Errorf("%s (%s) still boots %s", name, mac, d.BootConfigName)
		}
		if !m.Wiped || m.Phase != "looping" {
			r.t.Errorf("%s is not in the pool: %+v", name, m)
		}
	}
}

// wipes checks who wrote to which disk: only what a job for that machine's address asked
// for, and only to the disk that the machine was installed on.
func (r *rig) wipes(c installedCluster) {
	r.t.Helper()
	wiped := map[string]bool{}
	for _, w := range r.sim.World().Wipes() {
		var victim capi.Record
		for _, rec := range c.records {
			if rec.MAC == w.MAC {
				victim = rec
			}
		}
		hosts, _ := r.posted.Load(w.Task)
		switch {
		case victim.Name == "" || victim.Name == "bystander":
			r.t.Errorf("somebody else's disk was written to: %+v", w)
		case w.Address != victim.Address || fmt.Sprint(hosts) != fmt.Sprint([]string{victim.Address}):
			r.t.Errorf("%s (%s): its disk was written to by a job for %v: %+v", victim.Name, victim.Address, hosts, w)
		case !slices.ContainsFunc(victim.Disks, func(d capi.Disk) bool {
			return d.Serial == w.Serial && strings.Contains(d.Flags, "root")
		}):
			r.t.Errorf("%s was not installed on this disk, but on %+v: %+v", victim.Name, victim.Disks, w)
		}
		wiped[victim.Name] = true
	}
	if len(wiped) != 5 {
		r.t.Errorf("the disks of %d machines were written to", len(wiped))
	}
}

func (r *rig) machine(mac string) simulator.MachineState {
	r.t.Helper()
	for _, m := range r.sim.Machines() {
		if m.MAC == mac {
			return m
		}
	}
	r.t.Fatalf("no machine %s", mac)
	return simulator.MachineState{}
}

// A whole cluster: wherever the destroy is killed, the next one ends it. Nothing is
// installed again, and no host but those of the cluster is touched.
func TestKilledDestroyConverges(t *testing.T) {
	c := installOnce(t)
	undisturbed := c.rig(t)
	before := undisturbed.installs()
	_, changes, events := undisturbed.counts(destroy()...)
	undisturbed.destroyed(c, before)
	var must, some []point
	for n := range events {
		must = append(must, point{atEvent, int64(n) + 1})
	}
	for n := range changes {
		some = append(some, point{beforeChange, n + 1}, point{after, n + 1})
	}
	random := rand.New(rand.NewPCG(5, 3))
	random.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	sample := some[:min(destroySamples, len(some))]
	t.Logf("a destroy of five machines reports %d events and makes %d requests that change something; it is killed at all events, and at %d of %d places around those requests",
		events, changes, len(sample), len(some))
	for i, p := range append(must, sample...) {
		if i >= len(must) && i%every != 0 {
			continue
		}
		t.Run(fmt.Sprintf("%s-%d", p.where, p.n), func(t *testing.T) {
			t.Parallel()
			r := c.rig(t)
			before := r.installs()
			if !r.killed(p, destroy()...) {
				t.Logf("ended before %s %d", p.where, p.n)
			}
			if r.clusterLeft() { // else it was complete when it was killed
				r.must(destroy()...)
			}
			r.destroyed(c, before)
		})
	}
}

// Somebody else, with another store, takes a machine as soon as it is back in the pool, while
// the destroy that gave it back lies killed: the next one must leave that machine alone.
func TestKilledDestroySparesTheNext(t *testing.T) {
	c := installOnce(t)
	_, _, events := c.rig(t).counts(destroy()...)
	var taken atomic.Int64
	t.Run("events", func(t *testing.T) {
		for n := events / 2; n <= events; n += every {
			t.Run(strconv.Itoa(n), func(t *testing.T) {
				t.Parallel()
				r := c.rig(t)
				r.killed(point{atEvent, int64(n)}, destroy()...)
				mac := c.records["w1"].MAC
				other := &rig{t: t, sim: r.sim, flags: slices.Clone(r.flags)}
				other.flags[slices.Index(other.flags, r.state)] = filepath.Join(t.TempDir(), "other")
				args := bystander(t, "next", "192.168.1.231", ", macaddress: \""+mac+"\"")
				if code, _, _ := other.run(append(args, "--hardware-timeout", "3s"), nil, nil); code != 0 {
					t.Logf("%s is not free yet", mac)
					return
				}
				taken.Add(1)
				wipes := len(r.sim.World().Wipes())
				if r.clusterLeft() {
					r.must(destroy()...)
				}
				if r.clusterLeft() || len(r.records()) != 1 {
					t.Errorf("left are %+v", r.records())
				}
				if m := r.machine(mac); m.Wiped || m.Phase != "up" || m.Address != "192.168.1.231" {
					t.Errorf("the machine is no longer what its new owner made of it: %+v", m)
				}
				for _, w := range r.sim.World().Wipes()[wipes:] {
					if w.MAC == mac {
						t.Errorf("its new owner's disk was written to: %+v", w)
					}
				}
				if out := other.must(args...); !strings.Contains(out, `"type":"Skipped"`) {
					t.Errorf("its new owner finds it changed:\n%s", out)
				}
			})
		}
	})
	if taken.Load() == 0 {
		t.Error("the machine was never free: nothing was tested")
	}
}

// remember keeps for which hosts actions were posted.
func (r *rig) remember(body []byte) {
	var m wire.Map
	if err := json.Unmarshal(body, &m); err != nil {
		r.t.Errorf("a map: %v", err)
	}
	for _, d := range m.Deployments {
		for _, a := range d.Actions {
			r.posted.Store(a.Name, d.Hosts)
		}
	}
}

// clusterLeft says whether the cluster is still in the store.
func (r *rig) clusterLeft() bool {
	r.t.Helper()
	store, err := state.OpenLocal(r.state)
	if err != nil {
		r.t.Fatal(err)
	}
	clusters, err := store.ClusterRecords(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.ContainsFunc(clusters, func(c capi.ClusterRecord) bool { return c.Key.Name == "ha" })
}
