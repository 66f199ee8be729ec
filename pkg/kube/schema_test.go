package kube

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func machines(storage string, converts bool, served ...string) Resource {
	return Resource{Group: "cluster.x-k8s.io", Kind: "Machine", Plural: "machines", Served: served, Storage: storage, Converts: converts}
}

func lossless(r Resource) Resource {
	r.Lossless = true
	return r
}

// written is a Machine with managed fields "<apiVersion>" or "<apiVersion>/<subresource>",
// versions without a group being of Cluster API's.
func written(entries ...string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetNamespace("default")
	u.SetName("worker")
	var fields []metav1.ManagedFieldsEntry
	for _, e := range entries {
		v, sub, _ := strings.Cut(e, "/")
		fields = append(fields, metav1.ManagedFieldsEntry{Manager: "someone", APIVersion: "cluster.x-k8s.io/" + v, Subresource: sub})
	}
	u.SetManagedFields(fields)
	return u
}

func TestVersionOf(t *testing.T) {
	both := []string{"v1beta2", "v1beta1"}
	old := []string{"v1beta1", "v1alpha4", "v1alpha3"}
	for _, tc := range []struct {
		name string
		r    Resource
		u    *unstructured.Unstructured
		want string
	}{
		{"converted", machines("v1beta2", true, both...), written("v1beta1"), "v1beta2"},
		{"written in the other", machines("v1beta2", false, both...), written("v1beta1", "v1beta1"), "v1beta1"},
		{"written in the storage version", machines("v1beta2", false, both...), written("v1beta2"), "v1beta2"},
		{"written in both", machines("v1beta2", false, both...), written("v1beta1", "v1beta2"), "v1beta2"},
		{"status written in the other", machines("v1beta1", false, old...), written("v1alpha3", "v1alpha4/status"), "v1alpha3"},
		{"only status", machines("v1beta1", false, old...), written("v1alpha4/status"), "v1beta1"},
		{"written in one that is gone", machines("v1beta1", false, "v1beta1"), written("v1alpha3"), "v1beta1"},
		{"one of two is gone", machines("v1beta1", false, "v1beta1", "v1alpha4"), written("v1alpha4", "v1alpha3"), "v1beta1"},
		{"unknown", machines("v1beta1", false, old...), written(), "v1beta1"},
		{"storage version not served", machines("v1beta2", true, "v1beta1"), written("v1beta1"), "v1beta1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.r.VersionOf(tc.u); got != tc.want {
				t.Errorf("version %q, want %q", got, tc.want)
			}
		})
	}
}

func TestForManifest(t *testing.T) {
	both := []string{"v1beta2", "v1beta1"}
	old := []string{"v1beta1", "v1alpha4", "v1alpha3"}
	for _, tc := range []struct {
		name     string
		r        Resource
		version  string
		existing *unstructured.Unstructured
		use      string // "": it may be applied
	}{
		{"not served", machines("v1beta2", true, both...), "v1alpha2", nil, "v1beta2"},
		{"not served, existing", machines("v1beta1", false, old...), "v1alpha2", written("v1alpha4"), "v1alpha4"},
		{"converted", machines("v1beta2", true, both...), "v1beta1", written("v1beta2"), ""},
		{"new, storage version", machines("v1beta2", false, both...), "v1beta2", nil, ""},
		{"new, across the border", machines("v1beta2", false, both...), "v1beta1", nil, "v1beta2"},
		{"new, across the border, back", machines("v1beta1", false, both...), "v1beta2", nil, "v1beta1"},
		{"new, near enough", machines("v1beta1", false, old...), "v1alpha3", nil, ""},
		{"new, across the border, lossless", lossless(machines("v1beta1", false, "v1beta2", "v1beta1")), "v1beta2", nil, ""},
		{"not as written, lossless", lossless(machines("v1beta1", false, "v1beta2", "v1beta1")), "v1beta1", written("v1beta2"), "v1beta2"},
		{"as written", machines("v1beta1", false, old...), "v1alpha3", written("v1alpha3"), ""},
		{"not as written", machines("v1beta1", false, old...), "v1beta1", written("v1alpha3"), "v1alpha3"},
		{"as written, not the storage version", machines("v1beta2", false, both...), "v1beta1", written("v1beta1"), ""},
		{"not as written, across the border", machines("v1beta2", false, both...), "v1beta2", written("v1beta1"), "v1beta1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.r.ForManifest(tc.version, tc.existing)
			if tc.use == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *VersionError
			if !errors.As(err, &e) || e.Use != tc.use || e.Version != tc.version {
				t.Fatalf("error %v, want one that says to use %s", err, tc.use)
			}
			if want := "change it to apiVersion cluster.x-k8s.io/" + tc.use; !strings.HasSuffix(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		})
	}
}

