package sim

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strings"
)

// A plot's size, in pixels: panels below each other, with room for labels.
const (
	plotWidth, plotLeft = 900, 60
	panelHeight         = 130
	panelGap            = 34
)

// lines are the policies' colours, readable on white and on black.
var lines = []string{"#0a7d5a", "#d9822b", "#b5532a", "#6a5acd", "#8a8f98", "#1f78c1"}

// Plot draws a comparison's first seed as SVG: what came in, how many workers
// each policy asked for, and what waited.
func Plot(c Comparison) []byte {
	var b bytes.Buffer
	height := 3*(panelHeight+panelGap) + 60
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img" aria-label="%s">`+"\n",
		plotWidth, height, html.EscapeString(c.Trace.Name))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="18" font-size="15">%s</text>`+"\n",
		plotWidth, height, plotLeft, html.EscapeString(c.Trace.Name))
	x := plotLeft
	for i, r := range c.Rows {
		fmt.Fprintf(&b, `<rect x="%d" y="28" width="10" height="10" fill="%s"/><text x="%d" y="37">%s</text>`+"\n",
			x, lines[i%len(lines)], x+14, html.EscapeString(r.Policy))
		x += 34 + 7*len(r.Policy)
	}
	inflow := func(s Sample) float64 { return s.Inflow }
	panel(&b, 0, "inflow, records/s", c.Rows[:1], inflow, c.Trace.Length)
	panel(&b, 1, "workers", c.Rows, func(s Sample) float64 { return s.Workers }, c.Trace.Length)
	// Backlogs differ by orders of magnitude.
	panel(&b, 2, "backlog, records (log)", c.Rows, func(s Sample) float64 { return math.Log10(1 + math.Max(0, s.Backlog)) }, c.Trace.Length)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// panel draws one value of all rows over time.
func panel(b *bytes.Buffer, number int, title string, rows []Row, value func(Sample) float64, length float64) {
	top := 60 + number*(panelHeight+panelGap)
	most := 1.0
	for _, r := range rows {
		for _, s := range r.First.Series {
			most = math.Max(most, value(s))
		}
	}
	label := fmt.Sprintf("%.0f", most)
	if strings.Contains(title, "(log)") {
		label = fmt.Sprintf("%.0f", math.Pow(10, most)-1)
	}
	width := plotWidth - plotLeft - 10
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text><text x="%d" y="%d" text-anchor="end">%s</text><text x="%d" y="%d" text-anchor="end">0</text>`+"\n",
		plotLeft, top-4, title, plotLeft-6, top+10, label, plotLeft-6, top+panelHeight)
	fmt.Fprintf(b, `<path d="M%d %dv%dh%d" fill="none" stroke="#888"/><text x="%d" y="%d" text-anchor="end">%.0f min</text>`+"\n",
		plotLeft, top, panelHeight, width, plotWidth-10, top+panelHeight+14, length/minute)
	for i := len(rows) - 1; i >= 0; i-- { // the first one on top
		series := rows[i].First.Series
		var path strings.Builder
		for n, s := range series {
			px := float64(plotLeft) + float64(width*n)/float64(len(series))
			py := float64(top+panelHeight) - panelHeight*value(s)/most
			if n == 0 {
				fmt.Fprintf(&path, "M%.1f %.1f", px, py)
			} else {
				fmt.Fprintf(&path, "H%.1fV%.1f", px, py)
			}
		}
		fmt.Fprintf(b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.3"/>`+"\n", path.String(), lines[i%len(lines)])
	}
}
