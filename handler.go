package osmosis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// defaultMaxBody is Kafka's own default for a batch, less room for headers.
const defaultMaxBody = 1 << 20

// Handler queues requests: each becomes a record on a Kafka topic, and the
// client gets 202 with a stream URL as soon as the broker has it.
//
// It sets these placeholders for the access log and the handlers around it:
//
// Placeholder | Description
// ------------|-------------
// `{http.osmosis.stream_id}` | The id of the request's stream
// `{http.osmosis.topic}` | The topic of its record
// `{http.osmosis.partition}` | The partition of its record
// `{http.osmosis.offset}` | The offset of its record
// `{http.osmosis.stream_url}` | The stream URL; whoever knows it may read the stream, so keep it out of logs
type Handler struct {
	// Topic is the Kafka topic that requests go to. Required.
	Topic string `json:"topic"`

	// Key is the record's key, with placeholders such as
	// {http.request.header.X-Customer}. Requests of one key are kept in order.
	// What expands to nothing is no key. Default: none.
	Key string `json:"key,omitempty"`

	// Methods are the request methods that are queued; all others go to the
	// next handler. Default: POST, PUT, PATCH, DELETE.
	Methods []string `json:"methods,omitempty"`

	// Wait is how long to hold a request for the worker's real answer before
	// the client gets 202. A client that sends `Prefer: wait=N` decides for
	// itself, up to the app's max_wait. Default: 0, do not hold.
	Wait caddy.Duration `json:"wait,omitempty"`

	// MaxBody is the largest request body accepted, in bytes; a larger one gets
	// 413. The broker's own limit for a record (1 MiB by default in Kafka, its
	// message.max.bytes) counts too. Default: 1 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	// Headers are request headers to put on the record besides the usual ones.
	// Whoever can read the topic can read them, so think before naming Cookie
	// or Authorization.
	Headers []string `json:"headers,omitempty"`

	// Bind ties a stream to who asked for it: text with placeholders, such as
	// {http.auth.user.id}. Only a request for which it expands to the same
	// value may read the stream (403 otherwise). What expands to nothing is
	// refused with 401. Default: whoever knows the stream URL may read it.
	Bind string `json:"bind,omitempty"`

	// Idempotency is the window in which a request with the same
	// Idempotency-Key, method, path and body as one before is not queued again
	// but gets the same stream; with another method, path or body it gets 422. It
	// begins anew with nothing: a key that is used again in it does not prolong
	// it. The scope of a key is the topic and, where there is one, the value of
	// Bind. Without Bind, whoever sends the key and the body gets the stream's
	// URL. Default: 24h.
	Idempotency caddy.Duration `json:"idempotency,omitempty"`

	// Group is the consumer group of the workers, whose progress gives a
	// queued request's position and ETA. Default: the group of deliver, or else
	// the topic's name.
	Group string `json:"group,omitempty"`

	// Admit is how long requests that are queued may take before more of them
	// are turned away: a request that comes when it would take longer to work
	// off what waits gets 429, with the time after which it is worth trying
	// again. It is measured every second by the progress of Group. Default: all
	// are taken.
	Admit caddy.Duration `json:"admit,omitempty"`

	// CORS are the origins, such as https://app.example.com, whose pages may
	// use this route and its streams from another site; "*" admits all, without
	// credentials. Default: none.
	CORS []string `json:"cors,omitempty"`

	// Deliver has the site's own handlers answer what is queued. Default:
	// workers do.
	Deliver *Deliver `json:"deliver,omitempty"`

	// Scale runs workers for this route's topic.
	Scale *Scale `json:"scale,omitempty"`

	app     *App
	methods map[string]bool
	allow   string // the methods, as Access-Control-Allow-Methods has them
	metrics routeMetrics
	// admission is nil where all are taken.
	admission *admission
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.osmosis",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision fills in defaults and tells the app of the route.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.Topic == "" {
		return errors.New("osmosis: a topic is missing; write `osmosis <topic>`")
	}
	if err := validTopic(h.Topic); err != nil {
		return fmt.Errorf("osmosis: %w", err)
	}
	app, err := ctx.App("osmosis")
	if err != nil {
		return fmt.Errorf("load the osmosis app: %w", err)
	}
	if h.Deliver != nil {
		if err := h.Deliver.provision(ctx, h.Topic); err != nil {
			return err
		}
		h.Group = or(h.Group, h.Deliver.Group)
		if err := app.(*App).addDelivery(h.Deliver); err != nil {
			return err
		}
	}
	h.settle(app.(*App))
	if h.Scale != nil {
		h.Scale.Topic, h.Scale.Group = h.Topic, h.Group
		if err := h.Scale.provision(ctx); err != nil {
			return err
		}
	}
	h.app.addRoute(h)
	return nil
}

