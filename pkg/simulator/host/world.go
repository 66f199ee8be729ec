package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// World is what the hosts of one rack share: the network between them, and so the
// API servers they reach, and the plunder server, whose own shell runs what is
// asked of it. It is safe for concurrent use.
type World struct {
	mu       sync.Mutex
	hosts    map[string][]*Host   // by address, in the order in which they came up
	gone     map[string]time.Time // since when a host is down, by MAC
	clusters map[string]*cluster  // by ID
	server   *Host                // the plunder server's shell, made when first used
	alone    bool                 // there is no load balancer
	journal  bool
	scripts  parsed
	wipes    []Wipe
}

// What a request to an API server can come to.
var (
	errRefused  = errors.New("connection refused")
	errTimedOut = errors.New("timed out")
	errServer   = errors.New("the server is currently unable to handle the request")
)

// NewWorld is an empty rack.
func NewWorld() *World {
	return &World{hosts: map[string][]*Host{}, gone: map[string]time.Time{}, clusters: map[string]*cluster{}}
}

// NoLoadBalancer takes away what otherwise stands in front of every control plane
// endpoint that is the address of no host. What is left is who holds such an address
// itself: kube-vip.
func (w *World) NoLoadBalancer() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alone = true
}

func (w *World) add(h *Host) {
	if h.server || h.cfg.Address == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.gone, h.cfg.MAC)
	w.hosts[h.cfg.Address] = append(w.hosts[h.cfg.Address], h)
}

func (w *World) remove(h *Host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := h.cfg.Address
	n := len(w.hosts[a])
	w.hosts[a] = slices.DeleteFunc(w.hosts[a], func(x *Host) bool { return x == h })
	if len(w.hosts[a]) < n {
		w.gone[h.cfg.MAC] = time.Now()
	}
	if len(w.hosts[a]) == 0 {
		delete(w.hosts, a)
	}
}

// TakeAddress has the host answer at its address before all others that have it.
func (h *Host) TakeAddress() {
	w := h.world
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.hosts[h.cfg.Address]
	if i := slices.Index(all, h); i > 0 {
		copy(all[1:], all[:i])
		all[0] = h
	}
}

// downSince is when the host with this MAC went down, zero if it did not.
func (w *World) downSince(mac string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone[mac]
}

// At is the host that answers at an address, or nil. Of two with one address it
// is the one that came up first.
func (w *World) At(address string) *Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	if hs := w.hosts[address]; len(hs) > 0 {
		return hs[0]
	}
	return nil
}

// RunLocal runs a command line with bash on the plunder server. The server's shell
// has the usual small programs and the network, and nothing else.
func (w *World) RunLocal(ctx context.Context, line string) Result {
	return w.local().Run(ctx, Command{Line: line, Combined: true})
}

// RunPipe is RunLocal for a command whose output feeds another: it gives the bytes
// of its standard output as they are.
func (w *World) RunPipe(ctx context.Context, line string) Result {
	return w.local().Run(ctx, Command{Line: line, Raw: true})
}

// local is the plunder server's own shell.
func (w *World) local() *Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.server == nil {
		w.server = newHost(Config{HostName: "plunder", User: "root", Profile: ProfileNoble, World: w})
		w.server.server = true
		w.server.install()
		w.server.boot()
	}
	return w.server
}

// connect is what bash does for /dev/tcp/ADDRESS/PORT: a host that is up answers
// on 22, and on 6443 if it is a control plane; it refuses other ports. An address
// without a host swallows everything, so the call lasts as long as its context,
// unless it is the endpoint of a cluster that answers.
func (h *Host) connect(ctx context.Context, name string) error {
	parts := strings.Split(strings.TrimPrefix(name, "/dev/"), "/")
	if len(parts) != 3 || parts[0] != "tcp" {
		return syscall.ECONNREFUSED
	}
	port, err := strconv.Atoi(parts[2])
	if err != nil {
		return fmt.Errorf("%s: invalid port", parts[2])
	}
	peer := h.world.At(parts[1])
	switch {
	case peer == nil:
		if _, err := h.world.api(ctx, h, parts[1], port); err == nil {
			return nil
		}
		<-ctx.Done()
		return syscall.ETIMEDOUT
	case port == 22, port == apiPort && peer.apiServer() != nil:
		return nil
	}
	return syscall.ECONNREFUSED
}

// api finds the control plane whose API server answers a request from a host: at its
// own address, or under the endpoint that its cluster was made with.
func (w *World) api(ctx context.Context, from *Host, address string, port int) (*Host, error) {
	h := w.At(address)
	if h == nil {
		if err := from.requestTrouble(ctx, StepEndpoint, address); err != nil {
			return nil, err
		}
		h = w.behind(fmt.Sprintf("%s:%d", address, port), address)
	} else if port != apiPort {
		return nil, errRefused
	}
	if h == nil || h.apiServer() == nil {
		return nil, errRefused
	}
	if err := h.requestTrouble(ctx, StepAPI, "kube-apiserver"); err != nil {
		return nil, err
	}
	return h, nil
}

// requestTrouble is what goes wrong with a request on purpose.
func (h *Host) requestTrouble(ctx context.Context, kind, word string) error {
	t := h.trouble(kind, word)
	if t == nil {
		return nil
	}
	if !sleep(ctx, t.After) {
		return errTimedOut
	}
	if t.Do != nil {
		go t.Do()
	}
	if t.Do != nil || t.Hang {
		<-ctx.Done()
	}
	switch t.Exit {
	case curlHTTPError:
		return errServer
	case curlTimeout:
		return errTimedOut
	}
	return errRefused
}

// behind is a control plane that answers under an endpoint that is no host's address.
// When a control plane of the cluster has kube-vip for it, be it down, or there is no
// load balancer, it is one whose kube-vip works; otherwise it is any that answers.
func (w *World) behind(endpoint, address string) *Host {
	w.mu.Lock()
	virtual := w.alone
	var all []*Host
	for _, a := range sortedKeys(w.hosts) {
		all = append(all, w.hosts[a]...)
	}
	w.mu.Unlock()
	var balanced *Host
	for _, h := range all {
		c := h.apiServer()
		if c == nil || look(c, func(d *clusterData) string { return d.Endpoint }) != endpoint {
			continue
		}
		if balanced == nil {
			balanced = h
			for _, m := range c.memberHosts() {
				have, _ := m.virtualAddress(address, c)
				virtual = virtual || have
			}
		}
		if _, works := h.virtualAddress(address, c); works {
			return h
		}
	}
	if virtual {
		return nil
	}
	return balanced
}

// adopt finds the shared copy of a cluster for a host that comes back with one.
func (w *World) adopt(d clusterData) *cluster {
	if d.Tokens == nil {
		d.Tokens = map[string]bootstrapToken{}
	}
	if d.Objects == nil {
		d.Objects = map[string]bool{}
	}
	w.mu.Lock()
	c := w.clusters[d.ID]
	if c == nil {
		c = &cluster{clusterData: d}
		w.clusters[d.ID] = c
		w.mu.Unlock()
		return c
	}
	w.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.Revision > c.Revision {
		c.clusterData = d
	}
	return c
}
