package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

const (
	manifest    = "/etc/kubernetes/manifests/kube-apiserver.yaml"
	adminConf   = "/etc/kubernetes/admin.conf"
	kubeletConf = "/etc/kubernetes/kubelet.conf"
	pkiCA       = "/etc/kubernetes/pki/ca.crt"

	// discoveryTimeout is how long kubeadm join looks for the cluster by default.
	discoveryTimeout = 5 * time.Minute
	discoveryRetry   = 5 * time.Second
)

// kubeCommand are the programs that packages bring.
func kubeCommand(name string) command {
	switch name {
	case "kubeadm":
		return cmdKubeadm
	case "kubectl":
		return cmdKubectl
	case "kubelet":
		return func(c *call) int { c.printf("Kubernetes v%s\n", c.h.version("kubelet")); return 0 }
	}
	return nil
}

// document is one object of a YAML file.
type document struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	raw        []byte
}

var documentMarker = regexp.MustCompile(`(?m)^---\s*$`)

func documents(b []byte) ([]document, error) {
	var out []document
	for _, part := range documentMarker.Split(string(b), -1) {
		if strings.TrimSpace(part) == "" {
			continue
		}
		d := document{raw: []byte(part)}
		if err := yaml.Unmarshal(d.raw, &d); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// kubeadmConfig is what is read of the configuration kinds of kubeadm. Unknown
// fields are refused, as kubeadm warns of them and capplunder should write none.
type kubeadmConfig struct {
	init    *initConfiguration
	cluster *clusterConfiguration
	join    *joinConfiguration
}

type nodeRegistration struct {
	Name             string           `json:"name"`
	CRISocket        string           `json:"criSocket"`
	KubeletExtraArgs any              `json:"kubeletExtraArgs"`
	Taints           []map[string]any `json:"taints"`
}

type initConfiguration struct {
	APIVersion      string `json:"apiVersion"`
	Kind            string `json:"kind"`
	BootstrapTokens []struct {
		Token       string `json:"token"`
		TTL         string `json:"ttl"`
		Description string `json:"description"`
	} `json:"bootstrapTokens"`
	LocalAPIEndpoint struct {
		AdvertiseAddress string `json:"advertiseAddress"`
		BindPort         int    `json:"bindPort"`
	} `json:"localAPIEndpoint"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
	CertificateKey   string           `json:"certificateKey"`
}

type clusterConfiguration struct {
	APIVersion           string `json:"apiVersion"`
	Kind                 string `json:"kind"`
	ClusterName          string `json:"clusterName"`
	KubernetesVersion    string `json:"kubernetesVersion"`
	ControlPlaneEndpoint string `json:"controlPlaneEndpoint"`
	ImageRepository      string `json:"imageRepository"`
	Networking           struct {
		PodSubnet     string `json:"podSubnet"`
		ServiceSubnet string `json:"serviceSubnet"`
		DNSDomain     string `json:"dnsDomain"`
	} `json:"networking"`
	APIServer struct {
		CertSANs []string `json:"certSANs"`
	} `json:"apiServer"`
}

type joinConfiguration struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Discovery  struct {
		BootstrapToken struct {
			Token             string   `json:"token"`
			APIServerEndpoint string   `json:"apiServerEndpoint"`
			CACertHashes      []string `json:"caCertHashes"`
		} `json:"bootstrapToken"`
	} `json:"discovery"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
}

// configAPIs are the versions of kubeadm's configuration that a minor reads.
func configAPIs(minor int) []string {
	var out []string
	for _, v := range []struct {
		name        string
		first, last int
	}{{"v1beta1", 13, 21}, {"v1beta2", 15, 26}, {"v1beta3", 22, 35}, {"v1beta4", 31, 99}} {
		if minor >= v.first && minor <= v.last {
			out = append(out, v.name)
		}
	}
	return out
}

func (c *call) kubeadmVersion() (version string, minor int) {
	version = c.h.version("kubeadm")
	return version, minorOf(version)
}

// splitEndpoint takes HOST:PORT apart; hosts are IPv4 addresses or names.
func splitEndpoint(s string) (host string, port int, ok bool) {
	host, p, ok := strings.Cut(s, ":")
	port, err := strconv.Atoi(p)
	return host, port, ok && err == nil
}

func minorOf(version string) int {
	f := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

func (c *call) readKubeadmConfig(file string) (kubeadmConfig, error) {
	var cfg kubeadmConfig
	b, err := c.read(file)
	if err != nil {
		return cfg, fmt.Errorf("unable to read config from %q: %s", file, errText(err))
	}
	docs, err := documents(b)
	if err != nil {
		return cfg, fmt.Errorf("error unmarshaling configuration: %w", err)
	}
	_, minor := c.kubeadmVersion()
	for _, d := range docs {
		group, version, _ := strings.Cut(d.APIVersion, "/")
		if group == "kubelet.config.k8s.io" || group == "kubeproxy.config.k8s.io" {
			continue
		}
		if group != "kubeadm.k8s.io" || !slices.Contains(configAPIs(minor), version) {
			return cfg, fmt.Errorf("your configuration file uses an API spec that this version of kubeadm does not know: %q (kind: %q). kubeadm v1.%d reads %s",
				d.APIVersion, d.Kind, minor, strings.Join(configAPIs(minor), ", "))
		}
		var reg *nodeRegistration
		switch d.Kind {
		case "InitConfiguration":
			cfg.init = &initConfiguration{}
			err, reg = yaml.UnmarshalStrict(d.raw, cfg.init), &cfg.init.NodeRegistration
		case "ClusterConfiguration":
			cfg.cluster = &clusterConfiguration{}
			err = yaml.UnmarshalStrict(d.raw, cfg.cluster)
		case "JoinConfiguration":
			cfg.join = &joinConfiguration{}
			err, reg = yaml.UnmarshalStrict(d.raw, cfg.join), &cfg.join.NodeRegistration
		default:
			return cfg, fmt.Errorf("no kind %q is registered for version %q", d.Kind, d.APIVersion)
		}
		if err != nil {
			return cfg, fmt.Errorf("error unmarshaling configuration: %w", err)
		}
		if reg != nil && reg.KubeletExtraArgs != nil {
			if _, isList := reg.KubeletExtraArgs.([]any); isList != (version == "v1beta4") {
				return cfg, fmt.Errorf("error unmarshaling configuration: nodeRegistration.kubeletExtraArgs has the wrong type for %s", version)
			}
		}
	}
	return cfg, nil
}

func cmdKubeadm(c *call) int {
	flags, args := options(c.args[1:], "-o", "--config", "--token", "--discovery-token-ca-cert-hash", "--cri-socket", "--ignore-preflight-errors", "--ttl", "--node-name", "--kubernetes-version", "--pod-network-cidr")
	version, _ := c.kubeadmVersion()
	if len(args) == 0 {
		return c.fail(1, "no command")
	}
	if args[0] == "version" {
		if value(flags, "-o") == "short" {
			c.printf("v%s\n", version)
		} else {
			c.printf("kubeadm version: &version.Info{GitVersion:\"v%s\"}\n", version)
		}
		return 0
	}
	if !c.root() {
		return c.preflight("init", []string{"[ERROR IsPrivilegedUser]: user is not running as root"})
	}
	switch args[0] {
	case "config":
		return c.kubeadmImages(flags)
	case "init":
		return c.kubeadmInit(flags)
	case "join":
		return c.kubeadmJoin(flags, args[1:])
	case "reset":
		return c.kubeadmReset()
	case "token":
		return c.kubeadmToken(flags, args[1:])
	}
	return c.fail(1, "unknown command %q for \"kubeadm\"", args[0])
}

func (c *call) kubeadmError(err error) int {
	c.errf("error: %v\nTo see the stack trace of this error execute with --v=5 or higher", err)
	return 1
}

func (c *call) preflight(phase string, problems []string) int {
	c.errf("error execution phase preflight: [preflight] Some fatal errors occurred:\n\t%s\n"+
		"[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`\n"+
		"To see the stack trace of this error execute with --v=5 or higher", strings.Join(problems, "\n\t"))
	_ = phase
	return 1
}

// checks are the preflight checks that init and join share.
func (c *call) checks(reg nodeRegistration) []string {
	var out []string
	add := func(name, format string, args ...any) {
		out = append(out, fmt.Sprintf("[ERROR %s]: %s", name, fmt.Sprintf(format, args...)))
	}
	c.h.mu.Lock()
	swap := c.h.sys.swap
	forward := c.h.sys.sysctls["net.ipv4.ip_forward"]
	bridge, hasBridge := c.h.sys.sysctls["net.bridge.bridge-nf-call-iptables"]
	c.h.mu.Unlock()
	if swap {
		add("Swap", "running with swap on is not supported. Please disable swap or set kubelet's --fail-swap-on flag to false.")
	}
	if !hasBridge {
		add("FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-iptables does not exist")
	} else if bridge != "1" {
		add("FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-iptables contents are not set to 1")
	}
	if forward != "1" {
		add("FileContent--proc-sys-net-ipv4-ip_forward", "/proc/sys/net/ipv4/ip_forward contents are not set to 1")
	}
	if c.h.version("kubelet") == "" {
		add("FileExisting-kubelet", "kubelet not found in system path")
	}
	if _, err := c.look("conntrack"); err != nil {
		add("FileExisting-conntrack", "conntrack not found in system path")
	}
	if err := c.runtime(reg.CRISocket); err != nil {
		add("CRI", "container runtime is not running: %v", err)
	}
	return out
}

// runtime checks that the container runtime at a socket could run pods.
func (c *call) runtime(socket string) error {
	_, minor := c.kubeadmVersion()
	if socket == "" && minor < 24 && c.h.active("docker") {
		return nil
	}
	if !c.h.active("containerd") || !c.h.fs.exists("/run/containerd/containerd.sock") {
		return errors.New("dial unix /run/containerd/containerd.sock: connect: no such file or directory")
	}
	b, err := c.h.fs.readFile(who{}, "/etc/containerd/config.toml")
	if err == nil && strings.Contains(string(b), `disabled_plugins = ["cri"]`) {
		return errors.New("validate CRI v1 runtime API for endpoint \"unix:///run/containerd/containerd.sock\": rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService")
	}
	return nil
}

func (c *call) pullImages() bool {
	c.h.mu.Lock()
	have := c.h.sys.images
	c.h.mu.Unlock()
	if have {
		return true
	}
	if !c.pay(shareImages) {
		return false
	}
	c.h.mu.Lock()
	c.h.sys.images = true
	c.h.mu.Unlock()
	return true
}

func (c *call) kubeadmImages(flags map[string][]string) int {
	version, _ := c.kubeadmVersion()
	if f := value(flags, "--config"); f != "" {
		if _, err := c.readKubeadmConfig(f); err != nil {
			return c.kubeadmError(err)
		}
	}
	images := []string{"kube-apiserver:v" + version, "kube-controller-manager:v" + version, "kube-scheduler:v" + version, "kube-proxy:v" + version, "coredns/coredns:v1.12.1", "pause:3.10", "etcd:3.6.4-0"}
	if len(c.args) > 3 && c.args[2] == "images" && c.args[3] == "pull" {
		if err := c.runtime(""); err != nil {
			return c.kubeadmError(fmt.Errorf("failed to pull image: %w", err))
		}
		if !c.pullImages() {
			return 1
		}
	}
	for _, i := range images {
		c.printf("registry.k8s.io/%s\n", i)
	}
	return 0
}

var tokenPattern = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)

func (c *call) kubeadmInit(flags map[string][]string) int {
	cfg, err := c.readKubeadmConfig(value(flags, "--config"))
	if err != nil {
		return c.kubeadmError(err)
	}
	if cfg.init == nil || cfg.cluster == nil {
		return c.kubeadmError(errors.New("no InitConfiguration or ClusterConfiguration kind was found in the YAML file"))
	}
	version, minor := c.kubeadmVersion()
	want := strings.TrimPrefix(cfg.cluster.KubernetesVersion, "v")
	if m := minorOf(want); m > minor || m < minor-1 {
		return c.kubeadmError(fmt.Errorf("this version of kubeadm only supports deploying clusters with the control plane version >= 1.%d.0. Current version: v%s", minor-1, want))
	}
	tokens := map[string]bootstrapToken{}
	for _, t := range cfg.init.BootstrapTokens {
		m := tokenPattern.FindStringSubmatch(t.Token)
		ttl, err := time.ParseDuration(t.TTL)
		if m == nil || err != nil {
			return c.kubeadmError(errors.New("the bootstrap token is not of the form \"[a-z0-9]{6}.[a-z0-9]{16}\""))
		}
		tokens[m[1]] = bootstrapToken{m[2], time.Now().Add(ttl)}
	}
	c.printf("[init] Using Kubernetes version: v%s\n[preflight] Running pre-flight checks\n", want)
	problems := c.checks(cfg.init.NodeRegistration)
	for _, f := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"} {
		if p := "/etc/kubernetes/manifests/" + f + ".yaml"; c.h.fs.exists(p) {
			problems = append(problems, fmt.Sprintf("[ERROR FileAvailable--etc-kubernetes-manifests-%s.yaml]: %s already exists", f, p))
		}
	}
	if c.h.fs.exists("/var/lib/etcd/member") {
		problems = append(problems, "[ERROR DirAvailable--var-lib-etcd]: /var/lib/etcd is not empty")
	}
	if len(problems) > 0 {
		return c.preflight("init", problems)
	}
	if a := cfg.init.LocalAPIEndpoint.AdvertiseAddress; a != "" && a != c.h.cfg.Address {
		return c.kubeadmError(fmt.Errorf("couldn't use %q as \"apiserver-advertise-address\": it is not an address of this host", a))
	}
	if !c.pullImages() || !c.pay(shareInit) {
		return 1
	}
	endpoint := cfg.cluster.ControlPlaneEndpoint
	if endpoint == "" {
		endpoint = fmt.Sprintf("%s:%d", c.h.cfg.Address, apiPort)
	}
	name := cfg.init.NodeRegistration.Name
	if name == "" {
		name = c.h.name()
	}
	ca, key, err := newCA(fmt.Appendf(nil, "%d %s", c.h.cfg.Seed, c.h.cfg.MAC))
	if err != nil {
		return c.kubeadmError(err)
	}
	cl := &cluster{clusterData: clusterData{
		Name: cfg.cluster.ClusterName, Endpoint: endpoint, Version: want, CA: ca, CAKey: key, Tokens: tokens,
		Nodes: []clusterNode{{name, c.h.cfg.Address, version, true}},
	}}
	for _, f := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"} {
		c.h.addFile("/etc/kubernetes/manifests/"+f+".yaml", "kind: Pod\n")
	}
	c.h.addFile(pkiCA, string(ca))
	c.h.fs.put("/etc/kubernetes/pki/ca.key", &node{mode: 0o600, data: key})
	c.h.fs.put(adminConf, &node{mode: 0o600, data: kubeconfig(cl.Name, endpoint)})
	c.h.fs.put(kubeletConf, &node{mode: 0o600, data: kubeconfig(cl.Name, endpoint)})
	c.h.fs.put("/var/lib/etcd/member", &node{mode: fs.ModeDir | 0o700})
	c.startKubelet()
	c.h.mu.Lock()
	c.h.sys.cluster = cl
	c.h.mu.Unlock()
	c.printf("[certs] Generating \"ca\" certificate and key\n[control-plane] Creating static Pod manifest for \"kube-apiserver\"\n" +
		"[api-check] The API server is healthy\n\nYour Kubernetes control-plane has initialized successfully!\n")
	if !has(flags, "--skip-token-print") {
		for _, id := range sortedKeys(tokens) {
			c.printf("kubeadm join %s --token %s.%s --discovery-token-ca-cert-hash %s\n", endpoint, id, tokens[id].Secret, caHash(ca))
		}
	}
	return 0
}