// settle fills in defaults.
func (h *Handler) settle(app *App) {
	h.app = app
	h.metrics = metricsOf(h.Topic)
	if h.Admit > 0 {
		h.admission = &admission{topic: h.Topic, group: or(h.Group, h.Topic), limit: time.Duration(h.Admit)}
	}
	h.MaxBody = or(h.MaxBody, defaultMaxBody)
	h.Idempotency = or(h.Idempotency, caddy.Duration(defaultIdempotency))
	if h.Group == "" {
		h.Group = h.Topic
	}
	if len(h.Methods) == 0 {
		h.Methods = []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	}
	h.methods = make(map[string]bool)
	for i, method := range h.Methods {
		h.Methods[i] = strings.ToUpper(method)
		h.methods[h.Methods[i]] = true
	}
	h.allow = strings.Join(h.Methods, ", ")
}

// Validate refuses values that make no sense.
func (h *Handler) Validate() error {
	if h.MaxBody < 0 {
		return fmt.Errorf("osmosis %s: max_body is %d; it has to be at least 1", h.Topic, h.MaxBody)
	}
	if h.Wait < 0 || time.Duration(h.Wait) > h.app.settings.maxWait {
		return fmt.Errorf("osmosis %s: wait is %s; it may be up to max_wait, %s", h.Topic, time.Duration(h.Wait), h.app.settings.maxWait)
	}
	return h.validWindow()
}

// validTopic holds a topic's name to Kafka's rules.
func validTopic(name string) error {
	const longest = 249
	legal := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-'
	}
	if name == "." || name == ".." || len(name) > longest || strings.ContainsFunc(name, func(r rune) bool { return !legal(r) }) {
		return fmt.Errorf("topic %q: Kafka takes up to %d letters, digits, dots, underscores and hyphens", name, longest)
	}
	return nil
}

// ServeHTTP queues the request, or passes it on when its method is not queued.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	origins := crossOrigin(h.CORS)
	if r.Method == http.MethodOptions && len(origins) > 0 && h.methods[r.Header.Get("Access-Control-Request-Method")] {
		if origins.allow(w, r, h.allow) {
			return nil
		}
	}
	if !h.methods[r.Method] || isUpgrade(r) || isExtendedConnect(r) {
		if h.Deliver != nil {
			return h.Deliver.site.ServeHTTP(w, r, next)
		}
		return next.ServeHTTP(w, r)
	}
	if len(origins) > 0 {
		origins.allow(w, r, h.allow)
	}
	w.Header().Set("Cache-Control", "no-store")

	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	var owner string
	if h.Bind != "" {
		if owner = repl.ReplaceAll(h.Bind, ""); owner == "" {
			return writeProblem(w, r, problem{Status: http.StatusUnauthorized, Detail: "This route ties requests to who sends them, and this request does not say who that is."})
		}
	}
	key, refusal := idempotencyKey(r.Header)
	if refusal != nil {
		return writeProblem(w, r, *refusal)
	}
	if refusal := h.admission.refusal(); refusal != nil {
		return writeProblem(w, r, *refusal)
	}
	body, refusal := h.readBody(w, r)
	if refusal != nil {
		return writeProblem(w, r, *refusal)
	}
	// From here on it is produce_timeout and the wait that bound the request: a
	// deadline of the server's that passes meanwhile would tell a client nothing
	// while its request is being queued.
	unhurry(w)
	begun := time.Now()
	within := r.Context()
	if key != "" {
		// What is begun is brought to its end although the client has left: it
		// may come back with the same key, and find that its request is there.
		within = context.WithoutCancel(within)
	}
	ctx, cancel := context.WithDeadline(within, begun.Add(h.app.settings.produceTimeout))
	defer cancel()
	lease, err := h.app.lease(ctx)
	if err != nil {
		return writeProblem(w, r, unavailable("The gateway is starting or stopping."))
	}
	defer lease.release()

	in := incoming{Request: r, repl: repl, body: body}
	var claims hub.Claims
	replayed := false
	if key == "" {
		claims, err = h.queue(ctx, lease, in)
	} else {
		claims, replayed, err = h.queueOnce(ctx, lease, in, owner, key)
	}
	if err != nil || !replayed {
		h.metrics.count(begun, err)
	}
	if err != nil {
		return h.refuse(w, r, err)
	}
	if replayed {
		w.Header().Set(headerReplayed, "true")
	}
	if h.Bind != "" {
		claims.Bind, claims.BindHash = h.Bind, h.app.keys.BindHash(claims.ID, owner)
	}
	token, err := h.app.keys.Seal(claims)
	if err != nil {
		return caddyhttp.Error(http.StatusInternalServerError, fmt.Errorf("seal stream token: %w", err))
	}
	return h.answer(w, r, lease, claims, h.app.settings.streams+"/"+token)
}

