package hub

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrCursor is what every error of ParseCursor wraps: the text is no cursor,
// because it was cut, edited or never came from a gateway.
var ErrCursor = errors.New("no valid cursor")

// maxCursor is the length in bytes from which ParseCursor does not look at a
// text. The longest cursor has 47 bytes.
const maxCursor = 64

// Mark tells whether a cursor stands at a record or at the end of its stream.
type Mark uint8

// The marks of a cursor.
const (
	// MarkNone is the cursor of a record: the client has read it and wants what follows.
	MarkNone Mark = iota
	// MarkEnd is the cursor of an end that the log holds: its offset is that of
	// the terminal record, and the client knows that nothing follows.
	MarkEnd
	// MarkExpired is the cursor of an end that no record tells: the stream
	// expired, and the client knows it.
	MarkExpired
)

// suffix is how the mark is spelt behind the offset.
func (m Mark) suffix() string {
	switch m {
	case MarkEnd:
		return "-end"
	case MarkExpired:
		return "-expired"
	default:
		return ""
	}
}

// Cursor names a record of the reply topic for good: it is the id of the event
// that a client got, and comes back as Last-Event-ID. Its text is
//
//	<incarnation>-<partition>-<offset>[-end|-expired]
//
// with the incarnation as eight lower-case hexadecimal digits and the others in
// decimal. Clients take it as opaque. A cursor is not sealed: whoever reads one
// checks that the record there belongs to the stream in the token.
type Cursor struct {
	// Incarnation is the first 32 bits of the topic's id, 0 where the broker has
	// none. Without it a cursor would point at a stranger's record once the
	// topic was deleted and made again.
	Incarnation uint32
	// Partition is 0 or more.
	Partition int32
	// Offset is 0 or more.
	Offset int64
	Mark   Mark
}

// ParseCursor reads the text that Cursor.String writes, and no other spelling
// of it, so that two cursors are the same if and only if their texts are. Its
// errors wrap ErrCursor and say what is wrong.
func ParseCursor(s string) (Cursor, error) {
	if len(s) > maxCursor {
		return Cursor{}, fmt.Errorf("%w: %d bytes long, at most %d are possible", ErrCursor, len(s), maxCursor)
	}
	incarnation, rest, ok1 := strings.Cut(s, "-")
	partition, rest, ok2 := strings.Cut(rest, "-")
	if !ok1 || !ok2 {
		return Cursor{}, fmt.Errorf("%w: %q is not <incarnation>-<partition>-<offset>", ErrCursor, s)
	}
	offset, mark, marked := strings.Cut(rest, "-")

	var c Cursor
	var err error
	if c.Incarnation, err = parseIncarnation(incarnation); err != nil {
		return Cursor{}, fmt.Errorf("%w: incarnation %q %w", ErrCursor, incarnation, err)
	}
	p, err := parseDecimal(partition, 31)
	if err != nil {
		return Cursor{}, fmt.Errorf("%w: partition %q %w", ErrCursor, partition, err)
	}
	o, err := parseDecimal(offset, 63)
	if err != nil {
		return Cursor{}, fmt.Errorf("%w: offset %q %w", ErrCursor, offset, err)
	}
	c.Partition, c.Offset = int32(p), int64(o)
	if !marked {
		return c, nil
	}
	switch mark {
	case "end":
		c.Mark = MarkEnd
	case "expired":
		c.Mark = MarkExpired
	default:
		return Cursor{}, fmt.Errorf("%w: mark %q is neither \"end\" nor \"expired\"", ErrCursor, mark)
	}
	return c, nil
}

// parseIncarnation reads exactly eight lower-case hexadecimal digits.
func parseIncarnation(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 16, 32)
	if err != nil || len(s) != 8 || s != strings.ToLower(s) {
		return 0, errors.New("is not eight lower-case hexadecimal digits")
	}
	return uint32(n), nil
}

// parseDecimal reads a decimal number below 2^bits, without sign or leading zeros.
func parseDecimal(s string, bits int) (uint64, error) {
	if len(s) > 1 && s[0] == '0' {
		return 0, errors.New("has a leading zero")
	}
	n, err := strconv.ParseUint(s, 10, bits)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, errors.New("is too large")
	case err != nil:
		return 0, errors.New("is not a decimal number")
	}
	return n, nil
}

// String gives the text of the cursor.
func (c Cursor) String() string {
	return string(c.AppendTo(make([]byte, 0, maxCursor)))
}

// AppendTo appends the text of the cursor to b and returns the result.
func (c Cursor) AppendTo(b []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[c.Incarnation>>shift&0xf])
	}
	b = append(b, '-')
	b = strconv.AppendInt(b, int64(c.Partition), 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, c.Offset, 10)
	return append(b, c.Mark.suffix()...)
}
