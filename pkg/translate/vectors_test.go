package translate_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

var scriptsDir = flag.String("scripts", "", "write every generated script to this folder, for shellcheck (TestScripts)")

// An installVector is one machine as people describe it, on a host as it is found, and what
// must be in the maps that make it a node, and what must not. The keys of must and
// mustNot are names of maps; NAME.files is what is in the bundles of one, which
// commands never show.
type installVector struct {
	name     string
	version  string
	on       translate.Facts
	role     string // init, control-plane or worker
	planes   int    // control plane machines in the cluster; default 1
	endpoint string
	pods     []string
	options  func(*capi.PlunderMachineSpec, *capi.PlunderClusterSpec)
	must     map[string][]string
	mustNot  map[string][]string
	refused  string // in the error, of the plan or of the first map
	planned  bool   // refused from the facts, not when the plan is made
}

// Planted secrets: they are in no command.
const (
	vectorPassword = "PlAnTeD-password"
	vectorHook     = "PlAnTeD-hook"
	vectorToken    = "plantedplantedpl"
)

var vectorKey = strings.Repeat("5ec1e7", 11)[:64]

// A host of each distribution, as the probe describes it.
func noble() translate.Facts    { return aptFacts("ubuntu", "24.04", "noble", 2) }
func bionic() translate.Facts   { return aptFacts("ubuntu", "18.04", "bionic", 1) }
func bookworm() translate.Facts { return aptFacts("debian", "12", "bookworm", 2) }
func trixie() translate.Facts   { return aptFacts("debian", "13", "trixie", 2) }
func rocky(version string, cgroup int) translate.Facts {
	return rpmFacts("rocky", version, "dnf", cgroup)
}
func rhel9() translate.Facts   { return rpmFacts("rhel", "9.4", "dnf", 2) }
func fedora() translate.Facts  { return rpmFacts("fedora", "42", "dnf", 2) }
func centos7() translate.Facts { return rpmFacts("centos", "7", "yum", 1) }
func otherOS(pm string) translate.Facts {
	f := aptFacts("other", "1", "-", 2)
	f.PackageManager = pm
	return f
}

func aptFacts(id, version, codename string, cgroup int) translate.Facts {
	return translate.Facts{ID: id, Version: version, Codename: codename, Arch: "x86_64", PackageManager: "apt-get", Systemd: true, Bash: true, Cgroup: cgroup, UID: 1000}
}

func rpmFacts(id, version, pm string, cgroup int) translate.Facts {
	return translate.Facts{ID: id, Version: version, Codename: "-", Arch: "x86_64", PackageManager: pm, Systemd: true, Bash: true, Cgroup: cgroup, UID: 1000}
}

