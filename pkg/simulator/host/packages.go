package host

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
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

// payFor spends the time that installing packages takes.
func (c *call) payFor(todo []offer) bool {
	share, runtime := 0, 0
	for _, o := range todo {
		switch o.name {
		case "conntrack", "conntrack-tools":
			share += shareBase
		case "containerd.io", "containerd", "docker-ce":
			runtime = shareRuntime
		case "kubelet":
			share += shareKubelet
		}
	}
	return c.pay(share + runtime)
}

// packageCommand are the package managers and what fetches things for them.
func packageCommand(name string) command {
	switch name {
	case "apt-get":
		return cmdAptGet
	case "apt-cache":
		return cmdAptCache
	case "apt-mark":
		return cmdAptMark
	case "dpkg", "dpkg-query":
		return cmdDpkg
	case "dnf", "yum":
		return cmdDnf
	case "rpm":
		return cmdRPM
	case "apk":
		return cmdApk
	case "gpg":
		return cmdGpg
	case "curl", "wget":
		return cmdCurl
	}
	return nil
}

// sourcesList is the distribution's own sources.list. Ubuntu's is what plunder's
// installer writes: without universe, except on noble.
func (p profile) sourcesList() string {
	switch p.codename {
	case "noble":
		return "deb http://archive.ubuntu.com/ubuntu noble main restricted universe\ndeb http://security.ubuntu.com/ubuntu noble-security main restricted universe\n"
	case "jammy", "bionic":
		return fmt.Sprintf("deb http://archive.ubuntu.com/ubuntu %s main restricted\ndeb http://security.ubuntu.com/ubuntu %s-security main restricted\n", p.codename, p.codename)
	}
	return fmt.Sprintf("deb http://deb.debian.org/debian %s main\ndeb http://deb.debian.org/debian-security %s-security main\n", p.codename, p.codename)
}

// debSource is a line of apt's sources.
type debSource struct {
	line, url, suite string
	components       []string
	keyring          string
	trusted          bool // whatever signs it
}

// sources are the "deb" lines of the host.
func (h *Host) sources() []debSource {
	var out []debSource
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
				out = append(out, parseSource(line))
			}
		}
	}
	return out
}

// parseSource takes a deb line apart.
func parseSource(line string) debSource {
	s := debSource{line: line}
	rest := strings.TrimSpace(strings.TrimPrefix(line, "deb"))
	if opts, after, ok := strings.Cut(rest, "]"); ok && strings.HasPrefix(opts, "[") {
		for _, o := range strings.Fields(opts[1:]) {
			if k, ok := strings.CutPrefix(o, "signed-by="); ok {
				s.keyring = k
			}
			s.trusted = s.trusted || o == "trusted=yes"
		}
		rest = after
	}
	if f := strings.Fields(rest); len(f) > 1 {
		s.url, s.suite, s.components = f[0], f[1], f[2:]
	}
	return s
}

// debRepository is what a source of apt offers; ok is false if there is no such
// repository (any more).
func (p profile) debRepository(s debSource) (r repository, ok bool) {
	switch docker := dockerPath.FindStringSubmatch(s.url + "/"); {
	case strings.Contains(s.url, "apt.kubernetes.io"), strings.Contains(s.url, "packages.cloud.google.com"):
		return r, false
	case strings.Contains(s.url, "archive.ubuntu.com"), strings.Contains(s.url, "security.ubuntu.com"), strings.Contains(s.url, "deb.debian.org"):
		if s.suite != p.codename { // updates and the like add nothing
			return r, strings.HasPrefix(s.suite, p.codename+"-")
		}
		for _, n := range debArchive() {
			if p.id != "ubuntu" || !universe(n) || slices.Contains(s.components, "universe") {
				r.add(s.url, "1.0-1", n)
			}
		}
		r.add(s.url, p.containerd, "containerd")
		return r, true
	case docker != nil:
		return dockerDeb(s.url, docker[1], s.suite)
	}
	if minor, exists, is := servedMinor(s.url); is {
		return kubernetesRepository(s.url, minor, false), exists && s.suite == "/" && strings.Contains(s.url, "/deb")
	}
	return legacyRepository(s.url, false), true
}

// offers is what apt knows after its last update, newest first.
func (h *Host) offers(name string) []offer {
	var out []offer
	for _, s := range h.sources() {
		h.mu.Lock()
		fetched := h.sys.index[s.line]
		h.mu.Unlock()
		if !fetched {
			continue
		}
		r, _ := h.sys.profile.debRepository(s)
		for _, o := range r.offers {
			if o.name == name && !slices.ContainsFunc(out, func(x offer) bool { return x.version == o.version }) {
				out = append(out, o)
			}
		}
	}
	newestFirst(out)
	return out
}

