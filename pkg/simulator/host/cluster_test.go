package host

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lab is a rack whose hosts are prepared for kubeadm.
type lab struct {
	t     *testing.T
	world *World
	hosts map[string]*Host
}

const certKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func newLab(t *testing.T) *lab {
	t.Helper()
	return &lab{t: t, world: NewWorld(), hosts: map[string]*Host{}}
}

// host adds 10.0.0.N, named host-N, with Kubernetes of a version installed from files.
func (l *lab) host(n int, version string) *Host {
	l.t.Helper()
	h := New(Config{
		MAC: fmt.Sprintf("52:54:00:00:00:%02x", n), Address: fmt.Sprintf("10.0.0.%d", n), HostName: fmt.Sprintf("host-%d", n),
		Seed: int64(n), World: l.world, KubernetesTime: time.Minute,
		Packages: []string{"kubelet=" + version, "kubeadm=" + version, "kubectl=" + version, "containerd.io=2.2.1-1", "conntrack=1.0", "curl=8", "cri-tools=1.34.0-1.1"},
	})
	l.t.Cleanup(h.Close)
	l.hosts[h.cfg.Address] = h
	l.must(h, `swapoff -a; sed -i '/swap/d' /etc/fstab; printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/k.conf; modprobe overlay; modprobe br_netfilter
echo 'net.ipv4.ip_forward = 1' >/etc/sysctl.d/k.conf; sysctl -q -p /etc/sysctl.d/k.conf; echo 'version = 2' >/etc/containerd/config.toml; systemctl daemon-reload; systemctl enable --now containerd kubelet`)
	return h
}

// must runs a script as root, stops the test if it fails, and gives its output.
func (l *lab) must(h *Host, script string) string {
	l.t.Helper()
	r := run(l.t, h, "set -e; "+script)
	if r.Exit != 0 {
		l.t.Fatalf("%s: status %d: %s\n%s", h.cfg.HostName, r.Exit, script, r.Output)
	}
	return r.Output
}

// fails runs a script that must fail with status 1 and say something.
func (l *lab) fails(h *Host, script, want string) {
	l.t.Helper()
	r := run(l.t, h, script)
	if r.Exit != 1 || !strings.Contains(r.Output, want) {
		l.t.Errorf("%s: %s: status %d\n got: %s\nwant: %s", h.cfg.HostName, script, r.Exit, r.Output, want)
	}
}

const token = "abcdef.0123456789abcdef"

// initConfig is a kubeadm configuration for an endpoint ("" for none) and, by default,
// the newest version of the API.
func initConfig(version, endpoint, more string) string {
	api := "v1beta4"
	args := "[{name: provider-id, value: 'plunder://x'}]"
	switch m := minorOf(version); {
	case m < 15:
		api, args = "v1beta1", "{provider-id: 'plunder://x'}"
	case m < 22:
		api, args = "v1beta2", "{provider-id: 'plunder://x'}"
	case m < 31:
		api, args = "v1beta3", "{provider-id: 'plunder://x'}"
	}
	return fmt.Sprintf(`cat >/root/k.yaml <<'E'
apiVersion: kubeadm.k8s.io/%[1]s
kind: InitConfiguration
bootstrapTokens: [{token: %[2]s, ttl: 30m0s}]
nodeRegistration: {kubeletExtraArgs: %[3]s}
%[4]s
---
apiVersion: kubeadm.k8s.io/%[1]s
kind: ClusterConfiguration
clusterName: c1
kubernetesVersion: v%[5]s
controlPlaneEndpoint: '%[6]s'
E
`, api, token, args, more, version, endpoint)
}

// joinScript joins a host to the cluster of cp; role is the YAML of controlPlane.
func (l *lab) join(cp, h *Host, endpoint, token, role string) string {
	l.t.Helper()
	hash := caHash([]byte(l.must(cp, "cat /etc/kubernetes/pki/ca.crt") + "\n"))
	version := h.version("kubeadm")
	api, args := "v1beta4", fmt.Sprintf("[{name: provider-id, value: 'plunder://%s'}]", h.cfg.MAC)
	if minorOf(version) < 31 {
		api, args = "v1beta3", fmt.Sprintf("{provider-id: 'plunder://%s'}", h.cfg.MAC)
	}
	return fmt.Sprintf(`cat >/root/j.yaml <<'E'
apiVersion: kubeadm.k8s.io/%s
kind: JoinConfiguration
discovery: {bootstrapToken: {token: %s, apiServerEndpoint: '%s', caCertHashes: ['%s']}}
nodeRegistration: {kubeletExtraArgs: %s}
%s
E
kubeadm join --config /root/j.yaml`, api, token, endpoint, hash, args, role)
}

