package host

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// baseRepositories are the repository files of a fresh system, by name.
func (p profile) baseRepositories() map[string]string {
	section := func(id, source string) string {
		return fmt.Sprintf("[%s]\nname=%s %s\n%s\nenabled=1\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-distribution\n\n", id, p.pretty, id, source)
	}
	switch p.id {
	case "centos": // its mirror list and its mirror are gone since July 2024
		s := ""
		for _, id := range []string{"base", "updates", "extras"} {
			dir := strings.Replace(id, "base", "os", 1)
			s += section(id, fmt.Sprintf("mirrorlist=http://mirrorlist.centos.org/?release=$releasever&arch=$basearch&repo=%s&infra=$infra\n#baseurl=http://mirror.centos.org/centos/$releasever/%s/$basearch/", dir, dir))
		}
		return map[string]string{"CentOS-Base.repo": s}
	case "rhel":
		return map[string]string{"redhat.repo": section("rhel-9-for-x86_64-baseos-rpms", "baseurl=https://cdn.redhat.com/content/dist/rhel9/$releasever/x86_64/baseos/os")}
	case "fedora":
		return map[string]string{"fedora.repo": section("fedora", "metalink=https://mirrors.fedoraproject.org/metalink?repo=fedora-$releasever&arch=$basearch")}
	}
	return map[string]string{"rocky.repo": section("baseos", "mirrorlist=https://mirrors.rockylinux.org/mirrorlist?arch=$basearch&repo=BaseOS-$releasever")}
}

// release is the tag that packages for this system carry: el9, fc42.
func (p profile) release() string {
	if p.id == "fedora" {
		return "fc" + p.major()
	}
	return "el" + p.major()
}

// rpmSource is a section of a repository file.
type rpmSource struct {
	id       string
	url      string // baseurl, mirrorlist or metalink, with its variables filled in
	list     bool   // url is not the base, it only leads there
	check    bool   // gpgcheck
	keys     []string
	excludes []string
	optional bool // skip_if_unavailable
	enabled  bool
}

// ini reads a file of sections with keys and values.
func ini(b []byte) (sections []string, values map[string]map[string]string) {
	values = map[string]map[string]string{}
	section := ""
	for _, line := range lines(b) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
			if values[section] == nil {
				sections = append(sections, section)
				values[section] = map[string]string{}
			}
			continue
		}
		if k, v, ok := strings.Cut(line, "="); ok && section != "" && !strings.HasPrefix(line, "#") {
			values[section][strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
	}
	return sections, values
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' })
}

// rpmSources are the repositories of the host.
func (h *Host) rpmSources() []rpmSource {
	p := h.sys.profile
	fill := strings.NewReplacer("$releasever", p.major(), "$basearch", "x86_64", "$infra", "stock")
	var main []string
	for _, f := range []string{"/etc/dnf/dnf.conf", "/etc/yum.conf"} {
		if b, err := h.fs.readFile(who{}, f); err == nil {
			_, v := ini(b)
			main = append(main, words(v["main"]["exclude"]+" "+v["main"]["excludepkgs"])...)
		}
	}
	var out []rpmSource
	for _, f := range h.list("/etc/yum.repos.d") {
		b, err := h.fs.readFile(who{}, f)
		if err != nil || path.Ext(f) != ".repo" {
			continue
		}
		ids, values := ini(b)
		for _, id := range ids {
			v := values[id]
			s := rpmSource{
				id: id, url: fill.Replace(v["baseurl"]), check: v["gpgcheck"] == "1", optional: v["skip_if_unavailable"] == "1" || v["skip_if_unavailable"] == "True",
				enabled: v["enabled"] != "0", excludes: append(words(v["exclude"]+" "+v["excludepkgs"]), main...), keys: words(fill.Replace(v["gpgkey"])),
			}
			for _, k := range []string{"mirrorlist", "metalink"} {
				if v[k] != "" {
					s.url, s.list = fill.Replace(v[k]), true
				}
			}
			out = append(out, s)
		}
	}
	return out
}

