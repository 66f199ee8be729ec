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

func profileHost(t *testing.T, profile string, change ...func(*Config)) *Host {
	t.Helper()
	return newTestHost(t, append([]func(*Config){func(c *Config) { c.Profile = profile }}, change...)...)
}

// says runs scripts one after the other, each with what it prints and then its exit
// status, as "output|status"; want may be a part of the output, with dots in front.
func says(t *testing.T, h *Host, scripts ...[2]string) {
	t.Helper()
	for _, s := range scripts {
		r := run(t, h, s[0])
		got := fmt.Sprintf("%s|%d", r.Output, r.Exit)
		if part, ok := strings.CutPrefix(s[1], "..."); ok && strings.Contains(got, part) {
			continue
		}
		if got != s[1] {
			t.Errorf("%s\n got %q\nwant %q", s[0], got, s[1])
		}
	}
}

// TestProfiles: what a probe sees of each system.
func TestProfiles(t *testing.T) {
	const probe = `. /etc/os-release; pm=none; for p in apt-get dnf yum zypper apk; do command -v $p >/dev/null && { pm=$p; break; }; done
cg=1; [ -e /sys/fs/cgroup/cgroup.controllers ] && cg=2; sd=no; [ -d /run/systemd/system ] && sd=yes; b=no; command -v bash >/dev/null && b=yes
echo $ID "${ID_LIKE:--}" $VERSION_ID ${VERSION_CODENAME:--} $pm cg$cg systemd=$sd bash=$b $(uname -m) $(uname -r) $(getenforce 2>/dev/null)`
	want := map[string]string{
		ProfileNoble:    "ubuntu debian 24.04 noble apt-get cg2 systemd=yes bash=yes x86_64 6.8.0-85-generic",
		ProfileJammy:    "ubuntu debian 22.04 jammy apt-get cg2 systemd=yes bash=yes x86_64 5.15.0-152-generic",
		ProfileBionic:   "ubuntu debian 18.04 bionic apt-get cg1 systemd=yes bash=yes x86_64 4.15.0-213-generic",
		ProfileBookworm: "debian - 12 bookworm apt-get cg2 systemd=yes bash=yes x86_64 6.1.0-39-amd64",
		ProfileTrixie:   "debian - 13 trixie apt-get cg2 systemd=yes bash=yes x86_64 6.12.43+deb13-amd64",
		ProfileRocky10:  "rocky rhel centos fedora 10.0 - dnf cg2 systemd=yes bash=yes x86_64 6.12.0-55.27.1.el10_0.x86_64 Enforcing",
		ProfileRocky9:   "rocky rhel centos fedora 9.6 - dnf cg2 systemd=yes bash=yes x86_64 5.14.0-570.39.1.el9_6.x86_64 Enforcing",
		ProfileRocky8:   "rocky rhel centos fedora 8.10 - dnf cg1 systemd=yes bash=yes x86_64 4.18.0-553.72.1.el8_10.x86_64 Enforcing",
		ProfileRHEL9:    "rhel fedora 9.6 - dnf cg2 systemd=yes bash=yes x86_64 5.14.0-570.39.1.el9_6.x86_64 Enforcing",
		ProfileCentOS7:  "centos rhel fedora 7 - yum cg1 systemd=yes bash=yes x86_64 3.10.0-1160.119.1.el7.x86_64 Enforcing",
		ProfileFedora42: "fedora - 42 - dnf cg2 systemd=yes bash=yes x86_64 6.16.5-200.fc42.x86_64 Enforcing",
		ProfileUnknown:  "alpine - 3.22.1 - apk cg2 systemd=no bash=no x86_64 6.12.44-0-lts",
		ProfileBusybox:  "buildroot - 2025.02 - none cg2 systemd=no bash=no x86_64 6.12.19",
	}
	if len(Profiles()) != len(want) {
		t.Errorf("profiles %q", Profiles())
	}
	for _, p := range Profiles() {
		h := profileHost(t, p)
		if got := h.Run(t.Context(), Command{Line: probe, Combined: true}).Output; got != want[p] {
			t.Errorf("%s\n got %s\nwant %s", p, got, want[p])
		}
	}
	says(t, profileHost(t, ProfileRocky8, func(c *Config) { c.Cgroup = 2 }), [2]string{`ls /sys/fs/cgroup`, "cgroup.controllers|0"})
}

