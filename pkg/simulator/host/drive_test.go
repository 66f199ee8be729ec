package host

import (
	"encoding/json"
	"strings"
	"testing"
)

const allKinds = `cd /sys/block; for n in sda sdb sdc sdd nvme0n1 nvme1n1 vda; do echo "$n $(cat $n/dev) $(cat $n/queue/rotational)$(cat $n/removable)$(cat $n/ro) $(readlink -f $n | grep -oE 'usb2|session[0-9]|nvme-fabrics')"
for f in wwid device/wwid serial device/serial device/model device/vpd_pg80; do [ -r $n/$f ] && echo "$f=$(cat $n/$f | tr -d '\000-\037\200' | tr -s ' ' _)"; done; grep -h ID_ /run/udev/data/b$(cat $n/dev); done`

func manyDisks(c *Config) {
	c.Disk = []DiskConfig{
		{Name: "sda", Bytes: 480103981056}, {Name: "sdb", Bytes: 4000787030016, Rotational: true}, {Name: "sdc", Bytes: 1 << 30, USB: true, Removable: true},
		{Name: "sdd", Bytes: 1 << 30, Remote: true, ReadOnly: true, Anonymous: true}, {Name: "nvme0n1", Bytes: 1 << 40, Blank: true}, {Name: "nvme1n1", Bytes: 1 << 40, Remote: true},
		{Name: "vda", Bytes: 1 << 34},
	}
}

// TestIdentities: what each kind of disk says of itself is where the kernel and udev
// have it, belongs to the machine, and does not change when that is installed anew.
func TestIdentities(t *testing.T) {
	h := newTestHost(t, manyDisks)
	d := h.Drives()
	ids := func(i int) (wwn, serial string) { return d[i].WWN, d[i].Serial }
	a, as := ids(0)
	b, bs := ids(1)
	_, cs := ids(2)
	n, ns := ids(4)
	m, ms := ids(5)
	_, vs := ids(6)
	hex := strings.NewReplacer("naa.", "0x").Replace
	want := strings.ReplaceAll(`sda 8:0 000
device/wwid=`+a+`
device/model=SIM_SSD_480GB_
device/vpd_pg80=_`+as+`
E:ID_MODEL=SIM_SSD_480GB
E:ID_SERIAL=SIM_SSD_480GB_`+as+`
E:ID_SERIAL_SHORT=`+as+`
E:ID_WWN_WITH_EXTENSION=`+hex(a)+`
E:ID_WWN=`+hex(a)+`
E:ID_PART_TABLE_TYPE=gpt
sdb 8:16 100
device/wwid=`+b+`
device/model=SIM_HDD_4000GB_
device/vpd_pg80=_`+bs+`
E:ID_MODEL=SIM_HDD_4000GB
E:ID_SERIAL=SIM_HDD_4000GB_`+bs+`
E:ID_SERIAL_SHORT=`+bs+`
E:ID_WWN_WITH_EXTENSION=`+hex(b)+`
E:ID_WWN=`+hex(b)+`
E:ID_PART_TABLE_TYPE=gpt
sdc 8:32 010 usb2
device/model=SIM_Stick_1GB_
E:ID_MODEL=SIM_Stick_1GB
E:ID_SERIAL=SIM_Stick_1GB_`+cs+`
E:ID_SERIAL_SHORT=`+cs+`
E:ID_PART_TABLE_TYPE=gpt
sdd 8:48 001 session4
device/model=_
E:ID_PART_TABLE_TYPE=gpt
nvme0n1 259:64 000
wwid=`+n+`
device/serial=`+ns+`_
device/model=SIM_NVMe_1099GB_
E:ID_MODEL=SIM_NVMe_1099GB
E:ID_SERIAL=SIM_NVMe_1099GB_`+ns+`
E:ID_SERIAL_SHORT=`+ns+`
E:ID_WWN=`+n+`
nvme1n1 259:80 000 nvme-fabrics
wwid=`+m+`
device/serial=`+ms+`_
device/model=SIM_NVMe_1099GB_
E:ID_MODEL=SIM_NVMe_1099GB
E:ID_SERIAL=SIM_NVMe_1099GB_`+ms+`
E:ID_SERIAL_SHORT=`+ms+`
E:ID_WWN=`+m+`
E:ID_PART_TABLE_TYPE=gpt
vda 252:96 000
serial=`+vs+`
E:ID_SERIAL=`+vs+`
E:ID_SERIAL_SHORT=`+vs+`
E:ID_PART_TABLE_TYPE=gpt
`, "\t", "")
	got := run(t, h, allKinds).Output
	if got = strings.ReplaceAll(got+"\n", " \n", "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := run(t, h, `cat /run/udev/data/b8:1 /run/udev/data/b8:2 | grep FS_TYPE; dd if=/dev/zero of=/dev/sda2 bs=4096 count=1 2>/dev/null; grep -c FS_TYPE /run/udev/data/b8:2`).Output; got != "E:ID_FS_TYPE=vfat\nE:ID_FS_TYPE=ext4\n0" {
		t.Errorf("partitions in udev's database: %q", got)
	}

	other := newTestHost(t, manyDisks, func(c *Config) { c.MAC = "52:54:00:99:00:01" })
	for i := range d {
		if o := other.Drives()[i]; o.Serial != "" && (o.Serial == d[i].Serial || o.WWN != "" && o.WWN == d[i].WWN) {
			t.Errorf("%s: two machines have the same disk: %+v", o.Name, o.Identity)
		}
	}

	run(t, h, `echo precious | dd of=/dev/vda seek=5000 2>/dev/null; echo gone | dd of=/dev/sda seek=5000 2>/dev/null`)
	again := New(Config{MAC: "52:54:00:aa:bb:01", Address: "10.0.0.11", HostName: "node-2", Seed: 99, Drives: d})
	defer again.Close()
	got = run(t, again, allKinds).Output
	if got = strings.ReplaceAll(got+"\n", " \n", "\n"); got != want {
		t.Errorf("after another installation\n%s\nwant\n%s", got, want)
	}
	if got := run(t, again, `for d in sda vda; do dd if=/dev/$d skip=5000 count=1 2>/dev/null | tr -d '\000'; done`).Output; got != "precious" {
		t.Errorf("an installation empties the boot disk and leaves the others alone: %q", got)
	}
}

