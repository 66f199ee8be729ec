package translate

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the hash of openssl's OAEP; it is not used as a signature
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	taskKubeconfig = "kubeconfig.read"
	adminConf      = "/etc/kubernetes/admin.conf"
	sealedBegin    = "CAPPLUNDER-SEALED-BEGIN"
	sealedEnd      = "CAPPLUNDER-SEALED-END"
	plainBegin     = "CAPPLUNDER-PLAIN-BEGIN"
	plainEnd       = "CAPPLUNDER-PLAIN-END"
	// saltHeader is what openssl enc writes ahead of eight bytes of salt.
	saltHeader = "Salted__"
)

// What is printed lies in plunder's memory for all who can reach its API: only who has
// the private key can read it. The password goes to openssl in a file, for every user
// of the host sees the arguments of a program. It is 32 random bytes, so that one round
// of key derivation is enough, which openssl 1.0 knows, too (and newer ones warn of).
const sealScript = `[ -s {{CONF}} ] || { echo 'capplunder-error there is no {{CONF}}'; exit 1; }
command -v openssl >/dev/null || { echo 'capplunder-error there is no openssl to seal the kubeconfig with'; exit 1; }
umask 077; d=$(mktemp -d -p $R); trap 'rm -rf "$d"' EXIT; echo {{KEY}} | base64 -d >"$d/p"; openssl rand -hex 32 >"$d/k"
openssl pkeyutl -encrypt -pubin -inkey "$d/p" -pkeyopt rsa_padding_mode:oaep -in "$d/k" -out "$d/w"
openssl enc -aes-256-cbc -md sha256 -salt -pass file:"$d/k" -in {{CONF}} -out "$d/s" 2>/dev/null
echo {{BEGIN}}; base64 <"$d/w" | tr -d '\n'; echo; base64 <"$d/s" | tr -d '\n'; echo; echo {{END}}`

const plainScript = `[ -s {{CONF}} ] || { echo 'capplunder-error there is no {{CONF}}'; exit 1; }
echo {{BEGIN}}; base64 <{{CONF}} | tr -d '\n'; echo; echo {{END}}`

// ReadAdminMap has a control plane print its administrator's kubeconfig, encrypted for
// publicKeyPEM (an RSA key as x509.MarshalPKIXPublicKey writes it, of this run alone).
// With k.KubeconfigTransport plain it is not encrypted, and the key is ignored: whoever
// can read the log of this address on the plunder server can read it, until the log is
// deleted.
func ReadAdminMap(job string, t Target, k *Kubernetes, publicKeyPEM []byte) (wire.Map, error) {
	b := newInstallMap(job, t, k)
	values := map[string]string{"CONF": adminConf, "BEGIN": plainBegin, "END": plainEnd}
	script := plainScript
	if k.KubeconfigTransport != capi.KubeconfigPlain {
		b.check(checkPublicKey(publicKeyPEM))
		script = sealScript
		values["BEGIN"], values["END"] = sealedBegin, sealedEnd
		values["KEY"] = base64.StdEncoding.EncodeToString(publicKeyPEM)
	}
	b.bash(taskKubeconfig, time.Minute, fill(script, values))
	return b.done("kubeconfig")
}

func checkPublicKey(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil {
		return errors.New("the key to seal the kubeconfig with is not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("the key to seal the kubeconfig with: %w", err)
	}
	if _, ok := key.(*rsa.PublicKey); !ok {
		return fmt.Errorf("the key to seal the kubeconfig with is %T, not RSA", key)
	}
	return nil
}

// OpenAdmin reads what ReadAdminMap had printed; key is the private key of its public
// one, and may be nil for the plain transport. Errors never show what was read.
func OpenAdmin(l wire.Log, job string, k *Kubernetes, key *rsa.PrivateKey) ([]byte, error) {
	e, ok := entry(l, TaskName(taskKubeconfig, job))
	if !ok {
		return nil, fmt.Errorf("action %s did not run", taskKubeconfig)
	}
	var out []byte
	if k.KubeconfigTransport == capi.KubeconfigPlain {
		parts, err := between(e.Entry, plainBegin, plainEnd, 1)
		if err != nil {
			return nil, err
		}
		out = parts[0]
	} else {
		parts, err := between(e.Entry, sealedBegin, sealedEnd, 2)
		if err != nil {
			return nil, err
		}
		if out, err = unseal(parts[0], parts[1], key); err != nil {
			return nil, err
		}
	}
	if err := checkKubeconfig(out); err != nil {
		return nil, err
	}
	return out, nil
}

// between are the base64 lines between two markers.
func between(text, begin, end string, n int) ([][]byte, error) {
	_, rest, ok := strings.Cut(text, begin)
	body, _, ok2 := strings.Cut(rest, end)
	lines := strings.Fields(body)
	if !ok || !ok2 || len(lines) != n {
		return nil, fmt.Errorf("action %s did not print the kubeconfig", taskKubeconfig)
	}
	out := make([][]byte, n)
	for i, line := range lines {
		var err error
		if out[i], err = base64.StdEncoding.DecodeString(line); err != nil {
			return nil, fmt.Errorf("what action %s printed is not base64", taskKubeconfig)
		}
	}
	return out, nil
}

// unseal opens what openssl pkeyutl (OAEP) and openssl enc (AES-256-CBC, key derived
// once with SHA-256 from the password and a salt) wrote.
func unseal(wrapped, sealed []byte, key *rsa.PrivateKey) ([]byte, error) {
	damaged := errors.New("the sealed kubeconfig cannot be opened: it is damaged, or was sealed for another run")
	if key == nil {
		return nil, damaged
	}
	secret, err := rsa.DecryptOAEP(sha1.New(), nil, key, wrapped, nil) //nolint:gosec // see the import
	if err != nil {
		return nil, damaged
	}
	password := bytes.TrimRight(secret, "\r\n")
	salted, ok := bytes.CutPrefix(sealed, []byte(saltHeader))
	if !ok || len(salted) < 8+aes.BlockSize || (len(salted)-8)%aes.BlockSize != 0 {
		return nil, damaged
	}
	salt, text := salted[:8], bytes.Clone(salted[8:])
	first := sha256.Sum256(append(bytes.Clone(password), salt...))
	second := sha256.Sum256(append(append(bytes.Clone(first[:]), password...), salt...))
	block, err := aes.NewCipher(first[:])
	if err != nil {
		return nil, damaged
	}
	cipher.NewCBCDecrypter(block, second[:aes.BlockSize]).CryptBlocks(text, text)
	pad := int(text[len(text)-1])
	if pad < 1 || pad > aes.BlockSize || !bytes.HasSuffix(text, bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, damaged
	}
	return text[:len(text)-pad], nil
}

// checkKubeconfig makes sure that it is one: a cluster with a server, and a user.
func checkKubeconfig(text []byte) error {
	var c struct {
		Kind     string `json:"kind"`
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []any `json:"users"`
	}
	// The parser's own error may quote the text.
	if err := yaml.Unmarshal(text, &c); err != nil || c.Kind != "Config" || len(c.Clusters) == 0 || c.Clusters[0].Cluster.Server == "" || len(c.Users) == 0 {
		return errors.New("what the control plane gave as its kubeconfig is not one")
	}
	return nil
}
