// Command capplunder turns Cluster API machines into installed hosts with the
// help of a plunder server.
package main

import (
	"os"

	"github.com/plunder-app/capplunder/internal/cli"
)

func main() { os.Exit(cli.Main()) }
