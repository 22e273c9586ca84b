// Package hist reads the kernel's histograms of events: the text of the file
// events/SYSTEM/EVENT/hist (Documentation/trace/histogram.rst,
// kernel/trace/trace_events_hist.c).
//
// The text comes from a guest, and strings of the guest's programs are in it as they
// are. So it is read strictly: a line that is not as the kernel prints it is counted and
// left out, and the rows are held against the totals that the kernel prints behind them.
package hist

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"labctl/host/stack"
	"labctl/host/text"
)

// Bounds on what is taken from a text.
const (
	maxHists  = 64
	maxRows   = 10_000
	maxFields = 16       // keys and values together; the kernel has three keys and some values
	maxRow    = 64 << 10 // bytes
	maxWord   = 256      // bytes of a key's text
)

// Histogram is one histogram of an event. It is part of the run record, schema
// labctl/run/v2.
type Histogram struct {
	Event   string `json:"event"`   // "sched/sched_switch"
	Trigger string `json:"trigger"` // as the kernel has it: "hist:keys=next_comm:vals=hitcount:sort=hitcount:size=2048"
	// Keys and Values name the columns: "common_pid.execname"; "hitcount", which is the
	// first of the values.
	Keys   []string `json:"keys"`
	Values []string `json:"values"`
	Rows   []Row    `json:"rows"` // at most 10,000, in the kernel's order
	// Hits, Entries and Dropped are the kernel's totals: events that were counted, the rows
	// that they made, and events for which there was no row left.
	Hits    uint64 `json:"hits"`
	Entries uint64 `json:"entries"`
	Dropped uint64 `json:"dropped,omitempty"`
	// Unkept is rows beyond the bound, Unread lines that are not the kernel's.
	Unkept int `json:"unkept,omitempty"`
	Unread int `json:"unread,omitempty"`
	// Disputed says how the rows and the totals contradict each other.
	Disputed string `json:"disputed,omitempty"`
}

// Row is an entry: as many keys and values as there are columns.
type Row struct {
	Keys   []Key    `json:"keys"`
	Values []uint64 `json:"values"`
}

// Key is a key's value: a stack or a text, fit for a terminal.
type Key struct {
	Text  string       `json:"text,omitempty"`
	Stack *stack.Stack `json:"stack,omitempty"`
}

// HasStack says that a key is a stack.
func (h *Histogram) HasStack() bool {
	for _, k := range h.Keys {
		if isStack(k) {
			return true
		}
	}
	return false
}

func isStack(key string) bool {
	return key == "stacktrace" || key == "common_stacktrace" || strings.HasSuffix(key, ".stacktrace")
}

const (
	head = "# event histogram"
	info = "# trigger info: "
)

// Parse reads the histograms that are in the file of one event. The error is a text that
// has none; with it there are those that could be read.
func Parse(event, file string) ([]Histogram, error) {
	var out []Histogram
	blocks := strings.Split("\n"+file, "\n"+head+"\n")[1:]
	if len(blocks) == 0 {
		return nil, errors.New("no histogram is in it")
	}
	for i, block := range blocks {
		if i == maxHists {
			return out, fmt.Errorf("more than %d histograms are in it", maxHists)
		}
		p := parser{Histogram: Histogram{Event: event, Rows: []Row{}}}
		if err := p.parse(block); err != nil {
			return out, fmt.Errorf("histogram %d: %w", i+1, err)
		}
		out = append(out, p.Histogram)
	}
	return out, nil
}

type parser struct {
	Histogram
	tail   *regexp.Regexp // a row: its keys, and its values behind the brace
	end    *regexp.Regexp // of a row's last line: the same without the keys
	sum    uint64         // of hits of all rows
	rows   uint64         // with those that are not kept
	totals bool
}

var total = text.Lazy(`^    (Hits|Entries|Dropped): ([0-9]{1,20})$`)

