package receipt

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// keygen runs ssh-keygen, with the receipt of a test as its input.
func keygen(t *testing.T, input []byte, args ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("there is no ssh-keygen (openssh-client)")
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// newKey makes a key pair with ssh-keygen.
func newKey(t *testing.T, kind, phrase string) (private, public string) {
	t.Helper()
	private = filepath.Join(t.TempDir(), "id")
	args := []string{"-q", "-t", kind, "-N", phrase, "-f", private}
	if kind == "rsa" {
		args = append(args, "-b", "2048")
	}
	if out, err := keygen(t, nil, args...); err != nil {
		t.Fatal(err, out)
	}
	return private, private + ".pub"
}

// serveAgent runs an SSH agent that holds a private key.
func serveAgent(t *testing.T, private string) (socket string) {
	t.Helper()
	data, err := os.ReadFile(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "rcpt") //nolint:usetesting // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(ring, conn)
			}()
		}
	}()
	return socket
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// allowed writes an allowed signers file for a public key.
func allowed(t *testing.T, public string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "allowed_signers")
	line := `ann@ops namespaces="` + Namespace + `" ` + string(mustRead(t, public))
	if err := os.WriteFile(file, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Each verifies what the other signed, with every kind of key; by itself and by an agent.
func TestKeygen(t *testing.T) {
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		t.Run(kind, func(t *testing.T) {
			private, public := newKey(t, kind, "")
			signers := allowed(t, public)
			trusted, err := ParseAllowedSigners(mustRead(t, signers), time.UTC)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "wiped.json")
			socket := serveAgent(t, private)
			for i, name := range []string{private, public} {
				key, err := LoadKey(t.Context(), name, KeyOptions{AgentSocket: socket})
				if err != nil {
					t.Fatal(err)
				}
				f := open(t, file, key)
				if err := f.Add(wiped("worker", []string{"r1", "r2"}[i])); err != nil {
					t.Fatal(err)
				}
				shut(t, f)
				data := mustRead(t, file)
				out, err := keygen(t, data, "-Y", "verify", "-f", signers, "-I", "ann@ops", "-n", Namespace, "-s", file+".sig")
				if err != nil || !strings.Contains(out, "Good") || !strings.Contains(out, key.Fingerprint()) {
					t.Errorf("%s: %v: %s", name, err, out)
				}
				if out, err := keygen(t, append(data, ' '), "-Y", "verify", "-f", signers, "-I", "ann@ops", "-n", Namespace, "-s", file+".sig"); err == nil {
					t.Errorf("ssh-keygen takes a changed receipt: %s", out)
				}
			}
			data := mustRead(t, file)
			if err := os.Remove(file + ".sig"); err != nil {
				t.Fatal(err)
			}
			if out, err := keygen(t, nil, "-Y", "sign", "-f", private, "-n", Namespace, file); err != nil {
				t.Fatal(err, out)
			}
			sig, err := SignatureOf(file, data)
			if err != nil {
				t.Fatal(err)
			}
			if who, err := trusted.Find(sig, "ann@ops", time.Now()); err != nil || who != "ann@ops" {
				t.Errorf("%q, %v", who, err)
			}
			if _, err := VerifySignature(append(data, ' '), mustRead(t, file+".sig")); err == nil || !strings.Contains(err.Error(), "was changed") {
				t.Errorf("a changed receipt: %v", err)
			}
			if err := os.Remove(file + ".sig"); err != nil {
				t.Fatal(err)
			}
			if out, err := keygen(t, nil, "-Y", "sign", "-f", private, "-n", "git", file); err != nil {
				t.Fatal(err, out)
			}
			if _, err := SignatureOf(file, data); err == nil || !strings.Contains(err.Error(), `"git"`) {
				t.Errorf("a signature for git: %v", err)
			}
		})
	}
}

// A signature whose key was exchanged for the wanted one is none.
func TestForgedKey(t *testing.T) {
	private, _ := newKey(t, "ed25519", "")
	_, otherPub := newKey(t, "ed25519", "")
	key, err := LoadKey(t.Context(), private, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := ParsePublicKeys(mustRead(t, otherPub))
	if err != nil {
		t.Fatal(err)
	}
	armored, err := key.sign(strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	forged := rearm(t, armored, key.public.Marshal(), other[0].Marshal())
	if _, err := VerifySignature([]byte("x"), forged); err == nil {
		t.Error("taken")
	}
}

func TestLoadKey(t *testing.T) {
	private, public := newKey(t, "ed25519", "secret")
	plain, plainPub := newKey(t, "ed25519", "")
	socket := serveAgent(t, plain)
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	say := func(phrase string, err error) func(context.Context, string) ([]byte, error) {
		return func(context.Context, string) ([]byte, error) { return []byte(phrase), err }
	}
	for name, tt := range map[string]struct {
		file string
		o    KeyOptions
		load string // parts of the errors of loading and signing
		sign string
	}{
		"passphrase":            {file: private, o: KeyOptions{Passphrase: say("secret", nil)}},
		"wrong passphrase":      {file: private, o: KeyOptions{Passphrase: say("no", nil)}, load: "does not open"},
		"no passphrase":         {file: private, load: "no terminal to ask"},
		"interrupted":           {file: private, o: KeyOptions{Passphrase: say("", context.Canceled)}, load: "context canceled"},
		"agent":                 {file: plainPub, o: KeyOptions{AgentSocket: socket}},
		"agent without the key": {file: public, o: KeyOptions{AgentSocket: socket}, sign: "the SSH agent has no key SHA256:"},
		"no agent":              {file: public, sign: "there is no SSH agent (SSH_AUTH_SOCK)"},
		"dead agent":            {file: public, o: KeyOptions{AgentSocket: filepath.Join(t.TempDir(), "gone")}, sign: "SSH agent: dial"},
		"damaged":               {file: text, load: "neither a private key of OpenSSH nor a public one"},
		"missing":               {file: text + "x", load: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := LoadKey(t.Context(), tt.file, tt.o)
			if (err == nil) != (tt.load == "") || err != nil && !strings.Contains(err.Error(), tt.load) {
				t.Fatalf("%v, want %q", err, tt.load)
			}
			if err != nil {
				if strings.Contains(err.Error(), "c2VjcmV0") {
					t.Errorf("the error shows the key: %v", err)
				}
				return
			}
			_, err = key.sign(strings.NewReader("x"))
			if (err == nil) != (tt.sign == "") || err != nil && !strings.Contains(err.Error(), tt.sign) {
				t.Errorf("%v, want %q", err, tt.sign)
			}
		})
	}
}

func TestSignatureOf(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "wiped.json")
	if _, err := SignatureOf(file, nil); !errors.Is(err, ErrUnsigned) {
		t.Error(err)
	}
	if err := os.WriteFile(file+".sig", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SignatureOf(file, nil); err == nil || errors.Is(err, ErrUnsigned) {
		t.Error(err)
	}
}

func FuzzVerifySignature(f *testing.F) {
	seed := []byte("-----BEGIN SSH SIGNATURE-----\nU1NIU0lHAAAAAQ==\n-----END SSH SIGNATURE-----\n")
	f.Add([]byte("x"), seed)
	f.Fuzz(func(t *testing.T, data, armored []byte) {
		if _, err := VerifySignature(data, armored); err == nil {
			t.Errorf("a signature made of thin air: %s", armored)
		}
	})
}
