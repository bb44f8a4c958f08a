package record

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The types of the CloudEvents that clients get.
const (
	TypeReply  = "osmosis.reply"
	TypeStatus = "osmosis.status"
	TypeEnd    = "osmosis.end"
	TypeGap    = "osmosis.gap"
)

const jsonType = "application/json"

// Event is a CloudEvent on its way to a client, as it stands in WebSocket
// frames and in the JSON form of a stream. Topic, StreamID, ID and Time are for
// the caller to set; the functions below give the rest.
type Event struct {
	// Type is one of the Type constants.
	Type string
	// Topic is the request topic; the event's source is /osmosis/<topic>.
	Topic string
	// StreamID is the event's subject.
	StreamID string
	// ID is unique within the source: the cursor for replies and the end.
	ID string
	// Cursor is what the client resumes with after this event; empty for
	// events that it cannot resume from. An extension attribute.
	Cursor string
	// Time is the log's time of the record; zero where there is none.
	Time time.Time
	// Status is a reply's HTTP status, an extension attribute; 0 for none.
	Status int
	// Name is the name that a reply's event had at the service which answered,
	// the extension attribute event; empty for none.
	Name string
	// ContentType is the media type of the data; empty where it is not known.
	ContentType string
	// Data is the body.
	Data []byte
}

// ReplyEvent is the event of a reply, to be resumed from at cursor.
func ReplyEvent(cursor string, r Reply) Event {
	return Event{
		Type: TypeReply, StreamID: r.StreamID, ID: cursor, Cursor: cursor,
		Status: r.Status, Name: r.Event, ContentType: r.Header.Get("Content-Type"), Data: r.Body,
	}
}

// StatusEvent is the event of a change of state.
func StatusEvent(id string, s Status) Event {
	return Event{Type: TypeStatus, ID: id, ContentType: jsonType, Data: s.AppendJSON(nil)}
}

// EndEvent is the event of a stream's end.
func EndEvent(cursor string, e End) Event {
	return Event{Type: TypeEnd, ID: cursor, Cursor: cursor, ContentType: jsonType, Data: e.AppendJSON(nil)}
}

// GapEvent is the event of a gap.
func GapEvent(id string, g Gap) Event {
	return Event{Type: TypeGap, ID: id, ContentType: jsonType, Data: g.AppendJSON(nil)}
}

// AppendJSON writes the event in the CloudEvents JSON format, on one line
// unless its data has line breaks between JSON tokens. What is JSON by its media
// type and by its content becomes data as it is; other text becomes a string;
// all else becomes data_base64. Data without a media type is told as text/plain
// or application/octet-stream, because a CloudEvent without one is JSON.
func (e Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"specversion":"1.0","id":`...)
	dst = appendString(dst, e.ID)
	dst = append(dst, `,"source":`...)
	dst = appendString(dst, "/osmosis/"+e.Topic)
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, e.Type)
	if e.StreamID != "" {
		dst = append(dst, `,"subject":`...)
		dst = appendString(dst, e.StreamID)
	}
	if !e.Time.IsZero() {
		dst = append(dst, `,"time":"`...)
		dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
	}
	if e.Cursor != "" {
		dst = append(dst, `,"cursor":`...)
		dst = appendString(dst, e.Cursor)
	}
	if e.Status != 0 {
		dst = append(dst, `,"status":`...)
		dst = strconv.AppendInt(dst, int64(e.Status), 10)
	}
	dst = appendText(dst, `,"event":`, e.Name)
	return append(e.appendData(dst), '}')
}

func (e Event) appendData(dst []byte) []byte {
	contentType := e.ContentType
	text := utf8.Valid(e.Data)
	if contentType == "" && len(e.Data) > 0 {
		if contentType = "application/octet-stream"; text {
			contentType = "text/plain; charset=utf-8"
		}
	}
	if contentType != "" {
		dst = append(dst, `,"datacontenttype":`...)
		dst = appendString(dst, contentType)
	}
	isJSON := isJSON(contentType)
	switch {
	case len(e.Data) == 0:
		return dst
	case text && isJSON && json.Valid(e.Data):
		dst = append(dst, `,"data":`...)
		return append(dst, e.Data...)
	case text && !isJSON:
		dst = append(dst, `,"data":`...)
		return appendString(dst, string(e.Data))
	}
	// A body that its media type calls JSON and that is none goes here too: as a
	// string it would read as a JSON string, which it is not.
	dst = append(dst, `,"data_base64":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, e.Data)
	return append(dst, '"')
}

// AppendJSON writes the status as one line of JSON. RetryAt is written as RFC
// 3339 in UTC, always with three digits of a second's fraction; a year that has
// no four digits there is left out.
func (s Status) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"status":`...)
	dst = appendString(dst, string(s.Status))
	dst = appendCount(dst, `,"attempt":`, s.Attempt)
	dst = appendCount(dst, `,"code":`, s.Code)
	dst = appendText(dst, `,"reason":`, s.Reason)
	if !s.RetryAt.IsZero() && writable(s.RetryAt) {
		dst = append(dst, `,"retry_at":"`...)
		dst = s.RetryAt.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

// AppendJSON writes the end as one line of JSON. Headers become an object of
// lower-cased names and lists of values.
func (e End) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"status":`...)
	dst = appendString(dst, string(e.Status))
	dst = appendCount(dst, `,"code":`, e.Code)
	dst = appendHeaders(dst, e.Headers)
	dst = appendCount(dst, `,"attempts":`, e.Attempts)
	return append(appendText(dst, `,"reason":`, e.Reason), '}')
}

// AppendJSON writes the gap as one line of JSON.
func (g Gap) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"reason":`...)
	dst = appendString(dst, g.Reason)
	dst = appendText(dst, `,"from":`, g.From)
	return append(appendText(dst, `,"to":`, g.To), '}')
}

// MarshalJSON makes the end the same in larger JSON documents.
func (e End) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

func appendHeaders(dst []byte, h http.Header) []byte {
	names := sortedNames(h)
	open := false
	for _, name := range names {
		lower := strings.ToLower(name)
		if len(h[name]) == 0 || lower == "set-cookie" || lower == "set-cookie2" {
			continue
		}
		if open {
			dst = append(dst, ',')
		} else {
			dst, open = append(dst, `,"headers":{`...), true
		}
		dst = append(appendString(dst, lower), ':')
		for i, v := range h[name] {
			dst = append(dst, "[,"[min(i, 1)])
			dst = appendString(dst, v)
		}
		dst = append(dst, ']')
	}
	if open {
		dst = append(dst, '}')
	}
	return dst
}

func appendCount(dst []byte, name string, n int) []byte {
	if n == 0 {
		return dst
	}
	return strconv.AppendInt(append(dst, name...), int64(n), 10)
}

func appendText(dst []byte, name, text string) []byte {
	if text == "" {
		return dst
	}
	return appendString(append(dst, name...), text)
}

const hex = "0123456789abcdef"

// appendString writes a JSON string. Bytes that are no UTF-8 become the
// replacement character. What ends a line for some reader, in JavaScript too,
// is escaped, so that no text can break out of a line of an event stream.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[done:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			done = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(append(dst, s[done:i]...), `\ufffd`...)
			done = i + size
		case r == '\u2028' || r == '\u2029':
			dst = append(append(dst, s[done:i]...), `\u202`...)
			dst = append(dst, hex[r&15])
			done = i + size
		}
		i += size
	}
	return append(append(dst, s[done:]...), '"')
}