// rpmRepository is what is at a repository's URL.
func (p profile) rpmRepository(s rpmSource) (r repository, ok bool) {
	docker := dockerPath.FindStringSubmatch(s.url)
	minor, exists, isKubernetes := servedMinor(s.url)
	switch {
	case slices.ContainsFunc([]string{"vault.centos.org", "rockylinux.org", "cdn.redhat.com", "fedoraproject.org"}, func(d string) bool { return strings.Contains(s.url, d) }):
		for _, n := range rpmArchive() {
			if p.major() == "7" && n == "iproute-tc" {
				continue
			}
			r.add(s.url, "1.0-1."+p.release(), n)
		}
		if p.major() == "7" || p.major() == "8" {
			r.add(s.url, "1.0-1."+p.release(), "ebtables")
		}
		if p.major() != "7" {
			r.add(s.url, strings.TrimSuffix(p.kernel, ".x86_64"), "kernel-modules-extra")
		}
		if p.containerd != "" {
			r.add(s.url, p.containerd, "containerd")
		}
		return r, true
	case isKubernetes:
		return kubernetesRepository(s.url, minor, true), exists && strings.Contains(s.url, "/rpm")
	case docker != nil:
		if !strings.Contains(s.url, "/linux/"+docker[1]+"/"+p.major()+"/") || (docker[1] == "fedora") != (p.id == "fedora") {
			return r, false
		}
		if docker[1] == "rhel" && p.major() == "7" {
			return r, false
		}
		return dockerRPM(s.url, p.release())
	}
	return legacyRepository(s.url, true), true
}

// dnf is one run of dnf or yum.
type dnf struct {
	*call

	yum   bool // yum 3, the one of CentOS 7
	flags map[string][]string
}

func cmdDnf(c *call) int {
	flags, args := options(c.args[1:], "-x", "--setopt", "--releasever", "--installroot", "-d", "-e", "-c")
	d := dnf{call: c, yum: c.h.sys.profile.manager == "yum", flags: flags}
	if d.yum {
		for _, f := range []string{"--allowerasing", "--best", "--nobest", "--nodocs"} {
			if has(flags, f) {
				c.errf("Usage: yum [options] COMMAND\n\nCommand line error: no such option: %s", f)
				return 1
			}
		}
	}
	if has(flags, "--version") {
		c.printf("4.18.0\n")
		return 0
	}
	if len(args) == 0 {
		c.errf("You need to give some command")
		return 1
	}
	verb, names := args[0], args[1:]
	reads := slices.Contains([]string{"list", "info", "repolist", "search", "repoquery", "provides"}, verb)
	if !c.root() && !reads {
		c.errf("Error: This command has to be run with superuser privileges (under the root user on most systems).")
		return 1
	}
	if !reads && c.locked(-1) {
		return 1
	}
	switch verb {
	case "install":
		return d.install(names)
	case "makecache":
		_, status := d.load()
		return status
	case "clean", "repolist":
		return 0
	case "update", "upgrade", "check-update":
		_, status := d.load()
		return status
	case "remove", "erase", "autoremove":
		for _, n := range names {
			c.h.removePackage(n)
		}
		return 0
	case "list", "info", "repoquery":
		return d.list(names)
	}
	c.errf("No such command: %s. Please use /usr/bin/%s --help", verb, path.Base(c.args[0]))
	return 1
}

// candidate is an offer with the repository that it is in.
type candidate struct {
	offer

	source   rpmSource
	key      string
	excluded bool
}

// load fetches what the enabled repositories offer.
func (d dnf) load() (all []candidate, status int) {
	for _, s := range d.h.rpmSources() {
		matches := func(flag string) bool {
			return slices.ContainsFunc(d.flags[flag], func(v string) bool {
				return slices.ContainsFunc(words(v), func(w string) bool { ok, _ := path.Match(w, s.id); return ok })
			})
		}
		enabled := (s.enabled || matches("--enablerepo")) && !matches("--disablerepo")
		if repos := append(d.flags["--repo"], d.flags["--repoid"]...); len(repos) > 0 {
			enabled = slices.Contains(repos, s.id)
		}
		if !enabled {
			continue
		}
		e := d.reach(s.url)
		r, ok := d.h.sys.profile.rpmRepository(s)
		if e == nil && !ok {
			e = &netError{curlHTTPError, "The requested URL returned error: 404"}
		}
		if e != nil {
			d.unavailable(s, e)
			if s.optional {
				continue
			}
			return nil, 1
		}
		unlimited := slices.ContainsFunc(append(d.flags["--disableexcludes"], d.flags["--disableexcludepkgs"]...), func(v string) bool { return v == "all" || v == s.id || v == "*" })
		for _, o := range r.offers {
			x := candidate{offer: o, source: s, key: r.key}
			x.excluded = !unlimited && slices.ContainsFunc(append(s.excludes, d.flags["-x"]...), func(w string) bool { ok, _ := path.Match(w, o.name); return ok })
			all = append(all, x)
		}
	}
	return all, 0
}

