// Package capi holds the fields that capplunder reads of Cluster API objects and
// of its own PlunderCluster and PlunderMachine, decodes them from YAML, gives
// them their defaults, links them together and validates them. It is pure: no
// files, no network, no clock.
package capi

import (
	"fmt"
	"slices"
	"strings"
)

// API groups and the one version of ours.
const (
	GroupCluster        = "cluster.x-k8s.io"
	GroupInfrastructure = "infrastructure.cluster.x-k8s.io"
	VersionPlunder      = "v1alpha1"

	// LabelCluster names the cluster of a Machine (the only link in v1alpha2).
	LabelCluster = "cluster.x-k8s.io/cluster-name"
	// AnnotationProtected on a Machine or its PlunderMachine, with the value "true" (with
	// any but "false", for whoever mistypes it means it), keeps capplunder from deleting it.
	AnnotationProtected = "capplunder.plunder-app.io/protected"
	// LabelControlPlane marks a control plane Machine: non-empty in v1alpha2,
	// presence is enough from v1alpha3 on (CAPI contract, section 2 of our notes).
	LabelControlPlane = "cluster.x-k8s.io/control-plane"
	// AnnotationPaused stops everything for an object, whatever its value.
	AnnotationPaused = "cluster.x-k8s.io/paused"
	// AnnotationManagedBy on a PlunderCluster: another system owns it.
	AnnotationManagedBy = "cluster.x-k8s.io/managed-by"
	// LabelStandalone ("true") is on the CRDs of Cluster and Machine that capplunder
	// brings for clusters without Cluster API.
	LabelStandalone = "capplunder.plunder-app.io/standalone"

	// DefaultNamespace is used where an object names none.
	DefaultNamespace = "default"
	// DefaultDeploymentType is the boot configuration of a PlunderMachine that names none.
	DefaultDeploymentType = "preseed"
	// DefaultEndpointPort is the port of a control plane endpoint that names none.
	DefaultEndpointPort = 6443
	// DefaultPodCIDR is where pods live if the Cluster does not say (flannel's default).
	DefaultPodCIDR = "10.244.0.0/16"
	// DefaultServiceCIDR is where services live if the Cluster does not say (kubeadm's default).
	DefaultServiceCIDR = "10.96.0.0/12"
	// ProviderIDPrefix precedes the MAC (colon form, lower case) in a provider ID.
	ProviderIDPrefix = "plunder://"
)

// ProviderID is the provider ID of the machine with this MAC.
func ProviderID(mac string) string { return ProviderIDPrefix + mac }

// Key names an object within its kind.
type Key struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String is "namespace/name".
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// ParseKey reads "namespace/name", or "name" in the given namespace.
func ParseKey(s, namespace string) Key {
	if ns, name, ok := strings.Cut(s, "/"); ok {
		return Key{Namespace: ns, Name: name}
	}
	return Key{Namespace: namespace, Name: s}
}

// Origin says where an object was read: a file name (or URL, or "-"), the
// document in it (from 1) and the first line of that document (from 1).
type Origin struct {
	File     string
	Document int
	Line     int
}

