package translate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// mirror has the packages that the public repositories removed.
func mirror() *capi.PackageRepo {
	return &capi.PackageRepo{
		Apt: "deb https://mirror.example/kubernetes kubernetes-xenial main", RPM: "https://mirror.example/kubernetes-el7-x86_64/", Key: "https://mirror.example/kubernetes.gpg",
	}
}

// packages runs the map of packages on a host.
func (r *rack) packages(address string, k *translate.Kubernetes) wire.Log {
	r.t.Helper()
	m, err := translate.Packages(r.job(), r.target(address), k, r.facts(address))
	return r.post(m, err)
}

// TestDistributions installs kubeadm on every distribution, and does it again, which
// must change nothing.
func TestDistributions(t *testing.T) {
	for _, tt := range []struct {
		profile, version string
		change           func(*translate.Kubernetes)
		runtime, kubelet string // what rpm or dpkg says
	}{
		{profile: host.ProfileNoble, version: "1.34.1", runtime: "containerd.io 2.2.1-1~ubuntu.24.04~noble", kubelet: "1.34.1-1.1"},
		{profile: host.ProfileJammy, version: "1.36.4", runtime: "containerd.io 2.2.1-1~ubuntu.22.04~jammy", kubelet: "1.36.4-1.1"},
		{profile: host.ProfileBookworm, version: "1.27.16", runtime: "containerd.io 2.2.1-1~debian.12~bookworm", kubelet: "1.27.16-1.1"},
		{profile: host.ProfileTrixie, version: "1.37.0", runtime: "containerd.io 2.2.1-1~debian.13~trixie", kubelet: "1.37.0-1.1"},
		{profile: host.ProfileTrixie, version: "1.34.1", change: func(k *translate.Kubernetes) { k.RuntimeSource = capi.SourceDistribution }, runtime: "containerd 1.7.24~ds1-6+b4", kubelet: "1.34.1-1.1"},
		{profile: host.ProfileNoble, version: "1.34.1", change: func(k *translate.Kubernetes) { k.ContainerdVersion = "1.7" }, runtime: "containerd.io 1.7.28-1~ubuntu.24.04~noble", kubelet: "1.34.1-1.1"},
		{profile: host.ProfileBionic, version: "1.14.2", change: func(k *translate.Kubernetes) { k.Repo, k.DockerVersion = mirror(), "18.06.1~ce~3-0~ubuntu" }, runtime: "docker-ce 18.06.1~ce~3-0~ubuntu", kubelet: "1.14.2-00"},
		{profile: host.ProfileBionic, version: "1.18.10", change: func(k *translate.Kubernetes) { k.Repo, k.DockerVersion = mirror(), "19.03.15" }, runtime: "docker-ce 5:19.03.15~3-0~ubuntu-bionic", kubelet: "1.18.10-00"},
		{profile: host.ProfileJammy, version: "1.23.17", change: func(k *translate.Kubernetes) { k.Repo = mirror() }, runtime: "docker-ce 5:28.5.2-1~ubuntu.22.04~jammy", kubelet: "1.23.17-00"},
		{profile: host.ProfileRocky9, version: "1.34.1", runtime: "containerd.io 2.2.1-3.1.el9", kubelet: "1.34.1-150500.1.1"},
		{profile: host.ProfileRocky9, version: "1.36.4", runtime: "containerd.io 2.2.1-3.1.el9", kubelet: "1.36.4-150500.1.1"},
		{profile: host.ProfileRocky10, version: "1.35.2", runtime: "containerd.io 2.2.1-3.1.el10", kubelet: "1.35.2-150500.1.1"},
		{profile: host.ProfileRHEL9, version: "1.32.0", runtime: "containerd.io 2.2.1-3.1.el9", kubelet: "1.32.0-150500.1.1"},
		{profile: host.ProfileFedora42, version: "1.34.1", runtime: "containerd.io 2.2.1-3.1.fc42", kubelet: "1.34.1-150500.1.1"},
		{profile: host.ProfileRocky8, version: "1.30.2", runtime: "containerd.io 1.6.32-3.1.el8", kubelet: "1.30.2-150500.1.1"},
		{profile: host.ProfileCentOS7, version: "1.23.17", change: func(k *translate.Kubernetes) { k.Repo, k.DockerVersion = mirror(), "20.10.24" }, runtime: "docker-ce 3:20.10.24-3.el7", kubelet: "1.23.17-0"},
		{profile: host.ProfileCentOS7, version: "1.14.2", change: func(k *translate.Kubernetes) { k.Repo, k.DockerVersion = mirror(), "18.06.1" }, runtime: "docker-ce 18.06.1.ce-3.el7", kubelet: "1.14.2-0"},
		{profile: host.ProfileCentOS7, version: "1.28.3", runtime: "containerd.io 1.6.33-3.1.el7", kubelet: "1.28.3-150500.1.1"},
	} {
		t.Run(tt.profile+" "+tt.version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRack(t)
				const a = "10.0.0.1"
				h := r.add(a, "host-1", func(c *host.Config) { c.Profile = tt.profile })
				k := kubernetes(tt.version, false)
				if tt.change != nil {
					tt.change(k)
				}
				r.must(r.packages(a, k))
				pkg, _, _ := strings.Cut(tt.runtime, " ")
				for name, want := range map[string]string{pkg: strings.TrimPrefix(tt.runtime, pkg+" "), "kubelet": tt.kubelet} {
					if got := h.Package(name); got != want {
						t.Errorf("%s %q, want %q", name, got, want)
					}
				}
				before, ran := h.Changes(), len(h.History())
				r.must(r.packages(a, k))
				if after := h.Changes(); after != before {
					t.Errorf("the second run changed what is installed:\n%s\nand was:\n%s", after, before)
				}
				for _, line := range h.History()[ran:] {
					if strings.HasPrefix(line, "systemctl restart") {
						t.Errorf("the second run did %q", line)
					}
				}
				h.Reboot()
				time.Sleep(time.Minute)
				res := h.Run(t.Context(), host.Command{Line: `wc -l </proc/swaps; cat /proc/sys/kernel/random/boot_id >/dev/null; ls -d /sys/module/br_netfilter; systemctl is-enabled kubelet; (getenforce || echo none) 2>/dev/null`})
				want := "1\n/sys/module/br_netfilter\nenabled\n"
				if got, ok := strings.CutPrefix(res.Output, want); !ok || got != "none" && got != "Permissive" {
					t.Errorf("after a reboot: %q", res.Output)
				}
			})
		})
	}
}

