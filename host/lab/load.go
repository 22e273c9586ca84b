package lab

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"labctl/guest/catalogue"
	"labctl/guest/wire"
	"labctl/host/bounded"
	"labctl/host/lab/expr"
	"labctl/host/nearest"
	"labctl/host/outcome"
	"labctl/host/strictyaml"
	"labctl/host/targets"
	"labctl/host/text"
	"labctl/host/trace/creation"
)

// maxConfig bounds lab.yaml, maxText the pages beside it, in bytes.
const (
	maxConfig = 256 << 10
	maxText   = 1 << 20
)

// ReadFile reads a page or a source file of the lab, which must be a regular file.
func (l *Lab) ReadFile(name string) ([]byte, error) {
	b, err := bounded.ReadFileFS(l.Dir, name, maxText)
	if err != nil {
		return nil, outcome.Default(outcome.BadInput, fmt.Errorf("lab %s: %w", l.ID, err))
	}
	return b, nil
}

// maxFilter bounds the filter of an event, in bytes.
const maxFilter = 1000

// Error is one thing that is wrong with a lab.
type Error struct {
	File    string // "P1-three-ids/lab.yaml"
	Line    int    // from 1; 0 for a file as a whole
	Field   string // "checks[2].that"
	Msg     string
	Warning bool // Lint's: the lab can be run as it is
}

func (e *Error) Error() string {
	where := e.File
	if e.Line > 0 {
		where += ":" + strconv.Itoa(e.Line)
	}
	if e.Field != "" {
		where += ": " + e.Field
	}
	if e.Warning {
		where += ": warning"
	}
	return where + ": " + e.Msg
}

// Outcome is BadInput.
func (e *Error) Outcome() outcome.Kind { return outcome.BadInput }

// Set is the labs of a directory, in the order of their ids.
type Set struct {
	Labs []*Lab
	// Broken are the errors of labs that are left out.
	Broken []error
}

// Load reads every lab below a directory: every directory with a lab.yaml. The error
// is one of reading; a lab that is wrong is in Broken, one error each.
func Load(root fs.FS) (_ *Set, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	names, err := fs.Glob(root, "*/"+Config)
	if err != nil {
		return nil, fmt.Errorf("load labs: %w", err)
	}
	type read struct {
		lab *Lab
		err error
	}
	all := make([]read, len(names))
	var wg sync.WaitGroup
	turn := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, name := range names {
		dir, err := fs.Sub(root, path.Dir(name))
		if err != nil {
			return nil, fmt.Errorf("load labs: %w", err)
		}
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			all[i].lab, all[i].err = Read(dir, path.Dir(name))
		})
	}
	wg.Wait()
	s := &Set{}
	seen := map[string]string{}
	for _, r := range all {
		if r.err == nil && seen[r.lab.ID] != "" {
			r.err = &Error{File: r.lab.File, Line: 1, Field: "id", Msg: fmt.Sprintf("%s is the id of %s, too", r.lab.ID, seen[r.lab.ID])}
		}
		if r.err != nil {
			s.Broken = append(s.Broken, r.err)
			continue
		}
		seen[r.lab.ID] = r.lab.File
		s.Labs = append(s.Labs, r.lab)
	}
	slices.SortFunc(s.Labs, func(a, b *Lab) int { return compareIDs(a.ID, b.ID) })
	return s, nil
}

// One is Set.Find without reading the other labs: a lab is in the one directory that
// has its id at the front. Where that is not so, Load tells what is wrong.
func One(root fs.FS, id string) (_ *Lab, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	names, err := fs.Glob(root, "*/"+Config)
	if err != nil {
		return nil, fmt.Errorf("load labs: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		front, _, _ := strings.Cut(name, "-")
		return !strings.EqualFold(front, id)
	})
	if len(names) == 1 {
		dir, err := fs.Sub(root, path.Dir(names[0]))
		if err != nil {
			return nil, fmt.Errorf("load labs: %w", err)
		}
		return Read(dir, path.Dir(names[0]))
	}
	set, err := Load(root)
	if err != nil {
		return nil, err
	}
	return set.Find(id)
}

