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
// that get none it says why. It runs at every look while machines wait, with a
// thousand of them perhaps, so each MAC is judged once (see rackView).
func assign(reqs []request, hw hardware) (map[capi.Key]assignment, map[capi.Key]string) {
	rack := hw.view()
	got := map[capi.Key]assignment{}
	used := map[string]capi.Key{}
	for i, mac := range matchPinned(reqs, func(mac string) bool { return rack.unusable(mac) == "" }) {
		if r := reqs[i]; mac != "" {
			used[mac] = r.key
			got[r.key] = assignment{mac, fmt.Sprintf("%s (%s), seen %s ago", r.pinnedBy, mac, hw.age(rack.seen[mac]))}
		}
	}

	// A MAC that a machine of the batch is restricted to stays for it, even while
	// that machine cannot have it yet.
	reserved := map[string]bool{}
	for _, r := range reqs {
		for _, mac := range r.macs {
			reserved[mac] = true
		}
	}
	var free []wire.Lease
	for _, l := range rack.seen {
		if !reserved[l.MAC] && rack.unusable(l.MAC) == "" {
			free = append(free, l)
		}
	}
	slices.SortFunc(free, func(a, b wire.Lease) int {
		return cmp.Or(b.Time.Compare(a.Time), strings.Compare(a.MAC, b.MAC))
	})
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
	noneFree := "" // the same for all machines without a wish
	for _, r := range reqs {
		switch _, ok := got[r.key]; {
		case ok:
		case len(r.macs) > 0:
			why[r.key] = rack.whyNotPinned(r, used)
		default:
			if noneFree == "" {
				noneFree = rack.whyNoneFree()
			}
			why[r.key] = noneFree
		}
	}
	return got, why
}

// matchPinned finds a largest matching between the machines that are restricted to
// certain MACs and the usable ones of those: the MAC of each request, "" for none.
// A machine keeps a MAC that it prefers to a later machine's, unless that one would
// get none otherwise.
//
// These are augmenting paths (Kuhn), with two things that keep a thousand machines
// that share one pool fast: a MAC that was given away once never becomes free
// again, so each list is searched for a free one only once (from); and what a
// search without result has visited can't help a later one either.
func matchPinned(reqs []request, usable func(string) bool) []string {
	number := map[string]int{} // of each usable MAC
	var macs []string
	lists := make([][]int, len(reqs))
	for i, r := range reqs {
		for _, mac := range r.macs {
			n, known := number[mac]
			if !known {
				n = -1
				if usable(mac) {
					n = len(macs)
					macs = append(macs, mac)
				}
				number[mac] = n
			}
			if n >= 0 {
				lists[i] = append(lists[i], n)
			}
		}
	}
	const nobody = -1
	holder := slices.Repeat([]int{nobody}, len(macs))
	from := make([]int, len(reqs))
	visited := make([]bool, len(macs))
	var try func(i int) bool
	try = func(i int) bool {
		for ; from[i] < len(lists[i]); from[i]++ {
			if n := lists[i][from[i]]; holder[n] == nobody {
				holder[n] = i
				return true
			}
		}
		for _, n := range lists[i] {
			if visited[n] {
				continue
			}
			visited[n] = true
			if try(holder[n]) {
				holder[n] = i
				return true
			}
		}
		return false
	}
	for i := range reqs {
		if try(i) {
			clear(visited)
		}
	}
	got := make([]string, len(reqs))
	for n, i := range holder {
		if i != nobody {
			got[i] = macs[n]
		}
	}
	return got
}

// rackView is hardware, indexed by MAC.
type rackView struct {
	hardware
	seen     map[string]wire.Lease       // by lower-case MAC, the latest time of each
	deployed map[string]*wire.Deployment // by lower-case MAC, without those in the reboot loop
	verdicts map[string]string           // what unusable said
	nearest  map[string]string           // what closest said
}

