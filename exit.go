package osmosis

import (
	"context"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// exitContext ends when the process is about to, so that every open stream asks
// its client to come back and closes; as a context it does that without a
// goroutine for each. It belongs to the process, not to a configuration:
// streams outlive reloads, on which nothing of this happens.
var exitContext, announceExit = context.WithCancel(context.Background())

// stopping listens for Caddy's event of that name. It comes on reloads too, and
// only caddy.Exiting tells the difference. Without it `caddy stop` would wait
// for open streams for ever, since Caddy's servers do not cancel requests.
type stopping struct{}

// Handle closes the streams when the process ends.
func (stopping) Handle(context.Context, caddy.Event) error {
	if caddy.Exiting() {
		announceExit()
	}
	return nil
}

// drainStreams is how long an exit waits for streams to say goodbye. WebSocket
// connections are nobody else's to wait for: the server has given them away.
const drainStreams = 5 * time.Second
