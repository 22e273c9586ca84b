// Package imports has no code. Its test holds the rules for who may import
// whom in this module and checks all packages against them.
package imports

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tiers orders the folders of the module from the ground up. A package may
// import packages of its own folder and of lower tiers, and nothing else here;
// so what a package rests on can be read off this table.
var tiers = [][]string{
	{"", "images", "kconfig", "labs"},               // data, embedded
	{"guest/wire", "guest/ksym", "guest/catalogue"}, // what both sides know: messages, names in kernels, probes
	{"guest/tracefs", "guest/rawclone"},             // one kernel interface each
	{"guest/agent", "guest/probe"},                  // what the guest's programs do
	{"guest/labinit", "guest/labprobe", "guest/shell", "guest/modprobe", "guest/id", "guest/reboot"}, // programs of the guest
	{"guest/cmd"},    // all in one file
	{"host/outcome"}, // how a run ends; every package says it of its errors
	{"host/scratch", "host/stamp", "host/golden", "host/faults", "host/usage"}, // files of the host, and of tests; what work costs
	{"host/arch", "host/bounded"},                                                 // rows of architectures; no more than was agreed of what others write
	{"host/text", "host/targets", "host/clone", "host/cachedir"},                  // text, rows of data, clone flags, cached answers
	{"host/strictjson", "host/strictyaml", "host/nearest", "host/ui/table"},       // JSON and YAML of others; names that a user mistyped; columns
	{"host/vm/agent", "host/stack", "host/vm/qmp", "host/vm/qemu", "host/vm/gdb"}, // one outside thing each
	{"host/vm/accel", "host/crash"},                                               // which of QEMU's accelerators works; reports on a console
	{"host/vm", "host/vm/warm", "host/kernel"},
	{"host/image/busybox"}, // commands for the guest, from the archive that kernels come from
	{"host/image/initramfs"},
	{"host/registry"},      // machines that run, and their names
	{"host/outside"},       // a guest's kernel, seen from outside it
	{"host/debug"},         // a guest, stopped and stepped
	{"host/image/program"}, // what a guest is to run, and its files
	{"host/trace/capture", "host/trace/event", "host/trace/hist", "host/trace/syscalls"}, // a trace's bytes; its events; histograms of them; numbers of system calls
	{"host/trace/format", "host/trace/internal/kerneltext"},
	{"host/trace/printfmt"},                                 // how events are laid out, and how the kernel prints them
	{"host/trace/decode", "host/trace/internal/sample"},     // from one to the other
	{"host/trace/collect", "host/trace/internal/callstack"}, // ring-buffer pages of a guest's kernel
	{"host/trace/export"},                                   // files for other tools
	{"host/trace/creation"},                                 // task creations in a trace
	{"host/trace/preset"},
	{"host/trace/plan"},                      // what to trace on the kernel at hand
	{"host/trace/tasks", "host/trace/stats"}, // the lives of tasks in a trace; its events, counted
	{"host/trace/listing"},                   // its events, printed
	{"host/trace/convert"},                   // forms of a trace, by their names
	{"host/trace/live"},                      // a trace as it comes
	{"host/record"},                          // what a run leaves on disk
	{"host/view"},                            // what there is to see of a run, and how it is drawn
	{"host/report"},                          // pages out of records
	{"host/trace"},                           // one program, or several, run in a machine under a capture
	{"host/probe"},                           // probes run in a machine, and held against the kernel
	{"host/doctor"},                          // what the host has of what all these need
	{"host/machine"},                         // kernel, initramfs and QEMU put together
	{"host/session"},                         // one run: machine, work, record, outcome
	{"host/lab"},                             // lessons: run, judged, graded
	{"host/matrix"},                          // many kernels, machines and labs in one plan
	{"host/class"},                           // a class's submissions as a plan, and its gradebook
	{"host/page"},                            // a record, a matrix or a class as one file for people
	{"host/ui/progress"},                     // pulls, builds and cells that are under way
	{"host/serve"},                           // the page: lessons, runs, a live machine
	{"host/tests"},                           // what tests cover, and how fast fuzz targets run
	{"host/cmd", "host/bench", "host/docs"},  // flags to calls, and what they cost; pages that machines write
}

// rule forbids packages under from to depend on packages under any of to,
// with what is under except left out. Folders are matched whole: "guest"
// covers "guest/agent" and not "guests".
type rule struct {
	from   string
	but    string // a package below from that the rule is not for
	to     []string
	except []string
	deep   bool // through other packages as well
	tests  bool // in test files as well
	why    string
}

