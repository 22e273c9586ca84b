package page

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"labctl/host/bounded"
	"labctl/host/class"
	"labctl/host/lab"
	"labctl/host/lab/judge"
	"labctl/host/lab/result"
	"labctl/host/lab/see"
	"labctl/host/lab/show"
	"labctl/host/matrix"
	"labctl/host/matrix/diff"
	"labctl/host/matrix/render"
	"labctl/host/outcome"
	"labctl/host/record"
	"labctl/host/report"
	"labctl/host/scratch"
	"labctl/host/text"
	"labctl/host/view"
)

// Bounds on what a page has of a record's files, in bytes.
const (
	maxConsole = 64 << 10
	maxPrinted = 16 << 10
)

// Of makes the page of a directory: a matrix, a class, or a run's record. Find gives the
// labs by which it is judged.
func Of(dir, lang string, find judge.FindLab) (_ *Page, err error) {
	defer outcome.OrElse(outcome.BadInput, &err)
	d := record.Dir{Path: dir}
	if err := bounded.CheckDir(dir); err != nil {
		return nil, fmt.Errorf("%w; give the directory that was --out", err)
	}
	switch {
	case there(d.File(matrix.File)):
		r, err := matrix.Read(dir)
		if err != nil {
			return nil, err
		}
		return ofMatrix(r, dir, lang, find)
	case there(d.File(matrix.CellDir)):
		return nil, errors.New("this matrix has not ended; --resume brings it to its end")
	case there(d.File(record.RunFile)):
		run, err := d.ReadRun()
		if err != nil {
			return nil, err
		}
		return ofRun(run, d, lang, find)
	}
	return nil, fmt.Errorf("neither %s nor %s is in it: the record is not whole, or is none", matrix.File, record.RunFile)
}

// Write makes the page of a directory and puts it there, or into a file.
func Write(dir, file, lang string, find judge.FindLab) error {
	p, err := Of(dir, lang, find)
	if err != nil {
		return err
	}
	b, err := p.HTML()
	if err != nil {
		return err
	}
	if err := scratch.Write(cmp.Or(file, record.Dir{Path: dir}.File(record.PageFile)), b, 0o644); err != nil {
		return outcome.Default(outcome.BadInput, fmt.Errorf("write a page: %w", err))
	}
	return nil
}

