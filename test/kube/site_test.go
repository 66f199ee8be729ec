// Package kube runs the real program against a real kube-apiserver and etcd and
// the simulated plunder server: what must hold when Kubernetes is the record.
package kube

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/test/program"
)

// patience is how long one run of the program may take before the test gives up.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	os.Exit(program.Main(8, func() int { return kubetest.Main(m) }))
}

// nets gives every site addresses of its own: one is never given twice, whoever asks.
var nets, seeds atomic.Int64

// rack is a simulated plunder server with its own machines.
type rack struct {
	sim    *simulator.Server
	config string // plunderclient.yaml
}

func newRack(t *testing.T, machines int) *rack {
	t.Helper()
	return newRackWith(t, machines, 300*time.Millisecond)
}

// newRackWith is a rack on which an operating system takes so long to install.
func newRackWith(t *testing.T, machines int, install time.Duration) *rack {
	t.Helper()
	sim := simulator.New(simulator.Config{
		Machines: machines, Seed: seeds.Add(1), OSInstall: install, KubernetesInstall: 200 * time.Millisecond,
		BootLoop: 100 * time.Millisecond, BootTime: 100 * time.Millisecond, SSHLatency: 5 * time.Millisecond, POSTCost: time.Microsecond,
	})
	l, err := sim.Listen(t.Context(), "127.0.0.1:0", simulator.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sim.Close(); err != nil {
			t.Error(err)
		}
	})
	config := filepath.Join(t.TempDir(), "plunderclient.yaml")
	client := plunder.Config{Address: l.Address, Port: l.Port, Cert: base64.StdEncoding.EncodeToString(l.CertPEM)}
	if err := client.WriteFile(config); err != nil {
		t.Fatal(err)
	}
	return &rack{sim: sim, config: config}
}

// site is one namespace of a cluster with the manifests of one workload cluster.
type site struct {
	t          *testing.T
	env        *kubetest.Env
	rack       *rack
	kubeconfig string // of somebody who has the shipped role and nothing else
	admin      string // kubeconfig of an administrator
	namespace  string
	manifests  string // directory
	machines   []string
	home       string
}

// newSite makes manifests of a cluster with a control plane (unless osOnly) and workers.
func newSite(t *testing.T, env *kubetest.Env, r *rack, version string, workers int) *site {
	t.Helper()
	s := &site{t: t, env: env, rack: r, admin: env.Kubeconfig(t), namespace: env.Namespace(t), manifests: t.TempDir(), home: t.TempDir()}
	s.kubeconfig = kubetest.WriteKubeconfig(t, operator(t, env), s.namespace)
	net := nets.Add(1)
	belongs := "  clusterName: c\n  bootstrap: {dataSecretName: \"\"}"
	if version == "v1alpha2" {
		belongs = "  bootstrap: {data: \"\"}"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: cluster.x-k8s.io/%[1]s
kind: Cluster
metadata: {name: c}
spec:
  clusterNetwork: {pods: {cidrBlocks: ["10.244.0.0/16"]}}
  infrastructureRef: %[2]s
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderCluster
metadata: {name: c}
`, version, ref(version, "PlunderCluster", "c"))
	for i := range workers + 1 {
		name, label := fmt.Sprintf("w%02d", i), ""
		if i == 0 {
			name, label = "cp", `, cluster.x-k8s.io/control-plane: "true"`
		}
		s.machines = append(s.machines, name)
		fmt.Fprintf(&b, `---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata: {name: %[1]s}
spec: {ipaddress: 10.%[2]d.%[3]d.%[4]d}
---
apiVersion: cluster.x-k8s.io/%[5]s
kind: Machine
metadata: {name: %[1]s, labels: {cluster.x-k8s.io/cluster-name: c%[6]s}}
spec:
%[8]s
  version: v1.34.1
  infrastructureRef: %[7]s
`, name, net/200, net%200, 10+i, version, label, ref(version, "PlunderMachine", name), belongs)
	}
	if err := os.WriteFile(filepath.Join(s.manifests, "cluster.yaml"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func ref(version, kind, name string) string {
	if version == "v1beta2" {
		return fmt.Sprintf("{apiGroup: infrastructure.cluster.x-k8s.io, kind: %s, name: %s}", kind, name)
	}
	return fmt.Sprintf("{apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: %s, name: %s}", kind, name)
}

// kubectl runs kubectl in the site's namespace, as administrator.
func (s *site) kubectl(args ...string) string {
	s.t.Helper()
	return s.env.Kubectl(s.t, s.admin, append([]string{"-n", s.namespace}, args...)...)
}

// run is one run of the program: how it ended and what it said.
type run struct {
	code           int
	stdout, stderr string
}

func (r run) String() string {
	return program.Run{Code: r.code, Stdout: r.stdout, Stderr: r.stderr}.String()
}

// start runs the program; kill, if not nil, is handed a function that kills it before
// anything can be sent, and event is called for each line of stdout.
func (s *site) start(args []string, kill func(func()), event func(line string)) run {
	s.t.Helper()
	r := program.Do(s.t, program.Options{
		Args:     append(args, "-p", s.rack.config, "--store", "kubernetes", "-n", s.namespace, "-o", "json"),
		Env:      []string{"KUBECONFIG=" + s.kubeconfig, "HOME=" + s.home, "CAPPLUNDER_INTERVAL=50ms"},
		Patience: patience, Started: kill, Line: event,
	})
	return run{r.Code, r.Stdout, r.Stderr}
}

func (s *site) run(args ...string) run { return s.start(args, nil, nil) }

// must runs the program and fails if it does not exit 0.
func (s *site) must(args ...string) run {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatalf("%v: %s", args, r)
	}
	return r
}

func (s *site) apply() []string { return []string{"apply", "-f", s.manifests} }

// records are what `get machines` says.
func (s *site) records() map[string]record {
	s.t.Helper()
	var list struct{ Items []record }
	r := s.must("get", "machines")
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil {
		s.t.Fatalf("%v: %s", err, r)
	}
	found := map[string]record{}
	for _, rec := range list.Items {
		found[rec.Name] = rec
	}
	return found
}

type record struct {
	Name, MAC, Address, HostName, ProviderID, Phase string
	Ready                                           bool
}

// provisioned checks that every machine is ready on hardware of its own, installed once.
func (s *site) provisioned() {
	s.t.Helper()
	records := s.records()
	macs := map[string]bool{}
	for _, name := range s.machines {
		rec, ok := records[name]
		if !ok || !rec.Ready || rec.ProviderID != "plunder://"+rec.MAC || macs[rec.MAC] {
			s.t.Errorf("%s is not ready, or on hardware of another: %+v", name, rec)
		}
		macs[rec.MAC] = true
		for _, m := range s.rack.sim.Machines() {
			if m.MAC == rec.MAC && (m.Address != rec.Address || m.HostName != rec.HostName || m.Phase != "up" || m.Installs != 1) {
				s.t.Errorf("%s is recorded as %s (%s), but the machine is %+v", name, rec.HostName, rec.Address, m)
			}
		}
	}
}

// apiProxy passes requests on to the API server as the operator. That a client is killed
// in the middle is what it is for.
func apiProxy(t *testing.T, env *kubetest.Env) *httputil.ReverseProxy {
	t.Helper()
	transport, err := rest.TransportFor(operator(t, env))
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(env.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	if target.Scheme == "" {
		target.Scheme, target.Host = "https", env.Config.Host
	}
	return &httputil.ReverseProxy{
		Transport:    transport,
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
}
