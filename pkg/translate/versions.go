package translate

import (
	"fmt"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const (
	// newestMinor is the newest that this package knows; newer ones are treated like it.
	newestMinor = 37
	// oldestPublic is the oldest minor with a public package repository: pkgs.k8s.io
	// begins at v1.24.0, and what came before was taken down in March 2024.
	oldestPublic = 24
	// oldestMinor is the oldest that kubeadm's configuration is written for.
	oldestMinor = 13
	// dockerEnd is the first minor whose kubelet cannot use Docker.
	dockerEnd = 24
	// cgroup2Minor is the first minor that runs on cgroup v2, cgroup1End the first whose
	// kubelet refuses cgroup v1 unless it is told otherwise.
	cgroup2Minor = 19
	cgroup1End   = 35

	containerdSocket = "unix:///run/containerd/containerd.sock"
)

// release is what holds from a minor on, until a later one says otherwise.
type release struct {
	from          int
	api           string // newest configuration version that its kubeadm reads
	upload        string // flag of kubeadm init that hands the control plane's keys on; "" for none
	minContainerd string // oldest containerd that its kubelet works with
}

// releases are the minors at which something changes, oldest first.
func releases() []release {
	const v = "kubeadm.k8s.io/"
	return []release{
		{13, v + "v1beta1", "", "1.5.0"},
		{14, v + "v1beta1", "--experimental-upload-certs", "1.5.0"},
		{15, v + "v1beta2", "--upload-certs", "1.5.0"},
		{22, v + "v1beta3", "--upload-certs", "1.5.0"},
		{26, v + "v1beta3", "--upload-certs", "1.6.0"},
		{31, v + "v1beta4", "--upload-certs", "1.6.0"},
		{36, v + "v1beta4", "--upload-certs", "2.0.0"},
	}
}

// release is the row of the version's minor; an unknown newer one has the newest row.
func (k *Kubernetes) release() release {
	rows := releases()
	last := rows[0]
	for _, r := range rows {
		if k.Minor >= r.from {
			last = r
		}
	}
	return last
}

// kubeadmAPI is the newest configuration version that kubeadm of this minor reads.
func (k *Kubernetes) kubeadmAPI() string { return k.release().api }

// minContainerd is the oldest containerd that kubelet of this minor works with.
func (k *Kubernetes) minContainerd() string { return k.release().minContainerd }

// uploadFlag is the flag of kubeadm init that uploads the control plane's keys,
// encrypted; "" when there is none.
func (k *Kubernetes) uploadFlag() string { return k.release().upload }

// docker reports whether kubelet runs containers with Docker.
func (k *Kubernetes) docker() bool {
	return k.Minor < dockerEnd && k.Runtime != capi.RuntimeContainerd
}

// criSocket is what kubeadm is told of the container runtime, "" for nothing: kubeadm
// of Docker's time finds Docker by itself.
func (k *Kubernetes) criSocket() string {
	switch {
	case k.docker():
		return ""
	case k.Minor < dockerEnd:
		return "/run/containerd/containerd.sock"
	}
	return containerdSocket
}

// unknownMinor says that a minor is newer than this package, or "".
func (k *Kubernetes) unknownMinor() string {
	if k.Minor <= newestMinor {
		return ""
	}
	return fmt.Sprintf("v%s is newer than this capplunder, which knows v1.%d and older: it is installed like v1.%d", k.Version, newestMinor, newestMinor)
}
