package capi_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// machine is a Machine with its PlunderMachine in v1beta1; the extra lines go
// below labels, spec of the Machine and spec of the PlunderMachine.
func machine(name, address, labels, spec, plunder string) string {
	return fmt.Sprintf(`---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Machine
metadata:
  name: %[1]s
  labels:
    x: y
%[3]sspec:
  clusterName: c
%[4]s  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, name: %[1]s}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata:
  name: %[1]s
spec:
  dockerVersion: ""
%[2]s%[5]s`, name, address, labels, spec, plunder)
}

// cluster is a Cluster with its PlunderCluster in v1beta1.
func cluster(metadata, spec, plunderMetadata, plunder string) string {
	return fmt.Sprintf(`---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata:
  name: c
%sspec:
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderCluster, name: c}
%s---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderCluster
metadata:
  name: c
%sspec:
%s`, metadata, spec, plunderMetadata, plunder)
}

const (
	controlPlane = "    cluster.x-k8s.io/control-plane: \"\"\n"
	addressOne   = "  ipaddress: 10.1.0.1\n"
	addressTwo   = "  ipaddress: 10.1.0.2\n"
)

func TestControlPlaneLabel(t *testing.T) {
	for _, test := range []struct {
		version, label string
		want           bool
		warns          bool
	}{
		{"v1alpha2", `"true"`, true, false},
		{"v1alpha2", `""`, false, true},
		{"v1alpha2", `"false"`, true, true},
		{"v1alpha3", `""`, true, false},
		{"v1alpha4", `""`, true, false},
		{"v1beta1", `""`, true, false},
		{"v1beta1", `"false"`, true, true},
		{"v1beta1", "", false, false},
		{"v1beta2", `"true"`, true, false},
	} {
		t.Run(test.version+" "+test.label, func(t *testing.T) {
			label := ""
			if test.label != "" {
				label = "    cluster.x-k8s.io/control-plane: " + test.label + "\n"
			}
			yaml := cluster("", "", "", "") + machine("m", addressOne, label+"    cluster.x-k8s.io/cluster-name: c\n", "", "")
			yaml = strings.ReplaceAll(yaml, "cluster.x-k8s.io/v1beta1\nkind: Machine", "cluster.x-k8s.io/"+test.version+"\nkind: Machine")
			if test.version == "v1beta2" {
				yaml = strings.ReplaceAll(yaml, "{apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine", "{apiGroup: infrastructure.cluster.x-k8s.io, kind: PlunderMachine")
			}
			set, err := text(t, yaml)
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Machines[0].ControlPlane; got != test.want {
				t.Errorf("control plane is %v", got)
			}
			if got := len(set.Warnings) > 0; got != test.warns {
				t.Errorf("warnings: %q", set.Warnings)
			}
		})
	}
}

