package capi

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// validate checks what only shows when all objects are seen together.
func (d *decoder) validate() {
	d.validateHardware()
	d.validateAddresses()
	d.validateMethods()
	for _, c := range d.clusters {
		d.validateRanges(c)
		d.validatePool(c)
	}
}

// taken remembers where each MAC or address was given first.
type taken map[string]field

// take reports a value that someone else has.
func (t taken) take(f field, what, value string) {
	if value == "" {
		return
	}
	first, ok := t[value]
	if !ok {
		t[value] = f
		return
	}
	f.errorf("the %s %s is given to %s, too", what, value, first.in.ref(f.in, first.line))
}

// validateHardware: no MAC is promised twice.
func (d *decoder) validateHardware() {
	pinned := taken{}
	for _, p := range d.plunderMachines {
		spec := p.in.at("spec")
		pinned.take(spec.get("macaddress"), "MAC address", p.Spec.MACAddress)
		id := p.Spec.ProviderID
		idField := spec.get("providerID")
		if m := p.by; m != nil && m.ProviderID != "" {
			if id != "" && id != m.ProviderID {
				m.in.at("spec", "providerID").errorf("%s is not the one of %s, %s", m.ProviderID, p.in.ref(m.in, 0), id)
			}
			if id == "" {
				id, idField = m.ProviderID, m.in.at("spec", "providerID")
			}
		}
		mac := strings.TrimPrefix(id, ProviderIDPrefix)
		switch {
		case mac == "" || mac == p.Spec.MACAddress:
		case p.Spec.MACAddress != "":
			idField.errorf("%s is not the machine that spec.macaddress of %s pins, %s", id, p.in.name(), p.Spec.MACAddress)
		default:
			pinned.take(idField, "MAC address", mac)
		}
		if p.by != nil && !p.by.ControlPlane && len(p.Spec.ControlPlaneMacPool) > 0 {
			spec.get("controlPlaneMacPool").warnf("has no effect: %s is a worker", p.by.in.name())
		}
	}
	// A control plane machine may be pinned to a MAC of its own cluster's pool.
	pools := taken{}
	for _, p := range d.plunderClusters {
		spec := p.in.at("spec")
		var macs []string
		var fields []field
		if p.Spec.StaticMAC != "" && !slices.Contains(p.Spec.ControlPlaneMacPool, p.Spec.StaticMAC) {
			macs, fields = append(macs, p.Spec.StaticMAC), append(fields, spec.get("staticMAC"))
		}
		for _, item := range spec.get("controlPlaneMacPool").items() {
			if mac, err := ParseMAC(item.quiet()); err == nil && !slices.Contains(macs, mac) {
				macs, fields = append(macs, mac), append(fields, item)
			}
		}
		for i, mac := range macs {
			holder, ok := pinned[mac]
			if ok && !d.controlPlaneOf(holder.in, p) {
				pinned.take(fields[i], "MAC address", mac)
				continue
			}
			pools.take(fields[i], "MAC address", mac)
		}
	}
}

// quiet is the text of a scalar, without a word about what is wrong with it.
func (f field) quiet() string {
	if f.n == nil || f.n.kind != scalarKind {
		return ""
	}
	return f.n.text
}

// controlPlaneOf reports whether in belongs to a control plane machine of p's cluster.
func (d *decoder) controlPlaneOf(in *input, p *plunderClusterInput) bool {
	m := d.holders[in]
	return m != nil && m.ControlPlane && m.Cluster != nil && m.Cluster.Infra == p.PlunderCluster
}

// validateAddresses: every machine has an address, no two the same. It also gives
// control plane machines without one their PlunderCluster's static address.
func (d *decoder) validateAddresses() {
	addresses := taken{}
	for _, p := range d.plunderMachines {
		addresses.take(p.in.at("spec", "ipaddress"), "address", p.Spec.IPAddress)
	}
	static := map[*PlunderCluster]*input{} // which machine has the static address
	for _, p := range d.plunderMachines {
		f := p.in.at("spec", "ipaddress")
		if f.given() && (f.n.kind != scalarKind || f.n.text != "") {
			continue // there is one, or what is wrong with it was said
		}
		var from *PlunderCluster
		if m := p.by; m != nil && m.ControlPlane {
			if m.Cluster == nil || (m.Cluster.Infra == nil && d.incomplete) {
				continue // the one that could not be found may have an address for it
			}
			from = m.Cluster.Infra
		}
		switch {
		case p.by == nil && d.incomplete:
		case from == nil || !from.has("staticIP"):
			f.required("")
		case static[from] != nil:
			f.errorf("is required: the staticIP of PlunderCluster %s is for one machine, and %s has it", from.Key, static[from].ref(p.in, 0))
		default:
			static[from] = p.in
			p.Spec.IPAddress = from.Spec.StaticIP
		}
	}
	for _, p := range d.plunderClusters {
		if holder, ok := addresses[p.Spec.StaticIP]; ok && d.controlPlaneOf(holder.in, p) {
			continue // the same said twice
		}
		addresses.take(p.in.at("spec", "staticIP"), "address", p.Spec.StaticIP)
	}
	d.validateEndpoints(addresses)
}

// has reports whether the spec was given this field, right or wrong.
func (c *PlunderCluster) has(name string) bool {
	spec, _ := c.Object["spec"].(map[string]any)
	return spec[name] != nil && spec[name] != ""
}

