package translate_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// rack is a few virtual hosts, and what plunder's parlay does with a map on them.
type rack struct {
	t     *testing.T
	world *host.World
	hosts map[string]*host.Host
	jobs  atomic.Int64
}

func newRack(t *testing.T) *rack {
	t.Helper()
	return &rack{t: t, world: host.NewWorld(), hosts: map[string]*host.Host{}}
}

func macOf(address string) string {
	return fmt.Sprintf("52:54:00:00:00:%02s", address[strings.LastIndexByte(address, '.')+1:])
}

func (r *rack) add(address, name string, change ...func(*host.Config)) *host.Host {
	cfg := host.Config{MAC: macOf(address), Address: address, HostName: name, User: "deploy", Seed: 7, KubernetesTime: time.Minute, World: r.world}
	for _, f := range change {
		f(&cfg)
	}
	h := host.New(cfg)
	r.hosts[address] = h
	r.t.Cleanup(h.Close)
	return h
}

func (r *rack) job() string {
	return fmt.Sprintf("job%d", r.jobs.Add(1))
}

func (r *rack) target(address string) translate.Target {
	return translate.Target{Address: address, HostName: "host-" + address[strings.LastIndexByte(address, '.')+1:], Guard: translate.Guard{MAC: macOf(address), BootID: r.hosts[address].BootID()}}
}

// post runs a map of one host to its end, or until its first failure, like plunder.
func (r *rack) post(m wire.Map, err error) wire.Log {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
	return r.run(m)[m.Deployments[0].Hosts[0]]
}

func (r *rack) run(m wire.Map) map[string]wire.Log {
	r.t.Helper()
	logs := map[string]wire.Log{}
	d := m.Deployments[0]
	for _, address := range d.Hosts {
		l := wire.Log{State: wire.StateCompleted}
		for _, a := range d.Actions {
			e := r.action(a, address)
			l.Entries = append(l.Entries, e)
			if e.Error != "" && !a.IgnoreFail {
				l.State = wire.StateFailed
				break
			}
		}
		logs[address] = l
	}
	return logs
}

func (r *rack) action(a wire.Action, address string) wire.LogEntry {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Duration(a.Timeout)*time.Second)
	defer cancel()
	e := wire.LogEntry{Task: a.Name, Created: time.Now()}
	var res host.Result
	if a.CommandLocal {
		res = r.world.RunLocal(ctx, a.Command)
	} else {
		c := host.Command{Line: a.Command, Combined: a.CommandPipeCmd == ""}
		if a.CommandSudo != "" {
			c.Line = "sudo -n -u " + a.CommandSudo + " " + a.Command
		}
		if a.CommandPipeCmd != "" {
			in := r.world.RunLocal(ctx, a.CommandPipeCmd)
			if in.Exit != 0 || in.Err != nil {
				r.t.Fatalf("%s: %+v", a.Name, in)
			}
			c.Stdin = []byte(in.Output)
		}
		res = r.hosts[address].Run(ctx, c)
	}
	e.Entry = res.Output
	switch {
	case res.Err != nil:
		e.Error = "Command Timed out"
	case res.Exit != 0:
		e.Error = fmt.Sprintf("Process exited with status %d", res.Exit)
	}
	if e.Entry == "" {
		e.Entry = wire.NoOutput
	}
	return e
}

// must fails the test unless the job completed.
func (r *rack) must(l wire.Log) wire.Log {
	r.t.Helper()
	if l.State != wire.StateCompleted {
		e := l.Entries[len(l.Entries)-1]
		r.t.Fatalf("%s: %s\n%s", e.Task, e.Error, e.Entry)
	}
	return l
}

func (r *rack) facts(address string) translate.Facts {
	r.t.Helper()
	job := r.job()
	m, err := translate.HostProbe(job, []string{address}, false)
	if err != nil {
		r.t.Fatal(err)
	}
	f, done, err := translate.ReadHostProbe(r.run(m)[address], job)
	if err != nil || !done {
		r.t.Fatalf("done %v, err %v", done, err)
	}
	return f
}

