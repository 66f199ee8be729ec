package kubetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// childEnv makes this test binary the one whose servers must not survive it: its value
// is how it ends, and the file where it says what it started.
const childEnv = "KUBETEST_CHILD"

// TestChild is not a test of its own; TestNothingIsLeft runs it in another process.
func TestChild(t *testing.T) {
	ending, file, ok := strings.Cut(os.Getenv(childEnv), " ")
	if !ok {
		return
	}
	env := Server(t)
	told := strings.Join([]string{env.dir, env.etcd.URL.Host, env.api.SecureServing.HostPort()}, "\n")
	if err := os.WriteFile(file, []byte(told), 0o600); err != nil {
		t.Fatal(err)
	}
	switch ending {
	case "panic":
		panic("this test panics")
	case "interrupt", "kill":
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		signal := os.Interrupt
		if ending == "kill" {
			signal = os.Kill
		}
		if err := self.Signal(signal); err != nil {
			t.Fatal(err)
		}
		<-t.Context().Done() // the end
	}
}

// However the tests end, their processes and files are gone.
func TestNothingIsLeft(t *testing.T) {
	for _, ending := range []string{"pass", "panic", "interrupt", "kill"} {
		t.Run(ending, func(t *testing.T) {
			t.Parallel()
			file := t.TempDir() + "/told"
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$", "-test.count=1")
			child.Env = append(os.Environ(), childEnv+"="+ending+" "+file)
			out, err := child.CombinedOutput()
			if (err == nil) != (ending == "pass") {
				t.Fatalf("the child ended with %v:\n%s", err, out)
			}
			told, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			// A process that ends by itself takes them with it. One that does not is
			// survived by the reaper, for a moment.
			patience := time.Minute
			if ending == "pass" {
				patience = 0
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for {
				left := leftovers(strings.Split(string(told), "\n"))
				if left == nil {
					return
				}
				select {
				case <-ctx.Done():
					t.Fatal(left)
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
}

func leftovers(told []string) error {
	var errs []error
	for _, what := range told {
		if strings.HasPrefix(what, "/") {
			if _, err := os.Stat(what); !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, fmt.Errorf("the folder %s is left (%w)", what, err))
			}
			continue
		}
		if conn, err := net.Dial("tcp", what); err == nil {
			errs = append(errs, fmt.Errorf("a process still listens at %s", what), conn.Close())
		}
	}
	return errors.Join(errs...)
}
