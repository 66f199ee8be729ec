package plunder

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// tlsConfig trusts the server's own certificate and no other; the name or
// address in the URL has to be one of those it was made for.
func tlsConfig(pinned *x509.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(pinned)
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// describeTLS explains a failed handshake: which of the things that can be wrong
// with a certificate it is, what the certificate holds, what to do. It returns
// nil when err is not about TLS. None of these goes away by trying again.
func (c *Client) describeTLS(err error, now time.Time) error {
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		if len(verify.UnverifiedCertificates) == 0 || c.pinned == nil {
			return fmt.Errorf("%w: %w", wire.ErrCertificate, err)
		}
		text := c.describeCertificate(verify.UnverifiedCertificates[0], verify.Err, now)
		return fmt.Errorf("%w: %s", wire.ErrCertificate, text)
	}
	var header tls.RecordHeaderError
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &header) {
		return fmt.Errorf("%w: no TLS is spoken there (a plunder server started with --insecure?): give the right port, or accept plain http with --url http://%s --insecure-http",
			wire.ErrProtocol, c.base.Host)
	}
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") { // TLS alerts
		return fmt.Errorf("%w: the TLS handshake failed: %w", wire.ErrProtocol, err)
	}
	return nil
}

// describeCertificate finds out what is wrong with the certificate that the
// server showed. Order matters: a certificate that is not the pinned one says
// nothing by being expired.
func (c *Client) describeCertificate(shown *x509.Certificate, err error, now time.Time) string {
	renew := fmt.Sprintf("make a new one on the plunder server (`plunder config apiserver server`, then `plunder config apiserver client`), restart it, and copy its %s over %s",
		ConfigFile, c.cfg.where())
	switch {
	case !shown.Equal(c.pinned):
		return fmt.Sprintf("the server shows another certificate (%s) than the one in %s (%s): if it got a new one, copy its %s; if not, something else answers at %s",
			describeCert(shown), c.cfg.where(), describeCert(c.pinned), ConfigFile, c.base.Host)
	case now.Before(shown.NotBefore):
		return fmt.Sprintf("it is not valid yet: it begins at %s and the clock here says %s (%s): set the clock that is wrong, of this machine or of the plunder server",
			stamp(shown.NotBefore), stamp(now), describeCert(shown))
	case now.After(shown.NotAfter):
		return fmt.Sprintf("it expired at %s and the clock here says %s (%s): %s", stamp(shown.NotAfter), stamp(now), describeCert(shown), renew)
	case shown.VerifyHostname(c.base.Hostname()) != nil:
		return fmt.Sprintf("%s is not one of the names in it (%s): use one of them as address in %s or with --url, or %s",
			c.base.Hostname(), describeCert(shown), c.cfg.where(), renew)
	default:
		return fmt.Sprintf("%v (%s): %s", err, describeCert(shown), renew)
	}
}

// describeCert names what tells certificates apart: names, dates, fingerprint.
func describeCert(cert *x509.Certificate) string {
	names := append([]string{}, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	who := "for " + strings.Join(names, ", ")
	if len(names) == 0 {
		who = "without names"
	}
	sum := sha256.Sum256(cert.Raw)
	return fmt.Sprintf("%s, valid from %s to %s, SHA-256 %x", who, stamp(cert.NotBefore), stamp(cert.NotAfter), sum[:8])
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
