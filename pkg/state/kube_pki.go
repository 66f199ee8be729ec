package state

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// SavePKI keeps the keys of a cluster's control plane as the Secrets <cluster>-etcd,
// -proxy, -sa and -ca, where Cluster API has them (CAPI contract section 9); the Cluster
// owns them and they go with it. One that is there is never replaced. The four do not
// depend on each other, so a run that was killed between two of them is completed.
func (k *Kubernetes) SavePKI(ctx context.Context, cluster capi.Key, pki capi.PKI) (capi.PKI, error) {
	if err := checkPKI(cluster, pki); err != nil {
		return nil, err
	}
	owner, err := k.clusterOwner(ctx, cluster)
	if err != nil {
		return nil, err
	}
	there, err := k.readPKI(ctx, cluster)
	if err != nil {
		return nil, err
	}
	missing := missingKeys(there)
	if len(missing) > 0 {
		r, _, err := k.ClusterRecord(ctx, cluster)
		switch _, whole := there[capi.PKICluster]; {
		case err != nil:
			return nil, err
		case r.Initialized, whole:
			return nil, keysError(cluster, missing, r.Initialized)
		}
	}
	for _, name := range missing {
		at := pkiSecret(cluster, name)
		_, err := k.client.Core.Secrets(cluster.Namespace).Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: cluster.Namespace, Name: at,
				Labels:          map[string]string{capi.LabelCluster: cluster.Name, labelManagedBy: managedBy},
				OwnerReferences: []metav1.OwnerReference{owner},
			},
			Type: secretType,
			Data: map[string][]byte{corev1.TLSCertKey: pki[name].Cert, corev1.TLSPrivateKeyKey: pki[name].Key},
		}, metav1.CreateOptions{FieldManager: fieldManager})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return nil, k.client.Explain(err, "create", "Secret "+cluster.Namespace+"/"+at)
		}
	}
	if len(missing) == 0 {
		return there, nil
	}
	return k.PKI(ctx, cluster)
}

// PKI returns the keys of a cluster's control plane, whoever stored them; nil when there
// are none, or a run was killed while it stored them.
func (k *Kubernetes) PKI(ctx context.Context, cluster capi.Key) (capi.PKI, error) {
	pki, err := k.readPKI(ctx, cluster)
	if err != nil {
		return nil, err
	}
	if _, whole := pki[capi.PKICluster]; !whole {
		return nil, nil //nolint:nilnil // none is no error
	}
	if missing := missingKeys(pki); len(missing) > 0 {
		return nil, keysError(cluster, missing, false)
	}
	return pki, nil
}

// readPKI reads what there is.
func (k *Kubernetes) readPKI(ctx context.Context, cluster capi.Key) (capi.PKI, error) {
	names := pkiKeys()
	found := make([]capi.KeyPair, len(names))
	err := together(ctx, len(names), func(ctx context.Context, i int) error {
		at := pkiSecret(cluster, names[i])
		what := "Secret " + cluster.Namespace + "/" + at
		secret, err := k.client.Core.Secrets(cluster.Namespace).Get(ctx, at, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case err != nil:
			return k.client.Explain(err, "get", what)
		}
		found[i] = capi.KeyPair{Cert: secret.Data[corev1.TLSCertKey], Key: secret.Data[corev1.TLSPrivateKeyKey]}
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			if len(secret.Data[key]) == 0 {
				return fmt.Errorf("%s: %s has nothing under the key %q", objectID{"Cluster", cluster}, what, key)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	pki := capi.PKI{}
	for i, name := range names {
		if len(found[i].Key) > 0 {
			pki[name] = found[i]
		}
	}
	return pki, nil
}

// pkiSecret is the name of the Secret with a key of a cluster.
func pkiSecret(cluster capi.Key, name string) string { return cluster.Name + "-" + name }

func keysError(cluster capi.Key, names []string, initialized bool) error {
	e := &KeysError{Cluster: cluster, Initialized: initialized}
	for _, name := range names {
		e.Missing = append(e.Missing, "Secret "+cluster.Namespace+"/"+pkiSecret(cluster, name))
	}
	return e
}
