package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const (
	// probeChunk is how many hosts share one host probe. Hosts are probed one after
	// the other within a map, and one that swallows packets costs two seconds.
	probeChunk = 10
	// directProbe is up to how many waiting hosts the port probe is left out: then
	// one host probe costs the server no more and answers at once.
	directProbe = 2
	// probeLimit is how long one round of probing may take before its answer is
	// given up and asked for again.
	probeLimit = 2 * time.Minute
	// bootSlack is how much longer than the time since its claim a host may say that
	// it has been up: rounding, and clocks that do not run alike.
	bootSlack = 5 * time.Second
	// slowestProbe is the longest pause between two rounds.
	slowestProbe = 30 * time.Second
	// probeShare bounds the part of the server's time that probing takes: the pause is
	// at least this many times the duration of a POST.
	probeShare = 5
)

// prober asks, for all machines of a run together, which of them answer. Each
// POST /parlay costs the server time and memory for every deployment it has, so a
// round is one POST that looks at SSH ports from the server, whatever the number
// of machines, and one more for every few machines that newly answer.
type prober struct {
	run *run
	// once: each host is asked once, in detail, and nothing at all is changed: no
	// deployment is put back, no log deleted.
	once bool

	mu      sync.Mutex
	waiting map[*probing]bool
	active  bool
	turn    int // number of rounds; the rounds' own
}

// probing is one machine's wait. The machine itself belongs to its own goroutine,
// which may leave at any time: the prober works with what it needs of it, copied.
type probing struct {
	since  time.Time
	rec    capi.Record
	result chan probeResult // buffered, written once
	emit   func(observation string)
	ensure func(context.Context) error // the deployment
	last   string                      // observation, under prober.mu
	silent bool                        // it accepted the last probe and did not answer it; the rounds' own
}

type probeResult struct {
	facts translate.Facts
	err   error
}

// await returns once the host at the machine's address was proved to be its
// hardware, started since the claim; or with an error if another machine answers
// there, or when ctx ends.
func (p *prober) await(ctx context.Context, m *machine) (translate.Facts, error) {
	still := m.copy()
	w := &probing{
		since: time.Now(), rec: m.rec, result: make(chan probeResult, 1),
		emit: still.observe, ensure: still.ensureDeployment,
	}
	if p.once {
		w.ensure = func(context.Context) error { return errors.New("the plunder server does not have its deployment") }
	}
	p.mu.Lock()
	if p.waiting == nil {
		p.waiting = map[*probing]bool{}
	}
	p.waiting[w] = true
	start := !p.active
	p.active = true
	p.mu.Unlock()
	if start {
		// The rounds serve every machine, so they live under the run's context; they
		// end by themselves when nobody waits.
		p.run.background.Go(func() { p.rounds(p.run.base) })
	}
	select {
	case res := <-w.result:
		return res.facts, res.err
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.waiting, w)
		last := w.last
		p.mu.Unlock()
		// Until words the end of the wait, with the limit that ran out.
		what := "install OS"
		if m.installed() {
			what = "reach the host"
		}
		err := wait.Until(ctx, wait.Spec{What: what, Object: m.key.String()}, nil)
		return translate.Facts{}, withLast(err, last, time.Since(w.since))
	}
}

// withLast fills in what was seen by the prober, which Until could not know.
func withLast(err error, last string, elapsed time.Duration) error {
	var te *wait.TimeoutError
	var ce *wait.CancelledError
	switch {
	case errors.As(err, &te):
		te.Last, te.Elapsed = last, elapsed
	case errors.As(err, &ce):
		ce.Last, ce.Elapsed = last, elapsed
	}
	return err
}

// rounds probes until nobody waits any more.
func (p *prober) rounds(ctx context.Context) {
	for {
		p.mu.Lock()
		if len(p.waiting) == 0 || ctx.Err() != nil {
			p.active = false
			p.mu.Unlock()
			return
		}
		batch := make([]*probing, 0, len(p.waiting))
		youngest := time.Time{}
		for w := range p.waiting {
			batch = append(batch, w)
			if w.since.After(youngest) {
				youngest = w.since
			}
		}
		p.mu.Unlock()
		slices.SortFunc(batch, func(a, b *probing) int { return strings.Compare(a.rec.Address, b.rec.Address) })

		began := time.Now()
		roundCtx, cancel := context.WithTimeout(ctx, probeLimit)
		cost, err := p.round(roundCtx, batch)
		cancel()
		if err != nil {
			for _, w := range batch {
				p.observe(w, err.Error())
			}
		}
		// From round to round, not from the end of one: a round has its own waits.
		pause := interval(p.run.opts.Interval, time.Since(youngest), slowestProbe) - time.Since(began)
		p.sleep(ctx, max(pause, probeShare*cost, p.run.opts.Interval/4))
	}
}

