package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// lockPatience is how long a run waits for another one to let go of the store.
const lockPatience = time.Second

// run is one Apply or Delete.
type run struct {
	*Engine
	began    time.Time
	posts    limiter // POST /parlay in flight
	reads    limiter // other calls of jobs in flight
	slots    limiter // machines worked on over SSH
	prober   *prober
	machines []*machine
	clusters map[capi.Key]*cluster

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
		began:    time.Now(),
		posts:    make(limiter, postsInFlight),
		reads:    make(limiter, readsInFlight),
		slots:    make(limiter, e.opts.Concurrency),
		clusters: map[capi.Key]*cluster{},
		hosts:    map[string]chan struct{}{},
	}
	r.prober = &prober{run: r}
	return r, func() {
		cancel()
		r.background.Wait()
	}
}

// Apply makes the machines of a plan real. It is safe to run again after any
// interruption: what is recorded as done is not done again. The error is a
// *RunError when machines are not ready, and any other error when nothing was
// begun.
func (e *Engine) Apply(ctx context.Context, set *capi.Set, plan *translate.Plan) (Result, error) {
	return e.locked(ctx, "apply", func(ctx context.Context, r *run) (Result, error) { return r.apply(ctx, set, plan) })
}

// locked does one run, under the limit over all and with the store locked.
func (e *Engine) locked(ctx context.Context, command string, work func(context.Context, *run) (Result, error)) (Result, error) {
	if e.opts.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = wait.WithLimit(ctx, e.opts.Timeout, "--timeout")
		defer cancel()
	}
	held, unlock, err := e.store.Lock(ctx, capi.LockRequest{Command: command, Patience: lockPatience})
	if err != nil {
		return Result{}, err
	}
	r, end := e.newRun(held)
	res, err := work(held, r)
	end()
	return res, errors.Join(err, unlock())
}

func (r *run) apply(ctx context.Context, set *capi.Set, plan *translate.Plan) (Result, error) {
	if err := r.prepare(ctx, set, plan); err != nil {
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
			r.emit(event.Event{Type: event.Skipped, Machine: m.key.String(), MAC: m.rec.MAC, Address: m.rec.Address, ProviderID: m.rec.ProviderID, Message: m.message})
		case m.err != nil:
			m.finish(ctx, m.err)
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

// prepare looks before anything is touched: the server must answer and know every
// boot configuration, the store must answer, and no record may contradict the plan.
func (r *run) prepare(ctx context.Context, set *capi.Set, plan *translate.Plan) error {
	cfg, err := r.server.ServerConfig(ctx)
	if err != nil {
		return err
	}
	records, err := r.store.Records(ctx)
	if err != nil {
		return err
	}
	byKey := map[capi.Key]capi.Record{}
	for _, rec := range records {
		byKey[rec.Key] = rec
	}
	var unknown []error
	for _, mp := range plan.Machines {
		m := r.newMachine(mp, byKey[mp.Machine.Key])
		r.machines = append(r.machines, m)
		if m.outcome == event.Skipped || m.err != nil {
			continue
		}
		if _, ok := cfg.BootConfig(mp.Deployment.BootConfigName); !ok {
			unknown = append(unknown, &MachineError{
				Key: m.key, Step: event.StepDeployment, Next: "capplunder get bootconfigs",
				Err: unknownBootConfig(mp.Deployment.BootConfigName, cfg),
			})
		}
	}
	if len(unknown) > 0 {
		return errors.Join(unknown...)
	}
	if err := r.store.Sync(ctx, set); err != nil {
		return err
	}
	for _, c := range set.Clusters {
		rec, _, err := r.store.ClusterRecord(ctx, c.Key)
		if err != nil {
			return err
		}
		r.clusters[c.Key] = r.newCluster(c, rec)
	}
	for _, m := range r.machines {
		if _, known := byKey[m.key]; !known && m.err == nil {
			if err := m.save(ctx, func(*capi.Record) {}); err != nil {
				return err
			}
		}
		if m.plan.Init {
			c := r.clusters[m.plan.Machine.Cluster.Key]
			c.initMachine = m
			if m.outcome == event.Skipped && !c.rec.Initialized {
				c.fail(fmt.Errorf("control plane Machine %s is not being worked on: %s", m.key, m.message))
			}
		}
	}
	return nil
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
	for _, m := range r.machines {
		e.Machines = append(e.Machines, event.PlannedMachine{Machine: m.key.String(), Role: m.plan.Machine.Role(), Steps: m.plan.Steps})
	}
	e.Message = machineCount(len(r.machines)) + " on " + r.server.URL()
	r.emit(e)
}

func machineCount(n int) string {
	if n == 1 {
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", n)
}

func (r *run) summary() (Result, error) {
	var res Result
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