const kubernetesRepo = `mkdir -p /etc/pki/rpm-gpg; curl -fsSL -o /etc/pki/rpm-gpg/k https://pkgs.k8s.io/core:/stable:/v1.34/rpm/repodata/repomd.xml.key
printf '[kubernetes]\nbaseurl=https://pkgs.k8s.io/core:/stable:/v1.34/rpm/\nenabled=1\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/k\n' >/etc/yum.repos.d/kubernetes.repo`

func TestDnf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := profileHost(t, ProfileRocky9)
		says(t, h,
			[2]string{`dnf install socat`, "Operation aborted.|1"},
			[2]string{`sudo -n -u ubuntu dnf -y install socat`, "...superuser privileges"},
			[2]string{`dnf -y install nonsense`, "No match for argument: nonsense\nError: Unable to find a match: nonsense|1"},
			[2]string{`dnf -y frobnicate`, "...No such command: frobnicate"},
			[2]string{`dnf -y -q install socat; rpm -q socat`, "...socat-1.0-1.el9.x86_64|0"},
			[2]string{`dnf -y install socat`, "...Nothing to do."},
			[2]string{`rpm -q kubelet socat; echo $?`, "package kubelet is not installed\nsocat-1.0-1.el9.x86_64\n1|0"},
			[2]string{kubernetesRepo, "|0"},
			[2]string{`dnf -y install kubelet-1.34.99 kubeadm-1.34.1`, "No match for argument: kubelet-1.34.99\nError: Unable to find a match: kubelet-1.34.99|1"},
			[2]string{`dnf -y install kubelet-1.34.1 kubeadm-1.34.1; rpm -q --qf '%{VERSION}' kubelet`, "...Complete!\n1.34.1|0"},
			[2]string{`rpm -q kubernetes-cni >/dev/null && echo "the dependency came along"; systemctl is-enabled kubelet`, "the dependency came along\ndisabled|1"},
			[2]string{`dnf -y install kubelet-1.34.0 >/dev/null; rpm -q --qf '%{VERSION}' kubelet`, "1.34.0|0"},
			[2]string{`echo 'exclude=kubelet kube*' >>/etc/yum.repos.d/kubernetes.repo; dnf -y install kubelet-1.34.2`, "All matches were filtered out by exclude filtering for argument: kubelet-1.34.2\nError: Unable to find a match: kubelet-1.34.2|1"},
			[2]string{`dnf -y install kubelet-1.34.0 | head -n 1`, "Package kubelet-1.34.0-150500.1.1.x86_64 is already installed.|0"},
			[2]string{`dnf -y --disableexcludes=kubernetes install kubelet-1.34.2 >/dev/null; rpm -q --qf '%{VERSION}' kubelet`, "1.34.2|0"},
			[2]string{`dnf --showduplicates list containerd.io`, "...No matching Packages"},
			[2]string{`curl -fsSL -o /etc/yum.repos.d/docker-ce.repo https://download.docker.com/linux/centos/docker-ce.repo; dnf --showduplicates list 'containerd.io-1.7*'`, "containerd.io.x86_64  1.7.28-3.1.el9  docker-ce-stable|0"},
			[2]string{`sed -i 's|gpgkey=.*|gpgkey=https://mirror.example/k.gpg|' /etc/yum.repos.d/docker-ce.repo; dnf -y install containerd.io`, "...GPG check FAILED"},
			[2]string{`dnf -y --nogpgcheck install containerd.io >/dev/null; systemctl is-active containerd; systemctl enable --now containerd; ls /run/containerd`, "inactive\ncontainerd.sock|0"},
			[2]string{`echo 'baseurl=https://x.invalid/' >>/etc/yum.repos.d/docker-ce.repo; dnf -y install jq`, "...Complete!"},
			[2]string{`sed -i 's|^baseurl=.*|baseurl=https://x.invalid/|' /etc/yum.repos.d/docker-ce.repo; dnf -y install ipset`, "...Error: Failed to download metadata for repo 'docker-ce-stable'"},
			[2]string{`echo skip_if_unavailable=1 >>/etc/yum.repos.d/docker-ce.repo; dnf -y --disablerepo='docker*' install ipset >/dev/null; rpm -q ipset`, "ipset-1.0-1.el9.x86_64|0"},
			[2]string{`sed -i 's|v1.34|v1.12|' /etc/yum.repos.d/kubernetes.repo; dnf -y --disablerepo='docker*' makecache`, "...Status code: 404"},
		)
	})
}

