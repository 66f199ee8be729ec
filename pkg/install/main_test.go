package install

import (
	"context"
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/kube"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// dial is a client of the cluster that a kubeconfig names.
func dial(t *testing.T, kubeconfig string) *kube.Client {
	t.Helper()
	target := find(t, kubeconfig)
	c, err := kube.Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func find(t *testing.T, kubeconfig string) *kube.Target {
	t.Helper()
	target, err := kube.Find(kube.Options{Kubeconfig: kubeconfig, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// reports collects what was reported: "created Namespace capplunder-system".
type reports []string

func (r *reports) report(object, what, detail string) {
	line := what + " " + object
	if detail != "" {
		line += ": " + detail
	}
	*r = append(*r, line)
}

// install installs and returns the reports.
func install(t *testing.T, c *kube.Client, o Options) reports {
	t.Helper()
	var r reports
	if err := Install(t.Context(), c, o, r.report); err != nil {
		t.Fatal(err)
	}
	return r
}

// uninstall removes everything and returns the reports.
func uninstall(t *testing.T, c *kube.Client) reports {
	t.Helper()
	p, err := PlanUninstall(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	var r reports
	if err := Uninstall(t.Context(), c, p, r.report); err != nil {
		t.Fatal(err)
	}
	return r
}

// all is true if every report says what.
func (r *reports) all(what string) bool {
	for _, line := range *r {
		if !strings.HasPrefix(line, what+" ") {
			return false
		}
	}
	return len(*r) > 0
}

// object reads a manifest.
func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// in is where objects like o live; their plurals are those of Cluster API.
func in(c *kube.Client, o *unstructured.Unstructured, namespace string) dynamic.ResourceInterface {
	gvk := o.GroupVersionKind()
	gvr := schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: strings.ToLower(gvk.Kind) + "s"}
	if namespace == "" {
		return c.Dynamic.Resource(gvr)
	}
	return c.Dynamic.Resource(gvr).Namespace(namespace)
}

// apply applies an object as capplunder does, strictly.
func apply(ctx context.Context, c *kube.Client, namespace string, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	return in(c, o, namespace).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: fieldManager})
}
