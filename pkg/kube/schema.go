package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Names of the CRDs, "<plural>.<group>" with the plural that Cluster API computes
// (CAPI contract section 1).
const (
	CRDCluster        = "clusters." + capi.GroupCluster
	CRDMachine        = "machines." + capi.GroupCluster
	CRDPlunderCluster = "plunderclusters." + capi.GroupInfrastructure
	CRDPlunderMachine = "plundermachines." + capi.GroupInfrastructure
)

// Finalizers of Cluster API's own controllers (CAPI contract section 2).
const (
	finalizerMachine = "machine.cluster.x-k8s.io"
	finalizerCluster = "cluster.cluster.x-k8s.io"
)

// Schema is what the cluster serves of the four kinds.
type Schema struct {
	Cluster, Machine, PlunderCluster, PlunderMachine Resource
	Manager                                          Manager
}

// Managed reports whether Cluster API's controllers own this Machine or Cluster: its
// manager is live, or was when it put its finalizer on the object.
func (s Schema) Managed(u *unstructured.Unstructured) bool {
	return s.Manager.Live || slices.ContainsFunc(u.GetFinalizers(), func(f string) bool {
		return f == finalizerMachine || f == finalizerCluster
	})
}

// Resource is what the cluster serves of one kind.
type Resource struct {
	Group, Kind, Plural string
	Served              []string // versions, highest priority first; never empty
	Storage             string
	// Converts: a conversion webhook is configured. Without one the API server changes
	// just the apiVersion and drops the fields that the other version does not list
	// (CAPI contract section 13).
	Converts bool
	// Lossless: every version keeps fields that it does not list, in spec and status, so
	// that none drops another's. So do the definitions of `capplunder init --standalone`
	// (their label would outlive Cluster API being installed over them).
	Lossless  bool
	HasStatus map[string]bool     // per served version: there is a status subresource
	Contracts map[string][]string // contract ("v1beta1") to the kind's own versions that keep it
	// Schemas are the structural schemas of all versions, for Prune.
	Schemas map[string]*structuralschema.Structural
}

// GVR is what client-go calls the resource at this version.
func (r Resource) GVR(version string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: r.Group, Version: version, Resource: r.Plural}
}

// VersionOf is the one API version in which an object is read and written: the
// storage version if there is a conversion webhook; without one, the version in which
// the object was written, if its managed fields agree on one that is served; else the
// storage version. u may have been read at any version.
func (r Resource) VersionOf(u *unstructured.Unstructured) string {
	if r.Converts {
		return r.fallback()
	}
	written := ""
	for _, entry := range u.GetManagedFields() {
		gv, err := schema.ParseGroupVersion(entry.APIVersion)
		switch {
		case entry.Subresource != "":
			continue
		case err != nil, gv.Group != r.Group, !slices.Contains(r.Served, gv.Version), written != "" && written != gv.Version:
			return r.fallback()
		}
		written = gv.Version
	}
	if written == "" {
		return r.fallback()
	}
	return written
}

// fallback is the storage version, or the best that is served when that is not.
func (r Resource) fallback() string {
	if slices.Contains(r.Served, r.Storage) || len(r.Served) == 0 {
		return r.Storage
	}
	return r.Served[0]
}

// ForManifest says whether a manifest at this version may be applied over the
// existing object (nil: there is none). The version must be served. Without a
// conversion webhook it must be the one in which the existing object was written; for a
// new one, it must be on the same side of v1beta1 | v1beta2 as the storage version unless
// the definition is Lossless: across that border references and the done flags are lost,
// for good (CAPI contract section 13). The error is a *VersionError.
func (r Resource) ForManifest(version string, existing *unstructured.Unstructured) error {
	use := r.fallback()
	refused := func(format string, args ...any) error {
		return &VersionError{Group: r.Group, Kind: r.Kind, Version: version, Use: use, Why: fmt.Sprintf(format, args...)}
	}
	if existing != nil {
		use = r.VersionOf(existing)
	}
	switch {
	case !slices.Contains(r.Served, version):
		return refused("the cluster serves %s", strings.Join(r.Served, ", "))
	case r.Converts:
		return nil
	case existing != nil && version != use:
		return refused("%s/%s in the cluster was written in %s, and nothing there converts between the two", existing.GetNamespace(), existing.GetName(), use)
	case existing == nil && !r.Lossless && afterBorder(version) != afterBorder(r.Storage):
		return refused("the cluster stores %s, and nothing there converts between the two", r.Storage)
	}
	return nil
}

// afterBorder reports whether a version of Cluster API's group has the shape of
// v1beta2, in which references carry no version.
func afterBorder(v string) bool { return version.CompareKubeAwareVersionStrings(v, "v1beta2") >= 0 }

