package simulator

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// phase is where a machine is in its life.
type phase string

const (
	// phaseLooping: nothing on its disk; it boots from the network again and again.
	phaseLooping phase = "looping"
	// phaseInstalling: an installer runs.
	phaseInstalling phase = "installing"
	// phaseBooting: on its way to what is on its disk, or to the network if nothing is.
	phaseBooting phase = "booting"
	// phaseUp: the installed system runs.
	phaseUp phase = "up"
	// phaseStuck: it runs, but nothing will come of it (an installer that asks a question).
	phaseStuck phase = "stuck"
	// phaseDead: no power.
	phaseDead phase = "dead"
)

// machine is one box in the rack. What happens to it is not driven by a goroutine:
// it has the time of its next event, and advance catches up with the clock
// whenever somebody looks. Between two looks the server's memory does not change,
// so nothing is missed.
type machine struct {
	MAC   string
	Index int
	Phase phase
	Next  time.Time // of the next event, for looping, installing, booting
	Boots int       // how often it booted
	// Installing is what the running installer was told; Installed what is on the disk.
	Installing wire.HostConfig
	Installed  wire.HostConfig
	System     string // the host profile that the last installer was for
	Installs   int    // how often an installation was finished
	Doom       string // KindDie or KindHang: what Next will bring instead of the end of the installation

	host   *host.Host    // nil until the first installation is done
	drives []*host.Drive // nil until somebody asked for them
	Log    []Boot        `json:",omitempty"`
}

// MachineState is what a test may know of a machine.
type MachineState struct {
	MAC      string
	Phase    string // looping, installing, booting, up, stuck, dead
	HostName string // of the installed system, "" when there is none
	Address  string // likewise, IPv4
	Boots    int
	Installs int
	Wiped    bool // the disk has nothing to boot
}

// Machines says how the machines of the rack are.
func (s *Server) Machines() []MachineState {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	all := make([]MachineState, len(s.machines))
	for i, m := range s.machines {
		all[i] = MachineState{
			MAC: m.MAC, Phase: string(m.Phase), HostName: m.Installed.Hostname, Address: m.Installed.Address,
			Boots: m.Boots, Installs: m.Installs, Wiped: !m.bootable(),
		}
	}
	return all
}

// Host is the installed system of the machine with this MAC, nil when it has none.
func (s *Server) Host(mac string) *host.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	for _, m := range s.machines {
		if m.MAC == mac {
			return m.host
		}
	}
	return nil
}

// EachHost calls f with every installed system of the rack, in the order of the machines.
func (s *Server) EachHost(f func(mac string, h *host.Host)) {
	s.mu.Lock()
	s.advance(time.Now())
	all := make([]*machine, len(s.machines))
	for i, m := range s.machines {
		all[i] = &machine{MAC: m.MAC, host: m.host}
	}
	s.mu.Unlock()
	for _, m := range all {
		if m.host != nil {
			f(m.MAC, m.host)
		}
	}
}

// World is the network that the machines share.
func (s *Server) World() *host.World { return s.world }

// Reset presses the reset button of a machine, and switches it on if it had no
// power. It reports whether there is a machine with this MAC.
func (s *Server) Reset(mac string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.advance(now)
	for _, m := range s.machines {
		if m.MAC == mac {
			s.reset(m, now)
			s.save()
			return true
		}
	}
	return false
}

// PowerOff takes the power from a machine.
func (s *Server) PowerOff(mac string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	for _, m := range s.machines {
		if m.MAC == mac {
			s.powerOff(m)
			s.save()
			return true
		}
	}
	return false
}

func (m *machine) bootable() bool { return m.host != nil && !m.host.Wiped() }

// stagger spreads the machines over one turn of the loop, as if each had been
// seen just before now, the last one last.
func (s *Server) stagger() {
	now, turn := time.Now(), s.cfg.BootLoop
	for i, m := range s.machines {
		seen := now.Add(-turn + turn*time.Duration(i+1)/time.Duration(len(s.machines)+1))
		m.Next = seen.Add(turn)
		m.booted(ToldLoop, seen, seen, 1)
		s.mem.Unleased = append(s.mem.Unleased, wire.Lease{MAC: m.MAC, Time: seen.UTC()})
		s.lease(m.MAC, seen)
	}
}

