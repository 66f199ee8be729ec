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
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// run is one Apply or Delete.
type run struct {
	*Engine
	server   Server // under the store's lock of it when deployments are written
	out      *outbox
	began    time.Time
	posts    limiter // POST /parlay in flight
	reads    limiter // other calls of jobs in flight
	claiming limiter // claims being recorded
	slots    limiter // machines worked on over SSH
	prober   *prober
	machines []*machine
	clusters map[capi.Key]*cluster
	records  map[capi.Key]capi.Record // as they were when the run began
	gone     []capi.Key               // clusters that were deleted

	// What serves all machines together runs in the background, under base, and has
	// ended when the run returns.
	base       context.Context //nolint:containedctx // the run's own, not a caller's
	background sync.WaitGroup

	mu    sync.Mutex
	hosts map[string]chan struct{} // address -> lock of its log
}

func (e *Engine) newRun(ctx context.Context) (r *run, end func()) {
	base, cancel := context.WithCancel(ctx)
	r = &run{
		base:     base,
		Engine:   e,
		server:   &lockedServer{Server: e.server, store: e.store, warn: e.emit, changed: make(chan struct{})},
		began:    time.Now(),
		posts:    make(limiter, postsInFlight),
		reads:    make(limiter, readsInFlight),
		claiming: make(limiter, claimsInFlight),
		slots:    make(limiter, e.opts.Concurrency),
		clusters: map[capi.Key]*cluster{},
		records:  map[capi.Key]capi.Record{},
		hosts:    map[string]chan struct{}{},
	}
	r.out = newOutbox(r)
	r.prober = &prober{run: r}
	return r, func() {
		r.out.close(ctx)
		cancel()
		r.background.Wait()
	}
}

// Apply makes the machines of a plan real, and finishes deletions that were begun
// in the store. It is safe to run again after any interruption: what is recorded as
// done is not done again, and a run that has nothing to do writes nothing. The
// error is a *RunError when machines are not ready, and any other error when
// nothing was begun.
func (e *Engine) Apply(ctx context.Context, set *capi.Set, plan *translate.Plan) (Result, error) {
	ctx, cancel := e.limited(ctx)
	defer cancel()
	cfg, err := e.server.ServerConfig(ctx)
	if err != nil {
		return Result{}, err
	}
	res, idle, err := e.survey(ctx, set, plan, cfg)
	if err != nil || idle {
		return res, err
	}
	keys := make([]capi.Key, len(set.Clusters))
	for i, c := range set.Clusters {
		keys[i] = c.Key
	}
	return e.locked(ctx, "apply", keys, func(ctx context.Context, r *run) (Result, error) { return r.apply(ctx, set, plan, cfg) })
}

// survey looks whether there is anything to do, without the lock and without
// writing anything. If there is nothing, res is the result.
func (e *Engine) survey(ctx context.Context, set *capi.Set, plan *translate.Plan, cfg wire.ServerConfig) (res Result, idle bool, err error) {
	r, end := e.newRun(ctx)
	defer end()
	inSync, err := r.look(ctx, set, plan, cfg)
	if err == nil && inSync {
		inSync, err = r.endpointsRecorded(ctx, set)
	}
	if err != nil || !inSync || slices.ContainsFunc(r.machines, func(m *machine) bool { return m.outcome != event.Skipped }) {
		return Result{}, false, err
	}
	r.announce()
	for _, m := range r.machines {
		m.skipped()
	}
	res, err = r.summary()
	return res, true, err
}

// endpointsRecorded reports whether the store knows the control plane endpoints that
// were given. Controllers that make a cluster's machines wait for it, so it is recorded
// when there is no machine yet, too. Where one was begun it is on record.
func (r *run) endpointsRecorded(ctx context.Context, set *capi.Set) (bool, error) {
	for _, c := range set.Clusters {
		begun := slices.ContainsFunc(r.machinesOf(c.Key), func(m *machine) bool { return m.rec.Claimed() })
		if c.Endpoint.IsZero() || begun || c.Paused || c.Deleting {
			continue
		}
		if rec, _, err := r.store.ClusterRecord(ctx, c.Key); err != nil || !rec.Ready {
			return false, err
		}
	}
	return true, nil
}

func (e *Engine) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if e.opts.Timeout > 0 {
		return wait.WithLimit(ctx, e.opts.Timeout, "--timeout")
	}
	return context.WithCancel(ctx)
}