func installVectors() []installVector {
	on := true
	aptMirror := &capi.PackageRepo{Apt: mirrorLine, Key: "https://mirror.example/kubernetes.key"}
	rpmMirror := &capi.PackageRepo{RPM: "https://mirror.example/el7/", Key: "https://mirror.example/kubernetes.key"}
	allowed := func(m *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) { m.AllowCgroupV1 = &on }
	m := func(key string, texts ...string) map[string][]string { return map[string][]string{key: texts} }
	return []installVector{
		{
			name: "1 noble, alone", version: "v1.34.1", on: noble(), role: "init",
			must: map[string][]string{
				"packages": {
					"https://pkgs.k8s.io/core:/stable:/v1.34/deb/ /", "set -- 'https://pkgs.k8s.io/core:/stable:/v1.37/deb/Release.key' ", `"kubelet=1.34.1-*"`, "containerd.io; apt-mark hold containerd.io",
					"[ \"$(printf '%s\\n' 1.6.0 ", "SystemdCgroup = true", "ufw disable",
				},
			},
			mustNot: map[string][]string{"packages": {"docker-ce", "sandbox_image", "getenforce", "kernel-modules-extra", "ipv6"}, "packages.files": {"root"}},
		},
		{
			name: "2 trixie, three control planes", version: "v1.36.4", on: trixie(), role: "init", planes: 3, endpoint: "10.0.0.9",
			options: func(_ *capi.PlunderMachineSpec, c *capi.PlunderClusterSpec) { c.CertSANs = []string{"api.x"} },
			must:    map[string][]string{"packages": {"[ \"$(printf '%s\\n' 2.0.0 ", "'https://pkgs.k8s.io/core:/stable:/v1.37/deb/Release.key' 'https://pkgs.k8s.io/core:/stable:/v1.36/deb/Release.key'"}},
		},
		{
			name: "3 rocky 9, another control plane", version: "v1.36.4", on: rocky("9.4", 2), role: "control-plane", planes: 3, endpoint: "10.0.0.9",
			must: map[string][]string{"packages": {
				"baseurl=%s", "'https://pkgs.k8s.io/core:/stable:/v1.36/rpm/'", "kubelet-1.36.4 kubeadm-1.36.4 kubectl-1.36.4 kubernetes-cni cri-tools", "linux/centos/docker-ce.repo", "Y install --allowerasing containerd.io",
				"setenforce 0", "kernel-modules-extra", "/v1.37/rpm/repodata/repomd.xml.key",
			}},
			mustNot: m("packages", "apt-mark", "/etc/apt", "vault.centos.org"),
		},
		{
			name: "4 rhel 9, worker", version: "v1.32.0", on: rhel9(), role: "worker",
			must: m("packages", "linux/rhel/docker-ce.repo", "exclude=kubelet kubeadm kubectl kubernetes-cni cri-tools"),
		},
		{
			name: "5 bookworm, an ended minor", version: "v1.27.16", on: bookworm(), role: "worker",
			must: m("packages", "set -- 'https://pkgs.k8s.io/core:/stable:/v1.37/deb/Release.key' 'https://pkgs.k8s.io/core:/stable:/v1.27/deb/Release.key'", "/v1.27/deb/ /"),
		},
		{
			name: "6 bionic, v1.14 from a mirror", version: "v1.14.2", on: bionic(), role: "init",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.Repo, p.DockerVersion = aptMirror, "18.06.1~ce~3-0~ubuntu"
			},
			must:    m("packages", mirrorLine, "set -- 'https://mirror.example/kubernetes.key'; for x", "'docker-ce=18.06.1~ce~3-0~ubuntu'; apt-mark hold docker-ce\n", `"kubelet=1.14.2-*"`, `"kubernetes-cni=0.7.5-*"`, "native.cgroupdriver=systemd"),
			mustNot: m("packages", "docker-ce-cli", "pkgs.k8s.io", "SystemdCgroup"),
		},
		{
			name: "7 bionic, v1.14 from nowhere", version: "v1.14.2", on: bionic(), role: "worker",
			refused: "v1.14.2: no public package repository serves it (oldest: v1.24.0): set spec.repo.apt or spec.repo.rpm with spec.repo.key",
		},
		{
			name: "8 bionic, another control plane of v1.14", version: "v1.14.2", on: bionic(), role: "control-plane", planes: 2, endpoint: "10.0.0.9",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) { p.Repo = aptMirror },
			must:    m("packages", "docker-ce docker-ce-cli containerd.io; apt-mark hold docker-ce docker-ce-cli containerd.io"),
		},
		{
			name: "9 centos 7", version: "v1.23.17", on: centos7(), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.Repo, p.DockerVersion = rpmMirror, "20.10.24"
			},
			must:    m("packages", "vault.centos.org", "Y install 'docker-ce-20.10.24' 'docker-ce-cli-20.10.24' containerd.io", "native.cgroupdriver=systemd", "'https://mirror.example/el7/'", "kubelet-1.23.17"),
			mustNot: m("packages", "--allowerasing", "SystemdCgroup", "0.7.5"),
		},
		{name: "10a rocky 8, cgroup v1", version: "v1.35.2", on: rocky("8.9", 1), role: "worker", refused: "v1.35.2 needs cgroup v2, the host (rocky 8.9) has v1", planned: true},
		{name: "10b rocky 8, cgroup v1 allowed", version: "v1.35.2", on: rocky("8.9", 1), role: "worker", options: allowed, must: m("packages", "kubelet-1.35.2")},
		{name: "11a apk", version: "v1.33.4", on: otherOS("apk"), role: "worker", refused: "set method: binaries", planned: true},
		{name: "11b booty made noble", version: "v1.33.4", on: noble(), role: "worker", must: m("packages", "/v1.33/deb/ /")},

		{
			name: "13 bookworm, its own containerd, its own firewall", version: "v1.35.1", on: bookworm(), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.RuntimeSource, p.Firewall = capi.SourceDistribution, capi.FirewallLeave
			},
			must:    m("packages", "A install --no-install-recommends --allow-change-held-packages containerd\n", `bin_dir = "/opt/cni/bin"`),
			mustNot: m("packages", "docker", "ufw", "hold containerd"),
		},
		{
			name: "14 noble on arm, binaries", version: "v1.34.1", on: withArch(noble(), "aarch64"), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.Method = capi.MethodBinaries
				p.Binaries = &capi.BinarySource{CNIPluginsURL: "https://mirror.example/cni-plugins-linux-arm64.tgz", SHA256: map[string]string{"kubelet": strings.Repeat("ab", 32), "cni-plugins": strings.Repeat("cd", 32)}}
			},
			must: map[string][]string{
				"packages": {
					"fetch 'https://dl.k8s.io/v1.34.1/bin/linux/arm64/kubelet' '" + strings.Repeat("ab", 32) + "' ", "fetch 'https://dl.k8s.io/v1.34.1/bin/linux/arm64/kubeadm' '' ",
					"fetch 'https://mirror.example/cni-plugins-linux-arm64.tgz' '" + strings.Repeat("cd", 32) + "' ", "containerd.io; apt-mark",
				},
				"packages.files": {"/etc/systemd/system/kubelet.service 0644 root", "ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS"},
			},
			mustNot: m("packages", "kubernetes.list", "pkgs.k8s.io"),
		},
		{name: "15a zypper", version: "v1.33.4", on: otherOS("zypper"), role: "worker", refused: "the host's package manager is zypper (other 1)", planned: true},
		{
			name: "15b zypper, binaries", version: "v1.33.4", on: otherOS("zypper"), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) { p.Method = capi.MethodBinaries },
			must:    m("packages", "there are no CNI plugins in /opt/cni/bin", "containerd is not on the host", "SystemdCgroup = true"),
			mustNot: m("packages", "A install", "Y install"),
		},
		{
			name: "16 rocky 9 behind mirrors and a proxy", version: "v1.34.1", on: rocky("9.4", 2), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.Repo, p.RuntimeMirror, p.ImageRepository = &capi.PackageRepo{Base: "https://mirror.example/k8s/"}, "https://mirror.example/docker/", "registry.example:5000/kubernetes"
				p.ContainerdVersion = "1.7.28-3.1.el9"
				p.Proxy = &capi.Proxy{HTTP: "http://me:" + vectorPassword + "@proxy.example:3128", HTTPS: "http://proxy.example:3128", NoProxy: []string{"mirror.example", "10.96.0.0/12"}}
			},
			must: map[string][]string{
				"packages": {
					"'https://mirror.example/k8s/v1.34/rpm/'", "set -- 'https://mirror.example/k8s/v1.37/rpm/repodata/repomd.xml.key' ", "get -o $R/docker-ce.repo 'https://mirror.example/docker'/linux/centos/docker-ce.repo",
					"'s|https://download.docker.com|''https://mirror.example/docker''|g'", "Y install --allowerasing 'containerd.io-1.7.28-3.1.el9'",
					"kubeadm config images list --kubernetes-version v1.34.1 --image-repository 'registry.example:5000/kubernetes'", "sandbox_image", "sha256sum <$E/proxy.env",
				},
				"packages.files": {
					"/etc/kubernetes/capplunder/proxy.env 0600 root", "http_proxy='http://me:" + vectorPassword + "@proxy.example:3128'\n", "HTTPS_PROXY='http://proxy.example:3128'\n",
					"NO_PROXY='localhost,127.0.0.1,::1,192.168.1.123,10.244.0.0/16,10.96.0.0/12,.svc,.cluster.local,mirror.example'\n",
					"/etc/systemd/system/containerd.service.d/capplunder-proxy.conf 0644 root\n[Service]\nEnvironmentFile=/etc/kubernetes/capplunder/proxy.env\n",
				},
			},
			mustNot: m("packages", "pkgs.k8s.io", "proxy.example"),
		},
		{
			name: "17 an image with everything", version: "v1.34.1", on: otherOS("zypper"), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) { p.SkipInstall = &on },
			must:    m("packages", "is not on the image, and skipInstall is set", `= v1.34.1 ]`, "net.ipv4.ip_forward", "kube.check#job"),
			mustNot: m("packages", "base#job", "runtime#job", "kube.repo#job", "runtime.config#job"),
		},
		{
			name: "18 a minor that is not known yet", version: "v1.39.2", on: noble(), role: "worker",
			must:    m("packages", "/v1.39/deb/ /", "set -- 'https://pkgs.k8s.io/core:/stable:/v1.39/deb/Release.key'; for x", "2.0.0"),
			mustNot: m("packages", "v1.37"),
		},
		{
			name: "19 containerd before its time", version: "v1.22.5", on: noble(), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.Runtime, p.ContainerdVersion, p.Repo = capi.RuntimeContainerd, "1.7", &capi.PackageRepo{Apt: "deb [arch=amd64] https://mirror.example/kubernetes kubernetes-xenial main", Key: "https://mirror.example/kubernetes.key"}
			},
			must:    m("packages", "'containerd.io=1.7.*'", "SystemdCgroup = true", "[signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg arch=amd64] https://mirror.example/kubernetes"),
			mustNot: m("packages", "docker-ce", "daemon.json"),
		},
		{
			name: "20 rocky 8, a docker that is written for apt", version: "v1.21.14", on: rocky("8.9", 1), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.Repo, p.DockerVersion = rpmMirror, "5:20.10.24~3-0~ubuntu-focal"
			},
			must: m("packages", "Y install --allowerasing 'docker-ce-20.10.24' 'docker-ce-cli-20.10.24' containerd.io", "daemon.json"),
		},
		{
			name: "21a rhel 9 has no containerd", version: "v1.34.1", on: rhel9(), role: "worker", refused: "rhel 9.4 has no containerd in its own repositories", planned: true,
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.RuntimeSource = capi.SourceDistribution
			},
		},
		{
			name: "21b fedora has one", version: "v1.34.1", on: fedora(), role: "worker",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.RuntimeSource = capi.SourceDistribution
			},
			must: m("packages", "Y install containerd\n"), mustNot: m("packages", "docker"),
		},
		{
			name: "22 trixie, hooks, a fixed containerd", version: "v1.36.4", on: trixie(), role: "init",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.Hooks, p.ContainerdVersion = &capi.Hooks{Before: "echo " + vectorHook, After: "echo after " + vectorHook}, "2.2.1"
			},
			must: map[string][]string{
				"packages":       {"'containerd.io=2.2.1-*'", "px timeout 1800 sh $h >$l 2>&1 9>&-", "hook-before.done"},
				"packages.files": {"/run/capplunder/hook-before 0700 root\necho " + vectorHook},
			},
			mustNot: m("packages.files", "echo after"),
		},
		{
			name: "23 v1.13, three control planes with keys of ours", version: "v1.13.12", on: bionic(), role: "control-plane", planes: 3, endpoint: "10.0.0.9",
			options: func(p *capi.PlunderMachineSpec, c *capi.PlunderClusterSpec) {
				p.Repo, p.DockerVersion, p.DockerCodename, c.PKI = aptMirror, "18.06.3", "xenial", capi.PKITool
			},
			must: m("packages", "'docker-ce=18.06.3~ce*'", "c='xenial'; c=${c:-", `"kubernetes-cni=0.7.5-*"`),
		},
		{name: "24a v1.18 on cgroup v2", version: "v1.18.20", on: noble(), role: "worker", refused: "v1.18.20 needs cgroup v1, the host (ubuntu 24.04) has v2", planned: true,
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) { p.Repo = aptMirror }},
		{
			name: "24b dual stack", version: "v1.34.1", on: noble(), role: "worker", pods: []string{"10.244.0.0/16", "fd00:244::/56"},
			must: m("packages", "net.ipv6.conf.all.forwarding = 1"),
		},
		{
			name: "25 only a mirror for apt, on rocky", version: "v1.34.1", on: rocky("9.4", 2), role: "worker", refused: "only repo.apt is given: set repo.rpm too", planned: true,
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) { p.Repo = aptMirror },
		},
		{
			name: "26 a password in a mirror's address", version: "v1.34.1", on: noble(), role: "worker", refused: "PlunderMachine default/w: spec.repo.base: ",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) {
				p.Repo = &capi.PackageRepo{Base: "https://me:" + vectorPassword + "@mirror.example/k8s"}
			},
		},
		{
			name: "27 three control planes without an endpoint", version: "v1.34.1", on: noble(), role: "init", planes: 3, refused: "spec.controlPlaneEndpoint: it is needed for 3 control plane Machines",
		},
		{
			name: "28 docker from v1.24 on", version: "v1.24.0", on: noble(), role: "worker", refused: "kubelet cannot use docker from v1.24 on",
			options: func(p *capi.PlunderMachineSpec, _ *capi.PlunderClusterSpec) { p.Runtime = capi.RuntimeDocker },
		},
	}
}

