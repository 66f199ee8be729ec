package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

// errKilled is what a network says that is not there any more.
var errKilled = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("killed")}

// killer is a network that breaks at the n-th write (from 0): for good, before the write
// reaches the server, or once, before its answer comes back.
type killer struct {
	http.RoundTripper
	left atomic.Int64 // writes that still go through
	once bool
}

func (k *killer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet && (k.once || k.left.Load() >= 0) {
		return k.RoundTripper.RoundTrip(req)
	}
	switch left := k.left.Add(-1); {
	case left >= 0, k.once && left < -1:
		return k.RoundTripper.RoundTrip(req)
	case k.once:
		resp, err := k.RoundTripper.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
	}
	return nil, errKilled
}

// killedStore is a store of a process that is killed at its n-th write, or misses the
// answer to it.
func killedStore(t *testing.T, env *kubetest.Env, claims string, n int, once bool) *Kubernetes {
	t.Helper()
	config := rest.CopyConfig(env.Config)
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		k := &killer{RoundTripper: rt, once: once}
		k.left.Store(int64(n))
		return k
	})
	k := openKube(t, config, 0)
	k.claims = reservations{client: k.client, namespace: claims}
	return k
}

// A run is killed at each of its writes, and run again; or it misses the answer to one,
// and tries again. The objects are those of a run that nothing happened to. Then the
// same for the deletion: nothing is left.
func TestKubeKilledAtEveryWrite(t *testing.T) {
	env := kubeServer(t)
	apply := func(k *Kubernetes, set *capi.Set) error {
		ns := set.Clusters[0].Namespace
		if _, err := k.Look(t.Context(), set); err != nil {
			return err
		}
		if err := k.Sync(t.Context(), set); err != nil {
			return err
		}
		if err := k.SaveClusterRecord(t.Context(), readyCluster(ns)); err != nil {
			return err
		}
		r := readyRecord(ns, "cp", 0)
		first := r
		first.Ready, first.ProviderID, first.Phase = false, "", capi.PhaseProvisioning
		for _, r := range []capi.Record{first, r} {
			if err := k.SaveRecord(t.Context(), r); err != nil {
				return err
			}
		}
		return nil
	}
	remove := func(k *Kubernetes, ns string) error {
		key := capi.Key{Namespace: ns, Name: "cp"}
		if _, ok, err := k.Record(t.Context(), key); err != nil || !ok {
			return err
		}
		if done, _, err := k.Condemn(t.Context(), key); err != nil || !done {
			return errors.Join(err, errors.New("not done"))
		}
		return k.DeleteRecord(t.Context(), key)
	}
	want := ""
	for _, once := range []bool{false, true} {
		finished := 0 // applied and removed without being killed
		for n := 0; finished < 2; n++ {
			t.Run(fmt.Sprintf("%d once %v", n, once), func(t *testing.T) {
				finished = 0
				ns := env.Namespace(t)
				set := decode(t, manifests("v1beta1", ns))
				k := killedStore(t, env, ns, n, once)
				err := apply(k, set)
				switch {
				case err == nil:
					finished++
				case !errors.Is(err, errKilled):
					t.Fatal(err)
				}
				if !once {
					k = newStore(t, env, ns)
				}
				if err != nil {
					must(t, apply(k, set))
				}
				got := dump(t, k, ns)
				if want == "" {
					want = got // of the first, which wrote nothing before it was killed
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				if inSync, err := newStore(t, env, ns).Look(t.Context(), set); !inSync || err != nil {
					t.Errorf("in sync %v, %v", inSync, err)
				}

				k = killedStore(t, env, ns, n, once)
				err = remove(k, ns)
				switch {
				case err == nil:
					finished++
				case !errors.Is(err, errKilled):
					t.Fatal(err)
				}
				if !once {
					k = newStore(t, env, ns)
				}
				if err != nil {
					must(t, remove(k, ns))
				}
				for _, r := range []kube.Resource{k.machines(), k.plunderMachines()} {
					if left, err := k.list(t.Context(), r, ns); len(left) > 0 || err != nil {
						t.Errorf("%s: %v, %v", r.Kind, sortedNames(left), err)
					}
				}
				if macs, err := k.Claims(t.Context()); len(macs) > 0 || err != nil {
					t.Errorf("claimed: %v, %v", macs, err)
				}
			})
			if t.Failed() || n > 100 {
				t.Fatalf("given up after %d writes", n)
			}
		}
	}
}

// dump is all objects of a namespace without what differs between any two of them.
func dump(t *testing.T, k *Kubernetes, ns string) string {
	t.Helper()
	var b strings.Builder
	for _, r := range []kube.Resource{k.clusters(), k.machines(), k.plunderClusters(), k.plunderMachines()} {
		all, err := k.list(t.Context(), r, ns)
		must(t, err)
		for _, at := range sortedNames(all) {
			u := all[at].DeepCopy()
			u.SetManagedFields(nil)
			u.SetUID("")
			u.SetResourceVersion("")
			u.SetGeneration(0)
			u.SetCreationTimestamp(metav1.Time{})
			annotations := u.GetAnnotations()
			delete(annotations, annotationGiven) // of a manifest that names the namespace
			u.SetAnnotations(annotations)
			refs := u.GetOwnerReferences()
			for i := range refs {
				refs[i].UID = ""
			}
			u.SetOwnerReferences(refs)
			raw, err := json.MarshalIndent(u.Object, "", "  ")
			must(t, err)
			b.Write(raw)
		}
	}
	return strings.ReplaceAll(b.String(), ns, "NAMESPACE")
}
