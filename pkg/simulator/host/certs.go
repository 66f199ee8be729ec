package host

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

const pkiDir = "/etc/kubernetes/pki/"

// sharedCerts are the files below /etc/kubernetes/pki that all control planes have the
// same.
func sharedCerts() []string {
	return []string{"ca.crt", "ca.key", "etcd/ca.crt", "etcd/ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"}
}

// seededKey is a private key that follows from a seed.
func seededKey(seed []byte) *ecdsa.PrivateKey {
	for {
		sum := sha256.Sum256(seed)
		if k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:]); err == nil {
			return k
		}
		seed = sum[:] // not a number below the order of the curve; once in 2^32
	}
}

func pemKey(k *ecdsa.PrivateKey) []byte {
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil // of a key of ours, which has a curve
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})
}

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// newCA makes a certificate authority whose key follows from the seed.
func newCA(name string, seed []byte) (cert, key []byte, err error) {
	k := seededKey(seed)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		return nil, nil, err
	}
	return pemCert(der), pemKey(k), nil
}

func parseCert(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("data does not contain any valid RSA or ECDSA certificates")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(b []byte) (crypto.Signer, error) {
	if block, _ := pem.Decode(b); block != nil {
		var k any
		var err error
		switch block.Type {
		case "EC PRIVATE KEY":
			k, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			k, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			k, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		}
		if s, ok := k.(crypto.Signer); ok && err == nil {
			return s, nil
		}
	}
	return nil, errors.New("data does not contain a valid RSA or ECDSA private key")
}

// caHash is the hash of a CA's public key as kubeadm pins it, "sha256:<hex>".
func caHash(cert []byte) string {
	c, err := parseCert(cert)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(c.RawSubjectPublicKeyInfo))
}

// makeCerts is the phase certs of kubeadm init and of a control plane's join: it takes
// the CAs and keys that are there, makes those that are missing, and signs the API
// server's certificate, for which CA and key must fit.
func (c *call) makeCerts(names []string) error {
	for _, ca := range []struct{ file, name string }{{"ca", "kubernetes"}, {"etcd/ca", "etcd-ca"}, {"front-proxy-ca", "front-proxy-ca"}} {
		crt, errCrt := c.read(pkiDir + ca.file + ".crt")
		key, errKey := c.read(pkiDir + ca.file + ".key")
		switch {
		case errCrt != nil && errKey != nil:
			cert, key, err := newCA(ca.name, fmt.Appendf(nil, "%d %s %s", c.h.cfg.Seed, c.h.cfg.MAC, ca.file))
			if err != nil {
				return err
			}
			c.h.addFile(pkiDir+ca.file+".crt", string(cert))
			c.h.fs.put(pkiDir+ca.file+".key", &node{mode: 0o600, data: key})
			c.printf("[certs] Generating %q certificate and key\n", ca.file)
			continue
		case errCrt != nil:
			return fmt.Errorf("failure loading %s certificate: failed to load certificate: couldn't load the certificate file %s: open %[2]s: no such file or directory", ca.file, pkiDir+ca.file+".crt")
		case errKey != nil:
			return fmt.Errorf("couldn't load %s certificate authority from %s: failed to load key: couldn't load the private key file %s: open %[3]s: no such file or directory", ca.file, pkiDir, pkiDir+ca.file+".key")
		}
		cert, err := parseCert(crt)
		if err != nil {
			return fmt.Errorf("failure loading %s certificate: failed to load certificate: couldn't load the certificate file %s: %w", ca.file, pkiDir+ca.file+".crt", err)
		}
		if !cert.IsCA {
			return fmt.Errorf("certificate %s is not a CA", ca.file)
		}
		signer, err := parseKey(key)
		if err != nil {
			return fmt.Errorf("failure loading %s key: couldn't load the private key file %s: %w", ca.file, pkiDir+ca.file+".key", err)
		}
		if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
			return errors.New("error creating PKI assets: failed to write or validate certificate \"apiserver\": unable to create certificate: x509: provided PrivateKey doesn't match parent's PublicKey")
		}
		c.printf("[certs] Using existing %s certificate authority\n", ca.file)
	}
	if _, err := c.read(pkiDir + "sa.key"); err != nil {
		k := seededKey(fmt.Appendf(nil, "%d %s sa", c.h.cfg.Seed, c.h.cfg.MAC))
		der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
		if err != nil {
			return err
		}
		c.h.fs.put(pkiDir+"sa.key", &node{mode: 0o600, data: pemKey(k)})
		c.h.fs.put(pkiDir+"sa.pub", &node{mode: 0o600, data: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})})
		c.printf("[certs] Generating \"sa\" key and public key\n")
	} else {
		c.printf("[certs] Using the existing \"sa\" key\n")
	}
	crt, key, err := c.sign("kube-apiserver", nil, names)
	if err != nil {
		return fmt.Errorf("error creating PKI assets: failed to write or validate certificate \"apiserver\": %w", err)
	}
	c.h.addFile(pkiDir+"apiserver.crt", string(crt))
	c.h.fs.put(pkiDir+"apiserver.key", &node{mode: 0o600, data: key})
	c.printf("[certs] Generating \"apiserver\" certificate and key\n[certs] apiserver serving cert is signed for DNS names and IPs [%s]\n", strings.Join(names, " "))
	return nil
}

