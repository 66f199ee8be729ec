package translate_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/pki"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const (
	first, other, vip = "10.0.0.10", "10.0.0.11", "10.0.0.99"
	someKey           = translate.Secret("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
)

// planes are control plane hosts on which everything is installed.
func planes(t *testing.T, version string, addresses ...string) (*rack, *translate.Kubernetes, map[string]translate.Facts) {
	t.Helper()
	r := newRack(t)
	k := kubernetes(version, true)
	k.ControlPlane, k.HA, k.Endpoint = true, true, capi.Endpoint{Host: vip, Port: 6443}
	facts := map[string]translate.Facts{}
	for _, a := range addresses {
		r.add(a, r.targetName(a), func(c *host.Config) { c.Profile = host.ProfileNoble })
		facts[a] = r.facts(a)
		r.must(r.post(translate.Packages(r.job(), r.target(a), k, facts[a])))
	}
	return r, k, facts
}

// target0 is the host in whatever boot it is.
func (r *rack) target0(address string) translate.Target {
	t := r.target(address)
	t.Guard.BootID = ""
	return t
}

func (r *rack) on(address, script string) string {
	r.t.Helper()
	res := r.hosts[address].Run(r.t.Context(), host.Command{Line: "sudo -n -u root bash -c '" + strings.ReplaceAll(script, "'", `'\''`) + "'", Combined: true})
	return res.Output
}

// power cuts the host off as soon as a step is reached, once.
func (r *rack) power(address, pattern string) {
	h, done := r.hosts[address], false
	h.Sabotage(func(s host.Step) *host.Trouble {
		if done || !s.Is(pattern) {
			return nil
		}
		done = true
		return &host.Trouble{Do: h.Reboot}
	})
}

func lastOf(l wire.Log) string { return l.Entries[len(l.Entries)-1].Entry }

// await waits until a host runs again.
func (r *rack) await(address string) {
	r.t.Helper()
	for range 100 {
		if res := r.hosts[address].Run(r.t.Context(), host.Command{Line: "true"}); res.Err == nil && res.Exit == 0 {
			return
		}
		time.Sleep(5 * time.Second)
	}
	r.t.Fatalf("%s does not come back", address)
}

// TestInitCutOff: whatever kubeadm init is cut off by, and however often, there is one
// cluster afterwards, and a control plane that was ever reached stays the one it is.
func TestInitCutOff(t *testing.T) {
	for _, tt := range []struct {
		at   string
		same bool // the API server was there, so its keys must be the same afterwards
	}{
		{"run:kubeadm config images", false},
		{"run:kubeadm init", false},
		{"phase:init certs", false},
		{"phase:init control-plane", false},
		{"phase:init upload-config", true},
		{"phase:init mark-control-plane", true},
		{"phase:init addon", true},
		{"run:touch /etc/kubernetes/capplunder/init.done", true},
		{"run:sync", false},
	} {
		t.Run(tt.at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, k, facts := planes(t, "1.34.1", first)
				k.VIP = &capi.VIP{}
				r.power(first, tt.at)
				l := r.post(translate.Init(r.job(), r.target0(first), k, facts[first], translate.InitInput{Token: token("aaaaaa"), CertKey: someKey}))
				if l.State == wire.StateCompleted {
					t.Fatal("it was not cut off")
				}
				r.await(first)
				before := r.on(first, "sha256sum </etc/kubernetes/pki/ca.crt")
				job := r.job()
				l = r.must(r.post(translate.Init(job, r.target0(first), k, facts[first], translate.InitInput{Token: token("bbbbbb"), CertKey: someKey})))
				if _, err := translate.ReadInit(l, job); err != nil {
					t.Error(err)
				}
				if after := r.on(first, "sha256sum </etc/kubernetes/pki/ca.crt"); tt.same && after != before {
					t.Errorf("the control plane was made anew: CA %s, then %s", before, after)
				}
				if nodes := r.hosts[first].Nodes(); !slices.Equal(nodes, []string{"host-10"}) {
					t.Errorf("nodes %q", nodes)
				}
				if left := r.on(first, "ls /run/capplunder; grep path: /etc/kubernetes/manifests/kube-vip.yaml"); strings.Contains(left, "yaml\n") || strings.Contains(left, "super-admin") || !strings.Contains(left, "/etc/kubernetes/admin.conf") {
					t.Errorf("left: %s", left)
				}
				// Others can join: everything after the API server was done, too.
				r.joins(k, facts[first])
			})
		})
	}
}

