package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
)

// call is one run of an external command.
type call struct {
	ctx   context.Context //nolint:containedctx // a call is one run, and lives as long
	h     *Host
	ses   *session
	user  user
	shell *shell // that called
	args  []string
	dir   string
	umask fs.FileMode
	in    io.Reader // may be nil
	out   io.Writer
	err   io.Writer
	vars  expand.Environ    // of the calling shell
	env   map[string]string // exported; filled on demand from vars
}

// command is an external command as a Go function; it returns the exit status.
type command func(c *call) int

// run finds and runs what args name.
func (c *call) run() int {
	name := c.args[0]
	if f := internalCommands(name); f != nil {
		return f(c)
	}
	c.h.record(c.args)
	c.h.note(c.args...)
	file, err := c.look(name)
	if err != nil {
		if strings.Contains(name, "/") {
			c.errf("bash: line 1: %s: %s", name, errText(err))
			if errors.Is(err, syscall.EACCES) {
				return 126
			}
			return 127
		}
		c.h.recordUnknown(name)
		c.errf("bash: line 1: %s: command not found", name)
		return 127
	}
	b, err := c.h.fs.readFile(c.who(), file)
	if err != nil {
		c.errf("bash: line 1: %s: %s", name, errText(err))
		return 126
	}
	if prog, ok := strings.CutPrefix(string(b), binaryMagic); ok {
		if status, wrong := c.sabotaged(); wrong {
			return status
		}
		prog, _, _ = strings.Cut(prog, " ") // a version may follow
		return commandNamed(prog)(c)
	}
	return c.subshell(string(b), file, c.args[1:], nil)
}

// binaryMagic begins the files of programs that are Go functions.
const binaryMagic = "\x7fELF virtual "

// look finds a program as execvp does, in the virtual file system.
func (c *call) look(name string) (string, error) {
	if strings.Contains(name, "/") {
		p := c.path(name)
		i, err := c.h.fs.stat(p, true)
		if err == nil && i.IsDir() {
			err = syscall.EISDIR
		}
		if err == nil {
			err = c.h.fs.access(c.who(), p, 1)
		}
		return p, err
	}
	for _, dir := range strings.Split(c.getenv("PATH"), ":") {
		p := path.Join(c.path(dir), name)
		i, err := c.h.fs.stat(p, true)
		if err == nil && !i.IsDir() && c.h.fs.access(c.who(), p, 1) == nil {
			return p, nil
		}
	}
	return "", syscall.ENOENT
}

// with is a call of another command in the place of this one.
func (c *call) with(args []string) *call {
	d := *c
	d.args = args
	return &d
}

// subshell runs a script in a new shell process with this call's input and output.
func (c *call) subshell(script, name string, params, options []string) int {
	s := &shell{
		h: c.h, ses: c.ses, user: c.user, env: c.exported(), dir: c.dir, umask: c.umask,
		name: name, params: params, options: options, in: c.in, out: c.out, err: c.err,
	}
	status, err := s.run(c.ctx, script)
	if err != nil {
		return 255 // the caller sees the ended context
	}
	return status
}

func (c *call) exported() map[string]string {
	if c.env == nil {
		c.env = map[string]string{}
		if c.vars != nil {
			c.vars.Each(func(name string, v expand.Variable) bool {
				if v.Exported && v.IsSet() {
					c.env[name] = v.String()
				} else {
					delete(c.env, name)
				}
				return true
			})
		}
	}
	return c.env
}

// getenv is an exported variable, or, for PATH, the shell's own.
func (c *call) getenv(name string) string {
	if c.env != nil {
		return c.env[name]
	}
	if c.vars == nil {
		return ""
	}
	return c.vars.Get(name).String()
}

func (c *call) who() who             { return who{c.user.uid, c.user.gid, c.umask} }
func (c *call) path(p string) string { return abs(c.dir, p) }
func (c *call) root() bool           { return c.user.uid == 0 }

func (c *call) printf(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format, args...) }

func (c *call) errf(format string, args ...any) { _, _ = fmt.Fprintf(c.err, format+"\n", args...) }