var rules = []rule{
	{from: "guest", to: []string{"host"}, deep: true,
		why: "the guest's programs are built from an archive that holds guest/ alone"},
	{from: "guest", to: []string{""}, tests: true,
		why: "the root package embeds guest/, it is no part of it"},
	{from: "host", to: []string{"guest"}, except: stdOnly,
		why: "host and guest share messages and tables, not code"},
	{from: "host", to: []string{"host/trace/internal/kerneltext"},
		why: "events are read from pages; the kernel's text of them is for tests"},
	{from: "host/trace/creation", to: startsVM, deep: true, why: judging},
	{from: "host/trace/event", to: startsVM, deep: true, why: judging},
	{from: "host/trace/decode", to: startsVM, deep: true, why: judging},
	{from: "host/trace/export", to: startsVM, deep: true, why: judging},
	{from: "host/trace/tasks", to: startsVM, deep: true, why: judging},
	{from: "host/record", to: startsVM, deep: true, why: judging},
	{from: "host/report", to: startsVM, deep: true, why: judging},
	{from: "host/probe/agree", to: startsVM, deep: true, why: judging},
	{from: "host/lab/result", to: startsVM, deep: true, why: judging},
	{from: "host/lab/expr", to: startsVM, deep: true, why: judging},
	{from: "host/lab/judge", to: startsVM, deep: true, why: judging},
	{from: "host/lab/see", to: startsVM, deep: true, why: judging},
	{from: "host/page", to: []string{"host/vm/qemu"}, why: judging},
	{from: "host/view", to: startsVM, deep: true, why: judging},
	{from: "host/lab/show", to: startsVM, deep: true, why: judging},
	{from: "host/matrix", but: "host/matrix/cell", to: startsVM, deep: true, why: "what runs a cell is handed to it"},
	{from: "labs", to: []string{"host", "guest"}, tests: true,
		why: "a lab's programs have the standard library alone"},
}

var startsVM = []string{"host/vm", "host/machine"}

const judging = "what comes after a run works from its record alone, later and elsewhere"

// stdOnly lists folders that import the standard library and nothing else. They are
// what host and guest share.
var stdOnly = []string{"guest/wire", "guest/ksym", "guest/catalogue"}

// outside lists folders that stand in no tier, with the reason.
var outside = map[string]string{
	"host/imports": "this test",
}

// planned lists folders that the tables above name before they are there. A
// name leaves this list when its folder comes; a slip of the pen is in neither.
var planned = []string{}

// pkg is one package as go list sees it; paths are relative to the module, or
// whole for packages of other modules.
type pkg struct {
	path    string
	imports []string
	tests   []string // imports of test files
}

const module = "labctl"

func TestImports(t *testing.T) {
	root := filepath.Join("..", "..")
	pkgs := load(t, root)
	exists := func(folder string) bool {
		_, err := os.Stat(filepath.Join(root, folder))
		return err == nil
	}
	for _, complaint := range slices.Concat(checkNames(exists), check(pkgs)) {
		t.Error(complaint)
	}
}

func load(t *testing.T, root string) []pkg {
	t.Helper()
	// -e: a package that does not compile is for the compiler to report.
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, pkg{relative(p.ImportPath), relatives(p.Imports), relatives(slices.Concat(p.TestImports, p.XTestImports))})
	}
	if len(pkgs) < 3 {
		t.Fatalf("go list found %d packages; want the module's", len(pkgs))
	}
	return pkgs
}

// relative cuts the module's name off; the root package becomes "".
func relative(path string) string {
	if path == module {
		return ""
	}
	return strings.TrimPrefix(path, module+"/")
}

func relatives(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = relative(p)
	}
	return out
}

// checkNames finds folders that the tables name and that are neither there nor
// planned, and planned ones that are there.
func checkNames(exists func(string) bool) (complaints []string) {
	names := slices.Concat(tiers...)
	names = append(names, stdOnly...)
	for folder := range outside {
		names = append(names, folder)
	}
	for _, r := range rules {
		names = append(names, r.from)
		names = append(names, r.to...)
		names = append(names, r.except...)
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !exists(name) && !slices.Contains(planned, name) {
			complaints = append(complaints, fmt.Sprintf("%s is in a rule, but there is no such folder: correct it, or list it as planned", name))
		}
	}
	for _, name := range planned {
		switch {
		case exists(name):
			complaints = append(complaints, fmt.Sprintf("%s is there: take it off the planned list", name))
		case !slices.Contains(names, name):
			complaints = append(complaints, fmt.Sprintf("%s is planned, but no rule names it", name))
		}
	}
	return complaints
}