func (hw hardware) view() *rackView {
	v := &rackView{
		hardware: hw, seen: map[string]wire.Lease{}, deployed: map[string]*wire.Deployment{},
		verdicts: map[string]string{}, nearest: map[string]string{},
	}
	for _, l := range hw.leases {
		mac := strings.ToLower(l.MAC)
		if old, ok := v.seen[mac]; !ok || l.Time.After(old.Time) {
			v.seen[mac] = wire.Lease{MAC: mac, Time: l.Time}
		}
	}
	for i := range hw.deployments.Deployments {
		d := &hw.deployments.Deployments[i]
		mac := strings.ToLower(d.MAC)
		// One in capital letters stands in the way whatever it boots: the client will
		// not make a second deployment for the machine.
		inLoop := d.BootConfigName == wire.RebootConfigName && d.MAC == mac
		if _, twice := v.deployed[mac]; !twice && !inLoop {
			v.deployed[mac] = d
		}
	}
	return v
}

// unusable says why a MAC cannot be given, or "".
func (v *rackView) unusable(mac string) string {
	why, judged := v.verdicts[mac]
	if !judged {
		why = v.judge(mac)
		v.verdicts[mac] = why
	}
	return why
}

func (v *rackView) judge(mac string) string {
	if k, ok := v.claimed[mac]; ok {
		return fmt.Sprintf("%s is claimed by Machine %s", mac, k)
	}
	if d, ok := v.deployed[mac]; ok {
		return fmt.Sprintf("%s has a deployment (%s, host name %s, address %s)", mac, d.BootConfigName, d.Config.Hostname, d.Config.Address)
	}
	l, ok := v.seen[mac]
	if !ok {
		return fmt.Sprintf("plunder has not seen %s boot", mac)
	}
	if age := v.now.Sub(l.Time); age > v.maxAge {
		return fmt.Sprintf("%s was last seen %s ago (more than %s)", mac, v.age(l), v.maxAge)
	}
	return ""
}

func (hw hardware) age(l wire.Lease) time.Duration {
	return max(0, hw.now.Sub(l.Time).Round(time.Second))
}

// whyNoneFree says what became of all the machines that were seen.
func (v *rackView) whyNoneFree() string {
	if len(v.seen) == 0 {
		return "plunder lists no unleased machine"
	}
	reasons := map[string]int{}
	for mac := range v.seen {
		switch why := v.unusable(mac); {
		case why == "":
			reasons["given to other machines of this run"]++
		case strings.Contains(why, "claimed"):
			reasons["claimed by recorded machines"]++
		case strings.Contains(why, "deployment"):
			reasons["with a deployment"]++
		default:
			reasons[fmt.Sprintf("not seen for %s", v.maxAge)]++
		}
	}
	parts := make([]string, 0, len(reasons))
	for what, n := range reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(parts)
	return fmt.Sprintf("of %d unleased machines none is free: %s", len(v.seen), strings.Join(parts, ", "))
}

// mostReasons is how many MACs of a pool a message explains.
const mostReasons = 8

// whyNotPinned says what became of the MACs that the machine may have.
func (v *rackView) whyNotPinned(r request, used map[string]capi.Key) string {
	parts := make([]string, 0, mostReasons+1)
	for i, mac := range r.macs {
		if i == mostReasons {
			parts = append(parts, fmt.Sprintf("and %d more", len(r.macs)-i))
			break
		}
		if k, ok := used[mac]; ok {
			parts = append(parts, fmt.Sprintf("%s goes to Machine %s", mac, k))
			continue
		}
		why := v.unusable(mac)
		if _, ok := v.seen[mac]; !ok {
			if near := v.closest(mac); near != "" {
				why += fmt.Sprintf(" (closest seen: %s)", near)
			}
		}
		parts = append(parts, why)
	}
	return r.pinnedBy + ": " + strings.Join(parts, "; ")
}

// closest is closest of the seen ones, which many machines of one pool ask for.
func (v *rackView) closest(mac string) string {
	near, known := v.nearest[mac]
	if !known {
		near = closest(mac, v.seen)
		v.nearest[mac] = near
	}
	return near
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
