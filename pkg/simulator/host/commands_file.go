package host

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// fileCommand are the programs that work on files.
func fileCommand(name string) command {
	switch name {
	case "cat":
		return cmdCat
	case "tee":
		return cmdTee
	case "dd":
		return cmdDd
	case "mkdir":
		return cmdMkdir
	case "mkfifo":
		return cmdMkfifo
	case "rm":
		return cmdRm
	case "chmod":
		return cmdChmod
	case "chown":
		return cmdChown
	case "install":
		return cmdInstall
	case "cp":
		return cmdCp
	case "mv":
		return cmdMv
	case "ln":
		return cmdLn
	case "ls":
		return cmdLs
	case "touch":
		return cmdTouch
	case "mktemp":
		return cmdMktemp
	case "readlink":
		return cmdReadlink
	case "basename":
		return cmdBasename
	case "dirname":
		return func(c *call) int {
			for _, a := range c.args[1:] {
				c.printf("%s\n", path.Dir(a))
			}
			return 0
		}
	case "stat":
		return cmdStat
	case "cmp":
		return cmdCmp
	case "base64":
		return cmdBase64
	case "sha256sum":
		return cmdSha256sum
	case "tar":
		return cmdTar
	case "gzip":
		return cmdGzip
	}
	return nil
}

func cmdCat(c *call) int {
	files := c.args[1:]
	if len(files) == 0 {
		files = []string{"-"}
	}
	status := 0
	for _, f := range files {
		r := c.in
		if f != "-" {
			var err error
			if r, err = c.h.fs.reader(c.ctx, c.who(), c.path(f)); err != nil {
				status = c.fileError(f, err)
				continue
			}
		}
		if r == nil {
			continue
		}
		if _, err := io.Copy(c.out, r); err != nil {
			return 1
		}
	}
	return status
}

func cmdTee(c *call) int {
	flags, files := options(c.args[1:])
	b, err := c.stdin()
	if err != nil {
		return c.fail(1, "%v", err)
	}
	_, _ = c.out.Write(b)
	status := 0
	for _, f := range files {
		w, err := c.h.fs.writer(c.who(), c.path(f), has(flags, "-a"), !has(flags, "-a"), 0o666)
		if err == nil {
			_, err = w.Write(b)
		}
		if err != nil {
			status = c.fileError(f, err)
		}
	}
	return status
}

// size reads a number as dd has it: 1024k, 4M, 512.
func size(s string) (int64, bool) {
	mul := int64(1)
	for _, u := range []struct {
		suffix string
		mul    int64
	}{{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"k", 1 << 10}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}, {"b", 512}, {"c", 1}} {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			s, mul = n, u.mul
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || mul > 1 && n > 1<<62/mul {
		return 0, false
	}
	return n * mul, true
}

