package check

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/kconfig"
)

func TestEmbedded(t *testing.T) {
	if _, err := parse("kconfig/features.yaml", kconfig.Features); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"boot", "shell", "trace", "virtio-serial", "serial-8250", "serial-pl011", "btf"} {
		found := false
		for _, f := range All() {
			found = found || f.Name == name
		}
		if !found {
			t.Errorf("no feature %s", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ name, yaml, want string }{
		{"unknown field", "features:\n  - name: a\n    option: []\n", "f.yaml: [3:5]"},
		{"no options", "features:\n  - name: a\n", "features[0] a: needs a name and options"},
		{"twice", "features:\n  - {name: a, options: [{name: A, why: w}]}\n  - {name: a, options: [{name: A, why: w}]}\n", "duplicate"},
		{"prefix", "features:\n  - {name: a, options: [{name: CONFIG_A, why: w}]}\n", "without CONFIG_"},
		{"no reason", "features:\n  - {name: a, options: [{name: A}]}\n", "and why"},
	} {
		if _, err := parse("f.yaml", []byte(tt.yaml)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestCheck(t *testing.T) {
	all := map[string]string{}
	for _, f := range All() {
		for _, o := range f.Options {
			all[o.Name] = o.Accept[len(o.Accept)-1]
		}
	}
	with := func(changes ...string) func(string) (string, bool) {
		cfg := map[string]string{}
		for k, v := range all {
			cfg[k] = v
		}
		for _, c := range changes {
			name, val, ok := strings.Cut(c, "=")
			if cfg[name] = val; !ok {
				delete(cfg, name)
			}
		}
		return func(name string) (string, bool) { v, ok := cfg[name]; return v, ok }
	}
	tests := []struct {
		name     string
		lookup   func(string) (string, bool)
		features []string
		want     []string
	}{
		{"all set", with(), []string{"boot", "trace", "virtio-serial"}, nil},
		{"not asked for", with("KPROBES"), []string{"boot"}, nil},
		{"not set", with("KPROBES"), []string{"boot", "trace"}, []string{"CONFIG_KPROBES is not set, trace needs y: a probe on the creating function"}},
		{"a module will not do", with("KPROBES=m"), []string{"trace"}, []string{"CONFIG_KPROBES is m, trace needs y: a probe on the creating function"}},
		{"a module will do", with("VIRTIO_PCI=m"), []string{"virtio-serial"}, nil},
		{"once for two features", with("SERIAL_8250"), []string{"serial-8250", "serial-bcm2835aux"}, []string{"CONFIG_SERIAL_8250 is not set, serial-8250 needs y: the machine's UART is an 8250"}},
		{"unknown feature", with(), []string{"teleport"}, []string{`feature "teleport" is not in kconfig/features.yaml`}},
	}
	for _, tt := range tests {
		var got []string
		missing := Check(tt.lookup, tt.features...)
		for _, m := range missing {
			got = append(got, m.String())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if len(missing) > 0 {
			var e *Error
			if err := error(&Error{"6.12", missing}); !errors.As(err, &e) || !strings.Contains(err.Error(), "kernel 6.12 lacks required options: "+got[0]) {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(kconfig.Features)
	f.Add([]byte("features: [{name: a, options: [{name: A, why: w, accept: [m]}]}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		features, err := parse("f.yaml", b)
		if err != nil {
			return
		}
		for _, ft := range features {
			for _, o := range ft.Options {
				if o.Name == "" || len(o.Accept) == 0 {
					t.Errorf("%s: option %+v", ft.Name, o)
				}
			}
		}
	})
}