func TestYum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := profileHost(t, ProfileCentOS7)
		says(t, h,
			[2]string{`command -v dnf; echo $?`, "1|0"},
			[2]string{`yum -y install socat`, "...Cannot find a valid baseurl for repo: base/7/x86_64"},
			[2]string{`sed -i -e 's/^mirrorlist/#mirrorlist/' -e 's|^#*baseurl=http://mirror.centos.org|baseurl=http://vault.centos.org|' /etc/yum.repos.d/CentOS-*.repo; yum -y install socat >/dev/null; rpm -q socat`, "socat-1.0-1.el7.x86_64|0"},
			[2]string{`yum -y install --allowerasing jq`, "...no such option: --allowerasing"},
			[2]string{`yum -y install jq nonsense; rpm -q jq`, "...No package nonsense available."}, // and goes on
			[2]string{`rpm -q jq`, "jq-1.0-1.el7.x86_64|0"},
			[2]string{`yum -y install nonsense`, "No package nonsense available.\nError: Nothing to do|1"},
		)
	})
	synctest.Test(t, func(t *testing.T) { // podman's runc
		h := profileHost(t, ProfileRocky8)
		says(t, h,
			[2]string{`curl -fsSL -o /etc/yum.repos.d/docker-ce.repo https://download.docker.com/linux/centos/docker-ce.repo; dnf -y install containerd.io`, "...conflicts with runc"},
			[2]string{`dnf -y --allowerasing install containerd.io >/dev/null; rpm -q podman containerd.io`, "package podman is not installed\ncontainerd.io-1.6.32-3.1.el8.x86_64|1"},
		)
	})
}