// compareIDs orders P2 before P10, and topics as they are taught.
func compareIDs(a, b string) int {
	const order = "PCKMSX"
	place := func(id string) int {
		if i := strings.Index(order, id[:1]); i >= 0 {
			return i
		}
		return len(order) + int(id[0])
	}
	an, _ := strconv.Atoi(a[1:])
	bn, _ := strconv.Atoi(b[1:])
	return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(an, bn), cmp.Compare(a, b))
}

// Find returns a lab by its id, whatever its case.
func (s *Set) Find(id string) (*Lab, error) {
	var known []string
	for _, l := range s.Labs {
		if strings.EqualFold(l.ID, id) {
			return l, nil
		}
		known = append(known, l.ID)
	}
	for _, err := range s.Broken {
		var e *Error
		if errors.As(err, &e) && strings.HasPrefix(strings.ToLower(e.File), strings.ToLower(id)+"-") {
			return nil, err
		}
	}
	return nil, nearest.Unknown("lab", id, known)
}

// Read reads one lab; name is what its directory is called in messages.
func Read(dir fs.FS, name string) (_ *Lab, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	v, err := read(dir, name)
	if err != nil {
		return nil, err
	}
	if v.first() == nil {
		v.files(name)
	}
	if err := v.first(); err != nil {
		return nil, err
	}
	return v.l, nil
}

// Lint is Read with all that is wrong: every error, and what more finds, which is
// called if the lab can be run. fail and warn note what is wrong with the field at a
// path: "trace.events[0].name".
func Lint(dir fs.FS, name string, more func(l *Lab, fail, warn func(path, format string, args ...any))) []*Error {
	v, err := read(dir, name)
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{File: path.Join(name, Config), Msg: text.Line(err.Error(), 200)}
		}
		return []*Error{e}
	}
	v.files(name)
	if v.first() == nil && more != nil {
		note := func(warning bool) func(string, string, ...any) {
			return func(path, format string, args ...any) {
				v.fail(path, 0, format, args...)
				v.errs[len(v.errs)-1].Warning = warning
			}
		}
		more(v.l, note(false), note(true))
	}
	return v.errs
}

// read reads a lab and checks all but the files beside lab.yaml.
func read(dir fs.FS, name string) (*validator, error) {
	file := path.Join(name, Config)
	// Before it is opened: a pipe without a writer would not open, and never end.
	fi, err := fs.Lstat(dir, Config)
	if err != nil {
		return nil, fmt.Errorf("load lab %s: %w", name, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, &Error{File: file, Msg: "not a regular file"}
	}
	f, err := dir.Open(Config)
	if err != nil {
		return nil, fmt.Errorf("load lab %s: %w", name, err)
	}
	defer f.Close()
	data, err := bounded.ReadAll(f, maxConfig)
	if err != nil {
		return nil, &Error{File: file, Msg: fmt.Sprintf("more than %d KB", maxConfig>>10)}
	}
	v, err := parse(data, file)
	if err == nil {
		v.l.Dir = dir
	}
	return v, err
}

// Parse reads the bytes of a lab.yaml and checks all but the files beside it.
// The error is an *Error, of the first thing that is wrong.
func Parse(data []byte, file string) (*Lab, error) {
	v, err := parse(data, file)
	if err == nil {
		err = v.first()
	}
	if err != nil {
		return nil, err
	}
	return v.l, nil
}

// parse reads a lab.yaml. The error is of what is not a lab at all.
func parse(data []byte, file string) (*validator, error) {
	tree, err := strictyaml.Parse(data)
	if err != nil {
		return nil, yamlError(err, file, nil)
	}
	l := &Lab{File: file}
	if err := yaml.UnmarshalWithOptions(data, l, yaml.Strict()); err != nil {
		return nil, yamlError(err, file, tree)
	}
	sum := sha256.Sum256(data)
	l.SHA256 = hex.EncodeToString(sum[:])
	v := &validator{l: l, file: file, tree: tree}
	v.all()
	return v, nil
}

// yamlError puts the reader's errors into one line.
func yamlError(err error, file string, tree *ast.File) error {
	out := &Error{File: file, Msg: text.Line(err.Error(), 200)}
	var s *strictyaml.Error
	if errors.As(err, &s) {
		out.Line = s.Line
	}
	var y yaml.Error
	if errors.As(err, &y) {
		out.Msg = text.Line(y.GetMessage(), 200)
		if t := y.GetToken(); t != nil {
			out.Line = t.Position.Line
			if tree != nil {
				out.Field = fieldAt(tree, t.Position.Offset)
			}
		}
	}
	return out
}

// fieldAt names the field at an offset.
func fieldAt(tree *ast.File, offset int) string {
	f := finder{offset: offset}
	for _, doc := range tree.Docs {
		ast.Walk(&f, doc)
	}
	return field(f.path)
}

type finder struct {
	offset int
	path   string
}

func (f *finder) Visit(n ast.Node) ast.Visitor {
	if t := n.GetToken(); t != nil && t.Position.Offset == f.offset && len(n.GetPath()) > len(f.path) {
		f.path = n.GetPath()
	}
	return f
}

func field(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, "$"), ".") }

