package simulator

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// upRack is a rack whose machines A and B are up.
func upRack(t *testing.T, cfg Config, f func(a api)) {
	t.Helper()
	if len(cfg.MACs) == 0 {
		cfg.MACs = []string{macA, macB}
	}
	bubble(t, slow(cfg), func(a api) {
		a.post(deployment(macA, "preseed", ipA, "controlplane-ab1cd"))
		a.post(deployment(macB, "preseed", ipB, "worker-x2y3z"))
		a.await(macA, "up", 10*time.Minute)
		a.await(macB, "up", 10*time.Minute)
		f(a)
	})
}

func TestActions(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		for name, tc := range map[string]struct {
			action wire.Action
			state  string
			entry  string
			err    string
		}{
			"output":       {command("x", "echo one; echo two >&2"), "Completed", "one\ntwo", ""},
			"leading room": {command("x", "echo ' one'; echo"), "Completed", " one", ""},
			"silence":      {command("x", "true"), "Completed", "[No Output]", ""},
			"failure":      {command("x", "echo boom; exit 3"), "Failed", "boom", "Process exited with status 3"},
			"sudo takes only the first command": {
				wire.Action{Name: "x", Type: "command", Timeout: 9, Command: "id -un && id -un", CommandSudo: "root"}, "Completed", "root\nubuntu", "",
			},
			"pipe":              {wire.Action{Name: "x", Type: "command", Timeout: 9, CommandPipeCmd: "printf %s YWJj", Command: "base64 -d"}, "Completed", "abc", ""},
			"pipe is exact":     {wire.Action{Name: "x", Type: "command", Timeout: 9, CommandPipeCmd: "echo 1; echo lost >&2; printf '3\\n\\n'", Command: "wc -c"}, "Completed", "5", ""},
			"pipe loses stderr": {wire.Action{Name: "x", Type: "command", Timeout: 9, CommandPipeCmd: "echo x", Command: "bash -c 'cat; echo y >&2'"}, "Completed", "x", ""},
			"pipe loses output of failure": {
				wire.Action{Name: "x", Type: "command", Timeout: 9, CommandPipeCmd: "echo x", Command: "bash -c 'cat; exit 4'"}, "Failed", "[No Output]", "Process exited with status 4",
			},
			"broken pipe command": {wire.Action{Name: "x", Type: "command", Timeout: 9, CommandPipeCmd: "exit 7", Command: "cat"}, "Failed", "[No Output]", "exit status 7"},
			"local":               {wire.Action{Name: "x", Type: "command", CommandLocal: true, Command: "echo here; true"}, "Completed", "here", ""},
			"local silence":       {wire.Action{Name: "x", Type: "command", CommandLocal: true, Command: "true"}, "Completed", "", ""},
			"local failure":       {wire.Action{Name: "x", Type: "command", CommandLocal: true, Command: "echo lost; exit 2"}, "Failed", "", "exit status 2"},
			"time-out":            {wire.Action{Name: "x", Type: "command", Timeout: 5, Command: "sleep 10"}, "Failed", "[No Output]", "Command Timed out"},
			"ignored":             {wire.Action{Name: "x", Type: "command", Timeout: 5, Command: "false", IgnoreFail: true}, "Completed", "[No Output]", "Process exited with status 1"},
			"unknown type":        {wire.Action{Name: "x", Type: "dance"}, "Failed", "", "Action [dance] does not exist or has no plugin associated with it"},
		} {
			l := a.run(ipA, tc.action)
			if l.State != tc.state || len(l.Entries) != 1 || l.Entries[0].Entry != tc.entry || l.Entries[0].Error != tc.err {
				t.Errorf("%s: got %+v", name, l)
			}
		}
	})
}

func TestKeysBelongToTheWholeServer(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		save := command("save", "echo echo hello")
		save.CommandSaveAsKey = "k"
		a.run(ipA, save)
		l := a.run(ipB, wire.Action{Name: "use", Type: "command", Timeout: 9, KeyName: "k"})
		if l.State != "Completed" || l.Entries[0].Entry != "hello" {
			t.Errorf("got %+v", l)
		}
	})
}

