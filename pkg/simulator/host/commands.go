package host

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// commandNamed is the Go function of a program.
func commandNamed(name string) command {
	for _, find := range []func(string) command{shellCommand, fileCommand, textCommand, systemCommand, storageCommand, userCommand, packageCommand, runtimeCommand, kubeCommand} {
		if f := find(name); f != nil {
			return f
		}
	}
	return func(c *call) int { return c.fail(126, "cannot execute: required file not found") }
}

// shellCommand are the programs that run other programs.
func shellCommand(name string) command {
	switch name {
	case "bash", "sh":
		return cmdBash
	case "sudo":
		return cmdSudo
	case "env":
		return cmdEnv
	case "timeout":
		return cmdTimeout
	case "setsid":
		return cmdSetsid
	case "flock":
		return cmdFlock
	case "nohup":
		return func(c *call) int {
			if len(c.args) < 2 {
				return c.fail(125, "missing operand")
			}
			return c.with(c.args[1:]).run()
		}
	case "xargs":
		return cmdXargs
	case "sleep":
		return cmdSleep
	case "sync":
		return cmdSync
	case "true":
		return func(*call) int { return 0 }
	case "false":
		return func(*call) int { return 1 }
	case "kill":
		return func(*call) int { return 0 }
	}
	return nil
}

func cmdBash(c *call) int {
	var opts []string
	args := c.args[1:]
	script := false
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		a := args[0]
		args = args[1:]
		if a == "--" {
			break
		}
		if strings.HasPrefix(a, "--") { // --norc, --login, ...
			continue
		}
		for _, f := range a[1:] {
			switch f {
			case 'c':
				script = true
			case 'o':
				if len(args) > 0 {
					opts = append(opts, a[:1]+"o", args[0])
					args = args[1:]
				}
			case 'e', 'u', 'x', 'f', 'n', 'a':
				opts = append(opts, a[:1]+string(f))
			}
		}
	}
	switch {
	case script && len(args) == 0:
		return c.fail(2, "-c: option requires an argument")
	case script && len(args) == 1:
		return c.subshell(args[0], c.args[0], nil, opts)
	case script:
		return c.subshell(args[0], args[1], args[2:], opts)
	case len(args) > 0:
		b, err := c.read(args[0])
		if err != nil {
			c.fileError(args[0], err)
			return 127
		}
		return c.subshell(string(b), args[0], args[1:], opts)
	}
	b, err := c.stdin()
	if err != nil {
		return c.fail(1, "%v", err)
	}
	d := c.with(c.args)
	d.in = nil
	return d.subshell(string(b), c.args[0], nil, opts)
}

func cmdSudo(c *call) int {
	args := c.args[1:]
	target := "root"
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch a := args[0]; {
		case a == "-u" && len(args) > 1:
			target = args[1]
			args = args[1:]
		case a == "--":
		case strings.Trim(a, "-nEHSk") != "":
			return c.fail(1, "invalid option %s", a)
		}
		args = args[1:]
	}
	u, ok := c.h.lookupUser(target)
	if !ok {
		return c.fail(1, "unknown user %s", target)
	}
	if len(args) == 0 {
		c.errf("usage: sudo -n -u user command")
		return 1
	}
	if c.h.requiresTTY() {
		c.errf("sudo: sorry, you must have a tty to run sudo")
		return 1
	}
	if !c.h.sudoer(c.user) {
		return c.fail(1, "a password is required")
	}
	c.noteSudo(target, args)
	d := c.with(args)
	d.env = loginEnv(u)
	d.env["SUDO_USER"] = c.user.name
	d.user = u
	return d.run()
}

func cmdEnv(c *call) int {
	args := c.args[1:]
	env := map[string]string{}
	if len(args) > 0 && (args[0] == "-i" || args[0] == "-") {
		args = args[1:]
	} else {
		for k, v := range c.exported() {
			env[k] = v
		}
	}
	for len(args) > 0 {
		k, v, ok := strings.Cut(args[0], "=")
		if !ok {
			break
		}
		env[k] = v
		args = args[1:]
	}
	d := c.with(args)
	d.env = env
	if len(args) > 0 {
		return d.run()
	}
	for _, k := range sortedKeys(env) {
		c.printf("%s=%s\n", k, env[k])
	}
	return 0
}

