package decode

import (
	"bytes"
	"strconv"
	"strings"

	"labctl/host/text"
	"labctl/host/trace/capture"
)

// maxNames bounds the tasks whose names are kept.
const maxNames = 1 << 22

// names are what the kernel remembers of tasks.
type names struct {
	comms map[int]string
	tgids map[int]int
}

func parseNames(c *capture.Capture) *names {
	n := &names{comms: map[int]string{0: "<idle>"}, tgids: map[int]int{}}
	for pid, comm := range pairs(c.Cmdlines) {
		// A name is at most 15 bytes and may have any in it, a newline too.
		n.comms[pid] = strings.ReplaceAll(text.Clean(comm), "\n", "\uFFFD")
	}
	for pid, word := range pairs(c.Tgids) {
		if tgid, err := strconv.ParseInt(strings.TrimSpace(word), 10, 32); err == nil {
			n.tgids[pid] = int(tgid)
		}
	}
	return n
}

// Learn takes names of tasks that have come since, lines of saved_cmdlines.
func (d *Decoder) Learn(cmdlines []byte) {
	n := d.names()
	for pid, comm := range pairs(cmdlines) {
		if len(n.comms) < maxNames {
			n.comms[pid] = strings.ReplaceAll(text.Clean(comm), "\n", "\uFFFD")
		}
	}
}

// pairs goes through lines of "NUMBER WORDS"; others are passed over.
func pairs(b []byte) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		count := 0
		for line := range bytes.Lines(b) {
			number, words, ok := strings.Cut(strings.TrimSuffix(string(line[:min(len(line), 256)]), "\n"), " ")
			pid, err := strconv.ParseUint(number, 10, 31)
			if !ok || err != nil {
				continue
			}
			if count++; count > maxNames || !yield(int(pid), words) {
				return
			}
		}
	}
}

// Comm is the name that the kernel remembered for a task: the latest one, not
// that of any moment; "<...>" when it had forgotten.
func (d *Decoder) Comm(pid int) string {
	if comm, ok := d.names().comms[pid]; ok {
		return comm
	}
	return "<...>"
}

// Tgid is the process of a task, false when the kernel did not keep it.
func (d *Decoder) Tgid(pid int) (int, bool) {
	tgid, ok := d.names().tgids[pid]
	return tgid, ok
}
