package install

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// installed is the shared server with everything installed, and a namespace.
func installed(t *testing.T) (*kubetest.Env, *kube.Client, string) {
	t.Helper()
	env := kubetest.Server(t)
	c := dial(t, env.Kubeconfig(t))
	install(t, c, Options{Standalone: true})
	return env, c, env.Namespace(t)
}

const plunderMachine = `
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: %s}
spec: %s
`

// The schema of a PlunderMachine and the decoder agree on what is good.
func TestMachineSchemaAgreesWithDecoder(t *testing.T) {
	_, c, namespace := installed(t)
	bad := func(specs ...string) (m map[string]bool) {
		m = map[string]bool{}
		for _, s := range specs {
			m[s] = false
		}
		return m
	}
	cases := bad(
		`{macaddress: "00:50:56:a5:11"}`, `{macaddress: "00:50:56:a5:11:2g"}`, `{macaddress: "00:50:56:a5:11:20:00:01"}`,
		`{macaddress: "00:50-56:a5-11:20"}`, `{macaddress: "01:00:5e:00:00:01"}`, `{macaddress: "01-00-5e-00-00-01"}`,
		`{macaddress: "0150.56a5.1120"}`, `{macaddress: "00:00:00:00:00:00"}`, `{macaddress: "0000.0000.0000"}`,
		`{macaddress: "015056a51120"}`, `{macaddress: "005056a5112"}`, `{macaddress: " 00:50:56:a5:11:20"}`, `{macaddress: "00:50:56:a5:11:20\n"}`,
		`{ipaddress: "192.168.1.256"}`, `{ipaddress: "192.168.1"}`, `{ipaddress: "192.168.1.1/24"}`, `{ipaddress: "192.168.01.1"}`,
		`{ipaddress: "0.1.2.3"}`, `{ipaddress: "224.0.0.1"}`, `{ipaddress: "255.255.255.255"}`, `{ipaddress: "fe80::1"}`, `{ipaddress: "host"}`,
		`{controlPlaneMacPool: [""]}`, `{controlPlaneMacPool: ["00:50:56:a5:11:21", "00:50:56"]}`,
		`{providerID: "plunder://"}`, `{providerID: "plunder://01:00:5e:00:00:01"}`, `{providerID: "metal3://00:50:56:a5:11:20"}`,
		`{deploymentType: reboot}`, `{deploymentType: autoBoot}`, `{deploymentType: "../etc"}`, `{deploymentType: "`+strings.Repeat("x", 64)+`"}`,
		`{dockerVersion: "18.06; reboot"}`,
		`{repo: {apt: "deb http://mirror.example.com/$(reboot) /"}}`, `{repo: {apt: "rpm http://mirror.example.com /"}}`,
		`{repo: {key: "ftp://mirror.example.com/key"}}`, `{repo: {key: "https://mirror.example.com/key gpg"}}`,
	)
	for spec, good := range installSpecs() {
		cases[spec] = good
	}
	for _, spec := range []string{
		`{}`, `{ipaddress: "", macaddress: "", providerID: "", deploymentType: "", dockerVersion: "", controlPlaneMacPool: []}`,
		`{macaddress: "00:50:56:a5:11:20"}`, `{macaddress: "00-50-56-A5-11-20"}`, `{macaddress: "0050.56a5.1120"}`, `{macaddress: "005056a51120"}`, `{macaddress: "02:00:00:00:00:00"}`,
		`{ipaddress: "192.168.1.123"}`, `{ipaddress: "1.0.0.0"}`, `{ipaddress: "223.255.255.255"}`, `{ipaddress: "127.0.0.10"}`,
		`{controlPlaneMacPool: ["00:50:56:a5:11:21", "00-50-56-A5-11-22"]}`,
		`{providerID: "plunder://00:50:56:a5:11:20"}`,
		`{deploymentType: preseed}`, `{deploymentType: "u2404.server_1-x"}`,
		`{dockerVersion: "5:20.10.24~3-0~ubuntu-jammy"}`,
		`{repo: {apt: "deb [signed-by=/etc/apt/keyrings/k8s.gpg] https://mirror.example.com/apt /", key: "https://mirror.example.com/key"}}`,
	} {
		cases[spec] = true
	}
	n := 0
	for spec, good := range cases {
		n++
		text := fmt.Sprintf(plunderMachine, fmt.Sprintf("m%d", n), spec)
		_, err := apply(t.Context(), c, namespace, object(t, text))
		if good != (err == nil) || err != nil && !refused(err) {
			t.Errorf("%s: the cluster says %v", spec, err)
		}
		_, err = capi.Decode([]capi.Document{{Raw: []byte(withAddress(text))}})
		if says := fmt.Sprint(err); good != !strings.Contains(says, "PlunderMachine default/m") {
			t.Errorf("%s: the decoder says %v", spec, err)
		}
	}
}

