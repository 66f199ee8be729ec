package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Options say which cluster is meant.
type Options struct {
	Kubeconfig string // --kubeconfig; "": KUBECONFIG, else ~/.kube/config, else the cluster that the program runs in
	Context    string // --context; "": the current one
	Namespace  string // --namespace; "": that of the context, else "default"
	UserAgent  string // of every request; "": client-go's
	// Getenv looks up KUBECONFIG, HOME and what a pod finds in its environment.
	Getenv func(string) string
}

// ErrNoConfig says that nothing names a cluster: there is no kubeconfig, or just one
// that is empty, and the program does not run in a pod. A kubeconfig that was asked
// for and is missing, or that is there and broken, is never this error: whoever falls
// back to a local store on it would install machines twice.
var ErrNoConfig = errors.New("no kubeconfig found")

// Target is the cluster that is meant. Nothing was asked of it yet.
type Target struct {
	Config    *rest.Config
	Namespace string // never empty
	Context   string // "" in cluster
	Server    string // URL, without credentials
	Source    string // for people: the file that the context is in, or "in cluster"
}

// String is for people: "cluster https://… (context kind-mgmt of ~/.kube/config)".
func (t *Target) String() string {
	if t.Context == "" {
		return fmt.Sprintf("cluster %s (%s)", t.Server, t.Source)
	}
	return fmt.Sprintf("cluster %s (context %s of %s)", t.Server, t.Context, t.Source)
}

// requestTimeout limits each request. All are small, and nothing is watched: whoever
// gets no answer for so long asks again or says so.
const requestTimeout = 10 * time.Second

// serviceAccountDir is where a pod finds its credentials.
const serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// Find works out which cluster is meant, as kubectl does, but with errors where
// kubectl goes on: when every file in KUBECONFIG is missing, or names no cluster.
// It returns ErrNoConfig when nothing names a cluster. No request is sent.
func Find(o Options) (*Target, error) { return find(o, serviceAccountDir) }

func find(o Options, accountDir string) (*Target, error) {
	if o.Namespace != "" {
		if problems := validation.IsDNS1123Label(o.Namespace); len(problems) > 0 {
			return nil, fmt.Errorf("namespace %q: %s", o.Namespace, problems[0])
		}
	}
	t, err := fromFiles(o)
	if errors.Is(err, ErrNoConfig) && o.Context == "" {
		var inErr error
		if t, inErr = inCluster(o, accountDir); inErr != nil || t != nil {
			err = inErr
		}
	}
	if err != nil {
		return nil, err
	}
	if o.Namespace != "" {
		t.Namespace = o.Namespace
	}
	if t.Namespace == "" {
		t.Namespace = capi.DefaultNamespace
	}
	t.Server = withoutCredentials(t.Config.Host)
	t.Config.UserAgent = o.UserAgent
	t.Config.Timeout = requestTimeout
	// No throttling here: client-go's default of 5 requests a second would queue the
	// records of many machines, and API servers have their own priority and fairness.
	t.Config.QPS = -1
	// Deprecation warnings would go to standard error, past everything that formats it.
	t.Config.WarningHandler = rest.NoWarnings{}
	return t, nil
}

// fromFiles resolves the kubeconfig files.
func fromFiles(o Options) (*Target, error) {
	rules, asked, place := loadingRules(o)
	if rules == nil {
		return nil, notFound(o, "HOME is not set")
	}
	missing := false
	rules.WarnIfAllMissing = true
	rules.Warner = func(error) { missing = true } // called for nothing else
	cfg, err := rules.Load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: the file does not exist", place)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", place, err)
	case missing && asked:
		return nil, fmt.Errorf("%s: no such file", place)
	case missing:
		return nil, notFound(o, place+" does not exist")
	case namesNothing(cfg) && asked:
		return nil, fmt.Errorf("%s names no cluster", place)
	case namesNothing(cfg):
		return nil, notFound(o, place+" names no cluster")
	}
	name := o.Context
	if name == "" {
		name = cfg.CurrentContext
	}
	context, ok := cfg.Contexts[name]
	switch {
	case name == "":
		return nil, fmt.Errorf("%s has no current context: choose one with --context or `kubectl config use-context`%s", place, contextNames(cfg))
	case !ok:
		return nil, fmt.Errorf("%s has no context %q%s", place, name, contextNames(cfg))
	case cfg.Clusters[context.Cluster] == nil || cfg.Clusters[context.Cluster].Server == "":
		return nil, fmt.Errorf("context %s of %s: its cluster %q has no server", name, place, context.Cluster)
	case context.AuthInfo != "" && cfg.AuthInfos[context.AuthInfo] == nil: // client-go would go on as nobody
		return nil, fmt.Errorf("context %s of %s: its user %q is not there", name, place, context.AuthInfo)
	}
	// No defaults: client-go's would be KUBERNETES_MASTER, or localhost:8080.
	loader := clientcmd.NewNonInteractiveClientConfig(*cfg, name, &clientcmd.ConfigOverrides{}, rules)
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("context %s of %s: %w", name, place, err)
	}
	return &Target{Config: config, Namespace: context.Namespace, Context: name, Source: tilde(o, context.LocationOfOrigin)}, nil
}

