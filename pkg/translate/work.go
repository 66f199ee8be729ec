package translate

import (
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// Token is a bootstrap token: ID is 6, Secret 16 characters of [a-z0-9].
type Token struct {
	ID     string
	Secret Secret
}

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
	// Spent are IDs of bootstrap tokens that are not needed any more.
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
}

// ControlPlaneWork is the map that has a control plane do work. It may run again.
func ControlPlaneWork(job string, t Target, k *Kubernetes, w Work) (wire.Map, error) {
	b := newInstallMap(job, t, k)
	if len(w.Tokens) > 0 {
		docs := make([]map[string]any, len(w.Tokens))
		for i, tok := range w.Tokens {
			b.token(tok)
			docs[i] = map[string]any{
				"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
				"metadata": map[string]any{"name": "bootstrap-token-" + tok.ID, "namespace": "kube-system"},
				"stringData": map[string]any{
					"token-id": tok.ID, "token-secret": tok.Secret.Reveal(), "expiration": w.Expires.UTC().Format(time.RFC3339),
					"usage-bootstrap-authentication": "true", "usage-bootstrap-signing": "true",
					"auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
				},
			}
		}
		b.bundle(file{tokenManifest, 0o600, b.documents(docs...)})
	}
	b.bash(taskWork, 5*time.Minute, workScript)
	return b.done("work")
}

const (
	taskWork   = "work"
	workScript = `K="kubectl --kubeconfig=/etc/kubernetes/admin.conf"; trap 'rm -f $R/token.yaml' EXIT; if [ -e $R/token.yaml ]; then try 6 $K apply -f $R/token.yaml; fi; ca` //nolint:gosec // no secret in it
)

// ReadWork gives the result of ControlPlaneWork.
func ReadWork(l wire.Log, job string, w Work) (WorkResult, error) {
	hash, err := readCA(l, taskWork, job)
	r := WorkResult{CAHash: hash, Nodes: map[string]Node{}}
	e, _ := entry(l, TaskName(taskWork, job))
	_ = strings.Lines(e.Entry)
	for _, n := range w.Nodes {
		r.Nodes[n.Name] = Node{Name: n.Name, UID: "-", ProviderID: n.ProviderID, Version: "-"}
	}
	return r, err
}
