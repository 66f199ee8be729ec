package wire

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that callers of a client tell apart with errors.Is.
var (
	// ErrNoLog: the server has no log for this address (yet). Both spellings of the
	// real servers mean it: "No Logs for Target [..] exist" and "JSON Logging
	// hasn't been enabled". It means pending, never failed.
	ErrNoLog = errors.New("no parlay log yet")
	// ErrNotFound: the server has no deployment for this MAC.
	ErrNotFound = errors.New("no such deployment")
	// ErrUnreachable: no connection could be made (refused, reset, time-out, DNS).
	// The request was not processed.
	ErrUnreachable = errors.New("plunder server not reachable")
	// ErrNoAnswer: the request was sent, and the stream ended without an answer.
	// Whether the server acted on it is unknown: read back before anything else.
	ErrNoAnswer = errors.New("plunder closed the connection without an answer")
	// ErrNoDeployments: POST /parlay on a server that knows no deployment at all,
	// which is what a server says that has restarted and forgotten everything.
	ErrNoDeployments = errors.New("the plunder server has no deployments")
	// ErrCertificate: TLS failed because of the server's certificate.
	ErrCertificate = errors.New("the plunder server's certificate does not fit")
	// ErrProtocol: something answered that does not speak plunder's API (a web page,
	// another service, plain http where TLS was expected). Trying again won't help.
	ErrProtocol = errors.New("that is no answer of a plunder server")
)

// RefusedError is a failure that the server reported in the envelope.
type RefusedError struct {
	Op      string // what was asked, e.g. "POST /deployment"
	Message string // the envelope's error
	Detail  string // the envelope's warning or friendlyError
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Detail != "" {
		return fmt.Sprintf("%s: plunder refused: %s (%s)", e.Op, e.Message, e.Detail)
	}
	return fmt.Sprintf("%s: plunder refused: %s", e.Op, e.Message)
}

// ConflictError means that the MAC or the address that a deployment asks for belongs to
// another deployment on the server. Nothing was written.
type ConflictError struct {
	MAC     string     // of the deployment that was to be written
	Address string     // likewise, IPv4
	Other   Deployment // the deployment that is in the way, redacted
}

// Error implements error.
func (e *ConflictError) Error() string {
	// Another letter case is another deployment to the server, and the same machine.
	if strings.EqualFold(e.Other.MAC, e.MAC) {
		return fmt.Sprintf("MAC %s already has a deployment (%s, host name %s, address %s)",
			e.Other.MAC, e.Other.BootConfigName, e.Other.Config.Hostname, e.Other.Config.Address)
	}
	return fmt.Sprintf("address %s already belongs to the deployment of %s (%s, host name %s)",
		e.Address, e.Other.MAC, e.Other.BootConfigName, e.Other.Config.Hostname)
}

// UnknownBootConfigError means that the server has no boot configuration of that name.
// It is found before anything is posted, because a POST with an unknown name
// takes the machine off the unleased list (recording rejected-deployments).
type UnknownBootConfigError struct {
	Name  string
	Known []string // names the server has, sorted
}

// Error implements error.
func (e *UnknownBootConfigError) Error() string {
	return fmt.Sprintf("the plunder server has no boot configuration %q (it has: %v)", e.Name, e.Known)
}
