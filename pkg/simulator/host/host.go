// Package host is an installed, running machine that does not exist: a virtual
// file system, virtual disks and a shell in which the posted commands really
// run, interpreted, with every external command a Go function. It owns what one
// host and one rack of hosts look like from inside an SSH session. It must not
// touch the machine that it runs on: no process, no file and no connection of
// the real system is reachable from a command.
package host

import (
	"time"
)

// Config is what makes one host different from another.
type Config struct {
	MAC      string // colon form, lower case
	Address  string // IPv4
	HostName string
	User     string // the SSH user that the installer made; "ubuntu" when empty
	Disk     []DiskConfig
	// Seed makes what is random on a host (boot ids, serial numbers, CA key) repeatable.
	Seed int64
	// Profile is the installed system: "ubuntu-noble" (default) or "debian-bookworm".
	Profile string
	// KubernetesTime is how long the packages and then init or join take, in all.
	// It is spent inside the virtual apt-get and kubeadm.
	KubernetesTime time.Duration
	// World is the rack the host stands in; nil means a rack of its own.
	World *World
}

// DiskConfig is one disk of a host.
type DiskConfig struct {
	Name      string // "sda"
	Bytes     int64  // a multiple of 512
	Removable bool
	USB       bool
	ReadOnly  bool
}

// Command is one SSH session.
type Command struct {
	User  string // SSH user; Config.User when empty
	Line  string // as the login shell gets it, e.g. sudo -n -u root bash -c '...'
	Stdin []byte
	// Combined says whether standard error belongs to the output, as in sessions
	// without a pipe.
	Combined bool
}

// Result is what a session gave.
type Result struct {
	Output string // without white space around it
	Exit   int
	// Err is not nil when the command did not end by itself: the context ended,
	// or the host went down (ErrDown).
	Err error
}