// unavailable says that a repository cannot be read.
func (d dnf) unavailable(s rpmSource, e *netError) {
	if d.yum {
		if s.list {
			d.errf("Could not retrieve mirrorlist %s error was\n14: curl#%d - \"%s\"\n\n\n Cannot find a valid baseurl for repo: %s/%s/x86_64", s.url, e.status, e.text, s.id, d.h.sys.profile.major())
			return
		}
		d.errf("%s/repodata/repomd.xml: [Errno 14] curl#%d - \"%s\"\nTrying other mirror.\n\n\n One of the configured repositories failed (%s),\n and yum doesn't have enough cached data to continue.", strings.TrimSuffix(s.url, "/"), e.status, e.text, s.id)
		return
	}
	what, where := "metadata", strings.TrimSuffix(s.url, "/")+"/repodata/repomd.xml"
	if s.list {
		where = s.url
	}
	reason := fmt.Sprintf("Curl error (%d): %s for %s [%s]", e.status, e.text, where, e.text)
	if e.status == curlHTTPError {
		reason = fmt.Sprintf("Status code: %s for %s (IP: 192.0.2.80)", strings.TrimPrefix(e.text, "The requested URL returned error: "), where)
	}
	d.errf("Errors during downloading %s for repository '%s':\n  - %s\nError: Failed to download metadata for repo '%s': Cannot download repomd.xml: Cannot download repodata/repomd.xml: All mirrors were tried", what, s.id, reason, s.id)
}

// matches reports whether a package is what a request names: NAME, NAME-VERSION or
// NAME-VERSION-RELEASE, where stars stand for anything.
func matches(request, name, version string) bool {
	_, noEpoch, ok := strings.Cut(version, ":")
	if !ok {
		noEpoch = version
	}
	if request == name {
		return true
	}
	v, _, _ := strings.Cut(noEpoch, "-")
	for _, form := range []string{name + "-" + v, name + "-" + noEpoch, name + "-" + version, name + "-" + noEpoch + ".x86_64", name + ".x86_64"} {
		if ok, _ := path.Match(request, form); ok {
			return true
		}
	}
	return false
}

// pick is the newest offer for a request.
func pick(all []candidate, request string) (best candidate, found, filtered bool) {
	for _, x := range all {
		switch {
		case !matches(request, x.name, x.version):
		case x.excluded:
			filtered = true
		case !found || compareVersions(x.version, best.version) > 0:
			best, found = x, true
		}
	}
	return best, found, filtered
}

func (d dnf) install(requests []string) int {
	if len(requests) == 0 {
		d.errf("Error: Need to pass a list of pkgs to install")
		return 1
	}
	if !has(d.flags, "-y", "--assumeyes") {
		d.errf("Operation aborted.")
		return 1
	}
	all, status := d.load()
	if status != 0 {
		return status
	}
	var todo []candidate
	var missing []string
	chosen := map[string]string{}
	for _, r := range requests {
		if name, version := d.installedAs(r); name != "" {
			d.printf("Package %s-%s.x86_64 is already installed.\n", name, version)
			chosen[name] = version
			continue
		}
		x, found, filtered := pick(all, r)
		if !found {
			missing = append(missing, r)
			switch {
			case d.yum:
				d.printf("No package %s available.\n", r)
			case filtered:
				d.errf("All matches were filtered out by exclude filtering for argument: %s", r)
			default:
				d.errf("No match for argument: %s", r)
			}
			continue
		}
		chosen[x.name] = x.version
		todo = append(todo, x)
	}
	if len(missing) > 0 && !d.yum { // yum 3 goes on without them
		d.errf("Error: Unable to find a match: %s", strings.Join(missing, " "))
		return 1
	}
	if d.yum {
		todo = slices.DeleteFunc(todo, func(x candidate) bool {
			have := d.h.installed(x.name).Version
			if have != "" && compareVersions(have, x.version) > 0 {
				d.printf("Package matching %s-%s already installed. Checking for update.\n", x.name, x.version)
				return true
			}
			return false
		})
		if len(todo) == 0 && len(missing) == len(requests) {
			d.errf("Error: Nothing to do")
			return 1
		}
	}
	todo, problem := d.complete(all, todo, chosen)
	if problem != "" {
		d.errf("Error: \n Problem: %s", problem)
		return 1
	}
	if len(todo) == 0 {
		d.printf("Dependencies resolved.\nNothing to do.\nComplete!\n")
		return 0
	}
	return d.commit(todo)
}

