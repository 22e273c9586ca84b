package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"labctl/host/outcome"
	"labctl/host/strictjson"
	"labctl/host/text"
)

// schema names the protocol. Another labctl's may differ.
const schema = "labctl/machine/v1"

// Limits of the protocol.
const (
	maxRequest = 16 << 10 // bytes of a line
	maxReply   = 8 << 20  // registers as JSON
	maxFiles   = 4        // of a reply
)

// op is what a request asks for.
type op string

const (
	opInfo      op = "info"      // → Info
	opMemory    op = "memory"    // → memoryReply, with the file
	opRegisters op = "registers" // → string
	opStop      op = "stop"      // until opCont, or the end of the connection
	opCont      op = "cont"
	opGDB       op = "gdb"      // → nothing, with a socket
	opDetached  op = "detached" // replies when the guest goes on after that socket's end
	opJoin      op = "join"     // → joinReply, with sockets for the agent and the console, and the window
	opSave      op = "save"     // a checkpoint
	opWait      op = "wait"     // replies when the machine has ended
	opDown      op = "down"     // asks the owner to end the machine
)

type request struct {
	Schema string `json:"schema"`
	Op     op     `json:"op"`
	// Machine is the ID of the machine that is meant; another may have its name.
	// Empty for any.
	Machine string `json:"machine,omitempty"`
	Dir     string `json:"dir,omitempty"` // of opJoin: name of the client's workspace
	As      string `json:"as,omitempty"`  // of opSave: name of the checkpoint
}

type reply struct {
	Schema string          `json:"schema"`
	Error  *remoteError    `json:"error,omitempty"`
	Value  json.RawMessage `json:"value,omitempty"`
	Files  int             `json:"files,omitempty"` // descriptors that come with it
}

// remoteError is an error of the owner's.
type remoteError struct {
	Kind outcome.Kind `json:"kind"`
	Text string       `json:"text"`
}

// newRemote is err for the other side.
func newRemote(err error) *remoteError {
	return &remoteError{outcome.Of(err), text.Line(err.Error(), 2000)}
}

// err is the error on this side.
func (e *remoteError) err() error {
	kind := e.Kind
	if !kind.Known() {
		kind = outcome.Internal
	}
	return outcome.New(kind, text.Line(e.Text, 2000))
}

func decodeRequest(line []byte) (q request, err error) {
	if err := (strictjson.Format{Schema: schema, Max: maxRequest}).Decode(line, &q); err != nil {
		return q, outcome.Default(outcome.BadInput, fmt.Errorf("request: %w", err))
	}
	return q, nil
}

func decodeReply(line []byte) (r reply, err error) {
	if err := (strictjson.Format{Schema: schema, Max: maxReply}).Decode(line, &r); err != nil {
		return r, outcome.Default(outcome.HostLacks, fmt.Errorf("reply of the machine's labctl: %w", err))
	}
	if r.Files < 0 || r.Files > maxFiles {
		return r, outcome.Hostf("reply of the machine's labctl: %d files, want at most %d", r.Files, maxFiles)
	}
	return r, nil
}

// decodeValue decodes what a reply has.
func decodeValue(r reply, v any) error {
	if v == nil {
		return nil
	}
	if err := (strictjson.Format{Max: maxReply}).Decode(r.Value, v); err != nil {
		return outcome.Default(outcome.HostLacks, fmt.Errorf("reply of the machine's labctl: %w", err))
	}
	return nil
}

// encode makes a line of a message.
func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(b, '\n'), err
}

// writeWait is how long the other side may take to read a message.
const writeWait = 5 * time.Second

// send writes a line and passes files with its first byte.
func send(conn *net.UnixConn, line []byte, files ...*os.File) error {
	conn.SetWriteDeadline(time.Now().Add(writeWait))
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(line, rights, nil)
	if err == nil && n < len(line) {
		_, err = conn.Write(line[n:])
	}
	return err
}

// errLong means that a line is longer than it may be.
var errLong = outcome.New(outcome.BadInput, "the message is too long")

// receive reads a line, and the files that come with it. What follows the line is an
// error: the other side may not send before it has the answer.
func receive(conn *net.UnixConn, limit int) (line []byte, files []*os.File, err error) {
	defer func() {
		if err != nil {
			closeFiles(files)
			files = nil
		}
	}()
	buf := make([]byte, 16<<10)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	for {
		n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
		n, oobn = max(n, 0), max(oobn, 0) // -1 with an error
		more, ferr := parseRights(oob[:oobn])
		files = append(files, more...)
		switch {
		case ferr != nil:
			return nil, files, ferr
		case flags&unix.MSG_CTRUNC != 0 || len(files) > maxFiles:
			return nil, files, outcome.New(outcome.BadInput, "the message has too many files")
		}
		line = append(line, buf[:n]...)
		if i := bytes.IndexByte(line[len(line)-n:], '\n'); i >= 0 {
			i += len(line) - n
			if i < len(line)-1 {
				return nil, files, outcome.New(outcome.BadInput, "there is more than one line")
			}
			return line[:i], files, nil
		}
		switch {
		case len(line) > limit:
			return nil, files, errLong
		case errors.Is(err, io.EOF) || n == 0 && err == nil:
			if len(line) > 0 {
				return nil, files, io.ErrUnexpectedEOF
			}
			return nil, files, io.EOF
		case err != nil:
			return nil, files, err
		}
	}
}

// parseRights returns the files in a control message.
func parseRights(oob []byte) (files []*os.File, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
