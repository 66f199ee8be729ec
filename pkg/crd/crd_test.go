package crd

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd/v1alpha1"
)

func TestManifestsCanBeRead(t *testing.T) {
	var got []string
	for _, m := range slices.Concat(Bases(), Standalone(), RBAC()) {
		got = append(got, m.Object.GetKind()+" "+m.Object.GetName())
		if len(m.YAML) == 0 || m.Object.GetLabels()[LabelManagedBy] != ManagedBy {
			t.Errorf("%s: no text or not labelled as ours: %v", m.Object.GetName(), m.Object.GetLabels())
		}
	}
	want := []string{
		"CustomResourceDefinition plunderclusters.infrastructure.cluster.x-k8s.io",
		"CustomResourceDefinition plundermachines.infrastructure.cluster.x-k8s.io",
		"CustomResourceDefinition plundermachinetemplates.infrastructure.cluster.x-k8s.io",
		"CustomResourceDefinition clusters.cluster.x-k8s.io",
		"CustomResourceDefinition machines.cluster.x-k8s.io",
		"Namespace " + Namespace,
		"ClusterRole " + Role,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// The specs that Kubernetes stores and the specs that capplunder decodes have the same fields.
func TestFieldsAreThoseOfTheDecoder(t *testing.T) {
	for _, tt := range []struct{ stored, decoded reflect.Type }{
		{reflect.TypeFor[v1alpha1.PlunderMachineSpec](), reflect.TypeFor[capi.PlunderMachineSpec]()},
		{reflect.TypeFor[v1alpha1.PlunderClusterSpec](), reflect.TypeFor[capi.PlunderClusterSpec]()},
		{reflect.TypeFor[v1alpha1.PackageRepo](), reflect.TypeFor[capi.PackageRepo]()},
		{reflect.TypeFor[v1alpha1.Endpoint](), reflect.TypeFor[capi.Endpoint]()},
	} {
		if stored, decoded := fields(tt.stored), fields(tt.decoded); !slices.Equal(stored, decoded) {
			t.Errorf("%s has %q, %s has %q", tt.stored, stored, tt.decoded, decoded)
		}
	}
}

func fields(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