// validateEndpoints: an endpoint is an address of its own or that of a control
// plane machine of the same cluster, and no two clusters share one.
func (d *decoder) validateEndpoints(addresses taken) {
	endpoints := taken{}
	for _, c := range d.clusters {
		if c.Endpoint.IsZero() {
			continue
		}
		f := d.endpointField(c)
		endpoints.take(f, "endpoint", net.JoinHostPort(c.Endpoint.Host, strconv.Itoa(c.Endpoint.Port)))
		holder, ok := addresses[c.Endpoint.Host]
		if !ok {
			continue
		}
		if m := d.holders[holder.in]; m != nil && (!m.ControlPlane || m.Cluster != c.Cluster) {
			f.errorf("%s is the address of %s, which is no control plane machine of this cluster", c.Endpoint.Host, m.in.ref(f.in, 0))
		}
	}
}

// endpointField is where the endpoint of a cluster was written.
func (d *decoder) endpointField(c *clusterInput) field {
	path := []string{"spec", "controlPlaneEndpoint", "host"}
	if f := c.in.at(path...); f.given() && f.quiet() != "" {
		return f
	}
	for _, p := range d.plunderClusters {
		if p.by == c {
			return p.in.at(path...)
		}
	}
	return c.in.at(path...)
}

// addressRange is a range and where it was written; a default was not.
type addressRange struct {
	netip.Prefix
	what string // "pod" or "service"
	f    field
}

func (r addressRange) isDefault() bool { return r.f.n == nil }

// seenFrom names the range in a message about another object.
func (r addressRange) seenFrom(in *input) string {
	if r.isDefault() {
		return fmt.Sprintf("the default %s range %s of %s; to change it set %s.cidrBlocks", r.what, r.Prefix, r.f.in.ref(in, 0), r.f.path)
	}
	return fmt.Sprintf("the %s range %s of %s", r.what, r.Prefix, r.f.in.ref(in, r.f.line))
}

// ranges reads spec.clusterNetwork.<what>s.cidrBlocks, or gives the default. An
// empty entry is none: the example of 2019 has [""].
func ranges(c *clusterInput, what, otherwise string, check func(netip.Prefix) error) []addressRange {
	parent := c.in.at("spec", "clusterNetwork", what+"s")
	var list []addressRange
	for _, item := range parent.get("cidrBlocks").items() {
		s := item.str()
		if s == "" {
			continue
		}
		p, err := parseCIDR(s)
		if err == nil {
			err = check(p)
		}
		if !item.check(err) {
			continue
		}
		for _, other := range list {
			if other.Addr().Is4() == p.Addr().Is4() {
				item.errorf("%s is a second range of the same kind: one IPv4 and one IPv6 range are allowed", p)
			}
		}
		list = append(list, addressRange{p, what, item})
	}
	if len(list) == 0 {
		parent.n = nil
		list = append(list, addressRange{netip.MustParsePrefix(otherwise), what, parent})
	}
	return list
}

// validateRanges: pods, services and machines have addresses apart from each other.
func (d *decoder) validateRanges(c *clusterInput) {
	pods := ranges(c, "pod", DefaultPodCIDR, checkPodRange)
	services := ranges(c, "service", DefaultServiceCIDR, checkServiceRange)
	for _, p := range pods {
		for _, s := range services {
			if !p.Overlaps(s.Prefix) {
				continue
			}
			if s.isDefault() {
				p.f.errorf("%s overlaps %s", p.Prefix, s.seenFrom(c.in))
			} else {
				s.f.errorf("%s overlaps %s", s.Prefix, p.seenFrom(c.in))
			}
		}
	}
	outside := func(f field, host string, always bool) {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return
		}
		for _, r := range slices.Concat(pods, services) {
			// Without Kubernetes a default range is of no consequence.
			if r.Contains(addr) && (always || !r.isDefault()) {
				f.errorf("%s is inside %s", addr, r.seenFrom(f.in))
			}
		}
	}
	for _, p := range d.plunderMachines {
		if p.by != nil && p.by.Cluster == c.Cluster {
			outside(p.in.at("spec", "ipaddress"), p.Spec.IPAddress, p.by.Version != "")
		}
	}
	if !c.Endpoint.IsZero() {
		outside(d.endpointField(c), c.Endpoint.Host, true)
	}
}

// validatePool: the MACs that a cluster reserves for its control plane are enough
// for the machines that depend on them; else they would wait in vain.
func (d *decoder) validatePool(c *clusterInput) {
	if c.Infra == nil || d.incomplete || len(d.problems) > 0 {
		return // what is wrong already may be the reason
	}
	free := map[string]bool{}
	for _, mac := range append(slices.Clone(c.Infra.Spec.ControlPlaneMacPool), c.Infra.Spec.StaticMAC) {
		if mac != "" {
			free[mac] = true
		}
	}
	if len(free) == 0 {
		return
	}
	var dependent []string
	for _, p := range d.plunderMachines {
		if p.by == nil || p.by.Cluster != c.Cluster || !p.by.ControlPlane {
			continue
		}
		id := strings.TrimPrefix(cmp.Or(p.Spec.ProviderID, p.by.ProviderID), ProviderIDPrefix)
		switch mac := cmp.Or(p.Spec.MACAddress, id); {
		case mac != "":
			delete(free, mac)
		case len(p.Spec.ControlPlaneMacPool) == 0:
			dependent = append(dependent, p.by.Name)
		}
	}
	if len(dependent) <= len(free) {
		return
	}
	slices.Sort(dependent)
	for _, p := range d.plunderClusters {
		if p.by == c {
			f := p.in.at("spec", "controlPlaneMacPool")
			if !f.given() {
				f = p.in.at("spec", "staticMAC")
			}
			f.errorf("too few MAC addresses: %d left for %d control plane machines (%s)", len(free), len(dependent), strings.Join(dependent, ", "))
		}
	}
}
