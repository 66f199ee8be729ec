package host

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// unit is a service, or a swap unit.
type unit struct {
	Enabled bool
	Active  bool
	Masked  bool      `json:",omitempty"`
	Failed  bool      `json:",omitempty"`
	Started time.Time `json:",omitzero"` // last, by systemctl
	// Environment is what its files gave it when it was last started, NAME=VALUE.
	Environment []string `json:",omitempty"`
}

// Where unit files are; the first has them before the second.
const (
	adminUnits = "/etc/systemd/system/"
	unitSuffix = ".service"
)

func unitDirs() []string { return []string{adminUnits, "/usr/lib/systemd/system/"} }

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

// Exit statuses of systemctl.
const (
	systemctlInactive = 3
	systemctlNotFound = 5
)

func cmdSystemctl(c *call) int {
	flags, args := options(c.args[1:], "--type", "--state", "-t", "-p", "--property", "-n", "--lines", "-o")
	if len(args) == 0 {
		args = []string{"list-units"}
	}
	verb, names := args[0], args[1:]
	switch verb {
	case "daemon-reload", "daemon-reexec", "reset-failed":
		if !c.root() {
			return c.fail(1, "Interactive authentication required.")
		}
		return 0
	case "list-units", "list-unit-files":
		c.printf("%s", c.h.unitList(strings.Join(append(flags["--type"], flags["-t"]...), ","), names))
		return 0
	case "is-system-running":
		c.printf("running\n")
		return 0
	case "reboot":
		return cmdReboot(c)
	}
	asks := slices.Contains([]string{"is-active", "is-enabled", "is-failed", "status", "show", "cat"}, verb)
	if !c.root() && !asks {
		return c.fail(1, "Interactive authentication required.")
	}
	if len(names) == 0 {
		c.errf("Too few arguments.")
		return 1
	}
	status, best := 0, -1
	for _, n := range names {
		s := c.unit(verb, n, has(flags, "--now"), has(flags, "-q", "--quiet"), value(flags, "-p", "--property"))
		if s != 0 {
			status = s
		}
		if best < 0 || s < best {
			best = s
		}
	}
	if strings.HasPrefix(verb, "is-") {
		return best // one is enough
	}
	return status
}

func state(u *unit) string {
	switch {
	case u != nil && u.Active:
		return "active"
	case u != nil && u.Failed:
		return "failed"
	}
	return "inactive"
}

// unitList is the table of units of a type that fit one of the patterns. Nothing is
// printed while the host is locked: what is printed may go to a file of the host.
func (h *Host) unitList(kind string, patterns []string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]*unit{}
	for n, u := range h.sys.units {
		if !strings.Contains(n, ".") {
			n += unitSuffix
		}
		all[n] = u
	}
	if h.sys.swap {
		n, masked := h.sys.profile.swapUnit(), false
		if u := all[n]; u != nil {
			masked = u.Masked
		}
		all[n] = &unit{Active: true, Masked: masked}
	}
	var b strings.Builder
	for _, n := range sortedKeys(all) {
		fits := len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, n); return ok })
		if fits && (kind == "" || "."+kind == path.Ext(n)) {
			fmt.Fprintf(&b, "%s loaded %s running %s\n", n, state(all[n]), n)
		}
	}
	return b.String()
}

// swapUnit is the unit of the swap that an installation makes.
func (p profile) swapUnit() string {
	if p.zram {
		return "dev-zram0.swap"
	}
	return "swap.img.swap"
}

// unit does one verb to one unit.
func (c *call) unit(verb, name string, now, quiet bool, property string) int {
	name = strings.TrimSuffix(name, unitSuffix)
	if name == "chrony" && c.h.sys.profile.rpm() {
		name = "chrony." // there it has another name
	}
	text, _ := c.unitText(name)
	c.h.mu.Lock()
	if u := c.h.sys.units[name]; u == nil && (text != "" || verb == "mask") {
		c.h.sys.units[name] = &unit{}
	}
	c.h.mu.Unlock()
	start := slices.Contains([]string{"start", "restart", "reload-or-restart", "try-restart"}, verb) || verb == "enable" && now
	if start {
		if verb != "start" || !c.h.active(name) {
			if complaint := c.startUnit(name); complaint != "" {
				c.errf("%s", complaint)
				return 1
			}
		}
	}
	said, started, status := c.h.changeUnit(verb, name, now, property)
	if started {
		c.h.serviceFiles(name)
	}
	switch {
	case said == "":
	case status == 0 || strings.HasPrefix(verb, "is-") || verb == "status":
		if !quiet {
			c.printf("%s\n", said)
		}
	default:
		c.errf("%s", said)
	}
	return status
}

// unitText is a unit's file with its drop-ins.
func (c *call) unitText(name string) (text string, ok bool) {
	for _, dir := range unitDirs() {
		if b, err := c.h.fs.readFile(who{}, dir+name+unitSuffix); err == nil {
			text, ok = string(b), true
			break
		}
	}
	for _, dir := range unitDirs() {
		for _, f := range c.h.list(dir + name + unitSuffix + ".d") {
			if b, err := c.h.fs.readFile(who{}, f); err == nil && path.Ext(f) == ".conf" {
				text += "\n" + string(b)
			}
		}
	}
	return text, ok
}

