package host

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // openssl's own default for OAEP; it is not used as a signature
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
)

// cmdOpenssl is the part of openssl 3 that scripts use to seal something: version,
// rand, pkeyutl -encrypt, enc -aes-256-cbc and dgst. The cryptography is real, so that
// what a host sealed can be opened by whoever has the key.
func cmdOpenssl(c *call) int {
	if len(c.args) < 2 {
		return c.fail(1, "interactive mode is not possible")
	}
	o := opensslArgs{values: map[string]string{}}
	switch c.args[1] {
	case "version":
		c.printf("OpenSSL 3.0.13 30 Jan 2024 (Library: OpenSSL 3.0.13 30 Jan 2024)\n")
		return 0
	case "rand":
		return c.opensslRand(o.parse(c.args[2:], "-out"))
	case "pkeyutl":
		return c.opensslEncrypt(o.parse(c.args[2:], "-in", "-out", "-inkey", "-pkeyopt"))
	case "enc", "aes-256-cbc":
		args := c.args[2:]
		if c.args[1] != "enc" {
			args = append([]string{"-" + c.args[1]}, args...)
		}
		return c.opensslEnc(o.parse(args, "-in", "-out", "-K", "-iv", "-pass", "-k", "-md", "-iter", "-S"))
	case "dgst":
		return c.opensslDigest(o.parse(c.args[2:], "-out"))
	}
	c.errf("Invalid command '%s'; type \"help\" for a list.", c.args[1])
	return 1
}

// opensslArgs are options with one dash, some with a value, and the operands.
type opensslArgs struct {
	flags   []string
	values  map[string]string
	options []string // all values of -pkeyopt
	rest    []string
}

func (o opensslArgs) parse(args []string, withValue ...string) opensslArgs {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case !strings.HasPrefix(a, "-"):
			o.rest = append(o.rest, a)
		case slices.Contains(withValue, a) && i+1 < len(args):
			i++
			o.values[a] = args[i]
			if a == "-pkeyopt" {
				o.options = append(o.options, args[i])
			}
		default:
			o.flags = append(o.flags, a)
		}
	}
	return o
}

func (o opensslArgs) has(flag string) bool { return slices.Contains(o.flags, flag) }

// only reports the first option that is not one of these.
func (o opensslArgs) only(known ...string) (unknown string) {
	for _, f := range o.flags {
		if !slices.Contains(known, f) {
			return f
		}
	}
	return ""
}

func (c *call) opensslError(format string, args ...any) int {
	c.errf(format, args...)
	return 1
}

// opensslInput is the file of -in, or standard input.
func (c *call) opensslInput(o opensslArgs) ([]byte, bool) {
	name, ok := o.values["-in"]
	if !ok {
		b, err := c.stdin()
		return b, err == nil
	}
	b, err := c.read(name)
	if err != nil {
		c.errf("Can't open \"%s\" for reading, %s", name, errText(err))
		return nil, false
	}
	return b, true
}

func (c *call) opensslOutput(o opensslArgs, data []byte) int {
	name, ok := o.values["-out"]
	if !ok {
		_, _ = c.out.Write(data)
		return 0
	}
	if err := c.write(name, data, 0o666); err != nil {
		return c.opensslError("Can't open \"%s\" for writing, %s", name, errText(err))
	}
	return 0
}

func (c *call) opensslRand(o opensslArgs) int {
	if f := o.only("-hex", "-base64"); f != "" {
		return c.opensslError("rand: Unknown option: %s", f)
	}
	if len(o.rest) != 1 {
		return c.opensslError("rand: Use -help for summary.")
	}
	n, err := strconv.Atoi(o.rest[0])
	if err != nil || n < 0 {
		return c.opensslError("rand: Can't parse \"%s\" as a number\nrand: Use -help for summary.", o.rest[0])
	}
	b := c.h.randomBytes(min(n, 4096))
	if o.has("-hex") {
		b = []byte(hex.EncodeToString(b) + "\n")
	}
	return c.opensslOutput(o, b)
}

