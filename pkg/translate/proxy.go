package translate

import (
	"slices"
	"strings"
)

const (
	proxyEnv    = "/etc/kubernetes/capplunder/proxy.env"
	proxyDropIn = "capplunder-proxy.conf"
)

// proxied reports whether the machine reaches others through a proxy.
func (k *Kubernetes) proxied() bool {
	return k.Proxy != nil && k.Proxy.HTTP+k.Proxy.HTTPS != ""
}

// proxyFiles are the proxies of a machine, in a form that systemd and a shell read
// alike, and what makes the container runtime read them. They may hold a password, so
// they are in no command and in no unit, which everybody may read.
func (b *mapBuilder) proxyFiles(k *Kubernetes) []file {
	if !k.proxied() {
		return nil
	}
	var env strings.Builder
	for _, v := range []struct{ name, value string }{
		{"HTTP_PROXY", k.Proxy.HTTP}, {"HTTPS_PROXY", k.Proxy.HTTPS}, {"NO_PROXY", strings.Join(k.noProxy(b.target.Address), ",")},
	} {
		if v.value == "" {
			continue
		}
		// Programs do not agree on the case.
		for _, name := range []string{v.name, strings.ToLower(v.name)} {
			env.WriteString(name + "=" + quote(v.value) + "\n")
		}
	}
	return []file{
		{proxyEnv, 0o600, env.String()},
		{proxyUnit(k), 0o644, "[Service]\nEnvironmentFile=" + proxyEnv + "\n"},
	}
}

// proxyUnit is what adds the proxies to the container runtime's unit.
func proxyUnit(k *Kubernetes) string {
	unit := "containerd"
	if k.docker() {
		unit = "docker"
	}
	return "/etc/systemd/system/" + unit + ".service.d/" + proxyDropIn
}

// noProxy is what is reached directly: the machine itself, its cluster, and what the
// user says.
func (k *Kubernetes) noProxy(address string) []string {
	list := []string{"localhost", "127.0.0.1", "::1", address, k.Endpoint.Host}
	list = append(list, strings.Split(k.PodCIDR+","+k.ServiceCIDR, ",")...)
	list = append(list, ".svc", "."+k.Domain)
	list = append(list, k.Proxy.NoProxy...)
	seen := map[string]bool{"": true, ".": true}
	return slices.DeleteFunc(list, func(s string) bool {
		again := seen[s]
		seen[s] = true
		return again
	})
}

// proxySum is a script that makes $R/proxy.sum, which differs when the proxies do: the
// runtime is restarted then.
func proxySum(k *Kubernetes) string {
	if k.proxied() {
		return "sha256sum <$E/proxy.env >$R/proxy.sum; "
	}
	return "rm -f $E/proxy.env " + proxyUnit(k) + "; : >$R/proxy.sum; "
}
