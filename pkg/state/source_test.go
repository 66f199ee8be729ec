package state_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/state"
)

// tree writes files below a new directory and returns it.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// where lists documents as "file:document:line first-line", the files relative to dir.
func where(dir string, docs []capi.Document) []string {
	var list []string
	for _, d := range docs {
		first, _, _ := strings.Cut(string(d.Raw), "\n")
		file := strings.TrimPrefix(d.Origin.File, dir+string(filepath.Separator))
		list = append(list, file+":"+strconv.Itoa(d.Origin.Document)+":"+strconv.Itoa(d.Origin.Line)+" "+strings.TrimSpace(first))
	}
	return list
}

// stdin reads text as standard input.
func stdin(t *testing.T, text string) ([]capi.Document, error) {
	t.Helper()
	return state.Files(t.Context(), state.FileOptions{Paths: []string{"-"}, Stdin: strings.NewReader(text)})
}

func same(t *testing.T, want, got []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// refused checks that the error is bad input and says want, with dir left out.
func refused(t *testing.T, err error, dir, want string) {
	t.Helper()
	var input *capi.InputError
	if !errors.As(err, &input) {
		t.Fatalf("got the error %v, want an *InputError", err)
	}
	got := err.Error()
	if dir != "" {
		got = strings.ReplaceAll(got, dir, "DIR")
	}
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSplitYAML(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"one":                       {"a: 1\n", []string{"-:1:1 a: 1"}},
		"no newline at the end":     {"a: 1", []string{"-:1:1 a: 1"}},
		"two":                       {"a: 1\n---\nb: 2\n", []string{"-:1:1 a: 1", "-:2:3 b: 2"}},
		"marker first and last":     {"---\na: 1\n---\n", []string{"-:1:2 a: 1"}},
		"comments and empty":        {"# one\n\n---\n# two\n---\n\n---\n# three\na: 1\n---\n   \n# four\n", []string{"-:1:9 a: 1"}},
		"line of the first content": {"\n# text\n\na: 1\n---\n\n\nb: 2\n", []string{"-:1:4 a: 1", "-:2:8 b: 2"}},
		"CRLF":                      {"a: 1\r\n---\r\n# x\r\n---\r\nb: 2\r\n", []string{"-:1:1 a: 1", "-:2:5 b: 2"}},
		"BOM":                       {"\xef\xbb\xbfa: 1\n---\nb: 2\n", []string{"-:1:1 a: 1", "-:2:3 b: 2"}},
		"inside a block scalar":     {"a: |\n  x\n  ---\n  y\n  ...\nb: 2\n", []string{"-:1:1 a: |"}},
		"marker with a comment":     {"a: 1\n--- # next\nb: 2\n", []string{"-:1:1 a: 1", "-:2:3 b: 2"}},
		"content after the marker":  {"a: 1\n--- {b: 2}\n---\tc\n", []string{"-:1:1 a: 1", "-:2:2 --- {b: 2}", "-:3:3 ---\tc"}},
		"not markers":               {"a:\n- ----\n- ---x\n---x: 1\n----\n", []string{"-:1:1 a:"}},
		"end markers":               {"a: 1\n...\n# x\n...\nb: 2\n", []string{"-:1:1 a: 1", "-:2:5 b: 2"}},
		"directives":                {"%YAML 1.2\n---\na: 1\n...\n%YAML 1.2\n---\nb: 2\n", []string{"-:1:1 %YAML 1.2", "-:2:5 %YAML 1.2"}},
		"percent in content":        {"a: 1\n---\nb: |\n%c: 2\n", []string{"-:1:1 a: 1", "-:2:3 b: |"}},
		"braces that are not JSON":  {"{a: 1}\n---\n{b: 2}\n", []string{"-:1:1 {a: 1}", "-:2:3 {b: 2}"}},
		"JSON":                      {"{\"a\": 1}\n", []string{"-:1:1 {\"a\": 1}"}},
		"several JSON values":       {"\n{\n\"a\": 1}\n\n{\"b\": 2} {\"c\": 3}", []string{"-:1:2 {", "-:2:5 {\"b\": 2}", "-:3:5 {\"c\": 3}"}},
		"JSON in YAML documents":    {"{\"a\": 1}\n---\n{\"b\": 2}\n", []string{"-:1:1 {\"a\": 1}", "-:2:3 {\"b\": 2}"}},
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := stdin(t, test.text)
			if err != nil {
				t.Fatal(err)
			}
			same(t, test.want, where("", docs))
		})
	}
}

