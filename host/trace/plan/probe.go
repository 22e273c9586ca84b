package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"labctl/guest/ksym"
	"labctl/guest/wire"
	"labctl/host/arch"
	"labctl/host/kernel"
	"labctl/host/text"
	"labctl/host/trace/creation"
)

// probes plans the kprobe events that were asked for.
func (m *maker) probes(r Request) error {
	for _, spec := range r.Probes {
		p, err := m.parseProbe(spec, r.Stacks)
		if err != nil {
			return fmt.Errorf("probe %q: %w", spec, err)
		}
		if m.armed["labctl/"+p.Event] {
			return fmt.Errorf("probe %q: there is one called %s already; write NAME=%s", spec, p.Event, p.Event)
		}
		m.probe(p)
	}
	for _, e := range r.Entries {
		switch {
		case len(e.Of) == 0:
			return fmt.Errorf("entry %s: it names no function", e.Name)
		case slices.Contains(r.Creations.probes(), e.Name), m.armed["labctl/"+e.Name]:
			return fmt.Errorf("entry %s: there is a probe of that name already", e.Name)
		}
		p := wire.Kprobe{Event: e.Name, Optional: true}
		args := append(m.taskOf(e), m.argsOf(e)...)
		for _, symbol := range e.Of {
			p.Alternatives = append(p.Alternatives, m.atEntry(symbol, args, r.Stacks)...)
		}
		m.probe(p)
	}
	return nil
}

// taskOf fetches the number of the task that an entry names.
func (m *maker) taskOf(e Entry) []string {
	row, ok := arch.Find(m.k.Arch)
	if !ok || e.Task < 1 || e.Task > len(row.Entry.Args) || m.k.Facts == nil {
		return nil
	}
	pid, ok := m.k.Facts.Members["task_struct.pid"]
	if !ok {
		return nil
	}
	return []string{fmt.Sprintf("task=+%d(%s):s32", pid.Offset, row.Entry.Args[e.Task-1])}
}

// argsOf fetches the arguments that an entry wants as they are.
func (m *maker) argsOf(e Entry) (fetch []string) {
	row, ok := arch.Find(m.k.Arch)
	if !ok {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.Args)) {
		if n := e.Args[name]; n >= 1 && n <= len(row.Entry.Args) {
			fetch = append(fetch, name+"="+row.Entry.Args[n-1]+":"+row.Entry.Word)
		}
	}
	return fetch
}

func (m *maker) probe(p wire.Kprobe) {
	m.armed["labctl/"+p.Event] = true
	m.plan.Params.Probes = append(m.plan.Params.Probes, p)
	// What it is on is the kernel's to say: see Took.
	m.line(Line{Kind: "probe", Name: p.Event, Armed: []string{p.Alternatives[0].Symbol}})
}

// atEntry is a probe at a function's first instruction, where a stack may lack the
// direct caller, and the link register or the top of the stack has it.
func (m *maker) atEntry(symbol string, args []string, stacks bool) (tries []wire.KprobeTry) {
	entry, _ := arch.EntryOf(m.k.Arch, m.k.FramePointers)
	callers := entry.Caller()
	if !stacks || len(callers) == 0 {
		tries = []wire.KprobeTry{{Symbol: symbol, Args: args}}
	} else {
		for _, caller := range callers {
			tries = append(tries, wire.KprobeTry{Symbol: symbol, Args: append(slices.Clone(args), caller)})
		}
	}
	return creation.AndOlder(tries)
}

var (
	identifier = text.Lazy(`^[A-Za-z_]\w{0,62}$`)
	symbol     = text.Lazy(`^([A-Za-z_][\w.$]*)(\+(?:0x[0-9a-f]+|\d+))?$`)
	parameter  = text.Lazy(`^([A-Za-z_]\w*)(?::(\w+))?$`)
	// fetch is an argument as Documentation/trace/kprobetrace.rst has it.
	fetch = text.Lazy(`^(?:[A-Za-z_]\w*=)?[%@$+\-\\][!-~]*$`)
)

// Own are the probes that report task creations and exits.
var Own = []string{creation.EventClone, creation.EventKthread, EventExit}

// probes are those of Own that are armed.
func (c Creations) probes() []string {
	switch c {
	case Tree:
		return Own
	case Joined:
		return Own[:2]
	}
	return nil
}

// parseProbe reads one --kprobe: the kernel's own form without the group, in
// which an argument may also be given by its name in C.
//
//	[NAME=]SYMBOL[+OFFSET] [ARG...]     p:NAME SYMBOL[+OFFSET] [ARG...]
//
//	do_sys_openat2                      every argument that the kernel's BTF names
//	do_sys_openat2 dfd filename:ustring
//	openat=do_sys_openat2 how=+0(%dx):x64
//
// A string behind a pointer is NAME:string, or NAME:ustring in user memory.
func (m *maker) parseProbe(spec string, stacks bool) (wire.Kprobe, error) {
	event, base, offset, words, err := splitProbe(spec)
	p := wire.Kprobe{Event: event, Optional: true}
	if err != nil {
		return p, err
	}
	row, ok := arch.Find(m.k.Arch)
	if !ok {
		return p, fmt.Errorf("no calling convention for architecture %q", m.k.Arch)
	}
	var refusal error
	for _, c := range ksym.FunctionCandidates(base) {
		if strings.Contains(c.Name, "*") {
			continue
		}
		args, err := m.fetches(words, c.Name, offset, row.Entry)
		if err != nil {
			if refusal == nil {
				refusal = err
			}
			continue
		}
		p.Alternatives = append(p.Alternatives, m.atEntry(c.Name+offset, args, stacks && offset == "")...)
	}
	if len(p.Alternatives) == 0 {
		return p, refusal
	}
	return p, nil
}