// validator collects what is wrong.
type validator struct {
	l    *Lab
	file string
	tree *ast.File
	errs []*Error
}

// first is the first error, nil if there is none.
func (v *validator) first() error {
	for _, e := range v.errs {
		if !e.Warning {
			return e
		}
	}
	return nil
}

// fail notes what is wrong with the field at a path, such as "checks[2].that".
// below counts lines from the field's own on.
func (v *validator) fail(path string, below int, format string, args ...any) {
	v.errs = append(v.errs, &Error{File: v.file, Line: v.line(path, below), Field: path, Msg: fmt.Sprintf(format, args...)})
}

// line finds where a field is; of one that is not there, what it would be in.
func (v *validator) line(path string, below int) int {
	if v.tree == nil {
		return 0
	}
	for path != "" {
		if p, err := yaml.PathString("$." + path); err == nil {
			if n, err := p.FilterFile(v.tree); err == nil && n != nil {
				t := n.GetToken()
				line := t.Position.Line
				if n.Type() == ast.LiteralType { // "|": the text starts on the next line
					return line + 1 + below
				}
				if n.Type() == ast.MappingType || n.Type() == ast.MappingValueType {
					// The token is a colon, of the first key.
					return line
				}
				return line + below
			}
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			break
		}
		path, below = path[:cut], 0
	}
	return 1
}

var (
	labID   = regexp.MustCompile(`^[A-Z][0-9]{1,2}$`)
	checkID = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
	stepID  = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	eventID = regexp.MustCompile(`^[a-z0-9_]+/[a-zA-Z0-9_]+$`)
	option  = regexp.MustCompile(`^([A-Z0-9][A-Za-z0-9_]*)(=.+)?$`)
	symbol  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)
	member  = regexp.MustCompile(`^[A-Za-z_]\w*\.[A-Za-z_]\w*$`)
	topic   = regexp.MustCompile(`^[a-z][a-z0-9-]*$`)
)

func (v *validator) all() {
	l := v.l
	v.match("id", l.ID, labID, "P1")
	v.match("topic", l.Topic, topic, "process")
	for i, lang := range l.Languages {
		if !slices.Contains(Languages, lang) {
			v.fail(fmt.Sprintf("languages[%d]", i), 0, "%v", nearest.Unknown("language", lang, Languages))
		}
	}
	v.text("title", l.Title)
	v.text("summary", l.Summary)
	v.needs()
	v.trace("trace", l.Trace)
	steps := v.steps()
	if env := v.env(steps); env != nil {
		v.checks("checks", l.Checks, env, &l.asks)
		v.claims(env)
		v.views(env, steps)
	}
	for i, q := range l.Questions {
		at := fmt.Sprintf("questions[%d]", i)
		v.text(at+".ask", q.Ask)
		v.text(at+".answer", q.Answer)
	}
	if x := l.Exercise; x != nil {
		v.trace("exercise.trace", x.Trace)
		v.points("exercise.outside", x.Outside)
		if x.Seconds == 0 {
			x.Seconds = 10
		}
		if x.Seconds < 1 || x.Seconds > 120 {
			v.fail("exercise.seconds", 0, "%d; want 1 to 120", x.Seconds)
		}
		x.when = v.when("exercise", x.When, x.WhyNot, &v.l.exerciseAsks)
		if env := v.env([]string{ProgramStep}); env != nil {
			v.checks("exercise.checks", x.Checks, env, &l.exerciseAsks)
		}
		if len(x.Hints) == 0 {
			v.fail("exercise.hints", 0, "an exercise has at least one hint")
		}
		for i, h := range x.Hints {
			v.text(fmt.Sprintf("exercise.hints[%d]", i), h)
		}
		v.fails(x)
		l.exerciseAsks.Add(l.needsAsks())
	}
	l.asks.Add(l.needsAsks())
}

