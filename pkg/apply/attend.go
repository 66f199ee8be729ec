package apply

import (
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

const (
	// tokenLife is how long a bootstrap token is good for.
	tokenLife = 30 * time.Minute
	// gather is how long the first who asks waits for others, so that the machines that
	// were held up by the control plane share one POST.
	gather = 250 * time.Millisecond
)

// ticket is what one machine asks of its cluster's control plane.
type ticket struct {
	work translate.Work
	k    *translate.Kubernetes
	done chan answer // buffered, written once
}

type answer struct {
	result translate.WorkResult
	err    error
}

// ask has a control plane machine do work for m. Machines that ask while another POST
// is under way share the next one.
func (c *cluster) ask(ctx context.Context, m *machine, w translate.Work) (translate.WorkResult, error) {
	t := &ticket{work: w, k: m.plan.Kubernetes, done: make(chan answer, 1)}
	began := time.Now()
	c.mu.Lock()
	c.queue = append(c.queue, t)
	lead := !c.asked
	c.asked = true
	c.mu.Unlock()
	if lead {
		c.run.background.Go(func() { c.serve(c.run.base) })
	}
	select {
	case a := <-t.done:
		return a.result, a.err
	case <-ctx.Done():
		err := wait.Until(ctx, wait.Spec{What: "ask the control plane", Object: m.key.String()}, nil)
		return translate.WorkResult{}, withLast(err, "waiting for what a control plane machine answers", time.Since(began))
	}
}

// serve does what is asked until nobody asks. Every batch has its own limit.
func (c *cluster) serve(ctx context.Context) {
	for {
		err := wait.Sleep(ctx, gather)
		c.mu.Lock()
		batch := c.queue
		c.queue = nil
		if len(batch) == 0 {
			c.asked = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		var result translate.WorkResult
		if err == nil {
			limited, cancel := wait.WithLimit(ctx, c.run.opts.KubernetesTimeout, "--kubernetes-timeout")
			result, err = c.attend(limited, batch)
			cancel()
		}
		for _, t := range batch {
			t.done <- answer{result, err}
		}
	}
}

// attend does the work of a batch on the first control plane machine that can be
// reached.
func (c *cluster) attend(ctx context.Context, batch []*ticket) (translate.WorkResult, error) {
	work := translate.Work{Expires: time.Now().Add(tokenLife).UTC()}
	k := batch[0].k
	for _, t := range batch {
		work.Spent = append(work.Spent, t.work.Spent...)
		work.Tokens = append(work.Tokens, t.work.Tokens...)
		work.Nodes = append(work.Nodes, t.work.Nodes...)
		if t.work.CertKey != "" { // at most one: control planes join one at a time
			work.CertKey = t.work.CertKey
			k = t.k // how keys are handed on depends on the version
		}
	}
	slices.Sort(work.Spent)
	work.Spent = slices.Compact(work.Spent)
	err := error(&SafetyError{fmt.Sprintf("Cluster %s: %v", c.spec.Key, errNoPlane)})
	for _, plane := range c.attendants() {
		var result translate.WorkResult
		result, err = c.attendOn(ctx, plane, k, work)
		var unreachable *dialError
		if err == nil || !errors.As(err, &unreachable) || ctx.Err() != nil {
			return result, err
		}
	}
	return translate.WorkResult{}, err
}

func (c *cluster) attendOn(ctx context.Context, plane capi.Record, k *translate.Kubernetes, work translate.Work) (translate.WorkResult, error) {
	target := translate.Target{Address: plane.Address, HostName: plane.HostName, Guard: translate.Guard{MAC: plane.MAC}, Root: plane.Root}
	var jobID string
	l, err := c.run.runJob(ctx, job{
		step: event.StepJoin, address: plane.Address,
		build: func(id string) (wire.Map, error) {
			jobID = id
			return translate.ControlPlaneWork(id, target, k, work)
		},
		posting: func(string) error { return nil }, // asked anew by whoever needs it
		restore: func(ctx context.Context) error { return c.run.restorePlane(ctx, plane) },
		observe: func(string) {},
	})
	if err != nil {
		return translate.WorkResult{}, fmt.Errorf("asking control plane Machine %s: %w", plane.Key, err)
	}
	result, err := translate.ReadWork(l, jobID, work)
	if err != nil {
		return result, fmt.Errorf("control plane Machine %s: %w", plane.Key, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rec.CAHash != "" && c.rec.CAHash != result.CAHash {
		return result, &SafetyError{fmt.Sprintf("the CA on control plane Machine %s is not the one recorded for Cluster %s", plane.Key, c.spec.Key)}
	}
	c.rec.CAHash = result.CAHash
	return result, nil
}

// restorePlane puts the deployment of a control plane machine back on a server that
// restarted empty, so that parlay reaches it again.
func (r *run) restorePlane(ctx context.Context, plane capi.Record) error {
	all, err := r.server.Deployments(ctx)
	if err != nil {
		return err
	}
	if _, ok := all.ByMAC(plane.MAC); ok {
		return nil
	}
	return r.server.EnsureDeployment(ctx, wire.Deployment{
		MAC: plane.MAC, BootConfigName: plane.DeploymentType, Config: wire.HostConfig{Address: plane.Address, Hostname: plane.HostName},
	})
}
