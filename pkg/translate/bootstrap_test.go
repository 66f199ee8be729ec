package translate_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// planted stands where something secret stands in bootstrap data.
const planted = "planted-secret-4711"

func cloudData(text string) *capi.BootstrapData {
	return &capi.BootstrapData{Value: []byte(text)}
}

// provided is data of a real provider, see pkg/cloudconfig/testdata.
func provided(tb testing.TB, name string) *capi.BootstrapData {
	tb.Helper()
	raw, err := os.ReadFile(filepath.Join("../cloudconfig/testdata/provider", name))
	if err != nil {
		tb.Fatal(err)
	}
	return &capi.BootstrapData{Format: capi.FormatCloudConfig, Value: raw}
}

func gzipBase64(tb testing.TB, text string) string {
	tb.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

// everything is data with every key there is.
func everything(tb testing.TB) *capi.BootstrapData {
	tb.Helper()
	return cloudData(`## template: jinja
#cloud-config
write_files:
- {path: /etc/kubernetes/pki/ca.crt, owner: 'root:root', permissions: '0640', content: "-----BEGIN CERTIFICATE-----\n` + planted + `\n"}
- {path: /etc/kubernetes/pki/ca.key, owner: 'root:root', permissions: '0600', content: "-----BEGIN RSA PRIVATE KEY-----\n` + planted + `\n"}
- {path: /etc/zipped, encoding: gzip+base64, content: ` + gzipBase64(tb, planted) + `}
- {path: /etc/hosts, append: true, content: "10.0.0.10 api\n"}
- {path: /home/ops/late, owner: 'ops:ops', permissions: '0600', content: late}
- {path: /run/kubeadm/kubeadm-join-config.yaml, permissions: '0640', content: "name: '{{ ds.meta_data.hostname }}' ` + planted + `"}
- {path: /run/cluster-api/placeholder, content: x}
bootcmd: ['echo ` + planted + ` >/dev/null']
runcmd:
- export A=` + planted + `
- kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml && echo success > /run/cluster-api/bootstrap-success.complete
- [echo, 'it''s', done]
users: [{name: ops, gecos: Ops, groups: 'adm, more', passwd: '$6$` + planted + `', sudo: 'ALL=(ALL) NOPASSWD:ALL', ssh_authorized_keys: [ssh-ed25519 AAAA` + planted + `]}]
ntp: {servers: [time.example], pools: [pool.example]}
disk_setup: {/dev/sdb: {layout: [30, [70, 82]], table_type: gpt}}
fs_setup: [{device: /dev/sdb, partition: 1, filesystem: ext4, label: data, extra_opts: [-m, '0']}]
mounts: [[LABEL=data, /data]]
`)
}

// bootstrapMaps are maps of bootstrap data with everything, little, and nothing in it.
func bootstrapMaps(tb testing.TB) map[string]wire.Map {
	tb.Helper()
	in := harmless()
	k := in.kubernetes()
	k.Bootstrapped = true
	hooked := *k
	hooked.Hooks = &capi.Hooks{After: "echo " + planted}
	out := map[string]wire.Map{}
	for name, v := range map[string]struct {
		k    *translate.Kubernetes
		data *capi.BootstrapData
	}{
		"bootstrap":          {&hooked, everything(tb)},
		"bootstrap v1alpha2": {k, cloudData("#cloud-config\nwrite_files: [{path: /tmp/kubeadm.yaml, content: " + planted + "}]\nruncmd: [kubeadm init --config /tmp/kubeadm.yaml]\n")},
		"bootstrap nothing":  {k, cloudData("#cloud-config\nruncmd: []\n")},
	} {
		m, err := translate.Bootstrap("job", in.target(), v.k, in.facts(), v.data)
		if err != nil {
			tb.Fatal(name, err)
		}
		out[name] = m
	}
	return out
}

func tasks(m wire.Map) []string {
	var names []string
	for _, a := range m.Deployments[0].Actions {
		name, _, _ := strings.Cut(a.Name, "#")
		names = append(names, name)
	}
	return names
}

// TestBootstrapMap is vector 12 of the specification, and more.
func TestBootstrapMap(t *testing.T) {
	in := harmless()
	list := bootstrapMaps(t)
	for name, m := range list {
		checkMap(t, name, m, in)
		for _, a := range m.Deployments[0].Actions {
			if strings.Contains(a.Command, "PRIVATE KEY") || strings.Contains(a.Command, planted) || strings.Contains(a.CommandPipeCmd, planted) {
				t.Errorf("%s: %s has something secret in its command", name, a.Name)
			}
		}
	}
	full := []string{"guard", "ci.begin", "bundle.1", "bundle.unpack", "ci.boot", "ci.files", "ci.disks", "ci.mounts", "ci.users", "ci.ntp", "ci.files.late", "ci.run", "ci.check", "hook.after"}
	if got := tasks(list["bootstrap"]); !slices.Equal(got, full) {
		t.Errorf("actions\n got %q\nwant %q", got, full)
	}
	if got, want := tasks(list["bootstrap v1alpha2"]), []string{"guard", "ci.begin", "bundle.1", "bundle.unpack", "ci.files", "ci.run", "ci.check"}; !slices.Equal(got, want) {
		t.Errorf("actions\n got %q\nwant %q", got, want)
	}
	if got, want := tasks(list["bootstrap nothing"]), []string{"guard", "ci.begin", "ci.check"}; !slices.Equal(got, want) {
		t.Errorf("actions\n got %q\nwant %q", got, want)
	}

	files := bundled(t, list["bootstrap"])
	for path, want := range map[string]string{
		"/run/capplunder/ci/run.sh 0600 root": `#!/bin/sh
export A=` + planted + `
capplunder_rc=$?; echo "capplunder-runcmd 1/3 rc=$capplunder_rc"; (exit $capplunder_rc)
kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml && echo success > /run/cluster-api/bootstrap-success.complete
capplunder_rc=$?; echo "capplunder-runcmd 2/3 rc=$capplunder_rc"; (exit $capplunder_rc)
'echo' 'it'\''s' 'done'
capplunder_rc=$?; echo "capplunder-runcmd 3/3 rc=$capplunder_rc"; (exit $capplunder_rc)
`,
		"/run/capplunder/ci/early/owners 0600 root": "passwd root\ngroup root\n",
		"/run/capplunder/ci/late/owners 0600 root":  "passwd ops\ngroup ops\n",
		"/run/capplunder/ci/appended 0600 root":     "0 644 root:root /etc/hosts\n",
		"/run/capplunder/ci/append/0 0600 root":     "10.0.0.10 api\n",
		"/run/capplunder/ci/sudoers 0600 root":      "ops ALL=(ALL) NOPASSWD:ALL\n",
		"/run/capplunder/ci/ntp 0600 root":          "server time.example\npool pool.example\n",
		"/run/capplunder/ci/mounts 0600 root":       "LABEL=data /data auto defaults,nofail,comment=capplunder 0 2\n",
		"/run/capplunder/ci/disks 0600 root": "disk /dev/sdb gpt no 30:0FC63DAF-8483-4772-8E79-3D69D8477DE4 -:0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\n" +
			"fs /dev/sdb ext4 no 1 data -m 0\n",
		"/run/capplunder/hook-after 0700 root": "echo " + planted,
	} {
		if files[path] != want {
			t.Errorf("%s is %q\nwant %q", path, files[path], want)
		}
	}
	inner := untar(t, files["/run/capplunder/ci/early/files.tar.gz 0600 root"])
	for path, want := range map[string]string{
		"etc/kubernetes/pki/ca.crt 0640 root:root":            "-----BEGIN CERTIFICATE-----\n" + planted + "\n",
		"etc/zipped 0644 root:root":                           planted,
		"run/kubeadm/kubeadm-join-config.yaml 0640 root:root": "name: 'cp-abcde' " + planted,
	} {
		if inner[path] != want {
			t.Errorf("%s is %q, want %q; there is %v", path, inner[path], want, inner)
		}
	}
	if late := untar(t, files["/run/capplunder/ci/late/files.tar.gz 0600 root"]); late["home/ops/late 0600 ops:ops"] != "late" || len(late) != 1 {
		t.Errorf("late: %v", late)
	}
}

func TestBootstrapGolden(t *testing.T) {
	for name, m := range bootstrapMaps(t) {
		got := render(t, m)
		for file, text := range bundled(t, m) {
			if strings.Contains(file, ".tar.gz ") {
				got = strings.ReplaceAll(got, text, fmt.Sprintf("(an archive of %q)\n", slices.Sorted(maps.Keys(untar(t, text)))))
			}
		}
		path := filepath.Join("testdata", "golden", strings.ReplaceAll(name, " ", "-")+".txt")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got; make golden rewrites it):\n%s", path, diff)
		}
	}
}

