package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlunderMachineSpec says what a machine is to be.
type PlunderMachineSpec struct {
	// providerID names the hardware: plunder:// and its MAC address. capplunder sets it
	// when the machine is ready.
	//
	// +optional
	ProviderID ProviderID `json:"providerID,omitempty"`

	// ipaddress is the IPv4 address that the machine gets. A control plane machine
	// without one gets the staticIP of its PlunderCluster.
	//
	// +optional
	IPAddress OptionalIPv4 `json:"ipaddress,omitempty"`

	// macaddress pins the machine to this hardware. Without it the machine gets one
	// that plunder has in its reboot loop.
	//
	// +optional
	MACAddress OptionalMAC `json:"macaddress,omitempty"`

	// controlPlaneMacPool is the hardware that a control plane machine without a
	// macaddress is taken from, in this order of preference.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1024
	ControlPlaneMacPool []MAC `json:"controlPlaneMacPool,omitempty"`

	// deploymentType is the name of the boot configuration, on the plunder server, of the
	// operating system to install. It is preseed if nothing is given.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^$|^[A-Za-z0-9][A-Za-z0-9._-]*$`
	// +kubebuilder:validation:XValidation:rule="self != 'reboot' && self != 'autoBoot'",message="this is plunder's loop for machines without work: it installs nothing"
	DeploymentType string `json:"deploymentType,omitempty"`

	InstallOptions `json:",inline"`
}

// PlunderMachineStatus says what a machine is. capplunder writes it.
type PlunderMachineStatus struct {
	// ready is true once the machine is installed and recorded. Cluster API's contracts
	// up to v1beta1 read it.
	//
	// +optional
	Ready bool `json:"ready,omitempty"`

	// initialization is read by Cluster API's contract of v1beta2.
	//
	// +optional
	Initialization *Initialization `json:"initialization,omitempty"`

	// addresses by which the machine is known.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Addresses []MachineAddress `json:"addresses,omitempty"`

	// ipaddress is the IPv4 address that the machine has.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=15
	IPAddress string `json:"ipaddress,omitempty"`

	// macaddress is the hardware that was given to the machine.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=17
	MACAddress string `json:"macaddress,omitempty"`

	// machineName is the host name of the machine.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	MachineName string `json:"machineName,omitempty"`

	// failureReason is one CamelCase word for why the machine failed for good.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=256
	FailureReason string `json:"failureReason,omitempty"`

	// failureMessage is the same for people.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=10240
	FailureMessage string `json:"failureMessage,omitempty"`

	// conditions are the latest observations.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []Condition `json:"conditions,omitempty"`
}

// MachineAddress is one address of a machine.
type MachineAddress struct {
	// type of the address.
	//
	// +required
	// +kubebuilder:validation:Enum=Hostname;ExternalIP;InternalIP;ExternalDNS;InternalDNS
	Type string `json:"type"`

	// address itself.
	//
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Address string `json:"address"`
}

// PlunderMachine is what a Cluster API Machine is on bare metal that plunder provisions.
//
// +kubebuilder:resource:path=plundermachines,scope=Namespaced,categories=cluster-api,shortName=plma
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:metadata:labels={"app.kubernetes.io/name=capplunder","app.kubernetes.io/managed-by=capplunder","cluster.x-k8s.io/provider=infrastructure-plunder","cluster.x-k8s.io/v1alpha3=v1alpha1","cluster.x-k8s.io/v1alpha4=v1alpha1","cluster.x-k8s.io/v1beta1=v1alpha1","cluster.x-k8s.io/v1beta2=v1alpha1"}
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.metadata.labels['cluster\.x-k8s\.io/cluster-name']`
// +kubebuilder:printcolumn:name="ProviderID",type=string,JSONPath=`.spec.providerID`
// +kubebuilder:printcolumn:name="Ready",type=boolean,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="MAC",type=string,JSONPath=`.status.macaddress`
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.status.ipaddress`
// +kubebuilder:printcolumn:name="Host",type=string,priority=1,JSONPath=`.status.machineName`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PlunderMachine struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the machine is to be.
	//
	// +optional
	Spec PlunderMachineSpec `json:"spec,omitempty"`

	// status says what it is.
	//
	// +optional
	Status PlunderMachineStatus `json:"status,omitempty"`
}