func TestNamespaces(t *testing.T) {
	inRacks := strings.ReplaceAll(machine("m", addressOne, "", "", ""), "  name: m\n", "  name: m\n  namespace: racks\n")
	for _, test := range []struct {
		name, yaml, asked string
		want              string // namespace of the machine
		problem           string
	}{
		{"default before linking", cluster("", "", "", "") + strings.ReplaceAll(machine("m", addressOne, "", "", ""), "  name: m\n", "  name: m\n  namespace: default\n"), "", "default", ""},
		{"asked for", cluster("", "", "", "") + machine("m", addressOne, "", "", ""), "racks", "racks", ""},
		{"the one asked for", cluster("", "", "", "") + inRacks, "racks", "racks", ""},
		{"another than asked for", cluster("", "", "", "") + inRacks, "lab", "", `the namespace of the object, "racks", is not the one asked for, "lab"`},
		{"not a namespace", cluster("", "", "", "") + inRacks, "No!", "", `--namespace: "No!" is no valid name`},
	} {
		t.Run(test.name, func(t *testing.T) {
			set, err := textWith(t, test.yaml, capi.DecodeOptions{Namespace: test.asked})
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("got %v, want %s", err, test.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Machines[0].Namespace; got != test.want || set.Machines[0].Infra.Namespace != test.want || set.Clusters[0].Namespace != test.want {
				t.Errorf("the namespace is %s", got)
			}
		})
	}
}

// TestScalars: what YAML makes of values without quotes never changes them.
func TestScalars(t *testing.T) {
	for _, test := range []struct{ field, want, problem string }{
		// A sexagesimal number in YAML 1.1.
		{"macaddress: 00:50:56:11:20:33", "00:50:56:11:20:33", ""},
		{"macaddress: 10:20:30:40:50:59", "10:20:30:40:50:59", ""},
		{"macaddress: 00-50-56-A5-11-20", "00:50:56:a5:11:20", ""},
		{"macaddress: 0050.56A5.1120", "00:50:56:a5:11:20", ""},
		{"macaddress: ~", "", ""},
		{"macaddress:", "", ""},
		{"macaddress: \"\"", "", ""},
		{"macaddress: 1e10", "", `"1e10" is not a MAC address`},
		{"macaddress: {a: b}", "", "must be a string, not a mapping"},
		// Booleans in YAML 1.1, names today.
		{"deploymentType: on", "on", ""},
		{"deploymentType: y", "y", ""},
		{"deploymentType: no", "no", ""},
		{"deploymentType: true", "", `must be a string, not a boolean: write "true" in quotes`},
		{"deploymentType: 2024-01-01", "2024-01-01", ""},
		{"deploymentType: 007", "", `must be a string, not a number: write "007" in quotes`},
		{"dockerVersion: 18.06", "", `must be a string, not a number: write "18.06" in quotes`},
		{"dockerVersion: 18.06.3", "18.06.3", ""},
		{"dockerVersion: !!str 18.06", "18.06", ""},
		{"dockerVersion: !!int nope", "", `"nope" is not a number`},
	} {
		t.Run(test.field, func(t *testing.T) {
			yaml := strings.Replace(cluster("", "", "", "")+machine("m", addressOne, "", "", "  "+test.field+"\n"), "  dockerVersion: \"\"\n", "", 1)
			set, err := text(t, yaml)
			if test.problem != "" {
				if err == nil || !strings.Contains(err.Error(), test.problem) {
					t.Fatalf("got %v, want %s", err, test.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			spec := set.Machines[0].Infra.Spec
			got := map[string]string{"macaddress": spec.MACAddress, "deploymentType": spec.DeploymentType, "dockerVersion": spec.DockerVersion}
			name, _, _ := strings.Cut(test.field, ":")
			if got[name] != test.want {
				t.Errorf("got %q, want %q", got[name], test.want)
			}
		})
	}
}

// TestObjectIsUntouched: fields that are not ours, and the status, stay as they
// were, in the types that apimachinery wants.
func TestObjectIsUntouched(t *testing.T) {
	yaml := cluster("", "", "", "") + machine("m", addressOne, "", `  nodeDrainTimeout: 10s
  count: 3
  big: 18446744073709551615
  ratio: 0.5
  hex: 0x10
  flag: true
  day: 2024-01-01
  nothing: null
  base: &base {a: 1, b: 2}
  merged: {<<: *base, b: 3}
  list: [1, x, [false]]
`, "") + "status:\n  phase: Running\n  unknown: {deep: [1]}\n"
	set, err := text(t, yaml)
	if err != nil {
		t.Fatal(err)
	}
	spec, _ := set.Machines[0].Object["spec"].(map[string]any)
	for _, ours := range []string{"clusterName", "infrastructureRef"} {
		delete(spec, ours)
	}
	want := map[string]any{
		"nodeDrainTimeout": "10s", "count": int64(3), "big": 1.8446744073709552e19, "ratio": 0.5, "hex": int64(16), "flag": true,
		"day": "2024-01-01", "nothing": nil,
		"base":   map[string]any{"a": int64(1), "b": int64(2)},
		"merged": map[string]any{"a": int64(1), "b": int64(3)},
		"list":   []any{int64(1), "x", []any{false}},
	}
	if diff := cmp.Diff(want, spec); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	status := map[string]any{"phase": "Running", "unknown": map[string]any{"deep": []any{int64(1)}}}
	if diff := cmp.Diff(any(status), set.Machines[0].Infra.Object["status"]); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestPaused(t *testing.T) {
	const annotated = "  annotations: {cluster.x-k8s.io/paused: \"\"}\n"
	m := machine("m", addressOne, "", "", "")
	for name, test := range map[string]struct {
		yaml          string
		cluster, mach bool
	}{
		"nothing":                {cluster("", "", "", "") + m, false, false},
		"spec of the cluster":    {cluster("", "  paused: true\n", "", "") + m, true, true},
		"cluster":                {cluster(annotated, "", "", "") + m, true, true},
		"machine":                {cluster("", "", "", "") + strings.Replace(m, "  labels:\n", annotated+"  labels:\n", 1), false, true},
		"its plunder machine":    {cluster("", "", "", "") + strings.Replace(m, "  name: m\nspec:\n  docker", "  name: m\n"+annotated+"spec:\n  docker", 1), false, true},
		"explicitly not":         {cluster("", "  paused: false\n", "", "") + m, false, false},
		"only plundercluster":    {cluster("", "", annotated, "") + m, false, false},
		"unrelated annotations":  {cluster("  annotations: {a: b}\n", "", "", "") + m, false, false},
		"value does not matter!": {cluster("  annotations: {cluster.x-k8s.io/paused: \"false\"}\n", "", "", "") + m, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := text(t, test.yaml)
			if err != nil {
				t.Fatal(err)
			}
			if set.Clusters[0].Paused != test.cluster || set.Machines[0].Paused != test.mach {
				t.Errorf("paused: cluster %v, machine %v", set.Clusters[0].Paused, set.Machines[0].Paused)
			}
		})
	}
}

func TestManagedByIsKept(t *testing.T) {
	set, err := text(t, cluster("", "", "  annotations: {cluster.x-k8s.io/managed-by: someone}\n", "")+machine("m", addressOne, "", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Clusters[0].Infra.Annotations[capi.AnnotationManagedBy]; got != "someone" {
		t.Errorf("got %q", got)
	}
}

func TestStaticAddress(t *testing.T) {
	set, err := text(t, cluster("", "", "", "  staticIP: 10.1.0.9\n  staticMAC: 00-50-56-A5-11-20\n")+
		machine("cp", "", controlPlane, "", "")+machine("w", addressTwo, "", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Machines[0].Infra.Spec.IPAddress; got != "10.1.0.9" {
		t.Errorf("the control plane machine has the address %q", got)
	}
	if got := set.Clusters[0].Infra.Spec.StaticMAC; got != "00:50:56:a5:11:20" {
		t.Errorf("the MAC address is %q", got)
	}
	if _, err := text(t, cluster("", "", "", "  staticIP: 10.1.0.9\n")+machine("w", "", "", "", "")); err == nil {
		t.Error("a worker without an address was accepted")
	}
}

// TestAllowed are inputs that look like a conflict and are none.
func TestAllowed(t *testing.T) {
	for name, yaml := range map[string]string{
		"control plane pinned to its own pool":     cluster("", "", "", "  controlPlaneMacPool: [\"00:50:56:a5:11:20\"]\n") + machine("cp", addressOne, controlPlane, "", "  macaddress: 00:50:56:a5:11:20\n"),
		"static MAC in the pool":                   cluster("", "", "", "  staticMAC: 00:50:56:a5:11:20\n  controlPlaneMacPool: [\"00:50:56:a5:11:20\"]\n") + machine("cp", addressOne, controlPlane, "", ""),
		"static address said twice":                cluster("", "", "", "  staticIP: 10.1.0.1\n") + machine("cp", addressOne, controlPlane, "", ""),
		"endpoint is the control plane machine":    cluster("", "  controlPlaneEndpoint: {host: 10.1.0.1, port: 6443}\n", "", "") + machine("cp", addressOne, controlPlane, "", ""),
		"endpoint is the static address":           cluster("", "  controlPlaneEndpoint: {host: 10.1.0.9, port: 6443}\n", "", "  staticIP: 10.1.0.9\n") + machine("cp", "", controlPlane, "", ""),
		"same endpoint twice":                      cluster("", "  controlPlaneEndpoint: {host: api.example.com, port: 6443}\n", "", "  controlPlaneEndpoint: {host: api.example.com}\n") + machine("cp", addressOne, controlPlane, "", ""),
		"loopback":                                 cluster("", "", "", "") + machine("w", "  ipaddress: 127.0.5.1\n", "", "", ""),
		"two families of pod and service ranges":   cluster("", "  clusterNetwork: {pods: {cidrBlocks: [10.244.0.0/16, \"fd00:1::/56\"]}, services: {cidrBlocks: [10.96.0.0/16, \"fd00:2::/112\"]}}\n", "", "") + machine("w", addressOne, "", "", ""),
		"default pod range without Kubernetes":     cluster("", "", "", "") + machine("w", "  ipaddress: 10.244.3.4\n", "", "", ""),
		"provider ID of the pinned machine":        cluster("", "", "", "") + machine("w", addressOne, "", "  providerID: plunder://00:50:56:a5:11:20\n", "  macaddress: 00:50:56:A5:11:20\n  providerID: plunder://00:50:56:a5:11:20\n"),
		"repository":                               cluster("", "", "", "") + machine("w", addressOne, "", "", "  repo: {apt: \"deb [signed-by=/etc/apt/keyrings/k.gpg] https://mirror.example.com/apt/ kubernetes-xenial main\", key: \"https://mirror.example.com/key.asc\"}\n"),
		"repository of pkgs.k8s.io":                cluster("", "", "", "") + machine("w", addressOne, "", "", "  repo: {apt: \"deb https://pkgs.k8s.io/core:/stable:/v1.34/deb/ /\", key: \"https://pkgs.k8s.io/core:/stable:/v1.34/deb/Release.key\"}\n"),
		"own pools of several control plane hosts": cluster("", "", "", "") + machine("a", addressOne, controlPlane, "", "  controlPlaneMacPool: [\"00:50:56:a5:11:20\", \"00:50:56:a5:11:21\"]\n") + machine("b", addressTwo, controlPlane, "", "  controlPlaneMacPool: [\"00:50:56:a5:11:20\", \"00:50:56:a5:11:21\"]\n"),
		"anchors and merge keys":                   cluster("", "", "", "") + machine("w", addressOne, "", "", "") + "---\n" + "apiVersion: v1\nkind: List\nitems:\n- &m\n  apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1\n  kind: PlunderMachine\n  metadata: {name: x}\n  spec: {ipaddress: 10.1.0.7}\n- <<: *m\n  metadata: {name: y}\n  spec: {ipaddress: 10.1.0.8}\n",
		"a cluster without machines":               cluster("", "", "", ""),
		"a cluster without infrastructure":         "apiVersion: cluster.x-k8s.io/v1beta1\nkind: Cluster\nmetadata: {name: c}\n---\n" + machine("w", addressOne, "", "", ""),
		"names with dots":                          cluster("", "", "", "") + machine("node-1.rack-2.example.com", addressOne, "", "", ""),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := text(t, yaml); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	yaml := cluster("", "", "", "") + machine("w", addressOne, "", "", "  controlPlaneMacPool: [\"00:50:56:a5:11:20\"]\n") + `---
apiVersion: cluster.x-k8s.io/v1beta1
kind: MachineDeployment
metadata: {name: md}
---
apiVersion: bootstrap.cluster.x-k8s.io/v1beta1
kind: KubeadmConfig
metadata: {name: kc}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {password: hunter2}
---
apiVersion: management.cattle.io/v3
kind: Cluster
metadata: {name: other}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: orphan}
spec: {ipaddress: 10.1.0.3}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderCluster
metadata: {name: orphan}
`
	set, err := text(t, yaml)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`-:32: PlunderMachine default/w: spec.controlPlaneMacPool: has no effect: Machine default/w is a worker`,
		`-:34: MachineDeployment "md": ignored: without the Cluster API controllers nothing makes Machines of it, write each Machine down`,
		`-:38: KubeadmConfig "kc": ignored: only Cluster API controllers read it; where they are, kubectl apply it`,
		`-:42: Secret "s": ignored: not an object of the Cluster API`,
		`-:47: Cluster "other": ignored: not an object of the Cluster API`,
		`-:51: PlunderMachine default/orphan: no Machine refers to it: nothing is deployed for it`,
		`-:56: PlunderCluster default/orphan: no Cluster refers to it: it has no effect`,
	}
	if diff := cmp.Diff(want, set.Warnings); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSecretsStayOut: bootstrap data and Secrets can hold keys, so no problem
// repeats them.
func TestSecretsStayOut(t *testing.T) {
	const secret = "9071237845"
	_, err := text(t, cluster("", "", "", "")+machine("w", addressOne, "", "  bootstrap: {data: "+secret+"}\n", "")+
		"---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: "+secret+", b: !x "+secret+"}\n")
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("got %v", err)
	}
}

func TestBootstrap(t *testing.T) {
	set, err := text(t, cluster("", "", "", "")+
		machine("a", addressOne, "", "  bootstrap: {dataSecretName: \"\"}\n", "")+
		machine("b", addressTwo, "", "  bootstrap: {dataSecretName: b-data, data: abc}\n", "")+
		machine("c", "  ipaddress: 10.1.0.3\n", "", "", ""))
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := set.Machines[0], set.Machines[1], set.Machines[2]
	if a.DataSecretName == nil || *a.DataSecretName != "" {
		t.Error("an empty secret name is not absent")
	}
	if b.DataSecretName == nil || *b.DataSecretName != "b-data" || b.BootstrapData != "abc" {
		t.Error("the secret name or data is lost")
	}
	if c.DataSecretName != nil {
		t.Error("an absent secret name is there")
	}
}

// TestOrderDoesNotMatter: the same objects in any order make the same set.
func TestOrderDoesNotMatter(t *testing.T) {
	parts := strings.Split(strings.TrimPrefix(cluster("", "", "", "")+machine("b", addressTwo, controlPlane, "", "")+machine("a", addressOne, "", "", ""), "---\n"), "---\n")
	forward, err := text(t, strings.Join(parts, "---\n"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(parts)
	backward, err := text(t, strings.Join(parts, "---\n"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range forward.Machines {
		if forward.Machines[i].Key != backward.Machines[i].Key {
			t.Error("the order of machines depends on that of the input")
		}
	}
	if forward.Machines[0].Name != "a" {
		t.Error("machines are not sorted")
	}
}

// TestUnreadableDocument: what cannot be read may be what others refer to, so they
// are not blamed.
func TestUnreadableDocument(t *testing.T) {
	_, err := text(t, cluster("", "", "", "")+machine("w", "\tipaddress: 10.1.0.1\n", "", "", ""))
	want := []string{"-:31: not valid YAML: a tab in the indentation, use spaces"}
	if diff := cmp.Diff(want, problems(t, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSeveralFiles: a problem names both files, in the order in which they were given.
func TestSeveralFiles(t *testing.T) {
	doc := func(file, raw string) capi.Document {
		return capi.Document{Origin: capi.Origin{File: file, Document: 1, Line: 1}, Raw: []byte(raw)}
	}
	parts := strings.Split(strings.TrimPrefix(cluster("", "", "", "")+machine("a", addressOne, "", "", "")+machine("b", addressOne, "", "", "  color: red\n"), "---\n"), "---\n")
	_, err := capi.Decode([]capi.Document{
		doc("z.yaml", parts[0]), doc("z.yaml", parts[1]), doc("y.yaml", parts[2]), doc("y.yaml", parts[3]), doc("x.yaml", parts[5]), doc("w.yaml", parts[4]),
	})
	want := []string{
		"x.yaml:7: PlunderMachine default/b: spec.ipaddress: the address 10.1.0.1 is given to PlunderMachine default/a (y.yaml:7), too",
		`x.yaml:8: PlunderMachine default/b: spec: unknown field "color"`,
	}
	if diff := cmp.Diff(want, problems(t, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSeveralInOneDocument: nothing after the first YAML document is dropped silently.
func TestSeveralInOneDocument(t *testing.T) {
	_, err := capi.Decode([]capi.Document{{Origin: capi.Origin{File: "f", Document: 1, Line: 10}, Raw: []byte("apiVersion: v1\nkind: Namespace\n---\na: b\n")}})
	if err == nil || !strings.HasPrefix(err.Error(), "f:1") || !strings.Contains(err.Error(), "more than one YAML document") {
		t.Errorf("got %v", err)
	}
}

func TestNothing(t *testing.T) {
	set, err := capi.Decode(nil)
	if err != nil || len(set.Machines)+len(set.Clusters) != 0 {
		t.Errorf("got %v, %v", set, err)
	}
}

// TestDeterministic: many problems come in the same order each time.
func TestDeterministic(t *testing.T) {
	yaml := "kind: \"\"\n---\n" + cluster("  labels: {\"a b\": x, \"c d\": y, \"e f\": z}\n", "", "", "  staticIP: 1\n  a: 1\n  b: 2\n") + machine("w", "", "", "", "  x: 1\n")
	_, err := text(t, yaml)
	first := err.Error()
	for range 20 {
		if _, err := text(t, yaml); err.Error() != first {
			t.Fatalf("once\n%s\nonce\n%v", first, err)
		}
	}
}

// TestConflicts between two clusters in one input.
func TestConflicts(t *testing.T) {
	second := func(s string) string {
		for from, to := range map[string]string{"name: c\n": "name: d\n", "name: c}": "name: d}", "clusterName: c\n": "clusterName: d\n"} {
			s = strings.ReplaceAll(s, from, to)
		}
		return s
	}
	endpoint := "  controlPlaneEndpoint: {host: 10.1.0.1, port: 6443}\n"
	pool := "  controlPlaneMacPool: [\"00:50:56:a5:11:20\"]\n"
	for name, test := range map[string]struct{ yaml, want string }{
		"endpoint": {cluster("", endpoint, "", "") + second(cluster("", endpoint, "", "")), "the endpoint 10.1.0.1:6443 is given to Cluster default/c (line 8), too"},
		"pool":     {cluster("", "", "", pool) + second(cluster("", "", "", pool)), "the MAC address 00:50:56:a5:11:20 is given to PlunderCluster default/c (line 14), too"},
		"endpoint of another's machine": {
			cluster("", "", "", "") + machine("cp", addressOne, controlPlane, "", "") + second(cluster("", endpoint, "", "")),
			"10.1.0.1 is the address of Machine default/cp (line 15), which is no control plane machine of this cluster",
		},
		"pinned to another's pool": {
			cluster("", "", "", pool) + second(cluster("", "", "", "")+machine("cp", addressOne, controlPlane, "", "  macaddress: 00:50:56:a5:11:20\n")),
			"the MAC address 00:50:56:a5:11:20 is given to PlunderMachine default/cp",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := text(t, test.yaml)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// TestInputErrorText: one problem is a line, several are counted.
func TestInputErrorText(t *testing.T) {
	p := capi.Problem{Origin: capi.Origin{File: "a.yaml", Document: 2, Line: 3}, Object: "Machine default/m", Field: "spec.version", Message: "is bad"}
	one := &capi.InputError{Problems: []capi.Problem{p}}
	if got := one.Error(); got != "a.yaml:3: Machine default/m: spec.version: is bad" {
		t.Errorf("got %q", got)
	}
	two := &capi.InputError{Problems: []capi.Problem{p, {Origin: capi.Origin{File: "b.yaml"}, Message: "is gone"}}}
	if got := two.Error(); got != "2 problems in the input\na.yaml:3: Machine default/m: spec.version: is bad\nb.yaml: is gone" {
		t.Errorf("got %q", got)
	}
	var input *capi.InputError
	if !errors.As(fmt.Errorf("read: %w", one), &input) {
		t.Error("not found when wrapped")
	}
}

func TestFormats(t *testing.T) {
	tests := map[string]struct {
		parse func(string) (string, error)
		good  map[string]string
		bad   []string
	}{
		"MAC": {capi.ParseMAC, map[string]string{
			"00:50:56:a5:11:20": "00:50:56:a5:11:20", "00-50-56-A5-11-20": "00:50:56:a5:11:20", "0050.56a5.1120": "00:50:56:a5:11:20",
			"02:00:00:00:00:01": "02:00:00:00:00:01",
		}, []string{"", "00:50:56:a5:11", "00:50-56:a5:11:20", "0:50:56:a5:11:20", "00:50:56:a5:11:2g", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "01:00:5e:00:00:01", "00:50:56:a5:11:20 "}},
		"IPv4": {func(s string) (string, error) { a, err := capi.ParseIPv4(s); return a.String(), err }, map[string]string{
			"192.168.1.123": "192.168.1.123", "127.0.0.1": "127.0.0.1", "1.0.0.0": "1.0.0.0", "223.255.255.255": "223.255.255.255",
		}, []string{"", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "0.1.2.3", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::ffff:1.2.3.4", "1.2.3.4%eth0", "1.2.3.4/32", " 1.2.3.4"}},
		"version": {capi.ParseVersion, map[string]string{"v1.34.1": "v1.34.1", "1.34.1": "v1.34.1", "v1.14.2": "v1.14.2", "v1.0.0": "v1.0.0"},
			[]string{"", "v", "1", "v1.34", "v1.34.01", "v01.34.1", "V1.34.1", "v1.34.1-rc.0", "v1.34.1+k3s1", "latest", "v1.34.1\n", "vv1.34.1", "v1.34.1.2", "v1.34.9999999"}},
		"provider ID": {capi.ParseProviderID, map[string]string{"plunder://00:50:56:A5:11:20": "00:50:56:a5:11:20"},
			[]string{"", "plunder://", "plunder:///00:50:56:a5:11:20", "aws://00:50:56:a5:11:20", "00:50:56:a5:11:20"}},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		test := tests[name]
		for in, want := range test.good {
			if got, err := test.parse(in); err != nil || got != want {
				t.Errorf("%s %q: got %q, %v", name, in, got, err)
			}
		}
		for _, in := range test.bad {
			if got, err := test.parse(in); err == nil {
				t.Errorf("%s %q was accepted as %q", name, in, got)
			}
		}
	}
}
