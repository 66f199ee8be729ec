package kubetest_test

import (
	"os"
	"testing"

	"github.com/plunder-app/capplunder/internal/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

func TestServerAnswers(t *testing.T) {
	kube := kubetest.Server(t)
	namespace := kube.Namespace(t)
	got := kube.Kubectl(t, kube.Kubeconfig(t), "get", "namespace", namespace, "-o", "name")
	if want := "namespace/" + namespace + "\n"; got != want {
		t.Errorf("kubectl printed %q, want %q", got, want)
	}
	if kubetest.Server(t) != kube {
		t.Error("the shared server is started twice")
	}
}
