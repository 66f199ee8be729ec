package state

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// What of the Kubernetes store needs no API server to be tested.

func TestContains(t *testing.T) {
	for _, tt := range []struct {
		whole, part string
		want        bool
	}{
		{`{a: 1, b: 2}`, `{a: 1}`, true},
		{`{a: 1}`, `{a: 2}`, false},
		{`{a: 1}`, `{b: 1}`, false},
		{`{a: {b: [x, {c: 1, d: 2}]}}`, `{a: {b: [x, {c: 1}]}}`, true},
		{`{a: [x, y]}`, `{a: [y, x]}`, false},
		{`{a: [x, y]}`, `{a: [x]}`, false},
		{`{a: x}`, `{a: {b: 1}}`, false},
		{`{a: x}`, `{a: {}}`, false},
		{`{}`, `{a: {}}`, true}, // an empty mapping says nothing
		{`{}`, `{a: null}`, true},
		{`{a: 1}`, `{a: null}`, false},
		{`{a: "1"}`, `{a: 1}`, false},
		{`{a: false}`, `{a: false}`, true},
	} {
		if got := contains(given(t, tt.whole), given(t, tt.part)); got != tt.want {
			t.Errorf("%s in %s: %v", tt.part, tt.whole, got)
		}
	}
}

func TestToApply(t *testing.T) {
	text := `
apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata:
  name: c
  namespace: ns
  uid: 4711
  resourceVersion: "7"
  finalizers: [cluster.cluster.x-k8s.io]
  ownerReferences: [{kind: X}]
  managedFields: [{manager: kubectl}]
  labels: {a: b}
spec:
  controlPlaneEndpoint: {host: "", port: 0}
  paused: false
`
	o, err := toApply(given(t, text))
	must(t, err)
	hash := o.text("metadata", "annotations", annotationGiven)
	if !strings.HasPrefix(hash, "sha256:") {
		t.Errorf("hash %q", hash)
	}
	wantJSON(t, "metadata", o["metadata"], `{"name":"c","namespace":"ns","labels":{"a":"b"},"annotations":{"`+annotationGiven+`":"`+hash+`"}}`)
	wantJSON(t, "spec", o["spec"], `{"paused":false}`)
	again, err := toApply(given(t, strings.Replace(text, "uid: 4711", "uid: 4712", 1)))
	must(t, err)
	other, err := toApply(given(t, strings.Replace(text, "paused: false", "paused: true", 1)))
	must(t, err)
	if again.text("metadata", "annotations", annotationGiven) != hash || other.text("metadata", "annotations", annotationGiven) == hash {
		t.Error("the hash is not that of what is applied")
	}
}

func TestOwn(t *testing.T) {
	machine := &unstructured.Unstructured{Object: given(t, `{apiVersion: cluster.x-k8s.io/v1beta1, kind: Machine, metadata: {name: m, uid: new}}`)}
	for _, tt := range []struct{ name, before, after string }{
		{"none", `[]`, `[{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"Machine","name":"m","uid":"new","controller":true,"blockOwnerDeletion":true}]`},
		{
			"in another version, with another UID", `[{apiVersion: cluster.x-k8s.io/v1alpha3, kind: Machine, name: m, uid: old}]`,
			`[{"apiVersion":"cluster.x-k8s.io/v1alpha3","kind":"Machine","name":"m","uid":"new"}]`,
		},
		{
			"a kind of the same name elsewhere", `[{apiVersion: other.io/v1, kind: Machine, name: m, uid: x}]`,
			`[{"apiVersion":"other.io/v1","kind":"Machine","name":"m","uid":"x"},{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"Machine","name":"m","uid":"new","controller":true,"blockOwnerDeletion":true}]`,
		},
		{
			"somebody controls it", `[{apiVersion: x/v1, kind: X, name: x, uid: x, controller: true}]`,
			`[{"apiVersion":"x/v1","kind":"X","name":"x","uid":"x","controller":true}]`,
		},
		{
			"another Machine", `[{apiVersion: cluster.x-k8s.io/v1beta1, kind: Machine, name: other, uid: x}]`,
			`[{"apiVersion":"cluster.x-k8s.io/v1beta1","kind":"Machine","name":"other","uid":"x"}]`,
		},
	} {
		o := object(given(t, `{metadata: {ownerReferences: `+tt.before+`}}`))
		own(o, machine, true)
		wantJSON(t, tt.name, map[string]any{"refs": o.at("metadata")["ownerReferences"]}, `{"refs":`+tt.after+`}`)
	}
}

