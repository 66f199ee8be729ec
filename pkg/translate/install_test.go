package translate_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// root runs a line as root on a host and gives its output.
func (r *rack) root(address, line string) string {
	r.t.Helper()
	return r.hosts[address].Run(r.t.Context(), host.Command{User: "root", Line: line, Combined: true}).Output
}

// failed fails the test unless the job ended at the task and said the text there.
func (r *rack) failed(l wire.Log, task, text string) {
	r.t.Helper()
	last := l.Entries[len(l.Entries)-1]
	if got, _, _ := strings.Cut(last.Task, "#"); l.State != wire.StateFailed || got != task || !strings.Contains(last.Entry, text) {
		r.t.Errorf("%s at %s: %s\n%s\nwant %s to say %q", l.State, last.Task, last.Error, last.Entry, task, text)
	}
}

// TestHookBefore: the user's script runs ahead of everything, again while it fails, and
// not once more when it went well; what is in it is not left on the host.
func TestHookBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		const a = "10.0.0.1"
		r.add(a, "host-1")
		k := kubernetes("1.34.1", false)
		k.Hooks = &capi.Hooks{Before: "echo one >>/var/tmp/ran\necho password=hunter2 it\\'s $http_proxy\nls /usr/bin/kubelet && exit 9\n[ -e /var/tmp/go ] || exit 7\n"}
		l := r.packages(a, k)
		r.failed(l, "hook.before", "hooks.before ended with status 7")
		if text := translate.Explain(l.Entries[len(l.Entries)-1]); !strings.Contains(text, "likely: the script of the user failed") || !strings.Contains(text, "/var/log/capplunder/hook-before.log") || strings.Contains(text, "hunter2") {
			t.Error(text)
		}
		r.root(a, "touch /var/tmp/go")
		r.must(r.packages(a, k))
		r.must(r.packages(a, k))
		got := r.root(a, "cat /var/tmp/ran; grep -c it /var/log/capplunder/hook-before.log; stat -c %a /var/log/capplunder; ls /run/capplunder")
		if want := "one\none\n1\n700\n"; !strings.HasPrefix(got, want) || strings.Contains(got, "hook") {
			t.Errorf("got %q, want %q", got, want)
		}
		k.Hooks = &capi.Hooks{Before: "exit 1"}
		r.must(r.packages(a, k)) // it has had its chance
	})
}

// TestSkipInstall: an image that brings everything is prepared and proved, and nothing
// is installed on it.
func TestSkipInstall(t *testing.T) {
	on := true
	for _, tt := range []struct {
		name, version string
		packages      []string
		task, text    string // the failure; "" for none
	}{
		{name: "right", version: "1.34.1", packages: []string{"containerd.io=2.2.1-1", "kubelet=1.34.1-1.1", "kubeadm=1.34.1-1.1"}},
		{name: "no version", packages: []string{"containerd.io=2.2.1-1", "kubelet=1.34.1-1.1", "kubeadm=1.34.1-1.1"}},
		{name: "no kubelet", version: "1.34.1", packages: []string{"containerd.io=2.2.1-1", "kubeadm=1.34.1-1.1"}, task: "kube.check", text: "kubelet is not on the image, and skipInstall is set"},
		{name: "no runtime", version: "1.34.1", packages: []string{"kubelet=1.34.1-1.1", "kubeadm=1.34.1-1.1"}, task: "kube.check", text: "containerd is not on the image"},
		{name: "another kubelet", version: "1.34.1", packages: []string{"containerd.io=2.2.1-1", "kubelet=1.33.0-1.1", "kubeadm=1.34.1-1.1"}, task: "kube.check", text: "kubelet is v1.33.0, not v1.34.1"},
		{name: "another kubeadm", version: "1.34.1", packages: []string{"containerd.io=2.2.1-1", "kubelet=1.34.1-1.1", "kubeadm=1.33.0-1.1"}, task: "kube.check", text: "kubeadm is v1.33.0, not v1.34.1"},
		{name: "an old runtime", version: "1.36.4", packages: []string{"containerd.io=1.7.28-1", "kubelet=1.36.4-1.1", "kubeadm=1.36.4-1.1"}, task: "kube.check", text: "containerd 1.7.28, need 2.0.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRack(t)
				const a = "10.0.0.1"
				h := r.add(a, "host-1", func(c *host.Config) { c.Packages = tt.packages })
				k := kubernetes("1.34.1", false)
				if k.Version = tt.version; tt.version == "" {
					k.Bootstrapped = true
				} else {
					k = kubernetes(tt.version, false)
				}
				k.SkipInstall = &on
				before := h.Package("kubeadm")
				l := r.packages(a, k)
				if tt.task != "" {
					r.failed(l, tt.task, tt.text)
					return
				}
				r.must(l)
				if got := r.root(a, "wc -l </proc/swaps; cat /proc/sys/net/ipv4/ip_forward 2>/dev/null; hostname"); !strings.HasPrefix(got, "1\n") || !strings.HasSuffix(strings.TrimSpace(got), "host-1") {
					t.Errorf("the host is not prepared: %q", got)
				}
				for _, line := range h.History() {
					if f := strings.Fields(line); f[0] == "apt-get" || f[0] == "curl" {
						t.Errorf("something was installed: %s", line)
					}
				}
				if h.Package("kubeadm") != before {
					t.Errorf("kubeadm is %s", h.Package("kubeadm"))
				}
			})
		})
	}
}

