package host

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// cmdBlkid says what is on devices.
func cmdBlkid(c *call) int {
	flags, args := options(c.args[1:], "-o", "-s", "-t", "-L", "-U", "-c", "-n", "-u")
	const nothing = 2
	if has(flags, "-p") && len(args) == 0 {
		return c.fail(4, "The low-level probing mode requires a device")
	}
	all := c.h.blockDevices()
	if len(args) > 0 {
		all = nil
		for _, a := range args {
			dev, ok := c.findDevice(a)
			switch {
			case ok && c.h.fs.access(c.who(), dev.name, 4) == nil:
				all = append(all, dev)
			case has(flags, "-p"):
				c.errf("blkid: error: %s: %s", a, map[bool]string{true: "Permission denied", false: "No such file or directory"}[ok])
			}
		}
	}
	if l := value(flags, "-L"); l != "" {
		dev, ok := c.findDevice("LABEL=" + l)
		if !ok {
			return nothing
		}
		c.printf("%s\n", dev.name)
		return 0
	}
	found := nothing
	for _, dev := range all {
		s := dev.signature()
		var fields []string
		for _, f := range []struct{ name, value string }{{"LABEL", s.label}, {"UUID", s.uuid}, {"TYPE", s.kind}, {"PTTYPE", s.table}} {
			if f.value == "" || has(flags, "-s") && !slices.Contains(flags["-s"], f.name) {
				continue
			}
			switch value(flags, "-o") {
			case "value":
				fields = append(fields, f.value)
			case "export":
				fields = append(fields, f.name+"="+f.value)
			case "udev":
				fields = append(fields, map[string]string{"TYPE": "ID_FS_TYPE", "UUID": "ID_FS_UUID", "LABEL": "ID_FS_LABEL", "PTTYPE": "ID_PART_TABLE_TYPE"}[f.name]+"="+f.value)
			default:
				fields = append(fields, fmt.Sprintf("%s=%q", f.name, f.value))
			}
		}
		if len(fields) == 0 {
			continue
		}
		found = 0
		switch o := value(flags, "-o"); o {
		case "export":
			c.printf("DEVNAME=%s\n%s\n", dev.name, strings.Join(fields, "\n"))
		case "value", "udev":
			c.printf("%s\n", strings.Join(fields, "\n"))
		case "device":
			c.printf("%s\n", dev.name)
		default:
			c.printf("%s: %s\n", dev.name, strings.Join(fields, " "))
		}
	}
	return found
}

// cmdLsblk lists devices without its tree: -n, -r, -p, -b, -d and -o.
func cmdLsblk(c *call) int {
	flags, args := options(c.args[1:], "-o", "--output", "-e", "-I", "-x")
	all := c.h.blockDevices()
	if len(args) > 0 {
		all = nil
		for _, a := range args {
			dev, ok := c.findDevice(a)
			if !ok {
				return c.fail(32, "%s: not a block device", a)
			}
			all = append(all, dev)
			for _, x := range c.h.blockDevices() {
				if dev.part == 0 && x.disk == dev.disk && x.part > 0 {
					all = append(all, x)
				}
			}
		}
	}
	columns := strings.Split(cmp.Or(strings.ToUpper(value(flags, "-o", "--output")), "NAME,SIZE,TYPE,MOUNTPOINT"), ",")
	if !has(flags, "-n", "--noheadings") {
		c.printf("%s\n", strings.Join(columns, " "))
	}
	for _, dev := range all {
		if has(flags, "-d", "--nodeps") && dev.part > 0 {
			continue
		}
		var row []string
		for _, col := range columns {
			row = append(row, c.lsblkField(dev, col, has(flags, "-p", "--paths"), has(flags, "-b", "--bytes")))
		}
		if slices.Contains(row, "\x00") {
			return c.fail(1, "unknown column: %s", columns[slices.Index(row, "\x00")])
		}
		c.printf("%s\n", strings.Join(row, " "))
	}
	return 0
}

func (c *call) lsblkField(dev blockDevice, column string, paths, exact bool) string {
	s := dev.signature()
	switch column {
	case "NAME", "KNAME", "PATH":
		if paths || column == "PATH" {
			return dev.name
		}
		return path.Base(dev.name)
	case "SIZE":
		if exact {
			return strconv.FormatInt(dev.length, 10)
		}
		return fmt.Sprintf("%.1fG", float64(dev.length)/(1<<30))
	case "TYPE":
		return map[bool]string{true: "disk", false: "part"}[dev.part == 0]
	case "MOUNTPOINT", "MOUNTPOINTS":
		if dev.part == 0 {
			dev.part = -1 // what its partitions hold is their own
		}
		return strings.Join(c.h.mountsOf(dev), " ")
	case "FSTYPE":
		return s.kind
	case "LABEL":
		return s.label
	case "UUID":
		return s.uuid
	case "PTTYPE":
		return s.table
	case "RO":
		return strings.TrimSpace(bit(c.h.disks[dev.disk].ReadOnly))
	case "SERIAL", "MODEL", "WWN":
		if dev.part > 0 && column != "WWN" {
			return ""
		}
		id := c.h.disks[dev.disk].Identity
		return map[string]string{"SERIAL": id.Serial, "MODEL": strings.ReplaceAll(id.Model, " ", "_"), "WWN": strings.Replace(id.WWN, "naa.", "0x", 1)}[column]
	case "ROTA":
		return strings.TrimSpace(bit(c.h.disks[dev.disk].Rotational))
	case "RM":
		return strings.TrimSpace(bit(c.h.disks[dev.disk].Removable))
	}
	return "\x00"
}
