package host

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// etcdFlags are those of etcdctl with a value.
func etcdFlags() []string {
	return []string{"--endpoints", "--cacert", "--cert", "--key", "-w", "--write-out", "--command-timeout", "--dial-timeout"}
}

// exec runs etcdctl in the pod of a member, and knows nothing else.
func (k *kubectl) exec(pod string, args []string) int {
	node, ok := strings.CutPrefix(strings.TrimPrefix(strings.TrimPrefix(pod, "pod/"), "pods/"), "etcd-")
	members := k.cluster.members()
	i := slices.IndexFunc(members, func(m member) bool { return m.Name == node })
	if !ok || k.namespace != systemNamespace || i < 0 {
		return k.kubectlError(fmt.Sprintf("Error from server (NotFound): pods %q not found", pod))
	}
	if !k.cluster.running(members[i].ID) {
		return k.kubectlError(fmt.Sprintf("error: unable to upgrade connection: error dialing backend: dial tcp %s:10250: connect: connection refused", members[i].Address))
	}
	status := k.etcdContainer(k.cluster, args)
	if status != 0 {
		k.errf("command terminated with exit code %d", status)
	}
	return status
}

// etcdContainer runs a command in a container of etcd. Its image has a shell until that of
// etcd 3.5, and etcdctl up to 3.3 speaks the old API unless its environment says otherwise.
func (c *call) etcdContainer(cl *cluster, args []string) int {
	minor := minorOf(look(cl, func(d *clusterData) string { return d.Version }))
	old := minor < 17
	if len(args) == 3 && args[0] == "sh" && args[1] == "-c" {
		if minor >= 22 {
			c.errf(`OCI runtime exec failed: exec failed: unable to start container process: exec: "sh": executable file not found in $PATH: unknown`)
			return 126
		}
		line, ok := strings.CutPrefix(args[2], "ETCDCTL_API=3 exec ")
		if !ok {
			c.errf("sh: a script that the simulator does not know")
			return 127
		}
		args, old = strings.Fields(line), false
	}
	if len(args) == 0 || args[0] != "etcdctl" {
		c.errf("error: the simulator only knows etcdctl in a pod of etcd")
		return 127
	}
	flags, words := options(args[1:], etcdFlags()...)
	if old {
		c.errf("Incorrect Usage.\nflag provided but not defined: -cacert")
		return 1
	}
	if value(flags, "--cacert") == "" || value(flags, "--cert") == "" || value(flags, "--key") == "" {
		c.errf("Error: context deadline exceeded")
		return 1
	}
	return c.etcdctl(cl, flags, words)
}

func (c *call) etcdctl(cl *cluster, flags map[string][]string, words []string) int {
	limit, err := time.ParseDuration(value(flags, "--command-timeout"))
	if err != nil {
		limit = 5 * time.Second
	}
	members := cl.members()
	late := func() int {
		c.spend(limit)
		c.errf("Error: context deadline exceeded")
		return 1
	}
	switch {
	case slices.Equal(words, []string{"endpoint", "health"}):
		return c.endpointHealth(cl, strings.Split(value(flags, "--endpoints"), ","), members, limit)
	case !cl.quorum():
		return late()
	case slices.Equal(words, []string{"member", "list"}):
		for _, m := range members {
			c.printf("%s\n", m.line(minorOf(look(cl, func(d *clusterData) string { return d.Version }))))
		}
		return 0
	case len(words) == 3 && words[0] == "member" && words[1] == "remove":
		id, err := strconv.ParseUint(words[2], 16, 64)
		i := slices.IndexFunc(members, func(m member) bool { return m.ID == id })
		if err != nil || i < 0 {
			c.errf("Error: etcdserver: member not found")
			return 1
		}
		if !cl.removable(members[i]) || !cl.removeMember(members[i].Address) {
			c.errf("Error: etcdserver: re-configuration failed due to not enough started members")
			return 1
		}
		c.printf("Member %x removed from cluster %s\n", id, cl.ID)
		return 0
	}
	c.errf("error: a form of etcdctl that the simulator does not know")
	return 1
}

// line is a member as etcdctl lists it. Learners came with etcd 3.4, which came with 1.17.
func (m member) line(minor int) string {
	state, client := "started", "https://"+m.Address+":2379"
	if m.Name == "" {
		state, client = "unstarted", ""
	}
	s := fmt.Sprintf("%x, %s, %s, https://%s:2380, %s", m.ID, state, m.Name, m.Address, client)
	if minor >= 17 {
		s += fmt.Sprintf(", %t", m.Learner)
	}
	return s
}

// endpointHealth asks each endpoint for a read that a majority must agree to.
func (c *call) endpointHealth(cl *cluster, endpoints []string, members []member, limit time.Duration) int {
	status, well := 0, cl.quorum()
	for _, e := range endpoints {
		i := slices.IndexFunc(members, func(m member) bool { return e == "https://"+m.Address+":2379" })
		switch {
		case i >= 0 && members[i].Learner:
			status = 1
			c.errf("%s is unhealthy: failed to commit proposal: rpc error: code = Unavailable desc = etcdserver: rpc not supported for learner", e)
		case i >= 0 && well && cl.running(members[i].ID), e == "https://127.0.0.1:2379" && well:
			c.printf("%s is healthy: successfully committed proposal: took = 9.61ms\n", e)
		default:
			status = 1
			c.errf("%s is unhealthy: failed to commit proposal: context deadline exceeded", e)
		}
	}
	if status != 0 {
		c.spend(limit)
		c.errf("Error: unhealthy cluster")
	}
	return status
}

// members are the members of etcd, in the order in which they joined.
func (c *cluster) members() []member {
	return look(c, func(d *clusterData) []member { return slices.Clone(d.Members) })
}

// removable reports whether etcd would take a change that removes a member: of those that
// are left, a majority must run.
func (c *cluster) removable(gone member) bool {
	votes, up := 0, 0
	for _, m := range c.members() {
		if m.Learner || m.ID == gone.ID {
			continue
		}
		votes++
		if c.running(m.ID) {
			up++
		}
	}
	return up > votes/2
}
