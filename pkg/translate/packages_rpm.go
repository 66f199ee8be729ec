package translate

import (
	"regexp"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const (
	rpmBaseScript = `command -v curl >/dev/null || Y install curl; Y install ca-certificates gnupg2 openssl conntrack-tools iptables iproute kmod util-linux tar
for p in iproute-tc socat ethtool ebtables container-selinux; do px "$(command -v dnf || command -v yum)" -y -q install $p >/dev/null 2>&1 || echo "optional $p not installed"; done`

	rpmRepoScript = `k=/etc/pki/rpm-gpg/RPM-GPG-KEY-kubernetes; ` + keyScript + `install -D -m 644 $R/key.asc $k
printf '[kubernetes]\nname=Kubernetes\nbaseurl=%s\nenabled=1\ngpgcheck=1\ngpgkey=file://%s\n' {{BASEURL}} $k >/etc/yum.repos.d/kubernetes.repo; px "$(command -v dnf || command -v yum)" clean all >/dev/null`

	// The packages are held by an exclude line that is written after them; kube.repo
	// writes the file anew, so nothing has to lift the hold (the option for it has another
	// name in dnf5).
	rpmPackagesScript = `Y install kubelet-{{VERSION}} kubeadm-{{VERSION}} kubectl-{{VERSION}} {{CNI}} cri-tools; echo 'exclude=kubelet kubeadm kubectl kubernetes-cni cri-tools' >>/etc/yum.repos.d/kubernetes.repo
` + versionScript

	rpmDockerRepo = `get -o $R/docker-ce.repo {{DOCKER}}/linux/{{DISTRO}}/docker-ce.repo{{MIRROR}}; install -m 644 $R/docker-ce.repo /etc/yum.repos.d/docker-ce.repo; Y install {{ERASE}}{{PACKAGES}}`
)

// rpmRepository makes the repository with the Kubernetes packages known.
func rpmRepository(k *Kubernetes) string {
	base := minorURL(k, k.Minor) + "rpm/"
	if k.Repo != nil && k.Repo.RPM != "" {
		base = k.Repo.RPM
	}
	return fill(rpmRepoScript, map[string]string{"KEYS": keyURLs(k, "rpm/repodata/repomd.xml.key"), "BASEURL": quote(base)})
}

func rpmPackages(k *Kubernetes) string {
	return fill(rpmPackagesScript, map[string]string{"VERSION": k.Version, "CNI": cniPackage(k, "-0.7.5")})
}

// rpmRuntime installs the container runtime.
func rpmRuntime(k *Kubernetes, f Facts) string {
	if k.RuntimeSource == capi.SourceDistribution {
		return "Y install containerd"
	}
	distro, erase, mirror := "centos", "", ""
	if f.ID == "rhel" || f.ID == "fedora" {
		distro = f.ID
	}
	if f.PackageManager == pmDnf {
		erase = "--allowerasing " // podman's runc is in the way
	}
	if k.RuntimeMirror != "" { // the repository file names Docker's own server
		mirror = `; sed -i 's|` + dockerBase + `|'` + quote(dockerURL(k)) + `'|g' $R/docker-ce.repo`
	}
	return fill(rpmDockerRepo, map[string]string{
		"DOCKER": quote(dockerURL(k)), "DISTRO": distro, "ERASE": erase, "MIRROR": mirror, "PACKAGES": rpmRuntimePackages(k),
	})
}

var (
	rpmVersionForm = regexp.MustCompile(`\.(el|fc)[0-9]`)
	threeNumbers   = regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+`)
)

// rpmVersion is a version as dnf and yum take it after a name: without an epoch, which
// is not the same for all packages; of one that is written for apt, the numbers.
func rpmVersion(v string) string {
	if _, rest, ok := strings.Cut(v, ":"); ok {
		v = rest
	}
	if rpmVersionForm.MatchString(v) {
		return v
	}
	if n := threeNumbers.FindString(v); n != "" {
		return n
	}
	return v + ".*"
}

// rpmRuntimePackages is what dnf or yum installs as container runtime.
func rpmRuntimePackages(k *Kubernetes) string {
	if !k.docker() {
		if k.ContainerdVersion == "" {
			return "containerd.io"
		}
		return quote("containerd.io-" + rpmVersion(k.ContainerdVersion))
	}
	if k.DockerVersion == "" {
		return "docker-ce docker-ce-cli containerd.io"
	}
	v := rpmVersion(k.DockerVersion)
	if olderDocker(v, 18, 9) {
		if !rpmVersionForm.MatchString(v) {
			v += ".ce"
		}
		return quote("docker-ce-" + v)
	}
	return quote("docker-ce-"+v) + " " + quote("docker-ce-cli-"+v) + " containerd.io"
}
