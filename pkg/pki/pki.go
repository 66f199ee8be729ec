// Package pki makes the keys of a cluster's control plane where capplunder and not
// kubeadm is to make them (pki: tool), and what follows from them: the hash of the CA
// that joins pin, and the administrator's kubeconfig. It draws from crypto/rand and does nothing else with the outside: no
// files, no network, no clock. It must not log, and its errors never show a key.
package pki

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strconv"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const (
	// keyBits is what kubeadm's own RSA keys have.
	keyBits = 2048
	// caLife is how long kubeadm's own CAs live.
	caLife = 10 * 365 * 24 * time.Hour
	// adminLife is how long kubeadm's own client certificates live.
	adminLife = 365 * 24 * time.Hour
	// skew is how far the clocks of hosts may be behind.
	skew = time.Hour
	// rsaBlock and certBlock are PEM types.
	rsaBlock  = "RSA PRIVATE KEY"
	certBlock = "CERTIFICATE"
)

// New makes the keys of a cluster: three CAs, good for ten years from now on, and the
// pair that service account tokens are signed with. Keys are RSA, as kubeadm's.
func New(now time.Time) (capi.PKI, error) {
	p := capi.PKI{}
	// The common names are those that kubeadm gives to its CAs.
	for _, ca := range []struct{ id, name string }{
		{capi.PKICluster, "kubernetes"}, {capi.PKIEtcd, "etcd-ca"}, {capi.PKIFrontProxy, "front-proxy-ca"},
	} {
		key, err := rsa.GenerateKey(rand.Reader, keyBits)
		if err != nil {
			return nil, fmt.Errorf("key of the CA %s: %w", ca.name, err)
		}
		template, err := newTemplate(now, caLife)
		if err != nil {
			return nil, err
		}
		template.Subject = pkix.Name{CommonName: ca.name}
		template.DNSNames = []string{ca.name}
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage |= x509.KeyUsageCertSign
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return nil, fmt.Errorf("certificate of the CA %s: %w", ca.name, err)
		}
		p[ca.id] = capi.KeyPair{Cert: encode(certBlock, der), Key: encode(rsaBlock, x509.MarshalPKCS1PrivateKey(key))}
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("key of service accounts: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("public key of service accounts: %w", err)
	}
	p[capi.PKIServiceAccount] = capi.KeyPair{Cert: encode("PUBLIC KEY", der), Key: encode(rsaBlock, x509.MarshalPKCS1PrivateKey(key))}
	return p, nil
}

// Hash is "sha256:<hex>" of the cluster CA's public key, as kubeadm pins it.
func Hash(p capi.PKI) (string, error) {
	ca, err := certificate(p)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// AdminKubeconfig is a kubeconfig for the endpoint with a client certificate of its
// own, good for a year from now on: user kubernetes-admin in the group system:masters,
// as Cluster API makes it. That group needs no role binding, so it works in every
// version; the kubeadm:cluster-admins of kubeadm 1.29 and newer would need one.
func AdminKubeconfig(p capi.PKI, cluster string, endpoint capi.Endpoint, now time.Time) ([]byte, error) {
	ca, err := certificate(p)
	if err != nil {
		return nil, err
	}
	caKey, err := privateKey(p)
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("key of the administrator: %w", err)
	}
	const user = "kubernetes-admin"
	template, err := newTemplate(now, adminLife)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: user, Organization: []string{"system:masters"}}
	if template.NotAfter.After(ca.NotAfter) {
		template.NotAfter = ca.NotAfter
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, key.Public(), caKey)
	if err != nil {
		return nil, fmt.Errorf("certificate of the administrator: %w", err)
	}
	name := user + "@" + cluster
	out, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": name, "preferences": map[string]any{},
		"clusters": []any{map[string]any{"name": cluster, "cluster": map[string]any{
			"server":                     "https://" + net.JoinHostPort(endpoint.Host, strconv.Itoa(endpoint.Port)),
			"certificate-authority-data": p[capi.PKICluster].Cert,
		}}},
		"users": []any{map[string]any{"name": user, "user": map[string]any{
			"client-certificate-data": encode(certBlock, der),
			"client-key-data":         encode(rsaBlock, x509.MarshalPKCS1PrivateKey(key)),
		}}},
		"contexts": []any{map[string]any{"name": name, "context": map[string]any{"cluster": cluster, "user": user}}},
	})
	if err != nil {
		return nil, errors.New("the administrator's kubeconfig cannot be written")
	}
	return out, nil
}

// newTemplate is what all certificates have in common.
func newTemplate(now time.Time, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		NotBefore:    now.Add(-skew).UTC(), NotAfter: now.Add(life).UTC(),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}, nil
}

func encode(block string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der})
}

func certificate(p capi.PKI) (*x509.Certificate, error) {
	block, _ := pem.Decode(p[capi.PKICluster].Cert)
	if block == nil || block.Type != certBlock {
		return nil, errors.New("the certificate of the cluster's CA is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the cluster's CA: %w", err)
	}
	return cert, nil
}

// privateKey is the key of the cluster's CA: kubeadm's and Cluster API's form, or PKCS 8.
func privateKey(p capi.PKI) (any, error) {
	block, _ := pem.Decode(p[capi.PKICluster].Key)
	if block == nil {
		return nil, errors.New("the key of the cluster's CA is not PEM")
	}
	parsers := []func([]byte) (any, error){
		func(b []byte) (any, error) { return x509.ParsePKCS1PrivateKey(b) },
		func(b []byte) (any, error) { return x509.ParseECPrivateKey(b) },
		x509.ParsePKCS8PrivateKey,
	}
	if i := slices.IndexFunc(parsers, func(parse func([]byte) (any, error)) bool { _, err := parse(block.Bytes); return err == nil }); i >= 0 {
		return parsers[i](block.Bytes)
	}
	return nil, errors.New("the key of the cluster's CA is of no known form")
}