// joins has another control plane join the cluster of the first one.
func (r *rack) joins(k *translate.Kubernetes, f translate.Facts) {
	r.t.Helper()
	r.add(other, r.targetName(other), func(c *host.Config) { c.Profile = host.ProfileNoble })
	r.must(r.post(translate.Packages(r.job(), r.target(other), k, f)))
	l := r.join(k, f, "second")
	r.must(l)
	if nodes := r.hosts[first].Nodes(); !slices.Equal(nodes, []string{"host-10", "host-11"}) {
		r.t.Errorf("nodes %q", nodes)
	}
}

// join makes credentials and joins the other host with them.
func (r *rack) join(k *translate.Kubernetes, f translate.Facts, id string) wire.Log {
	r.t.Helper()
	tok := token(id)
	tok.For = "host-11"
	w := translate.Work{Tokens: []translate.Token{tok}, Expires: time.Now().Add(30 * time.Minute)}
	if k.ControlPlane {
		w.CertKey = someKey
	}
	job := r.job()
	done, err := translate.ReadWork(r.must(r.post(translate.ControlPlaneWork(job, r.target0(first), k, w))), job, w)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.post(translate.Join(r.job(), r.target0(other), k, f, translate.JoinInput{Token: token(id), CertKey: w.CertKey, Endpoint: k.Endpoint, CAHash: done.CAHash}))
}

// TestInitNeverAgain: a control plane that does not answer is left as it is.
func TestInitNeverAgain(t *testing.T) {
	for name, spoil := range map[string]string{
		"it came up":            "systemctl stop kubelet",
		"nobody wrote that":     "systemctl stop kubelet; rm /etc/kubernetes/capplunder/init.done",
		"and the log is gone":   "systemctl stop kubelet; rm /etc/kubernetes/capplunder/init.done /var/log/capplunder/init.log",
		"somebody else's":       "systemctl stop kubelet; rm /etc/kubernetes/capplunder/init.done /etc/kubernetes/capplunder/init.started /var/log/capplunder/init.log",
		"only etcd's data":      "systemctl stop kubelet; rm -r /etc/kubernetes/capplunder /etc/kubernetes/manifests /etc/kubernetes/kubelet.conf; rm /var/log/capplunder/init.log",
		"the log ends too soon": "systemctl stop kubelet; rm /etc/kubernetes/capplunder/init.done; sed -i '/initialized successfully/d; /addons/d' /var/log/capplunder/init.log",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, k, facts := planes(t, "1.34.1", first)
				r.must(r.post(translate.Init(r.job(), r.target(first), k, facts[first], translate.InitInput{Token: token("aaaaaa"), CertKey: someKey})))
				r.on(first, spoil)
				before := r.on(first, "sha256sum </etc/kubernetes/pki/ca.crt; ls /var/lib/etcd")
				l := r.post(translate.Init(r.job(), r.target(first), k, facts[first], translate.InitInput{Token: token("bbbbbb"), CertKey: someKey}))
				if l.State == wire.StateCompleted || !strings.Contains(lastOf(l), "not touching it") {
					t.Errorf("%s: %s", l.State, lastOf(l))
				}
				if after := r.on(first, "sha256sum </etc/kubernetes/pki/ca.crt; ls /var/lib/etcd"); after != before {
					t.Errorf("it was touched: %q, then %q", before, after)
				}
			})
		})
	}
}

// TestJoinCutOff: the next join begins clean, and the cluster counts each machine once.
func TestJoinCutOff(t *testing.T) {
	for _, tt := range []struct {
		at string
		cp bool
	}{
		{"phase:join control-plane-prepare/certs", true}, {"phase:join control-plane-prepare/control-plane", true}, {"phase:join kubelet-start", true},
		{"phase:join control-plane-join/etcd", true}, {"phase:join control-plane-join/mark-control-plane", true}, {"run:touch /etc/kubernetes/capplunder/join.done", true},
		{"phase:join kubelet-start", false}, {"run:touch /etc/kubernetes/capplunder/join.done", false}, {"run:kubeadm join", false},
	} {
		t.Run(tt.at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, k, facts := planes(t, "1.34.1", first, other)
				r.must(r.post(translate.Init(r.job(), r.target(first), k, facts[first], translate.InitInput{Token: token("aaaaaa"), CertKey: someKey})))
				k.ControlPlane = tt.cp
				r.power(other, tt.at)
				if l := r.join(k, facts[other], "first1"); l.State == wire.StateCompleted {
					t.Fatal("it was not cut off")
				}
				r.await(other)
				r.must(r.join(k, facts[other], "again1"))
				if nodes := r.hosts[first].Nodes(); !slices.Equal(nodes, []string{"host-10", "host-11"}) {
					t.Errorf("nodes %q", nodes)
				}
				// And once more, which changes nothing.
				if l := r.must(r.join(k, facts[other], "again2")); !strings.Contains(lastOf(l), "capplunder-join already") {
					t.Errorf("a third join: %s", lastOf(l))
				}
				if left := r.on(other, "ls /run/capplunder"); strings.Contains(left, ".yaml") || strings.Contains(left, ".conf") || strings.Contains(left, "certkey") {
					t.Errorf("left: %s", left)
				}
			})
		})
	}
}

