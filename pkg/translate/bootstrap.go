package translate

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/cloudconfig"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// Actions that carry bootstrap data out, in cloud-init's order.
const (
	taskCIBegin  = "ci.begin"
	taskCIBoot   = "ci.boot"
	taskCIFiles  = "ci.files"
	taskCIDisks  = "ci.disks"
	taskCIMounts = "ci.mounts"
	taskCIUsers  = "ci.users"
	taskCINTP    = "ci.ntp"
	taskCILate   = "ci.files.late"
	taskCIRun    = "ci.run"
	taskCICheck  = "ci.check"

	// ciDir is where a bundle brings what the actions read; it goes when they are done.
	ciDir = "/run/capplunder/ci/"
	// ciRan is the last line of ci.run.
	ciRan = "capplunder-bootstrap ran"
)

// BootstrapOf is the bootstrap data that came with a Machine, as text; nil if it has
// none, or if the data is in the store.
func BootstrapOf(m *capi.Machine) (*capi.BootstrapData, error) {
	if m.GivenBootstrap != nil {
		return m.GivenBootstrap, nil
	}
	if m.BootstrapData == "" {
		return nil, nil
	}
	text, err := cloudconfig.Decode(m.BootstrapData)
	if err != nil {
		return nil, fmt.Errorf("spec.bootstrap.data of Machine %s: %w", m.Key, err)
	}
	return &capi.BootstrapData{Format: capi.FormatCloudConfig, Value: text}, nil
}

// checkBootstrap looks at the bootstrap data that came with a Machine, before anything
// is done. Data that is still to come is checked when it is there.
func checkBootstrap(m *capi.Machine, k *Kubernetes) error {
	data, err := BootstrapOf(m)
	if err != nil || data == nil {
		return err
	}
	_, err = parseBootstrap(data, k, cloudconfig.Meta{HostName: "host", InstanceID: "00:00:00:00:00:00", LocalIPv4: "192.0.2.1"})
	return err
}

func parseBootstrap(data *capi.BootstrapData, k *Kubernetes, meta cloudconfig.Meta) (*cloudconfig.Config, error) {
	switch format := cmp.Or(data.Format, capi.FormatCloudConfig); format {
	case capi.FormatCloudConfig:
	case "ignition":
		return nil, cloudconfig.ErrIgnition
	default:
		return nil, fmt.Errorf("bootstrap data has the format %q: only %s is supported", format, capi.FormatCloudConfig)
	}
	c, err := cloudconfig.Parse(data.Value, meta)
	if err != nil {
		return nil, err
	}
	if len(c.Unknown) > 0 && !isTrue(k.IgnoreUnknownKeys) {
		return nil, fmt.Errorf("bootstrap data has keys that capplunder does not know: %s; leave them out, or set ignoreUnknownKeys: true to have nothing done about them", strings.Join(c.Unknown, ", "))
	}
	return c, nil
}

