// Package page makes report.html: a record, a matrix or a class as one file for people,
// which loads nothing from anywhere. It reads records alone and starts no machine.
//
// What a guest, a learner or a file said is text on it: templates escape it, and the
// page's own policy (CSP) allows no script and no style but the two that are in it.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"sync"

	"labctl/host/text"
	"labctl/host/view"
)

// Page is a page before it is written.
type Page struct {
	Lang     string // that is shown first: "en", "ko"
	Title    view.Words
	Summary  *view.Words
	Outcome  string
	Tone     view.Tone
	Facts    []Fact
	Sections []Section
	Perfetto string // the file of the trace for ui.perfetto.dev; "" for none
	Version  string // of labctl
}

// Fact is one line of a page's head.
type Fact struct {
	Name  view.Words
	Value string
}

// Section is views under a heading.
type Section struct {
	ID    string
	Title view.Words
	Views []*view.View
}

//go:embed page.tmpl
var source string

//go:embed page.css
var css string

//go:embed page.js
var js string

var tmpl = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{"say": view.Say}).Parse(source))
})

// most bounds a page, in bytes; what is over it is left out, the last section first.
const most = 2 << 20

// HTML is the page's file.
func (p *Page) HTML() ([]byte, error) {
	style, script := view.CSS+css, view.JS+js
	type section struct {
		ID    string
		Title view.Words
		Body  template.HTML
	}
	data := struct {
		*Page
		Policy   string
		CSS      template.CSS
		JS       template.JS
		Sections []section
	}{
		Page: p, CSS: template.CSS(style), JS: template.JS(script),
		Policy: fmt.Sprintf("default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'", sum(style), sum(script)),
	}
	room := most - len(style) - len(script) - 64<<10
	for _, s := range p.Sections {
		var b bytes.Buffer
		for _, v := range s.Views {
			var one bytes.Buffer
			if err := view.HTML(&one, v, s.ID+"-"); err != nil {
				return nil, err
			}
			if one.Len() > room {
				why := view.Words{EN: "too large for this page; it is in the record", KO: "이 페이지에 담기에는 너무 큽니다. 실행 기록에 있습니다"}
				one.Reset()
				if err := view.HTML(&one, &view.View{ID: v.ID, Title: v.Title, Absent: &why}, s.ID+"-"); err != nil {
					return nil, err
				}
			}
			room -= one.Len()
			b.Write(one.Bytes())
		}
		if b.Len() > 0 {
			data.Sections = append(data.Sections, section{s.ID, s.Title, template.HTML(b.String())})
		}
	}
	var b bytes.Buffer
	if err := tmpl().Execute(&b, data); err != nil {
		return nil, fmt.Errorf("make a page: %w", err)
	}
	return b.Bytes(), nil
}

// sum is a source of a policy.
func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return "sha256-" + base64.StdEncoding.EncodeToString(h[:])
}

func fact(en, ko, value string) Fact {
	return Fact{view.Words{EN: en, KO: ko}, text.Line(value, 500)}
}
