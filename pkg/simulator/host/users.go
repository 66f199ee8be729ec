package host

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// user is a user of the host.
type user struct {
	name     string
	uid, gid int
	home     string
}

func profileUsers(name string) []user {
	users := []user{{"root", 0, 0, "/root"}}
	if name != "root" {
		users = append(users, user{name, 1000, 1000, "/home/" + name})
	}
	return users
}

const (
	passwdFile = "/etc/passwd"
	shadowFile = "/etc/shadow"
	groupFile  = "/etc/group"
	sudoersDir = "/etc/sudoers.d"
)

// userCommand are the programs that look at or change users and groups.
func userCommand(name string) command {
	switch name {
	case "id":
		return cmdID
	case "whoami":
		return func(c *call) int { c.printf("%s\n", c.user.name); return 0 }
	case "getent":
		return cmdGetent
	case "useradd", "usermod":
		return cmdUseradd
	case "adduser":
		return func(c *call) int { return c.fail(1, "not on a simulated host") }
	case "groupadd":
		return cmdGroupadd
	case "chpasswd":
		return cmdChpasswd
	case "visudo":
		return cmdVisudo
	}
	return nil
}

// installUsers makes root and the user that the installer was told of, who may do
// everything without a password, as plunder's installers have it.
func (h *Host) installUsers(p profile) {
	passwd, group, shadow := "", "", ""
	for _, u := range h.users {
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:%s\n", u.name, u.uid, u.gid, u.home, p.shell())
		group += fmt.Sprintf("%s:x:%d:\n", u.name, u.gid)
		shadow += u.name + ":*:20000:0:99999:7:::\n"
		mode := fs.FileMode(0o750)
		if u.uid == 0 {
			mode = 0o700
		} else {
			h.fs.put(sudoersDir+"/90-installer", &node{mode: 0o440, data: []byte(u.name + " ALL=(ALL) NOPASSWD:ALL\n")})
		}
		h.fs.put(u.home, &node{mode: fs.ModeDir | mode, uid: u.uid, gid: u.gid})
	}
	for i, g := range []string{"adm", "sudo", "wheel", "systemd-journal"} {
		group += fmt.Sprintf("%s:x:%d:\n", g, 10+i)
	}
	h.addFile(passwdFile, passwd+"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	h.addFile(groupFile, group+"nogroup:x:65534:\n")
	h.fs.put(shadowFile, &node{mode: 0o600, data: []byte(shadow)})
}

// table are the lines of a file like /etc/passwd, taken apart.
func (h *Host) table(file string) [][]string {
	b, err := h.fs.readFile(who{}, file)
	if err != nil {
		return nil
	}
	var out [][]string
	for _, line := range lines(b) {
		if f := strings.Split(line, ":"); len(f) > 2 {
			out = append(out, f)
		}
	}
	return out
}

// store writes such a file back, with the mode it has.
func (c *call) store(file string, table [][]string) error {
	var b strings.Builder
	for _, f := range table {
		b.WriteString(strings.Join(f, ":") + "\n")
	}
	return c.write(file, []byte(b.String()), 0o600)
}

func parseUser(f []string) (user, bool) {
	if len(f) < 7 {
		return user{}, false
	}
	uid, err1 := strconv.Atoi(f[2])
	gid, err2 := strconv.Atoi(f[3])
	return user{f[0], uid, gid, f[5]}, err1 == nil && err2 == nil
}

// lookupUser finds a user by name. Those of the installation are there even if
// somebody has destroyed /etc/passwd: a session that runs goes on.
func (h *Host) lookupUser(name string) (user, bool) {
	for _, u := range h.users {
		if u.name == name {
			return u, true
		}
	}
	for _, f := range h.table(passwdFile) {
		if u, ok := parseUser(f); ok && u.name == name {
			return u, true
		}
	}
	return user{}, false
}

// userByID is the user with this number, or a nameless one.
func (h *Host) userByID(uid int) user {
	for _, u := range h.users {
		if u.uid == uid {
			return u
		}
	}
	for _, f := range h.table(passwdFile) {
		if u, ok := parseUser(f); ok && u.uid == uid {
			return u
		}
	}
	return user{name: fmt.Sprint(uid), uid: uid, gid: uid, home: "/"}
}

// groupID is the number of a group.
func (h *Host) groupID(name string) (int, bool) {
	for _, f := range h.table(groupFile) {
		if f[0] == name {
			gid, err := strconv.Atoi(f[2])
			return gid, err == nil
		}
	}
	return 0, false
}

// groupName is the name of a group, or its number.
func (h *Host) groupName(gid int) string {
	for _, f := range h.table(groupFile) {
		if f[2] == strconv.Itoa(gid) {
			return f[0]
		}
	}
	return strconv.Itoa(gid)
}

// groupsOf are the names of the groups that list a user as a member.
func (h *Host) groupsOf(name string) []string {
	var out []string
	for _, f := range h.table(groupFile) {
		if len(f) > 3 && slices.Contains(strings.Split(f[3], ","), name) {
			out = append(out, f[0])
		}
	}
	return out
}

// sudoer reports whether a user may become root without a password. Files that
// cannot be parsed, or that others may write, are left out, as sudo does.
func (h *Host) sudoer(u user) bool {
	if u.uid == 0 {
		return true
	}
	for _, file := range h.list(sudoersDir) {
		i, err := h.fs.stat(file, true)
		b, err2 := h.fs.readFile(who{}, file)
		if err != nil || err2 != nil || i.mode&0o022 != 0 || strings.Contains(path.Base(file), ".") || badSudoers(b) > 0 {
			continue
		}
		for _, line := range lines(b) {
			f := strings.Fields(line)
			if len(f) < 2 || !strings.Contains(line, "NOPASSWD:") {
				continue
			}
			group, isGroup := strings.CutPrefix(f[0], "%")
			if f[0] == u.name || f[0] == "ALL" || isGroup && slices.Contains(h.groupsOf(u.name), group) {
				return true
			}
		}
	}
	return false
}

// requiresTTY reports whether sudoers asks for a terminal, as that of old systems did.
func (h *Host) requiresTTY() bool {
	for _, file := range append(h.list(sudoersDir), "/etc/sudoers") {
		b, err := h.fs.readFile(who{}, file)
		if err != nil {
			continue
		}
		for _, line := range lines(b) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Defaults" && f[1] == "requiretty" {
				return true
			}
		}
	}
	return false
}