// Bootstrap has a host carry bootstrap data out, as cloud-init would at its first boot.
// It may run again: data that made the host a node is done with, data that failed ahead
// of kubeadm begins anew, and a host on which kubeadm has begun is not touched. What the
// data says is in the bundle alone, never in a command.
func Bootstrap(job string, t Target, k *Kubernetes, f Facts, data *capi.BootstrapData) (wire.Map, error) {
	// Without a version nobody here knows what the image brings; the scripts need bash and systemd.
	if err := k.refuse(f); err != nil && (k.Version != "" || !f.Bash || !f.Systemd) {
		return wire.Map{}, err
	}
	c, err := parseBootstrap(data, k, cloudconfig.Meta{
		// An instance ID that makes plunder://{{ ds.meta_data.instance_id }} the provider ID.
		HostName: t.HostName, InstanceID: t.Guard.MAC, LocalIPv4: t.Address,
	})
	if err != nil {
		return wire.Map{}, err
	}
	b := newInstallMap(job, t, k)
	s := &ciScripts{b: b, verdict: `[ -e ` + cloudconfig.SentinelPath + ` ]`, digest: c.Digest}
	switch {
	case c.Sentinel:
	case len(c.RunCmds) == 0:
		s.verdict = `[ -e /etc/kubernetes/kubelet.conf ]`
	default:
		s.verdict = fmt.Sprintf(`[ -e /etc/kubernetes/kubelet.conf ] && [ "$(grep -cE '^capplunder-runcmd [0-9]+/[0-9]+ rc=0$' $L/bootstrap.log || :)" = %d ]`, len(c.RunCmds))
	}
	b.bash(taskCIBegin, time.Minute, s.fill(ciBeginScript))

	early, late, appended := ciFiles(c)
	var files []file
	add := func(name, text string) {
		if text != "" {
			files = append(files, file{ciDir + name, 0o600, text})
		}
	}
	add("boot.sh", shellScript("bootcmd", c.BootCmds))
	add("run.sh", shellScript("runcmd", c.RunCmds))
	add("early/files.tar.gz", b.archive(early))
	add("late/files.tar.gz", b.archive(late))
	add("early/owners", owners(early))
	add("late/owners", owners(late))
	add("early/paths", paths(early))
	add("late/paths", paths(late))
	for i, f := range appended {
		if f.Path != "" {
			add(fmt.Sprintf("append/%d", i), string(f.Content))
		}
	}
	add("appended", appendList(appended))
	add("disks", diskList(c))
	add("mounts", mountList(c))
	add("users.sh", usersScript(c.Users))
	add("sudoers", sudoers(c.Users))
	add("ntp", ntpList(c.NTP))
	after := k.Hooks != nil && k.Hooks.After != ""
	if after {
		files = append(files, hookFile(hookAfter, k.Hooks.After)...)
	}
	if len(files) > 0 {
		b.bundle(files...)
	}

	s.step(len(c.BootCmds) > 0, taskCIBoot, 11*time.Minute, ciBootScript)
	s.step(len(early)+len(appended) > 0, taskCIFiles, 2*time.Minute, strings.ReplaceAll(ciFilesScript, "{{WHEN}}", "early")+ciAppendScript)
	s.step(len(c.Disks)+len(c.Filesystems) > 0, taskCIDisks, 30*time.Minute, ciDisksScript)
	s.step(len(c.Mounts) > 0, taskCIMounts, 5*time.Minute, ciMountsScript)
	s.step(len(c.Users) > 0, taskCIUsers, 2*time.Minute, ciUsersScript)
	s.step(c.NTP != nil, taskCINTP, 2*time.Minute, ciNTPScript)
	s.step(len(late) > 0, taskCILate, 2*time.Minute, strings.ReplaceAll(ciFilesScript, "{{WHEN}}", "late"))
	s.step(len(c.RunCmds) > 0, taskCIRun, time.Hour, ciRunScript)
	b.bash(taskCICheck, time.Minute, s.fill(ciCheckScript))
	if after {
		b.hook(hookAfter)
	}
	return b.done("bootstrap")
}

// ciScripts fills in what the scripts have in common.
type ciScripts struct {
	b               *mapBuilder
	verdict, digest string
}

func (s *ciScripts) fill(script string) string {
	return fill(script, map[string]string{"SENTINEL": cloudconfig.SentinelPath, "DIGEST": s.digest, "VERDICT": s.verdict})
}

func (s *ciScripts) step(wanted bool, task string, limit time.Duration, script string) {
	if wanted {
		s.b.bash(task, limit, s.fill(ciStepScript+script))
	}
}

// shellScript is one script of all commands, as cloud-init makes it: variables and the
// working directory carry over, and a command that fails does not stop the next. Each
// reports its status, and leaves it to the next as it was.
func shellScript(what string, cmds []cloudconfig.Command) string {
	if len(cmds) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString("#!/bin/sh\n")
	for i, c := range cmds {
		fmt.Fprintf(&s, "%s\ncapplunder_rc=$?; echo \"capplunder-%s %d/%d rc=$capplunder_rc\"; (exit $capplunder_rc)\n", c.Shell(), what, i+1, len(cmds))
	}
	return s.String()
}

// ciFiles sorts the files by how they are written: before the users are made, after it,
// or at the end of what the host has. Several entries for one path are what is left of
// them when they were written in order.
func ciFiles(c *cloudconfig.Config) (early, late, appended []cloudconfig.File) {
	made := map[string]bool{}
	for _, u := range c.Users {
		made[u.Name] = true
		for _, g := range append(u.Groups, cmp.Or(u.PrimaryGroup, u.Name)) {
			made[g] = true
		}
	}
	var order []string
	last := map[string]cloudconfig.File{}
	for _, f := range c.Files {
		f.Defer = f.Defer || made[f.Owner] || made[f.Group]
		before, ok := last[f.Path]
		if !ok {
			order = append(order, f.Path)
		}
		if ok && f.Append {
			f.Content = append(bytes.Clone(before.Content), f.Content...)
			f.Append, f.Defer = before.Append, f.Defer || before.Defer
		}
		last[f.Path] = f
	}
	for _, p := range order {
		switch f := last[p]; {
		case f.Append:
			appended = append(appended, f)
		case f.Defer:
			late = append(late, f)
		default:
			early = append(early, f)
		}
	}
	return early, late, appended
}

