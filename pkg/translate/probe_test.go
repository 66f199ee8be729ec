package translate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const probeAnswer = `capplunder-facts id=ubuntu like=debian ver=24.04 codename=noble arch=x86_64 pm=apt-get systemd=yes cgroup=2 bash=yes kernel=6.8.0 host=worker-ab1cd uid=1000 kubeadm=- node=no
capplunder-mac 00:00:00:00:00:00
capplunder-mac 00:50:56:A5:11:20
capplunder-boot id=922cd220-4a08-429d-bd0f-cef3a4e1a966 uptime=61.50
capplunder-disk dev=/dev/sda bytes=480103981056 flags=root,mounted id=wwn-1
capplunder-disk dev=/dev/sdb bytes=1000 flags=usb,removable id=-
capplunder-probe done`

func TestReadHostProbe(t *testing.T) {
	old := wire.LogEntry{Task: "probe#old", Entry: strings.ReplaceAll(probeAnswer, "ubuntu", "stale")}
	if _, done, err := translate.ReadHostProbe(wire.Log{State: wire.StateCompleted, Entries: []wire.LogEntry{old}}, "new"); done || err != nil {
		t.Fatalf("an entry of another job must not count: done %v, err %v", done, err)
	}
	f, done, err := translate.ReadHostProbe(wire.Log{Entries: []wire.LogEntry{old, {Task: "probe#new", Entry: probeAnswer}}}, "new")
	if err != nil || !done {
		t.Fatal(done, err)
	}
	if f.ID != "ubuntu" || f.Codename != "noble" || f.Cgroup != 2 || f.UID != 1000 || !f.Systemd || f.Node || f.Uptime != 61500*time.Millisecond {
		t.Errorf("facts %+v", f)
	}
	if len(f.MACs) != 1 || f.MACs[0] != "00:50:56:a5:11:20" {
		t.Errorf("MACs %v, want lower case, and not the loopback's", f.MACs)
	}
	if want := (capi.Disk{Device: "/dev/sda", Bytes: 480103981056, ID: "wwn-1", Flags: "root,mounted"}); len(f.Disks) != 2 || f.Disks[0] != want {
		t.Errorf("disks %+v", f.Disks)
	}
}

func TestReadHostProbeErrors(t *testing.T) {
	for name, e := range map[string]wire.LogEntry{
		"dial tcp 127.0.1.4:22: connect: connection refused": {Error: "dial tcp 127.0.1.4:22: connect: connection refused", Entry: wire.NoOutput},
		"not a probe's":  {Entry: "This account is disabled."},
		"incomplete":     {Entry: "capplunder-probe done"},
		"when it booted": {Entry: strings.ReplaceAll(probeAnswer, "uptime=61.50", "uptime=")},
		"who the SSH":    {Entry: strings.ReplaceAll(probeAnswer, "uid=1000", "uid=")},
	} {
		e.Task = "probe#j"
		if _, done, err := translate.ReadHostProbe(wire.Log{Entries: []wire.LogEntry{e}}, "j"); !done || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: done %v, err %v", name, done, err)
		}
	}
}

func TestPortProbe(t *testing.T) {
	m, err := translate.PortProbe("j", "127.0.1.1", []string{"127.0.1.1", "127.0.1.2"})
	if err != nil {
		t.Fatal(err)
	}
	a := m.Deployments[0].Actions[0]
	if !a.CommandLocal || !a.IgnoreFail || a.Timeout == 0 || a.CommandSudo != "" || !strings.Contains(a.Command, "127.0.1.2") {
		t.Errorf("action %+v", a)
	}
	open, done, err := translate.ReadPortProbe(wire.Log{Entries: []wire.LogEntry{{Task: a.Name, Entry: "capplunder-open 127.0.1.2\ncapplunder-ports done"}}}, "j")
	if err != nil || !done || len(open) != 1 || open[0] != "127.0.1.2" {
		t.Errorf("open %v, done %v, err %v", open, done, err)
	}
	if _, done, err := translate.ReadPortProbe(wire.Log{Entries: []wire.LogEntry{{Task: a.Name, Entry: "capplunder-open 127.0.1.2"}}}, "j"); !done || err == nil {
		t.Error("half an answer must be an error")
	}
}

