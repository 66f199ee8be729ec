// Package cloudconfig reads bootstrap data: the cloud-config that Cluster API's kubeadm
// bootstrap provider writes, from v1alpha2 to now, with what people add to it. It owns
// the format and knows what cloud-init makes of it; it knows no hosts and runs nothing.
//
// The data is secret. Errors name keys, indexes and line numbers, never what stands there.
package cloudconfig

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// SentinelPath is the file by which the data says that the machine has become a node
// (since v1alpha4 of the provider; what came before names none).
const SentinelPath = "/run/cluster-api/bootstrap-success.complete"

const (
	// maxData is the largest data in bytes: that of a Secret is at most 1 MiB, and base64
	// of it is what v1alpha2 had in the Machine.
	maxData = 1 << 20
	// maxContent bounds the content of all files together in bytes, once it is unpacked.
	maxContent = 16 << 20
	// maxItems bounds every list: files, commands, users ...
	maxItems = 1000
)

// Meta is what data with the line "## template: jinja" may ask for.
type Meta struct {
	HostName   string // ds.meta_data.hostname, ds.meta_data.local_hostname, v1.local_hostname
	InstanceID string // ds.meta_data.instance_id, v1.instance_id
	LocalIPv4  string // ds.meta_data.local_ipv4
}

// Config is what the data asks for, in the order of the data.
type Config struct {
	Files       []File
	BootCmds    []Command // run ahead of everything else
	RunCmds     []Command // run at the end, one after the other, whether they fail or not
	Users       []User
	NTP         *NTP // nil for none
	Disks       []Disk
	Filesystems []Filesystem
	Mounts      []Mount
	// Sentinel: the data names SentinelPath.
	Sentinel bool
	// Digest is the SHA-256 of the raw data, in hex.
	Digest string
	// Unknown are the keys that nothing is done about, as paths, in the order of the data.
	// Whoever carries a Config out refuses them, or says that they are left out.
	Unknown []string
}

// File is a file to write.
type File struct {
	Path         string // absolute and clean
	Owner, Group string // a name or a number
	Mode         int64  // permission bits with setuid, setgid and sticky: at most 07777
	Content      []byte // decoded
	Append       bool   // to what is there
	Defer        bool   // until the users are made
}

// Command is a line of shell, or the words of a command, which no shell may look into.
type Command struct {
	Text  string
	Words []string // when not nil, in place of Text
}

// Shell is the command as POSIX shell.
func (c Command) Shell() string {
	if c.Words == nil {
		return c.Text
	}
	quoted := make([]string, len(c.Words))
	for i, w := range c.Words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

// User is a user to make.
type User struct {
	Name         string
	Gecos        string
	Home, Shell  string // absolute; empty for the host's default
	PrimaryGroup string // empty for one of the user's own name
	Groups       []string
	Passwd       string // as crypt(3) writes it; empty for none
	LockPasswd   bool   // nobody logs in by password
	// Inactive is how many days after its password expired the account is disabled; -1 for never.
	Inactive int
	Sudo     []string // rules, as in sudoers after the name
	Keys     []string // lines of authorized_keys
}

// NTP says where the time comes from.
type NTP struct{ Servers, Pools []string }

// Disk is a disk to partition.
type Disk struct {
	Device     string // /dev/...
	GPT        bool   // otherwise a DOS table
	Partitions []Partition
	Overwrite  bool // also when there is something on it
}

// Partition is a part of a disk.
type Partition struct {
	Percent int    // of the disk; 100 for one alone is the whole disk
	Type    string // hexadecimal for a DOS table, a GUID for a GPT
}

// Filesystem is a file system to make.
type Filesystem struct {
	Device string // /dev/...
	// Partition is its number, "none" for the device itself, or "auto": the first that has nothing on it.
	Partition string
	Type      string // ext4, xfs ...
	Label     string // may be empty
	Overwrite bool   // also when there is something on it
	Options   []string
}

// Mount is a line of fstab; no field has a space in it.
type Mount struct{ Device, Path, Type, Options, Dump, Pass string }

// String implements fmt.Stringer; it shows nothing that may be secret.
func (c *Config) String() string {
	return fmt.Sprintf("cloud-config (%d files, %d commands)", len(c.Files), len(c.BootCmds)+len(c.RunCmds))
}

// GoString implements fmt.GoStringer.
func (c *Config) GoString() string { return c.String() }

// String implements fmt.Stringer; it shows no content.
func (f File) String() string { return "file " + f.Path }

// GoString implements fmt.GoStringer.
func (f File) GoString() string { return f.String() }

// String implements fmt.Stringer; it shows nothing.
func (Command) String() string { return "command (***)" }

// GoString implements fmt.GoStringer.
func (c Command) GoString() string { return c.String() }

// String implements fmt.Stringer; it shows no password.
func (u User) String() string { return "user " + u.Name }

// GoString implements fmt.GoStringer.
func (u User) GoString() string { return u.String() }

// Parse reads data. The error names everything that is wrong with it at once.
func Parse(data []byte, meta Meta) (*Config, error) {
	text, err := cloudConfig(data)
	if err != nil {
		return nil, err
	}
	if text, err = render(text, meta); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	c := &Config{
		Digest:   hex.EncodeToString(sum[:]),
		Sentinel: bytes.Contains(text, []byte(SentinelPath)),
	}
	if err := c.read(text); err != nil {
		return nil, err
	}
	return c, nil
}

// cloudConfig is the data, if it is of this format. What else cloud-init knows is refused by name.
func cloudConfig(data []byte) ([]byte, error) {
	if len(data) > maxData {
		return nil, fmt.Errorf("bootstrap data has %d bytes, the most is %d", len(data), maxData)
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return nil, errors.New("bootstrap data is compressed as a whole: give the text itself")
	}
	text := bytes.TrimSpace(data)
	first, _, _ := bytes.Cut(text, []byte("\n"))
	head := strings.ToLower(string(bytes.TrimSpace(first)))
	switch {
	case len(text) == 0:
		return nil, errors.New("bootstrap data is empty")
	case head == "#cloud-config" || strings.HasPrefix(head, "#cloud-config ") || jinjaLine.MatchString(head):
		return text, nil
	case strings.HasPrefix(head, "#!"):
		return nil, errors.New("bootstrap data is a script: give it as a command of a cloud-config (#cloud-config, runcmd)")
	case strings.HasPrefix(head, "content-type:"), strings.HasPrefix(head, "mime-version:"), strings.HasPrefix(head, "from nobody"):
		return nil, errors.New("bootstrap data is a multi-part message: give its cloud-config part alone")
	case strings.HasPrefix(head, "{") && bytes.Contains(text, []byte(`"ignition"`)), strings.HasPrefix(head, "variant:"):
		return nil, ErrIgnition
	case strings.HasPrefix(head, "#include"), strings.HasPrefix(head, "#cloud-config-"), strings.HasPrefix(head, "#cloud-boothook"), strings.HasPrefix(head, "#part-handler"):
		word, _, _ := strings.Cut(head, " ")
		return nil, fmt.Errorf("bootstrap data is of the kind %s: only #cloud-config is supported", word[:min(len(word), 24)])
	}
	return nil, errors.New(`bootstrap data begins neither with "#cloud-config" nor with "## template: jinja"`)
}

// ErrIgnition says that the data is of another format.
var ErrIgnition = errors.New("bootstrap data is Ignition, which needs Flatcar or Fedora CoreOS: set format: cloud-config in the KubeadmConfig")
