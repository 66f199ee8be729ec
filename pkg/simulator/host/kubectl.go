package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"
)

// cmdKubectl knows the forms of kubectl that scripts on hosts need; others are errors.
func cmdKubectl(c *call) int {
	args := c.args[1:]
	var after []string // behind --
	if i := slices.Index(args, "--"); i >= 0 {
		args, after = args[:i], args[i+1:]
	}
	flags, args := options(args, "--kubeconfig", "-n", "--namespace", "-f", "--filename", "-o", "--output", "--raw", "--request-timeout", "-p", "--patch", "--type", "--field-manager", "-c", "-l", "--selector", "--field-selector", "--timeout", "--for", "--server", "-s")
	if len(args) > 0 && args[0] == "version" {
		c.printf("Client Version: v%s\n", c.h.version("kubectl"))
		return 0
	}
	if len(args) > 0 && args[0] == "drain" {
		if status, done := c.drainUsage(flags); done {
			return status
		}
	}
	conf := value(flags, "--kubeconfig")
	if conf == "" {
		conf = c.getenv("KUBECONFIG")
	}
	if conf == "" {
		conf = c.user.home + "/.kube/config"
	}
	if len(args) == 0 {
		return c.kubectlError("error: no command")
	}
	cl, problem := c.connectServer(conf, strings.TrimPrefix(value(flags, "--server", "-s"), "https://"), value(flags, "--request-timeout"))
	// Everybody who is logged in may ask how the API server is (system:public-info-viewer).
	if problem != "" && (!has(flags, "--raw") || !strings.Contains(problem, "(Forbidden)")) {
		return c.kubectlError(problem)
	}
	if cl != nil {
		cl.revive(c.h.world)
	}
	k := &kubectl{call: c, cluster: cl, flags: flags, namespace: value(flags, "-n", "--namespace")}
	if k.namespace == "" {
		k.namespace = "default"
	}
	what := ""
	if len(args) > 1 {
		what, _, _ = strings.Cut(args[1], "/")
		if _, name, ok := strings.Cut(args[1], "/"); ok {
			args = slices.Insert(args, 2, name)
		}
	}
	names := args[min(2, len(args)):]
	switch verb := args[0]; {
	case verb == "get" && has(flags, "--raw"):
		return k.raw(value(flags, "--raw"))
	case verb == "apply":
		return k.apply(value(flags, "-f", "--filename"))
	case verb == "get" && isKind(what, "node", "nodes", "no"):
		return k.getNodes(names, value(flags, "-o", "--output"))
	case verb == "get" && isKind(what, "pod", "pods", "po"):
		return k.getPods(names, value(flags, "-o", "--output"))
	case verb == "get" && isKind(what, "poddisruptionbudget", "poddisruptionbudgets", "pdb"):
		return k.getBudgets(value(flags, "-o", "--output"))
	case (verb == "cordon" || verb == "uncordon") && len(args) == 2:
		return k.cordon(verb, args[1])
	case verb == "drain" && len(args) == 2:
		return k.drain(args[1])
	case verb == "get" && isKind(what, "secret", "secrets"):
		return k.getSecrets(names)
	case verb == "patch" && isKind(what, "node", "nodes", "no") && len(names) == 1:
		return k.patchNode(names[0], value(flags, "-p", "--patch"))
	case verb == "delete" && isKind(what, "node", "nodes", "no") && len(names) > 0:
		return k.remove("node", "nodes", names, cl.removeNode)
	case verb == "delete" && isKind(what, "secret", "secrets") && len(names) == 0 && has(flags, "-l"):
		return k.removeTokens(value(flags, "-l"))
	case verb == "delete" && isKind(what, "secret", "secrets") && len(names) > 0:
		return k.remove("secret", "secrets", names, k.removeSecret)
	case verb == "exec" && len(args) > 1 && len(after) > 0:
		return k.exec(args[1], after)
	}
	return c.kubectlError("error: a form of kubectl that the simulator does not know: " + strings.Join(args, " "))
}

func isKind(s string, names ...string) bool { return slices.Contains(names, s) }

// kubectl is one run of it.
type kubectl struct {
	*call

	cluster   *cluster
	flags     map[string][]string
	namespace string
}

func (c *call) kubectlError(text string) int {
	c.errf("%s", text)
	return 1
}

func (k *kubectl) raw(path string) int {
	switch path {
	case "/healthz", "/readyz", "/livez":
		k.printf("ok")
	case "/version":
		k.printf("{\"gitVersion\": \"v%s\"}", look(k.cluster, func(d *clusterData) string { return d.Version }))
	default:
		return k.kubectlError("Error from server (NotFound): the server could not find the requested resource")
	}
	return 0
}

// bootstrapSecret is a Secret that holds a bootstrap token.
type bootstrapSecret struct {
	Type       string            `json:"type"`
	StringData map[string]string `json:"stringData"`
}

