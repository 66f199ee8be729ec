package host

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// textCommand are the programs that work on text.
func textCommand(name string) command {
	switch name {
	case "grep":
		return cmdGrep
	case "sed":
		return cmdSed
	case "tr":
		return cmdTr
	case "cut":
		return cmdCut
	case "head":
		return cmdHead
	case "tail":
		return cmdTail
	case "sort":
		return cmdSort
	case "uniq":
		return cmdUniq
	case "wc":
		return cmdWc
	case "seq":
		return cmdSeq
	}
	return nil
}

// lines splits text at line ends; a last line without one counts too.
func lines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

// posix translates a POSIX regular expression, basic or extended, to Go's.
func posix(p string, extended bool) string {
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c == '[':
			end := i + 1
			if end < len(p) && p[end] == '^' {
				end++
			}
			if end < len(p) && p[end] == ']' {
				end++
			}
			for end < len(p) && p[end] != ']' {
				if strings.HasPrefix(p[end:], "[:") {
					if k := strings.Index(p[end:], ":]"); k > 0 {
						end += k + 1
					}
				}
				end++
			}
			if end >= len(p) {
				b.WriteString(regexp.QuoteMeta(p[i:]))
				return b.String()
			}
			b.WriteString(strings.ReplaceAll(p[i:end+1], `\`, `\\`))
			i = end
		case c == '\\' && i+1 < len(p):
			i++
			if !extended && strings.IndexByte("(){}+?|", p[i]) >= 0 {
				b.WriteByte(p[i])
			} else if p[i] == '<' || p[i] == '>' {
				b.WriteString(`\b`)
			} else {
				b.WriteByte('\\')
				b.WriteByte(p[i])
			}
		case !extended && strings.IndexByte("(){}+?|", c) >= 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		case !extended && c == '*' && b.Len() == 0:
			b.WriteString(`\*`)
		case !extended && c == '$' && i+1 < len(p) && !strings.HasPrefix(p[i+1:], `\)`) && !strings.HasPrefix(p[i+1:], `\|`):
			b.WriteString(`\$`)
		case !extended && c == '^' && i > 0 && !strings.HasSuffix(p[:i], `\(`) && !strings.HasSuffix(p[:i], `\|`):
			b.WriteString(`\^`)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func cmdGrep(c *call) int {
	flags, args := options(c.args[1:], "-e", "-m", "-f")
	patterns := flags["-e"]
	if f := flags["-f"]; len(f) > 0 {
		in, err := c.read(f[0])
		if f[0] == "-" {
			in, err = c.stdin()
		}
		if err != nil {
			return c.fileError(f[0], err)
		}
		if patterns = append(patterns, strings.TrimSuffix(string(in), "\n")); len(in) == 0 {
			return 1 // no pattern fits nothing
		}
	}
	if len(patterns) == 0 {
		if len(args) == 0 {
			return c.fail(2, "no pattern")
		}
		patterns, args = args[:1], args[1:]
	}
	var alternatives []string
	for _, p := range patterns {
		for _, p := range strings.Split(p, "\n") {
			if has(flags, "-F") {
				p = regexp.QuoteMeta(p)
			} else {
				p = posix(p, has(flags, "-E", "-P"))
			}
			if has(flags, "-x") {
				p = "^(?:" + p + ")$"
			}
			if has(flags, "-w") {
				p = `\b(?:` + p + `)\b`
			}
			alternatives = append(alternatives, "(?:"+p+")")
		}
	}
	expr := strings.Join(alternatives, "|")
	if has(flags, "-i") {
		expr = "(?i)" + expr
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return c.fail(2, "Invalid regular expression: %s", patterns[0])
	}
	re.Longest()
	files := args
	if len(files) == 0 {
		files = []string{"-"}
	}
	status, found := 0, false
	limit, _ := strconv.Atoi(value(flags, "-m"))
	for _, f := range files {
		var b []byte
		var err error
		if f == "-" {
			b, err = c.stdin()
		} else {
			b, err = c.read(f)
		}
		if err != nil {
			if !has(flags, "-s") {
				c.fileError(f, err)
			}
			status = 2
			continue
		}
		prefix := ""
		if len(files) > 1 && !has(flags, "-h") {
			prefix = f + ":"
		}
		count := 0
		for _, line := range lines(b) {
			if re.MatchString(line) == has(flags, "-v") {
				continue
			}
			found = true
			count++
			switch {
			case has(flags, "-q"):
				return 0
			case has(flags, "-l", "-c"):
			case has(flags, "-o"):
				for _, m := range re.FindAllString(line, -1) {
					if m != "" {
						c.printf("%s%s\n", prefix, m)
					}
				}
			default:
				c.printf("%s%s\n", prefix, line)
			}
			if has(flags, "-l") || limit > 0 && count >= limit {
				break
			}
		}
		if has(flags, "-l") && count > 0 {
			c.printf("%s\n", f)
		}
		if has(flags, "-c") {
			c.printf("%s%d\n", prefix, count)
		}
	}
	if status == 0 && !found {
		status = 1
	}
	return status
}

// set expands what tr takes: escapes, ranges and the common classes.
func set(s string) []byte {
	for name, chars := range map[string]string{
		"[:space:]": " \t\n\v\f\r", "[:upper:]": "A-Z", "[:lower:]": "a-z", "[:digit:]": "0-9", "[:alnum:]": "A-Za-z0-9", "[:cntrl:]": "\x00-\x1f\x7f",
	} {
		s = strings.ReplaceAll(s, name, chars)
	}
	var out []byte
	next := func() byte {
		b := s[0]
		s = s[1:]
		if b != '\\' || s == "" {
			return b
		}
		n := 0
		for n < 3 && n < len(s) && s[n] >= '0' && s[n] <= '7' {
			n++
		}
		if n > 0 {
			v, _ := strconv.ParseUint(s[:n], 8, 8)
			s = s[n:]
			return byte(v)
		}
		b = s[0]
		s = s[1:]
		if i := strings.IndexByte("nrt", b); i >= 0 {
			return "\n\r\t"[i]
		}
		return b
	}
	for s != "" {
		a := next()
		if len(s) > 1 && s[0] == '-' {
			s = s[1:]
			for b := next(); a < b; a++ {
				out = append(out, a)
			}
		}
		out = append(out, a)
	}
	return out
}

func cmdTr(c *call) int {
	flags, args := options(c.args[1:])
	if len(args) == 0 {
		return c.fail(1, "missing operand")
	}
	from := set(args[0])
	var in [256]bool
	for i := range in {
		in[i] = bytes.IndexByte(from, byte(i)) >= 0 != has(flags, "-c", "-C")
	}
	remove, squeeze := has(flags, "-d"), has(flags, "-s")
	var to []byte
	if len(args) > 1 {
		to = set(args[1])
	}
	last := -1 // the byte before, for -s
	return c.filter(func(b, out []byte) []byte {
		if remove && !squeeze && isZero(b) { // a wiped disk: a lot of nothing
			if in[0] {
				return out
			}
			return append(out, b...)
		}
		for _, x := range b {
			hit := in[x]
			if hit && remove {
				continue
			}
			if hit && len(to) > 0 {
				x = to[min(max(bytes.IndexByte(from, x), 0), len(to)-1)]
			}
			if hit && squeeze && last == int(x) {
				continue
			}
			last = int(x)
			out = append(out, x)
		}
		return out
	})
}

// filter sends standard input through f, piece by piece.
func (c *call) filter(f func(in, out []byte) []byte) int {
	if c.in == nil {
		return 0
	}
	in := make([]byte, 64<<10)
	var out []byte
	for {
		n, err := c.in.Read(in)
		out = f(in[:n], out[:0])
		if _, werr := c.out.Write(out); werr != nil {
			return 1
		}
		if errors.Is(err, io.EOF) {
			return 0
		}
		if err != nil {
			return c.fail(1, "%v", err)
		}
	}
}

// inList reports whether n is in a list like "1,3-5,7-".
func inList(list string, n int) bool {
	for _, part := range strings.Split(list, ",") {
		a, b, isRange := strings.Cut(part, "-")
		lo, _ := strconv.Atoi(a)
		hi, err := strconv.Atoi(b)
		if !isRange {
			hi = lo
		} else if err != nil {
			hi = n
		}
		if n >= lo && n <= hi {
			return true
		}
	}
	return false
}

func cmdCut(c *call) int {
	flags, files := options(c.args[1:], "-d", "-f", "-c", "-b")
	b, status := c.input(files)
	for _, line := range lines(b) {
		if list := value(flags, "-c", "-b"); list != "" {
			for i := range len(line) {
				if inList(list, i+1) {
					c.printf("%s", line[i:i+1])
				}
			}
			c.printf("\n")
			continue
		}
		sep := "\t"
		if has(flags, "-d") {
			sep = value(flags, "-d")
		}
		if !strings.Contains(line, sep) {
			if !has(flags, "-s") {
				c.printf("%s\n", line)
			}
			continue
		}
		var keep []string
		for i, f := range strings.Split(line, sep) {
			if inList(value(flags, "-f"), i+1) {
				keep = append(keep, f)
			}
		}
		c.printf("%s\n", strings.Join(keep, sep))
	}
	return status
}

// dashNumber turns `head -5` into `head -n 5`.
func dashNumber(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if len(a) > 1 && a[0] == '-' && a[1] >= '0' && a[1] <= '9' {
			out[i] = "-n" + a[1:]
		}
	}
	return out
}

func cmdHead(c *call) int {
	flags, files := options(dashNumber(c.args[1:]), "-n", "-c")
	if n, err := strconv.ParseInt(value(flags, "-c"), 10, 64); err == nil {
		r := c.in
		if len(files) > 0 {
			if r, err = c.h.fs.reader(c.ctx, c.who(), c.path(files[0])); err != nil {
				return c.fileError(files[0], err)
			}
		}
		if r != nil {
			_, _ = io.CopyN(c.out, r, n)
		}
		return 0
	}
	b, status := c.input(files)
	n, all := 10, lines(b)
	if v, err := strconv.Atoi(value(flags, "-n")); err == nil {
		n = v
	}
	if n < 0 {
		n = max(len(all)+n, 0)
	}
	for _, line := range all[:min(n, len(all))] {
		c.printf("%s\n", line)
	}
	return status
}

func cmdTail(c *call) int {
	flags, files := options(dashNumber(c.args[1:]), "-n", "-c")
	b, status := c.input(files)
	if n, err := strconv.Atoi(value(flags, "-c")); err == nil {
		_, _ = c.out.Write(b[max(len(b)-n, 0):])
		return status
	}
	all := lines(b)
	from := max(len(all)-10, 0)
	if v := value(flags, "-n"); v != "" {
		n, _ := strconv.Atoi(strings.TrimLeft(v, "+-"))
		if from = max(len(all)-n, 0); v[0] == '+' {
			from = min(max(n-1, 0), len(all))
		}
	}
	for _, line := range all[from:] {
		c.printf("%s\n", line)
	}
	return status
}

func cmdSort(c *call) int {
	flags, files := options(c.args[1:], "-k", "-t", "-o")
	b, status := c.input(files)
	all := lines(b)
	compare := strings.Compare
	if has(flags, "-V") {
		compare = compareVersions
	} else if has(flags, "-n") {
		compare = func(a, b string) int {
			x, _ := strconv.ParseFloat(strings.TrimSpace(a), 64)
			y, _ := strconv.ParseFloat(strings.TrimSpace(b), 64)
			return cmp.Compare(x, y)
		}
	}
	slices.SortStableFunc(all, compare)
	if has(flags, "-r") {
		slices.Reverse(all)
	}
	if has(flags, "-u") {
		all = slices.Compact(all)
	}
	for _, line := range all {
		c.printf("%s\n", line)
	}
	return status
}

// compareVersions compares like sort -V: runs of digits as numbers.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		da := len(a) - len(strings.TrimLeft(a, "0123456789"))
		db := len(b) - len(strings.TrimLeft(b, "0123456789"))
		if da > 0 && db > 0 {
			x, _ := strconv.ParseUint(a[:da], 10, 64)
			y, _ := strconv.ParseUint(b[:db], 10, 64)
			if x != y {
				return cmp.Compare(x, y)
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

func cmdUniq(c *call) int {
	flags, files := options(c.args[1:])
	b, status := c.input(files)
	all := lines(b)
	for i := 0; i < len(all); {
		n := 1
		for i+n < len(all) && all[i+n] == all[i] {
			n++
		}
		switch {
		case has(flags, "-c"):
			c.printf("%7d %s\n", n, all[i])
		case has(flags, "-d") && n == 1:
		default:
			c.printf("%s\n", all[i])
		}
		i += n
	}
	return status
}

func cmdWc(c *call) int {
	flags, files := options(c.args[1:])
	var newlines, words, size, status int
	inWord := false
	count := func(b []byte) {
		size += len(b)
		newlines += bytes.Count(b, []byte("\n"))
		if has(flags, "-c", "-l") && !has(flags, "-w") {
			return
		}
		for _, x := range b {
			space := x == ' ' || x >= '\t' && x <= '\r'
			if !space && !inWord {
				words++
			}
			inWord = !space
		}
	}
	if len(files) == 0 {
		d := *c
		d.out = io.Discard
		status = d.filter(func(in, _ []byte) []byte { count(in); return nil })
	} else {
		var b []byte
		b, status = c.input(files)
		count(b)
	}
	var counts []string
	for _, x := range []struct {
		flag string
		n    int
	}{{"-l", newlines}, {"-w", words}, {"-c", size}} {
		if has(flags, x.flag) || !has(flags, "-l", "-w", "-c") {
			counts = append(counts, strconv.Itoa(x.n))
		}
	}
	c.printf("%s\n", strings.Join(append(counts, files...), " "))
	return status
}

func cmdSeq(c *call) int {
	var n []int
	for _, a := range c.args[1:] {
		v, err := strconv.Atoi(a)
		if err != nil {
			return c.fail(1, "invalid integer argument: '%s'", a)
		}
		n = append(n, v)
	}
	first, step := 1, 1
	var last int
	switch len(n) {
	case 1:
		last = n[0]
	case 2:
		first, last = n[0], n[1]
	case 3:
		first, step, last = n[0], n[1], n[2]
	default:
		return c.fail(1, "missing operand")
	}
	if step == 0 {
		return c.fail(1, "invalid Zero increment value: '0'")
	}
	for i := first; (step > 0 && i <= last || step < 0 && i >= last) && c.ctx.Err() == nil; i += step {
		c.printf("%d\n", i)
	}
	return 0
}
