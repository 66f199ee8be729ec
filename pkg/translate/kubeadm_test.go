package translate_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// Planted secrets: none of them may be anywhere but in a bundle.
const (
	secretToken   = "plantedtoken0123"
	secretCertKey = "beefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeefbeef"
)

func secretPKI() capi.PKI {
	p := capi.PKI{}
	for _, id := range []string{capi.PKICluster, capi.PKIEtcd, capi.PKIFrontProxy, capi.PKIServiceAccount} {
		p[id] = capi.KeyPair{Cert: []byte("certificate of " + id + "\n"), Key: []byte("planted key of " + id + "\n")}
	}
	return p
}

// kubeadmCase is a machine of a cluster, and what is special about it.
type kubeadmCase struct {
	version string
	join    bool // kubeadm join, else init
	cp      bool // a control plane
	change  func(*translate.Kubernetes)
	pki     bool
}

// kubeadmCases are the configurations that testdata/kubeadm has, by name. The real
// kubeadm checks them, too (test/real).
func kubeadmCases() map[string]kubeadmCase {
	single := func(k *translate.Kubernetes) { k.Single = true }
	ha := func(k *translate.Kubernetes) {
		k.HA, k.Endpoint, k.CertSANs = true, capi.Endpoint{Host: "10.0.0.9", Port: 6443}, []string{"api.example", "10.0.0.9", "fd00::9"}
	}
	cases := map[string]kubeadmCase{}
	for _, v := range []string{"1.13.12", "1.14.2", "1.15.12", "1.21.14", "1.22.17", "1.23.17", "1.24.0", "1.25.16", "1.30.14", "1.31.0", "1.34.1", "1.36.4", "1.37.2", "1.41.0"} {
		cases["v"+v+".init"] = kubeadmCase{version: v, cp: true}
		cases["v"+v+".join"] = kubeadmCase{version: v, join: true}
		if v != "1.13.12" {
			cases["v"+v+".init-ha"] = kubeadmCase{version: v, cp: true, change: ha}
			cases["v"+v+".join-control-plane"] = kubeadmCase{version: v, join: true, cp: true, change: ha}
		}
	}
	cases["v1.13.12.init-ha-keys"] = kubeadmCase{version: "1.13.12", cp: true, change: ha, pki: true}
	cases["v1.36.4.join-control-plane-keys"] = kubeadmCase{version: "1.36.4", join: true, cp: true, change: ha, pki: true}
	cases["v1.30.14.init-single"] = kubeadmCase{version: "1.30.14", cp: true, change: single}
	cases["v1.37.2.init-single"] = kubeadmCase{version: "1.37.2", cp: true, change: single}
	cases["v1.23.17.init-containerd"] = kubeadmCase{version: "1.23.17", cp: true, change: func(k *translate.Kubernetes) { k.Runtime = capi.RuntimeContainerd }}
	cgroup := func(k *translate.Kubernetes) { yes := true; k.AllowCgroupV1 = &yes }
	cases["v1.35.2.init-cgroup1"] = kubeadmCase{version: "1.35.2", cp: true, change: cgroup}
	cases["v1.35.2.join-cgroup1"] = kubeadmCase{version: "1.35.2", join: true, change: cgroup}
	patches := func(list bool) func(*translate.Kubernetes) {
		var args any = map[string]any{"max-pods": "200"}
		var audit any = map[string]any{"audit-log-maxage": "7"}
		if list {
			args = []any{map[string]any{"name": "max-pods", "value": "200"}}
			audit = []any{map[string]any{"name": "audit-log-maxage", "value": "7"}}
		}
		return func(k *translate.Kubernetes) {
			k.ImageRepository = "registry.example:5000/kubernetes"
			k.KubeadmPatches = []map[string]any{
				{"kind": "InitConfiguration", "nodeRegistration": map[string]any{"kubeletExtraArgs": args}},
				{"kind": "JoinConfiguration", "nodeRegistration": map[string]any{"kubeletExtraArgs": args, "taints": []any{map[string]any{"key": "example.com/gpu", "effect": "NoSchedule"}}}},
				{"kind": "ClusterConfiguration", "apiVersion": "kubeadm.k8s.io/v1beta3", "apiServer": map[string]any{"extraArgs": audit, "certSANs": []any{"only.example"}}},
				{"kind": "KubeletConfiguration", "maxPods": 200, "evictionHard": map[string]any{"memory.available": "500Mi"}},
				{"kind": "KubeletConfiguration", "maxPods": 250},
				{"kind": "KubeProxyConfiguration", "mode": "ipvs"},
			}
		}
	}
	cases["v1.28.3.init-patches"] = kubeadmCase{version: "1.28.3", cp: true, change: patches(false)}
	cases["v1.28.3.join-patches"] = kubeadmCase{version: "1.28.3", join: true, change: patches(false)}
	cases["v1.36.4.init-patches"] = kubeadmCase{version: "1.36.4", cp: true, change: patches(true)}
	cases["v1.36.4.join-patches"] = kubeadmCase{version: "1.36.4", join: true, change: patches(true)}
	return cases
}

