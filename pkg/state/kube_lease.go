package state

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// annotationHolder is on a Lease that is a lock: who holds it, as JSON of leaseHolder.
const annotationHolder = annotationPrefix + "holder"

// How locks wait and end.
const (
	leasePollFirst = 100 * time.Millisecond // how soon a held lease is looked at again
	leasePollMost  = time.Second            // and how seldom, at most
	releaseLimit   = 5 * time.Second        // how long giving back may take
)

// leaseLock is a lock in the cluster: one coordination.k8s.io Lease. The API server
// decides who gets it, because every write names the version of the Lease that it
// replaces. It is the kind of Lease that client-go's leader election uses, but not its
// elector: that one gives up when it could not renew for a while, and a run that
// installs machines must go on while the API server does not answer. Nobody else can
// take the lock from a server that does not answer, and when it does again the next
// renewal shows whose lock it is.
type leaseLock struct {
	client          *kube.Client
	namespace, name string
	what            string        // for messages: "Cluster default/c"
	duration        time.Duration // how long a holder that does not renew keeps it; whole seconds
	annotations     map[string]string
	identity        string // of this holder, different for each that ever was
	holder          leaseHolder
}

// leaseHolder is what the holder of a lease says about itself.
type leaseHolder struct {
	Holder
	Process process `json:"process,omitzero"`
}

func newLeaseLock(client *kube.Client, namespace, name, what, command string, duration time.Duration) *leaseLock {
	h := leaseHolder{Holder: newHolder(command)}
	h.Process = processOf(h.PID)
	return &leaseLock{
		client: client, namespace: namespace, name: name, what: what, duration: duration,
		identity: fmt.Sprintf("%s_%d_%s", h.Host, h.PID, strings.ToLower(rand.Text()[:8])), holder: h,
	}
}

// LockLostError says that a lock was lost while the run that had it was at work.
type LockLostError struct {
	What   string // "Cluster default/c"
	Holder Holder // who has it now; zero when that is not known
	Err    error  // why it could not be kept, when nobody was seen to have it
}

// Error implements error.
func (e *LockLostError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("the lock of %s could not be kept: %v", e.What, e.Err)
	}
	return fmt.Sprintf("the lock of %s went to %s, because it was not renewed in time (was this computer asleep, or the Lease deleted?)", e.What, e.Holder)
}

// Unwrap implements errors.Unwrap.
func (e *LockLostError) Unwrap() error { return e.Err }

// forever is the patience of those who wait until their context ends.
const forever time.Duration = -1

// acquire waits until the lock is ours. It is taken from a holder that released it,
// that is a dead process of this computer, or that was not seen to renew it for as long
// as it promised, by our own clock since we first looked: two clocks are never compared.
// Once the holder is known to be alive, acquire waits no longer than patience, and then
// the error is a *LockedError. lost is called at most once, if the lock is lost.
func (l *leaseLock) acquire(ctx context.Context, patience time.Duration, observe func(string), lost func(error)) (*heldLease, error) {
	began, poll := time.Now(), leasePollFirst
	var w wait
	for {
		mine, current, err := l.attempt(ctx, &w)
		switch {
		case mine != nil:
			return l.hold(ctx, mine, lost), nil
		case ctx.Err() != nil:
			return nil, l.abandon(ctx, &w, l.interrupted(ctx, current))
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
			continue // somebody was faster: look again
		case err == nil && w.alive && patience >= 0 && time.Since(began) >= patience:
			return nil, l.abandon(ctx, &w, l.locked(current))
		case err == nil:
		case !errors.Is(err, capi.ErrUnavailable) || time.Since(w.answered) > l.duration:
			return nil, l.abandon(ctx, &w, err)
		default: // while the cluster does not answer nobody can renew: watch anew
			w.restart()
			poll = leasePollFirst
		}
		if observe != nil {
			observe(l.observation(current, &w.watcher))
		}
		if w.changed {
			poll = leasePollFirst
		}
		timer := time.NewTimer(poll)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, l.abandon(ctx, &w, l.interrupted(ctx, current))
		}
		poll = min(poll*3/2, leasePollMost, max(l.duration/5, leasePollFirst))
	}
}

// wait is what acquire knows from its attempts so far.
type wait struct {
	watcher
	answered time.Time // when the cluster last did
	tried    bool      // to take the lock: whether a write without an answer was done is unknown
}

// attempt looks at the lock once, and takes it if it is free. It returns the Lease as
// mine if that is ours now, and else as current, unless there was no answer.
func (l *leaseLock) attempt(ctx context.Context, w *wait) (mine, current *coordinationv1.Lease, err error) {
	current, err = l.get(ctx)
	if err != nil {
		return nil, nil, err
	}
	w.answered = time.Now()
	if !l.free(current, &w.watcher) {
		return nil, current, nil
	}
	if current != nil && holderOf(current) == l.identity {
		return current, nil, nil
	}
	w.tried = true
	mine, err = l.take(ctx, current)
	if err != nil {
		return nil, nil, err
	}
	return mine, nil, nil
}

