package host

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// system is the part of an installed system that is not in files: what the
// package manager, the service manager and the kernel know. Host.mu guards it.
type system struct {
	profile  profile
	hostName string
	packages map[string]installed
	index    map[string]bool // lines of sources.list whose packages apt-get update has fetched
	units    map[string]*unit
	modules  map[string]bool
	sysctls  map[string]string
	swap     bool
	images   bool // kubeadm config images pull has run
	cluster  *cluster
	// lockedUntil is how long another program has the package manager's lock.
	lockedUntil time.Time
}

// installed is an installed package.
type installed struct {
	Version string
	Held    bool `json:",omitempty"`
}

// unit is a service.
type unit struct {
	Enabled bool
	Active  bool
	Masked  bool `json:",omitempty"`
}

func newSystem(p profile) system {
	return system{
		profile: p, packages: map[string]installed{}, index: map[string]bool{}, units: map[string]*unit{},
		modules: map[string]bool{}, sysctls: map[string]string{"net.ipv4.ip_forward": "0"},
	}
}

// boot forgets what a kernel forgets.
func (s *system) boot() {
	s.modules = map[string]bool{}
	s.sysctls = map[string]string{"net.ipv4.ip_forward": "0"}
}

// startServices is the part of a boot that reads files: swap, modules, kernel
// parameters, and the services that are enabled.
func (h *Host) startServices() {
	root := who{umask: 0o022}
	fstab, _ := h.fs.readFile(root, "/etc/fstab")
	h.mu.Lock()
	h.sys.swap = hasSwap(string(fstab))
	h.mu.Unlock()
	for _, e := range h.list("/etc/modules-load.d") {
		b, _ := h.fs.readFile(root, e)
		for _, m := range strings.Fields(string(b)) {
			h.loadModule(m)
		}
	}
	for _, e := range h.list("/etc/sysctl.d") {
		b, _ := h.fs.readFile(root, e)
		h.setParameters(string(b))
	}
	h.mu.Lock()
	units := sortedKeys(h.sys.units)
	h.mu.Unlock()
	for _, name := range units {
		h.mu.Lock()
		u := h.sys.units[name]
		u.Active = u.Enabled && !u.Masked
		active := u.Active
		h.mu.Unlock()
		if active {
			h.serviceFiles(name)
		}
	}
}

// list is the files of a directory, as paths.
func (h *Host) list(dir string) []string {
	entries, err := h.fs.readDir(who{}, dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, dir+"/"+e.Name())
	}
	return out
}

// hasSwap reports whether an fstab has a line that turns swap on.
func hasSwap(fstab string) bool {
	for _, line := range lines([]byte(fstab)) {
		if f := strings.Fields(line); len(f) > 2 && !strings.HasPrefix(f[0], "#") && f[2] == "swap" {
			return true
		}
	}
	return false
}

func (h *Host) loadModule(name string) {
	h.mu.Lock()
	h.sys.modules[name] = true
	if name == "br_netfilter" {
		for _, k := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
			h.sys.sysctls[k] = "1"
		}
	}
	h.mu.Unlock()
	h.fs.put("/sys/module/"+name, &node{mode: fs.ModeDir | 0o755, volatile: true})
}

// setParameters applies lines of a sysctl file and returns the first key that does not exist.
func (h *Host) setParameters(text string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	bad := ""
	for _, line := range strings.Split(text, "\n") {
		k, v, ok := strings.Cut(line, "=")
		k = strings.TrimSpace(k)
		if !ok || strings.HasPrefix(k, "#") {
			continue
		}
		if strings.HasPrefix(k, "net.bridge.") && !h.sys.modules["br_netfilter"] {
			if bad == "" {
				bad = k
			}
			continue
		}
		h.sys.sysctls[k] = strings.TrimSpace(v)
	}
	return bad
}

// serviceFiles makes what a service leaves in /run when it starts.
func (h *Host) serviceFiles(name string) {
	socket := map[string]string{"containerd": "/run/containerd/containerd.sock", "docker": "/run/docker.sock"}[name]
	if socket != "" {
		h.fs.put(socket, &node{mode: fs.ModeSocket | 0o660, volatile: true})
	}
}

func (h *Host) active(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.sys.units[name]
	return u != nil && u.Active
}