// advance lets everything happen that was due until now. Call with mu held,
// before anything that changes the server or a machine.
func (s *Server) advance(now time.Time) {
	if up := s.downUntil; !up.IsZero() && !now.Before(up) {
		s.run(up) // nobody heard them so far
		s.downUntil = time.Time{}
	}
	s.run(now)
}

// run handles all events until a time, in their order.
func (s *Server) run(until time.Time) {
	for {
		var due []*machine
		for _, m := range s.machines {
			if m.waiting() && !m.Next.After(until) {
				due = append(due, m)
			}
		}
		if len(due) == 0 {
			return
		}
		slices.SortStableFunc(due, func(a, b *machine) int { return a.Next.Compare(b.Next) })
		for _, m := range due {
			s.event(m, until)
		}
	}
}

// waiting is true for machines that have a next event.
func (m *machine) waiting() bool {
	return m.Phase == phaseLooping || m.Phase == phaseInstalling || m.Phase == phaseBooting
}

// event handles the next event of a machine.
func (s *Server) event(m *machine, until time.Time) {
	at := m.Next
	switch m.Phase {
	case phaseInstalling:
		s.installed(m, at)
	case phaseBooting:
		if m.bootable() {
			m.booted(ToldDisk, at, at, 1)
			m.Phase = phaseUp
			m.host.Reboot()
			return
		}
		s.networkBoot(m, at, until)
	case phaseLooping:
		s.networkBoot(m, at, until)
	case phaseUp, phaseStuck, phaseDead:
	}
}

// networkBoot is one PXE boot: DHCP sees the machine and tells it what to boot.
func (s *Server) networkBoot(m *machine, at, until time.Time) {
	m.Phase = phaseLooping
	if !s.downUntil.IsZero() { // no DHCP server
		m.Next = m.repeat(ToldNothing, at, until, s.cfg.FirmwareRetry)
		return
	}
	if !s.lease(m.MAC, at) { // it gets no answer, and the list of unleased machines no entry
		m.Next = m.repeat(ToldNothing, at, until, s.cfg.FirmwareRetry)
		return
	}
	name := s.mem.configOf(m.MAC, s.cfg.DefaultBoot)
	free := name == "" || name == "autoBoot" || name == wire.RebootConfigName
	boot, answers := s.script(m.MAC, name)
	switch boot {
	case bootLoop, bootNothing:
		turn, told := s.cfg.BootLoop, ToldLoop
		if boot == bootNothing {
			turn, told = s.cfg.FirmwareRetry, ToldNothing
		}
		m.Next = m.repeat(told, at, until, turn)
		last := m.Next.Add(-turn)
		s.lease(m.MAC, last)
		if free {
			s.see(m.MAC, last)
		}
		return
	case bootInstallerAsks:
		m.booted(ToldQuestion, at, at, 1)
		m.Phase = phaseStuck
	case bootInstaller:
		m.booted(ToldInstaller, at, at, 1)
		m.System = s.system(m.MAC, name)
		s.install(m, answers, at)
	}
	if free {
		s.see(m.MAC, at)
	}
}

// install starts an installer, which begins by emptying the disk.
func (s *Server) install(m *machine, answers wire.HostConfig, at time.Time) {
	s.drop(m)
	m.Phase, m.Installing = phaseInstalling, answers
	m.Next = at.Add(s.cfg.jitter(m.MAC, "install", s.cfg.OSInstall))
	if f := s.fault(stepInstall, m.names(), KindDie, KindHang); f != nil {
		m.Doom, m.Next = f.Kind, at.Add(f.After)
	}
}

