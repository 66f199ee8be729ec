package translate

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// lastLines is how much of a failed action's output a person is shown.
const lastLines = 5

// fullLog is where a task leaves its whole output on the machine, readable for root
// only, or "".
func fullLog(task string) string {
	switch task {
	case taskInit, taskJoin:
	case "ci.run":
		task = "bootstrap"
	case "hook." + hookBefore:
		task = "hook-" + hookBefore
	case "hook." + hookAfter:
		task = "hook-" + hookAfter
	default:
		return ""
	}
	return "/var/log/capplunder/" + task + ".log"
}

// Explain says what went wrong in an action, for people: the task, the error, the
// likely cause where one is known, the last lines of its output (masked), and where the
// whole of it is on the machine.
func Explain(e wire.LogEntry) string {
	task, _, _ := strings.Cut(e.Task, "#")
	text := fmt.Sprintf("action %s failed: %s", task, Mask(e.Error))
	if e.Error == "" {
		text = fmt.Sprintf("action %s did not say what it should", task)
	}
	out := Mask(readable(e.Entry))
	text += Likely(e.Error + "\n" + out)
	if out != "" && out != wire.NoOutput {
		lines := strings.Split(out, "\n")
		text += "; its output ends: " + strings.Join(lines[max(0, len(lines)-lastLines):], " | ")
	}
	if l := fullLog(task); l != "" {
		text += "; the whole log is " + l + " on the machine"
	}
	return text
}

// readable is a program's output without empty lines, without what progress bars
// wrote over, and without characters that a terminal acts on.
func readable(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, "\r\n")
		line = line[strings.LastIndexByte(line, '\r')+1:]
		line = strings.Map(func(r rune) rune {
			switch {
			case r == '\t':
				return ' '
			case !unicode.IsPrint(r):
				return -1
			}
			return r
		}, line)
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}
