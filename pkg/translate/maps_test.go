package translate_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"mvdan.cc/sh/v3/syntax"
	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

var update = flag.Bool("update", false, "rewrite testdata/golden/*.txt")

// input is everything that reaches a map from outside.
type input struct {
	Host, Address, MAC, BootID     string
	Version, Cluster, Domain, Pods string
	Docker, Apt, Key               string
	EndpointHost, Device, Hash     string
	TokenID, TokenSecret           string
	Root                           bool
	Minor                          int
	ID, Codename, Arch, PM         string
	Cgroup                         int
}

const harmlessHash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func harmless() input {
	return input{
		Host: "cp-abcde", Address: "192.168.1.123", MAC: "00:50:56:a5:11:20", BootID: "922cd220-4a08-429d-bd0f-cef3a4e1a966",
		Version: "1.34.1", Minor: 34, Cluster: "cluster-plunder", Domain: "cluster.local", Pods: "10.244.0.0/16",
		Device: "/dev/sda", Hash: harmlessHash, TokenID: "abcdef", TokenSecret: "0123456789abcdef",
		ID: "ubuntu", Codename: "noble", Arch: "x86_64", PM: "apt-get", Cgroup: 2,
	}
}

const mirrorLine = "deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] https://mirror.example/kubernetes kubernetes-xenial main"

// old is a Kubernetes from before 1.24 on the mirror of somebody's own.
func old(version string, minor, cgroup int, docker string) input {
	in := harmless()
	in.Version, in.Minor, in.Cgroup, in.Docker = version, minor, cgroup, docker
	in.Apt, in.Key, in.Codename = mirrorLine, "https://mirror.example/kubernetes.key", "bionic"
	return in
}

func (in *input) target() translate.Target {
	return translate.Target{Address: in.Address, HostName: in.Host, Root: in.Root, Guard: translate.Guard{MAC: in.MAC, BootID: in.BootID}}
}

func (in *input) kubernetes() *translate.Kubernetes {
	return &translate.Kubernetes{
		Version: in.Version, Minor: in.Minor, Cluster: in.Cluster, Domain: in.Domain, PodCIDR: in.Pods, ServiceCIDR: capi.DefaultServiceCIDR,
		InstallOptions: capi.InstallOptions{DockerVersion: in.Docker, Repo: &capi.PackageRepo{Apt: in.Apt, Key: in.Key}}, Endpoint: in.endpoint(),
	}
}

func (in *input) endpoint() capi.Endpoint {
	if in.EndpointHost == "" {
		return capi.Endpoint{}
	}
	return capi.Endpoint{Host: in.EndpointHost, Port: 6443}
}

func (in *input) facts() translate.Facts {
	return translate.Facts{ID: in.ID, Codename: in.Codename, Arch: in.Arch, PackageManager: in.PM, Systemd: true, Bash: true, Cgroup: in.Cgroup, UID: 1000}
}

