package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func isKustomization(path string) bool {
	return slices.Contains(konfig.RecognizedKustomizationFileNames(), filepath.Base(path))
}

// kustomize builds a kustomization. Only files of this machine take part: no
// plugins, no helm, nothing fetched. Line numbers are those of the output, as
// "kubectl kustomize" prints it.
func (r *reader) kustomize(dir string) {
	name := dir + " (kustomized)"
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		r.fail(dir, "no such directory")
		return
	case err != nil:
		r.fail(dir, "%v", cause(err))
		return
	case !info.IsDir():
		r.fail(dir, "-k needs a directory with a kustomization file")
		return
	}
	opts := krusty.MakeDefaultOptions() // plugins disabled, files only below the root
	disk := &localFS{FileSystem: filesys.MakeFsOnDisk()}
	out, err := krusty.MakeKustomizer(opts).Run(disk, dir)
	if disk.refused != nil {
		// Kustomize takes an error of reading a file for its absence.
		r.fail(disk.refused.file, "%s is no file or directory here, and nothing is fetched from elsewhere", disk.refused.load)
		return
	}
	if err != nil {
		r.fail(dir, "kustomize: %s", oneLine(err))
		return
	}
	yaml, err := out.AsYaml()
	if err != nil {
		r.fail(dir, "kustomize: %s", oneLine(err))
		return
	}
	r.split(name, yaml)
}

// oneLine is an error without line breaks: kustomize puts whole trees into one.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// localFS is the disk, except that it hands out no kustomization file that wants
// something from elsewhere. Kustomize has no option for that, and would run git
// or fetch URLs.
type localFS struct {
	filesys.FileSystem
	refused *refusal // the first
}

// refusal is a kustomization file and what it wants to load.
type refusal struct{ file, load string }

// ReadFile implements filesys.FileSystem.
func (l *localFS) ReadFile(path string) ([]byte, error) {
	data, err := l.FileSystem.ReadFile(path)
	if err != nil || !isKustomization(path) {
		return data, err
	}
	var k types.Kustomization
	if err := k.Unmarshal(data); err != nil {
		return data, nil //nolint:nilerr // kustomize says better what is wrong
	}
	for _, p := range loads(k) {
		if strings.Contains(p, "\n") { // written in place
			continue
		}
		file := p
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(path), file)
		}
		if !l.Exists(file) {
			if l.refused == nil {
				l.refused = &refusal{path, p}
			}
			return nil, fmt.Errorf("%s: %s is not here", path, p)
		}
	}
	return data, nil
}

// loads are the places from which a kustomization loads.
func loads(k types.Kustomization) []string {
	all := slices.Concat(k.Resources, k.Components, k.Bases, k.Crds, k.Configurations, k.Generators, k.Transformers, k.Validators) //nolint:staticcheck // bases are deprecated, not gone
	add := func(p string) {
		if p != "" {
			all = append(all, p)
		}
	}
	add(k.OpenAPI["path"])
	for _, p := range slices.Concat(k.Patches, k.PatchesJson6902) { //nolint:staticcheck // as above
		add(p.Path)
	}
	for _, p := range k.Replacements {
		add(p.Path)
	}
	for _, p := range k.PatchesStrategicMerge { //nolint:staticcheck // as above
		add(string(p))
	}
	generated := func(g types.KvPairSources) {
		for _, f := range g.FileSources {
			if _, path, ok := strings.Cut(f, "="); ok {
				f = path
			}
			add(f)
		}
		for _, f := range append(slices.Clone(g.EnvSources), g.EnvSource) {
			add(f)
		}
	}
	for _, g := range k.ConfigMapGenerator {
		generated(g.KvPairSources)
	}
	for _, g := range k.SecretGenerator {
		generated(g.KvPairSources)
	}
	return all
}
