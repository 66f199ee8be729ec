package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/internal/ui"
)

// Values of -o.
const (
	formatTable    = "table"
	formatWide     = "wide"
	formatJSON     = "json"
	formatYAML     = "yaml"
	formatName     = "name"
	formatJSONPath = "jsonpath"
)

// output is a parsed -o.
type output struct {
	format string
	path   *jsonpath.JSONPath // of formatJSONPath
}

// parseOutput reads the value of -o; "" is a table.
func parseOutput(s string) (output, error) {
	format, template, _ := strings.Cut(s, "=")
	switch format {
	case "":
		return output{format: formatTable}, nil
	case formatTable, formatWide, formatJSON, formatYAML, formatName:
		if format == s {
			return output{format: format}, nil
		}
	case formatJSONPath:
		if template == "" {
			return output{}, usagef(nil, "-o jsonpath needs a template, for example -o jsonpath='{.items[*].name}'")
		}
		path := jsonpath.New("out").AllowMissingKeys(true)
		if err := path.Parse(template); err != nil {
			return output{}, usagef(nil, "-o jsonpath: %w", err)
		}
		return output{format: format, path: path}, nil
	}
	return output{}, usagef(nil, "-o %q: unknown format; use table, wide, json, yaml, name or jsonpath=TEMPLATE", s)
}

// item is one object of a list, in every form it can be printed in.
type item struct {
	name   string   // "machine/worker"
	cells  []string // of all columns
	object any
	key    string // identifies the object between two looks
	// mark is the fingerprint of the object: when it changes, --watch shows the
	// object again. brief is that of a table that is not wide, if it differs.
	mark, brief string
}

// list is what `get` prints.
type list struct {
	kind    string // "MachineList"
	columns []ui.Column
	items   []item
	// notices are for people, once the list is shown.
	notices []string
}

// document is a list as JSON and YAML.
type document struct {
	Kind      string `json:"kind"`
	Simulated bool   `json:"simulated,omitempty"`
	Items     []any  `json:"items"`
}

// show writes a list in the wanted format. single: one object was asked for by
// name, so JSON and YAML are that object and no list.
func (f *factory) show(o output, l list, single bool) error {
	switch o.format {
	case formatName:
		var buf bytes.Buffer
		for _, it := range l.items {
			fmt.Fprintln(&buf, it.name)
		}
		f.noticeSimulated()
		_, err := f.io.Out.Write(buf.Bytes())
		return err
	case formatTable, formatWide:
		t := ui.Table{Columns: l.columns}
		for _, it := range l.items {
			t.Rows = append(t.Rows, it.cells)
		}
		return t.Write(f.io.Out, f.tableOptions(o))
	}
	doc := document{Kind: l.kind, Simulated: f.opts.simulate, Items: []any{}}
	for _, it := range l.items {
		doc.Items = append(doc.Items, it.object)
	}
	if single && len(l.items) == 1 {
		object, err := f.markSimulated(l.items[0].object)
		if err != nil {
			return err
		}
		return f.printObject(o, object)
	}
	return f.printObject(o, doc)
}

// printObject writes one object as JSON, YAML or through a JSONPath template.
func (f *factory) printObject(o output, object any) error {
	data, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	switch o.format {
	case formatYAML:
		if data, err = yaml.JSONToYAML(data); err != nil {
			return fmt.Errorf("mark: %w", err)
		}
	case formatJSONPath:
		var generic any
		if err := json.Unmarshal(data, &generic); err != nil {
			return fmt.Errorf("mark: %w", err)
		}
		var buf bytes.Buffer
		if err := o.path.Execute(&buf, generic); err != nil {
			return usagef(nil, "-o jsonpath: %w", err)
		}
		f.noticeSimulated()
		data = buf.Bytes()
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	_, err = f.io.Out.Write(data)
	return err
}

// markSimulated adds "simulated": true to an object of a simulated run.
func (f *factory) markSimulated(object any) (any, error) {
	if !f.opts.simulate {
		return object, nil
	}
	data, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("mark: %w", err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("mark: %w", err)
	}
	m["simulated"] = true
	return m, nil
}

// noticeSimulated says on stderr what bare names and values can't.
func (f *factory) noticeSimulated() {
	if f.opts.simulate {
		f.noticef("these are simulated machines")
	}
}

func (f *factory) tableOptions(o output) ui.TableOptions {
	return ui.TableOptions{Wide: o.format == formatWide, Color: f.io.OutColor, Prefix: f.prefix()}
}
