package v1alpha1

// InstallOptions say how Kubernetes is installed on a machine. What a PlunderMachine does
// not give is taken from its PlunderCluster, then from the flags and the configuration
// of the run. An object is taken as a whole, an empty one as well: proxy: {} is no proxy.
//
// +kubebuilder:validation:XValidation:rule="!has(self.runtimeMirror) || self.runtimeMirror.size() == 0 || !has(self.runtimeSource) || self.runtimeSource != 'distribution'",message="runtimeMirror does not go with runtimeSource: distribution, which takes nothing from Docker's repository"
type InstallOptions struct {
	// method is how Kubernetes comes to the machine: packages, the default, or binaries.
	//
	// +optional
	// +kubebuilder:validation:Enum="";packages;binaries
	Method string `json:"method,omitempty"`

	// skipInstall says that container runtime, kubelet and kubeadm are part of the image:
	// nothing is installed.
	//
	// +optional
	SkipInstall *bool `json:"skipInstall,omitempty"`

	// repo overrides where the Kubernetes packages come from.
	//
	// +optional
	Repo *PackageRepo `json:"repo,omitempty"`

	// binaries overrides where binaries come from, with method: binaries.
	//
	// +optional
	Binaries *BinarySource `json:"binaries,omitempty"`

	// runtime is the container runtime: containerd, the default from Kubernetes 1.24 on,
	// or docker, the default below, and possible only there.
	//
	// +optional
	// +kubebuilder:validation:Enum="";containerd;docker
	Runtime string `json:"runtime,omitempty"`

	// runtimeSource is where the container runtime comes from: docker, the default, is
	// Docker's package repository, distribution is the package of the distribution.
	//
	// +optional
	// +kubebuilder:validation:Enum="";docker;distribution
	RuntimeSource string `json:"runtimeSource,omitempty"`

	// runtimeMirror replaces https://download.docker.com.
	//
	// +optional
	RuntimeMirror URL `json:"runtimeMirror,omitempty"`

	// dockerVersion is the version of docker-ce to install with a Kubernetes below v1.24:
	// X.Y.Z or a whole package version.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^$|^[A-Za-z0-9][A-Za-z0-9.+:~_-]*$`
	DockerVersion string `json:"dockerVersion,omitempty"`

	// dockerCodename is the release of the distribution whose docker-ce packages are taken,
	// e.g. bionic. It is the machine's own if nothing is given.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^$|^[a-z][a-z0-9-]*$`
	DockerCodename string `json:"dockerCodename,omitempty"`

	// containerdVersion is the version of containerd.io: X.Y, X.Y.Z or a whole package
	// version. It is the newest if nothing is given.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^$|^[0-9][A-Za-z0-9.+:~_-]*$`
	ContainerdVersion string `json:"containerdVersion,omitempty"`

	// imageRepository is where the images of Kubernetes come from, without https:// and
	// without a tag. It is registry.k8s.io if nothing is given.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^$|^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`
	ImageRepository string `json:"imageRepository,omitempty"`

	// proxy is used by package managers, downloads and the container runtime.
	//
	// +optional
	Proxy *Proxy `json:"proxy,omitempty"`

	// allowCgroupV1 permits Kubernetes 1.35 and newer on a machine with cgroup v1.
	//
	// +optional
	AllowCgroupV1 *bool `json:"allowCgroupV1,omitempty"`

	// firewall says what becomes of ufw and firewalld: disable, the default, or leave.
	//
	// +optional
	// +kubebuilder:validation:Enum="";disable;leave
	Firewall string `json:"firewall,omitempty"`

	// hooks are scripts of your own.
	//
	// +optional
	Hooks *Hooks `json:"hooks,omitempty"`

	// kubeadmPatches are merged over the configurations that are generated for kubeadm, in
	// order, those of the PlunderMachine after those of its PlunderCluster.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	KubeadmPatches []KubeadmPatch `json:"kubeadmPatches,omitempty"`

	// ignoreUnknownKeys leaves out what is not known in bootstrap data, instead of
	// refusing the data.
	//
	// +optional
	IgnoreUnknownKeys *bool `json:"ignoreUnknownKeys,omitempty"`
}

