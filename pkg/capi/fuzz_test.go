package capi_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
)

// FuzzDecode: whatever the bytes, the answer is a linked set or an *InputError. Run
// it with -fuzzminimizetime=100x: making whole manifests minimal takes most of the
// time otherwise.
func FuzzDecode(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.*", "testdata/good/*.*", "../../examples/*/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	f.Fuzz(func(t *testing.T, data string) {
		whole := []capi.Document{{Origin: capi.Origin{File: "f", Document: 1, Line: 1}, Raw: []byte(data)}}
		check(t, whole)
		var parts []capi.Document
		for i, part := range strings.Split(data, "\n---\n") {
			parts = append(parts, capi.Document{Origin: capi.Origin{File: "f", Document: i + 1, Line: 1}, Raw: []byte(part)})
		}
		check(t, parts)
	})
}

func check(t *testing.T, docs []capi.Document) {
	t.Helper()
	set, err := capi.Decode(docs)
	var input *capi.InputError
	switch {
	case err != nil && !errors.As(err, &input):
		t.Fatalf("the error is no *InputError: %v", err)
	case err != nil && (len(input.Problems) == 0 || set != nil):
		t.Fatalf("%d problems, set %v", len(input.Problems), set)
	case err != nil:
		for _, p := range input.Problems {
			if p.Origin.File != "f" || p.Origin.Line < 1 || p.Message == "" {
				t.Fatalf("a problem without a place: %#v", p)
			}
		}
		return
	}
	for _, m := range set.Machines {
		if m.Cluster == nil || m.Infra == nil || m.Infra.Spec.IPAddress == "" || m.Infra.Spec.DeploymentType == "" || !slices.Contains(m.Cluster.Machines, m) {
			t.Fatalf("machine %s is not complete", m.Key)
		}
		if _, err := capi.ParseIPv4(m.Infra.Spec.IPAddress); err != nil {
			t.Fatal(err)
		}
		if v, err := capi.ParseVersion(m.Version); m.Version != "" && (err != nil || v != m.Version) {
			t.Fatal(m.Version, err)
		}
	}
}

// rack is a cluster of n pinned machines, as YAML.
func rack(n int) string {
	var b strings.Builder
	b.WriteString(cluster("", "", "", ""))
	for i := range n {
		label := ""
		if i == 0 {
			label = controlPlane
		}
		b.WriteString(machine(fmt.Sprintf("node-%04d", i), fmt.Sprintf("  ipaddress: 10.1.%d.%d\n", i/250, 1+i%250), label, "  version: v1.34.1\n",
			fmt.Sprintf("  macaddress: 00:50:56:a5:%02x:%02x\n  deploymentType: preseed\n", i/256, i%256)))
	}
	return b.String()
}

func decodeRack(tb testing.TB, yaml string, n int) {
	tb.Helper()
	docs, err := state.Files(tb.Context(), state.FileOptions{Paths: []string{"-"}, Stdin: strings.NewReader(yaml)})
	if err != nil {
		tb.Fatal(err)
	}
	set, err := capi.Decode(docs)
	if err != nil {
		tb.Fatal(err)
	}
	if len(set.Machines) != n {
		tb.Fatalf("got %d machines", len(set.Machines))
	}
}

// BenchmarkDecode reads, decodes, links and validates 1,000 machines.
func BenchmarkDecode(b *testing.B) {
	yaml := rack(1000)
	b.SetBytes(int64(len(yaml)))
	b.ReportAllocs()
	for b.Loop() {
		decodeRack(b, yaml, 1000)
	}
}

// TestThousandMachines: time grows with the number of machines, not with its square.
// Four times as many may take up to ten times as long; a computer that is busy with
// something else meanwhile gets another chance, and a square none.
func TestThousandMachines(t *testing.T) {
	few, many := rack(250), rack(1000)
	took := func(yaml string, n int) time.Duration {
		runtime.GC()
		start := time.Now()
		decodeRack(t, yaml, n)
		return time.Since(start)
	}
	a, b := took(few, 250), took(many, 1000)
	for range 4 {
		if b > 10*a {
			a, b = min(a, took(few, 250)), min(b, took(many, 1000))
		}
	}
	if b > 10*a {
		t.Errorf("250 machines took %s, 1,000 machines %s", a, b)
	}
}
