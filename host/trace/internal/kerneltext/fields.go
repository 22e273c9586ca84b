package kerneltext

import (
	"strings"

	"labctl/host/text"
	"labctl/host/trace/event"
)

// layouts are the print formats of events whose fields hold a task's name or a
// path, which may contain anything, even " pid=1". A comm is at most 15 bytes,
// so that no comm can hold what stands between two of them in sched_process_fork;
// a path is followed by numbers alone up to the end of the line.
// (include/trace/events/sched.h, task.h)
var layouts = map[string]*text.Pattern{
	"sched_process_fork": text.Lazy(`^comm=(?P<comm>.{0,64}) pid=(?P<pid>\d+) child_comm=(?P<child_comm>.{0,64}) child_pid=(?P<child_pid>\d+)$`),
	"sched_process_exec": text.Lazy(`^filename=(?P<filename>.*) pid=(?P<pid>\d+) old_pid=(?P<old_pid>\d+)$`),
	"sched_process_exit": text.Lazy(`^comm=(?P<comm>.{0,64}) pid=(?P<pid>\d+) prio=(?P<prio>\d+)(?: group_dead=(?P<group_dead>\w+))?$`),
	"task_newtask":       text.Lazy(`^pid=(?P<pid>\d+) comm=(?P<comm>.{0,64}) clone_flags=(?P<clone_flags>[0-9a-f]+) oom_score_adj=(?P<oom_score_adj>-?\d+)$`),
	"task_rename":        text.Lazy(`^(?:pid=(?P<pid>\d+) )?oldcomm=(?P<oldcomm>.{0,64}) newcomm=(?P<newcomm>.{0,64}) oom_score_adj=(?P<oom_score_adj>-?\d+)$`),
}

// parseBody reads what stands after the time: "name: fields", or the function
// tracer's "function <-caller".
func parseBody(e *event.Event, rest string) bool {
	name, body, ok := strings.Cut(rest, ": ")
	if !ok {
		name, ok = strings.CutSuffix(strings.TrimRight(rest, " "), ":")
	}
	if !ok || !isName(name) {
		callee, caller, ok := strings.Cut(rest, " <-")
		if !ok {
			return false
		}
		e.Name, e.Text = "function", oneLine(rest)
		e.Fields = []event.Field{{Key: "function", Value: oneLine(callee)}, {Key: "caller", Value: oneLine(caller)}}
		return true
	}
	e.Name, e.Text = name, oneLine(body)
	if layout := layouts[name]; layout != nil {
		if m := layout.FindStringSubmatchIndex(body); m != nil {
			for i, key := range layout.SubexpNames() {
				if i > 0 && m[2*i] >= 0 {
					e.Fields = append(e.Fields, event.Field{Key: key, Value: oneLine(body[m[2*i]:m[2*i+1]])})
				}
			}
			return true
		}
	}
	// A kprobe event starts with where it fired: "(kernel_clone+0x0/0x478)",
	// a kretprobe's with "(caller <- function)".
	if strings.HasPrefix(body, "(") {
		if at, after, ok := strings.Cut(body[1:], ")"); ok {
			e.At, body = oneLine(at), strings.TrimLeft(after, " ")
		}
	}
	e.Fields = parseFields(body)
	return true
}

func isName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}

// maxFields is the kernel's own bound on a probe's arguments.
const maxFields = 128

// parseFields reads key=value pairs. A value ends where the next " key=" starts;
// a quoted one, which the kernel does not escape, at a quote with such a start
// or nothing after it.
func parseFields(s string) []event.Field {
	var fields []event.Field
	for len(fields) < maxFields {
		key, rest, ok := strings.Cut(s, "=")
		if !ok || !isName(key) {
			return fields
		}
		end := valueEnd(rest)
		value := strings.TrimRight(rest[:end], " ")
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		fields = append(fields, event.Field{Key: key, Value: oneLine(value)})
		s = strings.TrimLeft(rest[end:], " ")
	}
	return fields
}

// valueEnd is where the value at the start of s ends.
func valueEnd(s string) int {
	for i := 0; i+1 < len(s); i++ {
		if s[i] != ' ' || s[i+1] == ' ' {
			continue
		}
		if s[0] == '"' && !strings.HasSuffix(strings.TrimRight(s[1:i], " "), `"`) {
			continue
		}
		key := i + 1
		for key < len(s) && isName(s[key:key+1]) {
			key++
		}
		if key > i+1 && key < len(s) && s[key] == '=' {
			return i
		}
	}
	return len(s)
}
