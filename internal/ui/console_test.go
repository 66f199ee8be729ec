package ui

import "testing"

// What hosts and disks call themselves is shown to a person who decides about a wipe.
func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                         "plain",
		" a \t b\r\nc ":                 "a b c",
		"\x1b[2K\x1b[1Ayes\x07":         "[2K[1Ayes",
		"\u009b31mred":                  "31mred",
		"a\u202egpj.exe\u202c\u2066b":   "agpj.exeb",
		"Größe 480\u00a0GB\u2028second": "Größe 480 GB second",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", in, got, want)
		}
	}
}
