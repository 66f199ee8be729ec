package apply_test

import (
	"context"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/simulator"
)

// Ctrl-C while machines wait for hardware ends the run without a write for each of
// them: with a thousand those would take many seconds.
func TestInterruptedWithoutHardware(t *testing.T) {
	bubble(t, simulator.Config{Machines: 1, OSInstall: 24 * time.Hour}, func(ctx context.Context, r *rack) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Minute, cancel)
		res, err := r.apply(ctx, fleet(20), skipKubernetes)
		if err == nil || res.Counts.Cancelled != 21 {
			t.Fatalf("counts %+v, err %v", res.Counts, err)
		}
		if rec := r.record("cp"); rec.Reason != "Interrupted" || !rec.Claimed() {
			t.Errorf("the machine that has hardware: %+v", rec)
		}
		for _, name := range []string{"w001", "w020"} {
			if rec := r.record(name); rec.Claimed() || rec.Reason != "" || time.Since(rec.UpdatedAt) < time.Minute {
				t.Errorf("%s was written to at the end: %+v", name, rec)
			}
		}
	})
}