// needsAsks are the facts that tell whether the needs are met.
func (l *Lab) needsAsks() (a expr.Asks) {
	for _, o := range l.Needs.Config {
		name, _, _ := strings.Cut(o, "=")
		a.Config = append(a.Config, name)
	}
	for _, name := range l.privileges() {
		p, _ := wire.FindPrivilege(name)
		a.Config = append(a.Config, p.Config...)
	}
	a.Symbols, a.Members = slices.Clone(l.Needs.Symbols), slices.Clone(l.Needs.Members)
	if when := l.Needs.when; when != nil {
		a.Add(when.Asks)
	}
	return a
}

// privileges are those of all of the lab's programs.
func (l *Lab) privileges() []string {
	all := slices.Clone(l.Needs.Privileges)
	for _, s := range l.Steps {
		all = append(all, s.Privileges...)
	}
	return all
}

func (v *validator) match(at, s string, form *regexp.Regexp, like string) {
	if s == "" {
		v.fail(at, 0, "missing; write it as %s", like)
	} else if !form.MatchString(s) {
		v.fail(at, 0, "%q; write it as %s", s, like)
	}
}

func (v *validator) text(at string, t Text) {
	all := v.l.languages()
	for _, lang := range all {
		if strings.TrimSpace(t.only(lang)) == "" {
			v.fail(at+"."+lang, 0, "missing: every text is in %s", strings.Join(all, " and "))
		}
	}
}

func (v *validator) needs() {
	n := v.l.Needs
	for i, o := range n.Config {
		at := fmt.Sprintf("needs.config[%d]", i)
		if strings.HasPrefix(o, "CONFIG_") {
			v.fail(at, 0, "%q: leave CONFIG_ out", o)
		}
		v.match(at, o, option, "KCMP, or KCMP=y")
	}
	for i, s := range n.Symbols {
		v.match(fmt.Sprintf("needs.symbols[%d]", i), s, symbol, "kernel_clone")
	}
	for i, s := range n.Members {
		v.match(fmt.Sprintf("needs.members[%d]", i), s, member, "task_struct.pid")
	}
	for i, f := range n.Files {
		if !path.IsAbs(f) || path.Clean(f) != f {
			v.fail(fmt.Sprintf("needs.files[%d]", i), 0, "%q; want a clean absolute path", f)
		}
	}
	for _, c := range []struct {
		at          string
		n, min, max int
	}{{"needs.cpus", n.CPUs, 1, targets.MaxCPUs}, {"needs.memory_mb", n.MemoryMB, targets.MinMemoryMB, targets.MaxMemoryMB}, {"needs.numa_nodes", n.NUMANodes, 1, targets.MaxCPUs}} {
		if c.n != 0 && (c.n < c.min || c.n > c.max) {
			v.fail(c.at, 0, "%d; want %d to %d", c.n, c.min, c.max)
		}
	}
	v.privileges("needs.privileges", n.Privileges)
	v.l.Needs.when = v.when("needs", n.When, n.WhyNot, new(expr.Asks)) // see needsAsks
	for i, b := range n.NotOn {
		if t, ok := targets.Find(b); !ok || !t.Board {
			v.fail(fmt.Sprintf("needs.not_on[%d]", i), 0, "%q is no board", b)
		}
	}
}

// privileges holds them against those that there are. The guest's agent cannot
// give a user namespace together with others, and root has them all.
func (v *validator) privileges(at string, names []string) {
	known := []string{wire.RootPrivilege}
	for _, p := range wire.Privileges {
		known = append(known, p.Name)
	}
	for i, name := range names {
		at := fmt.Sprintf("%s[%d]", at, i)
		p, _ := wire.FindPrivilege(name)
		switch {
		case !slices.Contains(known, name):
			v.fail(at, 0, "%v", nearest.Unknown("privilege", name, known))
		case slices.Contains(names[:i], name):
			v.fail(at, 0, "%s is there twice", name)
		case len(names) > 1 && (p.Namespace || name == wire.RootPrivilege):
			v.fail(at, 0, "%s goes with no other privilege", name)
		}
	}
}

