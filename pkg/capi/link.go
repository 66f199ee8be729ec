package capi

import (
	"maps"
	"slices"
	"strings"
)

// reference reads an infrastructureRef and returns the name in it; "" when there
// is none or it is wrong. Up to v1beta1 it is an ObjectReference (apiVersion,
// kind, name, namespace); v1beta2 has apiGroup, kind and name, all required
// (CAPI contract).
func (d *decoder) reference(in *input, ref field, wantKind string) string {
	if !ref.mapping() {
		return ""
	}
	ok := true
	need := func(name, want string) {
		f := ref.get(name)
		switch s := f.str(); {
		case s == "":
			f.required("")
			ok = false
		case s != want && name == "kind":
			f.errorf("must be %s, not %s%s", wantKind, quote(s), didYouMean(s, []string{wantKind}))
			ok = false
		case s != want:
			f.errorf("must be %s, not %s", want, quote(s))
			ok = false
		}
	}
	refuse := func(name, format string, args ...any) {
		if f := ref.get(name); f.given() {
			f.errorf(format, args...)
			ok = false
		}
	}
	if in.version == "v1beta2" {
		refuse("apiVersion", "references of v1beta2 have apiGroup: %s instead", GroupInfrastructure)
		refuse("namespace", "references of v1beta2 have no namespace, it is the one of the %s", in.kind)
		if !ref.get("apiVersion").given() {
			need("apiGroup", GroupInfrastructure)
		}
	} else {
		refuse("apiGroup", "references of %s have apiVersion: %s/%s instead", in.version, GroupInfrastructure, VersionPlunder)
		if !ref.get("apiGroup").given() {
			need("apiVersion", GroupInfrastructure+"/"+VersionPlunder)
		}
		if f := ref.get("namespace"); f.str() != "" && f.str() != in.key.Namespace {
			f.errorf("must be the namespace of the %s, %s, not %s", in.kind, quote(in.key.Namespace), quote(f.str()))
			ok = false
		}
	}
	need("kind", wantKind)
	name := ref.get("name").checked(checkName)
	if name == "" {
		ref.get("name").required("")
	}
	if !ok {
		return ""
	}
	return name
}

// link connects the objects by their names and gives the defaults that need more
// than one object.
func (d *decoder) link() {
	plunderClusters := map[Key]*plunderClusterInput{}
	for _, p := range d.plunderClusters {
		plunderClusters[p.Key] = p
	}
	plunderMachines := map[Key]*plunderMachineInput{}
	for _, p := range d.plunderMachines {
		plunderMachines[p.Key] = p
	}
	clusters := map[Key]*clusterInput{}
	for _, c := range d.clusters {
		clusters[c.Key] = c
		d.linkCluster(c, plunderClusters)
	}
	for _, m := range d.machines {
		d.linkMachine(m, clusters, plunderMachines)
	}
	d.holders = map[*input]*machineInput{}
	for _, m := range d.machines {
		d.holders[m.in] = m
	}
	for _, p := range d.plunderMachines {
		d.holders[p.in] = p.by
	}
	if d.incomplete {
		return
	}
	for _, p := range d.plunderClusters {
		if p.by == nil {
			p.in.at().warnf("no Cluster refers to it: it has no effect")
		}
	}
	for _, p := range d.plunderMachines {
		if p.by == nil {
			p.in.at().warnf("no Machine refers to it: nothing is deployed for it")
		}
	}
}

func (d *decoder) linkCluster(c *clusterInput, all map[Key]*plunderClusterInput) {
	if c.infra == "" {
		return
	}
	f := c.in.at("spec", "infrastructureRef", "name")
	p := all[Key{c.Namespace, c.infra}]
	switch {
	case p == nil:
		d.missing(f, "PlunderCluster", Key{c.Namespace, c.infra}, names(all))
		return
	case p.by != nil:
		f.errorf("the PlunderCluster %s belongs to %s", p.Key, p.by.in.ref(f.in, 0))
		return
	}
	p.by = c
	c.Infra = p.PlunderCluster
	theirs := p.Spec.ControlPlaneEndpoint
	switch {
	case c.Endpoint.IsZero():
		c.Endpoint = theirs
	case !theirs.IsZero() && theirs != c.Endpoint:
		p.in.at("spec", "controlPlaneEndpoint").errorf("%s:%d is not the one of %s, %s:%d",
			theirs.Host, theirs.Port, c.in.ref(p.in, 0), c.Endpoint.Host, c.Endpoint.Port)
	}
}

func (d *decoder) linkMachine(m *machineInput, clusters map[Key]*clusterInput, all map[Key]*plunderMachineInput) {
	if m.ClusterName != "" {
		key := Key{m.Namespace, m.ClusterName}
		if c := clusters[key]; c != nil {
			m.Cluster = c.Cluster
			m.Paused = m.Paused || c.Paused
		} else {
			f := m.in.at("spec", "clusterName")
			if m.in.version == "v1alpha2" {
				f = m.in.at("metadata", "labels").get(LabelCluster)
			}
			d.missing(f, "Cluster", key, names(clusters))
		}
	}
	if m.infra == "" {
		return
	}
	f := m.in.at("spec", "infrastructureRef", "name")
	p := all[Key{m.Namespace, m.infra}]
	switch {
	case p == nil:
		d.missing(f, "PlunderMachine", Key{m.Namespace, m.infra}, names(all))
		return
	case p.by != nil:
		f.errorf("the PlunderMachine %s belongs to %s", p.Key, p.by.in.ref(f.in, 0))
		return
	}
	p.by = m
	m.Infra = p.PlunderMachine
	if _, ok := p.Annotations[AnnotationPaused]; ok {
		m.Paused = true
	}
}

// missing reports that an object that is referred to was not given.
func (d *decoder) missing(f field, kind string, key Key, others []Key) {
	if d.incomplete { // it may be the one that could not be read
		return
	}
	where := "input"
	if f.in.lenient() {
		where = "cluster"
	}
	var candidates []string
	for _, o := range others {
		if o.Name == key.Name {
			f.errorf("there is no %s %s in the %s, only %s in the namespace %s", kind, key, where, o, o.Namespace)
			return
		}
		if o.Namespace == key.Namespace {
			candidates = append(candidates, o.Name)
		}
	}
	hint := didYouMean(key.Name, candidates)
	if hint == "" && len(candidates) > 0 && len(candidates) <= 5 {
		hint = ", only " + strings.Join(candidates, ", ")
	}
	f.errorf("there is no %s %s in the %s%s", kind, key, where, hint)
}

// names are the keys of a map, sorted.
func names[T any](m map[Key]T) []Key {
	return slices.SortedFunc(maps.Keys(m), compareKeys)
}
