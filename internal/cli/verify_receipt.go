package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/plunder-app/capplunder/internal/ui"
	"github.com/plunder-app/capplunder/pkg/receipt"
)

type verifyReceiptOptions struct {
	f *factory

	file           string
	allowedSigners string
	key            string
	signer         string
	at             string
	output         string
}

func newVerifyReceiptCmd(f *factory, runF func(context.Context, *verifyReceiptOptions) error) *cobra.Command {
	o := &verifyReceiptOptions{f: f}
	cmd := &cobra.Command{
		Use:   "verify-receipt FILE",
		Short: "Check the receipt of a wipe, offline",
		Long: `Check the receipt of a wipe, offline.

A receipt has to be complete and agree with itself: every disk was read back at its
start and its end, each range within the disk and with the digest of zeros. A
signature (FILE.sig) has to fit. With --allowed-signers or --key there has to be a
signature, and by one of those keys; without them the fingerprint of the key is
shown, and a warning that it was compared with nothing.

Only reads: no request is sent, and nothing is written. Running it again says the same.`,
		Example: `  capplunder verify-receipt wiped.json
  capplunder verify-receipt wiped.json --key ~/.ssh/id_ed25519.pub
  capplunder verify-receipt wiped.json --allowed-signers allowed_signers --signer ops@example.com -o json`,
		Args: arguments(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			switch {
			case o.allowedSigners != "" && o.key != "":
				return usagef(cmd, "--allowed-signers and --key do not go together")
			case o.allowedSigners == "" && o.signer != "":
				return usagef(cmd, "--signer goes with --allowed-signers")
			case o.allowedSigners == "" && o.at != "":
				return usagef(cmd, "--verify-time goes with --allowed-signers")
			}
			if runF != nil {
				return runF(cmd.Context(), o)
			}
			return runVerifyReceipt(cmd.Context(), o)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&o.allowedSigners, "allowed-signers", "", "`file` that says whose keys are trusted, as for ssh-keygen -Y verify")
	fs.StringVar(&o.key, "key", "", "`file` with the public key that has to have signed")
	fs.StringVar(&o.signer, "signer", "", "`principal` of the allowed signers that has to have signed (default any)")
	fs.StringVar(&o.at, "verify-time", "", "`time` (RFC 3339) at which the key has to have been allowed (default now)")
	addOutputFlag(cmd, &o.output, "table, wide, json, yaml or jsonpath=TEMPLATE")
	return cmd
}

// receiptVerdict is what -o json says about a receipt.
type receiptVerdict struct {
	Kind      string            `json:"kind"` // ReceiptVerdict
	File      string            `json:"file"`
	Valid     bool              `json:"valid"`
	Problems  []string          `json:"problems,omitempty"`
	Warnings  []string          `json:"warnings,omitempty"`
	Signature *signatureVerdict `json:"signature,omitempty"` // one that fits
	Receipt   *receipt.Receipt  `json:"receipt,omitempty"`   // none if it could not be read
}

type signatureVerdict struct {
	Fingerprint string `json:"fingerprint"`
	Type        string `json:"type"`
	// Trusted: it is by a key that was given, or allowed; Principals are whose that is.
	Trusted    bool   `json:"trusted"`
	Principals string `json:"principals,omitempty"`
}

// badReceiptError is about a receipt that proves nothing.
type badReceiptError struct {
	file     string
	problems []string
}

func (e *badReceiptError) Error() string {
	lines := make([]string, len(e.problems))
	for i, p := range e.problems {
		lines[i] = fmt.Sprintf("receipt %s: %s", e.file, p)
	}
	return strings.Join(lines, "\n")
}

func runVerifyReceipt(_ context.Context, o *verifyReceiptOptions) error {
	f := o.f
	out, err := parseOutput(o.output)
	if err != nil {
		return err
	}
	if err := out.allow("verify-receipt", formatTable, formatWide, formatJSON, formatYAML, formatJSONPath); err != nil {
		return err
	}
	trust, err := o.trust()
	if err != nil {
		return err
	}
	v := receiptVerdict{Kind: "ReceiptVerdict", File: o.file}
	if err := v.judge(trust); err != nil {
		return usagef(nil, "%w", err)
	}
	for _, w := range v.Warnings {
		f.warnf("%s", w)
	}
	if out.format != formatTable && out.format != formatWide {
		err = f.printObject(out, v)
	} else if v.Valid {
		err = o.show(out, v)
	}
	if err == nil && !v.Valid {
		err = &badReceiptError{o.file, v.Problems}
	}
	return err
}

// trust says whose signature it is, or why it is nobody's who is trusted; nil if nothing
// is known about anybody.
type trust func(receipt.Signature) (principals string, err error)

func (o *verifyReceiptOptions) trust() (trust, error) {
	switch {
	case o.key != "":
		data, err := os.ReadFile(o.key)
		if err != nil {
			return nil, usagef(nil, "--key: %w", err)
		}
		keys, err := receipt.ParsePublicKeys(data)
		if err != nil {
			return nil, usagef(nil, "--key %s: %w", o.key, err)
		}
		return func(s receipt.Signature) (string, error) { return "", signedBy(s, o.key, keys) }, nil
	case o.allowedSigners != "":
		at := time.Now()
		if o.at != "" {
			var err error
			if at, err = time.Parse(time.RFC3339, o.at); err != nil {
				return nil, usagef(nil, "--verify-time %q: want a time as 2026-01-31T15:04:05Z", o.at)
			}
		}
		data, err := os.ReadFile(o.allowedSigners)
		if err != nil {
			return nil, usagef(nil, "--allowed-signers: %w", err)
		}
		allowed, err := receipt.ParseAllowedSigners(data, time.Local)
		if err != nil {
			return nil, usagef(nil, "--allowed-signers %s: %w", o.allowedSigners, err)
		}
		return func(s receipt.Signature) (string, error) { return allowed.Find(s, o.signer, at) }, nil
	}
	return nil, nil
}

func signedBy(s receipt.Signature, file string, keys []ssh.PublicKey) error {
	if s.By(keys...) {
		return nil
	}
	return fmt.Errorf("it is signed with the key %s, not with the one in %s", s.Fingerprint(), file)
}

// judge fills the verdict in. Its error is for a file that cannot be read at all.
func (v *receiptVerdict) judge(trusted trust) error {
	r, data, err := receipt.Read(v.File)
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("receipt: %w", err)
	case err != nil:
		v.problem(err)
		return nil
	}
	v.Receipt = &r
	if err := r.Check(); err != nil {
		v.problem(err)
	}
	if r.Simulated {
		v.warn("these are simulated machines: no real disk was wiped")
	}
	v.judgeDisks(r)
	sig, err := receipt.SignatureOf(v.File, data)
	switch {
	case errors.Is(err, receipt.ErrUnsigned) && trusted == nil:
		v.warn("it is not signed: anybody could have written it")
	case err != nil:
		v.problem(err)
	default:
		v.judgeSignature(sig, trusted)
	}
	v.Valid = len(v.Problems) == 0
	return nil
}

