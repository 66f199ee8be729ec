package scripts

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

var (
	colour  = regexp.MustCompile(`\x1b\[[0-9;]+m`)
	spinner = regexp.MustCompile(`[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏⣾⣽⣻⢿⡿⣟⣯⣷]`)
	escape  = regexp.MustCompile(`\x1b`)
)

// command is one command line of the program in a home of its own.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "capplunder", args...)
	cmd.Env = append([]string{
		"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH"), "TERM=xterm-256color", "TZ=UTC",
		"CAPPLUNDER_INTERVAL=50ms", "CAPPLUNDER_SIMULATE_OS_INSTALL=700ms",
		"CAPPLUNDER_SIMULATE_KUBERNETES_INSTALL=300ms", "CAPPLUNDER_SIMULATE_BOOT_LOOP=200ms",
	}, env...)
	return cmd
}

func simple(t *testing.T) []string {
	t.Helper()
	path, err := filepath.Abs("../../examples/simple")
	if err != nil {
		t.Fatal(err)
	}
	return []string{"apply", "-f", path, "--simulate"}
}

// terminal runs a command on a terminal and collects what it shows.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	file *os.File

	mu    sync.Mutex
	shown bytes.Buffer
	done  chan struct{}
}

func onTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, cmd: cmd, file: file, done: make(chan struct{})}
	go func() {
		defer close(x.done)
		buf := make([]byte, 4096)
		for {
			n, err := file.Read(buf)
			x.mu.Lock()
			x.shown.Write(buf[:n])
			x.mu.Unlock()
			if err != nil { // EIO when the program has ended
				return
			}
		}
	}()
	t.Cleanup(func() { _ = file.Close() })
	return x
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shown.String()
}

// await waits until the terminal shows a text.
func (x *terminal) await(text string) {
	x.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(x.text(), text) {
			return
		}
	}
	x.t.Fatalf("%q never appeared:\n%s", text, x.text())
}

func (x *terminal) typed(keys string) {
	x.t.Helper()
	if _, err := io.WriteString(x.file, keys); err != nil {
		x.t.Fatal(err)
	}
}

// end waits for the end of the program and returns its exit code.
func (x *terminal) end() int {
	x.t.Helper()
	<-x.done
	return exitCode(x.t, x.cmd.Wait())
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

func TestTerminalHasSpinnerAndColours(t *testing.T) {
	t.Parallel()
	x := onTerminal(t, command(t, nil, simple(t)...))
	if code := x.end(); code != 0 {
		t.Fatalf("exit %d:\n%s", code, x.text())
	}
	for what, re := range map[string]*regexp.Regexp{"spinner": spinner, "colour": colour} {
		if !re.MatchString(x.text()) {
			t.Errorf("no %s:\n%q", what, x.text())
		}
	}
	if !strings.Contains(x.text(), "controlplane: os ") && !strings.Contains(x.text(), "worker: os ") {
		t.Errorf("the spinner does not name machine and step:\n%q", x.text())
	}
	if hidden, shown := strings.LastIndex(x.text(), "\x1b[?25l"), strings.LastIndex(x.text(), "\x1b[?25h"); shown < hidden {
		t.Error("the cursor stays hidden")
	}
}

func TestNoColourOnTerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		env  []string
		args []string
	}{
		{name: "NO_COLOR", env: []string{"NO_COLOR=1"}},
		{name: "flag", args: []string{"--no-color"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := append([]string{"CAPPLUNDER_SIMULATE_OS_INSTALL=10m"}, tt.env...)
			x := onTerminal(t, command(t, env, append(simple(t), tt.args...)...))
			x.await(": os ")
			x.typed("\x03")
			if code := x.end(); code != 130 {
				t.Fatalf("exit %d:\n%s", code, x.text())
			}
			if !spinner.MatchString(x.text()) {
				t.Error("no spinner")
			}
			if c := colour.FindString(x.text()); c != "" {
				t.Errorf("colour %q:\n%q", c, x.text())
			}
		})
	}
}

