package cli

import (
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// A machine whose wipe is not proved must not look like one that is merely on its way.
func TestMachineListShowsWhatMustNotBeTouched(t *testing.T) {
	streams, out, _ := ui.Test("", false)
	f := newFactory(nil, streams, nil)
	records := []capi.Record{
		{Key: capi.Key{Namespace: "default", Name: "a"}, MAC: "00:50:56:a5:11:20", Phase: capi.PhaseDeleting, Dirty: true},
		{Key: capi.Key{Namespace: "default", Name: "b"}, MAC: "00:50:56:a5:b5:f1", Phase: capi.PhaseRunning, Protected: true},
	}
	l := machineList(records, false)
	if err := f.show(output{format: formatWide}, l, false); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || strings.Fields(lines[1])[2] != "Dirty" || strings.Fields(lines[2])[2] != "Running" {
		t.Errorf("phases:\n%s", out)
	}
	column := strings.Index(lines[0], "PROTECTED")
	if a, b := lines[1][column:], lines[2][column:]; !strings.HasPrefix(a, "- ") || !strings.HasPrefix(b, "yes") {
		t.Errorf("protected:\n%s", out)
	}

	out.Reset()
	if err := f.show(output{format: formatJSON}, l, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"dirty": true`, `"protected": true`, `"phase": "Deleting"`, `"name": "a"`} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("no %s, or more than one, in\n%s", want, out)
		}
	}

	// --watch shows a machine again when it gets protected or dirty.
	free := records[1]
	free.Protected = false
	if machineList([]capi.Record{free}, false).items[0].mark == l.items[1].mark {
		t.Error("protection does not count as a change")
	}
	clean := records[0]
	clean.Dirty = false
	if machineList([]capi.Record{clean}, false).items[0].brief == l.items[0].brief {
		t.Error("dirt does not count as a change")
	}
}

func TestDirtyNotice(t *testing.T) {
	r := capi.Record{Key: capi.Key{Namespace: "prod", Name: "a"}, Dirty: true, Message: "/dev/sda still has data at 0"}
	got := strings.Join(dirtyNotice(r, " --simulate"), "\n")
	want := "Machine prod/a is dirty, and not free: /dev/sda still has data at 0\nnext: capplunder delete machine prod/a --simulate"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if r.Message = ""; !strings.Contains(dirtyNotice(r, "")[0], "not proved") {
		t.Errorf("no reason in %q", dirtyNotice(r, "")[0])
	}
}
