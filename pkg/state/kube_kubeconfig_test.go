package state

import (
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// kubeconfigStore is what all stores offer.
type kubeconfigStore interface {
	SaveKubeconfig(ctx context.Context, cluster capi.Key, kubeconfig []byte) error
	Kubeconfig(ctx context.Context, cluster capi.Key) (data []byte, ok bool, err error)
}

// newCluster makes a Cluster in the API server.
func newCluster(t *testing.T, k *Kubernetes, key capi.Key) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster",
		"metadata": map[string]any{"name": key.Name, "namespace": key.Namespace},
		"spec":     map[string]any{},
	}}
	made, err := k.at(k.clusters(), "v1beta1", key.Namespace).Create(t.Context(), u, metav1.CreateOptions{})
	must(t, err)
	return made
}

func TestKubeconfigs(t *testing.T) {
	env := kubeServer(t)
	k := openKube(t, env.Config, 0)
	c := capi.Key{Namespace: env.Namespace(t), Name: "c"}
	newCluster(t, k, c)
	for name, s := range map[string]kubeconfigStore{"local": openLocal(t), "memory": NewMemory(), "kubernetes": k} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if data, ok, err := s.Kubeconfig(ctx, c); data != nil || ok || err != nil {
				t.Errorf("before: %q, %v, %v", data, ok, err)
			}
			for _, want := range []string{"apiVersion: v1\n# ü\n", "apiVersion: v1\n# two\n", "apiVersion: v1\n# two\n"} {
				given := []byte(want)
				must(t, s.SaveKubeconfig(ctx, c, given))
				given[0] = 'X'
				data, ok, err := s.Kubeconfig(ctx, c)
				if string(data) != want || !ok || err != nil {
					t.Errorf("got %q, %v, %v", data, ok, err)
				}
			}
			if _, ok, err := s.Kubeconfig(ctx, capi.Key{Namespace: c.Namespace, Name: "other"}); ok || err != nil {
				t.Errorf("another cluster: %v, %v", ok, err)
			}
			dead, cancel := context.WithCancel(ctx)
			cancel()
			_, _, err := s.Kubeconfig(dead, c)
			if err2 := s.SaveKubeconfig(dead, c, nil); !errors.Is(err, context.Canceled) || !errors.Is(err2, context.Canceled) {
				t.Errorf("interrupted: %v, %v", err, err2)
			}
		})
	}
}

func TestLocalKubeconfigIsPrivate(t *testing.T) {
	l := openLocal(t)
	must(t, l.SaveKubeconfig(t.Context(), key("c"), []byte("secret")))
	path := filepath.Join(l.Dir(), "namespaces", "default", "kubeconfigs", "c")
	for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		info, err := os.Stat(p)
		must(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s: %s", p, info.Mode())
		}
	}
	for _, bad := range []capi.Key{{Namespace: "default", Name: "../c"}, {Namespace: "..", Name: "c"}, {Namespace: "default"}, {Name: "c"}} {
		_, _, err := l.Kubeconfig(t.Context(), bad)
		if err2 := l.SaveKubeconfig(t.Context(), bad, []byte("x")); err == nil || err2 == nil {
			t.Errorf("%v: %v, %v", bad, err, err2)
		}
	}
}

