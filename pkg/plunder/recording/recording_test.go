package recording

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestAll(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	scenarios := map[string][]string{}
	for _, r := range all {
		scenarios[r.Scenario] = append(scenarios[r.Scenario], r.Version)
		if len(r.Steps) == 0 || r.About == "" || r.Server == "" || len(r.Setup.BootConfigs) == 0 {
			t.Errorf("%s: half empty", r.Name())
		}
		for i, s := range r.Steps {
			if s.Request.Method == "" || !strings.HasPrefix(s.Request.Path, "/") {
				t.Errorf("%s step %d: request %q", r.Name(), i, s.Request)
			}
			if s.Response.Closed() == (s.Response.Status != 0) {
				t.Errorf("%s step %d: response has to be a status or a closed connection", r.Name(), i)
			}
		}
	}
	if len(scenarios) != 8 {
		t.Errorf("%d scenarios, want 8", len(scenarios))
	}
	for name, versions := range scenarios {
		if strings.Join(versions, " ") != "2020-05 v0.5" {
			t.Errorf("scenario %s: versions %v", name, versions)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ file, body, want string }{
		"nothing":       {"readme.txt", "", "no recordings"},
		"unknown field": {"v/a.json", `{"scenario":"a","steps":[],"stepz":[]}`, "stepz"},
		"wrong name":    {"v/a.json", `{"scenario":"b"}`, `scenario "b", want "a"`},
		"rubbish":       {"v/a.json", `{`, "recording v/a.json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Load(fstest.MapFS{tc.file: {Data: []byte(tc.body)}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{string(Request{Body: []byte(`"rubbish"`)}.Bytes()), "rubbish"},
		{string(Request{Body: []byte(`{"a": 1}`)}.Bytes()), `{"a": 1}`},
		{string(Request{}.Bytes()), ""},
		{string(Response{Body: []byte(`{"text": "404\n"}`)}.Bytes()), "404\n"},
		{string(Response{Body: []byte(`{"payload": null}`)}.Bytes()), `{"payload": null}`},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

func TestDiff(t *testing.T) {
	const want = `{"payload":[{"mac":"a","time":"2026-11-22T23:36:14.89Z"}]}`
	for name, tc := range map[string]struct {
		got   string
		alike bool
	}{
		"other time": {`{"payload":[{"time":"2020-01-01T00:00:00+01:00","mac":"a"}]}`, true},
		"no time":    {`{"payload":[{"mac":"a","time":"yesterday"}]}`, false},
		"other mac":  {`{"payload":[{"mac":"b","time":"2026-11-22T23:36:14.89Z"}]}`, false},
		"null":       {`{"payload":null}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			diff, err := Diff([]byte(want), []byte(tc.got))
			if err != nil {
				t.Fatal(err)
			}
			if (diff == "") != tc.alike {
				t.Errorf("alike %v, diff %s", !tc.alike, diff)
			}
		})
	}
	if _, err := Diff([]byte(want), []byte("<html>")); err == nil {
		t.Error("no error for a body that is not JSON")
	}
}
