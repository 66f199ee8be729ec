package apply

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/pki"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// installKubernetes takes a machine with a proven operating system to a node.
func (m *machine) installKubernetes(ctx context.Context) error {
	c := m.cluster()
	guard := translate.Guard{MAC: m.rec.MAC, BootID: m.rec.BootID}
	// An image that brings everything has nothing to be installed on it.
	if slices.Contains(m.plan.Steps, event.StepPackages) && !m.past(event.StepPackages) {
		m.begin(event.StepPackages)
		if err := m.installPackages(ctx, guard); err != nil {
			return m.fail(err)
		}
	}
	if m.plan.Kubernetes.Bootstrapped {
		return m.becomeNode(ctx, c, event.StepBootstrap, func() error { return m.bootstrap(ctx, c, guard) })
	}
	if m == c.initMachine {
		return m.becomeNode(ctx, c, event.StepInit, func() error { return m.initCluster(ctx, c, guard) })
	}
	become := func() error {
		return m.becomeNode(ctx, c, event.StepJoin, func() error { return m.join(ctx, c, guard) })
	}
	if !m.plan.Machine.ControlPlane {
		return become()
	}
	m.begin(event.StepJoin)
	if err := c.awaitUp(ctx, m); err != nil {
		return m.fail(err)
	}
	m.observe("waiting for another control plane machine to join first")
	var err error
	if taken := c.joining.do(ctx, func() error { err = become(); return nil }); taken != nil {
		return m.fail(wait.Until(ctx, m.spec("wait for another control plane machine"), nil))
	}
	return err
}

// becomeNode does a step that makes the machine a node, and waits until its cluster
// says so.
func (m *machine) becomeNode(ctx context.Context, c *cluster, s event.Step, step func() error) error {
	if m.step != s {
		m.begin(s)
	}
	if err := step(); err != nil {
		return m.fail(err)
	}
	m.begin(event.StepNode)
	if err := m.awaitNode(ctx, c); err != nil {
		return m.fail(err)
	}
	return nil
}

func (m *machine) cluster() *cluster { return m.run.clusters[m.plan.Machine.Cluster.Key] }

// past reports whether the record says that a step, and so all before it, is done.
func (m *machine) past(s event.Step) bool { return reachedRank(m.rec) >= rank(s) }

// reached reports whether a step is the last that the record says is done.
func (m *machine) reached(s event.Step) bool { return m.rec.Step == string(s) }

func (m *machine) installPackages(ctx context.Context, guard translate.Guard) error {
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
	if err == nil {
		m.done("container runtime, kubelet and kubeadm are installed")
	}
	return err
}

// initCluster runs kubeadm init. The token that it is given is not used for joins:
// each join gets one of its own.
func (m *machine) initCluster(ctx context.Context, c *cluster, guard translate.Guard) error {
	if !m.past(event.StepInit) {
		// First, for a cluster that counts as installed gets no new keys.
		if err := c.beginInit(ctx, m); err != nil {
			return err
		}
		in := translate.InitInput{Token: m.run.token(m.rec.HostName)}
		k := m.plan.Kubernetes
		switch {
		case k.PKI == capi.PKITool:
			keys, err := c.makePKI(ctx, m)
			if err != nil {
				return err
			}
			in.PKI = keys
		case k.HA:
			in.CertKey = m.run.certificateKey()
		}
		var jobID string
		l, err := m.job(ctx, event.StepInit, guard, func(id string, t translate.Target) (wire.Map, error) {
			jobID = id
			return translate.Init(id, t, k, m.facts, in)
		})
		if err != nil {
			return err
		}
		hash, err := translate.ReadInit(l, jobID)
		if err != nil {
			return err
		}
		if err := c.initDone(ctx, m, hash); err != nil {
			return err
		}
		// Now: the jobs that follow on this host erase the log that says so.
		if err := m.jobDone(ctx, event.StepInit); err != nil {
			return err
		}
	} else if err := c.initDone(ctx, m, ""); err != nil {
		return err
	}
	c.serving(m.rec)
	if err := m.keepKubeconfig(ctx, c); err != nil {
		return err
	}
	m.done("the control plane is initialised")
	return nil
}

