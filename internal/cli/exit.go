package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/internal/kubeconfig"
	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/install"
	"github.com/plunder-app/capplunder/pkg/kube"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/receipt"
	"github.com/plunder-app/capplunder/pkg/state"
)

// Exit codes. They are documented, with their precedence, in docs/exit-codes.md.
const (
	exitDone        = 0
	exitOther       = 1
	exitUsage       = 2 // bad command line, configuration or manifests; nothing was touched
	exitPlunder     = 3 // plunder can't be reached, or refused
	exitStore       = 4 // Kubernetes or the local store failed, or is of no use as it is
	exitNoHardware  = 5
	exitMachines    = 6 // some machines failed
	exitTimeout     = 7
	exitRefused     = 8 // not confirmed, or refused for safety
	exitLocked      = 9 // another run holds the lock
	exitInterrupted = 130
)

// usageError is a mistake in the command line or the configuration.
type usageError struct {
	err  error
	next string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef makes a usageError; cmd, when given, is the command whose help helps.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	e := &usageError{err: fmt.Errorf(format, args...)}
	if cmd != nil {
		e.next = cmd.CommandPath() + " --help"
	}
	return e
}

// notConfirmedError: somebody has to agree, and did not.
type notConfirmedError struct{ message, next string }

func (e *notConfirmedError) Error() string { return e.message }

// refusedError: what was asked for would do harm; nothing was done.
type refusedError struct{ message, next string }

func (e *refusedError) Error() string { return e.message }

// silentError ends the program with the code of its cause and no message: what
// happened was wanted.
type silentError struct{ err error }

func (e *silentError) Error() string { return e.err.Error() }
func (e *silentError) Unwrap() error { return e.err }

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var run *apply.RunError
	var lost *state.LockLostError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &lost): // which ends a run as Ctrl-C would
		return exitLocked
	case errors.As(err, &run):
		return runExitCode(run)
	}
	return errorExitCode(err)
}

// runExitCode is for runs that ended with unfinished machines. What needs a
// person most comes first; machines that failed for different reasons are "some
// machines failed".
func runExitCode(run *apply.RunError) int {
	codes := make([]int, len(run.Machines))
	for i, m := range run.Machines {
		codes[i] = machineExitCode(m)
	}
	switch {
	case slices.Contains(codes, exitInterrupted):
		return exitInterrupted
	case slices.Contains(codes, exitStore):
		return exitStore
	case len(codes) > 0 && !slices.ContainsFunc(codes, func(c int) bool { return c != codes[0] }):
		return codes[0]
	}
	return exitMachines
}

// machineExitCode is the code of one machine's error. A machine that plunder
// refused, and anything else, is a failed machine.
func machineExitCode(err error) int {
	switch code := errorExitCode(err); code {
	case exitInterrupted, exitStore, exitNoHardware, exitTimeout, exitRefused:
		return code
	default:
		return exitMachines
	}
}

// errorExitCode classifies a single error.
func errorExitCode(err error) int {
	var (
		usage        *usageError
		input        *capi.InputError
		notConfirmed *notConfirmedError
		unwanted     *refusedError
		safety       *apply.SafetyError
		noRecord     *apply.NoRecordError
		record       *apply.RecordError
		locked       *state.LockedError
		taken        *state.TakenError
		claimed      *state.ClaimedError
		store        *storeError
		version      *kube.VersionError
		forbidden    *kube.ForbiddenError
		notInstalled *kube.NotInstalledError
		contract     *kube.ContractError
		unfit        *capi.UnfitError
		missing      *state.MissingError
		occupied     *state.OccupiedError
		noData       *state.NoBootstrapDataError
		rejected     *state.RefusedError
		harmful      *install.RefusedError
		mine         *kubeconfig.ConflictError
		receiptFile  *receipt.RefusedError
		badReceipt   *badReceiptError
		timeout      *wait.TimeoutError
		refused      *wire.RefusedError
		conflict     *wire.ConflictError
		unknownBoot  *wire.UnknownBootConfigError
	)
	switch {
	case errors.As(err, &usage), errors.As(err, &input), errors.As(err, &noRecord),
		errors.As(err, &version), errors.As(err, &missing), errors.As(err, &noData), errors.As(err, &rejected):
		return exitUsage
	case errors.Is(err, capi.ErrPaused), errors.Is(err, capi.ErrProtected), errors.As(err, &occupied), errors.As(err, &notConfirmed), errors.As(err, &unwanted), errors.As(err, &safety), errors.As(err, &claimed), errors.As(err, &taken), errors.As(err, &mine), errors.As(err, &harmful),
		errors.As(err, &receiptFile), errors.As(err, &badReceipt):
		return exitRefused
	case errors.As(err, &locked):
		return exitLocked
	case errors.As(err, &record), errors.As(err, &store), errors.As(err, &forbidden), errors.As(err, &notInstalled), errors.As(err, &contract):
		return exitStore
	case errors.Is(err, apply.ErrNoHardware):
		return exitNoHardware
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, capi.ErrUnavailable): // of a cluster that is not the store, or was not opened yet
		return exitStore
	case errors.As(err, &timeout):
		return exitTimeout
	case errors.Is(err, wire.ErrUnreachable), errors.Is(err, wire.ErrNoAnswer), errors.Is(err, wire.ErrCertificate), errors.Is(err, wire.ErrProtocol),
		errors.Is(err, wire.ErrNoDeployments), errors.Is(err, wire.ErrNotFound),
		errors.As(err, &refused), errors.As(err, &conflict), errors.As(err, &unknownBoot):
		return exitPlunder
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case errors.As(err, &unfit): // beside whatever else happened
		return exitMachines
	}
	return exitOther
}

