package labinit

import (
	"fmt"
	"os"
	"strings"
)

type options struct {
	link  string
	term  string
	quiet bool
}

func readOptions(path string) (options, error) {
	line, err := os.ReadFile(path)
	if err != nil {
		return options{}, fmt.Errorf("read kernel command line: %w", err)
	}
	return parseOptions(string(line)), nil
}

// parseOptions takes labctl's words from a kernel command line; the last of
// equal ones counts. The kernel takes a dotted name for a module's parameter
// and does not pass it to init, hence the reading.
func parseOptions(line string) options {
	o := options{term: "linux"}
	for word := range strings.FieldsSeq(line) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "labctl.link":
			o.link = value
		case "labctl.term":
			o.term = value
		case "labctl.quiet":
			o.quiet = true
		}
	}
	return o
}
