package kubeconfig

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// file is one kubeconfig file.
type file struct {
	path    string
	config  *api.Config
	exists  bool
	changed bool
}

func load(paths []string) ([]*file, error) {
	var files []*file
	for _, path := range paths {
		f := &file{path: path}
		config, err := clientcmd.LoadFromFile(path)
		switch {
		case err == nil:
			f.config, f.exists = config, true
		case errors.Is(err, fs.ErrNotExist):
			f.config = api.NewConfig()
		default:
			return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
		}
		files = append(files, f)
	}
	return files, nil
}

// Files hold keys: what is made here is for its owner alone.
const (
	fileMode = 0o600
	dirMode  = 0o700
)

// write replaces the file at once, or not at all: a person has one kubeconfig. A
// file that is there keeps its mode, and a symbolic link stays one.
func (f *file) write() error {
	data, err := clientcmd.Write(*f.config)
	if err != nil {
		return err
	}
	path, mode := f.path, fs.FileMode(fileMode)
	if f.exists {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		mode = info.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// How long another program, kubectl for instance, may take to write its changes.
const (
	lockLimit = 5 * time.Second
	lockPause = 50 * time.Millisecond
)

// lock keeps kubectl and others that use client-go from changing the files at the
// same time: they make FILE.lock first and fail when it is there.
func lock(ctx context.Context, paths []string) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockLimit)
	defer cancel()
	var held []string
	unlock = func() {
		for _, path := range held {
			_ = os.Remove(path) // else the next program names it
		}
	}
	for _, path := range slices.Sorted(slices.Values(paths)) { // in the order of everybody
		if err := lockOne(ctx, path+".lock"); err != nil {
			unlock()
			return nil, err
		}
		held = append(held, path+".lock")
	}
	return unlock, nil
}

func lockOne(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			return f.Close()
		}
		if !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("kubeconfig: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("kubeconfig: %s is there: another program writes, or ended while it did; remove it if none does", path)
			}
			return fmt.Errorf("kubeconfig: wait for %s: %w", path, ctx.Err())
		}
	}
}
