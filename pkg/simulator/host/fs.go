package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// filesystem is a tree of nodes by clean absolute path. Everything is in memory.
type filesystem struct {
	mu       sync.Mutex
	nodes    map[string]*node
	readOnly bool // remounted by sysrq u
}

// node is a file, directory, symbolic link, device, pipe or socket. mode holds
// type and permission bits, as in io/fs.
type node struct {
	mode     fs.FileMode
	uid, gid int
	mtime    time.Time
	data     []byte // contents, or where a symbolic link points
	// gen makes the contents of a kernel file when it is read.
	gen func() []byte
	// written is called with what is written to a kernel file or character device.
	written func([]byte) error
	block   *section // of a block device
	ro      bool     // of a block device: set read-only in the kernel
	fifo    *fifo
	zeros   bool // /dev/zero
	// volatile nodes are made by the host and never part of a snapshot.
	volatile bool
}

func newFilesystem() *filesystem {
	return &filesystem{nodes: map[string]*node{"/": {mode: fs.ModeDir | 0o755}}}
}

const maxLinks = 40

// resolve follows symbolic links; the last one only if follow is set. It returns
// a path that need not exist. Call with mu held.
func (f *filesystem) resolve(p string, follow bool) (string, error) {
	links := 0
	done := "/"
	rest := strings.Split(strings.TrimPrefix(path.Clean("/"+p), "/"), "/")
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, name)
		n := f.nodes[next]
		switch {
		case n != nil && n.mode&fs.ModeSymlink != 0 && (follow || len(rest) > 0):
			if links++; links > maxLinks {
				return "", syscall.ELOOP
			}
			target := string(n.data)
			if path.IsAbs(target) {
				done = "/"
			}
			rest = append(strings.Split(target, "/"), rest...)
		case n != nil && !n.mode.IsDir() && len(rest) > 0:
			return "", syscall.ENOTDIR
		case n == nil && len(rest) > 0:
			return "", syscall.ENOENT
		default:
			done = next
		}
	}
	return done, nil
}

// get finds a node. Call with mu held.
func (f *filesystem) get(p string, follow bool) (*node, string, error) {
	q, err := f.resolve(p, follow)
	if err != nil {
		return nil, "", err
	}
	n := f.nodes[q]
	if n == nil {
		return nil, q, syscall.ENOENT
	}
	return n, q, nil
}

// who is the user that does something, with the mask for what it makes.
type who struct {
	uid, gid int
	umask    fs.FileMode
}

// allowed checks permission bits: 4 read, 2 write, 1 execute.
func (w who) allowed(n *node, want fs.FileMode) bool {
	if w.uid == 0 {
		return want&1 == 0 || n.mode.IsDir() || n.mode&0o111 != 0
	}
	bits := n.mode & 7
	switch {
	case n.uid == w.uid:
		bits = n.mode >> 6 & 7
	case n.gid == w.gid:
		bits = n.mode >> 3 & 7
	}
	return bits&want == want
}

// mayChange checks that w may add or remove entries in the directory of p.
func (f *filesystem) mayChange(w who, p string) error {
	dir := f.nodes[path.Dir(p)]
	switch {
	case dir == nil:
		return syscall.ENOENT
	case !dir.mode.IsDir():
		return syscall.ENOTDIR
	case f.readOnly && !isVolatile(p):
		return syscall.EROFS
	case !w.allowed(dir, 2):
		return syscall.EACCES
	}
	return nil
}

// isVolatile says which trees are kept in memory by a real system: they stay
// writable when the disks are read-only, and are gone after a boot.
func isVolatile(p string) bool {
	for _, d := range []string{"/dev", "/proc", "/run", "/sys", "/tmp"} {
		if p == d || strings.HasPrefix(p, d+"/") {
			return true
		}
	}
	return false
}

// stat describes a node.
func (f *filesystem) stat(p string, follow bool) (info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, q, err := f.get(p, follow)
	if err != nil {
		return info{}, err
	}
	return f.info(n, q), nil
}

func (f *filesystem) info(n *node, q string) info {
	i := info{name: path.Base(q), mode: n.mode, mtime: n.mtime, size: int64(len(n.data)), uid: n.uid, gid: n.gid}
	if n.gen != nil {
		i.size = 0 // as the files of /proc say
	}
	return i
}

// access is access(2) for w.
func (f *filesystem) access(w who, p string, want fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, q, err := f.get(p, true)
	switch {
	case err != nil:
		return err
	case want&2 != 0 && f.readOnly && !isVolatile(q) && (n.mode.IsRegular() || n.mode.IsDir()):
		return syscall.EROFS
	case !w.allowed(n, want):
		return syscall.EACCES
	}
	return nil
}

func (f *filesystem) readDir(w who, p string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, q, err := f.get(p, true)
	switch {
	case err != nil:
		return nil, err
	case !n.mode.IsDir():
		return nil, syscall.ENOTDIR
	case !w.allowed(n, 4):
		return nil, syscall.EACCES
	}
	var out []fs.DirEntry
	for _, c := range f.children(q) {
		out = append(out, fs.FileInfoToDirEntry(f.info(f.nodes[c], c)))
	}
	return out, nil
}