var sudoersForm = regexp.MustCompile(`^(Defaults\b.*|(User|Host|Runas|Cmnd)_Alias\s+[A-Z][A-Z0-9_]*\s*=.+|[@#]include(dir)?\s+\S+|[%#+]?[A-Za-z0-9_.@-]+\s+[A-Za-z0-9_.,-]+\s*=\s*(\([A-Za-z0-9_%:, -]+\)\s*)?((NO)?PASSWD:\s*|(NO)?EXEC:\s*|(NO)?SETENV:\s*)*(ALL|!?/\S*|[A-Z][A-Z0-9_]*)(\s.*|,.*)?)$`)

// badSudoers is the number of the first line that is not in sudoers' grammar, 0 if all are.
func badSudoers(b []byte) int {
	for i, line := range lines(b) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "#include") {
			continue
		}
		if !sudoersForm.MatchString(line) {
			return i + 1
		}
	}
	return 0
}

func cmdVisudo(c *call) int {
	flags, args := options(c.args[1:], "-f", "--file")
	if !has(flags, "-c", "--check") {
		return c.fail(1, "no tty: only -c")
	}
	files := append(flags["-f"], flags["--file"]...)
	files = append(files, args...)
	if len(files) == 0 {
		files = c.h.list(sudoersDir)
	}
	for _, f := range files {
		b, err := c.read(f)
		if err != nil {
			return c.fail(1, "unable to open %s: %s", f, errText(err))
		}
		if n := badSudoers(b); n > 0 {
			c.errf("%s:%d: syntax error\n%s", f, n, lines(b)[n-1])
			return 1
		}
		if !has(flags, "-q", "--quiet") {
			c.printf("%s: parsed OK\n", f)
		}
	}
	return 0
}

