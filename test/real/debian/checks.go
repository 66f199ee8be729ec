package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const (
	kubeconfig = "/etc/kubernetes/admin.conf"
	hookText   = "echo before >>/var/log/test/hooks\n"
)

// host is the host, as the checks before have left it.
type host struct {
	mirror *mirror
	facts  translate.Facts
	pid    string // of containerd
}

// check is one thing that is proved. Without what is needed, the rest proves nothing.
type check struct {
	name   string
	needed bool
	check  func(context.Context) error
}

func (h *host) checks() []check {
	return []check{
		{"the probe knows a Debian 12", true, h.probe},
		{"another machine's map is refused, and nothing of it is run", false, h.stranger},
		{"base: apt installs what kubeadm needs", true, h.base},
		{"packages: v1.30.0, containerd of the distribution", true, h.install},
		{"containerd has the configuration", false, h.containerd},
		{"packages once more: nothing is changed or restarted", false, h.again},
		{"packages: v1.30.4 over it, although it is held", false, h.upgrade},
		{"packages: a version that is not served", false, h.notServed},
		{"kubeadm on the host reads the configurations", false, h.configurations},
		{"kubeconfig, sealed by the host's openssl", false, h.sealed},
		{"bootstrap data: users, files, time servers, commands", false, h.bootstrap},
		{"packages: v1.36.3 needs a newer containerd", false, h.tooOld},
	}
}

func (h *host) target(mac string) translate.Target {
	return translate.Target{Address: "192.0.2.10", HostName: "machine-abcde", Root: true, Guard: translate.Guard{MAC: mac, BootID: h.facts.BootID}}
}

func (h *host) here() translate.Target { return h.target("00:50:56:a5:11:20") }

func (h *host) kubernetes(version string) *translate.Kubernetes {
	var minor int
	if _, err := fmt.Sscanf(version, "1.%d.", &minor); err != nil {
		panic(err)
	}
	return &translate.Kubernetes{
		Version: version, Minor: minor, ControlPlane: true, Single: true,
		Cluster: "cluster-plunder", Domain: "cluster.local", PodCIDR: capi.DefaultPodCIDR, ServiceCIDR: capi.DefaultServiceCIDR,
		InstallOptions: capi.InstallOptions{
			RuntimeSource: capi.SourceDistribution, Repo: &capi.PackageRepo{Base: h.mirror.url},
			ImageRepository: "mirror.example/k8s", Hooks: &capi.Hooks{Before: hookText},
		},
	}
}

func (h *host) probe(ctx context.Context) error {
	m, err := translate.HostProbe(job, []string{"127.0.0.1"}, false)
	l, err := runMap(ctx, m, err)
	if err != nil {
		return err
	}
	f, done, err := translate.ReadHostProbe(l, job)
	if err != nil || !done {
		return fmt.Errorf("not read: %w", err)
	}
	h.facts = f
	return want(
		f.ID == "debian", "ID "+f.ID, f.Version == "12", "version "+f.Version, f.PackageManager == "apt-get", "package manager "+f.PackageManager,
		f.Systemd, "no systemd", f.Cgroup == 2, "cgroup", strings.Join(f.MACs, " ") == "00:50:56:a5:11:20", "MACs "+strings.Join(f.MACs, " "))
}

func (h *host) stranger(ctx context.Context) error {
	m, err := translate.Packages(job, h.target("00:50:56:a5:b5:f1"), h.kubernetes("1.30.0"), h.facts)
	l, err := runMap(ctx, m, err)
	_, missing := os.Stat("/run/capplunder")
	return want(err != nil, "it was run", len(l.Entries) == 1, "more than the guard was run",
		missing != nil, "there is a /run/capplunder", len(l.Entries) > 0 && strings.Contains(l.Entries[0].Entry, "capplunder-stranger macs=00:50:56:a5:11:20"), "it does not say whom it met")
}

// base is the map up to where the mirror is needed, which is made with what it installs.
func (h *host) base(ctx context.Context) error {
	m, err := translate.Packages(job, h.here(), h.kubernetes("1.30.0"), h.facts)
	if err != nil {
		return err
	}
	d := &m.Deployments[0]
	for i, a := range d.Actions {
		if a.Name == translate.TaskName("runtime", job) {
			d.Actions = d.Actions[:i]
			break
		}
	}
	if _, err := runMap(ctx, m, nil); err != nil {
		return err
	}
	calls, err := os.ReadFile("/var/log/test/calls")
	if err != nil {
		return err
	}
	name, err := os.ReadFile("/etc/hostname")
	if err != nil {
		return err
	}
	for _, p := range []string{"curl", "gpg", "openssl", "conntrack", "iptables", "ip", "modprobe", "socat", "ethtool"} {
		if _, err := output(ctx, "sh", "-c", "command -v "+p); err != nil {
			return err
		}
	}
	return want(strings.TrimSpace(string(name)) == "machine-abcde", "the host's name is "+string(name),
		strings.Contains(string(calls), "sysctl -q -p /etc/sysctl.d/99-capplunder.conf"), "sysctl was not called",
		strings.Contains(string(calls), "modprobe br_netfilter"), "modprobe was not called",
		h.mirror.publish(ctx, 30, "1.30.0", "1.30.4") == nil, "no mirror")
}

