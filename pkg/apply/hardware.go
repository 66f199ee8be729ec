package apply

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// request is one machine that wants hardware.
type request struct {
	key capi.Key
	// macs are the only MACs it may have, in order of preference; empty means any.
	macs     []string
	pinnedBy string
}

// hardware is what the server and the store say about MACs at one moment.
type hardware struct {
	leases      []wire.Lease        // unleased machines; Time is last seen
	now         time.Time           // the server's time
	deployments wire.Deployments    // what is deployed
	claimed     map[string]capi.Key // MAC -> the Machine that has it, from the records
	maxAge      time.Duration
}

// assignment is the hardware given to a machine, and why it was this one.
type assignment struct{ mac, reason string }

// assign gives hardware to the whole batch at once. It is deterministic: the same
// requests and hardware give the same answer. Machines that may only have certain
// MACs come first and are matched so that as many as possible get one; the rest
// take the most recently seen machines in the order of the requests. For those
// that get none it says why.
func assign(reqs []request, hw hardware) (map[capi.Key]assignment, map[capi.Key]string) {
	seen := map[string]wire.Lease{}
	for _, l := range hw.leases {
		mac := strings.ToLower(l.MAC)
		if old, ok := seen[mac]; !ok || l.Time.After(old.Time) {
			seen[mac] = wire.Lease{MAC: mac, Time: l.Time}
		}
	}
	got := map[capi.Key]assignment{}
	used := map[string]capi.Key{}
	matchPinned(reqs, used, func(mac string) bool { return hw.unusable(mac, seen) == "" })
	for _, r := range reqs {
		for mac, k := range used {
			if k == r.key {
				got[k] = assignment{mac, fmt.Sprintf("%s (%s), seen %s ago", r.pinnedBy, mac, hw.age(seen[mac]))}
			}
		}
	}

	var free []wire.Lease
	for _, l := range seen {
		if _, taken := used[l.MAC]; !taken && hw.unusable(l.MAC, seen) == "" {
			free = append(free, l)
		}
	}
	slices.SortFunc(free, func(a, b wire.Lease) int {
		return cmp.Or(b.Time.Compare(a.Time), strings.Compare(a.MAC, b.MAC))
	})
	// A MAC that another machine of the batch is restricted to stays for it, even
	// while that machine cannot have it yet.
	reserved := map[string]bool{}
	for _, r := range reqs {
		for _, mac := range r.macs {
			reserved[mac] = true
		}
	}
	free = slices.DeleteFunc(free, func(l wire.Lease) bool { return reserved[l.MAC] })
	total, next := len(free), 0
	for _, r := range reqs {
		if len(r.macs) > 0 || next == len(free) {
			continue
		}
		l := free[next]
		next++
		got[r.key] = assignment{l.MAC, fmt.Sprintf("most recently seen (%s ago), %d of %d free", hw.age(l), next, total)}
	}

	why := map[capi.Key]string{}
	for _, r := range reqs {
		if _, ok := got[r.key]; !ok {
			why[r.key] = hw.whyNot(r, seen, used)
		}
	}
	return got, why
}

// matchPinned fills used (MAC -> machine) with a largest matching between the
// machines that are restricted to certain MACs and the usable ones of those.
func matchPinned(reqs []request, used map[string]capi.Key, usable func(string) bool) {
	byKey := map[capi.Key]request{}
	for _, r := range reqs {
		byKey[r.key] = r
	}
	var try func(r request, visited map[string]bool) bool
	try = func(r request, visited map[string]bool) bool {
		for _, mac := range r.macs {
			if visited[mac] || !usable(mac) {
				continue
			}
			visited[mac] = true
			holder, held := used[mac]
			if !held || try(byKey[holder], visited) {
				used[mac] = r.key
				return true
			}
		}
		return false
	}
	for _, r := range reqs {
		if len(r.macs) > 0 {
			try(r, map[string]bool{})
		}
	}
}

// unusable says why a MAC cannot be given, or "".
func (hw hardware) unusable(mac string, seen map[string]wire.Lease) string {
	if k, ok := hw.claimed[mac]; ok {
		return fmt.Sprintf("%s is claimed by Machine %s", mac, k)
	}
	for _, d := range hw.deployments.Deployments {
		if strings.EqualFold(d.MAC, mac) && d.BootConfigName != wire.RebootConfigName {
			return fmt.Sprintf("%s has a deployment (%s, host name %s, address %s)", mac, d.BootConfigName, d.Config.Hostname, d.Config.Address)
		}
	}
	l, ok := seen[mac]
	if !ok {
		return fmt.Sprintf("plunder has not seen %s boot", mac)
	}
	if age := hw.now.Sub(l.Time); age > hw.maxAge {
		return fmt.Sprintf("%s was last seen %s ago (more than %s)", mac, hw.age(l), hw.maxAge)
	}
	return ""
}

func (hw hardware) age(l wire.Lease) time.Duration {
	return max(0, hw.now.Sub(l.Time).Round(time.Second))
}

func (hw hardware) whyNot(r request, seen map[string]wire.Lease, used map[string]capi.Key) string {
	if len(r.macs) == 0 {
		if len(seen) == 0 {
			return "plunder lists no unleased machine"
		}
		reasons := map[string]int{}
		for mac := range seen {
			switch why := hw.unusable(mac, seen); {
			case why == "":
				reasons["given to other machines of this run"]++
			case strings.Contains(why, "claimed"):
				reasons["claimed by recorded machines"]++
			case strings.Contains(why, "deployment"):
				reasons["with a deployment"]++
			default:
				reasons[fmt.Sprintf("not seen for %s", hw.maxAge)]++
			}
		}
		parts := make([]string, 0, len(reasons))
		for what, n := range reasons {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
		slices.Sort(parts)
		return fmt.Sprintf("of %d unleased machines none is free: %s", len(seen), strings.Join(parts, ", "))
	}
	parts := make([]string, 0, len(r.macs))
	for _, mac := range r.macs {
		if k, ok := used[mac]; ok {
			parts = append(parts, fmt.Sprintf("%s goes to Machine %s", mac, k))
			continue
		}
		why := hw.unusable(mac, seen)
		if _, ok := seen[mac]; !ok {
			if near := closest(mac, seen); near != "" {
				why += fmt.Sprintf(" (closest seen: %s)", near)
			}
		}
		parts = append(parts, why)
	}
	return r.pinnedBy + ": " + strings.Join(parts, "; ")
}

// closest is the seen MAC that differs from mac in the fewest characters, if that is at most four.
func closest(mac string, seen map[string]wire.Lease) string {
	best, bestDiff := "", 5
	for other := range seen {
		if len(other) != len(mac) {
			continue
		}
		diff := 0
		for i := range mac {
			if mac[i] != other[i] {
				diff++
			}
		}
		if diff < bestDiff || diff == bestDiff && other < best {
			best, bestDiff = other, diff
		}
	}
	return best
}
