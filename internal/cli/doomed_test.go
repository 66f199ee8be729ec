package cli

import (
	"errors"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
)

func victim(name, cluster string, fate apply.Fate) apply.Doomed {
	return apply.Doomed{
		Record: capi.Record{Key: capi.Key{Namespace: "default", Name: name}, Cluster: cluster, HostName: name + "-x1y2z", MAC: "00:50:56:a5:11:20", Address: "192.168.1.124"},
		Fate:   fate, Looked: fate == apply.FateWipe, HostName: name + "-x1y2z",
		Disks: []apply.DoomedDisk{
			{Disk: capi.Disk{Device: "/dev/sda", Bytes: 480103981056, Serial: "S1", WWN: "naa.5000c500a1b2c3d4", Model: "MZ7", Mounts: "/,/boot", Content: "gpt,ext4"}, Wiped: true},
			{Disk: capi.Disk{Device: "/dev/sdb", Bytes: 2e12, ID: "-"}, Why: "removable"},
		},
	}
}

// What is asked says what would happen, and only the name of it will do.
func TestConfirmation(t *testing.T) {
	wipe := victim("worker", "red", apply.FateWipe)
	unseen := victim("far", "red", apply.FateWipe)
	unseen.Looked, unseen.Disks, unseen.Reason = false, nil, "not seen: SSH port closed"
	elsewhere := victim("worker", "red", apply.FateWipe)
	elsewhere.Record.Namespace = "lab"
	red, blue := capi.Key{Namespace: "default", Name: "red"}, capi.Key{Namespace: "default", Name: "blue"}
	labRed := capi.Key{Namespace: "lab", Name: "red"}
	for name, tt := range map[string]struct {
		typed    string
		machines []apply.Doomed
		clusters []capi.Key
		want     []string // in this order
		agreed   bool
	}{
		"one": {
			"worker\n", []apply.Doomed{wipe}, nil,
			[]string{"This wipes 1 disk of 1 machine (Cluster default/red). To go on type the name of the machine (worker): "}, true,
		},
		"one, another name": {"work\n", []apply.Doomed{wipe}, nil, nil, false},
		"one, nothing":      {"\n", []apply.Doomed{wipe}, nil, nil, false},
		"one, y":            {"y\n", []apply.Doomed{wipe}, nil, nil, false},
		"two": {
			"red\n", []apply.Doomed{wipe, unseen}, nil,
			[]string{"This wipes 1 disk of 1 machine, wipes 1 machine that could not be looked at now (Cluster default/red). To go on type the name of the cluster (red): "}, true,
		},
		"two, the name of one of them": {"worker\n", []apply.Doomed{wipe, unseen}, nil, nil, false},
		"one without a wipe": {
			"worker\n", []apply.Doomed{victim("worker", "red", apply.FateGiveUp)}, nil,
			[]string{"This gives up 1 machine without a wipe, so that the disks keep their data (Cluster default/red). To go on type the name of the machine (worker): "}, true,
		},
		"a cluster with one machine": {
			"red\n", []apply.Doomed{wipe}, []capi.Key{red},
			[]string{"This wipes 1 disk of 1 machine, deletes Cluster default/red. To go on type the name of the cluster (red): "}, true,
		},
		"a cluster without machines": {
			"red\n", nil, []capi.Key{red}, []string{"This deletes Cluster default/red. To go on type the name of the cluster (red): "}, true,
		},
		"a cluster that stays, because of a machine": {
			"worker\n", []apply.Doomed{victim("kept", "red", apply.FateRefuse), wipe}, []capi.Key{red},
			[]string{"This wipes 1 disk of 1 machine (Cluster default/red). To go on type the name of the machine (worker): "}, true,
		},
		"all refused: nothing to ask":       {"", []apply.Doomed{victim("kept", "red", apply.FateRefuse)}, []capi.Key{red}, nil, true},
		"two clusters, each by its name":    {"blue\nred\n", []apply.Doomed{victim("a", "blue", apply.FateReturn), wipe}, []capi.Key{red, blue}, []string{"1 of 2: This removes 1 machine without anything to wipe, deletes Cluster default/blue. To go on type the name of the cluster (blue): ", "2 of 2: This wipes 1 disk"}, true},
		"two clusters, only the first":      {"blue\n\n", []apply.Doomed{wipe}, []capi.Key{red, blue}, []string{"1 of 2: ", "2 of 2: "}, false},
		"two clusters of the same name":     {"default/red\nlab/red\n", []apply.Doomed{wipe, elsewhere}, []capi.Key{red, labRed}, []string{"(default/red): ", "(lab/red): "}, true},
		"two clusters of the same name, no": {"red\nred\n", []apply.Doomed{wipe, elsewhere}, []capi.Key{red, labRed}, []string{"(default/red): "}, false},
	} {
		t.Run(name, func(t *testing.T) {
			streams, _, errOut := ui.Test(tt.typed, true)
			o := &deletion{f: newFactory(nil, streams, nil)}
			err := o.confirm(t.Context(), apply.Preview{Machines: tt.machines, Clusters: tt.clusters})
			if (err == nil) != tt.agreed {
				t.Errorf("%v, want agreed %v\n%s", err, tt.agreed, errOut)
			}
			if err != nil && exitCode(err) != exitRefused {
				t.Errorf("exit %d, want %d", exitCode(err), exitRefused)
			}
			rest := errOut.String()
			for _, want := range tt.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("no %q in\n%s", want, rest)
				}
				rest = after
			}
		})
	}
}