// schema reads the CRDs: discovery knows neither the storage version nor the
// contract labels.
func (c *Client) schema(ctx context.Context) (Schema, error) {
	var s Schema
	missing := &NotInstalledError{Target: c.Target.String()}
	for _, of := range []struct {
		crd  string
		into *Resource
	}{{CRDCluster, &s.Cluster}, {CRDMachine, &s.Machine}, {CRDPlunderCluster, &s.PlunderCluster}, {CRDPlunderMachine, &s.PlunderMachine}} {
		r, err := c.resource(ctx, of.crd)
		switch {
		case apierrors.IsNotFound(err):
			missing.CRDs = append(missing.CRDs, of.crd)
		case err != nil:
			return s, err
		}
		*of.into = r
	}
	if len(missing.CRDs) > 0 {
		return s, missing
	}
	var err error
	if s.Manager, err = c.manager(ctx, time.Now()); err != nil {
		return s, err
	}
	return s, s.checkContract(c.Target.String())
}

// resource reads one CRD.
func (c *Client) resource(ctx context.Context, name string) (Resource, error) {
	what := "CustomResourceDefinition " + name
	gvr := apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")
	u, err := c.Dynamic.Resource(gvr).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Resource{}, c.Explain(err, "get", what)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, crd); err != nil {
		return Resource{}, fmt.Errorf("%s of %s: %w", what, c.Target, err)
	}
	if err := established(crd); err != nil {
		return Resource{}, fmt.Errorf("%s of %s %w: %w", what, c.Target, err, capi.ErrUnavailable)
	}
	return resourceOf(crd), nil
}

// established tells why the API server does not serve a CRD, or will not for long.
func established(crd *apiextensionsv1.CustomResourceDefinition) error {
	if crd.DeletionTimestamp != nil {
		return errors.New("is being deleted")
	}
	for _, cond := range crd.Status.Conditions {
		if cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue {
			return nil
		}
	}
	return errors.New("is not established yet")
}

func resourceOf(crd *apiextensionsv1.CustomResourceDefinition) Resource {
	r := Resource{
		Group: crd.Spec.Group, Kind: crd.Spec.Names.Kind, Plural: crd.Spec.Names.Plural,
		Converts:  crd.Spec.Conversion != nil && crd.Spec.Conversion.Strategy == apiextensionsv1.WebhookConverter,
		Lossless:  !slices.ContainsFunc(crd.Spec.Versions, prunes),
		HasStatus: map[string]bool{},
		Contracts: contracts(crd.Labels),
		Schemas:   map[string]*structuralschema.Structural{},
	}
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			r.Storage = v.Name
		}
		r.Schemas[v.Name] = structural(v)
		if v.Served {
			r.Served = append(r.Served, v.Name)
			r.HasStatus[v.Name] = v.Subresources != nil && v.Subresources.Status != nil
		}
	}
	slices.SortFunc(r.Served, func(a, b string) int { return version.CompareKubeAwareVersionStrings(b, a) })
	return r
}

// prunes reports whether a version drops fields of spec or status that it does not list.
func prunes(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return true
	}
	keeps := func(s apiextensionsv1.JSONSchemaProps) bool {
		return s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields
	}
	root := *v.Schema.OpenAPIV3Schema
	return !keeps(root) && (!keeps(root.Properties["spec"]) || !keeps(root.Properties["status"]))
}

// contracts reads labels such as "cluster.x-k8s.io/v1beta1: v1alpha1_v1alpha2"
// (CAPI contract section 1).
func contracts(labels map[string]string) map[string][]string {
	out := map[string][]string{}
	for key, value := range labels {
		contract, ok := strings.CutPrefix(key, capi.GroupCluster+"/")
		if ok && strings.HasPrefix(contract, "v") && len(contract) > 1 && contract[1] >= '0' && contract[1] <= '9' {
			out[contract] = strings.Split(value, "_")
		}
	}
	return out
}

// checkContract refuses CRDs of ours that a live manager would not adopt: it looks
// for a label of its own contract, from v1.11 on also of the one before, and before
// v0.3 for none (CAPI contract section 1).
func (s Schema) checkContract(target string) error {
	accepted := []string{s.Machine.Storage}
	switch {
	case !s.Manager.Live || s.Machine.Storage == "v1alpha2":
		return nil
	case s.Machine.Storage == "v1beta2":
		accepted = append(accepted, "v1beta1")
	}
	e := &ContractError{Target: target, Contracts: accepted, Evidence: s.Manager.Evidence}
	for _, of := range []struct {
		crd string
		Resource
	}{{CRDPlunderCluster, s.PlunderCluster}, {CRDPlunderMachine, s.PlunderMachine}} {
		if !slices.ContainsFunc(accepted, func(c string) bool { return len(of.Contracts[c]) > 0 }) {
			e.CRDs = append(e.CRDs, of.crd)
		}
	}
	if len(e.CRDs) == 0 {
		return nil
	}
	return e
}
