package host

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// dirtied is what is at an offset of a disk (in sectors), as the host and as the disk see it.
const dirtied = `for f in '' iflag=direct; do dd if=/dev/%s bs=512 skip=%d count=1 $f 2>/dev/null | tr -d '\000'; echo ,; done`

// TestPageCache: what is written to a disk that is in use is on it once somebody has
// flushed it, and not before.
func TestPageCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, tt := range map[string]struct {
			script string
			kept   bool
		}{
			"dd":                      {``, false},
			"sync":                    {`sync`, true},
			"sync of the device":      {`sync /dev/sda`, true},
			"sync of another device":  {`sync /dev/sdb`, false},
			"sysrq":                   {`echo s >/proc/sysrq-trigger`, true},
			"flushbufs":               {`blockdev --flushbufs /dev/sda`, true},
			"drop_caches alone":       {`echo 3 >/proc/sys/vm/drop_caches`, false},
			"fsync of a later write":  {`dd if=/dev/zero of=/dev/sda bs=512 seek=7000 count=1 conv=notrunc,fsync 2>/dev/null`, true},
			"a later direct write":    {`dd if=/dev/zero of=/dev/sda bs=512 seek=7000 count=1 oflag=direct 2>/dev/null`, false},
			"a direct read of it":     {`dd if=/dev/sda bs=512 skip=6000 count=1 iflag=direct >/dev/null 2>&1`, true},
			"a direct read elsewhere": {`dd if=/dev/sda bs=512 skip=7000 count=1 iflag=direct >/dev/null 2>&1`, false},
			"reboot":                  {`reboot -f`, true},
		} {
			h := newTestHost(t, func(c *Config) { c.Disk = []DiskConfig{{Name: "sda", Bytes: 1 << 34}, {Name: "sdb", Bytes: 1 << 34}} })
			h.Run(t.Context(), Command{Line: "sudo -n -u root bash -c " + quote(`printf old | dd of=/dev/sda bs=512 seek=6000 conv=notrunc,fsync 2>/dev/null; printf new | dd of=/dev/sda bs=512 seek=6000 conv=notrunc 2>/dev/null
dd if=/dev/sda bs=512 skip=6000 count=1 2>/dev/null | tr -d '\000' >/etc/seen; `+tt.script)})
			h.Reboot()
			want := map[bool]string{true: "new", false: "old"}[tt.kept]
			if got := run(t, h, `cat /etc/seen; echo; `+fmt.Sprintf(dirtied, "sda", 6000)).Output; got != "new\n"+want+",\n"+want+"," {
				t.Errorf("%s: got %q, want %s", name, got, want)
			}
			h.Close()
		}
		h := newTestHost(t, func(c *Config) { c.Disk = []DiskConfig{{Name: "sda", Bytes: 1 << 34}, {Name: "sdb", Bytes: 1 << 34}} })
		run(t, h, `printf new | dd of=/dev/sdb bs=512 seek=6000 2>/dev/null; printf new >/dev/sdb1`)
		h.Reboot()
		if got := run(t, h, fmt.Sprintf(dirtied, "sdb", 6000)+`; head -c 3 /dev/sdb1`).Output; got != "new,\nnew,\nnew" {
			t.Errorf("a disk that nobody else has open is flushed when it is closed: %q", got)
		}
		h.Reboot()
	})
}

// TestSuperblock: a live file system writes its superblock back over a wipe, unless it is
// read-only, or its partition is.
func TestSuperblock(t *testing.T) {
	const wipe = `; dd if=/dev/zero of=/dev/sda bs=1M count=2000 conv=notrunc 2>/dev/null; sync; blkid -p -s TYPE -o value /dev/sda2; blockdev --getro /dev/sda2`
	for before, want := range map[string]string{
		`:`: "ext4\n0", `echo u >/proc/sysrq-trigger`: "0", `blockdev --setro /dev/sda2`: "1", `blockdev --setro /dev/sda2 --setrw /dev/sda2`: "ext4\n0",
	} {
		h := newTestHost(t)
		if got := run(t, h, before+wipe).Output; got != want {
			t.Errorf("%s: %q, want %q", before, got, want)
		}
	}
	h := newTestHost(t)
	if r := run(t, h, `blockdev --setro /dev/sda2; dd if=/dev/zero of=/dev/sda2 count=1`); r.Exit == 0 || !strings.Contains(r.Output, "Operation not permitted") {
		t.Errorf("a device that is set read-only: %+v", r)
	}
}