func newestFirst(offers []offer) {
	slices.SortStableFunc(offers, func(a, b offer) int { return -compareVersions(a.version, b.version) })
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
	flags, args := options(c.args[1:], "-o", "--option", "-t", "--target-release", "-c")
	if len(args) == 0 {
		return c.aptError("E: Invalid operation")
	}
	if !c.root() {
		return c.aptError("E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)\n" +
			"E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?")
	}
	verb := args[0]
	if !slices.Contains([]string{"update", "install", "remove", "purge", "autoremove", "clean", "upgrade", "dist-upgrade"}, verb) {
		return c.aptError("E: Invalid operation " + verb)
	}
	if verb != "clean" && verb != "update" && c.locked(c.lockLimit(flags)) {
		return c.aptError("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1442 (unattended-upgr)\n" +
			"N: Be aware that removing the lock file is not a solution and may break your system.\n" +
			"E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?")
	}
	switch verb {
	case "update":
		return c.aptUpdate()
	case "install":
		if !has(flags, "-y", "--yes", "--assume-yes") {
			c.errf("Do you want to continue? [Y/n] Abort.")
			return 1
		}
		return c.aptInstall(args[1:], has(flags, "--allow-change-held-packages"), has(flags, "--allow-downgrades"))
	case "remove", "purge":
		for _, n := range args[1:] {
			c.h.removePackage(n)
		}
	}
	return 0
}

// lockLimit is how long apt waits for the lock: DPkg::Lock::Timeout, which apt knows
// from 2.0 on.
func (c *call) lockLimit(flags map[string][]string) time.Duration {
	if c.h.sys.profile.codename == "bionic" {
		return 0
	}
	for _, o := range append(flags["-o"], flags["--option"]...) {
		if v, ok := strings.CutPrefix(o, "DPkg::Lock::Timeout="); ok {
			if n, err := strconv.Atoi(v); err == nil {
				return time.Duration(n) * time.Second
			}
		}
	}
	return 0
}

func (c *call) aptError(text string) int {
	c.errf("%s", text)
	return aptStatus
}

// aptUpdate fetches what the sources offer. As with the real one, a server that
// cannot be reached is only a warning: the exit status stays 0.
func (c *call) aptUpdate() int {
	status := 0
	warned := false
	for _, s := range c.h.sources() {
		if e := c.reach(s.url); e != nil {
			c.errf("Err: %s %s InRelease\n  %s\nW: Failed to fetch %s/dists/%s/InRelease  %s", s.url, s.suite, e.text, strings.TrimSuffix(s.url, "/"), s.suite, e.text)
			warned = true
			continue
		}
		r, ok := c.h.sys.profile.debRepository(s)
		if !ok {
			status = c.aptError(fmt.Sprintf("Err: %s %s Release\n  404  Not Found\nE: The repository '%s %s Release' does not have a Release file.", s.url, s.suite, s.url, s.suite))
			continue
		}
		if complaint := c.signature(s, r); complaint != "" {
			status = c.aptError(fmt.Sprintf("W: GPG error: %s %s InRelease: %s\nE: The repository '%s %s InRelease' is not signed.", s.url, s.suite, complaint, s.url, s.suite))
			continue
		}
		c.printf("Get: %s %s InRelease\n", s.url, s.suite)
		c.h.mu.Lock()
		c.h.sys.index[s.line] = true
		c.h.mu.Unlock()
	}
	c.printf("Reading package lists...\n")
	if warned {
		c.errf("W: Some index files failed to download. They have been ignored, or old ones used instead.")
	}
	return status
}

// signature says what is wrong with the key of a repository, "" if nothing is.
func (c *call) signature(s debSource, r repository) string {
	if r.key == "" || s.trusted {
		return ""
	}
	var ids []string
	files := []string{s.keyring}
	if s.keyring == "" {
		files = append(c.h.list("/etc/apt/trusted.gpg.d"), "/etc/apt/trusted.gpg")
	}
	for _, f := range files {
		if b, err := c.h.fs.readFile(who{}, f); err == nil {
			ids = append(ids, keyIDs(b)...)
		}
	}
	switch {
	case slices.Contains(ids, r.key):
		return ""
	case slices.Contains(ids, r.key+keyOld):
		return fmt.Sprintf("The following signatures were invalid: EXPKEYSIG %s %s", r.key, keyOwner(r.key))
	}
	return "The following signatures couldn't be verified because the public key is not available: NO_PUBKEY " + r.key
}

