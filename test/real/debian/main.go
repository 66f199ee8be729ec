// Command debian is run by run.sh on a Debian host in a folder. It stands for the plunder
// server: it runs the maps that pkg/translate makes, action by action, in the real
// shells, with the real apt, gpg, tar, openssl, containerd and kubeadm, and looks at
// what they have done to the host. It serves the Kubernetes packages itself, from
// 127.0.0.1: what is in them is a real kubeadm and stand-ins for the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	// folder is there on the host that run.sh has made, and nowhere else.
	folder = "/opt/test"
	job    = "job"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if _, err := os.Stat(folder + "/debian"); err != nil {
		return errors.New("this runs on the host that test/real/debian/run.sh makes; next: make real-debian")
	}
	m, err := newMirror(ctx)
	if err != nil {
		return err
	}
	defer m.close()
	h := &host{mirror: m}
	var failed []error
	for _, c := range h.checks() {
		start := time.Now()
		if err := c.check(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "FAIL %s: %v\n", c.name, err)
			failed = append(failed, errors.New(c.name))
			if c.needed {
				break
			}
			continue
		}
		fmt.Fprintf(os.Stderr, "ok   %s (%.1fs)\n", c.name, time.Since(start).Seconds())
	}
	if len(failed) > 0 {
		return fmt.Errorf("failed: %w", errors.Join(failed...))
	}
	return nil
}

// runMap runs a map as a plunder server does: one action after the other, until one
// fails that may not.
func runMap(ctx context.Context, m wire.Map, err error) (wire.Log, error) {
	if err != nil {
		return wire.Log{}, err
	}
	l := wire.Log{State: wire.StateCompleted}
	for _, a := range m.Deployments[0].Actions {
		out, err := runAction(ctx, a)
		e := wire.LogEntry{Task: a.Name, Entry: out}
		if err != nil {
			e.Error = err.Error()
		}
		l.Entries = append(l.Entries, e)
		if err != nil && !a.IgnoreFail {
			l.State = wire.StateFailed
			return l, fmt.Errorf("%s: %w: %s", a.Name, err, last(out, 15))
		}
	}
	return l, nil
}

// runAction runs a command in the login shell's place, with its piped input.
func runAction(ctx context.Context, a wire.Action) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(a.Timeout)*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "/bin/bash", "-c", a.Command) //nolint:gosec // that is what this is for
	if a.CommandPipeCmd != "" {
		in, err := exec.CommandContext(ctx, "/bin/bash", "-c", a.CommandPipeCmd).Output() //nolint:gosec // the same
		if err != nil {
			return "", err
		}
		c.Stdin = strings.NewReader(string(in))
	}
	c.WaitDelay = time.Second // a service that was started keeps no pipe open
	out, err := c.CombinedOutput()
	return string(out), err
}

// output runs a program and gives what it printed.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput() //nolint:gosec // the names are those in this package
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, last(string(out), 15))
	}
	return string(out), nil
}

func last(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
