package osmosis

import (
	"encoding/json"
	"reflect"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Directives run after those that authenticate, encode and limit, and before
// all that answer: `handle`, `route` and `respond` come after `invoke`. The
// stream route comes first, so that no queue in front of a whole site takes the
// requests for it.
func init() {
	httpcaddyfile.RegisterGlobalOption("osmosis", parseGlobalOption)
	httpcaddyfile.RegisterDirective("osmosis_streams", parseStreamsDirective)
	httpcaddyfile.RegisterDirectiveOrder("osmosis_streams", httpcaddyfile.Before, "invoke")
	httpcaddyfile.RegisterDirective("osmosis", parseDirective)
	httpcaddyfile.RegisterDirectiveOrder("osmosis", httpcaddyfile.Before, "invoke")
}

// UnmarshalCaddyfile reads the handler. Syntax:
//
//	osmosis [<matcher>] <topic> {
//		key         <text with placeholders>
//		methods     <method…>
//		wait        <duration>
//		max_body    <size>
//		headers     <name…>
//		bind        <text with placeholders>
//		group       <consumer group>
//		idempotency <window>
//		admit       <duration>
//		cors        <origin…>
//		deliver [<group>] {
//			…
//		}
//		scale {
//			…
//		}
//	}
//
// The block of deliver holds directives, which only the Caddyfile of a site can
// read: see deliverBlock. The block of scale is that of [Scale.UnmarshalCaddyfile], without a topic and
// a group: they are the route's.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return h.unmarshal(d, func(d *caddyfile.Dispenser) error {
		return d.Errf("deliver can be read in a site only, where directives are known")
	})
}

// unmarshal reads the handler; deliver reads that option.
func (h *Handler) unmarshal(d *caddyfile.Dispenser, deliver option) error {
	d.Next() // the directive's name
	if err := text(&h.Topic, "[<matcher>] <topic>")(d); err != nil {
		return err
	}
	if err := validTopic(h.Topic); err != nil {
		return d.WrapErr(err)
	}
	return options{
		"key":         text(&h.Key, "<text with placeholders>"),
		"methods":     words(&h.Methods, "<method…>"),
		"wait":        duration(&h.Wait),
		"max_body":    size(&h.MaxBody),
		"headers":     words(&h.Headers, "<name…>"),
		"bind":        text(&h.Bind, "<text with placeholders>"),
		"group":       text(&h.Group, "<consumer group>"),
		"idempotency": duration(&h.Idempotency),
		"admit":       duration(&h.Admit),
		"cors":        words(&h.CORS, "<origin…>"),
		"deliver":     deliver,
		"scale": func(d *caddyfile.Dispenser) error {
			if d.NextArg() {
				return d.Errf("scale in a route takes no arguments, since topic and group are the route's; write: scale { … }")
			}
			h.Scale = new(Scale)
			return h.Scale.unmarshalBlock(d)
		},
	}.read(d, "osmosis")
}

// UnmarshalCaddyfile reads the handler. Syntax:
//
//	osmosis_streams [<matcher>] {
//		cors <origin…>
//	}
//
// Without a matcher it takes the stream URLs, whose path `streams` in the
// global osmosis block sets.
func (h *StreamsHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("osmosis_streams takes no topic, found %q; write: osmosis_streams [<matcher>]", d.Val())
	}
	return options{
		"cors": words(&h.CORS, "<origin…>"),
	}.read(d, "osmosis_streams")
}

// parseDirective reads an osmosis directive into its route. At the top level of
// a site the stream route comes with it. In a block it is refused where no
// stream route stands above it in the site: one of its own inside a block with a
// matcher would be out of reach, and clients would get URLs that answer 404.
func parseDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the directive's name
	site := siteOf(h)
	if !site.top && !site.streams.somewhere {
		return nil, h.Errf("osmosis in a block (such as handle, route or a named route) brings no stream route, and none stands above it; " +
			"write osmosis_streams above it in this site, where it gets requests for the stream URLs")
	}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, h.WrapErr(err)
	}
	handler := new(Handler)
	if err := handler.unmarshal(h.Dispenser, deliverBlock(h, &handler.Deliver)); err != nil {
		return nil, err
	}
	var routes []httpcaddyfile.ConfigValue
	if site.top && !site.streams.everywhere {
		urls, err := streamURLs(h)
		if err != nil {
			return nil, err
		}
		routes = h.NewRoute(urls, new(StreamsHandler))
		site.remember(h, streamRoutes{somewhere: true, everywhere: true})
	}
	return append(routes, h.NewRoute(matcher, handler)...), nil
}

