package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// setRecord stores a machine's record in its PlunderMachine and shows it there as
// the infrastructure contract has it: both the done flag up to v1beta1
// (status.ready) and that of v1beta2 (status.initialization.provisioned), and the
// fields of the 2019 PlunderMachine (machineName, macaddress, ipaddress). old is the
// record that was there.
//
// final says that nobody takes status.failureReason for the last word: up to v1.10 a
// Cluster API manager copies it to the Machine, whose phase is then Failed for good
// (CAPI contract section 5), although the next run goes on where this one failed.
func setRecord(pm object, old, r capi.Record, final bool) error {
	if err := annotate(pm, r); err != nil {
		return err
	}
	setProviderID(pm, old.ProviderID, r.ProviderID)
	status := pm.in("status")
	status["ready"] = r.Ready
	pm.in("status", "initialization")["provisioned"] = r.Ready
	status["machineName"] = r.HostName
	setText(status, "macaddress", r.MAC)
	setText(status, "ipaddress", r.Address)
	setAddresses(status, r)
	reason, message := "", ""
	if final && r.Phase == capi.PhaseFailed {
		reason, message = r.Reason, clip(r.Message)
	}
	setText(status, "failureReason", reason)
	setText(status, "failureMessage", message)
	setCondition(status, "Ready", r)
	return nil
}

// recordOf reads a record back. What status says beside it must agree: if it does
// not, somebody edited one of them and which one is true is unknown.
func recordOf(pm object) (r capi.Record, ok bool, err error) {
	text := pm.text("metadata", "annotations", AnnotationRecord)
	shown := shownStatus{
		MachineName: pm.text("status", "machineName"),
		MACAddress:  pm.text("status", "macaddress"),
		IPAddress:   pm.text("status", "ipaddress"),
	}
	shown.Ready, _ = pm.at("status")["ready"].(bool)
	return parseRecord(text, shown)
}

// shownStatus is what is compared with the record.
type shownStatus struct {
	Ready       bool   `yaml:"ready"`
	MachineName string `yaml:"machineName"`
	MACAddress  string `yaml:"macaddress"`
	IPAddress   string `yaml:"ipaddress"`
}

func parseRecord(text string, shown shownStatus) (r capi.Record, ok bool, err error) {
	if text == "" {
		if shown != (shownStatus{}) {
			return r, false, fmt.Errorf("it has a status but the annotation %s is missing", AnnotationRecord)
		}
		return r, false, nil
	}
	if err := parseAnnotation(text, &r); err != nil {
		return capi.Record{}, false, err
	}
	if want := (shownStatus{Ready: r.Ready, MachineName: r.HostName, MACAddress: r.MAC, IPAddress: r.Address}); shown != want {
		return capi.Record{}, false, fmt.Errorf("its status (%s) contradicts its annotation %s (%s)", shown, AnnotationRecord, want)
	}
	return r, true, nil
}

// String names what differs for people.
func (s shownStatus) String() string {
	return fmt.Sprintf("ready %t, machineName %q, macaddress %q, ipaddress %q", s.Ready, s.MachineName, s.MACAddress, s.IPAddress)
}

// showMachine shows a machine's record in its Machine, as Cluster API's own
// controllers would (CAPI contract sections 3 and 12). Nothing of it is read back.
func showMachine(m object, old, r capi.Record) {
	setProviderID(m, old.ProviderID, r.ProviderID)
	status := m.in("status")
	setText(status, "phase", phaseText(m.version(), r.Phase))
	if m.version() == "v1beta2" {
		initialization := m.in("status", "initialization")
		initialization["bootstrapDataSecretCreated"] = r.Ready
		initialization["infrastructureProvisioned"] = r.Ready
	} else {
		status["bootstrapReady"] = r.Ready
		status["infrastructureReady"] = r.Ready
	}
	// The terminal failure has had three homes (CAPI contract section 3); v1beta2 has
	// only conditions.
	reason, message := "", ""
	if r.Phase == capi.PhaseFailed {
		reason, message = r.Reason, clip(r.Message)
	}
	switch m.version() {
	case "v1alpha2":
		setText(status, "errorReason", reason)
		setText(status, "errorMessage", message)
	case "v1alpha3", "v1alpha4", "v1beta1":
		setText(status, "failureReason", reason)
		setText(status, "failureMessage", message)
	}
	setAddresses(status, r)
	setNodeRef(m, old, r)
	if m.version() != "v1alpha2" { // it has none
		setCondition(status, "InfrastructureReady", r)
		if m.version() != "v1beta2" {
			dropEmptyMessages(status)
		}
	}
}