// check holds packages against the tables.
func check(pkgs []pkg) (complaints []string) {
	complain := func(format string, args ...any) {
		complaints = append(complaints, fmt.Sprintf(format, args...))
	}
	byPath := map[string]pkg{}
	for _, p := range pkgs {
		byPath[p.path] = p
	}
	for _, p := range pkgs {
		own, at := tierOf(p.path)
		if at < 0 && !under(p.path, keys(outside)) {
			complain("%s stands in no tier: add its folder to the table in host/imports", p.path)
		}
		for _, imported := range p.imports {
			if _, here := byPath[imported]; !here {
				if under(p.path, stdOnly) && strings.Contains(strings.Split(imported, "/")[0], ".") {
					complain("%s imports %s: it may import the standard library alone", p.path, imported)
				}
				continue
			}
			if under(p.path, stdOnly) && !under(imported, stdOnly) {
				complain("%s imports %s: it may import the standard library alone", p.path, imported)
			}
			folder, tier := tierOf(imported)
			if at >= 0 && tier >= at && folder != own {
				complain("%s imports %s: imports run downward only, and %s is not in a lower tier", p.path, imported, folder)
			}
		}
		for _, r := range rules {
			if !under(p.path, []string{r.from}) || r.but != "" && under(p.path, []string{r.but}) {
				continue
			}
			paths := p.imports
			if r.deep {
				paths = deps(p, byPath)
			}
			if r.tests {
				paths = slices.Concat(paths, p.tests)
			}
			for _, imported := range paths {
				if _, here := byPath[imported]; here && under(imported, r.to) && !under(imported, r.except) {
					complain("%s depends on %s: %s", p.path, imported, r.why)
				}
			}
		}
	}
	return complaints
}

// deps lists the module's packages that p needs, itself left out.
func deps(p pkg, byPath map[string]pkg) []string {
	seen := map[string]bool{p.path: true}
	var found []string
	var visit func(pkg)
	visit = func(p pkg) {
		for _, path := range p.imports {
			if next, here := byPath[path]; here && !seen[path] {
				seen[path] = true
				found = append(found, path)
				visit(next)
			}
		}
	}
	visit(p)
	return found
}

// tierOf returns the folder in the table that path is under, the longest where
// there are several, and its tier; -1 when there is none.
func tierOf(path string) (folder string, tier int) {
	tier = -1
	for i, t := range tiers {
		for _, f := range t {
			if under(path, []string{f}) && (tier < 0 || len(f) > len(folder)) {
				folder, tier = f, i
			}
		}
	}
	return folder, tier
}

// under reports whether path is one of folders or below one. The root folder
// "" has only the root package under it.
func under(path string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return path == f || f != "" && strings.HasPrefix(path, f+"/")
	})
}

func keys(m map[string]string) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// TestCheck shows that each kind of rule can be broken.
func TestCheck(t *testing.T) {
	wire := pkg{path: "guest/wire", imports: []string{"fmt"}}
	text := pkg{path: "host/text"}
	vm := pkg{path: "host/vm", imports: []string{"guest/wire", "host/text"}}
	for _, tt := range []struct {
		name string
		pkgs []pkg
		want string // part of the only complaint; empty for none
	}{
		{"in order", []pkg{wire, text, vm}, ""},
		{"wire and a module", []pkg{{path: "guest/wire", imports: []string{"golang.org/x/sys/unix"}}}, "standard library alone"},
		{"upward", []pkg{vm, wire, {path: "host/text", imports: []string{"host/vm"}}}, "downward only"},
		{"sideways", []pkg{wire, text, vm, {path: "host/kernel", imports: []string{"host/vm"}}}, "downward only"},
		{"own folder", []pkg{{path: "host/kernel", imports: []string{"host/kernel/image"}}, {path: "host/kernel/image"}}, ""},
		{"in no tier", []pkg{{path: "host/new"}}, "stands in no tier"},
		{"like a folder", []pkg{{path: "host/vmx"}}, "stands in no tier"},
		{"guest to root", []pkg{{path: ""}, {path: "guest/agent", tests: []string{""}}}, "embeds guest/"},
		{"host to guest", []pkg{{path: "guest/agent"}, {path: "host/vm", imports: []string{"guest/agent"}}}, "messages and tables, not code"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := check(tt.pkgs)
			if tt.want == "" && len(got) != 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("check = %q; want one complaint with %q", got, tt.want)
			}
		})
	}
	t.Run("deep", func(t *testing.T) {
		got := check([]pkg{
			{path: "host/vm/qemu"},
			{path: "host/vm", imports: []string{"host/vm/qemu"}},
			{path: "host/record", imports: []string{"host/vm"}},
		})
		want := "host/record depends on host/vm/qemu: " + judging
		if !slices.Contains(got, want) {
			t.Errorf("check = %q; want among them %q", got, want)
		}
	})
}

func TestCheckNames(t *testing.T) {
	all := checkNames(func(name string) bool { return !slices.Contains(planned, name) })
	if len(all) != 0 {
		t.Errorf("checkNames with the right folders = %q; want none", all)
	}
	typo := checkNames(func(name string) bool { return name != "host/vm" && !slices.Contains(planned, name) })
	if len(typo) != 1 || !strings.Contains(typo[0], "host/vm is in a rule") {
		t.Errorf("checkNames without host/vm = %q; want one complaint", typo)
	}
	stale := checkNames(func(string) bool { return true })
	if len(stale) != len(planned) {
		t.Errorf("checkNames with all there = %q; want one complaint for each planned folder", stale)
	}
}