func (c kubeadmCase) kubernetes() *translate.Kubernetes {
	in := harmless()
	minor, _, _ := strings.Cut(strings.TrimPrefix(c.version, "1."), ".")
	in.Version = c.version
	in.Minor, _ = strconv.Atoi(minor)
	k := in.kubernetes()
	k.ControlPlane, k.Repo = c.cp, nil
	if k.Minor < 24 {
		k.Repo = &capi.PackageRepo{Apt: mirrorLine, Key: "https://mirror.example/kubernetes.key"}
	}
	if c.change != nil {
		c.change(k)
	}
	return k
}

// facts are those of a host that can have this version.
func (c kubeadmCase) facts() translate.Facts {
	in := harmless()
	if k := c.kubernetes(); k.Minor < 19 || k.AllowCgroupV1 != nil {
		in.Cgroup = 1
	}
	return in.facts()
}

func (c kubeadmCase) build() (wire.Map, error) {
	in, k := harmless(), c.kubernetes()
	tok := translate.Token{ID: "abcdef", Secret: secretToken, For: "w-x7f3q"}
	var key translate.Secret
	var keys capi.PKI
	switch {
	case c.pki:
		keys = secretPKI()
	case c.cp && (k.HA || c.join):
		key = secretCertKey
	}
	if c.join {
		return translate.Join("job", in.target(), k, c.facts(), translate.JoinInput{Token: tok, CertKey: key, PKI: keys, Endpoint: capi.Endpoint{Host: "10.0.0.9", Port: 6443}, CAHash: harmlessHash})
	}
	return translate.Init("job", in.target(), k, c.facts(), translate.InitInput{Token: tok, CertKey: key, PKI: keys})
}

// bundledFile is the text of one file of a map's bundle.
func bundledFile(tb testing.TB, m wire.Map, path string) (text string, ok bool) {
	tb.Helper()
	files := bundled(tb, m)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, path+" ") {
			return files[name], true
		}
	}
	return "", false
}

// TestKubeadmConfigurations: testdata/kubeadm has what kubeadm is given.
func TestKubeadmConfigurations(t *testing.T) {
	dir := filepath.Join("testdata", "kubeadm")
	golden := func(name, got string) {
		t.Helper()
		path := filepath.Join(dir, name+".yaml")
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got; make golden rewrites it):\n%s", path, diff)
		}
	}
	cases := kubeadmCases()
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		c := cases[name]
		m, err := c.build()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		path := "/run/capplunder/kubeadm.yaml"
		if c.join {
			path = "/run/capplunder/join.yaml"
		}
		text, ok := bundledFile(t, m, path)
		if !ok {
			t.Errorf("%s: there is no %s", name, path)
		}
		golden(name, text)
	}
	for _, version := range []string{"1.14.2", "1.15.12", "1.23.17", "1.36.4"} {
		c := kubeadmCase{version: version, cp: true}
		in := harmless()
		m, err := translate.ControlPlaneWork("job", in.target(), c.kubernetes(), translate.Work{CertKey: secretCertKey})
		if err != nil {
			t.Fatal(err)
		}
		text, _ := bundledFile(t, m, "/run/capplunder/upload.yaml")
		golden("v"+version+".upload", text)
	}
}

