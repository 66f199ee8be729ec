package apply_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// The limits of the engine, and how much longer than their sum a run may take: one
// call that nobody answers, and what it is tried again.
const (
	applyLimit  = 10*time.Minute + 45*time.Minute + 30*time.Minute + 2*time.Minute
	deleteLimit = 15*time.Minute + 15*time.Minute + 15*time.Minute + 2*time.Minute
)

// TestFaults has one thing go wrong, at every step at which something can, once or
// (those marked with a plus, too) for as long as the first run lasts; then it is over,
// and a second run must finish. Each on one version of the server or the other. What
// must never happen is checked by sane.
func TestFaults(t *testing.T) {
	const kinds = "die drop lose+ hang+ fail crash+"
	matrix(t, "apply", "post parlay log", kinds, "cp")
	matrix(t, "apply", "install", "hang fail+", "w001")
	matrix(t, "apply", "ssh", "refuse+ lose hang+ fail", "cp")
	matrix(t, "kubernetes", "parlay log", kinds, "w001")
	matrix(t, "kubernetes", "ssh", "refuse hang+ fail+", "w001")
	matrix(t, "kubernetes", "action:guard action:base action:init action:join action:join.credentials", "fail hang+ reset crash+", "*")
	matrix(t, "delete", "patch delete parlay log", kinds, "w001")
	matrix(t, "delete", "ssh", "refuse+ lose hang+ fail", "w001")
	matrix(t, "delete", "action:guard action:wipe.erase", "fail+ hang reset crash+", "w001")
}

func matrix(t *testing.T, what, steps, kinds, machine string) {
	t.Helper()
	n := 0
	for _, step := range strings.Fields(steps) {
		for _, kind := range strings.Fields(kinds) {
			kind, always := strings.CutSuffix(kind, "+")
			f := simulator.Fault{Machine: machine, Step: step, Kind: kind, Times: 1}
			if strings.HasPrefix(step, "action:") {
				f.After = 3 * time.Second // in the middle
			}
			faults := []simulator.Fault{f}
			if always {
				f.Times = 0
				faults = append(faults, f)
			}
			for _, f := range faults {
				if n++; n%sample != 0 {
					continue
				}
				version := simulator.Versions()[n%2]
				t.Run(what+"/"+version+"/"+f.String(), func(t *testing.T) {
					t.Parallel()
					bubble(t, simulator.Config{Version: version, Machines: 2}, func(ctx context.Context, r *rack) {
						if what == "delete" {
							faultyDelete(ctx, r, f)
						} else {
							faultyApply(ctx, r, f, what == "kubernetes")
						}
					})
				})
			}
		}
	}
}

func faultyApply(ctx context.Context, r *rack, f simulator.Fault, kubernetes bool) {
	r.t.Helper()
	var opts []func(*translate.Options)
	if !kubernetes {
		opts = append(opts, skipKubernetes)
	}
	r.inject(f)
	began := time.Now()
	_, err := r.apply(ctx, fleet(1), opts...)
	if took := time.Since(began); took > applyLimit {
		r.t.Errorf("it took %s", took)
	}
	r.sane(err)
	ready := r.ready()

	r.heal()
	if _, err := r.apply(ctx, fleet(1), opts...); err != nil {
		r.t.Errorf("the second run: %v", err)
	}
	r.sane(nil)
	r.untouched(ready)
}

func faultyDelete(ctx context.Context, r *rack, f simulator.Fault) {
	r.t.Helper()
	if _, err := r.apply(ctx, fleet(1), skipKubernetes); err != nil {
		r.t.Fatal(err)
	}
	w := r.record("w001")
	r.inject(f)
	began := time.Now()
	_, err := r.delete(ctx, "w001")
	if took := time.Since(began); took > deleteLimit {
		r.t.Errorf("it took %s", took)
	}
	r.sane(err)
	if left := r.record("w001"); err != nil && left.Name == "" {
		r.t.Errorf("the record is gone, and yet: %v", err)
	}

	r.heal()
	if err != nil {
		if _, err := r.delete(ctx, "w001"); err != nil {
			r.t.Errorf("the second run: %v", err)
		}
	}
	r.sane(nil)
	r.untouched(r.ready())
	if m := r.box(w.MAC); !m.Wiped || m.Installs != 1 {
		r.t.Errorf("%+v", m)
	}
	if d, err := r.client.Deployment(ctx, w.MAC); !errors.Is(err, wire.ErrNotFound) {
		r.t.Errorf("the deployment is still there: %v %v", d, err)
	}
}

func (r *rack) inject(f simulator.Fault) {
	r.t.Helper()
	if err := r.sim.Inject(f); err != nil {
		r.t.Fatal(err)
	}
}

// heal ends the faults, resets machines whose installer asks a question or that have
// no power, and gives what they left behind time to settle: a machine to boot, a server
// to come back.
func (r *rack) heal() {
	r.sim.Heal()
	for _, m := range r.sim.Machines() {
		if m.Phase == "stuck" || m.Phase == "dead" {
			r.sim.Reset(m.MAC)
		}
	}
	time.Sleep(2 * time.Minute)
}

// box is a machine of the rack by its MAC.
func (r *rack) box(mac string) simulator.MachineState {
	for _, m := range r.sim.Machines() {
		if m.MAC == mac {
			return m
		}
	}
	return simulator.MachineState{}
}

