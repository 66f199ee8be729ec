package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/gofrs/flock"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const (
	sigSuffix = ".sig" // where ssh-keygen -Y sign puts it
	// pendingSuffix is where the next signature waits while the receipt is replaced.
	pendingSuffix = ".sig.new"
	lockSuffix    = ".lock"
	// filePerm: a receipt is to be handed on.
	filePerm = 0o644
)

// RefusedError is about a file that must not be written to. Nothing was changed.
type RefusedError struct {
	File   string
	Reason error
}

func (e *RefusedError) Error() string { return fmt.Sprintf("receipt %s: %v", e.File, e.Reason) }

func (e *RefusedError) Unwrap() error { return e.Reason }

// Options are what a receipt is opened with.
type Options struct {
	Tool      string // name and version of the program
	Server    string // URL of the plunder server
	Simulated bool
	Key       *Key // that signs, nil for a receipt without a signature
}

// File is a receipt that is being written. Its methods may be called at the same time.
type File struct {
	path string
	opts Options
	lock *flock.Flock

	mu      sync.Mutex
	receipt Receipt
	written []byte // what is in the file, nil as long as there is none
	added   int    // machines of this run
}

// Open begins a receipt or continues the one that is in the file. A file that is no
// receipt, or is that of another server, of other than simulated machines, or not signed
// by the key it is to be signed with again, is a *RefusedError. No file is written before
// the first machine is added, but that it can be, and that the key signs, has been tried.
func Open(path string, o Options) (*File, error) {
	refuse := func(err error) (*File, error) { return nil, &RefusedError{File: path, Reason: err} }
	target, err := resolve(path)
	if err != nil {
		return refuse(err)
	}
	f := &File{path: target, opts: o, receipt: Receipt{
		APIVersion: APIVersion, Kind: Kind, Tool: o.Tool, Simulated: o.Simulated, Server: o.Server, RunIDs: []string{}, Machines: []Machine{},
	}}
	if f.lock, err = lock(target + lockSuffix); err != nil {
		return refuse(err)
	}
	if err := f.begin(); err != nil {
		return refuse(errors.Join(err, f.Close()))
	}
	return f, nil
}

// resolve follows links, so that the file they lead to is replaced and not the link.
func resolve(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path, nil
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", errors.New("it is no regular file")
	}
	return filepath.EvalSymlinks(path)
}

// lock keeps other runs from the same receipt. The file is removed with the lock.
func lock(path string) (*flock.Flock, error) {
	for range 3 {
		l := flock.New(path, flock.SetPermissions(filePerm))
		ok, err := l.TryLock()
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if !ok {
			return nil, errors.New("another run writes to it")
		}
		// Whoever had it may have removed the file in between: then it locks nobody out.
		held, err := l.Stat()
		if err == nil {
			if now, err := os.Stat(path); err == nil && os.SameFile(held, now) {
				return l, nil
			}
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
	}
	return nil, errors.New("another run writes to it")
}

// Close lets others write to the receipt.
func (f *File) Close() error {
	if f.lock == nil {
		return nil
	}
	if runtime.GOOS != "windows" { // which removes no open file
		_ = os.Remove(f.lock.Path())
	}
	if err := f.lock.Close(); err != nil {
		return fmt.Errorf("unlock the receipt: %w", err)
	}
	return nil
}

// begin reads what is there, and tries out what will be needed.
func (f *File) begin() error {
	if err := f.sweep(); err != nil {
		return err
	}
	data, err := readFile(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(data) == 0:
		if _, err := os.Lstat(f.path + sigSuffix); err == nil {
			return fmt.Errorf("there is a signature of an earlier receipt, %s: remove it, or give another file", f.path+sigSuffix)
		}
	case err != nil:
		return err
	default:
		if err := f.resume(data); err != nil {
			return err
		}
	}
	if f.opts.Key != nil {
		if _, err := f.opts.Key.sign(bytes.NewReader(nil)); err != nil {
			return err
		}
	}
	// That a file can be made beside it.
	name, err := temporary(f.path, nil)
	if err != nil {
		return err
	}
	return os.Remove(name)
}

// sweep removes what a run that was killed left half written.
func (f *File) sweep() error {
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return err
	}
	for _, e := range entries {
		for _, suffix := range []string{"", sigSuffix, pendingSuffix} {
			if strings.HasPrefix(e.Name(), tempPrefix(f.path+suffix)) {
				_ = os.Remove(filepath.Join(filepath.Dir(f.path), e.Name()))
			}
		}
	}
	return nil
}

