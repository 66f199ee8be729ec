package host

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// DiskConfig is one disk of a host. Its name says how it is attached: sda (SATA), nvme0n1,
// vda (virtio).
type DiskConfig struct {
	Name       string // "sda"
	Bytes      int64  // a multiple of 512
	Rotational bool   `json:",omitempty"` // a hard disk, which can't discard; otherwise flash
	Removable  bool   `json:",omitempty"`
	USB        bool   `json:",omitempty"`
	Remote     bool   `json:",omitempty"` // iSCSI or NVMe over fabrics
	ReadOnly   bool   `json:",omitempty"`
	Blank      bool   `json:",omitempty"` // nothing was ever written to it
	Anonymous  bool   `json:",omitempty"` // it has neither WWN nor serial number, as some virtual disks
	Frozen     bool   `json:",omitempty"` // the firmware has frozen the security commands of an ATA disk
	NoErase    bool   `json:",omitempty"` // it has no command to erase itself: no ATA security, no NVMe format
}

// Identity is what a disk says of itself, always the same; "" for what it does not say.
type Identity struct {
	// WWN is in the kernel's form: naa.5..., eui....
	WWN, Serial, Model string
}

// Drive is a disk as hardware: who it is, and what is on it. It stays in its machine when
// that is installed anew.
type Drive struct {
	DiskConfig
	Identity

	d     *disk
	parts []partition // that the kernel knows; the lock of the host's file system guards them
	// password is the hash of the one that ATA security has, "" for none; Host.mu guards it.
	password string
}

// NewDrives are the disks of a machine, each with an identity that follows from the
// machine's MAC and the seed. All but the first hold somebody's data, unless they are blank.
func NewDrives(mac string, seed int64, disks []DiskConfig) []*Drive {
	if len(disks) == 0 {
		disks = []DiskConfig{{Name: "sda", Bytes: defaultDisk}}
	}
	drives := make([]*Drive, len(disks))
	for i, c := range disks {
		d := &Drive{DiskConfig: c, Identity: c.identity(fmt.Sprintf("%s %d %d", mac, seed, i)), d: newDisk(c.Bytes)}
		d.d.ro = c.ReadOnly
		if i > 0 && !c.Blank {
			d.parts = format(d.d, false)
		}
		drives[i] = d
	}
	return drives
}

// identity makes up what a disk of this kind says of itself.
func (c DiskConfig) identity(from string) Identity {
	if c.Anonymous {
		return Identity{}
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(from)))
	id := Identity{Serial: "SIM" + strings.ToUpper(sum[:12])}
	size := fmt.Sprintf("%dGB", c.Bytes/1e9)
	switch {
	case c.virtio():
	case c.nvme():
		id.WWN, id.Model = "eui."+sum[16:32], "SIM NVMe "+size
	case c.USB:
		id.Model = "SIM Stick " + size
	case c.Rotational:
		id.WWN, id.Model = "naa.5"+sum[16:31], "SIM HDD "+size
	default:
		id.WWN, id.Model = "naa.5"+sum[16:31], "SIM SSD "+size
	}
	return id
}

// Replace puts another disk of the same kind, with another identity and the same contents,
// in the place of this one. The disk must not be in a host that runs: see Host.SwapDrive.
func (d *Drive) Replace() { d.Identity = d.identity(d.Serial + " replaced") }

// Left is how many bytes on the disk are not zeros, whatever a host believes.
func (d *Drive) Left() int64 { return d.d.left() }

// readTable is what a kernel does with a disk that it finds: without a table it has no partitions.
func (d *Drive) readTable() {
	if (section{d.d, 0, d.Bytes}).signature().table == "" {
		d.parts = nil
	}
}

func (c DiskConfig) nvme() bool   { return strings.HasPrefix(c.Name, "nvme") }
func (c DiskConfig) virtio() bool { return strings.HasPrefix(c.Name, "vd") }

func (c DiskConfig) device() string { return "/dev/" + c.Name }

func (c DiskConfig) partName(n int) string {
	if last := c.Name[len(c.Name)-1]; last >= '0' && last <= '9' {
		return fmt.Sprintf("%sp%d", c.Name, n)
	}
	return fmt.Sprintf("%s%d", c.Name, n)
}

func (c DiskConfig) partDevice(n int) string { return "/dev/" + c.partName(n) }

// number is major:minor of a disk (part 0) or of one of its partitions.
func (c DiskConfig) number(disk, part int) string {
	major := 8
	switch {
	case c.nvme():
		major = 259
	case c.virtio():
		major = 252
	}
	return fmt.Sprintf("%d:%d", major, disk*16+part)
}

// sysPath is where the kernel puts the disk; its words tell how it is attached.
func (c DiskConfig) sysPath(i int) string {
	switch {
	case c.USB:
		return fmt.Sprintf("/sys/devices/pci0000:00/0000:00:14.0/usb2/2-%d/2-%d:1.0/host%d/target%d:0:0/%d:0:0:0/block/%s", i+1, i+1, i+6, i+6, i+6, c.Name)
	case c.nvme() && c.Remote:
		return fmt.Sprintf("/sys/devices/virtual/nvme-fabrics/ctl/%s/%s", c.Name[:strings.LastIndexByte(c.Name, 'n')], c.Name)
	case c.nvme():
		return fmt.Sprintf("/sys/devices/pci0000:00/0000:00:1d.%d/0000:0%d:00.0/nvme/%s/%s", i, i+1, c.Name[:strings.LastIndexByte(c.Name, 'n')], c.Name)
	case c.virtio():
		return fmt.Sprintf("/sys/devices/pci0000:00/0000:00:0%d.0/virtio%d/block/%s", i+4, i, c.Name)
	case c.Remote:
		return fmt.Sprintf("/sys/devices/platform/host%d/session%d/target%d:0:0/%d:0:0:0/block/%s", i+6, i+1, i+6, i+6, c.Name)
	}
	return fmt.Sprintf("/sys/devices/pci0000:00/0000:00:1f.2/ata%d/host%d/target%d:0:0/%d:0:0:0/block/%s", i+1, i, i, i, c.Name)
}

