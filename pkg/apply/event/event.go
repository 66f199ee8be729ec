// Package event is the vocabulary that the engine and the user interface share:
// pkg/apply emits events, internal/ui renders them. It owns no behaviour.
package event

import "time"

// Type says what kind of event this is. The values are part of the documented
// JSON output (docs/commands/apply.md).
type Type string

// Event types.
const (
	PlanReady  Type = "PlanReady"  // once, first: Machines lists what will be worked on
	Started    Type = "Started"    // a machine began a step
	Waiting    Type = "Waiting"    // a machine still waits; Observation is the last thing seen
	Done       Type = "Done"       // a machine finished a step
	Skipped    Type = "Skipped"    // nothing to do for this machine; Message says why
	Ready      Type = "Ready"      // a machine is finished and recorded
	Deleted    Type = "Deleted"    // delete: a machine is wiped, back in the pool and forgotten
	Failed     Type = "Failed"     // a machine failed for good; Step and Message say where and why
	TimedOut   Type = "TimedOut"   // a machine ran into a deadline
	Cancelled  Type = "Cancelled"  // a machine was interrupted; it can be resumed
	NoHardware Type = "NoHardware" // a machine waits for a free machine, or got none
	Warning    Type = "Warning"    // something a person should know; the work goes on
	Info       Type = "Info"       // something worth a line
	Summary    Type = "Summary"    // once, last: Counts and Message
)

// Step is a step of a machine's way. The values are part of the documented JSON
// output and of the recorded state.
type Step string

// Steps, in the order in which they run.
const (
	StepHardware   Step = "hardware"   // choose a MAC and record the claim
	StepDeployment Step = "deployment" // post the deployment and read it back
	StepOS         Step = "os"         // wait until the operating system answers, prove identity
	StepPackages   Step = "packages"   // prepare the host: runtime, kubelet, kubeadm
	StepInit       Step = "init"       // kubeadm init, on the first control plane
	StepJoin       Step = "join"       // kubeadm join
	StepBootstrap  Step = "bootstrap"  // run the machine's bootstrap data
	StepNode       Step = "node"       // wait until the machine is a node of its cluster
	StepRecord     Step = "record"     // write provider ID and status
	StepIdentity   Step = "identity"   // delete: prove that the host is the right one
	StepDrain      Step = "drain"      // delete: take the node out of its cluster
	StepRelease    Step = "release"    // delete: point the machine at the reboot loop
	StepWipe       Step = "wipe"       // delete: wipe the disk and read back
	StepReturn     Step = "return"     // delete: wait until the machine is seen in the pool
	StepForget     Step = "forget"     // delete: remove the deployment and the record
)

// Event is one thing that happened.
type Event struct {
	Time time.Time `json:"time"`
	Type Type      `json:"type"`
	// Machine is namespace/name of the CAPI Machine, empty for events of the whole run.
	Machine string `json:"machine,omitempty"`
	Step    Step   `json:"step,omitempty"`
	// MAC in colon form, lower case; Address is IPv4.
	MAC        string `json:"mac,omitempty"`
	Address    string `json:"address,omitempty"`
	HostName   string `json:"hostName,omitempty"`
	ProviderID string `json:"providerID,omitempty"`
	// Observation is the last thing seen of what is awaited.
	Observation string `json:"observation,omitempty"`
	Message     string `json:"message,omitempty"`
	// Next is a command to type, when there is one.
	Next string `json:"next,omitempty"`
	// Elapsed is the time since the step (Started, Waiting, Done) or the run began;
	// in JSON it is whole seconds with a fraction.
	Elapsed Seconds `json:"elapsedSeconds,omitempty"`
	// Machines is filled in PlanReady only.
	Machines []PlannedMachine `json:"machines,omitempty"`
	// Counts is filled in Summary only.
	Counts *Counts `json:"counts,omitempty"`
	// Simulated is true when no real machine was touched.
	Simulated bool `json:"simulated,omitempty"`
}

// PlannedMachine is a machine as announced by PlanReady.
type PlannedMachine struct {
	Machine string `json:"machine"`
	Role    string `json:"role"`
	Steps   []Step `json:"steps"`
}

// Counts sums a run up. All fields together are all machines of the run.
type Counts struct {
	Ready      int `json:"ready"`
	Deleted    int `json:"deleted"`
	Skipped    int `json:"skipped"`
	Failed     int `json:"failed"`
	TimedOut   int `json:"timedOut"`
	NoHardware int `json:"noHardware"`
	Cancelled  int `json:"cancelled"`
}

// Seconds is a duration that is written as a number of seconds in JSON.
type Seconds time.Duration

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconvSeconds(time.Duration(s)), nil
}

// Duration is s as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) }

// Func receives events. It is called from many goroutines at once and must not block for long.
type Func func(Event)