const controlPlane = "controlPlane: {certificateKey: " + certKey + "}"

// first makes a cluster with one control plane, 10.0.0.10.
func (l *lab) first(version, endpoint string) *Host {
	l.t.Helper()
	h := l.host(10, version)
	l.must(h, initConfig(version, endpoint, "certificateKey: "+certKey)+"kubeadm init --config /root/k.yaml --upload-certs --skip-token-print --skip-certificate-key-print")
	return h
}

const kubectlAs = "kubectl --kubeconfig=/etc/kubernetes/admin.conf "

// TestControlPlanes makes a cluster of three and takes hosts away from it.
func TestControlPlanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		const endpoint = "10.0.0.9:6443"
		a := l.first("1.34.1", endpoint)
		b, c, w := l.host(11, "1.34.1"), l.host(12, "1.34.1"), l.host(20, "1.34.1")
		for _, h := range []*Host{b, c} {
			start := time.Now()
			l.must(h, l.join(a, h, endpoint, token, controlPlane))
			if d := time.Since(start); d != 30*time.Second {
				t.Errorf("a control plane joined in %v, want 50 %% of the time of an installation", d)
			}
		}
		l.must(w, l.join(a, w, endpoint, token, ""))

		s := c.Cluster()
		if s == nil || len(s.Members) != 3 || len(s.Nodes) != 4 || s.Endpoint != endpoint || s.Network {
			t.Fatalf("cluster %+v", s)
		}
		for i, n := range s.Nodes {
			if n.ControlPlane != (i < 3) || n.UID == "" || n.Ready != "False" || n.Reason != "KubeletNotReady" || n.Version != "1.34.1" || i > 0 && n.ProviderID != "plunder://"+l.hosts[n.Address].cfg.MAC {
				t.Errorf("node %+v", n)
			}
		}
		for _, m := range s.Members {
			if !m.Up || m.Learner || m.Name == "" {
				t.Errorf("member %+v", m)
			}
		}
		if s.Nodes[0].UID == s.Nodes[1].UID {
			t.Error("two nodes have one UID")
		}

		// One of three may be down, two may not; and what was written is not lost.
		nodes := kubectlAs + "get nodes -o name"
		a.stop()
		l.must(c, kubectlAs+"delete node host-20")
		if got := l.must(b, nodes); got != "node/host-10\nnode/host-11\nnode/host-12" {
			t.Errorf("nodes %q", got)
		}
		b.stop()
		l.fails(c, nodes, "was refused")
		if c.Cluster() != nil {
			t.Error("a cluster without a majority must not answer")
		}
		b.Reboot()
		if got := l.must(c, nodes); got != "node/host-10\nnode/host-11\nnode/host-12" {
			t.Errorf("nodes %q", got)
		}
		a.Reboot()
		if got := l.must(a, nodes+"; "+kubectlAs+"get --raw /readyz"); got != "node/host-10\nnode/host-11\nnode/host-12\nok" {
			t.Errorf("the first one is back: %q", got)
		}

		// A control plane that is reset leaves the cluster, which then has two members.
		l.must(c, "kubeadm reset -f")
		if s := a.Cluster(); len(s.Members) != 2 || len(s.Nodes) != 3 {
			t.Errorf("after the reset: %+v", s)
		}
		l.must(c, l.join(a, c, endpoint, token, controlPlane))
		if s := a.Cluster(); len(s.Members) != 3 || len(s.Nodes) != 3 {
			t.Errorf("after the second join: %+v", s)
		}
	})
}