func withArch(f translate.Facts, arch string) translate.Facts {
	f.Arch = arch
	return f
}

// plan is the plan of the vector's machine, in a cluster like the one described.
func (v *installVector) plan() (*translate.MachinePlan, error) {
	c := &capi.Cluster{Key: capi.Key{Namespace: "default", Name: "c"}, PodCIDRs: v.pods, Infra: &capi.PlunderCluster{Key: capi.Key{Namespace: "default", Name: "c"}}}
	if v.endpoint != "" {
		c.Endpoint = capi.Endpoint{Host: v.endpoint, Port: 6443}
	}
	for i := range max(1, v.planes) {
		c.Machines = append(c.Machines, machine(fmt.Sprintf("cp%d", i+1), v.version, true))
	}
	if v.role == "worker" {
		c.Machines = append(c.Machines, machine("w", v.version, false))
	}
	for i, m := range c.Machines {
		m.Cluster = c
		m.Infra.Spec.IPAddress = fmt.Sprintf("192.168.1.%d", 123+i)
		if v.options != nil {
			v.options(&m.Infra.Spec, &c.Infra.Spec)
		}
	}
	plan, err := translate.NewPlan(&capi.Set{Clusters: []*capi.Cluster{c}, Machines: c.Machines}, translate.Options{})
	if err != nil {
		return nil, err
	}
	want := map[string]string{"init": "cp1", "control-plane": "cp2", "worker": "w"}[v.role]
	for _, mp := range plan.Machines {
		if mp.Machine.Name == want {
			return mp, nil
		}
	}
	return nil, fmt.Errorf("no machine %s", want)
}