func cmdID(c *call) int {
	flags, args := options(c.args[1:])
	u := c.user
	if len(args) > 0 {
		var ok bool
		if u, ok = c.h.lookupUser(args[0]); !ok {
			return c.fail(1, "'%s': no such user", args[0])
		}
	}
	groups := append([]string{c.h.groupName(u.gid)}, c.h.groupsOf(u.name)...)
	switch {
	case has(flags, "-G") && has(flags, "-n"):
		c.printf("%s\n", strings.Join(groups, " "))
	case has(flags, "-g") && has(flags, "-n"):
		c.printf("%s\n", groups[0])
	case has(flags, "-n"):
		c.printf("%s\n", u.name)
	case has(flags, "-u"):
		c.printf("%d\n", u.uid)
	case has(flags, "-g", "-G"):
		c.printf("%d\n", u.gid)
	default:
		for i, g := range groups {
			gid, _ := c.h.groupID(g)
			groups[i] = fmt.Sprintf("%d(%s)", gid, g)
		}
		c.printf("uid=%d(%s) gid=%s groups=%s\n", u.uid, u.name, groups[0], strings.Join(groups, ","))
	}
	return 0
}

func cmdGetent(c *call) int {
	if len(c.args) < 2 {
		return c.fail(1, "wrong number of arguments")
	}
	if c.args[1] == "hosts" || c.args[1] == "ahosts" || c.args[1] == "ahostsv4" {
		return c.getentHosts(c.args[2:])
	}
	if !slices.Contains([]string{"passwd", "group", "shadow"}, c.args[1]) {
		c.errf("Unknown database: %s", c.args[1])
		return 1
	}
	b, err := c.read("/etc/" + c.args[1])
	if err != nil {
		return 2
	}
	status := 0
	for _, want := range append(c.args[2:], "") {
		if want == "" && len(c.args) > 2 {
			continue
		}
		found := false
		for _, line := range lines(b) {
			f := strings.Split(line, ":")
			if want == "" || f[0] == want || len(f) > 2 && f[2] == want && c.args[1] != "shadow" {
				c.printf("%s\n", line)
				found = true
			}
		}
		if !found {
			status = 2
		}
	}
	return status
}

// getentHosts looks names up in /etc/hosts; nothing else is known on the virtual network.
func (c *call) getentHosts(names []string) int {
	b, err := c.read("/etc/hosts")
	if err != nil {
		return 2
	}
	status := 0
	for _, want := range names {
		found := false
		for _, line := range lines(b) {
			f := strings.Fields(line)
			if len(f) > 1 && !strings.HasPrefix(f[0], "#") && slices.Contains(f, want) {
				c.printf("%-15s %s\n", f[0], strings.Join(f[1:], " "))
				found = true
			}
		}
		if !found {
			status = 2
		}
	}
	return status
}

