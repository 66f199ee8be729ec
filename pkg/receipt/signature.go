package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Signature is a signature that fits a receipt: the holder of its key signed exactly this.
// Whose key it is, it does not say.
type Signature struct {
	Public ssh.PublicKey
	// Pending: it stands beside the place where it belongs, because the run that signed
	// was killed before it could put it there.
	Pending bool
}

// Fingerprint is the key as ssh-keygen -l shows it, "SHA256:…".
func (s Signature) Fingerprint() string { return ssh.FingerprintSHA256(s.Public) }

// By reports whether it was made with one of the keys.
func (s Signature) By(keys ...ssh.PublicKey) bool {
	for _, k := range keys {
		if bytes.Equal(k.Marshal(), s.Public.Marshal()) {
			return true
		}
	}
	return false
}

// ErrUnsigned is wrapped by the error for a receipt without a signature.
var ErrUnsigned = errors.New("it is not signed")

// VerifySignature reads an armored signature (ssh-keygen -Y sign -n Namespace) and checks
// that it fits data.
func VerifySignature(data, armored []byte) (Signature, error) {
	sig, err := sshsig.Unarmor(armored)
	if err != nil {
		return Signature{}, fmt.Errorf("the signature cannot be read: %w", err)
	}
	if _, ok := sig.PublicKey.(*ssh.Certificate); ok {
		return Signature{}, errors.New("it is signed with a certificate, and only plain keys are supported")
	}
	switch err := sshsig.Verify(bytes.NewReader(data), sig, sig.PublicKey, sig.HashAlgorithm, Namespace); {
	case errors.Is(err, sshsig.ErrNamespaceMismatch):
		return Signature{}, fmt.Errorf("the signature is for %q, not for receipts (%s)", sig.Namespace, Namespace)
	case err != nil:
		return Signature{}, errors.New("the signature does not fit: the receipt or its signature was changed")
	}
	return Signature{Public: sig.PublicKey}, nil
}

// SignatureOf checks the signature that stands beside the receipt in a file. The error
// wraps ErrUnsigned if there is none.
func SignatureOf(file string, data []byte) (Signature, error) {
	armored, err := os.ReadFile(file + sigSuffix)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return Signature{}, fmt.Errorf("signature: %w", err)
	}
	var bad error
	if !missing {
		sig, err := VerifySignature(data, armored)
		if err == nil {
			return sig, nil
		}
		bad = fmt.Errorf("%s: %w", file+sigSuffix, err)
	}
	// A run that was killed between the receipt and its signature left the latter here.
	if armored, err := os.ReadFile(file + pendingSuffix); err == nil {
		if sig, err := VerifySignature(data, armored); err == nil {
			sig.Pending = true
			return sig, nil
		}
	}
	if missing {
		return Signature{}, fmt.Errorf("%w: there is no %s", ErrUnsigned, file+sigSuffix)
	}
	return Signature{}, bad
}

// ParsePublicKeys reads a file of public keys, one a line (id_ed25519.pub).
func ParsePublicKeys(data []byte) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("line %d is no public key of OpenSSH", n)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no public key in it")
	}
	return keys, nil
}
