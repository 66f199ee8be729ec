package host

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	manifestDir     = "/etc/kubernetes/manifests"
	manifest        = manifestDir + "/kube-apiserver.yaml"
	etcdManifest    = manifestDir + "/etcd.yaml"
	etcdData        = "/var/lib/etcd/member"
	adminConf       = "/etc/kubernetes/admin.conf"
	superAdminConf  = "/etc/kubernetes/super-admin.conf"
	kubeletConf     = "/etc/kubernetes/kubelet.conf"
	bootstrapConf   = "/etc/kubernetes/bootstrap-kubelet.conf"
	kubeletSettings = "/var/lib/kubelet/config.yaml"
	pkiCA           = pkiDir + "ca.crt"

	// discoveryTimeout is how long kubeadm join looks for the cluster by default.
	discoveryTimeout = 5 * time.Minute
	// controlPlaneTimeout is how long kubeadm init waits for the API server.
	controlPlaneTimeout = 4 * time.Minute
	retryTime           = 5 * time.Second
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

func (c *call) kubeadmVersion() (version string, minor int) {
	version = c.h.version("kubeadm")
	return version, minorOf(version)
}

// kubeadmFlags are those with a value, by command.
func kubeadmFlags() []string {
	return []string{
		"-o", "--config", "--token", "--discovery-token-ca-cert-hash", "--cri-socket", "--ignore-preflight-errors", "--ttl", "--node-name",
		"--kubernetes-version", "--pod-network-cidr", "--certificate-key", "--image-repository", "--kubeconfig", "--description", "--v", "-v",
		"--skip-phases", "--apiserver-advertise-address",
	}
}

func cmdKubeadm(c *call) int {
	flags, args := options(c.args[1:], kubeadmFlags()...)
	version, minor := c.kubeadmVersion()
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
	if err := checkKubeadmFlags(minor, args, flags); err != nil {
		return c.kubeadmError(err)
	}
	switch args[0] {
	case "config":
		return c.kubeadmConfigCommand(flags, args[1:])
	case "certs":
		if len(args) > 1 && args[1] == "certificate-key" {
			c.printf("%x\n", c.h.randomBytes(32))
			return 0
		}
	case "init", "join", "reset", "token":
		if !c.root() {
			return c.preflight([]string{"[ERROR IsPrivilegedUser]: user is not running as root"})
		}
		switch {
		case args[0] == "init" && len(args) > 1:
			return c.kubeadmInitPhase(flags, args[1:])
		case args[0] == "init":
			return c.kubeadmInit(flags)
		case args[0] == "join":
			return c.kubeadmJoin(flags, args[1:])
		case args[0] == "reset":
			return c.kubeadmReset(flags)
		}
		return c.kubeadmToken(flags, args[1:])
	}
	return c.fail(1, "unknown command %q for \"kubeadm\"", strings.Join(args, " "))
}

// checkKubeadmFlags refuses what kubeadm of this minor does not know, and what cannot
// stand beside --config.
func checkKubeadmFlags(minor int, args []string, flags map[string][]string) error {
	unknown := func(flag string) error { return fmt.Errorf("unknown flag: %s", flag) }
	uploads := args[0] == "init"
	for _, f := range []struct {
		flag        string
		first, last int
		here        bool
	}{
		{"--upload-certs", 15, 99, uploads},
		{"--experimental-upload-certs", 14, 15, uploads},
		{"--certificate-key", 14, 99, uploads || args[0] == "join" || args[0] == "certs"},
		{"--skip-certificate-key-print", 14, 99, uploads},
		{"--skip-token-print", 13, 99, uploads},
		{"--control-plane", 15, 99, args[0] == "join"},
		{"--experimental-control-plane", 13, 15, args[0] == "join"},
		{"--force", 13, 99, args[0] == "reset"},
		{"-f", 13, 99, args[0] == "reset"},
	} {
		if has(flags, f.flag) && (!f.here || minor < f.first || minor > f.last) {
			return unknown(f.flag)
		}
	}
	if !has(flags, "--config") {
		return nil
	}
	// Before 1.15 a certificate key could stand beside a configuration file.
	var mixed []string
	for _, f := range []string{"--certificate-key", "--control-plane", "--experimental-control-plane", "--discovery-token-ca-cert-hash", "--token", "--kubernetes-version", "--pod-network-cidr", "--image-repository", "--apiserver-advertise-address"} {
		if has(flags, f) && (f != "--certificate-key" || minor >= 15) {
			mixed = append(mixed, strings.TrimPrefix(f, "--"))
		}
	}
	if mixed != nil && args[0] != "token" {
		return fmt.Errorf("can not mix '--config' with arguments %v", mixed)
	}
	return nil
}