// archive is a tar.gz of files, entries of files only: a directory among them would
// replace a symbolic link on the host.
func (b *mapBuilder) archive(files []cloudconfig.File) string {
	if len(files) == 0 {
		return ""
	}
	var raw bytes.Buffer
	zw := gzip.NewWriter(&raw)
	tw := tar.NewWriter(zw)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Mode: f.Mode, Size: int64(len(f.Content))}
		h.Uname, h.Uid = nameOrNumber(f.Owner)
		h.Gname, h.Gid = nameOrNumber(f.Group)
		b.check(tw.WriteHeader(h))
		_, err := tw.Write(f.Content)
		b.check(err)
	}
	b.check(tw.Close())
	b.check(zw.Close())
	return raw.String()
}

func nameOrNumber(s string) (name string, number int) {
	if n, err := strconv.Atoi(s); err == nil {
		return "", n
	}
	return s, 0
}

// owners are the users and groups that must be there: tar takes root for those that are not.
func owners(files []cloudconfig.File) string {
	var s strings.Builder
	seen := map[string]bool{}
	for _, f := range files {
		for _, o := range [][2]string{{"passwd", f.Owner}, {"group", f.Group}} {
			line := o[0] + " " + o[1] + "\n"
			if name, _ := nameOrNumber(o[1]); name != "" && !seen[line] {
				seen[line] = true
				s.WriteString(line)
			}
		}
	}
	return s.String()
}

func paths(files []cloudconfig.File) string {
	var s strings.Builder
	for _, f := range files {
		s.WriteString(f.Path + "\n")
	}
	return s.String()
}

func appendList(files []cloudconfig.File) string {
	var s strings.Builder
	for i, f := range files {
		fmt.Fprintf(&s, "%d %o %s:%s %s\n", i, f.Mode, f.Owner, f.Group, f.Path)
	}
	return s.String()
}

