package translate

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	// maxHostName is the longest host name (RFC 1123).
	maxHostName = 63
)

// NewPlan orders the machines and decides everything that the objects alone can
// decide. The error is a *capi.InputError with every machine that can't be done.
func NewPlan(set *capi.Set, opts Options) (*Plan, error) {
	plan := &Plan{}
	bad := &capi.InputError{}
	nodes := map[capi.Key]*nodesOf{}
	for _, m := range set.Machines {
		if opts.installs(m) && !m.Deleting {
			if nodes[m.Cluster.Key] == nil {
				nodes[m.Cluster.Key] = &nodesOf{}
			}
			nodes[m.Cluster.Key].add(m)
		}
	}
	for _, m := range set.Machines {
		mp := &MachinePlan{
			Machine:    m,
			Deployment: wire.Deployment{BootConfigName: m.Infra.Spec.DeploymentType, Config: wire.HostConfig{Address: m.Infra.Spec.IPAddress}},
			Steps:      []event.Step{event.StepHardware, event.StepDeployment, event.StepOS},
		}
		mp.MACs, mp.PinnedBy = restrictedTo(m)
		if opts.installs(m) {
			k, problems := kubernetes(m, nodes[m.Cluster.Key], opts)
			bad.Problems = append(bad.Problems, problems...)
			mp.Kubernetes = k
			mp.Init = nodes[m.Cluster.Key].first() == m
			mp.Steps = append(mp.Steps, installSteps(k, mp.Init)...)
		}
		mp.Steps = append(mp.Steps, event.StepRecord)
		plan.Machines = append(plan.Machines, mp)
	}
	bad.Problems = append(bad.Problems, clusterProblems(set, nodes, opts)...)
	if len(bad.Problems) == 0 { // versions that make no sense are not compared
		bad.Problems = plan.skewProblems(nodes)
	}
	if len(bad.Problems) > 0 {
		return nil, bad
	}
	slices.SortStableFunc(plan.Machines, func(a, b *MachinePlan) int {
		if a.Machine.ControlPlane != b.Machine.ControlPlane {
			if a.Machine.ControlPlane {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Machine.Key.String(), b.Machine.Key.String())
	})
	return plan, nil
}

// installs reports whether Kubernetes is installed on the machine.
func (o Options) installs(m *capi.Machine) bool {
	return !o.SkipKubernetes && (m.Version != "" || m.Bootstrapped())
}

// installSteps are the steps of a machine between its operating system and its record.
// Bootstrap data for an image that brings everything needs nothing before it, unless
// the user has a script of his own to run there.
func installSteps(k *Kubernetes, first bool) []event.Step {
	switch {
	case k.Bootstrapped && isTrue(k.SkipInstall) && (k.Hooks == nil || k.Hooks.Before == ""):
		return []event.Step{event.StepBootstrap, event.StepNode}
	case k.Bootstrapped:
		return []event.Step{event.StepPackages, event.StepBootstrap, event.StepNode}
	case first:
		return []event.Step{event.StepPackages, event.StepInit, event.StepNode}
	}
	return []event.Step{event.StepPackages, event.StepJoin, event.StepNode}
}

func problem(m *capi.Machine, field, message string) capi.Problem {
	return capi.Problem{Origin: m.Origin, Object: "Machine " + m.Key.String(), Field: field, Message: message}
}

// restrictedTo is the list of MACs that a machine may have, nearest wish first.
func restrictedTo(m *capi.Machine) (macs []string, by string) {
	if mac := m.Infra.Spec.MACAddress; mac != "" {
		return []string{mac}, "spec.macaddress"
	}
	if !m.ControlPlane {
		return nil, ""
	}
	if pool := m.Infra.Spec.ControlPlaneMacPool; len(pool) > 0 {
		return pool, "spec.controlPlaneMacPool"
	}
	if c := m.Cluster.Infra; c != nil {
		if c.Spec.StaticMAC != "" {
			return []string{c.Spec.StaticMAC}, "PlunderCluster spec.staticMAC"
		}
		if pool := c.Spec.ControlPlaneMacPool; len(pool) > 0 {
			return pool, "PlunderCluster spec.controlPlaneMacPool"
		}
	}
	return nil, ""
}

// bootstrapProblems are what is wrong with the way in which a machine becomes a node.
func bootstrapProblems(m *capi.Machine, k *Kubernetes, opts Options) []capi.Problem {
	if awaitsProvider(m) && !opts.Providers {
		return []capi.Problem{problem(m, "spec.bootstrap.configRef", fmt.Sprintf(
			"there is no bootstrap provider here that writes the data: give its Secret among the files, or the data with --bootstrap-data %s=FILE, or set spec.bootstrap.dataSecretName: \"\" and capplunder runs kubeadm itself", m.Name))}
	}
	if err := checkBootstrap(m, k); err != nil {
		return []capi.Problem{problem(m, "spec.bootstrap", err.Error())}
	}
	return nil
}

// semanticForm is a version: major, minor, patch, and a pre-release.
var semanticForm = regexp.MustCompile(`^v?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(-[0-9A-Za-z.-]+)?$`)

// kubernetes is what the objects say about the Kubernetes of one machine, and what of
// it cannot be done. n may be nil.
func kubernetes(m *capi.Machine, n *nodesOf, opts Options) (*Kubernetes, []capi.Problem) {
	k := &Kubernetes{
		Version:        strings.TrimPrefix(m.Version, "v"),
		Minor:          newestMinor,
		ControlPlane:   m.ControlPlane,
		HA:             n.ha(),
		Single:         n.single(),
		Bootstrapped:   m.Bootstrapped(),
		Cluster:        m.Cluster.Name,
		PodCIDR:        capi.DefaultPodCIDR,
		ServiceCIDR:    capi.DefaultServiceCIDR,
		Domain:         "cluster.local",
		Endpoint:       m.Cluster.Endpoint,
		InstallOptions: m.InstallOptionsFor(opts.Defaults),
		ClusterOptions: m.Cluster.ClusterOptionsFor(opts.Defaults),
	}
	if len(m.Cluster.PodCIDRs) > 0 {
		k.PodCIDR = strings.Join(m.Cluster.PodCIDRs, ",")
	}
	if len(m.Cluster.ServiceCIDRs) > 0 {
		k.ServiceCIDR = strings.Join(m.Cluster.ServiceCIDRs, ",")
	}
	if m.Cluster.ServiceDomain != "" {
		k.Domain = m.Cluster.ServiceDomain
	}
	var bad []capi.Problem
	if err := k.readVersion(m); err != nil {
		bad = append(bad, problem(m, "spec.version", err.Error()))
	}
	for _, p := range k.optionProblems() {
		bad = append(bad, capi.Problem{Origin: m.Infra.Origin, Object: "PlunderMachine " + m.Infra.Key.String(), Field: "spec." + p.field, Message: p.message})
	}
	return k, append(bad, bootstrapProblems(m, k, opts)...)
}

// readVersion takes the minor out of the version and says why it cannot be installed.
func (k *Kubernetes) readVersion(m *capi.Machine) error {
	if m.Version == "" {
		if isTrue(k.SkipInstall) {
			return nil
		}
		return errors.New("it is needed: kubelet and kubeadm are installed before the bootstrap data is run; give it, or set skipInstall: true if the image has them")
	}
	v := semanticForm.FindStringSubmatch(m.Version)
	if v == nil {
		return fmt.Errorf("%q is not a version like v1.34.1", m.Version)
	}
	minor, err := strconv.Atoi(v[2])
	if err != nil {
		return fmt.Errorf("%q is not a version like v1.34.1", m.Version)
	}
	k.Minor = minor
	switch {
	case v[1] != "1" || k.Minor < oldestMinor:
		return fmt.Errorf("%s: the oldest that can be installed is v1.%d", m.Version, oldestMinor)
	case k.Minor < oldestPublic && k.Method != capi.MethodBinaries && !isTrue(k.SkipInstall) && (k.Repo == nil || k.Repo.Apt+k.Repo.RPM+k.Repo.Base == ""):
		return fmt.Errorf("%[1]s: no public package repository serves it (oldest: v1.%[2]d.0): set spec.repo.apt or spec.repo.rpm with spec.repo.key of PlunderMachine %[3]s to a mirror, or spec.method: binaries, or choose v1.%[2]d or newer, or stop after the operating system with --skip-kubernetes",
			m.Version, oldestPublic, m.Infra.Key)
	}
	return nil
}

// HostName is "<machine>-<suffix>", as RFC 1123 wants it: no dots, at most 63
// characters. The machine's part is cut, never the suffix.
func HostName(machine, suffix string) string {
	name := strings.ReplaceAll(machine, ".", "-")
	if most := maxHostName - len(suffix) - 1; len(name) > most {
		name = strings.TrimRight(name[:most], "-")
	}
	return name + "-" + suffix
}

// Deployment is what plunder gets for a machine that has its hardware.
func Deployment(mp *MachinePlan, mac, hostname string) wire.Deployment {
	d := mp.Deployment
	d.MAC, d.Config.Hostname = mac, hostname
	return d
}
