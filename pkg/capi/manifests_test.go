package capi_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
)

func updating() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write testdata/bad/expected.txt anew")
	flag.Parse()
	os.Exit(m.Run())
}

// read decodes what is at the paths.
func read(t *testing.T, paths ...string) (*capi.Set, error) {
	t.Helper()
	docs, err := state.Files(t.Context(), state.FileOptions{Paths: paths})
	if err != nil {
		return nil, err
	}
	return capi.Decode(docs)
}

// text decodes YAML as if it came from standard input.
func text(t *testing.T, yaml string) (*capi.Set, error) {
	t.Helper()
	return textWith(t, yaml, capi.DecodeOptions{})
}

func textWith(t *testing.T, yaml string, opts capi.DecodeOptions) (*capi.Set, error) {
	t.Helper()
	docs, err := state.Files(t.Context(), state.FileOptions{Paths: []string{"-"}, Stdin: strings.NewReader(yaml)})
	if err != nil {
		return nil, err
	}
	return opts.Decode(docs)
}

// problems are the messages of an *InputError; anything else fails the test.
func problems(t *testing.T, err error) []string {
	t.Helper()
	var input *capi.InputError
	if !errors.As(err, &input) {
		t.Fatalf("got the error %v, want an *InputError", err)
	}
	var list []string
	for _, p := range input.Problems {
		list = append(list, p.String())
	}
	return list
}

// TestBadManifests runs every manifest in testdata/bad on its own and compares all
// its problems with testdata/bad/expected.txt, in which each is a line.
func TestBadManifests(t *testing.T) {
	const dir, golden = "testdata/bad/", "testdata/bad/expected.txt"
	var files []string
	for _, pattern := range []string{"*.yaml", "*.json"} {
		found, err := filepath.Glob(dir + pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	if len(files) < 25 {
		t.Fatalf("only %d manifests in %s", len(files), dir)
	}
	got := map[string][]string{}
	var all []string
	for _, file := range files {
		set, err := read(t, file)
		if set != nil || err == nil {
			t.Errorf("%s was accepted", file)
			continue
		}
		for _, p := range problems(t, err) {
			p = strings.TrimPrefix(p, dir)
			if strings.Contains(p, "hunter2") {
				t.Errorf("%s: a secret is shown: %s", file, p)
			}
			got[filepath.Base(file)] = append(got[filepath.Base(file)], p)
			all = append(all, p)
		}
	}
	if updating() {
		if err := os.WriteFile(golden, []byte(strings.Join(all, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		name, _, _ := strings.Cut(line, ":")
		want[name] = append(want[name], line)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems differ from %s (-want +got):\n%s", golden, diff)
	}
}

// all is every API version of the Cluster API that is read.
var all = []string{"v1alpha2", "v1alpha3", "v1alpha4", "v1beta1", "v1beta2"}

// TestGoodManifests reads the same two machines in every API version and form.
func TestGoodManifests(t *testing.T) {
	for _, name := range append(slices.Clone(all), "list", "typed-lists", "json", "mixed") {
		t.Run(name, func(t *testing.T) {
			ext := ".yaml"
			if name == "json" {
				ext = ".json"
			}
			set, err := read(t, "testdata/good/"+name+ext)
			if err != nil {
				t.Fatal(err)
			}
			if len(set.Warnings) > 0 {
				t.Errorf("warnings: %q", set.Warnings)
			}
			if len(set.Clusters) != 1 || len(set.Machines) != 2 {
				t.Fatalf("got %d clusters and %d machines", len(set.Clusters), len(set.Machines))
			}
			c, cp, w := set.Clusters[0], set.Machines[0], set.Machines[1]
			type facts struct {
				Cluster, PlunderCluster, ControlPlane, Worker string
				Roles                                         [2]string
				Versions                                      [2]string
				Addresses                                     [2]string
				MAC, Type                                     string
				Pods, Services                                []string
				Domain                                        string
				Endpoint                                      capi.Endpoint
			}
			got := facts{
				c.Key.String(), c.Infra.Key.String(), cp.Key.String(), w.Key.String(),
				[2]string{cp.Role(), w.Role()},
				[2]string{cp.Version, w.Version},
				[2]string{cp.Infra.Spec.IPAddress, w.Infra.Spec.IPAddress},
				w.Infra.Spec.MACAddress, w.Infra.Spec.DeploymentType,
				c.PodCIDRs, c.ServiceCIDRs, c.ServiceDomain, c.Endpoint,
			}
			want := facts{
				"default/c", "default/c", "default/cp", "default/w",
				[2]string{"control-plane", "worker"},
				[2]string{"v1.34.1", "v1.34.1"},
				[2]string{"192.168.1.123", "192.168.1.124"},
				"00:50:56:a5:11:20", "preseed",
				[]string{"10.244.0.0/16"}, []string{"10.96.0.0/12"}, "cluster.local",
				capi.Endpoint{Host: "192.168.1.123", Port: 6443},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if cp.Cluster != c || w.Cluster != c || !slices.Equal(c.Machines, set.Machines) {
				t.Error("cluster and machines are not linked")
			}
			for _, m := range set.Machines {
				if m.Object["apiVersion"] != m.APIVersion || m.Object["kind"] != "Machine" {
					t.Errorf("the object of %s is %v", m.Key, m.Object)
				}
			}
		})
	}
}

// TestExamples reads every directory of examples.
func TestExamples(t *testing.T) {
	dirs, err := filepath.Glob("../../examples/*")
	if err != nil || len(dirs) < 3 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			set, err := read(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(set.Machines) == 0 || len(set.Clusters) != 1 || len(set.Warnings) > 0 {
				t.Errorf("got %d machines, %d clusters, warnings %q", len(set.Machines), len(set.Clusters), set.Warnings)
			}
		})
	}
}

// TestSimpleExample: the two machines of the example are what documentation and
// other tests rely on.
func TestSimpleExample(t *testing.T) {
	set, err := read(t, "../../examples/simple")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range set.Machines {
		got = append(got, strings.Join([]string{m.Key.String(), m.Role(), m.Version, m.Cluster.Key.String(), m.Infra.Spec.IPAddress, m.Infra.Spec.DeploymentType}, " "))
	}
	want := []string{
		"default/controlplane control-plane v1.34.1 default/cluster-plunder 192.168.1.123 preseed",
		"default/worker worker v1.34.1 default/cluster-plunder 192.168.1.124 preseed",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPinnedExample: pool and pins are where the engine looks for them.
func TestPinnedExample(t *testing.T) {
	set, err := read(t, "../../examples/pinned")
	if err != nil {
		t.Fatal(err)
	}
	pool := set.Clusters[0].Infra.Spec.ControlPlaneMacPool
	if !slices.Equal(pool, []string{"00:50:56:a5:b5:f1", "00:50:56:a5:b5:f2"}) {
		t.Errorf("the pool is %q", pool)
	}
	if mac := set.Machines[1].Infra.Spec.MACAddress; mac != "00:50:56:a5:11:20" {
		t.Errorf("the worker is pinned to %q", mac)
	}
}