// duration reads what sleep and timeout take: seconds, or a number with s, m, h, d.
func duration(s string) (time.Duration, bool) {
	unit := time.Second
	if s != "" {
		switch s[len(s)-1] {
		case 's':
			s = s[:len(s)-1]
		case 'm':
			unit, s = time.Minute, s[:len(s)-1]
		case 'h':
			unit, s = time.Hour, s[:len(s)-1]
		case 'd':
			unit, s = 24*time.Hour, s[:len(s)-1]
		}
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v > 1e7 {
		return 0, false
	}
	return time.Duration(v * float64(unit)), true
}

func cmdSleep(c *call) int {
	var total time.Duration
	for _, a := range c.args[1:] {
		d, ok := duration(a)
		if !ok {
			return c.fail(1, "invalid time interval %q", a)
		}
		total += d
	}
	if !c.spend(total) {
		return 143
	}
	return 0
}

func cmdTimeout(c *call) int {
	args := c.args[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if (args[0] == "-k" || args[0] == "-s") && len(args) > 1 {
			args = args[1:]
		}
		args = args[1:]
	}
	if len(args) < 2 {
		return c.fail(125, "missing operand")
	}
	limit, ok := duration(args[0])
	if !ok {
		return c.fail(125, "invalid time interval %q", args[0])
	}
	d := c.with(args[1:])
	if limit > 0 {
		var cancel context.CancelFunc
		d.ctx, cancel = context.WithTimeout(c.ctx, limit)
		defer cancel()
	}
	status := d.run()
	if d.ctx.Err() != nil && c.ctx.Err() == nil {
		return 124
	}
	return status
}

// cmdSetsid starts a process that outlives its session: it ends by itself or with
// the host. It never waits for it, as if it were always called with an &.
func cmdSetsid(c *call) int {
	args := c.args[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		args = args[1:]
	}
	if len(args) == 0 {
		return c.fail(1, "no command specified")
	}
	d := c.with(args)
	d.exported()
	d.ses, d.in, d.shell = newSession(c.ses.task), nil, nil
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	if !c.h.up {
		return 1
	}
	d.ctx = c.h.life
	c.h.detached.Go(func() {
		d.run()
		d.ses.end()
	})
	return 0
}

// cmdFlock is `flock [-n] [-w SECONDS] N`: it locks the file behind descriptor N until
// the shell that has it ends.
func cmdFlock(c *call) int {
	flags, args := options(c.args[1:], "-w", "-E")
	if len(args) != 1 || !extraFD(args[0]) {
		return c.fail(64, "only on a file descriptor")
	}
	if has(flags, "-u") {
		return 0
	}
	file := ""
	if c.vars != nil {
		file = c.vars.Get(varFD + args[0]).String()
	}
	if file == "" || c.shell == nil {
		return c.fail(65, "%s: Bad file descriptor", args[0])
	}
	c.shell.mu.Lock()
	held := slices.Contains(c.shell.locks, file)
	c.shell.mu.Unlock()
	if held {
		return 0
	}
	ctx := c.ctx
	if has(flags, "-w", "-n") {
		limit, _ := duration(value(flags, "-w"))
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(limit, time.Nanosecond))
		defer cancel()
	}
	lock := c.h.fileLock(file)
	select {
	case lock <- struct{}{}: // free: no matter how short the limit
	default:
		select {
		case lock <- struct{}{}:
		case <-ctx.Done():
			return 1
		}
	}
	c.shell.mu.Lock()
	defer c.shell.mu.Unlock()
	c.shell.locks = append(c.shell.locks, file)
	return 0
}

// cmdXargs is xargs with -0, -r, -n, -I and -d.
func cmdXargs(c *call) int {
	flags, args := map[string]string{}, c.args[1:]
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		f, v := args[0][:2], args[0][2:]
		args = args[1:]
		switch f {
		case "-n", "-I", "-d", "-P", "-L":
			if v == "" && len(args) > 0 {
				v, args = args[0], args[1:]
			}
			flags[f] = v
		case "-0", "-r", "-t", "--":
			flags[f] = "yes"
			for _, more := range v { // as -0r
				flags["-"+string(more)] = "yes"
			}
		default:
			return c.fail(1, "invalid option -- '%s'", strings.TrimPrefix(f, "-"))
		}
	}
	b, err := c.stdin()
	if err != nil {
		return c.fail(1, "%v", err)
	}
	items := strings.Fields(string(b))
	if sep := map[bool]string{true: "\x00", false: strings.ReplaceAll(flags["-d"], `\n`, "\n")}[flags["-0"] != ""]; sep != "" {
		items = strings.Split(strings.TrimSuffix(string(b), sep), sep)
	} else if flags["-I"] != "" {
		items = lines(b)
	}
	if len(b) == 0 {
		items = nil
	}
	if len(items) == 0 && (flags["-r"] != "" || flags["-I"] != "") {
		return 0
	}
	if len(args) == 0 {
		args = []string{"echo"}
	}
	n := max(len(items), 1)
	if v, err := strconv.Atoi(flags["-n"]); err == nil && v > 0 {
		n = v
	}
	if flags["-I"] != "" {
		n = 1
	}
	status := 0
	for first := true; first || len(items) > 0; first = false {
		k := min(n, len(items))
		line := append(slices.Clone(args), items[:k]...)
		if hole := flags["-I"]; hole != "" {
			line = slices.Clone(args)
			for i := range line {
				line[i] = strings.ReplaceAll(line[i], hole, items[0])
			}
		}
		d := c.with(line)
		d.in = nil
		if line[0] == "echo" {
			c.printf("%s\n", strings.Join(line[1:], " "))
		} else if s := d.run(); s == 127 || s == 126 {
			return s
		} else if s != 0 {
			status = 123
		}
		items = items[k:]
	}
	return status
}