// TestPackageTrouble has the package managers and the network fail as they do.
func TestPackageTrouble(t *testing.T) {
	for _, tt := range []struct {
		name, profile, version string
		change                 func(*translate.Kubernetes)
		setup                  string // as root, before
		sabotage               func(host.Step) *host.Trouble
		task, want             string // the failed action and what it says; "" when it has to go well
	}{
		{name: "unknown version, apt", version: "1.34.99", task: "kube.repo", want: "1.34.99 is not served"},
		{name: "unknown version, dnf", profile: host.ProfileRocky9, version: "1.34.99", task: "kube.packages", want: "Unable to find a match: kubelet-1.34.99 kubeadm-1.34.99 kubectl-1.34.99"},
		{name: "unknown version, yum", profile: host.ProfileCentOS7, version: "1.28.99", task: "kube.packages", want: "No package kubeadm-1.28.99 available"},
		{name: "dead mirror, apt", version: "1.20.0", change: func(k *translate.Kubernetes) {
			k.Repo = &capi.PackageRepo{Apt: "deb https://gone.invalid/ x main", Key: "https://mirror.example/k.gpg"}
		}, task: "kube.repo", want: "Could not resolve host: gone.invalid"},
		{name: "dead mirror, dnf", profile: host.ProfileRocky9, version: "1.34.1", change: func(k *translate.Kubernetes) {
			k.Repo = &capi.PackageRepo{RPM: "https://gone.invalid/rpm/", Key: "https://mirror.example/k.gpg"}
		}, task: "kube.packages", want: "Failed to download metadata for repo 'kubernetes'"},
		{name: "dead key", version: "1.34.1", change: func(k *translate.Kubernetes) { k.Repo = &capi.PackageRepo{Base: "https://gone.invalid/k8s"} }, task: "kube.repo", want: "no repository key"},
		{name: "wrong key, apt", version: "1.20.0", change: func(k *translate.Kubernetes) {
			k.Repo = &capi.PackageRepo{Apt: "deb https://mirror.example/ x main", Key: "https://download.docker.com/linux/ubuntu/gpg"}
		}, task: "kube.repo", want: "NO_PUBKEY"},
		{name: "wrong key, dnf", profile: host.ProfileRocky9, version: "1.34.1", change: func(k *translate.Kubernetes) {
			k.Repo = &capi.PackageRepo{RPM: "https://pkgs.k8s.io/core:/stable:/v1.34/rpm/", Key: "https://mirror.example/k.gpg"}
		}, task: "kube.packages", want: "GPG check FAILED"},
		{name: "expired key", version: "1.26.3", change: func(k *translate.Kubernetes) {
			k.Repo = &capi.PackageRepo{Apt: "deb https://pkgs.k8s.io/core:/stable:/v1.26/deb/ /", Key: "https://pkgs.k8s.io/core:/stable:/v1.26/deb/Release.key"}
		}, task: "kube.repo", want: "EXPKEYSIG 234654DA9A296436"},
		{name: "held packages", version: "1.34.1", setup: "apt-mark hold containerd kubelet"},
		{name: "dpkg's lock for two minutes", version: "1.34.1", sabotage: once("lock:apt-get", host.Trouble{After: 2 * time.Minute})},
		{name: "dpkg's lock for ever", version: "1.34.1", sabotage: once("lock:apt-get", host.Trouble{Hang: true}), task: "base", want: "Could not get lock /var/lib/dpkg/lock-frontend"},
		{name: "dnf's lock for two minutes", profile: host.ProfileRocky9, version: "1.34.1", sabotage: once("lock:dnf", host.Trouble{After: 2 * time.Minute})},
		{name: "a download that fails once", version: "1.34.1", sabotage: once("net:pkgs.k8s.io", host.Trouble{Exit: 28})},
		{name: "a mirror that is never there", version: "1.34.1", sabotage: always("net:pkgs.k8s.io", host.Trouble{Exit: 7}), task: "kube.repo", want: "Failed to connect to pkgs.k8s.io port 443"},
		{name: "apt-get install fails twice", version: "1.34.1", sabotage: times(2, "run:apt-get install kubelet", host.Trouble{Exit: 100, Text: "E: Sub-process /usr/bin/dpkg returned an error code (1)"})},
		{name: "podman is in the way", profile: host.ProfileRocky8, version: "1.30.2"},
		{name: "an old containerd", profile: host.ProfileRocky8, version: "1.36.1", change: func(k *translate.Kubernetes) { yes := true; k.AllowCgroupV1 = &yes }, task: "runtime.config", want: "containerd 1.6.32, need 2.0.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRack(t)
				const a = "10.0.0.1"
				h := r.add(a, "host-1", func(c *host.Config) { c.Profile = tt.profile })
				k := kubernetes(tt.version, false)
				if tt.change != nil {
					tt.change(k)
				}
				if tt.setup != "" {
					h.Run(t.Context(), host.Command{User: "root", Line: tt.setup})
				}
				h.Sabotage(tt.sabotage)
				l := r.packages(a, k)
				last := l.Entries[len(l.Entries)-1]
				task, _, _ := strings.Cut(last.Task, "#")
				switch {
				case tt.task == "":
					r.must(l)
				case l.State == wire.StateCompleted || task != tt.task || !strings.Contains(last.Entry, tt.want):
					t.Errorf("%s: %s %s\n%s\nwant %s to say %q", l.State, last.Task, last.Error, last.Entry, tt.task, tt.want)
				}
			})
		})
	}
}