func TestKubeconfigSecret(t *testing.T) {
	env := kubeServer(t)
	k := openKube(t, env.Config, 0)
	ctx := t.Context()
	c := capi.Key{Namespace: env.Namespace(t), Name: "c"}
	secrets := connect(t, env.Config).Core.Secrets(c.Namespace)
	get := func() *corev1.Secret {
		t.Helper()
		s, err := secrets.Get(ctx, "c-kubeconfig", metav1.GetOptions{})
		must(t, err)
		return s
	}

	var missing *NotSyncedError
	if err := k.SaveKubeconfig(ctx, c, []byte("one")); !errors.As(err, &missing) || missing.Kind != "Cluster" {
		t.Errorf("without a Cluster: %v", err)
	}
	cluster := newCluster(t, k, c)
	must(t, k.SaveKubeconfig(ctx, c, []byte("one")))
	s := get()
	ref := s.OwnerReferences
	if s.Type != "cluster.x-k8s.io/secret" || s.Labels["cluster.x-k8s.io/cluster-name"] != "c" || string(s.Data["value"]) != "one" || len(s.Data) != 1 ||
		len(ref) != 1 || ref[0].APIVersion != "cluster.x-k8s.io/v1beta1" || ref[0].Kind != "Cluster" || ref[0].Name != "c" || ref[0].UID != cluster.GetUID() || ref[0].Controller != nil {
		t.Errorf("type %s, labels %v, owners %v", s.Type, s.Labels, ref)
	}
	// As clusterctl get kubeconfig reads it.
	out := env.Kubectl(t, env.Kubeconfig(t), "get", "secret", "-n", c.Namespace, "c-kubeconfig", "-o", "jsonpath={.data.value}")
	if data, err := base64.StdEncoding.DecodeString(out); string(data) != "one" || err != nil {
		t.Errorf("got %s, %v", out, err)
	}
	must(t, k.SaveKubeconfig(ctx, c, []byte("one")))
	if got := get().ResourceVersion; got != s.ResourceVersion {
		t.Error("what was there already was written again")
	}
	must(t, k.SaveKubeconfig(ctx, c, []byte("two")))
	if got := get(); string(got.Data["value"]) != "two" || got.UID != s.UID {
		t.Error("it was not updated")
	}

	// What a manager finds only with the label and the owner is completed.
	edit := func(change func(*corev1.Secret)) {
		t.Helper()
		s := get()
		change(s)
		_, err := secrets.Update(ctx, s, metav1.UpdateOptions{})
		must(t, err)
	}
	edit(func(s *corev1.Secret) { s.Labels, s.OwnerReferences = map[string]string{"mine": "x"}, nil })
	must(t, k.SaveKubeconfig(ctx, c, []byte("two")))
	if s := get(); s.Labels["mine"] != "x" || s.Labels["cluster.x-k8s.io/cluster-name"] != "c" || len(s.OwnerReferences) != 1 {
		t.Errorf("%v, %v", s.Labels, s.OwnerReferences)
	}

	// What another controller keeps is not touched, and the secret is not told.
	yes := true
	edit(func(s *corev1.Secret) {
		s.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "controlplane.cluster.x-k8s.io/v1beta1", Kind: "KubeadmControlPlane", Name: "cp", UID: "1", Controller: &yes,
		}}
	})
	var foreign *ForeignSecretError
	err := k.SaveKubeconfig(ctx, c, []byte("three"))
	if !errors.As(err, &foreign) || !errors.Is(err, capi.ErrForeign) || !strings.Contains(err.Error(), "Secret "+c.String()+"-kubeconfig is not capplunder's: KubeadmControlPlane cp keeps it up to date") || strings.Contains(err.Error(), "three") {
		t.Errorf("got %v", err)
	}
	if string(get().Data["value"]) != "two" {
		t.Error("it was overwritten")
	}
	if data, ok, err := k.Kubeconfig(ctx, c); string(data) != "two" || !ok || err != nil {
		t.Errorf("reading it: %q, %v, %v", data, ok, err)
	}

	// Nor is one that somebody made for something else.
	must(t, secrets.Delete(ctx, "c-kubeconfig", metav1.DeleteOptions{}))
	_, err = secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "c-kubeconfig"}, Data: map[string][]byte{"x": nil}}, metav1.CreateOptions{})
	must(t, err)
	if err := k.SaveKubeconfig(ctx, c, []byte("three")); !errors.As(err, &foreign) || errors.Is(err, capi.ErrForeign) {
		t.Errorf("got %v", err)
	}
	if _, ok, err := k.Kubeconfig(ctx, c); ok || err == nil || !strings.Contains(err.Error(), `has no key "value"`) {
		t.Errorf("got %v, %v", ok, err)
	}
}
