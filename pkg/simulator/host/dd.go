package host

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"syscall"
)

// ddJob is what a dd has been told.
type ddJob struct {
	in, out      string // files; "" for standard input and output
	bs           int64
	skip, seek   int64 // bytes
	length       int64 // bytes; negative for all there is
	quiet        bool
	conv         []string
	iflag, oflag []string
}

// ddWords are the values that conv, iflag and oflag know.
func ddWords(operand string) []string {
	switch operand {
	case "conv":
		return []string{"notrunc", "fsync", "fdatasync", "noerror", "sync", "sparse", "excl", "nocreat"}
	case "iflag":
		return []string{"direct", "fullblock", "count_bytes", "skip_bytes", "sync", "dsync", "nonblock", "nocache"}
	case "oflag":
		return []string{"direct", "seek_bytes", "sync", "dsync", "append", "nonblock", "nocache"}
	}
	return nil
}

// ddOperands reads the command line; bad is the complaint about it.
func ddOperands(args []string) (j ddJob, bad []any) {
	op := map[string]string{"bs": "512", "count": "-", "skip": "0", "seek": "0"}
	for _, a := range args {
		k, v, ok := strings.Cut(a, "=")
		if !ok || !slices.Contains([]string{"if", "of", "bs", "ibs", "obs", "count", "skip", "seek", "conv", "oflag", "iflag", "status"}, k) {
			return j, []any{"unrecognized operand %q", a}
		}
		op[k] = v
		for _, w := range strings.Split(v, ",") {
			if known := ddWords(k); known != nil && w != "" && !slices.Contains(known, w) {
				return j, []any{"invalid %s: '%s'", map[string]string{"conv": "conversion", "iflag": "input flag", "oflag": "output flag"}[k], w}
			}
		}
	}
	j = ddJob{in: op["if"], out: op["of"], length: -1, quiet: op["status"] == "none"}
	j.conv, j.iflag, j.oflag = strings.Split(op["conv"], ","), strings.Split(op["iflag"], ","), strings.Split(op["oflag"], ",")
	var n [4]int64
	for i, k := range []string{"bs", "count", "skip", "seek"} {
		v, ok := size(op[k])
		if op[k] == "-" {
			v, ok = -1, true
		}
		if !ok || i == 0 && v == 0 {
			return j, []any{"invalid number: %q", op[k]}
		}
		n[i] = v
	}
	unit := func(flags []string, bytes string) int64 {
		if slices.Contains(flags, bytes) {
			return 1
		}
		return n[0]
	}
	j.bs, j.skip, j.seek = n[0], n[2]*unit(j.iflag, "skip_bytes"), n[3]*unit(j.oflag, "seek_bytes")
	if n[1] >= 0 {
		j.length = n[1] * unit(j.iflag, "count_bytes")
	}
	return j, nil
}

func cmdDd(c *call) int {
	if slices.Contains(c.args[1:], "--version") {
		c.printf("dd (coreutils) 9.4\n")
		return 0
	}
	j, bad := ddOperands(c.args[1:])
	if bad != nil {
		return c.fail(1, bad[0].(string), bad[1:]...) //nolint:errcheck,forcetypeassert // ddOperands puts it there
	}
	in, status := c.ddInput(j)
	if status != 0 {
		return status
	}
	done, what, err := c.ddCopy(j, in)
	if !j.quiet {
		c.errf("%d+0 records in\n%d+0 records out\n%d bytes copied", done/j.bs, done/j.bs, done)
	}
	if err != nil {
		return c.fail(1, "%s: %s", what, errText(err))
	}
	return 0
}

func (c *call) ddInput(j ddJob) (io.Reader, int) {
	if j.in == "" {
		if c.in == nil {
			return bytes.NewReader(nil), 0
		}
		_, _ = io.CopyN(io.Discard, c.in, j.skip)
		return c.in, 0
	}
	r, err := c.h.fs.reader(c.ctx, c.who(), c.path(j.in))
	if err != nil {
		return nil, c.fail(1, "failed to open '%s': %s", j.in, errText(err))
	}
	switch r := r.(type) {
	case *sectionReader:
		r.pos = j.skip
		if !slices.Contains(j.iflag, "direct") {
			break
		}
		if j.bs%sectorSize != 0 || j.skip%sectorSize != 0 {
			return nil, c.fail(1, "error reading '%s': Invalid argument", j.in)
		}
		// The kernel writes what it has for this range before it reads it past its cache.
		from := r.s.off + j.skip
		to := r.s.off + r.s.length
		if j.length >= 0 {
			to = min(to, from+j.length)
		}
		_ = c.h.flush(r.s.d, from, to)
		r.direct = true
	case zeroReader:
	default:
		_, _ = io.CopyN(io.Discard, r, j.skip)
	}
	return r, 0
}

// ddCopy copies, and says what failed if something did.
func (c *call) ddCopy(j ddJob, in io.Reader) (done int64, what string, err error) {
	what = "error writing '" + j.out + "'"
	if j.out == "" {
		done, err = c.copy(c.out, in, j.length)
		return done, what, err
	}
	w, err := c.h.fs.writer(c.who(), c.path(j.out), false, !slices.Contains(j.conv, "notrunc") && j.seek == 0, 0o666)
	if err != nil {
		return 0, "failed to open '" + j.out + "'", err
	}
	w.pos = j.seek
	b := w.n.block
	if b == nil {
		done, err = c.copy(w, in, j.length)
		return done, what, err
	}
	direct := slices.Contains(j.oflag, "direct")
	if direct && (j.bs%sectorSize != 0 || j.seek%sectorSize != 0) {
		return 0, what, syscall.EINVAL
	}
	defer func() { c.h.wrote(c.ses, c.args[0], *b, done) }()
	if _, zeros := in.(zeroReader); zeros {
		// Zeros to a disk cost nothing, whatever their number.
		room := max(b.length-j.seek, 0)
		want := j.length
		if want < 0 || want > room {
			want = room
		}
		done = b.d.zero(b.off+j.seek, want)
		if j.length < 0 || j.length > room {
			err = syscall.ENOSPC
		}
	} else {
		done, err = c.copy(w, in, j.length)
	}
	from, to := b.off+j.seek, b.off+j.seek+done
	if direct || slices.Contains(j.oflag, "sync") || slices.Contains(j.oflag, "dsync") {
		if e := c.h.flush(b.d, from, to); e != nil {
			return done, what, e
		}
	}
	if direct {
		b.d.forget(from, to)
	}
	if slices.Contains(j.conv, "fsync") || slices.Contains(j.conv, "fdatasync") {
		if e := c.h.flush(b.d, 0, b.d.size); e != nil && err == nil {
			return done, "fsync failed for '" + j.out + "'", e
		}
	}
	return done, what, err
}