// refused reports whether the API server refused an object for what is in it.
func refused(err error) bool {
	return apierrors.IsInvalid(err) || strings.Contains(err.Error(), "failed to create typed patch object")
}

// installSpecs are specs of PlunderMachine and PlunderCluster, and whether they are good.
func installSpecs() map[string]bool {
	const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	specs := map[string]bool{}
	for _, bad := range []string{
		`{method: binary}`, `{skipInstall: "true"}`, `{runtime: cri-o}`, `{runtimeSource: Docker}`, `{firewall: "off"}`,
		`{repo: {base: "https://mirror.example.com/k8s?x&y"}}`, `{repo: {base: "https://ann:hunter2@mirror.example.com"}}`, `{repo: {base: "https://ann@mirror.example.com"}}`,
		`{repo: {rpm: "https://mirror.example.com/$basearch", key: "https://mirror.example.com/key"}}`,
		`{repo: {apt: "deb https://mirror.example.com/apt /"}}`, `{repo: {rpm: "https://mirror.example.com/rpm"}}`, `{repo: {rpm: "https://mirror.example.com/rpm", key: ""}}`,
		`{repo: {base: "https://mirror.example.com", rpm: "https://mirror.example.com/rpm", key: "https://mirror.example.com/key"}}`,
		`{repo: {apt: "deb https://ann:hunter2@mirror.example.com/apt /", key: "https://mirror.example.com/key"}}`,
		`{method: binaries, binaries: {url: dl.k8s.io}}`, `{method: binaries, binaries: {sha256: {kubeadm: "0123"}}}`,
		`{method: binaries, binaries: {sha256: {etcd: "` + digest + `"}}}`, `{method: binaries, binaries: {sha256: {cni-plugins: "` + digest + `"}}}`,
		`{runtimeMirror: "https://mirror.example.com/$(reboot)"}`, `{runtimeSource: distribution, runtimeMirror: "https://mirror.example.com"}`,
		`{dockerCodename: Bionic}`, `{containerdVersion: v2}`,
		`{imageRepository: "https://registry.example.com"}`, `{imageRepository: "registry.example.com/k8s:v1"}`, `{imageRepository: "registry.example.com/K8s"}`, `{imageRepository: "registry.example.com/"}`,
		`{proxy: {http: "proxy.example.com:3128"}}`, `{proxy: {https: "http://ann:hunter2@proxy.example.com"}}`, `{proxy: {http: "http://ann:@proxy.example.com"}}`, `{proxy: {http: "http://proxy.example.com/x"}}`, `{proxy: {http: "socks5://proxy.example.com"}}`,
		`{proxy: {noProxy: ["*"]}}`, `{proxy: {noProxy: ["10.0.0.300"]}}`, `{proxy: {noProxy: ["10.0.0.0/33"]}}`, `{proxy: {noProxy: ["http://x"]}}`, `{proxy: {noProxy: ["a b"]}}`, `{proxy: {noProxy: ["..x"]}}`,
		`{hooks: {before: "` + strings.Repeat("x", 65537) + `"}}`,
		`{kubeadmPatches: [{maxPods: 1}]}`, `{kubeadmPatches: [{kind: Kubelet}]}`, `{kubeadmPatches: [text]}`, `{kubeadmPatches: [{apiVersion: v1, kind: KubeletConfiguration}]}`,
		`{kubeadmPatches: [{apiVersion: kubeadm.k8s.io/v1beta4, kind: KubeProxyConfiguration}]}`,
	} {
		specs[bad] = false
	}
	for _, good := range []string{
		`{method: "", runtime: "", runtimeSource: "", runtimeMirror: "", dockerCodename: "", containerdVersion: "", imageRepository: "", firewall: ""}`,
		`{method: packages, skipInstall: true, allowCgroupV1: false, ignoreUnknownKeys: true}`,
		`{repo: {}, proxy: {}, hooks: {}, kubeadmPatches: []}`, `{repo: {base: "", apt: "", rpm: "", key: ""}}`,
		`{repo: {base: "https://mirror.example.com/core:/stable:"}}`, `{repo: {base: "http://mirror.example.com:8080/k8s", key: "https://mirror.example.com/key?x=%20"}}`,
		`{repo: {rpm: "https://mirror.example.com/rpm/", key: "https://mirror.example.com/key"}}`,
		`{method: binaries, binaries: {url: "https://mirror.example.com", cniPluginsURL: "https://mirror.example.com/cni.tgz", sha256: {kubeadm: "` + digest + `", cni-plugins: "` + digest + `", kubectl: ""}}}`,
		`{runtime: containerd, runtimeSource: docker, runtimeMirror: "https://mirror.example.com/docker"}`, `{runtimeSource: distribution, runtimeMirror: ""}`,
		`{dockerCodename: bionic, containerdVersion: "1.7.28-1"}`,
		`{imageRepository: registry.k8s.io}`, `{imageRepository: "registry:5000/a/b-c__d.e"}`, `{imageRepository: "10.0.0.1:5000"}`,
		`{proxy: {http: "http://proxy.example.com:3128", https: "https://ann@proxy.example.com/", noProxy: ["", 10.0.0.0/8, 10.0.0.1, .example.com, host, host-1.example.com, "fd00::/8", "fd00::1"]}}`,
		`{hooks: {before: "modprobe bonding", after: "true"}}`,
		`{kubeadmPatches: [{kind: KubeletConfiguration, maxPods: 250}, {apiVersion: kubeadm.k8s.io/v1beta4, kind: ClusterConfiguration, apiServer: {extraArgs: [{name: v, value: "2"}]}}]}`,
	} {
		specs[good] = true
	}
	return specs
}

