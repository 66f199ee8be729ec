package host

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// mounted is a mounted file system beside those of the installation. Its files are not
// apart from those of the host: what is written below its directory stays there.
type mounted struct {
	Device, Path, Type, Options string
}

// mountFailure is what mount exits with when it could not mount.
const mountFailure = 32

func cmdMount(c *call) int {
	flags, args := options(c.args[1:], "-t", "--types", "-o", "--options", "-L", "-U")
	if has(flags, "--version", "-V") {
		c.printf("mount from util-linux 2.39.3\n")
		return 0
	}
	if len(args) == 0 && !has(flags, "-a", "--all") {
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
	if !c.root() {
		return c.fail(1, "must be superuser to use mount.")
	}
	fstab, _ := c.read("/etc/fstab")
	if has(flags, "-a", "--all") {
		status := 0
		for _, m := range fstabMounts(fstab) {
			if s := c.mountOne(m, true); s != 0 && !slices.Contains(strings.Split(m.Options, ","), "nofail") {
				status = s
			}
		}
		return status
	}
	if len(args) == 1 {
		for _, m := range fstabMounts(fstab) {
			if m.Path == c.path(args[0]) || m.Device == args[0] {
				return c.mountOne(m, false)
			}
		}
		return c.fail(1, "%s: can't find in /etc/fstab.", args[0])
	}
	return c.mountOne(mounted{args[0], c.path(args[1]), cmp.Or(value(flags, "-t", "--types"), "auto"), cmp.Or(value(flags, "-o", "--options"), "rw")}, false)
}

// fstabMounts are the lines of an fstab that mount -a mounts.
func fstabMounts(fstab []byte) []mounted {
	var out []mounted
	for _, line := range lines(fstab) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasPrefix(f[0], "#") || f[2] == "swap" || slices.Contains(strings.Split(f[3], ","), "noauto") {
			continue
		}
		out = append(out, mounted{f[0], f[1], f[2], f[3]})
	}
	return out
}

// mountOne mounts one file system; one that is mounted already is fine for mount -a.
func (c *call) mountOne(m mounted, again bool) int {
	if text := c.h.mount(m, again); text != "" {
		return c.fail(mountFailure, "%s: %s.", m.Path, text)
	}
	return 0
}

// mount says what keeps a file system from being mounted, "" if nothing did.
func (h *Host) mount(m mounted, again bool) string {
	for _, line := range lines([]byte(h.lockedMounts())) {
		if f := strings.Fields(line); f[1] == m.Path {
			if again {
				return ""
			}
			return m.Device + " already mounted on " + m.Path
		}
	}
	if i, err := h.fs.stat(m.Path, true); err != nil || !i.IsDir() {
		return "mount point does not exist"
	}
	if !slices.Contains([]string{"tmpfs", "none", "bind"}, m.Type) && !strings.Contains(m.Options, "bind") {
		dev, ok := h.findDevice(m.Device)
		if !ok {
			return "special device " + m.Device + " does not exist"
		}
		kind := dev.signature().kind
		ext := strings.HasPrefix(kind, "ext") && strings.HasPrefix(m.Type, "ext")
		if kind == "" || m.Type != "auto" && kind != m.Type && !ext {
			return "wrong fs type, bad option, bad superblock on " + m.Device + ", missing codepage or helper program, or other error"
		}
		m.Device, m.Type = dev.name, kind
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sys.mounts = append(h.sys.mounts, m)
	return ""
}

func cmdUmount(c *call) int {
	_, args := options(c.args[1:])
	if !c.root() {
		return c.fail(mountFailure, "must be superuser to unmount.")
	}
	status := 0
	for _, a := range args {
		c.h.mu.Lock()
		n := len(c.h.sys.mounts)
		c.h.sys.mounts = slices.DeleteFunc(c.h.sys.mounts, func(m mounted) bool { return m.Path == c.path(a) || m.Device == a })
		same := n == len(c.h.sys.mounts)
		c.h.mu.Unlock()
		if same {
			status = c.fail(mountFailure, "%s: not mounted.", a)
		}
	}
	return status
}

// cmdMountpoint is mountpoint and findmnt with a directory.
func cmdMountpoint(c *call) int {
	flags, args := options(c.args[1:], "-o", "-T", "--target", "-S", "--source", "-t")
	quiet := has(flags, "-q", "--quiet")
	for _, a := range append(append(args, flags["-T"]...), flags["--target"]...) {
		for _, line := range lines([]byte(c.h.lockedMounts())) {
			f := strings.Fields(line)
			if f[1] != c.path(a) && f[0] != a {
				continue
			}
			switch {
			case path.Base(c.args[0]) == "findmnt" && strings.EqualFold(value(flags, "-o"), "source"):
				c.printf("%s\n", f[0])
			case path.Base(c.args[0]) == "findmnt":
				c.printf("%s %s %s %s\n", f[1], f[0], f[2], f[3])
			case !quiet:
				c.printf("%s is a mountpoint\n", a)
			}
			return 0
		}
		if path.Base(c.args[0]) == "mountpoint" && !quiet {
			c.printf("%s is not a mountpoint\n", a)
		}
	}
	return 1
}

// cmdDf shows the root file system, which is never full.
func cmdDf(c *call) int {
	flags, _ := options(c.args[1:], "-B", "--output")
	if has(flags, "--output") && value(flags, "--output") != "" {
		c.printf("    Avail\n%d\n", 400<<20)
		return 0
	}
	c.printf("Filesystem     1K-blocks    Used Available Use%% Mounted on\n%s      460000000 8000000 428000000   2%% /\n", c.h.rootDevice())
	return 0
}
