package translate_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/pki"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const daemonSet = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: network, namespace: kube-system}\n"

// haCluster is a highly available cluster in the making, as a run of capplunder makes it.
type haCluster struct {
	*rack

	k       *translate.Kubernetes // of a control plane
	facts   map[string]translate.Facts
	keys    capi.PKI // with pki: tool
	hash    string
	endless int
	maps    []wire.Map // all that were posted
	logs    []wire.Log
	secrets []string // that may be nowhere but where they belong
	mu      sync.Mutex
}

func newHA(t *testing.T, version, profile string, change func(*translate.Kubernetes), addresses ...string) *haCluster {
	t.Helper()
	c := &haCluster{rack: newRack(t), k: kubernetes(version, true), facts: map[string]translate.Facts{}}
	c.world.KeepJournals()
	c.k.HA, c.k.Endpoint = true, capi.Endpoint{Host: vip, Port: 6443}
	c.k.CNI = &capi.CNI{Manifest: daemonSet}
	if change != nil {
		change(c.k)
	}
	for _, a := range addresses {
		c.add(a, c.targetName(a), func(cfg *host.Config) { cfg.Profile = profile })
		c.facts[a] = c.rack.facts(a)
	}
	c.all(addresses, func(a, job string) {
		m, err := translate.Packages(job, c.target0(a), c.k, c.facts[a])
		c.sent(m, c.post(m, err))
	})
	for _, l := range c.logs {
		c.must(l)
	}
	return c
}

// sent keeps what was posted and what came of it.
func (c *haCluster) sent(m wire.Map, l wire.Log) wire.Log {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.maps, c.logs = append(c.maps, m), append(c.logs, l)
	return l
}

// fresh is a token for a machine, and a certificate key unless the keys of the cluster are given.
func (c *haCluster) fresh(address string) (translate.Token, translate.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endless++
	tok := translate.Token{ID: fmt.Sprintf("tok%03d", c.endless), Secret: translate.Secret(fmt.Sprintf("%016d", 7000+c.endless)), For: c.targetName(address)}
	key := translate.Secret(fmt.Sprintf("%064x", 0xfeed000+c.endless))
	c.secrets = append(c.secrets, tok.Secret.Reveal(), key.Reveal())
	if c.keys != nil {
		key = ""
	}
	return tok, key
}

func (c *haCluster) init(address string) wire.Log {
	c.t.Helper()
	tok, key := c.fresh(address)
	job := c.job()
	m, err := translate.Init(job, c.target0(address), c.k, c.facts[address], translate.InitInput{Token: tok, CertKey: key, PKI: c.keys})
	l := c.sent(m, c.post(m, err))
	if l.State == wire.StateCompleted {
		if c.hash, err = translate.ReadInit(l, job); err != nil {
			c.t.Fatal(err)
		}
	}
	return l
}

func (c *haCluster) work(address string, w translate.Work) translate.WorkResult {
	c.t.Helper()
	w.Expires = time.Now().Add(30 * time.Minute)
	job := c.job()
	m, err := translate.ControlPlaneWork(job, c.target0(address), c.k, w)
	done, err2 := translate.ReadWork(c.must(c.sent(m, c.post(m, err))), job, w)
	if err2 != nil || done.CAHash != c.hash {
		c.t.Fatalf("work: CA %q, want %q, err %v", done.CAHash, c.hash, err2)
	}
	return done
}

func (c *haCluster) joinAs(address string, k *translate.Kubernetes, tok translate.Token, key translate.Secret) wire.Log {
	in := translate.JoinInput{Token: tok, Endpoint: c.k.Endpoint, CAHash: c.hash}
	if k.ControlPlane {
		in.CertKey, in.PKI = key, c.keys
	}
	m, err := translate.Join(c.job(), c.target0(address), k, c.facts[address], in)
	return c.sent(m, c.post(m, err))
}

