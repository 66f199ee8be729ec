package kill

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// haSamples is how many places an installation is killed at, of all that there are:
// each costs three runs of the program.
const haSamples = 18

// haManifests are a cluster with three control plane machines and two workers; spec is
// of its PlunderCluster.
func haManifests(t *testing.T, spec string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata: {name: ha}
spec:
  controlPlaneEndpoint: {host: 192.168.1.200, port: 6443}
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderCluster, name: ha}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderCluster
metadata: {name: ha}
spec: {%s}
`, spec)
	for i, name := range []string{"cp1", "cp2", "cp3", "w1", "w2"} {
		role := ""
		if i < 3 {
			role = `, labels: {cluster.x-k8s.io/control-plane: ""}`
		}
		fmt.Fprintf(&b, `---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: %[1]s}
spec: {ipaddress: 192.168.1.%[2]d, deploymentType: preseed}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Machine
metadata: {name: %[1]s%[3]s}
spec:
  clusterName: ha
  version: v1.34.1
  bootstrap: {dataSecretName: ""}
  infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, name: %[1]s}
`, name, 210+i, role)
	}
	path := filepath.Join(t.TempDir(), "ha.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// haRig is a rig for such a cluster, that knows the secrets which passed through it.
type haRig struct {
	*rig
	planted *planted
	output  strings.Builder // of all runs
}

func newHARig(t *testing.T) *haRig {
	t.Helper()
	r := &haRig{
		rig: newRigOf(t, simulator.Config{
			Machines: 6, OSInstall: 200 * time.Millisecond, KubernetesInstall: 100 * time.Millisecond,
			BootLoop: 100 * time.Millisecond, BootTime: 100 * time.Millisecond, SSHLatency: 5 * time.Millisecond, POSTCost: time.Microsecond,
		}),
		planted: &planted{secrets: map[string]string{}},
	}
	r.sim.World().KeepJournals()
	r.sim.OnRequest(func(c simulator.Call) {
		if c.Function == "POST /parlay" {
			r.planted.note(t, c.Body)
		}
	})
	return r
}

// whole checks that the cluster is what it should be, whatever happened on the way.
func (r *haRig) whole() *host.ClusterState {
	r.t.Helper()
	records := r.records()
	var names, planes []string
	var first *host.Host
	inits := 0
	for _, rec := range records {
		if !rec.Ready || rec.Phase != capi.PhaseRunning || rec.NodeName != rec.HostName || rec.ProviderID != capi.ProviderID(rec.MAC) {
			r.t.Errorf("%s is not a node: %+v", rec.Key, rec)
		}
		h := r.sim.Host(rec.MAC)
		if h == nil {
			r.t.Fatalf("%s: its host is gone", rec.Key)
		}
		for _, line := range h.History() {
			if strings.HasPrefix(line, "kubeadm init --config") {
				inits++
			}
		}
		names = append(names, rec.HostName)
		if rec.ControlPlane {
			planes = append(planes, rec.HostName)
			first = h
		}
	}
	if len(records) != 5 {
		r.t.Fatalf("%d records", len(records))
	}
	for mac, n := range r.installs() {
		if n != 1 {
			r.t.Errorf("machine %s was installed %d times", mac, n)
		}
	}
	if inits != 1 {
		r.t.Errorf("kubeadm init ran %d times", inits)
	}
	c := first.Cluster()
	if c == nil {
		r.t.Fatal("the API server of a control plane does not answer")
	}
	var nodes, members []string
	for _, n := range c.Nodes {
		nodes = append(nodes, n.Name)
	}
	for _, m := range c.Members {
		if m.Learner || !m.Up {
			r.t.Errorf("a member of etcd is not one: %+v", m)
		}
		members = append(members, m.Name)
	}
	for _, list := range [][]string{names, planes, nodes, members} {
		slices.Sort(list)
	}
	if !slices.Equal(nodes, names) || !slices.Equal(members, planes) {
		r.t.Errorf("nodes %v and members of etcd %v; the machines are %v", nodes, members, names)
	}
	r.clean(c, records)
	return c
}

// clean checks that no secret is left where it should not be.
func (r *haRig) clean(c *host.ClusterState, records []capi.Record) {
	r.t.Helper()
	for _, token := range c.Tokens {
		limit := time.Hour // that nobody lived to remove
		if strings.HasPrefix(token.Description, "Proxy for managing TTL") {
			limit = 2 * time.Hour // kubeadm's own, which opens nothing
		}
		if token.Expires.IsZero() || time.Until(token.Expires) > limit {
			r.t.Errorf("token %s (%s) stays in the cluster until %s", token.ID, token.Description, token.Expires)
		}
	}
	secrets := r.planted.all()
	if len(secrets) < 5 { // at least a token for each machine
		r.t.Errorf("only %d secrets passed: the test does not see them", len(secrets))
	}
	look := func(where, text string) {
		for secret, what := range secrets {
			if strings.Contains(text, secret) {
				r.t.Errorf("%s: %s is in it", where, what)
			}
		}
		if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, "client-key-data") {
			r.t.Errorf("%s: a private key is in it", where)
		}
	}
	for _, rec := range records {
		h := r.sim.Host(rec.MAC)
		journal := h.Journal()
		if len(journal) == 0 {
			r.t.Errorf("%s: nothing ran on it", rec.Name)
		}
		look(rec.Name+": arguments of programs and the log of sudo", strings.Join(journal, "\n"))
		h.Files(func(path string, data []byte) {
			if strings.HasPrefix(path, "/etc/kubernetes/") || strings.HasPrefix(path, "/var/lib/kubelet/pki/") || strings.HasPrefix(path, "/var/lib/etcd/") {
				return // kubeadm's own keys
			}
			look(rec.Name+": "+path, string(data))
		})
		look(rec.Name+": plunder's log", r.log(rec.Address))
	}
	look("what the program said", r.output.String())
	err := filepath.WalkDir(r.state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || slices.Contains([]string{"kubeconfigs", "pki"}, filepath.Base(filepath.Dir(path))) {
			return err
		}
		data, err := os.ReadFile(path)
		look(path, string(data))
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
}

// log is what the server would tell about an address.
func (r *haRig) log(address string) string {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://plunder/parlay/logs/"+strings.ReplaceAll(address, ".", "-"), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := r.sim.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		r.t.Fatal(err)
	}
	return string(body)
}

// mustApply runs the program undisturbed, and keeps what it said.
func (r *haRig) mustApply(args []string) string {
	r.t.Helper()
	code, out, errOut := r.run(args, nil, nil)
	r.output.WriteString(out + errOut)
	if code != 0 {
		r.t.Fatalf("%v: exit %d\n%s%s", args, code, out, errOut)
	}
	return out
}

// A cluster with several control planes: wherever the program is killed, and once more
// while it makes up for that, the next run makes it whole. Nobody initialises twice.
func TestKilledHighlyAvailableConverges(t *testing.T) {
	install := func(t *testing.T, spec string) []string {
		t.Helper()
		return []string{"apply", "-f", haManifests(t, spec)}
	}
	undisturbed := newHARig(t)
	out := undisturbed.mustApply(install(t, ""))
	for _, token := range undisturbed.whole().Tokens {
		if !strings.HasPrefix(token.Description, "Proxy") {
			t.Errorf("token %s (%s) is left", token.ID, token.Description)
		}
	}
	requests, events := undisturbed.requests.Load(), strings.Count(out, "\n")
	all := points(requests, undisturbed.changes.Load(), events)
	t.Logf("an installation makes %d requests and reports %d events; it is killed at %d of these places", requests, events, haSamples)
	random := rand.New(rand.NewPCG(4, 2))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, p := range all[:min(haSamples, len(all))] {
		again, spec, keys := point{p.where, 1 + random.Int64N(p.n)}, "", "kubeadm"
		if i%3 == 2 {
			spec, keys = "pki: tool", "tool"
		}
		t.Run(fmt.Sprintf("%s-%d-then-%d-pki-%s", p.where, p.n, again.n, keys), func(t *testing.T) {
			t.Parallel()
			r := newHARig(t)
			args := install(t, spec)
			for _, p := range []point{p, again} {
				if !r.killed(p, args...) {
					t.Logf("ended before %s %d", p.where, p.n)
				}
			}
			r.mustApply(args)
			r.whole()
			r.sim.ForgetCalls()
			out := r.mustApply(args)
			if m := r.sim.Mutations(); len(m) > 0 || strings.Count(out, `"type":"Skipped"`) != 5 {
				t.Errorf("a run that has nothing to do changes nothing, but: %v\n%s", m, out)
			}
		})
	}
}

// planted are the secrets that went to hosts, and what they are.
type planted struct {
	mu      sync.Mutex
	secrets map[string]string
}

func (p *planted) all() map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.secrets)
}

var (
	chunkForm  = regexp.MustCompile(`^printf %s '([A-Za-z0-9+/=]*)'$`)
	secretForm = map[string]*regexp.Regexp{
		"the secret of a token": regexp.MustCompile(`\b[a-z0-9]{6}\.([a-z0-9]{16})\b`),
		"a token's secret":      regexp.MustCompile(`token-secret"?: *"?([a-z0-9]{16})\b`),
		"a certificate key":     regexp.MustCompile(`certificateKey"?: *"?([0-9a-f]{64})\b`),
	}
)

// note looks into the bundles of a map.
func (p *planted) note(t *testing.T, body []byte) {
	t.Helper()
	var m wire.Map
	if err := json.Unmarshal(body, &m); err != nil {
		t.Errorf("a map: %v", err)
		return
	}
	for _, d := range m.Deployments {
		var bundle []byte
		for _, a := range d.Actions {
			if chunk := chunkForm.FindStringSubmatch(a.CommandPipeCmd); chunk != nil {
				raw, err := base64.StdEncoding.DecodeString(chunk[1])
				if err != nil {
					t.Errorf("a bundle: %v", err)
				}
				bundle = append(bundle, raw...)
			}
		}
		if len(bundle) > 0 {
			p.unpack(t, bundle)
		}
	}
}

func (p *planted) unpack(t *testing.T, bundle []byte) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(bundle))
	if err != nil {
		t.Errorf("a bundle: %v", err)
		return
	}
	files := tar.NewReader(z)
	for {
		_, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		text, err2 := io.ReadAll(files)
		if err := errors.Join(err, err2); err != nil {
			t.Errorf("a bundle: %v", err)
			return
		}
		p.mu.Lock()
		for what, form := range secretForm {
			for _, found := range form.FindAllSubmatch(text, -1) {
				p.secrets[string(found[1])] = what
			}
		}
		p.mu.Unlock()
	}
}
