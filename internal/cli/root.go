package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Name is the name of the program.
const name = "capplunder"

// globals are the flags that every command has.
type globals struct {
	plunderConfig string
	plunderSecret string
	url           string
	insecureHTTP  bool
	stateDir      string
	store         string
	kubeconfig    string
	kubeContext   string
	simulate      bool
	sim           simulateOptions
	verbosity     int
	quiet         bool
	noColor       bool
	configFile    string
}

func (g *globals) addFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&g.plunderConfig, "plunder-config", "p", "", "`file` that says where the plunder server is and how to recognise it (default ./plunderclient.yaml, then $XDG_CONFIG_HOME/capplunder/plunderclient.yaml)")
	fs.StringVar(&g.plunderSecret, "plunder-secret", "", "`NAMESPACE/NAME` of a secret in the Kubernetes cluster that has that file's content, as capplunder init stores it")
	fs.StringVar(&g.url, "url", "", "`URL` of the plunder server, instead of the one in the plunder configuration")
	fs.BoolVar(&g.insecureHTTP, "insecure-http", false, "allow plain http: everybody on the way can then read passwords and take machines over")
	fs.StringVar(&g.stateDir, "state-dir", "", "`directory` of the local store (default $XDG_STATE_HOME/capplunder/state)")
	fs.StringVar(&g.store, "store", storeAuto, "`where` to record results: kubernetes, local, or auto: Kubernetes if a kubeconfig names a cluster, else local")
	fs.StringVar(&g.kubeconfig, "kubeconfig", "", "kubeconfig `file` (default $KUBECONFIG, then ~/.kube/config, then the cluster around this process)")
	fs.StringVar(&g.kubeContext, "context", "", "`context` of the kubeconfig (default the current one)")
	fs.BoolVar(&g.simulate, "simulate", false, "work on simulated machines, kept in a directory beside the local store; nothing real is touched")
	g.sim.addFlags(fs)
	fs.IntVarP(&g.verbosity, "verbosity", "v", 0, "`level` of detail on stderr: 1 shows every observation, 4 every request")
	fs.BoolVar(&g.quiet, "quiet", false, "show only warnings and errors on stderr")
	fs.BoolVar(&g.noColor, "no-color", false, "no colours (as NO_COLOR=1)")
	fs.StringVar(&g.configFile, "config", "", "configuration `file` (default $XDG_CONFIG_HOME/capplunder/config.yaml)")
}

func newRootCmd(f *factory) *cobra.Command {
	root := &cobra.Command{
		Use:   name,
		Short: "Provision bare metal from Cluster API manifests with plunder",
		Long: `capplunder reads Cluster API manifests, has a plunder server install every
Machine in them, waits until operating systems and Kubernetes run, and records
the result.`,
		Example: `  # Try it: two simulated machines, nothing real is touched
  capplunder apply -f examples/simple --simulate

  # See what would be done, then do it
  capplunder apply -f cluster.yaml -f machines.yaml --dry-run
  capplunder apply -f cluster.yaml -f machines.yaml`,
		Args:              noSubcommand,
		RunE:              help,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return f.setUp(cmd) },
	}
	f.opts.addFlags(root.PersistentFlags())
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(
		newApplyCmd(f, nil),
		newGetCmd(f),
		newLogsCmd(f, nil),
		newDeleteCmd(f, nil),
		newDestroyCmd(f, nil),
		newProtectCmd(f, true),
		newProtectCmd(f, false),
		newVerifyReceiptCmd(f, nil),
		newInitCmd(f, nil),
		newSimulatorCmd(f, nil),
		newConfigCmd(f),
		newVersionCmd(f, nil),
	)
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args, c.RunE = noSubcommand, help
		}
	}
	return root
}

// help is the action of commands that only have subcommands.
func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// noSubcommand refuses arguments of a command that only has subcommands.
func noSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	known := map[string]bool{}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			known[c.Name()] = true
			for _, a := range c.Aliases {
				known[a] = true
			}
		}
	}
	return usagef(cmd, "unknown command %q for %q%s", args[0], cmd.CommandPath(), didYouMean(args[0], known))
}

// flagError explains a flag that could not be parsed. After a mistyped command,
// "aply -f x", it is the command that is wrong.
func flagError(cmd *cobra.Command, err error) error {
	if args := cmd.Flags().Args(); cmd.HasAvailableSubCommands() && len(args) > 0 {
		return noSubcommand(cmd, args)
	}
	var missing *pflag.NotExistError
	if errors.As(err, &missing) && len(missing.GetSpecifiedName()) > 1 {
		known := map[string]bool{}
		cmd.Flags().VisitAll(func(fl *pflag.Flag) {
			if !fl.Hidden {
				known["--"+fl.Name] = true
			}
		})
		return usagef(cmd, "unknown flag --%s%s", missing.GetSpecifiedName(), didYouMean("--"+missing.GetSpecifiedName(), known))
	}
	return usagef(cmd, "%w", err)
}

// arguments wraps one of cobra's checks of the number of arguments.
func arguments(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usagef(cmd, "%w", err)
		}
		return nil
	}
}

// didYouMean is `; did you mean "x"?` when one of the known words is close to s.
func didYouMean(s string, known map[string]bool) string {
	best, bestDistance := "", 3
	for k := range known {
		d := levenshtein.ComputeDistance(s, k)
		if strings.HasPrefix(k, s) && len(s) > 2 {
			d = 1
		}
		if d < bestDistance || d == bestDistance && k < best {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
