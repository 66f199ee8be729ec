package host

import (
	"bytes"
	"io"
	"slices"
	"sync"
)

const (
	sectorSize = 512
	chunkSize  = 4 << 10
)

// disk is a sparse block device: chunks that are not there read as zeros.
type disk struct {
	mu     sync.Mutex
	size   int64 // bytes
	chunks map[int64][]byte
	ro     bool
}

func newDisk(size int64) *disk { return &disk{size: size, chunks: map[int64][]byte{}} }

// readAt fills p from off and returns how much of the device was there.
func (d *disk) readAt(p []byte, off int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(p) && off < d.size {
		i, in := off/chunkSize, off%chunkSize
		k := min(int64(len(p)-n), chunkSize-in, d.size-off)
		if c := d.chunks[i]; c != nil {
			copy(p[n:n+int(k)], c[in:in+k])
		} else {
			clear(p[n : n+int(k)])
		}
		n += int(k)
		off += k
	}
	return n
}

// writeAt returns how many bytes still fitted on the device.
func (d *disk) writeAt(p []byte, off int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(p) && off < d.size {
		i, in := off/chunkSize, off%chunkSize
		k := min(int64(len(p)-n), chunkSize-in, d.size-off)
		c := d.chunks[i]
		if c == nil {
			c = make([]byte, chunkSize)
			d.chunks[i] = c
		}
		copy(c[in:in+k], p[n:n+int(k)])
		n += int(k)
		off += k
	}
	return n
}

// zero makes a range zeros, whatever its length, and returns how much of it is
// on the device. Whole chunks are dropped, so that a wiped disk weighs nothing.
func (d *disk) zero(off, length int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	end := min(off+length, d.size)
	if end <= off {
		return 0
	}
	for i, c := range d.chunks {
		from, to := max(off, i*chunkSize), min(end, (i+1)*chunkSize)
		if from >= to {
			continue
		}
		clear(c[from-i*chunkSize : to-i*chunkSize])
		if isZero(c) {
			delete(d.chunks, i)
		}
	}
	return end - off
}

func (d *disk) isZero(off, length int64) bool {
	buf := make([]byte, length)
	n := d.readAt(buf, off)
	return isZero(buf[:n])
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

// reader reads a section from a position to its end.
type sectionReader struct {
	s   section
	pos int64
}

func (r *sectionReader) Read(p []byte) (int, error) {
	left := r.s.length - r.pos
	if left <= 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > left {
		p = p[:left]
	}
	n := r.s.d.readAt(p, r.s.off+r.pos)
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
	return parts
}

// sparse is a disk as JSON: the chunks that are not zeros.
type sparse struct {
	Bytes  int64
	Chunks []sparseChunk `json:",omitempty"`
}

type sparseChunk struct {
	Index int64
	// Data is without the zeros at both ends, Offset is where it begins in the chunk.
	Offset int
	Data   []byte
}

func (d *disk) snapshot() sparse {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := sparse{Bytes: d.size}
	for i, c := range d.chunks {
		trimmed := bytes.TrimRight(c, "\x00")
		data := bytes.TrimLeft(trimmed, "\x00")
		if len(data) > 0 {
			s.Chunks = append(s.Chunks, sparseChunk{Index: i, Offset: len(trimmed) - len(data), Data: bytes.Clone(data)})
		}
	}
	slices.SortFunc(s.Chunks, func(a, b sparseChunk) int { return int(a.Index - b.Index) })
	return s
}

func (s sparse) disk() *disk {
	d := newDisk(s.Bytes)
	for _, c := range s.Chunks {
		d.writeAt(c.Data, c.Index*chunkSize+int64(c.Offset))
	}
	return d
}
