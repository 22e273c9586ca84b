package kbuild

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeTree creates files below a directory.
func writeTree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// fakeKconfig has one example of everything that can make Kconfig drop an option.
var fakeKconfig = map[string]string{
	"Kconfig": `mainmenu "Linux"
source "arch/$(SRCARCH)/Kconfig"
source "arch/$SRCARCH/old"
source "arch/none/Kconfig"
`,
	"arch/x86/old": "config OLD\n\tbool \"an old include\"\n",
	"arch/x86/Kconfig": `# comment
config X86
	def_bool y
	select WANTED if OLD
	select FORCED

config BASE
	bool "base" # with a comment
	help
	  config NOT_AN_OPTION
	    depends on NOTHING

	  Still help.

config DEEP
	bool "deep"
	depends on BASE

config TOP
	bool "top"
	depends on X86 && \
		DEEP

menu "Menu"
	depends on BASE

config IN_MENU
	tristate "in a menu"

endmenu

if !X86
config ELSEWHERE
	bool "elsewhere"
endif

config ELSEWHERE
	bool "elsewhere, too"
	depends on NEEDS_VERSION >= 20

config NEEDS_VERSION
	int
	default $(shell,pahole-version)

choice
	prompt "one of"
config ONE
	bool "one"
config TWO
	bool "two"
endchoice

config HIDDEN
	bool
	depends on X86

config WANTED
	bool

config EXPERTS
	bool "experts" if EXPERT

config FORCED
	bool "forced"

config TOOLCHAIN
	bool "of the compiler"
	depends on $(cc-option,-mfoo)

config MEMORY
	int "size"
`,
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, fakeKconfig)
	k, err := readRules(dir, "x86")
	if err != nil {
		t.Fatal(err)
	}
	cfg := values{"X86": "y", "ONE": "y", "FORCED": "y", "NEEDS_VERSION": "18", "MEMORY": "64", "NAME": "a b"}
	for _, tt := range []struct{ name, asked, got, why string }{
		{"X86", "y", "", ""},
		{"MEMORY", "0x40", "", ""},
		{"NAME", `"a b"`, "", ""},
		{"FORCED", "m", "", ""},
		{"GONE", "n", "", ""},
		{"NOT_AN_OPTION", "y", "n", "not in this tree's Kconfig"},
		{"EXPORTS", "y", "n", "did you mean CONFIG_EXPERTS?"},
		{"DEEP", "y", "n", "it needs BASE, which is not set (arch/x86/Kconfig:15)"},
		{"TOP", "y", "n", "it needs X86 && DEEP, and DEEP is not set (arch/x86/Kconfig:19), and DEEP needs BASE, which is not set (arch/x86/Kconfig:15)"},
		{"IN_MENU", "m", "n", "it needs BASE, which is not set"},
		{"ELSEWHERE", "y", "n", "it needs !X86, and X86 is y (arch/x86/Kconfig:33), or elsewhere NEEDS_VERSION >= 20, and NEEDS_VERSION >= 20 is false: NEEDS_VERSION is 18"},
		{"TWO", "y", "n", "ONE of the same choice is set"},
		{"HIDDEN", "y", "n", "it cannot be set directly (arch/x86/Kconfig:53): it depends on other options"},
		{"WANTED", "y", "n", "it is set by X86"},
		{"EXPERTS", "y", "n", "it can be set directly only if EXPERT, and EXPERT is not set"},
		{"FORCED", "n", "y", "it is selected by X86 (arch/x86/Kconfig:2)"},
		{"TOOLCHAIN", "y", "n", "its dependencies seem to be met"},
		{"MEMORY", "65", "64", "its dependencies seem to be met"},
		{"OLD", "y", "n", "its dependencies seem to be met (arch/x86/old:1)"},
	} {
		o := Option{Name: tt.name, Value: tt.asked, Where: "f:1"}
		lost := verify(k, cfg, []Option{o})
		if tt.why == "" {
			if len(lost) != 0 {
				t.Errorf("%s=%s: lost: %s", tt.name, tt.asked, lost[0])
			}
			continue
		}
		if len(lost) != 1 || lost[0].Got != tt.got || !strings.Contains(lost[0].Why, tt.why) {
			t.Errorf("%s=%s: got %v\nwant %s, %s", tt.name, tt.asked, lost, tt.got, tt.why)
		}
	}
	one, two := Option{Name: "ONE", Value: "y"}, Option{Name: "TWO", Value: "y"}
	if lost := verify(k, cfg, []Option{two, one}); len(lost) != 0 {
		t.Errorf("a later request chose ONE: lost %v, want none", lost)
	}
	if lost := verify(k, cfg, []Option{one, two}); len(lost) != 1 || lost[0].Name != "TWO" {
		t.Errorf("the last request is TWO, and the configuration has ONE: lost %v, want TWO", lost)
	}
	options := []Option{{Name: "GONE", Value: "y", IfKnown: true}, {Name: "BASE", Value: "y", IfKnown: true}}
	if got := applicable(k, options); len(got) != 1 || got[0].Name != "BASE" {
		t.Errorf("applicable: got %v, want BASE alone", got)
	}
}

