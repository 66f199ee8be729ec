package cloudconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reader collects what is wrong with the data, as paths and reasons without content.
type reader struct {
	problems []string
	unknown  []string
}

// maxProblems is how many problems are told at once.
const maxProblems = 20

func (r *reader) errorf(path, format string, args ...any) {
	if len(r.problems) <= maxProblems {
		r.problems = append(r.problems, path+": "+fmt.Sprintf(format, args...))
	}
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	list := r.problems
	if len(list) > maxProblems {
		list = append(slices.Clone(list[:maxProblems]), "and more")
	}
	return errors.New("bootstrap data: " + strings.Join(list, "; "))
}

var lineForm = regexp.MustCompile(`line [0-9]+`)

// document is the one YAML document of the text. The library's errors may quote it, so
// only their line number is passed on.
func document(text []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := d.Decode(&doc); err != nil {
		if line := lineForm.FindString(err.Error()); line != "" {
			return nil, fmt.Errorf("bootstrap data is not YAML: %s", line)
		}
		return nil, errors.New("bootstrap data is not YAML")
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("bootstrap data has more than one YAML document")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("bootstrap data is not a map of keys")
	}
	return doc.Content[0], nil
}

// keyForm is a key that may be named in an error.
var keyForm = regexp.MustCompile(`^[A-Za-z0-9_./:-]{1,64}$`)

func shown(key string) string {
	if keyForm.MatchString(key) {
		return key
	}
	return "(a key)"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// value is a place in the data: a path and what stands there. A value that is not there
// has no node.
type value struct {
	r    *reader
	path string
	node *yaml.Node
}

// given is false for what is not there and for null.
func (v value) given() bool { return v.node != nil && v.node.Tag != "!!null" }

// object gives the values of a map by key; keys that are not among the known are noted.
// With no known keys, all are given and order has them.
func (v value) object(known ...string) (values map[string]value, order []string) {
	values = map[string]value{}
	for _, k := range known {
		values[k] = value{r: v.r, path: join(v.path, k)}
	}
	if !v.given() {
		return values, nil
	}
	if v.node.Kind != yaml.MappingNode {
		v.wrong("a map")
		return values, nil
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		key, node := v.node.Content[i], v.node.Content[i+1]
		path := join(v.path, shown(key.Value))
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag == "!!merge":
			v.r.errorf(path, "a key is not a text (anchors and merges are not supported)")
		case seen[key.Value]:
			v.r.errorf(path, "it is given twice")
		case len(known) > 0 && !slices.Contains(known, key.Value):
			v.r.unknown = append(v.r.unknown, path)
		default:
			values[key.Value] = value{r: v.r, path: path, node: node}
			order = append(order, key.Value)
		}
		seen[key.Value] = true
		if len(seen) > maxItems {
			v.r.errorf(v.path, "more than %d keys", maxItems)
			return values, order
		}
	}
	return values, order
}

func (v value) wrong(want string) {
	if v.node.Kind == yaml.AliasNode {
		v.r.errorf(v.path, "anchors and aliases (&, *) are not supported")
		return
	}
	v.r.errorf(v.path, "it is not %s", want)
}

// list gives the items of a list.
func (v value) list() []value {
	if !v.given() {
		return nil
	}
	if v.node.Kind != yaml.SequenceNode {
		v.wrong("a list")
		return nil
	}
	if len(v.node.Content) > maxItems {
		v.r.errorf(v.path, "more than %d items", maxItems)
		return nil
	}
	items := make([]value, len(v.node.Content))
	for i, n := range v.node.Content {
		items[i] = value{r: v.r, path: fmt.Sprintf("%s[%d]", v.path, i), node: n}
	}
	return items
}

// text is a scalar as it is written; "" for none.
func (v value) text() string {
	if !v.given() {
		return ""
	}
	if v.node.Kind != yaml.ScalarNode {
		v.wrong("a text")
		return ""
	}
	if strings.ContainsRune(v.node.Value, 0) {
		v.r.errorf(v.path, "it has a NUL")
		return ""
	}
	return v.node.Value
}

// matched is a text of a form, or "".
func (v value) matched(form *regexp.Regexp, what string) string {
	s := v.text()
	if s != "" && !form.MatchString(s) {
		v.r.errorf(v.path, "it is not %s", what)
		return ""
	}
	return s
}

// flag is a boolean, as YAML 1.1 has them, too, which cloud-init reads.
func (v value) flag(fallback bool) bool {
	switch strings.ToLower(v.text()) {
	case "":
		return fallback
	case "true", "yes", "on":
		return true
	case "false", "no", "off":
		return false
	}
	v.r.errorf(v.path, "it is neither true nor false")
	return fallback
}

// texts is a list of texts; a text alone is a list of one.
func (v value) texts() []value {
	if v.given() && v.node.Kind == yaml.ScalarNode {
		return []value{v}
	}
	return v.list()
}
