package translate

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	// maxActions bounds a map: every action is an SSH connection that plunder never closes.
	maxActions = 25
	// maxArgument is the longest argument that Linux passes to a program, in bytes.
	maxArgument = 131071
	// bundleChunk is the raw size of one piece of a bundle: a multiple of three, so
	// that base64 pieces can be decoded one by one.
	bundleChunk = 72 * 1024
)

// Guard identifies the host that a map is for. Every map that changes a host begins
// with an action that refuses any other host; and because each action is an SSH
// session of its own, and an address may pass to another machine between two, every
// later action looks first, too.
type Guard struct {
	MAC    string // colon form, lower case; must be on the host
	BootID string // when given, the host must still be in this boot
}

// Target is the host of a map.
type Target struct {
	Address  string // IPv4
	HostName string
	Guard    Guard
	Root     bool // the SSH user is root: no sudo, which images may lack
}

// Secret is a text that must not be printed.
type Secret string

// String implements fmt.Stringer.
func (Secret) String() string { return "***" }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return "***" }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

// Reveal is the text itself.
func (s Secret) Reveal() string { return string(s) }

// file is a file of a bundle.
type file struct {
	path string // absolute
	mode int64
	data string
}

// mapBuilder collects the actions of one map for one host. The first error wins.
type mapBuilder struct {
	job      string
	target   Target
	guard    string // a POSIX script that ends with status 9 on any other host
	preamble string
	actions  []wire.Action
	err      error
}

var (
	macForm  = regexp.MustCompile(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)
	bootForm = regexp.MustCompile(`^[0-9a-f-]{8,64}$`)
	nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// newMap begins a map with the guard.
func newMap(job string, t Target) *mapBuilder {
	b := &mapBuilder{job: job, target: t}
	b.check(addresses4(t.Address))
	b.match("MAC", t.Guard.MAC, macForm)
	b.match("host name", t.HostName, nameForm)
	boot := ""
	if t.Guard.BootID != "" {
		b.match("boot ID", t.Guard.BootID, bootForm)
		boot = fmt.Sprintf(`; read -r b </proc/sys/kernel/random/boot_id; [ "$b" = %s ] || { echo "capplunder-stranger boot=$b"; exit 9; }`, t.Guard.BootID)
	}
	b.guard = fmt.Sprintf(
		`set -u; export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C; m=$(cat /sys/class/net/*/address 2>/dev/null | tr A-F a-f); echo "$m" | grep -qxF %s || { echo "capplunder-stranger macs=$(echo $m | tr ' ' ,)"; exit 9; }%s; `,
		t.Guard.MAC, boot)
	b.sh("guard", time.Minute, `echo "capplunder-guard ok"`)
	return b
}

func (b *mapBuilder) check(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *mapBuilder) match(what, value string, form *regexp.Regexp) {
	if !form.MatchString(value) {
		b.check(fmt.Errorf("%s %q is not of the form %s", what, value, form))
	}
}

func (b *mapBuilder) add(a wire.Action, limit time.Duration) {
	a.Type = wire.ActionCommand
	a.Name = TaskName(a.Name, b.job)
	a.Timeout = int(limit / time.Second)
	if !b.target.Root {
		a.CommandSudo = "root"
	}
	b.actions = append(b.actions, a)
}

// sh runs a script with a POSIX shell, bash with the preamble of all install scripts.
func (b *mapBuilder) sh(task string, limit time.Duration, script string) {
	b.add(wire.Action{Name: task, Command: "sh -c " + quote(b.guard+script)}, limit)
}

func (b *mapBuilder) bash(task string, limit time.Duration, script string) {
	// Shorter than the limit: an action that waits in vain says what for.
	wait := min(10*time.Minute, limit-20*time.Second)
	before := fill(b.preamble, map[string]string{"WAIT": strconv.Itoa(int(wait / time.Second))})
	b.add(wire.Action{Name: task, Command: "bash -c " + quote(b.guard+before+script)}, limit)
}

// try is bash for a step whose failure does not matter.
func (b *mapBuilder) try(task string, limit time.Duration, script string) {
	b.bash(task, limit, script)
	b.actions[len(b.actions)-1].IgnoreFail = true
}

// bundle brings files to the host. Their content may be secret: it goes through
// the input of an action, never through a command, which sudo and ps show.
func (b *mapBuilder) bundle(files ...file) {
	var raw bytes.Buffer
	zw := gzip.NewWriter(&raw)
	tw := tar.NewWriter(zw)
	slices.SortFunc(files, func(x, y file) int { return strings.Compare(x.path, y.path) })
	for _, f := range files {
		b.check(tw.WriteHeader(&tar.Header{
			Name: strings.TrimPrefix(f.path, "/"), Mode: f.mode, Size: int64(len(f.data)),
			Uname: "root", Gname: "root", Format: tar.FormatUSTAR,
		}))
		_, err := tw.Write([]byte(f.data))
		b.check(err)
	}
	b.check(tw.Close())
	b.check(zw.Close())
	n, redirect := 0, ">"
	for chunk := range slices.Chunk(raw.Bytes(), bundleChunk) {
		n++
		b.add(wire.Action{
			Name:           fmt.Sprintf("bundle.%d", n),
			CommandPipeCmd: "printf %s " + quote(base64.StdEncoding.EncodeToString(chunk)),
			Command:        "bash -c " + quote(b.guard+"umask 077; mkdir -p /run/capplunder; base64 -d "+redirect+"/run/capplunder/bundle"),
		}, 2*time.Minute)
		redirect = ">>"
	}
	sum := sha256.Sum256(raw.Bytes())
	b.bash("bundle.unpack", 2*time.Minute, fmt.Sprintf(
		`[ "$(sha256sum <$R/bundle | cut -d' ' -f1)" = %s ] || { rm -f $R/bundle; echo 'capplunder-error bundle corrupt'; exit 1; }
tar -xpzf $R/bundle -C /; rm -f $R/bundle; echo 'capplunder-bundle ok'`, hex.EncodeToString(sum[:])))
}

// done checks the limits of a map and gives it.
func (b *mapBuilder) done(name string) (wire.Map, error) {
	if len(b.actions) > maxActions {
		b.check(fmt.Errorf("%s: %d actions are too many for one map", name, len(b.actions)))
	}
	for _, a := range b.actions {
		if len(a.Command) > maxArgument || len(a.CommandPipeCmd) > maxArgument {
			b.check(fmt.Errorf("%s: action %s is too long for a command", name, a.Name))
		}
	}
	if b.err != nil {
		return wire.Map{}, b.err
	}
	return wire.Map{Deployments: []wire.MapDeployment{{
		Name: TaskName("capplunder "+name, b.job), Hosts: []string{b.target.Address}, Actions: b.actions,
	}}}, nil
}
