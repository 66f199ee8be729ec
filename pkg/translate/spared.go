package translate

import (
	"cmp"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// Spared says why a disk that was not chosen stays as it is.
func Spared(d capi.Disk) string { return cmp.Or(untouchable(d), "not chosen") }

// WipeRefused reports whether a job ended before it wrote anything: another host answered,
// or the script refused a disk, which it does for all disks before it writes to one.
func WipeRefused(l wire.Log, job string) bool {
	if e, ok := entry(l, TaskName(taskErase, job)); ok {
		return strings.Contains(e.Entry, "capplunder-wipe-refused") || strings.Contains(e.Entry, "capplunder-stranger")
	}
	e, ok := entry(l, TaskName("guard", job))
	return ok && e.Error != ""
}

// Rebooted reports whether a job ended before it did anything because the host, which is
// the right one, has booted since it was looked at.
func Rebooted(l wire.Log, job string) bool {
	e, ok := entry(l, TaskName("guard", job))
	return ok && strings.Contains(e.Entry, "capplunder-stranger boot=")
}
