package receipt

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
)

func open(t *testing.T, file string, key *Key) *File {
	t.Helper()
	f, err := Open(file, Options{Tool: "capplunder test", Server: server, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func shut(t *testing.T, f *File) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// rearm replaces a part of the content of an armored signature by one of the same length.
func rearm(t *testing.T, armored, from, to []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(armored)
	if block == nil || !bytes.Contains(block.Bytes, from) || len(from) != len(to) {
		t.Fatal("not to be found")
	}
	block.Bytes = bytes.ReplaceAll(block.Bytes, from, to)
	return pem.EncodeToMemory(block)
}

// names are the files in a folder.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func localKey(t *testing.T) *Key {
	t.Helper()
	private, _ := newKey(t, "ed25519", "")
	key, err := LoadKey(t.Context(), private, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestFile(t *testing.T) {
	for _, signed := range []bool{false, true} {
		t.Run(fmt.Sprintf("signed=%v", signed), func(t *testing.T) {
			var key *Key
			want := "wiped.json"
			if signed {
				key = localKey(t)
				want += " wiped.json.sig"
			}
			dir := t.TempDir()
			file := filepath.Join(dir, "wiped.json")
			shut(t, open(t, file, key))
			if got := names(t, dir); got != "" {
				t.Errorf("opening it left %s", got)
			}
			f := open(t, file, key)
			for _, rec := range []capi.Record{wiped("worker", "r1"), wiped("worker-2", "r1"), wiped("worker", "r1")} {
				if err := f.Add(rec); err != nil {
					t.Fatal(err)
				}
			}
			if added, all := f.Added(); added != 2 || all != 2 {
				t.Errorf("%d added, %d in all", added, all)
			}
			shut(t, f)
			// The same again after a kill, then another one.
			f = open(t, file, key)
			before := mustRead(t, file)
			if err := f.Add(wiped("worker-2", "r1")); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(mustRead(t, file), before) {
				t.Error("a wipe that was there changed the file")
			}
			if err := f.Add(wiped("worker-3", "r2")); err != nil {
				t.Fatal(err)
			}
			shut(t, f)
			r, data, err := Read(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Check(); err != nil || len(r.Machines) != 3 || strings.Join(r.RunIDs, " ") != "r1 r2" {
				t.Errorf("%v: %+v", err, r)
			}
			if _, err := SignatureOf(file, data); (err == nil) != signed {
				t.Error(err)
			}
			if got := names(t, dir); got != want {
				t.Errorf("files: %s", got)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o644 {
				t.Error(err, info)
			}
		})
	}
}

// What is not ours to write to is left alone.
func TestOpenRefuses(t *testing.T) {
	key, stranger := localKey(t), localKey(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "wiped.json")
	f := open(t, file, key)
	if err := f.Add(wiped("worker", "r1")); err != nil {
		t.Fatal(err)
	}
	shut(t, f)
	data, sig := string(mustRead(t, file)), string(mustRead(t, file+".sig"))
	for name, tt := range map[string]struct {
		data, sig string
		change    func(*Options)
		want      string
	}{
		"as it was":               {data: data, sig: sig},
		"empty":                   {data: "", sig: ""},
		"empty, with a signature": {data: "", sig: sig, want: "there is a signature of an earlier receipt"},
		"a shopping list":         {data: "eggs", sig: "", want: "it is no receipt"},
		"changed":                 {data: strings.Replace(data, "S3Z8", "S3Z9", 1), sig: sig, want: "the receipt or its signature was changed"},
		"an impossible one":       {data: strings.Replace(data, `"offset": 0`, `"offset": 1`, 1), sig: sig, want: "what is in it cannot be"},
		"impossible, unsigned":    {data: strings.Replace(data, `"offset": 0`, `"offset": 1`, 1), change: func(o *Options) { o.Key = nil }, want: "what is in it cannot be"},
		"another server":          {data: data, sig: sig, change: func(o *Options) { o.Server = "https://10.0.0.2:60443" }, want: "another plunder server, \"" + server},
		"simulated machines":      {data: data, sig: sig, change: func(o *Options) { o.Simulated = true }, want: "a receipt of real machines"},
		"real machines":           {data: strings.Replace(data, `"simulated": false`, `"simulated": true`, 1), sig: sig, want: "a receipt of simulated machines"},
		"no key":                  {data: data, sig: sig, change: func(o *Options) { o.Key = nil }, want: "it is signed with the key " + key.Fingerprint()},
		"another key":             {data: data, sig: sig, change: func(o *Options) { o.Key = stranger }, want: "not with " + stranger.name},
		"not signed":              {data: data, want: "it is not signed"},
		"not signed, no key":      {data: data, change: func(o *Options) { o.Key = nil }},
		"no signature in it":      {data: data, sig: "x", want: "the signature cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "wiped.json")
			if err := os.WriteFile(file, []byte(tt.data), 0o600); err != nil {
				t.Fatal(err)
			}
			if tt.sig != "" {
				if err := os.WriteFile(file+".sig", []byte(tt.sig), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o := Options{Tool: "t", Server: server, Key: key}
			if tt.change != nil {
				tt.change(&o)
			}
			f, err := Open(file, o)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				shut(t, f)
				return
			}
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if string(mustRead(t, file)) != tt.data || strings.Contains(names(t, dir), "lock") || strings.Contains(names(t, dir), "tmp") {
				t.Errorf("changed: %s", names(t, dir))
			}
		})
	}
	for name, path := range map[string]string{
		"a folder":              dir,
		"in a folder of nobody": filepath.Join(dir, "none", "wiped.json"),
	} {
		if _, err := Open(path, Options{Server: server}); err == nil {
			t.Error(name)
		}
	}
}

// At any point of writing where a run can be killed, a signature fits, and the next run
// goes on.
func TestKilledWhileWriting(t *testing.T) {
	key := localKey(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "wiped.json")
	f := open(t, file, key)
	snapshot := func() map[string][]byte {
		files := map[string][]byte{}
		for _, suffix := range []string{"", sigSuffix} {
			if data, err := os.ReadFile(file + suffix); err == nil {
				files[suffix] = data
			}
		}
		return files
	}
	states := []map[string][]byte{snapshot()}
	for i, name := range []string{"worker", "worker-2"} {
		if err := f.Add(wiped(name, "r1")); err != nil {
			t.Fatal(i, err)
		}
		states = append(states, snapshot())
	}
	shut(t, f)
	for i := 1; i < len(states); i++ {
		before, after := states[i-1], states[i]
		for point, files := range map[string]map[string][]byte{
			"before the receipt":   {"": before[""], sigSuffix: before[sigSuffix], pendingSuffix: after[sigSuffix]},
			"before the signature": {"": after[""], sigSuffix: before[sigSuffix], pendingSuffix: after[sigSuffix]},
		} {
			t.Run(fmt.Sprint(point, i), func(t *testing.T) {
				dir := t.TempDir()
				file := filepath.Join(dir, "wiped.json")
				for suffix, data := range files {
					if data == nil {
						continue
					}
					if err := os.WriteFile(file+suffix, data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				half := filepath.Join(dir, tempPrefix(file)+"123")
				if err := os.WriteFile(half, []byte("{"), 0o600); err != nil {
					t.Fatal(err)
				}
				if data := files[""]; data != nil {
					sig, err := SignatureOf(file, data)
					if err != nil || sig.Pending != (point == "before the signature") {
						t.Fatalf("%+v, %v", sig, err)
					}
				}
				f := open(t, file, key)
				for _, name := range []string{"worker", "worker-2"} {
					if err := f.Add(wiped(name, "r1")); err != nil {
						t.Fatal(err)
					}
				}
				shut(t, f)
				if !bytes.Equal(mustRead(t, file), states[2][""]) {
					t.Errorf("another receipt:\n%s", mustRead(t, file))
				}
				if sig, err := SignatureOf(file, mustRead(t, file)); err != nil || sig.Pending {
					t.Errorf("%+v, %v", sig, err)
				}
				if got := names(t, dir); !strings.HasPrefix(got, "wiped.json wiped.json.sig") || strings.Contains(got, "tmp") {
					t.Errorf("files: %s", got)
				}
			})
		}
	}
}

// One run at a time, and many machines of it.
func TestConcurrency(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wiped.json")
	f := open(t, file, nil)
	if _, err := Open(file, Options{Server: server}); err == nil || !strings.Contains(err.Error(), "another run writes to it") {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := f.Add(wiped(fmt.Sprint("worker-", i), "r1")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	shut(t, f)
	if r, _, err := Read(file); err != nil || len(r.Machines) != 8 {
		t.Errorf("%v: %d machines", err, len(r.Machines))
	}
}

// What somebody else did to the file meanwhile is not overwritten, and what a record does
// not prove is not written down.
func TestAddRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "wiped.json")
	f := open(t, file, nil)
	defer shut(t, f)
	if err := f.Add(wiped("worker", "r1")); err != nil {
		t.Fatal(err)
	}
	before := mustRead(t, file)
	rec := wiped("worker-2", "r1")
	rec.Wipe.Disks[1].Samples = nil
	if err := f.Add(rec); err == nil || !strings.Contains(err.Error(), `machine "default/worker-2": disk "/dev/sdb": its start was not read back`) {
		t.Error(err)
	}
	if !bytes.Equal(mustRead(t, file), before) {
		t.Error("changed")
	}
	if err := os.WriteFile(file, append(before, ' '), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Add(wiped("worker-3", "r1")); err == nil || !strings.Contains(err.Error(), "Machine default/worker-3 was wiped") || !strings.Contains(err.Error(), "changed by somebody else") {
		t.Error(err)
	}
}

// A link is followed, not replaced.
func TestLink(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "wiped.json"), filepath.Join(dir, "link.json")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	f := open(t, link, nil)
	if err := f.Add(wiped("worker", "r1")); err != nil {
		t.Fatal(err)
	}
	shut(t, f)
	if r, _, err := Read(file); err != nil || len(r.Machines) != 1 {
		t.Error(err)
	}
}
