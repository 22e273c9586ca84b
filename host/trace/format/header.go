package format

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Page is events/header_page: the start of a ring buffer's page (sub-buffer),
// struct buffer_data_page in kernel/trace/ring_buffer.c.
type Page struct {
	// CommitOffset and CommitSize are the place of the word that tells how
	// many bytes of data there are; its size is the kernel's unsigned long, 4
	// or 8. The 8 bytes before it are the page's time.
	CommitOffset, CommitSize int
	DataOffset               int // of the first record
	Size                     int // of the page with its header
}

// ParsePage reads events/header_page.
func ParsePage(b []byte) (Page, error) {
	p, err := parsePage(b)
	if err != nil {
		return Page{}, fmt.Errorf("format of ring-buffer pages (header_page): %w", err)
	}
	return p, nil
}

func parsePage(b []byte) (p Page, err error) {
	if len(b) > maxText {
		return p, fmt.Errorf("%d bytes, more than %d", len(b), maxText)
	}
	fields := map[string]Field{}
	for line := range strings.Lines(string(b)) {
		if decl, ok := strings.CutPrefix(strings.TrimSpace(line), "field:"); ok {
			f, err := parseField(decl, 8)
			if err != nil {
				return p, err
			}
			fields[f.Name] = f
		}
	}
	for _, name := range []string{"timestamp", "commit", "data"} {
		if _, ok := fields[name]; !ok {
			return p, fmt.Errorf("no field %s", name)
		}
	}
	stamp, commit, data := fields["timestamp"], fields["commit"], fields["data"]
	p = Page{CommitOffset: commit.Offset, CommitSize: commit.Size, DataOffset: data.Offset, Size: data.Offset + data.Size}
	switch {
	case stamp.Offset != 0 || stamp.Size != 8:
		return p, fmt.Errorf("timestamp at %d of %d bytes, not at 0 of 8", stamp.Offset, stamp.Size)
	case commit.Size != 4 && commit.Size != 8:
		return p, fmt.Errorf("commit of %d bytes, not 4 or 8", commit.Size)
	case commit.Offset < 8 || data.Offset < commit.Offset+commit.Size:
		return p, fmt.Errorf("fields overlap: commit at %d, data at %d", commit.Offset, data.Offset)
	case p.Size < 64 || p.Size > maxRecord:
		return p, fmt.Errorf("a page of %d bytes; it has 64 to %d", p.Size, maxRecord)
	}
	return p, nil
}

// records is what every kernel since 2.6.28 says of a record's first word.
var records = []struct {
	pattern *regexp.Regexp
	want    uint64
}{
	{regexp.MustCompile(`type_len\s*:\s*(\d+) bits`), 5},
	{regexp.MustCompile(`time_delta\s*:\s*(\d+) bits`), 27},
	{regexp.MustCompile(`array\s*:\s*(\d+) bits`), 32},
	{regexp.MustCompile(`padding\s*: type == (\d+)`), 29},
	{regexp.MustCompile(`time_extend\s*: type == (\d+)`), 30},
	{regexp.MustCompile(`time_stamp\s*: type == (\d+)`), 31},
	{regexp.MustCompile(`data max type_len\s*== (\d+)`), 28},
}

// CheckRecord holds events/header_event against the only layout of records
// there has been since type_len has 5 bits. A line that is missing is not held
// against it: time_stamp came later.
func CheckRecord(b []byte) error {
	if len(b) > maxText {
		return fmt.Errorf("format of ring-buffer records (header_event): %d bytes, more than %d", len(b), maxText)
	}
	for _, r := range records {
		m := r.pattern.FindSubmatch(b)
		if m == nil {
			continue
		}
		if n, err := strconv.ParseUint(string(m[1]), 10, 32); err != nil || n != r.want {
			return fmt.Errorf("format of ring-buffer records (header_event): %q, not %d", m[0], r.want)
		}
	}
	return nil
}
