package translate_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// magic is a beginning of a disk with some texts at some places.
func magic(size int, at map[int]string) []byte {
	raw := make([]byte, size)
	for i, text := range at {
		copy(raw[i:], text)
	}
	return raw
}

// furnish gives a bench disks of all kinds: sda has a partition with the system, and one
// under LVM with /var/lib; nvme0n1 is for that, too; vda is virtual, mmcblk0 blank, sdb without a
// name of its own but udev's.
func furnish(b *bench) {
	b.t.Helper()
	size := int64(1 << 20)
	b.disk(benchDisk{name: "sda", bytes: size, parts: [][2]int64{{64, 512}, {600, 512}}, sys: map[string]string{
		"device/wwid": "t10.ATA     QEMU HARDDISK                           QM00001   ", "device/model": "QEMU HARDDISK   ", "dev": "8:0",
	}})
	b.writeRaw("/sys/devices/pci0000:00/block/sda/device/vpd_pg80", []byte("\x00\x80\x00\x14    WD-\x01WCC4$(N) 7  "))
	b.disk(benchDisk{name: "sdb", bytes: size, sys: map[string]string{"removable": "1", "ro": "1", "dev": "8:16"}, bus: "0000:00:14.0/usb1/1-1"})
	b.disk(benchDisk{name: "nvme0n1", bytes: size, parts: [][2]int64{{64, 1024}}, sys: map[string]string{
		"wwid": "eui.0025385b01", "device/serial": "S4EW  1 ", "device/model": "Samsung SSD 970  ", "dev": "259:0",
	}})
	b.disk(benchDisk{name: "vda", bytes: size, sys: map[string]string{"serial": "disk-1", "dev": "253:0"}})
	b.disk(benchDisk{name: "mmcblk0", bytes: size, sys: map[string]string{"device/serial": "0x1a2b", "dev": "179:0"}})
	b.disk(benchDisk{name: "loop0", bytes: size})
	for number, path := range map[string]string{"8:1": "block/sda/sda1", "8:0": "block/sda", "259:1": "block/nvme0n1/nvme0n1p1", "254:0": "dm-0"} {
		b.link(b.path("/sys/devices/pci0000:00/"+path), "/sys/dev/block/"+number)
	}
	b.write("/sys/devices/pci0000:00/dm-0/size", "1024")
	b.link(b.path("/sys/devices/pci0000:00/block/sda/sda2"), "/sys/devices/pci0000:00/dm-0/slaves/sda2")
	b.link(b.path("/sys/devices/pci0000:00/block/nvme0n1/nvme0n1p1"), "/sys/devices/pci0000:00/dm-0/slaves/nvme0n1p1")
	b.write("/proc/self/mountinfo", `21 1 0:20 / /proc rw - proc proc rw
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 254:0 / /var/lib rw - xfs /dev/mapper/vg-lib rw
24 22 8:1 /srv/a\040b /mnt/bound rw - ext4 /dev/sda1 rw
25 22 8:1 /@snapshots /snap\040shots,old rw - ext4 /dev/sda1 rw
26 22 0:30 / /var/lib/kubelet/pods/x/volumes rw - tmpfs tmpfs rw`)
	b.write("/run/udev/data/b8:0", "E:ID_SERIAL_SHORT=other\nE:ID_PART_TABLE_TYPE=gpt")
	b.write("/run/udev/data/b8:1", "E:ID_FS_TYPE=ext4\nE:ID_PART_ENTRY_TYPE=x")
	b.write("/run/udev/data/b8:2", "E:ID_FS_TYPE=LVM2_member")
	b.write("/run/udev/data/b8:16", "S:disk/by-id/x\nE:ID_MODEL=USB_Stick/2\nE:ID_SERIAL=x_y\nE:ID_SERIAL_SHORT=A1\nE:ID_WWN=0x5000\nE:ID_WWN_WITH_EXTENSION=0x5000c500a1b2c3d4")
	for device, at := range map[string]map[int]string{
		"sda": {510: "\x55\xaa", 512: "EFI PART"}, "sda1": {1080: "\x53\xef"}, "sda2": {512: "LABELONE"}, "sdb": {0: "\xeb\x3c\x90mkfs.fat", 54: "FAT16   ", 510: "\x55\xaa"},
		"nvme0n1": {510: "\x55\xaa"}, "nvme0n1p1": {4096: "\xfc\x4e\x2b\xa9"}, "vda": {4086: "SWAPSPACE2", 65600: "_BHRfS_M"}, "mmcblk0": nil,
	} {
		b.writeRaw("/dev/"+device, magic(1<<20, at))
	}
	b.program("kubeadm", "echo v1.34.1")
}

