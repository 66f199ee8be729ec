package host

import (
	"io"
	"regexp"
	"strconv"
	"strings"
)

// sedAddress is a line that a sed command is for: by number, the last ($), or by pattern.
type sedAddress struct {
	at    *regexp.Regexp
	line  int // -1 is the last line
	count int // as the second address, +N: so many lines more
}

func (a sedAddress) given() bool { return a.at != nil || a.line != 0 || a.count != 0 }

func (a sedAddress) fits(line string, number int, last bool) bool {
	switch {
	case a.at != nil:
		return a.at.MatchString(line)
	case a.line < 0:
		return last
	}
	return a.line == number
}

// sedCommand is one command of a sed script: [address[,address]] s/re/text/flags, p, d,
// q, =, or a, i, c with text up to the end of the line.
type sedCommand struct {
	from, to sedAddress
	negated  bool
	op       byte
	re       *regexp.Regexp
	text     string
	global   bool
	print    bool
}

// sedAddressOf takes an address off the front of a script.
func sedAddressOf(script string, extended bool) (a sedAddress, rest string, ok bool) {
	if script == "" {
		return a, "", true
	}
	var sep byte
	switch {
	case script[0] == '/':
		sep, script = '/', script[1:]
	case script[0] == '\\' && len(script) > 1:
		sep, script = script[1], script[2:]
	case script[0] == '$':
		a.line = -1
		return a, script[1:], true
	case script[0] == '+':
		n := strings.TrimLeft(script[1:], "0123456789")
		a.count, _ = strconv.Atoi(script[1 : len(script)-len(n)])
		return a, n, a.count > 0
	default:
		n := strings.TrimLeft(script, "0123456789")
		a.line, _ = strconv.Atoi(script[:len(script)-len(n)])
		return a, n, true
	}
	re, rest, ok := sedPart(script, sep)
	if ok {
		a.at = sedRegexp(re, extended, false)
	}
	return a, rest, a.at != nil
}

