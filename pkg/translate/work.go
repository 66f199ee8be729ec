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

// Token is a bootstrap token: ID is 6, Secret 16 characters of [a-z0-9]. For is the host
// name of the machine that it is for, by which it is found again when it is spent.
type Token struct {
	ID     string
	Secret Secret
	For    string
}

// labelTokenFor on the Secret of a bootstrap token: the host name of its machine.
const labelTokenFor = "capplunder.plunder-app.io/machine" //nolint:gosec // a label, not a token

// InitInput are the secrets of kubeadm init.
type InitInput struct {
	Token Token
	// CertKey encrypts the keys that further control planes fetch: 64 hex digits; empty
	// unless the cluster is HA and kubeadm makes its keys.
	CertKey Secret
	// PKI are the keys of the control plane, with pki: tool.
	PKI capi.PKI
}

// JoinInput is what a join needs of the cluster.
type JoinInput struct {
	Token    Token
	CertKey  Secret   // for a control plane, unless PKI is given
	PKI      capi.PKI // for a control plane, with pki: tool
	Endpoint capi.Endpoint
	CAHash   string // "sha256:<hex>"
}

// Work is what an initialised control plane is asked to do for machines of its
// cluster, in this order; each part may be empty.
type Work struct {
	// Spent are host names of machines whose bootstrap tokens, of this run and of others
	// that were cut off, are not needed any more.
	Spent []string
	// Tokens are made known to the cluster, good until Expires.
	Tokens  []Token
	Expires time.Time
	// CertKey: the control plane's keys are uploaded, encrypted with it (64 hex digits).
	CertKey Secret
	// Nodes are looked for.
	Nodes []WantedNode
}

// WantedNode is a machine as its Node is found: by name or, if that is another one, by
// provider ID. A Node of the name without a provider ID is given it.
type WantedNode struct{ Name, ProviderID string }

// WorkResult is what Work came to.
type WorkResult struct {
	// CAHash is "sha256:<hex>" of the cluster CA's public key.
	CAHash string
	// Nodes by the name that was asked for; those that are not there are missing.
	Nodes map[string]Node
}

// Node is what a cluster says of one of its nodes.
type Node struct {
	Name, UID, ProviderID string
	Version               string // of the kubelet, vX.Y.Z
	Ready                 bool
	Reason                string // of the condition Ready, e.g. KubeletNotReady
	// Of LookMap alone.
	Address       string // IPv4 of its InternalIP, or ""
	ControlPlane  bool
	Unschedulable bool
}

// The parts of the work, each an action.
const (
	taskTokens = "work.tokens"
	taskUpload = "work.upload"
	taskNodes  = "work.nodes"
	taskCA     = "work.ca" // when there is no other part

	tokenManifest = "/run/capplunder/token.yaml" //nolint:gosec // a path, not what is there
	uploadConfig  = "/run/capplunder/upload.yaml"
	wantedNodes   = "/run/capplunder/nodes"
	noValue       = "<none>" // what kubectl prints for a field that is not there
)

const (
	spentScript = `$K delete secret -n kube-system -l '{{LABEL}} in ({{MACHINES}})' --ignore-not-found
`
	//nolint:gosec // there is no token in it
	tokensScript = `K="kubectl --kubeconfig={{CONF}} --request-timeout=30s"; trap 'rm -f $R/token.yaml' EXIT
{{SPENT}}if [ -e $R/token.yaml ]; then try 6 $K apply -f $R/token.yaml; fi; echo 'capplunder-tokens ok'`

	// kubeadm refuses versions that are not near its own, and only that of this host matters.
	uploadScript = `trap 'rm -f $R/upload.yaml $R/certkey' EXIT; sed -i "s/^kubernetesVersion: .*/kubernetesVersion: $(kubeadm version -o short)/" $R/upload.yaml; try 3 kubeadm init phase upload-certs {{UPLOAD}} >/dev/null; echo 'capplunder-upload ok'`

	// One request for all nodes, however many there are; of them, only those that somebody
	// waits for are printed.
	nodesScript = `K="kubectl --kubeconfig={{CONF}} --request-timeout=30s"; trap 'rm -f $R/nodes $R/nodes.all $R/nodes.seen' EXIT
see() { $K get nodes --no-headers -o 'custom-columns=N:.metadata.name,U:.metadata.uid,V:.status.nodeInfo.kubeletVersion,P:.spec.providerID,R:.status.conditions[?(@.type=="Ready")].status,C:.status.conditions[?(@.type=="Ready")].reason' >$R/nodes.all; tr ' ' '\n' <$R/nodes | grep -wFf - $R/nodes.all >$R/nodes.seen || [ $? = 1 ]; }
see; again=; while read -r n _ _ p _; do [ "$p" = '<none>' ] || continue; id=$(sed -n "s#^$n ##p" $R/nodes); [ -n "$id" ] || continue; $K patch node "$n" -p "{\"spec\":{\"providerID\":\"$id\"}}" >/dev/null; again=1; done <$R/nodes.seen
if [ -n "$again" ]; then see; fi; sed 's/^/capplunder-node /' $R/nodes.seen; echo 'capplunder-nodes ok'`
)

