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

// named is what one answer of the server tells a machine to boot.
type named struct {
	File string `json:"file"` // option 67: the URL of a script
	Next string `json:"next"` // siaddr, the next server
}

// lease asks for an address as iPXE does and returns what the server's OFFER and its
// ACK name. The ACK is the one that counts: a server of May 2020 forgets a slash in its
// OFFERs and never names the script of a MAC there.
func lease(ctx context.Context, server string, mac net.HardwareAddr) (offered, acked named, err error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp4", server)
	if err != nil {
		return offered, acked, err
	}
	defer func() { _ = conn.Close() }()
	// The broadcast flag stays off, so that the answer comes to our own port.
	xid := uint32(time.Now().UnixNano())
	answer, err := exchange(conn, xid, offer, message(xid, mac, discover, nil, nil))
	if err != nil {
		return offered, acked, fmt.Errorf("discover: %w", err)
	}
	offered = answer.names()
	answer, err = exchange(conn, xid, ack, message(xid, mac, request, answer.ip, answer.options[optServerID]))
	if err != nil {
		return offered, acked, fmt.Errorf("request: %w", err)
	}
	acked = answer.names()
	if acked.File == "" {
		return offered, acked, errors.New("the answer names no boot file")
	}
	return offered, acked, nil
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
	ip, next []byte
	options  map[byte][]byte
}

func (a dhcpAnswer) names() named {
	return named{File: string(a.options[optBootFile]), Next: net.IP(a.next).String()}
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
		a := dhcpAnswer{ip: bytes.Clone(b[16:20]), next: bytes.Clone(b[20:24]), options: map[byte][]byte{}}
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
