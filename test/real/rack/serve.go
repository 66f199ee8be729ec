package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

type config struct {
	Dir, Key, DHCP, Sshd      string
	Boots                     string // file for all boots from the network, or ""
	MACs                      []string
	Loop, Install, Kubernetes time.Duration
}

// rack is all machines, and the socket that their sessions come in on.
type rack struct {
	config
	world *host.World
	log   *slog.Logger
	boots journal
}

// journal is a file of JSON lines; without a writer it keeps nothing.
type journal struct {
	mu sync.Mutex
	w  io.Writer
}

func (j *journal) add(entry any) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.w == nil {
		return nil
	}
	return json.NewEncoder(j.w).Encode(entry)
}

func serve(ctx context.Context, c config) error {
	if c.Dir == "" || c.Key == "" {
		return errors.New("-dir and -key are needed")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	c.Dir = dir
	r := &rack{config: c, world: host.NewWorld(), log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if err := r.sshFiles(ctx); err != nil {
		return err
	}
	if c.Boots != "" {
		f, err := os.OpenFile(c.Boots, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		r.boots.w = f
	}
	socket := filepath.Join(c.Dir, "rack.sock")
	if err := os.RemoveAll(socket); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o666); err != nil { //nolint:gosec // the forced command runs as the SSH user
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { <-ctx.Done(); return l.Close() })
	g.Go(func() error { return r.sessions(ctx, l) })
	for i, m := range c.MACs {
		mac, err := net.ParseMAC(m)
		if err != nil {
			return err
		}
		g.Go(func() error { return r.machine(ctx, int64(i), mac) })
	}
	return g.Wait()
}

// disks are what each machine has: one to install on, one with data, and a stick.
func disks() []host.DiskConfig {
	return []host.DiskConfig{
		{Name: "sda", Bytes: 480_103_981_056},
		{Name: "sdb", Bytes: 1_000_204_886_016, Rotational: true},
		{Name: "sdc", Bytes: 15_518_924_800, Removable: true, USB: true},
	}
}

// machine is the life of one machine: from the network as long as its disk does
// not boot, from the disk otherwise.
func (r *rack) machine(ctx context.Context, seed int64, mac net.HardwareAddr) error {
	log := r.log.With("mac", mac.String())
	last := ""
	say := func(format string, args ...any) { // only what changed
		if s := fmt.Sprintf(format, args...); s != last {
			last = s
			log.Info(s)
		}
	}
	installs := int64(0)
	var seen time.Time
	drives := host.NewDrives(mac.String(), seed, disks())
	for ctx.Err() == nil {
		b, d, err := netboot(ctx, r.DHCP, mac)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of the rack, not of the machine
		}
		b.Wiped, seen = r.wiped(b.MAC, seen)
		if err := r.boots.add(b); err != nil {
			return err
		}
		switch {
		case err != nil:
			say("network boot: %v", err)
		case b.Ack.To == loop:
			say("in the reboot loop")
		case b.Ack.To == disk:
			say("nothing to boot from the network, nothing on the disk")
		case b.Ack.To == install:
			say("installing %s as %s", d.Address, d.HostName)
			if !pause(ctx, r.Install) {
				return nil
			}
			installs++
			h := host.New(host.Config{
				MAC: mac.String(), Address: d.Address, HostName: d.HostName, User: d.User,
				// What is installed anew has keys and IDs of its own.
				Seed: seed + installs<<32, Drives: drives, KubernetesTime: r.Kubernetes, World: r.world,
			})
			err := r.up(ctx, h, d, say)
			h.Close()
			if err != nil {
				return err
			}
			say("wiped: boots from the network again")
		}
		if !pause(ctx, r.Loop) {
			return nil
		}
	}
	return nil
}

// wiped are the disks of a machine that were written to since a moment, and now.
func (r *rack) wiped(mac string, since time.Time) (disks []string, now time.Time) {
	now = time.Now()
	for _, w := range r.world.Wipes() {
		if w.MAC == mac && w.At.After(since) && !slices.Contains(disks, w.Device) {
			disks = append(disks, w.Device)
		}
	}
	return disks, now
}

// up runs an installed machine until its disk no longer boots.
func (r *rack) up(ctx context.Context, h *host.Host, d deployment, say func(string, ...any)) error {
	reset := make(chan struct{}, 1)
	h.OnReset(func() {
		select {
		case reset <- struct{}{}:
		default:
		}
	})
	for {
		stop, err := r.sshd(ctx, d.Address)
		if err != nil {
			return err
		}
		say("up at %s, boot %s", d.Address, h.BootID())
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-reset:
			stop()
			say("reset")
		}
		if h.Wiped() {
			return nil
		}
		if !pause(ctx, r.Loop) {
			return nil
		}
		h.Reboot()
	}
}

