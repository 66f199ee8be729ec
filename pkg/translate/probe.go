package translate

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

const (
	taskPorts = "ports"
	taskProbe = "probe"
	// noMAC is what the loopback interface has.
	noMAC = "00:00:00:00:00:00"
	// portWait is how many seconds an address has to accept a connection. The server
	// and its machines share a network.
	portWait = 1
	// probeTimeout is the limit of the probe on one host, in seconds.
	probeTimeout = 60
	// systemESXi is what uname -s says on ESXi.
	systemESXi = "VMkernel"
)

// Facts are what a host says of itself.
type Facts struct {
	ID, Like, Version, Codename, Arch, PackageManager string // as in /etc/os-release; "-" for none
	Systemd, Bash, Node                               bool   // Node: a kubelet is configured already
	Cgroup, UID                                       int    // UID is the SSH user's
	Kernel, Host, Kubeadm                             string
	System                                            string   // uname -s: Linux, VMkernel (ESXi)
	MACs                                              []string // colon form, lower case, of all interfaces
	BootID                                            string   // /proc/sys/kernel/random/boot_id
	Uptime                                            time.Duration
	Disks                                             []capi.Disk
}

// TaskName is the name of an action of one job. It carries the job's ID, because
// the log of an address keeps the entries of earlier jobs.
func TaskName(task, job string) string { return task + "#" + job }

// addresses4 checks that every address is an IPv4 address and nothing else: they
// become part of a command.
func addresses4(addresses ...string) error {
	for _, a := range addresses {
		if ip, err := netip.ParseAddr(a); err != nil || !ip.Is4() {
			return fmt.Errorf("%q is not an IPv4 address", a)
		}
	}
	return nil
}

// PortProbe asks the plunder server itself which of the addresses accept
// connections on port 22. It is one action whatever the number of addresses: they
// are tried all together, and silent ones time out together (measured with 200:
// under half a second). logHost is the address, of any deployment, whose log gets
// the answer.
func PortProbe(job, logHost string, addresses []string) (wire.Map, error) {
	if err := addresses4(append([]string{logHost}, addresses...)...); err != nil {
		return wire.Map{}, err
	}
	script := fmt.Sprintf("set -- %s; for a; do (timeout %d bash -c 'exec 3<>/dev/tcp/$0/22' $a 2>/dev/null && echo capplunder-open $a) & done; wait; echo 'capplunder-ports done'",
		strings.Join(addresses, " "), portWait)
	return wire.Map{Deployments: []wire.MapDeployment{{
		Name: TaskName("capplunder "+taskPorts, job), Hosts: []string{logHost},
		Actions: []wire.Action{{
			Name: TaskName(taskPorts, job), Type: wire.ActionCommand, Timeout: probeTimeout,
			Command: script, CommandLocal: true, IgnoreFail: true,
		}},
	}}}, nil
}

// ReadPortProbe reads the answer; done is false while it is not there.
func ReadPortProbe(l wire.Log, job string) (open []string, done bool, err error) {
	e, ok := entry(l, TaskName(taskPorts, job))
	switch {
	case !ok:
		return nil, false, nil
	case e.Error != "":
		return nil, true, fmt.Errorf("looking at SSH ports from the plunder server: %s", e.Error)
	case !strings.Contains(e.Entry, "capplunder-ports done"):
		return nil, true, errors.New("looking at SSH ports from the plunder server: the answer is incomplete")
	}
	for line := range strings.Lines(e.Entry) {
		if a, ok := strings.CutPrefix(strings.TrimSpace(line), "capplunder-open "); ok {
			open = append(open, a)
		}
	}
	return open, true, nil
}

func entry(l wire.Log, task string) (wire.LogEntry, bool) {
	i := slices.IndexFunc(l.Entries, func(e wire.LogEntry) bool { return e.Task == task })
	if i < 0 {
		return wire.LogEntry{}, false
	}
	return l.Entries[i], true
}