// setNodeRef shows the machine's Node, in the shape of the API version (CAPI contract
// section 3). One that an earlier record put there goes with it.
func setNodeRef(m object, old, r capi.Record) {
	status := m.in("status")
	switch {
	case r.NodeName != "" && m.version() == "v1beta2":
		status["nodeRef"] = map[string]any{"name": r.NodeName}
	case r.NodeName != "":
		ref := map[string]any{"apiVersion": "v1", "kind": "Node", "name": r.NodeName}
		setText(ref, "uid", r.NodeUID)
		status["nodeRef"] = ref
	case old.NodeName != "":
		delete(status, "nodeRef")
	}
}

// phaseText is the phase as an API version writes it.
func phaseText(version string, p capi.Phase) string {
	if version == "v1alpha2" {
		return strings.ToLower(string(p))
	}
	return string(p)
}

// setClusterRecord stores a cluster's record in its Cluster and shows it there.
func setClusterRecord(c object, r capi.ClusterRecord) error {
	if err := annotate(c, r); err != nil {
		return err
	}
	showCluster(c, r)
	return nil
}

// showCluster shows a cluster's record in its Cluster (CAPI contract sections 4 and 12).
func showCluster(c object, r capi.ClusterRecord) {
	status := c.in("status")
	version := c.version()
	setText(status, "phase", phaseText(version, r.Phase))
	if version == "v1beta2" {
		initialization := c.in("status", "initialization")
		initialization["infrastructureProvisioned"] = r.Ready
		initialization["controlPlaneInitialized"] = r.Initialized
	} else {
		status["infrastructureReady"] = r.Ready
		field := "controlPlaneReady" // v1alpha4, v1beta1
		if version == "v1alpha2" || version == "v1alpha3" {
			field = "controlPlaneInitialized"
		}
		status[field] = r.Initialized
	}
	if version == "v1alpha2" {
		delete(status, "apiEndpoints")
		if !r.Endpoint.IsZero() {
			status["apiEndpoints"] = []any{endpoint(r.Endpoint)}
		}
		return
	}
	showEndpoint(c, r.Endpoint)
}

// clusterRecordOf reads a cluster's record back.
func clusterRecordOf(c object) (r capi.ClusterRecord, ok bool, err error) {
	text := c.text("metadata", "annotations", AnnotationRecord)
	if text == "" {
		return r, false, nil
	}
	if err := parseAnnotation(text, &r); err != nil {
		return capi.ClusterRecord{}, false, err
	}
	return r, true, nil
}

// external reports whether a PlunderCluster says that another system owns it (CAPI
// contract section 6).
func external(pc object) bool {
	by, ok := pc.at("metadata", "annotations")[capi.AnnotationManagedBy]
	return ok && by != managedByUs
}

// managedByUs is what capi.AnnotationManagedBy says when the other system is this one.
const managedByUs = "capplunder"

// showPlunderCluster shows a cluster's record in its PlunderCluster, unless
// another system owns that.
func showPlunderCluster(pc object, r capi.ClusterRecord) {
	if external(pc) {
		return
	}
	pc.in("status")["ready"] = r.Ready
	pc.in("status", "initialization")["provisioned"] = r.Ready
	showEndpoint(pc, r.Endpoint)
}