// fail prints an error as programs do, with their name, and returns the status.
func (c *call) fail(status int, format string, args ...any) int {
	c.errf("%s: %s", path.Base(c.args[0]), fmt.Sprintf(format, args...))
	return status
}

// fileError is the usual complaint about a file.
func (c *call) fileError(p string, err error) int {
	return c.fail(1, "%s: %s", p, errText(err))
}

// errText spells an error as the C library does.
func errText(err error) string {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return err.Error()
	}
	s := e.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

// stdin reads all of the standard input.
func (c *call) stdin() ([]byte, error) {
	if c.in == nil {
		return nil, nil
	}
	return io.ReadAll(io.LimitReader(c.in, maxFile))
}

// input reads the named files one after the other, or standard input when there
// are none or one is "-". Failures are reported, and the rest goes on.
func (c *call) input(files []string) (data []byte, status int) {
	if len(files) == 0 {
		files = []string{"-"}
	}
	for _, f := range files {
		var b []byte
		var err error
		if f == "-" {
			b, err = c.stdin()
		} else {
			b, err = c.read(f)
		}
		if err != nil {
			status = c.fileError(f, err)
			continue
		}
		data = append(data, b...)
	}
	return data, status
}

// read reads a file of the host, a device to its end.
func (c *call) read(name string) ([]byte, error) {
	r, err := c.h.fs.reader(c.ctx, c.who(), c.path(name))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxFile))
}

// write replaces a file of the host.
func (c *call) write(name string, data []byte, perm fs.FileMode) error {
	w, err := c.h.fs.writer(c.who(), c.path(name), false, true, perm)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// spend lets time pass. A command in front of a pipe only notes what it owes, and
// the session pays before its next command or at its end: the commands behind the
// pipe wait in a real read(2), which would stop a test's virtual clock.
func (c *call) spend(d time.Duration) bool {
	if _, piped := c.out.(*os.File); piped {
		c.ses.owe(d)
		return true
	}
	return sleep(c.ctx, d+c.ses.due())
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// options splits arguments into flags and operands, as getopt does. withValue are
// the short flags that take a value (as letters) and the long ones (as words).
// Flags come as "-x", "-x value" pairs or "--long"; an unknown flag is returned as it is.
func options(args []string, withValue ...string) (flags map[string][]string, rest []string) {
	flags = map[string][]string{}
	takes := func(f string) bool { return slices.Contains(withValue, f) }
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return flags, append(rest, args[i+1:]...)
		case strings.HasPrefix(a, "--"):
			name, value, has := strings.Cut(a, "=")
			if !has && takes(name) && i+1 < len(args) {
				i++
				value = args[i]
			}
			flags[name] = append(flags[name], value)
		case len(a) > 1 && a[0] == '-':
			for j := 1; j < len(a); j++ {
				f := "-" + a[j:j+1]
				if !takes(f) {
					flags[f] = append(flags[f], "")
					continue
				}
				value := a[j+1:]
				if value == "" && i+1 < len(args) {
					i++
					value = args[i]
				}
				flags[f] = append(flags[f], value)
				break
			}
		default:
			rest = append(rest, a)
		}
	}
	return flags, rest
}

func has(flags map[string][]string, names ...string) bool {
	for _, n := range names {
		if len(flags[n]) > 0 {
			return true
		}
	}
	return false
}

func value(flags map[string][]string, names ...string) string {
	for _, n := range names {
		if v := flags[n]; len(v) > 0 {
			return v[len(v)-1]
		}
	}
	return ""
}

// internalCommands are the names that parse and onCall put in place of builtins.
func internalCommands(name string) command {
	switch name {
	case "__command":
		return cmdWhich
	case "__type":
		return cmdType
	case "__kill", "__ulimit":
		// Background jobs end with their shell; there is nothing else to signal.
		return func(*call) int { return 0 }
	case "__umask":
		return cmdUmask
	case "__fd_open":
		return cmdOpenFD
	case "__fd_read":
		return cmdReadFD
	case "__detach":
		return func(c *call) int {
			if len(c.args) < 2 || c.args[1] != "setsid" {
				return 1
			}
			return c.with(c.args[1:]).run()
		}
	}
	return nil
}