// TestLyingDisk: disks that lose writes or fail to write. What was lost is there for
// whoever asks the host, and not for whoever asks the disk.
func TestLyingDisk(t *testing.T) {
	const write = `printf new | dd of=/dev/sda bs=512 seek=6000 conv=notrunc%s 2>/dev/null; echo $?; sync; `
	look := fmt.Sprintf(dirtied, "sda", 6000)
	for name, tt := range map[string]struct {
		trouble Trouble
		flags   string
		want    string
	}{
		"lost":                            {Trouble{Lost: true}, "", "0\nnew,\nold,"},
		"lost, with fsync":                {Trouble{Lost: true}, ",fsync", "0\nnew,\nold,"},
		"lost, past the cache":            {Trouble{Lost: true}, " oflag=direct", "0\nold,\nold,"},
		"a range":                         {Trouble{Lost: true, From: 6000 * 512, To: 6000*512 + 2}, "", "0\nnew,\nolw,"},
		"another range":                   {Trouble{Lost: true, From: 6008 * 512, To: 7000 * 512}, "", "0\nnew,\nnew,"},
		"fails":                           {Trouble{Exit: 1}, "", "0\nnew,\nold,"}, // nobody asked
		"fails, with fsync":               {Trouble{Exit: 1}, ",fsync", "1\nnew,\nold,"},
		"fails, past the cache":           {Trouble{Exit: 1}, " oflag=direct", "1\nnew,\nold,"},
		"fails elsewhere, with fsync":     {Trouble{Exit: 1, To: 6000 * 512}, ",fsync", "0\nnew,\nnew,"},
		"fails elsewhere, past the cache": {Trouble{Exit: 1, From: 6008 * 512}, " oflag=direct", "0\nnew,\nnew,"},
	} {
		h := newTestHost(t)
		run(t, h, `printf old | dd of=/dev/sda bs=512 seek=6000 conv=notrunc,fsync 2>/dev/null`)
		h.Sabotage(func(s Step) *Trouble {
			if s.Is("disk:sda") {
				return &tt.trouble
			}
			return nil
		})
		if got := run(t, h, fmt.Sprintf(write, tt.flags)+look).Output; got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		disk := strings.Fields(strings.ReplaceAll(tt.want, ",", ""))[2]
		if got := run(t, h, `echo 3 >/proc/sys/vm/drop_caches; `+look).Output; got != disk+",\n"+disk+"," {
			t.Errorf("%s: without the cache %q, want %q", name, got, disk)
		}
	}
}

func TestEraseCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := func(c *Config) {
			c.Disk = []DiskConfig{
				{Name: "sda", Bytes: 1 << 34}, {Name: "sdb", Bytes: 1 << 34, Rotational: true}, {Name: "sdc", Bytes: 1 << 34, Frozen: true}, {Name: "sdd", Bytes: 1 << 34, NoErase: true},
				{Name: "nvme0n1", Bytes: 1 << 34}, {Name: "nvme1n1", Bytes: 1 << 34, NoErase: true}, {Name: "sde", Bytes: 1 << 34, USB: true}, {Name: "vda", Bytes: 1 << 34},
			}
			c.Packages = []string{"nvme-cli=2.8", "gdisk=1.0.10"}
		}
		const (
			busy    = "Device or resource busy"
			notSupp = "BLKDISCARD ioctl failed: Operation not supported"
			pass    = `hdparm --user-master u --security-set-pass p /dev/`
			erase   = `hdparm --user-master u --security-erase p /dev/`
		)
		for _, tt := range []struct {
			disk, script string
			status       int
			want         string // in the output
			wiped        bool
		}{
			{"sda", `blkdiscard /dev/sda`, 1, busy, false},
			{"sda", `blkdiscard -f -v /dev/sda`, 0, "Discarded 17179869184 bytes", true},
			{"sdb", `blkdiscard -f /dev/sdb`, 1, notSupp, false},
			{"sdb", `blkdiscard -z /dev/sdb`, 0, "", true},
			{"sde", `blkdiscard /dev/sde`, 1, notSupp, false},
			{"vda", `blkdiscard /dev/vda`, 0, "", true},
			{"vda", `sudo -n -u ubuntu blkdiscard /dev/vda`, 1, "Permission denied", false},
			{"sda", `hdparm -I /dev/sda`, 0, "\t\tsupported\n\tnot\tenabled\n\tnot\tlocked\n\tnot\tfrozen\n", false},
			{"sda", pass + `sda; hdparm -I /dev/sda`, 0, "\t\tsupported\n\t\tenabled\n", false},
			{"sda", pass + `sda; ` + erase + `sda; hdparm -I /dev/sda`, 0, "\tnot\tenabled\n", true},
			{"sdb", pass + `sdb; ` + strings.Replace(erase, "-erase", "-erase-enhanced", 1) + `sdb`, 0, "", true},
			{"sdb", erase + `sdb`, 5, "Input/output error", false},
			{"sdb", pass + `sdb; ` + strings.Replace(erase, "p /dev", "q /dev", 1) + `sdb`, 5, "Input/output error", false},
			{"sdb", pass + `sdb; hdparm --user-master u --security-disable p /dev/sdb; ` + erase + `sdb`, 5, "", false},
			{"sdc", `hdparm -I /dev/sdc`, 0, "\t\tfrozen\n", false},
			{"sdc", pass + `sdc`, 5, "SECURITY_SET_PASS: Input/output error", false},
			{"sdd", `hdparm -I /dev/sdd | grep -c Security`, 1, "0", false},
			{"sde", `hdparm -I /dev/sde`, 25, "Inappropriate ioctl", false},
			{"nvme0n1", `hdparm -I /dev/nvme0n1`, 25, "Inappropriate ioctl", false},
			{"nvme0n1", `nvme id-ctrl /dev/nvme0n1`, 0, "oacs      : 0x17\n", false},
			{"nvme0n1", `nvme format /dev/nvme0n1 -s1 -f`, 0, "Success formatting", true},
			{"nvme0n1", `nvme format --ses=1 --force /dev/nvme0n1`, 0, "Success formatting", true},
			{"nvme0n1", `nvme format -s 7 -f /dev/nvme0n1`, 1, "invalid secure erase", false},
			{"nvme0n1", `timeout 5 nvme format -s1 /dev/nvme0n1`, 124, "10 seconds", false},
			{"nvme1n1", `nvme id-ctrl /dev/nvme1n1`, 0, "oacs      : 0x15\n", false},
			{"nvme1n1", `nvme format -s1 -f /dev/nvme1n1`, 1, "Invalid Command Opcode", false},
			{"sda", `nvme id-ctrl /dev/sda`, 1, "Inappropriate ioctl", false},
			{"sdb", `blkid -p -o export /dev/sdb1`, 0, "DEVNAME=/dev/sdb1\nTYPE=vfat", false},
			{"sdb", `printf 'LUKS\272\276' | dd of=/dev/sdb2 2>/dev/null; blkid -p -s TYPE -o value /dev/sdb2`, 0, "crypto_LUKS", false},
			{"sdb", `printf LABELONE | dd of=/dev/sdb2 seek=1 2>/dev/null; lsblk -nro NAME,FSTYPE,SERIAL /dev/sdb2`, 0, "sdb2 LVM2_member", false},
			{"sdb", `printf '\374N+\251' | dd of=/dev/sdb2 seek=8 2>/dev/null; blkid -o udev /dev/sdb2`, 0, "ID_FS_TYPE=linux_raid_member", false},
			{"sdb", `sudo -n -u ubuntu blkid -p /dev/sdb1`, 2, "Permission denied", false},
			{"sdb", `blkid -p`, 4, "requires a device", false},
			{"sdb", `wipefs -a /dev/sdb; blkid -p /dev/sdb`, 2, "", false},
			{"sdb", `sgdisk --zap-all /dev/sdb; lsblk -nro PTTYPE /dev/sdb`, 0, "", false},
			{"sdb", `dd if=/dev/sdb of=/dev/null bs=100 count=1 iflag=direct`, 1, "Invalid argument", false},
			{"sdb", `dd if=/dev/sdb bs=1M skip=100 count=200 iflag=skip_bytes,count_bytes 2>/dev/null | wc -c`, 0, "200", false},
			{"sdb", `dd if=/dev/zero of=/dev/sdb iflag=bogus`, 1, "invalid input flag: 'bogus'", false},
			{"sdb", `dd if=/dev/zero of=/dev/sdb bs=4M oflag=direct conv=fsync`, 1, "No space left on device", true},
		} {
			h := newTestHost(t, disks)
			r := run(t, h, tt.script)
			i := slices.IndexFunc(h.disks, func(d *Drive) bool { return d.Name == tt.disk })
			wiped := h.disks[i].Left() == 0
			if r.Exit != tt.status || !strings.Contains(r.Output, tt.want) || wiped != tt.wiped {
				t.Errorf("%s\nstatus %d, wiped %v, output %q\nwant %d, %v, %q", tt.script, r.Exit, wiped, r.Output, tt.status, tt.wiped, tt.want)
			}
			h.Close()
		}
		if h := newTestHost(t); run(t, h, `nvme version`).Exit != 127 || run(t, h, `hdparm --version`).Exit != 0 {
			t.Error("Ubuntu has hdparm and not nvme-cli")
		}
	})
}

