package osmosis

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func init() {
	caddy.RegisterModule(new(StreamsHandler))
}

// StreamsHandler serves stream URLs: what a client that got 202 follows. All
// other requests go to the next handler. One URL has all forms: server-sent
// events, WebSocket, JSON with long polling, a page for people, and with
// /result behind it the worker's reply as the response that it stands for.
//
// The Caddyfile's `osmosis` brings it along where it can; `osmosis_streams`
// puts it elsewhere.
type StreamsHandler struct {
	// CORS are the origins, such as https://app.example.com, whose pages may
	// read any stream from another site, besides those that the stream's route
	// lists; "*" admits all, without credentials, and so to no WebSocket that has
	// an owner or cookies. Default: none.
	CORS []string `json:"cors,omitempty"`

	app *App
}

// CaddyModule returns the Caddy module information.
func (*StreamsHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.osmosis_streams",
		New: func() caddy.Module { return new(StreamsHandler) },
	}
}

// Provision finds the app.
func (h *StreamsHandler) Provision(ctx caddy.Context) error {
	app, err := ctx.App("osmosis")
	if err != nil {
		return fmt.Errorf("load the osmosis app: %w", err)
	}
	h.app = app.(*App)
	return nil
}

// Validate refuses origins that no browser sends.
func (h *StreamsHandler) Validate() error { return validOrigins(h.CORS) }

// streamMethods are the methods that a stream URL takes.
const streamMethods = "GET, HEAD, DELETE, OPTIONS"

// subscription is what the forms need of a followed stream.
type subscription interface {
	// Next gives the next event, io.EOF after the end, hub.ErrClosed when the
	// hub ends first, and the context's error; after that it may be called again.
	Next(ctx context.Context) (hub.Event, error)
	// More says whether Next has another event at once.
	More() bool
	// Poll is Next for who does not wait, and Notify tells when to try again.
	Poll() (hub.Event, bool, error)
	Notify(f func())
	Close()
}

// visit is one request for a stream, with all that its form needs.
type visit struct {
	settings settings
	logger   *zap.Logger
	origins  crossOrigin

	claims hub.Claims
	hub    followed
	// position tells how far the stream's request is from its turn.
	position func(context.Context) (ahead int64, eta time.Duration, ok bool)

	form   form
	prefer prefer
	cursor cursor
	// refused says why there is no stream now, for the number of them.
	refused error
	// held is what the request holds until it is answered.
	held *held
}

// followed is the hub as a form sees it.
type followed interface {
	Follow(s hub.Stream, from *hub.Cursor) *hub.Subscription
	Ended(ctx context.Context, s hub.Stream, c hub.Cursor) (bool, error)
}

// ServeHTTP serves the stream that the URL names. The order of the checks is
// part of the contract: a token that does not open under this host is 404, one
// that has passed 410, whoever asks and however; then comes the question whose
// stream it is, and only then what the client would like to see.
func (h *StreamsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	rest, ok := strings.CutPrefix(r.URL.Path, h.app.settings.streams+"/")
	if !ok {
		return next.ServeHTTP(w, r)
	}
	header := w.Header()
	header.Add("Vary", "Accept, Prefer, Origin")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	if isExtendedConnect(r) {
		// Only HTTP/1.1 is upgraded. Said at once, it lets the client fall back to events.
		return writeProblem(w, r, problem{Status: http.StatusNotImplemented, Detail: "WebSockets are served over HTTP/1.1 only. Read the stream as text/event-stream instead."})
	}
	token, result := strings.CutSuffix(rest, "/result")
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	case http.MethodDelete:
		if !result {
			break
		}
		fallthrough
	default:
		header.Set("Allow", streamMethods)
		return writeProblem(w, r, problem{Status: http.StatusMethodNotAllowed, Detail: "A stream is read with GET, HEAD and OPTIONS, and its request is cancelled with DELETE on the stream's URL."})
	}
	lease, err := h.app.lease(r.Context())
	if err != nil {
		return h.comeAgain(w, r, formOf(r, result))
	}
	holding := new(held)
	defer holding.release()
	holding.add(lease.release)

	claims, refusal := h.open(r, token)
	origins := crossOrigin(h.CORS)
	if refusal == nil || refusal.Status == http.StatusGone {
		origins = append(origins[:len(origins):len(origins)], h.app.corsFor(claims.Topic)...)
	}
	// A preflight carries neither cookies nor credentials, so it comes before
	// anything that looks for an owner.
	if origins.allow(w, r, streamMethods) {
		return nil
	}
	if refusal != nil {
		return writeProblem(w, r, *refusal)
	}
	if r.Method == http.MethodOptions {
		header.Set("Allow", streamMethods)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if refusal := h.owned(r, claims); refusal != nil {
		return writeProblem(w, r, *refusal)
	}
	v := &visit{
		settings: h.app.settings, logger: h.app.logger, origins: origins,
		claims: claims, hub: lease.hub,
		position: func(ctx context.Context) (int64, time.Duration, bool) { return h.app.position(ctx, lease, claims) },
		form:     formOf(r, result), prefer: parsePrefer(r.Header), cursor: parseCursor(r),
		held: holding,
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.String("osmosis_stream", claims.ID))
		extra.Add(zap.Stringer("osmosis_form", v.form))
	}
	unhurry(w, r) // what is told of a stream may take a while to be known, in every form
	if r.Method == http.MethodDelete {
		return v.serveCancel(w, r, func(ctx context.Context, c hub.Claims) error { return h.app.callOff(ctx, lease, c) })
	}
	ctx := r.Context()
	if v.holds() {
		left, err := v.settings.enter(r)
		if err == nil {
			holding.left = left
			serving, served := whileServing(ctx)
			defer served()
			ctx = serving
		}
		v.refused = err
	}
	return v.serve(ctx, w, r)
}