// TestRefusedControlPlanes is what kubeadm says to control planes that may not join.
func TestRefusedControlPlanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		const endpoint = "10.0.0.9:6443"
		a := l.first("1.34.1", endpoint)
		b, c := l.host(11, "1.34.1"), l.host(12, "1.34.1")
		join := func(h *Host, role string) string { return l.join(a, h, endpoint, token, role) }

		l.fails(b, join(b, "controlPlane: {}"), "The certificates that must be shared among control plane instances are provided")
		l.fails(b, join(b, "controlPlane: {certificateKey: "+strings.Repeat("ab", 32)+"}"), "cipher: message authentication failed")
		l.fails(b, join(b, "controlPlane: {certificateKey: short}"), "the certificate key is invalid")
		l.fails(b, join(b, controlPlane)+" --control-plane", "can not mix '--config' with arguments [control-plane]")
		if got := len(a.Cluster().Members); got != 1 {
			t.Errorf("%d members", got)
		}

		// The Secret lives two hours, a token as long as it says.
		time.Sleep(2*time.Hour + time.Minute)
		l.must(a, "kubeadm token create "+token)
		l.fails(b, join(b, controlPlane), `Secret "kubeadm-certs" was not found in the "kube-system" Namespace`)
		upload := `printf 'apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\ncertificateKey: ` + certKey + `\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.34.1\n' >/root/u.yaml; kubeadm init phase upload-certs --upload-certs --skip-certificate-key-print --config /root/u.yaml`
		if out := l.must(a, upload); strings.Contains(out, certKey) {
			t.Errorf("the key is printed: %s", out)
		}
		if out := l.must(a, strings.Replace(upload, "--skip-certificate-key-print ", "", 1)); !strings.Contains(out, certKey) {
			t.Errorf("the key is not printed: %s", out)
		}

		// Two at a time.
		done := make(chan Result, 1)
		script := join(b, controlPlane)
		l.must(c, "kubeadm config images pull")
		go func() {
			done <- b.Run(t.Context(), Command{Line: "sudo -n -u root bash -c " + quote(script), Combined: true})
		}()
		second := run(t, c, join(c, controlPlane))
		if first := <-done; (first.Exit == 0) == (second.Exit == 0) || !strings.Contains(first.Output+second.Output, "etcdserver: too many learner members in cluster") {
			t.Errorf("two joins at a time: status %d and %d\n%s\n%s", first.Exit, second.Exit, first.Output, second.Output)
		}
		for _, h := range []*Host{b, c} {
			l.must(h, "kubeadm reset -f")
		}
		if got := len(a.Cluster().Members); got != 1 {
			t.Fatalf("%d members after the resets", got)
		}

		// A member that is down keeps others out.
		l.must(b, join(b, controlPlane))
		c2 := l.host(13, "1.34.1")
		l.must(c2, join(c2, controlPlane))
		b.stop()
		l.fails(c, join(c, controlPlane), "etcd cluster is not healthy: failed to dial endpoint https://10.0.0.11:2379")
		exec := kubectlAs + "exec -n kube-system etcd-host-10 -- etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key member "
		l.must(a, exec+`remove "$(`+exec+`list | grep host-11 | cut -d, -f1)"`)
		l.must(c, "kubeadm reset -f")
		l.must(c, join(c, controlPlane))
		if s := a.Cluster(); len(s.Members) != 3 {
			t.Errorf("members %+v", s.Members)
		}
	})
}

// A cluster without an endpoint takes no second control plane.
func TestNoEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		a := l.first("1.34.1", "")
		b := l.host(11, "1.34.1")
		l.fails(b, l.join(a, b, "10.0.0.10:6443", token, controlPlane), "doesn't have a stable controlPlaneEndpoint address")
		l.must(b, "kubeadm reset -f; "+l.join(a, b, "10.0.0.10:6443", token, ""))
	})
}

// TestLearners loses power between the moment at which a second member is announced and
// its start: up to 1.28 the cluster then stands still.
func TestLearners(t *testing.T) {
	for version, stands := range map[string]bool{"1.28.3": true, "1.34.1": false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			const endpoint = "10.0.0.9:6443"
			a, b := l.first(version, endpoint), l.host(11, version)
			go func() {
				for len(look(a.sys.cluster, func(d *clusterData) []member { return slices.Clone(d.Members) })) < 2 {
					time.Sleep(100 * time.Millisecond)
				}
				b.Reboot()
			}()
			r := b.Run(t.Context(), Command{Line: "sudo -n -u root bash -c " + quote(l.join(a, b, endpoint, token, controlPlane)), Combined: true})
			if r.Err == nil {
				t.Fatalf("the join was not cut off: %+v", r)
			}
			synctest.Wait()
			if got := a.Cluster() == nil; got != stands {
				t.Errorf("%s: the cluster stands still: %v, want %v", version, got, stands)
			}
			if stands {
				return
			}
			for _, f := range []string{manifest, adminConf, kubeletConf} {
				if !b.fs.exists(f) {
					t.Errorf("%s must be left over", f)
				}
			}
			if b.fs.exists(etcdManifest) {
				t.Error("the manifest of etcd came later")
			}
			l.fails(b, "kubeadm join --config /root/j.yaml", "already exists")
			l.must(b, "kubeadm reset -f; kubeadm join --config /root/j.yaml")
			if s := a.Cluster(); len(s.Members) != 2 || len(s.Nodes) != 2 || !s.Members[1].Up {
				t.Errorf("after the second try: %+v", s)
			}
		})
	}
}