func (c *call) aptInstall(requests []string, changeHeld, downgrade bool) int {
	todo, complaint := c.aptPlan(requests)
	if complaint != "" {
		return c.aptError(complaint)
	}
	for _, o := range todo {
		have := c.h.installed(o.name)
		switch {
		case have.Held && !changeHeld:
			return c.aptError("E: Held packages were changed and -y was used without --allow-change-held-packages.")
		case have.Version != "" && compareVersions(have.Version, o.version) > 0 && !downgrade:
			return c.aptError("E: Packages were downgraded and -y was used without --allow-downgrades.")
		}
		if e := c.reach(o.source); e != nil {
			return c.aptError(fmt.Sprintf("E: Failed to fetch %s/%s_%s_amd64.deb  %s\nE: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?", strings.TrimSuffix(o.source, "/"), o.name, o.version, e.text))
		}
	}
	if !c.payFor(todo) {
		return aptStatus
	}
	for _, o := range todo {
		for _, n := range conflicts(o.name) {
			if c.h.installed(n).Version != "" {
				c.printf("Removing %s ...\n", n)
				c.h.removePackage(n)
			}
		}
		c.h.addPackage(o.name, o.version)
		c.printf("Setting up %s (%s) ...\n", o.name, o.version)
	}
	return 0
}

// aptPlan is what has to be installed for some requests, with what that needs.
func (c *call) aptPlan(requests []string) (todo []offer, complaint string) {
	var complaints []string
	chosen := map[string]offer{}
	for _, r := range requests {
		o, complaint := c.h.find(r)
		if complaint != "" {
			complaints = append(complaints, complaint)
			continue
		}
		chosen[o.name] = o
		have := c.h.installed(o.name)
		if have.Version == o.version || have.Version != "" && !strings.Contains(r, "=") {
			c.printf("%s is already the newest version (%s).\n", o.name, have.Version)
			continue
		}
		todo = append(todo, o)
	}
	if len(complaints) > 0 {
		return nil, strings.Join(complaints, "\n")
	}
	for i := 0; i < len(todo); i++ {
		for _, r := range dependencies(todo[i]) {
			name, want, _ := strings.Cut(r, "=")
			version := chosen[name].version
			if version == "" {
				version = c.h.installed(name).Version
			}
			if version != "" {
				if !strings.HasPrefix(version, strings.TrimSuffix(want, "*")) {
					return nil, fmt.Sprintf("The following packages have unmet dependencies:\n %s : Depends: %s (= %s) but %s is to be installed\nE: Unable to correct problems, you have held broken packages.",
						todo[i].name, name, strings.TrimSuffix(want, "*"), version)
				}
				continue
			}
			o, missing := c.h.find(name)
			if missing != "" || !strings.HasPrefix(o.version, strings.TrimSuffix(want, "*")) {
				// apt takes the candidate only, which is the newest.
				return nil, fmt.Sprintf("The following packages have unmet dependencies:\n %s : Depends: %s%s but it is not going to be installed\nE: Unable to correct problems, you have held broken packages.",
					todo[i].name, name, map[bool]string{true: " (= " + strings.TrimSuffix(want, "*") + ")"}[want != ""])
			}
			chosen[name] = o
			todo = append(todo, o)
		}
	}
	return todo, ""
}

func (h *Host) installed(name string) installed {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sys.packages[name]
}

// addPackage installs a package with its programs. Debian starts services at once,
// systems with rpm leave that to the administrator.
func (h *Host) addPackage(name, version string) {
	programs, service := programsOf(name)
	for _, p := range programs {
		h.addProgram(p)
	}
	if service == "chrony" && h.sys.profile.rpm() {
		service = "chronyd"
	}
	atOnce := !h.sys.profile.rpm()
	h.mu.Lock()
	held := h.sys.packages[name].Held
	h.sys.packages[name] = installed{Version: version, Held: held}
	added := service != "" && h.sys.units[service] == nil
	if added {
		h.sys.units[service] = &unit{Enabled: atOnce, Active: atOnce && service != "kubelet"}
	}
	h.mu.Unlock()
	if added && atOnce {
		h.serviceFiles(service)
	}
	if (name == "containerd.io" || name == "containerd") && !h.fs.exists("/etc/containerd/config.toml") {
		h.addFile("/etc/containerd/config.toml", "disabled_plugins = [\"cri\"]\n")
	}
	if name == "kubernetes-cni" {
		for _, p := range []string{"bridge", "host-local", "loopback", "portmap"} {
			h.fs.put("/opt/cni/bin/"+p, &node{mode: 0o755, data: []byte(binaryMagic + "cni")})
		}
	}
}