// Yesterday's state is still there after the next POST, until its first action ends.
func TestLogsOutliveJobs(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		a.run(ipA, command("first", "true"))
		a.parlay(ipA, command("second", "sleep 30"))
		l := get[wire.Log](a, a.logPath(ipA))
		if len(l.Entries) != 1 {
			t.Errorf("straight after the POST: %+v", l)
		}
		time.Sleep(10 * time.Second)
		if l := get[wire.Log](a, a.logPath(ipA)); l.State != "Running" || len(l.Entries) != 1 {
			t.Errorf("while it runs: %+v", l)
		}
		if l := a.log(ipA); l.State != "Completed" || len(l.Entries) != 2 {
			t.Errorf("at the end: %+v", l)
		}

		// Deleted while the job runs, a log gets its final state only if an entry comes.
		a.parlay(ipA, command("third", "sleep 30"))
		time.Sleep(time.Second)
		a.do(http.MethodDelete, a.logPath(ipA), nil)
		time.Sleep(time.Minute)
		if l := get[wire.Log](a, a.logPath(ipA)); l.State != "Completed" || len(l.Entries) != 1 {
			t.Errorf("deleted while running: %+v", l)
		}
	})
}

func TestSeveralDeploymentsInAMapRunInOrder(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		m := wire.Map{Deployments: []wire.MapDeployment{
			{Name: "one", Hosts: []string{ipA, ipB}, Actions: []wire.Action{command("one", "sleep 10; date +%s")}},
			{Name: "two", Hosts: []string{ipA}, Actions: []wire.Action{command("two", "date +%s; false")}},
			{Name: "three", Hosts: []string{ipB}, Actions: []wire.Action{command("never", "true")}},
		}}
		a.do(http.MethodPost, "/parlay", m)
		time.Sleep(time.Minute)
		la, lb := get[wire.Log](a, a.logPath(ipA)), get[wire.Log](a, a.logPath(ipB))
		if la.State != "Failed" || len(la.Entries) != 2 || lb.State != "Completed" || len(lb.Entries) != 1 {
			t.Fatalf("A: %+v\nB: %+v", la, lb)
		}
		if gap := lb.Entries[0].Created.Sub(la.Entries[0].Created); gap < 10*time.Second || gap > 11*time.Second {
			t.Errorf("host B came %s after host A, want one after the other", gap)
		}
		if !la.Entries[1].Created.After(lb.Entries[0].Created) {
			t.Error("the second deployment of the map did not wait for the first")
		}
	})
}

// parallel: true runs an action once for every import of a host, and its logs
// never leave Running.
func TestParallel(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		parallel := func(actions ...wire.Action) {
			a.do(http.MethodPost, "/parlay", wire.Map{Deployments: []wire.MapDeployment{{Name: "p", Hosts: []string{ipA, ipB}, Parallel: true, Actions: actions}}})
			time.Sleep(time.Minute)
		}
		parallel(command("x", "sleep 10; echo done"))
		l := get[wire.Log](a, a.logPath(ipA))
		if l.State != "Running" || len(l.Entries) != 1 {
			t.Errorf("first time: %+v", l)
		}
		if b := get[wire.Log](a, a.logPath(ipB)); b.Entries[0].Created.Sub(l.Entries[0].Created).Abs() > time.Second {
			t.Error("they did not run at once")
		}
		parallel(command("y", "echo again"))
		if l := get[wire.Log](a, a.logPath(ipA)); len(l.Entries) != 3 {
			t.Errorf("second time, two imports: %+v", l)
		}
		parallel(command("z", "false"), command("never", "true"))
		la, lb := get[wire.Log](a, a.logPath(ipA)), get[wire.Log](a, a.logPath(ipB))
		if (la.State == "Failed") == (lb.State == "Failed") {
			t.Errorf("after a failure one of them is Failed:\n%+v\n%+v", la, lb)
		}
		if got := a.s.Stats(); got.ImportedHosts != 6 || got.LeakedBytes != 6*8<<10 {
			t.Errorf("%+v", got)
		}
	})
}

// A host that is reset in the middle of an action leaves the connection open.
func TestResetAsItsOwnActionTimesOut(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		began := time.Now()
		l := a.run(ipA, command("before", "true"), command("reset", "echo b >/proc/sysrq-trigger; sleep 9"))
		if l.State != "Failed" || len(l.Entries) != 2 || l.Entries[1].Error != "Command Timed out" || time.Since(began) < time.Minute {
			t.Errorf("%s: %+v", time.Since(began), l)
		}
		a.await(macA, "up", time.Minute)
	})
}

