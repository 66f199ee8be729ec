package apply

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const (
	// tokenLife is how long a bootstrap token is good for.
	tokenLife = 30 * time.Minute
	// gather is how long the first join waits for others, so that the machines that
	// were held up by the control plane share one POST.
	gather = 250 * time.Millisecond
	// apiPort is where kubeadm's API server listens.
	apiPort = 6443
)

// cluster is what the machines of one cluster share during a run.
type cluster struct {
	run         *run
	spec        *capi.Cluster
	initMachine *machine // nil when an earlier run has initialised the cluster elsewhere

	up   chan struct{} // closed once the control plane is initialised
	down chan struct{} // closed once it is known that it will not be
	once sync.Once

	mu      sync.Mutex
	rec     capi.ClusterRecord
	init    capi.Record // of the machine on which kubeadm init ended well, once it has
	err     error       // why down
	queue   []*ticket
	serving bool
}

// ticket is one machine's wish for credentials to join with.
type ticket struct {
	token translate.Token
	k     *translate.Kubernetes
	done  chan error // buffered, written once
}

func (r *run) newCluster(c *capi.Cluster, rec capi.ClusterRecord) *cluster {
	if rec.Name == "" {
		rec = capi.ClusterRecord{Key: c.Key, Phase: capi.PhaseProvisioning}
		if c.Infra != nil {
			rec.PlunderCluster = c.Infra.Key
		}
	}
	cl := &cluster{run: r, spec: c, rec: rec, up: make(chan struct{}), down: make(chan struct{})}
	if rec.Initialized {
		cl.init = r.records[capi.Key{Namespace: c.Namespace, Name: rec.InitMachine}]
		cl.once.Do(func() { close(cl.up) })
	}
	return cl
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
	if m := c.initMachine; m != nil && rec.Endpoint.IsZero() {
		if m.plan.Kubernetes != nil {
			rec.Endpoint = m.plan.Kubernetes.Endpoint
		}
		if rec.Endpoint.IsZero() {
			rec.Endpoint = capi.Endpoint{Host: m.plan.Deployment.Config.Address, Port: apiPort}
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

func (c *cluster) fail(err error) {
	c.once.Do(func() {
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		close(c.down)
	})
}

// installKubernetes takes a machine with a proven operating system to a node.
func (m *machine) installKubernetes(ctx context.Context) error {
	c := m.run.clusters[m.plan.Machine.Cluster.Key]
	guard := translate.Guard{MAC: m.rec.MAC, BootID: m.rec.BootID}
	if m.reached(event.StepInit) || m.reached(event.StepJoin) {
		return nil
	}
	if !m.reached(event.StepPackages) {
		m.begin(event.StepPackages)
		m.note(ctx, capi.EventNormal, capi.ReasonInstall, "Installing Kubernetes "+m.plan.Machine.Version)
		err := m.run.slots.do(ctx, func() error {
			_, err := m.job(ctx, event.StepPackages, guard, func(id string, t translate.Target) (wire.Map, error) {
				return translate.Packages(id, t, m.plan.Kubernetes, m.facts)
			})
			return err
		})
		if err == nil {
			err = m.jobDone(ctx, event.StepPackages)
		}
		if err != nil {
			return m.fail(err)
		}
		m.done("container runtime, kubelet and kubeadm are installed")
	}
	if m.plan.Machine.ControlPlane {
		// Initialised on this machine, but not on its record: a run was killed between
		// the two. Doing it again reads the same log, or finds it done on the host.
		if on := c.initializedOn(); on != "" && on != m.key.Name {
			return m.fail(&SafetyError{fmt.Sprintf("Cluster %s was initialised on Machine %s/%s; a second control plane machine is not supported", c.spec.Key, c.spec.Namespace, on)})
		}
		return m.initCluster(ctx, c, guard)
	}
	return m.join(ctx, c, guard)
}

// reached reports whether the record says that a step is done.
func (m *machine) reached(s event.Step) bool { return m.rec.Step == string(s) }

// initializedOn is the name of the Machine on which kubeadm init ended well, or "".
func (c *cluster) initializedOn() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.rec.Initialized {
		return ""
	}
	return c.rec.InitMachine
}

// initCluster runs kubeadm init. The token that it is given is not used for joins:
// each join gets one of its own.
func (m *machine) initCluster(ctx context.Context, c *cluster, guard translate.Guard) error {
	m.begin(event.StepInit)
	token := m.run.token()
	var jobID string
	l, err := m.job(ctx, event.StepInit, guard, func(id string, t translate.Target) (wire.Map, error) {
		jobID = id
		return translate.Init(id, t, m.plan.Kubernetes, m.facts, translate.InitInput{Token: token})
	})
	if err != nil {
		return m.fail(err)
	}
	hash, err := translate.ReadInit(l, jobID)
	if err != nil {
		return m.fail(err)
	}
	if err := c.initDone(ctx, m, hash); err != nil {
		return m.fail(err)
	}
	m.done("the control plane is initialised") // on record with the result, which comes next
	return nil
}

func (c *cluster) initDone(ctx context.Context, m *machine, hash string) error {
	c.mu.Lock()
	rec := c.rec
	rec.InitMachine, rec.Initialized, rec.CAHash = m.key.Name, true, hash
	rec.Ready, rec.Phase = true, capi.PhaseProvisioned
	rec.Endpoint = m.plan.Kubernetes.Endpoint
	if rec.Endpoint.IsZero() {
		rec.Endpoint = capi.Endpoint{Host: m.rec.Address, Port: apiPort}
	}
	c.mu.Unlock()
	err := c.run.out.put(ctx, "Cluster "+rec.Key.String(), func(ctx context.Context) error { return c.run.store.SaveClusterRecord(ctx, rec) })
	if err != nil {
		return &RecordError{Key: m.key, Err: err}
	}
	c.mu.Lock()
	c.rec, c.init = rec, m.rec
	c.mu.Unlock()
	c.once.Do(func() { close(c.up) })
	return nil
}

// join waits for the control plane and joins it.
func (m *machine) join(ctx context.Context, c *cluster, guard translate.Guard) error {
	m.begin(event.StepJoin)
	if err := m.awaitControlPlane(ctx, c); err != nil {
		return m.fail(err)
	}
	token := m.run.token()
	if m.rec.JobStep != string(event.StepJoin) {
		if err := c.credentials(ctx, m, token); err != nil {
			return m.fail(err)
		}
	}
	err := m.run.slots.do(ctx, func() error {
		made := m.rec.JobStep != string(event.StepJoin)
		_, err := m.job(ctx, event.StepJoin, guard, func(id string, t translate.Target) (wire.Map, error) {
			if !made && id != m.rec.JobID {
				// The join that an earlier run posted is lost, and so are its credentials.
				if err := c.credentials(ctx, m, token); err != nil {
					return wire.Map{}, err
				}
				made = true
			}
			c.mu.Lock()
			endpoint, hash := c.rec.Endpoint, c.rec.CAHash
			c.mu.Unlock()
			return translate.Join(id, t, m.plan.Kubernetes, m.facts, translate.JoinInput{Token: token, Endpoint: endpoint, CAHash: hash})
		})
		return err
	})
	if err != nil {
		return m.fail(err)
	}
	m.done("joined the cluster") // on record with the result, which comes next
	return nil
}

func (r *run) token() translate.Token {
	return translate.Token{ID: r.random(6), Secret: translate.Secret(r.random(16))}
}

func (m *machine) awaitControlPlane(ctx context.Context, c *cluster) error {
	if c.initMachine == nil && c.initializedOn() == "" {
		return fmt.Errorf("Cluster %s has no initialised control plane, and none is among the given machines", c.spec.Key) //nolint:staticcheck // a kind's name
	}
	return wait.Until(ctx, m.spec("wait for the control plane"), func(ctx context.Context) (string, error) {
		select {
		case <-c.up:
			return "", nil
		default:
		}
		observation := fmt.Sprintf("waiting for control plane Machine %s", c.initMachine.key)
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

// credentials makes the token known to the cluster. Machines that ask while
// another POST is under way share the next one.
func (c *cluster) credentials(ctx context.Context, m *machine, token translate.Token) error {
	t := &ticket{token: token, k: m.plan.Kubernetes, done: make(chan error, 1)}
	c.mu.Lock()
	c.queue = append(c.queue, t)
	lead := !c.serving
	c.serving = true
	c.mu.Unlock()
	if lead {
		c.run.background.Go(func() { c.serve(c.run.base) })
	}
	m.observe("waiting for credentials to join with")
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return wait.Until(ctx, wait.Spec{What: "make join credentials", Object: m.key.String()}, nil)
	}
}

// serve hands out credentials until nobody asks. Every batch has its own limit.
func (c *cluster) serve(ctx context.Context) {
	for {
		err := wait.Sleep(ctx, gather)
		c.mu.Lock()
		batch := c.queue
		c.queue = nil
		if len(batch) == 0 {
			c.serving = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if err == nil {
			limited, cancel := wait.WithLimit(ctx, c.run.opts.KubernetesTimeout, "--kubernetes-timeout")
			err = c.makeTokens(limited, batch)
			cancel()
		}
		for _, t := range batch {
			t.done <- err
		}
	}
}

func (c *cluster) makeTokens(ctx context.Context, batch []*ticket) error {
	c.mu.Lock()
	name, cp := c.rec.InitMachine, c.init
	c.mu.Unlock()
	if cp.Name == "" {
		return &SafetyError{fmt.Sprintf("control plane Machine %s/%s of Cluster %s has no record", c.spec.Namespace, name, c.spec.Key)}
	}
	tokens := make([]translate.Token, len(batch))
	for i, t := range batch {
		tokens[i] = t.token
	}
	target := translate.Target{Address: cp.Address, HostName: cp.HostName, Guard: translate.Guard{MAC: cp.MAC}, Root: cp.Root}
	work := translate.Work{Tokens: tokens, Expires: time.Now().Add(tokenLife).UTC()}
	var jobID string
	l, err := c.run.runJob(ctx, job{
		step: event.StepJoin, address: cp.Address,
		build: func(id string) (wire.Map, error) {
			jobID = id
			return translate.ControlPlaneWork(id, target, batch[0].k, work)
		},
		posting: func(string) error { return nil }, // made anew by whoever needs them
		restore: func(ctx context.Context) error { return c.restoreControlPlane(ctx, cp) },
		observe: func(string) {},
	})
	if err != nil {
		return fmt.Errorf("making join credentials on control plane Machine %s: %w", cp.Key, err)
	}
	done, err := translate.ReadWork(l, jobID, work)
	if err != nil {
		return err
	}
	hash := done.CAHash
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.CAHash != "" && c.rec.CAHash != hash {
		return &SafetyError{fmt.Sprintf("the CA on control plane Machine %s is not the one recorded for Cluster %s", cp.Key, c.spec.Key)}
	}
	c.rec.CAHash = hash
	return nil
}

// restoreControlPlane puts the deployment of the control plane back on a server
// that restarted empty, so that parlay reaches it again.
func (c *cluster) restoreControlPlane(ctx context.Context, cp capi.Record) error {
	all, err := c.run.server.Deployments(ctx)
	if err != nil {
		return err
	}
	if _, ok := all.ByMAC(cp.MAC); ok {
		return nil
	}
	return c.run.server.EnsureDeployment(ctx, wire.Deployment{
		MAC: cp.MAC, BootConfigName: cp.DeploymentType, Config: wire.HostConfig{Address: cp.Address, Hostname: cp.HostName},
	})
}
