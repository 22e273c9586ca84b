package synth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Package is a package in a Repo.
type Package struct {
	Name, Version, Depends string
	Deb                    []byte
}

// Repo is a signed Debian archive on a local web server. A test may change its
// files below Dir to test how that is handled.
type Repo struct {
	Dir   string
	URL   string
	Suite string
	Arch  string
	Key   *openpgp.Entity // signing key
	Close func()          // stops the server

	mu     sync.Mutex
	before func(path string)
	gets   map[string]int
	date   time.Time // of the last Publish
	t      testing.TB
}

// NewRepo serves an archive with these packages. It also points APT_CONFIG to a
// host configuration with this archive as its only source and the archive's key as
// the only key, and with hooks that leave a file when they run; see HooksRan.
func NewRepo(t *testing.T, suite, arch string, pkgs ...Package) *Repo {
	t.Helper()
	aMinuteAgo := &packet.Config{Time: func() time.Time { return time.Now().Add(-time.Minute) }}
	r := &Repo{Dir: t.TempDir(), Suite: suite, Arch: arch, Key: NewKey(t, aMinuteAgo), gets: map[string]int{}, t: t}
	files := http.FileServer(http.Dir(r.Dir))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		r.gets[req.URL.Path]++
		before := r.before
		r.mu.Unlock()
		if before != nil {
			before(req.URL.Path)
		}
		files.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	r.Close = srv.Close
	r.URL = srv.URL + "/debian"
	r.Publish(pkgs...)
	r.host(t)
	return r
}

// Before registers f to be called before each request is answered.
func (r *Repo) Before(f func(path string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = f
}

// Gets returns the number of requests for paths that end in suffix.
func (r *Repo) Gets(suffix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for p, c := range r.gets {
		if strings.HasSuffix(p, suffix) {
			n += c
		}
	}
	return n
}

// Path returns the path of a file in the archive.
func (r *Repo) Path(elem ...string) string {
	return filepath.Join(append([]string{r.Dir, "debian"}, elem...)...)
}

// Publish replaces the packages of the suite. The archive's date advances by a
// minute each time, because apt asks for newer files and HTTP dates have a
// resolution of seconds.
func (r *Repo) Publish(pkgs ...Package) {
	if r.date.IsZero() {
		r.date = time.Now().Add(-time.Hour)
	}
	r.date = r.date.Add(time.Minute)
	var index strings.Builder
	for _, p := range pkgs {
		name := fmt.Sprintf("pool/%s_%s_%s.deb", p.Name, p.Version, r.Arch)
		r.write(name, p.Deb)
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: t <t@example.org>\n", p.Name, p.Version, r.Arch)
		if p.Depends != "" {
			fmt.Fprintf(&index, "Depends: %s\n", p.Depends)
		}
		fmt.Fprintf(&index, "Description: test\nFilename: %s\nSize: %d\nSHA256: %x\n\n", name, len(p.Deb), sha256.Sum256(p.Deb))
	}
	list := fmt.Sprintf("main/binary-%s/Packages", r.Arch)
	r.write(filepath.Join("dists", r.Suite, list), []byte(index.String()))
	release := fmt.Sprintf("Origin: Debian\nLabel: Debian\nSuite: %[1]s\nCodename: %[1]s\nDate: %s\nArchitectures: %s\nComponents: main\nSHA256:\n %x %d %s\n",
		r.Suite, r.date.UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"), r.Arch, sha256.Sum256([]byte(index.String())), index.Len(), list)
	r.write(filepath.Join("dists", r.Suite, "Release"), []byte(release))
	r.Sign(false, nil)
}

func (r *Repo) write(name string, data []byte) {
	p := r.Path(name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chtimes(p, r.date, r.date); err != nil {
		r.t.Fatal(err)
	}
}

func (r *Repo) host(t *testing.T) {
	for _, d := range []string{"etc/none", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(r.Dir, "host", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(r.Dir, "host", name) }
	hook := fmt.Sprintf("{ \"touch %s\"; };\n", at("hook-ran"))
	conf := fmt.Sprintf(`Dir::State "%s"; Dir::Cache "%s"; Dir::Etc "%s"; Dir::Etc::parts "none"; Dir::Etc::sourceparts "none";
Acquire::Retries "0"; Acquire::Check-Valid-Until "false";
`, at("state"), at("cache"), at("etc"))
	for _, h := range []string{"APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success", "DPkg::Pre-Invoke"} {
		conf += h + " " + hook
	}
	files := map[string][]byte{
		"apt.conf":         []byte(conf),
		"state/status":     nil,
		"etc/sources.list": fmt.Appendf(nil, "deb [signed-by=%s] %s %s main\n", at("key.gpg"), r.URL, r.Suite),
	}
	for name, data := range files {
		if err := os.WriteFile(at(name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.Trust(r.Key)
	t.Setenv("APT_CONFIG", at("apt.conf"))
	t.Setenv("LABCTL_DEBIAN_MIRROR", "")
	t.Setenv("no_proxy", "127.0.0.1")
}

// Trust makes key the signing key, and the only one that the host trusts.
func (r *Repo) Trust(key *openpgp.Entity) {
	r.t.Helper()
	r.Key = key
	var public bytes.Buffer
	err := key.Serialize(&public)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.Dir, "host/key.gpg"), public.Bytes(), 0o644)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// HooksRan reports whether a hook of the host ran.
func (r *Repo) HooksRan() bool {
	_, err := os.Stat(filepath.Join(r.Dir, "host", "hook-ran"))
	return err == nil
}

// Sign signs Release again with r.Key and the configuration how: in a separate
// Release.gpg, or inline, in InRelease only, which apt prefers.
func (r *Repo) Sign(inline bool, how *packet.Config) {
	r.t.Helper()
	suite := filepath.Join("dists", r.Suite)
	release, err := os.ReadFile(r.Path(suite, "Release"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.Unsign()
	var out bytes.Buffer
	if !inline {
		if err := openpgp.ArmoredDetachSign(&out, r.Key, bytes.NewReader(release), how); err != nil {
			r.t.Fatal(err)
		}
		r.write(filepath.Join(suite, "Release.gpg"), out.Bytes())
		return
	}
	text, err := clearsign.Encode(&out, r.Key.PrivateKey, how)
	if err != nil {
		r.t.Fatal(err)
	}
	text.Write(release)
	if err := text.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.write(filepath.Join(suite, "InRelease"), out.Bytes())
	if err := os.Remove(r.Path(suite, "Release")); err != nil {
		r.t.Fatal(err)
	}
}

// Unsign removes all signatures.
func (r *Repo) Unsign() {
	for _, name := range []string{"Release.gpg", "InRelease"} {
		if err := os.Remove(r.Path("dists", r.Suite, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.t.Fatal(err)
		}
	}
}

// NewKey creates an archive signing key of the same kind as Debian's newest ones,
// with the configuration how.
func NewKey(t testing.TB, how *packet.Config) *openpgp.Entity {
	t.Helper()
	ed25519 := *how
	ed25519.Algorithm = packet.PubKeyAlgoEdDSA
	key, err := openpgp.NewEntity("test archive", "", "t@example.org", &ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
