package cloudconfig_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/cloudconfig"
)

func meta() cloudconfig.Meta {
	return cloudconfig.Meta{HostName: "cp-abcde", InstanceID: "52:54:00:00:00:10", LocalIPv4: "10.0.0.10"}
}

func parse(t *testing.T, text string) *cloudconfig.Config {
	t.Helper()
	c, err := cloudconfig.Parse([]byte(text), meta())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// provided are the data of real providers, by folder and file.
func provided(t *testing.T) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/provider/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range files {
		if base := filepath.Base(f); base == "config.yaml" || base == "disks.yaml" {
			continue
		}
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimPrefix(filepath.ToSlash(f), "testdata/provider/")] = raw
	}
	if len(out) != 10 {
		t.Fatalf("%d files", len(out))
	}
	return out
}

// summary is a Config in a few lines.
func summary(c *cloudconfig.Config) string {
	var s strings.Builder
	for _, f := range c.Files {
		fmt.Fprintf(&s, "file %s %s:%s %04o %d bytes append=%v\n", f.Path, f.Owner, f.Group, f.Mode, len(f.Content), f.Append)
	}
	for _, b := range c.BootCmds {
		fmt.Fprintf(&s, "boot %s\n", b.Shell())
	}
	for _, r := range c.RunCmds {
		fmt.Fprintf(&s, "run %s\n", r.Shell())
	}
	for _, u := range c.Users {
		fmt.Fprintf(&s, "user %s gecos=%s groups=%v shell=%s sudo=%q keys=%d lock=%v\n", u.Name, u.Gecos, u.Groups, u.Shell, u.Sudo, len(u.Keys), u.LockPasswd)
	}
	if c.NTP != nil {
		fmt.Fprintf(&s, "ntp %v\n", c.NTP.Servers)
	}
	for _, d := range c.Disks {
		fmt.Fprintf(&s, "disk %+v\n", d)
	}
	for _, f := range c.Filesystems {
		fmt.Fprintf(&s, "fs %+v\n", f)
	}
	for _, m := range c.Mounts {
		fmt.Fprintf(&s, "mount %+v\n", m)
	}
	fmt.Fprintf(&s, "sentinel %v unknown %v\n", c.Sentinel, c.Unknown)
	return s.String()
}

