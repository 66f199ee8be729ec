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
	// Defaults are used where the objects say nothing.
	Defaults capi.Defaults
	// Providers: a bootstrap provider may be at work where the objects are, and write
	// bootstrap data that is not there yet.
	Providers bool
}

// Plan is everything that a run will try to make true.
type Plan struct {
	Machines []*MachinePlan // control planes first, then by key
}

// MachinePlan is the way of one machine.
type MachinePlan struct {
	Machine *capi.Machine
	// Init is true for the control plane machine on which kubeadm init runs if the
	// cluster is new: of the control planes, the first by key.
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
	Version      string // X.Y.Z, without the v
	Minor        int
	ControlPlane bool
	// HA: the cluster has, or is to have, more than one control plane machine.
	HA bool
	// Single: there is no other machine in the cluster, so pods may run on this one.
	Single bool
	// Bootstrapped: bootstrap data is run in place of a kubeadm configuration of ours.
	Bootstrapped bool

	Cluster     string // cluster name
	PodCIDR     string // comma separated
	ServiceCIDR string // comma separated
	Domain      string
	Endpoint    capi.Endpoint // given one, or zero: then the first control plane's address and 6443

	capi.InstallOptions
	capi.ClusterOptions
}
