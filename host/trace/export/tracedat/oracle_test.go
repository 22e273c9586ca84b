package tracedat

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/trace/capture"
	"labctl/host/trace/decode"
	"labctl/host/trace/format"
	"labctl/host/trace/internal/sample"
)

// TestOracle: trace-cmd, reading what Write wrote, sees the same events as
// package raw sees in the capture: on each CPU the same tasks, times, names and
// bytes of each field, and the same stacks.
func TestOracle(t *testing.T) {
	total := 0
	for _, s := range sample.All(t) {
		t.Run(s.Name, func(t *testing.T) { total += oracle(t, s.Capture) })
	}
	t.Logf("%d events compared", total)
	if total < 25000 {
		t.Errorf("%d events compared in all; want over 25000, those of all samples", total)
	}
}

// TestOracleRecorded does the same with what trace-cmd record wrote.
func TestOracleRecorded(t *testing.T) {
	for _, tt := range recorded {
		t.Run(tt.name, func(t *testing.T) {
			b := unzst(t, tt.name+".dat")
			f, err := Read(strings.NewReader(string(b)), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if n := oracle(t, &f.Capture); n == 0 {
				t.Error("no events")
			}
		})
	}
}

func oracle(t *testing.T, c *capture.Capture) int {
	d, err := decode.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	theirs := map[string][]line{}
	stacks := map[string][]string{} // by CPU and kind: their stacks
	for _, l := range report(t, write(t, c)) {
		if kind, ok := stackKind(l.Event); ok {
			stacks[l.CPU+kind] = append(stacks[l.CPU+kind], stackOf(t, c, l.Fields))
			continue
		}
		theirs[l.CPU] = append(theirs[l.CPU], l)
	}
	printk := texts(c)
	at := map[string]int{}
	count := 0
	ours := map[string][]string{}
	for e, err := range d.Events() {
		if err != nil {
			t.Fatal(err)
		}
		cpu := fmt.Sprintf("%03d", e.CPU)
		if len(e.Stack) > 0 {
			ours[cpu+"kernel"] = append(ours[cpu+"kernel"], stackText(c, len(e.Stack), e.Stack))
		}
		if len(e.UserStack) > 0 {
			ours[cpu+"user"] = append(ours[cpu+"user"], stackText(c, len(e.UserStack), e.UserStack))
		}
		if _, ok := stackKind(e.Name()); ok {
			continue
		}
		if at[cpu] == len(theirs[cpu]) {
			t.Fatalf("CPU %s: event %d, %s at %d, is not in trace-cmd's report", cpu, at[cpu], e.Name(), e.Time)
		}
		l := theirs[cpu][at[cpu]]
		at[cpu]++
		count++
		want := line{
			Task: fmt.Sprintf("%s-%d", d.Comm(e.PID), e.PID), CPU: cpu,
			Time: fmt.Sprintf("%d.%09d", e.Time/1e9, e.Time%1e9), Event: e.Name(), Fields: l.Fields,
		}
		if diff := cmp.Diff(want, l); diff != "" {
			t.Fatalf("CPU %s: event %d differs (-raw +trace-cmd):\n%s", cpu, at[cpu]-1, diff)
		}
		if err := sameFields(d, c.Order, printk, e, l.Fields); err != nil {
			t.Fatalf("CPU %s: event %d, %s at %s: %v\nin %q", cpu, at[cpu]-1, l.Event, l.Time, err, l.Fields)
		}
	}
	for cpu, lines := range theirs {
		if at[cpu] != len(lines) {
			t.Errorf("CPU %s: trace-cmd reports %d events, raw %d; the first more: %v", cpu, len(lines), at[cpu], lines[at[cpu]])
		}
	}
	for _, s := range []map[string][]string{stacks, ours} {
		for k := range s { // a stack stands behind its event, which an interrupt may come between
			slices.Sort(s[k])
		}
	}
	if diff := cmp.Diff(ours, stacks); diff != "" {
		t.Errorf("stacks differ (-raw +trace-cmd):\n%s", diff)
	}
	return count
}

// texts are those that the kernel's events point at: "0xffffffff82ac9601 : "snap"".
func texts(c *capture.Capture) map[uint64]string {
	texts := map[uint64]string{}
	for l := range strings.Lines(string(c.Printk)) {
		address, quoted, _ := strings.Cut(strings.TrimSpace(l), " : ")
		n, err := strconv.ParseUint(address, 0, 64)
		text, err2 := strconv.Unquote(quoted)
		if err == nil && err2 == nil {
			texts[n] = text
		}
	}
	return texts
}

func stackKind(event string) (kind string, ok bool) {
	kind, ok = strings.CutSuffix(event, "_stack")
	return kind, ok && (kind == "kernel" || kind == "user")
}

// declared is the number of addresses that the format of a stack declares, and
// that -R prints: the record says how many there are.
const declared = 8

func stackText(c *capture.Capture, n int, pcs []uint64) string {
	return fmt.Sprintf("%d: %#x", n, pcs[:min(len(pcs), declared)])
}

// stackOf is stackText of "size=9 caller=ARRAY[d8, a4, …]". A user stack has a
// tgid in place of the size, and zeros where no address is.
func stackOf(t *testing.T, c *capture.Capture, fields string) string {
	t.Helper()
	head, callers, _ := strings.Cut(fields, " caller=ARRAY[")
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSuffix(callers, "]"), ", ", ""))
	if err != nil || len(b) != declared*c.LongSize {
		t.Fatalf("stack %q: want %d addresses", fields, declared)
	}
	var pcs []uint64
	for ; len(b) > 0; b = b[c.LongSize:] {
		if c.LongSize == 4 {
			pcs = append(pcs, uint64(c.Order.Uint32(b)))
		} else {
			pcs = append(pcs, c.Order.Uint64(b))
		}
	}
	size, ok := strings.CutPrefix(head, "size=")
	n, err := strconv.Atoi(size)
	if ok && err == nil {
		return stackText(c, n, pcs[:min(n, declared)])
	}
	for len(pcs) > 0 && pcs[len(pcs)-1] == 0 {
		pcs = pcs[:len(pcs)-1]
	}
	return stackText(c, len(pcs), pcs)
}

