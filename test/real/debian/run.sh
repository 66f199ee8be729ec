#!/usr/bin/env bash
# Runs the generated scripts on a real Debian 12, in a folder: docs/testing.md says what
# is proved by it. It needs root, Debian's packages debootstrap and util-linux, and a
# network to Debian's packages.
#
# The host has namespaces of its own for processes, mounts, names and IPC, no capability
# that reaches out of them (no mounts, no modules, no network settings, no clock, no
# devices), a /proc/sys that is read only, a /sys made of plain files, and stand-ins for
# what would talk to systemd or the kernel. It has this machine's network.
#   test/real/debian/run.sh [MIRROR]
set -euo pipefail
cd "$(dirname "$0")/../../.."
mirror=${1:-http://deb.debian.org/debian}
kube=$PWD/.cache/kube

if [ "$(id -u)" -ne 0 ]; then
	echo "error: this needs root, for chroot and namespaces" >&2
	exit 1
fi
for p in debootstrap unshare setpriv; do
	if ! command -v $p >/dev/null; then
		printf 'error: %s is missing\nnext: apt-get install debootstrap util-linux\n' $p >&2
		exit 1
	fi
done
for k in kubeadm-1.30 kubeadm-1.36; do
	if [ ! -x "$kube/$k" ]; then
		printf 'error: %s is missing\nnext: make kube-tools\n' "$kube/$k" >&2
		exit 1
	fi
done

dir=$(mktemp -d)
trap 'rm -rf --one-file-system "$dir"' EXIT
root=$dir/root
echo "== Debian 12 from $mirror"
if ! debootstrap --variant=minbase --include=systemd,sudo,ca-certificates bookworm "$root" "$mirror" >"$dir/log" 2>&1; then
	tail -n 30 "$dir/log" >&2
	exit 1
fi
cp /etc/resolv.conf "$root/etc/resolv.conf"
echo "127.0.0.1 localhost" >"$root/etc/hosts"
mkdir -p "$root/opt/test" "$root/var/log/test"
cp "$kube/kubeadm-1.30" "$kube/kubeadm-1.36" "$root/opt/test/"
CGO_ENABLED=0 go build -trimpath -o "$root/opt/test/debian" ./test/real/debian

stand_in() { # NAME, the script on standard input
	{
		printf '#!/bin/sh\necho "%s $*" >>/var/log/test/calls\n' "$1"
		cat
	} >"$root/usr/local/sbin/$1"
	chmod 755 "$root/usr/local/sbin/$1"
}
stand_in hostnamectl <<'X'
[ "$1" != set-hostname ] || echo "$2" >/etc/hostname
X
stand_in modprobe <<'X'
mkdir -p "/sys/module/$1"
X
for p in sysctl swapoff reboot udevadm; do stand_in $p </dev/null; done
# It starts and stops the real containerd, and nothing else.
stand_in systemctl <<'X'
pid=/run/containerd.pid
alive() { [ -e $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; }
case "$*" in
"restart containerd") if alive; then kill "$(cat $pid)"; while alive; do sleep 0.1; done; fi; rm -f $pid ;;
"start containerd" | "enable --now containerd") ;;
*) exit 0 ;;
esac
alive && exit 0
rm -f /run/containerd/containerd.sock
setsid containerd >/var/log/test/containerd.log 2>&1 </dev/null 9>&- &
echo $! >$pid
X
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no package starts a service
chmod 755 "$root/usr/sbin/policy-rc.d"

mkdir -p "$root/sys/class/net/eth0" "$root/sys/fs/cgroup" "$root/sys/block" "$root/sys/module"
echo 00:50:56:a5:11:20 >"$root/sys/class/net/eth0/address"
echo cpu memory >"$root/sys/fs/cgroup/cgroup.controllers"
printf 'Filename\tType\tSize\tUsed\tPriority\n' >"$dir/swaps"

echo "== the host"
# shellcheck disable=SC2016 # the inner shell's variables
unshare --mount --uts --ipc --pid --fork --kill-child --propagation private bash -euo pipefail -c '
root=$1 swaps=$2
hostname debian
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/systemd/system"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
if [ -e "$root/proc/sysrq-trigger" ]; then mount --bind /dev/null "$root/proc/sysrq-trigger"; fi
mount --bind "$swaps" "$root/proc/swaps"
caps=-all
for c in chown dac_override dac_read_search fowner fsetid kill setgid setuid setfcap net_bind_service sys_chroot audit_write; do caps=$caps,+$c; done
status=0 # no exec: the first process of the host has to take in those that lose their parent
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root http_proxy="${http_proxy-}" \
	chroot "$root" setpriv --bounding-set="$caps" --inh-caps=-all /opt/test/debian || status=$?
exit $status
' host "$root" "$dir/swaps"
