package host

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// storageCommand are the programs that partition, format and mount.
func storageCommand(name string) command {
	switch name {
	case "sfdisk":
		return cmdSfdisk
	case "mkfs", "mkfs.ext4", "mkfs.ext3", "mkfs.vfat", "mkfs.xfs", "mkswap":
		return cmdMkfs
	case "blkid":
		return cmdBlkid
	case "lsblk":
		return cmdLsblk
	case "mount":
		return cmdMount
	case "umount":
		return cmdUmount
	case "mountpoint", "findmnt":
		return cmdMountpoint
	case "partprobe", "udevadm":
		return func(*call) int { return 0 } // the kernel knows already
	case "df":
		return cmdDf
	case "wipefs":
		return cmdWipefs
	case "sgdisk":
		return cmdSgdisk
	case "blkdiscard":
		return cmdBlkdiscard
	case "blockdev":
		return cmdBlockdev
	case "hdparm":
		return cmdHdparm
	case "nvme":
		return cmdNvme
	}
	return nil
}

// partitionFiles makes the device nodes of a disk's partitions, and what /sys says of them.
func (h *Host) partitionFiles(i int) {
	put := func(p string, n *node) {
		n.volatile = true
		h.fs.put(p, n)
	}
	d := h.disks[i]
	for _, p := range d.parts {
		q := path.Join(d.sysPath(i), d.partName(p.Number))
		for name, text := range map[string]string{
			"partition": fmt.Sprintf("%d\n", p.Number), "start": fmt.Sprintf("%d\n", p.Start), "size": fmt.Sprintf("%d\n", p.Count), "ro": bit(d.ReadOnly), "dev": d.number(i, p.Number) + "\n",
		} {
			put(q+"/"+name, &node{mode: 0o444, data: []byte(text)})
		}
		put(d.partDevice(p.Number), &node{mode: fs.ModeDevice | 0o660, block: &section{d.d, p.Start * sectorSize, p.Count * sectorSize}})
		h.blockLinks(func(p, target string) { put(p, &node{mode: fs.ModeSymlink | 0o777, data: []byte(target)}) }, q, d.number(i, p.Number))
		h.udev(i, p, section{d.d, p.Start * sectorSize, p.Count * sectorSize})
	}
}

// repartition gives a disk other partitions, as the kernel does when the table was read again.
func (h *Host) repartition(i int, parts []partition) {
	d := h.disks[i]
	h.fs.mu.Lock()
	for _, p := range d.parts {
		name := d.partName(p.Number)
		for _, gone := range h.fs.tree(path.Join(d.sysPath(i), name)) {
			delete(h.fs.nodes, gone)
		}
		delete(h.fs.nodes, "/dev/"+name)
		delete(h.fs.nodes, "/sys/class/block/"+name)
		delete(h.fs.nodes, "/sys/dev/block/"+d.number(i, p.Number))
		delete(h.fs.nodes, "/run/udev/data/b"+d.number(i, p.Number))
	}
	h.disks[i].parts = parts
	h.fs.mu.Unlock()
	h.partitionFiles(i)
}

// blockDevice is a disk or one of its partitions.
type blockDevice struct {
	disk int
	part int // 0 for the disk itself
	name string
	section
}

// blockDevices are all of them, disks before their partitions.
func (h *Host) blockDevices() []blockDevice {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	var out []blockDevice
	for i, d := range h.disks {
		out = append(out, blockDevice{i, 0, d.device(), section{d.d, 0, d.Bytes}})
		for _, p := range d.parts {
			out = append(out, blockDevice{i, p.Number, d.partDevice(p.Number), section{d.d, p.Start * sectorSize, p.Count * sectorSize}})
		}
	}
	return out
}

// findDevice finds a block device by path, LABEL=, UUID= or a link to it.
func (c *call) findDevice(name string) (blockDevice, bool) {
	if !strings.HasPrefix(name, "LABEL=") && !strings.HasPrefix(name, "UUID=") {
		name = c.path(name)
	}
	return c.h.findDevice(name)
}

