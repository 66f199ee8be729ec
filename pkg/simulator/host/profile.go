package host

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Profiles.
const (
	ProfileNoble    = "ubuntu-noble"
	ProfileBookworm = "debian-bookworm"
)

// profile is an installed distribution.
type profile struct {
	id, like, version, codename, pretty string
	kernel                              string
	containerd                          string // version of the distribution's own package
}

func profileOf(name string) profile {
	if name == ProfileBookworm {
		return profile{"debian", "", "12", "bookworm", "Debian GNU/Linux 12 (bookworm)", "6.1.0-39-amd64", "1.6.20"}
	}
	return profile{"ubuntu", "debian", "24.04", "noble", "Ubuntu 24.04.3 LTS", "6.8.0-85-generic", "1.7.28"}
}

func profileUsers(name string) []user {
	users := []user{{"root", 0, 0, "/root"}}
	if name != "root" {
		users = append(users, user{name, 1000, 1000, "/home/" + name})
	}
	return users
}

// basePrograms are on every fresh host, in /usr/bin.
func basePrograms() []string {
	return []string{
		"apt-cache", "apt-get", "apt-mark", "base64", "basename", "bash", "blkdiscard", "blockdev", "cat", "chmod", "chown",
		"cmp", "cp", "cut", "date", "dd", "dirname", "dpkg", "env", "false", "flock", "getent", "gpg", "grep", "gzip", "head", "hostname",
		"hostnamectl", "id", "install", "kill", "ln", "ls", "mkdir", "mkfifo", "mktemp", "modprobe", "mount", "mv", "nohup",
		"openssl", "ps", "readlink", "reboot", "rm", "sed", "seq", "setsid", "sh", "sha256sum", "sleep", "sort", "stat", "sudo",
		"swapoff", "swapon", "sync", "sysctl", "systemctl", "tail", "tar", "tee", "timeout", "touch", "tr", "true", "uname", "uniq",
		"uptime", "wc", "whoami", "wipefs", "xargs",
	}
}

// install puts the files of a fresh installation there.
func (h *Host) install() {
	p := profileOf(h.cfg.Profile)
	h.sys = newSystem(p)
	h.sys.hostName = h.cfg.HostName
	for _, d := range []string{
		"/boot/efi", "/etc/apt/keyrings", "/etc/apt/sources.list.d", "/etc/modules-load.d", "/etc/sysctl.d", "/etc/systemd/system",
		"/home", "/opt", "/usr/lib/systemd/system", "/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin",
		"/var/lib/dpkg", "/var/log", "/var/tmp", "/lib/modules/" + p.kernel,
	} {
		h.fs.put(d, &node{mode: fs.ModeDir | 0o755})
	}
	h.fs.put("/bin", &node{mode: fs.ModeSymlink | 0o777, data: []byte("usr/bin")})
	h.fs.put("/sbin", &node{mode: fs.ModeSymlink | 0o777, data: []byte("usr/sbin")})
	for _, name := range basePrograms() {
		h.addProgram(name)
	}
	release := fmt.Sprintf("PRETTY_NAME=%q\nNAME=%q\nVERSION_ID=%q\nVERSION_CODENAME=%s\nID=%s\n", p.pretty, p.pretty, p.version, p.codename, p.id)
	if p.like != "" {
		release += "ID_LIKE=" + p.like + "\nUBUNTU_CODENAME=" + p.codename + "\n"
	}
	h.addFile("/usr/lib/os-release", release)
	h.fs.put("/etc/os-release", &node{mode: fs.ModeSymlink | 0o777, data: []byte("../usr/lib/os-release")})
	h.addFile("/etc/hostname", h.cfg.HostName+"\n")
	h.addFile("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 "+h.cfg.HostName+"\n")
	passwd, group := "", ""
	for _, u := range h.users {
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:/bin/bash\n", u.name, u.uid, u.gid, u.home)
		group += fmt.Sprintf("%s:x:%d:\n", u.name, u.gid)
		mode := fs.FileMode(0o750)
		if u.uid == 0 {
			mode = 0o700
		}
		h.fs.put(u.home, &node{mode: fs.ModeDir | mode, uid: u.uid, gid: u.gid})
	}
	h.addFile("/etc/passwd", passwd)
	h.addFile("/etc/group", group)
	h.addFile("/etc/apt/sources.list", "# the distribution's own sources are in sources.list.d\n")
	if len(h.disks) > 0 && len(h.disks[0].parts) > 1 {
		h.addFile("/etc/fstab", fmt.Sprintf("# <file system> <mount point> <type> <options> <dump> <pass>\n%s / ext4 defaults 0 1\n%s /boot/efi vfat umask=0077 0 1\n/swap.img none swap sw 0 0\n",
			h.disks[0].partDevice(2), h.disks[0].partDevice(1)))
	}
}