func (c *call) startKubelet() {
	c.h.addFile("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n")
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if u := c.h.sys.units["kubelet"]; u != nil {
		u.Active = true
	}
}

func kubeconfig(name, endpoint string) []byte {
	return fmt.Appendf(nil, "apiVersion: v1\nkind: Config\nclusters:\n- name: %q\n  cluster:\n    server: https://%s\n", name, endpoint)
}

func (c *call) kubeadmJoin(flags map[string][]string, args []string) int {
	var cfg joinConfiguration
	if f := value(flags, "--config"); f != "" {
		k, err := c.readKubeadmConfig(f)
		if err == nil && k.join == nil {
			err = errors.New("no JoinConfiguration kind was found in the YAML file")
		}
		if err != nil {
			return c.kubeadmError(err)
		}
		cfg = *k.join
	} else if len(args) > 0 {
		b := &cfg.Discovery.BootstrapToken
		b.APIServerEndpoint, b.Token = args[0], value(flags, "--token")
		b.CACertHashes = flags["--discovery-token-ca-cert-hash"]
	}
	c.printf("[preflight] Running pre-flight checks\n")
	problems := c.checks(cfg.NodeRegistration)
	for _, p := range []string{kubeletConf, pkiCA} {
		if c.h.fs.exists(p) {
			problems = append(problems, fmt.Sprintf("[ERROR FileAvailable-%s]: %s already exists", strings.ReplaceAll(p, "/", "-"), p))
		}
	}
	if len(problems) > 0 {
		return c.preflight("join", problems)
	}
	cl, err := c.discover(cfg)
	if err != nil {
		c.errf("error execution phase preflight: %v\nTo see the stack trace of this error execute with --v=5 or higher", err)
		return 1
	}
	version, minor := c.kubeadmVersion()
	if m := minorOf(cl.Version); minor > m || minor < m-3 {
		return c.preflight("join", []string{fmt.Sprintf("[ERROR KubeletVersion]: the kubelet version v%s does not fit the control plane version v%s", version, cl.Version)})
	}
	name := cfg.NodeRegistration.Name
	if name == "" {
		name = c.h.name()
	}
	if !c.pay(shareJoin) {
		return 1
	}
	if !cl.addNode(clusterNode{name, c.h.cfg.Address, version, false}) {
		c.errf("error execution phase kubelet-start: a Node with name %q and status \"Ready\" already exists in the cluster. You must delete the existing Node or change the name of this new joining Node", name)
		return 1
	}
	c.h.addFile(pkiCA, string(cl.CA))
	c.h.fs.put(kubeletConf, &node{mode: 0o600, data: kubeconfig(cl.Name, cl.Endpoint)})
	c.startKubelet()
	c.printf("\nThis node has joined the cluster:\n* Certificate signing request was sent to apiserver and a response was received.\n")
	return 0
}

