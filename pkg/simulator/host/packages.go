package host

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// What the public package repositories serve, as far as the simulator knows.
const (
	oldestServedMinor = 24 // pkgs.k8s.io begins with v1.24.0
	newestServedMinor = 37
	servedPatches     = 17 // v1.M.0 to v1.M.17
	newestLegacyPatch = 17
)

// Shares of Config.KubernetesTime, in percent. What a control plane machine runs
// adds up to 100, and so does what a worker runs.
const (
	shareBase    = 10
	shareRuntime = 20
	shareKubelet = 20
	shareImages  = 20
	shareInit    = 30
	shareJoin    = 50
)

// pay spends a share of the time that an installation takes.
func (c *call) pay(percent int) bool {
	return c.spend(c.h.cfg.KubernetesTime * time.Duration(percent) / 100)
}

// packageCommand are the package manager and what fetches things for it.
func packageCommand(name string) command {
	switch name {
	case "apt-get":
		return cmdAptGet
	case "apt-cache":
		return cmdAptCache
	case "apt-mark":
		return cmdAptMark
	case "dpkg":
		return cmdDpkg
	case "gpg":
		return cmdGpg
	case "curl":
		return cmdCurl
	}
	return nil
}

// offer is a package in a repository.
type offer struct {
	name, version, source string
}

// programsOf are the programs and services that a package brings.
func programsOf(pkg string) (programs []string, service string) {
	switch pkg {
	case "containerd.io", "containerd":
		return []string{"containerd", "ctr", "runc"}, "containerd"
	case "docker-ce", "docker.io":
		return []string{"docker", "dockerd"}, "docker"
	case "docker-ce-cli":
		return []string{"docker"}, ""
	case "kubelet":
		return []string{"kubelet"}, "kubelet"
	case "kubeadm", "kubectl", "curl", "conntrack", "socat", "ethtool", "ebtables", "iptables":
		return []string{pkg}, ""
	case "gdisk":
		return []string{"sgdisk"}, ""
	case "cri-tools":
		return []string{"crictl"}, ""
	case "iproute2":
		return []string{"ip"}, ""
	}
	return nil, ""
}

// archive is what the distribution itself serves.
func (p profile) archive() []offer {
	var out []offer
	for _, n := range []string{
		"ca-certificates", "conntrack", "curl", "ebtables", "ethtool", "gdisk", "gnupg", "iproute2", "iptables", "kmod", "openssl", "socat", "util-linux",
	} {
		out = append(out, offer{n, "1.0-1", "http://archive.example/" + p.id})
	}
	return append(out, offer{"containerd", p.containerd + "-0", "http://archive.example/" + p.id})
}

// sources are the "deb" lines of the host.
func (h *Host) sources() []string {
	var out []string
	for _, f := range append([]string{"/etc/apt/sources.list"}, h.list("/etc/apt/sources.list.d")...) {
		if path.Ext(f) != ".list" {
			continue
		}
		b, err := h.fs.readFile(who{}, f)
		if err != nil {
			continue
		}
		for _, line := range lines(b) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "deb ") {
				out = append(out, line)
			}
		}
	}
	return out
}

// sourceURL takes a deb line apart.
func sourceURL(line string) (url, keyring string) {
	line = strings.TrimSpace(strings.TrimPrefix(line, "deb"))
	if opts, rest, ok := strings.Cut(line, "]"); ok && strings.HasPrefix(opts, "[") {
		for _, o := range strings.Fields(opts[1:]) {
			if k, ok := strings.CutPrefix(o, "signed-by="); ok {
				keyring = k
			}
		}
		line = rest
	}
	if f := strings.Fields(line); len(f) > 0 {
		url = f[0]
	}
	return url, keyring
}

