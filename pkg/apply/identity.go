package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// identify proves that the host at the address is the machine, with the disks that are
// to be wiped. A machine that never had a system of ours is released first: nothing must
// be installed while we look. blank means that it is in the reboot loop and has no
// system to wipe.
func (m *machine) identify(ctx context.Context) (blank bool, err error) {
	ctx, cancel := wait.WithLimit(ctx, m.run.opts.WipeTimeout, "--wipe-timeout")
	defer cancel()
	if !m.installed() {
		if err := m.release(ctx); err != nil {
			return false, err
		}
	}
	m.begin(event.StepIdentity)
	if m.reached(event.StepRelease) || m.rec.Dirty { // by now, or by an earlier run
		blank, err = m.hostOrLoop(ctx)
	} else {
		m.facts, err = m.run.prober.await(ctx, m)
	}
	if err == nil && blank && m.installed() {
		return false, m.lostInLoop(ctx)
	}
	if err != nil {
		return false, m.fail(err)
	}
	if blank {
		m.done("the machine is in the reboot loop, nothing was installed on it")
		return true, nil
	}
	if err := m.refused(); err != nil { // by what the host says, too
		return false, err
	}
	if err := m.choose(); err != nil {
		return false, m.fail(err)
	}
	if m.rec.BootID != m.facts.BootID || len(m.rec.Disks) == 0 {
		err = m.save(ctx, func(rec *capi.Record) {
			rec.BootID, rec.Root = m.facts.BootID, m.facts.UID == 0
			if len(rec.Disks) == 0 {
				rec.Disks = identities(m.facts.Disks)
			}
		})
		if err != nil {
			return false, m.fail(err)
		}
	}
	m.done(fmt.Sprintf("host %s at %s has MAC %s and the recorded disks", m.facts.Host, m.rec.Address, m.rec.MAC))
	return false, nil
}

// identities are disks as they are recorded.
func identities(disks []capi.Disk) []capi.Disk {
	out := make([]capi.Disk, len(disks))
	for i, d := range disks {
		out[i] = d.Identity()
	}
	return out
}

// choose decides which disks are wiped, and refuses what is not as it was recorded or as
// it was shown to whoever agreed.
func (m *machine) choose() error {
	chosen, err := translate.ChooseDisks(m.del.Disk, m.facts.Disks, m.rec.Disks)
	if err != nil {
		return &SafetyError{err.Error() + "; nothing was wiped"}
	}
	if m.shown != nil {
		for _, d := range chosen {
			if !slices.ContainsFunc(m.shown.Disks, func(s DoomedDisk) bool { return s.Wiped && s.Same(d) }) {
				return &SafetyError{fmt.Sprintf("disk %s (%d bytes) is not among those that were shown before you agreed; nothing was wiped", d.Name(), d.Bytes)}
			}
		}
	}
	m.chosen = chosen
	return nil
}

// lostInLoop is the end of a machine that had a system and was reset before its disk was
// proved to be wiped. In the reboot loop nobody can look at it.
func (m *machine) lostInLoop(ctx context.Context) error {
	if err := m.commit(ctx, func(rec *capi.Record) { rec.Dirty = true }); err != nil {
		return m.fail(err)
	}
	return &MachineError{
		Key: m.key, Step: m.step,
		Err:  &SafetyError{"the machine was reset and is in the reboot loop, but that its disk was wiped is not proved; the record is kept, as Dirty"},
		Next: fmt.Sprintf("capplunder delete machine %s -n %s --force-remove    # gives it up: its disks may keep their data", m.key.Name, m.key.Namespace),
	}
}

// hostOrLoop waits until either the host answers or the machine is seen in the
// reboot loop, whichever comes first.
func (m *machine) hostOrLoop(ctx context.Context) (blank bool, err error) {
	either, cancel := context.WithCancel(ctx)
	defer cancel()
	loop := make(chan error, 1)
	still := m.copy() // the prober's half works with the machine itself
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
