package host

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// device finds a block device among operands.
func (c *call) device(args []string) (section, int) {
	if len(args) == 0 {
		return section{}, c.fail(1, "no device specified")
	}
	name := args[len(args)-1]
	c.h.fs.mu.Lock()
	n, _, err := c.h.fs.get(c.path(name), true)
	c.h.fs.mu.Unlock()
	switch {
	case err != nil:
		return section{}, c.fail(1, "cannot open %s: %s", name, errText(err))
	case n.block == nil:
		return section{}, c.fail(1, "%s: not a block device", name)
	case !c.who().allowed(n, 6):
		return section{}, c.fail(1, "cannot open %s: Permission denied", name)
	}
	return *n.block, 0
}

// writable is device for programs that write.
func (c *call) writable(args []string) (section, int) {
	s, status := c.device(args)
	if status != 0 {
		return s, status
	}
	name := args[len(args)-1]
	c.h.fs.mu.Lock()
	n, _, err := c.h.fs.get(c.path(name), true)
	ro := err == nil && n.ro
	c.h.fs.mu.Unlock()
	if ro || s.d.ro {
		return s, c.fail(1, "cannot open %s: Read-only file system", name)
	}
	return s, 0
}

// clear makes a range of a device zeros.
func (s section) clear(off, length int64) { s.d.zero(s.off+off, min(length, s.length-off)) }

// cmdWipefs removes signatures with -a, and lists them otherwise.
func cmdWipefs(c *call) int {
	flags, args := options(c.args[1:], "-o", "--offset", "-t", "--types", "-O", "--output")
	if has(flags, "--version", "-V") {
		c.printf("wipefs from util-linux 2.39.3\n")
		return 0
	}
	s, status := c.device(args)
	if status != 0 {
		return status
	}
	dev, known := c.findDevice(args[len(args)-1])
	if !has(flags, "-a", "--all") {
		for _, kind := range []string{s.signature().table, s.signature().kind} {
			if kind != "" {
				c.printf("%s 0x0 %s %s %s\n", path.Base(dev.name), kind, s.signature().uuid, s.signature().label)
			}
		}
		return 0
	}
	if _, status := c.writable(args); status != 0 {
		return status
	}
	busy := known && len(c.h.mountsOf(dev)) > 0
	if busy && !has(flags, "-f", "--force") {
		return c.fail(1, "error: %s: probing initialization failed: Device or resource busy", dev.name)
	}
	for _, magic := range []struct{ off, length int64 }{{0, 8}, {tableMagic, 2}, {gptMagic, 8}, {extMagic, 2}, {swapMagic, 10}, {raidMagic, 4}, {s.length - sectorSize, 8}} {
		s.clear(magic.off, magic.length)
	}
	c.h.wrote(c.ses, c.args[0], s, 8)
	if known && dev.part == 0 && !busy {
		c.h.repartition(dev.disk, nil) // it reads the table again
	}
	return 0
}

func cmdSgdisk(c *call) int {
	flags, args := options(c.args[1:])
	if has(flags, "--version", "-V") {
		c.printf("GPT fdisk (sgdisk) version 1.0.10\n")
		return 0
	}
	s, status := c.writable(args)
	if status == 0 && has(flags, "--zap-all", "-Z") {
		s.clear(0, 34*sectorSize)
		s.clear(s.length-33*sectorSize, 33*sectorSize)
		return c.written(s, 67*sectorSize)
	}
	return status
}

func cmdBlkdiscard(c *call) int {
	flags, args := options(c.args[1:], "-o", "--offset", "-l", "--length", "-p", "--step")
	if has(flags, "--version", "-V") {
		c.printf("blkdiscard from util-linux 2.39.3\n")
		return 0
	}
	s, status := c.writable(args)
	if status != 0 {
		return status
	}
	name := args[len(args)-1]
	off, ok1 := size(cmp.Or(value(flags, "-o", "--offset"), "0"))
	length, ok2 := size(cmp.Or(value(flags, "-l", "--length"), fmt.Sprint(s.length-off)))
	dev, known := c.findDevice(name)
	drive, _ := c.h.driveOf(s)
	switch {
	case !ok1 || !ok2 || off > s.length:
		return c.fail(1, "%s: offset is greater than device size", name)
	case known && len(c.h.mountsOf(dev)) > 0 && !has(flags, "-f", "--force"):
		return c.fail(1, "cannot open %s: Device or resource busy", name)
	case has(flags, "-s", "--secure"):
		return c.fail(1, "%s: BLKSECDISCARD ioctl failed: Operation not supported", name)
	case !has(flags, "-z", "--zeroout") && (drive == nil || !drive.discards()):
		return c.fail(1, "%s: BLKDISCARD ioctl failed: Operation not supported", name)
	}
	err := c.h.erase(s, off, length)
	c.h.wrote(c.ses, c.args[0], s, length)
	if err != nil {
		return c.fail(1, "%s: BLKDISCARD ioctl failed: %s", name, errText(err))
	}
	if has(flags, "-v", "--verbose") {
		c.printf("%s: Discarded %d bytes from the offset %d\n", name, length, off)
	}
	return 0
}