func TestProbeInShells(t *testing.T) {
	blkid := `[ "$1 $2 $3" = "-p -o export" ] || exit 4
case $4 in */sda) echo DEVNAME=x; echo PTUUID=y; echo PTTYPE=gpt;; */sda1) echo TYPE=ext4; echo PART_ENTRY_TYPE=z;; */sda2) echo TYPE=LVM2_member;; *) exit 2;; esac`
	for name, tt := range map[string]struct {
		bench   func(*bench)
		content map[string]string
		sudo    int
	}{
		"root and blkid": {func(b *bench) { b.program("blkid", blkid) }, map[string]string{"/dev/sda": "gpt,ext4,LVM2_member", "/dev/nvme0n1": "dos,linux_raid_member", "/dev/vda": "swap,btrfs", "/dev/sdb": "vfat"}, 0},
		"root and none":  {func(b *bench) {}, map[string]string{"/dev/sda": "gpt,ext4,LVM2_member", "/dev/nvme0n1": "dos,linux_raid_member", "/dev/vda": "swap,btrfs", "/dev/sdb": "vfat"}, 0},
		"sudo and blkid": {func(b *bench) {
			b.program("id", "echo 1000")
			b.program("sudo", `shift; exec "$@"`)
			b.program("blkid", blkid)
		}, map[string]string{"/dev/sda": "gpt,ext4,LVM2_member", "/dev/nvme0n1": "dos,linux_raid_member", "/dev/vda": "swap,btrfs", "/dev/sdb": "vfat"}, 1},
		"no sudo": {func(b *bench) {
			b.program("id", "echo 1000")
			b.program("sudo", "echo 'sudo: a password is required' >&2; exit 1")
		}, map[string]string{"/dev/sda": "gpt,ext4,LVM2_member", "/dev/nvme0n1": "?", "/dev/vda": "?", "/dev/sdb": "", "/dev/mmcblk0": "?"}, 1},
		"a disk that cannot be read": {func(b *bench) {
			ddThat("if=/dev/sdb", "exit 1")(b)
		}, map[string]string{"/dev/sda": "gpt,ext4,LVM2_member", "/dev/nvme0n1": "dos,linux_raid_member", "/dev/vda": "swap,btrfs", "/dev/sdb": "?"}, 0},
	} {
		onShells(t, name, func(b *bench) {
			t := b.t
			furnish(b)
			tt.bench(b)
			uid := map[bool]int{true: 1000}[tt.sudo > 0]
			for _, detail := range []bool{true, false} {
				m, err := translate.HostProbe("j", []string{"10.0.0.1"}, detail)
				l := b.run(m, err)
				f, done, err := translate.ReadHostProbe(l, "j")
				if err != nil || !done {
					t.Fatalf("done %v, err %v\n%+v", done, err, l)
				}
				if f.ID != "debian" || f.UID != uid || f.Kubeadm != "v1.34.1" || f.BootID != benchBoot || len(f.MACs) != 1 || f.System != "Linux" {
					t.Errorf("%+v", f)
				}
				want := []capi.Disk{
					{Device: "/dev/mmcblk0", ID: "0x1a2b", Serial: "0x1a2b"},
					{Device: "/dev/nvme0n1", ID: "eui.0025385b01", Flags: "mounted", WWN: "eui.0025385b01", Serial: "S4EW_1", Model: "Samsung_SSD_970", Mounts: "/var/lib"},
					{Device: "/dev/sda", ID: "t10.ATA_QEMU_HARDDISK_QM00001", Flags: "root,mounted", WWN: "t10.ATA_QEMU_HARDDISK_QM00001", Serial: "WD-WCC4N_7", Model: "QEMU_HARDDISK", Mounts: "/,/snap%20shots%2Cold,/var/lib"},
					{Device: "/dev/sdb", ID: "-", Flags: "removable,ro,usb", WWN: "0x5000c500a1b2c3d4", Serial: "A1", Model: "USB_Stick2"},
					{Device: "/dev/vda", ID: "disk-1", Serial: "disk-1"},
				}
				for i := range want {
					want[i].Bytes = 1 << 20
					want[i].Content = tt.content[want[i].Device]
					if !detail {
						want[i] = want[i].Identity()
					}
				}
				if diff := cmp.Diff(want, f.Disks); diff != "" {
					t.Errorf("detail %v (-want +got):\n%s\n%s", detail, diff, l.Entries[0].Entry)
				}
			}
			if n := strings.Count(b.calls(), "sudo -n"); n != tt.sudo {
				t.Errorf("%d times sudo", n)
			}
		})
	}
}

// A host without /sys and /proc, as ESXi, is said to be that.
func TestProbeOfESXi(t *testing.T) {
	onShells(t, "esxi", func(b *bench) {
		t := b.t
		b.program("uname", `case $1 in -s) echo VMkernel;; *) echo x;; esac`)
		for _, gone := range []string{"/proc", "/sys", "/run/udev"} {
			if err := os.RemoveAll(b.path(gone)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := translate.HostProbe("j", []string{"10.0.0.1"}, true)
		l := b.run(m, err)
		if _, done, err := translate.ReadHostProbe(l, "j"); !done || err == nil || !strings.Contains(err.Error(), "ESXi") {
			t.Errorf("done %v, err %v\n%+v", done, err, l)
		}
	})
}
