// Command cycle proves on a real plunder server that machines come back: it starts the
// server and test/real/rack in namespaces of their own, and then applies, deletes,
// destroys and kills with the real capplunder. Every boot from the network is looked at:
// what the server's OFFER and ACK named, and where that leads. docs/testing.md says what
// it needs; make real-cycle PLUNDER=/path/to/plunder runs it.
//
// It exits 1 on any deviation, and says which.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

type options struct {
	Plunder, Capplunder, Rack string // programs
	Manifests                 string // folder of test/real
	User                      string // account that machines are reached as
	Dir                       string
	Parts                     string // of all, what to do
	Rounds, Kills             int
	Seed                      uint64
	Step                      time.Duration // of the rack: a turn of its loop, an installation, Kubernetes
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	var o options
	f := flag.NewFlagSet("cycle", flag.ContinueOnError)
	f.StringVar(&o.Plunder, "plunder", "", "plunder server, built from its public source")
	f.StringVar(&o.Capplunder, "capplunder", "bin/capplunder", "capplunder")
	f.StringVar(&o.Rack, "rack", "bin/rack", "test/real/rack")
	f.StringVar(&o.Manifests, "manifests", "test/real", "folder with server.yaml, deployment.yaml, machines.yaml and ha.yaml")
	f.StringVar(&o.User, "user", "rack", "account that the machines are reached as")
	f.StringVar(&o.Dir, "dir", "", "folder for everything that is written (default a temporary one, kept if something deviates)")
	f.StringVar(&o.Parts, "parts", "rounds,ha,kills", "what to do")
	f.IntVar(&o.Rounds, "rounds", 3, "how often the cycle goes round, for each of the two cases")
	f.IntVar(&o.Kills, "kills", 10, "how many deletes are killed")
	f.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "of the moments at which they are killed")
	f.DurationVar(&o.Step, "step", time.Second, "how long the rack takes to loop once, to install, to install Kubernetes")
	if err := f.Parse(args); err != nil {
		return err
	}
	if o.Plunder == "" || f.NArg() > 0 {
		return errors.New("usage: cycle -plunder /path/to/plunder [flags]; see docs/testing.md")
	}
	if os.Getpid() != 1 {
		return inside(ctx, args)
	}
	if msg, err := exec.CommandContext(ctx, "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, msg)
	}
	l, err := newLab(o, out)
	if err != nil {
		return err
	}
	defer l.close()
	l.say("seed %d, everything is in %s", o.Seed, l.dir)
	if err := l.start(ctx); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(o.Seed, 0)) //nolint:gosec // to be repeated by its seed
	for part := range strings.SplitSeq(o.Parts, ",") {
		err := map[string]func() error{
			"rounds": func() error { return l.rounds(ctx) },
			"ha":     func() error { return l.highlyAvailable(ctx) },
			"kills":  func() error { return l.kills(ctx, random) },
		}[part]
		if err == nil {
			return fmt.Errorf("-parts: %q is none of rounds, ha, kills", part)
		}
		if err := err(); err != nil {
			l.deviates("%s: %v", part, err)
			break // what follows would start from who knows where
		}
	}
	return l.report()
}

// inside runs this program again as the first process of its own process and network
// namespaces: its ports are free, nothing of it reaches a network, and when it ends,
// however it does, everything that it started ends with it.
func inside(ctx context.Context, args []string) error {
	if os.Getuid() != 0 {
		return errors.New("root is needed, for namespaces and the ports of DHCP, HTTP and SSH")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread()                         // Pdeathsig is about this thread
	cmd := exec.CommandContext(ctx, self, args...) //nolint:gosec // this program itself
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the run in its own namespaces: %w", err)
	}
	return nil
}
