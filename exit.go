package osmosis

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// exitContext ends when the process is about to, so that every open stream asks
// its client to come back and closes; as a context it does that without a
// goroutine for each. It belongs to the process, not to a configuration:
// streams outlive reloads, on which nothing of this happens.
var exitContext, announceExit = context.WithCancel(context.Background())

// ending says that the process ends once the tries that run here have. Until then
// its servers answer.
var ending atomic.Bool

// stopping listens for Caddy's event of that name. It comes on reloads too, and
// only caddy.Exiting tells the difference. Without it `caddy stop` would wait
// for open streams for ever, since Caddy's servers do not cancel requests.
type stopping struct{ app *App }

// Handle ends what is delivered here when the process ends, and then closes the
// streams. Caddy stops its apps after that: while tries end, the servers still
// answer, and so does a site of this process that is what deliver asks.
func (s stopping) Handle(context.Context, caddy.Event) error {
	if !caddy.Exiting() {
		return nil
	}
	ending.Store(true)
	quit := quitOnSignal()
	defer quit()
	err := s.app.stopDeliveries()
	closing.Wait()
	announceExit()
	return err
}

// quitOnSignal has a SIGTERM end the process at once, until the function that it
// returns is called. Caddy takes the first one only.
func quitOnSignal() (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	stopped := make(chan struct{})
	go func() {
		select {
		case <-signals:
			caddy.Log().Named("osmosis").Warn("force quit", zap.String("signal", "SIGTERM"))
			os.Exit(caddy.ExitCodeForceQuit)
		case <-stopped:
		}
	}()
	return func() {
		signal.Stop(signals)
		close(stopped)
	}
}

// drainStreams is how long an exit waits for streams to say goodbye. WebSocket
// connections are nobody else's to wait for: the server has given them away.
const drainStreams = 5 * time.Second
