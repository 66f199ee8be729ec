package host

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"
)

const (
	// apiPort is where a control plane's API server listens.
	apiPort = 6443

	// certsLife is how long the kubeadm-certs Secret lives.
	certsLife = 2 * time.Hour
	// nodeGrace is after how long without a word from its kubelet a node is given up.
	nodeGrace = 40 * time.Second
	// readyTime is how long a node takes to become ready once there is a network
	// add-on: this, or a quarter of the time of an installation if that is less.
	readyTime = 5 * time.Second
)

// cluster is what the control planes of a Kubernetes cluster keep in their etcd, as far
// as programs on hosts ask for it. Their hosts share it; it can be read and written
// while most of them are up.
//
// No lock of a host is ever taken while mu is held.
type cluster struct {
	mu sync.Mutex
	clusterData

	hosts map[uint64]*Host // that hold the data of a member, by its ID
}

// clusterData is in the snapshot of every member's host. As with a real log, the copy
// with the highest revision is the true one.
type clusterData struct {
	ID       string
	Revision int64
	Name     string
	Endpoint string // HOST:PORT under which it was made
	Version  string // X.Y.Z
	CA       []byte // PEM
	Tokens   map[string]bootstrapToken
	Certs    *uploadedCerts `json:",omitempty"`
	Members  []member
	Nodes    []clusterNode
	// Gone are nodes that were deleted; Lost is when.
	Gone []clusterNode `json:",omitempty"`
	// Objects are the names of what was applied: KIND/NAMESPACE/NAME.
	Objects   map[string]bool `json:",omitempty"`
	Workloads []workload      `json:",omitempty"`
	Budgets   []budget        `json:",omitempty"`
	Network   time.Time       `json:",omitzero"` // since when there is a network add-on
	// Stable: it was made with a control plane endpoint.
	Stable bool `json:",omitempty"`
	// Configured: kubeadm's configuration has been uploaded.
	Configured bool   `json:",omitempty"`
	Repository string `json:",omitempty"` // of the images
	CgroupV1   bool   `json:",omitempty"` // kubelets may run on control groups of version 1
	// Admins: the group of kubeadm's administrators has its role (1.29 and newer).
	Admins bool `json:",omitempty"`
	Seed   int64
}

// bootstrapToken is a bootstrap token by its id.
type bootstrapToken struct {
	Secret      string
	Expires     time.Time // zero: never
	Description string    `json:",omitempty"`
	// Labels of its Secret.
	Labels map[string]string `json:",omitempty"`
}

// uploadedCerts is the kubeadm-certs Secret.
type uploadedCerts struct {
	Key     [sha256.Size]byte // hash of the key that encrypts it
	Expires time.Time
	Files   map[string][]byte // by path below /etc/kubernetes/pki
}

// member is a member of the etcd cluster.
type member struct {
	ID      uint64
	Name    string // empty until it has started
	Address string // IPv4
	Learner bool   `json:",omitempty"`
}

type clusterNode struct {
	Name, UID, Address, MAC, Version string
	ProviderID                       string `json:",omitempty"`
	ControlPlane                     bool   `json:",omitempty"`
	Unschedulable                    bool   `json:",omitempty"`
	Joined                           time.Time
	// Settle is how long it takes to become ready.
	Settle time.Duration `json:",omitempty"`
	// Lost is when its kubelet was found missing, zero if it was not.
	Lost time.Time `json:",omitzero"`
}

// change does something to the cluster.
func (c *cluster) change(f func(*clusterData)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.clusterData)
	c.Revision++
}

// look reads something of the cluster.
func look[T any](c *cluster, f func(*clusterData) T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f(&c.clusterData)
}

// repeatable is a number that follows from the cluster's seed and a text.
func (d *clusterData) repeatable(text string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %s", d.Seed, d.ID, text)
	return h.Sum64()
}

// expire forgets what is too old, as the controllers of the cluster do.
func (d *clusterData) expire() {
	now := time.Now()
	for id, t := range d.Tokens {
		if !t.Expires.IsZero() && !now.Before(t.Expires) {
			delete(d.Tokens, id)
		}
	}
	if d.Certs != nil && !now.Before(d.Certs.Expires) {
		d.Certs = nil
	}
}

// token reports whether a token would be accepted now: found and not expired, and
// with the right secret.
func (c *cluster) token(id, secret string) (found, right bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire()
	t, ok := c.Tokens[id]
	return ok, ok && t.Secret == secret
}

func (c *cluster) addToken(id string, t bootstrapToken) {
	c.change(func(d *clusterData) {
		d.expire()
		d.Tokens[id] = t
	})
}

// certs is the kubeadm-certs Secret if it is there.
func (c *cluster) certs() *uploadedCerts {
	return look(c, func(d *clusterData) *uploadedCerts {
		d.expire()
		return d.Certs
	})
}