func (c *call) copy(w io.Writer, r io.Reader, length int64) (int64, error) {
	if length < 0 {
		return io.Copy(w, r)
	}
	n, err := io.CopyN(w, r, length)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func cmdMkdir(c *call) int {
	flags, dirs := options(c.args[1:], "-m")
	perm := fs.FileMode(0o777)
	if v, ok := octal(value(flags, "-m")); ok {
		perm = v
	}
	status := 0
	for _, d := range dirs {
		if err := c.makeDir(d, perm, has(flags, "-p")); err != nil {
			status = c.fail(1, "cannot create directory '%s': %s", d, errText(err))
		}
	}
	return status
}

func (c *call) makeDir(d string, perm fs.FileMode, parents bool) error {
	p := path.Clean(c.path(d))
	if parents {
		if i, err := c.h.fs.stat(p, true); err == nil {
			if i.IsDir() {
				return nil
			}
			return syscall.EEXIST
		}
		if up := path.Dir(p); up != p {
			if err := c.makeDir(up, 0o777, true); err != nil {
				return err
			}
		}
	}
	return c.h.fs.mkdir(c.who(), p, perm)
}

func cmdMkfifo(c *call) int {
	_, files := options(c.args[1:], "-m")
	for _, f := range files {
		if err := c.h.fs.create(c.who(), c.path(f), &node{mode: fs.ModeNamedPipe | 0o666&^c.umask, fifo: newFifo()}); err != nil {
			return c.fail(1, "cannot create fifo '%s': %s", f, errText(err))
		}
	}
	return 0
}

func cmdRm(c *call) int {
	flags, files := options(c.args[1:])
	status := 0
	for _, f := range files {
		err := c.h.fs.remove(c.who(), c.path(f), has(flags, "-r", "-R"))
		if errors.Is(err, syscall.ENOENT) && has(flags, "-f") {
			continue
		}
		if err != nil {
			status = c.fail(1, "cannot remove '%s': %s", f, errText(err))
		}
	}
	return status
}

// chmodFunc reads an octal mode or a simple symbolic one (u+x, go-rwx, +x).
func chmodFunc(s string) (func(*node), bool) {
	if v, ok := octal(s); ok {
		return func(n *node) { n.mode = n.mode&^0o777 | v&0o777 }, true
	}
	i := strings.IndexAny(s, "+-=")
	if i < 0 {
		return nil, false
	}
	classes, op, perms := s[:i], s[i], s[i+1:]
	if classes == "" || strings.Contains(classes, "a") {
		classes = "ugo"
	}
	var bits fs.FileMode
	for _, p := range perms {
		k := strings.IndexRune("xwr", p)
		if k < 0 {
			return nil, false
		}
		for _, cl := range classes {
			bits |= 1 << k << (3 * max(strings.IndexRune("ogu", cl), 0))
		}
	}
	return func(n *node) {
		switch op {
		case '+':
			n.mode |= bits
		case '-':
			n.mode &^= bits
		case '=':
			n.mode = n.mode&^0o777 | bits
		}
	}, true
}

func cmdChmod(c *call) int {
	args := c.args[1:]
	recursive := len(args) > 0 && args[0] == "-R"
	if recursive {
		args = args[1:]
	}
	if len(args) < 2 {
		return c.fail(1, "missing operand")
	}
	do, ok := chmodFunc(args[0])
	if !ok {
		return c.fail(1, "invalid mode: '%s'", args[0])
	}
	return c.changeAll(args[1:], recursive, do)
}

func cmdChown(c *call) int {
	flags, args := options(c.args[1:])
	if len(args) < 2 {
		return c.fail(1, "missing operand")
	}
	uid, gid, err := c.owner(args[0])
	if err != nil {
		return c.fail(1, "%v", err)
	}
	return c.changeAll(args[1:], has(flags, "-R"), func(n *node) {
		if uid >= 0 {
			n.uid = uid
		}
		if gid >= 0 {
			n.gid = gid
		}
	})
}

func (c *call) changeAll(files []string, recursive bool, do func(*node)) int {
	status := 0
	for _, f := range files {
		paths := []string{c.path(f)}
		if recursive {
			c.h.fs.mu.Lock()
			if q, err := c.h.fs.resolve(paths[0], true); err == nil {
				paths = c.h.fs.tree(q)
			}
			c.h.fs.mu.Unlock()
		}
		for _, p := range paths {
			if err := c.h.fs.change(c.who(), p, do); err != nil {
				status = c.fail(1, "cannot access '%s': %s", f, errText(err))
			}
		}
	}
	return status
}

// owner reads user[:group]; what is not given is -1.
func (c *call) owner(s string) (uid, gid int, err error) {
	number := func(s string, id func(string) (int, bool)) (int, bool) {
		if s == "" {
			return -1, true
		}
		if n, err := strconv.Atoi(s); err == nil {
			return n, true
		}
		return id(s)
	}
	u, g, _ := strings.Cut(s, ":")
	var ok bool
	if uid, ok = number(u, func(n string) (int, bool) { x, ok := c.h.lookupUser(n); return x.uid, ok }); !ok {
		return 0, 0, fmt.Errorf("invalid user: '%s'", s)
	}
	if gid, ok = number(g, c.h.groupID); !ok {
		return 0, 0, fmt.Errorf("invalid group: '%s'", s)
	}
	return uid, gid, nil
}

func cmdInstall(c *call) int {
	flags, args := options(c.args[1:], "-m", "-o", "-g")
	mode := fs.FileMode(0o755)
	if v, ok := octal(value(flags, "-m")); ok {
		mode = v
	}
	uid, gid, err := c.owner(value(flags, "-o") + ":" + value(flags, "-g"))
	if err != nil {
		return c.fail(1, "%v", err)
	}
	finish := func(p string) error {
		return c.h.fs.change(c.who(), c.path(p), func(n *node) {
			n.mode = n.mode&^0o777 | mode&0o777
			if uid >= 0 {
				n.uid = uid
			}
			if gid >= 0 {
				n.gid = gid
			}
		})
	}
	if has(flags, "-d") {
		for _, d := range args {
			if err := errors.Join(c.makeDir(d, mode, true), finish(d)); err != nil {
				return c.fail(1, "cannot create directory '%s': %s", d, errText(err))
			}
		}
		return 0
	}
	if len(args) != 2 {
		return c.fail(1, "missing file operand")
	}
	if has(flags, "-D") {
		if err := c.makeDir(path.Dir(c.path(args[1])), 0o755, true); err != nil {
			return c.fail(1, "cannot create directory '%s': %s", path.Dir(args[1]), errText(err))
		}
	}
	dst, err := c.copyFile(args[0], args[1])
	if err == nil {
		err = finish(dst)
	}
	if err != nil {
		return c.fail(1, "cannot create regular file '%s': %s", args[1], errText(err))
	}
	return 0
}

// copyFile copies one file to a path or into a directory and returns where it is.
func (c *call) copyFile(from, to string) (string, error) {
	b, err := c.read(from)
	if err != nil {
		return "", err
	}
	if i, err := c.h.fs.stat(c.path(to), true); err == nil && i.IsDir() {
		to = path.Join(to, path.Base(from))
	}
	i, err := c.h.fs.stat(c.path(from), true)
	if err != nil {
		return "", err
	}
	return to, c.write(to, b, i.Mode().Perm())
}

func cmdCp(c *call) int {
	flags, args := options(c.args[1:])
	if len(args) < 2 {
		return c.fail(1, "missing file operand")
	}
	to := args[len(args)-1]
	status := 0
	for _, from := range args[:len(args)-1] {
		if i, err := c.h.fs.stat(c.path(from), true); err == nil && i.IsDir() {
			if !has(flags, "-r", "-R", "-a") {
				status = c.fail(1, "-r not specified; omitting directory '%s'", from)
			} else if err := c.copyTree(from, to); err != nil {
				status = c.fileError(from, err)
			}
			continue
		}
		if _, err := c.copyFile(from, to); err != nil {
			status = c.fileError(from, err)
		}
	}
	return status
}

func (c *call) copyTree(from, to string) error {
	src := path.Clean(c.path(from))
	dst := path.Clean(c.path(to))
	if c.h.fs.exists(dst) && path.Base(from) != "." {
		dst = path.Join(dst, path.Base(src))
	}
	c.h.fs.mu.Lock()
	defer c.h.fs.mu.Unlock()
	for _, p := range c.h.fs.tree(src) {
		n := *c.h.fs.nodes[p]
		n.data = bytes.Clone(n.data)
		q := dst + p[len(src):]
		if err := c.h.fs.mayChange(c.who(), q); err != nil {
			return err
		}
		c.h.fs.nodes[q] = &n
	}
	return nil
}

func cmdMv(c *call) int {
	_, args := options(c.args[1:])
	if len(args) < 2 {
		return c.fail(1, "missing file operand")
	}
	for _, from := range args[:len(args)-1] {
		to := c.path(args[len(args)-1])
		if i, err := c.h.fs.stat(to, true); err == nil && i.IsDir() {
			to = path.Join(to, path.Base(from))
		}
		if err := c.h.fs.rename(c.who(), c.path(from), to); err != nil {
			return c.fail(1, "cannot move '%s': %s", from, errText(err))
		}
	}
	return 0
}

func cmdLn(c *call) int {
	flags, args := options(c.args[1:])
	if len(args) != 2 || !has(flags, "-s") {
		return c.fail(1, "only symbolic links: ln -s TARGET LINK")
	}
	if has(flags, "-f") {
		_ = c.h.fs.remove(c.who(), c.path(args[1]), false)
	}
	if err := c.h.fs.create(c.who(), c.path(args[1]), &node{mode: fs.ModeSymlink | 0o777, data: []byte(args[0])}); err != nil {
		return c.fail(1, "failed to create symbolic link '%s': %s", args[1], errText(err))
	}
	return 0
}

func cmdLs(c *call) int {
	flags, files := options(c.args[1:])
	if len(files) == 0 {
		files = []string{"."}
	}
	show := func(i fs.FileInfo, name string) {
		if has(flags, "-l") {
			c.printf("%s 1 %d %s %s\n", i.Mode(), i.Size(), i.ModTime().UTC().Format(time.DateTime), name)
		} else {
			c.printf("%s\n", name)
		}
	}
	status := 0
	for _, f := range files {
		i, err := c.h.fs.stat(c.path(f), true)
		if err != nil {
			status = c.fail(2, "cannot access '%s': %s", f, errText(err))
			continue
		}
		if !i.IsDir() || has(flags, "-d") {
			show(i, f)
			continue
		}
		entries, err := c.h.fs.readDir(c.who(), c.path(f))
		if err != nil {
			status = c.fail(2, "cannot open directory '%s': %s", f, errText(err))
			continue
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") && !has(flags, "-a", "-A") {
				continue
			}
			if i, err := e.Info(); err == nil {
				show(i, e.Name())
			}
		}
	}
	return status
}

