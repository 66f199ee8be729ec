package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
)

// installFlags are how Kubernetes is installed where PlunderMachine and PlunderCluster
// say nothing about it.
type installFlags struct {
	cni, cniSHA256                   string
	imageRepository                  string
	httpProxy, httpsProxy            string
	noProxy, certSANs                []string
	pki                              string
	vip, vipInterface                string
	dockerVersion, containerdVersion string
	packageMirror, runtimeMirror     string
	runtimeSource, method, binaryURL string
	allowCgroupV1                    bool
	firewall                         string
	kubeadmPatches                   []string
	hookBefore, hookAfter            string
	kubeconfigTransport              string
}

const (
	// cniNone is --cni none.
	cniNone = "none"
	// vipDefault is --vip without an image.
	vipDefault = "true"
	// groupAnnotation names the heading in help under which a flag stands.
	groupAnnotation = "group"
	installGroup    = "Kubernetes Flags (where PlunderMachine and PlunderCluster do not say it)"
)

func (o *installFlags) addFlags(fs *pflag.FlagSet) {
	own := pflag.NewFlagSet("install", pflag.ContinueOnError)
	own.StringVar(&o.cni, "cni", "", "network add-on to apply to new clusters: `URL` or file of its manifest, or none (default: none, with a reminder)")
	own.StringVar(&o.cniSHA256, "cni-sha256", "", "`digest` of what is at the URL of --cni")
	own.StringVar(&o.method, "method", "", "`how` Kubernetes comes to the machines: packages or binaries (default packages)")
	own.StringVar(&o.packageMirror, "package-mirror", "", "`URL` instead of https://pkgs.k8s.io/core:/stable:, with the same layout")
	own.StringVar(&o.binaryURL, "binary-url", "", "`URL` instead of https://dl.k8s.io, with --method binaries")
	own.StringVar(&o.imageRepository, "image-repository", "", "`repository` where the images of Kubernetes come from (default registry.k8s.io)")
	own.StringVar(&o.containerdVersion, "containerd-version", "", "`version` of containerd.io: X.Y, X.Y.Z or a whole package version (default the newest)")
	own.StringVar(&o.dockerVersion, "docker-version", "", "`version` of docker-ce, for Kubernetes below 1.24")
	own.StringVar(&o.runtimeSource, "runtime-source", "", "`where` the container runtime comes from: docker or distribution (default docker)")
	own.StringVar(&o.runtimeMirror, "runtime-mirror", "", "`URL` instead of https://download.docker.com")
	own.StringVar(&o.httpProxy, "http-proxy", "", "`URL` of the machines' proxy for http; with a password only as CAPPLUNDER_HTTP_PROXY")
	own.StringVar(&o.httpsProxy, "https-proxy", "", "`URL` of the machines' proxy for https; with a password only as CAPPLUNDER_HTTPS_PROXY")
	own.StringSliceVar(&o.noProxy, "no-proxy", nil, "`hosts`, .domains and address ranges that machines reach directly, beside the cluster's own")
	own.StringSliceVar(&o.certSANs, "cert-san", nil, "further `name` or address for the API server's certificate; may be repeated")
	own.StringVar(&o.pki, "pki", "", "`who` makes the keys of the control plane: kubeadm or tool (default kubeadm)")
	own.StringVar(&o.vip, "vip", "", "let the control plane machines hold the endpoint's address, with kube-vip; --vip=`IMAGE` for another image")
	own.Lookup("vip").NoOptDefVal = vipDefault
	own.StringVar(&o.vipInterface, "vip-interface", "", "network `card` that gets the endpoint's address (default that of the default route)")
	own.StringVar(&o.kubeconfigTransport, "kubeconfig-transport", "", "`how` the administrator's kubeconfig is fetched: sealed, or plain from machines without openssl (default sealed)")
	own.StringVar(&o.firewall, "firewall", "", "`what` becomes of ufw and firewalld: disable or leave (default disable)")
	own.BoolVar(&o.allowCgroupV1, "allow-cgroup-v1", false, "permit Kubernetes 1.35 and newer on machines with cgroup v1")
	own.StringSliceVar(&o.kubeadmPatches, "kubeadm-patch", nil, "`file` with parts of kubeadm's configurations to merge in; may be repeated")
	own.StringVar(&o.hookBefore, "hook-before", "", "`file` with a shell script to run as root before anything is installed")
	own.StringVar(&o.hookAfter, "hook-after", "", "`file` with a shell script to run as root when the machine is a node")
	own.VisitAll(func(fl *pflag.Flag) {
		fl.Annotations = map[string][]string{groupAnnotation: {installGroup}}
		fs.AddFlag(fl)
	})
}

