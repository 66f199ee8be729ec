package translate

// The scripts that carry bootstrap data out. They are the same whatever the data says:
// that is in the files that they read.

// ciBeginScript decides, before any secret is on the host. A host that is done, by its
// note or by the provider's sentinel, has nothing more to do. One on which kubeadm began
// and did not end is left alone: data may hold a kubeadm reset, and nobody here knows
// whether what came up is the only control plane there is.
const ciBeginScript = `rm -rf $R/ci; mkdir -m 700 $R/ci
if [ -e $E/bootstrap.done ]; then if [ "$(cat $E/bootstrap.done)" = {{DIGEST}} ]; then : >$R/ci/over; echo 'capplunder-bootstrap already'; exit 0; fi
echo 'capplunder-error other bootstrap data has made this host a node; delete the machine, which wipes it, and apply again'; exit 1; fi
if [ -e {{SENTINEL}} ]; then : >$R/ci/over; echo 'capplunder-bootstrap already'; exit 0; fi
for f in /etc/kubernetes/kubelet.conf /etc/kubernetes/admin.conf /etc/kubernetes/manifests/kube-apiserver.yaml /var/lib/etcd/member; do if [ -e $f ]; then
echo "capplunder-error kubeadm has begun on this host and was never seen to end ($f already exists); nothing was changed. Delete the machine and apply again, which installs it anew; or finish it by hand, create {{SENTINEL}} and apply again"; exit 1; fi; done
echo 'capplunder-bootstrap begins'`

// ciStepScript begins every step: nothing to do on a host that is done, and no secrets
// stay on one where a step failed.
const ciStepScript = `if [ -e $R/ci/over ]; then exit 0; fi; trap '[ $? = 0 ] || rm -rf $R/ci $R/hook-after' EXIT; cd /
`

const ciBootScript = `l=$L/bootcmd.log; (umask 077; : >$l); timeout 600 sh $R/ci/boot.sh </dev/null >>$l 2>&1 9>&- || :; tail -n 40 $l | mask; rm -f $R/ci/boot.sh`

const ciFilesScript = `d=$R/ci/{{WHEN}}; if [ -e $d/owners ]; then while read -r db n; do getent "$db" "$n" >/dev/null || { echo "capplunder-error a file of the bootstrap data belongs to $n, whom $db does not know"; exit 1; }; done <$d/owners; fi
if [ -e $d/files.tar.gz ]; then tar -xpzf $d/files.tar.gz -C /; if command -v restorecon >/dev/null; then tr '\n' '\0' <$d/paths | xargs -0 restorecon -F >/dev/null 2>&1 || :; fi; rm -rf $d; fi
`

// A file that ends with what is to be appended has it: this may run again.
const ciAppendScript = `if [ -e $R/ci/appended ]; then while read -r n m o p; do f=$R/ci/append/$n; if [ ! -e $f ]; then f=/dev/null; fi; mkdir -p "$(dirname "$p")"; touch "$p"; if ! tail -c "$(wc -c <$f)" "$p" | cmp -s - $f; then cat $f >>"$p"; fi; chown "$o" "$p"; chmod "$m" "$p"; done <$R/ci/appended; fi
`

// Disks that have anything on them are left alone unless the data says overwrite, and
// those with a mounted file system always. It happens once: a second time would take
// what was written since.
const ciDisksScript = `if [ -e $E/bootstrap.disks ]; then echo 'capplunder-disks already'; exit 0; fi
die() { echo "capplunder-error $*"; exit 1; }
used() { [ -b "$1" ] || die "$1 is not a block device"; s=$(wipefs -n "$1") || die "$1 can't be read"; [ -n "$s" ]; }
free() { m=$(lsblk -nro MOUNTPOINT "$1") || die "$1 can't be read"; [ -z "$(echo "$m" | tr -d ' \n')" ] || die "$1 holds a mounted file system"; }
part() { case $1 in /dev/disk/*) echo "$1-part$2";; *[0-9]) echo "$1p$2";; *) echo "$1$2";; esac; }
taken() { used "$1" && [ "$2" = no ] && echo "capplunder-disks $1 has something on it: left as it is"; }
disk() { d=$1; t=$2; o=$3; shift 3; if taken "$d" "$o"; then return 0; fi; free "$d"; wipefs -a "$d" >/dev/null; n=$(blockdev --getsz "$d")
{ echo "label: $t"; for p in "$@"; do if [ "${p%%:*}" = - ]; then echo "type=${p#*:}"; else echo "size=$((n*${p%%:*}/100 & ~2047)), type=${p#*:}"; fi; done; } | sfdisk -q "$d"; udevadm settle || :; echo "capplunder-disks $d is partitioned"; }
spare() { for c in $(lsblk -nrpo NAME,TYPE "$1" | sed -n 's/ part$//p'); do if [ "$2" != - ] && [ "$(blkid -o value -s LABEL "$c" || :)" = "$2" ]; then return 0; fi; done
for c in $(lsblk -nrpo NAME,TYPE "$1" | sed -n 's/ part$//p'); do if ! used "$c"; then echo "$c"; return 0; fi; done; }
fs() { d=$1; t=$2; o=$3; p=$4; l=$5; shift 5; case $p in none) ;; auto) d=$(spare "$d" "$l");; *) d=$(part "$d" "$p");; esac
if [ -z "$d" ]; then echo "capplunder-disks no partition is free for a file system of type $t"; return 0; fi; if taken "$d" "$o"; then return 0; fi; free "$d"; wipefs -a "$d" >/dev/null
if [ "$l" != - ]; then case $t in vfat) set -- "$@" -n "$l";; *) set -- "$@" -L "$l";; esac; fi; case $t in ext*) set -- -F "$@";; esac; "mkfs.$t" "$@" "$d" </dev/null >/dev/null; echo "capplunder-disks $d has $t"; }
while read -r what d a o rest; do "$what" "$d" "$a" "$o" $rest; done <$R/ci/disks; touch $E/bootstrap.disks`

