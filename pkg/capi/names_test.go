package capi_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Of what is to be deleted only the names count: the rest of a manifest may have become
// wrong since.
func TestNames(t *testing.T) {
	t.Parallel()
	const list = `
apiVersion: v1
kind: List
items:
- {apiVersion: cluster.x-k8s.io/v1beta2, kind: Machine, metadata: {name: b, namespace: x}, spec: {clusterName: 7}}
- {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, metadata: {name: b}, spec: {nonsense: true}}
- {apiVersion: v1, kind: Secret, metadata: {name: s}}
---
apiVersion: cluster.x-k8s.io/v1alpha2
kind: Cluster
metadata: {name: c}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
`
	var docs []capi.Document
	for i, raw := range strings.Split(list, "---\n") {
		doc := document("f.yaml", raw)
		doc.Origin.Document = i + 1
		docs = append(docs, doc)
	}
	names, warnings, err := capi.DecodeOptions{DefaultNamespace: "y"}.Names(docs)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range names {
		got = append(got, n.Kind+" "+n.String()+" "+n.Origin.File)
	}
	if s := strings.Join(got, ", "); s != "Machine x/b f.yaml, Cluster y/c f.yaml" {
		t.Errorf("names: %s", s)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], `ConfigMap "m"`) {
		t.Errorf("warnings: %q", warnings)
	}
}

func TestNamesRefused(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"apiVersion: cluster.x-k8s.io/v1beta9\nkind: Machine\nmetadata: {name: a}":                        "v1beta9",
		"apiVersion: cluster.x-k8s.io/v1beta1\nkind: Machine\nmetadata: {generateName: a-}":               "generateName",
		"apiVersion: cluster.x-k8s.io/v1beta1\nkind: Machine\nmetadata: {name: A}":                        "metadata.name",
		"apiVersion: cluster.x-k8s.io/v1beta1\nkind: Machine\nmetadata: {name: a, namespace: other}":      "not the one asked for",
		"apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1\nkind: PlunderMachine\nmetadata: {name: a}": "no Cluster or Machine",
		"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}":                                            "no Cluster or Machine",
		"- a": "must be a mapping",
	} {
		_, _, err := capi.DecodeOptions{Namespace: "default"}.Names([]capi.Document{document("f.yaml", raw)})
		var bad *capi.InputError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", raw, err, want)
		}
	}
}
