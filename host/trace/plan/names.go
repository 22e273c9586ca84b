package plan

import (
	"bufio"
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Bounds on what a guest may say it has. Linux has 50 to 80 thousand functions
// that can be traced, and some 1500 events.
const (
	maxNames = 1 << 20
	maxName  = 512 // KSYM_NAME_LEN
)

// Names are what the tracing of a kernel knows, sorted.
type Names struct {
	functions []string
	events    []string // "sched/sched_switch"
	systems   []string
}

// ReadNames reads available_filter_functions and available_events. Names that
// are no names are left out.
func ReadNames(functions, events []byte) (*Names, error) {
	n := new(Names)
	add := func(list *[]string, text []byte, take func(string) string) error {
		s := bufio.NewScanner(bytes.NewReader(text))
		s.Buffer(make([]byte, 0, 4<<10), 64<<10)
		for s.Scan() {
			if name := take(s.Text()); name != "" && len(name) <= maxName {
				*list = append(*list, name)
			}
			if len(*list) > maxNames {
				return fmt.Errorf("more than %d names", maxNames)
			}
		}
		slices.Sort(*list)
		return s.Err()
	}
	// "func", "func [module]", and on some kernels the address in front.
	err := add(&n.functions, functions, func(line string) string {
		name, _, _ := strings.Cut(line, " ")
		if !isGlob(name) {
			return ""
		}
		return name
	})
	if err != nil {
		return nil, fmt.Errorf("read available_filter_functions: %w", err)
	}
	err = add(&n.events, events, func(line string) string {
		system, event, ok := strings.Cut(line, ":")
		if !ok || !isEvent(system) || !isEvent(event) {
			return ""
		}
		return system + "/" + event
	})
	if err != nil {
		return nil, fmt.Errorf("read available_events: %w", err)
	}
	for _, e := range n.events {
		n.systems = append(n.systems, path.Dir(e))
	}
	n.systems = slices.Compact(n.systems)
	return n, nil
}

// match returns the names that a name or glob stands for, each once.
func match(list []string, glob string) []string {
	if !strings.ContainsAny(glob, "*?[") {
		if _, ok := slices.BinarySearch(list, glob); ok {
			return []string{glob}
		}
		return nil
	}
	var found []string
	for _, name := range list {
		if ok, err := path.Match(glob, name); ok && err == nil {
			found = append(found, name)
		}
	}
	return slices.Compact(found)
}

// isGlob wants a symbol, or a glob of one as set_ftrace_filter takes it.
func isGlob(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isWord(c) && !strings.ContainsRune(".$*?[]-^!", rune(c)) {
			return false
		}
	}
	_, err := path.Match(s, "")
	return s != "" && len(s) <= maxName && err == nil && s[0] != '-' && s[0] != '!'
}

func isEvent(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isWord(c) && !strings.ContainsRune("*?-", rune(c)) {
			return false
		}
	}
	return s != "" && len(s) <= 64 && s[0] != '-'
}

func isWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
