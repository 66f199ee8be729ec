package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/internal/kubeconfig"
	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/state"
)

func machines(errs ...error) *apply.RunError {
	run := &apply.RunError{}
	for i, err := range errs {
		run.Machines = append(run.Machines, &apply.MachineError{
			Key: capi.Key{Namespace: "default", Name: fmt.Sprint("m", i)}, Step: event.StepOS, Err: err, Next: "capplunder apply -f x",
		})
	}
	return run
}

func TestExitCode(t *testing.T) {
	noHardware := fmt.Errorf("%w: %w", apply.ErrNoHardware, &wait.TimeoutError{LimitName: "--hardware-timeout"})
	timeout := &wait.TimeoutError{What: "install OS", LastErr: wire.ErrUnreachable}
	cancelled := &wait.CancelledError{What: "install OS"}
	safety := &apply.SafetyError{Message: "a stranger"}
	record := &apply.RecordError{Err: errors.New("disk full")}
	refused := &wire.RefusedError{Op: "POST /deployment", Message: "no"}
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"nothing", nil, exitDone},
		{"anything", errors.New("boom"), exitOther},
		{"usage", usagef(nil, "unknown flag"), exitUsage},
		{"bad input", fmt.Errorf("x: %w", &capi.InputError{}), exitUsage},
		{"no such machine", &apply.NoRecordError{}, exitUsage},
		{"no plunderclient.yaml", &usageError{err: plunder.ErrNoConfig}, exitUsage},
		{"unreachable", fmt.Errorf("x: %w", wire.ErrUnreachable), exitPlunder},
		{"unreachable until the deadline", fmt.Errorf("%w: %w", wire.ErrUnreachable, context.DeadlineExceeded), exitPlunder},
		{"no answer", wire.ErrNoAnswer, exitPlunder},
		{"no plunder server at all", wire.ErrProtocol, exitPlunder},
		{"ended watch", &silentError{context.Canceled}, exitInterrupted},
		{"certificate", wire.ErrCertificate, exitPlunder},
		{"refused", refused, exitPlunder},
		{"unknown boot configuration", errors.Join(&apply.MachineError{Err: &wire.UnknownBootConfigError{}}), exitPlunder},
		{"conflict", &wire.ConflictError{}, exitPlunder},
		{"store", &storeError{errors.New("permission denied")}, exitStore},
		{"corrupt store", failing(&state.CorruptError{}), exitStore},
		{"not recorded", record, exitStore},
		{"cluster does not answer", fmt.Errorf("x: %w", capi.ErrUnavailable), exitStore},
		{"interrupted while the cluster did not answer", fmt.Errorf("%w: %w", capi.ErrUnavailable, context.Canceled), exitInterrupted},
		{"not allowed", fmt.Errorf("x: %w", &kube.ForbiddenError{}), exitStore},
		{"no CRDs", &kube.NotInstalledError{}, exitStore},
		{"no contract", &kube.ContractError{Contracts: []string{"v1beta2"}}, exitStore},
		{"manifest of a version that is not served", failing(&kube.VersionError{}), exitUsage},
		{"context of another cluster", &kubeconfig.ConflictError{}, exitRefused},
		{"no bootstrap data", failing(&state.NoBootstrapDataError{}), exitUsage},
		{"no bootstrap data for one machine", machines(failing(&state.NoBootstrapDataError{})), exitMachines},
		{"changed claim", failing(&state.ClaimedError{}), exitRefused},
		{"protected", failing(&state.ProtectedError{Machines: []capi.Key{{Name: "m"}}}), exitRefused},
		{"machines with hardware", failing(&state.OccupiedError{Machines: []capi.Key{{Name: "m"}}}), exitRefused},
		{"somebody else first", &wait.TimeoutError{LastErr: failing(capi.ErrPending)}, exitTimeout},
		{"address of another machine", &apply.RecordError{Err: failing(&state.TakenError{})}, exitRefused},
		{"machines that are left out", errors.Join(&capi.UnfitError{}, nil), exitMachines},
		{"machines that are left out, and no server", errors.Join(wire.ErrUnreachable, &capi.UnfitError{}), exitPlunder},
		{"not confirmed", &notConfirmedError{}, exitRefused},
		{"safety", safety, exitRefused},
		{"locked", fmt.Errorf("x: %w", failing(&state.LockedError{})), exitLocked},
		{"interrupted while reading the store", failing(context.Canceled), exitInterrupted},
		{"locked until the deadline", fmt.Errorf("%w: %w", &state.LockedError{}, context.DeadlineExceeded), exitLocked},
		{"interrupted", fmt.Errorf("x: %w", context.Canceled), exitInterrupted},
		{"interrupted call", fmt.Errorf("%w: %w", wire.ErrUnreachable, context.Canceled), exitInterrupted},
		{"timeout", timeout, exitTimeout},
		{"deadline", context.DeadlineExceeded, exitTimeout},

		{"one machine failed", machines(errors.New("boom")), exitMachines},
		{"one machine refused by plunder", machines(refused), exitMachines},
		{"one machine without hardware", machines(noHardware), exitNoHardware},
		{"all without hardware", machines(noHardware, noHardware), exitNoHardware},
		{"one machine timed out", machines(timeout), exitTimeout},
		{"all timed out", machines(timeout, timeout), exitTimeout},
		{"one machine refused for safety", machines(safety), exitRefused},
		{"different reasons", machines(timeout, noHardware), exitMachines},
		{"different reasons, one unsafe", machines(safety, timeout), exitMachines},
		{"not recorded wins over failures", machines(errors.New("boom"), record, noHardware), exitStore},
		{"interrupted wins over everything", machines(errors.New("boom"), record, cancelled), exitInterrupted},
		{"the lock was lost", errors.Join(&state.LockLostError{}, machines(cancelled)), exitLocked},
		{"a run joined with nothing else", errors.Join(machines(timeout), nil), exitTimeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitCode(tt.err); got != tt.want {
				t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

// docs/exit-codes.md has a row for every exit code.
func TestExitCodesAreDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{
		exitDone, exitOther, exitUsage, exitPlunder, exitStore, exitNoHardware, exitMachines,
		exitTimeout, exitRefused, exitLocked, exitInterrupted,
	} {
		if !strings.Contains(string(data), fmt.Sprintf("| %d | ", code)) {
			t.Errorf("no row for exit code %d", code)
		}
	}
}

func TestPrintError(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"one line", errors.New("boom"), "error: boom\n"},
		{"usage", usagef(newVersionCmd(nil, nil), "unknown flag --x"), "error: unknown flag --x\nnext: version --help\n"},
		{
			"all problems of an input", &capi.InputError{Problems: []capi.Problem{{Origin: capi.Origin{File: "a.yaml", Line: 3}, Message: "x"}, {Origin: capi.Origin{File: "b.yaml", Line: 1}, Message: "y"}}},
			"error: 2 problems in the input\nerror: a.yaml:3: x\nerror: b.yaml:1: y\n",
		},
		{
			"a run: every machine, every command once", &apply.RunError{Counts: event.Counts{Failed: 2}, Machines: machines(errors.New("boom"), errors.New("bang")).Machines},
			"error: 2 failed\nerror: Machine default/m0: os: boom\nerror: Machine default/m1: os: bang\nnext: capplunder apply -f x\n",
		},
		{"unreachable", fmt.Errorf("call: %w", wire.ErrUnreachable), "error: call: plunder server not reachable\nnext: capplunder get unleased\n"},
		{"Ctrl-C before anything began", fmt.Errorf("ask plunder: %w", context.Canceled), "error: ask plunder: interrupted\n"},
		{"nothing to say", &silentError{context.Canceled}, ""},
		{"no such machine", &apply.NoRecordError{Keys: []capi.Key{{Namespace: "default", Name: "x"}}, Store: "local store /s"}, "error: the local store /s has no Machine default/x\nnext: capplunder get machines -A\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			streams, _, errOut := ui.Test("", false)
			newFactory([]string{"get", "unleased"}, streams, nil).printError(tt.err)
			if diff := cmp.Diff(tt.want, errOut.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