func TestResourceOf(t *testing.T) {
	status := &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}}
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{
			"cluster.x-k8s.io/provider": "infrastructure-plunder",
			"cluster.x-k8s.io/v1beta1":  "v1alpha1_v1",
			"cluster.x-k8s.io/v1beta2":  "v1",
			"example.com/v1alpha3":      "v1",
		}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "infrastructure.cluster.x-k8s.io",
			Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: "PlunderMachine", Plural: "plundermachines"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
				{Name: "v1alpha1", Served: true, Storage: true},
				{Name: "v1beta1", Subresources: status},
				{Name: "v1", Served: true, Subresources: status},
				{Name: "v1alpha2", Served: true, Subresources: &apiextensionsv1.CustomResourceSubresources{}},
			},
			Conversion: &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter},
		},
	}
	want := Resource{
		Group: "infrastructure.cluster.x-k8s.io", Kind: "PlunderMachine", Plural: "plundermachines",
		Served: []string{"v1", "v1alpha2", "v1alpha1"}, Storage: "v1alpha1", Converts: true,
		HasStatus: map[string]bool{"v1": true, "v1alpha1": false, "v1alpha2": false},
		Contracts: map[string][]string{"v1beta1": {"v1alpha1", "v1"}, "v1beta2": {"v1"}},
	}
	if diff := cmp.Diff(want, resourceOf(crd), cmpopts.IgnoreFields(Resource{}, "Schemas")); diff != "" {
		t.Error(diff)
	}
	crd.Spec.Conversion = nil
	if resourceOf(crd).Converts {
		t.Error("a CRD without conversion converts")
	}
}

func TestLossless(t *testing.T) {
	yes := true
	keeps := apiextensionsv1.JSONSchemaProps{XPreserveUnknownFields: &yes}
	of := func(root apiextensionsv1.JSONSchemaProps) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &root}}
	}
	type props = map[string]apiextensionsv1.JSONSchemaProps
	both := of(apiextensionsv1.JSONSchemaProps{Properties: props{"spec": keeps, "status": keeps}})
	spec := of(apiextensionsv1.JSONSchemaProps{Properties: props{"spec": keeps, "status": {}}})
	for _, tc := range []struct {
		name     string
		versions []apiextensionsv1.CustomResourceDefinitionVersion
		want     bool
	}{
		{"spec and status", []apiextensionsv1.CustomResourceDefinitionVersion{both, both}, true},
		{"everything", []apiextensionsv1.CustomResourceDefinitionVersion{both, of(keeps)}, true},
		{"one drops status", []apiextensionsv1.CustomResourceDefinitionVersion{both, spec}, false},
		{"one has no schema", []apiextensionsv1.CustomResourceDefinitionVersion{both, {}}, false},
	} {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		crd.Spec.Versions = tc.versions
		if got := resourceOf(crd).Lossless; got != tc.want {
			t.Errorf("%s: lossless: %t", tc.name, got)
		}
	}
}

func TestCheckContract(t *testing.T) {
	ours := func(contracts ...string) Resource {
		r := Resource{Contracts: map[string][]string{}}
		for _, c := range contracts {
			r.Contracts[c] = []string{"v1alpha1"}
		}
		return r
	}
	for _, tc := range []struct {
		name    string
		live    bool
		storage string // of Machine
		machine Resource
		refused bool
	}{
		{"nobody there", false, "v1beta2", ours(), false},
		{"no label", true, "v1beta2", ours(), true},
		{"its contract", true, "v1beta2", ours("v1alpha3", "v1beta2"), false},
		{"the contract before", true, "v1beta2", ours("v1beta1"), false},
		{"older contracts", true, "v1beta2", ours("v1alpha3", "v1alpha4"), true},
		{"newer contracts", true, "v1alpha3", ours("v1beta1", "v1beta2"), true},
		{"labels are not read", true, "v1alpha2", ours(), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := Schema{
				Machine: machines(tc.storage, true, tc.storage), PlunderCluster: ours("v1alpha3", "v1alpha4", "v1beta1", "v1beta2"),
				PlunderMachine: tc.machine, Manager: Manager{Live: tc.live, Evidence: "Lease x"},
			}
			err := s.checkContract("cluster https://x")
			if !tc.refused {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *ContractError
			if !errors.As(err, &e) || !slices.Equal(e.CRDs, []string{CRDPlunderMachine}) || e.NextCommand() != "capplunder init" {
				t.Fatalf("error %v", err)
			}
			if want := "lack the label cluster.x-k8s.io/" + tc.storage; !strings.Contains(err.Error(), want) {
				t.Errorf("error %q lacks %q", err, want)
			}
		})
	}
}

func TestManaged(t *testing.T) {
	u := &unstructured.Unstructured{}
	u.SetFinalizers([]string{"plundermachine.infrastructure.cluster.x-k8s.io"})
	if (Schema{}).Managed(u) {
		t.Error("an object without Cluster API's finalizer is managed")
	}
	if !(Schema{Manager: Manager{Live: true}}).Managed(u) {
		t.Error("not managed by a live manager")
	}
	for _, f := range []string{"machine.cluster.x-k8s.io", "cluster.cluster.x-k8s.io"} {
		u.SetFinalizers([]string{"mine", f})
		if !(Schema{}).Managed(u) {
			t.Errorf("not managed with finalizer %s", f)
		}
	}
}