// Hosts that were imported once stay known until the server restarts.
func TestJobForADeletedDeployment(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		a.run(ipA, command("x", "true"))
		a.do(http.MethodDelete, "/deployment/address/192-168-1-123", nil)
		if l := a.run(ipA, command("x", "hostname")); l.Entries[0].Entry != "controlplane-ab1cd" {
			t.Errorf("%+v", l)
		}
		a.s.Crash(0)
		a.post(deployment(macB, "preseed", ipB, "worker-x2y3z"))
		env, err := a.try(http.MethodPost, "/parlay", wire.Map{Deployments: []wire.MapDeployment{{Hosts: []string{ipA}}}})
		if err != nil || env.Error != "Host [192.168.1.123] has no SSH credentials" {
			t.Errorf("%v %+v", err, env)
		}
		if l := a.run(ipB, command("x", "hostname")); l.Entries[0].Entry != "worker-x2y3z" {
			t.Errorf("%+v", l)
		}
	})
}

func TestWhoMayLogIn(t *testing.T) {
	bubble(t, slow(Config{MACs: []string{macA}, Global: &wire.HostConfig{SSHKeyPath: "/k.pub"}}), func(a api) {
		t := a.t
		a.post(deployment(macA, "preseed", ipA, "one"))
		a.await(macA, "up", 10*time.Minute)
		if l := a.run(ipA, command("x", "true")); !strings.HasPrefix(l.Entries[0].Error, "ssh: handshake failed") {
			t.Errorf("without a user: %+v", l)
		}
	})
	bubble(t, slow(Config{MACs: []string{macA}, NoSSHKey: true}), func(a api) {
		t := a.t
		a.post(deployment(macA, "preseed", ipA, "one"))
		env, err := a.try(http.MethodPost, "/parlay", wire.Map{Deployments: []wire.MapDeployment{{Hosts: []string{ipA}}}})
		if err != nil || env.Error != "Host [192.168.1.123] has no key specified" {
			t.Errorf("%v %+v", err, env)
		}
	})
}

// Two cores, 2.5 ms per deployment: what 200 deployments make of four POSTs at once.
func TestPOSTCost(t *testing.T) {
	bubble(t, slow(Config{Machines: -1, Hosts: map[string]HostFunc{"10.0.0.1": func(context.Context, host.Command) (host.Result, error) { return host.Result{}, nil }}}), func(a api) {
		t := a.t
		for i := range 200 {
			a.post(deployment(fmt.Sprintf("00:50:56:00:00:%02x", i), "preseed", "10.0.0.1", "x"))
		}
		began := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { a.parlay("10.0.0.1", command("x", "true")) })
		}
		wg.Wait()
		if took := time.Since(began); took != time.Second {
			t.Errorf("four POSTs took %s, want 1s: two at a time, half a second each", took)
		}
	})
}

// A port probe from the server itself: the dead ones time out together.
func TestPortProbe(t *testing.T) {
	upRack(t, Config{}, func(a api) {
		t := a.t
		began := time.Now()
		l := a.run(ipA, wire.Action{Name: "ports", Type: "command", CommandLocal: true, Timeout: 30,
			Command: `for a in 192.168.1.123 192.168.1.124 192.168.1.7 192.168.1.8; do (timeout 2 bash -c "exec 3<>/dev/tcp/$a/22" 2>/dev/null && echo "open $a") & done; wait`})
		lines := strings.Split(l.Entries[0].Entry, "\n")
		if len(lines) != 2 || !strings.Contains(l.Entries[0].Entry, "open "+ipA) || !strings.Contains(l.Entries[0].Entry, "open "+ipB) {
			t.Errorf("%+v", l)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// The client gives up; the server goes on.
func TestClientGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(slow(Config{MACs: []string{macA}, POSTCost: time.Minute}))
		defer s.Close()
		a := api{t, s}
		a.post(deployment(macA, "preseed", ipA, "one"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.send(ctx, http.MethodPost, "/parlay", []byte(`{"deployments":[{"hosts":["`+ipA+`"],"actions":[{"type":"command","name":"x","commandLocal":true,"command":"echo x"}]}]}`))
		if err == nil || ctx.Err() == nil {
			t.Fatalf("got %v", err)
		}
		if l := a.log(ipA); l.State != "Completed" {
			t.Errorf("the job: %+v", l)
		}
	})
}
