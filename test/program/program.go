// Package program builds the real binary and runs it for tests that kill it, or that
// look at nothing but what it prints and how it ends. Product code must not import it.
package program

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/plunder-app/capplunder/internal/cli" // go test must not take a cached result for a changed program
)

// pathVariable is where the binary is, for the tests of this process.
const pathVariable = "TESTED_CAPPLUNDER"

// Main builds the program and runs the tests of a package with it, so many of them at
// once: they wait nearly all the time, however few cores there are.
func Main(parallel int, run func() int) int {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(parallel)); err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "capplunder-test")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary := filepath.Join(dir, "capplunder")
	out, err := exec.Command("go", "build", "-o", binary, "github.com/plunder-app/capplunder/cmd/capplunder").CombinedOutput()
	if err == nil {
		err = os.Setenv(pathVariable, binary)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return run()
}

// Run is how one run of the program ended, and what it said.
type Run struct {
	Code           int // -1 when it was killed
	Stdout, Stderr string
}

// String is for a test's message.
func (r Run) String() string { return fmt.Sprintf("exit %d\n%s%s", r.Code, r.Stdout, r.Stderr) }

// Options of a run.
type Options struct {
	Args []string
	Env  []string // NAME=VALUE, beside those of the test
	// Patience is how long the run may take before the test gives up.
	Patience time.Duration
	// Started, if not nil, is given a function that kills the run, before the run can
	// have done anything.
	Started func(kill func())
	// Line, if not nil, is called with each line of stdout as it comes.
	Line func(line string)
}

// Do runs the program to its end.
func Do(tb testing.TB, o Options) Run {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), o.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Getenv(pathVariable), o.Args...)
	cmd.Env = append(os.Environ(), o.Env...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	// What kills may be called at once: a request may only be handled when the process is there.
	ready := make(chan struct{})
	if o.Started != nil {
		o.Started(func() {
			<-ready
			_ = cmd.Process.Kill()
		})
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	close(ready)
	var out strings.Builder
	scanner := bufio.NewScanner(pipe)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		out.WriteString(scanner.Text() + "\n")
		if o.Line != nil {
			o.Line(scanner.Text())
		}
	}
	_ = cmd.Wait()
	if ctx.Err() != nil {
		lines := strings.Split(out.String(), "\n")
		tb.Fatalf("%v did not end within %s\n%s\n%s", o.Args, o.Patience, strings.Join(lines[max(0, len(lines)-12):], "\n"), &errOut)
	}
	return Run{Code: cmd.ProcessState.ExitCode(), Stdout: out.String(), Stderr: errOut.String()}
}