// interrupted is for who waited until ctx ended.
func (l *leaseLock) interrupted(ctx context.Context, current *coordinationv1.Lease) error {
	if current != nil && !errors.Is(ctx.Err(), context.Canceled) {
		return l.locked(current)
	}
	return fmt.Errorf("wait for the lock of %s: %w", l.what, ctx.Err())
}

// abandon makes sure that a lock which is not waited for any longer, and which may be
// ours without our knowing, keeps nobody waiting.
func (l *leaseLock) abandon(ctx context.Context, w *wait, err error) error {
	if w.tried {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
		defer cancel()
		_ = l.release(ctx, nil) // else it expires
	}
	return err
}

// get returns nil when there is no such Lease.
func (l *leaseLock) get(ctx context.Context) (*coordinationv1.Lease, error) {
	lease, err := l.client.Leases.Leases(l.namespace).Get(ctx, l.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // no Lease is an answer
	case err != nil:
		return nil, l.client.Explain(err, "get", l.String())
	}
	return lease, nil
}

// String names the Lease.
func (l *leaseLock) String() string { return "Lease " + l.namespace + "/" + l.name }

// take writes our name into the Lease. If anybody wrote since current was read
// (nil: it was not there), the error is a conflict or says that it exists already.
func (l *leaseLock) take(ctx context.Context, current *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	now := metav1.NowMicro()
	next := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.namespace, Name: l.name}}
	transitions := int32(0)
	if current != nil {
		next = current.DeepCopy()
		if t := current.Spec.LeaseTransitions; t != nil {
			transitions = *t + 1
		}
	}
	seconds := int32(l.duration / time.Second)
	next.Spec.HolderIdentity, next.Spec.LeaseDurationSeconds, next.Spec.LeaseTransitions = &l.identity, &seconds, &transitions
	next.Spec.AcquireTime, next.Spec.RenewTime = &now, &now
	said, err := json.Marshal(l.holder)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", l.what, err)
	}
	metav1.SetMetaDataLabel(&next.ObjectMeta, labelManagedBy, managedBy)
	metav1.SetMetaDataAnnotation(&next.ObjectMeta, annotationHolder, string(said))
	for name, value := range l.annotations {
		metav1.SetMetaDataAnnotation(&next.ObjectMeta, name, value)
	}
	if current == nil {
		taken, err := l.client.Leases.Leases(l.namespace).Create(ctx, next, metav1.CreateOptions{FieldManager: fieldManager})
		if apierrors.IsNotFound(err) {
			return nil, &NamespaceError{Namespace: l.namespace, For: "the lock of " + l.what, Err: err}
		}
		return taken, l.client.Explain(err, "create", l.String())
	}
	return l.update(ctx, next)
}

