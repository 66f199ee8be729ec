package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// AllowedSigners says whose keys are trusted, as the file of that name does for
// ssh-keygen -Y verify (ssh-keygen(1), ALLOWED SIGNERS).
type AllowedSigners []allowedSigner

type allowedSigner struct {
	line          int
	principals    string // patterns, comma separated
	namespaces    string // likewise; "" for all
	after, before time.Time
	key           ssh.PublicKey
}

// ParseAllowedSigners reads an allowed signers file. local is the time zone of its times
// without a Z. Lines for certificate authorities are skipped: receipts are signed with
// plain keys.
func ParseAllowedSigners(data []byte, local *time.Location) (AllowedSigners, error) {
	var all AllowedSigners
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, ca, err := parseSigner(line, local)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		s.line = n
		if !ca {
			all = append(all, s)
		}
	}
	return all, nil
}

func parseSigner(line string, local *time.Location) (s allowedSigner, ca bool, err error) {
	rest := ""
	if strings.HasPrefix(line, `"`) {
		var ok bool
		if s.principals, rest, ok = strings.Cut(line[1:], `"`); !ok {
			return s, false, errors.New("a quote is not closed")
		}
	} else if i := strings.IndexAny(line, " \t"); i > 0 {
		s.principals, rest = line[:i], line[i:]
	}
	if s.principals == "" {
		return s, false, errors.New("want PRINCIPALS [OPTIONS] TYPE KEY")
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(rest)))
	if err != nil {
		return s, false, errors.New("want PRINCIPALS [OPTIONS] TYPE KEY, and there is no public key")
	}
	s.key = key
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		value = strings.Trim(value, `"`)
		switch strings.ToLower(name) {
		case "cert-authority":
			ca = true
		case "namespaces":
			s.namespaces = value
		case "valid-after":
			s.after, err = parseTime(value, local)
		case "valid-before":
			s.before, err = parseTime(value, local)
		default:
			err = fmt.Errorf("unknown option %q", name)
		}
		if err != nil {
			return s, false, err
		}
	}
	return s, ca, nil
}

// parseTime reads YYYYMMDD[HHMM[SS]][Z].
func parseTime(s string, local *time.Location) (time.Time, error) {
	digits, utc := strings.CutSuffix(s, "Z")
	if utc {
		local = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			if t, err := time.ParseInLocation(layout, digits, local); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: want YYYYMMDD[HHMM[SS]][Z]", s)
}

// Find says who may have signed at a time: the principals of the first line that allows
// the key to. want, if not "", is the principal it has to be. The error says why
// nobody.
func (a AllowedSigners) Find(sig Signature, want string, at time.Time) (principals string, err error) {
	reasons := []string{}
	for _, s := range a {
		if !bytes.Equal(s.key.Marshal(), sig.Public.Marshal()) {
			continue
		}
		switch {
		case want != "" && !matchList(want, s.principals):
			reasons = append(reasons, fmt.Sprintf("line %d has it for %q only", s.line, s.principals))
		case s.namespaces != "" && !matchList(Namespace, s.namespaces):
			reasons = append(reasons, fmt.Sprintf("line %d has it for the namespaces %q only, not for %s", s.line, s.namespaces, Namespace))
		case !s.after.IsZero() && at.Before(s.after):
			reasons = append(reasons, fmt.Sprintf("line %d has it from %s on only", s.line, s.after.Format(time.RFC3339)))
		case !s.before.IsZero() && at.After(s.before):
			reasons = append(reasons, fmt.Sprintf("line %d has it until %s only", s.line, s.before.Format(time.RFC3339)))
		default:
			return s.principals, nil
		}
	}
	if len(reasons) > 0 {
		return "", fmt.Errorf("it is signed with the key %s, which is not allowed: %s", sig.Fingerprint(), strings.Join(reasons, "; "))
	}
	return "", fmt.Errorf("it is signed with the key %s, which is none of the allowed signers'", sig.Fingerprint())
}

// matchList is match_pattern_list of OpenSSH: comma separated patterns with * and ?; one
// with ! in front that matches forbids.
func matchList(s, patterns string) bool {
	found := false
	for p := range strings.SplitSeq(patterns, ",") {
		p, not := strings.CutPrefix(p, "!")
		if matchPattern(s, p) {
			if not {
				return false
			}
			found = true
		}
	}
	return found
}

// matchPattern knows * and ? and nothing else; path.Match would stop at slashes and take
// brackets.
func matchPattern(s, p string) bool {
	escape := strings.NewReplacer(`\`, `\\`, `[`, `\[`, `/`, "\x00")
	ok, err := path.Match(escape.Replace(p), strings.ReplaceAll(s, "/", "\x00"))
	return ok && err == nil
}

// Principals are all that are allowed, sorted; for completion and messages.
func (a AllowedSigners) Principals() []string {
	var names []string
	for _, s := range a {
		names = append(names, strings.Split(s.principals, ",")...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
