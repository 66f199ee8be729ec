package cli

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/capi"
)

const receiptServer = "https://10.0.0.1:60443"

// wipedRecord is the record of a machine whose wipe was proved.
func wipedRecord() capi.Record {
	began := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	sum := sha256.Sum256(make([]byte, 4096))
	return capi.Record{
		Key: capi.Key{Namespace: "default", Name: "worker"}, HostName: "worker-l8v99", MAC: "00:50:56:a5:11:20", Address: "192.168.1.124",
		Wipe: capi.Wipe{RunID: "r1", By: "ann@ops", StartedAt: began, ProvedAt: began.Add(time.Minute), Disks: []capi.WipedDisk{{
			Disk: capi.Disk{Device: "/dev/sda", Bytes: 4096, Serial: "S3Z8\x1b[2J", Model: "Example"}, Method: capi.WipeQuick,
			Samples: []capi.Sample{{Offset: 0, Bytes: 4096, SHA256: hex.EncodeToString(sum[:])}},
		}}},
	}
}

// keyPair writes an SSH key and gives its files.
func keyPair(t *testing.T) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	private = filepath.Join(t.TempDir(), "id_ed25519")
	write(t, private, string(pem.EncodeToMemory(block)))
	write(t, private+".pub", string(ssh.MarshalAuthorizedKey(sshPub)))
	return private, private + ".pub"
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newReceipt writes a receipt of one machine as a run does.
func newReceipt(t *testing.T, key string, simulated bool) (file, said string) {
	t.Helper()
	streams, _, errOut := ui.Test("", false)
	f := newFactory(nil, streams, nil)
	f.opts.simulate = simulated
	file = filepath.Join(t.TempDir(), "wiped.json")
	w, err := openReceipt(t.Context(), f, receiptFlags{receipt: file, receiptKey: key}, receiptServer)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.add(wipedRecord()); err != nil {
		t.Fatal(err)
	}
	w.summary()
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return file, errOut.String()
}

