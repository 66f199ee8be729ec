package translate

import "github.com/plunder-app/capplunder/pkg/capi"

// eraseBegin needs a POSIX shell, cat, dd, tr, wc, sync, sleep, mkfifo and readlink. It
// looks at all disks and refuses before anything is destroyed, then arms the reset.
// d is a disk, by its size in bytes, ids what it must be known by, s its path in /sys.
const eraseBegin = `die() { echo "capplunder-wipe-refused $*"; exit 3; }; num() { v=0; [ -r "$1" ] && read -r v <"$1"; echo "$v"; }; have() { command -v "$1" >/dev/null 2>&1; }
fail() { echo "capplunder-wipe-error dev=$d $*"; echo stop >$W/go; echo capplunder-wipe-failed; exit 4; }
disk() { IFS=,; set -- $1; unset IFS; d=$1; by=$2; shift 2; ids=$*; n=$(echo "${d#/dev/}" | tr / '!'); s=/sys/block/$n; }
`

// eraseChecks is what every disk has to pass; the checks of the mode follow.
const eraseChecks = `for x in $DISKS; do disk "$x"; [ -b "$d" ] && [ -d "$s" ] || die "dev=$d reason=missing"; v=$(($(num "$s/size")*512)); [ "$v" = "$by" ] || die "dev=$d reason=size want=$by have=$v"
[ "$(num "$s/ro")" = 0 ] || die "dev=$d reason=readonly"; [ "$(num "$s/removable")" = 0 ] || die "dev=$d reason=removable"
case $(readlink -f "$s") in */usb[0-9]*) die "dev=$d reason=usb";; */session[0-9]*|*/rport-*|*/nvme-fabrics/*) die "dev=$d reason=remote";; esac
ident "$s"; for i in $ids; do case ,$wwn,$serial, in *",$i,"*) ;; *) die "dev=$d reason=identity want=$i have=$wwn,$serial";; esac; done
`

// eraseArm: the reset waits in a shell that was started before the wipe, with
// everything it needs already loaded, because after the wipe a new program may not start
// any more. For the same reason every program that is used later is used once before,
// and nothing drops the page cache of the root file system unless there is no other way to
// read from the platters. sysrq u keeps the live file system from writing its superblock back.
//
// z writes zeros and smp reads back, both past the page cache (O_DIRECT) where dd can.
// smp counts the bytes that are zero, so that a program that fails to start never looks
// like success.
const eraseArm = `done
W=; for w in /run /dev/shm /tmp; do [ -d $w ] && [ -w $w ] && W=$w/capplunder && mkdir -p $W && break; done; [ -n "$W" ] && rm -f $W/go && mkfifo $W/go || die "dev=- reason=no-scratch"
S=; have setsid && S=setsid; [ -w /proc/sys/kernel/sysrq ] && echo 1 >/proc/sys/kernel/sysrq
$S sh -c 'trap "" HUP INT TERM; exec 3<>"$0"; sleep 9999999 & p=$!; read -r x <&3; case $x in go) sleep "$1"; echo b >/proc/sysrq-trigger; reboot -f;; esac; kill -9 $p' $W/go "$DELAY" </dev/null >/dev/null 2>&1 &
H=; have sha256sum && H=1; k=0; bad=0; x=$SEED
warm() { for i in 'tr -dc \000' sha256sum; do dd if=/dev/zero bs=65536 count=16 2>/dev/null | $i 2>/dev/null | wc -c; done >/dev/null; }
bs() { B=512; for i in 4096 1048576; do [ $(($1%i+$2%i)) -ne 0 ] || B=$i; done; }
z() { bs $1 $2; dd if=/dev/zero of="$d" bs=$B seek=$(($1/B)) count=$(($2/B)) ${F:+oflag=direct} conv=notrunc,fsync 2>/dev/null || fail "reason=write at=$1"; }
rd() { bs $1 $2; dd if="$d" bs=$B skip=$(($1/B)) count=$(($2/B)) $F 2>/dev/null; }
smp() { c=$(rd $1 $2 | tr -dc '\000' | wc -c); c=$((${c:-0})); g=; [ -z "$H" ] || { g=$(rd $1 $2 | sha256sum); g=" sha256=${g%% *}"; }; [ $c -eq $2 ] || bad=1; k=$((k+1)); echo "capplunder-sample dev=$d at=$1 bytes=$2 zeros=$c$g"; }
read -r boot </proc/sys/kernel/random/boot_id; warm; for i in sync wipefs blockdev; do have $i && $i --version >/dev/null 2>&1; done </dev/null
swapoff -a 2>/dev/null; sync; { echo s >/proc/sysrq-trigger; echo u >/proc/sysrq-trigger; } 2>/dev/null; i=0; while [ $i -lt 20 ] && grep -Eq '^/dev/[^ ]+ [^ ]+ [^ ]+ rw' /proc/mounts; do sleep 1; i=$((i+1)); done
for y in $DISKS; do disk "$y"; ident "$s"; e=$EDGE; h=$HEAD; [ $h -gt $by ] && h=$by; F=iflag=direct; [ "$(rd 0 4096 | wc -c)" -eq 4096 ] || F=; pp=
for p in "$s"/*/start; do [ -e "$p" ] || continue; q=${p%/start}; a=$(($(num "$p")*512)); l=$(($(num "$q/size")*512)); c=$e; [ $c -gt $l ] && c=$l; pp="$pp $a:$c $((a+l-c)):$c"
q=/dev/$(echo "${q##*/}" | tr '!' /); wipefs -a -f "$q"; blockdev --flushbufs "$q"; blockdev --setro "$q"; done >/dev/null 2>&1
`

