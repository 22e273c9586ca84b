package render

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"labctl/host/matrix"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/text"
)

// The elements of JUnit's XML in the order and with the attributes that the
// schemas of Jenkins allow (xunit-plugin, junit-10.xsd); GitLab and the viewers
// for GitHub read a part of them.
type (
	xmlSuites struct {
		XMLName  xml.Name   `xml:"testsuites"`
		Name     string     `xml:"name,attr"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Errors   int        `xml:"errors,attr"`
		Time     string     `xml:"time,attr"`
		Suites   []xmlSuite `xml:"testsuite"`
	}
	xmlSuite struct {
		Name       string        `xml:"name,attr"`
		Tests      int           `xml:"tests,attr"`
		Failures   int           `xml:"failures,attr"`
		Errors     int           `xml:"errors,attr"`
		Skipped    int           `xml:"skipped,attr"`
		Time       string        `xml:"time,attr"`
		Timestamp  string        `xml:"timestamp,attr,omitempty"`
		Properties []xmlProperty `xml:"properties>property,omitempty"`
		Cases      []xmlCase     `xml:"testcase"`
	}
	xmlProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	xmlCase struct {
		Name      string     `xml:"name,attr"`
		Class     string     `xml:"classname,attr"`
		Time      string     `xml:"time,attr"`
		Skipped   *xmlDefect `xml:"skipped"`
		Failure   *xmlDefect `xml:"failure"`
		Error     *xmlDefect `xml:"error"`
		SystemOut *xmlText   `xml:"system-out"`
		SystemErr *xmlText   `xml:"system-err"`
	}
	xmlDefect struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",cdata"`
	}
	xmlText struct {
		Text string `xml:",cdata"`
	}
)

