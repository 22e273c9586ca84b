package program

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindOfScript(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ name, text, err string }{
		{"a", "#!/bin/sh\necho\n", ""},
		{"b", "#! /usr/bin/env -S bash -e", ""},
		{"c.sh", "echo no first line\n", ""},
		{"empty.sh", "", ""},
		{"d", "#!/usr/bin/python3\n", "a script for /usr/bin/python3, but the guest has only a shell"},
		{"e", "#!/usr/bin/env perl\n", "a script for perl, "},
		{"f", "#!\n", "names no interpreter"},
		{"g", "#!\x1b[2J\n", "a script for "},
		{"h", "#!/bin/sh\n\x00", "it contains zero bytes"},
		{"i", "echo no name of a script\n", "not an ELF program"},
		{"j.sh", "\x7fELF and so on", "not an ELF program"},
	} {
		file := filepath.Join(dir, tt.name)
		if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := Find(t.Context(), file, "arm64")
		switch {
		case tt.err == "" && (err != nil || !p.Script || p.File != file || p.Argv0 != "/run/labctl/"+tt.name):
			t.Errorf("Find(%s) = %+v, %v; want the script", tt.name, p, err)
		case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || strings.ContainsAny(err.Error(), "\x1b\n")):
			t.Errorf("Find(%s) = %v; want an error with %q", tt.name, err, tt.err)
		}
	}

	// With FindScript the name does not matter.
	if p, err := FindScript(filepath.Join(dir, "i")); err != nil || !p.Script {
		t.Errorf("FindScript = %+v, %v; want a script", p, err)
	}
	long := filepath.Join(dir, "long.sh")
	if err := os.WriteFile(long, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(long, maxScript+1); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{long: "a script of 8388609 bytes", dir: "not a file", filepath.Join(dir, "nosuch"): "no such file"} {
		if _, err := FindScript(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("FindScript(%s) = %v; want an error with %q", name, err, want)
		}
	}
}
