package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// DHCP options and message types (RFC 2132, 3004).
const (
	optRequested = 50
	optType      = 53
	optServerID  = 54
	optBootFile  = 67
	optUserClass = 77
	optEnd       = 255

	discover = 1
	offer    = 2
	request  = 3
	ack      = 5
)

// bootFile asks for an address as iPXE does and returns the boot file that the
// server names in its ACK. The file of the OFFER is not the one that counts: a
// server of May 2020 forgets a slash there and never names the script of a MAC.
func bootFile(ctx context.Context, server string, mac net.HardwareAddr) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp4", server)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	// The broadcast flag stays off, so that the answer comes to our own port.
	xid := uint32(time.Now().UnixNano())
	answer, err := exchange(conn, xid, offer, message(xid, mac, discover, nil, nil))
	if err != nil {
		return "", fmt.Errorf("discover: %w", err)
	}
	answer, err = exchange(conn, xid, ack, message(xid, mac, request, answer.ip, answer.options[optServerID]))
	if err != nil {
		return "", fmt.Errorf("request: %w", err)
	}
	file := string(answer.options[optBootFile])
	if file == "" {
		return "", errors.New("the answer names no boot file")
	}
	return file, nil
}

// message is a BOOTREQUEST with the user class that tells plunder that iPXE runs.
func message(xid uint32, mac net.HardwareAddr, kind byte, ip, server []byte) []byte {
	b := make([]byte, 236, 300)
	b[0], b[1], b[2] = 1, 1, 6
	binary.BigEndian.PutUint32(b[4:], xid)
	copy(b[28:], mac)
	b = append(b, 99, 130, 83, 99)
	b = append(b, optType, 1, kind)
	b = append(b, optUserClass, 4)
	b = append(b, "iPXE"...)
	if ip != nil {
		b = append(b, optRequested, 4)
		b = append(b, ip...)
	}
	if server != nil {
		b = append(b, optServerID, byte(len(server)))
		b = append(b, server...)
	}
	b = append(b, optEnd)
	return append(b, bytes.Repeat([]byte{0}, max(0, 300-len(b)))...)
}

type dhcpAnswer struct {
	ip      []byte
	options map[byte][]byte
}

func exchange(conn net.Conn, xid uint32, want byte, m []byte) (dhcpAnswer, error) {
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return dhcpAnswer{}, err
	}
	if _, err := conn.Write(m); err != nil {
		return dhcpAnswer{}, err
	}
	b := make([]byte, 1500)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return dhcpAnswer{}, err
		}
		if n < 240 || binary.BigEndian.Uint32(b[4:]) != xid {
			continue
		}
		a := dhcpAnswer{ip: bytes.Clone(b[16:20]), options: map[byte][]byte{}}
		for o := b[240:n]; len(o) > 1 && o[0] != optEnd; {
			if o[0] == 0 {
				o = o[1:]
				continue
			}
			l := int(o[1])
			if len(o) < 2+l {
				break
			}
			a.options[o[0]] = bytes.Clone(o[2 : 2+l])
			o = o[2+l:]
		}
		if t := a.options[optType]; len(t) != 1 || t[0] != want {
			return dhcpAnswer{}, fmt.Errorf("answer of type %v, want %d", t, want)
		}
		return a, nil
	}
}