// addPlane joins a control plane with fresh credentials from another one.
func (c *haCluster) addPlane(from, address string) {
	c.t.Helper()
	tok, key := c.fresh(address)
	c.work(from, translate.Work{Tokens: []translate.Token{tok}, CertKey: key})
	c.must(c.joinAs(address, c.k, tok, key))
	c.work(from, translate.Work{Spent: []string{tok.For}})
}

// addWorkers joins workers at the same time.
func (c *haCluster) addWorkers(from string, addresses ...string) {
	c.t.Helper()
	var w, spent translate.Work
	for _, a := range addresses {
		tok, _ := c.fresh(a)
		w.Tokens, spent.Spent = append(w.Tokens, tok), append(spent.Spent, tok.For)
	}
	c.work(from, w)
	k := *c.k
	k.ControlPlane = false
	logs := make([]wire.Log, len(addresses))
	c.all(addresses, func(a, _ string) {
		i := slices.Index(addresses, a)
		logs[i] = c.joinAs(a, &k, w.Tokens[i], "")
	})
	for _, l := range logs {
		c.must(l)
	}
	c.work(from, spent)
}

// clean fails the test if a secret is where others can see it: in the arguments of a
// program, in sudo's log, in plunder's log, in a command, or in a file that outlives its use.
func (c *haCluster) clean() {
	c.t.Helper()
	for _, p := range c.keys {
		c.secrets = append(c.secrets, base64.StdEncoding.EncodeToString(p.Key), strings.Split(string(p.Key), "\n")[1])
	}
	seen := func(where, text string) {
		for _, s := range c.secrets {
			if strings.Contains(text, s) {
				c.t.Errorf("%s: a secret, %.6s...", where, s)
				return
			}
		}
	}
	for a, h := range c.hosts {
		for _, line := range h.Journal() {
			// kubeadm 1.14 takes the key as an argument only; sudo does not see it.
			if c.k.Minor == 14 && !strings.HasPrefix(line, "sudo") && strings.Contains(line, " --certificate-key ") {
				continue
			}
			seen(a+": "+line[:min(60, len(line))], line)
		}
		if len(h.Journal()) < 50 {
			c.t.Errorf("%s: the journal has %d lines", a, len(h.Journal()))
		}
		h.Files(func(path string, data []byte) {
			if !strings.HasPrefix(path, "/etc/kubernetes/pki/") { // where the cluster's keys belong
				seen(a+": "+path, string(data))
			}
		})
	}
	for i, m := range c.maps {
		for _, action := range m.Deployments[0].Actions {
			seen("command of "+action.Name, action.Command)
		}
		for _, e := range c.logs[i].Entries {
			seen("log of "+e.Task, e.Entry+e.Error)
		}
	}
}

// ready waits until all nodes are, as the engine would, and returns them by name.
func (c *haCluster) ready(from string, addresses ...string) map[string]translate.Node {
	c.t.Helper()
	var w translate.Work
	for _, a := range addresses {
		w.Nodes = append(w.Nodes, translate.WantedNode{Name: c.targetName(a), ProviderID: capi.ProviderID(macOf(a))})
	}
	for range 20 {
		done := c.work(from, w)
		if n := 0; len(done.Nodes) == len(addresses) {
			for _, x := range done.Nodes {
				if x.Ready {
					n++
				}
			}
			if n == len(addresses) {
				return done.Nodes
			}
		}
		time.Sleep(5 * time.Second)
	}
	c.t.Fatal("the nodes do not become ready")
	return nil
}

