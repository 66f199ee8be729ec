package host

import (
	"path"
	"slices"
	"strings"
	"time"
)

// Kinds of steps that can be made to go wrong.
const (
	// StepRun is a program that is about to run; its words are the program's name and arguments.
	StepRun = "run"
	// StepNet is a connection to the outside; its word is the name of the server.
	StepNet = "net"
	// StepLock is the package manager's lock; its word is the package manager. A Trouble
	// means that another program has the lock for Trouble.After.
	StepLock = "lock"
	// StepPhase is a phase of kubeadm that is about to begin; its words are "init" or
	// "join" and the name of the phase. Trouble.Text is the error that it fails with.
	StepPhase = "phase"
	// StepAPI is a request to the API server on this host; its word is "kube-apiserver".
	// Trouble.Exit says what becomes of it, as for a connection.
	StepAPI = "api"
	// StepEndpoint is a request from this host to a control plane endpoint that is the
	// address of no host; its word is that address. Trouble.Exit is as for StepAPI.
	StepEndpoint = "endpoint"
	// StepDisk is something written to a disk that is on its way from the page cache to the
	// platters; its word is the name of the disk ("sda"). A Trouble means that all of it,
	// or what lies between Trouble.From and Trouble.To, stays as it was: silently if
	// Trouble.Lost is set, else with an I/O error.
	StepDisk = "disk"
)

// Step is something on a host that can be made to go wrong.
type Step struct {
	Kind  string
	Words []string
}

// Is reports whether the step is meant by a pattern: KIND:WORD [WORD...]. The first
// word must be the step's; the others must begin words of the step, in this order:
// "run:apt-get install kubelet" is `apt-get -y install --no-install-recommends
// kubelet=1.34.1-* kubeadm=1.34.1-*`. A word "*" is any.
func (s Step) Is(pattern string) bool {
	kind, text, _ := strings.Cut(pattern, ":")
	want := strings.Fields(text)
	if kind != s.Kind || len(want) == 0 || len(s.Words) == 0 || want[0] != "*" && want[0] != s.Words[0] {
		return false
	}
	rest := s.Words[1:]
	for _, w := range want[1:] {
		i := slices.IndexFunc(rest, func(x string) bool { return w == "*" || strings.HasPrefix(x, w) })
		if i < 0 {
			return false
		}
		rest = rest[i+1:]
	}
	return true
}

// Trouble is how a step goes wrong: After has passed, then Do is called or the
// program hangs, or else it ends with Exit.
type Trouble struct {
	After time.Duration
	// Exit is the status of a program, or of curl for a connection: 6 the name is not
	// known, 7 it is refused (0 means this), 22 the server answers with an error, 28
	// nothing answers.
	Exit int
	Text string // what the program prints on standard error
	Hang bool   // until somebody stops it
	// Lost means that nothing is done and success is reported.
	Lost bool
	// From and To are a range of a disk in bytes; To 0 is its end.
	From, To int64
	Do       func() // runs on a goroutine of its own; the step lasts until the session ends
}

// Sabotage has f asked before every step, from many goroutines; nil is an answer, and
// ends the sabotage if it is given for f. f must not wait for the host.
func (h *Host) Sabotage(f func(Step) *Trouble) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sabotage = f
}

func (h *Host) trouble(kind string, words ...string) *Trouble {
	h.mu.Lock()
	f := h.sabotage
	h.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(Step{kind, words})
}

// sabotaged is asked before a program runs; wrong says that it must not.
func (c *call) sabotaged() (status int, wrong bool) {
	t := c.h.trouble(StepRun, append([]string{path.Base(c.args[0])}, c.args[1:]...)...)
	if t == nil {
		return 0, false
	}
	if !c.spend(t.After) {
		return 1, true
	}
	c.suffer(t)
	if t.Lost {
		return 0, true
	}
	if t.Text != "" {
		c.errf("%s", t.Text)
	}
	return max(t.Exit, 1), true
}

// suffer does what a Trouble does beside failing.
func (c *call) suffer(t *Trouble) {
	if t.Do != nil {
		go t.Do()
	}
	if t.Do != nil || t.Hang {
		<-c.ctx.Done()
	}
}

// locked waits for the package manager's lock, if another program has it, for a
// while at most (negative: for ever). It reports whether the lock is free now.
func (c *call) locked(limit time.Duration) bool {
	now := time.Now()
	if t := c.h.trouble(StepLock, path.Base(c.args[0])); t != nil {
		c.h.mu.Lock()
		c.h.sys.lockedUntil = now.Add(t.After)
		if t.Hang {
			c.h.sys.lockedUntil = now.Add(1000 * time.Hour)
		}
		c.h.mu.Unlock()
	}
	c.h.mu.Lock()
	left := c.h.sys.lockedUntil.Sub(now)
	c.h.mu.Unlock()
	if left <= 0 {
		return false
	}
	if limit < 0 || left <= limit {
		return !c.spend(left)
	}
	c.spend(limit)
	return true
}
