package host

import (
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// staticPod is what is read of a manifest of a static pod.
type staticPod struct {
	Kind string `json:"kind"`
	Spec struct {
		Containers []struct {
			Image string `json:"image"`
			Env   []struct {
				Name  string `json:"name"`
				Value string `json:"value"`
			} `json:"env"`
		} `json:"containers"`
		HostNetwork bool         `json:"hostNetwork"`
		Volumes     []hostVolume `json:"volumes"`
	} `json:"spec"`
}

type hostVolume struct {
	HostPath struct {
		Path string `json:"path"`
	} `json:"hostPath"`
}

// virtualAddress reports whether the host has a kube-vip for an address among its
// static pods, and whether that works: it needs a network card that is there, and a
// kubeconfig whose user may take part in the election of a leader. The user of
// admin.conf may not before kubeadm init (1.29 and newer) has given it its role.
func (h *Host) virtualAddress(address string, c *cluster) (have, works bool) {
	for _, f := range h.list("/etc/kubernetes/manifests") {
		b, err := h.fs.readFile(who{}, f)
		if err != nil || !strings.HasSuffix(f, ".yaml") || strings.HasPrefix(f[strings.LastIndexByte(f, '/')+1:], ".") {
			continue
		}
		var p staticPod
		if yaml.Unmarshal(b, &p) != nil || p.Kind != "Pod" {
			continue
		}
		for _, ct := range p.Spec.Containers {
			if !strings.Contains(ct.Image, "kube-vip") {
				continue
			}
			env := map[string]string{}
			for _, e := range ct.Env {
				env[e.Name] = e.Value
			}
			held := env["address"]
			if held == "" {
				held = env["vip_address"]
			}
			if held != address {
				continue
			}
			have = true
			nic := env["vip_interface"]
			conf := slices.IndexFunc(p.Spec.Volumes, func(v hostVolume) bool { return strings.HasSuffix(v.HostPath.Path, ".conf") })
			if conf < 0 || !p.Spec.HostNetwork || nic != "" && !h.fs.exists("/sys/class/net/"+nic) {
				continue
			}
			text, err := h.fs.readFile(who{}, p.Spec.Volumes[conf].HostPath.Path)
			if err != nil {
				continue
			}
			if user, err := parseKubeconfig(text); err == nil && user.admit(c) == "" {
				works = true
			}
		}
	}
	return have, works
}
