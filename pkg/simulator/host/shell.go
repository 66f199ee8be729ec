package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// session is what the processes of one SSH session share.
type session struct {
	mu      sync.Mutex
	running int           // external commands
	ended   bool          // no more may start
	idle    chan struct{} // closed when running is 0 after the end
	debt    time.Duration // see call.spend
	task    string        // Command.Task
}

func newSession(task string) *session { return &session{idle: make(chan struct{}), task: task} }

func (s *session) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.running++
	return true
}

func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running--; s.running == 0 && s.ended {
		close(s.idle)
	}
}

// end refuses new commands and waits for those that run; their context has ended.
func (s *session) end() {
	s.mu.Lock()
	if !s.ended {
		s.ended = true
		if s.running == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	<-s.idle
}

func (s *session) owe(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.debt += d
}

func (s *session) due() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.debt
	s.debt = 0
	return d
}

// shell is one shell process to be.
type shell struct {
	h       *Host
	ses     *session
	user    user
	env     map[string]string // exported variables
	dir     string
	umask   fs.FileMode
	name    string   // $0
	params  []string // $1...
	options []string // -e, -u, ...
	in      io.Reader
	out     io.Writer
	err     io.Writer

	mu    sync.Mutex
	locks []string // files that flock locked through a descriptor of this shell
}

// Variables that the shell keeps for us, so that subshells inherit and cannot
// change them as they would with the real thing.
const (
	varUmask = "__umask"
	varFD    = "__fd_" // + number: the path behind an extra file descriptor
	varPID   = "__pid"
	varLeft  = "__left_" // + number: see repairLoops
)

// privateTemp is where the interpreter would make real named pipes for <(...).
// Scripts that want those are refused; this is the second line of defence: the
// directory exists on no machine.
const privateTemp = "/nonexistent/capplunder-simulator"

// run interprets a script and returns its exit status. err is not nil only if the
// context ended.
func (s *shell) run(ctx context.Context, script string) (status int, err error) {
	file, err := s.h.world.parse(script, s.name)
	if err != nil {
		fmt.Fprintf(s.err, "%s: %v\n", path.Base(s.name), err)
		return 2, nil
	}
	// Background jobs end with the shell that started them; what is to outlive it
	// needs setsid.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer s.unlock()
	options := append(slices.Clone(s.options), "--")
	r, err := interp.New(
		interp.Dir("/"), // asked of the real system, which has one too; the virtual directory follows
		interp.Env(s.environ()),
		interp.StdIO(s.in, s.out, s.err),
		interp.CallHandler(s.onCall),
		interp.ExecHandlers(func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return s.onExec }),
		interp.OpenHandler(s.onOpen),
		interp.ReadDirHandler2(s.onReadDir),
		interp.StatHandler(s.onStat),
		interp.AccessHandler(s.onAccess),
		interp.Params(append(options, s.params...)...),
	)
	if err != nil {
		fmt.Fprintf(s.err, "%s: %v\n", path.Base(s.name), err)
		return 2, nil
	}
	r.Dir = s.dir
	err = r.Run(ctx, file)
	var exit interp.ExitStatus
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return int(exit), nil
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	}
	fmt.Fprintf(s.err, "%s: %v\n", path.Base(s.name), err)
	return 1, nil
}

// unlock gives back what the shell's descriptors held.
func (s *shell) unlock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.locks {
		<-s.h.fileLock(f)
	}
	s.locks = nil
}

// environ is the environment of a shell. It answers for every home directory, or
// else the interpreter would look into the user database of the real system.
func (s *shell) environ() expand.Environ {
	vars := maps.Clone(s.env)
	if vars == nil {
		vars = map[string]string{}
	}
	uid := strconv.Itoa(s.user.uid)
	return environ{h: s.h, vars: vars, hidden: map[string]string{
		varUmask: fmt.Sprintf("%03o", s.umask), varPID: strconv.Itoa(s.h.nextPID()),
		"TMPDIR": privateTemp, "UID": uid, "EUID": uid, "GID": strconv.Itoa(s.user.gid),
	}}
}

type environ struct {
	h            *Host
	vars, hidden map[string]string
}

// Get implements expand.Environ.
func (e environ) Get(name string) expand.Variable {
	if u, ok := strings.CutPrefix(name, "HOME "); ok {
		home := "~" + u
		if x, ok := e.h.lookupUser(u); ok {
			home = x.home
		}
		return expand.Variable{Set: true, Kind: expand.String, Str: home}
	}
	if v, ok := e.vars[name]; ok {
		return expand.Variable{Set: true, Exported: true, Kind: expand.String, Str: v}
	}
	if v, ok := e.hidden[name]; ok {
		return expand.Variable{Set: true, Kind: expand.String, Str: v}
	}
	return expand.Variable{}
}

