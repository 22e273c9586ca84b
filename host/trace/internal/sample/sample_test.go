package sample

import (
	"bytes"
	"strings"
	"testing"

	"labctl/host/arch"
)

func TestAll(t *testing.T) {
	boots := Boots(t)
	if got, want := strings.Join(boots, " "), "5.10-amd64 5.10-arm64 6.1-amd64 6.1-arm64 6.12-amd64 6.12-arm64 7.2-amd64 7.2-arm64"; got != want {
		t.Errorf("samples of %s, want %s", got, want)
	}
	for _, s := range All(t) {
		series, goarch, _ := strings.Cut(strings.Split(s.Name, "/")[0], "-")
		row, _ := arch.Find(goarch)
		if !strings.HasPrefix(s.Capture.Uname, "Linux "+series+".") || row.Uname == "" || !strings.HasSuffix(s.Capture.Uname, " "+row.Uname) {
			t.Errorf("%s is of %q", s.Name, s.Capture.Uname)
		}
		if !bytes.Contains(s.Text, []byte("# entries-in-buffer")) && !bytes.Contains(s.Text, []byte("# tracer: function_graph")) {
			t.Errorf("%s has text %.100q", s.Name, s.Text)
		}
		for _, c := range s.Capture.CPUs {
			if c.Size%int64(s.Capture.PageSize) != 0 {
				t.Errorf("%s has %d bytes of CPU %d, no whole pages", s.Name, c.Size, c.ID)
			}
		}
	}
}
