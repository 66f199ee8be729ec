package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// doomedTable has a row for every disk of the machines that a deletion is about, as they
// were a moment ago.
func doomedTable(p apply.Preview, mode capi.WipeMode) ui.Table {
	t := ui.Table{Columns: []ui.Column{
		{Name: "MACHINE"}, {Name: "HOST"}, {Name: "MAC ADDRESS"}, {Name: "ADDRESS"},
		{Name: "DISK"}, {Name: "MODEL"}, {Name: "SERIAL"}, {Name: "SIZE"}, {Name: "CONTENT"}, {Name: "MOUNTED"}, {Name: "WIPE"},
	}}
	for _, d := range p.Machines {
		r := d.Record
		who := []string{r.Key.String(), cmp.Or(d.HostName, r.HostName), r.MAC, r.Address}
		disks := d.Disks
		if len(disks) == 0 {
			disks = []apply.DoomedDisk{{}} // one row, to say why
		}
		for _, disk := range disks {
			size := ""
			if disk.Bytes > 0 {
				size = fmt.Sprintf("%.1f GB", float64(disk.Bytes)/1e9)
			}
			t.Rows = append(t.Rows, slices.Concat(who, []string{
				disk.Device, disk.Model, serial(disk.Disk), size, disk.Content, disk.Mounts, wipeCell(d, disk, mode),
			}))
		}
	}
	return t
}

// serial is what tells a disk from others of its kind.
func serial(d capi.Disk) string {
	return cmp.Or(d.Serial, d.WWN, strings.Trim(d.ID, "-"))
}

// wipeCell says what happens to one disk, or why nothing does.
func wipeCell(d apply.Doomed, disk apply.DoomedDisk, mode capi.WipeMode) string {
	switch {
	case d.Fate == apply.FateRefuse:
		return "refused: " + cmp.Or(reason(d), "no reason was given")
	case d.Fate == apply.FateForget:
		return "no: it never had hardware"
	case d.Fate == apply.FateReturn:
		return "no: it is wiped, or was blank"
	case d.Fate == apply.FateGiveUp:
		return "no: given up, keeps its data"
	case !d.Looked:
		return cmp.Or(reason(d), "not seen")
	case disk.Wiped:
		return fmt.Sprintf("yes (%s)", cmp.Or(mode, capi.WipeQuick))
	}
	return "no: " + cmp.Or(disk.Why, "not chosen")
}

// doomedGroup are the machines of one cluster that a deletion is about.
type doomedGroup struct {
	cluster  capi.Key
	whole    bool // the cluster is deleted, too
	machines []apply.Doomed
}

// groups are what a deletion is about, cluster by cluster, without what is refused.
func groups(p apply.Preview) []doomedGroup {
	byCluster := map[capi.Key]*doomedGroup{}
	of := func(k capi.Key) *doomedGroup {
		if byCluster[k] == nil {
			byCluster[k] = &doomedGroup{cluster: k}
		}
		return byCluster[k]
	}
	for _, k := range p.Clusters {
		if kept(p, k) == nil {
			of(k).whole = true
		}
	}
	for _, d := range p.Machines {
		if d.Fate != apply.FateRefuse {
			g := of(capi.Key{Namespace: d.Record.Namespace, Name: d.Record.Cluster})
			g.machines = append(g.machines, d)
		}
	}
	var list []doomedGroup
	for _, g := range byCluster {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b doomedGroup) int { return compareKeys(a.cluster, b.cluster) })
	return list
}

// kept is a machine because of which a cluster is not deleted, or nil.
func kept(p apply.Preview, cluster capi.Key) *apply.Doomed {
	for i, d := range p.Machines {
		if d.Fate == apply.FateRefuse && d.Record.Namespace == cluster.Namespace && d.Record.Cluster == cluster.Name {
			return &p.Machines[i]
		}
	}
	return nil
}