func TestProviders(t *testing.T) {
	tail := `ntp [time1.example time2.example]
`
	user := "user ops gecos=Operations groups=[systemd-journal adm] shell=/bin/bash sudo=[\"ALL=(ALL) NOPASSWD:ALL\"] keys=1 lock=true\n"
	modern := "file /etc/motd root:root 0644 24 bytes append=false\nfile /etc/hosts root:root 0644 22 bytes append=true\nfile /home/ops/notes ops:ops 0600 14 bytes append=false\n"
	old := "file /etc/motd root:root 0644 24 bytes append=false\nfile /home/ops/notes ops:ops 0600 14 bytes append=false\n"
	placeholder := "file /run/cluster-api/placeholder root:root 0640 "
	after := `run echo "it is ${name:-done}" >/etc/after` + "\n"
	before := "run hostname >/etc/name.before\n"
	sentinel := " && echo success > /run/cluster-api/bootstrap-success.complete\n"
	for name, want := range map[string][]string{
		"v1.14.2/worker.yaml":        {modern, placeholder, "boot echo booted >/run/booted\n" + before + "run kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml " + sentinel + after + user + tail, "sentinel true unknown []"},
		"v1.14.2/init.yaml":          {"file /etc/kubernetes/pki/ca.key root:root 0600 ", modern, "run kubeadm init --config /run/kubeadm/kubeadm.yaml " + sentinel},
		"v1.14.2/control-plane.yaml": {"file /etc/kubernetes/pki/sa.key root:root 0600 ", modern, "run kubeadm join"},
		"v1.14.2/worker-disks.yaml": {
			"disk {Device:/dev/sdb GPT:true Partitions:[{Percent:100 Type:0FC63DAF-8483-4772-8E79-3D69D8477DE4}] Overwrite:false}\n",
			"disk {Device:/dev/sdc GPT:true Partitions:[{Percent:30 Type:0FC63DAF-8483-4772-8E79-3D69D8477DE4} {Percent:70 Type:0FC63DAF-8483-4772-8E79-3D69D8477DE4}] Overwrite:false}\n",
			"fs {Device:/dev/sdb Partition:1 Type:ext4 Label:etcd_disk Overwrite:false Options:[-E lazy_itable_init=1,lazy_journal_init=1]}\n",
			"mount {Device:LABEL=etcd_disk Path:/var/lib/etcddisk Type:auto Options:defaults Dump:0 Pass:2}\n",
			"mount {Device:/dev/sdc1 Path:/var/lib/logs Type:ext4 Options:defaults,noatime Dump:0 Pass:2}\n",
		},
		"v1.4.9/worker.yaml":        {modern, placeholder, before + "run kubeadm join --config /run/kubeadm/kubeadm-join-config.yaml " + sentinel + after + user + tail},
		"v1.4.9/init.yaml":          {"file /etc/kubernetes/pki/etcd/ca.crt root:root 0640 ", "run kubeadm init --config /run/kubeadm/kubeadm.yaml " + sentinel},
		"v1.4.9/control-plane.yaml": {"file /etc/kubernetes/pki/ca.key root:root 0600 ", "sentinel true"},
		"v0.1.6/worker.yaml":        {old + "file /tmp/kubeadm-node.yaml root:root 0640 ", before + "run kubeadm join --config /tmp/kubeadm-node.yaml\n" + after + user + tail, "sentinel false unknown []"},
		"v0.1.6/init.yaml":          {"file /etc/kubernetes/pki/ca.key root:root 0600 ", "file /tmp/kubeadm.yaml root:root 0640 ", "run kubeadm init --config /tmp/kubeadm.yaml\n"},
		"v0.1.6/control-plane.yaml": {"run kubeadm join --config /tmp/kubeadm-controlplane-join-config.yaml\n"},
	} {
		t.Run(name, func(t *testing.T) {
			raw := provided(t)[name]
			c := parse(t, string(raw))
			got := summary(c)
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("%q is not in\n%s", w, got)
				}
			}
			if sum := sha256.Sum256(raw); c.Digest != hex.EncodeToString(sum[:]) {
				t.Errorf("digest %s", c.Digest)
			}
			for _, f := range c.Files {
				text := string(f.Content)
				if strings.Contains(text, "{{") {
					t.Errorf("%s has a template left", f.Path)
				}
				if strings.Contains(f.Path, "kubeadm") && (!strings.Contains(text, "name: 'cp-abcde'") || !strings.Contains(text, "plunder://52:54:00:00:00:10")) {
					t.Errorf("%s: %s", f.Path, text)
				}
				if f.Path == "/etc/motd" && text != "made by a KubeadmConfig\n" {
					t.Errorf("%s: %q", f.Path, text)
				}
			}
		})
	}
}

func TestJinja(t *testing.T) {
	const head = "## template: jinja\n#cloud-config\n"
	for _, tt := range []struct{ text, want, err string }{
		{head + "runcmd: ['{{ ds.meta_data.hostname }}']", "cp-abcde", ""},
		{head + "runcmd: ['{{ds.meta_data.local_hostname}}']", "cp-abcde", ""},
		{head + `runcmd: ['{{ ds.meta_data["local-hostname"] }} {{ ds["meta_data"].local_ipv4 }}']`, "cp-abcde 10.0.0.10", ""},
		{head + "runcmd: ['{{ v1.local_hostname }}-{{ v1.instance_id }}']", "cp-abcde-52:54:00:00:00:10", ""},
		{"\n## TEMPLATE:jinja \n\n#cloud-config\nruncmd: ['{{ local_hostname }}']", "cp-abcde", ""},
		{"#cloud-config\nruncmd: ['{{ ds.meta_data.hostname }} {% if %} {# #}']", "{{ ds.meta_data.hostname }} {% if %} {# #}", ""},
		{head + "runcmd: ['}} % } a{b}c ${x}']", "}} % } a{b}c ${x}", ""},
		{head + "runcmd: ['{{ ds.meta_data.public_ipv4 }} {{ x }}']", "", "the template {{ ds.meta_data.public_ipv4 }}, {{ x }}: only hostname"},
		{head + "runcmd: ['{{ ds.meta_data.hostname | upper }}']", "", "{{ ds.meta_data.hostname | upper }}"},
		{head + "runcmd: ['{% if true %}PLANTED{% endif %}']", "", "the template {% ...: only"},
		{head + "runcmd: ['${#array[@]} PLANTED']", "", "the template {# ...: only"},
		{head + "runcmd: ['{{ PLANTED", "", "the template {{ ...: only"},
		{"## template: jinja\nruncmd: []", "", `does not go on with "#cloud-config"`},
	} {
		c, err := cloudconfig.Parse([]byte(tt.text), meta())
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "PLANTED") {
				t.Errorf("%q: error %v, want %q", tt.text, err, tt.err)
			}
		case err != nil:
			t.Errorf("%q: %v", tt.text, err)
		case c.RunCmds[0].Shell() != tt.want:
			t.Errorf("%q: %q, want %q", tt.text, c.RunCmds[0].Shell(), tt.want)
		}
	}
}

