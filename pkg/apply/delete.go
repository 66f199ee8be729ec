package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// resetDelay is the time, in intervals, between the proof of a wipe and the reset
// (10s by default), so that the SSH session ends cleanly and the log says that the
// wipe worked.
const resetDelay = 5

// NoRecordError says which machines that were to be deleted are not in the store.
type NoRecordError struct {
	Keys  []capi.Key
	Store string
}

// Error implements error.
func (e *NoRecordError) Error() string {
	names := make([]string, len(e.Keys))
	for i, k := range e.Keys {
		names[i] = k.String()
	}
	return fmt.Sprintf("the %s has no Machine %s", e.Store, strings.Join(names, ", "))
}

// DeleteOptions change what Delete does.
type DeleteOptions struct {
	// ForceRemove drops machines without looking at their hosts and without a wipe: for
	// hosts that will never answer again. What is on their disks stays there.
	ForceRemove bool
}

// Delete wipes machines and gives them back to the pool. Targets come from the
// records only. confirm is asked before anything is sent or written, with all
// records; its error ends the run. A machine whose wipe is not proved keeps its
// record. It is safe to run again after any interruption.
func (e *Engine) Delete(ctx context.Context, keys []capi.Key, opts DeleteOptions, confirm func([]capi.Record) error) (Result, error) {
	ctx, cancel := e.limited(ctx)
	defer cancel()
	records, err := e.victims(ctx, keys)
	if err != nil {
		return Result{}, err
	}
	if err := confirm(records); err != nil {
		return Result{}, err
	}
	var clusters []capi.Key
	for _, rec := range records {
		if c := (capi.Key{Namespace: rec.Namespace, Name: rec.Cluster}); !slices.Contains(clusters, c) {
			clusters = append(clusters, c)
		}
	}
	return e.locked(ctx, "delete", clusters, func(ctx context.Context, r *run) (Result, error) {
		// Again: somebody may have worked on them before the lock was ours.
		now, err := e.victims(ctx, keys)
		if err != nil {
			return Result{}, err
		}
		for i, rec := range now {
			if rec.MAC != records[i].MAC {
				return Result{}, &SafetyError{fmt.Sprintf("Machine %s: its hardware changed from %q to %q while you were asked; nothing was done", rec.Key, records[i].MAC, rec.MAC)}
			}
		}
		return r.delete(ctx, now, opts)
	})
}

// victims reads the records of machines that are to be deleted.
func (e *Engine) victims(ctx context.Context, keys []capi.Key) ([]capi.Record, error) {
	found := make([]struct {
		rec capi.Record
		ok  bool
		err error
	}, len(keys))
	var wg sync.WaitGroup
	few := make(limiter, recordsInFlight)
	for i, k := range keys {
		wg.Go(func() {
			f := &found[i]
			f.err = few.do(ctx, func() (err error) {
				f.rec, f.ok, err = e.store.Record(ctx, k)
				return err
			})
		})
	}
	wg.Wait()
	var records []capi.Record
	missing := &NoRecordError{Store: e.store.String()}
	for i, f := range found {
		switch {
		case f.err != nil:
			return nil, f.err
		case !f.ok:
			missing.Keys = append(missing.Keys, keys[i])
		default:
			records = append(records, f.rec)
		}
	}
	if len(missing.Keys) > 0 {
		return nil, missing
	}
	return records, nil
}

func (r *run) delete(ctx context.Context, records []capi.Record, opts DeleteOptions) (Result, error) {
	if _, err := r.server.ServerConfig(ctx); err != nil {
		return Result{}, err
	}
	for _, rec := range records {
		m := r.victim(rec)
		m.forced = opts.ForceRemove
		r.machines = append(r.machines, m)
	}
	r.announce()
	var wg sync.WaitGroup
	for _, m := range r.machines {
		wg.Go(func() { m.finish(ctx, m.remove(ctx)) })
	}
	wg.Wait()
	return r.summary()
}

// victim is a machine that is to be removed.
func (r *run) victim(rec capi.Record) *machine {
	return &machine{run: r, key: rec.Key, rec: rec, deleting: true, step: event.StepIdentity, stepped: time.Now()}
}

// removal is the steps of a machine that is removed.
func (m *machine) removal() []event.Step {
	if m.forced {
		return []event.Step{event.StepRelease, event.StepForget}
	}
	return []event.Step{event.StepIdentity, event.StepRelease, event.StepWipe, event.StepReturn, event.StepForget}
}

