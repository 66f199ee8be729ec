// Package kill proves that nothing is lost when the program dies: the real binary
// is killed with SIGKILL at every request that an apply or a delete makes, before the
// server has handled it and, if it changes something, after that, and at every event that
// it reports, and is then run again. The server is the simulator, over TLS on loopback.
package kill

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/state"
	"github.com/plunder-app/capplunder/test/program"
)

// patience is how long one run of the program may take before the test gives up.
const patience = 3 * time.Minute

func TestMain(m *testing.M) { os.Exit(program.Main(12, m.Run)) }

// rig is one simulated server and one state directory.
type rig struct {
	t     *testing.T
	sim   *simulator.Server // nil with --simulate
	flags []string          // of every run
	state string
	// config and address are how the server is found, boots how often each machine had
	// booted when the rig was made.
	config, address string
	boots           map[string]int
	posted          sync.Map // []string, the hosts that an action was posted for, by its name
	// onRequest is called with the number of the request since the last arm, onIntent and
	// onChange with that of the request and the answer among those that change something:
	// killed before or after a mere look is the same. Events are counted by run.
	requests, intents, changes    atomic.Int64
	onRequest, onIntent, onChange atomic.Pointer[func(n int64)]
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOf(t, simulator.Config{
		Machines: 3, OSInstall: 300 * time.Millisecond, KubernetesInstall: 200 * time.Millisecond,
		BootLoop: 100 * time.Millisecond, BootTime: 100 * time.Millisecond, SSHLatency: 5 * time.Millisecond, POSTCost: time.Microsecond,
	})
}

func newRigOf(t *testing.T, rack simulator.Config) *rig {
	t.Helper()
	return newRigWith(t, simulator.New(rack))
}

func newRigWith(t *testing.T, sim *simulator.Server) *rig {
	t.Helper()
	l, err := sim.Listen(t.Context(), "127.0.0.1:0", simulator.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "plunderclient.yaml")
	r := &rig{t: t, sim: sim, state: filepath.Join(dir, "state"), config: config, address: net.JoinHostPort(l.Address, strconv.Itoa(l.Port)), boots: map[string]int{}}
	for _, m := range sim.Machines() {
		r.boots[m.MAC] = m.Boots
	}
	r.flags = []string{"-p", config, "--state-dir", r.state, "--interval", "50ms", "-o", "json"}
	client := plunder.Config{Address: l.Address, Port: l.Port, Cert: base64.StdEncoding.EncodeToString(l.CertPEM)}
	if err := client.WriteFile(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	})
	call := func(n *atomic.Int64, f *atomic.Pointer[func(int64)]) func(simulator.Call) {
		return func(simulator.Call) {
			i := n.Add(1)
			if f := f.Load(); f != nil {
				(*f)(i)
			}
		}
	}
	request, intent := call(&r.requests, &r.onRequest), call(&r.intents, &r.onIntent)
	sim.OnRequest(func(c simulator.Call) {
		if c.Method != http.MethodGet {
			intent(c)
		}
		request(c)
	})
	change := call(&r.changes, &r.onChange)
	sim.OnResponse(func(c simulator.Call) {
		if c.Method != http.MethodGet {
			change(c)
		}
	})
	return r
}

func (r *rig) arm(onRequest, onIntent, onChange func(int64)) {
	r.requests.Store(0)
	r.intents.Store(0)
	r.changes.Store(0)
	set := func(p *atomic.Pointer[func(int64)], f func(int64)) {
		if f == nil {
			p.Store(nil)
			return
		}
		p.Store(&f)
	}
	set(&r.onRequest, onRequest)
	set(&r.onIntent, onIntent)
	set(&r.onChange, onChange)
}

