package apply

import (
	"fmt"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/state"
	"github.com/plunder-app/capplunder/pkg/translate"
	"github.com/plunder-app/capplunder/test/bench"
)

// planLimit is how long everything may take that happens for 1,000 machines before
// the first one is claimed.
const planLimit = time.Second

func within(b *testing.B, limit time.Duration) {
	b.Helper()
	if each := b.Elapsed() / time.Duration(b.N); each > limit {
		b.Fatalf("%s, more than %s", each, limit)
	}
}

// BenchmarkPlan1000 reads 1,001 files, parses, links and validates 1,000 machines,
// plans them, and gives each its hardware.
func BenchmarkPlan1000(b *testing.B) {
	dir := b.TempDir()
	if err := bench.WriteFleet(dir, 1000); err != nil {
		b.Fatal(err)
	}
	hw := rackOf(1000)
	b.ReportAllocs()
	for b.Loop() {
		docs, err := state.Files(b.Context(), state.FileOptions{Paths: []string{dir}})
		if err != nil {
			b.Fatal(err)
		}
		set, err := capi.Decode(docs)
		if err != nil {
			b.Fatal(err)
		}
		plan, err := translate.NewPlan(set, translate.Options{})
		if err != nil {
			b.Fatal(err)
		}
		reqs := make([]request, len(plan.Machines))
		for i, m := range plan.Machines {
			reqs[i] = request{key: m.Machine.Key, macs: m.MACs, pinnedBy: m.PinnedBy}
		}
		if got, _ := assign(reqs, hw); len(got) != 1000 {
			b.Fatalf("%d machines have hardware", len(got))
		}
	}
	within(b, planLimit)
}

// BenchmarkAssign1000 gives hardware to 1,000 machines at once, in the ways that
// take long: it happens again at every look while machines wait for hardware.
func BenchmarkAssign1000(b *testing.B) {
	all := make([]string, 1000)
	for i := range all {
		all[i] = benchMAC(i)
	}
	// Each machine may have any of the first n+1: only one order gives all of them one.
	steps := func(i int) []string { return all[:i+1] }

	deployed := rackOf(1000)
	for _, mac := range all {
		deployed.deployments.Deployments = append(deployed.deployments.Deployments, wire.Deployment{MAC: mac, BootConfigName: "preseed"})
	}
	elsewhere := rackOf(1000)
	for i := range all {
		elsewhere.deployments.Deployments = append(elsewhere.deployments.Deployments, wire.Deployment{MAC: benchMAC(5000 + i), BootConfigName: "preseed"})
	}
	half := rackOf(1000)
	half.leases = half.leases[:500]

	for _, tt := range []struct {
		name string
		macs func(i int) []string
		hw   hardware
		want int
	}{
		{"any", func(int) []string { return nil }, rackOf(1000), 1000},
		{"beside-1000-deployments", func(int) []string { return nil }, elsewhere, 1000},
		{"pinned", func(i int) []string { return all[i : i+1] }, rackOf(1000), 1000},
		{"one-pool", func(int) []string { return all }, rackOf(1000), 1000},
		{"one-pool-half-there", func(int) []string { return all }, half, 500},
		{"one-pool-none-free", func(int) []string { return all }, deployed, 0},
		{"growing-pools-backwards", func(i int) []string { return steps(999 - i) }, rackOf(1000), 1000},
		{"none-free", func(int) []string { return nil }, deployed, 0},
		{"never-seen", func(i int) []string { return []string{benchMAC(5000 + i)} }, rackOf(1000), 0},
	} {
		b.Run(tt.name, func(b *testing.B) {
			reqs := make([]request, 1000)
			for i := range reqs {
				reqs[i] = request{key: capi.Key{Namespace: "default", Name: fmt.Sprintf("node-%04d", i)}, macs: tt.macs(i), pinnedBy: "spec.macaddress"}
			}
			for b.Loop() {
				if got, why := assign(reqs, tt.hw); len(got) != tt.want || len(why) != 1000-tt.want {
					b.Fatalf("%d machines have hardware, %d have not; want %d", len(got), len(why), tt.want)
				}
			}
			within(b, planLimit)
		})
	}
}

func benchMAC(i int) string { return fmt.Sprintf("00:50:56:00:%02x:%02x", i/256, i%256) }

// rackOf is what a server says that has just seen n machines.
func rackOf(n int) hardware {
	hw := hardware{now: noon, maxAge: 10 * time.Minute}
	for i := range n {
		hw.leases = append(hw.leases, wire.Lease{MAC: benchMAC(i), Time: noon.Add(-time.Duration(i) * time.Millisecond)})
	}
	return hw
}