func untar(t *testing.T, raw string) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[fmt.Sprintf("%s %04o %s:%s", h.Name, h.Mode, h.Uname, h.Gname)] = string(b)
	}
}

func TestBootstrapRefusals(t *testing.T) {
	in := harmless()
	k := in.kubernetes()
	ignoring := *k
	yes := true
	ignoring.IgnoreUnknownKeys = &yes
	unknown := cloudData("#cloud-config\npackages: [a]\nruncmd: [a]\nswap: {size: 1}\n")
	for _, tt := range []struct {
		k    *translate.Kubernetes
		data *capi.BootstrapData
		want string
	}{
		{k, &capi.BootstrapData{Format: "ignition", Value: []byte(`{"ignition":{}}`)}, "bootstrap data is Ignition"},
		{k, &capi.BootstrapData{Format: "talos", Value: []byte("x")}, `the format "talos": only cloud-config`},
		{k, unknown, "keys that capplunder does not know: packages, swap; leave them out, or set ignoreUnknownKeys"},
		{&ignoring, unknown, ""},
		{k, cloudData("#cloud-config\nwrite_files: [{path: x, content: " + planted + "}]"), "write_files[0].path"},
	} {
		_, err := translate.Bootstrap("job", in.target(), tt.k, in.facts(), tt.data)
		if tt.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), planted) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

