package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// apiPort is where kubeadm's API server listens.
const apiPort = 6443

// cluster is what the machines of one cluster share during a run: who initialises its
// control plane, whether that is up, and who can be asked.
type cluster struct {
	run  *run
	spec *capi.Cluster
	// initMachine is the machine on which this run is to initialise the control plane;
	// nil when that is done, or when none of the given machines may.
	initMachine *machine
	// joining lets control plane machines join one at a time: etcd takes one member
	// after the other.
	joining limiter

	up   chan struct{} // closed once the control plane is initialised
	down chan struct{} // closed once it is known that it will not be
	once sync.Once

	saving sync.Mutex // one write of the record at a time: none overtakes a later one

	mu  sync.Mutex
	rec capi.ClusterRecord
	// planes are the control plane machines that are up, the initialised one first.
	planes []capi.Record
	hopes  int   // machines of this run that may still bring the control plane up
	err    error // why down
	queue  []*ticket
	asked  bool // somebody serves the queue
}

func (r *run) newCluster(c *capi.Cluster, rec capi.ClusterRecord) *cluster {
	if rec.Name == "" {
		rec = capi.ClusterRecord{Key: c.Key, Phase: capi.PhaseProvisioning}
		if c.Infra != nil {
			rec.PlunderCluster = c.Infra.Key
		}
	}
	if !rec.Initialized {
		rec = r.found(c, rec)
	}
	cl := &cluster{run: r, spec: c, rec: rec, joining: make(limiter, 1), up: make(chan struct{}), down: make(chan struct{})}
	for _, m := range r.records {
		if cl.serves(m) {
			cl.planes = append(cl.planes, m)
		}
	}
	slices.SortFunc(cl.planes, func(a, b capi.Record) int {
		if (a.Name == rec.InitMachine) != (b.Name == rec.InitMachine) {
			if a.Name == rec.InitMachine {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Key.String(), b.Key.String())
	})
	return cl
}

// found completes the record of a cluster that does not say what its machines' records
// do: a control plane machine became a node, so the control plane is initialised. Where
// the cluster's record was lost, a second one would be made beside it otherwise.
func (r *run) found(c *capi.Cluster, rec capi.ClusterRecord) capi.ClusterRecord {
	var first capi.Record
	for _, m := range r.records {
		ours := m.Namespace == c.Namespace && m.Cluster == c.Name && m.Phase != capi.PhaseDeleting
		if ours && m.ControlPlane && m.Ready && m.Kubernetes != "" && (first.Name == "" || m.Name < first.Name) {
			first = m
		}
	}
	if first.Name == "" {
		return rec
	}
	rec.InitMachine, rec.Initialized = first.Name, true
	if rec.Endpoint.IsZero() {
		rec.Endpoint = c.Endpoint
	}
	if rec.Endpoint.IsZero() {
		rec.Endpoint = capi.Endpoint{Host: first.Address, Port: apiPort}
	}
	return rec
}

// serves reports whether a record is that of a control plane machine that is up.
func (c *cluster) serves(m capi.Record) bool {
	if !c.owns(m) || !m.ControlPlane || m.Phase == capi.PhaseDeleting || m.BootID == "" || !c.rec.Initialized {
		return false
	}
	// Initialised, and a run was killed before that was on its own record.
	initialised := m.Name == c.rec.InitMachine && m.JobStep == string(event.StepInit)
	return initialised || reachedRank(m) >= rank(event.StepInit)
}

func (c *cluster) owns(m capi.Record) bool {
	return m.Namespace == c.spec.Namespace && m.Cluster == c.spec.Name
}

// assign decides which of the machines, all of this cluster, initialises the control
// plane. There is never a second one: where a first has begun, it goes on there, or
// nothing goes on.
func (c *cluster) assign(machines []*machine) {
	var candidates []*machine
	for _, m := range machines {
		if m.plan == nil || m.plan.Kubernetes == nil || !m.plan.Machine.ControlPlane || m.deleting {
			continue
		}
		switch {
		case m.outcome == event.Skipped || m.err != nil:
		case m.plan.Kubernetes.Bootstrapped:
			c.hopes++ // which of them initialises it is the bootstrap provider's decision
		default:
			candidates = append(candidates, m)
		}
	}
	members := map[capi.Key]bool{}
	for _, m := range candidates {
		members[m.key] = true
	}
	for _, p := range c.planes {
		members[p.Key] = true
	}
	for _, m := range candidates {
		m.plan.Kubernetes.HA = len(members) > 1
	}
	if c.rec.Initialized && len(c.planes) > 0 {
		c.once.Do(func() { close(c.up) })
		for _, m := range candidates {
			if m.key.Name == c.rec.InitMachine && (m.rec.JobStep == string(event.StepInit) || m.reached(event.StepInit)) {
				c.initMachine = m
			} else if i := slices.IndexFunc(c.planes, func(p capi.Record) bool { return p.Address == c.rec.Endpoint.Host && p.Key != m.key }); i >= 0 {
				m.refuse("", fmt.Sprintf("the control plane endpoint of Cluster %s is the address of its Machine %s, so the cluster can have no second control plane machine: that takes an endpoint of its own (spec.controlPlaneEndpoint) from the beginning",
					c.spec.Key, c.planes[i].Name))
			}
		}
		return
	}
	if c.err = c.refuse(machines); c.err != nil {
		c.once.Do(func() { close(c.down) })
		return
	}
	for _, m := range candidates {
		if c.initMachine == nil || m.key.Name == c.rec.InitMachine {
			c.initMachine = m
		}
	}
	if c.initMachine != nil {
		c.hopes++
	}
}

// refuse says why nobody may initialise the control plane of a cluster that is not up,
// or nil.
func (c *cluster) refuse(machines []*machine) error {
	for _, key := range slices.SortedFunc(maps.Keys(c.run.records), func(a, b capi.Key) int { return strings.Compare(a.String(), b.String()) }) {
		m := c.run.records[key]
		if c.owns(m) && m.ControlPlane && m.Phase == capi.PhaseDeleting && m.BootID != "" && m.WipedAt.IsZero() {
			return &SafetyError{fmt.Sprintf("control plane Machine %s of Cluster %s is being deleted, and may still run it: finish that first (capplunder delete machine %s)", key, c.spec.Key, key.Name)}
		}
	}
	if c.rec.Initialized { // and nobody of its control plane is left
		var left []string
		for _, m := range c.run.records {
			if c.owns(m) && m.Kubernetes != "" && m.Phase != capi.PhaseDeleting {
				left = append(left, m.Name)
			}
		}
		if slices.Sort(left); len(left) > 0 {
			return &SafetyError{fmt.Sprintf("the control plane of Cluster %s is gone (it was initialised on Machine %s), and a new one would not know Machine %s: delete it first",
				c.spec.Key, c.rec.InitMachine, left[0])}
		}
		return nil
	}
	name := c.rec.InitMachine
	i := slices.IndexFunc(machines, func(m *machine) bool { return m.key.Name == name })
	if i >= 0 && machines[i].outcome == event.Skipped {
		return fmt.Errorf("control plane Machine %s is not being worked on: %s", machines[i].key, machines[i].message)
	}
	rec := c.run.records[capi.Key{Namespace: c.spec.Namespace, Name: name}]
	if i < 0 && c.owns(rec) && rec.Claimed() { // how far it got, the store may not know
		return &SafetyError{fmt.Sprintf("Cluster %s is being initialised on Machine %s/%s, which this run is not about: apply that, too", c.spec.Key, c.spec.Namespace, name)}
	}
	return nil
}

// prepare records the control plane endpoint as soon as it is known: that is all
// the infrastructure of a cluster there is, and what others wait for (CAPI contract,
// sections 4 and 6).
func (c *cluster) prepare(ctx context.Context) error {
	rec := c.rec
	if rec.Ready || c.spec.Paused || c.spec.Deleting {
		return nil
	}
	rec.Endpoint = c.spec.Endpoint
	switch m := c.initMachine; {
	case m != nil:
		rec.InitMachine = m.key.Name
		rec.Endpoint = c.endpointWith(m)
	default: // a bootstrap provider that is to make its data waits for the endpoint
		if m := c.soleBootstrapped(); m != nil {
			rec.Endpoint = c.endpointWith(m)
		}
	}
	if rec.Endpoint.IsZero() {
		return nil
	}
	rec.Ready, rec.Phase = true, capi.PhaseProvisioned
	if err := c.run.store.SaveClusterRecord(ctx, rec); err != nil {
		return err
	}
	c.rec = rec
	return nil
}

// soleBootstrapped is the only control plane machine, if bootstrap data makes it one, or nil.
func (c *cluster) soleBootstrapped() *machine {
	var planes []*machine
	for _, m := range c.run.machinesOf(c.spec.Key) {
		if m.rec.ControlPlane {
			planes = append(planes, m)
		}
	}
	if len(planes) != 1 || planes[0].plan == nil || planes[0].plan.Kubernetes == nil || !planes[0].plan.Kubernetes.Bootstrapped {
		return nil
	}
	return planes[0]
}

// endpointWith is the cluster's endpoint if m is, or is to be, its first control plane.
func (c *cluster) endpointWith(m *machine) capi.Endpoint {
	if k := m.plan.Kubernetes; k != nil && !k.Endpoint.IsZero() {
		return k.Endpoint
	}
	if !c.spec.Endpoint.IsZero() {
		return c.spec.Endpoint
	}
	return capi.Endpoint{Host: m.plan.Deployment.Config.Address, Port: apiPort}
}

// lost takes the hope of a machine away that might have brought the control plane up.
func (c *cluster) lost(m *machine, err error) {
	bootstrapped := m.plan.Machine.ControlPlane && m.plan.Kubernetes.Bootstrapped
	if m != c.initMachine && !bootstrapped {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hopes--
	if c.err == nil {
		c.err = err
	}
	if c.hopes <= 0 {
		c.once.Do(func() { close(c.down) })
	}
}

// serving adds a control plane machine that is up.
func (c *cluster) serving(rec capi.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.planes = slices.DeleteFunc(c.planes, func(p capi.Record) bool { return p.Key == rec.Key })
	c.planes = append(c.planes, rec)
}

// attendants are the control plane machines that can be asked, in the order in which
// to try them.
func (c *cluster) attendants() []capi.Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.planes)
}