// diskList are the disks to partition and the file systems to make. A percentage of "-"
// is the rest of the disk.
func diskList(c *cloudconfig.Config) string {
	var s strings.Builder
	for _, d := range c.Disks {
		table, sum := "dos", 0
		if d.GPT {
			table = "gpt"
		}
		fmt.Fprintf(&s, "disk %s %s %s", d.Device, table, yesNo(d.Overwrite))
		for i, p := range d.Partitions {
			sum += p.Percent
			percent := strconv.Itoa(p.Percent)
			if sum == 100 && i == len(d.Partitions)-1 {
				percent = "-"
			}
			fmt.Fprintf(&s, " %s:%s", percent, p.Type)
		}
		s.WriteString("\n")
	}
	for _, f := range c.Filesystems {
		fmt.Fprintf(&s, "fs %s %s %s %s %s %s\n", f.Device, f.Type, yesNo(f.Overwrite), f.Partition, cmp.Or(f.Label, "-"), strings.Join(f.Options, " "))
	}
	return s.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// mountList are lines of fstab, with a mark by which they are found again.
func mountList(c *cloudconfig.Config) string {
	var s strings.Builder
	for _, m := range c.Mounts {
		options := m.Options
		if !strings.Contains(","+options+",", ",nofail,") {
			options += ",nofail"
		}
		fmt.Fprintf(&s, "%s %s %s %s,comment=capplunder %s %s\n", m.Device, m.Path, m.Type, options, m.Dump, m.Pass)
	}
	return s.String()
}

func ntpList(n *cloudconfig.NTP) string {
	if n == nil {
		return ""
	}
	var s strings.Builder
	for _, x := range n.Servers {
		s.WriteString("server " + x + "\n")
	}
	for _, x := range n.Pools {
		s.WriteString("pool " + x + "\n")
	}
	return s.String()
}

// usersScript makes users. The password of one who was there before is not changed, and
// keys are only added: the user may be the one by whom plunder logs in.
func usersScript(users []cloudconfig.User) string {
	if len(users) == 0 {
		return ""
	}
	var s strings.Builder
	s.WriteString(ciUserFunctions)
	for _, u := range users {
		n := quote(u.Name)
		for _, g := range append(u.Groups, u.PrimaryGroup) {
			if g != "" {
				fmt.Fprintf(&s, "group %s\n", quote(g))
			}
		}
		args := ""
		for _, o := range []struct{ flag, value string }{{"-c", u.Gecos}, {"-d", u.Home}, {"-s", u.Shell}, {"-g", u.PrimaryGroup}, {"-G", strings.Join(u.Groups, ",")}} {
			if o.value != "" {
				args += " " + o.flag + " " + quote(o.value)
			}
		}
		if u.Inactive >= 0 {
			args += " -f " + strconv.Itoa(u.Inactive)
		}
		fmt.Fprintf(&s, "user %s%s\n", n, args)
		if u.Passwd != "" {
			lock := ""
			if u.LockPasswd {
				lock = "; usermod -L " + n
			}
			// Through a pipe, for a program's arguments are everybody's to see.
			fmt.Fprintf(&s, "if ours %s; then printf '%%s\\n' %s | chpasswd -e%s; fi\n", n, quote(u.Name+":"+u.Passwd), lock)
		}
		for _, key := range u.Keys {
			fmt.Fprintf(&s, "key %s %s\n", n, quote(key))
		}
	}
	return s.String()
}

func sudoers(users []cloudconfig.User) string {
	var s strings.Builder
	for _, u := range users {
		for _, rule := range u.Sudo {
			s.WriteString(u.Name + " " + rule + "\n")
		}
	}
	return s.String()
}

// ReadBootstrap is nil when the bootstrap data made the host a node. Otherwise the error
// names the commands that failed by their number, for their text may be secret.
func ReadBootstrap(l wire.Log, job string) error {
	check, _ := entry(l, TaskName(taskCICheck, job))
	if strings.Contains(check.Entry, "capplunder-bootstrap ok") || strings.Contains(check.Entry, "capplunder-bootstrap already") {
		return nil
	}
	run, ok := entry(l, TaskName(taskCIRun, job))
	for _, e := range l.Entries {
		if e.Error != "" && e.Task != check.Task && e.Task != TaskName(taskCINTP, job) && strings.HasSuffix(e.Task, TaskName("", job)) {
			return errors.New(Explain(e))
		}
	}
	if !ok {
		return errors.New(Explain(check))
	}
	out := Mask(readable(run.Entry))
	text := "the bootstrap data did not make the machine a node: " + strings.Join(failedCommands(out), ", ") + Likely(out)
	tail := slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool {
		return strings.HasPrefix(line, "capplunder-runcmd ") || line == ciRan || line == ""
	})
	if len(tail) > 0 {
		text += "; its output ends: " + strings.Join(tail[max(0, len(tail)-lastLines):], " | ")
	}
	return errors.New(text + "; the whole log is " + fullLog(taskCIRun) + " on the machine")
}

var runcmdForm = regexp.MustCompile(`(?m)^capplunder-runcmd ([0-9]{1,4})/([0-9]{1,4}) rc=([0-9]{1,3})$`)

// failedCommands are the commands that failed or never ended, by what the script said.
func failedCommands(out string) []string {
	var failed []string
	ended := map[string]bool{}
	last, of := 0, 0
	for _, m := range runcmdForm.FindAllStringSubmatch(out, -1) {
		if ended[m[1]] {
			continue // it is in the summary, and again in the log's last lines
		}
		ended[m[1]] = true
		n, _ := strconv.Atoi(m[1])
		last = max(last, n)
		of, _ = strconv.Atoi(m[2])
		if m[3] != "0" {
			failed = append(failed, fmt.Sprintf("command %s of %s (runcmd) ended with status %s", m[1], m[2], m[3]))
		}
	}
	switch {
	case of == 0:
		failed = append(failed, "its first command (runcmd) did not come to its end")
	case last < of:
		failed = append(failed, fmt.Sprintf("command %d of %d (runcmd) did not come to its end", last+1, of))
	case len(failed) == 0:
		failed = append(failed, "its commands ended well, but it is not marked as done")
	}
	return failed
}

// ExplainIn is Explain with what the job's other entries say, where one alone says little.
func ExplainIn(l wire.Log, job string, e wire.LogEntry) string {
	if e.Task == TaskName(taskCICheck, job) {
		if err := ReadBootstrap(l, job); err != nil {
			return err.Error()
		}
	}
	return Explain(e)
}
