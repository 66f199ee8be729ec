package translate

import (
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// NewPlan, HostName and Deployment are done: newplan.go. Probes, Facts, TaskName, quote, addresses4, entry: probe.go.

type Guard struct{ MAC, BootID string }
type Target struct {
	Address, HostName string
	Guard             Guard
	Root              bool
}
type Secret string

func (s Secret) String() string { return "***" }
func (s Secret) Reveal() string { return string(s) }

type Token struct {
	ID     string
	Secret Secret
}

func Packages(job string, t Target, k *Kubernetes, f Facts) (wire.Map, error) {
	return wire.Map{}, nil
}
func Init(job string, t Target, k *Kubernetes, f Facts, tok Token) (wire.Map, error) {
	return wire.Map{}, nil
}
func ReadInit(l wire.Log, job string) (caHash string, err error) { return "", nil }
func Credentials(job string, t Target, k *Kubernetes, toks []Token, expires time.Time) (wire.Map, error) {
	return wire.Map{}, nil
}
func ReadCredentials(l wire.Log, job string) (caHash string, err error) { return "", nil }
func Join(job string, t Target, k *Kubernetes, f Facts, tok Token, endpoint capi.Endpoint, caHash string) (wire.Map, error) {
	return wire.Map{}, nil
}
func Wipe(job string, t Target, disks []capi.Disk, delay time.Duration) (wire.Map, error) {
	return wire.Map{}, nil
}
func ReadWipe(l wire.Log, job string, disks []capi.Disk) (done bool, err error) { return false, nil }
func Explain(e wire.LogEntry) string                                            { return e.Error }
