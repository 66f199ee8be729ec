package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// simulatedDisk is the form of --disk: the kernel's name, which says how the disk is
// attached, and its size.
var simulatedDisk = regexp.MustCompile(`^(sd[a-z]|vd[a-z]|nvme[0-9]n1)=([1-9][0-9]{0,5})([MGT])$`)

// diskTraits are what else --disk can say of a disk.
func diskTraits() []string {
	return []string{"rotational", "removable", "usb", "remote", "read-only", "blank", "anonymous", "frozen", "no-erase"}
}

// parseDisk reads "sdb=2T,rotational": sizes are decimal, as manufacturers have them.
func parseDisk(text string) (host.DiskConfig, error) {
	words := strings.Split(text, ",")
	m := simulatedDisk.FindStringSubmatch(words[0])
	if m == nil {
		return host.DiskConfig{}, usagef(nil, "--disk %q: want NAME=SIZE[,TRAIT...], as sdb=2T,rotational or nvme0n1=960G", text)
	}
	n, err := strconv.ParseInt(m[2], 10, 64)
	if err != nil {
		return host.DiskConfig{}, fmt.Errorf("--disk %q: %w", text, err)
	}
	unit := map[string]int64{"M": 1e6, "G": 1e9, "T": 1e12}[m[3]]
	d := host.DiskConfig{Name: m[1], Bytes: n * unit / 4096 * 4096}
	for _, trait := range words[1:] {
		switch trait {
		case "rotational":
			d.Rotational = true
		case "removable":
			d.Removable = true
		case "usb":
			d.USB = true
		case "remote":
			d.Remote = true
		case "read-only":
			d.ReadOnly = true
		case "blank":
			d.Blank = true
		case "anonymous":
			d.Anonymous = true
		case "frozen":
			d.Frozen = true
		case "no-erase":
			d.NoErase = true
		default:
			return d, usagef(nil, "--disk %q: there is no trait %q; there are %s", text, trait, strings.Join(diskTraits(), ", "))
		}
	}
	return d, nil
}

// parseDisks reads all of them; the system is installed on the first.
func parseDisks(texts []string) ([]host.DiskConfig, error) {
	var disks []host.DiskConfig
	for _, text := range texts {
		d, err := parseDisk(text)
		switch {
		case err != nil:
			return nil, err
		case slices.ContainsFunc(disks, func(o host.DiskConfig) bool { return o.Name == d.Name }):
			return nil, usagef(nil, "--disk %s is given twice", d.Name)
		case len(disks) == 0 && (d.Removable || d.USB || d.Remote || d.ReadOnly):
			return nil, usagef(nil, "--disk %q: the first one gets the system, and must be internal and writable", text)
		case len(disks) == 0 && d.Bytes < smallestSystem:
			return nil, usagef(nil, "--disk %q: the first one gets the system, which needs 8G", text)
		}
		disks = append(disks, d)
	}
	return disks, nil
}

// smallestSystem is what a disk needs that gets a system, in bytes.
const smallestSystem = 8_000_000_000 / 4096 * 4096
