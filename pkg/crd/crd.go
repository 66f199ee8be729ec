// Package crd holds the manifests that `capplunder init` installs: the definitions of
// capplunder's own kinds (generated, see v1alpha1), those of Cluster and Machine for
// clusters without Cluster API, and the role that is enough to run capplunder. It only
// reads what is built into the program: it must not know a cluster.
package crd

import (
	"embed"
	"fmt"
	"path"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	// Namespace is where capplunder keeps what belongs to no single Cluster.
	Namespace = "capplunder-system"
	// Role is the name of the ClusterRole that is enough for everything but init.
	Role = "capplunder"

	// LabelManagedBy with ManagedBy is on everything that is installed here.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "capplunder"
)

//go:embed bases standalone rbac
var files embed.FS

// Manifest is one object to install. The object is the caller's own.
type Manifest struct {
	Object *unstructured.Unstructured
	// YAML is the object as it was written, comments included.
	YAML []byte
}

// Bases are the definitions of PlunderCluster, PlunderMachine and
// PlunderMachineTemplate, in this order.
func Bases() []Manifest { return folder("bases") }

// Standalone are the definitions of Cluster and Machine for clusters without Cluster
// API, in this order. They serve every version from v1alpha2 to v1beta2 and keep unknown
// fields.
func Standalone() []Manifest { return folder("standalone") }

// RBAC are the namespace and the ClusterRole.
func RBAC() []Manifest { return []Manifest{file("rbac/namespace.yaml"), file("rbac/clusterrole.yaml")} }

// folder reads a folder in the order of its file names.
func folder(name string) []Manifest {
	entries, err := files.ReadDir(name)
	if err != nil {
		panic(fmt.Sprintf("embedded %s: %v", name, err)) // a test reads them all
	}
	manifests := make([]Manifest, len(entries))
	for i, e := range entries {
		manifests[i] = file(path.Join(name, e.Name()))
	}
	return manifests
}

func file(name string) Manifest {
	m := Manifest{Object: &unstructured.Unstructured{}}
	var err error
	if m.YAML, err = files.ReadFile(name); err == nil {
		err = yaml.UnmarshalStrict(m.YAML, &m.Object.Object)
	}
	if err != nil {
		panic(fmt.Sprintf("embedded %s: %v", name, err)) // a test reads them all
	}
	return m
}
