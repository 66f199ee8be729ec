package simulator

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	macA = "00:50:56:a5:11:20"
	macB = "00:50:56:a5:b5:f1"
	ipA  = "192.168.1.123"
	ipB  = "192.168.1.124"
)

func rebootConfig() wire.BootConfig {
	return wire.BootConfig{ConfigName: "reboot", ConfigType: "chain", KernelPath: "reboot.ipxe", InitrdPath: "reboot.ipxe"}
}

// slow are times as real machines have them.
func slow(c Config) Config {
	c.BootLoop, c.BootTime, c.OSInstall, c.KubernetesInstall = 10*time.Second, 40*time.Second, 5*time.Minute, time.Minute
	return c
}

func bubble(t *testing.T, cfg Config, f func(a api)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := New(cfg)
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		f(api{t, s})
	})
}

// placeholder keeps the reboot loop alive, and real deployments from being the last.
func (a api) placeholder() {
	a.t.Helper()
	a.do(http.MethodPost, "/config/boot/reboot", rebootConfig())
	a.post(deployment("00:00:00:00:00:00", "reboot", "0.0.0.0", "placeholder"))
}

func TestBlankMachinesAreSeenAgainAndAgain(t *testing.T) {
	bubble(t, slow(Config{MACs: []string{macA, macB}}), func(a api) {
		t := a.t
		first := a.unleased()
		if len(first) != 2 || first[0].MAC != macA || first[1].MAC != macB || !first[0].Time.Before(first[1].Time) {
			t.Fatalf("at the beginning: %v", first)
		}
		a.placeholder()
		a.await(macA, "looping", 0)
		for range 30 {
			before := a.seen(macA)
			time.Sleep(11 * time.Second)
			if now := a.seen(macA); !now.After(before) || time.Since(now) > 10*time.Second {
				t.Fatalf("seen at %s, then at %s; it is %s", before, now, time.Now())
			}
		}
		if got := a.unleased(); got[0].MAC != macA || got[1].MAC != macB {
			t.Errorf("the order changed: %v", got)
		}
		if l := get[[]wire.Lease](a, "/dhcp/leases"); len(l) != 2 || time.Until(l[0].Time) < leaseTime-11*time.Second {
			t.Errorf("leases: %v", l)
		}
	})
}

// A server without any deployment has no loop: machines are seen when their
// firmware gets around to booting once more.
func TestEmptyServerHasNoLoop(t *testing.T) {
	bubble(t, slow(Config{MACs: []string{macA}, FirmwareRetry: 3 * time.Minute}), func(a api) {
		t := a.t
		time.Sleep(20 * time.Second)
		boots := a.s.Machines()[0].Boots
		time.Sleep(time.Hour)
		if n := a.s.Machines()[0].Boots - boots; n < 19 || n > 21 {
			t.Errorf("%d boots in an hour without loop, want 20", n)
		}
		a.placeholder()
		boots = a.s.Machines()[0].Boots
		time.Sleep(time.Hour)
		if n := a.s.Machines()[0].Boots - boots; n < 340 {
			t.Errorf("%d boots in an hour of loop, want about 360", n)
		}
		if since := time.Since(a.seen(macA)); since > 10*time.Second {
			t.Errorf("last seen %s ago", since)
		}
	})
}

func TestInstall(t *testing.T) {
	for _, version := range Versions() {
		t.Run(version, func(t *testing.T) {
			bubble(t, slow(Config{Version: version, MACs: []string{macA, macB}}), func(a api) {
				t := a.t
				a.post(deployment(macB, "preseed", ipB, "worker-ab1cd"))
				began := time.Now()
				if !a.seen(macB).IsZero() {
					t.Error("a machine with a deployment is listed as unleased")
				}
				if l := a.run(ipB, command("uptime", "uptime")); l.State != wire.StateFailed || l.Entries[0].Error != "dial tcp 192.168.1.124:22: i/o timeout" {
					t.Errorf("while nobody is there: %+v", l)
				}
				a.await(macB, "installing", 15*time.Second)
				a.await(macB, "up", 6*time.Minute)
				if took := time.Since(began); took < 4*time.Minute || took > 6*time.Minute {
					t.Errorf("the installation took %s", took)
				}
				if got := a.output(ipB, "hostname; id -un; grep -h -v 00:00:00:00:00:00 /sys/class/net/*/address"); got != "worker-ab1cd\nroot\n"+macB {
					t.Errorf("the host says %q", got)
				}
				if !a.seen(macB).IsZero() || a.seen(macA).IsZero() {
					t.Errorf("unleased: %v", a.unleased())
				}
			})
		})
	}
}