// TestKubeadmLines: what matters of the configurations and of the commands around them,
// so that rewriting the golden files in a hurry does not lose it. N: must not be there.
func TestKubeadmLines(t *testing.T) {
	for _, tt := range []struct {
		name        string
		want, never []string
	}{
		{"v1.34.1.init", []string{"kubeadm.k8s.io/v1beta4", "- name: node-ip\n", "controlPlaneEndpoint: 192.168.1.123:6443", "- name: provider-id\n    value: plunder://00:50:56:a5:11:20", "cgroupDriver: systemd"},
			[]string{"certificateKey", "--upload-certs", "imageRepository", "taints", "failCgroupV1", "name: kube-vip", "super-admin.conf\""}},
		{"v1.36.4.init-ha", []string{"--skip-token-print --skip-certificate-key-print --upload-certs", "certificateKey: " + secretCertKey, "controlPlaneEndpoint: 10.0.0.9:6443", "- 10.0.0.9\n", "- 192.168.1.123\n", "- api.example\n", "- cp-abcde\n"}, []string{"imageRepository"}},
		{"v1.36.4.join-control-plane", []string{"controlPlane:\n", "certificateKey: " + secretCertKey, "advertiseAddress: 192.168.1.123", "failed to remove etcd member"}, []string{"--certificate-key", "/certkey 0600"}},
		{"v1.36.4.join-control-plane-keys", []string{"controlPlane:\n", "--- /run/capplunder/pki/etcd/ca.key 0600 root\nplanted key of etcd", "--- /run/capplunder/pki/sa.pub 0644 root"}, []string{"certificateKey", "upload"}},
		{"v1.13.12.init-ha-keys", []string{"kubeadm.k8s.io/v1beta1", "--- /run/capplunder/pki/ca.key 0600"}, []string{"certificateKey", "--upload-certs", "-upload-certs ", "skip-certificate-key-print"}},
		{"v1.37.2.init-single", []string{"taints: []\n"}, nil},
		{"v1.32.0.join", []string{"kubeadm join --config $R/join.yaml"}, []string{"controlPlane:", "etcd member", "certkey 0600"}},
		{"v1.14.2.join-control-plane", []string{`join --config $R/join.yaml --certificate-key "$(cat $R/certkey)"`, "controlPlane:\n", "--- /run/capplunder/certkey 0600 root\n" + secretCertKey}, []string{"--experimental-control-plane", "certificateKey:", "criSocket"}},
		{"v1.14.2.init-ha", []string{`--experimental-upload-certs --certificate-key "$(cat $R/certkey)"`, "imageRepository: registry.k8s.io"}, []string{"certificateKey:", " --upload-certs"}},
		{"v1.15.12.init-ha", []string{" --upload-certs", "kubeadm.k8s.io/v1beta2", "certificateKey:"}, []string{"experimental", "criSocket"}},
		{"v1.23.17.join", []string{"kubeadm.k8s.io/v1beta3", "node-ip: 192.168.1.123"}, []string{"criSocket", "--cri-socket"}},
		{"v1.23.17.init-containerd", []string{"criSocket: /run/containerd/containerd.sock"}, nil},
		{"v1.35.2.init-cgroup1", []string{"failCgroupV1: false", "--ignore-preflight-errors=SystemVerification"}, nil},
		{"v1.35.2.join-cgroup1", []string{"--ignore-preflight-errors=SystemVerification", "kubeletconfiguration0+merge.json", `{"failCgroupV1":false}`, "directory: /etc/kubernetes/capplunder/patches"}, nil},
		{"v1.36.4.init-patches", []string{"max-pods", "name: node-ip", "name: provider-id", "audit-log-maxage", "- only.example\n", "- 192.168.1.123\n", "maxPods: 250", "memory.available: 500Mi", "mode: ipvs", "imageRepository: registry.example:5000/kubernetes", "apiVersion: kubeadm.k8s.io/v1beta4\nclusterName"}, []string{"maxPods: 200", "v1beta3"}},
		{"v1.36.4.join-patches", []string{"max-pods", "name: provider-id", "example.com/gpu", `"maxPods":250`}, []string{"ipvs"}},
		{"v1.28.3.join-patches", []string{"max-pods: \"200\"", "provider-id: plunder://", `"maxPods":250`}, nil},
		{"v1.41.0.init", []string{"kubeadm.k8s.io/v1beta4"}, nil},
	} {
		c, ok := kubeadmCases()[tt.name]
		if !ok {
			c = kubeadmCase{version: strings.TrimSuffix(strings.TrimPrefix(tt.name, "v"), ".join"), join: true}
		}
		m, err := c.build()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		text := render(t, m)
		for _, w := range tt.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %q is missing", tt.name, w)
			}
		}
		for _, n := range tt.never {
			if strings.Contains(text, n) {
				t.Errorf("%s: %q must not be there", tt.name, n)
			}
		}
	}
}