// showEndpoint fills an endpoint that the user did not give; manifests often have
// one with an empty host.
func showEndpoint(o object, e capi.Endpoint) {
	if !e.IsZero() && o.text("spec", "controlPlaneEndpoint", "host") == "" {
		o.in("spec")["controlPlaneEndpoint"] = endpoint(e)
	}
}

// parseAnnotation is strict: a field it does not know would be lost by the next
// write, and may be why this version must not decide.
func parseAnnotation(text string, record any) error {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(record)
	if err == nil && dec.More() {
		err = errors.New("more than one value in it")
	}
	if err != nil {
		return fmt.Errorf("annotation %s: %w (was it written by a newer version?)", AnnotationRecord, err)
	}
	return nil
}

func annotate(o object, record any) error {
	// The encoder ends the text with a line break, and so YAML shows it as a block.
	var text strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(record); err != nil {
		return err
	}
	o.in("metadata", "annotations")[AnnotationRecord] = text.String()
	return nil
}

// setProviderID shows the provider ID. A user's own stays; one that an earlier
// record put there goes with it.
func setProviderID(o object, old, now string) {
	spec := o.in("spec")
	switch {
	case now != "":
		spec["providerID"] = now
	case old != "" && spec["providerID"] == old:
		delete(spec, "providerID")
	}
}

func setText(m map[string]any, key, value string) {
	if value == "" {
		delete(m, key)
		return
	}
	m[key] = value
}

func setAddresses(status map[string]any, r capi.Record) {
	var addresses []any
	for _, a := range []struct{ kind, value string }{{"InternalIP", r.Address}, {"Hostname", r.HostName}} {
		if a.value != "" {
			addresses = append(addresses, map[string]any{"type": a.kind, "address": a.value})
		}
	}
	if addresses == nil {
		delete(status, "addresses")
		return
	}
	status["addresses"] = addresses
}

// reasonDirty is the reason of a condition while a wipe is not proved.
const reasonDirty = "Dirty"

// setCondition sets the one condition of ours and leaves others alone.
func setCondition(status map[string]any, kind string, r capi.Record) {
	value, reason, message := "False", r.Reason, r.Message
	switch {
	case r.Ready:
		value, reason = "True", "Provisioned"
	case r.Dirty: // no phase of Cluster API says it
		reason = reasonDirty
		if message == "" {
			message = "its disks were being wiped, and that they are is not proved: the machine is not free until it was deleted"
		}
	}
	if reason == "" {
		reason = "Pending"
		if r.Phase != "" {
			reason = string(r.Phase)
		}
	}
	condition := map[string]any{
		"type": kind, "status": value, "reason": reason, "message": clip(message),
		"lastTransitionTime": r.UpdatedAt.UTC().Format(time.RFC3339),
	}
	conditions, _ := status["conditions"].([]any)
	for i, c := range conditions {
		old, _ := c.(map[string]any)
		if old["type"] == kind {
			if old["status"] == value {
				condition["lastTransitionTime"] = old["lastTransitionTime"]
			}
			conditions[i] = condition
			return
		}
	}
	status["conditions"] = append(conditions, condition)
}

// dropEmptyMessages is for conditions of before v1beta2, whose message may be missing
// but, in v1beta1, not empty. v1beta2 wants it the other way round.
func dropEmptyMessages(status map[string]any) {
	conditions, _ := status["conditions"].([]any)
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["message"] == "" {
			delete(condition, "message")
		}
	}
}

// maxMessage is how long a message may be, in bytes, in all definitions.
const maxMessage = 10_000

// clip shortens a message for where it is shown; the record has all of it.
func clip(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	const more = "…"
	return strings.ToValidUTF8(message[:maxMessage-len(more)], "") + more
}

func endpoint(e capi.Endpoint) map[string]any {
	return map[string]any{"host": e.Host, "port": json.Number(strconv.Itoa(e.Port))}
}