// serves is what a repository has. ok is false if it does not exist (any more).
func (p profile) serves(line string) (offers []offer, ok bool) {
	url, _ := sourceURL(line)
	add := func(name, version string) { offers = append(offers, offer{name, version, url}) }
	switch {
	case strings.Contains(url, "apt.kubernetes.io"), strings.Contains(url, "packages.cloud.google.com"), strings.Contains(url, ".invalid"):
		return nil, false
	case strings.Contains(url, "download.docker.com"):
		if !strings.Contains(line, " "+p.codename+" ") {
			return nil, false
		}
		suffix := fmt.Sprintf("-1~%s.%s~%s", p.id, p.version, p.codename)
		versions := []string{"26.1.4", "27.5.1", "28.5.2"}
		if p.codename == "bookworm" {
			versions = append([]string{"23.0.6", "24.0.9"}, versions...)
		}
		for _, v := range versions {
			add("docker-ce", "5:"+v+suffix)
			add("docker-ce-cli", "5:"+v+suffix)
		}
		for _, v := range []string{"1.6.33", "1.7.28", "2.2.1"} {
			add("containerd.io", v+suffix)
		}
		return offers, true
	case strings.Contains(url, "/core:/stable:/v1."):
		var minor int
		_, rest, _ := strings.Cut(url, "/core:/stable:/v1.")
		if _, err := fmt.Sscanf(rest, "%d", &minor); err != nil || minor < oldestServedMinor || minor > newestServedMinor {
			return nil, false
		}
		for patch := range servedPatches + 1 {
			for _, n := range []string{"kubeadm", "kubectl", "kubelet"} {
				add(n, fmt.Sprintf("1.%d.%d-1.1", minor, patch))
			}
		}
		add("cri-tools", fmt.Sprintf("1.%d.0-1.1", minor))
		add("kubernetes-cni", "1.7.1-1.1")
		return offers, true
	}
	// Anything else is taken for somebody's mirror of the repository as it was until 2024.
	for minor := 13; minor < oldestServedMinor; minor++ {
		for patch := range newestLegacyPatch + 1 {
			for _, n := range []string{"kubeadm", "kubectl", "kubelet"} {
				add(n, fmt.Sprintf("1.%d.%d-00", minor, patch))
			}
		}
	}
	add("kubernetes-cni", "0.7.5-00")
	add("kubernetes-cni", "1.2.0-00")
	add("cri-tools", "1.26.0-00")
	return offers, true
}

// offers is what apt knows after its last update.
func (h *Host) offers(name string) []offer {
	var out []offer
	all := h.sys.profile.archive()
	for _, line := range h.sources() {
		h.mu.Lock()
		fetched := h.sys.index[line]
		h.mu.Unlock()
		if fetched {
			o, _ := h.sys.profile.serves(line)
			all = append(all, o...)
		}
	}
	for _, o := range all {
		if o.name == name {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b offer) int { return -compareVersions(a.version, b.version) })
	return out
}

// find is the newest offer that fits a request like name, name=version or name=1.2.*.
func (h *Host) find(request string) (o offer, complaint string) {
	name, want, versioned := strings.Cut(request, "=")
	offers := h.offers(name)
	if len(offers) == 0 {
		return offer{}, "E: Unable to locate package " + name
	}
	if !versioned {
		return offers[0], ""
	}
	for _, o = range offers {
		if prefix, glob := strings.CutSuffix(want, "*"); o.version == want || glob && strings.HasPrefix(o.version, prefix) {
			return o, ""
		}
	}
	return offer{}, fmt.Sprintf("E: Version '%s' for '%s' was not found", want, name)
}

// aptStatus is what apt-get exits with when something went wrong.
const aptStatus = 100

func cmdAptGet(c *call) int {
	flags, args := options(c.args[1:], "-o", "-t", "-c")
	if len(args) == 0 {
		return c.aptError("E: Invalid operation")
	}
	if !c.root() {
		return c.aptError("E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)")
	}
	switch args[0] {
	case "update":
		return c.aptUpdate()
	case "install":
		if !has(flags, "-y", "--yes", "--assume-yes") {
			c.errf("Abort.")
			return 1
		}
		return c.aptInstall(args[1:], has(flags, "--allow-change-held-packages"))
	case "remove", "purge":
		c.h.mu.Lock()
		defer c.h.mu.Unlock()
		for _, n := range args[1:] {
			delete(c.h.sys.packages, n)
		}
		return 0
	case "autoremove", "clean", "upgrade", "dist-upgrade":
		return 0
	}
	return c.aptError("E: Invalid operation " + args[0])
}