func (p *parser) parse(block string) error {
	lines := strings.Split(block, "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case p.tail == nil && strings.HasPrefix(line, info):
			if err := p.trigger(strings.TrimPrefix(line, info)); err != nil {
				return err
			}
		case line == "", line == "#":
		case p.tail == nil:
			return errors.New("it does not begin with its trigger")
		case line == "Totals:":
			p.totals = true
		case total.MatchString(line):
			m := total.FindStringSubmatch(line)
			n, err := strconv.ParseUint(m[2], 10, 64)
			if err != nil || !p.totals {
				p.Unread++
				continue
			}
			*map[string]*uint64{"Hits": &p.Hits, "Entries": &p.Entries, "Dropped": &p.Dropped}[m[1]] = n
		case strings.HasPrefix(line, "{ "):
			// What the strings in it say is not believed to be totals.
			p.totals = false
			n := p.row(lines[i:])
			i += n - 1
		default:
			p.Unread++
		}
	}
	switch {
	case p.tail == nil:
		return errors.New("it does not tell its trigger")
	case !p.totals:
		p.Disputed = "the kernel's text has no totals at its end: it is cut"
	case p.Unread > 0:
		p.Disputed = fmt.Sprintf("%d lines of the kernel's text are not of its form", p.Unread)
	case p.rows != p.Entries:
		p.Disputed = fmt.Sprintf("there are %d rows, and the kernel's total is %d entries", p.rows, p.Entries)
	case p.sum != p.Hits:
		p.Disputed = fmt.Sprintf("the rows come to %d hits, and the kernel's total is %d", p.sum, p.Hits)
	}
	return nil
}

// trigger reads "hist:keys=a,b.hex:vals=hitcount,c:sort=hitcount:size=2048 if x > 0 [active]".
func (p *parser) trigger(s string) error {
	if i := strings.LastIndex(s, " ["); i >= 0 && strings.HasSuffix(s, "]") {
		s = s[:i]
	}
	p.Trigger = text.Line(s, 1000)
	spec, _, _ := strings.Cut(s, " if ")
	for _, word := range strings.Split(spec, ":") {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "keys":
			p.Keys = strings.Split(value, ",")
			for i, k := range p.Keys {
				// 7.2 has "common_cpucommon_cpu" here, or "common_cpucpu", and not in its rows.
				if strings.HasPrefix(k, "common_cpu") {
					p.Keys[i] = "common_cpu"
				}
			}
		case "vals":
			p.Values = strings.Split(value, ",")
		}
	}
	if len(p.Keys) == 0 || len(p.Values) == 0 || len(p.Keys)+len(p.Values) > maxFields {
		return fmt.Errorf("its trigger %q has no keys and values that can be read", text.Line(s, 200))
	}
	var tail strings.Builder
	tail.WriteString(` ?\}`)
	for i, v := range p.Values {
		name, mod, _ := strings.Cut(v, ".")
		between, digits := "  ", `[0-9]{1,20}`
		if i == 0 {
			between = " "
		}
		if mod == "hex" {
			digits = `[0-9a-f]{1,16}`
		}
		tail.WriteString(between + regexp.QuoteMeta(name) + `: +(` + digits + `)`)
		p.Values[i] = text.Line(v, maxWord)
	}
	for _, k := range p.Keys {
		if k == "" || text.Line(k, maxWord) != k {
			return fmt.Errorf("its trigger %q has no keys that can be read", text.Line(s, 200))
		}
	}
	var err, terr error
	p.end, err = regexp.Compile(tail.String() + `$`)
	p.tail, terr = regexp.Compile(`^(?s)(.*?)` + tail.String() + `$`)
	return cmp.Or(err, terr)
}

// row reads the row that begins in the first line, and says how many lines it has. It is
// one, but for stacks.
func (p *parser) row(lines []string) (n int) {
	size, ended := 0, false
	for n < len(lines) && !ended {
		line := lines[n]
		if n > 0 && (!p.HasStack() || strings.HasPrefix(line, "{ ") || line == "") {
			break
		}
		n++
		if size += len(line) + 1; size > maxRow {
			break
		}
		ended = p.end.MatchString(line)
	}
	r, ok := Row{}, false
	if ended {
		r, ok = p.fields(strings.Join(lines[:n], "\n"))
	}
	switch {
	case !ok:
		p.Unread++
		return n
	case len(p.Rows) < maxRows:
		p.Rows = append(p.Rows, r)
	default:
		p.Unkept++
	}
	p.rows++
	p.sum += r.Values[0]
	return n
}