func (h *Host) addFile(p, content string) {
	h.fs.put(p, &node{mode: 0o644, data: []byte(content)})
}

// addProgram makes a program that is a Go function findable.
func (h *Host) addProgram(name string) {
	h.fs.put("/usr/bin/"+name, &node{mode: 0o755, data: []byte(binaryMagic + name)})
}

func (d hostDisk) device() string { return "/dev/" + d.Name }

func (d hostDisk) partName(n int) string {
	if last := d.Name[len(d.Name)-1]; last >= '0' && last <= '9' {
		return fmt.Sprintf("%sp%d", d.Name, n)
	}
	return fmt.Sprintf("%s%d", d.Name, n)
}

func (d hostDisk) partDevice(n int) string { return "/dev/" + d.partName(n) }

// sysPath is where the kernel puts the disk; its words tell how it is attached.
func (d hostDisk) sysPath(i int) string {
	switch {
	case d.USB:
		return fmt.Sprintf("/sys/devices/pci0000:00/0000:00:14.0/usb2/2-%d/2-%d:1.0/host%d/target%d:0:0/%d:0:0:0/block/%s", i+1, i+1, i+6, i+6, i+6, d.Name)
	case strings.HasPrefix(d.Name, "nvme"):
		return fmt.Sprintf("/sys/devices/pci0000:00/0000:00:1d.%d/0000:0%d:00.0/nvme/nvme%d/%s", i, i+1, i, d.Name)
	}
	return fmt.Sprintf("/sys/devices/pci0000:00/0000:00:1f.2/ata%d/host%d/target%d:0:0/%d:0:0:0/block/%s", i+1, i, i, i, d.Name)
}

// kernelFiles makes what the kernel and the early boot show: /dev, /proc, /sys,
// /run and /tmp.
func (h *Host) kernelFiles() {
	put := func(p string, n *node) {
		n.volatile = true
		h.fs.put(p, n)
	}
	dir := func(p string, mode fs.FileMode) { put(p, &node{mode: fs.ModeDir | mode}) }
	link := func(p, target string) { put(p, &node{mode: fs.ModeSymlink | 0o777, data: []byte(target)}) }
	text := func(p, s string) { put(p, &node{mode: 0o444, data: []byte(s)}) }
	live := func(p string, gen func() string) {
		put(p, &node{mode: 0o444, gen: func() []byte { return []byte(gen()) }})
	}
	dir("/run", 0o755)
	dir("/run/systemd/system", 0o755)
	dir("/tmp", fs.ModeSticky|0o777)
	dir("/dev/shm", fs.ModeSticky|0o777)
	dir("/sys/fs/cgroup", 0o755)
	text("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")
	dir("/sys/module", 0o755)
	put("/dev/null", &node{mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, written: func([]byte) error { return nil }})
	put("/dev/zero", &node{mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, zeros: true, written: func([]byte) error { return nil }})

	text("/proc/sys/kernel/random/boot_id", h.BootID()+"\n")
	live("/proc/sys/kernel/random/uuid", func() string {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.uuid() + "\n"
	})
	live("/proc/uptime", func() string {
		s := h.uptime().Seconds()
		return fmt.Sprintf("%.2f %.2f\n", s, s*0.9)
	})
	text("/proc/version", "Linux version "+h.sys.profile.kernel+"\n")
	text("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz-"+h.sys.profile.kernel+" root="+h.rootDevice()+" ro\n")
	live("/proc/swaps", h.swaps)
	live("/proc/mounts", h.mounts)
	live("/proc/self/mountinfo", h.mountInfo)
	put("/proc/sys/kernel/sysrq", &node{mode: 0o644, gen: func() []byte { return []byte("176\n") }, written: func([]byte) error { return nil }})
	put("/proc/sysrq-trigger", &node{mode: 0o200, gen: func() []byte { return nil }, written: h.sysrq})

	nic := "/sys/devices/pci0000:00/0000:00:03.0/net/eth0"
	text(nic+"/address", h.cfg.MAC+"\n")
	text(nic+"/operstate", "up\n")
	link("/sys/class/net/eth0", "../../devices/pci0000:00/0000:00:03.0/net/eth0")
	text("/sys/devices/virtual/net/lo/address", "00:00:00:00:00:00\n")
	link("/sys/class/net/lo", "../../devices/virtual/net/lo")

	dir("/sys/block", 0o755)
	dir("/sys/class/block", 0o755)
	for i, d := range h.disks {
		base := d.sysPath(i)
		text(base+"/size", fmt.Sprintf("%d\n", d.Bytes/sectorSize))
		text(base+"/removable", bit(d.Removable))
		text(base+"/ro", bit(d.ReadOnly))
		text(base+"/hidden", "0\n")
		text(base+"/device/serial", d.serial+"\n")
		text(base+"/device/wwid", "t10.ATA     SIMULATED DISK      "+d.serial+"\n")
		link("/sys/block/"+d.Name, relative("/sys/block", base))
		put(d.device(), &node{mode: fs.ModeDevice | 0o660, block: &section{d.d, 0, d.Bytes}})
		h.blockLinks(link, base, i, 0)
		for _, p := range d.parts {
			q := path.Join(base, d.partName(p.Number))
			text(q+"/partition", fmt.Sprintf("%d\n", p.Number))
			text(q+"/start", fmt.Sprintf("%d\n", p.Start))
			text(q+"/size", fmt.Sprintf("%d\n", p.Count))
			text(q+"/ro", bit(d.ReadOnly))
			put(d.partDevice(p.Number), &node{mode: fs.ModeDevice | 0o660, block: &section{d.d, p.Start * sectorSize, p.Count * sectorSize}})
			h.blockLinks(link, q, i, p.Number)
		}
	}
}