func (c *call) kubeadmError(err error) int {
	c.errf("error: %v\nTo see the stack trace of this error execute with --v=5 or higher", err)
	return 1
}

func (c *call) phaseError(phase string, err error) int {
	c.errf("error execution phase %s: %v\nTo see the stack trace of this error execute with --v=5 or higher", phase, err)
	return 1
}

func (c *call) preflight(found []string) int {
	return c.phaseError("preflight", preflightProblems(found))
}

func preflightProblems(found []string) error {
	return fmt.Errorf("[preflight] Some fatal errors occurred:\n\t%s\n"+
		"[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`", strings.Join(found, "\n\t"))
}

// errEnded says that a program was ended from outside: there is nothing to print.
var errEnded = errors.New("ended")

// phase is one of kubeadm init's or join's.
type phase struct {
	name  string
	share int // of the time of an installation, in percent
	run   func() error
}

// phase begins a phase of kubeadm init or join, which takes a share of the time of an
// installation, in percent.
func (c *call) phase(command, name string, percent int) error {
	if t := c.h.trouble(StepPhase, command, name); t != nil {
		if !c.spend(t.After) {
			return errEnded
		}
		c.suffer(t)
		if c.ctx.Err() != nil {
			return errEnded
		}
		return errors.New(cmp.Or(t.Text, "timed out waiting for the condition"))
	}
	if !c.pay(percent) {
		return errEnded
	}
	return nil
}

// failed ends a command with the error of one of its phases.
func (c *call) failed(phase string, err error) int {
	if errors.Is(err, errEnded) || c.ctx.Err() != nil {
		return 1
	}
	return c.phaseError(phase, err)
}

// problems are what the preflight checks found.
type problems struct {
	ignored []string
	found   []string
}

func newProblems(flags map[string][]string, reg nodeRegistration) *problems {
	p := &problems{ignored: slices.Clone(reg.IgnorePreflightErrors)}
	for _, v := range flags["--ignore-preflight-errors"] {
		p.ignored = append(p.ignored, strings.Split(v, ",")...)
	}
	return p
}

func (p *problems) add(name, format string, args ...any) {
	if !slices.ContainsFunc(p.ignored, func(s string) bool { return strings.EqualFold(s, name) || strings.EqualFold(s, "all") }) {
		p.found = append(p.found, fmt.Sprintf("[ERROR %s]: %s", name, fmt.Sprintf(format, args...)))
	}
}

// dashes is a path as the names of preflight checks have it.
func dashes(p string) string { return strings.ReplaceAll(p, "/", "-") }

// checks are the preflight checks that init and join share.
func (c *call) checks(p *problems, reg nodeRegistration) {
	_, minor := c.kubeadmVersion()
	c.h.mu.Lock()
	swap := c.h.sys.swap
	forward := c.h.sys.sysctls["net.ipv4.ip_forward"]
	bridge, hasBridge := c.h.sys.sysctls["net.bridge.bridge-nf-call-iptables"]
	running := c.h.sys.node != ""
	c.h.mu.Unlock()
	if swap {
		p.add("Swap", "running with swap on is not supported. Please disable swap or set kubelet's --fail-swap-on flag to false.")
	}
	if !hasBridge {
		p.add("FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-iptables does not exist")
	} else if bridge != "1" {
		p.add("FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-iptables contents are not set to 1")
	}
	if forward != "1" {
		p.add("FileContent--proc-sys-net-ipv4-ip_forward", "/proc/sys/net/ipv4/ip_forward contents are not set to 1")
	}
	if c.h.version("kubelet") == "" {
		p.add("FileExisting-kubelet", "kubelet not found in system path")
	}
	if _, err := c.look("conntrack"); err != nil {
		p.add("FileExisting-conntrack", "conntrack not found in system path")
	}
	if err := c.runtime(reg.CRISocket); err != nil {
		p.add("CRI", "container runtime is not running: %v", err)
	}
	if minor >= 35 && !c.cgroup2() {
		p.add("SystemVerification", "cgroups v1 support is in maintenance mode, please migrate to cgroups v2")
	}
	if running && c.h.active("kubelet") {
		p.add("Port-10250", "Port 10250 is in use")
	}
}

