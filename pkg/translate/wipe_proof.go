package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// ReadWipe gives the disks of an order as they were read back, with the samples; done is
// false while the log does not say. The proof is the read-back in the log, never the state
// of the job: a reset may cut that short. It is a proof only if every range that has to be
// there is there and is zeros: the beginning and the end of each disk, both ends of its
// partitions, and the random places that follow from the job's ID. The error says which
// disk, and where.
func ReadWipe(l wire.Log, job string, o WipeOrder) (disks []capi.WipedDisk, done bool, err error) {
	e, ok := entry(l, TaskName(taskErase, job))
	if !ok {
		return nil, false, nil
	}
	answer := readAnswer(e.Entry)
	if answer.refused != nil {
		return nil, true, refusal(answer.refused)
	}
	next := places(job, o)
	for _, d := range o.inOrder() {
		w, err := answer.proof(d, o.mode(), next(d.Bytes))
		if err != nil {
			if len(answer.samples) == 0 {
				err = fmt.Errorf("%w: %s", err, Explain(e))
			}
			return nil, true, fmt.Errorf("the wipe of disk %s was not proved: %w", d.Name(), err)
		}
		disks = append(disks, w)
	}
	if !answer.ok {
		return nil, true, fmt.Errorf("the wipe was not proved: %s", Explain(e))
	}
	slices.SortFunc(disks, func(a, b capi.WipedDisk) int {
		return slices.Index(o.Disks, a.Disk) - slices.Index(o.Disks, b.Disk)
	})
	return disks, true, nil
}

// wipeAnswer is what the script of a wipe printed, each line as its words.
type wipeAnswer struct {
	refused        map[string]string // dev, reason, want, have, tool
	samples, wiped []map[string]string
	failed         map[string]string // dev, reason, at
	ok             bool
}

func readAnswer(text string) wipeAnswer {
	var a wipeAnswer
	for line := range strings.Lines(text) {
		what, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		v := fields(rest)
		switch what {
		case "capplunder-wipe-refused":
			a.refused = v
		case "capplunder-wipe-error":
			a.failed = v
		case "capplunder-sample":
			a.samples = append(a.samples, v)
		case "capplunder-wiped":
			a.wiped = append(a.wiped, v)
		case "capplunder-wipe-ok":
			a.ok = true
		}
	}
	return a
}

// proof checks the answer about one disk: everything that was read back, and that it
// was read back where it has to be.
func (a wipeAnswer) proof(d capi.Disk, mode capi.WipeMode, random []capi.Sample) (capi.WipedDisk, error) {
	w := capi.WipedDisk{Disk: d, Method: mode}
	if f := a.failed; f != nil && f["dev"] == d.Device {
		return w, failure(f)
	}
	head := min(wipeHead, d.Bytes)
	read := map[string]bool{}
	for _, v := range a.samples {
		if v["dev"] != d.Device {
			continue
		}
		s, err := sample(v, head)
		if err == nil && s.Offset > d.Bytes-s.Bytes {
			err = fmt.Errorf("%s are not on the disk", place(s))
		}
		if err != nil {
			return w, err
		}
		w.Samples = append(w.Samples, s)
		read[place(s)] = true
	}
	i := slices.IndexFunc(a.wiped, func(v map[string]string) bool { return v["dev"] == d.Device })
	switch {
	case i < 0:
		return w, errors.New("the host does not say that it was wiped")
	case a.wiped[i]["bytes"] != strconv.FormatInt(d.Bytes, 10) || a.wiped[i]["mode"] != string(mode):
		return w, fmt.Errorf("the host wiped something else: %s bytes, mode %s", a.wiped[i]["bytes"], a.wiped[i]["mode"])
	case a.wiped[i]["samples"] != strconv.Itoa(len(w.Samples)):
		return w, fmt.Errorf("the host read back %s ranges, and the log has %d", a.wiped[i]["samples"], len(w.Samples))
	}
	for _, s := range append([]capi.Sample{{Bytes: head}, {Offset: d.Bytes - wipeEdge, Bytes: wipeEdge}}, random...) {
		if !read[place(s)] {
			return w, fmt.Errorf("%s was not read back", place(s))
		}
	}
	return w, nil
}

// place is a range of a disk, for people.
func place(s capi.Sample) string { return fmt.Sprintf("%d bytes at %d", s.Bytes, s.Offset) }