// installedAs is the installed package that satisfies a request.
func (d dnf) installedAs(request string) (name, version string) {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	for _, n := range sortedKeys(d.h.sys.packages) {
		if v := d.h.sys.packages[n].Version; matches(request, n, v) {
			return n, v
		}
	}
	return "", ""
}

// complete adds what packages need, and says what is in their way.
func (d dnf) complete(all, todo []candidate, chosen map[string]string) (out []candidate, problem string) {
	for i := 0; i < len(todo); i++ {
		for _, r := range dependencies(todo[i].offer) {
			name, want, _ := strings.Cut(r, "=")
			version := chosen[name]
			if version == "" {
				version = d.h.installed(name).Version
			}
			request := name
			if want != "" {
				request = name + "-" + want
			}
			if version != "" && matches(request, name, version) {
				continue
			}
			x, found, _ := pick(all, request)
			if version != "" || !found {
				return nil, fmt.Sprintf("conflicting requests\n  - nothing provides %s needed by %s-%s.x86_64 from %s\n(try to add '--skip-broken' to skip uninstallable packages or '--nobest' to use not only best candidate packages)",
					strings.Replace(r, "=", " = ", 1), todo[i].name, todo[i].version, todo[i].source.id)
			}
			chosen[name] = x.version
			todo = append(todo, x)
		}
	}
	for _, x := range todo {
		for _, n := range conflicts(x.name) {
			if have := d.h.installed(n).Version; have != "" && !has(d.flags, "--allowerasing") {
				return nil, fmt.Sprintf("problem with installed package %s-%s.x86_64\n  - package %s-%s.x86_64 from %s conflicts with %s provided by %s-%s.x86_64 from @System\n  - conflicting requests\n(try to add '--allowerasing' to command line to replace conflicting packages or '--skip-broken' to skip uninstallable packages or '--nobest' to use not only best candidate packages)",
					n, have, x.name, x.version, x.source.id, n, n, have)
			}
		}
	}
	return todo, ""
}

// commit downloads, checks and installs packages.
func (d dnf) commit(todo []candidate) int {
	offers := make([]offer, len(todo))
	for i, x := range todo {
		if e := d.reach(x.offer.source); e != nil {
			d.errf("[MIRROR] %s-%s.x86_64.rpm: Curl error (%d): %s\n[FAILED] No more mirrors to try - All mirrors were already tried without success\nError: Error downloading packages:\n  Cannot download %s-%s.x86_64.rpm: All mirrors were tried", x.name, x.version, e.status, e.text, x.name, x.version)
			return 1
		}
		if complaint := d.signature(x); complaint != "" {
			d.errf("%s", complaint)
			return 1
		}
		offers[i] = x.offer
	}
	if !d.payFor(offers) {
		return 1
	}
	for _, x := range todo {
		for _, n := range conflicts(x.name) {
			if d.h.installed(n).Version != "" {
				d.printf("  Erasing: %s\n", n)
				d.h.removePackage(n)
				if n == "runc" { // podman cannot stay without it
					d.h.removePackage("podman")
				}
			}
		}
		d.h.addPackage(x.name, x.version)
		d.printf("  Installing : %s-%s.x86_64\n", x.name, x.version)
	}
	d.printf("\nComplete!\n")
	return 0
}

