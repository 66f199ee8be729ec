package capi

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"
)

// OptionError is something wrong with one option. What the options say is not in Err
// where it may be secret.
type OptionError struct {
	// Field is the path in YAML, e.g. "repo.key" or "proxy.noProxy[1]".
	Field string
	Err   error
}

// Error implements error.
func (p OptionError) Error() string { return p.Field + ": " + p.Err.Error() }

// Unwrap gives Err.
func (p OptionError) Unwrap() error { return p.Err }

// Sizes in bytes. A script is one argument of a shell at most; a manifest has to fit into
// an object of Kubernetes, together with the rest.
const (
	maxScript   = 64 << 10
	maxManifest = 1 << 20
)

// checker collects problems.
type checker []OptionError

func (c *checker) add(field string, err error) {
	if err != nil {
		*c = append(*c, OptionError{field, err})
	}
}

// text checks a text that is given.
func (c *checker) text(field, value string, check func(string) error) {
	if value != "" {
		c.add(field, check(value))
	}
}

// oneOf checks a text that is given.
func (c *checker) oneOf(field, value string, values ...string) {
	if value != "" && !slices.Contains(values, value) {
		c.add(field, fmt.Errorf("%s is not %s%s", quote(value), strings.Join(values, " or "), didYouMean(value, values)))
	}
}

// Problems are what is wrong with the options by themselves, whatever Kubernetes version
// or host they are for. Those of the fields come in the order of the fields.
func (o InstallOptions) Problems() []OptionError {
	var c checker
	c.oneOf("method", o.Method, MethodPackages, MethodBinaries)
	if r := o.Repo; r != nil {
		c.text("repo.base", r.Base, checkURL)
		c.text("repo.apt", r.Apt, checkAptLine)
		c.text("repo.rpm", r.RPM, checkURL)
		c.text("repo.key", r.Key, checkURL)
		if r.Key == "" && (r.Apt != "" || r.RPM != "") {
			c.add("repo.key", errors.New("is required with repo.apt or repo.rpm: packages are only installed when their repository is signed"))
		}
		if r.Base != "" && (r.Apt != "" || r.RPM != "") {
			c.add("repo.base", errors.New("does not go with repo.apt or repo.rpm: they say where the packages are"))
		}
	}
	if b := o.Binaries; b != nil {
		c.text("binaries.url", b.URL, checkURL)
		c.text("binaries.cniPluginsURL", b.CNIPluginsURL, checkURL)
		for _, name := range slices.Sorted(maps.Keys(b.SHA256)) {
			if f := "binaries.sha256[" + name + "]"; !slices.Contains(binaryNames(), name) {
				c.add(f, fmt.Errorf("there is no such binary, only %s%s", strings.Join(binaryNames(), ", "), didYouMean(name, binaryNames())))
			} else {
				c.text(f, b.SHA256[name], checkSHA256)
			}
		}
		if b.SHA256["cni-plugins"] != "" && b.CNIPluginsURL == "" {
			c.add("binaries.sha256[cni-plugins]", errors.New("is the digest of what is at binaries.cniPluginsURL, which is not given"))
		}
	}
	c.oneOf("runtime", o.Runtime, RuntimeContainerd, RuntimeDocker)
	c.oneOf("runtimeSource", o.RuntimeSource, SourceDocker, SourceDistribution)
	c.text("runtimeMirror", o.RuntimeMirror, checkURL)
	if o.RuntimeMirror != "" && o.RuntimeSource == SourceDistribution {
		c.add("runtimeMirror", errors.New("does not go with runtimeSource: distribution, which takes nothing from Docker's repository"))
	}
	c.text("dockerVersion", o.DockerVersion, checkDockerVersion)
	c.text("dockerCodename", o.DockerCodename, checkCodename)
	c.text("containerdVersion", o.ContainerdVersion, checkContainerdVersion)
	c.text("imageRepository", o.ImageRepository, checkImageRepository)
	if p := o.Proxy; p != nil {
		c.text("proxy.http", p.HTTP, checkProxy)
		c.text("proxy.https", p.HTTPS, checkProxy)
		for i, host := range p.NoProxy {
			c.text(fmt.Sprintf("proxy.noProxy[%d]", i), host, checkNoProxy)
		}
	}
	c.oneOf("firewall", o.Firewall, FirewallDisable, FirewallLeave)
	if h := o.Hooks; h != nil {
		c.text("hooks.before", h.Before, checkScript)
		c.text("hooks.after", h.After, checkScript)
	}
	for i, p := range o.KubeadmPatches {
		c.patch(fmt.Sprintf("kubeadmPatches[%d]", i), p)
	}
	return c
}