func cmdTouch(c *call) int {
	_, files := options(c.args[1:])
	for _, f := range files {
		w, err := c.h.fs.writer(c.who(), c.path(f), true, false, 0o666)
		if err != nil {
			return c.fail(1, "cannot touch '%s': %s", f, errText(err))
		}
		_, _ = w.Write(nil)
	}
	return 0
}

func cmdMktemp(c *call) int {
	flags, args := options(c.args[1:], "-p")
	dir := "/tmp"
	if has(flags, "-p") {
		dir = value(flags, "-p")
	}
	template := "tmp.XXXXXXXXXX"
	if len(args) > 0 {
		template = args[0]
		if strings.Contains(template, "/") {
			dir = ""
		}
	}
	c.h.mu.Lock()
	unique := fmt.Sprintf("%010x", c.h.random.Uint64())
	c.h.mu.Unlock()
	x := len(template) - len(strings.TrimRight(template, "X"))
	if x < 3 {
		return c.fail(1, "too few X's in template '%s'", template)
	}
	p := path.Join(dir, template[:len(template)-x]+unique[:min(x, len(unique))])
	var err error
	if has(flags, "-d") {
		err = c.h.fs.mkdir(c.who(), c.path(p), 0o700)
	} else {
		err = c.h.fs.create(c.who(), c.path(p), &node{mode: 0o600})
	}
	if err != nil {
		return c.fail(1, "failed to create '%s': %s", p, errText(err))
	}
	c.printf("%s\n", p)
	return 0
}

