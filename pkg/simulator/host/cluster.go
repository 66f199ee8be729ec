package host

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"
)

// apiPort is where a control plane's API server listens.
const apiPort = 6443

// cluster is what a control plane keeps in its etcd, as far as joins need it. It
// lives on the host that was initialised.
type cluster struct {
	mu sync.Mutex
	clusterData
}

type clusterData struct {
	Name     string
	Endpoint string // HOST:PORT under which it was made
	Version  string // X.Y.Z
	CA       []byte // PEM
	CAKey    []byte // PEM
	Tokens   map[string]bootstrapToken
	Nodes    []clusterNode
}

// bootstrapToken is a bootstrap token by its id.
type bootstrapToken struct {
	Secret  string
	Expires time.Time // zero: never
}

type clusterNode struct {
	Name, Address, Version string
	ControlPlane           bool
}

// newCA makes a certificate authority whose key follows from the seed.
func newCA(seed []byte) (cert, key []byte, err error) {
	var k *ecdsa.PrivateKey
	for {
		sum := sha256.Sum256(seed)
		if k, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:]); err == nil {
			break
		}
		seed = sum[:] // not a number below the order of the curve; once in 2^32
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), nil
}

// caHash is the hash of a CA's public key as kubeadm pins it, "sha256:<hex>".
func caHash(cert []byte) string {
	block, _ := pem.Decode(cert)
	if block == nil {
		return ""
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(c.RawSubjectPublicKeyInfo))
}

// token reports whether a token would be accepted now: found and not expired, and
// with the right secret.
func (c *cluster) token(id, secret string) (found, right bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.Tokens[id]
	if !ok || !t.Expires.IsZero() && !time.Now().Before(t.Expires) {
		return false, false
	}
	return true, t.Secret == secret
}

func (c *cluster) addToken(id, secret string, expires time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Tokens[id] = bootstrapToken{secret, expires}
}

// addNode reports whether the name was still free.
func (c *cluster) addNode(n clusterNode) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.ContainsFunc(c.Nodes, func(x clusterNode) bool { return x.Name == n.Name }) {
		return false
	}
	c.Nodes = append(c.Nodes, n)
	return true
}

func (c *cluster) removeNode(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.Nodes)
	c.Nodes = slices.DeleteFunc(c.Nodes, func(x clusterNode) bool { return x.Name == name })
	return len(c.Nodes) < n
}

func (c *cluster) nodes() []clusterNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.Nodes)
}

// apiServer is the cluster whose API server runs on this host, or nil.
func (h *Host) apiServer() *cluster {
	h.mu.Lock()
	c, up := h.sys.cluster, h.up
	u := h.sys.units["kubelet"]
	running := u != nil && u.Active
	h.mu.Unlock()
	if c == nil || !up || !running || !h.fs.exists(manifest) {
		return nil
	}
	return c
}

// Nodes lists the names of the nodes of the cluster whose control plane is this
// host, in the order in which they joined; nil if it is none.
func (h *Host) Nodes() []string {
	c := h.apiServer()
	if c == nil {
		return nil
	}
	var out []string
	for _, n := range c.nodes() {
		out = append(out, n.Name)
	}
	return out
}
