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
func (e *Env) UserConfig(t testing.TB, user string, groups ...string) *rest.Config {
	t.Helper()
	config, err := e.newUser(user, groups...)
	if err != nil {
		t.Fatalf("kubetest: user %s: %v", user, err)
	}
	return config
}

// Kubeconfig is the path of the administrator's kubeconfig file, mode 0600, with one
// context, "kubetest", in the namespace default.
func (e *Env) Kubeconfig(t testing.TB) string {
	t.Helper()
	return WriteKubeconfig(t, e.Config, metav1.NamespaceDefault)
}

// UserKubeconfig is likewise that of a user without rights, see UserConfig.
func (e *Env) UserKubeconfig(t testing.TB, user string, groups ...string) string {
	t.Helper()
	return WriteKubeconfig(t, e.UserConfig(t, user, groups...), metav1.NamespaceDefault)
}

// WriteKubeconfig writes a kubeconfig file, mode 0600, into a folder of the test's. Its
// only context is "kubetest", in the namespace.
func WriteKubeconfig(t testing.TB, config *rest.Config, namespace string) string {
	t.Helper()
	const name = "kubetest"
	file := clientcmdapi.NewConfig()
	file.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	file.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}
	file.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	file.CurrentContext = name
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*file, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// Kubectl runs kubectl and returns what it printed. A kubectl that fails fails the test.
func (e *Env) Kubectl(t testing.TB, kubeconfig string, args ...string) (stdout string) {
	t.Helper()
	stdout, stderr, err := e.TryKubectl(t, kubeconfig, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// TryKubectl is Kubectl for commands that may fail; err is of type *exec.ExitError then.
func (e *Env) TryKubectl(t testing.TB, kubeconfig string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	tools, err := findTools()
	if err != nil {
		t.Fatal(err)
	}
	// kubectl keeps what the server serves in its home for hours; tests change that.
	home, err := os.MkdirTemp(e.dir, "home-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)                                                            //nolint:errcheck // the server's folder goes with all that is in it
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute) // cleanups call it too
	defer cancel()
	cmd := exec.CommandContext(ctx, tools.kubectl, args...)
	cmd.Env = []string{"KUBECONFIG=" + kubeconfig, "HOME=" + home}
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}
