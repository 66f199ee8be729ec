package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder"
)

// macs are the machines of the rack: one more than the largest cluster has.
var macs = []string{
	"00:50:56:a5:11:20", "00:50:56:a5:11:21", "00:50:56:a5:11:22",
	"00:50:56:a5:11:23", "00:50:56:a5:11:24", "00:50:56:a5:11:25",
}

// lab is a real server, the machines in front of it, and what was seen of them.
type lab struct {
	options
	out        io.Writer
	dir        string
	account    *syscall.Credential // that the server runs as
	client     *plunder.Client
	applies    []window       // when machines may be installed
	expected   map[string]int // installations by MAC
	given      map[string]int // deletes by MAC
	rows       []row
	times      []timing
	deviations []string
	began      time.Time
}

type window struct{ from, to time.Time }

type timing struct {
	what string
	took time.Duration
}

func newLab(o options, out io.Writer) (*lab, error) {
	u, err := user.Lookup(o.User)
	if err != nil {
		return nil, fmt.Errorf("%w\nnext: useradd -m -s /bin/sh -p '*' %s", err, o.User)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	l := &lab{
		options: o, out: out, dir: o.Dir, expected: map[string]int{}, given: map[string]int{}, began: time.Now(),
		account: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
	}
	if l.dir == "" {
		if l.dir, err = os.MkdirTemp("", "capplunder-cycle"); err != nil {
			return nil, err
		}
	}
	if l.dir, err = filepath.Abs(l.dir); err != nil {
		return nil, err
	}
	return l, nil
}

// close removes what was written, unless somebody wants to look at it.
func (l *lab) close() {
	if l.Dir == "" && len(l.deviations) == 0 {
		_ = os.RemoveAll(l.dir)
	}
}

func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.out, "%7s  %s\n", time.Since(l.began).Round(100*time.Millisecond), fmt.Sprintf(format, args...))
}

func (l *lab) deviates(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	l.deviations = append(l.deviations, s)
	l.say("DEVIATION: %s", s)
}

// start starts the server and the rack, as docs/testing.md does by hand, and waits until
// all machines were seen.
func (l *lab) start(ctx context.Context) error {
	// Machines are reached as an account of this system, which must get at the rack.
	if err := os.Chmod(l.dir, 0o755); err != nil { //nolint:gosec // nothing in it is secret but the key, which has a folder of its own
		return err
	}
	srv := filepath.Join(l.dir, "plunder")
	for _, dir := range []string{srv, filepath.Join(srv, "www"), filepath.Join(srv, "home"), filepath.Join(srv, "home/.ssh")} {
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, int(l.account.Uid), int(l.account.Gid))); err != nil {
			return err
		}
	}
	for _, name := range []string{"server.yaml", "deployment.yaml"} {
		text, err := os.ReadFile(filepath.Join(l.Manifests, name))
		if err != nil {
			return err
		}
		s := strings.ReplaceAll(string(text), "/srv/plunder", srv)
		s = strings.ReplaceAll(s, "username: rack", "username: "+l.User)
		if err := os.WriteFile(filepath.Join(srv, name), []byte(s), 0o644); err != nil { //nolint:gosec // the server's account reads it
			return err
		}
	}
	key := filepath.Join(srv, "home/.ssh/id_rsa")
	for _, args := range [][]string{
		{"ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f", key},
		{l.Plunder, "config", "apiserver", "server"},
		{l.Plunder, "config", "apiserver", "client"},
	} {
		if msg, err := l.asServer(ctx, srv, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, msg)
		}
	}
	cfg, err := plunder.LoadConfig(filepath.Join(srv, "plunderclient.yaml"))
	if err != nil {
		return err
	}
	cfg.Address = "127.0.0.1"
	if err := cfg.WriteFile(filepath.Join(l.dir, "plunderclient.yaml")); err != nil {
		return err
	}
	if l.client, err = plunder.New(cfg); err != nil {
		return err
	}
	server := l.asServer(ctx, filepath.Join(srv, "www"), l.Plunder, "server", "--config", filepath.Join(srv, "server.yaml"),
		"--deployment", filepath.Join(srv, "deployment.yaml"), "--path", filepath.Join(srv, ".plunderserver.yaml"), "--defaultBoot", "reboot")
	if err := l.background(ctx, server, "plunder.log"); err != nil {
		return err
	}
	rack := filepath.Join(l.dir, "rack")
	if err := copyFile(l.Rack, rack); err != nil {
		return err
	}
	step := l.Step.String()
	machines := exec.CommandContext(ctx, rack, "serve", "-dir", filepath.Join(l.dir, "machines"), "-key", key+".pub", "-mac", strings.Join(macs, ","), //nolint:gosec // our own program
		"-boots", l.path("boots.json"), "-loop", step, "-install", step, "-kubernetes", step)
	machines.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if err := l.background(ctx, machines, "rack.log"); err != nil {
		return err
	}
	return l.pooled(ctx, macs, l.began)
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// asServer is a program with the server's account and home. It may use low ports, and
// nothing else that is not everybody's: plunder runs shells for its clients.
func (l *lab) asServer(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // the program is a flag of ours
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + filepath.Join(l.dir, "plunder/home"), "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	const bindLowPorts = 10 // CAP_NET_BIND_SERVICE
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: l.account, AmbientCaps: []uintptr{bindLowPorts}}
	return cmd
}

