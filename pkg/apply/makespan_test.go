package apply_test

import (
	"context"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// makespan applies a fleet on a virtual clock, so the numbers are the same on every
// machine: they count waits and the simulated server's time, not ours. ready is
// the MACs of the machines in the order in which they became ready.
func makespan(t *testing.T, cfg simulator.Config, workers int, opts ...func(*translate.Options)) (took time.Duration, posts int, ready []string) {
	t.Helper()
	// 60 s installs (5 % more or less, by MAC), a POST that costs what was measured, and
	// a server of two cores. A turn of the loop is short, so that it does not matter
	// where in it a machine is.
	cfg.OSInstall, cfg.KubernetesInstall, cfg.BootLoop = time.Minute, 2*time.Minute, time.Second
	cfg.POSTCost, cfg.CPUs = 2500*time.Microsecond, 2
	bubble(t, cfg, func(ctx context.Context, r *rack) {
		r.opts.Concurrency = workers + 1
		began := time.Now()
		res, err := r.apply(ctx, fleet(workers), opts...)
		if err != nil || res.Counts.Ready != workers+1 {
			t.Fatalf("%d workers: %+v, %v", workers, res.Counts, err)
		}
		took, posts = time.Since(began), r.sim.Count("POST /parlay")
		for _, e := range r.events {
			if e.Type == event.Ready {
				ready = append(ready, e.MAC)
			}
		}
	})
	return took, posts, ready
}

// A hundred machines take hardly longer than the slowest of them alone: everything
// that waits, waits together, and the server is asked little.
func TestHundredMachinesTakeAsLongAsOne(t *testing.T) {
	hundred, posts, ready := makespan(t, simulator.Config{Machines: 100}, 99, skipKubernetes)
	// Installs differ by 5 % either way, and the last to be ready need not be the slowest: among
	// the last ten there is one.
	var one time.Duration
	var onePosts int
	for _, mac := range ready[len(ready)-10:] {
		if took, n, _ := makespan(t, simulator.Config{MACs: []string{mac}}, 0, skipKubernetes); took > one {
			one, onePosts = took, n
		}
	}
	compare(t, "operating systems: the slowest alone", one, onePosts, hundred, posts, 110)
}

// With Kubernetes the smallest thing to compare with is one machine of each role. The
// order in which a hundred jobs are posted and read moves the end by a few seconds:
// 1.07 to 1.10 was seen.
func TestHundredNodesTakeAsLongAsTwo(t *testing.T) {
	two, twoPosts, _ := makespan(t, simulator.Config{Machines: 2}, 1)
	hundred, posts, _ := makespan(t, simulator.Config{Machines: 100}, 99)
	compare(t, "with Kubernetes: two machines", two, twoPosts, hundred, posts, 115)
}

func compare(t *testing.T, what string, few time.Duration, fewPosts int, hundred time.Duration, posts, percent int) {
	t.Helper()
	t.Logf("%s %s, %d POST /parlay; 100 machines %s (%.3f x), %d POST /parlay (%.2f a machine)",
		what, few.Round(time.Millisecond), fewPosts, hundred.Round(time.Millisecond), float64(hundred)/float64(few), posts, float64(posts)/100)
	if hundred > few*time.Duration(percent)/100 {
		t.Errorf("100 machines took %s, more than %d %% of %s", hundred, percent, few)
	}
	if posts > 400 {
		t.Errorf("%d POST /parlay are more than 4 a machine", posts)
	}
}

// A destroyed cluster of a hundred takes hardly longer than one of two: its control plane
// waits for the workers, who wait for nobody. Each machine is looked at before somebody
// agrees, once more before it is wiped, and wiped: that is what the server is asked.
func TestHundredWipesTakeAsLongAsTwo(t *testing.T) {
	destroy := func(workers int) (took time.Duration, posts int) {
		cfg := simulator.Config{Machines: workers + 1, BootLoop: time.Second, POSTCost: 2500 * time.Microsecond, CPUs: 2}
		bubble(t, cfg, func(ctx context.Context, r *rack) {
			r.opts.Concurrency = workers + 1
			if _, err := r.apply(ctx, fleet(workers), skipKubernetes); err != nil {
				t.Fatal(err)
			}
			r.sim.ForgetCalls()
			began := time.Now()
			res, err := r.destroy(ctx, apply.DeleteOptions{})
			if err != nil || res.Counts.Deleted != workers+1 {
				t.Fatalf("%d workers: %+v, %v", workers, res.Counts, err)
			}
			took, posts = time.Since(began), r.sim.Count("POST /parlay")
		})
		return took, posts
	}
	n := 100 / sample
	two, twoPosts := destroy(1)
	many, posts := destroy(n - 1)
	t.Logf("wiped: two machines %s, %d POST /parlay; %d machines %s (%.3f x), %d POST /parlay", two.Round(time.Millisecond), twoPosts, n,
		many.Round(time.Millisecond), float64(many)/float64(two), posts)
	if many > two*3/2 {
		t.Errorf("%d machines took %s, more than 1.5 times %s", n, many, two)
	}
	if posts > 2*n {
		t.Errorf("%d POST /parlay are more than 2 a machine", posts)
	}
}
