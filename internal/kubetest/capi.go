package kubetest

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Versions of Cluster API whose resource definitions a server can have, named after the
// API version that is stored. Definitions come without conversion webhooks; what is served
// is in the CAPI contract, section 13.
const (
	CAPIv1alpha3 = "v0.3.25"  // serves v1alpha2 and v1alpha3
	CAPIv1alpha4 = "v0.4.8"   // serves v1alpha3 and v1alpha4
	CAPIv1beta1  = "v1.10.10" // serves v1beta1 alone
	CAPIv1beta2  = "v1.14.2"  // serves v1beta1 and v1beta2; reading or writing at both loses fields
	// CAPIMany serves v1alpha3, v1alpha4 and v1beta1, which it stores.
	CAPIMany = "v1.4.9"
)

// capiChoice is what a server has of Cluster API.
type capiChoice struct {
	version string
	serve   []string
}

func (c capiChoice) equal(o capiChoice) bool {
	return c.version == o.version && slices.Equal(c.serve, o.serve)
}

// InstallCAPI installs the resource definitions of a version of Cluster API: Clusters,
// Machines, MachineSets and MachineDeployments, with the label that its release has. With
// serve only those API versions are served (and, if need be, the last of them stored).
// It returns when they can be used, and may be called again.
//
// A shared server has one version for good: ask for it with ServerWith.
func (e *Env) InstallCAPI(tb testing.TB, version string, serve ...string) {
	tb.Helper()
	choice := capiChoice{version, slices.Clone(serve)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.shared && e.capi.equal(choice) {
		return
	}
	if e.shared {
		tb.Fatalf("kubetest: other tests use this API server too; take ServerWith(t, %q) or a Private one", version)
	}
	if err := e.installCAPI(tb.Context(), version, serve); err != nil {
		tb.Fatal(err)
	}
	e.capi = choice
}

func (e *Env) installCAPI(ctx context.Context, version string, serve []string) error {
	tools, err := findTools()
	if err != nil {
		return err
	}
	folder := filepath.Join(tools.capi, version)
	if !exists(folder) {
		return fmt.Errorf("kubetest: no resource definitions of Cluster API %s in %s; add it to tools/kube/capi.sum and run: make kube-tools", version, folder)
	}
	options := envtest.CRDInstallOptions{Paths: []string{folder}, ErrorIfPathMissing: true}
	if err := envtest.ReadCRDFiles(&options); err != nil {
		return err
	}
	options.Paths = nil
	for _, crd := range options.CRDs {
		// The release's kustomization adds this to what controller-gen wrote.
		if crd.Labels == nil {
			crd.Labels = map[string]string{}
		}
		crd.Labels["cluster.x-k8s.io/provider"] = "cluster-api"
		if err := serveOnly(crd, serve); err != nil {
			return fmt.Errorf("kubetest: Cluster API %s: %w", version, err)
		}
	}
	options.MaxTime, options.PollInterval = startTimeout, 50*time.Millisecond
	if _, err := envtest.InstallCRDs(e.Config, options); err != nil {
		return fmt.Errorf("kubetest: installing Cluster API %s: %w", version, err)
	}
	return e.waitForServed(ctx, options.CRDs)
}

// serveOnly turns all versions off but these; none means as they are.
func serveOnly(crd *apiextensionsv1.CustomResourceDefinition, serve []string) error {
	if len(serve) == 0 {
		return nil
	}
	var found []string
	storage := ""
	for i := range crd.Spec.Versions {
		v := &crd.Spec.Versions[i]
		v.Served = slices.Contains(serve, v.Name)
		if v.Served {
			found = append(found, v.Name)
			if v.Storage {
				storage = v.Name
			}
		}
	}
	if len(found) != len(serve) {
		return fmt.Errorf("%s has %q, not %q", crd.Name, found, serve)
	}
	if storage == "" {
		storage = found[len(found)-1]
		for i := range crd.Spec.Versions {
			crd.Spec.Versions[i].Storage = crd.Spec.Versions[i].Name == storage
		}
	}
	return nil
}

// waitForServed waits until discovery names exactly the versions that are served:
// envtest waits for those that come, not for those that go.
func (e *Env) waitForServed(ctx context.Context, crds []*apiextensionsv1.CustomResourceDefinition) error {
	client, err := discovery.NewDiscoveryClientForConfig(e.Config)
	if err != nil {
		return err
	}
	var want []string
	for _, v := range crds[0].Spec.Versions {
		if v.Served {
			want = append(want, v.Name)
		}
	}
	slices.Sort(want)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		groups, err := client.ServerGroups()
		if err != nil {
			return err
		}
		var got []string
		for _, group := range groups.Groups {
			if group.Name == crds[0].Spec.Group {
				for _, v := range group.Versions {
					got = append(got, v.Version)
				}
			}
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kubetest: %s serves %q, not %q: %w", crds[0].Spec.Group, got, want, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
