package event

import "testing"

func TestFieldValues(t *testing.T) {
	e := &Event{Name: "x", CPU: 1, Time: 2632099000, Fields: []Field{{"a", "0x10"}, {"b", "-2"}, {"c", "(fault)"}, {"d", "4294967296"}}}
	if v, err := e.Uint("a"); v != 16 || err != nil {
		t.Errorf("Uint(a) = %d, %v, want 16", v, err)
	}
	if v, err := e.Int("b"); v != -2 || err != nil {
		t.Errorf("Int(b) = %d, %v, want -2", v, err)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{second(e.Uint("c")), `event x at 2.632099 on CPU 1: field c is "(fault)", not a number`},
		{second(e.Uint("z")), `event x at 2.632099 on CPU 1 has no field z`},
		{second(e.Int("z")), `event x at 2.632099 on CPU 1 has no field z`},
		{second(e.Int("d")), `event x at 2.632099 on CPU 1: field d is "4294967296", not a 32-bit number`},
	} {
		if c.err == nil || c.err.Error() != c.want {
			t.Errorf("error is %v, want %s", c.err, c.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSymbol(t *testing.T) {
	for at, want := range map[string]string{"kernel_clone+0x0/0x478": "kernel_clone", "do_one+0x4/0x10 [m]": "do_one", "0xffff8000": "0xffff8000", "": ""} {
		if got := (&Event{At: at}).Symbol(); got != want {
			t.Errorf("Symbol at %q = %q, want %q", at, got, want)
		}
	}
}
