package state

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// dirPKI holds the keys of the control planes of clusters, by the cluster's name.
const dirPKI = "pki"

// pkiKeys are the names of the keys of a control plane, in the order in which they are
// stored: the cluster's CA is the last, so that keys which have it are complete.
func pkiKeys() []string {
	return []string{capi.PKIEtcd, capi.PKIFrontProxy, capi.PKIServiceAccount, capi.PKICluster}
}

// KeysError says that keys of a cluster's control plane are missing.
type KeysError struct {
	Cluster capi.Key
	Missing []string // what would have them, for people
	// Initialized: the cluster was installed with keys, so none can be made any more.
	Initialized bool
}

// Error implements error.
func (e *KeysError) Error() string {
	missing := strings.Join(e.Missing, ", ")
	if e.Initialized {
		return fmt.Sprintf("Cluster %s is installed, but keys of its control plane are not in the store (%s): restore them, for new ones would not fit; "+
			"if kubeadm made its keys, leave \"pki: tool\" out", e.Cluster, missing)
	}
	return fmt.Sprintf("Cluster %s: of the keys of its control plane, some are missing (%s): give all of them, or none", e.Cluster, missing)
}

// checkPKI makes sure that keys which are to be stored are complete.
func checkPKI(cluster capi.Key, pki capi.PKI) error {
	if missing := missingKeys(pki); len(missing) > 0 {
		return &KeysError{Cluster: cluster, Missing: missing}
	}
	return nil
}

// missingKeys are the names of what a PKI lacks.
func missingKeys(pki capi.PKI) []string {
	var missing []string
	for _, name := range pkiKeys() {
		if pair := pki[name]; len(pair.Cert) == 0 || len(pair.Key) == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}

// storedPair is a KeyPair as it is in a file.
type storedPair struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

func encodePKI(pki capi.PKI) ([]byte, error) {
	stored := map[string]storedPair{}
	for name, pair := range pki {
		stored[name] = storedPair{Cert: string(pair.Cert), Key: string(pair.Key)}
	}
	return yaml.Marshal(stored)
}

func decodePKI(cluster capi.Key, data []byte) (capi.PKI, error) {
	var stored map[string]storedPair
	if err := yaml.UnmarshalStrict(data, &stored); err != nil {
		return nil, fmt.Errorf("not the keys of a cluster") // the error of the parser may quote one
	}
	pki := capi.PKI{}
	for name, pair := range stored {
		pki[name] = capi.KeyPair{Cert: []byte(pair.Cert), Key: []byte(pair.Key)}
	}
	return pki, checkPKI(cluster, pki)
}

// SavePKI keeps the keys of a cluster's control plane, in namespaces/<ns>/pki/<name>,
// mode 0600. Keys that are there stay, and are what is returned.
func (l *Local) SavePKI(ctx context.Context, cluster capi.Key, pki capi.PKI) (kept capi.PKI, err error) {
	if err := checkPKI(cluster, pki); err != nil {
		return nil, err
	}
	path, err := l.clusterFile(dirPKI, cluster)
	if err != nil {
		return nil, err
	}
	err = l.write(ctx, func() error {
		if kept, err = l.readPKI(cluster); err != nil || kept != nil {
			return err
		}
		r, _, err := l.ClusterRecord(ctx, cluster)
		switch {
		case err != nil:
			return err
		case r.Initialized:
			return &KeysError{Cluster: cluster, Missing: []string{path}, Initialized: true}
		}
		data, err := encodePKI(pki)
		if err != nil {
			return err
		}
		kept = clonePKI(pki)
		return writeFile(path, data)
	})
	if err != nil {
		return nil, err
	}
	return kept, nil
}

// PKI returns the keys of a cluster's control plane; nil when there are none.
func (l *Local) PKI(ctx context.Context, cluster capi.Key) (capi.PKI, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read the keys of Cluster %s: %w", cluster, err)
	}
	return l.readPKI(cluster)
}

func (l *Local) readPKI(cluster capi.Key) (capi.PKI, error) {
	path, err := l.clusterFile(dirPKI, cluster)
	if err != nil {
		return nil, err
	}
	data, err := readFile(path)
	if err != nil || data == nil {
		return nil, err
	}
	pki, err := decodePKI(cluster, data)
	if err != nil {
		return nil, &CorruptError{Path: path, Err: err}
	}
	return pki, nil
}

// SavePKI is as Local.SavePKI.
func (m *Memory) SavePKI(ctx context.Context, cluster capi.Key, pki capi.PKI) (kept capi.PKI, err error) {
	if err := checkPKI(cluster, pki); err != nil {
		return nil, err
	}
	err = m.do(ctx, nil, func() error {
		if m.pki[cluster] == nil {
			if m.status[cluster].Initialized {
				return &KeysError{Cluster: cluster, Missing: pkiKeys(), Initialized: true}
			}
			m.pki[cluster] = clonePKI(pki)
		}
		kept = clonePKI(m.pki[cluster])
		return nil
	})
	return kept, err
}

// PKI is as Local.PKI.
func (m *Memory) PKI(ctx context.Context, cluster capi.Key) (pki capi.PKI, err error) {
	err = m.do(ctx, nil, func() error {
		pki = clonePKI(m.pki[cluster])
		return nil
	})
	return pki, err
}

func clonePKI(pki capi.PKI) capi.PKI {
	c := maps.Clone(pki)
	for name, pair := range c {
		c[name] = capi.KeyPair{Cert: bytes.Clone(pair.Cert), Key: bytes.Clone(pair.Key)}
	}
	return c
}