// TestWipes: every write to a disk by name is remembered with who did it.
func TestWipes(t *testing.T) {
	synctest.Test(t, testWipes)
}

func testWipes(t *testing.T) {
	w := NewWorld()
	a := newTestHost(t, func(c *Config) { c.World = w })
	b := newTestHost(t, func(c *Config) { c.World, c.MAC, c.Address, c.HostName = w, "52:54:00:00:00:02", "10.0.0.12", "node-2" })
	if got := w.Wipes(); len(got) != 0 {
		t.Errorf("an installation is no wipe: %+v", got)
	}
	task := func(h *Host, task, script string) {
		t.Helper()
		if r := h.Run(t.Context(), Command{Line: "sudo -n -u root sh -c " + quote(script), Task: task}); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	task(a, "look", `dd if=/dev/sda of=/etc/copy count=4; blkid; wipefs /dev/sda; echo x >/etc/x; dd if=/dev/zero of=/tmp/y count=1; dd if=/dev/zero of=/dev/sda count=0`)
	if got := w.Wipes(); len(got) != 0 {
		t.Errorf("nothing was written: %+v", got)
	}
	task(a, "wipe", `for i in 0 1 2; do dd if=/dev/zero of=/dev/sda bs=1M seek=$i count=1; done; wipefs -a -f /dev/sda; blkdiscard -f /dev/sda; setsid sh -c 'dd if=/dev/zero of=/dev/sda1 count=1'`)
	task(b, "other", `echo x >/dev/sda2`)
	synctest.Wait() // for what setsid started
	var got []string
	for _, x := range w.Wipes() {
		d := a.disks[0]
		if x.MAC == b.cfg.MAC {
			d = b.disks[0]
		}
		got = append(got, fmt.Sprintf("%s %s %s %v %s %s %d", x.MAC, x.HostName, x.Device, x.Serial == d.Serial, x.Program, x.Task, x.Bytes))
	}
	want := []string{
		"52:54:00:00:00:01 node-1 sda true blkdiscard wipe 480103981056", "52:54:00:00:00:01 node-1 sda true dd wipe 3146240",
		"52:54:00:00:00:01 node-1 sda true wipefs wipe 8", "52:54:00:00:00:02 node-2 sda true sh other 2",
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSnapshotOfCache: a host goes on with its cache, the lies of its disk included.
func TestSnapshotOfCache(t *testing.T) {
	h := newTestHost(t)
	lost := false
	h.Sabotage(func(s Step) *Trouble {
		if s.Is("disk:sda") && lost {
			return &Trouble{Lost: true}
		}
		return nil
	})
	run(t, h, `printf kept | dd of=/dev/sda seek=6000 conv=notrunc,fsync`)
	lost = true
	run(t, h, `printf lost | dd of=/dev/sda seek=6100 conv=notrunc,fsync; printf dirty | dd of=/dev/sda seek=6200 conv=notrunc; hdparm --security-set-pass x /dev/sda`)
	b, err := json.Marshal(h.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	c := Restore(s, NewWorld())
	defer c.Close()
	if again, err := json.Marshal(c.Snapshot()); err != nil || string(again) != string(b) {
		t.Errorf("a snapshot of a restored host must be the same: %v\n%s\n%s", err, again, b)
	}
	look := ""
	for _, n := range []int{6000, 6100} {
		look += fmt.Sprintf(dirtied, "sda", n) + ";"
	}
	if got := run(t, c, look+`dd if=/dev/sda skip=6200 count=1 2>/dev/null | tr -d '\000'; hdparm -I /dev/sda | grep enabled`).Output; got != "kept,\nkept,\nlost,\n,\ndirty\t\tenabled" {
		t.Errorf("got %q", got)
	}
	c.Reboot()
	if got := run(t, c, look+`dd if=/dev/sda skip=6200 count=1 2>/dev/null | tr -d '\000'`).Output; got != "kept,\nkept,\n,\n," {
		t.Errorf("after a reset: %q", got)
	}
}
