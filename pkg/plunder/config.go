package plunder

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

const (
	// DefaultPort is where a plunder server listens unless told otherwise.
	DefaultPort = 60443
	// ConfigFile is the name of the file that a plunder server makes for its clients.
	ConfigFile = "plunderclient.yaml"
	// ConfigEnv names the environment variable that holds the path of that file.
	ConfigEnv = "CAPPLUNDER_PLUNDER_CONFIG"

	// makeClientConfig is how the file is made on the plunder server.
	makeClientConfig = "`plunder config apiserver client` on the plunder server writes it"
)

// ErrNoConfig means that there is no plunderclient.yaml in any of the places that were looked at.
var ErrNoConfig = errors.New("no " + ConfigFile + " found")

// Config says where the server is and how to recognise it. The first three
// fields are the content of plunderclient.yaml, as plunder itself writes it.
type Config struct {
	// Address is a host name or an IP address, without scheme and port.
	Address string `json:"address"`
	// Port is a TCP port; 0 means DefaultPort.
	Port int `json:"port"`
	// Cert is the server's own certificate: base64 of PEM. It is the only one that
	// is trusted.
	Cert string `json:"cert"`

	// URL, when not empty, is used instead of Address and Port.
	URL string `json:"-"`
	// AllowHTTP permits a URL with plain http.
	AllowHTTP bool `json:"-"`
	// Path is the file that this was read from, for messages.
	Path string `json:"-"`
}

// FindConfig finds plunderclient.yaml: the path given by flag, the one in
// $CAPPLUNDER_PLUNDER_CONFIG, ./plunderclient.yaml, and at last
// $XDG_CONFIG_HOME/capplunder/plunderclient.yaml ($HOME/.config when that is not
// set). A path that somebody chose has to exist: there is no falling back to a
// file, and so to a server, that was not meant. getenv is os.Getenv.
func FindConfig(explicit string, getenv func(string) string) (string, error) {
	env := getenv(ConfigEnv)
	for _, chosen := range []struct{ path, by string }{
		{explicit, "--plunder-config"},
		{env, "$" + ConfigEnv},
	} {
		if chosen.path == "" {
			continue
		}
		if err := readable(chosen.path); err != nil {
			return "", fmt.Errorf("%w: %s says %s: %w; %s", ErrNoConfig, chosen.by, chosen.path, cause(err), makeClientConfig)
		}
		return chosen.path, nil
	}

	places := []string{ConfigFile}
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		places = append(places, filepath.Join(dir, "capplunder", ConfigFile))
	} else if home := getenv("HOME"); home != "" {
		places = append(places, filepath.Join(home, ".config", "capplunder", ConfigFile))
	}
	for _, path := range places {
		err := readable(path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s is there but can't be read: %w", path, cause(err))
		}
	}
	return "", fmt.Errorf("%w (looked at: --plunder-config, not given; $%s, not set; %s): %s; copy it to one of these places, or name it with `--plunder-config FILE`",
		ErrNoConfig, ConfigEnv, strings.Join(places, "; "), makeClientConfig)
}

// readable is nil when path is a file (or a pipe, for `-p <(...)`) that can be opened.
func readable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return errors.New("is a directory")
	}
	return nil
}

// cause takes the path off an error of package os, where the message names it already.
func cause(err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err
	}
	return err
}

// LoadConfig reads plunderclient.yaml, YAML or JSON. What it says is checked by New.
func LoadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("plunder client configuration %s: %w", path, cause(err))
	}
	c, err := parseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("plunder client configuration %s: %w; %s", path, err, makeClientConfig)
	}
	c.Path = path
	return c, nil
}

// ParseConfig reads the content of plunderclient.yaml from somewhere else than a file,
// which origin names for messages. Unlike LoadConfig it also checks that there are an
// address and a certificate.
func ParseConfig(data []byte, origin string) (Config, error) {
	c, err := parseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("plunder client configuration %s: %w; %s", origin, err, makeClientConfig)
	}
	c.Path = origin
	if _, err := c.addressURL(); err != nil {
		return Config{}, fmt.Errorf("plunder client configuration: %w", err)
	}
	if _, err := c.certificate(); err != nil {
		return Config{}, fmt.Errorf("plunder client configuration: %w", err)
	}
	return c, nil
}

