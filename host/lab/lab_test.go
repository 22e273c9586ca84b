package lab

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"

	"labctl/host/ui/table"
)

var update = flag.Bool("update", false, "rewrite golden files")

const folder = "../../labs"

// TestLabs loads the labs of this module as they are on disk.
func TestLabs(t *testing.T) {
	set, err := Load(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range set.Broken {
		t.Error(err)
	}
	if len(set.Labs) == 0 {
		t.Error("there are no labs")
	}
	for _, l := range set.Labs {
		if l.Exercise == nil {
			continue
		}
		if wrong, _ := filepath.Glob(filepath.Join(folder, filepath.Dir(l.File), Wrong, "*", "*.go")); len(wrong) < 3 {
			t.Errorf("%s: %d wrong programs; want at least three", l.File, len(wrong))
		}
		// Else a learner who has done nothing reads that most is done.
		if fails, all := len(l.Exercise.Fails[Exercise]), len(l.Exercise.Checks); 2*fails <= all {
			t.Errorf("%s: the skeleton fails %d of %d checks; want most", l.File, fails, all)
		}
	}
}

// Where an expression has a text in quotation marks that nobody reads: in a comparison, in
// a list that is compared with, or as what a method is asked for.
var (
	bothLanguages = regexp.MustCompile(`\bsay\(\s*"(?:[^"\\]|\\.)*",\s*"(?:[^"\\]|\\.)*"\)`)
	notShown      = regexp.MustCompile(`(?:[!=]= ?|\.\w+\()"(?:[^"\\]|\\.)*"|\bin \[[^\]]*\]`)
	quoted        = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	englishWords  = regexp.MustCompile(`\b[a-z]{2,}[:,;]? (?:[a-z]{2,}\b|%)| [a-z]{2,}[:,;]? |%[dsx] [a-z]{2,}\b|^"[a-z]{2,}: `)
)

// oneLanguage are the texts of an expression that are English in whatever language.
func oneLanguage(source string) (all []string) {
	shown := notShown.ReplaceAllString(bothLanguages.ReplaceAllString(source, "x"), "x")
	for _, s := range quoted.FindAllString(shown, -1) {
		if englishWords.MatchString(s) {
			all = append(all, s)
		}
	}
	return all
}

// TestLanguages: what a claim shows is in the reader's language.
func TestLanguages(t *testing.T) {
	set, err := Load(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range set.Labs {
		for _, c := range l.Claims {
			for _, s := range oneLanguage(c.Evidence) {
				t.Errorf("%s, evidence of %s: %s; want say(%s, \"…\") with the same in Korean", l.File, c.ID, s, s)
			}
		}
	}
	for source, want := range map[string]int{
		`"of %d tasks".format([1])`: 1,
		`a.name + " by " + b.name`:  1,
		`"refused: " + r.errno`:     1,
		`say("two tasks", "태스크 둘") + say(": not there", ": 없음")`:                        0,
		`rows.filter(r, r.name == "vm and sighand" || r.name in ["a file", "no file"])`: 0,
		`line.contains("no such file") ? "NR %d (%x)" : "fs=%d, EPERM"`:                 0,
	} {
		if got := oneLanguage(source); len(got) != want {
			t.Errorf("%s: found %q; want %d", source, got, want)
		}
	}
}

// TestPictures: each lesson has one picture, the same in both languages, that a terminal
// of 80 cells has room for.
func TestPictures(t *testing.T) {
	set, err := Load(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	picture := regexp.MustCompile("(?ms)^```text\n(.*?)^```$")
	for _, l := range set.Labs {
		drawn := map[string]string{}
		for _, name := range []string{"README.md", "README.ko.md"} {
			file := filepath.Join(folder, filepath.Dir(l.File), name)
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all := picture.FindAllStringSubmatch(string(b), -1)
			if len(all) != 1 {
				t.Errorf("%s: %d pictures (```text); want one", file, len(all))
				continue
			}
			drawn[name] = all[0][1]
			for line := range strings.Lines(all[0][1]) {
				if n := table.Width(strings.TrimRight(line, "\n")); n > 76 {
					t.Errorf("%s: a line of %d cells in the picture: %s", file, n, line)
				}
			}
		}
		if drawn["README.md"] != drawn["README.ko.md"] {
			t.Errorf("%s: the picture in README.ko.md is not that in README.md", filepath.Dir(l.File))
		}
	}
}

// JSONSchemaExtend lets a name stand for an event.
func (Event) JSONSchemaExtend(s *jsonschema.Schema) {
	whole := *s
	*s = jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, &whole}}
}

// JSONSchema says that an expression is a string.
func (Formula) JSONSchema() *jsonschema.Schema { return &jsonschema.Schema{Type: "string"} }

// JSONSchemaExtend lets a name that is the same in both languages stand alone.
func (Label) JSONSchemaExtend(s *jsonschema.Schema) {
	whole := *s
	*s = jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, &whole}}
}

// TestSchema holds the published JSON Schema of lab.yaml, which is for editors,
// to the types. What it cannot say, such as that an expression type-checks, Parse
// does.
func TestSchema(t *testing.T) {
	r := jsonschema.Reflector{ExpandedStruct: true, Anonymous: true}
	s := r.Reflect(&Lab{})
	s.Title, s.Description = "labctl lab", "lab.yaml of a labctl lab; docs/labs.md describes it"
	got, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	file := filepath.Join(folder, "lab.schema.json")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: go test ./host/lab -update writes it", file)
	}
}