// all runs f for every address at the same time.
func (r *rack) all(addresses []string, f func(address, job string)) {
	var wg sync.WaitGroup
	for _, a := range addresses {
		job := r.job()
		wg.Go(func() { f(a, job) })
	}
	wg.Wait()
}

func kubernetes(version string, controlPlane bool) *translate.Kubernetes {
	k := &translate.Kubernetes{
		Version: version, ControlPlane: controlPlane, Cluster: "c1", PodCIDR: capi.DefaultPodCIDR, ServiceCIDR: capi.DefaultServiceCIDR, Domain: "cluster.local",
	}
	_, _ = fmt.Sscanf(version, "1.%d", &k.Minor)
	return k
}

func token(id string) translate.Token {
	return translate.Token{ID: id, Secret: "0123456789abcdef", For: "w-x7f3q"}
}

func TestHostProbeOnHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		h := r.add("10.0.0.1", "cp-abcde", func(c *host.Config) {
			c.Disk = []host.DiskConfig{{Name: "sda", Bytes: 480103981056}, {Name: "sdb", Bytes: 1 << 30, USB: true, Removable: true}, {Name: "nvme0n1", Bytes: 1 << 40}}
		})
		time.Sleep(90 * time.Second)
		f := r.facts("10.0.0.1")
		if f.ID != "ubuntu" || f.PackageManager != "apt-get" || f.Arch != "x86_64" || !f.Systemd || !f.Bash || f.Cgroup != 2 || f.Host != "cp-abcde" || f.UID != 1000 || f.Node || f.Kubeadm != "-" {
			t.Errorf("facts %+v", f)
		}
		if !slices.Contains(f.MACs, "52:54:00:00:00:01") || f.BootID != h.BootID() || f.Uptime != 90*time.Second {
			t.Errorf("identity %+v", f)
		}
		var got []string
		for _, d := range f.Disks {
			got = append(got, fmt.Sprintf("%s %d %s", d.Device, d.Bytes, d.Flags))
		}
		want := []string{"/dev/nvme0n1 1099511627776 ", "/dev/sda 480103981056 root,mounted", "/dev/sdb 1073741824 removable,usb"}
		if !slices.Equal(got, want) {
			t.Errorf("disks\n got %q\nwant %q", got, want)
		}
		m, err := translate.HostProbe("detail", []string{"10.0.0.1"}, true)
		if err != nil {
			t.Fatal(err)
		}
		f2, done, err := translate.ReadHostProbe(r.run(m)["10.0.0.1"], "detail")
		if err != nil || !done || len(f2.Disks) != 3 {
			t.Fatalf("%+v, done %v, err %v", f2, done, err)
		}
		for i, d := range f2.Disks {
			mounts := map[string]string{"/dev/sda": "/,/boot/efi"}[d.Device]
			if d.Identity() != f.Disks[i] || d.WWN == "" != d.Has("usb") || d.Serial == "" || d.Model == "" || d.Content != "gpt,vfat,ext4" || d.Mounts != mounts {
				t.Errorf("in detail: %+v, before: %+v", d, f.Disks[i])
			}
		}
	})
}

func TestPortProbeOnServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		r.add("10.0.0.1", "a")
		r.add("10.0.0.3", "c")
		r.add("10.0.0.4", "d").Close()
		m, err := translate.PortProbe("j", "10.0.0.1", []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		open, done, err := translate.ReadPortProbe(r.run(m)["10.0.0.1"], "j")
		slices.Sort(open)
		if err != nil || !done || !slices.Equal(open, []string{"10.0.0.1", "10.0.0.3"}) {
			t.Errorf("open %q, done %v, err %v", open, done, err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("dead addresses must time out together, it took %v", d)
		}
	})
}

// TestInstall takes a control plane and three workers from a fresh system to a
// cluster, and does everything a second time.
func TestInstall(t *testing.T) {
	for _, tt := range []struct{ version, profile, docker string }{
		{"1.34.1", host.ProfileNoble, ""}, {"1.28.3", host.ProfileBookworm, ""}, {"1.24.0", host.ProfileNoble, ""}, {"1.36.4", host.ProfileNoble, ""},
		{"1.23.17", host.ProfileNoble, ""}, {"1.23.17", host.ProfileNoble, "27.5.1"}, {"1.21.3", host.ProfileBookworm, "5:24.0.9-1~debian.12~bookworm"},
	} {
		t.Run(strings.Join([]string{tt.version, tt.profile, tt.docker}, " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { install(t, tt.version, tt.profile, tt.docker) })
		})
	}
}

