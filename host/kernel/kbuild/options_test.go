package kbuild

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"labctl/host/arch"
	"labctl/host/kernel/check"
	"labctl/kconfig"
	"labctl/labs"
)

func TestParseFragment(t *testing.T) {
	got, err := ParseFragment("x.config", []byte("# words\n\nCONFIG_A=y\n#? from 5.1\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_D=\"a # \\\" b\"\nCONFIG_E=-1\nCONFIG_F=0x1F\n#? gone\n\nCONFIG_G=y\n"))
	want := []Option{
		{Name: "A", Value: "y", Where: "x.config:3"}, {Name: "B", Value: "m", IfKnown: true, Where: "x.config:5"}, {Name: "C", Value: "n", Where: "x.config:6"},
		{Name: "D", Value: `"a # \" b"`, Where: "x.config:7"}, {Name: "E", Value: "-1", Where: "x.config:8"}, {Name: "F", Value: "0x1F", Where: "x.config:9"},
		{Name: "G", Value: "y", Where: "x.config:12"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("ParseFragment: %v\n%s", err, diff)
	}
	for _, bad := range []string{"CONFIG_A = y", "CONFIG_A=yes", "A=y", "CONFIG_A=\"x", "CONFIG_A=y # why", "\x1b[2J"} {
		_, err := ParseFragment("x.config", []byte("\n"+bad+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "x.config:2: ") || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("ParseFragment(%q): got %v, want one clean line that begins with x.config:2", bad, err)
		}
	}
}

func FuzzParseFragment(f *testing.F) {
	f.Add("CONFIG_A=y\n#? x\n# CONFIG_B is not set\nCONFIG_C=\"\\\"\"\n")
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseFragment("f", []byte(s))
		if err != nil {
			return
		}
		// Options survive formatting and parsing.
		var text strings.Builder
		for _, o := range list {
			text.WriteString(o.line() + "\n")
		}
		again, err := ParseFragment("f", []byte(text.String()))
		if err != nil || len(again) != len(list) {
			t.Fatalf("%q became %q: %v", s, text.String(), err)
		}
		for i, o := range again {
			if o.Name != list[i].Name || o.Value != list[i].Value {
				t.Errorf("%+v became %+v", list[i], o)
			}
		}
	})
}

