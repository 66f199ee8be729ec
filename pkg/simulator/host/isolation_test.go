package host

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestIsolation has scripts try to get at the machine that runs the test: its
// files, programs, environment, users and network.
func TestIsolation(t *testing.T) {
	dir := t.TempDir()
	const secret = "the-real-machine"
	canary := filepath.Join(dir, "canary")
	for name, content := range map[string]string{
		"file": secret + "\n", secret: "", "script": "echo " + secret + "\n", "program": "#!/bin/sh\necho " + secret + "\ntouch " + canary + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CAPPLUNDER_CANARY", secret)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	connected := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connected <- struct{}{}
			_ = c.Close()
		}
	}()
	addr := strings.Replace(l.Addr().String(), ":", "/", 1)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	realHome := filepath.Join(home, ".capplunder-isolation-test")

	h := newTestHost(t)
	for _, script := range []string{
		`cat D/file`, `cat <D/file`, `x=$(<D/file); echo "$x"`, `read -r x <D/file; echo "$x"`, `mapfile -t x <D/file; echo "${x[@]}"`,
		`dd if=D/file`, `head -c 100 D/file`, `tail D/file`, `sed p D/file`, `grep . D/file`, `tar -xf D/file`, `base64 D/file`, `cp D/file /tmp/x; cat /tmp/x`,
		`exec 3<>D/file; read -r x <&3; echo "$x"`, `exec 0<D/file; cat`, `cat /proc/self/root/D/file`, `cat /../../D/file`, `cd /proc/self/cwd; cat file`,
		`. D/script`, `source D/script`, `bash D/script`, `sh D/script`, `eval "$(cat D/script)"`, `bash <D/script`, `sudo -n -u root bash D/script`,
		`D/program`, `PATH=D; program`, `PATH=D:$PATH program`, `env PATH=D program`, `exec D/program`, `command D/program`, `builtin . D/script`, `command . D/script`,
		`(D/program)`, `D/program &`, `D/program & wait`, `x=$(D/program); echo $x`, "x=`D/program`; echo $x", `D/program | cat`, `timeout 5 D/program`, `setsid D/program`,
		`nohup D/program`, `xargs D/program </dev/null`, `trap D/program EXIT`, `f() { D/program; }; f`, `echo D/program | bash`, `bash -c 'exec D/program'`,
		`/bin/touch D/canary`, `/usr/bin/env touch D/canary`, `/bin/sh -c 'touch D/canary'`, `/bin/busybox touch D/canary`, `python3 -c 'open("D/canary","w")'`,
		`echo x >D/canary`, `echo x >>D/canary`, `echo x >|D/canary`, `echo x &>D/canary`, `: >D/canary &`, `touch D/canary`, `mkdir -p D; touch D/canary`, `tee D/canary </dev/null`,
		`dd if=/dev/zero of=D/canary bs=1 count=1`, `mkfifo D/canary`, `exec 3>D/canary`, `exec 1>D/canary`, `install -m 644 /etc/hosts D/canary`, `ln -s /etc D/canary`, `mktemp -p D canary.XXX`,
		`cat <(cat D/file)`, `echo x > >(cat >D/canary)`, `eval 'cat <(cat D/file)'`, `trap 'cat <(cat D/file)' EXIT`, `bash -c 'cat <(cat D/file)'`,
		`curl file://D/file`, `curl -o D/canary https://pkgs.k8s.io/core:/stable:/v1.34/deb/Release.key`, `curl -fsSL http://T/ -x http://T`, `http_proxy=http://T/ curl http://mirror.example/k.gpg`,
		`visudo -c -f D/file`, `visudo -cf D/script`, `gpg --dearmor -o D/canary <D/file`, `rpm --import D/file`, `mkfs.ext4 D/canary`, `mkfs.ext4 -F D/file`, `sfdisk D/canary </dev/null`, `wipefs -a D/file`,
		`mount D/file /mnt; cat /mnt/*`, `mount -o bind D/ /mnt; cat /mnt/file`, `useradd -m -d D/canary joe`, `chpasswd <D/file`, `blkid D/file`, `sed -i s/a/b/ D/canary`, `sed w D/canary </etc/hosts`,
		`systemctl enable D/program; systemctl start program`, `printf '[Service]\nExecStart=D/program\n' >/etc/systemd/system/x.service; systemctl restart x`, `apt-get -y install D/program`, `mkdir -p D; useradd -m -d D/canary joe; ls D`,
		`for f in D/file; do case $f in *) cat "$f"; continue;; esac; done`, `echo D/*`, `cd D && ls`, `ls D`, `ls -a D`, `for f in D/*; do cat "$f"; done`, `echo D/f?le D/[f]ile | grep -v '[?[]'`,
		`[ -e D/file ] && echo the-real-machine`, `test -f D/file && echo the-real-machine`, `[[ -r D/file ]] && echo the-real-machine`, `[ -x D/program ] && echo the-real-machine`,
		`[ -O D/file ] && echo the-real-machine`, `[[ -O D/file ]] && echo the-real-machine`, `[[ -N D/file ]] && echo the-real-machine`, `[ D/file -nt D/none ] && echo the-real-machine`,
		`command -v D/program && echo the-real-machine`, `PATH=D command -v program && echo the-real-machine`, `PATH=D; type program && echo the-real-machine`, `PATH=D; hash program; program`,
		`echo "$CAPPLUNDER_CANARY"`, `env`, `export -p`, `set`, `bash -c 'echo $CAPPLUNDER_CANARY'`, `echo ~`, `echo >~/.capplunder-isolation-test`, `echo >H/.capplunder-isolation-test`,
		`cat /proc/self/environ`, `cat /proc/$$/environ`, `cat /proc/1/environ`, `kill -9 $$`, `kill -9 $PPID`, `kill -TERM 1`,
		`exec 3<>/dev/tcp/T`, `: </dev/tcp/T`, `echo x >/dev/tcp/T`, `cat </dev/tcp/T`, `echo x >/dev/udp/T`, `timeout 1 bash -c ': </dev/tcp/T'`, `curl http://T`, `exec 3<>/dev/tcp/localhost/1`,
		`cd D; pwd -P`, `pushd D; cat file`, `cat /nonexistent/capplunder-simulator/sh-interp-1`, `echo x >/nonexistent/capplunder-simulator/sh-interp-1`, `TMPDIR=D; cat <(echo)`,
		`enable -f D/program x`, `coproc D/program`, `compgen -f D/`, `echo ${x:-$(D/program)}`, `echo $(( $(cat D/file) ))`, `cat <<<"$(D/program)"`, `time D/program`, `select x in a; do D/program; done </dev/null`,
	} {
		script = strings.NewReplacer("D/", dir+"/", "=D", "="+dir, " D;", " "+dir+";", " D ", " "+dir+" ", "H/", home+"/", "//T", "//"+l.Addr().String(), "/T", "/"+addr).Replace(script)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		for _, line := range []string{script, "sudo -n -u root bash -c " + quote(script)} {
			r := h.Run(ctx, Command{Line: line, Combined: true})
			out := strings.ReplaceAll(r.Output, "echo "+secret, "") // some print the script itself
			if strings.Contains(out, secret) && !strings.Contains(script, "isolation") {
				t.Errorf("%s\nreached the real machine: %s", line, r.Output)
			}
			for _, p := range []string{canary, realHome} {
				if _, err := os.Lstat(p); err == nil {
					t.Fatalf("%s\nwrote to the real machine: %s", line, p)
				}
			}
		}
		cancel()
	}
	select {
	case <-connected:
		t.Error("a script connected to a real port")
	case <-time.After(50 * time.Millisecond):
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("files in the real directory: %v, %v", entries, err)
	}
}

// TestEndless: no script keeps a session longer than its context.
func TestEndless(t *testing.T) {
	h := newTestHost(t)
	for _, script := range []string{
		`while :; do :; done`, `for ((;;)); do :; done`, `f() { while true; do echo x; done; }; f | cat >/dev/null`, `sleep 1000`, `sleep 1000 & wait`, `(sleep 1000)`,
		`cat /dev/zero >/dev/null`, `dd if=/dev/zero of=/dev/null`, `mkfifo /tmp/f$RANDOM; mkfifo /tmp/p; exec 3<>/tmp/p; read -r x <&3`, `: </dev/tcp/10.9.9.9/22`, `reboot`, `seq 1 1000000000 | wc -l`,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		r := h.Run(ctx, Command{Line: "sudo -n -u root bash -c " + quote(script), Combined: true})
		cancel()
		if r.Err == nil || time.Since(start) > 20*time.Second {
			t.Errorf("%s: %+v after %v", script, r, time.Since(start))
		}
		if !h.Up() {
			h.Reboot()
		}
	}
}
