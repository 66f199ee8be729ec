package kubetest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// reaper ends the processes of one server when the tests are gone, whichever way they
// went: a panic and SIGKILL leave a program no time to clean up after itself. It is a
// shell that reads a pipe which only the test binary holds open, and kills what is
// written down in the folder when the pipe closes.
//
// envtest keeps the process IDs of what it starts to itself, hence the wrappers: each
// writes its own ID down and becomes the real program.
type reaper struct {
	dir   string
	shell *exec.Cmd
	pipe  io.Closer
}

// The folder is moved away first: a wrapper that comes to write later finds no place for
// its ID, and gives up.
const reaperScript = `
cat >/dev/null
mv "$1" "$1.gone"
for f in "$1.gone"/*.pid; do
	if [ -e "$f" ]; then kill -9 "$(cat "$f")" 2>/dev/null; fi
done
rm -rf "$1.gone"
`

func startReaper(dir string) (*reaper, error) {
	shell := exec.Command("/bin/sh", "-c", reaperScript, "kubetest-reaper", dir) // it outlives every context of the tests
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}                      // Ctrl-C is for the tests
	pipe, err := shell.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := shell.Start(); err != nil {
		return nil, err
	}
	return &reaper{dir: dir, shell: shell, pipe: pipe}, nil
}

// wrap is the path of a program that writes its process ID down and becomes binary.
func (r *reaper) wrap(name, binary string) (string, error) {
	path := filepath.Join(r.dir, name)
	script := fmt.Sprintf("#!/bin/sh\nset -e\necho $$ >'%s'\nexec '%s' \"$@\"\n", r.pidFile(name), binary)
	return path, os.WriteFile(path, []byte(script), 0o700)
}

func (r *reaper) pidFile(name string) string { return filepath.Join(r.dir, name+".pid") }

func (r *reaper) signal(name string, signal syscall.Signal) error {
	text, err := os.ReadFile(r.pidFile(name))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	return syscall.Kill(pid, signal)
}

// kill ends a process at once; one that never started or is gone is fine.
func (r *reaper) kill(name string) error {
	return ignoreGone(r.signal(name, syscall.SIGKILL))
}

// ignoreGone drops the error of a signal to a process that is gone, or never was.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// stop ends the reaper itself, which then removes the folder.
func (r *reaper) stop() error {
	return errors.Join(r.pipe.Close(), r.shell.Wait())
}
