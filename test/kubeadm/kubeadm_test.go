package kubeadm_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/cloudconfig"
	"github.com/plunder-app/capplunder/pkg/pki"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
	"github.com/plunder-app/capplunder/test/kubeadm"
)

// The minors that configurations are written for, one that nobody knows yet included.
const oldest, newest = 13, 38

const (
	caHash  = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	certKey = translate.Secret("fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210")
)

// site is a cluster as its options make it.
type site struct {
	name  string
	from  int // the first minor that can have it
	alter func(k *translate.Kubernetes)
}

func sites() []site {
	ha := func(k *translate.Kubernetes) {
		k.HA, k.Endpoint = true, capi.Endpoint{Host: "10.0.0.9", Port: 8443}
	}
	return []site{
		{"single", oldest, func(k *translate.Kubernetes) { k.Single = true }},
		{"workers", oldest, func(*translate.Kubernetes) {}},
		{"ha", 14, ha},
		{"ha-pki", oldest, func(k *translate.Kubernetes) { ha(k); k.PKI = capi.PKITool }},
		{"vip", 14, func(k *translate.Kubernetes) { ha(k); k.VIP = &capi.VIP{} }},
		{"name", oldest, func(k *translate.Kubernetes) {
			k.Endpoint = capi.Endpoint{Host: "api.example.com", Port: 6443}
			k.CertSANs = []string{"api.example.org", "*.example.org", "10.1.1.1", "fd00::1"}
			k.ImageRepository = "mirror.example:5000/kubernetes"
		}},
		{"containerd", oldest, func(k *translate.Kubernetes) { k.Runtime = capi.RuntimeContainerd }},
		{"dual-stack", 21, func(k *translate.Kubernetes) {
			k.PodCIDR, k.ServiceCIDR = "10.244.0.0/16,fd00:10::/56", "10.96.0.0/12,fd00:96::/112"
		}},
		{"cgroup1", oldest, func(k *translate.Kubernetes) { yes := true; k.AllowCgroupV1 = &yes }},
		{"patches", oldest, func(k *translate.Kubernetes) {
			var args any = map[string]any{"bind-address": "0.0.0.0"}
			if k.Minor >= 31 {
				args = []any{map[string]any{"name": "bind-address", "value": "0.0.0.0"}}
			}
			k.KubeadmPatches = []map[string]any{
				{"kind": "ClusterConfiguration", "scheduler": map[string]any{"extraArgs": args}},
				{"kind": "KubeletConfiguration", "maxPods": 200},
				{"kind": "KubeProxyConfiguration", "mode": "ipvs"},
			}
		}},
	}
}

// siteMaps are the maps of a site that have to do with kubeadm.
func siteMaps(t *testing.T, minor int, s site, keys capi.PKI) map[string]wire.Map {
	t.Helper()
	k := translate.Kubernetes{
		Version: fmt.Sprintf("1.%d.3", minor), Minor: minor, Cluster: "cluster-plunder", Domain: "cluster.local",
		PodCIDR: capi.DefaultPodCIDR, ServiceCIDR: capi.DefaultServiceCIDR, ControlPlane: true,
	}
	if minor < 24 {
		k.Repo = &capi.PackageRepo{Apt: "deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] https://mirror.example/kubernetes kubernetes-xenial main", Key: "https://mirror.example/key"}
	}
	s.alter(&k)
	facts := translate.Facts{ID: "ubuntu", Codename: "noble", Arch: "x86_64", PackageManager: "apt-get", Systemd: true, Bash: true, Cgroup: 2, UID: 1000}
	if minor < 19 || k.AllowCgroupV1 != nil {
		facts.Cgroup = 1
	}
	target := translate.Target{Address: "192.168.1.123", HostName: "cp-abcde", Guard: translate.Guard{MAC: "00:50:56:a5:11:20"}}
	token := translate.Token{ID: "abcdef", Secret: "0123456789abcdef", For: "w-x7f3q"}
	init := translate.InitInput{Token: token}
	join := translate.JoinInput{Token: token, Endpoint: capi.Endpoint{Host: "10.0.0.9", Port: 6443}, CAHash: caHash}
	work := translate.Work{Tokens: []translate.Token{token}, Expires: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	switch {
	case k.PKI == capi.PKITool:
		init.PKI, join.PKI = keys, keys
	case k.HA:
		join.CertKey, work.CertKey = certKey, certKey
		if minor > 14 { // kubeadm v1.14 is told by a flag, afterwards
			init.CertKey = certKey
		}
	}

	list := map[string]wire.Map{}
	add := func(what string, m wire.Map, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("v%s, %s, %s: %v", k.Version, s.name, what, err)
		}
		list[what] = m
	}
	m, err := translate.Init("job", target, &k, facts, init)
	add("init", m, err)
	m, err = translate.ControlPlaneWork("job", target, &k, work)
	add("work", m, err)
	if k.HA && (join.CertKey != "" || len(join.PKI) > 0) {
		m, err = translate.Join("job", target, &k, facts, join)
		add("join of a control plane", m, err)
	}
	worker := k
	worker.ControlPlane = false
	join.CertKey, join.PKI = "", nil
	m, err = translate.Join("job", target, &worker, facts, join)
	add("join of a worker", m, err)
	return list
}

// configurations are all that kubeadm is given in a site, by what it is for.
func configurations(t *testing.T, minor int, s site, keys capi.PKI) map[string]string {
	t.Helper()
	found := map[string]string{}
	for what, m := range siteMaps(t, minor, s, keys) {
		files, err := kubeadm.Files(m)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for path, text := range files {
			if strings.Contains(text, "apiVersion: kubeadm.k8s.io/") {
				found[what+" "+path] = text
			}
		}
	}
	return found
}

