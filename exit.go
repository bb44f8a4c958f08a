package osmosis

import (
	"context"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// exit tells every open stream that the process is about to end, so that it
// asks its client to come back and closes. It belongs to the process, not to a
// configuration: streams outlive reloads, on which nothing of this happens.
var exit = struct {
	once sync.Once
	now  chan struct{}
}{now: make(chan struct{})}

// stopping listens for Caddy's event of that name. It comes on reloads too, and
// only caddy.Exiting tells the difference. Without it `caddy stop` would wait
// for open streams for ever, since Caddy's servers do not cancel requests.
type stopping struct{}

// Handle closes the streams when the process ends.
func (stopping) Handle(context.Context, caddy.Event) error {
	if caddy.Exiting() {
		exit.once.Do(func() { close(exit.now) })
	}
	return nil
}

// drainStreams is how long an exit waits for streams to say goodbye. WebSocket
// connections are nobody else's to wait for: the server has given them away.
const drainStreams = 5 * time.Second
