package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// plannedMachine is one machine of `apply --dry-run`; the fields are documented
// in docs/commands/apply.md.
type plannedMachine struct {
	name string

	Machine    string       `json:"machine"` // namespace/name
	Action     string       `json:"action"`
	Role       string       `json:"role"`
	Cluster    string       `json:"cluster"`
	Address    string       `json:"address"`
	BootConfig string       `json:"bootConfig"`
	MACs       []string     `json:"macs,omitempty"` // the only ones it may have
	PinnedBy   string       `json:"pinnedBy,omitempty"`
	MAC        string       `json:"mac,omitempty"` // the one it was given by an earlier run
	HostName   string       `json:"hostName,omitempty"`
	Kubernetes string       `json:"kubernetes,omitempty"` // X.Y.Z
	Steps      []event.Step `json:"steps,omitempty"`
	// Options are those that are not the default, each as a text to show; for a control
	// plane machine those of its cluster are among them.
	Options map[string]string `json:"options,omitempty"`
}

// What a run would do with a machine.
const (
	actionCreate    = "create"
	actionContinue  = "continue"
	actionUnchanged = "unchanged"
	actionPaused    = "paused"
	actionDeleting  = "refuse (being deleted)"
	actionDelete    = "delete (pending)"
	actionProtected = "refuse (protected)"
)

// printPlan prints what a run would do. It reads the store and nothing else.
func (f *factory) printPlan(ctx context.Context, out output, set *capi.Set, plan *translate.Plan, store *opened, defaults capi.Defaults) error {
	// This marks what is paused or being deleted.
	if _, err := store.Look(ctx, set); err != nil {
		return err
	}
	condemned, err := pendingDeletions(ctx, set, store)
	if err != nil {
		return err
	}
	var namespaces []string
	for _, mp := range plan.Machines {
		namespaces = append(namespaces, mp.Machine.Namespace)
	}
	slices.Sort(namespaces)
	records, err := store.Records(ctx, slices.Compact(namespaces)...)
	if err != nil {
		return err
	}
	known := map[capi.Key]capi.Record{}
	for _, r := range records {
		known[r.Key] = r
	}
	l := list{kind: "PlannedMachineList", columns: []ui.Column{
		{Name: "MACHINE"}, {Name: "ACTION"}, {Name: "ROLE"}, {Name: "ADDRESS"}, {Name: "BOOT CONFIG"}, {Name: "HARDWARE"}, {Name: "KUBERNETES"},
		{Name: "CLUSTER", Wide: true}, {Name: "STEPS", Wide: true}, {Name: "OPTIONS", Wide: true},
	}}
	var machines []plannedMachine
	for _, mp := range plan.Machines {
		if _, ok := condemned[mp.Machine.Key]; ok && !mp.Machine.Paused {
			continue
		}
		p := planned(mp, known[mp.Machine.Key])
		if len(p.Steps) > 0 && mp.Kubernetes != nil {
			p.Options = shownOptions(mp.Machine, defaults)
		}
		machines = append(machines, p)
	}
	for _, key := range slices.SortedFunc(maps.Keys(condemned), compareKeys) {
		if !slices.ContainsFunc(machines, func(p plannedMachine) bool { return p.Machine == key.String() }) {
			machines = append(machines, doomed(condemned[key]))
		}
	}
	for _, p := range machines {
		steps := make([]string, len(p.Steps))
		for i, s := range p.Steps {
			steps[i] = string(s)
		}
		l.items = append(l.items, item{
			name:   "machine/" + p.name,
			object: p,
			cells:  []string{p.Machine, p.Action, p.Role, p.Address, p.BootConfig, p.hardware(), p.Kubernetes, p.Cluster, strings.Join(steps, " "), p.options()},
		})
	}
	if err := f.show(out, l, false); err != nil {
		return err
	}
	if store.source == nil {
		f.noticef("dry run: no request was sent, nothing was written")
	} else {
		f.noticef("dry run: the cluster was read, nothing was written, plunder got no request")
	}
	return nil
}

// pendingDeletions are the machines whose deletion a run would finish, as the
// engine has it: nothing is done in a paused cluster.
func pendingDeletions(ctx context.Context, set *capi.Set, store apply.Store) (map[capi.Key]capi.Record, error) {
	var active []capi.Key
	for _, c := range set.Clusters {
		if !c.Paused {
			active = append(active, c.Key)
		}
	}
	records, err := store.Condemned(ctx, active)
	if err != nil {
		return nil, err
	}
	condemned := map[capi.Key]capi.Record{}
	for _, r := range records {
		if set.About(r.Key) {
			condemned[r.Key] = r
		}
	}
	return condemned, nil
}

func compareKeys(a, b capi.Key) int { return strings.Compare(a.String(), b.String()) }

// doomed is a machine that would be deleted.
func doomed(r capi.Record) plannedMachine {
	p := plannedMachine{
		name:       r.Name,
		Machine:    r.Key.String(),
		Action:     actionDelete,
		Role:       capi.RoleWorker,
		Cluster:    r.Cluster,
		Address:    r.Address,
		BootConfig: r.DeploymentType,
		MAC:        r.MAC,
		HostName:   r.HostName,
	}
	if r.ControlPlane {
		p.Role = capi.RoleControlPlane
	}
	switch {
	case r.Protected:
		p.Action = actionProtected
	case !r.Claimed():
		p.Steps = []event.Step{event.StepForget}
	default:
		p.Steps = []event.Step{event.StepIdentity, event.StepDrain, event.StepRelease, event.StepWipe, event.StepReturn, event.StepForget}
	}
	return p
}

