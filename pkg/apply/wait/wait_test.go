package wait_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/apply/wait"
)

func osSpec() wait.Spec {
	return wait.Spec{
		What: "install OS", Object: "default/worker", Interval: 5 * time.Second,
		Limit: 45 * time.Minute, LimitName: "--os-timeout",
	}
}

func pendingForever(context.Context) (string, error) {
	return `parlay state "Running"`, wait.Pendingf("not yet")
}

func TestUntilLooksAtOnceAndThenAtIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at, emitted []time.Duration
		spec := osSpec()
		spec.Emit = func(elapsed time.Duration, last string) {
			if last != `parlay state "Running"` {
				t.Errorf("last = %q", last)
			}
			emitted = append(emitted, elapsed)
		}
		err := wait.Until(t.Context(), spec, func(context.Context) (string, error) {
			at = append(at, time.Since(start))
			if time.Since(start) < 30*time.Minute {
				return `parlay state "Running"`, wait.Pendingf("not yet")
			}
			return "Completed", nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(at) != 361 || at[0] != 0 || at[1] != 5*time.Second || at[360] != 30*time.Minute {
			t.Errorf("%d probes, first %v, last %v", len(at), at[:2], at[len(at)-1])
		}
		if len(emitted) != 360 {
			t.Errorf("%d emits, want one per pending probe", len(emitted))
		}
	})
}

func TestUntilPausesAfterASlowProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		err := wait.Until(t.Context(), osSpec(), func(ctx context.Context) (string, error) {
			at = append(at, time.Since(start))
			if len(at) == 3 {
				return "", nil
			}
			if err := wait.Sleep(ctx, 10*time.Second); err != nil {
				return "", err
			}
			return "", wait.Pending(nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]time.Duration{0, 15 * time.Second, 30 * time.Second}, at); diff != "" {
			t.Error(diff)
		}
	})
}

func TestUntilAdaptsItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		spec := osSpec()
		spec.IntervalFunc = func(elapsed time.Duration) time.Duration { return 1*time.Second + elapsed }
		_ = wait.Until(t.Context(), spec, func(context.Context) (string, error) {
			at = append(at, time.Since(start))
			if len(at) == 4 {
				return "", nil
			}
			return "", wait.Pending(nil)
		})
		want := []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Error(diff)
		}
	})
}

func TestUntilWithoutIntervalDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		err := wait.Until(t.Context(), wait.Spec{Limit: 10*time.Second + 1}, func(context.Context) (string, error) {
			n++
			return "", wait.Pending(nil)
		})
		if n != 11 {
			t.Errorf("%d probes in 10s, want 11 (%v)", n, err)
		}
	})
}

func TestUntilTimeout(t *testing.T) {
	noHardware := errors.New("no hardware found")
	unseen := func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }
	tests := []struct {
		name     string
		ctx      func(context.Context) (context.Context, context.CancelFunc)
		spec     func(*wait.Spec)
		probe    wait.Probe
		want     string
		limit    string
		is       error
		duration time.Duration
	}{
		{
			name: "its own limit", probe: pendingForever, limit: "--os-timeout", duration: 45 * time.Minute,
			want: `install OS on default/worker: timed out after 45m0s (last: parlay state "Running"); --os-timeout is 45m0s`,
		},
		{
			name: "a limit around it",
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return wait.WithLimit(ctx, 20*time.Minute, "--timeout")
			},
			probe: pendingForever, limit: "--timeout", duration: 20 * time.Minute,
			want: `install OS on default/worker: timed out after 20m0s (last: parlay state "Running"); --timeout is 20m0s`,
		},
		{
			name: "the limit around it is longer",
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return wait.WithLimit(ctx, time.Hour, "--timeout")
			},
			probe: pendingForever, limit: "--os-timeout", duration: 45 * time.Minute,
			want: `install OS on default/worker: timed out after 45m0s (last: parlay state "Running"); --os-timeout is 45m0s`,
		},
		{
			name: "a nameless deadline around it",
			ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 90*time.Second)
			},
			probe: pendingForever, duration: 90 * time.Second,
			want: `install OS on default/worker: timed out after 1m30s (last: parlay state "Running")`,
		},
		{
			name: "the pending error stands in for the observation", limit: "--os-timeout", duration: 45 * time.Minute,
			probe: func(context.Context) (string, error) { return "", wait.Pending(noHardware) }, is: noHardware,
			want: `install OS on default/worker: timed out after 45m0s (last: no hardware found); --os-timeout is 45m0s`,
		},
		{
			name: "nothing was ever seen", probe: unseen, limit: "--os-timeout", duration: time.Second,
			spec: func(s *wait.Spec) { s.Limit = time.Second },
			want: `install OS on default/worker: timed out after 1s; --os-timeout is 1s`,
		},
		{
			name: "probes without answer", probe: unseen, limit: "--os-timeout", duration: 45 * time.Minute,
			spec: func(s *wait.Spec) { s.ProbeTimeout = 10 * time.Second },
			want: `install OS on default/worker: timed out after 45m0s (last: no answer within 10s); --os-timeout is 45m0s`,
		},
		{
			name: "an observation of many lines", duration: time.Second, limit: "--os-timeout",
			spec:  func(s *wait.Spec) { s.Limit = time.Second; s.Object = "" },
			probe: func(context.Context) (string, error) { return "a\n  b", wait.Pending(nil) },
			want:  `install OS: timed out after 1s (last: a b); --os-timeout is 1s`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if tt.ctx != nil {
					ctx, cancel = tt.ctx(ctx)
				}
				defer cancel()
				spec := osSpec()
				if tt.spec != nil {
					tt.spec(&spec)
				}
				start := time.Now()
				err := wait.Until(ctx, spec, tt.probe)
				if got := time.Since(start); got != tt.duration {
					t.Errorf("waited %s, want %s", got, tt.duration)
				}
				var te *wait.TimeoutError
				if !errors.As(err, &te) {
					t.Fatalf("error %v is no TimeoutError", err)
				}
				if te.Error() != tt.want {
					t.Errorf("got  %s\nwant %s", te, tt.want)
				}
				if te.LimitName != tt.limit {
					t.Errorf("limit name %q, want %q", te.LimitName, tt.limit)
				}
				if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
					t.Errorf("%v should be a deadline, not a cancellation", err)
				}
				if tt.is != nil && !errors.Is(err, tt.is) {
					t.Errorf("%v should be %v", err, tt.is)
				}
			})
		})
	}
}

