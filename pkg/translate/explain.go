package translate

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// lastLines is how much of a failed action's output a person is shown.
const lastLines = 5

var (
	tokenForm  = regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`)
	keyForm    = regexp.MustCompile(`\b[0-9a-f]{64}\b`)
	secretForm = regexp.MustCompile(`(?i)\b(password|token|secret)([=:] *)\S+`)
)

// Mask hides what looks like a bootstrap token, a certificate key or a password.
func Mask(s string) string {
	s = tokenForm.ReplaceAllString(s, "***")
	s = keyForm.ReplaceAllString(s, "***")
	return secretForm.ReplaceAllString(s, "$1$2***")
}

// causes says what usually lies behind a text in a failed action's output. The
// first match wins.
func causes() []struct{ text, cause string } {
	return []struct{ text, cause string }{
		{"capplunder-stranger", "another machine, or another boot of it, answers at this address; nothing was changed on it"},
		{"ssh: handshake failed", "the SSH user or key of plunder's global configuration is missing or does not fit, the account is locked, or the host's sshd refuses ssh-rsa signatures (PubkeyAcceptedAlgorithms +ssh-rsa)"},
		{"no SSH credentials", "the plunder server has no deployment for this address"},
		{"a password is required", "the SSH user may not use sudo without a password"},
		{"you must have a tty", "sudo wants a terminal: remove requiretty from its configuration"},
		{"Could not resolve", "the machine cannot resolve names: check nameserver and gateway of the deployment"},
		{"Temporary failure resolving", "the machine cannot resolve names: check nameserver and gateway of the deployment"},
		{"Could not get lock", "another package manager is running on the machine"},
		{"Unable to locate package", "the package repository does not have it: check the version and the mirror"},
		{"is not served; there is:", "the package repository does not have this version"},
		{"swap is still on", "swap could not be switched off"},
		{"couldn't validate the identity of the API Server", "the join token has expired, or the control plane is another one"},
		{"token id", "the join token is not known to the control plane"},
		{"ImagePull", "container images could not be pulled"},
		{"failed to pull image", "container images could not be pulled"},
		{"certificate has expired or is not yet valid", "the clocks of the machines differ"},
		{"Command Timed out", "the action ran into its time limit"},
		{"i/o timeout", "the machine does not answer"},
		{"connection refused", "nothing listens there"},
	}
}

// Likely is " (likely: ...)" with the cause that usually lies behind a text, or "".
func Likely(text string) string {
	for _, c := range causes() {
		if strings.Contains(text, c.text) {
			return " (likely: " + c.cause + ")"
		}
	}
	return ""
}

// Explain says what went wrong in an action, for people: the task, the error, the
// last lines of its output (masked) and, where one is known, the likely cause.
func Explain(e wire.LogEntry) string {
	task, _, _ := strings.Cut(e.Task, "#")
	text := fmt.Sprintf("action %s failed: %s", task, e.Error)
	if e.Error == "" {
		text = fmt.Sprintf("action %s did not say what it should", task)
	}
	out := Mask(strings.TrimSpace(e.Entry))
	text += Likely(e.Error + "\n" + out)
	if out == "" || out == wire.NoOutput {
		return text
	}
	lines := strings.Split(out, "\n")
	return text + "; its output ends: " + strings.Join(lines[max(0, len(lines)-lastLines):], " | ")
}