func TestPipeIsPlain(t *testing.T) {
	t.Parallel()
	cmd := command(t, nil, simple(t)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if code := exitCode(t, cmd.Run()); code != 0 {
		t.Fatalf("exit %d:\n%s", code, stderr.String())
	}
	for what, text := range map[string]string{"stdout": stdout.String(), "stderr": stderr.String()} {
		if escape.MatchString(text) || spinner.MatchString(text) || strings.Contains(text, "\r") {
			t.Errorf("%s is not plain: %q", what, text)
		}
	}
	if !strings.Contains(stdout.String(), "Running") {
		t.Errorf("no result on stdout: %q", stdout.String())
	}
}

// With only stdout in a pipe, a person still watches stderr.
func TestSpinnerWhileStdoutIsPiped(t *testing.T) {
	t.Parallel()
	cmd := command(t, nil, simple(t)...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	x := onTerminal(t, cmd)
	if code := x.end(); code != 0 {
		t.Fatalf("exit %d:\n%s", code, x.text())
	}
	if !spinner.MatchString(x.text()) {
		t.Errorf("no spinner on stderr: %q", x.text())
	}
	if escape.MatchString(stdout.String()) || !strings.Contains(stdout.String(), "Running") {
		t.Errorf("stdout: %q", stdout.String())
	}
}

func TestJSONParsesAtEveryVerbosity(t *testing.T) {
	t.Parallel()
	cmd := command(t, nil, append(simple(t), "-o", "json", "-v", "9")...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if code := exitCode(t, cmd.Run()); code != 0 {
		t.Fatalf("exit %d:\n%s", code, stderr.String())
	}
	if !strings.Contains(stderr.String(), "/parlay") {
		t.Error("-v 9 shows no requests, so this test shows nothing")
	}
	types := map[string]int{}
	for line := range strings.Lines(stdout.String()) {
		var e struct {
			Type      string
			Simulated bool
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if !e.Simulated {
			t.Errorf("not marked as simulated: %s", line)
		}
		types[e.Type]++
	}
	if types["PlanReady"] != 1 || types["Ready"] != 2 || types["Summary"] != 1 {
		t.Errorf("events: %v", types)
	}
}

func TestInterruptOnTerminal(t *testing.T) {
	t.Parallel()
	x := onTerminal(t, command(t, []string{"CAPPLUNDER_SIMULATE_OS_INSTALL=10m"}, simple(t)...))
	x.await(": os ")
	x.typed("\x03")
	if code := x.end(); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
	for _, want := range []string{"stopping... (Ctrl-C again to exit at once)", "error: ", "next: capplunder apply -f "} {
		if !strings.Contains(x.text(), want) {
			t.Errorf("no %q in:\n%s", want, x.text())
		}
	}
	if !strings.Contains(x.text(), "\x1b[?25h") {
		t.Error("the cursor stays hidden")
	}
}

func TestDeleteAsksForTheName(t *testing.T) {
	t.Parallel()
	first := command(t, nil, append(simple(t), "--skip-kubernetes")...)
	if out, err := first.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	again := func(args ...string) *terminal {
		cmd := command(t, nil, args...)
		cmd.Env = append(cmd.Env, first.Env[0]) // the same home
		return onTerminal(t, cmd)
	}
	x := again("delete", "machine", "worker", "--simulate")
	x.await("type the name of the machine (worker): ")
	x.typed("controlplane\n")
	if code := x.end(); code != 8 || !strings.Contains(x.text(), "not confirmed: nothing was changed") {
		t.Errorf("exit %d, want 8:\n%s", code, x.text())
	}
	if victim := regexp.MustCompile(`worker-[a-z0-9]{5} +([0-9a-f]{2}:){5}[0-9a-f]{2} +192\.168\.1\.124 +/dev/sda .* 480\.1 GB .* yes \(quick\)`); !victim.MatchString(x.text()) {
		t.Errorf("host, MAC, address and disk are not shown before the question:\n%s", x.text())
	}
	x = again("destroy", "--all", "--simulate", "--wipe", "zero")
	x.await("This wipes 2 disks of 2 machines, deletes Cluster default/cluster-plunder. To go on type the name of the cluster (cluster-plunder): ")
	if !strings.Contains(x.text(), "yes (zero)") {
		t.Errorf("how the disks are wiped is not shown:\n%s", x.text())
	}
	x.typed("\x03")
	if code := x.end(); code != 130 {
		t.Errorf("exit %d, want 130:\n%s", code, x.text())
	}
	x = again("delete", "machine", "worker", "--simulate", "--dry-run")
	if code := x.end(); code != 0 || strings.Contains(x.text(), "type the name") {
		t.Errorf("a dry run asks, or fails; exit %d:\n%s", code, x.text())
	}
	x = again("delete", "machine", "worker", "--simulate")
	x.await("type the name of the machine (worker): ")
	x.typed("worker\n")
	if code := x.end(); code != 0 || !strings.Contains(x.text(), "machine/worker deleted") {
		t.Errorf("exit %d, want 0:\n%s", code, x.text())
	}
	x = again("delete", "cluster", "cluster-plunder", "--simulate")
	x.await("type the name of the cluster (cluster-plunder): ")
	x.typed("cluster-plunder\n")
	if code := x.end(); code != 0 || !strings.Contains(x.text(), "cluster/cluster-plunder deleted") {
		t.Errorf("exit %d, want 0:\n%s", code, x.text())
	}
}
