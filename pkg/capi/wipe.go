package capi

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Disk is a disk of a host, as seen over SSH. All fields are plain text, so that
// disks can be compared with ==; "" where the host does not say.
type Disk struct {
	Device string `json:"device"` // /dev/sda
	Bytes  int64  `json:"bytes"`
	ID     string `json:"id"`    // wwid or serial, "-" when the kernel knows none
	Flags  string `json:"flags"` // comma separated: root, mounted, usb, removable, ro, remote

	// WWN is the kernel's wwid (naa.5000…, eui.…, t10.…), Serial the vendor's serial
	// number. Spaces are underscores.
	WWN    string `json:"wwn,omitempty"`
	Serial string `json:"serial,omitempty"`
	Model  string `json:"model,omitempty"`

	// Mounts and Content are what was there at one look, for the people who decide about
	// a wipe: mount points, and signatures (gpt, ext4, LVM2_member), comma separated. They
	// are not recorded.
	Mounts  string `json:"mounts,omitempty"`
	Content string `json:"content,omitempty"`
}

// Identity is the disk without what changes from look to look, for the record.
func (d Disk) Identity() Disk {
	d.Mounts, d.Content = "", ""
	return d
}

// Has reports whether the disk has a flag.
func (d Disk) Has(flag string) bool { return slices.Contains(strings.Split(d.Flags, ","), flag) }

// Anonymous reports whether nothing tells the disk from another one of its size.
func (d Disk) Anonymous() bool {
	return (d.ID == "" || d.ID == "-") && d.WWN == "" && d.Serial == ""
}

// Same reports whether two looks saw the same disk: its size, and every identity that
// both looks know, of which there has to be one. Device names are no identity: they
// change from boot to boot. Two disks without any identity count as the same only if
// their device names agree.
func (d Disk) Same(o Disk) bool {
	if d.Bytes != o.Bytes {
		return false
	}
	known := 0
	for _, p := range [][2]string{{d.WWN, o.WWN}, {d.Serial, o.Serial}, {strings.Trim(d.ID, "-"), strings.Trim(o.ID, "-")}} {
		if p[0] == "" || p[1] == "" {
			continue
		}
		if p[0] != p[1] {
			return false
		}
		known++
	}
	return known > 0 || d.Anonymous() && o.Anonymous() && d.Device == o.Device
}

// Name is the disk for people: "/dev/sda (naa.5000c500a1b2c3d4)".
func (d Disk) Name() string {
	for _, id := range []string{d.WWN, d.Serial, d.ID} {
		if id != "" && id != "-" {
			return fmt.Sprintf("%s (%s)", d.Device, id)
		}
	}
	return d.Device
}

// WipeMode is how a disk is wiped.
type WipeMode string

// Wipe modes.
const (
	// WipeQuick destroys what makes a disk bootable and readable: its beginning and end,
	// both ends of every partition, all signatures.
	WipeQuick WipeMode = "quick"
	// WipeZero writes every byte.
	WipeZero WipeMode = "zero"
	// WipeDiscard has the device discard every block (blkdiscard), then does what quick does.
	WipeDiscard WipeMode = "discard"
	// WipeSecure has the device erase itself (NVMe format, ATA security erase), then does
	// what quick does.
	WipeSecure WipeMode = "secure"
)

// WipeModes are all of them.
func WipeModes() []WipeMode { return []WipeMode{WipeQuick, WipeZero, WipeDiscard, WipeSecure} }

// Which disks are wiped. Anything else is a device (/dev/sdb), beside those with the system.
const (
	DisksInstalled   = "installed"    // those that hold the root file system
	DisksAllInternal = "all-internal" // all that are neither removable, USB, remote nor read-only
)

// Sample is a range of a disk that was read back after a wipe.
type Sample struct {
	Offset int64  `json:"offset"` // bytes
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // hex
}

// WipedDisk is a disk that is to be wiped, or was.
type WipedDisk struct {
	Disk
	// Method is what was really done and proved, "" until then.
	Method  WipeMode `json:"method,omitempty"`
	Samples []Sample `json:"samples,omitempty"`
}

// Wipe is the wipe of a machine, on record from before it begins until the machine is
// forgotten.
type Wipe struct {
	Mode  WipeMode    `json:"mode,omitempty"`
	Disks []WipedDisk `json:"disks,omitempty"`
	// RunID names the run that posted it, By the person (user@host).
	RunID     string    `json:"runID,omitempty"`
	By        string    `json:"by,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	ProvedAt  time.Time `json:"provedAt,omitzero"`
}

// Clone is a copy that shares nothing.
func (w Wipe) Clone() Wipe {
	w.Disks = slices.Clone(w.Disks)
	for i := range w.Disks {
		w.Disks[i].Samples = slices.Clone(w.Disks[i].Samples)
	}
	return w
}
