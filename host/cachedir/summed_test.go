package cachedir

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
)

type note struct {
	Name string         `json:"name"`
	Of   map[string]int `json:"of"`
}

func TestSummed(t *testing.T) {
	want := note{"tcg", map[string]int{"a": 1}}
	text, err := MarshalSummed(want)
	if err != nil {
		t.Fatal(err)
	}
	var got, plain note
	if err := UnmarshalSummed(text, &got); err != nil || got.Name != want.Name || got.Of["a"] != 1 {
		t.Errorf("read back %+v, %v; want %+v", got, err, want)
	}
	if err := json.Unmarshal(text, &plain); err != nil || plain.Name != want.Name {
		t.Errorf("read without its checksum: %+v, %v; want %+v", plain, err, want)
	}
	for i := range text {
		bad := bytes.Clone(text)
		bad[i] ^= 1
		if err := UnmarshalSummed(bad, new(note)); !errors.Is(err, ErrNoSeal) && !errors.Is(err, ErrChanged) {
			t.Errorf("with byte %d of %q changed: %v, want an error", i, text, err)
		}
	}
	old, _ := json.MarshalIndent(want, "", "  ")
	if err := UnmarshalSummed(old, new(note)); !errors.Is(err, ErrNoSeal) {
		t.Errorf("without a checksum: %v, want %v", err, ErrNoSeal)
	}
	if text, err := MarshalSummed(struct{}{}); err == nil {
		t.Errorf("an empty object gave %q, want an error", text)
	}
}

func FuzzUnmarshalSummed(f *testing.F) {
	text, err := MarshalSummed(note{"tcg", map[string]int{"a": 1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{}\n"))
	f.Add([]byte(",\n\t\"sum\": \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var n note
		if UnmarshalSummed(text, &n) != nil {
			return
		}
		again, err := MarshalSummed(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := UnmarshalSummed(again, new(note)); err != nil {
			t.Errorf("%q, written again as %q: %v", text, again, err)
		}
	})
}
