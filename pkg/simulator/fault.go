package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// Kinds of faults. What each means depends on the step: see Fault.
const (
	KindDie      = "die"
	KindDrop     = "drop"
	KindLose     = "lose"
	KindHang     = "hang"
	KindFail     = "fail"
	KindCrash    = "crash"
	KindRefuse   = "refuse"
	KindReset    = "reset"
	KindStranger = "stranger"
	KindHold     = "hold"
	KindSwap     = "swap"
)

const (
	stepInstall = "install"
	stepSSH     = "ssh"
	stepAction  = "action:" // + the beginning of a task's name
	stepRun     = host.StepRun + ":"
	stepNet     = host.StepNet + ":"
	stepLock    = host.StepLock
	stepDisk    = host.StepDisk + ":"
	stepPhase   = host.StepPhase + ":"
	stepAPI     = host.StepAPI
	stepReach   = host.StepEndpoint
)

// Fault is something that goes wrong at a step of a machine's way.
//
// Steps post, patch, delete (of the machine's deployment), parlay (a job for it),
// log (reading or deleting its log):
//
//	die    the connection closes without an answer, nothing was done
//	drop   it was done, and the connection closes without an answer
//	lose   success is answered, nothing was done
//	hang   no answer, until the client gives up
//	fail   the envelope holds an error
//	crash  the server dies and comes back without memory
//
// Step install: die (power is lost), hang (the installer asks something), fail (it
// gives up and the machine reboots).
//
// Step ssh (every dial): refuse, lose (packets are swallowed), hang (it accepts and
// says nothing), fail (the handshake fails), stranger (another machine has the
// address already).
//
// Step action:NAME (tasks whose name begins with NAME): fail (exit status 1), hang,
// die (power is lost), reset, crash (of the server), lose (the connection is lost, and what
// runs on the machine goes on), swap (the boot disk has been replaced by another one with the
// same contents; the action then runs as usual).
//
// Step run:PROGRAM [WORD...] (a program that runs on the machine, with arguments that
// begin so, in this order; see host.Step.Is): fail (exit status 1), hang, die, reset,
// crash, lose (it says that all went well). After passes first: the program does nothing.
//
// Step disk:DEVICE[@FROM+BYTES] (what was written to a disk of the machine gets from the page
// cache to the platters, as disk:sda, disk:nvme0n1@1G+4M, disk:*): lose (the disk says that it
// has it, and keeps what it had), fail (I/O error). The range is in bytes, or with K, M, G, T;
// without, it is the whole disk.
//
// Step net:SERVER (a connection from the machine to a server of the outside, as
// net:pkgs.k8s.io): refuse, lose (nothing answers), fail (the server answers 503), hang.
//
// Step lock: hold (another program has the package manager's lock, for After; for ever
// without).
//
// Step phase:init [PHASE] or phase:join [PHASE] (kubeadm begins a phase on the machine,
// as phase:init wait-control-plane): as run.
//
// Step api (a request to the API server on the machine), step endpoint (a request from
// the machine to a control plane endpoint that is no machine's address): as net.
type Fault struct {
	// Machine is a MAC, an IPv4 address, a host name or its beginning before a dash
	// ("worker" is worker-ab1cd), "#N" for the N-th machine of the rack from 0, or
	// empty or "*" for any.
	Machine string
	Step    string
	Kind    string
	// Skip is how often the step goes well before.
	Skip int
	// Times is how often it happens then; 0 means every time.
	Times int
	// After is how far into the step it happens.
	After time.Duration
}

