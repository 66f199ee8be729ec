package translate

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	// newestMinor is the newest that this package knows; newer ones are treated like it.
	newestMinor = 37
	// packagesBase is where Kubernetes packages are published, one repository per minor.
	packagesBase     = "https://pkgs.k8s.io/core:/stable:"
	dockerBase       = "https://download.docker.com"
	containerdSocket = "unix:///run/containerd/containerd.sock"
	taskInit         = "init"
	taskJoin         = "join"
	taskCredentials  = "join.credentials"
	kubeadmConfig    = "/etc/kubernetes/capplunder/kubeadm.yaml"
	joinConfig       = "/run/capplunder/join.yaml"
	tokenManifest    = "/run/capplunder/token.yaml" //nolint:gosec // a path, not what is there
)

var (
	versionForm = regexp.MustCompile(`^1\.[0-9]{1,3}\.[0-9]{1,3}(-[a-z0-9.]{1,32})?$`)
	dockerForm  = regexp.MustCompile(`^[0-9][0-9A-Za-z.:~+-]{1,63}$`)
	aptLineForm = regexp.MustCompile(`^deb (\[[A-Za-z0-9=/_. ,-]+\] )?https?://[A-Za-z0-9._~:/@%+-]+ [A-Za-z0-9._/-]+( [A-Za-z0-9._/-]+)*$`)
	urlForm     = regexp.MustCompile(`^https?://[A-Za-z0-9._~:/@%+?=&-]+$`)
	domainForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	tokenIDForm = regexp.MustCompile(`^[a-z0-9]{6}$`)
	tokenForm16 = regexp.MustCompile(`^[a-z0-9]{16}$`)
	hashForm    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// docker reports whether the minor is run on docker-ce. From 1.24 on kubelet
// cannot use it.
func (k *Kubernetes) docker() bool { return k.Minor < 24 }

// kubeadmAPI is the newest configuration version that kubeadm of this minor reads.
func (k *Kubernetes) kubeadmAPI() string {
	switch {
	case k.Minor <= 14:
		return "kubeadm.k8s.io/v1beta1"
	case k.Minor <= 21:
		return "kubeadm.k8s.io/v1beta2"
	case k.Minor <= 30:
		return "kubeadm.k8s.io/v1beta3"
	}
	return "kubeadm.k8s.io/v1beta4"
}

// minContainerd is the oldest containerd that kubelet of this minor works with.
func (k *Kubernetes) minContainerd() string {
	switch {
	case k.Minor >= 36:
		return "2.0.0"
	case k.Minor >= 26:
		return "1.6.0"
	}
	return "1.5.0"
}

// refuse says in a plain sentence why the host cannot get this Kubernetes, before
// anything is changed on it.
func (k *Kubernetes) refuse(f Facts) error {
	switch {
	case !f.Systemd:
		return errors.New("the host does not run systemd, which kubelet needs")
	case !f.Bash:
		return errors.New("the host has no bash")
	case f.PackageManager != "apt-get":
		return fmt.Errorf("the host's package manager is %s (%s %s): only apt is supported yet", f.PackageManager, f.ID, f.Version)
	case !slices.Contains([]string{"x86_64", "aarch64", "ppc64le", "s390x"}, f.Arch):
		return fmt.Errorf("there are no Kubernetes packages for %s", f.Arch)
	case k.Minor >= 35 && f.Cgroup == 1:
		return fmt.Errorf("v%s needs cgroup v2, the host has v1", k.Version)
	case k.Minor < 19 && f.Cgroup == 2:
		return fmt.Errorf("v%s needs cgroup v1, the host has v2", k.Version)
	}
	return nil
}

// preamble begins every install script: strict mode, a known environment, private
// directories (R is gone after a reboot), and one job at a time on the host, for a
// job whose server died may still be running.
const preamble = `set -euo pipefail; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root DEBIAN_FRONTEND=noninteractive; umask 022; R=/run/capplunder; E=/etc/kubernetes/capplunder; L=/var/log/capplunder; mkdir -p $R $E $L; chmod 700 $R $E $L
if command -v flock >/dev/null; then exec 9>$R/lock; flock -w 600 9 || { echo 'capplunder-error another job is still running on this host'; exit 1; }; fi
try() { n=$1; shift; for i in $(seq "$n"); do "$@" && return 0; echo "attempt $i failed: $1"; sleep 10; done; return 1; }
A() { try 6 apt-get -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"; }
get() { curl -fsSL --retry 5 --retry-delay 3 --connect-timeout 20 "$@"; }
mask() { sed -E 's/[a-z0-9]{6}\.[a-z0-9]{16}/***/g; s/[0-9a-f]{64}/***/g; s/(password|token)([=:] *)[^ ]+/\1\2***/Ig'; }
ca() { echo "capplunder-ca $(base64 </etc/kubernetes/pki/ca.crt | tr -d '\n')"; }
`

const prepScript = `hostnamectl set-hostname {{NODE}}; grep -qE '^[^#]*[[:space:]]{{NODE}}([[:space:]]|$)' /etc/hosts || echo '{{IP}} {{NODE}}' >>/etc/hosts
swapoff -a || :; if [ -f /etc/fstab ]; then sed -i.capplunder -E '/^[^#]/ s/^(.*[[:space:]]swap[[:space:]].*)$/#capplunder \1/' /etc/fstab; fi
systemctl list-units --all --type=swap --no-legend --plain | while read -r u _; do case $u in *.swap) systemctl mask -- "$u" >/dev/null 2>&1 || :;; esac; done
if [ -e /usr/lib/systemd/zram-generator.conf ]; then : >/etc/systemd/zram-generator.conf; fi
[ "$(wc -l </proc/swaps)" -le 1 ] || { echo 'capplunder-error swap is still on'; cat /proc/swaps; exit 1; }
printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/capplunder.conf
for m in overlay br_netfilter; do [ -d /sys/module/$m ] || modprobe $m; done
printf 'net.bridge.bridge-nf-call-iptables = 1\nnet.bridge.bridge-nf-call-ip6tables = 1\nnet.ipv4.ip_forward = 1\n' >/etc/sysctl.d/99-capplunder.conf; sysctl -q -p /etc/sysctl.d/99-capplunder.conf`

const firewallScript = `for s in ufw firewalld; do systemctl disable --now $s >/dev/null 2>&1 || :; done; if command -v ufw >/dev/null; then ufw disable; fi`

const baseScript = `{ grep -lsE 'apt\.kubernetes\.io|packages\.cloud\.google\.com/apt' /etc/apt/sources.list.d/*.list || :; } | xargs -r rm -f
dpkg --configure -a || :; A update; . /etc/os-release
if [ "$ID" = ubuntu ] && [ -f /etc/apt/sources.list ] && ! apt-cache show conntrack >/dev/null 2>&1; then sed -nE 's/^(deb [^#]*ubuntu[^ ]* [a-z-]+) .*/\1 universe/p' /etc/apt/sources.list >/etc/apt/sources.list.d/capplunder-universe.list; A update; fi
A install --no-install-recommends ca-certificates curl gnupg openssl conntrack iptables iproute2 kmod util-linux
for p in socat ethtool ebtables; do apt-get -y install --no-install-recommends $p >/dev/null 2>&1 || echo "optional $p not installed"; done; install -d -m 755 /etc/apt/keyrings`

const runtimeScript = `. /etc/os-release; d=$ID; case $d in ubuntu|debian) ;; *) case " ${ID_LIKE:-} " in *ubuntu*) d=ubuntu;; *) d=debian;; esac;; esac; c=${UBUNTU_CODENAME:-${VERSION_CODENAME:-}}; k=/etc/apt/keyrings/docker.gpg
get {{DOCKER}}/linux/$d/gpg | gpg --batch --yes --dearmor -o $k; chmod 644 $k
echo "deb [arch=$(dpkg --print-architecture) signed-by=$k] {{DOCKER}}/linux/$d $c stable" >/etc/apt/sources.list.d/docker.list
A update; A install --no-install-recommends --allow-change-held-packages --allow-downgrades {{PACKAGES}}; apt-mark hold {{NAMES}}`

// One version 2 file serves containerd 1.6, 1.7 and 2.x, which migrates it.
const containerdScript = `mkdir -p /etc/containerd/certs.d; cat >$R/config.toml <<'X'
version = 2
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
X
v=$(containerd --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1); [ "$(printf '%s\n' {{MINCTD}} "$v" | sort -V | head -n 1)" = {{MINCTD}} ] || { echo "capplunder-error containerd $v, need {{MINCTD}}"; exit 1; }
echo 'runtime-endpoint: unix:///run/containerd/containerd.sock' >/etc/crictl.yaml; systemctl daemon-reload; systemctl enable containerd
cmp -s $R/config.toml /etc/containerd/config.toml || { install -m 644 $R/config.toml /etc/containerd/config.toml; systemctl restart containerd; }
systemctl start containerd; for i in $(seq 30); do [ -S /run/containerd/containerd.sock ] && break; sleep 1; done; n=$(containerd config dump | grep -c 'SystemdCgroup = true' || :); [ "$n" -ge 1 ] || { echo 'capplunder-error SystemdCgroup is not on'; exit 1; }; echo "capplunder-runtime containerd=$v"`

const dockerScript = `mkdir -p /etc/docker; printf '%s\n' '{"exec-opts":["native.cgroupdriver=systemd"],"log-driver":"json-file","log-opts":{"max-size":"100m"},"storage-driver":"overlay2"}' >/etc/docker/daemon.json
systemctl daemon-reload; systemctl enable docker; systemctl restart docker; docker version`

// A repository of an ended minor keeps an expired copy of the signing key, so the
// newest minor's is asked for first.
const repoScript = `k=/etc/apt/keyrings/kubernetes-apt-keyring.gpg; u=; for x in {{KEYS}}; do if get "$x" >$R/key.asc; then u=$x; break; fi; done; [ -n "$u" ] || { echo 'capplunder-error no repository key'; exit 1; }
gpg --batch --yes --dearmor -o $k <$R/key.asc; chmod 644 $k; echo {{APTLINE}} >/etc/apt/sources.list.d/kubernetes.list
A update; apt-cache madison kubeadm >$R/madison; grep -qF ' {{VERSION}}-' $R/madison || { echo 'capplunder-error {{VERSION}} is not served; there is:'; head -n 4 $R/madison; exit 1; }`

const packagesScript = `A install --no-install-recommends --allow-change-held-packages --allow-downgrades "kubelet={{VERSION}}-*" "kubeadm={{VERSION}}-*" "kubectl={{VERSION}}-*" "{{CNI}}" cri-tools; apt-mark hold kubelet kubeadm kubectl kubernetes-cni cri-tools
systemctl daemon-reload; systemctl enable --now kubelet; [ "$(kubeadm version -o short)" = v{{VERSION}} ] && echo "capplunder-kubeadm v{{VERSION}}"`

// fill replaces {{NAME}} by checked values.
func fill(script string, values map[string]string) string {
	pairs := make([]string, 0, 2*len(values))
	for k, v := range values {
		pairs = append(pairs, "{{"+k+"}}", v)
	}
	return strings.NewReplacer(pairs...).Replace(script)
}

func newInstallMap(job string, t Target, k *Kubernetes) *mapBuilder {
	b := newMap(job, t)
	b.preamble = preamble
	b.match("Kubernetes version", k.Version, versionForm)
	return b
}

// Packages prepares a host for kubeadm: settings, container runtime, kubelet and
// kubeadm of the wanted version. It may run again.
func Packages(job string, t Target, k *Kubernetes, f Facts) (wire.Map, error) {
	if err := k.refuse(f); err != nil {
		return wire.Map{}, err
	}
	b := newInstallMap(job, t, k)
	b.bash("prep", 2*time.Minute, fill(prepScript, map[string]string{"NODE": t.HostName, "IP": t.Address}))
	b.try("prep.firewall", time.Minute, firewallScript)
	b.bash("base", 20*time.Minute, baseScript)
	packages, names := b.runtimePackages(k)
	b.bash("runtime", 20*time.Minute, fill(runtimeScript, map[string]string{"DOCKER": dockerBase, "PACKAGES": packages, "NAMES": names}))
	if k.docker() {
		b.bash("runtime.config", 3*time.Minute, dockerScript)
	} else {
		b.bash("runtime.config", 3*time.Minute, fill(containerdScript, map[string]string{"MINCTD": k.minContainerd()}))
	}
	aptLine, keys := b.repository(k)
	b.bash("kube.repo", 10*time.Minute, fill(repoScript, map[string]string{"KEYS": keys, "APTLINE": aptLine, "VERSION": k.Version}))
	cni := "kubernetes-cni"
	if k.Minor <= 16 {
		cni = "kubernetes-cni=0.7.5-*" // what kubelet of that time depends on
	}
	b.bash("kube.packages", 20*time.Minute, fill(packagesScript, map[string]string{"VERSION": k.Version, "CNI": cni}))
	return b.done("packages")
}

// runtimePackages is what apt installs as container runtime, and the names it holds.
func (b *mapBuilder) runtimePackages(k *Kubernetes) (packages, names string) {
	if !k.docker() {
		return "containerd.io", "containerd.io"
	}
	v := k.DockerVersion
	if v == "" {
		return "docker-ce docker-ce-cli containerd.io", "docker-ce docker-ce-cli containerd.io"
	}
	b.match("dockerVersion", v, dockerForm)
	old := strings.HasPrefix(v, "18.06") || strings.HasPrefix(v, "18.03") || strings.HasPrefix(v, "17.")
	if !strings.ContainsAny(v, "~-:") {
		switch major, _, _ := strings.Cut(v, "."); {
		case old:
			v += "~ce*"
		case len(major) > 1 && major >= "23": // 5:27.5.1-1~ubuntu.24.04~noble
			v = "5:" + v + "-*"
		default: // 5:20.10.24~3-0~ubuntu-focal
			v = "5:" + v + "~*"
		}
	}
	if old {
		return quote("docker-ce=" + v), "docker-ce"
	}
	return quote("docker-ce="+v) + " " + quote("docker-ce-cli="+v) + " containerd.io", "docker-ce docker-ce-cli containerd.io"
}

// repository is the sources.list line, quoted, and the URLs of its key.
func (b *mapBuilder) repository(k *Kubernetes) (aptLine, keys string) {
	if k.Repo != nil && k.Repo.Apt != "" {
		b.match("spec.repo.apt", k.Repo.Apt, aptLineForm)
		b.match("spec.repo.key", k.Repo.Key, urlForm)
		return quote(k.Repo.Apt), quote(k.Repo.Key)
	}
	own := fmt.Sprintf("%s/v1.%d/deb/", packagesBase, k.Minor)
	newest := fmt.Sprintf("%s/v1.%d/deb/", packagesBase, newestMinor)
	line := "deb [signed-by=/etc/apt/keyrings/kubernetes-apt-keyring.gpg] " + own + " /"
	return quote(line), quote(newest+"Release.key") + " " + quote(own+"Release.key")
}
