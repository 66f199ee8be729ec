// Package cli is the command line: flags, configuration, questions and exit
// codes. It turns them into plain options and calls the packages that do the
// work; it decides nothing about machines itself.
package cli

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// Main runs the process and returns its exit code. The first SIGINT or SIGTERM
// cancels the run, the second one ends it at once.
func Main() int {
	kube.Quiet()
	streams := ui.System(os.LookupEnv)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return supervise(signals, streams, func(ctx context.Context) int {
		return Run(ctx, os.Args[1:], streams, os.Environ())
	})
}

// sameSignal is within what time a second SIGTERM is the first one, sent twice. A
// person cannot type kill that fast.
const sameSignal = time.Second

// supervise runs until run returns, or until a second signal.
func supervise(signals <-chan os.Signal, streams *ui.IOStreams, run func(context.Context) int) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan int, 1)
	go func() { done <- run(ctx) }()
	var first os.Signal
	var when time.Time
	for {
		var sig os.Signal
		select {
		case code := <-done:
			return code
		case sig = <-signals:
		}
		switch {
		case first == nil:
			first, when = sig, time.Now()
		case first == syscall.SIGTERM && sig == syscall.SIGTERM && time.Since(when) < sameSignal:
			continue // timeout(1) and others tell the process and its group
		default:
			streams.Err.Restore()
			return exitInterrupted
		}
		cancel()
		// Not here: a terminal or pipe that takes no output must not keep the second
		// signal waiting.
		go streams.Err.Linef("stopping... (Ctrl-C again to exit at once)")
	}
}

// Run runs one command line and returns its exit code. environ is as os.Environ.
func Run(ctx context.Context, args []string, streams *ui.IOStreams, environ []string) int {
	f := newFactory(args, streams, environ)
	err := execute(ctx, f, args)
	code := exitCode(err)
	if err != nil {
		f.printError(err)
	}
	return code
}

func execute(ctx context.Context, f *factory, args []string) error {
	root := newRootCmd(f) //nolint:contextcheck // commands get the context when they run
	root.SetArgs(args)
	root.SetIn(f.io.In)
	root.SetOut(f.io.Out)
	root.SetErr(f.io.Err)
	return root.ExecuteContext(ctx)
}

// environment makes a look-up of KEY=value pairs; the last of several wins.
func environment(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}
