package lab

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"labctl/host/outcome"
)

// shelf is three labs of other ids, topics and sources than each other, and a
// broken one.
func shelf(broken bool) fs.FS {
	lab := func(id, topic, seed, section string) *fstest.MapFile {
		text := strings.ReplaceAll(good, "id: T1\n", "id: "+id+"\n")
		text = strings.ReplaceAll(text, "topic: process", "topic: "+topic)
		text = strings.ReplaceAll(text, `{seed: "seed0: a"}`, `{seed: "`+seed+`", book: ["`+section+`"]}`)
		text, _, _ = strings.Cut(text, "exercise:")
		return &fstest.MapFile{Data: []byte(text)}
	}
	files := fstest.MapFS{}
	for dir, l := range map[string]*fstest.MapFile{
		"P2-two": lab("P2", "process", "Seed0: a", "4.4"), "P10-ten": lab("P10", "process", "seed1: b", "4.4.1"), "K1-one": lab("K1", "kernel", "seed1: c", "4.40"),
	} {
		files[dir+"/"+Config] = l
		files[dir+"/"+Lesson], files[dir+"/"+LessonKO] = &fstest.MapFile{Data: []byte("a")}, &fstest.MapFile{Data: []byte("a")}
	}
	if broken {
		files["K2-broken/"+Config] = &fstest.MapFile{Data: []byte("id: K2\n")}
	}
	return files
}

func TestSelection(t *testing.T) {
	for _, tt := range []struct {
		s      Selection
		broken bool
		want   string // ids, or in the error
	}{
		{Selection{All: true}, false, "P2 P10 K1"},
		{Selection{Names: []string{"k1", "P2", "K1"}}, false, "K1 P2"},
		{Selection{Names: []string{"K1", "p*"}}, false, "K1 P2 P10"},
		{Selection{Names: []string{"P?"}}, true, "P2"}, // what is broken was not asked for
		{Selection{Topic: "process"}, false, "P2 P10"},
		{Selection{Source: "SEED0"}, false, "P2"},
		{Selection{Section: "4.4"}, false, "P2 P10"}, // 4.40 is not below 4.4
		{Selection{Section: "4.4.", Source: "seed1"}, false, "P10"},
		{Selection{All: true}, true, "K2-broken/lab.yaml"},
		{Selection{Names: []string{"K*"}}, true, "K2-broken/lab.yaml"},
		{Selection{Topic: "memory"}, false, "no lab matches"},
		{Selection{Names: []string{"P2"}, All: true}, false, "give the ids of labs, or --all"},
		{Selection{Names: []string{"P2"}, Topic: "kernel"}, false, "give the ids of labs, or --all"},
		{Selection{}, false, "which labs?"},
		{Selection{Names: []string{"K*", "K1?"}}, false, `lab "K1?" is not known, did you mean K1? (known: P2, P10, K1)`},
		{Selection{Names: []string{"K"}}, false, `lab "K" is not known (known: P2, P10, K1)`},
		{Selection{Names: []string{"["}}, false, `"[": syntax error in pattern`},
	} {
		labs, err := tt.s.Of(shelf(tt.broken))
		var ids []string
		for _, l := range labs {
			ids = append(ids, l.ID)
		}
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) || outcome.Of(err) != outcome.BadInput || labs != nil {
				t.Errorf("%+v: %q, %v (%s); want %s", tt.s, ids, err, outcome.Of(err), tt.want)
			}
			continue
		}
		if !slices.Equal(ids, strings.Fields(tt.want)) {
			t.Errorf("%+v = %q, want %s", tt.s, ids, tt.want)
		}
	}
}