// run starts the program and waits for its end. The kill function is ready before
// the program can have sent anything; onEvent is called with each event's number.
func (r *rig) run(args []string, started func(kill func()), onEvent func(n int, kill func())) (code int, stdout, stderr string) {
	r.t.Helper()
	var kill func()
	n := 0
	res := program.Do(r.t, program.Options{
		Args: append(args, r.flags...), Patience: patience,
		Started: func(k func()) {
			kill = k
			if started != nil {
				started(k)
			}
		},
		Line: func(line string) {
			if !json.Valid([]byte(line)) {
				r.t.Errorf("not JSON: %s", line)
			}
			if n++; onEvent != nil {
				onEvent(n, kill)
			}
		},
	})
	return res.Code, res.Stdout, res.Stderr
}

// must runs the program undisturbed.
func (r *rig) must(args ...string) string {
	r.t.Helper()
	code, out, errOut := r.run(args, nil, nil)
	if code != 0 {
		r.t.Fatalf("%v: exit %d\n%s%s", args, code, out, errOut)
	}
	return out
}

// point is where a run is killed: at the n-th request before it is handled, or the n-th
// that changes something, after the n-th that changes something was handled and before the
// answer is seen, or when the n-th event is seen.
type point struct {
	where string
	n     int64
}

const (
	before       = "request"
	beforeChange = "change"
	after        = "answer"
	atEvent      = "event"
)

// killed runs the program until it is killed at p; false when it ended before.
func (r *rig) killed(p point, args ...string) bool {
	r.t.Helper()
	var done atomic.Bool
	var kill func()
	strike := func(n int64) {
		if n == p.n && !done.Swap(true) {
			kill()
		}
	}
	started := func(k func()) {
		kill = k
		switch p.where {
		case before:
			r.arm(strike, nil, nil)
		case beforeChange:
			r.arm(nil, strike, nil)
		case after:
			r.arm(nil, nil, strike)
		default:
			r.arm(nil, nil, nil)
		}
	}
	r.run(args, started, func(n int, k func()) {
		if p.where == atEvent && int64(n) == p.n && !done.Swap(true) {
			k()
		}
	})
	r.arm(nil, nil, nil)
	return done.Load()
}

// counts runs the program undisturbed and says how many requests it made, how many of
// them change something, and how many events it reported.
func (r *rig) counts(args ...string) (requests, changes int64, events int) {
	r.t.Helper()
	r.arm(nil, nil, nil)
	out := r.must(args...)
	return r.requests.Load(), r.changes.Load(), strings.Count(out, "\n")
}

// installs are how often the operating system was installed, by MAC.
func (r *rig) installs() map[string]int {
	n := map[string]int{}
	for _, m := range r.sim.Machines() {
		if m.Installs > 0 {
			n[m.MAC] = m.Installs
		}
	}
	return n
}

// records are those in the store.
func (r *rig) records() []capi.Record {
	r.t.Helper()
	store, err := state.OpenLocal(r.state)
	if err != nil {
		r.t.Fatal(err)
	}
	records, err := store.Records(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return records
}

// provisioned checks that both machines of the example are ready, once each.
func (r *rig) provisioned() {
	r.t.Helper()
	records := r.records()
	macs, addresses := map[string]bool{}, map[string]bool{}
	for _, rec := range records {
		if !rec.Ready || rec.ProviderID != "plunder://"+rec.MAC {
			r.t.Errorf("%s is not ready: %+v", rec.Key, rec)
		}
		macs[rec.MAC], addresses[rec.Address] = true, true
		for _, m := range r.sim.Machines() {
			if m.MAC == rec.MAC && (m.Address != rec.Address || m.HostName != rec.HostName || m.Phase != "up") {
				r.t.Errorf("%s is recorded as %s (%s), but the machine is %+v", rec.Key, rec.HostName, rec.Address, m)
			}
		}
	}
	if len(records) != 2 || len(macs) != 2 || len(addresses) != 2 {
		r.t.Errorf("want two machines with a MAC and an address each: %+v", records)
	}
	for mac, n := range r.installs() {
		if n != 1 || !macs[mac] {
			r.t.Errorf("machine %s was installed %d times, recorded: %v", mac, n, macs[mac])
		}
	}
}

// points are all places where such a run can be killed.
func points(requests, changes int64, events int) []point {
	var ps []point
	for n := range requests {
		ps = append(ps, point{before, n + 1})
	}
	for n := range changes {
		ps = append(ps, point{after, n + 1})
	}
	for n := range events {
		ps = append(ps, point{atEvent, int64(n) + 1})
	}
	return ps
}

func apply() []string { return []string{"apply", "-f", "../../examples/simple"} }

func TestKilledApplyConverges(t *testing.T) {
	requests, changes, events := newRig(t).counts(apply()...)
	t.Logf("an apply makes %d requests, of which %d change something, and reports %d events; it is killed at each of them", requests, changes, events)
	for _, p := range points(requests, changes, events) {
		t.Run(fmt.Sprintf("%s-%d", p.where, p.n), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if !r.killed(p, apply()...) {
				// Polling makes the number of requests vary a little: it was done before.
				t.Logf("ended before %s %d", p.where, p.n)
			}
			r.must(apply()...)
			r.provisioned()
			r.sim.ForgetCalls()
			out := r.must(apply()...)
			if m := r.sim.Mutations(); len(m) > 0 || strings.Count(out, `"type":"Skipped"`) != 2 {
				t.Errorf("a third run changes nothing, but: %v\n%s", m, out)
			}
		})
	}
}