func (v *receiptVerdict) judgeSignature(sig receipt.Signature, trusted trust) {
	v.Signature = &signatureVerdict{Fingerprint: sig.Fingerprint(), Type: sig.Public.Type()}
	if sig.Pending {
		v.warn("the run that wrote it was killed; the signature that fits is in " + v.File + ".sig.new, until that run is repeated")
	}
	if trusted == nil {
		v.warn("it is signed with the key " + sig.Fingerprint() + ", which was not checked against anybody's: give --allowed-signers or --key")
		return
	}
	principals, err := trusted(sig)
	if err != nil {
		v.problem(err)
		return
	}
	v.Signature.Trusted, v.Signature.Principals = true, principals
}

// judgeDisks warns of disks that the receipt does not tell from others of their size.
func (v *receiptVerdict) judgeDisks(r receipt.Receipt) {
	for _, m := range r.Machines {
		for _, d := range m.Disks {
			if d.Serial == "" && d.WWN == "" && d.ID == "" {
				v.warn(fmt.Sprintf("machine %q: disk %q has no serial number: nothing says which disk it was", m.Key(), d.Device))
			}
		}
	}
}

func (v *receiptVerdict) problem(err error) {
	v.Problems = append(v.Problems, strings.Split(err.Error(), "\n")...)
}

func (v *receiptVerdict) warn(text string) { v.Warnings = append(v.Warnings, text) }

// show prints the disks, and whose word it is.
func (o *verifyReceiptOptions) show(out output, v receiptVerdict) error {
	t := ui.Table{Columns: []ui.Column{
		{Name: "MACHINE"}, {Name: "HOST"}, {Name: "MAC ADDRESS"}, {Name: "ADDRESS", Wide: true},
		{Name: "DISK"}, {Name: "MODEL"}, {Name: "SERIAL"}, {Name: "WWN", Wide: true}, {Name: "SIZE"}, {Name: "METHOD"}, {Name: "SAMPLES"},
		{Name: "PROVED"}, {Name: "BY"}, {Name: "RUN", Wide: true},
	}}
	disks := 0
	for _, m := range v.Receipt.Machines {
		for _, d := range m.Disks {
			disks++
			serial := d.Serial
			if serial == "" {
				serial = d.WWN + d.ID // one of which is empty
			}
			t.Rows = append(t.Rows, []string{
				m.Key().String(), m.HostName, m.MAC, m.Address,
				d.Device, d.Model, serial, d.WWN, fmt.Sprintf("%.1f GB", float64(d.Bytes)/1e9), string(d.Method), strconv.Itoa(len(d.Samples)),
				m.ProvedAt.UTC().Format(time.RFC3339), m.By, m.RunID,
			})
		}
	}
	prefix := ""
	if v.Receipt.Simulated {
		prefix = simulatedPrefix
	}
	if err := t.Write(o.f.io.Out, ui.TableOptions{Wide: out.format == formatWide, Color: o.f.io.OutColor, Prefix: prefix}); err != nil {
		return err
	}
	text := fmt.Sprintf("%s of %s, wiped and read back", counted(disks, "disk"), counted(len(v.Receipt.Machines), "machine"))
	if s := v.Signature; s != nil && s.Trusted {
		text += "; signed with " + s.Fingerprint
		if s.Principals != "" {
			text += fmt.Sprintf(" of %q", s.Principals)
		}
	}
	o.f.noticef("%s", text)
	return nil
}

// counted is "1 disk", "2 disks".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
