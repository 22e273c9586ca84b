package main

import (
	"testing"

	"labctl/host/trace/plan"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]size{"1": 1, "512K": 512 << 10, "64M": 64 << 20, "2g": 2 << 30, "4MB": 4 << 20} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("Set(%q) = %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "K", "-1", "0", "1.5M", "4Q", "MK", "9223372036854775807K", "0x10"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("Set(%q) = %d, want an error", text, s)
		}
	}
}

func TestEventFlags(t *testing.T) {
	var e eventFlags
	f := (*filterFlag)(&e)
	if err := f.Set("x"); err == nil {
		t.Error("a filter before any event: no error")
	}
	for _, step := range []error{e.Set("a:b,c"), f.Set("pid == 1"), e.Set("d"), f.Set("x > 2")} {
		if step != nil {
			t.Fatal(step)
		}
	}
	want := []plan.Event{{Name: "a:b"}, {Name: "c", Filter: "pid == 1"}, {Name: "d", Filter: "x > 2"}}
	for i, w := range want {
		if i >= len(e) || e[i] != w {
			t.Fatalf("events %v, want %v", e, want)
		}
	}
	for _, bad := range []string{"again", "", "a\nb"} {
		if err := f.Set(bad); err == nil {
			t.Errorf("filter %q: no error", bad)
		}
	}
}