// What all machines have the same is said of the cluster, in the decoder's words and in the schema's.
func TestClusterSchemaAgreesWithDecoder(t *testing.T) {
	_, c, namespace := installed(t)
	const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const cluster = "apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1\nkind: PlunderCluster\nmetadata: {name: %s}\nspec: %s\n"
	cases := installSpecs()
	for _, bad := range []string{
		`{certSANs: [10.0.0.300]}`, `{certSANs: [api_x]}`, `{certSANs: ["a b"]}`, `{certSANs: ["*"]}`, `{certSANs: ["a.*.b"]}`, `{certSANs: [a, a]}`, `{certSANs: ["fd00::1/64"]}`,
		`{cni: {url: "example.com/cni.yaml"}}`, `{cni: {url: "https://example.com/cni.yaml", sha256: abc}}`, `{cni: {sha256: "` + digest + `"}}`,
		`{cni: {none: true, url: "https://example.com/cni.yaml"}}`, `{cni: {none: true, manifest: "{apiVersion: v1, kind: List}"}}`, `{cni: {url: "https://example.com/cni.yaml", manifest: "{apiVersion: v1, kind: List}"}}`,
		`{pki: tools}`, `{kubeconfigTransport: clear}`,
		`{vip: {image: ghcr.io/kube-vip/kube-vip}}`, `{vip: {image: "ghcr.io/kube-vip:5000/x"}}`, `{vip: {image: "kube-vip:v1;reboot"}}`, `{vip: {image: "kube-vip@sha256:0123"}}`,
		`{vip: {interface: "eth0;reboot"}}`, `{vip: {interface: interface-of-linux}}`,
	} {
		cases[bad] = false
	}
	for _, good := range []string{
		`{certSANs: [api.example.com, "*.example.com", 10.0.0.1, "fd00::1"]}`, `{certSANs: []}`,
		`{cni: {}}`, `{cni: {none: true, url: "", manifest: "", sha256: ""}}`, `{cni: {url: "https://example.com/cni.yaml", sha256: "` + digest + `"}}`, `{cni: {manifest: "{apiVersion: v1, kind: List}"}}`,
		`{pki: tool, kubeconfigTransport: plain}`, `{pki: "", kubeconfigTransport: ""}`,
		`{vip: {}}`, `{vip: {image: "ghcr.io/kube-vip/kube-vip:v1.0.0", interface: enp0s31f6}}`, `{vip: {image: "registry:5000/kube-vip@sha256:` + digest + `"}}`,
	} {
		cases[good] = true
	}
	n := 0
	for spec, good := range cases {
		n++
		text := fmt.Sprintf(cluster, fmt.Sprintf("o%d", n), spec)
		u, err := apply(t.Context(), c, namespace, object(t, text))
		if good != (err == nil) || err != nil && !refused(err) {
			t.Errorf("%.200s: the cluster says %v", spec, err)
		}
		if err == nil && strings.Contains(spec, "maxPods") && !strings.Contains(fmt.Sprint(u.Object["spec"]), "maxPods:250") {
			t.Errorf("%s lost something: %v", spec, u.Object["spec"])
		}
		_, err = capi.Decode([]capi.Document{{Raw: []byte(text)}})
		if says := fmt.Sprint(err); good != !strings.Contains(says, "PlunderCluster default/o") {
			t.Errorf("%.200s: the decoder says %v", spec, err)
		}
	}
}

