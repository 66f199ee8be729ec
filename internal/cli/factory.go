package cli

import (
	"bufio"
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/state"
)

// factory hands commands what they work with. Streams and environment are
// values; what can fail or touches disk or network is made when it is asked for.
type factory struct {
	io   *ui.IOStreams
	args []string
	env  map[string]string
	opts globals

	// place are the flags, given by hand, that say which server and store are meant:
	// " --simulate --state-dir x". cluster are those of them about the Kubernetes cluster,
	// placeFlags are all, one by one.
	place, cluster string
	placeFlags     []placeFlag
	// opened is the store, once a command asked for it.
	opened *opened
	// typed is what a person types, once something was asked.
	typed *bufio.Reader
	// settings is what setUp found out about every setting, for `config view`.
	settings []setting
}

func newFactory(args []string, streams *ui.IOStreams, environ []string) *factory {
	return &factory{io: streams, args: args, env: environment(environ)}
}

func (f *factory) getenv(key string) string { return f.env[key] }

// placeFlag is a flag that says which server or store is meant.
type placeFlag struct{ name, short, text string }

// ofCluster reports whether a flag says which Kubernetes cluster is meant.
func ofCluster(flag string) bool { return flag == "kubeconfig" || flag == "context" }

// simulatedPrefix marks every line for people of a simulated run.
const simulatedPrefix = "[simulated] "

// setUp resolves the configuration for cmd and makes the streams fit it.
func (f *factory) setUp(cmd *cobra.Command) error {
	if err := f.resolve(cmd); err != nil {
		return err
	}
	f.place, f.cluster, f.placeFlags = "", "", nil
	cmd.Flags().Visit(func(fl *pflag.Flag) {
		switch fl.Name {
		case "simulate", "insecure-http":
			f.placeFlags = append(f.placeFlags, placeFlag{fl.Name, fl.Shorthand, " --" + fl.Name})
		case "plunder-config", "plunder-secret", "url", "state-dir", "store", "config", "kubeconfig", "context":
			f.placeFlags = append(f.placeFlags, placeFlag{fl.Name, fl.Shorthand, " --" + fl.Name + " " + shellWord(fl.Value.String())})
		}
	})
	// Those of the Kubernetes cluster come last.
	slices.SortStableFunc(f.placeFlags, func(a, b placeFlag) int {
		switch {
		case ofCluster(a.name) == ofCluster(b.name):
			return 0
		case ofCluster(b.name):
			return -1
		}
		return 1
	})
	for _, fl := range f.placeFlags {
		f.place += fl.text
		if ofCluster(fl.name) {
			f.cluster += fl.text
		}
	}
	if f.opts.noColor {
		f.io.NoColor()
	}
	if f.opts.simulate {
		f.io.Err.SetPrefix(simulatedPrefix)
	}
	return nil
}

// prefix precedes every line of tables.
func (f *factory) prefix() string {
	if f.opts.simulate {
		return simulatedPrefix
	}
	return ""
}

// stateDir is the directory of the store: that of simulated machines with --simulate.
func (f *factory) stateDir() (string, error) {
	dir := f.opts.stateDir
	if dir == "" {
		var err error
		if dir, err = state.DefaultDir(f.getenv); err != nil {
			return "", usagef(nil, "%w", err)
		}
	}
	if !f.opts.simulate {
		return dir, nil
	}
	dir, err := state.SimulatedDir(dir)
	if err != nil {
		return "", usagef(nil, "%w", err)
	}
	return dir, nil
}

// server is a connection to a plunder server.
type server struct {
	*plunder.Client
	stop func() error // ends a simulated one
}

// Close ends the connection.
func (s *server) Close() error {
	s.Client.Close()
	if s.stop == nil {
		return nil
	}
	return s.stop()
}

// retryFor is how long a call is tried again whose connection could not be made.
// The engine has longer patience of its own while machines install.
const retryFor = 3 * time.Second

// Server connects to the plunder server, or to simulated machines. No request is
// sent to it yet. keep says that changes to simulated machines are to be kept.
func (f *factory) Server(ctx context.Context, keep bool) (*server, error) {
	opts := []plunder.Option{plunder.WithUserAgent(userAgent()), plunder.WithRetryFor(retryFor)}
	if f.opts.verbosity >= verbosityRequests {
		opts = append(opts, plunder.WithLogf(f.io.Err.Linef))
	}
	if f.opts.simulate {
		return f.simulatedServer(keep, opts)
	}
	cfg, err := f.plunderConfig(ctx)
	if err != nil {
		return nil, err
	}
	client, err := plunder.New(cfg, opts...)
	if err != nil {
		return nil, usagef(nil, "%w", err)
	}
	return &server{Client: client}, nil
}

// Levels of -v.
const (
	verbosityObservations = 1
	verbosityRequests     = 4
)

func (f *factory) plunderConfig(ctx context.Context) (plunder.Config, error) {
	cfg := plunder.Config{}
	secret, err := f.plunderSecret()
	if err != nil {
		return cfg, err
	}
	if secret != nil {
		if cfg, err = f.readSecret(ctx, *secret); err != nil {
			return cfg, err
		}
		cfg.URL, cfg.AllowHTTP = f.opts.url, f.opts.insecureHTTP
		return cfg, nil
	}
	explicit := f.opts.plunderConfig
	if explicit == f.getenv(plunder.ConfigEnv) {
		explicit = "" // found again by FindConfig, whose errors then name the variable
	}
	path, err := plunder.FindConfig(explicit, f.getenv)
	switch {
	case err == nil:
		if cfg, err = plunder.LoadConfig(path); err != nil {
			return cfg, usagef(nil, "%w", err)
		}
	case f.opts.url == "" || !strings.HasPrefix(f.opts.url, "http:"):
		// Only plain http needs no certificate, and so no file.
		return cfg, &usageError{err: err, next: name + " apply -f examples/simple --simulate    # no server needed"}
	}
	cfg.URL, cfg.AllowHTTP = f.opts.url, f.opts.insecureHTTP
	return cfg, nil
}

// reporter is for the events of a run that prints results as o says.
func (f *factory) reporter(o output) ui.Reporter {
	if o.format == formatJSON {
		return ui.NewJSONReporter(f.io.Out)
	}
	return ui.NewReporter(f.io, ui.ReportOptions{Verbosity: f.opts.verbosity, Quiet: f.opts.quiet})
}

// noticef tells a person something that matters little: --quiet hides it.
func (f *factory) noticef(format string, args ...any) {
	if !f.opts.quiet {
		f.io.Err.Linef(format, args...)
	}
}

func (f *factory) warnf(format string, args ...any) {
	f.io.Err.Linef("warning: "+format, args...)
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_./:=@,+~-]+$`)

// commandLine is the command line that was typed, to be typed again.
func (f *factory) commandLine() string {
	words := []string{name}
	for _, a := range f.args {
		words = append(words, shellWord(a))
	}
	return strings.Join(words, " ")
}

// shellWord quotes a word if a shell would take it apart.
func shellWord(a string) string {
	if plainWord.MatchString(a) {
		return a
	}
	return "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
}

// allow refuses values of -o that make no sense for a command.
func (o output) allow(cmd string, formats ...string) error {
	if slices.Contains(formats, o.format) {
		return nil
	}
	return usagef(nil, "-o %s: %s knows -o %s", o.format, cmd, strings.Join(formats, ", "))
}