// discover finds the cluster that a join is for, and tries as long as kubeadm does.
func (c *call) discover(cfg joinConfiguration) (*cluster, error) {
	b := cfg.Discovery.BootstrapToken
	m := tokenPattern.FindStringSubmatch(b.Token)
	if m == nil {
		return nil, errors.New("the bootstrap token is not of the form \"[a-z0-9]{6}.[a-z0-9]{16}\"")
	}
	server, port, ok := splitEndpoint(b.APIServerEndpoint)
	if !ok {
		return nil, fmt.Errorf("apiServerEndpoint: missing port in address %q", b.APIServerEndpoint)
	}
	const identity = "couldn't validate the identity of the API Server: "
	for waited := time.Duration(0); ; waited += discoveryRetry {
		var last error
		h := c.h.world.cluster(server, port)
		if h == nil {
			last = fmt.Errorf(identity+"failed to request the cluster-info ConfigMap: Get \"https://%s/api/v1/namespaces/kube-public/configmaps/cluster-info?timeout=10s\": dial tcp %s: connect: connection refused", b.APIServerEndpoint, b.APIServerEndpoint)
		} else if cl := h.apiServer(); cl != nil {
			found, right := cl.token(m[1], m[2])
			switch {
			case !found:
				last = fmt.Errorf(identity+"could not find a JWS signature in the cluster-info ConfigMap for token ID %q", m[1])
			case !right:
				return nil, errors.New(identity + "failed to verify JWS signature of received cluster info object, can't trust this API Server")
			case len(b.CACertHashes) > 0 && !slices.Contains(b.CACertHashes, caHash(cl.CA)):
				return nil, errors.New(identity + "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys " + strconv.Quote(caHash(cl.CA)) + " are pinned")
			default:
				return cl, nil
			}
		}
		if waited >= discoveryTimeout {
			return nil, last
		}
		if !c.spend(discoveryRetry) {
			return nil, errors.New("interrupted")
		}
	}
}

