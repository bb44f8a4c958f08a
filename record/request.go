package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// ErrRequest says that a record is no request of the contract: a producer that
// is no gateway wrote it, or wrote it wrongly. The text says what is amiss.
var ErrRequest = errors.New("not a request record")

// Meta is what a request record says besides the HTTP request itself.
type Meta struct {
	// StreamID names the stream that the client follows, see NewID. It becomes
	// the correlation id and, unless the request is a CloudEvent with an id of
	// its own, ce_id.
	StreamID string
	// Source and Type become ce_source and ce_type, unless the request is a CloudEvent.
	Source, Type string
	// Time is when the request came. It becomes ce_time, unless the request is a CloudEvent.
	Time time.Time
	// Scheme is http or https, as the client used it.
	Scheme string
	// ClientIP is the client's address without port, as the trusted proxies
	// tell it. What is no IP address is told as unknown.
	ClientIP string
	// ReplyTopic and ReplyPartition are where the answer is awaited. Without a
	// topic the record asks for no reply.
	ReplyTopic     string
	ReplyPartition int32
	// Expires is when nobody waits any longer, to the millisecond. Zero: never.
	Expires time.Time
	// Names are the headers that are carried besides the allowlist, in any
	// case. Hop-by-hop fields, Content-Length, Host, Forwarded and the
	// contract's own names are not carried even so.
	Names []string
}

// FromHTTP makes the record of a request. The record refers to the body, and
// has no key: placing it is the caller's business. The path is that of r.URL,
// so a caller that wants the path from before a rewrite passes a request with
// that URL.
//
// Headers that HTTP does not allow, with CR, LF or NUL in the value, are left
// out. Equal requests with equal Meta make equal records, header for header.
//
// A request that is a CloudEvent keeps its attributes, and in structured mode
// its data becomes the value. ErrEvent is returned when it is one that cannot
// be read, which is the client's fault (415).
func FromHTTP(r *http.Request, body []byte, m Meta) (Record, error) {
	return new(Scratch).FromHTTP(r, body, m)
}

// Scratch is memory in which records are made one after the other, so that
// making them costs no more of it. The zero value is ready. It is for one
// goroutine at a time.
type Scratch struct {
	headers []Header
	arena   []byte
}

// FromHTTP is the function of that name. The record is good until the next call.
func (s *Scratch) FromHTTP(r *http.Request, body []byte, m Meta) (Record, error) {
	event, err := readEvent(r.Header, body)
	if err != nil {
		return Record{}, err
	}
	var space [32]field
	fields := requestFields(space[:0], r.Header, m.Names)

	path := requestPath(r.URL)
	b := s.builder(r, path, fields, event, &m)
	method := r.Method
	if method == "" {
		method = http.MethodGet // as net/http has it
	}
	b.text(HeaderMethod, method)
	b.text(HeaderScheme, m.Scheme)
	b.text(HeaderAuthority, r.Host)
	b.text(HeaderPath, path)
	for _, f := range fields {
		if event.structured && ofEnvelope(f.name) {
			continue
		}
		for _, v := range f.values {
			if httpguts.ValidHeaderFieldValue(v) {
				b.text(f.name, v)
			}
		}
	}
	if event.contentType != "" {
		b.text("content-type", event.contentType)
	}
	b.begin()
	b.arena = appendForwarded(b.arena, Forwarded{For: m.ClientIP, Proto: m.Scheme, Host: r.Host})
	b.end(HeaderForwarded)

	if event.attributes != nil {
		for _, a := range event.attributes {
			b.text(attributePrefix+a.name, a.value)
		}
	} else {
		b.text("ce_specversion", specVersion)
		b.text("ce_id", m.StreamID)
		b.text("ce_source", m.Source)
		b.text("ce_type", m.Type)
		b.begin()
		b.arena = m.Time.UTC().AppendFormat(b.arena, time.RFC3339Nano)
		b.end("ce_time")
	}
	if m.ReplyTopic != "" {
		b.text(HeaderReplyTopic, m.ReplyTopic)
		b.begin()
		b.arena = binary.BigEndian.AppendUint32(b.arena, uint32(m.ReplyPartition)) //nolint:gosec // as Java writes an int
		b.end(HeaderReplyPartition)
	}
	b.text(HeaderCorrelationID, m.StreamID)
	if !m.Expires.IsZero() {
		b.begin()
		b.arena = strconv.AppendInt(b.arena, m.Expires.UnixMilli(), 10)
		b.end(HeaderExpires)
	}

	value := body
	if event.structured {
		value = event.data
	}
	if value == nil {
		value = []byte{} // a null value would be a tombstone
	}
	s.headers, s.arena = b.headers, b.arena
	return Record{Value: value, Headers: b.headers}, nil
}

