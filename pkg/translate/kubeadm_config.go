package translate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Kinds of configuration that kubeadm reads.
const (
	kindInit      = "InitConfiguration"
	kindCluster   = "ClusterConfiguration"
	kindJoin      = "JoinConfiguration"
	kindKubelet   = "KubeletConfiguration"
	kindKubeProxy = "KubeProxyConfiguration"

	kubeletAPI   = "kubelet.config.k8s.io/v1beta1"
	kubeProxyAPI = "kubeproxy.config.k8s.io/v1alpha1"

	// apiPort is where the API server of every control plane machine listens, whatever
	// the port of the endpoint.
	apiPort = 6443
	// patchDir has what kubeadm join merges over the cluster's kubelet configuration.
	patchDir = "/etc/kubernetes/capplunder/patches"
	// kubeletPatchMinor is the first minor that patches the kubelet's configuration so.
	kubeletPatchMinor = 25
	// listArgsAPI has extra arguments as a list; before, they were a map.
	listArgsAPI = "kubeadm.k8s.io/v1beta4"
)

// The forms of what kubeadm calls token, certificate key and CA hash.
var (
	tokenIDForm = regexp.MustCompile(`^[a-z0-9]{6}$`)
	tokenForm16 = regexp.MustCompile(`^[a-z0-9]{16}$`)
	certKeyForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	hashForm    = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// The structures are the part of kubeadm's configuration that is written; they are the
// same in v1beta1 to v1beta4 but for the fields that say otherwise.
type (
	typeMeta struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}

	nodeRegistration struct {
		Name      string `json:"name"`
		CRISocket string `json:"criSocket,omitempty"`
		// Taints is not nil and empty for a node that has none although it is a control plane.
		Taints *[]any `json:"taints,omitempty"`
		// KubeletExtraArgs is a list from v1beta4 on, a map before.
		KubeletExtraArgs any `json:"kubeletExtraArgs,omitempty"`
	}

	apiEndpoint struct {
		AdvertiseAddress string `json:"advertiseAddress"`
		BindPort         int    `json:"bindPort"`
	}

	bootstrapToken struct {
		Token       string `json:"token"`
		TTL         string `json:"ttl"`
		Description string `json:"description"`
	}

	initConfiguration struct {
		typeMeta
		BootstrapTokens  []bootstrapToken `json:"bootstrapTokens,omitempty"`
		LocalAPIEndpoint apiEndpoint      `json:"localAPIEndpoint"`
		NodeRegistration nodeRegistration `json:"nodeRegistration"`
		CertificateKey   string           `json:"certificateKey,omitempty"` // from v1beta2 on
	}

	networking struct {
		PodSubnet     string `json:"podSubnet"`
		ServiceSubnet string `json:"serviceSubnet"`
		DNSDomain     string `json:"dnsDomain"`
	}

	apiServer struct {
		CertSANs []string `json:"certSANs"`
	}

	clusterConfiguration struct {
		typeMeta
		ClusterName          string      `json:"clusterName,omitempty"`
		KubernetesVersion    string      `json:"kubernetesVersion"`
		ControlPlaneEndpoint string      `json:"controlPlaneEndpoint,omitempty"`
		Networking           *networking `json:"networking,omitempty"`
		APIServer            *apiServer  `json:"apiServer,omitempty"`
		ImageRepository      string      `json:"imageRepository,omitempty"`
	}

	kubeletConfiguration struct {
		typeMeta
		CgroupDriver string `json:"cgroupDriver"`
		FailCgroupV1 *bool  `json:"failCgroupV1,omitempty"`
	}

	bootstrapTokenDiscovery struct {
		Token             string   `json:"token"`
		APIServerEndpoint string   `json:"apiServerEndpoint"`
		CACertHashes      []string `json:"caCertHashes"`
	}

	discovery struct {
		BootstrapToken bootstrapTokenDiscovery `json:"bootstrapToken"`
	}

	joinControlPlane struct {
		LocalAPIEndpoint apiEndpoint `json:"localAPIEndpoint"`
		CertificateKey   string      `json:"certificateKey,omitempty"` // from v1beta2 on
	}

	patchDirectory struct {
		Directory string `json:"directory"`
	}

	joinConfiguration struct {
		typeMeta
		Discovery        discovery         `json:"discovery"`
		NodeRegistration nodeRegistration  `json:"nodeRegistration"`
		ControlPlane     *joinControlPlane `json:"controlPlane,omitempty"`
		Patches          *patchDirectory   `json:"patches,omitempty"` // from v1beta3 on
	}
)

