package id

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	users := map[int]string{0: "root", 65534: "nobody"}
	groups := map[int]string{0: "root", 5: "tty", 100: "users"}
	root := ids{}
	mixed := ids{uid: 65534, euid: 0, gid: 100, egid: 7, groups: []int{5, 100}}
	for _, tt := range []struct {
		who        ids
		args, want string
	}{
		{root, "", "uid=0(root) gid=0(root) groups=0(root)"},
		{root, "-u", "0"},
		{root, "-un", "root"},
		{root, "-G -n", "root"},
		{mixed, "", "uid=65534(nobody) gid=100(users) euid=0(root) egid=7 groups=100(users),7,5(tty)"},
		{mixed, "-u", "0"},
		{mixed, "-ru", "65534"},
		{mixed, "-gn", "7"},
		{mixed, "-rgn", "users"},
		{mixed, "-G", "100 7 5"},
	} {
		if got, err := tt.who.describe(strings.Fields(tt.args), users, groups); got != tt.want || err != nil {
			t.Errorf("id %s of %+v = %q, %v; want %q", tt.args, tt.who, got, err, tt.want)
		}
	}
	for args, want := range map[string]string{"-n": "go with", "-ug": "not with others", "-z": "not known", "root": "other users"} {
		if got, err := root.describe(strings.Fields(args), users, groups); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("id %s = %q, %v; want an error with %q", args, got, err, want)
		}
	}
}

func TestNames(t *testing.T) {
	file := filepath.Join(t.TempDir(), "group")
	if err := os.WriteFile(file, []byte("root:x:0:\nother:x:0:\nbad:x:y:\nshort\ntty:x:5:a,b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got := names(file)
	if len(got) != 2 || got[0] != "root" || got[5] != "tty" {
		t.Errorf("names = %v; want root and tty", got)
	}
	if got := names(file + "x"); len(got) != 0 {
		t.Errorf("names of no file = %v", got)
	}
}
