package host

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

const (
	// podStart is how long a pod takes to be ready, podEnd how long to end.
	podStart = 2 * time.Second
	podEnd   = 2 * time.Second

	systemNamespace = "kube-system"
)

// workload is what makes pods: what was applied, and what kubeadm brings.
type workload struct {
	Kind, Namespace, Name string // Kind "Pod" is a pod that nobody replaces
	Labels                map[string]string
	Replicas              int  `json:",omitempty"` // of all but a DaemonSet
	EmptyDir              bool `json:",omitempty"`
	// Anywhere: its pods run on control planes, too.
	Anywhere bool `json:",omitempty"`
	// Stuck: a finalizer that nobody removes keeps its pods.
	Stuck bool `json:",omitempty"`
	Made  int  `json:",omitempty"` // how many pods it ever had
	Pods  []pod
}

// pod is one of a workload's.
type pod struct {
	Name    string
	Node    string    `json:",omitempty"` // empty while there is none for it
	Started time.Time `json:",omitzero"`
	Deleted time.Time `json:",omitzero"` // since when it is being deleted
}

// budget is a PodDisruptionBudget.
type budget struct {
	Namespace, Name string
	Labels          map[string]string // of its pods
	MinAvailable    int               `json:",omitempty"`
	MaxUnavailable  *int              `json:",omitempty"`
}

// appliedObject is what is read of objects that make pods, or protect them.
type appliedObject struct {
	Spec struct {
		Replicas *int `json:"replicas"`
		Template struct {
			Metadata struct {
				Labels     map[string]string `json:"labels"`
				Finalizers []string          `json:"finalizers"`
			} `json:"metadata"`
			Spec podSpec `json:"spec"`
		} `json:"template"`
		podSpec
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		MinAvailable   int  `json:"minAvailable"`
		MaxUnavailable *int `json:"maxUnavailable"`
	} `json:"spec"`
}

type podSpec struct {
	Tolerations []map[string]any `json:"tolerations"`
	Volumes     []map[string]any `json:"volumes"`
}

func (s podSpec) emptyDir() bool {
	return slices.ContainsFunc(s.Volumes, func(v map[string]any) bool { _, ok := v["emptyDir"]; return ok })
}

// workloadOf is what an applied document makes pods of, or nil; problem is what the
// simulator does not understand of it.
func workloadOf(d document) (w *workload, b *budget, problem error) {
	if !slices.Contains([]string{"Deployment", "ReplicaSet", "StatefulSet", "Job", "DaemonSet", "Pod", "PodDisruptionBudget"}, d.Kind) {
		return nil, nil, nil
	}
	var o appliedObject
	if err := yaml.Unmarshal(d.raw, &o); err != nil {
		return nil, nil, err
	}
	namespace := d.namespace()
	if namespace == "" {
		namespace = "default"
	}
	if d.Kind == "PodDisruptionBudget" {
		return nil, &budget{namespace, d.name(), o.Spec.Selector.MatchLabels, o.Spec.MinAvailable, o.Spec.MaxUnavailable}, nil
	}
	t := o.Spec.Template
	w = &workload{
		Kind: d.Kind, Namespace: namespace, Name: d.name(), Labels: t.Metadata.Labels, Replicas: 1,
		EmptyDir: t.Spec.emptyDir(), Anywhere: len(t.Spec.Tolerations) > 0, Stuck: len(t.Metadata.Finalizers) > 0,
	}
	if o.Spec.Replicas != nil {
		w.Replicas = *o.Spec.Replicas
	}
	if d.Kind == "Pod" {
		finalizers, _ := d.Metadata["finalizers"].([]any)
		w.Labels, w.EmptyDir, w.Anywhere, w.Stuck = d.labels(), o.Spec.emptyDir(), len(o.Spec.Tolerations) > 0, len(finalizers) > 0
	}
	return w, nil, nil
}