// requestPath gives the path with the query as it stands in a request line.
func requestPath(u *url.URL) string {
	if u.Opaque != "" { // `POST mailto:x`: there is no path in it
		u = &url.URL{RawQuery: u.RawQuery, ForceQuery: u.ForceQuery}
	}
	path := u.RequestURI()
	if !strings.HasPrefix(path, "/") && path != "*" {
		path = "/" + path
	}
	if strings.ContainsFunc(path, unfit) {
		// Rewrites put placeholders into queries, and those may hold anything.
		var b strings.Builder
		for i := range len(path) {
			if unfit(rune(path[i])) {
				fmt.Fprintf(&b, "%%%02X", path[i])
			} else {
				b.WriteByte(path[i])
			}
		}
		return b.String()
	}
	return path
}

// unfit tells whether a byte cannot stand in a request line's path.
func unfit(c rune) bool { return c <= ' ' || c == 0x7f }

// builder collects headers whose values lie side by side in one piece of
// memory: a record costs a few allocations, however many headers it has.
type builder struct {
	headers []Header
	arena   []byte
	start   int
}

// builder begins a record in the scratch, with room for all that is likely to come.
func (s *Scratch) builder(r *http.Request, path string, fields []field, event event, m *Meta) builder {
	const fixed = 16 // headers that are not the request's own
	count := fixed + len(event.attributes)
	size := 128 + len(r.Method) + 2*len(m.Scheme) + 3*len(r.Host) + len(path) + len(m.ClientIP) +
		2*len(m.StreamID) + len(m.Source) + len(m.Type) + len(m.ReplyTopic) + len(event.contentType)
	for _, f := range fields {
		count += len(f.values)
		for _, v := range f.values {
			size += len(v)
		}
	}
	for _, a := range event.attributes {
		size += len(a.value)
	}
	clear(s.headers) // of references to what was made before
	return builder{headers: slices.Grow(s.headers[:0], count), arena: slices.Grow(s.arena[:0], size)}
}

func (b *builder) text(name, value string) {
	b.begin()
	b.arena = append(b.arena, value...)
	b.end(name)
}

// begin and end stand around appending a value to the arena. Should the arena
// move, the values before keep the old memory, so they stay right.
func (b *builder) begin() { b.start = len(b.arena) }

func (b *builder) end(name string) {
	end := len(b.arena)
	b.headers = append(b.headers, Header{Key: name, Value: b.arena[b.start:end:end]})
}

// Request is a request record, read.
type Request struct {
	// StreamID is the correlation id. It is empty when nobody waits, as for
	// records that were not written by a gateway.
	StreamID string

	// Method, Scheme, Authority and Path are the request line: POST, https,
	// example.com:8443, /orders?rush=1. Scheme and Authority may be empty.
	Method, Scheme, Authority, Path string

	// Header has the request's headers in Go's canonical spelling.
	Header http.Header

	// Forwarded tells who the client is.
	Forwarded Forwarded

	// Event has the CloudEvents attributes. All of it is empty for records that
	// have none.
	Event Attributes

	// ReplyTopic and ReplyPartition are where the reply is awaited: "" and -1
	// where the record does not say it.
	ReplyTopic     string
	ReplyPartition int32

	// Expires is when nobody waits any longer; zero where the record does not
	// say it.
	Expires time.Time

	// Key and Body are the record's key and value.
	Key, Body []byte
}