// withAddress is a manifest that lacks nothing: an address is needed in the end.
func withAddress(text string) string {
	if strings.Contains(text, `ipaddress: "`) && !strings.Contains(text, `ipaddress: ""`) {
		return text
	}
	return strings.Replace(strings.Replace(text, `ipaddress: "", `, "", 1), "spec: {", `spec: {ipaddress: "10.1.2.3", `, 1)
}

func TestClusterSchema(t *testing.T) {
	_, c, namespace := installed(t)
	const cluster = "apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1\nkind: PlunderCluster\nmetadata: {name: %s}\nspec: %s\n"
	for i, tt := range []struct {
		spec string
		want string // in the error
	}{
		{`{}`, ""},
		{`{controlPlaneEndpoint: {host: "", port: 0}}`, ""},
		{`{controlPlaneEndpoint: {host: "10.0.0.1", port: 6443}}`, ""},
		{`{controlPlaneEndpoint: {host: "api.example.com"}}`, ""},
		{`{staticMAC: "00:50:56:A5:11:20", staticIP: "10.0.0.1", controlPlaneMacPool: ["00:50:56:a5:11:20"]}`, ""},
		{`{controlPlaneEndpoint: {port: 6443}}`, "a port needs a host"},
		{`{controlPlaneEndpoint: {host: "10.0.0.256"}}`, "neither an IPv4 address"},
		{`{controlPlaneEndpoint: {host: "a b"}}`, "spec.controlPlaneEndpoint.host"},
		{`{controlPlaneEndpoint: {host: "a", port: 65536}}`, "less than or equal to 65535"},
		{`{staticMAC: "01:00:5e:00:00:01"}`, "spec.staticMAC"},
		{`{staticIP: "10.0.0"}`, "spec.staticIP"},
		{`{controlPlaneMacPool: [x]}`, "spec.controlPlaneMacPool[0]"},
		{`{staticMac: "00:50:56:a5:11:20"}`, `field not declared in schema`},
	} {
		_, err := apply(t.Context(), c, namespace, object(t, fmt.Sprintf(cluster, fmt.Sprintf("c%d", i), tt.spec)))
		if tt.want == "" && err != nil || tt.want != "" && !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%s: %v, want %q", tt.spec, err, tt.want)
		}
	}
}

