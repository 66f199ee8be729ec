package state

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// given reads a manifest into the object of a machine, cluster and so on, as
// decoding does.
func given(t *testing.T, manifest string) map[string]any {
	t.Helper()
	o, err := decodeObject([]byte(manifest))
	must(t, err)
	return o
}

// seedSet is a set with one v1alpha2 machine whose manifests have all that the
// store must handle with care.
func seedSet(t *testing.T) *capi.Set {
	t.Helper()
	set := testSet("worker")
	c, m := set.Clusters[0], set.Machines[0]
	c.Object = given(t, `
apiVersion: cluster.x-k8s.io/v1alpha2
kind: Cluster
metadata: {name: c}
spec:
  clusterNetwork: {pods: {cidrBlocks: [10.244.0.0/16]}}
`)
	m.APIVersion = "cluster.x-k8s.io/v1alpha2"
	m.BootstrapData = "join with token s3cret"
	m.Object = given(t, `
apiVersion: cluster.x-k8s.io/v1alpha2
kind: Machine
metadata:
  name: worker
  labels: {cluster.x-k8s.io/cluster-name: c}
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"data":"s3cret"}'
    capplunder.plunder-app.io/record: '{"mac":"stolen"}'
    team: blue
spec:
  bootstrap: {data: join with token s3cret}
  infrastructureRef: {kind: PlunderMachine, name: worker}
  myOwn: {big: 9007199254740993, text: "yes"}
status: {phase: Running}
`)
	m.Infra.Object = given(t, `
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata:
  name: worker
  annotations:
    capplunder.plunder-app.io/record: '{"mac":"stolen"}'
spec: {deploymentType: preseed, ipaddress: 192.168.1.124}
status: {ready: true, macaddress: stolen}
`)
	return set
}

func seedRecord() capi.Record {
	return capi.Record{
		Key: key("worker"), PlunderMachine: key("worker"), MAC: "00:50:56:a5:11:20", Address: "192.168.1.124",
		HostName: "worker-x7f3q", ProviderID: "plunder://00:50:56:a5:11:20", Ready: true, Phase: capi.PhaseProvisioned,
		UpdatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
}

func (l *Local) text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(l.dir, path))
	must(t, err)
	return string(data)
}

func TestStoredFiles(t *testing.T) {
	l := openLocal(t)
	must(t, l.Sync(t.Context(), seedSet(t)))
	must(t, l.SaveRecord(t.Context(), seedRecord()))
	for path, want := range map[string]string{
		"namespaces/default/machines/worker.yaml": `apiVersion: cluster.x-k8s.io/v1alpha2
kind: Machine
metadata:
  annotations:
    team: blue
  labels:
    cluster.x-k8s.io/cluster-name: c
  name: worker
  namespace: default
spec:
  bootstrap:
    data: redacted, sha256:91429de954cf6e6a3b134864e5d2f52f3cd464b2ff0f4959d9c4672d154df7e7
  infrastructureRef:
    kind: PlunderMachine
    name: worker
  myOwn:
    big: 9007199254740993
    text: "yes"
  providerID: plunder://00:50:56:a5:11:20
status:
  addresses:
  - address: 192.168.1.124
    type: InternalIP
  - address: worker-x7f3q
    type: Hostname
  bootstrapReady: true
  infrastructureReady: true
  phase: provisioned
`,
		"namespaces/default/plundermachines/worker.yaml": `apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata:
  annotations:
    capplunder.plunder-app.io/record: |
      {
        "namespace": "default",
        "name": "worker",
        "plunderMachine": {
          "namespace": "default",
          "name": "worker"
        },
        "mac": "00:50:56:a5:11:20",
        "address": "192.168.1.124",
        "hostName": "worker-x7f3q",
        "providerID": "plunder://00:50:56:a5:11:20",
        "ready": true,
        "phase": "Provisioned",
        "updatedAt": "2026-01-02T03:04:05Z"
      }
  name: worker
  namespace: default
spec:
  deploymentType: preseed
  ipaddress: 192.168.1.124
  providerID: plunder://00:50:56:a5:11:20
status:
  addresses:
  - address: 192.168.1.124
    type: InternalIP
  - address: worker-x7f3q
    type: Hostname
  conditions:
  - lastTransitionTime: "2026-01-02T03:04:05Z"
    message: ""
    reason: Provisioned
    status: "True"
    type: Ready
  initialization:
    provisioned: true
  ipaddress: 192.168.1.124
  macaddress: 00:50:56:a5:11:20
  machineName: worker-x7f3q
  ready: true
`,
	} {
		if diff := cmp.Diff(want, l.text(t, path)); diff != "" {
			t.Errorf("%s:\n%s", path, diff)
		}
	}
}