// ParseRequest reads a request record. Headers that HTTP does not allow are
// left out. A record without :method and :path, and one whose contract headers
// are malformed, is ErrRequest; other headers may be missing.
func ParseRequest(rec Record) (Request, error) {
	r := Request{ReplyPartition: -1, Key: rec.Key, Body: rec.Value}
	var known seen
	for _, h := range rec.Headers {
		if strings.HasPrefix(h.Key, attributePrefix) {
			if err := r.Event.set(h.Key[len(attributePrefix):], string(h.Value)); err != nil {
				return Request{}, fmt.Errorf("%w: %w", ErrRequest, err)
			}
			continue
		}
		if i := slot(requestSlots, h.Key); i >= 0 {
			if known.first(i) {
				if err := r.set(h.Key, h.Value); err != nil {
					return Request{}, fmt.Errorf("%w: %w", ErrRequest, err)
				}
			}
		}
	}
	r.Header = httpHeader(rec.Headers, unbounded, func(lower string) bool { return carried(lower, nil) })
	switch {
	case r.Method == "":
		return Request{}, fmt.Errorf("%w: header %s is missing", ErrRequest, HeaderMethod)
	case r.Path == "":
		return Request{}, fmt.Errorf("%w: header %s is missing", ErrRequest, HeaderPath)
	}
	return r, nil
}

// requestSlots are the headers of a request that count once.
var requestSlots = []string{
	HeaderMethod, HeaderScheme, HeaderAuthority, HeaderPath, HeaderForwarded,
	HeaderReplyTopic, HeaderReplyPartition, HeaderCorrelationID, HeaderExpires,
}

// set reads one contract header.
func (r *Request) set(name string, value []byte) error {
	text := string(value)
	switch name {
	case HeaderMethod:
		if !httpguts.ValidHeaderFieldName(text) { // the same grammar: a token
			return fmt.Errorf("%s %q is no method", name, clip(text))
		}
		r.Method = text
	case HeaderPath:
		if !strings.HasPrefix(text, "/") && text != "*" || strings.ContainsFunc(text, unfit) {
			return fmt.Errorf("%s %q is no path", name, clip(text))
		}
		r.Path = text
	case HeaderScheme, HeaderAuthority, HeaderReplyTopic:
		if !httpguts.ValidHeaderFieldValue(text) {
			return fmt.Errorf("%s %q has control characters", name, clip(text))
		}
		switch name {
		case HeaderScheme:
			r.Scheme = text
		case HeaderAuthority:
			r.Authority = text
		default:
			r.ReplyTopic = text
		}
	case HeaderForwarded:
		f, err := ParseForwarded(text)
		if err != nil {
			return err
		}
		r.Forwarded = f
	case HeaderReplyPartition:
		if len(value) != 4 || value[0] > 0x7f {
			return fmt.Errorf("%s is % x, want 4 bytes, big endian, not negative", name, value[:min(len(value), 8)])
		}
		r.ReplyPartition = int32(binary.BigEndian.Uint32(value)) //nolint:gosec // the sign bit is off
	case HeaderCorrelationID:
		if !validID(value) {
			return fmt.Errorf("%s %q is not 1 to %d visible ASCII characters", name, clip(text), maxID)
		}
		r.StreamID = text
	case HeaderExpires:
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%s %q is no time in milliseconds", name, clip(text))
		}
		r.Expires = time.UnixMilli(ms)
	}
	return nil
}

// Reply makes the answer to the request; more replies can follow it if the
// caller sets More. It is produced to the request's ReplyTopic and
// ReplyPartition.
func (r Request) Reply(status int, header http.Header, body []byte) Reply {
	return Reply{StreamID: r.StreamID, Status: status, Header: header, Body: body}
}

// Report makes a life-cycle record about the request, for a worker that tells
// how far it is, or that it has given up: [StateFailed] ends the stream.
func (r Request) Report(s Status) Reply {
	return Reply{StreamID: r.StreamID, State: s.Status, Attempt: s.Attempt, Body: s.AppendJSON(nil)}
}

// seen remembers which headers that count once have been met.
type seen uint32

func (s *seen) first(slot int) bool {
	bit := seen(1) << slot
	if *s&bit != 0 {
		return false
	}
	*s |= bit
	return true
}

// slot finds a name in a short list; -1 where it is not there.
func slot(names []string, name string) int {
	for i := range names {
		if names[i] == name {
			return i
		}
	}
	return -1
}