func TestBootstrapOf(t *testing.T) {
	const text = "#cloud-config\nruncmd: [a]\n"
	given := cloudData(text)
	for _, m := range []*capi.Machine{
		{BootstrapData: base64.StdEncoding.EncodeToString([]byte(text))}, {BootstrapData: text}, {BootstrapData: "x", GivenBootstrap: given},
	} {
		if data, err := translate.BootstrapOf(m); err != nil || string(data.Value) != text {
			t.Errorf("%v, %v", data, err)
		}
	}
	if data, err := translate.BootstrapOf(&capi.Machine{}); data != nil || err != nil {
		t.Errorf("%v, %v", data, err)
	}
	if _, err := translate.BootstrapOf(&capi.Machine{Key: capi.Key{Namespace: "a", Name: "b"}, BootstrapData: "*" + planted}); err == nil || strings.Contains(err.Error(), planted) || !strings.Contains(err.Error(), "Machine a/b") {
		t.Error(err)
	}
}

// asRoot runs a command on a host.
func (r *rack) asRoot(address, command string) string {
	r.t.Helper()
	res := r.hosts[address].Run(r.t.Context(), host.Command{Line: "sudo -n -u root sh -c " + "'" + strings.ReplaceAll(command, "'", `'\''`) + "'", Combined: true})
	return strings.TrimSpace(res.Output)
}

// token has a cluster know a bootstrap token, as a bootstrap provider does through its API.
func (r *rack) token(address, id string) {
	r.t.Helper()
	if out := r.asRoot(address, "kubeadm token create "+id+".0123456789abcdef --ttl 24h"); !strings.Contains(out, id) {
		r.t.Fatal(out)
	}
}

func (r *rack) bootstrap(address string, k *translate.Kubernetes, data *capi.BootstrapData) (wire.Log, error) {
	r.t.Helper()
	job := r.job()
	m, err := translate.Bootstrap(job, r.target(address), k, r.facts(address), data)
	l := r.post(m, err)
	for _, e := range l.Entries {
		if strings.Contains(e.Entry, planted) || strings.Contains(e.Entry, "0123456789abcdef") || strings.Contains(e.Entry, "PRIVATE KEY") {
			r.t.Errorf("%s shows a secret: %s", e.Task, e.Entry)
		}
	}
	return l, translate.ReadBootstrap(l, job)
}

// TestBootstrapProviders takes hosts to a cluster with what real providers made.
func TestBootstrapProviders(t *testing.T) {
	for _, tt := range []struct{ folder, version, profile string }{
		{"v1.14.2", "1.34.1", host.ProfileNoble}, {"v1.4.9", "1.26.15", host.ProfileBookworm}, {"v0.1.6", "1.15.3", host.ProfileBionic},
	} {
		t.Run(tt.folder, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { bootstrapCluster(t, tt.folder, tt.version, tt.profile) })
		})
	}
}

