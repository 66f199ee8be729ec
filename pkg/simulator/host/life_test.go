package host

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHost(t)
		id := h.BootID()
		run(t, h, `echo x >/tmp/x; echo y >/etc/y; mkdir -p /run/z; swapoff -a; modprobe br_netfilter`)
		time.Sleep(time.Hour)
		if got := run(t, h, `cut -d' ' -f1 /proc/uptime`).Output; got != "3600.00" {
			t.Errorf("uptime %q", got)
		}
		h.Reboot()
		if h.BootID() == id || !h.Up() {
			t.Error("a reboot must give a new boot id")
		}
		got := run(t, h, `cat /proc/sys/kernel/random/boot_id /etc/y; ls /tmp; ls /run; wc -l </proc/swaps; [ -d /sys/module/br_netfilter ] || echo no module; cut -d' ' -f1 /proc/uptime`).Output
		if want := h.BootID() + "\ny\nsystemd\nudev\n2\nno module\n0.00"; got != want {
			t.Errorf("after the reboot\n got %q\nwant %q", got, want)
		}
		if New(Config{MAC: "52:54:00:00:00:01", Seed: 1}).BootID() != id {
			t.Error("the same seed and MAC must give the same boot id")
		}
		if New(Config{MAC: "52:54:00:00:00:02", Seed: 1}).BootID() == id {
			t.Error("another MAC must give another boot id")
		}
	})
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, script := range map[string]string{
			"sysrq":        `echo b >/proc/sysrq-trigger; sleep 5; echo still here`,
			"reboot":       `reboot -f; echo still here`,
			"systemctl":    `systemctl reboot; echo still here`,
			"in a timeout": `timeout 10 reboot -f; echo still here`,
		} {
			h := newTestHost(t)
			resets := 0
			h.OnReset(func() { resets++ })
			r := h.Run(t.Context(), Command{Line: "sudo -n -u root bash -c " + quote(script), Combined: true})
			synctest.Wait()
			if !errors.Is(r.Err, ErrDown) || h.Up() || resets != 1 || strings.Contains(r.Output, "still") {
				t.Errorf("%s: %+v, up %v, %d resets", name, r, h.Up(), resets)
			}
			if r := h.Run(t.Context(), Command{Line: "true"}); !errors.Is(r.Err, ErrDown) {
				t.Errorf("%s: a host that is down must not answer: %+v", name, r)
			}
		}
		h := newTestHost(t)
		if r := h.Run(t.Context(), Command{Line: "echo b >/proc/sysrq-trigger; reboot -f; echo still here", Combined: true}); !strings.Contains(r.Output, "still here") || !h.Up() {
			t.Errorf("an ordinary user must not reset the host: %+v", r)
		}
	})
}

func TestDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHost(t)
		start := time.Now()
		run(t, h, `setsid sh -c 'sleep 60; echo done >/etc/detached' </dev/null >/dev/null 2>&1 &`)
		run(t, h, `(sleep 60; echo done >/etc/background) >/dev/null 2>&1 &`)
		if d := time.Since(start); d != 0 {
			t.Errorf("the session lasted %v", d)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if got := run(t, h, `ls /etc/detached /etc/background`).Output; !strings.HasPrefix(got, "/etc/detached") || !strings.Contains(got, "background': No such file") {
			t.Errorf("only what setsid started outlives its session: %q", got)
		}
		run(t, h, `setsid sleep 10000 &`)
		h.Close() // ends it: a goroutine that is left over fails the test
	})
}

func TestDownDuringCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHost(t)
		go func() {
			time.Sleep(time.Minute)
			h.Reboot()
		}()
		if r := h.Run(t.Context(), Command{Line: "sleep 1000; echo still here", Combined: true}); !errors.Is(r.Err, ErrDown) || r.Output != "" {
			t.Errorf("got %+v", r)
		}
		synctest.Wait() // until it is up again
		if r := h.Run(t.Context(), Command{Line: "echo again"}); r.Output != "again" {
			t.Errorf("got %+v", r)
		}
	})
}

