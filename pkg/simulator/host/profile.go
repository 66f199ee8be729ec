package host

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Profiles: the systems that a host can have installed.
const (
	ProfileNoble    = "ubuntu-noble"
	ProfileJammy    = "ubuntu-jammy"
	ProfileBionic   = "ubuntu-bionic" // cgroup v1
	ProfileBookworm = "debian-bookworm"
	ProfileTrixie   = "debian-trixie"
	ProfileRocky10  = "rocky-10"
	ProfileRocky9   = "rocky-9"
	ProfileRocky8   = "rocky-8" // cgroup v1; has podman, which is in the way of Docker's containerd
	ProfileRHEL9    = "rhel-9"
	ProfileCentOS7  = "centos-7"  // cgroup v1, yum; its mirrors are gone
	ProfileFedora42 = "fedora-42" // swaps to compressed memory
	// ProfileUnknown is a system that no Kubernetes package is made for: like Alpine,
	// with apk and busybox, without bash and systemd.
	ProfileUnknown = "unknown"
	// ProfileBusybox is a live system with busybox and nothing else: no bash, no package
	// manager, no udev, no sudo; of the programs for disks only dd. Its only user is root.
	ProfileBusybox = "busybox"
)

// Profiles lists them, sorted.
func Profiles() []string {
	names := []string{
		ProfileNoble, ProfileJammy, ProfileBionic, ProfileBookworm, ProfileTrixie, ProfileRocky10, ProfileRocky9, ProfileRocky8, ProfileRHEL9,
		ProfileCentOS7, ProfileFedora42, ProfileUnknown, ProfileBusybox,
	}
	slices.Sort(names)
	return names
}

// profile is an installed distribution. Facts are those of the real ones.
type profile struct {
	id, like, version, codename, pretty string // as in /etc/os-release
	kernel                              string
	containerd                          string // version of the distribution's own package, "" where there is none
	manager                             string // apt-get, dnf, yum, apk or none
	cgroup                              int
	selinux                             bool
	zram                                bool     // swap in compressed memory
	installed                           []string // packages beside the base system
}

func profileOf(name string) profile {
	p := profile{manager: "apt-get", cgroup: 2}
	switch name {
	case ProfileBookworm:
		p.id, p.version, p.codename, p.pretty = "debian", "12", "bookworm", "Debian GNU/Linux 12 (bookworm)"
		p.kernel, p.containerd = "6.1.0-39-amd64", "1.6.20~ds1-1+b1"
	case ProfileTrixie:
		p.id, p.version, p.codename, p.pretty = "debian", "13", "trixie", "Debian GNU/Linux 13 (trixie)"
		p.kernel, p.containerd = "6.12.43+deb13-amd64", "1.7.24~ds1-6+b4"
	case ProfileJammy:
		p.id, p.like, p.version, p.codename, p.pretty = "ubuntu", "debian", "22.04", "jammy", "Ubuntu 22.04.5 LTS"
		p.kernel, p.containerd = "5.15.0-152-generic", "1.7.27-0ubuntu1~22.04.1"
	case ProfileBionic:
		p.id, p.like, p.version, p.codename, p.pretty = "ubuntu", "debian", "18.04", "bionic", "Ubuntu 18.04.6 LTS"
		p.kernel, p.containerd, p.cgroup = "4.15.0-213-generic", "1.6.12-0ubuntu1~18.04.1", 1
	case ProfileRocky10:
		p.id, p.like, p.version, p.pretty = "rocky", "rhel centos fedora", "10.0", "Rocky Linux 10.0 (Red Quartz)"
		p.kernel, p.manager, p.selinux = "6.12.0-55.27.1.el10_0.x86_64", "dnf", true
	case ProfileRocky9:
		p.id, p.like, p.version, p.pretty = "rocky", "rhel centos fedora", "9.6", "Rocky Linux 9.6 (Blue Onyx)"
		p.kernel, p.manager, p.selinux = "5.14.0-570.39.1.el9_6.x86_64", "dnf", true
	case ProfileRocky8:
		p.id, p.like, p.version, p.pretty = "rocky", "rhel centos fedora", "8.10", "Rocky Linux 8.10 (Green Obsidian)"
		p.kernel, p.manager, p.selinux, p.cgroup = "4.18.0-553.72.1.el8_10.x86_64", "dnf", true, 1
		p.installed = []string{"podman=4.9.4-22.module+el8.10.0", "runc=1.1.12-6.module+el8.10.0"}
	case ProfileRHEL9:
		p.id, p.like, p.version, p.pretty = "rhel", "fedora", "9.6", "Red Hat Enterprise Linux 9.6 (Plow)"
		p.kernel, p.manager, p.selinux = "5.14.0-570.39.1.el9_6.x86_64", "dnf", true
	case ProfileCentOS7:
		p.id, p.like, p.version, p.pretty = "centos", "rhel fedora", "7", "CentOS Linux 7 (Core)"
		p.kernel, p.manager, p.selinux, p.cgroup = "3.10.0-1160.119.1.el7.x86_64", "yum", true, 1
	case ProfileFedora42:
		p.id, p.version, p.pretty = "fedora", "42", "Fedora Linux 42 (Server Edition)"
		p.kernel, p.containerd, p.manager, p.selinux, p.zram = "6.16.5-200.fc42.x86_64", "2.0.6-1.fc42", "dnf", true, true
	case ProfileUnknown:
		p.id, p.version, p.pretty = "alpine", "3.22.1", "Alpine Linux v3.22"
		p.kernel, p.manager = "6.12.44-0-lts", "apk"
	case ProfileBusybox:
		p.id, p.version, p.pretty = "buildroot", "2025.02", "Buildroot 2025.02"
		p.kernel, p.manager = "6.12.19", "none"
	default:
		p.id, p.like, p.version, p.codename, p.pretty = "ubuntu", "debian", "24.04", "noble", "Ubuntu 24.04.3 LTS"
		p.kernel, p.containerd = "6.8.0-85-generic", "1.7.28-0ubuntu1~24.04.1"
	}
	return p
}