// sign makes a certificate with the CA of this host.
func (c *call) sign(name string, groups, names []string) (cert, key []byte, err error) {
	crt, err := c.read(pkiDir + "ca.crt")
	if err != nil {
		return nil, nil, err
	}
	ca, err := parseCert(crt)
	if err != nil {
		return nil, nil, err
	}
	raw, err := c.read(pkiDir + "ca.key")
	if err != nil {
		return nil, nil, err
	}
	signer, err := parseKey(raw)
	if err != nil {
		return nil, nil, err
	}
	k := seededKey(fmt.Appendf(nil, "%d %s %s %d", c.h.cfg.Seed, c.h.cfg.MAC, name, time.Now().UnixNano()))
	usage := x509.ExtKeyUsageClientAuth
	if names != nil {
		usage = x509.ExtKeyUsageServerAuth
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, ExtKeyUsage: []x509.ExtKeyUsage{usage}, DNSNames: names,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &k.PublicKey, signer)
	if err != nil {
		return nil, nil, fmt.Errorf("unable to create certificate: %w", err)
	}
	return pemCert(der), pemKey(k), nil
}

// kubeconfig is a kubeconfig file, as far as it is used here.
type kubeconfig struct {
	APIVersion     string           `json:"apiVersion"`
	Kind           string           `json:"kind"`
	Clusters       []namedCluster   `json:"clusters"`
	Contexts       []map[string]any `json:"contexts"`
	CurrentContext string           `json:"current-context"`
	Users          []namedUser      `json:"users"`
}

type namedCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		Server string `json:"server"`
		CA     []byte `json:"certificate-authority-data"`
	} `json:"cluster"`
}

type namedUser struct {
	Name string `json:"name"`
	User struct {
		Cert []byte `json:"client-certificate-data,omitempty"`
		Key  []byte `json:"client-key-data,omitempty"`
	} `json:"user"`
}

// writeKubeconfig is a kubeconfig for a user whose certificate it signs.
func (c *call) writeKubeconfig(file, clusterName, server, user string, groups ...string) error {
	ca, err := c.read(pkiCA)
	if err != nil {
		return err
	}
	cert, key, err := c.sign(user, groups, nil)
	if err != nil {
		return err
	}
	return c.putKubeconfig(file, clusterName, server, user, ca, cert, key)
}

func (c *call) putKubeconfig(file, clusterName, server, user string, ca, cert, key []byte) error {
	k := kubeconfig{APIVersion: "v1", Kind: "Config", CurrentContext: user + "@" + clusterName}
	k.Clusters = make([]namedCluster, 1)
	k.Clusters[0].Name, k.Clusters[0].Cluster.Server, k.Clusters[0].Cluster.CA = clusterName, "https://"+server, ca
	k.Users = make([]namedUser, 1)
	k.Users[0].Name, k.Users[0].User.Cert, k.Users[0].User.Key = user, cert, key
	k.Contexts = []map[string]any{{"name": k.CurrentContext, "context": map[string]any{"cluster": clusterName, "user": user}}}
	b, err := yaml.Marshal(k)
	if err != nil {
		return err
	}
	c.h.fs.put(file, &node{mode: 0o600, data: b})
	return nil
}

// client is what a kubeconfig lets somebody be at a server.
type client struct {
	server string // HOST:PORT
	ca     []byte
	cert   *x509.Certificate // nil: nobody
	groups []string
}

func parseKubeconfig(b []byte) (client, error) {
	var k kubeconfig
	if err := yaml.Unmarshal(b, &k); err != nil || k.Kind != "Config" || len(k.Clusters) == 0 {
		return client{}, errors.New("invalid configuration: no configuration has been provided, try setting KUBERNETES_MASTER environment variable")
	}
	cl := client{server: strings.TrimPrefix(k.Clusters[0].Cluster.Server, "https://"), ca: k.Clusters[0].Cluster.CA}
	if len(k.Users) == 0 || len(k.Users[0].User.Cert) == 0 {
		return cl, nil
	}
	u := k.Users[0].User
	if _, err := tls.X509KeyPair(u.Cert, u.Key); err != nil {
		return client{}, err
	}
	var err error
	if cl.cert, err = parseCert(u.Cert); err != nil {
		return client{}, err
	}
	cl.groups = cl.cert.Subject.Organization
	return cl, nil
}

// admit is what the API server of a cluster says to a client: nothing, or an error as
// kubectl prints it.
func (cl client) admit(c *cluster) string {
	ca, admins := look(c, func(d *clusterData) []byte { return d.CA }), look(c, func(d *clusterData) bool { return d.Admins })
	if !sameCA(cl.ca, ca) {
		return "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority"
	}
	authority, err := parseCert(ca)
	if err != nil || cl.cert == nil || cl.cert.CheckSignatureFrom(authority) != nil || time.Now().After(cl.cert.NotAfter) {
		return "error: You must be logged in to the server (Unauthorized)"
	}
	if !slices.Contains(cl.groups, groupMasters) && (!slices.Contains(cl.groups, groupAdmins) || !admins) {
		return fmt.Sprintf("Error from server (Forbidden): User %q cannot do this at the cluster scope", cl.cert.Subject.CommonName)
	}
	return ""
}

const (
	groupMasters = "system:masters"
	groupAdmins  = "kubeadm:cluster-admins"
)

// sharedFiles reads the certificates that control planes share from this host.
func (c *call) sharedFiles() map[string][]byte {
	out := map[string][]byte{}
	for _, f := range sharedCerts() {
		if b, err := c.read(pkiDir + f); err == nil {
			out[f] = bytes.Clone(b)
		}
	}
	return out
}

func (c *call) putSharedFiles(files map[string][]byte) {
	for _, f := range sortedKeys(files) {
		mode := fs.FileMode(0o600)
		if strings.HasSuffix(f, ".crt") {
			mode = 0o644
		}
		c.h.fs.put(pkiDir+f, &node{mode: mode, data: bytes.Clone(files[f])})
	}
}
