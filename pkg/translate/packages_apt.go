package translate

import (
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const (
	aptKeyring = "/etc/apt/keyrings/kubernetes-apt-keyring.gpg"

	// A dead Kubernetes list breaks `apt-get update`; Ubuntu keeps conntrack in universe,
	// which an unattended installation may have left out.
	aptBaseScript = `{ grep -lsE 'apt\.kubernetes\.io|packages\.cloud\.google\.com/apt' /etc/apt/sources.list.d/*.list || :; } | xargs -r rm -f
dpkg --configure -a || :; A update; . /etc/os-release
if [ "$ID" = ubuntu ] && [ -f /etc/apt/sources.list ] && ! apt-cache show conntrack >/dev/null 2>&1; then sed -nE 's/^(deb [^#]*ubuntu[^ ]* [a-z-]+) .*/\1 universe/p' /etc/apt/sources.list >/etc/apt/sources.list.d/capplunder-universe.list; A update; fi
A install --no-install-recommends ca-certificates curl gnupg openssl conntrack iptables iproute2 kmod util-linux
for p in socat ethtool ebtables; do px apt-get -y -o DPkg::Lock::Timeout=300 install --no-install-recommends $p >/dev/null 2>&1 || echo "optional $p not installed"; done; install -d -m 755 /etc/apt/keyrings`

	// A key may be served armored or not.
	aptRepoScript = `k=` + aptKeyring + `; ` + keyScript + `if grep -q 'BEGIN PGP' $R/key.asc; then gpg --batch --yes --dearmor -o $k <$R/key.asc; else cp $R/key.asc $k; fi; chmod 644 $k; echo {{APTLINE}} >/etc/apt/sources.list.d/kubernetes.list
A update; apt-cache madison kubeadm >$R/madison; grep -qF ' {{VERSION}}-' $R/madison || { echo 'capplunder-error {{VERSION}} is not served; there is:'; head -n 4 $R/madison; exit 1; }`

	aptPackagesScript = `A install --no-install-recommends --allow-change-held-packages --allow-downgrades "kubelet={{VERSION}}-*" "kubeadm={{VERSION}}-*" "kubectl={{VERSION}}-*" "{{CNI}}" cri-tools; apt-mark hold kubelet kubeadm kubectl kubernetes-cni cri-tools
` + versionScript
)

// aptRepository makes the repository with the Kubernetes packages known.
func aptRepository(k *Kubernetes) string {
	line := "deb " + minorURL(k, k.Minor) + "deb/ /"
	if k.Repo != nil && k.Repo.Apt != "" {
		line = k.Repo.Apt
	}
	return fill(aptRepoScript, map[string]string{"KEYS": keyURLs(k, "deb/Release.key"), "APTLINE": quote(signedBy(line)), "VERSION": k.Version})
}

// signedBy is a sources.list line with our keyring, unless it names one.
func signedBy(line string) string {
	rest := strings.TrimPrefix(line, "deb ")
	switch {
	case strings.Contains(line, "signed-by="):
		return line
	case strings.HasPrefix(rest, "["):
		return "deb [signed-by=" + aptKeyring + " " + rest[1:]
	}
	return "deb [signed-by=" + aptKeyring + "] " + rest
}

func aptPackages(k *Kubernetes) string {
	return fill(aptPackagesScript, map[string]string{"VERSION": k.Version, "CNI": cniPackage(k, "=0.7.5-*")})
}

const (
	aptDockerRepo = `. /etc/os-release; d=$ID; case $d in ubuntu|debian) ;; *) case " ${ID_LIKE:-} " in *ubuntu*) d=ubuntu;; *) d=debian;; esac;; esac; c={{CODENAME}}; c=${c:-${UBUNTU_CODENAME:-${VERSION_CODENAME:-}}}; k=/etc/apt/keyrings/docker.gpg
get {{DOCKER}}/linux/$d/gpg | gpg --batch --yes --dearmor -o $k; chmod 644 $k
echo "deb [arch=$(dpkg --print-architecture) signed-by=$k] "{{DOCKER}}"/linux/$d $c stable" >/etc/apt/sources.list.d/docker.list
A update; A install --no-install-recommends --allow-change-held-packages --allow-downgrades {{PACKAGES}}; apt-mark hold {{NAMES}}`
	// The distribution's own package is not held: it gets only security updates.
	aptDistributionRuntime = `A install --no-install-recommends --allow-change-held-packages containerd`
)

// aptRuntime installs the container runtime.
func aptRuntime(k *Kubernetes) string {
	if k.RuntimeSource == capi.SourceDistribution {
		return aptDistributionRuntime
	}
	packages, names := aptRuntimePackages(k)
	return fill(aptDockerRepo, map[string]string{
		"CODENAME": quote(k.DockerCodename), "DOCKER": quote(dockerURL(k)), "PACKAGES": packages, "NAMES": names,
	})
}

// aptRuntimePackages is what apt installs as container runtime, and the names it holds.
// A whole package version is taken as it is; of a plain one, the newest build.
func aptRuntimePackages(k *Kubernetes) (packages, names string) {
	if !k.docker() {
		v := k.ContainerdVersion
		if v == "" {
			return "containerd.io", "containerd.io"
		}
		return quote("containerd.io=" + plain(v, v+".*", v+"-*")), "containerd.io"
	}
	v := k.DockerVersion
	if v == "" {
		return "docker-ce docker-ce-cli containerd.io", "docker-ce docker-ce-cli containerd.io"
	}
	if olderDocker(v, 18, 9) { // 18.06.1~ce~3-0~ubuntu; the client is in it
		return quote("docker-ce=" + plain(v, v+".*", v+"~ce*")), "docker-ce"
	}
	if olderDocker(v, 23, 0) { // 5:20.10.24~3-0~ubuntu-focal
		v = plain(v, "5:"+v+".*", "5:"+v+"~*")
	} else { // 5:27.5.1-1~ubuntu.24.04~noble
		v = plain(v, "5:"+v+".*", "5:"+v+"-*")
	}
	return quote("docker-ce="+v) + " " + quote("docker-ce-cli="+v) + " containerd.io", "docker-ce docker-ce-cli containerd.io"
}
