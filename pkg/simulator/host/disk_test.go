package host

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
)

// plainDisk is a disk with its cache, byte by byte.
type plainDisk struct {
	host, platters []byte
	dirty          []bool // by chunk
}

func (p *plainDisk) write(off int, data []byte) {
	for i, b := range data {
		p.host[off+i] = b
		p.dirty[(off+i)/chunkSize] = true
	}
}

func (p *plainDisk) chunks(from, to int, f func(i, begin, end int)) {
	for i := range p.dirty {
		if begin := i * chunkSize; begin < to && begin+chunkSize > from {
			f(i, begin, begin+chunkSize)
		}
	}
}

func (p *plainDisk) flush(from, to int, spoiled func(at int) bool) {
	p.chunks(from, to, func(i, begin, end int) {
		for at := begin; at < end && p.dirty[i]; at++ {
			if !spoiled(at) {
				p.platters[at] = p.host[at]
			}
		}
		p.dirty[i] = false
	})
}

// TestDisk does at random what can be done to a disk, and compares it with a plain one.
func TestDisk(t *testing.T) {
	const chunks, size = 12, 12 * chunkSize
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		d := newDisk(size)
		d.files = extents{{3, 9}}
		p := plainDisk{host: make([]byte, size), platters: make([]byte, size), dirty: make([]bool, chunks)}
		for at := 3 * chunkSize; at < 9*chunkSize; at++ {
			p.host[at] = fileData[at%chunkSize]
			p.platters[at] = p.host[at]
		}
		var done []string
		for range 40 {
			off := r.IntN(size)
			length := 1 + r.IntN(size-off)
			if r.IntN(2) == 0 {
				off, length = off/chunkSize*chunkSize, min((length/chunkSize+1)*chunkSize, size-off/chunkSize*chunkSize)
			}
			var f *fate
			spoiled := func(int) bool { return false }
			if r.IntN(3) == 0 {
				from := r.IntN(size)
				f = &fate{from: int64(from), to: int64(from + r.IntN(size-from)), fails: false}
				spoiled = func(at int) bool { return at >= from && (f.to == 0 || at < int(f.to)) }
			}
			what := r.IntN(8)
			done = append(done, fmt.Sprintf("%d at %d, %d bytes, fate %+v", what, off, length, f))
			switch what {
			case 0:
				data := bytes.Repeat([]byte{byte(1 + r.IntN(250))}, length)
				d.writeAt(data, int64(off))
				p.write(off, data)
			case 1:
				d.writeAt(make([]byte, length), int64(off))
				p.write(off, make([]byte, length))
			case 2:
				d.zero(int64(off), int64(length))
				p.write(off, make([]byte, length))
			case 3, 4:
				_ = d.flush(int64(off), int64(off+length), f)
				p.flush(off, off+length, spoiled)
			case 5:
				d.forget(int64(off), int64(off+length))
				p.chunks(off, off+length, func(i, begin, end int) {
					if !p.dirty[i] {
						copy(p.host[begin:end], p.platters[begin:end])
					}
				})
			case 6:
				if r.IntN(3) == 0 {
					d.lose()
					copy(p.host, p.platters)
					clear(p.dirty)
				}
			case 7:
				b, err := json.Marshal(d.snapshot())
				var s sparse
				if err != nil || json.Unmarshal(b, &s) != nil {
					t.Fatal(err)
				}
				d = s.disk()
				if again, err := json.Marshal(d.snapshot()); err != nil || !bytes.Equal(again, b) {
					t.Fatalf("seed %d: %s became %s", seed, b, again)
				}
			}
			got, left := make([]byte, size), int64(0)
			if d.readAt(got, 0); !bytes.Equal(got, p.host) {
				t.Fatalf("seed %d: the host sees something else after\n%q", seed, done)
			}
			if d.readPlatters(got, 0); !bytes.Equal(got, p.platters) {
				t.Fatalf("seed %d: something else is on the platters after\n%q", seed, done)
			}
			for _, b := range p.platters {
				left += int64(min(b, 1))
			}
			if d.left() != left {
				t.Fatalf("seed %d: %d bytes left, want %d, after\n%q", seed, d.left(), left, done)
			}
		}
	}
}

// TestErase: what a disk does by itself is on the platters at once, except where it lies.
func TestErase(t *testing.T) {
	const size = 12 * chunkSize
	for name, tt := range map[string]struct {
		fate *fate
		left int64
		err  bool
	}{
		"plain":      {nil, 0, false},
		"lost":       {&fate{}, 6 * chunkSize, false},
		"partly":     {&fate{from: 4*chunkSize + 10, to: 5*chunkSize + 20}, chunkSize + 10, false},
		"elsewhere":  {&fate{from: 10 * chunkSize, to: 11 * chunkSize}, 0, false},
		"fails":      {&fate{fails: true}, 6 * chunkSize, true},
		"fails late": {&fate{from: 8 * chunkSize, fails: true}, 6 * chunkSize, true},
	} {
		d := newDisk(size)
		d.files = extents{{3, 9}}
		err := d.erase(0, size, tt.fate)
		cached, plain := make([]byte, size), make([]byte, size)
		d.readAt(cached, 0)
		d.readPlatters(plain, 0)
		if d.left() != tt.left || (err != nil) != tt.err || !bytes.Equal(cached, plain) {
			t.Errorf("%s: %d bytes left, want %d; err %v; the cache agrees: %v", name, d.left(), tt.left, err, bytes.Equal(cached, plain))
		}
	}
}

func TestExtents(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var e extents
	var plain [64]bool
	for range 5000 {
		from := r.IntN(64)
		to := from + r.IntN(65-from)
		on := r.IntN(2) == 0
		if on {
			e = e.add(int64(from), int64(to))
		} else {
			e = e.cut(int64(from), int64(to))
		}
		for i := from; i < to; i++ {
			plain[i] = on
		}
		n := int64(0)
		for i, want := range plain {
			if e.has(int64(i)) != want || (len(e.within(int64(i), int64(i+1))) == 1) != want {
				t.Fatalf("%d in %v: want %v", i, e, want)
			}
			if want {
				n++
			}
		}
		for i := 1; i < len(e); i++ {
			if e[i-1].To >= e[i].From {
				t.Fatalf("ranges touch: %v", e)
			}
		}
		if e.count() != n || e.within(0, 64).count() != n {
			t.Fatalf("%v has %d, want %d", e, e.count(), n)
		}
	}
}