func TestFormats(t *testing.T) {
	for text, want := range map[string]string{
		"":                                             "is empty",
		" \n":                                          "is empty",
		"\x1f\x8b\x08xxxx":                             "compressed as a whole",
		"#!/bin/sh\necho PLANTED":                      "a script",
		"Content-Type: multipart/mixed; b=1":           "multi-part",
		"MIME-Version: 1.0":                            "multi-part",
		`{"ignition":{"version":"3.4.0"}}`:             "Ignition",
		"variant: flatcar":                             "Ignition",
		"#include\nhttp://x":                           "#include",
		"#cloud-config-archive\n- x":                   "#cloud-config-archive",
		"runcmd: []":                                   "begins neither",
		"#cloud-config\n- a":                           "not a map",
		"#cloud-config\na: b\n---\nc: d":               "more than one YAML document",
		"#cloud-config\na: [PLANTED":                   "not YAML: line",
		"#cloud-config\na: *PLANTED":                   "not YAML",
		"#cloud-config":                                "not YAML",
		"#cloud-config\n\t" + "PLANTED: 1":             "not YAML",
		"#cloud-config\nruncmd: PLANTED":               "runcmd: it is not a list",
		"#cloud-config\nruncmd: []\nruncmd: 1":         "runcmd: it is given twice",
		"#cloud-config\nx: &a [1]\nruncmd: *a":         "anchors",
		"#cloud-config\n" + strings.Repeat("#", 1<<20): "the most is",
		"#cloud-config\nruncmd: [" + strings.Repeat("a,", 1001) + "]":                  "more than 1000 items",
		"#cloud-config\n? [a]\n: 1":                                                    "a key is not a text",
		"#cloud-config\n<<: {runcmd: [a]}":                                             "merges",
		"#cloud-config\nwrite_files: [{path: /a, content: 'a\\0'}, {path: \"/b\\0\"}]": "write_files[1].path: it has a NUL",
	} {
		_, err := cloudconfig.Parse([]byte(text), meta())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "PLANTED") {
			t.Errorf("%.40q: error %v, want %q", text, err, want)
		}
	}
	if _, err := cloudconfig.Parse([]byte(`{"ignition":{}}`), meta()); !errors.Is(err, cloudconfig.ErrIgnition) {
		t.Errorf("ignition: %v", err)
	}
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func TestFiles(t *testing.T) {
	z := zipped(t, "content")
	for _, tt := range []struct {
		entry string
		want  cloudconfig.File
		err   string
	}{
		{entry: "{path: /a, content: content}"},
		{entry: "{path: /a, content: Y29udGVudA==, encoding: b64}"},
		{entry: `{path: /a, content: "Y29u\ndGVu dA==\n", encoding: Base64}`},
		{entry: "{path: /a, content: !!binary Y29udGVudA==}"},
		{entry: "{path: /a, content: !!binary " + z + ", encoding: gz}"},
		{entry: "{path: /a, content: " + z + ", encoding: gzip+base64}"},
		{entry: "{path: /a, content: " + z + ", encoding: gz+b64}"},
		{entry: "{path: /a, content: content, encoding: text/plain, owner: root}"},
		{entry: "{path: /a b, content: content, owner: ops}", want: cloudconfig.File{Path: "/a b", Owner: "ops", Group: "root", Mode: 0o644}},
		{entry: "{path: /a, content: content, owner: '1000:ops'}", want: cloudconfig.File{Path: "/a", Owner: "1000", Group: "ops", Mode: 0o644}},
		{entry: "{path: /a, content: content, permissions: '0600'}", want: cloudconfig.File{Path: "/a", Owner: "root", Group: "root", Mode: 0o600}},
		{entry: "{path: /a, content: content, permissions: '600'}", want: cloudconfig.File{Path: "/a", Owner: "root", Group: "root", Mode: 0o600}},
		{entry: "{path: /a, content: content, permissions: 0600}", want: cloudconfig.File{Path: "/a", Owner: "root", Group: "root", Mode: 0o600}},
		{entry: "{path: /a, content: content, permissions: 0o4755, append: yes, defer: True}", want: cloudconfig.File{Path: "/a", Owner: "root", Group: "root", Mode: 0o4755, Append: true, Defer: true}},
		{entry: "{path: /a, permissions: 644}", err: "permissions: cloud-init reads this number as decimal"},
		{entry: "{path: /a, permissions: '99'}", err: "permissions: they are not octal"},
		{entry: "{path: /a, permissions: '77777'}", err: "more than 07777"},
		{entry: "{content: PLANTED}", err: "write_files[0].path: it is required"},
		{entry: "{path: a}", err: "path: it is not an absolute path"},
		{entry: "{path: /a/../PLANTED}", err: "path: it is not an absolute path"},
		{entry: `{path: "/a\nPLANTED"}`, err: "path: it is not one line"},
		{entry: "{path: /a, owner: 'a b'}", err: "owner: it is not of the form"},
		{entry: "{path: /a, owner: '-rf:PLANTED'}", err: "owner: it is not of the form"},
		{entry: "{path: /a, encoding: PLANTED}", err: "write_files[0]: encoding: it is none of"},
		{entry: "{path: /a, encoding: b64, content: '*PLANTED'}", err: "it is not base64"},
		{entry: "{path: /a, encoding: gzip, content: PLANTED}", err: "it is not gzip"},
		{entry: "{path: /a, content: [PLANTED]}", err: "content: it is not a text"},
		{entry: "{path: /a, append: PLANTED}", err: "append: it is neither true nor false"},
		{entry: "PLANTED", err: "write_files[0]: it is not a map"},
	} {
		c, err := cloudconfig.Parse([]byte("#cloud-config\nwrite_files:\n- "+tt.entry), meta())
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "PLANTED") {
				t.Errorf("%s: error %v, want %q", tt.entry, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.entry, err)
			continue
		}
		want := tt.want
		if want.Path == "" {
			want = cloudconfig.File{Path: "/a", Owner: "root", Group: "root", Mode: 0o644}
		}
		want.Content = []byte("content")
		if diff := cmp.Diff(want, c.Files[0]); diff != "" {
			t.Errorf("%s:\n%s", tt.entry, diff)
		}
	}
}