func bootstrapCluster(t *testing.T, folder, version, profile string) {
	t.Helper()
	r := newRack(t)
	const first, second, worker = "10.0.0.10", "10.0.0.11", "10.0.0.12"
	k := kubernetes(version, true)
	k.Bootstrapped = true
	if k.Minor < 24 {
		k.Repo = mirror()
	}
	for _, a := range []string{first, second, worker} {
		r.add(a, r.targetName(a), func(c *host.Config) { c.Profile = profile })
		r.must(r.packages(a, k))
	}
	run := func(address, file string) {
		t.Helper()
		l, err := r.bootstrap(address, k, provided(t, folder+"/"+file))
		if err != nil {
			t.Fatalf("%s: %v\n%s", file, err, r.asRoot(address, "cat /var/log/capplunder/bootstrap.log"))
		}
		r.must(l)
	}
	run(first, "init.yaml")
	r.token(first, "abcdef")
	run(worker, "worker.yaml")
	run(second, "control-plane.yaml")

	nodes := r.hosts[first].Nodes()
	slices.Sort(nodes)
	if want := []string{"host-10", "host-11", "host-12"}; !slices.Equal(nodes, want) {
		t.Errorf("nodes %q", nodes)
	}
	for _, a := range []string{first, second, worker} {
		for command, want := range map[string]string{
			"cat /etc/motd":        "made by a KubeadmConfig",
			"cat /etc/name.before": r.targetName(a),
			"cat /etc/after":       "it is done",
			"stat -c '%U:%G %a' /home/ops/notes; cat /home/ops/notes":                                                     "ops:ops 600\nfor ops alone",
			"cat /etc/sudoers.d/90-capplunder; stat -c %a /etc/sudoers.d/90-capplunder":                                   "ops ALL=(ALL) NOPASSWD:ALL\n440",
			"cut -d' ' -f3 /home/ops/.ssh/authorized_keys; stat -c '%U %a' /home/ops/.ssh /home/ops/.ssh/authorized_keys": "ops@example\nops 700\nops 600",
			"cat /etc/systemd/timesyncd.conf.d/capplunder.conf":                                                           "[Time]\nNTP=time1.example time2.example",
			"[ -e /run/capplunder/ci ] || echo gone":                                                                      "gone",
			"ls /tmp/*.yaml /run/kubeadm/*.yaml 2>/dev/null":                                                              "",
			"grep -c abcdef.0123456789abcdef /var/log/capplunder/bootstrap.log":                                           "0",
			"stat -c %a /var/log/capplunder/bootstrap.log":                                                                "600",
		} {
			if got := r.asRoot(a, command); got != want {
				t.Errorf("%s: %s: %q, want %q", a, command, got, want)
			}
		}
		if folder != "v0.1.6" {
			if got := r.asRoot(a, "grep -c '^10.0.0.10 api.example$' /etc/hosts"); got != "1" {
				t.Errorf("%s: appended %s times", a, got)
			}
		}
	}
	for _, h := range r.hosts {
		if u := h.Unknown(); len(slices.DeleteFunc(u, func(s string) bool { return s == "kubeadm" })) > 0 {
			t.Errorf("the scripts ran programs that a host does not have: %q", u)
		}
	}

	// Again, also after a reboot, when the sentinel is gone: nothing happens.
	r.asRoot(first, "rm -rf /run/cluster-api; rm /etc/after")
	l, err := r.bootstrap(first, k, provided(t, folder+"/init.yaml"))
	if last := l.Entries[len(l.Entries)-1]; err != nil || !strings.Contains(last.Entry, "capplunder-bootstrap already") {
		t.Errorf("a second time: %v, %+v", err, last)
	}
	if got := r.asRoot(first, "[ -e /etc/after ] || [ -e /run/capplunder/ci ] || echo gone"); got != "gone" {
		t.Errorf("a second time: %q", got)
	}
	// Other data on the same host.
	if _, err := r.bootstrap(first, k, provided(t, folder+"/worker.yaml")); err == nil || !strings.Contains(err.Error(), "other bootstrap data has made this host a node") {
		t.Errorf("other data: %v", err)
	}
}

// control is a rack with a control plane, and a host that is to become a node by data.
func control(t *testing.T, change ...func(*host.Config)) (r *rack, k *translate.Kubernetes, join string) {
	t.Helper()
	r = newRack(t)
	r.add("10.0.0.10", "host-10")
	r.add("10.0.0.11", "host-11", change...)
	k = kubernetes("1.34.1", false)
	for a := range r.hosts {
		r.must(r.packages(a, k))
	}
	job := r.job()
	m, err := translate.Init(job, r.target("10.0.0.10"), kubernetes("1.34.1", true), r.facts("10.0.0.10"), translate.InitInput{Token: token("aaaaaa")})
	hash, err := translate.ReadInit(r.must(r.post(m, err)), job)
	if err != nil {
		t.Fatal(err)
	}
	r.token("10.0.0.10", "abcdef")
	k.Bootstrapped = true
	return r, k, fmt.Sprintf(`- path: /run/kubeadm/kubeadm-join-config.yaml
  content: |
    apiVersion: kubeadm.k8s.io/v1beta4
    kind: JoinConfiguration
    discovery: {bootstrapToken: {token: TOKEN.0123456789abcdef, apiServerEndpoint: "10.0.0.10:6443", caCertHashes: [%q]}}
    nodeRegistration: {name: host-11}
- {path: /run/cluster-api/placeholder, content: x}
`, hash)
}

const joinCommand = "kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml && echo success > /run/cluster-api/bootstrap-success.complete"