// drop forgets the installed system of a machine.
func (s *Server) drop(m *machine) {
	if m.host != nil {
		m.host.Close()
		s.saving.touch(m.MAC)
	}
	m.host, m.Installed = nil, wire.HostConfig{}
}

// repeat counts a boot, and those after it as long as nothing changes before until: what a
// machine does every few seconds need not be done one by one. It returns the time of the
// first boot after until.
func (m *machine) repeat(told string, at, until time.Time, turn time.Duration) time.Time {
	n := int(until.Sub(at) / turn)
	m.booted(told, at, at.Add(turn*time.Duration(n)), n+1)
	return at.Add(turn * time.Duration(n+1))
}

// see notes that a machine without use for a lease was seen. A new one is added at
// the end of the list.
func (s *Server) see(mac string, at time.Time) {
	for i := range s.mem.Unleased {
		if s.mem.Unleased[i].MAC == mac {
			s.mem.Unleased[i].Time = at.UTC()
			return
		}
	}
	s.mem.Unleased = append(s.mem.Unleased, wire.Lease{MAC: mac, Time: at.UTC()})
}

// leaseTime is fixed in the real server.
const leaseTime = 2 * time.Hour

// lease gives a machine an address for its boot; false when there is none left.
func (s *Server) lease(mac string, at time.Time) bool {
	free := -1
	for i, l := range s.mem.Leases {
		if l.MAC == mac {
			s.mem.Leases[i].Time = at.Add(leaseTime).UTC()
			return true
		}
		if free < 0 && l.Time.Before(at) {
			free = i
		}
	}
	l := wire.Lease{MAC: mac, Time: at.Add(leaseTime).UTC()}
	switch {
	case len(s.mem.Leases) < s.mem.Config.DHCP.LeasePool:
		s.mem.Leases = append(s.mem.Leases, l)
	case free >= 0:
		s.mem.Leases[free] = l
	default:
		return false
	}
	return true
}

// What a machine can be told to boot.
type bootKind int

const (
	bootNothing       bootKind = iota // no script: on to the disk, which is empty
	bootLoop                          // a script that reboots it or tries again
	bootInstaller                     // an installer with its answers
	bootInstallerAsks                 // an installer without: it asks, and nobody is there
)

// script finds what DHCP names: in 2020 the machine's own script if there is one
// (and it stays there for ever), else, and always in v0.5, a script named after
// the boot configuration.
func (s *Server) script(mac, name string) (bootKind, wire.HostConfig) {
	own, has := s.mem.Scripts[dashed(mac)]
	if has && s.cfg.Version != VersionV05 {
		switch b := own.Boot; b.ConfigType {
		case "preseed", "kickstart", "vsphere", "booty":
			return bootInstaller, own.Host
		default:
			// iPXE runs what "kernel" fetched, and these two are scripts.
			if b.KernelPath == "reboot.ipxe" || b.KernelPath == "autoBoot.ipxe" {
				return bootLoop, wire.HostConfig{}
			}
			return bootInstaller, own.Host
		}
	}
	switch name {
	case wire.RebootConfigName, "autoBoot":
		return bootLoop, wire.HostConfig{}
	case "preseed", "kickstart", "vsphere":
		if !slices.ContainsFunc(s.mem.Config.BootConfigs, func(b wire.BootConfig) bool { return b.Type() == name }) {
			return bootNothing, wire.HostConfig{}
		}
		if has && own.Answers {
			return bootInstaller, own.Host
		}
		return bootInstallerAsks, wire.HostConfig{}
	}
	return bootNothing, wire.HostConfig{}
}

// system is the host profile that a machine's boot configuration installs.
func (s *Server) system(mac, name string) string {
	b := wire.BootConfig{ConfigName: name}
	if own, has := s.mem.Scripts[dashed(mac)]; has && s.cfg.Version != VersionV05 {
		b = own.Boot
	}
	profile := s.cfg.Profile
	if profile == "" && b.Type() == "kickstart" {
		profile = host.ProfileRocky9
	}
	return cmp.Or(s.cfg.Profiles[b.ConfigName], profile, host.ProfileNoble)
}