// diskFiles makes the device nodes of a disk, and what /sys and udev say of it.
func (h *Host) diskFiles(i int) {
	d := h.disks[i]
	put := func(p string, n *node) {
		n.volatile = true
		h.fs.put(p, n)
	}
	link := func(p, target string) { put(p, &node{mode: fs.ModeSymlink | 0o777, data: []byte(target)}) }
	text := func(p, s string) { put(p, &node{mode: 0o444, data: []byte(s)}) }
	known := func(p, s string) {
		if s != "" {
			text(p, s+"\n")
		}
	}
	base := d.sysPath(i)
	text(base+"/size", fmt.Sprintf("%d\n", d.Bytes/sectorSize))
	text(base+"/removable", bit(d.Removable))
	text(base+"/ro", bit(d.ReadOnly))
	text(base+"/hidden", "0\n")
	text(base+"/dev", d.number(i, 0)+"\n")
	text(base+"/queue/rotational", bit(d.Rotational))
	text(base+"/queue/logical_block_size", "512\n")
	text(base+"/queue/discard_max_bytes", map[bool]string{true: "2147450880\n", false: "0\n"}[d.discards()])
	switch {
	case d.nvme():
		link(base+"/device", "../../"+path.Base(path.Dir(base)))
		known(base+"/wwid", d.WWN)
		known(path.Dir(base)+"/serial", fmt.Sprintf("%-20s", d.Serial))
		known(path.Dir(base)+"/model", fmt.Sprintf("%-40s", d.Model))
	case d.virtio():
		known(base+"/serial", d.Serial)
	default:
		scsi := path.Dir(path.Dir(base))
		link(base+"/device", "../../../"+path.Base(scsi))
		text(scsi+"/vendor", map[bool]string{true: "USB     \n", false: "ATA     \n"}[d.USB])
		known(scsi+"/model", fmt.Sprintf("%-16s", d.Model))
		known(scsi+"/wwid", d.WWN)
		if d.Serial != "" && !d.USB { // a stick's serial number is known to the USB subsystem only
			put(scsi+"/vpd_pg80", &node{mode: 0o444, data: fmt.Appendf(nil, "\x00\x80\x00\x14%20s", d.Serial)})
		}
	}
	link("/sys/block/"+d.Name, relative("/sys/block", base))
	put(d.device(), &node{mode: fs.ModeDevice | 0o660, block: &section{d.d, 0, d.Bytes}})
	h.blockLinks(link, base, d.number(i, 0))
	h.udev(i, partition{}, section{d.d, 0, d.Bytes})
	h.partitionFiles(i)
}

// discards is true for disks that can forget blocks.
func (c DiskConfig) discards() bool { return !c.Rotational && !c.USB && !c.Remote }

// udev makes the entry of a disk, or a partition, in udev's database. What is on the
// device is looked up when it is read: udev looks again whenever somebody has written.
func (h *Host) udev(i int, p partition, s section) {
	if h.sys.profile.small() {
		return
	}
	d := h.disks[i]
	id := d.Identity
	h.fs.put("/run/udev/data/b"+d.number(i, p.Number), &node{mode: 0o644, volatile: true, gen: func() []byte {
		var b strings.Builder
		say := func(name, value string) {
			if value != "" {
				fmt.Fprintf(&b, "E:%s=%s\n", name, value)
			}
		}
		b.WriteString("I:1000000\n")
		model := strings.ReplaceAll(id.Model, " ", "_")
		say("ID_MODEL", model)
		say("ID_SERIAL", strings.Trim(model+"_"+id.Serial, "_"))
		say("ID_SERIAL_SHORT", id.Serial)
		wwn := id.WWN
		if naa, ok := strings.CutPrefix(wwn, "naa."); ok {
			wwn = "0x" + naa
			say("ID_WWN_WITH_EXTENSION", wwn)
		}
		say("ID_WWN", wwn)
		disk := section{d.d, 0, d.Bytes}
		say("ID_PART_TABLE_TYPE", disk.signature().table)
		if p.Number > 0 {
			say("ID_PART_ENTRY_NUMBER", fmt.Sprint(p.Number))
		}
		sig := s.signature()
		say("ID_FS_TYPE", sig.kind)
		say("ID_FS_UUID", sig.uuid)
		say("ID_FS_LABEL", sig.label)
		b.WriteString("G:systemd\nQ:systemd\nV:1\n")
		return []byte(b.String())
	}})
}

// SwapDrive puts another disk of the same kind, with another identity and the same
// contents, in the place of the one with this name. It reports whether there is one.
func (h *Host) SwapDrive(name string) bool {
	for i, d := range h.disks {
		if d.Name == name {
			h.fs.mu.Lock()
			d.Replace()
			h.fs.mu.Unlock()
			h.diskFiles(i)
			return true
		}
	}
	return false
}

// Drives are the disks of the host, which may go on in the machine's next one.
func (h *Host) Drives() []*Drive { return h.disks }
