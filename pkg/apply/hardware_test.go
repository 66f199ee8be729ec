package apply

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func seen(mac string, ago time.Duration) wire.Lease {
	return wire.Lease{MAC: mac, Time: noon.Add(-ago)}
}

func want(name string, macs ...string) request {
	return request{key: capi.Key{Namespace: "default", Name: name}, macs: macs, pinnedBy: "spec.macaddress"}
}

const (
	macA = "00:50:56:a5:11:20"
	macB = "00:50:56:a5:b5:f1"
	macC = "00:50:56:aa:00:03"
)

func TestAssign(t *testing.T) {
	all := []wire.Lease{seen(macA, 3*time.Second), seen(macB, time.Second), seen(macC, 2*time.Second)}
	tests := []struct {
		name   string
		reqs   []request
		hw     hardware
		got    map[string]string // machine -> MAC
		why    map[string]string // machine -> part of the reason
		reason map[string]string // machine -> part of why it was this one
	}{
		{
			name: "most recently seen first", reqs: []request{want("cp"), want("w1"), want("w2")}, hw: hardware{leases: all},
			got: map[string]string{"cp": macB, "w1": macC, "w2": macA}, reason: map[string]string{"cp": "most recently seen (1s ago), 1 of 3 free"},
		},
		{
			name: "a pinned machine takes its MAC from one that has no wish", reqs: []request{want("cp"), want("w1", macB)}, hw: hardware{leases: all},
			got: map[string]string{"cp": macC, "w1": macB},
		},
		{
			name: "overlapping pools are matched so that all get one", reqs: []request{want("cp1", macA, macB), want("cp2", macA)}, hw: hardware{leases: all},
			got: map[string]string{"cp1": macB, "cp2": macA},
		},
		{
			name: "machines of one pool take it in order", reqs: []request{want("cp1", macA, macB), want("cp2", macA, macB)}, hw: hardware{leases: all},
			got: map[string]string{"cp1": macA, "cp2": macB},
		},
		{
			name: "a long pool is not explained to its end",
			reqs: []request{want("cp", "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:04", "02:00:00:00:00:05",
				"02:00:00:00:00:06", "02:00:00:00:00:07", "02:00:00:00:00:08", "02:00:00:00:00:09", "02:00:00:00:00:0a")},
			why: map[string]string{"cp": "plunder has not seen 02:00:00:00:00:08 boot; and 2 more"},
		},
		{
			name: "stale hardware is not there", reqs: []request{want("cp")}, hw: hardware{leases: []wire.Lease{seen(macA, 11*time.Minute)}},
			why: map[string]string{"cp": "1 not seen for 10m0s"},
		},
		{
			name: "listed as unleased but deployed is not free", reqs: []request{want("cp")},
			hw: hardware{
				leases:      []wire.Lease{seen(macA, time.Second)},
				deployments: wire.Deployments{Deployments: []wire.Deployment{{MAC: macA, BootConfigName: "preseed"}}},
			},
			why: map[string]string{"cp": "1 with a deployment"},
		},
		{
			name: "a deployment in the reboot loop is free", reqs: []request{want("cp")},
			hw: hardware{
				leases:      []wire.Lease{seen(macA, time.Second)},
				deployments: wire.Deployments{Deployments: []wire.Deployment{{MAC: macA, BootConfigName: "reboot"}}},
			},
			got: map[string]string{"cp": macA},
		},
		{
			name: "claimed by a record is not free", reqs: []request{want("cp")},
			hw:  hardware{leases: []wire.Lease{seen(macA, time.Second)}, claimed: map[string]capi.Key{macA: {Namespace: "x", Name: "y"}}},
			why: map[string]string{"cp": "1 claimed by recorded machines"},
		},
		{
			name: "a pinned MAC that was never seen names the closest", reqs: []request{want("cp", "00:50:56:a5:11:2f")}, hw: hardware{leases: all},
			why: map[string]string{"cp": "plunder has not seen 00:50:56:a5:11:2f boot (closest seen: " + macA + ")"},
		},
		{
			name: "hardware another machine waits for is not given away", reqs: []request{want("cp"), want("w1", macA)},
			hw: hardware{
				leases:      []wire.Lease{seen(macA, time.Second)},
				deployments: wire.Deployments{Deployments: []wire.Deployment{{MAC: macA, BootConfigName: "preseed"}}},
			},
			why: map[string]string{"cp": "none is free", "w1": "has a deployment (preseed"},
		},
		{
			name: "a clock ahead of the server's makes no hardware stale", reqs: []request{want("cp")}, hw: hardware{leases: []wire.Lease{seen(macA, -time.Hour)}},
			got: map[string]string{"cp": macA},
		},
		{
			name: "nothing listed", reqs: []request{want("cp")}, why: map[string]string{"cp": "plunder lists no unleased machine"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.hw.now, tt.hw.maxAge = noon, 10*time.Minute
			got, why := assign(tt.reqs, tt.hw)
			if len(got) != len(tt.got) || len(why) != len(tt.why) {
				t.Fatalf("got %v, why %v", got, why)
			}
			for _, r := range tt.reqs {
				if got[r.key].mac != tt.got[r.key.Name] {
					t.Errorf("%s got %q, want %q", r.key.Name, got[r.key].mac, tt.got[r.key.Name])
				}
				if !strings.Contains(why[r.key], tt.why[r.key.Name]) {
					t.Errorf("%s: why %q, want %q in it", r.key.Name, why[r.key], tt.why[r.key.Name])
				}
				if !strings.Contains(got[r.key].reason, tt.reason[r.key.Name]) {
					t.Errorf("%s: reason %q, want %q in it", r.key.Name, got[r.key].reason, tt.reason[r.key.Name])
				}
			}
			again, _ := assign(tt.reqs, tt.hw)
			for k, a := range got {
				if again[k] != a {
					t.Errorf("not deterministic: %s got %v, then %v", k, a, again[k])
				}
			}
		})
	}
}

// TestMatchPinnedIsLargest compares with trying everything, on small random pools.
func TestMatchPinnedIsLargest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		macs := []string{"a", "b", "c", "d", "e", "f"}
		reqs := make([]request, 1+random.IntN(6))
		for i := range reqs {
			random.Shuffle(len(macs), func(a, b int) { macs[a], macs[b] = macs[b], macs[a] })
			reqs[i] = request{key: capi.Key{Name: fmt.Sprint(i)}, macs: slices.Clone(macs[:random.IntN(4)])}
		}
		usable := func(mac string) bool { return mac != "f" }

		var most func(i int, used string) int
		most = func(i int, used string) int {
			if i == len(reqs) {
				return 0
			}
			best := most(i+1, used)
			for _, mac := range reqs[i].macs {
				if usable(mac) && !strings.Contains(used, mac) {
					best = max(best, 1+most(i+1, used+mac))
				}
			}
			return best
		}

		given, used := 0, map[string]bool{}
		for i, mac := range matchPinned(reqs, usable) {
			if mac == "" {
				continue
			}
			if given++; used[mac] || !usable(mac) || !slices.Contains(reqs[i].macs, mac) {
				t.Fatalf("round %d: %v: machine %d must not have %s", round, reqs, i, mac)
			}
			used[mac] = true
		}
		if want := most(0, ""); given != want {
			t.Fatalf("round %d: %v: %d machines have hardware, %d could", round, reqs, given, want)
		}
	}
}
