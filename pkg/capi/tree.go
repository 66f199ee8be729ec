package capi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits on one document. Real manifests are orders of magnitude smaller.
const (
	maxDepth      = 100     // mappings and lists inside each other
	maxAliasNodes = 100_000 // nodes that aliases add to a document
)

type kind int

const (
	nullKind kind = iota
	scalarKind
	listKind
	mapKind
)

// node is a YAML value with aliases and merge keys resolved. Unlike yaml.Node
// it can be walked without surprises; unlike a decoded Go value it knows its line.
type node struct {
	kind  kind
	line  int    // in the file, from 1
	tag   string // of a scalar: !!str, !!int, !!float or !!bool
	text  string // of a scalar, as written, without quotes
	items []*node
	keys  []key
	index map[string]int // into keys
}

type key struct {
	name  string
	line  int
	value *node
}

// get returns the value of a key of a mapping.
func (n *node) get(name string) (key, bool) {
	if n == nil || n.kind != mapKind {
		return key{}, false
	}
	i, ok := n.index[name]
	if !ok {
		return key{}, false
	}
	return n.keys[i], true
}

// what names the kind of value for people.
func (n *node) what() string {
	switch n.kind {
	case nullKind:
		return "nothing"
	case listKind:
		return "a list"
	case mapKind:
		return "a mapping"
	case scalarKind:
	}
	switch n.tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "a boolean"
	}
	return "a string"
}

// value is n as the Go value that encoding/json would make of it, with int64
// for whole numbers as apimachinery's unstructured objects have it. The value
// shares nothing with n.
func (n *node) value() any {
	switch n.kind {
	case nullKind:
	case listKind:
		list := make([]any, len(n.items))
		for i, item := range n.items {
			list[i] = item.value()
		}
		return list
	case mapKind:
		m := make(map[string]any, len(n.keys))
		for _, k := range n.keys {
			m[k.name] = k.value.value()
		}
		return m
	case scalarKind:
		switch n.tag {
		case "!!bool":
			return strings.EqualFold(n.text, "true")
		case "!!int":
			if i, err := strconv.ParseInt(strings.ReplaceAll(n.text, "_", ""), 0, 64); err == nil {
				return i
			}
			f, _ := number(n.text)
			return f
		case "!!float":
			f, _ := number(n.text)
			return f
		}
		return n.text
	}
	return nil
}

// number reads a YAML number that JSON has, too: neither infinite nor NaN.
func number(text string) (float64, bool) {
	var f float64
	n := yaml.Node{Kind: yaml.ScalarNode, Value: text}
	if err := n.Decode(&f); err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		return 0, false
	}
	return f, true
}

// fault is something wrong with the YAML itself. The line counts in the file.
type fault struct {
	line int
	text string
}

// parse reads one document, or says everything that is wrong with its YAML. A
// document without any content gives a null node.
func parse(doc Document) (*node, []fault) {
	first := max(doc.Origin.Line, 1)
	dec := yaml.NewDecoder(bytes.NewReader(doc.Raw))
	var y yaml.Node
	if err := dec.Decode(&y); err != nil {
		if errors.Is(err, io.EOF) {
			return &node{line: first}, nil
		}
		return nil, []fault{explainYAML(err, doc.Raw, first)}
	}
	b := &builder{first: first, active: map[*yaml.Node]bool{}}
	root := b.build(&y, 0)
	// What follows would otherwise be dropped without a word.
	var rest yaml.Node
	if err := dec.Decode(&rest); err == nil {
		b.fail(&rest, "more than one YAML document where one was expected")
	} else if !errors.Is(err, io.EOF) {
		b.faults = append(b.faults, explainYAML(err, doc.Raw, first))
	}
	if len(b.faults) > 0 {
		return nil, b.faults
	}
	return root, nil
}

var (
	yamlLine      = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// explainYAML turns an error of the YAML library into ours.
func explainYAML(err error, raw []byte, first int) fault {
	text, line := err.Error(), 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
			line = n
		}
	}
	// The usual cause of this one deserves to be named.
	if strings.Contains(text, "cannot start any token") || strings.Contains(text, "did not find expected") {
		for i, l := range strings.Split(string(raw), "\n") {
			indent := l[:len(l)-len(strings.TrimLeft(l, " \t"))]
			if strings.Contains(indent, "\t") && strings.TrimSpace(l) != "" {
				return fault{first + i, "not valid YAML: a tab in the indentation, use spaces"}
			}
		}
	}
	if m := unknownAnchor.FindStringSubmatch(text); m != nil && line == 0 {
		before, _, _ := strings.Cut(string(raw), "*"+m[1])
		line = 1 + strings.Count(before, "\n")
	}
	return fault{first + max(line, 1) - 1, "not valid YAML: " + text}
}