func cmdBlockdev(c *call) int {
	flags, args := options(c.args[1:])
	if has(flags, "--version", "-V") {
		c.printf("blockdev from util-linux 2.39.3\n")
		return 0
	}
	s, status := c.device(args)
	if status != 0 {
		return status
	}
	dev, known := c.findDevice(args[len(args)-1])
	for _, a := range c.args[1:] { // in their order
		switch a {
		case "--getsize64":
			c.printf("%d\n", s.length)
		case "--getsz":
			c.printf("%d\n", s.length/sectorSize)
		case "--getss", "--getpbsz":
			c.printf("%d\n", sectorSize)
		case "--getro":
			b, _ := c.read(path.Join("/sys/class/block", path.Base(dev.name), "ro"))
			c.printf("%s", b)
		case "--setro", "--setrw":
			if !c.root() {
				return c.fail(1, "ioctl error on BLKROSET: Permission denied")
			}
			if known {
				c.h.setReadOnly(dev, a == "--setro")
			}
		case "--flushbufs":
			err := c.h.flush(s.d, s.off, s.off+s.length)
			s.d.forget(s.off, s.off+s.length)
			if err != nil {
				return c.fail(1, "ioctl error on BLKFLSBUF: %s", errText(err))
			}
		case "--rereadpt":
			if len(c.h.mountsOf(dev)) > 0 {
				return c.fail(1, "ioctl error on BLKRRPART: Device or resource busy")
			}
			if known && s.signature().table == "" {
				c.h.repartition(dev.disk, nil)
			}
		}
	}
	return 0
}

// setReadOnly has the kernel refuse writes through a device, until the next boot.
func (h *Host) setReadOnly(dev blockDevice, ro bool) {
	file := path.Join(h.disks[dev.disk].sysPath(dev.disk), "ro")
	if dev.part > 0 {
		file = path.Join(path.Dir(file), path.Base(dev.name), "ro")
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if n := h.fs.nodes[dev.name]; n != nil {
		n.ro = ro
	}
	if n := h.fs.nodes[file]; n != nil {
		n.data = []byte(bit(ro || dev.d.ro))
	}
}

// ata reports whether a disk knows the security commands of ATA.
func (d *Drive) ata() bool {
	return !d.nvme() && !d.virtio() && !d.USB && !d.Remote && !d.NoErase && !d.Anonymous
}

// secured is whose password an ATA disk has: the hash of it, "" for none.
func hashed(password string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(password))) }

// cmdHdparm identifies an ATA disk (-I) and has it erase itself.
func cmdHdparm(c *call) int {
	// Options that take a value have it as a word of its own.
	withValue := []string{"--user-master", "--security-mode", "--security-set-pass", "--security-erase", "--security-erase-enhanced", "--security-disable", "--security-unlock"}
	flags, args := options(c.args[1:], withValue...)
	if has(flags, "-V", "--version") {
		c.printf("hdparm v9.65\n")
		return 0
	}
	s, status := c.device(args)
	if status != 0 {
		return 2
	}
	d, _ := c.h.driveOf(s)
	name := args[len(args)-1]
	c.printf("\n%s:\n", name)
	if d == nil || d.nvme() || d.virtio() || d.USB || d.Remote || s.length != d.Bytes {
		return c.ioctl(25, " HDIO_DRIVE_CMD(identify) failed: Inappropriate ioctl for device")
	}
	c.h.mu.Lock()
	password := d.password
	c.h.mu.Unlock()
	refused := !d.ata() || d.Frozen
	set := func(p string) {
		c.h.mu.Lock()
		defer c.h.mu.Unlock()
		d.password = p
	}
	for _, f := range withValue[2:] {
		given := value(flags, f)
		if !has(flags, f) {
			continue
		}
		c.printf(" Issuing %s command, password=%q, user=user\n", strings.ToUpper(strings.ReplaceAll(f[2:], "-", "_")), given)
		wrong := f != withValue[2] && (password == "" || password != hashed(given))
		if refused || wrong {
			return c.ioctl(5, strings.ToUpper(strings.ReplaceAll(f[2:], "-", "_"))+": Input/output error")
		}
		switch f {
		case "--security-set-pass":
			set(hashed(given))
		case "--security-disable":
			set("")
		case "--security-erase", "--security-erase-enhanced":
			err := c.h.erase(s, 0, s.length)
			c.h.wrote(c.ses, c.args[0], s, s.length)
			if err != nil {
				return c.ioctl(5, "SECURITY_ERASE: Input/output error")
			}
			set("")
		}
	}
	if has(flags, "-I") {
		c.identify(d, password)
	}
	return 0
}

