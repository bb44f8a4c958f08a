package deliver

import (
	"bytes"
	"mime"
	"net/http"
	"strings"
)

// isEvents tells whether an answer is a stream of server-sent events.
func isEvents(h http.Header) bool {
	mediaType, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && mediaType == "text/event-stream" && h.Get("Content-Encoding") == ""
}

// event is one server-sent event.
type event struct {
	name string
	data []byte
}

// events reads a stream of server-sent events as a browser does (HTML, section
// 9.2.6): lines end with CR LF, LF or CR, an empty one ends an event, and one
// that the stream's end cuts off is none. Ids and retry times are left out,
// since the client resumes from where the replies lie, not from the upstream.
type events struct {
	line  []byte // begun, not ended
	begun bool   // the stream's first line was read, and with it a byte order mark
	// afterCR says that a LF which comes now belongs to the line before.
	afterCR bool

	name string
	data []byte
	has  bool // a data field

	ready []event
}

// feed takes the next bytes of the stream.
func (e *events) feed(b []byte) {
	for len(b) > 0 {
		if e.afterCR && b[0] == '\n' {
			b = b[1:]
		}
		e.afterCR = false
		i := bytes.IndexAny(b, "\r\n")
		if i < 0 {
			e.line = append(e.line, b...)
			return
		}
		e.line = append(e.line, b[:i]...)
		e.afterCR = b[i] == '\r'
		b = b[i+1:]
		e.end()
	}
}

// end takes the line that is complete.
func (e *events) end() {
	line := e.line
	if !e.begun {
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
		e.begun = true
	}
	if len(line) == 0 {
		e.dispatch()
	} else {
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			e.data = append(append(e.data, value...), '\n')
			e.has = true
		case "event":
			e.name = string(value)
		}
	}
	e.line = e.line[:0]
}

// dispatch ends an event. One without data is none.
func (e *events) dispatch() {
	if e.has {
		e.ready = append(e.ready, event{strings.ToValidUTF8(e.name, "\ufffd"), e.data[:len(e.data)-1]})
	}
	e.name, e.data, e.has = "", nil, false
}

// next gives an event that is complete.
func (e *events) next() (event, bool) {
	if len(e.ready) == 0 {
		return event{}, false
	}
	first := e.ready[0]
	e.ready = e.ready[1:]
	return first, true
}

// held is how much of an event that is not complete lies in memory, in bytes.
func (e *events) held() int { return len(e.line) + len(e.data) }