// readBody reads the request's body up to the limit. What is too long is
// refused from its Content-Length, where there is one, before any of it is read.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	tooLarge := &problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("This route takes bodies of up to %d bytes.", h.MaxBody)}
	if r.ContentLength > h.MaxBody {
		return nil, tooLarge
	}
	reader := http.MaxBytesReader(w, r.Body, h.MaxBody)
	var body []byte
	var err error
	if r.ContentLength > 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(reader, body)
	} else {
		body, err = io.ReadAll(reader)
	}
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		tooLarge.Detail = fmt.Sprintf("This route takes bodies of up to %d bytes.", limit.Limit)
		return nil, tooLarge
	case err != nil:
		return nil, &problem{Status: http.StatusBadRequest, Detail: "The request's body ended before it was complete."}
	}
	return body, nil
}

// answer holds the request for the worker's real answer where that is asked
// for, and gives 202 otherwise.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, lease *lease, claims hub.Claims, path string) error {
	url := claims.Scheme + "://" + claims.Host + path
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.osmosis.stream_id", claims.ID)
	repl.Set("http.osmosis.topic", claims.Topic)
	repl.Set("http.osmosis.partition", claims.Partition)
	repl.Set("http.osmosis.offset", claims.Offset)
	repl.Set("http.osmosis.stream_url", url)
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.String("osmosis_stream", claims.ID))
	}

	header := w.Header()
	prefer := parsePrefer(r.Header)
	wait := time.Duration(h.Wait)
	var applied []string
	if prefer.async {
		wait, applied = 0, append(applied, "respond-async")
	}
	if prefer.waits {
		wait = min(prefer.wait, h.app.settings.maxWait)
		applied = append(applied, fmt.Sprintf("wait=%d", int(wait.Seconds())))
	}
	if len(applied) > 0 {
		header.Set("Preference-Applied", strings.Join(applied, ", "))
	}
	header.Set("Location", path)
	if wait > 0 {
		serving, leave := whileServing(r.Context())
		defer leave()
		ctx, cancel := context.WithTimeout(serving, wait)
		defer cancel()
		sub := lease.hub.Follow(streamOf(claims), nil)
		defer sub.Close()
		final, err := waitResult(ctx, sub)
		if final != nil {
			header.Del("Location")
			final.again = func() subscription { return lease.hub.Follow(streamOf(claims), nil) }
			return writeFinal(w, r, final, h.app.settings.writeTimeout)
		}
		if err != nil && r.Context().Err() != nil {
			return nil // the client went away; its request is queued all the same
		}
	}
	if isForm(r.Header) && acceptsHTML(r.Header) {
		w.WriteHeader(http.StatusSeeOther)
		return nil
	}
	body, err := json.Marshal(accepted{ID: claims.ID, Status: "queued", Stream: url})
	if err != nil {
		return fmt.Errorf("encode acceptance: %w", err)
	}
	header.Set("Retry-After", pollAfter)
	writeJSON(w, r, http.StatusAccepted, "application/json", append(body, '\n'))
	return nil
}

// accepted is the body of 202.
type accepted struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Stream string `json:"stream"`
}

// clientIP gives the client's address as Caddy determined it (trusted_proxies).
func clientIP(r *http.Request) string {
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok && ip != "" {
		return ip
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// pollAfter is how often polling a stream URL makes sense, in seconds.
const pollAfter = "1"

// isForm tells whether a browser sent the request from a form.
func isForm(header http.Header) bool {
	kind := mediaType(header)
	return kind == "application/x-www-form-urlencoded" || kind == "multipart/form-data"
}

// mediaType gives the media type of a message, without parameters; "" where it
// says none that can be read.
func mediaType(header http.Header) string {
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	return kind
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
