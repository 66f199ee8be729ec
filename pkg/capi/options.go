package capi

import (
	"cmp"
)

// InstallOptions say how Kubernetes is installed on a machine. A PlunderMachine and
// its PlunderCluster have the same fields; what the machine does not give is taken
// from the cluster, then from the run's defaults (flags, environment, configuration
// file), field by field, and a field that nobody gives has the default that is named
// here.
type InstallOptions struct {
	// Method is MethodPackages (default) or MethodBinaries.
	Method string `json:"method,omitempty"`
	// SkipInstall: the image has container runtime, kubelet and kubeadm; nothing is installed.
	SkipInstall *bool `json:"skipInstall,omitempty"`
	// Repo overrides where Kubernetes packages come from.
	Repo *PackageRepo `json:"repo,omitempty"`
	// Binaries overrides where binaries come from, with MethodBinaries.
	Binaries *BinarySource `json:"binaries,omitempty"`
	// Runtime is RuntimeContainerd (default from 1.24 on) or RuntimeDocker (default below, and only there).
	Runtime string `json:"runtime,omitempty"`
	// RuntimeSource is SourceDocker (default: Docker's own package repository) or
	// SourceDistribution: the distribution's package.
	RuntimeSource string `json:"runtimeSource,omitempty"`
	// RuntimeMirror replaces https://download.docker.com; an http or https URL.
	RuntimeMirror string `json:"runtimeMirror,omitempty"`
	// DockerVersion is the docker-ce version for Kubernetes below 1.24: X.Y.Z or a whole package version.
	DockerVersion string `json:"dockerVersion,omitempty"`
	// DockerCodename is the release whose docker-ce packages are taken ("bionic"); default: the host's own.
	DockerCodename string `json:"dockerCodename,omitempty"`
	// ContainerdVersion is the containerd.io version: X.Y, X.Y.Z or a whole package version.
	ContainerdVersion string `json:"containerdVersion,omitempty"`
	// ImageRepository is where the images of the control plane come from; default registry.k8s.io.
	ImageRepository string `json:"imageRepository,omitempty"`
	// Proxy is for package managers, downloads and the container runtime.
	Proxy *Proxy `json:"proxy,omitempty"`
	// AllowCgroupV1 permits Kubernetes 1.35 and newer on a host with cgroup v1.
	AllowCgroupV1 *bool `json:"allowCgroupV1,omitempty"`
	// Firewall is FirewallDisable (default: ufw and firewalld are switched off) or FirewallLeave.
	Firewall string `json:"firewall,omitempty"`
	// Hooks are scripts of the user.
	Hooks *Hooks `json:"hooks,omitempty"`
	// KubeadmPatches are merged (RFC 7386) over the generated kubeadm, kubelet and
	// kube-proxy configuration of the same kind, in order; each is an object with a
	// kind. Those of the PlunderMachine come after those of its PlunderCluster.
	KubeadmPatches []map[string]any `json:"kubeadmPatches,omitempty"`
	// IgnoreUnknownKeys: keys of bootstrap data that capplunder does not know are left
	// out instead of refused.
	IgnoreUnknownKeys *bool `json:"ignoreUnknownKeys,omitempty"`
}

// ClusterOptions are what all machines of a cluster must have the same. They are
// fields of the PlunderCluster; what it does not give is taken from the run's defaults.
type ClusterOptions struct {
	// CertSANs are further names and addresses for the API server's certificate.
	CertSANs []string `json:"certSANs,omitempty"`
	// CNI is the network add-on that is applied after kubeadm init; default none.
	CNI *CNI `json:"cni,omitempty"`
	// PKI is PKIKubeadm (default: the first control plane machine makes the cluster's
	// keys, and hands them on through the kubeadm-certs Secret) or PKITool: capplunder
	// makes them and keeps them in the store.
	PKI string `json:"pki,omitempty"`
	// KubeconfigTransport is KubeconfigSealed (default: encrypted on the machine for this
	// run alone) or KubeconfigPlain, for hosts without openssl.
	KubeconfigTransport string `json:"kubeconfigTransport,omitempty"`
	// VIP makes the control plane machines hold the address of the control plane
	// endpoint among themselves (kube-vip).
	VIP *VIP `json:"vip,omitempty"`
}

// Values of the options.
const (
	MethodPackages     = "packages"
	MethodBinaries     = "binaries"
	RuntimeContainerd  = "containerd"
	RuntimeDocker      = "docker"
	SourceDocker       = "docker"
	SourceDistribution = "distribution"
	FirewallDisable    = "disable"
	FirewallLeave      = "leave"
	PKIKubeadm         = "kubeadm"
	PKITool            = "tool"
	KubeconfigSealed   = "sealed"
	KubeconfigPlain    = "plain"
)

// PackageRepo is a package repository with the Kubernetes packages.
type PackageRepo struct {
	// Base replaces https://pkgs.k8s.io/core:/stable: for a mirror with the same layout,
	// BASE/v1.34/deb/ and BASE/v1.34/rpm/.
	Base string `json:"base,omitempty"`
	// Apt is a whole sources.list line.
	Apt string `json:"apt,omitempty"`
	// RPM is the base URL of a repository for dnf or yum.
	RPM string `json:"rpm,omitempty"`
	// Key is the URL of the repository's signing key; needed with Apt or RPM.
	Key string `json:"key,omitempty"`
}