func TestApt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := profileHost(t, ProfileJammy)
		const list = `/etc/apt/sources.list.d/k.list`
		says(t, h,
			[2]string{`sudo -n -u ubuntu apt-get update`, "...are you root?"},
			[2]string{`apt-get install socat`, "...Abort."},
			[2]string{`apt-get -y install conntrack; echo $?; apt-cache show conntrack`, "...Unable to locate package conntrack\n100\n"}, // universe is off
			[2]string{`sed -nE 's/^(deb [^#]*ubuntu[^ ]* [a-z-]+) .*/\1 universe/p' /etc/apt/sources.list >/etc/apt/sources.list.d/u.list; apt-get update >/dev/null; apt-get -y install conntrack >/dev/null; dpkg -s conntrack >/dev/null`, "|0"},
			[2]string{`apt-get -y install curl >/dev/null; echo 'deb [signed-by=/etc/apt/keyrings/k.gpg] https://pkgs.k8s.io/core:/stable:/v1.26/deb/ /' >` + list + `; apt-get update`, "...NO_PUBKEY 234654DA9A296436"},
			[2]string{`curl -fsSL https://pkgs.k8s.io/core:/stable:/v1.26/deb/Release.key | gpg --dearmor -o /etc/apt/keyrings/k.gpg; apt-get update`, "...EXPKEYSIG 234654DA9A296436"},
			[2]string{`curl -fsSL https://pkgs.k8s.io/core:/stable:/v1.37/deb/Release.key | gpg --yes --dearmor -o /etc/apt/keyrings/k.gpg; apt-get update >/dev/null`, "|0"},
			[2]string{`apt-get -y install kubelet=1.26.99-*`, "E: Version '1.26.99-*' for 'kubelet' was not found|100"},
			[2]string{`apt-get -y install kubelet=1.26.3-* >/dev/null; apt-mark hold kubelet; apt-mark showhold`, "kubelet set on hold.\nkubelet|0"},
			[2]string{`apt-get -y install kubelet=1.26.4-*`, "...Held packages were changed"},
			[2]string{`apt-get -y --allow-change-held-packages install kubelet=1.26.2-*`, "...Packages were downgraded"},
			[2]string{`apt-get -y --allow-change-held-packages --allow-downgrades install kubelet=1.26.2-* >/dev/null; dpkg-query -W -f '${Version}' kubelet; apt-mark showhold`, "1.26.2-1.1kubelet|0"},
			[2]string{`sed -i s/v1.26/v1.12/ ` + list + `; apt-get update >/dev/null 2>&1; echo $?`, "100|0"},
			[2]string{`echo 'deb https://x.invalid/ a b' >` + list + `; apt-get update >/tmp/o 2>&1; echo $?; grep -c '^W: Failed to fetch' /tmp/o`, "0\n1|0"}, // only a warning
			[2]string{`echo 'deb https://mirror.example/legacy kubernetes-xenial main' >` + list + `; curl -fsSL https://mirror.example/k.gpg | gpg --dearmor -o /etc/apt/trusted.gpg.d/k.gpg; apt-get update >/dev/null; apt-get -y --allow-downgrades --allow-change-held-packages install kubelet=1.14.2-*`, "...kubelet : Depends: kubernetes-cni (= 0.7.5) but 1.2.0-1.1 is to be installed"},
			[2]string{`apt-get -y --allow-downgrades --allow-change-held-packages install kubelet=1.14.2-* kubernetes-cni=0.7.5-* >/dev/null; kubelet --version`, "Kubernetes v1.14.2|0"},
		)
	})
}

