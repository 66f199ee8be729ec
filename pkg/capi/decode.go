package capi

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// DecodeOptions change how documents are read.
type DecodeOptions struct {
	// Namespace is the namespace that was asked for by name. Objects without one get
	// it, and an object that names another one is an error, as in kubectl. If it is
	// empty, objects without a namespace are in DefaultNamespace.
	Namespace string
	// DefaultNamespace is where objects without a namespace are when none was asked for
	// by name; "" is the constant of that name.
	DefaultNamespace string
	// Lenient is for documents that were read from a cluster, which are those whose
	// Origin has no file: what their API server has let in is not ours to refuse, so
	// unknown fields of Plunder specs stay as they are, Machines and Clusters of other
	// infrastructure are left out, with a warning, and so are Machines with which
	// something is wrong: Set.Unfit.
	Lenient bool
	// Known are clusters of earlier runs, for machines whose Cluster is not in the
	// input. What the input gives itself counts, and a known cluster that no machine of
	// the input belongs to is left out of the Set.
	Known []Document
	// Defaults are what the run uses where the objects say nothing: what goes together
	// with what is judged with them.
	Defaults Defaults
}

// Decode reads documents, gives defaults, links and validates. The error is an
// *InputError with everything that is wrong, in the order of the documents.
func Decode(docs []Document) (*Set, error) { return DecodeOptions{}.Decode(docs) }

// Decode is like the function Decode, with options.
func (o DecodeOptions) Decode(docs []Document) (*Set, error) {
	if o.Namespace != "" {
		if err := checkLabelName(o.Namespace); err != nil {
			return nil, &InputError{Problems: []Problem{{Origin: Origin{File: "--namespace"}, Message: err.Error()}}}
		}
	}
	var unfit []Unfit
	for {
		d := &decoder{opts: o}
		set, err := d.decode(docs)
		if err == nil {
			set.Unfit = unfit
			slices.SortFunc(set.Unfit, func(a, b Unfit) int { return compareKeys(a.Key, b.Key) })
			return set, nil
		}
		without, more := d.setAside(docs)
		if without == nil {
			return nil, err
		}
		docs, unfit = without, append(unfit, more...)
	}
}

func (d *decoder) decode(docs []Document) (*Set, error) {
	o := d.opts
	for i, doc := range docs {
		d.document(i, doc)
	}
	given := len(d.clusters)
	if d.clusterMissing() {
		d.known = true
		for i, doc := range o.Known {
			d.document(len(docs)+i, doc)
		}
	}
	if given+len(d.machines) == 0 && len(docs) > 0 && len(d.problems) == 0 {
		d.report(0, Problem{
			Origin:  docs[0].Origin,
			Message: fmt.Sprintf("no Cluster or Machine of %s in the input (%d documents)", GroupCluster, len(docs)),
		})
	}
	d.link()
	d.linkSecrets()
	d.validate()
	if len(d.problems) > 0 {
		return nil, &InputError{Problems: d.sorted(d.problems)}
	}
	set := &Set{}
	for i, c := range d.clusters {
		if i < given || slices.ContainsFunc(d.machines, func(m *machineInput) bool { return m.Machine.Cluster == c.Cluster }) {
			set.Clusters = append(set.Clusters, c.Cluster)
		}
	}
	for _, m := range d.machines {
		set.Machines = append(set.Machines, m.Machine)
	}
	slices.SortFunc(set.Clusters, func(a, b *Cluster) int { return compareKeys(a.Key, b.Key) })
	slices.SortFunc(set.Machines, func(a, b *Machine) int { return compareKeys(a.Key, b.Key) })
	for _, m := range set.Machines {
		m.Cluster.Machines = append(m.Cluster.Machines, m)
	}
	d.warnings = slices.DeleteFunc(d.warnings, func(p placed) bool { return p.doc >= len(docs) })
	for _, p := range d.sorted(d.warnings) {
		set.Warnings = append(set.Warnings, p.String())
	}
	return set, nil
}

// clusterMissing reports whether a machine's Cluster is not among the objects so far.
func (d *decoder) clusterMissing() bool {
	return slices.ContainsFunc(d.machines, func(m *machineInput) bool {
		return !slices.ContainsFunc(d.clusters, func(c *clusterInput) bool {
			return c.Cluster.Key == Key{Namespace: m.Machine.Namespace, Name: m.Machine.ClusterName}
		})
	})
}

func compareKeys(a, b Key) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// decoder collects the objects of an input and what is wrong with them.
type decoder struct {
	opts     DecodeOptions
	problems []placed
	warnings []placed
	known    bool // the documents read now are DecodeOptions.Known
	// namesOnly: nothing but the names of Clusters and Machines is wanted, named are they.
	namesOnly bool
	named     []*input
	// incomplete: an object could not be read as far as its name, so nothing can be
	// said about objects that are missing.
	incomplete bool

	seen            map[string]*input // by kind and key, to find duplicates
	clusters        []*clusterInput
	machines        []*machineInput
	plunderClusters []*plunderClusterInput
	plunderMachines []*plunderMachineInput
	secrets         []*input // with a key each
	// holders gives the Machine that an object belongs to; nil for none.
	holders map[*input]*machineInput
}