// remove takes one machine back. The order matters: identity first, then the
// deployment is pointed at the reboot loop so that no reset can install the
// machine again, only then the wipe, and the record goes last.
func (m *machine) remove(ctx context.Context) error {
	if !m.rec.Claimed() {
		if err := m.condemn(ctx); err != nil {
			return err
		}
		return m.forget(ctx, "it never had hardware")
	}
	if m.rec.Server != m.run.server.URL() {
		return m.fail(&SafetyError{fmt.Sprintf("it was claimed on %s, this run talks to %s", m.rec.Server, m.run.server.URL())})
	}
	if err := m.condemn(ctx); err != nil {
		return err
	}
	m.note(ctx, capi.EventNormal, capi.ReasonDelete, "Plunder has begun removing the machine")
	if m.forced {
		return m.drop(ctx)
	}

	wipeCtx, cancel := wait.WithLimit(ctx, m.run.opts.WipeTimeout, "--wipe-timeout")
	defer cancel()
	if m.rec.WipedAt.IsZero() && m.rec.JobStep == string(event.StepWipe) {
		if err := m.adoptWipe(wipeCtx); err != nil {
			return err
		}
	}
	if m.rec.WipedAt.IsZero() && !m.reached(event.StepReturn) {
		blank, err := m.identify(wipeCtx)
		if err == nil && !blank {
			err = m.wipe(wipeCtx)
		}
		if err != nil {
			return err
		}
	}
	said := "wiped"
	if m.rec.WipedAt.IsZero() {
		said = "it was blank"
	}
	if !m.reached(event.StepReturn) {
		if err := m.awaitReturn(ctx); err != nil {
			return err
		}
	}
	if err := m.forget(ctx, said); err != nil {
		return err
	}
	m.note(ctx, capi.EventNormal, capi.ReasonDelete, fmt.Sprintf("Machine %s is back in the pool (%s)", m.rec.MAC, said))
	return nil
}

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

// adoptWipe looks whether a wipe that an earlier run posted has ended well. If
// that cannot be seen any more, the machine is looked at from the start.
func (m *machine) adoptWipe(ctx context.Context) error {
	m.begin(event.StepWipe)
	id, disks := m.rec.JobID, rootDisks(m.rec.Disks)
	guard := translate.Guard{MAC: m.rec.MAC, BootID: m.rec.BootID}
	j := job{
		step: event.StepWipe, address: m.rec.Address, observe: m.observe, restore: m.ensureDeployment,
		build: func(id string) (wire.Map, error) {
			return translate.Wipe(id, translate.Target{Address: m.rec.Address, HostName: m.rec.HostName, Guard: guard}, translate.WipeOrder{Disks: disks, Delay: m.run.resetDelay()})
		},
	}
	l, err := m.run.followJob(ctx, j, id)
	if ctx.Err() != nil {
		return m.fail(err)
	}
	if _, done, rerr := translate.ReadWipe(l, id, translate.WipeOrder{Disks: disks}); err == nil && rerr == nil && done {
		return m.wiped(ctx)
	}
	err = m.save(ctx, func(rec *capi.Record) { rec.JobStep, rec.JobID, rec.JobAt = "", "", time.Time{} })
	if err != nil {
		return m.fail(err)
	}
	return nil
}

// identify proves that the host at the address is the machine, and releases the
// machine: before the proof when it never had a system of ours (nothing must be
// installed while we look), after it otherwise. blank means that the machine is in
// the reboot loop and has no system to wipe.
func (m *machine) identify(ctx context.Context) (blank bool, err error) {
	if !m.installed() {
		if err := m.release(ctx); err != nil {
			return false, err
		}
	}
	released := m.reached(event.StepRelease) // by now, or by an earlier run
	m.begin(event.StepIdentity)
	if released {
		blank, err = m.hostOrLoop(ctx)
	} else {
		m.facts, err = m.run.prober.await(ctx, m)
	}
	if err == nil && blank && m.installed() {
		err = &SafetyError{"the machine was reset and is in the reboot loop, but that its disk was wiped is not proved; the record is kept"}
	}
	if err != nil {
		return false, m.fail(err)
	}
	if blank {
		m.done("the machine is in the reboot loop, nothing was installed on it")
		return true, nil
	}
	if err := sameDisks(m.rec.Disks, m.facts.Disks); err != nil {
		return false, m.fail(err)
	}
	if m.rec.BootID != m.facts.BootID || !slices.Equal(m.rec.Disks, m.facts.Disks) {
		err = m.save(ctx, func(rec *capi.Record) { rec.BootID, rec.Disks = m.facts.BootID, m.facts.Disks })
		if err != nil {
			return false, m.fail(err)
		}
	}
	m.done(fmt.Sprintf("host %s at %s has MAC %s", m.facts.Host, m.rec.Address, m.rec.MAC))
	return false, m.release(ctx)
}

