package serve

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"

	"labctl/host/lab"
	"labctl/host/lab/progress"
	"labctl/host/lab/show"
	"labctl/host/outcome"
	"labctl/host/text"
	"labctl/host/view"
)

// files are the page's; web/vendor, which make ui makes, has the terminal.
//
//go:embed all:web
var files embed.FS

const vendor = "vendor"

// HasTerminal reports whether this labctl was built with the terminal.
func HasTerminal() bool {
	_, err := fs.Stat(files, path.Join("web", vendor, "xterm.mjs"))
	return err == nil
}

var templates = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("").Funcs(template.FuncMap{
		"word": word, "in": func(t lab.Text, lang string) string { return t.In(lang) }, "source": show.Source,
	}).ParseFS(files, "web/*.tmpl"))
})

// markdown renders lessons: raw HTML in them is left out, and so are links that would
// run something.
var markdown = sync.OnceValue(func() goldmark.Markdown {
	return goldmark.New(goldmark.WithExtensions(extension.GFM))
})

func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /{$}", s.home)
	// With the slash, so that a lesson finds its pictures.
	m.HandleFunc("GET /lab/{id}/{$}", s.withLab(s.labPage))
	m.HandleFunc("GET /lab/{id}/{name...}", s.withLab(s.labFile))
	m.HandleFunc("GET /machine", s.machinePage)
	m.HandleFunc("GET /class", s.classPage)
	m.HandleFunc("GET /static/{name...}", static)
	m.HandleFunc("GET /ws", func(w http.ResponseWriter, r *http.Request) { s.hub.serve(s.ctx, w, r, s.first) })
	m.HandleFunc("GET /ws/term", s.serveTerminal)

	m.HandleFunc("POST /api/machine/start", s.do(func(*http.Request) (any, error) { s.live.start(); return nil, nil }))
	m.HandleFunc("POST /api/machine/stop", s.do(func(*http.Request) (any, error) { s.live.stop(); return nil, nil }))
	m.HandleFunc("POST /api/lab/{id}/run", s.doLab(func(l *lab.Lab, _ *http.Request) (any, error) { return nil, s.startRun(l) }))
	m.HandleFunc("POST /api/lab/{id}/stop", s.doLab(func(l *lab.Lab, _ *http.Request) (any, error) { s.stopRun(l.ID); return nil, nil }))
	m.HandleFunc("POST /api/lab/{id}/begin", s.doLab(s.doBegin))
	m.HandleFunc("POST /api/lab/{id}/pick", s.doLab(s.doPick))
	m.HandleFunc("POST /api/lab/{id}/hint", s.doLab(s.doHint))
	m.HandleFunc("POST /api/lab/{id}/answers", s.doLab(s.doAnswers))
	m.HandleFunc("POST /api/folders", s.do(func(*http.Request) (any, error) { return s.folders(), nil }))
	return m
}

// first is what a tab gets when it comes, or comes again.
func (s *Server) first() (all [][]byte) {
	all = append(all, encode("machine", s.live.get()))
	for _, r := range s.runStates() {
		all = append(all, encode("run", r))
	}
	for _, x := range s.exerciseStates() {
		all = append(all, encode("exercise", x))
	}
	if known, err := s.o.Progress.Read(); err == nil {
		all = append(all, encode("progress", known))
	}
	if s.class != nil {
		all = append(all, encode("class", s.class.get()))
	}
	return all
}

// do answers a request of a page's script.
func (s *Server) do(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			status := http.StatusInternalServerError
			if outcome.Of(err) == outcome.BadInput {
				status = http.StatusBadRequest
			}
			var large *http.MaxBytesError
			if errors.As(err, &large) {
				status = http.StatusRequestEntityTooLarge
			}
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(map[string]string{"error": text.Line(err.Error(), maxLine)})
			return
		}
		json.NewEncoder(w).Encode(v)
	}
}

func (s *Server) doLab(f func(*lab.Lab, *http.Request) (any, error)) http.HandlerFunc {
	return s.withLab(func(w http.ResponseWriter, r *http.Request, l *lab.Lab) {
		s.do(func(r *http.Request) (any, error) { return f(l, r) })(w, r)
	})
}

func (s *Server) withLab(f func(http.ResponseWriter, *http.Request, *lab.Lab)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l := s.labs[r.PathValue("id")]
		if l == nil {
			http.Error(w, "there is no such lab", http.StatusNotFound)
			return
		}
		f(w, r, l)
	}
}