// rpm reports whether the system is made of rpm packages.
func (p profile) rpm() bool { return p.manager == "dnf" || p.manager == "yum" }

// major is the first number of the version.
func (p profile) major() string {
	m, _, _ := strings.Cut(p.version, ".")
	return m
}

// small reports whether the system has busybox instead of systemd, udev and bash.
func (p profile) small() bool { return p.manager == "apk" || p.manager == "none" }

// shell is the login shell that the users get.
func (p profile) shell() string {
	if p.small() {
		return "/bin/sh"
	}
	return "/bin/bash"
}

// osRelease is the text of /etc/os-release.
func (p profile) osRelease() string {
	name, _, _ := strings.Cut(p.pretty, " "+p.version)
	s := fmt.Sprintf("PRETTY_NAME=%q\nNAME=%q\nVERSION_ID=%q\n", p.pretty, name, p.version)
	if p.codename != "" {
		s += "VERSION_CODENAME=" + p.codename + "\n"
	}
	s += "ID=" + p.id + "\n"
	if p.like != "" {
		s += fmt.Sprintf("ID_LIKE=%q\n", p.like)
	}
	if p.id == "ubuntu" {
		s += "UBUNTU_CODENAME=" + p.codename + "\n"
	}
	return s
}

// basePrograms are on every fresh host, in /usr/bin.
func (p profile) basePrograms() []string {
	if p.manager == "none" {
		return []string{
			"base64", "basename", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "df", "dirname", "env", "false", "grep", "gzip", "head", "hostname", "id",
			"kill", "ln", "ls", "mkdir", "mkfifo", "mktemp", "mount", "mountpoint", "mv", "ps", "readlink", "reboot", "rm", "sed", "seq", "setsid", "sh", "sha256sum",
			"sleep", "sort", "stat", "swapoff", "swapon", "sync", "sysctl", "tail", "tar", "tee", "touch", "tr", "true", "umount", "uname", "uniq", "uptime", "wc", "whoami", "xargs",
		}
	}
	all := []string{
		"base64", "basename", "blkdiscard", "blkid", "blockdev", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "df", "dirname", "env",
		"false", "flock", "getent", "grep", "gzip", "head", "hostname", "id", "install", "kill", "ln", "ls", "mkdir", "mkfifo", "mktemp",
		"modprobe", "mount", "mountpoint", "mv", "nohup", "openssl", "ps", "readlink", "reboot", "rm", "sed", "seq", "setsid", "sh", "sha256sum", "sleep",
		"sort", "stat", "sudo", "swapoff", "swapon", "sync", "sysctl", "tail", "tar", "tee", "timeout", "touch", "tr", "true", "umount",
		"uname", "uniq", "uptime", "wc", "wget", "whoami", "wipefs", "xargs",
	}
	if p.manager == "apk" {
		return append(all, "adduser", "apk")
	}
	all = append(all,
		"bash", "chpasswd", "findmnt", "gpg", "groupadd", "hostnamectl", "lsblk", "mkfs.ext4", "mkfs.vfat", "mkfs.xfs", "mkswap", "partprobe", "sfdisk",
		"systemctl", "timedatectl", "udevadm", "useradd", "usermod", "visudo")
	switch {
	case p.rpm():
		all = append(all, "chronyc", "chronyd", "curl", "firewall-cmd", "getenforce", "restorecon", "rpm", "setenforce", "yum")
		if p.manager == "dnf" {
			all = append(all, "dnf")
		}
	default:
		all = append(all, "apt-cache", "apt-get", "apt-mark", "dpkg", "dpkg-query")
		if p.id == "ubuntu" {
			all = append(all, "hdparm", "ufw")
		}
	}
	return slices.DeleteFunc(all, func(n string) bool { return n == "wget" && p.manager != "apk" })
}