func always(pattern string, trouble host.Trouble) func(host.Step) *host.Trouble {
	return times(1<<30, pattern, trouble)
}

func once(pattern string, trouble host.Trouble) func(host.Step) *host.Trouble {
	return times(1, pattern, trouble)
}

// times makes a step go wrong n times. The steps of one host come one after the other.
func times(n int, pattern string, trouble host.Trouble) func(host.Step) *host.Trouble {
	return func(s host.Step) *host.Trouble {
		if n == 0 || !s.Is(pattern) {
			return nil
		}
		n--
		return &trouble
	}
}

// TestProxy: a network with no way out but a proxy that wants a password.
func TestProxy(t *testing.T) {
	const proxy = "http://joe:s3cret@proxy.example:3128"
	for _, profile := range []string{host.ProfileNoble, host.ProfileRocky9} {
		synctest.Test(t, func(t *testing.T) {
			r := newRack(t)
			const a = "10.0.0.1"
			h := r.add(a, "host-1", func(c *host.Config) { c.Profile, c.Proxy = profile, proxy })
			k := kubernetes("1.34.1", false)
			if l := r.packages(a, k); l.State == wire.StateCompleted {
				t.Error("nothing can be reached without the proxy")
			}
			k.Proxy = &capi.Proxy{HTTP: "http://joe:wrong@proxy.example:3128", HTTPS: "http://joe:wrong@proxy.example:3128"}
			if l := r.packages(a, k); l.State == wire.StateCompleted || !strings.Contains(l.Entries[len(l.Entries)-1].Entry, "407") {
				t.Errorf("with the wrong password: %+v", l.Entries[len(l.Entries)-1])
			}
			k.Proxy = &capi.Proxy{HTTP: proxy, HTTPS: proxy}
			r.must(r.packages(a, k))
			if slices.ContainsFunc(h.History(), func(line string) bool { return strings.Contains(line, "s3cret") }) {
				t.Error("the proxy's password is an argument of a program")
			}
		})
	}
}