// ControlPlaneWork is the map that has a control plane do work. It may run again.
func ControlPlaneWork(job string, t Target, k *Kubernetes, w Work) (wire.Map, error) {
	b := newInstallMap(job, t, k)
	scripts := map[string]string{}
	var files []file
	if len(w.Spent)+len(w.Tokens) > 0 {
		spent := ""
		if len(w.Spent) > 0 {
			spent = fill(spentScript, map[string]string{"LABEL": labelTokenFor, "MACHINES": b.machines(w.Spent)})
		}
		scripts[taskTokens] = fill(tokensScript, map[string]string{"CONF": adminConf, "SPENT": spent})
		if len(w.Tokens) > 0 {
			files = append(files, file{tokenManifest, 0o600, b.tokenDocuments(k, w)})
		}
	}
	if w.CertKey != "" {
		if k.uploadFlag() == "" {
			b.check(fmt.Errorf("v%s has no way to hand the keys of a control plane on: set pki: tool", k.Version))
		}
		// Without the second flag kubeadm prints the key.
		upload := k.uploadFlag() + " --skip-certificate-key-print --config $R/upload.yaml"
		if key, flag := b.certKeyFlag(k, w.CertKey); flag != "" {
			files, upload = append(files, key), k.uploadFlag()+" --config $R/upload.yaml "+flag
		}
		files = append(files, file{uploadConfig, 0o600, b.uploadDocuments(k, w.CertKey)})
		scripts[taskUpload] = fill(uploadScript, map[string]string{"UPLOAD": upload})
	}
	if len(w.Nodes) > 0 {
		files = append(files, file{wantedNodes, 0o600, b.nodeList(w.Nodes)})
		scripts[taskNodes] = fill(nodesScript, map[string]string{"CONF": adminConf})
	}
	if len(files) > 0 {
		b.bundle(files...)
	}
	tasks := w.tasks()
	for i, task := range tasks {
		s := scripts[task]
		if i == len(tasks)-1 {
			s = strings.TrimPrefix(s+"; ca", "; ")
		}
		b.bash(task, 5*time.Minute, s)
	}
	return b.done("work")
}

// tasks are the actions of the work, in order; there is always one, and the last one
// prints the CA.
func (w Work) tasks() []string {
	var out []string
	if len(w.Spent)+len(w.Tokens) > 0 {
		out = append(out, taskTokens)
	}
	if w.CertKey != "" {
		out = append(out, taskUpload)
	}
	if len(w.Nodes) > 0 {
		out = append(out, taskNodes)
	}
	if len(out) == 0 {
		out = []string{taskCA}
	}
	return out
}

// machines are host names as a list of label values.
func (b *mapBuilder) machines(hostNames []string) string {
	for _, h := range hostNames {
		b.match("host name", h, nameForm)
	}
	return strings.Join(hostNames, ",")
}

// tokenDocuments are bootstrap tokens as the Secrets that make them known.
func (b *mapBuilder) tokenDocuments(k *Kubernetes, w Work) string {
	docs := make([]any, len(w.Tokens))
	for i, tok := range w.Tokens {
		b.token(tok)
		metadata := map[string]any{"name": "bootstrap-token-" + tok.ID, "namespace": "kube-system"}
		if tok.For != "" {
			b.match("host name", tok.For, nameForm)
			metadata["labels"] = map[string]any{labelTokenFor: tok.For}
		}
		docs[i] = map[string]any{
			"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
			"metadata": metadata,
			"stringData": map[string]any{
				"token-id": tok.ID, "token-secret": tok.Secret.Reveal(), "expiration": w.Expires.UTC().Format(time.RFC3339),
				"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
				"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
			},
		}
	}
	return b.documents(&Kubernetes{Minor: k.Minor}, docs...)
}

// nodeList is a line for each wanted node: its name and its provider ID.
func (b *mapBuilder) nodeList(nodes []WantedNode) string {
	var s strings.Builder
	for _, n := range nodes {
		b.match("node name", n.Name, domainForm)
		b.match("provider ID", n.ProviderID, providerIDForm)
		s.WriteString(n.Name + " " + n.ProviderID + "\n")
	}
	return s.String()
}

var providerIDForm = regexp.MustCompile(`^plunder://[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)

// ReadWork gives the result of ControlPlaneWork.
func ReadWork(l wire.Log, job string, w Work) (WorkResult, error) {
	var hash string
	err := errors.New("the control plane did no work")
	for _, task := range []string{taskCA, taskNodes, taskUpload, taskTokens} {
		if _, ok := entry(l, TaskName(task, job)); ok {
			hash, err = readCA(l, task, job)
			break
		}
	}
	if err != nil {
		return WorkResult{}, err
	}
	r := WorkResult{CAHash: hash, Nodes: map[string]Node{}}
	if len(w.Nodes) == 0 {
		return r, nil
	}
	byName, byID := map[string]Node{}, map[string]Node{}
	e, _ := entry(l, TaskName(taskNodes, job))
	for line := range strings.Lines(e.Entry) {
		// The columns are those of nodesScript; a value that is not there is <none>.
		f := strings.Fields(line)
		if len(f) != 7 || f[0] != "capplunder-node" {
			continue
		}
		for i := range f {
			if f[i] == noValue {
				f[i] = ""
			}
		}
		n := Node{Name: f[1], UID: f[2], Version: f[3], ProviderID: f[4], Ready: f[5] == "True", Reason: f[6]}
		byName[n.Name] = n
		if n.ProviderID != "" {
			byID[n.ProviderID] = n
		}
	}
	for _, want := range w.Nodes {
		if n, ok := byName[want.Name]; ok {
			r.Nodes[want.Name] = n
		} else if n, ok := byID[want.ProviderID]; ok {
			r.Nodes[want.Name] = n
		}
	}
	return r, nil
}
