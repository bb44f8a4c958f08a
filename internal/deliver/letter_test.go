package deliver

import (
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A dead letter has the key, the stream id and the headers of its record, so that
// it can be put back. One that was put back counts its tries anew, and what it
// said of its first death is not said again when it fails once more.
func TestDeadLetterThatWasPutBack(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		var attempts []string
		r.deliver(options(func(w http.ResponseWriter, req *http.Request) error {
			mu.Lock()
			attempts = append(attempts, req.Header.Get(HeaderAttempt))
			mu.Unlock()
			return bad(w, req)
		}))
		if _, err := r.put(t.Context(), testTopic, 0, r.request("s0", "k", "x")); err != nil {
			t.Fatal(err)
		}
		r.done(1)
		first := r.read(testDead)[0]
		again := record.Record{Key: first.Key, Value: first.Value, Headers: append(slices.Clone(first.Headers), record.Header{Key: headerReplay, Value: []byte("1")})}
		if _, err := r.put(t.Context(), testTopic, 0, again); err != nil {
			t.Fatal(err)
		}
		r.done(2)
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"1", "2", "3", "1", "2", "3"}; !slices.Equal(attempts, want) {
			t.Errorf("attempts %v, want %v", attempts, want)
		}
		dead := r.read(testDead)
		if len(dead) != 2 {
			t.Fatalf("%d dead letters, want 2", len(dead))
		}
		for i, letter := range dead {
			id, _ := record.CorrelationID(letter.Headers)
			if string(letter.Key) != "k" || string(letter.Value) != "x" || id != "s0" {
				t.Errorf("letter %d: key %q, value %q, stream %q", i, letter.Key, letter.Value, id)
			}
			count := make(map[string]int)
			for _, h := range letter.Headers {
				count[h.Key]++
			}
			if count[HeaderDeadAttempts] != 1 || count[HeaderDeadOffset] != 1 || count[headerReplay] != 0 || count[record.HeaderReplyTopic] != 1 {
				t.Errorf("letter %d: %v", i, count)
			}
		}
		if offset, _ := dead[1].Header(HeaderDeadOffset); string(offset) != "1" {
			t.Errorf("the second letter names offset %s", offset)
		}
	})
}