// what says what a deletion does to a group, in one sentence without its full stop.
func (g doomedGroup) what() string {
	disks, wiped, unseen, givenUp, others := 0, 0, 0, 0, 0
	for _, d := range g.machines {
		switch d.Fate {
		case apply.FateWipe:
			wiped++
			if !d.Looked {
				unseen++
			}
			for _, disk := range d.Disks {
				if disk.Wiped {
					disks++
				}
			}
		case apply.FateGiveUp:
			givenUp++
		case apply.FateReturn, apply.FateForget, apply.FateRefuse:
			others++
		}
	}
	var parts []string
	if seen := wiped - unseen; seen > 0 {
		parts = append(parts, fmt.Sprintf("wipes %s of %s", counted(disks, "disk"), counted(seen, "machine")))
	}
	if unseen > 0 {
		parts = append(parts, fmt.Sprintf("wipes %s that could not be looked at now", counted(unseen, "machine")))
	}
	if givenUp > 0 {
		parts = append(parts, fmt.Sprintf("gives up %s without a wipe, so that the disks keep their data", counted(givenUp, "machine")))
	}
	if others > 0 {
		parts = append(parts, fmt.Sprintf("removes %s without anything to wipe", counted(others, "machine")))
	}
	if g.whole {
		parts = append(parts, "deletes Cluster "+g.cluster.String())
	}
	text := strings.Join(parts, ", ")
	if !g.whole && g.cluster.Name != "" {
		text += " (Cluster " + g.cluster.String() + ")"
	}
	return text
}

// word is what has to be typed for a group: the name of its one machine, or of the
// cluster. several groups need namespaces when names repeat.
func (g doomedGroup) word() (kind, word string) {
	if !g.whole && (len(g.machines) == 1 || g.cluster.Name == "") {
		return "machine", g.machines[0].Record.Name
	}
	return "cluster", g.cluster.Name
}

// confirm shows what would be done, and asks: once for every cluster.
func (o *deletion) confirm(ctx context.Context, p apply.Preview) error {
	if err := o.permitted(p); err != nil {
		return err
	}
	if len(p.Machines) > 0 && (!o.f.opts.quiet || !o.yes) {
		// The console adds the prefix of simulated runs.
		if err := doomedTable(p, o.engine.Mode).Write(o.f.io.Err, ui.TableOptions{}); err != nil {
			return err
		}
	}
	if o.yes {
		return nil
	}
	all := groups(p)
	for i, g := range all {
		kind, word := g.word()
		if slices.ContainsFunc(all, func(other doomedGroup) bool {
			return other.cluster != g.cluster && other.cluster.Name == g.cluster.Name
		}) {
			word = g.cluster.Namespace + "/" + word
		}
		question := fmt.Sprintf("This %s. To go on type the name of the %s (%s)", g.what(), kind, word)
		if len(all) > 1 {
			question = fmt.Sprintf("%d of %d: %s", i+1, len(all), question)
		}
		if err := o.f.confirm(ctx, question, word); err != nil {
			return err
		}
	}
	return nil
}

// deletionPlan is what a dry run shows as JSON and YAML; the fields are documented in
// docs/commands/delete.md.
type deletionPlan struct {
	Kind      string          `json:"kind"`
	Simulated bool            `json:"simulated,omitempty"`
	Machines  []doomedMachine `json:"machines"`
	Clusters  []doomedCluster `json:"clusters"`
}

type doomedCluster struct {
	Cluster string `json:"cluster"` // namespace/name
	Action  string `json:"action"`
	Reason  string `json:"reason,omitempty"`
}

// What becomes of a cluster.
const (
	clusterDelete = "delete"
	clusterKeep   = "keep"
)

func clusterFate(p apply.Preview, cluster capi.Key) doomedCluster {
	if d := kept(p, cluster); d != nil {
		return doomedCluster{cluster.String(), clusterKeep, fmt.Sprintf("Machine %s is refused", d.Record.Key)}
	}
	return doomedCluster{cluster.String(), clusterDelete, ""}
}

