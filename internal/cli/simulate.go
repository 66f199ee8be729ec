package cli

import (
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/simulator"
)

// simulateOptions are how the machines of --simulate behave.
type simulateOptions struct {
	machines          int
	osInstall         time.Duration
	kubernetesInstall time.Duration
	bootLoop          time.Duration
}

func (s *simulateOptions) addFlags(fs *pflag.FlagSet) {
	fs.IntVar(&s.machines, "simulate-machines", len(simulatedMACs()), "with --simulate: how many machines there are at the beginning")
	fs.DurationVar(&s.osInstall, "simulate-os-install", 5*time.Second, "with --simulate: how long an operating system takes")
	fs.DurationVar(&s.kubernetesInstall, "simulate-kubernetes-install", 5*time.Second, "with --simulate: how long Kubernetes takes on one machine")
	fs.DurationVar(&s.bootLoop, "simulate-boot-loop", time.Second, "with --simulate: how long one turn of the reboot loop takes")
	for _, flag := range []string{"simulate-machines", "simulate-os-install", "simulate-kubernetes-install", "simulate-boot-loop"} {
		// Only a flag that does not exist can fail.
		_ = fs.MarkHidden(flag)
	}
}

// simulatedURL is never dialled: requests go to a server in this process.
const simulatedURL = "https://simulator.invalid"

// rackFile keeps the simulated machines between commands, in the directory of the
// simulated store.
const rackFile = "rack.json"

// simulatedServer is a client of simulated machines in this process. keep: what
// is done to them while the store is locked is kept; else it is forgotten.
func (f *factory) simulatedServer(keep bool, opts []plunder.Option) (*server, error) {
	dir, err := f.stateDir()
	if err != nil {
		return nil, err
	}
	r := &rack{path: filepath.Join(dir, rackFile), opts: f.opts.sim, ours: func() bool { return keep && f.opened != nil && f.opened.locked.Load() }}
	client, err := plunder.New(plunder.Config{URL: simulatedURL}, append(opts, plunder.WithTransport(r))...)
	if err != nil {
		return nil, err
	}
	return &server{Client: client, stop: r.close}, nil
}

// rack is the transport to simulated machines. As long as they are not this run's, it
// looks at a copy of them: another run may be changing them.
type rack struct {
	path string
	opts simulateOptions
	ours func() bool // this run holds the lock of the store, and may change them

	mu           sync.Mutex
	copied, kept *simulator.Server
}

// RoundTrip implements http.RoundTripper.
func (r *rack) RoundTrip(req *http.Request) (*http.Response, error) {
	server, err := r.server()
	if err != nil {
		return nil, err
	}
	return server.RoundTrip(req)
}

// server is opened when it is first needed.
func (r *rack) server() (*simulator.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	keep, server := r.ours(), &r.copied
	if keep {
		server = &r.kept
	}
	var err error
	if *server == nil {
		*server, err = r.open(keep)
	}
	return *server, err
}

func (r *rack) open(keep bool) (*simulator.Server, error) {
	cfg := simulator.Config{
		Machines:          r.opts.machines,
		MACs:              lastOf(simulatedMACs(), r.opts.machines),
		OSInstall:         r.opts.osInstall,
		KubernetesInstall: r.opts.kubernetesInstall,
		BootLoop:          r.opts.bootLoop,
		BootTime:          r.opts.bootLoop,
	}
	if keep {
		cfg.StateFile = r.path
		return simulator.Open(cfg)
	}
	server, err := simulator.Load(cfg, r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return simulator.New(cfg), nil
	}
	return server, err
}

func (r *rack) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, server := range []*simulator.Server{r.copied, r.kept} {
		if server != nil {
			errs = append(errs, server.Close())
		}
	}
	return errors.Join(errs...)
}

// simulatedMACs are the machines of the rack, enough for every example: Supermicro, HPE,
// Dell, Intel and two of VMware. Plunder sees them in this order, so a run takes the last
// ones first.
func simulatedMACs() []string {
	return []string{
		"0c:c4:7a:3e:f4:d1", "0c:c4:7a:3e:f4:d2", "0c:c4:7a:3e:f4:d3", "0c:c4:7a:3e:f4:d4", "94:40:c9:3e:10:01", "94:40:c9:3e:10:02", "b8:ca:3a:6e:04:d1", "b8:ca:3a:6e:04:d3",
		"3c:fd:fe:9c:01:7a", "b8:ca:3a:6e:04:d2", "00:50:56:a5:11:20", "00:50:56:a5:b5:f1",
	}
}

// lastOf are the last n of a list, or all.
func lastOf(list []string, n int) []string { return list[max(0, len(list)-max(n, 0)):] }