// randomBytes are repeatable, like all chance on a host.
func (h *Host) randomBytes(n int) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(h.random.Uint32())
	}
	return b
}

// opensslEncrypt is pkeyutl -encrypt -pubin with OAEP.
func (c *call) opensslEncrypt(o opensslArgs) int {
	if f := o.only("-encrypt", "-pubin"); f != "" {
		return c.opensslError("pkeyutl: Unknown option: %s", f)
	}
	if !o.has("-encrypt") || !o.has("-pubin") {
		return c.opensslError("pkeyutl: the simulator only encrypts with a public key")
	}
	newHash := sha1.New
	padded := false
	for _, opt := range o.options {
		switch opt {
		case "rsa_padding_mode:oaep":
			padded = true
		case "rsa_oaep_md:sha1", "rsa_mgf1_md:sha1":
		case "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256":
			newHash = sha256.New
		default:
			return c.opensslError("pkeyutl: Can't set parameter \"%s\":", opt)
		}
	}
	if !padded {
		return c.opensslError("pkeyutl: the simulator only knows rsa_padding_mode:oaep")
	}
	name := o.values["-inkey"]
	b, err := c.read(name)
	var key *rsa.PublicKey
	if block, _ := pem.Decode(b); err == nil && block != nil {
		parsed, _ := x509.ParsePKIXPublicKey(block.Bytes)
		key, _ = parsed.(*rsa.PublicKey)
	}
	if key == nil {
		return c.opensslError("Could not open file or uri for loading public key from %s\npkeyutl: Error initializing context", name)
	}
	data, ok := c.opensslInput(o)
	if !ok {
		return 1
	}
	sealed, err := rsa.EncryptOAEP(newHash(), rand.Reader, key, data, nil)
	if err != nil {
		return c.opensslError("Public Key operation error\nerror:0200006E:rsa routines:ossl_rsa_padding_add_PKCS1_OAEP_mgf1_ex:data too large for key size")
	}
	return c.opensslOutput(o, sealed)
}

// opensslEnc is enc -aes-256-cbc, with -K and -iv or with a password.
func (c *call) opensslEnc(o opensslArgs) int {
	if f := o.only("-aes-256-cbc", "-e", "-d", "-salt", "-pbkdf2", "-nosalt"); f != "" {
		return c.opensslError("enc: Unknown cipher: %s\nenc: Use -help for summary.", strings.TrimPrefix(f, "-"))
	}
	if !o.has("-aes-256-cbc") {
		return c.opensslError("enc: the simulator only knows -aes-256-cbc")
	}
	data, ok := c.opensslInput(o)
	if !ok {
		return 1
	}
	var key, iv, header []byte
	if _, raw := o.values["-K"]; raw {
		var bad bool
		if key, bad = hexKey(o.values["-K"], 32); bad {
			return c.opensslError("non-hex digit\ninvalid hex key value")
		}
		if iv, bad = hexKey(o.values["-iv"], aes.BlockSize); bad {
			return c.opensslError("non-hex digit\ninvalid hex iv value")
		}
	} else {
		password, found := c.opensslPassword(o)
		if !found {
			return c.opensslError("enc: Error getting password")
		}
		var salt []byte
		switch {
		case o.has("-nosalt"):
		case o.has("-d"):
			if !bytes.HasPrefix(data, []byte(opensslSalted)) || len(data) < len(opensslSalted)+8 {
				return c.opensslError("bad magic number")
			}
			salt, data = data[len(opensslSalted):len(opensslSalted)+8], data[len(opensslSalted)+8:]
		default:
			salt = c.h.randomBytes(8)
			header = append([]byte(opensslSalted), salt...)
		}
		var err error
		if key, iv, err = o.derive(password, salt); err != nil {
			return c.opensslError("enc: %v", err)
		}
		if !o.has("-pbkdf2") {
			c.errf("*** WARNING : deprecated key derivation used.\nUsing -iter or -pbkdf2 would be better.")
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return c.opensslError("enc: %v", err)
	}
	if !o.has("-d") {
		n := aes.BlockSize - len(data)%aes.BlockSize
		data = append(bytes.Clone(data), bytes.Repeat([]byte{byte(n)}, n)...)
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
		return c.opensslOutput(o, append(header, data...))
	}
	if len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return c.opensslError("bad decrypt\nerror:1C80006B:Provider routines:ossl_cipher_generic_block_final:wrong final block length")
	}
	data = bytes.Clone(data)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(data, data)
	n := int(data[len(data)-1])
	if n < 1 || n > aes.BlockSize {
		return c.opensslError("bad decrypt\nerror:1C800064:Provider routines:ossl_cipher_unpadblock:bad decrypt")
	}
	return c.opensslOutput(o, data[:len(data)-n])
}

