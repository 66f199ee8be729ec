package capi

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// ParseMAC reads a MAC address in any usual form (00:50:56:A5:11:20,
// 00-50-56-a5-11-20, 0050.56a5.1120) and returns its colon form in lower case,
// the only one that plunder's DHCP knows. It must be one that a single network
// card can have.
func ParseMAC(s string) (string, error) {
	mac, err := net.ParseMAC(s)
	switch {
	case err != nil || len(mac) != 6:
		return "", fmt.Errorf("%s is not a MAC address like 00:50:56:a5:11:20", quote(s))
	case mac[0]&1 == 1:
		return "", fmt.Errorf("%s is a multicast MAC address, no network card has it", quote(s))
	case slices.Equal(mac, make(net.HardwareAddr, 6)):
		return "", fmt.Errorf("%s is no MAC address of a network card", quote(s))
	}
	return mac.String(), nil
}

// ParseIPv4 reads an IPv4 address that a host can have, in the only form that
// every program reads the same way: four decimal numbers without leading zeros.
func ParseIPv4(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		hint := ""
		switch {
		case strings.Contains(s, "/"):
			hint = ", without a prefix length"
		case leadingZero.MatchString(s):
			hint = ", without leading zeros"
		}
		return netip.Addr{}, fmt.Errorf("%s is not an IPv4 address like 192.168.1.123%s", quote(s), hint)
	}
	if !addr.Is4() {
		return netip.Addr{}, fmt.Errorf("%s is not an IPv4 address: plunder has only IPv4", quote(s))
	}
	// 0.0.0.0/8 means "this network", 224.0.0.0/3 is multicast, reserved and broadcast.
	if b := addr.As4(); b[0] == 0 || b[0] >= 224 {
		return netip.Addr{}, fmt.Errorf("%s is no address that a host can have", quote(s))
	}
	return addr, nil
}

func checkIPv4(s string) error {
	_, err := ParseIPv4(s)
	return err
}

var (
	leadingZero = regexp.MustCompile(`(^|\.)0\d`)
	version     = regexp.MustCompile(`^v?(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})$`)
	partVersion = regexp.MustCompile(`^v?\d+(\.\d+)?$`)
)

// ParseVersion reads a Kubernetes version, v1.34.1 or 1.34.1, and returns it
// with the v. Releases only: no package repository has others.
func ParseVersion(s string) (string, error) {
	if !version.MatchString(s) {
		switch {
		case partVersion.MatchString(s):
			return "", fmt.Errorf("%s is not a whole Kubernetes version: write all three numbers, like v1.34.1", quote(s))
		case strings.ContainsAny(s, "-+"):
			return "", fmt.Errorf("%s is not a released Kubernetes version like v1.34.1", quote(s))
		}
		return "", fmt.Errorf("%s is not a Kubernetes version like v1.34.1", quote(s))
	}
	return "v" + strings.TrimPrefix(s, "v"), nil
}

// ParseProviderID returns the MAC, colon form and lower case, of plunder://<mac>.
func ParseProviderID(s string) (string, error) {
	rest, ok := strings.CutPrefix(s, ProviderIDPrefix)
	if !ok {
		return "", fmt.Errorf("%s is not a provider ID of ours, %s<mac>", quote(s), ProviderIDPrefix)
	}
	return ParseMAC(rest)
}

// bootConfigName: plunder makes a file name of it.
var bootConfigName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func checkDeploymentType(s string) error {
	if !bootConfigName.MatchString(s) {
		return fmt.Errorf("%s is no name of a boot configuration: letters, digits, '.', '_' and '-', at most 63", quote(s))
	}
	// Machines with these count as unleased again (plunder's reboot loop).
	if s == "reboot" || s == "autoBoot" {
		return fmt.Errorf("%s is plunder's loop for machines without work: it installs nothing", quote(s))
	}
	return nil
}

