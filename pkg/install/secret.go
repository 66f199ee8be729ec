package install

import (
	"context"
	"encoding/base64"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/kube"
)

const (
	// SecretName is the name of the secret with the configuration of the plunder client.
	// Name and key are those of 2019, when people made it with
	// `kubectl create secret generic plunder --from-file=./plunderclient.yaml`.
	SecretName = "plunder"
	// SecretKey is the key in it.
	SecretKey = "plunderclient.yaml"

	// labelClientConfig ("true") is on secrets that Install made, wherever they are.
	labelClientConfig = "capplunder.plunder-app.io/client-configuration"
)

// object is the secret as it is stored.
func (s *Secret) object() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "Secret",
		"metadata": map[string]any{
			"namespace": s.Key.Namespace,
			"name":      s.Key.Name,
			"labels": map[string]any{
				crd.LabelManagedBy:       crd.ManagedBy,
				"app.kubernetes.io/name": "capplunder",
				labelClientConfig:        "true",
			},
		},
		"type": "Opaque",
		"data": map[string]any{SecretKey: base64.StdEncoding.EncodeToString(s.Data)},
	}}
}

// ReadSecret returns the configuration of the plunder client that a secret holds. A
// secret without it is a *RefusedError, as is none.
func ReadSecret(ctx context.Context, c *kube.Client, key capi.Key) ([]byte, error) {
	secret, err := c.Core.Secrets(key.Namespace).Get(ctx, key.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &RefusedError{
			Reason: fmt.Sprintf("%s has no secret %s with the configuration of the plunder client", c.Target, key),
			Next:   fmt.Sprintf("capplunder init --plunder-config %s --plunder-secret %s", SecretKey, key),
		}
	}
	if err != nil {
		return nil, c.Explain(err, "get", "Secret "+key.String())
	}
	data, ok := secret.Data[SecretKey]
	if !ok {
		return nil, &RefusedError{
			Reason: fmt.Sprintf("the secret %s of %s has no key %s", key, c.Target, SecretKey),
			Next:   fmt.Sprintf("capplunder init --plunder-config %s --plunder-secret %s", SecretKey, key),
		}
	}
	return data, nil
}
