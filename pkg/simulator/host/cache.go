package host

import (
	"path"
	"slices"
	"strings"
	"time"
)

// Wipe is a destructive write to a disk, as whoever stands beside the machine would
// have noted it.
type Wipe struct {
	MAC, HostName, Address string
	Device, Serial         string // of the disk: sda
	Program                string // dd, blkdiscard, wipefs, sgdisk, nvme, hdparm, mkfs.ext4, sfdisk; sh for a redirection
	Task                   string // Command.Task of the session
	At                     time.Time
	Bytes                  int64 // how much was written, of all writes of this program to this disk in this task
}

// maxWipes is how many writes a rack remembers at most.
const maxWipes = 20_000

// Wipes are all writes to disks by name (/dev/sda, /dev/sda1) since the rack exists, oldest
// first, those by one program, in one task, to one disk as one.
func (w *World) Wipes() []Wipe {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.wipes)
}

func (w *World) wiped(x Wipe) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.wipes) - 1; i >= max(0, len(w.wipes)-64); i-- {
		y := &w.wipes[i]
		if y.MAC == x.MAC && y.HostName == x.HostName && y.Serial == x.Serial && y.Device == x.Device && y.Program == x.Program && y.Task == x.Task {
			y.Bytes += x.Bytes
			return
		}
	}
	if len(w.wipes) >= maxWipes {
		w.wipes = slices.Clone(w.wipes[maxWipes/2:])
	}
	w.wipes = append(w.wipes, x)
}

// driveOf is the disk that a device belongs to.
func (h *Host) driveOf(s section) (*Drive, int) {
	i := slices.IndexFunc(h.disks, func(d *Drive) bool { return d.d == s.d })
	if i < 0 {
		return nil, 0
	}
	return h.disks[i], i
}

// wrote notes that a program has written to a device, and does what the kernel does when
// the last one who had the disk open has closed it: it flushes the cache and drops it. As
// long as something is mounted from the disk, that is not the last one.
func (h *Host) wrote(ses *session, program string, s section, bytes int64) {
	d, i := h.driveOf(s)
	if d == nil {
		return
	}
	if bytes > 0 {
		h.world.wiped(Wipe{
			MAC: h.cfg.MAC, HostName: h.cfg.HostName, Address: h.cfg.Address, Device: d.Name, Serial: d.Serial,
			Program: path.Base(program), Task: ses.task, At: time.Now(), Bytes: bytes,
		})
	}
	if len(h.mountsOf(blockDevice{disk: i})) == 0 {
		_ = h.flush(s.d, 0, s.d.size) // nobody is there to be told
		s.d.forget(0, s.d.size)
	}
}

// flush brings a range of a disk's cache to the platters.
func (h *Host) flush(d *disk, from, to int64) error {
	if !d.dirty(from, to) {
		return nil
	}
	return d.flush(from, to, h.fate(d))
}

// erase has a disk empty a range by itself.
func (h *Host) erase(s section, off, length int64) error {
	return s.d.erase(s.off+off, min(length, s.length-off), h.fate(s.d))
}

// fate is what goes wrong on purpose with what is written to a disk now.
func (h *Host) fate(d *disk) *fate {
	drive, _ := h.driveOf(section{d: d})
	if drive == nil {
		return nil
	}
	t := h.trouble(StepDisk, drive.Name)
	if t == nil {
		return nil
	}
	return &fate{from: t.From, to: t.To, fails: !t.Lost}
}

// sync flushes all disks. File systems that are mounted for writing write their
// superblocks anew, whatever has been written over them meanwhile.
func (h *Host) sync() {
	h.fs.mu.Lock()
	mounts := h.mounts()
	h.fs.mu.Unlock()
	for _, line := range lines([]byte(mounts)) {
		f := strings.Fields(line)
		if f[2] != "ext4" || !strings.HasPrefix(f[3], "rw") {
			continue
		}
		h.fs.mu.Lock()
		n := h.fs.nodes[f[0]]
		live := n != nil && n.block != nil && !n.ro
		h.fs.mu.Unlock()
		if live {
			n.block.d.writeAt([]byte("\x53\xef"), n.block.off+extMagic)
		}
	}
	for _, d := range h.disks {
		_ = h.flush(d.d, 0, d.Bytes) // sync(2) tells nobody
	}
}

// dropCaches is a write to /proc/sys/vm/drop_caches.
func (h *Host) dropCaches([]byte) error {
	for _, d := range h.disks {
		d.d.forget(0, d.Bytes)
	}
	return nil
}

// cmdSync is sync, for everything or for files: then it reports what went wrong.
func cmdSync(c *call) int {
	_, files := options(c.args[1:])
	if len(files) == 0 {
		c.h.sync()
		return 0
	}
	status := 0
	for _, f := range files {
		if !c.h.fs.exists(c.path(f)) {
			status = c.fail(1, "error opening '%s': No such file or directory", f)
		} else if dev, ok := c.findDevice(f); ok {
			if err := c.h.flush(dev.d, 0, dev.d.size); err != nil {
				status = c.fail(1, "error syncing '%s': %s", f, errText(err))
			}
		}
	}
	return status
}