// TestHighlyAvailable makes a cluster of three control planes and two workers, reads its
// kubeconfig, loses the first control plane, and goes on.
func TestHighlyAvailable(t *testing.T) {
	for _, tt := range []struct {
		version, profile string
		change           func(*translate.Kubernetes)
		tool             bool
	}{
		{version: "1.36.4", profile: host.ProfileNoble},
		{version: "1.34.1", profile: host.ProfileRocky9},
		{version: "1.28.3", profile: host.ProfileBookworm, tool: true},
		{version: "1.34.1", profile: host.ProfileNoble, change: func(k *translate.Kubernetes) { k.VIP = &capi.VIP{} }},
		{version: "1.14.2", profile: host.ProfileBionic, change: func(k *translate.Kubernetes) {
			k.Repo = &capi.PackageRepo{Apt: "deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] https://mirror.example/kubernetes kubernetes-xenial main", Key: "https://mirror.example/kubernetes.gpg"}
		}},
	} {
		t.Run(fmt.Sprintf("%s on %s, tool %v, changed %v", tt.version, tt.profile, tt.tool, tt.change != nil), func(t *testing.T) {
			var keys capi.PKI
			if tt.tool {
				var err error
				if keys, err = pki.New(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil { // the time in the bubble
					t.Fatal(err)
				}
			}
			synctest.Test(t, func(t *testing.T) {
				const a, b, c, w1, w2 = "10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.21", "10.0.0.22"
				ha := newHA(t, tt.version, tt.profile, tt.change, a, b, c, w1, w2)
				if ha.k.VIP != nil {
					ha.world.NoLoadBalancer()
				}
				ha.keys = keys
				ha.must(ha.init(a))
				if hash, err := pki.Hash(keys); tt.tool && (err != nil || hash != ha.hash) {
					t.Errorf("the keys that were given have the hash %s (%v), the cluster's %s", hash, err, ha.hash)
				}
				ha.addPlane(a, b)
				ha.addWorkers(a, w1)
				ha.addPlane(b, c)
				nodes := ha.ready(c, a, b, c, w1)
				if n := nodes["host-12"]; n.ProviderID != capi.ProviderID(macOf(c)) || n.Version != "v"+tt.version || n.UID == "" {
					t.Errorf("node %+v", n)
				}
				s := ha.hosts[c].Cluster()
				if len(s.Members) != 3 || slices.ContainsFunc(s.Members, func(m host.MemberState) bool { return !m.Up || m.Learner }) {
					t.Errorf("members %+v", s.Members)
				}
				planes := 0
				for _, n := range s.Nodes {
					if n.ControlPlane {
						planes++
					}
				}
				if planes != 3 {
					t.Errorf("nodes %+v", s.Nodes)
				}
				// All of them run again, which changes nothing: above all there is one init.
				if l := ha.must(ha.init(a)); !strings.Contains(fmt.Sprint(l.Entries), "capplunder-init already") {
					t.Errorf("a second init: %+v", l.Entries)
				}
				tok, key := ha.fresh(b)
				if l := ha.must(ha.joinAs(b, ha.k, tok, key)); !strings.Contains(lastOf(l), "capplunder-join already") {
					t.Errorf("a second join: %s", lastOf(l))
				}

				conf := ha.kubeconfig(c)
				if !strings.Contains(conf, "server: https://"+vip+":6443") || !strings.Contains(conf, "client-key-data: ") {
					t.Errorf("the kubeconfig is %d bytes that make no sense", len(conf))
				}

				// The first control plane is lost; the others take its work.
				ha.hosts[a].Close()
				time.Sleep(time.Minute)
				ha.addWorkers(b, w2)
				ha.ready(b, b, c, w1, w2)
				ha.hosts[a].Reboot()
				ha.ready(a, a, b, c, w1, w2)
				var left []string
				for _, x := range ha.hosts[a].Cluster().Tokens {
					// The first one, of kubeadm init, ends by itself.
					if x.ID != "tok001" && !strings.HasPrefix(x.Description, "Proxy for managing TTL") {
						left = append(left, x.ID)
					}
				}
				if len(left) > 0 {
					t.Errorf("tokens are left over: %q", left)
				}
				ha.clean()
			})
		})
	}
}

// kubeconfig reads the administrator's kubeconfig, sealed for a key of this run. Its
// private key becomes one of the secrets.
func (c *haCluster) kubeconfig(from string) string {
	c.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		c.t.Fatal(err)
	}
	job := c.job()
	m, err := translate.ReadAdminMap(job, c.target0(from), c.k, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	l := c.must(c.sent(m, c.post(m, err)))
	conf, err := translate.OpenAdmin(l, job, c.k, key)
	if err != nil {
		c.t.Fatal(err)
	}
	// A part of the client's key, in base64 as the file has it and as the key is in PEM.
	_, text, _ := strings.Cut(string(conf), "client-key-data: ")
	text, _, _ = strings.Cut(text, "\n")
	for _, e := range c.logs[len(c.logs)-1].Entries {
		if strings.Contains(e.Entry, text[:32]) {
			c.t.Error("the key is in plunder's log")
		}
	}
	for _, line := range c.hosts[from].Journal() {
		if strings.Contains(line, text[:32]) {
			c.t.Error("the key is in the arguments of a program")
		}
	}
	return string(conf)
}

// TestCertificatesOfControlPlanes: a key that is not the cluster's, or too old, lets no
// control plane in; with fresh credentials the same machine joins.
func TestCertificatesOfControlPlanes(t *testing.T) {
	for _, version := range []string{"1.34.1", "1.28.3"} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const a, b = "10.0.0.10", "10.0.0.11"
				ha := newHA(t, version, host.ProfileNoble, nil, a, b)
				ha.must(ha.init(a))
				tok, key := ha.fresh(b)
				_, wrong := ha.fresh(b)
				ha.work(a, translate.Work{Tokens: []translate.Token{tok}, CertKey: key})
				l := ha.joinAs(b, ha.k, tok, wrong)
				if text := translate.Explain(l.Entries[len(l.Entries)-1]); l.State != wire.StateFailed || !strings.Contains(text, "message authentication failed") {
					t.Errorf("a wrong key: %s: %s", l.State, text)
				}
				time.Sleep(3 * time.Hour)
				late, _ := ha.fresh(b)
				ha.work(a, translate.Work{Tokens: []translate.Token{late}})
				l = ha.joinAs(b, ha.k, late, key)
				if text := translate.Explain(l.Entries[len(l.Entries)-1]); l.State != wire.StateFailed || !strings.Contains(text, `"kubeadm-certs" was not found`) {
					t.Errorf("an old key: %s: %s", l.State, text)
				}
				if s := ha.hosts[a].Cluster(); len(s.Members) != 1 || len(s.Nodes) != 1 {
					t.Errorf("cluster %+v", s)
				}
				ha.addPlane(a, b)
				if s := ha.hosts[b].Cluster(); len(s.Members) != 2 || len(s.Nodes) != 2 {
					t.Errorf("cluster %+v", s)
				}
				ha.clean()
			})
		})
	}
}

