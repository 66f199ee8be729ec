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

// saveLimit is the deadline of a write to the store. Writes go on when the run is
// interrupted: what was done must be on record.
const saveLimit = 30 * time.Second

// reasonDirty on record: the wipe of the machine was begun, or may have been, and is not
// proved.
const reasonDirty = "Dirty"

// machine is one machine of a run. It belongs to one goroutine at a time.
type machine struct {
	run  *run
	plan *translate.MachinePlan
	key  capi.Key
	rec  capi.Record

	// configType is the type of its boot configuration: what kind of system to expect.
	configType string

	facts   translate.Facts
	node    translate.Node // once its cluster has shown it
	step    event.Step
	stepped time.Time // when step began

	// deleting: the deployment must never again be one that installs something.
	deleting bool
	del      DeleteOptions
	part     *parting    // what its cluster is left with
	nth      int         // of the workers that go
	shown    *Doomed     // what somebody agreed to, if the host had answered or the machine was refused
	chosen   []capi.Disk // to be wiped
	// parted is closed once a machine that is deleted is wiped, or is known to stay.
	parted   chan struct{}
	partOnce sync.Once
	stayed   bool // set before parted is closed

	outcome event.Type
	message string // why it was skipped
	err     error
}

// newMachine compares the plan of a machine with its record, which may be empty,
// and decides whether there is anything to do, or something that forbids it.
func (r *run) newMachine(mp *translate.MachinePlan, rec capi.Record) *machine {
	c := mp.Machine
	m := &machine{run: r, plan: mp, key: c.Key, rec: rec, step: event.StepHardware}
	if rec.Name == "" {
		m.rec = capi.Record{Key: c.Key, Phase: capi.PhasePending}
	}
	if !m.rec.Ready {
		m.rec.PlunderMachine = c.Infra.Key
		m.rec.Cluster = c.ClusterName
		m.rec.ControlPlane = c.ControlPlane
		m.rec.Version = c.Version
		m.rec.DeploymentType = mp.Deployment.BootConfigName
	}
	given := c.ProviderID
	if given == "" {
		given = c.Infra.Spec.ProviderID
	}
	switch {
	case c.Paused:
		m.skip("paused")
	case c.Deleting:
		m.skip("being deleted")
	case rec.Phase == capi.PhaseDeleting:
		m.refuse("capplunder delete machine "+c.Name, "it is being deleted; finish that first")
	case rec.Ready && (mp.Kubernetes == nil || rec.Kubernetes != ""):
		m.skip("already provisioned as " + rec.ProviderID)
		if mp.Kubernetes != nil && c.Version != "" && rec.Kubernetes != c.Version {
			m.message += fmt.Sprintf(" with Kubernetes %s, which stays: delete the machine to install %s", rec.Kubernetes, c.Version)
		}
	case rec.Claimed() && rec.Server != r.server.URL():
		m.refuse("", fmt.Sprintf("it was claimed on %s, this run talks to %s", rec.Server, r.server.URL()))
	case given != "" && given != rec.ProviderID && given != capi.ProviderID(rec.MAC):
		m.refuse("", fmt.Sprintf("the manifest says that it is provisioned as %s, but the %s does not know it; remove spec.providerID to install it anew", given, r.store))
	}
	return m
}

// copy is for others who look on while the machine goes on: it shares nothing that changes.
func (m *machine) copy() *machine {
	return &machine{run: m.run, plan: m.plan, key: m.key, rec: m.rec, step: m.step, stepped: m.stepped, deleting: m.deleting}
}

// skipped tells that nothing is done for the machine.
func (m *machine) skipped() {
	m.run.emit(event.Event{Type: event.Skipped, Machine: m.key.String(), MAC: m.rec.MAC, Address: m.rec.Address, ProviderID: m.rec.ProviderID, Message: m.message})
}

func (m *machine) skip(why string) { m.outcome, m.message = event.Skipped, why }

func (m *machine) refuse(next, why string) {
	m.err = &MachineError{Key: m.key, Step: event.StepHardware, Err: &SafetyError{why}, Next: next}
}

// provision takes a claimed machine to ready.
func (m *machine) provision(ctx context.Context) error {
	r := m.run
	began := time.Now()
	osCtx, cancel := wait.WithLimit(ctx, r.opts.OSTimeout, "--os-timeout")
	defer cancel()
	if err := m.deploy(osCtx); err != nil {
		return err
	}
	if err := m.awaitOS(osCtx, began); err != nil {
		return err
	}
	if m.plan.Kubernetes != nil {
		kubeCtx, cancel := wait.WithLimit(ctx, r.opts.KubernetesTimeout, "--kubernetes-timeout")
		defer cancel()
		if err := m.installKubernetes(kubeCtx); err != nil {
			return err
		}
	}
	return m.record(ctx)
}

