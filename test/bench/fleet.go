// Package bench measures the whole program on a thousand machines: how long it
// takes and how much memory its process needs. Its benchmarks run with `make
// bench` and fail when a limit of docs/benchmarks.md is broken; plain `go test`
// runs none of them, so no unit test depends on the speed of a computer.
package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// WriteFleet writes the manifests of n machines to dir: a cluster, and one file
// for each machine with its Machine and PlunderMachine. The first machine is the
// control plane. No machine asks for certain hardware.
func WriteFleet(dir string, n int) error { return writeFleet(dir, n, "v1alpha2") }

// writeFleet is WriteFleet in a version of Cluster API's kinds.
func writeFleet(dir string, n int, version string) error {
	belongs := "bootstrap:\n    data: \"\""
	if version != "v1alpha2" {
		belongs = "clusterName: fleet\n  bootstrap:\n    dataSecretName: \"\""
	}
	if err := write(dir, "cluster.yaml", strings.ReplaceAll(clusterYAML, "VERSION", version)); err != nil {
		return err
	}
	for i := range n {
		label := ""
		if i == 0 {
			label = "\n    cluster.x-k8s.io/control-plane: \"true\""
		}
		name := fmt.Sprintf("node-%04d", i)
		text := strings.NewReplacer("NAME", name, "ADDRESS", fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250), "LABEL", label, "VERSION", version, "BELONGS", belongs).Replace(machineYAML)
		if err := write(dir, name+".yaml", text); err != nil {
			return err
		}
	}
	return nil
}

func write(dir, name, text string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)
}

const clusterYAML = `apiVersion: cluster.x-k8s.io/VERSION
kind: Cluster
metadata:
  name: fleet
spec:
  clusterNetwork:
    pods:
      cidrBlocks: ["10.244.0.0/16"]
`

const machineYAML = `apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
kind: PlunderMachine
metadata:
  name: NAME
spec:
  ipaddress: ADDRESS
  deploymentType: preseed
---
apiVersion: cluster.x-k8s.io/VERSION
kind: Machine
metadata:
  name: NAME
  labels:
    cluster.x-k8s.io/cluster-name: fleetLABEL
spec:
  version: v1.34.1
  BELONGS
  infrastructureRef:
    apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1
    kind: PlunderMachine
    name: NAME
`
