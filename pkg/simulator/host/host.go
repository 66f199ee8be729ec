// Package host is an installed, running machine that does not exist: a virtual
// file system, virtual disks and a shell in which the posted commands really
// run, interpreted, with every external command a Go function. It owns what one
// host and one rack of hosts look like from inside an SSH session. It must not
// touch the machine that it runs on: no process, no file and no connection of
// the real system is reachable from a command.
package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is what makes one host different from another.
type Config struct {
	MAC      string // colon form, lower case
	Address  string // IPv4
	HostName string
	User     string       // the SSH user that the installer made; "ubuntu" when empty; ProfileBusybox has only root
	Disk     []DiskConfig // one of 480 GB when empty; the first is the boot disk
	// Drives are disks that exist already, instead of those that Disk describes.
	Drives []*Drive `json:"-"`
	// Seed makes what is random on a host (boot ids, serial numbers, CA key) repeatable.
	Seed int64
	// Profile is the installed system, one of Profiles; ProfileNoble when empty.
	Profile string `json:",omitempty"`
	// Cgroup is the version of the control groups, 1 or 2; the profile's own when 0.
	Cgroup int `json:",omitempty"`
	// Packages are installed from the beginning, each as NAME=VERSION.
	Packages []string `json:",omitempty"`
	// Proxy is the only way out of the host's network: http://[USER:PASSWORD@]HOST:PORT.
	// When empty everything is reached directly.
	Proxy string `json:",omitempty"`
	// KubernetesTime is how long the packages and then init or join take, in all.
	// It is spent inside the virtual apt-get and kubeadm.
	KubernetesTime time.Duration
	// World is the rack the host stands in; nil means a rack of its own.
	World *World `json:"-"`
}

// Command is one SSH session.
type Command struct {
	User  string // SSH user; Config.User when empty
	Line  string // as the login shell gets it, e.g. sudo -n -u root bash -c '...'
	Stdin []byte
	// Combined says whether standard error belongs to the output, as in sessions
	// without a pipe.
	Combined bool
	// Task is what the session is for, see Wipe.
	Task string
	// Raw leaves line ends at the end of the output.
	Raw bool
}

// Result is what a session gave.
type Result struct {
	Output string // without line ends at its end
	Exit   int
	// Err is not nil when the command did not end by itself: the context ended,
	// or the host went down (ErrDown).
	Err error
}

// ErrDown says that the host is not running, or not any more.
var ErrDown = errors.New("the host is down")

const (
	defaultUser = "ubuntu"
	defaultDisk = 480103981056
	// historySize is how many commands a host remembers, historyWidth how much of each.
	historySize  = 4096
	historyWidth = 160
)

// Host is one installed machine. It is safe for concurrent use. It holds no
// goroutine while no command runs, except for processes that were detached with
// setsid; Close ends those.
type Host struct {
	cfg    Config
	world  *World
	fs     *filesystem
	disks  []*Drive
	users  []user
	server bool // the plunder server itself, not a machine

	mu       sync.Mutex
	src      *rand.PCG
	random   *rand.Rand
	up       bool
	life     context.Context //nolint:containedctx // the host's own: ends when it goes down
	kill     context.CancelCauseFunc
	detached sync.WaitGroup // processes that setsid made
	bootID   string
	bootTime time.Time
	resets   []func()
	history  []string
	journal  []string // see World.KeepJournals
	unknown  []string
	pid      int
	locks    map[string]chan struct{} // by file: full while flock holds it
	sys      system
	sabotage func(Step) *Trouble // may be nil
}

// New is a host whose installation has just finished and which has booted. The
// installation has emptied the first disk, and left the others alone.
func New(cfg Config) *Host {
	if cfg.User == "" {
		cfg.User = defaultUser
	}
	if cfg.Profile == "" {
		cfg.Profile = ProfileNoble
	}
	if cfg.Drives == nil {
		cfg.Drives = NewDrives(cfg.MAC, cfg.Seed, cfg.Disk)
	}
	cfg.Disk = nil
	for _, d := range cfg.Drives {
		cfg.Disk = append(cfg.Disk, d.DiskConfig)
	}
	h := newHost(cfg)
	if boot := h.disks[0]; !boot.Blank {
		_ = boot.d.erase(0, boot.Bytes, nil) // it can't fail
		boot.parts = format(boot.d, true)
	}
	h.install()
	h.boot()
	return h
}

func newHost(cfg Config) *Host {
	if cfg.World == nil {
		cfg.World = NewWorld()
	}
	// Two numbers, so that hosts with neighbouring seeds have nothing in common.
	var mac uint64
	for _, r := range cfg.MAC {
		mac = mac*31 + uint64(r)
	}
	src := rand.NewPCG(uint64(cfg.Seed), mac)
	if cfg.Profile == ProfileBusybox {
		cfg.User = "root"
	}
	return &Host{
		cfg: cfg, world: cfg.World, fs: newFilesystem(), disks: cfg.Drives, users: profileUsers(cfg.User),
		src: src, random: rand.New(src), //nolint:gosec // repeatable on purpose
	}
}