func install(t *testing.T, version, profile, docker string) {
	t.Helper()
	r := newRack(t)
	const cp = "10.0.0.10"
	workers := []string{"10.0.0.11", "10.0.0.12", "10.0.0.13"}
	all := append([]string{cp}, workers...)
	for _, a := range all {
		r.add(a, r.targetName(a), func(c *host.Config) { c.Profile = profile })
	}
	ck, wk := kubernetes(version, true), kubernetes(version, false)
	if ck.Minor < 24 {
		repo := &capi.PackageRepo{Apt: "deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] https://mirror.example/kubernetes kubernetes-xenial main", Key: "https://mirror.example/kubernetes.gpg"}
		ck.Repo, wk.Repo = repo, repo
		ck.DockerVersion, wk.DockerVersion = docker, docker
	}
	facts := map[string]translate.Facts{}
	for _, a := range all {
		facts[a] = r.facts(a)
	}

	start := time.Now()
	var logs sync.Map
	r.all(all, func(a, job string) {
		m, err := translate.Packages(job, r.target(a), wk, facts[a])
		logs.Store(a, r.post(m, err))
	})
	for _, a := range all {
		l, _ := logs.Load(a)
		r.must(l.(wire.Log))
	}
	if d := time.Since(start); d != 30*time.Second {
		t.Errorf("the packages took %v, want half of KubernetesTime, at the same time on all", d)
	}

	job := r.job()
	m, err := translate.Init(job, r.target(cp), ck, facts[cp], translate.InitInput{Token: token("aaaaaa")})
	l := r.must(r.post(m, err))
	hash, err := translate.ReadInit(l, job)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d != time.Minute {
		t.Errorf("packages and init took %v, want KubernetesTime", d)
	}
	noSecrets(t, m, l)

	job = r.job()
	toks := []translate.Token{token("worka1"), token("worka2"), token("worka3")}
	m, err = translate.ControlPlaneWork(job, translate.Target{Address: cp, HostName: r.targetName(cp), Guard: translate.Guard{MAC: macOf(cp)}}, wk, translate.Work{Tokens: toks, Expires: time.Now().Add(30 * time.Minute)})
	l = r.must(r.post(m, err))
	if again, err := translate.ReadWork(l, job, translate.Work{}); err != nil || again.CAHash != hash {
		t.Errorf("credentials: CA %s, err %v; init said %s", again.CAHash, err, hash)
	}
	noSecrets(t, m, l)

	endpoint := capi.Endpoint{Host: cp, Port: 6443}
	r.all(workers, func(a, job string) {
		i := slices.Index(workers, a)
		m, err := translate.Join(job, r.target(a), wk, facts[a], translate.JoinInput{Token: toks[i], Endpoint: endpoint, CAHash: hash})
		l := r.post(m, err)
		noSecrets(t, m, l)
		logs.Store(a, l)
	})
	for _, a := range workers {
		l, _ := logs.Load(a)
		r.must(l.(wire.Log))
		if f := r.facts(a); !f.Node || f.Kubeadm != "v"+version {
			t.Errorf("%s is no node of v%s: %+v", a, version, f)
		}
	}
	nodes := r.hosts[cp].Nodes()
	slices.Sort(nodes)
	if want := []string{"host-10", "host-11", "host-12", "host-13"}; !slices.Equal(nodes, want) {
		t.Errorf("nodes %q", nodes)
	}
	for _, h := range r.hosts {
		if u := h.Unknown(); len(slices.DeleteFunc(u, func(s string) bool { return s == "kubeadm" })) > 0 {
			t.Errorf("the scripts ran programs that a host does not have: %q", u)
		}
	}

	// Everything again changes nothing and takes no time.
	start = time.Now()
	job = r.job()
	m, err = translate.Packages(job, r.target(cp), ck, facts[cp])
	r.must(r.post(m, err))
	job = r.job()
	m, err = translate.Init(job, r.target(cp), ck, facts[cp], translate.InitInput{Token: token("bbbbbb")})
	l = r.must(r.post(m, err))
	if !strings.Contains(l.Entries[len(l.Entries)-1].Entry, "capplunder-init already") {
		t.Errorf("a second init: %q", l.Entries[len(l.Entries)-1].Entry)
	}
	if again, err := translate.ReadInit(l, job); err != nil || again != hash {
		t.Errorf("a second init: CA %q, err %v", again, err)
	}
	m, err = translate.Join(r.job(), r.target(workers[0]), wk, facts[workers[0]], translate.JoinInput{Token: token("cccccc"), Endpoint: endpoint, CAHash: hash})
	l = r.must(r.post(m, err))
	if !strings.Contains(l.Entries[len(l.Entries)-1].Entry, "capplunder-join already") {
		t.Errorf("a second join: %q", l.Entries[len(l.Entries)-1].Entry)
	}
	if d := time.Since(start); d != 0 {
		t.Errorf("the second time took %v", d)
	}
	for _, a := range all {
		res := r.hosts[a].Run(t.Context(), host.Command{Line: "sudo -n -u root sh -c 'ls /run/capplunder /etc/kubernetes/capplunder; stat -c %a /run/capplunder'", Combined: true})
		if strings.Contains(res.Output, ".yaml") || !strings.HasSuffix(res.Output, "700") {
			t.Errorf("%s keeps secrets: %q", a, res.Output)
		}
	}
}