// body reads what a page's script sends.
func body(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return outcome.Default(outcome.BadInput, err)
	}
	return nil
}

func (s *Server) doBegin(l *lab.Lab, _ *http.Request) (any, error) {
	if l.Exercise == nil {
		return nil, outcome.Inputf("lab %s has no exercise", l.ID)
	}
	folder, err := s.begin(l)
	if err == nil {
		err = s.pick(l, folder)
	}
	return map[string]string{"folder": folder}, err
}

func (s *Server) doPick(l *lab.Lab, r *http.Request) (any, error) {
	var v struct{ Folder string }
	if err := body(r, &v); err != nil {
		return nil, err
	}
	if l.Exercise == nil {
		return nil, outcome.Inputf("lab %s has no exercise", l.ID)
	}
	return nil, s.pick(l, v.Folder)
}

// doHint gives the hints up to the one that is asked for, which is the next at most.
func (s *Server) doHint(l *lab.Lab, r *http.Request) (any, error) {
	var v struct{ Hint int }
	if err := body(r, &v); err != nil {
		return nil, err
	}
	if l.Exercise == nil {
		return nil, outcome.Inputf("lab %s has no exercise", l.ID)
	}
	known, err := s.o.Progress.Read()
	if err != nil {
		return nil, err
	}
	before := 0
	if p := known[l.ID]; p != nil {
		before = p.Hints
	}
	n := min(max(v.Hint, 0), before+1, len(l.Exercise.Hints))
	if n > before {
		s.keep(l.ID, func(p *progress.Lab) { p.Hint(n) })
	}
	return map[string]any{"hints": append([]lab.Text{}, l.Exercise.Hints[:n]...), "of": len(l.Exercise.Hints)}, nil
}

// doAnswers gives the answers to a lab's questions to who has tried.
func (s *Server) doAnswers(l *lab.Lab, _ *http.Request) (any, error) {
	known, err := s.o.Progress.Read()
	if err != nil {
		return nil, err
	}
	if p := known[l.ID]; p == nil || !p.MayRead(l.Exercise != nil) {
		if l.Exercise != nil {
			return nil, outcome.Inputf("the answers are here after a try at the exercise")
		}
		return nil, outcome.Inputf("the answers are here when the lab was run")
	}
	out := []lab.Text{}
	for _, q := range l.Questions {
		out = append(out, q.Answer)
	}
	return out, nil
}

// pageData is what templates get.
type pageData struct {
	Lang           string
	Title          string
	Page           string // "home", "lab", "machine", "class"
	Topics         []topic
	Lab            *lab.Lab
	Lesson         template.HTML
	Task           template.HTML
	Terminal       bool
	Class          bool
	Own            bool
	Broken         []string
	Words          map[string]string
	Previous, Next *lab.Lab
}

type topic struct {
	Name string
	Labs []*lab.Lab
}

func (s *Server) page(r *http.Request, kind, title string) *pageData {
	d := &pageData{
		Lang: s.lang(r), Title: title, Page: kind, Terminal: HasTerminal(), Class: s.class != nil, Own: s.o.In == "",
	}
	d.Words = scriptWords(d.Lang)
	return d
}

// lang is the language that the user has chosen, in the address or before.
func (s *Server) lang(r *http.Request) string {
	for _, l := range lab.Languages {
		if r.URL.Query().Get("lang") == l {
			return l
		}
	}
	if c, err := r.Cookie("labctl-lang"); err == nil {
		for _, l := range lab.Languages {
			if c.Value == l {
				return l
			}
		}
	}
	return s.o.Lang
}

