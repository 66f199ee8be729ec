package install

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// The role has no wildcard, and nothing by which more rights could be had.
func TestRoleIsSmall(t *testing.T) {
	role := &rbacv1.ClusterRole{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(crd.RBAC()[1].Object.Object, role); err != nil {
		t.Fatal(err)
	}
	for _, rule := range role.Rules {
		all := slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs)
		for _, word := range all {
			if strings.Contains(word, "*") || slices.Contains([]string{"escalate", "bind", "impersonate", "deletecollection", "watch"}, word) ||
				slices.Contains([]string{"rbac.authorization.k8s.io", "pods", "pods/exec", "serviceaccounts", "serviceaccounts/token", "nodes"}, word) {
				t.Errorf("%q in %v", word, rule)
			}
		}
		if slices.Contains(rule.Resources, "secrets") && !slices.Equal(rule.Verbs, []string{"get", "create", "update", "delete"}) {
			t.Errorf("secrets by their names, and nothing more: %v", rule)
		}
	}
}

// A user with the role may connect and may own what blocks its owner's deletion, also
// where the API server looks at that; what only an administrator needs is refused.
func TestRoleIsEnough(t *testing.T) {
	env := kubetest.Private(t, kubetest.WithFlag("enable-admission-plugins", "OwnerReferencesPermissionEnforcement"))
	admin := env.Kubeconfig(t)
	install(t, dial(t, admin), Options{Standalone: true})
	user := env.UserKubeconfig(t, "ann")
	env.Kubectl(t, admin, "create", "clusterrolebinding", "ann", "--clusterrole="+crd.Role, "--user=ann")

	c, err := kube.Connect(t.Context(), find(t, user))
	if err != nil {
		t.Fatal(err)
	}
	machine := object(t, "{apiVersion: cluster.x-k8s.io/v1beta1, kind: Machine, metadata: {name: m}, spec: {clusterName: c}}")
	owner, err := apply(t.Context(), c, "default", machine)
	if err != nil {
		t.Fatal(err)
	}
	infra := object(t, fmt.Sprintf(plunderMachine, "m", "{}"))
	yes := true
	infra.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: owner.GetAPIVersion(), Kind: "Machine", Name: "m", UID: owner.GetUID(), Controller: &yes, BlockOwnerDeletion: &yes,
	}})
	if _, err := apply(t.Context(), c, "default", infra); err != nil {
		t.Error(err)
	}
	for o, status := range map[string]string{"Machine": `{"status":{"phase":"Provisioned"}}`, "PlunderMachine": `{"status":{"ready":true}}`} {
		of := infra
		if o == "Machine" {
			of = machine
		}
		if _, err := in(c, of, "default").Patch(t.Context(), "m", types.MergePatchType, []byte(status), metav1.PatchOptions{}, "status"); err != nil {
			t.Errorf("status of %s: %v", o, err)
		}
		if err := in(c, of, "default").Delete(t.Context(), "m", metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete %s: %v", o, err)
		}
	}
	if _, err := c.Core.Secrets("default").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list secrets: %v", err)
	}
	if err := Install(t.Context(), c, Options{}, new(reports).report); err == nil || !strings.Contains(err.Error(), "init is for administrators") {
		t.Errorf("init: %v", err)
	}
}