// maps are the maps that make the machine a node, by name.
func (v *installVector) maps(mp *translate.MachinePlan) (map[string]wire.Map, error) {
	in, k := harmless(), mp.Kubernetes
	t, tok := in.target(), translate.Token{ID: "abcdef", Secret: vectorToken, For: "w-x7f3q"}
	var key translate.Secret
	var pki capi.PKI
	switch {
	case k.PKI == capi.PKITool:
		pki = capi.PKI{}
		for _, id := range []string{capi.PKICluster, capi.PKIEtcd, capi.PKIFrontProxy, capi.PKIServiceAccount} {
			pki[id] = capi.KeyPair{Cert: []byte("public"), Key: []byte(vectorPassword)}
		}
	case k.HA && k.ControlPlane:
		key = translate.Secret(vectorKey)
	}
	endpoint := k.Endpoint
	if endpoint.IsZero() {
		endpoint = capi.Endpoint{Host: in.Address, Port: 6443}
	}
	out := map[string]wire.Map{}
	var err error
	if out["packages"], err = translate.Packages("job", t, k, v.on); err != nil {
		return nil, err
	}
	if v.role == "init" {
		out["init"], err = translate.Init("job", t, k, v.on, translate.InitInput{Token: tok, CertKey: key, PKI: pki})
		return out, err
	}
	w := translate.Work{Tokens: []translate.Token{tok}, Expires: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), CertKey: key}
	if out["work"], err = translate.ControlPlaneWork("job", t, k, w); err != nil {
		return nil, err
	}
	out["join"], err = translate.Join("job", t, k, v.on, translate.JoinInput{Token: tok, CertKey: key, PKI: pki, Endpoint: endpoint, CAHash: harmlessHash})
	return out, err
}