// placed is a problem with the index of its document: file names do not sort in
// the order in which they were given.
type placed struct {
	doc int
	Problem
}

func (d *decoder) report(doc int, p Problem) { d.problems = append(d.problems, placed{doc, p}) }
func (d *decoder) warn(doc int, p Problem)   { d.warnings = append(d.warnings, placed{doc, p}) }

// sorted puts problems in the order of the input, each once.
func (d *decoder) sorted(list []placed) []Problem {
	slices.SortStableFunc(list, func(a, b placed) int {
		if a.doc != b.doc {
			return a.doc - b.doc
		}
		return a.Origin.Line - b.Origin.Line
	})
	out := make([]Problem, 0, len(list))
	seen := make(map[Problem]bool, len(list))
	for _, p := range list {
		if !seen[p.Problem] {
			seen[p.Problem] = true
			out = append(out, p.Problem)
		}
	}
	return out
}

// document reads one document.
func (d *decoder) document(i int, doc Document) {
	root, faults := parse(doc)
	for _, f := range faults {
		origin := doc.Origin
		origin.Line = f.line
		d.report(i, Problem{Origin: origin, Message: f.text})
		d.incomplete = true
	}
	if len(faults) == 0 && root.kind != nullKind {
		d.object(i, doc.Origin, root, "", "")
	}
}

// object reads one object, or the objects of a list. The API version and kind
// are those of the list's type, for items that do not repeat them.
func (d *decoder) object(i int, origin Origin, root *node, apiVersion, kind string) {
	origin.Line = root.line
	in := &input{d: d, doc: i, origin: origin, root: root}
	top := in.at()
	if !top.mapping() {
		if root.kind == nullKind {
			top.errorf("is empty")
		}
		d.incomplete = true
		return
	}
	if f := top.get("apiVersion"); f.given() || apiVersion == "" {
		apiVersion = f.str()
	}
	if f := top.get("kind"); f.given() || kind == "" {
		kind = f.str()
	}
	if apiVersion == "" || kind == "" {
		d.incomplete = true
		top.get("apiVersion").required("")
		top.get("kind").required("")
		return
	}
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group, version = "", apiVersion
	}
	in.apiVersion, in.version, in.kind = apiVersion, version, kind
	if items := top.get("items"); items.given() && strings.HasSuffix(kind, "List") {
		itemVersion, itemKind := apiVersion, strings.TrimSuffix(kind, "List")
		if itemKind == "" { // kind: List mixes kinds, so its items say what they are
			itemVersion = ""
		}
		for _, item := range items.items() {
			d.object(i, origin, item.n, itemVersion, itemKind)
		}
		return
	}
	d.dispatch(in, group)
}

// clusterVersions are the versions of cluster.x-k8s.io that are read.
func clusterVersions() []string {
	return []string{"v1alpha2", "v1alpha3", "v1alpha4", "v1beta1", "v1beta2"}
}

// otherClusterKinds are the rest of cluster.x-k8s.io.
func otherClusterKinds() []string {
	return []string{"ClusterClass", "MachineDeployment", "MachineDrainRule", "MachineHealthCheck", "MachinePool", "MachineSet"}
}

// otherPlunderKinds are only of use to Cluster API controllers.
func otherPlunderKinds() []string {
	return []string{"PlunderClusterTemplate", "PlunderMachineTemplate"}
}

// dispatch gives the object to the function that knows its kind.
func (d *decoder) dispatch(in *input, group string) {
	top := in.at()
	ours := in.kind == "Cluster" || in.kind == "Machine"
	plunders := in.kind == "PlunderCluster" || in.kind == "PlunderMachine"
	wrongGroup := func(want string) {
		d.incomplete = true
		top.get("apiVersion").errorf("%s is of the API group %s, not %s", in.kind, want, quote(group))
	}
	switch {
	case group == GroupCluster && ours:
		if !slices.Contains(clusterVersions(), in.version) {
			d.incomplete = true
			top.get("apiVersion").errorf("the version %s is not supported, only %s", quote(in.version), strings.Join(clusterVersions(), ", "))
			return
		}
		if d.foreign(in) || !d.metadata(in) {
			return
		}
		switch {
		case d.namesOnly:
			d.named = append(d.named, in)
		case in.kind == "Cluster":
			d.cluster(in)
		default:
			d.machine(in)
		}
	case group == GroupInfrastructure && plunders:
		if d.namesOnly {
			return // they are deleted with what they belong to
		}
		if in.version != VersionPlunder {
			d.incomplete = true
			top.get("apiVersion").errorf("the version %s is not supported, only %s", quote(in.version), VersionPlunder)
			return
		}
		if !d.metadata(in) {
			return
		}
		if in.kind == "PlunderCluster" {
			d.plunderCluster(in)
		} else {
			d.plunderMachine(in)
		}
	case group == GroupCluster && plunders:
		wrongGroup(GroupInfrastructure)
	case group == GroupInfrastructure && ours:
		wrongGroup(GroupCluster)
	case group == "cluster.k8s.io" && ours:
		d.incomplete = true
		top.get("apiVersion").errorf("%s is an API of before August 2019: use %s/v1beta1 or v1beta2", quote(in.apiVersion), GroupCluster)
	case plunders:
		wrongGroup(GroupInfrastructure)
	case ours && misspelt(group, GroupCluster):
		wrongGroup(GroupCluster)
	case group == GroupCluster && !slices.Contains(otherClusterKinds(), in.kind):
		d.unknownKind(in, append([]string{"Cluster", "Machine"}, otherClusterKinds()...))
	case group == GroupInfrastructure && strings.HasPrefix(in.kind, "Plunder") && !slices.Contains(otherPlunderKinds(), in.kind):
		d.unknownKind(in, append([]string{"PlunderCluster", "PlunderMachine"}, otherPlunderKinds()...))
	case group == "" && in.kind == "Secret" && (d.namesOnly || d.secret(in)):
	default:
		d.ignore(in, group)
	}
}