// loadingRules says which files are read; asked, that a person named them; place,
// what to call them. Without any place to look it returns nil.
func loadingRules(o Options) (rules *clientcmd.ClientConfigLoadingRules, asked bool, place string) {
	if o.Kubeconfig != "" {
		return &clientcmd.ClientConfigLoadingRules{ExplicitPath: o.Kubeconfig}, true, "kubeconfig " + tilde(o, o.Kubeconfig)
	}
	if list := o.Getenv(clientcmd.RecommendedConfigPathEnvVar); list != "" {
		return &clientcmd.ClientConfigLoadingRules{Precedence: filepath.SplitList(list)}, true, "KUBECONFIG " + list
	}
	dir := home(o)
	if dir == "" {
		return nil, false, ""
	}
	file := filepath.Join(dir, clientcmd.RecommendedHomeDir, clientcmd.RecommendedFileName)
	return &clientcmd.ClientConfigLoadingRules{Precedence: []string{file}}, false, tilde(o, file)
}

// notFound is ErrNoConfig, unless a context was asked for: then a cluster is meant.
func notFound(o Options, why string) error {
	if o.Context != "" {
		return fmt.Errorf("context %q: no kubeconfig has it: %s", o.Context, why)
	}
	return fmt.Errorf("%w: %s", ErrNoConfig, why)
}

// namesNothing reports whether cfg is what is left when all clusters were removed. A
// current context that is not there was somebody's cluster, and is an error later.
func namesNothing(cfg *clientcmdapi.Config) bool {
	return len(cfg.Clusters) == 0 && len(cfg.Contexts) == 0 && cfg.CurrentContext == ""
}

func contextNames(cfg *clientcmdapi.Config) string {
	if len(cfg.Contexts) == 0 {
		return " (it has none)"
	}
	return " (it has " + strings.Join(slices.Sorted(maps.Keys(cfg.Contexts)), ", ") + ")"
}

// inCluster is the cluster of the pod that the program runs in, or nil outside of
// one. It is what rest.InClusterConfig does, which reads the environment itself.
func inCluster(o Options, accountDir string) (*Target, error) {
	host, port := o.Getenv("KUBERNETES_SERVICE_HOST"), o.Getenv("KUBERNETES_SERVICE_PORT")
	tokenFile, caFile := filepath.Join(accountDir, "token"), filepath.Join(accountDir, "ca.crt")
	if host == "" || port == "" {
		return nil, nil
	}
	token, err := os.ReadFile(tokenFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // a pod without a service account
	case err != nil:
		return nil, fmt.Errorf("service account of this pod: %w", err)
	}
	config := &rest.Config{
		Host:            "https://" + net.JoinHostPort(host, port),
		BearerToken:     strings.TrimSpace(string(token)),
		BearerTokenFile: tokenFile, // read again when it is renewed
		TLSClientConfig: rest.TLSClientConfig{CAFile: caFile},
	}
	namespace := o.Getenv("POD_NAMESPACE")
	if namespace == "" {
		if data, err := os.ReadFile(filepath.Join(accountDir, "namespace")); err == nil {
			namespace = strings.TrimSpace(string(data))
		}
	}
	return &Target{Config: config, Namespace: namespace, Source: "in cluster"}, nil
}

// home is the home directory, also on Windows.
func home(o Options) string {
	if dir := o.Getenv("HOME"); dir != "" {
		return dir
	}
	return o.Getenv("USERPROFILE")
}

// tilde shortens a path in the home directory, as people write it.
func tilde(o Options, path string) string {
	if dir := home(o); dir != "" {
		if rest, ok := strings.CutPrefix(path, filepath.Clean(dir)+string(filepath.Separator)); ok {
			return "~" + string(filepath.Separator) + rest
		}
	}
	return path
}

func withoutCredentials(server string) string {
	u, err := url.Parse(server)
	if err != nil || u.User == nil {
		return server
	}
	u.User = nil
	return u.String()
}
