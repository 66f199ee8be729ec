package simulator

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// api talks to a server in the way a person with curl would.
type api struct {
	t testing.TB
	s *Server
}

func (a api) try(method, path string, body any) (wire.Envelope, error) {
	a.t.Helper()
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			a.t.Fatal(err)
		}
	}
	return a.send(context.Background(), method, path, data)
}

func (a api) send(ctx context.Context, method, path string, data []byte) (wire.Envelope, error) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, "https://plunder:60443"+path, bytes.NewReader(data))
	if err != nil {
		a.t.Fatal(err)
	}
	resp, err := a.s.RoundTrip(req)
	if err != nil {
		return wire.Envelope{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		a.t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
	var env wire.Envelope
	if err := json.Unmarshal(body, &env); err != nil {
		a.t.Fatalf("%s %s: %v in %s", method, path, err, body)
	}
	return env, nil
}

// do fails the test if the call does.
func (a api) do(method, path string, body any) wire.Envelope {
	a.t.Helper()
	env, err := a.try(method, path, body)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	if env.Error != "" {
		a.t.Fatalf("%s %s: %s (%s%s)", method, path, env.Error, env.Warning, env.FriendlyError)
	}
	return env
}

func get[T any](a api, path string) T {
	a.t.Helper()
	var v T
	if err := json.Unmarshal(a.do(http.MethodGet, path, nil).Payload, &v); err != nil {
		a.t.Fatal(err)
	}
	return v
}

func deployment(mac, boot, address, name string) wire.Deployment {
	return wire.Deployment{MAC: mac, BootConfigName: boot, Config: wire.HostConfig{Address: address, Hostname: name}}
}

// post posts a deployment, again if the handler died half way.
func (a api) post(d wire.Deployment) {
	a.t.Helper()
	if _, err := a.try(http.MethodPost, "/deployment", d); err != nil {
		a.do(http.MethodPost, "/deployment", d)
	}
}

func (a api) patch(d wire.Deployment) {
	a.t.Helper()
	a.do(http.MethodPatch, "/deployment/"+dashed(d.MAC), d)
}

func (a api) unleased() []wire.Lease {
	a.t.Helper()
	return get[[]wire.Lease](a, "/dhcp/unleased")
}

// seen is when a MAC was last seen in the unleased list; zero when it is not there.
func (a api) seen(mac string) time.Time {
	a.t.Helper()
	for _, l := range a.unleased() {
		if l.MAC == mac {
			return l.Time
		}
	}
	return time.Time{}
}

func (a api) phase(mac string) string {
	for _, m := range a.s.Machines() {
		if m.MAC == mac {
			return m.Phase
		}
	}
	return "no machine"
}

// await lets time pass until a machine is in a phase.
func (a api) await(mac, phase string, limit time.Duration) {
	a.t.Helper()
	for end := time.Now().Add(limit); a.phase(mac) != phase; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			a.t.Fatalf("%s is %s after %s, want %s", mac, a.phase(mac), limit, phase)
		}
	}
}

// command is an action that runs a line as root.
func command(name, line string) wire.Action {
	return wire.Action{Name: name, Type: wire.ActionCommand, Timeout: 60, Command: "bash -c " + quoted(line), CommandSudo: "root"}
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (a api) parlay(address string, actions ...wire.Action) {
	a.t.Helper()
	a.do(http.MethodPost, "/parlay", wire.Map{Deployments: []wire.MapDeployment{{Name: "job", Hosts: []string{address}, Actions: actions}}})
}

func (a api) logPath(address string) string {
	return "/parlay/logs/" + strings.ReplaceAll(address, ".", "-")
}

// log waits until the log of an address is not Running.
func (a api) log(address string) wire.Log {
	a.t.Helper()
	for range 10_000 {
		env, err := a.try(http.MethodGet, a.logPath(address), nil)
		if err != nil {
			a.t.Fatal(err)
		}
		if env.Error == "" {
			var l wire.Log
			if err := json.Unmarshal(env.Payload, &l); err != nil {
				a.t.Fatal(err)
			}
			if l.State != wire.StateRunning {
				return l
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	a.t.Fatal("the job does not end")
	return wire.Log{}
}

// run is parlay and log, with the old log deleted before.
func (a api) run(address string, actions ...wire.Action) wire.Log {
	a.t.Helper()
	if _, err := a.try(http.MethodDelete, a.logPath(address), nil); err != nil {
		a.t.Fatal(err)
	}
	a.parlay(address, actions...)
	return a.log(address)
}

// output is what a single command printed.
func (a api) output(address, line string) string {
	a.t.Helper()
	l := a.run(address, command("cmd", line))
	if l.State != wire.StateCompleted {
		a.t.Fatalf("%s: %+v", line, l)
	}
	return l.Entries[0].Entry
}
