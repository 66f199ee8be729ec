package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// call is one SSH session, as the forced command saw it.
type call struct {
	Address string // on which the session came in
	User    string
	Line    string
	Stdin   []byte
}

type answer struct {
	Output string
	Exit   int
}

// forward hands the session that sshd started it for to rack serve, over a Unix
// socket, and plays the answer. It never runs anything itself. When the machine
// goes down there is no answer, as there is none from a machine that was reset.
func forward(ctx context.Context, socket string, in io.Reader, out io.Writer) (int, error) {
	connection := strings.Fields(os.Getenv("SSH_CONNECTION"))
	if len(connection) != 4 {
		return 255, fmt.Errorf("SSH_CONNECTION is %q: this runs as the forced command of an sshd", os.Getenv("SSH_CONNECTION"))
	}
	stdin, err := io.ReadAll(in)
	if err != nil {
		return 255, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return 255, err
	}
	defer func() { _ = conn.Close() }()
	c := call{Address: connection[2], User: os.Getenv("LOGNAME"), Line: os.Getenv("SSH_ORIGINAL_COMMAND"), Stdin: stdin}
	if err := json.NewEncoder(conn).Encode(c); err != nil {
		return 255, err
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return 255, err
	}
	_, err = io.WriteString(out, a.Output)
	return a.Exit, err
}