func (r *rack) targetName(address string) string {
	return "host-" + address[strings.LastIndexByte(address, '.')+1:]
}

// noSecrets: tokens go through pipes, so they are in no command and no log.
func noSecrets(t *testing.T, m wire.Map, l wire.Log) {
	t.Helper()
	const secret = "0123456789abcdef"
	for _, a := range m.Deployments[0].Actions {
		if strings.Contains(a.Command, secret) {
			t.Errorf("action %s has a secret in its command", a.Name)
		}
	}
	for _, e := range l.Entries {
		if strings.Contains(e.Entry+e.Error, secret) {
			t.Errorf("entry %s shows a secret: %s", e.Task, e.Entry)
		}
	}
}

// prepared is a rack with an initialised control plane and a worker with packages.
func prepared(t *testing.T) (r *rack, k *translate.Kubernetes, f translate.Facts, hash string) {
	t.Helper()
	r = newRack(t)
	r.add("10.0.0.10", "host-10")
	r.add("10.0.0.11", "host-11")
	k = kubernetes("1.34.1", false)
	f = r.facts("10.0.0.11")
	for a := range r.hosts {
		m, err := translate.Packages(r.job(), r.target(a), k, f)
		r.must(r.post(m, err))
	}
	job := r.job()
	m, err := translate.Init(job, r.target("10.0.0.10"), k, f, translate.InitInput{Token: token("aaaaaa")})
	hash, err = translate.ReadInit(r.must(r.post(m, err)), job)
	if err != nil {
		t.Fatal(err)
	}
	// init's own token is gone by now.
	r.must(r.post(translate.ControlPlaneWork(r.job(), r.target("10.0.0.10"), k, translate.Work{Tokens: []translate.Token{token("aaaaaa")}, Expires: time.Now().Add(30 * time.Minute)})))
	return r, k, f, hash
}

