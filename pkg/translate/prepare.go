package translate

import (
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const prepScript = `hostnamectl set-hostname {{NODE}}; grep -qE '^[^#]*[[:space:]]{{NODE}}([[:space:]]|$)' /etc/hosts || echo '{{IP}} {{NODE}}' >>/etc/hosts
swapoff -a || :; if [ -f /etc/fstab ]; then sed -i.capplunder -E '/^[^#]/ s/^(.*[[:space:]]swap[[:space:]].*)$/#capplunder \1/' /etc/fstab; fi
systemctl list-units --all --type=swap --no-legend --plain | while read -r u _; do case $u in *.swap) systemctl mask -- "$u" >/dev/null 2>&1 || :;; esac; done
if [ -e /usr/lib/systemd/zram-generator.conf ]; then : >/etc/systemd/zram-generator.conf; fi
[ "$(wc -l </proc/swaps)" -le 1 ] || { echo 'capplunder-error swap is still on'; cat /proc/swaps; exit 1; }
printf 'overlay\nbr_netfilter\n' >/etc/modules-load.d/capplunder.conf
for m in overlay br_netfilter; do [ -d /sys/module/$m ] || modprobe $m{{MORE}}; done
printf '%s\n' {{SYSCTLS}} >/etc/sysctl.d/99-capplunder.conf; sysctl -q -p /etc/sysctl.d/99-capplunder.conf`

// moreModules: EL10 keeps br_netfilter in a package of its own.
const moreModules = ` || { Y install "kernel-modules-extra-$(uname -r)" || Y install kernel-modules-extra; modprobe $m; }`

const firewallScript = `for s in ufw firewalld; do systemctl disable --now $s >/dev/null 2>&1 || :; done; if command -v ufw >/dev/null; then ufw disable; fi`

const selinuxScript = `if [ "$(getenforce 2>/dev/null || echo x)" = Enforcing ]; then setenforce 0; fi; if [ -f /etc/selinux/config ]; then sed -i 's/^SELINUX=enforcing$/SELINUX=permissive/' /etc/selinux/config; fi`

// vaultScript: the mirrors of CentOS 7 and 8 are gone, their last packages are in the vault.
const vaultScript = `for f in /etc/yum.repos.d/CentOS-*.repo; do if [ -e "$f" ]; then sed -i -e 's|^mirrorlist=http://mirrorlist.centos.org|#&|' -e 's|^#*baseurl=http://mirror.centos.org|baseurl=http://vault.centos.org|' "$f"; fi; done`

// prepare sets what kubeadm asks of any host: name, swap, kernel modules, settings.
func (b *mapBuilder) prepare(k *Kubernetes, f Facts) {
	sysctls := []string{"net.bridge.bridge-nf-call-iptables = 1", "net.bridge.bridge-nf-call-ip6tables = 1", "net.ipv4.ip_forward = 1"}
	if strings.Contains(k.PodCIDR, ":") { // IPv6
		sysctls = append(sysctls, "net.ipv6.conf.all.forwarding = 1")
	}
	more, limit := "", 2*time.Minute
	if f.rpm() {
		more, limit = moreModules, 10*time.Minute
	}
	b.bash("prep", limit, fill(prepScript, map[string]string{
		"NODE": b.target.HostName, "IP": b.target.Address, "SYSCTLS": quote(strings.Join(sysctls, "\n")), "MORE": more,
	}))
	if k.Firewall != capi.FirewallLeave {
		b.try("prep.firewall", time.Minute, firewallScript)
	}
	if f.rpm() {
		b.bash("prep.selinux", time.Minute, selinuxScript)
	}
}
