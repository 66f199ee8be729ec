package cli

import (
	"github.com/spf13/cobra"
)

type simulatorOptions struct{ f *factory }

func newSimulatorCmd(f *factory, runF func(*simulatorOptions) error) *cobra.Command {
	return &cobra.Command{Use: "simulator", Short: "Run a simulated plunder server"}
}
