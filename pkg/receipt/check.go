package receipt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// maxSample is the longest range that is read back in one piece, in bytes; a longer one
// in a receipt is a fake that is to keep its reader busy.
const maxSample = 1 << 30

// Check says what of a receipt cannot be, all at once. A receipt without problems is
// complete and agrees with itself: each disk was read back at its start and its end, and
// each range that was read back has the digest of zeros. Whether it is true, only the
// signature of somebody who is trusted tells.
func (r Receipt) Check() error {
	var errs []error
	if len(r.Machines) == 0 {
		errs = append(errs, errors.New("it is about no machine"))
	}
	if r.Server == "" {
		errs = append(errs, errors.New("it names no plunder server"))
	}
	zeros := r.zeros()
	for i, m := range r.Machines {
		for _, err := range m.check(zeros) {
			errs = append(errs, fmt.Errorf("machine %q: %w", m.Key(), err))
		}
		if !slices.Contains(r.RunIDs, m.RunID) {
			errs = append(errs, fmt.Errorf("machine %q: run %q is none of the receipt's", m.Key(), m.RunID))
		}
		if slices.ContainsFunc(r.Machines[:i], m.same) {
			errs = append(errs, fmt.Errorf("machine %q: the wipe of run %q stands there twice", m.Key(), m.RunID))
		}
	}
	return errors.Join(errs...)
}

func (m Machine) check(zeros map[int64]string) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.Name == "" || m.Namespace == "" {
		bad("it has no name")
	}
	if mac, err := net.ParseMAC(m.MAC); err != nil || mac.String() != m.MAC {
		bad("%q is no MAC address", m.MAC)
	}
	if a, err := netip.ParseAddr(m.Address); err != nil || !a.Is4() {
		bad("%q is no IPv4 address", m.Address)
	}
	for _, f := range []struct{ name, value string }{{"hostName", m.HostName}, {"by", m.By}, {"runID", m.RunID}} {
		if f.value == "" {
			bad("there is no %s", f.name)
		}
	}
	switch {
	case m.StartedAt.IsZero() || m.ProvedAt.IsZero():
		bad("it is not said when the wipe began and was proved")
	case m.ProvedAt.Before(m.StartedAt):
		bad("the wipe was proved before it began")
	}
	if len(m.Disks) == 0 {
		bad("no disk was wiped")
	}
	for i, d := range m.Disks {
		for _, err := range d.check(zeros) {
			bad("disk %q: %w", d.name(), err)
		}
		if slices.ContainsFunc(m.Disks[:i], func(o Disk) bool { return o.Device == d.Device }) {
			bad("disk %q stands there twice", d.name())
		}
	}
	return errs
}

func (d Disk) check(zeros map[int64]string) []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if d.Device == "" {
		bad("it has no name")
	}
	if d.Bytes <= 0 {
		bad("its size is %d bytes", d.Bytes)
	}
	if !slices.Contains(capi.WipeModes(), d.Method) {
		bad("no way to wipe is called %q", d.Method)
	}
	start, middle, end := false, false, false
	for _, s := range d.Samples {
		if s.Offset < 0 || s.Bytes <= 0 || s.Bytes > d.Bytes || s.Offset > d.Bytes-s.Bytes {
			bad("the sample of %d bytes at %d is not within the disk", s.Bytes, s.Offset)
			continue
		}
		atStart, atEnd := s.Offset == 0, s.Offset == d.Bytes-s.Bytes
		start, end, middle = start || atStart, end || atEnd, middle || !atStart && !atEnd
		switch zero, ok := zeros[s.Bytes]; {
		case !ok:
			bad("the sample at %d is %d bytes long, more than is ever read back in one piece", s.Offset, s.Bytes)
		case s.SHA256 != zero:
			bad("the sample of %d bytes at %d has the digest %q, which is not that of zeros", s.Bytes, s.Offset, s.SHA256)
		}
	}
	if !start {
		bad("its start was not read back")
	}
	if !end {
		bad("its end was not read back")
	}
	if d.Method != capi.WipeQuick && !middle {
		bad("it is said to be wiped whole (%s), but nothing between its start and its end was read back", d.Method)
	}
	return errs
}

// zeros has the digest of that many zero bytes for each length of a sample that can be.
func (r Receipt) zeros() map[int64]string {
	digests := map[int64]string{}
	var lengths []int64
	for _, m := range r.Machines {
		for _, d := range m.Disks {
			for _, s := range d.Samples {
				if _, ok := digests[s.Bytes]; !ok && s.Bytes > 0 && s.Bytes <= maxSample {
					digests[s.Bytes] = ""
					lengths = append(lengths, s.Bytes)
				}
			}
		}
	}
	// One pass over the longest gives all: what a receipt can cost its reader is limited.
	slices.Sort(lengths)
	h, done, block := sha256.New(), int64(0), make([]byte, 1<<20)
	for _, n := range lengths {
		for done < n {
			k := min(n-done, int64(len(block)))
			h.Write(block[:k])
			done += k
		}
		digests[n] = hex.EncodeToString(h.Sum(nil))
	}
	return digests
}
