package osmosis

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// streamWriter writes a response whose client may stop reading, through
// whatever Caddy has put around the connection: that can be unwrapped by a
// ResponseController and by nothing else.
type streamWriter struct {
	w          http.ResponseWriter
	controller *http.ResponseController
	timeout    time.Duration
}

func newStreamWriter(w http.ResponseWriter, timeout time.Duration) *streamWriter {
	return &streamWriter{w: w, controller: http.NewResponseController(w), timeout: timeout}
}

// write sends pieces, each of which may take as long as the timeout, and sees
// them on their way. A client that does not read is given up when that passes;
// nothing is kept for it meanwhile but these bytes.
//
// The deadline is cleared afterwards: on HTTP/2 one that is left standing resets
// a stream that is merely quiet, and on HTTP/1 it breaks the last chunk.
func (s *streamWriter) write(pieces ...[]byte) (err error) {
	defer func() { err = errors.Join(err, s.deadline(time.Time{})) }()
	for _, piece := range pieces {
		if err := s.put(piece); err != nil {
			return err
		}
	}
	if err := s.controller.Flush(); err != nil {
		return fmt.Errorf("flush stream: %w", err)
	}
	return nil
}

// put is write without the end: the piece is on its way with the next that is
// written, or when the handler returns. The deadline is that of either.
func (s *streamWriter) put(piece []byte) error {
	if err := s.deadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(piece); err != nil {
		return fmt.Errorf("write stream: %w", err)
	}
	return nil
}

func (s *streamWriter) deadline(t time.Time) error {
	if err := s.controller.SetWriteDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set write deadline: %w", err)
	}
	return nil
}