const opensslSalted = "Salted__"

// hexKey is a key given in hex, filled up with zeros.
func hexKey(s string, size int) (key []byte, bad bool) {
	if len(s)%2 == 1 {
		s += "0"
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) > size {
		return nil, true
	}
	return append(b, make([]byte, size-len(b))...), false
}

// opensslPassword is what -pass names: the first line of a file, or the text itself.
func (c *call) opensslPassword(o opensslArgs) ([]byte, bool) {
	if k, ok := o.values["-k"]; ok {
		return []byte(k), true
	}
	kind, text, _ := strings.Cut(o.values["-pass"], ":")
	switch kind {
	case "pass":
		return []byte(text), true
	case "env":
		v := c.exported()[text]
		return []byte(v), v != ""
	case "file":
		b, err := c.read(text)
		line, _, _ := bytes.Cut(b, []byte("\n"))
		return line, err == nil
	}
	return nil, false
}

// derive makes key and initial vector from a password as EVP_BytesToKey does with one
// round, or with PBKDF2.
func (o opensslArgs) derive(password, salt []byte) (key, iv []byte, err error) {
	newHash := map[string]func() hash.Hash{"": sha256.New, "sha256": sha256.New, "sha1": sha1.New}[o.values["-md"]]
	if newHash == nil {
		return nil, nil, fmt.Errorf("unknown option or message digest: %s", o.values["-md"])
	}
	const size = 32 + aes.BlockSize
	var out []byte
	if o.has("-pbkdf2") || o.values["-iter"] != "" {
		n := 10000
		if v := o.values["-iter"]; v != "" {
			if n, err = strconv.Atoi(v); err != nil || n < 1 {
				return nil, nil, fmt.Errorf("Non-positive number \"%s\" for option -iter", v) //nolint:staticcheck // openssl's own words
			}
		}
		if out, err = pbkdf2.Key(newHash, string(password), salt, n, size); err != nil {
			return nil, nil, err
		}
		return out[:32], out[32:], nil
	}
	var last []byte
	for len(out) < size {
		h := newHash()
		h.Write(last)
		h.Write(password)
		h.Write(salt)
		last = h.Sum(nil)
		out = append(out, last...)
	}
	return out[:32], out[32:size], nil
}

func (c *call) opensslDigest(o opensslArgs) int {
	if f := o.only("-sha256", "-r"); f != "" {
		return c.opensslError("dgst: Unknown option or message digest: %s", strings.TrimPrefix(f, "-"))
	}
	names := o.rest
	if len(names) == 0 {
		names = []string{"-"}
	}
	for _, name := range names {
		var b []byte
		var err error
		if name == "-" {
			b, err = c.stdin()
		} else {
			b, err = c.read(name)
		}
		if err != nil {
			return c.opensslError("%s: %s", name, errText(err))
		}
		if name == "-" {
			name = "stdin"
		}
		sum := sha256.Sum256(b)
		if o.has("-r") {
			c.printf("%x *%s\n", sum, name)
		} else {
			c.printf("SHA2-256(%s)= %x\n", name, sum)
		}
	}
	return 0
}