// addWorkload has a workload, or changes how many pods one has.
func (d *clusterData) addWorkload(w workload) {
	for i := range d.Workloads {
		if x := &d.Workloads[i]; x.Kind == w.Kind && x.Namespace == w.Namespace && x.Name == w.Name {
			x.Replicas = w.Replicas
			return
		}
	}
	d.Workloads = append(d.Workloads, w)
}

func (d *clusterData) addBudget(b budget) {
	d.Budgets = slices.DeleteFunc(d.Budgets, func(x budget) bool { return x.Namespace == b.Namespace && x.Name == b.Name })
	d.Budgets = append(d.Budgets, b)
}

// addons are the pods that kubeadm init brings.
func (d *clusterData) addons() {
	d.addWorkload(workload{Kind: "DaemonSet", Namespace: systemNamespace, Name: "kube-proxy", Labels: map[string]string{"k8s-app": "kube-proxy"}})
	d.addWorkload(workload{Kind: "Deployment", Namespace: systemNamespace, Name: "coredns", Labels: map[string]string{"k8s-app": "kube-dns"}, Replicas: 2, Anywhere: true})
}

// add makes one more pod.
func (w *workload) add(d *clusterData, node string) {
	w.Made++
	// The last digits: those in front hardly differ where only the end of the text does.
	h := fmt.Sprintf("%05x", d.repeatable(fmt.Sprintf("pod %s %s %s %d", w.Kind, w.Namespace, w.Name, w.Made))&0xfffff)
	name := w.Name + "-" + h
	switch w.Kind {
	case "Pod":
		name = w.Name
	case "Deployment":
		name = fmt.Sprintf("%s-%09x-%s", w.Name, d.repeatable("set "+w.Namespace+" "+w.Name)&0xfffffffff, h)
	case "StatefulSet":
		for i := 0; ; i++ {
			name = fmt.Sprintf("%s-%d", w.Name, i)
			if !slices.ContainsFunc(w.Pods, func(p pod) bool { return p.Name == name }) {
				break
			}
		}
	}
	w.Pods = append(w.Pods, pod{Name: name, Node: node})
}

