package state

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/cloudconfig"
)

// secretFormat is the key of a bootstrap Secret that names the format of its value.
const secretFormat = "format"

// BootstrapData implements the Store interface of pkg/apply. Where it comes from is read
// afresh: a Cluster API manager names the Secret in the Machine when a bootstrap
// provider has written it (CAPI contract section 9).
func (k *Kubernetes) BootstrapData(ctx context.Context, machine capi.Key) (*capi.BootstrapData, string, error) {
	id := objectID{"Machine", machine}
	m, err := k.fetch(ctx, k.machines(), machine)
	switch {
	case err != nil:
		return nil, "", err
	case m == nil:
		return nil, "", &NotSyncedError{Kind: "Machine", Key: machine}
	}
	bootstrap := object(m.Object).at("spec", "bootstrap")
	if inline, _ := bootstrap["data"].(string); inline != "" { // v1alpha2
		value, err := cloudconfig.Decode(inline)
		if err != nil {
			return nil, "", fmt.Errorf("%s: spec.bootstrap.data: %w", id, err)
		}
		return &capi.BootstrapData{Format: capi.FormatCloudConfig, Value: value}, "", nil
	}
	config := object(bootstrap).at("configRef")
	name, _ := bootstrap["dataSecretName"].(string)
	if name == "" {
		if config == nil {
			return nil, "", fmt.Errorf("%s: spec.bootstrap names neither a Secret nor a configuration", id)
		}
		return nil, "waiting for " + k.provider(ctx, machine.Namespace, config, "to make the bootstrap data"), nil
	}
	what := "Secret " + machine.Namespace + "/" + name
	secret, err := k.client.Core.Secrets(machine.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) && config == nil:
		return nil, "waiting for " + what + ": there is none", nil
	case apierrors.IsNotFound(err):
		return nil, fmt.Sprintf("waiting for %s, which %s", what, k.provider(ctx, machine.Namespace, config, "is to write")), nil
	case err != nil:
		return nil, "", k.client.Explain(err, "get", what)
	}
	value := secret.Data[secretValue]
	if len(value) == 0 {
		return nil, "", fmt.Errorf("%s: its bootstrap data, %s, has nothing under the key %q", id, what, secretValue)
	}
	return &capi.BootstrapData{Format: cmp.Or(string(secret.Data[secretFormat]), capi.FormatCloudConfig), Value: value}, "", nil
}

// provider is a sentence about the bootstrap configuration from which a provider makes
// data: "KubeadmConfig ns/name <is to write>", and what it says about itself, as far as
// that can be read. It is for people: nothing depends on it.
func (k *Kubernetes) provider(ctx context.Context, namespace string, ref object, role string) string {
	kind, name := ref.text("kind"), ref.text("name")
	what := fmt.Sprintf("%s %s/%s", kind, namespace, name)
	gv, err := k.configVersion(ctx, ref)
	var config *unstructured.Unstructured
	if err == nil {
		// The plural as Cluster API computes it (CAPI contract section 1).
		gvr, _ := meta.UnsafeGuessKindToResource(gv.WithKind(kind))
		config, err = k.client.Dynamic.Resource(gvr).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	switch {
	case apierrors.IsNotFound(err):
		return what + " " + role + ": there is none (kubectl apply it)"
	case err != nil: // the role allows reading KubeadmConfigs only
		return what + " " + role
	}
	return what + " " + role + ": " + configSays(config.Object)
}

// configVersion is the API version in which a reference's object is read. From v1beta2
// on references carry none: then it is the one that the API server prefers.
func (k *Kubernetes) configVersion(ctx context.Context, ref object) (schema.GroupVersion, error) {
	group := ref.text("apiGroup")
	if group == "" {
		return schema.ParseGroupVersion(ref.text("apiVersion"))
	}
	if strings.Contains(group, "/") {
		return schema.GroupVersion{}, errors.New("not the name of an API group")
	}
	raw, err := k.client.Core.RESTClient().Get().AbsPath("/apis", group).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if err != nil {
		return schema.GroupVersion{}, err
	}
	var served metav1.APIGroup
	if err := json.Unmarshal(raw, &served); err != nil {
		return schema.GroupVersion{}, err
	}
	return schema.ParseGroupVersion(served.PreferredVersion.GroupVersion)
}

// configSays is what a bootstrap configuration says about how far it is: its failure,
// else the first condition that is not met.
func configSays(config object) string {
	status := object(config.at("status"))
	for _, at := range [][]string{
		{"failureMessage"}, {"deprecated", "v1beta1", "failureMessage"}, // the latter from v1beta2 on
		{"errorMessage"}, // v1alpha2
	} {
		if message := status.text(at...); message != "" {
			return "it failed: " + clip(message)
		}
	}
	conditions, _ := status["conditions"].([]any)
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		if o := object(condition); o.text("status") != "True" && o.text("type") != "Paused" {
			return fmt.Sprintf("%s is %s: %s", o.text("type"), o.text("status"), clip(cmp.Or(o.text("message"), o.text("reason"))))
		}
	}
	if len(status) == 0 {
		return "no bootstrap provider has looked at it yet"
	}
	return "it says nothing about why not yet"
}
