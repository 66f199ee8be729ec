// Package simulator is a plunder server of our own, with a rack of machines: what
// `capplunder simulator` and `--simulate` run, and what the tests talk to. It
// answers as the real servers of November 2019 (v0.5) and May 2020 do, faults
// included; the recordings in pkg/plunder/recording are what it is held to. Its
// machines live: they loop until a deployment claims them, install, come up,
// reboot, and go back to the loop after a wipe; on those that are up, the posted
// commands really run (package host).
//
// It uses plain time, so it works in testing/synctest bubbles (through RoundTrip,
// without a socket) and for real. It must not know anything of capplunder: no
// plan, no store, no engine.
package simulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// Versions of the server that can be simulated.
const (
	Version2020 = "2020-05" // the last public commit, May 2020
	VersionV05  = "v0.5"    // November 2019
)

// Versions lists them, the default first.
func Versions() []string { return []string{Version2020, VersionV05} }

// Config is how a server and its machines behave. Zero values mean the defaults
// given with each field; a negative duration means "takes no time".
type Config struct {
	Version string // one of Versions; default Version2020

	// Machines is how many machines stand in the rack; default 4, or as many as
	// there are MACs; negative for none. Those beyond MACs get MACs of the vendors
	// in OUIs.
	Machines int
	MACs     []string // colon form, lower case; the order is the one in which plunder sees them
	OUIs     []string // first three bytes of a MAC, colon form; default: VMware, Supermicro, Dell, HPE
	Seed     int64    // changes MACs, jitter, boot ids; the same seed gives the same rack

	OSInstall         time.Duration // from the installer's boot to the first SSH answer; default 8 s
	KubernetesInstall time.Duration // packages and init or join together; default 6 s
	BootLoop          time.Duration // one turn of the reboot loop; default 2 s
	BootTime          time.Duration // from a reset to the first SSH answer, booting from disk; default 2 s
	// FirmwareRetry is after how long a machine that found nothing to boot tries
	// again; default three turns of the loop.
	FirmwareRetry time.Duration

	// POSTCost is what a POST /parlay costs per deployment, measured at 2.5 ms: it
	// keeps one of CPUs (default 2) busy.
	POSTCost   time.Duration
	CPUs       int
	SSHLatency time.Duration // per action, default 20 ms

	// BootConfigs are those that the server was started with; default preseed and
	// rhel, as in the recordings.
	BootConfigs []wire.BootConfig
	// Global is the global configuration that the server was started with; nil means
	// one that parlay can work with (a user and a key).
	Global *wire.HostConfig
	// DefaultBoot is the server's --defaultBoot flag; "reboot" by default, "none"
	// for a server that was started without.
	DefaultBoot string
	// NoSSHKey makes a server without a private key: it refuses every POST /parlay.
	NoSSHKey bool

	// RaceWindow is how long a write to the deployments takes between reading and
	// storing the set. The real server has no lock: of two writes that overlap one is
	// lost. 0 means that writes never overlap.
	RaceWindow time.Duration
	// RaceCrash makes the server die of every n-th overlapping write ("concurrent map
	// writes"); 0 means never.
	RaceCrash int
	// CrashDown is for how long a server is gone that died of RaceCrash or a Fault;
	// default 5 s.
	CrashDown time.Duration

	// Faults are what goes wrong on purpose.
	Faults []Fault

	// Profile is the system that is installed, one of host.Profiles; by default
	// host.ProfileRocky9 by a boot configuration of type kickstart, and
	// host.ProfileNoble by all others.
	Profile string
	// Profiles are the systems that single boot configurations install, by their names.
	Profiles map[string]string
	// Packages are on every machine from the beginning, and Proxy is the only way out of
	// its network: see host.Config.
	Packages []string
	Proxy    string
	// Disk are the disks of every machine; default as in host.Config.
	Disk []host.DiskConfig
	// Hosts answer SSH at an address instead of the rack's own machines.
	Hosts map[string]HostFunc

	// StateFile, when not empty, is written after every change: see Open.
	StateFile string
}

