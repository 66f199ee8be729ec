package translate_test

import (
	"os"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const (
	hdparmSecurity = `
ATA device, with non-removable media
	Model Number:       X
Commands/features:
	Enabled	Supported:
	   *	Security Mode feature set
Security: 
	Master password revision code = 65534
		supported
	not	enabled
	not	locked
	not	frozen
	not	expired: security count
		supported: enhanced erase
	2min for SECURITY ERASE UNIT. 2min for ENHANCED SECURITY ERASE UNIT.
Logical Unit WWN Device Identifier: 5000c500a1b2c3d4
`
	nvmeController = `NVME Identify Controller:
vid       : 0x144d
oacs      : 0x17
fna       : 0x5
`
)

func sata() benchDisk {
	return benchDisk{name: "sda", sys: map[string]string{"wwid": "naa.5000c500a1b2c3d4", "device/serial": "WD-1", "queue/discard_max_bytes": "2147450880"}, parts: [][2]int64{{2048, 8192}, {10240, 30720}, {40960, 8}}}
}

// tools adds to a bench what wipes disks of all kinds.
func tools(b *bench) {
	b.t.Helper()
	b.program("wipefs", "")
	b.program("blockdev", "")
	b.program("blkdiscard", `[ "$1" = -f ] || exit 1; f=$2; `+erasing)
	b.program("hdparm", `case "$*" in -I*) cat <<'E'`+hdparmSecurity+"E\n;; *--security-erase-enhanced*) f=$5; "+erasing+";; esac")
	b.program("nvme", `case $1 in id-ctrl) cat <<'E'`+"\n"+nvmeController+"E\n;; format) case $2 in --help) echo '  [  --force ]'; exit;; esac; f=$2; "+erasing+";; esac")
}

// TestWipeInShells: each mode in each shell destroys what it has to, proves it, and
// resets the machine.
func TestWipeInShells(t *testing.T) {
	for _, tt := range []struct {
		mode  capi.WipeMode
		disk  string
		calls []string
	}{
		{capi.WipeQuick, "sda", nil},
		{capi.WipeZero, "vda", nil},
		{capi.WipeDiscard, "nvme0n1", []string{"blkdiscard -f /dev/nvme0n1"}},
		{capi.WipeSecure, "sda", []string{"hdparm --user-master u --security-set-pass capplunder /dev/sda", "hdparm --user-master u --security-erase-enhanced capplunder /dev/sda"}},
		{capi.WipeSecure, "nvme0n1", []string{"nvme format /dev/nvme0n1 -s 1 --force"}},
	} {
		onShells(t, string(tt.mode)+" "+tt.disk, func(b *bench) {
			t := b.t
			tools(b)
			d := sata()
			d.name = tt.disk
			disk := b.disk(d)
			order := translate.WipeOrder{Disks: []capi.Disk{disk}, Mode: tt.mode}
			l := b.run(translate.Wipe("j", benchTarget(), order))
			got, done, err := translate.ReadWipe(l, "j", order)
			if err != nil || !done {
				t.Fatalf("done %v, err %v\n%+v", done, err, l)
			}
			b.awaitReset()
			quick := tt.mode == capi.WipeQuick
			if got[0].Disk != disk || got[0].Method != tt.mode || len(got[0].Samples) != 2+2*3+map[bool]int{true: 8, false: 16}[quick] {
				t.Errorf("%+v", got[0])
			}
			if left := b.data(disk.Device); quick && left != disk.Bytes-18<<20-4096 || !quick && left != 0 {
				t.Errorf("%d bytes are left", left)
			}
			calls := b.calls()
			for _, want := range tt.calls {
				if !strings.Contains(calls, want+"\n") {
					t.Errorf("%q is not in\n%s", want, calls)
				}
			}
			part := map[bool]string{true: disk.Device + "p1\n", false: disk.Device + "1\n"}[tt.disk == "nvme0n1"]
			if ro, wipefs := strings.Index(calls, "blockdev --setro "+part), strings.Index(calls, "wipefs -a -f "+part); ro < wipefs || wipefs < 0 {
				t.Errorf("partitions must lose their signatures and then be read-only:\n%s", calls)
			}
		})
	}
}

// TestWipeRefusedInShells: before anything is destroyed, with what to do.
func TestWipeRefusedInShells(t *testing.T) {
	const remote = "platform/host2/session1/target2:0:0"
	for name, tt := range map[string]struct {
		mode   capi.WipeMode
		disk   func(*benchDisk)
		order  func(*capi.Disk)
		bench  func(*bench)
		reason string
	}{
		"missing":              {order: func(d *capi.Disk) { d.Device = "/dev/sdz" }, reason: "no such disk any more (reason=missing)"},
		"size":                 {order: func(d *capi.Disk) { d.Bytes += 512 }, reason: "its size is 2097152 bytes, not 2097664"},
		"read-only":            {disk: func(d *benchDisk) { d.sys["ro"] = "1" }, reason: "reason=readonly"},
		"removable":            {disk: func(d *benchDisk) { d.sys["removable"] = "1" }, reason: "reason=removable"},
		"usb":                  {disk: func(d *benchDisk) { d.bus = "0000:00:14.0/usb1/1-1" }, reason: "reason=usb"},
		"remote":               {disk: func(d *benchDisk) { d.bus = remote }, reason: "reason=remote"},
		"wwn":                  {order: func(d *capi.Disk) { d.WWN = "naa.5000c500a1b2c3d5" }, reason: "it is known as naa.5000c500a1b2c3d4,WD-1, not as naa.5000c500a1b2c3d5 (reason=identity)"},
		"serial":               {order: func(d *capi.Disk) { d.Serial = "WD-2" }, reason: "not as WD-2 (reason=identity)"},
		"part of a serial":     {order: func(d *capi.Disk) { d.Serial = "WD" }, reason: "not as WD (reason=identity)"},
		"anonymous now":        {disk: func(d *benchDisk) { delete(d.sys, "wwid"); delete(d.sys, "device/serial") }, order: func(d *capi.Disk) { d.Serial = "WD-1" }, reason: "not as WD-1 (reason=identity)"},
		"an older record":      {order: func(d *capi.Disk) { d.WWN, d.Serial, d.ID = "", "", "t10.ATA_X" }, reason: "not as t10.ATA_X (reason=identity)"},
		"nowhere to write":     {bench: func(b *bench) { b.without("mkfifo"); b.program("mkfifo", "exit 1") }, reason: "neither /run, /dev/shm nor /tmp"},
		"discard no tool":      {mode: capi.WipeDiscard, bench: func(b *bench) { b.without("blkdiscard") }, reason: "install it, or use --wipe zero (reason=no-tool)"},
		"discard cannot":       {mode: capi.WipeDiscard, disk: func(d *benchDisk) { d.sys["queue/discard_max_bytes"] = "0" }, reason: "reason=discard-unsupported"},
		"secure no hdparm":     {mode: capi.WipeSecure, bench: func(b *bench) { b.without("hdparm") }, reason: "reason=no-tool"},
		"secure no nvme":       {mode: capi.WipeSecure, disk: func(d *benchDisk) { d.name = "nvme0n1" }, bench: func(b *bench) { b.without("nvme") }, reason: "reason=no-tool"},
		"secure virtual":       {mode: capi.WipeSecure, disk: func(d *benchDisk) { d.name = "vda" }, reason: "reason=secure-unsupported"},
		"secure hdparm fails":  {mode: capi.WipeSecure, bench: func(b *bench) { b.program("hdparm", "exit 5") }, reason: "reason=secure-unsupported"},
		"secure unsupported":   {mode: capi.WipeSecure, bench: security("\t\tsupported\n", "\tnot\tsupported\n"), reason: "reason=secure-unsupported"},
		"secure no section":    {mode: capi.WipeSecure, bench: security("Security: \n", "x\n"), reason: "reason=secure-unsupported"},
		"secure frozen":        {mode: capi.WipeSecure, bench: security("\tnot\tfrozen\n", "\t\tfrozen\n"), reason: "suspend and wake the machine, or use --wipe zero (reason=frozen)"},
		"secure enabled":       {mode: capi.WipeSecure, bench: security("\tnot\tenabled\n", "\t\tenabled\n"), reason: "reason=secure-locked"},
		"secure locked":        {mode: capi.WipeSecure, bench: security("\tnot\tlocked\n", "\t\tlocked\n"), reason: "reason=secure-locked"},
		"secure nvme cannot":   {mode: capi.WipeSecure, disk: func(d *benchDisk) { d.name = "nvme0n1" }, bench: controller("oacs : 0x1\nfna : 0"), reason: "reason=secure-unsupported"},
		"secure nvme fails":    {mode: capi.WipeSecure, disk: func(d *benchDisk) { d.name = "nvme0n1" }, bench: controller(""), reason: "reason=secure-unsupported"},
		"secure nvme shared":   {mode: capi.WipeSecure, disk: func(d *benchDisk) { d.name = "nvme0n1" }, bench: func(b *bench) { b.disk(benchDisk{name: "nvme0n2", bytes: 2 << 20}) }, reason: "reason=secure-shared"},
		"secure nvme unspoken": {mode: capi.WipeSecure, disk: func(d *benchDisk) { d.name = "nvme0n1" }, bench: func(b *bench) { b.disk(benchDisk{name: "nvme0n2", bytes: 2 << 20}); controller("oacs : 0x2")(b) }, reason: "reason=secure-shared"},
	} {
		on(t, name, func(b *bench) {
			t := b.t
			if tt.bench != nil && b.busybox && strings.Contains(name, "write") {
				t.Skip("busybox's own mkfifo always works")
			}
			tools(b)
			d := sata()
			d.bytes, d.parts = 2<<20, nil
			if tt.disk != nil {
				tt.disk(&d)
			}
			disk := b.disk(d)
			other := b.disk(benchDisk{name: "sdb", bytes: 2 << 20})
			if tt.order != nil {
				tt.order(&disk)
			}
			if tt.bench != nil {
				tt.bench(b)
			}
			// The disk that is refused comes last: the one before it must not be touched either.
			disk.Flags = "root"
			order := translate.WipeOrder{Disks: []capi.Disk{disk, other}, Mode: tt.mode}
			if tt.mode == capi.WipeSecure || tt.mode == capi.WipeDiscard {
				order.Disks = []capi.Disk{disk}
			}
			l := b.run(translate.Wipe("j", benchTarget(), order))
			_, done, err := translate.ReadWipe(l, "j", order)
			if err == nil || !done || !strings.Contains(err.Error(), tt.reason) || !strings.Contains(err.Error(), "nothing was destroyed") {
				t.Errorf("done %v, err %v, want %s\n%+v", done, err, tt.reason, l)
			}
			if left := b.data("/dev/" + d.name); left != 2<<20 || b.data("/dev/sdb") != 2<<20 {
				t.Errorf("something was destroyed: %d bytes are left", left)
			}
			if calls := b.calls(); strings.Contains(calls, "wipefs -a") || strings.Contains(calls, "--setro") || strings.Contains(calls, "set-pass") || strings.Contains(calls, "format") || strings.Contains(calls, "blkdiscard -f") {
				t.Errorf("something was done:\n%s", calls)
			}
		}, "dash", "busybox")
	}
}

// security is a drive whose answer to hdparm -I is another.
func security(line, other string) func(*bench) {
	return func(b *bench) {
		b.t.Helper()
		text := strings.Replace(hdparmSecurity, line, other, 1)
		if text == hdparmSecurity {
			b.t.Fatalf("no line %q", line)
		}
		b.program("hdparm", "cat <<'E'"+text+"E\n")
	}
}

// controller is an NVMe controller with other abilities.
func controller(text string) func(*bench) {
	return func(b *bench) { b.program("nvme", "cat <<'E'\n"+text+"\nE\n") }
}

// ddThat is a dd that behaves in some way when a word is among its arguments.
func ddThat(word, then string) func(*bench) {
	return func(b *bench) {
		b.program("dd", `case " $* " in *"`+word+`"*) `+then+`;; esac; exec dd "$@"`)
	}
}

// TestWipeNotProvedInShells: whatever goes wrong, a disk that was not wiped is never taken
// for one that was, and the machine is not reset.
func TestWipeNotProvedInShells(t *testing.T) {
	for name, tt := range map[string]struct {
		mode  capi.WipeMode
		bench func(*bench)
		want  string
	}{
		"blkdiscard does nothing": {capi.WipeDiscard, func(b *bench) { b.program("blkdiscard", "") }, "are zero"},
		"blkdiscard fails":        {capi.WipeDiscard, func(b *bench) { b.program("blkdiscard", "exit 1") }, "blkdiscard failed"},
		"security erase does nothing": {capi.WipeSecure, func(b *bench) {
			b.program("hdparm", `case "$*" in -I*) cat <<'E'`+hdparmSecurity+"E\n;; esac")
		}, "are zero"},
		"security erase fails": {capi.WipeSecure, func(b *bench) {
			b.program("hdparm", `case "$*" in -I*) cat <<'E'`+hdparmSecurity+"E\n;; *erase*) exit 5;; esac")
		}, `its password is "capplunder"`},
		"dd fails to write":          {capi.WipeQuick, ddThat("conv=", "exit 1"), "writing at "},
		"dd writes nothing":          {capi.WipeQuick, ddThat("conv=", "exit 0"), "of 16777216 bytes at 0 only 0 are zero"},
		"dd writes nothing at all":   {capi.WipeZero, ddThat("conv=", "exit 0"), "of 16777216 bytes at 0 only 0 are zero"},
		"dd writes no tail":          {capi.WipeQuick, ddThat("seek=23 ", "exit 0"), "of 1048576 bytes at 24117248 only 0 are zero"},
		"dd writes no partition end": {capi.WipeQuick, ddThat("seek=19 ", "exit 0"), "of 1048576 bytes at 19922944 only 0 are zero"},
		"dd reads nothing":           {capi.WipeQuick, ddThat("if=/dev/sda", "exit 1"), "only 0 are zero"},
		"dd reads too little":        {capi.WipeQuick, ddThat("if=/dev/sda", `dd "$@" | head -c 1000; exit 0`), "only 1000 are zero"},
		"no tr after the wipe": {capi.WipeQuick, func(b *bench) {
			ddThat("conv=", "rm -f /bin/gone; : >/run/wiped")(b)
			b.program("tr", `case $1 in -dc) [ ! -e /run/wiped ] || exit 127;; esac; exec tr "$@"`)
		}, "only 0 are zero"},
		"no wc after the wipe": {capi.WipeQuick, func(b *bench) {
			ddThat("conv=", ": >/run/wiped")(b)
			b.program("wc", `[ ! -e /run/wiped ] || exit 127; exec wc "$@"`)
		}, "only 0 are zero"},
		"a strange sha256sum": {capi.WipeQuick, func(b *bench) { b.program("sha256sum", "echo 0123 -") }, "digest"},
	} {
		on(t, name, func(b *bench) {
			t := b.t
			if b.busybox && (strings.HasPrefix(name, "no ")) {
				t.Skip("busybox runs its own")
			}
			tools(b)
			disk := b.disk(sata())
			tt.bench(b)
			order := translate.WipeOrder{Disks: []capi.Disk{disk}, Mode: tt.mode}
			l := b.run(translate.Wipe("j", benchTarget(), order))
			got, done, err := translate.ReadWipe(l, "j", order)
			if err == nil || !done || got != nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "disk /dev/sda (naa.5000c500a1b2c3d4) was not proved") {
				t.Errorf("done %v, err %v, want %s\n%+v", done, err, tt.want, l)
			}
			if name == "a strange sha256sum" {
				b.awaitReset() // the zeros were counted: only the digest is not believed
			} else if e := l.Entries[len(l.Entries)-1]; l.State != wire.StateFailed || strings.Contains(e.Entry, "capplunder-wipe-ok") || !strings.Contains(e.Entry, "capplunder-wipe-failed") {
				t.Errorf("%+v", e)
			}
		}, "dash", "busybox")
	}
}

