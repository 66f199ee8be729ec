// Package receipt is the proof, for people who were not there, that disks were wiped: a
// JSON file with every disk of every machine, the ranges of it that were read back and
// their digests, signed with an SSH key (the format of ssh-keygen -Y). It writes receipts
// while machines are wiped and checks them afterwards, offline.
package receipt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// What a receipt says it is. A change that a reader of today would misunderstand needs
// another version.
const (
	APIVersion = "capplunder.plunder-app.io/v1"
	Kind       = "WipeReceipt"
)

// maxFile is the largest receipt that is read, in bytes: some 30,000 machines.
const maxFile = 256 << 20

// Receipt says which disks were wiped, how, and what was read back. The JSON names are
// a file format: add fields, but do not rename them.
type Receipt struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Tool       string    `json:"tool"`      // that wrote it last, "capplunder v1.2.0"
	Simulated  bool      `json:"simulated"` // no real disk was wiped
	Server     string    `json:"server"`    // URL of the plunder server
	RunIDs     []string  `json:"runIDs"`    // of the runs that wiped, in the order in which they came
	Machines   []Machine `json:"machines"`  // in the order in which their wipes were proved
}

// Machine is one machine whose disks were wiped, once.
type Machine struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Cluster   string    `json:"cluster,omitempty"`
	HostName  string    `json:"hostName"`
	MAC       string    `json:"mac"`     // colon form, lower case
	Address   string    `json:"address"` // IPv4
	Disks     []Disk    `json:"disks"`
	StartedAt time.Time `json:"startedAt"` // RFC 3339, UTC, by the clock of the computer that ran capplunder
	ProvedAt  time.Time `json:"provedAt"`
	By        string    `json:"by"` // user@host
	RunID     string    `json:"runID"`
}

// Key is the name of the machine.
func (m Machine) Key() capi.Key { return capi.Key{Namespace: m.Namespace, Name: m.Name} }

// same reports whether both are about one wipe.
func (m Machine) same(o Machine) bool {
	return m.Key() == o.Key() && m.MAC == o.MAC && m.RunID == o.RunID && m.StartedAt.Equal(o.StartedAt)
}

// Disk is one disk that was wiped.
type Disk struct {
	Device  string        `json:"device"` // what it was called then, /dev/sda
	Model   string        `json:"model,omitempty"`
	Serial  string        `json:"serial,omitempty"`
	WWN     string        `json:"wwn,omitempty"`
	ID      string        `json:"id,omitempty"` // of a disk that has neither serial nor WWN
	Bytes   int64         `json:"bytes"`
	Method  capi.WipeMode `json:"method"`
	Samples []capi.Sample `json:"samples"` // in the order of their offsets
}

// name is the disk for people.
func (d Disk) name() string {
	return capi.Disk{Device: d.Device, WWN: d.WWN, Serial: d.Serial, ID: d.ID}.Name()
}

// machineOf is what the record of a machine says about its wipe.
func machineOf(rec capi.Record) Machine {
	m := Machine{
		Namespace: rec.Namespace,
		Name:      rec.Name,
		Cluster:   rec.Cluster,
		HostName:  rec.HostName,
		MAC:       rec.MAC,
		Address:   rec.Address,
		StartedAt: rec.Wipe.StartedAt.UTC().Round(0),
		ProvedAt:  rec.Wipe.ProvedAt.UTC().Round(0),
		By:        rec.Wipe.By,
		RunID:     rec.Wipe.RunID,
	}
	for _, w := range rec.Wipe.Clone().Disks {
		d := Disk{Device: w.Device, Model: w.Model, Serial: w.Serial, WWN: w.WWN, Bytes: w.Bytes, Method: w.Method, Samples: w.Samples}
		if d.Serial == "" && d.WWN == "" && w.ID != "-" {
			d.ID = w.ID
		}
		slices.SortStableFunc(d.Samples, func(a, b capi.Sample) int {
			switch {
			case a.Offset < b.Offset:
				return -1
			case a.Offset > b.Offset:
				return 1
			}
			return 0
		})
		m.Disks = append(m.Disks, d)
	}
	return m
}

// Encode is the one form a receipt has as a file.
func (r Receipt) Encode() ([]byte, error) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("encode the receipt: %w", err)
	}
	return buf.Bytes(), nil
}

// Decode reads a receipt. It takes exactly what Encode writes: in any other form a field
// could stand twice, or be one that nobody reads.
func Decode(data []byte) (Receipt, error) {
	var r Receipt
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&r); err != nil {
		return Receipt{}, fmt.Errorf("it is no receipt: %w", err)
	}
	switch {
	case r.Kind != Kind:
		return Receipt{}, fmt.Errorf("it is no receipt: its kind is %q, not %s", r.Kind, Kind)
	case r.APIVersion != APIVersion:
		return Receipt{}, fmt.Errorf("its apiVersion is %q, and this version of capplunder reads %s only", r.APIVersion, APIVersion)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Receipt{}, errors.New("something follows the receipt in the file")
	}
	again, err := r.Encode()
	if err != nil {
		return Receipt{}, err
	}
	if !bytes.Equal(again, data) {
		return Receipt{}, fmt.Errorf("it is not as capplunder writes receipts (line %d): it was changed, or a newer version wrote it", firstDifference(again, data))
	}
	return r, nil
}

// firstDifference is the line in which two texts begin to differ, from 1.
func firstDifference(a, b []byte) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return 1 + bytes.Count(a[:i], []byte("\n"))
}