// hostOrLoop waits until either the host answers or the machine is seen in the
// reboot loop, whichever comes first.
func (m *machine) hostOrLoop(ctx context.Context) (blank bool, err error) {
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	loop := make(chan error, 1)
	still := *m // the prober's half works with the machine itself
	go func() {
		var s sighting
		loop <- wait.Until(either, still.spec("see the machine in the pool"), func(ctx context.Context) (string, error) {
			return still.seenAgain(ctx, &s)
		})
		cancel()
	}()
	facts, err := m.run.prober.await(either, m)
	cancel()
	loopErr := <-loop
	switch {
	case err == nil:
		m.facts = facts
		return false, nil
	case loopErr == nil:
		return true, nil
	case errors.Is(err, context.Canceled) && ctx.Err() == nil:
		return false, loopErr // it was the other one that failed
	}
	return false, err
}

// sighting is how the list of unleased machines had a machine at the first look.
type sighting struct {
	looked bool
	at     time.Time // zero: not listed
}

// seenAgain looks whether the machine booted in the pool since the first look. An
// old entry keeps its time for ever, so only one that changes counts; no two clocks
// are compared.
func (m *machine) seenAgain(ctx context.Context, first *sighting) (string, error) {
	leases, now, err := m.run.server.Unleased(ctx)
	if err != nil {
		return "", retryable(err)
	}
	var at time.Time
	for _, l := range leases {
		if strings.EqualFold(l.MAC, m.rec.MAC) && l.Time.After(at) {
			at = l.Time
		}
	}
	switch {
	case !first.looked:
		*first = sighting{looked: true, at: at}
	case !at.IsZero() && !at.Equal(first.at):
		return "", nil
	}
	if at.IsZero() {
		return m.rec.MAC + " is not in the unleased list", wait.Pending(nil)
	}
	return fmt.Sprintf("last seen booting %s ago", now.Sub(at).Round(time.Second)), wait.Pending(nil)
}

// sameDisks refuses when the disk that holds the system is not the one that was
// recorded when the system was installed.
func sameDisks(recorded, seen []capi.Disk) error {
	roots := rootDisks(seen)
	if len(roots) == 0 {
		return &SafetyError{"the host does not say which disk holds its root file system; nothing was wiped"}
	}
	if len(recorded) == 0 {
		return nil
	}
	for _, d := range roots {
		if !slices.ContainsFunc(rootDisks(recorded), func(r capi.Disk) bool { return r.ID == d.ID && r.Bytes == d.Bytes }) {
			return &SafetyError{fmt.Sprintf("disk %s (%s, %d bytes) is not the one the system was installed on; nothing was wiped", d.Device, d.ID, d.Bytes)}
		}
	}
	return nil
}

func rootDisks(disks []capi.Disk) []capi.Disk {
	var roots []capi.Disk
	for _, d := range disks {
		if slices.Contains(strings.Split(d.Flags, ","), "root") {
			roots = append(roots, d)
		}
	}
	return roots
}

func (m *machine) release(ctx context.Context) error {
	m.begin(event.StepRelease)
	err := wait.Until(ctx, m.spec("point the machine at the reboot loop"), func(ctx context.Context) (string, error) {
		return "", retryable(m.run.server.ReleaseDeployment(ctx, m.rec.MAC, m.rec.Address, m.rec.HostName))
	})
	if err == nil {
		err = m.save(ctx, func(rec *capi.Record) { rec.Step = string(event.StepRelease) })
	}
	if err != nil {
		return m.fail(err)
	}
	m.done("boots into the reboot loop from now on")
	return nil
}

func (m *machine) wipe(ctx context.Context) error {
	m.begin(event.StepWipe)
	disks := rootDisks(m.rec.Disks)
	var jobID string
	l, err := m.job(ctx, event.StepWipe, translate.Guard{MAC: m.rec.MAC, BootID: m.rec.BootID}, func(id string, t translate.Target) (wire.Map, error) {
		jobID = id
		return translate.Wipe(id, t, translate.WipeOrder{Disks: disks, Delay: m.run.resetDelay()})
	})
	if err == nil {
		var done bool
		if _, done, err = translate.ReadWipe(l, jobID, translate.WipeOrder{Disks: disks}); err == nil && !done {
			err = errors.New("the wipe was not proved")
		}
	}
	if err != nil {
		return m.fail(err)
	}
	return m.wiped(ctx)
}

