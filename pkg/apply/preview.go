package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// lookLimit is how long the hosts are asked what is on their disks before somebody
// decides. One that does not answer at once is not waited for.
const lookLimit = 45 * time.Second

// Preview is what a deletion would do, with the disks as the hosts have them now.
type Preview struct {
	Machines []Doomed   // sorted by key
	Clusters []capi.Key // whose objects go, too
}

// Fate is what would become of a machine.
type Fate string

// Fates.
const (
	FateWipe   Fate = "wipe"
	FateReturn Fate = "return"  // it is wiped already; its way back goes on
	FateForget Fate = "forget"  // it never had hardware
	FateGiveUp Fate = "give-up" // its record goes, its disks keep their data
	FateRefuse Fate = "refuse"
)

// Doomed is one machine of a Preview.
type Doomed struct {
	Record capi.Record
	Fate   Fate
	// Reason is why it is refused, or why its host could not be looked at.
	Reason string
	// Looked is true if the host has answered; HostName and Disks are what it said. Disks
	// are all it has.
	Looked   bool
	HostName string
	Disks    []DoomedDisk
	Steps    []event.Step
}

// DoomedDisk is a disk and what becomes of it.
type DoomedDisk struct {
	capi.Disk
	Wiped bool
	Why   string // why not
}

// Preview says what Delete would do, and does nothing: it looks at the hosts over SSH.
func (e *Engine) Preview(ctx context.Context, t Targets, opts DeleteOptions) (Preview, error) {
	ctx, cancel := e.limited(ctx)
	defer cancel()
	b, err := e.targets(ctx, t)
	if err != nil {
		return Preview{}, err
	}
	return e.preview(ctx, b, opts)
}

func (e *Engine) preview(ctx context.Context, b batch, opts DeleteOptions) (Preview, error) {
	cfg, err := e.server.ServerConfig(ctx)
	if err != nil {
		return Preview{}, err
	}
	mute := *e
	mute.emit = func(event.Event) {}
	r, end := mute.newRun(ctx)
	defer end()
	r.prober.once = true
	for _, rec := range b.records {
		m := r.victim(rec, opts)
		m.knowType(cfg)
		r.machines = append(r.machines, m)
	}
	if err := r.part(ctx, b.clusters); err != nil {
		return Preview{}, err
	}
	p := Preview{Clusters: b.clusters, Machines: make([]Doomed, len(r.machines))}
	var looks []int
	for i, m := range r.machines {
		p.Machines[i] = m.fate()
		if p.Machines[i].Fate == FateWipe && m.installed() && m.rec.JobStep != string(event.StepWipe) {
			looks = append(looks, i)
		}
	}
	if len(looks) == 0 {
		return p, nil
	}
	e.emit(event.Event{Type: event.Info, Message: fmt.Sprintf("looking at the disks of %s", machineCount(len(looks)))})
	lookCtx, cancel := wait.WithLimit(ctx, lookLimit, "")
	defer cancel()
	var wg sync.WaitGroup
	for _, i := range looks {
		wg.Go(func() { r.machines[i].lookAt(lookCtx, &p.Machines[i]) })
	}
	wg.Wait()
	return p, context.Cause(ctx)
}

// fate says what would become of the machine, as far as its record tells.
func (m *machine) fate() Doomed {
	d := Doomed{Record: m.rec, Fate: FateWipe, Steps: m.removal()}
	switch err := m.refused(); {
	case err != nil:
		d.Fate, d.Reason, d.Steps = FateRefuse, err.Error(), nil
	case !m.rec.Claimed():
		d.Fate = FateForget
	case m.del.ForceRemove:
		d.Fate = FateGiveUp
	case !m.rec.WipedAt.IsZero(), m.reached(event.StepReturn):
		d.Fate = FateReturn
	case m.rec.JobStep == string(event.StepWipe):
		d.Reason = "it is being wiped"
	case !m.installed():
		d.Reason = "no system was seen on it"
	}
	return d
}

// lookAt asks the host, and fills in what it says.
func (m *machine) lookAt(ctx context.Context, d *Doomed) {
	facts, err := m.run.prober.await(ctx, m)
	var safety *SafetyError
	switch {
	case errors.As(err, &safety):
		d.Fate, d.Reason, d.Steps = FateRefuse, err.Error(), nil
		return
	case err != nil:
		d.Reason = "not seen: " + err.Error()
		return
	}
	d.Looked, d.HostName = true, facts.Host
	chosen, err := translate.ChooseDisks(m.del.Disk, facts.Disks, m.rec.Disks)
	if err != nil {
		d.Fate, d.Reason, d.Steps = FateRefuse, err.Error(), nil
	}
	for _, disk := range facts.Disks {
		dd := DoomedDisk{Disk: disk, Wiped: slices.ContainsFunc(chosen, func(c capi.Disk) bool { return c.Device == disk.Device })}
		if !dd.Wiped {
			dd.Why = translate.Spared(disk)
		}
		d.Disks = append(d.Disks, dd)
	}
}
