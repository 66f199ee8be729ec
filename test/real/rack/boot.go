package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// deployment is what an installer reads from the server.
type deployment struct {
	Address, HostName, User string
}

// next is what a boot script makes a machine do.
type next string

const (
	loop    next = "loop"      // start again
	disk    next = "disk"      // nothing to boot from the network
	install next = "installer" // an installer ran
)

// boot is one boot from the network, as it is written to the file of -boots: a JSON
// object a line.
type boot struct {
	// Time is when the machine knew what to do: whatever was changed on the server before
	// it asked is in it.
	Time  time.Time `json:"time"`
	MAC   string    `json:"mac"`
	Offer lead      `json:"offer"`
	Ack   lead      `json:"ack"` // what the machine did
	// Wiped are the disks of the machine that were written to by name since its boot before.
	Wiped []string `json:"wiped,omitempty"` // sda
}

// lead is one answer of the server, and what it makes a machine do that heeds it.
type lead struct {
	named
	To    next   `json:"to"`
	Error string `json:"error,omitempty"`
}

// netboot is one boot from the network, up to the point where the installer would start.
// Where the OFFER would have led is looked up, and nothing more.
func netboot(ctx context.Context, dhcp string, mac net.HardwareAddr) (boot, deployment, error) {
	b := boot{MAC: mac.String(), Offer: lead{To: disk}, Ack: lead{To: disk}}
	d, err := func() (d deployment, err error) {
		if b.Offer.named, b.Ack.named, err = lease(ctx, dhcp, mac); err != nil {
			return d, err
		}
		if b.Offer.To, _, err = follow(ctx, b.Offer.File, mac); err != nil {
			b.Offer.Error = err.Error()
		}
		b.Ack.To, d, err = follow(ctx, b.Ack.File, mac)
		return d, err
	}()
	if err != nil {
		b.Ack.Error = err.Error()
	}
	b.Time = time.Now()
	return b, d, err
}

func follow(ctx context.Context, url string, mac net.HardwareAddr) (next, deployment, error) {
	script, err := get(ctx, url)
	if err != nil {
		return disk, deployment{}, err
	}
	for line := range strings.Lines(script) {
		f := strings.Fields(strings.ReplaceAll(line, "${mac:hexhyp}", strings.ReplaceAll(mac.String(), ":", "-")))
		switch {
		case len(f) == 0:
		case f[0] == "reboot":
			return loop, deployment{}, nil
		case f[0] == "kernel" && len(f) > 1 && strings.HasSuffix(f[1], ".ipxe"):
			return follow(ctx, f[1], mac) // iPXE runs what `kernel` fetched
		case f[0] == "kernel":
			for _, arg := range f {
				if cfg, ok := strings.CutPrefix(arg, "url="); ok {
					d, err := readPreseed(ctx, cfg)
					return install, d, err
				}
			}
			return install, deployment{}, fmt.Errorf("%s boots a kernel without a configuration: only preseed is understood here", url)
		}
	}
	return disk, deployment{}, nil
}

// readPreseed takes address, host name and user out of the answers that plunder
// writes for the Debian installer.
func readPreseed(ctx context.Context, url string) (deployment, error) {
	text, err := get(ctx, url)
	if err != nil {
		return deployment{}, err
	}
	value := func(key string) string {
		m := regexp.MustCompile(`(?m)^\s*d-i\s+` + regexp.QuoteMeta(key) + `\s+string\s+(\S+)\s*$`).FindStringSubmatch(text)
		if m == nil {
			return ""
		}
		return m[1]
	}
	d := deployment{Address: value("netcfg/get_ipaddress"), HostName: value("netcfg/hostname"), User: value("passwd/username")}
	if ip := net.ParseIP(d.Address); ip == nil || !ip.IsLoopback() {
		return d, fmt.Errorf("%s installs address %q: only 127.0.0.0/8 is possible here", url, d.Address)
	}
	return d, nil
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, res.Status)
	}
	return string(b), err
}