func TestBootstrapFailures(t *testing.T) {
	const worker = "10.0.0.11"
	synctest.Test(t, func(t *testing.T) {
		r, k, join := control(t)
		data := func(tok string, files string, cmds ...string) *capi.BootstrapData {
			text := "#cloud-config\nwrite_files:\n" + strings.ReplaceAll(join, "TOKEN", tok) + files + "runcmd:\n"
			for _, c := range cmds {
				text += "- " + fmt.Sprintf("%q", c) + "\n"
			}
			return cloudData(text)
		}
		for _, tt := range []struct {
			name string
			data *capi.BootstrapData
			want []string
		}{
			{"an unknown token", data("dead00", "", "echo before", joinCommand, "echo after it"), []string{
				"the bootstrap data did not make the machine a node: command 2 of 3 (runcmd) ended with status", "the join token", "/var/log/capplunder/bootstrap.log"}},
			{"a command fails", data("dead00", "", "ls /nowhere/at/all", "false && "+joinCommand), []string{"command 1 of 2 (runcmd) ended with status 2, command 2 of 2 (runcmd) ended with status 1", "No such file"}},
			{"a command that ends the script", data("abcdef", "", "exit 0", joinCommand), []string{"its first command (runcmd) did not come to its end"}},
			{"the second does", data("abcdef", "", "true", "exit 3", joinCommand), []string{"command 2 of 3 (runcmd) did not come to its end"}},
			{"too long", data("abcdef", "", "echo begin", "sleep 7200", joinCommand), []string{"command 2 of 3 (runcmd) did not come to its end", "more than 55 minutes"}},
			{"a broken script", data("abcdef", "", "if true", joinCommand), []string{"its first command (runcmd) did not come to its end"}},
			{"an owner who is not there", data("abcdef", "- {path: /etc/x, owner: nobody9}\n", joinCommand), []string{"action ci.files failed", "belongs to nobody9, whom passwd does not know"}},
			{"a secret is printed", data("abcdef", "", "echo token: "+planted+"; echo aaaaaa.0123456789abcdef", "false"), []string{"command 2 of 2 (runcmd) ended with status 1", "token: ***"}},
			{"nothing that makes a node", cloudData("#cloud-config\nruncmd: [echo fine]\n"), []string{"its commands ended well, but"}},
			{"nothing at all", cloudData("#cloud-config\nruncmd: []\n"), []string{"ran and did not make this host a node"}},
		} {
			l, err := r.bootstrap(worker, k, tt.data)
			if l.State != wire.StateFailed || err == nil {
				t.Errorf("%s: %s, %v", tt.name, l.State, err)
				continue
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s: %q is not in: %v", tt.name, w, err)
				}
			}
			last := l.Entries[len(l.Entries)-1]
			if id := strings.TrimPrefix(last.Task, "ci.check#"); id != last.Task && translate.ExplainIn(l, id, last) != err.Error() {
				t.Errorf("%s: explained as %s", tt.name, translate.ExplainIn(l, id, last))
			}
			if got := r.asRoot(worker, "[ -e /run/capplunder/ci ] || echo gone; [ -e /etc/kubernetes/capplunder/bootstrap.done ] || echo none"); got != "gone\nnone" {
				t.Errorf("%s: %q", tt.name, got)
			}
		}
		// And then it is right: what failed ahead of kubeadm begins anew.
		r.token("10.0.0.10", "fresh1")
		if l, err := r.bootstrap(worker, k, data("fresh1", "", joinCommand)); err != nil || l.State != wire.StateCompleted {
			t.Errorf("%s, %v", l.State, err)
		}
	})
}

// A host on which kubeadm has begun and was not seen to end is not touched.
func TestBootstrapHalfDone(t *testing.T) {
	const worker = "10.0.0.11"
	for _, left := range []string{"kubelet.conf", "admin.conf", "manifests/kube-apiserver.yaml"} {
		synctest.Test(t, func(t *testing.T) {
			r, k, _ := control(t)
			r.asRoot(worker, "mkdir -p /etc/kubernetes/manifests; echo x >/etc/kubernetes/"+left)
			data := cloudData("#cloud-config\nbootcmd: [touch /ran]\nwrite_files: [{path: /written}]\nruncmd: [kubeadm reset -f]\n")
			l, err := r.bootstrap(worker, k, data)
			if err == nil || !strings.Contains(err.Error(), left+" already exists") || !strings.Contains(err.Error(), "Delete the machine and apply again") {
				t.Errorf("%v", err)
			}
			if l.State != wire.StateFailed || len(l.Entries) != 2 {
				t.Errorf("%s after %d actions", l.State, len(l.Entries))
			}
			if got := r.asRoot(worker, "[ -e /ran ] || [ -e /written ] || cat /etc/kubernetes/"+left); got != "x" {
				t.Errorf("touched: %q", got)
			}
			// Finished by hand, as the message says.
			r.asRoot(worker, "mkdir -p /run/cluster-api; echo success >/run/cluster-api/bootstrap-success.complete")
			l, err = r.bootstrap(worker, k, data)
			if last := l.Entries[len(l.Entries)-1]; err != nil || !strings.Contains(last.Entry, "capplunder-bootstrap already") {
				t.Errorf("%v, %+v", err, last)
			}
		})
	}
}