// TestBinaries installs from a download site on a system with apt, one with dnf, and one
// that only brings a container runtime.
func TestBinaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		const a = "10.0.0.1"
		h := r.add(a, "host-1", func(c *host.Config) {
			c.Packages = []string{"containerd.io=2.2.1-1", "conntrack=1.0-1", "curl=1.0-1"}
		})
		k := kubernetes("1.14.2", false)
		k.Version, k.Minor = "1.33.4", 33
		k.Method = capi.MethodBinaries
		k.Binaries = &capi.BinarySource{CNIPluginsURL: "https://mirror.example/cni-plugins-linux-amd64-v1.7.1.tgz"}
		r.must(r.packages(a, k))
		res := h.Run(t.Context(), host.Command{User: "root", Line: "kubeadm version -o short; kubelet --version; systemctl is-active kubelet; ls /opt/cni/bin/loopback; dpkg -s kubelet", Combined: true})
		if want := "v1.33.4\nKubernetes v1.33.4\nactive\n/opt/cni/bin/loopback\ndpkg-query: no packages found"; !strings.HasPrefix(res.Output, want) {
			t.Errorf("got %q", res.Output)
		}
	})
}

// manyKeys is bootstrap data that uses what hosts have to differ in: users, disks, time.
const manyKeys = `#cloud-config
bootcmd: [[sh, -c, 'echo "$0" >/etc/booted', "it's me"]]
write_files:
- {path: /etc/early.conf, permissions: '0640', content: early}
- {path: /home/capi/late, owner: 'capi:capi', content: late}
- {path: /etc/hosts, append: true, content: "10.1.1.1 extra\n"}
disk_setup:
  /dev/sdb: {table_type: gpt, layout: [[30, 83], 70], overwrite: false}
  /dev/sdc: {table_type: gpt, layout: true, overwrite: false}
fs_setup:
- {device: /dev/sdb, filesystem: ext4, partition: "1", label: etcd_disk, extra_opts: [-E, "lazy_itable_init=1,lazy_journal_init=1"]}
- {device: /dev/sdb, filesystem: xfs, partition: "2", label: data}
mounts:
- [LABEL=etcd_disk, /var/lib/etcddisk]
- [/dev/sdb2, /data, xfs]
users:
- name: capi
  sudo: ALL=(ALL) NOPASSWD:ALL
  groups: adm, special
  passwd: $6$abc
  lock_passwd: false
  ssh_authorized_keys: [ssh-ed25519 AAAA me@example]
ntp: {enabled: true, servers: [10.0.0.5]}
runcmd: ['mkdir -p /run/cluster-api && echo success > /run/cluster-api/bootstrap-success.complete', [echo, done]]
`

