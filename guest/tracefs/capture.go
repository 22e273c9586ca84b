package tracefs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"labctl/guest/wire"
)

// probeSystem is how a capture's own probes are called by both sides; the
// kernel knows them by the capture's group.
const probeSystem = "labctl"

// shared is what the instances of one tracefs have in common.
type shared struct {
	names    map[string]bool   // captures that are not removed yet
	borrowed map[string]string // file of the top instance → capture that has set it
	cmdlines string            // saved_cmdlines_size before the first capture
	users    int               // captures that count on the raised one
}

// Capture is a trace instance of which raw pages are to be taken.
type Capture struct {
	instance
	name   string
	params wire.CaptureParams
	armed  wire.CaptureArmed
	top    bool
	header string // events/header_page
	layout layout
	clocks string // trace_clock
	cpus   []int
	events []string // all that can be in the pages, "sched/sched_switch"
	hists  []histogram
	undo   []func() error // in reverse order, by Remove

	remembered []setting // by Remember
}

// Arm makes and arms the instance of a capture, which Run begins. What the
// kernel does not take is told by CaptureArmed.Missing; only a probe that is not
// optional must be there. On an error nothing is left behind, and otherwise
// Remove must follow.
func (fsys *FS) Arm(p wire.CaptureParams) (_ *Capture, err error) {
	if err := check(p); err != nil {
		return nil, err
	}
	fsys.arming.Lock()
	defer fsys.arming.Unlock()
	fsys.files.Write(filepath.Join(fsys.root, errorLog), "\n", os.O_TRUNC)
	r := &Capture{
		instance: instance{fs: fsys, dir: filepath.Join(fsys.root, "instances", p.Instance), group: probeSystem + "_" + p.Instance},
		name:     p.Instance, params: p, cpus: fsys.cpus(),
	}
	if err := r.claimName(); err != nil {
		return nil, err
	}
	if p.Keep {
		return r.keep()
	}
	if err := r.create(p.Probes); err != nil {
		r.freeName()
		return nil, fmt.Errorf("make trace instance %s: %w", p.Instance, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.remove())
		}
	}()
	r.pickTracer()
	if err := r.set("tracing_on", "0"); err != nil {
		return nil, fmt.Errorf("hold trace: %w", err)
	}
	if r.top {
		if err := r.write("trace", ""); err != nil {
			return nil, fmt.Errorf("empty trace: %w", err)
		}
	}
	if err := r.arm(); err != nil {
		return nil, err
	}
	return r, r.describe()
}

func (r *Capture) claimName() error {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	s := &r.fs.shared
	if s.names[r.name] {
		return fmt.Errorf("trace instance %s: another capture has it", r.name)
	}
	if s.names == nil {
		s.names, s.borrowed = map[string]bool{}, map[string]string{}
	}
	s.names[r.name] = true
	return nil
}

func (r *Capture) freeName() {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	delete(r.fs.shared.names, r.name)
	maps.DeleteFunc(r.fs.shared.borrowed, func(_, by string) bool { return by == r.name })
}

func (r *Capture) miss(what string, err error) {
	if len(r.armed.Missing) < wire.MaxArmedNames {
		r.armed.Missing = append(r.armed.Missing, wire.CaptureMissing{What: clip(what, 160), Why: clip(bare(err).Error(), 400)})
	}
}

// pickTracer finds the instance that can have the tracer. On older kernels that is
// the top one alone for function_graph, and for the stacks of functions.
func (r *Capture) pickTracer() {
	tracer := r.params.Tracer
	r.armed.Tracer = "nop"
	if tracer == "" || tracer == "nop" {
		return
	}
	has := func(dir string) bool {
		text, err := readHead(filepath.Join(dir, "available_tracers"), 4<<10)
		return err == nil && slices.Contains(strings.Fields(text), tracer)
	}
	switch {
	case !has(r.fs.root):
		r.miss("tracer "+tracer, errors.New("this kernel has none of that name"))
		return
	case has(r.dir) && !r.topStacks():
	default:
		if err := r.moveToTop(); err != nil {
			r.miss("tracer "+tracer, fmt.Errorf("the kernel has it in the top instance alone: %w", err))
			return
		}
	}
	r.armed.Tracer = tracer
}

