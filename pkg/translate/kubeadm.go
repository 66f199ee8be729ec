package translate

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// What holds secrets lies in /run/capplunder, which is in memory, and is removed by the
// action that reads it, whatever comes of that.
const (
	taskImages = "kube.images"
	taskInit   = "init"
	taskCNI    = "cni"
	taskJoin   = "join"

	kubeadmConfig = "/run/capplunder/kubeadm.yaml"
	joinConfig    = "/run/capplunder/join.yaml"
	certKeyFile   = "/run/capplunder/certkey"
	pkiDir        = "/run/capplunder/pki"
	cniManifest   = "/run/capplunder/cni.yaml"

	// later is what the actions after a failed one would have read and removed.
	later = "$R/cni.yaml $R/hook-" + hookAfter
)

// imagesScript pulls ahead of kubeadm init, which gives up sooner.
const imagesScript = `trap '[ $? = 0 ] || rm -rf {{SECRETS}} {{LATER}}' EXIT; if [ -e $E/init.done ]; then echo 'capplunder-init already'; else try 3 kubeadm config images pull --config $R/kubeadm.yaml; fi`

// initScript initialises a control plane, once. What tells it what happened before:
//
//   - init.done is there and on disk before anybody is told that init ended well;
//   - kubeadm's log shows whether the API server was ever reached, and whether kubeadm
//     said that it was through;
//   - init.started, on disk before kubeadm begins, says that what is on the host is ours,
//     and which tokens kubeadm was given: none of them is to stay.
//
// A control plane that was ever reached is never reset and never initialised again: if
// it answers, the rest of kubeadm's phases are run, which may run again; if it does not,
// nothing is touched. Only what failed or was cut off before that is cleared away.
const initScript = `K="kubectl --kubeconfig={{CONF}} --request-timeout=20s"; trap '[ $? = 0 ] || rm -rf {{LATER}}; rm -rf {{SECRETS}}' EXIT
{{VIP}}up() { $K --server=https://{{IP}}:6443 get --raw /healthz >/dev/null; }
through() { grep -q 'initialized successfully' $L/init.log 2>/dev/null; }
reached() { through || grep -qE '^\[(apiclient\] All control plane|api-check\] The API server is healthy|control-plane-check\] kube-apiserver is healthy|upload-?config|upload-certs|mark-?control-?plane|bootstrap-?token|addons)' $L/init.log 2>/dev/null; }
untouched() { echo 'capplunder-error initialised before but the API does not answer; not touching it: see journalctl -u kubelet on the machine'; exit 1; }
last() { tail -n 80 $L/init.log | mask; }
todo=init; c=/etc/kubernetes
if [ -e $E/init.done ] || through; then try 12 up || untouched; todo=
elif [ -e $c/manifests/kube-apiserver.yaml ] || [ -e $c/kubelet.conf ] || [ -e /var/lib/etcd/member ]; then
if [ ! -e $E/init.started ]; then echo 'capplunder-error there is a Kubernetes on this host that capplunder did not make; not touching it'; exit 1; fi
if [ -e $c/admin.conf ] && try 6 up; then todo=rest
elif reached || [ ! -e $L/init.log ]; then untouched
else timeout 300 kubeadm reset -f {{CRI}} >$L/reset.log 2>&1 || :; fi; fi
if [ -n "$todo" ]; then echo bootstrap-token-{{TOKEN}} >>$E/init.started; sync; fi
case $todo in
init) if [ -d $R/pki ]; then mkdir -p $c/pki; cp -pR $R/pki/. $c/pki/; fi; vip {{INITCONF}}
if ! timeout 1500 kubeadm init --config $R/kubeadm.yaml {{FLAGS}} >$L/init.log 2>&1; then last; exit 1; fi;;
rest) echo 'an earlier kubeadm init was cut off: the rest of it follows'
if ! timeout 900 kubeadm init --config $R/kubeadm.yaml --skip-phases=preflight,certs,kubeconfig,etcd,control-plane,kubelet-start,wait-control-plane {{FLAGS}} >>$L/init.log 2>&1; then last; exit 1; fi;;
esac
touch $E/init.done; sync; vip {{CONF}}; t=$(sort -u $E/init.started) || :; try 3 $K delete secret -n kube-system $t --ignore-not-found >/dev/null || :
if [ -z "$todo" ]; then echo 'capplunder-init already'; else { grep -E '^\[' $L/init.log || :; } | mask | tail -n 40; echo 'capplunder-init ok'; fi; ca`