func (c *call) aptError(text string) int {
	c.errf("%s", text)
	return aptStatus
}

func (c *call) aptUpdate() int {
	status := 0
	for _, line := range c.h.sources() {
		url, keyring := sourceURL(line)
		if _, ok := c.h.sys.profile.serves(line); !ok {
			status = c.aptError(fmt.Sprintf("Err: %s Release\n  404  Not Found\nE: The repository '%s Release' does not have a Release file.", url, url))
			continue
		}
		if keyring != "" {
			key, err := c.h.fs.readFile(who{}, keyring)
			if err != nil || !strings.Contains(string(key), dearmored) {
				status = c.aptError(fmt.Sprintf("E: The repository '%s InRelease' is not signed.", url))
				continue
			}
		}
		c.printf("Get: %s InRelease\n", url)
		c.h.mu.Lock()
		c.h.sys.index[line] = true
		c.h.mu.Unlock()
	}
	c.printf("Reading package lists...\n")
	return status
}

func (c *call) aptInstall(requests []string, changeHeld bool) int {
	var todo []offer
	for _, r := range requests {
		if name, _, _ := strings.Cut(r, "="); name == "docker-ce" { // its dependencies
			requests = append(requests, "docker-ce-cli", "containerd.io")
			break
		}
	}
	for _, r := range requests {
		o, complaint := c.h.find(r)
		if complaint != "" {
			return c.aptError(complaint)
		}
		c.h.mu.Lock()
		have := c.h.sys.packages[o.name]
		c.h.mu.Unlock()
		_, _, versioned := strings.Cut(r, "=")
		switch {
		case have.Version == o.version, have.Version != "" && !versioned:
			c.printf("%s is already the newest version (%s).\n", o.name, have.Version)
		case have.Held && !changeHeld:
			return c.aptError("E: Held packages were changed and -y was used without --allow-change-held-packages.")
		default:
			todo = append(todo, o)
		}
	}
	share, runtime := 0, 0
	for _, o := range todo {
		switch o.name {
		case "conntrack":
			share += shareBase
		case "containerd.io", "containerd", "docker-ce":
			runtime = shareRuntime
		case "kubelet":
			share += shareKubelet
		}
	}
	if !c.pay(share + runtime) {
		return aptStatus
	}
	for _, o := range todo {
		c.h.addPackage(o.name, o.version)
		c.printf("Setting up %s (%s) ...\n", o.name, o.version)
	}
	return 0
}

// addPackage installs a package with its programs; Debian starts services at once.
func (h *Host) addPackage(name, version string) {
	programs, service := programsOf(name)
	for _, p := range programs {
		h.addProgram(p)
	}
	h.mu.Lock()
	held := h.sys.packages[name].Held
	h.sys.packages[name] = installed{Version: version, Held: held}
	started := service != "" && h.sys.units[service] == nil
	if started {
		h.sys.units[service] = &unit{Enabled: true, Active: service != "kubelet"}
	}
	h.mu.Unlock()
	if started {
		h.serviceFiles(service)
	}
	if (name == "containerd.io" || name == "containerd") && !h.fs.exists("/etc/containerd/config.toml") {
		h.addFile("/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n")
	}
}

// version is an installed package's version without epoch and revision, or "".
func (h *Host) version(pkg string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.sys.packages[pkg].Version
	if _, rest, ok := strings.Cut(v, ":"); ok {
		v = rest
	}
	if i := strings.IndexAny(v, "-~"); i >= 0 {
		v = v[:i]
	}
	return v
}

func cmdAptCache(c *call) int {
	_, args := options(c.args[1:])
	if len(args) < 2 {
		return c.aptError("E: Invalid operation")
	}
	offers := c.h.offers(args[1])
	switch args[0] {
	case "madison":
		for _, o := range offers {
			c.printf("%10s | %s | %s  Packages\n", o.name, o.version, o.source)
		}
		return 0
	case "show", "policy":
		if len(offers) == 0 {
			return c.aptError("E: No packages found")
		}
		c.printf("Package: %s\nVersion: %s\n", offers[0].name, offers[0].version)
		return 0
	}
	return c.aptError("E: Invalid operation " + args[0])
}