func (h *Host) findDevice(name string) (blockDevice, bool) {
	all := h.blockDevices()
	if len(all) == 0 {
		return blockDevice{}, false
	}
	for prefix, field := range map[string]func(signature) string{
		"LABEL=": func(s signature) string { return s.label }, "UUID=": func(s signature) string { return s.uuid },
	} {
		if want, ok := strings.CutPrefix(name, prefix); ok {
			i := slices.IndexFunc(all, func(b blockDevice) bool { return want != "" && field(b.signature()) == want })
			return all[max(i, 0)], i >= 0
		}
	}
	h.fs.mu.Lock()
	target, err := h.fs.resolve(name, true)
	h.fs.mu.Unlock()
	i := slices.IndexFunc(all, func(b blockDevice) bool { return err == nil && b.name == target })
	return all[max(i, 0)], i >= 0
}

// mountsOf are the directories where a device is mounted, of a disk also those of its partitions.
func (h *Host) mountsOf(b blockDevice) []string {
	disk := h.disks[b.disk]
	var out []string
	for _, line := range lines([]byte(h.lockedMounts())) {
		f := strings.Fields(line)
		part := b.part == 0 && slices.ContainsFunc(disk.parts, func(p partition) bool { return disk.partDevice(p.Number) == f[0] })
		if f[0] == b.name || part {
			out = append(out, f[1])
		}
	}
	return out
}

func (h *Host) lockedMounts() string {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.mounts()
}

// signature is what the beginning of a device says of its contents.
type signature struct {
	kind        string // ext4, xfs, vfat, swap, LVM2_member, linux_raid_member, crypto_LUKS; "" for none
	table       string // gpt, dos; "" for none
	label, uuid string
}

// Where file systems keep what they are, by offset.
const (
	extMagic, extUUID, extLabel = 0x438, 0x468, 0x478
	xfsUUID, xfsLabel           = 32, 108
	fatMagic, fatLabel          = 3, 43
	swapMagic, swapLabel        = 4086, 1052
	tableMagic, gptMagic        = 510, 512 // LVM's magic is at the latter, too
	raidMagic                   = 4096
)

func (s section) signature() signature {
	b := make([]byte, 2*chunkSize)
	s.d.readAt(b[:min(int64(len(b)), s.length)], s.off)
	text := func(off, length int) string { return string(bytes.TrimRight(b[off:off+length], "\x00 ")) }
	at := func(off int, magic string) bool { return string(b[off:off+len(magic)]) == magic }
	id := func(off int) string {
		if bytes.Count(b[off:off+16], []byte{0}) == 16 {
			return ""
		}
		return fmt.Sprintf("%x-%x-%x-%x-%x", b[off:off+4], b[off+4:off+6], b[off+6:off+8], b[off+8:off+10], b[off+10:off+16])
	}
	var out signature
	switch {
	case at(0, "LUKS\xba\xbe"):
		out = signature{kind: "crypto_LUKS"}
	case at(gptMagic, "LABELONE"):
		out = signature{kind: "LVM2_member"}
	case at(raidMagic, "\xfc\x4e\x2b\xa9"):
		out = signature{kind: "linux_raid_member"}
	case at(extMagic, "\x53\xef"):
		out = signature{kind: "ext4", label: text(extLabel, 16), uuid: id(extUUID)}
	case at(0, "XFSB"):
		out = signature{kind: "xfs", label: text(xfsLabel, 12), uuid: id(xfsUUID)}
	case at(fatMagic, "mkfs.fat"):
		out = signature{kind: "vfat", label: text(fatLabel, 11)}
	case at(swapMagic, "SWAPSPACE2"):
		out = signature{kind: "swap", label: text(swapLabel, 16)}
	}
	switch {
	case at(gptMagic, "EFI PART"):
		out.table = "gpt"
	case out.kind == "" && at(tableMagic, "\x55\xaa"):
		out.table = "dos"
	}
	return out
}

