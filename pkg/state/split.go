package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// split cuts the content of a file into documents.
func (r *reader) split(file string, data []byte) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")):
		r.fail(file, "encoded in UTF-16: save it as UTF-8")
		return
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte("<")):
		r.fail(file, "a web page, not YAML: get the raw file")
		return
	case !utf8.Valid(data):
		r.failAt(capi.Origin{File: file, Line: invalidLine(data)}, "not a text file in UTF-8")
		return
	}
	var docs []capi.Document
	if looksLikeJSON := bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")); looksLikeJSON || path.Ext(file) == ".json" {
		var err error
		var line int
		docs, line, err = splitJSON(file, data)
		if err != nil {
			// YAML may start with a brace, too.
			if path.Ext(file) == ".json" {
				r.failAt(capi.Origin{File: file, Line: line}, "not valid JSON: %v", err)
				return
			}
			docs = splitYAML(file, data)
		}
	} else {
		docs = splitYAML(file, data)
	}
	if len(docs) == 0 {
		r.fail(file, "no objects in it")
		return
	}
	r.docs = append(r.docs, docs...)
}

// invalidLine is the first line that is not UTF-8.
func invalidLine(data []byte) int {
	line := 1
	for l := range bytes.Lines(data) {
		if !utf8.Valid(l) {
			break
		}
		line++
	}
	return line
}

// splitYAML cuts a YAML stream at its document markers. "---" and "..." are
// markers wherever they stand at the start of a line, alone or before a blank
// (YAML 1.2, section 9.1); inside a block scalar they are indented. A document
// starts at its first line of content, so that its line numbers are the file's.
func splitYAML(file string, data []byte) []capi.Document {
	var docs []capi.Document
	start, startLine := -1, 0 // of the current document, -1 before its content
	directives := false       // the current document has only directives (%YAML) so far
	flush := func(end int) {
		if start >= 0 {
			docs = append(docs, capi.Document{
				Origin: capi.Origin{File: file, Document: len(docs) + 1, Line: startLine},
				Raw:    data[start:end:end],
			})
		}
		start, directives = -1, false
	}
	offset, line := 0, 0
	for l := range bytes.Lines(data) {
		at := offset
		offset += len(l)
		line++
		text := strings.TrimRight(string(l), "\r\n")
		rest := strings.TrimSpace(text)
		begin := func() {
			if start < 0 {
				start, startLine = at, line
			}
		}
		switch {
		case isMarker(text, "---") && directives:
			directives = false // the marker that ends the directives
		case isMarker(text, "---"):
			flush(at)
			if rest = strings.TrimSpace(text[3:]); rest != "" && rest[0] != '#' {
				begin() // content on the line of the marker
			}
		case isMarker(text, "..."):
			flush(at)
		case start < 0 && (rest == "" || rest[0] == '#'):
		case start < 0 && text[0] == '%':
			begin()
			directives = true
		default:
			begin()
		}
	}
	flush(len(data))
	return docs
}

func isMarker(line, marker string) bool {
	rest, ok := strings.CutPrefix(line, marker)
	return ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t')
}

// splitJSON reads JSON values that follow each other. With an error comes the
// line it is on.
func splitJSON(file string, data []byte) ([]capi.Document, int, error) {
	var docs []capi.Document
	dec := json.NewDecoder(bytes.NewReader(data))
	lineAt := func(offset int64) int {
		return 1 + bytes.Count(data[:min(offset, int64(len(data)))], []byte("\n"))
	}
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return docs, 0, nil
		}
		if err != nil {
			offset := dec.InputOffset()
			if se := (*json.SyntaxError)(nil); errors.As(err, &se) {
				offset = max(se.Offset-1, 0)
			} else if errors.Is(err, io.ErrUnexpectedEOF) {
				offset = int64(len(data))
			}
			return nil, lineAt(offset), err
		}
		docs = append(docs, capi.Document{
			Origin: capi.Origin{File: file, Document: len(docs) + 1, Line: lineAt(dec.InputOffset() - int64(len(raw)))},
			Raw:    joinSurrogates(raw),
		})
	}
}

// joinSurrogates writes characters that JSON escapes as two UTF-16 halves
// (\ud83d\ude00) as they are: it is the one thing in JSON that YAML does not have.
func joinSurrogates(raw []byte) []byte {
	if !bytes.Contains(raw, []byte(`\ud`)) && !bytes.Contains(raw, []byte(`\uD`)) {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if r := utf16.DecodeRune(escape(raw[i:]), escape(raw[min(i+6, len(raw)):])); r != utf8.RuneError {
			out = utf8.AppendRune(out, r)
			i += 12
			continue
		}
		n := 1
		if raw[i] == '\\' { // with what it escapes, which may be a backslash
			n = min(2, len(raw)-i)
		}
		out = append(out, raw[i:i+n]...)
		i += n
	}
	return out
}

// escape is the value of the \uXXXX at the start of b, 0 when there is none.
func escape(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}