// The host is cut off in the middle of the commands, before and after kubeadm.
func TestBootstrapCutOff(t *testing.T) {
	const worker = "10.0.0.11"
	for _, tt := range []struct {
		cmds string
		want string
	}{
		{"[touch /mark, sleep 600, " + fmt.Sprintf("%q", joinCommand) + "]", "ok"},
		{"[" + fmt.Sprintf("%q", joinCommand) + ", touch /mark, sleep 600]", "kubelet.conf already exists"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, k, join := control(t)
			data := cloudData("#cloud-config\nwrite_files:\n" + strings.ReplaceAll(join, "TOKEN", "abcdef") + "runcmd: " + tt.cmds + "\n")
			go func() {
				for r.asRoot(worker, "[ -e /mark ] && echo there") != "there" {
					time.Sleep(10 * time.Second)
				}
				r.hosts[worker].Reboot()
			}()
			if l, err := r.bootstrap(worker, k, data); err == nil || l.State != wire.StateFailed {
				t.Errorf("%s, %v", l.State, err)
			}
			time.Sleep(5 * time.Minute)
			l, err := r.bootstrap(worker, k, data)
			if tt.want == "ok" && (err != nil || l.State != wire.StateCompleted) {
				t.Errorf("%s, %v", l.State, err)
			}
			if tt.want != "ok" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s, %v", l.State, err)
			}
			if n := r.hosts["10.0.0.10"].Nodes(); len(n) != 2 {
				t.Errorf("nodes %q", n)
			}
		})
	}
}

func TestBootstrapDisks(t *testing.T) {
	const worker = "10.0.0.11"
	synctest.Test(t, func(t *testing.T) {
		disks := func(c *host.Config) {
			c.Disk = []host.DiskConfig{{Name: "sda", Bytes: 1 << 34}, {Name: "sdb", Bytes: 1 << 32, Blank: true}, {Name: "sdc", Bytes: 1 << 32, Blank: true}}
		}
		r, k, join := control(t, disks)
		data := string(provided(t, "v1.14.2/worker-disks.yaml").Value)
		text := "#cloud-config\nwrite_files:\n" + strings.ReplaceAll(join, "TOKEN", "abcdef") + data[strings.Index(data, "disk_setup:"):] + "runcmd: [" + fmt.Sprintf("%q", joinCommand) + "]\n"
		text = strings.ReplaceAll(text, "mounts:\n", "  - {device: /dev/sdc, partition: auto, filesystem: ext4, label: logs}\nmounts:\n")
		l, err := r.bootstrap(worker, k, cloudData(text))
		if err != nil {
			t.Fatalf("%v\n%+v", err, l.Entries)
		}
		for command, want := range map[string]string{
			"blkid -o value -s TYPE /dev/sdb1":                            "ext4",
			"blkid -o value -s LABEL /dev/sdb1":                           "etcd_disk",
			"blkid -o value -s TYPE /dev/sdc1":                            "ext4",
			"blkid -o value -s TYPE /dev/sdc2":                            "",
			"grep -c etcddisk /proc/mounts":                               "1",
			"grep comment=capplunder /etc/fstab | cut -d' ' -f1,2,4":      "LABEL=etcd_disk /var/lib/etcddisk defaults,nofail,comment=capplunder\n/dev/sdc1 /var/lib/logs defaults,noatime,nofail,comment=capplunder",
			"lsblk -nro MOUNTPOINT /dev/sdc | tr -d '\n'":                 "/var/lib/logs",
			"[ -e /etc/kubernetes/capplunder/bootstrap.disks ] && echo y": "y",
		} {
			if got := r.asRoot(worker, command); got != want {
				t.Errorf("%s: %q, want %q", command, got, want)
			}
		}
	})
}