// blockLinks are the other names of a block device.
func (h *Host) blockLinks(link func(p, target string), base string, disk, part int) {
	link("/sys/class/block/"+path.Base(base), relative("/sys/class/block", base))
	link("/sys/dev/block/"+deviceNumber(disk, part), relative("/sys/dev/block", base))
}

// deviceNumber is major:minor as for SCSI disks.
func deviceNumber(disk, part int) string { return fmt.Sprintf("8:%d", disk*16+part) }

func relative(from, to string) string {
	return strings.Repeat("../", strings.Count(from, "/")) + strings.TrimPrefix(to, "/")
}

func bit(b bool) string {
	if b {
		return "1\n"
	}
	return "0\n"
}

func (h *Host) rootDevice() string {
	if len(h.disks) > 0 && len(h.disks[0].parts) > 1 {
		return h.disks[0].partDevice(2)
	}
	return "/dev/root"
}

func (h *Host) uptime() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.bootTime)
}

// mounts is /proc/mounts. It is called with the file system's lock held.
func (h *Host) mounts() string {
	rw := "rw"
	if h.fs.readOnly {
		rw = "ro"
	}
	s := "sysfs /sys sysfs rw,nosuid 0 0\nproc /proc proc rw,nosuid 0 0\ntmpfs /run tmpfs rw,nosuid 0 0\n"
	if len(h.disks) > 0 && len(h.disks[0].parts) > 1 {
		s += fmt.Sprintf("%s / ext4 %s,relatime 0 0\n%s /boot/efi vfat %s,relatime 0 0\n", h.rootDevice(), rw, h.disks[0].partDevice(1), rw)
	}
	return s
}

// mountInfo is /proc/self/mountinfo, likewise.
func (h *Host) mountInfo() string {
	rw := "rw"
	if h.fs.readOnly {
		rw = "ro"
	}
	s := "22 27 0:21 / /sys rw,nosuid shared:7 - sysfs none rw\n23 27 0:22 / /proc rw,nosuid shared:14 - proc none rw\n"
	if len(h.disks) > 0 && len(h.disks[0].parts) > 1 {
		s += fmt.Sprintf("27 1 %s / / %s,relatime shared:1 - ext4 %s %s\n", deviceNumber(0, 2), rw, h.rootDevice(), rw)
		s += fmt.Sprintf("31 27 %s / /boot/efi %s,relatime shared:29 - vfat %s %s\n", deviceNumber(0, 1), rw, h.disks[0].partDevice(1), rw)
	}
	return s
}

func (h *Host) swaps() string {
	h.mu.Lock()
	swap := h.sys.swap
	h.mu.Unlock()
	s := "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	if swap {
		s += "/swap.img                               file\t\t4194300\t\t0\t\t-2\n"
	}
	return s
}

// sysrq is a write to /proc/sysrq-trigger.
func (h *Host) sysrq(p []byte) error {
	switch {
	case len(p) == 0:
	case p[0] == 'u':
		h.fs.mu.Lock()
		h.fs.readOnly = true
		h.fs.mu.Unlock()
	case slices.Contains([]byte("bco"), p[0]):
		h.reset()
	}
	return nil
}
