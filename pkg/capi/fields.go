package capi

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// input is one object of the input: what was written, and where.
type input struct {
	d      *decoder
	doc    int    // index of its document, for the order of problems
	origin Origin // file, document and line of the object itself
	kind   string
	key    Key
	root   *node

	apiVersion string
	version    string // the part of apiVersion after the group
}

// name is "Kind namespace/name" as messages have it.
func (in *input) name() string {
	switch {
	case in.kind == "":
		return ""
	case in.key.Name == "":
		return in.kind
	}
	return in.kind + " " + in.key.String()
}

// at is the field with this path, e.g. at("spec", "ipaddress").
func (in *input) at(path ...string) field {
	f := field{in: in, line: in.origin.Line, n: in.root}
	for _, p := range path {
		f = f.get(p)
	}
	return f
}

// ref names the object and a line of it (0 is its first) in a message about
// another object.
func (in *input) ref(from *input, line int) string {
	at := in.origin
	if line > 0 {
		at.Line = line
	}
	if at.File == from.origin.File {
		return fmt.Sprintf("%s (line %d)", in.name(), at.Line)
	}
	return fmt.Sprintf("%s (%s)", in.name(), at)
}

// object is the object as it was written. An item of a list may leave its type to
// the list.
func (in *input) object() map[string]any {
	o, _ := in.root.value().(map[string]any)
	o["apiVersion"], o["kind"] = in.apiVersion, in.kind
	return o
}

// field is a place in an object, whether there is something or not.
type field struct {
	in   *input
	path string
	line int   // of the key, or of the closest thing above that exists
	n    *node // nil when absent
	// broken: what is above is no mapping, which was said; it is no use to miss
	// something in it.
	broken bool
}

// given reports whether there is a value; null is none.
func (f field) given() bool { return f.n != nil && f.n.kind != nullKind }

// errorf reports a problem at f.
func (f field) errorf(format string, args ...any) {
	f.in.d.report(f.in.doc, Problem{
		Origin:  Origin{File: f.in.origin.File, Document: f.in.origin.Document, Line: f.line},
		Object:  f.in.name(),
		Field:   f.path,
		Message: fmt.Sprintf(format, args...),
	})
}

// check reports err, if there is one.
func (f field) check(err error) bool {
	if err != nil {
		f.errorf("%v", err)
	}
	return err == nil
}

// warnf adds a warning about f.
func (f field) warnf(format string, args ...any) {
	p := Problem{
		Origin:  Origin{File: f.in.origin.File, Document: f.in.origin.Document, Line: f.line},
		Object:  f.in.name(),
		Field:   f.path,
		Message: fmt.Sprintf(format, args...),
	}
	f.in.d.warn(f.in.doc, p)
}

// mapping reports whether f is a mapping that can be looked into.
func (f field) mapping() bool {
	if f.given() && f.n.kind != mapKind {
		f.errorf("must be a mapping, not %s", f.n.what())
		return false
	}
	return f.given()
}

// get is the field below f with this name.
func (f field) get(name string) field {
	path := name
	switch {
	case strings.ContainsAny(name, "./"):
		path = f.path + "[" + name + "]"
	case f.path != "":
		path = f.path + "." + name
	}
	below := field{in: f.in, path: path, line: f.line, broken: f.broken}
	if f.given() && f.n.kind != mapKind {
		below.broken = true
	}
	if f.mapping() {
		if k, ok := f.n.get(name); ok {
			below.line, below.n = k.line, k.value
		}
	}
	return below
}

// items are the elements of a list.
func (f field) items() []field {
	if !f.given() {
		return nil
	}
	if f.n.kind != listKind {
		f.errorf("must be a list, not %s", f.n.what())
		return nil
	}
	fields := make([]field, len(f.n.items))
	for i, n := range f.n.items {
		fields[i] = field{in: f.in, path: f.path + "[" + strconv.Itoa(i) + "]", line: n.line, n: n}
	}
	return fields
}

// str is the value of a string; "" when absent. What YAML takes for a number or
// a boolean (1.34, true) is none: other readers would see another text.
func (f field) str() string {
	switch {
	case !f.given():
		return ""
	case f.n.kind == scalarKind && f.n.tag == "!!str":
		return f.n.text
	case f.n.kind == scalarKind:
		f.errorf("must be a string, not %s: write %s in quotes", f.n.what(), quote(f.n.text))
	default:
		f.errorf("must be a string, not %s", f.n.what())
	}
	return ""
}

// required reports that f is needed, unless something is there (then what is
// wrong with it is reported where it is read).
func (f field) required(why string) {
	switch {
	case f.broken || (f.given() && (f.n.kind != scalarKind || f.n.text != "")):
	case why != "":
		f.errorf("is required: %s", why)
	default:
		f.errorf("is required")
	}
}

// parse is the value of a string after parse, "" when absent or wrong.
func (f field) parse(parse func(string) (string, error)) string {
	if f.given() && f.n.kind == scalarKind && f.n.tag != "!!str" {
		// Quotes alone may not be enough.
		if _, err := parse(f.n.text); err != nil {
			f.errorf("%v", err)
			return ""
		}
	}
	s := f.str()
	if s == "" {
		return ""
	}
	out, err := parse(s)
	f.check(err)
	return out
}

// checked is the value of a string that passes check, "" when absent.
func (f field) checked(check func(string) error) string {
	return f.parse(func(s string) (string, error) { return s, check(s) })
}

// boolean is the value of a boolean; false when absent.
func (f field) boolean() bool {
	switch {
	case !f.given():
		return false
	case f.n.kind == scalarKind && f.n.tag == "!!bool":
		return strings.EqualFold(f.n.text, "true")
	case f.n.kind == scalarKind:
		f.errorf("must be true or false, not %s", quote(f.n.text))
	default:
		f.errorf("must be true or false, not %s", f.n.what())
	}
	return false
}

// port is the value of a port number; 0 when absent, 0 or wrong.
func (f field) port() int {
	switch {
	case !f.given():
		return 0
	case f.n.kind != scalarKind || f.n.tag != "!!int":
		f.errorf("must be a port number, not %s", f.n.what())
		return 0
	case f.n.text == "0":
		return 0
	}
	port, err := parsePort(f.n.text)
	f.check(err)
	return port
}

// strs is a list of strings, without empty ones.
func (f field) strs(parse func(string) (string, error)) []string {
	var list []string
	for _, item := range f.items() {
		if s := item.parse(parse); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// strMap is a mapping from strings to strings, as labels and annotations are.
func (f field) strMap() map[string]string {
	if !f.mapping() {
		return nil
	}
	m := make(map[string]string, len(f.n.keys))
	for _, k := range f.n.keys {
		m[k.name] = f.get(k.name).str()
	}
	return m
}

// maxNamed is how many names a message lists.
const maxNamed = 12

// only reports every key of f that is not one of the names. What was read from a
// cluster may have others.
func (f field) only(names ...string) {
	if !f.mapping() || f.in.lenient() {
		return
	}
	for _, k := range f.n.keys {
		if !slices.Contains(names, k.name) {
			hint := didYouMean(k.name, names)
			if hint == "" && len(names) <= maxNamed {
				hint = ", there are only " + strings.Join(names, ", ")
			}
			field{in: f.in, path: f.path, line: k.line}.errorf("unknown field %s%s", quote(k.name), hint)
		}
	}
}
