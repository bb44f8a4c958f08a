package osmosis

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// everyForm asks for a stream in each form that can be asked for by a header.
var everyForm = map[string][]string{
	"SSE":       {"Accept", "text/event-stream"},
	"JSON":      {"Accept", "application/json"},
	"page":      {"Accept", "text/html"},
	"WebSocket": {"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="},
	"nothing":   {"Accept", "image/png"},
}

// A token that does not open is the same 404, a passed one the same 410, and a
// stranger the same 401 or 403, in every form.
func TestWhoMayRead(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		bound := func(c *hub.Claims) {
			c.Bind, c.BindHash = "{test.user}", s.app.keys.BindHash(c.ID, "ada")
		}
		passed := func(c *hub.Claims) {
			c.Issued, c.Expires = c.Issued.Add(-3*time.Hour), c.Issued.Add(-2*time.Hour)
		}
		good, owned, gone := s.path(s.accept()), s.path(s.accept(bound)), s.path(s.accept(bound, passed))
		forger, err := hub.NewKeyring("another secret, which nobody knows")
		if err != nil {
			t.Fatal(err)
		}
		forged, err := forger.Seal(s.accept())
		if err != nil {
			t.Fatal(err)
		}
		misspelt := good[:len(good)-10] + "AAAA" + good[len(good)-6:]
		for name, test := range map[string]struct {
			path    string
			headers []string
			status  int
		}{
			"forged":        {defaultStreams + "/" + forged, nil, 404},
			"cut":           {good[:len(good)-1], nil, 404},
			"misspelt":      {misspelt, nil, 404},
			"no token":      {defaultStreams + "/", nil, 404},
			"long":          {defaultStreams + "/" + strings.Repeat("A", 4000), nil, 404},
			"and more":      {good + "/more", nil, 404},
			"other host":    {good, []string{"Host", "evil.example"}, 404},
			"other port":    {good, []string{"Host", "localhost:8081"}, 404},
			"nobody":        {owned, nil, 401},
			"someone else":  {owned, []string{"User", "eve"}, 403},
			"a placeholder": {owned, []string{"User", "{test.user}"}, 403},
			"passed":        {gone, []string{"User", "eve"}, 410},
		} {
			for form, headers := range everyForm {
				for _, suffix := range []string{"", "/result"} {
					a := s.get(test.path+suffix, append(headers, test.headers...)...)
					if a.StatusCode != test.status || a.Header.Get("Content-Type") != "application/problem+json" {
						t.Errorf("%s as %s%s: %s %s, want %d", name, form, suffix, a.Status, a.Header, test.status)
					}
					if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" {
						t.Errorf("%s as %s: %v", name, form, a.Header)
					}
				}
			}
		}
		s.get(owned, "User", "ada").want(t, 200, `"status":"queued"`)
		s.get(good, "Host", "LOCALHOST:8080").want(t, 200, `"status":"queued"`)
	})
}

func TestStreamMethods(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept(func(c *hub.Claims) { c.Bind, c.BindHash = "{test.user}", s.app.keys.BindHash(c.ID, "ada") })
		path := s.path(c)
		for _, method := range []string{"POST", "PUT", "PATCH", "TRACE", "BREW"} {
			if a := s.do(method, path).want(t, 405); a.Header.Get("Allow") != streamMethods {
				t.Errorf("%s: %v", method, a.Header)
			}
		}
		if a := s.do("OPTIONS", path).want(t, 204); a.Header.Get("Allow") != streamMethods {
			t.Errorf("%v", a.Header)
		}
		for form, headers := range everyForm {
			if form == "WebSocket" {
				continue
			}
			status := 200
			if form == "nothing" {
				status = 406
			}
			a := s.do("HEAD", path, append(headers, "User", "ada")...).want(t, status)
			if a.body != "" || a.Header.Get("Vary") != "Accept, Prefer, Origin" {
				t.Errorf("%s: %q %v", form, a.body, a.Header)
			}
		}
		s.get("/elsewhere").want(t, notOurs)
		s.get(defaultStreams).want(t, notOurs)
		s.get(defaultStreams+"x/y").want(t, notOurs)
		s.get(path, "User", "ada", "Accept", "image/png, application/xml").want(t, 406, "text/event-stream")
	})
}

// The access log learns which stream was read and in which form.
func TestAccessLogFields(t *testing.T) {
	r := &http.Request{Method: http.MethodGet, Header: http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"}}}
	for want, got := range map[string]form{"websocket": formOf(r, false), "result": formOf(r, true), "json": formOf(&http.Request{}, false)} {
		if got.String() != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// Where the site has error pages a person gets those, and a program does not.
func TestErrorPages(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		s.caddy.Errors = &caddyhttp.HTTPErrorConfig{Routes: caddyhttp.RouteList{{}}}
		if a := s.get(defaultStreams+"/x", "Accept", "text/html").want(t, 404); a.body != "" {
			t.Errorf("%q was written", a.body)
		}
		s.get(defaultStreams+"/x", "Accept", "text/event-stream").want(t, 404, `"status":404`)
	})
}

func TestStreamCORS(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		const app = "https://app.example"
		s.app.addRoute(&Handler{Topic: testTopic, CORS: []string{app}})
		c := s.accept(func(c *hub.Claims) { c.Bind, c.BindHash = "{test.user}", s.app.keys.BindHash(c.ID, "ada") })
		s.reply(c, record.Reply{Body: []byte("x"), Header: http.Header{"Access-Control-Allow-Origin": {"*"}}})
		path := s.path(c)
		// The preflight comes without credentials, and so before `bind`.
		a := s.do("OPTIONS", path, "Origin", app, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "last-event-id,prefer").want(t, 204)
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": app, "Access-Control-Allow-Credentials": "true",
			"Access-Control-Allow-Methods": streamMethods, "Access-Control-Allow-Headers": "last-event-id,prefer",
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		for _, suffix := range []string{"", "/result"} {
			a = s.get(path+suffix, "Origin", app, "User", "ada").want(t, 200)
			if got := a.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != app {
				t.Errorf("%q", got)
			}
			if !strings.Contains(a.Header.Get("Access-Control-Expose-Headers"), "ETag") {
				t.Errorf("%v", a.Header)
			}
		}
		a = s.get(path, "Origin", "https://evil.example", "User", "ada").want(t, 200)
		if got := a.Header.Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%q", got)
		}
	})
}

func TestOpenStreamLimits(t *testing.T) {
	limited := func(a *App) { a.Streams = &Streams{MaxOpenPerClient: 2} }
	virtually(t, func(t *testing.T, s *gateway) {
		path := s.path(s.accept())
		first := s.listen(path)
		s.listen(path)
		refused := s.listen(path)
		refused.ends()
		if retry := refused.parser.retry; retry < comeBackLater {
			t.Errorf("retry %s", retry)
		}
		for _, suffix := range []string{"", "/result"} {
			if a := s.get(path+suffix).want(t, 429); a.Header.Get("Retry-After") == "" {
				t.Errorf("%v", a.Header)
			}
		}
		s.get(path, "Accept", "text/html").want(t, 200)
		if streams.count() != 2 {
			t.Errorf("%d streams", streams.count())
		}
		first.response.Body.Close()
		<-time.After(time.Second)
		s.get(path).want(t, 200)
	}, limited)
	virtually(t, func(t *testing.T, s *gateway) {
		path := s.path(s.accept())
		s.listen(path)
		if a := s.get(path).want(t, 503); a.Header.Get("Retry-After") == "" {
			t.Errorf("%v", a.Header)
		}
	}, func(a *App) { a.Streams = &Streams{MaxOpen: 1} })
}