// faultKinds are the steps with their kinds.
func faultKinds(step string) []string {
	switch {
	case slices.Contains([]string{"post", "patch", "delete", "parlay", "log"}, step):
		return []string{KindDie, KindDrop, KindLose, KindHang, KindFail, KindCrash}
	case step == stepInstall:
		return []string{KindDie, KindHang, KindFail}
	case step == stepSSH:
		return []string{KindRefuse, KindLose, KindHang, KindFail, KindStranger}
	case strings.HasPrefix(step, stepAction):
		return []string{KindFail, KindHang, KindLose, KindDie, KindReset, KindCrash, KindSwap}
	case strings.HasPrefix(step, stepRun) && len(step) > len(stepRun):
		return []string{KindFail, KindHang, KindLose, KindDie, KindReset, KindCrash}
	case strings.HasPrefix(step, stepDisk) && len(step) > len(stepDisk):
		return []string{KindLose, KindFail}
	case strings.HasPrefix(step, stepPhase) && len(step) > len(stepPhase):
		return []string{KindFail, KindHang, KindDie, KindReset, KindCrash}
	case strings.HasPrefix(step, stepNet) && len(step) > len(stepNet), step == stepAPI, step == stepReach:
		return []string{KindRefuse, KindLose, KindFail, KindHang}
	case step == stepLock:
		return []string{KindHold}
	}
	return nil
}

// ParseFault reads [MACHINE/]STEP=KIND[,skip=N][,times=N][,after=DURATION], for example
//
//	worker/post=drop,times=1
//	00:50:56:a5:11:20/install=hang
//	192.168.1.123/ssh=stranger
//	controlplane/action:init=die,times=1,after=3s
//	worker/run:apt-get install kubelet=fail,times=2
//	net:pkgs.k8s.io=lose,skip=3
//	lock=hold,times=1,after=2m
//	worker/disk:sda@4M+512=lose
func ParseFault(text string) (Fault, error) {
	bad := func(format string, args ...any) (Fault, error) {
		return Fault{}, fmt.Errorf("fault %q: %s; want [MACHINE/]STEP=KIND[,skip=N][,times=N][,after=DURATION]", text, fmt.Sprintf(format, args...))
	}
	fields := strings.Split(text, ",")
	i := strings.LastIndexByte(fields[0], '=')
	if i < 0 {
		return bad("there is no =")
	}
	place, kind := fields[0][:i], fields[0][i+1:]
	f := Fault{Step: place, Kind: kind}
	if m, step, ok := strings.Cut(place, "/"); ok && !slices.ContainsFunc([]string{stepAction, stepRun, stepNet, stepDisk}, func(p string) bool { return strings.HasPrefix(m, p) }) {
		f.Machine, f.Step = m, step
	}
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(field, "=")
		var err error
		switch name {
		case "times":
			if f.Times, err = strconv.Atoi(value); err == nil && f.Times < 1 {
				return bad("times is %d, want 1 or more", f.Times)
			}
		case "skip":
			if f.Skip, err = strconv.Atoi(value); err == nil && f.Skip < 1 {
				return bad("skip is %d, want 1 or more", f.Skip)
			}
		case "after":
			f.After, err = time.ParseDuration(value)
		default:
			return bad("%q is none of skip, times, after", name)
		}
		if err != nil {
			return bad("%s: %v", name, err)
		}
	}
	if err := f.check(); err != nil {
		return bad("%v", err)
	}
	return f, nil
}

func (f Fault) check() error {
	kinds := faultKinds(f.Step)
	switch {
	case kinds == nil:
		return fmt.Errorf("there is no step %q (there are post, patch, delete, parlay, log, install, ssh, action:TASK, run:PROGRAM, net:SERVER, disk:DEVICE, lock, phase:init, phase:join, api, endpoint)", f.Step)
	case !slices.Contains(kinds, f.Kind):
		return fmt.Errorf("step %s has no %q (it has %s)", f.Step, f.Kind, strings.Join(kinds, ", "))
	case f.After < 0:
		return fmt.Errorf("after is negative")
	}
	_, _, _, err := f.diskRange()
	return err
}

