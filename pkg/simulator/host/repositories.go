package host

import (
	"fmt"
	"slices"
	"strings"
)

// What the public package repositories serve, as far as the simulator knows.
const (
	oldestServedMinor = 24 // pkgs.k8s.io begins with v1.24.0
	newestServedMinor = 37
	servedPatches     = 17 // v1.M.0 to v1.M.17
	newestLegacyPatch = 17
)

// offer is a package in a repository.
type offer struct {
	name, version, source string
}

// repository is what a package repository has, and the key that signs it.
type repository struct {
	offers []offer
	key    string // "" for the distribution's own, which every host trusts
}

func (r *repository) add(source, version string, names ...string) {
	for _, n := range names {
		r.offers = append(r.offers, offer{n, version, source})
	}
}

// archive are the packages of the distributions that an installation may ask for.
func debArchive() []string {
	return []string{
		"apt-transport-https", "ca-certificates", "chrony", "cloud-guest-utils", "conntrack", "curl", "dosfstools", "e2fsprogs", "ebtables", "ethtool", "gdisk",
		"gnupg", "gpg", "hdparm", "iproute2", "ipset", "iptables", "ipvsadm", "jq", "kmod", "lsb-release", "nfs-common", "nvme-cli", "open-iscsi", "openssl", "parted", "runc",
		"socat", "software-properties-common", "tar", "ufw", "util-linux", "xfsprogs", "xz-utils",
	}
}

func rpmArchive() []string {
	return []string{
		"bash-completion", "ca-certificates", "chrony", "cloud-utils-growpart", "conntrack-tools", "container-selinux", "curl", "dnf-plugins-core", "dosfstools",
		"e2fsprogs", "ethtool", "gdisk", "gnupg2", "hdparm", "iproute", "iproute-tc", "ipset", "iptables", "ipvsadm", "iscsi-initiator-utils", "jq", "kmod",
		"libnetfilter_queue", "nfs-utils", "nvme-cli", "openssl", "parted", "podman", "runc", "socat", "tar", "util-linux", "xfsprogs", "yum-utils",
	}
}

// universe are packages that Ubuntu has in its component universe, which plunder's
// installer leaves out.
func universe(name string) bool {
	return slices.Contains([]string{"conntrack", "ebtables", "ipvsadm", "jq", "socat"}, name)
}

// kubernetesRepository is the one of a minor at pkgs.k8s.io, or a mirror of it.
func kubernetesRepository(source string, minor int, rpm bool) repository {
	r := repository{key: keyKubernetes}
	revision, tools, cni := "-1.1", fmt.Sprintf("1.%d.0", minor), "1.7.1"
	if rpm {
		revision = "-150500.1.1"
	}
	if minor < 30 {
		cni = "1.2.0"
	}
	for patch := range servedPatches + 1 {
		r.add(source, fmt.Sprintf("1.%d.%d%s", minor, patch, revision), "kubeadm", "kubectl", "kubelet")
	}
	r.add(source, tools+revision, "cri-tools")
	r.add(source, cni+revision, "kubernetes-cni")
	return r
}

// legacyRepository is somebody's mirror of the repository as it was until 2024.
func legacyRepository(source string, rpm bool) repository {
	r := repository{key: keyMirror}
	revision := "-00"
	if rpm {
		revision = "-0"
	}
	for minor := 13; minor < oldestServedMinor; minor++ {
		for patch := range newestLegacyPatch + 1 {
			r.add(source, fmt.Sprintf("1.%d.%d%s", minor, patch, revision), "kubeadm", "kubectl", "kubelet")
		}
	}
	for _, v := range []string{"0.6.0", "0.7.5", "0.8.7", "1.2.0"} {
		r.add(source, v+revision, "kubernetes-cni")
	}
	for _, v := range []string{"1.13.0", "1.26.0"} {
		r.add(source, v+revision, "cri-tools")
	}
	return r
}

