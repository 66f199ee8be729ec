package capi_test

import (
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
)

func document(file, raw string) capi.Document {
	return capi.Document{Origin: capi.Origin{File: file, Document: 1, Line: 1}, Raw: []byte(raw)}
}

func TestDecodeWithKnownClusters(t *testing.T) {
	cluster := func(name, pods string) string {
		return `{apiVersion: cluster.x-k8s.io/v1alpha2, kind: Cluster, metadata: {name: ` + name + `, namespace: default}, spec: {clusterNetwork: {pods: {cidrBlocks: ["` + pods + `"]}}}}`
	}
	machine := []capi.Document{
		document("m.yaml", `{apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, metadata: {name: w}, spec: {ipaddress: 192.168.1.9}}`),
		document("m.yaml", `{apiVersion: cluster.x-k8s.io/v1alpha2, kind: Machine, metadata: {name: w, labels: {cluster.x-k8s.io/cluster-name: a}},
 spec: {bootstrap: {data: ""}, infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, name: w}}}`),
	}
	known := []capi.Document{document("store/a.yaml", cluster("a", "10.1.0.0/16")), document("store/b.yaml", cluster("b", "10.2.0.0/16"))}

	set, err := capi.DecodeOptions{Known: known}.Decode(machine)
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Clusters) != 1 || set.Clusters[0].Name != "a" || set.Machines[0].Cluster != set.Clusters[0] {
		t.Errorf("want the known cluster of the machine and no other: %+v", set.Clusters)
	}

	set, err = capi.DecodeOptions{Known: known}.Decode(append(machine, document("c.yaml", cluster("a", "10.9.0.0/16"))))
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Clusters) != 1 || set.Clusters[0].PodCIDRs[0] != "10.9.0.0/16" {
		t.Errorf("what is given counts, not what is known: %+v", set.Clusters[0])
	}

	_, err = capi.DecodeOptions{Known: known[1:]}.Decode(machine)
	if err == nil || !strings.Contains(err.Error(), "there is no Cluster default/a") {
		t.Errorf("err %v", err)
	}
	if _, err = (capi.DecodeOptions{Namespace: "other", Known: known}).Decode(machine); err == nil || strings.Contains(err.Error(), "store/") || !strings.Contains(err.Error(), "no Cluster other/a") {
		t.Errorf("a known object is nobody's mistake: %v", err)
	}
}