func TestFinalizers(t *testing.T) {
	o := object(given(t, `{metadata: {finalizers: [theirs, plundernmachine.infrastructure.cluster.x-k8s.io]}}`))
	hold(o)
	hold(o)
	wantJSON(t, "held", map[string]any{"f": o.at("metadata")["finalizers"]}, `{"f":["theirs","plundernmachine.infrastructure.cluster.x-k8s.io","`+Finalizer+`"]}`)
	must(t, letGo(o))
	wantJSON(t, "let go", map[string]any{"f": o.at("metadata")["finalizers"]}, `{"f":["theirs"]}`)
	o = object{}
	hold(o)
	must(t, letGo(o))
	if _, ok := o.at("metadata")["finalizers"]; ok {
		t.Errorf("an empty list stays: %v", o)
	}
}

// liveView reads the objects of manifests into a view, as if a cluster had them.
func liveView(t *testing.T, texts ...string) *view {
	t.Helper()
	v := &view{
		clusters: map[capi.Key]*unstructured.Unstructured{}, plunderClusters: map[capi.Key]*unstructured.Unstructured{},
		machines: map[capi.Key]*unstructured.Unstructured{}, plunderMachines: map[capi.Key]*unstructured.Unstructured{},
	}
	docs, err := Files(t.Context(), FileOptions{Paths: []string{stdinName}, Stdin: strings.NewReader(strings.Join(texts, "---\n"))})
	must(t, err)
	for _, d := range docs {
		o, err := decodeObject(d.Raw)
		must(t, err)
		u := &unstructured.Unstructured{Object: o}
		map[string]map[capi.Key]*unstructured.Unstructured{
			"Cluster": v.clusters, "PlunderCluster": v.plunderClusters, "Machine": v.machines, "PlunderMachine": v.plunderMachines,
		}[u.GetKind()][keyOf(u)] = u
	}
	return v
}

func names(t *testing.T, docs []capi.Document) (list []string) {
	t.Helper()
	for _, d := range docs {
		o, err := decodeJSON(d.Raw)
		must(t, err)
		if d.Origin.File != "" || o.at("metadata")["managedFields"] != nil {
			t.Errorf("%v: %s", d.Origin, d.Raw)
		}
		list = append(list, o.text("kind")+" "+o.text("metadata", "namespace")+"/"+o.text("metadata", "name"))
	}
	return list
}