func (h *host) install(ctx context.Context) error {
	if err := h.packages(ctx, "1.30.0"); err != nil {
		return err
	}
	held, err := output(ctx, "apt-mark", "showhold")
	return errors.Join(err, want(held == "cri-tools\nkubeadm\nkubectl\nkubelet\nkubernetes-cni\n", "held are "+held))
}

func (h *host) packages(ctx context.Context, version string) error {
	m, err := translate.Packages(job, h.here(), h.kubernetes(version), h.facts)
	_, err = runMap(ctx, m, err)
	return err
}

func (h *host) containerd(ctx context.Context) error {
	config, err := output(ctx, "containerd", "config", "dump")
	if err != nil {
		return err
	}
	plugins, err := output(ctx, "ctr", "plugins", "ls")
	if err != nil {
		return err
	}
	cri := ""
	for line := range strings.Lines(plugins) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "io.containerd.grpc.v1" && f[1] == "cri" {
			cri = f[len(f)-1]
		}
	}
	pid, err := os.ReadFile("/run/containerd.pid")
	h.pid = string(pid)
	return errors.Join(err, want(
		strings.Contains(config, "SystemdCgroup = true"), "SystemdCgroup is off",
		strings.Contains(config, `sandbox_image = "mirror.example/k8s/pause:3.9"`), "the pause image is not the mirror's",
		strings.Contains(config, `bin_dir = "/opt/cni/bin"`), "bin_dir is another one",
		strings.Contains(config, `config_path = "/etc/containerd/certs.d"`), "config_path is another one",
		cri == "ok", "the plugin cri is "+cri+":\n"+plugins))
}

func (h *host) again(ctx context.Context) error {
	if err := h.packages(ctx, "1.30.0"); err != nil {
		return err
	}
	pid, err := os.ReadFile("/run/containerd.pid")
	if err != nil {
		return err
	}
	hooks, err := os.ReadFile("/var/log/test/hooks")
	if err != nil {
		return err
	}
	names, err := output(ctx, "grep", "-c", "machine-abcde", "/etc/hosts")
	return errors.Join(err, want(string(pid) == h.pid, "containerd was restarted", string(hooks) == "before\n", "hooks.before ran again",
		names == "1\n", "/etc/hosts has the name again"))
}

func (h *host) upgrade(ctx context.Context) error {
	if err := h.packages(ctx, "1.30.4"); err != nil {
		return err
	}
	v, err := output(ctx, "kubeadm", "version", "-o", "short")
	return errors.Join(err, want(v == "v1.30.4\n", "kubeadm is "+v))
}

func (h *host) notServed(ctx context.Context) error {
	err := h.packages(ctx, "1.30.9")
	return want(err != nil && strings.Contains(err.Error(), "1.30.9 is not served; there is:") && strings.Contains(err.Error(), "1.30.4-1.1"), fmt.Sprint(err))
}

func (h *host) tooOld(ctx context.Context) error {
	if err := h.mirror.publish(ctx, 36, "1.36.3"); err != nil {
		return err
	}
	err := h.packages(ctx, "1.36.3")
	return want(err != nil && strings.Contains(err.Error(), "runtime.config") && strings.Contains(err.Error(), "need 2.0.0"), fmt.Sprint(err))
}