// JUnit writes results as JUnit's XML: a suite for each kernel on each target, a
// test case for each work there. Checks are lines of their case's text, not cases:
// viewers count and compare cases, and a machine that died has no checks. A case that is
// not well names files of its record in dir, if that is not empty.
func JUnit(w io.Writer, r *matrix.Results, dir string) error {
	s := newSheet(entries(r))
	out := xmlSuites{Name: xmlWord(cmp.Or(r.Name, "labctl matrix")), Time: xmlSeconds(r.Seconds)}
	for _, c := range s.columns {
		suite := xmlSuite{Name: xmlWord(c.kernel + "/" + c.target)}
		seconds := 0.0
		for _, o := range s.of[c] {
			suite.Cases = append(suite.Cases, xmlCaseOf(o, suite.Name, dir))
			seconds += o.Seconds
			switch tc := suite.Cases[len(suite.Cases)-1]; {
			case tc.Failure != nil:
				suite.Failures++
			case tc.Error != nil:
				suite.Errors++
			case tc.Skipped != nil:
				suite.Skipped++
			}
			suite.describe(o)
		}
		suite.Tests, suite.Time = len(suite.Cases), xmlSeconds(seconds)
		out.Tests += suite.Tests
		out.Failures += suite.Failures
		out.Errors += suite.Errors
		out.Suites = append(out.Suites, suite)
	}
	b, err := xml.MarshalIndent(out, "", "  ")
	if err != nil {
		return fmt.Errorf("write a matrix as JUnit XML: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, b)
	return err
}

// describe takes what a suite says of its machine from the first cell that knows.
func (s *xmlSuite) describe(o *entry) {
	if s.Timestamp == "" && !o.Started.IsZero() {
		s.Timestamp = o.Started.UTC().Format("2006-01-02T15:04:05")
	}
	if len(s.Properties) > 0 || o.Result.Kernel.Release == "" {
		return
	}
	k := o.Result.Kernel
	for _, p := range []xmlProperty{{"release", k.Release}, {"source", k.Source}, {"version", k.Version}, {"ref", k.Ref}, {"sha256", k.SHA256}} {
		if p.Value != "" {
			s.Properties = append(s.Properties, xmlProperty{p.Name, xmlWord(p.Value)})
		}
	}
}

func xmlCaseOf(o *entry, class, dir string) xmlCase {
	tc := xmlCase{Name: xmlWord(workName(o.Cell.Work)), Class: class, Time: xmlSeconds(o.Seconds)}
	defect := &xmlDefect{Type: xmlWord(o.status()), Message: xmlWord(o.reason())}
	switch {
	case o.Status == outcome.NotApplicable:
		tc.Skipped = defect
	case o.broken():
		tc.Error = defect
	case o.Status.Failed():
		tc.Failure = defect
	}
	// GitLab shows the text alone, Jenkins the message first.
	said := []string{o.reason()}
	for _, c := range o.failing() {
		said = append(said, lines(c)...)
	}
	if t := o.tail(); t != "" {
		said = append(said, "output:", t)
	}
	defect.Text = xmlClean(strings.Join(said, "\n") + "\n")
	out := xmlClean(systemOut(o))
	if tc.Failure != nil || tc.Error != nil {
		out = attachments(o, dir) + out
	}
	if out != "" {
		tc.SystemOut = &xmlText{"\n" + out}
	}
	if r := o.reports(); len(r) > 0 {
		tc.SystemErr = &xmlText{xmlClean("\n" + strings.Join(r, "\n") + "\n")}
	}
	return tc
}

// attached are the files of a record that a case refers to: GitLab shows the first one.
var attached = []string{record.PageFile, record.ConsoleFile, record.TasksFile}

// attachments are lines that refer to files, as GitLab and the plugin of Jenkins for JUnit
// attachments read them: paths from where labctl was started, which in CI is the project.
func attachments(o *entry, dir string) string {
	if dir == "" || o.Record == "" || !filepath.IsLocal(o.Record) {
		return ""
	}
	var b strings.Builder
	for _, name := range attached {
		file := filepath.Join(dir, o.Record, name)
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() && file == xmlWord(file) && !strings.ContainsAny(file, "|]") {
			fmt.Fprintf(&b, "%s%s]]\n", attachment, file)
		}
	}
	return b.String()
}

// attachment is how a line begins that has a CI system take a file of its own host. What a
// guest prints must not.
const attachment = "[[ATTACHMENT|"

// systemOut is what else is known of a cell.
func systemOut(o *entry) string {
	var b strings.Builder
	if o.Flaky {
		fmt.Fprintf(&b, "flaky: %s\n", flakyLine(o))
	}
	if o.Record != "" {
		fmt.Fprintf(&b, "record: %s\n", text.Line(o.Record, maxReason))
	}
	for _, part := range []struct {
		title string
		list  []matrix.Check
	}{{"checks", o.Checks}, {"claims", o.Claims}} {
		for i, c := range part.list {
			if i == 0 {
				fmt.Fprintf(&b, "%s:\n", part.title)
			}
			for _, l := range lines(c) {
				fmt.Fprintf(&b, "  %s\n", l)
			}
			if b.Len() > maxSystemOut {
				fmt.Fprintf(&b, "  … and %d more\n", len(part.list)-i-1)
				break
			}
		}
	}
	if t := o.tail(); t != "" && !o.Status.Failed() {
		fmt.Fprintf(&b, "output:\n%s\n", t)
	}
	return b.String()
}

// maxSystemOut bounds what is said of checks and claims in one case, in bytes.
const maxSystemOut = 64 << 10

func xmlSeconds(s float64) string {
	return fmt.Sprintf("%.3f", max(0, s))
}

func xmlWord(s string) string { return xmlClean(text.Line(s, maxReason)) }

// xmlClean replaces what XML 1.0 cannot hold (section 2.2, Char) and Clean lets
// through, and what would name a file.
func xmlClean(s string) string {
	return strings.ReplaceAll(strings.Map(func(r rune) rune {
		if r == '\uFFFE' || r == '\uFFFF' {
			return '\uFFFD'
		}
		return r
	}, text.Clean(s)), attachment, "[ [ATTACHMENT|")
}
