package translate

import (
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
	inits := map[capi.Key]*capi.Machine{}
	for _, m := range set.Machines {
		mp := &MachinePlan{
			Machine:    m,
			Deployment: wire.Deployment{BootConfigName: m.Infra.Spec.DeploymentType, Config: wire.HostConfig{Address: m.Infra.Spec.IPAddress}},
			Steps:      []event.Step{event.StepHardware, event.StepDeployment, event.StepOS},
		}
		mp.MACs, mp.PinnedBy = restrictedTo(m)
		if m.Version != "" && !opts.SkipKubernetes {
			k, err := kubernetes(m, opts.Defaults)
			if err != nil {
				bad.Problems = append(bad.Problems, problem(m, "spec.version", err.Error()))
			}
			bad.Problems = append(bad.Problems, bootstrapProblems(m)...)
			mp.Kubernetes = k
			last := event.StepJoin
			if m.ControlPlane {
				if first, ok := inits[m.Cluster.Key]; ok {
					bad.Problems = append(bad.Problems, problem(m, "", fmt.Sprintf(
						"Cluster %s has more than one control plane Machine (also %s); only one is supported", m.Cluster.Key, first.Key)))
				} else {
					inits[m.Cluster.Key], mp.Init, last = m, true, event.StepInit
				}
			}
			mp.Steps = append(mp.Steps, event.StepPackages, last)
		}
		mp.Steps = append(mp.Steps, event.StepRecord)
		plan.Machines = append(plan.Machines, mp)
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

func bootstrapProblems(m *capi.Machine) []capi.Problem {
	const wayOut = "is not supported yet; leave it empty and capplunder runs kubeadm itself, or stop after the operating system with --skip-kubernetes"
	var ps []capi.Problem
	if m.BootstrapData != "" {
		ps = append(ps, problem(m, "spec.bootstrap.data", "bootstrap data "+wayOut))
	}
	if m.DataSecretName != nil && *m.DataSecretName != "" {
		ps = append(ps, problem(m, "spec.bootstrap.dataSecretName", "bootstrap data from a Secret "+wayOut))
	}
	return ps
}

// semanticForm is a version: major, minor, patch, and a pre-release.
var semanticForm = regexp.MustCompile(`^v?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})(-[0-9A-Za-z.-]+)?$`)

// kubernetes is what the objects say about the Kubernetes of one machine.
func kubernetes(m *capi.Machine, d capi.Defaults) (*Kubernetes, error) {
	v := semanticForm.FindStringSubmatch(m.Version)
	if v == nil {
		return nil, fmt.Errorf("%q is not a version like v1.34.1", m.Version)
	}
	minor, err := strconv.Atoi(v[2])
	if err != nil {
		return nil, fmt.Errorf("%q is not a version like v1.34.1", m.Version)
	}
	k := &Kubernetes{
		Version:        strings.TrimPrefix(m.Version, "v"),
		Minor:          minor,
		ControlPlane:   m.ControlPlane,
		Cluster:        m.Cluster.Name,
		PodCIDR:        capi.DefaultPodCIDR,
		ServiceCIDR:    capi.DefaultServiceCIDR,
		Domain:         "cluster.local",
		Endpoint:       m.Cluster.Endpoint,
		InstallOptions: m.InstallOptionsFor(d),
		ClusterOptions: m.Cluster.ClusterOptionsFor(d),
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
	switch {
	case v[1] != "1" || k.Minor < oldestMinor:
		return k, fmt.Errorf("%s: the oldest that can be installed is v1.%d", m.Version, oldestMinor)
	case k.Minor < oldestPublic && (k.Repo == nil || k.Repo.Apt == ""):
		return k, fmt.Errorf("%s: no public package repository serves it (oldest: v1.%d.0); set spec.repo.apt and spec.repo.key of PlunderMachine %s to a mirror, choose v1.%d or newer, or stop after the operating system with --skip-kubernetes",
			m.Version, oldestPublic, m.Infra.Key, oldestPublic)
	}
	return k, nil
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
