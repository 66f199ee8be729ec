package translate_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// installation is everything that reaches the maps of an installation from outside,
// with every option set to something.
type installation struct {
	k      translate.Kubernetes
	f      translate.Facts
	t      translate.Target
	digest string // of kubelet, with method: binaries
}

// installationBases are the ways in which scripts differ for all that is in them.
const installationBases = 6

func newInstallation(base, minor int) *installation {
	in := harmless()
	i := &installation{t: in.target(), f: noble(), digest: strings.Repeat("ab", 32)}
	i.k = translate.Kubernetes{
		Version: fmt.Sprintf("1.%d.2", minor), Minor: minor, ControlPlane: base%2 == 0, HA: true, Cluster: "c1", PodCIDR: "10.244.0.0/16", ServiceCIDR: "10.96.0.0/12", Domain: "cluster.local",
		Endpoint: capi.Endpoint{Host: "10.0.0.9", Port: 6443},
	}
	k := &i.k
	k.RuntimeMirror, k.DockerCodename, k.ImageRepository, k.Firewall = "https://mirror.example/docker", "bionic", "registry.example/k8s", capi.FirewallDisable
	k.Proxy = &capi.Proxy{HTTP: "http://me:secret@proxy.example:3128", HTTPS: "http://proxy.example:3128", NoProxy: []string{"mirror.example"}}
	k.Hooks = &capi.Hooks{Before: "echo before", After: "echo after"}
	k.CertSANs, k.CNI, k.VIP = []string{"api.example"}, &capi.CNI{URL: "https://mirror.example/cni.yaml", SHA256: strings.Repeat("cd", 32)}, &capi.VIP{Image: "registry.example/kube-vip:v1.0.0", Interface: "eth0"}
	k.PKI, k.KubeconfigTransport = capi.PKIKubeadm, capi.KubeconfigSealed
	k.Repo = &capi.PackageRepo{Apt: mirrorLine, RPM: "https://mirror.example/el9/", Key: "https://mirror.example/key"}
	k.DockerVersion, k.ContainerdVersion = "20.10.24", "2.2.1"
	k.Binaries = &capi.BinarySource{URL: "https://mirror.example/dl", CNIPluginsURL: "https://mirror.example/cni.tgz"}
	switch base {
	case 1: // dnf
		i.f = rocky("9.4", 2)
	case 2: // binaries
		k.Method = capi.MethodBinaries
	case 3: // binaries without a package manager
		k.Method, i.f = capi.MethodBinaries, otherOS("none")
	case 4: // the mirror of all repositories
		k.Repo = &capi.PackageRepo{Base: "https://mirror.example/k8s"}
	case 5: // yum
		i.f = centos7()
		k.Repo.Base, k.Repo.RPM, k.Repo.Apt = "https://mirror.example/k8s", "", ""
	}
	if i.f.Cgroup = 2; minor < 19 {
		i.f.Cgroup = 1
	}
	return i
}

// field is a text from outside, and other harmless values that it may have.
type field struct {
	name     string
	text     *string
	variants []string
}

