package cli

import (
	"context"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// What is asked says what would happen to the disks.
func TestDeleteConfirmation(t *testing.T) {
	machine := func(name, cluster string) capi.Record {
		return capi.Record{Key: capi.Key{Namespace: "default", Name: name}, Cluster: cluster, MAC: "00:50:56:a5:11:20"}
	}
	one, two, other := machine("worker", "red"), machine("worker-2", "red"), machine("worker", "blue")
	for name, tt := range map[string]struct {
		typed   string
		force   bool
		victims []capi.Record
		want    string
		agreed  bool
	}{
		"one":                   {"worker", false, []capi.Record{one}, "This wipes its disks. To go on type the name of the machine (worker): ", true},
		"one, another name":     {"work", false, []capi.Record{one}, "", false},
		"two":                   {"red", false, []capi.Record{one, two}, "This wipes the disks of 2 machines. To go on type the name of their cluster (red): ", true},
		"one, without a wipe":   {"worker", true, []capi.Record{one}, "This gives the machine up without a wipe: its disks keep their data. To go on type the name of the machine (worker): ", true},
		"two, without a wipe":   {"red", true, []capi.Record{one, two}, "This gives 2 machines up without a wipe: their disks keep their data. To go on type the name of their cluster (red): ", true},
		"of different clusters": {"red", true, []capi.Record{one, other}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			streams, _, errOut := ui.Test(tt.typed+"\n", true)
			o := &deleteMachineOptions{f: newFactory(nil, streams, nil), forceRemove: tt.force}
			err := o.confirm(t.Context(), tt.victims)
			if (err == nil) != tt.agreed || !strings.Contains(errOut.String(), tt.want) {
				t.Errorf("%v, want agreed %v\n%s", err, tt.agreed, errOut)
			}
		})
	}
}

func TestDeleteFlags(t *testing.T) {
	f := newFactory(nil, first(ui.Test("", false)), nil)
	var got *deleteMachineOptions
	cmd := newDeleteMachineCmd(f, func(_ context.Context, o *deleteMachineOptions) error { got = o; return nil })
	cmd.SetArgs(strings.Fields("a b --force-remove --yes -n x"))
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !got.forceRemove || !got.yes || got.namespace != "x" || strings.Join(got.names, " ") != "a b" {
		t.Errorf("%+v", got)
	}
}