func (c *cluster) record() capi.ClusterRecord {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

// save changes the record; with commit it returns when the store has it.
func (c *cluster) save(ctx context.Context, m *machine, commit bool, change func(*capi.ClusterRecord)) error {
	c.saving.Lock()
	defer c.saving.Unlock()
	rec := c.record()
	change(&rec)
	if rec == c.record() {
		return nil
	}
	letter := "Cluster " + rec.Key.String()
	err := c.run.out.put(ctx, letter, func(ctx context.Context) error { return c.run.store.SaveClusterRecord(ctx, rec) })
	if err == nil && commit {
		err = c.run.out.sent(ctx, letter, m.observe)
	}
	if err != nil {
		return &RecordError{Key: m.key, Err: err}
	}
	c.mu.Lock()
	change(&c.rec) // others may have changed other parts of it meanwhile
	c.mu.Unlock()
	return nil
}

// beginInit puts on record that the control plane is initialised on m, before it is.
func (c *cluster) beginInit(ctx context.Context, m *machine) error {
	return c.save(ctx, m, true, func(rec *capi.ClusterRecord) {
		if rec.Initialized && (rec.InitMachine != m.key.Name || m.rec.JobStep != string(event.StepInit)) {
			rec.Initialized, rec.CAHash = false, "" // that one is gone
		}
		rec.InitMachine = m.key.Name
	})
}

// initDone records that the control plane is up on m. hash is of its CA, "" if that is
// not known yet.
func (c *cluster) initDone(ctx context.Context, m *machine, hash string) error {
	err := c.save(ctx, m, false, func(rec *capi.ClusterRecord) {
		if !rec.Initialized {
			rec.InitMachine, rec.Initialized = m.key.Name, true
		}
		if hash != "" {
			rec.CAHash = hash
		}
		if rec.Endpoint.IsZero() || m == c.initMachine {
			rec.Endpoint = c.endpointWith(m)
		}
		rec.Ready, rec.Phase = true, capi.PhaseProvisioned
	})
	if err != nil {
		return err
	}
	c.serving(m.rec)
	c.once.Do(func() { close(c.up) })
	return nil
}

// awaitUp waits until the control plane is up.
func (c *cluster) awaitUp(ctx context.Context, m *machine) error {
	c.mu.Lock()
	hopes, err := c.hopes, c.err
	c.mu.Unlock()
	select {
	case <-c.up:
		return nil
	default:
	}
	if hopes <= 0 {
		if err != nil {
			return fmt.Errorf("cannot join: %w", err)
		}
		return fmt.Errorf("Cluster %s has no initialised control plane, and none is among the given machines", c.spec.Key) //nolint:staticcheck // a kind's name
	}
	observation := "waiting for a control plane machine of Cluster " + c.spec.Key.String()
	if c.initMachine != nil {
		observation = fmt.Sprintf("waiting for control plane Machine %s", c.initMachine.key)
	}
	return wait.Until(ctx, m.spec("wait for the control plane"), func(ctx context.Context) (string, error) {
		m.observe(observation)
		select {
		case <-c.up:
			return "", nil
		case <-c.down:
			c.mu.Lock()
			defer c.mu.Unlock()
			return "", fmt.Errorf("cannot join: %w", c.err)
		case <-ctx.Done(): // of this look or of the whole wait
			return observation, wait.Pending(nil)
		}
	})
}

// errNoPlane: there is no control plane machine that could be asked.
var errNoPlane = errors.New("no control plane machine of the cluster is on record")

// reachedRank is the rank of the last step that a record says is done. A machine that
// was ready without Kubernetes has only its operating system.
func reachedRank(r capi.Record) int {
	if r.Ready && r.Kubernetes == "" {
		return rank(event.StepOS)
	}
	return rank(event.Step(r.Step))
}

// rank orders the steps of provisioning: which are done when one is.
func rank(step event.Step) int {
	switch step { //nolint:exhaustive // the rest belongs to deletion
	case event.StepDeployment:
		return 1
	case event.StepOS:
		return 2
	case event.StepPackages:
		return 3
	case event.StepInit, event.StepJoin, event.StepBootstrap:
		return 4
	case event.StepNode:
		return 5
	case event.StepRecord:
		return 6
	}
	return 0
}
