package state

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plunder-app/capplunder/pkg/apply"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// testPKI are keys that say whose they are.
func testPKI(whose string) capi.PKI {
	pki := capi.PKI{}
	for _, name := range pkiKeys() {
		pki[name] = capi.KeyPair{
			Cert: []byte("-----BEGIN CERTIFICATE-----\n" + whose + " " + name + "\n-----END CERTIFICATE-----\n"),
			Key:  []byte("-----BEGIN RSA PRIVATE KEY-----\ns3cret " + whose + " " + name + "\n-----END RSA PRIVATE KEY-----\n"),
		}
	}
	return pki
}

// keyStores are all stores, each with the Cluster "c" of a namespace in it.
func keyStores(t *testing.T, f func(t *testing.T, s apply.Store, c capi.Key)) {
	t.Helper()
	env := kubeServer(t)
	for _, of := range append(storesHere(), storeCase{"kubernetes", nil}) {
		t.Run(of.name, func(t *testing.T) {
			ns := env.Namespace(t)
			var s apply.Store = newStore(t, env, ns)
			if of.open != nil {
				s = of.open(t)
			}
			must(t, s.Sync(t.Context(), decode(t, manifests("v1beta1", ns))))
			f(t, s, capi.Key{Namespace: ns, Name: "c"})
		})
	}
}

func TestPKI(t *testing.T) {
	keyStores(t, func(t *testing.T, s apply.Store, c capi.Key) {
		t.Helper()
		ctx := t.Context()
		if pki, err := s.PKI(ctx, c); pki != nil || err != nil {
			t.Errorf("before: %v, %v", pki, err)
		}
		given, want := testPKI("first"), testPKI("first")
		kept, err := s.SavePKI(ctx, c, given)
		if diff := cmp.Diff(want, kept); diff != "" || err != nil {
			t.Fatalf("%v\n%s", err, diff)
		}
		// What the store has is its own.
		given[capi.PKICluster].Key[0], kept[capi.PKICluster].Key[0] = 'X', 'X'
		got, err := s.PKI(ctx, c)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
		if kept, err = s.SavePKI(ctx, c, testPKI("second")); !cmp.Equal(want, kept) || err != nil {
			t.Errorf("the first one's were replaced: %v", err)
		}
		if pki, err := s.PKI(ctx, capi.Key{Namespace: c.Namespace, Name: "other"}); pki != nil || err != nil {
			t.Errorf("of another cluster: %v, %v", pki, err)
		}

		var missing *KeysError
		part := testPKI("third")
		delete(part, capi.PKIServiceAccount)
		if _, err := s.SavePKI(ctx, c, part); !errors.As(err, &missing) || cmp.Diff([]string{"sa"}, missing.Missing) != "" {
			t.Errorf("incomplete ones: %v", err)
		}

		dead, cancel := context.WithCancel(ctx)
		cancel()
		_, err = s.PKI(dead, c)
		if _, err2 := s.SavePKI(dead, c, testPKI("x")); !errors.Is(err, context.Canceled) || !errors.Is(err2, context.Canceled) {
			t.Errorf("interrupted: %v, %v", err, err2)
		}
	})
}

// A cluster that is installed with other keys gets no new ones.
func TestNoKeysForAnInstalledCluster(t *testing.T) {
	keyStores(t, func(t *testing.T, s apply.Store, c capi.Key) {
		t.Helper()
		must(t, s.SaveClusterRecord(t.Context(), readyCluster(c.Namespace)))
		var missing *KeysError
		_, err := s.SavePKI(t.Context(), c, testPKI("late"))
		if !errors.As(err, &missing) || !missing.Initialized || !strings.Contains(err.Error(), "new ones would not fit") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v", err)
		}
		if pki, err := s.PKI(t.Context(), c); pki != nil || err != nil {
			t.Errorf("stored all the same: %v, %v", pki, err)
		}
	})
}

