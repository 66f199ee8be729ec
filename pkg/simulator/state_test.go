package simulator

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// TestStateFile ends the program at many points of a machine's life and goes on
// with the file in a new one.
func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := slow(Config{MACs: []string{macA, macB}, StateFile: filepath.Join(dir, "rack.json"), Faults: faults(t, "worker/parlay=fail,times=1")})
		var s *Server
		program := func(f func(a api)) {
			t.Helper()
			var err error
			if s, err = Open(cfg); err != nil {
				t.Fatal(err)
			}
			f(api{t, s})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		program(func(a api) {
			if len(a.unleased()) != 2 {
				t.Errorf("%v", a.unleased())
			}
			a.placeholder()
		})
		time.Sleep(time.Hour)
		program(func(a api) {
			if since := time.Since(a.seen(macA)); since > 11*time.Second {
				t.Errorf("nobody saw the machine for %s", since)
			}
			a.post(deployment(macA, "preseed", ipA, "controlplane-ab1cd"))
			a.post(deployment(macB, "preseed", ipB, "worker-x2y3z"))
			a.await(macB, "installing", time.Minute)
		})
		time.Sleep(time.Hour)
		var bootID string
		program(func(a api) {
			if got := a.phase(macA); got != "up" {
				t.Errorf("an installation in flight: the machine is %s", got)
			}
			a.output(ipA, "echo hello >/root/hello")
			bootID = a.output(ipA, "cat /proc/sys/kernel/random/boot_id")
			if env, err := a.try("POST", "/parlay", wire.Map{Deployments: []wire.MapDeployment{{Hosts: []string{ipB}}}}); err != nil || env.Error != "simulated fault" {
				t.Errorf("%v %+v", err, env)
			}
			a.parlay(ipB, command("long", "sleep 50"))
			time.Sleep(time.Second)
		})
		program(func(a api) {
			if got := a.output(ipA, "cat /root/hello /proc/sys/kernel/random/boot_id"); got != "hello\n"+bootID {
				t.Errorf("the host says %q", got)
			}
			if l := a.run(ipB, command("x", "uptime -p >/dev/null")); l.State != "Completed" || len(l.Entries) != 1 {
				t.Errorf("a fault came twice, or a job lived on: %+v", l)
			}
			a.s.Reset(macA)
		})
		time.Sleep(10 * time.Second)
		program(func(a api) {
			if got := a.phase(macA); got != "booting" {
				t.Errorf("ten seconds after a reset it is %s", got)
			}
			if l := a.run(ipA, command("x", "true")); l.State != "Failed" {
				t.Errorf("while it boots: %+v", l)
			}
			a.await(macA, "up", time.Minute)
			if got := a.output(ipA, "cat /root/hello /proc/sys/kernel/random/boot_id"); got == "hello\n"+bootID || !strings.HasPrefix(got, "hello\n") {
				t.Errorf("after the reset the host says %q", got)
			}
			a.s.Crash(time.Minute)
		})
		program(func(a api) {
			if _, err := a.try("GET", "/config", nil); err == nil {
				t.Error("the crash was forgotten")
			}
			time.Sleep(time.Minute)
			if n := len(get[wire.Deployments](a, "/deployments").Deployments); n != 0 {
				t.Errorf("%d deployments after a crash", n)
			}
		})
	})
	info, err := os.Stat(filepath.Join(dir, "rack.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

// A program that only looks must not write: another one may be at work.
func TestLookingDoesNotWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rack.json")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Config{StateFile: file})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if err := os.Chtimes(file, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(Config{StateFile: file}); err != nil {
			t.Fatal(err)
		}
		api{t, s}.unleased()
		s.Close()
		if info, err := os.Stat(file); err != nil || !info.ModTime().Equal(time.Unix(1, 0)) {
			t.Errorf("the file was written: %v %v", info.ModTime(), err)
		}
	})
}

func TestLoadRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rack.json")
	if _, err := Load(Config{}, file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for text, want := range map[string]string{
		"":              "unexpected end",
		`{"Format":99}`: "format 99, this program knows 1",
		`{"Format":1}`:  "delete the file",
		`{"Format":1,"Memory":{},"Machines":[{"MAC":"x","Host":"?"}]}`: "machine x",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(Config{}, file); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "delete the file") {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	s := New(Config{StateFile: filepath.Join(t.TempDir(), "no", "such", "dir"), BootLoop: time.Hour})
	s.Crash(0)
	if err := s.Close(); err == nil {
		t.Error("a file that can't be written is no error")
	}
}
