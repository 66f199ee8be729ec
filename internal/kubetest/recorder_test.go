package kubetest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/internal/kubetest"
)

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatal(args ...any) {
	r.fatal = fmt.Sprint(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) { r.Fatal(fmt.Sprintf(format, args...)) }

// failure is what a helper says when it is misused.
func failure(t *testing.T, misuse func(tb testing.TB)) string {
	t.Helper()
	rec := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // Fatal ends the goroutine that calls it
		defer close(done)
		misuse(rec)
	}()
	<-done
	return rec.fatal
}

// Tests that share a server cannot take it away from each other.
func TestSharedIsShared(t *testing.T) {
	t.Parallel()
	kube := kubetest.Server(t)
	for name, misuse := range map[string]func(tb testing.TB){
		"stop":    func(tb testing.TB) { kube.StopAPIServer(tb) },
		"start":   func(tb testing.TB) { kube.StartAPIServer(tb) },
		"pause":   func(tb testing.TB) { kube.PauseAPIServer(tb) },
		"install": func(tb testing.TB) { kube.InstallCAPI(tb, kubetest.CAPIv1beta1) },
	} {
		if got := failure(t, misuse); !strings.Contains(got, "a Private one") {
			t.Errorf("%s: %q", name, got)
		}
	}
}