func TestVerifyReceipt(t *testing.T) {
	private, public := keyPair(t)
	_, stranger := keyPair(t)
	signed, said := newReceipt(t, private, false)
	if !strings.Contains(said, "1 added, 1 in all, signed with SHA256:") || !strings.Contains(said, "check it: capplunder verify-receipt "+signed) {
		t.Errorf("summary: %s", said)
	}
	unsigned, said := newReceipt(t, "", false)
	if !strings.Contains(said, "not signed") {
		t.Errorf("summary: %s", said)
	}
	simulated, _ := newReceipt(t, "", true)
	dir := t.TempDir()
	read := func(file string) string {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	changed := filepath.Join(dir, "changed.json")
	write(t, changed, strings.Replace(read(signed), "worker-l8v99", "worker-l8v98", 1))
	write(t, changed+".sig", read(signed+".sig"))
	impossible := filepath.Join(dir, "impossible.json")
	write(t, impossible, strings.Replace(read(unsigned), `"bytes": 4096`, `"bytes": 8192`, 1))
	signers := filepath.Join(dir, "allowed_signers")
	write(t, signers, "ann@ops "+read(public))
	expired := filepath.Join(dir, "expired")
	write(t, expired, `ann@ops valid-before="20260401Z" `+read(public))
	prose := filepath.Join(dir, "prose")
	write(t, prose, "eggs")

	for name, tt := range map[string]struct {
		args    string
		code    int
		out     string // in stdout; "" for nothing there
		errors  string // in stderr
		without string // not in stderr
	}{
		"unsigned":             {unsigned, exitDone, "00:50:56:a5:11:20", "warning: it is not signed: anybody could have written it", "error"},
		"signed":               {signed, exitDone, "2026-03-01T10:01:00Z", "which was not checked against anybody's", "error"},
		"signed by a key":      {signed + " --key " + public, exitDone, "worker-l8v99", "1 disk of 1 machine, wiped and read back; signed with SHA256:", "warning"},
		"signed by a person":   {signed + " --allowed-signers " + signers + " --signer ann@ops", exitDone, "ann@ops", `of "ann@ops"`, "warning"},
		"by another person":    {signed + " --allowed-signers " + signers + " --signer bob@ops", exitRefused, "", "not allowed: line 1 has it for", ""},
		"by another key":       {signed + " --key " + stranger, exitRefused, "", "error: receipt " + signed + ": it is signed with the key SHA256:", ""},
		"key has expired":      {signed + " --allowed-signers " + expired, exitRefused, "", "until 2026-04-01T00:00:00Z only", ""},
		"key had not expired":  {signed + " --allowed-signers " + expired + " --verify-time 2026-03-31T00:00:00Z", exitDone, "worker", "signed with", "warning"},
		"unsigned, with a key": {unsigned + " --key " + public, exitRefused, "", "it is not signed", ""},
		"changed":              {changed, exitRefused, "", "the signature does not fit", ""},
		"impossible":           {impossible, exitRefused, "", "its end was not read back", ""},
		"simulated":            {simulated, exitDone, "[simulated] default/worker", "warning: these are simulated machines", "error"},
		"prose":                {prose, exitRefused, "", "it is no receipt", ""},
		"missing":              {prose + "x", exitUsage, "", "no such file", ""},
		"missing key":          {signed + " --key " + prose + "x", exitUsage, "", "--key: open", ""},
		"no key":               {signed + " --key " + prose, exitUsage, "", "line 1 is no public key", ""},
		"a private key":        {signed + " --key " + private, exitUsage, "", "is no public key", ""},
		"bad signers":          {signed + " --allowed-signers " + prose, exitUsage, "", "line 1: want PRINCIPALS", ""},
		"bad time":             {signed + " --allowed-signers " + signers + " --verify-time yesterday", exitUsage, "", `--verify-time "yesterday"`, ""},
		"both":                 {signed + " --key x --allowed-signers x", exitUsage, "", "do not go together", ""},
		"a signer of nobody's": {signed + " --signer x", exitUsage, "", "--signer goes with --allowed-signers", ""},
		"a time for nothing":   {signed + " --verify-time x", exitUsage, "", "--verify-time goes with --allowed-signers", ""},
		"names":                {signed + " -o name", exitUsage, "", "verify-receipt knows -o", ""},
		"a value":              {unsigned + " -o jsonpath={.receipt.machines[0].disks[0].bytes}", exitDone, "4096", "warning", ""},
	} {
		t.Run(name, func(t *testing.T) {
			streams, out, errOut := ui.Test("", false)
			code := Run(t.Context(), append([]string{"verify-receipt"}, strings.Fields(tt.args)...), streams, nil)
			if code != tt.code || !strings.Contains(out.String(), tt.out) || (tt.out == "") != (out.Len() == 0) || !strings.Contains(errOut.String(), tt.errors) {
				t.Errorf("exit %d, want %d\nstdout:\n%s\nstderr:\n%s", code, tt.code, out, errOut)
			}
			if tt.without != "" && strings.Contains(errOut.String(), tt.without) {
				t.Errorf("stderr has %q:\n%s", tt.without, errOut)
			}
			if strings.Contains(out.String(), "\x1b") {
				t.Errorf("stdout has control characters: %q", out)
			}
		})
	}
}

// The verdict as JSON, for one that holds and one that does not.
func TestVerifyReceiptJSON(t *testing.T) {
	private, public := keyPair(t)
	file, _ := newReceipt(t, private, false)
	for _, changed := range []bool{false, true} {
		if changed {
			write(t, file, "{}")
		}
		streams, out, errOut := ui.Test("", false)
		code := Run(t.Context(), []string{"verify-receipt", file, "--key", public, "-o", "json"}, streams, nil)
		var v receiptVerdict
		if err := json.Unmarshal(out.Bytes(), &v); err != nil {
			t.Fatal(err, errOut)
		}
		if changed {
			if code != exitRefused || v.Valid || len(v.Problems) != 1 || v.Receipt != nil || v.Signature != nil {
				t.Errorf("exit %d: %+v", code, v)
			}
			continue
		}
		if code != exitDone || !v.Valid || len(v.Warnings) > 0 || !v.Signature.Trusted || v.Signature.Type != "ssh-ed25519" || v.Receipt.Machines[0].By != "ann@ops" {
			t.Errorf("exit %d: %+v %+v", code, v, v.Signature)
		}
	}
}

// What cannot be written to is said before anything else happens.
func TestOpenReceiptRefuses(t *testing.T) {
	private, _ := keyPair(t)
	signed, _ := newReceipt(t, private, false)
	prose := filepath.Join(t.TempDir(), "prose")
	write(t, prose, "eggs")
	for name, tt := range map[string]struct {
		flags receiptFlags
		code  int
		want  string
	}{
		"none":          {receiptFlags{}, exitDone, ""},
		"a key alone":   {receiptFlags{receiptKey: private}, exitUsage, "--receipt-key goes with --receipt"},
		"no such key":   {receiptFlags{receipt: prose + ".json", receiptKey: prose + "x"}, exitUsage, "--receipt-key: key for receipts: open"},
		"no key at all": {receiptFlags{receipt: prose + ".json", receiptKey: prose}, exitUsage, "neither a private key of OpenSSH nor a public one"},
		"prose":         {receiptFlags{receipt: prose}, exitRefused, "it is no receipt"},
		"without a key": {receiptFlags{receipt: signed}, exitRefused, "give that key as well"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFactory(nil, first(ui.Test("", false)), nil)
			w, err := openReceipt(t.Context(), f, tt.flags, receiptServer)
			if exitCode(err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("exit %d, want %d: %v", exitCode(err), tt.code, err)
			}
			if err == nil { // it does nothing
				w.summary()
				if err := errors.Join(w.add(capi.Record{}), w.close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
