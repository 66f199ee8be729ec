package translate_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// FuzzPatches: whatever a patch says, the node keeps its name, its provider ID and its
// token, the API server its names, and no document gets or loses a kind.
func FuzzPatches(f *testing.F) {
	for _, p := range []string{
		`{"kind":"InitConfiguration","nodeRegistration":{"taints":null,"kubeletExtraArgs":[]}}`,
		`{"kind":"InitConfiguration","nodeRegistration":{"kubeletExtraArgs":null}}`,
		`{"kind":"InitConfiguration","nodeRegistration":{"kubeletExtraArgs":{"node-ip":null}}}`,
		`{"kind":"InitConfiguration","nodeRegistration":{"kubeletExtraArgs":[{"name":"node-ip","value":"::1"}]}}`,
		`{"kind":"InitConfiguration","nodeRegistration":[]}`, `{"kind":"InitConfiguration","apiVersion":"x/v1"}`,
		`{"kind":"ClusterConfiguration","apiServer":null}`, `{"kind":"ClusterConfiguration","apiServer":{"certSANs":[7,"a"]}}`, `{"kind":"ClusterConfiguration","networking":null}`,
		`{"kind":"JoinConfiguration","patches":{"directory":"/x"}}`, `{"kind":"JoinConfiguration","controlPlane":null}`,
		`{"kind":"KubeletConfiguration","a":{"b":null},"cgroupDriver":null}`, `{"kind":"KubeProxyConfiguration","mode":"ipvs"}`, `{"kind":1}`, `{}`,
	} {
		f.Add(p, true)
		f.Add(p, false)
	}
	f.Fuzz(func(t *testing.T, text string, current bool) {
		var patch map[string]any
		if json.Unmarshal([]byte(text), &patch) != nil {
			return
		}
		c := kubeadmCase{version: map[bool]string{true: "1.36.4", false: "1.24.0"}[current], cp: true, change: func(k *translate.Kubernetes) {
			k.KubeadmPatches = []map[string]any{patch}
		}}
		for _, c.join = range []bool{false, true} {
			m, err := c.build()
			if err != nil {
				if strings.Contains(err.Error(), secretToken) || strings.Contains(err.Error(), secretCertKey) {
					t.Errorf("the error shows a secret: %v", err)
				}
				continue
			}
			in := harmless()
			checkMap(t, "patched", m, in)
			path := map[bool]string{false: "/run/capplunder/kubeadm.yaml", true: "/run/capplunder/join.yaml"}[c.join]
			docs, _ := bundledFile(t, m, path)
			for doc := range strings.SplitSeq(docs, "\n---\n") {
				checkIdentity(t, c, doc)
			}
		}
	})
}

// checkIdentity checks what no patch may change in a document of kubeadm.
func checkIdentity(t *testing.T, c kubeadmCase, doc string) {
	t.Helper()
	// As maps: encoding/json takes Kind for kind, which kubeadm does not.
	var d map[string]any
	if err := yaml.Unmarshal([]byte(doc), &d); err != nil {
		t.Fatalf("%v in %s", err, doc)
	}
	in := harmless()
	at := func(path ...any) any {
		var v any = d
		for _, p := range path {
			switch p := p.(type) {
			case string:
				m, _ := v.(map[string]any)
				v = m[p]
			case int:
				l, _ := v.([]any)
				if v = nil; p < len(l) {
					v = l[p]
				}
			}
		}
		return v
	}
	args := func() bool {
		var found []any
		switch a := at("nodeRegistration", "kubeletExtraArgs").(type) {
		case map[string]any:
			found = append(found, a["provider-id"])
		case []any:
			for _, x := range a {
				if m, _ := x.(map[string]any); m["name"] == "provider-id" {
					found = append(found, m["value"])
				}
			}
		}
		return len(found) == 1 && found[0] == capi.ProviderID(in.MAC)
	}
	version, _ := d["apiVersion"].(string)
	ok := strings.Contains(version, ".k8s.io/v1")
	switch d["kind"] {
	case "InitConfiguration":
		ok = ok && !c.join && at("bootstrapTokens", 0, "token") == "abcdef."+secretToken && at("bootstrapTokens", 1) == nil && at("nodeRegistration", "name") == in.Host && args()
	case "JoinConfiguration":
		ok = ok && c.join && at("discovery", "bootstrapToken", "token") == "abcdef."+secretToken && at("nodeRegistration", "name") == in.Host && args() && at("controlPlane", "certificateKey") == secretCertKey
	case "ClusterConfiguration":
		ok = ok && !c.join && d["kubernetesVersion"] == "v"+c.version && at("apiServer", "certSANs", 1) != nil
	case "KubeletConfiguration", "KubeProxyConfiguration":
	default:
		ok = false
	}
	if !ok {
		t.Errorf("%s", doc)
	}
}

// FuzzWork: names from outside are refused, or are in a file and in no script.
func FuzzWork(f *testing.F) {
	for _, evil := range []string{"a", "$(reboot)", "'; reboot; '", "a b", "a\nb", "*", "-n", "plunder://00:00:00:00:00:01"} {
		for field := range 4 {
			f.Add(field, evil)
		}
	}
	in := harmless()
	k := kubeadmCase{version: "1.34.1"}.kubernetes()
	build := func(spent, machine, name, id string) (wire.Map, error) {
		return translate.ControlPlaneWork("job", in.target(), k, translate.Work{
			Spent: []string{spent}, Tokens: []translate.Token{{ID: "abcdef", Secret: secretToken, For: machine}}, Expires: time.Unix(0, 0), Nodes: []translate.WantedNode{{Name: name, ProviderID: id}},
		})
	}
	shapes := map[string]string{}
	m, err := build("w-1", "w-2", "w", "plunder://00:50:56:a5:11:20")
	if err != nil {
		f.Fatal(err)
	}
	for _, a := range m.Deployments[0].Actions {
		_, text := script(f, a)
		shapes[a.Name] = shape(f, text)
	}
	f.Fuzz(func(t *testing.T, field int, value string) {
		values := [4]string{"w-1", "w-2", "w", "plunder://00:50:56:a5:11:20"}
		values[uint(field)%4] = value
		m, err := build(values[0], values[1], values[2], values[3])
		if err != nil {
			return
		}
		checkMap(t, "work", m, in)
		for _, a := range m.Deployments[0].Actions {
			if _, text := script(t, a); shape(t, text) != shapes[a.Name] {
				t.Errorf("%s has another structure:\n%s", a.Name, text)
			}
		}
	})
}

// FuzzReadWork: whatever a control plane prints, its nodes are those that were asked for.
func FuzzReadWork(f *testing.F) {
	f.Add("capplunder-node w u v p True r\ncapplunder-ca AAAA\n")
	f.Add("capplunder-node <none> <none> <none> <none> <none> <none>\n")
	w := translate.Work{Nodes: []translate.WantedNode{{Name: "w", ProviderID: "plunder://00:50:56:a5:11:20"}}}
	f.Fuzz(func(t *testing.T, text string) {
		l := wire.Log{Entries: []wire.LogEntry{{Task: translate.TaskName("work.nodes", "job"), Entry: text}}}
		r, err := translate.ReadWork(l, "job", w)
		if err != nil {
			return
		}
		for name, n := range r.Nodes {
			if name != "w" || n.Name != "w" && n.ProviderID != w.Nodes[0].ProviderID {
				t.Errorf("%s: %+v", name, n)
			}
		}
	})
}