// completeInstallFlags offers the words that flags take.
func completeInstallFlags(cmd *cobra.Command) {
	for flag, words := range map[string][]cobra.Completion{
		"cni":                  {cniNone},
		"method":               {capi.MethodPackages, capi.MethodBinaries},
		"runtime-source":       {capi.SourceDocker, capi.SourceDistribution},
		"pki":                  {capi.PKIKubeadm, capi.PKITool},
		"firewall":             {capi.FirewallDisable, capi.FirewallLeave},
		"kubeconfig-transport": {capi.KubeconfigSealed, capi.KubeconfigPlain},
	} {
		directive := cobra.ShellCompDirectiveNoFileComp
		if flag == "cni" {
			directive = cobra.ShellCompDirectiveDefault
		}
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, directive)) // the flags are there
	}
}

// flagOf is the flag that stands for a field of the options.
func flagOf(field string) string {
	field, _, _ = strings.Cut(field, "[")
	switch field {
	case "cni.url", "cni.manifest", "cni.none":
		return "cni"
	case "cni.sha256":
		return "cni-sha256"
	case "repo.base":
		return "package-mirror"
	case "binaries.url", "binaries":
		return "binary-url"
	case "imageRepository":
		return "image-repository"
	case "containerdVersion":
		return "containerd-version"
	case "dockerVersion":
		return "docker-version"
	case "runtimeSource":
		return "runtime-source"
	case "runtimeMirror":
		return "runtime-mirror"
	case "proxy.http":
		return "http-proxy"
	case "proxy.https":
		return "https-proxy"
	case "proxy.noProxy":
		return "no-proxy"
	case "certSANs":
		return "cert-san"
	case "vip.image":
		return "vip"
	case "vip.interface":
		return "vip-interface"
	case "kubeconfigTransport":
		return "kubeconfig-transport"
	case "kubeadmPatches":
		return "kubeadm-patch"
	case "hooks.before":
		return "hook-before"
	case "hooks.after":
		return "hook-after"
	}
	return field // method, pki, firewall
}

// defaults are the flags as options. Everything that is wrong is in the error.
func (o *installFlags) defaults(ctx context.Context, f *factory) (capi.Defaults, error) {
	var d capi.Defaults
	r := flagReader{f: f}
	d.Method, d.DockerVersion, d.ContainerdVersion, d.ImageRepository = o.method, o.dockerVersion, o.containerdVersion, o.imageRepository
	d.RuntimeSource, d.RuntimeMirror, d.Firewall = o.runtimeSource, o.runtimeMirror, o.firewall
	d.PKI, d.KubeconfigTransport, d.CertSANs = o.pki, o.kubeconfigTransport, o.certSANs
	if o.packageMirror != "" {
		d.Repo = &capi.PackageRepo{Base: o.packageMirror}
	}
	if o.binaryURL != "" {
		d.Binaries = &capi.BinarySource{URL: o.binaryURL}
		if o.method != capi.MethodBinaries {
			r.fail("binary-url", errors.New("has no effect without --method binaries"))
		}
	}
	if o.httpProxy != "" || o.httpsProxy != "" || len(o.noProxy) > 0 {
		d.Proxy = &capi.Proxy{HTTP: o.httpProxy, HTTPS: o.httpsProxy, NoProxy: o.noProxy}
		r.noPasswordTyped("http-proxy", o.httpProxy)
		r.noPasswordTyped("https-proxy", o.httpsProxy)
	}
	if o.allowCgroupV1 {
		d.AllowCgroupV1 = &o.allowCgroupV1
	}
	if o.hookBefore != "" || o.hookAfter != "" {
		d.Hooks = &capi.Hooks{Before: r.file("hook-before", o.hookBefore), After: r.file("hook-after", o.hookAfter)}
	}
	if o.vip != "" && o.vip != "false" {
		d.VIP = &capi.VIP{Interface: o.vipInterface}
		if o.vip != vipDefault {
			d.VIP.Image = o.vip
		}
	} else if o.vipInterface != "" {
		r.fail("vip-interface", errors.New("has no effect without --vip"))
	}
	d.CNI = o.network(&r)
	var files []string
	d.KubeadmPatches, files = r.patches(ctx, o.kubeadmPatches)
	for _, p := range d.Problems() {
		name, err := flagOf(p.Field), p.Err
		if _, rest, ok := strings.Cut(p.Field, "kubeadmPatches["); ok {
			// Say which file, and what in it.
			var i int
			if _, scanErr := fmt.Sscanf(rest, "%d]", &i); scanErr == nil && i < len(files) {
				_, field, _ := strings.Cut(rest, "].")
				err = fmt.Errorf("%s: %s: %w", files[i], field, err)
			}
		}
		r.fail(name, err)
	}
	return d, errors.Join(r.problems...)
}

// network is --cni.
func (o *installFlags) network(r *flagReader) *capi.CNI {
	switch {
	case o.cni == "" && o.cniSHA256 != "":
		r.fail("cni-sha256", errors.New("has no effect without the URL of --cni"))
		return nil
	case o.cni == "":
		return nil
	case o.cni == cniNone:
		return &capi.CNI{None: true, SHA256: o.cniSHA256}
	case strings.Contains(o.cni, "://"):
		return &capi.CNI{URL: o.cni, SHA256: o.cniSHA256}
	}
	return &capi.CNI{Manifest: r.file("cni", o.cni), SHA256: o.cniSHA256}
}

