package host

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newTestHost(t *testing.T, change ...func(*Config)) *Host {
	t.Helper()
	cfg := Config{MAC: "52:54:00:00:00:01", Address: "10.0.0.11", HostName: "node-1", Seed: 1}
	for _, f := range change {
		f(&cfg)
	}
	h := New(cfg)
	t.Cleanup(h.Close)
	return h
}

// run runs a script as root and fails the test if it does not end by itself.
func run(t *testing.T, h *Host, script string) Result {
	t.Helper()
	r := h.Run(t.Context(), Command{Line: "sudo -n -u root bash -c " + quote(script), Combined: true})
	if r.Err != nil {
		t.Fatalf("%s: %v", script, r.Err)
	}
	return r
}

func TestShell(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"pipe", `printf 'b\na\nb\n' | sort | uniq -c | wc -l`, "2"},
		{"substitution", `x=$(uname -n); echo "<$x>"`, "<node-1>"},
		{"here document", "cat >/tmp/x <<'E'\n$HOME\nE\ncat /tmp/x", "$HOME"},
		{"exit status", `false || echo failed; (exit 3); echo $?`, "failed\n3"},
		{"while read", `printf '1 a\n2 b\n' | while read -r n w; do echo "$w$n"; done`, "a1\nb2"},
		{"glob", `cd /sys/class/net; echo *`, "eth0 lo"},
		{"mac", `cat /sys/class/net/*/address`, "52:54:00:00:00:01\n00:00:00:00:00:00"},
		{"umask in a subshell", `(umask 077; echo x >/tmp/a); echo y >/tmp/b; stat -c %a /tmp/a /tmp/b`, "600\n644"},
		{"redirect both", `{ echo out; echo err >&2; } >/tmp/o 2>&1; cat /tmp/o`, "out\nerr"},
		{"extra descriptor", `mkfifo /tmp/f; exec 3<>/tmp/f; echo go >/tmp/f; read -r x <&3; echo "got $x"`, "got go"},
		{"background and wait", `for i in 3 1 2; do (sleep $i; echo $i) & done; wait; echo done`, "1\n2\n3\ndone"},
		{"timeout", `timeout 2 sleep 100; echo $?`, "124"},
		{"source", `. /etc/os-release; echo $ID $VERSION_CODENAME`, "ubuntu noble"},
		{"command -v", `command -v dd; command -v kubeadm || echo none`, "/usr/bin/dd\nnone"},
		{"not found", `frobnicate; echo $?`, "bash: line 1: frobnicate: command not found\n127"},
		{"script file", `printf '#!/bin/sh\necho "$1-$#"\n' >/tmp/s; chmod +x /tmp/s; /tmp/s a b`, "a-2"},
		{"trap", `trap 'echo bye' EXIT; trap "" HUP INT TERM; echo hi`, "hi\nbye"},
		{"errexit", `set -e; false; echo never`, ""},
		{"sudo changes the user", `id -un; sudo -n -u ubuntu id -un; echo $HOME`, "root\nubuntu\n/root"},
		{"sed in place", `printf 'a swap b\nc\n' >/tmp/t; sed -i.bak -E '/^[^#]/ s/^(.*[[:space:]]swap[[:space:]].*)$/#x \1/' /tmp/t; cat /tmp/t /tmp/t.bak`, "#x a swap b\nc\na swap b\nc"},
		{"grep", `printf 'v1.2.3 x\nno\n' | grep -oE '[0-9]+\.[0-9]+\.[0-9]+'`, "1.2.3"},
		{"tr -s", `printf 'a  b\n\nc' | tr -s ' \n' | tr ' a-c' _A-C; echo; printf 'x y\n z' | wc; printf 'xy' | wc -c`, "A_B\nC\n1 3 6\n2"},
		{"tr and wc", `head -c 1000 /dev/zero | tr -d '\000' | wc -c`, "0"},
		{"base64", `printf hello | base64 | base64 -d`, "hello"},
		{"sort -V", `printf '1.10\n1.9\n' | sort -V | head -n 1`, "1.9"},
		{"readlink", `readlink -f /sys/class/block/sda2 >/tmp/r; cat /tmp/r`, "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2"},
		{"eval is rewritten too", `eval 'exec 4>/tmp/e; echo x >&4'; cat /tmp/e`, "x"},
		{"arithmetic", `read -r sz </sys/block/sda/size; echo $((sz*512))`, "480103981056"},
		{"continue in a case in a loop", `for i in 1 2 3; do case $i in 2) if true; then echo skip; continue; fi; echo no;; *) echo $i;; esac; done; echo end`, "1\nskip\n3\nend"},
		{"continue 2", `for i in 1 2; do for j in a b; do if [ $j = b ]; then { continue 2; }; echo no; fi; echo $i$j; done; echo never; done; echo end`, "1a\n2a\nend"},
		{"break of an inner loop", `for i in 1 2; do if true; then for j in a b; do if true; then break; echo no; fi; done; echo $i; fi; done`, "1\n2"},
		{"break behind and", `set -eu; i=0; while :; do i=$((i+1)); if [ $i -gt 2 ]; then true && break; echo no; fi; echo $i; done`, "1\n2"},
		{"continue in eval", `eval 'for i in 1 2; do if :; then continue; echo no; fi; done'; echo ok`, "ok"},
		{"xargs", `printf 'a b\0c\0' | xargs -0 -n1 echo; printf '1\n2 3\n' | xargs -I{} echo '<{}>'; : | xargs -r false; echo $?; seq 4 | xargs -n 2; printf '/etc/none\0' | xargs -0 ls 2>/dev/null; echo $?`, "a b\nc\n<1>\n<2 3>\n0\n1 2\n3 4\n123"},
		{"install -D", `install -D -m 600 /etc/hostname /srv/a/b; cat /srv/a/b`, "node-1"},
		{"sed ranges", `printf 'a\n# begin\nb\n# end\nc\n' | sed '/^# begin$/,/^# end$/d'; seq 6 | sed -n '2,3p;$p'; seq 3 | sed '2i x'; seq 3 | sed '2,+1c y'`, "a\nc\n2\n3\n6\n1\nx\n2\n3\n1\ny"},
		{"a dollar within a pattern", `printf 'a$6$b\n' | grep -c '^a$6$b$'`, "1"},
		{"swap", `wc -l </proc/swaps; swapoff -a; wc -l </proc/swaps`, "2\n1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // some sleep
				if got := run(t, newTestHost(t), tt.script).Output; got != tt.want {
					t.Errorf("%s\n got: %q\nwant: %q", tt.script, got, tt.want)
				}
			})
		})
	}
}

func TestSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{MAC: "52:54:00:00:00:01", Address: "10.0.0.11", HostName: "node-1", Seed: 1})
		defer h.Close()
		start := time.Now()
		r := h.Run(t.Context(), Command{Line: `sleep 60 | cat; x=$(sleep 30; echo y); (sleep 10) & wait; echo $x`, Combined: true})
		if r.Output != "y" || r.Err != nil {
			t.Errorf("got %+v", r)
		}
		if d := time.Since(start); d != 100*time.Second {
			t.Errorf("it took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if r := h.Run(ctx, Command{Line: "sleep 1000"}); r.Err == nil || !strings.Contains(r.Err.Error(), "deadline") {
			t.Errorf("got %+v", r)
		}
	})
}
