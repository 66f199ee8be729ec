package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// parting is a cluster that machines of a run leave, or that ends with them.
type parting struct {
	key capi.Key
	// ending: all its nodes go. Nobody leaves it then, in order: workers go first.
	ending bool
	// planes are the control plane machines that stay, who can be asked; stays are all its
	// nodes that stay.
	planes, stays []capi.Record
	workers       []*machine // that go
	// kept is a control plane machine that was to go and is refused, if there is one: the
	// others stay with it, for its etcd needs them.
	kept capi.Key
	one  limiter // control planes leave one at a time
	// turns are for workers: one for each control plane that is asked, which works on one
	// thing at a time, so that nobody's limit runs while it waits for others.
	turns limiter
}

// part finds out, for the machines of the run that are being deleted, what stays of
// their clusters. whole are the clusters that go as a whole.
func (r *run) part(ctx context.Context, whole []capi.Key) error {
	var namespaces []string
	going := map[capi.Key]bool{}
	for _, m := range r.machines {
		if m.deleting {
			namespaces = append(namespaces, m.key.Namespace)
			going[m.key] = true
		}
	}
	if len(going) == 0 {
		return nil
	}
	slices.Sort(namespaces)
	records, err := r.store.Records(ctx, slices.Compact(namespaces)...)
	if err != nil {
		return err
	}
	parts := map[capi.Key]*parting{}
	for _, m := range r.machines {
		if !m.deleting {
			continue
		}
		key := clusterOf(m.rec)
		p := parts[key]
		if p == nil {
			p = &parting{key: key, one: make(limiter, 1)}
			p.staying(records, going)
			p.turns = make(limiter, max(1, len(p.planes)))
			p.ending = len(p.stays) == 0 || slices.Contains(whole, key)
			parts[key] = p
		}
		m.part = p
		if !m.rec.ControlPlane {
			m.nth = len(p.workers)
			p.workers = append(p.workers, m)
		}
	}
	return nil
}

// staying sorts out what stays of the cluster.
func (p *parting) staying(records []capi.Record, going map[capi.Key]bool) {
	for _, rec := range records {
		if clusterOf(rec) != p.key || going[rec.Key] || !mayBeNode(rec) || rec.Phase == capi.PhaseDeleting || rec.BootID == "" {
			continue
		}
		p.stays = append(p.stays, rec)
		if rec.ControlPlane && (rec.Kubernetes != "" || reachedRank(rec) >= rank(event.StepInit)) {
			p.planes = append(p.planes, rec)
		}
	}
}

// heir is the control plane machine that stands for the cluster's beginning when the one
// that initialised it is gone, "" if there is none.
func (p *parting) heir() string {
	if p == nil || len(p.planes) == 0 {
		return ""
	}
	return p.planes[0].Name
}

// mayBeNode reports whether a machine was to become a node of a cluster.
func mayBeNode(r capi.Record) bool { return r.Version != "" || r.Kubernetes != "" || r.NodeName != "" }

// lastPlane refuses to delete the last control plane of a cluster that has other nodes.
func (m *machine) lastPlane() error {
	p := m.part
	if p == nil || p.ending || !m.rec.ControlPlane || !mayBeNode(m.rec) || !m.installed() || len(p.planes) > 0 ||
		m.del.ForceQuorum || m.del.ForceRemove || !m.rec.WipedAt.IsZero() || m.rec.Kubernetes == "" && m.rec.NodeName == "" {
		return nil
	}
	names := make([]string, len(p.stays))
	for i, r := range p.stays {
		names[i] = r.Name
	}
	return &MachineError{
		Key: m.key, Step: event.StepDrain, Next: "capplunder delete cluster " + p.key.Name + " -n " + p.key.Namespace + "    # with all its machines",
		Err: &SafetyError{fmt.Sprintf("it is the last control plane of Cluster %s, which still has Machine %s; nothing was done (--force-quorum deletes it all the same)", p.key, strings.Join(names, ", "))},
	}
}