// install puts the files of a fresh installation there.
func (h *Host) install() {
	p := profileOf(h.cfg.Profile)
	if h.cfg.Cgroup != 0 {
		p.cgroup = h.cfg.Cgroup
	}
	h.sys = newSystem(p)
	h.sys.hostName = h.cfg.HostName
	for _, d := range []string{
		"/boot/efi", "/etc/modules-load.d", "/etc/sudoers.d", "/etc/sysctl.d", "/etc/systemd/system", "/home", "/mnt", "/opt", "/usr/lib/systemd/system",
		"/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/var/log", "/var/tmp", "/lib/modules/" + p.kernel,
	} {
		h.fs.put(d, &node{mode: fs.ModeDir | 0o755})
	}
	h.fs.put("/bin", &node{mode: fs.ModeSymlink | 0o777, data: []byte("usr/bin")})
	h.fs.put("/sbin", &node{mode: fs.ModeSymlink | 0o777, data: []byte("usr/sbin")})
	for _, name := range p.basePrograms() {
		h.addProgram(name)
	}
	h.addFile("/usr/lib/os-release", p.osRelease())
	h.fs.put("/etc/os-release", &node{mode: fs.ModeSymlink | 0o777, data: []byte("../usr/lib/os-release")})
	h.addFile("/etc/hostname", h.cfg.HostName+"\n")
	h.addFile("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 "+h.cfg.HostName+"\n")
	h.installUsers(p)
	h.installSources(p)
	h.installServices(p)
	if len(h.disks) > 0 && len(h.disks[0].parts) > 1 {
		swap := "/swap.img none swap sw 0 0\n"
		if p.zram {
			swap = ""
		}
		h.addFile("/etc/fstab", fmt.Sprintf("# <file system> <mount point> <type> <options> <dump> <pass>\n%s / ext4 defaults 0 1\n%s /boot/efi vfat umask=0077 0 1\n%s",
			h.disks[0].partDevice(2), h.disks[0].partDevice(1), swap))
	}
	for _, pkg := range slices.Concat(p.installed, h.cfg.Packages) {
		name, version, _ := strings.Cut(pkg, "=")
		h.addPackage(name, version)
	}
}

// installSources says where the package manager gets its packages from.
func (h *Host) installSources(p profile) {
	switch {
	case p.rpm():
		h.fs.put("/var/lib/rpm", &node{mode: fs.ModeDir | 0o755})
		h.fs.put("/etc/pki/rpm-gpg", &node{mode: fs.ModeDir | 0o755})
		for name, text := range p.baseRepositories() {
			h.addFile("/etc/yum.repos.d/"+name, text)
		}
		if p.selinux {
			h.addFile("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n")
		}
	case p.manager == "apt-get":
		for _, d := range []string{"/etc/apt/keyrings", "/etc/apt/sources.list.d", "/etc/apt/trusted.gpg.d", "/var/lib/dpkg"} {
			h.fs.put(d, &node{mode: fs.ModeDir | 0o755})
		}
		h.addFile("/etc/apt/sources.list", p.sourcesList())
		for _, s := range h.sources() { // the installer has fetched what they offer
			h.sys.index[s.line] = true
		}
	}
}

