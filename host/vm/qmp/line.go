package qmp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/digitalocean/go-qemu/qmp"
)

// MaxLine limits a message from QEMU, in bytes. The reply to query-qmp-schema, the
// longest of the usual ones, is about 200 KiB in QEMU 7.2; memory dumps by
// human-monitor-command are as long as requested.
const MaxLine = 64 << 20

// errTooLong is wrapped for a message beyond the limit.
var errTooLong = errors.New("message too long")

// readLine returns the next line without its line ending, in newly allocated memory.
// With the ending a line has at most max bytes. An unterminated last line is an
// error.
func readLine(r *bufio.Reader, max int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > max {
			return nil, fmt.Errorf("%w: over %d bytes", errTooLong, max)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimRight(line, "\r\n"), nil
		case err == io.EOF && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != bufio.ErrBufferFull:
			return nil, err
		}
	}
}

// message is one line from QEMU; exactly one of greeting, event, ret and err
// is set. QEMU's docs/interop/qmp-spec.txt, section 2.
type message struct {
	greeting bool
	event    *qmp.Event
	ret      json.RawMessage
	err      *Error
	id       *uint64 // of a reply; nil if QEMU could not parse the command
	line     []byte
}

func decode(line []byte) (message, error) {
	var m struct {
		QMP    *struct{}       `json:"QMP"` // QEMU's version and capabilities
		Event  *string         `json:"event"`
		Return json.RawMessage `json:"return"`
		Error  *Error          `json:"error"`
		ID     *uint64         `json:"id"`
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("message %.80q: %w", line, err)
	}
	out := message{greeting: m.QMP != nil, ret: m.Return, err: m.Error, id: m.ID, line: line}
	if m.Event != nil {
		out.event = new(qmp.Event)
		if err := json.Unmarshal(line, out.event); err != nil {
			return message{}, fmt.Errorf("event %.80q: %w", line, err)
		}
	}
	n := 0
	for _, set := range []bool{out.greeting, out.event != nil, out.ret != nil, out.err != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return message{}, fmt.Errorf("message %.80q: want one of QMP, event, return, error", line)
	}
	if out.ret != nil && out.id == nil {
		return message{}, fmt.Errorf("reply %.80q: no id", line)
	}
	return out, nil
}

// encode returns a command as one line with the given id, replacing line breaks and
// any id in it, and the command's name.
func encode(command []byte, id uint64) (line []byte, name string, err error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(command, &m); err != nil {
		return nil, "", fmt.Errorf("command %.80q: %w", command, err)
	}
	if raw, ok := m["execute"]; !ok || json.Unmarshal(raw, &name) != nil || name == "" {
		return nil, "", fmt.Errorf("command %.80q: want a command name in \"execute\"", command)
	}
	m["id"] = json.RawMessage(fmt.Sprint(id))
	line, err = json.Marshal(m)
	if err != nil {
		return nil, name, fmt.Errorf("command %s: %w", name, err)
	}
	return append(line, '\n'), name, nil
}
