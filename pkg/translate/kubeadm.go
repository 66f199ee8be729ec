package translate

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// A control plane that once came up is never reset and never initialised again.
const initScript = `K="kubectl --kubeconfig=/etc/kubernetes/admin.conf"; trap 'rm -f $E/kubeadm.yaml' EXIT
if [ -e $E/init.done ]; then try 12 $K get --raw /healthz >/dev/null && { echo 'capplunder-init already'; ca; exit 0; }; echo 'capplunder-error initialised before but the API does not answer; not touching it'; exit 1; fi
if [ -e /etc/kubernetes/manifests/kube-apiserver.yaml ]; then kubeadm reset -f >$L/reset.log 2>&1 || :; fi
if ! (umask 077; timeout 1500 kubeadm init --config $E/kubeadm.yaml --skip-token-print --skip-certificate-key-print >$L/init.log 2>&1); then tail -n 80 $L/init.log | mask; exit 1; fi
touch $E/init.done; { grep -E '^\[' $L/init.log || :; } | mask | tail -n 40; echo 'capplunder-init ok'; ca`

const joinScript = `trap 'rm -f $R/join.yaml' EXIT; if [ -e $E/join.done ]; then echo 'capplunder-join already'; exit 0; fi
if [ -e /etc/kubernetes/kubelet.conf ]; then kubeadm reset -f >$L/reset.log 2>&1 || :; fi
if ! (umask 077; timeout 900 kubeadm join --config $R/join.yaml >$L/join.log 2>&1); then tail -n 80 $L/join.log | mask; exit 1; fi
touch $E/join.done; echo 'capplunder-join ok'`

// Init runs kubeadm init on a host that Packages has prepared. It never touches a
// control plane that once came up.
func Init(job string, t Target, k *Kubernetes, f Facts, in InitInput) (wire.Map, error) {
	tok := in.Token
	if err := k.refuse(f); err != nil {
		return wire.Map{}, err
	}
	b := newInstallMap(job, t, k)
	b.token(tok)
	b.match("cluster name", k.Cluster, domainForm)
	b.match("service domain", k.Domain, domainForm)
	for _, cidr := range strings.Split(k.PodCIDR+","+k.ServiceCIDR, ",") {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			b.check(err)
		}
	}
	endpoint := k.Endpoint
	if endpoint.IsZero() {
		endpoint = capi.Endpoint{Host: t.Address, Port: 6443}
	}
	sans := slices.Compact(slices.Sorted(slices.Values([]string{endpoint.Host, t.Address, t.HostName})))
	cluster := map[string]any{
		"apiVersion": k.kubeadmAPI(), "kind": "ClusterConfiguration", "clusterName": k.Cluster, "kubernetesVersion": "v" + k.Version,
		"controlPlaneEndpoint": net.JoinHostPort(endpoint.Host, strconv.Itoa(endpoint.Port)),
		"networking":           map[string]any{"podSubnet": k.PodCIDR, "serviceSubnet": k.ServiceCIDR, "dnsDomain": k.Domain},
		"apiServer":            map[string]any{"certSANs": sans},
	}
	if k.Minor < 25 {
		cluster["imageRepository"] = "registry.k8s.io" // the default of that time is gone
	}
	b.bundle(file{kubeadmConfig, 0o600, b.documents(
		map[string]any{
			"apiVersion": k.kubeadmAPI(), "kind": "InitConfiguration",
			"bootstrapTokens":  []any{map[string]any{"token": tok.ID + "." + tok.Secret.Reveal(), "ttl": "30m0s", "description": "capplunder"}},
			"localAPIEndpoint": map[string]any{"advertiseAddress": t.Address, "bindPort": 6443},
			"nodeRegistration": nodeRegistration(t, k),
		},
		cluster,
		map[string]any{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "cgroupDriver": "systemd"},
	)})
	b.bash("kube.images", 30*time.Minute, "kubeadm config images pull --config $E/kubeadm.yaml")
	b.bash(taskInit, 30*time.Minute, initScript)
	return b.done("init")
}

func nodeRegistration(t Target, k *Kubernetes) map[string]any {
	n := map[string]any{"name": t.HostName}
	if !k.docker() {
		n["criSocket"] = containerdSocket
	}
	// Nothing else sets a provider ID on bare metal, and Cluster API finds the Node by it.
	args := []struct{ name, value string }{{"node-ip", t.Address}, {"provider-id", capi.ProviderID(t.Guard.MAC)}}
	if k.Minor >= 31 {
		list := []any{}
		for _, a := range args {
			list = append(list, map[string]any{"name": a.name, "value": a.value})
		}
		n["kubeletExtraArgs"] = list
		return n
	}
	m := map[string]any{}
	for _, a := range args {
		m[a.name] = a.value
	}
	n["kubeletExtraArgs"] = m
	return n
}

func (b *mapBuilder) token(t Token) {
	if !tokenIDForm.MatchString(t.ID) || !tokenForm16.MatchString(t.Secret.Reveal()) {
		b.check(errors.New("a bootstrap token is not of its form"))
	}
}

func (b *mapBuilder) documents(docs ...map[string]any) string {
	parts := make([]string, len(docs))
	for i, d := range docs {
		raw, err := yaml.Marshal(d)
		b.check(err)
		parts[i] = string(raw)
	}
	return strings.Join(parts, "---\n")
}

// ReadInit gives "sha256:<hex>" of the new cluster's CA key, which is public.
func ReadInit(l wire.Log, job string) (caHash string, err error) { return readCA(l, taskInit, job) }

// Join runs kubeadm join on a host that Packages has prepared.
func Join(job string, t Target, k *Kubernetes, f Facts, in JoinInput) (wire.Map, error) {
	tok, endpoint, caHash := in.Token, in.Endpoint, in.CAHash
	if err := k.refuse(f); err != nil {
		return wire.Map{}, err
	}
	b := newInstallMap(job, t, k)
	b.token(tok)
	b.match("CA hash", caHash, hashForm)
	b.bundle(file{joinConfig, 0o600, b.documents(map[string]any{
		"apiVersion": k.kubeadmAPI(), "kind": "JoinConfiguration",
		"discovery": map[string]any{"bootstrapToken": map[string]any{
			"token": tok.ID + "." + tok.Secret.Reveal(), "caCertHashes": []any{caHash},
			"apiServerEndpoint": net.JoinHostPort(endpoint.Host, strconv.Itoa(endpoint.Port)),
		}},
		"nodeRegistration": nodeRegistration(t, k),
	})})
	b.bash(taskJoin, 20*time.Minute, joinScript)
	return b.done("join")
}

// readCA reads the CA certificate that an action printed and gives the hash of its
// public key, as kubeadm wants it.
func readCA(l wire.Log, task, job string) (string, error) {
	e, _ := entry(l, TaskName(task, job))
	for line := range strings.Lines(e.Entry) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "capplunder-ca ")
		if !ok {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", fmt.Errorf("the cluster's CA certificate: %w", err)
		}
		block, _ := pem.Decode(raw)
		if block == nil {
			return "", errors.New("the cluster's CA certificate is not PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", fmt.Errorf("the cluster's CA certificate: %w", err)
		}
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		return "sha256:" + hex.EncodeToString(sum[:]), nil
	}
	return "", fmt.Errorf("action %s did not print the cluster's CA certificate", task)
}
