package plunder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// decodeEnvelope reads the body of an answer, in either dialect: the payload, or
// a *wire.RefusedError (its Op is for the caller to fill in) when the server
// says that it failed, or another error when this is no envelope at all. No
// error quotes the body: bodies hold passwords.
func decodeEnvelope(body []byte) (json.RawMessage, error) {
	body = bytes.Trim(body, " \t\r\n") // what JSON calls white space, and no more
	switch {
	case len(body) == 0:
		return nil, errors.New("empty answer")
	case body[0] == '<':
		return nil, errors.New("the answer is a web page, not JSON")
	case body[0] != '{':
		return nil, errors.New("the answer is not a JSON object")
	}
	var env wire.Envelope
	if err := json.Unmarshal(body, &env); err != nil {
		return nil, fmt.Errorf("the answer is not JSON as plunder speaks it: %w", err)
	}
	if env.Error != "" {
		detail := env.Warning
		if detail == "" {
			detail = env.FriendlyError
		}
		return nil, &wire.RefusedError{Message: env.Error, Detail: detail}
	}
	return env.Payload, nil
}

// decodePayload reads the payload of an answer into a T. null is fine where the
// server says so for "none" (lists); no payload at all is not an answer.
func decodePayload[T any](payload json.RawMessage) (T, error) {
	var v T
	if len(payload) == 0 {
		return v, errors.New("the answer has no payload")
	}
	if err := json.Unmarshal(payload, &v); err != nil {
		return v, fmt.Errorf("the payload is not what plunder sends: %w", err)
	}
	return v, nil
}