// maps builds every map there is.
func (in *input) maps() (map[string]wire.Map, map[string]error) {
	out, errs := map[string]wire.Map{}, map[string]error{}
	t, k, f, tok := in.target(), in.kubernetes(), in.facts(), translate.Token{ID: in.TokenID, Secret: translate.Secret(in.TokenSecret), For: "w-x7f3q"}
	add := func(name string, m wire.Map, err error) {
		if err != nil {
			errs[name] = err
		} else {
			out[name] = m
		}
	}
	m, err := translate.PortProbe("job", in.Address, []string{in.Address})
	add("ports", m, err)
	m, err = translate.HostProbe("job", []string{in.Address}, false)
	add("probe", m, err)
	m, err = translate.HostProbe("job", []string{in.Address}, true)
	add("probe-detail", m, err)
	m, err = translate.Packages("job", t, k, f)
	add("packages", m, err)
	m, err = translate.Init("job", t, k, f, translate.InitInput{Token: tok})
	add("init", m, err)
	m, err = translate.ControlPlaneWork("job", t, k, translate.Work{Tokens: []translate.Token{tok, tok}, Expires: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
	add("credentials", m, err)
	endpoint := in.endpoint()
	if endpoint.IsZero() {
		endpoint = capi.Endpoint{Host: in.Address, Port: 6443}
	}
	m, err = translate.Join("job", t, k, f, translate.JoinInput{Token: tok, Endpoint: endpoint, CAHash: in.Hash})
	add("join", m, err)
	for _, mode := range capi.WipeModes() {
		m, err = translate.Wipe("job", t, translate.WipeOrder{Mode: mode, Disks: []capi.Disk{{Device: in.Device, Bytes: 480103981056, WWN: "naa.5000c500a1b2c3d4", Serial: "WD-1"}}, Delay: 10 * time.Second})
		add("wipe-"+string(mode), m, err)
	}
	in.leaveMaps(add)
	return out, errs
}

// vectors are the inputs of the golden files.
func vectors() map[string]input {
	v := map[string]input{"v1.34-noble": harmless()}
	in := harmless()
	in.Version, in.Minor, in.ID, in.Codename, in.EndpointHost = "1.36.4", 36, "debian", "trixie", "10.0.0.9"
	v["v1.36-trixie-endpoint"] = in
	in = harmless()
	in.Version, in.Minor, in.ID, in.Codename, in.Root, in.BootID = "1.27.16", 27, "debian", "bookworm", true, ""
	v["v1.27-bookworm-root"] = in
	v["v1.14-bionic-mirror"] = old("1.14.2", 14, 1, "18.06.1~ce~3-0~ubuntu")
	v["v1.23-bionic-mirror"] = old("1.23.17", 23, 1, "20.10.24")
	in = harmless()
	in.Version, in.Minor = "1.24.0", 24
	v["v1.24-noble"] = in
	return v
}

func vector(name string) *input {
	in := vectors()[name]
	return &in
}

// words evaluates a command line the way a shell splits it, without expanding anything.
func words(line string) ([]string, error) {
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(line), "")
	if err != nil {
		return nil, err
	}
	if len(f.Stmts) != 1 || len(f.Stmts[0].Redirs) > 0 || f.Stmts[0].Background {
		return nil, errors.New("not one simple command")
	}
	call, ok := f.Stmts[0].Cmd.(*syntax.CallExpr)
	if !ok || len(call.Assigns) > 0 {
		return nil, errors.New("not one simple command")
	}
	var out []string
	for _, w := range call.Args {
		word := ""
		for _, p := range w.Parts {
			switch p := p.(type) {
			case *syntax.SglQuoted:
				word += p.Value
			case *syntax.Lit:
				if strings.ContainsAny(p.Value, "*?[~{}") {
					return nil, fmt.Errorf("a pattern in %q", p.Value)
				}
				word += strings.ReplaceAll(p.Value, `\'`, "'")
			default:
				return nil, fmt.Errorf("an expansion %T", p)
			}
		}
		out = append(out, word)
	}
	return out, nil
}

// script is the text that a command hands to its shell.
func script(tb testing.TB, a wire.Action) (shell, text string) {
	tb.Helper()
	if a.CommandLocal {
		return "bash", a.Command
	}
	w, err := words(a.Command)
	if err != nil || len(w) != 3 || w[1] != "-c" || w[0] != "bash" && w[0] != "sh" {
		tb.Fatalf("%s: the command must be `bash -c SCRIPT` or `sh -c SCRIPT` and nothing else (%v): %s", a.Name, err, a.Command)
	}
	return w[0], w[2]
}

// bundled are the files of a map's bundle.
func bundled(tb testing.TB, m wire.Map) map[string]string {
	tb.Helper()
	var raw []byte
	for _, a := range m.Deployments[0].Actions {
		if a.CommandPipeCmd == "" {
			continue
		}
		w, err := words(a.CommandPipeCmd)
		if err != nil || len(w) != 3 || w[0] != "printf" || w[1] != "%s" {
			tb.Fatalf("%s: %v in %.80s", a.Name, err, a.CommandPipeCmd)
		}
		b, err := base64.StdEncoding.DecodeString(w[2])
		if err != nil {
			tb.Fatal(err)
		}
		raw = append(raw, b...)
	}
	files := map[string]string{}
	if raw == nil {
		return files
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		tb.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		hd, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			tb.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			tb.Fatal(err)
		}
		files[fmt.Sprintf("/%s %04o %s", hd.Name, hd.Mode, hd.Uname)] = string(b)
	}
}