// lenient reports whether the object was read from a cluster, and may so have what a
// manifest may not.
func (in *input) lenient() bool { return in.d.opts.Lenient && in.origin.File == "" }

// foreign leaves out a Machine or Cluster of a cluster that is for another
// infrastructure provider.
func (d *decoder) foreign(in *input) bool {
	if !in.lenient() {
		return false
	}
	ref := in.at("spec", "infrastructureRef")
	if ref.n == nil || ref.n.kind != mapKind {
		return false
	}
	kind := ref.get("kind").quiet()
	if kind == "" || kind == "Plunder"+in.kind {
		return false
	}
	meta := in.at("metadata")
	in.key = Key{Namespace: meta.get("namespace").quiet(), Name: meta.get("name").quiet()}
	in.at().warnf("left out: its infrastructure is %s, which is not ours to provide", quote(kind))
	return true
}

func (d *decoder) unknownKind(in *input, kinds []string) {
	d.incomplete = true
	in.at("kind").errorf("unknown kind %s%s", quote(in.kind), didYouMean(in.kind, kinds))
}

// misspelt reports whether a group is close to the one that was meant.
func misspelt(group, meant string) bool {
	return group != meant && levenshtein.ComputeDistance(group, meant) <= 2
}

// ignore says that an object of another system was left out.
func (d *decoder) ignore(in *input, group string) {
	object := in.kind
	if meta, ok := in.root.get("metadata"); ok {
		if name, ok := meta.value.get("name"); ok && name.value.tag == "!!str" {
			object += " " + quote(name.value.text)
		}
	}
	why := "ignored: not an object of the Cluster API"
	if strings.HasSuffix(group, GroupCluster) {
		why = "ignored: only Cluster API controllers read it; where they are, kubectl apply it"
	}
	switch in.kind {
	case "MachineDeployment", "MachineSet", "MachinePool", "KubeadmControlPlane": // people expect Machines of these
		why = "ignored: without the Cluster API controllers nothing makes Machines of it, write each Machine down"
	}
	d.warn(in.doc, Problem{Origin: in.origin, Object: object, Message: why})
}

// metadata reads name and namespace and reports whether the object has a name by
// which others can refer to it.
func (d *decoder) metadata(in *input) bool {
	meta := in.at("metadata")
	name, namespace := meta.get("name"), meta.get("namespace")
	n := name.str()
	if n == "" {
		d.incomplete = true
		if !name.given() && meta.get("generateName").given() {
			name.errorf("is required: generateName would make another machine on every run")
		} else {
			name.required("")
		}
		return false
	}
	ns := namespace.str()
	switch {
	case ns == "" && d.opts.Namespace != "":
		ns = d.opts.Namespace
	case ns == "":
		ns = cmp.Or(d.opts.DefaultNamespace, DefaultNamespace)
	}
	in.key = Key{Namespace: ns, Name: n}
	named := name.check(checkName(n))
	if !namespace.check(checkLabelName(ns)) || !named {
		d.incomplete = true // others may mean this one
	}
	if d.known && (d.seen[in.name()] != nil || d.opts.Namespace != "" && ns != d.opts.Namespace) {
		return false
	}
	if want := d.opts.Namespace; want != "" && ns != want {
		namespace.errorf("the namespace of the object, %s, is not the one asked for, %s", quote(ns), quote(want))
	}
	id := in.name()
	if first := d.seen[id]; first != nil {
		name.errorf("is given twice, first as %s", first.ref(in, 0))
		return false
	}
	if d.seen == nil {
		d.seen = map[string]*input{}
	}
	d.seen[id] = in
	for _, label := range sortedKeys(meta.get("labels")) {
		f := meta.get("labels").get(label)
		f.check(checkLabel(label, f.str()))
	}
	return true
}

func sortedKeys(f field) []string {
	if !f.mapping() {
		return nil
	}
	names := make([]string, 0, len(f.n.keys))
	for _, k := range f.n.keys {
		names = append(names, k.name)
	}
	slices.Sort(names)
	return names
}
