package probe

import (
	"encoding/json"
	"os"
	"runtime"
	"testing"

	"labctl/guest/catalogue"
)

func TestRegisterWantsTheCatalogue(t *testing.T) {
	defer func(was map[string]Probe) { registered = was }(registered)
	registered = map[string]Probe{}
	panics := func(name string) (did bool) {
		defer func() { did = recover() != nil }()
		Register(Probe{Name: name})
		return false
	}
	names := catalogue.Names()
	last, first := names[len(names)-1], names[0]
	for _, tc := range []struct {
		name string
		want bool
	}{{"no-such-probe", true}, {"", true}, {last, false}, {first, false}, {first, true}} {
		if got := panics(tc.name); got != tc.want {
			t.Errorf("Register(%q) panics: %v; want %v", tc.name, got, tc.want)
		}
	}
	for _, name := range []string{first, last} {
		if p, ok := Lookup(name); !ok || p.Name != name {
			t.Errorf("Lookup(%q) = %q, %v; want it, registered", name, p.Name, ok)
		}
	}
	if p, ok := Lookup("no-such-probe"); ok {
		t.Errorf("Lookup of what was refused = %q", p.Name)
	}
}

func TestParams(t *testing.T) {
	for _, tc := range []struct {
		raw  string
		want int
		ok   bool
	}{
		{"", 5, true}, {" \n", 5, true}, {"{}", 5, true}, {"null", 5, true}, {`{"n":7}`, 7, true},
		{`{"m":7}`, 0, false}, {`{"n":"x"}`, 0, false}, {`{"n":1}{}`, 0, false}, {`[]`, 0, false}, {`{`, 0, false},
	} {
		p := struct{ N int }{5}
		err := Params(json.RawMessage(tc.raw), &p)
		if (err == nil) != tc.ok || tc.ok && p.N != tc.want {
			t.Errorf("Params(%q) = %d, %v; want %d, ok %v", tc.raw, p.N, err, tc.want, tc.ok)
		}
	}
}

func TestSelf(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	got := Self()
	if got.Role != "self" || got.PID != os.Getpid() || got.TGID != got.PID || got.PPID != os.Getppid() || got.TID == 0 || got.Comm == "" {
		t.Errorf("Self() = %+v; want pid and tgid %d, ppid %d, a tid and a name", got, os.Getpid(), os.Getppid())
	}
}