// systemCommand are the programs that look at or change the system as a whole.
func systemCommand(name string) command {
	switch name {
	case "uptime":
		return cmdUptime
	case "uname":
		return cmdUname
	case "hostname":
		return cmdHostname
	case "hostnamectl":
		return cmdHostnamectl
	case "date":
		return cmdDate
	case "ps":
		return func(c *call) int { c.printf("    PID TTY          TIME CMD\n"); return 0 }
	case "swapoff", "swapon":
		return cmdSwap
	case "sysctl":
		return cmdSysctl
	case "modprobe":
		return cmdModprobe
	case "mount":
		return cmdMount
	case "systemctl":
		return cmdSystemctl
	case "reboot":
		return cmdReboot
	case "wipefs":
		return cmdWipefs
	case "sgdisk":
		return cmdSgdisk
	case "blkdiscard":
		return cmdBlkdiscard
	case "blockdev":
		return cmdBlockdev
	case "openssl":
		return cmdOpenssl
	}
	return nil
}

func cmdUptime(c *call) int {
	up := c.h.uptime()
	since := fmt.Sprintf("%d min", int(up.Minutes()))
	if up >= time.Hour {
		since = fmt.Sprintf("%2d:%02d", int(up.Hours())%24, int(up.Minutes())%60)
	}
	if days := int(up.Hours()) / 24; days > 0 {
		since = fmt.Sprintf("%d days, %s", days, since)
	}
	c.printf(" %s up %s,  0 users,  load average: 0.08, 0.03, 0.01\n", time.Now().UTC().Format(time.TimeOnly), since)
	return 0
}

func (h *Host) name() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sys.hostName
}

func cmdUname(c *call) int {
	flags, _ := options(c.args[1:])
	var out []string
	for _, f := range []struct{ flag, text string }{{"-s", "Linux"}, {"-n", c.h.name()}, {"-r", c.h.sys.profile.kernel}, {"-m", "x86_64"}} {
		if has(flags, f.flag, "-a") || len(flags) == 0 && f.flag == "-s" {
			out = append(out, f.text)
		}
	}
	c.printf("%s\n", strings.Join(out, " "))
	return 0
}

func cmdHostname(c *call) int {
	flags, args := options(c.args[1:])
	switch {
	case len(args) > 0:
		return c.setHostName(args[0])
	case has(flags, "-I", "-i"):
		c.printf("%s\n", c.h.cfg.Address)
	default:
		c.printf("%s\n", c.h.name())
	}
	return 0
}

func (c *call) setHostName(name string) int {
	if !c.root() {
		return c.fail(1, "you must be root to change the host name")
	}
	c.h.mu.Lock()
	c.h.sys.hostName = name
	c.h.mu.Unlock()
	if err := c.write("/etc/hostname", []byte(name+"\n"), 0o644); err != nil {
		return c.fail(1, "%s", errText(err))
	}
	return 0
}

func cmdHostnamectl(c *call) int {
	_, args := options(c.args[1:])
	if len(args) == 2 && (args[0] == "set-hostname" || args[0] == "hostname") {
		return c.setHostName(args[1])
	}
	c.printf(" Static hostname: %s\n", c.h.name())
	return 0
}

func cmdDate(c *call) int {
	now := time.Now().UTC()
	format := "%a %b %e %H:%M:%S UTC %Y"
	for _, a := range c.args[1:] {
		if f, ok := strings.CutPrefix(a, "+"); ok {
			format = f
		}
		if strings.HasPrefix(a, "-I") {
			format = "%Y-%m-%d"
		}
	}
	c.printf("%s\n", strings.NewReplacer(
		"%s", fmt.Sprint(now.Unix()), "%Y", now.Format("2006"), "%m", now.Format("01"), "%d", now.Format("02"), "%e", now.Format("_2"),
		"%H", now.Format("15"), "%M", now.Format("04"), "%S", now.Format("05"), "%a", now.Format("Mon"), "%b", now.Format("Jan"),
		"%F", now.Format(time.DateOnly), "%T", now.Format(time.TimeOnly), "%Z", "UTC", "%z", "+0000",
	).Replace(format))
	return 0
}

func cmdSwap(c *call) int {
	on := c.args[0] == "swapon"
	flags, args := options(c.args[1:])
	if has(flags, "--show") || on && len(flags) == 0 && len(args) == 0 {
		c.printf("%s", c.h.swaps())
		return 0
	}
	if !c.root() {
		return c.fail(1, "Not superuser.")
	}
	fstab, _ := c.read("/etc/fstab")
	c.h.mu.Lock()
	c.h.sys.swap = on && hasSwap(string(fstab))
	c.h.mu.Unlock()
	return 0
}

