package capi

import (
	"errors"
	"slices"
	"time"
)

// ErrUnavailable is wrapped by errors of a store or a cluster that does not answer
// now; what was asked may be asked again.
var ErrUnavailable = errors.New("no answer")

// ErrMACTaken is wrapped by the error of a store that will not give a MAC to a
// machine because another one holds it.
var ErrMACTaken = errors.New("the MAC is taken")

// ErrPaused is wrapped by the error of a store that is to begin a deletion of what
// somebody has paused.
var ErrPaused = errors.New("paused: nothing is done about it")

// ErrPending is wrapped by the error of a store in which somebody else has to do
// something first; what was asked is to be asked again.
var ErrPending = errors.New("not done yet")

// ErrProtected is wrapped by the error of a store that is to begin the deletion of what
// somebody has protected (AnnotationProtected).
var ErrProtected = errors.New("protected")

// ErrForeign is wrapped by the error of a store that finds something kept up to date by
// somebody else, who must not be overruled.
var ErrForeign = errors.New("somebody else keeps it")

// LockRequest is what the lock of a store is wanted for.
type LockRequest struct {
	Command  string // "apply", for the people whom it keeps out
	Clusters []Key  // that the run works on
	// Patience is how long to wait for another run that is alive. Finding out whether it
	// is may take longer.
	Patience time.Duration
	// Observe, if not nil, is told what Lock waits for.
	Observe func(string)
}

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
// host name), how far it got, and what was observed. A Store keeps it: its JSON
// in an annotation of the PlunderMachine is what is read back, and it is shown in
// status and spec.providerID of the Machine and the PlunderMachine. The JSON
// names are a file format: add fields, but do not rename them.
type Record struct {
	Key                   // of the CAPI Machine
	PlunderMachine Key    `json:"plunderMachine,omitzero"` // of its PlunderMachine
	Cluster        string `json:"cluster,omitempty"`       // name of the CAPI Cluster, in the same namespace
	ControlPlane   bool   `json:"controlPlane,omitempty"`
	Version        string `json:"version,omitempty"`        // Kubernetes version asked for, "" for none
	DeploymentType string `json:"deploymentType,omitempty"` // plunder boot configuration

	// The claim. Recorded before anything is posted; never given twice.
	MAC       string    `json:"mac,omitempty"`      // colon form, lower case
	Address   string    `json:"address,omitempty"`  // IPv4
	HostName  string    `json:"hostName,omitempty"` // <machine>-<5 letters or digits>, chosen once
	Server    string    `json:"server,omitempty"`   // URL of the plunder server that has the machine
	ClaimedAt time.Time `json:"claimedAt,omitzero"`

	// Progress. Step is the last step that was proved done ("" for none), as in
	// pkg/apply/event. JobStep and JobID name the parlay job that was posted last
	// and is not yet known to have ended.
	Step    string    `json:"step,omitempty"`
	JobStep string    `json:"jobStep,omitempty"`
	JobID   string    `json:"jobID,omitempty"`
	JobAt   time.Time `json:"jobAt,omitzero"`

	// Observations.
	BootID    string    `json:"bootID,omitempty"` // /proc/sys/kernel/random/boot_id of the installed system
	Root      bool      `json:"root,omitempty"`   // the SSH user is root: no sudo, which images may lack
	OSReadyAt time.Time `json:"osReadyAt,omitzero"`
	Disks     []Disk    `json:"disks,omitempty"`  // seen when the OS was proved, for the wipe
	WipedAt   time.Time `json:"wipedAt,omitzero"` // when the wipe was proved, for the way back to the pool

	// Wipe is what is being wiped. Dirty is true from before a wipe is posted until it is
	// proved: the disks hold neither a system that can be relied on nor nothing, and the
	// machine is not free.
	Wipe  Wipe `json:"wipe,omitzero"`
	Dirty bool `json:"dirty,omitempty"`
	// Protected: nobody may delete it. Stores fill it in from the machine's objects
	// (AnnotationProtected), it is no part of the record.
	Protected bool `json:"-"`

	// NodeName and NodeUID are those of the machine's Node, once it was seen in its cluster.
	NodeName string `json:"nodeName,omitempty"`
	NodeUID  string `json:"nodeUID,omitempty"`

	// Result.
	Kubernetes string    `json:"kubernetes,omitempty"` // version installed on it ("vX.Y.Z"), "" for none
	ProviderID string    `json:"providerID,omitempty"` // plunder://<mac>, set when the machine is ready
	Ready      bool      `json:"ready,omitempty"`
	Phase      Phase     `json:"phase,omitempty"`
	Reason     string    `json:"reason,omitempty"` // CamelCase, for a phase that needs one
	Message    string    `json:"message,omitempty"`
	UpdatedAt  time.Time `json:"updatedAt,omitzero"`
}

// Clone is a copy that shares nothing.
func (r Record) Clone() Record {
	r.Disks = slices.Clone(r.Disks)
	r.Wipe = r.Wipe.Clone()
	return r
}

// Claimed reports whether hardware was given to the machine.
func (r Record) Claimed() bool { return r.MAC != "" }

// ClusterRecord is what capplunder knows about one cluster.
type ClusterRecord struct {
	Key                     // of the CAPI Cluster
	PlunderCluster Key      `json:"plunderCluster,omitzero"` // of its PlunderCluster, empty if it has none
	Endpoint       Endpoint `json:"endpoint,omitzero"`
	// InitMachine is the control plane machine on which kubeadm init ran or runs. It is
	// recorded before init is posted, so that there is never a second one.
	InitMachine string `json:"initMachine,omitempty"`
	// Initialized is true once kubeadm init ended well.
	Initialized bool `json:"initialized,omitempty"`
	// CAHash is "sha256:<hex>" of the cluster CA's public key. Public.
	CAHash string `json:"caHash,omitempty"`
	Ready  bool   `json:"ready,omitempty"`
	Phase  Phase  `json:"phase,omitempty"` // PhaseDeleting from the beginning of its deletion on
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
