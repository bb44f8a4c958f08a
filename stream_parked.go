package osmosis

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// parkAfter is how long an event stream stays with its server: most answers come
// sooner, and to leave is work.
const parkAfter = 2 * time.Second

// parked is an event stream that has left its server: of a request that waits
// Caddy and net/http keep buffers, the request with all that was found out about
// it, and two goroutines, one of which has a stack as deep as the chain of
// handlers. None of that is needed any more once the header was sent, and it is
// most of what a stream takes. What stays is the connection and one goroutine,
// which reads: the end of the connection wakes it, a heartbeat that is due, and
// an event, by way of the deadline for reading. When the stream has ended the
// server gets the connection back.
type parked struct {
	conn     net.Conn
	server   weak.Pointer[http.Server] // weak, since with it goes the configuration that it served
	sub      subscription
	settings settings
	release  func() // what the stream holds
	logger   *zap.Logger
	stream   string // its id

	woken atomic.Bool
	read  [1]byte

	mu   sync.Mutex // guards over, and the deadline for reading against it
	over bool       // the connection is the server's again
}

// park goes on with the stream in a goroutine of its own, and tells whether it
// does: then the handler is to return. It takes over what the request holds.
func (v *visit) park(w http.ResponseWriter, r *http.Request, sub subscription) bool {
	server, ok := passedOn(w, r)
	if !ok {
		return false
	}
	// The recorders on the way would wrap the connection, and be kept by it.
	conn, buffers, err := http.NewResponseController(server).Hijack()
	if err != nil {
		return false
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.Bool("osmosis_parked", true)) // the line's duration and size are those until now
	}
	p := &parked{conn: conn, sub: sub, settings: v.settings, release: v.held.handOver(), logger: v.logger, stream: v.claims.ID}
	// What the client has sent ahead is lost, and no request could follow it.
	last := r.Close || hasToken(w.Header(), "Connection", "close") || buffers.Reader.Buffered() > 0
	if from, ok := r.Context().Value(http.ServerContextKey).(*http.Server); ok && !last {
		p.server = weak.Make(from)
	}
	go p.serve()
	return true
}

// passedOn finds the server's own writer, if what is written to w reaches it as
// it is, in chunks: over HTTP/1.1, and through nothing that is not known to pass
// a body on.
func passedOn(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, bool) {
	h := w.Header()
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 || r.ContentLength != 0 ||
		h.Get("Content-Encoding") != "" || h.Get("Content-Length") != "" || h.Get("Transfer-Encoding") != "" || h.Get("Trailer") != "" ||
		flushedBehind(r) {
		return nil, false
	}
	for {
		switch layer := w.(type) {
		case caddyhttp.ResponseRecorder:
			if layer.Buffered() {
				return nil, false
			}
		case *caddyhttp.IdleTimeoutWriter, *caddyhttp.ResponseWriterWrapper:
		default:
			switch kindOf(w) {
			case "net/http.response":
				return w, true
			case "github.com/caddyserver/caddy/v2/modules/caddyhttp.readDeadlineWriter",
				"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers.responseWriterWrapper",
				"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode.responseWriter": // with no encoding, see above
			default:
				return nil, false
			}
		}
		layer, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil, false
		}
		w = layer.Unwrap()
	}
}

// flushedBehind tells whether Caddy flushes the response when its handlers have
// returned: it does, for the access log, when they took as long as the server's
// timeout for writing. The server's own writer panics at that when its connection
// was taken over.
func flushedBehind(r *http.Request) bool {
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok || server.WriteTimeout <= 0 {
		return false
	}
	const rest = time.Second // that handlers take to return, at most
	begun, _ := caddyhttp.GetVar(r.Context(), "start_time").(time.Time)
	return time.Since(begun) > server.WriteTimeout-rest
}

// kindOf names what a pointer points to.
func kindOf(w http.ResponseWriter) string {
	t := reflect.TypeOf(w)
	if t.Kind() != reflect.Pointer {
		return ""
	}
	return t.Elem().PkgPath() + "." + t.Elem().Name()
}

// serve sends the rest of the stream, and gives the connection back if there may
// be another request.
func (p *parked) serve() {
	defer p.release()
	kept := false
	defer func() {
		if !kept {
			_ = p.conn.Close()
		}
	}()
	defer func() { // as net/http does, since a stream must not take the process with it
		if err := recover(); err != nil {
			p.logger.Error("panic in a stream", zap.String("stream", p.stream), zap.Any("error", err), zap.ByteString("stack", debug.Stack()))
		}
	}()
	p.sub.Notify(p.wake)
	defer context.AfterFunc(exitContext, p.wake)()

	out := &chunks{conn: p.conn, timeout: p.settings.writeTimeout}
	err := p.pump(eventStream{pieces: out, more: p.sub.More})
	switch {
	case errors.Is(err, errGone):
		return
	case errors.Is(err, errExiting), errors.Is(err, hub.ErrClosed):
		_ = out.put(newRetry(comeBack))
	}
	if out.end() != nil || !errors.Is(err, io.EOF) {
		return
	}
	conn := p.conn
	if ending.Load() {
		if p.server.Value() == nil || !p.nextRequest() {
			return
		}
		conn = &begun{conn, p.read[:]}
	}
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	kept = handBack(p.server.Value(), conn)
}

// nextRequest waits until the client begins its next request, and tells whether it
// does so before the process ends. To a server that is being shut down a
// connection that it has just got is one that is about to be used, and it waits
// five seconds for that.
func (p *parked) nextRequest() bool {
	for {
		p.woken.Store(false)
		if exitContext.Err() != nil || p.conn.SetReadDeadline(time.Time{}) != nil {
			return false
		}
		if p.woken.Load() {
			continue
		}
		if _, err := p.conn.Read(p.read[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err == nil
		}
	}
}

// wake has the stream look for events. The order of the two is that of pump
// turned around, so that no wish is lost.
func (p *parked) wake() {
	p.woken.Store(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		_ = p.conn.SetReadDeadline(time.Unix(1, 0)) // it fails when the connection was closed
	}
}

// errGone says that nobody is there to write to.
var errGone = errors.New("the client is gone")

// pump sends events and heartbeats until the stream ends, or its client goes. A
// client that sends something wants another answer on this connection: it gets
// the end of this one, and sends it again on the next.
func (p *parked) pump(out eventStream) error {
	beat := p.nextBeat()
	for {
		p.woken.Store(false)
		if exitContext.Err() != nil {
			return errExiting
		}
		event, ok, err := p.sub.Poll()
		if ok {
			err = out.event(event)
		} else if err == nil && !time.Now().Before(beat) {
			beat = p.nextBeat()
			err = out.write(heartbeat)
		}
		if err != nil {
			return err
		}
		if ok {
			continue
		}
		if err := p.conn.SetReadDeadline(beat); err != nil {
			return errGone
		}
		if p.woken.Load() {
			continue
		}
		switch _, err := p.conn.Read(p.read[:]); {
		case err == nil:
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return errGone
		}
	}
}

func (p *parked) nextBeat() time.Time {
	every := p.settings.heartbeat
	return time.Now().Add(spread(every-every/10, every))
}