// dockerVersions are the releases of docker-ce and containerd.io that Docker publishes
// for a release of a distribution; ok is false if it publishes none.
func dockerVersions(release string) (docker, containerd []string, ok bool) {
	recent := []string{"28.1.1", "28.5.2"}
	switch release {
	case "bionic":
		return []string{"18.06.1", "18.06.3", "18.09.9", "19.03.15", "20.10.24", "23.0.6", "24.0.2"}, []string{"1.2.13", "1.4.13", "1.5.11", "1.6.21"}, true
	case "focal":
		return []string{"19.03.15", "20.10.24", "23.0.6", "24.0.9", "26.1.4", "27.5.1", "28.1.1"}, []string{"1.6.33", "1.7.27"}, true
	case "jammy":
		return append([]string{"20.10.24", "23.0.6", "24.0.9", "26.1.4", "27.5.1"}, recent...), []string{"1.6.33", "1.7.28", "2.2.1"}, true
	case "noble":
		return append([]string{"26.1.4", "27.5.1"}, recent...), []string{"1.6.33", "1.7.28", "2.2.1"}, true
	case "bookworm":
		return append([]string{"23.0.6", "24.0.9", "26.1.4", "27.5.1"}, recent...), []string{"1.6.33", "1.7.28", "2.2.1"}, true
	case "trixie":
		return recent, []string{"1.7.28", "2.2.1"}, true
	case "el7":
		return []string{"18.06.1", "18.06.3", "18.09.9", "19.03.15", "20.10.24", "23.0.6", "24.0.9", "26.1.4"}, []string{"1.2.13", "1.4.13", "1.6.33"}, true
	case "el8":
		return []string{"19.03.15", "20.10.24", "23.0.6", "24.0.9", "26.1.3"}, []string{"1.4.13", "1.6.32"}, true
	case "el9":
		return append([]string{"20.10.24", "23.0.6", "24.0.9", "26.1.4", "27.5.1"}, recent...), []string{"1.6.33", "1.7.28", "2.2.1"}, true
	case "el10", "fc42":
		return recent, []string{"1.7.28", "2.2.1"}, true
	}
	return nil, nil, false
}

// ceOld reports whether a docker-ce is from before 18.09, when it was one package with
// a containerd of its own.
func ceOld(v string) bool { return compareVersions(v, "18.09") < 0 }

// debReleases are the version numbers that Docker writes into its package versions.
func debRelease(codename string) string {
	return map[string]string{"bionic": "18.04", "focal": "20.04", "jammy": "22.04", "noble": "24.04", "bookworm": "12", "trixie": "13"}[codename]
}

// dockerDeb is Docker's repository for a release of Debian or Ubuntu.
func dockerDeb(source, distribution, codename string) (repository, bool) {
	docker, containerd, ok := dockerVersions(codename)
	if !ok || (distribution == "debian") != slices.Contains([]string{"bookworm", "trixie"}, codename) {
		return repository{}, false
	}
	r := repository{key: keyDocker}
	for _, v := range docker {
		switch {
		case ceOld(v):
			r.add(source, v+"~ce~3-0~"+distribution, "docker-ce")
		case compareVersions(v, "23") < 0:
			r.add(source, fmt.Sprintf("5:%s~3-0~%s-%s", v, distribution, codename), "docker-ce", "docker-ce-cli")
		default:
			r.add(source, fmt.Sprintf("5:%s-1~%s.%s~%s", v, distribution, debRelease(codename), codename), "docker-ce", "docker-ce-cli")
		}
	}
	for _, v := range containerd {
		if compareVersions(v, "1.7") < 0 {
			r.add(source, v+"-1", "containerd.io")
		} else {
			r.add(source, fmt.Sprintf("%s-1~%s.%s~%s", v, distribution, debRelease(codename), codename), "containerd.io")
		}
	}
	return r, true
}