func (v *validator) trace(at string, t *Trace) {
	if t == nil {
		return
	}
	for i, e := range t.Events {
		at := fmt.Sprintf("%s.events[%d]", at, i)
		v.match(at, e.Name, eventID, "sched/sched_switch")
		if e.Filter != "" && t.WithCreations() && slices.Contains(creation.Events, e.Name) {
			v.fail(at+".filter", 0, "creations are told by all of %s: no filter, or creations: false", e.Name)
		}
		if len(e.Filter) > maxFilter || strings.ContainsAny(e.Filter, "\n\x00") {
			v.fail(at+".filter", 0, "want one line of at most %d bytes", maxFilter)
		}
	}
	names := map[string]bool{"clone": true, "kthread_request": true} // creation's own
	for i, f := range t.Functions {
		at := fmt.Sprintf("%s.functions[%d]", at, i)
		v.match(at+".name", f.Name, stepID, "do_exit")
		if names[f.Name] {
			v.fail(at+".name", 0, "%s is taken", f.Name)
		}
		names[f.Name] = true
		if f.Task < 0 || f.Task > 4 {
			v.fail(at+".task", 0, "%d; want 1 to 4, the number of an argument", f.Task)
		}
		if len(f.Args) > 4 {
			v.fail(at+".args", 0, "%d of them; want 4 at most", len(f.Args))
		}
		for _, name := range slices.Sorted(maps.Keys(f.Args)) {
			v.match(at+".args", name, stepID, "address")
			if n := f.Args[name]; n < 1 || n > 4 || name == "task" {
				v.fail(at+".args", 0, "%s: %d; want a name other than task, and 1 to 4, the number of an argument", name, n)
			}
		}
		if len(f.Of) == 0 {
			v.fail(at+".of", 0, "names no function")
		}
		for j, s := range f.Of {
			v.match(fmt.Sprintf("%s.of[%d]", at, j), s, symbol, "do_exit")
		}
	}
}

func (v *validator) steps() (ids []string) {
	if len(v.l.Steps) == 0 {
		v.fail("steps", 0, "a lab has at least one step")
	}
	for i := range v.l.Steps {
		s := &v.l.Steps[i]
		at := fmt.Sprintf("steps[%d]", i)
		v.match(at+".id", s.ID, stepID, "fork")
		switch {
		case expr.Reserved(s.ID):
			v.fail(at+".id", 0, "%s is a word of expressions; take another", s.ID)
		case slices.Contains(ids, s.ID):
			v.fail(at+".id", 0, "%s is another step's id", s.ID)
		}
		ids = append(ids, s.ID)
		kinds := 0
		for _, k := range []string{s.Probe, s.Program, s.Shell} {
			if k != "" {
				kinds++
			}
		}
		switch {
		case kinds != 1:
			v.fail(at, 0, "wants exactly one of probe, program and shell")
		case s.Probe == "" && s.Args != nil:
			v.fail(at+".args", 0, "are a probe's; a program has argv")
		case s.Program == "" && s.Argv != nil:
			v.fail(at+".argv", 0, "are a program's; a probe has args")
		case s.Program == "" && s.Privileges != nil:
			v.fail(at+".privileges", 0, "are a program's; probes and shell lines run as root")
		case s.Program != "" && !fs.ValidPath(s.Program):
			v.fail(at+".program", 0, "%q is not a directory of the lab", s.Program)
		}
		if s.Probe != "" {
			v.probe(at, s)
		}
		v.privileges(at+".privileges", s.Privileges)
		v.points(at+".outside", s.Outside)
	}
	return ids
}

// maxPoints bounds the points of a step, and each list of one.
const maxPoints = 32

