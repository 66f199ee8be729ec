package host

import (
	"slices"
	"strings"
	"testing"
)

func TestJournal(t *testing.T) {
	w := NewWorld()
	w.KeepJournals()
	h := newTestHost(t, func(c *Config) { c.World = w })
	long := strings.Repeat("x", 1000)
	run(t, h, `printf '%s' in-a-builtin >/dev/null; grep -q `+long+` /etc/hosts; sudo -n -u ubuntu id -un; umask 077; mkdir -p /root/d; echo in-a-file >/root/d/f`)
	j := h.Journal()
	for _, want := range []string{
		"grep -q " + long + " /etc/hosts",
		"sudo: root : PWD=/home/ubuntu ; USER=ubuntu ; COMMAND=/usr/bin/id -un",
	} {
		if !slices.Contains(j, want) {
			t.Errorf("%.80q is not in the journal of %d lines", want, len(j))
		}
	}
	if !slices.ContainsFunc(j, func(s string) bool {
		return strings.HasPrefix(s, "sudo: ubuntu : PWD=/home/ubuntu ; USER=root ; COMMAND=/usr/bin/bash -c printf")
	}) {
		t.Errorf("the whole script is what sudo logs: %.300q", j)
	}
	found := ""
	h.Files(func(path string, data []byte) {
		if strings.Contains(string(data), "in-a-file") {
			found = path
		}
		if strings.HasPrefix(path, "/proc") || strings.HasPrefix(path, "/dev/sd") {
			t.Errorf("%s is no ordinary file", path)
		}
	})
	if found != "/root/d/f" {
		t.Errorf("found %q", found)
	}
	if other := newTestHost(t); len(other.Journal()) > 0 {
		t.Errorf("nobody asked for a journal: %q", other.Journal())
	}
}