// TestSnapshot stops a host in the middle of everything and goes on with a copy.
func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWorld()
		h := newTestHost(t, func(c *Config) { c.World, c.KubernetesTime = w, time.Minute })
		kubernetesUp(t, h)
		run(t, h, `rm /etc/hosts; ln -s /etc/hostname /etc/link; umask 077; echo secret >/etc/secret; chown ubuntu:ubuntu /etc/secret; dd if=/etc/hostname of=/dev/sda seek=1000000 2>/dev/null`)
		time.Sleep(time.Hour)
		s := h.Snapshot()
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 64<<10 {
			t.Errorf("a snapshot of %d bytes is too large for a rack of them", len(b))
		}
		h.Close()
		var back Snapshot
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		w2 := NewWorld()
		h2 := Restore(back, w2)
		defer h2.Close()
		if w2.At("10.0.0.11") != h2 || w.At("10.0.0.11") != nil {
			t.Error("the copy must answer in its own rack, and the original no more")
		}
		if h2.BootID() != h.BootID() {
			t.Error("the copy is in the same boot")
		}
		check := `cut -d' ' -f1 /proc/uptime; cat /etc/link; ls /etc/hosts; stat -c '%a %U' /etc/secret; dd if=/dev/sda skip=1000000 count=1 2>/dev/null | tr -d '\000'; wc -l </proc/swaps; kubeadm version -o short; systemctl is-active containerd kubelet; kubectl --kubeconfig=/etc/kubernetes/admin.conf get nodes --no-headers -o custom-columns=N:.metadata.name,V:.status.nodeInfo.kubeletVersion,P:.spec.providerID; ls /run/containerd`
		want := "3660.00\nnode-1\nls: cannot access '/etc/hosts': No such file or directory\n600 ubuntu\nnode-1\n1\nv1.34.1\nactive\nactive\nnode-1   v1.34.1   <none>\ncontainerd.sock"
		if got := run(t, h2, check).Output; got != want {
			t.Errorf("\n got %q\nwant %q", got, want)
		}
		if n := h2.Nodes(); !slices.Equal(n, []string{"node-1"}) {
			t.Errorf("nodes %q", n)
		}
		again, err := json.Marshal(Restore(back, NewWorld()).Snapshot())
		if err != nil || string(again) != string(b) {
			t.Error("a snapshot of a restored host must be the same")
		}
		h2.Reboot()
		if h2.Nodes() == nil {
			t.Error("a control plane comes up again after a reboot")
		}
	})
}

// kubernetesUp installs a control plane by hand.
func kubernetesUp(t *testing.T, h *Host) {
	t.Helper()
	r := run(t, h, `set -e; swapoff -a; sed -i '/swap/d' /etc/fstab; modprobe overlay; modprobe br_netfilter; sysctl -q -w net.ipv4.ip_forward=1
apt-get update; apt-get -y install curl conntrack
curl -fsSL https://download.docker.com/linux/ubuntu/gpg | gpg --dearmor -o /etc/apt/keyrings/docker.gpg
curl -fsSL https://pkgs.k8s.io/core:/stable:/v1.34/deb/Release.key | gpg --dearmor -o /etc/apt/keyrings/kubernetes.gpg
echo 'deb [signed-by=/etc/apt/keyrings/docker.gpg] https://download.docker.com/linux/ubuntu noble stable' >/etc/apt/sources.list.d/docker.list
echo 'deb [signed-by=/etc/apt/keyrings/kubernetes.gpg] https://pkgs.k8s.io/core:/stable:/v1.34/deb/ /' >/etc/apt/sources.list.d/kubernetes.list
apt-get update; apt-get -y install containerd.io kubelet=1.34.1-* kubeadm=1.34.1-* kubectl=1.34.1-*
echo 'version = 2' >/etc/containerd/config.toml; systemctl restart containerd
cat >/tmp/k.yaml <<'E'
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: abcdef.0123456789abcdef, ttl: 30m0s}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.34.1
E
kubeadm init --config /tmp/k.yaml`)
	if r.Exit != 0 {
		t.Fatalf("status %d:\n%s", r.Exit, r.Output)
	}
}

func TestKubeadmRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHost(t)
		kubernetesUp(t, h)
		for _, tt := range []struct{ script, want string }{
			{`kubeadm init --config /tmp/k.yaml`, "kube-apiserver.yaml already exists"},
			{`sed -i 's/v1beta4/v1beta2/' /tmp/k.yaml; kubeadm init --config /tmp/k.yaml`, "does not know"},
			{`kubeadm reset -f; sed -i 's/v1beta2/v1beta4/; s/v1.34.1/v1.99.0/' /tmp/k.yaml; kubeadm init --config /tmp/k.yaml`, "only supports deploying clusters with"},
			{`sed -i 's/v1.99.0/v1.34.1/' /tmp/k.yaml; echo 'wrongField: 1' >>/tmp/k.yaml; kubeadm init --config /tmp/k.yaml`, "unknown field"},
			{`sed -i '/wrongField/d' /tmp/k.yaml; echo '/swap none swap sw 0 0' >>/etc/fstab; swapon -a; kubeadm init --config /tmp/k.yaml`, "[ERROR Swap]"},
			{`swapoff -a; systemctl stop containerd; rm -f /run/containerd/containerd.sock; kubeadm init --config /tmp/k.yaml`, "[ERROR CRI]"},
			{`systemctl start containerd; sysctl -q -w net.ipv4.ip_forward=0; kubeadm init --config /tmp/k.yaml`, "ip_forward"},
			{`sysctl -q -w net.ipv4.ip_forward=1; sudo -n -u ubuntu kubeadm init --config /tmp/k.yaml`, "not running as root"},
			{`apt-get -y install kubeadm=1.34.99-*; echo status $?`, "status 100"},
			{`apt-get -y install frobnicate; echo status $?`, "Unable to locate package frobnicate\nstatus 100"},
			{`apt-mark hold kubeadm >/dev/null; apt-get -y install kubeadm=1.34.2-*`, "Held packages were changed"},
			{`echo 'deb https://apt.kubernetes.io/ kubernetes-xenial main' >/etc/apt/sources.list.d/old.list; apt-get update`, "does not have a Release file"},
			{`echo 'deb [signed-by=/none] https://pkgs.k8s.io/core:/stable:/v1.33/deb/ /' >/etc/apt/sources.list.d/old.list; apt-get update`, "is not signed"},
			{`kubectl --kubeconfig=/etc/kubernetes/admin.conf get nodes`, "no such file"},
		} {
			r := run(t, h, tt.script)
			if !strings.Contains(r.Output, tt.want) {
				t.Errorf("%s\n got: %s\nwant: %s", tt.script, r.Output, tt.want)
			}
		}
		if r := run(t, h, `kubeadm init --config /tmp/k.yaml`); r.Exit != 0 {
			t.Errorf("after all that it must work: %s", r.Output)
		}
	})
}

// Two jobs that lock the same file take turns, and a lock ends with its shell.
func TestFlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTestHost(t)
		const script = `exec 9>/run/lock; flock -w 30 9 || { echo busy; exit 1; }; sleep 20; echo done`
		done := make(chan string, 3)
		start := time.Now()
		for range 3 {
			go func() {
				done <- h.Run(context.Background(), Command{Line: "sudo -n -u root bash -c " + quote(script), Combined: true}).Output //nolint:usetesting // outlives nothing
			}()
		}
		got := []string{<-done, <-done, <-done}
		slices.Sort(got)
		if want := []string{"busy", "done", "done"}; !slices.Equal(got, want) || time.Since(start) != 40*time.Second {
			t.Errorf("got %q after %v", got, time.Since(start))
		}
	})
}
