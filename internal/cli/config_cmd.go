package cli

import (
	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/internal/ui"
)

func newConfigCmd(f *factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the configuration",
		Args:  noSubcommand,
		RunE:  help,
	}
	cmd.AddCommand(newConfigViewCmd(f, nil))
	return cmd
}

type configViewOptions struct {
	f      *factory
	output string
}

func newConfigViewCmd(f *factory, runF func(*configViewOptions) error) *cobra.Command {
	o := &configViewOptions{f: f}
	cmd := &cobra.Command{
		Use:   "view",
		Short: "Show every setting, its value and where that came from",
		Long: `Show every setting, its value and where that came from.

A flag wins over an environment variable (CAPPLUNDER_OS_TIMEOUT for
--os-timeout), which wins over the configuration file. In the file settings are
named as the flags are, without dashes in front: "os-timeout: 60m".`,
		Example: `  capplunder config view
  CAPPLUNDER_OS_TIMEOUT=1h capplunder config view -o json`,
		Args: arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if runF != nil {
				return runF(o)
			}
			return runConfigView(o)
		},
	}
	addOutputFlag(cmd, &o.output, "table, json, yaml or jsonpath=TEMPLATE")
	return cmd
}

func runConfigView(o *configViewOptions) error {
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if err := out.allow("config view", formatTable, formatWide, formatJSON, formatYAML, formatJSONPath); err != nil {
		return err
	}
	l := list{kind: "SettingList", columns: []ui.Column{{Name: "SETTING"}, {Name: "VALUE"}, {Name: "SOURCE"}, {Name: "ENVIRONMENT", Wide: true}}}
	for _, s := range o.f.settings {
		l.items = append(l.items, item{name: "setting/" + s.Name, cells: []string{s.Name, s.Value, s.Source, s.Env}, object: s})
	}
	return o.f.show(out, l, false)
}
