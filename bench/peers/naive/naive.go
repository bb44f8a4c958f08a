// Package naive is what one writes first: a Caddy handler that produces the
// request's body with franz-go's ProduceSync and answers 202. It has no stream,
// no reply, no headers on the record and no idea of an unclear outcome. What it
// does in [Handler.ServeHTTP] are the thirty lines to be faster than.
//
//	naive <broker> <topic>
package naive

import (
	"fmt"
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/twmb/franz-go/pkg/kgo"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("naive", parse)
	httpcaddyfile.RegisterDirectiveOrder("naive", httpcaddyfile.Before, "respond")
}

// Handler produces requests. The key is the header X-Customer, where there is one.
type Handler struct {
	// Broker is Kafka's address.
	Broker string `json:"broker"`
	// Topic is where requests go.
	Topic string `json:"topic"`

	client *kgo.Client
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.naive", New: func() caddy.Module { return new(Handler) }}
}

// Provision makes the client. Its linger is 0: with franz-go's default of 10 ms
// every request would take that long.
func (h *Handler) Provision(caddy.Context) (err error) {
	h.client, err = kgo.NewClient(kgo.SeedBrokers(h.Broker), kgo.ProducerLinger(0))
	return err
}

// Cleanup closes the client.
func (h *Handler) Cleanup() error {
	h.client.Close()
	return nil
}

// ServeHTTP produces the request and answers 202 when the broker has it.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return caddyhttp.Error(http.StatusBadRequest, err)
	}
	rec := &kgo.Record{Topic: h.Topic, Value: body}
	if key := r.Header.Get("X-Customer"); key != "" {
		rec.Key = []byte(key)
	}
	if err := h.client.ProduceSync(r.Context(), rec).FirstErr(); err != nil {
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// parse reads the directive.
func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next()
	n := new(Handler)
	if !h.Args(&n.Broker, &n.Topic) {
		return nil, fmt.Errorf("write `naive <broker> <topic>`: %w", h.ArgErr())
	}
	return n, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