// topStacks reports whether the function tracer is to take stacks, which the kernel
// lets it do in the top instance alone: elsewhere it takes the option, and none of
// the stacks. The change that ended that brought another option.
func (r *Capture) topStacks() bool {
	if r.params.Tracer != "function" || !r.params.Options["func_stack_trace"] {
		return false
	}
	_, err := os.Stat(filepath.Join(r.dir, "options/func-no-repeats"))
	return errors.Is(err, fs.ErrNotExist)
}

// moveToTop records in the top instance, if nobody else does.
func (r *Capture) moveToTop() error {
	if err := r.claim("current_tracer"); err != nil {
		return err
	}
	switch now, err := r.fs.content("current_tracer"); {
	case err != nil:
		return bare(err)
	case now != "nop":
		return fmt.Errorf("which runs the tracer %s", clip(now, 40))
	}
	if err := r.rmdir(); err != nil {
		return err
	}
	r.dir, r.top, r.armed.Top = r.fs.root, true, true
	return nil
}

// claim makes a file of the top instance this capture's.
func (r *Capture) claim(file string) error {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	if by := r.fs.shared.borrowed[file]; by != "" && by != r.name {
		return fmt.Errorf("capture %s has %s", by, file)
	}
	r.fs.shared.borrowed[file] = r.name
	return nil
}

// set writes a file of the instance. The top one gets back what it had.
func (r *Capture) set(file, value string) error {
	if r.top {
		return r.borrow(file, value)
	}
	return r.write(file, value)
}

// setAny is set where the instance has the file, and the top instance's file, for
// the time, where it has not.
func (r *Capture) setAny(file, value string) error {
	if _, err := os.Stat(filepath.Join(r.dir, file)); !r.top && errors.Is(err, fs.ErrNotExist) {
		return r.borrow(file, value)
	}
	return r.set(file, value)
}

func (r *Capture) borrow(file, value string) error {
	old, err := r.fs.content(file)
	if err != nil {
		return bare(err)
	}
	if err := r.claim(file); err != nil {
		return err
	}
	if err := r.fs.write(file, value); err != nil {
		return err
	}
	r.undo = append(r.undo, func() error {
		if err := r.fs.write(file, old); err != nil {
			return fmt.Errorf("restore %s: %w", file, err)
		}
		return nil
	})
	return nil
}

func (fsys *FS) write(file, text string) error {
	return bare(fsys.files.Write(filepath.Join(fsys.root, file), text, os.O_TRUNC))
}

// content is what a file of the top instance would have to be given to hold what
// it holds: the choice in brackets of "[local] global", the size that
// "7 (expanded: 1408)" has in use, nothing where it says that there is nothing.
func (fsys *FS) content(file string) (string, error) {
	text, err := readHead(filepath.Join(fsys.root, file), 64<<10)
	if err != nil {
		return "", err
	}
	text = strings.TrimSpace(text)
	if _, rest, ok := strings.Cut(text, "["); ok && !strings.Contains(text, "\n") {
		text, _, _ = strings.Cut(rest, "]")
	}
	if _, rest, ok := strings.Cut(text, "(expanded: "); ok {
		text = strings.TrimSuffix(rest, ")")
	}
	if strings.HasPrefix(text, "#") || text == "no pid" { // "#### all functions enabled ####"
		return "", nil
	}
	return text, nil
}

