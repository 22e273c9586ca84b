package text

import (
	"fmt"
	"strings"
)

// Markdown is Clean for Markdown: nothing in it is markup, a name that is mentioned, a link
// or a cell's end.
func Markdown(s string) string {
	var b strings.Builder
	for _, r := range Clean(s) {
		if strings.ContainsRune("&<>|`*_~[]()\\\"'!#@:$^={}", r) {
			fmt.Fprintf(&b, "&#%d;", r)
		} else {
			b.WriteRune(r)
		}
	}
	return strings.ReplaceAll(b.String(), "www.", "www&#46;")
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// Escape is Clean for text that stands between tags.
func Escape(s string) string { return escaper.Replace(Clean(s)) }
