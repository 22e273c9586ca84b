package bisect

import (
	"fmt"
	"math/bits"
	"strings"
	"testing"
)

// run searches a list of what is to be seen: one letter a place, - where nothing can
// be told.
func run(t *testing.T, list string) (found string, looks []int) {
	t.Helper()
	s := New(len(list), "a")
	for {
		i, ok := s.Next()
		if !ok {
			break
		}
		for _, j := range looks {
			if i == j {
				t.Fatalf("%s: looked at %d twice, after %v", list, i, looks)
			}
		}
		looks = append(looks, i)
		s.Saw(i, strings.Trim(list[i:i+1], "-"))
	}
	from, to, ok := s.Found()
	if !ok {
		return "none", looks
	}
	return fmt.Sprintf("%d-%d", from, to), looks
}

func TestSearch(t *testing.T) {
	for _, tt := range []struct {
		list, want string
		looks      int // at most
	}{
		{"aabb", "1-2", 2},  // the four kernels of a claim that flips in the middle
		{"aabbb", "1-2", 2}, // and with one more that the list's range has
		{"abbb", "0-1", 2}, {"aaab", "2-3", 3},
		{"ab", "0-1", 2}, {"a", "none", 1}, {"b", "none", 1}, {"", "none", 0}, {"-", "none", 1},
		{"aaaa", "none", 4}, {"bbbb", "none", 4},
		{"bbaa", "1-2", 4}, // the other way round
		{"baaaaaaa", "0-1", 6},
		{"bbbbbbba", "6-7", 6},
		{"aa--bb", "1-4", 6}, {"a----b", "0-5", 6}, {"------", "none", 6}, {"-a--b-", "1-4", 6}, {"--aa--", "none", 6},
		{"aaabca", "2-3", 6}, // several changes: one of them
	} {
		got, looks := run(t, tt.list)
		if got != tt.want || len(looks) > tt.looks {
			t.Errorf("%s: %s after %v; want %s after at most %d", tt.list, got, looks, tt.want, tt.looks)
		}
	}
}

// TestLogarithm: one change in a long list takes the logarithm of its length, and is
// where it is, whichever way it goes.
func TestLogarithm(t *testing.T) {
	for _, n := range []int{3, 4, 10, 33, 100} {
		for at := 1; at < n; at++ {
			want := fmt.Sprintf("%d-%d", at-1, at)
			got, looks := run(t, strings.Repeat("a", at)+strings.Repeat("b", n-at))
			if most := bits.Len(uint(n)); got != want || len(looks) > most {
				t.Errorf("%d places, change at %d: %s after %d looks; want %s after at most %d", n, at, got, len(looks), want, most)
			}
			got, looks = run(t, strings.Repeat("b", at)+strings.Repeat("a", n-at))
			if most := 2*bits.Len(uint(n)) + 2; got != want || len(looks) > most {
				t.Errorf("%d places, change at %d the other way: %s after %d looks; want %s after at most %d", n, at, got, len(looks), want, most)
			}
		}
	}
}

// FuzzSearch: every search ends, looks nowhere twice, and what it finds is a change.
func FuzzSearch(f *testing.F) {
	f.Add("aabb")
	f.Add("-a-b-c")
	f.Fuzz(func(t *testing.T, list string) {
		list = strings.Map(func(r rune) rune { return rune("abc-"[uint32(r)%4]) }, list[:min(len(list), 200)])
		found, looks := run(t, list)
		if len(looks) > len(list) {
			t.Fatalf("%s: %d looks", list, len(looks))
		}
		var from, to int
		if n, _ := fmt.Sscanf(found, "%d-%d", &from, &to); n == 2 {
			if list[from] == list[to] || strings.Trim(list[from+1:to], "-") != "" {
				t.Errorf("%s: found %s", list, found)
			}
			return
		}
		// None was found: then the ends that can be told are the same.
		if told := strings.ReplaceAll(list, "-", ""); told != "" && told[0] != told[len(told)-1] {
			t.Errorf("%s: found none", list)
		}
	})
}
