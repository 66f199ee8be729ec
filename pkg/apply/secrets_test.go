package apply_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// What is planted here, and the private keys, must stay where Kubernetes itself keeps it.
const (
	plantedProxy = "planted-proxy-password"
	plantedHook  = "planted-in-a-hook"
	plantedData  = "planted-in-bootstrap-data"
)

var tokenForm = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)

// Whatever goes wrong, no secret is in a command, an event, an error, a record or
// plunder's memory, nor left in files of a host where it does not belong.
func TestSecretsStaySecret(t *testing.T) {
	for _, text := range []string{
		"", "cp1/phase:init bootstrap-token=fail", "cp1/action:init=die,after=3s", "cp1/action:admin=reset,after=1s", "cp1/action:kubeconfig=hang",
		"cp1/run:openssl=fail", "cp2/phase:join control-plane-join/etcd=fail", "w1/phase:join kubelet-start=fail", "cp1/action:work=fail",
		"w1/action:bundle=fail", "w2/action:ci.run=die,after=2s", "w2/action:ci=fail", "w1/run:apt-get install=fail", "cp1/parlay=drop",
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			bubble(t, simulator.Config{Machines: 6}, func(ctx context.Context, r *rack) {
				r.sim.World().KeepJournals()
				hooks := fmt.Sprintf(`, hooks: {before: "true %[1]s\n", after: "true %[1]s\n"}`, plantedHook)
				manifest := ha(hooks, 2, 1) + "\n" + strings.Replace(machineYAML("w2", "192.168.0.101", false, ""), `data: ""`,
					"data: "+base64.StdEncoding.EncodeToString([]byte("#cloud-config\nwrite_files:\n- {path: /run/planted, permissions: '0600', content: "+plantedData+"}\nruncmd: [\"true "+plantedData+"\", \"false "+plantedData+"\"]\n")), 1)
				proxy := func(o *translate.Options) {
					o.Defaults.Proxy = &capi.Proxy{HTTP: "http://me:" + plantedProxy + "@proxy.example.com:3128"}
				}
				if text != "" {
					f, err := simulator.ParseFault(text)
					if err != nil {
						t.Fatal(err)
					}
					r.inject(f)
				}
				_, err := r.apply(ctx, manifest, proxy)
				r.secret(err)
				r.heal()
				res, err := r.apply(ctx, manifest, proxy)
				r.secret(err)
				if n := res.Counts.Ready + res.Counts.Skipped; n != 3 { // the bootstrap data makes no node
					t.Errorf("%d are ready: %v", n, err)
				}
			})
		})
	}
}

// secret checks that no secret is to be seen.
func (r *rack) secret(err error) {
	r.t.Helper()
	look := func(where, text string) {
		r.t.Helper()
		for _, s := range []string{plantedProxy, plantedHook, plantedData, "PRIVATE KEY", "client-key-data", "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVk"} {
			if i := strings.Index(text, s); i >= 0 {
				r.t.Errorf("%s: %q is in it: ...%s", where, s, text[max(0, i-80):min(len(text), i+80)])
			}
		}
		for _, m := range tokenForm.FindAllString(text, -1) {
			r.t.Errorf("%s: a token is in it: %s", where, m)
		}
	}
	look("the error", fmt.Sprint(err))
	for _, e := range r.events {
		raw, _ := json.Marshal(e)
		look("an event", string(raw))
	}
	for _, c := range r.sim.Calls() {
		if c.Function == "POST /parlay" {
			var m struct {
				Deployments []struct {
					Actions []struct{ Command string }
				}
			}
			if err := json.Unmarshal(c.Body, &m); err != nil && c.Body != nil {
				r.t.Error(err)
			}
			for _, d := range m.Deployments {
				for _, a := range d.Actions {
					look("a command", a.Command)
				}
			}
		}
	}
	records, _ := r.store.Records(context.Background())
	for _, rec := range records {
		look("a record", fmt.Sprintf("%+v", rec))
		req, err := http.NewRequest(http.MethodGet, "http://plunder.test/parlay/logs/"+strings.ReplaceAll(rec.Address, ".", "-"), nil)
		if err != nil {
			r.t.Fatal(err)
		}
		if resp, err := r.sim.RoundTrip(req); err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			look("plunder's log of "+rec.Name, string(body))
			if strings.Contains(string(body), "SEALED") {
				r.t.Errorf("the sealed kubeconfig is left in plunder's log of %s", rec.Name)
			}
		}
	}
	stored, _ := r.store.Events(context.Background())
	look("stored events", fmt.Sprintf("%+v", stored))
	r.sim.EachHost(func(_ string, h *host.Host) {
		for _, line := range h.Journal() {
			if !strings.HasPrefix(line, "true "+plantedHook) && line != "true "+plantedData && line != "false "+plantedData { // themselves
				look("arguments on "+h.BootID()[:4], line)
			}
		}
		if !h.Up() {
			return // what is in /run, is in memory
		}
		h.Files(func(path string, data []byte) {
			for _, own := range []string{"/run/planted", "/etc/kubernetes/", "/var/lib/kubelet/", "/var/lib/etcd/"} {
				if strings.HasPrefix(path, own) {
					return
				}
			}
			look("file "+path, string(data))
		})
	})
}