func TestTemplateSchema(t *testing.T) {
	_, c, namespace := installed(t)
	const template = "apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1\nkind: PlunderMachineTemplate\nmetadata: {name: %s}\nspec: %s\n"
	for i, tt := range []struct{ spec, want string }{
		{`{template: {spec: {}}}`, ""},
		{`{template: {metadata: {labels: {a: b}, annotations: {c: d}}, spec: {deploymentType: preseed, ipaddress: ""}}}`, ""},
		{`{}`, "spec.template: Required"},
		{`{template: {}}`, "spec.template.spec: Required"},
		{`{template: {spec: {ipaddress: "10.0.0.1"}}}`, "ipaddress is for one machine"},
		{`{template: {spec: {macaddress: "00:50:56:a5:11:20"}}}`, "macaddress is for one machine"},
		{`{template: {spec: {providerID: "plunder://00:50:56:a5:11:20"}}}`, "providerID is for one machine"},
		{`{template: {spec: {deploymentType: reboot}}}`, "it installs nothing"},
	} {
		_, err := apply(t.Context(), c, namespace, object(t, fmt.Sprintf(template, fmt.Sprintf("t%d", i), tt.spec)))
		if tt.want == "" && err != nil || tt.want != "" && !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%s: %v, want %q", tt.spec, err, tt.want)
		}
	}
}

// A manifest of 2019 leaves the address to be filled in later: `ipaddress:`.
func TestNullIsNothing(t *testing.T) {
	env, _, namespace := installed(t)
	file := writeFile(t, fmt.Sprintf(plunderMachine, "nulls", "{ipaddress: , macaddress: null, deploymentType: preseed}"))
	env.Kubectl(t, env.Kubeconfig(t), "create", "-n", namespace, "-f", file)
}

// Every part of a status may be written alone, in the shapes of both contracts.
func TestPartialStatus(t *testing.T) {
	_, c, namespace := installed(t)
	m, err := apply(t.Context(), c, namespace, object(t, fmt.Sprintf(plunderMachine, "m", "{}")))
	if err != nil {
		t.Fatal(err)
	}
	pc := object(t, "apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1\nkind: PlunderCluster\nmetadata: {name: c}\n")
	if _, err := apply(t.Context(), c, namespace, pc); err != nil {
		t.Fatal(err)
	}
	both := []string{
		`{"ready":false}`, `{"ready":true}`, `{"initialization":{"provisioned":true}}`, `{"initialization":{"provisioned":null}}`,
		`{"failureReason":"CreateError","failureMessage":"it burned"}`, `{"failureReason":null,"failureMessage":null}`,
		`{"conditions":[{"type":"Ready","status":"True"}]}`,
		`{"conditions":[{"type":"Ready","status":"False","severity":"Error","reason":"","lastTransitionTime":"2026-11-23T00:00:00Z"}]}`,
		`{"conditions":[{"type":"Ready","status":"Unknown","reason":"Pending","message":"","observedGeneration":1,"lastTransitionTime":"2026-11-23T00:00:00Z"}]}`,
	}
	machine := append([]string{
		`{"machineName":"worker-abcde"}`, `{"macaddress":"00:50:56:a5:11:20"}`, `{"ipaddress":"10.0.0.1"}`,
		`{"addresses":[{"type":"InternalIP","address":"10.0.0.1"},{"type":"Hostname","address":"worker-abcde"}]}`,
	}, both...)
	patch := func(kind string, patches []string) {
		o, name := m, "m"
		if kind == "PlunderCluster" {
			o, name = pc, "c"
		}
		for _, p := range patches {
			u, err := in(c, o, namespace).Patch(t.Context(), name, types.MergePatchType, []byte(`{"status":`+p+`}`),
				metav1.PatchOptions{FieldValidation: metav1.FieldValidationStrict}, "status")
			if err != nil {
				t.Errorf("%s %s: %v", kind, p, err)
			} else if !strings.Contains(p, "null") && !strings.Contains(fmt.Sprint(u.Object["status"]), strings.Trim(strings.SplitN(p, ":", 2)[0], `{"`)) {
				t.Errorf("%s %s was dropped: %v", kind, p, u.Object["status"])
			}
		}
	}
	patch("PlunderMachine", machine)
	patch("PlunderCluster", both)
	_, err = in(c, m, namespace).Patch(t.Context(), "m", types.MergePatchType,
		[]byte(`{"status":{"conditions":[{"type":"A","status":"True"},{"type":"A","status":"False"}]}}`), metav1.PatchOptions{}, "status")
	if !apierrors.IsInvalid(err) {
		t.Errorf("two conditions of one type: %v", err)
	}
}