func TestAttainable(t *testing.T) {
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"Kconfig": `
config ARCH_SELECTED
	bool
config ARCH_IMPLIED
	bool
config ARCH_OTHER
	bool
config X86
	def_bool y
	select ARCH_SELECTED
	select ARCH_OTHER if NEVER
	imply ARCH_IMPLIED
config NEVER
	def_bool n
config HIST
	bool "hist"
	depends on ARCH_OTHER
config DEEP
	bool "deep"
	depends on HIST && X86
config EITHER
	bool "either"
	depends on HIST || ARCH_SELECTED
config FORCED
	bool "selected in spite of its dependency"
	depends on HIST
config FORCES
	bool "forces"
	select FORCED
config ROUND
	bool "round"
	depends on TRIP
config TRIP
	bool "trip"
	depends on ROUND
config TOOLCHAIN
	bool "of the compiler"
	depends on $(cc-option,-mfoo)
config WITHOUT
	bool "without"
	depends on !X86 && NEEDS_VERSION >= 20 && y
if HIST
config IN_BLOCK
	bool "in a block"
endif
if n
config SWITCHED_OFF
	bool "off"
endif
`})
	k, err := readRules(dir, "x86")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"X86": true, "ARCH_SELECTED": true, "ARCH_IMPLIED": true, "ARCH_OTHER": false, "NEVER": false, "HIST": false, "DEEP": false,
		"EITHER": true, "FORCED": true, "ROUND": true, "TOOLCHAIN": true, "WITHOUT": true, "IN_BLOCK": false, "SWITCHED_OFF": false, "ABSENT": false,
	} {
		if got := k.attainable(name); got != want {
			t.Errorf("attainable(%s) = %t; want %t", name, got, want)
		}
	}
	all := []Lost{
		{Option: Option{Name: "HIST", Value: "y", Embedded: true}},
		{Option: Option{Name: "HIST", Value: "y"}},
		{Option: Option{Name: "ABSENT", Value: "y", Embedded: true}},
		{Option: Option{Name: "NEVER", Value: "n", Embedded: true}}, // without a prompt
		{Option: Option{Name: "HIST", Value: "n", Embedded: true}},
		{Option: Option{Name: "NEVER", Value: "n"}},
	}
	lost, lacking := impossible(k, all)
	if len(lost) != 4 || len(lacking) != 1 || lacking[0].Name != "HIST" || !lacking[0].Embedded {
		t.Errorf("impossible: lost %v, lacking %v; want labctl's own HIST alone to be lacking", lost, lacking)
	}
}

func TestLostError(t *testing.T) {
	e := &LostError{Release: "6.12.1", Arch: "arm64"}
	for range maxLostShown + 2 {
		e.Lost = append(e.Lost, Lost{Option: Option{Name: "A", Value: "y", Where: "f:1"}, Got: "n", Why: "w"})
	}
	got := e.Error()
	if !strings.HasPrefix(got, "configure 6.12.1 for arm64: 8 options dropped by Kconfig: CONFIG_A: requested y (f:1), got n: w; ") || !strings.HasSuffix(got, "; and 2 more") {
		t.Error(got)
	}
}

func TestReadRulesErrors(t *testing.T) {
	for _, tt := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"x": ""}, "read Kconfig"},
		{map[string]string{"Kconfig": "source \"Kconfig\"\n"}, "in a loop"},
		{map[string]string{"Kconfig": "source \"../Kconfig\"\n"}, "outside the tree"},
	} {
		dir := filepath.Join(t.TempDir(), "tree")
		writeTree(t, dir, tt.files)
		writeTree(t, filepath.Dir(dir), map[string]string{"Kconfig": ""})
		if _, err := readRules(dir, "x86"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: got %v, want %q", tt.files, err, tt.want)
		}
	}
}

func FuzzReadRules(f *testing.F) {
	f.Add(fakeKconfig["arch/x86/Kconfig"])
	f.Add("endif\nendmenu\nif\nconfig\n\tdepends on\n\tselect\nchoice\nconfig A\nendchoice\nhelp\n  x")
	f.Fuzz(func(t *testing.T, s string) {
		k := &rules{symbols: map[string]*symbol{}, vars: map[string]string{}, tree: t.TempDir()}
		r := &rulesReader{k: k, file: "Kconfig"}
		if err := r.read(s, maxKconfigDepth); err != nil {
			return // an include that happens to exist
		}
		for name := range k.symbols {
			for _, v := range []string{"y", "n", "m"} {
				impossible(k, verify(k, values{"A": "y"}, []Option{{Name: name, Value: v, Embedded: true}}))
			}
		}
	})
}
