package receipt

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// public is a public key as a line of a file, always the same for a number.
func public(tb testing.TB, n byte) (ssh.PublicKey, string) {
	tb.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	k, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		tb.Fatal(err)
	}
	return k.PublicKey(), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey())))
}

func TestAllowedSigners(t *testing.T) {
	key, line := public(t, 1)
	_, other := public(t, 2)
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		file, signer string
		want, err    string // principals, or a part of the error
	}{
		"one":                   {"ann@ops " + line, "", "ann@ops", ""},
		"comments and blanks":   {"# who\n\n  ann@ops " + line + " a comment\r\n", "", "ann@ops", ""},
		"another key":           {"ann@ops " + other, "", "", "none of the allowed signers'"},
		"nobody":                {"", "", "", "none of the allowed signers'"},
		"the second":            {"bob@ops " + other + "\nann@ops " + line, "", "ann@ops", ""},
		"by name":               {"bob@ops,*@ops " + line, "ann@ops", "bob@ops,*@ops", ""},
		"by another name":       {"ann@ops " + line, "bob@ops", "", `line 1 has it for "ann@ops" only`},
		"a name that is barred": {"*@ops,!bob@ops " + line, "bob@ops", "", "only"},
		"one letter":            {"an?@ops " + line, "ann@ops", "an?@ops", ""},
		"no brackets":           {"[a]nn@ops " + line, "ann@ops", "", "only"},
		"quoted":                {`"ann@ops,bob@ops" ` + line, "bob@ops", "ann@ops,bob@ops", ""},
		"for receipts":          {`ann@ops namespaces="git,` + Namespace + `" ` + line, "", "ann@ops", ""},
		"for anything alike":    {`ann@ops namespaces="receipt@*" ` + line, "", "ann@ops", ""},
		"for git":               {`ann@ops namespaces="git" ` + line, "", "", `the namespaces "git" only`},
		"in time":               {`ann@ops valid-after="20260601",valid-before="20260602" ` + line, "", "ann@ops", ""},
		"not yet":               {`ann@ops valid-after="202606011201" ` + line, "", "", "from 2026-06-01T12:01:00Z on only"},
		"no longer":             {`ann@ops valid-before="20260601115959Z" ` + line, "", "", "until 2026-06-01T11:59:59Z only"},
		"expired, renewed":      {"ann@ops valid-before=\"20260101\" " + line + "\nann@new " + line, "", "ann@new", ""},
		"a CA":                  {"*@ops cert-authority " + line, "", "", "none of the allowed signers'"},
		"no key":                {"ann@ops", "", "", "line 1: want PRINCIPALS"},
		"half a key":            {"ann@ops ssh-ed25519 AAAA", "", "", "line 1: want PRINCIPALS"},
		"an open quote":         {`# x` + "\n" + `"ann@ops ` + line, "", "", "line 2: a quote is not closed"},
		"an unknown option":     {"ann@ops no-pty " + line, "", "", `unknown option "no-pty"`},
		"no time":               {`ann@ops valid-before="tomorrow" ` + line, "", "", `"tomorrow" is no time`},
		"the 31st of June":      {`ann@ops valid-before="20260631" ` + line, "", "", "is no time"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := ParseAllowedSigners([]byte(tt.file), time.UTC)
			got := ""
			if err == nil {
				got, err = a.Find(Signature{Public: key}, tt.signer, at)
			}
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%q, %v; want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

// Times without a Z are those of the place.
func TestAllowedSignersLocalTime(t *testing.T) {
	key, line := public(t, 1)
	a, err := ParseAllowedSigners([]byte(`x valid-before="202606011200" `+line), time.FixedZone("", 7200))
	if err != nil {
		t.Fatal(err)
	}
	for at, ok := range map[string]bool{"2026-06-01T10:00:00Z": true, "2026-06-01T10:00:01Z": false} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Find(Signature{Public: key}, "", when); (err == nil) != ok {
			t.Errorf("%s: %v", at, err)
		}
	}
}

func FuzzAllowedSigners(f *testing.F) {
	key, line := public(f, 1)
	f.Add([]byte(`"a b",c namespaces="x",valid-after="20260101Z" ` + line + "\n# x\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		a, err := ParseAllowedSigners(data, time.UTC)
		if err == nil {
			_, _ = a.Find(Signature{Public: key}, "ann", time.Unix(0, 0))
		}
	})
}