// dockerRPM is Docker's repository for a release like "el9" or "fc42".
func dockerRPM(source, release string) (repository, bool) {
	docker, containerd, ok := dockerVersions(release)
	if !ok {
		return repository{}, false
	}
	r := repository{key: keyDocker}
	for _, v := range docker {
		switch {
		case ceOld(v):
			r.add(source, v+".ce-3."+release, "docker-ce")
		case release == "el7" || compareVersions(v, "23") < 0:
			r.add(source, "3:"+v+"-3."+release, "docker-ce")
			r.add(source, "1:"+v+"-3."+release, "docker-ce-cli")
		default:
			r.add(source, "3:"+v+"-1."+release, "docker-ce")
			r.add(source, "1:"+v+"-1."+release, "docker-ce-cli")
		}
	}
	for _, v := range containerd {
		r.add(source, v+"-3.1."+release, "containerd.io")
	}
	return r, true
}

// dockerRepoFile is what Docker serves as docker-ce.repo. A mirror's copy names
// Docker's own server too.
func dockerRepoFile(distribution string) string {
	s := ""
	for _, part := range []struct {
		id, name, dir string
		enabled       int
	}{{"stable", "Stable", "$basearch/stable", 1}, {"stable-debuginfo", "Stable - Debuginfo", "debug-$basearch/stable", 0}, {"test", "Test", "$basearch/test", 0}} {
		s += fmt.Sprintf("[docker-ce-%s]\nname=Docker CE %s - $basearch\nbaseurl=https://download.docker.com/linux/%s/$releasever/%s\nenabled=%d\ngpgcheck=1\ngpgkey=https://download.docker.com/linux/%s/gpg\n\n",
			part.id, part.name, distribution, part.dir, part.enabled, distribution)
	}
	return s
}

// dependencies are what a package needs beside it, as requests of the form that find
// takes: name, or name=version with an optional star at its end.
func dependencies(o offer) []string {
	v := upstream(o.version)
	switch o.name {
	case "docker-ce":
		if ceOld(v) {
			return nil
		}
		return []string{"docker-ce-cli", "containerd.io"}
	case "kubelet":
		if m := minorOf(v); m >= 13 && m <= 16 {
			return []string{"kubernetes-cni=0.7.5*"}
		}
		return []string{"kubernetes-cni"}
	case "kubeadm":
		if minorOf(v) < 32 {
			return []string{"kubelet", "kubectl", "kubernetes-cni", "cri-tools"}
		}
	}
	return nil
}

// conflicts are packages that cannot stay where another one comes.
func conflicts(name string) []string {
	switch name {
	case "containerd.io":
		return []string{"containerd", "runc"}
	case "containerd":
		return []string{"containerd.io"}
	case "docker-ce":
		return []string{"docker.io", "docker"}
	}
	return nil
}

// upstream is a package version without epoch and revision.
func upstream(v string) string {
	if _, rest, ok := strings.Cut(v, ":"); ok {
		v = rest
	}
	if i := strings.IndexAny(v, "-~"); i >= 0 {
		v = v[:i]
	}
	return strings.TrimSuffix(v, ".ce")
}

// programsOf are the programs and services that a package brings.
func programsOf(pkg string) (programs []string, service string) {
	switch pkg {
	case "containerd.io", "containerd":
		return []string{"containerd", "ctr", "runc"}, "containerd"
	case "docker-ce", "docker.io":
		return []string{"docker", "dockerd"}, "docker"
	case "docker-ce-cli":
		return []string{"docker"}, ""
	case "kubelet":
		return []string{"kubelet"}, "kubelet"
	case "kubeadm", "kubectl", "curl", "conntrack", "socat", "ethtool", "ebtables", "iptables", "podman", "runc", "jq", "ipset", "gpg", "openssl", "hdparm":
		return []string{pkg}, ""
	case "conntrack-tools":
		return []string{"conntrack"}, ""
	case "gnupg", "gnupg2":
		return []string{"gpg"}, ""
	case "nvme-cli":
		return []string{"nvme"}, ""
	case "gdisk":
		return []string{"sgdisk"}, ""
	case "cri-tools":
		return []string{"crictl"}, ""
	case "iproute2", "iproute":
		return []string{"ip"}, ""
	case "iproute-tc":
		return []string{"tc"}, ""
	case "chrony":
		return []string{"chronyc"}, "chrony"
	}
	return nil, ""
}