// TestInitCutOff takes the power away in every phase of kubeadm init, and looks at what
// is left.
func TestInitCutOff(t *testing.T) {
	for phase, want := range map[string]struct {
		left    []string
		answers bool
	}{
		"certs":              {nil, false},
		"kubeconfig":         {[]string{pkiCA}, false},
		"etcd":               {[]string{pkiCA, adminConf, superAdminConf}, false},
		"control-plane":      {[]string{pkiCA, adminConf, etcdManifest}, false},
		"kubelet-start":      {[]string{adminConf, etcdManifest, manifest}, false},
		"wait-control-plane": {[]string{adminConf, manifest, etcdData, kubeletSettings}, true},
		"upload-certs":       {[]string{adminConf, manifest, etcdData}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			h := l.host(10, "1.34.1")
			h.Sabotage(func(s Step) *Trouble {
				if s.Is("phase:init " + phase) {
					return &Trouble{After: time.Second, Do: h.Reboot}
				}
				return nil
			})
			r := h.Run(t.Context(), Command{Line: "sudo -n -u root bash -c " + quote(initConfig("1.34.1", "10.0.0.9:6443", "")+"kubeadm init --config /root/k.yaml"), Combined: true})
			if r.Err == nil {
				t.Fatalf("%s: not cut off: %+v", phase, r)
			}
			synctest.Wait()
			for _, f := range []string{pkiCA, adminConf, superAdminConf, etcdManifest, manifest, etcdData, kubeletSettings} {
				if slices.Contains(want.left, f) && !h.fs.exists(f) {
					t.Errorf("%s: %s is missing", phase, f)
				}
			}
			if got := h.Cluster() != nil; got != want.answers {
				t.Errorf("%s: the API server answers: %v", phase, got)
			}
			h.Sabotage(nil)
			again := !h.fs.exists(etcdManifest)
			init := run(t, h, "kubeadm init --config /root/k.yaml")
			if over := init.Exit == 0; over != again {
				t.Errorf("%s: a second init: status %d\n%s", phase, init.Exit, init.Output)
			}
			if init.Exit != 0 && !strings.Contains(init.Output, "already exists") {
				t.Errorf("%s: a second init: %s", phase, init.Output)
			}
			l.must(h, "kubeadm reset -f; kubeadm init --config /root/k.yaml")
		})
	}
}

// A phase that fails says so in kubeadm's words, and what came after it may be run alone.
func TestInitPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		h := l.host(10, "1.34.1")
		fail := true
		h.Sabotage(func(s Step) *Trouble {
			if fail && s.Is("phase:init upload-config") {
				return &Trouble{Text: "error uploading the kubeadm ClusterConfiguration: etcdserver: request timed out"}
			}
			return nil
		})
		init := initConfig("1.34.1", "10.0.0.9:6443", "certificateKey: "+certKey) + "kubeadm init --config /root/k.yaml --upload-certs"
		l.fails(h, init, "error execution phase upload-config: error uploading the kubeadm ClusterConfiguration: etcdserver: request timed out")
		fail = false
		// The administrator has no role yet.
		l.fails(h, kubectlAs+"get nodes", "Forbidden")
		out := l.must(h, init+" --skip-token-print --skip-phases=preflight,certs,kubeconfig,etcd,control-plane,kubelet-start,wait-control-plane")
		if strings.Contains(out, token) || !strings.Contains(out, "initialized successfully") || !strings.Contains(out, certKey) {
			t.Errorf("output %s", out)
		}
		s := h.Cluster()
		if len(s.Nodes) != 1 || !s.Nodes[0].ControlPlane || s.CertsExpire.IsZero() || len(s.Tokens) != 2 {
			t.Errorf("cluster %+v", s)
		}
	})
}

