package stack

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseFrame reads one frame as the kernel prints it with %pS or in ftrace's
// stacks:
//
//	sym   sym+0x18/0x1b08   sym+0x18/0x1b08 [module]   sym+0x18/0x1b08 <addr>
//	0x7ed0aaf0   <00007ed0aaf0>   0
//
// A "[<addr>] " in front, as in /proc/PID/stack, is taken too. It reports false
// when the text is none of these.
func ParseFrame(text string) (Frame, bool) {
	f := Frame{Kind: Function}
	text = strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(text, "[<"); ok {
		addr, after, ok := strings.Cut(rest, ">]")
		pc, valid := parseHex(addr)
		if !ok || !valid {
			return f, false
		}
		f.PC, text = pc, strings.TrimSpace(after)
	}
	// ftrace's name for code that it generated.
	if text == "[FTRACE TRAMPOLINE]" {
		return Frame{Name: "ftrace_trampoline", Kind: Asm}, true
	}
	parts := strings.Fields(text)
	if len(parts) == 0 || len(parts) > 4 {
		return f, false
	}
	for i, p := range parts[1:] {
		switch inner, ok := bracketed(p, '[', ']'); {
		case ok:
			f.Module = Sanitise(inner)
			continue
		case strings.HasPrefix(p, "[") || strings.HasSuffix(p, "]") && i > 0:
			// "[module buildid]" in two words: the first one is the name.
			if strings.HasPrefix(p, "[") {
				f.Module = Sanitise(p[1:])
			}
			continue
		}
		addr, ok := bracketed(p, '<', '>')
		pc, valid := parseHex(addr)
		if !ok || !valid {
			return f, false
		}
		f.PC = pc
	}
	name := parts[0]
	if inner, ok := bracketed(name, '<', '>'); ok {
		name = "0x" + strings.TrimPrefix(inner, "0x")
	}
	if name == "0" || strings.HasPrefix(name, "0x") {
		pc, ok := parseHex(name)
		return Frame{PC: pc, Kind: Unknown}, ok
	}
	if sym, place, ok := strings.Cut(name, "+"); ok {
		off, size, both := strings.Cut(place, "/")
		var valid bool
		if f.Offset, valid = parseHex(off); !valid {
			return f, false
		}
		if both {
			if f.Size, valid = parseHex(size); !valid {
				return f, false
			}
		}
		name = sym
	}
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		return f, false
	}
	f.Name = Sanitise(name)
	return f, true
}

func bracketed(s string, open, shut byte) (string, bool) {
	if len(s) < 3 || s[0] != open || s[len(s)-1] != shut {
		return "", false
	}
	return s[1 : len(s)-1], true
}

func parseHex(s string) (uint64, bool) {
	v, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 64)
	return v, err == nil
}

// String is the frame as ftrace prints it: "sym+0x18/0x1b08 [module]".
func (f Frame) String() string {
	if f.Name == "" {
		return fmt.Sprintf("0x%x", f.PC)
	}
	s := f.Name
	if f.Size > 0 {
		s += fmt.Sprintf("+0x%x/0x%x", f.Offset, f.Size)
	}
	if f.Module != "" {
		s += " [" + f.Module + "]"
	}
	return s
}

// Ftrace prints the frames as a stack in ftrace's text, a line each:
// " => sym+0x18/0x1b08".
func (s *Stack) Ftrace() string {
	var b strings.Builder
	for _, f := range s.Frames {
		b.WriteString(" => " + f.String() + "\n")
	}
	return b.String()
}