// Each implements expand.Environ.
func (e environ) Each(yield func(string, expand.Variable) bool) {
	for _, m := range []map[string]string{e.vars, e.hidden} {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !yield(name, e.Get(name)) {
				return
			}
		}
	}
}

// parsed keeps scripts that were read before: many hosts are sent the same ones. The
// interpreter does not change what it runs.
type parsed struct {
	mu    sync.Mutex
	files map[string]*syntax.File
}

// maxParsed bounds it; one that is full starts anew.
const maxParsed = 64

func (w *World) parse(script, name string) (*syntax.File, error) {
	key := name + "\x00" + script
	w.scripts.mu.Lock()
	file := w.scripts.files[key]
	w.scripts.mu.Unlock()
	if file != nil {
		return file, nil
	}
	file, err := parse(script, name)
	if err != nil {
		return nil, err
	}
	w.scripts.mu.Lock()
	defer w.scripts.mu.Unlock()
	if w.scripts.files == nil || len(w.scripts.files) >= maxParsed {
		w.scripts.files = map[string]*syntax.File{}
	}
	w.scripts.files[key] = file
	return file, nil
}

// parse reads a script and rewrites what the interpreter cannot do, or would do
// with the real system.
func parse(script, name string) (*syntax.File, error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(script), name)
	if err != nil {
		return nil, err
	}
	seen := map[*syntax.Stmt]bool{} // background statements that are as they should be
	var bad error
	refuse := func(n syntax.Node, what string) {
		if bad == nil {
			bad = fmt.Errorf("line %d: %s is not possible on a virtual host", n.Pos().Line(), what)
		}
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.ProcSubst:
			refuse(n, "process substitution")
		case *syntax.CoprocClause:
			refuse(n, "a coprocess")
		case *syntax.UnaryTest:
			if n.Op == syntax.TsUsrOwn || n.Op == syntax.TsGrpOwn || n.Op == syntax.TsModif {
				refuse(n, "the test "+n.Op.String())
			}
		case *syntax.ParamExp:
			if n.Param != nil && (n.Param.Value == "$" || n.Param.Value == "PPID") {
				n.Param.Value, n.Short = varPID, false
			}
		case *syntax.Stmt:
			rewriteRedirects(n)
			// Our setsid returns at once. As a background job it might not even have
			// begun when its shell ends, and all jobs with it.
			if call, ok := n.Cmd.(*syntax.CallExpr); ok && len(call.Args) > 0 && call.Args[0].Lit() == "setsid" {
				n.Background = false
			}
			if !seen[n] {
				seen[rewriteBackground(n)] = true
			}
		}
		return bad == nil
	})
	if bad == nil {
		repairLoops(file)
	}
	return file, bad
}

// rewriteRedirects gives the shell file descriptors from 3 on: the interpreter has
// none. `exec 3<>X` remembers the name, `read <&3` and `>&3` use it.
func rewriteRedirects(st *syntax.Stmt) {
	call, _ := st.Cmd.(*syntax.CallExpr)
	name := ""
	if call != nil && len(call.Args) > 0 {
		name = call.Args[0].Lit()
	}
	var keep []*syntax.Redirect
	var opened []*syntax.Word
	for _, rd := range st.Redirs {
		target := ""
		if rd.Word != nil {
			target = rd.Word.Lit()
		}
		switch {
		case name == "exec" && len(call.Args) == 1 && rd.N != nil && extraFD(rd.N.Value):
			opened = append(opened, literal(rd.N.Value), literal(rd.Op.String()), rd.Word)
		case target == "-" && rd.N != nil && extraFD(rd.N.Value):
			// Closed for a program: a virtual one has none of these anyway.
		case name == "read" && rd.Op == syntax.DplIn && extraFD(target):
			call.Args = append([]*syntax.Word{literal("__fd_read"), rd.Word}, call.Args[1:]...)
		case rd.Op == syntax.DplIn && extraFD(target):
			rd.Op, rd.Word = syntax.RdrIn, literal("/dev/fd/"+target)
			keep = append(keep, rd)
		case rd.Op == syntax.DplOut && extraFD(target):
			rd.Op, rd.Word = syntax.AppOut, literal("/dev/fd/"+target)
			keep = append(keep, rd)
		default:
			keep = append(keep, rd)
		}
	}
	st.Redirs = keep
	if opened != nil {
		call.Args = append([]*syntax.Word{literal("__fd_open")}, opened...)
	}
}

