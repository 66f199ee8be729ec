package translate

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const taskErase = "wipe.erase"

var deviceForm = regexp.MustCompile(`^/dev/[a-zA-Z0-9/!_-]{1,64}$`)

// Wipe destroys what makes the disks bootable and readable (the first 16 MiB, the
// last MiB, both ends of every partition, all signatures), reads back that it is
// gone, and only then arms a reset that fires after the order's delay, so that the SSH
// session ends cleanly. It refuses disks that are read-only, removable, on USB, or whose
// size is not the one given.
func Wipe(job string, t Target, o WipeOrder) (wire.Map, error) {
	b := newMap(job, t)
	if len(o.Disks) == 0 {
		return wire.Map{}, errors.New("no disk to wipe")
	}
	if o.Mode != "" && o.Mode != capi.WipeQuick {
		return wire.Map{}, fmt.Errorf("no way to wipe is called %q", o.Mode)
	}
	list := make([]string, len(o.Disks))
	for i, d := range o.Disks {
		b.match("disk", d.Device, deviceForm)
		if d.Bytes <= 0 {
			b.check(fmt.Errorf("disk %s has no size", d.Device))
		}
		list[i] = fmt.Sprintf("%s:%d", d.Device, d.Bytes)
	}
	b.sh(taskErase, o.Limit(), fmt.Sprintf("DISKS=\"%s\" HEAD=16 EDGE=1 DELAY=%d\n%s", strings.Join(list, " "), int(o.Delay/time.Second), eraseScript))
	return b.done("wipe")
}

// ReadWipe gives the disks of an order as they were read back; done is false while the
// log does not say. The proof is the read-back in the log, never the state of the job: a
// reset may cut that short.
func ReadWipe(l wire.Log, job string, o WipeOrder) (disks []capi.WipedDisk, done bool, err error) {
	e, ok := entry(l, TaskName(taskErase, job))
	if !ok {
		return nil, false, nil
	}
	if !strings.Contains(e.Entry, "capplunder-wipe-ok") {
		return nil, true, fmt.Errorf("the wipe was not proved: %s", Explain(e))
	}
	for _, d := range o.Disks {
		want := fmt.Sprintf("capplunder-wiped dev=%s bytes=%d mode=quick head=zero tail=zero parts=zero", d.Device, d.Bytes)
		if !strings.Contains(e.Entry+"\n", want+"\n") {
			return nil, true, fmt.Errorf("the wipe of %s was not proved: %q", d.Device, lastLine(e.Entry))
		}
		disks = append(disks, capi.WipedDisk{Disk: d, Method: capi.WipeQuick})
	}
	return disks, true, nil
}

// eraseScript needs a POSIX shell, dd, tr, wc, sync, sleep, mkfifo and readlink.
// The reset waits in a shell that was started before the wipe, with everything it
// needs already loaded: after the wipe a new program may not start any more.
// Partitions are written through the whole disk, by offset, because a mounted one
// is busy; sysrq u keeps the live file system from writing its superblock back.
const eraseScript = `set -u; export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
die() { echo "capplunder-wipe-refused $*"; exit 3; }; num() { v=0; [ -r "$1" ] && read -r v <"$1"; echo "$v"; }; z() { dd if=/dev/zero of="$1" bs=512 seek="$2" count="$3" conv=notrunc 2>/dev/null; }
nz() { t=$(dd if="$1" bs=512 skip="$2" count="$3" 2>/dev/null | wc -c); [ "$t" -eq $(($3*512)) ] || { echo short; return; }; t=$(dd if="$1" bs=512 skip="$2" count="$3" 2>/dev/null | tr -d '\000' | wc -c); [ "$t" -eq 0 ] && echo zero || echo dirty; }
for x in $DISKS; do d=${x%:*}; want=${x##*:}; n=$(echo "${d#/dev/}" | tr / '!'); s=/sys/block/$n; [ -b "$d" ] && [ -d "$s" ] || die "dev=$d reason=missing"; have=$(($(num "$s/size")*512)); [ "$have" = "$want" ] || die "dev=$d reason=size want=$want have=$have"
[ "$(num "$s/ro")" = 0 ] || die "dev=$d reason=readonly"; [ "$(num "$s/removable")" = 0 ] || die "dev=$d reason=removable"
case $(readlink -f "$s") in */usb[0-9]*) die "dev=$d reason=usb";; */session[0-9]*|*/rport-*|*/nvme-fabrics/*) die "dev=$d reason=remote";; esac; done
W=; for w in /run /dev/shm /tmp; do [ -d $w ] && [ -w $w ] && W=$w/capplunder && mkdir -p $W && break; done; [ -n "$W" ] && rm -f $W/go && mkfifo $W/go || die "dev=- reason=no-scratch"
S=; command -v setsid >/dev/null 2>&1 && S=setsid; [ -w /proc/sys/kernel/sysrq ] && echo 1 >/proc/sys/kernel/sysrq
$S sh -c 'trap "" HUP INT TERM; exec 3<>"$0"; sleep 86400 & p=$!; read -r x <&3; case $x in go) sleep "$1"; echo b >/proc/sysrq-trigger; reboot -f;; esac; kill -9 $p' $W/go "$DELAY" </dev/null >/dev/null 2>&1 &
read -r boot </proc/sys/kernel/random/boot_id; dd if=/dev/zero bs=512 count=1 2>/dev/null | tr -d '\000' | wc -c >/dev/null; for t in sync wipefs sgdisk blockdev; do command -v $t >/dev/null 2>&1 && $t --version >/dev/null 2>&1; done </dev/null
swapoff -a 2>/dev/null; sync; { echo s >/proc/sysrq-trigger; echo u >/proc/sysrq-trigger; } 2>/dev/null; i=0; while [ $i -lt 20 ] && grep -Eq '^/dev/[^ ]+ [^ ]+ [^ ]+ rw' /proc/mounts; do sleep 1; i=$((i+1)); done; bad=0
for x in $DISKS; do d=${x%:*}; by=${x##*:}; n=$(echo "${d#/dev/}" | tr / '!'); s=/sys/block/$n; tot=$((by/512)); e=$((EDGE*2048)); h=$((HEAD*2048)); [ $h -gt $tot ] && h=$tot; [ $e -gt $tot ] && e=$tot
pp=; for p in "$s"/*/start; do [ -e "$p" ] || continue; q=${p%/start}; a=$(num "$p"); l=$(num "$q/size"); k=$e; [ $k -gt $l ] && k=$l; pp="$pp $a:$k $((a+l-k)):$k"; wipefs -a -f "/dev/${q##*/}" >/dev/null 2>&1; z "$d" $a $k; z "$d" $((a+l-k)) $k; done
sgdisk --zap-all "$d" >/dev/null 2>&1; wipefs -a -f "$d" >/dev/null 2>&1; z "$d" 0 $h; z "$d" $((tot-e)) $e; sync; blockdev --flushbufs "$d" 2>/dev/null
r1=$(nz "$d" 0 $h); r2=$(nz "$d" $((tot-e)) $e); r3=zero; for y in $pp; do [ "$(nz "$d" ${y%:*} ${y#*:})" = zero ] || r3=dirty; done; case $r1$r2$r3 in zerozerozero) ;; *) bad=1;; esac
echo "capplunder-wiped dev=$d bytes=$by mode=quick head=$r1 tail=$r2 parts=$r3"; done
[ $bad = 0 ] || { echo stop >$W/go; echo capplunder-wipe-failed; exit 4; }; echo go >$W/go; echo "capplunder-wipe-ok delay=$DELAY boot_id=$boot"`
