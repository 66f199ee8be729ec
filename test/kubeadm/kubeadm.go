// Package kubeadm asks the real kubeadm whether it reads what translate writes for it.
// The kubeadms are built by `make kube-tools` from tools/kubeadm; a test that misses
// one fails. Nothing is installed: they read a file and say what they think of it.
// Product code must not import it.
package kubeadm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// Kubeadm is a real kubeadm.
type Kubeadm struct {
	Minor int
	path  string
}

// For is the kubeadm that stands for a minor: the oldest one there is that reads the
// same configuration version and is not older, or else the newest.
func For(minor int) (Kubeadm, error) {
	k := Kubeadm{Minor: 37}
	for _, m := range []int{21, 30, 36} {
		if minor <= m {
			k.Minor = m
			break
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		return k, err
	}
	k.path = filepath.Join(root, ".cache", "kube", fmt.Sprintf("kubeadm-1.%d", k.Minor))
	if _, err := os.Stat(k.path); err != nil {
		return k, fmt.Errorf("%w; run: make kube-tools", err)
	}
	return k, nil
}

// Run runs it and gives what it printed.
func (k Kubeadm) Run(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out, bad bytes.Buffer
	c := exec.CommandContext(ctx, k.path, args...)             //nolint:gosec // a kubeadm of our own building
	c.Env = []string{"PATH=/nonexistent", "HOME=/nonexistent"} // it has no business with other programs
	c.Stdout, c.Stderr = &out, &bad
	err = c.Run()
	return out.String(), bad.String(), err
}

// versionLine is where a configuration names the version to install. A kubeadm takes its
// own and the one before, so each is asked about its own.
var versionLine = regexp.MustCompile(`(?m)^kubernetesVersion: .*$`)

// Validate is what kubeadm has against a configuration. It is as strict as kubeadm
// can be: a field that it does not know is an error.
func (k Kubeadm) Validate(ctx context.Context, dir, text string) error {
	text = versionLine.ReplaceAllString(text, fmt.Sprintf("kubernetesVersion: v1.%d.0", k.Minor))
	f, err := os.CreateTemp(dir, "kubeadm-*.yaml")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	args := []string{"config", "validate", "--config", f.Name()}
	if k.Minor < 26 { // it has no validate: migrate decodes, defaults and validates, and warns of what it does not know
		args = []string{"config", "migrate", "--old-config", f.Name(), "--new-config", f.Name() + ".new"}
	}
	_, stderr, err := k.Run(ctx, args...)
	if err != nil {
		return fmt.Errorf("kubeadm v1.%d: %w: %s", k.Minor, err, stderr)
	}
	if strings.Contains(stderr, "unmarshaling") || strings.Contains(stderr, "unknown") {
		return fmt.Errorf("kubeadm v1.%d: %s", k.Minor, stderr)
	}
	return nil
}

// Files are the files of a map's bundle, by their path on the machine.
func Files(m wire.Map) (map[string]string, error) {
	var raw []byte
	for _, a := range m.Deployments[0].Actions {
		text, ok := strings.CutPrefix(a.CommandPipeCmd, "printf %s ")
		if !ok {
			continue
		}
		chunk, err := base64.StdEncoding.DecodeString(strings.Trim(text, "'"))
		if err != nil {
			return nil, err
		}
		raw = append(raw, chunk...)
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		files["/"+h.Name] = string(b)
	}
}
