package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/receipt"
)

// receiptFlags are --receipt and --receipt-key.
type receiptFlags struct {
	receipt    string
	receiptKey string
}

func (r *receiptFlags) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&r.receipt, "receipt", "", "write down every disk that was wiped, with the digests of what was read back, in this JSON `file`; one that is there is continued")
	fs.StringVar(&r.receiptKey, "receipt-key", "", "sign the receipt with this private SSH key, or with the SSH agent if the `file` is a public key")
}

// receiptWriter is the receipt of a run; one without --receipt does nothing.
type receiptWriter struct {
	f    *factory
	path string
	key  *receipt.Key
	file *receipt.File // nil without --receipt
}

// openReceipt begins or continues the receipt that the flags ask for. It sends no request: serverURL
// only goes into the receipt. What cannot be written to, or must not be, is an error
// before anything is touched.
func openReceipt(ctx context.Context, f *factory, flags receiptFlags, serverURL string) (*receiptWriter, error) {
	w := &receiptWriter{f: f, path: flags.receipt}
	switch {
	case flags.receipt == "" && flags.receiptKey != "":
		return nil, usagef(nil, "--receipt-key goes with --receipt")
	case flags.receipt == "":
		return w, nil
	}
	if flags.receiptKey != "" {
		var err error
		w.key, err = receipt.LoadKey(ctx, flags.receiptKey, receipt.KeyOptions{Passphrase: f.passphrase(), AgentSocket: f.getenv("SSH_AUTH_SOCK")})
		switch {
		case errors.Is(err, context.Canceled):
			return nil, err
		case err != nil:
			return nil, usagef(nil, "--receipt-key: %w", err)
		}
	}
	file, err := receipt.Open(flags.receipt, receipt.Options{
		Tool:      name + " " + readBuildInfo().Version,
		Server:    serverURL,
		Simulated: f.opts.simulate,
		Key:       w.key,
	})
	if err != nil {
		return nil, err
	}
	w.file = file
	return w, nil
}

// passphrase asks for the passphrase of a key; nil if nobody can be asked.
func (f *factory) passphrase() func(context.Context, string) ([]byte, error) {
	if !f.io.InTTY {
		return nil
	}
	return func(ctx context.Context, file string) ([]byte, error) {
		return f.io.Password(ctx, fmt.Sprintf("Passphrase of %s", file))
	}
}

// add is for apply.DeleteOptions.Wiped.
func (w *receiptWriter) add(rec capi.Record) error {
	if w.file == nil {
		return nil
	}
	return w.file.Add(rec)
}

// summary says what was written, and how to check it.
func (w *receiptWriter) summary() {
	if w.file == nil {
		return
	}
	added, machines := w.file.Added()
	if machines == 0 {
		w.f.noticef("no receipt: no machine was wiped")
		return
	}
	signed := "not signed"
	if w.key != nil {
		signed = "signed with " + w.key.Fingerprint()
	}
	w.f.noticef("receipt %s: %d added, %d in all, %s", w.path, added, machines, signed)
	w.f.noticef("check it: %s verify-receipt %s", name, shellWord(w.path))
}

// close lets other runs write to the receipt.
func (w *receiptWriter) close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
