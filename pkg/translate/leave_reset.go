package translate

import (
	"errors"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// resetLimit is the limit of the reset: kubeadm has five minutes, of which it spends
// three when the cluster does not answer.
const resetLimit = 8 * time.Minute

// resetScript needs a POSIX shell, and more only where there is a kubeadm. Volumes of pods
// are unmounted first, or detached from the tree if they are busy: kubeadm deletes what is
// below /var/lib/kubelet, and old ones do so with volumes that could not be unmounted, which
// may be on another machine.
const (
	resetScript = `export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; L=/var/log/capplunder
stop() { systemctl stop kubelet >/dev/null 2>&1; systemctl disable kubelet >/dev/null 2>&1; ! systemctl is-active --quiet kubelet 2>/dev/null; }
runs() { echo 'capplunder-error kubelet can not be stopped'; exit 1; }
command -v kubeadm >/dev/null 2>&1 || { stop || runs; echo 'capplunder-reset none'; exit 0; }
mkdir -p /run/capplunder $L; if command -v flock >/dev/null 2>&1; then exec 9>/run/capplunder/lock; i=0; until flock -n 9; do i=$((i+1)); [ $i -lt 20 ] || { echo 'capplunder-error another job is still running on this host; if it does not end, restart the machine'; exit 1; }; sleep 5; done; fi
volumes() { while read -r _ m t _; do case $t in tmpfs|overlay) continue;; esac; case $m in /var/lib/kubelet/*) echo "$m";; esac; done </proc/mounts | sort -r; }
if [ -n "$(volumes)" ]; then stop || runs; volumes | while read -r m; do timeout 20 umount "$m" >/dev/null 2>&1 || timeout 20 umount -l "$m" >/dev/null 2>&1; done
v=$(volumes); [ -z "$v" ] || { echo "capplunder-error a volume can not be unmounted, and kubeadm reset might delete what is on it: $(echo "$v" | head -n 1)"; exit 1; }; fi
s=$(sed -n 's/.*--container-runtime-endpoint=\([^" ]*\).*/\1/p' /var/lib/kubelet/kubeadm-flags.env 2>/dev/null | head -n 1)
set -- kubeadm reset -f; [ -z "$s" ] || set -- "$@" "--cri-socket=$s"
timeout 300 "$@" >$L/reset.log 2>&1 9>&-; r=$?; stop || runs
[ $r = 0 ] || { tail -n 20 $L/reset.log; echo "capplunder-error kubeadm reset ended with status $r"; exit 1; }
echo 'capplunder-reset ok'`
)

// ResetMap has a machine forget that it is a node: kubelet is stopped, kubeadm's files are
// deleted, and the member of etcd of a control plane leaves if kubeadm can reach the cluster
// (RemoveMemberMap makes sure). A host without kubeadm is fine.
func ResetMap(job string, t Target) (wire.Map, error) {
	b := newMap(job, t)
	b.sh(taskReset, resetLimit, resetScript)
	return b.done("reset")
}

// ReadReset is nil when nothing of Kubernetes runs on the machine by itself any more.
func ReadReset(l wire.Log, job string) error {
	e, ok, err := leaveEntry(l, taskReset, job)
	switch {
	case err != nil:
		return err
	case !ok:
		return errors.New("the machine was not reset: the job did not get that far")
	}
	if how, _ := said(e, "capplunder-reset "); how == "ok" || how == "none" {
		return nil
	}
	return leaveError(e)
}

// removeMemberScript tries again for a while: a member that has just lost another refuses
// changes for some seconds.
const removeMemberScript = `{{ETCD}}[ -z "$external" ] || { echo 'capplunder-removed none'; exit 0; }
[ -n "$got" ] || { echo "capplunder-error no member of etcd answers on this machine: $(echo "$l" | tail -n 1)"; exit 1; }
wanted() { id=$(echo "$l" | sed -n 's/^\([0-9a-f]\{1,16\}\), [a-z]*, [^,]*, https*:\/\/{{DOTTED}}:[0-9]*,.*/\1/p' | head -n 1); [ -n "$id" ]; }
wanted || { echo 'capplunder-removed none'; exit 0; }
was=$id; for i in 1 2 3 4 5 6; do o=$(ctl $H member remove "$id" 2>&1); if list; then wanted || { echo "capplunder-removed id=$was"; exit 0; }; else o=$l; fi; if [ $i -lt 6 ]; then sleep 5; fi; done
echo "capplunder-error the member of etcd at {{GONE}} could not be removed: $(echo "$o" | grep -v '^command terminated' | tail -n 1)"; exit 1`

// RemoveMemberMap has a control plane other than the one that leaves remove the member of etcd
// whose peer URL has an address (IPv4). That there is none is fine.
func RemoveMemberMap(job string, t Target, address string) (wire.Map, error) {
	b := newMap(job, t)
	b.check(addresses4(address))
	if address == t.Address {
		b.check(errors.New("a member of etcd is removed by another one"))
	}
	b.sh(taskMember, memberLimit, b.leaveScript(removeMemberScript, map[string]string{"SKIP": address, "GONE": address, "DOTTED": strings.ReplaceAll(address, ".", `\.`)}))
	return b.done("remove member")
}

// ReadRemoveMember says whether there was such a member and it is gone; err is that it may
// still be there.
func ReadRemoveMember(l wire.Log, job string) (removed bool, err error) {
	e, ok, err := leaveEntry(l, taskMember, job)
	switch {
	case err != nil:
		return false, err
	case !ok:
		return false, errors.New("the member of etcd was not removed: the job did not get that far")
	}
	switch how, ok := said(e, "capplunder-removed "); {
	case !ok:
		return false, leaveError(e)
	default:
		return how != "none", nil
	}
}