func TestPackageLock(t *testing.T) {
	for _, tt := range []struct {
		profile, script string
		status          int
		took            time.Duration
	}{
		{ProfileNoble, "apt-get -y install socat", aptStatus, 0},
		{ProfileNoble, "apt-get -y -o DPkg::Lock::Timeout=30 install socat", aptStatus, 30 * time.Second},
		{ProfileNoble, "apt-get -y -o DPkg::Lock::Timeout=300 install socat", 0, time.Minute},
		{ProfileBionic, "apt-get -y -o DPkg::Lock::Timeout=300 install gdisk", aptStatus, 0}, // apt 1.6 does not know it
		{ProfileRocky9, "dnf -y install socat", 0, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := profileHost(t, tt.profile)
			first := true
			h.Sabotage(func(s Step) *Trouble {
				if s.Kind == StepLock && first {
					first = false
					return &Trouble{After: time.Minute}
				}
				return nil
			})
			start := time.Now()
			if r := run(t, h, tt.script); r.Exit != tt.status || time.Since(start) != tt.took {
				t.Errorf("%s on %s: status %d after %v\n%s", tt.script, tt.profile, r.Exit, time.Since(start), r.Output)
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := profileHost(t, ProfileRocky9)
		const key = "https://mirror.example/k.gpg"
		says(t, h,
			[2]string{`curl -fsS https://x.invalid/k.gpg`, "curl: (6) Could not resolve host: x.invalid|6"},
			[2]string{`curl -fsS https://mirror.example/nothing`, "curl: (22) The requested URL returned error: 404|22"},
			[2]string{`curl -s https://mirror.example/nothing`, "...404 Not Found"},
			[2]string{`curl -fsS https://127.0.0.1/`, "...(7) Failed to connect"},
			[2]string{`http_proxy=http://p.invalid:1 curl -fsS http://mirror.example/k.gpg`, "curl: (5) Could not resolve proxy: p.invalid|5"},
			[2]string{`http_proxy=http://p.invalid:1 curl -fsS -o /dev/null ` + key, "|0"}, // the other scheme
			[2]string{`https_proxy=http://p.invalid:1 no_proxy=localhost,.example curl -fsS -o /dev/null ` + key, "|0"},
			[2]string{`https_proxy=http://p.invalid:1; curl -fsS -o /dev/null ` + key, "|0"}, // not exported
			[2]string{`https_proxy=http://p.invalid:1 dnf -y install socat`, "...Could not resolve proxy"},
			[2]string{`curl -fsSL -o /usr/local/bin/kubeadm https://dl.k8s.io/v1.34.1/bin/linux/amd64/kubeadm; chmod 755 /usr/local/bin/kubeadm; [ "$(sha256sum </usr/local/bin/kubeadm | cut -d' ' -f1)" = "$(curl -fsSL https://dl.k8s.io/v1.34.1/bin/linux/amd64/kubeadm.sha256)" ] && kubeadm version -o short`, "v1.34.1|0"},
			[2]string{`mkdir -p /opt/cni/bin; curl -fsSL https://github.com/containernetworking/plugins/releases/download/v1.7.1/cni-plugins-linux-amd64-v1.7.1.tgz | tar -xzf - -C /opt/cni/bin; [ -x /opt/cni/bin/loopback ]`, "|0"},
		)
		start := time.Now()
		says(t, h, [2]string{`curl -fsS --retry 2 --retry-delay 3 https://x.invalid/k.gpg`, "curl: (6) Could not resolve host: x.invalid|6"})
		if d := time.Since(start); d != 6*time.Second {
			t.Errorf("two more tries took %v", d)
		}
	})
}

func TestUsers(t *testing.T) {
	h := profileHost(t, ProfileNoble)
	says(t, h,
		[2]string{`useradd -m -c 'A user' -s /bin/sh -G adm joe; getent passwd joe; id joe; stat -c '%U %a' /home/joe`, "joe:x:1001:1001:A user:/home/joe:/bin/sh\nuid=1001(joe) gid=1001(joe) groups=1001(joe),10(adm)\njoe 750|0"},
		[2]string{`useradd joe`, "useradd: user 'joe' already exists|9"},
		[2]string{`useradd 'x;y'`, "useradd: invalid user name 'x;y': use --badname to ignore|3"},
		[2]string{`useradd -G nothere ann; getent passwd ann`, "useradd: group 'nothere' does not exist|2"},
		[2]string{`useradd --frobnicate ann`, "useradd: unrecognized option '--frobnicate'|2"},
		[2]string{`groupadd ops; groupadd ops`, "groupadd: group 'ops' already exists|9"},
		[2]string{`usermod -aG ops joe; id -Gn joe; usermod -aG ops nobody2`, "joe adm ops\nusermod: user 'nobody2' does not exist|6"},
		[2]string{`echo 'joe:$6$x' | chpasswd -e; grep '^joe' /etc/shadow | cut -d: -f2; usermod -L joe; grep '^joe' /etc/shadow | cut -d: -f2`, "$6$x\n!$6$x|0"},
		[2]string{`echo 'ann:x' | chpasswd`, "chpasswd: line 1: user 'ann' does not exist|1"},
		[2]string{`sudo -n -u joe sudo -n -u root true`, "sudo: a password is required|1"},
		[2]string{`echo 'joe ALL=(ALL) NOPASSWD:ALL' >/tmp/s; visudo -cf /tmp/s; install -m 440 /tmp/s /etc/sudoers.d/90-joe; sudo -n -u joe sudo -n -u root id -un`, "/tmp/s: parsed OK\nroot|0"},
		[2]string{`echo 'joe may do everything' >/tmp/s; visudo -cf /tmp/s`, ".../tmp/s:1: syntax error"},
		[2]string{`echo nonsense >>/etc/sudoers.d/90-joe; sudo -n -u joe sudo -n -u root id -un`, "sudo: a password is required|1"},
		[2]string{`sudo -n -u joe useradd ann`, "useradd: Permission denied.|1"},
		[2]string{`echo x >/tmp/f; chown joe:ops /tmp/f; stat -c '%U:%G' /tmp/f; chown nobody3 /tmp/f`, "joe:ops\nchown: invalid user: 'nobody3'|1"},
	)
	run(t, h, `echo 'Defaults requiretty' >/etc/sudoers`)
	if r := h.Run(t.Context(), Command{Line: "sudo -n -u root true", Combined: true}); r.Exit != 1 || r.Output != "sudo: sorry, you must have a tty to run sudo" {
		t.Errorf("with requiretty: %+v", r)
	}
	if r := h.Run(t.Context(), Command{User: "joe", Line: "echo $HOME; id -un"}); r.Output != "/home/joe\njoe" {
		t.Errorf("a session of the new user: %+v", r)
	}
}

func TestStorage(t *testing.T) {
	h := profileHost(t, ProfileNoble, func(c *Config) {
		c.Disk = []DiskConfig{{Name: "sda", Bytes: defaultDisk}, {Name: "sdb", Bytes: 64 << 30, Blank: true}, {Name: "nvme0n1", Bytes: 8 << 30, Blank: true}, {Name: "sdc", Bytes: 1 << 30, ReadOnly: true}}
	})
	says(t, h,
		[2]string{`wipefs -n /dev/sdb; blkid /dev/sdb; echo $?; lsblk -nro NAME,TYPE /dev/sdb`, "2\nsdb disk|0"},
		[2]string{`printf 'label: gpt\nsize=10GiB, type=L\ntype=L\n' | sfdisk -q /dev/sdb; lsblk -nrbo NAME,SIZE /dev/sdb; cat /sys/class/block/sdb1/size`, "sdb 68719476736\nsdb1 10737418240\nsdb2 57980992512\n20971520|0"},
		[2]string{`printf ',,L\n' | sfdisk -q /dev/nvme0n1; ls /dev/nvme0n1p1`, "/dev/nvme0n1p1|0"},
		[2]string{`printf 'size=100GiB\n' | sfdisk -q /dev/nvme0n1`, "...No space left on device"},
		[2]string{`printf ',,L\n' | sfdisk /dev/sda`, "...currently in use"},
		[2]string{`printf ',,L\n' | sfdisk /dev/sdc`, "...Read-only"},
		[2]string{`sfdisk /dev/sdz </dev/null`, "...cannot open /dev/sdz"},
		[2]string{`mkfs.ext4 -q -F -L data /dev/sdb1; blkid -o value -s TYPE -s LABEL /dev/sdb1`, "data\next4|0"},
		[2]string{`mkfs.xfs -L data2 /dev/sdb1`, "...Use the -f option to force overwrite"},
		[2]string{`mkfs.ext4 /dev/sda2`, "...is mounted; will not make a filesystem here!"},
		[2]string{`mkfs.ext4 /etc/hosts; mkfs.ext4 /dev/none`, "...is not a block special device."},
		[2]string{`mount /dev/sdb1 /data`, "mount: /data: mount point does not exist.|32"},
		[2]string{`mkdir /data; mount /dev/sdb2 /data`, "...wrong fs type"},
		[2]string{`mount /data`, "mount: /data: can't find in /etc/fstab.|1"},
		[2]string{`echo 'LABEL=data /data auto defaults,nofail 0 2' >>/etc/fstab; mount /data; mountpoint /data; findmnt -n -o SOURCE /data; wipefs -a /dev/sdb1; umount /data; umount /data`, "/data is a mountpoint\n/dev/sdb1\nwipefs: error: /dev/sdb1: probing initialization failed: Device or resource busy\numount: /data: not mounted.|32"},
	)
	b, err := json.Marshal(h.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	var s Snapshot
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	h = Restore(s, NewWorld())
	defer h.Close()
	says(t, h, [2]string{`mount -a; lsblk -nro NAME,LABEL,MOUNTPOINT /dev/sdb`, "sdb  \nsdb1 data /data\nsdb2  |0"})
	h.Reboot()
	says(t, h, [2]string{`grep data /proc/mounts`, "/dev/sdb1 /data ext4 rw,relatime 0 0|0"})
}

func TestServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := profileHost(t, ProfileFedora42)
		const unit = `printf '[Service]\nExecStart=/usr/local/bin/x --y\n' >/etc/systemd/system/x.service; systemctl daemon-reload; `
		says(t, h,
			[2]string{`systemctl enable --now x`, "...Unit file x.service does not exist"},
			[2]string{`systemctl start x; echo $?; systemctl is-active x`, "Failed to start x.service: Unit x.service not found.\n5\ninactive|3"},
			[2]string{unit + `systemctl enable x; systemctl start x; systemctl is-active x; systemctl is-failed x`, "...Job for x.service failed"},
			[2]string{`printf '#!/bin/sh\n' >/usr/local/bin/x; systemctl restart x; systemctl is-active x; systemctl is-enabled x`, "active\nenabled|0"},
			[2]string{`mkdir /etc/systemd/system/x.service.d; printf '[Service]\nEnvironmentFile=/etc/x.env\n' >/etc/systemd/system/x.service.d/e.conf; systemctl restart x`, "...unavailable resources"},
			[2]string{`echo A=b >/etc/x.env; systemctl restart x; systemctl is-active x`, "active|0"},
			[2]string{`systemctl mask x; systemctl restart x; systemctl is-enabled x`, "...is masked"},
			[2]string{`systemctl is-active nothing x`, "inactive\nactive|0"},
			[2]string{`systemctl disable --now firewalld; systemctl is-active firewalld; firewall-cmd --state`, "inactive\nFirewallD is not running|252"},
			[2]string{`systemctl list-units --all --type=swap --no-legend --plain | cut -d' ' -f1; wc -l </proc/swaps`, "dev-zram0.swap\n2|0"},
			[2]string{`swapoff -a; systemctl mask dev-zram0.swap; wc -l </proc/swaps; : >/etc/systemd/zram-generator.conf`, "1|0"},
			[2]string{`setenforce 0; getenforce; setenforce maybe`, "...Permissive"},
			[2]string{`modprobe nonsense`, "modprobe: FATAL: Module nonsense not found in directory /lib/modules/6.16.5-200.fc42.x86_64|1"},
		)
		h.Reboot()
		says(t, h, [2]string{`wc -l </proc/swaps; getenforce; systemctl is-active firewalld x`, "1\nEnforcing\ninactive\ninactive|3"})
	})
	says(t, profileHost(t, ProfileRocky10),
		[2]string{`modprobe br_netfilter`, "...Module br_netfilter not found"},
		[2]string{`dnf -y install "kernel-modules-extra-$(uname -r)" >/dev/null; modprobe br_netfilter; ls -d /sys/module/br_netfilter`, "/sys/module/br_netfilter|0"})
}

