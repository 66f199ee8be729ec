package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// mirror serves package repositories in the layout of pkgs.k8s.io on 127.0.0.1.
type mirror struct {
	dir, url string
	server   *http.Server
}

func newMirror(ctx context.Context) (*mirror, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &mirror{dir: "/srv/packages", url: "http://" + l.Addr().String() + "/core:/stable:"}
	m.server = &http.Server{
		Handler:           http.StripPrefix("/core:/stable:", http.FileServer(http.Dir(m.dir))),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() { _ = m.server.Serve(l) }()
	return m, nil
}

func (m *mirror) close() { _ = m.server.Close() }

// publish makes the repository of one minor, with two patch releases, signed with a key
// of its own. It uses the host's gpg and dpkg-deb.
func (m *mirror) publish(ctx context.Context, minor int, versions ...string) error {
	dir := filepath.Join(m.dir, fmt.Sprintf("v1.%d", minor), "deb")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // apt reads it as another user
		return err
	}
	var index strings.Builder
	add := func(name, version string, files map[string]string) error {
		stanza, err := pack(ctx, dir, name, version, files)
		index.WriteString(stanza)
		return err
	}
	for _, v := range versions {
		kubeadm, err := os.ReadFile(fmt.Sprintf("%s/kubeadm-1.%d", folder, minor))
		if err != nil {
			return err
		}
		says := func(text string) string { return "#!/bin/sh\necho '" + text + "'\n" }
		if strings.HasSuffix(v, ".0") { // the real one is newer
			kubeadm = fmt.Appendf(nil, "#!/bin/sh\nif [ \"$1\" = version ]; then echo v%s; else exec %s/kubeadm-1.%d \"$@\"; fi\n", v, folder, minor)
		}
		for name, text := range map[string]string{"kubeadm": string(kubeadm), "kubelet": says("Kubernetes v" + v), "kubectl": says("Client Version: v" + v)} {
			if err := add(name, v+"-1.1", map[string]string{"/usr/bin/" + name: text}); err != nil {
				return err
			}
		}
	}
	for _, name := range []string{"kubernetes-cni", "cri-tools"} {
		if err := add(name, "1.4.0-1.1", map[string]string{"/opt/cni/bin/." + name: ""}); err != nil {
			return err
		}
	}
	return sign(ctx, dir, index.String())
}

// pack builds a package and gives its part of the index.
func pack(ctx context.Context, dir, name, version string, files map[string]string) (string, error) {
	tree, err := os.MkdirTemp("/tmp", "package")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tree) }()
	if err := os.Chmod(tree, 0o755); err != nil { //nolint:gosec // as a package must be
		return "", err
	}
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: test <test@example.com>\nDescription: test\n", name, version)
	files["/DEBIAN/control"] = control
	for path, text := range files {
		path = filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as a package must be
			return "", err
		}
		mode := os.FileMode(0o755)
		if strings.HasSuffix(path, "/control") {
			mode = 0o644
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			return "", err
		}
	}
	file := fmt.Sprintf("%s_%s_amd64.deb", name, version)
	if _, err := output(ctx, "dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, filepath.Join(dir, file)); err != nil {
		return "", err
	}
	raw, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%sFilename: ./%s\nSize: %d\nSHA256: %x\n\n", control, file, len(raw), sha256.Sum256(raw)), nil
}

// sign writes index, release and key as apt wants them.
func sign(ctx context.Context, dir, index string) error {
	home := filepath.Join("/srv", "gpg-"+filepath.Base(filepath.Dir(dir)))
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	gpg := func(args ...string) error {
		_, err := output(ctx, "gpg", append([]string{"--homedir", home, "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""}, args...)...)
		return err
	}
	sum := sha256.Sum256([]byte(index))
	release := fmt.Sprintf("Origin: test\nLabel: test\nSuite: stable\nArchitectures: amd64\nDate: %s\nSHA256:\n %x %d Packages\n",
		time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"), sum, len(index))
	for name, text := range map[string]string{"Packages": index, "Release": release} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // apt reads it as another user
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(home, "pubring.kbx")); err != nil {
		if err := gpg("--quick-generate-key", "test <test@example.com>", "rsa2048", "sign", "never"); err != nil {
			return err
		}
	}
	if err := gpg("--armor", "--output", filepath.Join(dir, "Release.key"), "--export"); err != nil {
		return err
	}
	return gpg("--clearsign", "--output", filepath.Join(dir, "InRelease"), filepath.Join(dir, "Release"))
}
