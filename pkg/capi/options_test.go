package capi_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const allInstallOptions = `
  method: binaries
  skipInstall: false
  repo: {base: "https://mirror.example.com/core:/stable:", key: "http://mirror.example.com:8080/key"}
  binaries:
    url: https://mirror.example.com/release
    cniPluginsURL: https://mirror.example.com/cni-plugins-linux-amd64-v1.7.1.tgz
    sha256: {kubeadm: "` + digest + `", cni-plugins: "` + digest + `"}
  runtime: containerd
  runtimeSource: docker
  runtimeMirror: https://mirror.example.com/docker
  dockerVersion: 5:20.10.24~3-0~ubuntu-jammy
  dockerCodename: bionic
  containerdVersion: "2.2"
  imageRepository: registry.example.com:5000/kubernetes
  proxy: {http: "http://proxy.example.com:3128", https: "http://ann@proxy.example.com:3128/", noProxy: [10.0.0.0/8, "", .example.com, host, 10.1.2.3]}
  allowCgroupV1: true
  firewall: leave
  hooks: {before: "modprobe bonding\n", after: "true"}
  kubeadmPatches:
  - {apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration, maxPods: 250}
  - {kind: ClusterConfiguration, apiServer: {extraArgs: [{name: v, value: "2"}]}}
  ignoreUnknownKeys: true
`

const allClusterOptions = `
  certSANs: [api.example.com, "*.example.com", 10.1.0.9, "fd00::1", ""]
  cni: {url: "https://mirror.example.com/cni.yaml", sha256: "` + digest + `"}
  pki: tool
  kubeconfigTransport: plain
  vip: {image: "ghcr.io/kube-vip/kube-vip:v1.0.0@sha256:` + digest + `", interface: eth0}
`

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func ptr[T any](v T) *T { return &v }

func installOptions() capi.InstallOptions {
	return capi.InstallOptions{
		Method:      capi.MethodBinaries,
		SkipInstall: ptr(false),
		Repo:        &capi.PackageRepo{Base: "https://mirror.example.com/core:/stable:", Key: "http://mirror.example.com:8080/key"},
		Binaries: &capi.BinarySource{
			URL: "https://mirror.example.com/release", CNIPluginsURL: "https://mirror.example.com/cni-plugins-linux-amd64-v1.7.1.tgz",
			SHA256: map[string]string{"kubeadm": digest, "cni-plugins": digest},
		},
		Runtime: capi.RuntimeContainerd, RuntimeSource: capi.SourceDocker, RuntimeMirror: "https://mirror.example.com/docker",
		DockerVersion: "5:20.10.24~3-0~ubuntu-jammy", DockerCodename: "bionic", ContainerdVersion: "2.2",
		ImageRepository: "registry.example.com:5000/kubernetes",
		Proxy: &capi.Proxy{
			HTTP: "http://proxy.example.com:3128", HTTPS: "http://ann@proxy.example.com:3128/",
			NoProxy: []string{"10.0.0.0/8", ".example.com", "host", "10.1.2.3"},
		},
		AllowCgroupV1: ptr(true), Firewall: capi.FirewallLeave,
		Hooks: &capi.Hooks{Before: "modprobe bonding\n", After: "true"},
		KubeadmPatches: []map[string]any{
			{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "maxPods": int64(250)},
			{"kind": "ClusterConfiguration", "apiServer": map[string]any{"extraArgs": []any{map[string]any{"name": "v", "value": "2"}}}},
		},
		IgnoreUnknownKeys: ptr(true),
	}
}

// Every option is read where it may be given.
func TestOptions(t *testing.T) {
	set, err := text(t, cluster("", "", "", strings.TrimPrefix(allInstallOptions+allClusterOptions, "\n"))+
		strings.Replace(machine("w", addressOne, "", "", strings.TrimPrefix(allInstallOptions, "\n")), "  dockerVersion: \"\"\n", "", 1))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(installOptions(), set.Machines[0].Infra.Spec.InstallOptions); diff != "" {
		t.Errorf("PlunderMachine (-want +got):\n%s", diff)
	}
	spec := set.Clusters[0].Infra.Spec
	if diff := cmp.Diff(installOptions(), spec.InstallOptions); diff != "" {
		t.Errorf("PlunderCluster (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(capi.ClusterOptions{
		CertSANs: []string{"api.example.com", "*.example.com", "10.1.0.9", "fd00::1"},
		CNI:      &capi.CNI{URL: "https://mirror.example.com/cni.yaml", SHA256: digest},
		PKI:      capi.PKITool, KubeconfigTransport: capi.KubeconfigPlain,
		VIP: &capi.VIP{Image: "ghcr.io/kube-vip/kube-vip:v1.0.0@sha256:" + digest, Interface: "eth0"},
	}, spec.ClusterOptions); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if problems := (capi.Defaults{InstallOptions: spec.InstallOptions, ClusterOptions: spec.ClusterOptions}).Problems(); len(problems) > 0 {
		t.Error(problems)
	}
}