// children lists the paths right below a directory, sorted. Call with mu held.
func (f *filesystem) children(dir string) []string {
	prefix := strings.TrimSuffix(dir, "/") + "/"
	var out []string
	for p := range f.nodes {
		if p != "/" && strings.HasPrefix(p, prefix) && !strings.Contains(p[len(prefix):], "/") {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// tree lists a path and everything below it, parents first. Call with mu held.
func (f *filesystem) tree(dir string) []string {
	out := []string{dir}
	for p := range f.nodes {
		if p != dir && strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// readFile reads a whole file that has an end.
func (f *filesystem) readFile(w who, p string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, _, err := f.get(p, true)
	switch {
	case err != nil:
		return nil, err
	case n.mode.IsDir():
		return nil, syscall.EISDIR
	case !w.allowed(n, 4):
		return nil, syscall.EACCES
	case n.gen != nil:
		return n.gen(), nil
	case n.block != nil || n.fifo != nil || n.zeros:
		return nil, syscall.EINVAL
	}
	return bytes.Clone(n.data), nil
}

// reader opens anything that can be read, endless devices too.
func (f *filesystem) reader(ctx context.Context, w who, p string) (io.Reader, error) {
	f.mu.Lock()
	n, _, err := f.get(p, true)
	if err == nil && !n.mode.IsDir() && w.allowed(n, 4) {
		switch {
		case n.block != nil:
			f.mu.Unlock()
			return &sectionReader{s: *n.block}, nil
		case n.fifo != nil:
			f.mu.Unlock()
			return fifoReader{ctx, n.fifo}, nil
		case n.zeros:
			f.mu.Unlock()
			return zeroReader{ctx}, nil
		}
	}
	f.mu.Unlock()
	b, err := f.readFile(w, p)
	if err != nil {
		return nil, err
	}
	return bytes.NewReader(b), nil
}

// writer opens a file for writing and makes it if need be.
func (f *filesystem) writer(w who, p string, appending, truncate bool, perm fs.FileMode) (*fileWriter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.resolve(p, true)
	if err != nil {
		return nil, err
	}
	n := f.nodes[q]
	switch {
	case n == nil:
		if err := f.mayChange(w, q); err != nil {
			return nil, err
		}
		n = &node{mode: perm &^ w.umask, uid: w.uid, gid: w.gid, mtime: time.Now()}
		f.nodes[q] = n
	case n.mode.IsDir():
		return nil, syscall.EISDIR
	case f.readOnly && !isVolatile(q) && n.mode.IsRegular():
		return nil, syscall.EROFS
	case !w.allowed(n, 2):
		return nil, syscall.EACCES
	case n.block != nil && (n.ro || n.block.d.ro):
		return nil, syscall.EPERM
	case n.mode.IsRegular() && n.gen != nil && n.written == nil:
		return nil, syscall.EACCES
	case n.mode.IsRegular() && n.written == nil && truncate:
		n.data = nil
		n.mtime = time.Now()
	}
	fw := &fileWriter{f: f, n: n}
	if appending {
		fw.pos = -1
	}
	return fw, nil
}

// fileWriter writes to a node, from a position or at its end (-1).
type fileWriter struct {
	f   *filesystem
	n   *node
	pos int64
	// closed, if not nil, is called when the file is closed.
	closed func()
}

// Read is here because the shell wants files that can do both.
func (w *fileWriter) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer.
func (w *fileWriter) Close() error {
	if w.closed != nil {
		w.closed()
	}
	return nil
}

func (w *fileWriter) Write(p []byte) (int, error) {
	switch {
	case w.n.written != nil:
		// Outside the lock: what is written may reset the host.
		if err := w.n.written(p); err != nil {
			return 0, err
		}
		return len(p), nil
	case w.n.fifo != nil:
		w.n.fifo.write(p)
		return len(p), nil
	case w.n.block != nil:
		left := w.n.block.length - w.pos
		if left <= 0 {
			return 0, syscall.ENOSPC
		}
		n := w.n.block.d.writeAt(p[:min(int64(len(p)), left)], w.n.block.off+w.pos)
		w.pos += int64(n)
		if n < len(p) {
			return n, syscall.ENOSPC
		}
		return n, nil
	}
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	pos := w.pos
	if pos < 0 {
		pos = int64(len(w.n.data))
	}
	end := pos + int64(len(p))
	if end > maxFile {
		return 0, syscall.EFBIG
	}
	if grow := end - int64(len(w.n.data)); grow > 0 {
		w.n.data = append(w.n.data, make([]byte, grow)...)
	}
	copy(w.n.data[pos:], p)
	if w.pos >= 0 {
		w.pos = end
	}
	w.n.mtime = time.Now()
	return len(p), nil
}

// maxFile keeps a posted script from filling the memory of the simulator.
const maxFile = 64 << 20

// put makes or replaces a node and the directories above it; for building hosts.
func (f *filesystem) put(p string, n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.putLocked(p, n)
}

func (f *filesystem) putLocked(p string, n *node) {
	if n.mtime.IsZero() {
		n.mtime = time.Now()
	}
	for d := path.Dir(p); f.nodes[d] == nil; d = path.Dir(d) {
		f.nodes[d] = &node{mode: fs.ModeDir | 0o755, mtime: n.mtime, volatile: n.volatile}
	}
	f.nodes[p] = n
}

func (f *filesystem) exists(p string) bool {
	_, err := f.stat(p, true)
	return err == nil
}

// mkdir makes one directory.
func (f *filesystem) mkdir(w who, p string, perm fs.FileMode) error {
	return f.create(w, p, &node{mode: fs.ModeDir | perm&^w.umask})
}

// create adds a node that must not be there yet.
func (f *filesystem) create(w who, p string, n *node) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.resolve(p, false)
	if err != nil {
		return err
	}
	if f.nodes[q] != nil {
		return syscall.EEXIST
	}
	if err := f.mayChange(w, q); err != nil {
		return err
	}
	n.uid, n.gid, n.mtime = w.uid, w.gid, time.Now()
	f.nodes[q] = n
	return nil
}

// remove deletes a node, or a tree.
func (f *filesystem) remove(w who, p string, recursive bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, q, err := f.get(p, false)
	if err != nil {
		return err
	}
	if n.mode.IsDir() && !recursive {
		return syscall.EISDIR
	}
	if err := f.mayChange(w, q); err != nil {
		return err
	}
	for _, t := range f.tree(q) {
		delete(f.nodes, t)
	}
	return nil
}

// rename moves a node with everything below it.
func (f *filesystem) rename(w who, from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, a, err := f.get(from, false)
	if err != nil {
		return err
	}
	b, err := f.resolve(to, false)
	if err != nil {
		return err
	}
	if a == b || strings.HasPrefix(b, a+"/") {
		return syscall.EINVAL
	}
	if err := errors.Join(f.mayChange(w, a), f.mayChange(w, b)); err != nil {
		return err
	}
	for _, t := range f.tree(a) {
		f.nodes[b+t[len(a):]] = f.nodes[t]
		delete(f.nodes, t)
	}
	return nil
}

// change alters a node's mode or owner under the lock.
func (f *filesystem) change(w who, p string, do func(*node)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, q, err := f.get(p, true)
	switch {
	case err != nil:
		return err
	case f.readOnly && !isVolatile(q):
		return syscall.EROFS
	case w.uid != 0 && w.uid != n.uid:
		return syscall.EPERM
	}
	do(n)
	return nil
}

// info is fs.FileInfo of a node.
type info struct {
	name     string
	mode     fs.FileMode
	mtime    time.Time
	size     int64
	uid, gid int
}

// Name implements fs.FileInfo.
func (i info) Name() string { return i.name }

// Size implements fs.FileInfo.
func (i info) Size() int64 { return i.size }

// Mode implements fs.FileInfo.
func (i info) Mode() fs.FileMode { return i.mode }

// ModTime implements fs.FileInfo.
func (i info) ModTime() time.Time { return i.mtime }

// IsDir implements fs.FileInfo.
func (i info) IsDir() bool { return i.mode.IsDir() }

// Sys implements fs.FileInfo.
func (i info) Sys() any { return nil }

// fifo is a named pipe. It is simpler than the kernel's: opening never blocks,
// and a reader ends when it has read something and nothing more is there.
type fifo struct {
	mu    sync.Mutex
	buf   []byte
	ready chan struct{} // has a token when buf may have something
}

func newFifo() *fifo { return &fifo{ready: make(chan struct{}, 1)} }

func (q *fifo) write(p []byte) {
	q.mu.Lock()
	q.buf = append(q.buf, p...)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// line takes one line, or what is there, and waits for it.
func (q *fifo) line(ctx context.Context) (string, error) {
	for {
		q.mu.Lock()
		if len(q.buf) > 0 {
			line, rest, _ := bytes.Cut(q.buf, []byte("\n"))
			q.buf = rest
			q.mu.Unlock()
			return string(line), nil
		}
		q.mu.Unlock()
		select {
		case <-q.ready:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

type fifoReader struct {
	ctx context.Context //nolint:containedctx // io.Reader has no room for one
	q   *fifo
}

func (r fifoReader) Read(p []byte) (int, error) {
	line, err := r.q.line(r.ctx)
	if err != nil {
		return 0, err
	}
	return copy(p, line+"\n"), io.EOF
}

// zeroReader is /dev/zero; it ends with the process that reads it.
type zeroReader struct {
	ctx context.Context //nolint:containedctx // io.Reader has no room for one
}

func (z zeroReader) Read(p []byte) (int, error) {
	if err := z.ctx.Err(); err != nil {
		return 0, err
	}
	clear(p)
	return len(p), nil
}