// boot brings the host up with a new boot id.
func (h *Host) boot() {
	h.mu.Lock()
	h.bootID = h.uuid()
	h.bootTime = time.Now()
	h.pid = 1000
	h.sys.boot()
	h.mu.Unlock()
	h.loseCaches()
	h.fs.mu.Lock()
	for _, d := range h.disks {
		d.readTable()
	}
	h.fs.readOnly = false
	for _, d := range []string{"/run", "/tmp", "/dev", "/proc", "/sys"} {
		for _, p := range h.fs.tree(d) {
			delete(h.fs.nodes, p)
		}
	}
	h.fs.mu.Unlock()
	h.kernelFiles()
	h.startServices()
	h.start()
}

// start makes the host answer.
func (h *Host) start() {
	h.mu.Lock()
	h.life, h.kill = context.WithCancelCause(context.Background())
	h.up = true
	h.mu.Unlock()
	h.world.add(h)
}

// stop ends every process and takes the host off the network.
func (h *Host) stop() bool {
	h.mu.Lock()
	was := h.up
	h.up = false
	if was {
		h.kill(ErrDown)
	}
	h.mu.Unlock()
	if was {
		h.loseCaches()
	}
	h.world.remove(h)
	return was
}

// loseCaches is the end of the kernel: what was not flushed is gone.
func (h *Host) loseCaches() {
	for _, d := range h.disks {
		d.d.lose()
	}
}

// Close turns the host off and waits for its processes.
func (h *Host) Close() {
	h.stop()
	h.detached.Wait()
}

// Reboot restarts the installed system: new boot id and boot time, /run and /tmp
// empty, all processes gone. Files and disks stay.
func (h *Host) Reboot() {
	h.stop()
	h.boot()
}

// reset is what the hardware does on `echo b >/proc/sysrq-trigger` and `reboot -f`.
func (h *Host) reset() {
	if !h.stop() {
		return
	}
	h.mu.Lock()
	calls := slices.Clone(h.resets)
	h.mu.Unlock()
	go func() {
		for _, f := range calls {
			f()
		}
	}()
}

// OnReset has f called, on a goroutine of its own, each time that something on
// the host resets it. The host is down then, until Reboot.
func (h *Host) OnReset(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resets = append(h.resets, f)
}

// Up reports whether the host runs.
func (h *Host) Up() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.up
}

// BootID is the content of /proc/sys/kernel/random/boot_id.
func (h *Host) BootID() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bootID
}

// Wiped reports whether the start of the boot disk is zeros, so that the machine
// will not boot from it any more.
func (h *Host) Wiped() bool {
	begin := make([]byte, 34*sectorSize)
	return isZero(begin[:h.disks[0].d.readPlatters(begin, 0)])
}

// History lists the external commands that ran, oldest first and shortened, for
// tests that ask which host saw what.
func (h *Host) History() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.history)
}

// Unknown lists the commands that were asked for and are not there.
func (h *Host) Unknown() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.unknown)
}

func (h *Host) record(args []string) {
	line := strings.Join(args, " ")
	if len(line) > historyWidth {
		line = line[:historyWidth] + "..."
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.history) == historySize {
		h.history = slices.Clone(h.history[historySize/2:])
	}
	h.history = append(h.history, line)
}

func (h *Host) recordUnknown(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Contains(h.unknown, name) {
		h.unknown = append(h.unknown, name)
	}
}

func (h *Host) nextPID() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pid++
	return h.pid
}

// fileLock is the lock of a file, for flock.
func (h *Host) fileLock(file string) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.locks == nil {
		h.locks = map[string]chan struct{}{}
	}
	if h.locks[file] == nil {
		h.locks[file] = make(chan struct{}, 1)
	}
	return h.locks[file]
}

// uuid is a random identifier. Call with mu held, or before the host is shared.
func (h *Host) uuid() string {
	a, b := h.random.Uint64(), h.random.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0xfff, b&0xffffffffffff)
}

// Run runs one SSH session to its end. Background jobs end with it, unless they
// were detached with setsid.
func (h *Host) Run(ctx context.Context, c Command) Result {
	h.mu.Lock()
	up, life := h.up, h.life
	h.mu.Unlock()
	if !up {
		return Result{Err: ErrDown}
	}
	if c.User == "" {
		c.User = h.cfg.User
	}
	u, ok := h.lookupUser(c.User)
	if !ok {
		return Result{Err: fmt.Errorf("no user %q on this host", c.User)}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(life, func() { cancel(ErrDown) }) //nolint:contextcheck // the host ends as well
	defer stop()
	var out, errs output
	s := &shell{
		h: h, ses: newSession(c.Task), user: u, env: loginEnv(u), dir: u.home, umask: 0o022,
		name: "bash", out: &out, err: &errs,
	}
	if c.Combined {
		s.err = &out
	}
	if len(c.Stdin) > 0 {
		in, err := pipeOf(strings.NewReader(string(c.Stdin)))
		if err != nil {
			return Result{Err: err}
		}
		defer func() { _ = in.Close() }()
		s.in = in
	}
	status, err := s.run(ctx, c.Line)
	if err == nil && !sleep(ctx, s.ses.due()) {
		err = context.Cause(ctx)
	}
	cancel(nil)
	s.ses.end()
	text := out.String()
	if !c.Raw {
		text = strings.TrimRight(text, "\r\n")
	}
	return Result{Output: text, Exit: status, Err: err}
}

// loginEnv is what sshd and sudo leave of an environment.
func loginEnv(u user) map[string]string {
	return map[string]string{
		"HOME": u.home, "USER": u.name, "LOGNAME": u.name, "SHELL": "/bin/bash",
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
}
