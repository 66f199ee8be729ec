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
	// lockedUntil is how long another program has the package manager's lock.
	lockedUntil time.Time
	mounts      []mounted // beside those of the installation
	permissive  bool      // SELinux only warns

	kubeState
}

// installed is an installed package.
type installed struct {
	Version string
	Held    bool `json:",omitempty"`
}

func newSystem(p profile) system {
	return system{
		profile: p, packages: map[string]installed{}, index: map[string]bool{}, units: map[string]*unit{},
		modules: map[string]bool{}, sysctls: map[string]string{"net.ipv4.ip_forward": "0"},
	}
}

// boot forgets what a kernel forgets.
func (s *system) boot() {
	s.mounts, s.lockedUntil = nil, time.Time{}
	s.modules = map[string]bool{}
	s.sysctls = map[string]string{"net.ipv4.ip_forward": "0"}
}

// startServices is the part of a boot that reads files: swap, modules, kernel
// parameters, and the services that are enabled.
func (h *Host) startServices() {
	root := who{umask: 0o022}
	fstab, _ := h.fs.readFile(root, "/etc/fstab")
	overridden := h.fs.exists("/etc/systemd/zram-generator.conf")
	selinux, _ := h.fs.readFile(root, "/etc/selinux/config")
	h.mu.Lock()
	h.sys.permissive = !strings.Contains("\n"+string(selinux), "\nSELINUX=enforcing")
	h.sys.swap = h.swapAtBoot(string(fstab), overridden)
	h.mu.Unlock()
	for _, m := range fstabMounts(fstab) {
		h.mount(m, true) // what cannot be mounted stays away, as with nofail
	}
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

// swapAtBoot reports whether the system swaps when it has booted. Call with mu held.
func (h *Host) swapAtBoot(fstab string, overridden bool) bool {
	p := h.sys.profile
	swap := hasSwap(fstab)
	if p.zram {
		swap = !overridden
	}
	u := h.sys.units[p.swapUnit()]
	return swap && (u == nil || !u.Masked)
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
	case "systemctl":
		return cmdSystemctl
	case "reboot":
		return cmdReboot
	case "getenforce", "setenforce", "restorecon":
		return cmdSELinux
	case "ufw":
		return cmdUfw
	case "firewall-cmd":
		return cmdFirewall
	case "timedatectl", "chronyc", "chronyd":
		return cmdTime
	case "tc":
		return func(*call) int { return 0 }
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
	c.h.sys.swap = on && (hasSwap(string(fstab)) || c.h.sys.profile.zram)
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
	flags, args := options(c.args[1:])
	if len(args) == 0 {
		return c.fail(1, "FATAL: missing module name")
	}
	if !has(flags, "-a", "--all") {
		args = args[:1] // the rest are parameters
	}
	for _, m := range args {
		m = strings.ReplaceAll(m, "-", "_")
		if !c.root() {
			return c.fail(1, "ERROR: could not insert '%s': Operation not permitted", m)
		}
		if !c.h.hasModule(m) {
			return c.fail(1, "FATAL: Module %s not found in directory /lib/modules/%s", m, c.h.sys.profile.kernel)
		}
		if has(flags, "-r", "--remove") {
			c.h.mu.Lock()
			delete(c.h.sys.modules, m)
			c.h.mu.Unlock()
			_ = c.h.fs.remove(who{}, "/sys/module/"+m, true) // it may not be loaded
			continue
		}
		c.h.loadModule(m)
	}
	return 0
}

// hasModule reports whether the kernel's packages bring a module. From EL10 on the
// bridge's filter is in a package that is not installed by default.
func (h *Host) hasModule(name string) bool {
	if name == "br_netfilter" && h.sys.profile.release() == "el10" && h.sys.profile.rpm() {
		return h.installed("kernel-modules-extra").Version != ""
	}
	return slices.Contains([]string{"overlay", "br_netfilter", "nf_conntrack", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh", "vxlan", "ip_tables", "nf_tables", "zram"}, name)
}

func cmdSELinux(c *call) int {
	name := c.args[0]
	if !c.h.sys.profile.selinux {
		return c.fail(1, "SELinux is disabled")
	}
	switch {
	case strings.HasSuffix(name, "getenforce"):
		c.h.mu.Lock()
		permissive := c.h.sys.permissive
		c.h.mu.Unlock()
		c.printf("%s\n", map[bool]string{true: "Permissive", false: "Enforcing"}[permissive])
		return 0
	case strings.HasSuffix(name, "restorecon"):
		flags, args := options(c.args[1:], "-e", "-f")
		for _, a := range args {
			if _, err := c.h.fs.stat(c.path(a), true); err != nil && !has(flags, "-i") {
				return c.fail(255, "lstat(%s) failed: No such file or directory", a)
			}
		}
		return 0
	}
	if len(c.args) != 2 || !slices.Contains([]string{"0", "1", "Permissive", "Enforcing", "permissive", "enforcing"}, c.args[1]) {
		c.errf("usage:  setenforce [ Enforcing | Permissive | 1 | 0 ]")
		return 1
	}
	if !c.root() {
		return c.fail(1, "security_setenforce() failed:  Permission denied")
	}
	c.h.mu.Lock()
	c.h.sys.permissive = c.args[1] == "0" || strings.EqualFold(c.args[1], "permissive")
	c.h.mu.Unlock()
	return 0
}

func cmdUfw(c *call) int {
	_, args := options(c.args[1:])
	if !c.root() {
		c.errf("ERROR: You need to be root to run this script")
		return 1
	}
	if len(args) == 0 || !slices.Contains([]string{"enable", "disable", "status", "allow", "reload", "reset"}, args[0]) {
		c.errf("ERROR: Invalid syntax")
		return 1
	}
	switch args[0] {
	case "disable":
		c.printf("Firewall stopped and disabled on system startup\n")
	case "status":
		c.printf("Status: %s\n", state(nil))
	}
	return 0
}

func cmdFirewall(c *call) int {
	if !c.h.active("firewalld") {
		c.errf("FirewallD is not running")
		return 252
	}
	c.printf("success\n")
	return 0
}

// cmdTime is timedatectl and chronyc: the clock is right.
func cmdTime(c *call) int {
	if strings.HasSuffix(c.args[0], "timedatectl") {
		c.printf("System clock synchronized: yes\nNTP service: active\n")
	}
	return 0
}

// cmdReboot resets the host: nothing here needs a graceful way down. The disks are
// flushed unless it is told not to.
func cmdReboot(c *call) int {
	if !c.root() {
		return c.fail(1, "Interactive authentication required.")
	}
	if flags, _ := options(c.args[1:]); !has(flags, "--no-sync", "-n", "-d") {
		c.h.sync()
	}
	c.h.reset()
	<-c.ctx.Done() // nothing runs after a reset
	return 0
}
