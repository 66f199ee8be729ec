package translate

import (
	"errors"
	"fmt"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Package managers as the probe names them.
const (
	pmApt = "apt-get"
	pmDnf = "dnf"
	pmYum = "yum"
)

// apt and rpm say which package manager's commands the host understands.
func (f Facts) apt() bool { return f.PackageManager == pmApt }
func (f Facts) rpm() bool { return f.PackageManager == pmDnf || f.PackageManager == pmYum }

// system is how the host calls its distribution.
func (f Facts) system() string { return strings.TrimSpace(f.ID + " " + f.Version) }

// architectures are those that Kubernetes is published for, by the kernel's name.
func architectures() map[string]string {
	return map[string]string{"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}
}

// refuse says in a plain sentence why the host cannot get this Kubernetes, before
// anything is changed on it.
func (k *Kubernetes) refuse(f Facts) error {
	switch {
	case !f.Systemd:
		return fmt.Errorf("the host (%s) does not run systemd, which kubelet needs: install another operating system on it", f.system())
	case !f.Bash:
		return fmt.Errorf("the host (%s) has no bash, which the installation needs: put it on the image", f.system())
	case architectures()[f.Arch] == "":
		return fmt.Errorf("there is no Kubernetes for %s", f.Arch)
	case k.Minor >= cgroup1End && f.Cgroup == 1 && !isTrue(k.AllowCgroupV1):
		return fmt.Errorf("v%s needs cgroup v2, the host (%s) has v1: start it with systemd.unified_cgroup_hierarchy=1, set allowCgroupV1: true, or choose v1.%d or older", k.Version, f.system(), cgroup1End-1)
	case k.Minor < cgroup2Minor && f.Cgroup == 2:
		return fmt.Errorf("v%s needs cgroup v1, the host (%s) has v2: start it with systemd.unified_cgroup_hierarchy=0, or choose v1.%d or newer", k.Version, f.system(), cgroup2Minor)
	case isTrue(k.SkipInstall):
		return nil
	}
	return k.refusePackages(f)
}

// refusePackages is refuse for what package managers bring.
func (k *Kubernetes) refusePackages(f Facts) error {
	binaries := k.Method == capi.MethodBinaries
	switch {
	case !f.apt() && !f.rpm() && !binaries:
		return fmt.Errorf("the host's package manager is %s (%s), and capplunder installs with apt, dnf or yum: set method: binaries (the image then brings the container runtime), or skipInstall: true if everything is on the image",
			f.PackageManager, f.system())
	case f.rpm() && k.RuntimeSource == capi.SourceDistribution && f.ID != "fedora":
		return fmt.Errorf("%s has no containerd in its own repositories: leave out runtimeSource: distribution and it comes from Docker's, or set skipInstall: true if it is on the image", f.system())
	case binaries || k.Repo == nil || k.Repo.Base != "":
		return nil
	case f.rpm() && k.Repo.RPM == "" && k.Repo.Apt != "":
		return fmt.Errorf("the host (%s) installs packages with %s, and only repo.apt is given: set repo.rpm too", f.system(), f.PackageManager)
	case f.apt() && k.Repo.Apt == "" && k.Repo.RPM != "":
		return fmt.Errorf("the host (%s) installs packages with apt, and only repo.rpm is given: set repo.apt too", f.system())
	}
	return nil
}

// RefuseConfigType says why a machine that a boot configuration of this type installs
// (configType in plunder's words) cannot become a node.
func RefuseConfigType(configType string, k *Kubernetes) error {
	if k != nil && configType == "vsphere" {
		return errors.New("the boot configuration installs ESXi (configType vsphere), and ESXi cannot run Kubernetes: choose another deploymentType, or stop after the operating system with --skip-kubernetes")
	}
	return nil
}

// Warnings are what a person should know about installing on this host, which the boot
// configuration of this type ("preseed", "kickstart", ...) installed. Nothing of it
// keeps the work from going on.
func (k *Kubernetes) Warnings(configType string, f Facts) []string {
	var w []string
	if s := k.unknownMinor(); s != "" {
		w = append(w, s)
	}
	if configType == "preseed" && !f.apt() || configType == "kickstart" && !f.rpm() {
		w = append(w, fmt.Sprintf("the boot configuration is of type %s, but the host is %s with %s: it is installed as what it is", configType, f.system(), f.PackageManager))
	}
	if k.docker() && f.Cgroup == 2 && olderDocker(k.DockerVersion, 20, 10) {
		w = append(w, fmt.Sprintf("Docker %s does not know cgroup v2, which the host (%s) has: 20.10 is the first that does", k.DockerVersion, f.system()))
	}
	if !k.docker() && k.DockerVersion != "" {
		w = append(w, fmt.Sprintf("dockerVersion %s is not used: v%s runs on containerd", k.DockerVersion, k.Version))
	}
	return w
}

// isTrue reports whether an optional switch is on.
func isTrue(b *bool) bool { return b != nil && *b }