// resume takes over what an earlier run wrote.
func (f *File) resume(data []byte) error {
	r, err := Decode(data)
	if err != nil {
		return fmt.Errorf("%w; give another file", err)
	}
	switch {
	case r.Simulated != f.opts.Simulated && r.Simulated:
		return errors.New("it is a receipt of simulated machines; give another file")
	case r.Simulated != f.opts.Simulated:
		return errors.New("it is a receipt of real machines; give another file")
	case r.Server != f.opts.Server:
		return fmt.Errorf("it is a receipt of another plunder server, %q; give another file", r.Server)
	}
	if err := r.Check(); err != nil {
		return fmt.Errorf("what is in it cannot be, so nothing is added to it: %w", err)
	}
	sig, err := SignatureOf(f.path, data)
	switch key := f.opts.Key; {
	case errors.Is(err, ErrUnsigned) && key != nil:
		return errors.New("it is not signed, so nobody knows what it is that would be signed now; give another file")
	case errors.Is(err, ErrUnsigned):
	case err != nil:
		return fmt.Errorf("%w; give another file", err)
	case key == nil:
		return fmt.Errorf("it is signed with the key %s: give that key as well", sig.Fingerprint())
	case !sig.By(key.public):
		return fmt.Errorf("it is signed with the key %s, not with %s (%s)", sig.Fingerprint(), key.name, key.Fingerprint())
	case sig.Pending:
		if err := os.Rename(f.path+pendingSuffix, f.path+sigSuffix); err != nil {
			return err
		}
	}
	f.receipt, f.written = r, data
	return nil
}

// Add writes down the wipe of a machine, from its record, and signs. A wipe that is in
// the receipt already is no error and changes nothing. When Add returns nil, the wipe is on disk.
func (f *File) Add(rec capi.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := machineOf(rec)
	next := f.receipt
	if slices.ContainsFunc(next.Machines, m.same) {
		return nil
	}
	next.Tool = f.opts.Tool
	next.Machines = append(slices.Clone(next.Machines), m)
	if !slices.Contains(next.RunIDs, m.RunID) {
		next.RunIDs = append(slices.Clone(next.RunIDs), m.RunID)
	}
	alone := next
	alone.Machines = []Machine{m}
	if err := alone.Check(); err != nil {
		return fmt.Errorf("receipt %s: %w", f.path, err)
	}
	data, err := next.Encode()
	if err == nil {
		err = f.write(data)
	}
	if err != nil {
		return fmt.Errorf("receipt %s: Machine %s was wiped, but that could not be written: %w", f.path, m.Key(), err)
	}
	f.receipt, f.written = next, data
	f.added++
	return nil
}

// Added is how many machines this run added, Machines how many there are.
func (f *File) Added() (added, machines int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.added, len(f.receipt.Machines)
}

// write replaces the receipt. The new signature is there, under another name, before the
// new receipt is, and the old one until then: whenever the run is killed, a signature
// that fits stands beside the receipt.
func (f *File) write(data []byte) error {
	now, err := readFile(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !bytes.Equal(now, f.written) {
		return errors.New("the file was changed by somebody else meanwhile")
	}
	if f.opts.Key == nil {
		return replace(f.path, data)
	}
	armored, err := f.opts.Key.sign(bytes.NewReader(data))
	if err != nil {
		return err
	}
	if err := replace(f.path+pendingSuffix, armored); err != nil {
		return err
	}
	if err := replace(f.path, data); err != nil {
		return err
	}
	if err := os.Rename(f.path+pendingSuffix, f.path+sigSuffix); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.path))
}

// Read reads a receipt from a file.
func Read(path string) (r Receipt, data []byte, err error) {
	if data, err = readFile(path); err != nil {
		return Receipt{}, nil, err
	}
	r, err = Decode(data)
	return r, data, err
}

// readFile is os.ReadFile for files that are not too large to be receipts.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read from
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, errors.New("it is too large to be a receipt")
	}
	return data, nil
}

// replace writes a file so that after a crash at any point its old or its new content is
// there; once it has returned, the new one.
func replace(path string, data []byte) error {
	name, err := temporary(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		_ = os.Remove(name)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// tempPrefix begins the names of the files that become path.
func tempPrefix(path string) string { return "." + filepath.Base(path) + ".tmp-" }

// temporary writes a new file beside path and gives its name.
func temporary(path string, data []byte) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path)+"*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(filePerm)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // which cannot, and need not, sync directories
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
