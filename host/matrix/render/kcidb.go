package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"labctl/host/arch"
	"labctl/host/lab/judge"
	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/targets"
	"labctl/host/text"
)

// The objects of KCIDB's schema 5.0 (github.com/kernelci/kcidb-io), as far as labctl
// knows what to put in them.
type (
	kcidbReport struct {
		Version   kcidbVersion    `json:"version"`
		Checkouts []kcidbCheckout `json:"checkouts"`
		Builds    []kcidbBuild    `json:"builds"`
		Tests     []kcidbTest     `json:"tests"`
	}
	kcidbVersion struct {
		Major int `json:"major"`
		Minor int `json:"minor"`
	}
	kcidbCheckout struct {
		ID       string    `json:"id"`
		Origin   string    `json:"origin"`
		TreeName string    `json:"tree_name,omitempty"`
		Comment  string    `json:"comment,omitempty"`
		Misc     kcidbMisc `json:"misc,omitempty"`
	}
	kcidbBuild struct {
		ID           string    `json:"id"`
		Origin       string    `json:"origin"`
		CheckoutID   string    `json:"checkout_id"`
		Architecture string    `json:"architecture,omitempty"`
		Comment      string    `json:"comment,omitempty"`
		Status       string    `json:"status,omitempty"`
		Misc         kcidbMisc `json:"misc,omitempty"`
	}
	kcidbTest struct {
		ID          string            `json:"id"`
		Origin      string            `json:"origin"`
		BuildID     string            `json:"build_id"`
		Path        string            `json:"path"`
		Comment     string            `json:"comment,omitempty"`
		Status      string            `json:"status"`
		StartTime   string            `json:"start_time,omitempty"`
		Duration    *float64          `json:"duration,omitempty"`
		LogURL      string            `json:"log_url,omitempty"`
		LogExcerpt  string            `json:"log_excerpt,omitempty"`
		OutputFiles []kcidbFile       `json:"output_files,omitempty"`
		Environment *kcidbEnvironment `json:"environment,omitempty"`
		Misc        kcidbMisc         `json:"misc,omitempty"`
	}
	kcidbEnvironment struct {
		Comment string    `json:"comment"`
		Misc    kcidbMisc `json:"misc,omitempty"`
	}
	kcidbFile struct {
		Name string `json:"name"`
		URL  string `json:"url"`
	}
	kcidbMisc map[string]any
)

// maxExcerpt is the schema's bound on a log_excerpt, in characters; it is kept in bytes.
const maxExcerpt = 16384

// kcidbOrigin is what the schema wants of an origin, and of the part of an id before
// its colon.
var kcidbOrigin = regexp.MustCompile(`^[a-z0-9_]+$`)

// kcidbFiles are the files of a record that a report refers to, the log first.
var kcidbFiles = []string{record.ConsoleFile, record.RunFile, record.PageFile}

