package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// discard is for what test servers say about handshakes, which are refused on purpose.
func discard() *log.Logger { return log.New(io.Discard, "", 0) }

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func status(code int32, reason metav1.StatusReason, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(code))
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
		})
	}
}

const denied = `plundermachines.infrastructure.cluster.x-k8s.io "worker" is forbidden: User "jane@example.com" cannot patch resource "plundermachines/status" in API group "infrastructure.cluster.x-k8s.io" in the namespace "prod"`

func TestExplain(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, tc := range []struct {
		name        string
		handler     http.HandlerFunc
		prepare     func(*Target, *httptest.Server)
		cancel      bool
		unavailable bool
		want        []string // parts of the error
		check       func(error) bool
	}{
		{
			name: "refused", unavailable: true, want: []string{"get Secret default/x", "cluster https://127.0.0.1:", "no answer", "connection refused"},
			prepare: func(_ *Target, s *httptest.Server) { s.Close() },
		},
		{
			name: "no such host", unavailable: true, want: []string{"no answer", "no such host"},
			prepare: func(t *Target, _ *httptest.Server) {
				t.Config.Dial = func(context.Context, string, string) (net.Conn, error) {
					return nil, &net.DNSError{Err: "no such host", Name: "cluster.example", IsNotFound: true}
				}
			},
		},
		{
			name: "hangs", handler: hang, unavailable: true, want: []string{"no answer in time"},
			prepare: func(t *Target, _ *httptest.Server) { t.Config.Timeout = 50 * time.Millisecond },
		},
		{
			name: "hangs up", unavailable: true, want: []string{"no answer"}, // client-go asks again until the limit
			handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			prepare: func(t *Target, _ *httptest.Server) { t.Config.Timeout = 200 * time.Millisecond },
		},
		{
			name: "hangs up in the middle", unavailable: true, want: []string{"no answer", "EOF"},
			handler: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				_, _ = io.WriteString(w, "{")
			},
		},
		{name: "500", handler: status(500, metav1.StatusReasonInternalError, "etcd is away"), unavailable: true, want: []string{"no answer", "etcd is away"}},
		{
			name:        "a webhook is away",
			handler:     status(500, metav1.StatusReasonInternalError, `Internal error occurred: failed calling webhook "default.machine.cluster.x-k8s.io": dial tcp 10.0.0.1:443: connect: connection refused`),
			unavailable: true, want: []string{"a webhook there gives no answer: Internal error occurred: failed calling webhook"},
		},
		{name: "503 of a proxy", handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, unavailable: true},
		{name: "504", handler: status(504, metav1.StatusReasonTimeout, "too slow"), unavailable: true},
		{name: "429", handler: status(429, metav1.StatusReasonTooManyRequests, "slow down"), unavailable: true},
		{
			name: "unknown certificate", handler: hang, want: []string{"cluster https://127.0.0.1:", "certificate signed by unknown authority"},
			prepare: func(t *Target, _ *httptest.Server) { t.Config.CAData = nil },
		},
		{
			name: "http is spoken where https is", handler: hang, want: []string{"rejected our request"},
			prepare: func(t *Target, s *httptest.Server) {
				t.Config.Host, t.Config.TLSClientConfig = "http://"+s.Listener.Addr().String(), rest.TLSClientConfig{}
			},
		},
		{
			name: "forbidden", handler: status(403, metav1.StatusReasonForbidden, denied),
			want: []string{
				"user jane@example.com may not patch plundermachines.infrastructure.cluster.x-k8s.io/status in namespace prod",
				"the ClusterRole capplunder (capplunder init -o yaml shows it) grants it",
			},
			check: func(err error) bool {
				e, ok := errors.AsType[*ForbiddenError](err)
				return ok && apierrors.IsForbidden(err) && e.Verb == "patch" && e.Namespace == "prod" && e.User == "jane@example.com" &&
					e.Resource == "plundermachines.infrastructure.cluster.x-k8s.io/status" &&
					e.NextCommand() == "kubectl create clusterrolebinding capplunder-jane-example.com --clusterrole=capplunder --user=jane@example.com"
			},
		},
		{
			name: "forbidden by admission", handler: status(403, metav1.StatusReasonForbidden, `secrets "x" is forbidden: unable to create new content in namespace default because it is being terminated`),
			want: []string{"get Secret default/x: ", "it is being terminated"},
			check: func(err error) bool {
				_, ok := errors.AsType[*ForbiddenError](err)
				return !ok && apierrors.IsForbidden(err)
			},
		},
		{
			name: "unauthorized", handler: status(401, metav1.StatusReasonUnauthorized, "Unauthorized"),
			want:  []string{"(context mgmt of ~/.kube/config) does not accept the credentials of the context, renew them"},
			check: apierrors.IsUnauthorized,
		},
		{
			name: "unauthorized in a pod", handler: status(401, metav1.StatusReasonUnauthorized, "Unauthorized"),
			prepare: func(t *Target, _ *httptest.Server) { t.Context, t.Source = "", "in cluster" },
			want:    []string{"(in cluster) does not accept the token of this pod's service account"},
		},
		{name: "not found", handler: status(404, metav1.StatusReasonNotFound, "no"), want: []string{"get Secret default/x: no"}, check: apierrors.IsNotFound},
		{name: "conflict", handler: status(409, metav1.StatusReasonConflict, "changed"), check: apierrors.IsConflict},
		{name: "invalid", handler: status(422, metav1.StatusReasonInvalid, "bad"), check: apierrors.IsInvalid},
		{
			name: "interrupted", handler: hang, cancel: true,
			check: func(err error) bool { return errors.Is(err, context.Canceled) },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.handler == nil {
				tc.handler = hang
			}
			server := httptest.NewUnstartedServer(tc.handler)
			server.Config.ErrorLog = discard()
			server.StartTLS()
			defer server.Close()
			target := &Target{Context: "mgmt", Source: "~/.kube/config", Server: server.URL, Config: &rest.Config{
				Host: server.URL, Timeout: requestTimeout, WarningHandler: rest.NoWarnings{},
				TLSClientConfig: rest.TLSClientConfig{CAData: pemOf(server)},
			}}
			if tc.prepare != nil {
				tc.prepare(target, server)
			}
			c, err := Dial(target)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tc.cancel {
				cancel()
			}
			_, err = c.Core.Secrets("default").Get(ctx, "x", metav1.GetOptions{})
			err = c.Explain(err, "get", "Secret default/x")
			if err == nil {
				t.Fatal("no error")
			}
			if errors.Is(err, capi.ErrUnavailable) != tc.unavailable {
				t.Errorf("unavailable: %t, want %t: %v", !tc.unavailable, tc.unavailable, err)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the limit of a request looks like the caller's deadline: %v", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
			if tc.check != nil && !tc.check(err) {
				t.Errorf("error %#v %v", err, err)
			}
			if again := c.Explain(err, "get", "Secret default/x"); tc.unavailable && again.Error() != err.Error() {
				t.Errorf("explained twice: %v", again)
			}
		})
	}
}