const ciMountsScript = `sed -i '/,comment=capplunder /d' /etc/fstab; cat $R/ci/mounts >>/etc/fstab; systemctl daemon-reload
while read -r d p _; do mkdir -p "$p"; if ! grep -qF " $p " /proc/mounts; then mount "$p" || { echo "capplunder-error $d can't be mounted on $p"; exit 1; }; fi; done <$R/ci/mounts`

const ciUsersScript = `sh $R/ci/users.sh; rm -f $R/ci/users.sh
if [ -e $R/ci/sudoers ]; then visudo -cf $R/ci/sudoers >/dev/null || { echo 'capplunder-error visudo refuses the sudo rules of the bootstrap data'; exit 1; }; install -m 440 -o root -g root $R/ci/sudoers /etc/sudoers.d/90-capplunder; fi; echo 'capplunder-users ok'`

// ciUserFunctions begin the script of the users. $E/bootstrap.users remembers whom it made.
const ciUserFunctions = `set -eu; made=/etc/kubernetes/capplunder/bootstrap.users
group() { getent group "$1" >/dev/null || groupadd "$1"; }
user() { n=$1; shift; getent passwd "$n" >/dev/null || { echo "$n" >>$made; useradd -m "$@" "$n"; }; }
ours() { [ -e $made ] && grep -qxF "$1" $made; }
key() { h=$(getent passwd "$1" | cut -d: -f6); g=$(id -g "$1"); f=$h/.ssh/authorized_keys; [ -d "$h/.ssh" ] || install -d -m 700 -o "$1" -g "$g" "$h/.ssh"; touch "$f"; grep -qxF -e "$2" "$f" || printf '%s\n' "$2" >>"$f"; chown "$1:$g" "$f"; chmod 600 "$f"; if command -v restorecon >/dev/null; then restorecon -RF "$h/.ssh" >/dev/null 2>&1 || :; fi; }
`

const ciNTPScript = `if [ -s $R/ci/ntp ]; then if command -v chronyd >/dev/null; then c=/etc/chrony.conf; [ -e $c ] || c=/etc/chrony/chrony.conf; sed -i '/^# capplunder begin$/,/^# capplunder end$/d' $c; { echo '# capplunder begin'; sed 's/$/ iburst/' $R/ci/ntp; echo '# capplunder end'; } >>$c; systemctl restart chronyd || systemctl restart chrony
else mkdir -p /etc/systemd/timesyncd.conf.d; printf '[Time]\nNTP=%s\n' "$(cut -d' ' -f2 $R/ci/ntp | tr '\n' ' ')" >/etc/systemd/timesyncd.conf.d/capplunder.conf; systemctl restart systemd-timesyncd; fi
fi; echo 'capplunder-ntp ok'`

// Commands may fail as they like: what counts is whether the host became a node, and if
// it did, that is noted at once, for the sentinel is gone after a reboot. The log holds
// join tokens, which kubeadm prints, until they are masked in it.
const ciRunScript = `l=$L/bootstrap.log; (umask 077; : >$l); s=0; timeout 3300 sh $R/ci/run.sh </dev/null >>$l 2>&1 9>&- || s=$?; rm -f $R/ci/run.sh
if {{VERDICT}}; then echo {{DIGEST}} >$E/bootstrap.new; mv $E/bootstrap.new $E/bootstrap.done; sync; fi
(umask 077; mask <$l >$l.new); mv $l.new $l; grep '^capplunder-runcmd ' $l || :; tail -n 60 $l; if [ $s = 124 ]; then echo 'capplunder-error the commands of the bootstrap data took more than 55 minutes'; fi; echo "capplunder-bootstrap ran"`

const ciCheckScript = `if [ -e $R/ci/over ]; then w=already; else w=ok; fi; rm -rf $R/ci
if [ $w = ok ] && ! { {{VERDICT}}; }; then rm -f $R/hook-after; echo 'capplunder-error the bootstrap data ran and did not make this host a node'; exit 1; fi
if [ ! -e $E/bootstrap.done ]; then echo {{DIGEST}} >$E/bootstrap.new; mv $E/bootstrap.new $E/bootstrap.done; sync; fi
rm -f /tmp/kubeadm*.yaml /run/kubeadm/kubeadm*.yaml; echo "capplunder-bootstrap $w"`