// installed ends an installation: the disk is new, and the machine is up.
func (s *Server) installed(m *machine, at time.Time) {
	doom := m.Doom
	m.Doom = ""
	switch doom {
	case KindDie:
		m.Phase = phaseDead
		return
	case KindHang:
		m.Phase = phaseStuck
		return
	}
	if f := s.fault(stepInstall, m.names(), KindFail); f != nil {
		// The installer gives up and reboots.
		m.Phase, m.Next = phaseBooting, at.Add(s.cfg.BootTime)
		return
	}
	m.Installs++
	m.booted(ToldDisk, at, at, 1)
	m.Phase = phaseUp
	m.Installed, m.Installing = m.Installing, wire.HostConfig{}
	m.host = host.New(host.Config{
		MAC: m.MAC, Address: m.Installed.Address, HostName: m.Installed.Hostname, User: m.Installed.Username,
		Drives: s.drives(m), Seed: s.cfg.Seed + int64(m.Installs), Profile: m.System, Packages: s.cfg.Packages, Proxy: s.cfg.Proxy,
		KubernetesTime: s.cfg.KubernetesInstall, World: s.world,
	})
	s.watch(m)
}

// drives are the disks of a machine. They are its own from the beginning, and outlive
// what is installed on them.
func (s *Server) drives(m *machine) []*host.Drive {
	if m.drives == nil {
		m.drives = host.NewDrives(m.MAC, s.cfg.Seed, s.cfg.Disk)
	}
	return m.drives
}

// SwapDisk replaces a disk of a machine ("sda") by another one of the same kind, with
// another identity and the same contents. It reports whether there is such a disk.
func (s *Server) SwapDisk(mac, device string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	i := slices.IndexFunc(s.machines, func(m *machine) bool { return m.MAC == mac })
	return i >= 0 && s.swapDisk(s.machines[i], device)
}

func (s *Server) swapDisk(m *machine, device string) bool {
	device = strings.TrimPrefix(device, "/dev/")
	done := false
	if m.host != nil {
		done = m.host.SwapDrive(device)
	} else if i := slices.IndexFunc(s.drives(m), func(d *host.Drive) bool { return d.Name == device }); i >= 0 {
		m.drives[i].Replace()
		done = true
	}
	s.saving.touch(m.MAC)
	s.save()
	return done
}

// watch has the machine follow what happens on its host.
func (s *Server) watch(m *machine) {
	h := m.host
	s.saving.touch(m.MAC)
	s.sabotage(h, m.names())
	h.OnReset(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed || m.host != h {
			return
		}
		now := time.Now()
		s.advance(now)
		s.reset(m, now)
		s.save()
	})
}

// reset starts a machine anew.
func (s *Server) reset(m *machine, now time.Time) {
	if m.host != nil {
		m.host.Close()
		s.saving.touch(m.MAC)
	}
	m.Phase, m.Doom = phaseBooting, ""
	m.Installing = wire.HostConfig{}
	m.Next = now.Add(s.cfg.jitter(m.MAC, "boot", s.cfg.BootTime))
}

func (s *Server) powerOff(m *machine) {
	if m.host != nil {
		m.host.Close()
		s.saving.touch(m.MAC)
	}
	m.Phase = phaseDead
}

// machineAt is the machine whose installed or coming system has this address.
func (s *Server) machineAt(address string) *machine {
	var found *machine
	for _, m := range s.machines {
		switch {
		case m.Installed.Address == address && m.host != nil && m.Phase == phaseUp:
			return m
		case m.Installing.Address == address && m.Phase == phaseInstalling,
			m.Installed.Address == address && m.host != nil:
			found = m
		}
	}
	return found
}

// names are what a Fault may call a machine by.
func (m *machine) names() subject {
	c := m.Installed
	if m.Phase == phaseInstalling {
		c = m.Installing
	}
	return subject{mac: m.MAC, index: m.Index, address: c.Address, hostname: c.Hostname}
}