// splitProbe takes the form of parseProbe apart, as far as no kernel is needed for
// it: the event's name, the symbol, its offset, and the arguments.
func splitProbe(spec string) (event, base, offset string, args []string, err error) {
	words := strings.Fields(spec)
	if len(words) > 0 && (words[0] == "p" || strings.HasPrefix(words[0], "p:")) {
		event = strings.TrimPrefix(strings.TrimPrefix(words[0], "p"), ":")
		words = words[1:]
	} else if len(words) > 0 && (words[0] == "r" || strings.HasPrefix(words[0], "r:") || strings.HasPrefix(words[0], "r1")) {
		return "", "", "", nil, errors.New("return probes damage other events' stacks, on a function that creates tasks: use --fprobe, which does not")
	}
	if len(words) == 0 {
		return "", "", "", nil, errors.New("want [NAME=]SYMBOL [ARG...]")
	}
	target := words[0]
	if name, rest, ok := strings.Cut(target, "="); ok {
		event, target = name, rest
	}
	match := symbol.FindStringSubmatch(target)
	if match == nil {
		return "", "", "", nil, fmt.Errorf("%q is not a kernel symbol", target)
	}
	base, offset = match[1], match[2]
	if event == "" {
		event = strings.NewReplacer(".", "_", "$", "_").Replace(base)
	}
	if !identifier.MatchString(event) {
		return "", "", "", nil, fmt.Errorf("%q is not an event name: want a C identifier", event)
	}
	if slices.Contains(Own, event) {
		return "", "", "", nil, fmt.Errorf("%s is a probe of labctl's own: write another NAME=%s", event, target)
	}
	return event, base, offset, words[1:], nil
}

// fetches writes the arguments of one probe.
func (m *maker) fetches(words []string, function, offset string, at arch.Entry) (args []string, err error) {
	var params []kernel.Param
	if m.k.Prototype != nil && offset == "" { // arguments are in their registers at the entry alone
		params = m.k.Prototype(function)
	}
	if len(words) == 0 {
		for i, p := range params {
			if i < len(at.Args) && p.Name != "" && !arch.IsCaller(p.Name) {
				args = append(args, p.Name+"="+at.Args[i]+":"+fetchType(p.Type, at.Word))
			}
		}
		return args, nil
	}
	for _, w := range words {
		if fetch.MatchString(w) && !strings.ContainsAny(w, ";#") {
			args = append(args, w)
			continue
		}
		named := parameter.FindStringSubmatch(w)
		if named == nil {
			return nil, fmt.Errorf("%q is neither a parameter's name nor a fetch argument of kprobe_events", w)
		}
		arg, err := byName(named[1], named[2], function, params, at)
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
	}
	return args, nil
}

// byName fetches a parameter by its name in C.
func byName(name, typ, function string, params []kernel.Param, at arch.Entry) (string, error) {
	for i, p := range params {
		switch {
		case p.Name != name:
		case i >= len(at.Args):
			return "", fmt.Errorf("parameter %s of %s is not in a register", name, function)
		case typ == "string" || typ == "ustring":
			return fmt.Sprintf("%s=+0(%s):%s", name, at.Args[i], typ), nil
		case typ != "":
			return name + "=" + at.Args[i] + ":" + typ, nil
		default:
			return name + "=" + at.Args[i] + ":" + fetchType(p.Type, at.Word), nil
		}
	}
	if len(params) == 0 {
		return "", fmt.Errorf("the parameters of %s are not known here: write NAME=%s for the first one", function, at.Args[0])
	}
	return "", noParameter(function, name, params)
}

// fetchTypes are the types of kprobe_events for C's integers; whatever else is in
// a register is printed as a hexadecimal word.
var fetchTypes = map[string]string{
	"int": "s32", "unsigned int": "u32", "short int": "s16", "short unsigned int": "u16",
	"_Bool": "u8", "bool": "u8", "char": "s8", "unsigned char": "u8",
	"pid_t": "s32", "uid_t": "u32", "gid_t": "u32", "umode_t": "u16", "gfp_t": "x32", "u32": "u32", "u64": "u64",
	"s32": "s32", "size_t": "u64", "ssize_t": "s64", "loff_t": "s64", "long int": "s64",
}

func fetchType(c, word string) string {
	t, ok := fetchTypes[c]
	if !ok || word == "x32" && strings.HasSuffix(t, "64") {
		return word
	}
	return t
}

// Symbols lists the functions that probes may come to sit on, for looking their
// prototypes up. What is no probe is passed over: Make says so.
func Symbols(probes []string) (names []string) {
	for _, spec := range probes {
		for _, word := range strings.Fields(spec) {
			if word == "p" || strings.HasPrefix(word, "p:") || word == "f" || strings.HasPrefix(word, "f:") {
				continue
			}
			if _, rest, ok := strings.Cut(word, "="); ok {
				word = rest
			}
			if m := symbol.FindStringSubmatch(strings.TrimSuffix(word, returned)); m != nil {
				for _, c := range ksym.FunctionCandidates(m[1]) {
					if !strings.Contains(c.Name, "*") {
						names = append(names, c.Name)
					}
				}
			}
			break
		}
	}
	return names
}