func (l *leaseLock) update(ctx context.Context, next *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	lease, err := l.client.Leases.Leases(l.namespace).Update(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
	return lease, l.client.Explain(err, "update", l.String())
}

// free reports whether the lock may be taken, or is ours already.
func (l *leaseLock) free(current *coordinationv1.Lease, w *watcher) bool {
	switch holderOf(current) {
	case "", l.identity:
		return true
	}
	if w.see(current, l.duration, time.Now()) {
		return true
	}
	switch said := holderSaid(current); said.Process.look(said.PID) {
	case processGone:
		return true
	case processRuns:
		w.alive = true
	case processUnknown:
	}
	return false
}

func (l *leaseLock) locked(current *coordinationv1.Lease) error {
	said := holderSaid(current)
	return &LockedError{Store: l.what + " of " + l.client.Target.String(), Holder: said.Holder}
}

func (l *leaseLock) lost(current *coordinationv1.Lease) error {
	said := holderSaid(current)
	return &LockLostError{What: l.what, Holder: said.Holder}
}

// observation says what is waited for.
func (l *leaseLock) observation(current *coordinationv1.Lease, w *watcher) string {
	if current == nil {
		return l.what + ": " + l.client.Target.String() + " does not answer"
	}
	said := holderSaid(current)
	text := l.what + " is in use by " + said.Holder.String()
	if !w.alive {
		text += ", if that still runs"
	}
	return text
}

// holderOf is the identity of the holder; "" when nobody is.
func holderOf(l *coordinationv1.Lease) string {
	if l == nil || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// holderSaid is for messages, and for knowing a process of this computer: what cannot
// be read is not known.
func holderSaid(l *coordinationv1.Lease) leaseHolder {
	var h leaseHolder
	if json.Unmarshal([]byte(l.Annotations[annotationHolder]), &h) != nil {
		return leaseHolder{}
	}
	return h
}

// watcher judges whether the holder of a lease still renews it.
type watcher struct {
	holder, seen string    // the holder, and its last renewal
	since        time.Time // when that was first seen, in an unbroken row of answers
	alive        bool      // the holder was seen to do something
	changed      bool      // there is another holder than last time
}

// see reports whether the lease has run out at our time now: whether its holder did not
// renew it for as long as it promised (else: for usual) while we looked on.
func (w *watcher) see(l *coordinationv1.Lease, usual time.Duration, now time.Time) bool {
	promised := usual
	if s := l.Spec.LeaseDurationSeconds; s != nil && *s > 0 {
		promised = time.Duration(*s) * time.Second
	}
	seen := holderOf(l)
	w.changed = w.holder != "" && w.holder != seen
	w.holder = seen
	if t := l.Spec.RenewTime; t != nil {
		seen += " " + t.UTC().Format(time.RFC3339Nano)
	}
	switch {
	case w.seen == "":
		w.seen, w.since = seen, now
	case w.seen != seen:
		w.seen, w.since, w.alive = seen, now, true
	case w.since.IsZero():
		w.since = now
	}
	return now.Sub(w.since) >= promised
}

// restart forgets how long the holder was silent: it may have had no chance to speak.
func (w *watcher) restart() { w.since = time.Time{} }

// heldLease is a lock that is ours, and is renewed until it is released.
type heldLease struct {
	*leaseLock
	stop context.CancelFunc
	done chan struct{}         // closed when the renewing has ended
	last *coordinationv1.Lease // as last written; the renewing goroutine's until done
	gone error                 // *LockLostError, after done
}

// hold begins the renewing. It outlives ctx: whoever was interrupted still has things
// to put in order under the lock.
func (l *leaseLock) hold(ctx context.Context, taken *coordinationv1.Lease, lost func(error)) *heldLease {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	h := &heldLease{leaseLock: l, stop: stop, done: make(chan struct{}), last: taken}
	go func() {
		defer close(h.done)
		h.gone = h.keep(ctx)
		if h.gone != nil {
			lost(h.gone)
		}
	}()
	return h
}

// keep renews until ctx ends, or until the lock is lost: somebody else has it, or the
// cluster does answer but has refused the renewal for longer than the lock lasts, so
// that somebody else may have it.
func (h *heldLease) keep(ctx context.Context) error {
	every := h.duration / 3
	timer := time.NewTimer(every)
	defer timer.Stop()
	var refused time.Time // since when
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		try, cancel := context.WithTimeout(ctx, every)
		err := h.renew(try)
		cancel()
		var lost *LockLostError
		switch {
		case ctx.Err() != nil && !errors.As(err, &lost):
			return nil
		case err == nil:
			refused = time.Time{}
			timer.Reset(every)
			continue
		case errors.As(err, &lost):
			return err
		case errors.Is(err, capi.ErrUnavailable):
			refused = time.Time{}
		case refused.IsZero():
			refused = time.Now()
		case time.Since(refused) > h.duration:
			return &LockLostError{What: h.what, Err: err}
		}
		timer.Reset(h.duration / 15)
	}
}

// renew says that we are still there. What somebody deleted or emptied is ours again.
func (h *heldLease) renew(ctx context.Context) error {
	for {
		next := h.last.DeepCopy()
		now := metav1.NowMicro()
		next.Spec.RenewTime = &now
		renewed, err := h.update(ctx, next)
		if err == nil {
			h.last = renewed
			return nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return err
		}
		current, err := h.get(ctx)
		if err != nil {
			return err
		}
		switch holderOf(current) {
		case h.identity:
		case "":
			if current, err = h.take(ctx, current); apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
				continue
			}
			if err != nil {
				return err
			}
		default:
			return h.lost(current)
		}
		h.last = current
	}
}

// giveBack ends the renewing and releases the lock. It does not hang while the cluster
// does not answer. A lock that was lost is not ours to release: then the error is a
// *LockLostError, the one that lost was called with if it was.
func (h *heldLease) giveBack(ctx context.Context) error {
	h.stop()
	<-h.done
	if h.gone != nil {
		return h.gone
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	err := h.release(ctx, h.last)
	var gone *LockLostError
	if err == nil || errors.As(err, &gone) {
		return err
	}
	return fmt.Errorf("unlock %s (it unlocks itself within %s): %w", h.what, h.duration, err)
}

// release clears the holder if that is us; if it is somebody else the error is a
// *LockLostError. current is the Lease as last seen, or nil to look first. The object
// stays, so that the next one need not create it.
func (l *leaseLock) release(ctx context.Context, current *coordinationv1.Lease) error {
	for {
		if current == nil {
			var err error
			if current, err = l.get(ctx); err != nil {
				return err
			}
		}
		switch holderOf(current) {
		case l.identity:
		case "":
			return nil
		default:
			return l.lost(current)
		}
		next := current.DeepCopy()
		nobody := ""
		next.Spec.HolderIdentity = &nobody
		delete(next.Annotations, annotationHolder)
		_, err := l.update(ctx, next)
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return err
		}
		current = nil
	}
}

// NamespaceError says that a namespace is missing.
type NamespaceError struct {
	Namespace string
	For       string // what was to be written there
	Err       error  // of the API
}

// Error implements error.
func (e *NamespaceError) Error() string {
	return fmt.Sprintf("%s: there is no namespace %s", e.For, e.Namespace)
}

// Unwrap implements errors.Unwrap.
func (e *NamespaceError) Unwrap() error { return e.Err }

// NextCommand is a command to go on with.
func (e *NamespaceError) NextCommand() string {
	if e.Namespace == SystemNamespace {
		return "capplunder init"
	}
	return "kubectl create namespace " + e.Namespace
}
