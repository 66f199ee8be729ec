package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/http2"
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
	var (
		forbidden *ForbiddenError
		status    apierrors.APIStatus
	)
	cause := err
	if e, ok := errors.AsType[*url.Error](err); ok {
		cause = e.Err // the URL says nothing that verb and object do not
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, capi.ErrUnavailable), errors.As(err, &forbidden):
		return err // explained already
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s %s: %w", verb, object, cause)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s %s: %s: %w in time: %v", verb, object, t, capi.ErrUnavailable, cause) //nolint:errorlint // on purpose: this deadline is nobody's business
	case unavailable(err) && strings.Contains(err.Error(), "webhook"): // Cluster API's, whose manager starts or is away
		return fmt.Errorf("%s %s: %s: a webhook there gives %w: %w", verb, object, t, capi.ErrUnavailable, cause)
	case unavailable(err):
		return fmt.Errorf("%s %s: %s: %w: %w", verb, object, t, capi.ErrUnavailable, cause)
	case apierrors.IsForbidden(err):
		return t.forbidden(err, verb, object)
	case apierrors.IsUnauthorized(err) && t.Context == "":
		return fmt.Errorf("%s %s: %s does not accept the token of this pod's service account: %w", verb, object, t, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s %s: %s does not accept the credentials of the context, renew them: %w", verb, object, t, err)
	case errors.As(err, &status):
		return fmt.Errorf("%s %s: %w", verb, object, err)
	}
	return fmt.Errorf("%s %s: %s: %w", verb, object, t, cause) // certificates and the like
}

// unavailable reports whether asking again later may help. Of failures to get an
// answer, all may be over soon but the few that are known not to be: a run that asks
// once too often does less harm than one that gives up a record for a lost connection.
func unavailable(err error) bool {
	var (
		status  apierrors.APIStatus
		asked   *url.Error
		op      *net.OpError
		cert    *tls.CertificateVerificationError
		noTLS   tls.RecordHeaderError
		timeout net.Error
		stream  http2.StreamError
		goAway  http2.GoAwayError
	)
	switch {
	case errors.As(err, &status):
		code := status.Status().Code
		return code >= http.StatusInternalServerError || code == http.StatusTooManyRequests
	case errors.As(err, &cert), errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		return false
	case errors.As(err, &op) && op.Op == "remote error":
		return false // a TLS alert: the server answers, and refuses
	case errors.As(err, &asked), errors.As(err, &op), errors.As(err, &stream), errors.As(err, &goAway):
		return true
	}
	return errors.As(err, &timeout) && timeout.Timeout() ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || utilnet.IsHTTP2ConnectionLost(err)
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
