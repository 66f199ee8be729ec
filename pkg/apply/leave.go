package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// leaveLimit is how long everything but the drain of a node may take.
const leaveLimit = 10 * time.Minute

// leaves reports whether the machine is to leave a cluster that goes on.
func (m *machine) leaves() bool {
	return m.part != nil && !m.part.ending && len(m.part.planes) > 0 && mayBeNode(m.rec) && m.installed() &&
		!m.reached(event.StepDrain) && !m.reached(event.StepRelease) && !m.rec.Dirty
}

// leave takes the node out of its cluster, by way of a control plane machine that stays:
// drain, member of etcd, Node. A cluster that does not answer keeps no worker from being
// wiped; a control plane stays if nobody can say what its going would do.
func (m *machine) leave(ctx context.Context) error {
	if !m.leaves() {
		return nil
	}
	m.begin(event.StepDrain)
	turn := m.part.turns
	if m.rec.ControlPlane {
		turn = m.part.one
	}
	said := ""
	err := turn.do(ctx, func() (err error) {
		ctx, cancel := wait.WithLimit(ctx, m.del.DrainTimeout+leaveLimit, "--drain-timeout")
		defer cancel()
		said, err = m.takeOut(ctx)
		return err
	})
	if err == nil {
		err = m.save(ctx, func(rec *capi.Record) { rec.Step = string(event.StepDrain) })
	}
	if err != nil {
		return m.fail(err)
	}
	m.done(said)
	return nil
}

// takeOut is leave without its limit; said is for people.
func (m *machine) takeOut(ctx context.Context) (said string, err error) {
	view, plane, err := m.askPlanes(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		if m.rec.ControlPlane && !m.del.ForceQuorum {
			return "", &SafetyError{fmt.Sprintf("what its going does to Cluster %s cannot be known: %v (--force-quorum deletes it all the same)", m.part.key, err)}
		}
		m.warn(fmt.Sprintf("not drained, its Node stays: Cluster %s does not answer: %v", m.part.key, err))
		return "skipped: the cluster does not answer", nil
	}
	if err := m.keepsQuorum(view); err != nil {
		return "", err
	}
	name := cmp.Or(m.rec.NodeName, m.rec.HostName)
	there := slices.ContainsFunc(view.Nodes, func(n translate.Node) bool { return n.Name == name })
	member := slices.ContainsFunc(view.Members, func(e translate.Member) bool { return e.Address == m.rec.Address })
	if !there && !member {
		return "it is no node of its cluster any more", nil
	}
	if there && !m.del.SkipDrain {
		if err := m.drain(ctx, plane, name); err != nil {
			return "", err
		}
	}
	m.observe("kubeadm reset")
	if err := m.reset(ctx); err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		m.warn(fmt.Sprintf("kubeadm reset: %v", err))
	}
	if m.rec.ControlPlane {
		if err := m.removeMember(ctx, plane); err != nil {
			return "", err
		}
	}
	if there {
		if err := m.deleteNode(ctx, plane, name); err != nil {
			return "", err
		}
	}
	said = fmt.Sprintf("node %s is drained and deleted", name)
	if m.del.SkipDrain {
		said = fmt.Sprintf("node %s is deleted, not drained", name)
	}
	m.note(ctx, capi.EventNormal, capi.ReasonDelete, said)
	return said, nil
}

func (m *machine) warn(message string) {
	m.run.emit(m.event(event.Event{Type: event.Warning, Step: m.step, Message: message}))
}

// askPlanes asks the control planes that stay, one after the other, until one answers.
func (m *machine) askPlanes(ctx context.Context) (v translate.ClusterView, plane capi.Record, err error) {
	err = errNoPlane
	planes := m.part.planes
	first := m.nth % len(planes) // so that they share the work
	for _, plane = range slices.Concat(planes[first:], planes[:first]) {
		m.observe("asking control plane Machine " + plane.Key.String())
		var done bool
		l, id, jobErr := m.planeJob(ctx, plane, translate.LookMap)
		if err = jobErr; err == nil {
			v, done, err = translate.ReadLook(l, id)
			if err == nil && !done {
				err = errors.New("no answer in the log")
			}
		}
		if err == nil || ctx.Err() != nil {
			return v, plane, err
		}
		err = fmt.Errorf("control plane Machine %s: %w", plane.Key, err)
	}
	return v, plane, err
}

