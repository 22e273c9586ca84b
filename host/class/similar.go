package class

import (
	"cmp"
	"go/scanner"
	"go/token"
	"hash/fnv"
	"slices"

	"labctl/host/lab/compile"
)

// Submissions are compared by winnowing (Schleimer, Wilkerson, Aiken: Winnowing:
// Local Algorithms for Document Fingerprinting, SIGMOD 2003) over the tokens of
// their source, with all names alike and without comments, so that renaming,
// reformatting and reordering functions hide little.
const (
	gram   = 15 // tokens of a fingerprint
	window = 8  // grams of which one fingerprint is kept
)

// likely is the share of common fingerprints from which on two submissions are
// reported. Solutions of a small exercise have much in common.
const likely = 0.85

// fewest is the number of fingerprints of its own under which a submission says too
// little to be compared.
const fewest = 8

// fingerprints are sorted, each once.
type fingerprints []uint64

// marksOf returns the fingerprints of a program's Go source.
func marksOf(files []compile.File) fingerprints {
	var grams []uint64
	for _, f := range files {
		var s scanner.Scanner
		fset := token.NewFileSet()
		s.Init(fset.AddFile(f.Name, -1, len(f.Data)), f.Data, func(token.Position, string) {}, 0)
		var tokens []byte
		for {
			_, tok, _ := s.Scan()
			if tok == token.EOF {
				break
			}
			if tok != token.SEMICOLON && tok != token.ILLEGAL {
				tokens = append(tokens, byte(tok))
			}
		}
		for i := 0; i+gram <= len(tokens); i++ {
			h := fnv.New64a()
			h.Write(tokens[i : i+gram])
			grams = append(grams, h.Sum64())
		}
	}
	var marks fingerprints
	for i := 0; i+window <= len(grams); i++ {
		marks = append(marks, slices.Min(grams[i:i+window]))
	}
	slices.Sort(marks)
	return slices.Compact(marks)
}

// without returns the fingerprints that are not of other.
func (f fingerprints) without(other fingerprints) (rest fingerprints) {
	for _, m := range f {
		if _, ok := slices.BinarySearch(other, m); !ok {
			rest = append(rest, m)
		}
	}
	return rest
}

// alike is the share of the fingerprints of either that both have.
func (f fingerprints) alike(g fingerprints) float64 {
	both := len(f) - len(f.without(g))
	return float64(both) / float64(max(1, len(f)+len(g)-both))
}

// Pair is two submissions that are near-identical.
type Pair struct {
	A     string  `json:"a"`
	B     string  `json:"b"`
	Share float64 `json:"share"` // of the code that is not the skeleton's
}

// Similar finds near-identical submissions, the most alike first. What they have
// from the skeleton does not count.
func (c *Class) Similar(skeleton []compile.File) (pairs []Pair) {
	given := marksOf(skeleton)
	own := make([]fingerprints, len(c.learners))
	for i, l := range c.learners {
		own[i] = l.marks.without(given)
	}
	for i := range own {
		for j := range i {
			if min(len(own[i]), len(own[j])) < fewest {
				continue
			}
			if share := own[i].alike(own[j]); share >= likely {
				pairs = append(pairs, Pair{c.learners[j].name, c.learners[i].name, share})
			}
		}
	}
	slices.SortStableFunc(pairs, func(a, b Pair) int { return cmp.Compare(b.Share, a.Share) })
	return pairs
}