var nameForm = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}\$?$`)

// Exit statuses of the shadow programs, as their manual pages list them.
const (
	shadowUsage    = 2
	shadowBad      = 3
	shadowIDTaken  = 4
	shadowNoName   = 6
	shadowTaken    = 9
	shadowNoAccess = 1
)

// userOptions are the options of useradd and usermod that take a value.
func userOptions() []string {
	return []string{
		"-c", "--comment", "-d", "--home", "--home-dir", "-e", "--expiredate", "-f", "--inactive", "-g", "--gid", "-G", "--groups", "-k", "--skel",
		"-K", "--key", "-p", "--password", "-s", "--shell", "-u", "--uid",
	}
}

// cmdUseradd is useradd and usermod.
func cmdUseradd(c *call) int {
	flags, args := options(c.args[1:], userOptions()...)
	modify := c.args[0] == "usermod" || strings.HasSuffix(c.args[0], "/usermod")
	known := append(userOptions(), "-m", "--create-home", "-M", "--no-create-home", "-N", "--no-user-group", "-U", "--user-group", "-r", "--system",
		"-o", "--non-unique", "-a", "--append", "-L", "--lock", "-l", "--no-log-init", "--unlock")
	for f := range flags {
		if !slices.Contains(known, f) {
			return c.fail(shadowUsage, "unrecognized option '%s'", f)
		}
	}
	if len(args) != 1 {
		c.errf("Usage: %s [options] LOGIN", c.args[0])
		return shadowUsage
	}
	if !c.root() {
		return c.fail(shadowNoAccess, "Permission denied.")
	}
	name := args[0]
	if !nameForm.MatchString(name) {
		return c.fail(shadowBad, "invalid user name '%s': use --badname to ignore", name)
	}
	passwd, group, shadow := c.h.table(passwdFile), c.h.table(groupFile), c.h.table(shadowFile)
	at := slices.IndexFunc(passwd, func(f []string) bool { return f[0] == name })
	switch {
	case modify && at < 0:
		return c.fail(shadowNoName, "user '%s' does not exist", name)
	case !modify && at >= 0:
		return c.fail(shadowTaken, "user '%s' already exists", name)
	}
	groupAt := func(n string) int {
		return slices.IndexFunc(group, func(f []string) bool { return f[0] == n || f[2] == n })
	}
	if !modify {
		uid := freeID(passwd, 1000)
		gid := strconv.Itoa(freeID(group, uid))
		if value(flags, "-g", "--gid") == "" && !has(flags, "-N", "--no-user-group") {
			if groupAt(name) >= 0 {
				return c.fail(shadowTaken, "group %s exists - if you want to add this user to that group, use -g.", name)
			}
			group = append(group, []string{name, "x", gid, ""})
		}
		passwd = append(passwd, []string{name, "x", strconv.Itoa(uid), gid, "", "/home/" + name, c.h.sys.profile.shell()})
		shadow = append(shadow, []string{name, "!", "20000", "0", "99999", "7", "", "", ""})
		at = len(passwd) - 1
	}
	entry := passwd[at]
	if v := value(flags, "-u", "--uid"); v != "" {
		if slices.ContainsFunc(passwd, func(f []string) bool { return f[2] == v && f[0] != name }) {
			return c.fail(shadowIDTaken, "UID %s is not unique", v)
		}
		if _, err := strconv.Atoi(v); err != nil {
			return c.fail(shadowBad, "invalid user ID '%s'", v)
		}
		entry[2] = v
	}
	if v := value(flags, "-g", "--gid"); v != "" {
		i := groupAt(v)
		if i < 0 {
			return c.fail(shadowNoName, "group '%s' does not exist", v)
		}
		entry[3] = group[i][2]
	}
	for field, names := range map[int][]string{4: {"-c", "--comment"}, 5: {"-d", "--home-dir", "--home"}, 6: {"-s", "--shell"}} {
		if has(flags, names...) {
			v := value(flags, names...)
			if strings.ContainsAny(v, ":\n") {
				return c.fail(shadowBad, "invalid field '%s'", v)
			}
			entry[field] = v
		}
	}
	if has(flags, "-G", "--groups") {
		for _, g := range strings.Split(value(flags, "-G", "--groups"), ",") {
			i := groupAt(g)
			if i < 0 {
				return c.fail(shadowNoName, "group '%s' does not exist", g)
			}
			for len(group[i]) < 4 {
				group[i] = append(group[i], "")
			}
			members := strings.Split(group[i][3], ",")
			if group[i][3] == "" {
				members = nil
			}
			if !slices.Contains(members, name) {
				group[i][3] = strings.Join(append(members, name), ",")
			}
		}
	}
	for i, f := range shadow {
		if f[0] != name {
			continue
		}
		if has(flags, "-p", "--password") {
			shadow[i][1] = value(flags, "-p", "--password")
		}
		if has(flags, "-L", "--lock") && !strings.HasPrefix(f[1], "!") {
			shadow[i][1] = "!" + shadow[i][1]
		}
		if modify && has(flags, "-U", "--unlock") {
			shadow[i][1] = strings.TrimPrefix(shadow[i][1], "!")
		}
	}
	for _, x := range []struct {
		file  string
		table [][]string
	}{{passwdFile, passwd}, {groupFile, group}, {shadowFile, shadow}} {
		if err := c.store(x.file, x.table); err != nil {
			return c.fail(10, "cannot update %s: %s", x.file, errText(err))
		}
	}
	if !modify && has(flags, "-m", "--create-home") && !c.h.fs.exists(entry[5]) {
		u, _ := parseUser(entry)
		c.h.fs.put(u.home, &node{mode: fs.ModeDir | 0o750, uid: u.uid, gid: u.gid})
	}
	return 0
}

// freeID is the first number from one on that no line of a table has.
func freeID(table [][]string, from int) int {
	for slices.ContainsFunc(table, func(f []string) bool { return f[2] == strconv.Itoa(from) }) {
		from++
	}
	return from
}

func cmdGroupadd(c *call) int {
	flags, args := options(c.args[1:], "-g", "--gid")
	if len(args) != 1 {
		c.errf("Usage: groupadd [options] GROUP")
		return shadowUsage
	}
	if !c.root() {
		return c.fail(shadowNoAccess, "Permission denied.")
	}
	if !nameForm.MatchString(args[0]) {
		return c.fail(shadowBad, "'%s' is not a valid group name", args[0])
	}
	group := c.h.table(groupFile)
	if slices.ContainsFunc(group, func(f []string) bool { return f[0] == args[0] }) {
		if has(flags, "-f", "--force") {
			return 0
		}
		return c.fail(shadowTaken, "group '%s' already exists", args[0])
	}
	id := strconv.Itoa(freeID(group, 1000))
	if v := value(flags, "-g", "--gid"); v != "" {
		if slices.ContainsFunc(group, func(f []string) bool { return f[2] == v }) {
			return c.fail(shadowIDTaken, "GID '%s' already exists", v)
		}
		id = v
	}
	if err := c.store(groupFile, append(group, []string{args[0], "x", id, ""})); err != nil {
		return c.fail(10, "cannot update %s: %s", groupFile, errText(err))
	}
	return 0
}

// cmdChpasswd reads NAME:PASSWORD lines. What is not encrypted already is kept as a
// marker only: nobody logs in with a password here.
func cmdChpasswd(c *call) int {
	flags, _ := options(c.args[1:], "-c", "--crypt-method", "-s", "--sha-rounds")
	if !c.root() {
		return c.fail(1, "Permission denied.")
	}
	b, err := c.stdin()
	if err != nil {
		return c.fail(1, "%v", err)
	}
	shadow := c.h.table(shadowFile)
	for i, line := range lines(b) {
		name, password, ok := strings.Cut(line, ":")
		if !ok {
			return c.fail(1, "line %d: missing new password", i+1)
		}
		at := slices.IndexFunc(shadow, func(f []string) bool { return f[0] == name })
		if at < 0 {
			return c.fail(1, "line %d: user '%s' does not exist", i+1, name)
		}
		if !has(flags, "-e", "--encrypted") {
			password = "$6$simulated$" + strconv.Itoa(len(password))
		}
		shadow[at][1] = password
	}
	if err := c.store(shadowFile, shadow); err != nil {
		return c.fail(1, "cannot update %s: %s", shadowFile, errText(err))
	}
	return 0
}
