package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/record"
)

func TestVerdicts(t *testing.T) {
	run := func(id, release, machine string, claims []judge.Claim, checks ...judge.Verdict) labRun {
		r := labRun{Report: judge.Report{Lab: id, Title: lab.Text{EN: "en " + id, KO: "ko " + id}, Claims: claims}}
		r.Kernel, r.Target = record.Kernel{Release: release}, record.Target{Name: machine}
		for i, v := range checks {
			r.Checks = append(r.Checks, judge.Check{ID: string(rune('a' + i)), Verdict: v})
		}
		return r
	}
	claim := func(id string, v judge.Verdict) judge.Claim {
		return judge.Claim{ID: id, Says: lab.Text{EN: "A|B", KO: "가"}, Verdict: v}
	}
	missing := run("P2", "", "", nil)
	missing.Missing = []string{"it needs x"}
	twice := run("P2", "7.2.1", "arm64", nil, judge.Pass)
	twice.Before = []string{"`x` fails"}
	broken := run("K1", "", "raspi3b", nil)
	broken.Error = "deadline"
	got := verdicts([]column{
		{"5.10 amd64", []labRun{
			run("P1", "5.10.1", "amd64", []judge.Claim{claim("same", judge.Refuted), claim("other", judge.Confirmed)}, judge.Pass, judge.NotApplicable),
			missing,
			run("K1", "5.10.1", "amd64", []judge.Claim{claim("one", judge.Depends)}, judge.Pass),
		}},
		{"7.2 arm64", []labRun{
			run("P1", "7.2.1", "arm64", []judge.Claim{claim("same", judge.Refuted), claim("other", judge.Refuted)}, judge.Pass, judge.Fail),
			twice,
			run("K1", "7.2.1", "arm64", []judge.Claim{claim("one", judge.NotApplicable)}, judge.Pass),
		}},
		{"raspi3b", []labRun{broken}},
	})
	want := `| lab | | | 5.10 amd64 | 7.2 arm64 | raspi3b |
|---|---|---|---|---|---|
| P1 | en P1 | ko P1 | 1/1, 1 n/a | **1/2** |  |
| P2 | en P2 | ko P2 | not run | 1/1 |  |
| K1 | en K1 | ko K1 | 1/1 | 1/1 | **error** |

## What fails, and what was not run

- P2 on 5.10 amd64: it needs x
- P1 on 7.2 arm64: ` + "`b`" + ` fails
- P2 on 7.2 arm64: all holds, at the second try; at the first: ` + "`x`" + ` fails
- K1 on raspi3b: deadline
`
	const words = "boot for every lab anew, and run a few.\n\n"
	_, got, found := strings.Cut(got, words)
	if !found {
		t.Fatal("the page does not begin with its words")
	}
	table, rest, _ := strings.Cut(got, "\n## Claims on which machines differ\n")
	if d := cmp.Diff(want, table); d != "" {
		t.Errorf("labs: -want +got\n%s", d)
	}
	_, rest, _ = strings.Cut(rest, "reasons.\n\n")
	want = `| lab | claim | 주장 | 5.10 amd64 | 7.2 arm64 | raspi3b |
|---|---|---|---|---|---|
| P1 | ` + "`other`" + `: A\|B | 가 | ✓ | ✗ |  |

## Claims on which all agree to which they apply

| verdict | claims |
|---|---|
| refuted | P1 same |
| depends | K1 one |

This page is written by ` + "`go run ./host/docs -page verdicts`" + `, on these kernels: 5.10.1 (amd64), 7.2.1 (arm64), raspi3b.
`
	if d := cmp.Diff(want, rest); d != "" {
		t.Errorf("claims: -want +got\n%s", d)
	}
}