// cgroup2 reports whether the host has control groups of version 2.
func (c *call) cgroup2() bool { return c.h.fs.exists("/sys/fs/cgroup/cgroup.controllers") }

// controlPlaneChecks are those for a host that is to be a control plane.
func (c *call) controlPlaneChecks(p *problems) {
	if c.h.apiServer() != nil {
		p.add("Port-6443", "Port 6443 is in use")
	}
	for _, f := range controlPlanePods() {
		if file := manifestDir + "/" + f + ".yaml"; c.h.fs.exists(file) {
			p.add("FileAvailable-"+dashes(file), "%s already exists", file)
		}
	}
	if len(c.h.list("/var/lib/etcd")) > 0 {
		p.add("DirAvailable--var-lib-etcd", "/var/lib/etcd is not empty")
	}
}

func controlPlanePods() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"}
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

// pullImages pulls the images of a control plane, once.
func (c *call) pullImages(repository string) error {
	c.h.mu.Lock()
	have := c.h.sys.images
	c.h.mu.Unlock()
	if have {
		return nil
	}
	if repository == "" {
		repository = "registry.k8s.io"
	}
	if text := c.registryError(repository); text != "" {
		return fmt.Errorf("failed to pull image %q: %s", repository+"/kube-apiserver", text)
	}
	if !c.pay(shareImages) {
		return errEnded
	}
	c.h.mu.Lock()
	c.h.sys.images = true
	c.h.mu.Unlock()
	return nil
}

// images are those of a control plane, with the tags of the time.
func images(repository, version string, minor int) []string {
	dns := "coredns/coredns:v1.12.1"
	if minor < 21 {
		dns = "coredns:1.7.0"
	}
	if repository == "" {
		repository = "registry.k8s.io"
		if minor < 25 {
			repository = "k8s.gcr.io"
		}
	}
	pause := "3.10.1"
	for _, p := range []struct {
		last int
		tag  string
	}{{17, "3.1"}, {20, "3.2"}, {21, "3.4.1"}, {22, "3.5"}, {23, "3.6"}, {24, "3.7"}, {25, "3.8"}, {30, "3.9"}, {33, "3.10"}} {
		if minor <= p.last {
			pause = p.tag
			break
		}
	}
	var out []string
	for _, i := range []string{"kube-apiserver:v" + version, "kube-controller-manager:v" + version, "kube-scheduler:v" + version, "kube-proxy:v" + version, dns, "pause:" + pause, "etcd:3.6.4-0"} {
		out = append(out, repository+"/"+i)
	}
	return out
}

// kubeadmConfigCommand is `kubeadm config images list|pull` and `kubeadm config validate`.
func (c *call) kubeadmConfigCommand(flags map[string][]string, args []string) int {
	version, minor := c.kubeadmVersion()
	repository := value(flags, "--image-repository")
	if v := value(flags, "--kubernetes-version"); v != "" {
		version = strings.TrimPrefix(v, "v")
	}
	if f := value(flags, "--config"); f != "" {
		cfg, err := c.readKubeadmConfig(f)
		if err != nil {
			return c.kubeadmError(err)
		}
		if cfg.cluster != nil {
			repository = cfg.cluster.ImageRepository
			if v := cfg.cluster.KubernetesVersion; v != "" {
				version = strings.TrimPrefix(v, "v")
			}
		}
	}
	switch what := strings.Join(args, " "); what {
	case "validate":
		if minor < 26 {
			return c.fail(1, "unknown command \"validate\" for \"kubeadm config\"")
		}
		if !has(flags, "--config") {
			return c.kubeadmError(errors.New("the --config flag is mandatory"))
		}
		c.printf("ok\n")
		return 0
	case "images list":
		for _, i := range images(repository, version, minor) {
			c.printf("%s\n", i)
		}
		return 0
	case "images pull":
		if err := c.runtime(""); err != nil {
			return c.kubeadmError(fmt.Errorf("failed to pull image: %w", err))
		}
		if err := c.pullImages(repository); err != nil {
			if errors.Is(err, errEnded) {
				return 1
			}
			return c.kubeadmError(err)
		}
		for _, i := range images(repository, version, minor) {
			c.printf("[config/images] Pulled %s\n", i)
		}
		return 0
	}
	return c.fail(1, "unknown command %q for \"kubeadm config\"", strings.Join(args, " "))
}

