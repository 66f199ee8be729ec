package cloudconfig

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	ownerForm   = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.-]{0,31}\$?|[0-9]{1,10})$`)
	nameForm    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)
	octalForm   = regexp.MustCompile(`^(0o)?[0-7]{1,5}$`)
	lineOfText  = regexp.MustCompile(`^[^\x00-\x1f\x7f]+$`)
	passwdForm  = regexp.MustCompile(`^[!-9;-~]+$`) // one word without a colon
	gecosForm   = regexp.MustCompile(`^[^:\x00-\x1f\x7f]+$`)
	serverForm  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$`)
	deviceForm  = regexp.MustCompile(`^/dev/[A-Za-z0-9][A-Za-z0-9._/:+@%-]*$`)
	sourceForm  = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9._/:+@%=,-]*$`)
	optionsForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:+@%=,-]*$`)
	fsForm      = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)
	labelForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$`)
	argForm     = regexp.MustCompile(`^[A-Za-z0-9^-][A-Za-z0-9._/:+@%=,^-]*$`)
	hexForm     = regexp.MustCompile(`^[0-9A-Fa-f]{1,2}$`)
	guidForm    = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
)

func (c *Config) read(text []byte) error {
	node, err := document(text)
	if err != nil {
		return err
	}
	r := &reader{}
	v, _ := value{r: r, node: node}.object("write_files", "bootcmd", "runcmd", "users", "ntp", "disk_setup", "fs_setup", "mounts")
	c.Files = r.files(v["write_files"])
	c.BootCmds = r.commands(v["bootcmd"])
	c.RunCmds = r.commands(v["runcmd"])
	for _, u := range v["users"].list() {
		c.Users = append(c.Users, r.user(u))
	}
	c.NTP = r.ntp(v["ntp"])
	c.Disks = r.disks(v["disk_setup"])
	for _, f := range v["fs_setup"].list() {
		c.Filesystems = append(c.Filesystems, r.filesystem(f))
	}
	for _, m := range v["mounts"].list() {
		c.Mounts = append(c.Mounts, r.mount(m))
	}
	c.Unknown = r.unknown
	return r.err()
}

func (r *reader) files(v value) []File {
	left := maxContent
	var files []File
	for _, item := range v.list() {
		e, _ := item.object("path", "content", "encoding", "owner", "permissions", "append", "defer")
		f := File{Path: e["path"].absolute(), Mode: e["permissions"].mode(), Append: e["append"].flag(false), Defer: e["defer"].flag(false)}
		if f.Path == "" && len(r.problems) == 0 {
			r.errorf(e["path"].path, "it is required")
		}
		f.Owner, f.Group = e["owner"].owner()
		text, binary := e["content"].text(), e["content"].given() && e["content"].node.Tag == "!!binary"
		raw, err := content(text, binary, e["encoding"].text(), left)
		if err != nil {
			r.errorf(item.path, "%s", err)
			continue
		}
		left -= len(raw)
		f.Content = raw
		files = append(files, f)
	}
	return files
}

// absolute is a path that begins with a slash and has nothing to clean.
func (v value) absolute() string {
	s := v.matched(lineOfText, "one line of text")
	if s == "" {
		return ""
	}
	if !strings.HasPrefix(s, "/") || path.Clean(s) != s || s == "/" || len(s) > 4000 {
		v.r.errorf(v.path, `it is not an absolute path without "..", "//" and a "/" at its end`)
		return ""
	}
	return s
}

// mode are permissions: octal digits, as a text or as a number that YAML reads as octal.
func (v value) mode() int64 {
	const usual = 0o644
	s := v.text()
	if s == "" {
		return usual
	}
	if !octalForm.MatchString(s) {
		v.r.errorf(v.path, "they are not octal digits like '0640'")
		return usual
	}
	if v.node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) == 0 && v.node.Tag == "!!int" && s[0] != '0' {
		v.r.errorf(v.path, "cloud-init reads this number as decimal: write octal digits in quotes, like '0640'")
		return usual
	}
	n, err := strconv.ParseInt(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > 0o7777 {
		v.r.errorf(v.path, "they are more than 07777")
		return usual
	}
	return n
}

func (v value) owner() (owner, group string) {
	s := v.text()
	if s == "" {
		return "root", "root"
	}
	owner, group, _ = strings.Cut(s, ":")
	group = cmp.Or(group, "root")
	if !ownerForm.MatchString(owner) || !ownerForm.MatchString(group) {
		v.r.errorf(v.path, "it is not of the form user or user:group")
		return "root", "root"
	}
	return owner, group
}

func (r *reader) commands(v value) []Command {
	var cmds []Command
	for _, item := range v.list() {
		switch {
		case !item.given():
		case item.node.Kind == yaml.SequenceNode:
			c := Command{Words: []string{}}
			for _, w := range item.list() {
				c.Words = append(c.Words, w.text())
			}
			if len(c.Words) == 0 {
				r.errorf(item.path, "it is empty")
			}
			cmds = append(cmds, c)
		default:
			cmds = append(cmds, Command{Text: item.text()})
		}
	}
	return cmds
}

func (r *reader) user(v value) User {
	if v.given() && v.node.Kind == yaml.ScalarNode {
		r.errorf(v.path, "the users that an image has by default can't be asked for: give name and the rest")
		return User{}
	}
	e, _ := v.object("name", "gecos", "passwd", "groups", "primary_group", "homedir", "shell", "inactive", "lock_passwd", "sudo", "ssh_authorized_keys")
	u := User{
		Name:         e["name"].matched(nameForm, "a user's name"),
		Gecos:        e["gecos"].matched(gecosForm, "one line of text without a colon"),
		Passwd:       e["passwd"].matched(passwdForm, "a password hash"),
		Home:         e["homedir"].absolute(),
		Shell:        e["shell"].absolute(),
		PrimaryGroup: e["primary_group"].matched(nameForm, "a group's name"),
		LockPasswd:   e["lock_passwd"].flag(true),
		Inactive:     -1,
	}
	if !e["name"].given() {
		r.errorf(e["name"].path, "it is required")
	}
	for _, p := range []struct{ path, text string }{{e["homedir"].path, u.Home}, {e["shell"].path, u.Shell}} {
		if strings.ContainsAny(p.text, ": ") {
			r.errorf(p.path, "it has a colon or a space")
		}
	}
	for _, g := range e["groups"].texts() {
		for _, name := range strings.FieldsFunc(g.text(), func(c rune) bool { return c == ',' || c == ' ' }) {
			if !nameForm.MatchString(name) {
				r.errorf(g.path, "it is not a group's name")
			}
			u.Groups = append(u.Groups, name)
		}
	}
	// The provider's API has a boolean where cloud-init wants a number of days.
	switch s := strings.ToLower(e["inactive"].text()); s {
	case "", "false":
	case "true":
		u.Inactive = 0
	default:
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			r.errorf(e["inactive"].path, "it is not a number of days")
		}
		u.Inactive = n
	}
	if s := e["sudo"]; !s.given() || strings.ToLower(s.node.Value) != "false" {
		for _, rule := range s.texts() {
			u.Sudo = append(u.Sudo, rule.matched(lineOfText, "one line of text"))
		}
	}
	for _, key := range e["ssh_authorized_keys"].texts() {
		u.Keys = append(u.Keys, strings.TrimSpace(key.matched(lineOfText, "one line of text")))
	}
	return u
}

func (r *reader) ntp(v value) *NTP {
	e, _ := v.object("enabled", "servers", "pools")
	if !v.given() || !e["enabled"].flag(true) {
		return nil
	}
	n := &NTP{}
	for _, s := range e["servers"].list() {
		n.Servers = append(n.Servers, s.server())
	}
	for _, s := range e["pools"].list() {
		n.Pools = append(n.Pools, s.server())
	}
	return n
}

// server is the name or address of a host. Its length is not in the form, because
// compiling a form that counts so far takes milliseconds of every start.
func (v value) server() string {
	s := v.matched(serverForm, "a host name or address")
	if len(s) > 254 {
		v.r.errorf(v.path, "it is not a host name or address")
		return ""
	}
	return s
}

// device is a block device. The names that clouds have for theirs mean nothing here.
func (v value) device(s string) string {
	if !deviceForm.MatchString(s) || path.Clean(s) != s {
		v.r.errorf(v.path, "it is not a device under /dev (aliases like ephemeral0 are a cloud's)")
		return ""
	}
	return s
}

func (r *reader) disks(v value) []Disk {
	values, order := v.object()
	var disks []Disk
	for _, device := range order {
		at := values[device]
		e, _ := at.object("table_type", "layout", "overwrite")
		d := Disk{Device: at.device(device), Overwrite: e["overwrite"].flag(false)}
		switch strings.ToLower(e["table_type"].text()) {
		case "", "mbr":
		case "gpt":
			d.GPT = true
		default:
			r.errorf(e["table_type"].path, "it is neither mbr nor gpt")
		}
		d.Partitions = r.layout(e["layout"], d.GPT)
		if len(d.Partitions) > 0 {
			disks = append(disks, d)
		}
	}
	return disks
}

// layout is true for one partition, or a list of percentages, each alone or with a type.
func (r *reader) layout(v value, gpt bool) []Partition {
	usual := partitionType("83", gpt)
	if !v.given() {
		return nil
	}
	if v.node.Kind == yaml.ScalarNode {
		if !v.flag(false) {
			return nil
		}
		return []Partition{{Percent: 100, Type: usual}}
	}
	var parts []Partition
	sum := 0
	for _, item := range v.list() {
		p, percent := Partition{Type: usual}, item
		if item.given() && item.node.Kind == yaml.SequenceNode {
			pair := item.list()
			if len(pair) != 2 {
				r.errorf(item.path, "it is not a percentage and a type")
				continue
			}
			percent = pair[0]
			if p.Type = partitionType(pair[1].text(), gpt); p.Type == "" {
				r.errorf(pair[1].path, "it is not a partition type")
			}
		}
		n, err := strconv.Atoi(percent.text())
		if err != nil || n < 1 || n > 100 {
			r.errorf(percent.path, "it is not a percentage")
			continue
		}
		p.Percent = n
		sum += n
		parts = append(parts, p)
	}
	if sum > 100 {
		r.errorf(v.path, "the partitions have more than 100 percent")
	}
	if most := 4; !gpt && len(parts) > most {
		r.errorf(v.path, "a DOS table has at most %d partitions: set table_type: gpt", most)
	}
	return parts
}

// partitionType is a type in the form of its table, "" for one that is not known. A GPT
// has GUIDs; those of the types that the provider has names for are known by their
// hexadecimal number, too, alone or as sgdisk writes it (83, 8300).
func partitionType(s string, gpt bool) string {
	switch {
	case !gpt && hexForm.MatchString(s):
		return strings.ToLower(s)
	case !gpt:
		return ""
	case guidForm.MatchString(s):
		return strings.ToUpper(s)
	}
	switch strings.ToLower(strings.TrimSuffix(s, "00")) {
	case "83":
		return "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
	case "82":
		return "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"
	case "fd":
		return "A19D880F-05FC-4D3B-A006-743F0F84911E"
	case "8e":
		return "E6D6D379-F507-44C2-A23C-238F2A3DF928"
	case "ef":
		return "C12A7328-F81F-11D2-BA4B-00C93EC93B4F"
	case "07", "7", "0c", "c":
		return "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"
	}
	return ""
}

func (r *reader) filesystem(v value) Filesystem {
	e, _ := v.object("label", "filesystem", "device", "partition", "overwrite", "replace_fs", "extra_opts")
	f := Filesystem{
		Type:      e["filesystem"].matched(fsForm, "a file system"),
		Label:     e["label"].matched(labelForm, "a label of letters and digits"),
		Device:    e["device"].device(e["device"].text()),
		Overwrite: e["overwrite"].flag(false),
	}
	if f.Type == "" {
		r.errorf(e["filesystem"].path, "it is required")
	}
	if e["replace_fs"].given() {
		r.errorf(e["replace_fs"].path, "it is a cloud's; say overwrite: true")
	}
	switch s := strings.ToLower(e["partition"].text()); s {
	case "", "none":
		f.Partition = "none"
	case "auto", "any":
		f.Partition = "auto"
	default:
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 128 {
			r.errorf(e["partition"].path, "it is none of auto, none and a number")
		}
		f.Partition = strconv.Itoa(n)
	}
	for _, o := range e["extra_opts"].texts() {
		for _, word := range strings.Fields(o.text()) {
			if !argForm.MatchString(word) {
				r.errorf(o.path, "it is not an option of mkfs")
			}
			f.Options = append(f.Options, word)
		}
	}
	return f
}

// mount is a list: device, path, and what fstab has further, with cloud-init's defaults.
func (r *reader) mount(v value) Mount {
	fields := []string{"", "", "auto", "defaults", "0", "2"}
	items := v.list()
	if len(items) < 2 || len(items) > len(fields) {
		r.errorf(v.path, "it is not a list of device, path, type, options, dump and pass")
		return Mount{}
	}
	for i, item := range items {
		if s := item.text(); s != "" {
			fields[i] = s
		}
	}
	m := Mount{Device: fields[0], Path: items[1].absolute(), Type: fields[2], Options: fields[3], Dump: fields[4], Pass: fields[5]}
	switch {
	case !sourceForm.MatchString(m.Device) || !strings.ContainsAny(m.Device, "/="):
		r.errorf(items[0].path, "it is not a device, LABEL= or UUID= (aliases like ephemeral0 are a cloud's)")
	case m.Type == "swap":
		r.errorf(v.path, "kubelet wants no swap")
	case strings.ContainsAny(m.Path, " \t") || !fsForm.MatchString(m.Type) || !optionsForm.MatchString(m.Options) ||
		!slices.Contains([]string{"0", "1"}, m.Dump) || !slices.Contains([]string{"0", "1", "2"}, m.Pass):
		r.errorf(v.path, "it is not a line of fstab")
	}
	return m
}
