package state

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
)

const cloudConfig = "## template: jinja\n#cloud-config\nruncmd: [echo s3cret]\n"

// A store that only capplunder writes to has no bootstrap data, and says what to do.
func TestBootstrapDataMustBeGiven(t *testing.T) {
	for _, of := range storesHere() {
		t.Run(of.name, func(t *testing.T) {
			s := of.open(t)
			set := decode(t, strings.Replace(manifests("v1beta1", "default"), `dataSecretName: ""`, `dataSecretName: boot`, 1))
			set.Machines[0].GivenBootstrap = &capi.BootstrapData{Format: capi.FormatCloudConfig, Value: []byte(cloudConfig)}
			var missing *NotSyncedError
			if _, _, err := s.BootstrapData(t.Context(), key("cp")); !errors.As(err, &missing) {
				t.Errorf("before it was given: %v", err)
			}
			must(t, s.Sync(t.Context(), set))
			var none *NoBootstrapDataError
			data, seen, err := s.BootstrapData(t.Context(), key("cp"))
			if data != nil || seen != "" || !errors.As(err, &none) || errors.Is(err, capi.ErrUnavailable) || none.Machine != key("cp") {
				t.Errorf("%v, %q, %v", data, seen, err)
			}
			for _, part := range []string{"--bootstrap-data default/cp=FILE", "among the manifests", s.String()} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v: lacks %q", err, part)
				}
			}
			if l, ok := s.(*Local); ok {
				if none.Secret != "default/boot" {
					t.Errorf("Secret %q", none.Secret)
				}
				for path, text := range l.snapshot(t) {
					if strings.Contains(text, "s3cret") {
						t.Errorf("%s has the data", path)
					}
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, _, err := s.BootstrapData(ctx, key("cp")); !errors.Is(err, context.Canceled) {
				t.Errorf("interrupted: %v", err)
			}
		})
	}
}

// bootstrapper makes machines whose bootstrap data a provider is to write.
type bootstrapper struct {
	t  *testing.T
	ns string
	k  *Kubernetes // with the shipped role
	// admin has all rights.
	admin *Kubernetes
}

