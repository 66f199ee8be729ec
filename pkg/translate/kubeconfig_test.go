package translate_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const plantedKey = "cGxhbnRlZC1jbGllbnQta2V5LWRhdGE="

// adminKubeconfig is what a control plane has, with a planted key in it; its length is
// of the order of a real one.
func adminKubeconfig() string {
	return `apiVersion: v1
kind: Config
clusters:
- name: kubernetes
  cluster:
    certificate-authority-data: ` + strings.Repeat("QUJD", 400) + `
    server: https://10.0.0.9:6443
users:
- name: kubernetes-admin
  user:
    client-key-data: ` + plantedKey + `
contexts:
- name: kubernetes-admin@kubernetes
  context: {cluster: kubernetes, user: kubernetes-admin}
current-context: kubernetes-admin@kubernetes
`
}

func sealingKey(tb testing.TB) (*rsa.PrivateKey, []byte) {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// runHere runs the last action of a map on this machine, as far as that is harmless:
// without the guard and the preamble, and with every path of a host below dir.
func runHere(t *testing.T, m wire.Map, dir string) (string, error) {
	t.Helper()
	actions := m.Deployments[0].Actions
	_, text := script(t, actions[len(actions)-1])
	const end = "| tr -d '\\n')\"; }\n" // of the preamble
	i := strings.LastIndex(text, end)
	if i < 0 {
		t.Fatalf("the preamble does not end as expected: %s", text)
	}
	text = strings.ReplaceAll(text[i+len(end):], "/etc/kubernetes", dir)
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail; R="+dir+"\n"+text)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func logOf(m wire.Map, output, failure string) wire.Log {
	actions := m.Deployments[0].Actions
	return wire.Log{State: wire.StateCompleted, Entries: []wire.LogEntry{{Task: actions[len(actions)-1].Name, Entry: output, Error: failure}}}
}

// TestSealedByOpenSSL: what the machine's own openssl seals is opened, and nothing of it
// can be seen on the way.
func TestSealedByOpenSSL(t *testing.T) {
	key, public := sealingKey(t)
	in := harmless()
	k := in.kubernetes()
	m, err := translate.ReadAdminMap("job", in.target(), k, public)
	if err != nil {
		t.Fatal(err)
	}
	checkMap(t, "kubeconfig", m, in)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "admin.conf"), []byte(adminKubeconfig()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runHere(t, m, dir)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.Contains(out, plantedKey) || strings.Contains(out, base64.StdEncoding.EncodeToString([]byte(plantedKey))[:20]) {
		t.Error("the key can be read in what was printed")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("the script left %v", left)
	}
	got, err := translate.OpenAdmin(logOf(m, "a word on stderr\n"+out, ""), "job", k, key)
	if err != nil || string(got) != adminKubeconfig() {
		t.Errorf("opened %d bytes, err %v", len(got), err)
	}

	other, _ := sealingKey(t)
	damaged := strings.Replace(out, "\n", "\nAAAA", 2)
	for name, tt := range map[string]struct {
		log wire.Log
		key *rsa.PrivateKey
	}{
		"another run's key": {logOf(m, out, ""), other},
		"no key":            {logOf(m, out, ""), nil},
		"damaged":           {logOf(m, damaged, ""), key},
		"cut off":           {logOf(m, out[:len(out)/2], ""), key},
		"nothing":           {logOf(m, "", ""), key},
		"another job":       {wire.Log{}, key},
	} {
		if got, err := translate.OpenAdmin(tt.log, "job", k, tt.key); err == nil || got != nil || strings.Contains(err.Error(), plantedKey) {
			t.Errorf("%s: %d bytes, err %v", name, len(got), err)
		}
	}
}

// TestPlainKubeconfig: for hosts without openssl.
func TestPlainKubeconfig(t *testing.T) {
	in := harmless()
	k := in.kubernetes()
	k.KubeconfigTransport = capi.KubeconfigPlain
	m, err := translate.ReadAdminMap("job", in.target(), k, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := runHere(t, m, dir); err == nil || !strings.Contains(out, "capplunder-error there is no") {
		t.Errorf("no admin.conf: %q, %v", out, err)
	}
	for text, want := range map[string]bool{adminKubeconfig(): true, "kind: Secret\ndata: " + plantedKey: false, "{" + plantedKey: false} {
		if err := os.WriteFile(filepath.Join(dir, "admin.conf"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := runHere(t, m, dir)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got, err := translate.OpenAdmin(logOf(m, out, ""), "job", k, nil)
		if (err == nil) != want || want && string(got) != text || err != nil && strings.Contains(err.Error(), plantedKey) {
			t.Errorf("%.20q: %d bytes, err %v", text, len(got), err)
		}
	}
	// Sealed is asked for, plain is answered: that is not taken.
	if _, err := translate.OpenAdmin(logOf(m, "CAPPLUNDER-PLAIN-BEGIN\nQQ==\nCAPPLUNDER-PLAIN-END\n", ""), "job", in.kubernetes(), nil); err == nil {
		t.Error("a plain kubeconfig was taken for a sealed one")
	}
}

// TestSealingKey: only an RSA key gets into the command, and nothing but a key.
func TestSealingKey(t *testing.T) {
	in := harmless()
	for _, text := range []string{"", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "'; reboot; '"} {
		if _, err := translate.ReadAdminMap("job", in.target(), in.kubernetes(), []byte(text)); err == nil {
			t.Errorf("%q was taken for a key", text)
		}
	}
	_, public := sealingKey(t)
	m, err := translate.ReadAdminMap("job", in.target(), in.kubernetes(), append([]byte("'; reboot; '\n"), public...))
	if err != nil {
		t.Fatal(err)
	}
	if c := m.Deployments[0].Actions[1].Command; strings.Contains(c, "reboot") || !bytes.Contains([]byte(c), []byte("openssl")) {
		t.Errorf("%s", c)
	}
}

// FuzzOpenAdmin: whatever a machine prints, it is a kubeconfig or an error.
func FuzzOpenAdmin(f *testing.F) {
	key, _ := sealingKey(f)
	f.Add("CAPPLUNDER-SEALED-BEGIN\nAAAA\nAAAA\nCAPPLUNDER-SEALED-END\n", false)
	f.Add("CAPPLUNDER-PLAIN-BEGIN\nQQ==\nCAPPLUNDER-PLAIN-END\n", true)
	f.Fuzz(func(t *testing.T, text string, plain bool) {
		k := &translate.Kubernetes{}
		if plain {
			k.KubeconfigTransport = capi.KubeconfigPlain
		}
		l := wire.Log{Entries: []wire.LogEntry{{Task: translate.TaskName("kubeconfig.read", "job"), Entry: text}}}
		if got, err := translate.OpenAdmin(l, "job", k, key); (err == nil) == (got == nil) {
			t.Errorf("%q, err %v", got, err)
		}
	})
}
