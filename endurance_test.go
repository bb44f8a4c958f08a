package osmosis

import (
	"fmt"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A stream goes on through bursts and silences: everything comes, once,
// in order, and at once.
func TestStreamsOutlastSilences(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *gateway, hub.Claims) (next func() string){
		"events": func(_ *testing.T, s *gateway, c hub.Claims) func() string {
			l := s.listen(s.path(c))
			return func() string { return l.next().data }
		},
		"websocket": func(t *testing.T, s *gateway, c hub.Claims) func() string {
			conn := s.socket(s.path(c))
			return func() string { return fmt.Sprint(frame(t, conn)["data"]) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			virtually(t, func(t *testing.T, s *gateway) {
				const rounds, burst, pauses = 2, 100, 2
				c := s.accept()
				next := open(t, s, c)
				said := make(chan struct{})
				go func() { // while the client reads, as it has to
					defer close(said)
					n := 0
					say := func() {
						n++
						s.reply(c, record.Reply{Body: fmt.Append(nil, n, time.Now().UnixMilli()), More: n < rounds*(burst+pauses)})
					}
					for range rounds {
						for range burst {
							say()
						}
						for range pauses {
							pass(20 * time.Minute)
							say()
						}
					}
				}()
				defer func() { <-said }()
				for i := 1; i <= rounds*(burst+pauses); i++ {
					var n int
					var sent int64
					text := next()
					if _, err := fmt.Sscan(text, &n, &sent); err != nil || n != i {
						t.Fatalf("reply %d is %q", i, text)
					}
					if took := time.Since(time.UnixMilli(sent)); took > time.Second {
						t.Errorf("reply %d comes after %s", i, took)
					}
				}
				if text := next(); len(text) < 10 {
					t.Errorf("%q, want the end", text)
				}
			})
		})
	}
}