// startUnit does what systemd does before a service runs: it reads its environment and
// finds its program. It returns what systemctl says when that fails.
func (c *call) startUnit(name string) string {
	text, hasFile := c.unitText(name)
	var env []string
	program := ""
	for _, line := range lines([]byte(text)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		switch k {
		case "ExecStart":
			program, _, _ = strings.Cut(strings.TrimLeft(v, "-@:+!"), " ")
		case "Environment":
			env = append(env, strings.Trim(v, `"`))
		case "EnvironmentFile":
			file, optional := strings.CutPrefix(v, "-")
			b, err := c.h.fs.readFile(who{}, file)
			if err != nil && !optional {
				c.h.setFailed(name)
				return fmt.Sprintf("Job for %s.service failed because of unavailable resources or another system error.\nSee \"systemctl status %s.service\" and \"journalctl -xeu %s.service\" for details.", name, name, name)
			}
			for _, l := range lines(b) {
				if k, v, ok := strings.Cut(strings.TrimSpace(l), "="); ok && !strings.HasPrefix(k, "#") {
					env = append(env, k+"="+strings.Trim(v, `"'`))
				}
			}
		}
	}
	c.h.mu.Lock()
	if u := c.h.sys.units[name]; u != nil {
		u.Environment, u.Failed, u.Started = env, false, time.Now()
	}
	c.h.mu.Unlock()
	if hasFile && program != "" && !c.h.fs.exists(program) {
		c.h.setFailed(name)
		return fmt.Sprintf("Job for %s.service failed because the control process exited with error code.\nSee \"systemctl status %s.service\" and \"journalctl -xeu %s.service\" for details.", name, name, name)
	}
	return ""
}

func (h *Host) setFailed(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.sys.units[name]; u != nil {
		u.Failed, u.Active = true, false
	}
}

func (h *Host) changeUnit(verb, name string, now bool, property string) (text string, started bool, status int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.sys.units[name]
	if strings.HasSuffix(name, ".swap") && u == nil {
		u = &unit{} // systemd makes them of fstab
	}
	switch {
	case verb == "is-failed":
		if u == nil || !u.Failed {
			return state(u), false, 1
		}
		return state(u), false, 0
	case verb == "is-active":
		if u == nil || !u.Active {
			return state(u), false, systemctlInactive
		}
		return state(u), false, 0
	case verb == "status" && u == nil:
		return fmt.Sprintf("Unit %s.service could not be found.", name), false, 4
	case verb == "status":
		s := fmt.Sprintf("● %s.service\n     Active: %s", name, state(u))
		if !u.Active {
			return s, false, systemctlInactive
		}
		return s, false, 0
	case verb == "show":
		fields := map[string]string{"ActiveState": state(u), "LoadState": map[bool]string{true: "loaded", false: "not-found"}[u != nil]}
		if property != "" {
			return property + "=" + fields[property], false, 0
		}
		return "ActiveState=" + fields["ActiveState"] + "\nLoadState=" + fields["LoadState"], false, 0
	case verb == "is-enabled" && u != nil && u.Masked:
		return "masked", false, 1
	case verb == "is-enabled" && u == nil:
		return "not-found", false, 4
	case verb == "is-enabled" && !u.Enabled:
		return "disabled", false, 1
	case verb == "is-enabled":
		return "enabled", false, 0
	case u == nil && slices.Contains([]string{"start", "restart", "stop", "reload", "try-restart", "reload-or-restart"}, verb):
		return fmt.Sprintf("Failed to %s %s.service: Unit %s.service not found.", verb, name, name), false, systemctlNotFound
	case u == nil:
		return fmt.Sprintf("Failed to %s unit: Unit file %s.service does not exist.", verb, name), false, 1
	}
	start := slices.Contains([]string{"start", "restart", "reload", "reload-or-restart"}, verb) || verb == "enable" && now || verb == "try-restart" && u.Active
	if start && u.Masked {
		return fmt.Sprintf("Failed to start %s.service: Unit %s.service is masked.", name, name), false, 1
	}
	switch verb {
	case "enable":
		if u.Masked {
			return fmt.Sprintf("Failed to enable unit: Unit file %s%s.service is masked.", adminUnits, name), false, 1
		}
		u.Enabled = true
	case "disable":
		u.Enabled = false
	case "mask":
		u.Masked = true
	case "unmask":
		u.Masked = false
	case "start", "stop", "restart", "reload", "try-restart", "reload-or-restart", "kill":
	default:
		return fmt.Sprintf("Unknown command verb '%s'.", verb), false, 1
	}
	if start {
		u.Active, u.Failed = true, false
	}
	if verb == "stop" || (verb == "disable" || verb == "mask") && now {
		u.Active = false
	}
	return "", start, 0
}