// parseStreamsDirective reads an osmosis_streams directive into its route.
func parseStreamsDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the directive's name
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, h.WrapErr(err)
	}
	handler := new(StreamsHandler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	site := siteOf(h)
	site.remember(h, streamRoutes{somewhere: true, everywhere: site.top && matcher == nil})
	if matcher == nil {
		if matcher, err = streamURLs(h); err != nil {
			return nil, err
		}
	}
	return h.NewRoute(matcher, handler), nil
}

// streamURLs matches the requests for stream URLs.
//
// Two paths, though the first alone leads nowhere, because of how Caddy sorts
// the routes of one directive: those with exactly one path by its length, and
// with that a stream route with a single path would go behind an osmosis route
// with a longer one, and in a long site behind any. With two it compares as
// equal to every route that has a matcher and as less than every route that has
// none, so it stays where it is put: in front.
func streamURLs(h httpcaddyfile.Helper) (caddy.ModuleMap, error) {
	prefix := defaultStreams
	if option, ok := h.Option("osmosis").(httpcaddyfile.App); ok {
		var app struct {
			Streams Streams `json:"streams"`
		}
		if err := json.Unmarshal(option.Value, &app); err != nil {
			return nil, h.Errf("read the global osmosis option: %w", err)
		}
		if app.Streams.Path != "" {
			prefix = app.Streams.Path
		}
	}
	return caddy.ModuleMap{"path": h.JSON(caddyhttp.MatchPath{prefix, prefix + "/*"})}, nil
}

// streamRoutes says which stream routes stand above a directive in its site.
type streamRoutes struct {
	somewhere  bool // at least one, perhaps in a block or behind a matcher
	everywhere bool // one at the top level that takes all stream URLs
}

// site is the site block, or the named route, that a directive stands in.
type site struct {
	block   uintptr // tells sites apart; 0 unknown
	top     bool    // the directive stands at the site's top level
	streams streamRoutes
}

// streamRoutesKey is where Helper.State holds a map[uintptr]streamRoutes by site.
const streamRoutesKey = "osmosis.stream_routes"

// siteOf looks at where a directive stands. State is one map for the whole
// Caddyfile, which blocks get as it is, and BlockState one that they get a copy
// of; at the top level the two are the same map, and the directives of a named
// route stand in a block.
//
// A Helper tells nobody which site it belongs to, so the address of the site's
// tokens, in a field that is not exported, has to. Should that field go, sites
// are not told apart any longer: every osmosis directive at a top level then
// brings the stream route, and one in a block is content with a stream route
// above it in any site.
func siteOf(h httpcaddyfile.Helper) site {
	s := site{top: reflect.ValueOf(h.State).Pointer() == reflect.ValueOf(h.BlockState).Pointer()}
	if parent := reflect.ValueOf(h).FieldByName("parentBlock"); parent.Kind() == reflect.Struct {
		if segments := parent.FieldByName("Segments"); segments.Kind() == reflect.Slice {
			s.block = segments.Pointer()
		}
	}
	if known, ok := h.State[streamRoutesKey].(map[uintptr]streamRoutes); ok {
		s.streams = known[s.block]
	}
	if s.block == 0 {
		s.streams.everywhere = false
	}
	return s
}

// remember notes a stream route for the directives below.
func (s site) remember(h httpcaddyfile.Helper, routes streamRoutes) {
	known, ok := h.State[streamRoutesKey].(map[uintptr]streamRoutes)
	if !ok {
		known = make(map[uintptr]streamRoutes)
		h.State[streamRoutesKey] = known
	}
	routes.somewhere = routes.somewhere || s.streams.somewhere
	routes.everywhere = routes.everywhere || s.streams.everywhere
	known[s.block] = routes
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*StreamsHandler)(nil)
)
