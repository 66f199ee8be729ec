package translate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const (
	binariesBase = "https://dl.k8s.io"
	cniPlugins   = "cni-plugins"
)

// binaryNames are the programs that are fetched one by one.
func binaryNames() []string { return []string{"kubeadm", "kubelet", "kubectl"} }

// kubeletUnit runs a kubelet that no package brought, in the way that kubeadm expects.
func kubeletUnit() []file {
	const dir = "/etc/systemd/system/kubelet.service"
	return []file{
		{dir, 0o644, `[Unit]
Description=kubelet, the node agent of Kubernetes
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/local/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
`},
		{dir + ".d/10-kubeadm.conf", 0o644, `[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
`},
	}
}

// binaries fetches kubeadm, kubelet, kubectl and the CNI plugins. A file is checked and
// then moved to its place, because the old one may be running.
func binaries(k *Kubernetes, f Facts) string {
	src := capi.BinarySource{}
	if k.Binaries != nil {
		src = *k.Binaries
	}
	base := fmt.Sprintf("%s/v%s/bin/linux/%s/", strings.TrimRight(cmp.Or(src.URL, binariesBase), "/"), k.Version, architectures()[f.Arch])
	var fetch strings.Builder
	for _, name := range binaryNames() {
		fmt.Fprintf(&fetch, " fetch %s %s /usr/local/bin/.capplunder; chmod 755 /usr/local/bin/.capplunder; mv -f /usr/local/bin/.capplunder /usr/local/bin/%s\n",
			quote(base+name), quote(src.SHA256[name]), name)
	}
	if src.CNIPluginsURL != "" {
		fmt.Fprintf(&fetch, " mkdir -p /opt/cni/bin; fetch %s %s /opt/cni/.capplunder; tar -xzf /opt/cni/.capplunder -C /opt/cni/bin; rm -f /opt/cni/.capplunder\n",
			quote(src.CNIPluginsURL), quote(src.SHA256[cniPlugins]))
	}
	sum := sha256.Sum256([]byte(fetch.String()))
	return fill(`fetch() { get -o "$3" "$1"; [ -z "$2" ] || [ "$(sha256sum <"$3" | cut -d' ' -f1)" = "$2" ] || { rm -f "$3"; echo "capplunder-error $1 has another SHA-256 digest than the one given"; exit 1; }; }
if [ "$(cat $E/binaries.done 2>/dev/null || :)" != {{SUM}} ]; then
{{FETCH}} echo {{SUM}} >$E/binaries.done
fi
[ -x /opt/cni/bin/loopback ] || { echo 'capplunder-error there are no CNI plugins in /opt/cni/bin: set binaries.cniPluginsURL'; exit 1; }
`+versionScript, map[string]string{"SUM": hex.EncodeToString(sum[:]), "FETCH": fetch.String(), "VERSION": k.Version})
}
