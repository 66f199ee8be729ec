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
	versionForm = regexp.MustCompile(`^1\.[0-9]{1,3}\.[0-9]{1,3}(-[a-z0-9.]{1,32})?$`)
	domainForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// optionError is something wrong with an option, by the name of its field.
type optionError struct{ field, message string }

// Error implements error.
func (p optionError) Error() string { return p.field + ": " + p.message }

// optionProblems are what is wrong with the options of an installation, whatever the
// host: all at once, for the plan, and before any of them becomes part of a script.
func (k *Kubernetes) optionProblems() []optionError {
	var out []optionError
	bad := func(field, format string, args ...any) {
		out = append(out, optionError{field, fmt.Sprintf(format, args...)})
	}
	for _, p := range k.InstallOptions.Problems() {
		bad(p.Field, "%s", p.Err)
	}
	for _, p := range k.ClusterOptions.Problems() {
		bad(p.Field, "%s", p.Err)
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