func (c *call) kubeadmReset() int {
	root := who{}
	c.h.mu.Lock()
	c.h.sys.cluster = nil
	if u := c.h.sys.units["kubelet"]; u != nil {
		u.Active = false
	}
	c.h.mu.Unlock()
	for _, p := range []string{"/etc/kubernetes/manifests", "/etc/kubernetes/pki", "/var/lib/etcd", "/var/lib/kubelet", adminConf, kubeletConf} {
		_ = c.h.fs.remove(root, p, true)
	}
	c.printf("[reset] Deleting contents of directories: [/etc/kubernetes/manifests /var/lib/kubelet /etc/kubernetes/pki]\n")
	return 0
}

func (c *call) kubeadmToken(flags map[string][]string, args []string) int {
	cl := c.h.apiServer()
	if cl == nil {
		return c.kubeadmError(errors.New("failed to load admin kubeconfig: open /etc/kubernetes/admin.conf: no such file or directory"))
	}
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "create":
		token := strings.ToLower(rand.Text())
		token = token[:6] + "." + token[6:22]
		if len(args) > 0 {
			token = args[0]
		}
		ttl := 24 * time.Hour
		if v := value(flags, "--ttl"); v != "" {
			ttl, _ = time.ParseDuration(v)
		}
		m := tokenPattern.FindStringSubmatch(token)
		if m == nil {
			return c.kubeadmError(errors.New("the bootstrap token is not of the form \"[a-z0-9]{6}.[a-z0-9]{16}\""))
		}
		cl.addToken(m[1], m[2], time.Now().Add(ttl))
		if has(flags, "--print-join-command") {
			c.printf("kubeadm join %s --token %s --discovery-token-ca-cert-hash %s\n", cl.Endpoint, token, caHash(cl.CA))
		} else {
			c.printf("%s\n", token)
		}
		return 0
	case "list":
		c.printf("TOKEN\n")
		cl.mu.Lock()
		defer cl.mu.Unlock()
		for _, id := range sortedKeys(cl.Tokens) {
			c.printf("%s.%s\n", id, cl.Tokens[id].Secret)
		}
		return 0
	case "delete":
		cl.mu.Lock()
		defer cl.mu.Unlock()
		for _, a := range args {
			id, _, _ := strings.Cut(a, ".")
			delete(cl.Tokens, id)
		}
		return 0
	}
	return c.kubeadmError(fmt.Errorf("unknown command %q", verb))
}

