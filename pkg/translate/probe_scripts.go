package translate

// identityScript gives the shell function ident, which sets wwn and serial of the disk at
// a path of /sys/block, "" for what is not known. What the kernel says comes
// first, then vital product data page 0x80 (SCSI), then udev's database. Only letters,
// digits and ._:+- are kept, spaces become one underscore. The probe and the wipe share it, so
// that both name a disk alike.
const identityScript = `w() { v=$("$@" 2>/dev/null | tr -cd 'A-Za-z0-9._:+ _-' | tr -s ' ' _); v=${v#_}; v=${v%_}; }
e() { w sed -n "s/^E:$1=//p" "$u"; }
udb() { u=; [ -r "$1/dev" ] && read -r u <"$1/dev"; u=/run/udev/data/b$u; }
ident() { udb "$1"
w cat "$1/wwid"; [ "$v" ] || w cat "$1/device/wwid"; [ "$v" ] || e ID_WWN_WITH_EXTENSION; wwn=$v
w cat "$1/serial"; [ "$v" ] || w cat "$1/device/serial"; [ "$v" ] || w dd if="$1/device/vpd_pg80" bs=4 skip=1; [ "$v" ] || e ID_SERIAL_SHORT; serial=$v; }
`

// probeScript prints facts, addresses, boot identity and disks. A disk's flags are
// root (it holds /, through partitions, LVM, md or crypt), mounted, usb, removable,
// ro and remote. With DETAIL=1 in front it also prints mount points, what
// is odd in them as % and three octal digits (of bind mounts only those of file systems' roots, at most 16), and the
// signatures on disks and partitions: as blkid sees them, or a look at the places where they
// are, either as root; else what udev noted. That takes one sudo, and 40 s at most.
const probeScript = `set -u; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C; ID=unknown; [ -r /etc/os-release ] && . /etc/os-release
pm=none; for p in apt-get dnf yum zypper apk; do command -v $p >/dev/null 2>&1 && { pm=$p; break; }; done
cg=1; [ -e /sys/fs/cgroup/cgroup.controllers ] && cg=2; sd=no; [ -d /run/systemd/system ] && sd=yes; b=no; command -v bash >/dev/null 2>&1 && b=yes
echo "capplunder-facts id=$ID like=$(echo "${ID_LIKE:--}" | tr ' ' ,) ver=${VERSION_ID:--} codename=${VERSION_CODENAME:--} arch=$(uname -m) pm=$pm systemd=$sd cgroup=$cg bash=$b kernel=$(uname -r) system=$(uname -s) host=$(uname -n) uid=$(id -u) kubeadm=$(kubeadm version -o short 2>/dev/null || echo -) node=$([ -e /etc/kubernetes/kubelet.conf ] && echo yes || echo no)"
for f in /sys/class/net/*/address; do [ -r "$f" ] && read -r v <"$f" && [ -n "$v" ] && echo "capplunder-mac $v"; done
up=; v=; read -r up v </proc/uptime; read -r v </proc/sys/kernel/random/boot_id; echo "capplunder-boot id=$v uptime=$up"
` + identityScript + `wd() ( if [ -e "$1/partition" ]; then wd "${1%/*}"; exit; fi; n=0; for s in "$1"/slaves/*; do [ -e "$s" ] || continue; n=1; wd "$(readlink -f "$s")"; done; [ "$n" = 1 ] || echo "${1##*/}" )
roots=,; held=,; seen=' '; mt=; while read -r _ _ mm r mp rest; do case $seen in *" $mm="*) ds=${seen#*" $mm="}; ds=${ds%% *};; *)
b=; if [ -e "/sys/dev/block/$mm" ]; then b=$(readlink -f "/sys/dev/block/$mm"); else set -- ${rest##* - }; [ -b "${2:-}" ] && b=$(readlink -f "/sys/class/block/$(basename "$(readlink -f "$2")")"); fi
ds=; [ -z "$b" ] || ds=$(wd "$b" | sort -u | tr '\n' ,); seen="$seen$mm=$ds "; held=$held$ds;; esac
[ "$ds" ] || continue; [ "$mp" = / ] && roots=,$ds; case $r in /|/@*|"$mp") mt="$mt$ds $mp
";; esac; done </proc/self/mountinfo
devs=; for b in /sys/block/*; do n=${b##*/}; case $n in loop*|ram*|zram*|sr*|fd*|dm-*|md*|nbd*|mtd*|zd*|rbd*|drbd*|mmcblk*boot*|mmcblk*rpmb) continue;; esac
[ -r "$b/size" ] || continue; read -r sz <"$b/size"; [ "$sz" -gt 0 ] || continue; [ -e "$b/hidden" ] && read -r v <"$b/hidden" && [ "$v" = 1 ] && continue
f=; read -r v <"$b/removable"; [ "$v" = 0 ] || f=$f,removable; read -r v <"$b/ro"; [ "$v" = 0 ] || f=$f,ro
case $(readlink -f "$b") in */usb[0-9]*) f=$f,usb;; */session[0-9]*|*/rport-*|*/nvme-fabrics/*) f=$f,remote;; esac
case $roots in *",$n,"*) f=$f,root;; esac; case $held in *",$n,"*) f=$f,mounted;; esac
id=-; for k in wwid device/wwid serial device/serial; do [ -r "$b/$k" ] && read -r id <"$b/$k" && [ -n "$id" ] && break; id=-; done
ident "$b"; w cat "$b/device/model"; [ "$v" ] || e ID_MODEL; model=$v; d=/dev/$(echo "$n" | tr '!' /); m=; devs="$devs $b"; for p in "$b"/*/partition; do [ -e "$p" ] && devs="$devs ${p%/*}"; done
[ -z "${DETAIL:-}" ] || m=" mounts=$(printf %s "$mt" | while read -r x y; do case ,$x in *",$n,"*) printf '%s\n' "$y";; esac; done | sed -e 's/%/\\045/g' -e 's/,/\\054/g' -e 's/\\/%/g' -e 16q | tr '\n' ,)"
echo "capplunder-disk dev=$d bytes=$((sz*512)) flags=${f#,} id=$(echo "$id" | tr -s ' ' _) wwn=$wwn serial=$serial model=$model$m"; done
if [ "${DETAIL:-}" ]; then q='r() { dd if="$d" bs=1 skip=$1 count=$2 2>/dev/null | tr "\252\357\374\251" aoNi | tr -cd "A-Za-z0-9+_"; }
for p; do d=/dev/$(echo "${p##*/}" | tr ! /); if o=$(blkid -p -o export "$d" 2>/dev/null); then t=$(echo "$o" | while IFS== read -r k v; do case $k in TYPE|PTTYPE) echo "$v";; esac; done | tr "\n" ,)
elif [ "$(dd if="$d" bs=512 count=1 2>/dev/null | wc -c)" -ne 512 ]; then t="?"; else
t=; for m in 512:8:EFIPART:gpt 82:5:FAT32:vfat 54:4:FAT1:vfat 3:8:mkfsfat:vfat 510:2:Ua:dos 1080:2:So:ext4 0:4:XFSB:xfs 4086:10:SWAPSPACE2:swap 512:8:LABELONE:LVM2_member 4096:4:NN+i:linux_raid_member 0:4:LUKS:crypto_LUKS 65600:8:_BHRfS_M:btrfs; do
a=${m%%:*}; m=${m#*:}; l=${m%%:*}; m=${m#*:}; [ "$(r $a $l)" != "${m%:*}" ] || t=$t${m#*:},; done; fi; echo "capplunder-content dev=$d what=$t"; done'
T=; timeout 1 true 2>/dev/null && T='timeout 40'; S='sudo -n'; [ "$(id -u)" = 0 ] && S=; $S $T sh -c "$q" - $devs 2>/dev/null || for p in $devs; do udb "$p"
if [ -r "$u" ]; then e ID_PART_TABLE_TYPE; o=$v; e ID_FS_TYPE; v=$o,$v; else v='?'; fi; echo "capplunder-content dev=/dev/$(echo "${p##*/}" | tr '!' /) what=$v"; done; fi
echo "capplunder-probe done"`
