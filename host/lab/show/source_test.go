package show

import (
	"slices"
	"strings"
	"testing"

	"labctl/host/lab"
	"labctl/labs"
)

func TestSectionsOf(t *testing.T) {
	l := &lab.Lab{Source: lab.Source{Seed: "seed0: COW; seed1: COW pages and real sharing; seed1: page tables", Text: "clone(2)"}}
	for _, tt := range []struct {
		lang, words string
		want        []string
	}{
		{"en", "seed1", []string{"COW pages and real sharing", "page tables"}},
		{"ko", "SEED1: page", []string{"페이지 테이블"}},
		{"en", "clone", []string{"clone(2)"}},
		{"en", "futex", nil},
	} {
		if got := sectionsOf(l, tt.lang, tt.words); !slices.Equal(got, tt.want) {
			t.Errorf("sectionsOf(%s, %q) = %q; want %q", tt.lang, tt.words, got, tt.want)
		}
	}
}

func TestSource(t *testing.T) {
	for _, tt := range []struct{ lang, source, want string }{
		{"en", "seed0: resource sharing", "“Process vs Thread in depth (1): everything is clone()”, resource sharing"},
		{"ko", "seed0: resource sharing", "「Process vs Thread 심화 (1): Linux의 충격적 진실 - 모든 것은 clone()이다」, 리소스 공유"},
		{"ko", "book 4.4.1, log", "『디버깅을 통해 배우는 리눅스 커널의 구조와 원리』(김동현) 4.4.1절, 로그"},
		{"en", "seed3: _do_fork(); book 4.4.1", "Article on how _do_fork() makes processes, _do_fork(); “Structure and Principles of the Linux Kernel, Learned by Debugging” (Kim Dong-hyun) 4.4.1"},
		{"ko", "Operating Systems, week 3", "Operating Systems, week 3"},
		{"en", "seed9: x", "seed9: x"},
		{"en", "clone(2), ERRORS", "clone(2), ERRORS"},
	} {
		if got := Source(tt.lang, tt.source); got != tt.want {
			t.Errorf("Source(%s, %q) = %q; want %q", tt.lang, tt.source, got, tt.want)
		}
	}
}

// TestSections: the sections that labctl's own labs name have names in Korean.
func TestSections(t *testing.T) {
	set, err := lab.Load(labs.FS)
	if err != nil {
		t.Fatal(err)
	}
	known := func(file, source string) {
		for part := range strings.SplitSeq(source, ";") {
			s := strings.TrimSpace(part)
			if m := reference().FindStringSubmatch(s); m != nil {
				s = m[3]
			}
			if s != "" && sources().Sections[s] == "" {
				t.Errorf("%s: the section %q has no Korean name in labs/sources.yaml", file, s)
			}
		}
	}
	for _, l := range set.Labs {
		known(l.File, l.Source.Seed)
		for _, c := range l.Claims {
			known(l.File, c.Source)
		}
	}
}
