package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labctl/images"
)

func TestEmbeddedSources(t *testing.T) {
	l, err := parseSources("images/kernels.yaml", images.Kernels)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Sources) == 0 || l.Fallback == "" {
		t.Errorf("got %+v", l)
	}
	if strings.Contains(string(images.Kernels), "://") {
		t.Error("kernels.yaml names a host; mirrors are the host's own")
	}
}

func TestParseSourcesRefuses(t *testing.T) {
	const good = "fallback: \"1.2\"\nsources:\n  - kind: debian\n    suite: a\n    series: \"1.2\"\n    component: main\n    arch: {amd64: {debian: amd64, package: p}}\n"
	if _, err := parseSources("k.yaml", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, yaml, want string }{
		{"unknown field", strings.Replace(good, "suite: a", "suit: a", 1), "k.yaml: [4:5]"},
		{"doubled field", strings.Replace(good, "suite: a", "suite: a\n    suite: b", 1), "k.yaml: [5:5]"},
		{"unknown kind", strings.Replace(good, "kind: debian", "kind: gentoo", 1), `sources[0]: unknown kind "gentoo"`},
		{"series as a number of three", strings.Replace(good, `series: "1.2"`, `series: "1.2.3"`, 1), "want two numbers"},
		{"no arch", strings.Replace(good, "    arch: {amd64: {debian: amd64, package: p}}\n", "", 1), "needs suite, series, component and arch"},
		{"half an arch", strings.Replace(good, ", package: p", "", 1), "arch amd64 needs debian and package"},
		{"twice", good + strings.SplitN(good, "sources:\n", 2)[1], "is already the name"},
		{"fallback", strings.Replace(good, `fallback: "1.2"`, `fallback: "1.3"`, 1), `fallback "1.3"`},
		{"file with a suite", good + "  - {kind: file, suite: x}\n", "kind file takes no other field"},
		{"no yaml", "{", "k.yaml: [1:"},
	} {
		if _, err := parseSources("k.yaml", []byte(tt.yaml)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestParseRef(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Ref
	}{
		{"6.12", Ref{Suite: "trixie", Series: "6.12"}},
		{"debian:6.12", Ref{Suite: "trixie", Series: "6.12"}},
		{"debian:bullseye", Ref{Suite: "bullseye"}},
		{"6.12.107+deb13-amd64", Ref{Release: "6.12.107+deb13-amd64"}},
		{"5.10.0-32-arm64", Ref{Release: "5.10.0-32-arm64"}},
		{"./bzImage", Ref{Path: "./bzImage"}},
		{"/boot/vmlinuz", Ref{Path: "/boot/vmlinuz"}},
		{"build:lab-6.12", Ref{Build: "lab-6.12"}},
	} {
		got, err := ParseRef(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseRef(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
		again, err := ParseRef(got.String())
		if err != nil || again != got {
			t.Errorf("ParseRef(%q) after String = %+v, %v; want %+v", got, again, err, got)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bzImage"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, tt := range []struct{ in, want string }{
		{"6.21", "did you mean 6.12?"},
		{"debian:trixy", "did you mean debian:trixie?"},
		{"trixie", "did you mean debian:trixie?"},
		{"bzImage", "write ./bzImage"},
		{"", "known: 5.10, 6.1, 6.12, 7.2, debian:bullseye"},
		{"latest", "known: 5.10"},
		{"6.12.", "known: "},
		{"debian:", "known: "},
		{"build:", "a build's name has letters"},
		{"build:../debian", "a build's name has letters"},
	} {
		if got, err := ParseRef(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseRef(%q) = %+v, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"5.10", "6.1", "6.12", "debian:trixie", "virtio_console"}
	for _, tt := range []struct{ got, want string }{
		{"6.21", "6.12"}, {"6.2", "6.1"}, {"debain:trixie", "debian:trixie"}, {"virtio_consle", "virtio_console"},
		{"zzz", ""}, {"", ""}, {"6.1", "6.1"},
	} {
		if near := Nearest(tt.got, known); near != tt.want {
			t.Errorf("Nearest(%q) = %q, want %q", tt.got, near, tt.want)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"6.12", "debian:trixie", "./x", "6.12.107+deb13-amd64", "build:lab", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseRef(s)
		if err != nil {
			return
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Errorf("ParseRef(%q) = %+v, but its String gives %+v, %v", s, ref, again, err)
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("CONFIG_A=y\nCONFIG_B=\"x\"\n# CONFIG_C is not set\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for name := range parseConfig(b) {
			if strings.ContainsAny(name, "=\n") {
				t.Errorf("option %q", name)
			}
		}
	})
}
