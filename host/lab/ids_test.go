package lab

import (
	"slices"
	"testing"
	"testing/fstest"

	"labctl/labs"
)

func TestIDs(t *testing.T) {
	set, err := Load(labs.FS)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, l := range set.Labs {
		want = append(want, l.ID)
	}
	if got, err := IDs(labs.FS); err != nil || !slices.Equal(got, want) {
		t.Errorf("IDs = %q, %v; want those of Load, %q", got, err, want)
	}
	odd := fstest.MapFS{"P1-a/lab.yaml": {}, "P1-b/lab.yaml": {}, "x-c/lab.yaml": {}, "P3-no/README.md": {}}
	if got, err := IDs(odd); err != nil || !slices.Equal(got, []string{"P1"}) {
		t.Errorf("IDs = %q, %v; want P1", got, err)
	}
}
