package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// DeleteOptions change what Delete does. The zero value of each field means its default.
type DeleteOptions struct {
	// ForceRemove drops machines without looking at their hosts and without a wipe: for
	// hosts that will never answer again. What is on their disks stays there.
	ForceRemove bool
	// ForceQuorum removes control planes whatever that does to their cluster.
	ForceQuorum bool
	// SkipDrain takes nodes out of their cluster without waiting for their pods.
	SkipDrain bool
	// NoWait ends with the proof of the wipe, and does not wait for the machine's return.
	NoWait bool
	// DrainTimeout is how long the pods of a node may take to go (default 5m).
	DrainTimeout time.Duration
	// Disk is which disks are wiped: capi.DisksInstalled (default), capi.DisksAllInternal,
	// or a device beside those that hold the system.
	Disk string
	// Mode is how (default capi.WipeQuick).
	Mode capi.WipeMode
	// RunID names this run, By who runs it (user@host), for the receipt.
	RunID, By string
	// Wiped, if not nil, is told of each machine whose wipe is proved, before it is
	// forgotten. Its error keeps the record. A run that was killed tells again. It is
	// called from many goroutines.
	Wiped func(capi.Record) error
}

// Delete wipes machines and gives them back to the pool, and removes clusters. Targets
// come from the records only. confirm is asked before anything is changed, with what the
// hosts say now; its error ends the run. A machine whose wipe is not proved keeps its
// record. It is safe to run again after any interruption. The error is a *RunError when
// machines stay, and any other error when nothing was begun, joined with a
// *ClusterError for each cluster that stays for another reason.
func (e *Engine) Delete(ctx context.Context, t Targets, opts DeleteOptions, confirm func(Preview) error) (Result, error) {
	ctx, cancel := e.limited(ctx)
	defer cancel()
	shown, err := e.targets(ctx, t)
	if err != nil {
		return Result{}, err
	}
	preview, err := e.preview(ctx, shown, opts)
	if err != nil {
		return Result{}, err
	}
	if err := confirm(preview); err != nil {
		return Result{}, err
	}
	return e.locked(ctx, "delete", shown.affected(), func(ctx context.Context, r *run) (Result, error) {
		// Again: somebody may have worked on them before the lock was ours.
		now, err := e.targets(ctx, t)
		if err == nil {
			err = now.asShown(shown)
		}
		if err != nil {
			return Result{}, err
		}
		return r.delete(ctx, now, opts, preview)
	})
}

func (r *run) delete(ctx context.Context, b batch, opts DeleteOptions, shown Preview) (Result, error) {
	cfg, err := r.server.ServerConfig(ctx)
	if err != nil {
		return Result{}, err
	}
	for _, rec := range b.records {
		m := r.victim(rec, opts)
		m.knowType(cfg)
		for i, d := range shown.Machines {
			if d.Record.Key == rec.Key && (d.Looked || d.Fate == FateRefuse) {
				m.shown = &shown.Machines[i]
			}
		}
		r.machines = append(r.machines, m)
	}
	if err := r.part(ctx, b.clusters); err != nil {
		return Result{}, err
	}
	for _, m := range r.machines {
		if m.rec.ControlPlane && m.refused() != nil {
			m.part.kept = m.key
		}
	}
	if err := r.condemnClusters(ctx, b.clusters); err != nil {
		return Result{}, err
	}
	r.announce()
	var wg sync.WaitGroup
	for _, m := range r.machines {
		wg.Go(func() { m.finish(ctx, m.remove(ctx)) })
	}
	wg.Wait()
	clusters := r.deleteClusters(ctx, b.clusters)
	res, err := r.summary()
	return res, errors.Join(err, clusters)
}

// victim is a machine that is to be removed.
func (r *run) victim(rec capi.Record, opts DeleteOptions) *machine {
	opts.DrainTimeout = cmp.Or(opts.DrainTimeout, 5*time.Minute)
	return &machine{run: r, key: rec.Key, rec: rec, deleting: true, del: opts, parted: make(chan struct{}), step: event.StepIdentity, stepped: time.Now()}
}

// removal is the steps of a machine that is removed.
func (m *machine) removal() []event.Step {
	switch {
	case !m.rec.Claimed():
		return []event.Step{event.StepForget}
	case m.del.ForceRemove:
		return []event.Step{event.StepRelease, event.StepForget}
	}
	var steps []event.Step
	if m.rec.WipedAt.IsZero() && !m.reached(event.StepReturn) {
		steps = append(steps, event.StepIdentity)
		if m.leaves() {
			steps = append(steps, event.StepDrain)
		}
		steps = append(steps, event.StepRelease, event.StepWipe)
	}
	if !m.del.NoWait {
		steps = append(steps, event.StepReturn)
	}
	return append(steps, event.StepForget)
}