func (i *installation) fields() []field {
	k, f, t := &i.k, &i.f, &i.t
	versions := []string{"", "2", "2.2", "2.2.1", "2.2.1-1", "18.06", "18.06.3", "18.06.1~ce~3-0~ubuntu", "20.10", "27.5.1", "5:20.10.24~3-0~ubuntu-focal", "18.06.3.ce-3.el7", "3:20.10.24-3.el9", "a"}
	urls := []string{"", "https://a.example/b?c=d"}
	return []field{
		{"host name", &t.HostName, nil}, {"address", &t.Address, nil}, {"MAC", &t.Guard.MAC, nil}, {"boot ID", &t.Guard.BootID, []string{""}},
		{"distribution", &f.ID, []string{"centos", "fedora", "rhel", "debian", "ubuntu"}}, {"release", &f.Version, []string{"7", "8.5", "9"}}, {"code name", &f.Codename, nil},
		{"package manager", &f.PackageManager, []string{"apt-get", "dnf", "yum", "none"}}, {"architecture", &f.Arch, []string{"aarch64", "s390x"}},
		{"version", &k.Version, nil}, {"cluster", &k.Cluster, nil}, {"pods", &k.PodCIDR, []string{"fd00::/48", "10.0.0.0/8,fd00::/48"}}, {"services", &k.ServiceCIDR, nil}, {"domain", &k.Domain, nil},
		{"endpoint", &k.Endpoint.Host, []string{"", "api.example"}},
		{"method", &k.Method, []string{"", "packages", "binaries"}}, {"runtime", &k.Runtime, []string{"containerd", "docker"}}, {"runtimeSource", &k.RuntimeSource, []string{"docker", "distribution"}},
		{"runtimeMirror", &k.RuntimeMirror, urls}, {"dockerVersion", &k.DockerVersion, versions}, {"dockerCodename", &k.DockerCodename, []string{""}}, {"containerdVersion", &k.ContainerdVersion, versions},
		{"imageRepository", &k.ImageRepository, []string{""}}, {"firewall", &k.Firewall, []string{"leave", ""}},
		{"repo.base", &k.Repo.Base, urls}, {"repo.apt", &k.Repo.Apt, []string{"", "deb https://a.example/ /", "deb [arch=amd64] https://a.example/ x main"}}, {"repo.rpm", &k.Repo.RPM, urls}, {"repo.key", &k.Repo.Key, urls},
		{"binaries.url", &k.Binaries.URL, urls}, {"binaries.cniPluginsURL", &k.Binaries.CNIPluginsURL, urls}, {"binaries.sha256", &i.digest, []string{""}},
		{"proxy.http", &k.Proxy.HTTP, urls}, {"proxy.https", &k.Proxy.HTTPS, urls}, {"proxy.noProxy", &k.Proxy.NoProxy[0], nil},
		{"hooks.before", &k.Hooks.Before, []string{""}}, {"hooks.after", &k.Hooks.After, []string{""}},
		{"certSANs", &k.CertSANs[0], nil}, {"cni.url", &k.CNI.URL, urls}, {"cni.sha256", &k.CNI.SHA256, []string{""}}, {"cni.manifest", &k.CNI.Manifest, nil},
		{"vip.image", &k.VIP.Image, []string{""}}, {"vip.interface", &k.VIP.Interface, []string{""}}, {"pki", &k.PKI, []string{""}}, {"kubeconfigTransport", &k.KubeconfigTransport, []string{"plain"}},
	}
}

// secret reports whether a field's value must be in no command.
func (f field) secret() bool {
	return strings.HasPrefix(f.name, "hooks.") || f.name == "proxy.http" || f.name == "proxy.https"
}

// maps are the maps that can be made; a map that is refused is missing.
func (i *installation) maps() map[string]wire.Map {
	i.k.Binaries.SHA256 = map[string]string{"kubelet": i.digest}
	tok, key := translate.Token{ID: "abcdef", Secret: "0123456789abcdef", For: "w-x7f3q"}, translate.Secret("")
	if i.k.ControlPlane && i.k.Minor > 13 {
		key = translate.Secret(vectorKey)
	}
	out := map[string]wire.Map{}
	add := func(name string, m wire.Map, err error) {
		if err == nil {
			out[name] = m
		}
	}
	m, err := translate.Packages("job", i.t, &i.k, i.f)
	add("packages", m, err)
	if i.k.ControlPlane {
		m, err = translate.Init("job", i.t, &i.k, i.f, translate.InitInput{Token: tok, CertKey: key})
		add("init", m, err)
	}
	m, err = translate.Join("job", i.t, &i.k, i.f, translate.JoinInput{Token: tok, CertKey: key, Endpoint: capi.Endpoint{Host: "10.0.0.9", Port: 6443}, CAHash: harmlessHash})
	add("join", m, err)
	m, err = translate.ControlPlaneWork("job", i.t, &i.k, translate.Work{Tokens: []translate.Token{tok}, CertKey: key, Expires: time.Unix(0, 0)})
	add("work", m, err)
	return out
}

// commands are those of all maps by the map's and the action's name.
func (i *installation) commands() map[string]string {
	out := map[string]string{}
	for name, m := range i.maps() {
		for _, a := range m.Deployments[0].Actions {
			out[name+" "+a.Name] = a.Command
		}
	}
	return out
}

// harmlessShapes are the structures that scripts have for all harmless values of a field.
func harmlessShapes(tb testing.TB, base, minor, n int) map[string]bool {
	tb.Helper()
	out := map[string]bool{}
	values := append([]string{*newInstallation(base, minor).fields()[n].text}, newInstallation(base, minor).fields()[n].variants...)
	seen := map[string]bool{}
	for _, v := range values {
		i := newInstallation(base, minor)
		*i.fields()[n].text = v
		for name, command := range i.commands() {
			if strings.Contains(name, "bundle") || seen[name+command] { // how much there is to bring is not the point
				continue
			}
			seen[name+command] = true
			_, text := script(tb, wire.Action{Name: name, Command: command})
			out[name+shape(tb, text)] = true
		}
	}
	return out
}

