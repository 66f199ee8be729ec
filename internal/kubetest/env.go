package kubetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// startTimeout is for a machine that has much else to do; a server that is well takes
// three or four seconds.
const startTimeout = 3 * time.Minute

// Env is a running API server with its etcd. Its methods may be called by many tests at
// the same time, except those that stop and start it.
type Env struct {
	// Config is the administrator's, who may do everything. It stays good when the API
	// server is stopped and started again.
	Config *rest.Config

	shared bool
	dir    string // everything that the two processes read and write
	etcd   *envtest.Etcd
	api    *envtest.APIServer
	plane  *envtest.ControlPlane // knows how to make users
	reaper *reaper

	logFiles []*os.File // closed when the server has stopped

	mu          sync.Mutex // guards what follows, and the making of users
	capi        capiChoice
	auditStarts map[string]int64 // by test: where in the log Audit begins to read
}

// start starts etcd and the API server. Whatever it started is gone when it fails.
func start(o options) (*Env, error) {
	tools, err := findTools()
	if err != nil {
		return nil, err
	}
	var env *Env
	for range 5 { // somebody else may take the port just now
		var taken bool
		env, taken, err = startOnce(tools, o)
		if !taken {
			break
		}
	}
	return env, err
}

func startOnce(tools tools, o options) (_ *Env, taken bool, err error) {
	dir, err := os.MkdirTemp("", "kubetest-")
	if err != nil {
		return nil, false, err
	}
	e := &Env{dir: dir}
	if e.reaper, err = startReaper(dir); err != nil {
		return nil, false, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		if err != nil {
			taken = e.portTaken()
			err = errors.Join(fmt.Errorf("kubetest: starting an API server: %w%s", err, e.lastWords()), e.stop())
		}
	}()

	if err := os.WriteFile(e.path("audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, false, err
	}
	etcdPath, err := e.reaper.wrap("etcd", tools.etcd)
	if err != nil {
		return nil, false, err
	}
	etcdPort, err := freePort()
	if err != nil {
		return nil, false, err
	}
	e.etcd = &envtest.Etcd{
		Path:         etcdPath,
		DataDir:      e.path("data"),
		URL:          &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(etcdPort))},
		StartTimeout: startTimeout,
	}
	if e.etcd.Out, err = e.logFile("etcd.log"); err != nil {
		return nil, false, err
	}
	e.etcd.Err = e.etcd.Out
	if err := e.etcd.Start(); err != nil {
		return nil, false, err
	}

	apiPath, err := e.reaper.wrap("kube-apiserver", tools.apiserver)
	if err != nil {
		return nil, false, err
	}
	apiPort, err := freePort()
	if err != nil {
		return nil, false, err
	}
	if err := os.Mkdir(e.path("certs"), 0o700); err != nil {
		return nil, false, err
	}
	e.api = &envtest.APIServer{
		Path:         apiPath,
		CertDir:      e.path("certs"),
		EtcdURL:      e.etcd.URL,
		StartTimeout: startTimeout,
	}
	e.api.SecureServing.Address = "127.0.0.1"
	e.api.SecureServing.Port = strconv.Itoa(apiPort)
	if e.api.Out, err = e.logFile("kube-apiserver.log"); err != nil {
		return nil, false, err
	}
	e.api.Err = e.api.Out
	args := e.api.Configure().
		Set("audit-policy-file", e.path("audit-policy.yaml")).
		Set("audit-log-path", e.auditLog()).
		// It needs no network, not even to find out its own address.
		Set("advertise-address", "127.0.0.1").
		Set("endpoint-reconciler-type", "none")
	for _, f := range o.flags {
		args.Set(f.name, f.value)
	}
	if err := e.api.Start(); err != nil {
		return nil, false, err
	}

	e.plane = &envtest.ControlPlane{APIServer: e.api, Etcd: e.etcd}
	e.Config, err = e.newUser("admin", "system:masters")
	if err != nil {
		return nil, false, err
	}
	return e, false, e.waitForNamespaces()
}

// stop ends both processes, and the reaper removes their files. They are killed: nothing
// of theirs is needed any more, and an orderly end takes as long as the slowest watcher.
func (e *Env) stop() error {
	var errs []error
	if e.api != nil {
		errs = append(errs, e.killAPIServer())
	}
	if e.etcd != nil {
		errs = append(errs, e.reaper.kill("etcd"), ignoreGone(e.etcd.Stop()))
	}
	for _, file := range e.logFiles {
		errs = append(errs, file.Close())
	}
	return errors.Join(append(errs, e.reaper.stop())...)
}

