package naive

import (
	"io"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Idle))
	httpcaddyfile.RegisterHandlerDirective("idle_stream", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return new(Idle), nil })
	httpcaddyfile.RegisterDirectiveOrder("idle_stream", httpcaddyfile.Before, "respond")
}

// Idle answers with an event stream on which nothing ever comes. What it holds
// in memory is what Caddy and net/http hold for any stream.
type Idle struct{}

// CaddyModule returns the Caddy module information.
func (*Idle) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.idle_stream", New: func() caddy.Module { return new(Idle) }}
}

// ServeHTTP opens the stream and waits for the client to go.
func (*Idle) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	w.Header().Set("Content-Type", "text/event-stream")
	if _, err := io.WriteString(w, ": idle\n\n"); err != nil {
		return nil // the client is gone
	}
	if http.NewResponseController(w).Flush() == nil {
		<-r.Context().Done()
	}
	return nil
}

// Interface guards
var _ caddyhttp.MiddlewareHandler = (*Idle)(nil)
