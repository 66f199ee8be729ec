package translate

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// nodesOf are the machines of one cluster that become nodes, those that are being
// deleted left out.
type nodesOf struct {
	controlPlanes []*capi.Machine // by key
	workers       int
}

func (n *nodesOf) add(m *capi.Machine) {
	if m.ControlPlane {
		n.controlPlanes = append(n.controlPlanes, m)
	} else {
		n.workers++
	}
}

// ha reports whether there is more than one control plane.
func (n *nodesOf) ha() bool { return n != nil && len(n.controlPlanes) > 1 }

// single reports whether there is one machine only.
func (n *nodesOf) single() bool { return n != nil && len(n.controlPlanes)+n.workers == 1 }

// skewProblems are workers that are newer than every control plane that is given with
// them: kubeadm does not let them join (version skew policy of Kubernetes).
func (p *Plan) skewProblems(nodes map[capi.Key]*nodesOf) []capi.Problem {
	newest := map[capi.Key]*MachinePlan{}
	for _, mp := range p.Machines {
		cluster := mp.Machine.Cluster.Key
		if mp.Kubernetes == nil || !slices.Contains(nodes[cluster].given(), mp.Machine) || mp.Kubernetes.Version == "" {
			continue
		}
		if newest[cluster] == nil || mp.Kubernetes.Minor > newest[cluster].Kubernetes.Minor {
			newest[cluster] = mp
		}
	}
	var bad []capi.Problem
	for _, mp := range p.Machines {
		m, control := mp.Machine, newest[mp.Machine.Cluster.Key]
		if m.ControlPlane || m.Deleting || mp.Kubernetes == nil || mp.Kubernetes.Version == "" || control == nil || mp.Kubernetes.Minor <= control.Kubernetes.Minor {
			continue
		}
		bad = append(bad, problem(m, "spec.version", fmt.Sprintf("v%s is newer than the control plane (Machine %s has v%s): a worker may be older than it, never newer",
			mp.Kubernetes.Version, control.Machine.Key, control.Kubernetes.Version)))
	}
	return bad
}

// given are the control planes.
func (n *nodesOf) given() []*capi.Machine {
	if n == nil {
		return nil
	}
	return n.controlPlanes
}

// first is the control plane that initialises a new cluster, or nil.
func (n *nodesOf) first() *capi.Machine {
	if n == nil || len(n.controlPlanes) == 0 {
		return nil
	}
	return n.controlPlanes[0]
}

// clusterProblems are what several machines of a cluster cannot be together.
func clusterProblems(set *capi.Set, nodes map[capi.Key]*nodesOf, opts Options) []capi.Problem {
	var out []capi.Problem
	seen := map[capi.Key]bool{}
	for _, m := range set.Machines {
		n, c := nodes[m.Cluster.Key], m.Cluster
		if n == nil || seen[c.Key] {
			continue
		}
		seen[c.Key] = true
		out = append(out, endpointProblems(set, c, n, opts)...)
	}
	return out
}

// endpointProblems: several control planes need an address that leads to each of them,
// and so none of their own. Where a bootstrap provider makes the nodes, that is its
// business.
func endpointProblems(set *capi.Set, c *capi.Cluster, n *nodesOf, opts Options) []capi.Problem {
	var out []capi.Problem
	bad := func(field, format string, args ...any) {
		out = append(out, capi.Problem{Origin: c.Origin, Object: "Cluster " + c.Key.String(), Field: field, Message: fmt.Sprintf(format, args...)})
	}
	const endpoint = "spec.controlPlaneEndpoint"
	options := c.ClusterOptionsFor(opts.Defaults)
	ours := 0
	for _, m := range n.controlPlanes {
		if !m.Bootstrapped() {
			ours++
		}
	}
	several := len(n.controlPlanes)
	switch {
	case ours == 0 && several > 1 && c.Endpoint.IsZero() && opts.Providers && slices.ContainsFunc(n.controlPlanes, awaitsProvider):
		bad(endpoint, "it is needed for %d control plane Machines: the bootstrap provider makes no data without it", several)
		return out
	case ours == 0:
		return nil
	case ours < several:
		bad("", "%d of its %d control plane Machines have bootstrap data and %d have none: give it to all of them, or to none", several-ours, several, ours)
		return out
	case options.VIP != nil && c.Endpoint.IsZero():
		bad(endpoint, "it is needed with vip: the free IPv4 address that the control plane machines are to hold")
	case options.VIP != nil && !isIPv4(c.Endpoint.Host):
		bad(endpoint, "%q is not an IPv4 address, which the control plane machines could hold (vip)", c.Endpoint.Host)
	case several > 1 && c.Endpoint.IsZero():
		bad(endpoint, "it is needed for %d control plane Machines: the address or name of a load balancer in front of them, or, with vip, a free address that they hold among themselves", several)
	}
	if owner := machineAt(set, c, c.Endpoint.Host); owner != nil && (several > 1 || options.VIP != nil) {
		bad(endpoint, "%s is the address of Machine %s: with %s it must be an address of no machine, that of a load balancer or, with vip, a free one",
			c.Endpoint.Host, owner.Key, map[bool]string{true: "several control plane Machines", false: "vip"}[several > 1])
	}
	for _, m := range n.controlPlanes {
		k, _ := kubernetes(m, n, opts)
		if several > 1 && k.uploadFlag() == "" && options.PKI != capi.PKITool {
			bad("", "kubeadm of v%s cannot hand keys to further control plane Machines (%s and others): set pki: tool in the PlunderCluster, or choose v1.14 or newer", k.Version, m.Key)
			break
		}
	}
	return out
}

// awaitsProvider reports whether a bootstrap provider is still to make a machine's data.
func awaitsProvider(m *capi.Machine) bool {
	return m.BootstrapConfig && m.DataSecretName == nil && m.BootstrapData == "" && m.GivenBootstrap == nil
}

// machineAt is the machine of the cluster that has the address, or nil.
func machineAt(set *capi.Set, c *capi.Cluster, address string) *capi.Machine {
	for _, m := range set.Machines {
		if m.Cluster.Key == c.Key && address != "" && m.Infra.Spec.IPAddress == address {
			return m
		}
	}
	return nil
}

func isIPv4(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Is4()
}