// HostFunc is one SSH session on a host that a test brings along. An error is the
// error of the dial, as ErrRefused.
type HostFunc func(ctx context.Context, c host.Command) (host.Result, error)

func (c Config) withDefaults() Config {
	c.Version = cmp.Or(c.Version, Version2020)
	c.MACs = slices.Clone(c.MACs)
	if c.Machines == 0 && len(c.MACs) == 0 {
		c.Machines = 4
		c.MACs = []string{"00:50:56:a5:b5:f1", "00:50:56:a5:11:20"}
	}
	if len(c.OUIs) == 0 {
		c.OUIs = []string{"00:50:56", "0c:c4:7a", "d0:94:66", "94:40:c9"}
	}
	for _, d := range []struct {
		p   *time.Duration
		def time.Duration
	}{
		{&c.OSInstall, 8 * time.Second},
		{&c.KubernetesInstall, 6 * time.Second},
		{&c.BootLoop, 2 * time.Second},
		{&c.BootTime, 2 * time.Second},
		{&c.POSTCost, 2500 * time.Microsecond},
		{&c.SSHLatency, 20 * time.Millisecond},
		{&c.CrashDown, 5 * time.Second},
	} {
		*d.p = max(0, cmp.Or(*d.p, d.def))
	}
	// A machine that loops in no time would loop for ever in one moment.
	c.BootLoop = max(c.BootLoop, time.Millisecond)
	c.FirmwareRetry = max(cmp.Or(c.FirmwareRetry, 3*c.BootLoop), time.Millisecond)
	if c.CPUs <= 0 {
		c.CPUs = 2
	}
	if c.BootConfigs == nil {
		c.BootConfigs = []wire.BootConfig{
			{ConfigName: "preseed", ConfigType: "preseed", KernelPath: "linux", InitrdPath: "initrd.gz"},
			{ConfigName: "rhel", ConfigType: "kickstart", KernelPath: "vmlinuz", InitrdPath: "initrd.img"},
		}
	}
	if c.Global == nil {
		c.Global = &wire.HostConfig{
			Gateway: "192.168.1.1", Subnet: "255.255.255.0", Nameserver: "192.168.1.1",
			Username: "ubuntu", SSHKeyPath: "/home/ubuntu/.ssh/id_rsa.pub",
		}
	}
	c.DefaultBoot = cmp.Or(c.DefaultBoot, wire.RebootConfigName)
	if c.DefaultBoot == "none" {
		c.DefaultBoot = ""
	}
	return c
}

// macs are the rack's MACs: those given, and made up ones after them.
func (c Config) macs() []string {
	macs := slices.Clone(c.MACs)
	random := rand.New(rand.NewPCG(uint64(c.Seed), 0x6d616373)) //nolint:gosec // repeatable on purpose
	for i := len(macs); i < c.Machines; {
		oui := c.OUIs[i%len(c.OUIs)]
		tail := random.Uint32()
		mac := fmt.Sprintf("%s:%02x:%02x:%02x", strings.ToLower(oui), tail>>16&0xff, tail>>8&0xff, tail&0xff)
		if !slices.Contains(macs, mac) {
			macs = append(macs, mac)
			i++
		}
	}
	return macs
}

// jitter stretches or shrinks d by up to 5 %, always alike for one machine and purpose.
func (c Config) jitter(mac, purpose string, d time.Duration) time.Duration {
	h := fnv.New32a()
	fmt.Fprintf(h, "%d %s %s", c.Seed, mac, purpose)
	return d + time.Duration(float64(d)*(float64(h.Sum32()%1000)/1000-0.5)/10)
}

