package capi

import (
	"fmt"
	"slices"
)

// Named is an object that a document names.
type Named struct {
	Kind string // Cluster or Machine
	Key
	Origin Origin
}

// Names are the Clusters and Machines that documents name, in their order; what else the
// documents say of them does not matter and may be wrong. That is enough for deletions,
// whose targets are what is recorded. Machines and Clusters of an API version that nobody
// knows, or without a name, are an *InputError, and so is an input that names none.
// warnings say what was left out.
func (o DecodeOptions) Names(docs []Document) (names []Named, warnings []string, err error) {
	d := &decoder{opts: o, namesOnly: true}
	for i, doc := range docs {
		d.document(i, doc)
	}
	if len(d.named)+len(d.problems) == 0 && len(docs) > 0 {
		d.report(0, Problem{
			Origin:  docs[0].Origin,
			Message: fmt.Sprintf("no Cluster or Machine of %s in the input (%d documents)", GroupCluster, len(docs)),
		})
	}
	if len(d.problems) > 0 {
		return nil, nil, &InputError{Problems: d.sorted(d.problems)}
	}
	for _, in := range d.named {
		names = append(names, Named{Kind: in.kind, Key: in.key, Origin: in.origin})
	}
	for _, p := range d.sorted(d.warnings) {
		warnings = append(warnings, p.String())
	}
	return slices.Clip(names), warnings, nil
}
