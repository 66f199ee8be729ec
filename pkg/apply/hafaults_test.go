package apply_test

import (
	"bytes"
	"context"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// haFaultCases is how many faults of the matrix are tried: each costs three
// installations of five machines.
const haFaultCases = 24

// haFaults is everything that can go wrong on the way to a cluster: [MACHINE/]STEP and
// the kinds, with a plus for those that also last for a whole run.
var haFaults = []string{
	"cp1/parlay die drop lose+ hang fail+ crash+",
	"cp2/parlay drop lose crash+",
	"w1/parlay drop lose crash+",
	"cp1/log die drop lose+ hang fail+ crash",
	"cp2/log die crash+",
	"*/ssh refuse lose hang fail",
	"cp1/action:kube.images fail+ hang die reset crash",
	"cp1/action:init fail+ hang+ die reset crash",
	"cp1/action:work fail+ hang die reset crash+",
	"cp1/action:admin fail+ hang die reset crash",
	"cp2/action:join fail+ hang+ die reset crash",
	"w1/action:join fail+ hang die reset crash",
	"cp1/phase:init@certs fail die",
	"cp1/phase:init@kubelet-start fail reset",
	"cp1/phase:init@wait-control-plane fail+ hang die reset crash",
	"cp1/phase:init@upload-config fail+ die reset",
	"cp1/phase:init@upload-certs fail hang die reset",
	"cp1/phase:init@mark-control-plane fail die crash",
	"cp1/phase:init@bootstrap-token fail die reset",
	"cp1/phase:init@addon fail die reset",
	"cp2/phase:join@preflight fail die reset",
	"cp2/phase:join@control-plane-prepare/certs fail reset",
	"cp2/phase:join@check-etcd fail+ reset",
	"cp2/phase:join@kubelet-start fail+ hang die reset",
	"cp2/phase:join@control-plane-join/etcd fail+ hang die reset crash",
	"cp2/phase:join@control-plane-join/mark-control-plane fail die reset",
	"cp2/phase:join@wait-control-plane fail die reset",
	"w1/phase:join@preflight fail die reset",
	"w1/phase:join@kubelet-start fail+ hang die reset crash",
	"cp1/api refuse lose fail hang",
	"cp2/endpoint refuse+ lose+ fail hang",
	"w1/endpoint refuse+ lose fail hang",
	"cp1/run:kubectl@delete fail+ die",
	"cp1/run:kubectl@apply fail+ hang die",
	"cp1/run:kubectl@get fail+ hang",
	"cp1/run:openssl fail+ die",
	"cp2/run:kubeadm@reset fail",
	"w1/run:apt-get@install fail+ hang die reset",
	"cp2/run:systemctl fail",
	"cp1/lock hold",
}

func haFaultMatrix() (all []simulator.Fault) {
	for _, line := range haFaults {
		f := strings.Fields(line)
		machine, step, _ := strings.Cut(strings.ReplaceAll(f[0], "@", " "), "/")
		for _, kind := range f[1:] {
			kind, always := strings.CutSuffix(kind, "+")
			fault := simulator.Fault{Machine: machine, Step: step, Kind: kind, Times: 1}
			if strings.HasPrefix(step, "action:") {
				fault.After = 3 * time.Second
			}
			if step == "lock" {
				fault.After = 15 * time.Minute
			}
			all = append(all, fault)
			if always {
				fault.Times = 0
				all = append(all, fault)
			}
		}
	}
	return all
}

// One thing goes wrong while a cluster of three control planes and two workers is made.
// The run ends in time and says why; when it is over, the next run makes the cluster
// whole. What came up once is never initialised again.
func TestHighlyAvailableFaults(t *testing.T) {
	all := haFaultMatrix()
	rnd := rand.New(rand.NewSource(7))
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, f := range all[:min(len(all), haFaultCases/sample)] {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			bubble(t, simulator.Config{Machines: 6}, func(ctx context.Context, r *rack) { haFaulty(ctx, r, f) })
		})
	}
}

func haFaulty(ctx context.Context, r *rack, f simulator.Fault) {
	r.t.Helper()
	r.sim.World().KeepJournals()
	r.inject(f)
	began := time.Now()
	_, err := r.apply(ctx, ha("", 3, 2))
	if took := time.Since(began); took > applyLimit {
		r.t.Errorf("it took %s", took)
	}
	r.explained(err)
	if err != nil {
		r.t.Logf("the first run: %v", err)
	}
	ready, ca := r.ready(), r.answeringCA()
	if f.Kind == simulator.KindHang && strings.HasPrefix(f.Step, "run:") {
		r.restart(f.Machine) // the program would hang there for ever
	}
	r.heal()
	if ca == nil {
		ca = r.answeringCA()
	}
	res, err := r.apply(ctx, ha("", 3, 2))
	if err != nil {
		r.t.Errorf("the second run: %v", err)
	}
	r.untouched(ready)
	r.joined(res, 3, 2)
	if now := r.answeringCA(); ca != nil && !bytes.Equal(now, ca) {
		r.t.Error("a control plane that was up was initialised again")
	}
}

// restart presses the reset button of a machine.
func (r *rack) restart(name string) {
	r.t.Helper()
	if !r.sim.Reset(r.record(name).MAC) {
		r.t.Errorf("there is no machine of %s", name)
	}
}

// answeringCA is the CA of the cluster whose API server answers, nil if none does.
func (r *rack) answeringCA() (ca []byte) {
	r.sim.EachHost(func(_ string, h *host.Host) {
		if ca == nil && h.Cluster() != nil {
			h.Files(func(path string, data []byte) {
				if path == "/etc/kubernetes/pki/ca.crt" {
					ca = data
				}
			})
		}
	})
	return ca
}