// pods brings the pods of the cluster up to date: what controllers, scheduler and
// kubelets do all the time is done when somebody looks.
func (c *cluster) pods(w *World) []podView {
	alive := map[string]bool{}
	for _, n := range c.nodes() {
		h := w.At(n.Address)
		alive[n.Name] = h != nil && h.cfg.MAC == n.MAC && h.kubelet(n.Name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, changed := time.Now(), false
	for i := range c.Workloads {
		if c.Workloads[i].settle(&c.clusterData, alive, now) {
			changed = true
		}
	}
	if changed {
		c.Revision++
	}
	return c.views()
}

// settle is pods for one workload; it reports whether anything changed.
func (w *workload) settle(d *clusterData, alive map[string]bool, now time.Time) (changed bool) {
	before := len(w.Pods)
	w.Pods = slices.DeleteFunc(w.Pods, func(p pod) bool {
		if p.Node == "" {
			return !p.Deleted.IsZero()
		}
		up, there := alive[p.Node]
		return !there || !p.Deleted.IsZero() && up && !w.Stuck && now.Sub(p.Deleted) >= podEnd
	})
	changed = len(w.Pods) != before
	if w.Kind == "DaemonSet" {
		for _, n := range d.Nodes {
			if !slices.ContainsFunc(w.Pods, func(p pod) bool { return p.Node == n.Name }) {
				w.add(d, n.Name)
			}
		}
	}
	for w.Kind != "DaemonSet" && w.wanting() && (w.Kind != "Pod" || w.Made == 0) {
		w.add(d, "")
	}
	for i := range w.Pods {
		p := &w.Pods[i]
		if p.Node == "" && !d.Network.IsZero() {
			p.Node = d.place(w)
		}
		if p.Node != "" && p.Started.IsZero() {
			p.Started, changed = now, true
		}
	}
	return changed
}

// wanting reports whether a workload has too few pods. A StatefulSet waits until the one that
// is to be replaced is gone.
func (w *workload) wanting() bool {
	n := 0
	for _, p := range w.Pods {
		if p.Deleted.IsZero() || w.Kind == "StatefulSet" {
			n++
		}
	}
	return n < w.Replicas
}

// place is the node for another pod of a workload: the one that has the fewest, or none.
func (d *clusterData) place(w *workload) string {
	best, least := "", 0
	for _, n := range d.Nodes {
		if n.Unschedulable || n.ControlPlane && !w.Anywhere {
			continue
		}
		count := 0
		for _, x := range d.Workloads {
			for _, p := range x.Pods {
				if p.Node == n.Name {
					count++
				}
			}
		}
		if best == "" || count < least {
			best, least = n.Name, count
		}
	}
	return best
}

// podView is a pod as the API shows it.
type podView struct {
	Namespace, Name, Node, Address string
	Labels                         map[string]string
	Controller                     string // kind of its controller, "" if it has none
	Mirror                         bool   // kubelet runs it by itself
	EmptyDir, Stuck                bool
	Started, Deleted               time.Time
}

// views are all pods, by namespace and name. It is called with the lock held.
func (d *clusterData) views() []podView {
	var out []podView
	address := map[string]string{}
	for _, n := range d.Nodes {
		address[n.Name] = n.Address
	}
	for _, w := range d.Workloads {
		kind := w.Kind
		switch kind {
		case "Pod":
			kind = ""
		case "Deployment":
			kind = "ReplicaSet"
		}
		for _, p := range w.Pods {
			out = append(out, podView{
				Namespace: w.Namespace, Name: p.Name, Node: p.Node, Address: address[p.Node], Labels: w.Labels,
				Controller: kind, EmptyDir: w.EmptyDir, Stuck: w.Stuck, Started: p.Started, Deleted: p.Deleted,
			})
		}
	}
	for _, n := range d.Nodes {
		i := slices.IndexFunc(d.Members, func(m member) bool { return m.Name == n.Name })
		if i < 0 {
			continue
		}
		for _, name := range controlPlanePods() {
			out = append(out, podView{
				Namespace: systemNamespace, Name: name + "-" + n.Name, Node: n.Name, Address: n.Address,
				Labels: map[string]string{"component": name, "tier": "control-plane"}, Controller: "Node", Mirror: true, Started: n.Joined,
			})
		}
	}
	slices.SortFunc(out, func(a, b podView) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	return out
}

// allowed is how many pods of a budget may be disrupted now.
func (b budget) allowed(pods []podView, now time.Time) int {
	all, healthy := 0, 0
	for _, p := range pods {
		if !b.of(p) {
			continue
		}
		all++
		if p.Node != "" && p.Deleted.IsZero() && now.Sub(p.Started) >= podStart {
			healthy++
		}
	}
	least := b.MinAvailable
	if b.MaxUnavailable != nil {
		least = all - *b.MaxUnavailable
	}
	return max(0, healthy-least)
}

// of reports whether a budget protects a pod.
func (b budget) of(p podView) bool {
	if b.Namespace != p.Namespace {
		return false
	}
	for k, v := range b.Labels {
		if p.Labels[k] != v {
			return false
		}
	}
	return true
}

// evict begins the deletion of a pod, unless a budget protects it.
func (c *cluster) evict(p podView) (allowed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, pods := time.Now(), c.views()
	for _, b := range c.Budgets {
		if b.of(p) && b.allowed(pods, now) == 0 {
			return false
		}
	}
	for i := range c.Workloads {
		w := &c.Workloads[i]
		for j := range w.Pods {
			if w.Namespace == p.Namespace && w.Pods[j].Name == p.Name && w.Pods[j].Deleted.IsZero() {
				w.Pods[j].Deleted = now
				c.Revision++
			}
		}
	}
	return true
}