type doomedMachine struct {
	Machine  string       `json:"machine"` // namespace/name
	Action   apply.Fate   `json:"action"`
	Reason   string       `json:"reason,omitempty"`
	Role     string       `json:"role"`
	Cluster  string       `json:"cluster"`
	HostName string       `json:"hostName,omitempty"`
	MAC      string       `json:"mac,omitempty"`
	Address  string       `json:"address,omitempty"`
	Looked   bool         `json:"looked"` // the host was asked just now
	Disks    []doomedDisk `json:"disks,omitempty"`
	Steps    []event.Step `json:"steps,omitempty"`
}

type doomedDisk struct {
	capi.Disk
	Wipe bool   `json:"wipe"`
	Why  string `json:"why,omitempty"` // it is not wiped
}

// printPreview shows what a deletion would do.
func (f *factory) printPreview(out output, p apply.Preview, mode capi.WipeMode) error {
	switch out.format {
	case formatTable, formatWide:
		return f.printPreviewTables(out, p, mode)
	case formatName:
		var names []string
		for _, d := range p.Machines {
			names = append(names, "machine/"+d.Record.Name)
		}
		for _, c := range p.Clusters {
			names = append(names, "cluster/"+c.Name)
		}
		f.noticeSimulated()
		_, err := io.WriteString(f.io.Out, strings.Join(names, "\n")+"\n")
		return err
	}
	plan := deletionPlan{Kind: "DeletionPlan", Simulated: f.opts.simulate, Machines: []doomedMachine{}, Clusters: []doomedCluster{}}
	for _, d := range p.Machines {
		r := d.Record
		m := doomedMachine{
			Machine: r.Key.String(), Action: d.Fate, Reason: reason(d), Role: roleOf(r), Cluster: r.Cluster,
			HostName: cmp.Or(d.HostName, r.HostName), MAC: r.MAC, Address: r.Address, Looked: d.Looked, Steps: d.Steps,
		}
		for _, disk := range d.Disks {
			m.Disks = append(m.Disks, doomedDisk{disk.Disk, disk.Wiped, disk.Why})
		}
		plan.Machines = append(plan.Machines, m)
	}
	for _, c := range p.Clusters {
		plan.Clusters = append(plan.Clusters, clusterFate(p, c))
	}
	return f.printObject(out, plan)
}

// printPreviewTables shows the disks, and then what is done with what.
func (f *factory) printPreviewTables(out output, p apply.Preview, mode capi.WipeMode) error {
	if len(p.Machines) > 0 {
		if err := doomedTable(p, mode).Write(f.io.Out, f.tableOptions(out)); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(f.io.Out, strings.TrimRight(f.prefix(), " ")); err != nil {
			return err
		}
	}
	t := ui.Table{Columns: []ui.Column{{Name: "OBJECT"}, {Name: "ACTION"}, {Name: "STEPS"}, {Name: "ROLE", Wide: true}, {Name: "CLUSTER", Wide: true}, {Name: "REASON", Wide: true}}}
	for _, d := range p.Machines {
		steps := make([]string, len(d.Steps))
		for i, s := range d.Steps {
			steps[i] = string(s)
		}
		t.Rows = append(t.Rows, []string{"Machine " + d.Record.Key.String(), string(d.Fate), strings.Join(steps, " "), roleOf(d.Record), d.Record.Cluster, reason(d)})
	}
	for _, c := range p.Clusters {
		fate := clusterFate(p, c)
		t.Rows = append(t.Rows, []string{"Cluster " + fate.Cluster, fate.Action, "", "", c.Name, fate.Reason})
	}
	return t.Write(f.io.Out, f.tableOptions(out))
}

func roleOf(r capi.Record) string {
	if r.ControlPlane {
		return capi.RoleControlPlane
	}
	return capi.RoleWorker
}
