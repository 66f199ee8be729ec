package state

import (
	"fmt"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Holder is who holds the lock of a store.
type Holder struct {
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	User    string    `json:"user"`
	Command string    `json:"command"` // "apply", "delete machine worker", ...
	Since   time.Time `json:"since"`
}

// String is `"capplunder apply" (process 4711 of ann on laptop) since 2026-01-02T15:04:05Z`.
func (h Holder) String() string {
	if h.PID == 0 {
		return "another run of capplunder, which has not yet said who it is"
	}
	return fmt.Sprintf("%q (process %d of %s on %s) since %s",
		"capplunder "+h.Command, h.PID, h.User, h.Host, h.Since.UTC().Format(time.RFC3339))
}

// LockedError says that another run holds the lock of the store.
type LockedError struct {
	Store  string // as Store.String
	Holder Holder // zero when the holder could not be read
}

// Error implements error.
func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is in use by %s: wait for it to end, or stop it with Ctrl-C where it runs", e.Store, e.Holder)
}

// TakenError says that a record may not be saved because another machine holds its
// MAC or its address.
type TakenError struct {
	Key    capi.Key // of the Machine that was to get it
	Holder capi.Key // of the Machine that has it
	What   string   // "MAC" or "address"
	Value  string
	// GiveUp, if not empty, is the command that frees what the holder left behind: it is
	// not there any more, and what became of its hardware is unknown.
	GiveUp string
}

// Error implements error.
func (e *TakenError) Error() string {
	if e.GiveUp != "" {
		return fmt.Sprintf("Machine %s: %s %s is still reserved for %s, whose PlunderMachine is not there any more, and what runs on that hardware is unknown: "+
			"if it is free, run %q, or choose another %s", e.Key, e.What, e.Value, e.Holder, e.GiveUp, e.What)
	}
	return fmt.Sprintf("Machine %s: %s %s is held by Machine %s: run \"capplunder delete machine -n %s %s\" first, or choose another %s",
		e.Key, e.What, e.Value, e.Holder, e.Holder.Namespace, e.Holder.Name, e.What)
}

// Unwrap is capi.ErrMACTaken for a MAC: there may be another one for the machine.
// An address is the user's choice.
func (e *TakenError) Unwrap() error {
	if e.What == "MAC" {
		return capi.ErrMACTaken
	}
	return nil
}

// ClaimedError says that the given objects ask for something else than what a
// machine that already has its hardware was given.
type ClaimedError struct {
	Kind     string // Machine or PlunderMachine
	Key      capi.Key
	Field    string   // "spec.macaddress"
	Old, New string   // as recorded, as given now
	Machine  capi.Key // the Machine to delete first
}

// Error implements error.
func (e *ClaimedError) Error() string {
	return fmt.Sprintf("%s %s: %s: changed from %s to %s, but the machine was already given %s: run \"capplunder delete machine -n %s %s\" first",
		e.Kind, e.Key, e.Field, e.Old, e.New, e.Old, e.Machine.Namespace, e.Machine.Name)
}

// NotSyncedError says that a record was to be saved for an object that is not in
// the store.
type NotSyncedError struct {
	Kind string
	Key  capi.Key
}

// Error implements error.
func (e *NotSyncedError) Error() string {
	return fmt.Sprintf("%s %s is not in the store: run \"capplunder apply -f\" with its manifest first", e.Kind, e.Key)
}

// ProtectedError says that machines may not be deleted, nor their cluster.
type ProtectedError struct {
	Machines []capi.Key // at least one, of one namespace
}

// Error implements error.
func (e *ProtectedError) Error() string {
	if len(e.Machines) == 1 {
		return fmt.Sprintf("Machine %s is protected: run %q first", e.Machines[0], e.NextCommand())
	}
	return fmt.Sprintf("Machines %s are protected: run %q first", joinKeys(e.Machines), e.NextCommand())
}

// NextCommand takes the protection off.
func (e *ProtectedError) NextCommand() string {
	return "capplunder unprotect machine -n " + e.Machines[0].Namespace + namesOf(e.Machines)
}

// Unwrap is capi.ErrProtected.
func (e *ProtectedError) Unwrap() error { return capi.ErrProtected }

// OccupiedError says that a cluster can't be removed because its machines still have
// their hardware.
type OccupiedError struct {
	Cluster  capi.Key
	Machines []capi.Key // at least one
}

// Error implements error.
func (e *OccupiedError) Error() string {
	return fmt.Sprintf("Cluster %s has machines that were not given back (%s): run %q first", e.Cluster, joinKeys(e.Machines), e.NextCommand())
}

// NextCommand gives the machines back.
func (e *OccupiedError) NextCommand() string {
	return "capplunder delete machine -n " + e.Machines[0].Namespace + namesOf(e.Machines)
}

func joinKeys(keys []capi.Key) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	return strings.Join(names, ", ")
}

func namesOf(keys []capi.Key) string {
	var names strings.Builder
	for _, k := range keys {
		names.WriteString(" " + k.Name)
	}
	return names.String()
}

// CorruptError says that a file of the local store is not as capplunder writes
// them. What it said is unknown, so nothing may be decided from its absence.
type CorruptError struct {
	Path string
	Err  error
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("local store: %s: %v: repair the file or restore it from a backup; "+
		"moving it out of the store makes capplunder forget what it says", e.Path, e.Err)
}

// Unwrap implements errors.Unwrap.
func (e *CorruptError) Unwrap() error { return e.Err }