func cmdAptMark(c *call) int {
	_, args := options(c.args[1:])
	if len(args) < 2 || args[0] != "hold" && args[0] != "unhold" {
		return c.aptError("E: Invalid operation")
	}
	for _, n := range args[1:] {
		c.h.mu.Lock()
		p, ok := c.h.sys.packages[n]
		if ok {
			p.Held = args[0] == "hold"
			c.h.sys.packages[n] = p
		}
		c.h.mu.Unlock()
		if !ok {
			return c.aptError(fmt.Sprintf("E: Can't select installed nor candidate version from package '%s' as it has neither of them", n))
		}
		c.printf("%s set on %s.\n", args[0], n)
	}
	return 0
}

func cmdDpkg(c *call) int {
	flags, args := options(c.args[1:])
	switch {
	case has(flags, "--print-architecture"):
		c.printf("amd64\n")
	case has(flags, "--configure"):
	case has(flags, "-l", "-s"):
		status := 0
		for _, n := range args {
			c.h.mu.Lock()
			p, ok := c.h.sys.packages[n]
			c.h.mu.Unlock()
			if ok {
				c.printf("ii  %s  %s  amd64\n", n, p.Version)
			} else {
				c.errf("dpkg-query: no packages found matching %s", n)
				status = 1
			}
		}
		return status
	default:
		return c.fail(2, "unknown option")
	}
	return 0
}

// Markers of a key: as it is served, and as gpg --dearmor leaves it.
const (
	armored   = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	dearmored = "dearmored public key"
)

func cmdGpg(c *call) int {
	flags, files := options(c.args[1:], "-o", "--output")
	if !has(flags, "--dearmor") {
		return c.fail(2, "only --dearmor")
	}
	b, status := c.input(files)
	if status != 0 {
		return 2
	}
	if !strings.Contains(string(b), armored) {
		return c.fail(2, "no valid OpenPGP data found.")
	}
	out := value(flags, "-o", "--output")
	if out == "" {
		c.printf("%s\n", dearmored)
		return 0
	}
	if c.h.fs.exists(c.path(out)) && !has(flags, "--yes") {
		return c.fail(2, "File '%s' exists.", out)
	}
	if err := c.write(out, []byte(dearmored+"\n"), 0o644); err != nil {
		return c.fail(2, "can't create '%s': %s", out, errText(err))
	}
	return 0
}

// cmdCurl fetches what the installation needs: repository keys. No other host
// exists on the virtual network.
func cmdCurl(c *call) int {
	flags, args := options(c.args[1:], "-o", "--output", "--retry", "--retry-delay", "--connect-timeout", "--max-time", "-m", "-H", "-x")
	if len(args) != 1 {
		return c.fail(2, "no URL specified")
	}
	url := args[0]
	_, rest, ok := strings.Cut(url, "://")
	server, file, _ := strings.Cut(rest, "/")
	if !ok || strings.HasSuffix(server, ".invalid") {
		return c.fail(6, "(6) Could not resolve host: %s", server)
	}
	base := path.Base(file)
	isKey := base == "Release.key" || base == "gpg" || strings.HasSuffix(base, ".gpg") || strings.HasSuffix(base, ".asc") || strings.HasSuffix(base, ".key")
	if i := strings.Index(file, "core:/stable:/v1."); i >= 0 {
		var minor int
		if _, err := fmt.Sscanf(file[i+len("core:/stable:/v1."):], "%d", &minor); err != nil || minor < oldestServedMinor || minor > newestServedMinor {
			isKey = false
		}
	}
	if !isKey {
		return c.fail(22, "(22) The requested URL returned error: 404")
	}
	body := armored + "\n\nc2ltdWxhdGVk\n-----END PGP PUBLIC KEY BLOCK-----\n"
	out := value(flags, "-o", "--output")
	if out == "" {
		c.printf("%s", body)
		return 0
	}
	if err := c.write(out, []byte(body), 0o644); err != nil {
		return c.fail(23, "(23) Failure writing output to destination")
	}
	return 0
}
