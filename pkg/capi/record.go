package capi

import "time"

// Phase is a Machine's phase, capitalised as from v1alpha3 on.
type Phase string

// Phases.
const (
	PhasePending      Phase = "Pending"
	PhaseProvisioning Phase = "Provisioning"
	PhaseProvisioned  Phase = "Provisioned"
	PhaseRunning      Phase = "Running"
	PhaseFailed       Phase = "Failed"
	PhaseDeleting     Phase = "Deleting"
)

// Record is what capplunder knows about one machine: the claim (MAC, address,
// host name), how far it got, and what was observed. A Store keeps it; in the
// local store and in Kubernetes it is spread over status, spec.providerID and
// annotations of the Machine and the PlunderMachine.
type Record struct {
	Key                   // of the CAPI Machine
	PlunderMachine Key    // of its PlunderMachine
	Cluster        string // name of the CAPI Cluster, in the same namespace
	ControlPlane   bool
	Version        string // Kubernetes version asked for, "" for none
	DeploymentType string // plunder boot configuration

	// The claim. Recorded before anything is posted; never given twice.
	MAC       string // colon form, lower case
	Address   string // IPv4
	HostName  string // <machine>-<5 letters or digits>, chosen once
	Server    string // URL of the plunder server that has the machine
	ClaimedAt time.Time

	// Progress. Step is the last step that was proved done ("" for none), as in
	// pkg/apply/event. JobStep and JobID name the parlay job that was posted last
	// and is not yet known to have ended.
	Step    string
	JobStep string
	JobID   string
	JobAt   time.Time

	// Observations.
	BootID    string // /proc/sys/kernel/random/boot_id of the installed system
	OSReadyAt time.Time
	Disks     []Disk // seen when the OS was proved, for the wipe

	// Result.
	Kubernetes string // version installed on it ("vX.Y.Z"), "" for none
	ProviderID string // plunder://<mac>, set when the machine is ready
	Ready      bool
	Phase      Phase
	Reason     string // CamelCase, for a phase that needs one
	Message    string
	UpdatedAt  time.Time
}

// Disk is a disk of a host, as seen over SSH.
type Disk struct {
	Device string `json:"device"` // /dev/sda
	Bytes  int64  `json:"bytes"`
	ID     string `json:"id"`    // wwid or serial, "-" when the kernel knows none
	Flags  string `json:"flags"` // comma separated: root, mounted, usb, removable, ro, remote
}

// Claimed reports whether hardware was given to the machine.
func (r Record) Claimed() bool { return r.MAC != "" }

// ClusterRecord is what capplunder knows about one cluster.
type ClusterRecord struct {
	Key                // of the CAPI Cluster
	PlunderCluster Key // of its PlunderCluster, empty if it has none
	Endpoint       Endpoint
	// InitMachine is the control plane machine on which kubeadm init ran or runs.
	InitMachine string
	// Initialized is true once kubeadm init ended well.
	Initialized bool
	// CAHash is "sha256:<hex>" of the cluster CA's public key. Public.
	CAHash string
	Ready  bool
	Phase  Phase
}

// Event types, as Kubernetes has them.
const (
	EventNormal  = "Normal"
	EventWarning = "Warning"
)

// Event reasons.
const (
	ReasonNoHardware = "NoHardwareFound"
	ReasonProvision  = "PlunderProvision"
	ReasonInstall    = "PlunderInstall"
	ReasonDelete     = "PlunderDelete"
)

// Event is a Kubernetes-style event about one PlunderMachine. A store adds
// events of the same object, reason and message up.
type Event struct {
	Type      string    `json:"type"`
	Reason    string    `json:"reason"`
	Kind      string    `json:"kind"` // of the object, e.g. PlunderMachine
	Object    Key       `json:"object"`
	Message   string    `json:"message"`
	Count     int       `json:"count"`
	FirstTime time.Time `json:"firstTime"`
	LastTime  time.Time `json:"lastTime"`
}