// ioctl is a complaint without the name of the program.
func (c *call) ioctl(status int, text string) int {
	c.errf("%s", text)
	return status
}

// identify prints what hdparm -I does, as far as it matters for erasing.
func (c *call) identify(d *Drive, password string) {
	kind := "non-removable media"
	c.printf("\nATA device, with %s\n\tModel Number:       %-40s\n\tSerial Number:      %-20s\n\tFirmware Revision:  SIM1\n", kind, d.Model, d.Serial)
	if !d.ata() {
		return
	}
	not := func(is bool) string { return map[bool]string{true: "\t", false: "not\t"}[is] }
	c.printf("Security: \n\tMaster password revision code = 65534\n\t\tsupported\n\t%senabled\n\tnot\tlocked\n\t%sfrozen\n\tnot\texpired: security count\n\t\tsupported: enhanced erase\n"+
		"\t2min for SECURITY ERASE UNIT. 2min for ENHANCED SECURITY ERASE UNIT.\n", not(password != ""), not(d.Frozen))
	c.printf("Logical Unit WWN Device Identifier: %s\n", strings.TrimPrefix(d.WWN, "naa."))
}

// formatPause is how long nvme format waits for somebody to think again.
const formatPause = 10 * time.Second

// cmdNvme is nvme id-ctrl, id-ns, list and format.
func cmdNvme(c *call) int {
	if len(c.args) < 2 || slices.Contains([]string{"version", "--version"}, c.args[1]) {
		c.printf("nvme version 2.8\n")
		return 0
	}
	flags, args := options(c.args[2:], "-s", "--ses", "-l", "--lbaf", "-n", "--namespace-id", "-o", "--output-format", "-t", "--timeout")
	s, status := c.device(args)
	if status != 0 {
		return status
	}
	d, _ := c.h.driveOf(s)
	if d == nil || !d.nvme() || d.Remote {
		return c.ioctl(1, "identify controller: Inappropriate ioctl for device")
	}
	oacs := "0x17"
	if d.NoErase {
		oacs = "0x15" // without format
	}
	switch c.args[1] {
	case "id-ctrl":
		c.printf("NVME Identify Controller:\nvid       : 0x1234\nsn        : %-20s\nmn        : %-40s\nfr        : SIM1    \noacs      : %s\nfna       : 0x4\n", d.Serial, d.Model, oacs)
	case "id-ns":
		c.printf("NVME Identify Namespace 1:\nnsze    : %#x\nlbaf  0 : ms:0   lbads:9  rp:0 (in use)\n", d.Bytes/sectorSize)
	case "format":
		if d.NoErase {
			return c.ioctl(1, "NVMe status: Invalid Command Opcode: The associated command opcode field is not valid(0x4001)")
		}
		if ses := cmp.Or(value(flags, "-s", "--ses"), "0"); !slices.Contains([]string{"0", "1", "2"}, ses) {
			return c.ioctl(1, "invalid secure erase settings:"+ses)
		}
		if !has(flags, "-f", "--force") {
			c.errf("You are about to format %s, namespace 0x1.\nWARNING: Format may irrevocably delete this device's data.\nYou have 10 seconds to press Ctrl-C to cancel this operation.", d.Name)
			if !c.spend(formatPause) {
				return 1
			}
		}
		err := c.h.erase(section{s.d, 0, d.Bytes}, 0, d.Bytes)
		c.h.wrote(c.ses, c.args[0], s, d.Bytes)
		if err != nil {
			return c.ioctl(1, "NVMe status: Internal Error: The command was not completed successfully due to an internal error(0x6)")
		}
		c.printf("Success formatting namespace:1\n")
	default:
		return c.fail(1, "ERROR: Invalid sub-command '%s' for global device plugin", c.args[1])
	}
	return 0
}
