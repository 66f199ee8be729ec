package cli

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/plunder-app/capplunder/internal/ui"
)

func TestFirstSignalCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		streams, _, errOut := ui.Test("", false)
		signals := make(chan os.Signal, 2)
		signals <- os.Interrupt
		code := supervise(signals, streams, func(ctx context.Context) int {
			<-ctx.Done()
			return 42
		})
		synctest.Wait()
		if code != 42 || !strings.Contains(errOut.String(), "stopping... (Ctrl-C again to exit at once)") {
			t.Errorf("exit %d, stderr %q", code, errOut)
		}
	})
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		streams, _, _ := ui.Test("", false)
		signals := make(chan os.Signal, 2)
		signals <- os.Interrupt
		signals <- syscall.SIGTERM
		deaf := make(chan struct{})
		defer close(deaf)
		code := supervise(signals, streams, func(context.Context) int {
			<-deaf
			return 0
		})
		if code != exitInterrupted {
			t.Errorf("exit %d, want %d", code, exitInterrupted)
		}
	})
}