func TestMerge(t *testing.T) {
	got := merge([]Option{{Name: "A", Value: "y"}, {Name: "B", Value: "y"}}, []Option{{Name: "C", Value: "m"}, {Name: "A", Value: "n"}})
	want := []Option{{Name: "B", Value: "y"}, {Name: "C", Value: "m"}, {Name: "A", Value: "n"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNewPlan(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mine.config")
	if err := os.WriteFile(file, []byte("CONFIG_SMP=n\nCONFIG_MINE=y\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := NewPlan("arm64", "", []string{"base", file})
	if err != nil {
		t.Fatal(err)
	}
	value := func(name string) string {
		for _, o := range p.Options {
			if o.Name == name {
				return o.Value
			}
		}
		return ""
	}
	for name, want := range map[string]string{"SMP": "n", "MINE": "y", "ARM64_4K_PAGES": "y", "PVH": "", "PRINTK": "y"} {
		if got := value(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("bass", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		profile   string
		fragments []string
		want      string
	}{
		{"", nil, "no profile and no fragment"},
		{"lap", nil, `profile "lap" is not known, did you mean lab?`},
		{"", []string{"bass"}, `fragment "bass" is not known, did you mean base? (known: base, debug,`},
		{"", []string{"bass"}, "(for a file of that name use ./bass)"},
		{"", []string{"./gone.config"}, "fragment: open ./gone.config: no such file"},
		{"", []string{"."}, `fragment "." is not known`},
		{"", []string{"./bass"}, "no options in it"},
		{"", []string{"./"}, "not a regular file"},
	} {
		if _, err := NewPlan("amd64", tt.profile, tt.fragments); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("NewPlan(%q, %q): got %v, want %q", tt.profile, tt.fragments, err, tt.want)
		}
	}
}

// TestFragments parses every embedded fragment.
func TestFragments(t *testing.T) {
	for _, name := range []string{"base", "ftrace", "debug", "frame-pointers", "virtio", "numa", "raspi", "tiny"} {
		if !slices.Contains(Fragments(), name) {
			t.Errorf("no such fragment: %s", name)
		}
	}
	files, err := fs.Glob(kconfig.Fragments, "*.config")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := kconfig.Fragments.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list, err := ParseFragment(file, data)
		if err != nil || len(list) == 0 {
			t.Errorf("%s: %d options, %v", file, len(list), err)
		}
		if merged := merge(list); len(merged) != len(list) {
			t.Errorf("%s asks for an option twice", file)
		}
		if !strings.HasPrefix(string(data), "#") {
			t.Errorf("%s does not say what it is for", file)
		}
	}
}

func TestParseProfiles(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"profiles: [{name: a}]", "needs a name and fragments"},
		{"profiles: [{name: a, fragments: [bases]}]", "no such fragment: bases"},
		{"profiles: [{name: a, fragments: [base], features: [fly]}]", "no such feature: fly"},
		{"profiles: [{name: a, fragments: [base], arch: {riscv: {}}}]", `architecture "riscv" is not known`},
		{"profiles: [{name: a, fragments: [base], colour: red}]", "colour"},
	} {
		if _, err := parseProfiles("p.yaml", []byte(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.in, err, tt.want)
		}
	}
}

// follows are options that no fragment requests, because a requested one selects them
// or the architecture implies them.
var follows = map[string]string{
	"TRACING":             "FUNCTION_TRACER selects it",
	"EVENT_TRACING":       "TRACING selects it",
	"STACKTRACE":          "STACK_TRACER selects it",
	"SCHED_INFO":          "SCHEDSTATS selects it",
	"KCMP":                "CHECKPOINT_RESTORE selects it",
	"MMU":                 "all three architectures have one",
	"CLONE_BACKWARDS":     "the architecture has it or not",
	"FRAME_POINTER":       "the labs take the unwinder for it",
	"THREAD_INFO_IN_TASK": "the architecture has it or not",
}

// notThere are options that the labs use and an architecture does not have, or that a
// fragment beside the profile adds (numa); the labs' checks take that into account.
var notThere = map[string][]string{
	"amd64": {"NUMA", "ARM_LPAE", "ARM64_64K_PAGES"},
	"arm64": {"NUMA", "ARM_LPAE", "ARM64_64K_PAGES"},
	"arm":   {"NUMA", "ARM_LPAE", "ARM64_64K_PAGES", "TIME_NS", "HUGETLBFS", "TRANSPARENT_HUGEPAGE"},
}

// TestLabProfile compares the options requested by the lab profile with its features
// and with all options that the labs use.
func TestLabProfile(t *testing.T) {
	wanted := labOptions(t)
	for _, o := range []string{"KCMP", "SYSVIPC", "STACKTRACE", "TIME_NS"} {
		if !slices.Contains(wanted, o) {
			t.Fatalf("the labs look at %v; want %s among them", wanted, o)
		}
	}
	for _, arch := range arch.Names() {
		plan, err := NewPlan(arch, "lab", nil)
		if err != nil {
			t.Fatal(err)
		}
		asked := func(name string) (string, bool) {
			for _, o := range plan.Options {
				if o.Name == name && o.Value != "n" {
					return o.Value, true
				}
			}
			if _, ok := follows[name]; ok {
				return "y", true
			}
			return "", false
		}
		features := plan.Profile.FeaturesOf(arch)
		for _, m := range check.Check(asked, features...) {
			t.Errorf("%s: %s", arch, m)
		}
		for _, f := range check.All() {
			board := strings.HasPrefix(f.Name, "serial-") || f.Name == "pvh"
			if !board && !slices.Contains(features, f.Name) && !slices.Contains(plan.Profile.Arch[arch].Without, f.Name) {
				t.Errorf("%s: the profile has no feature %s", arch, f.Name)
			}
		}
		for _, o := range wanted {
			if v, _ := asked(o); v == "" && !slices.Contains(notThere[arch], o) {
				t.Errorf("%s: the labs look at CONFIG_%s, and the lab profile does not ask for it", arch, o)
			}
		}
	}
}

var looksAt = regexp.MustCompile(`kernel\.config\("([A-Z0-9_]+)"\)`)

// labOptions returns the options that labs need or use.
func labOptions(t *testing.T) []string {
	t.Helper()
	files, err := fs.Glob(labs.FS, "*/lab.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d labs, %v", len(files), err)
	}
	var names []string
	for _, file := range files {
		data, err := fs.ReadFile(labs.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Needs struct {
				Config []string `yaml:"config"`
			} `yaml:"needs"`
		}
		if err := yaml.Unmarshal(data, &doc); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		names = append(names, doc.Needs.Config...)
		for _, m := range looksAt.FindAllStringSubmatch(string(data), -1) {
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