// String is "file:line", or just the file when the line is not known.
func (o Origin) String() string {
	switch {
	case o.File == "":
		return "(cluster)"
	case o.Line == 0:
		return o.File
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// Document is one YAML or JSON document, undecoded.
type Document struct {
	Origin Origin
	Raw    []byte
}

// Set is everything given to a run, linked.
type Set struct {
	Clusters []*Cluster // sorted by key
	Machines []*Machine // sorted by key
	// Only, if not empty, names the Machines that a run is about, those that are being
	// deleted included: nothing is done about others of the same clusters.
	Only []Key
	// Unfit are Machines in the cluster that were left out because something is wrong
	// with them; sorted by key.
	Unfit []Unfit
	// Warnings are for people: what was left out and why, what is allowed but odd.
	// Each starts with file and line.
	Warnings []string
}

// Endpoint is a control plane endpoint. Host is an IPv4 address or DNS name.
type Endpoint struct {
	Host string `json:"host,omitempty"`
	Port int    `json:"port,omitempty"`
}

// About reports whether a run is about a Machine: see Only.
func (s *Set) About(machine Key) bool { return len(s.Only) == 0 || slices.Contains(s.Only, machine) }

// Left is an *UnfitError if Machines were left out, else nil.
func (s *Set) Left() error {
	if len(s.Unfit) == 0 {
		return nil
	}
	return &UnfitError{Machines: s.Unfit}
}

// IsZero reports whether no endpoint was given.
func (e Endpoint) IsZero() bool { return e.Host == "" }

// Cluster is a CAPI Cluster with its PlunderCluster.
type Cluster struct {
	Key
	APIVersion    string // group/version as given
	Labels        map[string]string
	Annotations   map[string]string
	PodCIDRs      []string
	ServiceCIDRs  []string
	ServiceDomain string
	// Endpoint is spec.controlPlaneEndpoint of the Cluster, else of its
	// PlunderCluster; a host without a port gets DefaultEndpointPort.
	Endpoint Endpoint
	Paused   bool // spec.paused or the annotation
	Deleting bool // in the store its deletion has begun
	Infra    *PlunderCluster
	Machines []*Machine // of this cluster, sorted by key
	Origin   Origin
	Object   map[string]any // the untouched original
}

// PlunderCluster is infrastructure.cluster.x-k8s.io/v1alpha1.
type PlunderCluster struct {
	Key
	Annotations map[string]string
	Spec        PlunderClusterSpec
	Origin      Origin
	Object      map[string]any
}

// PlunderClusterSpec is strict: an unknown field is an error.
type PlunderClusterSpec struct {
	// StaticMAC is the MAC of the (single) control plane machine, for machines
	// that name none themselves (2019 field).
	StaticMAC string `json:"staticMAC,omitempty"`
	// StaticIP is the IPv4 address of the (single) control plane machine, likewise (2019 field).
	StaticIP string `json:"staticIP,omitempty"`
	// ControlPlaneMacPool: control plane machines without a MAC of their own are taken from these.
	ControlPlaneMacPool []string `json:"controlPlaneMacPool,omitempty"`
	// ControlPlaneEndpoint is where the API server is reached.
	ControlPlaneEndpoint Endpoint `json:"controlPlaneEndpoint,omitempty"`
	InstallOptions
	ClusterOptions
}

// Machine is a CAPI Machine with its PlunderMachine.
type Machine struct {
	Key
	APIVersion   string
	Labels       map[string]string
	Annotations  map[string]string
	ClusterName  string   // as given
	Cluster      *Cluster // never nil after Link
	ControlPlane bool
	// Version is "vX.Y.Z", or empty when none was given (then only an OS is installed).
	Version string
	// BootstrapData is spec.bootstrap.data (v1alpha2); "" is no data.
	BootstrapData string
	// DataSecretName is spec.bootstrap.dataSecretName (v1alpha3 on); nil when absent, ""
	// when the user takes care of it (CAPI contract, section 9).
	DataSecretName *string
	// BootstrapConfig: spec.bootstrap.configRef is given, so a bootstrap provider is to
	// make the data.
	BootstrapConfig bool
	// GivenBootstrap is data that came with the input beside the Machine (a Secret of
	// the name, or a file on the command line); nil for none.
	GivenBootstrap *BootstrapData
	ProviderID     string // spec.providerID, its MAC in colon form, lower case
	Paused         bool   // its own annotation, its PlunderMachine's, or its cluster's pause
	// Deleting: in the store its deletion has begun (a deletion timestamp on it or on its
	// PlunderMachine). It is not to be installed any more.
	Deleting bool
	Infra    *PlunderMachine
	Origin   Origin
	Object   map[string]any
}

// Role names of a machine.
const (
	RoleControlPlane = "control-plane"
	RoleWorker       = "worker"
)

// Role is the machine's role in its cluster.
func (m *Machine) Role() string {
	if m.ControlPlane {
		return RoleControlPlane
	}
	return RoleWorker
}

// PlunderMachine is infrastructure.cluster.x-k8s.io/v1alpha1.
type PlunderMachine struct {
	Key
	Labels      map[string]string
	Annotations map[string]string
	Spec        PlunderMachineSpec
	Origin      Origin
	Object      map[string]any
}

// PlunderMachineSpec is strict: an unknown field is an error. After decoding,
// MACs are lower case with colons, DeploymentType has its default, and a control
// plane machine without an address of its own has its PlunderCluster's StaticIP.
type PlunderMachineSpec struct {
	ProviderID          string   `json:"providerID,omitempty"`
	ControlPlaneMacPool []string `json:"controlPlaneMacPool,omitempty"`
	// IPAddress is the IPv4 address the machine gets.
	IPAddress string `json:"ipaddress,omitempty"`
	// MACAddress pins the machine to this hardware.
	MACAddress string `json:"macaddress,omitempty"`
	// DeploymentType is the name of the plunder boot configuration to install.
	DeploymentType string `json:"deploymentType,omitempty"`
	InstallOptions
}
