package kube

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/plunder-app/capplunder/internal/kubetest"
)

// joinToken is in the bootstrap data of every machine and must be seen nowhere else.
const joinToken = "p1ante.d0n0tshow1tatall"

// provider stands in for Cluster API's kubeadm bootstrap provider: it waits for what
// that waits for, then writes a Secret for each Machine and names it there.
type provider struct {
	namespace string
	machines  dynamic.ResourceInterface
	clusters  dynamic.ResourceInterface // PlunderClusters
	secrets   *kubernetes.Clientset
}

func newProvider(t *testing.T, s *site, version string) *provider {
	t.Helper()
	client, err := dynamic.NewForConfig(s.env.Config)
	if err != nil {
		t.Fatal(err)
	}
	core, err := kubernetes.NewForConfig(s.env.Config)
	if err != nil {
		t.Fatal(err)
	}
	resource := func(group, version, name string) dynamic.ResourceInterface {
		return client.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: name}).Namespace(s.namespace)
	}
	return &provider{
		namespace: s.namespace, secrets: core,
		machines: resource("cluster.x-k8s.io", version, "machines"),
		clusters: resource("infrastructure.cluster.x-k8s.io", "v1alpha1", "plunderclusters"),
	}
}

// run makes the data: the control plane's when the cluster's infrastructure is ready
// and its endpoint known, the workers' when the control plane is a node.
func (p *provider) run(ctx context.Context, controlPlane string, workers []string) error {
	endpoint := ""
	err := p.await(ctx, p.clusters, "c", func(o map[string]any) bool {
		host, _, _ := unstructured.NestedString(o, "spec", "controlPlaneEndpoint", "host")
		port, _, _ := unstructured.NestedInt64(o, "spec", "controlPlaneEndpoint", "port")
		ready, _, _ := unstructured.NestedBool(o, "status", "ready")
		endpoint = fmt.Sprintf("%s:%d", host, port)
		return ready && host != "" && port != 0
	})
	if err == nil {
		err = p.give(ctx, controlPlane, cloudConfig("kubeadm init", fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: c
controlPlaneEndpoint: %s
kubernetesVersion: v1.34.1
networking: {podSubnet: 10.244.0.0/16}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: %s}]
%s`, endpoint, joinToken, registration)))
	}
	if err == nil {
		err = p.await(ctx, p.machines, controlPlane, func(o map[string]any) bool {
			node, _, _ := unstructured.NestedString(o, "status", "nodeRef", "name")
			return node != ""
		})
	}
	for _, w := range workers {
		if err == nil {
			err = p.give(ctx, w, cloudConfig("kubeadm join", fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery: {bootstrapToken: {apiServerEndpoint: "%s", token: %s, unsafeSkipCAVerification: true}}
%s`, endpoint, joinToken, registration)))
		}
	}
	return err
}

const registration = `nodeRegistration:
  name: '{{ ds.meta_data.local_hostname }}'
  kubeletExtraArgs: [{name: provider-id, value: "plunder://{{ ds.meta_data.instance_id }}"}]
`

// cloudConfig is as Cluster API's provider writes it.
func cloudConfig(command, config string) string {
	return fmt.Sprintf(`## template: jinja
#cloud-config
write_files:
- path: /run/kubeadm/kubeadm.yaml
  permissions: '0640'
  content: |
    %s
- path: /run/cluster-api/placeholder
  content: ""
runcmd:
- %s --config /run/kubeadm/kubeadm.yaml && echo success > /run/cluster-api/bootstrap-success.complete
`, strings.ReplaceAll(strings.TrimSpace(config), "\n", "\n    "), command)
}

