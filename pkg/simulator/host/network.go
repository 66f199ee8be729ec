package host

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Exit statuses of curl.
const (
	curlNoProxy   = 5
	curlNoHost    = 6
	curlRefused   = 7
	curlHTTPError = 22
	curlWrite     = 23
	curlTimeout   = 28
	curlNoFile    = 37
	curlProxyDeny = 56
)

// netError is why nothing came from a server, in curl's words.
type netError struct {
	status int
	text   string
}

// passing reports whether curl tries again after it.
func (e *netError) passing() bool {
	return e != nil && (slices.Contains([]int{curlNoProxy, curlNoHost, curlTimeout}, e.status) || strings.HasSuffix(e.text, "503"))
}

// gone are servers that do not exist any more: their names resolve to nothing.
func gone(server string) bool {
	return strings.HasSuffix(server, ".invalid") || slices.Contains([]string{"mirror.centos.org", "mirrorlist.centos.org", "yum.kubernetes.io"}, server)
}

// proxyFor is the proxy that curl and the package managers take for a URL.
func (c *call) proxyFor(u *url.URL) string {
	server, env := u.Hostname(), c.exported()
	skip := cmp.Or(env["no_proxy"], env["NO_PROXY"])
	for _, s := range strings.Split(skip, ",") {
		s = strings.TrimPrefix(strings.TrimSpace(s), ".")
		if s == "*" || s != "" && (server == s || strings.HasSuffix(server, "."+s)) {
			return ""
		}
	}
	names := []string{u.Scheme + "_proxy", "all_proxy", "ALL_PROXY"}
	if u.Scheme == "https" {
		names = slices.Insert(names, 1, "HTTPS_PROXY") // HTTP_PROXY is not read, for CGI's sake
	}
	for _, n := range names {
		if env[n] != "" {
			return env[n]
		}
	}
	return ""
}

// reach says what keeps this call from a URL's server, nil if nothing does.
func (c *call) reach(address string) *netError {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return &netError{3, "URL rejected: Malformed input to a URL function"}
	}
	server, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	if p := c.proxyFor(u); p != "" {
		return c.reachProxy(p)
	}
	if e := c.connectTo(server, port, curlNoHost, "Could not resolve host: "+server); e != nil {
		return e
	}
	if c.h.cfg.Proxy != "" {
		return c.timeout(server, port)
	}
	return nil
}

// reachProxy says what keeps this call from going through a proxy.
func (c *call) reachProxy(proxy string) *netError {
	if !strings.Contains(proxy, "://") {
		proxy = "http://" + proxy
	}
	p, err := url.Parse(proxy)
	if err != nil {
		return &netError{curlNoProxy, "Unsupported proxy syntax"}
	}
	if e := c.connectTo(p.Hostname(), p.Port(), curlNoProxy, "Could not resolve proxy: "+p.Hostname()); e != nil {
		return e
	}
	if c.h.cfg.Proxy == "" {
		return nil
	}
	own, err := url.Parse(c.h.cfg.Proxy)
	switch {
	case err != nil || own.Host != p.Host:
		return c.timeout(p.Hostname(), p.Port())
	case own.User.String() != p.User.String():
		return &netError{curlProxyDeny, "CONNECT tunnel failed, response 407"}
	}
	return nil
}

// connectTo is one connection to a server of the outside.
func (c *call) connectTo(server, port string, unknown int, text string) *netError {
	if gone(server) {
		return &netError{unknown, text}
	}
	refused := &netError{curlRefused, fmt.Sprintf("Failed to connect to %s port %s after 1 ms: Could not connect to server", server, port)}
	if strings.Trim(server, "0123456789.") == "" || server == "localhost" || strings.Contains(server, ":") {
		return refused // hosts of the rack and this one have no web server
	}
	t := c.h.trouble(StepNet, server)
	if t == nil {
		return nil
	}
	if !c.spend(t.After) {
		return refused
	}
	c.suffer(t)
	switch t.Exit {
	case curlNoHost:
		return &netError{unknown, text}
	case curlHTTPError:
		return &netError{curlHTTPError, "The requested URL returned error: 503"}
	case curlTimeout:
		return c.timeout(server, port)
	}
	return refused
}

// timeout is a connection that nobody answers.
func (c *call) timeout(server, port string) *netError {
	const patience = 20 * time.Second
	c.spend(patience)
	return &netError{curlTimeout, fmt.Sprintf("Failed to connect to %s port %s after %d ms: Timeout was reached", server, port, patience.Milliseconds())}
}

// Signing keys by the server that they belong to: id, and whose it is.
const (
	keyKubernetes = "234654DA9A296436"
	keyDocker     = "7EA0A9C3F273FCD8"
	keyMirror     = "B53DC80D13EDEF05"
	keyOld        = "-expired" // is put behind the id of a copy that has expired
	// firstFreshKey is the oldest minor of pkgs.k8s.io whose copy of the key is still valid.
	firstFreshKey = 28
)