func there(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func toneOf(o outcome.Kind) view.Tone {
	switch {
	case o == outcome.NotApplicable:
		return view.Mixed
	case o.Failed():
		return view.Bad
	}
	return view.Good
}

// ofRun is the page of one run.
func ofRun(run *record.Run, d record.Dir, lang string, find judge.FindLab) (*Page, error) {
	p := &Page{
		Lang: lang, Title: view.Same(text.Line(run.Name, 100)), Version: text.Line(run.Labctl, 60),
		Outcome: text.Line(strings.TrimSuffix(string(run.Outcome.Kind)+": "+run.Outcome.Message, ": "), 300), Tone: toneOf(run.Outcome.Kind),
		Facts: []Fact{
			fact("Kernel", "커널", cmp.Or(run.Kernel.Release, run.Kernel.Ref)), fact("Machine", "머신", run.Target.Name),
			fact("QEMU", "QEMU", strings.TrimSpace(run.QEMU.Version+" "+run.QEMU.Accel)),
			fact("Started", "시작", run.Started.UTC().Format(time.RFC3339)), fact("Seconds", "초", fmt.Sprintf("%.2f", run.Seconds)),
		},
	}
	if there(d.File(result.File)) {
		if err := p.lab(d, find); err != nil {
			return nil, err
		}
	} else {
		p.add("see", "What happened", "일어난 일", report.Views(run)...)
	}
	if there(d.File(record.ViewFile)) {
		p.Perfetto = record.ViewFile
	}
	p.add("reports", "The kernel's reports", "커널의 보고", report.Reports(run.Reports)...)
	p.add("again", "To repeat it", "다시 실행하려면",
		pre("command", "labctl's command line", "labctl 명령", quoted(run.Command)), p.file(d, record.QEMUFile, "QEMU's command line", "QEMU 명령", maxPrinted))
	p.add("console", "Console", "콘솔", p.file(d, record.ConsoleFile, "The guest's console, its end", "게스트 콘솔의 끝부분", maxConsole))
	return p, nil
}

// add adds a section of what views there are.
func (p *Page) add(id, en, ko string, views ...*view.View) {
	views = slices.DeleteFunc(views, func(v *view.View) bool { return v == nil })
	if len(views) > 0 {
		p.Sections = append(p.Sections, Section{id, view.Words{EN: en, KO: ko}, views})
	}
}

func pre(id, en, ko, s string) *view.View {
	if strings.TrimSpace(s) == "" {
		return nil
	}
	return &view.View{ID: id, Title: view.Words{EN: en, KO: ko}, Pre: s}
}

// file is the end of a record's file; nil where there is none.
func (p *Page) file(d record.Dir, name, en, ko string, most int) *view.View {
	f, err := bounded.Open(d.File(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	id := strings.ReplaceAll(name, ".", "-")
	if err != nil {
		return &view.View{ID: id, Title: view.Words{EN: en, KO: ko}, Failed: err.Error()}
	}
	defer f.Close()
	tail := &bounded.Tail{Max: most}
	fi, err := f.Stat()
	if err == nil {
		_, err = f.Seek(max(0, fi.Size()-int64(2*most)), io.SeekStart)
		if err == nil {
			_, err = io.Copy(tail, io.LimitReader(f, int64(2*most)))
		}
	}
	if err != nil {
		return &view.View{ID: id, Title: view.Words{EN: en, KO: ko}, Failed: err.Error()}
	}
	return pre(id, en, ko, tail.String())
}

// quoted is a command as a shell takes it.
func quoted(argv []string) string {
	var out []string
	for _, a := range argv {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%", r)
		}) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

// lab adds what a lab's result shows.
func (p *Page) lab(d record.Dir, find judge.FindLab) error {
	r, err := judge.Read(d.Path, find)
	if err != nil && (r == nil || r.Unfinished == nil) {
		return err
	}
	p.Title = view.Words{EN: r.Lab.ID + " " + r.Lab.Title.In("en"), KO: r.Lab.ID + " " + r.Lab.Title.In("ko")}
	summary := view.Words(r.Lab.Summary)
	p.Summary = &summary
	rep := r.Report
	if r.Report != nil && !r.Result.Exercise {
		p.add("claims", "What is claimed", "주장", claims(rep))
		p.add("see", "What there is to see", "볼 것", see.Views(r.Lab, r.Result)...)
	}
	if r.Unfinished != nil {
		p.add("checks", "Checks", "검사", notJudged("unfinished", view.Words{
			EN: "the run failed: " + r.Unfinished.Why, KO: "실행이 실패했습니다: " + r.Unfinished.Why,
		}))
	}
	p.add("checks", "Checks", "검사", checks(rep, r.Result.Exercise)...)
	all, program := see.Tasks(r.Result)
	p.add("tasks", "Tasks", "태스크", append(report.Tasks(all, program), &view.View{
		ID: "stacks", Title: view.Words{EN: "Ways through the kernel", KO: "커널에서 지나온 길"}, Stacks: see.Creations(r.Result),
	})...)
	var printed []*view.View
	for _, s := range r.Result.Steps {
		printed = append(printed, pre("out-"+s.ID, s.ID+": standard output", s.ID+": 표준 출력", end(s.Stdout)), pre("err-"+s.ID, s.ID+": standard error", s.ID+": 표준 오류", end(s.Stderr)))
	}
	p.add("printed", "What programs printed", "프로그램의 출력", printed...)
	return nil
}

func end(s string) string {
	if n := len(s); n > maxPrinted {
		return "…\n" + strings.ToValidUTF8(s[n-maxPrinted:], "")
	}
	return s
}

func word(v judge.Verdict) view.Cell {
	c := view.Cell{Kind: view.Said, Words: view.Words{EN: show.Word("en", string(v)), KO: show.Word("ko", string(v))}}
	switch v {
	case judge.Pass, judge.Confirmed:
		c.Tone = view.Good
	case judge.Fail, judge.Tampered, judge.Refuted:
		c.Tone = view.Bad
	default:
		c.Tone = view.Mixed
	}
	return c
}

func said(w view.Words) view.Cell { return view.Cell{Kind: view.Said, Words: w} }

func plain(s string) view.Cell { return view.Cell{Kind: view.Text, Text: s} }

func claims(rep *judge.Report) *view.View {
	if len(rep.Claims) == 0 {
		return nil
	}
	t := &view.Table{Columns: []view.Column{
		{Head: view.Words{EN: "CLAIM", KO: "주장"}}, {Head: view.Words{EN: "SOURCE", KO: "출처"}}, {Head: view.Words{EN: "VERDICT", KO: "판정"}},
		{Head: view.Words{EN: "SEEN", KO: "관찰"}}, {Head: view.Words{EN: "BECAUSE", KO: "이유"}},
	}}
	for _, c := range rep.Claims {
		why := view.Cell{Kind: view.None}
		if c.Why != nil {
			why = said(view.Words(*c.Why))
		}
		seen := plain(c.Evidence)
		if c.EvidenceKO != "" {
			seen = said(view.Words{EN: c.Evidence, KO: c.EvidenceKO})
		}
		if c.Error != "" {
			seen = view.Cell{Kind: view.Wrong, Text: c.Error}
		}
		t.Rows = append(t.Rows, view.Row{Cells: []view.Cell{
			said(view.Words(c.Says)), said(view.Words{EN: show.Source("en", c.Source), KO: show.Source("ko", c.Source)}), word(c.Verdict), seen, why,
		}})
	}
	return &view.View{ID: "claims", Title: view.Words{EN: "Claims, and what this kernel shows", KO: "주장과 이 커널이 보인 것"}, Table: t}
}

// checks are a report's. Of an exercise nothing is shown that says what a check wants.
func checks(rep *judge.Report, exercise bool) (views []*view.View) {
	if rep == nil {
		return nil
	}
	for i, m := range slices.Concat(rep.Missing, rep.Tampered) {
		views = append(views, notJudged(fmt.Sprintf("not%d", i), view.Same(m)))
	}
	t := &view.Table{Columns: []view.Column{
		{Head: view.Words{EN: "CHECK", KO: "검사"}}, {Head: view.Words{EN: "EXPECTED", KO: "기대"}}, {Head: view.Words{EN: "VERDICT", KO: "판정"}}, {Head: view.Words{EN: "SEEN", KO: "관찰"}},
	}}
	for _, c := range rep.Checks {
		seen := c.Seen
		if exercise {
			seen = c.Observed()
		}
		var lines []string
		if c.Error != "" && !exercise {
			lines = append(lines, "! "+c.Error)
		}
		for _, s := range seen {
			lines = append(lines, s.String())
		}
		cell := orNone(strings.Join(lines, " · "))
		if c.Why != nil {
			cell = said(view.Words(*c.Why))
		}
		t.Rows = append(t.Rows, view.Row{Cells: []view.Cell{plain(c.ID), said(view.Words(c.Says)), word(c.Verdict), cell}})
	}
	if len(t.Rows) > 0 {
		views = append(views, &view.View{ID: "checks", Title: view.Words{EN: "What must hold", KO: "성립해야 하는 것"}, Table: t})
	}
	return views
}

func notJudged(id string, why view.Words) *view.View {
	return &view.View{ID: id, Title: view.Words{EN: "Not judged", KO: "판정하지 않음"}, Absent: &why}
}

func orNone(s string) view.Cell {
	if s == "" {
		return view.Cell{Kind: view.None}
	}
	return plain(s)
}

// ofMatrix is the page of a matrix; of one that is a class, with its gradebook.
func ofMatrix(r *matrix.Results, dir, lang string, find judge.FindLab) (*Page, error) {
	p := &Page{
		Lang: lang, Title: view.Same(text.Line(cmp.Or(r.Name, "matrix"), 100)), Version: text.Line(r.Labctl, 60),
		Outcome: string(r.Worst()), Tone: toneOf(r.Worst()),
		Facts: []Fact{
			fact("Cells", "칸", fmt.Sprint(len(r.Results))), fact("Started", "시작", r.Started.UTC().Format(time.RFC3339)),
			fact("Seconds", "초", fmt.Sprintf("%.1f", r.Seconds)), fact("CPU seconds", "CPU 초", fmt.Sprintf("%.1f", r.CPUSeconds)),
		},
	}
	if l := exerciseOf(r, find); l != nil {
		p.Title = view.Words{EN: l.ID + " " + l.Title.In("en"), KO: l.ID + " " + l.Title.In("ko")}
		p.add("book", "The class", "반", class.NewBook(l, nil, r.Results).Views()...)
		return p, nil
	}
	p.add("results", "Results", "결과", render.Views(r)...)
	p.add("drift", "The same fork in all kernels", "모든 커널의 같은 fork", drift(dir, find)...)
	return p, nil
}

// exerciseOf is the lab whose submissions a matrix grades; nil for any other matrix.
func exerciseOf(r *matrix.Results, find judge.FindLab) *lab.Lab {
	for _, res := range r.Results {
		if res.Cell.Work.Kind == matrix.Exercise {
			if l, err := find(res.Cell.Work.Name); err == nil && l.Exercise != nil {
				return l
			}
		}
	}
	return nil
}

// drift lays the ways of all kernels to make a task side by side.
func drift(dir string, find judge.FindLab) (views []*view.View) {
	kernels, _, err := diff.Load([]string{dir}, find)
	if err != nil || len(kernels) < 2 {
		return nil // there is nothing to compare
	}
	for i, d := range diff.New(kernels, []string{diff.Stacks, diff.Claims}) {
		var heads []view.Column
		for _, k := range d.Kernels {
			heads = append(heads, view.Column{Head: view.Same(k.Label + " " + k.Target)})
		}
		for _, w := range d.Paths {
			views = append(views, &view.View{ID: fmt.Sprintf("way%d-%s", i, w.Way), Title: view.Same(w.Way), Table: rows(heads, w.Frames, false)})
		}
		for _, c := range []struct {
			id, en, ko string
			rows       []diff.Row
		}{{"checks", "Checks whose verdict differs", "판정이 다른 검사", d.Checks}, {"claims", "Claims whose verdict differs", "판정이 다른 주장", d.Claims}} {
			if len(c.rows) > 0 {
				views = append(views, &view.View{ID: fmt.Sprintf("%s%d", c.id, i), Title: view.Words{EN: c.en, KO: c.ko}, Table: rows(heads, c.rows, true)})
			}
		}
	}
	return views
}

func rows(heads []view.Column, all []diff.Row, named bool) *view.Table {
	t := &view.Table{Columns: heads, Named: named}
	for _, r := range all {
		row := view.Row{Name: view.Same(r.Name)}
		for _, c := range r.Cells {
			cell := orNone(c.Text)
			if c.Unknown {
				cell = plain("?")
			}
			if len(c.Changes) > 0 {
				cell.Tone = view.Mixed
			}
			row.Cells = append(row.Cells, cell)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