// bootstrapSecret is a Secret that holds a bootstrap token.
type bootstrapSecret struct {
	Type       string            `json:"type"`
	StringData map[string]string `json:"stringData"`
}

func cmdKubectl(c *call) int {
	flags, args := options(c.args[1:], "--kubeconfig", "-n", "--namespace", "-f", "-o", "--raw", "--request-timeout")
	if len(args) > 0 && args[0] == "version" {
		c.printf("Client Version: v%s\n", c.h.version("kubectl"))
		return 0
	}
	conf := value(flags, "--kubeconfig")
	if conf == "" {
		conf = c.user.home + "/.kube/config"
	}
	b, err := c.read(conf)
	if err != nil {
		return c.kubectlError("error: stat " + conf + ": " + errText(err))
	}
	server := regexp.MustCompile(`server: https://(\S+)`).FindStringSubmatch(string(b))
	if server == nil {
		return c.kubectlError("error: no server in " + conf)
	}
	host, port, _ := splitEndpoint(server[1])
	var cl *cluster
	if h := c.h.world.cluster(host, port); h != nil {
		cl = h.apiServer()
	}
	if cl == nil {
		return c.kubectlError(fmt.Sprintf("The connection to the server %s was refused - did you specify the right host or port?", server[1]))
	}
	if len(args) == 0 {
		return c.kubectlError("error: no command")
	}
	switch verb := args[0]; {
	case verb == "get" && has(flags, "--raw"):
		c.printf("ok")
		return 0
	case verb == "apply":
		return c.kubectlApply(cl, value(flags, "-f"))
	case verb == "get" && len(args) > 1 && (args[1] == "node" || args[1] == "nodes"):
		return c.kubectlNodes(cl, args[2:], value(flags, "-o"))
	case verb == "delete" && len(args) > 2 && args[1] == "node":
		for _, name := range args[2:] {
			if !cl.removeNode(name) && !has(flags, "--ignore-not-found") {
				return c.kubectlError(fmt.Sprintf("Error from server (NotFound): nodes %q not found", name))
			}
		}
		return 0
	case verb == "delete" && len(args) > 2 && args[1] == "secret":
		cl.mu.Lock()
		defer cl.mu.Unlock()
		for _, name := range args[2:] {
			delete(cl.Tokens, strings.TrimPrefix(name, "bootstrap-token-"))
			c.printf("secret %q deleted\n", name)
		}
		return 0
	}
	return c.kubectlError("error: a form of kubectl that the simulator does not know")
}

