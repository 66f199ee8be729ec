package pki_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/pki"
)

func parse(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(text)
	if block == nil || len(rest) > 0 {
		t.Fatalf("not one PEM block: %d bytes are left", len(rest))
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNew(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	p, err := pki.New(now)
	if err != nil {
		t.Fatal(err)
	}
	if len(p) != 4 {
		t.Fatalf("%d pairs", len(p))
	}
	seen := map[string]bool{}
	for id, name := range map[string]string{capi.PKICluster: "kubernetes", capi.PKIEtcd: "etcd-ca", capi.PKIFrontProxy: "front-proxy-ca"} {
		c := parse(t, p[id].Cert)
		if c.Subject.CommonName != name || !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
			t.Errorf("%s: %s, CA %v, usage %v", id, c.Subject, c.IsCA, c.KeyUsage)
		}
		if !c.NotBefore.Before(now) || c.NotAfter.Sub(now) != 10*365*24*time.Hour {
			t.Errorf("%s: good from %v to %v", id, c.NotBefore, c.NotAfter)
		}
		if _, err := tls.X509KeyPair(p[id].Cert, p[id].Key); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if !bytes.HasPrefix(p[id].Key, []byte("-----BEGIN RSA PRIVATE KEY-----")) {
			t.Errorf("%s: the key is not of the form that kubeadm writes", id)
		}
		seen[c.SerialNumber.String()] = true
	}
	if len(seen) != 3 {
		t.Errorf("serial numbers %v", seen)
	}
	sa := p[capi.PKIServiceAccount]
	public, _ := pem.Decode(sa.Cert)
	private, _ := pem.Decode(sa.Key)
	if public == nil || private == nil || public.Type != "PUBLIC KEY" {
		t.Fatal("service accounts: not PEM")
	}
	key, err := x509.ParsePKCS1PrivateKey(private.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if der, err := x509.MarshalPKIXPublicKey(key.Public()); err != nil || !bytes.Equal(der, public.Bytes) {
		t.Errorf("service accounts: the public key is another one's (%v)", err)
	}

	hash, err := pki.Hash(p)
	if err != nil || len(hash) != len("sha256:")+64 || !strings.HasPrefix(hash, "sha256:") {
		t.Errorf("hash %q, err %v", hash, err)
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(form, p); strings.Contains(s, "PRIVATE") || strings.Contains(s, "45 45 45") || strings.Contains(s, "0x2d") {
			t.Errorf("%s shows keys: %.80s", form, s)
		}
	}
}

// TestAdminKubeconfig: the certificate is one that the cluster's CA signed, for a
// client, in the group that needs no role.
func TestAdminKubeconfig(t *testing.T) {
	now := time.Now()
	p, err := pki.New(now)
	if err != nil {
		t.Fatal(err)
	}
	text, err := pki.AdminKubeconfig(p, "prod", capi.Endpoint{Host: "10.0.0.9", Port: 6443}, now)
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		CurrentContext string `json:"current-context"`
		Clusters       []struct {
			Name    string
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if c.CurrentContext != "kubernetes-admin@prod" || c.Clusters[0].Name != "prod" || c.Clusters[0].Cluster.Server != "https://10.0.0.9:6443" || !bytes.Equal(c.Clusters[0].Cluster.CA, p[capi.PKICluster].Cert) {
		t.Errorf("%s", text)
	}
	if _, err := tls.X509KeyPair(c.Users[0].User.Cert, c.Users[0].User.Key); err != nil {
		t.Error(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p[capi.PKICluster].Cert)
	cert := parse(t, c.Users[0].User.Cert)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if cert.Subject.CommonName != "kubernetes-admin" || cert.Subject.Organization[0] != "system:masters" || cert.IsCA || len(cert.ExtKeyUsage) != 1 {
		t.Errorf("%v, CA %v, usages %v", cert.Subject, cert.IsCA, cert.ExtKeyUsage)
	}

	// Near the end of the CA's life the certificate does not outlive it.
	late := now.Add(10*365*24*time.Hour - 48*time.Hour)
	if text, err = pki.AdminKubeconfig(p, "prod", capi.Endpoint{Host: "api.example", Port: 443}, late); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if end := parse(t, c.Users[0].User.Cert).NotAfter; end.After(parse(t, p[capi.PKICluster].Cert).NotAfter) {
		t.Errorf("the certificate is good until %v", end)
	}
}

// TestBrokenKeys: an error names what is broken, and shows nothing of it.
func TestBrokenKeys(t *testing.T) {
	p, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	good := p[capi.PKICluster]
	for name, pair := range map[string]capi.KeyPair{
		"nothing":        {},
		"no certificate": {Cert: []byte("planted"), Key: good.Key},
		"a key for one":  {Cert: good.Key, Key: good.Key},
		"no key":         {Cert: good.Cert, Key: []byte("planted")},
		"no known key":   {Cert: good.Cert, Key: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("planted")})},
	} {
		_, err := pki.AdminKubeconfig(capi.PKI{capi.PKICluster: pair}, "c", capi.Endpoint{Host: "h", Port: 1}, time.Now())
		if err == nil || strings.Contains(err.Error(), "planted") || !strings.Contains(err.Error(), "the cluster's CA") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := pki.Hash(capi.PKI{capi.PKICluster: pair}); (err == nil) != (name == "no key" || name == "no known key") {
			t.Errorf("%s: hash: %v", name, err)
		}
	}
}
