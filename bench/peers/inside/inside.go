// Package inside is the site behind a queue as a Caddy handler, so that there is
// no second hop over HTTP: what a delivery to it costs is the delivery.
//
//	inside_site [<work>]
package inside

import (
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/osmosis-gateway/caddy-osmosis/bench/peers/site"
)

func init() {
	caddy.RegisterModule(new(Handler))
	httpcaddyfile.RegisterHandlerDirective("inside_site", parse)
	httpcaddyfile.RegisterDirectiveOrder("inside_site", httpcaddyfile.Before, "respond")
}

// all is the one site of the process: what it answers under one route can be
// asked for under another.
var all site.Site

// Handler is the site.
type Handler struct {
	// Work is how long a request takes, in every route of the process.
	Work caddy.Duration `json:"work,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.inside_site", New: func() caddy.Module { return new(Handler) }}
}

// Provision sets how long requests take.
func (h *Handler) Provision(caddy.Context) error {
	all.Work = max(all.Work, time.Duration(h.Work))
	return nil
}

// ServeHTTP has the site answer.
func (*Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	all.ServeHTTP(w, r)
	return nil
}

// parse reads the directive.
func parse(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next()
	handler := new(Handler)
	if !h.NextArg() {
		return handler, nil
	}
	work, err := caddy.ParseDuration(h.Val())
	if err != nil || h.NextArg() {
		return nil, h.ArgErr()
	}
	handler.Work = caddy.Duration(work)
	return handler, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
