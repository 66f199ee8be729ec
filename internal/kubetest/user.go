package kubetest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// newUser makes a user with a client certificate. Nobody needs to know them before; what
// they may do is up to RBAC.
func (e *Env) newUser(name string, groups ...string) (*rest.Config, error) {
	e.mu.Lock() // the certificate authority counts its certificates
	defer e.mu.Unlock()
	// Tests must not wait for a client that is polite to a server of their own.
	user, err := e.plane.AddUser(envtest.User{Name: name, Groups: groups}, &rest.Config{QPS: 1000, Burst: 2000})
	if err != nil {
		return nil, err
	}
	return user.Config(), nil
}

// UserConfig is the configuration of a user who has no rights but what RBAC gives to the
// name, its groups and everybody.
func (e *Env) UserConfig(tb testing.TB, user string, groups ...string) *rest.Config {
	tb.Helper()
	config, err := e.newUser(user, groups...)
	if err != nil {
		tb.Fatalf("kubetest: user %s: %v", user, err)
	}
	return config
}

// Kubeconfig is the path of the administrator's kubeconfig file, mode 0600, with one
// context, "kubetest", in the namespace default.
func (e *Env) Kubeconfig(tb testing.TB) string {
	tb.Helper()
	return WriteKubeconfig(tb, e.Config, metav1.NamespaceDefault)
}

// UserKubeconfig is likewise that of a user without rights, see UserConfig.
func (e *Env) UserKubeconfig(tb testing.TB, user string, groups ...string) string {
	tb.Helper()
	return WriteKubeconfig(tb, e.UserConfig(tb, user, groups...), metav1.NamespaceDefault)
}

// WriteKubeconfig writes a kubeconfig file, mode 0600, into a folder of the test's. Its
// only context is "kubetest", in the namespace.
func WriteKubeconfig(tb testing.TB, config *rest.Config, namespace string) string {
	tb.Helper()
	const name = "kubetest"
	file := clientcmdapi.NewConfig()
	file.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	file.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}
	file.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	file.CurrentContext = name
	path := filepath.Join(tb.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*file, path); err != nil {
		tb.Fatal(err)
	}
	return path
}

// Kubectl runs kubectl and returns what it printed. The test fails if kubectl does.
func (e *Env) Kubectl(tb testing.TB, kubeconfig string, args ...string) (stdout string) {
	tb.Helper()
	stdout, stderr, err := e.TryKubectl(tb, kubeconfig, args...)
	if err != nil {
		tb.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// TryKubectl is Kubectl for commands that may fail; err is of type *exec.ExitError then.
func (e *Env) TryKubectl(tb testing.TB, kubeconfig string, args ...string) (stdout, stderr string, err error) {
	tb.Helper()
	tools, err := findTools()
	if err != nil {
		tb.Fatal(err)
	}
	// kubectl keeps what the server serves in its home for hours; tests change that. The
	// home goes with the server.
	home, err := os.MkdirTemp(e.dir, "home-") //nolint:usetesting // cleanups call this too
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tools.kubectl, args...)
	cmd.Env = []string{"KUBECONFIG=" + kubeconfig, "HOME=" + home}
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}