// texts are what a vector's expectations are about: scripts by the name of their map,
// and the files of its bundles under NAME.files.
func texts(t *testing.T, list map[string]wire.Map) map[string]string {
	t.Helper()
	out := map[string]string{}
	for kind, m := range list {
		var scripts, files strings.Builder
		for _, a := range m.Deployments[0].Actions {
			_, text := script(t, a)
			scripts.WriteString(a.Name + "\n" + text + "\n")
		}
		for name, text := range bundled(t, m) {
			files.WriteString(name + "\n" + text + "\n")
		}
		out[kind], out[kind+".files"] = scripts.String(), files.String()
	}
	return out
}

func TestVectors(t *testing.T) {
	in := harmless()
	for _, v := range installVectors() {
		t.Run(v.name, func(t *testing.T) {
			mp, err := v.plan()
			if v.refused != "" && !v.planned {
				if err == nil || !strings.Contains(err.Error(), v.refused) || strings.Contains(err.Error(), vectorPassword) {
					t.Errorf("the plan: %v, want %q", err, v.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			list, err := v.maps(mp)
			if v.refused != "" {
				if err == nil || !strings.Contains(err.Error(), v.refused) {
					t.Errorf("got %v, want %q", err, v.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for kind, m := range list {
				checkMap(t, kind, m, in)
				for _, a := range m.Deployments[0].Actions {
					for _, secret := range []string{vectorPassword, vectorHook, vectorToken, vectorKey} {
						if strings.Contains(a.Command, secret) {
							t.Errorf("%s has %s in its command", a.Name, secret)
						}
					}
				}
			}
			text := texts(t, list)
			for _, kind := range slices.Sorted(maps.Keys(v.must)) {
				for _, want := range v.must[kind] {
					if !strings.Contains(text[kind], want) {
						t.Errorf("%s: %q is missing in\n%s", kind, want, text[kind])
					}
				}
			}
			for _, kind := range slices.Sorted(maps.Keys(v.mustNot)) {
				for _, never := range v.mustNot[kind] {
					if strings.Contains(text[kind], never) {
						t.Errorf("%s: %q must not be in\n%s", kind, never, text[kind])
					}
				}
			}
		})
	}
}

// testScripts are all scripts of all vectors, by a name that ends in .sh or .bash; the
// same text comes once.
func testScripts(t *testing.T) map[string]string {
	t.Helper()
	out, seen := map[string]string{}, map[string]bool{}
	add := func(name string, m wire.Map) {
		for _, a := range m.Deployments[0].Actions {
			shell, text := script(t, a)
			task, _, _ := strings.Cut(a.Name, "#")
			if !seen[shell+text] {
				seen[shell+text] = true
				out[strings.NewReplacer(" ", "-", ",", "", "/", "-").Replace(name+"."+task)+"."+shell] = text
			}
		}
	}
	for _, v := range installVectors() {
		if v.refused != "" {
			continue
		}
		mp, err := v.plan()
		if err != nil {
			t.Fatal(err)
		}
		list, err := v.maps(mp)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range slices.Sorted(maps.Keys(list)) {
			add(v.name+"."+kind, list[kind])
		}
	}
	for name, in := range vectors() {
		list, errs := in.maps()
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		for _, kind := range slices.Sorted(maps.Keys(list)) {
			add(name+"."+kind, list[kind])
		}
	}
	list := kubeadmMaps(t)
	for _, name := range slices.Sorted(maps.Keys(list)) {
		add(name, list[name])
	}
	return out
}

// TestScripts has the shells themselves read every script. With -scripts DIR they are
// written there, for shellcheck.
func TestScripts(t *testing.T) {
	dir := *scriptsDir
	if dir == "" {
		dir = t.TempDir()
	}
	byShell := map[string][]string{}
	scripts := testScripts(t)
	for _, name := range slices.Sorted(maps.Keys(scripts)) {
		shell := strings.TrimPrefix(filepath.Ext(name), ".")
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/"+shell+"\n"+scripts[name]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		byShell[shell] = append(byShell[shell], path)
	}
	if len(byShell["bash"]) < 50 || len(byShell["sh"]) < 3 {
		t.Errorf("only %d scripts for bash, %d for sh", len(byShell["bash"]), len(byShell["sh"]))
	}
	for shell, files := range byShell {
		for _, f := range files {
			if out, err := exec.CommandContext(t.Context(), shell, "-n", f).CombinedOutput(); err != nil {
				t.Errorf("%s -n: %v: %s", shell, err, out)
			}
		}
	}
}