// ready are the machines that are recorded as ready, with what the rack says of each.
func (r *rack) ready() map[string]simulator.MachineState {
	r.t.Helper()
	records, err := r.store.Records(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	boxes := map[string]simulator.MachineState{}
	for _, rec := range records {
		if rec.Ready {
			boxes[rec.MAC] = r.box(rec.MAC)
		}
	}
	return boxes
}

// untouched checks that none of the machines was installed again.
func (r *rack) untouched(before map[string]simulator.MachineState) {
	r.t.Helper()
	for mac, old := range before {
		if now := r.box(mac); now.Installs != old.Installs || now.HostName != old.HostName || now.Address != old.Address || now.Wiped {
			r.t.Errorf("a ready machine was installed again: %+v, then %+v", old, now)
		}
	}
}

// sane checks what must be true after every run, whatever went wrong in it.
func (r *rack) sane(err error) {
	r.t.Helper()
	r.explained(err)
	records, storeErr := r.store.Records(context.Background())
	if storeErr != nil {
		r.t.Fatal(storeErr)
	}
	byMAC, byAddress := map[string]capi.Record{}, map[string]capi.Record{}
	for _, rec := range records {
		if !rec.Claimed() {
			continue
		}
		if other, ok := byMAC[rec.MAC]; ok {
			r.t.Errorf("%s is given to %s and to %s", rec.MAC, other.Key, rec.Key)
		}
		if other, ok := byAddress[rec.Address]; ok {
			r.t.Errorf("%s is given to %s and to %s", rec.Address, other.Key, rec.Key)
		}
		byMAC[rec.MAC], byAddress[rec.Address] = rec, rec
		if rec.Ready && (rec.ProviderID != capi.ProviderID(rec.MAC) || r.box(rec.MAC).HostName != rec.HostName) {
			r.t.Errorf("recorded as ready: %+v, but the machine is %+v", rec, r.box(rec.MAC))
		}
	}
	r.saneCalls()
	for _, m := range r.sim.Machines() {
		h := r.sim.Host(m.MAC)
		if h == nil {
			continue
		}
		for _, line := range h.History() {
			if name, ok := strings.CutPrefix(line, "hostnamectl set-hostname "); ok && !strings.HasPrefix(m.HostName, name) {
				r.t.Errorf("%s (%s) ran %q", m.MAC, m.HostName, line)
			}
			if strings.HasPrefix(m.HostName, "cp-") && (strings.HasPrefix(line, "kubeadm join") || strings.Contains(line, "if=/dev/zero")) {
				r.t.Errorf("%s (%s) ran %q", m.MAC, m.HostName, line)
			}
		}
	}
}

// saneCalls checks that no MAC was ever deployed as two machines, no address given
// to two MACs, and that every job but a probe begins with a guard.
func (r *rack) saneCalls() {
	r.t.Helper()
	macs, addresses := map[string]string{}, map[string]string{}
	for _, c := range r.sim.Calls() {
		switch {
		case c.Method == http.MethodPost && c.Path == "/deployment", c.Method == http.MethodPatch:
			var d wire.Deployment
			if err := json.Unmarshal(c.Body, &d); err != nil {
				r.t.Fatal(err)
			}
			if old, ok := macs[d.MAC]; ok && old != d.Config.Hostname {
				r.t.Errorf("%s was deployed as %s and as %s", d.MAC, old, d.Config.Hostname)
			}
			if old, ok := addresses[d.Config.Address]; ok && old != d.MAC {
				r.t.Errorf("%s was given to %s and to %s", d.Config.Address, old, d.MAC)
			}
			macs[d.MAC], addresses[d.Config.Address] = d.Config.Hostname, d.MAC
		case c.Function == "POST /parlay":
			var m wire.Map
			if err := json.Unmarshal(c.Body, &m); err != nil {
				r.t.Fatal(err)
			}
			first := m.Deployments[0].Actions[0]
			task, _, _ := strings.Cut(first.Name, "#")
			mac := ""
			for a, x := range addresses {
				if slices.Contains(m.Deployments[0].Hosts, a) {
					mac = x
				}
			}
			if task != "ports" && task != "probe" && (task != "guard" || !strings.Contains(first.Command, mac)) {
				r.t.Errorf("a job for %v (%s) begins with %s: %s", m.Deployments[0].Hosts, mac, task, first.Command)
			}
		}
	}
}

// explained checks that an error says of which machine it is, in which step, why,
// and what to type next; and which limit ran out, if one did.
func (r *rack) explained(err error) {
	r.t.Helper()
	if err == nil {
		return
	}
	var run *apply.RunError
	if !errors.As(err, &run) {
		r.t.Errorf("not an error of machines: %v", err)
		return
	}
	for _, m := range run.Machines {
		var te *wait.TimeoutError
		text, _, _ := strings.Cut(m.Error(), "; its output ends") // that is kubeadm's
		switch {
		case m.Key.Name == "" || m.Step == "" || m.Err == nil || m.Next == "":
			r.t.Errorf("half an error: %#v", m)
		case strings.Contains(text, "context deadline exceeded") || strings.Contains(text, "context canceled"):
			r.t.Errorf("a machine's words: %s", text)
		case errors.As(m.Err, &te) && (te.LimitName == "" || te.Last == ""):
			r.t.Errorf("timed out, but which limit, and what was seen? %s", text)
		}
	}
}
