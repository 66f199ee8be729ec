package simulator

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

const kubernetesReady = `set -e; swapoff -a; sed -i '/swap/d' /etc/fstab; printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/k.conf; modprobe overlay; modprobe br_netfilter
echo 'net.ipv4.ip_forward = 1' >/etc/sysctl.d/k.conf; sysctl -q -p /etc/sysctl.d/k.conf; echo 'version = 2' >/etc/containerd/config.toml; systemctl enable --now containerd kubelet
cat >/root/k.yaml <<E
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens: [{token: abcdef.0123456789abcdef}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.34.1
controlPlaneEndpoint: 192.168.1.200:6443
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery: {bootstrapToken: {token: abcdef.0123456789abcdef, apiServerEndpoint: '192.168.1.200:6443', unsafeSkipCAVerification: true}}
E
`

// TestClusterInStateFile: what one machine writes to its cluster is in the copies of the
// others, too, when the rack comes back. On the way there a phase of kubeadm fails, and
// nobody answers under the endpoint.
func TestClusterInStateFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := slow(Config{
			MACs: []string{macA, macB}, StateFile: filepath.Join(dir, "rack.json"),
			Packages: []string{"kubelet=1.34.1", "kubeadm=1.34.1", "kubectl=1.34.1", "containerd.io=2.2.1", "conntrack=1"},
			Faults:   faults(t, "phase:init certs=fail,times=1", "worker/endpoint=refuse,times=3"),
		})
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		a := api{t, s}
		a.post(deployment(macA, "preseed", ipA, "controlplane-ab1cd"))
		a.post(deployment(macB, "preseed", ipB, "worker-x2y3z"))
		a.await(macA, "up", time.Hour)
		a.await(macB, "up", time.Hour)
		if out := s.Host(macA).Run(t.Context(), asRoot(kubernetesReady+"kubeadm init --config /root/k.yaml")); out.Exit != 1 || !strings.Contains(out.Output, "error execution phase certs: simulated: phase:init certs=fail,times=1") {
			t.Fatalf("%+v", out)
		}
		if l := a.run(ipA, command("init", "sudo -n kubeadm init --config /root/k.yaml")); l.State != "Completed" {
			t.Fatalf("%+v", l)
		}
		start := time.Now()
		if out := s.Host(macB).Run(t.Context(), asRoot(kubernetesReady+"kubeadm join --config /root/k.yaml")); out.Exit != 0 || time.Since(start) < 15*time.Second {
			t.Fatalf("after %v: %+v", time.Since(start), out)
		}
		a.run(ipB, command("x", "true")) // so that the rack is written
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
		var nodes []host.NodeState
		s.EachHost(func(mac string, h *host.Host) {
			if c := h.Cluster(); c != nil {
				nodes = c.Nodes
				if mac != macA {
					t.Errorf("%s has a cluster", mac)
				}
			}
		})
		if len(nodes) != 2 || nodes[1].Name != "worker-x2y3z" {
			t.Errorf("nodes %+v", nodes)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func asRoot(script string) host.Command {
	return host.Command{Line: "sudo -n -u root bash -c '" + strings.ReplaceAll(script, "'", `'\''`) + "'", Combined: true}
}
