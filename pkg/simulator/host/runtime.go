package host

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// runtimeCommand are the container runtimes, their tools, and the network programs
// that kubelet wants to find.
func runtimeCommand(name string) command {
	switch name {
	case "containerd":
		return cmdContainerd
	case "docker", "dockerd":
		return cmdDocker
	case "crictl":
		return cmdCrictl
	case "ctr", "runc", "conntrack", "socat", "ethtool", "ebtables", "iptables":
		return func(*call) int { return 0 }
	case "ip":
		return cmdIP
	}
	return nil
}

// cmdIP is ip, as far as it shows routes.
func cmdIP(c *call) int {
	_, args := options(c.args[1:])
	if len(args) > 2 && args[0] == "route" && args[1] == "show" && args[2] == "default" {
		gateway := c.h.cfg.Address[:strings.LastIndexByte(c.h.cfg.Address, '.')+1] + "1"
		c.printf("default via %s dev eth0 proto static\n", gateway)
	}
	return 0
}

func cmdContainerd(c *call) int {
	pkg := "containerd.io"
	if c.h.version(pkg) == "" {
		pkg = "containerd"
	}
	switch args := c.args[1:]; {
	case slices.Contains(args, "--version") || slices.Contains(args, "-v"):
		c.printf("containerd containerd.io %s b98a3aace656320842a23f4a392a33f46af97866\n", c.h.version(pkg))
	case len(args) == 2 && args[0] == "config" && args[1] == "default":
		c.printf("%s", containerdDefault)
	case len(args) == 2 && args[0] == "config" && args[1] == "dump":
		b, err := c.read("/etc/containerd/config.toml")
		if err != nil {
			b = []byte(containerdDefault)
		}
		c.printf("%s", b)
	default:
		return c.fail(1, "only --version, config default and config dump")
	}
	return 0
}

// containerdDefault is what of containerd's own configuration matters here.
const containerdDefault = `disabled_plugins = []
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.8"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
`

func cmdDocker(c *call) int {
	_, args := options(c.args[1:], "-f", "--format", "-H")
	if len(args) == 0 || args[0] != "version" && args[0] != "info" {
		return c.fail(1, "only version and info")
	}
	// Before 18.09 the client was in the same package.
	c.printf("Client:\n Version: %s\n", cmp.Or(c.h.version("docker-ce-cli"), c.h.version("docker-ce")))
	if !c.h.active("docker") {
		c.errf("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
		return 1
	}
	c.printf("Server:\n Version: %s\n", c.h.version("docker-ce"))
	return 0
}

// cmdCrictl talks to the runtime that its configuration names. Of containers it knows
// that of etcd alone.
func cmdCrictl(c *call) int {
	given := c.args[1:]
	if i := slices.Index(given, "etcdctl"); i > 0 { // what follows is not crictl's
		given = given[:i]
	}
	flags, args := options(given, "-r", "--runtime-endpoint", "-c", "--config", "-i", "--image-endpoint", "--label", "--name")
	if len(args) == 0 || slices.Contains(args, "--version") || has(flags, "--version", "-v") {
		c.printf("crictl version %s\n", c.h.version("cri-tools"))
		return 0
	}
	endpoint := value(flags, "-r", "--runtime-endpoint")
	if endpoint == "" {
		b, _ := c.read(cmp.Or(value(flags, "-c", "--config"), "/etc/crictl.yaml"))
		for _, line := range lines(b) {
			if v, ok := strings.CutPrefix(line, "runtime-endpoint:"); ok {
				endpoint = strings.TrimSpace(v)
			}
		}
	}
	socket := cmp.Or(strings.TrimPrefix(endpoint, "unix://"), "/run/containerd/containerd.sock")
	if !c.h.fs.exists(socket) || !c.h.active("containerd") && !c.h.active("docker") {
		c.errf("FATA[0000] validate service connection: validate CRI v1 runtime API for endpoint %q: rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix %s: connect: no such file or directory\"", endpoint, socket)
		return 1
	}
	cl, etcd := c.etcdHere()
	switch args[0] {
	case "ps":
		if has(flags, "-q") {
			if cl != nil && value(flags, "--label") == "io.kubernetes.container.name=etcd" {
				c.printf("%s\n", etcd)
			}
			return 0
		}
		fallthrough
	case "pods", "images":
		c.printf("CONTAINER           IMAGE               CREATED             STATE               NAME\n")
	case "exec":
		if cl == nil || len(args) < 2 || args[1] != etcd {
			c.errf("FATA[0000] execing command in container: rpc error: code = NotFound desc = an error occurred when try to find container")
			return 1
		}
		return c.etcdContainer(cl, c.args[slices.Index(c.args, etcd)+1:])
	case "info", "version":
		c.printf("RuntimeName:  containerd\nRuntimeVersion:  %s\n", cmp.Or(c.h.version("containerd.io"), c.h.version("containerd")))
	case "pull":
		if len(args) > 1 {
			if text := c.registryError(args[1]); text != "" {
				c.errf("E pulling image failed: %s", text)
				return 1
			}
		}
	}
	return 0
}

// etcdHere is the cluster of whose etcd a member runs on this host, or nil, and the ID of
// its container.
func (c *call) etcdHere() (cl *cluster, id string) {
	c.h.mu.Lock()
	cl, member := c.h.sys.cluster, c.h.sys.member
	c.h.mu.Unlock()
	if cl == nil || !c.h.etcd(member) {
		return nil, ""
	}
	return cl, fmt.Sprintf("%016x%016x%016x%016x", member, member, member, member)
}

// registryError says what keeps the container runtime from the registry of an image or
// a repository, "" if nothing does. Its proxies are those that its service was started with.
func (c *call) registryError(image string) string {
	server, _, _ := strings.Cut(image, "/")
	service := "containerd"
	if c.h.active("docker") {
		service = "docker"
	}
	d := c.with([]string{service})
	d.env = map[string]string{}
	c.h.mu.Lock()
	if u := c.h.sys.units[service]; u != nil {
		for _, e := range u.Environment {
			k, v, _ := strings.Cut(e, "=")
			d.env[k] = v
		}
	}
	c.h.mu.Unlock()
	e := d.reach("https://" + server + "/v2/")
	if e == nil {
		return ""
	}
	reason := e.text
	if e.status == curlNoHost {
		reason = "dial tcp: lookup " + server + ": no such host"
	}
	return fmt.Sprintf("rpc error: code = Unknown desc = failed to resolve reference: failed to do request: Head \"https://%s/v2/\": %s", server, reason)
}
