// Package show puts labs, lessons and verdicts on a terminal, in both languages.
// Widths are those of a terminal's cells, of which a Korean syllable takes two.
package show

import (
	"fmt"
	"io"
	"os"
	"strings"

	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/text"
	"labctl/host/ui/table"
)

// Lang is the language of the user's locale.
func Lang() string {
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := os.Getenv(name); v != "" {
			if strings.HasPrefix(v, "ko") {
				return "ko"
			}
			break
		}
	}
	return "en"
}

// least is how many cells a terminal has, whatever it says.
const least = 20

// Markdown lays a lesson out for a terminal of so many cells, without colours
// where plain. It takes no side on the terminal's background.
func Markdown(source string, cells int, plain bool) string {
	cells = max(cells, least)
	var b strings.Builder
	for _, p := range parts(text.Clean(source)) {
		out := ""
		switch {
		case p.table != nil:
			out = markdownTable(p.table, cells, plain)
		case p.list != nil:
			out = list(p.list, cells, plain)
		case p.code != nil:
			out = listing(p.code, cells)
		default:
			out = prose(p.prose, cells, plain)
		}
		var lines []string
		for line := range strings.Lines(out) {
			lines = append(lines, strings.TrimRight(line, " \n"))
		}
		if out = strings.Trim(strings.Join(lines, "\n"), "\n"); out == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(out + "\n")
	}
	return b.String()
}

// dictionary has labctl's own words.
var dictionary = map[string]map[string]string{
	"ko": {
		"pass": "통과", "fail": "실패", "not applicable": "해당 없음", "tampered": "증거 조작",
		"confirmed": "맞음", "refuted": "틀림", "depends": "경우에 따라 다름", "not enforced": "강제하지 않음", "unknown": "알 수 없음",
		"CHECK": "검사", "CLAIM": "주장", "VERDICT": "판정", "SAYS": "내용", "LAB": "실습", "TITLE": "제목", "CHECKS": "검사", "CLAIMS": "주장",
		"not run": "실행하지 않음", "run record": "실행 기록", "%s on %s, %.2f s": "%[2]s의 %[1]s, %.2[3]f초", "seen": "관찰", "because": "이유", "at risk": "위험", "tested by": "같은 것을 확인하는 테스트", "source": "출처", "hint": "힌트",
		"ID": "ID", "TOPIC": "주제", "SOURCE": "출처", "SECTIONS": "절", "STATUS": "상태", "ready": "준비됨", "not here": "여기서는 안 됨",
		", if the guest has %s": " (게스트에 %s이(가) 있으면)",
		"%d of %d checks hold":  "검사 %[2]d개 중 %[1]d개 통과", ", %d not applicable": ", %d개는 해당 없음",
		"RAN": "실행", "TRIES": "시도", "GRADE": "채점", "SOLVED": "해결", "HINTS": "힌트", "%d of %d exercises solved": "연습 문제 %[2]d개 중 %[1]d개 해결",
		"waiting for a change; Ctrl-C ends": "파일이 바뀌기를 기다립니다. Ctrl-C로 끝냅니다", "expected": "기대",
		"Questions": "생각해 볼 문제", "Sources": "출처", "Answer": "답",
		"ok": "통과", "check failed": "검사 실패", "kernel reported": "커널이 오류를 보고함", "cannot run": "실행할 수 없음", "bad input": "잘못된 입력",
		"host lacks": "호스트에 없는 것이 있음", "internal": "labctl의 결함", "deadline": "시간 초과", "guest crashed": "게스트가 죽음", "interrupted": "중단됨",
		"boot": "부팅 실패", "QEMU refused": "QEMU가 시작하지 않음", "QEMU died": "QEMU가 죽음", "powered off": "게스트가 꺼짐", "restarted": "게스트가 재시작함", "reset": "게스트가 리셋됨",
		"agent silent": "게스트가 응답하지 않음", "link damaged": "게스트와의 통신이 깨짐", "out of memory": "메모리 부족", "probe failed": "프로브 실패",
		"does not compile": "컴파일되지 않음", "no source": "소스 없음", "too slow": "너무 느림", "prints too much": "출력이 너무 많음",
		"warning": "커널 경고", "oom": "메모리 부족", "hung task": "태스크가 멈춤", "stall": "CPU가 지체됨", "soft lockup": "소프트 락업", "hard lockup": "하드 락업",
		"lockdep": "잘못된 락 사용(lockdep)", "atomic sleep": "아토믹 문맥에서 잠듦", "UBSAN": "정의되지 않은 동작(UBSAN)", "KCSAN": "데이터 경쟁(KCSAN)",
		"KMSAN": "초기화하지 않은 메모리 사용(KMSAN)", "KASAN": "잘못된 메모리 접근(KASAN)", "KFENCE": "잘못된 메모리 접근(KFENCE)", "kmemleak": "메모리 누수(kmemleak)", "bug": "커널 버그",
		"halt": "커널이 멈춤", "oops": "커널 oops", "panic": "커널 패닉",
		"LEARNER": "학습자", "POINTS": "점수", "The kernel saw": "커널이 본 것", "Near-identical submissions": "거의 같은 제출물",
		"The program printed": "프로그램의 출력", "The program printed nothing.": "프로그램이 아무것도 출력하지 않았습니다.",
		"%[1]s is there; labctl lab check %[2]s grades it, labctl lab hint %[3]s helps": "%[1]s에 준비했습니다. labctl lab check %[2]s로 채점하고, labctl lab hint %[3]s로 힌트를 봅니다",
		"the solution is in %s":                 "해답은 %s에 있습니다",
		"there are more: labctl lab hint %s %d": "힌트가 더 있습니다: labctl lab hint %s %d",
	},
}

