package osmosis

import (
	"strconv"
	"strings"
	"time"
)

// sseEvent is an event as a browser dispatches it. The name of one without is
// "message".
type sseEvent struct{ name, id, data string }

// sseParser reads an event stream line by line as the HTML standard has it
// (section 9.2.6), and knows nothing of the code that wrote it.
type sseParser struct {
	name   string
	data   strings.Builder
	lines  int
	lastID string

	retry    time.Duration
	comments int
}

// line takes a line without its end, and gives the event that it dispatches.
func (p *sseParser) line(line string) *sseEvent {
	if line == "" {
		defer func() {
			p.name, p.lines = "", 0
			p.data.Reset()
		}()
		if p.lines == 0 {
			return nil
		}
		e := &sseEvent{name: p.name, id: p.lastID, data: strings.TrimSuffix(p.data.String(), "\n")}
		if e.name == "" {
			e.name = "message"
		}
		return e
	}
	field, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "":
		p.comments++
	case "event":
		p.name = value
	case "data":
		p.data.WriteString(value + "\n")
		p.lines++
	case "id":
		if !strings.Contains(value, "\x00") {
			p.lastID = value
		}
	case "retry":
		if ms, err := strconv.Atoi(value); err == nil {
			p.retry = time.Duration(ms) * time.Millisecond
		}
	}
	return nil
}

// parseSSE reads a whole event stream. A line ends with CR LF, LF or CR.
func parseSSE(text string) (events []sseEvent) {
	var p sseParser
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.ReplaceAll(text, "\r", "\n")
	lines := strings.Split(text, "\n")
	for _, line := range lines[:len(lines)-1] {
		if e := p.line(line); e != nil {
			events = append(events, *e)
		}
	}
	return events
}
