package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

func TestParseDisks(t *testing.T) {
	got, err := parseDisks([]string{"sda=480G", "sdb=2T,rotational,blank", "sdc=16G,usb,removable", "nvme0n1=960G,remote,frozen", "vda=64M,read-only,anonymous,no-erase"})
	if err != nil {
		t.Fatal(err)
	}
	want := []host.DiskConfig{
		{Name: "sda", Bytes: 480_000_000_000 / 4096 * 4096},
		{Name: "sdb", Bytes: 2_000_000_000_000 / 4096 * 4096, Rotational: true, Blank: true},
		{Name: "sdc", Bytes: 16_000_000_000 / 4096 * 4096, USB: true, Removable: true},
		{Name: "nvme0n1", Bytes: 960_000_000_000 / 4096 * 4096, Remote: true, Frozen: true},
		{Name: "vda", Bytes: 64_000_000 / 4096 * 4096, ReadOnly: true, Anonymous: true, NoErase: true},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for text, want := range map[string]string{
		"sda":               "want NAME=SIZE",
		"hda=1G":            "want NAME=SIZE",
		"sda=0G":            "want NAME=SIZE",
		"sda=9999999T":      "want NAME=SIZE",
		"sda=80G,shiny":     `no trait "shiny"`,
		"sda=80G sda=80G":   "sda is given twice",
		"sda=80G,usb":       "must be internal and writable",
		"sda=1G":            "needs 8G",
		"sda=80G sdb=1G,ro": `no trait "ro"`,
	} {
		if _, err := parseDisks(strings.Fields(text)); err == nil || !strings.Contains(err.Error(), want) || exitCode(err) != exitUsage {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