// locked does one run, with the clusters locked in the store. A lock that is lost
// ends the run.
func (e *Engine) locked(ctx context.Context, command string, clusters []capi.Key, work func(context.Context, *run) (Result, error)) (Result, error) {
	told := ""
	held, unlock, err := e.store.Lock(ctx, capi.LockRequest{
		Command: command, Clusters: clusters, Patience: e.opts.LockTimeout,
		Observe: func(seen string) {
			if seen != told {
				e.emit(event.Event{Type: event.Info, Message: "waiting for the lock: " + seen})
			}
			told = seen
		},
	})
	if err != nil {
		return Result{}, err
	}
	r, end := e.newRun(held)
	res, err := work(held, r)
	end()
	if ctx.Err() == nil && held.Err() != nil {
		err = errors.Join(context.Cause(held), err)
	}
	return res, errors.Join(err, unlock())
}

func (r *run) apply(ctx context.Context, set *capi.Set, plan *translate.Plan, cfg wire.ServerConfig) (Result, error) {
	// Again: somebody may have worked on it before the lock was ours.
	if _, err := r.look(ctx, set, plan, cfg); err != nil {
		return Result{}, err
	}
	if err := r.prepare(ctx, set); err != nil {
		return Result{}, err
	}
	if err := r.part(ctx, nil); err != nil {
		return Result{}, err
	}
	r.announce()

	var wg sync.WaitGroup
	start := func(m *machine) {
		wg.Go(func() { m.finish(ctx, m.provision(ctx)) })
	}
	var homeless []*machine
	for _, m := range r.machines {
		switch {
		case m.outcome == event.Skipped:
			m.skipped()
		case m.err != nil:
			m.finish(ctx, m.err)
		case m.deleting:
			wg.Go(func() { m.finish(ctx, m.remove(ctx)) })
		case m.rec.Claimed():
			start(m)
		default:
			homeless = append(homeless, m)
		}
	}
	if len(homeless) > 0 {
		wg.Go(func() { r.findHardware(ctx, homeless, start) })
	}
	wg.Wait()
	return r.summary()
}

// look compares the plan with what the server and the store know, and changes
// nothing: the server must know every boot configuration, and what a record
// contradicts is not begun. inSync is false when the store has to be written to
// before anything else is.
func (r *run) look(ctx context.Context, set *capi.Set, plan *translate.Plan, cfg wire.ServerConfig) (inSync bool, err error) {
	inSync, err = r.store.Look(ctx, set)
	if err != nil {
		return false, err
	}
	var namespaces []string
	for _, c := range set.Clusters {
		namespaces = append(namespaces, c.Namespace)
	}
	for _, mp := range plan.Machines {
		namespaces = append(namespaces, mp.Machine.Namespace)
	}
	slices.Sort(namespaces)
	records, err := r.store.Records(ctx, slices.Compact(namespaces)...)
	if err != nil {
		return false, err
	}
	for _, rec := range records {
		r.records[rec.Key] = rec
	}
	var unknown []error
	var unfit capi.InputError
	for _, mp := range plan.Machines {
		m := r.newMachine(mp, r.records[mp.Machine.Key])
		r.machines = append(r.machines, m)
		if m.outcome == event.Skipped || m.err != nil {
			continue
		}
		boot, ok := cfg.BootConfig(mp.Deployment.BootConfigName)
		if !ok {
			unknown = append(unknown, &MachineError{
				Key: m.key, Step: event.StepDeployment, Next: "capplunder get bootconfigs",
				Err: unknownBootConfig(mp.Deployment.BootConfigName, cfg),
			})
			continue
		}
		m.configType = boot.Type()
		if err := translate.RefuseConfigType(m.configType, mp.Kubernetes); err != nil {
			infra := mp.Machine.Infra
			unfit.Problems = append(unfit.Problems, capi.Problem{Origin: infra.Origin, Object: "PlunderMachine " + infra.Key.String(), Field: "spec.deploymentType", Message: err.Error()})
		}
	}
	if len(unfit.Problems) > 0 {
		unknown = append(unknown, &unfit)
	}
	if len(unknown) > 0 {
		return false, errors.Join(unknown...)
	}
	return inSync, r.condemned(ctx, set)
}

// condemned adds the machines whose deletion was begun in the store: those of the
// plan are not installed any more.
func (r *run) condemned(ctx context.Context, set *capi.Set) error {
	var active []capi.Key
	for _, c := range set.Clusters {
		if !c.Paused {
			active = append(active, c.Key)
		}
	}
	records, err := r.store.Condemned(ctx, active)
	if err != nil {
		return err
	}
	for _, rec := range records {
		if !set.About(rec.Key) {
			continue
		}
		i := slices.IndexFunc(r.machines, func(m *machine) bool { return m.key == rec.Key })
		switch {
		case i < 0:
			r.machines = append(r.machines, r.victim(rec, DeleteOptions{}))
		case !r.machines[i].plan.Machine.Paused:
			r.machines[i] = r.victim(rec, DeleteOptions{})
		}
	}
	return nil
}

