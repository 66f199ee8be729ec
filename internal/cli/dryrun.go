package cli

import (
	"context"
	"strings"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// plannedMachine is one machine of `apply --dry-run`; the fields are documented
// in docs/commands/apply.md.
type plannedMachine struct {
	Machine    string       `json:"machine"` // namespace/name
	Action     string       `json:"action"`
	Role       string       `json:"role"`
	Cluster    string       `json:"cluster"`
	Address    string       `json:"address"`
	BootConfig string       `json:"bootConfig"`
	MACs       []string     `json:"macs,omitempty"` // the only ones it may have
	PinnedBy   string       `json:"pinnedBy,omitempty"`
	MAC        string       `json:"mac,omitempty"` // the one it was given by an earlier run
	HostName   string       `json:"hostName,omitempty"`
	Kubernetes string       `json:"kubernetes,omitempty"` // X.Y.Z
	Steps      []event.Step `json:"steps,omitempty"`
}

// What a run would do with a machine.
const (
	actionCreate    = "create"
	actionContinue  = "continue"
	actionUnchanged = "unchanged"
	actionPaused    = "paused"
	actionDeleting  = "refuse (being deleted)"
)

// printPlan prints what a run would do. It reads the store and nothing else.
func (f *factory) printPlan(ctx context.Context, out output, plan *translate.Plan, store apply.Store) error {
	records, err := store.Records(ctx)
	if err != nil {
		return err
	}
	known := map[capi.Key]capi.Record{}
	for _, r := range records {
		known[r.Key] = r
	}
	l := list{kind: "PlannedMachineList", columns: []ui.Column{
		{Name: "MACHINE"}, {Name: "ACTION"}, {Name: "ROLE"}, {Name: "ADDRESS"}, {Name: "BOOT CONFIG"}, {Name: "HARDWARE"}, {Name: "KUBERNETES"},
		{Name: "CLUSTER", Wide: true}, {Name: "STEPS", Wide: true},
	}}
	for _, mp := range plan.Machines {
		p := planned(mp, known[mp.Machine.Key])
		steps := make([]string, len(p.Steps))
		for i, s := range p.Steps {
			steps[i] = string(s)
		}
		l.items = append(l.items, item{
			name:   "machine/" + mp.Machine.Name,
			object: p,
			cells:  []string{p.Machine, p.Action, p.Role, p.Address, p.BootConfig, p.hardware(), p.Kubernetes, p.Cluster, strings.Join(steps, " ")},
		})
	}
	if err := f.show(out, l, false); err != nil {
		return err
	}
	f.noticef("dry run: no request was sent, nothing was written")
	return nil
}

func planned(mp *translate.MachinePlan, rec capi.Record) plannedMachine {
	m := mp.Machine
	p := plannedMachine{
		Machine:    m.Key.String(),
		Role:       m.Role(),
		Cluster:    m.ClusterName,
		Address:    mp.Deployment.Config.Address,
		BootConfig: mp.Deployment.BootConfigName,
		MACs:       mp.MACs,
		PinnedBy:   mp.PinnedBy,
		MAC:        rec.MAC,
		HostName:   rec.HostName,
		Steps:      mp.Steps,
	}
	if mp.Kubernetes != nil {
		p.Kubernetes = mp.Kubernetes.Version
	}
	switch {
	case m.Paused:
		p.Action = actionPaused
	case rec.Phase == capi.PhaseDeleting:
		p.Action = actionDeleting
	case rec.Ready && (mp.Kubernetes == nil || rec.Kubernetes != ""):
		p.Action = actionUnchanged
	case rec.Claimed():
		p.Action = actionContinue
	default:
		p.Action = actionCreate
	}
	if p.Action != actionCreate && p.Action != actionContinue {
		p.Steps = nil
	}
	return p
}

// hardware says which hardware the machine has or would get.
func (p plannedMachine) hardware() string {
	switch {
	case p.MAC != "":
		return p.MAC
	case len(p.MACs) > 0:
		return strings.Join(p.MACs, " or ") + " (" + p.PinnedBy + ")"
	}
	return "any free machine"
}
