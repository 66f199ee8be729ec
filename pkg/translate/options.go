package translate

import (
	"fmt"
	"regexp"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// The forms of texts that become part of scripts. They are narrow on purpose: what does
// not fit is refused, and what fits is quoted nevertheless. The forms of options are in
// pkg/capi.
var (
	versionForm     = regexp.MustCompile(`^1\.[0-9]{1,3}\.[0-9]{1,3}(-[a-z0-9.]{1,32})?$`)
	domainForm      = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	credentialsForm = regexp.MustCompile(`://[^/ ]*@`)
)

// optionProblem is something wrong with an option, by the name of its field.
type optionProblem struct{ field, message string }

// Error implements error.
func (p optionProblem) Error() string { return p.field + ": " + p.message }

// optionProblems are what is wrong with the options of an installation, whatever the
// host: all at once, for the plan, and before any of them becomes part of a script.
func (k *Kubernetes) optionProblems() []optionProblem {
	var out []optionProblem
	bad := func(field, format string, args ...any) {
		out = append(out, optionProblem{field, fmt.Sprintf(format, args...)})
	}
	for _, p := range k.InstallOptions.Problems() {
		bad(p.Field, "%s", p.Err)
	}
	for _, p := range k.ClusterOptions.Problems() {
		bad(p.Field, "%s", p.Err)
	}
	for _, u := range k.sources() {
		if credentialsForm.MatchString(u.url) {
			bad(u.field, "there is a user in it, which everybody on the machine would see: name a place that needs none")
		}
	}
	if k.Runtime == capi.RuntimeDocker && k.Minor >= dockerEnd {
		bad("runtime", "kubelet cannot use docker from v1.%d on: leave it out, or set containerd", dockerEnd)
	}
	if k.RuntimeSource == capi.SourceDistribution {
		if k.docker() {
			bad("runtimeSource", "distribution is for containerd: set runtime: containerd too, or leave it out")
		}
		if k.ContainerdVersion != "" {
			bad("containerdVersion", "it chooses among Docker's packages, and runtimeSource is distribution: leave one of them out")
		}
	}
	return append(out, checkPatches(k)...)
}

// source is a place from where something is fetched, by the name of its field.
type source struct{ field, url string }

// sources are all places that the options name. They are in commands, which everybody
// on the machine may see.
func (k *Kubernetes) sources() []source {
	list := []source{{"runtimeMirror", k.RuntimeMirror}}
	if r := k.Repo; r != nil {
		list = append(list, source{"repo.base", r.Base}, source{"repo.apt", r.Apt}, source{"repo.rpm", r.RPM}, source{"repo.key", r.Key})
	}
	if s := k.Binaries; s != nil {
		list = append(list, source{"binaries.url", s.URL}, source{"binaries.cniPluginsURL", s.CNIPluginsURL})
	}
	if k.CNI != nil {
		list = append(list, source{"cni.url", k.CNI.URL})
	}
	return list
}
