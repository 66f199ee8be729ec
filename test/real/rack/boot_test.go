package main

import (
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const testMAC = "00:50:56:a5:11:20"

// plunderServer answers like the DHCP and HTTP services of a plunder server: the
// OFFER names the script of the boot type, the ACK that of the MAC.
func plunderServer(t *testing.T, files map[string]string) (dhcp string) {
	t.Helper()
	var web *httptest.Server
	web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(strings.ReplaceAll(text, "SERVER", strings.TrimPrefix(web.URL, "http://"))))
	}))
	t.Cleanup(web.Close)
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			m := b[:n]
			kind, file := byte(offer), "/reboot.ipxe"
			if m[242] == request {
				kind, file = ack, "/00-50-56-a5-11-20.ipxe"
			}
			res := append(make([]byte, 0, 512), m[:240]...)
			res[0] = 2
			copy(res[16:], []byte{127, 0, 2, 1, 127, 0, 0, 9})
			res = append(res, optType, 1, kind, optServerID, 4, 127, 0, 0, 1)
			res = append(res, optBootFile, byte(len(web.URL+file)))
			res = append(append(res, web.URL+file...), optEnd)
			_, _ = conn.WriteTo(res, from)
		}
	}()
	return conn.LocalAddr().String()
}

func TestNetboot(t *testing.T) {
	const cfg = `
d-i netcfg/get_ipaddress string 127.0.1.1
d-i netcfg/hostname string worker-abcde
d-i passwd/username string rack`
	for _, tt := range []struct {
		name   string
		script string
		cfg    string
		want   next
		deploy deployment
		err    string
	}{
		{name: "reboot loop", script: "#!ipxe\ndhcp\nsleep 5\nreboot\n", want: loop},
		{name: "chained to the loop", script: "kernel http://SERVER/reboot.ipxe auto=true url=http://SERVER/${mac:hexhyp}.cfg\nboot\n", want: loop},
		{
			name:   "installer",
			script: "kernel http://SERVER/linux auto=true url=http://SERVER/${mac:hexhyp}.cfg priority=critical\nboot\n", cfg: cfg,
			want: install, deploy: deployment{Address: "127.0.1.1", HostName: "worker-abcde", User: "rack"},
		},
		{
			name:   "an address that is not loopback is never taken",
			script: "kernel http://SERVER/linux url=http://SERVER/${mac:hexhyp}.cfg\n", cfg: strings.Replace(cfg, "127.0.1.1", "192.168.1.9", 1),
			want: install, deploy: deployment{Address: "192.168.1.9", HostName: "worker-abcde", User: "rack"}, err: "only 127.0.0.0/8",
		},
		{name: "a kernel alone", script: "kernel http://SERVER/linux\n", want: install, err: "only preseed"},
		{name: "nothing", script: "#!ipxe\ndhcp\n", want: disk},
		{name: "no script", want: disk, err: "404"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{"/reboot.ipxe": "#!ipxe\nreboot\n", "/00-50-56-a5-11-20.cfg": tt.cfg}
			if tt.script != "" {
				files["/00-50-56-a5-11-20.ipxe"] = tt.script
			}
			mac, _ := net.ParseMAC(testMAC)
			b, d, err := netboot(t.Context(), plunderServer(t, files), mac)
			if b.Ack.To != tt.want {
				t.Errorf("the ACK leads to %v, want %v", b.Ack.To, tt.want)
			}
			if b.Offer.To != loop || !strings.HasSuffix(b.Offer.File, "/reboot.ipxe") || b.Offer.Error != "" {
				t.Errorf("offer = %+v, want the reboot loop", b.Offer)
			}
			if b.MAC != testMAC || b.Time.IsZero() || b.Ack.Next != "127.0.0.9" || (b.Ack.Error != "") != (tt.err != "") {
				t.Errorf("boot = %+v", b)
			}
			if diff := cmp.Diff(tt.deploy, d); diff != "" {
				t.Errorf("deployment (-want +got):\n%s", diff)
			}
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error = %v, want %q", err, tt.err)
			}
		})
	}
}

// TestMessage pins the bytes that make plunder see iPXE and count the machine as unleased.
func TestMessage(t *testing.T) {
	mac, _ := net.ParseMAC(testMAC)
	m := message(7, mac, discover, nil, nil)
	if len(m) < 300 {
		t.Errorf("%d bytes: BOOTP messages have at least 300", len(m))
	}
	if got := net.HardwareAddr(m[28:34]).String(); got != testMAC {
		t.Errorf("hardware address %s, want %s", got, testMAC)
	}
	if got := binary.BigEndian.Uint16(m[10:]); got != 0 {
		t.Errorf("flags %#x: with the broadcast flag the answer would not come back to us", got)
	}
	if !strings.Contains(string(m[240:]), "\x4d\x04iPXE") {
		t.Error("no user class iPXE")
	}
}

func TestExecOutsideSSH(t *testing.T) {
	t.Setenv("SSH_CONNECTION", "")
	if _, err := forward(t.Context(), "/nonexistent", strings.NewReader(""), os.Stderr); err == nil || !strings.Contains(err.Error(), "forced command") {
		t.Errorf("error = %v", err)
	}
}