// deploy makes sure that the server has the machine's deployment.
func (m *machine) deploy(ctx context.Context) error {
	m.begin(event.StepDeployment)
	err := wait.Until(ctx, m.spec("post the deployment"), func(ctx context.Context) (string, error) {
		return "", retryable(m.ensureDeployment(ctx))
	})
	if err != nil {
		return m.fail(m.yield(ctx, err))
	}
	if m.rec.Step != "" {
		m.done("deployment is there")
		return nil
	}
	m.note(ctx, capi.EventNormal, capi.ReasonProvision, "Plunder has begun provisioning the Operating System")
	if err := m.save(ctx, func(rec *capi.Record) { rec.Step = string(event.StepDeployment) }); err != nil {
		return m.fail(err)
	}
	m.done(fmt.Sprintf("%s boots %s as %s (%s)", m.rec.MAC, m.rec.DeploymentType, m.rec.HostName, m.rec.Address))
	return nil
}

// yield gives the hardware back after a conflict, if it is not the machine's own:
// nothing of it was ever posted, or somebody else has deployed the MAC since (the
// server forgot, and the machine was seen in the pool). What was once proved to run
// our system stays claimed.
func (m *machine) yield(ctx context.Context, err error) error {
	var conflict *wire.ConflictError
	if !errors.As(err, &conflict) || m.installed() || m.deleting {
		return err
	}
	if m.rec.Step != "" && !strings.EqualFold(conflict.Other.MAC, m.rec.MAC) {
		return err
	}
	return errors.Join(err, m.unclaim(ctx))
}

// ensureDeployment posts the deployment, or leaves one alone that already lets
// parlay reach an installed system: writing it again would install the system
// again at the next boot.
func (m *machine) ensureDeployment(ctx context.Context) error {
	if m.installed() || m.deleting {
		all, err := m.run.server.Deployments(ctx)
		if err != nil {
			return err
		}
		if d, ok := all.ByMAC(m.rec.MAC); ok && d.Config.Address == m.rec.Address {
			return nil
		}
	}
	if m.deleting {
		return m.run.server.ReleaseDeployment(ctx, m.rec.MAC, m.rec.Address, m.rec.HostName)
	}
	return m.run.server.EnsureDeployment(ctx, translate.Deployment(m.plan, m.rec.MAC, m.rec.HostName))
}

// installed reports whether the operating system was proved to be there once.
func (m *machine) installed() bool { return m.rec.BootID != "" }

// awaitOS waits for the shared probe to prove that the host at the address is the
// planned hardware, booted since the claim.
func (m *machine) awaitOS(ctx context.Context, began time.Time) error {
	m.begin(event.StepOS)
	first := !m.installed()
	facts, err := m.run.prober.await(ctx, m)
	if err != nil {
		return m.fail(m.yield(ctx, err))
	}
	m.facts = facts
	if k := m.plan.Kubernetes; k != nil {
		for _, w := range k.Warnings(m.configType, facts) {
			m.run.emit(m.event(event.Event{Type: event.Warning, Step: m.step, Message: w}))
		}
	}
	if !first && m.rec.BootID == facts.BootID {
		m.done("host answers, identity proved")
		return nil
	}
	err = m.save(ctx, func(rec *capi.Record) {
		rec.BootID, rec.Disks, rec.Root = facts.BootID, identities(facts.Disks), facts.UID == 0
		if first {
			rec.Step, rec.OSReadyAt = string(event.StepOS), time.Now().UTC()
		}
	})
	if err != nil {
		return m.fail(err)
	}
	if first {
		took := time.Since(m.rec.ClaimedAt)
		if m.rec.ClaimedAt.IsZero() {
			took = time.Since(began)
		}
		m.note(ctx, capi.EventNormal, capi.ReasonProvision, fmt.Sprintf("Host has been successfully provisioned OS in %s", took.Round(time.Second)))
	}
	m.done(fmt.Sprintf("%s %s on %s, MAC %s proved", facts.ID, facts.Version, facts.Host, m.rec.MAC))
	return nil
}

// record writes the result. If that fails the machine exists but nobody knows:
// the error says what to record.
func (m *machine) record(ctx context.Context) error {
	m.begin(event.StepRecord)
	providerID := capi.ProviderID(m.rec.MAC)
	err := m.save(ctx, func(rec *capi.Record) {
		rec.Step, rec.ProviderID, rec.Ready = string(event.StepRecord), providerID, true
		rec.Phase, rec.Reason, rec.Message = capi.PhaseProvisioned, "", ""
		if m.plan.Kubernetes != nil {
			// An image that brings its own Kubernetes has no version in the manifest.
			rec.Kubernetes = cmp.Or(m.plan.Machine.Version, m.node.Version, "unknown")
		}
		if m.node.UID != "" {
			rec.Phase, rec.NodeName, rec.NodeUID = capi.PhaseRunning, m.node.Name, m.node.UID
		}
		rec.JobStep, rec.JobID, rec.JobAt = "", "", time.Time{}
	})
	if err == nil {
		err = m.recorded(ctx)
	}
	if err != nil {
		var re *RecordError
		if errors.As(err, &re) {
			re.ProviderID = providerID
		}
		return m.fail(err)
	}
	return nil
}