// cniScript applies a network add-on. Big definitions do not fit into the annotation of
// a client-side apply.
const cniScript = `K="kubectl --kubeconfig={{CONF}}"; trap '[ $? = 0 ] || rm -rf {{LATER}}; rm -f $R/cni.yaml' EXIT
{{GET}}try 12 $K apply {{SSA}}-f $R/cni.yaml; echo 'capplunder-cni ok'`

// joinScript makes the host a node, once. What an earlier try left is cleared away
// first: kubeadm join does not run over it. A worker that was a node for a moment is
// waited for until the cluster has seen that it is gone, because kubeadm refuses the
// name of a Node that is ready. A control plane takes its etcd member back while it is
// reset, so that is done only while the cluster answers, and if it fails the script
// says so instead of adding another member.
const joinScript = `trap '[ $? = 0 ] || rm -rf {{LATER}}; rm -rf {{SECRETS}}' EXIT; c=/etc/kubernetes
{{VIP}}joined() { [ -e $c/kubelet.conf ] && { [ -e $E/join.done ] || grep -q 'This node has joined the cluster' $L/join.log 2>/dev/null; }; }
if joined; then touch $E/join.done; sync; vip {{CONF}}; echo 'capplunder-join already'; exit 0; fi
if [ -e $c/kubelet.conf ] || [ -e $c/bootstrap-kubelet.conf ] || [ -e $c/manifests/kube-apiserver.yaml ] || [ -e $c/pki/ca.crt ]; then
if [ ! -e $E/join.started ]; then echo 'capplunder-error this host belongs to a cluster that capplunder did not join it to; not touching it'; exit 1; fi
{{CLEAR}}fi
rm -f $E/join.done; touch $E/join.started; sync; if [ -d $R/pki ]; then mkdir -p $c/pki; cp -pR $R/pki/. $c/pki/; fi
if ! timeout 900 kubeadm join --config $R/join.yaml {{FLAGS}} >$L/join.log 2>&1; then tail -n 80 $L/join.log | mask; exit 1; fi
touch $E/join.done; sync; vip {{CONF}}; echo 'capplunder-join ok'`

const (
	clearWorker = `n=; if [ -e $c/kubelet.conf ]; then n=1; fi; timeout 300 kubeadm reset -f {{CRI}} >$L/reset.log 2>&1 || :; if [ -n "$n" ]; then sleep 60; fi
`
	clearControlPlane = `K="kubectl --kubeconfig=$R/admin.conf --request-timeout=20s"; if [ -e {{CONF}} ]; then (umask 077; cp {{CONF}} $R/admin.conf); fi
m=; if [ -e $c/manifests/etcd.yaml ] || [ -e /var/lib/etcd/member ]; then m=1; try 6 $K get --raw /healthz >/dev/null || { echo 'capplunder-error a join was cut off on this host and the cluster does not answer; its etcd may count on this host, so it is left as it is'; exit 1; }; fi
timeout 300 kubeadm reset -f {{CRI}} >$L/reset.log 2>&1 || :; if [ -e $R/admin.conf ]; then $K delete node {{NODE}} --ignore-not-found || :; fi
if [ -n "$m" ] && grep -qiE 'failed to remove etcd member|unable to fetch the kubeadm-config' $L/reset.log; then echo 'capplunder-error the etcd member of an earlier try is still in the cluster: remove it with etcdctl member remove on another control plane'; exit 1; fi
`
)