func (m *machine) wiped(ctx context.Context) error {
	err := m.save(ctx, func(rec *capi.Record) {
		rec.Step, rec.WipedAt = string(event.StepWipe), time.Now().UTC()
		rec.JobStep, rec.JobID, rec.JobAt = "", "", time.Time{}
	})
	if err != nil {
		return m.fail(err)
	}
	names := make([]string, 0, 1)
	for _, d := range rootDisks(m.rec.Disks) {
		names = append(names, fmt.Sprintf("%s (%s)", d.Device, d.ID))
	}
	m.done("wiped and read back: " + strings.Join(names, ", "))
	return nil
}

// awaitReturn waits until the machine is seen in the pool after the wipe. Meanwhile
// it keeps the deployment in the reboot loop, which a server that restarts forgets.
func (m *machine) awaitReturn(ctx context.Context) error {
	m.begin(event.StepReturn)
	var s sighting
	err := wait.Until(ctx, m.limited("wait for the machine to come back to the pool"), func(ctx context.Context) (string, error) {
		own, err := m.inLoop(ctx)
		if err != nil {
			return "", retryable(err)
		}
		if !own {
			return "", nil // it is back, and somebody was quick
		}
		return m.seenAgain(ctx, &s)
	})
	if err == nil {
		err = m.save(ctx, func(rec *capi.Record) { rec.Step = string(event.StepReturn) })
	}
	if err != nil {
		return m.fail(err)
	}
	m.done("seen in the pool")
	return nil
}

// inLoop makes sure that the machine's deployment is the one of the reboot loop. own
// is false when the machine has another one by now that this record knows nothing
// of: whoever sees a machine in the pool may take it.
func (m *machine) inLoop(ctx context.Context) (own bool, err error) {
	all, err := m.run.server.Deployments(ctx)
	if err != nil {
		return false, err
	}
	d, ok := all.ByMAC(m.rec.MAC)
	switch {
	case ok && d.BootConfigName == wire.RebootConfigName:
		return true, nil
	case ok && d.Config.Hostname != m.rec.HostName:
		return false, nil
	}
	return true, m.run.server.ReleaseDeployment(ctx, m.rec.MAC, m.rec.Address, m.rec.HostName)
}

// forget removes the deployment, the cluster's memory of the machine, and the record.
func (m *machine) forget(ctx context.Context, said string) error {
	m.begin(event.StepForget)
	if m.rec.Claimed() {
		err := wait.Until(ctx, m.limited("remove the deployment"), func(ctx context.Context) (string, error) {
			all, err := m.run.server.Deployments(ctx)
			if d, ok := all.ByMAC(m.rec.MAC); err == nil && (!ok || d.Config.Hostname == m.rec.HostName) {
				err = m.run.server.RemoveDeployment(ctx, m.rec.MAC)
			}
			return "", retryable(err)
		})
		if err != nil {
			return m.fail(err)
		}
	}
	sentCtx, cancelSent := wait.WithLimit(ctx, m.run.opts.ReturnTimeout, "--return-timeout")
	defer cancelSent()
	if err := m.run.out.sent(sentCtx, m.letter(), m.observe); err != nil { // or it would come after the end
		return m.fail(&RecordError{Key: m.key, Err: err})
	}
	saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
	defer cancel()
	err := wait.Until(saveCtx, m.spec("remove the record"), func(ctx context.Context) (string, error) {
		err := m.forgetControlPlane(ctx)
		if err == nil {
			err = m.run.store.DeleteRecord(ctx, m.key)
		}
		return "", retryable(err)
	})
	if err != nil {
		return m.fail(&RecordError{Key: m.key, Err: err})
	}
	m.message = said
	m.done("deployment and record are gone")
	return nil
}

func (m *machine) limited(what string) wait.Spec {
	s := m.spec(what)
	s.Limit, s.LimitName = m.run.opts.ReturnTimeout, "--return-timeout"
	return s
}

// forgetControlPlane: a cluster whose first control plane is gone is not
// initialised any more.
func (m *machine) forgetControlPlane(ctx context.Context) error {
	key := capi.Key{Namespace: m.key.Namespace, Name: m.rec.Cluster}
	c, ok, err := m.run.store.ClusterRecord(ctx, key)
	if err != nil || !ok || c.InitMachine != m.key.Name {
		return err
	}
	c.InitMachine, c.Initialized, c.CAHash, c.Ready, c.Phase = "", false, "", false, capi.PhaseProvisioning
	return m.run.store.SaveClusterRecord(ctx, c)
}

// resetDelay is at least a second: the wipe script counts in seconds.
func (r *run) resetDelay() time.Duration {
	return max(resetDelay*r.opts.Interval, time.Second).Round(time.Second)
}
