package catalogue

import "testing"

func TestFind(t *testing.T) {
	for _, name := range Names() {
		if p, ok := Find(name); !ok || p.Name != name {
			t.Errorf("Find(%q) = %+v, %t", name, p, ok)
		}
	}
	if _, ok := Find("no-such"); ok {
		t.Error("Find found what is not there")
	}
}