func TestModesAndSecrets(t *testing.T) {
	l := openLocal(t)
	_, unlock, err := l.Lock(t.Context(), capi.LockRequest{Command: "apply"})
	must(t, err)
	must(t, l.Sync(t.Context(), seedSet(t)))
	must(t, l.SaveRecord(t.Context(), seedRecord()))
	must(t, l.AddEvent(t.Context(), capi.Event{Kind: "PlunderMachine", Object: key("worker")}))
	n := 0
	must(t, filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
		if !d.IsDir() {
			n++
			if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), "s3cret") {
				t.Errorf("%s holds the secret (%v)", path, err)
			}
		}
		return nil
	}))
	if n != 7 {
		t.Errorf("%d files", n)
	}
	must(t, unlock())
}

func TestReadingCreatesNothing(t *testing.T) {
	l := openLocal(t)
	_, _, err1 := l.Record(t.Context(), key("a"))
	_, err2 := l.Records(t.Context())
	_, _, err3 := l.ClusterRecord(t.Context(), key("c"))
	_, err4 := l.Events(t.Context())
	must(t, errors.Join(err1, err2, err3, err4))
	if _, err := os.Stat(l.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was created: %v", err)
	}
}

func TestOpenLocalRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, dir := range []string{"", file, filepath.Join(file, "below")} {
		if _, err := OpenLocal(dir); err == nil {
			t.Errorf("OpenLocal(%q) went well", dir)
		}
	}
}

// snapshot is all files with their content and what changes when they are written.
func (l *Local) snapshot(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			info, err = d.Info()
			must(t, err)
			files[path] = info.ModTime().String() + l.text(t, strings.TrimPrefix(path, l.dir))
		}
		return err
	}))
	return files
}

func TestSecondSyncWritesNothing(t *testing.T) {
	l := openLocal(t)
	must(t, l.Sync(t.Context(), seedSet(t)))
	must(t, l.SaveRecord(t.Context(), seedRecord()))
	must(t, l.SaveClusterRecord(t.Context(), capi.ClusterRecord{Key: key("c"), PlunderCluster: key("c"), Ready: true, Endpoint: capi.Endpoint{Host: "h", Port: 6443}}))
	before := l.snapshot(t)
	must(t, l.Sync(t.Context(), seedSet(t)))
	must(t, l.SaveRecord(t.Context(), seedRecord()))
	if diff := cmp.Diff(before, l.snapshot(t)); diff != "" {
		t.Error(diff)
	}
}

func TestLastGivenSpecWins(t *testing.T) {
	l := openLocal(t)
	must(t, l.Sync(t.Context(), seedSet(t)))
	must(t, l.SaveRecord(t.Context(), seedRecord()))
	set := seedSet(t)
	spec := set.Machines[0].Object["spec"].(map[string]any)
	delete(spec, "myOwn")
	spec["version"] = "v1.35.0"
	must(t, l.Sync(t.Context(), set))
	got, err := decodeObject([]byte(l.text(t, "namespaces/default/machines/worker.yaml")))
	must(t, err)
	if got.text("spec", "version") != "v1.35.0" || got.at("spec", "myOwn") != nil {
		t.Errorf("the old spec stayed: %v", got["spec"])
	}
	if got.text("spec", "providerID") != seedRecord().ProviderID || got.text("status", "phase") != "provisioned" {
		t.Errorf("what was recorded is gone: %v", got)
	}
	if _, ok := set.Machines[0].Object["status"].(map[string]any)["infrastructureReady"]; ok {
		t.Error("Sync changed the given object")
	}
}

