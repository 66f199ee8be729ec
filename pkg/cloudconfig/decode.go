package cloudconfig

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Decode gives the text of data that stands in a Machine of v1alpha2: it is base64, as
// the provider of that time wrote it, unless it is the text itself (CAPI contract,
// section 9).
func Decode(inline string) ([]byte, error) {
	if len(inline) > 2*maxData {
		return nil, fmt.Errorf("bootstrap data has %d bytes, the most is %d", len(inline), 2*maxData)
	}
	if strings.HasPrefix(strings.TrimSpace(inline), "#") {
		return []byte(inline), nil
	}
	raw, err := decodeBase64(inline)
	if err != nil {
		return nil, errors.New(`bootstrap data is neither base64 nor does it begin with "#cloud-config"`)
	}
	return raw, nil
}

// decodeBase64 ignores white space, which block scalars end with.
func decodeBase64(s string) ([]byte, error) {
	s = strings.Join(strings.Fields(s), "")
	return base64.StdEncoding.DecodeString(s)
}

// content decodes the content of a file; limit is how many bytes it may have.
func content(text string, binary bool, encoding string, limit int) ([]byte, error) {
	raw := []byte(text)
	if binary {
		var err error
		if raw, err = decodeBase64(text); err != nil {
			return nil, errors.New("content: !!binary is not base64")
		}
	}
	base, zipped := false, false
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "text/plain":
	case "b64", "base64":
		base = true
	case "gz", "gzip":
		zipped = true
	case "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
		base, zipped = true, true
	default:
		return nil, errors.New("encoding: it is none of base64, gzip, gzip+base64")
	}
	if base {
		var err error
		if raw, err = decodeBase64(string(raw)); err != nil {
			return nil, errors.New("content: it is not base64")
		}
	}
	if zipped {
		r, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return nil, errors.New("content: it is not gzip")
		}
		if raw, err = io.ReadAll(io.LimitReader(r, int64(limit)+1)); err != nil {
			return nil, errors.New("content: it is broken gzip")
		}
	}
	if len(raw) > limit {
		return nil, fmt.Errorf("content: the files have more than %d MiB", maxContent>>20)
	}
	return raw, nil
}
