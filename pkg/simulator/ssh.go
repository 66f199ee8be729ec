package simulator

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// ErrRefused is the error for a Config.Hosts function whose host refuses
// connections.
var ErrRefused = syscall.ECONNREFUSED

// dialTimeout is plunder's own for SSH connections.
const dialTimeout = 2 * time.Second

func dialRefused(address string) error {
	return fmt.Errorf("dial tcp %s:22: connect: connection refused", address)
}

func dialTimedOut(address string) error { return fmt.Errorf("dial tcp %s:22: i/o timeout", address) }

func handshakeFailed() error {
	return errors.New("ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey], no supported methods remain")
}

func exited(status int) error { return said("Process exited with status %d", status) }

// ssh runs a line in one SSH session on one host and returns its output.
func (s *Server) ssh(l *life, a wire.Action, line string, t target) (string, error) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	run, err := s.dial(l, t.address)
	if err != nil {
		return "", err
	}
	cmd := host.Command{User: t.user, Line: line, Combined: a.CommandPipeCmd == "", Task: a.Name}
	f := s.actionFault(a, t)
	lost := f != nil && f.Kind == KindLose
	switch {
	case f == nil || lost:
	case f.Kind == KindFail:
		l.sleep(f.After)
		return "", exited(1)
	case f.Kind == KindSwap:
		s.swapAt(t.address)
	default:
		trigger := time.AfterFunc(f.After, func() { s.strike(f.Kind, t, cancel) })
		defer trigger.Stop()
		if f.After == 0 { // before the command does anything
			return hang(l)
		}
	}
	if !cmd.Combined {
		out, err := s.runLocal(ctx, a.CommandPipeCmd, s.world.RunPipe)
		if ctx.Err() != nil {
			return hang(l)
		}
		if err != nil {
			return "", err
		}
		cmd.Stdin = []byte(out)
	}
	if lost {
		run = s.losing(l, f.After, run)
	}
	res, err := run(ctx, cmd)
	switch {
	case err != nil:
		return "", err
	case errors.Is(res.Err, host.ErrDown), res.Err != nil && ctx.Err() != nil:
		return hang(l) // nobody closed the connection
	case res.Err != nil:
		return "", handshakeFailed()
	case res.Exit != 0 && !cmd.Combined:
		return "", exited(res.Exit) // with a pipe, the output of a failure is lost
	case res.Exit != 0:
		return res.Output, exited(res.Exit)
	}
	return res.Output, nil
}

// losing is a host behind a connection that is lost after a while. A command that has not
// ended by then goes on, whatever becomes of the server, and nobody hears of it.
func (s *Server) losing(l *life, after time.Duration, run HostFunc) HostFunc {
	type answer struct {
		res host.Result
		err error
	}
	return func(_ context.Context, c host.Command) (host.Result, error) {
		done := make(chan answer, 1)
		s.work.Go(func() {
			res, err := run(s.rack.ctx, c)
			done <- answer{res, err}
		})
		limit := time.NewTimer(after)
		defer limit.Stop()
		select {
		case a := <-done:
			return a.res, a.err
		case <-limit.C:
		case <-l.ctx.Done():
		}
		_, err := hang(l)
		return host.Result{}, err
	}
}

// swapAt replaces the boot disk of the machine at an address.
func (s *Server) swapAt(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machineAt(address); m != nil {
		s.swapDisk(m, s.drives(m)[0].Name)
	}
}

// hang is a session in which nothing happens any more.
func hang(l *life) (string, error) {
	<-l.ctx.Done()
	return "", context.Cause(l.ctx)
}

// dial connects to whoever has the address.
func (s *Server) dial(l *life, address string) (HostFunc, error) {
	if !l.sleep(s.cfg.SSHLatency) {
		return nil, context.Cause(l.ctx)
	}
	if f := s.cfg.Hosts[address]; f != nil {
		return func(ctx context.Context, c host.Command) (host.Result, error) {
			res, err := f(ctx, c)
			if errors.Is(err, ErrRefused) {
				err = dialRefused(address)
			}
			return res, err
		}, nil
	}
	s.mu.Lock()
	now := time.Now()
	s.advance(now)
	f := s.fault(stepSSH, s.subjectFor("", address, ""), KindRefuse, KindLose, KindHang, KindFail)
	h := s.world.At(address)
	m := s.machineAt(address)
	// For a moment before it is up the kernel answers, and sshd does not yet.
	waking := h == nil && m != nil && (m.Phase == phaseInstalling || m.Phase == phaseBooting && m.bootable()) &&
		m.Next.Sub(now) < s.cfg.BootTime/4
	s.mu.Unlock()
	kind := ""
	if f != nil {
		kind = f.Kind
	}
	switch {
	case kind == KindRefuse, kind == "" && waking:
		return nil, dialRefused(address)
	case kind == KindFail:
		return nil, handshakeFailed()
	case kind == KindHang:
		_, err := hang(l)
		return nil, err
	case kind == KindLose, h == nil:
		if !l.sleep(dialTimeout) {
			return nil, context.Cause(l.ctx)
		}
		return nil, dialTimedOut(address)
	}
	return func(ctx context.Context, c host.Command) (host.Result, error) {
		if c.User == "" { // plunder has no name to log in with, and sshd no such user
			return host.Result{}, handshakeFailed()
		}
		defer s.touchAt(address)
		return h.Run(ctx, c), nil
	}, nil
}

// touchAt notes that the host at an address may have changed.
func (s *Server) touchAt(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.machineAt(address); m != nil {
		s.saving.touch(m.MAC)
	}
}

// actionFault finds the fault for an action on a host.
func (s *Server) actionFault(a wire.Action, t target) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault(stepAction+a.Name, s.subjectFor("", t.address, ""))
}

// strike does to a machine, or to the server, what a fault of an action says.
func (s *Server) strike(kind string, t target, stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	now := time.Now()
	s.advance(now)
	m := s.machineAt(t.address)
	switch {
	case kind == KindCrash:
		s.crash(s.cfg.CrashDown)
		return
	case kind == KindDie && m != nil:
		s.powerOff(m)
	case kind == KindReset && m != nil:
		s.reset(m, now)
	}
	stop()
	s.save()
}

// runLocal runs a line with bash on the plunder server.
func (s *Server) runLocal(ctx context.Context, line string, run func(context.Context, string) host.Result) (string, error) {
	s.mu.Lock()
	s.advance(time.Now())
	s.mu.Unlock()
	res := run(ctx, line)
	switch {
	case res.Err != nil:
		return "", res.Err
	case res.Exit != 0:
		return "", fmt.Errorf("exit status %d", res.Exit)
	}
	return res.Output, nil
}
