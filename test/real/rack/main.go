// Command rack puts virtual machines in front of a real plunder server, on
// loopback: docs/testing.md says how. It owns what a machine shows the server:
// DHCP like iPXE, the boot script it fetches, an OpenSSH server once it is
// installed. Commands that arrive over SSH run in pkg/simulator/host, inside an
// interpreter; nothing that is posted to plunder reaches the real machine.
//
//	rack serve -dir DIR -key PUBLIC_KEY -mac MAC,MAC...
//	rack exec  -socket DIR/rack.sock      (the forced command of its sshd)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "rack:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (int, error) {
	if len(args) == 0 {
		return 2, errors.New("usage: rack serve|exec [flags]")
	}
	switch args[0] {
	case "serve":
		var c config
		f := flag.NewFlagSet("rack serve", flag.ContinueOnError)
		f.StringVar(&c.Dir, "dir", "", "folder for sshd's files and the socket")
		f.StringVar(&c.Key, "key", "", "public key of the plunder server, as in authorized_keys")
		macs := f.String("mac", "00:50:56:a5:11:20,00:50:56:a5:b5:f1", "MAC addresses, one machine each")
		f.StringVar(&c.Boots, "boots", "", "file to append a JSON line to for each boot from the network")
		f.StringVar(&c.DHCP, "dhcp", "127.0.0.1:67", "address of the server's DHCP")
		f.StringVar(&c.Sshd, "sshd", "/usr/sbin/sshd", "OpenSSH server to start for each installed machine")
		f.DurationVar(&c.Loop, "loop", 3*time.Second, "one turn of the reboot loop")
		f.DurationVar(&c.Install, "install", 5*time.Second, "how long an installation takes")
		f.DurationVar(&c.Kubernetes, "kubernetes", 5*time.Second, "how long Kubernetes takes to install")
		if err := f.Parse(args[1:]); err != nil {
			return 2, err
		}
		c.MACs = strings.Split(strings.ToLower(*macs), ",")
		return 0, serve(ctx, c)
	case "exec":
		f := flag.NewFlagSet("rack exec", flag.ContinueOnError)
		socket := f.String("socket", "", "socket of rack serve")
		if err := f.Parse(args[1:]); err != nil {
			return 2, err
		}
		return forward(ctx, *socket, os.Stdin, os.Stdout)
	default:
		return 2, fmt.Errorf("unknown command %q: serve or exec", args[0])
	}
}