func TestJoinFailures(t *testing.T) {
	cp := capi.Endpoint{Host: "10.0.0.10", Port: 6443}
	for _, tt := range []struct {
		name     string
		token    translate.Token
		endpoint capi.Endpoint
		wait     time.Duration
		hash     func(string) string
		want     []string
	}{
		{name: "unknown token", token: token("dead00"), endpoint: cp, want: []string{"could not find a JWS signature", "likely: the join token has expired"}},
		{name: "expired token", token: token("aaaaaa"), endpoint: cp, wait: 31 * time.Minute, want: []string{"likely: the join token has expired"}},
		{name: "wrong secret", token: translate.Token{ID: "aaaaaa", Secret: "ffffffffffffffff", For: "w-x7f3q"}, endpoint: cp, want: []string{"failed to verify JWS signature"}},
		{name: "another CA", token: token("aaaaaa"), endpoint: cp, hash: func(string) string { return "sha256:" + strings.Repeat("0", 64) }, want: []string{"none of the public keys"}},
		{name: "nothing there", token: token("aaaaaa"), endpoint: capi.Endpoint{Host: "10.0.0.99", Port: 6443}, want: []string{"connection refused"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, k, f, hash := prepared(t)
				time.Sleep(tt.wait)
				if tt.hash != nil {
					hash = tt.hash(hash)
				}
				m, err := translate.Join(r.job(), r.target("10.0.0.11"), k, f, translate.JoinInput{Token: tt.token, Endpoint: tt.endpoint, CAHash: hash})
				l := r.post(m, err)
				e := l.Entries[len(l.Entries)-1]
				if l.State != wire.StateFailed {
					t.Fatalf("state %s, %+v", l.State, e)
				}
				text := translate.Explain(e)
				for _, w := range append(tt.want, "action join failed") {
					if !strings.Contains(text, w) {
						t.Errorf("%q is not in: %s", w, text)
					}
				}
				noSecrets(t, m, l)
				if n := r.hosts["10.0.0.10"].Nodes(); len(n) != 1 {
					t.Errorf("nodes %q", n)
				}
				// New credentials, and the same machine joins.
				job := r.job()
				m, err = translate.ControlPlaneWork(job, r.target("10.0.0.10"), k, translate.Work{Tokens: []translate.Token{token("fresh1")}, Expires: time.Now().Add(30 * time.Minute)})
				var done translate.WorkResult
				done, err = translate.ReadWork(r.must(r.post(m, err)), job, translate.Work{})
				hash = done.CAHash
				if err != nil {
					t.Fatal(err)
				}
				m, err = translate.Join(r.job(), r.target("10.0.0.11"), k, f, translate.JoinInput{Token: token("fresh1"), Endpoint: cp, CAHash: hash})
				r.must(r.post(m, err))
			})
		})
	}
}

func TestVersionThatIsNotServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		r.add("10.0.0.10", "host-10")
		m, err := translate.Packages("j", r.target("10.0.0.10"), kubernetes("1.34.99", false), r.facts("10.0.0.10"))
		l := r.post(m, err)
		text := translate.Explain(l.Entries[len(l.Entries)-1])
		for _, w := range []string{"action kube.repo failed", "likely: the package repository does not have this version", "1.34.17-1.1"} {
			if !strings.Contains(text, w) {
				t.Errorf("%q is not in: %s", w, text)
			}
		}
	})
}

func TestGuardStopsStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		h := r.add("10.0.0.1", "host-1")
		f := r.facts("10.0.0.1")
		disks := []capi.Disk{{Device: "/dev/sda", Bytes: 480103981056}}
		for name, change := range map[string]func(*translate.Guard){
			"another MAC":  func(g *translate.Guard) { g.MAC = "52:54:00:00:00:02" },
			"another boot": func(g *translate.Guard) { g.BootID = "00000000-0000-4000-a000-000000000000" },
			"loopback MAC": func(g *translate.Guard) { g.MAC = "52:54:00:00:00:0" + "0" },
		} {
			target := r.target("10.0.0.1")
			change(&target.Guard)
			before := len(h.History())
			for _, build := range []func() (wire.Map, error){
				func() (wire.Map, error) { return translate.Packages("j", target, kubernetes("1.34.1", false), f) },
				func() (wire.Map, error) {
					return translate.Wipe("j", target, translate.WipeOrder{Disks: disks, Delay: 10 * time.Second})
				},
			} {
				m, err := build()
				l := r.post(m, err)
				if l.State != wire.StateFailed || len(l.Entries) != 1 || !strings.Contains(translate.Explain(l.Entries[0]), "nothing was changed on it") {
					t.Errorf("%s: %+v", name, l)
				}
			}
			for _, c := range h.History()[before:] {
				if !slices.Contains([]string{"sudo", "sh", "cat", "tr", "grep"}, strings.Fields(c)[0]) {
					t.Errorf("%s: something ran on the stranger: %s", name, c)
				}
			}
		}
		if h.Wiped() {
			t.Error("the stranger was wiped")
		}
	})
}