// TestSabotage: which steps a pattern means, and what happens to them.
func TestSabotage(t *testing.T) {
	install := Step{StepRun, []string{"apt-get", "-y", "install", "--no-install-recommends", "kubelet=1.34.1-*", "kubeadm=1.34.1-*"}}
	for pattern, want := range map[string]bool{
		"run:apt-get": true, "run:apt-get install": true, "run:apt-get install kubeadm": true, "run:* install": true, "run:apt-get kubelet install": false,
		"run:apt": false, "run:dnf": false, "net:apt-get": false, "run:": false, "run": false, "run:apt-get remove": false,
	} {
		if install.Is(pattern) != want {
			t.Errorf("%s: %v", pattern, !want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		h := newTestHost(t)
		done := false
		h.Sabotage(func(s Step) *Trouble {
			switch {
			case s.Is("run:wc"):
				return &Trouble{After: time.Minute, Exit: 7, Text: "wc: no"}
			case s.Is("run:uptime"):
				return &Trouble{Do: func() { done = true; h.Close() }}
			}
			return nil
		})
		start := time.Now()
		says(t, h, [2]string{`wc -l /etc/hosts`, "wc: no|7"})
		if time.Since(start) != time.Minute {
			t.Errorf("it took %v", time.Since(start))
		}
		r := h.Run(t.Context(), Command{Line: "uptime; echo still here"})
		synctest.Wait()
		if r.Err == nil || r.Output != "" || !done {
			t.Errorf("%+v", r)
		}
	})
}

// TestUnknownSystem: without bash, systemd and packages.
func TestUnknownSystem(t *testing.T) {
	h := profileHost(t, ProfileUnknown)
	for _, name := range []string{"bash", "systemctl", "apt-get", "dnf", "useradd"} {
		if r := h.Run(t.Context(), Command{Line: name + " --version", Combined: true}); r.Exit != 127 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if !slices.Contains(h.Unknown(), "bash") {
		t.Errorf("unknown %q", h.Unknown())
	}
	if r := h.Run(t.Context(), Command{Line: "apk add kubelet", Combined: true}); r.Exit != 1 || !strings.Contains(r.Output, "no such package") {
		t.Errorf("%+v", r)
	}
}

// TestBusybox: a shell, dd and a few small programs, and root.
func TestBusybox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := profileHost(t, ProfileBusybox, func(c *Config) {
			c.Disk = []DiskConfig{{Name: "sda", Bytes: 1 << 34}, {Name: "nvme0n1", Bytes: 1 << 34, Blank: true}}
		})
		for _, name := range []string{"bash", "sudo", "blkid", "wipefs", "sgdisk", "blockdev", "blkdiscard", "hdparm", "nvme", "lsblk", "udevadm", "systemctl", "timeout", "openssl", "apk"} {
			if r := h.Run(t.Context(), Command{Line: name + " --version", Combined: true}); r.Exit != 127 {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if r := h.Run(t.Context(), Command{User: "ubuntu", Line: "true"}); r.Err == nil {
			t.Errorf("nobody but root can log in: %+v", r)
		}
		script := `ls -d /run/udev; cat /sys/block/nvme0n1/wwid; echo u >/proc/sysrq-trigger; grep -c 'ext4 rw' /proc/mounts; dd if=/dev/zero of=/dev/sda bs=1M count=20 2>/dev/null; sync
dd if=/dev/sda bs=1M count=20 iflag=direct 2>/dev/null | tr -d '\000' | wc -c; mkfifo /run/go; setsid sh -c 'exec 3<>/run/go; read -r x <&3; sleep 5; echo b >/proc/sysrq-trigger' </dev/null >/dev/null 2>&1 & echo go >/run/go; echo armed`
		r := h.Run(t.Context(), Command{Line: "sh -c " + quote(script), Combined: true})
		if want := "ls: cannot access '/run/udev': No such file or directory\n" + h.disks[1].WWN + "\n0\n0\narmed"; r.Exit != 0 || r.Output != want {
			t.Errorf("%+v, want %q", r, want)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if h.Up() || !h.Wiped() {
			t.Errorf("up %v, wiped %v", h.Up(), h.Wiped())
		}
	})
}