// register is what a kubelet does when it starts: it makes its Node, or takes over the
// one that has its name. A provider ID is only ever written to a new one.
func (c *cluster) register(n clusterNode) {
	c.change(func(d *clusterData) {
		d.Gone = slices.DeleteFunc(d.Gone, func(x clusterNode) bool { return x.Name == n.Name })
		for i, x := range d.Nodes {
			if x.Name == n.Name {
				n.UID, n.ProviderID, n.ControlPlane, n.Unschedulable = x.UID, x.ProviderID, x.ControlPlane, x.Unschedulable
				d.Nodes[i] = n
				return
			}
		}
		u := d.repeatable(fmt.Sprintf("node %s %d", n.Name, d.Revision))
		v := d.repeatable(fmt.Sprintf("node' %s %d", n.Name, d.Revision))
		n.UID = fmt.Sprintf("%08x-%04x-4%03x-a%03x-%012x", u>>32, u>>16&0xffff, u&0xfff, v>>48&0xfff, v&0xffffffffffff)
		d.Nodes = append(d.Nodes, n)
	})
}

// node finds a node by its name.
func (c *cluster) node(name string) (clusterNode, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return clusterNode{}, false
}

// changeNode reports whether there is a node of this name.
func (c *cluster) changeNode(name string, f func(*clusterNode)) (found bool) {
	c.change(func(d *clusterData) {
		for i := range d.Nodes {
			if d.Nodes[i].Name == name {
				f(&d.Nodes[i])
				found = true
			}
		}
	})
	return found
}

func (c *cluster) removeNode(name string) (found bool) {
	c.change(func(d *clusterData) {
		d.Nodes = slices.DeleteFunc(d.Nodes, func(x clusterNode) bool {
			if x.Name == name {
				found, x.Lost = true, time.Now()
				d.Gone = append(d.Gone, x)
			}
			return x.Name == name
		})
	})
	return found
}

// revive has kubelets that were started after their node was deleted make it anew. The
// role of a control plane is kubeadm's to give, and is not on the new one.
func (c *cluster) revive(w *World) {
	for _, n := range look(c, func(d *clusterData) []clusterNode { return slices.Clone(d.Gone) }) {
		h := w.At(n.Address)
		if h != nil && h.cfg.MAC == n.MAC && h.kubelet(n.Name) && !h.kubeletSince().Before(n.Lost) {
			c.register(h.newNode(n.Name, n.Version, n.ProviderID, c))
		}
	}
}

// kubeletSince is when the host's kubelet was started.
func (h *Host) kubeletSince() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u := h.sys.units["kubelet"]; u != nil {
		return later(h.bootTime, u.Started)
	}
	return time.Time{}
}

// nodes are all nodes, in the order in which they joined.
func (c *cluster) nodes() []clusterNode {
	return look(c, func(d *clusterData) []clusterNode { return slices.Clone(d.Nodes) })
}