// background starts a program; that it ends before the lab does is a deviation.
func (l *lab) background(ctx context.Context, cmd *exec.Cmd, name string) error {
	log, err := os.Create(l.path(name))
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	_ = log.Close()
	if err != nil {
		return err
	}
	go func() {
		if err := cmd.Wait(); ctx.Err() == nil {
			fmt.Fprintf(l.out, "%s ended: %v; see %s\n", cmd.Path, err, l.path(name))
		}
	}()
	return nil
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("%w\nnext: make real-cycle, which builds it", err)
	}
	return os.WriteFile(to, data, 0o755) //nolint:gosec // a program that another account runs
}

// ran is how a run of capplunder ended.
type ran struct {
	code int // -1 when it was killed
	took time.Duration
	last string // what it said last
	text string
}

// command is a run of capplunder. Its words go to a file of the lab.
func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.Capplunder, append(args, "--store", "local", "--state-dir", l.path("state"), "-p", l.path("plunderclient.yaml"))...) //nolint:gosec // our own program
	cmd.Env = []string{"HOME=" + l.dir, "PATH=/usr/bin:/bin"}
	return cmd
}

// capplunder runs it, for so long at most if that is not 0: then it is killed.
func (l *lab) capplunder(ctx context.Context, life time.Duration, args ...string) (ran, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := l.command(ctx, args...)
	var b strings.Builder
	cmd.Stdout, cmd.Stderr = &b, &b
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return ran{}, err
	}
	if life > 0 {
		defer time.AfterFunc(life, func() { _ = cmd.Process.Kill() }).Stop()
	}
	_ = cmd.Wait() // the exit code says it
	if ctx.Err() != nil {
		return ran{}, fmt.Errorf("capplunder %s: %w\n%s", strings.Join(args, " "), ctx.Err(), b.String())
	}
	r := ran{code: cmd.ProcessState.ExitCode(), took: time.Since(start), text: b.String()}
	lines := strings.Split(strings.TrimSpace(r.text), "\n")
	r.last = lines[len(lines)-1]
	f, err := os.OpenFile(l.path("capplunder.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "$ capplunder %s\n%sexit %d after %s\n\n", strings.Join(args, " "), r.text, r.code, r.took.Round(time.Millisecond))
		err = errors.Join(err, f.Close())
	}
	return r, err
}

// must is capplunder, undisturbed and with success.
func (l *lab) must(ctx context.Context, args ...string) (ran, error) {
	r, err := l.capplunder(ctx, 0, args...)
	if err == nil && r.code != 0 {
		err = fmt.Errorf("capplunder %s: exit %d\n%s", strings.Join(args, " "), r.code, r.text)
	}
	return r, err
}

// recorded is a machine that capplunder has a record of.
type recorded struct{ Name, MAC, Address string }

func (l *lab) recorded(ctx context.Context) ([]recorded, error) {
	out, err := l.command(ctx, "get", "machines", "-o", "json").Output()
	if err != nil {
		return nil, fmt.Errorf("capplunder get machines: %w", err)
	}
	var list struct{ Items []recorded }
	return list.Items, json.Unmarshal(out, &list)
}