// rewriteBackground has `setsid X &`, also as `$S X &`, start X before the shell goes
// on. As a background job it might not have begun when the shell ends, and end with
// it. It becomes
//
//	if __detach setsid X; then true; else setsid X & fi
//
// where __detach does it if the first word is setsid, and fails otherwise. The result
// is the statement that stays in the background, or nil.
func rewriteBackground(st *syntax.Stmt) *syntax.Stmt {
	call, _ := st.Cmd.(*syntax.CallExpr)
	if !st.Background || call == nil || len(call.Args) == 0 {
		return nil
	}
	if _, variable := call.Args[0].Parts[0].(*syntax.ParamExp); !variable && call.Args[0].Lit() != "setsid" {
		return nil
	}
	job := *st
	try := &syntax.Stmt{Redirs: st.Redirs, Cmd: &syntax.CallExpr{
		Assigns: call.Assigns, Args: append([]*syntax.Word{literal("__detach")}, call.Args...),
	}}
	nothing := &syntax.Stmt{Cmd: &syntax.CallExpr{Args: []*syntax.Word{literal("true")}}}
	st.Background, st.Redirs = false, nil
	st.Cmd = &syntax.IfClause{Cond: []*syntax.Stmt{try}, Then: []*syntax.Stmt{nothing}, Else: &syntax.IfClause{Then: []*syntax.Stmt{&job}}}
	return &job
}

func extraFD(s string) bool { return len(s) == 1 && s[0] >= '3' && s[0] <= '9' }

// literal is a quoted word: the rewritten script may be printed and read again.
func literal(s string) *syntax.Word {
	return &syntax.Word{Parts: []syntax.WordPart{&syntax.SglQuoted{Value: s}}}
}

// rewritten is a script as text after parse, for what goes through eval.
func rewritten(script string) (string, error) {
	file, err := parse(script, "")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := syntax.NewPrinter().Print(&b, file); err != nil {
		return "", err
	}
	return b.String(), nil
}

// onCall sees every simple command. It keeps the builtins away that would look at
// the real system, and has ours run instead.
func (s *shell) onCall(ctx context.Context, args []string) ([]string, error) {
	hc := interp.HandlerCtx(ctx)
	complain := func(err error) ([]string, error) {
		fmt.Fprintf(hc.Stderr, "%s: %v\n", path.Base(s.name), err)
		return []string{"false"}, nil
	}
	for len(args) > 1 && (args[0] == "builtin" || args[0] == "command" && args[1] != "-v" && args[1] != "-V") {
		args = args[1:]
		if args[0] == "-p" && len(args) > 1 {
			args = args[1:]
		}
	}
	switch args[0] {
	case "command", "type", "kill", "umask", "ulimit":
		return append([]string{"__" + args[0]}, args[1:]...), nil
	case "pwd":
		return []string{"pwd"}, nil
	case "test", "[":
		for _, a := range args[1:] {
			if a == "-O" || a == "-G" || a == "-N" {
				return complain(fmt.Errorf("the test %s is not possible on a virtual host", a))
			}
		}
	case "eval":
		text, err := rewritten(strings.Join(args[1:], " "))
		if err != nil {
			return complain(err)
		}
		return []string{"eval", text}, nil
	case "source", ".":
		if len(args) < 2 {
			return complain(errors.New("filename argument required"))
		}
		b, err := s.h.fs.readFile(s.who(hc.Env), abs(hc.Dir, args[1]))
		if err != nil {
			return complain(&fs.PathError{Op: "source", Path: args[1], Err: err})
		}
		text, err := rewritten(string(b))
		if err != nil {
			return complain(err)
		}
		return []string{"eval", text}, nil
	case "trap":
		return trapArgs(args)
	}
	return args, nil
}

// trapArgs leaves of a trap what the interpreter knows: EXIT and ERR. Signals do
// not exist on a virtual host.
func trapArgs(args []string) ([]string, error) {
	if len(args) < 3 {
		return []string{"true"}, nil
	}
	text, err := rewritten(args[1])
	if err != nil {
		return []string{"false"}, nil //nolint:nilerr // the shell goes on, as with any bad argument
	}
	out := []string{"trap", text}
	for _, sig := range args[2:] {
		switch sig {
		case "0", "EXIT":
			out = append(out, "EXIT")
		case "ERR":
			out = append(out, sig)
		}
	}
	if len(out) == 2 {
		return []string{"true"}, nil
	}
	return out, nil
}