func (p *provider) give(ctx context.Context, machine, data string) error {
	name := machine + "-data"
	_, err := p.secrets.CoreV1().Secrets(p.namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: "cluster.x-k8s.io/secret",
		StringData: map[string]string{"value": data, "format": "cloud-config"},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"spec":{"bootstrap":{"dataSecretName":%q}}}`, name)
	_, err = p.machines.Patch(ctx, machine, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func (p *provider) await(ctx context.Context, in dynamic.ResourceInterface, name string, ok func(map[string]any) bool) error {
	for {
		o, err := in.Get(ctx, name, metav1.GetOptions{})
		if err == nil && ok(o.Object) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the provider waits for %s: %w", name, ctx.Err()), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Machines whose bootstrap configuration is made by a provider: apply waits for the
// data, says for what, and runs it. The cluster has no endpoint until apply names one,
// for which the provider waits. The second run writes nothing, and nobody but the
// provider's own Secret shows the data.
func TestBootstrapProvider(t *testing.T) {
	for _, v := range []struct {
		release, version string
		options          []string
	}{
		{capi, "v1beta1", []string{"--cni", "https://mirror.example.com/cni.yaml"}}, // which is not ours to install here
		{"v1.14.2", "v1beta2", nil},
		{"v0.4.8", "v1alpha4", nil},
		{"v0.3.25", "v1alpha3", nil},
	} {
		t.Run(v.version, func(t *testing.T) {
			env := kubetest.ServerWith(t, v.release)
			install(t, env)
			s := newSite(t, env, newRack(t, 3), v.version, 1)
			s.withProvider(v.version)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			provided := make(chan error, 1)
			p := newProvider(t, s, v.version)
			go func() { provided <- p.run(ctx, "cp", []string{"w01"}) }()
			apply := append(s.apply(), append([]string{"-v", "9", "--kubernetes-timeout", "40s"}, v.options...)...)
			r := s.run(apply...)
			cancel()
			if err := <-provided; err != nil {
				t.Error(err)
			}
			if r.code != 0 || !strings.Contains(r.stdout+r.stderr, "waiting for KubeadmConfig "+s.namespace+"/any to make the bootstrap data") {
				t.Fatalf("%s", r)
			}
			s.provisioned()
			for name, rec := range s.records() {
				shown := s.kubectl("get", "machines."+v.version+".cluster.x-k8s.io", name, "-o", "jsonpath={.spec.providerID} {.status.phase} {.status.nodeRef.name}")
				if want := rec.ProviderID + " Running " + rec.HostName; shown != want {
					t.Errorf("Machine %s shows %q, want %q", name, shown, want)
				}
			}

			env.ResetAudit(t)
			for _, args := range [][]string{apply, append([]string{"apply", "--cluster", "c"}, v.options...)} {
				if again := s.must(args...); strings.Count(again.stdout, `"type":"Skipped"`) != 2 {
					t.Errorf("%s", again)
				}
			}
			for _, e := range env.Audit(t) {
				if e.Write() && strings.HasPrefix(e.UserAgent, "capplunder") {
					t.Errorf("write: %+v", e)
				}
			}

			seen := map[string]string{"stdout": r.stdout, "stderr": r.stderr}
			for _, kind := range []string{"clusters", "machines", "plunderclusters", "plundermachines", "events", "leases", "configmaps"} {
				seen[kind] = s.kubectl("get", kind, "-o", "yaml", "--show-managed-fields")
			}
			seen["secrets of capplunder"] = s.kubectl("get", "secrets", "-o", "yaml", "--field-selector", "metadata.name!=cp-data,metadata.name!=w01-data")
			for _, name := range s.machines {
				seen["logs of "+name] = s.must("logs", "machine", name).stdout
			}
			for what, text := range seen {
				for _, form := range forms(joinToken) {
					if strings.Contains(text, form) {
						t.Errorf("the bootstrap data is in %s", what)
					}
				}
			}
		})
	}
}

// forms are a secret as it is, and the parts of it that base64 shows wherever it begins.
func forms(secret string) []string {
	all := []string{secret}
	for skip := range 3 {
		part := secret[skip:]
		all = append(all, base64.StdEncoding.EncodeToString([]byte(part[:len(part)/3*3])))
	}
	return all
}

// withProvider leaves the bootstrap data of all machines to a provider.
func (s *site) withProvider(version string) {
	s.t.Helper()
	file := filepath.Join(s.manifests, "cluster.yaml")
	data, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	config := "{apiVersion: bootstrap.cluster.x-k8s.io/" + version + ", kind: KubeadmConfig, name: any}"
	if version == "v1beta2" {
		config = "{apiGroup: bootstrap.cluster.x-k8s.io, kind: KubeadmConfig, name: any}"
	}
	text := strings.ReplaceAll(string(data), `{dataSecretName: ""}`, "{configRef: "+config+"}")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// A control plane provider makes no Machine before the cluster's infrastructure is
// ready, which it is when its endpoint is known: no Machine is needed for that.
func TestClusterWithoutMachinesGetsReady(t *testing.T) {
	env := kubetest.ServerWith(t, capi)
	install(t, env)
	s := newSite(t, env, newRack(t, 1), "v1beta1", 0)
	s.kubectl("apply", "-f", s.manifests)
	s.kubectl("delete", "machine,plundermachine", "--all")
	apply := []string{"apply", "--cluster", "c"}
	if r := s.must(apply...); !strings.Contains(r.stderr, "no Machines for plunder yet, and no control plane endpoint") {
		t.Errorf("%s", r)
	}
	ready := func() string { return s.kubectl("get", "plundercluster", "c", "-o", "jsonpath={.status.ready}") }
	if ready() != "" {
		t.Errorf("ready without an endpoint: %q", ready())
	}
	s.kubectl("patch", "plundercluster", "c", "--type=merge", "-p", `{"spec":{"controlPlaneEndpoint":{"host":"10.1.1.1","port":6443}}}`)
	s.must(apply...)
	if ready() != "true" {
		t.Errorf("with an endpoint: ready is %q", ready())
	}
	env.ResetAudit(t)
	s.must(apply...)
	for _, e := range env.Audit(t) {
		if e.Write() && strings.HasPrefix(e.UserAgent, "capplunder") && e.Namespace == s.namespace {
			t.Errorf("write: %+v", e)
		}
	}
}