// installServices are the services that a fresh system runs.
func (h *Host) installServices(p profile) {
	running := []string{"ssh", "systemd-timesyncd"}
	switch {
	case p.rpm():
		running = []string{"chronyd", "firewalld", "sshd"}
	case p.small():
		running = nil
	case p.id == "ubuntu":
		running = append(running, "ufw")
	}
	for _, n := range running {
		h.sys.units[n] = &unit{Enabled: true, Active: true}
	}
	if slices.Contains(running, "chronyd") {
		h.addFile("/etc/chrony.conf", "pool 2."+p.id+".pool.ntp.org iburst\ndriftfile /var/lib/chrony/drift\n")
	}
	if p.zram {
		h.addFile("/usr/lib/systemd/zram-generator.conf", "[zram0]\nzram-size = min(ram, 8192)\n")
	}
}

func (h *Host) addFile(p, content string) {
	h.fs.put(p, &node{mode: 0o644, data: []byte(content)})
}

// addProgram makes a program that is a Go function findable.
func (h *Host) addProgram(name string) {
	h.fs.put("/usr/bin/"+name, &node{mode: 0o755, data: []byte(binaryMagic + name)})
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
	if !h.sys.profile.small() {
		dir("/run/systemd/system", 0o755)
	}
	dir("/tmp", fs.ModeSticky|0o777)
	dir("/dev/shm", fs.ModeSticky|0o777)
	dir("/sys/fs/cgroup", 0o755)
	if h.sys.profile.cgroup == 2 {
		text("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")
	} else {
		dir("/sys/fs/cgroup/memory", 0o755)
	}
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
	put("/proc/sys/vm/drop_caches", &node{mode: 0o200, gen: func() []byte { return nil }, written: h.dropCaches})
	put("/proc/sysrq-trigger", &node{mode: 0o200, gen: func() []byte { return nil }, written: h.sysrq})

	nic := "/sys/devices/pci0000:00/0000:00:03.0/net/eth0"
	text(nic+"/address", h.cfg.MAC+"\n")
	text(nic+"/operstate", "up\n")
	link("/sys/class/net/eth0", "../../devices/pci0000:00/0000:00:03.0/net/eth0")
	text("/sys/devices/virtual/net/lo/address", "00:00:00:00:00:00\n")
	link("/sys/class/net/lo", "../../devices/virtual/net/lo")

	dir("/sys/block", 0o755)
	dir("/sys/class/block", 0o755)
	for i := range h.disks {
		h.diskFiles(i)
	}
}

// blockLinks are the other names of a block device.
func (h *Host) blockLinks(link func(p, target string), base, number string) {
	link("/sys/class/block/"+path.Base(base), relative("/sys/class/block", base))
	link("/sys/dev/block/"+number, relative("/sys/dev/block", base))
}

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
	for _, m := range h.mountList() {
		s += fmt.Sprintf("%s %s %s %s,relatime 0 0\n", m.Device, m.Path, m.Type, rw)
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
		s += fmt.Sprintf("27 1 %s / / %s,relatime shared:1 - ext4 %s %s\n", h.disks[0].number(0, 2), rw, h.rootDevice(), rw)
		s += fmt.Sprintf("31 27 %s / /boot/efi %s,relatime shared:29 - vfat %s %s\n", h.disks[0].number(0, 1), rw, h.disks[0].partDevice(1), rw)
	}
	for i, m := range h.mountList() {
		for n, d := range h.disks {
			for _, p := range d.parts {
				if d.partDevice(p.Number) == m.Device {
					s += fmt.Sprintf("%d 27 %s / %s %s,relatime shared:%d - %s %s %s\n", 40+i, d.number(n, p.Number), m.Path, rw, 40+i, m.Type, m.Device, rw)
				}
			}
		}
	}
	return s
}

func (h *Host) mountList() []mounted {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.sys.mounts)
}

func (h *Host) swaps() string {
	h.mu.Lock()
	swap := h.sys.swap
	h.mu.Unlock()
	s := "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	switch {
	case swap && h.sys.profile.zram:
		s += "/dev/zram0                              partition\t4194300\t\t0\t\t100\n"
	case swap:
		s += "/swap.img                               file\t\t4194300\t\t0\t\t-2\n"
	}
	return s
}

// sysrq is a write to /proc/sysrq-trigger.
func (h *Host) sysrq(p []byte) error {
	switch {
	case len(p) == 0:
	case p[0] == 's':
		h.sync()
	case p[0] == 'u':
		h.sync()
		h.fs.mu.Lock()
		h.fs.readOnly = true
		h.fs.mu.Unlock()
	case slices.Contains([]byte("bco"), p[0]):
		h.reset()
	}
	return nil
}
