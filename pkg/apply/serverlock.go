package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// serverTurn is how long a run may go on letting more writes in under one lock of
// the server, while other runs wait for it.
const serverTurn = 3 * time.Second

// lockedServer is a plunder server whose deployments are only written under the
// store's lock of it, because writers that do not know of each other lose each
// other's work there (real servers have no lock; the simulator's RaceWindow). All machines of a run share the lock
// as long as any of them writes, up to serverTurn.
type lockedServer struct {
	Server
	store Store
	warn  func(event.Event)

	mu      sync.Mutex
	users   int
	busy    bool          // the lock is being taken or given back
	unlock  func() error  // while it is held
	since   time.Time     // when it was taken
	changed chan struct{} // closed, and replaced, at every change
	warned  bool
}

// EnsureDeployment implements Server.
func (s *lockedServer) EnsureDeployment(ctx context.Context, d wire.Deployment) error {
	return s.alone(ctx, func() error { return s.Server.EnsureDeployment(ctx, d) })
}

// ReleaseDeployment implements Server.
func (s *lockedServer) ReleaseDeployment(ctx context.Context, mac, address, hostname string) error {
	return s.alone(ctx, func() error { return s.Server.ReleaseDeployment(ctx, mac, address, hostname) })
}

// RemoveDeployment implements Server.
func (s *lockedServer) RemoveDeployment(ctx context.Context, mac string) error {
	return s.alone(ctx, func() error { return s.Server.RemoveDeployment(ctx, mac) })
}

// EnsurePlaceholder implements Server.
func (s *lockedServer) EnsurePlaceholder(ctx context.Context) error {
	return s.alone(ctx, func() error { return s.Server.EnsurePlaceholder(ctx) })
}

func (s *lockedServer) alone(ctx context.Context, write func() error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.leave()
	return write()
}

func (s *lockedServer) enter(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.unlock != nil && time.Since(s.since) < serverTurn {
			s.users++
			s.mu.Unlock()
			return nil
		}
		if s.unlock == nil && !s.busy {
			s.busy = true
			s.mu.Unlock()
			return s.take(ctx)
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take gets the lock. A store that does not answer stops nobody: the writes are
// read back, and other runs cannot take the lock from it either.
func (s *lockedServer) take(ctx context.Context) error {
	unlock, err := s.store.LockServer(ctx, s.URL())
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("wait for the lock of %s: %w: %w", s.URL(), ctx.Err(), err) // waited for again, if there is time left
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, capi.ErrUnavailable) {
		if !s.warned {
			s.warn(event.Event{Type: event.Warning, Message: fmt.Sprintf("writing deployments without the lock of %s: %v", s.URL(), err)})
		}
		s.warned = true
		unlock, err = func() error { return nil }, nil
	}
	if err == nil {
		s.unlock, s.since = unlock, time.Now()
		s.users++
	}
	s.signal()
	return err
}

// leave gives the lock back after the last writer. One that cannot be given back
// runs out by itself.
func (s *lockedServer) leave() {
	s.mu.Lock()
	if s.users--; s.users > 0 {
		s.mu.Unlock()
		return
	}
	unlock := s.unlock
	s.unlock, s.busy = nil, true
	s.mu.Unlock()
	_ = unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal()
}

// signal ends a change and tells those that wait; s.mu is held.
func (s *lockedServer) signal() {
	s.busy = false
	close(s.changed)
	s.changed = make(chan struct{})
}
