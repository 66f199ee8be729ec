package translate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// bench runs scripts of probes and wipes in real shells, against a machine that consists of
// files: every path of /sys, /proc, /dev and /run in a script is replaced by one below
// dir, and every program that could do harm by one of dir/bin. Disks are files.
type bench struct {
	t       *testing.T
	dir     string
	shell   []string
	busybox bool
}

const (
	benchMAC  = "52:54:00:00:00:01"
	benchBoot = "922cd220-4a08-429d-bd0f-cef3a4e1a966"
)

// benchPrograms are what the machine has beside what a test adds, harmless all of them.
var benchPrograms = []string{"sh", "cat", "dd", "tr", "wc", "sleep", "mkfifo", "readlink", "grep", "sed", "sort", "basename", "mkdir", "rm", "timeout", "uname", "sha256sum"}

// onShells runs a test on every shell there is: bash and dash with the programs of this
// machine, busybox with its own.
func onShells(t *testing.T, name string, f func(b *bench)) {
	t.Helper()
	on(t, name, f, "dash", "bash", "busybox")
}

// on is onShells with some of them, for what does not depend on the shell.
func on(t *testing.T, name string, f func(b *bench), shells ...string) {
	t.Helper()
	for _, shell := range shells {
		t.Run(name+" "+shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip(err)
			}
			t.Parallel()
			f(newBench(t, path, shell == "busybox"))
		})
	}
}