// TestEndpointComesBack: while nobody answers under the endpoint nothing joins, and what
// was tried can be tried again.
func TestEndpointComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const a, b = "10.0.0.10", "10.0.0.11"
		ha := newHA(t, "1.34.1", host.ProfileNoble, nil, a, b)
		gone := true
		for _, h := range ha.hosts {
			h.Sabotage(func(s host.Step) *host.Trouble {
				if gone && s.Is("endpoint:*") {
					return &host.Trouble{Exit: 28}
				}
				return nil
			})
		}
		l := ha.init(a)
		if l.State != wire.StateFailed {
			t.Fatalf("init without its endpoint: %s", l.State)
		}
		before := ha.on(a, "sha256sum </etc/kubernetes/pki/ca.crt")
		gone = false
		ha.must(ha.init(a))
		if after := ha.on(a, "sha256sum </etc/kubernetes/pki/ca.crt"); after != before {
			t.Error("a control plane that runs was made anew")
		}
		gone = true
		tok, key := ha.fresh(b)
		gone = false
		ha.work(a, translate.Work{Tokens: []translate.Token{tok}, CertKey: key})
		gone = true
		l = ha.joinAs(b, ha.k, tok, key)
		if text := translate.Explain(l.Entries[len(l.Entries)-1]); l.State != wire.StateFailed || !strings.Contains(text, "i/o timeout") {
			t.Errorf("a join without the endpoint: %s", text)
		}
		gone = false
		ha.addPlane(a, b)
		if s := ha.hosts[b].Cluster(); len(s.Members) != 2 || len(s.Nodes) != 2 {
			t.Errorf("cluster %+v", s)
		}
		ha.clean()
	})
}