// comeAgain answers while there is no hub: the configuration that took the
// request has ended, or did not start. An EventSource gives up for good on any
// status but 200, so it gets that; whether its token opens it learns from whoever
// serves it next. Which origins the stream's route lists is not known here.
func (h *StreamsHandler) comeAgain(w http.ResponseWriter, r *http.Request, as form) error {
	if r.Method == http.MethodOptions || as != formSSE {
		return writeProblem(w, r, unavailable("The gateway is starting or stopping."))
	}
	crossOrigin(h.CORS).allow(w, r, streamMethods)
	turnAwaySSE(w, r, h.app.settings.writeTimeout, comeBack)
	return nil
}

// open gives the claims of a token, or why it opens nothing here. For a token
// that has passed it gives both.
func (h *StreamsHandler) open(r *http.Request, token string) (hub.Claims, *problem) {
	claims, err := h.app.keys.Open(token)
	if err != nil || !claims.For(originOf(r)) {
		// A token of another host is no better than a wrong one: to say more
		// would tell whoever holds it that it is good elsewhere.
		return hub.Claims{}, &problem{Status: http.StatusNotFound, Detail: "There is no such stream. Check that the URL is complete."}
	}
	if claims.Gone(time.Now()) {
		return claims, &problem{Status: http.StatusGone, Detail: "This stream ended too long ago to be read."}
	}
	return claims, nil
}

// owned checks that the stream is read by the one whose request it belongs to,
// where the route asked for that.
func (h *StreamsHandler) owned(r *http.Request, claims hub.Claims) *problem {
	if claims.Bind == "" {
		return nil
	}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	who := repl.ReplaceAll(claims.Bind, "")
	switch {
	case who == "":
		return &problem{Status: http.StatusUnauthorized, Detail: "This stream belongs to who sent its request, and this request does not say who that is."}
	case !h.app.keys.CheckBind(claims, who):
		return &problem{Status: http.StatusForbidden, Detail: "This stream belongs to someone else."}
	}
	return nil
}

// formOf gives the form in which the client wants to see the stream.
func formOf(r *http.Request, result bool) form {
	switch {
	case result:
		return formResult
	case isUpgrade(r):
		return formWebSocket
	default:
		return negotiate(r.Header)
	}
}

// holds says whether the form keeps the request open and therefore counts
// against the limits. The page looks once and lets go.
func (v *visit) holds() bool { return v.form != formNone && v.form != formHTML }