// packageVersion: X.Y.Z, or a whole version of an apt or rpm package.
var packageVersion = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+:~_-]{0,127}$`)

func checkDockerVersion(s string) error {
	if !packageVersion.MatchString(s) {
		return fmt.Errorf("%s is not a version of docker-ce like 18.06.3 or 5:20.10.24~3-0~ubuntu-jammy", quote(s))
	}
	return nil
}

func checkContainerdVersion(s string) error {
	if !packageVersion.MatchString(s) || s[0] < '0' || s[0] > '9' {
		return fmt.Errorf("%s is not a version of containerd.io like 2.2 or 1.7.28-1", quote(s))
	}
	return nil
}

// codename: that of a release of Debian or Ubuntu.
var codename = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

func checkCodename(s string) error {
	if !codename.MatchString(s) {
		return fmt.Errorf("%s is not the code name of a release like bionic", quote(s))
	}
	return nil
}

// aptLine: one line of a sources.list, without anything that a shell reads.
var aptLine = regexp.MustCompile(`^deb (\[[A-Za-z0-9 ._~/=,:+-]+\] )?https?://[A-Za-z0-9][A-Za-z0-9._~/:%+-]*( [A-Za-z0-9._~/+-]+)+$`)

func checkAptLine(s string) error {
	switch {
	case withUser.MatchString(s):
		return errUser
	case len(s) > 1024 || !aptLine.MatchString(s):
		return fmt.Errorf("%s is not a line of a sources.list like \"deb [signed-by=/etc/apt/keyrings/k8s.gpg] https://mirror.example.com/apt /\"", quote(s))
	}
	return nil
}

// checkName checks the name of an object, or a domain name: an RFC 1123 subdomain.
func checkName(s string) error {
	if len(validation.IsDNS1123Subdomain(s)) > 0 {
		return fmt.Errorf("%s is no valid name: lower-case letters, digits, '-' and '.', first and last a letter or digit, at most %d",
			quote(s), validation.DNS1123SubdomainMaxLength)
	}
	return nil
}

// checkLabelName checks the name of a namespace or cluster: an RFC 1123 label.
func checkLabelName(s string) error {
	if len(validation.IsDNS1123Label(s)) > 0 {
		return fmt.Errorf("%s is no valid name: lower-case letters, digits and '-', first and last a letter or digit, at most %d",
			quote(s), validation.DNS1123LabelMaxLength)
	}
	return nil
}

// checkHost accepts an IPv4 address or a DNS name.
func checkHost(s string) error {
	if _, err := netip.ParseAddr(s); err == nil || strings.Trim(s, "0123456789.") == "" {
		return checkIPv4(s)
	}
	if p := validation.IsDNS1123Subdomain(s); len(p) > 0 {
		return fmt.Errorf("%s is neither an IPv4 address nor a host name", quote(s))
	}
	return nil
}

// parseCIDR reads an address range whose address is the first one of the range.
func parseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%s is not an address range like %s", quote(s), DefaultPodCIDR)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s is not the start of its range: write %s", quote(s), p.Masked())
	}
	return p, nil
}

// The sizes that kubeadm accepts (ValidatePodSubnetNodeMask with the default node
// masks /24 and /64; MinimumAddressesInServiceSubnet, MaximumBitsForServiceSubnet).
func checkPodRange(p netip.Prefix) error {
	if p.Addr().Is4() {
		return checkBits(p, 8, 24, "pods")
	}
	return checkBits(p, 48, 64, "pods")
}

func checkServiceRange(p netip.Prefix) error {
	if p.Addr().Is4() {
		return checkBits(p, 12, 28, "services")
	}
	return checkBits(p, 108, 124, "services")
}

func checkBits(p netip.Prefix, least, most int, what string) error {
	if p.Bits() < least || p.Bits() > most {
		return fmt.Errorf("%s has no size that kubeadm takes for %s: /%d to /%d", p, what, least, most)
	}
	return nil
}

// checkLabel checks one label as the API server does.
func checkLabel(name, value string) error {
	if p := validation.IsQualifiedName(name); len(p) > 0 {
		return fmt.Errorf("%s is no valid label name", quote(name))
	}
	if p := validation.IsValidLabelValue(value); len(p) > 0 {
		return fmt.Errorf("%s is no valid label value: at most %d letters, digits, '-', '_' and '.', from the first to the last a letter or digit",
			quote(value), validation.LabelValueMaxLength)
	}
	return nil
}

// parsePort reads a port number; leading zeros are an octal number to some
// readers of YAML and a decimal one to others.
func parsePort(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || strconv.Itoa(n) != text {
		return 0, fmt.Errorf("%s is not a plain decimal number", quote(text))
	}
	if n < 1 || n > 65535 {
		return 0, errors.New("must be a port from 1 to 65535")
	}
	return n, nil
}