// sleep pauses, but looks up now and then so that it does not outlast the last
// machine by a long pause.
func (p *prober) sleep(ctx context.Context, d time.Duration) {
	for end := time.Now().Add(d); ; {
		rest := min(time.Until(end), p.run.opts.Interval)
		if rest <= 0 || wait.Sleep(ctx, rest) != nil {
			return
		}
		p.mu.Lock()
		n := len(p.waiting)
		p.mu.Unlock()
		if n == 0 {
			return
		}
	}
}

// round asks once. cost is what the POST of the port probe took.
func (p *prober) round(ctx context.Context, batch []*probing) (cost time.Duration, err error) {
	p.turn++
	if batch, err = p.restore(ctx, batch); err != nil || len(batch) == 0 {
		return 0, err
	}
	asked := batch
	if len(batch) > directProbe {
		open, took, err := p.ports(ctx, batch)
		cost = took
		if err != nil {
			return cost, err
		}
		asked = nil
		for _, w := range batch {
			if slices.Contains(open, w.rec.Address) {
				asked = append(asked, w)
			} else {
				p.observe(w, w.closed())
			}
		}
	}
	// A host that accepts and says nothing takes the whole limit of its probe, and who
	// comes after it in its map may not be reached. So those are asked apart, each
	// round with another one first.
	var good, silent []*probing
	for _, w := range asked {
		if w.silent {
			silent = append(silent, w)
		} else {
			good = append(good, w)
		}
	}
	if n := len(silent); n > 0 {
		first := p.turn % n
		silent = slices.Concat(silent[first:], silent[:first])
	}
	var wg sync.WaitGroup
	for _, some := range [][]*probing{good, silent} {
		for chunk := range slices.Chunk(some, probeChunk) {
			wg.Go(func() {
				if err := p.hosts(ctx, chunk); err != nil {
					for _, w := range chunk {
						p.observe(w, err.Error())
					}
				}
			})
		}
	}
	wg.Wait()
	return cost, nil
}

func (w *probing) closed() string {
	if w.rec.BootID == "" {
		return "SSH port closed: still installing"
	}
	return "SSH port closed: the host is down or booting"
}

// restore gives a server that came back empty the deployments it forgot, and
// returns the machines that have theirs.
func (p *prober) restore(ctx context.Context, batch []*probing) (there []*probing, err error) {
	all, err := p.run.server.Deployments(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range batch {
		if d, ok := all.ByMAC(w.rec.MAC); !ok || d.Config.Address != w.rec.Address || d.Config.Hostname != w.rec.HostName {
			p.observe(w, "the plunder server lost the deployment; posting it again")
			if err := w.ensure(ctx); errors.Is(err, wire.ErrUnreachable) {
				return nil, err
			} else if err != nil {
				p.lost(w, err)
				continue
			}
		}
		there = append(there, w)
	}
	return there, nil
}

// lost: a deployment could not be put back, for now or for good.
func (p *prober) lost(w *probing, err error) {
	if wait.IsPending(retryable(err)) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		p.observe(w, err.Error()) // the round ran out of time, not the machine
		return
	}
	p.deliver(w, probeResult{err: err})
}

// ports asks which addresses accept SSH connections, by one action that the
// server runs itself.
func (p *prober) ports(ctx context.Context, batch []*probing) (open []string, cost time.Duration, err error) {
	addresses := make([]string, len(batch))
	for i, w := range batch {
		addresses[i] = w.rec.Address
	}
	id := p.run.random(5)
	// The answer needs a log, any one. Not always the same: if that is the one that
	// cannot be read, nobody would ever be asked.
	host := batch[p.turn%len(batch)]
	logHost := host.rec.Address
	m, err := translate.PortProbe(id, logHost, addresses)
	if err != nil {
		return nil, 0, err
	}
	cost, err = p.ask(ctx, m, []string{logHost}, p.quiet([]*probing{host}), func(l map[string]wire.Log) (bool, error) {
		var done bool
		var err error
		open, done, err = translate.ReadPortProbe(l[logHost], id)
		return done, err
	})
	if err != nil && ctx.Err() == nil && !wait.IsPending(retryable(err)) {
		// No bash or no timeout(1) on the server: ask the hosts themselves.
		return addresses, cost, nil
	}
	return open, cost, err
}

