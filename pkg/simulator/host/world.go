package host

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// World is what the hosts of one rack share: the network between them, and so the
// API servers they reach, and the plunder server, whose own shell runs what is
// asked of it. It is safe for concurrent use.
type World struct {
	mu      sync.Mutex
	hosts   map[string][]*Host // by address, in the order in which they came up
	server  *Host              // the plunder server's shell, made when first used
	scripts parsed
}

// NewWorld is an empty rack.
func NewWorld() *World { return &World{hosts: map[string][]*Host{}} }

func (w *World) add(h *Host) {
	if h.server || h.cfg.Address == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts[h.cfg.Address] = append(w.hosts[h.cfg.Address], h)
}

func (w *World) remove(h *Host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := h.cfg.Address
	w.hosts[a] = slices.DeleteFunc(w.hosts[a], func(x *Host) bool { return x == h })
	if len(w.hosts[a]) == 0 {
		delete(w.hosts, a)
	}
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
// without a host swallows everything, so the call lasts as long as its context.
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
		<-ctx.Done()
		return syscall.ETIMEDOUT
	case port == 22, port == apiPort && peer.apiServer() != nil:
		return nil
	}
	return syscall.ECONNREFUSED
}

// cluster finds the control plane that serves an endpoint: at a host's own
// address, or under the name or address that a cluster was made with.
func (w *World) cluster(address string, port int) *Host {
	if h := w.At(address); h != nil && port == apiPort && h.apiServer() != nil {
		return h
	}
	w.mu.Lock()
	var all []*Host
	for _, hs := range w.hosts {
		all = append(all, hs...)
	}
	w.mu.Unlock()
	endpoint := address + ":" + strconv.Itoa(port)
	for _, h := range all {
		if c := h.apiServer(); c != nil && c.Endpoint == endpoint {
			return h
		}
	}
	return nil
}