func keyOwner(id string) string {
	switch strings.TrimSuffix(id, keyOld) {
	case keyKubernetes:
		return "isv:kubernetes OBS Project <isv:kubernetes@build.opensuse.org>"
	case keyDocker:
		return "Docker Release (CE deb) <docker@docker.com>"
	}
	return "Mirror <mirror@mirror.example>"
}

// Markers of a key: as it is served, and as gpg --dearmor leaves it.
const (
	armored   = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	dearmored = "dearmored public key "
)

// publicKey is a signing key as it is served.
func publicKey(id string) string {
	return armored + "\n\n" + base64.StdEncoding.EncodeToString([]byte(dearmored+id+"\n")) + "\n-----END PGP PUBLIC KEY BLOCK-----\n"
}

// dearmor takes such a key out of its armour; a file may hold several.
func dearmor(b []byte) ([]byte, bool) {
	var out []byte
	for _, part := range strings.Split(string(b), armored)[1:] {
		body, _, _ := strings.Cut(part, "-----END")
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(body))
		if err != nil || !strings.HasPrefix(string(raw), dearmored) {
			return nil, false
		}
		out = append(out, raw...)
	}
	return out, len(out) > 0
}

// keyIDs are the ids of the keys in a keyring, armoured or not.
func keyIDs(b []byte) []string {
	if raw, ok := dearmor(b); ok {
		b = raw
	}
	var out []string
	for _, line := range lines(b) {
		if id, ok := strings.CutPrefix(line, dearmored); ok {
			out = append(out, id)
		}
	}
	return out
}

var (
	kubernetesPath = regexp.MustCompile(`/v1\.([0-9]+)/(deb|rpm)(/|$)`)
	dockerPath     = regexp.MustCompile(`/linux/([a-z]+)(/|$)`)
	binaryPath     = regexp.MustCompile(`/v(1\.[0-9]+\.[0-9]+)/bin/linux/([a-z0-9_]+)/(kubeadm|kubelet|kubectl)(\.sha256)?$`)
)

// servedMinor is the minor of a URL that has the layout of pkgs.k8s.io; ok is false for others.
func servedMinor(address string) (minor int, exists, ok bool) {
	m := kubernetesPath.FindStringSubmatch(address)
	if m == nil {
		return 0, false, false
	}
	minor, err := strconv.Atoi(m[1])
	return minor, err == nil && minor >= oldestServedMinor && minor <= newestServedMinor, true
}

// Binary is what a download site serves as one of the Kubernetes programs, for tests
// that need its digest. version is X.Y.Z.
func Binary(program, version string) []byte {
	return []byte(binaryMagic + program + " " + version + "\n")
}

// CNIPlugins is what a download site serves as the CNI plugins' tar.gz.
func CNIPlugins() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for _, name := range []string{"bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "tuning"} {
		body := binaryMagic + "cni"
		_ = t.WriteHeader(&tar.Header{Name: "./" + name, Mode: 0o755, Size: int64(len(body)), Typeflag: tar.TypeReg}) // to memory
		_, _ = t.Write([]byte(body))
	}
	_ = t.Close()
	_ = z.Close()
	return b.Bytes()
}

// served is what is at a URL of the outside, if anything is.
func served(address string) (body []byte, ok bool) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, false
	}
	base := path.Base(u.Path)
	minor, exists, isKubernetes := servedMinor(u.Path)
	docker := dockerPath.FindStringSubmatch(u.Path)
	digest := func(b []byte) []byte { return fmt.Appendf(nil, "%x", sha256.Sum256(b)) }
	switch m := binaryPath.FindStringSubmatch(u.Path); {
	case m != nil:
		if minorOf(m[1]) > newestServedMinor {
			return nil, false
		}
		if m[4] != "" {
			return digest(Binary(m[3], m[1])), true
		}
		return Binary(m[3], m[1]), true
	case isKubernetes && base == "Release.key", isKubernetes && base == "repomd.xml.key":
		if !exists {
			return nil, false
		}
		if minor < firstFreshKey {
			return []byte(publicKey(keyKubernetes + keyOld)), true
		}
		return []byte(publicKey(keyKubernetes)), true
	case isKubernetes:
		return nil, false
	case docker != nil && base == "gpg":
		return []byte(publicKey(keyDocker)), true
	case docker != nil && base == "docker-ce.repo":
		return []byte(dockerRepoFile(docker[1])), slices.Contains([]string{"centos", "rhel", "fedora"}, docker[1])
	case docker != nil:
		return nil, false
	case u.Host == "apt.kubernetes.io" || u.Host == "packages.cloud.google.com":
		return nil, false
	case strings.HasSuffix(base, ".tgz"), strings.HasSuffix(base, ".tar.gz"):
		return CNIPlugins(), true
	case strings.HasSuffix(base, ".tgz.sha256"), strings.HasSuffix(base, ".tar.gz.sha256"):
		return digest(CNIPlugins()), true
	case base == "gpg", strings.HasSuffix(base, ".gpg"), strings.HasSuffix(base, ".asc"), strings.HasSuffix(base, ".key"), strings.HasPrefix(base, "RPM-GPG-KEY"):
		return []byte(publicKey(keyMirror)), true
	case strings.HasSuffix(base, ".yaml"), strings.HasSuffix(base, ".yml"):
		return []byte(networkManifest), true
	}
	return nil, false
}

