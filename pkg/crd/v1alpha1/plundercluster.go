package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlunderClusterSpec says what the machines of a cluster have in common.
type PlunderClusterSpec struct {
	// controlPlaneEndpoint is where the API server of the cluster is reached. If nothing is
	// given, capplunder sets it to the address of the first control plane machine.
	//
	// +optional
	ControlPlaneEndpoint Endpoint `json:"controlPlaneEndpoint,omitempty"`

	// controlPlaneMacPool is the hardware that control plane machines without a
	// macaddress of their own are taken from, in this order of preference.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1024
	ControlPlaneMacPool []MAC `json:"controlPlaneMacPool,omitempty"`

	// staticMAC is the hardware of the one control plane machine that names none itself.
	//
	// +optional
	StaticMAC OptionalMAC `json:"staticMAC,omitempty"`

	// staticIP is the IPv4 address of the one control plane machine that names none itself.
	//
	// +optional
	StaticIP OptionalIPv4 `json:"staticIP,omitempty"`

	InstallOptions `json:",inline"`

	ClusterOptions `json:",inline"`
}

// PlunderClusterStatus says what the infrastructure of a cluster is. capplunder writes it.
type PlunderClusterStatus struct {
	// ready is true once the cluster has its endpoint and machines can be installed.
	// Cluster API's contracts up to v1beta1 read it.
	//
	// +optional
	Ready bool `json:"ready,omitempty"`

	// initialization is read by Cluster API's contract of v1beta2.
	//
	// +optional
	Initialization *Initialization `json:"initialization,omitempty"`

	// failureReason is one CamelCase word for why the cluster failed for good.
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

// PlunderCluster is what a Cluster API Cluster is on bare metal that plunder provisions.
//
// +kubebuilder:resource:path=plunderclusters,scope=Namespaced,categories=cluster-api,shortName=plcl
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:metadata:labels={"app.kubernetes.io/name=capplunder","app.kubernetes.io/managed-by=capplunder","cluster.x-k8s.io/provider=infrastructure-plunder","cluster.x-k8s.io/v1alpha3=v1alpha1","cluster.x-k8s.io/v1alpha4=v1alpha1","cluster.x-k8s.io/v1beta1=v1alpha1","cluster.x-k8s.io/v1beta2=v1alpha1"}
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.metadata.labels['cluster\.x-k8s\.io/cluster-name']`
// +kubebuilder:printcolumn:name="Ready",type=boolean,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.spec.controlPlaneEndpoint.host`
// +kubebuilder:printcolumn:name="Port",type=integer,priority=1,JSONPath=`.spec.controlPlaneEndpoint.port`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PlunderCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the machines of the cluster have in common.
	//
	// +optional
	Spec PlunderClusterSpec `json:"spec,omitempty"`

	// status says what its infrastructure is.
	//
	// +optional
	Status PlunderClusterStatus `json:"status,omitempty"`
}