func render(t *testing.T, m wire.Map) string {
	t.Helper()
	var b strings.Builder
	d := m.Deployments[0]
	fmt.Fprintf(&b, "map %q for %v\n", d.Name, d.Hosts)
	for _, a := range d.Actions {
		shell, text := script(t, a)
		fmt.Fprintf(&b, "\n=== %s: %s, %d s", a.Name, shell, a.Timeout)
		for _, f := range []struct {
			on   bool
			text string
		}{{a.CommandSudo != "", ", as " + a.CommandSudo}, {a.IgnoreFail, ", may fail"}, {a.CommandLocal, ", on the plunder server"}, {a.CommandPipeCmd != "", ", with a piece of the bundle as input"}} {
			if f.on {
				b.WriteString(f.text)
			}
		}
		b.WriteString("\n" + text + "\n")
	}
	files := bundled(t, m)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "\n--- %s\n%s", name, files[name])
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	for name, in := range vectors() {
		list, errs := in.maps()
		if len(errs) > 0 {
			t.Errorf("%s: %v", name, errs)
		}
		for kind, m := range list {
			if kind != "packages" && kind != "init" && kind != "join" && name != "v1.34-noble" {
				continue // the same for all versions
			}
			path := filepath.Join("testdata", "golden", name+"."+kind+".txt")
			got := render(t, m)
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
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
}

// TestKeyLines: what matters of the golden files, so that rewriting them in a hurry
// does not lose it.
func TestKeyLines(t *testing.T) {
	for _, tt := range []struct {
		vector, kind string
		want, never  []string
	}{
		{"v1.34-noble", "packages", []string{
			"https://pkgs.k8s.io/core:/stable:/v1.34/deb/ /", "set -- 'https://pkgs.k8s.io/core:/stable:/v1.37/deb/Release.key' ", `"kubelet=1.34.1-*"`, "containerd.io", "SystemdCgroup = true",
			"apt-mark hold kubelet kubeadm kubectl kubernetes-cni cri-tools",
		}, []string{"docker-ce"}},
		{"v1.34-noble", "init", []string{"apiVersion: kubeadm.k8s.io/v1beta4", "- name: node-ip\n", "criSocket: unix:///run/containerd/containerd.sock", "controlPlaneEndpoint: 192.168.1.123:6443", "/run/capplunder/kubeadm.yaml 0600 root"},
			[]string{"certificateKey", "--upload-certs", "imageRepository"}},
		{"v1.36-trixie-endpoint", "packages", []string{"[ \"$(printf '%s\\n' 2.0.0 "}, nil},
		{"v1.36-trixie-endpoint", "init", []string{"controlPlaneEndpoint: 10.0.0.9:6443", "- 10.0.0.9\n", "- 192.168.1.123\n"}, nil},
		{"v1.36-trixie-endpoint", "join", []string{"apiServerEndpoint: 10.0.0.9:6443", "kubeadm join --config $R/join.yaml", harmlessHash}, []string{"controlPlane:"}},
		{"v1.27-bookworm-root", "packages", []string{"/v1.27/deb/ /", "/v1.37/deb/Release.key"}, []string{"as root"}},
		{"v1.27-bookworm-root", "init", []string{"kubeadm.k8s.io/v1beta3", "node-ip: 192.168.1.123"}, []string{"imageRepository", "as root"}},
		{"v1.24-noble", "init", []string{"imageRepository: registry.k8s.io", "criSocket: unix:///run/containerd/containerd.sock"}, nil},
		{"v1.14-bionic-mirror", "packages", []string{mirrorLine, "docker-ce=18.06.1~ce~3-0~ubuntu", `"kubelet=1.14.2-*"`, `"kubernetes-cni=0.7.5-*"`, "native.cgroupdriver=systemd"}, []string{"docker-ce-cli", "pkgs.k8s.io", "SystemdCgroup"}},
		{"v1.14-bionic-mirror", "init", []string{"kubeadm.k8s.io/v1beta1", "imageRepository: registry.k8s.io"}, []string{"criSocket"}},
		{"v1.23-bionic-mirror", "packages", []string{"'docker-ce=5:20.10.24~*' 'docker-ce-cli=5:20.10.24~*' containerd.io"}, []string{"SystemdCgroup", "0.7.5"}},
		{"v1.34-noble", "wipe-quick", []string{`MODE=quick DISKS="/dev/sda,480103981056,naa.5000c500a1b2c3d4,WD-1" `, "DELAY=10\n", "UNIT=65536 COUNT=8"}, []string{"blkdiscard -f", "hdparm", "nvme format"}},
		{"v1.34-noble", "wipe-zero", []string{"MODE=zero ", "UNIT=1048576 COUNT=16"}, []string{"blkdiscard -f", "hdparm", "nvme format"}},
		{"v1.34-noble", "wipe-discard", []string{"MODE=discard ", "reason=discard-unsupported", "blkdiscard -f"}, []string{"hdparm", "nvme format"}},
		{"v1.34-noble", "wipe-secure", []string{"MODE=secure ", "--security-erase", "nvme format", "reason=frozen"}, []string{"blkdiscard -f"}},
	} {
		list, errs := vector(tt.vector).maps()
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		text := render(t, list[tt.kind])
		for _, w := range tt.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s, %s: %q is missing", tt.vector, tt.kind, w)
			}
		}
		for _, n := range tt.never {
			if strings.Contains(text, n) {
				t.Errorf("%s, %s: %q must not be there", tt.vector, tt.kind, n)
			}
		}
	}
}