func planned(mp *translate.MachinePlan, rec capi.Record) plannedMachine {
	m := mp.Machine
	p := plannedMachine{
		name:       m.Name,
		Machine:    m.Key.String(),
		Role:       m.Role(),
		Cluster:    m.ClusterName,
		Address:    mp.Deployment.Config.Address,
		BootConfig: mp.Deployment.BootConfigName,
		MACs:       mp.MACs,
		PinnedBy:   mp.PinnedBy,
		MAC:        rec.MAC,
		HostName:   rec.HostName,
		Steps:      mp.Steps,
	}
	if mp.Kubernetes != nil {
		p.Kubernetes = mp.Kubernetes.Version
	}
	switch {
	case m.Paused:
		p.Action = actionPaused
	case m.Deleting, rec.Phase == capi.PhaseDeleting:
		p.Action = actionDeleting
	case rec.Ready && (mp.Kubernetes == nil || rec.Kubernetes != ""):
		p.Action = actionUnchanged
	case rec.Claimed():
		p.Action = actionContinue
	default:
		p.Action = actionCreate
	}
	if p.Action != actionCreate && p.Action != actionContinue {
		p.Steps = nil
	}
	return p
}

// hardware says which hardware the machine has or would get.
func (p plannedMachine) hardware() string {
	switch {
	case p.MAC != "", p.Action == actionDelete:
		return orDash(p.MAC)
	case len(p.MACs) > 0:
		return strings.Join(p.MACs, " or ") + " (" + p.PinnedBy + ")"
	}
	return "any free machine"
}

// options are one text.
func (p plannedMachine) options() string {
	var list []string
	for _, field := range slices.Sorted(maps.Keys(p.Options)) {
		list = append(list, field+"="+p.Options[field])
	}
	return strings.Join(list, " ")
}

// shownOptions are the options of a machine that are not the default, by field. What may
// be secret or long is told by its size.
func shownOptions(m *capi.Machine, defaults capi.Defaults) map[string]string {
	shown := map[string]string{}
	text := func(field, value, otherwise string) {
		if value != "" && value != otherwise {
			shown[field] = value
		}
	}
	size := func(field, value string) {
		if value != "" {
			shown[field] = fmt.Sprintf("%d bytes", len(value))
		}
	}
	yes := func(field string, value *bool) {
		if value != nil && *value {
			shown[field] = "true"
		}
	}
	o := m.InstallOptionsFor(defaults)
	text("method", o.Method, capi.MethodPackages)
	yes("skipInstall", o.SkipInstall)
	if r := o.Repo; r != nil {
		text("repo.base", r.Base, "")
		text("repo.apt", r.Apt, "")
		text("repo.rpm", r.RPM, "")
		text("repo.key", r.Key, "")
	}
	if b := o.Binaries; b != nil {
		text("binaries.url", b.URL, "")
		text("binaries.cniPluginsURL", b.CNIPluginsURL, "")
		text("binaries.sha256", strings.Join(slices.Sorted(maps.Keys(b.SHA256)), ","), "")
	}
	text("runtime", o.Runtime, "")
	text("runtimeSource", o.RuntimeSource, capi.SourceDocker)
	text("runtimeMirror", o.RuntimeMirror, "")
	text("dockerVersion", o.DockerVersion, "")
	text("dockerCodename", o.DockerCodename, "")
	text("containerdVersion", o.ContainerdVersion, "")
	text("imageRepository", o.ImageRepository, "")
	if p := o.Proxy; p != nil {
		text("proxy.http", withoutPassword(p.HTTP), "")
		text("proxy.https", withoutPassword(p.HTTPS), "")
		text("proxy.noProxy", strings.Join(p.NoProxy, ","), "")
	}
	yes("allowCgroupV1", o.AllowCgroupV1)
	text("firewall", o.Firewall, capi.FirewallDisable)
	if h := o.Hooks; h != nil {
		size("hooks.before", h.Before)
		size("hooks.after", h.After)
	}
	var kinds []string
	for _, p := range o.KubeadmPatches {
		kind, _ := p["kind"].(string)
		kinds = append(kinds, kind)
	}
	text("kubeadmPatches", strings.Join(kinds, ","), "")
	yes("ignoreUnknownKeys", o.IgnoreUnknownKeys)
	if !m.ControlPlane {
		return shown
	}
	c := m.Cluster.ClusterOptionsFor(defaults)
	text("certSANs", strings.Join(c.CertSANs, ","), "")
	if n := c.CNI; n != nil {
		text("cni.url", n.URL, "")
		size("cni.manifest", n.Manifest)
		yes("cni.none", &n.None)
	}
	text("pki", c.PKI, capi.PKIKubeadm)
	text("kubeconfigTransport", c.KubeconfigTransport, capi.KubeconfigSealed)
	if v := c.VIP; v != nil {
		shown["vip"] = "true"
		text("vip.image", v.Image, "")
		text("vip.interface", v.Interface, "")
	}
	return shown
}
