package capi

// Object is a document as the object that it is, in the form that Decode gives objects;
// nil for an empty document. The error is an *InputError.
func (doc Document) Object() (map[string]any, error) {
	root, faults := parse(doc)
	bad := &InputError{}
	for _, f := range faults {
		bad.Problems = append(bad.Problems, doc.problem(f.line, f.text))
	}
	if len(faults) > 0 {
		return nil, bad
	}
	switch root.kind {
	case nullKind:
		return nil, nil //nolint:nilnil // nothing is there, which is no mistake
	case mapKind:
		object, _ := root.value().(map[string]any)
		return object, nil
	case scalarKind, listKind:
	}
	bad.Problems = append(bad.Problems, doc.problem(root.line, "must be a mapping, not "+root.what()))
	return nil, bad
}

func (doc Document) problem(line int, text string) Problem {
	origin := doc.Origin
	origin.Line = line
	return Problem{Origin: origin, Message: text}
}
