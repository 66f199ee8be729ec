package apply

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// A webhook of Cluster API that is away keeps one object from being written. What is to
// be written about others is written all the same.
func TestOutboxIsNotHeldUpByOneLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		sent := map[string]int{}
		send := func(name string, needs bool) func(context.Context) error {
			return func(context.Context) error {
				if needs && away {
					return capi.ErrUnavailable
				}
				sent[name]++
				return nil
			}
		}
		r := &run{Engine: &Engine{emit: func(event.Event) {}, opts: Options{Interval: time.Second}}, base: t.Context()}
		r.out = newOutbox(r)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, name := range []string{"held up", "free"} {
			if err := r.out.put(ctx, name, send(name, name == "held up")); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.out.sent(ctx, "free", func(string) {}); err != nil || sent["free"] != 1 {
			t.Errorf("%v, sent %v", err, sent)
		}
		short, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := r.out.sent(short, "held up", func(string) {}); !errors.Is(err, capi.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		away = false
		if err := r.out.sent(ctx, "held up", func(string) {}); err != nil || sent["held up"] != 1 {
			t.Errorf("%v, sent %v", err, sent)
		}
		r.background.Wait()
	})
}