// refused says why nothing may be done about the machine, or nil.
func (m *machine) refused() error {
	switch {
	case m.rec.Protected:
		return &MachineError{
			Key: m.key, Step: event.StepIdentity, Err: &SafetyError{"it is protected; nothing was done"},
			Next: "capplunder unprotect machine " + m.key.Name + " -n " + m.key.Namespace,
		}
	case m.rec.Claimed() && m.rec.Server != m.run.server.URL():
		return m.fail(&SafetyError{fmt.Sprintf("it was claimed on %s, this run talks to %s", m.rec.Server, m.run.server.URL())})
	}
	if err := translate.RefuseWipe(m.configType, m.facts); err != nil && m.rec.Claimed() && !m.del.ForceRemove && m.rec.WipedAt.IsZero() {
		return &MachineError{
			Key: m.key, Step: event.StepIdentity, Err: &SafetyError{err.Error()},
			Next: fmt.Sprintf("capplunder delete machine %s -n %s --force-remove    # its disks keep their data", m.key.Name, m.key.Namespace),
		}
	}
	if err := m.lastPlane(); err != nil {
		return err
	}
	if m.shown != nil && m.shown.Fate == FateRefuse { // that is what was agreed to
		return m.fail(&SafetyError{m.shown.Reason})
	}
	return nil
}

// knowType finds out what kind of system the machine was installed with.
func (m *machine) knowType(cfg wire.ServerConfig) {
	if boot, ok := cfg.BootConfig(m.rec.DeploymentType); ok {
		m.configType = boot.Type()
	}
}

// remove takes one machine back. The order matters: identity first, then the machine
// leaves its cluster and the deployment is pointed at the reboot loop, so that no reset
// can install the machine again; only then the wipe, and the record goes last.
func (m *machine) remove(ctx context.Context) error {
	if err := m.refused(); err != nil {
		return err
	}
	if err := m.awaitWorkers(ctx); err != nil {
		return m.fail(err)
	}
	if err := m.condemn(ctx); err != nil {
		return err
	}
	if !m.rec.Claimed() {
		return m.forget(ctx, "it never had hardware")
	}
	m.note(ctx, capi.EventNormal, capi.ReasonDelete, "Plunder has begun removing the machine")
	if m.del.ForceRemove {
		return m.drop(ctx)
	}
	if m.rec.WipedAt.IsZero() && !m.reached(event.StepReturn) {
		if err := m.erase(ctx); err != nil {
			return err
		}
	}
	m.partOnce.Do(func() { close(m.parted) })
	said, back := "it was blank", "is back in the pool"
	if !m.rec.WipedAt.IsZero() {
		said = "wiped"
		if m.del.Wiped != nil {
			if err := m.del.Wiped(m.rec.Clone()); err != nil {
				return m.fail(err)
			}
		}
	}
	switch {
	case m.reached(event.StepReturn):
	case m.del.NoWait:
		said += "; its return to the pool was not waited for"
		back = "was given back"
	default:
		if err := m.awaitReturn(ctx); err != nil {
			return err
		}
	}
	if err := m.forget(ctx, said); err != nil {
		return err
	}
	m.note(ctx, capi.EventNormal, capi.ReasonDelete, fmt.Sprintf("Machine %s %s (%s)", m.rec.MAC, back, said))
	return nil
}

// erase takes the machine out of its cluster and wipes it.
func (m *machine) erase(ctx context.Context) error {
	if m.rec.JobStep == string(event.StepWipe) {
		if err := m.adoptWipe(ctx); err != nil || !m.rec.WipedAt.IsZero() {
			return err
		}
	}
	for again := false; ; again = true {
		blank, err := m.identify(ctx)
		if err != nil || blank {
			return err
		}
		if err := m.leave(ctx); err != nil {
			return err
		}
		if err := m.release(ctx); err != nil {
			return err
		}
		if err := m.wipe(ctx); again || !errors.Is(err, errRebooted) {
			return err
		}
		m.observe(errRebooted.Error() + "; looking at it again")
	}
}

// errRebooted: the host was reset between the look at it and the wipe. An installer may
// have been on its way then; what it leaves is looked at and wiped.
var errRebooted = errors.New("the host was reset since it was looked at")

// condemn makes the deletion known to everybody before anything is done for it.
func (m *machine) condemn(ctx context.Context) error {
	ctx, cancel := wait.WithLimit(ctx, m.run.opts.WipeTimeout, "--wipe-timeout")
	defer cancel()
	err := wait.Until(ctx, m.spec("begin the deletion"), func(ctx context.Context) (string, error) {
		done, seen, err := m.run.store.Condemn(ctx, m.key)
		switch {
		case err != nil:
			return "", retryable(err)
		case !done:
			return seen, wait.Pending(nil)
		}
		return "", nil
	})
	if err == nil && m.rec.Claimed() {
		err = m.commit(ctx, func(rec *capi.Record) {
			rec.Phase, rec.Ready, rec.Reason, rec.Message = capi.PhaseDeleting, false, "Deleting", ""
		})
	}
	if err != nil {
		return m.fail(err)
	}
	return nil
}

// drop gives a machine up whose host will not answer any more: its deployment goes,
// so that nothing is installed on whatever boots with its MAC, and its record.
func (m *machine) drop(ctx context.Context) error {
	err := m.release(ctx)
	var conflict *wire.ConflictError
	if errors.As(err, &conflict) && strings.EqualFold(conflict.Other.MAC, m.rec.MAC) {
		// An earlier run was interrupted after the hardware was free, and it has been
		// given to somebody else: there is nothing of ours to release.
		err = nil
	}
	if err != nil {
		return err
	}
	m.note(ctx, capi.EventWarning, capi.ReasonDelete, fmt.Sprintf("Machine %s was removed without a wipe: its disks keep their data", m.rec.MAC))
	return m.forget(ctx, "removed without a wipe: the disks of "+m.rec.MAC+" keep their data")
}
