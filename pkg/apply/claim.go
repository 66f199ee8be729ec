package apply

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// findHardware gives hardware to the whole batch, as far as there is any, and
// waits for more until the hardware time-out. A machine is started as soon as its
// claim is recorded; those that get none end with ErrNoHardware.
func (r *run) findHardware(ctx context.Context, batch []*machine, start func(*machine)) {
	for _, m := range batch {
		m.begin(event.StepHardware)
	}
	waiting := batch
	noted := map[capi.Key]time.Time{}
	spec := r.spec("find free hardware", func(string) {})
	spec.Limit, spec.LimitName = r.opts.HardwareTimeout, "--hardware-timeout"
	// Claims wait for a store that does not answer, as long as for hardware.
	spec.ProbeTimeout = r.opts.HardwareTimeout
	err := wait.Until(ctx, spec, func(ctx context.Context) (string, error) {
		hw, err := r.hardware(ctx)
		if err != nil {
			for _, m := range waiting {
				m.observe(err.Error())
			}
			return "", retryable(err)
		}
		got, why := assign(requests(waiting), hw)
		recorded := r.recordAll(ctx, waiting, got)
		var rest []*machine
		for _, m := range waiting {
			a, ok := got[m.key]
			err := recorded[m.key]
			switch {
			case ok && err == nil:
				m.done(a.reason)
				start(m)
			case ok && (errors.Is(err, capi.ErrMACTaken) || errors.Is(err, capi.ErrUnavailable)):
				// Another run was quicker, which the next look knows, or nobody can say.
				why[m.key] = err.Error()
				m.observe(why[m.key])
				rest = append(rest, m)
			case err != nil:
				m.finish(ctx, m.fail(err))
			default:
				m.homeless(ctx, why[m.key], noted)
				rest = append(rest, m)
			}
		}
		if waiting = rest; len(waiting) > 0 && len(got) == 0 && len(hw.deployments.Deployments) == 0 {
			if err := r.server.EnsurePlaceholder(ctx); err != nil {
				return "", retryable(err)
			}
		}
		if len(waiting) > 0 {
			return machineCount(len(waiting)) + " without hardware; " + why[waiting[0].key], wait.Pending(ErrNoHardware)
		}
		return "", nil
	})
	for _, m := range waiting {
		m.finish(ctx, &MachineError{Key: m.key, Step: event.StepHardware, Err: err, Next: "capplunder get unleased"})
	}
}

const (
	// claimsInFlight bounds the claims that are recorded at once.
	claimsInFlight = 16
	// recordsInFlight bounds the records that are read one by one at once.
	recordsInFlight = 8
	// noteEvery is how often a machine that waits for hardware gets an event about it.
	// The waits of a thousand machines would keep a store busy otherwise.
	noteEvery = time.Minute
)

// recordAll records what was assigned, and of a machine that gets nothing that it waits,
// unless that is on record. It says how that went for each machine.
func (r *run) recordAll(ctx context.Context, waiting []*machine, got map[capi.Key]assignment) map[capi.Key]error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	recorded := map[capi.Key]error{}
	for _, m := range waiting {
		a, ok := got[m.key]
		if !ok && (!m.rec.UpdatedAt.IsZero() || ctx.Err() != nil) {
			continue
		}
		wg.Go(func() {
			err := r.claiming.do(ctx, func() error {
				if ok {
					return m.claim(ctx, a.mac)
				}
				return m.save(ctx, func(*capi.Record) {})
			})
			mu.Lock()
			defer mu.Unlock()
			recorded[m.key] = err
		})
	}
	wg.Wait()
	return recorded
}

func requests(machines []*machine) []request {
	reqs := make([]request, len(machines))
	for i, m := range machines {
		reqs[i] = request{key: m.key, macs: m.plan.MACs, pinnedBy: m.plan.PinnedBy}
	}
	return reqs
}

// hardware reads what the server and the store say about hardware.
func (r *run) hardware(ctx context.Context) (hardware, error) {
	leases, now, err := r.server.Unleased(ctx)
	if err != nil {
		return hardware{}, err
	}
	deployments, err := r.server.Deployments(ctx)
	if err != nil {
		return hardware{}, err
	}
	claimed, err := r.store.Claims(ctx)
	if err != nil {
		return hardware{}, err
	}
	return hardware{leases: leases, now: now, deployments: deployments, claimed: claimed, maxAge: r.opts.MaxAge}, nil
}

// homeless says that there is no hardware for the machine (yet). noted is when an event
// of each machine said so last.
func (m *machine) homeless(ctx context.Context, why string, noted map[capi.Key]time.Time) {
	last, told := noted[m.key]
	if !told {
		m.run.emit(m.event(event.Event{Type: event.NoHardware, Step: event.StepHardware, Message: "No Hardware found: " + why}))
	} else {
		m.observe("no hardware found: " + why)
	}
	// After Ctrl-C a thousand notes would take seconds.
	if now := time.Now(); ctx.Err() == nil && now.Sub(last) >= noteEvery {
		noted[m.key] = now
		m.note(ctx, capi.EventWarning, capi.ReasonNoHardware, "Plunder has no available hardware to provision")
	}
}

// claim records MAC, address and host name before anything is posted, so that no
// interruption can give them away a second time.
func (m *machine) claim(ctx context.Context, mac string) error {
	return m.commit(ctx, func(rec *capi.Record) {
		rec.MAC = mac
		rec.Address = m.plan.Deployment.Config.Address
		if rec.HostName == "" {
			rec.HostName = translate.HostName(m.key.Name, m.run.random(5))
		}
		rec.Server = m.run.server.URL()
		rec.ClaimedAt = time.Now().UTC()
		rec.Phase, rec.Reason, rec.Message = capi.PhaseProvisioning, "", ""
	})
}

// unclaim gives hardware back that nothing of ours is on.
func (m *machine) unclaim(ctx context.Context) error {
	return m.commit(ctx, func(rec *capi.Record) {
		rec.MAC, rec.Address, rec.Server, rec.ClaimedAt, rec.Step = "", "", "", time.Time{}, ""
	})
}