func cmdSysctl(c *call) int {
	flags, args := options(c.args[1:])
	if has(flags, "-p", "--load", "--system") {
		if !c.root() {
			return c.fail(1, "permission denied")
		}
		if len(args) == 0 {
			args = c.h.list("/etc/sysctl.d")
		}
		for _, f := range args {
			b, err := c.read(f)
			if err != nil {
				return c.fail(1, "cannot open \"%s\": %s", f, errText(err))
			}
			if bad := c.h.setParameters(string(b)); bad != "" {
				return c.fail(255, "cannot stat /proc/sys/%s: No such file or directory", strings.ReplaceAll(bad, ".", "/"))
			}
		}
		return 0
	}
	for _, a := range args {
		if strings.Contains(a, "=") {
			if !c.root() {
				return c.fail(1, "permission denied on key '%s'", a)
			}
			if bad := c.h.setParameters(a); bad != "" {
				return c.fail(255, "cannot stat /proc/sys/%s: No such file or directory", strings.ReplaceAll(bad, ".", "/"))
			}
			continue
		}
		c.h.mu.Lock()
		v, ok := c.h.sys.sysctls[a]
		c.h.mu.Unlock()
		if !ok {
			return c.fail(255, "cannot stat /proc/sys/%s: No such file or directory", strings.ReplaceAll(a, ".", "/"))
		}
		if has(flags, "-n") {
			c.printf("%s\n", v)
		} else {
			c.printf("%s = %s\n", a, v)
		}
	}
	return 0
}

func cmdModprobe(c *call) int {
	_, args := options(c.args[1:])
	for _, m := range args {
		if !c.root() {
			return c.fail(1, "ERROR: could not insert '%s': Operation not permitted", m)
		}
		if !slices.Contains([]string{"overlay", "br_netfilter", "nf_conntrack", "ip_vs", "ip_vs_rr", "vxlan"}, m) {
			return c.fail(1, "FATAL: Module %s not found in directory /lib/modules/%s", m, c.h.sys.profile.kernel)
		}
		c.h.loadModule(m)
	}
	return 0
}

func cmdMount(c *call) int {
	if len(c.args) > 1 {
		return c.fail(1, "only listing")
	}
	b, err := c.read("/proc/mounts")
	if err != nil {
		return 1
	}
	for _, line := range lines(b) {
		if f := strings.Fields(line); len(f) > 3 {
			c.printf("%s on %s type %s (%s)\n", f[0], f[1], f[2], f[3])
		}
	}
	return 0
}

func cmdSystemctl(c *call) int {
	flags, args := options(c.args[1:], "--type", "--state", "-t")
	if len(args) == 0 {
		args = []string{"list-units"}
	}
	verb, names := args[0], args[1:]
	switch verb {
	case "daemon-reload", "daemon-reexec", "reset-failed":
		return 0
	case "list-units", "list-unit-files":
		c.printf("%s", c.h.unitList(strings.Contains(strings.Join(flags["--type"], ","), "swap")))
		return 0
	case "is-system-running":
		c.printf("running\n")
		return 0
	case "reboot":
		return cmdReboot(c)
	}
	if !c.root() && !slices.Contains([]string{"is-active", "is-enabled", "status", "show", "cat"}, verb) {
		return c.fail(1, "Interactive authentication required.")
	}
	status := 0
	for _, n := range names {
		if s := c.unit(verb, n, has(flags, "--now"), has(flags, "-q", "--quiet")); s != 0 {
			status = s
		}
	}
	return status
}

func state(u *unit) string {
	if u != nil && u.Active {
		return "active"
	}
	return "inactive"
}

// unitList is the table of services, or of swap units. Nothing is printed while the
// host is locked: what is printed may go to a file of the host.
func (h *Host) unitList(swap bool) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if swap {
		if h.sys.swap {
			return "swap.img.swap loaded active running /swap.img\n"
		}
		return ""
	}
	var b strings.Builder
	for _, n := range sortedKeys(h.sys.units) {
		fmt.Fprintf(&b, "%s.service loaded %s\n", n, state(h.sys.units[n]))
	}
	return b.String()
}