// TestJSONEscapes: a character that JSON has in two halves reaches the YAML
// reader whole, and what only looks like one stays.
func TestJSONEscapes(t *testing.T) {
	docs, err := stdin(t, `{"a": "\ud83d\ude00\u00e4", "b": "\\ud83d\\ude00", "c": "\ud83d!"}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(docs[0].Raw), `{"a": "😀\u00e4", "b": "\\ud83d\\ude00", "c": "\ud83d!"}`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestNotText(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":         {"", "-: no objects in it"},
		"only comments": {"# a\n---\n# b\n", "-: no objects in it"},
		"binary":        {"a: 1\nb: \xff\xfe\n", "-:2: not a text file in UTF-8"},
		"UTF-16":        {"\xff\xfea\x00:\x00", "-: encoded in UTF-16: save it as UTF-8"},
		"a web page":    {"\n<!DOCTYPE html>\n", "-: a web page, not YAML: get the raw file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := stdin(t, test.text)
			refused(t, err, "", test.want)
		})
	}
}

func TestDirectory(t *testing.T) {
	dir := tree(t, map[string]string{
		"b.yaml": "b: 1\n---\nb: 2\n", "a.yml": "a: 1\n", "c.json": `{"c": 1}`, "README.md": "# not YAML: {\n", "d.yaml.orig": "x: 1\n",
		".hidden.yaml": "x: 1\n", ".git/config.yaml": "x: 1\n", "sub/e.yaml": "e: 1\n", "sub/deep/f.yaml": "f: 1\n",
	})
	top := []string{"a.yml:1:1 a: 1", "b.yaml:1:1 b: 1", "b.yaml:2:3 b: 2", `c.json:1:1 {"c": 1}`}
	docs, err := state.Files(t.Context(), state.FileOptions{Paths: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, top, where(dir, docs))

	docs, err = state.Files(t.Context(), state.FileOptions{Paths: []string{dir}, Recursive: true})
	if err != nil {
		t.Fatal(err)
	}
	same(t, append(top, "sub/deep/f.yaml:1:1 f: 1", "sub/e.yaml:1:1 e: 1"), where(dir, docs))

	// A file that comes twice is read once, and a file may have any name.
	docs, err = state.Files(t.Context(), state.FileOptions{Paths: []string{
		filepath.Join(dir, "d.yaml.orig"), filepath.Join(dir, "sub", "e.yaml"), filepath.Join(dir, "sub"), filepath.Join(dir, "sub", "..", "sub", "e.yaml"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, []string{"d.yaml.orig:1:1 x: 1", "sub/e.yaml:1:1 e: 1"}, where(dir, docs))
}

// TestLinks: a link to a file is a file, a link to a directory is not followed.
func TestLinks(t *testing.T) {
	dir := tree(t, map[string]string{"real/a.yaml": "a: 1\n"})
	for link, to := range map[string]string{"real/b.yaml": "a.yaml", "real/loop": ".", "real/loop.yaml": "."} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	docs, err := state.Files(t.Context(), state.FileOptions{Paths: []string{dir}, Recursive: true})
	if err != nil {
		t.Fatal(err)
	}
	same(t, []string{"real/a.yaml:1:1 a: 1", "real/b.yaml:1:1 a: 1"}, where(dir, docs))
}

// TestRefusedPaths: what is wrong with the arguments, all of it at once.
func TestRefusedPaths(t *testing.T) {
	dir := tree(t, map[string]string{
		"empty/readme.txt": "x", "below/sub/a.yaml": "a: 1\n", "bad.json": "{\"a\": 1,\n\n\"b\": }\n",
		"k/kustomization.yaml": "resources: []\n", "k/a.yaml": "a: 1\n", "big.yaml": strings.Repeat("# comment\n", state.MaxFileSize/10+1),
	})
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, test := range map[string]struct {
		opts state.FileOptions
		want string
	}{
		"nothing":        {state.FileOptions{}, "command line: nothing to read: give -f FILE (or directory, URL, - for standard input) or -k DIRECTORY"},
		"both":           {state.FileOptions{Paths: []string{in("k")}, Kustomize: in("k")}, "command line: give either -f or -k, not both"},
		"empty argument": {state.FileOptions{Paths: []string{""}}, "command line: -f needs the name of a file or directory, a URL, or - for standard input"},
		"missing": {state.FileOptions{Paths: []string{in("no.yaml"), in("none")}},
			"2 problems in the input\nDIR/no.yaml: no such file or directory\nDIR/none: no such file or directory"},
		"empty directory": {state.FileOptions{Paths: []string{in("empty")}}, "DIR/empty: no *.yaml, *.yml or *.json file in this directory"},
		"only below":      {state.FileOptions{Paths: []string{in("below")}}, "DIR/below: no *.yaml, *.yml or *.json file in this directory, but there are some below it: add -R"},
		"below, with -R":  {state.FileOptions{Paths: []string{in("empty")}, Recursive: true}, "DIR/empty: no *.yaml, *.yml or *.json file in this directory"},
		"JSON":            {state.FileOptions{Paths: []string{in("bad.json")}}, "DIR/bad.json:3: not valid JSON: invalid character '}' looking for beginning of value"},
		"kustomization":   {state.FileOptions{Paths: []string{in("k")}}, "DIR/k/kustomization.yaml: this directory is a kustomization: read it with -k DIR/k"},
		"too large":       {state.FileOptions{Paths: []string{in("big.yaml")}}, "DIR/big.yaml: larger than 16 MiB: not a file of Cluster API objects"},
		"stdin twice": {state.FileOptions{Paths: []string{"-", "-"}, Stdin: strings.NewReader("a: 1\n")},
			"-: standard input can be read only once"},
		"stdin too large": {state.FileOptions{Paths: []string{"-"}, Stdin: io.LimitReader(spaces{}, state.MaxFileSize+1)},
			"-: larger than 16 MiB: not a file of Cluster API objects"},
		"stdin fails": {state.FileOptions{Paths: []string{"-"}, Stdin: failing{}}, "-: the pipe broke"},
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := state.Files(t.Context(), test.opts)
			if docs != nil {
				t.Errorf("got %d documents as well", len(docs))
			}
			refused(t, err, dir, test.want)
		})
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the pipe broke") }

func TestTooManyFiles(t *testing.T) {
	dir := t.TempDir()
	one := filepath.Join(dir, "one")
	if err := os.WriteFile(one, []byte("a: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range state.MaxFiles + 1 {
		if err := os.Link(one, filepath.Join(dir, strconv.Itoa(100000+i)+".yaml")); err != nil {
			t.Fatal(err)
		}
	}
	_, err := state.Files(t.Context(), state.FileOptions{Paths: []string{dir}})
	refused(t, err, dir, "DIR/110000.yaml: more than 10000 files: give them in smaller groups")
}

// TestStdinIsLeftBehind: nobody types anything and the user presses Ctrl-C.
func TestStdinIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		typed := make(silent)
		_, err := state.Files(ctx, state.FileOptions{Paths: []string{"-"}, Stdin: typed})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(typed)
	})
}

// silent is a reader that has nothing until it is closed.
type silent chan struct{}

func (s silent) Read([]byte) (int, error) {
	<-s
	return 0, io.EOF
}

// TestStopped: after Ctrl-C nothing more is read.
func TestStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := state.Files(ctx, state.FileOptions{Paths: []string{t.TempDir()}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestNoStdin(t *testing.T) {
	_, err := state.Files(t.Context(), state.FileOptions{Paths: []string{"-"}})
	refused(t, err, "", "-: there is no standard input")
}

// transport answers without a network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestURL(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good.yaml":
			_, _ = io.WriteString(w, "a: 1\n---\nb: 2\n")
		case "/moved":
			http.Redirect(w, r, "/good.yaml", http.StatusFound)
		case "/page":
			_, _ = io.WriteString(w, "<html></html>")
		case "/big":
			_, _ = io.Copy(w, io.LimitReader(spaces{}, state.MaxFileSize+1))
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "a: 1\n")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	secret := strings.Replace(server.URL, "://", "://user:hunter2@", 1)
	for path, test := range map[string]struct {
		docs int
		want string
	}{
		server.URL + "/good.yaml":            {2, ""},
		server.URL + "/moved":                {2, ""},
		secret + "/good.yaml?token=t0psecre": {2, ""},
		secret + "/none?token=t0psecre":      {0, server.URL + "/none: the server answered 404 Not Found"},
		server.URL + "/page":                 {0, server.URL + "/page: a web page, not YAML: get the raw file"},
		server.URL + "/big":                  {0, server.URL + "/big: larger than 16 MiB: not a file of Cluster API objects"},
		server.URL + "/cut":                  {0, server.URL + "/cut: unexpected EOF"},
		"http://":                            {0, "command line: -f was given a URL that is not valid"},
		"http://[::1":                        {0, "command line: -f was given a URL that is not valid"},
		"http://127.0.0.1:1/x?t=t0psecre":    {0, "http://127.0.0.1:1/x: dial tcp 127.0.0.1:1: connect: connection refused"},
	} {
		t.Run(path, func(t *testing.T) {
			docs, err := state.Files(t.Context(), state.FileOptions{Paths: []string{path}})
			if test.want != "" {
				refused(t, err, "", test.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(docs) != test.docs {
				t.Errorf("got %d documents", len(docs))
			}
			for _, d := range docs {
				if strings.Contains(d.Origin.File, "hunter2") || strings.Contains(d.Origin.File, "t0psecre") {
					t.Errorf("the origin shows a secret: %s", d.Origin.File)
				}
			}
		})
	}
}

// TestSlowURL: a server that never answers costs half a minute, and Ctrl-C nothing.
func TestSlowURL(t *testing.T) {
	client := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})}
	opts := state.FileOptions{Paths: []string{"https://plunder.example.com/a.yaml"}, HTTPClient: client}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := state.Files(t.Context(), opts)
		refused(t, err, "", "https://plunder.example.com/a.yaml: no complete answer within 30s")
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := state.Files(ctx, opts)
		var input *capi.InputError
		if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &input) {
			t.Errorf("got %v", err)
		}
	})
}

func TestKustomize(t *testing.T) {
	const machine = "apiVersion: infrastructure.cluster.x-k8s.io/v1alpha1\nkind: PlunderMachine\nmetadata:\n  name: m\nspec:\n  ipaddress: 10.1.0.1\n"
	dir := tree(t, map[string]string{
		"base/kustomization.yaml":    "resources: [m.yaml]\n",
		"base/m.yaml":                machine,
		"overlay/kustomization.yaml": "namePrefix: lab-\nresources: [../base]\npatches:\n- target: {kind: PlunderMachine}\n  patch: '[{\"op\": \"replace\", \"path\": \"/spec/ipaddress\", \"value\": \"10.1.0.2\"}]'\n",
		"file/kustomization.yaml":    "resources: [../base]\npatches: [{path: patch.yaml, target: {kind: PlunderMachine}}]\n",
		"file/patch.yaml":            "- op: add\n  path: /spec/deploymentType\n  value: preseed\n",
		"git/kustomization.yaml":     "resources: [../base, 'github.com/plunder-app/capplunder//examples/simple?ref=main']\n",
		"https/kustomization.yaml":   "resources: ['https://127.0.0.1:1/m.yaml']\n",
		"nested/kustomization.yml":   "resources: [../https]\n",
		"patched/Kustomization":      "resources: [../base]\npatches: [{path: 'https://127.0.0.1:1/p.yaml'}]\n",
		"plugin/kustomization.yaml":  "resources: [../base]\ntransformers: [t.yaml]\n",
		"plugin/t.yaml":              "apiVersion: v1\nkind: T\nmetadata:\n  name: t\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {path: /bin/true}\n",
		"broken/kustomization.yaml":  "resources: {\n",
		"plain/m.yaml":               machine,
		"empty/kustomization.yaml":   "configMapGenerator: []\n",
	})
	for name, want := range map[string]string{
		"base":    "10.1.0.1",
		"overlay": "name: lab-m",
		"file":    "deploymentType: preseed",
	} {
		docs, err := state.Files(t.Context(), state.FileOptions{Kustomize: filepath.Join(dir, name)})
		if err != nil {
			t.Error(err)
			continue
		}
		if len(docs) != 1 || !strings.Contains(string(docs[0].Raw), want) || !strings.HasSuffix(docs[0].Origin.File, name+" (kustomized)") || docs[0].Origin.Line != 1 {
			t.Errorf("%s: got %v %s", name, docs[0].Origin, docs[0].Raw)
		}
	}
	for name, want := range map[string]string{
		"git":             "nothing is fetched from elsewhere",
		"https":           "nothing is fetched from elsewhere",
		"nested":          "nothing is fetched from elsewhere",
		"patched":         "nothing is fetched from elsewhere",
		"plugin":          "kustomize: ",
		"broken":          "kustomize: ",
		"plain":           "kustomize: ",
		"empty":           "no objects in it",
		"none":            "no such directory",
		"plain/m.yaml":    "-k needs a directory with a kustomization file",
		"base/../nothing": "no such directory",
	} {
		_, err := state.Files(t.Context(), state.FileOptions{Kustomize: filepath.Join(dir, name)})
		var input *capi.InputError
		if !errors.As(err, &input) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %s", name, err, want)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// FuzzSplit: documents keep every byte of content and their true lines.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"a: 1\n---\nb: 2\n", "%YAML 1.2\n---\na\n...\nb", "{\"a\":1}{\"b\":2}", "# x\r\n--- |\r\n  ---\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		docs, err := stdin(t, text)
		if err != nil {
			var input *capi.InputError
			if !errors.As(err, &input) {
				t.Fatal(err)
			}
			return
		}
		lines := strings.SplitAfter(strings.TrimPrefix(text, "\xef\xbb\xbf"), "\n")
		last := 0
		for i, d := range docs {
			first, _, _ := strings.Cut(string(d.Raw), "\n")
			if d.Origin.Document != i+1 || d.Origin.Line < max(last, 1) || d.Origin.Line > len(lines) || !strings.Contains(lines[d.Origin.Line-1], first) {
				t.Fatalf("document %d claims to start at line %d: %q", i+1, d.Origin.Line, first)
			}
			last = d.Origin.Line
		}
	})
}