// prepare stores what is needed before machines are worked on.
func (r *run) prepare(ctx context.Context, set *capi.Set) error {
	if err := r.store.Sync(ctx, set); err != nil {
		return err
	}
	for _, c := range set.Clusters {
		rec, _, err := r.store.ClusterRecord(ctx, c.Key)
		if err != nil {
			return err
		}
		if rec.Phase == capi.PhaseDeleting && !c.Paused && !c.Deleting {
			return &ClusterError{
				Key: c.Key, Err: &SafetyError{"it is being deleted; finish that first"},
				Next: "capplunder delete cluster " + c.Name + " -n " + c.Namespace,
			}
		}
		r.clusters[c.Key] = r.newCluster(c, rec)
	}
	for _, c := range set.Clusters {
		r.clusters[c.Key].assign(r.machinesOf(c.Key))
	}
	for _, c := range set.Clusters {
		if err := r.clusters[c.Key].prepare(ctx); err != nil {
			return err
		}
	}
	return nil
}

// machinesOf are the machines of a plan that belong to a cluster.
func (r *run) machinesOf(cluster capi.Key) []*machine {
	var out []*machine
	for _, m := range r.machines {
		if m.key.Namespace == cluster.Namespace && m.rec.Cluster == cluster.Name {
			out = append(out, m)
		}
	}
	return out
}

func unknownBootConfig(name string, cfg wire.ServerConfig) error {
	e := &wire.UnknownBootConfigError{Name: name}
	for _, b := range cfg.BootConfigs {
		e.Known = append(e.Known, b.ConfigName)
	}
	return e
}

func (r *run) announce() {
	e := event.Event{Type: event.PlanReady}
	wipes, forced := 0, false
	for _, m := range r.machines {
		p := event.PlannedMachine{Machine: m.key.String(), Role: capi.RoleWorker}
		if m.rec.ControlPlane {
			p.Role = capi.RoleControlPlane
		}
		if m.deleting {
			if m.refused() == nil {
				wipes++
			}
			forced = forced || m.del.ForceRemove
			p.Steps = m.removal()
		} else {
			p.Role, p.Steps = m.plan.Machine.Role(), m.plan.Steps
		}
		e.Machines = append(e.Machines, p)
	}
	e.Message = machineCount(len(r.machines)) + " on " + r.server.URL()
	switch {
	case forced: // all of them, then
		e.Message = machineCount(wipes) + " to give up without a wipe on " + r.server.URL()
	case wipes == len(r.machines) && wipes > 0:
		e.Message = machineCount(wipes) + " to wipe on " + r.server.URL()
	case wipes > 0:
		e.Message += fmt.Sprintf(", %d of them to wipe", wipes)
	}
	r.emit(e)
}

func machineCount(n int) string {
	if n == 1 {
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", n)
}

func (r *run) summary() (Result, error) {
	res := Result{Clusters: r.gone}
	var failed []*MachineError
	for _, m := range r.machines {
		count(&res.Counts, m.outcome)
		res.Machines = append(res.Machines, MachineResult{Record: m.rec, Outcome: m.outcome, Err: m.err})
		if m.err != nil {
			var me *MachineError
			if errors.As(m.err, &me) {
				failed = append(failed, me)
			}
		}
	}
	r.emit(event.Event{Type: event.Summary, Counts: &res.Counts, Message: countsText(res.Counts), Elapsed: event.Seconds(time.Since(r.began))})
	if len(failed) > 0 {
		return res, &RunError{Counts: res.Counts, Machines: failed}
	}
	return res, nil
}

// interval is how long to pause before the next look at something that has been
// going on for elapsed: a thirtieth of that, so that little of a long wait is lost
// and a long wait costs the server little.
func interval(base, elapsed, most time.Duration) time.Duration {
	return max(base, min(elapsed/30, most))
}

// spec is a wait inside a larger limit that ctx carries.
func (r *run) spec(what string, observe func(string)) wait.Spec {
	return wait.Spec{
		What:         what,
		IntervalFunc: func(elapsed time.Duration) time.Duration { return interval(r.opts.Interval, elapsed, 10*time.Second) },
		ProbeTimeout: time.Minute,
		Emit:         func(_ time.Duration, last string) { observe(last) },
	}
}