// signature says what is wrong with the signature of a package, "" if nothing is.
func (d dnf) signature(x candidate) string {
	if !x.source.check || x.key == "" || has(d.flags, "--nogpgcheck") {
		return ""
	}
	var ids []string
	for _, k := range x.source.keys {
		b, e := d.download(k)
		if e != nil {
			return fmt.Sprintf("Curl error (%d): %s for %s [%s]\nError: GPG check FAILED", e.status, e.text, k, e.text)
		}
		ids = append(ids, keyIDs(b)...)
	}
	// Only the newer rpm looks at the expiry of a key.
	strict := d.h.sys.profile.id == "fedora" || d.h.sys.profile.major() == "10"
	switch {
	case slices.Contains(ids, x.key), !strict && slices.Contains(ids, x.key+keyOld):
		return ""
	case slices.Contains(ids, x.key+keyOld):
		return fmt.Sprintf("error: Certificate %s:\n  Policy rejects subkey %s: Expired on 2024-11-02T00:00:00Z\nError: GPG check FAILED", x.key, x.key)
	}
	return fmt.Sprintf("Public key for %s-%s.x86_64.rpm is not installed. Failing package is: %s-%s.x86_64\n GPG Keys are configured as: %s\nError: GPG check FAILED", x.name, x.version, x.name, x.version, strings.Join(x.source.keys, ", "))
}

func (d dnf) list(names []string) int {
	if len(names) > 0 && (names[0] == "installed" || names[0] == "--installed") || has(d.flags, "--installed") {
		names = slices.DeleteFunc(names, func(n string) bool { return n == "installed" })
		status := 1
		for _, n := range names {
			if name, version := d.installedAs(n); name != "" {
				d.printf("%s.x86_64  %s  @System\n", name, version)
				status = 0
			}
		}
		if status != 0 {
			d.errf("Error: No matching Packages to list")
		}
		return status
	}
	all, status := d.load()
	if status != 0 {
		return status
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return compareVersions(a.version, b.version) })
	found := false
	for _, n := range names {
		newest, _, _ := pick(all, n)
		for _, x := range all {
			if !x.excluded && matches(n, x.name, x.version) && (has(d.flags, "--showduplicates") || x.version == newest.version) {
				found = true
				d.printf("%s.x86_64  %s  %s\n", x.name, x.version, x.source.id)
			}
		}
	}
	if !found && len(names) > 0 {
		d.errf("Error: No matching Packages to list")
		return 1
	}
	return 0
}

// cmdRPM asks for installed packages, and imports keys.
func cmdRPM(c *call) int {
	flags, args := options(c.args[1:], "--qf", "--queryformat", "-E", "--eval")
	p := c.h.sys.profile
	switch {
	case has(flags, "-E", "--eval"):
		c.printf("%s\n", strings.NewReplacer("%{rhel}", p.major(), "%rhel", p.major(), "%{fedora}", p.major(), "%fedora", p.major(), "%{_arch}", "x86_64").Replace(value(flags, "-E", "--eval")))
		return 0
	case has(flags, "--import"):
		for _, f := range args {
			b, err := c.read(f)
			if err != nil || len(keyIDs(b)) == 0 {
				return c.errRPM(fmt.Sprintf("error: %s: import read failed(2).", f))
			}
		}
		return 0
	case has(flags, "-q", "--query") && has(flags, "-a", "--all"):
		c.h.mu.Lock()
		var out []string
		for _, n := range sortedKeys(c.h.sys.packages) {
			out = append(out, fmt.Sprintf("%s-%s.x86_64", n, c.h.sys.packages[n].Version))
		}
		c.h.mu.Unlock()
		for _, l := range out {
			c.printf("%s\n", l)
		}
		return 0
	case has(flags, "-q", "--query"):
		missing := 0
		for _, n := range args {
			v := c.h.installed(n).Version
			if v == "" {
				c.printf("package %s is not installed\n", n)
				missing++
				continue
			}
			_, noEpoch, ok := strings.Cut(v, ":")
			if !ok {
				noEpoch = v
			}
			if form := value(flags, "--qf", "--queryformat"); form != "" {
				version, release, _ := strings.Cut(noEpoch, "-")
				c.printf("%s", strings.NewReplacer("%{NAME}", n, "%{VERSION}", version, "%{RELEASE}", release, "%{name}", n, "%{version}", version, "%{release}", release, `\n`, "\n").Replace(form))
				continue
			}
			c.printf("%s-%s.x86_64\n", n, noEpoch)
		}
		return missing
	}
	return c.errRPM("RPM version 4.16.1.3\nonly queries and --import")
}

func (c *call) errRPM(text string) int {
	c.errf("%s", text)
	return 1
}
