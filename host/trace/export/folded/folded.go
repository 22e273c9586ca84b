// Package folded counts the stacks of a trace for flame graphs.
package folded

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"labctl/host/trace/decode"
	"labctl/host/trace/internal/callstack"
)

// maxStacks bounds the stacks that are told apart; the rest are counted as
// "[other]".
const maxStacks = 1 << 18

// Write writes one line for each distinct stack of the events named, or of all
// when none is, in the form that flamegraph.pl, speedscope and inferno take:
//
//	labprobe;el0_svc;invoke_syscall;__do_sys_clone;kernel_clone 3
//
// The task's name comes first, then its functions, outermost first, and the
// number of events. A task's own frames are one "[user]". Events without a stack
// are left out. Lines are sorted; the same trace gives the same bytes.
//
// Damage to the trace does not end it: it is returned after all is written.
func Write(out io.Writer, d *decode.Decoder, events ...string) error {
	type line struct {
		folded string
		count  int64
	}
	lines := map[string]*line{} // by task and addresses: symbols are looked up once a stack
	var other int64
	var damage error
	var key []byte
	for e, err := range d.Events() {
		if err != nil {
			if damage == nil {
				damage = err
			}
			continue
		}
		if len(e.Stack)+len(e.UserStack) == 0 || len(events) > 0 && !slices.Contains(events, e.Name()) {
			continue
		}
		key = strconv.AppendInt(key[:0], int64(e.PID), 10)
		key = append(key, ' ')
		key = append(key, e.Name()...) // which of a stack's frames are the tracer's depends on it
		for _, pc := range e.Stack {
			key = binary.LittleEndian.AppendUint64(key, pc)
		}
		if len(e.UserStack) > 0 {
			key = append(key, 'u')
		}
		l := lines[string(key)]
		switch {
		case l != nil:
		case len(lines) == maxStacks:
			other++
			continue
		default:
			l = &line{folded: fold(d, e)}
			lines[string(key)] = l
		}
		l.count++
	}
	counts := map[string]int64{}
	for _, l := range lines {
		counts[l.folded] += l.count
	}
	if other > 0 {
		counts["[other]"] += other
	}
	w := bufio.NewWriter(out)
	for _, l := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "%s %d\n", l, counts[l])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return damage
}

// separators are what a task's name must not have in this form.
var separators = strings.NewReplacer(";", "_", " ", "_", "\t", "_", "\n", "_")

func fold(d *decode.Decoder, e *decode.Event) string {
	frames := []string{separators.Replace(d.Comm(e.PID))}
	if len(e.UserStack) > 0 {
		frames = append(frames, "[user]")
	}
	if s := callstack.Of(d, e); len(s.Frames) > 0 {
		frames = append(frames, s.Folded())
	}
	return strings.Join(frames, ";")
}