// What is on a disk stays there; what is mounted is never touched.
func TestBootstrapDisksAreKept(t *testing.T) {
	const worker = "10.0.0.11"
	for _, tt := range []struct{ before, disks, want, check, still string }{
		{"mkfs.ext4 -F -L old /dev/sdb", "disk_setup: {/dev/sdb: {layout: true}}\nfs_setup: [{device: /dev/sdb, filesystem: xfs, label: new}]", "", "blkid -o value -s LABEL /dev/sdb", "old"},
		{"mkfs.ext4 -F -L old /dev/sdb", "fs_setup: [{device: /dev/sdb, filesystem: xfs, label: new, overwrite: true}]", "", "blkid -o value -s LABEL /dev/sdb", "new"},
		{"mkfs.ext4 -F -L old /dev/sdb; mkdir /m; mount /dev/sdb /m", "fs_setup: [{device: /dev/sdb, filesystem: xfs, label: new, overwrite: true}]", "/dev/sdb holds a mounted file system", "blkid -o value -s LABEL /dev/sdb", "old"},
		{":", "disk_setup: {/dev/sda: {layout: true, overwrite: true}}", "/dev/sda holds a mounted file system", "echo x", "x"},
		{":", "disk_setup: {/dev/sdx: {layout: true}}", "/dev/sdx is not a block device", "echo x", "x"},
		{":", "disk_setup: {/dev/null: {layout: true}}", "/dev/null is not a block device", "echo x", "x"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, k, join := control(t, func(c *host.Config) {
				c.Disk = []host.DiskConfig{{Name: "sda", Bytes: 1 << 34}, {Name: "sdb", Bytes: 1 << 32, Blank: true}}
			})
			if out := r.asRoot(worker, tt.before); strings.Contains(out, "not found") {
				t.Fatal(out)
			}
			text := "#cloud-config\nwrite_files:\n" + strings.ReplaceAll(join, "TOKEN", "abcdef") + tt.disks + "\nruncmd: [" + fmt.Sprintf("%q", joinCommand) + "]\n"
			l, err := r.bootstrap(worker, k, cloudData(text))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s: %v", tt.disks, err)
			}
			if got := r.asRoot(worker, tt.check); got != tt.still {
				for _, e := range l.Entries {
					t.Log(e.Task, e.Entry)
				}
				t.Errorf("%s: %q, want %q", tt.disks, got, tt.still)
			}
		})
	}
}

// A user who is there already keeps password and keys: plunder may log in by them.
func TestBootstrapUsers(t *testing.T) {
	const worker = "10.0.0.11"
	synctest.Test(t, func(t *testing.T) {
		r, k, join := control(t)
		r.asRoot(worker, "mkdir -p /home/deploy/.ssh; echo ssh-rsa plunder >/home/deploy/.ssh/authorized_keys; chown -R deploy:deploy /home/deploy/.ssh")
		before := r.asRoot(worker, "getent shadow deploy")
		data := cloudData("#cloud-config\nwrite_files:\n" + strings.ReplaceAll(join, "TOKEN", "abcdef") + `users:
- {name: deploy, passwd: '$6$other', ssh_authorized_keys: [ssh-rsa mine]}
- {name: new, passwd: '$6$hash', lock_passwd: false, groups: [made], homedir: /srv/new, gecos: 'It''s $(touch /canary)', shell: /bin/sh}
- {name: locked, passwd: '$6$hash', inactive: true}
runcmd: ['false', "` + joinCommand + `"]
`)
		for range 2 {
			if _, err := r.bootstrap(worker, k, data); err != nil {
				t.Fatal(err)
			}
			// As if it had been cut off before anything was noted: all of it happens again.
			r.asRoot(worker, "rm -rf /etc/kubernetes/capplunder/bootstrap.done /run/cluster-api /etc/kubernetes/kubelet.conf")
			r.asRoot("10.0.0.10", "kubectl --kubeconfig=/etc/kubernetes/admin.conf delete node host-11")
			r.asRoot(worker, "kubeadm reset -f")
		}
		for command, want := range map[string]string{
			"cat /home/deploy/.ssh/authorized_keys":                       "ssh-rsa plunder\nssh-rsa mine",
			"getent shadow deploy":                                        before,
			"getent shadow new | cut -d: -f2":                             "$6$hash",
			"getent shadow locked | cut -d: -f2":                          "!$6$hash",
			"getent passwd new | cut -d: -f5-":                            "It's $(touch /canary):/srv/new:/bin/sh",
			"id -nG new":                                                  "new made",
			"ls /canary 2>/dev/null":                                      "",
			"sort /etc/kubernetes/capplunder/bootstrap.users | tr '\n' ,": "locked,new,",
		} {
			if got := r.asRoot(worker, command); got != want {
				t.Errorf("%s: %q, want %q", command, got, want)
			}
		}
	})
}