// points checks where and what is read from outside.
func (v *validator) points(at string, points []Point) {
	if len(points) > maxPoints {
		v.fail(at, 0, "%d points; at most %d", len(points), maxPoints)
	}
	seen := map[string]bool{}
	for i := range points {
		p := &points[i]
		at := fmt.Sprintf("%s[%d]", at, i)
		v.match(at+".at", p.At, stepID, "shared")
		if seen[p.At] {
			v.fail(at+".at", 0, "%s is another point's name", p.At)
		}
		seen[p.At] = true
		for j, f := range p.SleepsIn {
			v.match(fmt.Sprintf("%s.sleeps_in[%d]", at, j), f, symbol, "do_sigtimedwait")
		}
		v.reaches(at, p)
		names := func(field string, list []string) {
			if len(list) > maxPoints {
				v.fail(at+"."+field, 0, "%d; at most %d", len(list), maxPoints)
			}
			for j, name := range list {
				v.match(fmt.Sprintf("%s.%s[%d]", at, field, j), name, stepID, "child")
			}
		}
		names("asleep", p.Asleep)
		names("stacks", p.Stacks)
		names("maps", p.Maps)
		if len(p.Pages) > maxPoints || len(p.Structs) > maxPoints {
			v.fail(at, 0, "more than %d pages or structs", maxPoints)
		}
		for j, page := range p.Pages {
			at := fmt.Sprintf("%s.pages[%d]", at, j)
			v.match(at+".task", page.Task, stepID, "child")
			v.match(at+".address", page.Address, stepID, "page")
		}
		for j, s := range p.Structs {
			at := fmt.Sprintf("%s.structs[%d]", at, j)
			if s.Type == "" {
				v.fail(at+".type", 0, "missing; write it as task_struct")
			}
			switch {
			case (s.Task == "") == (s.Symbol == ""):
				v.fail(at, 0, "wants exactly one of task and symbol")
			case s.Task != "":
				v.match(at+".task", s.Task, stepID, "child")
			default:
				v.match(at+".symbol", s.Symbol, symbol, "init_task")
			}
			if s.Through != "" && s.Task == "" {
				v.fail(at+".through", 0, "is a member of a task's task_struct")
			}
			if n := len(s.Members); n == 0 || n > 4*maxPoints {
				v.fail(at+".members", 0, "%d members; want 1 to %d", n, 4*maxPoints)
			}
		}
		if !p.PS && len(p.Stacks)+len(p.Maps)+len(p.Pages)+len(p.Structs) == 0 {
			v.fail(at, 0, "reads nothing: wants ps, stacks, maps, pages or structs")
		}
	}
}

// reaches checks a point that a function reaches.
func (v *validator) reaches(at string, p *Point) {
	for j, f := range p.Reaches {
		v.match(fmt.Sprintf("%s.reaches[%d]", at, j), f, symbol, "wake_up_new_task")
	}
	switch {
	case len(p.Reaches) == 0 && (len(p.Tasks) > 0 || p.Times != 0):
		v.fail(at, 0, "tasks and times are for a point with reaches")
	case len(p.Reaches) > 0 && len(p.SleepsIn)+len(p.Asleep) > 0:
		v.fail(at, 0, "reaches goes with neither sleeps_in nor asleep: the guest stands still as it comes there")
	case p.Times < 0 || p.Times > MaxTimes:
		v.fail(at+".times", 0, "%d; want 1 to %d", p.Times, MaxTimes)
	}
	for name, n := range p.Tasks {
		v.match(at+".tasks", name, stepID, "child")
		if n < 1 || n > 4 { // all architectures have four in registers
			v.fail(at+".tasks."+name, 0, "argument %d; want 1 to 4", n)
		}
	}
}

// probe holds a step against the catalogue.
func (v *validator) probe(at string, s *Step) {
	p, ok := catalogue.Find(s.Probe)
	if !ok {
		v.fail(at+".probe", 0, "%v", nearest.Unknown("probe", s.Probe, catalogue.Names()))
		return
	}
	var known map[string]any
	if err := json.Unmarshal([]byte(p.Params), &known); err != nil {
		v.fail(at+".probe", 0, "the catalogue's parameters of %s: %v", p.Name, err)
	}
	for arg := range s.Args {
		if _, ok := known[arg]; !ok {
			v.fail(at+".args."+arg, 0, "%v", nearest.Unknown("parameter", arg, slices.Sorted(maps.Keys(known))))
		}
	}
}

func unknownStep(id string, steps []string) error { return nearest.Unknown("step", id, steps) }

func (v *validator) env(steps []string) *expr.Env {
	for _, e := range v.errs {
		if strings.HasPrefix(e.Field, "steps") {
			return nil // steps without good ids would only give odd messages
		}
	}
	env, err := expr.New(steps)
	if err != nil {
		v.fail("steps", 0, "%v", err)
	}
	return env
}

func (v *validator) compile(env *expr.Env, at, source string, want expr.Type, asks *expr.Asks) *expr.Expr {
	if source == "" {
		return nil
	}
	x, err := env.Compile(source, want)
	var bad *expr.Error
	if errors.As(err, &bad) {
		v.fail(at, bad.Line-1, "%s", bad.Msg)
		return nil
	}
	asks.Add(x.Asks)
	return x
}

// when compiles a condition, which may look at the kernel alone.
func (v *validator) when(at, source string, whyNot *Text, asks *expr.Asks) *expr.Expr {
	switch {
	case source == "" && whyNot != nil:
		v.fail(at+".why_not", 0, "there is no when that it explains")
	case source != "" && whyNot == nil:
		v.fail(at+".why_not", 0, "missing: what is said where when is false")
	case whyNot != nil:
		v.text(at+".why_not", *whyNot)
	}
	if env := v.env(nil); env != nil {
		return v.compile(env, at+".when", source, expr.Bool, asks)
	}
	return nil
}

func (v *validator) id(at, id string, ids map[string]bool) {
	v.match(at+".id", id, checkID, "child-has-own-pid")
	if ids[id] {
		v.fail(at+".id", 0, "%s is another one's id", id)
	}
	ids[id] = true
}

func (v *validator) checks(at string, checks []Check, env *expr.Env, asks *expr.Asks) {
	if len(checks) == 0 {
		v.fail(at, 0, "there is nothing that must hold")
	}
	ids := map[string]bool{}
	for i := range checks {
		c := &checks[i]
		at := fmt.Sprintf("%s[%d]", at, i)
		v.id(at, c.ID, ids)
		v.text(at+".says", c.Says)
		if c.Hint != nil {
			v.text(at+".hint", *c.Hint)
		}
		if strings.TrimSpace(c.That) == "" {
			v.fail(at+".that", 0, "missing: the expression that must be true")
		}
		c.when = v.when(at, c.When, c.WhyNot, asks)
		for j, id := range c.After {
			if !slices.ContainsFunc(checks[:i], func(b Check) bool { return b.ID == id }) {
				v.fail(fmt.Sprintf("%s.after[%d]", at, j), 0, "%q is not the id of a check before this one", id)
			}
		}
		c.that = v.compile(env, at+".that", c.That, expr.Bool, asks)
		c.seen = v.compile(env, at+".seen", c.Seen, expr.Any, asks)
	}
}

// fails holds what programs fail against the checks that there are; whether the
// programs are there is for files.
func (v *validator) fails(x *Graded) {
	var known []string
	for _, c := range x.Checks {
		known = append(known, c.ID)
	}
	for _, dir := range slices.Sorted(maps.Keys(x.Fails)) {
		at := "exercise.fails." + dir
		if len(x.Fails[dir]) == 0 {
			v.fail(at, 0, "names no check: a program that fails none is right")
		}
		for i, id := range x.Fails[dir] {
			switch {
			case !slices.Contains(known, id):
				v.fail(fmt.Sprintf("%s[%d]", at, i), 0, "%v", nearest.Unknown("check", id, known))
			case slices.Contains(x.Fails[dir][:i], id):
				v.fail(fmt.Sprintf("%s[%d]", at, i), 0, "%s is named twice", id)
			}
		}
	}
}

// otherTest is how a claim names a test of the kernel's or of LTP.
var otherTest = regexp.MustCompile(`^(selftests/[A-Za-z0-9_-]+/[A-Za-z0-9_./-]+|ltp/[A-Za-z0-9_-]+)$`)