// What `kubectl get` shows, all categories and short names included.
func TestColumns(t *testing.T) {
	env, c, namespace := installed(t)
	for _, text := range []string{
		`{apiVersion: cluster.x-k8s.io/v1alpha2, kind: Machine, metadata: {name: worker, labels: {cluster.x-k8s.io/cluster-name: c}}, spec: {version: v1.34.1, providerID: "plunder://00:50:56:a5:11:20", bootstrap: {data: ""}}}`,
		`{apiVersion: cluster.x-k8s.io/v1beta2, kind: Cluster, metadata: {name: c}, spec: {controlPlaneEndpoint: {host: 10.0.0.1, port: 6443}}}`,
		`{apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, metadata: {name: worker, labels: {cluster.x-k8s.io/cluster-name: c}}, spec: {providerID: "plunder://00:50:56:a5:11:20"}}`,
		`{apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderCluster, metadata: {name: c, labels: {cluster.x-k8s.io/cluster-name: c}}, spec: {controlPlaneEndpoint: {host: 10.0.0.1, port: 6443}}}`,
	} {
		o := object(t, text)
		if _, err := apply(t.Context(), c, namespace, o); err != nil {
			t.Fatal(err)
		}
		status := `{"status":{"phase":"provisioned"}}`
		if strings.HasPrefix(o.GetKind(), "Plunder") {
			status = `{"status":{"ready":true}}`
		}
		switch o.GetKind() {
		case "Machine":
			status = `{"status":{"phase":"provisioned","nodeRef":{"kind":"Node","name":"worker-x"}}}`
		case "PlunderMachine":
			status = `{"status":{"ready":true,"macaddress":"00:50:56:a5:11:20","ipaddress":"10.0.0.2","machineName":"worker-x","conditions":[{"type":"Ready","status":"True","reason":"Provisioned"}]}}`
		}
		if _, err := in(c, o, namespace).Patch(t.Context(), o.GetName(), types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig := env.Kubeconfig(t)
	for _, tt := range []struct {
		args string
		want string
	}{
		{"machines", "NAME NODENAME PROVIDERID PHASE VERSION AGE | worker worker-x plunder://00:50:56:a5:11:20 provisioned v1.34.1 AGE"},
		{"machines.v1alpha2.cluster.x-k8s.io -o wide", "NAME NODENAME PROVIDERID PHASE VERSION CLUSTER AGE | worker worker-x plunder://00:50:56:a5:11:20 provisioned v1.34.1 c AGE"},
		{"clusters", "NAME PHASE ENDPOINT AGE | c provisioned 10.0.0.1 AGE"},
		{"plundermachines", "NAME CLUSTER PROVIDERID READY MAC ADDRESS AGE | worker c plunder://00:50:56:a5:11:20 true 00:50:56:a5:11:20 10.0.0.2 AGE"},
		{"plma -o wide", "NAME CLUSTER PROVIDERID READY MAC ADDRESS HOST REASON AGE | worker c plunder://00:50:56:a5:11:20 true 00:50:56:a5:11:20 10.0.0.2 worker-x Provisioned AGE"},
		{"plunderclusters", "NAME CLUSTER READY ENDPOINT AGE | c c true 10.0.0.1 AGE"},
	} {
		out := env.Kubectl(t, kubeconfig, append([]string{"get", "-n", namespace}, strings.Fields(tt.args)...)...)
		var lines []string
		for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
			words := strings.Fields(line)
			if i > 0 {
				words[len(words)-1] = "AGE"
			}
			lines = append(lines, strings.Join(words, " "))
		}
		if got := strings.Join(lines, " | "); got != tt.want {
			t.Errorf("kubectl get %s:\n got %s\nwant %s", tt.args, got, tt.want)
		}
	}
	names := strings.Fields(env.Kubectl(t, kubeconfig, "get", "cluster-api", "-n", namespace, "-o", "name"))
	if len(names) != 4 {
		t.Errorf("kubectl get cluster-api: %q", names)
	}
	if out := env.Kubectl(t, kubeconfig, "explain", "plundermachine.spec.macaddress"); !strings.Contains(out, "pins the machine to this hardware") {
		t.Errorf("kubectl explain: %s", out)
	}
}

// Standalone definitions read an object at any version without losing a field.
func TestStandaloneLosesNothing(t *testing.T) {
	_, c, namespace := installed(t)
	for _, written := range []string{"v1alpha2", "v1alpha3", "v1alpha4", "v1beta1", "v1beta2"} {
		o := object(t, fmt.Sprintf(`{apiVersion: cluster.x-k8s.io/%s, kind: Machine, metadata: {name: %s}, spec: {
			clusterName: c, bootstrap: {data: eA==, dataSecretName: s}, infrastructureRef: {apiGroup: g, apiVersion: g/v1, kind: K, name: n}, future: [1]}}`, written, written))
		if _, err := apply(t.Context(), c, namespace, o); err != nil {
			t.Fatal(err)
		}
		for _, read := range []string{"v1alpha2", "v1beta1", "v1beta2"} {
			gvr := kube.Resource{Group: capi.GroupCluster, Plural: "machines"}.GVR(read)
			u, err := c.Dynamic.Resource(gvr).Namespace(namespace).Get(t.Context(), written, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := fmt.Sprint(u.Object["spec"]), fmt.Sprint(o.Object["spec"]); got != want {
				t.Errorf("written at %s, read at %s: %s, want %s", written, read, got, want)
			}
		}
	}
}

func TestConnectAfterInstall(t *testing.T) {
	env, _, _ := installed(t)
	c, err := kube.Connect(t.Context(), find(t, env.Kubeconfig(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"v1alpha2", "v1beta1", "v1beta2"} {
		if err := c.Schema.Machine.ForManifest(version, nil); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
	var wrong *kube.VersionError
	if err := c.Schema.Machine.ForManifest("v1beta9", nil); !errors.As(err, &wrong) {
		t.Errorf("v1beta9: %v", err)
	}
}

// The examples fit the definitions, each in its own version of Cluster API.
func TestExamplesFit(t *testing.T) {
	env, _, _ := installed(t)
	for _, example := range []string{"simple", "pinned", "v1beta2"} {
		env.Kubectl(t, env.Kubeconfig(t), "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "../../examples/"+example)
	}
}
