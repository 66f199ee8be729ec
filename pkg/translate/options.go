package translate

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// The forms of what people write and scripts contain. They are narrow on purpose: what
// fits none of them is refused, and what fits is quoted nevertheless.
var (
	versionForm     = regexp.MustCompile(`^1\.[0-9]{1,3}\.[0-9]{1,3}(-[a-z0-9.]{1,32})?$`)
	packageForm     = regexp.MustCompile(`^[0-9][0-9A-Za-z.:~+-]{0,63}$`)
	codenameForm    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	aptLineForm     = regexp.MustCompile(`^deb (\[[A-Za-z0-9=/_. ,-]+\] )?https?://[A-Za-z0-9._~:/@%+-]+ [A-Za-z0-9._/-]+( [A-Za-z0-9._/-]+)*$`)
	urlForm         = regexp.MustCompile(`^https?://[A-Za-z0-9._~:/@%+?=&-]+$`)
	baseForm        = regexp.MustCompile(`^https?://[A-Za-z0-9._~:/%+-]+$`)
	credentialsForm = regexp.MustCompile(`://[^/ ]*@`)
	repositoryForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*$`)
	digestForm      = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// proxyForm has a percent-encoded user and password, so that it is the same text to a
	// shell and to systemd.
	proxyForm   = regexp.MustCompile(`^https?://([A-Za-z0-9._~!*+,;=&%-]+(:[A-Za-z0-9._~!*+,;=&%-]*)?@)?[A-Za-z0-9._-]+(:[0-9]{1,5})?/?$`)
	noProxyForm = regexp.MustCompile(`^[A-Za-z0-9.*:/_-]{1,255}$`)
	domainForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// optionProblem is something wrong with an option, by the name of its field.
type optionProblem struct{ field, message string }

// Error implements error.
func (p optionProblem) Error() string { return p.field + ": " + p.message }

// optionProblems are what is wrong with the options of an installation, whatever the
// host: all at once, for the plan, and before any of them becomes part of a script.
func (k *Kubernetes) optionProblems() []optionProblem {
	var out []optionProblem
	bad := func(field, format string, args ...any) {
		out = append(out, optionProblem{field, fmt.Sprintf(format, args...)})
	}
	one := func(field, value string, allowed ...string) {
		if value != "" && !slices.Contains(allowed, value) {
			bad(field, "%q is not one of %s", value, strings.Join(allowed, ", "))
		}
	}
	match := func(field, value, like string, form *regexp.Regexp) {
		switch {
		case value == "":
		case credentialsForm.MatchString(value):
			bad(field, "it has a user or password in it, which everybody on the machine would see; name one that needs none")
		case !form.MatchString(value):
			bad(field, "%q is not %s", value, like)
		}
	}

	one("method", k.Method, capi.MethodPackages, capi.MethodBinaries)
	one("runtime", k.Runtime, capi.RuntimeContainerd, capi.RuntimeDocker)
	one("runtimeSource", k.RuntimeSource, capi.SourceDocker, capi.SourceDistribution)
	one("firewall", k.Firewall, capi.FirewallDisable, capi.FirewallLeave)

	const url, base = "an http or https URL", "an http or https URL without a query"
	if r := k.Repo; r != nil {
		match("repo.base", r.Base, base, baseForm)
		match("repo.apt", r.Apt, "a sources.list line like deb https://mirror.example/kubernetes kubernetes-xenial main", aptLineForm)
		match("repo.rpm", r.RPM, url, urlForm)
		match("repo.key", r.Key, url, urlForm)
		if r.Base != "" && r.Apt+r.RPM != "" {
			bad("repo", "base and apt or rpm cannot both be given: base is a mirror with a repository for each minor, apt and rpm are one repository")
		}
		if r.Key == "" && (r.RPM != "" || r.Apt != "" && !trusted(r.Apt)) {
			bad("repo.key", "it is needed with apt and rpm: the URL of the key that signs the repository")
		}
	}
	if s := k.Binaries; s != nil {
		match("binaries.url", s.URL, base, baseForm)
		match("binaries.cniPluginsURL", s.CNIPluginsURL, url, urlForm)
		names := append(binaryNames(), cniPlugins)
		for _, name := range slices.Sorted(maps.Keys(s.SHA256)) {
			if !slices.Contains(names, name) {
				bad("binaries.sha256", "%q is not one of %s", name, strings.Join(names, ", "))
			} else if !digestForm.MatchString(s.SHA256[name]) {
				bad("binaries.sha256", "the digest of %s is not 64 lower-case hex digits", name)
			}
		}
	}
	match("runtimeMirror", k.RuntimeMirror, base, baseForm)
	match("dockerVersion", k.DockerVersion, "a version like 20.10.24 or of a whole package", packageForm)
	match("dockerCodename", k.DockerCodename, "the name of a release like bionic", codenameForm)
	match("containerdVersion", k.ContainerdVersion, "a version like 2.2 or of a whole package", packageForm)
	match("imageRepository", k.ImageRepository, "a registry and path like registry.example:5000/kubernetes", repositoryForm)

	if k.Runtime == capi.RuntimeDocker && k.Minor >= dockerEnd {
		bad("runtime", "kubelet cannot use docker from v1.%d on: leave it out, or set containerd", dockerEnd)
	}
	if k.RuntimeSource == capi.SourceDistribution {
		if k.docker() {
			bad("runtimeSource", "distribution is for containerd: set runtime: containerd too, or leave it out")
		}
		if k.ContainerdVersion != "" {
			bad("containerdVersion", "it chooses among Docker's packages, and runtimeSource is distribution: leave one of them out")
		}
	}
	if p := k.Proxy; p != nil {
		for _, u := range []struct{ field, value string }{{"proxy.http", p.HTTP}, {"proxy.https", p.HTTPS}} {
			if u.value != "" && !proxyForm.MatchString(u.value) {
				bad(u.field, "it is not of the form http://[user:password@]host:port, with other characters than letters and digits percent-encoded in user and password")
			}
		}
		for i, n := range p.NoProxy {
			if !noProxyForm.MatchString(n) {
				bad(fmt.Sprintf("proxy.noProxy[%d]", i), "%q is not a host, domain, address or CIDR", n)
			}
		}
	}
	return out
}

// trusted reports whether a sources.list line wants no key.
func trusted(line string) bool {
	options, _, ok := strings.Cut(line, "] ")
	return ok && slices.Contains(strings.Fields(strings.TrimPrefix(options, "deb [")), "trusted=yes")
}
