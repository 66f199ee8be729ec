package host

import (
	"bytes"
	"cmp"
	"io"
	"slices"
	"sync"
	"syscall"
)

const (
	sectorSize = 512
	chunkSize  = 4 << 10
)

// disk is a sparse block device with the page cache of the host that uses it. What is
// written lands in the cache, and only a flush brings it to the platters: see flush.
// Chunks that are not there read as zeros.
type disk struct {
	mu     sync.Mutex
	size   int64            // bytes
	chunks map[int64][]byte // on the platters
	cache  map[int64]*page  // what the host believes instead; nil when that is nothing
	ro     bool
}

// page is a chunk in the cache.
type page struct {
	data  []byte
	dirty bool // not flushed; a clean page is one that the disk did not keep
}

func newDisk(size int64) *disk { return &disk{size: size, chunks: map[int64][]byte{}} }

// pieces calls f with each chunk that a range touches, with what of the chunk and of the
// range that is, and returns how much of the range is on the device.
func (d *disk) pieces(off int64, length int, f func(chunk, in int64, from, to int)) int {
	n := 0
	for n < length && off < d.size {
		i, in := off/chunkSize, off%chunkSize
		k := int(min(int64(length-n), chunkSize-in, d.size-off))
		f(i, in, n, n+k)
		n += k
		off += int64(k)
	}
	return n
}

// readAt fills p from off as the host sees it and returns how much of the device was there.
func (d *disk) readAt(p []byte, off int64) int { return d.read(p, off, true) }

// readPlatters is readAt past the cache.
func (d *disk) readPlatters(p []byte, off int64) int { return d.read(p, off, false) }

func (d *disk) read(p []byte, off int64, cached bool) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pieces(off, len(p), func(i, in int64, from, to int) {
		c := d.chunks[i]
		if pg := d.cache[i]; pg != nil && cached {
			c = pg.data
		}
		if c == nil {
			clear(p[from:to])
			return
		}
		copy(p[from:to], c[in:])
	})
}

// writeAt writes to the cache and returns how many bytes still fitted on the device.
func (d *disk) writeAt(p []byte, off int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pieces(off, len(p), func(i, in int64, from, to int) {
		if d.cache[i] == nil && d.chunks[i] == nil && isZero(p[from:to]) {
			return
		}
		copy(d.page(i).data[in:], p[from:to])
	})
}

// page is the dirty page of a chunk. Call with mu held.
func (d *disk) page(i int64) *page {
	pg := d.cache[i]
	if pg == nil {
		pg = &page{data: make([]byte, chunkSize)}
		copy(pg.data, d.chunks[i])
		if d.cache == nil {
			d.cache = map[int64]*page{}
		}
		d.cache[i] = pg
	}
	pg.dirty = true
	return pg
}

// zero makes a range of the cache zeros, whatever its length, and returns how much of it
// is on the device. What is zeros anyway costs nothing.
func (d *disk) zero(off, length int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	end := min(off+length, d.size)
	if end <= off {
		return 0
	}
	clearIn := func(i int64) {
		if from, to := max(off, i*chunkSize), min(end, (i+1)*chunkSize); from < to {
			clear(d.page(i).data[from-i*chunkSize : to-i*chunkSize])
		}
	}
	for i := range d.cache {
		clearIn(i)
	}
	for i := range d.chunks {
		if d.cache[i] == nil && i*chunkSize < end && (i+1)*chunkSize > off {
			clearIn(i)
		}
	}
	return end - off
}

// A fate is what becomes of writes on their way to the platters, on purpose: those that
// lie within a range are dropped, and fail if the disk says so.
type fate struct {
	from, to int64 // bytes; to 0 is the end of the disk
	fails    bool
}

// spoils reports which part of a range a fate is for; from == to when none.
func (f *fate) spoils(from, to int64) (int64, int64) {
	if f == nil {
		return to, to
	}
	a, b := max(from, f.from), to
	if f.to > 0 {
		b = min(to, f.to)
	}
	if a >= b {
		return to, to
	}
	return a, b
}

// dirty reports whether a flush of a range has anything to do.
func (d *disk) dirty(from, to int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, pg := range d.cache {
		if pg.dirty && i*chunkSize < to && (i+1)*chunkSize > from {
			return true
		}
	}
	return false
}

// flush brings what the cache holds for a range to the platters. What gets lost on the way
// stays in the cache as if it were there: only a reader past the cache sees the
// difference. The error is syscall.EIO.
func (d *disk) flush(from, to int64, f *fate) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	for i, pg := range d.cache {
		begin, end := i*chunkSize, (i+1)*chunkSize
		if !pg.dirty || begin >= to || end <= from {
			continue
		}
		a, b := f.spoils(begin, end)
		kept := slices.Clone(pg.data)
		if a < b {
			copy(kept[a-begin:b-begin], zeros[:])
			if old := d.chunks[i]; old != nil {
				copy(kept[a-begin:b-begin], old[a-begin:])
			}
			if f.fails {
				err = syscall.EIO
			}
		}
		if isZero(kept) {
			delete(d.chunks, i)
		} else {
			d.chunks[i] = kept
		}
		pg.dirty = false
		if bytes.Equal(kept, pg.data) {
			delete(d.cache, i)
		}
	}
	return err
}

