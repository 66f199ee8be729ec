package state

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// dirKubeconfigs holds the kubeconfigs of clusters, by their name.
const dirKubeconfigs = "kubeconfigs"

// SaveKubeconfig keeps the kubeconfig of a cluster, in
// namespaces/<ns>/kubeconfigs/<name>, mode 0600. It is as good as a password.
func (l *Local) SaveKubeconfig(ctx context.Context, cluster capi.Key, kubeconfig []byte) error {
	path, err := l.clusterFile(dirKubeconfigs, cluster)
	if err != nil {
		return err
	}
	return l.write(ctx, func() error {
		old, err := readFile(path)
		if err != nil || old != nil && bytes.Equal(old, kubeconfig) {
			return err
		}
		return writeFile(path, kubeconfig)
	})
}

// Kubeconfig returns the kubeconfig of a cluster; ok is false when there is none.
func (l *Local) Kubeconfig(ctx context.Context, cluster capi.Key) (data []byte, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, fmt.Errorf("read the kubeconfig of Cluster %s: %w", cluster, err)
	}
	path, err := l.clusterFile(dirKubeconfigs, cluster)
	if err != nil {
		return nil, false, err
	}
	data, err = readFile(path)
	return data, data != nil && err == nil, err
}

// clusterFile is the path of a file about a cluster. Names that Kubernetes would not
// take are refused, as path does.
func (l *Local) clusterFile(dir string, cluster capi.Key) (string, error) {
	if problems := validation.IsDNS1123Label(cluster.Namespace); len(problems) > 0 {
		return "", fmt.Errorf("%s of Cluster %q: the namespace is not a valid name: %s", dir, cluster, problems[0])
	}
	if problems := validation.IsDNS1123Subdomain(cluster.Name); len(problems) > 0 {
		return "", fmt.Errorf("%s of Cluster %q: not a valid name: %s", dir, cluster, problems[0])
	}
	return filepath.Join(l.dir, "namespaces", cluster.Namespace, dir, cluster.Name), nil
}

// givenUp reports whether the record of a cluster says, unlike the one before, that its
// control plane is gone. Its kubeconfig and its keys are of no use then.
func givenUp(old, now capi.ClusterRecord) bool { return old.InitMachine != "" && now.InitMachine == "" }

// dropKeys removes the kubeconfig and the keys of a cluster.
func (l *Local) dropKeys(cluster capi.Key) error {
	for _, dir := range []string{dirKubeconfigs, dirPKI} {
		path, err := l.clusterFile(dir, cluster)
		if err != nil {
			return err
		}
		if err := removeFile(path); err != nil {
			return err
		}
	}
	return nil
}

// SaveKubeconfig is as Local.SaveKubeconfig.
func (m *Memory) SaveKubeconfig(ctx context.Context, cluster capi.Key, kubeconfig []byte) error {
	return m.do(ctx, nil, func() error {
		m.kubeconfigs[cluster] = bytes.Clone(kubeconfig)
		return nil
	})
}

// Kubeconfig is as Local.Kubeconfig.
func (m *Memory) Kubeconfig(ctx context.Context, cluster capi.Key) (data []byte, ok bool, err error) {
	err = m.do(ctx, nil, func() error {
		data, ok = m.kubeconfigs[cluster]
		data = bytes.Clone(data)
		return nil
	})
	return data, ok, err
}