type builder struct {
	first  int // line of the file on which the document starts
	faults []fault
	active map[*yaml.Node]bool // anchors that are being expanded
	// aliases counts how deep we are inside aliases, added how many nodes they brought.
	aliases, added int
}

func (b *builder) fail(y *yaml.Node, format string, args ...any) *node {
	line := b.first + max(y.Line, 1) - 1
	b.faults = append(b.faults, fault{line, fmt.Sprintf(format, args...)})
	return &node{line: line}
}

func (b *builder) build(y *yaml.Node, depth int) *node {
	if depth > maxDepth {
		return b.fail(y, "more than %d levels of nesting", maxDepth)
	}
	if b.aliases > 0 {
		b.added++
		if b.added > maxAliasNodes {
			if b.added == maxAliasNodes+1 {
				b.fail(y, "aliases expand to more than %d values", maxAliasNodes)
			}
			return &node{line: b.first}
		}
	}
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) == 0 {
			return &node{line: b.first}
		}
		return b.build(y.Content[0], depth)
	case yaml.AliasNode:
		if b.active[y.Alias] {
			return b.fail(y, "anchor %s contains itself", quote(y.Value))
		}
		b.active[y.Alias] = true
		b.aliases++
		n := b.build(y.Alias, depth)
		b.aliases--
		delete(b.active, y.Alias)
		return n
	case yaml.SequenceNode:
		return b.list(y, depth)
	case yaml.MappingNode:
		return b.mapping(y, depth)
	case yaml.ScalarNode:
		return b.scalar(y)
	}
	return &node{line: b.first}
}

func (b *builder) list(y *yaml.Node, depth int) *node {
	if y.ShortTag() != "!!seq" {
		return b.fail(y, "the tag %s is not supported", quote(y.Tag))
	}
	n := &node{kind: listKind, line: b.first + y.Line - 1, items: make([]*node, 0, len(y.Content))}
	defer b.enter(y)()
	for _, c := range y.Content {
		n.items = append(n.items, b.build(c, depth+1))
	}
	return n
}

// enter marks an anchored value as being expanded, so that an alias to it from
// inside is seen as the endless loop it is.
func (b *builder) enter(y *yaml.Node) func() {
	if y.Anchor == "" || b.active[y] {
		return func() {}
	}
	b.active[y] = true
	return func() { delete(b.active, y) }
}

func (b *builder) mapping(y *yaml.Node, depth int) *node {
	if y.ShortTag() != "!!map" {
		return b.fail(y, "the tag %s is not supported", quote(y.Tag))
	}
	n := &node{kind: mapKind, line: b.first + y.Line - 1, index: make(map[string]int, len(y.Content)/2)}
	defer b.enter(y)()
	var merges []*node
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merges = append(merges, b.build(v, depth+1))
			continue
		}
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null" {
			b.fail(k, "a key must be a plain name")
			continue
		}
		if old, ok := n.index[k.Value]; ok {
			b.fail(k, "the key %s is there twice, first on line %d", quote(k.Value), n.keys[old].line)
			continue
		}
		n.index[k.Value] = len(n.keys)
		n.keys = append(n.keys, key{k.Value, b.first + k.Line - 1, b.build(v, depth+1)})
	}
	for _, m := range merges {
		b.merge(n, m)
	}
	return n
}

// merge adds what "<<" brings: a key that is there already stays.
func (b *builder) merge(n, from *node) {
	sources := []*node{from}
	if from.kind == listKind {
		sources = from.items
	}
	for _, s := range sources {
		if s.kind != mapKind {
			b.faults = append(b.faults, fault{from.line, "<< needs a mapping or a list of mappings"})
			return
		}
		for _, k := range s.keys {
			if _, ok := n.index[k.name]; !ok {
				n.index[k.name] = len(n.keys)
				n.keys = append(n.keys, k)
			}
		}
	}
}

func (b *builder) scalar(y *yaml.Node) *node {
	n := &node{kind: scalarKind, line: b.first + y.Line - 1, tag: y.ShortTag(), text: y.Value}
	switch n.tag {
	case "!!null":
		n.kind, n.tag, n.text = nullKind, "", ""
	case "!!str":
	case "!!timestamp", "!!merge": // JSON has no dates: it is a string there
		n.tag = "!!str"
	case "!!bool":
		if !strings.EqualFold(n.text, "true") && !strings.EqualFold(n.text, "false") {
			return b.fail(y, "%s is not a boolean", quote(n.text))
		}
	case "!!int", "!!float":
		if _, ok := number(n.text); !ok {
			return b.fail(y, "%s is not a number that JSON has", quote(n.text))
		}
	default:
		return b.fail(y, "the tag %s is not supported", quote(n.tag))
	}
	return n
}

// quote quotes a value for a message, cut to a length that people can read.
func quote(s string) string {
	const limit = 80
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "..."
	}
	return strconv.Quote(s)
}
