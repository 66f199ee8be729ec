package translate

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const taskErase = "wipe.erase"

const (
	// wipeHead and wipeEdge are what is overwritten at the beginning and the end of a
	// disk, and at both ends of a partition, in bytes: both copies of a GPT, boot code and
	// all signatures lie within.
	wipeHead = 16 << 20
	wipeEdge = 1 << 20
	// sectorBytes is the unit of sizes in /sys.
	sectorBytes = 512
)

var (
	deviceForm   = regexp.MustCompile(`^/dev/[a-zA-Z0-9/!_-]{1,64}$`)
	identityForm = regexp.MustCompile(`^[A-Za-z0-9._:+-]{1,128}$`)
)

// ErrESXi is why an ESXi host is never wiped.
var ErrESXi = errors.New("the machine runs ESXi, which cannot be wiped over SSH: it has no root shell of Linux, and its disks are in use; " +
	"wipe them with the maker's tool or from another system, then give the machine up with --force-remove")

// RefuseWipe says why a machine cannot be wiped at all, or nil. configType is the type of
// the boot configuration that it was installed with; f may be empty, if it was not asked yet.
func RefuseWipe(configType string, f Facts) error {
	if configType == "vsphere" || f.System == systemESXi {
		return ErrESXi
	}
	return nil
}

// Wipe destroys what is on the disks of an order, in its mode, reads back from the disks
// that it is gone, and only then arms a reset that fires after the order's delay, so that
// the SSH session ends cleanly. It refuses, before anything is destroyed: disks that are
// read-only, removable, on USB or remote; those whose size or identity is not the one
// given; and a mode that a disk, or the tools of the host, cannot do. A mode is never
// replaced by a weaker one.
func Wipe(job string, t Target, o WipeOrder) (wire.Map, error) {
	b := newMap(job, t)
	if len(o.Disks) == 0 {
		return wire.Map{}, errors.New("no disk to wipe")
	}
	mode, ok := eraseModes()[o.mode()]
	if !ok {
		return wire.Map{}, fmt.Errorf("no way to wipe is called %q", o.Mode)
	}
	var list []string
	for _, d := range o.inOrder() {
		b.match("disk", d.Device, deviceForm)
		if d.Bytes < wipeEdge || d.Bytes%sectorBytes != 0 {
			b.check(fmt.Errorf("disk %s has no size that a disk can have: %d bytes", d.Device, d.Bytes))
		}
		words := []string{d.Device, fmt.Sprint(d.Bytes)}
		for _, id := range identities(d) {
			b.match("identity of disk "+d.Device, id, identityForm)
			words = append(words, id)
		}
		list = append(list, strings.Join(words, ","))
	}
	unit, count := o.samples()
	b.sh(taskErase, o.Limit(), fmt.Sprintf("MODE=%s DISKS=\"%s\" HEAD=%d EDGE=%d UNIT=%d COUNT=%d SEED=%d DELAY=%d\n",
		o.mode(), strings.Join(list, " "), wipeHead, wipeEdge, unit, count, wipeSeed(job), int(o.Delay/time.Second))+
		"set -u; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C\n"+
		identityScript+eraseBegin+eraseChecks+mode.check+eraseArm+mode.erase+eraseProve)
	return b.done("wipe")
}

// identities are what a disk must still be known by on the host: its WWN and serial
// number, or for disks of older records the one ID they have; none for an anonymous disk.
func identities(d capi.Disk) []string {
	var ids []string
	for _, id := range []string{identity(d.WWN), identity(d.Serial)} {
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if id := identity(d.ID); ids == nil && id != "" && id != "-" {
		ids = append(ids, id)
	}
	return ids
}

// mode is the mode of an order, quick if none is given.
func (o WipeOrder) mode() capi.WipeMode { return cmp.Or(o.Mode, capi.WipeQuick) }

// inOrder are the disks as they are wiped: those with the system last, because the
// programs that wipe are on them.
func (o WipeOrder) inOrder() []capi.Disk {
	disks := slices.Clone(o.Disks)
	slices.SortStableFunc(disks, func(a, b capi.Disk) int {
		last := map[bool]int{true: 1}
		return last[a.Has("root")] - last[b.Has("root")]
	})
	return disks
}

// samples are the size of the ranges at random places that are read back, in bytes, and
// how many of them there are on each disk.
func (o WipeOrder) samples() (unit int64, count int) {
	if o.mode() == capi.WipeQuick {
		return 64 << 10, 8
	}
	return 1 << 20, 16
}

// wipeSeed is where the random places of a job's disks begin, below 2^31. Whoever reads
// the proof computes the same ones.
func wipeSeed(job string) int64 {
	sum := sha256.Sum256([]byte(job))
	return int64(binary.BigEndian.Uint32(sum[:]) >> 1)
}
