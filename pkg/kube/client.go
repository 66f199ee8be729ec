package kube

import (
	"context"
	"fmt"

	"k8s.io/client-go/dynamic"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// Client is a connection to a cluster.
type Client struct {
	*Target
	Dynamic dynamic.Interface
	Core    corev1client.CoreV1Interface
	Leases  coordinationv1client.CoordinationV1Interface
	Schema  Schema // empty after Dial
}

// Connect asks the cluster what it serves. Its errors are those of Explain, and
// *NotInstalledError and *ContractError. ctx limits the questions only.
func Connect(ctx context.Context, t *Target) (*Client, error) {
	c, err := Dial(t)
	if err != nil {
		return nil, err
	}
	if c.Schema, err = c.schema(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Dial is Connect without looking at what the cluster serves, for whoever installs
// it. No request is sent.
func Dial(t *Target) (*Client, error) {
	fail := func(err error) (*Client, error) { return nil, fmt.Errorf("%s: %w", t, err) }
	httpClient, err := rest.HTTPClientFor(t.Config) // one, so that they share connections
	if err != nil {
		return fail(err)
	}
	c := &Client{Target: t}
	if c.Dynamic, err = dynamic.NewForConfigAndClient(t.Config, httpClient); err != nil {
		return fail(err)
	}
	if c.Core, err = corev1client.NewForConfigAndClient(t.Config, httpClient); err != nil {
		return fail(err)
	}
	if c.Leases, err = coordinationv1client.NewForConfigAndClient(t.Config, httpClient); err != nil {
		return fail(err)
	}
	return c, nil
}