// sectors reads a size as sfdisk takes it: sectors, or a number with KiB, MiB, GiB, TiB or a letter.
func sectors(s string) (int64, bool) {
	for i, u := range []string{"K", "M", "G", "T"} {
		for _, suffix := range []string{u + "iB", u} {
			if v, ok := strings.CutSuffix(s, suffix); ok {
				n, err := strconv.ParseInt(v, 10, 64)
				return n << (10 * (i + 1)) / sectorSize, err == nil
			}
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// cmdSfdisk writes a partition table that it reads from its input.
func cmdSfdisk(c *call) int {
	flags, args := options(c.args[1:], "-X", "--label", "-w", "--wipe", "-W", "--wipe-partitions", "-N")
	if len(args) != 1 {
		return c.fail(1, "no disk device specified")
	}
	dev, ok := c.findDevice(args[0])
	switch {
	case !ok:
		return c.fail(1, "cannot open %s: No such file or directory", args[0])
	case !c.root():
		return c.fail(1, "cannot open %s: Permission denied", args[0])
	case dev.part != 0:
		return c.fail(1, "%s: not a whole disk", args[0])
	case c.h.disks[dev.disk].ReadOnly:
		return c.fail(1, "cannot open %s: Read-only file system", args[0])
	}
	if len(c.h.mountsOf(dev)) > 0 && !has(flags, "--no-reread", "--force", "-f") {
		return c.fail(1, "%s: This disk is currently in use - repartitioning is probably a bad idea.\nUmount all file systems, and swapoff all swap partitions on this disk.\nUse the --no-reread flag to suppress this check.", args[0])
	}
	b, err := c.stdin()
	if err != nil {
		return c.fail(1, "%v", err)
	}
	label := cmp.Or(value(flags, "-X", "--label"), "dos")
	next, end := int64(2048), dev.length/sectorSize
	var parts []partition
	for i, line := range lines(b) {
		line = strings.TrimSpace(line)
		if k, v, ok := strings.Cut(line, ":"); ok && !strings.Contains(k, "=") {
			if k == "label" {
				label = strings.TrimSpace(v)
			}
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		limit := end
		if label == "gpt" {
			limit -= 34
		}
		size := limit - next
		for n, f := range strings.Split(line, ",") {
			k, v, named := strings.Cut(strings.TrimSpace(f), "=")
			switch {
			case named && !slices.Contains([]string{"size", "start", "type", "name", "uuid", "bootable", "attrs"}, k):
				return c.fail(1, "line %d: unsupported command", i+1)
			case named && k == "size" && v != "+", !named && n == 1 && k != "" && k != "+":
				if !named {
					v = k
				}
				if size, ok = sectors(v); !ok {
					return c.fail(1, "line %d: failed to parse size", i+1)
				}
			}
		}
		if size <= 0 || next+size > limit {
			return c.fail(1, "%s: Failed to add #%d partition: No space left on device\nLeaving.", args[0], len(parts)+1)
		}
		parts = append(parts, partition{Number: len(parts) + 1, Start: next, Count: size})
		next = (next + size + 2047) / 2048 * 2048
	}
	if label != "gpt" && label != "dos" {
		return c.fail(1, "unsupported label '%s'", label)
	}
	dev.clear(0, 34*sectorSize)
	mbr := make([]byte, sectorSize)
	mbr[tableMagic], mbr[tableMagic+1] = 0x55, 0xaa
	dev.d.writeAt(mbr, 0)
	if label == "gpt" {
		dev.d.writeAt([]byte("EFI PART\x00\x00\x01\x00"), gptMagic)
		dev.d.writeAt([]byte("EFI PART\x00\x00\x01\x00"), dev.length-sectorSize)
	}
	c.h.repartition(dev.disk, parts)
	if status := c.written(dev.section, 35*sectorSize); status != 0 {
		return status
	}
	if !has(flags, "-q", "--quiet") {
		c.printf("The partition table has been altered.\nCalling ioctl() to re-read partition table.\nSyncing disks.\n")
	}
	return 0
}

// cmdMkfs makes the signature of a file system.
func cmdMkfs(c *call) int {
	name := path.Base(c.args[0])
	withValue := []string{"-L", "-U", "-m", "-t", "-b", "-i", "-I", "-N", "-O", "-E", "-T", "-n", "-F", "-s", "-d", "-l", "-K"}
	kind := strings.TrimPrefix(name, "mkfs.")
	switch kind {
	case "ext4", "ext3":
		withValue = slices.DeleteFunc(withValue, func(f string) bool { return f == "-F" || f == "-n" })
	case "xfs":
		withValue = slices.DeleteFunc(withValue, func(f string) bool { return f == "-F" || f == "-K" })
	case "mkswap":
		kind = "swap"
	}
	flags, args := options(c.args[1:], withValue...)
	if kind == "mkfs" {
		kind = cmp.Or(value(flags, "-t"), "ext2")
		if commandNamed("mkfs."+kind) == nil || kind == "ext2" {
			return c.fail(1, "failed to execute mkfs.%s: No such file or directory", kind)
		}
	}
	if len(args) < 1 {
		return c.fail(1, "no device specified")
	}
	dev, ok := c.findDevice(args[0])
	switch {
	case !ok && !c.h.fs.exists(c.path(args[0])):
		return c.fail(1, "The file %s does not exist and no size was specified.", args[0])
	case !ok:
		return c.fail(1, "%s is not a block special device.", args[0])
	case !c.root():
		return c.fail(1, "Permission denied while trying to determine filesystem size")
	case c.h.disks[dev.disk].ReadOnly:
		return c.fail(1, "%s: Read-only file system", args[0])
	case len(c.h.mountsOf(dev)) > 0:
		return c.fail(1, "%s is mounted; will not make a filesystem here!", args[0])
	}
	if old := dev.signature(); kind == "xfs" && old.kind+old.table != "" && !has(flags, "-f") {
		return c.fail(1, "%s appears to contain an existing filesystem (%s).\nmkfs.xfs: Use the -f option to force overwrite.", args[0], old.kind+old.table)
	}
	label := value(flags, "-L", "-n")
	limit := map[string]int{"ext4": 16, "ext3": 16, "xfs": 12, "vfat": 11, "swap": 16}[kind]
	switch {
	case limit == 0:
		return c.fail(1, "unknown file system type %s", kind)
	case len(label) > limit && strings.HasPrefix(kind, "ext"):
		c.errf("Warning: label too long; will be truncated to '%s'", label[:limit])
		label = label[:limit]
	case len(label) > limit:
		return c.fail(1, "label '%s' is too long, at most %d characters", label, limit)
	}
	c.h.mu.Lock()
	id := make([]byte, 16)
	for i := range id {
		id[i] = byte(c.h.random.Uint32())
	}
	c.h.mu.Unlock()
	dev.clear(0, 2*chunkSize)
	put := func(off int64, text string) { dev.d.writeAt([]byte(text), dev.off+off) }
	switch kind {
	case "xfs":
		put(0, "XFSB")
		put(xfsUUID, string(id))
		put(xfsLabel, label)
	case "vfat":
		put(0, "\xeb\x58\x90mkfs.fat")
		put(fatLabel, label)
	case "swap":
		put(swapMagic, "SWAPSPACE2")
		put(swapLabel, label)
	default:
		put(extMagic, "\x53\xef")
		put(extUUID, string(id))
		put(extLabel, label)
	}
	return c.written(dev.section, 2*chunkSize)
}

// written flushes a device that a program has written to, as those do that know how
// important it is, and gives the program's status.
func (c *call) written(s section, bytes int64) int {
	err := c.h.flush(s.d, s.off, s.off+s.length)
	c.h.wrote(c.ses, c.args[0], s, bytes)
	if err != nil {
		return c.fail(1, "fsync failed: %s", errText(err))
	}
	return 0
}