func (s *shell) who(env expand.Environ) who {
	m, err := strconv.ParseUint(env.Get(varUmask).String(), 8, 32)
	if err != nil {
		m = 0o022
	}
	return who{uid: s.user.uid, gid: s.user.gid, umask: fs.FileMode(m) & 0o777}
}

func (s *shell) onExec(ctx context.Context, args []string) error {
	if !s.ses.enter() {
		return context.Canceled
	}
	defer s.ses.leave()
	hc := interp.HandlerCtx(ctx)
	c := &call{
		ctx: ctx, h: s.h, ses: s.ses, user: s.user, shell: s, args: args,
		dir: hc.Dir, umask: s.who(hc.Env).umask, in: hc.Stdin, out: hc.Stdout, err: hc.Stderr, vars: hc.Env,
	}
	status := c.run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if status != 0 {
		return interp.ExitStatus(status)
	}
	return nil
}

func (s *shell) onStat(ctx context.Context, name string, follow bool) (fs.FileInfo, error) {
	i, err := s.h.fs.stat(abs(interp.HandlerCtx(ctx).Dir, name), follow)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return i, nil
}

func (s *shell) onAccess(ctx context.Context, name string, mode interp.AccessMode) error {
	return s.h.fs.access(s.who(interp.HandlerCtx(ctx).Env), name, fs.FileMode(mode))
}

func (s *shell) onReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	hc := interp.HandlerCtx(ctx)
	return s.h.fs.readDir(s.who(hc.Env), abs(hc.Dir, name))
}

// onOpen opens for redirections. The interpreter turns whatever it reads from
// into a real pipe, and forgets to close it unless it is one already: so files are
// given to it as pipes.
func (s *shell) onOpen(ctx context.Context, name string, flag int, perm fs.FileMode) (io.ReadWriteCloser, error) {
	hc := interp.HandlerCtx(ctx)
	fail := func(err error) (io.ReadWriteCloser, error) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	if fd, ok := strings.CutPrefix(name, "/dev/fd/"); ok && extraFD(fd) {
		v := hc.Env.Get(varFD + fd)
		if !v.IsSet() || v.String() == "" {
			return fail(errors.New("bad file descriptor"))
		}
		name = v.String()
		flag &^= os.O_TRUNC
	}
	reading := flag&(os.O_WRONLY|os.O_RDWR) == 0
	if strings.HasPrefix(name, "/dev/tcp/") || strings.HasPrefix(name, "/dev/udp/") {
		if err := s.h.connect(ctx, name); err != nil {
			return fail(err)
		}
		if !reading {
			return discard{}, nil
		}
		return pipeOf(nil)
	}
	switch name {
	case "/dev/stdout":
		return keepOpen{hc.Stdout}, nil
	case "/dev/stderr":
		return keepOpen{hc.Stderr}, nil
	case "":
		return fail(fs.ErrNotExist)
	}
	p := abs(hc.Dir, name)
	if !reading {
		w, err := s.h.fs.writer(s.who(hc.Env), p, flag&os.O_APPEND != 0, flag&os.O_TRUNC != 0, perm)
		if err != nil {
			return fail(err)
		}
		if b := w.n.block; b != nil {
			w.closed = func() { s.h.wrote(s.ses, "sh", *b, w.pos) }
		}
		return w, nil
	}
	r, err := s.h.fs.reader(ctx, s.who(hc.Env), p)
	if err != nil {
		return fail(err)
	}
	return pipeOf(r)
}

// pipeOf is the reading end of a pipe that r flows into.
func pipeOf(r io.Reader) (*os.File, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if b, ok := r.(*bytes.Reader); r == nil || ok && b.Len() <= 32<<10 { // fits: nobody has to wait
		if b != nil {
			_, err = b.WriteTo(pw)
		}
		return pr, errors.Join(err, pw.Close())
	}
	go func() {
		_, _ = io.Copy(pw, r) // ends when the reader closes its end
		_ = pw.Close()
	}()
	return pr, nil
}

// keepOpen is a writer that closing does not end.
type keepOpen struct{ io.Writer }

func (keepOpen) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer.
func (keepOpen) Close() error { return nil }

type discard struct{}

func (discard) Read([]byte) (int, error)    { return 0, io.EOF }
func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Close implements io.Closer.
func (discard) Close() error { return nil }

func abs(dir, p string) string {
	if path.IsAbs(p) {
		return p
	}
	return path.Join(dir, p)
}

// output collects what a session prints; safe for many writers.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// maxOutput keeps a script that prints for ever from filling the memory.
const maxOutput = 8 << 20

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.buf.Len()+len(p) > maxOutput {
		return 0, errors.New("too much output")
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
