package osmosis

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
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
	// next handler. GET can be queued where it has something done that takes a
	// while, such as a report; OPTIONS, TRACE and CONNECT cannot. Default: POST, PUT, PATCH, DELETE.
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
	// URL. It may be up to two of the token's ttl, after which the stream's URL
	// answers 410. Default: 24h, or two ttl where that is shorter.
	Idempotency caddy.Duration `json:"idempotency,omitempty"`

	// Group is the consumer group of the workers, whose progress gives a
	// queued request's position and ETA. Default: the group of deliver, or else
	// the topic's name.
	Group string `json:"group,omitempty"`

	// Admit is how long requests that are queued may take before more of them
	// are turned away: a request that comes when it would take longer to work
	// off what waits gets 429, with the time after which it is worth trying
	// again. A repeat with the Idempotency-Key of one that is queued is answered all
	// the same. It is measured every second by the progress of Group. Default: all
	// are taken.
	Admit caddy.Duration `json:"admit,omitempty"`

	// CORS are the origins, such as https://app.example.com, whose pages may
	// use this route and its streams from another site; "*" admits all, without
	// credentials, and so to no WebSocket that has an owner or cookies. Default:
	// none.
	CORS []string `json:"cors,omitempty"`

	// Deliver has the site's own handlers answer what is queued. Default:
	// workers do.
	Deliver *Deliver `json:"deliver,omitempty"`

	// Scale has the number of workers of this route's topic follow its load.
	Scale *Scale `json:"scale,omitempty"`

	app     *App
	keyIs   string // the one placeholder that Key is, without its braces; "": it is more or none
	keyOf   string // the header that this placeholder stands for, if it is one
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
	if err := app.(*App).reserved(h.Topic); err != nil {
		return fmt.Errorf("osmosis: %w", err)
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
	if odd := unheardOf(h.Methods); len(odd) > 0 {
		ctx.Logger().Warn("no such HTTP method is registered, look at the spelling", zap.String("topic", h.Topic), zap.Strings("methods", odd))
	}
	if h.Scale != nil {
		h.Scale.Topic, h.Scale.Group = h.Topic, h.Group
		if err := h.Scale.provision(ctx); err != nil {
			return err
		}
		if err := h.scalesItsDeliver(); err != nil {
			return err
		}
	}
	return h.app.addRoute(h)
}

// scalesItsDeliver refuses a scaler that would look for a delivery in vain.
func (h *Handler) scalesItsDeliver() error {
	switch {
	case !h.Scale.delivers():
		return nil
	case h.Deliver == nil:
		return fmt.Errorf("osmosis %s: scale with deliver sizes the route's own delivery, and there is none; write `deliver { … }` on the route, or a scaler such as `process ./worker`", h.Topic)
	case h.Deliver.Group != h.Group:
		return fmt.Errorf("osmosis %s: scale with deliver is for the group %s, and the route delivers in the group %s; leave out `group %[2]s`", h.Topic, h.Group, h.Deliver.Group)
	}
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
	h.Idempotency = or(h.Idempotency, caddy.Duration(min(defaultIdempotency, h.app.streamLife())))
	if h.Group == "" {
		h.Group = h.Topic
	}
	h.keyIs = onlyPlaceholder(h.Key)
	if name, ok := strings.CutPrefix(h.keyIs, "http.request.header."); ok {
		h.keyOf = http.CanonicalHeaderKey(name)
	}
	if len(h.Methods) == 0 {
		h.Methods = []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	}
	for i, method := range h.Methods {
		h.Methods[i] = strings.ToUpper(method)
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
	if strings.Contains(h.Bind, bodyPlaceholder) {
		return fmt.Errorf("osmosis %s: bind has %s}, and those who read a stream send no body, so that none of them could; bind it to what each of their requests has, such as {http.auth.user.id}", h.Topic, bodyPlaceholder)
	}
	for _, err := range []error{
		validOrigins(h.CORS), validMethods(h.Methods), validTokens("headers", h.Headers),
		validDurations("backlog", map[string]time.Duration{"admit": time.Duration(h.Admit)}),
	} {
		if err != nil {
			return fmt.Errorf("osmosis %s: %w", h.Topic, err)
		}
	}
	return h.validWindow()
}

// ServeHTTP queues the request, or passes it on when its method is not queued.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	origins := crossOrigin(h.CORS)
	if r.Method == http.MethodOptions && len(origins) > 0 && slices.Contains(h.Methods, r.Header.Get("Access-Control-Request-Method")) {
		if origins.allow(w, r, h.allow) {
			return nil
		}
	}
	if !slices.Contains(h.Methods, r.Method) || isUpgrade(r) || isExtendedConnect(r) {
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
			return refuseUnread(w, r, problem{Status: http.StatusUnauthorized, Detail: "This route ties requests to who sends them, and this request does not say who that is."})
		}
	}
	key, refusal := idempotencyKey(r.Header)
	if refusal != nil {
		return refuseUnread(w, r, *refusal)
	}
	if refusal := h.admission.refusal(); refusal != nil {
		if key != "" {
			refusal = h.unlessQueued(r, owner, key, refusal)
		}
		if refusal != nil {
			return refuseUnread(w, r, *refusal)
		}
	}
	space := workspaces.Get().(*workspace)
	space.body, refusal = h.readBody(w, r, space.body)
	if refusal != nil {
		return refuseUnread(w, r, *refusal)
	}
	// From here on it is produce_timeout and the wait that bound the request: a
	// deadline of the server's that passes meanwhile would tell a client nothing
	// while its request is being queued.
	unhurry(w, r)
	begun := time.Now()
	within := r.Context()
	if key != "" {
		// What is begun is brought to its end although the client has left: it
		// may come back with the same key, and find that its request is there.
		within = context.WithoutCancel(within)
	}
	ctx := &bounded{Context: within, at: begun.Add(h.app.settings.produceTimeout)}
	defer ctx.cancel()
	lease, err := h.app.lease(ctx)
	if err != nil {
		return writeProblem(w, r, unavailable("The gateway is starting or stopping."))
	}
	defer lease.release()

	in := incoming{Request: r, repl: repl, workspace: space}
	a := new(acceptance)
	replayed := false
	if key == "" {
		err = h.queue(ctx, lease, in, &a.Claims)
	} else {
		replayed, err = h.queueOnce(ctx, lease, in, &a.Claims, owner, key)
	}
	space.giveBack() // the record is on its topic or given up, and what follows may take long
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
		a.Bind, a.BindHash = h.Bind, h.app.keys.BindHash(a.ID, owner)
	}
	repl.Map(a.placeholder)
	return h.answer(w, r, lease, a)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
