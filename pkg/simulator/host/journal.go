package host

import (
	"bytes"
	"io/fs"
	"slices"
	"strings"
)

// KeepJournals has every host keep what was executed on it, in full: see Host.Journal.
// It costs memory, so that it is for tests only.
func (w *World) KeepJournals() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.journal = true
}

func (w *World) keepsJournals() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.journal
}

// Journal is what others on the host could have seen of the programs that ran: the
// arguments of each, as ps shows them, and the lines that sudo writes to the system's
// log. It is empty without World.KeepJournals.
func (h *Host) Journal() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.journal)
}

// note writes a line of the journal.
func (h *Host) note(parts ...string) {
	if !h.world.keepsJournals() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.journal = append(h.journal, strings.Join(parts, " "))
}

// noteSudo is the line that sudo logs for a command.
func (c *call) noteSudo(target string, args []string) {
	command := args[0]
	if p, err := c.look(command); err == nil {
		command = p
	}
	c.h.note("sudo:", c.user.name, ": PWD="+c.dir, "; USER="+target, "; COMMAND="+strings.Join(append([]string{command}, args[1:]...), " "))
}

// Files calls f with every ordinary file of the host and what is in it, by path. Files
// that the kernel makes up and the programs of the system are left out.
func (h *Host) Files(f func(path string, data []byte)) {
	type file struct {
		path string
		data []byte
	}
	var all []file
	h.fs.mu.Lock()
	for _, p := range h.fs.tree("/") {
		n := h.fs.nodes[p]
		kernel := strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/") || strings.HasPrefix(p, "/dev/") && n.mode&fs.ModeType != 0
		if kernel || n.mode&fs.ModeType != 0 || bytes.HasPrefix(n.data, []byte(binaryMagic)) {
			continue
		}
		all = append(all, file{p, slices.Clone(n.data)})
	}
	h.fs.mu.Unlock()
	for _, x := range all {
		f(x.path, x.data)
	}
}