// networkManifest is a network add-on, as small as they come.
const networkManifest = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: simulated-cni, namespace: kube-system}
spec:
  selector: {matchLabels: {app: simulated-cni}}
  template:
    metadata: {labels: {app: simulated-cni}}
    spec: {containers: [{name: agent, image: "registry.example/cni:v1"}]}
`

// cmdCurl fetches what an installation needs: keys, repository files, binaries,
// manifests. Nothing else is on the virtual network.
func cmdCurl(c *call) int {
	flags, args := options(c.args[1:], "-o", "--output", "--retry", "--retry-delay", "--retry-max-time", "--connect-timeout", "--speed-time", "--max-time", "-m", "-H",
		"--header", "-x", "--proxy", "--cacert", "-w", "--write-out", "-X", "--request", "-d", "--data", "-u", "--user", "-A", "--max-filesize", "--noproxy")
	if len(args) != 1 {
		return c.fail(2, "no URL specified")
	}
	tries, _ := strconv.Atoi(value(flags, "--retry"))
	delay, _ := strconv.Atoi(value(flags, "--retry-delay"))
	body, e := c.download(args[0])
	for ; tries > 0 && e.passing(); tries-- {
		if !c.spend(time.Duration(max(delay, 1)) * time.Second) {
			return curlTimeout
		}
		body, e = c.download(args[0])
	}
	if e != nil && e.status == curlHTTPError && !has(flags, "-f", "--fail", "--fail-with-body") {
		body, e = []byte("<html><head><title>404 Not Found</title></head></html>\n"), nil
	}
	if e != nil {
		if has(flags, "-s", "--silent") && !has(flags, "-S", "--show-error") {
			return e.status
		}
		return c.fail(e.status, "(%d) %s", e.status, e.text)
	}
	if base := path.Base(args[0]); base == "kubelet" && !c.pay(shareKubelet) {
		return curlTimeout
	}
	out := value(flags, "-o", "--output")
	if has(flags, "-O") {
		out = path.Base(args[0])
	}
	if out == "" || out == "-" {
		_, _ = c.out.Write(body)
		return 0
	}
	if err := c.write(out, body, 0o666); err != nil {
		return c.fail(curlWrite, "(%d) client returned ERROR on write, %d != 0: %s", curlWrite, len(body), errText(err))
	}
	return 0
}

// download is what is at a URL.
func (c *call) download(address string) ([]byte, *netError) {
	if file, ok := strings.CutPrefix(address, "file://"); ok {
		b, err := c.read(file)
		if err != nil {
			return nil, &netError{curlNoFile, "Couldn't open file " + file}
		}
		return b, nil
	}
	if b, ok := c.apiAnswer(address); ok {
		return b, nil
	}
	if e := c.reach(address); e != nil {
		return nil, e
	}
	b, ok := served(address)
	if !ok {
		return nil, &netError{curlHTTPError, "The requested URL returned error: 404"}
	}
	return b, nil
}

// apiAnswer is what an API server of the rack says of its health.
func (c *call) apiAnswer(address string) ([]byte, bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || !slices.Contains([]string{"/healthz", "/readyz", "/livez", "/version"}, u.Path) {
		return nil, false
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		return nil, false
	}
	server := u.Hostname()
	if server == "localhost" || server == "127.0.0.1" {
		server = c.h.cfg.Address
	}
	if _, err := c.h.world.api(c.ctx, c.h, server, port); err != nil {
		return nil, false
	}
	return []byte("ok"), true
}

func cmdGpg(c *call) int {
	flags, files := options(c.args[1:], "-o", "--output", "--homedir", "--keyring")
	out := value(flags, "-o", "--output")
	var b []byte
	switch {
	case has(flags, "--version"):
		c.printf("gpg (GnuPG) 2.4.4\n")
		return 0
	case has(flags, "--dearmor"):
		data, status := c.input(files)
		if status != 0 {
			return 2
		}
		var ok bool
		if b, ok = dearmor(data); !ok {
			return c.fail(2, "no valid OpenPGP data found.")
		}
	default:
		return c.fail(2, "only --dearmor")
	}
	if out == "" {
		_, _ = c.out.Write(b)
		return 0
	}
	if c.h.fs.exists(c.path(out)) && !has(flags, "--yes") {
		return c.fail(2, "dearmoring failed: File exists")
	}
	if err := c.write(out, b, fs.FileMode(0o644)); err != nil {
		return c.fail(2, "can't create '%s': %s", out, errText(err))
	}
	return 0
}
