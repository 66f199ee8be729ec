package plunder

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// PlaceholderMAC is the MAC of a deployment that belongs to no machine. It keeps
// every real deployment from being the last one, which a server never deletes
// (recording last-deployment), and a server without any deployment has no
// reboot loop.
const PlaceholderMAC = "00:00:00:00:00:00"

const (
	// maxWrites bounds how often one write is made until it is there. A lost update
	// takes two; more than a few mean that somebody else writes all the time.
	maxWrites = 5
	// firstPause quadruples after each write that did not last. It is short because the
	// most common reason, a POST for a MAC that is not the last unleased one, is over
	// as soon as it was read back.
	firstPause = 10 * time.Millisecond
)

// rebootBootConfig chains to the server's own loop script, the way that was
// measured to bring machines back into the reboot loop.
func rebootBootConfig() wire.BootConfig {
	return wire.BootConfig{
		ConfigName: wire.RebootConfigName,
		ConfigType: "chain",
		KernelPath: "reboot.ipxe",
		InitrdPath: "reboot.ipxe",
	}
}

// EnsureDeployment makes the server have d and returns only when it was read
// back; d counts as there when MAC, boot configuration, address and host name
// agree. It posts, or patches a deployment that is in the reboot loop. A MAC or
// an address that another deployment uses is a *wire.ConflictError, a boot
// configuration that the server lacks a *wire.UnknownBootConfigError; both are
// found before anything is written. After any other error it can be called again.
func (c *Client) EnsureDeployment(ctx context.Context, d wire.Deployment) error {
	mac, err := NormalizeMAC(d.MAC)
	if err != nil {
		return fmt.Errorf("deployment: %w", err)
	}
	d.MAC, d.BootConfig = mac, nil
	if d.BootConfigName == "" {
		return fmt.Errorf("deployment of %s: no boot configuration", mac)
	}
	unlock, err := c.lockWrites(ctx)
	if err != nil {
		return fmt.Errorf("deployment of %s: %w", mac, err)
	}
	defer unlock()
	return c.place(ctx, mac, func(on wire.Deployments) (wire.Deployment, error) {
		return d, conflict(d, on)
	})
}

// ReleaseDeployment points the machine at the reboot loop: same address, host
// name and SSH settings, boot configuration "reboot" (which is made when the
// server lacks it), read back. From then on no reset can install the machine
// again. A deployment of that MAC that is in use with another address or host
// name is somebody else's: *wire.ConflictError.
func (c *Client) ReleaseDeployment(ctx context.Context, mac, address, hostname string) error {
	mac, err := NormalizeMAC(mac)
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	unlock, err := c.lockWrites(ctx)
	if err != nil {
		return fmt.Errorf("deployment of %s: %w", mac, err)
	}
	defer unlock()
	return c.place(ctx, mac, func(on wire.Deployments) (wire.Deployment, error) {
		d := wire.Deployment{MAC: mac, BootConfigName: wire.RebootConfigName}
		have, ok := on.ByMAC(mac)
		if ok {
			d.Config = have.Config // the wipe logs in with the user and key in it
		}
		inUse := ok && have.BootConfigName != wire.RebootConfigName
		if inUse && (differ(have.Config.Address, address) || differ(have.Config.Hostname, hostname)) {
			return d, newConflict(mac, address, have)
		}
		if address != "" {
			d.Config.Address = address
		}
		if hostname != "" {
			d.Config.Hostname = hostname
		}
		return d, nil
	})
}

// differ is true when both are known and not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }

// EnsurePlaceholder makes the server have the placeholder deployment, which
// turns the reboot loop on where there is no other.
func (c *Client) EnsurePlaceholder(ctx context.Context) error {
	unlock, err := c.lockWrites(ctx)
	if err != nil {
		return fmt.Errorf("placeholder deployment: %w", err)
	}
	defer unlock()
	return c.ensurePlaceholder(ctx)
}

func (c *Client) ensurePlaceholder(ctx context.Context) error {
	return c.place(ctx, PlaceholderMAC, func(on wire.Deployments) (wire.Deployment, error) {
		if have, ok := on.ByMAC(PlaceholderMAC); ok {
			return have, nil // any will do
		}
		return wire.Deployment{
			MAC:            PlaceholderMAC,
			BootConfigName: wire.RebootConfigName,
			Config:         wire.HostConfig{Address: "0.0.0.0", Hostname: "placeholder"},
		}, nil
	})
}

