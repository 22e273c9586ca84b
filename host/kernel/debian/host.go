package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"labctl/host/outcome"
)

// host is the part of the host's apt configuration that a pull uses.
type host struct {
	acquire []option
	targets []map[string]string // `apt-get indextargets`
	entries []entry             // the sources files
	// Where the host keeps keys that apply to all sources.
	trusted, trustedParts string
	exists                func(path string) bool
}

type option struct{ key, value string }

// entry is one source of a sources file: a line of the one-line form, or one
// URI of a deb822 stanza (sources.list(5)).
type entry struct {
	uri      string
	suites   []string
	keyrings []string // Signed-By as absolute paths
	keyBlock string   // Signed-By as an armored key in place
}

// origin is the mirror to download from and the keys to trust.
type origin struct {
	uri string
	entryKeys
}

type entryKeys struct {
	keyrings []string
	keyBlock string
}

// debianKeyring is the keyring installed by the package debian-archive-keyring.
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// readHost reads the settings of the host's apt. It changes nothing.
func readHost(ctx context.Context) (_ *host, err error) {
	defer outcome.OrElse(outcome.HostLacks, &err)
	ask := func(prog string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, prog, args...)
		cmd.Env = cleanHostEnv()
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := run(ctx, cmd, nil); err != nil {
			return "", fmt.Errorf("read the host's apt settings: %w", err)
		}
		return out.String(), nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, errNoApt("apt-get")
	}
	dump, err := ask("apt-config", "dump")
	if err != nil {
		return nil, err
	}
	shell, err := ask("apt-config", "shell",
		"LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d",
		"TRUSTED", "Dir::Etc::trusted/f", "TRUSTEDPARTS", "Dir::Etc::trustedparts/d")
	if err != nil {
		return nil, err
	}
	paths := parseShell(shell)
	h := &host{acquire: acquireOptions(dump), trusted: paths["TRUSTED"], trustedParts: paths["TRUSTEDPARTS"], exists: fileExists}
	if targets, err := ask("apt-get", "indextargets"); err == nil {
		h.targets = parseControl(targets)
	} else if ctx.Err() != nil {
		return nil, err
	}
	h.entries = readSources(paths["LIST"], paths["PARTS"])
	return h, nil
}

// cleanHostEnv keeps APT_CONFIG: it is part of the host's settings.
func cleanHostEnv() []string {
	env := cleanEnv()
	if c := os.Getenv("APT_CONFIG"); c != "" {
		env = append(env, "APT_CONFIG="+c)
	}
	return env
}

// parseShell parses the NAME='value' lines of `apt-config shell`.
func parseShell(out string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(out) {
		if name, val, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			m[name] = strings.Trim(val, "'")
		}
	}
	return m
}

// acquireOptions selects the settings in `apt-config dump` that control how the
// host downloads: proxies, timeouts, Check-Valid-Until for frozen mirrors. It
// leaves out the choice of indexes and anything that would weaken verification.
func acquireOptions(dump string) []option {
	skip := []string{
		"Acquire::IndexTargets", "Acquire::Languages", "Acquire::Changelogs", "Acquire::cdrom",
		"Acquire::AllowInsecureRepositories", "Acquire::AllowWeakRepositories",
		"Acquire::AllowDowngradeToInsecureRepositories", "Acquire::gpgv",
	}
	var out []option
	for line := range strings.Lines(dump) {
		key, val, ok := strings.Cut(strings.TrimSpace(line), " \"")
		val, closed := strings.CutSuffix(val, "\";")
		if !ok || !closed || val == "" || strings.ContainsAny(val, "\"\n") || !strings.HasPrefix(key, "Acquire::") {
			continue
		}
		if slices.ContainsFunc(skip, func(s string) bool { return key == s || strings.HasPrefix(key, s+"::") }) {
			continue
		}
		out = append(out, option{key, val})
	}
	return out
}