// PackageRepo is a repository that has the Kubernetes packages.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.apt) && self.apt.size() > 0 || has(self.rpm) && self.rpm.size() > 0) || has(self.key) && self.key.size() > 0",message="a repository needs the key that signs it"
// +kubebuilder:validation:XValidation:rule="!(has(self.apt) && self.apt.size() > 0 || has(self.rpm) && self.rpm.size() > 0) || !has(self.base) || self.base.size() == 0",message="base does not go with apt or rpm: they say where the packages are"
type PackageRepo struct {
	// base replaces https://pkgs.k8s.io/core:/stable: by a mirror with the same layout,
	// BASE/v1.34/deb/ and BASE/v1.34/rpm/.
	//
	// +optional
	Base URL `json:"base,omitempty"`

	// apt is a whole line of a sources.list, from "deb" on, for Debian and its relatives.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^$|^deb (\[[A-Za-z0-9 ._~/=,:+-]+\] )?https?://[A-Za-z0-9][A-Za-z0-9._~/:%+-]*( [A-Za-z0-9._~/+-]+)+$`
	Apt string `json:"apt,omitempty"`

	// rpm is the base URL of a repository for dnf or yum.
	//
	// +optional
	RPM URL `json:"rpm,omitempty"`

	// key is the URL of the key that signs the repository.
	//
	// +optional
	Key URL `json:"key,omitempty"`
}

// BinarySource is where kubeadm, kubelet and kubectl come from.
//
// +kubebuilder:validation:XValidation:rule="!has(self.sha256) || !('cni-plugins' in self.sha256) || self.sha256['cni-plugins'].size() == 0 || has(self.cniPluginsURL) && self.cniPluginsURL.size() > 0",message="the digest of cni-plugins is that of what is at cniPluginsURL"
type BinarySource struct {
	// url replaces https://dl.k8s.io: binaries are at URL/v1.34.1/bin/linux/amd64/kubeadm.
	//
	// +optional
	URL URL `json:"url,omitempty"`

	// cniPluginsURL is a tar.gz of the CNI plugins, for the architecture of the machine.
	// Without it they must be in /opt/cni/bin.
	//
	// +optional
	CNIPluginsURL URL `json:"cniPluginsURL,omitempty"`

	// sha256 are the digests, in hexadecimal, of kubeadm, kubelet, kubectl and cni-plugins.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=4
	// +kubebuilder:validation:XValidation:rule="self.all(k, k in ['kubeadm', 'kubelet', 'kubectl', 'cni-plugins'])",message="the binaries are kubeadm, kubelet, kubectl and cni-plugins"
	SHA256 map[string]SHA256 `json:"sha256,omitempty"`
}

// Proxy is how a machine reaches what it cannot reach directly. What is in this object is
// no secret: a proxy with a password is given to capplunder by CAPPLUNDER_HTTP_PROXY and
// CAPPLUNDER_HTTPS_PROXY.
type Proxy struct {
	// http is the URL of the proxy for http.
	//
	// +optional
	HTTP ProxyURL `json:"http,omitempty"`

	// https is the URL of the proxy for https.
	//
	// +optional
	HTTPS ProxyURL `json:"https,omitempty"`

	// noProxy are hosts, domains (with a dot in front), addresses and address ranges that
	// are reached directly, beside those of the cluster.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	NoProxy []NoProxy `json:"noProxy,omitempty"`
}

// Hooks are POSIX shell scripts that run as root, once each.
type Hooks struct {
	// before runs ahead of everything that is installed.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	Before string `json:"before,omitempty"`

	// after runs when the machine has become a node.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	After string `json:"after,omitempty"`
}

// KubeadmPatch is a part of a configuration of kubeadm, kubelet or kube-proxy.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="!has(self.apiVersion) || self.apiVersion.startsWith(self.kind == 'KubeletConfiguration' ? 'kubelet.config.k8s.io/' : self.kind == 'KubeProxyConfiguration' ? 'kubeproxy.config.k8s.io/' : 'kubeadm.k8s.io/')",message="this is not the API group of the kind"
type KubeadmPatch struct {
	// apiVersion may be left out: the version is chosen to fit that of Kubernetes.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	APIVersion string `json:"apiVersion,omitempty"`

	// kind of configuration.
	//
	// +required
	// +kubebuilder:validation:Enum=InitConfiguration;ClusterConfiguration;JoinConfiguration;KubeletConfiguration;KubeProxyConfiguration
	Kind string `json:"kind"`
}

