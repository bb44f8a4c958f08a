package rig

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Table is a table in Markdown.
type Table struct {
	Head []string
	Rows [][]string
}

// Add appends a row: texts as they are, ratios (float64) as "1.23 ×".
func (t *Table) Add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if ratio, ok := c.(float64); ok {
			row[i] = fmt.Sprintf("%.2f ×", ratio)
			continue
		}
		row[i] = fmt.Sprint(c)
	}
	t.Rows = append(t.Rows, row)
}

// Write prints the table with a heading above it. The first column is text, the
// others are figures.
func (t *Table) Write(w io.Writer, heading string) {
	widths := make([]int, len(t.Head))
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 3)
		}
	}
	var b strings.Builder
	line := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString("| " + cell + pad)
			} else {
				b.WriteString(" | " + pad + cell)
			}
		}
		b.WriteString(" |\n")
	}
	fmt.Fprintf(&b, "\n### %s\n\n", heading)
	line(t.Head)
	for i, width := range widths {
		if i == 0 {
			b.WriteString("| " + strings.Repeat("-", width))
		} else {
			b.WriteString(" | " + strings.Repeat("-", width-1) + ":")
		}
	}
	b.WriteString(" |\n")
	for _, row := range t.Rows {
		line(row)
	}
	b.WriteString("\n")
	fmt.Fprint(w, b.String())
}

// Millis writes a time in milliseconds.
func Millis(d time.Duration) string { return fmt.Sprintf("%.3f ms", d.Seconds()*1000) }
