package apply_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// wholeEnv, when set, has TestWayBack try all of its cases; else it is every 7th of them.
const wholeEnv = "CAPPLUNDER_TEST_WHOLE_WAY_BACK"

// A mishap is something that happens to a machine while it is given back.
type mishap struct {
	name string
	do   func(r *rack, victim capi.Record)
	// over puts an end to it; nil if rack.heal does.
	over func(r *rack, victim capi.Record)
	// kill ends the run.
	kill bool
	// stays: no second run can do anything about it. It has to say why, and what next.
	stays bool
}

func mishaps() []mishap {
	fault := func(step, kind string, times int, after time.Duration) func(*rack, capi.Record) {
		return func(r *rack, v capi.Record) {
			r.inject(simulator.Fault{Machine: v.MAC, Step: step, Kind: kind, Times: times, After: after})
		}
	}
	return []mishap{
		{name: "stranger at the address", do: fault("ssh", simulator.KindStranger, 0, 0), stays: true},
		{name: "stranger who leaves", do: func(r *rack, v capi.Record) { r.sim.Stranger(v.Address, true) }, over: func(r *rack, v capi.Record) { r.sim.Stranger(v.Address, false) }},
		{name: "another disk", do: func(r *rack, v capi.Record) { r.sim.SwapDisk(v.MAC, "sda") }, stays: true},
		{name: "host down", do: func(r *rack, v capi.Record) { r.sim.PowerOff(v.MAC) }},
		{name: "host reset", do: func(r *rack, v capi.Record) { r.sim.Reset(v.MAC) }},
		{name: "SSH refused", do: fault("ssh", simulator.KindRefuse, 0, 0)},
		{name: "SSH swallowed", do: fault("ssh", simulator.KindLose, 3, 0)},
		{name: "session lost", do: fault("action:wipe.erase", simulator.KindHang, 1, time.Second)},
		{name: "session lost, the wipe goes on", do: fault("action:wipe.erase", simulator.KindLose, 1, time.Second)},
		{name: "reset while it is wiped", do: fault("action:wipe.erase", simulator.KindReset, 1, 200*time.Millisecond)},
		{name: "power lost while it is wiped", do: fault("action:wipe.erase", simulator.KindDie, 1, 200*time.Millisecond)},
		{name: "server restarted while it is wiped", do: fault("action:wipe.erase", simulator.KindCrash, 1, 200*time.Millisecond)},
		{name: "disk swapped under the wipe", do: fault("action:wipe.erase", simulator.KindSwap, 1, 0), stays: true},
		{name: "lying disk", do: fault("disk:*", simulator.KindLose, 0, 0)},
		{name: "disk that lies about its beginning", do: fault("disk:sda@0+1M", simulator.KindLose, 0, 0)},
		{name: "I/O errors", do: fault("disk:*", simulator.KindFail, 0, 0)},
		{name: "server restarted", do: func(r *rack, _ capi.Record) { r.sim.Crash(5 * time.Second) }},
		{name: "server away for a while", do: func(r *rack, _ capi.Record) { r.sim.Crash(4 * time.Minute) }, over: func(*rack, capi.Record) { time.Sleep(3 * time.Minute) }},
		{name: "dd fails", do: fault("run:dd", simulator.KindFail, 0, 0)},
		{name: "dd fails later", do: func(r *rack, v capi.Record) {
			r.inject(simulator.Fault{Machine: v.MAC, Step: "run:dd", Kind: simulator.KindFail, Skip: 4})
		}},
		{name: "log deleted", do: func(r *rack, v capi.Record) { r.raw(http.MethodDelete, "/parlay/logs/"+dashed(v.Address), nil) }},
		{name: "MAC given to somebody else", stays: true, do: func(r *rack, v capi.Record) {
			r.raw(http.MethodPatch, "/deployment/"+dashed(v.MAC), theirs(v.MAC, "192.168.77.7"))
		}},
		{name: "address given to somebody else", stays: true, do: func(r *rack, v capi.Record) {
			for _, m := range r.sim.Machines() {
				if m.HostName == "" { // posted twice, because the first one can die (recording not-the-last-unleased)
					r.raw(http.MethodPost, "/deployment", theirs(m.MAC, v.Address))
					r.raw(http.MethodPost, "/deployment", theirs(m.MAC, v.Address))
					break
				}
			}
			time.Sleep(3 * time.Minute) // until it answers
		}},
		{name: "interrupted", kill: true},
		{name: "interrupted, then reset", kill: true, over: func(r *rack, v capi.Record) { r.sim.Reset(v.MAC); time.Sleep(2 * time.Minute) }},
		{name: "interrupted, then given to somebody else", kill: true, stays: true, over: func(r *rack, v capi.Record) { r.installTheirs(v, "192.168.77.7") }},
		{name: "interrupted, then given to somebody else with the same address", kill: true, stays: true, over: func(r *rack, v capi.Record) { r.installTheirs(v, v.Address) }},
	}
}