// KCIDB writes results as a report for KCIDB, the kernel CI systems' common database: a
// checkout and a build for each kernel that was run, and a test for each cell and for
// each check and claim of a lab. A claim that is refuted says something of a text and
// nothing of the kernel: its test is done, neither passed nor failed.
func KCIDB(w io.Writer, r *matrix.Results, o Options) error {
	if !kcidbOrigin.MatchString(o.Origin) {
		return outcome.Inputf("a report for KCIDB needs an origin, the name that KCIDB knows the system by, of small letters, digits and _; got %q", text.Line(o.Origin, 40))
	}
	base, err := url.Parse(o.URL)
	if err != nil || o.URL != "" && (base.Host == "" || base.Scheme != "https" && base.Scheme != "http") {
		return outcome.Inputf("a report's URL begins with https:// or http://; got %q", text.Line(o.URL, 80))
	}
	k := &kcidb{origin: o.Origin, base: base, dir: o.Dir, seen: map[string]bool{}}
	k.report.Version = kcidbVersion{Major: 5}
	k.report.Checkouts, k.report.Builds, k.report.Tests = []kcidbCheckout{}, []kcidbBuild{}, []kcidbTest{}
	all := entries(r)
	for i := range all {
		k.add(r, &all[i])
	}
	b, err := json.MarshalIndent(k.report, "", "  ")
	if err != nil {
		return fmt.Errorf("write a matrix for KCIDB: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

type kcidb struct {
	origin string
	base   *url.URL
	dir    string
	seen   map[string]bool // ids of checkouts and builds
	report kcidbReport
}

// id is an object's: the same for the same thing, whoever makes the report.
func (k *kcidb) id(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return k.origin + ":labctl-" + hex.EncodeToString(sum[:12])
}

// add adds a cell's checkout and build, if they are new, and its tests.
func (k *kcidb) add(r *matrix.Results, o *entry) {
	t, _ := targets.Find(o.Cell.Target) // another labctl's may be any
	uname := ""
	if row, ok := arch.Find(t.Arch); ok {
		uname = row.Uname
	}
	kern := o.Result.Kernel
	booted := kern.Release != ""
	source, version := kern.Source, kern.Version
	if !booted { // all that is known is what was asked for
		source, version = "", ""
	}
	name := strings.Join(strings.Fields(strings.Join([]string{line(kern.Release), line(version), line(kern.Ref)}, " ")), " ")
	if !booted {
		name = line(o.Cell.Kernel)
	}
	checkout := kcidbCheckout{
		ID: k.id("checkout", source, version, kern.Release, cmp.Or(kern.Ref, o.Cell.Kernel)), Origin: k.origin,
		TreeName: line(source), Comment: name,
	}
	if !k.seen[checkout.ID] {
		k.seen[checkout.ID] = true
		k.report.Checkouts = append(k.report.Checkouts, checkout)
	}
	build := kcidbBuild{
		ID: k.id("build", checkout.ID, t.Arch, kern.SHA256), Origin: k.origin, CheckoutID: checkout.ID,
		Architecture: uname, Comment: name,
	}
	if booted {
		build.Status = "PASS" // there is an image, and it was started
		build.Misc = kcidbMisc{"release": line(kern.Release), "image_sha256": line(kern.SHA256)}
	}
	if !k.seen[build.ID] {
		k.seen[build.ID] = true
		k.report.Builds = append(k.report.Builds, build)
	}

	run := r.Started.UTC().Format(time.RFC3339Nano)
	test := kcidbTest{
		ID: k.id("test", run, r.Labctl, key(o.Cell)), Origin: k.origin, BuildID: build.ID,
		Path: kcidbPath("labctl", o.Cell.Work.Kind, o.Cell.Work.Name), Comment: line(workName(o.Cell.Work)), Status: kcidbStatus(o),
		LogExcerpt:  k.excerpt(o),
		Environment: &kcidbEnvironment{Comment: line("QEMU, " + o.Cell.Target), Misc: kcidbMisc{"target": line(o.Cell.Target), "labctl": line(r.Labctl)}},
		Misc:        kcidbMisc{"outcome": o.status(), "tries": o.Tries, "flaky": o.Flaky, "cpu_seconds": o.CPUSeconds},
	}
	if !o.absent {
		test.StartTime, test.Duration = o.Started.UTC().Format(time.RFC3339Nano), &o.Seconds
	}
	test.OutputFiles, test.LogURL = k.files(o)
	k.report.Tests = append(k.report.Tests, test)
	for _, part := range []struct {
		kind string
		list []matrix.Check
	}{{"check", o.Checks}, {"claim", o.Claims}} {
		for _, c := range part.list {
			sub := kcidbTest{
				ID: k.id("test", run, r.Labctl, key(o.Cell), part.kind, c.ID), Origin: k.origin, BuildID: build.ID,
				Path: test.Path + "." + kcidbPath(part.kind, c.ID), Comment: line(c.Text), Status: kcidbVerdict(c.Verdict),
				StartTime: test.StartTime, Environment: test.Environment, Misc: kcidbMisc{"verdict": line(c.Verdict)},
			}
			if c.Seen != "" {
				sub.LogExcerpt = text.Line(c.Seen, maxSeen)
			}
			k.report.Tests = append(k.report.Tests, sub)
		}
	}
}

// excerpt is what a cell's end is to be understood by.
func (k *kcidb) excerpt(o *entry) string {
	var said []string
	if o.Status != outcome.OK {
		said = append(said, o.reason())
	}
	said = append(said, o.reports()...)
	if t := o.tail(); t != "" {
		said = append(said, t)
	}
	s := strings.Join(said, "\n")
	if len(s) > maxExcerpt {
		s = strings.ToValidUTF8(s[:maxExcerpt], "")
	}
	return s
}

// files are those of a cell's record that are there, by their URLs.
func (k *kcidb) files(o *entry) (files []kcidbFile, log string) {
	if k.base.Host == "" || o.Record == "" || !clean(o.Record) {
		return nil, ""
	}
	for _, name := range kcidbFiles {
		if fi, err := os.Lstat(filepath.Join(k.dir, o.Record, name)); err != nil || !fi.Mode().IsRegular() {
			continue
		}
		at := k.base.JoinPath(path.Join(o.Record, name)).String()
		if name == kcidbFiles[0] {
			log = at
			continue
		}
		files = append(files, kcidbFile{name, at})
	}
	return files, log
}

func line(s string) string { return text.Line(s, maxReason) }

var notInPath = regexp.MustCompile(`[^a-zA-Z0-9_-]+`)

// kcidbPath is a path through the tree of tests, whose words have letters, digits, -
// and _.
func kcidbPath(words ...string) string {
	var path []string
	for _, w := range words {
		w = strings.Trim(notInPath.ReplaceAllString(text.Line(w, 100), "_"), "_")
		path = append(path, cmp.Or(w, "_"))
	}
	return strings.Join(path, ".")
}

// kcidbStatus is a cell's outcome in the schema's words: FAIL is the kernel's or the
// test's verdict, ERROR a test that did not come to one, MISS one that was not run.
func kcidbStatus(o *entry) string {
	switch o.Status {
	case outcome.OK:
		return "PASS"
	case outcome.NotApplicable:
		return "SKIP"
	case outcome.CheckFailed, outcome.KernelReported, outcome.GuestCrashed:
		return "FAIL"
	case outcome.Tampered, outcome.CannotRun, outcome.Deadline:
		return "ERROR"
	}
	return "MISS"
}

func kcidbVerdict(verdict string) string {
	switch judge.Verdict(verdict) {
	case judge.Pass:
		return "PASS"
	case judge.Fail:
		return "FAIL"
	case judge.NotApplicable, judge.NotEnforced:
		return "SKIP"
	case judge.Confirmed, judge.Refuted, judge.Depends:
		return "DONE"
	}
	return "ERROR"
}
