package osmosis

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// hold lets a request wait for what workers do, unless too many do that
// already: until the caller leaves it counts as an open stream of its client.
// Its context also ends, with errExiting, when the process is about to.
func (s settings) hold(r *http.Request) (ctx context.Context, leave func(), err error) {
	left, err := s.enter(r)
	if err != nil {
		return nil, nil, err
	}
	ctx, served := whileServing(r.Context())
	return ctx, func() {
		served()
		left()
	}, nil
}

// enter counts a request as an open stream of its client until the caller says
// that it has left.
func (s settings) enter(r *http.Request) (left func(), err error) {
	return streams.enter(clientKey(r), s.maxOpen, s.maxOpenPerClient)
}

// held is what a request holds until it is answered, or until the stream ends
// that it has left behind.
type held struct {
	releases []func()
	// left says that the stream is open no more: after all the rest, since that is
	// what an exit waits for. Nil if it does not count.
	left func()
}

// add adds what is to be called then. The last one is called first.
func (h *held) add(release func()) { h.releases = append(h.releases, release) }

// release lets go of everything.
func (h *held) release() {
	for _, release := range slices.Backward(h.releases) {
		release()
	}
	if h.left != nil {
		h.left()
	}
	*h = held{}
}

// handOver leaves what is held to whoever calls the function.
func (h *held) handOver() (release func()) {
	given := *h
	*h = held{}
	return given.release
}

// errExiting ends streams when the process does.
var errExiting = errors.New("the gateway is going down")

// whileServing gives a context that also ends, with errExiting, when the
// process is about to: nothing else would end a stream then.
func whileServing(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(exitContext, func() { cancel(errExiting) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// unhurry takes the server's own deadlines (the timeouts read_body and write) off
// a request that is held: they are for requests that are answered at once. One
// that passes while nothing is read or written would end the request's context
// on HTTP/1, which looks as if the client had left, and reset the stream on
// HTTP/2. Caddy's wrappers put their deadlines back after every read and write,
// so it has to be taken off them first.
func unhurry(w http.ResponseWriter, r *http.Request) {
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if ok && r.ProtoMajor == 1 && server.ReadTimeout <= 0 && server.WriteTimeout <= 0 {
		return // as it is by default: the deadlines that Caddy then sets are for single reads and writes, and mean nothing between them
	}
	reader, writer := caddyhttp.IdleTimeoutsFromContext(r.Context())
	if reader != nil {
		reader.Deadline.HardDeadline = time.Time{}
	}
	if writer != nil {
		writer.Deadline.HardDeadline = time.Time{}
	}
	controller := http.NewResponseController(w)
	// Where deadlines are not supported there are none to take off.
	_ = controller.SetReadDeadline(time.Time{})
	_ = controller.SetWriteDeadline(time.Time{})
}