// HostProbe asks hosts who they are, one after the other; a failure on one does
// not stop the next. It needs only a POSIX shell and changes nothing. In detail it also
// says what is on the disks: their mount points and signatures.
func HostProbe(job string, addresses []string, detail bool) (wire.Map, error) {
	if err := addresses4(addresses...); err != nil {
		return wire.Map{}, err
	}
	script := probeScript
	if detail {
		script = "DETAIL=1; " + script
	}
	return wire.Map{Deployments: []wire.MapDeployment{{
		Name: TaskName("capplunder "+taskProbe, job), Hosts: addresses,
		Actions: []wire.Action{{
			Name: TaskName(taskProbe, job), Type: wire.ActionCommand, Timeout: probeTimeout,
			Command: "sh -c " + quote(script), IgnoreFail: true,
		}},
	}}}, nil
}

// quote makes a text one word of a shell, whatever is in it.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// ReadHostProbe reads one host's answer; done is false while it is not there. err
// is why the host could not be asked (it does not listen, SSH refused the key).
func ReadHostProbe(l wire.Log, job string) (f Facts, done bool, err error) {
	e, ok := entry(l, TaskName(taskProbe, job))
	switch {
	case !ok:
		return Facts{}, false, nil
	case !strings.Contains(e.Entry, "capplunder-probe done"):
		if e.Error != "" {
			return Facts{}, true, errors.New(e.Error)
		}
		return Facts{}, true, fmt.Errorf("the host's answer is not a probe's: %q", lastLine(e.Entry))
	}
	for line := range strings.Lines(e.Entry) {
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		v := fields(rest)
		switch what {
		case "capplunder-facts":
			f.ID, f.Like, f.Version, f.Codename, f.Arch, f.PackageManager = v["id"], v["like"], v["ver"], v["codename"], v["arch"], v["pm"]
			f.Systemd, f.Bash, f.Node = v["systemd"] == "yes", v["bash"] == "yes", v["node"] == "yes"
			f.Kernel, f.Host, f.Kubeadm, f.System = v["kernel"], v["host"], v["kubeadm"], v["system"]
			if f.System == systemESXi {
				return f, true, errors.New("the host runs ESXi, which does not say who it is the way Linux does")
			}
			f.Cgroup, _ = strconv.Atoi(v["cgroup"])
			if f.UID, err = strconv.Atoi(v["uid"]); err != nil {
				return Facts{}, true, fmt.Errorf("the host does not say who the SSH user is: %q", v["uid"])
			}
		case "capplunder-mac":
			if mac := strings.ToLower(rest); mac != noMAC {
				f.MACs = append(f.MACs, mac)
			}
		case "capplunder-boot":
			up, err := strconv.ParseFloat(v["uptime"], 64)
			if err != nil || v["id"] == "" {
				return Facts{}, true, fmt.Errorf("the host does not say when it booted: %q", rest)
			}
			f.BootID, f.Uptime = v["id"], time.Duration(up*float64(time.Second))
		case "capplunder-disk":
			n, err := strconv.ParseInt(v["bytes"], 10, 64)
			if err != nil {
				continue
			}
			d := capi.Disk{
				Device: v["dev"], Bytes: n, ID: v["id"], Flags: v["flags"],
				WWN: identity(v["wwn"]), Serial: identity(v["serial"]), Model: identity(v["model"]),
			}
			if mounts, detail := v["mounts"]; detail {
				d.Mounts, d.Content = mountNames(mounts), unknownContent
			}
			f.Disks = append(f.Disks, d)
		case "capplunder-content":
			addContent(f.Disks, v["dev"], v["what"])
		}
	}
	if f.BootID == "" || f.ID == "" {
		return Facts{}, true, fmt.Errorf("the host's answer is incomplete: %q", lastLine(e.Entry))
	}
	return f, true, nil
}

// fields reads "a=1 b=2".
func fields(s string) map[string]string {
	m := map[string]string{}
	for _, w := range strings.Fields(s) {
		if k, v, ok := strings.Cut(w, "="); ok {
			m[k] = v
		}
	}
	return m
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
