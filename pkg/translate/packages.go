package translate

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// preamble begins every install script: strict mode, a known environment, private
// directories (R is gone after a reboot), and one job at a time on the host, for a
// job whose server died may still be running. {{WAIT}} is for how many seconds it waits
// for that one.
//
// px runs a program with the proxies, if there are any. Only what fetches things gets
// them: kubeadm would write them, passwords included, into the static pods.
const preamble = `set -euo pipefail; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root DEBIAN_FRONTEND=noninteractive; umask 022; R=/run/capplunder; E=/etc/kubernetes/capplunder; L=/var/log/capplunder; mkdir -p $R $E $L; chmod 700 $R $E $L
if command -v flock >/dev/null; then exec 9>$R/lock; flock -w {{WAIT}} 9 || { echo 'capplunder-error another job is still running on this host; if it does not end, restart the machine'; exit 1; }; fi
px() ( if [ -e $E/proxy.env ]; then set -a; . $E/proxy.env; fi; "$@" )
try() { n=$1; shift; for i in $(seq "$n"); do "$@" && return 0; echo "attempt $i failed: $1"; sleep 10; done; return 1; }
A() { px try 6 apt-get -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@"; }
Y() { px try 3 "$(command -v dnf || command -v yum)" -y "$@"; }
get() { px curl -fsSL --retry 5 --retry-delay 3 --connect-timeout 20 --speed-time 60 "$@"; }
mask() { sed -E 's/[a-z0-9]{6}\.[a-z0-9]{16}/***/g; s/[0-9a-f]{64}/***/g; s#://[^/@ ]*@#://***@#g; s/(password|token)([=:] *)[^ ]+/\1\2***/Ig'; }
ca() { echo "capplunder-ca $(base64 </etc/kubernetes/pki/ca.crt | tr -d '\n')"; }
`

// fill replaces {{NAME}} by checked values.
func fill(script string, values map[string]string) string {
	pairs := make([]string, 0, 2*len(values))
	for k, v := range values {
		pairs = append(pairs, "{{"+k+"}}", v)
	}
	return strings.NewReplacer(pairs...).Replace(script)
}

// newInstallMap begins a map of install scripts. Only bootstrap data goes without a
// version: what is on the image is then nobody's business.
func newInstallMap(job string, t Target, k *Kubernetes) *mapBuilder {
	b := newMap(job, t)
	b.preamble = preamble
	if k.Version != "" || !k.Bootstrapped {
		b.match("Kubernetes version", k.Version, versionForm)
	}
	return b
}

// Packages prepares a host for kubeadm: settings, container runtime, kubelet and
// kubeadm of the wanted version. It may run again.
func Packages(job string, t Target, k *Kubernetes, f Facts) (wire.Map, error) {
	if err := k.refuse(f); err != nil {
		return wire.Map{}, err
	}
	b := newInstallMap(job, t, k)
	b.checkOptions(k)
	b.network(k)
	b.packageFiles(k)
	if k.Hooks != nil && k.Hooks.Before != "" {
		b.hook(hookBefore)
	}
	if v, _, _ := strings.Cut(f.Version, "."); f.rpm() && f.ID == "centos" && (v == "7" || v == "8") {
		b.bash("prep.vault", time.Minute, vaultScript)
	}
	b.prepare(k, f)
	switch {
	case isTrue(k.SkipInstall):
		b.bash("kube.check", 3*time.Minute, checkScript(k))
	default:
		b.install(k, f)
	}
	return b.done("packages")
}

// network checks what the objects say about the cluster's network.
func (b *mapBuilder) network(k *Kubernetes) {
	for _, cidr := range strings.Split(k.PodCIDR+","+k.ServiceCIDR, ",") {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			b.check(err)
		}
	}
	b.match("service domain", k.Domain, domainForm)
	if !k.Endpoint.IsZero() {
		b.match("control plane endpoint", k.Endpoint.Host, domainForm)
	}
}

// packageFiles brings what the scripts of Packages read.
func (b *mapBuilder) packageFiles(k *Kubernetes) {
	files := b.proxyFiles(k)
	if k.Hooks != nil {
		files = append(files, hookFile(hookBefore, k.Hooks.Before)...)
	}
	if k.Method == capi.MethodBinaries && !isTrue(k.SkipInstall) {
		files = append(files, kubeletUnit()...)
	}
	if len(files) > 0 {
		b.bundle(files...)
	}
}

