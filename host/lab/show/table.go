package show

import "strings"

// cellsOf cuts a row at its bars; "\|" is none.
func cellsOf(row string) (out []string) {
	row = strings.TrimSpace(row)
	row = strings.TrimPrefix(row, "|")
	if strings.HasSuffix(row, "|") && !strings.HasSuffix(row, `\|`) {
		row = row[:len(row)-1]
	}
	var b strings.Builder
	for i := 0; i < len(row); i++ {
		switch {
		case row[i] == '\\' && i+1 < len(row) && row[i+1] == '|':
			b.WriteByte('|')
			i++
		case row[i] == '|':
			out = append(out, strings.TrimSpace(b.String()))
			b.Reset()
		default:
			b.WriteByte(row[i])
		}
	}
	return append(out, strings.TrimSpace(b.String()))
}

const (
	narrowest = 4 // cells of a column
	between   = " │ "
)

// widths chooses the columns' widths, from the natural ones and those of the
// longest words, so that they take at most cells cells in all: the widest column
// gives first.
func widths(natural, longest []int, cells int) []int {
	w := append([]int(nil), natural...)
	for _, least := range [][]int{longest, nil} {
		for {
			total, widest := 0, -1
			for i, n := range w {
				total += n
				floor := narrowest
				if least != nil {
					floor = max(floor, least[i])
				}
				if n > floor && (widest < 0 || n > w[widest]) {
					widest = i
				}
			}
			if total <= cells {
				return w
			}
			if widest < 0 {
				break
			}
			w[widest]--
		}
	}
	return w
}

// table lays the rows of a Markdown table out for so many cells.
func table(rows []string, cells int, plain bool) string {
	head := cellsOf(rows[0])
	right := make([]bool, len(head))
	for i, d := range cellsOf(rows[1]) {
		if i < len(right) {
			right[i] = strings.HasSuffix(d, ":") && !strings.HasPrefix(d, ":")
		}
	}
	natural, longest := make([]int, len(head)), make([]int, len(head))
	var all [][][]word // by row, by column
	for i, r := range rows {
		if i == 1 {
			continue
		}
		row := make([][]word, len(head))
		for j, c := range cellsOf(r) {
			if j == len(head) {
				break // as GFM has it
			}
			row[j] = words(c)
			natural[j] = max(natural[j], line(row[j]).width())
			for _, w := range row[j] {
				longest[j] = max(longest[j], w.width())
			}
		}
		all = append(all, row)
	}
	w := widths(natural, longest, cells-margin-width.StringWidth(between)*(len(head)-1))
	var b strings.Builder
	left := strings.Repeat(" ", margin)
	for i, row := range all {
		var more style
		if i == 0 {
			more = strong
		}
		wrapped, height := make([][]line, len(row)), 1
		for j := range row {
			wrapped[j] = wrap(row[j], w[j])
			height = max(height, len(wrapped[j]))
		}
		for k := range height {
			b.WriteString(left)
			for j := range row {
				var l line
				if k < len(wrapped[j]) {
					l = wrapped[j][k]
				}
				gap := strings.Repeat(" ", max(0, w[j]-l.width()))
				if j > 0 {
					b.WriteString(between)
				}
				if right[j] {
					b.WriteString(gap)
				}
				printLine(&b, l, more, plain)
				if !right[j] {
					b.WriteString(gap)
				}
			}
			b.WriteByte('\n')
		}
		if i == 0 {
			b.WriteString(left)
			for j := range w {
				if j > 0 {
					b.WriteString("─┼─")
				}
				b.WriteString(strings.Repeat("─", w[j]))
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}
