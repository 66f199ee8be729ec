package host

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// kubeadmReset takes back what init or join did. The member of etcd leaves the cluster
// if the cluster can be asked; the data of a control plane is deleted in any case, so
// that with the last one the cluster is gone.
func (c *call) kubeadmReset(flags map[string][]string) int {
	if !has(flags, "-f", "--force") {
		answer, _ := c.stdin()
		if a := strings.ToLower(strings.TrimSpace(string(answer))); a != "y" && a != "yes" {
			c.printf("[reset] Are you sure you want to proceed? [y/N]: ")
			return c.kubeadmError(errors.New("aborted reset operation"))
		}
	}
	conf := value(flags, "--kubeconfig")
	if conf == "" {
		conf = adminConf
	}
	c.h.mu.Lock()
	name, cl := c.h.sys.node, c.h.sys.cluster
	c.h.mu.Unlock()
	switch answers, problem := c.connectAs(conf); {
	case problem != "":
		c.errf("W0000 00:00:00.000000       1 reset.go:143] [reset] Unable to fetch the kubeadm-config ConfigMap from cluster: %s", problem)
	case !c.registered(answers, name):
		c.errf("W0000 00:00:00.000000       1 reset.go:143] [reset] Unable to fetch the kubeadm-config ConfigMap from cluster: failed to get corresponding node: nodes %q not found", name)
	case c.h.fs.exists(manifest):
		answers.removeMember(c.h.cfg.Address)
	}
	c.h.mu.Lock()
	id := c.h.sys.member
	c.h.sys.kubeState = kubeState{}
	if u := c.h.sys.units["kubelet"]; u != nil {
		u.Active = false
	}
	c.h.mu.Unlock()
	if cl != nil {
		cl.mu.Lock()
		delete(cl.hosts, id)
		cl.mu.Unlock()
	}
	for _, p := range []string{
		manifestDir, "/etc/kubernetes/pki", "/etc/kubernetes/tmp", "/var/lib/etcd", "/var/lib/kubelet", adminConf, superAdminConf, kubeletConf, bootstrapConf,
		"/etc/kubernetes/controller-manager.conf", "/etc/kubernetes/scheduler.conf",
	} {
		_ = c.h.fs.remove(who{}, p, true)
	}
	c.printf("[reset] Stopping the kubelet service\n[reset] Deleting contents of directories: [%s /var/lib/kubelet /etc/kubernetes/pki]\n", manifestDir)
	return 0
}

// registered reports whether the node of this host is known to a cluster.
func (c *call) registered(cl *cluster, name string) bool {
	_, ok := cl.node(name)
	return ok
}

func (c *call) kubeadmToken(flags map[string][]string, args []string) int {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	if verb == "generate" {
		c.printf("%s\n", newToken())
		return 0
	}
	conf := value(flags, "--kubeconfig")
	if conf == "" {
		conf = adminConf
	}
	if !c.h.fs.exists(conf) {
		return c.kubeadmError(fmt.Errorf("failed to load admin kubeconfig: open %s: no such file or directory", conf))
	}
	cl, problem := c.connectAs(conf)
	if problem != "" {
		return c.kubeadmError(errors.New(problem))
	}
	switch verb {
	case "create":
		token := newToken()
		if len(args) > 0 {
			token = args[0]
		}
		ttl := 24 * time.Hour
		if v := value(flags, "--ttl"); v != "" {
			var err error
			if ttl, err = time.ParseDuration(v); err != nil {
				return c.kubeadmError(fmt.Errorf("invalid argument %q for \"--ttl\" flag: %w", v, err))
			}
		}
		id, secret, err := tokenForm(token)
		if err != nil {
			return c.kubeadmError(err)
		}
		t := bootstrapToken{Secret: secret, Description: value(flags, "--description")}
		if ttl > 0 {
			t.Expires = time.Now().Add(ttl)
		}
		cl.addToken(id, t)
		if has(flags, "--print-join-command") {
			c.printf("kubeadm join %s --token %s --discovery-token-ca-cert-hash %s\n", cl.Endpoint, token, caHash(cl.CA))
		} else {
			c.printf("%s\n", token)
		}
		return 0
	case "list", "":
		tokens := look(cl, func(d *clusterData) map[string]bootstrapToken {
			d.expire()
			return deepCopy(d.Tokens)
		})
		c.printf("TOKEN\n")
		for _, id := range sortedKeys(tokens) {
			c.printf("%s.%s\n", id, tokens[id].Secret)
		}
		return 0
	case "delete":
		cl.change(func(d *clusterData) {
			for _, a := range args {
				id, _, _ := strings.Cut(a, ".")
				delete(d.Tokens, id)
			}
		})
		for _, a := range args {
			id, _, _ := strings.Cut(a, ".")
			c.printf("bootstrap token %q deleted\n", id)
		}
		return 0
	}
	return c.kubeadmError(fmt.Errorf("unknown command %q for \"kubeadm token\"", verb))
}