// makePKI gives the cluster its keys, or those that it has.
func (c *cluster) makePKI(ctx context.Context, m *machine) (keys capi.PKI, err error) {
	err = wait.Until(ctx, m.spec("keep the cluster's keys"), func(ctx context.Context) (string, error) {
		keys, err = c.run.store.PKI(ctx, c.spec.Key)
		if err != nil || keys != nil {
			return "", retryable(err)
		}
		fresh, err := pki.New(time.Now())
		if err != nil {
			return "", err
		}
		keys, err = c.run.store.SavePKI(ctx, c.spec.Key, fresh)
		return "", retryable(err)
	})
	return keys, err
}

// join waits for the control plane and joins it.
func (m *machine) join(ctx context.Context, c *cluster, guard translate.Guard) error {
	if m.past(event.StepJoin) {
		m.done("joined the cluster")
		return nil
	}
	if err := c.awaitUp(ctx, m); err != nil {
		return err
	}
	// Made anew for every join that is posted: what was handed out is never used again.
	var in translate.JoinInput
	var err error
	adopted := m.rec.JobStep == string(event.StepJoin)
	if adopted { // its form is all that is needed to read its log
		in, err = m.credentials(ctx, c)
		in.CAHash = cmp.Or(in.CAHash, "sha256:"+strings.Repeat("0", 64))
	} else {
		in, err = m.handedOut(ctx, c)
	}
	if err != nil {
		return err
	}
	err = m.run.slots.do(ctx, func() error {
		_, err := m.job(ctx, event.StepJoin, guard, func(id string, t translate.Target) (wire.Map, error) {
			if adopted && id != m.rec.JobID {
				// The join that an earlier run posted is lost, and so are its credentials.
				if in, err = m.handedOut(ctx, c); err != nil {
					return wire.Map{}, err
				}
				adopted = false
			}
			return translate.Join(id, t, m.plan.Kubernetes, m.facts, in)
		})
		return err
	})
	if err != nil {
		return err
	}
	if m.plan.Machine.ControlPlane {
		// Now: it may be asked to work for others, which erases the log that says so.
		if err := m.jobDone(ctx, event.StepJoin); err != nil {
			return err
		}
		c.serving(m.rec)
	}
	m.done("joined the cluster") // a worker's is on record with the result, which comes next
	return nil
}

// credentials are for one join of m. They are good once the control plane knows them.
func (m *machine) credentials(ctx context.Context, c *cluster) (translate.JoinInput, error) {
	rec := c.record()
	in := translate.JoinInput{Token: m.run.token(m.rec.HostName), Endpoint: rec.Endpoint, CAHash: rec.CAHash}
	if !m.plan.Machine.ControlPlane {
		return in, nil
	}
	if m.plan.Kubernetes.PKI != capi.PKITool {
		in.CertKey = m.run.certificateKey()
		return in, nil
	}
	keys, err := m.run.store.PKI(ctx, c.spec.Key)
	if err == nil && keys == nil {
		err = &SafetyError{fmt.Sprintf("Cluster %s has no keys in the %s: its control plane made them itself, so leave pki: tool out", c.spec.Key, m.run.store)}
	}
	in.PKI = keys
	return in, err
}

// handedOut are credentials that the control plane knows.
func (m *machine) handedOut(ctx context.Context, c *cluster) (translate.JoinInput, error) {
	in, err := m.credentials(ctx, c)
	if err != nil {
		return in, err
	}
	m.observe("waiting for credentials to join with")
	// Those that runs before left behind are spent.
	result, err := c.ask(ctx, m, translate.Work{Spent: []string{m.rec.HostName}, Tokens: []translate.Token{in.Token}, CertKey: in.CertKey})
	if err != nil {
		return in, fmt.Errorf("making join credentials: %w", err)
	}
	in.CAHash = result.CAHash
	return in, nil
}