func (c *call) kubectlError(text string) int {
	c.errf("%s", text)
	return 1
}

func (c *call) kubectlApply(cl *cluster, file string) int {
	b, status := c.input([]string{file})
	if status != 0 {
		return 1
	}
	docs, err := documents(b)
	if err != nil {
		return c.kubectlError("error: error parsing " + file + ": " + err.Error())
	}
	for _, d := range docs {
		name, _ := d.Metadata["name"].(string)
		if d.Kind == "" || d.APIVersion == "" || name == "" {
			return c.kubectlError("error: error validating data: kind, apiVersion and name must be set")
		}
		if d.Kind == "Secret" && strings.HasPrefix(name, "bootstrap-token-") {
			var s bootstrapSecret
			if err := yaml.Unmarshal(d.raw, &s); err != nil {
				return c.kubectlError("error: " + err.Error())
			}
			if msg := cl.accept(name, d.Metadata, s); msg != "" {
				return c.kubectlError("error: " + msg)
			}
		}
		c.printf("%s/%s created\n", strings.ToLower(d.Kind), name)
	}
	return 0
}

// accept takes a bootstrap token's Secret in, if it is one that the API server
// would let a node in with. It returns what is wrong with it.
func (c *cluster) accept(name string, meta map[string]any, s bootstrapSecret) string {
	d := s.StringData
	expires, err := time.Parse(time.RFC3339, d["expiration"])
	switch {
	case meta["namespace"] != "kube-system":
		return "a bootstrap token lives in kube-system"
	case s.Type != "bootstrap.kubernetes.io/token":
		return "a bootstrap token has the type bootstrap.kubernetes.io/token"
	case name != "bootstrap-token-"+d["token-id"]:
		return "the name must be bootstrap-token-<token-id>"
	case !tokenPattern.MatchString(d["token-id"] + "." + d["token-secret"]):
		return "token-id or token-secret is malformed"
	case err != nil:
		return "expiration is not an RFC 3339 time"
	case d["usage-bootstrap-authentication"] != "true" || d["usage-bootstrap-signing"] != "true":
		return "the token may not be used for joining"
	}
	c.addToken(d["token-id"], d["token-secret"], expires)
	return ""
}

func (c *call) kubectlNodes(cl *cluster, names []string, format string) int {
	all := cl.nodes()
	if len(names) > 0 {
		i := slices.IndexFunc(all, func(n clusterNode) bool { return n.Name == names[0] })
		if i < 0 {
			return c.kubectlError(fmt.Sprintf("Error from server (NotFound): nodes %q not found", names[0]))
		}
		all = all[i : i+1]
	}
	if strings.HasPrefix(format, "jsonpath") {
		// The only form that is used: the status of the condition Ready, which no
		// node gets without a network add-on.
		c.printf("False")
		return 0
	}
	for _, n := range all {
		switch {
		case format == "name":
			c.printf("node/%s\n", n.Name)
		case n.ControlPlane:
			c.printf("%s NotReady control-plane v%s\n", n.Name, n.Version)
		default:
			c.printf("%s NotReady <none> v%s\n", n.Name, n.Version)
		}
	}
	return 0
}
