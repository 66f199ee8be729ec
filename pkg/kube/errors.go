package kube

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// NotInstalledError says that CRDs are missing.
type NotInstalledError struct {
	Target string   // of Target.String
	CRDs   []string // names, in the order of Schema
}

func (e *NotInstalledError) Error() string {
	if e.core() {
		return fmt.Sprintf("%s lacks the CustomResourceDefinitions %s: install Cluster API, or let capplunder do without", e.Target, strings.Join(e.CRDs, ", "))
	}
	return fmt.Sprintf("%s lacks the CustomResourceDefinitions %s", e.Target, strings.Join(e.CRDs, ", "))
}

// NextCommand is a command to go on with.
func (e *NotInstalledError) NextCommand() string {
	if e.core() {
		return "capplunder init --standalone"
	}
	return "capplunder init"
}

// core reports whether Cluster API's own are missing.
func (e *NotInstalledError) core() bool {
	return slices.Contains(e.CRDs, CRDCluster) || slices.Contains(e.CRDs, CRDMachine)
}

// ContractError says that a Cluster API manager is live that will not adopt objects of
// these CRDs, because they carry no label of a contract that it knows.
type ContractError struct {
	Target    string   // of Target.String
	CRDs      []string // names
	Contracts []string // that the manager knows, best first
	Evidence  string   // of the manager
}

func (e *ContractError) Error() string {
	return fmt.Sprintf("%s: the Cluster API manager there (%s) will not adopt objects of the CustomResourceDefinitions %s: they lack the label %s/%s",
		e.Target, e.Evidence, strings.Join(e.CRDs, ", "), capi.GroupCluster, e.Contracts[0])
}

// NextCommand is a command to go on with.
func (e *ContractError) NextCommand() string { return "capplunder init" }

// VersionError says that a manifest must be written for another version of its API.
type VersionError struct {
	Group, Kind string
	Version     string // that the manifest has
	Use         string // that it should have
	Why         string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s in apiVersion %s/%s: %s; change it to apiVersion %s/%s", e.Kind, e.Group, e.Version, e.Why, e.Group, e.Use)
}

// ForbiddenError says that the user may not do something in the cluster.
type ForbiddenError struct {
	Verb      string // get, patch, …
	Resource  string // <plural>[.<group>][/<subresource>]
	Namespace string // "" for the whole cluster
	User      string // as the cluster knows the user
	Target    string // of Target.String
	Err       error  // of the API
}

func (e *ForbiddenError) Error() string {
	where := "cluster-wide"
	if e.Namespace != "" {
		where = "in namespace " + e.Namespace
	}
	if e.anonymous() {
		return fmt.Sprintf("%s did not recognise the user: it may not %s %s %s; renew the credentials of the context", e.Target, e.Verb, e.Resource, where)
	}
	return fmt.Sprintf("%s: user %s may not %s %s %s; the ClusterRole capplunder (capplunder init -o yaml shows it) grants it",
		e.Target, e.User, e.Verb, e.Resource, where)
}

func (e *ForbiddenError) Unwrap() error { return e.Err }

// NextCommand is what an administrator of the cluster has to type.
func (e *ForbiddenError) NextCommand() string {
	if e.anonymous() {
		return ""
	}
	subject := "--user=" + e.User
	if account, ok := strings.CutPrefix(e.User, "system:serviceaccount:"); ok {
		subject = "--serviceaccount=" + account
	}
	if !plainWord.MatchString(subject) {
		subject = "'" + strings.ReplaceAll(subject, "'", `'\''`) + "'"
	}
	binding := "capplunder-" + strings.Trim(notInNames.ReplaceAllString(strings.ToLower(e.User), "-"), "-")
	return fmt.Sprintf("kubectl create clusterrolebinding %s --clusterrole=capplunder %s", binding, subject)
}

func (e *ForbiddenError) anonymous() bool { return e.User == "system:anonymous" }

var (
	plainWord  = regexp.MustCompile(`^[A-Za-z0-9_./:=@,+~-]+$`)
	notInNames = regexp.MustCompile(`[^a-z0-9.-]+`)
)