var envLine = regexp.MustCompile(`^[A-Za-z_]+='[^'\\\n]*'$`)

// TestInstallations: the fuzzer starts from installations that can be done.
func TestInstallations(t *testing.T) {
	for base := range installationBases {
		for _, minor := range []int{14, 18, 22, 24, 30, 34, 39} {
			i := newInstallation(base, minor)
			got := strings.Join(slices.Sorted(maps.Keys(i.maps())), " ")
			want := "join packages work"
			if i.k.ControlPlane {
				want = "init join packages work"
			}
			if got != want {
				_, err := translate.Packages("job", i.t, &i.k, i.f)
				t.Errorf("base %d, minor %d: %s (%v)", base, minor, got, err)
			}
		}
	}
}

// FuzzInstall: whatever is written in any option, or a host says of itself, a map is
// refused or has the structure that it has for harmless values, with the value as data.
func FuzzInstall(f *testing.F) {
	evil := []string{
		"$(touch /canary)", "`touch /canary`", "'; touch /canary; '", `"; touch /canary; "`, "a\ntouch /canary", "a b|c&d", "*{a,~}", "x'\"`id`\\", "-rf /", "--help", "a\x00b", "\\", "'", "${IFS}x",
		"https://mirror.example/$(touch /canary)", "https://mirror.example/';touch /canary;'", "https://mirror.example/a|b&c", "https://mirror.example/a\nb", "https://a/#x", "https://[::1]/",
		"deb [signed-by=/x] https://a.example/ ';touch /canary;' main", "deb [a]b] https://a.example/ x", "1.2.3;touch /canary", "2.2.1-1'", "http://u:p'$(id)@h:1", "http://u:p%27@h:1", "1.34.1\n", "é", "../../etc/passwd",
		"10.0.0.0/8 x", "fd00::/48", "registry.example/a//b", "registry.example/{{VERSION}}", "{{NODE}}", "https://mirror.example/{{KEYS}}",
	}
	fields := newInstallation(0, 34).fields()
	for n := range fields {
		for j, e := range evil {
			if (n+j)%5 != 0 { // the rest is for the fuzzer
				continue
			}
			f.Add(n, e, (n+j)%installationBases, 14+(n*7+j*5)%26)
		}
		for j, v := range fields[n].variants {
			f.Add(n, v, j%installationBases, 13+(n+j*3)%27)
		}
	}
	known, harmlessOnes := map[[3]int]map[string]bool{}, map[[2]int]map[string]string{}
	f.Fuzz(func(t *testing.T, n int, value string, base, minor int) {
		n, base, minor = int(uint(n)%uint(len(fields))), int(uint(base)%installationBases), 13+int(uint(minor)%28)
		plain := harmlessOnes[[2]int{base, minor}]
		if plain == nil {
			plain = newInstallation(base, minor).commands()
			harmlessOnes[[2]int{base, minor}] = plain
		}
		i := newInstallation(base, minor)
		target := i.fields()[n]
		*target.text = value
		list := i.maps()
		for _, kind := range slices.Sorted(maps.Keys(list)) {
			m, same := list[kind], true
			for _, a := range m.Deployments[0].Actions {
				name := kind + " " + a.Name
				if plain[name] == a.Command {
					continue // what is to be read takes the time
				}
				same = false
				_, text := script(t, a)
				if target.secret() && len(value) > 20 && strings.Contains(text, value) {
					t.Errorf("%s: the value of %s is in the command", name, target.name)
				}
				if strings.Contains(name, "bundle") {
					continue
				}
				id := [3]int{base, minor, n}
				if known[id] == nil {
					known[id] = harmlessShapes(t, base, minor, n)
				}
				if !known[id][name+shape(t, text)] {
					t.Errorf("%s: with %s = %q it has another structure:\n%s", name, target.name, value, text)
				}
			}
			if same {
				continue
			}
			checkMap(t, kind, m, harmless())
			for file, text := range bundled(t, m) {
				if strings.Contains(file, "proxy.env") {
					for line := range strings.Lines(text) {
						if !envLine.MatchString(strings.TrimSuffix(line, "\n")) {
							t.Errorf("a line of %s: %q", file, line)
						}
					}
				}
			}
		}
	})
}