func (k *kubectl) apply(file string) int {
	if file == "" {
		return k.kubectlError("error: must specify one of -f and -k")
	}
	b, status := k.input([]string{file})
	if status != 0 {
		return 1
	}
	docs, err := documents(b)
	if err == nil && len(docs) == 0 {
		return k.kubectlError("error: no objects passed to apply")
	}
	if err != nil {
		return k.kubectlError("error: error parsing " + file + ": " + err.Error())
	}
	for _, d := range docs {
		if d.Kind == "" || d.APIVersion == "" || d.name() == "" {
			return k.kubectlError("error: error validating data: kind, apiVersion and name must be set")
		}
		w, b, err := workloadOf(d)
		if err != nil {
			return k.kubectlError("error: " + err.Error())
		}
		k.cluster.change(func(c *clusterData) {
			if w != nil {
				c.addWorkload(*w)
			}
			if b != nil {
				c.addBudget(*b)
			}
		})
		if d.Kind == "Secret" && strings.HasPrefix(d.name(), "bootstrap-token-") {
			var s bootstrapSecret
			if err := yaml.Unmarshal(d.raw, &s); err != nil {
				return k.kubectlError("error: " + err.Error())
			}
			if problem := k.cluster.accept(d.name(), d.namespace(), d.labels(), s); problem != "" {
				return k.kubectlError("error: " + problem)
			}
		}
		k.printf("%s %s\n", applied(d), k.applyObject(d))
	}
	return 0
}

// applied is KIND[.GROUP]/NAME.
func applied(d document) string {
	kind := strings.ToLower(d.Kind)
	if group, _, ok := strings.Cut(d.APIVersion, "/"); ok {
		kind += "." + group
	}
	return kind + "/" + d.name()
}

// applyObject notes an object, and what it does: a DaemonSet is taken for a network
// add-on, for the only others are kubeadm's own.
func (k *kubectl) applyObject(d document) (verb string) {
	key := d.Kind + "/" + d.namespace() + "/" + d.name()
	k.cluster.change(func(c *clusterData) {
		verb = "created"
		if c.Objects[key] {
			verb = "configured"
		}
		c.Objects[key] = true
		if d.Kind == "DaemonSet" && c.Network.IsZero() {
			c.Network = time.Now()
		}
	})
	if has(k.flags, "--server-side") {
		return "serverside-applied"
	}
	return verb
}

// accept takes a bootstrap token's Secret in, if it is one that the API server
// would let a node in with. It returns what is wrong with it.
func (c *cluster) accept(name, namespace string, labels map[string]string, s bootstrapSecret) string {
	d := s.StringData
	expires, err := time.Parse(time.RFC3339, d["expiration"])
	_, _, malformed := tokenForm(d["token-id"] + "." + d["token-secret"])
	switch {
	case namespace != "kube-system":
		return "a bootstrap token lives in kube-system"
	case s.Type != "bootstrap.kubernetes.io/token":
		return "a bootstrap token has the type bootstrap.kubernetes.io/token"
	case name != "bootstrap-token-"+d["token-id"]:
		return "the name must be bootstrap-token-<token-id>"
	case malformed != nil:
		return "token-id or token-secret is malformed"
	case err != nil:
		return "expiration is not an RFC 3339 time"
	case d["usage-bootstrap-authentication"] != "true" || d["usage-bootstrap-signing"] != "true":
		return "the token may not be used for joining"
	}
	c.addToken(d["token-id"], bootstrapToken{Secret: d["token-secret"], Expires: expires, Description: d["description"], Labels: labels})
	return ""
}

// show prints objects as -o says; table is how it does without. One object alone is
// not in a list.
func (k *kubectl) show(kind string, objects []map[string]any, alone bool, format string, table func([]map[string]any)) int {
	items := make([]any, len(objects))
	for i, o := range objects {
		items[i] = o
	}
	var whole any = map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
	if alone && len(objects) == 1 {
		whole = items[0]
	}
	if len(objects) == 0 && format == "" {
		k.errf("No resources found")
		return 0
	}
	form, template, _ := strings.Cut(format, "=")
	switch form {
	case "":
		table(objects)
	case "name":
		for _, o := range objects {
			metadata, _ := o["metadata"].(map[string]any)
			k.printf("%s/%s\n", kind, metadata["name"])
		}
	case "json":
		b, err := json.MarshalIndent(whole, "", "    ")
		if err != nil {
			return k.kubectlError("error: " + err.Error())
		}
		k.printf("%s\n", b)
	case "jsonpath":
		s, err := evaluate(template, whole, true)
		if err != nil {
			return k.kubectlError("error: " + err.Error())
		}
		k.printf("%s", s)
	case "custom-columns":
		return k.columns(objects, template)
	default:
		return k.kubectlError(fmt.Sprintf("error: unable to match a printer suitable for the output format %q", format))
	}
	return 0
}