// diskRange is what a fault of a disk is about: the disk, and the range in bytes, of which to
// is 0 for its end.
func (f Fault) diskRange() (device string, from, to int64, err error) {
	device, text, has := strings.Cut(strings.TrimPrefix(f.Step, stepDisk), "@")
	device = strings.TrimPrefix(device, "/dev/")
	if !strings.HasPrefix(f.Step, stepDisk) || !has {
		return device, 0, 0, nil
	}
	a, b, _ := strings.Cut(text, "+")
	from, err1 := bytesOf(a)
	length, err2 := bytesOf(b)
	if err := errors.Join(err1, err2); err != nil || length == 0 {
		return "", 0, 0, fmt.Errorf("step %s: %q is no range of bytes as 1G+4M", f.Step, text)
	}
	return device, from, from + length, nil
}

// bytesOf reads 4096, 4K, 4M, 4G or 4T.
func bytesOf(s string) (int64, error) {
	shift := 0
	if i := strings.IndexAny(s, "KMGT"); i >= 0 && i == len(s)-1 {
		shift = 10 * (1 + strings.IndexByte("KMGT", s[i]))
		s = s[:i]
	}
	n, err := strconv.ParseUint(s, 10, 62)
	if err != nil || n > 1<<62>>shift {
		return 0, fmt.Errorf("%q is no size", s)
	}
	return int64(n << shift), nil
}

// String is the form that ParseFault reads.
func (f Fault) String() string {
	s := f.Step + "=" + f.Kind
	if f.Machine != "" {
		s = f.Machine + "/" + s
	}
	if f.Skip > 0 {
		s += ",skip=" + strconv.Itoa(f.Skip)
	}
	if f.Times > 0 {
		s += ",times=" + strconv.Itoa(f.Times)
	}
	if f.After > 0 {
		s += ",after=" + f.After.String()
	}
	return s
}

// subject is what a step is about, as far as it is known.
type subject struct {
	mac      string
	index    int // -1 when unknown
	address  string
	hostname string
}

// concerns is true if the fault is meant for x.
func (f Fault) concerns(x subject) bool {
	switch m := f.Machine; {
	case m == "" || m == "*":
		return true
	case strings.HasPrefix(m, "#"):
		return x.index >= 0 && m == "#"+strconv.Itoa(x.index)
	case strings.EqualFold(m, x.mac), m == x.address:
		return true
	default:
		return m == x.hostname || strings.HasPrefix(x.hostname, m+"-")
	}
}

// faultState is a fault and how often its step came, up to the last time it happens.
// Server.faultMu guards it.
type faultState struct {
	Fault

	used int
}

// due counts a step and says whether the fault happens at it.
func (f *faultState) due() bool {
	if f.Times > 0 && f.used >= f.Skip+f.Times {
		return false
	}
	f.used++
	return f.used > f.Skip
}

// fault is the first fault that is due at a step for x, of one of these kinds (any
// when none is given), and counts it. Call with mu held.
func (s *Server) fault(step string, x subject, kinds ...string) *Fault {
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	for _, f := range s.faults {
		here := f.Step == step || strings.HasPrefix(f.Step, stepAction) && strings.HasPrefix(step, f.Step)
		if here && (len(kinds) == 0 || slices.Contains(kinds, f.Kind)) && f.concerns(x) && f.due() {
			return &f.Fault
		}
	}
	return nil
}

// sabotage has the faults of programs, connections and locks happen on a host. It must
// not wait for Server.mu: whoever has that may wait for the host to end.
func (s *Server) sabotage(h *host.Host, x subject) {
	h.Sabotage(func(step host.Step) *host.Trouble {
		s.faultMu.Lock()
		defer s.faultMu.Unlock()
		for _, f := range s.faults {
			pattern := f.Step
			if pattern == stepLock || pattern == stepAPI || pattern == stepReach {
				pattern += ":*"
			}
			if strings.HasPrefix(pattern, stepDisk) {
				device, _, _, _ := f.diskRange() // it was checked
				pattern = stepDisk + device
			}
			if step.Is(pattern) && f.concerns(x) && f.due() {
				return s.trouble(f.Fault, x)
			}
		}
		return nil
	})
}