// initDocuments are the configuration of kubeadm init.
func (b *mapBuilder) initDocuments(k *Kubernetes, in InitInput) string {
	t := b.target
	b.token(in.Token)
	b.match("cluster name", k.Cluster, domainForm)
	b.match("service domain", k.Domain, domainForm)
	for _, cidr := range strings.Split(k.PodCIDR+","+k.ServiceCIDR, ",") {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			b.check(err)
		}
	}
	endpoint := b.endpoint(k.Endpoint)
	cluster := clusterConfiguration{
		typeMeta: k.meta(kindCluster), ClusterName: k.Cluster, KubernetesVersion: "v" + k.Version,
		ControlPlaneEndpoint: hostPort(endpoint),
		Networking:           &networking{PodSubnet: k.PodCIDR, ServiceSubnet: k.ServiceCIDR, DNSDomain: k.Domain},
		APIServer:            &apiServer{CertSANs: b.certSANs(endpoint, k)},
		ImageRepository:      k.imageRepository(),
	}
	registration := b.nodeRegistration(k)
	if k.Single {
		registration.Taints = &[]any{}
	}
	docs := []any{
		initConfiguration{
			typeMeta:         k.meta(kindInit),
			BootstrapTokens:  []bootstrapToken{{Token: in.Token.text(), TTL: "30m0s", Description: "capplunder"}},
			LocalAPIEndpoint: apiEndpoint{AdvertiseAddress: t.Address, BindPort: apiPort},
			NodeRegistration: registration,
			CertificateKey:   b.certificateKey(k, in.CertKey),
		},
		cluster,
		k.kubelet(),
	}
	if slices.ContainsFunc(k.KubeadmPatches, func(p map[string]any) bool { return p["kind"] == kindKubeProxy }) {
		docs = append(docs, k.meta(kindKubeProxy))
	}
	return b.documents(k, docs...)
}

// joinDocuments are the configuration of kubeadm join, with the files that belong to it.
func (b *mapBuilder) joinDocuments(k *Kubernetes, in JoinInput) (text string, files []file) {
	b.token(in.Token)
	b.match("CA hash", in.CAHash, hashForm)
	if in.Endpoint.IsZero() {
		b.check(errors.New("the control plane endpoint is not known"))
	}
	c := joinConfiguration{
		typeMeta: k.meta(kindJoin),
		Discovery: discovery{bootstrapTokenDiscovery{
			Token: in.Token.text(), APIServerEndpoint: hostPort(b.endpoint(in.Endpoint)), CACertHashes: []string{in.CAHash},
		}},
		NodeRegistration: b.nodeRegistration(k),
	}
	if k.ControlPlane {
		c.ControlPlane = &joinControlPlane{
			LocalAPIEndpoint: apiEndpoint{AdvertiseAddress: b.target.Address, BindPort: apiPort},
			CertificateKey:   b.certificateKey(k, in.CertKey),
		}
	}
	// The kubelet's configuration comes from the cluster. What was said of this machine is
	// merged over it, where kubeadm can do that.
	if patch := b.kubeletPatch(k); patch != "" {
		c.Patches = &patchDirectory{patchDir}
		files = append(files, file{patchDir + "/kubeletconfiguration0+merge.json", 0o600, patch})
	}
	return b.documents(k, c), files
}

// uploadDocuments are what kubeadm init phase upload-certs reads. Without a version
// kubeadm would ask the Internet for one.
func (b *mapBuilder) uploadDocuments(k *Kubernetes, key Secret) string {
	return b.documents(&Kubernetes{Version: k.Version, Minor: k.Minor},
		initConfiguration{
			typeMeta:         k.meta(kindInit),
			LocalAPIEndpoint: apiEndpoint{AdvertiseAddress: b.target.Address, BindPort: apiPort},
			NodeRegistration: nodeRegistration{Name: b.target.HostName, CRISocket: k.criSocket()},
			CertificateKey:   b.certificateKey(k, key),
		},
		clusterConfiguration{typeMeta: k.meta(kindCluster), KubernetesVersion: "v" + k.Version},
	)
}