// bootstrap runs the machine's bootstrap data, when it is there.
func (m *machine) bootstrap(ctx context.Context, c *cluster, guard translate.Guard) error {
	if !m.past(event.StepBootstrap) {
		data, err := m.bootstrapData(ctx)
		if err != nil {
			return err
		}
		err = m.run.slots.do(ctx, func() error {
			_, err := m.job(ctx, event.StepBootstrap, guard, func(id string, t translate.Target) (wire.Map, error) {
				return translate.Bootstrap(id, t, m.plan.Kubernetes, m.facts, data)
			})
			return err
		})
		if err == nil {
			err = m.jobDone(ctx, event.StepBootstrap)
		}
		if err != nil {
			return err
		}
	}
	if m.plan.Machine.ControlPlane {
		if err := c.initDone(ctx, m, ""); err != nil {
			return err
		}
		if _, ok, err := m.run.store.Kubeconfig(ctx, c.spec.Key); err == nil && !ok {
			if err := m.keepKubeconfig(ctx, c); err != nil {
				return err
			}
		}
	}
	m.done("its bootstrap data was run")
	return nil
}

// bootstrapData waits for the machine's bootstrap data.
func (m *machine) bootstrapData(ctx context.Context) (*capi.BootstrapData, error) {
	data, err := translate.BootstrapOf(m.plan.Machine)
	if err != nil || data != nil {
		return data, err
	}
	err = wait.Until(ctx, m.spec("wait for bootstrap data"), func(ctx context.Context) (string, error) {
		var observation string
		data, observation, err = m.run.store.BootstrapData(ctx, m.key)
		switch {
		case errors.Is(err, capi.ErrUnavailable):
			return "", wait.Pending(err)
		case err != nil:
			return "", err
		case data == nil:
			return observation, wait.Pending(nil)
		}
		return "", nil
	})
	return data, err
}

// awaitNode waits until the cluster shows the machine as a node: a Ready one if the
// network add-on is ours, for without one no node gets ready.
func (m *machine) awaitNode(ctx context.Context, c *cluster) error {
	if len(c.attendants()) == 0 {
		m.done("its control plane is not on record here: it was not asked for the node")
		return nil
	}
	wanted := translate.WantedNode{Name: m.rec.HostName, ProviderID: capi.ProviderID(m.rec.MAC)}
	// The bootstrap data's network add-on, if there is one, is not ours.
	ready := m.plan.Kubernetes.CNI.Given() && !m.plan.Kubernetes.Bootstrapped
	tidied := m.plan.Kubernetes.Bootstrapped // its tokens are not ours
	spec := m.spec("wait for the node")
	spec.ProbeTimeout = m.run.opts.KubernetesTimeout // asking is a job of its own
	err := wait.Until(ctx, spec, func(ctx context.Context) (string, error) {
		work := translate.Work{Nodes: []translate.WantedNode{wanted}}
		if !tidied {
			work.Spent = []string{m.rec.HostName}
		}
		result, err := c.ask(ctx, m, work)
		tidied = tidied || err == nil
		var safety *SafetyError
		switch node, ok := result.Nodes[wanted.Name]; {
		case errors.As(err, &safety), err != nil && ctx.Err() != nil:
			return "", err
		case err != nil:
			return err.Error(), wait.Pending(err)
		case !ok:
			return "the cluster does not know the node yet", wait.Pending(nil)
		case ready && !node.Ready:
			return fmt.Sprintf("node %s is not ready: %s", node.Name, node.Reason), wait.Pending(nil)
		default:
			m.node = node
			return "", nil
		}
	})
	if err != nil {
		return err
	}
	if m.node.ProviderID != "" && m.node.ProviderID != wanted.ProviderID {
		return &SafetyError{fmt.Sprintf("node %s has the provider ID %s, not %s", m.node.Name, m.node.ProviderID, wanted.ProviderID)}
	}
	state := "not ready, it waits for a network add-on"
	if m.node.Ready {
		state = "ready"
	}
	m.done(fmt.Sprintf("node %s %s is there (%s)", m.node.Name, m.node.Version, state))
	return nil
}

// token is a new bootstrap token for the machine with a host name.
func (r *run) token(hostName string) translate.Token {
	return translate.Token{ID: r.random(6), Secret: translate.Secret(r.random(16)), For: hostName}
}

// certificateKey is 32 random bytes in hex, as kubeadm wants them.
func (r *run) certificateKey() translate.Secret {
	sum := sha256.Sum256([]byte(r.random(64)))
	return translate.Secret(hex.EncodeToString(sum[:]))
}