// unit does one verb to one service.
func (c *call) unit(verb, name string, now, quiet bool) int {
	if strings.HasSuffix(name, ".swap") {
		return 0
	}
	name = strings.TrimSuffix(name, ".service")
	text, started, status := c.h.changeUnit(verb, name, now)
	if started {
		c.h.serviceFiles(name)
	}
	switch {
	case text == "":
	case status == 0 || strings.HasPrefix(verb, "is-") || verb == "status":
		if !quiet {
			c.printf("%s\n", text)
		}
	default:
		c.errf("%s", text)
	}
	return status
}

func (h *Host) changeUnit(verb, name string, now bool) (text string, started bool, status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.sys.units[name]
	switch {
	case verb == "is-active" || verb == "status":
		if u == nil || !u.Active {
			return state(u), false, 3
		}
		return state(u), false, 0
	case verb == "is-enabled":
		if u == nil || !u.Enabled {
			return "disabled", false, 1
		}
		return "enabled", false, 0
	case u == nil && slices.Contains([]string{"start", "restart", "stop", "reload"}, verb):
		return fmt.Sprintf("Failed to %s %s.service: Unit %s.service not found.", verb, name, name), false, 5
	case u == nil:
		return fmt.Sprintf("Failed to %s unit: Unit file %s.service does not exist.", verb, name), false, 1
	}
	start := slices.Contains([]string{"start", "restart", "reload"}, verb) || verb == "enable" && now
	if start && u.Masked {
		return fmt.Sprintf("Failed to start %s.service: Unit %s.service is masked.", name, name), false, 1
	}
	switch verb {
	case "enable":
		u.Enabled = true
	case "disable":
		u.Enabled = false
	case "mask":
		u.Masked = true
	case "unmask":
		u.Masked = false
	}
	if start {
		u.Active = true
	}
	if verb == "stop" || (verb == "disable" || verb == "mask") && now {
		u.Active = false
	}
	return "", start, 0
}

// cmdReboot resets the host: nothing here needs a graceful way down.
func cmdReboot(c *call) int {
	if !c.root() {
		return c.fail(1, "Interactive authentication required.")
	}
	c.h.reset()
	<-c.ctx.Done() // nothing runs after a reset
	return 0
}

// device finds a block device among operands.
func (c *call) device(args []string) (section, int) {
	if len(args) == 0 {
		return section{}, c.fail(1, "no device specified")
	}
	name := args[len(args)-1]
	c.h.fs.mu.Lock()
	n, _, err := c.h.fs.get(c.path(name), true)
	c.h.fs.mu.Unlock()
	switch {
	case err != nil:
		return section{}, c.fail(1, "cannot open %s: %s", name, errText(err))
	case n.block == nil:
		return section{}, c.fail(1, "%s: not a block device", name)
	case !c.who().allowed(n, 6):
		return section{}, c.fail(1, "cannot open %s: Permission denied", name)
	}
	return *n.block, 0
}

// clear makes a range of a device zeros.
func (s section) clear(off, length int64) { s.d.zero(s.off+off, min(length, s.length-off)) }

func cmdWipefs(c *call) int {
	flags, args := options(c.args[1:])
	if has(flags, "--version", "-V") {
		c.printf("wipefs from util-linux 2.39.3\n")
		return 0
	}
	s, status := c.device(args)
	if status != 0 || !has(flags, "-a") {
		return status
	}
	for _, magic := range []struct{ off, length int64 }{{0, 8}, {510, 2}, {512, 8}, {0x438, 2}, {s.length - sectorSize, 8}} {
		s.clear(magic.off, magic.length)
	}
	return 0
}

func cmdSgdisk(c *call) int {
	flags, args := options(c.args[1:])
	s, status := c.device(args)
	if status == 0 && has(flags, "--zap-all", "-Z") {
		s.clear(0, 34*sectorSize)
		s.clear(s.length-33*sectorSize, 33*sectorSize)
	}
	return status
}

func cmdBlkdiscard(c *call) int {
	flags, args := options(c.args[1:])
	if has(flags, "--version", "-V") {
		c.printf("blkdiscard from util-linux 2.39.3\n")
		return 0
	}
	s, status := c.device(args)
	if status == 0 {
		s.clear(0, s.length)
	}
	return status
}

func cmdBlockdev(c *call) int {
	flags, args := options(c.args[1:])
	if has(flags, "--version", "-V") {
		c.printf("blockdev from util-linux 2.39.3\n")
		return 0
	}
	s, status := c.device(args)
	switch {
	case status != 0:
	case has(flags, "--getsize64"):
		c.printf("%d\n", s.length)
	case has(flags, "--getsz"):
		c.printf("%d\n", s.length/sectorSize)
	}
	return status
}
