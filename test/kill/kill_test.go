// Package kill proves that nothing is lost when the program dies: the real binary
// is killed with SIGKILL at every request that an apply or a delete makes, before
// and after the server has handled it, and at every event that it reports, and is
// then run again. The server is the simulator, over TLS on loopback.
package kill

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/plunder-app/capplunder/internal/cli" // go test must not take a cached result for a changed program
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/state"
)

// patience is how long one run of the program may take before the test gives up.
const patience = 60 * time.Second

var binary string

func TestMain(m *testing.M) {
	// The runs wait nearly all the time: many at once, however few cores there are.
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "capplunder-kill")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "capplunder")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/plunder-app/capplunder/cmd/capplunder").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// rig is one simulated server and one state directory.
type rig struct {
	t     *testing.T
	sim   *simulator.Server // nil with --simulate
	flags []string          // of every run
	state string
	// onRequest and onResponse are called with the number of the request since the
	// last arm; events are counted by run.
	requests, responses   atomic.Int64
	onRequest, onResponse atomic.Pointer[func(n int64)]
}

func newRig(t *testing.T) *rig {
	t.Helper()
	sim := simulator.New(simulator.Config{
		Machines: 3, OSInstall: 300 * time.Millisecond, KubernetesInstall: 200 * time.Millisecond,
		BootLoop: 100 * time.Millisecond, BootTime: 100 * time.Millisecond, SSHLatency: 5 * time.Millisecond, POSTCost: time.Microsecond,
	})
	l, err := sim.Listen(t.Context(), "127.0.0.1:0", simulator.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "plunderclient.yaml")
	r := &rig{t: t, sim: sim, state: filepath.Join(dir, "state")}
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
	sim.OnRequest(call(&r.requests, &r.onRequest))
	sim.OnResponse(call(&r.responses, &r.onResponse))
	return r
}

func (r *rig) arm(onRequest, onResponse func(int64)) {
	r.requests.Store(0)
	r.responses.Store(0)
	set := func(p *atomic.Pointer[func(int64)], f func(int64)) {
		if f == nil {
			p.Store(nil)
			return
		}
		p.Store(&f)
	}
	set(&r.onRequest, onRequest)
	set(&r.onResponse, onResponse)
}

// run starts the program and waits for its end. The kill function is ready before
// the program can have sent anything; onEvent is called with each event's number.
func (r *rig) run(args []string, started func(kill func()), onEvent func(n int, kill func())) (code int, stdout, stderr string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	args = append(args, r.flags...)
	cmd := exec.CommandContext(ctx, binary, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	// A request may only be handled once the process can be killed.
	ready := make(chan struct{})
	kill := func() {
		<-ready
		_ = cmd.Process.Kill()
	}
	if started != nil {
		started(kill)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	close(ready)
	var out strings.Builder
	scanner := bufio.NewScanner(pipe)
	scanner.Buffer(nil, 1<<20)
	for n := 1; scanner.Scan(); n++ {
		line := scanner.Bytes()
		if !json.Valid(line) {
			r.t.Errorf("not JSON: %s", line)
		}
		out.Write(line)
		out.WriteByte('\n')
		if onEvent != nil {
			onEvent(n, kill)
		}
	}
	_ = cmd.Wait()
	if ctx.Err() != nil {
		lines := strings.Split(out.String(), "\n")
		r.t.Fatalf("%v did not end within %s\n%s\n%s", args, patience, strings.Join(lines[max(0, len(lines)-12):], "\n"), &errOut)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
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

// point is where a run is killed: at the n-th request before it is handled, after
// it was handled and before the answer is seen, or when the n-th event is seen.
type point struct {
	where string
	n     int64
}

const (
	before  = "request"
	after   = "answer"
	atEvent = "event"
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
			r.arm(strike, nil)
		case after:
			r.arm(nil, strike)
		default:
			r.arm(nil, nil)
		}
	}
	r.run(args, started, func(n int, k func()) {
		if p.where == atEvent && int64(n) == p.n && !done.Swap(true) {
			k()
		}
	})
	r.arm(nil, nil)
	return done.Load()
}

// counts runs f undisturbed and says how many requests and events it had.
func (r *rig) counts(args ...string) (requests int64, events int) {
	r.t.Helper()
	r.arm(nil, nil)
	out := r.must(args...)
	return r.responses.Load(), strings.Count(out, "\n")
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

// provisioned checks that both machines of the example are ready, once each.
func (r *rig) provisioned() {
	r.t.Helper()
	store, err := state.OpenLocal(r.state)
	if err != nil {
		r.t.Fatal(err)
	}
	records, err := store.Records(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
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

// points spreads the places of one kind over the runs: every one of them.
func points(requests int64, events int) []point {
	var ps []point
	for n := range requests {
		ps = append(ps, point{before, n + 1}, point{after, n + 1})
	}
	for n := range events {
		ps = append(ps, point{atEvent, int64(n) + 1})
	}
	return ps
}

func apply() []string { return []string{"apply", "-f", "../../examples/simple"} }

func TestKilledApplyConverges(t *testing.T) {
	requests, events := newRig(t).counts(apply()...)
	t.Logf("an apply makes %d requests and reports %d events; it is killed at each of them", requests, events)
	for _, p := range points(requests, events) {
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
	requests, events := setUp(t).counts(remove...)
	t.Logf("a delete makes %d requests and reports %d events; it is killed at each of them", requests, events)
	for _, p := range points(requests, events) {
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
	_, events := simulated(t).counts(apply()...)
	t.Logf("an apply reports %d events; it is killed at each of them", events)
	for _, p := range points(0, events) {
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