func TestKilledDeleteConverges(t *testing.T) {
	remove := []string{"delete", "machine", "worker", "--yes"}
	setUp := func(t *testing.T) *rig {
		t.Helper()
		r := newRig(t)
		r.must(apply()...)
		return r
	}
	requests, changes, events := setUp(t).counts(remove...)
	t.Logf("a delete makes %d requests, of which %d change something, and reports %d events; it is killed at each of them", requests, changes, events)
	for i, p := range points(requests, changes, events) {
		if i%every != 0 {
			continue
		}
		t.Run(fmt.Sprintf("%s-%d", p.where, p.n), func(t *testing.T) {
			t.Parallel()
			r := setUp(t)
			before := r.installs()
			if !r.killed(p, remove...) {
				t.Logf("ended before %s %d", p.where, p.n)
			}
			// Deleted already counts as deleted: then there is nothing left to name.
			if code, out, errOut := r.run(remove, nil, nil); code != 0 && !strings.Contains(errOut, "has no Machine") {
				t.Fatalf("exit %d\n%s%s", code, out, errOut)
			}
			if after := r.installs(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("something was installed: %v, then %v", before, after)
			}
			wiped := 0
			for _, m := range r.sim.Machines() {
				if _, was := before[m.MAC]; was && m.Wiped {
					wiped++
				}
			}
			if wiped != 1 {
				t.Errorf("%d of the machines were wiped, want the worker's", wiped)
			}
			r.must(apply()...)
			all := r.installs()
			total := 0
			for _, n := range all {
				total += n
			}
			if total != 3 {
				t.Errorf("installed %v, want one more than before", all)
			}
		})
	}
}

// With --simulate the server dies with the program, and its machines live on.
func TestKilledSimulationConverges(t *testing.T) {
	simulated := func(t *testing.T) *rig {
		t.Helper()
		state := filepath.Join(t.TempDir(), "state")
		return &rig{t: t, state: state, flags: []string{
			"--simulate", "--simulate-os-install", "300ms", "--simulate-kubernetes-install", "1s", "--simulate-boot-loop", "100ms",
			"--state-dir", state, "--interval", "50ms", "-o", "json",
		}}
	}
	_, _, events := simulated(t).counts(apply()...)
	t.Logf("an apply reports %d events; it is killed at each of them", events)
	for _, p := range points(0, 0, events) {
		t.Run(fmt.Sprintf("%s-%d", p.where, p.n), func(t *testing.T) {
			t.Parallel()
			r := simulated(t)
			r.killed(p, apply()...)
			r.must(apply()...)
			if out := r.must(apply()...); strings.Count(out, `"type":"Skipped"`) != 2 {
				t.Errorf("a third run changes nothing, but:\n%s", out)
			}
		})
	}
}
