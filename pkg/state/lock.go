package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const (
	// lockFile is locked with flock(2), so that the lock dies with its process. It
	// stays behind, empty: removing it would let two runs lock two different files.
	lockFile = "lock"
	// holderFile says who holds the lock. It means nothing while the lock is free,
	// as after a crash.
	holderFile = "lock.json"
	// lockPoll is how often a held lock is tried again.
	lockPoll = 100 * time.Millisecond
)

// Lock keeps other runs, and other uses of the same directory in this process,
// from writing to the store until unlock is called; it locks all clusters. If
// another run holds the lock, Lock waits for it as long as req.Patience, and then
// the error is a *LockedError. The lock is released when the process ends, however
// it ends, and is never lost before. Reading needs no lock.
func (l *Local) Lock(ctx context.Context, req capi.LockRequest) (held context.Context, unlock func() error, err error) {
	give := time.NewTimer(req.Patience)
	defer give.Stop()
	for {
		unlock, err = l.tryLock(ctx, req.Command)
		var locked *LockedError
		if !errors.As(err, &locked) {
			return ctx, unlock, err
		}
		if req.Patience <= 0 {
			return nil, nil, err
		}
		if req.Observe != nil {
			req.Observe("in use by " + locked.Holder.String())
		}
		timer := time.NewTimer(lockPoll)
		select {
		case <-timer.C:
		case <-give.C:
			timer.Stop()
			return nil, nil, err
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, nil, fmt.Errorf("wait for the lock of %s: %w", l, ctx.Err())
			}
			return nil, nil, err
		}
	}
}

// LockServer implements the Store interface of pkg/apply. Only runs that share the
// directory know of each other, and Lock keeps those apart.
func (l *Local) LockServer(context.Context, string) (func() error, error) { return nothing, nil }

func nothing() error { return nil }

func (l *Local) tryLock(ctx context.Context, command string) (func() error, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", l, err)
	}
	if l.lock != nil {
		return nil, &LockedError{Store: l.String(), Holder: l.holder}
	}
	lock, err := l.flock()
	if err != nil {
		return nil, err
	}
	holder := newHolder(command)
	data, err := json.Marshal(holder)
	if err == nil {
		err = writeFile(filepath.Join(l.dir, holderFile), append(data, '\n'))
	}
	if err == nil {
		err = l.sweep()
	}
	if err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	l.lock, l.holder, l.claims = lock, holder, nil
	return func() error { return l.unlock(lock) }, nil
}

// unlock may be called more than once.
func (l *Local) unlock(lock *flock.Flock) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lock != lock {
		return nil
	}
	l.lock, l.claims = nil, nil
	// A holder file that cannot be removed does no harm: the lock is what counts.
	_ = os.Remove(filepath.Join(l.dir, holderFile))
	if err := lock.Unlock(); err != nil {
		return fmt.Errorf("unlock %s: %w", l, err)
	}
	return nil
}

// flock takes the lock of the directory, or returns a *LockedError.
func (l *Local) flock() (*flock.Flock, error) {
	if err := mkdirAll(l.dir); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(l.dir, lockFile), flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", l, err)
	}
	if !ok {
		return nil, &LockedError{Store: l.String(), Holder: l.readHolder()}
	}
	return lock, nil
}

// readHolder is for a message only: what cannot be read is not known.
func (l *Local) readHolder() Holder {
	var h Holder
	data, err := os.ReadFile(filepath.Join(l.dir, holderFile))
	if err != nil || json.Unmarshal(data, &h) != nil {
		return Holder{}
	}
	return h
}

func newHolder(command string) Holder {
	h := Holder{PID: os.Getpid(), Host: "unknown host", User: "unknown user", Command: command, Since: time.Now().UTC().Round(0)}
	if host, err := os.Hostname(); err == nil {
		h.Host = host
	}
	if u, err := user.Current(); err == nil {
		h.User = u.Username
	}
	return h
}
