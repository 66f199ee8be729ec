package translate

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
)

const dockerBase = "https://download.docker.com"

// dockerURL is where Docker's packages come from.
func dockerURL(k *Kubernetes) string {
	return strings.TrimRight(cmp.Or(k.RuntimeMirror, dockerBase), "/")
}

var twoNumbers = regexp.MustCompile(`^(?:[0-9]+:)?([0-9]+)\.([0-9]+)`)

// olderDocker reports whether a version is known to be older than major.minor.
func olderDocker(v string, major, minor int) bool {
	n := twoNumbers.FindStringSubmatch(v)
	if n == nil {
		return false
	}
	a, err1 := strconv.Atoi(n[1])
	b, err2 := strconv.Atoi(n[2])
	return err1 == nil && err2 == nil && (a < major || a == major && b < minor)
}

// plain chooses what to ask apt for: a whole package version as it is, else one pattern
// for X.Y (or X) and another for X.Y.Z.
func plain(v, short, full string) string {
	switch {
	case strings.ContainsAny(v, "~-:"):
		return v
	case strings.Count(v, ".") < 2:
		return short
	}
	return full
}

// One version 2 file serves containerd 1.6, 1.7 and 2.x, which migrates it. bin_dir is
// set because Debian's containerd looks elsewhere.
const containerdScript = `mkdir -p /etc/containerd/certs.d; cat >$R/config.toml <<'X'
version = 2
{{SANDBOX}}[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
X
{{PAUSE}}{{CHECK}}echo 'runtime-endpoint: unix:///run/containerd/containerd.sock' >/etc/crictl.yaml; {{PROXY}}systemctl daemon-reload; systemctl enable containerd
if ! cmp -s $R/config.toml /etc/containerd/config.toml || ! cmp -s $R/proxy.sum $E/proxy.sum; then install -m 644 $R/config.toml /etc/containerd/config.toml; systemctl restart containerd; install -m 600 $R/proxy.sum $E/proxy.sum; fi
systemctl start containerd; {{ANSWERS}}n=$(containerd config dump | grep -c 'SystemdCgroup = true' || :); [ "$n" -ge 1 ] || { echo 'capplunder-error SystemdCgroup is not on'; exit 1; }; echo "capplunder-runtime containerd=$v"`

// containerdVersion is a script that leaves the version in $v.
func containerdVersion(k *Kubernetes) string {
	return fill(`command -v containerd >/dev/null || { echo 'capplunder-error containerd is not on the host'; exit 1; }
v=$(containerd --version | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1); [ "$(printf '%s\n' {{MINCTD}} "$v" | sort -V | head -n 1)" = {{MINCTD}} ] || { echo "capplunder-error containerd $v, need {{MINCTD}}"; exit 1; }
`, map[string]string{"MINCTD": k.minContainerd()})
}

const containerdAnswers = `for i in $(seq 30); do [ -S /run/containerd/containerd.sock ] && break; sleep 1; done; [ -S /run/containerd/containerd.sock ] || { echo 'capplunder-error containerd does not answer'; exit 1; }
`

// containerdConfig configures containerd and restarts it when that changes something.
func containerdConfig(k *Kubernetes) string {
	sandbox, pause := "", ""
	if k.ImageRepository != "" {
		sandbox = "[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"PAUSE\"\n"
		pause = fill(`p=$(kubeadm config images list --kubernetes-version v{{VERSION}} --image-repository {{REPO}} | grep /pause: | head -n 1 || :); [ -n "$p" ] || { echo 'capplunder-error kubeadm does not name a pause image'; exit 1; }; sed -i "s|\"PAUSE\"|\"$p\"|" $R/config.toml
`, map[string]string{"VERSION": k.Version, "REPO": quote(k.ImageRepository)})
	}
	return fill(containerdScript, map[string]string{
		"SANDBOX": sandbox, "PAUSE": pause, "CHECK": containerdVersion(k), "PROXY": proxySum(k), "ANSWERS": containerdAnswers,
	})
}

const dockerScript = `mkdir -p /etc/docker; printf '%s\n' '{"exec-opts":["native.cgroupdriver=systemd"],"log-driver":"json-file","log-opts":{"max-size":"100m"},"storage-driver":"overlay2"}' >$R/daemon.json; {{PROXY}}
systemctl daemon-reload; systemctl enable docker
if ! cmp -s $R/daemon.json /etc/docker/daemon.json || ! cmp -s $R/proxy.sum $E/proxy.sum; then install -m 644 $R/daemon.json /etc/docker/daemon.json; systemctl restart docker; install -m 600 $R/proxy.sum $E/proxy.sum; fi
systemctl start docker; docker version`

// dockerConfig configures Docker and restarts it when that changes something.
func dockerConfig(k *Kubernetes) string {
	return fill(dockerScript, map[string]string{"PROXY": proxySum(k)})
}
