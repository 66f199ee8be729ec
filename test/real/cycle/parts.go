package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/state"
)

// apply installs what is missing of a file.
func (l *lab) apply(ctx context.Context, what, file string, args ...string) error {
	before, err := l.recorded(ctx)
	if err != nil {
		return err
	}
	w := window{from: time.Now()}
	r, err := l.must(ctx, append([]string{"apply", "-f", filepath.Join(l.Manifests, file)}, args...)...)
	w.to = time.Now()
	l.applies = append(l.applies, w)
	if err != nil {
		return err
	}
	now, err := l.recorded(ctx)
	if err != nil {
		return err
	}
	installed := 0
	for _, m := range now {
		if !slices.Contains(before, m) {
			l.expected[m.MAC]++
			installed++
		}
	}
	l.took(fmt.Sprintf("%s: apply, %d of %d machines installed", what, installed, len(now)), r.took)
	return nil
}

func (l *lab) took(what string, d time.Duration) {
	l.times = append(l.times, timing{what, d})
	l.say("%s: %s", what, d.Round(100*time.Millisecond))
}

// remove deletes machines, and checks that they came back.
func (l *lab) remove(ctx context.Context, what string, machines []recorded, args ...string) error {
	r, err := l.must(ctx, append(args, "--yes")...)
	if err != nil {
		return err
	}
	l.took(what, r.took)
	return l.returned(ctx, what, machines, time.Now(), r.took)
}

func (l *lab) machine(ctx context.Context, name string) ([]recorded, error) {
	all, err := l.recorded(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(m recorded) bool { return m.Name != name })
	if len(all) != 1 {
		return nil, fmt.Errorf("there are %d records of machine %s", len(all), name)
	}
	return all, nil
}

// rounds goes from the pool to a machine and back, for one that is not the last
// deployment of the server and for one that is the last: with nothing beside it, not
// even the placeholder.
func (l *lab) rounds(ctx context.Context) error {
	if err := l.apply(ctx, "rounds", "machines.yaml"); err != nil {
		return err
	}
	for round := range l.Rounds {
		what := fmt.Sprintf("not the last deployment, round %d", round+1)
		m, err := l.machine(ctx, "worker")
		if err != nil {
			return err
		}
		if err := l.remove(ctx, what, m, "delete", "machine", "worker"); err != nil {
			return err
		}
		if err := l.apply(ctx, what, "machines.yaml"); err != nil {
			return err
		}
	}
	for round := range l.Rounds {
		what := fmt.Sprintf("the last deployment, round %d", round+1)
		m, err := l.machine(ctx, "worker")
		if err != nil {
			return err
		}
		if err := l.remove(ctx, what+", before", m, "delete", "machine", "worker"); err != nil {
			return err
		}
		if m, err = l.machine(ctx, "controlplane"); err != nil {
			return err
		}
		if err := l.alone(ctx, m[0].MAC); err != nil {
			return err
		}
		if err := l.remove(ctx, what, m, "delete", "machine", "controlplane"); err != nil {
			return err
		}
		if err := l.apply(ctx, what, "machines.yaml"); err != nil {
			return err
		}
	}
	m, err := l.recorded(ctx)
	if err != nil {
		return err
	}
	return l.remove(ctx, "both machines", m, "delete", "machine", "controlplane", "worker")
}

// alone makes a deployment the only one of the server.
func (l *lab) alone(ctx context.Context, mac string) error {
	if err := l.client.RemoveDeployment(ctx, plunder.PlaceholderMAC); err != nil {
		return err
	}
	left, err := l.client.Deployments(ctx)
	if err != nil {
		return err
	}
	if len(left.Deployments) != 1 || left.Deployments[0].MAC != mac {
		return fmt.Errorf("%s is not the only deployment: there are %d", mac, len(left.Deployments))
	}
	return nil
}

// nothing checks that neither a machine nor a cluster is left in the store.
func (l *lab) nothing(ctx context.Context, cluster string) error {
	machines, err := l.recorded(ctx)
	if err != nil {
		return err
	}
	clusters, err := l.clusters(ctx)
	if err == nil && (len(machines) > 0 || slices.Contains(clusters, cluster)) {
		err = fmt.Errorf("left are the clusters %v and the machines %v", clusters, machines)
	}
	return err
}

// clusters are the names of those in the store.
func (l *lab) clusters(ctx context.Context) ([]string, error) {
	store, err := state.OpenLocal(l.path("state"))
	if err != nil {
		return nil, err
	}
	records, err := store.ClusterRecords(ctx)
	var names []string
	for _, rec := range records {
		names = append(names, rec.Key.Name)
	}
	return names, err
}

// highlyAvailable makes a cluster with three control planes, takes one of them out and puts
// another one in, and destroys it all.
func (l *lab) highlyAvailable(ctx context.Context) error {
	if err := l.apply(ctx, "3 control planes and 2 workers", "ha.yaml"); err != nil {
		return err
	}
	m, err := l.machine(ctx, "ha-cp-2")
	if err != nil {
		return err
	}
	if err := l.remove(ctx, "one of 3 control planes", m, "delete", "machine", "ha-cp-2"); err != nil {
		return err
	}
	// The next one can join only where the member of the last one was taken out of etcd.
	if err := l.apply(ctx, "another control plane", "ha.yaml"); err != nil {
		return err
	}
	if m, err = l.recorded(ctx); err != nil {
		return err
	}
	if err := l.remove(ctx, "3 control planes and 2 workers: destroy", m, "destroy", "--cluster", "loopback-ha"); err != nil {
		return err
	}
	return l.nothing(ctx, "loopback-ha")
}

// kills ends deletes of two machines at random moments, and runs them again.
func (l *lab) kills(ctx context.Context, random *rand.Rand) error {
	undisturbed := time.Duration(0)
	for n := range l.Kills + 1 {
		what := fmt.Sprintf("kill %d", n)
		if err := l.apply(ctx, what, "machines.yaml", "--skip-kubernetes"); err != nil {
			return err
		}
		m, err := l.recorded(ctx)
		if err != nil {
			return err
		}
		if n == 0 { // how long it takes without
			if err := l.remove(ctx, "two machines: destroy", m, destroy()...); err != nil {
				return err
			}
			undisturbed = l.times[len(l.times)-1].took
			continue
		}
		life := time.Duration(random.Int64N(int64(undisturbed)))
		r, err := l.capplunder(ctx, life, append(destroy(), "--yes")...)
		if err != nil {
			return err
		}
		switch r.code {
		case -1:
			what = fmt.Sprintf("kill %d, after %s (%q)", n, r.took.Round(10*time.Millisecond), r.last)
		case 0:
			what = fmt.Sprintf("kill %d, too late", n)
		default:
			return fmt.Errorf("%s: exit %d\n%s", what, r.code, r.text)
		}
		left, err := l.clusters(ctx)
		if err != nil {
			return err
		}
		if !slices.Contains(left, "loopback") { // it was done when it was killed
			err = l.returned(ctx, what, m, time.Now(), r.took)
		} else {
			err = l.remove(ctx, what, m, destroy()...)
		}
		if err != nil {
			return err
		}
		if err := l.nothing(ctx, "loopback"); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

func destroy() []string { return []string{"destroy", "--cluster", "loopback"} }