// awaitWorkers has the control planes of a cluster that ends wait until its workers are
// wiped. If one stays they stay, too: it would be a node of nothing.
func (m *machine) awaitWorkers(ctx context.Context) error {
	p := m.part
	if p == nil || !p.ending || !m.rec.ControlPlane || !m.rec.WipedAt.IsZero() {
		return nil
	}
	force := m.del.ForceQuorum || m.del.ForceRemove
	if p.kept.Name != "" && !force {
		return &SafetyError{fmt.Sprintf("control plane Machine %s of its Cluster %s stays, and needs the others (--force-quorum deletes them all the same)", p.kept, p.key)}
	}
	for _, w := range p.workers {
		err := wait.Until(ctx, m.spec("wait for the workers"), func(ctx context.Context) (string, error) {
			select {
			case <-w.parted:
				return "", nil
			case <-ctx.Done():
				return fmt.Sprintf("workers go first: Machine %s is not wiped yet", w.key), wait.Pending(nil)
			}
		})
		if err != nil {
			return err
		}
		if w.stayed && !force {
			return &SafetyError{fmt.Sprintf("Machine %s of its Cluster %s stays, and so do its control planes (--force-quorum deletes them all the same)", w.key, p.key)}
		}
	}
	return nil
}

// ClusterError is why a cluster that was to be deleted stays, beside machines that stay.
type ClusterError struct {
	Key  capi.Key // of the Cluster
	Err  error
	Next string // a command to type
}

// Error implements error.
func (e *ClusterError) Error() string { return fmt.Sprintf("Cluster %s: %v", e.Key, e.Err) }

// Unwrap implements errors.Unwrap.
func (e *ClusterError) Unwrap() error { return e.Err }

// NextCommand is the command to type.
func (e *ClusterError) NextCommand() string { return e.Next }

// condemnClusters makes the deletion of clusters known to everybody, so that nothing is
// installed for them any more. One with a machine that is refused stays as it is.
func (r *run) condemnClusters(ctx context.Context, clusters []capi.Key) error {
	for _, key := range clusters {
		if r.refuses(key) {
			continue
		}
		observe := func(seen string) {
			r.emit(event.Event{Type: event.Info, Message: fmt.Sprintf("Cluster %s: %s", key, seen)})
		}
		spec := r.spec("begin the deletion", observe)
		spec.Object, spec.Limit, spec.LimitName = "Cluster "+key.String(), r.opts.WipeTimeout, "--wipe-timeout"
		err := wait.Until(ctx, spec, func(ctx context.Context) (string, error) {
			done, seen, err := r.store.CondemnCluster(ctx, key)
			if err == nil && !done {
				return seen, wait.Pending(nil)
			}
			return "", retryable(err)
		})
		if err != nil {
			return &ClusterError{Key: key, Err: err, Next: r.opts.Resume}
		}
	}
	return nil
}

func (r *run) refuses(cluster capi.Key) bool {
	return slices.ContainsFunc(r.machines, func(m *machine) bool { return clusterOf(m.rec) == cluster && m.refused() != nil })
}

// deleteClusters removes the clusters whose machines are all gone.
func (r *run) deleteClusters(ctx context.Context, clusters []capi.Key) error {
	errs := make([]error, len(clusters))
	var wg sync.WaitGroup
	for i, key := range clusters {
		left := 0
		for _, m := range r.machines {
			if clusterOf(m.rec) == key && m.outcome != event.Deleted {
				left++
			}
		}
		if left > 0 {
			r.emit(event.Event{Type: event.Warning, Message: fmt.Sprintf("Cluster %s stays, with %s", key, machineCount(left))})
			continue
		}
		wg.Go(func() {
			if err := r.deleteCluster(ctx, key); err != nil {
				errs[i] = &ClusterError{Key: key, Err: err, Next: r.opts.Resume}
				return
			}
			r.emit(event.Event{Type: event.Info, Message: fmt.Sprintf("Cluster %s deleted", key)})
			r.mu.Lock()
			defer r.mu.Unlock()
			r.gone = append(r.gone, key)
		})
	}
	wg.Wait()
	slices.SortFunc(r.gone, compareKeys)
	return errors.Join(errs...)
}

func (r *run) deleteCluster(ctx context.Context, key capi.Key) error {
	spec := r.spec("delete the cluster", func(seen string) {
		r.emit(event.Event{Type: event.Info, Message: fmt.Sprintf("Cluster %s: %s", key, seen)})
	})
	spec.Object, spec.Limit, spec.LimitName = "Cluster "+key.String(), r.opts.ReturnTimeout, "--return-timeout"
	return wait.Until(ctx, spec, func(ctx context.Context) (string, error) {
		return "", retryable(r.store.DeleteCluster(ctx, key))
	})
}