// Init runs kubeadm init on a host that Packages has prepared, then applies the network
// add-on and runs the user's hook. It never touches a control plane that once came up,
// and may run again.
func Init(job string, t Target, k *Kubernetes, f Facts, in InitInput) (wire.Map, error) {
	if err := k.refuse(f); err != nil {
		return wire.Map{}, err
	}
	b := newInstallMap(job, t, k)
	b.checkOptions(k)
	files := []file{{kubeadmConfig, 0o600, b.initDocuments(k, in)}}
	files = append(files, b.pkiFiles(in.PKI)...)
	files = append(files, b.vipFile(k)...)
	if k.CNI.Given() && k.CNI.URL == "" {
		files = append(files, file{cniManifest, 0o600, k.CNI.Manifest})
	}
	if k.Hooks != nil {
		files = append(files, hookFile(hookAfter, k.Hooks.After)...)
	}
	flags := []string{"--skip-token-print"}
	if k.Minor > 13 {
		flags = append(flags, "--skip-certificate-key-print")
	}
	if in.CertKey != "" {
		if k.uploadFlag() == "" {
			b.check(fmt.Errorf("v%s has no way to hand the keys of a control plane on: set pki: tool", k.Version))
		}
		flags = append(flags, k.uploadFlag())
		if len(in.PKI) > 0 {
			b.check(errors.New("the cluster's keys are given: they are not handed on by kubeadm, too"))
		}
	}
	if key, flag := b.certKeyFlag(k, in.CertKey); flag != "" {
		files, flags = append(files, key), append(flags, flag)
	}
	b.bundle(files...)
	initConf := adminConf
	if k.Minor >= superAdminMinor {
		initConf = superAdminConf
	}
	values := b.kubeadmValues(k)
	values["FLAGS"] = strings.Join(append(flags, k.ignored()...), " ")
	values["INITCONF"] = initConf
	values["TOKEN"] = in.Token.ID // nobody joins with it: every join gets one of its own
	values["SECRETS"] = "$R/kubeadm.yaml $R/certkey $R/pki $R/kube-vip.yaml"
	b.bash(taskImages, 30*time.Minute, fill(imagesScript, values))
	b.bash(taskInit, 40*time.Minute, fill(initScript, values))
	if k.CNI.Given() {
		b.bash(taskCNI, 10*time.Minute, b.cni(k))
	}
	if k.Hooks != nil && k.Hooks.After != "" {
		b.hook(hookAfter)
	}
	return b.done("init")
}

// ReadInit gives "sha256:<hex>" of the new cluster's CA key, which is public.
func ReadInit(l wire.Log, job string) (caHash string, err error) { return readCA(l, taskInit, job) }

// Join runs kubeadm join on a host that Packages has prepared, then the user's hook. It
// may run again, with other secrets.
func Join(job string, t Target, k *Kubernetes, f Facts, in JoinInput) (wire.Map, error) {
	if err := k.refuse(f); err != nil {
		return wire.Map{}, err
	}
	b := newInstallMap(job, t, k)
	b.checkOptions(k)
	text, files := b.joinDocuments(k, in)
	files = append(files, file{joinConfig, 0o600, text})
	var flags []string
	clearing := clearWorker
	if k.ControlPlane {
		clearing = clearControlPlane
		files = append(files, b.pkiFiles(in.PKI)...)
		files = append(files, b.vipFile(k)...)
		if key, flag := b.certKeyFlag(k, in.CertKey); flag != "" {
			files, flags = append(files, key), append(flags, flag)
		}
		if (in.CertKey == "") == (len(in.PKI) == 0) {
			b.check(errors.New("a control plane machine joins with a certificate key or with the cluster's keys, one of the two"))
		}
	}
	if k.Hooks != nil {
		files = append(files, hookFile(hookAfter, k.Hooks.After)...)
	}
	b.bundle(files...)
	values := b.kubeadmValues(k)
	values["FLAGS"] = strings.Join(append(flags, k.ignored()...), " ")
	values["SECRETS"] = "$R/join.yaml $R/certkey $R/pki $R/kube-vip.yaml $R/admin.conf"
	values["CLEAR"] = fill(clearing, values)
	b.bash(taskJoin, 30*time.Minute, fill(joinScript, values))
	if k.Hooks != nil && k.Hooks.After != "" {
		b.hook(hookAfter)
	}
	return b.done("join")
}