func TestDeploymentChangesNothingUntilTheNextBoot(t *testing.T) {
	bubble(t, slow(Config{MACs: []string{macA}}), func(a api) {
		t := a.t
		a.post(deployment(macA, "preseed", ipA, "one"))
		a.await(macA, "up", 10*time.Minute)
		id := a.output(ipA, "cat /proc/sys/kernel/random/boot_id")
		a.patch(deployment(macA, "preseed", ipB, "two"))
		time.Sleep(time.Hour)
		if got := a.output(ipA, "hostname; cat /proc/sys/kernel/random/boot_id"); got != "one\n"+id {
			t.Errorf("the host says %q", got)
		}

		// A reset without a wipe boots from the disk.
		a.s.Reset(macA)
		if l := a.run(ipA, command("uptime", "uptime")); l.Entries[0].Error != "dial tcp 192.168.1.123:22: i/o timeout" {
			t.Errorf("while it boots: %+v", l)
		}
		a.await(macA, "up", time.Minute)
		got := a.output(ipA, "hostname; cat /proc/sys/kernel/random/boot_id")
		if got[:4] != "one\n" || got == "one\n"+id {
			t.Errorf("after a reboot the host says %q, boot id was %s", got, id)
		}
		if m := a.s.Machines()[0]; m.Installs != 1 {
			t.Errorf("installed %d times", m.Installs)
		}
	})
}

// wipeAndReset is the bare bones of a wipe: boot sectors, then reset by a process
// that outlives the session.
func wipeAndReset() wire.Action {
	return command("wipe", "dd if=/dev/zero of=/dev/sda bs=1M count=8 conv=fsync || exit 1; setsid sh -c 'sleep 2; echo b >/proc/sysrq-trigger' >/dev/null 2>&1 & sleep 1")
}

func TestTheWayBack(t *testing.T) {
	for _, version := range Versions() {
		t.Run(version, func(t *testing.T) {
			for _, last := range []bool{true, false} {
				t.Run(fmt.Sprintf("last=%v", last), func(t *testing.T) {
					bubble(t, slow(Config{Version: version, MACs: []string{macA, macB}}), func(a api) {
						if !last {
							a.placeholder()
						} else {
							a.do(http.MethodPost, "/config/boot/reboot", rebootConfig())
						}
						for round := range 3 {
							a.wayBack(round, last)
						}
					})
				})
			}
		})
	}
}

func (a api) wayBack(round int, last bool) {
	t := a.t
	t.Helper()
	d := deployment(macA, "preseed", ipA, fmt.Sprintf("round-%d", round))
	all := get[wire.Deployments](a, "/deployments")
	if _, there := all.ByMAC(macA); there {
		if env, _ := a.try(http.MethodPost, "/deployment", d); env.Error != "Duplicate entry for MAC address ["+macA+"]" {
			t.Errorf("round %d: POST beside a reboot deployment: %+v", round, env)
		}
		a.patch(d)
	} else {
		a.post(d)
	}
	a.await(macA, "up", 10*time.Minute)
	if got := a.output(ipA, "hostname"); got != d.Config.Hostname {
		t.Fatalf("round %d: the host is %q", round, got)
	}

	released := d
	released.BootConfigName = "reboot"
	a.patch(released)
	if l := a.run(ipA, wipeAndReset()); l.State != wire.StateCompleted {
		t.Fatalf("round %d: wipe: %+v", round, l)
	}
	reset := time.Now()
	for a.seen(macA).Before(reset) {
		if time.Since(reset) > 5*time.Minute {
			t.Fatalf("round %d: not seen after the reset: %v", round, a.unleased())
		}
		time.Sleep(time.Second)
	}
	a.do(http.MethodDelete, "/deployment/mac/"+dashed(macA), nil)
	_, there := get[wire.Deployments](a, "/deployments").ByMAC(macA)
	if there != last {
		t.Errorf("round %d: after DELETE the deployment is there: %v, want %v", round, there, last)
	}
	time.Sleep(10 * time.Minute)
	if a.phase(macA) != "looping" || time.Since(a.seen(macA)) > time.Minute {
		t.Errorf("round %d: the machine is %s, seen %s ago", round, a.phase(macA), time.Since(a.seen(macA)))
	}
}