// Problems are what is wrong with the options by themselves.
func (o ClusterOptions) Problems() []OptionError {
	var c checker
	for i, san := range o.CertSANs {
		f := fmt.Sprintf("certSANs[%d]", i)
		c.text(f, san, checkSAN)
		if san != "" && slices.Index(o.CertSANs, san) < i {
			c.add(f, fmt.Errorf("%s is in this list twice", quote(san)))
		}
	}
	if n := o.CNI; n != nil {
		c.text("cni.url", n.URL, checkURL)
		c.text("cni.sha256", n.SHA256, checkSHA256)
		c.text("cni.manifest", n.Manifest, checkManifest)
		switch {
		case n.None && (n.URL != "" || n.Manifest != ""):
			c.add("cni.none", errors.New("does not go with a url or a manifest: it says that somebody else installs the network add-on"))
		case n.URL != "" && n.Manifest != "":
			c.add("cni.manifest", errors.New("does not go with a url: one of them says what to apply"))
		}
		if n.SHA256 != "" && n.URL == "" {
			c.add("cni.sha256", errors.New("is the digest of what is at the url, which is not given"))
		}
	}
	c.oneOf("pki", o.PKI, PKIKubeadm, PKITool)
	c.oneOf("kubeconfigTransport", o.KubeconfigTransport, KubeconfigSealed, KubeconfigPlain)
	if v := o.VIP; v != nil {
		c.text("vip.image", v.Image, checkImage)
		c.text("vip.interface", v.Interface, checkInterface)
	}
	return c
}

// Problems are those of both parts.
func (d Defaults) Problems() []OptionError {
	return slices.Concat(d.InstallOptions.Problems(), d.ClusterOptions.Problems())
}

// patchGroups are the kinds that can be patched, with their API groups.
func patchGroups() map[string]string {
	return map[string]string{
		"InitConfiguration":      "kubeadm.k8s.io",
		"ClusterConfiguration":   "kubeadm.k8s.io",
		"JoinConfiguration":      "kubeadm.k8s.io",
		"KubeletConfiguration":   "kubelet.config.k8s.io",
		"KubeProxyConfiguration": "kubeproxy.config.k8s.io",
	}
}

// patch checks what kind of object a patch is for; what is in it is kubeadm's to judge.
func (c *checker) patch(field string, p map[string]any) {
	if p == nil {
		return // that it is no object was said where it was read
	}
	groups := patchGroups()
	kinds := slices.Sorted(maps.Keys(groups))
	kind, ok := p["kind"].(string)
	group, known := groups[kind]
	switch {
	case !ok && p["kind"] != nil:
		c.add(field+".kind", errors.New("must be a string"))
		return
	case kind == "":
		c.add(field+".kind", fmt.Errorf("is required: one of %s", strings.Join(kinds, ", ")))
		return
	case !known:
		c.add(field+".kind", fmt.Errorf("%s cannot be patched, only %s%s", quote(kind), strings.Join(kinds, ", "), didYouMean(kind, kinds)))
		return
	}
	if v, given := p["apiVersion"]; given && v != nil {
		if s, ok := v.(string); !ok || !strings.HasPrefix(s, group+"/") {
			c.add(field+".apiVersion", fmt.Errorf("must be %s/..., the version is chosen to fit that of Kubernetes anyway", group))
		}
	}
}

func binaryNames() []string { return []string{"cni-plugins", "kubeadm", "kubectl", "kubelet"} }

// urlForm has no character that a shell, apt or yum reads as anything but itself.
var urlForm = regexp.MustCompile(`^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/:@%+?=-]*)?$`)

// withUser matches a URL with a user in it, who may have a password.
var withUser = regexp.MustCompile(`://[^/ ]*@`)

// errUser does not say what is given.
var errUser = errors.New("has a user in it, which everybody on the machine would see: name a place that needs none")

// checkURL accepts an http or https URL without a user.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case withUser.MatchString(s):
		return errUser
	case err != nil || u.Host == "" || len(s) > 2048 || !urlForm.MatchString(s):
		return fmt.Errorf("%s is not an http or https URL", quote(s))
	}
	return nil
}

var proxyForm = regexp.MustCompile(`^https?://([A-Za-z0-9._~%-]+(:[A-Za-z0-9._~%-]*)?@)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?/?$`)

// checkProxy accepts a proxy, with or without a password.
func checkProxy(s string) error {
	if u, err := url.Parse(s); err != nil || u.Host == "" || len(s) > 2048 || !proxyForm.MatchString(s) {
		if strings.Contains(s, "@") {
			return errors.New("is not the URL of a proxy like http://user:password@proxy.example.com:3128; what is not a letter or digit in user and password is written as %XX")
		}
		return fmt.Errorf("%s is not the URL of a proxy like http://proxy.example.com:3128", quote(s))
	}
	return nil
}

// hasPassword reports whether a URL has a password in it.
func hasPassword(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return false
	}
	_, ok := u.User.Password()
	return ok
}

