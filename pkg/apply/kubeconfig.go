package apply

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/apply/wait"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/pki"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

const (
	// sealBits is the size of the throw-away key that a kubeconfig is sealed for.
	sealBits = 3072
	// eraseLimit is how long the end of a job with secrets tries to erase its log.
	eraseLimit = time.Minute
	// eraseQuiet is how long nothing may come of a job that was not waited for.
	eraseQuiet = 10 * time.Second
)

// keepKubeconfig puts the kubeconfig of the cluster's administrator into the store.
func (m *machine) keepKubeconfig(ctx context.Context, c *cluster) error {
	m.observe("reading the kubeconfig")
	data, err := m.kubeconfig(ctx, c)
	if err != nil {
		return fmt.Errorf("the kubeconfig of Cluster %s: %w", c.spec.Key, err)
	}
	letter := "kubeconfig of Cluster " + c.spec.Key.String()
	err = m.run.out.put(ctx, letter, func(ctx context.Context) error { return m.run.store.SaveKubeconfig(ctx, c.spec.Key, data) })
	if errors.Is(err, capi.ErrForeign) {
		m.run.emit(m.event(event.Event{Type: event.Info, Step: m.step, Message: fmt.Sprintf("the kubeconfig stays as it is: %v", err)}))
		return nil
	}
	if err != nil {
		return &RecordError{Key: m.key, Err: err}
	}
	return nil
}

// kubeconfig signs one with keys of ours, or reads the control plane's, sealed.
func (m *machine) kubeconfig(ctx context.Context, c *cluster) ([]byte, error) {
	k := m.plan.Kubernetes
	if k.PKI == capi.PKITool && !k.Bootstrapped {
		keys, err := m.run.store.PKI(ctx, c.spec.Key)
		if err != nil {
			return nil, err
		}
		return pki.AdminKubeconfig(keys, c.spec.Name, c.record().Endpoint, time.Now())
	}
	key, err := m.run.sealKey(sealBits)
	if err != nil {
		return nil, err
	}
	public, err := publicPEM(key)
	if err != nil {
		return nil, err
	}
	target := translate.Target{Address: m.rec.Address, HostName: m.rec.HostName, Guard: translate.Guard{MAC: m.rec.MAC, BootID: m.rec.BootID}, Root: m.facts.UID == 0}
	var jobID string
	l, err := m.run.runJob(ctx, job{
		step: event.StepInit, address: m.rec.Address, erase: true,
		build: func(id string) (wire.Map, error) {
			jobID = id
			return translate.ReadAdminMap(id, target, k, public)
		},
		posting: func(string) error { return nil }, // read again by the next run
		restore: m.ensureDeployment,
		observe: m.observe,
	})
	if err != nil {
		return nil, err
	}
	return translate.OpenAdmin(l, jobID, k, key)
}

func publicPEM(key *rsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// eraseLog deletes the log of a job whose answer is a secret, and looks that it is
// gone. The host's lock is held. If the wait for the job was cut off, the job may still
// run, and what it writes after the log was deleted begins another one: so its end is
// waited for, and for a while whether anything comes.
func (r *run) eraseLog(ctx context.Context, address string) {
	quiet := time.Duration(0)
	if ctx.Err() != nil {
		quiet = eraseQuiet
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eraseLimit)
	defer cancel()
	var gone time.Time
	err := wait.Until(ctx, r.spec("erase the log of "+address, func(string) {}), func(ctx context.Context) (string, error) {
		return "", r.reads.do(ctx, func() error {
			if quiet > 0 {
				if l, err := r.server.Log(ctx, address); err == nil && l.State == wire.StateRunning {
					gone = time.Time{}
					return wait.Pending(errors.New("the job still runs"))
				}
			}
			if err := r.server.DeleteLog(ctx, address); err != nil {
				return retryable(err)
			}
			_, err := r.server.Log(ctx, address)
			switch {
			case errors.Is(err, wire.ErrNoLog):
				if gone.IsZero() {
					gone = time.Now()
				}
				if time.Since(gone) >= quiet {
					return nil
				}
				return wait.Pending(errors.New("more may come"))
			case err != nil:
				return retryable(err)
			}
			return wait.Pending(errors.New("the log is still there"))
		})
	})
	if err != nil {
		r.emit(event.Event{Type: event.Warning, Address: address, Message: fmt.Sprintf("the log with the sealed kubeconfig is still on the plunder server: %v", err)})
	}
}