// A server that accepts connections and never says a word.
func TestExplainHandshake(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	target := &Target{Config: &rest.Config{Host: "https://" + l.Addr().String(), Timeout: 50 * time.Millisecond}, Source: "x"}
	c, err := Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Connect(t.Context(), target)
	if !errors.Is(err, capi.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if c.Explain(nil, "get", "x") != nil {
		t.Error("nil is explained")
	}
}

func TestForbiddenNext(t *testing.T) {
	for user, want := range map[string]string{
		"system:serviceaccount:ci:runner": "capplunder-system-serviceaccount-ci-runner --clusterrole=capplunder --serviceaccount=ci:runner",
		"CN=Jane Doe's":                   `capplunder-cn-jane-doe-s --clusterrole=capplunder '--user=CN=Jane Doe'\''s'`,
	} {
		if got := (&ForbiddenError{User: user}).NextCommand(); got != "kubectl create clusterrolebinding "+want {
			t.Errorf("next for %s: %s", user, got)
		}
	}
	e := &ForbiddenError{User: "system:anonymous", Verb: "list", Resource: "leases.coordination.k8s.io"}
	if e.NextCommand() != "" || !strings.Contains(e.Error(), "did not recognise the user: it may not list leases.coordination.k8s.io cluster-wide") {
		t.Errorf("anonymous: %v", e)
	}
}

// What client-go logs must not reach standard error.
func TestQuiet(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = w
	defer func() { os.Stderr = stderr }()
	klog.Error("before") // proves that this test would see it
	Quiet()
	defer klog.ClearLogger()
	klog.Error("after")
	klog.FromContext(t.Context()).Error(errors.New("after"), "after")
	klog.Flush()
	w.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("before")) || bytes.Contains(out, []byte("after")) {
		t.Errorf("standard error: %q", out)
	}
}