func (s *Server) render(w http.ResponseWriter, r *http.Request, d *pageData) {
	if r.URL.Query().Get("lang") == d.Lang {
		http.SetCookie(w, &http.Cookie{Name: "labctl-lang", Value: d.Lang, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	}
	var b bytes.Buffer
	if err := templates().ExecuteTemplate(&b, d.Page+".tmpl", d); err != nil {
		http.Error(w, "this page cannot be made: "+text.Line(err.Error(), 200), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b.Bytes())
}

func (s *Server) home(w http.ResponseWriter, r *http.Request) {
	d := s.page(r, "home", "labctl")
	at := map[string]int{}
	for _, l := range s.order {
		i, ok := at[l.Topic]
		if !ok {
			i = len(d.Topics)
			at[l.Topic] = i
			d.Topics = append(d.Topics, topic{Name: l.Topic})
		}
		d.Topics[i].Labs = append(d.Topics[i].Labs, l)
	}
	for _, err := range s.broken {
		d.Broken = append(d.Broken, text.Line(err.Error(), maxLine))
	}
	s.render(w, r, d)
}

func (s *Server) labPage(w http.ResponseWriter, r *http.Request, l *lab.Lab) {
	d := s.page(r, "lab", l.ID+" "+l.Title.In(s.lang(r)))
	d.Lab = l
	for i, one := range s.order {
		if one == l && i > 0 {
			d.Previous = s.order[i-1]
		}
		if one == l && i+1 < len(s.order) {
			d.Next = s.order[i+1]
		}
	}
	d.Lesson = s.lesson(l, l.LessonIn(d.Lang))
	if l.Exercise != nil {
		d.Task = s.lesson(l, path.Join(lab.Exercise, l.TaskIn(d.Lang)))
	}
	s.render(w, r, d)
}

// lesson is a page of a lab as HTML, or what is wrong with it.
func (s *Server) lesson(l *lab.Lab, name string) template.HTML {
	source, err := l.ReadFile(name)
	var b bytes.Buffer
	if err == nil {
		err = markdown().Convert([]byte(text.Clean(string(source))), &b)
	}
	if err != nil {
		return template.HTML("<p class=\"trouble\">" + template.HTMLEscapeString(text.Line(err.Error(), maxLine)) + "</p>")
	}
	// Long lines are scrolled to by keyboard, too. Text of the lesson's own is escaped.
	return template.HTML(strings.ReplaceAll(b.String(), "<pre><code", `<pre tabindex="0"><code`))
}

// pictures are what lessons may show.
var pictures = map[string]string{".svg": "image/svg+xml", ".png": "image/png"}

func (s *Server) labFile(w http.ResponseWriter, r *http.Request, l *lab.Lab) {
	name := r.PathValue("name")
	kind := pictures[path.Ext(name)]
	if kind == "" || !fs.ValidPath(name) {
		http.Error(w, "no picture of this lab's", http.StatusNotFound)
		return
	}
	b, err := l.ReadFile(name)
	if err != nil {
		http.Error(w, "no picture of this lab's", http.StatusNotFound)
		return
	}
	// A picture is shown in a page; one that is opened by itself runs nothing either.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
	w.Header().Set("Content-Type", kind)
	w.Write(b)
}

func (s *Server) machinePage(w http.ResponseWriter, r *http.Request) {
	s.render(w, r, s.page(r, "machine", word(s.lang(r), "machine")))
}

func (s *Server) classPage(w http.ResponseWriter, r *http.Request) {
	if s.class == nil {
		http.Error(w, "labctl serve --class DIR shows a class", http.StatusNotFound)
		return
	}
	s.render(w, r, s.page(r, "class", word(s.lang(r), "class")))
}

// static serves the page's own files.
func static(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	var b []byte
	var err error
	switch {
	case name == "view.css":
		b = []byte(view.CSS)
	case name == "view.js":
		b = []byte(view.JS)
	case !fs.ValidPath(name) || path.Ext(name) == ".tmpl":
		err = fs.ErrNotExist
	default:
		b, err = fs.ReadFile(files, path.Join("web", name))
	}
	if err != nil {
		http.Error(w, "there is no such file", http.StatusNotFound)
		return
	}
	kind := mime.TypeByExtension(path.Ext(name))
	switch path.Ext(name) { // whatever the host's table says
	case ".js", ".mjs":
		kind = "text/javascript; charset=utf-8"
	case ".css":
		kind = "text/css; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Header().Set("Cache-Control", "private, max-age=60")
	w.Write(b)
}

// word is one of the page's own words in a language.
func word(lang, name string) string {
	w, ok := words[name]
	if !ok {
		return name
	}
	return w.In(lang)
}

// scriptWords are the words that scripts put on a page.
func scriptWords(lang string) map[string]string {
	out := map[string]string{}
	for name, w := range words {
		if after, ok := strings.CutPrefix(name, "js."); ok {
			out[after] = w.In(lang)
		}
	}
	return out
}
