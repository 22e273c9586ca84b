package strictjson

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type inner struct {
	X int `json:"x"`
}

type document struct {
	Schema string         `json:"schema"`
	Name   string         `json:"name"`
	Size   float64        `json:"size"`
	List   []inner        `json:"list"`
	Any    map[string]any `json:"any"`
}

func TestDecode(t *testing.T) {
	const in = "{\"schema\": \"s/v1\",\n\"name\": \"n\", \"list\": [{\"x\": 2}], \"any\": {\"n\": 9007199254740993}}\n \n"
	for _, numbers := range []bool{false, true} {
		want := document{Schema: "s/v1", Name: "n", List: []inner{{2}}, Any: map[string]any{"n": 9007199254740992.0}}
		if numbers {
			want.Any["n"] = json.Number("9007199254740993")
		}
		for _, schema := range []string{"", "s/v1"} {
			var got document
			f := Format{Schema: schema, Max: int64(len(in)), Numbers: numbers}
			if err := f.Decode([]byte(in), &got); err != nil {
				t.Errorf("Decode with schema %q: %v", schema, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Decode with schema %q, numbers %t (-want +got):\n%s", schema, numbers, diff)
			}
		}
	}
}

func TestDecodeErrors(t *testing.T) {
	const ok = `{"schema":"s/v1"`
	for _, tt := range []struct {
		name, in, want string
		plain          string // of a format without a schema; the same if empty
	}{
		{"nothing", "", "line 1: unexpected end of JSON input", ""},
		{"cut short", ok + ",\n\"name\": \"x\",\n", "line 2: unexpected end of JSON input", ""},
		{"no JSON", "{\n\n oops", "line 3: invalid character 'o' looking for beginning of object key string", ""},
		{"line break in a string", "{\n\"name\": \"a\n\"}", "line 2: invalid character '\\n' in string literal", ""},
		{"null", "null", `schema is "", this labctl reads "s/v1"`, "none"},
		{"a list", "[]", "line 1: json: cannot unmarshal array into Go value of type", ""},
		{"no schema", `{"name":"x"}`, `schema is "", this labctl reads "s/v1"`, "none"},
		{"newer schema with new fields", `{"schema":"s/v2","new":1}`, `schema is "s/v2", this labctl reads "s/v1"`, `json: unknown field "new"`},
		{"escapes in the schema", `{"schema":"\u001b[2J"}`, `schema is "\x1b[2J", this`, "none"},
		{"a long schema", `{"schema":"` + strings.Repeat("s", 100) + `"}`, `schema is "` + strings.Repeat("s", 40) + `", this`, "none"},
		{"schema of another type", `{"schema":1}`, "line 1: json: cannot unmarshal number into Go struct field", ""},
		{"unknown field", ok + `,"nmae":"x"}`, `json: unknown field "nmae"`, ""},
		{"unknown field deep inside", ok + `,"list":[{"y":1}]}`, `json: unknown field "y"`, ""},
		{"escapes in a field", ok + `,"\u001b[2J\n":1}`, `json: unknown field "\x1b[2J\n"`, ""},
		{"another type", ok + ",\n\n\"list\":\n[{\"x\": \"two\"}]}", "line 4: json: cannot unmarshal string into Go struct field", ""},
		{"number out of range", ok + ",\n\"size\": 1e999}", "line 2: json: cannot unmarshal number 1e999", ""},
		{"second document", ok + "}\n{}", "line 2: invalid character '{' after top-level value", ""},
		{"bytes after it", ok + "}\n\x00", "line 2: invalid character '\\x00' after top-level value", ""},
		{"too long", ok + "}" + strings.Repeat(" ", 1<<10), "more than 1 KB", ""},
	} {
		for _, schema := range []string{"s/v1", ""} {
			want := tt.want
			if schema == "" && tt.plain != "" {
				want = tt.plain
			}
			err := Format{Schema: schema, Max: 1 << 10}.Decode([]byte(tt.in), new(document))
			switch {
			case want == "none":
				if err != nil {
					t.Errorf("%s, schema %q: %v", tt.name, schema, err)
				}
			case err == nil || !strings.HasPrefix(err.Error(), want):
				t.Errorf("%s, schema %q: Decode = %v, want %q", tt.name, schema, err, want)
			case strings.ContainsAny(err.Error(), "\n\x1b"):
				t.Errorf("%s, schema %q: %q is not one clean line", tt.name, schema, err)
			}
		}
	}
}

func TestDecodeOlder(t *testing.T) {
	f := Format{Schema: "s/v3", Max: 1 << 10, Older: map[string]func(map[string]any){
		"s/v2": func(d map[string]any) { d["name"] = d["title"]; delete(d, "title") },
		"s/v1": func(d map[string]any) { d["name"] = "from v1" },
	}}
	for _, tt := range []struct {
		in, name string
		err      string
	}{
		{`{"schema":"s/v3","name":"n"}`, "n", ""},
		{`{"schema":"s/v2","title":"n","any":{"n":9007199254740993}}`, "n", ""},
		{`{"schema":"s/v1"}`, "from v1", ""},
		{`{"schema":"s/v3","title":"n"}`, "", `json: unknown field "title"`},
		{`{"schema":"s/v2","title":"n","new":1}`, "", `json: unknown field "new"`},
		{`{"schema":"s/v4"}`, "", `schema is "s/v4", this labctl reads "s/v1" and "s/v2" and "s/v3"`},
	} {
		var got document
		err := f.Decode([]byte(tt.in), &got)
		if tt.err == "" && (err != nil || got.Name != tt.name || got.Schema != "s/v3") || tt.err != "" && (err == nil || err.Error() != tt.err) {
			t.Errorf("Decode(%s) = %+v, %v; want name %q, error %q", tt.in, got, err, tt.name, tt.err)
		}
	}
}
