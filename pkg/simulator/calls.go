package simulator

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// maxCalls is how many calls are kept; older ones are forgotten, but still counted.
// Of bodies the newest maxBodies bytes are kept.
const (
	maxCalls  = 50_000
	maxBodies = 16 << 20
)

// Call is one request that reached the server.
type Call struct {
	Seq      int // from 1, in the order of arrival
	Time     time.Time
	Method   string
	Path     string // as sent, "/deployment/00-50-56-a5-11-20"
	Function string // method and pattern: "GET /deployment/{id}"; "" for an unknown path
	Body     []byte // nil when it is too old

	// Only for OnResponse and, once it was answered, Calls:

	Answered bool   // false: the connection was closed without an answer
	Status   int    // of HTTP
	Error    string // of the envelope
}

// callLog records requests and tells hooks of them.
type callLog struct {
	mu         sync.Mutex
	next       int
	calls      []*Call
	bodies     int // bytes of them
	stripped   int // so many of calls have lost their body
	counts     map[string]int
	onRequest  []func(Call)
	onResponse []func(Call)
}

// OnRequest has f called when a request has arrived, before anything is done
// about it. f may block, and may use the server.
func (s *Server) OnRequest(f func(Call)) {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.onRequest = append(s.calls.onRequest, f)
}

// OnResponse has f called after a request was handled, before the client sees the
// answer.
func (s *Server) OnResponse(f func(Call)) {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.onResponse = append(s.calls.onResponse, f)
}

// Calls returns the recorded requests, oldest first; of very many, the newest.
func (s *Server) Calls() []Call {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	all := make([]Call, len(s.calls.calls))
	for i, c := range s.calls.calls {
		all[i] = *c
	}
	return all
}

// Mutations are the calls that were meant to change something.
func (s *Server) Mutations() []Call {
	return slices.DeleteFunc(s.Calls(), func(c Call) bool { return c.Method == http.MethodGet })
}

// Count is how often a function was called: "POST /parlay", "GET /deployment/{id}".
func (s *Server) Count(function string) int {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	return s.calls.counts[function]
}

// ForgetCalls starts recording and counting anew.
func (s *Server) ForgetCalls() {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.calls, s.calls.counts = nil, nil
	s.calls.bodies, s.calls.stripped = 0, 0
}

func (l *callLog) arrived(c *Call) {
	l.mu.Lock()
	l.next++
	c.Seq, c.Time = l.next, time.Now()
	l.calls = append(l.calls, c)
	l.bodies += len(c.Body)
	for ; l.bodies > maxBodies || l.stripped < len(l.calls)-maxCalls; l.stripped++ {
		old := l.calls[l.stripped]
		l.bodies -= len(old.Body)
		old.Body = nil
	}
	if len(l.calls) >= 2*maxCalls {
		l.calls, l.stripped = slices.Clone(l.calls[maxCalls:]), l.stripped-maxCalls
	}
	if l.counts == nil {
		l.counts = map[string]int{}
	}
	if c.Function != "" {
		l.counts[c.Function]++
	}
	hooks, seen := slices.Clone(l.onRequest), *c
	l.mu.Unlock()
	for _, f := range hooks {
		f(seen)
	}
}

func (l *callLog) answered(c *Call, r reply) {
	l.mu.Lock()
	c.Answered, c.Status, c.Error = !r.abort, r.status, r.failure
	hooks, seen := slices.Clone(l.onResponse), *c
	l.mu.Unlock()
	for _, f := range hooks {
		f(seen)
	}
}
