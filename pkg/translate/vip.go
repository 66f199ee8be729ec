package translate

import (
	"fmt"
	"strconv"
)

const (
	// vipImage is the kube-vip that the manifest was written for.
	vipImage = "ghcr.io/kube-vip/kube-vip:v1.2.3"
	// vipManifest is where a bundle puts the manifest: what is in kubelet's folder runs.
	vipManifest = "/run/capplunder/kube-vip.yaml"
	// vipInterface stands for the network card until the host says which it is.
	vipInterface = "CAPPLUNDER-INTERFACE"
	// superAdminMinor is the first minor whose admin.conf may do nothing until kubeadm
	// init is through: only super-admin.conf may (kube-vip/kube-vip#684).
	superAdminMinor = 29
	superAdminConf  = "/etc/kubernetes/super-admin.conf"
)

// vipFile is the manifest of a static pod with kube-vip, which answers ARP for the
// endpoint's address on the machine that it is leader on; or nothing. It talks to the
// API server of its own machine, for the address may not be there yet.
func (b *mapBuilder) vipFile(k *Kubernetes) []file {
	if k.VIP == nil || !k.ControlPlane {
		return nil
	}
	if !isIPv4(k.Endpoint.Host) || k.Endpoint.Host == b.target.Address {
		b.check(fmt.Errorf("vip: the host of the control plane endpoint must be an IPv4 address that no machine has, and is %q", k.Endpoint.Host))
	}
	image, card := k.VIP.Image, k.VIP.Interface
	if image == "" {
		image = vipImage
	}
	if card == "" {
		card = vipInterface
	}
	env := func(name, value string) any { return map[string]any{"name": name, "value": value} }
	own := b.target.Address + ":" + strconv.Itoa(apiPort)
	return []file{{vipManifest, 0o600, b.documents(&Kubernetes{}, map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "kube-vip", "namespace": "kube-system"},
		"spec": map[string]any{
			"hostNetwork": true,
			"hostAliases": []any{map[string]any{"ip": "127.0.0.1", "hostnames": []any{"kubernetes"}}}, // for kube-vip that does not know kubernetes_addr
			"containers": []any{map[string]any{
				"name": "kube-vip", "image": image, "imagePullPolicy": "IfNotPresent", "args": []any{"manager"},
				"env": []any{
					env("vip_arp", "true"), env("port", strconv.Itoa(k.Endpoint.Port)), env("address", k.Endpoint.Host),
					env("vip_interface", card), env("vip_subnet", "32"), env("vip_cidr", "32"), // the name before kube-vip 0.9
					env("cp_enable", "true"), env("cp_namespace", "kube-system"), env("svc_enable", "false"), env("kubernetes_addr", own),
					env("vip_leaderelection", "true"), env("vip_leasename", "plndr-cp-lock"),
					env("vip_leaseduration", "15"), env("vip_renewdeadline", "10"), env("vip_retryperiod", "2"),
					map[string]any{"name": "vip_nodename", "valueFrom": map[string]any{"fieldRef": map[string]any{"fieldPath": "spec.nodeName"}}},
				},
				"securityContext": map[string]any{"capabilities": map[string]any{"add": []any{"NET_ADMIN", "NET_RAW"}, "drop": []any{"ALL"}}},
				"volumeMounts":    []any{map[string]any{"name": "kubeconfig", "mountPath": adminConf}},
			}},
			// It must be a file: a runtime makes a folder of what is not there.
			"volumes": []any{map[string]any{"name": "kubeconfig", "hostPath": map[string]any{"path": adminConf, "type": "File"}}},
		},
	})}}
}

// vipScript defines vip, which gives the manifest to kubelet: $1 is the kubeconfig that
// the pod gets. kubelet leaves files alone whose names begin with a dot, so it never
// sees half of one. Without a manifest vip does nothing.
const vipScript = `vip() { [ -e $R/kube-vip.yaml ] || return 0; d=/etc/kubernetes/manifests; mkdir -p $d; i=; if grep -q {{CARD}} $R/kube-vip.yaml; then i=$(ip -4 route show default | sed -nE 's/^default .*dev ([^ ]+).*/\1/p' | sort -u | head -n 1); [ -n "$i" ] || { echo 'capplunder-error the host has no default route: name the network card for the virtual address in vip.interface'; return 1; }; fi
sed -e "s#{{CARD}}#$i#" -e "s#path: {{CONF}}#path: $1#" $R/kube-vip.yaml >$d/.kube-vip; chmod 600 $d/.kube-vip; if cmp -s $d/.kube-vip $d/kube-vip.yaml; then rm -f $d/.kube-vip; else mv -f $d/.kube-vip $d/kube-vip.yaml; fi; }
`
