// Package kube owns the connection to a Kubernetes cluster: which cluster is meant
// (kubeconfig, or the pod that the program runs in), what the cluster serves of
// Cluster API's kinds and of ours, whether a Cluster API manager works there, and
// what an error of its API means to a person. It must not know machines or records,
// it never writes to the cluster, and it never prints.
package kube

import (
	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// Quiet keeps client-go, which logs through klog, from writing to standard error:
// whatever is worth a person's attention there is also an error that is returned.
// It is for the start of a program, before anything else of this package is used.
func Quiet() { klog.SetLogger(logr.Discard()) }
