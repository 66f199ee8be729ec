package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
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

// resetDelay is at least a second: the wipe script counts in seconds.
func (r *run) resetDelay() time.Duration {
	return max(resetDelay*r.opts.Interval, time.Second).Round(time.Second)
}

// wipe destroys what is on the chosen disks. From before the job is posted until it is
// proved the machine is on record as Dirty.
func (m *machine) wipe(ctx context.Context) error {
	m.begin(event.StepWipe)
	order := m.order(m.chosen, cmp.Or(m.del.Mode, capi.WipeQuick))
	ctx, cancel := m.wipeLimit(ctx, order)
	defer cancel()
	var jobID string
	j := m.wipeJob(order, &jobID)
	written := m.rec.Dirty // or may be: by an earlier run, or by a job that was lost
	j.lost = func() { written = true }
	j.posting = func(id string) error {
		return m.commit(ctx, func(rec *capi.Record) {
			now := time.Now().UTC()
			rec.JobStep, rec.JobID, rec.JobAt, rec.Dirty = string(event.StepWipe), id, now, true
			rec.Wipe = capi.Wipe{Mode: order.Mode, RunID: m.del.RunID, By: m.del.By, StartedAt: now}
			for _, d := range order.Disks {
				rec.Wipe.Disks = append(rec.Wipe.Disks, capi.WipedDisk{Disk: d.Identity()})
			}
		})
	}
	var l wire.Log
	err := m.run.slots.do(ctx, func() (err error) {
		l, err = m.run.runJob(ctx, j)
		return err
	})
	disks, done, proof := translate.ReadWipe(l, jobID, order)
	if done && proof == nil {
		return m.wiped(ctx, disks) // whatever became of the job after its proof
	}
	switch {
	case done && !written && translate.WipeRefused(l, jobID):
		err = &SafetyError{proof.Error()}
	case done:
		err = proof // which says more than that an action failed
	case err == nil:
		err = errors.New("the wipe was not proved")
	}
	if translate.Rebooted(l, jobID) {
		err = fmt.Errorf("%w: %w", errRebooted, err)
	}
	if ctx.Err() == nil {
		// It ended, badly: the next run must post a new one, not read this one again.
		err = errors.Join(err, m.save(ctx, func(rec *capi.Record) {
			rec.JobStep, rec.JobID, rec.JobAt = "", "", time.Time{}
			if !written && translate.WipeRefused(l, jobID) {
				rec.Dirty, rec.Wipe = false, capi.Wipe{} // nothing was written
			}
		}))
	}
	return m.fail(err)
}

func (m *machine) order(disks []capi.Disk, mode capi.WipeMode) translate.WipeOrder {
	return translate.WipeOrder{Disks: disks, Mode: mode, Delay: m.run.resetDelay()}
}

// wipeLimit is --wipe-timeout, and longer where every byte is written.
func (m *machine) wipeLimit(ctx context.Context, o translate.WipeOrder) (context.Context, context.CancelFunc) {
	return wait.WithLimit(ctx, m.run.opts.WipeTimeout+o.Limit()-translate.WipeOrder{}.Limit(), "--wipe-timeout")
}

// wipeJob is the job of an order; posted is told its ID.
func (m *machine) wipeJob(o translate.WipeOrder, posted *string) job {
	t := translate.Target{
		Address: m.rec.Address, HostName: m.rec.HostName, Root: m.rec.Root,
		Guard: translate.Guard{MAC: m.rec.MAC, BootID: m.rec.BootID},
	}
	return job{
		step: event.StepWipe, address: m.rec.Address, observe: m.observe, restore: m.ensureDeployment,
		build: func(id string) (wire.Map, error) {
			*posted = id
			return translate.Wipe(id, t, o)
		},
	}
}

// adoptWipe looks whether a wipe that an earlier run posted has ended well. If that
// cannot be seen any more, the machine is looked at from the start.
func (m *machine) adoptWipe(ctx context.Context) error {
	m.begin(event.StepWipe)
	var disks []capi.Disk
	for _, d := range m.rec.Wipe.Disks {
		disks = append(disks, d.Disk)
	}
	order := m.order(disks, m.rec.Wipe.Mode)
	ctx, cancel := m.wipeLimit(ctx, order)
	defer cancel()
	id := m.rec.JobID
	var ignored string
	l, err := m.run.followJob(ctx, m.wipeJob(order, &ignored), id)
	if ctx.Err() != nil {
		return m.fail(err)
	}
	if proved, done, err := translate.ReadWipe(l, id, order); done && err == nil {
		return m.wiped(ctx, proved)
	}
	err = m.save(ctx, func(rec *capi.Record) { rec.JobStep, rec.JobID, rec.JobAt = "", "", time.Time{} })
	if err != nil {
		return m.fail(err)
	}
	return nil
}

// wiped records the proof.
func (m *machine) wiped(ctx context.Context, disks []capi.WipedDisk) error {
	now := time.Now().UTC()
	for i := range disks {
		disks[i].Disk = disks[i].Identity()
	}
	err := m.save(ctx, func(rec *capi.Record) {
		rec.Step, rec.WipedAt, rec.Dirty = string(event.StepWipe), now, false
		rec.Wipe.Disks, rec.Wipe.ProvedAt = disks, now
		rec.JobStep, rec.JobID, rec.JobAt = "", "", time.Time{}
	})
	if err != nil {
		return m.fail(err)
	}
	names := make([]string, len(disks))
	for i, d := range disks {
		names[i] = d.Name()
	}
	said := fmt.Sprintf("wiped (%s) and read back: %s", m.rec.Wipe.Mode, strings.Join(names, ", "))
	m.note(ctx, capi.EventNormal, capi.ReasonDelete, "Disks "+said)
	m.done(said)
	return nil
}