// TestSecretsStayInBundles: of all maps, no command and nothing that may be printed has
// a secret in it.
func TestSecretsStayInBundles(t *testing.T) {
	list := map[string]wire.Map{}
	for name, c := range kubeadmCases() {
		m, err := c.build()
		if err != nil {
			t.Fatal(err)
		}
		list[name] = m
		in := harmless()
		m, err = translate.ControlPlaneWork("job", in.target(), kubeadmCase{version: "1.14.2"}.kubernetes(), translate.Work{
			Spent: []string{"spent1"}, Tokens: []translate.Token{{ID: "abcdef", Secret: secretToken, For: "w-x7f3q"}}, Expires: time.Unix(0, 0), CertKey: secretCertKey,
			Nodes: []translate.WantedNode{{Name: "w", ProviderID: "plunder://00:50:56:a5:11:20"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		list["work"] = m
	}
	for name, m := range list {
		in := harmless()
		in.TokenSecret = secretToken
		checkMap(t, name, m, in)
		for _, a := range m.Deployments[0].Actions {
			for _, secret := range []string{secretToken, secretCertKey, "planted key"} {
				if strings.Contains(a.Command, secret) || strings.Contains(a.Command, base64.StdEncoding.EncodeToString([]byte(secret))[:12]) {
					t.Errorf("%s: %s has %s in its command", name, a.Name, secret)
				}
			}
		}
	}
	tok := translate.Token{ID: "abcdef", Secret: secretToken, For: "w-x7f3q"}
	for _, v := range []any{
		translate.InitInput{Token: tok, CertKey: secretCertKey, PKI: secretPKI()},
		translate.JoinInput{Token: tok, CertKey: secretCertKey, PKI: secretPKI()},
		translate.Work{Tokens: []translate.Token{tok}, CertKey: secretCertKey},
	} {
		for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
			if s := fmt.Sprintf(form, v); strings.Contains(s, secretToken) || strings.Contains(s, secretCertKey) || strings.Contains(s, "planted key") {
				t.Errorf("%s of %T shows a secret: %s", form, v, s)
			}
		}
	}
}

// TestKubeadmRefusals: what cannot be is said, and no error shows a secret.
func TestKubeadmRefusals(t *testing.T) {
	good := kubeadmCase{version: "1.34.1", cp: true}
	patch := func(p map[string]any) func(*translate.Kubernetes) {
		return func(k *translate.Kubernetes) { k.KubeadmPatches = []map[string]any{p} }
	}
	node := func(field string, v any) map[string]any {
		return map[string]any{"kind": "InitConfiguration", "nodeRegistration": map[string]any{field: v}}
	}
	for name, tt := range map[string]struct {
		change func(*translate.Kubernetes)
		want   string
	}{
		"name":               {patch(node("name", "other")), "nodeRegistration.name of InitConfiguration is capplunder's to write"},
		"registration":       {patch(map[string]any{"kind": "InitConfiguration", "nodeRegistration": nil}), "nodeRegistration.name"},
		"token":              {patch(map[string]any{"kind": "InitConfiguration", "bootstrapTokens": []any{}}), "bootstrapTokens"},
		"certificate key":    {patch(map[string]any{"kind": "InitConfiguration", "certificateKey": secretCertKey}), "certificateKey"},
		"provider ID":        {patch(node("kubeletExtraArgs", []any{map[string]any{"name": "provider-id", "value": "x"}})), "provider-id"},
		"host name":          {patch(node("kubeletExtraArgs", []any{map[string]any{"name": "hostname-override", "value": "x"}})), "hostname-override"},
		"arguments as a map": {patch(node("kubeletExtraArgs", map[string]any{"v": "2"})), "is not a list of name and value"},
		"kubelet's ID":       {patch(map[string]any{"kind": "KubeletConfiguration", "providerID": "x"}), "providerID"},
		"discovery":          {patch(map[string]any{"kind": "JoinConfiguration", "discovery": map[string]any{}}), "discovery"},
		"control plane":      {patch(map[string]any{"kind": "JoinConfiguration", "controlPlane": nil}), "controlPlane"},
		"version":            {patch(map[string]any{"kind": "ClusterConfiguration", "kubernetesVersion": "v1.2.3"}), "kubernetesVersion"},
		"certificates":       {patch(map[string]any{"kind": "ClusterConfiguration", "certificatesDir": "/x"}), "certificatesDir"},
		"kind":               {patch(map[string]any{"kind": "Pod"}), "kubeadmPatches[0]"},
		"vip without IP": {func(k *translate.Kubernetes) {
			k.VIP = &capi.VIP{}
			k.Endpoint = capi.Endpoint{Host: "api.example", Port: 6443}
		}, "must be an IPv4 address that no machine has"},
		"vip on the machine": {func(k *translate.Kubernetes) {
			k.VIP = &capi.VIP{}
			k.Endpoint = capi.Endpoint{Host: "192.168.1.123", Port: 6443}
		}, "that no machine has"},
		"endpoint": {func(k *translate.Kubernetes) { k.Endpoint = capi.Endpoint{Host: "$(reboot)", Port: 6443} }, "control plane endpoint"},
		"port":     {func(k *translate.Kubernetes) { k.Endpoint = capi.Endpoint{Host: "10.0.0.9", Port: 70000} }, "70000"},
	} {
		k := good.kubernetes()
		tt.change(k)
		in := harmless()
		_, err := translate.Init("job", in.target(), k, good.facts(), translate.InitInput{Token: translate.Token{ID: "abcdef", Secret: secretToken, For: "w-x7f3q"}})
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secretCertKey) || strings.Contains(err.Error(), secretToken) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}

	in := harmless()
	tok := translate.Token{ID: "abcdef", Secret: secretToken, For: "w-x7f3q"}
	half := secretPKI()
	delete(half, capi.PKIEtcd)
	for name, err := range map[string]error{
		"two ways": second(translate.Join("job", in.target(), good.kubernetes(), good.facts(), translate.JoinInput{Token: tok, CertKey: secretCertKey, PKI: secretPKI(), Endpoint: capi.Endpoint{Host: "10.0.0.9", Port: 6443}, CAHash: harmlessHash})),
		"no way":   second(translate.Join("job", in.target(), good.kubernetes(), good.facts(), translate.JoinInput{Token: tok, Endpoint: capi.Endpoint{Host: "10.0.0.9", Port: 6443}, CAHash: harmlessHash})),
		"endpoint": second(translate.Join("job", in.target(), good.kubernetes(), good.facts(), translate.JoinInput{Token: tok, CertKey: secretCertKey, CAHash: harmlessHash})),
		"half":     second(translate.Init("job", in.target(), good.kubernetes(), good.facts(), translate.InitInput{Token: tok, PKI: half})),
		"key form": second(translate.Init("job", in.target(), good.kubernetes(), good.facts(), translate.InitInput{Token: tok, CertKey: secretCertKey + "x"})),
		"1.13":     second(translate.ControlPlaneWork("job", in.target(), kubeadmCase{version: "1.13.12"}.kubernetes(), translate.Work{CertKey: secretCertKey})),
		"node":     second(translate.ControlPlaneWork("job", in.target(), good.kubernetes(), translate.Work{Nodes: []translate.WantedNode{{Name: "a b", ProviderID: "plunder://00:50:56:a5:11:20"}}})),
		"ID":       second(translate.ControlPlaneWork("job", in.target(), good.kubernetes(), translate.Work{Nodes: []translate.WantedNode{{Name: "a", ProviderID: "plunder://$(reboot)"}}})),
		"spent":    second(translate.ControlPlaneWork("job", in.target(), good.kubernetes(), translate.Work{Spent: []string{"abcde;"}})),
	} {
		if err == nil || strings.Contains(err.Error(), "beef") || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// kubeadmVectors are what kubeadm gets in the vectors of vectors_test.go, by their names.
// The keys are those of installVector.must.
func kubeadmVectors() map[string]struct{ must, mustNot map[string][]string } {
	type texts = map[string][]string
	return map[string]struct{ must, mustNot map[string][]string }{
		"1 noble, alone": {
			texts{"init.files": {"kubeadm.k8s.io/v1beta4", "- name: node-ip\n    value: 192.168.1.123", "- name: provider-id\n    value: plunder://00:50:56:a5:11:20", "taints: []\n"}},
			texts{"init.files": {"certificateKey", "imageRepository"}, "init": {"--upload-certs"}},
		},
		"2 trixie, three control planes": {
			texts{"init": {"--skip-token-print --skip-certificate-key-print --upload-certs"}, "init.files": {"certificateKey: " + vectorKey, "controlPlaneEndpoint: 10.0.0.9:6443", "certSANs:\n  - 10.0.0.9\n  - 192.168.1.123\n  - api.x\n  - cp-abcde\n"}},
			texts{"init.files": {"taints"}},
		},
		"3 rocky 9, another control plane": {
			texts{
				"work": {"init phase upload-certs --upload-certs --skip-certificate-key-print --config $R/upload.yaml >/dev/null"}, "work.files": {"certificateKey: " + vectorKey, "kubernetesVersion: v1.36.4"},
				"join": {"kubeadm join --config $R/join.yaml", "--cri-socket=unix:///run/containerd/containerd.sock"}, "join.files": {"controlPlane:\n  certificateKey: " + vectorKey},
			},
			nil,
		},
		"4 rhel 9, worker": {
			texts{"join": {"kubeadm join --config $R/join.yaml"}, "join.files": {"caCertHashes:\n    - " + harmlessHash}},
			texts{"join.files": {"controlPlane:", "certkey"}, "work": {"upload-certs"}, "join": {"etcd"}},
		},
		"5 bookworm, an ended minor": {texts{"join.files": {"kubeadm.k8s.io/v1beta3", "kubeletExtraArgs:\n    node-ip: 192.168.1.123\n    provider-id: plunder://"}}, texts{"join.files": {"imageRepository"}}},
		"6 bionic, v1.14 from a mirror": {
			texts{"init.files": {"kubeadm.k8s.io/v1beta1", "imageRepository: registry.k8s.io"}}, texts{"init.files": {"criSocket"}, "init": {"--cri-socket"}},
		},
		"8 bionic, another control plane of v1.14": {
			texts{"work": {`upload-certs --experimental-upload-certs --config $R/upload.yaml --certificate-key "$(cat $R/certkey)" >/dev/null`}, "join": {`join --config $R/join.yaml --certificate-key "$(cat $R/certkey)"`}, "join.files": {"/run/capplunder/certkey 0600 root\n" + vectorKey}},
			texts{"join": {"--experimental-control-plane"}, "join.files": {"certificateKey"}},
		},
		"9 centos 7":                           {texts{"join.files": {"kubeadm.k8s.io/v1beta3"}}, nil},
		"10b rocky 8, cgroup v1 allowed":       {texts{"join": {"--ignore-preflight-errors=SystemVerification"}, "join.files": {`{"failCgroupV1":false}`}}, nil},
		"18 a minor that is not known yet":     {texts{"join.files": {"kubeadm.k8s.io/v1beta4"}}, nil},
		"19 containerd before its time":        {texts{"join.files": {"criSocket: /run/containerd/containerd.sock"}}, nil},
		"22 trixie, hooks, a fixed containerd": {texts{"init": {"hook.after#job"}, "init.files": {"/run/capplunder/hook-after 0700 root\necho after " + vectorHook}}, nil},
		"23 v1.13, three control planes with keys of ours": {
			texts{"join.files": {"/run/capplunder/pki/front-proxy-ca.key 0600 root\n" + vectorPassword, "kubeadm.k8s.io/v1beta1", "controlPlane:\n"}}, texts{"work": {"upload"}, "join": {"--certificate-key"}},
		},
	}
}

func TestKubeadmVectors(t *testing.T) {
	expected := kubeadmVectors()
	for _, v := range installVectors() {
		want, ok := expected[v.name]
		if !ok {
			continue
		}
		delete(expected, v.name)
		mp, err := v.plan()
		if err != nil {
			t.Fatal(err)
		}
		list, err := v.maps(mp)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		text := texts(t, list)
		for kind, all := range want.must {
			for _, w := range all {
				if !strings.Contains(text[kind], w) {
					t.Errorf("%s: %s: %q is missing in\n%s", v.name, kind, w, text[kind])
				}
			}
		}
		for kind, all := range want.mustNot {
			for _, n := range all {
				if strings.Contains(text[kind], n) {
					t.Errorf("%s: %s: %q must not be in\n%s", v.name, kind, n, text[kind])
				}
			}
		}
	}
	for name := range expected {
		t.Errorf("there is no vector %q", name)
	}
}

// kubeadmMaps are maps with every script of kubeadm that there is, for what is said of
// all scripts.
func kubeadmMaps(tb testing.TB) map[string]wire.Map {
	tb.Helper()
	out := map[string]wire.Map{}
	add := func(name string, m wire.Map, err error) {
		if err != nil {
			tb.Fatalf("%s: %v", name, err)
		}
		out[name] = m
	}
	for name, c := range kubeadmCases() {
		m, err := c.build()
		add(name, m, err)
	}
	everything := func(k *translate.Kubernetes) {
		k.HA, k.Endpoint, k.VIP = true, capi.Endpoint{Host: "10.0.0.9", Port: 6443}, &capi.VIP{}
		k.CNI = &capi.CNI{URL: "https://mirror.example/cni.yaml", SHA256: secretCertKey}
		k.Hooks = &capi.Hooks{After: "echo done"}
	}
	for name, c := range map[string]kubeadmCase{
		"init-everything": {version: "1.34.1", cp: true, change: everything}, "join-everything": {version: "1.34.1", join: true, cp: true, change: everything},
		"init-cni": {version: "1.21.14", cp: true, change: func(k *translate.Kubernetes) {
			k.CNI = &capi.CNI{Manifest: "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: flannel, namespace: kube-flannel}\n"}
		}},
	} {
		m, err := c.build()
		add(name, m, err)
	}
	in := harmless()
	k := kubeadmCase{version: "1.34.1"}.kubernetes()
	for name, w := range map[string]translate.Work{
		"work-ca": {}, "work-spent": {Spent: []string{"aaaaaa", "bbbbbb"}}, "work-nodes": {Nodes: []translate.WantedNode{{Name: "w", ProviderID: "plunder://00:50:56:a5:11:20"}}},
		"work-all": {Spent: []string{"aaaaaa"}, Tokens: []translate.Token{{ID: "abcdef", Secret: secretToken, For: "w-x7f3q"}}, CertKey: secretCertKey, Nodes: []translate.WantedNode{{Name: "w", ProviderID: "plunder://00:50:56:a5:11:20"}}},
	} {
		m, err := translate.ControlPlaneWork("job", in.target(), k, w)
		add(name, m, err)
	}
	_, public := sealingKey(tb)
	m, err := translate.ReadAdminMap("job", in.target(), k, public)
	add("kubeconfig-sealed", m, err)
	k.KubeconfigTransport = capi.KubeconfigPlain
	m, err = translate.ReadAdminMap("job", in.target(), k, nil)
	add("kubeconfig-plain", m, err)
	return out
}

func second(_ wire.Map, err error) error { return err }

// TestVIPManifest: a static pod that the kubelet can read, with what the objects say.
func TestVIPManifest(t *testing.T) {
	c := kubeadmCase{version: "1.34.1", cp: true, change: func(k *translate.Kubernetes) {
		k.HA, k.Endpoint, k.VIP = true, capi.Endpoint{Host: "10.0.0.9", Port: 8443}, &capi.VIP{Image: "registry.example/kube-vip:v1.1.2", Interface: "bond0.7"}
	}}
	for _, join := range []bool{false, true} {
		c.join = join
		m, err := c.build()
		if err != nil {
			t.Fatal(err)
		}
		text, ok := bundledFile(t, m, "/run/capplunder/kube-vip.yaml")
		var pod struct {
			Kind string `json:"kind"`
			Spec struct {
				HostNetwork bool `json:"hostNetwork"`
				Containers  []struct {
					Image string `json:"image"`
					Env   []struct{ Name, Value string }
				} `json:"containers"`
				Volumes []struct {
					HostPath struct{ Path, Type string } `json:"hostPath"`
				} `json:"volumes"`
			} `json:"spec"`
		}
		if err := yaml.UnmarshalStrict([]byte(text), &struct{}{}); err == nil || !ok {
			t.Fatalf("no manifest: %q", text)
		}
		if err := yaml.Unmarshal([]byte(text), &pod); err != nil {
			t.Fatal(err)
		}
		env := map[string]string{}
		for _, e := range pod.Spec.Containers[0].Env {
			env[e.Name] = e.Value
		}
		for name, want := range map[string]string{"address": "10.0.0.9", "port": "8443", "vip_interface": "bond0.7", "vip_arp": "true", "cp_enable": "true", "vip_leaderelection": "true", "kubernetes_addr": "192.168.1.123:6443"} {
			if env[name] != want {
				t.Errorf("%s is %q, want %q", name, env[name], want)
			}
		}
		if pod.Kind != "Pod" || !pod.Spec.HostNetwork || pod.Spec.Containers[0].Image != "registry.example/kube-vip:v1.1.2" || pod.Spec.Volumes[0].HostPath.Path != "/etc/kubernetes/admin.conf" {
			t.Errorf("%+v", pod)
		}
		// kubeadm init of 1.29 and newer needs the other kubeconfig at first; nobody else may have it.
		if got := strings.Contains(render(t, m), "vip /etc/kubernetes/super-admin.conf"); got == join {
			t.Errorf("join %v: super-admin.conf %v", join, got)
		}
	}
	c = kubeadmCase{version: "1.34.1", join: true, change: c.change}
	m, err := c.build()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := bundledFile(t, m, "/run/capplunder/kube-vip.yaml"); ok {
		t.Error("a worker holds the address, too")
	}
}

// TestReadWork: nodes by name, then by provider ID, from lines as kubectl prints them.
func TestReadWork(t *testing.T) {
	w := translate.Work{Nodes: []translate.WantedNode{
		{Name: "w-1", ProviderID: "plunder://00:00:00:00:00:01"}, {Name: "w-2", ProviderID: "plunder://00:00:00:00:00:02"},
		{Name: "w-3", ProviderID: "plunder://00:00:00:00:00:03"}, {Name: "w-4", ProviderID: "plunder://00:00:00:00:00:04"},
	}}
	out := `Warning: something on stderr
capplunder-node w-1      0a-1   v1.34.1   plunder://00:00:00:00:00:01   True     KubeletReady
capplunder-node w-1-x    0a-9   v1.34.1   plunder://00:00:00:00:00:09   True     KubeletReady
capplunder-node named    0a-2   v1.34.1   plunder://00:00:00:00:00:02   False    KubeletNotReady
capplunder-node w-3      0a-3   v1.34.1   <none>                        <none>   <none>
capplunder-node cut off
capplunder-nodes ok
capplunder-ca ` + base64.StdEncoding.EncodeToString([]byte(testCA)) + "\n"
	l := wire.Log{Entries: []wire.LogEntry{{Task: translate.TaskName("work.nodes", "job"), Entry: out}}}
	r, err := translate.ReadWork(l, "job", w)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]translate.Node{
		"w-1": {Name: "w-1", UID: "0a-1", Version: "v1.34.1", ProviderID: "plunder://00:00:00:00:00:01", Ready: true, Reason: "KubeletReady"},
		"w-2": {Name: "named", UID: "0a-2", Version: "v1.34.1", ProviderID: "plunder://00:00:00:00:00:02", Reason: "KubeletNotReady"},
		"w-3": {Name: "w-3", UID: "0a-3", Version: "v1.34.1"},
	}
	if diff := cmp.Diff(want, r.Nodes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if !strings.HasPrefix(r.CAHash, "sha256:") {
		t.Errorf("CA %q", r.CAHash)
	}
	if _, err := translate.ReadWork(wire.Log{}, "job", w); err == nil {
		t.Error("no log is no result")
	}
}

// testCA is some CA certificate.
const testCA = `-----BEGIN CERTIFICATE-----
MIIBgDCCASegAwIBAgIUM0uMCEusRFdmhJabMMti59BHS4AwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjMwODAxMTVaGA8yMTI2MTAz
MDA4MDExNVowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABFiuk1791HOQa/TPba6WCIZsmx+7J257Dcmoss7BMy1hMvHd6scO
TIXY55UiunhBOtO/f5dZtv9+sl7JPYJEWtCjUzBRMB0GA1UdDgQWBBTFqX3fywoq
dFtchssN1Mc6D41fqTAfBgNVHSMEGDAWgBTFqX3fywoqdFtchssN1Mc6D41fqTAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCID6e+YAwYGjJ79bJm47B
Zc+HMXwpn7SLv/iG66Fdq1FWAiAEw6QbRLZgwqdmqa+OocNw442IbvrsbDxcjkax
R4TSpw==
-----END CERTIFICATE-----
`
