// Package v1alpha1 describes PlunderCluster, PlunderMachine and PlunderMachineTemplate
// as Kubernetes stores them: `go generate` makes the CRDs in ../bases from it, and its
// comments are what `kubectl explain` shows. It has no behaviour, and the program does
// not use it: pkg/capi holds the same fields as they are after decoding. Field names
// and most meanings are those of the provider of 2019; done flags, addresses and
// conditions are what Cluster API's contracts ask for (CAPI contract, sections 5 and 6).
//
// A schema accepts whatever capplunder's own decoder accepts, an empty string for "not
// given" included, so that a manifest is good or bad in both places.
//
// +groupName=infrastructure.cluster.x-k8s.io
// +versionName=v1alpha1
package v1alpha1

//go:generate go tool -modfile=../../../tools/go.mod controller-gen crd:headerFile=header.txt paths=. output:crd:dir=../bases

// MAC is a MAC address of one network card, in any usual notation.
//
// +kubebuilder:validation:MaxLength=17
// +kubebuilder:validation:Pattern=`^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$|^[0-9A-Fa-f][02468ACEace](-[0-9A-Fa-f]{2}){5}$|^[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{4}){2}$|^[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{10}$`
// +kubebuilder:validation:XValidation:rule="self.matches('[1-9A-Fa-f]')",message="no network card has a MAC address of zeros"
type MAC string

// OptionalMAC is a MAC address, or empty for none.
//
// +kubebuilder:validation:MaxLength=17
// +kubebuilder:validation:Pattern=`^$|^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$|^[0-9A-Fa-f][02468ACEace](-[0-9A-Fa-f]{2}){5}$|^[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{4}){2}$|^[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{10}$`
// +kubebuilder:validation:XValidation:rule="self.size() == 0 || self.matches('[1-9A-Fa-f]')",message="no network card has a MAC address of zeros"
type OptionalMAC string

// OptionalIPv4 is an IPv4 address that a host can have, without leading zeros, or empty for none.
//
// +kubebuilder:validation:MaxLength=15
// +kubebuilder:validation:Pattern=`^$|^([1-9]|[1-9][0-9]|1[0-9]{2}|2[01][0-9]|22[0-3])(\.([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])){3}$`
type OptionalIPv4 string

// ProviderID names a machine's hardware: plunder:// and its MAC address. Empty for none.
//
// +kubebuilder:validation:MaxLength=27
// +kubebuilder:validation:Pattern=`^$|^plunder://([0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f][02468ACEace](-[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{4}){2}|[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{10})$`
type ProviderID string

// Endpoint is where the API server of a cluster is reached.
//
// +kubebuilder:validation:XValidation:rule="!has(self.port) || self.port == 0 || (has(self.host) && self.host.size() > 0)",message="a port needs a host"
type Endpoint struct {
	// host is an IPv4 address or a DNS name.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[0-9.]+$') || self.matches('^([1-9]|[1-9][0-9]|1[0-9]{2}|2[01][0-9]|22[0-3])([.]([0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5])){3}$')",message="neither an IPv4 address that a host can have nor a DNS name"
	Host string `json:"host,omitempty"`

	// port is a TCP port; 6443 if it is 0 or missing.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// Initialization tells how far the infrastructure got for the first time. Cluster API's
// contract of v1beta2 reads it.
type Initialization struct {
	// provisioned is true once the infrastructure is there. It does not become false again.
	//
	// +optional
	Provisioned *bool `json:"provisioned,omitempty"`
}

// Condition is one observation. It has the fields of a Kubernetes condition and those of
// Cluster API's conditions up to v1beta1, in which reason and message may be missing.
type Condition struct {
	// type of the condition, in CamelCase.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Type string `json:"type"`

	// status of the condition.
	//
	// +required
	// +kubebuilder:validation:Enum="True";"False";Unknown
	Status string `json:"status"`

	// severity of a condition whose status is False: Error, Warning or Info.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Severity string `json:"severity,omitempty"`

	// lastTransitionTime is when the status last changed.
	//
	// +optional
	// +kubebuilder:validation:Format=date-time
	LastTransitionTime string `json:"lastTransitionTime,omitempty"`

	// observedGeneration is the metadata.generation that the condition is about.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// reason for the last change of status, in CamelCase.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`

	// message for people.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32768
	Message string `json:"message,omitempty"`
}
