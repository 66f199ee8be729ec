package kubetest

import (
	"fmt"
	"os"
	"path/filepath"
)

// tools are what `make kube-tools` leaves in the folder .cache of the repository.
type tools struct {
	etcd, apiserver, kubectl string
	capi                     string // a folder for each version of Cluster API
}

// findTools looks for the tools from the working directory upwards: `go test` runs the
// tests of a package in its folder.
func findTools() (tools, error) {
	root, err := os.Getwd()
	if err != nil {
		return tools{}, err
	}
	for !exists(filepath.Join(root, "tools", "kube", "go.mod")) {
		parent := filepath.Dir(root)
		if parent == root {
			return tools{}, fmt.Errorf("kubetest: not in a checkout of the repository: no tools/kube/go.mod here or above")
		}
		root = parent
	}
	cache := filepath.Join(root, ".cache")
	found := tools{
		etcd:      filepath.Join(cache, "kube", "etcd"),
		apiserver: filepath.Join(cache, "kube", "kube-apiserver"),
		kubectl:   filepath.Join(cache, "bin", "kubectl"),
		capi:      filepath.Join(cache, "kube", "capi"),
	}
	for _, path := range []string{found.etcd, found.apiserver, found.kubectl, found.capi} {
		if !exists(path) {
			return tools{}, fmt.Errorf("kubetest: %s is missing; run: make kube-tools", path)
		}
	}
	return found, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
