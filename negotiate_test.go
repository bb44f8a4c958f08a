package osmosis

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestNegotiate(t *testing.T) {
	for _, test := range []struct {
		accept []string
		want   form
	}{
		{nil, formJSON},
		{[]string{""}, formJSON},
		{[]string{"*/*"}, formJSON},
		{[]string{"application/json"}, formJSON},
		{[]string{"application/*"}, formJSON},
		{[]string{"text/event-stream"}, formSSE},
		{[]string{"TEXT/Event-Stream"}, formSSE},
		{[]string{"text/*"}, formSSE},
		{[]string{"text/html"}, formHTML},
		// Ties go by the order of the contract.
		{[]string{"text/html, application/json, text/event-stream"}, formSSE},
		{[]string{"text/html, application/json"}, formJSON},
		{[]string{"text/html", "application/json"}, formJSON},
		// Browsers.
		{[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}, formHTML},
		{[]string{"text/html, */*"}, formHTML},
		{[]string{"application/json, text/plain, */*"}, formJSON},
		// Weights.
		{[]string{"text/event-stream;q=0.5, application/json;q=0.9"}, formJSON},
		{[]string{"text/event-stream; q=0.5, application/json; Q=0.4"}, formSSE},
		{[]string{"text/html;level=1;q=0.1, application/json;q=0.2"}, formJSON},
		{[]string{"application/json;charset=utf-8"}, formJSON},
		{[]string{"application/json;q=0, */*"}, formSSE},
		{[]string{"text/*;q=0.5, text/html"}, formHTML},
		{[]string{"text/html;q=0, text/*"}, formSSE},
		// None.
		{[]string{"image/png"}, formNone},
		{[]string{"application/json;q=0"}, formNone},
		{[]string{"*/*;q=0"}, formNone},
		{[]string{"application/cloudevents+json"}, formNone},
		// What cannot be read is left out; nothing that can is as no header.
		{[]string{"application/json;q=x, text/html"}, formHTML},
		{[]string{"application/json;q=1.5, text/html"}, formHTML},
		{[]string{"nonsense"}, formJSON},
		{[]string{",,,;;,"}, formJSON},
		{[]string{`text/html;x="a,b;q=0", application/json;q=0.5`}, formHTML},
	} {
		if got := negotiate(http.Header{"Accept": test.accept}); got != test.want {
			t.Errorf("%q: %s, want %s", test.accept, got, test.want)
		}
	}
}

func TestAcceptsHTML(t *testing.T) {
	for accept, want := range map[string]bool{
		"text/html": true, "text/html,*/*;q=0.8": true, "application/json, text/html;q=0.1": true,
		"": false, "*/*": false, "text/*": false, "text/html;q=0": false, "application/xhtml+xml": false,
	} {
		if got := acceptsHTML(http.Header{"Accept": {accept}}); got != want {
			t.Errorf("%q: %t", accept, got)
		}
	}
}

// FuzzNegotiate feeds it header fields as strangers send them.
func FuzzNegotiate(f *testing.F) {
	for _, seed := range []string{"*/*", "text/html;q=0.5, text/*", `a/b;c="\`, `"`, ";;,,", "text/event-stream;q=nan", "wait=5", `wait="1\"0"; a`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, field string) {
		got := negotiate(http.Header{"Accept": {field}})
		if got == formWebSocket || got == formResult {
			t.Errorf("%q: %s", field, got)
		}
		if acceptsHTML(http.Header{"Accept": {field}}) && got == formNone {
			t.Errorf("%q names text/html and gets nothing", field)
		}
		if p := parsePrefer(http.Header{"Prefer": {field}}); p.wait < 0 || p.wait > longestWait || p.wait > 0 && !p.waits {
			t.Errorf("%q: %+v", field, p)
		}
	})
}

// asCaddy gives a request what Caddy finds out about its client.
func asCaddy(r *http.Request, trusted bool, client string) *http.Request {
	vars := map[string]any{caddyhttp.TrustedProxyVarKey: trusted, caddyhttp.ClientIPVarKey: client}
	return r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))
}

func TestOriginOf(t *testing.T) {
	for name, test := range map[string]struct {
		host      string
		tls       bool
		trusted   bool
		forwarded [2]string // X-Forwarded-Proto, X-Forwarded-Host
		want      [2]string
	}{
		"plain":                {host: "Example.COM:80", want: [2]string{"http", "example.com"}},
		"TLS":                  {host: "example.com:443", tls: true, want: [2]string{"https", "example.com"}},
		"another port":         {host: "example.com:80", tls: true, want: [2]string{"https", "example.com:80"}},
		"IPv6":                 {host: "[::1]:8080", want: [2]string{"http", "[::1]:8080"}},
		"a stranger's word":    {host: "example.com", forwarded: [2]string{"https", "evil.example"}, want: [2]string{"http", "example.com"}},
		"a trusted proxy's":    {host: "inside:8080", trusted: true, forwarded: [2]string{"HTTPS", "Example.com"}, want: [2]string{"https", "example.com"}},
		"of several proxies":   {host: "inside", trusted: true, forwarded: [2]string{"https, http", "example.com, lb"}, want: [2]string{"https", "example.com"}},
		"no word":              {host: "example.com", tls: true, trusted: true, want: [2]string{"https", "example.com"}},
		"not a scheme of ours": {host: "example.com", trusted: true, forwarded: [2]string{"javascript", ""}, want: [2]string{"http", "example.com"}},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = test.host
		if test.tls {
			r.TLS = new(tls.ConnectionState)
		}
		for i, header := range []string{"X-Forwarded-Proto", "X-Forwarded-Host"} {
			if test.forwarded[i] != "" {
				r.Header.Set(header, test.forwarded[i])
			}
		}
		scheme, host := originOf(asCaddy(r, test.trusted, ""))
		if got := [2]string{scheme, host}; got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestClientKey(t *testing.T) {
	for client, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "192.0.2.7:99": "192.0.2.7",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "[2001:db8:1:2::9]:443": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64", "": "198.51.100.1", "@": "@",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "198.51.100.1:1234"
		if got := clientKey(asCaddy(r, false, client)); got != want {
			t.Errorf("%q: %q, want %q", client, got, want)
		}
	}
}