// FuzzBootstrap: whatever stands in bootstrap data, no command has it and no script runs it.
func FuzzBootstrap(f *testing.F) {
	for _, s := range []string{"$(touch /canary)", "`touch /canary`", "'; touch /canary; '", "\"; touch /canary; \"", "a\ntouch /canary\n", "$(touch${IFS}/canary)", "-rf", "{{DIGEST}}", "../../canary"} {
		f.Add(s)
	}
	same, digest := harmlessCommands(f), regexp.MustCompile(`[0-9a-f]{64}`)
	world := host.NewWorld()
	h := host.New(host.Config{MAC: macOf("10.0.0.1"), Address: "10.0.0.1", HostName: "host-1", User: "deploy", World: world})
	f.Cleanup(h.Close)
	target := translate.Target{Address: "10.0.0.1", HostName: "host-1", Guard: translate.Guard{MAC: macOf("10.0.0.1")}}
	run := func(t *testing.T, a wire.Action) {
		t.Helper()
		c := host.Command{Line: a.Command, User: "root", Combined: true}
		if a.CommandPipeCmd != "" {
			c.Stdin = []byte(world.RunLocal(t.Context(), a.CommandPipeCmd).Output)
		}
		h.Run(t.Context(), c)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// Each place by itself, for one that is refused would hide the others.
		file := func(key string, value any) map[string]any {
			e := map[string]any{"path": "/fuzz/file", "content": "x"}
			e[key] = value
			return map[string]any{"write_files": []any{e}}
		}
		user := func(key string, value any) map[string]any {
			e := map[string]any{"name": "fuzz", "homedir": "/fuzz/home"}
			e[key] = value
			return map[string]any{"users": []any{e}}
		}
		for i, place := range []map[string]any{
			file("path", "/fuzz/"+text), file("path", text), file("owner", text), file("owner", "root:"+text), file("content", text), file("permissions", text),
			{"write_files": []any{map[string]any{"path": "/fuzz/" + text, "append": true, "content": text}}},
			user("name", text), user("gecos", text), user("homedir", text), user("homedir", "/fuzz/"+text), user("shell", "/"+text), user("primary_group", text), user("groups", text),
			user("groups", []any{"a", text}), user("passwd", text), user("inactive", text), user("sudo", text), user("sudo", []any{"ALL=(ALL) ALL", text}), user("ssh_authorized_keys", []any{text}),
			{"ntp": map[string]any{"servers": []any{text}, "pools": []any{}}}, {"ntp": map[string]any{"pools": []any{text}}},
			{"mounts": []any{[]any{text, "/fuzz/m"}}}, {"mounts": []any{[]any{"/dev/sdb", "/fuzz/" + text}}}, {"mounts": []any{[]any{"/dev/sdb", "/fuzz/m", text}}}, {"mounts": []any{[]any{"/dev/sdb", "/fuzz/m", "ext4", text}}},
			{"disk_setup": map[string]any{"/dev/" + text: map[string]any{"layout": true}}}, {"disk_setup": map[string]any{"/dev/sdb": map[string]any{"layout": []any{[]any{50, text}}}}},
			{"fs_setup": []any{map[string]any{"device": "/dev/" + text, "filesystem": "ext4"}}}, {"fs_setup": []any{map[string]any{"device": "/dev/sdb", "filesystem": text}}},
			{"fs_setup": []any{map[string]any{"device": "/dev/sdb", "filesystem": "ext4", "label": text}}}, {"fs_setup": []any{map[string]any{"device": "/dev/sdb", "filesystem": "ext4", "extra_opts": text}}},
			{"runcmd": []any{[]any{"true", text}}}, {"bootcmd": []any{[]any{text}}},
		} {
			raw, err := yaml.Marshal(place)
			if err != nil {
				return
			}
			in := harmless()
			m, err := translate.Bootstrap("job", target, in.kubernetes(), in.facts(), cloudData("#cloud-config\n"+string(raw)))
			if err != nil {
				continue
			}
			for _, a := range m.Deployments[0].Actions {
				// A digest of the data says nothing of it, and has every short text of digits somewhere.
				if strings.Contains(digest.ReplaceAllString(a.Command, ""), text) && !strings.Contains(same, text) {
					t.Errorf("place %d: %s has data in its command", i, a.Name)
				}
				run(t, a)
			}
			res := h.Run(t.Context(), host.Command{User: "root", Line: "sh -c '[ ! -e /canary ] || echo sung; rm -rf /canary /fuzz /etc/kubernetes/capplunder/*; sed -i /fuzz/d /etc/fstab'", Combined: true})
			if strings.Contains(res.Output, "sung") {
				t.Fatalf("place %d ran %q", i, text)
			}
		}
	})
}

// harmlessCommands are the commands of data with nothing hostile in it: they are the
// same whatever the data says.
func harmlessCommands(tb testing.TB) string {
	tb.Helper()
	var s strings.Builder
	for _, m := range bootstrapMaps(tb) {
		for _, a := range m.Deployments[0].Actions {
			s.WriteString(a.Command)
		}
	}
	return s.String()
}
