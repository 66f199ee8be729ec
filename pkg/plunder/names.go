package plunder

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// NormalizeMAC is mac in the one form that plunder's DHCP server knows: six
// bytes, lower case, colons.
func NormalizeMAC(mac string) (string, error) {
	hw, err := net.ParseMAC(strings.TrimSpace(mac))
	if err != nil || len(hw) != 6 {
		return "", fmt.Errorf("%q is not a MAC address such as 00:50:56:a5:11:20", mac)
	}
	return hw.String(), nil
}

// dashMAC writes a normalised MAC as it stands in a path.
func dashMAC(mac string) string { return strings.ReplaceAll(mac, ":", "-") }

// dashAddress writes an IPv4 address as it stands in a path.
func dashAddress(address string) (string, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil || !ip.Is4() {
		return "", fmt.Errorf("%q is not an IPv4 address", address)
	}
	return strings.ReplaceAll(ip.String(), ".", "-"), nil
}