// The fields of the contract, by API version.
func TestShownStatus(t *testing.T) {
	failed := capi.Record{Phase: capi.PhaseFailed, Reason: "PlunderInstall", Message: "no disk"}
	ready := capi.Record{Ready: true, Phase: capi.PhaseProvisioned}
	node := ready
	node.Phase, node.NodeName, node.NodeUID = capi.PhaseRunning, "n", "u"
	tests := []struct {
		version string
		r       capi.Record
		want    string
	}{
		{"v1alpha2", node, `{"bootstrapReady":true,"infrastructureReady":true,"nodeRef":{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"},"phase":"running"}`},
		{"v1beta1", node, `{"bootstrapReady":true,"infrastructureReady":true,"nodeRef":{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"},"phase":"Running"}`},
		{"v1beta2", node, `{"initialization":{"bootstrapDataSecretCreated":true,"infrastructureProvisioned":true},"nodeRef":{"name":"n"},"phase":"Running"}`},
		{"v1alpha2", failed, `{"bootstrapReady":false,"errorMessage":"no disk","errorReason":"PlunderInstall","infrastructureReady":false,"phase":"failed"}`},
		{"v1alpha2", ready, `{"bootstrapReady":true,"infrastructureReady":true,"phase":"provisioned"}`},
		{"v1alpha3", failed, `{"bootstrapReady":false,"failureMessage":"no disk","failureReason":"PlunderInstall","infrastructureReady":false,"phase":"Failed"}`},
		{"v1alpha4", ready, `{"bootstrapReady":true,"infrastructureReady":true,"phase":"Provisioned"}`},
		{"v1beta1", failed, `{"bootstrapReady":false,"failureMessage":"no disk","failureReason":"PlunderInstall","infrastructureReady":false,"phase":"Failed"}`},
		{"v1beta1", ready, `{"bootstrapReady":true,"infrastructureReady":true,"phase":"Provisioned"}`},
		{"v1beta2", failed, `{"initialization":{"bootstrapDataSecretCreated":false,"infrastructureProvisioned":false},"phase":"Failed"}`},
		{"v1beta2", ready, `{"initialization":{"bootstrapDataSecretCreated":true,"infrastructureProvisioned":true},"phase":"Provisioned"}`},
	}
	for _, tt := range tests {
		// What an earlier failure, and a node before it, left must go.
		m := object{"apiVersion": "cluster.x-k8s.io/" + tt.version}
		showMachine(m, capi.Record{}, node)
		showMachine(m, node, failed)
		showMachine(m, failed, tt.r)
		status := m.at("status")
		conditions, _ := status["conditions"].([]any)
		if want := map[bool]int{true: 0, false: 1}[tt.version == "v1alpha2"]; len(conditions) != want {
			t.Errorf("%s: %d conditions", tt.version, len(conditions))
		}
		delete(status, "conditions")
		got, err := json.Marshal(status)
		must(t, err)
		if string(got) != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.version, got, tt.want)
		}
	}
}