// killAPIServer returns when the process is gone, which envtest's Stop waits for.
func (e *Env) killAPIServer() error {
	return errors.Join(e.reaper.kill("kube-apiserver"), ignoreGone(e.api.Stop()))
}

// StopAPIServer ends the API server as a crash would, in the middle of whatever it does;
// etcd stays. Connections are refused from now on.
func (e *Env) StopAPIServer(tb testing.TB) {
	tb.Helper()
	e.private(tb)
	if err := e.killAPIServer(); err != nil {
		tb.Fatalf("kubetest: stopping the API server: %v", err)
	}
}

// StartAPIServer starts the API server again after StopAPIServer: on the same port, with
// the same data and the same users.
func (e *Env) StartAPIServer(tb testing.TB) {
	tb.Helper()
	e.private(tb)
	if err := e.api.Start(); err != nil {
		tb.Fatalf("kubetest: starting the API server again: %v%s", err, e.lastWords())
	}
}

// PauseAPIServer makes the API server hang until ResumeAPIServer: connections are
// accepted and nothing is answered.
func (e *Env) PauseAPIServer(tb testing.TB) {
	tb.Helper()
	e.private(tb)
	if err := e.reaper.signal("kube-apiserver", syscall.SIGSTOP); err != nil {
		tb.Fatalf("kubetest: pausing the API server: %v", err)
	}
}

// ResumeAPIServer ends PauseAPIServer. What was asked in between is answered now.
func (e *Env) ResumeAPIServer(tb testing.TB) {
	tb.Helper()
	e.private(tb)
	if err := e.reaper.signal("kube-apiserver", syscall.SIGCONT); err != nil {
		tb.Fatalf("kubetest: resuming the API server: %v", err)
	}
}

func (e *Env) private(tb testing.TB) {
	tb.Helper()
	if e.shared {
		tb.Fatal("kubetest: other tests use this API server too; take a Private one")
	}
}

// Namespace is a fresh namespace for the test. It is left behind: without a controller
// manager nothing would finish its deletion, and the server goes anyway.
func (e *Env) Namespace(tb testing.TB) string {
	tb.Helper()
	client, err := kubernetes.NewForConfig(e.Config)
	if err != nil {
		tb.Fatal(err)
	}
	namespace, err := client.CoreV1().Namespaces().Create(tb.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		tb.Fatalf("kubetest: creating a namespace: %v", err)
	}
	return namespace.Name
}

// waitForNamespaces waits until the namespace default is there: it comes a moment after
// the API server calls itself healthy.
func (e *Env) waitForNamespaces() error {
	client, err := kubernetes.NewForConfig(e.Config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		_, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for namespace default: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freePort is a port on 127.0.0.1 that nobody listens on. It is below the ports that
// systems give to outgoing connections, so that an API server that was stopped finds its
// own free again.
func freePort() (int, error) {
	const low, high = 20000, 30000
	for range 100 {
		port := low + rand.IntN(high-low)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("no free port between %d and %d on 127.0.0.1", low, high)
}

func (e *Env) path(name string) string { return filepath.Join(e.dir, name) }

func (e *Env) logFile(name string) (*os.File, error) {
	file, err := os.OpenFile(e.path(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		e.logFiles = append(e.logFiles, file)
	}
	return file, err
}

// logs are the files that the two processes write to.
var logs = []string{"etcd.log", "kube-apiserver.log"}

func (e *Env) portTaken() bool {
	for _, name := range logs {
		if text, err := os.ReadFile(e.path(name)); err == nil && strings.Contains(string(text), "address already in use") {
			return true
		}
	}
	return false
}

// lastWords are the ends of the logs, for the error about a server that did not start.
func (e *Env) lastWords() string {
	var b strings.Builder
	for _, name := range logs {
		text, err := os.ReadFile(e.path(name))
		if err != nil || len(text) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		fmt.Fprintf(&b, "\n--- %s ends with:\n%s", name, strings.Join(lines[max(0, len(lines)-20):], "\n"))
	}
	return b.String()
}