// What is empty is given all the same: it undoes what would be taken from elsewhere.
func TestEmptyOptions(t *testing.T) {
	set, err := text(t, cluster("", "", "", "  vip: {}\n  proxy: {http: \"http://proxy.example.com\"}\n")+
		machine("w", addressOne, "", "", "  proxy: {}\n  repo: \n  firewall: \"\"\n  kubeadmPatches: []\n"))
	if err != nil {
		t.Fatal(err)
	}
	o := set.Machines[0].InstallOptionsFor(capi.Defaults{InstallOptions: capi.InstallOptions{Firewall: capi.FirewallLeave}})
	if diff := cmp.Diff(capi.InstallOptions{Proxy: &capi.Proxy{}, Firewall: capi.FirewallLeave}, o); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if set.Clusters[0].ClusterOptionsFor(capi.Defaults{}).VIP == nil {
		t.Error("vip: {} is no VIP")
	}
}

// Where binaries come from is a mistake unless they are what is installed, whoever says so.
func TestBinariesNeedTheirMethod(t *testing.T) {
	const source, method = "  binaries: {url: \"https://mirror.example.com\"}\n", "  method: binaries\n"
	for name, tt := range map[string]struct {
		cluster, machine, run string
		good                  bool
	}{
		"nobody":                     {"", source, "", false},
		"the machine":                {"", source + method, "", true},
		"the cluster":                {method, source, "", true},
		"the run":                    {"", source, "binaries", true},
		"the run, but the machine":   {"", source + "  method: packages\n", "binaries", false},
		"the cluster for itself":     {source + method, "", "", true},
		"the machine of the cluster": {source, method, "", true},
		"nobody of the cluster":      {source, "", "", false},
		"the run, for the cluster":   {source, "", "binaries", true},
	} {
		_, err := textWith(t, cluster("", "", "", tt.cluster)+machine("w", addressOne, "", "", tt.machine),
			capi.DecodeOptions{Defaults: capi.Defaults{InstallOptions: capi.InstallOptions{Method: tt.run}}})
		if tt.good != (err == nil) || err != nil && !strings.Contains(err.Error(), "spec.binaries: has no effect without method: binaries") {
			t.Errorf("%s says method: binaries: %v", name, err)
		}
	}
}

// Bootstrap data may come beside the Machines that name it.
func TestBootstrapSecrets(t *testing.T) {
	const secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\n%s\n"
	yaml := cluster("", "", "", "") +
		machine("a", addressOne, "", "  bootstrap: {dataSecretName: a-data}\n", "") +
		machine("b", addressTwo, "", "  bootstrap: {dataSecretName: b-data}\n", "") +
		machine("c", "  ipaddress: 10.1.0.3\n", "", "  bootstrap: {dataSecretName: c-data, configRef: {kind: KubeadmConfig, name: c}}\n", "") +
		machine("d", "  ipaddress: 10.1.0.4\n", "", "  bootstrap: {configRef: {kind: KubeadmConfig, name: d}}\n", "") +
		machine("e", "  ipaddress: 10.1.0.5\n", "", "  bootstrap: {configRef: }\n", "") +
		fmt.Sprintf(secret, "a-data", "default", `data: {value: "`+base64.StdEncoding.EncodeToString([]byte("#cloud-config\nhunter2"))+`"}`) +
		fmt.Sprintf(secret, "b-data", "default", `stringData: {value: "{hunter2}", format: ignition}`) +
		fmt.Sprintf(secret, "c-data", "other", `stringData: {value: hunter2}`) +
		fmt.Sprintf(secret, "unrelated", "default", `data: {password: "not base64, hunter2"}`) +
		"---\napiVersion: v1\nkind: Secret\nmetadata: hunter2\n"
	set, err := text(t, yaml)
	if err != nil {
		t.Fatal(err)
	}
	type data struct{ Format, Value string }
	got := map[string]data{}
	bootstrapped := map[string]bool{}
	for _, m := range set.Machines {
		if b := m.GivenBootstrap; b != nil {
			got[m.Name] = data{b.Format, string(b.Value)}
		}
		bootstrapped[m.Name] = m.Bootstrapped()
		if shown := fmt.Sprintf("%v %+v %#v", m.GivenBootstrap, m.Object, m.Infra.Object); strings.Contains(shown, "hunter2") {
			t.Errorf("a secret is shown: %s", shown)
		}
	}
	if diff := cmp.Diff(map[string]data{"a": {capi.FormatCloudConfig, "#cloud-config\nhunter2"}, "b": {"ignition", "{hunter2}"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": false}, bootstrapped); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(set.Warnings) != 3 || strings.Contains(fmt.Sprint(set.Warnings), "hunter2") {
		t.Errorf("warnings %q", set.Warnings)
	}
	for i, name := range []string{`"c-data"`, `"unrelated"`} {
		if !strings.Contains(set.Warnings[i], "Secret "+name+": ignored: not an object of the Cluster API") {
			t.Errorf("warning %q", set.Warnings[i])
		}
	}
}
