package plunder

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// fault is what a fake server does with one request.
type fault int

const (
	serve    fault = iota // answer it
	die                   // close the connection, nothing done
	actDie                // do it, then close the connection
	lose                  // answer with success, nothing done: another writer won
	down                  // refuse the connection
	hang                  // do it, never answer
	garbage               // answer with a web page
	halfDead              // as a POST for a MAC that is not the last unleased: the MAC is gone, nothing else
)

// fake is a small plunder server whose faults are scripted, for the tests of the
// client alone. It is an http.Handler, and an http.RoundTripper for tests on a
// virtual clock.
type fake struct {
	old bool // v0.5: friendlyError, second boot configuration of one name
	// faults decides about each request; nil serves all. It is called with the lock held.
	faults func(r *http.Request) fault

	mu          sync.Mutex
	boot        []wire.BootConfig
	deployments []wire.Deployment
	unleased    []wire.Lease
	logs        map[string]wire.Log
	jobs        int
	calls       []string // "METHOD path", look-ups left out
	lookups     map[string]int
}

func newFake() *fake {
	return &fake{
		boot:    []wire.BootConfig{{ConfigName: "preseed", ConfigType: "preseed", KernelPath: "linux", InitrdPath: "initrd.gz"}},
		lookups: map[string]int{},
		logs:    map[string]wire.Log{},
	}
}

// dialError is what net says about a port on which nobody listens.
func dialError() error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 60443}, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

// RoundTrip implements http.RoundTripper.
func (f *fake) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	f.mu.Lock()
	what := f.decide(req)
	var err error
	switch what {
	case down:
		err = dialError()
	case die, halfDead:
		f.drop(req, what)
		err = io.ErrUnexpectedEOF
	case actDie, hang:
		f.act(rec, req)
		err = io.ErrUnexpectedEOF
	default:
		f.answer(rec, req, what)
	}
	f.mu.Unlock()
	if what == hang {
		<-req.Context().Done()
		return nil, req.Context().Err()
	}
	if err != nil {
		return nil, err
	}
	return rec.Result(), nil
}

// ServeHTTP implements http.Handler; here a refused connection is a closed one.
func (f *fake) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	f.mu.Lock()
	what := f.decide(req)
	switch what {
	case die, down, halfDead:
		f.drop(req, what)
	case actDie, hang:
		f.act(httptest.NewRecorder(), req)
	default:
		f.answer(w, req, what)
	}
	f.mu.Unlock()
	switch what {
	case die, down, halfDead, actDie:
		panic(http.ErrAbortHandler)
	case serve, lose, garbage: // answered above
	case hang:
		_, _ = io.Copy(io.Discard, req.Body) // else HTTP/1 does not notice that the client left
		<-req.Context().Done()
	}
}

func (f *fake) decide(req *http.Request) fault {
	if rest, ok := strings.CutPrefix(req.URL.Path, "/api/"); ok {
		f.lookups[rest]++
	} else {
		f.calls = append(f.calls, req.Method+" "+req.URL.Path)
	}
	if f.faults == nil {
		return serve
	}
	return f.faults(req)
}

func (f *fake) drop(req *http.Request, what fault) {
	if what != halfDead {
		return
	}
	var d wire.Deployment
	_ = json.NewDecoder(req.Body).Decode(&d)
	f.unleased = slices.DeleteFunc(f.unleased, func(l wire.Lease) bool { return l.MAC == d.MAC })
}

func (f *fake) answer(w http.ResponseWriter, req *http.Request, what fault) {
	switch what {
	case lose:
		f.ok(w)
	case garbage:
		_, _ = io.WriteString(w, "<html>secret</html>")
	default:
		f.act(w, req)
	}
}

func (f *fake) ok(w http.ResponseWriter) { _, _ = io.WriteString(w, "{}") }

func (f *fake) payload(w http.ResponseWriter, v any) {
	data, err := json.Marshal(map[string]any{"payload": v})
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(data)
}

func (f *fake) refuse(w http.ResponseWriter, detail, format string, args ...any) {
	key := "warning"
	if f.old {
		key = "friendlyError"
	}
	data, _ := json.Marshal(map[string]string{key: detail, "error": fmt.Sprintf(format, args...)})
	_, _ = w.Write(data)
}

// endpoints are those of the recording discovery.
func endpoints() map[string]string {
	return map[string]string{
		"config/GET":           "/config",
		"configBoot/POST":      "/config/boot/{id}",
		"dhcp/GET":             "/dhcp/{id}",
		"deployments/GET":      "/deployments",
		"deployment/POST":      "/deployment",
		"deploymentID/GET":     "/deployment/{id}",
		"deploymentID/PATCH":   "/deployment/{id}",
		"deploymentMac/DELETE": "/deployment/mac/{id}",
		"parlay/POST":          "/parlay",
		"parlayLog/GET":        "/parlay/logs/{id}",
		"parlayLog/DELETE":     "/parlay/logs/{id}",
	}
}

const updating = "Error updating Deployment Configuration"