// arm sets everything but tracing_on. The tracer comes last, when its filter is
// complete.
func (r *Capture) arm() error {
	p := r.params
	kb := p.BufferKB
	if kb == 0 {
		kb = r.defaultKB()
	}
	type setting struct{ file, value string }
	resize := r.resize
	if r.top {
		resize = func(kb int) error { return r.borrow("buffer_size_kb", strconv.Itoa(kb)) }
	}
	if err := resize(kb); err != nil {
		r.miss("file buffer_size_kb", err)
	}
	settings := []setting{
		{"options/overwrite", bit(p.Overwrite)},
		{"options/stacktrace", bit(p.Stacks)},
		{"options/record-tgid", "1"},
	}
	// Where the kernel found its fastest clock to differ between CPUs, it has
	// given the top instance another one.
	clock := p.Clock
	if clock == "" {
		if own, err := r.fs.content("trace_clock"); err == nil && own != "local" {
			clock = own
		}
	}
	if clock != "" {
		settings = append(settings, setting{"trace_clock", clock})
	}
	for _, name := range slices.Sorted(maps.Keys(p.Files)) {
		settings = append(settings, setting{name, p.Files[name]})
	}
	if p.PIDOnly {
		settings = append(settings, setting{"options/event-fork", "1"}, setting{"options/function-fork", "1"})
	}
	for _, s := range settings {
		if err := r.setAny(s.file, s.value); err != nil {
			what := "file " + s.file
			if name, ok := strings.CutPrefix(s.file, "options/"); ok {
				what = "option " + name
			}
			r.miss(what, err)
		}
	}
	if p.PIDOnly {
		if err := r.filterPIDs(); err != nil {
			return err
		}
	}
	if !p.Hold {
		// Kernels without it wake their readers sooner.
		r.set("buffer_percent", strconv.Itoa(wakePercent))
	}
	r.raiseCmdlines()
	if err := r.armEvents(); err != nil {
		return err
	}
	r.armFunctions()
	for _, name := range slices.Sorted(maps.Keys(p.Options)) {
		if name == "func_stack_trace" && p.Options[name] && r.armed.Matched == 0 {
			r.miss("option "+name, errors.New("a stack at every function would halt the machine: name functions that it has"))
		} else if err := r.setAny("options/"+name, bit(p.Options[name])); err != nil {
			r.miss("option "+name, err)
		}
	}
	if r.armed.Tracer != "nop" {
		if err := r.set("current_tracer", r.armed.Tracer); err != nil {
			r.miss("tracer "+r.armed.Tracer, err)
			r.armed.Tracer = "nop"
		}
	}
	return nil
}

// armEvents sets the probes and the events.
func (r *Capture) armEvents() error {
	if len(r.params.Probes) > 0 {
		if err := r.fs.plainProbes(); err != nil {
			r.miss("option kprobes-optimization", err)
		}
		if err := r.armProbes(); err != nil {
			return err
		}
	}
	for _, e := range r.params.Events {
		r.armEvent(e)
	}
	r.armHists()
	r.armWakeup()
	return nil
}

// Bounds of a buffer that nobody has chosen the size of.
const (
	mostKB  = 4096
	leastKB = 64
	// memoryShare is the part of the memory that all CPUs' buffers may have.
	memoryShare = 32
)

func (r *Capture) defaultKB() int {
	total := 0
	text, _ := readHead(filepath.Join(r.fs.proc, "meminfo"), 4<<10)
	for line := range strings.Lines(text) {
		fmt.Sscanf(line, "MemTotal: %d kB", &total)
	}
	return min(mostKB, max(leastKB, total/memoryShare/max(1, len(r.cpus))))
}