// TestUnreachableEndpoint waits for an endpoint that nobody answers under. From 1.36 on
// kubeadm init does not need it.
func TestUnreachableEndpoint(t *testing.T) {
	for version, fails := range map[string]bool{"1.34.1": true, "1.36.4": false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t)
			l.world.NoLoadBalancer()
			h := l.host(10, version)
			start := time.Now()
			script := initConfig(version, "10.0.0.9:6443", "") + "kubeadm init --config /root/k.yaml"
			if !fails {
				l.must(h, script)
			} else {
				l.fails(h, script, "error execution phase wait-control-plane: could not initialize a Kubernetes cluster")
				if d := time.Since(start); d < controlPlaneTimeout {
					t.Errorf("it gave up after %v", d)
				}
			}
			l.fails(h, kubectlAs+"get nodes", "was refused")
			l.must(h, "kubectl --kubeconfig=/etc/kubernetes/super-admin.conf --server=https://10.0.0.10:6443 get nodes")
		})
	}
}

// TestKubeVIP has control planes hold the address of the endpoint themselves.
func TestKubeVIP(t *testing.T) {
	pod := func(conf, nic string) string {
		return `mkdir -p /etc/kubernetes/manifests; cat >/etc/kubernetes/manifests/kube-vip.yaml <<'E'
apiVersion: v1
kind: Pod
metadata: {name: kube-vip, namespace: kube-system}
spec:
  hostNetwork: true
  containers:
  - {name: kube-vip, image: 'ghcr.io/kube-vip/kube-vip:v1.0.0', env: [{name: vip_interface, value: ` + nic + `}, {name: address, value: 10.0.0.9}, {name: vip_nodename, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]}
  volumes: [{name: kubeconfig, hostPath: {path: /etc/kubernetes/` + conf + `}}]
E
`
	}
	const endpoint = "10.0.0.9:6443"
	for _, tt := range []struct{ name, version, conf, nic, fails string }{
		{"old", "1.28.3", "admin.conf", "eth0", ""},
		{"super", "1.34.1", "super-admin.conf", "eth0", ""},
		{"no role yet", "1.34.1", "admin.conf", "eth0", "could not initialize a Kubernetes cluster"},
		{"no such card", "1.34.1", "super-admin.conf", "eno1", "could not initialize a Kubernetes cluster"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t) // its load balancer does not stand before what kube-vip holds
				a, b := l.host(10, tt.version), l.host(11, tt.version)
				init := pod(tt.conf, tt.nic) + initConfig(tt.version, endpoint, "certificateKey: "+certKey) + "kubeadm init --config /root/k.yaml --upload-certs"
				if tt.fails != "" {
					l.fails(a, init, tt.fails)
					return
				}
				l.must(a, init+"; "+pod("admin.conf", tt.nic)+kubectlAs+"get nodes")
				l.must(b, pod("admin.conf", tt.nic)+l.join(a, b, endpoint, token, controlPlane))
				c := l.host(12, tt.version)
				l.must(c, l.join(a, c, endpoint, token, controlPlane)) // without
				a.stop()
				l.must(c, kubectlAs+"get nodes")
				a.Reboot()
				b.stop()
				l.must(c, kubectlAs+"get nodes")
				l.must(a, "rm /etc/kubernetes/manifests/kube-vip.yaml")
				l.fails(c, kubectlAs+"get nodes", "was refused")
			})
		})
	}
}

// Before 1.23 a join wants an empty folder of manifests.
func TestJoinOverManifests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		a := l.first("1.22.17", "10.0.0.9:6443")
		w := l.host(11, "1.22.17")
		l.must(w, "mkdir -p /etc/kubernetes/manifests; touch /etc/kubernetes/manifests/x.yaml")
		l.fails(w, l.join(a, w, "10.0.0.9:6443", token, ""), "[ERROR DirAvailable--etc-kubernetes-manifests]: /etc/kubernetes/manifests is not empty")
		l.must(w, l.join(a, w, "10.0.0.9:6443", token, "")+" --ignore-preflight-errors=DirAvailable--etc-kubernetes-manifests")
	})
}