// evaluate fills in a JSONPath template.
func evaluate(template string, v any, missing bool) (string, error) {
	p := jsonpath.New("out").AllowMissingKeys(missing)
	if err := p.Parse(template); err != nil {
		return "", fmt.Errorf("error parsing jsonpath %s, %w", template, err)
	}
	var b bytes.Buffer
	if err := p.Execute(&b, v); err != nil {
		return "", err
	}
	return b.String(), nil
}

// columns is -o custom-columns=NAME:.path,...: columns three spaces apart, and <none>
// for what is not there.
func (k *kubectl) columns(objects []map[string]any, spec string) int {
	var titles []string
	var paths []*jsonpath.JSONPath
	for _, column := range strings.Split(spec, ",") {
		title, path, ok := strings.Cut(column, ":")
		if !ok || title == "" || path == "" {
			return k.kubectlError(fmt.Sprintf("error: unexpected custom-columns spec: %s, expected <header>:<json-path-expr>", column))
		}
		p := jsonpath.New(title).AllowMissingKeys(true)
		if err := p.Parse("{" + strings.TrimSuffix(strings.TrimPrefix(path, "{"), "}") + "}"); err != nil {
			return k.kubectlError("error: " + err.Error())
		}
		titles, paths = append(titles, title), append(paths, p)
	}
	rows := [][]string{titles}
	if has(k.flags, "--no-headers") {
		rows = nil
	}
	for _, o := range objects {
		row := make([]string, len(paths))
		for i, p := range paths {
			found, err := p.FindResults(o)
			if err != nil {
				return k.kubectlError("error: " + err.Error())
			}
			var values []string
			for _, list := range found {
				for _, v := range list {
					values = append(values, fmt.Sprint(v.Interface()))
				}
			}
			if row[i] = strings.Join(values, ","); values == nil {
				row[i] = "<none>"
			}
		}
		rows = append(rows, row)
	}
	k.table(rows)
	return 0
}

// table prints rows in columns.
func (k *kubectl) table(rows [][]string) {
	var width []int
	for _, r := range rows {
		for i, s := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], len(s))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, s := range r {
			if b.WriteString(s); i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-len(s)+3))
			}
		}
		k.printf("%s\n", b.String())
	}
}

func (k *kubectl) getSecrets(names []string) int {
	d := look(k.cluster, func(d *clusterData) clusterData {
		d.expire()
		return deepCopy(*d)
	})
	var all []string
	if k.namespace == "kube-system" {
		for _, id := range sortedKeys(d.Tokens) {
			all = append(all, "bootstrap-token-"+id)
		}
		if d.Certs != nil {
			all = append(all, "kubeadm-certs")
		}
	}
	if len(names) == 0 {
		names = all
	}
	for _, n := range names {
		if slices.Contains(all, n) {
			k.printf("secret/%s\n", n)
		} else if !has(k.flags, "--ignore-not-found") {
			return k.kubectlError(fmt.Sprintf("Error from server (NotFound): secrets %q not found", n))
		}
	}
	return 0
}

// remove deletes objects one by one. A name that is not there is an error, and the rest
// goes on.
func (k *kubectl) remove(kind, resource string, names []string, do func(string) bool) int {
	status := 0
	for _, name := range names {
		switch {
		case do(name):
			k.printf("%s %q deleted\n", kind, name)
		case !has(k.flags, "--ignore-not-found"):
			status = k.kubectlError(fmt.Sprintf("Error from server (NotFound): %s %q not found", resource, name))
		}
	}
	return status
}

// removeTokens deletes the bootstrap tokens whose label has one of the values, as in
// "key in (a,b)".
func (k *kubectl) removeTokens(selector string) int {
	key, rest, ok := strings.Cut(selector, " in (")
	list, closed := strings.CutSuffix(rest, ")")
	if !ok || !closed || key == "" || list == "" {
		return k.kubectlError("error: the simulator only knows selectors of the form \"key in (a,b)\"")
	}
	var gone []string
	if k.namespace == "kube-system" {
		k.cluster.change(func(d *clusterData) {
			for _, id := range sortedKeys(d.Tokens) {
				if v, labelled := d.Tokens[id].Labels[key]; labelled && slices.Contains(strings.Split(list, ","), v) {
					gone = append(gone, id)
					delete(d.Tokens, id)
				}
			}
		})
	}
	for _, id := range gone {
		k.printf("secret \"bootstrap-token-%s\" deleted\n", id)
	}
	if len(gone) == 0 {
		k.printf("No resources found\n")
	}
	return 0
}

func (k *kubectl) removeSecret(name string) (found bool) {
	if k.namespace != "kube-system" {
		return false
	}
	k.cluster.change(func(d *clusterData) {
		d.expire()
		if name == "kubeadm-certs" {
			found = d.Certs != nil
			d.Certs = nil
			return
		}
		id := strings.TrimPrefix(name, "bootstrap-token-")
		_, found = d.Tokens[id]
		delete(d.Tokens, id)
	})
	return found
}