// TestMapRules: the rules that every map obeys, from how plunder runs one.
func TestMapRules(t *testing.T) {
	for name, in := range vectors() {
		list, _ := in.maps()
		for kind, m := range list {
			checkMap(t, name+" "+kind, m, in)
			for _, a := range m.Deployments[0].Actions {
				_, text := script(t, a)
				_ = shape(t, text) // it can be read
			}
			first := m.Deployments[0].Actions[0]
			if guarded := kind != "ports" && !strings.HasPrefix(kind, "probe"); guarded && first.Name != translate.TaskName("guard", "job") {
				t.Errorf("%s %s begins with %s, not with the guard", name, kind, first.Name)
			}
		}
	}
}

func checkMap(tb testing.TB, what string, m wire.Map, in input) {
	tb.Helper()
	if len(m.Deployments) != 1 || m.Deployments[0].Parallel || len(m.Deployments[0].Hosts) != 1 {
		tb.Fatalf("%s: one deployment for one host, one after the other: %+v", what, m)
	}
	actions := m.Deployments[0].Actions
	if len(actions) == 0 || len(actions) > 25 {
		tb.Errorf("%s: %d actions", what, len(actions))
	}
	names := map[string]bool{}
	for _, a := range actions {
		if a.Timeout <= 0 || a.Type != wire.ActionCommand || a.CommandSaveAsKey != "" || a.KeyName != "" || names[a.Name] || !strings.HasSuffix(a.Name, "#job") {
			tb.Errorf("%s: %+v", what, a)
		}
		names[a.Name] = true
		if len(a.Command) > 131071 || len(a.CommandPipeCmd) > 131071 {
			tb.Errorf("%s: %s is too long for an argument", what, a.Name)
		}
		if strings.Contains(a.Command, in.TokenSecret) && in.TokenSecret != "" {
			tb.Errorf("%s: %s has the token in its command", what, a.Name)
		}
		shell, text := script(tb, a)
		if shell == "sh" {
			if _, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(text), a.Name); err != nil {
				tb.Errorf("%s: %v", what, err)
			}
		}
		if pipe := a.CommandPipeCmd != ""; pipe != strings.Contains(a.Name, "bundle.") && !strings.Contains(a.Name, "unpack") {
			tb.Errorf("%s: %s: only bundles come through a pipe", what, a.Name)
		}
	}
}