// Word is one of labctl's own words in a language.
func Word(lang, word string) string {
	if w, ok := dictionary[lang][word]; ok {
		return w
	}
	return word
}

// Clean makes words of a lab's or a guest's fit for one line.
func Clean(s string) string { return text.Line(s, 600) }

// Report prints a lab's verdicts: a line for each check, with what was seen of
// one that fails, and the claims with their evidence. Answers leaves out what
// would give an exercise's solution away.
func Report(w io.Writer, r *judge.Report, lang string, cells int, answers bool) error {
	p := printer{w: w, lang: lang, cells: max(cells, 40)}
	p.lacks(r)
	if len(r.Checks) > 0 {
		p.f("%s\n", Word(lang, "CHECK"))
	}
	p.widths(r)
	for _, c := range r.Checks {
		p.check(&c, answers)
	}
	if len(r.Claims) > 0 {
		p.f("\n%s\n", Word(lang, "CLAIM"))
	}
	for _, c := range r.Claims {
		p.item(c.ID, c.Verdict, c.Says.In(lang))
		p.below(4, Word(lang, "source")+": ", Source(lang, c.Source))
		if seen := c.EvidenceIn(lang); seen != "" {
			p.below(4, Word(lang, "seen")+": ", seen)
		}
		if c.Error != "" {
			p.below(4, "! ", c.Error)
		}
		if c.Why != nil {
			p.below(4, Word(lang, "because")+": ", c.Why.In(lang))
		}
		if c.Risk != nil {
			p.below(4, Word(lang, "at risk")+": ", c.Risk.In(lang))
		}
		if len(c.Tests) > 0 {
			p.below(4, Word(lang, "tested by")+": ", strings.Join(c.Tests, ", "))
		}
	}
	return p.err
}

// claimed prints what the sources of a lab say, or what the lab does.
func claimed(w io.Writer, l *lab.Lab, lang string, cells int) error {
	p := printer{w: w, lang: lang, cells: max(cells, 40)}
	if len(l.Claims) == 0 {
		p.f("\n")
		p.below(0, "", l.Summary.In(lang))
		return p.err
	}
	ids := 0
	for _, c := range l.Claims {
		ids = max(ids, table.Width(c.ID))
	}
	p.f("\n%s\n", Word(lang, "CLAIM"))
	for _, c := range l.Claims {
		p.below(2, table.Pad(c.ID, ids)+"  ", c.Says.In(lang))
	}
	return p.err
}

// Verdicts prints what becomes of claims and checks: claims with what was seen, and
// why where it is not as the source says; of checks those that do not hold at length,
// and the others in a line.
func Verdicts(w io.Writer, r *judge.Report, o Options) error {
	p := printer{w: w, lang: o.Lang, cells: max(o.Cells, 40), plain: o.Plain}
	p.lacks(r)
	p.f("%s\n", Word(o.Lang, "VERDICT"))
	p.widths(r)
	for _, c := range r.Claims {
		seen := c.EvidenceIn(o.Lang)
		if c.Error != "" {
			seen = "! " + c.Error
		}
		p.item(c.ID, c.Verdict, seen)
		if c.Why != nil && c.Verdict != judge.Confirmed {
			p.below(4, Word(o.Lang, "because")+": ", c.Why.In(o.Lang))
		}
	}
	var holds []string
	for _, c := range r.Checks {
		switch {
		case c.Verdict == judge.Pass:
			holds = append(holds, c.ID)
		case c.Verdict == judge.NotApplicable:
			p.item(c.ID, c.Verdict, "")
			if c.Why != nil {
				p.below(4, Word(o.Lang, "because")+": ", c.Why.In(o.Lang))
			}
		default:
			p.check(&c, true)
		}
	}
	if len(holds) > 0 {
		p.below(2, p.paint("✓", "32")+" ", Summary(r, o.Lang)+": "+strings.Join(holds, ", "))
	} else {
		p.below(2, "", Summary(r, o.Lang))
	}
	return p.err
}