// TestNodesOnHosts: nodes are seen as kubectl shows them, one without provider ID gets
// it, and tokens that were used go.
func TestNodesOnHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, k, facts := planes(t, "1.34.1", first, other)
		r.must(r.post(translate.Init(r.job(), r.target(first), k, facts[first], translate.InitInput{Token: token("aaaaaa"), CertKey: someKey})))
		k.ControlPlane = false
		r.must(r.join(k, facts[other], "worker"))
		w := translate.Work{Spent: []string{"host-11", "absent"}, Nodes: []translate.WantedNode{
			{Name: "host-10", ProviderID: capi.ProviderID(macOf(first))}, {Name: "named-otherwise", ProviderID: capi.ProviderID(macOf(other))}, {Name: "host-1", ProviderID: "plunder://00:00:00:00:00:01"},
		}}
		job := r.job()
		l := r.must(r.post(translate.ControlPlaneWork(job, r.target(first), k, w)))
		got, err := translate.ReadWork(l, job, w)
		if err != nil {
			t.Fatal(err)
		}
		if n := got.Nodes["host-10"]; n.Name != "host-10" || n.UID == "" || n.Version != "v1.34.1" || n.ProviderID != capi.ProviderID(macOf(first)) || n.Reason == "" {
			t.Errorf("%+v", n)
		}
		if n := got.Nodes["named-otherwise"]; n.Name != "host-11" || len(got.Nodes) != 2 {
			t.Errorf("%+v", got.Nodes)
		}
		if s := r.on(first, "kubectl --kubeconfig=/etc/kubernetes/admin.conf get secret -n kube-system bootstrap-token-worker"); !strings.Contains(s, "NotFound") {
			t.Errorf("the used token: %q", s)
		}
	})
}

// TestKeysOfOurOwn: with pki: tool the cluster has the CA that was made here, control
// planes need nothing of each other, and the kubeconfig that was signed here is good.
func TestKeysOfOurOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, k, facts := planes(t, "1.34.1", first, other)
		keys, err := pki.New(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		want, err := pki.Hash(keys)
		if err != nil {
			t.Fatal(err)
		}
		job := r.job()
		l := r.must(r.post(translate.Init(job, r.target(first), k, facts[first], translate.InitInput{Token: token("aaaaaa"), PKI: keys})))
		if hash, err := translate.ReadInit(l, job); err != nil || hash != want {
			t.Errorf("CA %s, err %v, want %s", hash, err, want)
		}
		w := translate.Work{Tokens: []translate.Token{token("second")}, Expires: time.Now().Add(30 * time.Minute)}
		r.must(r.post(translate.ControlPlaneWork(r.job(), r.target(first), k, w)))
		r.must(r.post(translate.Join(r.job(), r.target(other), k, facts[other], translate.JoinInput{Token: token("second"), PKI: keys, Endpoint: k.Endpoint, CAHash: want})))
		for _, a := range []string{first, other} {
			if s := r.on(a, "ls -R /run/capplunder; stat -c %a /etc/kubernetes/pki/ca.key /etc/kubernetes/pki/sa.key /etc/kubernetes/pki/etcd/ca.key /etc/kubernetes/pki/ca.crt"); strings.Contains(s, ".key\n") && strings.Contains(strings.SplitN(s, "600", 2)[0], "ca.key") || !strings.HasSuffix(strings.TrimSpace(s), "600\n600\n600\n644") {
				t.Errorf("%s: %s", a, s)
			}
		}
		conf, err := pki.AdminKubeconfig(keys, "prod", k.Endpoint, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if s := r.on(other, "cat >/tmp/conf <<'X'\n"+string(conf)+"\nX\nkubectl --kubeconfig=/tmp/conf get nodes -o name"); !strings.Contains(s, "node/host-11") {
			t.Errorf("the kubeconfig is not good: %s", s)
		}
	})
}

