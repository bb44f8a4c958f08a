package osmosis

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// A body takes memory as it comes, whatever its Content-Length says.
func TestReadExactly(t *testing.T) {
	for _, n := range []int{1, maxPooledBody - 1, maxPooledBody, maxPooledBody + 1, 5*maxPooledBody + 3} {
		text := strings.Repeat("0123456789", n/10+1)
		body, err := readExactly(strings.NewReader(text), n, make([]byte, 3, 10))
		if err != nil || string(body) != text[:n] {
			t.Errorf("%d bytes: got %d, %v", n, len(body), err)
		}
	}
	const come = 3*maxPooledBody + 1
	body, err := readExactly(strings.NewReader(strings.Repeat("x", come)), 1<<30, nil)
	if !errors.Is(err, io.ErrUnexpectedEOF) || len(body) != come || cap(body) > 3*come {
		t.Errorf("%d bytes in %d, %v", len(body), cap(body), err)
	}
	if body, err = readExactly(strings.NewReader(""), 1<<30, nil); err == nil || cap(body) > 2*maxPooledBody {
		t.Errorf("%d bytes for nothing, %v", cap(body), err)
	}
}