func TestSwapDrive(t *testing.T) {
	h := newTestHost(t)
	before := *h.Drives()[0]
	const look = `cat /sys/block/sda/device/wwid; tr -d '\000-\037\200 ' </sys/block/sda/device/vpd_pg80; grep -o 'SERIAL_SHORT=.*' /run/udev/data/b8:0; dd if=/dev/sda bs=1 count=11 skip=512 2>/dev/null | head -c 8`
	if got, want := run(t, h, look).Output, before.WWN+"\n"+before.Serial+"SERIAL_SHORT="+before.Serial+"\nEFI PART"; got != want {
		t.Fatalf("before: %q, want %q", got, want)
	}
	if !h.SwapDrive("sda") || h.SwapDrive("sdz") {
		t.Fatal("sda can be swapped, and there is no sdz")
	}
	after := *h.Drives()[0]
	if after.Serial == before.Serial || after.WWN == before.WWN || after.Bytes != before.Bytes {
		t.Errorf("%+v instead of %+v", after.Identity, before.Identity)
	}
	if got, want := run(t, h, look).Output, after.WWN+"\n"+after.Serial+"SERIAL_SHORT="+after.Serial+"\nEFI PART"; got != want {
		t.Errorf("after: %q, want %q", got, want)
	}
}

// TestOldSnapshot: a snapshot of a program that knew only serial numbers.
func TestOldSnapshot(t *testing.T) {
	h := newTestHost(t)
	b, err := json.Marshal(h.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	d := m["Disks"].([]any)[0].(map[string]any)
	delete(d, "WWN")
	delete(d, "Model")
	d["Serial"] = "SIM0123456789AB"
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	old := Restore(s, NewWorld())
	defer old.Close()
	if got := run(t, old, `cat /sys/block/sda/device/wwid; findmnt /`).Output; !strings.HasPrefix(got, "t10.ATA     SIMULATED DISK      SIM0123456789AB\n/ /dev/sda2") {
		t.Errorf("got %q", got)
	}
}