// moments are when a mishap happens: before the run, when a step begins, while the disk
// is being written, and when a step is done.
var moments = []string{"before", "identity", "release", "wipe", "wipe+100ms", "wipe+1s", "wipe+3s", "wiped", "return", "forget"}

func dashed(s string) string { return strings.NewReplacer(":", "-", ".", "-").Replace(s) }

// theirs is a deployment that somebody else makes.
func theirs(mac, address string) []byte {
	data, err := json.Marshal(wire.Deployment{MAC: mac, BootConfigName: "preseed", Config: wire.HostConfig{Address: address, Hostname: "theirs", Username: "ubuntu"}})
	if err != nil {
		panic(err)
	}
	return data
}

// installTheirs has somebody else install the machine as theirs.
func (r *rack) installTheirs(v capi.Record, address string) {
	r.t.Helper()
	// The deployment may be there, or not.
	r.raw(http.MethodPost, "/deployment", theirs(v.MAC, address))
	r.raw(http.MethodPost, "/deployment", theirs(v.MAC, address))
	r.raw(http.MethodPatch, "/deployment/"+dashed(v.MAC), theirs(v.MAC, address))
	if h := r.sim.Host(v.MAC); h != nil && r.box(v.MAC).Phase == "up" { // it would boot from its disk
		h.Run(context.Background(), host.Command{Task: "theirs", Line: "dd if=/dev/zero of=/dev/sda bs=1M count=1 conv=fsync", User: "root"})
	}
	r.sim.Reset(v.MAC)
	time.Sleep(10 * time.Minute)
	if box := r.box(v.MAC); box.HostName != "theirs" && r.record(v.Name).Name != "" {
		r.t.Errorf("the test is wrong: it is not theirs: %+v", box)
	}
}

// raw is a request of somebody who is not capplunder; what becomes of it is their matter.
func (r *rack) raw(method, path string, body []byte) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, "http://plunder.test"+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if resp, err := r.sim.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
	}
}

// TestWayBack has each mishap happen at each moment of the way back, to the last machine
// of a server and to one before it, on both versions of the server; then it is over, and a second run
// finishes or says why not. What must never be is checked by safe.
func TestWayBack(t *testing.T) {
	every, n := 7*sample, 0
	if os.Getenv(wholeEnv) != "" {
		every = 1
	}
	for _, version := range simulator.Versions() {
		for _, last := range []bool{true, false} {
			for _, when := range moments {
				for _, m := range mishaps() {
					if n++; n%every != 0 {
						continue
					}
					t.Run(fmt.Sprintf("%s/last=%v/%s/%s", version, last, when, m.name), func(t *testing.T) {
						t.Parallel()
						cfg := simulator.Config{Version: version, Machines: 3, OSInstall: 2 * time.Minute}
						bubble(t, cfg, func(ctx context.Context, r *rack) { wayBack(ctx, r, m, when, last) })
					})
				}
			}
		}
	}
}

func wayBack(ctx context.Context, r *rack, m mishap, when string, last bool) {
	r.t.Helper()
	if _, err := r.apply(ctx, team("w", 1, 2), skipKubernetes); err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.events = nil
	r.mu.Unlock()
	victim, other := r.twoMachines(ctx, last)
	otherBox := r.box(other.MAC)
	began := time.Now()
	first, kill := context.WithCancel(ctx)
	defer kill()
	_, err := r.giveBack(first, victim, when, func() {
		if m.kill {
			kill()
			return
		}
		m.do(r, victim)
	})
	if took := time.Since(began); took > deleteLimit+4*time.Minute {
		r.t.Errorf("it took %s", took)
	}
	r.safe(victim, err)
	r.t.Logf("first run: %v", err)
	r.heal()
	if m.over != nil {
		m.over(r, victim)
	}
	if err != nil {
		_, err = r.giveBack(ctx, victim, "never", nil)
		r.safe(victim, err)
		r.t.Logf("second run: %v", err)
		var safety *apply.SafetyError
		var conflict *wire.ConflictError
		switch {
		case err == nil:
		case !errors.As(err, &safety) && !errors.As(err, &conflict):
			r.t.Errorf("the second run neither finished nor refused: %v", err)
		case !m.stays && r.record(victim.Name).Reason != "Dirty":
			r.t.Errorf("the second run refused: %v", err)
		}
	}
	if !strings.Contains(m.name, "given to somebody else") {
		r.notInstalledAgain(victim)
	}
	if now := r.box(other.MAC); now.Installs != otherBox.Installs || now.Wiped || now.Boots != otherBox.Boots {
		r.t.Errorf("the other machine was touched: %+v, then %+v", otherBox, now)
	}
}

