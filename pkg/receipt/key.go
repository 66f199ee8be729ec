package receipt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Namespace is what the signatures of receipts are for (ssh-keygen -n), so that none that
// was made for something else is taken for one.
const Namespace = "receipt@capplunder.plunder-app.io"

// agentPatience is how long an SSH agent may take over one signature: it may ask a person.
const agentPatience = 2 * time.Minute

// Key signs receipts.
type Key struct {
	public ssh.PublicKey
	name   string // the file it was read from
	// with gives a function what signs, for as long as the function runs.
	with func(func(ssh.Signer) error) error
}

// Fingerprint is the key as ssh-keygen -l shows it, "SHA256:…".
func (k *Key) Fingerprint() string { return ssh.FingerprintSHA256(k.public) }

// KeyOptions are what LoadKey may need besides the file.
type KeyOptions struct {
	// Passphrase is asked for if the private key has one; nil if nobody can be asked.
	Passphrase func(ctx context.Context, file string) ([]byte, error)
	// AgentSocket is where the SSH agent listens ($SSH_AUTH_SOCK), "" for none.
	AgentSocket string
}

// LoadKey reads a private key in a format of OpenSSH. Given a public key (.pub) the SSH
// agent signs. Nothing of a private key is ever in an error.
func LoadKey(ctx context.Context, file string, o KeyOptions) (*Key, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("key for receipts: %w", err)
	}
	if public, _, _, _, err := ssh.ParseAuthorizedKey(data); err == nil {
		k := &Key{public: public, name: file}
		k.with = func(f func(ssh.Signer) error) error { return k.withAgent(o.AgentSocket, f) }
		return k, usable(file, public)
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		if signer, err = unlock(ctx, file, data, o); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("key for receipts: %s is neither a private key of OpenSSH nor a public one", file)
	}
	k := &Key{public: signer.PublicKey(), name: file}
	k.with = func(f func(ssh.Signer) error) error { return f(signer) }
	return k, usable(file, k.public)
}

func unlock(ctx context.Context, file string, data []byte, o KeyOptions) (ssh.Signer, error) {
	if o.Passphrase == nil {
		return nil, fmt.Errorf("key for receipts: %s has a passphrase, and there is no terminal to ask for it: ssh-add it and give its .pub file", file)
	}
	phrase, err := o.Passphrase(ctx, file)
	if err != nil {
		return nil, fmt.Errorf("passphrase of %s: %w", file, err)
	}
	defer clear(phrase)
	signer, err := ssh.ParsePrivateKeyWithPassphrase(data, phrase)
	if err != nil {
		return nil, fmt.Errorf("key for receipts: the passphrase does not open %s", file)
	}
	return signer, nil
}

// usable refuses kinds of keys that ssh-keygen would not verify or that need a person
// at a token for every machine.
func usable(file string, k ssh.PublicKey) error {
	switch k.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return nil
	}
	return fmt.Errorf("key for receipts: %s is a key of type %s; use ed25519, ecdsa or rsa", file, k.Type())
}

// withAgent lets the key of the SSH agent sign. The agent is asked each time: it may be
// restarted during the hours that wipes take.
func (k *Key) withAgent(socket string, f func(ssh.Signer) error) error {
	if socket == "" {
		return fmt.Errorf("%s is a public key, and there is no SSH agent (SSH_AUTH_SOCK) that could sign: start one and ssh-add %s, or give the private key", k.name, privateOf(k.name))
	}
	conn, err := (&net.Dialer{Timeout: agentPatience}).Dial("unix", socket)
	if err != nil {
		return fmt.Errorf("SSH agent: %w", err)
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	if err := conn.SetDeadline(time.Now().Add(agentPatience)); err != nil {
		return fmt.Errorf("SSH agent: %w", err)
	}
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		return fmt.Errorf("SSH agent: %w", err)
	}
	for _, s := range signers {
		if bytes.Equal(s.PublicKey().Marshal(), k.public.Marshal()) {
			return f(s)
		}
	}
	return fmt.Errorf("the SSH agent has no key %s (%s): ssh-add %s, or give the private key", k.Fingerprint(), k.name, privateOf(k.name))
}

func privateOf(public string) string {
	if ext := filepath.Ext(public); ext == ".pub" {
		return public[:len(public)-len(ext)]
	}
	return "it"
}

// sign is the armored signature over data, as ssh-keygen -Y sign writes it.
func (k *Key) sign(data io.Reader) ([]byte, error) {
	var armored []byte
	err := k.with(func(s ssh.Signer) error {
		sig, err := sshsig.Sign(data, s, sshsig.HashSHA512, Namespace)
		if err != nil {
			return err
		}
		armored = sshsig.Armor(sig)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sign the receipt: %w", err)
	}
	return armored, nil
}