func parseSed(script string, extended bool) ([]sedCommand, bool) {
	var out []sedCommand
	for script != "" {
		script = strings.TrimLeft(script, " ;\n\t")
		if script == "" {
			break
		}
		if script[0] == '#' {
			_, script, _ = strings.Cut(script, "\n")
			continue
		}
		var s sedCommand
		var ok bool
		if s.from, script, ok = sedAddressOf(script, extended); !ok {
			return nil, false
		}
		if strings.HasPrefix(script, ",") {
			if s.to, script, ok = sedAddressOf(script[1:], extended); !ok || !s.from.given() || !s.to.given() {
				return nil, false
			}
		}
		script = strings.TrimLeft(script, " ")
		if strings.HasPrefix(script, "!") {
			s.negated, script = true, strings.TrimLeft(script[1:], " ")
		}
		if script == "" {
			return nil, false
		}
		s.op, script = script[0], script[1:]
		switch s.op {
		case 'p', 'd', 'q', '=':
		case 'a', 'i', 'c':
			s.text, script, _ = strings.Cut(script, "\n")
			s.text = strings.TrimPrefix(strings.TrimLeft(s.text, " "), "\\")
		case 's':
			if script == "" {
				return nil, false
			}
			sep := script[0]
			re, rest, ok := sedPart(script[1:], sep)
			if !ok {
				return nil, false
			}
			text, rest, ok := sedPart(rest, sep)
			if !ok {
				return nil, false
			}
			n := strings.IndexAny(rest, "; \n}")
			if n < 0 {
				n = len(rest)
			}
			flags := rest[:n]
			script = rest[n:]
			if strings.Trim(flags, "gpIi") != "" {
				return nil, false
			}
			s.global, s.print = strings.Contains(flags, "g"), strings.Contains(flags, "p")
			if s.re = sedRegexp(re, extended, strings.ContainsAny(flags, "Ii")); s.re == nil {
				return nil, false
			}
			s.text = text
		default:
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

// sedPart takes text up to an unescaped separator.
func sedPart(s string, sep byte) (part, rest string, ok bool) {
	var b strings.Builder
	bracket := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			if s[i+1] != sep {
				b.WriteByte('\\')
			}
			i++
			b.WriteByte(s[i])
		case s[i] == sep && !bracket:
			return b.String(), s[i+1:], true
		default:
			switch s[i] {
			case '[':
				bracket = true
			case ']':
				bracket = false
			}
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

func sedRegexp(re string, extended, fold bool) *regexp.Regexp {
	expr := posix(re, extended)
	if fold {
		expr = "(?i)" + expr
	}
	r, err := regexp.Compile(expr)
	if err != nil {
		return nil
	}
	r.Longest()
	return r
}

// replace applies an s command to a line.
func (s sedCommand) replace(line string) (string, bool) {
	n := 1
	if s.global {
		n = -1
	}
	var b strings.Builder
	last := 0
	for _, m := range s.re.FindAllStringSubmatchIndex(line, n) {
		b.WriteString(line[last:m[0]])
		for i := 0; i < len(s.text); i++ {
			switch t := s.text[i]; {
			case t == '&':
				b.WriteString(line[m[0]:m[1]])
			case t == '\\' && i+1 < len(s.text):
				i++
				switch d := s.text[i]; {
				case d >= '0' && d <= '9':
					if k := int(d-'0') * 2; k+1 < len(m) && m[k] >= 0 {
						b.WriteString(line[m[k]:m[k+1]])
					}
				case d == 'n':
					b.WriteByte('\n')
				default:
					b.WriteByte(d)
				}
			default:
				b.WriteByte(t)
			}
		}
		last = m[1]
	}
	if last == 0 && b.Len() == 0 && !s.re.MatchString(line) {
		return line, false
	}
	b.WriteString(line[last:])
	return b.String(), true
}

func cmdSed(c *call) int {
	var suffix string
	var inPlace, extended, quiet bool
	var scripts, files []string
	for args := c.args[1:]; len(args) > 0; args = args[1:] {
		a := args[0]
		switch {
		case strings.HasPrefix(a, "-i"):
			inPlace, suffix = true, a[2:]
		case a == "-e" && len(args) > 1:
			scripts = append(scripts, args[1])
			args = args[1:]
		case len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "Ernuse") == "":
			extended = extended || strings.ContainsAny(a, "Er")
			quiet = quiet || strings.Contains(a, "n")
		case len(scripts) == 0:
			scripts = []string{a}
		default:
			files = append(files, a)
		}
	}
	prog, ok := parseSed(strings.Join(scripts, "\n"), extended)
	if !ok {
		return c.fail(1, "-e expression #1: not a command that this sed knows: %s", strings.Join(scripts, "; "))
	}
	if !inPlace {
		b, status := c.input(files)
		_, _ = io.WriteString(c.out, sedRun(prog, b, quiet))
		return status
	}
	for _, f := range files {
		b, err := c.read(f)
		if err != nil {
			return c.fail(4, "can't read %s: %s", f, errText(err))
		}
		if suffix != "" {
			if err := c.write(f+suffix, b, 0o644); err != nil {
				return c.fail(4, "couldn't open file %s: %s", f+suffix, errText(err))
			}
		}
		if err := c.write(f, []byte(sedRun(prog, b, quiet)), 0o644); err != nil {
			return c.fail(4, "couldn't open file %s: %s", f, errText(err))
		}
	}
	return 0
}

// sedRun runs a script. Ranges are kept by the command that they belong to.
func sedRun(prog []sedCommand, b []byte, quiet bool) string {
	var out strings.Builder
	all := lines(b)
	until := make([]int, len(prog)) // the line up to which a range reaches; -1 for its end not found yet
	for i, line := range all {
		gone, quit, after := false, false, ""
		for n, s := range prog {
			if s.matches(line, i+1, i == len(all)-1, &until[n]) == s.negated {
				continue
			}
			switch s.op {
			case 'd':
				gone = true
			case 'q':
				quit = true
			case 'p':
				out.WriteString(line + "\n")
			case '=':
				out.WriteString(strconv.Itoa(i+1) + "\n")
			case 'i':
				out.WriteString(s.text + "\n")
			case 'a':
				after += s.text + "\n"
			case 'c':
				gone = true
				if !s.to.given() || until[n] == i+1 { // of a range only once, at its end
					out.WriteString(s.text + "\n")
				}
			case 's':
				var did bool
				if line, did = s.replace(line); did && s.print {
					out.WriteString(line + "\n")
				}
			}
			if gone || quit {
				break
			}
		}
		if !gone && !quiet {
			out.WriteString(line + "\n")
		}
		out.WriteString(after)
		if quit {
			break
		}
	}
	return out.String()
}

// matches reports whether a command is for a line, and moves its range on.
func (s sedCommand) matches(line string, number int, last bool, until *int) bool {
	if !s.from.given() {
		return true
	}
	if !s.to.given() {
		return s.from.fits(line, number, last)
	}
	if *until == -1 {
		if s.to.fits(line, number, last) || s.to.line > 0 && number >= s.to.line {
			*until = number
		}
		return true
	}
	if number <= *until {
		return true
	}
	if !s.from.fits(line, number, last) {
		return false
	}
	switch {
	case s.to.count > 0:
		*until = number + s.to.count
	case s.to.line > 0 && s.to.line <= number:
		*until = number
	default:
		*until = -1
	}
	return true
}