// shape is the structure of a script without its words: what a hostile value would
// have to change to be executed.
func shape(tb testing.TB, text string) string {
	tb.Helper()
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		tb.Fatalf("%v in %s", err, text)
	}
	var b strings.Builder
	syntax.Walk(f, func(n syntax.Node) bool {
		if n == nil {
			b.WriteByte(')')
			return true
		}
		b.WriteString("(" + strings.TrimPrefix(reflect.TypeOf(n).String(), "*syntax."))
		if l, ok := n.(*syntax.Lit); ok { // patterns, tildes and braces are words as well
			for _, r := range "*?[~{" {
				if strings.ContainsRune(l.Value, r) {
					b.WriteRune(r)
				}
			}
		}
		return true
	})
	return b.String()
}

// known are the structures that each action may have, and the texts they came from.
type known struct {
	shapes map[string]map[string]bool // by action and structure
	texts  map[string]bool            // by action and text: nothing hostile got into these
}

func shapes(tb testing.TB) known {
	tb.Helper()
	k := known{map[string]map[string]bool{}, map[string]bool{}}
	list := vectors()
	for name, in := range map[string]input{"no docker version": old("1.23.17", 23, 1, ""), "docker 18.06.1": old("1.14.2", 14, 1, "18.06.1"), "no boot": harmless()} {
		if name == "no boot" {
			in.BootID = ""
		}
		list[name] = in
	}
	for _, in := range list {
		list, errs := in.maps()
		if len(errs) > 0 {
			tb.Fatal(errs)
		}
		for _, m := range list {
			for _, a := range m.Deployments[0].Actions {
				if k.shapes[a.Name] == nil {
					k.shapes[a.Name] = map[string]bool{}
				}
				_, text := script(tb, a)
				k.shapes[a.Name][shape(tb, text)] = true
				k.texts[a.Name+text] = true
			}
		}
	}
	return k
}

// fields are the texts of an input that come from outside.
func (in *input) fields() []*string {
	return []*string{
		&in.Host, &in.Address, &in.MAC, &in.BootID, &in.Version, &in.Cluster, &in.Domain, &in.Pods, &in.Docker, &in.Apt, &in.Key, &in.EndpointHost, &in.Device, &in.Hash,
	}
}

// FuzzMaps: whatever is written in the objects, a map either refuses it or has the
// structure that it has for harmless values, with the value as data.
func FuzzMaps(f *testing.F) {
	harmlessOnes := shapes(f)
	h := harmless()
	for i := range h.fields() {
		for _, evil := range []string{"$(reboot)", "'; reboot; '", "a\nreboot", "a b|c&d", "*{a,~}", "x'\"`id`\\", "1.34.1;reboot", "deb [x] http://a/ b;reboot"} {
			f.Add(i, evil, i%2 == 0)
		}
	}
	f.Add(4, "1.34.1", false)
	f.Add(8, "5:20.10.24~3-0~ubuntu", true)
	f.Add(9, mirrorLine, true)
	f.Add(10, "https://mirror.example/key?a=b&c=d", true)
	f.Fuzz(func(t *testing.T, field int, value string, mirror bool) {
		in := harmless()
		if mirror {
			in = old("1.14.2", 14, 1, "18.06.1~ce~3-0~ubuntu")
		}
		all := in.fields()
		*all[uint(field)%uint(len(all))] = value
		list, _ := in.maps()
		// In order: an input that behaves otherwise each time confuses the fuzzer.
		for _, kind := range slices.Sorted(maps.Keys(list)) {
			m := list[kind]
			checkMap(t, kind, m, in)
			for _, a := range m.Deployments[0].Actions {
				if _, text := script(t, a); !harmlessOnes.texts[a.Name+text] && !harmlessOnes.shapes[a.Name][shape(t, text)] {
					t.Errorf("%s: %s has another structure:\n%s", kind, a.Name, text)
				}
			}
			files := bundled(t, m)
			for _, file := range slices.Sorted(maps.Keys(files)) {
				checkDocuments(t, file, files[file], in)
			}
		}
	})
}