// certKeyFlag is the certificate key for a kubeadm that takes it as an argument only
// (1.14): the file that a bundle brings, and the argument that reads it.
func (b *mapBuilder) certKeyFlag(k *Kubernetes, key Secret) (f file, flag string) {
	if key == "" || !k.keyByFlag() {
		return file{}, ""
	}
	return file{certKeyFile, 0o600, key.Reveal()}, `--certificate-key "$(cat $R/certkey)"`
}

// checkOptions checks what becomes part of configurations and scripts.
func (b *mapBuilder) checkOptions(k *Kubernetes) {
	for _, p := range k.optionProblems() {
		b.check(p)
	}
}

// kubeadmValues are the values of this file's scripts.
func (b *mapBuilder) kubeadmValues(k *Kubernetes) map[string]string {
	v := map[string]string{"CONF": adminConf, "IP": b.target.Address, "NODE": b.target.HostName, "CARD": vipInterface, "LATER": later, "CRI": "", "VIP": "vip() { :; }\n"}
	if s := k.criSocket(); s != "" {
		v["CRI"] = "--cri-socket=" + s // needed where there are two runtimes
	}
	if k.VIP != nil && k.ControlPlane {
		v["VIP"] = fill(vipScript, v)
	}
	return v
}

// ignored are the preflight errors that are none.
func (k *Kubernetes) ignored() []string {
	if k.allowsCgroupV1() {
		return []string{"--ignore-preflight-errors=SystemVerification"}
	}
	return nil
}

// cni is the script that applies the network add-on.
func (b *mapBuilder) cni(k *Kubernetes) string {
	values := map[string]string{"CONF": adminConf, "LATER": later, "GET": "", "SSA": ""}
	if k.Minor >= 22 {
		values["SSA"] = "--server-side --force-conflicts "
	}
	if k.CNI.URL != "" {
		get := "get -o $R/cni.yaml " + quote(k.CNI.URL) + "\n"
		if k.CNI.SHA256 != "" {
			get += `[ "$(sha256sum <$R/cni.yaml | cut -d' ' -f1)" = ` + quote(k.CNI.SHA256) + ` ] || { echo 'capplunder-error the network add-on is not the one that cni.sha256 names'; exit 1; }` + "\n"
		}
		values["GET"] = get
	}
	return fill(cniScript, values)
}

// pkiFiles are the cluster's own keys for a bundle, under pkiDir as kubeadm looks for
// them under /etc/kubernetes/pki. kubeadm would make what is missing, another one on
// each control plane; so nothing may be.
func (b *mapBuilder) pkiFiles(p capi.PKI) []file {
	if len(p) == 0 {
		return nil
	}
	var files []file
	for _, f := range []struct{ id, cert, key string }{
		{capi.PKICluster, "ca.crt", "ca.key"},
		{capi.PKIEtcd, "etcd/ca.crt", "etcd/ca.key"},
		{capi.PKIFrontProxy, "front-proxy-ca.crt", "front-proxy-ca.key"},
		{capi.PKIServiceAccount, "sa.pub", "sa.key"},
	} {
		pair := p[f.id]
		if len(pair.Cert) == 0 || len(pair.Key) == 0 {
			b.check(fmt.Errorf("the cluster's keys are incomplete: %s is missing", f.id))
		}
		files = append(files, file{path.Join(pkiDir, f.cert), 0o644, string(pair.Cert)}, file{path.Join(pkiDir, f.key), 0o600, string(pair.Key)})
	}
	return files
}

// readCA reads the CA certificate that an action printed and gives the hash of its
// public key, as kubeadm wants it.
func readCA(l wire.Log, task, job string) (string, error) {
	e, _ := entry(l, TaskName(task, job))
	for line := range strings.Lines(e.Entry) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "capplunder-ca ")
		if !ok {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return "", fmt.Errorf("the cluster's CA certificate: %w", err)
		}
		block, _ := pem.Decode(raw)
		if block == nil {
			return "", errors.New("the cluster's CA certificate is not PEM")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", fmt.Errorf("the cluster's CA certificate: %w", err)
		}
		sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
		return "sha256:" + hex.EncodeToString(sum[:]), nil
	}
	return "", fmt.Errorf("action %s did not print the cluster's CA certificate", task)
}