// BinarySource is where kubeadm, kubelet and kubectl come from with MethodBinaries.
type BinarySource struct {
	// URL replaces https://dl.k8s.io; the layout is URL/v1.34.1/bin/linux/amd64/kubeadm.
	URL string `json:"url,omitempty"`
	// CNIPluginsURL is a tar.gz of the CNI plugins for the machine's architecture; without
	// it they must be in /opt/cni/bin already.
	CNIPluginsURL string `json:"cniPluginsURL,omitempty"`
	// SHA256 are the digests, in hex, of "kubeadm", "kubelet", "kubectl" and "cni-plugins".
	SHA256 map[string]string `json:"sha256,omitempty"`
}

// Proxy are the proxies of a machine. The URLs may hold a password: they are secrets.
type Proxy struct {
	HTTP  string `json:"http,omitempty"`
	HTTPS string `json:"https,omitempty"`
	// NoProxy are hosts, domains and CIDRs that are reached directly, beside the cluster's own.
	NoProxy []string `json:"noProxy,omitempty"`
}

// Hooks are POSIX shell scripts that run as root on the machine, once each.
type Hooks struct {
	// Before runs ahead of everything that is installed.
	Before string `json:"before,omitempty"`
	// After runs when the machine has become a node.
	After string `json:"after,omitempty"`
}

// CNI is a manifest of a network add-on. At most one of URL and Manifest is given;
// None says that somebody else installs one.
type CNI struct {
	URL string `json:"url,omitempty"`
	// SHA256 is the digest of what is at URL, in hex.
	SHA256   string `json:"sha256,omitempty"`
	Manifest string `json:"manifest,omitempty"`
	None     bool   `json:"none,omitempty"`
}

// Given reports whether a manifest is to be applied.
func (c *CNI) Given() bool { return c != nil && !c.None && (c.URL != "" || c.Manifest != "") }

// VIP is a kube-vip static pod that holds the control plane endpoint's address.
type VIP struct {
	// Image with its tag; default: the one that this version of capplunder was made with.
	Image string `json:"image,omitempty"`
	// Interface is the network card that gets the address; default: the one with the default route.
	Interface string `json:"interface,omitempty"`
}

// Defaults are what a run uses where the objects say nothing.
type Defaults struct {
	InstallOptions
	ClusterOptions
}

// InstallOptionsFor are the options of a machine, with those of its cluster and of the
// run where it has none. Defaults that are named at the fields are not filled in.
func (m *Machine) InstallOptionsFor(d Defaults) InstallOptions {
	o := d.InstallOptions
	if m.Cluster != nil && m.Cluster.Infra != nil {
		o = m.Cluster.Infra.Spec.over(o)
	}
	if m.Infra != nil {
		o = m.Infra.Spec.over(o)
	}
	return o
}

// ClusterOptionsFor are the options of a cluster, with those of the run where it has none.
func (c *Cluster) ClusterOptionsFor(d Defaults) ClusterOptions {
	if c.Infra == nil {
		return d.ClusterOptions
	}
	o := c.Infra.Spec.ClusterOptions
	o.CNI = cmp.Or(o.CNI, d.CNI)
	o.PKI = cmp.Or(o.PKI, d.PKI)
	o.KubeconfigTransport = cmp.Or(o.KubeconfigTransport, d.KubeconfigTransport)
	o.VIP = cmp.Or(o.VIP, d.VIP)
	if len(o.CertSANs) == 0 {
		o.CertSANs = d.CertSANs
	}
	return o
}

// over is o with base where o has nothing.
func (o InstallOptions) over(base InstallOptions) InstallOptions {
	o.Method = cmp.Or(o.Method, base.Method)
	o.SkipInstall = cmp.Or(o.SkipInstall, base.SkipInstall)
	o.Repo = cmp.Or(o.Repo, base.Repo)
	o.Binaries = cmp.Or(o.Binaries, base.Binaries)
	o.Runtime = cmp.Or(o.Runtime, base.Runtime)
	o.RuntimeSource = cmp.Or(o.RuntimeSource, base.RuntimeSource)
	o.RuntimeMirror = cmp.Or(o.RuntimeMirror, base.RuntimeMirror)
	o.DockerVersion = cmp.Or(o.DockerVersion, base.DockerVersion)
	o.DockerCodename = cmp.Or(o.DockerCodename, base.DockerCodename)
	o.ContainerdVersion = cmp.Or(o.ContainerdVersion, base.ContainerdVersion)
	o.ImageRepository = cmp.Or(o.ImageRepository, base.ImageRepository)
	o.Proxy = cmp.Or(o.Proxy, base.Proxy)
	o.AllowCgroupV1 = cmp.Or(o.AllowCgroupV1, base.AllowCgroupV1)
	o.Firewall = cmp.Or(o.Firewall, base.Firewall)
	o.Hooks = cmp.Or(o.Hooks, base.Hooks)
	o.IgnoreUnknownKeys = cmp.Or(o.IgnoreUnknownKeys, base.IgnoreUnknownKeys)
	patches := make([]map[string]any, 0, len(base.KubeadmPatches)+len(o.KubeadmPatches))
	o.KubeadmPatches = append(append(patches, base.KubeadmPatches...), o.KubeadmPatches...)
	if len(o.KubeadmPatches) == 0 {
		o.KubeadmPatches = nil
	}
	return o
}