func TestUntilCancelled(t *testing.T) {
	lost := errors.New("lost the lock")
	tests := []struct {
		name   string
		cancel error
		want   string
	}{
		{"by the user", nil, `install OS on default/worker: interrupted after 12s (last: parlay state "Running")`},
		{"with a cause", lost, `install OS on default/worker: interrupted after 12s (last: parlay state "Running"): lost the lock`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(12*time.Second, func() { cancel(tt.cancel) })
				err := wait.Until(ctx, osSpec(), pendingForever)
				var ce *wait.CancelledError
				if !errors.As(err, &ce) || !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("error %v is no cancellation", err)
				}
				if tt.cancel != nil && !errors.Is(err, tt.cancel) {
					t.Errorf("%v has lost its cause", err)
				}
				if err.Error() != tt.want {
					t.Errorf("got  %s\nwant %s", err, tt.want)
				}
			})
		})
	}
}

func TestUntilCancelledInTheMiddleOfAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		err := wait.Until(ctx, osSpec(), func(ctx context.Context) (string, error) {
			if n++; n == 1 {
				return "booting", wait.Pending(nil)
			}
			time.AfterFunc(time.Second, cancel)
			<-ctx.Done()
			return "", fmt.Errorf("get log: %w", ctx.Err())
		})
		const want = "install OS on default/worker: interrupted after 6s (last: booting)"
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
}

func TestUntilOverBeforeItBegan(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := wait.Until(ctx, osSpec(), func(context.Context) (string, error) {
		t.Error("probe called under a dead context")
		return "", nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestUntilStopsOnAPermanentError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stranger := errors.New("a stranger answers")
		start := time.Now()
		err := wait.Until(t.Context(), osSpec(), func(context.Context) (string, error) {
			if time.Since(start) < time.Minute {
				return "", wait.Pending(nil)
			}
			return "", stranger
		})
		if !errors.Is(err, stranger) || err.Error() != stranger.Error() || time.Since(start) != time.Minute {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

// A deadline inside the probe that is not the probe's own is the probe's business.
func TestUntilForeignDeadlineIsPermanent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := wait.Until(t.Context(), osSpec(), func(context.Context) (string, error) {
			return "", fmt.Errorf("dial: %w", context.DeadlineExceeded)
		})
		var te *wait.TimeoutError
		if err == nil || errors.As(err, &te) {
			t.Errorf("got %v", err)
		}
	})
}

func TestUntilSuccessAtTheLimitCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := wait.Until(t.Context(), osSpec(), func(ctx context.Context) (string, error) {
			time.Sleep(50 * time.Minute)
			return "done", nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestPending(t *testing.T) {
	inner := errors.New("no log yet")
	for _, err := range []error{wait.Pending(inner), wait.Pendingf("ask: %w", inner), fmt.Errorf("probe: %w", wait.Pending(inner))} {
		if !wait.IsPending(err) || !errors.Is(err, inner) {
			t.Errorf("%v: pending %v", err, wait.IsPending(err))
		}
	}
	if wait.IsPending(inner) || wait.IsPending(nil) {
		t.Error("everything is pending")
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := wait.Sleep(t.Context(), time.Hour); err != nil || time.Since(start) != time.Hour {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := wait.Sleep(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Hour+time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		if err := wait.Sleep(ctx, 0); err == nil {
			t.Error("a dead context lets Sleep(0) pass")
		}
	})
}