// startKubelet configures and starts the kubelet of a host.
func (c *call) startKubelet(cgroupV1 bool) error {
	_, minor := c.kubeadmVersion()
	c.h.addFile(kubeletSettings, "kind: KubeletConfiguration\n")
	c.h.addFile("/var/lib/kubelet/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\"\"\n")
	if minor >= 35 && !cgroupV1 && !c.cgroup2() {
		if !c.spend(controlPlaneTimeout) {
			return errEnded
		}
		return errors.New("failed while waiting for the kubelet to start: the kubelet is not healthy after 4m0s: kubelet is configured to not run on a host using cgroup v1")
	}
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if u := c.h.sys.units["kubelet"]; u != nil {
		u.Active = true
	}
	return nil
}

func (c *call) writeManifests(pods ...string) {
	for _, f := range pods {
		c.h.fs.put(manifestDir+"/"+f+".yaml", &node{mode: 0o600, data: []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: " + f + ", namespace: kube-system}\n")})
	}
}

// startEtcd is what happens when the kubelet finds the manifest of etcd: the member has
// its data directory.
func (c *call) startEtcd(cl *cluster, id uint64, name string) {
	c.h.fs.put(etcdData, &node{mode: fs.ModeDir | 0o700})
	c.h.fs.put(etcdData+"/wal", &node{mode: 0o600, data: fmt.Appendf(nil, "%x\n", id)})
	cl.startMember(id, name, c.h)
}

// tokenForm takes a bootstrap token apart.
func tokenForm(token string) (id, secret string, err error) {
	m := regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`).FindStringSubmatch(token)
	if m == nil {
		return "", "", errors.New("the bootstrap token is not of the form \"[a-z0-9]{6}.[a-z0-9]{16}\"")
	}
	return m[1], m[2], nil
}

func newToken() string {
	t := strings.ToLower(rand.Text())
	return t[:6] + "." + t[6:22]
}

// connectAs finds the API server that a kubeconfig file names, and logs in. The text is
// what kubectl says when that fails.
func (c *call) connectAs(file string) (cl *cluster, problem string) {
	return c.connectServer(file, "", "")
}

// connectServer is connectAs with another server than the file's, HOST:PORT, and a limit
// for an address where nothing answers; both may be empty.
func (c *call) connectServer(file, server, limit string) (cl *cluster, problem string) {
	b, err := c.read(file)
	if err != nil {
		return nil, "error: stat " + file + ": " + strings.ToLower(errText(err))
	}
	user, err := parseKubeconfig(b)
	if err != nil {
		return nil, "error: " + err.Error()
	}
	user.server = cmp.Or(server, user.server)
	address, port, _ := splitEndpoint(user.server)
	cl, err = c.requestWithin(limit, address, port)
	switch {
	case errors.Is(err, errTimedOut):
		return nil, fmt.Sprintf("Unable to connect to the server: dial tcp %s: i/o timeout", user.server)
	case errors.Is(err, errRefused):
		return nil, fmt.Sprintf("The connection to the server %s was refused - did you specify the right host or port?", user.server)
	case err != nil:
		return nil, "Error from server: " + err.Error()
	}
	return cl, user.admit(cl)
}

// requestTimeout is how long a request waits for an address that swallows everything.
const requestTimeout = 30 * time.Second

// request asks an API server.
func (c *call) request(address string, port int) (*cluster, error) {
	return c.requestWithin("", address, port)
}

// requestWithin is request with a limit as kubectl takes it, "20s"; empty means
// requestTimeout.
func (c *call) requestWithin(limit, address string, port int) (*cluster, error) {
	h, err := c.h.world.api(c.ctx, c.h, address, port)
	if errors.Is(err, errTimedOut) {
		d, bad := time.ParseDuration(limit)
		if bad != nil || d <= 0 {
			d = requestTimeout
		}
		c.spend(d)
	}
	if err != nil {
		return nil, err
	}
	if cl := h.apiServer(); cl != nil {
		return cl, nil
	}
	return nil, errRefused
}

// eventually tries something every few seconds for a time, and gives the last error.
func (c *call) eventually(limit time.Duration, try func() error) error {
	start := time.Now()
	for {
		err := try()
		if err == nil || time.Since(start) >= limit {
			return err
		}
		if !c.spend(retryTime) {
			return errEnded
		}
	}
}
