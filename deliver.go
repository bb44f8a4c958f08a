package osmosis

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
)

// deadLetterOff is the dead_letter that keeps nothing.
const deadLetterOff = "off"

// triesPerCore is the default concurrency for each core: tries mostly wait for
// an upstream.
const triesPerCore = 16

// defaultDrain is the default of Deliver.Drain. It leaves time to close streams
// within the 30s that Kubernetes waits.
const defaultDrain = 25 * time.Second

// Deliver has the site's own handlers answer what is queued: a consumer group
// replays each record through them and produces what they answer as the reply.
// Requests of methods that are not queued go straight through them.
//
// A request is done at least once: what a process had under way when it died is
// tried again. Requests of one key are done in order, others side by side.
type Deliver struct {
	// Group is the consumer group; all gateways that deliver a topic share its
	// partitions by it. Default: the topic's name.
	Group string `json:"group,omitempty"`

	// Attempts is how often a request is tried before it is given up. Tried
	// again is what could not be reached, took too long, or answered 408, 409,
	// 425, 429 or 5xx; any other answer is the reply. Default: 10.
	Attempts int `json:"attempts,omitempty"`

	// BackoffMin is the pause after the first failed try, which doubles with
	// each up to BackoffMax; up to half of it is cut off at random. A
	// Retry-After from upstream makes it longer. Default: 1s and 1m.
	BackoffMin caddy.Duration `json:"backoff_min,omitempty"`
	BackoffMax caddy.Duration `json:"backoff_max,omitempty"`

	// Timeout bounds one try, with all of its answer. Default: 5m.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Concurrency is how many requests this process tries at once, of this topic
	// and group. A try counts until its answer has been read. One whose upstream has
	// sent nothing for 10 s gives its place to another request, and goes on; there may
	// be as many of those again, so that a site that hangs is asked for up to twice as
	// much. Default: 16 for each core.
	Concurrency int `json:"concurrency,omitempty"`

	// DeadLetter is the topic where requests go that were given up, or off for
	// none: then the log and the end of the client's stream are all that is
	// left of them. Default: the topic's name with .dlq behind it.
	DeadLetter string `json:"dead_letter,omitempty"`

	// MaxResponse bounds an answer, in bytes; a larger one fails its request
	// without another try. What is larger than a record travels in parts.
	// Default: 64 MiB.
	MaxResponse int64 `json:"max_response,omitempty"`

	// Drain is how long tries that run may go on after this process has given its
	// partitions up: at `caddy stop`, at SIGTERM, and at a reload that removes the
	// route. Other members of the group take the partitions over at once. A try that
	// has not ended by then is cut off: an answer that the client has none of is
	// tried again elsewhere, and the stream of one that it has half of ends as
	// failed. Longer than what stops Caddy waits for, it is cut short: Kubernetes
	// kills a process 30s after SIGTERM by default. Default: 25s.
	Drain caddy.Duration `json:"drain,omitempty"`

	// RetryStarted has a request tried again also when a part of its answer has
	// gone to the client, who then gets all of it again. Default: false, its
	// stream ends as failed.
	RetryStarted bool `json:"retry_started,omitempty"`

	// Routes are the HTTP routes that answer. Required.
	Routes caddyhttp.RouteList `json:"routes,omitempty"`

	topic string
	site  *caddyhttp.Subroute
}

// provision fills in defaults and loads the handlers.
func (d *Deliver) provision(ctx caddy.Context, topic string) error {
	d.topic = topic
	d.Group = or(d.Group, topic)
	d.Attempts = or(d.Attempts, deliver.DefaultAttempts)
	d.BackoffMin = or(d.BackoffMin, caddy.Duration(deliver.DefaultBackoffLeast))
	d.BackoffMax = or(d.BackoffMax, max(caddy.Duration(deliver.DefaultBackoffMost), d.BackoffMin))
	d.Timeout = or(d.Timeout, caddy.Duration(deliver.DefaultTimeout))
	d.Concurrency = or(d.Concurrency, triesPerCore*runtime.GOMAXPROCS(0))
	d.DeadLetter = or(d.DeadLetter, topic+".dlq")
	d.MaxResponse = or(d.MaxResponse, deliver.DefaultMaxResponse)
	d.Drain = or(d.Drain, caddy.Duration(defaultDrain))
	if err := d.check(); err != nil {
		return fmt.Errorf("deliver %s: %w", topic, err)
	}
	d.site = &caddyhttp.Subroute{Routes: d.Routes}
	if err := d.site.Provision(ctx); err != nil {
		return fmt.Errorf("deliver %s: %w", topic, err)
	}
	return nil
}

