package plunder

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// realClientConfig has the shape of a file that plunder wrote.
const realClientConfig = "address: rack1\ncert: LS0tLS1CRUdJTi0tLS0t\nport: 60443\n"

func TestFindConfig(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(path string) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(realClientConfig), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	byFlag, byEnv := write("flag.yaml"), write("env.yaml")
	home, xdg := filepath.Join(dir, "home"), filepath.Join(dir, "xdg")

	env := map[string]string{}
	find := func(explicit string) (string, error) {
		return FindConfig(explicit, func(k string) string { return env[k] })
	}

	_, err := find("")
	if !errors.Is(err, ErrNoConfig) {
		t.Fatalf("got %v, want ErrNoConfig", err)
	}
	says(t, err, "no plunderclient.yaml found (looked at: --plunder-config, not given; $CAPPLUNDER_PLUNDER_CONFIG, not set; plunderclient.yaml)", "`plunder config apiserver client`", "--plunder-config FILE")
	env["HOME"] = home
	_, err = find("")
	says(t, err, "plunderclient.yaml; "+filepath.Join(home, ".config/capplunder/plunderclient.yaml"))
	env["XDG_CONFIG_HOME"] = xdg
	_, err = find("")
	says(t, err, "plunderclient.yaml; "+filepath.Join(xdg, "capplunder/plunderclient.yaml")+")")

	// From the last place to the first: each one wins over those before.
	for _, step := range []struct {
		prepare func()
		flag    string
		want    string
	}{
		{prepare: func() { delete(env, "XDG_CONFIG_HOME"); write("home/.config/capplunder/plunderclient.yaml") }, want: filepath.Join(home, ".config/capplunder/plunderclient.yaml")},
		{prepare: func() { env["XDG_CONFIG_HOME"] = xdg; write("xdg/capplunder/plunderclient.yaml") }, want: filepath.Join(xdg, "capplunder/plunderclient.yaml")},
		{prepare: func() { write("plunderclient.yaml") }, want: "plunderclient.yaml"},
		{prepare: func() { env[ConfigEnv] = byEnv }, want: byEnv},
		{prepare: func() {}, flag: byFlag, want: byFlag},
	} {
		step.prepare()
		if got, err := find(step.flag); err != nil || got != step.want {
			t.Errorf("found %s, %v, want %s", got, err, step.want)
		}
	}

	// What somebody chose has to be there, whatever else there is.
	_, err = find("nosuch.yaml")
	if !errors.Is(err, ErrNoConfig) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	says(t, err, "--plunder-config says nosuch.yaml: no such file or directory")
	_, err = find(dir)
	says(t, err, "--plunder-config says "+dir+": is a directory")
	env[ConfigEnv] = "nosuch.yaml"
	_, err = find("")
	says(t, err, "$CAPPLUNDER_PLUNDER_CONFIG says nosuch.yaml")

	// A directory of that name is not overlooked.
	delete(env, ConfigEnv)
	if err := os.Remove("plunderclient.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("plunderclient.yaml", 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = find("")
	says(t, err, "plunderclient.yaml is there but can't be read: is a directory")
}

func TestLoadConfig(t *testing.T) {
	load := func(t *testing.T, content string) (Config, string, error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "plunderclient.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := LoadConfig(path)
		return c, path, err
	}
	for name, content := range map[string]string{
		"YAML":           realClientConfig,
		"JSON":           `{"address": "rack1", "port": 60443, "cert": "LS0tLS1CRUdJTi0tLS0t"}`,
		"server's file":  realClientConfig + "key: c2VjcmV0\n",
		"with a comment": "# plunder\n" + realClientConfig,
	} {
		t.Run(name, func(t *testing.T) {
			c, path, err := load(t, content)
			if err != nil {
				t.Fatal(err)
			}
			want := Config{Address: "rack1", Port: 60443, Cert: "LS0tLS1CRUdJTi0tLS0t", Path: path}
			if diff := cmp.Diff(want, c); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, tc := range map[string]struct{ content, want string }{
		"empty":   {" \n", "is empty"},
		"text":    {"s3cr3t", "is not YAML or JSON with address (text), port (number) and cert (text)"},
		"list":    {"- s3cr3t", "is not YAML or JSON"},
		"port":    {"port: s3cr3t", "is not YAML or JSON"},
		"address": {"address: [s3cr3t]", "is not YAML or JSON"},
		"tab":     {"address: rack1\n\tkey: s3cr3t", "is not YAML or JSON"},
		"twice":   {"key: s3cr3t\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, path, err := load(t, tc.content)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			says(t, err, path, tc.want, "`plunder config apiserver client` on the plunder server writes it")
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("quotes the file: %v", err)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		_, err := LoadConfig("nosuch/plunderclient.yaml")
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		says(t, err, "plunder client configuration nosuch/plunderclient.yaml: no such file or directory")
	})
}

func TestParseConfig(t *testing.T) {
	_, cert := certificate(t, nil)
	good := Config{Address: "192.0.2.1", Port: 60443, Cert: cert}
	data, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	// What else is in the file is not passed on.
	got, err := ParseConfig(append(data, "key: PRIVATE\n"...), "secret a/b")
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(again, data) || got.Path != "secret a/b" {
		t.Errorf("got %s from %q, %v, want %s", again, got.Path, err, data)
	}
	for name, bad := range map[string]string{
		"empty":          " ",
		"not YAML":       "PASSWORD: [",
		"no address":     "cert: " + good.Cert,
		"no certificate": "address: 192.0.2.1",
		"no base64":      "address: 192.0.2.1\ncert: PASSWORD!",
	} {
		if _, err := ParseConfig([]byte(bad), "secret a/b"); err == nil || !strings.Contains(err.Error(), "secret a/b") || strings.Contains(err.Error(), "PASSWORD") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plunderclient.yaml")
	if err := os.WriteFile(path, []byte("older and longer than what is written now"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := Config{Address: "127.0.0.1", Port: 60443, Cert: "LS0tLS1CRUdJTi0tLS0t", URL: "https://ignored", AllowHTTP: true}
	if err := want.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o, want 600", info.Mode().Perm())
	}
	got, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want.URL, want.AllowHTTP, want.Path = "", false, path
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if err := want.WriteFile(filepath.Join(dir, "nosuch", "x.yaml")); err == nil || !strings.Contains(err.Error(), "x.yaml") {
		t.Errorf("got %v", err)
	}
	// A directory is in the way: nothing is left behind.
	blocked := filepath.Join(dir, "blocked")
	if err := os.MkdirAll(filepath.Join(blocked, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := want.WriteFile(blocked); err == nil {
		t.Error("replaced a directory")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestNew(t *testing.T) {
	_, cert := certificate(t, nil)
	folded := cert[:70] + "\n  " + cert[70:]
	key := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("s3cr3t")}))
	broken := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("s3cr3t")}))
	for name, tc := range map[string]struct {
		cfg  Config
		url  string // or
		want string // the error
	}{
		"host name":       {cfg: Config{Address: "rack1.example", Port: 1234, Cert: cert}, url: "https://rack1.example:1234"},
		"default port":    {cfg: Config{Address: "192.168.1.1", Cert: cert}, url: "https://192.168.1.1:60443"},
		"IPv6":            {cfg: Config{Address: "fd00::1", Cert: cert}, url: "https://[fd00::1]:60443"},
		"IPv6 in []":      {cfg: Config{Address: "[fd00::1]", Cert: cert}, url: "https://[fd00::1]:60443"},
		"folded cert":     {cfg: Config{Address: "rack1", Cert: folded}, url: "https://rack1:60443"},
		"URL":             {cfg: Config{Address: "rack1", Cert: cert, URL: "https://10.0.0.1:443"}, url: "https://10.0.0.1:443"},
		"URL with a path": {cfg: Config{Cert: cert, URL: "https://proxy/plunder/"}, url: "https://proxy/plunder"},
		"URL with http":   {cfg: Config{URL: "http://10.0.0.1:60443", AllowHTTP: true}, url: "http://10.0.0.1:60443"},

		"nothing":             {want: "plunderclient.yaml has no address: `plunder config apiserver client` on the plunder server writes it, or give --url https://ADDRESS:60443"},
		"no address":          {cfg: Config{Cert: cert, Path: "/x.yaml"}, want: "/x.yaml has no address"},
		"no cert":             {cfg: Config{Address: "rack1", Path: "/x.yaml"}, want: "/x.yaml has no cert"},
		"URL and no cert":     {cfg: Config{URL: "https://rack1"}, want: "plunderclient.yaml has no cert"},
		"cert not base64":     {cfg: Config{Address: "rack1", Cert: "!s3cr3t"}, want: "cert is not base64"},
		"cert not PEM":        {cfg: Config{Address: "rack1", Cert: "czNjcjN0"}, want: "cert holds no certificate in PEM form"},
		"cert is a key":       {cfg: Config{Address: "rack1", Cert: key}, want: "cert holds no certificate in PEM form"},
		"cert is broken":      {cfg: Config{Address: "rack1", Cert: broken}, want: "cert holds a certificate that can't be read"},
		"port":                {cfg: Config{Address: "rack1", Port: 70000, Cert: cert}, want: "port 70000 is not in 1..65535"},
		"address with port":   {cfg: Config{Address: "rack1:60443", Cert: cert}, want: `address "rack1:60443" is neither a host name nor an IP address`},
		"address with scheme": {cfg: Config{Address: "https://rack1", Cert: cert}, want: `address "https://rack1" is neither`},
		"address with user":   {cfg: Config{Address: "me@rack1", Cert: cert}, want: "is neither"},
		"plain http":          {cfg: Config{URL: "http://10.0.0.1"}, want: "plunder URL http://10.0.0.1 is plain http, so anybody on the way can read passwords and take over machines: use https, or accept that with --insecure-http"},
		"other scheme":        {cfg: Config{URL: "ftp://10.0.0.1", AllowHTTP: true}, want: `scheme "ftp", want https`},
		"no scheme":           {cfg: Config{URL: "10.0.0.1:60443"}, want: `plunder URL "10.0.0.1:60443" is none: want https://ADDRESS:60443`},
		"user":                {cfg: Config{URL: "https://me:s3cr3t@10.0.0.1"}, want: "plunder URL https://me:xxxxx@10.0.0.1: a plunder server knows no users"},
		"user, not a URL":     {cfg: Config{URL: "me:s3cr3t@10.0.0.1:x:y"}, want: `plunder URL "***@10.0.0.1:x:y" is none`},
		"query":               {cfg: Config{URL: "https://10.0.0.1/?a=b"}, want: "leave out what comes after the path"},
		"URL port":            {cfg: Config{URL: "https://10.0.0.1:99999"}, want: "port 99999 is not in 1..65535"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(tc.cfg)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if c.URL() != tc.url {
					t.Errorf("URL %s, want %s", c.URL(), tc.url)
				}
				return
			}
			says(t, err, tc.want)
			if strings.Contains(err.Error(), "s3cr3t") || tc.cfg.Cert != "" && strings.Contains(err.Error(), tc.cfg.Cert) {
				t.Errorf("shows a secret: %v", err)
			}
		})
	}
}

func TestNormalizeMAC(t *testing.T) {
	for _, in := range []string{mac1, "00:50:56:A5:11:20", "00-50-56-a5-11-20", " 00:50:56:a5:11:20\n", "0050.56a5.1120"} {
		if got, err := NormalizeMAC(in); err != nil || got != mac1 {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "rack", "00:50:56:a5:11", "00:50:56:a5:11:20:00:00", "00:50:56:a5:11:zz"} {
		if got, err := NormalizeMAC(in); err == nil {
			t.Errorf("%q: %q, want an error", in, got)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(realClientConfig))
	f.Add([]byte(`{"address": "rack1", "port": 60443, "cert": "LS0tLS1CRUdJTi0tLS0t"}`))
	f.Add([]byte("address: [fd00::1]\nport: 70000\ncert: !!binary x"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		client, err := New(c)
		if err != nil {
			return
		}
		defer client.Close()
		if client.base.Scheme != "https" || client.base.User != nil || client.base.Path != "" || client.pinned == nil {
			t.Errorf("%q made a client of %s", data, client.base)
		}
		path := filepath.Join(t.TempDir(), "plunderclient.yaml")
		if err := c.WriteFile(path); err != nil {
			t.Fatal(err)
		}
		again, err := LoadConfig(path)
		if err != nil {
			t.Fatal(err)
		}
		again.Path = ""
		if diff := cmp.Diff(c, again); diff != "" {
			t.Errorf("written and read: %s", diff)
		}
	})
}