func newBench(t *testing.T, path string, busybox bool) *bench {
	t.Helper()
	// Not t.TempDir: the name of a test may look like a bus. In memory where that is
	// possible, because wipes write to the platters.
	parent := "/dev/shm"
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "bench") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &bench{t: t, dir: dir, shell: []string{path}, busybox: busybox}
	if busybox {
		b.shell = append(b.shell, "sh")
	}
	for _, p := range benchPrograms {
		target := path
		if !busybox {
			if target, err = exec.LookPath(p); err != nil {
				t.Skip(err)
			}
		}
		b.link(target, "/bin/"+p)
	}
	for name, text := range map[string]string{
		"/proc/sys/kernel/random/boot_id": benchBoot, "/proc/sys/kernel/sysrq": "0", "/proc/sysrq-trigger": "", "/proc/mounts": "", "/proc/sys/vm/drop_caches": "",
		"/proc/uptime": "61.50 100.00", "/proc/self/mountinfo": "", "/sys/class/net/eth0/address": benchMAC, "/run/calls": "", "/sys/dev/block/.keep": "", "/etc/os-release": "ID=debian\n",
	} {
		b.write(name, text)
	}
	b.link("/dev/null", "/dev/null")
	b.link("/dev/zero", "/dev/zero")
	if err := syscall.Mkfifo(b.path("/run/reset"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.program("reboot", `echo "reboot $*" >/run/reset`)
	b.program("id", "echo 0")
	for _, quiet := range []string{"sync", "swapoff"} {
		b.program(quiet, "")
	}
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(name, text string) {
	b.t.Helper()
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	b.writeRaw(name, []byte(text))
}

func (b *bench) writeRaw(name string, data []byte) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(b.path(name)), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(b.path(name), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) link(target, name string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(b.path(name)), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(target, b.path(name)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) without(program string) {
	b.t.Helper()
	if err := os.Remove(b.path("/bin/" + program)); err != nil {
		b.t.Fatal(err)
	}
}

// program adds a program, or replaces one. It writes down how it was called. Its script
// runs as dash or bash on this machine, with the bench's paths.
func (b *bench) program(name, script string) {
	b.t.Helper()
	_ = os.Remove(b.path("/bin/" + name))
	text := fmt.Sprintf("#!/bin/sh\nPATH=%s\necho \"%s $*\" >>/run/calls\n%s\n", os.Getenv("PATH"), name, script)
	b.writeRaw("/bin/"+name, []byte(strings.ReplaceAll(inside(text), benchDir, b.dir)))
	if err := os.Chmod(b.path("/bin/"+name), 0o755); err != nil {
		b.t.Fatal(err)
	}
}

// erasing is a shell script that makes the file in $f zeros.
const erasing = `n=$(wc -c <"$f"); : >"$f"; dd if=/dev/zero of="$f" bs=1 count=0 seek="$n" 2>/dev/null`

// benchDisk is a disk of the bench, full of data unless it is blank.
type benchDisk struct {
	name  string
	bytes int64
	bus   string // of the path in /sys/devices; "" is PCI
	sys   map[string]string
	parts [][2]int64 // start and size in sectors
}

func (b *bench) disk(d benchDisk) capi.Disk {
	b.t.Helper()
	if d.bytes == 0 {
		d.bytes = 24 << 20
	}
	base := "/sys/devices/pci0000:00/" + d.bus + "/block/" + d.name
	files := map[string]string{"size": fmt.Sprint(d.bytes / 512), "ro": "0", "removable": "0", "dev": "8:0", "queue/discard_max_bytes": "0"}
	for k, v := range d.sys {
		files[k] = v
	}
	for i, p := range d.parts {
		name := fmt.Sprintf("%s%d", d.name, i+1)
		if strings.HasSuffix(d.name, "n1") {
			name = fmt.Sprintf("%sp%d", d.name, i+1)
		}
		q := name + "/"
		files[q+"partition"], files[q+"start"], files[q+"size"], files[q+"dev"] = fmt.Sprint(i+1), fmt.Sprint(p[0]), fmt.Sprint(p[1]), fmt.Sprintf("%s%d", strings.TrimSuffix(files["dev"], "0"), i+1)
		b.write("/dev/"+name, "")
	}
	for k, v := range files {
		b.write(base+"/"+k, v)
	}
	b.link(b.path(base), "/sys/block/"+d.name)
	device := "/dev/" + strings.ReplaceAll(d.name, "!", "/")
	b.writeRaw(device, bytes.Repeat([]byte("data"), int(d.bytes/4)))
	return capi.Disk{Device: device, Bytes: d.bytes, WWN: d.sys["wwid"], Serial: d.sys["device/serial"]}
}

// data is how much of a disk is not zeros.
func (b *bench) data(device string) int64 {
	b.t.Helper()
	raw, err := os.ReadFile(b.path(device))
	if err != nil {
		b.t.Fatal(err)
	}
	return int64(len(raw) - bytes.Count(raw, []byte{0}))
}

var (
	benchPaths    = regexp.MustCompile(`(^|[^A-Za-z0-9_.*])/(sys|proc|dev|run|etc)/`)
	benchCommands = regexp.MustCompile(`(^|[^A-Za-z0-9_./-])(reboot|swapoff|sync|blkdiscard|blockdev|wipefs|hdparm|nvme|blkid|sudo|dd|sha256sum|kubeadm|uname)([ ;)])`)
	benchSearch   = regexp.MustCompile(`PATH=(/[a-z]+)+(:(/[a-z]+)+)*`)
)

// benchDir stands for the bench's directory until a script is rewritten.
const benchDir = "@bench@"

// inside replaces the paths that are outside the bench.
func inside(script string) string { return benchPaths.ReplaceAllString(script, "${1}"+benchDir+"/$2/") }

// rewrite has a script see and do nothing outside the bench. Shells such as busybox run
// programs of their own before those in PATH, so that those which matter are called by their
// paths.
func (b *bench) rewrite(script string) string {
	b.t.Helper()
	script = strings.ReplaceAll(script, "for w in /run /dev/shm /tmp;", "for w in "+benchDir+"/run;")
	script = benchSearch.ReplaceAllString(script, "PATH="+benchDir+"/bin")
	script = strings.ReplaceAll(inside(script), "[ -b ", "[ -f ")
	script = strings.ReplaceAll(script, "$(id -u)", "$("+benchDir+"/bin/id -u)")
	script = benchCommands.ReplaceAllString(script, "${1}"+benchDir+"/bin/$2$3")
	if left := strings.ReplaceAll(script, benchDir+"/", ""); benchPaths.MatchString(left) {
		b.t.Fatalf("%q is left in the script:\n%s", benchPaths.FindString(left), left)
	}
	return strings.ReplaceAll(script, benchDir, b.dir)
}

// unprivileged has a command run as nobody where the tests run as root: whatever a script may
// reach that it should not, it has no right to any device, to sysrq or to a reset of
// the machine that runs the tests. dir becomes nobody's.
func unprivileged(t *testing.T, c *exec.Cmd, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
}

// run runs a map's actions, as one after the other, until one fails.
func (b *bench) run(m wire.Map, err error) wire.Log {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	l := wire.Log{State: wire.StateCompleted}
	for _, a := range m.Deployments[0].Actions {
		_, text := script(b.t, a)
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
		c := exec.CommandContext(ctx, b.shell[0], append(b.shell[1:], "-c", b.rewrite(text))...)
		unprivileged(b.t, c, b.dir)
		out, err := c.CombinedOutput()
		cancel()
		e := wire.LogEntry{Task: a.Name, Entry: strings.ReplaceAll(string(out), b.dir, "")}
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			e.Error = fmt.Sprintf("Process exited with status %d", exit.ExitCode())
		case err != nil:
			b.t.Fatal(err)
		}
		if l.Entries = append(l.Entries, e); e.Error != "" {
			l.State = wire.StateFailed
			break
		}
	}
	return l
}

// awaitReset waits until the machine resets itself.
func (b *bench) awaitReset() {
	b.t.Helper()
	f, err := os.OpenFile(b.path("/run/reset"), os.O_RDWR, 0) // so that opening does not wait
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := f.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		b.t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := f.Read(buf)
	if got := string(buf[:n]); err != nil || got != "reboot -f\n" {
		b.t.Errorf("reset: %q, %v", got, err)
	}
	if raw, _ := os.ReadFile(b.path("/proc/sysrq-trigger")); string(raw) != "b\n" {
		b.t.Errorf("sysrq got %q last", raw)
	}
}

// calls are the calls of the programs that a test added, those of reading left out.
func (b *bench) calls() string {
	b.t.Helper()
	raw, err := os.ReadFile(b.path("/run/calls"))
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.ReplaceAll(string(raw), b.dir, "")
}

func benchTarget() translate.Target {
	return translate.Target{Address: "10.0.0.1", HostName: "host-1", Root: true, Guard: translate.Guard{MAC: benchMAC, BootID: benchBoot}}
}