// place writes one deployment until it is there. want says, from what the server
// has, what it should have; the write lock is held.
func (c *Client) place(ctx context.Context, mac string, want func(on wire.Deployments) (wire.Deployment, error)) error {
	err := c.converge(ctx, func() (bool, error) {
		on, err := c.Deployments(ctx)
		if err != nil {
			return false, err
		}
		d, err := want(on)
		if err != nil {
			return false, err
		}
		have, exists := on.ByMAC(mac)
		if exists && same(have, d) {
			return true, nil
		}
		// Asked anew each time: a name remembered from before a restart would cost the machine.
		if err := c.needBootConfig(ctx, d.BootConfigName); err != nil {
			return false, err
		}
		if exists {
			err = c.patchDeployment(ctx, d)
		} else {
			err = c.postDeployment(ctx, d)
		}
		if err != nil && !settleByReading(err) {
			return false, err
		}
		have, readErr := c.Deployment(ctx, mac)
		switch {
		case errors.Is(readErr, wire.ErrNotFound):
			return false, pending(err)
		case readErr != nil:
			return false, fmt.Errorf("written, but it can't be read back: %w", readErr)
		case same(have, d):
			return true, nil
		}
		return false, pending(err)
	})
	if err != nil {
		return fmt.Errorf("deployment of %s: %w", mac, err)
	}
	return nil
}

// RemoveDeployment deletes the deployment of a MAC and reads back that it is
// gone; that there is none is no error. A placeholder keeps it from being the
// last one, which the server would not delete.
func (c *Client) RemoveDeployment(ctx context.Context, mac string) error {
	mac, err := NormalizeMAC(mac)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	unlock, err := c.lockWrites(ctx)
	if err != nil {
		return fmt.Errorf("deployment of %s: %w", mac, err)
	}
	defer unlock()
	err = c.converge(ctx, func() (bool, error) {
		on, err := c.Deployments(ctx)
		if err != nil {
			return false, err
		}
		if _, exists := on.ByMAC(mac); !exists {
			return true, nil
		}
		if len(on.Deployments) == 1 {
			if err := c.ensurePlaceholder(ctx); err != nil {
				return false, err
			}
		}
		err = c.deleteDeployment(ctx, mac)
		if err != nil && !settleByReading(err) {
			return false, err
		}
		_, readErr := c.Deployment(ctx, mac)
		switch {
		case errors.Is(readErr, wire.ErrNotFound):
			return true, nil
		case readErr != nil:
			return false, fmt.Errorf("deleted, but that can't be read back: %w", readErr)
		}
		return false, pending(err)
	})
	if err != nil {
		return fmt.Errorf("remove deployment of %s: %w", mac, err)
	}
	return nil
}

// EnsureBootConfig makes the server have a boot configuration of that name; one
// that is there is left as it is. v0.5 adds a second one of the same name
// without a word (recording last-deployment), so it is looked for first.
func (c *Client) EnsureBootConfig(ctx context.Context, b wire.BootConfig) error {
	unlock, err := c.lockWrites(ctx)
	if err != nil {
		return fmt.Errorf("boot configuration %q: %w", b.ConfigName, err)
	}
	defer unlock()
	return c.ensureBootConfig(ctx, b)
}

func (c *Client) ensureBootConfig(ctx context.Context, b wire.BootConfig) error {
	err := c.converge(ctx, func() (bool, error) {
		cfg, err := c.ServerConfig(ctx)
		if err != nil {
			return false, err
		}
		if _, ok := cfg.BootConfig(b.ConfigName); ok {
			return true, nil
		}
		_, err = c.call(ctx, http.MethodPost, "configBoot", b.ConfigName, b)
		if err != nil && !settleByReading(err) {
			return false, err
		}
		cfg, readErr := c.ServerConfig(ctx)
		if readErr != nil {
			return false, fmt.Errorf("written, but it can't be read back: %w", readErr)
		}
		if _, ok := cfg.BootConfig(b.ConfigName); ok {
			return true, nil
		}
		return false, pending(err)
	})
	if err != nil {
		return fmt.Errorf("boot configuration %q: %w", b.ConfigName, err)
	}
	return nil
}

// postDeployment is POST /deployment, once.
func (c *Client) postDeployment(ctx context.Context, d wire.Deployment) error {
	_, err := c.call(ctx, http.MethodPost, "deployment", "", d)
	return err
}