// sameFields compares the fields of e with "name=value name=value …".
func sameFields(d *decode.Decoder, order binary.ByteOrder, printk map[uint64]string, e *decode.Event, fields string) error {
	rest := " " + fields
	for i := range e.Format.Fields {
		f := &e.Format.Fields[i]
		var ok bool
		if rest, ok = strings.CutPrefix(rest, " "+f.Name+"="); !ok {
			return fmt.Errorf("%s= should come at %q", f.Name, rest)
		}
		value := rest
		if i+1 < len(e.Format.Fields) {
			next := strings.Index(rest, " "+e.Format.Fields[i+1].Name+"=")
			if next < 0 {
				return fmt.Errorf("no %s= behind %q", e.Format.Fields[i+1].Name, rest)
			}
			value = rest[:next]
		}
		rest = rest[len(value):]
		if err := sameField(d, order, printk, e, f, value); err != nil {
			return fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return nil
}

func sameField(d *decode.Decoder, order binary.ByteOrder, printk map[uint64]string, e *decode.Event, f *format.Field, value string) error {
	if f.Array {
		b, err := e.Bytes(f.Name)
		if err != nil {
			return err
		}
		if value == "ARRAY[]" && f.Size == 0 { // trace-cmd does not see arrays without a size
			return nil
		}
		if words, ok := strings.CutPrefix(value, "ARRAY["); ok {
			theirs, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSuffix(words, "]"), ", ", ""))
			if err != nil || string(theirs) != string(b) {
				return fmt.Errorf("raw has % x, trace-cmd %s", b, value)
			}
			return nil
		}
		text, _, ended := strings.Cut(string(b), "\x00")
		// Of a text without a NUL, an empty one too, trace-cmd prints on to
		// the next that it finds.
		// Nor does it print the newline at the end of a line.
		if strings.TrimSuffix(text, "\n") == strings.TrimSuffix(value, "\n") || !ended && strings.HasPrefix(value, text) {
			return nil
		}
		// Of an array that it does not know, a mask of CPUs, the word that
		// says where it is.
		if n, err := strconv.ParseUint(value, 10, 32); err == nil && f.Loc != format.Here && uint32(n) == order.Uint32(e.Data[f.Offset:]) {
			return nil
		}
		return fmt.Errorf("raw has %q, trace-cmd %q", text, value)
	}
	v, ok := e.UintOf(f)
	if !ok {
		return fmt.Errorf("raw has no number, trace-cmd %q", value)
	}
	// How a number is printed, -R leaves to the event's own print format.
	// Version 3.3 adds the number to a symbol and prints a character as such.
	word := strings.TrimSpace(value)
	if word == "(nil)" {
		word = "0"
	}
	if i := strings.LastIndex(word, "(0x"); i >= 0 && strings.HasSuffix(word, ")") {
		word = word[i+1 : len(word)-1]
	}
	if f.Size == 1 && value == strings.TrimSuffix(string([]byte{byte(v)}), "\n") {
		return nil
	}
	for _, base := range []int{0, 16} {
		if n, err := strconv.ParseUint(word, base, 64); err == nil && n == v {
			return nil
		}
	}
	if n, err := strconv.ParseInt(word, 0, 64); err == nil && uint64(n)<<(64-8*f.Size) == v<<(64-8*f.Size) {
		return nil
	}
	if sym, ok := d.Symbol(v); ok && (word == sym.Name || strings.HasPrefix(word, sym.Name+"+0x")) {
		return nil
	}
	if text, ok := printk[v]; ok && text == value {
		return nil
	}
	return fmt.Errorf("raw has %#x, trace-cmd %q", v, value)
}
