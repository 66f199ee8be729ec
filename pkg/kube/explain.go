package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Explain gives an error of the cluster's API its meaning. verb and object say what
// was tried: "patch", "PlunderMachine default/worker". The result
//   - wraps capi.ErrUnavailable when the cluster does not answer now: no connection, no
//     answer in time, 429 or 5xx. It never wraps context.DeadlineExceeded: who set a
//     deadline asks their own context;
//   - is a *ForbiddenError when the user lacks a right;
//   - names the context whose credentials the cluster did not accept;
//   - is err with what was tried, for anything else (conflicts, what is not found or
//     not valid, an interruption): apimachinery's tests of it still work.
func (t *Target) Explain(err error, verb, object string) error {
	var forbidden *ForbiddenError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, capi.ErrUnavailable), errors.As(err, &forbidden):
		return err // explained already
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s %s: %w", verb, object, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s %s: %s: %w in time: %v", verb, object, t, capi.ErrUnavailable, err) //nolint:errorlint // see above: this deadline is nobody's business
	case unavailable(err):
		return fmt.Errorf("%s %s: %s: %w: %w", verb, object, t, capi.ErrUnavailable, err)
	case apierrors.IsForbidden(err):
		return t.forbidden(err, verb, object)
	case apierrors.IsUnauthorized(err):
		if t.Context == "" {
			return fmt.Errorf("%s %s: %s does not accept the token of this pod's service account: %w", verb, object, t, err)
		}
		return fmt.Errorf("%s %s: %s does not accept the credentials of the context; renew them: %w", verb, object, t, err)
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return fmt.Errorf("%s %s: %w", verb, object, err)
	}
	return fmt.Errorf("%s %s: %s: %w", verb, object, t, err) // certificates, credential plug-ins, proxies
}

// unavailable reports whether asking again later may help.
func unavailable(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests ||
			apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op != "remote error" // a TLS alert: the server does answer, and refuses
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		utilnet.IsProbableEOF(err) || utilnet.IsHTTP2ConnectionLost(err)
}

// denial is how the API server words that a user lacks a right. Everything else that
// is Forbidden comes from admission: a namespace that is being deleted, a quota.
var denial = regexp.MustCompile(`User "([^"]*)" cannot (\S+) resource "([^"]+)"(?: in API group "([^"]*)")?(?: in the namespace "([^"]+)"| at the cluster scope)`)

func (t *Target) forbidden(err error, verb, object string) error {
	m := denial.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("%s %s: %w", verb, object, err)
	}
	plural, sub, hasSub := strings.Cut(m[3], "/")
	resource := schema.GroupResource{Group: m[4], Resource: plural}.String()
	if hasSub {
		resource += "/" + sub
	}
	return &ForbiddenError{User: m[1], Verb: m[2], Resource: resource, Namespace: m[5], Target: t.String(), Err: err}
}
