package record

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

var (
	// ErrReply says that a record belongs to no stream: it has no correlation
	// id, or one that no gateway gave out. Readers of a reply topic skip it.
	ErrReply = errors.New("not a reply record")

	// ErrState says that a record is about a stream's life but tells a state
	// that this version does not know. Readers skip it on purpose: it is no
	// reply, and a newer worker may report more than an older gateway shows.
	ErrState = errors.New("unknown " + HeaderState)
)

// The bounds of what a reply's headers may hold. A worker is foreign, and a
// gateway keeps many replies in memory for clients that come later.
const (
	// MaxReplyFields is how many field lines a client gets at most.
	MaxReplyFields = 1000
	// MaxReplyHeader is how many bytes their names and values have together at most.
	MaxReplyHeader = 256 << 10
)

// Reply is a reply record: a response or a part of one, or a word about the
// request's life.
type Reply struct {
	// StreamID is the correlation id of the request.
	StreamID string

	// Status is the HTTP status, 200 to 599. In a life-cycle record it has no
	// meaning and is 0.
	Status int

	// Header has the headers that the client gets, in Go's canonical spelling.
	Header http.Header

	// Body is the value. In a life-cycle record it is JSON.
	Body []byte

	// More says that other replies follow.
	More bool

	// State is empty for a reply. Otherwise the record tells about the
	// request's life, and Progress or End read it.
	State State

	// Attempt is the number of the try that made the reply, from 1, and Part
	// numbers the replies of one try, from 1. 0 where the worker does not say it.
	// A number is at most 2147483647.
	Attempt, Part int

	// Event is the name of the server-sent event that the reply was at the
	// service which answered; empty where it was none or had no name. It is text
	// in UTF-8 without control characters, of at most 128 bytes, and none of the
	// names that have a meaning in a client's stream: status, end, gap, binary,
	// message, error and open. Any other name is as if there were none. In a
	// life-cycle record it has no meaning and is empty.
	Event string
}

// Terminal tells whether the record ends its stream: the last reply, a failure
// or a cancellation.
func (r Reply) Terminal() bool {
	switch r.State {
	case "":
		return !r.More
	case StateFailed, StateCancelled:
		return true
	}
	return false
}

// ParseReply reads a reply record by the contract:
//
//   - a missing :status is 200; one that is no number from 200 to 599 is 502;
//   - Header has what may go to a client: valid names and values, nothing of
//     the contract or of a framework's bookkeeping, no trace context, nothing
//     hop-by-hop, neither Content-Length nor Date. Of these, in the
//     record's order, it has at most MaxReplyFields lines and MaxReplyHeader
//     bytes of names and values; a line that does not fit is dropped;
//   - osmosis-more counts if it is exactly true;
//   - numbers that do not parse, and names of events that Reply.Event may not
//     have, are as if they were missing.
//
// So a careless worker's reply still reaches the client. ErrReply is returned
// for a record that cannot be routed to a stream; ErrState for a life-cycle
// record of an unknown kind, together with the Reply.
func ParseReply(rec Record) (Reply, error) {
	id, ok := CorrelationID(rec.Headers)
	if !ok {
		return Reply{}, fmt.Errorf("%w: no header %s with 1 to %d visible ASCII characters", ErrReply, HeaderCorrelationID, maxID)
	}
	r := Reply{StreamID: id, Status: http.StatusOK, Body: rec.Value}
	var known seen
	var life bool
	var connection []string
	for _, h := range rec.Headers {
		i := slot(replySlots, h.Key)
		switch {
		case i >= 0 && known.first(i):
			life = life || h.Key == HeaderState
			r.set(h.Key, h.Value)
		case i < 0 && strings.EqualFold(h.Key, "connection"):
			connection = append(connection, string(h.Value))
		}
	}
	names := connectionNames(connection)
	r.Header = httpHeader(rec.Headers, bound{MaxReplyFields, MaxReplyHeader}, func(lower string) bool { return replyField(lower, names) })
	if !life {
		return r, nil
	}
	r.Status, r.More, r.Event = 0, false, ""
	switch r.State {
	case StateDelivering, StateRetrying, StateFailed, StateCancelled:
		return r, nil
	}
	return r, fmt.Errorf("%w %q", ErrState, clip(string(r.State)))
}

// replySlots are the headers of a reply that count once.
var replySlots = []string{HeaderStatus, HeaderMore, HeaderState, HeaderAttempt, HeaderPart, HeaderEvent}

// set reads one contract header.
func (r *Reply) set(name string, value []byte) {
	switch name {
	case HeaderStatus:
		r.Status = parseStatus(value)
	case HeaderMore:
		r.More = string(value) == "true"
	case HeaderState:
		r.State = State(value)
	case HeaderAttempt:
		r.Attempt = parseCount(value)
	case HeaderPart:
		r.Part = parseCount(value)
	case HeaderEvent:
		if len(value) <= maxEventName && validEventName(string(value)) {
			r.Event = string(value)
		}
	}
}

// parseStatus reads three digits from 200 to 599; all else is a bad gateway's.
func parseStatus(v []byte) int {
	if len(v) == 3 && v[0] >= '2' && v[0] <= '5' && isDigit(v[1]) && isDigit(v[2]) {
		return int(v[0]-'0')*100 + int(v[1]-'0')*10 + int(v[2]-'0')
	}
	return http.StatusBadGateway
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// parseCount reads a number that counts from 1; 0 where it is none.
func parseCount(v []byte) int {
	n, err := strconv.ParseInt(string(v), 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	return int(n)
}

// Record makes the record of a reply. Headers that the contract does not let
// through to a client are left out, and so is an Event that may not be one; a
// Status of 0 is 200. The stream id is also
// the key, so that a producer which places by murmur2 finds the right
// partition, if it does not set the one that the request names.
func (r Reply) Record() Record {
	names := sortedNames(r.Header)
	headers := make([]Header, 0, len(names)+7)
	add := func(name, value string) {
		headers = append(headers, Header{Key: name, Value: []byte(value)})
	}
	add(HeaderCorrelationID, r.StreamID)
	if r.State != "" {
		add(HeaderState, string(r.State))
	} else {
		status := r.Status
		if status == 0 {
			status = http.StatusOK
		}
		add(HeaderStatus, strconv.Itoa(status))
		if r.More {
			add(HeaderMore, "true")
		}
		if validEventName(r.Event) {
			add(HeaderEvent, r.Event)
		}
	}
	if r.Attempt > 0 {
		add(HeaderAttempt, strconv.Itoa(r.Attempt))
	}
	if r.Part > 0 {
		add(HeaderPart, strconv.Itoa(r.Part))
	}
	connection := connectionNames(r.Header["Connection"])
	for _, name := range names {
		lower := strings.ToLower(name)
		if !replyField(lower, connection) {
			continue
		}
		for _, v := range r.Header[name] {
			if httpguts.ValidHeaderFieldValue(v) {
				add(lower, v)
			}
		}
	}
	body := r.Body
	if body == nil {
		body = []byte{} // a null value would be a tombstone
	}
	return Record{Key: []byte(r.StreamID), Value: body, Headers: headers}
}