// TestConfigurations: every configuration that is written, for every minor, is one that
// the kubeadm of that time reads, down to the last field.
func TestConfigurations(t *testing.T) {
	t.Parallel()
	keys, err := pki.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]bool{} // most minors have the same
	for minor := oldest; minor <= newest; minor++ {
		t.Run(fmt.Sprintf("v1.%d", minor), func(t *testing.T) {
			t.Parallel()
			tool, err := kubeadm.For(minor)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, s := range sites() {
				if minor < s.from {
					continue
				}
				list := configurations(t, minor, s, keys)
				for _, what := range must(minor, s) {
					if !slices.ContainsFunc(slices.Collect(maps.Keys(list)), func(n string) bool { return strings.HasPrefix(n, what+" ") }) {
						t.Errorf("%s: there is no configuration for %s", s.name, what)
					}
				}
				for what, text := range list {
					id := fmt.Sprint(tool.Minor, strings.ReplaceAll(text, fmt.Sprintf("v1.%d.3", minor), ""))
					mu.Lock()
					known := asked[id]
					asked[id] = true
					mu.Unlock()
					if known {
						continue
					}
					if err := tool.Validate(t.Context(), dir, text); err != nil {
						t.Errorf("%s, %s: %v\n%s", s.name, what, err, text)
					}
				}
			}
		})
	}
}

// must is what a site has a configuration for.
func must(minor int, s site) []string {
	list := []string{"init", "join of a worker"}
	if strings.HasPrefix(s.name, "ha") || s.name == "vip" {
		list = append(list, "join of a control plane")
	}
	if s.name == "ha" && minor > 14 {
		list = append(list, "work")
	}
	return list
}

// TestNotEverythingIsValid: each kubeadm refuses what the others' time wrote, and what
// is misspelt.
func TestNotEverythingIsValid(t *testing.T) {
	t.Parallel()
	join := func(version, field, args string) string {
		return fmt.Sprintf(`apiVersion: kubeadm.k8s.io/%s
kind: JoinConfiguration
discovery:
  bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: "10.0.0.9:6443", %s: ["%s"]}
nodeRegistration: {name: node, criSocket: "unix:///run/containerd/containerd.sock", kubeletExtraArgs: %s}
`, version, field, caHash, args)
	}
	const (
		right   = "caCertHashes"
		asMap   = "{node-ip: 10.0.0.1}"
		asList  = "[{name: node-ip, value: 10.0.0.1}]"
		misspel = "caCertHashs, unsafeSkipCAVerification: true, caCertHashs2"
	)
	for _, tt := range []struct {
		minor        int
		good, listed string
	}{{21, "v1beta1", asMap}, {21, "v1beta2", asMap}, {30, "v1beta3", asMap}, {36, "v1beta4", asList}, {37, "v1beta4", asList}} {
		tool, err := kubeadm.For(tt.minor)
		if err != nil {
			t.Fatal(err)
		}
		validate := func(text string) error { return tool.Validate(t.Context(), t.TempDir(), text) }
		if err := validate(join(tt.good, right, tt.listed)); err != nil {
			t.Errorf("%s is refused: %v", tt.good, err)
		}
		other := map[string]string{asMap: asList, asList: asMap}[tt.listed]
		for what, text := range map[string]string{
			"another version":   join("v1alpha3", right, tt.listed),
			"misspelt field":    join(tt.good, "unsafeSkipCAVerification: true, caCertHashs", tt.listed),
			"unknown argument":  join(tt.good, misspel, tt.listed),
			"arguments' form":   join(tt.good, right, other),
			"kubelet's setting": strings.Replace(clusterWith(tt.good), "cgroupDriver", "cgroupDrivr", 1),
		} {
			if err := validate(text); err == nil {
				t.Errorf("%s, kubeadm v1.%d: %s is accepted:\n%s", tt.good, tt.minor, what, text)
			}
		}
		if err := validate(clusterWith(tt.good)); err != nil {
			t.Errorf("%s is refused: %v", tt.good, err)
		}
	}
}

func clusterWith(version string) string {
	return fmt.Sprintf(`apiVersion: kubeadm.k8s.io/%s
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: 10.0.0.1}
nodeRegistration: {name: node, criSocket: "unix:///run/containerd/containerd.sock"}
---
apiVersion: kubeadm.k8s.io/%[1]s
kind: ClusterConfiguration
kubernetesVersion: v1.30.0
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
`, version)
}

// TestProviderData: the configurations in bootstrap data of Cluster API's own provider
// are whole after it was decoded.
func TestProviderData(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../../pkg/cloudconfig/testdata/provider/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]int{"v1beta1": 13, "v1beta2": 21, "v1beta3": 30, "v1beta4": newest}
	seen := 0
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(data), "#cloud-config") {
			continue // what it was made from
		}
		c, err := cloudconfig.Parse(data, cloudconfig.Meta{HostName: "cp-abcde", InstanceID: "cp-abcde", LocalIPv4: "192.168.1.123"})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for _, f := range c.Files {
			_, after, ok := strings.Cut(string(f.Content), "apiVersion: kubeadm.k8s.io/")
			if !ok {
				continue
			}
			version, _, _ := strings.Cut(after, "\n")
			minor, ok := versions[version]
			if !ok {
				t.Errorf("%s: %s has version %q", path, f.Path, version)
				continue
			}
			seen++
			tool, err := kubeadm.For(minor)
			if err != nil {
				t.Fatal(err)
			}
			if err := tool.Validate(t.Context(), t.TempDir(), string(f.Content)); err != nil {
				t.Errorf("%s, %s: %v\n%s", path, f.Path, err, f.Content)
			}
		}
	}
	if seen == 0 {
		t.Error("there is no configuration in any bootstrap data")
	}
}
