package simulator

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

const (
	identity = "cat /sys/block/sda/device/wwid; dd if=/sys/block/sda/device/vpd_pg80 bs=4 skip=1 2>/dev/null | tr -d ' '"
	onDisk   = "for s in 6000 9000; do dd if=/dev/sda skip=$s count=1 iflag=direct 2>/dev/null | tr -d '\\000'; done"
)

func TestDiskFaults(t *testing.T) {
	for text, want := range map[string]string{
		"":                                          "0new+NEW",
		"worker/disk:sda=lose":                      "0",
		"worker/disk:*=lose":                        "0",
		"controlplane/disk:sda=lose":                "0new+NEW",
		"worker/disk:sdb=lose":                      "0new+NEW",
		"worker/disk:/dev/sda@3000K+1M=lose":        "0NEW",
		"worker/disk:sda@3072000+1=lose":            "0ew+NEW",
		"worker/disk:sda@4M+1T=lose":                "0new+",
		"worker/disk:sda=fail":                      "1",
		"worker/disk:sda@4M+1M=fail,skip=1,times=1": "1new+",
		"worker/run:dd of=/dev/sda=lose":            "0",
		"worker/run:dd of=/dev/sda seek=9000=lose":  "0new+",
	} {
		t.Run(text, func(t *testing.T) {
			cfg := Config{}
			if text != "" {
				cfg.Faults = faults(t, text)
			}
			upRack(t, cfg, func(a api) {
				got := a.output(ipB, "(printf new+ | dd of=/dev/sda seek=6000 conv=notrunc,fsync && printf NEW | dd of=/dev/sda seek=9000 conv=notrunc,fsync) 2>/dev/null; printf %d $?; "+onDisk)
				if got != want {
					a.t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
	for text, want := range map[string]string{
		"disk:=lose": "no step", "disk:sda=hang": "it has lose, fail", "disk:sda@1G=lose": "no range", "disk:sda@x+1=lose": "no range", "disk:sda@1+0=lose": "no range", "disk:sda@1+9999999999T=fail": "no range",
	} {
		if _, err := ParseFault(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestLostSession: the connection is lost, and what runs on the machine goes on.
func TestLostSession(t *testing.T) {
	upRack(t, Config{Faults: faults(t, "worker/action:long=lose,after=5s")}, func(a api) {
		t := a.t
		if l := a.run(ipB, command("long", "sleep 3; echo short enough")); l.State != "Completed" || l.Entries[0].Entry != "short enough" {
			t.Errorf("before it is lost: %+v", l)
		}
		c := command("long", "sleep 30; touch /root/done")
		c.Timeout = 10
		if l := a.run(ipB, c); l.State != "Failed" || l.Entries[0].Error != "Command Timed out" {
			t.Errorf("%+v", l)
		}
		if got := a.output(ipB, "ls /root"); got != "[No Output]" {
			t.Errorf("already there: %q", got)
		}
		time.Sleep(time.Minute)
		if got := a.output(ipB, "ls /root"); got != "done" {
			t.Errorf("the command did not go on: %q", got)
		}
		a.parlay(ipB, command("long", "sleep 30; touch /etc/late"))
		time.Sleep(10 * time.Second)
		a.s.Crash(time.Second)
		time.Sleep(time.Minute)
		if r := a.s.Host(macB).Run(t.Context(), host.Command{Line: "ls /etc/late"}); r.Exit != 0 {
			t.Errorf("the command ended with the server: %+v", r)
		}
		a.post(deployment(macB, "preseed", ipB, "worker-x2y3z"))
		a.parlay(ipB, command("long", "sleep 100000")) // ends with the rack
		time.Sleep(10 * time.Second)
	})
}

func TestSwappedDisk(t *testing.T) {
	upRack(t, Config{Faults: faults(t, "worker/action:second=swap,times=1")}, func(a api) {
		t := a.t
		look := func(name string) string {
			t.Helper()
			c := command(name, "bash -c "+quoted(identity))
			c.CommandSudo = "root"
			l := a.run(ipB, c)
			if l.State != "Completed" {
				t.Fatalf("%s: %+v", name, l)
			}
			return l.Entries[0].Entry
		}
		first := look("first")
		if first != look("first") {
			t.Error("it changed by itself")
		}
		second := look("second")
		if second == first || !strings.HasPrefix(second, "naa.5") || second != look("second") {
			t.Errorf("%q, then %q", first, second)
		}
		if !a.s.SwapDisk(macB, "/dev/sda") || a.s.SwapDisk(macB, "sdb") || a.s.SwapDisk("00:00:00:00:00:01", "sda") {
			t.Error("there is one disk, of one machine")
		}
		if third := look("third"); third == first || third == second {
			t.Errorf("%q again", third)
		}
		a.s.Reset(macB)
		a.await(macB, "booting", 0)
		a.await(macB, "up", time.Minute)
	})
}

func TestStrangerComesAndGoes(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		const who = "hostname; cat /sys/class/net/eth0/address"
		if got := a.output(ipB, who); got != "worker-x2y3z\n"+macB {
			t.Fatalf("%q", got)
		}
		a.s.Stranger(ipB, true)
		if got := a.output(ipB, who); !strings.HasPrefix(got, "stranger\n02:") {
			t.Errorf("the stranger must answer: %q", got)
		}
		a.output(ipB, "dd if=/dev/zero of=/dev/sda count=1 2>/dev/null")
		a.s.Stranger(ipB, false)
		if got := a.output(ipB, who); got != "worker-x2y3z\n"+macB {
			t.Errorf("it must be gone: %q", got)
		}
		w := a.s.World().Wipes()
		if len(w) != 1 || w[0].HostName != "stranger" || w[0].MAC == macB || w[0].Task == "" {
			t.Errorf("whose disk was written: %+v", w)
		}
	})
}

// TestDisksOutliveInstallations: identities are the machine's, the data disk is left alone.
func TestDisksOutliveInstallations(t *testing.T) {
	cfg := slow(Config{
		MACs: []string{macA, macB}, StateFile: filepath.Join(t.TempDir(), "rack.json"),
		Disk: []host.DiskConfig{{Name: "sda", Bytes: 1 << 34}, {Name: "sdb", Bytes: 1 << 34, Rotational: true}},
	})
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a := api{t, s}
		again := func() {
			t.Helper()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = Open(cfg); err != nil {
				t.Fatal(err)
			}
			a = api{t, s}
		}
		const look = identity + "; cat /sys/block/sdb/device/wwid; for d in sda sdb; do dd if=/dev/$d skip=9000 count=1 2>/dev/null | tr -d '\\000'; done"
		a.placeholder()
		a.post(deployment(macA, "preseed", ipA, "one"))
		a.await(macA, "up", time.Hour)
		before := a.output(ipA, look)
		a.output(ipA, "for d in sda sdb; do echo precious | dd of=/dev/$d seek=9000 2>/dev/null; done")
		again()
		if got := a.output(ipA, look); got != before+"\nprecious\nprecious" {
			t.Errorf("from a file: %q, want %q", got, before)
		}
		a.run(ipA, wipeAndReset())
		a.await(macA, "installing", time.Hour)
		again() // while there is no system that could have the disks
		a.await(macA, "up", time.Hour)
		if got := a.output(ipA, look); got != before+"\nprecious" {
			t.Errorf("after another installation: %q, want %q", got, before)
		}
		a.post(deployment(macB, "preseed", ipB, "two"))
		a.await(macB, "up", time.Hour)
		if got := a.output(ipB, identity); got == strings.Join(strings.Split(before, "\n")[:2], "\n") {
			t.Errorf("two machines have the same disk: %q", got)
		}
		told := func(mac string) []string {
			var out []string
			for _, b := range s.BootLog(mac) {
				out = append(out, b.Told)
			}
			return out
		}
		if got := told(macA); !slices.Equal(got, []string{ToldLoop, ToldInstaller, ToldDisk, ToldInstaller, ToldDisk}) {
			t.Errorf("boots: %q", got)
		}
		s.Close()
	})
}

// TestBootLog follows a machine out of the pool and back, by the loop's script and by
// the server's mistakes.
func TestBootLog(t *testing.T) {
	for _, version := range Versions() {
		bubble(t, slow(Config{Version: version, MACs: []string{macA}}), func(a api) {
			t := a.t
			a.placeholder()
			a.wayBack(0, false)
			log := a.s.BootLog(macA)
			var got []string
			n := 0
			for _, b := range log {
				got = append(got, fmt.Sprint(b.Told))
				if n += b.Times; b.Times < 1 || b.Last.Before(b.At) || b.Told != ToldLoop && b.Times != 1 {
					t.Errorf("%s: %+v", version, b)
				}
			}
			if !slices.Equal(got, []string{ToldLoop, ToldInstaller, ToldDisk, ToldLoop}) {
				t.Errorf("%s: %q", version, got)
			}
			last := log[len(log)-1]
			if last.Times < 50 || time.Since(last.Last) > 11*time.Second || n != a.s.Machines()[0].Boots {
				t.Errorf("%s: the loop: %+v, %d boots of %d", version, last, n, a.s.Machines()[0].Boots)
			}
			a.s.Crash(time.Hour)
			time.Sleep(10 * time.Minute)
			if b := a.s.BootLog(macA); b[len(b)-1].Told != ToldNothing {
				t.Errorf("%s: without a server: %+v", version, b[len(b)-1])
			}
			a.s.PowerOff(macA)
		})
	}
	bubble(t, slow(Config{MACs: []string{macA}}), func(a api) {
		a.post(deployment(strings.ToUpper(macA), "preseed", ipA, "loud"))
		a.await(macA, "stuck", time.Minute)
		if b := a.s.BootLog(macA); b[len(b)-1].Told != ToldQuestion {
			a.t.Errorf("%+v", b)
		}
		if a.s.BootLog(macB) != nil {
			a.t.Error("there is no such machine")
		}
	})
}

// A reset before the release: an installed machine comes back, one whose disk is wiped
// is installed again. After the release neither brings an installation.
func TestResetAroundTheRelease(t *testing.T) {
	for _, released := range []bool{false, true} {
		for _, wiped := range []bool{false, true} {
			bubble(t, slow(Config{MACs: []string{macA}}), func(a api) {
				t := a.t
				a.placeholder()
				d := deployment(macA, "preseed", ipA, "one")
				a.post(d)
				a.await(macA, "up", time.Hour)
				a.s.OnRequest(func(c Call) {
					if c.Method == http.MethodPatch {
						a.s.Reset(macA)
					}
				})
				if wiped {
					a.output(ipA, "dd if=/dev/zero of=/dev/sda bs=1M count=8 conv=fsync 2>/dev/null")
				}
				if released {
					d.BootConfigName = wire.RebootConfigName
					a.patch(d)
				} else {
					a.s.Reset(macA)
				}
				time.Sleep(20 * time.Minute)
				want := map[bool]string{false: ToldDisk, true: ToldLoop}[released && wiped]
				log := a.s.BootLog(macA)
				if installs := a.s.Machines()[0].Installs; log[len(log)-1].Told != want || (installs == 2) != (wiped && !released) {
					t.Errorf("released %v, wiped %v: %d installations, %+v", released, wiped, installs, log)
				}
			})
		}
	}
}