// trouble is what a fault does to a program or a connection.
func (s *Server) trouble(f Fault, x subject) *host.Trouble {
	const noAnswer, serverError = 28, 22 // of curl
	t := &host.Trouble{After: f.After}
	if strings.HasPrefix(f.Step, stepDisk) {
		_, t.From, t.To, _ = f.diskRange() // it was checked
		t.Lost = f.Kind == KindLose
		return t
	}
	switch f.Kind {
	case KindFail:
		t.Exit, t.Text = 1, "simulated: "+f.String()
		if strings.HasPrefix(f.Step, stepNet) || f.Step == stepAPI || f.Step == stepReach {
			t.Exit, t.Text = serverError, ""
		}
	case KindLose:
		t.Exit, t.Lost = noAnswer, strings.HasPrefix(f.Step, stepRun)
	case KindHang:
		t.Hang = true
	case KindHold:
		t.Hang = f.After == 0
	case KindDie, KindReset, KindCrash:
		t.Do = func() { s.strike(f.Kind, target{address: x.address}, func() {}) }
	}
	return t
}

// Inject adds a fault to a running server.
func (s *Server) Inject(f Fault) error {
	if err := f.check(); err != nil {
		return fmt.Errorf("fault %s: %w", f, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faultMu.Lock()
	s.faults = append(s.faults, &faultState{Fault: f})
	s.faultMu.Unlock()
	s.inviteStrangers()
	return nil
}

// Heal ends all faults: from now on nothing goes wrong on purpose. What they did
// stays done: a stranger keeps its address, a machine without power has none.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faultMu.Lock()
	defer s.faultMu.Unlock()
	s.faults = nil
}

// subjectFor completes what is known of a machine from its deployment and the rack.
func (s *Server) subjectFor(mac, address, hostname string) subject {
	x := subject{mac: mac, index: -1, address: address, hostname: hostname}
	for _, d := range s.mem.Deployments {
		if mac != "" && strings.EqualFold(d.MAC, mac) || mac == "" && address != "" && d.Config.Address == address {
			x.mac = d.MAC
			if x.address == "" {
				x.address = d.Config.Address
			}
			if x.hostname == "" {
				x.hostname = d.Config.Hostname
			}
		}
	}
	for _, m := range s.machines {
		n := m.names()
		if strings.EqualFold(m.MAC, x.mac) || x.mac == "" && address != "" && n.address == address {
			x.index, x.mac = m.Index, m.MAC
			if x.hostname == "" {
				x.hostname = n.hostname
			}
		}
	}
	return x
}

// inviteStrangers puts another machine at the address of every deployment that a
// fault asks this for. It was there first, so it is the one that answers.
func (s *Server) inviteStrangers() {
	if !slices.ContainsFunc(s.faults, func(f *faultState) bool { return f.Kind == KindStranger }) {
		return
	}
	for _, d := range s.mem.Deployments {
		a := d.Config.Address
		if s.strangers[a] != nil || d.BootConfigName == wire.RebootConfigName {
			continue
		}
		if s.fault(stepSSH, s.subjectFor(d.MAC, a, d.Config.Hostname), KindStranger) == nil {
			continue
		}
		s.stranger(a, d.Config.Username)
	}
}

func (s *Server) stranger(address, user string) {
	s.guests++
	h := host.New(host.Config{
		MAC: fmt.Sprintf("02:00:5e:10:%02x:%02x", s.guests>>8&0xff, s.guests&0xff), Address: address, HostName: "stranger",
		User: user, Seed: s.cfg.Seed - 1, World: s.world,
	})
	h.TakeAddress()
	s.strangers[address] = h
}

// Stranger puts another machine with another MAC, which is not one of the rack, at an IPv4
// address, where it answers in the place of the one that has it; or takes it away again.
func (s *Server) Stranger(address string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	switch h := s.strangers[address]; {
	case on && h == nil:
		user := s.mem.Global.Username
		for _, d := range s.mem.Deployments {
			if d.Config.Address == address {
				user = cmp.Or(d.Config.Username, user)
			}
		}
		s.stranger(address, user)
	case !on && h != nil:
		h.Close()
		delete(s.strangers, address)
	}
	s.save()
}