// Server is a simulated plunder server with its rack. It is safe for concurrent
// use. Close it.
type Server struct {
	cfg   Config
	table []endpoint
	world *host.World
	cores chan struct{} // one token per CPU

	mu        sync.Mutex
	closed    bool
	began     time.Time
	life      *life
	rack      *life     // ends with Close, not with a crash
	downUntil time.Time // the server is not running before this
	mem       *memory
	machines  []*machine
	strangers map[string]*host.Host // by address
	guests    int                   // how many strangers there were, for their MACs
	faultMu   sync.Mutex            // guards faults; taken after mu
	faults    []*faultState
	writers   int // deployment writes under way, see Config.RaceWindow
	overlaps  int // how many of them overlapped so far
	listeners []*Listener
	work      sync.WaitGroup // handlers and jobs

	saving saver
	calls  callLog
}

// life is one run of the server's process: it ends with a crash or with Close, and
// with it everything that the process did.
type life struct {
	ctx context.Context //nolint:containedctx // a life is what ends, and this is how its work hears of it
	end context.CancelFunc
}

func newLife() *life {
	ctx, cancel := context.WithCancel(context.Background())
	return &life{ctx: ctx, end: cancel}
}

func (l *life) over() bool { return l.ctx.Err() != nil }

// sleep pauses, as part of a life; false when it ended meanwhile.
func (l *life) sleep(d time.Duration) bool {
	if d <= 0 {
		return !l.over()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// New starts a server whose machines were all seen within the last turn of the
// loop. It ignores Config.StateFile until the first change: see Open.
func New(cfg Config) *Server {
	s := newServer(cfg)
	s.mem = newMemory(s.cfg)
	for i, mac := range s.cfg.macs() {
		s.machines = append(s.machines, &machine{MAC: mac, Index: i, Phase: phaseLooping})
	}
	s.stagger()
	return s
}

func newServer(cfg Config) *Server {
	cfg = cfg.withDefaults()
	s := &Server{
		cfg: cfg, table: endpoints(cfg.Version), world: host.NewWorld(), began: time.Now(), life: newLife(), rack: newLife(),
		cores: make(chan struct{}, cfg.CPUs), strangers: map[string]*host.Host{},
	}
	s.saving.path = cfg.StateFile
	for _, f := range cfg.Faults {
		s.faults = append(s.faults, &faultState{Fault: f})
	}
	return s
}

// Close ends the server and its machines, and waits for what still ran. It
// returns the first error of writing Config.StateFile.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.life.end()
	s.rack.end()
	listeners := s.listeners
	s.listeners = nil
	s.mu.Unlock()

	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	if s.saving.wrote { // a program that only looked leaves the file to others
		s.save()
	}
	for _, m := range s.machines {
		if m.host != nil {
			m.host.Close()
		}
	}
	for _, h := range s.strangers {
		h.Close()
	}
	return errors.Join(append(errs, s.saving.err)...)
}

// Crash ends the server's process: deployments, unleased machines, logs and keys
// are forgotten, requests and jobs in flight die, and nobody answers for the given
// time. The machines live on.
func (s *Server) Crash(down time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crash(down)
}

// crash is Crash, with mu held.
func (s *Server) crash(down time.Duration) {
	if s.closed {
		return
	}
	now := time.Now()
	s.advance(now)
	s.life.end()
	s.life = newLife()
	s.mem = newMemory(s.cfg)
	s.writers = 0
	s.downUntil = now.Add(max(0, down))
	for _, l := range s.listeners {
		l.pause(down)
	}
	s.save()
}

// Stats are numbers that say what a client costs a server.
type Stats struct {
	// ImportedHosts is how many hosts the SSH part has taken over from deployments;
	// every POST /parlay adds all of them again, and none is ever freed.
	ImportedHosts int
	// LeakedBytes is the memory they take: about 8 KB each, measured.
	LeakedBytes int64
	// Deployments and Unleased are the lengths of the two lists.
	Deployments, Unleased int
}

// Stats returns the numbers of now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	n := 0
	for _, h := range s.mem.SSHHosts {
		n += h.Imports
	}
	return Stats{ImportedHosts: n, LeakedBytes: int64(n) * 8 << 10, Deployments: len(s.mem.Deployments), Unleased: len(s.mem.Unleased)}
}