// serve answers in the form that was asked for, until the context ends.
func (v *visit) serve(ctx context.Context, w http.ResponseWriter, r *http.Request) error {
	switch v.form {
	case formSSE:
		v.serveSSE(ctx, w, r)
		return nil
	case formWebSocket:
		return v.serveWebSocket(w, r)
	case formHTML:
		return v.servePage(w, r)
	case formNone:
		return writeProblem(w, r, problem{Status: http.StatusNotAcceptable, Detail: "A stream comes as text/event-stream, application/json, text/html or over a WebSocket."})
	}
	switch {
	case errors.Is(v.refused, errTooManyOfClient):
		return writeProblem(w, r, problem{Status: http.StatusTooManyRequests, Detail: "This client has too many streams open. Close some, or try again later.", RetryAfter: comeBackLater})
	case v.refused != nil:
		return writeProblem(w, r, problem{Status: http.StatusServiceUnavailable, Detail: "The gateway has too many streams open. Try again later.", RetryAfter: comeBackLater})
	case v.form == formResult:
		return v.serveResult(ctx, w, r)
	default:
		return v.serveJSON(ctx, w, r)
	}
}

// cursor is where the client says it stands in the stream.
type cursor struct {
	// at is nil where the client named none, or nothing that is one.
	at *hub.Cursor
	// useless says that what it named is no cursor.
	useless bool
}

// parseCursor reads Last-Event-ID, or last-event-id in the query for clients
// that cannot set a header.
func parseCursor(r *http.Request) cursor {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("last-event-id")
	}
	if text == "" {
		return cursor{}
	}
	at, err := hub.ParseCursor(text)
	if err != nil {
		return cursor{useless: true}
	}
	return cursor{at: &at}
}

// ended says whether the cursor is that of an end.
func (c cursor) ended() bool { return c.at != nil && c.at.Mark != hub.MarkNone }

// streamOf is the stream that a token opens, as the hub knows it.
func streamOf(c hub.Claims) hub.Stream {
	return hub.Stream{
		ID: c.ID, Topic: c.ReplyTopic,
		Partition: c.ReplyPartition, Partitions: c.ReplyPartitions,
		Floor: c.Floor, Incarnation: c.ReplyIncarnation,
		Issued: c.Issued, Expires: c.Expires,
	}
}

// follow subscribes from the client's cursor. What is no cursor at all is told
// as a gap, the same as the hub tells one that fits nothing, and the stream
// comes from its start.
func (v *visit) follow() (subscription, *hub.Event) {
	sub := v.hub.Follow(streamOf(v.claims), v.cursor.at)
	if !v.cursor.useless {
		return sub, nil
	}
	return sub, &hub.Event{Kind: hub.KindGap, Gap: record.Gap{Reason: gapCursor}}
}

// gapCursor is the reason of a gap whose cause is the client's cursor.
const gapCursor = "cursor"

// patience is how long an answer waits to learn what the log holds.
const patience = 5 * time.Second

// knowsTheEnd says whether the client's cursor is that of this stream's end, so
// that there is nothing left to tell it. While the broker does not say, the
// stream is simply followed; it then ends without an event, and the client asks
// again.
func (v *visit) knowsTheEnd(ctx context.Context) bool {
	if !v.cursor.ended() {
		return false
	}
	const briefly = 2 * time.Second // an EventSource waits for its answer
	ctx, cancel := context.WithTimeout(ctx, briefly)
	defer cancel()
	ended, err := v.hub.Ended(ctx, streamOf(v.claims), *v.cursor.at)
	if err != nil {
		v.logger.Debug("end of stream not confirmed", zap.String("stream", v.claims.ID), zap.Error(err))
	}
	return ended
}

// errQuiet says that a heartbeat is due.
var errQuiet = errors.New("quiet for a heartbeat")

// pump gives every event of a stream to send, and calls beat about once a
// heartbeat. It returns the first error of either, of the subscription, or why
// the context ended.
func pump(ctx context.Context, sub subscription, heartbeat time.Duration, send func(hub.Event) error, beat func() error) error {
	for {
		err := pumpFor(ctx, spread(heartbeat-heartbeat/10, heartbeat), sub, send)
		if errors.Is(err, errQuiet) {
			err = beat()
		}
		if err != nil {
			return err
		}
	}
}

// pumpFor pumps for so long, and then gives errQuiet. One timer serves all
// events meanwhile: a stream that was busy gets a heartbeat that it did not
// need, which costs less than a timer for each event.
func pumpFor(ctx context.Context, d time.Duration, sub subscription, send func(hub.Event) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d, errQuiet)
	defer cancel()
	for {
		event, err := sub.Next(ctx)
		switch {
		case err == nil:
			err = send(event)
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*StreamsHandler)(nil)
	_ caddy.Validator             = (*StreamsHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*StreamsHandler)(nil)
)
