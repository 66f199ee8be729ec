package capi

import (
	"fmt"
	"slices"
	"strings"
)

// UnfitError says which Machines of a cluster cannot be worked on as they are described
// there. One of them, a clone that a MachineDeployment made without an address for
// instance, keeps no other machine from its work.
type UnfitError struct{ Machines []Unfit }

// Unfit is one Machine and what is wrong with it or with its PlunderMachine.
type Unfit struct {
	Key
	Problems []Problem
}

// Error implements error: one line per machine.
func (e *UnfitError) Error() string {
	lines := make([]string, len(e.Machines))
	for i, u := range e.Machines {
		lines[i] = u.String()
	}
	return strings.Join(lines, "\n")
}

// String names the Machine and all that is wrong.
func (u Unfit) String() string {
	whys := make([]string, len(u.Problems))
	for i, p := range u.Problems {
		whys[i] = strings.TrimPrefix(p.String(), Origin{}.String()+": ")
	}
	return fmt.Sprintf("Machine %s cannot be installed: %s", u.Key, strings.Join(whys, "; "))
}

// NextCommand shows the first object that has something wrong, to be put right.
func (e *UnfitError) NextCommand() string {
	for _, u := range e.Machines {
		if len(u.Problems) == 0 {
			continue
		}
		kind, name, _ := strings.Cut(u.Problems[0].Object, " ")
		resource := "machines." + GroupCluster
		if kind == "PlunderMachine" {
			resource = "plundermachines." + GroupInfrastructure
		}
		return fmt.Sprintf("kubectl edit %s %s -n %s", resource, ParseKey(name, "").Name, u.Namespace)
	}
	return ""
}

// setAside finds the machines of a cluster that all problems are about, and the
// documents to read without them; nil if something else is wrong, too.
func (d *decoder) setAside(docs []Document) (without []Document, unfit []Unfit) {
	if d.incomplete {
		return nil, nil
	}
	without = slices.Clone(docs)
	remove := func(in *input) { without[in.doc] = Document{Origin: without[in.doc].Origin} }
	problems := map[*machineInput][]placed{}
	for _, p := range d.problems {
		m := d.machineAt(p.doc)
		if m == nil || p.doc >= len(docs) || !m.in.lenient() {
			return nil, nil
		}
		problems[m] = append(problems[m], p)
	}
	for _, m := range d.machines {
		if len(problems[m]) == 0 {
			continue
		}
		remove(m.in)
		for _, p := range d.plunderMachines {
			if p.by == m {
				remove(p.in)
			}
		}
		if !m.Paused {
			unfit = append(unfit, Unfit{Key: m.Key, Problems: d.sorted(problems[m])})
		}
	}
	return without, unfit
}

// machineAt is the Machine of a document, or that of the PlunderMachine in it.
func (d *decoder) machineAt(doc int) *machineInput {
	for _, m := range d.machines {
		if m.in.doc == doc {
			return m
		}
	}
	for _, p := range d.plunderMachines {
		if p.in.doc == doc {
			return p.by
		}
	}
	return nil
}