// cpus lists the numbers of the CPUs that have a buffer, or may get one.
func (fsys *FS) cpus() (ids []int) {
	for _, name := range namesIn(filepath.Join(fsys.root, "per_cpu")) {
		if number, ok := strings.CutPrefix(name, "cpu"); ok {
			if n, err := strconv.Atoi(number); err == nil && n >= 0 {
				ids = append(ids, n)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// filterPIDs leaves nobody to record until somebody is in the lists: an empty list
// would mean everybody. The last number that the kernel can give is as good as
// nobody's.
func (r *Capture) filterPIDs() error {
	text, err := readHead(filepath.Join(r.fs.proc, "sys/kernel/pid_max"), 64)
	max, perr := strconv.Atoi(strings.TrimSpace(text))
	if err := errors.Join(err, perr); err != nil {
		return fmt.Errorf("trace one program: read pid_max: %w", err)
	}
	nobody := strconv.Itoa(max - 1)
	for _, file := range r.pidFiles() {
		if err := r.set(file, nobody); err != nil {
			return fmt.Errorf("trace one program: %s: %w", file, err)
		}
	}
	return nil
}

// pidFiles are the lists of those that are recorded: by events, and, which is
// slow to set, by a tracer.
func (r *Capture) pidFiles() []string {
	if r.armed.Tracer != "nop" {
		return []string{"set_event_pid", "set_ftrace_pid"}
	}
	return []string{"set_event_pid"}
}

// Lists opens the files that a program writes its number to, so as to be recorded
// with all its children; there are none when everybody is recorded.
func (r *Capture) Lists() (files []*os.File, err error) {
	if !r.params.PIDOnly {
		return nil, nil
	}
	for _, name := range r.pidFiles() {
		// Opened to truncate it would forget the others.
		f, err := os.OpenFile(filepath.Join(r.dir, name), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("trace one program: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// wantCmdlines is how many names of tasks the kernel is to keep. Some keep 128,
// which one run of a shell script uses up.
const wantCmdlines = 4096

// raiseCmdlines has the kernel keep enough names. The size is that of all
// instances, and a change of it forgets the names so far: it goes back when the
// last capture is removed.
func (r *Capture) raiseCmdlines() {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	s := &r.fs.shared
	if s.users == 0 {
		old, err := r.fs.content("saved_cmdlines_size")
		if n, nerr := strconv.Atoi(old); err == nil && nerr == nil && n < wantCmdlines {
			if err = r.fs.write("saved_cmdlines_size", strconv.Itoa(wantCmdlines)); err == nil {
				s.cmdlines = old
			}
		}
		if err != nil {
			r.miss("file saved_cmdlines_size", err)
		}
	}
	s.users++
	r.undo = append(r.undo, r.lowerCmdlines)
}

func (r *Capture) lowerCmdlines() error {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	s := &r.fs.shared
	if s.users--; s.users > 0 || s.cmdlines == "" {
		return nil
	}
	old := s.cmdlines
	s.cmdlines = ""
	return r.fs.write("saved_cmdlines_size", old)
}

func (r *Capture) armProbes() error {
	r.armed.Symbols = map[string]string{}
	for _, probe := range r.params.Probes {
		symbol, err := r.probe(probe)
		switch {
		case err == nil:
			r.armed.Symbols[probe.Event] = symbol
			r.events = append(r.events, probeSystem+"/"+probe.Event)
		case probe.Optional:
			r.miss("probe "+probe.Event, err)
		default:
			return fmt.Errorf("probe %s: %w", probe.Event, err)
		}
	}
	return nil
}

// armEvent sets an event's or a system's filter and trigger, and enables it. Of an
// event whose filter the kernel refuses nothing is recorded, rather than all.
func (r *Capture) armEvent(e wire.CaptureEvent) {
	system, event, one := strings.Cut(e.Name, "/")
	own := system == probeSystem
	dir := "events/" + r.system(e.Name)
	if _, err := os.Stat(filepath.Join(r.dir, dir)); err != nil {
		r.miss("event "+e.Name, err)
		return
	}
	if e.Filter != "" {
		err := explained(r.dir, func() error { return r.write(dir+"/filter", e.Filter) }, r.fs.files)
		if err != nil {
			r.miss("event "+e.Name, fmt.Errorf("filter: %w", err))
			return
		}
		r.undoTop(dir+"/filter", "0")
	}
	names := []string{e.Name}
	if !one {
		names = r.eventsOf(system)
	}
	if e.Stack {
		for _, name := range names {
			r.armStack(name)
		}
	}
	if own { // enabled with its probe
		return
	}
	if err := r.write(dir+"/enable", "1"); err != nil {
		r.miss("event "+e.Name, err)
		if one {
			return
		}
	}
	r.undoTop(dir+"/enable", "0")
	if one {
		r.events = append(r.events, system+"/"+event)
		return
	}
	for _, name := range names {
		if on, err := readHead(filepath.Join(r.dir, "events", name, "enable"), 4); err == nil && strings.HasPrefix(on, "1") {
			r.events = append(r.events, name)
		}
	}
}

// armStack has the kernel take a stack with every event of a name.
func (r *Capture) armStack(event string) {
	trigger := "events/" + r.system(event) + "/trigger"
	if err := r.write(trigger, "stacktrace"); err != nil {
		r.miss("stack of "+event, err)
		return
	}
	r.undoTop(trigger, "!stacktrace")
}

// undoTop takes a setting back in the top instance; a private one takes its
// settings with it.
func (r *Capture) undoTop(file, value string) {
	if r.top {
		r.undo = append(r.undo, func() error { return r.write(file, value) })
	}
}

// system is an event's name, or a system's, as the kernel knows it.
func (r *Capture) system(name string) string {
	if rest, ok := strings.CutPrefix(name, probeSystem+"/"); ok {
		return r.group + "/" + rest
	}
	if name == probeSystem {
		return r.group
	}
	return name
}

// eventsOf lists the events of a system.
func (r *Capture) eventsOf(system string) (names []string) {
	for _, name := range namesIn(filepath.Join(r.dir, "events", r.system(system))) {
		if name != "enable" && name != "filter" {
			names = append(names, system+"/"+name)
		}
	}
	return names
}

// namesIn are the names in a directory, sorted; none of one that cannot be read.
func namesIn(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	slices.Sort(names)
	return names
}

// armFunctions fills the filters of the tracer, name by name, so that each
// refusal is known. A name takes the kernel some 50 ms under emulation: it
// compares it with that of each of its functions.
func (r *Capture) armFunctions() {
	p := r.params
	if r.armed.Tracer == "nop" {
		return
	}
	if len(p.Functions) > 0 {
		if err := r.set("set_ftrace_filter", ""); err != nil {
			r.miss("file set_ftrace_filter", err)
		}
		r.addNames("function", filepath.Join(r.dir, "set_ftrace_filter"), p.Functions)
		r.matched()
	}
	if len(p.Graph) > 0 {
		// One list for all instances.
		err := r.borrow("set_graph_function", "")
		if err == nil && r.addNames("graph", filepath.Join(r.fs.root, "set_graph_function"), p.Graph) == 0 {
			err = errors.New("it has none of the functions to begin at")
		}
		if err != nil {
			r.miss("tracer "+r.armed.Tracer, err)
			r.armed.Tracer = "nop"
		}
	}
	if len(p.Functions) > 0 && r.armed.Matched == 0 {
		r.miss("tracer "+r.armed.Tracer, errors.New("it has none of its functions, and without any would trace all"))
		r.armed.Tracer = "nop"
	}
}

// addNames adds names to a filter and counts those that were taken.
func (r *Capture) addNames(kind, path string, names []string) (taken int) {
	for _, name := range names {
		if err := r.fs.files.Write(path, name+"\n", os.O_APPEND); err != nil {
			r.miss(kind+" "+name, err)
			continue
		}
		taken++
	}
	return taken
}

// matched reads what the names came to.
func (r *Capture) matched() {
	text, err := readHead(filepath.Join(r.dir, "set_ftrace_filter"), 8<<20)
	if err != nil {
		r.miss("file set_ftrace_filter", err)
	}
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "" || name[0] == '#' {
			continue
		}
		r.armed.Matched++
		if len(r.armed.Functions) < wire.MaxArmedNames {
			r.armed.Functions = append(r.armed.Functions, clip(name, 128))
		}
	}
}

// describe tells how to read what will come.
func (r *Capture) describe() error {
	var err error
	if r.header, err = readHead(filepath.Join(r.dir, "events/header_page"), 64<<10); err != nil {
		return fmt.Errorf("read header_page: %w", err)
	}
	if r.layout, err = parseLayout(r.header); err != nil {
		return err
	}
	a := &r.armed
	a.PageSize, a.CPUs, a.BigEndian = r.layout.page, len(r.cpus), bigEndian
	if r.clocks, err = readHead(filepath.Join(r.dir, "trace_clock"), 4<<10); err != nil {
		return fmt.Errorf("read trace_clock: %w", err)
	}
	_, rest, _ := strings.Cut(r.clocks, "[")
	a.Clock, _, _ = strings.Cut(rest, "]")
	if kb, err := readHead(filepath.Join(r.dir, "buffer_size_kb"), 64); err == nil {
		a.BufferKB, _ = strconv.Atoi(strings.TrimSpace(kb))
	}
	a.Events = r.events[:min(len(r.events), wire.MaxArmedNames)]
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	a.Uname = strings.Join([]string{unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:])}, " ")
	return nil
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// Remove takes everything away again, and gives the top instance back what it had.
func (r *Capture) Remove() error {
	r.fs.arming.Lock()
	defer r.fs.arming.Unlock()
	return r.remove()
}

// remove disables events first: an enabled kprobe event can be neither removed nor
// lose its instance.
func (r *Capture) remove() error {
	defer r.freeName()
	errs := []error{r.write("tracing_on", "0")}
	if !r.top && r.armed.Tracer != "nop" {
		// While it runs, its filter must not be emptied.
		errs = append(errs, r.write("current_tracer", "nop"))
	}
	errs = append(errs, r.disable()) // what else is enabled goes with the instance
	for _, undo := range slices.Backward(r.undo) {
		errs = append(errs, undo())
	}
	r.undo = nil
	switch {
	case r.params.Keep:
	case r.top:
		errs = append(errs, r.write("trace", ""))
	default:
		errs = append(errs, r.rmdir())
	}
	return errors.Join(append(errs, r.removeProbes())...)
}