func TestShownClusterStatus(t *testing.T) {
	r := capi.ClusterRecord{Key: key("c"), Ready: true, Initialized: true, Phase: capi.PhaseProvisioned, Endpoint: capi.Endpoint{Host: "10.0.0.1", Port: 6443}}
	tests := []struct{ version, spec, want string }{
		{"v1alpha2", `{}`, `{"spec":{},"status":{"apiEndpoints":[{"host":"10.0.0.1","port":6443}],"controlPlaneInitialized":true,"infrastructureReady":true,"phase":"provisioned"}}`},
		{"v1alpha3", `{}`, `{"spec":{"controlPlaneEndpoint":{"host":"10.0.0.1","port":6443}},"status":{"controlPlaneInitialized":true,"infrastructureReady":true,"phase":"Provisioned"}}`},
		{"v1beta1", `{"controlPlaneEndpoint":{"host":"","port":0}}`, `{"spec":{"controlPlaneEndpoint":{"host":"10.0.0.1","port":6443}},"status":{"controlPlaneReady":true,"infrastructureReady":true,"phase":"Provisioned"}}`},
		{"v1beta2", `{"controlPlaneEndpoint":{"host":"mine","port":1}}`, `{"spec":{"controlPlaneEndpoint":{"host":"mine","port":1}},"status":{"initialization":{"controlPlaneInitialized":true,"infrastructureProvisioned":true},"phase":"Provisioned"}}`},
	}
	for _, tt := range tests {
		c := object{"apiVersion": "cluster.x-k8s.io/" + tt.version, "spec": given(t, tt.spec)}
		must(t, setClusterRecord(c, r))
		got, err := json.Marshal(object{"spec": c["spec"], "status": c["status"]})
		must(t, err)
		if string(got) != tt.want {
			t.Errorf("%s\ngot  %s\nwant %s", tt.version, got, tt.want)
		}
	}
}

func TestExternallyManagedPlunderClusterIsLeftAlone(t *testing.T) {
	pc := object(given(t, `{metadata: {annotations: {cluster.x-k8s.io/managed-by: ""}}, spec: {}}`))
	showPlunderCluster(pc, capi.ClusterRecord{Ready: true, Endpoint: capi.Endpoint{Host: "h", Port: 1}})
	if pc["status"] != nil || len(pc.at("spec")) != 0 {
		t.Errorf("it was written: %v", pc)
	}
}

func TestConditionTimeIsThatOfTheChange(t *testing.T) {
	m := object{}
	first, second := time.Unix(1000, 0), time.Unix(2000, 0)
	for _, step := range []struct {
		ready bool
		at    time.Time
		want  time.Time
	}{{false, first, first}, {false, second, first}, {true, second, second}} {
		showMachine(m, capi.Record{}, capi.Record{Ready: step.ready, UpdatedAt: step.at})
		c := m.at("status")["conditions"].([]any)[0].(map[string]any)
		if got := c["lastTransitionTime"]; got != step.want.UTC().Format(time.RFC3339) {
			t.Errorf("ready %v at %v: last transition %v", step.ready, step.at.Unix(), got)
		}
	}
}