// checkNoProxy accepts an address, an address range, a host name, or a domain with a dot
// in front.
func checkNoProxy(s string) error {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	if len(validation.IsDNS1123Subdomain(strings.TrimPrefix(s, "."))) > 0 || looksLikeAddress(s) {
		return fmt.Errorf("%s is no host, domain, address or address range", quote(s))
	}
	return nil
}

// looksLikeAddress reports whether s, which is no address, would be taken for one.
func looksLikeAddress(s string) bool { return strings.Trim(s, "0123456789.") == "" }

// checkSAN accepts what a certificate can be for: an address, a name, or a name whose
// first part is "*".
func checkSAN(s string) error {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return nil
	}
	if looksLikeAddress(s) || len(validation.IsDNS1123Subdomain(strings.TrimPrefix(s, "*."))) > 0 {
		return fmt.Errorf("%s is neither an address nor a DNS name", quote(s))
	}
	return nil
}

var sha256Form = regexp.MustCompile(`^[0-9a-f]{64}$`)

func checkSHA256(s string) error {
	if !sha256Form.MatchString(s) {
		return fmt.Errorf("%s is not a SHA-256 digest: 64 digits, 0 to 9 and a to f", quote(s))
	}
	return nil
}

// Names of images as container runtimes read them (distribution's grammar), the
// registry included; a bare name would be looked up on Docker Hub.
var (
	repositoryForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm        = regexp.MustCompile(`^(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$`)
)

func checkImageRepository(s string) error {
	if len(s) > 255 || !repositoryForm.MatchString(s) {
		return fmt.Errorf("%s is not an image repository like registry.example.com/kubernetes: no https://, no tag", quote(s))
	}
	return nil
}

func checkImage(s string) error {
	name, tag := s, ""
	if i := strings.IndexByte(s, '@'); i >= 0 {
		name, tag = s[:i], s[i:]
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i:]+tag
	}
	if len(s) > 512 || tag == "" || !repositoryForm.MatchString(name) || !tagForm.MatchString(tag) {
		return fmt.Errorf("%s is not an image with a tag like registry.example.com/kube-vip/kube-vip:v1.0.0", quote(s))
	}
	return nil
}

// interfaceForm: Linux allows 15 characters.
var interfaceForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)

func checkInterface(s string) error {
	if !interfaceForm.MatchString(s) {
		return fmt.Errorf("%s is not the name of a network interface like eth0", quote(s))
	}
	return nil
}

func checkScript(s string) error {
	switch {
	case len(s) > maxScript:
		return fmt.Errorf("is a script of %d bytes, at most %d are allowed", len(s), maxScript)
	case strings.ContainsRune(s, 0):
		return errors.New("is no script: there is a zero byte in it")
	}
	return nil
}

// checkManifest accepts YAML documents of Kubernetes objects. Its errors have no content.
func checkManifest(s string) error {
	if len(s) > maxManifest {
		return fmt.Errorf("is a manifest of %d bytes, at most %d are allowed", len(s), maxManifest)
	}
	dec := yaml.NewDecoder(bytes.NewReader([]byte(s)))
	objects := 0
	for n := 1; ; n++ {
		var doc yaml.Node
		err := dec.Decode(&doc)
		switch {
		case errors.Is(err, io.EOF) && objects > 0:
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("is a manifest without an object")
		case err != nil:
			return fmt.Errorf("is no manifest: document %d is not valid YAML", n)
		case len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null":
			continue
		}
		root := doc.Content[0]
		has := map[string]bool{}
		for i := 0; root.Kind == yaml.MappingNode && i+1 < len(root.Content); i += 2 {
			has[root.Content[i].Value] = true
		}
		if !has["apiVersion"] || !has["kind"] {
			return fmt.Errorf("is no manifest: document %d has no apiVersion and kind", n)
		}
		objects++
	}
}

// method is how a machine is installed as far as the objects and d say.
func (d *decoder) method(specs ...string) string {
	return cmp.Or(append(specs, d.opts.Defaults.Method)...)
}

// validateMethods: a source of binaries has an effect only where binaries are installed.
func (d *decoder) validateMethods() {
	const useless = "has no effect without method: binaries"
	inUse := map[*PlunderCluster]bool{}
	for _, p := range d.plunderMachines {
		var cluster *PlunderCluster
		if p.by != nil && p.by.Cluster != nil {
			cluster = p.by.Cluster.Infra
		}
		method := p.Spec.Method
		if cluster != nil {
			method = cmp.Or(method, cluster.Spec.Method)
		}
		if d.method(method) == MethodBinaries {
			inUse[cluster] = true
		} else if p.Spec.Binaries != nil {
			p.in.at("spec", "binaries").errorf(useless)
		}
	}
	for _, p := range d.plunderClusters {
		if p.Spec.Binaries != nil && !inUse[p.PlunderCluster] && d.method(p.Spec.Method) != MethodBinaries {
			p.in.at("spec", "binaries").errorf(useless)
		}
	}
}