// configurations unpacks the bundles of init and join, and asks the kubeadm there.
func (h *host) configurations(ctx context.Context) error {
	token := translate.Token{ID: "abcdef", Secret: "0123456789abcdef"}
	k := h.kubernetes("1.30.4")
	k.Hooks = nil
	init, err := translate.Init(job, h.here(), k, h.facts, translate.InitInput{Token: token})
	if err != nil {
		return err
	}
	worker := *k
	worker.ControlPlane = false
	join, err := translate.Join(job, h.here(), &worker, h.facts, translate.JoinInput{
		Token: token, Endpoint: capi.Endpoint{Host: "10.0.0.9", Port: 6443},
		CAHash: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	})
	if err != nil {
		return err
	}
	for path, m := range map[string]wire.Map{"/run/capplunder/kubeadm.yaml": init, "/run/capplunder/join.yaml": join} {
		d := &m.Deployments[0]
		for i, a := range d.Actions {
			if a.Name == translate.TaskName("bundle.unpack", job) {
				d.Actions = d.Actions[:i+1]
				break
			}
		}
		if _, err := runMap(ctx, m, nil); err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if err := want(info.Mode() == 0o600, fmt.Sprintf("%s is %s", path, info.Mode())); err != nil {
			return err
		}
		if _, err := output(ctx, "kubeadm", "config", "validate", "--config", path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

func (h *host) sealed(ctx context.Context) error {
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://10.0.0.9:6443'}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\nusers: [{name: u, user: {token: planted}}]\n"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(kubeconfig) }()
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	k := h.kubernetes("1.30.4")
	m, err := translate.ReadAdminMap(job, h.here(), k, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	l, err := runMap(ctx, m, err)
	if err != nil {
		return err
	}
	got, err := translate.OpenAdmin(l, job, k, key)
	if err != nil {
		return err
	}
	return want(string(got) == text, "it is another one after it was opened", !strings.Contains(fmt.Sprint(l), "planted"), "the log has it in the clear")
}

const cloudConfig = `#cloud-config
write_files:
- path: /etc/test/secret
  owner: alice:alice
  permissions: '0640'
  defer: true
  content: planted
- path: /etc/test/compressed
  encoding: gzip+base64
  content: H4sIAAAAAAAAA0vOzy0oSi0uTk0BAB5LVpcKAAAA
- path: /etc/test/appended
  append: true
  content: |
    two
users:
- name: alice
  shell: /bin/bash
  groups: users
  sudo: ALL=(ALL) NOPASSWD:ALL
  passwd: $6$salt$wZU8LXJfJJqoagopbB7RuK6JEotEMZ0CQDy0phpPAuLMYQFcmf6L6BdAbs/Q7w7o1qsZ9pFqFVY4yuUSWgaYt1
  lock_passwd: false
  ssh_authorized_keys:
  - ssh-ed25519 AAAA alice@example.com
ntp:
  enabled: true
  servers: [ntp1.example.com, ntp2.example.com]
runcmd:
- VAR="it's here"
- [sh, -c, 'echo "$0" >/etc/test/words', "a  b"]
- echo "$VAR" >/etc/test/var
- mkdir -p /run/cluster-api && echo success > /run/cluster-api/bootstrap-success.complete
`

func (h *host) bootstrap(ctx context.Context) error {
	if err := os.MkdirAll("/etc/test", 0o755); err != nil { //nolint:gosec // as on any host
		return err
	}
	if err := os.WriteFile("/etc/test/appended", []byte("one\n"), 0o644); err != nil { //nolint:gosec // anybody may read it
		return err
	}
	k := h.kubernetes("1.30.4")
	k.Bootstrapped = true
	k.Hooks = &capi.Hooks{After: "echo after >>/var/log/test/hooks\n"}
	for range 2 { // the second time there is nothing to do
		m, err := translate.Bootstrap(job, h.here(), k, h.facts, &capi.BootstrapData{Value: []byte(cloudConfig)})
		l, err := runMap(ctx, m, err)
		if err != nil {
			return err
		}
		if err := translate.ReadBootstrap(l, job); err != nil {
			return err
		}
	}
	for path, text := range map[string]string{
		"/etc/test/secret": "planted", "/etc/test/compressed": "compressed", "/etc/test/appended": "one\ntwo\n",
		"/etc/test/words": "a  b\n", "/etc/test/var": "it's here\n", "/home/alice/.ssh/authorized_keys": "ssh-ed25519 AAAA alice@example.com\n",
		"/var/log/test/hooks": "before\nafter\n",
	} {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if string(b) != text {
			return fmt.Errorf("%s is %q, not %q", path, b, text)
		}
	}
	modes, err := output(ctx, "stat", "-c", "%a %U:%G", "/etc/test/secret", "/home/alice/.ssh/authorized_keys", "/etc/sudoers.d/90-capplunder")
	if err != nil {
		return err
	}
	status, err := output(ctx, "passwd", "-S", "alice")
	if err != nil {
		return err
	}
	if _, err := output(ctx, "sudo", "-l", "-U", "alice"); err != nil {
		return err
	}
	left, err := output(ctx, "find", "/run/capplunder", "-type", "f", "!", "-name", "lock", "!", "-name", "*.log", "-newer", "/etc/test/words")
	return errors.Join(err, want(modes == "640 alice:alice\n600 alice:alice\n440 root:root\n", "modes are\n"+modes,
		strings.HasPrefix(status, "alice P "), "the password is not set: "+status, left == "", "left in /run/capplunder:\n"+left))
}

// want takes pairs of what must be true and what to say otherwise.
func want(pairs ...any) error {
	var errs []error
	for i := 0; i+1 < len(pairs); i += 2 {
		if ok, _ := pairs[i].(bool); !ok {
			errs = append(errs, fmt.Errorf("%v", pairs[i+1]))
		}
	}
	return errors.Join(errs...)
}