// With --yes nothing is asked, but what is done is shown.
func TestYesShowsWhatIsWiped(t *testing.T) {
	for quiet, want := range map[bool]int{false: 3, true: 0} {
		streams, _, errOut := ui.Test("", true)
		f := newFactory(nil, streams, nil)
		f.opts.quiet = quiet
		o := &deletion{f: f, yes: true}
		if err := o.confirm(t.Context(), apply.Preview{Machines: []apply.Doomed{victim("worker", "red", apply.FateWipe)}}); err != nil {
			t.Error(err)
		}
		if n := strings.Count(errOut.String(), "\n"); n != want {
			t.Errorf("quiet %v: %d lines, want %d:\n%s", quiet, n, want, errOut)
		}
	}
}

func TestDoomedTable(t *testing.T) {
	protected := victim("kept", "red", apply.FateRefuse)
	protected.Reason = "Machine default/kept: identity: it is protected; nothing was done"
	protected.Disks, protected.HostName = nil, ""
	unseen := victim("far", "red", apply.FateWipe)
	unseen.Looked, unseen.Disks, unseen.Reason = false, nil, "not seen: SSH\x1b[2J port\nclosed"
	loud := victim("loud", "red", apply.FateWipe)
	loud.HostName = "\x1b]0;x\x07evil"
	loud.Disks[0].Model = "a\u202egpj"
	p := apply.Preview{Machines: []apply.Doomed{
		victim("worker", "red", apply.FateWipe), protected, unseen, loud,
		victim("gone", "red", apply.FateGiveUp), victim("new", "red", apply.FateForget), victim("back", "red", apply.FateReturn),
	}}
	lines, err := doomedTable(p, capi.WipeZero).Lines(ui.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"MACHINE HOST MAC ADDRESS ADDRESS DISK MODEL SERIAL SIZE CONTENT MOUNTED WIPE",
		"default/worker worker-x1y2z 00:50:56:a5:11:20 192.168.1.124 /dev/sda MZ7 S1 480.1 GB gpt,ext4 /,/boot yes (zero)",
		"default/worker worker-x1y2z 00:50:56:a5:11:20 192.168.1.124 /dev/sdb - - 2000.0 GB - - no: removable",
		"default/kept kept-x1y2z 00:50:56:a5:11:20 192.168.1.124 - - - - - - refused: it is protected; nothing was done",
		"default/far far-x1y2z 00:50:56:a5:11:20 192.168.1.124 - - - - - - not seen: SSH[2J port closed",
		"default/loud ]0;xevil 00:50:56:a5:11:20 192.168.1.124 /dev/sda agpj S1 480.1 GB gpt,ext4 /,/boot yes (zero)",
		"default/gone gone-x1y2z 00:50:56:a5:11:20 192.168.1.124 /dev/sda MZ7 S1 480.1 GB gpt,ext4 /,/boot no: given up, keeps its data",
		"default/new new-x1y2z 00:50:56:a5:11:20 192.168.1.124 /dev/sda MZ7 S1 480.1 GB gpt,ext4 /,/boot no: it never had hardware",
		"default/back back-x1y2z 00:50:56:a5:11:20 192.168.1.124 /dev/sda MZ7 S1 480.1 GB gpt,ext4 /,/boot no: it is wiped, or was blank",
	} {
		found := false
		for _, line := range lines {
			found = found || strings.Join(strings.Fields(line), " ") == want
		}
		if !found {
			t.Errorf("no row %q in\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

// delete -f deletes nothing that turned up after the files were compared with the store.
func TestOnlyWhatWasNamed(t *testing.T) {
	streams, _, _ := ui.Test("", true)
	known := victim("worker", "red", apply.FateWipe)
	o := &deletion{f: newFactory([]string{"delete", "-f", "x"}, streams, nil), yes: true, only: []capi.Key{known.Record.Key}}
	if err := o.confirm(t.Context(), apply.Preview{Machines: []apply.Doomed{known}}); err != nil {
		t.Error(err)
	}
	err := o.confirm(t.Context(), apply.Preview{Machines: []apply.Doomed{known, victim("late", "red", apply.FateWipe)}})
	var refused *refusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "default/late") || exitCode(err) != exitRefused {
		t.Errorf("%v", err)
	}
}

func TestDryRunOfRefusals(t *testing.T) {
	streams, out, _ := ui.Test("", false)
	f := newFactory(nil, streams, nil)
	refused := victim("kept", "red", apply.FateRefuse)
	refused.Reason = "it is protected"
	p := apply.Preview{Machines: []apply.Doomed{refused, victim("worker", "red", apply.FateWipe)}, Clusters: []capi.Key{{Namespace: "default", Name: "red"}}}
	if err := f.printPreview(output{format: formatJSON}, p, ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"kind": "DeletionPlan"`, `"action": "refuse"`, `"action": "keep"`, `"reason": "Machine default/kept is refused"`, `"wipe": true`, `"why": "removable"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if err := refusals(p); exitCode(err) != exitRefused || err.Error() != "Machine default/kept would be refused: it is protected" {
		t.Errorf("exit %d: %v", exitCode(err), err)
	}
	if err := refusals(apply.Preview{Machines: p.Machines[1:]}); err != nil {
		t.Error(err)
	}
}