// TestGivenKeys has kubeadm use keys that are there before.
func TestGivenKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		const endpoint = "10.0.0.9:6443"
		a, b, stranger := l.host(10, "1.34.1"), l.host(11, "1.34.1"), l.host(12, "1.34.1")
		files := map[string][]byte{}
		for _, ca := range []string{"ca", "etcd/ca", "front-proxy-ca"} {
			cert, key, err := newCA(ca, []byte(ca))
			if err != nil {
				t.Fatal(err)
			}
			files[ca+".crt"], files[ca+".key"] = cert, key
		}
		_, other, err := newCA("other", []byte("other"))
		if err != nil {
			t.Fatal(err)
		}
		files["sa.key"], files["sa.pub"] = other, other
		put := func(h *Host, files map[string][]byte) {
			for _, f := range sortedKeys(files) {
				h.fs.put(pkiDir+f, &node{mode: 0o600, data: files[f]})
			}
		}
		put(a, files)
		a.fs.put(pkiDir+"ca.key", &node{mode: 0o600, data: other})
		init := initConfig("1.34.1", endpoint, "") + "kubeadm init --config /root/k.yaml"
		l.fails(a, init, "provided PrivateKey doesn't match parent's PublicKey")
		put(a, files)
		l.must(a, init)
		if got := l.must(a, "cat "+pkiCA); !sameCA([]byte(got), files["ca.crt"]) {
			t.Error("it made another CA")
		}
		put(b, files)
		l.must(b, l.join(a, b, endpoint, token, "controlPlane: {}"))
		if s := a.Cluster(); len(s.Members) != 2 {
			t.Errorf("members %+v", s.Members)
		}
		cert, key, err := newCA("ca", []byte("stranger"))
		if err != nil {
			t.Fatal(err)
		}
		put(stranger, files)
		put(stranger, map[string][]byte{"ca.crt": cert, "ca.key": key})
		l.fails(stranger, l.join(a, stranger, endpoint, token, "controlPlane: {}"), "certificate signed by unknown authority")
		// Its kubeconfig is a stranger's as well.
		l.must(stranger, "cp /etc/kubernetes/pki/ca.crt /root/")
		r := run(t, stranger, kubectlAs+"get nodes")
		if r.Exit == 0 {
			t.Errorf("a stranger is let in: %s", r.Output)
		}
	})
}

// TestNodeConditions follows a node from its join to its end.
func TestNodeConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		a := l.first("1.34.1", "")
		w := l.host(11, "1.34.1")
		l.must(w, l.join(a, w, "10.0.0.10:6443", token, ""))
		ready := func() string {
			return l.must(a, kubectlAs+`get node host-11 -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'`)
		}
		if got := ready(); got != "False" {
			t.Errorf("without a network add-on: %s", got)
		}
		l.must(a, `cat >/root/cni.yaml <<'E'
# a comment
---
apiVersion: v1
kind: Namespace
metadata: {name: flannel}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: flannel, namespace: flannel}
E
`)
		if got := l.must(a, kubectlAs+"apply --server-side --force-conflicts -f /root/cni.yaml"); got != "namespace/flannel serverside-applied\ndaemonset.apps/flannel serverside-applied" {
			t.Errorf("apply: %q", got)
		}
		if got := l.must(a, kubectlAs+"apply -f /root/cni.yaml"); got != "namespace/flannel configured\ndaemonset.apps/flannel configured" {
			t.Errorf("apply again: %q", got)
		}
		time.Sleep(readyTime)
		if got := ready(); got != "True" {
			t.Errorf("with a network add-on: %s", got)
		}
		// While it is ready nobody else gets its name.
		x := l.host(12, "1.34.1")
		l.must(x, "hostnamectl set-hostname host-11")
		l.fails(x, l.join(a, x, "10.0.0.10:6443", token, ""), `a Node with name "host-11" and status "Ready" already exists in the cluster`)
		w.stop()
		time.Sleep(nodeGrace - time.Second)
		if got := ready(); got != "True" {
			t.Errorf("39 s after the end: %s", got)
		}
		time.Sleep(time.Second)
		if got := ready(); got != "Unknown" {
			t.Errorf("40 s after the end: %s", got)
		}
		w.Reboot()
		if got := ready(); got != "True" {
			t.Errorf("back again: %s", got)
		}
		l.must(w, "systemctl stop kubelet")
		_ = ready()
		time.Sleep(nodeGrace)
		if got := ready(); got != "Unknown" {
			t.Errorf("without kubelet: %s", got)
		}
		// The name is free now; the node keeps its identity.
		before := a.Cluster().Nodes[1]
		l.must(x, "kubeadm reset -f; "+l.join(a, x, "10.0.0.10:6443", token, ""))
		after := a.Cluster().Nodes[1]
		if after.UID != before.UID || after.ProviderID != before.ProviderID || after.Address != "10.0.0.12" {
			t.Errorf("before %+v, after %+v", before, after)
		}
	})
}

