package render

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"labctl/host/golden"
	"labctl/host/outcome"
)

// kcidbRules is what schema 5.0 of KCIDB says of the objects that labctl writes, in
// labctl's own words: of each property the pattern of its value, "number" and "object"
// being those. Properties that are not here may not be there.
var kcidbRules = map[string]struct {
	required []string
	values   map[string]string
}{
	"checkouts": {[]string{"id", "origin"}, map[string]string{
		"id": `^[a-z0-9_]+:[^\x00]*$`, "origin": `^[a-z0-9_]+$`, "tree_name": `^[^\x00]*$`, "comment": `^[^\x00]*$`, "misc": "object",
	}},
	"builds": {[]string{"id", "origin", "checkout_id"}, map[string]string{
		"id": `^[a-z0-9_]+:[^\x00]*$`, "origin": `^[a-z0-9_]+$`, "checkout_id": `^[a-z0-9_]+:[^\x00]*$`,
		"architecture": `^[a-z0-9_]*$`, "comment": `^[^\x00]*$`, "status": `^(FAIL|ERROR|MISS|PASS|DONE|SKIP)$`, "misc": "object",
	}},
	"tests": {[]string{"id", "origin", "build_id"}, map[string]string{
		"id": `^[a-z0-9_]+:[^\x00]*$`, "origin": `^[a-z0-9_]+$`, "build_id": `^[a-z0-9_]+:[^\x00]*$`,
		"path": `^([a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*)?$`, "comment": `^[^\x00]*$`, "status": `^(FAIL|ERROR|MISS|PASS|DONE|SKIP)$`,
		"start_time": `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$`, "duration": "number", "log_excerpt": `^[^\x00]*$`,
		"log_url": `^https?://[^ ]+$`, "output_files": "files", "environment": "object", "misc": "object",
	}},
}

// checkKCIDB holds a report against the rules, and its objects against each other.
func checkKCIDB(t *testing.T, text string) map[string][]map[string]any {
	t.Helper()
	var doc map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(doc)); !slices.Equal(got, []string{"builds", "checkouts", "tests", "version"}) {
		t.Errorf("a report has %q", got)
	}
	var version map[string]int
	if err := json.Unmarshal(doc["version"], &version); err != nil || version["major"] != 5 || version["minor"] != 0 || len(version) != 2 {
		t.Errorf("version %s", doc["version"])
	}
	ids := map[string]map[string]bool{}
	all := map[string][]map[string]any{}
	for _, kind := range []string{"checkouts", "builds", "tests"} {
		rules := kcidbRules[kind]
		var objects []map[string]any
		if err := json.Unmarshal(doc[kind], &objects); err != nil || objects == nil {
			t.Fatalf("%s: %v", kind, err)
		}
		all[kind], ids[kind] = objects, map[string]bool{}
		for _, o := range objects {
			for _, name := range rules.required {
				if _, ok := o[name]; !ok {
					t.Errorf("%s: %v lacks %s", kind, o, name)
				}
			}
			for name, v := range o {
				rule, ok := rules.values[name]
				s, isText := v.(string)
				switch {
				case !ok:
					t.Errorf("%s: %s is no property of the schema", kind, name)
				case rule == "number":
					_, ok = v.(float64)
				case rule == "object":
					_, ok = v.(map[string]any)
				case rule == "files":
					_, ok = v.([]any)
				default:
					ok = isText && regexp.MustCompile(rule).MatchString(s)
				}
				if !ok {
					t.Errorf("%s: %s is %v; want %s", kind, name, v, rule)
				}
				if len(s) > 16384 {
					t.Errorf("%s: %s has %d bytes", kind, name, len(s))
				}
				if isText && (strings.ContainsRune(s, '\x1b') || strings.ContainsRune(s, '\u202e')) {
					t.Errorf("%s: %s is not clean: %q", kind, name, s)
				}
			}
			id := o["id"].(string)
			if ids[kind][id] {
				t.Errorf("%s: %s is there twice", kind, id)
			}
			ids[kind][id] = true
			for ref, of := range map[string]string{"checkout_id": "checkouts", "build_id": "builds"} {
				if to, ok := o[ref].(string); ok && !ids[of][to] {
					t.Errorf("%s: %s %s is not in the report", kind, ref, to)
				}
			}
		}
	}
	return all
}

func TestKCIDB(t *testing.T) {
	dir := t.TempDir()
	r := results()
	at := filepath.Join(dir, r.Results[2].Record)
	if err := os.MkdirAll(at, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"console.log", "run.json"} {
		if err := os.WriteFile(filepath.Join(at, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(at, "report.html")); err != nil {
		t.Fatal(err)
	}
	text := write(t, "kcidb", r, Options{Origin: "my_lab", Dir: dir, URL: "https://ci.example/42/"})
	golden.Check(t, filepath.Join("testdata", "kcidb.json"), text)
	all := checkKCIDB(t, text)
	status := map[string]int{}
	for _, o := range all["tests"] {
		status[o["status"].(string)]++
	}
	for _, want := range []string{"PASS", "FAIL", "SKIP", "MISS", "DONE"} {
		if status[want] == 0 {
			t.Errorf("no test is %s: %v", want, status)
		}
	}
	if got := strings.Count(text, "https://ci.example/42/5.10/amd64/prog/"); got != 2 || strings.Contains(text, "report.html") {
		t.Errorf("%d files of the record are referred to, want its log and run.json, and no link", got)
	}

	// Another run's tests are others; the same kernel is the same build.
	again := results()
	again.Started = again.Started.Add(time.Hour)
	other := checkKCIDB(t, write(t, "kcidb", again, Options{Origin: "my_lab"}))
	if all["builds"][0]["id"] != other["builds"][0]["id"] || all["tests"][0]["id"] == other["tests"][0]["id"] {
		t.Error("ids: want builds to stay and tests to change from run to run")
	}

	for _, o := range []Options{{}, {Origin: "My-Lab"}, {Origin: "a:b"}, {Origin: "x", URL: "ci.example"}, {Origin: "x", URL: "file:///etc"}, {Origin: "x", URL: "http://\x1b"}} {
		var b strings.Builder
		if err := Write(&b, "kcidb", r, o); outcome.Of(err) != outcome.BadInput || b.Len() > 0 || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