// hosts asks a few hosts who they are.
func (p *prober) hosts(ctx context.Context, chunk []*probing) error {
	addresses := make([]string, len(chunk))
	for i, w := range chunk {
		addresses[i] = w.rec.Address
	}
	id := p.run.random(5)
	m, err := translate.HostProbe(id, addresses, p.once)
	if err != nil {
		return err
	}
	answered := map[string]bool{}
	_, err = p.ask(ctx, m, addresses, p.quiet(chunk), func(logs map[string]wire.Log) (bool, error) {
		for _, w := range chunk {
			a := w.rec.Address
			if answered[a] {
				continue
			}
			facts, done, err := translate.ReadHostProbe(logs[a], id)
			if !done {
				continue
			}
			answered[a] = true
			w.silent = err != nil && strings.Contains(err.Error(), "Command Timed out")
			if err != nil {
				p.observe(w, "SSH: "+err.Error()+sshHint(err))
				continue
			}
			p.judge(w, facts)
		}
		return len(answered) == len(chunk), nil
	})
	var te *wait.TimeoutError
	if !errors.As(err, &te) {
		return err
	}
	for _, w := range chunk {
		if !answered[w.rec.Address] {
			w.silent = true
			p.observe(w, "the SSH port is open, but the host does not answer")
		}
	}
	return nil
}

// sshHint explains a refused login, which somebody must mend. A refused or silent
// connection is what an installing machine looks like: there is nothing to explain.
func sshHint(err error) string {
	if text := err.Error(); strings.Contains(text, "ssh: ") {
		return translate.Likely(text)
	}
	return ""
}

// quiet are the addresses of machines that have no job in flight: their logs may
// be deleted, which keeps them short. The log of a job that an earlier run posted
// is still wanted.
func (p *prober) quiet(batch []*probing) []string {
	var addresses []string
	if p.once {
		return nil
	}
	for _, w := range batch {
		if w.rec.JobID == "" {
			addresses = append(addresses, w.rec.Address)
		}
	}
	return addresses
}

// ask posts a probe and reads the logs of its addresses until done says so. The
// logs of clean are deleted first.
func (p *prober) ask(ctx context.Context, m wire.Map, addresses, clean []string, done func(map[string]wire.Log) (bool, error)) (cost time.Duration, err error) {
	for _, a := range addresses {
		unlock, err := p.run.lockHost(ctx, a)
		if err != nil {
			return 0, err
		}
		defer unlock()
	}
	for _, a := range clean {
		if err := p.run.reads.do(ctx, func() error { return p.run.server.DeleteLog(ctx, a) }); err != nil {
			return 0, err
		}
	}
	sent := time.Now()
	if err := p.run.post(ctx, m); err != nil && !errors.Is(err, wire.ErrNoAnswer) {
		return time.Since(sent), err
	}
	cost = time.Since(sent)
	// One host takes as long as an SSH session, a silent one two seconds more, and
	// they take turns.
	limit := 30*time.Second + time.Duration(len(addresses))*5*time.Second
	err = wait.Until(ctx, wait.Spec{What: "read the probe's answers", IntervalFunc: quick, Limit: limit}, func(ctx context.Context) (string, error) {
		logs := map[string]wire.Log{}
		for _, a := range addresses {
			err := p.run.reads.do(ctx, func() error {
				l, err := p.run.server.Log(ctx, a)
				logs[a] = l
				if errors.Is(err, wire.ErrNoLog) {
					return nil
				}
				return err
			})
			if err != nil {
				return "", retryable(err)
			}
		}
		ok, err := done(logs)
		if err == nil && !ok {
			err = wait.Pending(errors.New("no answer in the log yet"))
		}
		return "", err
	})
	return cost, err
}

// quick is the pace at which the answer of a probe is read: it comes within a
// second or not for a while.
func quick(elapsed time.Duration) time.Duration {
	return max(200*time.Millisecond, min(elapsed/4, 2*time.Second))
}

// judge decides what a host's answer means for the machine that waits for it.
func (p *prober) judge(w *probing, f translate.Facts) {
	switch {
	case !slices.Contains(f.MACs, w.rec.MAC):
		p.deliver(w, probeResult{err: &SafetyError{fmt.Sprintf(
			"a stranger answers at %s: host %s with MAC %s, not %s; nothing was done to it",
			w.rec.Address, f.Host, strings.Join(f.MACs, ", "), w.rec.MAC)}})
	case w.rec.BootID != "":
		p.deliver(w, probeResult{facts: f})
	case f.Uptime > time.Since(w.rec.ClaimedAt)+bootSlack:
		p.observe(w, fmt.Sprintf("answers, but has been up for %s, longer than it is claimed: the old system still runs, power-cycle it", f.Uptime.Round(time.Second)))
	default:
		p.deliver(w, probeResult{facts: f})
	}
}

func (p *prober) deliver(w *probing, res probeResult) {
	p.mu.Lock()
	ok := p.waiting[w]
	delete(p.waiting, w)
	p.mu.Unlock()
	if ok {
		w.result <- res
	}
}

func (p *prober) observe(w *probing, what string) {
	if p.once {
		p.deliver(w, probeResult{err: errors.New(what)})
		return
	}
	if p.run.base.Err() != nil {
		return // a look that was cut off has seen nothing: what was seen before counts
	}
	p.mu.Lock()
	ok := p.waiting[w]
	if ok {
		w.last = what
	}
	p.mu.Unlock()
	if ok {
		w.emit(what)
	}
}
