package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopacket/gopacket/macs"
	"github.com/spf13/cobra"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/simulator"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

type simulatorOptions struct {
	f *factory

	listen            string
	machines          int
	macs              []string
	vendors           []string
	osInstall         time.Duration
	kubernetesInstall time.Duration
	bootLoop          time.Duration
	postCost          time.Duration
	faults            []string
	systems           []string
	disks             []string
	seed              int64
	serverVersion     string
	stateFile         string
	// clientConfig is the file to write; typed says that it was chosen.
	clientConfig string
	typed        bool
}

func newSimulatorCmd(f *factory, runF func(context.Context, *simulatorOptions) error) *cobra.Command {
	o := &simulatorOptions{f: f}
	cmd := &cobra.Command{
		Use:   "simulator",
		Short: "Run a plunder server with simulated machines",
		Long: `Run a plunder server with simulated machines, until Ctrl-C.

It answers as real plunder servers do, over TLS, faults included. Its machines
boot, install, reboot and run the commands they are sent on virtual disks;
nothing can touch the machine it runs on. The plunderclient.yaml that it writes
is what clients need, and is removed when the simulator ends.

Faults are [MACHINE/]STEP=KIND[,skip=N][,times=N][,after=DURATION]. MACHINE is
a MAC address, an IPv4 address, a host name or its beginning before a dash, or #N
for the N-th machine from 0. Steps and their kinds:
  post, patch, delete, parlay, log   die drop lose hang fail crash
  install                            die hang fail
  ssh                                refuse lose hang fail stranger
  action:NAME                        fail hang die reset crash lose swap
  run:PROGRAM [WORD...]              fail hang die reset crash lose
  disk:DEVICE[@FROM+BYTES]           lose fail
  net:SERVER                         refuse lose fail hang
  lock (of the package manager)      hold`,
		Example: `  # In one terminal
  capplunder simulator --plunder-config plunderclient.yaml

  # In another one
  capplunder apply -f examples/simple

  # The first answer to a POST is lost; the worker's installer hangs
  capplunder simulator --fault post=drop,times=1 --fault worker/install=hang`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Only what was typed: the variable and the configuration file may name the
			// file of a real server.
			o.clientConfig = plunder.ConfigFile
			if fl := cmd.Flags().Lookup("plunder-config"); fl != nil && fl.Changed {
				o.clientConfig, o.typed = fl.Value.String(), true
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runSimulator(cmd.Context(), o)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.listen, "listen", "127.0.0.1:60443", "`address` and port to listen on; port 0 takes a free one")
	fs.IntVar(&o.machines, "machines", 4, "how many machines there are")
	fs.StringArrayVar(&o.macs, "mac", nil, "`MAC` address of a machine; may be repeated")
	fs.StringArrayVar(&o.vendors, "vendor", nil, "vendor of further machines: a `name` such as vmware, or the first three bytes of a MAC; may be repeated")
	fs.DurationVar(&o.osInstall, "os-install", 8*time.Second, "how long an operating system takes")
	fs.DurationVar(&o.kubernetesInstall, "kubernetes-install", 6*time.Second, "how long Kubernetes takes on one machine")
	fs.DurationVar(&o.bootLoop, "boot-loop", 2*time.Second, "how long one turn of the reboot loop takes")
	fs.DurationVar(&o.postCost, "post-cost", 2500*time.Microsecond, "processor time that a POST /parlay costs the server per deployment")
	fs.StringArrayVar(&o.faults, "fault", nil, "`fault` to inject, see above; may be repeated")
	fs.StringArrayVar(&o.systems, "system", nil, "`[BOOT=]SYSTEM` that a boot configuration installs, or all of them: "+strings.Join(host.Profiles(), ", ")+"; may be repeated")
	fs.StringArrayVar(&o.disks, "disk", nil, "`NAME=SIZE[,TRAIT...]` of a disk that every machine has, as sdb=2T,rotational; the first gets the system; traits: "+strings.Join(diskTraits(), ", ")+"; may be repeated")
	fs.Int64Var(&o.seed, "seed", 0, "changes MAC addresses and jitter; the same seed gives the same rack")
	fs.StringVar(&o.serverVersion, "server-version", simulator.Versions()[0], "plunder `version` to behave as: "+strings.Join(simulator.Versions(), " or "))
	fs.StringVar(&o.stateFile, "state", "", "`file` to keep the machines in between runs")
	return cmd
}

// config checks the options.
func (o *simulatorOptions) config() (simulator.Config, error) {
	cfg := simulator.Config{
		Version:           o.serverVersion,
		Machines:          max(o.machines, len(o.macs)),
		OSInstall:         zeroIsNone(o.osInstall),
		KubernetesInstall: zeroIsNone(o.kubernetesInstall),
		BootLoop:          zeroIsNone(o.bootLoop),
		BootTime:          zeroIsNone(o.bootLoop),
		POSTCost:          zeroIsNone(o.postCost),
		Seed:              o.seed,
		StateFile:         o.stateFile,
	}
	var problems []error
	if !slices.Contains(simulator.Versions(), o.serverVersion) {
		problems = append(problems, usagef(nil, "--server-version %q: want %s", o.serverVersion, strings.Join(simulator.Versions(), " or ")))
	}
	if o.machines < 1 {
		problems = append(problems, usagef(nil, "--machines %d: must be 1 or more", o.machines))
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
	}{{"os-install", o.osInstall}, {"kubernetes-install", o.kubernetesInstall}, {"boot-loop", o.bootLoop}, {"post-cost", o.postCost}} {
		if d.value < 0 {
			problems = append(problems, usagef(nil, "--%s %s: must not be negative", d.flag, d.value))
		}
	}
	for _, text := range o.macs {
		mac, err := capi.ParseMAC(text)
		switch {
		case err != nil:
			problems = append(problems, usagef(nil, "--mac: %w", err))
		case slices.Contains(cfg.MACs, mac):
			problems = append(problems, usagef(nil, "--mac %s is given twice", mac))
		default:
			cfg.MACs = append(cfg.MACs, mac)
		}
	}
	for _, text := range o.vendors {
		oui, err := vendorPrefix(text)
		if err != nil {
			problems = append(problems, err)
		}
		cfg.OUIs = append(cfg.OUIs, oui)
	}
	for _, text := range o.systems {
		boot, system, one := strings.Cut(text, "=")
		if !one {
			system = text
		}
		switch {
		case !slices.Contains(host.Profiles(), system):
			problems = append(problems, usagef(nil, "--system %q: want [BOOT=]SYSTEM, where SYSTEM is one of %s", text, strings.Join(host.Profiles(), ", ")))
		case one:
			if cfg.Profiles == nil {
				cfg.Profiles = map[string]string{}
			}
			cfg.Profiles[boot] = system
		default:
			cfg.Profile = system
		}
	}
	disks, err := parseDisks(o.disks)
	if err != nil {
		problems = append(problems, err)
	}
	cfg.Disk = disks
	for _, text := range o.faults {
		fault, err := simulator.ParseFault(text)
		if err != nil {
			problems = append(problems, usagef(nil, "--fault: %w", err))
		}
		cfg.Faults = append(cfg.Faults, fault)
	}
	return cfg, errors.Join(problems...)
}

// zeroIsNone: for the simulator 0 means "the default".
func zeroIsNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// vendorPrefix is the first three bytes of MAC addresses of a vendor, given as
// those or by the beginning of its name.
func vendorPrefix(text string) (string, error) {
	if hw, err := net.ParseMAC(text + ":00:00:00"); err == nil && len(hw) == 6 {
		if hw[0]&1 != 0 {
			return "", usagef(nil, "--vendor %s: these are group addresses", text)
		}
		return hw.String()[:8], nil
	}
	var prefixes []string
	for prefix, vendor := range maps.All(macs.ValidMACPrefixMap) {
		if text != "" && strings.HasPrefix(strings.ToLower(vendor), strings.ToLower(text)) {
			prefixes = append(prefixes, fmt.Sprintf("%02x:%02x:%02x", prefix[0], prefix[1], prefix[2]))
		}
	}
	if len(prefixes) == 0 {
		return "", usagef(nil, "--vendor %q: no vendor has a name that begins so; give the first three bytes of a MAC, as 00:50:56", text)
	}
	return slices.Min(prefixes), nil
}

func runSimulator(ctx context.Context, o *simulatorOptions) (err error) {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	if _, err := os.Stat(o.clientConfig); err == nil && !o.typed {
		return &usageError{
			err:  fmt.Errorf("%s exists, and may be that of a real server; name the file to write", o.clientConfig),
			next: name + " simulator --plunder-config FILE",
		}
	}
	server, err := simulator.Open(cfg)
	if err != nil {
		return usagef(nil, "--state: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if o.f.opts.verbosity >= verbosityObservations {
		server.OnResponse(o.logCall)
	}
	listener, err := server.Listen(ctx, o.listen, simulator.ListenOptions{})
	if err != nil {
		return usagef(nil, "--listen: %w", err)
	}
	client := plunder.Config{
		Address: listener.Address,
		Port:    listener.Port,
		Cert:    base64.StdEncoding.EncodeToString(listener.CertPEM),
	}
	if err := client.WriteFile(o.clientConfig); err != nil {
		return err
	}
	o.f.noticef("plunder server %s with %d simulated machines on %s; clients use %s; Ctrl-C ends it",
		o.serverVersion, len(server.Machines()), listener.URL(), o.clientConfig)

	<-ctx.Done()
	// It names a server that is gone. Somebody else's file stays.
	if now, err := plunder.LoadConfig(o.clientConfig); err == nil && now.Cert == client.Cert {
		return os.Remove(o.clientConfig)
	}
	return nil
}

// logCall shows one request; never its body, which can hold passwords.
func (o *simulatorOptions) logCall(c simulator.Call) {
	outcome := strconv.Itoa(c.Status)
	switch {
	case !c.Answered:
		outcome = "no answer"
	case c.Error != "":
		outcome = "error: " + c.Error
	}
	o.f.io.Err.Linef("%s %s: %s", c.Method, c.Path, outcome)
}