func TestReadHostProbeDetail(t *testing.T) {
	const detail = `capplunder-facts id=debian uid=0
capplunder-boot id=922cd220-4a08-429d-bd0f-cef3a4e1a966 uptime=1
capplunder-disk dev=/dev/nvme0n1 bytes=4096 flags=root,mounted id=eui.1 wwn=eui.1 serial=S1 model=Q_SSD mounts=/var/a%040b,/,/,/x%054y%134z,/50%045,/100%,/é,
capplunder-disk dev=/dev/sda bytes=4096 flags= id=- wwn= serial= model=x$(id) mounts=
capplunder-disk dev=/dev/sdb bytes=4096 flags= id=- wwn= serial= model= mounts=
capplunder-disk dev=/dev/cciss/c0d0 bytes=4096 flags= id=- wwn= serial= model= mounts=
capplunder-disk dev=/dev/sdc bytes=4096 flags= id=- wwn= serial= model= mounts=
capplunder-content dev=/dev/nvme0n1 what=gpt,dos,
capplunder-content dev=/dev/nvme0n1p1 what=vfat,dos,
capplunder-content dev=/dev/nvme0n1p2 what=ext4,
capplunder-content dev=/dev/nvme0n1p3 what=ext4,
capplunder-content dev=/dev/nvme0n12 what=xfs,
capplunder-content dev=/dev/sda what=dos,
capplunder-content dev=/dev/sda1 what=
capplunder-content dev=/dev/sdaa1 what=xfs,
capplunder-content dev=/dev/sdb what=
capplunder-content dev=/dev/cciss/c0d0p1 what=LVM2_member,
capplunder-probe done`
	f, done, err := translate.ReadHostProbe(wire.Log{Entries: []wire.LogEntry{{Task: "probe#j", Entry: detail}}}, "j")
	if err != nil || !done {
		t.Fatal(done, err)
	}
	want := []capi.Disk{
		{Device: "/dev/nvme0n1", Bytes: 4096, ID: "eui.1", Flags: "root,mounted", WWN: "eui.1", Serial: "S1", Model: "Q_SSD", Mounts: "/,/%C3%A9,/100%25,/50%25,/var/a%20b,/x%2Cy\\z", Content: "gpt,vfat,ext4"},
		{Device: "/dev/sda", Bytes: 4096, ID: "-", Model: "xid", Content: "dos"},
		{Device: "/dev/sdb", Bytes: 4096, ID: "-"},
		{Device: "/dev/cciss/c0d0", Bytes: 4096, ID: "-", Content: "?,LVM2_member"},
		{Device: "/dev/sdc", Bytes: 4096, ID: "-", Content: "?"},
	}
	if diff := cmp.Diff(want, f.Disks); diff != "" {
		t.Errorf("disks (-want +got):\n%s", diff)
	}
}

// Addresses become part of a command that the plunder server runs itself.
func TestProbesTakeOnlyAddresses(t *testing.T) {
	for _, bad := range []string{"", "host", "::1", "127.0.0.1; reboot", "127.0.0.1\n", "$(id)", "127.0.0.01", "1.2.3.4/24"} {
		if _, err := translate.PortProbe("j", "127.0.1.1", []string{bad}); err == nil {
			t.Errorf("PortProbe took %q", bad)
		}
		if _, err := translate.PortProbe("j", bad, []string{"127.0.1.1"}); err == nil {
			t.Errorf("PortProbe took log host %q", bad)
		}
		if _, err := translate.HostProbe("j", []string{bad}, false); err == nil {
			t.Errorf("HostProbe took %q", bad)
		}
	}
}