// Without the detour over the reboot configuration a wiped machine is installed
// again: in 2020 because its script stays on the server, in v0.5 only until the
// deployment is deleted.
func TestThePlainWayBackFails(t *testing.T) {
	for version, want := range map[string]string{Version2020: "up", VersionV05: "looping"} {
		t.Run(version, func(t *testing.T) {
			bubble(t, slow(Config{Version: version, MACs: []string{macA}}), func(a api) {
				t := a.t
				a.placeholder()
				a.post(deployment(macA, "preseed", ipA, "old"))
				a.await(macA, "up", 10*time.Minute)
				a.run(ipA, wipeAndReset())
				wiped := time.Now()
				a.do(http.MethodDelete, "/deployment/mac/"+dashed(macA), nil)
				time.Sleep(time.Hour)
				if got := a.phase(macA); got != want {
					t.Errorf("an hour later it is %s, want %s", got, want)
				}
				if want != "up" {
					return
				}
				if got := a.output(ipA, "hostname"); got != "old" {
					t.Errorf("it is installed as %q, want as before", got)
				}
				if seen := a.seen(macA); seen.Before(wiped) || seen.After(wiped.Add(time.Minute)) {
					t.Errorf("seen at %s, want once, straight after the wipe at %s, though it is not free", seen, wiped)
				}
			})
		})
	}
}

// v0.5 goes by the name of the boot configuration, and knows only some.
func TestV05KnowsScriptsByName(t *testing.T) {
	bubble(t, slow(Config{Version: VersionV05, MACs: []string{macA}}), func(a api) {
		t := a.t
		a.post(deployment(macA, "rhel", ipA, "one"))
		time.Sleep(time.Hour)
		if got := a.phase(macA); got != "looping" {
			t.Errorf("a machine whose script is a 404 is %s", got)
		}
		if !a.seen(macA).IsZero() {
			t.Error("it is listed as unleased")
		}
	})
	bubble(t, slow(Config{Version: Version2020, MACs: []string{macA}}), func(a api) {
		a.post(deployment(macA, "rhel", ipA, "one"))
		a.await(macA, "up", 10*time.Minute)
	})
}

// DHCP knows lower case only: the machine gets the installer, but no answers for it.
func TestUpperCaseDeploymentAsksQuestions(t *testing.T) {
	bubble(t, slow(Config{MACs: []string{macA}}), func(a api) {
		t := a.t
		a.post(deployment("00:50:56:A5:11:20", "preseed", ipA, "one"))
		time.Sleep(time.Hour)
		if got := a.phase(macA); got != "stuck" {
			t.Errorf("the machine is %s", got)
		}
	})
}

func TestPowerOff(t *testing.T) {
	bubble(t, slow(Config{MACs: []string{macA}}), func(a api) {
		t := a.t
		a.post(deployment(macA, "preseed", ipA, "one"))
		a.await(macA, "up", 10*time.Minute)
		if !a.s.PowerOff(macA) || a.s.PowerOff("nobody") || a.s.Reset("nobody") {
			t.Error("PowerOff or Reset found the wrong machine")
		}
		if l := a.run(ipA, command("x", "uptime")); l.Entries[0].Error != "dial tcp 192.168.1.123:22: i/o timeout" {
			t.Errorf("a machine without power: %+v", l)
		}
		time.Sleep(time.Hour)
		if got := a.phase(macA); got != "dead" {
			t.Errorf("it is %s", got)
		}
		a.s.Reset(macA)
		a.await(macA, "up", time.Minute)
	})
}

func TestMadeUpMACs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Machines: 100, MACs: []string{macA}, Seed: 7, OUIs: []string{"00:50:56", "0C:C4:7A"}}
		s, again := New(cfg), New(cfg)
		cfg.Seed = 8
		other := New(cfg)
		defer s.Close()
		defer again.Close()
		defer other.Close()
		same, all := 0, map[string]bool{}
		for i, m := range s.Machines() {
			all[m.MAC] = true
			if again.Machines()[i].MAC != m.MAC {
				t.Errorf("machine %d: %s, and %s with the same seed", i, m.MAC, again.Machines()[i].MAC)
			}
			if other.Machines()[i].MAC == m.MAC {
				same++
			}
		}
		if len(all) != 100 || same != 1 {
			t.Errorf("%d MACs, %d shared with another seed", len(all), same)
		}
	})
}
