package host

import (
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
	case "ctr", "runc", "crictl", "conntrack", "socat", "ethtool", "ebtables", "iptables":
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
	switch {
	case slices.Contains(c.args, "--version"):
		c.printf("containerd containerd.io %s b98a3aace656320842a23f4a392a33f46af97866\n", c.h.version(pkg))
	case len(c.args) == 3 && c.args[1] == "config":
		b, err := c.read("/etc/containerd/config.toml")
		if err != nil {
			return c.fail(1, "%s", errText(err))
		}
		c.printf("%s", b)
	default:
		return c.fail(1, "only --version and config dump")
	}
	return 0
}

func cmdDocker(c *call) int {
	if len(c.args) > 1 && c.args[1] == "version" {
		c.printf("Client:\n Version: %s\n", c.h.version("docker-ce-cli"))
		if !c.h.active("docker") {
			c.errf("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
			return 1
		}
		c.printf("Server:\n Version: %s\n", c.h.version("docker-ce"))
		return 0
	}
	return c.fail(1, "only version")
}