// twoMachines are the machine whose deployment is the server's last one (or not), and
// another one.
func (r *rack) twoMachines(ctx context.Context, last bool) (victim, other capi.Record) {
	r.t.Helper()
	all, err := r.client.Deployments(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(all.Deployments, func(d wire.Deployment) bool { return strings.EqualFold(d.MAC, r.record("w1").MAC) })
	j := slices.IndexFunc(all.Deployments, func(d wire.Deployment) bool { return strings.EqualFold(d.MAC, r.record("w2").MAC) })
	if (i > j) == last {
		return r.record("w1"), r.record("w2")
	}
	return r.record("w2"), r.record("w1")
}

// giveBack deletes a machine, and has something happen on the way.
func (r *rack) giveBack(ctx context.Context, victim capi.Record, when string, happen func()) (apply.Result, error) {
	var once sync.Once
	var later sync.WaitGroup
	if when == "before" {
		happen()
	}
	step, after, _ := strings.Cut(when, "+")
	engine := r.engineWith(func(e event.Event) {
		begun := e.Type == event.Started && string(e.Step) == step
		proved := when == "wiped" && e.Type == event.Done && e.Step == event.StepWipe
		if !begun && !proved {
			return
		}
		once.Do(func() {
			d, err := time.ParseDuration(after)
			if err != nil { // at once
				happen()
				return
			}
			later.Go(func() {
				time.Sleep(d)
				happen()
			})
		})
	})
	defer later.Wait()
	return engine.Delete(ctx, apply.Targets{Machines: []capi.Key{victim.Key}}, apply.DeleteOptions{RunID: "run", By: "ann@desk"}, yes)
}

// safe checks what must be true after every run, whatever went wrong in it.
func (r *rack) safe(victim capi.Record, err error) {
	r.t.Helper()
	rec := r.record(victim.Name)
	if (errors.Is(err, wire.ErrUnreachable) || errors.Is(err, context.Canceled)) && rec.Ready {
		return // before anything was begun
	}
	if !errors.Is(err, context.Canceled) {
		r.explained(err)
	}
	root := slices.IndexFunc(victim.Disks, func(d capi.Disk) bool { return d.Has("root") })
	for _, w := range r.sim.World().Wipes() {
		task, _, _ := strings.Cut(w.Task, "#")
		if task == "wipe.erase" && (w.MAC != victim.MAC || w.HostName != victim.HostName || w.Serial != victim.Disks[root].Serial) {
			r.t.Errorf("%s wrote %d bytes to %s (%s) of %s (%s), which is not what was to be wiped", w.Program, w.Bytes, w.Device, w.Serial, w.HostName, w.MAC)
		}
	}
	box := r.box(victim.MAC)
	if err == nil && rec.Name != "" {
		r.t.Errorf("no error, and the record is there: %+v", rec)
	}
	if rec.Name == "" {
		if box.HostName == victim.HostName && !box.Wiped {
			r.t.Errorf("the record is gone, and the disk was not wiped: %+v", box)
		}
		return
	}
	var refused *apply.SafetyError
	if errors.As(err, &refused) && rec.Ready && rec.Phase != capi.PhaseDeleting && !box.Wiped {
		return // refused before anything was begun
	}
	if !rec.Claimed() || rec.MAC != victim.MAC || rec.Ready {
		r.t.Errorf("recorded as free or ready: %+v", rec)
	}
	if err == nil || rec.WipedAt.IsZero() && box.Wiped && !rec.Dirty {
		r.t.Errorf("nothing is left on the disk, and the record does not know: %+v\n%v", rec, err)
	}
	if rec.Dirty && (rec.Phase != capi.PhaseDeleting || rec.Reason != "Dirty" || rec.Message == "") {
		r.t.Errorf("dirty, and not said so: %+v", rec)
	}
}

// notInstalledAgain checks that the machine has booted an installer once, whatever
// happened to it.
func (r *rack) notInstalledAgain(victim capi.Record) {
	r.t.Helper()
	n := 0
	for _, b := range r.sim.BootLog(victim.MAC) {
		if b.Told == simulator.ToldInstaller {
			n += b.Times
		}
	}
	if n != 1 {
		r.t.Errorf("it booted an installer %d times: %+v", n, r.sim.BootLog(victim.MAC))
	}
}

// What was looked at a moment ago may be another disk when the wipe begins: the host
// itself refuses, and the machine is as it was.
func TestDiskSwappedBeforeTheWipe(t *testing.T) {
	bubble(t, simulator.Config{Machines: 3, OSInstall: 2 * time.Minute}, func(ctx context.Context, r *rack) {
		if _, err := r.apply(ctx, team("w", 1, 2), skipKubernetes); err != nil {
			t.Fatal(err)
		}
		victim := r.record("w1")
		_, err := r.giveBack(ctx, victim, "wipe", func() { r.sim.SwapDisk(victim.MAC, "sda") })
		var safety *apply.SafetyError
		if !errors.As(err, &safety) || !strings.Contains(err.Error(), "it is another disk") {
			t.Errorf("%v", err)
		}
		r.safe(victim, err)
		if rec := r.record("w1"); rec.Dirty || rec.Wipe.RunID != "" || r.box(victim.MAC).Wiped {
			t.Errorf("%+v", rec)
		}
	})
}
