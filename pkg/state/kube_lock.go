package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/kube"
)

const (
	// SystemNamespace is where reservations of hardware and the locks of plunder servers
	// are: one place for all clusters. "capplunder init" makes it.
	SystemNamespace = "capplunder-system"

	// How long the lock of a cluster, and of a plunder server, outlives a holder that does
	// not renew it. A holder renews three times as often.
	clusterLease = 30 * time.Second
	serverLease  = 15 * time.Second

	annotationServer = annotationPrefix + "server" // on the lock of a plunder server: its URL

	// On everything that the store makes beside the objects it was given.
	managedBy      = "capplunder"
	labelManagedBy = "app.kubernetes.io/managed-by"
)

// Lock keeps other runs away from the given clusters, not from others. held ends when a
// lock turns out to be another run's, with *LockLostError as its cause; not while the
// API server does not answer, for then nobody else can take the lock either.
func (k *Kubernetes) Lock(ctx context.Context, req capi.LockRequest) (held context.Context, unlock func() error, err error) {
	held, release, err := k.locks().clusters(ctx, req)
	if err != nil || len(req.Clusters) == 0 {
		return held, release, err
	}
	if err := k.sweepReservations(held, req.Clusters); err != nil {
		return nil, nil, errors.Join(err, release())
	}
	return held, sync.OnceValue(func() error {
		return errors.Join(release(), k.dropLocks(ctx, req.Clusters))
	}), nil
}

// dropLocks deletes the Leases that locked those of the clusters that this run has removed,
// unless somebody holds them by now. A Lease that stays, because a run was killed, locks
// nothing.
func (k *Kubernetes) dropLocks(ctx context.Context, clusters []capi.Key) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	var errs []error
	for _, key := range clusters {
		k.mu.Lock()
		removed := k.removed[key]
		k.mu.Unlock()
		if !removed {
			continue
		}
		api, name := k.client.Leases.Leases(key.Namespace), clusterLeaseName(key.Name)
		lease, err := api.Get(ctx, name, metav1.GetOptions{})
		if err == nil && holderOf(lease) == "" {
			err = api.Delete(ctx, name, metav1.DeleteOptions{
				Preconditions: &metav1.Preconditions{UID: &lease.UID, ResourceVersion: &lease.ResourceVersion},
			})
		}
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, k.client.Explain(err, "delete", "Lease "+key.Namespace+"/"+name))
		}
	}
	return errors.Join(errs...)
}

// sweepReservations gives up what a run left reserved that was killed before it
// recorded so. The clusters are locked.
func (k *Kubernetes) sweepReservations(ctx context.Context, clusters []capi.Key) error {
	r := reservations{client: k.client, namespace: SystemNamespace}
	var namespaces []string
	for _, cluster := range clusters {
		namespaces = append(namespaces, cluster.Namespace)
	}
	slices.Sort(namespaces)
	records, err := k.Records(ctx, slices.Compact(namespaces)...)
	for _, cluster := range clusters {
		if err == nil {
			err = r.sweep(ctx, cluster, records)
		}
	}
	return err
}

// LockServer keeps other runs from writing deployments to a plunder server. It waits
// for that as long as ctx lasts.
func (k *Kubernetes) LockServer(ctx context.Context, url string) (unlock func() error, err error) {
	return k.locks().server(ctx, url)
}

func (k *Kubernetes) locks() locks {
	return locks{client: k.client, namespace: SystemNamespace, duration: k.opts.LeaseDuration}
}

// locks are the locks in the cluster.
type locks struct {
	client    *kube.Client
	namespace string        // of the locks of servers
	duration  time.Duration // whole seconds; 0: as usual
}

func (l locks) lasting(usual time.Duration) time.Duration {
	if l.duration > 0 {
		return l.duration
	}
	return usual
}

// clusters locks clusters, one Lease in the namespace of each, always in the same
// order: two runs that want the same ones never wait for each other.
func (l locks) clusters(ctx context.Context, req capi.LockRequest) (held context.Context, unlock func() error, err error) {
	keys := slices.Clone(req.Clusters)
	slices.SortFunc(keys, compareKeys)
	keys = slices.Compact(keys)
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("lock %s: %w", l.client.Target, err)
	}
	held, cancel := context.WithCancelCause(ctx)
	var taken []*heldLease
	unlock = sync.OnceValue(func() error {
		defer cancel(context.Canceled)
		return giveBackAll(held, taken)
	})
	patience := time.Now().Add(max(req.Patience, 0))
	for _, key := range keys {
		lease := newLeaseLock(l.client, key.Namespace, clusterLeaseName(key.Name), "Cluster "+key.String(), req.Command, l.lasting(clusterLease))
		h, err := lease.acquire(held, max(time.Until(patience), 0), req.Observe, cancel)
		if err == nil {
			taken = append(taken, h)
			continue
		}
		if ctx.Err() == nil && held.Err() != nil {
			err = context.Cause(held) // a lock was lost while another was waited for
		}
		return nil, nil, errors.Join(err, unlock())
	}
	return held, unlock, nil
}

// giveBackAll releases locks at the same time, so that a cluster that does not answer
// is waited for only once. What held ended with was told already.
func giveBackAll(held context.Context, taken []*heldLease) error {
	errs := make([]error, len(taken))
	var wg sync.WaitGroup
	for i, h := range taken {
		wg.Go(func() {
			if err := h.giveBack(held); err != nil && !errors.Is(err, context.Cause(held)) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// server locks a plunder server, and waits for that as long as ctx lasts. If the lock
// is lost, unlock returns the *LockLostError.
func (l locks) server(ctx context.Context, rawURL string) (unlock func() error, err error) {
	address := serverAddress(rawURL)
	lease := newLeaseLock(l.client, l.namespace, "server-"+shortHash(address, 8), "plunder server "+address, "", l.lasting(serverLease))
	lease.annotations = map[string]string{annotationServer: address}
	h, err := lease.acquire(ctx, forever, nil, func(error) {})
	if err != nil {
		return nil, err
	}
	return sync.OnceValue(func() error { return h.giveBack(ctx) }), nil
}

// clusterLeaseName is the name of the Lease that locks a cluster.
func clusterLeaseName(cluster string) string {
	name := "capplunder-" + cluster
	if len(name) > validation.DNS1123SubdomainMaxLength {
		name = "capplunder-" + shortHash(cluster, 16)
	}
	return name
}

// serverAddress is the URL of a server without what does not tell servers apart, or is
// secret: all runs must come to the same name for the same server.
func serverAddress(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return raw
	}
	host, port := strings.ToLower(u.Hostname()), u.Port()
	switch {
	case port != "":
	case u.Scheme == "http":
		port = "80"
	default:
		port = "443"
	}
	return (&url.URL{Scheme: u.Scheme, Host: net.JoinHostPort(host, port), Path: strings.TrimRight(u.Path, "/")}).String()
}

// shortHash stands for what is too long for a name, or not fit for one: 2n hexadecimal
// digits.
func shortHash(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:n])
}