// Summary is the last line of a report.
func Summary(r *judge.Report, lang string) string {
	if len(r.Missing) > 0 {
		return Word(lang, "not run")
	}
	na := len(r.Checks) - r.Passed() - r.Failed()
	s := fmt.Sprintf(Word(lang, "%d of %d checks hold"), r.Passed(), len(r.Checks)-na)
	if na > 0 {
		s += fmt.Sprintf(Word(lang, ", %d not applicable"), na)
	}
	return s
}

type printer struct {
	w     io.Writer
	lang  string
	cells int
	plain bool
	err   error

	ids, verdicts int // widths of columns
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *printer) paint(s, sgr string) string {
	if p.plain {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// lacks says why a lab was not run, and by what its evidence was bent.
func (p *printer) lacks(r *judge.Report) {
	for _, m := range r.Missing {
		p.below(2, Word(p.lang, "not run")+": ", m)
	}
	for _, seen := range r.Tampered {
		p.below(2, Word(p.lang, "tampered")+": ", seen)
	}
}

// widths finds those of the columns.
func (p *printer) widths(r *judge.Report) {
	for _, c := range r.Checks {
		p.ids, p.verdicts = max(p.ids, table.Width(c.ID)), max(p.verdicts, table.Width(p.verdict(c.Verdict)))
	}
	for _, c := range r.Claims {
		p.ids, p.verdicts = max(p.ids, table.Width(c.ID)), max(p.verdicts, table.Width(p.verdict(c.Verdict)))
	}
}

// check prints a check, and of one that does not hold what was seen, if answers may
// be given.
func (p *printer) check(c *judge.Check, answers bool) {
	p.item(c.ID, c.Verdict, c.Says.In(p.lang))
	switch {
	case c.Verdict == judge.NotApplicable && c.Why != nil:
		p.below(4, Word(p.lang, "because")+": ", c.Why.In(p.lang))
	case c.Verdict == judge.Fail:
		if c.Hint != nil {
			p.below(4, Word(p.lang, "hint")+": ", c.Hint.In(p.lang))
		}
		if !answers {
			for _, s := range c.Observed() {
				p.below(4, Word(p.lang, "seen")+": ", s.String())
			}
			return
		}
		if c.Error != "" {
			p.below(4, "! ", c.Error)
		}
		for _, s := range c.Seen {
			p.below(4, Word(p.lang, "seen")+": ", s.String())
		}
	}
}

func (p *printer) item(id string, v judge.Verdict, says string) {
	word := p.verdict(v)
	head := "  " + table.Pad(id, p.ids) + "  " + table.Pad(word, p.verdicts) + "  "
	p.below(0, head, says)
}

// verdict is the word for v. In English what fails is in capitals.
func (p *printer) verdict(v judge.Verdict) string {
	if v == judge.Fail && p.lang == "en" {
		return "FAIL"
	}
	return Word(p.lang, string(v))
}

// below prints a text behind a head, its further lines under its first.
func (p *printer) below(indent int, head, s string) {
	left := indent + table.Width(head)
	if left > p.cells/2 {
		left = p.cells / 2
	}
	for i, line := range table.Wrap(Clean(s), max(20, p.cells-left), "") {
		if i == 0 {
			p.f("%*s%s%s\n", indent, "", head, line)
		} else {
			p.f("%*s%s\n", left, "", line)
		}
	}
}

// Lesson is a lab's lesson as Markdown: title, lesson and questions.
func Lesson(l *lab.Lab, lang string, readFile func(string) ([]byte, error), answers bool) (string, error) {
	b, err := readFile(l.LessonIn(lang))
	if err != nil {
		return "", fmt.Errorf("lab %s: %w", l.ID, err)
	}
	var out strings.Builder
	out.Write(b)
	if all := sourcesOf(l, lang, false); len(all) > 0 {
		fmt.Fprintf(&out, "\n\n## %s\n\n", Word(lang, "Sources"))
		for _, s := range all {
			fmt.Fprintf(&out, "- %s\n", strings.ReplaceAll(s, "_", `\_`))
		}
	}
	if q := Questions(l, lang, answers); q != "" {
		out.WriteString("\n\n" + q)
	}
	return out.String(), nil
}

// Questions are a lab's questions as Markdown; "" for none.
func Questions(l *lab.Lab, lang string, answers bool) string {
	if len(l.Questions) == 0 {
		return ""
	}
	var out strings.Builder
	fmt.Fprintf(&out, "## %s\n\n", Word(lang, "Questions"))
	for i, q := range l.Questions {
		fmt.Fprintf(&out, "%d. %s\n", i+1, q.Ask.In(lang))
		if answers {
			fmt.Fprintf(&out, "\n   *%s:* %s\n", Word(lang, "Answer"), q.Answer.In(lang))
		}
	}
	return out.String()
}
