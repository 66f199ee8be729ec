package host

import (
	"errors"
	"fmt"
	"slices"
)

// quorum reports whether most of the members that vote are running, so that the
// cluster can be read and written.
func (c *cluster) quorum() bool {
	members := look(c, func(d *clusterData) []member { return slices.Clone(d.Members) })
	votes, up := 0, 0
	for _, m := range members {
		if m.Learner {
			continue
		}
		votes++
		if c.running(m.ID) {
			up++
		}
	}
	return up > votes/2
}

// voting reports whether a member is one, and no learner: an API server gets no answers
// from the etcd of its host otherwise.
func (c *cluster) voting(id uint64) bool {
	return look(c, func(d *clusterData) bool {
		return slices.ContainsFunc(d.Members, func(m member) bool { return m.ID == id && !m.Learner })
	})
}

// running reports whether a member runs.
func (c *cluster) running(id uint64) bool {
	c.mu.Lock()
	h := c.hosts[id]
	c.mu.Unlock()
	return h != nil && h.etcd(id)
}

// memberHosts are the hosts of all members that have started, up or down.
func (c *cluster) memberHosts() []*Host {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*Host
	for _, m := range c.Members {
		if h := c.hosts[m.ID]; h != nil {
			out = append(out, h)
		}
	}
	return out
}

// unhealthy is the address of a member that has started and does not run, or "". kubeadm
// lets no control plane join, and says so, while there is one.
func (c *cluster) unhealthy() string {
	members := look(c, func(d *clusterData) []member { return slices.Clone(d.Members) })
	for _, m := range members {
		if m.Name != "" && !c.running(m.ID) {
			return m.Address
		}
	}
	return ""
}

// addMember makes a new member known to the others, or finds the one that this address
// has already. The real kubeadm tries for up to two minutes while another member is
// joining; here it fails at once, so that who lets two join at a time learns of it.
func (c *cluster) addMember(address string, learner bool) (id uint64, err error) {
	c.change(func(d *clusterData) {
		for _, m := range d.Members {
			if m.Address == address {
				id = m.ID
				return
			}
		}
		for _, m := range d.Members {
			switch {
			case m.Learner && learner:
				err = errors.New("etcdserver: too many learner members in cluster")
			case m.Name == "":
				err = errors.New("etcdserver: re-configuration failed due to not enough started members")
			}
			if err != nil {
				return
			}
		}
		id = d.repeatable(fmt.Sprintf("member %s %d", address, d.Revision))
		d.Members = append(d.Members, member{ID: id, Address: address, Learner: learner})
	})
	return id, err
}

// startMember notes that a member runs on a host.
func (c *cluster) startMember(id uint64, name string, h *Host) {
	c.change(func(d *clusterData) {
		for i := range d.Members {
			if d.Members[i].ID == id {
				d.Members[i].Name = name
			}
		}
	})
	c.attach(id, h)
}

// attach says on which host a member's data is.
func (c *cluster) attach(id uint64, h *Host) {
	c.mu.Lock()
	if c.hosts == nil {
		c.hosts = map[uint64]*Host{}
	}
	c.hosts[id] = h
	c.mu.Unlock()
	h.mu.Lock()
	h.sys.cluster, h.sys.member = c, id
	h.mu.Unlock()
}

// promote gives a learner its vote.
func (c *cluster) promote(id uint64) {
	c.change(func(d *clusterData) {
		for i := range d.Members {
			if d.Members[i].ID == id {
				d.Members[i].Learner = false
			}
		}
	})
}

// removeMember has the others forget a member. The last one stays.
func (c *cluster) removeMember(address string) (removed bool) {
	c.change(func(d *clusterData) {
		if len(d.Members) < 2 {
			return
		}
		n := len(d.Members)
		d.Members = slices.DeleteFunc(d.Members, func(m member) bool { return m.Address == address })
		removed = len(d.Members) < n
	})
	return removed
}