// check refuses values that make no sense.
func (d *Deliver) check() error {
	if len(d.Routes) == 0 {
		return errors.New("there is nothing that answers; write a directive such as reverse_proxy")
	}
	if d.Attempts < 1 || d.Concurrency < 1 || d.MaxResponse < 1 {
		return errors.New("attempts, concurrency and max_response have to be at least 1")
	}
	if d.BackoffMin < 0 || d.BackoffMax < d.BackoffMin || d.Timeout < 0 {
		return fmt.Errorf("backoff goes from %s to %s and timeout is %s; durations have to be positive, and the first no longer than the second",
			time.Duration(d.BackoffMin), time.Duration(d.BackoffMax), time.Duration(d.Timeout))
	}
	if d.Drain < 0 {
		return fmt.Errorf("drain %s: negative; write how long tries may go on after the group was left, such as 25s", time.Duration(d.Drain))
	}
	if d.DeadLetter == d.topic {
		return errors.New("the dead-letter topic is the topic itself, so that nothing would ever be given up; name another")
	}
	if d.DeadLetter != deadLetterOff {
		return validTopic(d.DeadLetter)
	}
	return nil
}

// deadLetter is the topic of dead letters, "" for none.
func (d *Deliver) deadLetter() string {
	if d.DeadLetter == deadLetterOff {
		return ""
	}
	return d.DeadLetter
}

// options are those of a delivery.
func (d *Deliver) options() deliver.Options {
	return deliver.Options{
		Handler:  replayed{d.site},
		Attempts: d.Attempts, BackoffMin: time.Duration(d.BackoffMin), BackoffMax: time.Duration(d.BackoffMax),
		Timeout: time.Duration(d.Timeout), Concurrency: d.Concurrency, DeadLetter: d.deadLetter(),
		MaxResponse: d.MaxResponse, Drain: time.Duration(d.Drain), RetryStarted: d.RetryStarted,
	}
}

// replayed has Caddy's handlers answer a request that came from a topic.
type replayed struct{ site *caddyhttp.Subroute }

// server stands for the one that took the request: reverse_proxy panics where
// there is none.
var server = new(caddyhttp.Server)

// ServeHTTP implements deliver.Handler.
func (i replayed) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, server)
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, host)
	}
	err := i.site.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
	var handled caddyhttp.HandlerError
	if errors.As(err, &handled) {
		cause := handled.Err
		if cause == nil {
			cause = errors.New(http.StatusText(handled.StatusCode))
		}
		return &deliver.Failure{Code: handled.StatusCode, Err: cause}
	}
	return err
}

// DeliverHandler delivers a topic in a process of its own, or beside gateways
// that only queue: it takes part in the group and passes requests on untouched.
type DeliverHandler struct {
	// Topic is what is delivered. Required.
	Topic string `json:"topic"`

	Deliver
}

// CaddyModule returns the Caddy module information.
func (*DeliverHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.osmosis_deliver",
		New: func() caddy.Module { return new(DeliverHandler) },
	}
}

func init() {
	caddy.RegisterModule(new(DeliverHandler))
}

// Provision loads the handlers and tells the app of them.
func (h *DeliverHandler) Provision(ctx caddy.Context) error {
	if err := validTopic(h.Topic); err != nil {
		return fmt.Errorf("osmosis_deliver: %w", err)
	}
	app, err := ctx.App("osmosis")
	if err != nil {
		return fmt.Errorf("load the osmosis app: %w", err)
	}
	if err := h.provision(ctx, h.Topic); err != nil {
		return err
	}
	return app.(*App).addDelivery(&h.Deliver)
}

// ServeHTTP passes the request on.
func (*DeliverHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return next.ServeHTTP(w, r)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*DeliverHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*DeliverHandler)(nil)
	_ deliver.Handler             = replayed{}
)
