package debian

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAcquireOptions(t *testing.T) {
	dump := `APT "";
Acquire "";
Acquire::AllowInsecureRepositories "1";
Acquire::Check-Valid-Until "false";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3142/";
Acquire::http::Proxy::other.example "DIRECT";
Acquire::IndexTargets::deb::Packages::MetaKey "$(COMPONENT)/Packages";
Acquire::Languages:: "none";
Acquire::CompressionTypes::xz "xz";
Acquire::gpgv::Options:: "--ignore-time-conflict";
APT::Update::Post-Invoke:: "rm -rf /";
DPkg::Post-Invoke:: "rm -rf /";
`
	want := []option{
		{"Acquire::Check-Valid-Until", "false"},
		{"Acquire::http::Proxy", "http://proxy.example:3142/"},
		{"Acquire::http::Proxy::other.example", "DIRECT"},
		{"Acquire::CompressionTypes::xz", "xz"},
	}
	if diff := cmp.Diff(want, acquireOptions(dump), cmp.AllowUnexported(option{})); diff != "" {
		t.Errorf("acquireOptions (-want +got):\n%s", diff)
	}
}

const deb822 = `# a comment
Types: deb deb-src
# between fields
URIs: https://one.example/debian https://two.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/a.gpg

Types: deb
URIs: https://off.example/debian
Suites: trixie
Components: main
Enabled: no

Types: deb-src
URIs: https://source.example/debian
Suites: trixie

types: deb
uris: https://key.example/debian
suites: trixie
signed-by:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
`

func TestParseSources(t *testing.T) {
	oneLine := `# deb https://no.example/debian trixie main
deb-src https://no.example/debian trixie main
deb [arch=amd64 signed-by=/a.gpg,/b.gpg] https://one.example/debian trixie main # why
deb	https://two.example/debian  bookworm  main contrib
deb [broken
debian is not a source
deb https://short.example
`
	got := append(parseDeb822(deb822), parseOneLine(oneLine)...)
	both := []string{"bookworm", "bookworm-updates"}
	want := []entry{
		{uri: "https://one.example/debian", suites: both, keyrings: []string{"/usr/share/keyrings/a.gpg"}},
		{uri: "https://two.example/debian/", suites: both, keyrings: []string{"/usr/share/keyrings/a.gpg"}},
		{uri: "https://key.example/debian", suites: []string{"trixie"}, keyBlock: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQINBF\n-----END PGP PUBLIC KEY BLOCK-----\n"},
		{uri: "https://one.example/debian", suites: []string{"trixie"}, keyrings: []string{"/a.gpg", "/b.gpg"}},
		{uri: "https://two.example/debian", suites: []string{"bookworm"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
}

func TestOrigin(t *testing.T) {
	target := func(label, uri string) map[string]string {
		return map[string]string{"Origin": "Debian", "Label": label, "Created-By": "Packages", "Repo-URI": uri}
	}
	signed := entry{uri: "https://m.example/debian", suites: []string{"bookworm"}, keyrings: []string{"/m.gpg"}}
	derivative := entry{uri: "https://u.example/ubuntu", suites: []string{"noble"}, keyrings: []string{"/u.gpg"}}
	tests := []struct {
		name     string
		host     host
		override string
		keyring  bool // the host has debian-archive-keyring
		want     origin
		lacks    bool
	}{
		{name: "by index, keys of the same mirror though the slash differs",
			host: host{targets: []map[string]string{target("Debian-Security", "https://s.example/"), target("Debian", "https://m.example/debian/")}, entries: []entry{signed}},
			want: origin{"https://m.example/debian/", entryKeys{keyrings: []string{"/m.gpg"}}}},
		{name: "lists never fetched: by the name of the suite",
			host: host{entries: []entry{derivative, signed}},
			want: origin{"https://m.example/debian", entryKeys{keyrings: []string{"/m.gpg"}}}},
		{name: "override keeps the keys of the host's Debian",
			host: host{entries: []entry{signed}}, override: "https://near.example/debian",
			want: origin{"https://near.example/debian", entryKeys{keyrings: []string{"/m.gpg"}}}},
		{name: "derivative with an override and Debian's keyring",
			host: host{entries: []entry{derivative}}, override: "https://near.example/debian", keyring: true,
			want: origin{"https://near.example/debian", entryKeys{keyrings: []string{debianKeyring}}}},
		{name: "no Signed-By: Debian's keyring",
			host: host{entries: []entry{{uri: "https://m.example/debian", suites: []string{"trixie"}}}}, keyring: true,
			want: origin{"https://m.example/debian", entryKeys{keyrings: []string{debianKeyring}}}},
		{name: "no Signed-By, no keyring: the host's trusted parts",
			host: host{entries: []entry{{uri: "https://m.example/debian", suites: []string{"trixie"}}}, trustedParts: "/etc/apt/trusted.gpg.d/"},
			want: origin{uri: "https://m.example/debian"}},
		{name: "derivative", host: host{entries: []entry{derivative}}, keyring: true, lacks: true},
		{name: "no key at all", host: host{}, override: "https://near.example/debian", lacks: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.host.exists = func(p string) bool { return tt.keyring && p == debianKeyring }
			got, err := tt.host.origin(tt.override)
			if tt.lacks {
				if !errors.Is(err, ErrHostLacks) {
					t.Fatalf("got %v, %v; want ErrHostLacks", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(origin{}, entryKeys{})); diff != "" {
				t.Errorf("origin (-want +got):\n%s", diff)
			}
		})
	}
	for _, bad := range []string{"https://a.example/ x main\ndeb", "mirror", `http://"`, "[trusted=yes] http://a"} {
		h := host{exists: func(string) bool { return true }}
		if _, err := h.origin(bad); err == nil || !strings.Contains(err.Error(), "want a URL") {
			t.Errorf("override %q: got %v", bad, err)
		}
	}
}

func TestNoApt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r := &Root{Dir: filepath.Join(t.TempDir(), "root"), Suite: "trixie", Component: "main", Arch: "amd64"}
	_, err := r.Resolve(context.Background(), "linux-image-amd64", func(Progress) {})
	if !errors.Is(err, ErrHostLacks) || !strings.Contains(err.Error(), "--kernel ./bzImage") {
		t.Errorf("got %v; want ErrHostLacks with the remedy", err)
	}
	if _, err := os.Stat(r.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the root was made: %v", err)
	}
}

func FuzzSources(f *testing.F) {
	f.Add(deb822)
	f.Add("deb [signed-by=/a.gpg] u s c\n")
	f.Add("deb [")
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range append(parseDeb822(text), parseOneLine(text)...) {
			for _, k := range e.keyrings {
				if !strings.HasPrefix(k, "/") || strings.ContainsAny(k, ", \n\t") {
					t.Errorf("keyring %q", k)
				}
			}
		}
	})
}
