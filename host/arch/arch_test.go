package arch

import (
	"debug/elf"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range slices.Concat(All, Others) {
		if seen[a.Name] || OfELF(a.Machine, a.Class) != a.Name {
			t.Errorf("%s: want one row, found by its ELF header; OfELF(%v, %v) = %q", a.Name, a.Machine, a.Class, OfELF(a.Machine, a.Class))
		}
		seen[a.Name] = true
	}
	for _, a := range All {
		b, e := a.Build, a.Entry
		for what, value := range map[string]string{
			"uname": a.Uname, "Debian": a.Debian, "triplet": a.Triplet, "ARCH": b.ARCH, "source": b.Source, "target": b.Target, "word": e.Word,
		} {
			if value == "" {
				t.Errorf("%s: no %s", a.Name, what)
			}
		}
		for _, image := range b.Images {
			if !strings.HasPrefix(image, "arch/"+b.Source+"/boot/") {
				t.Errorf("%s: image %s is not below arch/%s/boot", a.Name, image, b.Source)
			}
		}
		if len(b.Images) == 0 || !strings.HasSuffix(b.Images[0], "/"+b.Target) {
			t.Errorf("%s: images %q; want that of the target %s first", a.Name, b.Images, b.Target)
		}
		// Labctl's probes fetch the fourth argument of a function.
		if len(e.Args) < 4 || slices.ContainsFunc(e.Args, func(r string) bool { return !strings.HasPrefix(r, "%") }) {
			t.Errorf("%s: registers %q; want four or more, as %%x0", a.Name, e.Args)
		}
		if want := "x" + map[int]string{32: "32", 64: "64"}[Bits(a.Name)]; e.Word != want {
			t.Errorf("%s: a word is fetched as %s, want %s", a.Name, e.Word, want)
		}
	}
}

// The test's own program is an ELF file of this host.
func TestOfELF(t *testing.T) {
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := OfELF(f.Machine, f.Class); got != runtime.GOARCH {
		t.Errorf("OfELF of this program = %q, want %q", got, runtime.GOARCH)
	}
	if got := OfELF(elf.EM_X86_64, elf.ELFCLASS32); got != "" {
		t.Errorf("OfELF of an x32 program = %q, want none", got)
	}
}

func TestCross(t *testing.T) {
	for _, a := range All {
		want := a.Triplet + "-"
		if a.Name == runtime.GOARCH {
			want = ""
		}
		if got := a.CrossCompile(); got != want {
			t.Errorf("%s: CrossCompile = %q, want %q", a.Name, got, want)
		}
	}
	if a, _ := Find("amd64"); a.CrossPackage() != "gcc-x86-64-linux-gnu" {
		t.Errorf("CrossPackage of amd64 = %q", a.CrossPackage())
	}
	if a, ok := Find("386"); ok {
		t.Errorf("Find(386) = %v; labctl boots none", a)
	}
}

func TestBits(t *testing.T) {
	for name, want := range map[string]int{"amd64": 64, "arm": 32, "386": 32, "riscv64": 64, "none": 64} {
		if got := Bits(name); got != want {
			t.Errorf("Bits(%q) = %d, want %d", name, got, want)
		}
	}
}

func TestCaller(t *testing.T) {
	for name, want := range map[string]string{"arm64": "lr=%x30:symbol lr=%x30:x64", "amd64": "", "arm": "lr=%lr:symbol lr=%lr:x32"} {
		a, _ := Find(name)
		if got := strings.Join(a.Entry.Caller(), " "); got != want {
			t.Errorf("%s: Caller = %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{"arm64": "lr=%x30:symbol lr=%x30:x64", "amd64": "ra=$stack0:symbol ra=$stack0:x64"} {
		e, ok := EntryOf(name, true)
		if got := strings.Join(e.Caller(), " "); !ok || got != want {
			t.Errorf("%s with frame pointers: Caller = %q, %t; want %q", name, got, ok, want)
		}
	}
	if _, ok := EntryOf("riscv64", true); ok {
		t.Error("EntryOf(riscv64) = true; want false")
	}
}
