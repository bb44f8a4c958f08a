package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"
)

// chunked gives a body as it is sent, in chunks of the given size.
func chunked(body string, size int) []byte {
	var b bytes.Buffer
	w := httputil.NewChunkedWriter(&b)
	for body != "" {
		n := min(size, len(body))
		fmt.Fprint(w, body[:n])
		body = body[n:]
	}
	w.Close()
	b.WriteString("\r\n")
	return b.Bytes()
}

// FuzzEvents has events come through chunks and reads of any size.
func FuzzEvents(f *testing.F) {
	f.Add("data: one\n\nevent: end\ndata: two\n\n", 7, 3)
	f.Add("retry: 2000\n\n: hello\n\nid: 1\ndata: x\ndata: y\n\n", 1, 1)
	f.Add("\n\n\n\nhalf an event", 100, 2)
	f.Fuzz(func(t *testing.T, body string, chunk, read int) {
		if chunk < 1 || read < 1 || len(body) > 10_000 {
			return
		}
		want := strings.Split(body, "\n\n")
		want = want[:len(want)-1] // what stands behind the last end is no event
		var got []string
		var events Events
		var kept []byte
		over := false
		for piece := range slices.Chunk(chunked(body, chunk), read) {
			kept = append(kept, piece...)
			n, ended, err := events.Read(kept, func(event []byte) error {
				got = append(got, string(event))
				return nil
			})
			if err != nil || over {
				t.Fatalf("%v, after the end: %v", err, over)
			}
			kept, over = kept[n:], ended
		}
		if !over || len(kept) > 0 || !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q, ended: %v, left: %q", got, want, over, kept)
		}
	})
}

func TestEventsRefused(t *testing.T) {
	for _, wrong := range []string{"x\r\n", "-1\r\n", "0123456789abcdef0", "80000000\r\n"} {
		var events Events
		if _, _, err := events.Read([]byte(wrong), nil); !errors.Is(err, errChunk) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestIsReply(t *testing.T) {
	for event, want := range map[string]bool{
		"id: 1\ndata: x": true, "data: x": true,
		": comment": false, "retry: 1": false, "event: end\ndata: {}": false, "": false,
	} {
		if got := IsReply([]byte(event)); got != want {
			t.Errorf("%q: %v", event, got)
		}
	}
}
