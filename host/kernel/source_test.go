package kernel

import (
	"errors"
	"strings"
	"testing"

	"labctl/images"
)

func TestEmbeddedSources(t *testing.T) {
	l, err := parseSources("images/kernels.yaml", images.Kernels, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Sources) == 0 || l.Fallback == "" {
		t.Errorf("got %+v", l)
	}
	if strings.Contains(string(images.Kernels), "://") {
		t.Error("kernels.yaml names a host; mirrors are the host's own")
	}
	for _, s := range l.Sources {
		if a, ok := s.Arch["arm"]; ok && s.Kind == KindDebian && a.Debian != "armhf" {
			t.Errorf("%s: Debian's name of arm is %q, want armhf", s.ref(), a.Debian)
		}
	}
	// The list satisfies merge's requirements, too.
	if _, err := l.merge("images/kernels.yaml", &sourceList{}); err != nil {
		t.Error(err)
	}
}

const goodSources = `fallback: "1.2"
sources:
  - kind: debian
    suite: a
    series: "1.2"
    component: main
    arch:
      amd64: {debian: amd64, package: p}
  - kind: gomod
    module: example.org/kernel
    arch:
      arm64: {image: vmlinuz, dtbs: ., modules: lib/modules}
  - kind: file
`

func TestParseSourcesRefuses(t *testing.T) {
	if _, err := parseSources("k.yaml", []byte(goodSources), false); err != nil {
		t.Fatal(err)
	}
	change := func(old, new string) string {
		if !strings.Contains(goodSources, old) {
			t.Fatalf("no %q to change", old)
		}
		return strings.Replace(goodSources, old, new, 1)
	}
	for _, tt := range []struct{ name, yaml, want string }{
		{"unknown field", change("suite: a", "suit: a"), `k.yaml:4: sources[0].suit: unknown field "suit"`},
		{"doubled field", change("suite: a", "suite: a\n    suite: b"), "k.yaml:5: "},
		{"unknown kind", change("kind: debian", "kind: gentoo"), `k.yaml:3: sources[0].kind: unknown kind "gentoo"`},
		{"series of three", change(`series: "1.2"`, `series: "1.2.3"`), "k.yaml:5: sources[0].series: series \"1.2.3\": want two numbers"},
		{"no series", change("    series: \"1.2\"\n", ""), "sources[0].series: "},
		{"no suite", change("    suite: a\n", ""), "sources[0].suite: suite is \"\""},
		{"suite with a way out", change("suite: a", "suite: ../a"), "k.yaml:4: sources[0].suite: "},
		{"flavour with a space", change("suite: a", "suite: a\n    flavour: \"a b\""), "k.yaml:5: sources[0].flavour: "},
		{"no arch", change("    arch:\n      amd64: {debian: amd64, package: p}\n", ""), "sources[0].arch: kind debian needs arch"},
		{"half an arch", change(", package: p", ""), "k.yaml:8: sources[0].arch.amd64: kind debian needs package"},
		{"package as an option", change("package: p", "package: -o"), "needs package"},
		{"architecture as an option", change("debian: amd64", "debian: -o"), "needs debian (Debian's name)"},
		{"unknown architecture", change("amd64: {debian: amd64, ", "riscv64: {"), "k.yaml:8: sources[0].arch.riscv64: kind debian needs debian (Debian's name)"},
		{"arch of no name", change("amd64: {debian", "AMD/64: {debian"), "want a GOARCH"},
		{"wrong arch for the kind", change("package: p", "package: p, image: x"), "allows only package and debian"},
		{"twice", goodSources + "  - kind: debian\n    suite: a\n    series: \"1.3\"\n    component: main\n    arch: {amd64: {debian: amd64, package: p}}\n", "k.yaml:14: sources[3]: debian:a is already the name"},
		{"fallback", change(`fallback: "1.2"`, `fallback: "1.3"`), `k.yaml:1: fallback: "1.3" is not in the list`},
		{"file with a suite", goodSources + "    suite: x\n", "k.yaml:14: sources[2].suite: kind file does not allow suite"},
		{"module's path", change("example.org/kernel", "../kernel"), "k.yaml:10: sources[1].module: "},
		{"image outside", change("image: vmlinuz", "image: ../vmlinuz"), "k.yaml:12: sources[1].arch.arm64.image: "},
		{"no image", change("image: vmlinuz, ", ""), "sources[1].arch.arm64.image: "},
		{"module with a series", change("module: example.org/kernel", "module: example.org/kernel\n    series: \"1.3\""), "kind gomod does not allow series"},
		{"two documents", goodSources + "---\n" + goodSources, "2 YAML documents"},
		{"no yaml", "{", "k.yaml:1"},
		{"wrong type", "sources: 3\n", "k.yaml:1: sources: "},
	} {
		_, err := parseSources("k.yaml", []byte(tt.yaml), false)
		var at *YAMLError
		if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.As(err, &at) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %q", tt.name, err, tt.want)
		}
	}
}

func TestMergeSources(t *testing.T) {
	base, err := parseSources("base.yaml", []byte(goodSources), false)
	if err != nil {
		t.Fatal(err)
	}
	names := func(l *sourceList) (out []string) {
		for _, s := range l.Sources {
			out = append(out, s.ref()+" "+s.name())
		}
		return out
	}
	const debian = "sources:\n  - {kind: debian, suite: %s, series: \"%s\", component: contrib, arch: {arm: {debian: armhf, package: p}}}\n"
	entry := func(suite, series string) string {
		return strings.Replace(strings.Replace(debian, "%s", suite, 1), "%s", series, 1)
	}
	for _, tt := range []struct{ name, yaml, want, err string }{
		{"nothing", "", "debian:a 1.2, gomod:example.org/kernel gomod:example.org/kernel, file ", ""},
		{"another", entry("b", "1.4"), "debian:a 1.2, gomod:example.org/kernel gomod:example.org/kernel, file , debian:b 1.4", ""},
		{"in its place", "fallback: \"1.4\"\n" + entry("a", "1.4"), "debian:a 1.4, gomod:example.org/kernel gomod:example.org/kernel, file ", ""},
		{"the fallback is gone", entry("a", "1.4"), "", `user.yaml: fallback "1.2" is not in the list`},
		{"a name of another", entry("b", "1.2"), "", "user.yaml: debian:a and debian:b are both called 1.2"},
	} {
		user, err := parseSources("user.yaml", []byte(tt.yaml), true)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got, err := base.merge("user.yaml", user)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case strings.Join(names(got), ", ") != tt.want:
			t.Errorf("%s: got %q, want %q", tt.name, names(got), tt.want)
		}
	}
	if got := names(base); got[0] != "debian:a 1.2" {
		t.Errorf("merge changed the list that it merged into: %q", got)
	}
}

func FuzzParseSources(f *testing.F) {
	f.Add([]byte(goodSources))
	f.Add(images.Kernels)
	f.Add([]byte("sources: [{kind: file}, {kind: gomod, module: a.b/c, arch: {arm: {image: x}}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseSources("k.yaml", data, true)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of two lines: %q", err)
			}
			return
		}
		for _, s := range l.Sources {
			if strings.ContainsAny(s.key(), "/ \n") || s.Kind != KindFile && len(s.Arch) == 0 {
				t.Errorf("source %+v", s)
			}
		}
	})
}
