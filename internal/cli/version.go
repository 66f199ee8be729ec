package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/internal/ui"
)

// Set with -ldflags "-X" by the release; else the module's build information is used.
var (
	version = ""
	commit  = "" //nolint:gochecknoglobals // likewise
	date    = "" //nolint:gochecknoglobals // likewise
)

// buildInfo is what is known about this binary.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from a changed work tree
	Date     string `json:"date,omitempty"`     // of the build, else of the commit; RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuildInfo() buildInfo {
	b := buildInfo{Version: version, Commit: commit, Date: date, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if b.Version == "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				if b.Commit == "" {
					b.Commit = s.Value
				}
			case "vcs.time":
				if b.Date == "" {
					b.Date = s.Value
				}
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "dev"
	}
	return b
}

func userAgent() string { return name + "/" + readBuildInfo().Version }

type versionOptions struct {
	f      *factory
	output string
}

func newVersionCmd(f *factory, runF func(*versionOptions) error) *cobra.Command {
	o := &versionOptions{f: f}
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version",
		Example: `  capplunder version
  capplunder version -o json`,
		Args: arguments(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if runF != nil {
				return runF(o)
			}
			return runVersion(o)
		},
	}
	addOutputFlag(cmd, &o.output, "table, json, yaml or jsonpath=TEMPLATE")
	return cmd
}

func runVersion(o *versionOptions) error {
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if err := out.allow("version", formatTable, formatWide, formatJSON, formatYAML, formatJSONPath); err != nil {
		return err
	}
	b := readBuildInfo()
	if out.format != formatTable && out.format != formatWide {
		return o.f.printObject(out, b)
	}
	t := ui.Table{Columns: []ui.Column{{Name: "VERSION"}, {Name: "COMMIT"}, {Name: "DATE"}, {Name: "GO"}, {Name: "PLATFORM"}}}
	t.Rows = [][]string{{b.Version, b.Commit, b.Date, b.Go, b.Platform}}
	return t.Write(o.f.io.Out, o.f.tableOptions(out))
}
