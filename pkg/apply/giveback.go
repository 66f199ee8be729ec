package apply

import (
	"context"
	"errors"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// release points the deployment at the reboot loop, so that no reset, whenever it comes,
// installs the machine again.
func (m *machine) release(ctx context.Context) error {
	ctx, cancel := wait.WithLimit(ctx, m.run.opts.WipeTimeout, "--wipe-timeout")
	defer cancel()
	m.begin(event.StepRelease)
	err := wait.Until(ctx, m.spec("point the machine at the reboot loop"), func(ctx context.Context) (string, error) {
		return "", retryable(m.run.server.ReleaseDeployment(ctx, m.rec.MAC, m.rec.Address, m.rec.HostName))
	})
	if err == nil {
		err = m.save(ctx, func(rec *capi.Record) { rec.Step = string(event.StepRelease) })
	}
	if err != nil {
		return m.fail(err)
	}
	m.done("boots into the reboot loop from now on")
	return nil
}

// awaitReturn waits until the machine is seen in the pool after the wipe. Meanwhile
// it keeps the deployment in the reboot loop, which a server that restarts forgets.
func (m *machine) awaitReturn(ctx context.Context) error {
	m.begin(event.StepReturn)
	var s sighting
	err := wait.Until(ctx, m.limited("wait for the machine to come back to the pool"), func(ctx context.Context) (string, error) {
		own, err := m.inLoop(ctx)
		if err != nil {
			return "", retryable(err)
		}
		if !own {
			return "", nil // it is back, and somebody was quick
		}
		return m.seenAgain(ctx, &s)
	})
	if err == nil {
		err = m.save(ctx, func(rec *capi.Record) { rec.Step = string(event.StepReturn) })
	}
	if err != nil {
		return m.fail(err)
	}
	m.done("seen in the pool")
	return nil
}

// inLoop makes sure that the machine's deployment is the one of the reboot loop. own
// is false when the machine has another one by now that this record knows nothing
// of: whoever sees a machine in the pool may take it.
func (m *machine) inLoop(ctx context.Context) (own bool, err error) {
	all, err := m.run.server.Deployments(ctx)
	if err != nil {
		return false, err
	}
	d, ok := all.ByMAC(m.rec.MAC)
	switch {
	case ok && d.BootConfigName == wire.RebootConfigName:
		return true, nil
	case ok && d.Config.Hostname != m.rec.HostName:
		return false, nil
	}
	return true, m.run.server.ReleaseDeployment(ctx, m.rec.MAC, m.rec.Address, m.rec.HostName)
}

// forget removes the deployment, its log, the cluster's memory of the machine, and the
// record.
func (m *machine) forget(ctx context.Context, said string) error {
	m.begin(event.StepForget)
	if m.rec.Claimed() {
		err := wait.Until(ctx, m.limited("remove the deployment"), func(ctx context.Context) (string, error) {
			return "", retryable(m.forgetOnServer(ctx))
		})
		if err != nil {
			return m.fail(err)
		}
	}
	sentCtx, cancelSent := wait.WithLimit(ctx, m.run.opts.ReturnTimeout, "--return-timeout")
	defer cancelSent()
	if err := m.run.out.sent(sentCtx, m.letter(), m.observe); err != nil { // or it would come after the end
		return m.fail(&RecordError{Key: m.key, Err: err})
	}
	saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveLimit)
	defer cancel()
	err := wait.Until(saveCtx, m.spec("remove the record"), func(ctx context.Context) (string, error) {
		err := m.forgetControlPlane(ctx)
		if err == nil {
			err = m.run.store.DeleteRecord(ctx, m.key)
		}
		return "", retryable(err)
	})
	if err != nil {
		return m.fail(&RecordError{Key: m.key, Err: err})
	}
	m.message = said
	m.done("deployment and record are gone")
	return nil
}

// forgetOnServer removes the machine's deployment and the log of its address, unless
// somebody else has them by now. A machine whose return nobody has seen keeps its
// deployment: it is the one of the reboot loop, and the machine is on its way there.
func (m *machine) forgetOnServer(ctx context.Context) error {
	all, err := m.run.server.Deployments(ctx)
	if err != nil {
		return err
	}
	if d, ok := all.ByMAC(m.rec.MAC); ok && d.Config.Hostname != m.rec.HostName {
		return nil
	}
	if m.rec.Address != "" {
		err := m.run.reads.do(ctx, func() error { return m.run.server.DeleteLog(ctx, m.rec.Address) })
		if err != nil && !errors.Is(err, wire.ErrNoLog) {
			return err
		}
	}
	if m.del.NoWait && !m.reached(event.StepReturn) && !m.del.ForceRemove {
		return nil
	}
	return m.run.server.RemoveDeployment(ctx, m.rec.MAC)
}

func (m *machine) limited(what string) wait.Spec {
	s := m.spec(what)
	s.Limit, s.LimitName = m.run.opts.ReturnTimeout, "--return-timeout"
	return s
}

// forgetControlPlane: a cluster whose first control plane is gone is not initialised any
// more, unless another one of its control planes stays.
func (m *machine) forgetControlPlane(ctx context.Context) error {
	key := clusterOf(m.rec)
	c, ok, err := m.run.store.ClusterRecord(ctx, key)
	if err != nil || !ok || c.InitMachine != m.key.Name {
		return err
	}
	if heir := m.part.heir(); heir != "" {
		c.InitMachine = heir
		return m.run.store.SaveClusterRecord(ctx, c)
	}
	c.InitMachine, c.Initialized, c.CAHash, c.Ready = "", false, "", false
	if c.Phase != capi.PhaseDeleting {
		c.Phase = capi.PhaseProvisioning
	}
	return m.run.store.SaveClusterRecord(ctx, c)
}
