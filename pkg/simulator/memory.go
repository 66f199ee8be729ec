package simulator

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// publicKey is what the server finds in the file of any sshkeypath (as recorded).
const publicKey = "ssh-rsa AAAA... deploy"

// memory is all that a plunder server knows. It is lost in a crash. Lists are null
// until the first entry came, and empty afterwards, as the real server's.
type memory struct {
	Config      wire.ServerConfig
	Global      wire.HostConfig
	Deployments []wire.Deployment
	Unleased    []wire.Lease
	Leases      []wire.Lease // in the order of the pool
	// Scripts are the boot scripts per MAC (dash form), and the installer's answers
	// that belong to them. DELETE of a deployment leaves them.
	Scripts map[string]script
	Logs    map[string]*wire.Log // nil until the first job
	Keys    map[string]string    // commandSaveAsKey
	// SSHHosts are the hosts that a POST /parlay has imported, by address.
	SSHHosts map[string]*sshHost
}

// sshHost is an address that parlay has credentials for.
type sshHost struct {
	User    string // the one of the last import
	Imports int
}

// script is what a machine gets to boot.
type script struct {
	Boot wire.BootConfig
	Host wire.HostConfig // what the installer will make of the machine
	// Answers is true when there is a configuration for the installer to fetch.
	Answers bool
}

func newMemory(cfg Config) *memory {
	m := &memory{
		Config: wire.ServerConfig{
			Adapter: "lo", EnableDHCP: true, EnableHTTP: true,
			DHCP: wire.DHCPConfig{
				Address: "127.0.0.1", Start: "127.0.2.1", LeasePool: 50,
				Subnet: "255.0.0.0", Gateway: "127.0.0.1", Nameserver: "127.0.0.1",
			},
			AddressTFTP: "127.0.0.1", AddressHTTP: "127.0.0.1", PXEPath: "undionly.kpxe",
		},
		Global:   *cfg.Global,
		Scripts:  map[string]script{},
		Keys:     map[string]string{},
		SSHHosts: map[string]*sshHost{},
	}
	if n := len(cfg.macs()); n > m.Config.DHCP.LeasePool {
		m.Config.DHCP.LeasePool = n
	}
	if cfg.Version == VersionV05 {
		m.Config.DHCP.Subnet = ""
	}
	for _, b := range cfg.BootConfigs {
		m.Config.BootConfigs = append(m.Config.BootConfigs, dialectBoot(cfg.Version, b))
	}
	return m
}

// dialectBoot drops what v0.5 has no field for.
func dialectBoot(version string, b wire.BootConfig) wire.BootConfig {
	if version == VersionV05 {
		b.ConfigType = ""
	}
	return b
}

// find is the index of a deployment by its MAC, letter by letter, or -1.
func (m *memory) find(mac string) int {
	return slices.IndexFunc(m.Deployments, func(d wire.Deployment) bool { return d.MAC == mac })
}

// configOf is the name of the boot configuration that DHCP goes by. Here, and only
// here, upper case in a deployment does not matter. defaultBoot is for machines
// without deployment; an empty server does not use even that.
func (m *memory) configOf(mac, defaultBoot string) string {
	if len(m.Deployments) == 0 {
		return ""
	}
	for _, d := range m.Deployments {
		if strings.ToLower(d.MAC) == mac {
			return d.BootConfigName
		}
	}
	return defaultBoot
}

// dropUnleased takes a MAC off the list of unleased machines. It reports the
// fault that kills the real handler: it goes on to index the list by its old
// length, so it survives only if the MAC was the last entry or not there at all
// (recording not-the-last-unleased).
func (m *memory) dropUnleased(mac string) (survived bool) {
	i := slices.IndexFunc(m.Unleased, func(l wire.Lease) bool { return l.MAC == mac })
	if i < 0 {
		return true
	}
	last := i == len(m.Unleased)-1
	m.Unleased = slices.Delete(m.Unleased, i, i+1)
	return last
}

// rebuild checks and completes a new set of deployments, writes the boot scripts
// of all of them, and stores it. It stops at the first unknown boot configuration,
// with the scripts before it written. An empty set changes nothing: that is why
// the last deployment can't be deleted (recording last-deployment).
func (m *memory) rebuild(version string, set []wire.Deployment) error {
	global := m.Global
	readKey(&global)
	set = slices.Clone(set)
	for i := range set {
		d := &set[i]
		boot := m.bootConfigFor(version, *d)
		if boot == nil {
			return said("Host [%s] uses unknown config [%s], stopping config update", d.MAC, d.BootConfigName)
		}
		d.BootConfig = boot
		fillFrom(&d.Config, global, version)
		readKey(&d.Config)
		kind := d.BootConfig.ConfigType
		if version == VersionV05 {
			kind = d.BootConfigName
		}
		sc := script{Boot: *boot, Host: d.Config, Answers: true}
		if kind != "preseed" && kind != "kickstart" && kind != "vsphere" {
			// A plain kernel: no answers are written, those of an earlier one stay.
			sc.Answers = m.Scripts[dashed(d.MAC)].Answers || kind == "booty"
		}
		m.Scripts[dashed(d.MAC)] = sc
	}
	if len(set) > 0 {
		m.Deployments, m.Global = set, global
	}
	return nil
}

// bootConfigFor finds what a deployment boots. v0.5 takes a kernel and initrd that
// the deployment brings along (and so sticks to those it once found).
func (m *memory) bootConfigFor(version string, d wire.Deployment) *wire.BootConfig {
	if own := d.BootConfig; version == VersionV05 && own != nil && own.KernelPath != "" && own.InitrdPath != "" {
		b := dialectBoot(version, *own)
		return &b
	}
	if b, ok := m.Config.BootConfig(d.BootConfigName); ok {
		return &b
	}
	return nil
}

// fillFrom takes from the global configuration what a host's own leaves empty.
func fillFrom(c *wire.HostConfig, global wire.HostConfig, version string) {
	for _, f := range []struct {
		own    *string
		global string
	}{
		{&c.Gateway, global.Gateway}, {&c.Subnet, global.Subnet}, {&c.Nameserver, global.Nameserver},
		{&c.Adapter, global.Adapter}, {&c.RepoAddress, global.RepoAddress}, {&c.MirrorDir, global.MirrorDir},
		{&c.Username, global.Username}, {&c.Password, global.Password}, {&c.SSHKeyPath, global.SSHKeyPath},
		{&c.Packages, global.Packages},
	} {
		if *f.own == "" {
			*f.own = f.global
		}
	}
	if version == VersionV05 {
		c.LVMEnabled, c.SwapDisabled = nil, nil
		return
	}
	c.LVMEnabled = inherit(c.LVMEnabled, global.LVMEnabled)
	c.SwapDisabled = inherit(c.SwapDisabled, global.SwapDisabled)
}

// inherit has the real server's slip: a value of the host's own becomes false.
func inherit(own, global *bool) *bool {
	no := false
	if own == nil && global != nil {
		return global
	}
	return &no
}

func readKey(c *wire.HostConfig) {
	if c.SSHKeyPath != "" && c.SSHKey == "" {
		c.SSHKey = base64.StdEncoding.EncodeToString([]byte(publicKey))
	}
}

func dashed(mac string) string { return strings.ReplaceAll(mac, ":", "-") }
