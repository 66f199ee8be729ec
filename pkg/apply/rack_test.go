package apply_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/state"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// rack is a simulated server with its machines, a client of it and a store, for
// tests on a virtual clock: nothing of it uses a socket or a file.
type rack struct {
	t      testing.TB
	sim    *simulator.Server
	client *plunder.Client
	store  *state.Memory
	opts   apply.Options

	mu     sync.Mutex
	events []event.Event
}

// newRack starts a rack with times as real ones are: minutes, not seconds.
func newRack(tb testing.TB, cfg simulator.Config) *rack {
	tb.Helper()
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&cfg.OSInstall, 7*time.Minute)
	def(&cfg.KubernetesInstall, 4*time.Minute)
	def(&cfg.BootLoop, 10*time.Second)
	def(&cfg.BootTime, 40*time.Second)
	r := &rack{t: tb, sim: simulator.New(cfg), store: state.NewMemory(), opts: apply.Options{Resume: "capplunder apply"}}
	client, err := plunder.New(plunder.Config{URL: "http://plunder.test", AllowHTTP: true}, plunder.WithTransport(r.sim))
	if err != nil {
		tb.Fatal(err)
	}
	r.client = client
	return r
}

func (r *rack) close() {
	r.client.Close()
	if err := r.sim.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rack) engine() *apply.Engine { return r.engineWith(func(event.Event) {}) }

// engineWith is an engine whose events also go to emit.
func (r *rack) engineWith(emit event.Func) *apply.Engine {
	return apply.New(r.client, r.store, func(e event.Event) {
		r.mu.Lock()
		r.events = append(r.events, e)
		r.mu.Unlock()
		emit(e)
	}, r.opts).ShareSealKey()
}

// apply runs the manifests once.
func (r *rack) apply(ctx context.Context, manifest string, opts ...func(*translate.Options)) (apply.Result, error) {
	r.t.Helper()
	set, plan := planOf(r.t, manifest, opts...)
	return r.engine().Apply(ctx, set, plan)
}

func (r *rack) delete(ctx context.Context, names ...string) (apply.Result, error) {
	keys := make([]capi.Key, len(names))
	for i, n := range names {
		keys[i] = capi.ParseKey(n, "default")
	}
	return r.engine().Delete(ctx, apply.Targets{Machines: keys}, apply.DeleteOptions{}, func(apply.Preview) error { return nil })
}

func (r *rack) record(name string) capi.Record {
	r.t.Helper()
	rec, _, err := r.store.Record(context.Background(), capi.ParseKey(name, "default"))
	if err != nil {
		r.t.Fatal(err)
	}
	return rec
}

// all is the text of the events of one type, of one machine or ("") of all.
func (r *rack) all(kind event.Type, machine string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.events {
		if e.Type == kind && (machine == "" || e.Machine == "default/"+machine) {
			fmt.Fprintf(&b, "%s %s %s %s\n", e.Machine, e.Step, e.Message, e.Observation)
		}
	}
	return b.String()
}

// dump prints what happened, for a test that failed.
func (r *rack) dump() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var first time.Time
	last := ""
	for _, e := range r.events {
		if first.IsZero() {
			first = e.Time
		}
		line := fmt.Sprintf("%s %s %s %s%s", e.Type, e.Machine, e.Step, e.Message, e.Observation)
		if line != last {
			r.t.Logf("%8s %s", e.Time.Sub(first).Round(time.Millisecond), line)
		}
		last = line
	}
}

func planOf(tb testing.TB, manifest string, opts ...func(*translate.Options)) (*capi.Set, *translate.Plan) {
	tb.Helper()
	set, err := capi.Decode([]capi.Document{})
	if err == nil {
		var docs []capi.Document
		for i, raw := range strings.Split(manifest, "\n---\n") {
			docs = append(docs, capi.Document{Origin: capi.Origin{File: "test.yaml", Document: i + 1, Line: 1}, Raw: []byte(raw)})
		}
		set, err = capi.Decode(docs)
	}
	if err != nil {
		tb.Fatal(err)
	}
	var o translate.Options
	for _, f := range opts {
		f(&o)
	}
	plan, err := translate.NewPlan(set, o)
	if err != nil {
		tb.Fatal(err)
	}
	return set, plan
}

func skipKubernetes(o *translate.Options) { o.SkipKubernetes = true }

const clusterYAML = `apiVersion: cluster.x-k8s.io/v1alpha2
kind: Cluster
metadata: {name: c}`

// machineYAML is one machine. extra are more fields of the PlunderMachine's spec.
func machineYAML(name, address string, controlPlane bool, extra string) string {
	label := ""
	if controlPlane {
		label = `, cluster.x-k8s.io/control-plane: "true"`
	}
	return fmt.Sprintf(`---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: %[1]s}
spec: {ipaddress: %[2]s%[4]s}
---
apiVersion: cluster.x-k8s.io/v1alpha2
kind: Machine
metadata: {name: %[1]s, labels: {cluster.x-k8s.io/cluster-name: c%[3]s}}
spec:
  version: v1.34.1
  bootstrap: {data: ""}
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, name: %[1]s}`, name, address, label, extra)
}

// fleet is a cluster with one control plane machine "cp" and workers "w001" and on.
func fleet(workers int) string {
	parts := []string{clusterYAML, machineYAML("cp", "192.168.0.10", true, "")}
	for i := range workers {
		parts = append(parts, machineYAML(fmt.Sprintf("w%03d", i+1), fmt.Sprintf("192.168.%d.%d", 1+i/200, 10+i%200), false, ""))
	}
	return strings.Join(parts, "\n")
}
