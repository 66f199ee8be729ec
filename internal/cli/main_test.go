package cli

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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

// timeout(1) tells the process and its group, so one SIGTERM arrives twice.
func TestSIGTERMTwiceAtOnceIsOne(t *testing.T) {
	for name, tt := range map[string]struct {
		pause time.Duration
		want  int
	}{
		"at once": {10 * time.Millisecond, 42},
		"later":   {3 * time.Second, exitInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				streams, _, _ := ui.Test("", false)
				signals := make(chan os.Signal, 2)
				signals <- syscall.SIGTERM
				time.AfterFunc(tt.pause, func() { signals <- syscall.SIGTERM })
				code := supervise(signals, streams, func(ctx context.Context) int {
					<-ctx.Done()
					time.Sleep(5 * time.Second) // what a run needs to stop
					return 42
				})
				time.Sleep(10 * time.Second)
				if code != tt.want {
					t.Errorf("exit %d, want %d", code, tt.want)
				}
			})
		})
	}
}
