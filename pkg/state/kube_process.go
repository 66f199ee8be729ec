package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// process tells a process from all others that run or ran on the same computer. It is
// empty where there is no Linux /proc to ask.
type process struct {
	// Boot is /proc/sys/kernel/random/boot_id: one start of one computer's kernel.
	Boot string `json:"boot,omitempty"`
	// PIDNamespace is the one in which the process ID counts, as /proc/self/ns/pid has it.
	PIDNamespace string `json:"pidNamespace,omitempty"`
	// Started is when the process began, in clock ticks after the kernel's start
	// (field 22 of /proc/<pid>/stat): process IDs are used again.
	Started string `json:"started,omitempty"`
}

// liveness of a process.
type liveness int

const (
	processUnknown liveness = iota // of another computer, or there is no telling
	processRuns
	processGone
)

// processOf describes the process of this computer with this ID.
func processOf(pid int) process {
	here, ok := thisKernel()
	if !ok {
		return process{}
	}
	_, started, err := processStat(pid)
	if err != nil {
		return process{}
	}
	here.Started = started
	return here
}

// thisKernel is what processes that this one can see have in common.
func thisKernel() (process, bool) {
	boot, err1 := os.ReadFile("/proc/sys/kernel/random/boot_id")
	namespace, err2 := os.Readlink("/proc/self/ns/pid")
	// In a container that was given the /proc of its host, IDs mean something else.
	self, err3 := os.Readlink("/proc/self")
	if err1 != nil || err2 != nil || err3 != nil || self != strconv.Itoa(os.Getpid()) {
		return process{}, false
	}
	return process{Boot: strings.TrimSpace(string(boot)), PIDNamespace: namespace}, true
}

// look tells whether the process still runs. It is only known of processes under the
// same kernel whose IDs we see as they do.
func (p process) look(pid int) liveness {
	here, ok := thisKernel()
	if !ok || pid <= 0 || p.Started == "" || p.Boot != here.Boot || p.PIDNamespace != here.PIDNamespace {
		return processUnknown
	}
	// That a process has no directory in /proc proves nothing: the mount option hidepid
	// hides other users' processes. A signal does: it is refused, but not lost.
	found, err := os.FindProcess(pid)
	if err == nil {
		err = found.Signal(syscall.Signal(0))
		_ = found.Release()
	}
	if errors.Is(err, os.ErrProcessDone) {
		return processGone
	}
	state, started, err := processStat(pid)
	switch {
	case err != nil:
		return processUnknown
	case started != p.Started, state == "Z", state == "X": // another one; or dead, but nobody asked for its exit code
		return processGone
	default:
		return processRuns
	}
}

// processStat reads the state ("R", "S", "Z", ...) and the start time of a process
// (proc(5): fields 3 and 22; field 2 may hold anything, and ends with the last ")").
func processStat(pid int) (state, started string, err error) {
	const fieldState, fieldStarted = 3, 22
	path := filepath.Join("/proc", strconv.Itoa(pid), "stat")
	data, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) <= fieldStarted-fieldState {
		return "", "", fmt.Errorf("%s: not as expected", path)
	}
	return fields[0], fields[fieldStarted-fieldState], nil
}
