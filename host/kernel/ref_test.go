package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
		{"deb:mainline", Ref{Path: "./mainline"}},
		{"rpm:/tmp/kernel-core.rpm", Ref{Path: "/tmp/kernel-core.rpm"}},
		{"build:lab-6.12", Ref{Build: "lab-6.12"}},
		{"6.12-cloud", Ref{Suite: "trixie", Flavour: "cloud", Series: "6.12"}},
		{"debian:trixie-cloud", Ref{Suite: "trixie", Flavour: "cloud"}},
		{"debian:experimental", Ref{Suite: "experimental"}},
		{"7.3", Ref{Suite: "experimental", Series: "7.3"}},
		{"7.3-rc7-amd64", Ref{Release: "7.3-rc7-amd64"}},
		{"7.3-cloud-amd64", Ref{Release: "7.3-cloud-amd64"}},
		{"gomod:github.com/gokrazy/kernel.rpi", Ref{Module: "github.com/gokrazy/kernel.rpi"}},
		{"gomod:github.com/gokrazy/kernel.rpi@v0.0.0-20251127164438-9778ec0261de", Ref{Module: "github.com/gokrazy/kernel.rpi", Version: "v0.0.0-20251127164438-9778ec0261de"}},
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
		{"6.12-clod", "did you mean 6.12-cloud?"},
		{"debian:trixie/cloud", "did you mean debian:trixie-cloud?"},
		{"gomod:github.com/gokrazy/kernel.rpl", "did you mean gomod:github.com/gokrazy/kernel.rpi?"},
		{"gomod:example.org/x", "known: gomod:github.com/gokrazy/kernel.rpi, gomod:github.com/gokrazy/kernel.amd64; add others to"},
		{"gomod:github.com/gokrazy/kernel.rpi@latest", "omit @ for the latest"},
		{"gomod:github.com/gokrazy/kernel.rpi@v1.2", "omit @ for the latest"},
		{"gomod:", "known: gomod:"},
		{"debian:trixy", "did you mean debian:trixie?"},
		{"trixie", "did you mean debian:trixie?"},
		{"bzImage", "use ./bzImage"},
		{"", "known: 5.10, 6.1, 6.12, 7.2, 7.3, 5.10-cloud, 6.1-cloud, 6.12-cloud, 7.2-cloud, 6.12-16k, 7.2-16k, debian:bullseye"},
		{"latest", "known: 5.10"},
		{"6.12.", "known: "},
		{"debian:", "known: "},
		{"build:", "not a valid build name"},
		{"build:../debian", "not a valid build name"},
	} {
		if got, err := ParseRef(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseRef(%q) = %+v, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"6.12", "debian:trixie", "./x", "6.12.107+deb13-amd64", "build:lab", "gomod:github.com/gokrazy/kernel.rpi@v1.2.3", ""} {
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