func cmdReadlink(c *call) int {
	flags, files := options(c.args[1:])
	status := 0
	for _, f := range files {
		if target, ok := c.link(f, has(flags, "-f", "-e", "-m")); ok {
			c.printf("%s\n", target)
		} else {
			status = 1
		}
	}
	return status
}

// link is where a symbolic link points: its text, or the path at its very end.
func (c *call) link(name string, canonical bool) (string, bool) {
	c.h.fs.mu.Lock()
	defer c.h.fs.mu.Unlock()
	if canonical {
		q, err := c.h.fs.resolve(c.path(name), true)
		return q, err == nil
	}
	n, _, err := c.h.fs.get(c.path(name), false)
	if err != nil || n.mode&fs.ModeSymlink == 0 {
		return "", false
	}
	return string(n.data), true
}

func cmdBasename(c *call) int {
	if len(c.args) < 2 {
		return c.fail(1, "missing operand")
	}
	name := path.Base(c.args[1])
	if len(c.args) > 2 && name != c.args[2] {
		name = strings.TrimSuffix(name, c.args[2])
	}
	c.printf("%s\n", name)
	return 0
}

func cmdStat(c *call) int {
	flags, files := options(c.args[1:], "-c", "--format")
	for _, f := range files {
		i, err := c.h.fs.stat(c.path(f), has(flags, "-L"))
		if err != nil {
			return c.fail(1, "cannot statx '%s': %s", f, errText(err))
		}
		format := value(flags, "-c", "--format")
		if format == "" {
			format = "  File: %n\n  Size: %s"
		}
		c.printf("%s\n", strings.NewReplacer(
			"%n", f, "%s", fmt.Sprint(i.size), "%a", fmt.Sprintf("%o", i.mode.Perm()),
			"%u", fmt.Sprint(i.uid), "%g", fmt.Sprint(i.gid), "%U", c.h.userByID(i.uid).name, "%G", c.h.groupName(i.gid),
		).Replace(format))
	}
	return 0
}

func cmdCmp(c *call) int {
	_, files := options(c.args[1:])
	if len(files) != 2 {
		return c.fail(2, "missing operand")
	}
	a, err := c.read(files[0])
	b, err2 := c.read(files[1])
	if err != nil || err2 != nil {
		return 2
	}
	if !bytes.Equal(a, b) {
		return 1
	}
	return 0
}

