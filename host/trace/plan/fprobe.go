package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"labctl/guest/ksym"
	"labctl/guest/wire"
	"labctl/host/kernel"
	"labctl/host/text"
)

// returned marks the return of a function where the kernel takes probes.
const returned = "%return"

// fetchReturn is the result of a function, in the field whose errors the decoder names.
const fetchReturn = "ret=$retval"

// fprobes plans the events at functions' returns.
func (m *maker) fprobes(r Request) error {
	for _, spec := range r.Fprobes {
		p, err := m.parseFprobe(spec)
		if err != nil {
			return fmt.Errorf("fprobe %q: %w", spec, err)
		}
		if m.armed["labctl/"+p.Event] {
			return fmt.Errorf("fprobe %q: there is a probe called %s already; write NAME=SYMBOL", spec, p.Event)
		}
		if m.k.NoFprobes {
			m.line(Line{Kind: "probe", Name: p.Event, Why: "this kernel has no fprobe events: it is built without FPROBE_EVENTS"})
			continue
		}
		m.probe(p)
	}
	return nil
}

// parseFprobe reads one --fprobe: the kernel's own form without the group, in which
// %return may be left out, for it is the return that is meant.
//
//	[NAME=]SYMBOL [ARG...]     f:NAME SYMBOL%return [ARG...]
//
//	kernel_clone                   ret, which the kernel gives the type that its BTF has
//	do_filp_open $retval dfd       the same, and a parameter by its name in C
//	clone=kernel_clone ret=$retval:x64
func (m *maker) parseFprobe(spec string) (wire.Kprobe, error) {
	event, function, words, err := splitFprobe(spec)
	p := wire.Kprobe{Event: event, Optional: true, Fprobe: true}
	if err != nil {
		return p, err
	}
	var refusal error
	for _, c := range ksym.FunctionCandidates(function) {
		if strings.Contains(c.Name, "*") {
			continue
		}
		args, err := m.fetchesAtReturn(words, c.Name)
		if err != nil {
			refusal = cmp.Or(refusal, err)
			continue
		}
		p.Alternatives = append(p.Alternatives, wire.KprobeTry{Symbol: c.Name + returned, Args: args})
		if len(words) == 0 { // one that returns nothing has nothing to fetch
			p.Alternatives = append(p.Alternatives, wire.KprobeTry{Symbol: c.Name + returned})
		}
	}
	if len(p.Alternatives) == 0 {
		return p, refusal
	}
	return p, nil
}

// splitFprobe takes the form of parseFprobe apart, as far as no kernel is needed for it.
func splitFprobe(spec string) (event, function string, args []string, err error) {
	words := strings.Fields(spec)
	if len(words) > 0 && (words[0] == "f" || strings.HasPrefix(words[0], "f:")) {
		event = strings.TrimPrefix(strings.TrimPrefix(words[0], "f"), ":")
		words = words[1:]
	}
	if len(words) == 0 {
		return "", "", nil, errors.New("want [NAME=]SYMBOL [ARG...]")
	}
	function = words[0]
	if name, rest, ok := strings.Cut(function, "="); ok {
		event, function = name, rest
	}
	function = strings.TrimSuffix(function, returned)
	match := symbol.FindStringSubmatch(function)
	if match == nil || match[2] != "" {
		return "", "", nil, fmt.Errorf("%q is not a kernel function", function)
	}
	if event == "" { // as the kernel calls it
		event = strings.NewReplacer(".", "_", "$", "_").Replace(function) + "__exit"
	}
	if !identifier.MatchString(event) {
		return "", "", nil, fmt.Errorf("%q is not an event name: want a C identifier", event)
	}
	if slices.Contains(Own, event) {
		return "", "", nil, fmt.Errorf("%s is a probe of labctl's own: write another NAME=%s", event, function)
	}
	return event, function, words[1:], nil
}

// fetchesAtReturn writes the arguments of one fprobe event. The kernel keeps parameters
// from the function's entry, by their names in its BTF.
func (m *maker) fetchesAtReturn(words []string, function string) (args []string, err error) {
	if len(words) == 0 {
		return []string{fetchReturn}, nil
	}
	var params []kernel.Param
	if m.k.Prototype != nil {
		params = m.k.Prototype(function)
	}
	for _, w := range words {
		switch named := parameter.FindStringSubmatch(w); {
		case w == "$retval" || strings.HasPrefix(w, "$retval:"):
			args = append(args, "ret="+w)
		case fetch.MatchString(w) && !strings.ContainsAny(w, ";#"):
			args = append(args, w)
		case named == nil:
			return nil, fmt.Errorf("%q is neither $retval, a parameter's name, nor a fetch argument of dynamic_events", text.Line(w, 80))
		default:
			if i := slices.IndexFunc(params, func(p kernel.Param) bool { return p.Name == named[1] }); i < 0 && len(params) > 0 {
				return nil, noParameter(function, named[1], params)
			}
			args = append(args, named[1]+"="+w)
		}
	}
	return args, nil
}

func noParameter(function, name string, params []kernel.Param) error {
	var known []string
	for _, p := range params {
		known = append(known, p.Name)
	}
	return fmt.Errorf("%s has no parameter %s (it has %s)", function, name, strings.Join(known, ", "))
}
