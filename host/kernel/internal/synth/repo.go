package synth

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Package is one package of a Repo.
type Package struct {
	Name, Version, Depends string
	Deb                    []byte
}

// Repo is a signed Debian archive on a local web server. A test may change its
// files below Dir to see how that is taken.
type Repo struct {
	Dir   string
	URL   string
	Suite string
	Arch  string

	mu     sync.Mutex
	before func(path string)
	gets   map[string]int
	key    *signingKey
	date   time.Time // of the last Publish
	t      testing.TB
}

// NewRepo serves an archive with these packages. It also points APT_CONFIG at a
// host configuration that has this archive as its only source and its key as
// the only key, with hooks that leave a file when they run; see HooksRan.
func NewRepo(t *testing.T, suite, arch string, pkgs ...Package) *Repo {
	t.Helper()
	r := &Repo{Dir: t.TempDir(), Suite: suite, Arch: arch, gets: map[string]int{}, key: newSigningKey(t), t: t}
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
	r.URL = srv.URL + "/debian"
	r.Publish(pkgs...)
	r.host(t)
	return r
}

// Before has f called before each request is answered.
func (r *Repo) Before(f func(path string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = f
}

// Gets counts the requests for paths that end in suffix.
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

// Path is a file of the archive.
func (r *Repo) Path(elem ...string) string {
	return filepath.Join(append([]string{r.Dir, "debian"}, elem...)...)
}

// Publish makes these the packages of the suite. Each time it is a minute later in
// the archive: apt asks for what is newer, and HTTP counts in seconds.
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
	r.write(filepath.Join("dists", r.Suite, "Release.gpg"), r.key.sign(r.t, []byte(release)))
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
		"key.gpg":          r.key.public,
		"state/status":     nil,
		"etc/sources.list": fmt.Appendf(nil, "deb [signed-by=%s] %s %s main\n", at("key.gpg"), r.URL, r.Suite),
	}
	for name, data := range files {
		if err := os.WriteFile(at(name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("APT_CONFIG", at("apt.conf"))
	t.Setenv("LABCTL_DEBIAN_MIRROR", "")
	t.Setenv("no_proxy", "127.0.0.1")
}

// HooksRan says whether a hook of the host ran.
func (r *Repo) HooksRan() bool {
	_, err := os.Stat(filepath.Join(r.Dir, "host", "hook-ran"))
	return err == nil
}

// signingKey makes OpenPGP signatures, version 4 with RSA and SHA-256 (RFC 4880,
// 5.2.3). Only what gpgv needs is here.
type signingKey struct {
	rsa         *rsa.PrivateKey
	public      []byte // packets: key, user id, self-signature
	fingerprint []byte
	created     []byte
}

func newSigningKey(t testing.TB) *signingKey {
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k := &signingKey{rsa: priv, created: binary.BigEndian.AppendUint32(nil, uint32(time.Now().Add(-time.Minute).Unix()))}
	body := append([]byte{4}, k.created...)
	body = append(body, 1)
	body = append(append(body, mpi(priv.N)...), mpi(big.NewInt(int64(priv.E)))...)
	hashed := append([]byte{0x99, byte(len(body) >> 8), byte(len(body))}, body...)
	sum := sha1.Sum(hashed)
	k.fingerprint = sum[:]
	uid := []byte("test archive <t@example.org>")
	certified := append(hashed, 0xb4, 0, 0, 0, byte(len(uid)))
	certified = append(certified, uid...)
	k.public = append(packet(6, body), packet(13, uid)...)
	k.public = append(k.public, packet(2, k.signature(t, 0x13, certified))...)
	return k
}

// sign makes an armored detached signature.
func (k *signingKey) sign(t testing.TB, data []byte) []byte {
	b64 := base64.StdEncoding.EncodeToString(packet(2, k.signature(t, 0, data)))
	var out strings.Builder
	out.WriteString("-----BEGIN PGP SIGNATURE-----\n\n")
	for len(b64) > 64 {
		out.WriteString(b64[:64] + "\n")
		b64 = b64[64:]
	}
	out.WriteString(b64 + "\n-----END PGP SIGNATURE-----\n")
	return []byte(out.String())
}

func (k *signingKey) signature(t testing.TB, typ byte, data []byte) []byte {
	sub := append([]byte{5, 2}, k.created...)
	sub = append(append(sub, 22, 33, 4), k.fingerprint...)
	if typ == 0x13 {
		sub = append(sub, 2, 27, 3) // may certify and sign
	}
	head := append([]byte{4, typ, 1, 8, 0, byte(len(sub))}, sub...)
	h := sha256.New()
	h.Write(data)
	h.Write(head)
	h.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(head))))
	digest := h.Sum(nil)
	s, err := rsa.SignPKCS1v15(nil, k.rsa, crypto.SHA256, digest)
	if err != nil {
		t.Fatal(err)
	}
	out := append(head, 0, 10, 9, 16)
	out = append(out, k.fingerprint[12:]...)
	out = append(out, digest[:2]...)
	return append(out, mpi(new(big.Int).SetBytes(s))...)
}

func mpi(n *big.Int) []byte {
	return append([]byte{byte(n.BitLen() >> 8), byte(n.BitLen())}, n.Bytes()...)
}

// packet has a two-byte length in the old form.
func packet(tag byte, body []byte) []byte {
	return append([]byte{0x80 | tag<<2 | 1, byte(len(body) >> 8), byte(len(body))}, body...)
}
