package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// boot is what the rack writes of each boot from the network: what the server's OFFER and
// its ACK named, and where that leads: loop, installer, or disk (nowhere).
type boot struct {
	Time       time.Time
	MAC        string
	Offer, Ack lead
	Wiped      []string // disks that were written to since the boot before: sda
}

type lead struct{ File, Next, To, Error string }

func (l lead) String() string {
	s := fmt.Sprintf("%s (next server %s) leads to %s", l.File, l.Next, l.To)
	if l.Error != "" {
		s += ": " + l.Error
	}
	return s
}

const (
	toLoop      = "loop"
	toInstaller = "installer"
)

// boots is all boots so far; a line that is being written is not among them.
func (l *lab) boots() ([]boot, error) {
	f, err := os.Open(l.path("boots.json"))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var all []boot
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return all, nil // the end
		}
		var b boot
		if err := json.Unmarshal(line, &b); err != nil {
			return nil, fmt.Errorf("boots.json: %w", err)
		}
		all = append(all, b)
	}
}

// after is what a machine booted since a moment.
func (l *lab) after(mac string, since time.Time) ([]boot, error) {
	all, err := l.boots()
	return slices.DeleteFunc(all, func(b boot) bool { return b.MAC != mac || !b.Time.After(since) }), err
}

// enough boots show that a machine loops, and not that it will be installed the next time.
const enough = 3

// pooled waits until the machines have booted a few times since a moment, and the server
// lists them as seen since then.
func (l *lab) pooled(ctx context.Context, which []string, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for {
		missing, err := l.missing(ctx, which, since)
		if err == nil && len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not back in the pool: %s (%w)", strings.Join(missing, ", "), errors.Join(err, ctx.Err()))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (l *lab) missing(ctx context.Context, which []string, since time.Time) ([]string, error) {
	pool, _, err := l.client.Unleased(ctx)
	if err != nil {
		return which, err
	}
	var missing []string
	for _, mac := range which {
		boots, err := l.after(mac, since)
		if err != nil {
			return which, err
		}
		seen := slices.ContainsFunc(pool, func(w wire.Lease) bool { return w.MAC == mac && w.Time.After(since) })
		if !seen || len(boots) < enough {
			missing = append(missing, fmt.Sprintf("%s (in the list: %t, boots: %d)", mac, seen, len(boots)))
		}
	}
	return missing, nil
}

// row is what became of a machine after a delete.
type row struct {
	what, machine, mac string
	took               time.Duration
	boots              []boot
	deployment         string // what the server still has for it
}

// returned checks that machines are back in the pool since a moment, and keeps a row for each.
func (l *lab) returned(ctx context.Context, what string, machines []recorded, since time.Time, took time.Duration) error {
	var which []string
	for _, m := range machines {
		which = append(which, m.MAC)
	}
	if err := l.pooled(ctx, which, since); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	left, err := l.client.Deployments(ctx)
	if err != nil {
		return err
	}
	for _, m := range machines {
		l.given[m.MAC]++
		r := row{what: what, machine: m.Name, mac: m.MAC, took: took, deployment: "none"}
		if d, ok := left.ByMAC(m.MAC); ok {
			r.deployment = d.BootConfigName
			if d.BootConfigName != "reboot" {
				l.deviates("%s: %s: its deployment is still there and boots %s", what, m.MAC, d.BootConfigName)
			}
		}
		if r.boots, err = l.after(m.MAC, since); err != nil {
			return err
		}
		l.rows = append(l.rows, r)
		if log, err := l.client.Log(ctx, m.Address); !errors.Is(err, wire.ErrNoLog) {
			l.deviates("%s: the server still has a log of %s (%s, %d entries, %v)", what, m.Address, log.State, len(log.Entries), err)
		}
	}
	if _, ok := left.ByMAC(plunder.PlaceholderMAC); !ok && len(left.Deployments) == 0 {
		l.deviates("%s: the server has no deployment at all, and so no reboot loop", what)
	}
	return nil
}

// judge goes over all boots: outside of applies everything must lead to the loop, and in
// them each machine is installed as often as it was given to somebody. Its disk, and no
// other of its disks, is wiped as often as it was given back.
func (l *lab) judge() (loops, installs int, err error) {
	all, err := l.boots()
	if err != nil {
		return 0, 0, err
	}
	installed, wiped := map[string]int{}, map[string]int{}
	for _, b := range all {
		if len(b.Wiped) > 0 {
			wiped[b.MAC]++
			if !slices.Equal(b.Wiped, []string{"sda"}) {
				l.deviates("%s %s: it was installed on sda, and %v were written to", b.Time.Format(time.TimeOnly), b.MAC, b.Wiped)
			}
		}
		applying := slices.ContainsFunc(l.applies, func(w window) bool { return !b.Time.Before(w.from) && !b.Time.After(w.to) })
		switch b.Ack.To {
		case toInstaller:
			installs++
			installed[b.MAC]++
		case toLoop:
			loops++
		}
		if !applying && (b.Ack.To != toLoop || b.Offer.To != toLoop) {
			l.deviates("%s %s: OFFER %s; ACK %s", b.Time.Format(time.TimeOnly), b.MAC, b.Offer, b.Ack)
		}
	}
	for _, mac := range macs {
		if installed[mac] != l.expected[mac] {
			l.deviates("%s was installed %d times, and given to a machine %d times", mac, installed[mac], l.expected[mac])
		}
		if wiped[mac] != l.given[mac] {
			l.deviates("%s was wiped %d times, and given back %d times", mac, wiped[mac], l.given[mac])
		}
	}
	return loops, installs, nil
}
