package state

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// crashDirEnv makes TestCrashChild the child process of the tests below.
const crashDirEnv = "CAPPLUNDER_TEST_CRASH_DIR"

// crashRecord is a record of one of two sizes, so that a file which is half of
// one and half of the other cannot pass for either.
func crashRecord(name string, n int) capi.Record {
	r := capi.Record{
		Key: key(name), PlunderMachine: key(name), MAC: "mac-" + name, Step: strconv.Itoa(n),
		Ready: n%2 == 0, Phase: capi.PhaseProvisioned,
	}
	if n%2 == 1 {
		r.Phase, r.Message = capi.PhaseFailed, strings.Repeat("a long story. ", 2000)
	}
	return r
}

// TestCrashChild holds the lock and writes until it is killed.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDirEnv)
	if dir == "" {
		return // not the child
	}
	ctx := t.Context()
	l, err := OpenLocal(dir)
	must(t, err)
	_, _, err = l.Lock(ctx, capi.LockRequest{Command: "apply in a child"})
	must(t, err)
	fmt.Println("locked")
	for n := 0; ; n++ {
		must(t, l.SaveRecord(ctx, crashRecord("a", n)))
		must(t, l.SaveRecord(ctx, crashRecord("b", n)))
		must(t, l.SaveClusterRecord(ctx, capi.ClusterRecord{Key: key("c"), CAHash: strings.Repeat("h", n%2*9000)}))
		must(t, l.AddEvent(ctx, capi.Event{Kind: "PlunderMachine", Object: key("a"), Message: strconv.Itoa(n)}))
		fmt.Println(n)
	}
}

// startChild starts the child and returns once it has the lock. What it has
// finished to write can be read from the reader, a number a line.
func startChild(t *testing.T, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	child := exec.CommandContext(t.Context(), exe, "-test.run=^TestCrashChild$")
	child.Env = append(os.Environ(), crashDirEnv+"="+dir)
	out, err := child.StdoutPipe()
	must(t, err)
	child.Stderr = os.Stderr
	must(t, child.Start())
	t.Cleanup(func() { kill(child) })
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if line != "locked\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	return child, lines
}

// kill is SIGKILL; the child is gone when it returns.
func kill(child *exec.Cmd) {
	_ = child.Process.Kill()
	_ = child.Wait()
}

// A process that is killed while it writes leaves every file old or new, and the
// lock free.
func TestKilledWhileWriting(t *testing.T) {
	ctx := t.Context()
	l := openLocal(t)
	must(t, l.Sync(ctx, testSet("a", "b")))
	must(t, l.SaveRecord(ctx, crashRecord("a", 0)))
	must(t, l.SaveRecord(ctx, crashRecord("b", 0)))
	for i := range 20 {
		child, lines := startChild(t, l.Dir())
		finished := 0
		for range i % 4 {
			line, err := lines.ReadString('\n')
			must(t, err)
			finished, err = strconv.Atoi(strings.TrimSpace(line))
			must(t, err)
		}
		// Killed at another point each time.
		timer := time.NewTimer(time.Duration(i) * 300 * time.Microsecond)
		<-timer.C
		kill(child)

		records, err := l.Records(ctx)
		must(t, err)
		if len(records) != 2 {
			t.Fatalf("kill %d: %d records", i, len(records))
		}
		for _, r := range records {
			n, err := strconv.Atoi(r.Step)
			must(t, err)
			if i%4 > 0 && n < finished {
				t.Errorf("kill %d: %s has write %d, but write %d was finished", i, r.Name, n, finished)
			}
			if diff := cmp.Diff(crashRecord(r.Name, n), r); diff != "" {
				t.Fatalf("kill %d: neither old nor new:\n%s", i, diff)
			}
		}
		_, _, err = l.ClusterRecord(ctx, key("c"))
		must(t, err)
		_, err = l.Events(ctx)
		must(t, err)
		// All objects, also those that no record is read from.
		must(t, l.Sync(ctx, testSet("a", "b")))
	}
	_, unlock, err := l.Lock(ctx, capi.LockRequest{Command: "apply"})
	must(t, err)
	must(t, unlock())
	must(t, filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), tempPrefix) {
			t.Errorf("left behind: %s", path)
		}
		return err
	}))
}

// The lock of another process keeps us out, says whose it is, and dies with it.
func TestLockDiesWithItsProcess(t *testing.T) {
	ctx := t.Context()
	l := openLocal(t)
	must(t, l.Sync(ctx, testSet("a", "b")))
	child, _ := startChild(t, l.Dir())

	var locked *LockedError
	if _, _, err := l.Lock(ctx, capi.LockRequest{Command: "apply"}); !errors.As(err, &locked) {
		t.Fatalf("got %v", err)
	}
	if h := locked.Holder; h.PID != child.Process.Pid || h.Command != "apply in a child" {
		t.Errorf("holder %+v, child %d", h, child.Process.Pid)
	}
	if err := l.SaveRecord(ctx, capi.Record{Key: key("a")}); !errors.As(err, &locked) {
		t.Errorf("a write beside the lock: %v", err)
	}
	kill(child)
	if _, err := os.Stat(filepath.Join(l.dir, holderFile)); err != nil {
		t.Errorf("the test is void: the dead holder's file is gone: %v", err)
	}
	_, unlock, err := l.Lock(ctx, capi.LockRequest{Command: "apply"})
	must(t, err)
	must(t, unlock())
}

// A holder file that cannot be read does not hide that the lock is held.
func TestLockOfAnUnknownHolder(t *testing.T) {
	l := openLocal(t)
	_, unlock, err := l.Lock(t.Context(), capi.LockRequest{Command: "apply"})
	must(t, err)
	defer func() { must(t, unlock()) }()
	other, err := OpenLocal(l.Dir())
	must(t, err)
	for _, content := range []string{"", "{", "[]"} {
		must(t, os.WriteFile(filepath.Join(l.dir, holderFile), []byte(content), 0o600))
		var locked *LockedError
		if _, _, err := other.Lock(t.Context(), capi.LockRequest{Command: "x"}); !errors.As(err, &locked) || !strings.Contains(err.Error(), "another run") {
			t.Errorf("%q: %v", content, err)
		}
	}
}