// sessions answers the forced commands.
func (r *rack) sessions(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		wg.Go(func() {
			defer func() { _ = conn.Close() }()
			if err := r.session(ctx, conn); err != nil && ctx.Err() == nil {
				r.log.Error("session", "err", err)
			}
		})
	}
}

func (r *rack) session(ctx context.Context, conn net.Conn) error {
	var c call
	if err := json.NewDecoder(conn).Decode(&c); err != nil {
		return err
	}
	h := r.world.At(c.Address)
	if h == nil {
		<-ctx.Done() // a machine that is down does not answer
		return ctx.Err()
	}
	// plunder keeps standard error except in sessions with a pipe.
	res := h.Run(ctx, host.Command{User: c.User, Line: c.Line, Stdin: c.Stdin, Combined: len(c.Stdin) == 0})
	r.log.Debug("ran", "address", c.Address, "exit", res.Exit, "err", res.Err)
	if res.Err != nil { // the machine went down, or the rack did
		<-ctx.Done()
		return ctx.Err()
	}
	if res.Output != "" {
		res.Output += "\n"
	}
	return json.NewEncoder(conn).Encode(answer{Output: res.Output, Exit: res.Exit})
}

// sshFiles writes what every sshd of the rack needs.
func (r *rack) sshFiles(ctx context.Context) error {
	if err := os.MkdirAll(r.Dir, 0o755); err != nil { //nolint:gosec // the forced command runs as the SSH user
		return err
	}
	key, err := os.ReadFile(r.Key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.Dir, "authorized_keys"), key, 0o644); err != nil { //nolint:gosec // public key
		return err
	}
	hostKey := filepath.Join(r.Dir, "host_key")
	if _, err := os.Stat(hostKey); errors.Is(err, os.ErrNotExist) {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", hostKey).CombinedOutput(); err != nil { //nolint:gosec // a file in our own folder
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The forced command is all that a session can run. plunder signs with ssh-rsa,
	// which current servers refuse unless told otherwise.
	conf := fmt.Sprintf(`Port 22
HostKey %[1]s/host_key
AuthorizedKeysFile %[1]s/authorized_keys
ForceCommand %[2]s exec -socket %[1]s/rack.sock
PubkeyAcceptedAlgorithms +ssh-rsa
HostKeyAlgorithms ecdsa-sha2-nistp256
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
AllowTcpForwarding no
AllowAgentForwarding no
X11Forwarding no
PermitTTY no
PidFile none
MaxStartups 100
`, r.Dir, self)
	if err := os.WriteFile(filepath.Join(r.Dir, "sshd_config"), []byte(conf), 0o600); err != nil {
		return err
	}
	return os.MkdirAll("/run/sshd", 0o755) //nolint:gosec // sshd's own folder, as Debian makes it
}

// sshd starts an OpenSSH server on an address; stop ends it. Sessions that are
// under way stay: a machine that is reset closes no connection either.
func (r *rack) sshd(ctx context.Context, address string) (stop func(), err error) {
	cmd := exec.Command(r.Sshd, "-D", "-e", "-f", filepath.Join(r.Dir, "sshd_config"), "-o", "ListenAddress="+address) //nolint:gosec,noctx // the program is a flag of ours; stop ends it, so that its sessions stay
	logFile, err := os.OpenFile(filepath.Join(r.Dir, "sshd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = logFile
	err = cmd.Start()
	_ = logFile.Close()
	if err != nil {
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}, ctx.Err()
}

// pause waits; it is false when the rack ends meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
