// Package wire holds the JSON shapes that plunder servers send and accept, and
// the few errors a caller has to tell apart. It owns no behaviour: no HTTP, no
// files, no clock. Every field was seen in a recording of a real server (v0.5 of
// November 2019, or May 2020); the recordings are in ../recording/testdata.
package wire

import (
	"encoding/json"
	"time"
)

// Envelope is the answer to every call of a known path. It always comes with
// HTTP status 200; Error not empty means that the call failed.
type Envelope struct {
	// Warning is the May 2020 spelling of the human part of a failure.
	Warning string `json:"warning,omitempty"`
	// FriendlyError is the v0.5 spelling of the same.
	FriendlyError string `json:"friendlyError,omitempty"`
	// Error is the cause; not empty means failure.
	Error string `json:"error,omitempty"`
	// Success was never seen filled in; it is kept so that it is not lost.
	Success string `json:"success,omitempty"`
	// Payload is the result, or null.
	Payload json.RawMessage `json:"payload,omitempty"`
}

// Endpoint is the answer of GET /api/{function}/{METHOD}: where a function lives.
type Endpoint struct {
	Name             string `json:"name"`
	Path             string `json:"path"`
	FunctionEndpoint string `json:"functionEndpoint"`
	Description      string `json:"description"`
	Method           string `json:"method"`
}

// BootConfig is something that a machine can boot.
type BootConfig struct {
	ConfigName string `json:"configName"`
	// ConfigType is preseed, kickstart, vsphere, booty or anything else (a plain
	// kernel and initrd). v0.5 has no type: there the name decides.
	ConfigType string `json:"configType,omitempty"`
	KernelPath string `json:"kernelPath"`
	InitrdPath string `json:"initrdPath"`
	Cmdline    string `json:"cmdline"`
	ISOPath    string `json:"isoPath,omitempty"`
	ISOPrefix  string `json:"isoPrefix,omitempty"`
}

// Type is ConfigType, or ConfigName on servers that have no types.
func (b BootConfig) Type() string {
	if b.ConfigType != "" {
		return b.ConfigType
	}
	return b.ConfigName
}

// DHCPConfig is the DHCP part of the server's configuration. Addresses are IPv4.
type DHCPConfig struct {
	Address    string `json:"addressDHCP,omitempty"`
	Start      string `json:"startDHCP,omitempty"`
	LeasePool  int    `json:"leasePoolDHCP,omitempty"`
	Subnet     string `json:"subnetDHCP,omitempty"` // not in v0.5
	Gateway    string `json:"gatewayDHCP,omitempty"`
	Nameserver string `json:"nameserverDHCP,omitempty"`
}

// ServerConfig is the payload of GET /config.
type ServerConfig struct {
	Adapter     string       `json:"adapter,omitempty"`
	EnableDHCP  bool         `json:"enableDHCP"`
	DHCP        DHCPConfig   `json:"dhcpConfig"`
	EnableTFTP  bool         `json:"enableTFTP"`
	AddressTFTP string       `json:"addressTFTP,omitempty"`
	EnableHTTP  bool         `json:"enableHTTP"`
	AddressHTTP string       `json:"addressHTTP,omitempty"`
	PXEPath     string       `json:"pxePath,omitempty"`
	BootConfigs []BootConfig `json:"bootConfigs"`
}

// BootConfig finds a boot configuration by its exact name.
func (c ServerConfig) BootConfig(name string) (BootConfig, bool) {
	for _, b := range c.BootConfigs {
		if b.ConfigName == name {
			return b, true
		}
	}
	return BootConfig{}, false
}

// Lease is an entry of GET /dhcp/unleased (Time = last seen) or GET /dhcp/leases
// (Time = expiry). MAC is in colon form, lower case.
type Lease struct {
	MAC  string    `json:"mac"`
	Time time.Time `json:"time"`
}