// origin selects the mirror and the keys. override replaces the mirror, but
// signatures are still verified.
func (h *host) origin(override string) (origin, error) {
	o := origin{uri: override}
	if o.uri == "" {
		o.uri = h.mirror()
	}
	if o.uri == "" {
		return o, fmt.Errorf("%w: its apt has no Debian mirror among its sources; set LABCTL_DEBIAN_MIRROR to the URL of one, or use an image file: --kernel ./bzImage", ErrHostLacks)
	}
	if strings.ContainsAny(o.uri, " \t\n\"[]") || !strings.Contains(o.uri, ":") {
		return o, outcome.Inputf("mirror %q: want a URL such as scheme://host/debian", o.uri)
	}
	// The keys that the host requires for this mirror, else for any Debian mirror.
	for _, same := range []bool{true, false} {
		for _, e := range h.entries {
			if !isDebian(e) || (same && trimURI(e.uri) != trimURI(o.uri)) {
				continue
			}
			if e.keyBlock != "" || len(e.keyrings) > 0 {
				o.entryKeys = entryKeys{e.keyrings, e.keyBlock}
				return o, nil
			}
		}
	}
	if h.exists(debianKeyring) {
		o.keyrings = []string{debianKeyring}
		return o, nil
	}
	if h.trusted == "" && h.trustedParts == "" {
		return o, fmt.Errorf("%w: no keyring to check Debian's signatures with; install the package debian-archive-keyring", ErrHostLacks)
	}
	return o, nil // the host's trusted parts
}

// mirror returns the URL of the host's Debian archive, "" if it has none. The
// downloaded indexes name their origin; if no lists were ever fetched, the archive
// is recognised by its suite names.
func (h *host) mirror() string {
	for _, t := range h.targets {
		// Security, backports and ports have labels of their own and other paths.
		if t["Origin"] == "Debian" && t["Label"] == "Debian" && t["Created-By"] == "Packages" {
			if uri := firstOf(t["Repo-URI"], t["Site"]); uri != "" {
				return uri
			}
		}
	}
	for _, e := range h.entries {
		if isDebian(e) {
			return e.uri
		}
	}
	return ""
}

func firstOf(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}

func trimURI(s string) string { return strings.TrimRight(s, "/") }

// suiteNames are the suites of Debian's main archive; derivatives use other names.
var suiteNames = []string{
	"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid", "experimental",
	"buster", "bullseye", "bookworm", "trixie", "forky", "duke",
}

// isDebian reports whether a source is Debian's main archive, judging by its
// suites.
func isDebian(e entry) bool {
	return slices.ContainsFunc(e.suites, func(s string) bool { return slices.Contains(suiteNames, s) })
}

// readSources reads the host's sources files. Unreadable files are skipped: they
// are only one way to find the mirror.
func readSources(list, parts string) []entry {
	files := []string{list}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, _ := filepath.Glob(filepath.Join(parts, pattern))
		files = append(files, found...)
	}
	var out []entry
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if strings.HasSuffix(f, ".sources") {
			out = append(out, parseDeb822(string(data))...)
		} else {
			out = append(out, parseOneLine(string(data))...)
		}
	}
	return out
}

// parseDeb822 parses a .sources file.
func parseDeb822(text string) []entry {
	var out []entry
	for _, raw := range parseControl(text) {
		s := map[string]string{}
		for k, v := range raw { // field names are case-insensitive
			s[strings.ToLower(k)] = v
		}
		if !slices.Contains(strings.Fields(s["types"]), "deb") || slices.Contains([]string{"no", "false", "off", "0"}, strings.ToLower(s["enabled"])) {
			continue
		}
		e := entry{suites: strings.Fields(s["suites"])}
		if key := s["signed-by"]; strings.Contains(key, "-----BEGIN PGP PUBLIC KEY BLOCK-----") {
			e.keyBlock = strings.TrimSpace(key) + "\n"
		} else {
			e.keyrings = keyPaths(key)
		}
		for _, uri := range strings.Fields(s["uris"]) {
			e := e
			e.uri = uri
			out = append(out, e)
		}
	}
	return out
}

// parseOneLine parses a sources.list: deb [option=value …] URI suite component….
func parseOneLine(text string) []entry {
	var out []entry
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || (rest[0] != ' ' && rest[0] != '\t') {
			continue
		}
		var e entry
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			options, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				continue
			}
			for _, o := range strings.Fields(options) {
				if v, ok := strings.CutPrefix(o, "signed-by="); ok {
					e.keyrings = keyPaths(v)
				}
			}
			rest = after
		}
		f := strings.Fields(rest)
		if len(f) < 2 {
			continue
		}
		e.uri, e.suites = f[0], f[1:2]
		out = append(out, e)
	}
	return out
}

// keyPaths returns the paths in a Signed-By value, which may also contain
// fingerprints.
func keyPaths(s string) []string {
	var out []string
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\t' }) {
		if strings.HasPrefix(f, "/") {
			out = append(out, f)
		}
	}
	return out
}