// Encode is c as plunderclient.yaml: what is not of a client's configuration is not in it.
func (c Config) Encode() ([]byte, error) {
	data, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("plunder client configuration: %w", err)
	}
	return data, nil
}

// parseConfig decodes the content of plunderclient.yaml. Fields it does not know
// are left alone: plunder's own files have more of them. The parser's own errors
// are not passed on as they may quote the file, which can hold a private key
// when somebody took the server's file for the client's.
func parseConfig(data []byte) (Config, error) {
	if len(bytes.TrimSpace(data)) == 0 {
		return Config{}, errors.New("is empty")
	}
	var c Config
	if err := yaml.Unmarshal(data, &c); err != nil {
		return Config{}, errors.New("is not YAML or JSON with address (text), port (number) and cert (text)")
	}
	return c, nil
}

// WriteFile writes c as YAML to path, readable by its owner only. It replaces
// the file at once: nobody ever reads half of one.
func (c Config) WriteFile(path string) error {
	data, err := c.Encode()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("plunder client configuration %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("plunder client configuration %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// where names the origin of c in messages.
func (c Config) where() string {
	if c.Path != "" {
		return c.Path
	}
	return ConfigFile
}

// baseURL is the server's URL, checked, without a slash at its end.
func (c Config) baseURL() (*url.URL, error) {
	if c.URL == "" {
		return c.addressURL()
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Hostname() == "" {
		return nil, fmt.Errorf("plunder URL %q is none: want https://ADDRESS:%d", redactURL(c.URL), DefaultPort)
	}
	switch {
	case u.User != nil:
		return nil, fmt.Errorf("plunder URL %s: a plunder server knows no users: leave name and password out", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("plunder URL %s: leave out what comes after the path", u)
	case u.Scheme == "http" && !c.AllowHTTP:
		return nil, fmt.Errorf("plunder URL %s is plain http, so anybody on the way can read passwords and take over machines: use https, or accept that with --insecure-http", u)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("plunder URL %s: scheme %q, want https", u, u.Scheme)
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("plunder URL %s: port %s is not in 1..65535", u, port)
		}
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// addressURL makes the URL of Address and Port.
func (c Config) addressURL() (*url.URL, error) {
	port := c.Port
	if port == 0 {
		port = DefaultPort
	}
	host := strings.TrimSuffix(strings.TrimPrefix(c.Address, "["), "]") // IPv6 may come in brackets
	switch {
	case host == "":
		return nil, fmt.Errorf("%s has no address: %s, or give --url https://ADDRESS:%d", c.where(), makeClientConfig, DefaultPort)
	case net.ParseIP(host) == nil && !isHostName(host):
		return nil, fmt.Errorf("%s: address %q is neither a host name nor an IP address (the port goes into port, a URL into --url)", c.where(), host)
	case port < 1 || port > 65535:
		return nil, fmt.Errorf("%s: port %d is not in 1..65535", c.where(), port)
	}
	return &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(port))}, nil
}

// isHostName keeps out what would change the meaning of a URL; whether the name
// exists is for the resolver to say.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '_':
		default:
			return false
		}
	}
	return true
}

// redactURL hides what may be a password in something that is no URL.
func redactURL(s string) string {
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		return "***" + s[i:]
	}
	return s
}

// certificate decodes Cert: the first certificate in it.
func (c Config) certificate() (*x509.Certificate, error) {
	if c.Cert == "" {
		return nil, fmt.Errorf("%s has no cert, without which the plunder server can't be told from somebody else: %s", c.where(), makeClientConfig)
	}
	// Line breaks come from editors and mail; base64 has none of its own.
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(c.Cert), ""))
	if err != nil {
		return nil, fmt.Errorf("%s: cert is not base64: copy the file again; %s", c.where(), makeClientConfig)
	}
	for len(data) > 0 {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: cert holds a certificate that can't be read: %w", c.where(), err)
		}
		return cert, nil
	}
	return nil, fmt.Errorf("%s: cert holds no certificate in PEM form: copy the file again; %s", c.where(), makeClientConfig)
}