// meta is version and kind of a document.
func (k *Kubernetes) meta(kind string) typeMeta {
	switch kind {
	case kindKubelet:
		return typeMeta{kubeletAPI, kind}
	case kindKubeProxy:
		return typeMeta{kubeProxyAPI, kind}
	}
	return typeMeta{k.kubeadmAPI(), kind}
}

// imageRepository is where the control plane's images come from, "" for kubeadm's own
// default. That of its older versions is gone.
func (k *Kubernetes) imageRepository() string {
	if k.ImageRepository == "" && k.Minor < 25 {
		return "registry.k8s.io"
	}
	return k.ImageRepository
}

// kubelet is the kubelet's configuration for the whole cluster.
func (k *Kubernetes) kubelet() kubeletConfiguration {
	c := kubeletConfiguration{typeMeta: k.meta(kindKubelet), CgroupDriver: "systemd"}
	if k.allowsCgroupV1() {
		c.FailCgroupV1 = new(bool)
	}
	return c
}

// allowsCgroupV1 reports whether kubelet must be told to accept cgroup v1.
func (k *Kubernetes) allowsCgroupV1() bool { return k.Minor >= cgroup1End && isTrue(k.AllowCgroupV1) }

// listArgs reports whether extra arguments are a list of name and value.
func (k *Kubernetes) listArgs() bool { return k.kubeadmAPI() == listArgsAPI }

// nodeRegistration is how the host becomes a node. Nothing else sets a provider ID on
// bare metal, and Cluster API finds the Node by it.
func (b *mapBuilder) nodeRegistration(k *Kubernetes) nodeRegistration {
	return nodeRegistration{
		Name: b.target.HostName, CRISocket: k.criSocket(),
		KubeletExtraArgs: k.extraArgs(b.kubeletArgs()),
	}
}

// argument is an extra argument of a program.
type argument struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (b *mapBuilder) kubeletArgs() []argument {
	return []argument{{argNodeIP, b.target.Address}, {argProviderID, capi.ProviderID(b.target.Guard.MAC)}}
}

// extraArgs are extra arguments in the form of the version.
func (k *Kubernetes) extraArgs(args []argument) any {
	if k.listArgs() {
		return args
	}
	m := map[string]string{}
	for _, a := range args {
		m[a.Name] = a.Value
	}
	return m
}

// certSANs are the names and addresses in the API server's certificate, no two alike.
func (b *mapBuilder) certSANs(endpoint capi.Endpoint, k *Kubernetes) []string {
	return slices.Compact(slices.Sorted(slices.Values(append([]string{endpoint.Host, b.target.Address, b.target.HostName}, k.CertSANs...))))
}

// endpoint is the given endpoint or, if there is none, the host itself.
func (b *mapBuilder) endpoint(e capi.Endpoint) capi.Endpoint {
	if e.IsZero() {
		return capi.Endpoint{Host: b.target.Address, Port: apiPort}
	}
	if _, err := netip.ParseAddr(e.Host); err != nil {
		b.match("host of the control plane endpoint", e.Host, domainForm)
	}
	if e.Port < 1 || e.Port > 65535 {
		b.check(fmt.Errorf("port %d of the control plane endpoint is none", e.Port))
	}
	return e
}

func hostPort(e capi.Endpoint) string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// certificateKey is the key as a configuration has it: v1beta1 has no field for it.
func (b *mapBuilder) certificateKey(k *Kubernetes, key Secret) string {
	if key != "" && !certKeyForm.MatchString(key.Reveal()) {
		b.check(errors.New("a certificate key is not of its form"))
	}
	if k.keyByFlag() {
		return ""
	}
	return key.Reveal()
}

// keyByFlag reports whether kubeadm takes the certificate key as an argument only.
func (k *Kubernetes) keyByFlag() bool { return k.kubeadmAPI() == "kubeadm.k8s.io/v1beta1" }

// token checks a bootstrap token; the error does not show it.
func (b *mapBuilder) token(t Token) {
	if !tokenIDForm.MatchString(t.ID) || !tokenForm16.MatchString(t.Secret.Reveal()) {
		b.check(errors.New("a bootstrap token is not of its form"))
	}
}

// text is the token as kubeadm reads it.
func (t Token) text() string { return t.ID + "." + t.Secret.Reveal() }
