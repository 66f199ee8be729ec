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
// Chunks that are nowhere read as zeros.
type disk struct {
	mu   sync.Mutex
	size int64 // bytes
	ro   bool

	// What is on the platters: single chunks, and those that hold somebody's files.
	chunks map[int64][]byte
	files  extents

	// What the host believes instead: single pages, whole chunks of zeros that were not
	// flushed, and those that were and that the disk did not keep.
	cache    map[int64]*page
	zeroed   extents
	believed extents
}

// fileData is what files hold, as far as anybody can tell without knowing them.
var fileData = bytes.Repeat([]byte("someone's files "), chunkSize/16) //nolint:gochecknoglobals // a constant

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

// readAt fills p from off as the host sees it; what lies behind the device stays as it is.
func (d *disk) readAt(p []byte, off int64) { d.read(p, off, true) }

// readPlatters is readAt past the cache, and returns how much of the device was there.
func (d *disk) readPlatters(p []byte, off int64) int { return d.read(p, off, false) }

func (d *disk) read(p []byte, off int64, cached bool) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pieces(off, len(p), func(i, in int64, from, to int) {
		c := d.platter(i)
		if cached {
			c = d.cached(i)
		}
		if c == nil {
			clear(p[from:to])
			return
		}
		copy(p[from:to], c[in:])
	})
}

// platter is a chunk as the disk has it, cached as the host sees it; nil for zeros. Call
// both with mu held, and do not change what they return.
func (d *disk) platter(i int64) []byte {
	if c := d.chunks[i]; c != nil || !d.files.has(i) {
		return c
	}
	return fileData
}

func (d *disk) cached(i int64) []byte {
	switch pg := d.cache[i]; {
	case pg != nil:
		return pg.data
	case d.zeroed.has(i), d.believed.has(i):
		return nil
	}
	return d.platter(i)
}

// writeAt writes to the cache and returns how many bytes still fitted on the device.
func (d *disk) writeAt(p []byte, off int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pieces(off, len(p), func(i, in int64, from, to int) {
		if d.cached(i) == nil && d.platter(i) == nil && isZero(p[from:to]) {
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
		copy(pg.data, d.cached(i))
		d.zeroed, d.believed = d.zeroed.cut(i, i+1), d.believed.cut(i, i+1)
		if d.cache == nil {
			d.cache = map[int64]*page{}
		}
		d.cache[i] = pg
	}
	pg.dirty = true
	return pg
}

// zero makes a range of the cache zeros, whatever its length, and returns how much of it
// is on the device.
func (d *disk) zero(off, length int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	end := min(off+length, d.size)
	if end <= off {
		return 0
	}
	from, to := (off+chunkSize-1)/chunkSize, end/chunkSize
	if end == d.size {
		to = (end + chunkSize - 1) / chunkSize
	}
	for _, i := range []int64{off / chunkSize, end / chunkSize} { // chunks of which it is a part
		if a, b := max(off, i*chunkSize), min(end, (i+1)*chunkSize); a < b && (i < from || i >= to) && (d.cached(i) != nil || d.platter(i) != nil) {
			clear(d.page(i).data[a-i*chunkSize : b-i*chunkSize])
		}
	}
	if from < to {
		for i := range d.cache {
			if i >= from && i < to {
				delete(d.cache, i)
			}
		}
		d.zeroed, d.believed = d.zeroed.add(from, to), d.believed.cut(from, to)
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
	return len(d.zeroed.within(chunksOf(from, to))) > 0
}

// chunksOf are the chunks that a range of bytes touches.
func chunksOf(from, to int64) (int64, int64) {
	return from / chunkSize, (to + chunkSize - 1) / chunkSize
}

// flush brings what the cache holds for a range to the platters. What gets lost on the way
// stays in the cache as if it were there: only a reader past the cache sees the
// difference. The error is syscall.EIO.
func (d *disk) flush(from, to int64, f *fate) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.flushZeros(from, to, f)
	for i, pg := range d.cache {
		begin, end := i*chunkSize, (i+1)*chunkSize
		if !pg.dirty || begin >= to || end <= from {
			continue
		}
		a, b := f.spoils(begin, end)
		kept := slices.Clone(pg.data)
		if a < b {
			clear(kept[a-begin : b-begin])
			if old := d.platter(i); old != nil {
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
		d.files = d.files.cut(i, i+1)
		pg.dirty = false
		if bytes.Equal(kept, pg.data) {
			delete(d.cache, i)
		}
	}
	return err
}

// flushZeros flushes the chunks of zeros in a range.
func (d *disk) flushZeros(from, to int64, f *fate) (err error) {
	from, to = chunksOf(from, to)
	if a, b := f.spoils(from*chunkSize, to*chunkSize); a < b {
		inner, end := (a+chunkSize-1)/chunkSize, b/chunkSize
		for _, i := range []int64{a / chunkSize, b / chunkSize} { // partly spoiled
			if (i < inner || i >= end) && d.zeroed.has(i) {
				d.page(i)
			}
		}
		for _, x := range d.zeroed.within(inner, max(inner, end)) {
			d.believed = d.believed.add(x.From, x.To)
			d.zeroed = d.zeroed.cut(x.From, x.To)
			if f.fails {
				err = syscall.EIO
			}
		}
	}
	done := d.zeroed.within(from, to)
	if len(done) == 0 {
		return err
	}
	for i := range d.chunks {
		if done.has(i) {
			delete(d.chunks, i)
		}
	}
	for _, x := range done {
		d.files = d.files.cut(x.From, x.To)
	}
	d.zeroed = d.zeroed.cut(from, to)
	return err
}

// forget drops the clean pages of a range: the next reader asks the disk.
func (d *disk) forget(from, to int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, pg := range d.cache {
		if !pg.dirty && i*chunkSize < to && (i+1)*chunkSize > from {
			delete(d.cache, i)
		}
	}
	d.believed = d.believed.cut(chunksOf(from, to))
}

// lose is what a reset does: what was not flushed is gone.
func (d *disk) lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cache, d.zeroed, d.believed = nil, nil, nil
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
	if a < b {
		d.zeroed, d.believed = d.zeroed.cut(chunksOf(a, b)), d.believed.cut(chunksOf(a, b))
	}
	return err
}

// left is how many bytes on the platters are not zeros.
func (d *disk) left() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.files.count() * chunkSize
	for i, c := range d.chunks {
		n += int64(len(c) - bytes.Count(c, []byte{0}))
		if d.files.has(i) {
			n -= chunkSize
		}
	}
	return n
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
	d.files = extents{{d.size / 8 / chunkSize, d.size / 16 * 15 / chunkSize}}
	return parts
}

// sparse is a disk as JSON: the chunks that are not zeros, and the cache.
type sparse struct {
	Bytes  int64
	Chunks []sparseChunk `json:",omitempty"`
	Cache  []sparseChunk `json:",omitempty"` // dirty pages
	Clean  []sparseChunk `json:",omitempty"` // pages that the disk did not keep

	Files, Zeroed, Believed extents `json:",omitempty"` // see disk
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
	s := sparse{Bytes: d.size, Files: slices.Clone(d.files), Zeroed: slices.Clone(d.zeroed), Believed: slices.Clone(d.believed)}
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
	d.files, d.zeroed, d.believed = s.Files, s.Zeroed, s.Believed
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