// Two runs that make keys at the same time go on with the same ones.
func TestTwoRunsMakeKeys(t *testing.T) {
	keyStores(t, func(t *testing.T, s apply.Store, c capi.Key) {
		t.Helper()
		var wg sync.WaitGroup
		kept := make([]capi.PKI, 2)
		for i, whose := range []string{"one", "two"} {
			wg.Go(func() {
				var err error
				if kept[i], err = s.SavePKI(t.Context(), c, testPKI(whose)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if diff := cmp.Diff(kept[0], kept[1]); diff != "" {
			t.Error(diff)
		}
	})
}

// Without a control plane its kubeconfig and its keys are of no use. In Kubernetes they
// belong to the Cluster and go with it.
func TestKeysGoWithTheControlPlane(t *testing.T) {
	for _, of := range storesHere() {
		t.Run(of.name, func(t *testing.T) {
			ctx, s, c := t.Context(), of.open(t), key("c")
			must(t, s.Sync(ctx, testSet("cp")))
			r := capi.ClusterRecord{Key: c, PlunderCluster: c, InitMachine: "cp"}
			must(t, s.SaveClusterRecord(ctx, r))
			_, err := s.SavePKI(ctx, c, testPKI("x"))
			must(t, err)
			r.Initialized = true
			must(t, s.SaveClusterRecord(ctx, r))
			must(t, s.SaveKubeconfig(ctx, c, []byte("k")))
			r.InitMachine = "cp2" // another one goes on
			must(t, s.SaveClusterRecord(ctx, r))
			if pki, err := s.PKI(ctx, c); pki == nil || err != nil {
				t.Errorf("the keys of a cluster that lives: %v, %v", pki, err)
			}
			if _, ok, err := s.Kubeconfig(ctx, c); !ok || err != nil {
				t.Errorf("its kubeconfig: %v, %v", ok, err)
			}
			r.InitMachine, r.Initialized = "", false
			must(t, s.SaveClusterRecord(ctx, r))
			if pki, err := s.PKI(ctx, c); pki != nil || err != nil {
				t.Errorf("the keys of a cluster that is gone: %v, %v", pki, err)
			}
			if _, ok, err := s.Kubeconfig(ctx, c); ok || err != nil {
				t.Errorf("its kubeconfig: %v, %v", ok, err)
			}
			must(t, s.SaveClusterRecord(ctx, r))
		})
	}
}

func TestLocalPKIFile(t *testing.T) {
	l := openLocal(t)
	ctx := t.Context()
	_, err := l.SavePKI(ctx, key("c"), testPKI("x"))
	must(t, err)
	path := filepath.Join(l.Dir(), "namespaces", "default", "pki", "c")
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}
	for _, content := range []string{"", "[]", "{ca: {key: s3cret}}", "s3cret: [", "{ca: {s3cret: s3cret}}"} {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		var corrupt *CorruptError
		_, err := l.PKI(ctx, key("c"))
		_, err2 := l.SavePKI(ctx, key("c"), testPKI("y"))
		if !errors.As(err, &corrupt) || !errors.As(err2, &corrupt) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, %v", content, err, err2)
		}
	}
	for _, bad := range []capi.Key{{Namespace: "default", Name: "../c"}, {Namespace: "..", Name: "c"}, {Name: "c"}} {
		_, err := l.PKI(ctx, bad)
		if _, err2 := l.SavePKI(ctx, bad, testPKI("x")); err == nil || err2 == nil {
			t.Errorf("%v: %v, %v", bad, err, err2)
		}
	}
}

// The Secrets are those of Cluster API, and a run that is killed between any two of them
// is completed with its own, or with another run's.
func TestKubePKISecrets(t *testing.T) {
	env, ns, k := shared(t)
	c := capi.Key{Namespace: ns, Name: "c"}
	var missing *NotSyncedError
	if _, err := k.SavePKI(t.Context(), c, testPKI("x")); !errors.As(err, &missing) {
		t.Errorf("without a Cluster: %v", err)
	}
	cluster := newCluster(t, k, c)
	secrets := connect(t, env.Config).Core.Secrets(ns)
	for n := range 5 {
		_, err := killedStore(t, env, ns, n, false).SavePKI(t.Context(), c, testPKI("killed"))
		if (err == nil) != (n == 4) || err != nil && !errors.Is(err, errKilled) {
			t.Fatalf("killed at write %d: %v", n, err)
		}
		pki, err := k.PKI(t.Context(), c)
		if (pki != nil) != (n == 4) || err != nil {
			t.Errorf("after write %d: %v, %v", n, pki, err)
		}
		kept, err := k.SavePKI(t.Context(), c, testPKI("again"))
		must(t, err)
		for i, name := range pkiKeys() {
			want := testPKI("again")[name]
			if i < n {
				want = testPKI("killed")[name]
			}
			if diff := cmp.Diff(want, kept[name]); diff != "" {
				t.Errorf("killed at write %d: %s: %s", n, name, diff)
			}
			s, err := secrets.Get(t.Context(), "c-"+name, metav1.GetOptions{})
			must(t, err)
			ref := s.OwnerReferences
			if s.Type != "cluster.x-k8s.io/secret" || s.Labels["cluster.x-k8s.io/cluster-name"] != "c" || len(s.Data) != 2 ||
				string(s.Data["tls.crt"]) != string(want.Cert) || string(s.Data["tls.key"]) != string(want.Key) ||
				len(ref) != 1 || ref[0].Kind != "Cluster" || ref[0].UID != cluster.GetUID() || ref[0].Controller != nil {
				t.Errorf("%s: type %s, labels %v, owners %v, %d data", s.Name, s.Type, s.Labels, ref, len(s.Data))
			}
			must(t, secrets.Delete(t.Context(), s.Name, metav1.DeleteOptions{}))
		}
	}
}

// Keys that people gave, or that somebody took away.
func TestKubePKIIncomplete(t *testing.T) {
	env, ns, k := shared(t)
	c := capi.Key{Namespace: ns, Name: "c"}
	newCluster(t, k, c)
	secrets := connect(t, env.Config).Core.Secrets(ns)
	mine := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "c-ca"},
		Data:       map[string][]byte{"tls.crt": []byte("mine"), "tls.key": []byte("s3cret")},
	}
	_, err := secrets.Create(t.Context(), mine, metav1.CreateOptions{})
	must(t, err)
	want := "Cluster " + c.String() + ": of the keys of its control plane, some are missing (Secret " + ns + "/c-etcd, Secret " + ns + "/c-proxy, Secret " + ns + "/c-sa): give all of them, or none"
	for range 2 {
		_, err1 := k.PKI(t.Context(), c)
		_, err2 := k.SavePKI(t.Context(), c, testPKI("x"))
		for _, err := range []error{err1, err2} {
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		}
	}
	s, err := secrets.Get(t.Context(), "c-ca", metav1.GetOptions{})
	must(t, err)
	delete(s.Data, "tls.key") // as with a CA whose key is elsewhere
	_, err = secrets.Update(t.Context(), s, metav1.UpdateOptions{})
	must(t, err)
	if _, err := k.PKI(t.Context(), c); err == nil || !strings.Contains(err.Error(), `Secret `+ns+`/c-ca has nothing under the key "tls.key"`) {
		t.Errorf("got %v", err)
	}
}

// Who may not read keys does not take them for missing.
func TestKubePKIForbidden(t *testing.T) {
	env, ns, k := shared(t)
	stranger, err := kube.Dial(targetOf(env.UserConfig(t, "stranger")))
	must(t, err)
	k.client.Core = stranger.Core
	_, err = k.PKI(t.Context(), capi.Key{Namespace: ns, Name: "c"})
	if err == nil || !strings.Contains(err.Error(), "may not get secrets") {
		t.Errorf("got %v", err)
	}
}