// act is the server proper; the lock is held.
func (f *fake) act(w http.ResponseWriter, req *http.Request) {
	path := req.URL.Path
	id := path[strings.LastIndexByte(path, '/')+1:]
	mac, address := strings.ReplaceAll(id, "-", ":"), strings.ReplaceAll(id, "-", ".")
	at := func(mac string) int {
		return slices.IndexFunc(f.deployments, func(d wire.Deployment) bool { return d.MAC == mac })
	}
	known := func(name string) bool {
		_, ok := wire.ServerConfig{BootConfigs: f.boot}.BootConfig(name)
		return ok
	}
	switch call := req.Method + " " + path; {
	case strings.HasPrefix(call, "GET /api/"):
		key := strings.TrimPrefix(path, "/api/")
		function, method, _ := strings.Cut(key, "/")
		endpoint, ok := endpoints()[key]
		if !ok {
			f.refuse(w, "Unable to find HTTP method ["+method+"] for function ["+function+"]", "Error looking up in API Server")
			return
		}
		f.payload(w, wire.Endpoint{Name: function, FunctionEndpoint: endpoint, Method: method})
	case call == "GET /config":
		f.payload(w, wire.ServerConfig{BootConfigs: f.boot})
	case call == "GET /dhcp/unleased", call == "GET /dhcp/leases":
		f.payload(w, f.unleased)
	case call == "GET /deployments":
		f.payload(w, wire.Deployments{Deployments: f.deployments})
	case strings.HasPrefix(call, "POST /config/boot/"):
		var b wire.BootConfig
		_ = json.NewDecoder(req.Body).Decode(&b)
		if known(b.ConfigName) && !f.old {
			f.refuse(w, "Error duplicate Server Configuration", "Boot Configuration [%s] already exists", b.ConfigName)
			return
		}
		f.boot = append(f.boot, b)
		f.ok(w)
	case call == "POST /deployment", strings.HasPrefix(call, "PATCH /deployment/"):
		var d wire.Deployment
		if json.NewDecoder(req.Body).Decode(&d) != nil {
			f.refuse(w, updating, "Unable to parse deployment configuration")
			return
		}
		i := at(d.MAC)
		switch {
		case req.Method == http.MethodPost && i >= 0:
			f.refuse(w, updating, "Duplicate entry for MAC address [%s]", d.MAC)
			return
		case req.Method == http.MethodPatch && i < 0:
			f.refuse(w, updating, "Unable to find existing deployment for MAC address [%s]", d.MAC)
			return
		}
		f.unleased = slices.DeleteFunc(f.unleased, func(l wire.Lease) bool { return l.MAC == d.MAC })
		if !known(d.BootConfigName) {
			f.refuse(w, updating, "Host [%s] uses unknown config [%s], stopping config update", d.MAC, d.BootConfigName)
			return
		}
		if i < 0 {
			f.deployments = append(f.deployments, d)
		} else {
			f.deployments[i] = d
		}
		f.ok(w)
	case strings.HasPrefix(call, "DELETE /deployment/mac/"):
		i := at(mac)
		if i < 0 {
			f.refuse(w, updating, "Unable to find existing deployment for Address [%s]", mac)
			return
		}
		if len(f.deployments) > 1 { // the last one stays, with success
			f.deployments = slices.Delete(f.deployments, i, i+1)
		}
		f.ok(w)
	case strings.HasPrefix(call, "GET /deployment/"):
		i := at(mac)
		if i < 0 {
			f.refuse(w, "", "Unable to find %s", mac)
			return
		}
		f.payload(w, f.deployments[i])
	case call == "POST /parlay":
		if len(f.deployments) == 0 {
			f.refuse(w, "Error importing the hosts from deployment", "No deployment configurations found")
			return
		}
		f.jobs++
		f.ok(w)
	case strings.HasPrefix(call, "GET /parlay/logs/"):
		log, ok := f.logs[address]
		switch {
		case ok:
			f.payload(w, log)
		case f.jobs == 0:
			f.refuse(w, "Error reading Parlay Logs", "JSON Logging hasn't been enabled")
		default:
			f.refuse(w, "Error reading Parlay Logs", "No Logs for Target [%s] exist", address)
		}
	case strings.HasPrefix(call, "DELETE /parlay/logs/"):
		if _, ok := f.logs[address]; !ok && f.jobs > 0 {
			f.refuse(w, "Error reading deleting logs", "In-Memory logging for [%s] either doesn't exist or has already been deleted", address)
			return
		}
		delete(f.logs, address)
		f.ok(w)
	default:
		http.NotFound(w, req)
	}
}

// restart forgets what a restarted server forgets.
func (f *fake) restart() {
	f.deployments, f.unleased, f.logs, f.jobs = nil, nil, map[string]wire.Log{}, 0
	f.boot = slices.DeleteFunc(f.boot, func(b wire.BootConfig) bool { return b.ConfigName == wire.RebootConfigName })
}

// made is how often a call was made, e.g. "POST /deployment".
func (f *fake) made(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == call {
			n++
		}
	}
	return n
}

// writes are the calls that were not GET.
func (f *fake) writes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var calls []string
	for _, c := range f.calls {
		if !strings.HasPrefix(c, "GET ") {
			calls = append(calls, c)
		}
	}
	return calls
}

// deployment is what the server has for a MAC.
func (f *fake) deployment(mac string) (wire.Deployment, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return wire.Deployments{Deployments: f.deployments}.ByMAC(mac)
}

// on returns a fault function that does what to the first requests that are
// call, one after the other, and serves everything else.
func on(call string, what ...fault) func(*http.Request) fault {
	return func(req *http.Request) fault {
		if req.Method+" "+req.URL.Path != call || len(what) == 0 {
			return serve
		}
		next := what[0]
		what = what[1:]
		return next
	}
}

// dial is a client of f without a network, for the virtual clock.
func dial(t *testing.T, f *fake, opts ...Option) *Client {
	t.Helper()
	c, err := New(Config{Address: "plunder.example"}, append([]Option{WithTransport(f)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// deployment makes one as translate does.
func deployment(mac, address, hostname string) wire.Deployment {
	return wire.Deployment{MAC: mac, BootConfigName: "preseed", Config: wire.HostConfig{Address: address, Hostname: hostname}}
}

func lease(mac string) wire.Lease { return wire.Lease{MAC: mac, Time: time.Unix(1e9, 0).UTC()} }

// discardLog keeps the servers' complaints about broken connections out of the output.
func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }
