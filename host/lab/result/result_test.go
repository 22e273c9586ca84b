package result

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() *Result {
	return &Result{
		Schema: Schema, Lab: "P1", SHA256: "ab", Kernel: Kernel{Arch: "arm64", Config: map[string]string{"KCMP": "y"}},
		Steps: []*Step{{
			ID: "fork", Argv: []string{"/labctl/labprobe", "fork"}, PID: 5,
			Data:      map[string]any{"n": int64(1) << 60, "half": 0.5, "list": []any{int64(1), map[string]any{"a": int64(2)}}},
			Creations: []Creation{{Flags: -1, Stack: Stack{Frames: []Frame{{Name: "kernel_clone", Symbol: "kernel_clone.isra.0", Kind: "function"}}}}},
		}},
	}
}

func TestRoundTrip(t *testing.T) {
	b, err := Encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), File)
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(), got); diff != "" {
		t.Errorf("Read(Encode(r)) differs (-want +got):\n%s", diff)
	}
}

func TestDecodeErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{`{`, "unexpected end"},
		{`{"schema":"labctl/run/v1"}`, "this labctl reads"},
		{`{"schema":"labctl/lab/v1","more":1}`, "unknown field"},
		{`{"schema":"labctl/lab/v1"} {}`, "after"},
		{`{"schema":"labctl/lab/v1","steps":[null]}`, "without an id"},
		{`{"schema":"labctl/lab/v1","steps":[{"id":"a"},{"id":"a"}]}`, "another one's"},
	} {
		if _, err := Decode([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Decode(%s) = %v; want %q", tt.text, err, tt.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := Encode(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":"labctl/lab/v1","steps":[{"id":"a","data":{"x":1e999}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		for _, s := range r.Steps {
			for _, c := range s.Creations {
				p := c.Stack.Print()
				_ = p.TRACE32()
			}
		}
	})
}
