package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PlunderMachineTemplateSpec holds the template.
type PlunderMachineTemplateSpec struct {
	// template of the PlunderMachines.
	//
	// +required
	Template PlunderMachineTemplateResource `json:"template"`
}

// PlunderMachineTemplateResource is what the PlunderMachines of a template are like. What
// only one machine can have, hardware and address, is not part of it.
//
// +kubebuilder:validation:XValidation:rule="!has(self.spec.ipaddress) || self.spec.ipaddress.size() == 0",message="ipaddress is for one machine, a template is for many"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.macaddress) || self.spec.macaddress.size() == 0",message="macaddress is for one machine, a template is for many"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.providerID) || self.spec.providerID.size() == 0",message="providerID is for one machine, a template is for many"
type PlunderMachineTemplateResource struct {
	// metadata that the PlunderMachines get.
	//
	// +optional
	Metadata TemplateMetadata `json:"metadata,omitempty"`

	// spec that the PlunderMachines get.
	//
	// +required
	Spec PlunderMachineSpec `json:"spec"`
}

// TemplateMetadata is the metadata of objects that are made of a template.
type TemplateMetadata struct {
	// labels of the objects.
	//
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// annotations of the objects.
	//
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// PlunderMachineTemplate is what Cluster API makes PlunderMachines of, for the Machines
// of a MachineSet or MachineDeployment.
//
// +kubebuilder:resource:path=plundermachinetemplates,scope=Namespaced,categories=cluster-api,shortName=plmt
// +kubebuilder:storageversion
// +kubebuilder:metadata:labels={"app.kubernetes.io/name=capplunder","app.kubernetes.io/managed-by=capplunder","cluster.x-k8s.io/provider=infrastructure-plunder","cluster.x-k8s.io/v1alpha3=v1alpha1","cluster.x-k8s.io/v1alpha4=v1alpha1","cluster.x-k8s.io/v1beta1=v1alpha1","cluster.x-k8s.io/v1beta2=v1alpha1"}
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.metadata.labels['cluster\.x-k8s\.io/cluster-name']`
// +kubebuilder:printcolumn:name="Boots",type=string,JSONPath=`.spec.template.spec.deploymentType`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PlunderMachineTemplate struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec holds the template.
	//
	// +required
	Spec PlunderMachineTemplateSpec `json:"spec"`
}