// keepsQuorum refuses what would leave the cluster's etcd without a majority.
func (m *machine) keepsQuorum(v translate.ClusterView) error {
	if !m.rec.ControlPlane || m.del.ForceQuorum {
		return nil
	}
	if err := translate.Quorum(v, m.rec.Address); err != nil {
		return &SafetyError{fmt.Sprintf("Cluster %s: %v; nothing was done (--force-quorum deletes it all the same)", m.part.key, err)}
	}
	return nil
}

func (m *machine) drain(ctx context.Context, plane capi.Record, node string) error {
	m.observe("draining node " + node)
	l, id, err := m.planeJob(ctx, plane, func(id string, t translate.Target) (wire.Map, error) {
		return translate.DrainMap(id, t, node, m.del.DrainTimeout)
	})
	if rerr := translate.ReadDrain(l, id); id != "" && len(l.Entries) > 1 && rerr != nil {
		err = rerr // which says more than the end of the job
	}
	if err != nil {
		return &MachineError{
			Key: m.key, Step: event.StepDrain, Err: fmt.Errorf("drain node %s: %w; nothing was wiped", node, err),
			Next: fmt.Sprintf("capplunder delete machine %s -n %s --skip-drain    # deletes it all the same", m.key.Name, m.key.Namespace),
		}
	}
	return nil
}

func (m *machine) removeMember(ctx context.Context, plane capi.Record) error {
	l, id, err := m.planeJob(ctx, plane, func(id string, t translate.Target) (wire.Map, error) {
		return translate.RemoveMemberMap(id, t, m.rec.Address)
	})
	if err == nil {
		_, err = translate.ReadRemoveMember(l, id)
	}
	if err != nil {
		return fmt.Errorf("remove the member of etcd at %s: %w; nothing was wiped", m.rec.Address, err)
	}
	return nil
}

func (m *machine) deleteNode(ctx context.Context, plane capi.Record, node string) error {
	l, id, err := m.planeJob(ctx, plane, func(id string, t translate.Target) (wire.Map, error) {
		return translate.DeleteNodeMap(id, t, node)
	})
	if err == nil {
		err = translate.ReadDeleteNode(l, id)
	}
	if err != nil {
		return fmt.Errorf("delete Node %s: %w; nothing was wiped", node, err)
	}
	return nil
}

// planeJob runs a map on a control plane machine.
func (m *machine) planeJob(ctx context.Context, plane capi.Record, build func(id string, t translate.Target) (wire.Map, error)) (l wire.Log, id string, err error) {
	t := translate.Target{Address: plane.Address, HostName: plane.HostName, Guard: translate.Guard{MAC: plane.MAC}, Root: plane.Root}
	err = m.run.slots.do(ctx, func() (err error) {
		l, err = m.run.runJob(ctx, job{
			step: event.StepDrain, address: plane.Address,
			build: func(i string) (wire.Map, error) {
				id = i
				return build(i, t)
			},
			posting: func(string) error { return nil }, // asked anew by the next run
			restore: func(ctx context.Context) error { return m.run.restorePlane(ctx, plane) },
			observe: m.observe,
		})
		return err
	})
	return l, id, err
}

// reset runs kubeadm reset on the machine itself.
func (m *machine) reset(ctx context.Context) error {
	t := translate.Target{
		Address: m.rec.Address, HostName: m.rec.HostName, Root: m.rec.Root,
		Guard: translate.Guard{MAC: m.rec.MAC, BootID: m.rec.BootID},
	}
	var id string
	return m.run.slots.do(ctx, func() error {
		l, err := m.run.runJob(ctx, job{
			step: event.StepDrain, address: m.rec.Address,
			build: func(i string) (wire.Map, error) {
				id = i
				return translate.ResetMap(i, t)
			},
			posting: func(string) error { return nil },
			restore: m.ensureDeployment,
			observe: m.observe,
		})
		if err != nil {
			return err
		}
		return translate.ReadReset(l, id)
	})
}