// recorded waits until the machine's record is in the store.
func (m *machine) recorded(ctx context.Context) error {
	ctx, cancel := wait.WithLimit(ctx, m.run.opts.RecordTimeout, "--record-timeout")
	defer cancel()
	if err := m.run.out.sent(ctx, m.letter(), m.observe); err != nil {
		return &RecordError{Key: m.key, Err: err}
	}
	return nil
}

// letter is the name of the machine's record in the outbox.
func (m *machine) letter() string { return "Machine " + m.key.String() }

// finish turns the end of a machine's work into its outcome, record and event.
func (m *machine) finish(ctx context.Context, err error) {
	r := m.run
	m.outcome, m.err = outcome(err), err
	if m.deleting {
		m.partOnce.Do(func() {
			m.stayed = err != nil
			close(m.parted)
		})
	}
	elapsed := event.Seconds(time.Since(r.began))
	switch {
	case err == nil && m.deleting:
		m.outcome = event.Deleted
		r.emit(m.event(event.Event{Type: event.Deleted, Elapsed: elapsed, Message: m.message}))
		return
	case err == nil:
		m.note(ctx, capi.EventNormal, capi.ReasonInstall, "Machine is ready as "+m.rec.ProviderID)
		r.emit(m.event(event.Event{Type: event.Ready, Elapsed: elapsed, ProviderID: m.rec.ProviderID, Message: "ready as " + m.rec.ProviderID}))
		return
	}
	m.err = m.fail(err)
	if m.plan != nil && m.plan.Kubernetes != nil && !m.deleting {
		if c := m.cluster(); c != nil {
			c.lost(m, fmt.Errorf("control plane %w", m.err))
		}
	}
	var me *MachineError
	errors.As(m.err, &me)
	if me.Next == "" {
		me.Next = r.opts.Resume
	}
	var safety *SafetyError
	var recErr *RecordError
	// An interruption before anything was done for the machine leaves it as it was:
	// a thousand that wait for hardware must not keep Ctrl-C waiting.
	untouched := errors.Is(err, capi.ErrPaused) || errors.Is(err, capi.ErrProtected) || !m.rec.Claimed() && (errors.As(err, &safety) || m.outcome == event.Cancelled)
	if !errors.As(err, &recErr) && !untouched {
		m.recordFailure(ctx, me)
	}
	r.emit(m.event(event.Event{Type: m.outcome, Step: me.Step, Elapsed: elapsed, Message: me.Err.Error(), Next: me.Next}))
}

func (m *machine) recordFailure(ctx context.Context, me *MachineError) {
	var phase capi.Phase
	var reason string
	switch m.outcome { //nolint:exhaustive // the other outcomes are not failures
	case event.Failed:
		phase, reason = capi.PhaseFailed, "Failed"
	case event.TimedOut:
		phase, reason = capi.PhaseFailed, "TimedOut"
	case event.NoHardware:
		phase, reason = capi.PhasePending, capi.ReasonNoHardware
	case event.Cancelled:
		phase, reason = m.rec.Phase, "Interrupted"
	}
	if m.rec.Ready || m.rec.Phase == capi.PhaseDeleting {
		phase = m.rec.Phase // what was reached stays reached
	}
	if m.rec.Dirty {
		reason = reasonDirty
	}
	message := fmt.Sprintf("%s: %v", me.Step, me.Err)
	err := m.save(ctx, func(rec *capi.Record) { rec.Phase, rec.Reason, rec.Message = phase, reason, message })
	if err != nil {
		m.run.emit(m.event(event.Event{Type: event.Warning, Step: me.Step, Message: err.Error()}))
	}
	if m.outcome != event.Cancelled && m.outcome != event.NoHardware {
		m.note(ctx, capi.EventWarning, m.noteReason(me.Step), message)
	}
}

func (m *machine) noteReason(s event.Step) string {
	switch s { //nolint:exhaustive // the rest belongs to provisioning
	case event.StepPackages, event.StepInit, event.StepJoin, event.StepBootstrap, event.StepNode, event.StepRecord:
		return capi.ReasonInstall
	case event.StepIdentity, event.StepDrain, event.StepRelease, event.StepWipe, event.StepReturn, event.StepForget:
		return capi.ReasonDelete
	}
	return capi.ReasonProvision
}