func TestCloudConfigOnDistributions(t *testing.T) {
	for profile, ntp := range map[string]string{
		host.ProfileNoble: "NTP=10.0.0.5 ", host.ProfileRocky9: "server 10.0.0.5 iburst",
		host.ProfileCentOS7: "server 10.0.0.5 iburst",
	} {
		t.Run(profile, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRack(t)
				const a = "10.0.0.1"
				h := r.add(a, "host-1", func(c *host.Config) {
					c.Profile = profile
					c.Disk = []host.DiskConfig{{Name: "sda", Bytes: 480103981056}, {Name: "sdb", Bytes: 64 << 30, Blank: true}, {Name: "sdc", Bytes: 64 << 30}}
				})
				k := kubernetes("1.34.1", false)
				k.Bootstrapped = true
				for range 2 {
					m, err := translate.Bootstrap(r.job(), r.target(a), k, r.facts(a), &capi.BootstrapData{Value: []byte(manyKeys)})
					l := r.must(r.post(m, err))
					for _, e := range l.Entries {
						if strings.Contains(e.Entry, "/dev/sdc is partitioned") {
							t.Error("a disk with something on it was partitioned")
						}
					}
				}
				h.Reboot()
				for script, want := range map[string]string{
					"cat /etc/booted; sudo -n -u root stat -c '%a %U %G' /etc/early.conf /home/capi/late": "it's me\n640 root root\n644 capi capi",
					"grep -c extra /etc/hosts": "1",
					"id -Gn":                   "capi adm special",
					"sudo -n -u root id -un":   "root",
					"cat .ssh/authorized_keys": "ssh-ed25519 AAAA me@example",
					"sudo -n -u root grep -c '^capi:$6$abc:' /etc/shadow":                                         "1",
					"grep sdb /proc/mounts | cut -d' ' -f1-3":                                                     "/dev/sdb1 /var/lib/etcddisk ext4\n/dev/sdb2 /data xfs",
					"lsblk -nrbo NAME,SIZE,LABEL /dev/sdb":                                                        "sdb 68719476736 \nsdb1 20615004160 etcd_disk\nsdb2 48103406592 data",
					"grep -h 10.0.0.5 /etc/systemd/timesyncd.conf.d/capplunder.conf /etc/chrony.conf 2>/dev/null": ntp,
				} {
					if got := h.Run(t.Context(), host.Command{User: "capi", Line: script, Combined: true}); got.Output != want {
						t.Errorf("%s\n got %q\nwant %q", script, got.Output, want)
					}
				}
			})
		})
	}
}

// TestMixedDistributions makes one cluster of machines with different systems.
func TestMixedDistributions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		systems := []string{host.ProfileRocky9, host.ProfileNoble, host.ProfileRocky8, host.ProfileTrixie, host.ProfileRocky10, host.ProfileFedora42}
		const first, version = "10.0.0.10", "1.34.1"
		var want []string
		for i, p := range systems {
			a := fmt.Sprintf("10.0.0.1%d", i)
			want = append(want, r.targetName(a))
			r.add(a, r.targetName(a), func(c *host.Config) { c.Profile = p })
		}
		var hash string
		for i, p := range systems {
			a := fmt.Sprintf("10.0.0.1%d", i)
			k := kubernetes(version, a == first)
			f := r.facts(a)
			r.must(r.packages(a, k))
			job := r.job()
			if a == first {
				m, err := translate.Init(job, r.target(a), k, f, translate.InitInput{Token: token("aaaaaa")})
				if hash, err = translate.ReadInit(r.must(r.post(m, err)), job); err != nil {
					t.Fatal(err)
				}
				continue
			}
			work := translate.Work{Tokens: []translate.Token{token(fmt.Sprintf("worke%d", i))}, Expires: time.Now().Add(30 * time.Minute)}
			m, err := translate.ControlPlaneWork(job, r.target(first), kubernetes(version, true), work)
			r.must(r.post(m, err))
			m, err = translate.Join(r.job(), r.target(a), k, f, translate.JoinInput{Token: work.Tokens[0], Endpoint: capi.Endpoint{Host: first, Port: 6443}, CAHash: hash})
			r.must(r.post(m, err))
			if u := r.hosts[a].Unknown(); len(slices.DeleteFunc(u, func(s string) bool { return s == "kubeadm" })) > 0 {
				t.Errorf("%s has no %q", p, u)
			}
		}
		nodes := r.hosts[first].Nodes()
		slices.Sort(nodes)
		if !slices.Equal(nodes, want) {
			t.Errorf("nodes %q, want %q", nodes, want)
		}
	})
}
