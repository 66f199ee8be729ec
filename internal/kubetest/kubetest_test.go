package kubetest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/plunder-app/capplunder/internal/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

func clientFor(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func TestServerAnswers(t *testing.T) {
	t.Parallel()
	kube := kubetest.Server(t)
	if kubetest.Server(t) != kube {
		t.Error("the shared server is started twice")
	}
	namespace := kube.Namespace(t)
	if other := kube.Namespace(t); other == namespace {
		t.Errorf("two tests get the namespace %s", namespace)
	}
	file := kube.Kubeconfig(t)
	if got, want := kube.Kubectl(t, file, "get", "namespace", namespace, "-o", "name"), "namespace/"+namespace+"\n"; got != want {
		t.Errorf("kubectl printed %q, want %q", got, want)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("the kubeconfig, with a key in it, has mode %v", info.Mode())
	}
	if got, want := kube.Kubectl(t, file, "config", "current-context"), "kubetest\n"; got != want {
		t.Errorf("current context %q, want %q", got, want)
	}
	// Loopback only.
	if !strings.HasPrefix(kube.Config.Host, "https://127.0.0.1:") {
		t.Errorf("the server listens at %s", kube.Config.Host)
	}
	// The version in tools/kube/go.mod is the one that was built, and that it says it is.
	pinned := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	pinned.Dir = filepath.Join("..", "..", "tools", "kube")
	want, err := pinned.Output()
	if err != nil {
		t.Fatal(err)
	}
	version, err := clientFor(t, kube.Config).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.GitVersion != strings.TrimSpace(string(want)) {
		t.Errorf("the server says it is %s, tools/kube/go.mod says %s; run: make kube-tools", version.GitVersion, want)
	}
}

func TestUserWithoutRights(t *testing.T) {
	t.Parallel()
	kube := kubetest.Server(t)
	namespace := kube.Namespace(t)
	kubeconfig := kube.UserKubeconfig(t, "jane", "apprentices")

	_, stderr, err := kube.TryKubectl(t, kubeconfig, "-n", namespace, "get", "secrets")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(stderr, `(Forbidden): secrets is forbidden: User "jane" cannot list resource "secrets"`) {
		t.Fatalf("kubectl: %v, %s", err, stderr)
	}
	// Her group's rights are hers.
	kube.Kubectl(t, kube.Kubeconfig(t), "-n", namespace, "create", "rolebinding", "apprentices", "--clusterrole=cluster-admin", "--group=apprentices")
	kube.Kubectl(t, kubeconfig, "-n", namespace, "get", "secrets")
	_, _, err = kube.TryKubectl(t, kubeconfig, "-n", "default", "get", "secrets")
	if !errors.As(err, &exit) {
		t.Errorf("jane may read the secrets of another namespace: %v", err)
	}
}

func TestAudit(t *testing.T) {
	t.Parallel()
	kube := kubetest.Private(t)
	config := kube.UserConfig(t, "root", "system:masters")
	config.UserAgent = "audited"
	client := clientFor(t, config)
	ctx := t.Context()
	namespace := kube.Namespace(t)

	kube.ResetAudit(t)
	if events := kube.Audit(t); len(events) != 0 {
		t.Fatalf("nobody asked for anything, but: %v", events)
	}
	begin := time.Now().Add(-time.Second)
	maps := client.CoreV1().ConfigMaps(namespace)
	for _, step := range []func() error{
		func() error { _, err := maps.List(ctx, metav1.ListOptions{}); return err },
		func() error { _, err := maps.Create(ctx, configMap("a"), metav1.CreateOptions{}); return err },
		func() error {
			_, err := maps.Create(ctx, configMap("a"), metav1.CreateOptions{})
			if !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("created twice: %w", err)
			}
			return nil
		},
		func() error {
			_, err := maps.Create(ctx, configMap("b"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		},
		func() error {
			_, err := client.CoreV1().Namespaces().UpdateStatus(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.UpdateOptions{})
			return err
		},
		func() error { _, err := client.Discovery().RESTClient().Get().AbsPath("/apis").DoRaw(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, event := range kube.Audit(t) {
		got = append(got, fmt.Sprintf("%s write=%t", event, event.Write()))
		if event.UserAgent != "audited" || event.Time.Before(begin) || event.Time.After(time.Now()) {
			t.Errorf("%v is of %q at %v", event, event.UserAgent, event.Time)
		}
	}
	want := []string{
		"list configmaps NS/ 200 (root) write=false",
		"create configmaps NS/a 201 (root) write=true",
		"create configmaps NS/a 409 (root) write=true",
		"create configmaps NS/b 201 (root) write=false", // a dry run
		"update namespaces/status NS/NS 200 (root) write=true",
		"get /apis 200 (root) write=false",
	}
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "NS", namespace)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	if n := len(kubetest.Writes(kube.Audit(t))); n != 3 {
		t.Errorf("%d writes, want 3", n)
	}
	t.Run("subtest", func(t *testing.T) {
		if n := len(kube.Audit(t)); n != len(want) {
			t.Errorf("a subtest sees %d requests, its parent %d", n, len(want))
		}
		kube.ResetAudit(t)
		if events := kube.Audit(t); len(events) != 0 {
			t.Errorf("after a reset there is %v", events)
		}
	})
	if n := len(kube.Audit(t)); n != len(want) {
		t.Errorf("a subtest's reset left its parent %d requests, not %d", n, len(want))
	}
}

// A test that counts requests relies on this: an answer that it has had is in the log.
func TestAuditMissesNothing(t *testing.T) {
	t.Parallel()
	kube := kubetest.Server(t)
	namespace := kube.Namespace(t)
	maps := clientFor(t, kube.Config).CoreV1().ConfigMaps(namespace)
	kube.ResetAudit(t)
	for i := range 50 {
		if _, err := maps.Create(t.Context(), configMap(fmt.Sprint("map-", i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, event := range kube.Audit(t) {
			if event.Verb == "create" && event.Namespace == namespace {
				n++
			}
		}
		if n != i+1 {
			t.Fatalf("after %d writes the log has %d", i+1, n)
		}
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	kube := kubetest.Private(t)
	namespace := kube.Namespace(t)
	user := kube.UserConfig(t, "root", "system:masters")
	maps := clientFor(t, user).CoreV1().ConfigMaps(namespace)
	if _, err := maps.Create(t.Context(), configMap("kept"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	get := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := maps.Get(ctx, "kept", metav1.GetOptions{})
		return err
	}

	kube.StopAPIServer(t)
	if err := get(time.Minute); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a stopped server answers: %v", err)
	}
	host := kube.Config.Host
	kube.StartAPIServer(t)
	if kube.Config.Host != host {
		t.Errorf("it was at %s and is at %s now", host, kube.Config.Host)
	}
	if err := get(time.Minute); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if n := len(kubetest.Writes(kube.Audit(t))); n != 2 { // the namespace and the map
		t.Errorf("the log has %d writes of the time before the outage, want 2", n)
	}

	kube.PauseAPIServer(t)
	if err := get(200 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that hangs: %v", err)
	}
	kube.ResumeAPIServer(t)
	if err := get(time.Minute); err != nil {
		t.Errorf("after a pause: %v", err)
	}
}

// What the definitions of each version serve is what the CAPI contract, section 13, says.
func TestClusterAPI(t *testing.T) {
	t.Parallel()
	kube := kubetest.Private(t) // one for all: that also shows that versions can be replaced
	for _, tt := range []struct {
		version string
		serve   []string
		served  string // in the order of discovery: what `kubectl get machines` takes is first
		storage string
	}{
		{kubetest.CAPIv1alpha3, nil, "v1alpha3 v1alpha2", "v1alpha3"},
		{kubetest.CAPIv1alpha3, []string{"v1alpha2"}, "v1alpha2", "v1alpha2"},
		{kubetest.CAPIv1alpha4, nil, "v1alpha4 v1alpha3", "v1alpha4"},
		{kubetest.CAPIMany, nil, "v1beta1 v1alpha4 v1alpha3", "v1beta1"},
		{kubetest.CAPIMany, []string{"v1alpha3", "v1alpha4"}, "v1alpha4 v1alpha3", "v1alpha4"},
		{kubetest.CAPIv1beta1, nil, "v1beta1", "v1beta1"},
		{kubetest.CAPIv1beta1, nil, "v1beta1", "v1beta1"}, // a second time
		{kubetest.CAPIv1beta2, nil, "v1beta2 v1beta1", "v1beta2"},
		{kubetest.CAPIv1beta2, []string{"v1beta1"}, "v1beta1", "v1beta1"},
		{kubetest.CAPIv1beta2, []string{"v1beta2"}, "v1beta2", "v1beta2"},
	} {
		name := tt.version
		if tt.serve != nil {
			name += " only " + strings.Join(tt.serve, " ")
		}
		t.Run(name, func(t *testing.T) {
			// Each version has a server of its own in tests; here the next one must find
			// no definition of a version that it no longer has.
			kubeconfig := kube.Kubeconfig(t)
			kube.Kubectl(t, kubeconfig, "delete", "crd", "--all", "--wait")
			kube.InstallCAPI(t, tt.version, tt.serve...)
			groups, err := clientFor(t, kube.Config).Discovery().ServerGroups()
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == "cluster.x-k8s.io" })
			if i < 0 {
				t.Fatal("cluster.x-k8s.io is not served")
			}
			var served []string
			for _, v := range groups.Groups[i].Versions {
				served = append(served, v.Version)
				var kinds []string
				for _, kind := range []string{"clusters", "machines", "machinesets", "machinedeployments"} {
					kinds = append(kinds, kind+"."+v.Version+".cluster.x-k8s.io")
				}
				kube.Kubectl(t, kubeconfig, "get", strings.Join(kinds, ","))
			}
			if got := strings.Join(served, " "); got != tt.served {
				t.Errorf("served %q, want %q", got, tt.served)
			}
			const query = `jsonpath={.spec.versions[?(@.storage==true)].name} {.spec.conversion.strategy} {.metadata.labels.cluster\.x-k8s\.io/provider}`
			if got, want := kube.Kubectl(t, kubeconfig, "get", "crd", "machines.cluster.x-k8s.io", "-o", query), tt.storage+" None cluster-api"; got != want {
				t.Errorf("storage, conversion and label are %q, want %q", got, want)
			}
		})
	}
}

func TestServerWithClusterAPI(t *testing.T) {
	t.Parallel()
	kube := kubetest.ServerWith(t, kubetest.CAPIv1beta1)
	if kubetest.ServerWith(t, kubetest.CAPIv1beta1) != kube {
		t.Error("the shared server is started twice")
	}
	if kubetest.Server(t) == kube {
		t.Error("the server without Cluster API has it")
	}
	kube.InstallCAPI(t, kubetest.CAPIv1beta1) // what is there already may be asked for
	namespace := kube.Namespace(t)
	kube.Kubectl(t, kube.Kubeconfig(t), "-n", namespace, "get", "machines,clusters")
}

// A missing binary is a failure that says what to type.
func TestMissingTools(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "tools", "kube"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tools", "kube", "go.mod"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "pkg"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(dir, "pkg"))
	got := failure(t, func(tb testing.TB) { kubetest.Private(tb) })
	if want := filepath.Join(dir, ".cache", "kube", "etcd") + " is missing; run: make kube-tools"; !strings.Contains(got, want) {
		t.Errorf("the test failed with %q, want %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(dir, ".cache")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
}