func cmdBase64(c *call) int {
	flags, files := options(c.args[1:], "-w")
	b, status := c.input(files)
	if has(flags, "-d", "--decode") {
		out := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
		n, err := base64.StdEncoding.Decode(out, bytes.Join(bytes.Fields(b), nil))
		_, _ = c.out.Write(out[:n])
		if err != nil {
			return c.fail(1, "invalid input")
		}
		return status
	}
	s := base64.StdEncoding.EncodeToString(b)
	width := 76
	if v, err := strconv.Atoi(value(flags, "-w")); err == nil {
		width = v
	}
	for width > 0 && len(s) > width {
		c.printf("%s\n", s[:width])
		s = s[width:]
	}
	if width > 0 && s != "" {
		s += "\n"
	}
	c.printf("%s", s)
	return status
}

func cmdSha256sum(c *call) int {
	_, files := options(c.args[1:])
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, f := range files {
		r := c.in
		if f != "-" {
			var err error
			if r, err = c.h.fs.reader(c.ctx, c.who(), c.path(f)); err != nil {
				return c.fileError(f, err)
			}
		}
		sum := sha256.New()
		if r != nil {
			if _, err := io.Copy(sum, r); err != nil {
				return c.fail(1, "%s: %s", f, errText(err))
			}
		}
		c.printf("%x  %s\n", sum.Sum(nil), f)
	}
	return 0
}

func cmdGzip(c *call) int {
	flags, files := options(c.args[1:])
	if !has(flags, "-c") && len(files) > 0 {
		return c.fail(1, "only as a filter")
	}
	b, status := c.input(files)
	if status != 0 {
		return status
	}
	if !has(flags, "-d") {
		w := gzip.NewWriter(c.out)
		_, _ = w.Write(b)
		_ = w.Close()
		return 0
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return c.fail(1, "stdin: not in gzip format")
	}
	if _, err := io.Copy(c.out, io.LimitReader(r, maxFile)); err != nil {
		return c.fail(1, "stdin: %v", err)
	}
	return 0
}

func cmdTar(c *call) int {
	args := c.args[1:]
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		args = append([]string{"-" + args[0]}, args[1:]...)
	}
	flags, _ := options(args, "-f", "-C", "--directory", "--file")
	if !has(flags, "-x") && !has(flags, "-t") {
		return c.fail(2, "only extracting and listing")
	}
	var files []string
	if f := value(flags, "-f", "--file"); f != "" {
		files = []string{f}
	}
	b, status := c.input(files)
	if status != 0 {
		return 2
	}
	var r io.Reader = bytes.NewReader(b)
	if len(b) > 2 && b[0] == 0x1f && b[1] == 0x8b {
		z, err := gzip.NewReader(r)
		if err != nil {
			return c.fail(2, "%v", err)
		}
		r = io.LimitReader(z, maxFile)
	}
	dir := value(flags, "-C", "--directory")
	t := tar.NewReader(r)
	for {
		hd, err := t.Next()
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err != nil {
			return c.fail(2, "Unexpected EOF in archive")
		}
		if has(flags, "-t") {
			c.printf("%s\n", hd.Name)
			continue
		}
		if err := c.extract(t, hd, path.Join(dir, hd.Name)); err != nil { //nolint:gosec // the files are virtual
			return c.fail(2, "%s: Cannot open: %s", hd.Name, errText(err))
		}
	}
}

// extract puts one entry of an archive there, with owner and mode if root does it.
func (c *call) extract(t io.Reader, hd *tar.Header, name string) error {
	mode := fs.FileMode(hd.Mode) & 0o777
	if hd.Typeflag == tar.TypeDir {
		return c.makeDir(name, mode, true)
	}
	b, err := io.ReadAll(t)
	if err != nil {
		return err
	}
	if err := c.makeDir(path.Dir(c.path(name)), 0o777, true); err != nil {
		return err
	}
	_ = c.h.fs.remove(c.who(), c.path(name), false)
	if err := c.write(name, b, 0o600); err != nil {
		return err
	}
	uid, gid := hd.Uid, hd.Gid
	if u, ok := c.h.lookupUser(hd.Uname); ok {
		uid = u.uid
	}
	if g, ok := c.h.groupID(hd.Gname); ok {
		gid = g
	}
	return c.h.fs.change(c.who(), c.path(name), func(n *node) {
		n.mode = n.mode&^0o777 | mode
		if c.root() {
			n.uid, n.gid = uid, gid
		}
	})
}