func TestIntents(t *testing.T) {
	foreign := `apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata: {name: docker, namespace: a}
spec: {infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: DockerCluster, name: docker}}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Machine
metadata: {name: container, namespace: a}
spec: {clusterName: c, infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: DockerMachine, name: container}}
`
	v := liveView(t, manifests("v1beta1", "a", "w"), manifests("v1alpha2", "b"), foreign)
	now := metav1.Now()
	for _, tt := range []struct {
		name string
		s    Selection
		want []string
		err  string
	}{
		{
			"a cluster", Selection{Namespace: "a", Cluster: "c"},
			[]string{"Cluster a/c", "PlunderCluster a/c", "Machine a/container", "Machine a/cp", "PlunderMachine a/cp-infra", "Machine a/w", "PlunderMachine a/w-infra"}, "",
		},
		{"one of v1alpha2, by label", Selection{Namespace: "b", Cluster: "c"}, []string{"Cluster b/c", "PlunderCluster b/c", "Machine b/cp", "PlunderMachine b/cp-infra"}, ""},
		{"a machine", Selection{Namespace: "a", Machine: "w"}, []string{"Cluster a/c", "PlunderCluster a/c", "Machine a/w", "PlunderMachine a/w-infra"}, ""},
		{
			"all", Selection{AllNamespaces: true, All: true},
			[]string{
				"Cluster a/c", "PlunderCluster a/c", "Cluster b/c", "PlunderCluster b/c", "Machine a/container", "Machine a/cp", "PlunderMachine a/cp-infra",
				"Machine a/w", "PlunderMachine a/w-infra", "Machine b/cp", "PlunderMachine b/cp-infra",
			}, "",
		},
		{"no such machine", Selection{Namespace: "a", Machine: "x"}, nil, "the store has no Machine a/x"},
		{"no such cluster", Selection{Namespace: "a", Cluster: "x"}, nil, "the store has no Cluster a/x"},
	} {
		docs, err := v.intents(tt.s, "store")
		if diff := cmp.Diff(tt.want, names(t, docs)); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
		if (tt.err == "") != (err == nil) || err != nil && err.Error() != tt.err {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	// The machine of another provider is left out by the decoder, which says so.
	docs, err := v.intents(Selection{Namespace: "a", Cluster: "c"}, "store")
	must(t, err)
	set, err := capi.DecodeOptions{Lenient: true}.Decode(docs)
	must(t, err)
	if len(set.Machines) != 2 || len(set.Warnings) != 1 || !strings.Contains(set.Warnings[0], "Machine a/container") {
		t.Errorf("%d machines, %v", len(set.Machines), set.Warnings)
	}
	// One that is being deleted is not there any more.
	v.plunderMachines[capi.Key{Namespace: "a", Name: "w-infra"}].SetDeletionTimestamp(&now)
	docs, err = v.intents(Selection{Namespace: "a", Cluster: "c"}, "store")
	must(t, err)
	if got := names(t, docs); len(got) != 5 {
		t.Errorf("%v", got)
	}
	if _, err := liveView(t, foreign).intents(Selection{Namespace: "a", All: true}, "store"); err == nil || err.Error() != "the store has no Cluster for plunder" {
		t.Errorf("%v", err)
	}
}

func TestPairUp(t *testing.T) {
	v := liveView(t, manifests("v1beta1", "a", "w"), `
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata:
  name: orphan-infra
  namespace: a
  ownerReferences: [{apiVersion: cluster.x-k8s.io/v1alpha4, kind: Machine, name: orphan, uid: x}]
`, `
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: stray, namespace: a, labels: {cluster.x-k8s.io/cluster-name: c}}
`, `
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata:
  name: old-infra
  namespace: a
  annotations: {capplunder.plunder-app.io/record: '{"namespace": "a", "name": "w", "cluster": "c"}'}
`)
	pairs, err := pairUp(v.machines, v.plunderMachines)
	must(t, err)
	var got []string
	for _, p := range pairs {
		line := p.key.String() + " in " + p.cluster() + ":"
		if p.machine != nil {
			line += " machine"
		}
		if p.infra != nil {
			line += " " + p.infra.GetName()
		}
		if p.recorded {
			line += " recorded"
		}
		got = append(got, line)
	}
	if diff := cmp.Diff([]string{
		"a/cp in c: machine cp-infra",
		"a/orphan in : orphan-infra",
		"a/stray in c: stray",
		"a/w in c: machine old-infra recorded", // its reference was changed after it got hardware
	}, got); diff != "" {
		t.Error(diff)
	}
}

func TestClip(t *testing.T) {
	if got := clip("short"); got != "short" {
		t.Errorf("%q", got)
	}
	long := strings.Repeat("ü", maxMessage)
	if got := clip(long); len(got) > maxMessage || !strings.HasSuffix(got, "ü…") {
		t.Errorf("%d bytes, ends %q", len(got), got[len(got)-8:])
	}
}