// A few bytes may not become gigabytes.
func TestZipBomb(t *testing.T) {
	bomb := zipped(t, strings.Repeat("a", 17<<20))
	_, err := cloudconfig.Parse([]byte("#cloud-config\nwrite_files:\n- {path: /a, encoding: gzip+base64, content: "+bomb+"}"), meta())
	if err == nil || !strings.Contains(err.Error(), "more than 16 MiB") {
		t.Errorf("error %v", err)
	}
	half := zipped(t, strings.Repeat("a", 9<<20))
	entry := "- {path: /a, encoding: gzip+base64, content: " + half + "}\n"
	if _, err := cloudconfig.Parse([]byte("#cloud-config\nwrite_files:\n"+entry+entry), meta()); err == nil {
		t.Error("two halves")
	}
}

func TestEverythingWrongAtOnce(t *testing.T) {
	_, err := cloudconfig.Parse([]byte("#cloud-config\nwrite_files: [{path: a}, {path: /b, owner: ' '}]\nusers: [default, {gecos: x}]\nntp: {servers: ['a b'], pools: ["+strings.Repeat("a", 255)+"]}"), meta())
	want := `bootstrap data: write_files[0].path: it is not an absolute path without "..", "//" and a "/" at its end; ` +
		"write_files[1].owner: it is not of the form user or user:group; " +
		"users[0]: the users that an image has by default can't be asked for: give name and the rest; users[1].name: it is required; " +
		"ntp.servers[0]: it is not a host name or address; ntp.pools[0]: it is not a host name or address"
	if err == nil || err.Error() != want {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}

func TestUnknownKeys(t *testing.T) {
	c := parse(t, "#cloud-config\npackages: [a]\nwrite_files: [{path: /a, source: {uri: x}}]\nusers: [{name: a, uid: 5}]\nntp: {ntp_client: chrony}\n'a key with PLANTED': 1\n")
	if got, want := strings.Join(c.Unknown, ", "), "packages, (a key), write_files[0].source, users[0].uid, ntp.ntp_client"; got != want {
		t.Errorf("unknown %s\nwant %s", got, want)
	}
}

func TestCommands(t *testing.T) {
	c := parse(t, "#cloud-config\nruncmd:\n- echo a && b\n- [echo, 'it''s', 5, '$x']\n- null\n- |\n  two\n  lines\nbootcmd: [[a]]")
	var got []string
	for _, r := range c.RunCmds {
		got = append(got, r.Shell())
	}
	if diff := cmp.Diff([]string{"echo a && b", `'echo' 'it'\''s' '5' '$x'`, "two\nlines\n"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestUsers(t *testing.T) {
	c := parse(t, `#cloud-config
users:
- {name: a, groups: [x, y], sudo: false, lock_passwd: no, passwd: '$6$abc', inactive: true, homedir: /home/b, primary_group: p, ssh_authorized_keys: 'ssh-rsa AAAA'}
- {name: b, groups: 'x,y , z', sudo: ['ALL=(ALL) ALL', 'r2'], inactive: '7', shell: /bin/sh}
`)
	want := []cloudconfig.User{
		{Name: "a", Groups: []string{"x", "y"}, Passwd: "$6$abc", Inactive: 0, Home: "/home/b", PrimaryGroup: "p", Keys: []string{"ssh-rsa AAAA"}},
		{Name: "b", Groups: []string{"x", "y", "z"}, LockPasswd: true, Inactive: 7, Shell: "/bin/sh", Sudo: []string{"ALL=(ALL) ALL", "r2"}},
	}
	if diff := cmp.Diff(want, c.Users); diff != "" {
		t.Error(diff)
	}
	for entry, path := range map[string]string{
		"{name: 'a b'}": "name", "{name: -r}": "name", "{name: a, gecos: 'a:b'}": "gecos", "{name: a, passwd: 'a:b'}": "passwd", `{name: a, passwd: "a\nroot:x"}`: "passwd",
		"{name: a, homedir: x}": "homedir", "{name: a, shell: '/bin/a:b'}": "shell", "{name: a, groups: 'a;b'}": "groups", "{name: a, primary_group: '0 0'}": "primary_group",
		`{name: a, sudo: "ALL\nroot ALL"}`: "sudo", `{name: a, ssh_authorized_keys: ["a\nb"]}`: "ssh_authorized_keys", "{name: a, inactive: x}": "inactive", "{name: a, lock_passwd: 5}": "lock_passwd",
	} {
		_, err := cloudconfig.Parse([]byte("#cloud-config\nusers: ["+entry+"]"), meta())
		if err == nil || !strings.Contains(err.Error(), "users[0]."+path) {
			t.Errorf("%s: %v", entry, err)
		}
	}
}

func TestDisksAndMounts(t *testing.T) {
	c := parse(t, `#cloud-config
disk_setup:
  /dev/sdb: {layout: true, overwrite: true}
  /dev/sdc: {table_type: mbr, layout: [50, [25, 82]]}
  /dev/sdd: {layout: false}
fs_setup:
- {filesystem: xfs, device: /dev/sdb, partition: auto, extra_opts: '-m reflink=0'}
- {filesystem: ext4, device: /dev/disk/by-id/x-1, label: a}
mounts:
- [/dev/sdb1, /srv, xfs, 'noatime', '0', '0']
- ['UUID=abc', /data, null]
`)
	if diff := cmp.Diff(`disk {Device:/dev/sdb GPT:false Partitions:[{Percent:100 Type:83}] Overwrite:true}
disk {Device:/dev/sdc GPT:false Partitions:[{Percent:50 Type:83} {Percent:25 Type:82}] Overwrite:false}
fs {Device:/dev/sdb Partition:auto Type:xfs Label: Overwrite:false Options:[-m reflink=0]}
fs {Device:/dev/disk/by-id/x-1 Partition:none Type:ext4 Label:a Overwrite:false Options:[]}
mount {Device:/dev/sdb1 Path:/srv Type:xfs Options:noatime Dump:0 Pass:0}
mount {Device:UUID=abc Path:/data Type:auto Options:defaults Dump:0 Pass:2}
sentinel false unknown []
`, summary(c)); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		"disk_setup: {ephemeral0: {layout: true}}":                                     "disk_setup.ephemeral0: it is not a device",
		"disk_setup: {/dev/../etc/passwd: {layout: true}}":                             "it is not a device",
		"disk_setup: {/dev/sdb: {table_type: apm}}":                                    "table_type: it is neither",
		"disk_setup: {/dev/sdb: {layout: [60, 60]}}":                                   "more than 100 percent",
		"disk_setup: {/dev/sdb: {layout: [1, 1, 1, 1, 1]}}":                            "at most 4",
		"disk_setup: {/dev/sdb: {layout: [x]}}":                                        "it is not a percentage",
		"disk_setup: {/dev/sdb: {layout: [[5, linux]]}}":                               "it is not a partition type",
		"fs_setup: [{filesystem: ext4, device: ephemeral0.1}]":                         "fs_setup[0].device: it is not a device",
		"fs_setup: [{device: /dev/sdb}]":                                               "filesystem: it is required",
		"fs_setup: [{filesystem: 'ext4 x', device: /dev/sdb}]":                         "it is not a file system",
		"fs_setup: [{filesystem: ext4, device: /dev/sdb, partition: x}]":               "partition: it is none of",
		"fs_setup: [{filesystem: ext4, device: /dev/sdb, extra_opts: ['$(x)']}]":       "it is not an option",
		"fs_setup: [{filesystem: ntfs, device: /dev/sdb, replace_fs: ntfs, label: a}]": "replace_fs: it is a cloud's",
		"mounts: [[/dev/sdb]]":                                                         "mounts[0]: it is not a list of",
		"mounts: [[ephemeral0.1, /mnt]]":                                               "it is not a device, LABEL=",
		"mounts: [[/dev/sdb, none, swap, sw]]":                                         "path: ",
		"mounts: [[/dev/sdb, /a, swap]]":                                               "kubelet wants no swap",
		"mounts: [[/dev/sdb, '/a b']]":                                                 "it is not a line of fstab",
		"mounts: [[/dev/sdb, /a, ext4, 'a b']]":                                        "it is not a line of fstab",
	} {
		if want == "path: " {
			want = "it is not an absolute path"
		}
		_, err := cloudconfig.Parse([]byte("#cloud-config\n"+text), meta())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestDecode(t *testing.T) {
	const text = "#cloud-config\nruncmd: [a]\n"
	for in, want := range map[string]string{
		text: text, "## template: jinja\n" + text: "## template: jinja\n" + text,
		base64.StdEncoding.EncodeToString([]byte(text)): text, "I2Nsb3Vk\n LWNvbmZpZw==\n": "#cloud-config",
	} {
		got, err := cloudconfig.Decode(in)
		if err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := cloudconfig.Decode("runcmd: [PLANTED]"); err == nil || strings.Contains(err.Error(), "PLANTED") {
		t.Errorf("error %v", err)
	}
}

// Nothing of what may be secret is in what people print.
func TestNothingIsShown(t *testing.T) {
	c := parse(t, "#cloud-config\nwrite_files: [{path: /a, content: PLANTED}]\nruncmd: [PLANTED]\nbootcmd: [[PLANTED]]\nusers: [{name: a, passwd: PLANTED}]")
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{c, c.Files, c.RunCmds, c.BootCmds, c.Users} {
			if s := fmt.Sprintf(format, v); strings.Contains(s, "PLANTED") || strings.Contains(s, "80, 76, 65") {
				t.Errorf("%s of %T: %s", format, v, s)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"v1.14.2/worker-disks.yaml", "v0.1.6/worker.yaml"} {
		raw, err := os.ReadFile(filepath.Join("testdata/provider", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("#cloud-config\na: &a [x,x]\nb: &b [*a,*a]\nruncmd: *b"))
	f.Add([]byte("## template: jinja\n#cloud-config\nruncmd: [[a, {{ x }}]]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := cloudconfig.Parse(data, meta())
		if err != nil {
			if len(err.Error()) > 16<<10 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		for _, file := range c.Files {
			if !strings.HasPrefix(file.Path, "/") || strings.Contains(file.Path, "/../") || strings.ContainsAny(file.Path, "\n\x00") || file.Mode > 0o7777 {
				t.Errorf("file %q %o", file.Path, file.Mode)
			}
		}
	})
}