func (v *validator) claims(env *expr.Env) {
	ids := map[string]bool{}
	for i := range v.l.Claims {
		c := &v.l.Claims[i]
		at := fmt.Sprintf("claims[%d]", i)
		v.id(at, c.ID, ids)
		v.text(at+".says", c.Says)
		v.text(at+".why", c.Why)
		if c.Source == "" {
			v.fail(at+".source", 0, "missing: where this is said")
		}
		if c.Confirmed == "" && c.Refuted == "" && c.NotEnforced == "" {
			v.fail(at+".confirmed", 0, "missing: a claim has confirmed or refuted, or both, and a rule has not_enforced")
		}
		switch {
		case c.Risk != nil && c.NotEnforced == "":
			v.fail(at+".risk", 0, "it goes with not_enforced, which is missing")
		case c.Risk != nil:
			v.text(at+".risk", *c.Risk)
		case c.NotEnforced != "":
			v.fail(at+".risk", 0, "missing: what is at risk when the rule is broken")
		}
		for j, t := range c.Tests {
			if !otherTest.MatchString(t) {
				v.fail(fmt.Sprintf("%s.tests[%d]", at, j), 0, "%q is neither selftests/DIR/FILE nor ltp/CASE", text.Line(t, 60))
			}
		}
		if c.Evidence == "" {
			v.fail(at+".evidence", 0, "missing: what was seen")
		}
		c.when = v.when(at, c.When, c.WhyNot, &v.l.asks)
		c.confirmed = v.compile(env, at+".confirmed", c.Confirmed, expr.Bool, &v.l.asks)
		c.refuted = v.compile(env, at+".refuted", c.Refuted, expr.Bool, &v.l.asks)
		c.notEnforced = v.compile(env, at+".not_enforced", c.NotEnforced, expr.Bool, &v.l.asks)
		c.evidence = v.compile(env, at+".evidence", c.Evidence, expr.String, &v.l.asks)
	}
}

// files looks at what stands beside lab.yaml.
func (v *validator) files(name string) {
	want := func(file string) {
		if b, err := v.l.ReadFile(file); err != nil || len(strings.TrimSpace(string(b))) == 0 {
			v.fileError(path.Join(name, file), "missing or empty")
		}
	}
	source := func(dir, kinds string, exts ...string) {
		for _, ext := range exts {
			if found, err := fs.Glob(v.l.Dir, path.Join(dir, "*"+ext)); err == nil && len(found) > 0 {
				return
			}
		}
		v.fileError(path.Join(name, dir), "there is no "+kinds+" source in it")
	}
	if !strings.HasPrefix(name, v.l.ID+"-") {
		v.fileError(name, fmt.Sprintf("the folder of lab %s is called %s-…", v.l.ID, v.l.ID))
	}
	for _, lang := range v.l.languages() {
		want(lessons[lang])
	}
	for _, s := range v.l.Steps {
		if s.Program != "" {
			source(s.Program, "Go or C", ".go", ".c")
		}
	}
	if v.l.Exercise != nil {
		source(Exercise, "Go", ".go")
		if !v.l.Exercise.Withheld {
			source(Solution, "Go", ".go")
		}
		for _, lang := range v.l.languages() {
			want(path.Join(Exercise, tasks[lang]))
		}
		v.failing(name)
	}
}

// failing wants the skeleton and every wrong program to be named in fails, and
// nothing else.
func (v *validator) failing(name string) {
	programs := []string{Exercise}
	entries, err := fs.ReadDir(v.l.Dir, Wrong)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		v.fileError(path.Join(name, Wrong), err.Error())
	}
	for _, e := range entries {
		if e.IsDir() {
			programs = append(programs, path.Join(Wrong, e.Name()))
		}
	}
	for _, p := range programs {
		if _, ok := v.l.Exercise.Fails[p]; !ok {
			v.fileError(path.Join(name, p), "exercise.fails does not say which checks it fails")
		}
	}
	for _, p := range slices.Sorted(maps.Keys(v.l.Exercise.Fails)) {
		if !slices.Contains(programs, p) && !v.l.Exercise.Withheld {
			v.fileError(path.Join(name, Config), fmt.Sprintf("exercise.fails.%s: there is no such directory", p))
		}
	}
}

func (v *validator) fileError(file, msg string) {
	v.errs = append(v.errs, &Error{File: file, Msg: msg})
}
