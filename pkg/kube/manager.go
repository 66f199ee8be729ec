package kube

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Manager tells whether Cluster API's own controller manager works in the cluster.
type Manager struct {
	Live     bool
	Evidence string // for people: what it was seen by; "" if it is not live
}

const (
	// managerLease is what the managers of one Cluster API elect their leader by.
	managerLease = "controller-leader-election-capi"
	// managerLabel is on the Deployment of the core manager.
	managerLabel = "cluster.x-k8s.io/provider=cluster-api"
	// leaseFresh is how long ago a live manager may have renewed its Lease. It does so
	// every few seconds; the rest is for clocks that disagree.
	leaseFresh = 5 * time.Minute
)

// manager looks for a Lease that is held and fresh in any namespace, then for a
// Deployment that has replicas: a manager that just starts, or one of before v0.4,
// whose leader is elected by other means. Who may not look at Deployments is told by
// the Lease alone.
func (c *Client) manager(ctx context.Context, now time.Time) (Manager, error) {
	leases, err := c.Leases.Leases("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + managerLease})
	if err != nil {
		return Manager{}, c.Explain(err, "list", "Lease "+managerLease+" in all namespaces")
	}
	for _, l := range leases.Items {
		held := l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity != ""
		if held && l.Spec.RenewTime != nil && now.Sub(l.Spec.RenewTime.Time) < leaseFresh {
			return Manager{Live: true, Evidence: fmt.Sprintf("Lease %s/%s, held by %s", l.Namespace, l.Name, *l.Spec.HolderIdentity)}, nil
		}
	}
	gvr := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	deployments, err := c.Dynamic.Resource(gvr).List(ctx, metav1.ListOptions{LabelSelector: managerLabel})
	switch {
	case apierrors.IsForbidden(err):
		return Manager{}, nil
	case err != nil:
		return Manager{}, c.Explain(err, "list", "Deployments labelled "+managerLabel+" in all namespaces")
	}
	for _, d := range deployments.Items {
		// The API server fills in the default of 1.
		if n, _, _ := unstructured.NestedInt64(d.Object, "spec", "replicas"); n > 0 {
			return Manager{Live: true, Evidence: fmt.Sprintf("Deployment %s/%s", d.GetNamespace(), d.GetName())}, nil
		}
	}
	return Manager{}, nil
}