func newBootstrapper(t *testing.T) *bootstrapper {
	t.Helper()
	env, ns, k := shared(t)
	b := &bootstrapper{t: t, ns: ns, k: k}
	var err error
	b.admin, err = OpenKubernetes(connect(t, env.Config), KubernetesOptions{})
	must(t, err)
	for _, kind := range []string{"KubeadmConfig", "OtherConfig"} {
		crd := object(given(t, fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[2]ss.bootstrap.cluster.x-k8s.io}
spec:
  group: bootstrap.cluster.x-k8s.io
  names: {kind: %[1]s, plural: %[2]ss, singular: %[2]s, listKind: %[1]sList}
  scope: Namespaced
  versions:
  - {name: v1beta2, served: true, storage: true, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
  - {name: v1beta1, served: true, storage: false, subresources: {status: {}}, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`, kind, strings.ToLower(kind))))
		gvr := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
		_, err := b.admin.client.Dynamic.Resource(gvr).Create(t.Context(), &unstructured.Unstructured{Object: crd}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		eventually(t, func() error {
			_, err := b.configs(kind).List(t.Context(), metav1.ListOptions{})
			return err
		})
	}
	return b
}

func (b *bootstrapper) configs(kind string) interface {
	Create(ctx context.Context, obj *unstructured.Unstructured, options metav1.CreateOptions, subresources ...string) (*unstructured.Unstructured, error)
	UpdateStatus(ctx context.Context, obj *unstructured.Unstructured, options metav1.UpdateOptions) (*unstructured.Unstructured, error)
	List(ctx context.Context, opts metav1.ListOptions) (*unstructured.UnstructuredList, error)
} {
	gvr := schema.GroupVersionResource{Group: "bootstrap.cluster.x-k8s.io", Version: "v1beta1", Resource: strings.ToLower(kind) + "s"}
	return b.admin.client.Dynamic.Resource(gvr).Namespace(b.ns)
}

// machine makes a Machine with this spec.bootstrap (JSON).
func (b *bootstrapper) machine(name, bootstrap string) capi.Key {
	b.t.Helper()
	u := &unstructured.Unstructured{Object: given(b.t, fmt.Sprintf(`
apiVersion: cluster.x-k8s.io/v1beta1
kind: Machine
metadata: {name: %s, namespace: %s}
spec: {clusterName: c, bootstrap: %s, infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1, kind: PlunderMachine, name: x}}
`, name, b.ns, bootstrap))}
	_, err := b.k.at(b.k.machines(), "v1beta1", b.ns).Create(b.t.Context(), u, metav1.CreateOptions{})
	must(b.t, err)
	return capi.Key{Namespace: b.ns, Name: name}
}

// wait asks for data that is not there yet.
func (b *bootstrapper) wait(m capi.Key, want string) {
	b.t.Helper()
	data, seen, err := b.k.BootstrapData(b.t.Context(), m)
	if want = strings.ReplaceAll(want, "NS", b.ns); data != nil || seen != want || err != nil {
		b.t.Errorf("%v, %v\ngot  %s\nwant %s", data, err, seen, want)
	}
}

func (b *bootstrapper) secret(name string, data map[string]string) {
	b.t.Helper()
	_, err := b.admin.client.Core.Secrets(b.ns).Create(b.t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data,
	}, metav1.CreateOptions{})
	must(b.t, err)
}

// config makes a bootstrap configuration, and says something in its status.
func (b *bootstrapper) config(kind, name, status string) {
	b.t.Helper()
	u := &unstructured.Unstructured{Object: given(b.t, fmt.Sprintf(
		`{apiVersion: bootstrap.cluster.x-k8s.io/v1beta1, kind: %s, metadata: {name: %s, namespace: %s}, spec: {}}`, kind, name, b.ns))}
	made, err := b.configs(kind).Create(b.t.Context(), u, metav1.CreateOptions{})
	must(b.t, err)
	if status != "" {
		made.Object["status"] = given(b.t, status)
		_, err = b.configs(kind).UpdateStatus(b.t.Context(), made, metav1.UpdateOptions{})
		must(b.t, err)
	}
}

func TestKubeBootstrapData(t *testing.T) {
	b := newBootstrapper(t)
	var missing *NotSyncedError
	if _, _, err := b.k.BootstrapData(t.Context(), capi.Key{Namespace: b.ns, Name: "none"}); !errors.As(err, &missing) {
		t.Errorf("of no Machine: %v", err)
	}

	// A Secret that somebody is still to make.
	hand := b.machine("hand", `{dataSecretName: by-hand}`)
	b.wait(hand, "waiting for Secret NS/by-hand: there is none")
	b.secret("by-hand", map[string]string{"value": cloudConfig})
	data, seen, err := b.k.BootstrapData(t.Context(), hand)
	if err != nil || seen != "" || data == nil || data.Format != "cloud-config" || string(data.Value) != cloudConfig {
		t.Fatalf("%v, %q, %v", data, seen, err)
	}
	if shown := fmt.Sprintf("%v %+v %#v", data, data, data); strings.Contains(shown, "s3cret") {
		t.Error(shown)
	}

	b.secret("other-format", map[string]string{"value": "{}", "format": "ignition"})
	data, _, err = b.k.BootstrapData(t.Context(), b.machine("ignition", `{dataSecretName: other-format}`))
	if err != nil || data.Format != "ignition" {
		t.Errorf("%v, %v", data, err)
	}

	for i, content := range []map[string]string{nil, {"value": ""}, {"data": "s3cret"}} {
		name := fmt.Sprintf("empty-%d", i)
		b.secret(name, content)
		data, _, err = b.k.BootstrapData(t.Context(), b.machine(name, `{dataSecretName: `+name+`}`))
		if data != nil || err == nil || errors.Is(err, capi.ErrUnavailable) || !strings.Contains(err.Error(), `Secret `+b.ns+`/`+name+`, has nothing under the key "value"`) {
			t.Errorf("%v, %v", data, err)
		}
	}

	if _, _, err := b.k.BootstrapData(t.Context(), b.machine("nothing", `{dataSecretName: ""}`)); err == nil {
		t.Error("data for a machine that wants none")
	}
}

// What a provider says while its data is awaited. It does so with the shipped role, and
// without a right to see it the rest still works.
func TestKubeBootstrapProvider(t *testing.T) {
	b := newBootstrapper(t)
	ref := func(kind, name string) string {
		return fmt.Sprintf(`{configRef: {apiVersion: bootstrap.cluster.x-k8s.io/v1beta1, kind: %s, name: %s}}`, kind, name)
	}
	for _, tt := range []struct{ name, status, want string }{
		{"silent", "", ": no bootstrap provider has looked at it yet"},
		{
			"waits", `{conditions: [{type: Paused, status: "False"}, {type: CertificatesAvailable, status: "True"},
			  {type: DataSecretAvailable, status: "False", reason: WaitingForClusterInfrastructure}]}`,
			": DataSecretAvailable is False: WaitingForClusterInfrastructure",
		},
		{"told", `{conditions: [{type: Ready, status: "False", reason: R, message: Waiting for the control plane}]}`, ": Ready is False: Waiting for the control plane"},
		{"failed", `{failureMessage: no such CA, conditions: [{type: Ready, status: "False"}]}`, ": it failed: no such CA"},
		{"failed2", `{deprecated: {v1beta1: {failureMessage: no such CA}}}`, ": it failed: no such CA"},
		{"fine", `{conditions: [{type: Ready, status: "True"}]}`, ": it says nothing about why not yet"},
	} {
		b.config("KubeadmConfig", tt.name, tt.status)
		b.wait(b.machine(tt.name, ref("KubeadmConfig", tt.name)), "waiting for KubeadmConfig NS/"+tt.name+" to make the bootstrap data"+tt.want)
	}
	b.wait(b.machine("lost", ref("KubeadmConfig", "lost")), "waiting for KubeadmConfig NS/lost to make the bootstrap data: there is none (kubectl apply it)")
	b.wait(b.machine("alien", ref("AlienConfig", "alien")), "waiting for AlienConfig NS/alien to make the bootstrap data")

	b.config("OtherConfig", "other", `{failureMessage: nobody may see this}`)
	b.wait(b.machine("other", ref("OtherConfig", "other")), "waiting for OtherConfig NS/other to make the bootstrap data")

	// The Secret is named, but not there: a manager was faster than its provider.
	b.wait(b.machine("named", strings.Replace(ref("KubeadmConfig", "told"), "{", "{dataSecretName: named, ", 1)),
		"waiting for Secret NS/named, which KubeadmConfig NS/told is to write: Ready is False: Waiting for the control plane")

	// As references are from v1beta2 on.
	for _, tt := range []struct{ ref, want string }{
		{`{apiGroup: bootstrap.cluster.x-k8s.io, kind: KubeadmConfig, name: told}`, "KubeadmConfig NS/told waits: Ready is False: Waiting for the control plane"},
		{`{apiGroup: nowhere.x-k8s.io, kind: KubeadmConfig, name: told}`, "KubeadmConfig NS/told waits: there is none (kubectl apply it)"},
		{`{apiGroup: ../../api/v1, kind: KubeadmConfig, name: told}`, "KubeadmConfig NS/told waits"},
	} {
		if got := b.k.provider(t.Context(), b.ns, given(t, tt.ref), "waits"); got != strings.ReplaceAll(tt.want, "NS", b.ns) {
			t.Errorf("%s: %s", tt.ref, got)
		}
	}
}

func TestKubeBootstrapDataUnavailable(t *testing.T) {
	env := kubetest.ServerWith(t, kubetest.CAPIv1beta1)
	b := newBootstrapper(t)
	m := b.machine("m", `{dataSecretName: boot}`)
	k := killedStore(t, env, b.ns, 0, false)
	_, err := k.client.Core.Secrets(b.ns).Create(t.Context(), &corev1.Secret{}, metav1.CreateOptions{}) // the network is gone
	if !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	if _, _, err := k.BootstrapData(t.Context(), m); !errors.Is(err, capi.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
