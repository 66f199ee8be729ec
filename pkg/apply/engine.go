package apply

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// Options change how a run waits and how much it does at once. The zero value
// of each field means its default.
type Options struct {
	// Timeout is the limit over all; 0 means none beyond the limits per phase.
	Timeout time.Duration
	// HardwareTimeout is how long machines wait for free hardware (default 10m).
	HardwareTimeout time.Duration
	// OSTimeout is the limit from the deployment to the proven operating system (default 45m).
	OSTimeout time.Duration
	// KubernetesTimeout is the limit from the proven operating system to a finished node (default 30m).
	KubernetesTimeout time.Duration
	// WipeTimeout is the limit of the identity check of one machine, of its release, and of
	// its wipe, where the size of the disks adds to it if every byte is written (default 15m).
	WipeTimeout time.Duration
	// ReturnTimeout is how long to wait until a wiped machine is seen in the pool (default 15m).
	ReturnTimeout time.Duration
	// RecordTimeout is how long the end of a machine waits for a store that does not
	// answer (default 2m).
	RecordTimeout time.Duration
	// Concurrency is how many machines are worked on over SSH at once (default 50).
	// Machines that install their operating system do not count: all of them share one probe.
	Concurrency int
	// Interval is the shortest pause between two looks at the same thing (default 2s).
	// Longer waits look less often: see interval.
	Interval time.Duration
	// MaxAge is how long ago a machine may have been seen to count as there (default 10m).
	MaxAge time.Duration
	// LockTimeout is how long to wait for another run that is alive and holds the lock
	// of the store (default 1s).
	LockTimeout time.Duration
	// Resume is the command that continues this run, for people.
	Resume string
	// Simulated marks every event.
	Simulated bool
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.HardwareTimeout, 10*time.Minute)
	def(&o.OSTimeout, 45*time.Minute)
	def(&o.KubernetesTimeout, 30*time.Minute)
	def(&o.WipeTimeout, 15*time.Minute)
	def(&o.ReturnTimeout, 15*time.Minute)
	def(&o.RecordTimeout, 2*time.Minute)
	def(&o.Interval, 2*time.Second)
	def(&o.LockTimeout, time.Second)
	def(&o.MaxAge, 10*time.Minute)
	if o.Concurrency <= 0 {
		o.Concurrency = 50
	}
	return o
}

// Engine applies and deletes machines.
type Engine struct {
	server Server
	store  Store
	emit   event.Func
	opts   Options
	// random returns n characters of [a-z0-9]; tests may make it repeatable.
	random func(n int) string
	// sealKey makes a throw-away RSA key; tests may make one for all.
	sealKey func(bits int) (*rsa.PrivateKey, error)
}

// New makes an engine. emit may be nil.
func New(server Server, store Store, emit event.Func, opts Options) *Engine {
	opts = opts.withDefaults()
	if emit == nil {
		emit = func(event.Event) {}
	}
	return &Engine{
		server:  server,
		store:   store,
		opts:    opts,
		random:  randomName,
		sealKey: func(bits int) (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) },
		emit: func(e event.Event) {
			if e.Time.IsZero() {
				e.Time = time.Now()
			}
			e.Simulated = opts.Simulated
			emit(e)
		},
	}
}

// Result is what a run came to, machine by machine, in the order of the plan.
type Result struct {
	Machines []MachineResult
	Clusters []capi.Key // that were deleted
	Counts   event.Counts
}

// MachineResult is one machine's end.
type MachineResult struct {
	Record capi.Record
	// Outcome is Ready, Deleted, Skipped, Failed, TimedOut, NoHardware or Cancelled.
	Outcome event.Type
	Err     error // nil for Ready, Deleted and Skipped
}

func count(c *event.Counts, t event.Type) {
	switch t { //nolint:exhaustive // only outcomes are counted
	case event.Ready:
		c.Ready++
	case event.Deleted:
		c.Deleted++
	case event.Skipped:
		c.Skipped++
	case event.Failed:
		c.Failed++
	case event.TimedOut:
		c.TimedOut++
	case event.NoHardware:
		c.NoHardware++
	case event.Cancelled:
		c.Cancelled++
	}
}

// String is for people: "2 ready, 1 failed".
func countsText(c event.Counts) string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{
		{c.Ready, "ready"}, {c.Deleted, "deleted"}, {c.Skipped, "unchanged"}, {c.Failed, "failed"}, {c.TimedOut, "timed out"},
		{c.NoHardware, "without hardware"}, {c.Cancelled, "interrupted"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if len(parts) == 0 {
		return "nothing to do"
	}
	return strings.Join(parts, ", ")
}

const nameAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

// randomName returns n characters of [a-z0-9] from the system's random source.
func randomName(n int) string {
	b := make([]byte, n)
	for i := range b {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(nameAlphabet))))
		if err != nil { // crypto/rand does not fail on the systems Go supports
			panic(err)
		}
		b[i] = nameAlphabet[k.Int64()]
	}
	return string(b)
}
