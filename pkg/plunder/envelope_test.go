package plunder

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/plunder/recording"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

func TestDecodeEnvelope(t *testing.T) {
	for name, tc := range map[string]struct {
		body    string
		payload string
		refused *wire.RefusedError
		err     string
	}{
		"success":              {body: `{}`},
		"payload":              {body: ` {"payload": [1]}` + "\n", payload: `[1]`},
		"null":                 {body: `{"payload": null}`, payload: `null`},
		"unknown fields":       {body: `{"payload": 1, "more": true}`, payload: `1`},
		"May 2020":             {body: `{"warning": "w", "error": "e"}`, refused: &wire.RefusedError{Message: "e", Detail: "w"}},
		"v0.5":                 {body: `{"friendlyError": "f", "error": "e"}`, refused: &wire.RefusedError{Message: "e", Detail: "f"}},
		"bare error":           {body: `{"error": "e"}`, refused: &wire.RefusedError{Message: "e"}},
		"error and payload":    {body: `{"error": "e", "payload": {}}`, refused: &wire.RefusedError{Message: "e"}},
		"warning is no error":  {body: `{"warning": "w", "payload": 1}`, payload: `1`},
		"friendly is no error": {body: `{"friendlyError": "f", "success": "s", "payload": 1}`, payload: `1`},
		"empty":                {body: " \n", err: "empty answer"},
		"HTML":                 {body: "\n<!doctype html>", err: "web page"},
		"not an object":        {body: `"x"`, err: "not a JSON object"},
		"cut":                  {body: `{"payload":`, err: "unexpected end of JSON input"},
		"binary":               {body: "{\x00\xff", err: "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			payload, err := decodeEnvelope([]byte(tc.body))
			if tc.err != "" {
				says(t, err, tc.err)
				return
			}
			var refused *wire.RefusedError
			if tc.refused != nil {
				if !errors.As(err, &refused) || *refused != *tc.refused {
					t.Errorf("got %v, want %v", err, tc.refused)
				}
				return
			}
			if err != nil || string(payload) != tc.payload {
				t.Errorf("got %s, %v, want %s", payload, err, tc.payload)
			}
		})
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	all, err := recording.All()
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range all {
		for _, s := range r.Steps {
			f.Add(s.Response.Bytes())
		}
	}
	f.Add([]byte(`{"Error": "e", "error": ""}`))
	f.Add([]byte(strings.Repeat(`{"payload":`, 1000)))
	f.Fuzz(func(t *testing.T, body []byte) {
		payload, err := decodeEnvelope(body)
		if err != nil {
			if payload != nil {
				t.Errorf("%q: payload and error", body)
			}
			var refused *wire.RefusedError
			if errors.As(err, &refused) && refused.Message == "" {
				t.Errorf("%q: refused without a message", body)
			}
			return
		}
		if !json.Valid(body) {
			t.Errorf("%q is not JSON and was accepted", body)
		}
		if len(payload) > 0 && !json.Valid(payload) {
			t.Errorf("%q: payload %q is not JSON", body, payload)
		}
		// No payload may bring a decoder down.
		_, _ = decodePayload[wire.ServerConfig](payload)
		_, _ = decodePayload[wire.Deployments](payload)
		_, _ = decodePayload[wire.Log](payload)
		_, _ = decodePayload[[]wire.Lease](payload)
	})
}