// Unknown state means stop: every damaged file is an error that names it, whatever
// is asked, and no write goes over it.
func TestCorruptFiles(t *testing.T) {
	const (
		pm = "namespaces/default/plundermachines/worker.yaml"
		m  = "namespaces/default/machines/worker.yaml"
	)
	replace := func(from, to string) func(string) string {
		return func(s string) string { return strings.Replace(s, from, to, 1) }
	}
	tests := []struct {
		name, path string
		damage     func(string) string
		want       string
	}{
		{"empty", pm, func(string) string { return "" }, ""},
		{"cut off in the annotation", pm, func(s string) string { return s[:strings.Index(s, `"address"`)] }, ""},
		{"cut off before the name", pm, func(s string) string { return s[:strings.Index(s, "  name: worker")] }, "it holds"},
		{"cut off before the status", pm, func(s string) string { return s[:strings.Index(s, "status:")] }, "contradicts"},
		{"cut off in the status", pm, func(s string) string { return s[:strings.Index(s, "  macaddress:")] }, "contradicts"},
		{"zeroes", pm, func(s string) string { return strings.Repeat("\x00", len(s)) }, ""},
		{"not YAML", pm, func(string) string { return "{" }, ""},
		{"a list", pm, func(string) string { return "- a\n" }, ""},
		{"another kind", pm, replace("kind: PlunderMachine", "kind: Machine"), `it holds "Machine"`},
		{"another name", pm, replace("  name: worker", "  name: other"), "default/other"},
		{"another namespace", pm, replace("  namespace: default", "  namespace: other"), "other/worker"},
		{"a record that is no JSON", pm, replace(`"mac":`, `"mac"`), "annotation capplunder.plunder-app.io/record"},
		{"a record of the future", pm, replace(`"mac":`, `"quantum": 1, "mac":`), "newer version"},
		{"a record that was edited", pm, replace(`"mac": "00:50:56:a5:11:20"`, `"mac": "00:50:56:a5:11:21"`), "contradicts"},
		{"a status that was edited", pm, replace("ready: true\n", "ready: false\n"), "contradicts"},
		{"a record that was removed", pm, replace("capplunder.plunder-app.io/record", "removed"), "annotation capplunder.plunder-app.io/record is missing"},
		{"a key twice", pm, replace("kind: PlunderMachine", "kind: PlunderMachine\nkind: PlunderMachine"), "already"},
		{"the Machine empty", m, func(string) string { return "" }, ""},
		{"the Machine without its reference", m, replace("infrastructureRef:", "ref:"), "infrastructureRef"},
		{"the Machine of another name", m, replace("  name: worker\n  namespace", "  name: x\n  namespace"), "default/x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := openLocal(t)
			ctx := t.Context()
			must(t, l.Sync(ctx, seedSet(t)))
			must(t, l.SaveRecord(ctx, seedRecord()))
			path := filepath.Join(l.dir, tt.path)
			damaged := tt.damage(l.text(t, tt.path))
			must(t, os.WriteFile(path, []byte(damaged), 0o600))

			check := func(what string, err error) {
				t.Helper()
				var corrupt *CorruptError
				if !errors.As(err, &corrupt) || corrupt.Path != path || !strings.Contains(err.Error(), tt.want) ||
					!strings.Contains(err.Error(), "repair the file or restore it") {
					t.Errorf("%s: %v", what, err)
				}
			}
			_, ok, err := l.Record(ctx, key("worker"))
			if ok {
				t.Error("a record was read")
			}
			check("Record", err)
			check("SaveRecord", l.SaveRecord(ctx, seedRecord()))
			if tt.path == pm {
				_, err = l.Records(ctx)
				check("Records", err)
				check("Sync", l.Sync(ctx, seedSet(t)))
			}
			check("DeleteRecord", l.DeleteRecord(ctx, key("worker")))
			if got := l.text(t, tt.path); got != damaged {
				t.Errorf("the damaged file was written to:\n%s", got)
			}
		})
	}
}