func TestKubectl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		a := l.first("1.34.1", "")
		l.must(a, "systemctl is-active kubelet; cp /etc/kubernetes/admin.conf /root/conf; mkdir -p /root/.kube; cp /root/conf /root/.kube/config")
		columns := kubectlAs + `get nodes --no-headers -o 'custom-columns=N:.metadata.name,V:.status.nodeInfo.kubeletVersion,P:.spec.providerID,R:.status.conditions[?(@.type=="Ready")].status,C:.status.conditions[?(@.type=="Ready")].reason,X:.no.such'`
		for script, want := range map[string]string{
			columns: "host-10   v1.34.1   plunder://x   False   KubeletNotReady   <none>",
			`kubectl get nodes -o custom-columns=NAME:.metadata.name,U:.spec.providerID`:     "NAME      U\nhost-10   plunder://x",
			`kubectl get node/host-10 -o name`:                                               "node/host-10",
			`kubectl get --raw /healthz`:                                                     "ok",
			`kubectl get node nobody --ignore-not-found`:                                     "",
			`kubectl delete node nobody --ignore-not-found`:                                  "",
			`kubectl delete secret -n kube-system bootstrap-token-nobody --ignore-not-found`: "",
			`kubectl patch node host-10 -p '{"spec":{"providerID":"plunder://x"}}'`:          "node/host-10 patched (no change)",
			`kubectl get secrets -n kube-system kubeadm-certs`:                               "secret/kubeadm-certs",
			`kubectl get nodes --no-headers`:                                                 "host-10   NotReady   control-plane   0s   v1.34.1",
			`kubectl get node host-10 -o 'jsonpath={.spec.providerID} {.metadata.labels}'`:   `plunder://x {"kubernetes.io/hostname":"host-10","node-role.kubernetes.io/control-plane":""}`,
			`curl -fsSk https://localhost:6443/healthz`:                                      "ok",
		} {
			if got := strings.ReplaceAll(l.must(a, script), "   12s   ", "   0s   "); got != want {
				t.Errorf("%s\n got %q\nwant %q", script, got, want)
			}
		}
		for script, want := range map[string]string{
			`kubectl get node nobody`:    `nodes "nobody" not found`,
			`kubectl delete node nobody`: `nodes "nobody" not found`,
			`kubectl patch node host-10 -p '{"spec":{"providerID":"plunder://y"}}'`: `may not change providerID except from "" to valid`,
			`kubectl patch node nobody -p '{"spec":{"providerID":"plunder://y"}}'`:  "not found",
			`kubectl patch node host-10 -p '{"spec":{"unschedulable":true}}'`:       "only knows patches",
			`kubectl get services`:                                           "does not know",
			`kubectl delete secret bootstrap-token-abcdef`:                   "not found", // in another namespace
			`kubectl get nodes -o custom-columns=N`:                          "unexpected custom-columns spec",
			`kubectl get nodes -o frob`:                                      "unable to match a printer",
			`kubectl --kubeconfig=/none get nodes`:                           "no such file",
			`kubectl --server=https://10.0.0.99:6443 get nodes`:              "was refused",
			`echo 'kind: X' | kubectl apply -f -`:                            "error validating data",
			`kubectl apply -f /dev/null`:                                     "no objects passed to apply",
			`kubectl exec -n kube-system etcd-nobody -- etcdctl member list`: "not found",
			`sed -i 's/client-certificate-data: .*/client-certificate-data: ""/' /root/conf; kubectl --kubeconfig=/root/conf get nodes`: "Unauthorized",
		} {
			l.fails(a, script, want)
		}
		a.Sabotage(func(s Step) *Trouble {
			if s.Is("api:*") {
				return &Trouble{Exit: curlTimeout}
			}
			return nil
		})
		start := time.Now()
		l.fails(a, "kubectl --request-timeout=20s get nodes", "i/o timeout")
		if d := time.Since(start); d != 20*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// TestKubeadmOfAllTimes knows the flags and configurations of each version.
func TestKubeadmOfAllTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		for i, tt := range []struct{ version, script, want string }{
			{"1.13.12", "kubeadm init --experimental-upload-certs", "unknown flag: --experimental-upload-certs"},
			{"1.14.2", "kubeadm init --upload-certs", "unknown flag: --upload-certs"},
			{"1.16.1", "kubeadm init --experimental-upload-certs", "unknown flag: --experimental-upload-certs"},
			{"1.15.1", "kubeadm join --config /root/k.yaml --certificate-key x", "can not mix '--config' with arguments [certificate-key]"},
			{"1.25.1", "kubeadm config validate --config /root/k.yaml", "unknown command"},
			{"1.34.1", "kubeadm frob", "unknown command"},
			{"1.34.1", "kubeadm join --config /root/k.yaml", "no JoinConfiguration kind"},
			{"1.36.4", strings.ReplaceAll(initConfig("1.36.4", "", ""), "v1beta4", "v1beta3") + "kubeadm config validate --config /root/k.yaml", "does not know"},
			{"1.14.2", initConfig("1.14.2", "", "certificateKey: "+certKey) + "kubeadm init --config /root/k.yaml", `unknown field "certificateKey"`},
			{"1.34.1", initConfig("1.34.1", "", "certificateKey: 00ff") + "kubeadm init --config /root/k.yaml", "certificate key is invalid"},
			{"1.34.1", initConfig("1.34.1", "", "localAPIEndpoint: {advertiseAddress: 10.9.9.9}") + "kubeadm init --config /root/k.yaml", "is not an address of this host"},
			{"1.34.1", "kubeadm reset </dev/null", "aborted reset operation"},
			{"1.34.1", "kubeadm token list", "open /etc/kubernetes/admin.conf: no such file or directory"},
		} {
			h := l.host(30+i, tt.version)
			l.fails(h, "touch /root/k.yaml; "+tt.script, tt.want)
		}
		h := l.host(60, "1.34.1")
		if got := l.must(h, initConfig("1.34.1", "", "")+"kubeadm config validate --config /root/k.yaml; kubeadm config images list --image-repository reg.example/k8s | grep pause; kubeadm certs certificate-key | wc -c"); got != "ok\nreg.example/k8s/pause:3.10.1\n65" {
			t.Errorf("got %q", got)
		}
		h = l.host(61, "1.21.3")
		if got := l.must(h, "kubeadm config images list | grep -E 'pause|apiserver'"); got != "k8s.gcr.io/kube-apiserver:v1.21.3\nk8s.gcr.io/pause:3.4.1" {
			t.Errorf("got %q", got)
		}
	})
}

// From 1.35 on kubelet wants control groups of version 2, unless it is told otherwise.
func TestCgroupV1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		a := l.host(10, "1.35.2")
		_ = a.fs.remove(who{}, "/sys/fs/cgroup/cgroup.controllers", false)
		init := initConfig("1.35.2", "", "") + "kubeadm init --config /root/k.yaml"
		l.fails(a, init, "[ERROR SystemVerification]")
		l.fails(a, init+" --ignore-preflight-errors=SystemVerification", "error execution phase kubelet-start: failed while waiting for the kubelet to start")
		l.must(a, "kubeadm reset -f; "+initConfig("1.35.2", "", "")+"printf '\n---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfailCgroupV1: false\n' >>/root/k.yaml; kubeadm init --config /root/k.yaml --ignore-preflight-errors=SystemVerification")
	})
}

// TestClusterSnapshot saves three control planes one after the other while the cluster
// goes on, and brings them back: the newest copy is the true one.
func TestClusterSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t)
		const endpoint = "10.0.0.9:6443"
		a, b, c := l.first("1.34.1", endpoint), l.host(11, "1.34.1"), l.host(12, "1.34.1")
		l.must(b, l.join(a, b, endpoint, token, controlPlane))
		l.must(c, l.join(a, c, endpoint, token, controlPlane))
		revision := a.Revision()
		saved := [][]byte{mustJSON(t, a.Snapshot())}
		l.must(b, "kubeadm token create bcdefg.0123456789abcdef")
		if a.Revision() <= revision || a.Revision() != b.Revision() {
			t.Errorf("revisions %d, %d, %d", revision, a.Revision(), b.Revision())
		}
		saved = append(saved, mustJSON(t, b.Snapshot()), mustJSON(t, c.Snapshot()))
		w := NewWorld()
		var back []*Host
		for _, s := range saved {
			var snap Snapshot
			if err := json.Unmarshal(s, &snap); err != nil {
				t.Fatal(err)
			}
			h := Restore(snap, w)
			t.Cleanup(h.Close)
			back = append(back, h)
		}
		s := back[0].Cluster()
		if s == nil || len(s.Members) != 3 || !slices.ContainsFunc(s.Tokens, func(t TokenState) bool { return t.ID == "bcdefg" }) {
			t.Fatalf("cluster %+v", s)
		}
		l.must(back[2], kubectlAs+"delete node host-11")
		if got := l.must(back[0], kubectlAs+"get nodes -o name"); got != "node/host-10\nnode/host-12" {
			t.Errorf("nodes %q", got)
		}
		back[0].stop()
		back[1].stop()
		l.fails(back[2], kubectlAs+"get nodes", "refused")
	})
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
