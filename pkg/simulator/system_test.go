package simulator

import (
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// TestSystems: what a boot configuration installs follows from its type, unless the
// rack says otherwise.
func TestSystems(t *testing.T) {
	const script = `. /etc/os-release; echo $ID $VERSION_ID; uname -r`
	for _, tt := range []struct {
		boot, want string
		change     func(*Config)
	}{
		{boot: "preseed", want: "ubuntu 24.04"},
		{boot: "rhel", want: "rocky 9.6"},
		{boot: "rhel", want: "debian 12", change: func(c *Config) { c.Profile = host.ProfileBookworm }},
		{boot: "rhel", want: "centos 7", change: func(c *Config) { c.Profiles = map[string]string{"rhel": host.ProfileCentOS7} }},
		{boot: "preseed", want: "debian 13", change: func(c *Config) {
			c.Profile, c.Profiles = host.ProfileRocky8, map[string]string{"preseed": host.ProfileTrixie}
		}},
	} {
		cfg := slow(Config{MACs: []string{macA}})
		if tt.change != nil {
			tt.change(&cfg)
		}
		bubble(t, cfg, func(a api) {
			a.post(deployment(macA, tt.boot, ipA, "one"))
			a.await(macA, "up", 10*time.Minute)
			if got := a.output(ipA, script); !strings.HasPrefix(got, tt.want+"\n") {
				a.t.Errorf("%s installed %q, want %s", tt.boot, got, tt.want)
			}
		})
	}
}

// TestHostFaults: programs, connections and locks fail as often as a fault says, and of
// the machine that it names.
func TestHostFaults(t *testing.T) {
	for text, check := range map[string]func(a api){
		"one/run:apt-get update=fail,skip=1,times=2": func(a api) {
			want := "0\nsimulated: one/run:apt-get update=fail,skip=1,times=2\n1\nsimulated: one/run:apt-get update=fail,skip=1,times=2\n1\n0"
			if got := a.output(ipA, `for i in 1 2 3 4; do apt-get -qq update >/dev/null; echo $?; done`); got != want {
				a.t.Errorf("got %q", got)
			}
		},
		"two/run:apt-get update=fail": func(a api) {
			if got := a.output(ipA, `apt-get update >/dev/null; echo $?`); got != "0" {
				a.t.Errorf("another machine's fault: %q", got)
			}
		},
		"net:pkgs.k8s.io=lose": func(a api) {
			const url = "https://pkgs.k8s.io/core:/stable:/v1.34/deb/Release.key"
			got := a.output(ipA, "apt-get -y install curl >/dev/null; curl -fsS "+url+"; echo $?; curl -fsS https://download.docker.com/linux/ubuntu/gpg >/dev/null; echo $?")
			if want := "curl: (28) Failed to connect to pkgs.k8s.io port 443 after 20000 ms: Timeout was reached\n28\n0"; got != want {
				a.t.Errorf("got %q", got)
			}
		},
		"lock=hold,times=1,after=2m": func(a api) {
			start := time.Now()
			l := a.run(ipA, wire.Action{Name: "wait", Type: wire.ActionCommand, Timeout: 600, CommandSudo: "root", Command: "apt-get -y -o DPkg::Lock::Timeout=300 install socat"})
			if d := time.Since(start); l.State != wire.StateCompleted || d < 2*time.Minute || d > 3*time.Minute {
				a.t.Errorf("%s after %v: %+v", l.State, d, l.Entries)
			}
		},
		"run:sleep 5=die,times=1": func(a api) {
			l := a.run(ipA, command("c", "sleep 5"))
			if l.State != wire.StateFailed || a.phase(macA) != "dead" {
				a.t.Errorf("%s, the machine is %s", l.State, a.phase(macA))
			}
		},
		"run:sleep 5=reset,times=1,after=3s": func(a api) {
			if l := a.run(ipA, command("c", "sleep 5")); l.State != wire.StateFailed {
				a.t.Errorf("%+v", l)
			}
			a.await(macA, "up", 10*time.Minute)
			if got := a.output(ipA, "sleep 5; echo again"); got != "again" {
				a.t.Errorf("got %q", got)
			}
		},
		"run:true=hang,times=1": func(a api) {
			if l := a.run(ipA, command("c", "/usr/bin/true")); l.State != wire.StateFailed || !strings.Contains(l.Entries[0].Error, "Timed out") {
				a.t.Errorf("%+v", l)
			}
		},
	} {
		t.Run(text, func(t *testing.T) {
			bubble(t, slow(Config{MACs: []string{macA}, Faults: faults(t, text)}), func(a api) {
				a.post(deployment(macA, "preseed", ipA, "one"))
				a.await(macA, "up", 10*time.Minute)
				check(a)
			})
		})
	}
}
