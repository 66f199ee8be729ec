package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const (
	// startGrace is how long, in intervals, a posted job may show no entry at all
	// before it counts as never started (70s by default). It must be longer than the
	// limit of the first action, a guard (one minute): a job on a slow host is not lost,
	// and two of them at once must not be.
	startGrace = 35
	// maxPosts bounds how often one job is posted anew after it was lost.
	maxPosts = 4
	// postsInFlight bounds POST /parlay calls at once: each costs the server time
	// and memory in proportion to its deployments.
	postsInFlight = 4
	// readsInFlight bounds the other calls of the jobs.
	readsInFlight = 8
)

// errJobLost: the server no longer knows a job that was posted to it.
var errJobLost = errors.New("the plunder server lost the job (it restarted)")

// limiter bounds how many of something run at once.
type limiter chan struct{}

func (l limiter) do(ctx context.Context, f func() error) error {
	select {
	case l <- struct{}{}:
		defer func() { <-l }()
		return f()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// job is one parlay map for one host, from POST to its last entry. Every action's
// name ends in the job's ID, so that entries of other jobs, which stay in the log
// of an address until somebody deletes them, are never taken for this one's.
type job struct {
	step    event.Step
	address string // IPv4 of the host whose log it is
	build   func(id string) (wire.Map, error)
	// adopt is the ID of a job of the same step that an earlier run posted, or "".
	adopt string
	// posting is called with the ID before the POST: it must record it durably.
	posting func(id string) error
	// restore puts the deployment back on a server that lost it.
	restore func(ctx context.Context) error
	observe func(string)
	// lost, if not nil, is told of a job that was posted and whose end nobody will know.
	lost func()
	// erase: its log holds a secret, and is deleted whatever the end.
	erase bool
}

// run posts the job (or adopts the one in flight) and waits for its end. The
// error of a failed action explains it; ctx carries the limit.
func (r *run) runJob(ctx context.Context, j job) (wire.Log, error) {
	unlock, err := r.lockHost(ctx, j.address)
	if err != nil {
		return wire.Log{}, err
	}
	defer unlock()
	if j.erase {
		defer r.eraseLog(ctx, j.address)
	}
	posts, dials := 0, 0
	id := j.adopt
	for {
		if id == "" {
			if posts++; posts > maxPosts {
				return wire.Log{}, fmt.Errorf("posted %d times: %w", maxPosts, errJobLost)
			}
			id = r.random(5)
			if err := r.postJob(ctx, j, id); err != nil {
				return wire.Log{}, err
			}
		}
		l, err := r.followJob(ctx, j, id)
		var de *dialError
		var ae *actionError
		switch {
		case err == nil:
			return l, nil
		case errors.Is(err, errJobLost):
			if j.lost != nil {
				j.lost()
			}
			j.observe(err.Error() + "; posting it again")
		case errors.As(err, &de) && dials < 5:
			// The guard could not even connect, so nothing ran: the host may be rebooting.
			dials, posts = dials+1, posts-1
			j.observe(de.Error() + "; trying again")
		case errors.As(err, &ae) && id == j.adopt:
			// The failure of an earlier run, which ended before it could say so.
			j.observe("posted by an earlier run: " + ae.Error() + "; trying again")
		default:
			return l, err
		}
		if err := wait.Sleep(ctx, r.opts.Interval); err != nil {
			return l, err
		}
		id = ""
	}
}

// lockHost keeps jobs of one address apart: there is one log per address.
func (r *run) lockHost(ctx context.Context, address string) (unlock func(), err error) {
	r.mu.Lock()
	l, ok := r.hosts[address]
	if !ok {
		l = make(chan struct{}, 1)
		r.hosts[address] = l
	}
	r.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// postJob records the job, clears the log and posts. When it returns nil the job
// may be running; whether it is, the log tells.
func (r *run) postJob(ctx context.Context, j job, id string) error {
	m, err := j.build(id)
	if err != nil {
		return err
	}
	if err := r.clearLog(ctx, j); err != nil {
		return err
	}
	if err := j.posting(id); err != nil {
		return err
	}
	return wait.Until(ctx, r.spec("post the "+string(j.step)+" job", j.observe), func(ctx context.Context) (string, error) {
		err := r.post(ctx, m)
		switch {
		case err == nil, errors.Is(err, wire.ErrNoAnswer):
			return "", nil // unanswered: the log will tell whether it runs
		case errors.Is(err, wire.ErrUnreachable):
			return "", wait.Pending(err)
		case forgotten(err):
			if err := j.restore(ctx); err != nil {
				return "", retryable(err)
			}
			return "", wait.Pending(err)
		default:
			return "", err
		}
	})
}

func (r *run) post(ctx context.Context, m wire.Map) error {
	return r.posts.do(ctx, func() error { return r.server.PostParlay(ctx, m) })
}

// forgotten reports whether the server says that it does not know the host, as
// one does that has restarted empty (recordings empty and parlay-states).
func forgotten(err error) bool {
	var refused *wire.RefusedError
	return errors.Is(err, wire.ErrNoDeployments) ||
		errors.As(err, &refused) && strings.Contains(refused.Message, "has no SSH credentials")
}

// retryable marks errors that pass by themselves (a server or a store that is down
// or that died half way) as pending; others stop the wait.
func retryable(err error) error {
	if errors.Is(err, wire.ErrUnreachable) || errors.Is(err, wire.ErrNoAnswer) || errors.Is(err, capi.ErrUnavailable) ||
		errors.Is(err, capi.ErrPending) || forgotten(err) {
		return wait.Pending(err)
	}
	return err
}

// clearLog deletes the log of the address, but never while a job still runs
// there: its end would be lost.
func (r *run) clearLog(ctx context.Context, j job) error {
	return wait.Until(ctx, r.spec("clear the log of "+j.address, j.observe), func(ctx context.Context) (string, error) {
		return "", r.reads.do(ctx, func() error {
			l, err := r.server.Log(ctx, j.address)
			switch {
			case errors.Is(err, wire.ErrNoLog):
				return nil
			case err != nil:
				return retryable(err)
			case l.State == wire.StateRunning:
				return wait.Pending(fmt.Errorf("another job is still running on %s (last task: %s)", j.address, lastTask(l)))
			}
			return retryable(r.server.DeleteLog(ctx, j.address))
		})
	})
}

func lastTask(l wire.Log) string {
	if len(l.Entries) == 0 {
		return "none yet"
	}
	task, _, _ := strings.Cut(l.Entries[len(l.Entries)-1].Task, "#")
	return task
}

// followJob polls the log until the job's last entry or a failed one is there.
func (r *run) followJob(ctx context.Context, j job, id string) (wire.Log, error) {
	m, err := j.build(id)
	if err != nil {
		return wire.Log{}, err
	}
	actions := m.Deployments[0].Actions
	began := time.Now()
	seen := 0
	var last wire.Log
	err = wait.Until(ctx, r.spec("run the "+string(j.step)+" job on "+j.address, j.observe), func(ctx context.Context) (string, error) {
		var l wire.Log
		err := r.reads.do(ctx, func() (err error) {
			l, err = r.server.Log(ctx, j.address)
			return err
		})
		if err != nil && !errors.Is(err, wire.ErrNoLog) {
			return "", retryable(err)
		}
		p := progress(l, actions, id)
		last = wire.Log{State: l.State, Entries: p.entries}
		switch {
		case p.failed != nil && len(p.entries) == 1 && neverConnected(p.failed.Error):
			return "", &dialError{p.failed.Error}
		case p.failed != nil:
			return "", &actionError{translate.ExplainIn(last, id, *p.failed)}
		case len(p.entries) == len(actions):
			return "", nil
		case len(p.entries) < seen:
			return "", errJobLost
		case len(p.entries) == 0 && time.Since(began) > startGrace*r.opts.Interval:
			return "", errJobLost
		}
		seen = len(p.entries)
		if seen == 0 {
			return "posted, nothing logged yet", wait.Pending(nil)
		}
		next, _, _ := strings.Cut(actions[seen].Name, "#")
		return fmt.Sprintf("%d of %d actions done, running %s", seen, len(actions), next), wait.Pending(nil)
	})
	if errors.Is(err, errJobLost) {
		if rerr := wait.Until(ctx, r.spec("restore the deployment of "+j.address, j.observe), func(ctx context.Context) (string, error) {
			return "", retryable(j.restore(ctx))
		}); rerr != nil {
			return last, rerr
		}
	}
	return last, err
}

type jobProgress struct {
	entries []wire.LogEntry // of this job, in order
	failed  *wire.LogEntry  // the first failed one that was not to be ignored
}

// progress reads one job's part of a log. Only entries whose task is one of the
// job's own actions count, whatever state the log is in: the state may be that of
// an earlier job (recording parlay-states).
func progress(l wire.Log, actions []wire.Action, id string) jobProgress {
	ignore := map[string]bool{}
	for _, a := range actions {
		ignore[a.Name] = a.IgnoreFail
	}
	var p jobProgress
	for _, e := range l.Entries {
		ignored, ours := ignore[e.Task]
		if !ours || !strings.HasSuffix(e.Task, "#"+id) {
			continue
		}
		p.entries = append(p.entries, e)
		if e.Error != "" && !ignored && p.failed == nil {
			p.failed = &p.entries[len(p.entries)-1]
			break
		}
	}
	return p
}

// dialError: the SSH connection of the job's first action was never made, so
// nothing ran on the host.
type dialError struct{ text string }

func (e *dialError) Error() string { return e.text }

// actionError: an action of the job failed, and so did the job.
type actionError struct{ text string }

func (e *actionError) Error() string { return e.text }

func neverConnected(text string) bool {
	return strings.HasPrefix(text, "dial tcp ") || strings.HasPrefix(text, "ssh: handshake failed")
}
