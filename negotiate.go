package osmosis

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// form is how a client wants to see a stream.
type form uint8

// The forms of a stream.
const (
	formNone form = iota // none that the client would accept
	formSSE
	formWebSocket
	formJSON
	formHTML
	formResult // the final reply as the response it stands for
)

// String names the form in the access log.
func (f form) String() string {
	return [...]string{"none", "sse", "websocket", "json", "html", "result"}[f]
}

// offers are the media types of a stream, the preferred one first.
var offers = [...]struct {
	form             form
	mainType, second string
}{
	{formSSE, "text", "event-stream"},
	{formJSON, "application", "json"},
	{formHTML, "text", "html"},
}

// negotiate gives the form that Accept (RFC 9110, section 12.5.1) likes best.
// Among equals the one that is named more precisely wins, so that a browser's
// "text/html, */*" is a page, and then the order of the offers. Where nothing
// but */* speaks for them it is JSON, which is what a client that does not care
// can read.
func negotiate(h http.Header) form {
	ranges := parseAccept(h)
	if len(ranges) == 0 {
		ranges = []mediaRange{{"*", "*", 1}}
	}
	type rank struct {
		quality   float64
		precision int
		order     int
	}
	best, top := formNone, rank{}
	for i, offer := range offers {
		this := rank{order: len(offers) - i}
		for _, r := range ranges {
			if p := r.precision(offer.mainType, offer.second); p > this.precision {
				this.quality, this.precision = r.quality, p
			}
		}
		if this.precision == anything && offer.form == formJSON {
			this.order = len(offers) + 1
		}
		if this.quality > 0 && (this.quality > top.quality || this.quality == top.quality &&
			(this.precision > top.precision || this.precision == top.precision && this.order > top.order)) {
			best, top = offer.form, this
		}
	}
	return best
}

// How precisely a media range names a type.
const (
	anything = iota + 1 // */*
	anyOfMainType
	exactly
)

// mediaRange is one element of Accept.
type mediaRange struct {
	mainType, second string
	quality          float64
}

// precision says how precisely the range names a type, 0 where it does not.
func (m mediaRange) precision(mainType, second string) int {
	switch {
	case m.mainType == "*" && m.second == "*":
		return anything
	case m.mainType != mainType:
		return 0
	case m.second == "*":
		return anyOfMainType
	case m.second == second:
		return exactly
	}
	return 0
}

// parseAccept reads Accept. Parameters other than q are passed over, because
// none of the types here has any that matter; what cannot be read is left out.
func parseAccept(h http.Header) []mediaRange {
	var ranges []mediaRange
	for element := range list(h.Values("Accept"), ',') {
		r := mediaRange{quality: 1}
		var ok bool
		for part := range list([]string{element}, ';') {
			if r.mainType == "" {
				r.mainType, r.second, ok = strings.Cut(strings.ToLower(part), "/")
				continue
			}
			if name, value, _ := strings.Cut(part, "="); strings.EqualFold(strings.TrimSpace(name), "q") {
				q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				ok = ok && err == nil && q >= 0 && q <= 1
				r.quality = q
			}
		}
		if ok {
			ranges = append(ranges, r)
		}
	}
	return ranges
}

// acceptsHTML says whether a person is likely to look at the answer: a browser
// that opens a page names text/html, and nothing else does.
func acceptsHTML(h http.Header) bool {
	for _, r := range parseAccept(h) {
		if r.precision("text", "html") == exactly && r.quality > 0 {
			return true
		}
	}
	return false
}

// isUpgrade says whether the request opens a WebSocket over HTTP/1.1, which only
// GET does (RFC 6455, section 4.1).
func isUpgrade(r *http.Request) bool {
	return r.Method == http.MethodGet && hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

// isExtendedConnect says whether the request opens a WebSocket over HTTP/2
// (RFC 8441) or HTTP/3 (RFC 9220), where it comes as CONNECT with :protocol.
func isExtendedConnect(r *http.Request) bool {
	return r.Method == http.MethodConnect &&
		(r.ProtoMajor == 2 && r.Header.Get(":protocol") != "" || r.ProtoMajor == 3 && r.Proto == "websocket")
}

func hasToken(h http.Header, name, token string) bool {
	for t := range list(h.Values(name), ',') {
		if strings.EqualFold(t, token) {
			return true
		}
	}
	return false
}

// originOf gives scheme and host of the site as the client knows it: behind a
// proxy that Caddy trusts (trusted_proxies) what that proxy says, in
// X-Forwarded-Proto and X-Forwarded-Host. Both are lower-case, and the host is
// without the scheme's own port.
func originOf(r *http.Request) (scheme, host string) {
	scheme, host = "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if trusted, ok := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); ok && trusted {
		if s := forwarded(r, "X-Forwarded-Proto"); s == "http" || s == "https" {
			scheme = s
		}
		if h := forwarded(r, "X-Forwarded-Host"); h != "" {
			host = h
		}
	}
	return scheme, hostOf(scheme, host)
}

// forwarded gives what the proxy nearest to the client put into a header.
func forwarded(r *http.Request, name string) string {
	return strings.ToLower(firstOf(list(r.Header.Values(name), ',')))
}

// hostOf gives one spelling for all that name the same host.
func hostOf(scheme, host string) string {
	host = strings.ToLower(host)
	switch scheme {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}

// clientKey names the client for limits: its address as Caddy determined it
// (trusted_proxies), and for IPv6 its network, since a single client has a
// whole /64 to choose addresses from.
func clientKey(r *http.Request) string {
	text, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	if !ok || text == "" {
		text = r.RemoteAddr
	}
	if host, _, err := net.SplitHostPort(text); err == nil {
		text = host
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return text
	}
	address = address.Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	network, err := address.Prefix(64)
	if err != nil {
		return text
	}
	return network.String()
}