// install installs the runtime, kubelet and kubeadm. The runtime is configured last,
// because kubeadm knows the name of the pause image.
func (b *mapBuilder) install(k *Kubernetes, f Facts) {
	switch {
	case f.apt():
		b.bash("base", 20*time.Minute, aptBaseScript)
		b.bash("runtime", 20*time.Minute, aptRuntime(k))
	case f.rpm():
		b.bash("base", 20*time.Minute, rpmBaseScript)
		b.bash("runtime", 20*time.Minute, rpmRuntime(k, f))
	}
	switch {
	case k.Method == capi.MethodBinaries:
		b.bash("kube.binaries", 30*time.Minute, binaries(k, f))
	case f.apt():
		b.bash("kube.repo", 10*time.Minute, aptRepository(k))
		b.bash("kube.packages", 20*time.Minute, aptPackages(k))
	default:
		b.bash("kube.repo", 10*time.Minute, rpmRepository(k))
		b.bash("kube.packages", 20*time.Minute, rpmPackages(k))
	}
	if k.docker() {
		b.bash("runtime.config", 3*time.Minute, dockerConfig(k))
	} else {
		b.bash("runtime.config", 3*time.Minute, containerdConfig(k))
	}
}

// versionScript proves that what was installed is what was asked for.
const versionScript = `systemctl daemon-reload; systemctl enable --now kubelet
for x in "kubeadm $(kubeadm version -o short)" "kubelet $(kubelet --version | cut -d' ' -f2)"; do [ "${x#* }" = v{{VERSION}} ] || { echo "capplunder-error ${x% *} is ${x#* }, not v{{VERSION}}"; exit 1; }; done; echo "capplunder-kubeadm v{{VERSION}}"`

// checkScript is what is proved of an image that needs no installation.
func checkScript(k *Kubernetes) string {
	runtime := "containerd"
	if k.docker() {
		runtime = "docker"
	}
	s := `for p in kubeadm kubelet ` + runtime + `; do command -v $p >/dev/null || { echo "capplunder-error $p is not on the image, and skipInstall is set"; exit 1; }; done; systemctl enable --now ` + runtime + "\n"
	if k.proxied() {
		s += proxySum(k) + "systemctl daemon-reload; cmp -s $R/proxy.sum $E/proxy.sum || { systemctl restart " + runtime + "; install -m 600 $R/proxy.sum $E/proxy.sum; }\n"
	}
	if k.docker() {
		s += "docker version\n"
	} else {
		s += containerdVersion(k) + containerdAnswers
	}
	if k.Version == "" {
		return s + `systemctl enable --now kubelet; echo "capplunder-kubeadm $(kubeadm version -o short)"`
	}
	return s + fill(versionScript, map[string]string{"VERSION": k.Version})
}

// keyURLs are where a repository's signing key may be, quoted, in the order in which
// they are asked. A repository of an ended minor keeps an expired copy of the key
// (kubernetes/release#3818), so the newest minor's comes first.
func keyURLs(k *Kubernetes, file string) string {
	if k.Repo != nil && k.Repo.Key != "" {
		return quote(k.Repo.Key)
	}
	own := minorURL(k, k.Minor)
	if k.Minor >= newestMinor {
		return quote(own + file)
	}
	return quote(minorURL(k, newestMinor)+file) + " " + quote(own+file)
}

// minorURL is the repositories of one minor, without deb/ or rpm/.
func minorURL(k *Kubernetes, minor int) string {
	base := packagesBase
	if k.Repo != nil && k.Repo.Base != "" {
		base = strings.TrimRight(k.Repo.Base, "/")
	}
	return fmt.Sprintf("%s/v1.%d/", base, minor)
}

const (
	// packagesBase is where Kubernetes packages are published, one repository per minor.
	packagesBase = "https://pkgs.k8s.io/core:/stable:"
	// keyScript fetches the signing key to $R/key.asc from the first URL that has it.
	keyScript = `u=; set -- {{KEYS}}; for x; do if get "$x" >$R/key.asc; then u=$x; break; fi; done; [ -n "$u" ] || { echo 'capplunder-error no repository key'; exit 1; }
`
)

// cniPackage is the package of the CNI plugins; kubelet 1.13 to 1.16 depends on 0.7.5.
func cniPackage(k *Kubernetes, separator string) string {
	if k.Minor <= 16 {
		return "kubernetes-cni" + separator
	}
	return "kubernetes-cni"
}