// sample reads one range, the head or a smaller one; an error if it is not zeros. Without a digest, because the host
// has no sha256sum, the number of bytes that are zero takes its place.
func sample(v map[string]string, head int64) (s capi.Sample, err error) {
	var zeros int64
	for k, n := range map[string]*int64{"at": &s.Offset, "bytes": &s.Bytes, "zeros": &zeros} {
		if *n, err = strconv.ParseInt(v[k], 10, 64); err != nil || *n < 0 || strconv.FormatInt(*n, 10) != v[k] {
			return s, fmt.Errorf("the host's answer is not one: %s=%q", k, v[k])
		}
	}
	if s.Bytes == 0 || s.Bytes > wipeEdge && s.Bytes != head {
		return s, fmt.Errorf("the host's answer is not one: bytes=%d", s.Bytes)
	}
	want := zeroDigest(s.Bytes)
	switch digest := v["sha256"]; {
	case zeros != s.Bytes:
		return s, fmt.Errorf("of %s only %d are zero", place(s), zeros)
	case digest != "" && digest != want:
		return s, fmt.Errorf("the digest of %s is not that of zeros", place(s))
	}
	s.SHA256 = want
	return s, nil
}

// zeroDigest is the SHA-256 of n zeros. The usual numbers are known.
func zeroDigest(n int64) string {
	switch n {
	case wipeHead:
		return "080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e"
	case wipeEdge:
		return "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"
	case 64 << 10:
		return "de2f256064a0af797747c2b97505dc0b9f3df0de4f489eac731c23ae9ca9cc31"
	}
	h := sha256.New()
	_, _ = io.CopyN(h, zeros{}, n)
	return hex.EncodeToString(h.Sum(nil))
}

// zeros reads as zeros without end.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// places gives the random places of one disk after the other, as the script computes
// them: a linear congruential generator whose high bits choose the place. A quick wipe is
// looked at where it wrote, any other anywhere.
func places(job string, o WipeOrder) func(size int64) []capi.Sample {
	x := wipeSeed(job)
	unit, count := o.samples()
	return func(size int64) []capi.Sample {
		head, tail := min(wipeHead, size)/unit, wipeEdge/unit
		var out []capi.Sample
		for range count {
			x = (x*1103515245 + 12345) % (1 << 31)
			at := x * (size / unit) >> 31 * unit
			if o.mode() == capi.WipeQuick {
				if at = x * (head + tail) >> 31; at < head {
					at *= unit
				} else {
					at = size - wipeEdge + (at-head)*unit
				}
			}
			out = append(out, capi.Sample{Offset: at, Bytes: unit})
		}
		return out
	}
}

// refusal says why nothing was destroyed, and what to do.
func refusal(v map[string]string) error {
	reason := v["reason"]
	why := map[string]string{
		"missing":             "the host has no such disk any more",
		"size":                "its size is " + v["have"] + " bytes, not " + v["want"],
		"identity":            "it is another disk: it is known as " + v["have"] + ", not as " + v["want"],
		"readonly":            "it is read-only",
		"removable":           "it is removable, and such disks are never wiped",
		"usb":                 "it is on USB, and such disks are never wiped",
		"remote":              "it is remote, and such disks are never wiped",
		"no-scratch":          "the host has no directory to write to: neither /run, /dev/shm nor /tmp",
		"no-tool":             "the host has no program " + v["tool"] + ": install it, or use --wipe zero",
		"discard-unsupported": "it cannot discard blocks: use --wipe zero",
		"secure-unsupported":  "it cannot erase itself: use --wipe zero",
		"secure-locked":       "it has a password already, which has to be removed first (hdparm --security-disable), or use --wipe zero",
		"secure-shared":       "its controller erases all its namespaces at once, and there are others: use --wipe zero",
		"frozen":              "the firmware forbade erasing when the machine started (frozen): suspend and wake the machine, or use --wipe zero",
	}[reason]
	if why == "" {
		why = "it says no more"
	}
	return fmt.Errorf("the host refused, and nothing was destroyed: disk %s: %s (reason=%s)", v["dev"], why, reason)
}

// failure says what went wrong with a disk.
func failure(v map[string]string) error {
	switch v["reason"] {
	case "write":
		return fmt.Errorf("writing at %s failed", v["at"])
	case "discard":
		return errors.New("blkdiscard failed: use --wipe zero")
	case "secure":
		return errors.New(`the drive did not erase itself; if it is locked now, its password is "capplunder" (hdparm --security-disable)`)
	}
	return fmt.Errorf("it failed (reason=%s)", v["reason"])
}