// fields reads "{ a:          1, b: x     } hitcount:          3  c:          7".
func (p *parser) fields(row string) (r Row, ok bool) {
	m := p.tail.FindStringSubmatch(row)
	for i, digits := range m[2:] {
		base := 10
		if strings.HasSuffix(p.Values[i], ".hex") {
			base = 16
		}
		n, err := strconv.ParseUint(digits, base, 64)
		if err != nil {
			return r, false
		}
		r.Values = append(r.Values, n)
	}
	rest := strings.TrimPrefix(m[1], "{ ")
	for i, key := range p.Keys {
		name, mod := field(key)
		value, found := strings.CutPrefix(rest, name+":")
		if !found {
			return r, false
		}
		if rest = ""; i+1 < len(p.Keys) {
			next, _ := field(p.Keys[i+1])
			// A string that holds what would end it could mean anything.
			if strings.Count(value, ", "+next+":") != 1 {
				return r, false
			}
			var after string
			value, after, _ = strings.Cut(value, ", "+next+":")
			rest = next + ":" + after
		}
		k, ok := keyOf(mod, value)
		if !ok {
			return r, false
		}
		r.Keys = append(r.Keys, k)
	}
	return r, true
}

// field is a key's name as it is before its value, and how the value is printed.
func field(key string) (name, mod string) {
	if isStack(key) {
		return key, "stacktrace"
	}
	name, mod, _ = strings.Cut(key, ".")
	mod, _, _ = strings.Cut(mod, "=")
	return name, mod
}

var forms = map[string]*text.Pattern{
	"execname":   text.Lazy(`^ (.*?) *\[ *([0-9]{1,20})\]$`),
	"syscall":    text.Lazy(`^ (\S+) *\[ *([0-9]{1,20})\]$`),
	"sym":        text.Lazy(`^ \[([0-9a-f]{1,16})\] (\S.*?) *$`),
	"sym-offset": text.Lazy(`^ \[([0-9a-f]{1,16})\] (\S.*?) *$`),
	"log2":       text.Lazy(`^ ~ (2\^[0-9]{1,2}) *$`),
	"buckets":    text.Lazy(`^ ~ ([0-9]{1,20}-[0-9]{1,20}) *$`),
	"hex":        text.Lazy(`^ ([0-9a-f]{1,16}) *$`),
}

// keyOf reads a key's value.
func keyOf(mod, value string) (k Key, ok bool) {
	if mod == "stacktrace" {
		return stackOf(value)
	}
	if strings.Contains(value, "\n") {
		return k, false
	}
	form := forms[mod]
	if form == nil {
		return Key{Text: text.Line(strings.TrimSpace(value), maxWord)}, strings.HasPrefix(value, " ")
	}
	m := form.FindStringSubmatch(value)
	if m == nil {
		return k, false
	}
	switch mod {
	case "execname":
		k.Text = m[1] + "-" + m[2]
	case "sym", "sym-offset":
		k.Text = m[2]
	case "hex":
		k.Text = "0x" + m[1]
	case "log2", "buckets":
		k.Text = "~ " + m[1]
	default:
		k.Text = m[1]
	}
	k.Text = text.Line(k.Text, maxWord)
	return k, true
}

// stackOf reads the lines of a stack.
func stackOf(value string) (k Key, ok bool) {
	st := &stack.Stack{Origin: "hist"}
	for i, line := range strings.Split(value, "\n") {
		if i == 0 || strings.TrimSpace(line) == "" {
			if strings.TrimSpace(line) != "" {
				return k, false
			}
			continue
		}
		f, ok := stack.ParseFrame(line)
		if !ok {
			return k, false
		}
		st.Frames = append(st.Frames, f)
	}
	st.Classify()
	return Key{Stack: st}, true
}