// begin, done and fail mark the steps of a machine.
func (m *machine) begin(s event.Step) {
	m.step, m.stepped = s, time.Now()
	m.run.emit(m.event(event.Event{Type: event.Started, Step: s}))
}

func (m *machine) done(message string) {
	m.run.emit(m.event(event.Event{Type: event.Done, Step: m.step, Elapsed: event.Seconds(time.Since(m.stepped)), Message: message}))
}

func (m *machine) fail(err error) error {
	var me *MachineError
	if errors.As(err, &me) && me.Key == m.key { // not that of the control plane it waits for
		return err
	}
	me = &MachineError{Key: m.key, Step: m.step, Err: err}
	var conflict *wire.ConflictError
	if errors.As(err, &conflict) {
		me.Next = "capplunder get deployments"
	}
	return me
}

// observe says what a machine waits for.
func (m *machine) observe(observation string) {
	m.run.emit(m.event(event.Event{Type: event.Waiting, Step: m.step, Elapsed: event.Seconds(time.Since(m.stepped)), Observation: observation}))
}

func (m *machine) event(e event.Event) event.Event {
	e.Machine, e.MAC, e.Address, e.HostName = m.key.String(), m.rec.MAC, m.rec.Address, m.rec.HostName
	return e
}

func (m *machine) spec(what string) wait.Spec {
	s := m.run.spec(what, m.observe)
	s.Object = m.key.String()
	return s
}

// note adds an event to the store. One that cannot be stored is worth a warning,
// not the end of a machine.
func (m *machine) note(ctx context.Context, kind, reason, message string) {
	e := capi.Event{
		Type: kind, Reason: reason, Kind: "PlunderMachine", Object: m.rec.PlunderMachine, Message: message, LastTime: time.Now().UTC(),
	}
	letter := fmt.Sprintf("event %s %s %s %s", e.Object, kind, reason, message)
	err := m.run.out.put(ctx, letter, func(ctx context.Context) error { return m.run.store.AddEvent(ctx, e) })
	if err != nil {
		m.run.emit(m.event(event.Event{Type: event.Warning, Step: m.step, Message: "event not stored: " + err.Error()}))
	}
}

// save changes the record. It works on after an interruption. If the store does not
// answer, the record is stored when it does: what is saved here is found again, or
// safely done again, by a run that knows only the record before.
func (m *machine) save(ctx context.Context, change func(*capi.Record)) error {
	next := m.rec
	change(&next)
	next.UpdatedAt = time.Now().UTC()
	err := m.run.out.put(ctx, m.letter(), func(ctx context.Context) error { return m.run.store.SaveRecord(ctx, next) })
	if err != nil {
		return &RecordError{Key: m.key, Err: err}
	}
	m.rec = next
	return nil
}

// commit changes the record and returns when the store has it: for what nobody
// could find again, a claim before it is used and a deletion before it begins. It
// waits for a store that does not answer as long as ctx allows.
func (m *machine) commit(ctx context.Context, change func(*capi.Record)) error {
	before := m.rec
	err := m.save(ctx, change)
	if err == nil {
		if err = m.run.out.sent(ctx, m.letter(), m.observe); err != nil {
			err = &RecordError{Key: m.key, Err: err}
		}
	}
	if err != nil {
		m.rec = before
	}
	return err
}

// job is the machine's part of a parlay job: what is recorded before and after.
func (m *machine) job(ctx context.Context, step event.Step, guard translate.Guard, build func(id string, t translate.Target) (wire.Map, error)) (wire.Log, error) {
	t := translate.Target{Address: m.rec.Address, HostName: m.rec.HostName, Guard: guard, Root: m.facts.UID == 0}
	j := job{
		step:    step,
		address: m.rec.Address,
		build:   func(id string) (wire.Map, error) { return build(id, t) },
		posting: func(id string) error {
			return m.save(ctx, func(rec *capi.Record) {
				rec.JobStep, rec.JobID, rec.JobAt = string(step), id, time.Now().UTC()
			})
		},
		restore: m.ensureDeployment,
		observe: m.observe,
	}
	if m.rec.JobStep == string(step) {
		j.adopt = m.rec.JobID
	}
	l, err := m.run.runJob(ctx, j)
	if err != nil && ctx.Err() == nil && m.rec.JobID != "" {
		// It ended, badly: the next run must post a new one, not read this one again.
		err = errors.Join(err, m.save(ctx, func(rec *capi.Record) { rec.JobStep, rec.JobID, rec.JobAt = "", "", time.Time{} }))
	}
	return l, err
}

// jobDone records that a step's job ended well.
func (m *machine) jobDone(ctx context.Context, step event.Step) error {
	return m.save(ctx, func(rec *capi.Record) {
		rec.Step, rec.JobStep, rec.JobID, rec.JobAt = string(step), "", "", time.Time{}
	})
}
