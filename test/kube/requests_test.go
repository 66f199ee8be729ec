package kube

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/internal/kubetest"
)

// requests is how often the program sent each kind of request to the API server.
type requests map[string]int

// String is one line for each kind, the most frequent first.
func (r requests) String() string {
	kinds := slices.SortedFunc(maps.Keys(r), func(a, b string) int { return cmp.Or(r[b]-r[a], strings.Compare(a, b)) })
	var b strings.Builder
	for _, kind := range kinds {
		fmt.Fprintf(&b, "\n%6d %s", r[kind], kind)
	}
	return b.String()
}

// sent is what a user has sent since ResetAudit. Dry runs of the server count as reads.
func sent(t *testing.T, env *kubetest.Env, user string) (reads, writes requests) {
	t.Helper()
	reads, writes = requests{}, requests{}
	for _, e := range env.Audit(t) {
		if e.User != user {
			continue
		}
		kind := e.Verb + " " + e.Resource
		if e.Subresource != "" {
			kind += "/" + e.Subresource
		}
		if strings.Contains(e.URI, "dryRun=") {
			kind += " (dry run)"
		}
		if e.Write() {
			writes[kind]++
		} else {
			reads[kind]++
		}
	}
	return reads, writes
}

// sum leaves out the locks: how often that of the plunder server changes hands depends
// on which machines happen to write at the same time.
func (r requests) sum() int {
	n := 0
	for kind, times := range r {
		if kind != "update leases" && kind != "get leases" {
			n += times
		}
	}
	return n
}

// What a run asks of the API server grows with its machines, and no faster. See
// docs/benchmarks.md for what the requests are.
func TestRequestsPerMachine(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	type limit struct{ reads, perMachine, writes, writesPerMachine int }
	for _, c := range []struct {
		name          string
		options       []string
		apply, remove limit
	}{
		{"operating-system", []string{"--skip-kubernetes"}, limit{38, 2, 6, 18}, limit{15, 19, 0, 20}},
		// Two more of both: the kubeconfig, and that init is done, on record at once.
		{"kubernetes", nil, limit{40, 2, 14, 22}, limit{15, 19, 3, 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const n = 8
			user := "counted-" + c.name
			s := newSite(t, env, newRack(t, n), "v1beta1", n-1)
			s.kubeconfig = kubetest.WriteKubeconfig(t, env.UserConfig(t, user, operators), s.namespace)
			apply := append(s.apply(), c.options...)
			for _, run := range []struct {
				args []string
				most limit
			}{
				{apply, c.apply},
				{apply, limit{reads: 16}},
				{append([]string{"apply", "--cluster", "c"}, c.options...), limit{reads: 18}},
				{[]string{"get", "machines"}, limit{reads: 8}},
				{append([]string{"delete", "machine", "--yes"}, s.machines...), c.remove},
			} {
				env.ResetAudit(t)
				s.must(run.args...)
				reads, writes := sent(t, env, user)
				if most := run.most.reads + n*run.most.perMachine; reads.sum() > most {
					t.Errorf("%s of %d machines reads %d times, want at most %d%s", run.args[:2], n, reads.sum(), most, reads)
				}
				if most := run.most.writes + n*run.most.writesPerMachine; writes.sum() > most {
					t.Errorf("%s of %d machines writes %d times, want at most %d%s", run.args[:2], n, writes.sum(), most, writes)
				}
				t.Logf("%s of %d machines: %d reads%s\n%d writes%s", run.args[:2], n, reads.sum(), reads, writes.sum(), writes)
			}
		})
	}
}