// flagReader reads what flags name, and collects what is wrong.
type flagReader struct {
	f        *factory
	problems []error
}

// fail adds a problem with a setting, under the name that it was given by.
func (r *flagReader) fail(flag string, err error) {
	source := "--" + flag
	switch s := r.f.source(flag); {
	case s == "", s == "default", strings.HasPrefix(s, "flag "):
	case s == envName(flag):
		source = s
	default:
		source = s + ": " + flag
	}
	r.problems = append(r.problems, usagef(nil, "%s: %w", source, err))
}

// noPasswordTyped refuses a password that everybody on this computer can read.
func (r *flagReader) noPasswordTyped(flag, value string) {
	if _, ok := password(value); ok && strings.HasPrefix(r.f.source(flag), "flag ") {
		r.fail(flag, fmt.Errorf("a password on the command line is seen by everybody on this computer: set %s instead", envName(flag)))
	}
}

// file is the content of a file that a flag names; "" for none.
func (r *flagReader) file(flag, path string) string {
	if path == "" {
		return ""
	}
	data, err := os.ReadFile(path)
	switch {
	case err != nil:
		r.fail(flag, err)
	case len(data) == 0:
		r.fail(flag, fmt.Errorf("%s is empty", path))
	}
	return string(data)
}

// patches are the objects of the files, and the file of each.
func (r *flagReader) patches(ctx context.Context, paths []string) (patches []map[string]any, files []string) {
	for _, path := range paths {
		docs, err := state.Files(ctx, state.FileOptions{Paths: []string{path}, Stdin: r.f.io.In})
		if err != nil {
			r.fail("kubeadm-patch", err)
		}
		for _, doc := range docs {
			object, err := doc.Object()
			switch {
			case err != nil:
				r.fail("kubeadm-patch", err)
			case object != nil:
				patches, files = append(patches, object), append(files, doc.Origin.String())
			}
		}
	}
	return patches, files
}

// password is that of a URL.
func password(s string) (string, bool) {
	u, err := url.Parse(s)
	if err != nil || u.User == nil {
		return "", false
	}
	return u.User.Password()
}

// withoutPassword is a URL to show.
func withoutPassword(s string) string {
	u, err := url.Parse(s)
	switch {
	case err != nil && strings.Contains(s, "@"):
		return "***"
	case err != nil || u.User == nil:
		return s
	}
	if _, ok := u.User.Password(); !ok {
		return s
	}
	user := u.User.Username()
	u.User = nil
	return strings.Replace(u.String(), "://", "://"+user+":***@", 1)
}

// bootstrapFlag is --bootstrap-data: the Machine, as it was named, and the file.
type bootstrapFlag struct{ machine, file string }

// parseBootstrapFlags reads [NAMESPACE/]MACHINE=FILE.
func parseBootstrapFlags(cmd *cobra.Command, values []string) ([]bootstrapFlag, error) {
	var list []bootstrapFlag
	for _, v := range values {
		machine, file, ok := strings.Cut(v, "=")
		machine = strings.TrimPrefix(machine, "machine/")
		if !ok || machine == "" || file == "" {
			return nil, usagef(cmd, "--bootstrap-data %q: give it as MACHINE=FILE or NAMESPACE/MACHINE=FILE", v)
		}
		list = append(list, bootstrapFlag{machine, file})
	}
	return list, nil
}

// giveBootstrapData puts the files of --bootstrap-data into the machines of a set.
func giveBootstrapData(set *capi.Set, flags []bootstrapFlag, namespace string) error {
	machines := map[string]*capi.Machine{}
	names := map[string]bool{}
	for _, m := range set.Machines {
		machines[m.Key.String()] = m
		names[m.Name] = true
	}
	given := map[string]string{}
	var problems []error
	for _, b := range flags {
		key := capi.ParseKey(b.machine, namespace)
		m := machines[key.String()]
		data, err := os.ReadFile(b.file)
		switch {
		case m == nil:
			problems = append(problems, usagef(nil, "--bootstrap-data %s: no Machine %s is to be installed%s", b.machine, key, didYouMean(key.Name, names)))
		case given[key.String()] != "":
			problems = append(problems, usagef(nil, "--bootstrap-data %s: given twice, %s and %s", b.machine, given[key.String()], b.file))
		case err != nil:
			problems = append(problems, usagef(nil, "--bootstrap-data %s: %w", b.machine, err))
		case len(data) == 0:
			problems = append(problems, usagef(nil, "--bootstrap-data %s: %s is empty", b.machine, b.file))
		default:
			given[key.String()] = b.file
			m.GivenBootstrap = &capi.BootstrapData{Format: capi.FormatCloudConfig, Value: data}
		}
	}
	return errors.Join(problems...)
}