// condition is the condition Ready of a node: its status and reason.
func (c *cluster) condition(n clusterNode, w *World) (status, reason string) {
	now := time.Now()
	lost := n.Lost
	h := w.At(n.Address)
	alive := h != nil && h.cfg.MAC == n.MAC && h.kubelet(n.Name)
	switch {
	case alive && !lost.IsZero():
		c.changeNode(n.Name, func(x *clusterNode) { x.Lost = time.Time{} })
	case !alive && lost.IsZero():
		lost = now
		if since := w.downSince(n.MAC); !since.IsZero() {
			lost = since
		}
		c.changeNode(n.Name, func(x *clusterNode) { x.Lost = lost })
	}
	network := look(c, func(d *clusterData) time.Time { return d.Network })
	switch {
	case !alive && now.Sub(lost) >= nodeGrace:
		return "Unknown", "NodeStatusUnknown"
	case network.IsZero() || now.Before(later(network, n.Joined).Add(n.Settle)):
		return "False", "KubeletNotReady"
	}
	return "True", "KubeletReady"
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// newNode is the Node that the kubelet of this host makes.
func (h *Host) newNode(name, version, providerID string, cl *cluster) clusterNode {
	settle := min(readyTime, h.cfg.KubernetesTime/4)
	if settle > 0 {
		share := look(cl, func(d *clusterData) uint64 { return d.repeatable("settle " + name) }) % 1000
		settle = settle/2 + settle/2*time.Duration(share)/1000
	}
	return clusterNode{Name: name, Address: h.cfg.Address, MAC: h.cfg.MAC, Version: version, ProviderID: providerID, Joined: time.Now(), Settle: settle}
}

// kubeState is the part of a host that belongs to its Kubernetes.
type kubeState struct {
	cluster *cluster // of which the host has an etcd member
	member  uint64   // its ID
	node    string   // the name of the node that its kubelet is
}

// kubelet reports whether the host runs the kubelet of the node of this name.
func (h *Host) kubelet(name string) bool {
	h.mu.Lock()
	up, node, u := h.up, h.sys.node, h.sys.units["kubelet"]
	active := u != nil && u.Active
	h.mu.Unlock()
	return up && active && node == name && h.fs.exists(kubeletConf)
}

// etcd reports whether the member of this ID runs on the host.
func (h *Host) etcd(id uint64) bool {
	h.mu.Lock()
	up, mine, u := h.up, h.sys.member, h.sys.units["kubelet"]
	active := u != nil && u.Active
	h.mu.Unlock()
	return up && active && mine == id && h.fs.exists(etcdManifest) && h.fs.exists(etcdData)
}

// apiServer is the cluster whose API server runs on this host and answers, or nil.
func (h *Host) apiServer() *cluster {
	h.mu.Lock()
	c, id := h.sys.cluster, h.sys.member
	h.mu.Unlock()
	if c == nil || !h.etcd(id) || !h.fs.exists(manifest) || !c.voting(id) || !c.quorum() {
		return nil
	}
	return c
}

// NodeState is a node as its cluster shows it.
type NodeState struct {
	Name, UID, Address, ProviderID string
	Version                        string // of the kubelet, X.Y.Z
	ControlPlane, Unschedulable    bool
	Ready                          string // "True", "False", "Unknown"
	Reason                         string
}

// MemberState is a member of a cluster's etcd.
type MemberState struct {
	Name    string // empty until it has started
	Address string // IPv4
	Learner bool
	Up      bool
}

// PodState is a pod.
type PodState struct {
	Namespace, Name string
	Node            string // empty: it waits for one
	Controller      string // kind of what would replace it, empty for none; Node for a static pod
	Terminating     bool
}

// TokenState is a bootstrap token, without its secret.
type TokenState struct {
	ID, Description string
	Expires         time.Time // zero: never
}

// ClusterState is what a cluster knows, for tests.
type ClusterState struct {
	Name, Endpoint, Version string
	Nodes                   []NodeState   // in the order in which they joined
	Members                 []MemberState // likewise
	Pods                    []PodState    // by namespace and name
	Tokens                  []TokenState  // by ID; expired ones are gone
	CertsExpire             time.Time     // of the Secret kubeadm-certs, zero if there is none
	Network                 bool          // there is a network add-on
}

// Cluster is the state of the cluster whose API server runs on this host and answers;
// nil if there is none.
func (h *Host) Cluster() *ClusterState {
	c := h.apiServer()
	if c == nil {
		return nil
	}
	c.revive(h.world)
	pods := c.pods(h.world)
	d := look(c, func(d *clusterData) clusterData {
		d.expire()
		return deepCopy(*d)
	})
	s := &ClusterState{Name: d.Name, Endpoint: d.Endpoint, Version: d.Version, Network: !d.Network.IsZero()}
	for _, n := range d.Nodes {
		ready, reason := c.condition(n, h.world)
		s.Nodes = append(s.Nodes, NodeState{n.Name, n.UID, n.Address, n.ProviderID, n.Version, n.ControlPlane, n.Unschedulable, ready, reason})
	}
	for _, m := range d.Members {
		s.Members = append(s.Members, MemberState{m.Name, m.Address, m.Learner, c.running(m.ID)})
	}
	for _, p := range pods {
		s.Pods = append(s.Pods, PodState{p.Namespace, p.Name, p.Node, p.Controller, !p.Deleted.IsZero()})
	}
	for _, id := range sortedKeys(d.Tokens) {
		s.Tokens = append(s.Tokens, TokenState{id, d.Tokens[id].Description, d.Tokens[id].Expires})
	}
	if d.Certs != nil {
		s.CertsExpire = d.Certs.Expires
	}
	return s
}

// Nodes lists the names of the nodes of the cluster whose control plane is this
// host, in the order in which they joined; nil if it is none.
func (h *Host) Nodes() []string {
	c := h.apiServer()
	if c == nil {
		return nil
	}
	c.revive(h.world)
	var out []string
	for _, n := range c.nodes() {
		out = append(out, n.Name)
	}
	return out
}

// Revision changes with everything that the host has a copy of and others change, so
// that it is part of the host's Snapshot: the data of its cluster.
func (h *Host) Revision() int64 {
	h.mu.Lock()
	c := h.sys.cluster
	h.mu.Unlock()
	if c == nil {
		return 0
	}
	return look(c, func(d *clusterData) int64 { return d.Revision })
}

// sameCA reports whether two certificates are one.
func sameCA(a, b []byte) bool { return bytes.Equal(bytes.TrimSpace(a), bytes.TrimSpace(b)) }
