package capi

import (
	"strings"
	"testing"
)

const fromCluster = `apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: m}
spec: {ipaddress: 192.168.1.5, fieldOfTomorrow: 1}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Machine
metadata: {name: m}
spec: {clusterName: c, infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, name: m}}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Machine
metadata: {name: other, namespace: n}
spec: {clusterName: c, infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: DockerMachine, name: other}}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata: {name: c}
`

func lenientDocs(file string) (docs []Document) {
	for i, raw := range strings.Split(fromCluster, "---\n") {
		docs = append(docs, Document{Origin: Origin{File: file, Document: i + 1}, Raw: []byte(raw)})
	}
	return docs
}

func TestLenient(t *testing.T) {
	set, err := DecodeOptions{Lenient: true}.Decode(lenientDocs(""))
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Machines) != 1 || len(set.Warnings) != 1 || !strings.Contains(set.Warnings[0], `(cluster): Machine n/other: left out: its infrastructure is "DockerMachine"`) {
		t.Errorf("%d machines, warnings %q", len(set.Machines), set.Warnings)
	}
	// What comes from a file is read strictly all the same, and so is everything unless
	// leniency was asked for.
	for _, tt := range []struct {
		lenient bool
		file    string
	}{{true, "f.yaml"}, {false, ""}} {
		_, err := DecodeOptions{Lenient: tt.lenient}.Decode(lenientDocs(tt.file))
		for _, want := range []string{"fieldOfTomorrow", "DockerMachine"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("lenient %v, file %q: %v", tt.lenient, tt.file, err)
			}
		}
	}
}

func TestLenientSaysWhereSomethingIsMissing(t *testing.T) {
	set, err := DecodeOptions{Lenient: true}.Decode(lenientDocs("")[1:])
	if err != nil {
		t.Fatal(err)
	}
	if err = set.Left(); err == nil || !strings.Contains(err.Error(), "there is no PlunderMachine default/m in the cluster") {
		t.Errorf("%v", err)
	}
}

func TestDefaultNamespace(t *testing.T) {
	docs := lenientDocs("")
	set, err := DecodeOptions{Lenient: true, DefaultNamespace: "team"}.Decode(docs)
	if err != nil || set.Machines[0].Namespace != "team" || set.Clusters[0].Namespace != "team" {
		t.Errorf("%+v, %v", set, err)
	}
	set, err = DecodeOptions{Lenient: true, DefaultNamespace: "team", Namespace: "asked"}.Decode(docs)
	if err != nil || set.Machines[0].Namespace != "asked" {
		t.Errorf("%+v, %v", set, err)
	}
}

// What is wrong with one machine of a cluster keeps no other from its work. A clone of
// a MachineDeployment is the usual one: Cluster API copies the template's spec, in which
// no address can be.
func TestLenientLeavesOutUnfitMachines(t *testing.T) {
	machine := func(name, spec, annotations string) []Document {
		return []Document{
			{Raw: []byte("apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1\nkind: PlunderMachine\nmetadata: {name: " + name + ", namespace: n}\nspec: {" + spec + "}\n")},
			{Raw: []byte("apiVersion: cluster.x-k8s.io/v1beta2\nkind: Machine\nmetadata: {name: " + name + ", namespace: n, annotations: {" + annotations + "}}\n" +
				"spec: {clusterName: c, bootstrap: {dataSecretName: ''}, infrastructureRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: PlunderMachine, name: " + name + "}}\n")},
		}
	}
	docs := []Document{{Raw: []byte("apiVersion: cluster.x-k8s.io/v1beta2\nkind: Cluster\nmetadata: {name: c, namespace: n}\n")}}
	docs = append(docs, machine("good", "ipaddress: 192.168.1.5", "")...)
	docs = append(docs, machine("clone-b", "deploymentType: preseed", "")...)
	docs = append(docs, machine("clone-a", "", "")...)
	docs = append(docs, machine("clone-paused", "", "cluster.x-k8s.io/paused: ''")...)
	docs = append(docs, machine("twice", "ipaddress: 192.168.1.5", "")...)
	docs = append(docs, machine("bare", "", "")[1]) // its PlunderMachine is missing

	set, err := DecodeOptions{Lenient: true}.Decode(docs)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Machines) != 1 || set.Machines[0].Name != "good" || len(set.Warnings) != 0 {
		t.Errorf("%d machines, warnings %q", len(set.Machines), set.Warnings)
	}
	left := set.Left()
	if left == nil {
		t.Fatal("nothing was left out")
	}
	for i, want := range []string{
		"Machine n/bare cannot be installed: Machine n/bare: spec.infrastructureRef.name: there is no PlunderMachine n/bare in the cluster",
		"Machine n/clone-a cannot be installed: PlunderMachine n/clone-a: spec.ipaddress: is required",
		"Machine n/clone-b cannot be installed: PlunderMachine n/clone-b: spec.ipaddress: is required",
		"Machine n/twice cannot be installed: PlunderMachine n/twice: spec.ipaddress: the address 192.168.1.5 is given to PlunderMachine n/good, too",
	} {
		if lines := strings.Split(left.Error(), "\n"); len(lines) != 4 || !strings.HasPrefix(strings.ReplaceAll(lines[i], " (line 4)", ""), want) {
			t.Errorf("line %d is not %q:\n%v", i, want, left)
		}
	}
	if next := set.Unfit[1:]; (&UnfitError{next}).NextCommand() != "kubectl edit plundermachines.infrastructure.cluster.x-k8s.io clone-a -n n" {
		t.Errorf("next: %s", (&UnfitError{next}).NextCommand())
	}

	// A Cluster in which something is wrong concerns all.
	docs[0].Raw = []byte("apiVersion: cluster.x-k8s.io/v1beta2\nkind: Cluster\nmetadata: {name: c, namespace: n}\nspec: {clusterNetwork: {pods: {cidrBlocks: [x]}}}\n")
	if _, err := (DecodeOptions{Lenient: true}).Decode(docs); err == nil || !strings.Contains(err.Error(), "Cluster n/c") || !strings.Contains(err.Error(), "clone-a") {
		t.Errorf("%v", err)
	}
	// Files are taken as a whole.
	for i := range docs {
		docs[i].Origin.File = "f.yaml"
	}
	if _, err := (DecodeOptions{Lenient: true}).Decode(docs[1:]); err == nil {
		t.Error("taken from files")
	}
}