// ClusterOptions are what all machines of a cluster have the same.
type ClusterOptions struct {
	// certSANs are further names and addresses for the certificate of the API server.
	//
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	CertSANs []CertSAN `json:"certSANs,omitempty"`

	// cni is the network add-on that is applied to the new cluster. Without one the nodes
	// stay NotReady until somebody installs one.
	//
	// +optional
	CNI *CNI `json:"cni,omitempty"`

	// pki says who makes the keys of the control plane: kubeadm, the default, on the first
	// control plane machine, or tool: capplunder makes them and keeps them.
	//
	// +optional
	// +kubebuilder:validation:Enum="";kubeadm;tool
	PKI string `json:"pki,omitempty"`

	// kubeconfigTransport is how the administrator's kubeconfig is fetched: sealed, the
	// default, is encrypted on the machine for this run alone; plain is for machines
	// without openssl.
	//
	// +optional
	// +kubebuilder:validation:Enum="";sealed;plain
	KubeconfigTransport string `json:"kubeconfigTransport,omitempty"`

	// vip makes the control plane machines hold the address of the control plane endpoint
	// among themselves, with kube-vip.
	//
	// +optional
	VIP *VIP `json:"vip,omitempty"`
}

// CNI is a manifest of a network add-on.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.url) && self.url.size() > 0 && has(self.manifest) && self.manifest.size() > 0)",message="url does not go with manifest: one of them says what to apply"
// +kubebuilder:validation:XValidation:rule="!(has(self.none) && self.none) || !(has(self.url) && self.url.size() > 0 || has(self.manifest) && self.manifest.size() > 0)",message="none does not go with a url or a manifest"
// +kubebuilder:validation:XValidation:rule="!has(self.sha256) || self.sha256.size() == 0 || has(self.url) && self.url.size() > 0",message="sha256 is the digest of what is at the url, which is not given"
type CNI struct {
	// url of the manifest; the first control plane machine fetches it.
	//
	// +optional
	URL URL `json:"url,omitempty"`

	// sha256 is the digest of what is at the url, in hexadecimal.
	//
	// +optional
	SHA256 SHA256 `json:"sha256,omitempty"`

	// manifest itself.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1048576
	Manifest string `json:"manifest,omitempty"`

	// none says that somebody else installs a network add-on.
	//
	// +optional
	None bool `json:"none,omitempty"`
}

// VIP is a kube-vip static pod on every control plane machine.
type VIP struct {
	// image with its tag; without one it is the version that capplunder was made with.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^$|^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})$`
	Image string `json:"image,omitempty"`

	// interface is the network card that gets the address, that of the default route if
	// nothing is given.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:Pattern=`^$|^[A-Za-z0-9][A-Za-z0-9._-]*$`
	Interface string `json:"interface,omitempty"`
}

// URL is an http or https URL without a user, or empty for none.
//
// +kubebuilder:validation:MaxLength=2048
// +kubebuilder:validation:Pattern=`^$|^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/:@%+?=-]*)?$`
type URL string

// ProxyURL is the http or https URL of a proxy, without a password, or empty for none.
//
// +kubebuilder:validation:MaxLength=2048
// +kubebuilder:validation:Pattern=`^$|^https?://([A-Za-z0-9._~%-]+@)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?/?$`
type ProxyURL string

// SHA256 is a digest in hexadecimal, or empty for none.
//
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:Pattern=`^$|^[0-9a-f]{64}$`
type SHA256 string

// NoProxy is a host, a domain with a dot in front, an address or an address range, or
// empty for none.
//
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^$|^[.]?[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$|^([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])([.]([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])){3}/([12]?[0-9]|3[0-2])$|^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(/[0-9]{1,3})?$`
// +kubebuilder:validation:XValidation:rule="!self.matches('^[0-9.]+$') || self.matches('^([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])([.]([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])){3}$')",message="this is no host, domain, address or address range"
type NoProxy string

// CertSAN is an address, a DNS name, or a DNS name whose first part is "*"; empty for none.
//
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^$|^([*][.])?[a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*$|^[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*$`
// +kubebuilder:validation:XValidation:rule="!self.matches('^[0-9.]+$') || self.matches('^([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])([.]([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])){3}$')",message="this is neither an address nor a DNS name"
type CertSAN string
