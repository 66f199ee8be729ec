// Package translate turns linked objects into what a plunder server understands:
// the ordered steps of each machine, deployments, and the actions that run over
// SSH. It is pure: no I/O, no clock, no randomness, no logging.
package translate

import (
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// Options change what is planned.
type Options struct {
	// SkipKubernetes stops after the operating system.
	SkipKubernetes bool
}

// Plan is everything that a run will try to make true.
type Plan struct {
	Machines []*MachinePlan // control planes first, then by key
}

// MachinePlan is the way of one machine.
type MachinePlan struct {
	Machine *capi.Machine
	// Init is true for the control plane machine on which kubeadm init runs.
	Init  bool
	Steps []event.Step
	// Deployment lacks MAC and host name: the claim brings them.
	Deployment wire.Deployment
	// MACs are the only MACs the machine may have, in order of preference; empty means any.
	// PinnedBy says why ("spec.macaddress", "spec.controlPlaneMacPool", ...).
	MACs     []string
	PinnedBy string
	// Kubernetes is nil when no Kubernetes is installed on it.
	Kubernetes *Kubernetes
}

// Kubernetes is what to install on one machine.
type Kubernetes struct {
	Version       string // X.Y.Z, without the v
	Minor         int
	ControlPlane  bool
	Cluster       string // cluster name
	PodCIDR       string
	ServiceCIDR   string
	Domain        string
	Endpoint      capi.Endpoint // given one, or zero: then the first control plane's address and 6443
	DockerVersion string
	Repo          capi.PackageRepo
}
