package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
)

const docs = "../../docs"

func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(docs, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// sharesPage: the subcommands are documented where the command is.
func sharesPage(command string) bool {
	return slices.Contains([]string{"get", "completion", "delete", "protect", "unprotect"}, command)
}

// pageOf is the page that documents a command: that of its parent for resources
// and shells, and protect's for unprotect.
func pageOf(c *cobra.Command) string {
	path := strings.Fields(c.CommandPath())[1:]
	if path[0] == "unprotect" {
		path[0] = "protect"
	}
	if len(path) > 1 && sharesPage(path[0]) {
		path = path[:1]
	}
	return strings.Join(path, "-") + ".md"
}

// Every command has a page with every flag, and nothing is documented that does not exist.
func TestCommandsAreDocumented(t *testing.T) {
	root := newRootCmd(newFactory(nil, first(ui.Test("", false)), nil))
	shown := map[string]map[string]bool{} // page -> flags
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() != "help" && !sub.Hidden {
				walk(sub)
			}
		}
		if c.HasSubCommands() && !sharesPage(c.Name()) {
			return
		}
		name := pageOf(c)
		text := page(t, filepath.Join("commands", name))
		if shown[name] == nil {
			shown[name] = map[string]bool{"plunder-config": true} // of every command
		}
		if !strings.Contains(text, c.Name()) {
			t.Errorf("%s does not mention %q", name, c.CommandPath())
		}
		for _, alias := range c.Aliases {
			if c.Parent().Name() == "get" && !strings.Contains(text, "`"+alias+"`") {
				t.Errorf("%s does not mention the name %q", name, alias)
			}
		}
		c.LocalFlags().VisitAll(func(fl *pflag.Flag) {
			if fl.Hidden || fl.Name == "help" || root.PersistentFlags().Lookup(fl.Name) != nil {
				return
			}
			shown[name][fl.Name] = true
			if !documents(text, fl) {
				t.Errorf("%s has no row for --%s of %s", name, fl.Name, c.CommandPath())
			}
		})
	}
	walk(root)

	global := page(t, "commands/README.md")
	root.PersistentFlags().VisitAll(func(fl *pflag.Flag) {
		if !fl.Hidden && !documents(global, fl) {
			t.Errorf("commands/README.md has no row for --%s", fl.Name)
		}
		if fl.Hidden && !strings.Contains(global, envName(fl.Name)) {
			t.Errorf("commands/README.md has no %s", envName(fl.Name))
		}
	})

	for name, flags := range shown {
		for _, m := range regexp.MustCompile("(?m)^\\| (?:`-.`, )?`--([a-z0-9-]+)").FindAllStringSubmatch(page(t, filepath.Join("commands", name)), -1) {
			if !flags[m[1]] {
				t.Errorf("%s documents --%s, which does not exist", name, m[1])
			}
		}
	}
}

// documents reports whether a table has a row that begins with the flag.
func documents(text string, fl *pflag.Flag) bool {
	short := ""
	if fl.Shorthand != "" {
		short = "`-" + fl.Shorthand + "`, "
	}
	return regexp.MustCompile("(?m)^\\| " + short + "`--" + regexp.QuoteMeta(fl.Name) + "[ `]").MatchString(text)
}

// Every field, type and step of an event has a row.
func TestEventsAreDocumented(t *testing.T) {
	text := page(t, "commands/apply.md")
	fields := reflect.TypeFor[event.Event]()
	for i := range fields.NumField() {
		name, _, _ := strings.Cut(fields.Field(i).Tag.Get("json"), ",")
		if !strings.Contains(text, "\n| `"+name+"` |") {
			t.Errorf("no row for the field %q", name)
		}
	}
	counts, err := json.Marshal(event.Counts{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"([a-zA-Z]+)":`).FindAllStringSubmatch(string(counts), -1) {
		if !strings.Contains(text, "`"+m[1]+"`") {
			t.Errorf("the count %q is not mentioned", m[1])
		}
	}
	source, err := os.ReadFile("../../pkg/apply/event/event.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +(?:Type|Step) += "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		if !strings.Contains(text, "`"+m[1]+"`") {
			t.Errorf("the type or step %q is not mentioned", m[1])
		}
	}
}

// Every option of an installation has a row, with its flag, and no row is about another.
func TestOptionsAreDocumented(t *testing.T) {
	text := page(t, "kubernetes.md")
	apply := newApplyCmd(newFactory(nil, first(ui.Test("", false)), nil), nil)
	known := append(optionFields("", reflect.TypeFor[capi.InstallOptions]()), optionFields("", reflect.TypeFor[capi.ClusterOptions]())...)
	rows := map[string]bool{}
	flags := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| (`[a-zA-Z0-9.`, ]+`) \\| ([^|]*)\\|").FindAllStringSubmatch(text, -1) {
		for _, f := range regexp.MustCompile("`([a-zA-Z0-9.]+)`").FindAllStringSubmatch(m[1], -1) {
			rows[f[1]] = true
		}
		for _, f := range regexp.MustCompile("--([a-z0-9-]+)").FindAllStringSubmatch(m[2], -1) {
			flags[f[1]] = true
			if apply.Flags().Lookup(f[1]) == nil {
				t.Errorf("there is no --%s", f[1])
			}
		}
	}
	for _, field := range known {
		if !rows[field] {
			t.Errorf("no row for %s", field)
		}
		delete(rows, field)
	}
	delete(rows, "vip") // an object that may be empty
	for field := range rows {
		t.Errorf("%s does not exist", field)
	}
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(installFlags).addFlags(own)
	own.VisitAll(func(fl *pflag.Flag) {
		if !flags[fl.Name] {
			t.Errorf("no row for --%s", fl.Name)
		}
	})
}

// optionFields are the paths of the fields of options.
func optionFields(path string, t reflect.Type) []string {
	var list []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		below := f.Type
		if below.Kind() == reflect.Pointer {
			below = below.Elem()
		}
		if below.Kind() == reflect.Struct {
			list = append(list, optionFields(path+name+".", below)...)
		} else {
			list = append(list, path+name)
		}
	}
	return list
}
