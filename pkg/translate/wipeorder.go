package translate

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// WipeOrder says what is to be wiped, and how.
type WipeOrder struct {
	Disks []capi.Disk
	Mode  capi.WipeMode // "" means quick
	// Delay is the time between the proof and the reset, so that the SSH session ends
	// cleanly; whole seconds.
	Delay time.Duration
}

// ChooseDisks says which of the disks that a host has now (seen) a choice means:
// capi.DisksInstalled (or ""), capi.DisksAllInternal or a device. recorded are those
// that it had when its system was installed, nil when that is not on record. The disks
// that hold the system now are always among them, and must be recorded ones that held
// it then; a device must be the recorded disk of that name, if there was one. What is
// read-only, removable, on USB or remote is never chosen: an error when it is named or
// holds the system.
func ChooseDisks(choice string, seen, recorded []capi.Disk) ([]capi.Disk, error) {
	var chosen []capi.Disk
	for _, d := range seen {
		if d.Has("root") {
			chosen = append(chosen, d)
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("the host does not say which disk holds its root file system")
	}
	for _, d := range chosen {
		if len(recorded) > 0 && !slices.ContainsFunc(recorded, func(r capi.Disk) bool { return r.Has("root") && r.Same(d) }) {
			return nil, fmt.Errorf("disk %s (%d bytes) is not the one that the system was installed on, which was %s", d.Name(), d.Bytes, rootNames(recorded))
		}
	}
	switch choice {
	case "", capi.DisksInstalled:
	case capi.DisksAllInternal:
		for _, d := range seen {
			if !d.Has("root") && untouchable(d) == "" {
				chosen = append(chosen, d)
			}
		}
	default:
		i := slices.IndexFunc(seen, func(d capi.Disk) bool { return d.Device == choice })
		if i < 0 {
			return nil, fmt.Errorf("the host has no disk %s", choice)
		}
		d := seen[i]
		if j := slices.IndexFunc(recorded, func(r capi.Disk) bool { return r.Device == choice }); j >= 0 && !recorded[j].Same(d) {
			return nil, fmt.Errorf("%s is not the disk that had this name when the system was installed (%s)", d.Name(), recorded[j].Name())
		}
		if !d.Has("root") {
			chosen = append(chosen, d)
		}
	}
	for _, d := range chosen {
		if why := untouchable(d); why != "" {
			return nil, fmt.Errorf("disk %s is %s, and such disks are never wiped", d.Name(), why)
		}
	}
	return chosen, nil
}

// untouchable says why a disk is never wiped, or "".
func untouchable(d capi.Disk) string {
	switch {
	case d.Has("ro"):
		return "read-only"
	case d.Has("usb"):
		return "on USB"
	case d.Has("removable"):
		return "removable"
	case d.Has("remote"):
		return "remote"
	}
	return ""
}

func rootNames(disks []capi.Disk) string {
	var names []string
	for _, d := range disks {
		if d.Has("root") {
			names = append(names, d.Name())
		}
	}
	return strings.Join(names, ", ")
}

const (
	// slowestDisk is how fast a disk is written at least, in bytes a second.
	slowestDisk = 30 << 20
	// slowestDiscard is how much a disk discards in a second at least, in bytes.
	slowestDiscard = 1 << 30
)

// Limit is how long the wipe may take on the host.
func (o WipeOrder) Limit() time.Duration {
	var size int64
	for _, d := range o.Disks {
		size += d.Bytes
	}
	limit := 10 * time.Minute
	switch o.Mode {
	case capi.WipeZero, capi.WipeSecure: // ATA security erase writes every block, too
		limit += time.Duration(size/slowestDisk) * time.Second
	case capi.WipeDiscard:
		limit += time.Duration(size/slowestDiscard) * time.Second
	case capi.WipeQuick:
	}
	return limit
}