// eraseProve follows what the mode does. Partitions are written through the whole disk, by
// offset, because a mounted one is busy, and they are read-only by now.
const eraseProve = `for i in $pp; do z ${i%:*} ${i#*:}; done; wipefs -a -f "$d" >/dev/null 2>&1; z 0 $h; z $((by-e)) $e; sync; blockdev --flushbufs "$d" 2>/dev/null || [ "$F" ] || echo 3 >/proc/sys/vm/drop_caches
k=0; smp 0 $h; smp $((by-e)) $e; for i in $pp; do smp ${i%:*} ${i#*:}; done
N=$((by/UNIT)); [ $MODE != quick ] || N=$((h/UNIT+e/UNIT)); t=$COUNT
while [ $t -gt 0 ]; do t=$((t-1)); x=$(((x*1103515245+12345)%2147483648)); i=$((x*N/2147483648)); if [ $MODE = quick ] && [ $i -ge $((h/UNIT)) ]; then i=$((by-e+(i-h/UNIT)*UNIT)); else i=$((i*UNIT)); fi; smp $i $UNIT; done
echo "capplunder-wiped dev=$d bytes=$by mode=$MODE samples=$k read=${F:-cached}"; done
[ $bad = 0 ] || { d=-; fail reason=proof; }; echo go >$W/go; echo "capplunder-wipe-ok delay=$DELAY boot_id=$boot"`

// eraseMode is what a mode asks of a disk before anything is destroyed, and what it does to
// the disk before the quick pass. d, s and n are the disk.
type eraseMode struct{ check, erase string }

// eraseModes: the password of an ATA security erase is a fixed one, so that a drive that
// lost its power half way can be unlocked by hand; it ends with the erasure.
func eraseModes() map[capi.WipeMode]eraseMode {
	return map[capi.WipeMode]eraseMode{
		capi.WipeQuick: {},
		capi.WipeZero: {erase: `o=0; while [ $o -lt $by ]; do l=$((by-o)); [ $l -gt 1073741824 ] && l=1073741824; [ $l -gt 1048576 ] && l=$((l-l%1048576)); z $o $l; [ "$F" ] || { warm; blockdev --flushbufs "$d" 2>/dev/null; }; o=$((o+l)); done
`},
		capi.WipeDiscard: {
			check: `have blkdiscard || die "dev=$d reason=no-tool tool=blkdiscard"; [ "$(num "$s/queue/discard_max_bytes")" -gt 0 ] || die "dev=$d reason=discard-unsupported"; blkdiscard --version >/dev/null 2>&1
`,
			erase: `{ blkdiscard -f "$d" || blkdiscard "$d"; } >/dev/null 2>&1 || fail reason=discard
`,
		},
		capi.WipeSecure: {
			check: `nv() { nvme id-ctrl "$d" 2>/dev/null | while IFS=' :' read -r a b _; do [ "$a" != "$1" ] || echo "$b"; done; }
case $n in nvme*) have nvme || die "dev=$d reason=no-tool tool=nvme"; a=$(nv oacs); b=$(nv fna); [ $((${a:-0}&2)) -ne 0 ] || die "dev=$d reason=secure-unsupported"
set -- /sys/block/"${n%n*}"n*; [ $# -eq 1 ] || [ $((${b:-3}&3)) -eq 0 ] || die "dev=$d reason=secure-shared";;
sd*) have hdparm || die "dev=$d reason=no-tool tool=hdparm"; a=$(hdparm -I "$d" 2>/dev/null | tr -s '\t\n ' ' ; ')
case $a in *Security:*"; supported;"*) ;; *) die "dev=$d reason=secure-unsupported";; esac; case $a in *"; frozen;"*) die "dev=$d reason=frozen";; *"; not enabled; not locked; not frozen;"*) ;; *) die "dev=$d reason=secure-locked";; esac;;
*) die "dev=$d reason=secure-unsupported";; esac
`,
			erase: `case $n in nvme*) f=; nvme format --help 2>&1 | grep -q -e --force && f=--force; nvme format "$d" -s 1 $f >/dev/null 2>&1 || fail reason=secure;;
*) f=; hdparm -I "$d" 2>/dev/null | tr -s '\t ' ' ' | grep -q '^ supported: enhanced erase' && f=-enhanced; hdparm --user-master u --security-set-pass capplunder "$d" >/dev/null 2>&1 || fail reason=secure
hdparm --user-master u --security-erase$f capplunder "$d" >/dev/null 2>&1 || { hdparm --user-master u --security-disable capplunder "$d" >/dev/null 2>&1; fail reason=secure; };; esac
`,
		},
	}
}