// removePackage removes a package with its programs and service; configuration stays.
func (h *Host) removePackage(name string) {
	programs, service := programsOf(name)
	h.mu.Lock()
	_, was := h.sys.packages[name]
	delete(h.sys.packages, name)
	if was && service != "" {
		delete(h.sys.units, service)
	}
	h.mu.Unlock()
	if !was {
		return
	}
	for _, p := range programs {
		_ = h.fs.remove(who{}, "/usr/bin/"+p, false) // another package may have taken it along
	}
}

// version is an installed package's version without epoch and revision, or "". A
// program of that name in /usr/local/bin comes before the package's.
func (h *Host) version(pkg string) string {
	if b, err := h.fs.readFile(who{}, "/usr/local/bin/"+pkg); err == nil {
		if v, ok := strings.CutPrefix(string(b), binaryMagic+pkg+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return upstream(h.installed(pkg).Version)
}

func cmdAptCache(c *call) int {
	_, args := options(c.args[1:])
	if len(args) < 2 {
		return c.aptError("E: Invalid operation")
	}
	offers := c.h.offers(args[1])
	switch args[0] {
	case "madison":
		if len(offers) == 0 {
			c.errf("N: Unable to locate package %s", args[1])
		}
		for _, o := range offers {
			c.printf("%10s | %s | %s  Packages\n", o.name, o.version, o.source)
		}
		return 0
	case "show", "policy":
		if len(offers) == 0 && args[0] == "policy" {
			return 0
		}
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
	if len(args) == 1 && args[0] == "showhold" {
		c.h.mu.Lock()
		var held []string
		for n, p := range c.h.sys.packages {
			if p.Held {
				held = append(held, n)
			}
		}
		c.h.mu.Unlock()
		slices.Sort(held)
		for _, n := range held {
			c.printf("%s\n", n)
		}
		return 0
	}
	if len(args) < 2 || args[0] != "hold" && args[0] != "unhold" {
		return c.aptError("E: Invalid operation")
	}
	if !c.root() {
		return c.aptError("E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)")
	}
	for _, n := range args[1:] {
		if _, complaint := c.h.find(n); complaint != "" && c.h.installed(n).Version == "" {
			return c.aptError("E: Unable to locate package " + n + "\nE: No packages found")
		}
		c.h.mu.Lock()
		p := c.h.sys.packages[n]
		p.Held = args[0] == "hold"
		if p.Version != "" || p.Held {
			c.h.sys.packages[n] = p
		} else {
			delete(c.h.sys.packages, n)
		}
		c.h.mu.Unlock()
		c.printf("%s set on %s.\n", n, map[bool]string{true: "hold", false: "unhold"}[args[0] == "hold"])
	}
	return 0
}

func cmdDpkg(c *call) int {
	flags, args := options(c.args[1:], "-f", "--showformat")
	switch {
	case has(flags, "--print-architecture"):
		c.printf("amd64\n")
	case has(flags, "--configure"):
		if !c.root() {
			return c.fail(2, "error: requested operation requires superuser privilege")
		}
	case has(flags, "-l", "-s", "-W", "--list", "--status", "--show"):
		status := 0
		for _, n := range args {
			p := c.h.installed(n)
			if p.Version != "" && has(flags, "-f", "--showformat") {
				c.printf("%s", strings.NewReplacer("${Version}", p.Version, "${Package}", n, "${Status}", "install ok installed", `\n`, "\n").Replace(value(flags, "-f", "--showformat")))
			} else if p.Version != "" {
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

// cmdApk knows no packages: nothing of Kubernetes is made for it.
func cmdApk(c *call) int {
	_, args := options(c.args[1:])
	if len(args) > 1 && args[0] == "add" {
		c.errf("ERROR: unable to select packages:\n  %s (no such package):\n    required by: world[%s]", args[1], args[1])
		return 1
	}
	return 0
}

// Package is the installed version of a package, "" if it is not installed.
func (h *Host) Package(name string) string { return h.installed(name).Version }

// Changes is a text that differs when packages or services of the host do, for tests
// that ask whether something was changed.
func (h *Host) Changes() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	for _, n := range sortedKeys(h.sys.packages) {
		fmt.Fprintf(&b, "package %s %+v\n", n, h.sys.packages[n])
	}
	for _, n := range sortedKeys(h.sys.units) {
		u := h.sys.units[n]
		fmt.Fprintf(&b, "unit %s enabled=%v active=%v masked=%v failed=%v\n", n, u.Enabled, u.Active, u.Masked, u.Failed)
	}
	return b.String()
}
