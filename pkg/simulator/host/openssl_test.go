package host

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"
)

// What openssl on a host encrypts is what anybody with the key can open.
func TestOpenssl(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pub := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	h := newTestHost(t)
	r := run(t, h, `set -e; cd /root; printf 'the text' >t; echo `+pub+` | base64 -d >p; openssl rand -hex 32 >k; openssl rand -hex 16 >i
openssl pkeyutl -encrypt -pubin -inkey p -pkeyopt rsa_padding_mode:oaep -in k | base64 | tr -d '\n'; echo
openssl enc -aes-256-cbc -K "$(cat k)" -iv "$(cat i)" -in t | base64; cat i
openssl enc -aes-256-cbc -md sha256 -salt -pass file:k -in t -out s 2>/dev/null; base64 <s
openssl enc -d -aes-256-cbc -md sha256 -pass file:k -in s 2>/dev/null; echo`)
	lines := strings.Split(r.Output, "\n")
	if r.Exit != 0 || len(lines) != 5 {
		t.Fatalf("status %d: %q", r.Exit, r.Output)
	}
	decode := func(s string) []byte {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	secret, err := rsa.DecryptOAEP(sha1.New(), nil, key, decode(lines[0]), nil)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(string(secret))
	raw, _ := hex.DecodeString(text)
	iv, _ := hex.DecodeString(lines[2])
	if got := open(t, raw, iv, decode(lines[1])); got != "the text" {
		t.Errorf("-K and -iv: %q", got)
	}
	sealed := decode(lines[3])
	first := sha256.Sum256(append([]byte(text), sealed[8:16]...))
	second := sha256.Sum256(append(append(first[:], text...), sealed[8:16]...))
	if got := open(t, first[:], second[:16], sealed[16:]); string(sealed[:8]) != "Salted__" || got != "the text" {
		t.Errorf("-pass: %q", got)
	}
	if lines[4] != "the text" {
		t.Errorf("-d: %q", lines[4])
	}
	for script, want := range map[string]string{
		`openssl frob`: "Invalid command 'frob'",
		`openssl pkeyutl -encrypt -pubin -inkey /none -pkeyopt rsa_padding_mode:oaep -in /etc/hostname`:         "Could not open file or uri for loading public key from /none",
		`openssl enc -aes-256-cbc -K zz -iv 00 -in /etc/hostname`:                                               "invalid hex key value",
		`openssl enc -aes-256-cbc -K 00 -iv 00 -in /none`:                                                       `Can't open "/none" for reading, No such file or directory`,
		`openssl enc -des -in /etc/hostname`:                                                                    "Unknown cipher: des",
		`openssl rand -hex x`:                                                                                   `Can't parse "x" as a number`,
		`head -c 400 /dev/zero | openssl pkeyutl -encrypt -pubin -inkey /root/p -pkeyopt rsa_padding_mode:oaep`: "data too large for key size",
		`openssl enc -d -aes-256-cbc -pass pass:x -in /etc/hostname`:                                            "bad magic number",
		`openssl enc -aes-256-cbc -pass file:/none -in /etc/hostname`:                                           "Error getting password",
		`openssl pkeyutl -encrypt -pubin -inkey /root/p -pkeyopt rsa_padding_mode:oaep -in /none`:               `Can't open "/none" for reading`,
		`openssl pkeyutl -encrypt -pubin -inkey /root/p -pkeyopt rsa_padding_mode:none -in /etc/hostname`:       "Can't set parameter",
		`openssl pkeyutl -decrypt -inkey /root/p -pkeyopt rsa_padding_mode:oaep -in /etc/hostname`:              "Unknown option: -decrypt",
		`openssl enc -aes-256-cbc -k x -iter 0 -pbkdf2 -in /etc/hostname`:                                       "Non-positive number",
		`openssl dgst -sha256 /none`:                                                                            "No such file or directory",
	} {
		if r := run(t, h, script); r.Exit != 1 || !strings.Contains(r.Output, want) {
			t.Errorf("%s: status %d, %q, want %q", script, r.Exit, r.Output, want)
		}
	}
}

func open(t *testing.T, key, iv, data []byte) string {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(data, data)
	return string(data[:len(data)-int(data[len(data)-1])])
}