// checkDocuments: values are values in the files of a bundle, too.
func checkDocuments(tb testing.TB, file, text string, in input) {
	tb.Helper()
	want := map[string]int{"InitConfiguration": 1, "ClusterConfiguration": 1, "KubeletConfiguration": 1}
	if strings.Contains(file, "join.yaml") {
		want = map[string]int{"JoinConfiguration": 1}
	} else if strings.Contains(file, "token.yaml") {
		want = map[string]int{"Secret": 2}
	}
	got := map[string]int{}
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var d struct {
			Kind             string `json:"kind"`
			ClusterName      string `json:"clusterName"`
			NodeRegistration struct {
				Name string `json:"name"`
			} `json:"nodeRegistration"`
		}
		if err := yaml.Unmarshal([]byte(doc), &d); err != nil {
			tb.Errorf("%s: %v in %s", file, err, doc)
		}
		got[d.Kind]++
		if d.Kind == "ClusterConfiguration" && d.ClusterName != in.Cluster {
			tb.Errorf("%s: cluster %q, want %q", file, d.ClusterName, in.Cluster)
		}
		if n := d.NodeRegistration.Name; n != "" && n != in.Host {
			tb.Errorf("%s: node %q, want %q", file, n, in.Host)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("%s: documents %s", file, diff)
	}
}

// TestFactsRefusals: what a host cannot have is said before anything is changed.
func TestFactsRefusals(t *testing.T) {
	good := harmless()
	for _, tt := range []struct {
		change func(*translate.Facts)
		minor  int
		want   string
	}{
		{func(f *translate.Facts) { f.Systemd = false }, 34, "systemd"},
		{func(f *translate.Facts) { f.Bash = false }, 34, "no bash"},
		{func(f *translate.Facts) { f.PackageManager = "apk" }, 34, "set method: binaries"},
		{func(f *translate.Facts) { f.PackageManager = "none" }, 34, "package manager is none"},
		{func(f *translate.Facts) { f.Arch = "armv7l" }, 34, "no Kubernetes for armv7l"},
		{func(f *translate.Facts) { f.Cgroup = 1 }, 35, "cgroup v2"},
		{func(f *translate.Facts) { f.Cgroup = 2 }, 18, "cgroup v1"},
	} {
		f, k := good.facts(), good.kubernetes()
		tt.change(&f)
		k.Minor = tt.minor
		_, err1 := translate.Packages("job", good.target(), k, f)
		_, err2 := translate.Init("job", good.target(), k, f, translate.InitInput{Token: translate.Token{ID: "abcdef", Secret: "0123456789abcdef", For: "w-x7f3q"}})
		_, err3 := translate.Join("job", good.target(), k, f, translate.JoinInput{Token: translate.Token{ID: "abcdef", Secret: "0123456789abcdef", For: "w-x7f3q"}, Endpoint: capi.Endpoint{Host: "10.0.0.9", Port: 6443}, CAHash: harmlessHash})
		for _, err := range []error{err1, err2, err3} {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		}
	}
}

// A map with many tokens keeps its pieces short, and has no secret in an error.
func TestManyTokens(t *testing.T) {
	in := harmless()
	toks := make([]translate.Token, 1000)
	for i := range toks {
		toks[i] = translate.Token{ID: fmt.Sprintf("t%05d", i), Secret: translate.Secret(fmt.Sprintf("%016d", i*7919)), For: "w-x7f3q"}
	}
	m, err := translate.ControlPlaneWork("job", in.target(), in.kubernetes(), translate.Work{Tokens: toks, Expires: time.Unix(0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	checkMap(t, "credentials", m, in)
	for _, text := range bundled(t, m) {
		if n := strings.Count(text, "kind: Secret"); n != 1000 {
			t.Errorf("%d tokens", n)
		}
	}
	_, err = translate.ControlPlaneWork("job", in.target(), in.kubernetes(), translate.Work{Tokens: []translate.Token{{ID: "abcdef", Secret: "not-a-token-secret", For: "w-x7f3q"}}, Expires: time.Unix(0, 0)})
	if err == nil || strings.Contains(err.Error(), "not-a-token") {
		t.Errorf("got %v", err)
	}
}