// TestImageRepository: the container runtime takes the pause image from there, too.
func TestImageRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		const a = "10.0.0.1"
		r.add(a, "host-1")
		k := kubernetes("1.34.1", false)
		k.ImageRepository = "registry.example:5000/k8s"
		r.must(r.packages(a, k))
		got := r.root(a, "cat /etc/containerd/config.toml")
		if !strings.Contains(got, "\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"registry.example:5000/k8s/pause:3.") {
			t.Errorf("configuration\n%s", got)
		}
	})
}

// TestProxyChanges: the container runtime is restarted when its proxies change, and only
// then; where there is none any more, nothing of it is left.
func TestProxyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		const a = "10.0.0.1"
		h := r.add(a, "host-1")
		k := kubernetes("1.34.1", false)
		proxy := func(p *capi.Proxy, restarts int) string {
			t.Helper()
			k.Proxy = p
			from := len(h.History())
			r.must(r.packages(a, k))
			n := 0
			for _, line := range h.History()[from:] {
				if strings.HasPrefix(line, "systemctl restart containerd") {
					n++
				}
			}
			if n != restarts {
				t.Errorf("with %+v: %d restarts, want %d", p, n, restarts)
			}
			return r.root(a, "cat /etc/systemd/system/containerd.service.d/*; stat -c '%a %U' /etc/kubernetes/capplunder/proxy.env; grep -h _PROXY= /etc/kubernetes/capplunder/proxy.env")
		}
		if got := proxy(nil, 1); !strings.Contains(got, "No such file") {
			t.Errorf("without a proxy: %q", got)
		}
		got := proxy(&capi.Proxy{HTTPS: "http://me:it%27s@proxy.example:3128"}, 1)
		want := "[Service]\nEnvironmentFile=/etc/kubernetes/capplunder/proxy.env\n600 root\nHTTPS_PROXY='http://me:it%27s@proxy.example:3128'\nNO_PROXY='localhost,127.0.0.1,::1,10.0.0.1,10.244.0.0/16,10.96.0.0/12,.svc,.cluster.local'"
		if strings.TrimSpace(got) != want {
			t.Errorf("with a proxy\n got %q\nwant %q", got, want)
		}
		proxy(k.Proxy, 0)
		proxy(&capi.Proxy{HTTPS: "http://proxy2.example:3128", NoProxy: []string{".example"}}, 1)
		if got := proxy(nil, 1); !strings.Contains(got, "No such file") || strings.Contains(got, "PROXY") {
			t.Errorf("without a proxy any more: %q", got)
		}
	})
}

// TestBinariesOnHosts: digests are checked, a second run fetches nothing, and what an
// image lacks is named.
func TestBinariesOnHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		const a = "10.0.0.1"
		h := r.add(a, "host-1", func(c *host.Config) { c.Profile = host.ProfileRocky9 })
		k := kubernetes("1.34.1", false)
		k.Method = capi.MethodBinaries
		r.failed(r.packages(a, k), "kube.binaries", "set binaries.cniPluginsURL")
		k.Binaries = &capi.BinarySource{CNIPluginsURL: "https://mirror.example/cni-plugins-linux-amd64-v1.7.1.tgz", SHA256: map[string]string{"kubelet": strings.Repeat("ab", 32)}}
		r.failed(r.packages(a, k), "kube.binaries", "kubelet has another SHA-256 digest than the one given")
		if got := r.root(a, "ls -A /usr/local/bin"); strings.Contains(got, "capplunder") {
			t.Errorf("the wrong file is still there: %q", got)
		}
		sum := strings.Fields(r.root(a, "curl -fsSL https://dl.k8s.io/v1.34.1/bin/linux/amd64/kubelet | sha256sum"))[0]
		k.Binaries.SHA256["kubelet"] = sum
		r.must(r.packages(a, k))
		from := len(h.History())
		r.must(r.packages(a, k))
		for _, line := range h.History()[from:] {
			if strings.HasPrefix(line, "curl") && !strings.Contains(line, "docker") {
				t.Errorf("the second run fetched: %s", line)
			}
		}
		k = kubernetes("1.34.2", false) // a later version comes into its place
		k.Method, k.Binaries = capi.MethodBinaries, &capi.BinarySource{}
		r.must(r.packages(a, k))
		if got := r.root(a, "/usr/local/bin/kubelet --version"); got != "Kubernetes v1.34.2\n" && got != "Kubernetes v1.34.2" {
			t.Errorf("kubelet is %q", got)
		}
	})
}
