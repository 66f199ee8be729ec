package cli

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/capi"
)

// defaultsOf is what a command line, an environment and a configuration file come to.
func defaultsOf(t *testing.T, env []string, args ...string) (capi.Defaults, error) {
	t.Helper()
	f := newFactory(nil, first(ui.Test("", false)), append([]string{"HOME=" + t.TempDir()}, env...))
	root := newRootCmd(f)
	for _, c := range root.Commands() {
		if c.Name() == "apply" {
			root.RemoveCommand(c)
		}
	}
	var d capi.Defaults
	root.AddCommand(newApplyCmd(f, func(ctx context.Context, o *applyOptions) (err error) {
		d, err = o.defaults(ctx, f)
		return err
	}))
	root.SetArgs(append([]string{"apply", "-f", "x.yaml"}, args...))
	err := root.ExecuteContext(t.Context())
	return d, err
}

func TestInstallFlags(t *testing.T) {
	dir := t.TempDir()
	manifest := writeFile(t, dir, "cni.yaml", "apiVersion: v1\nkind: Namespace\n")
	patch := writeFile(t, dir, "patch.yaml", "kind: KubeletConfiguration\nmaxPods: 250\n---\n\n---\nkind: ClusterConfiguration\n")
	script := writeFile(t, dir, "hook.sh", "true\n")
	config := writeFile(t, dir, "config.yaml", "cert-san: [api.example.com, 10.0.0.9]\nno-proxy: .example.com,10.0.0.0/8\nvip: true\nallow-cgroup-v1: true\n")
	yes := true
	for name, tt := range map[string]struct {
		env  []string
		args []string
		want capi.Defaults
	}{
		"nothing": {},
		"sources": {
			args: []string{
				"--method", "binaries", "--package-mirror", "https://m.example.com", "--binary-url", "https://b.example.com", "--image-repository", "r.example.com/k8s",
				"--containerd-version", "2.2", "--docker-version", "20.10.24", "--runtime-source", "docker", "--runtime-mirror", "https://d.example.com", "--firewall", "leave",
			},
			want: capi.Defaults{InstallOptions: capi.InstallOptions{
				Method: capi.MethodBinaries, Repo: &capi.PackageRepo{Base: "https://m.example.com"}, Binaries: &capi.BinarySource{URL: "https://b.example.com"},
				ImageRepository: "r.example.com/k8s", ContainerdVersion: "2.2", DockerVersion: "20.10.24",
				RuntimeSource: capi.SourceDocker, RuntimeMirror: "https://d.example.com", Firewall: capi.FirewallLeave,
			}},
		},
		"files": {
			args: []string{"--cni", manifest, "--kubeadm-patch", patch, "--hook-before", script},
			want: capi.Defaults{
				InstallOptions: capi.InstallOptions{
					Hooks:          &capi.Hooks{Before: "true\n"},
					KubeadmPatches: []map[string]any{{"kind": "KubeletConfiguration", "maxPods": int64(250)}, {"kind": "ClusterConfiguration"}},
				},
				ClusterOptions: capi.ClusterOptions{CNI: &capi.CNI{Manifest: "apiVersion: v1\nkind: Namespace\n"}},
			},
		},
		"proxy with a password": {
			env: []string{"CAPPLUNDER_HTTPS_PROXY=http://ann:hunter2@proxy.example.com:3128", "CAPPLUNDER_NO_PROXY=a,b"},
			want: capi.Defaults{InstallOptions: capi.InstallOptions{
				Proxy: &capi.Proxy{HTTPS: "http://ann:hunter2@proxy.example.com:3128", NoProxy: []string{"a", "b"}},
			}},
		},
		"configuration file": {
			args: []string{"--config", config, "--pki", "tool", "--vip-interface", "eth0", "--kubeconfig-transport", "plain"},
			want: capi.Defaults{
				InstallOptions: capi.InstallOptions{Proxy: &capi.Proxy{NoProxy: []string{".example.com", "10.0.0.0/8"}}, AllowCgroupV1: &yes},
				ClusterOptions: capi.ClusterOptions{
					CertSANs: []string{"api.example.com", "10.0.0.9"}, PKI: capi.PKITool, KubeconfigTransport: capi.KubeconfigPlain,
					VIP: &capi.VIP{Interface: "eth0"},
				},
			},
		},
		"network and image": {
			args: []string{"--cni", "https://m.example.com/cni.yaml", "--cni-sha256", strings.Repeat("0f", 32), "--vip=r.example.com/kube-vip:v1", "--cert-san", "a", "--cert-san", "b,c"},
			want: capi.Defaults{ClusterOptions: capi.ClusterOptions{
				CNI: &capi.CNI{URL: "https://m.example.com/cni.yaml", SHA256: strings.Repeat("0f", 32)}, VIP: &capi.VIP{Image: "r.example.com/kube-vip:v1"}, CertSANs: []string{"a", "b", "c"},
			}},
		},
		"no network, no address": {
			env:  []string{"CAPPLUNDER_VIP=true"},
			args: []string{"--cni", "none", "--vip=false"},
			want: capi.Defaults{ClusterOptions: capi.ClusterOptions{CNI: &capi.CNI{None: true}}},
		},
	} {
		got, err := defaultsOf(t, tt.env, tt.args...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// Every field that a flag can set is told under the name of that flag.
func TestFlagOfEveryField(t *testing.T) {
	without := map[string]bool{ // fields that only manifests have
		"skipInstall": true, "repo.apt": true, "repo.rpm": true, "repo.key": true, "binaries.cniPluginsURL": true, "binaries.sha256": true,
		"runtime": true, "dockerCodename": true, "ignoreUnknownKeys": true, "allowCgroupV1": true, // the last is true or false, which flags check
	}
	flags := newApplyCmd(newFactory(nil, first(ui.Test("", false)), nil), nil).Flags()
	for _, field := range append(optionFields("", reflect.TypeFor[capi.InstallOptions]()), optionFields("", reflect.TypeFor[capi.ClusterOptions]())...) {
		if (flags.Lookup(flagOf(field)) == nil) != without[field] {
			t.Errorf("%s is told as --%s", field, flagOf(field))
		}
	}
	if flagOf("proxy.noProxy[1]") != "no-proxy" || flagOf("kubeadmPatches[0].kind") != "kubeadm-patch" {
		t.Error("fields of lists")
	}
}

func TestWithoutPassword(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		"45m0s":                             "45m0s",
		"a,b":                               "a,b",
		"https://mirror.example.com/x?y":    "https://mirror.example.com/x?y",
		"http://ann@proxy:3128":             "http://ann@proxy:3128",
		"http://ann:hunter2@proxy:3128/":    "http://ann:***@proxy:3128/",
		"http://ann:@proxy":                 "http://ann:***@proxy",
		"http://ann:hunt er2@proxy":         "***",
		"http://ann:hunter%2@proxy":         "***",
		"http://ann:hunter2@proxy.a/%zz":    "***",
		"/home/ann/.kube/config@production": "/home/ann/.kube/config@production",
	} {
		if got := withoutPassword(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// A file on the command line is for one Machine, and comes before its Secret.
func TestGiveBootstrapData(t *testing.T) {
	file := writeFile(t, t.TempDir(), "data", "#cloud-config\n")
	m := &capi.Machine{Key: capi.Key{Namespace: "n", Name: "w"}, GivenBootstrap: &capi.BootstrapData{Value: []byte("of the Secret")}}
	other := &capi.Machine{Key: capi.Key{Namespace: "default", Name: "w"}}
	set := &capi.Set{Machines: []*capi.Machine{m, other}}
	if err := giveBootstrapData(set, []bootstrapFlag{{"w", file}}, "n"); err != nil {
		t.Fatal(err)
	}
	if m.GivenBootstrap.Format != capi.FormatCloudConfig || string(m.GivenBootstrap.Value) != "#cloud-config\n" || other.GivenBootstrap != nil {
		t.Errorf("%+v, %+v", m.GivenBootstrap, other.GivenBootstrap)
	}
	err := giveBootstrapData(set, []bootstrapFlag{{"w", file}, {"n/w", file}, {"v", file}}, "n")
	for _, want := range []string{"--bootstrap-data n/w: given twice", "--bootstrap-data v: no Machine n/v is to be installed"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