// printError tells a person what went wrong: one line per problem, and the next
// command to type, when there is one.
func (f *factory) printError(err error) {
	console, again := f.io.Err, f.commandLine()
	var silent *silentError
	if errors.As(err, &silent) {
		return
	}
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		// The standard library's words for Ctrl-C.
		console.Linef("error: %s", strings.ReplaceAll(line, context.Canceled.Error(), "interrupted"))
	}
	commands := nextCommands(err)
	var conflict *state.ConflictError
	if errors.As(err, &conflict) {
		commands = append(commands, again+" --force-conflicts")
	}
	var locked *state.LockedError
	var lost *state.LockLostError
	switch {
	case len(commands) > 0:
	case errors.Is(err, wire.ErrUnreachable), errors.Is(err, capi.ErrUnavailable):
		commands = []string{again} // nothing was sent: when the server is back, it just works
	case errors.As(err, &lost):
		commands = []string{again} // what is recorded is not done again
	case errors.As(err, &locked) && !strings.Contains(again, "--lock-timeout"):
		commands = []string{again + " --lock-timeout 1h    # waits for it"}
	}
	for _, next := range commands {
		console.Linef("next: %s", f.inPlace(next, again))
	}
}

// inPlace adds to a command which server and store are meant, where it does not say so.
func (f *factory) inPlace(next, again string) string {
	command, remark, remarked := strings.Cut(next, "    # ")
	words := strings.Fields(command)
	about := func(string) bool { return false }
	switch {
	case strings.HasPrefix(next, again), len(words) < 2 || words[0] != name, slices.Contains(words, "--help"):
	case slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains([]string{"get", "delete", "destroy", "protect", "unprotect"}, w)
	}):
		about = func(string) bool { return true }
	case words[1] == "init":
		about = ofCluster
	}
	for _, fl := range f.placeFlags {
		said := slices.ContainsFunc(words, func(w string) bool {
			return w == "--"+fl.name || strings.HasPrefix(w, "--"+fl.name+"=") || fl.short != "" && strings.HasPrefix(w, "-"+fl.short)
		})
		if about(fl.name) && !said {
			command += fl.text
		}
	}
	if remarked {
		command += "    # " + remark
	}
	return command
}

// maxNext keeps a run with many failed machines from a page of commands.
const maxNext = 5

// nextCommands collects what err knows about going on, each command once.
func nextCommands(err error) []string {
	var next []string
	add := func(s string) {
		if s != "" && !slices.Contains(next, s) && len(next) < maxNext {
			next = append(next, s)
		}
	}
	var walk func(error)
	walk = func(err error) {
		switch e := err.(type) { //nolint:errorlint // every error of the tree is visited
		case *usageError:
			add(e.next)
		case *notConfirmedError:
			add(e.next)
		case *refusedError:
			add(e.next)
		case *apply.MachineError:
			add(e.Next)
		case *state.MissingError:
			add("kubectl get clusters.cluster.x-k8s.io,machines.cluster.x-k8s.io -A")
		case *apply.NoRecordError:
			add(name + " get machines -A")
		case *wire.UnknownBootConfigError:
			add(name + " get bootconfigs")
		case nextError:
			add(e.next)
		case interface{ NextCommand() string }:
			add(e.NextCommand())
		}
		switch e := err.(type) { //nolint:errorlint // likewise
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, sub := range e.Unwrap() {
				walk(sub)
			}
		}
	}
	walk(err)
	return next
}

// nextError adds a command to type to an error.
type nextError struct {
	error
	next string
}

func (e nextError) Unwrap() error { return e.error }
