// Package state knows where objects come from and where results go: Files reads
// the objects that the user gives, a Store keeps objects and records between
// runs. It decides nothing about them: what is in a document is the business of
// pkg/capi.
package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// Limits on what Files reads. Real inputs are far below.
const (
	MaxFileSize  = 16 << 20 // bytes of one file, URL or standard input
	MaxInputSize = 64 << 20 // bytes of all together
	MaxFiles     = 10_000   // files: a thousand machines may have several each
)

// stdinName is standard input, as a path and in messages.
const stdinName = "-"

// FileOptions say what to read.
type FileOptions struct {
	// Paths are files, directories, http and https URLs, or "-" for Stdin. In a
	// directory *.yaml, *.yml and *.json are read in sorted order; names that start
	// with a dot are left out.
	Paths []string
	// Recursive reads the directories below a directory, too.
	Recursive bool
	// Kustomize is a directory with a kustomization file to build. It excludes Paths.
	Kustomize string
	// Stdin is standard input, for the path "-".
	Stdin io.Reader
	// HTTPClient fetches URLs; nil means a client with default settings.
	HTTPClient *http.Client
}

// Files reads documents from files, directories, URLs, standard input or a
// kustomization. The error is a *capi.InputError that names everything that could
// not be read, or the context's error.
func Files(ctx context.Context, opts FileOptions) ([]capi.Document, error) {
	r := &reader{opts: opts, seen: map[string]bool{}}
	switch {
	case opts.Kustomize != "" && len(opts.Paths) > 0:
		r.fail(commandLine, "give either -f or -k, not both")
		opts.Paths = nil
	case opts.Kustomize != "":
		r.kustomize(opts.Kustomize)
	case len(opts.Paths) == 0:
		r.fail(commandLine, "nothing to read: give -f FILE (or directory, URL, - for standard input) or -k DIRECTORY")
	}
	for _, path := range opts.Paths {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if err := r.path(ctx, path); err != nil {
			return nil, err
		}
	}
	if len(r.problems) > 0 {
		return nil, &capi.InputError{Problems: r.problems}
	}
	return r.docs, nil
}

// commandLine stands where a file name would, for problems of the arguments.
const commandLine = "command line"

// reader collects documents and what could not be read.
type reader struct {
	opts     FileOptions
	docs     []capi.Document
	problems []capi.Problem
	seen     map[string]bool // what was read already, by absolute path
	files    int
	bytes    int64
}

func (r *reader) fail(file, format string, args ...any) {
	r.failAt(capi.Origin{File: file}, format, args...)
}

func (r *reader) failAt(origin capi.Origin, format string, args ...any) {
	r.problems = append(r.problems, capi.Problem{Origin: origin, Message: fmt.Sprintf(format, args...)})
}

// path reads what one -f names. Its error is the context's; the rest are problems.
func (r *reader) path(ctx context.Context, path string) error {
	switch {
	case path == "":
		r.fail(commandLine, "-f needs the name of a file or directory, a URL, or - for standard input")
		return nil
	case path == stdinName:
		return r.stdin(ctx)
	case isURL(path):
		return r.url(ctx, path)
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.fail(path, "no such file or directory")
	case err != nil:
		r.fail(path, "%v", cause(err))
	case info.IsDir():
		r.directory(path)
	default:
		r.file(path)
	}
	return nil
}

// cause is the error without the operation and path that package os puts in
// front: the problem names the file already.
func cause(err error) error {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// file reads a file of any name.
func (r *reader) file(path string) {
	if r.again(path) {
		return
	}
	f, err := os.Open(path)
	if err != nil {
		r.fail(path, "%v", cause(err))
		return
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if data, ok := r.content(path, f); ok {
		r.split(path, data)
	}
}

// again reports whether a path was read already, and remembers it: -f DIR -f
// DIR/FILE gives each object once.
func (r *reader) again(path string) bool {
	abs, err := filepath.Abs(path)
	if err != nil {
		abs = path
	}
	if r.seen[abs] {
		return true
	}
	r.seen[abs] = true
	return false
}

// content reads within the limits.
func (r *reader) content(name string, from io.Reader) ([]byte, bool) {
	r.files++
	if r.files == MaxFiles+1 {
		r.fail(name, "more than %d files: give them in smaller groups", MaxFiles)
	}
	if r.files > MaxFiles || r.bytes > MaxInputSize {
		return nil, false
	}
	data, err := io.ReadAll(io.LimitReader(from, MaxFileSize+1))
	switch {
	case err != nil:
		r.fail(name, "%v", cause(err))
		return nil, false
	case len(data) > MaxFileSize:
		r.fail(name, "larger than %d MiB: not a file of Cluster API objects", MaxFileSize>>20)
		return nil, false
	}
	if r.bytes += int64(len(data)); r.bytes > MaxInputSize {
		r.fail(name, "more than %d MiB of input: give it in smaller groups", MaxInputSize>>20)
		return nil, false
	}
	return data, true
}

// directory reads the YAML and JSON files of a directory.
func (r *reader) directory(dir string) {
	var files []string
	below := false // a directory in it has such files, which only -R reads
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		// How deep path is: 0 for dir itself, 1 for what is in it.
		depth := 0
		if path != dir {
			rel, _ := filepath.Rel(dir, path) // path starts with dir, so there is no error
			depth = 1 + strings.Count(rel, string(filepath.Separator))
		}
		switch {
		case err != nil:
			r.fail(path, "%v", cause(err))
		case depth == 0:
		case e.IsDir() && (strings.HasPrefix(e.Name(), ".") || (!r.opts.Recursive && (depth > 1 || below))):
			return fs.SkipDir
		case e.IsDir() || !isManifest(path):
		case depth > 1 && !r.opts.Recursive:
			below = true
		default:
			// A link to a directory could lead round in circles.
			if info, err := os.Stat(path); err != nil || !info.IsDir() {
				files = append(files, path)
			}
		}
		return nil
	})
	switch {
	case err != nil:
		r.fail(dir, "%v", cause(err))
	case len(files) == 0 && below:
		r.fail(dir, "no *.yaml, *.yml or *.json file in this directory, but there are some below it: add -R")
	case len(files) == 0:
		r.fail(dir, "no *.yaml, *.yml or *.json file in this directory")
	}
	slices.Sort(files)
	for _, f := range files {
		if isKustomization(f) {
			r.fail(f, "this directory is a kustomization: read it with -k %s", filepath.Dir(f))
			continue
		}
		r.file(f)
	}
}

// isManifest reports whether a file in a directory is read.
func isManifest(path string) bool {
	switch filepath.Ext(path) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(filepath.Base(path), ".")
	}
	return false
}

// stdin reads standard input. The read itself cannot be interrupted, so it is
// left behind when ctx ends; the program is about to end then.
func (r *reader) stdin(ctx context.Context) error {
	if r.seen[stdinName] {
		r.fail(stdinName, "standard input can be read only once")
		return nil
	}
	r.seen[stdinName] = true
	in := r.opts.Stdin
	if in == nil {
		r.fail(stdinName, "there is no standard input")
		return nil
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := io.ReadAll(io.LimitReader(in, MaxFileSize+1))
		done <- result{data, err}
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("read standard input: %w", ctx.Err())
	case res := <-done:
		if res.err != nil {
			r.fail(stdinName, "%v", cause(res.err))
		} else if data, ok := r.content(stdinName, bytes.NewReader(res.data)); ok {
			r.split(stdinName, data)
		}
		return nil
	}
}
