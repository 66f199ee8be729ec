// Package scripts runs whole command lines: the programs of testdata-like
// *.txtar files against simulated plunder servers on loopback, over TLS.
package scripts

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/plunder-app/capplunder/internal/cli"
	"github.com/plunder-app/capplunder/pkg/plunder"
)

func TestMain(m *testing.M) {
	// The tests mostly wait for simulated machines, so more of them than there are
	// processors run at once.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	testscript.Main(kubeMain{m}, map[string]func(){
		"capplunder": func() { os.Exit(cli.Main()) },
	})
}

func TestScripts(t *testing.T) {
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	tools, err := filepath.Abs("../../.cache/bin") // kubectl
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 ".",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("PATH", env.Getenv("PATH")+string(filepath.ListSeparator)+tools)
			env.Setenv("TZ", "UTC")
			env.Setenv("EXAMPLES", examples)
			env.Setenv("STATE", filepath.Join(env.WorkDir, ".local", "state", "capplunder"))
			// Tests have no minutes to wait.
			env.Setenv("CAPPLUNDER_INTERVAL", "50ms")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"waitfile":   waitFile,
			"mixcert":    mixCert,
			"jsonl":      jsonLines,
			"before":     before,
			"prefixed":   prefixed,
			"kubernetes": kubernetes(t),
		},
	})
}

// exits runs a command and checks its exit code: exits 3 capplunder get unleased
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// waitFile waits until a file is there and has content: waitfile FILE [PATTERN]
func waitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: waitfile FILE [TEXT]")
	}
	text := ""
	if len(args) == 2 {
		text = args[1]
	}
	path := ts.MkAbs(args[0])
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if data, err := os.ReadFile(path); err == nil && len(data) > 0 && strings.Contains(string(data), text) {
			return
		}
	}
	ts.Fatalf("%s has no %q after 30 s", args[0], text)
}

// mixCert makes a plunderclient.yaml with the address of one server and the
// certificate of another: mixcert ADDRESS.yaml CERTIFICATE.yaml OUT.yaml
func mixCert(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: mixcert ADDRESS.yaml CERTIFICATE.yaml OUT.yaml")
	}
	cfg, err := plunder.LoadConfig(ts.MkAbs(args[0]))
	ts.Check(err)
	other, err := plunder.LoadConfig(ts.MkAbs(args[1]))
	ts.Check(err)
	cfg.Cert = other.Cert
	ts.Check(cfg.WriteFile(ts.MkAbs(args[2])))
}
