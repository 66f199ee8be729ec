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
	_, err := DecodeOptions{Lenient: true}.Decode(lenientDocs("")[1:])
	if err == nil || !strings.Contains(err.Error(), "there is no PlunderMachine default/m in the cluster") {
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