func TestCorruptOthers(t *testing.T) {
	write := func(t *testing.T, l *Local, path, content string) {
		t.Helper()
		full := filepath.Join(l.dir, path)
		must(t, os.MkdirAll(filepath.Dir(full), 0o700))
		must(t, os.WriteFile(full, []byte(content), 0o600))
	}
	tests := []struct {
		name, path, content string
		ask                 func(ctx context.Context, l *Local) error
	}{
		{
			"a cluster", "namespaces/default/clusters/c.yaml", "kind: Cluster",
			func(ctx context.Context, l *Local) error { _, _, err := l.ClusterRecord(ctx, key("c")); return err },
		},
		{
			"a cluster's record", "namespaces/default/clusters/c.yaml",
			`{kind: Cluster, metadata: {name: c, namespace: default, annotations: {capplunder.plunder-app.io/record: '{"name":"d"}'}}}`,
			func(ctx context.Context, l *Local) error { _, _, err := l.ClusterRecord(ctx, key("c")); return err },
		},
		{
			"events", "namespaces/default/events/plundermachine.a.yaml", "kind: Lust",
			func(ctx context.Context, l *Local) error { _, err := l.Events(ctx); return err },
		},
		{
			"events on adding", "namespaces/default/events/plundermachine.a.yaml", "{",
			func(ctx context.Context, l *Local) error {
				return l.AddEvent(ctx, capi.Event{Kind: "PlunderMachine", Object: key("a")})
			},
		},
		{
			"a strange file", "namespaces/default/plundermachines/worker.yaml.bak", "",
			func(ctx context.Context, l *Local) error { _, err := l.Records(ctx); return err },
		},
		{
			"a strange name", "namespaces/default/plundermachines/Worker.yaml", "",
			func(ctx context.Context, l *Local) error { _, err := l.Records(ctx); return err },
		},
		{
			"a strange namespace", "namespaces/De fault/x", "",
			func(ctx context.Context, l *Local) error { _, err := l.Records(ctx); return err },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := openLocal(t)
			write(t, l, tt.path, tt.content)
			var corrupt *CorruptError
			if err := tt.ask(t.Context(), l); !errors.As(err, &corrupt) || !strings.HasPrefix(filepath.Join(l.dir, tt.path), corrupt.Path) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPathTricks(t *testing.T) {
	l := openLocal(t)
	for _, k := range []capi.Key{
		{Namespace: "default", Name: "../../../escaped"}, {Namespace: "..", Name: "x"}, {Namespace: "default", Name: ""},
		{Namespace: "", Name: "x"}, {Namespace: "default", Name: "a/b"}, {Namespace: "default", Name: "UPPER"},
		{Namespace: "default", Name: ".tmp-1"}, {Namespace: "default", Name: "a\x00b"}, {Namespace: "a.b", Name: "x"},
	} {
		set := testSet("a")
		set.Machines[0].Key, set.Machines[0].Infra.Key = k, k
		_, _, err := l.Record(t.Context(), k)
		for what, err := range map[string]error{
			"Record": err, "Sync": l.Sync(t.Context(), set), "DeleteRecord": l.DeleteRecord(t.Context(), k),
			"AddEvent": l.AddEvent(t.Context(), capi.Event{Kind: "PlunderMachine", Object: k}),
		} {
			if err == nil || !strings.Contains(err.Error(), "not a valid name") {
				t.Errorf("%s of %q: %v", what, k, err)
			}
		}
	}
	if entries, _ := os.ReadDir(l.dir); len(entries) != 1 { // the lock
		t.Errorf("something was written: %v", entries)
	}
}

// A crash between the two files of a machine leaves its record whole, and the next
// run puts the other file right.
func TestCrashBetweenTheFilesOfAMachine(t *testing.T) {
	l := openLocal(t)
	ctx := t.Context()
	must(t, l.Sync(ctx, seedSet(t)))
	machine := filepath.Join(l.dir, "namespaces/default/machines/worker.yaml")
	pending := seedRecord()
	pending.Ready, pending.Phase = false, capi.PhaseProvisioning // so that only status differs
	must(t, l.SaveRecord(ctx, pending))
	old := l.text(t, "namespaces/default/machines/worker.yaml")
	must(t, l.SaveRecord(ctx, seedRecord()))
	want := l.text(t, "namespaces/default/machines/worker.yaml")

	must(t, os.WriteFile(machine, []byte(old), 0o600))
	got, ok, err := l.Record(ctx, key("worker"))
	if diff := cmp.Diff(seedRecord(), got); err != nil || !ok || diff != "" {
		t.Errorf("ok %v, err %v\n%s", ok, err, diff)
	}
	must(t, l.Sync(ctx, seedSet(t)))
	if diff := cmp.Diff(want, l.text(t, "namespaces/default/machines/worker.yaml")); diff != "" {
		t.Error(diff)
	}

	// In the middle of a deletion: the record is gone, and deleting goes on.
	must(t, os.Remove(filepath.Join(l.dir, "namespaces/default/plundermachines/worker.yaml")))
	if _, ok, err := l.Record(ctx, key("worker")); ok || err != nil {
		t.Errorf("ok %v, err %v", ok, err)
	}
	must(t, l.DeleteRecord(ctx, key("worker")))
	if _, err := os.Stat(machine); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the Machine is still there: %v", err)
	}

	// A record without its Machine still holds its claim, and can be deleted.
	must(t, l.Sync(ctx, seedSet(t)))
	must(t, l.SaveRecord(ctx, seedRecord()))
	must(t, os.Remove(machine))
	if records, err := l.Records(ctx); err != nil || len(records) != 1 {
		t.Errorf("%v, %v", records, err)
	}
	must(t, l.DeleteRecord(ctx, key("worker")))
	if records, err := l.Records(ctx); err != nil || len(records) != 0 {
		t.Errorf("%v, %v", records, err)
	}
}

func TestLeftoversAreIgnoredAndSwept(t *testing.T) {
	l := openLocal(t)
	must(t, l.Sync(t.Context(), seedSet(t)))
	must(t, l.SaveRecord(t.Context(), seedRecord()))
	leftover := filepath.Join(l.dir, "namespaces/default/plundermachines", tempPrefix+"123")
	editors := filepath.Join(l.dir, "namespaces/default/plundermachines", ".worker.yaml.swp")
	for _, path := range []string{leftover, editors} {
		must(t, os.WriteFile(path, []byte("half a rec"), 0o600))
	}
	if records, err := l.Records(t.Context()); err != nil || len(records) != 1 {
		t.Errorf("%v, %v", records, err)
	}
	_, unlock, err := l.Lock(t.Context(), capi.LockRequest{Command: "apply"})
	must(t, err)
	must(t, unlock())
	if _, err := os.Stat(leftover); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the leftover is still there: %v", err)
	}
	if _, err := os.Stat(editors); err != nil {
		t.Errorf("the editor's file is gone: %v", err)
	}
}

// Two uses of one directory, as by two processes.
func TestTwoStoresOfOneDirectory(t *testing.T) {
	ctx := t.Context()
	a := openLocal(t)
	b, err := OpenLocal(a.Dir())
	must(t, err)
	must(t, a.Sync(ctx, testSet("a", "b")))
	_, unlock, err := a.Lock(ctx, capi.LockRequest{Command: "apply"})
	must(t, err)
	must(t, a.SaveRecord(ctx, capi.Record{Key: key("a"), MAC: "m1"}))

	// Reading needs no lock and sees what was written; writing is refused.
	if r, ok, err := b.Record(ctx, key("a")); err != nil || !ok || r.MAC != "m1" {
		t.Errorf("%v, %v, %v", r, ok, err)
	}
	event := capi.Event{Kind: "PlunderMachine", Object: key("a"), Message: "x"}
	for what, err := range map[string]error{
		"SaveRecord": b.SaveRecord(ctx, capi.Record{Key: key("b")}), "AddEvent": b.AddEvent(ctx, event),
		"Sync": b.Sync(ctx, testSet("c")), "DeleteRecord": b.DeleteRecord(ctx, key("a")),
		"SaveClusterRecord": b.SaveClusterRecord(ctx, capi.ClusterRecord{Key: key("c")}),
	} {
		var locked *LockedError
		if !errors.As(err, &locked) || locked.Holder.Command != "apply" || locked.Holder.PID != os.Getpid() {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, unlock())

	// What others wrote between two locks is known to the next one.
	must(t, b.SaveRecord(ctx, capi.Record{Key: key("b"), MAC: "m2"}))
	_, unlock, err = a.Lock(ctx, capi.LockRequest{Command: "apply"})
	must(t, err)
	var taken *TakenError
	if err := a.SaveRecord(ctx, capi.Record{Key: key("a"), MAC: "m2"}); !errors.As(err, &taken) || taken.Holder != key("b") {
		t.Errorf("got %v", err)
	}
	must(t, unlock())
	must(t, b.AddEvent(ctx, event))
	must(t, a.AddEvent(ctx, event))
	if events, err := b.Events(ctx); err != nil || len(events) != 1 || events[0].Count != 2 {
		t.Errorf("%v, %v", events, err)
	}
}

func TestDirectoryThatCannotBeWritten(t *testing.T) {
	blocker := filepath.Join(t.TempDir(), "blocker")
	l, err := OpenLocal(filepath.Join(blocker, "state"))
	must(t, err)
	must(t, os.WriteFile(blocker, nil, 0o600))
	for what, err := range map[string]error{
		"Sync": l.Sync(t.Context(), testSet("a")),
		"Lock": func() error { _, _, err := l.Lock(t.Context(), capi.LockRequest{Command: "apply"}); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), blocker) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestDirs(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == name {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		env  func(string) string
		want string
	}{
		{env("HOME", "/home/ann"), "/home/ann/.local/state/capplunder/state"},
		{env("HOME", "/home/ann", "XDG_STATE_HOME", "/x"), "/x/capplunder/state"},
		{env("HOME", "/home/ann", "XDG_STATE_HOME", "relative"), "/home/ann/.local/state/capplunder/state"},
		{env("HOME", "relative"), ""},
		{env(), ""},
	} {
		got, err := DefaultDir(tt.env)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("DefaultDir: %q, %v; want %q", got, err, tt.want)
		}
	}
	t.Chdir(t.TempDir())
	cwd, err := os.Getwd()
	must(t, err)
	for dir, want := range map[string]string{
		"/x/capplunder/state":  "/x/capplunder/simulated",
		"/x/capplunder/state/": "/x/capplunder/simulated",
		"/srv/mine":            "/srv/mine-simulated",
		"/srv/mine/":           "/srv/mine-simulated",
		"/srv/state":           "/srv/state-simulated",
		".":                    cwd + "-simulated",
		"/":                    "",
	} {
		got, err := SimulatedDir(dir)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("SimulatedDir(%q): %q, %v; want %q", dir, got, err, want)
		}
	}
}

func TestLocalClusters(t *testing.T) {
	l := openLocal(t)
	set := seedSet(t)
	if err := l.Sync(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	docs, err := l.Clusters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again, err := capi.DecodeOptions{}.Decode(docs)
	if err != nil || len(again.Clusters) != len(set.Clusters) || again.Clusters[0].Key != set.Clusters[0].Key || len(docs) != 2 {
		t.Errorf("stored clusters must be readable as they were given: %+v, %v", again, err)
	}
}

// A cluster's deletion that was killed after any of its files goes on with the rest, and
// until then the cluster is listed.
func TestLocalDeleteClusterGoesOn(t *testing.T) {
	order := []string{
		"plundermachines/a.yaml", "machines/a.yaml", "plundermachines/b.yaml", "machines/b.yaml",
		"kubeconfigs/c", "pki/c", "plunderclusters/c.yaml", "clusters/c.yaml",
	}
	for n := range len(order) + 1 {
		l := openLocal(t)
		ctx := t.Context()
		must(t, l.Sync(ctx, testSet("a", "b")))
		must(t, l.SaveRecord(ctx, capi.Record{Key: key("a"), Cluster: "c"}))
		must(t, l.SaveKubeconfig(ctx, key("c"), []byte("kubeconfig")))
		_, err := l.SavePKI(ctx, key("c"), testPKI("c"))
		must(t, err)
		if _, _, err := l.CondemnCluster(ctx, key("c")); err != nil {
			t.Fatal(err)
		}
		for _, name := range order[:n] {
			must(t, os.Remove(filepath.Join(l.Dir(), "namespaces", "default", name)))
		}
		if all, err := l.ClusterRecords(ctx); (len(all) == 0) != (n == len(order)) || err != nil {
			t.Errorf("killed after %d files: %v, %v", n, all, err)
		}
		must(t, l.DeleteCluster(ctx, key("c")))
		must(t, filepath.WalkDir(filepath.Join(l.Dir(), "namespaces"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				t.Errorf("killed after %d files: %s is left", n, path)
			}
			return err
		}))
	}
}