var zeros [chunkSize]byte

// forget drops the clean pages of a range: the next reader asks the disk.
func (d *disk) forget(from, to int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, pg := range d.cache {
		if !pg.dirty && i*chunkSize < to && (i+1)*chunkSize > from {
			delete(d.cache, i)
		}
	}
}

// lose is what a reset does: what was not flushed is gone.
func (d *disk) lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cache = nil
}

// erase empties a range of the platters and the cache, as the disk itself does it.
func (d *disk) erase(off, length int64, f *fate) error {
	a, b := f.spoils(off, off+length)
	if a < b && f.fails {
		return syscall.EIO
	}
	d.zero(off, a-off)
	d.zero(b, off+length-b)
	err := d.flush(off, off+length, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.cache { // whatever was believed of what stayed
		if i*chunkSize < b && (i+1)*chunkSize > a {
			delete(d.cache, i)
		}
	}
	return err
}

func isZero(p []byte) bool {
	return bytes.Count(p, []byte{0}) == len(p)
}

// section is a part of a disk, as a partition's device node shows it.
type section struct {
	d      *disk
	off    int64
	length int64
}

// sectionReader reads a section from a position to its end.
type sectionReader struct {
	s      section
	pos    int64
	direct bool // past the cache
}

func (r *sectionReader) Read(p []byte) (int, error) {
	left := r.s.length - r.pos
	if left <= 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > left {
		p = p[:left]
	}
	n := r.s.d.read(p, r.s.off+r.pos, !r.direct)
	if n == 0 {
		return 0, io.EOF
	}
	r.pos += int64(n)
	return n, nil
}

// partition is an entry of a disk's partition table.
type partition struct {
	Number       int
	Start, Count int64 // sectors
}

// format puts on a disk what an installer leaves there and a wipe must remove: a
// protective MBR with boot code, both copies of the GPT, and file system
// signatures. It returns the partitions.
func format(d *disk, boot bool) []partition {
	total := d.size / sectorSize
	if total < 1<<15 {
		return nil
	}
	mbr := make([]byte, sectorSize)
	if boot {
		copy(mbr, "\xeb\x63\x90GRUB ")
	}
	mbr[450] = 0xee
	mbr[510], mbr[511] = 0x55, 0xaa
	d.writeAt(mbr, 0)
	d.writeAt([]byte("EFI PART\x00\x00\x01\x00"), sectorSize)
	d.writeAt([]byte("EFI PART\x00\x00\x01\x00"), (total-1)*sectorSize)
	efi := min(int64(1<<20), total/8)
	parts := []partition{
		{Number: 1, Start: 2048, Count: efi},
		{Number: 2, Start: 2048 + efi, Count: total - 2048 - efi - 34},
	}
	d.writeAt([]byte("\xeb\x58\x90mkfs.fat"), parts[0].Start*sectorSize)
	d.writeAt([]byte{0x53, 0xef}, parts[1].Start*sectorSize+0x438) // ext4
	// Something that lies beyond the first GiB, for a wipe that does not look.
	d.writeAt([]byte("user data"), (parts[1].Start+parts[1].Count-64)*sectorSize)
	_ = d.flush(0, d.size, nil) // it can't fail
	return parts
}

// sparse is a disk as JSON: the chunks that are not zeros, and the cache.
type sparse struct {
	Bytes  int64
	Chunks []sparseChunk `json:",omitempty"`
	Cache  []sparseChunk `json:",omitempty"` // dirty pages
	Clean  []sparseChunk `json:",omitempty"` // pages that the disk did not keep
}

type sparseChunk struct {
	Index int64
	// Data is without the zeros at both ends, Offset is where it begins in the chunk.
	Offset int
	Data   []byte
}

func saveChunk(i int64, c []byte) sparseChunk {
	trimmed := bytes.TrimRight(c, "\x00")
	data := bytes.TrimLeft(trimmed, "\x00")
	return sparseChunk{Index: i, Offset: len(trimmed) - len(data), Data: bytes.Clone(data)}
}

func (d *disk) snapshot() sparse {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := sparse{Bytes: d.size}
	for i, c := range d.chunks {
		if !isZero(c) {
			s.Chunks = append(s.Chunks, saveChunk(i, c))
		}
	}
	for i, pg := range d.cache {
		if pg.dirty {
			s.Cache = append(s.Cache, saveChunk(i, pg.data))
		} else {
			s.Clean = append(s.Clean, saveChunk(i, pg.data))
		}
	}
	for _, list := range [][]sparseChunk{s.Chunks, s.Cache, s.Clean} {
		slices.SortFunc(list, func(a, b sparseChunk) int { return cmp.Compare(a.Index, b.Index) })
	}
	return s
}

func (s sparse) disk() *disk {
	d := newDisk(s.Bytes)
	chunk := func(c sparseChunk) []byte {
		b := make([]byte, chunkSize)
		copy(b[min(c.Offset, chunkSize):], c.Data)
		return b
	}
	for _, c := range s.Chunks {
		d.chunks[c.Index] = chunk(c)
	}
	for dirty, list := range map[bool][]sparseChunk{true: s.Cache, false: s.Clean} {
		for _, c := range list {
			copy(d.page(c.Index).data, chunk(c))
			d.cache[c.Index].dirty = dirty
		}
	}
	return d
}
