package cli

import (
	"errors"
	"time"

	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/pkg/plunder"
)

// simulateOptions are how the machines of --simulate behave.
type simulateOptions struct {
	machines          int
	osInstall         time.Duration
	kubernetesInstall time.Duration
	bootLoop          time.Duration
}

func (s *simulateOptions) addFlags(fs *pflag.FlagSet) {
	fs.IntVar(&s.machines, "simulate-machines", 4, "with --simulate: how many machines there are at the beginning")
	fs.DurationVar(&s.osInstall, "simulate-os-install", 5*time.Second, "with --simulate: how long an operating system takes")
	fs.DurationVar(&s.kubernetesInstall, "simulate-kubernetes-install", 5*time.Second, "with --simulate: how long Kubernetes takes on one machine")
	fs.DurationVar(&s.bootLoop, "simulate-boot-loop", time.Second, "with --simulate: how long one turn of the reboot loop takes")
	for _, flag := range []string{"simulate-machines", "simulate-os-install", "simulate-kubernetes-install", "simulate-boot-loop"} {
		// Only a flag that does not exist can fail.
		_ = fs.MarkHidden(flag)
	}
}

func (f *factory) simulatedServer(keep bool, opts []plunder.Option) (*plunder.Client, error) {
	return nil, errors.New("simulator: not there yet")
}