// patchDeployment is PATCH /deployment/{mac}, once. The function deploymentID is
// the one that both versions have.
func (c *Client) patchDeployment(ctx context.Context, d wire.Deployment) error {
	_, err := c.call(ctx, http.MethodPatch, "deploymentID", dashMAC(d.MAC), d)
	return err
}

// deleteDeployment is DELETE /deployment/mac/{mac}, once.
func (c *Client) deleteDeployment(ctx context.Context, mac string) error {
	_, err := c.call(ctx, http.MethodDelete, "deploymentMac", dashMAC(mac), nil)
	return err
}

// needBootConfig is nil when the server has that boot configuration. The one of
// the reboot loop is made: a server forgets it when it restarts.
func (c *Client) needBootConfig(ctx context.Context, name string) error {
	if name == wire.RebootConfigName {
		return c.ensureBootConfig(ctx, rebootBootConfig())
	}
	cfg, err := c.ServerConfig(ctx)
	if err != nil {
		return err
	}
	if _, ok := cfg.BootConfig(name); ok {
		return nil
	}
	known := make([]string, 0, len(cfg.BootConfigs))
	for _, b := range cfg.BootConfigs {
		known = append(known, b.ConfigName)
	}
	slices.Sort(known)
	return &wire.UnknownBootConfigError{Name: name, Known: slices.Compact(known)}
}

// settleByReading is true for a write whose outcome only the server's state can
// tell: the answer got lost, or the server speaks of a state other than the one
// that was just read (it restarted, or an earlier try had worked after all).
func settleByReading(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false // nothing can be read any more
	}
	return errors.Is(err, wire.ErrNoAnswer) ||
		refusedWith(err, "Duplicate entry for MAC address", "Unable to find existing deployment", "Boot Configuration [")
}

// pendingError: a write that is not there (yet): converge makes another turn.
type pendingError struct{ cause error }

func (e pendingError) Error() string {
	if e.cause == nil {
		return "answered with success, and not there"
	}
	return e.cause.Error()
}

func (e pendingError) Unwrap() error { return e.cause }

func pending(cause error) error { return pendingError{cause} }

// converge repeats look-write-read turns until one finds things as they should
// be. A turn that ends in pending is followed by another, up to maxWrites.
func (c *Client) converge(ctx context.Context, turn func() (done bool, err error)) error {
	pause := firstPause
	for n := 1; ; n++ {
		done, err := turn()
		if done {
			return nil
		}
		if _, again := errors.AsType[pendingError](err); !again {
			return err
		}
		if n == maxWrites {
			return fmt.Errorf("still not there after %d writes; does somebody else write to this server? (last: %w)", n, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("stopped before it was there: %w (last: %w)", ctx.Err(), err)
		}
		pause *= 4
	}
}

// lockWrites waits for the turn to write. The server's handlers copy the set of
// deployments, change the copy and store it: two at once lose one, or kill it.
func (c *Client) lockWrites(ctx context.Context) (unlock func(), err error) {
	select {
	case c.writes <- struct{}{}:
		return func() { <-c.writes }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("stopped while other deployments were written to %s: %w", c.URL(), ctx.Err())
	}
}

// same compares what identifies a deployment.
func same(a, b wire.Deployment) bool {
	return a.MAC == b.MAC && a.BootConfigName == b.BootConfigName &&
		a.Config.Address == b.Config.Address && a.Config.Hostname == b.Config.Hostname
}

// conflict finds what stands in the way of d. Deployments in the reboot loop
// don't: their machines are free, and so are their addresses.
func conflict(d wire.Deployment, on wire.Deployments) error {
	if have, ok := on.ByMAC(d.MAC); ok && same(have, d) {
		return nil
	}
	for _, other := range on.Deployments {
		inUse := other.BootConfigName != wire.RebootConfigName
		switch {
		case other.MAC == d.MAC && inUse:
			return newConflict(d.MAC, d.Config.Address, other)
		case other.MAC != d.MAC && strings.EqualFold(other.MAC, d.MAC):
			return newConflict(d.MAC, d.Config.Address, other)
		case other.MAC != d.MAC && inUse && d.Config.Address != "" && other.Config.Address == d.Config.Address:
			return newConflict(d.MAC, d.Config.Address, other)
		}
	}
	return nil
}

func newConflict(mac, address string, other wire.Deployment) error {
	other.Config = other.Config.Redacted()
	other.BootConfig = nil
	return &wire.ConflictError{MAC: mac, Address: address, Other: other}
}
