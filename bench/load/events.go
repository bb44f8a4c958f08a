package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Events reads the body of an event stream as it comes: chunks, and the events
// in them.
type Events struct {
	left    int    // bytes of the chunk under way, with the CR LF behind it
	partial []byte // of an event whose end has not come
}

var errChunk = errors.New("not a chunk")

// Read takes what has come of a body, calls each with every event that is
// complete, without the empty line behind it, and tells how many bytes are done
// with and whether the body has ended. Comments count as events, as does
// `retry:`; see [IsReply].
func (e *Events) Read(in []byte, each func(event []byte) error) (consumed int, ended bool, err error) {
	for {
		if e.left == 0 {
			size, head, err := chunkHead(in[consumed:])
			if err != nil || head == 0 {
				return consumed, false, err
			}
			if size == 0 {
				const end = "0\r\n\r\n"
				if len(in)-consumed < len(end) {
					return consumed, false, nil
				}
				e.partial = e.partial[:0]
				return consumed + len(end), true, nil
			}
			consumed += head
			e.left = size + 2
		}
		data := in[consumed:]
		if len(data) == 0 {
			return consumed, false, nil
		}
		n := min(len(data), e.left)
		text := data[:max(0, min(n, e.left-2))]
		consumed += n
		e.left -= n
		if err := e.feed(text, each); err != nil {
			return consumed, false, err
		}
	}
}

// chunkHead reads the line before a chunk: the chunk's size and the line's. The
// latter is 0 while the line is not complete.
func chunkHead(in []byte) (size, head int, err error) {
	const longest = 16
	end := bytes.Index(in[:min(len(in), longest)], []byte("\r\n"))
	if end < 0 {
		if len(in) >= longest {
			return 0, 0, fmt.Errorf("%w: %.30q", errChunk, in)
		}
		return 0, 0, nil
	}
	n, err := strconv.ParseUint(string(in[:end]), 16, 31)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %.30q", errChunk, in)
	}
	return int(n), end + 2, nil
}

// feed cuts text into events.
func (e *Events) feed(text []byte, each func([]byte) error) error {
	if len(e.partial) > 0 {
		e.partial = append(e.partial, text...)
		text = e.partial
	}
	for {
		event, rest, found := bytes.Cut(text, []byte("\n\n"))
		if !found {
			e.partial = append(e.partial[:0], text...)
			return nil
		}
		if err := each(event); err != nil {
			return err
		}
		text = rest
	}
}

// IsReply tells whether an event is one that a browser's onmessage would get:
// it has data, and no type.
func IsReply(event []byte) bool {
	return !hasField(event, "event:") && hasField(event, "data:")
}

// hasField tells whether a line of the event begins like this.
func hasField(event []byte, name string) bool {
	for line := range bytes.Lines(event) {
		if bytes.HasPrefix(line, []byte(name)) {
			return true
		}
	}
	return false
}