// HostConfig is what a machine becomes. What is empty is filled by the server
// from its global configuration. It holds secrets: never print one whole, use
// Redacted.
type HostConfig struct {
	Adapter      string `json:"adapter,omitempty"`
	Address      string `json:"address,omitempty"` // IPv4, dotted
	Hostname     string `json:"hostname,omitempty"`
	Gateway      string `json:"gateway,omitempty"`
	Subnet       string `json:"subnet,omitempty"`
	Nameserver   string `json:"nameserver,omitempty"`
	NTPServer    string `json:"ntpserver,omitempty"`
	LVMEnabled   *bool  `json:"lvmEnabled,omitempty"`
	SwapDisabled *bool  `json:"swapDisabled,omitempty"`
	Username     string `json:"username,omitempty"`
	Password     string `json:"password,omitempty"` // secret
	RepoAddress  string `json:"repoaddress,omitempty"`
	MirrorDir    string `json:"mirrordir,omitempty"`
	SSHKeyPath   string `json:"sshkeypath,omitempty"`
	SSHKey       string `json:"sshkey,omitempty"` // base64 of a public key
	Packages     string `json:"packages,omitempty"`
}

// Redacted is c with its secrets masked, for people.
func (c HostConfig) Redacted() HostConfig {
	if c.Password != "" {
		c.Password = "***"
	}
	return c
}

// Deployment ties a MAC to what the machine boots and becomes.
type Deployment struct {
	MAC            string      `json:"mac"` // colon form, lower case
	BootConfigName string      `json:"bootConfigName,omitempty"`
	BootConfig     *BootConfig `json:"bootConfig,omitempty"` // filled by the server
	Config         HostConfig  `json:"config"`
}

// Deployments is the payload of GET /deployments.
type Deployments struct {
	GlobalConfig HostConfig   `json:"globalConfig"`
	Deployments  []Deployment `json:"deployments"` // null when there are none
}

// ByMAC finds a deployment by its MAC, exactly as the server compares it.
func (d Deployments) ByMAC(mac string) (Deployment, bool) {
	for _, x := range d.Deployments {
		if x.MAC == mac {
			return x, true
		}
	}
	return Deployment{}, false
}

// RebootConfigName is the name of the boot configuration that keeps a machine in
// the reboot loop. A machine whose deployment uses it counts as unleased.
const RebootConfigName = "reboot"

// Map is the body of POST /parlay.
type Map struct {
	Deployments []MapDeployment `json:"deployments"`
}

// MapDeployment is one list of actions over one list of hosts, run host after
// host; the first failure stops all that follow unless the action ignores it.
type MapDeployment struct {
	Name     string   `json:"name"`
	Hosts    []string `json:"hosts"` // IPv4; each must be the address of a deployment
	Parallel bool     `json:"parallel"`
	Actions  []Action `json:"actions"`
}

// ActionCommand is the type of an action that runs a command.
const ActionCommand = "command"

// Action is one SSH session on a host.
type Action struct {
	Name string `json:"name"`
	Type string `json:"type"`
	// Timeout is in seconds. 0 means a year: never leave it empty.
	Timeout        int    `json:"timeout"`
	Command        string `json:"command,omitempty"`
	CommandLocal   bool   `json:"commandLocal,omitempty"`   // run on the plunder server itself
	CommandSudo    string `json:"commandSudo,omitempty"`    // user to become; "sudo -n -u USER COMMAND"
	CommandPipeCmd string `json:"commandPipeCmd,omitempty"` // run by bash on the plunder server; its output is the input of Command
	IgnoreFail     bool   `json:"ignoreFail,omitempty"`
	// CommandSaveAsKey and KeyName use one map of saved outputs for the whole
	// server. capplunder never sends them; the simulator and the recordings know them.
	CommandSaveAsKey string `json:"commandSaveAsKey,omitempty"`
	KeyName          string `json:"keyName,omitempty"`
}

// States of a parlay log.
const (
	StateRunning   = "Running"
	StateCompleted = "Completed"
	StateFailed    = "Failed"
)

// NoOutput is the entry of an action that printed nothing.
const NoOutput = "[No Output]"

// Log is the payload of GET /parlay/logs/{ip}. Logs are kept per address and
// outlive the job: entries and state of an earlier job are there until deleted.
type Log struct {
	State   string     `json:"state"`
	Entries []LogEntry `json:"entries"`
}

// LogEntry is written when its action ends.
type LogEntry struct {
	Created time.Time `json:"created"`
	Task    string    `json:"task"`
	Error   string    `json:"error"`
	Entry   string    `json:"entry"`
}