// TestWipeWithLess: hosts that lack programs are wiped and proved all the same.
func TestWipeWithLess(t *testing.T) {
	for name, tt := range map[string]struct {
		bench func(*bench)
		read  string
	}{
		"no sha256sum":                {func(b *bench) { b.without("sha256sum") }, "read="},
		"no O_DIRECT":                 {ddThat("direct", "exit 1"), "read=cached"},
		"no O_DIRECT and no blockdev": {func(b *bench) { ddThat("direct", "exit 1")(b); b.without("blockdev") }, "read=cached"},
	} {
		onShells(t, name, func(b *bench) {
			t := b.t
			tools(b)
			disk := b.disk(sata())
			tt.bench(b)
			order := translate.WipeOrder{Disks: []capi.Disk{disk}, Mode: capi.WipeZero}
			l := b.run(translate.Wipe("j", benchTarget(), order))
			got, done, err := translate.ReadWipe(l, "j", order)
			if err != nil || !done || len(got) != 1 || !strings.Contains(l.Entries[1].Entry, tt.read) {
				t.Fatalf("done %v, err %v\n%+v", done, err, l)
			}
			for _, s := range got[0].Samples {
				if len(s.SHA256) != 64 {
					t.Errorf("%+v", s)
				}
			}
			b.awaitReset()
			if raw, _ := os.ReadFile(b.path("/proc/sys/vm/drop_caches")); (string(raw) == "3\n") != strings.HasSuffix(name, "blockdev") {
				t.Errorf("drop_caches got %q", raw)
			}
		})
	}
}

// TestWipeManyDisks: those with the system last, and the answer in the order's order.
func TestWipeManyDisks(t *testing.T) {
	onShells(t, "many", func(b *bench) {
		t := b.t
		tools(b)
		root := b.disk(sata())
		root.Flags = "root,mounted"
		order := translate.WipeOrder{Disks: []capi.Disk{root, b.disk(benchDisk{name: "sdb", bytes: 2 << 20}), b.disk(benchDisk{name: "cciss!c0d0", bytes: 4 << 20})}}
		l := b.run(translate.Wipe("j", benchTarget(), order))
		got, done, err := translate.ReadWipe(l, "j", order)
		if err != nil || !done || len(got) != 3 || got[0].Disk != root || got[2].Device != "/dev/cciss/c0d0" {
			t.Fatalf("done %v, err %v, %+v\n%+v", done, err, got, l)
		}
		b.awaitReset()
		if e := l.Entries[1].Entry; strings.Index(e, "capplunder-wiped dev=/dev/sda ") < strings.Index(e, "capplunder-wiped dev=/dev/cciss/c0d0 ") {
			t.Errorf("the disk with the programs must come last:\n%s", e)
		}
	})
}