// TestAfterInit: the network add-on, the user's script and the kubeconfig, once and
// again.
func TestAfterInit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, k, facts := planes(t, "1.34.1", first)
		k.CNI = &capi.CNI{Manifest: "apiVersion: apps/v1\nkind: DaemonSet\nmetadata:\n  name: kube-flannel-ds\n  namespace: kube-flannel\n"}
		k.Hooks = &capi.Hooks{After: "echo run >>/root/hook; echo secret of the hook >/dev/null"}
		init := func() wire.Log {
			return r.must(r.post(translate.Init(r.job(), r.target(first), k, facts[first], translate.InitInput{Token: token("aaaaaa"), CertKey: someKey})))
		}
		init()
		init()
		if s := r.on(first, "cat /root/hook; ls /run/capplunder"); !strings.HasPrefix(s, "run\n") || strings.Count(s, "run\n") != 1 || strings.Contains(s, "cni") || strings.Contains(s, "hook") {
			t.Errorf("%q", s)
		}
		time.Sleep(time.Minute)
		w := translate.Work{Nodes: []translate.WantedNode{{Name: "host-10", ProviderID: capi.ProviderID(macOf(first))}}}
		job := r.job()
		got, err := translate.ReadWork(r.must(r.post(translate.ControlPlaneWork(job, r.target(first), k, w))), job, w)
		if err != nil || !got.Nodes["host-10"].Ready {
			t.Errorf("%+v, err %v", got, err)
		}

		key, public := sealingKey(t)
		job = r.job()
		l := r.must(r.post(translate.ReadAdminMap(job, r.target(first), k, public)))
		text, err := translate.OpenAdmin(l, job, k, key)
		if err != nil || strings.TrimSpace(string(text)) != strings.TrimSpace(r.on(first, "cat /etc/kubernetes/admin.conf")) {
			t.Errorf("%.80q, err %v", text, err)
		}
		k.KubeconfigTransport = capi.KubeconfigPlain
		job = r.job()
		l = r.must(r.post(translate.ReadAdminMap(job, r.target(first), k, nil)))
		if plain, err := translate.OpenAdmin(l, job, k, nil); err != nil || string(plain) != string(text) {
			t.Errorf("plain: %.80q, err %v", plain, err)
		}
	})
}

// TestInitFails: what kubeadm could not do can be done after a fix, without a second
// cluster if there was one already.
func TestInitFails(t *testing.T) {
	for _, tt := range []struct {
		at   string
		same bool
	}{{"phase:init kubelet-start", false}, {"phase:init bootstrap-token", true}, {"phase:init addon", true}} {
		t.Run(tt.at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, k, facts := planes(t, "1.30.14", first)
				h := r.hosts[first]
				h.Sabotage(func(s host.Step) *host.Trouble {
					if s.Is(tt.at) {
						return &host.Trouble{Text: "the disk is wrong"}
					}
					return nil
				})
				in := translate.InitInput{Token: token("aaaaaa"), CertKey: someKey}
				l := r.post(translate.Init(r.job(), r.target(first), k, facts[first], in))
				if l.State == wire.StateCompleted || !strings.Contains(lastOf(l), "disk is wrong") {
					t.Fatalf("%s: %s", l.State, lastOf(l))
				}
				before := r.on(first, "sha256sum </etc/kubernetes/pki/ca.crt")
				h.Sabotage(nil)
				r.must(r.post(translate.Init(r.job(), r.target(first), k, facts[first], in)))
				if after := r.on(first, "sha256sum </etc/kubernetes/pki/ca.crt"); tt.same && before != after {
					t.Errorf("CA %s, then %s", before, after)
				}
				r.joins(k, facts[first])
			})
		})
	}
}

// TestOldControlPlanes: keys are handed on in every way that kubeadm has had.
func TestOldControlPlanes(t *testing.T) {
	for _, version := range []string{"1.14.10", "1.15.12", "1.21.14", "1.23.17"} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRack(t)
				k := kubernetes(version, true)
				k.HA, k.Endpoint = true, capi.Endpoint{Host: vip, Port: 6443}
				k.Repo = mirror()
				r.add(first, r.targetName(first), func(c *host.Config) { c.Profile = host.ProfileBionic })
				r.add(other, r.targetName(other), func(c *host.Config) { c.Profile = host.ProfileBionic })
				f := r.facts(first)
				for _, a := range []string{first, other} {
					r.must(r.post(translate.Packages(r.job(), r.target(a), k, f)))
				}
				r.must(r.post(translate.Init(r.job(), r.target(first), k, f, translate.InitInput{Token: token("aaaaaa"), CertKey: someKey})))
				r.must(r.join(k, f, "second"))
				if nodes := r.hosts[first].Nodes(); !slices.Equal(nodes, []string{"host-10", "host-11"}) {
					t.Errorf("nodes %q", nodes)
				}
				if s := r.on(other, "ls /run/capplunder"); strings.Contains(s, "certkey") || strings.Contains(s, "yaml") {
					t.Errorf("left: %s", s)
				}
			})
		})
	}
}
