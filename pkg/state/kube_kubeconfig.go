package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/retry"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// How Cluster API keeps the kubeconfig of a cluster (CAPI contract section 9).
const (
	secretType      = "cluster.x-k8s.io/secret" //nolint:gosec // the name of a type, not a secret
	secretValue     = "value"
	kubeconfigAfter = "-kubeconfig" // follows the cluster's name
)

// SaveKubeconfig keeps the kubeconfig of a cluster as the secret <cluster>-kubeconfig,
// where clusterctl get kubeconfig and Cluster API's controllers look for it. One that
// another controller owns, and one of another type, are somebody else's and stay as they
// are: then the error is a *ForeignSecretError. It wraps capi.ErrForeign if there is a
// kubeconfig in it, which is as good as one of ours.
func (k *Kubernetes) SaveKubeconfig(ctx context.Context, cluster capi.Key, kubeconfig []byte) error {
	owner, err := k.clusterOwner(ctx, cluster)
	if err != nil {
		return err
	}
	api := k.client.Core.Secrets(cluster.Namespace)
	name := cluster.Name + kubeconfigAfter
	what := "Secret " + cluster.Namespace + "/" + name
	fresh := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cluster.Namespace, Name: name,
			Labels:          map[string]string{capi.LabelCluster: cluster.Name, labelManagedBy: managedBy},
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Type: secretType,
		Data: map[string][]byte{secretValue: kubeconfig},
	}
	verb := "create"
	err = retry.OnError(retry.DefaultRetry, changedMeanwhile, func() error {
		verb = "get"
		there, err := api.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			verb = "create"
			_, err = api.Create(ctx, fresh, metav1.CreateOptions{FieldManager: fieldManager})
			return err
		}
		if err != nil {
			return err
		}
		next, err := updatedKubeconfig(there, fresh, what)
		if err != nil || next == nil {
			return err
		}
		verb = "update"
		_, err = api.Update(ctx, next, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	})
	var foreign *ForeignSecretError
	if errors.As(err, &foreign) {
		return err
	}
	return k.client.Explain(err, verb, what)
}

// changedMeanwhile: somebody else wrote between our reading and our writing.
func changedMeanwhile(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
}

// updatedKubeconfig is the secret as it should be, or nil when it is.
func updatedKubeconfig(there, fresh *corev1.Secret, what string) (*corev1.Secret, error) {
	if c := metav1.GetControllerOf(there); c != nil && !isCluster(*c) {
		return nil, &ForeignSecretError{
			Secret: what, Why: fmt.Sprintf("%s %s keeps it up to date", c.Kind, c.Name),
			Usable: there.Type == secretType && len(there.Data[secretValue]) > 0,
		}
	}
	if there.Type != secretType {
		return nil, &ForeignSecretError{Secret: what, Why: fmt.Sprintf("it has the type %q, not %q", there.Type, secretType)}
	}
	owned := false
	for _, ref := range there.OwnerReferences {
		owned = owned || isCluster(ref) && ref.UID == fresh.OwnerReferences[0].UID
	}
	cluster := fresh.Labels[capi.LabelCluster]
	if owned && there.Labels[capi.LabelCluster] == cluster && bytes.Equal(there.Data[secretValue], fresh.Data[secretValue]) {
		return nil, nil //nolint:nilnil // nothing to write
	}
	next := there.DeepCopy()
	metav1.SetMetaDataLabel(&next.ObjectMeta, capi.LabelCluster, cluster)
	if next.Data == nil {
		next.Data = map[string][]byte{}
	}
	next.Data[secretValue] = fresh.Data[secretValue]
	if !owned {
		next.OwnerReferences = append(next.OwnerReferences, fresh.OwnerReferences...)
	}
	return next, nil
}

// isCluster tells by group and kind, never by version (CAPI contract section 2).
func isCluster(ref metav1.OwnerReference) bool {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	return err == nil && gv.Group == capi.GroupCluster && ref.Kind == "Cluster"
}

// clusterOwner is a reference to the Cluster: its secrets go when it goes.
func (k *Kubernetes) clusterOwner(ctx context.Context, cluster capi.Key) (metav1.OwnerReference, error) {
	u, err := k.recallOrFetch(ctx, k.clusters(), cluster)
	if err != nil {
		return metav1.OwnerReference{}, err
	}
	if u == nil {
		return metav1.OwnerReference{}, &NotSyncedError{Kind: "Cluster", Key: cluster}
	}
	return metav1.OwnerReference{APIVersion: u.GetAPIVersion(), Kind: u.GetKind(), Name: u.GetName(), UID: u.GetUID()}, nil
}

// Kubeconfig reads the kubeconfig of a cluster, whoever stored it; ok is false when there is
// none.
func (k *Kubernetes) Kubeconfig(ctx context.Context, cluster capi.Key) (data []byte, ok bool, err error) {
	name := cluster.Name + kubeconfigAfter
	what := "Secret " + cluster.Namespace + "/" + name
	secret, err := k.client.Core.Secrets(cluster.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, false, nil
	case err != nil:
		return nil, false, k.client.Explain(err, "get", what)
	}
	data, ok = secret.Data[secretValue]
	if !ok {
		return nil, false, fmt.Errorf("%s has no key %q", what, secretValue)
	}
	return data, true, nil
}

// ForeignSecretError says that a secret which capplunder would write is not its own.
type ForeignSecretError struct {
	Secret string // "Secret ns/name"
	Why    string
	Usable bool // all the same it has what it should have
}

// Error implements error.
func (e *ForeignSecretError) Error() string {
	return fmt.Sprintf("%s is not capplunder's: %s; it was not changed", e.Secret, e.Why)
}

// Unwrap is capi.ErrForeign if its keeper has made what was to be written.
func (e *ForeignSecretError) Unwrap() error {
	if e.Usable {
		return capi.ErrForeign
	}
	return nil
}