// cmdWhich is `command -v NAME...`.
func cmdWhich(c *call) int {
	status := 0
	for _, name := range c.args[1:] {
		if name == "-v" || name == "-V" {
			continue
		}
		if interp.IsBuiltin(name) {
			c.printf("%s\n", name)
		} else if p, err := c.look(name); err == nil {
			c.printf("%s\n", p)
		} else {
			status = 1
		}
	}
	return status
}

func cmdType(c *call) int {
	status := 0
	for _, name := range c.args[1:] {
		if strings.HasPrefix(name, "-") {
			continue
		}
		if interp.IsBuiltin(name) {
			c.printf("%s is a shell builtin\n", name)
		} else if p, err := c.look(name); err == nil {
			c.printf("%s is %s\n", name, p)
		} else {
			c.errf("bash: line 1: type: %s: not found", name)
			status = 1
		}
	}
	return status
}

func cmdUmask(c *call) int {
	if len(c.args) < 2 {
		c.printf("%04o\n", c.umask)
		return 0
	}
	v, ok := octal(c.args[1])
	if !ok {
		return c.fail(1, "%s: octal number out of range", c.args[1])
	}
	return c.builtin("eval", fmt.Sprintf("%s=%03o", varUmask, v))
}

// builtin runs a builtin in the calling shell.
func (c *call) builtin(args ...string) int {
	if err := interp.HandlerCtx(c.ctx).Builtin(c.ctx, args); err != nil {
		return 1
	}
	return 0
}

// cmdOpenFD is `exec N<>WORD ...`: it remembers names, and tries what can fail.
func cmdOpenFD(c *call) int {
	for a := c.args[1:]; len(a) >= 3; a = a[3:] {
		fd, op, name := a[0], a[1], a[2]
		if strings.HasSuffix(op, "&") { // N>&-
			if status := c.builtin("eval", varFD+fd+"="); status != 0 {
				return status
			}
			continue
		}
		flag := map[string]int{"<": os.O_RDONLY, ">": os.O_WRONLY | os.O_CREATE | os.O_TRUNC, ">>": os.O_WRONLY | os.O_CREATE | os.O_APPEND}[op]
		if strings.HasPrefix(name, "/dev/tcp/") || op != "<>" {
			f, err := c.shell.onOpen(c.ctx, name, flag, 0o666)
			if err != nil {
				c.errf("bash: line 1: %s: %s", name, errText(err))
				return 1
			}
			_ = f.Close()
		} else if !c.h.fs.exists(c.path(name)) {
			c.errf("bash: line 1: %s: No such file or directory", name)
			return 1
		}
		if status := c.builtin("eval", varFD+fd+"="+quote(c.path(name))); status != 0 {
			return status
		}
	}
	return 0
}

// cmdReadFD is `read [-r] NAME <&N` for a named pipe or file behind N. It waits
// where the interpreter's own read would wait in the real kernel.
func cmdReadFD(c *call) int {
	name := c.vars.Get(varFD + c.args[1]).String()
	variable := "REPLY"
	for _, a := range c.args[2:] {
		if !strings.HasPrefix(a, "-") {
			variable = a
		}
	}
	c.h.fs.mu.Lock()
	n, _, err := c.h.fs.get(name, true)
	c.h.fs.mu.Unlock()
	if err != nil {
		return c.fail(1, "%s: Bad file descriptor", c.args[1])
	}
	var line string
	if n.fifo != nil {
		line, err = n.fifo.line(c.ctx)
	} else {
		var b []byte
		b, err = c.read(name)
		line, _, _ = strings.Cut(string(b), "\n")
	}
	if err != nil {
		return 1
	}
	return c.builtin("eval", variable+"="+quote(line))
}

// quote makes s one word of shell text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func octal(s string) (fs.FileMode, bool) {
	var v fs.FileMode
	if s == "" || len(s) > 4 {
		return 0, false
	}
	for _, r := range s {
		if r < '0' || r > '7' {
			return 0, false
		}
		v = v<<3 | fs.FileMode(r-'0')
	}
	return v, true
}
