package osmosis

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCrossOrigin(t *testing.T) {
	const app, other = "https://app.example", "https://other.example"
	for name, test := range map[string]struct {
		allowed     crossOrigin
		origin      string
		method, ask string // ask is Access-Control-Request-Method
		// what is answered
		preflight          bool
		allow, credentials string
	}{
		"off":                   {nil, app, "GET", "", false, "", ""},
		"off, preflight":        {nil, app, "OPTIONS", "POST", false, "", ""},
		"no page":               {crossOrigin{app}, "", "GET", "", false, "", ""},
		"named":                 {crossOrigin{other, app}, app, "GET", "", false, app, "true"},
		"named in upper case":   {crossOrigin{"HTTPS://APP.example/"}, app, "GET", "", false, app, "true"},
		"not named":             {crossOrigin{app}, other, "GET", "", false, "", ""},
		"not named, preflight":  {crossOrigin{app}, other, "OPTIONS", "POST", false, "", ""},
		"preflight":             {crossOrigin{app}, app, "OPTIONS", "POST", true, app, "true"},
		"OPTIONS, no preflight": {crossOrigin{app}, app, "OPTIONS", "", false, app, "true"},
		"all":                   {crossOrigin{"*"}, app, "GET", "", false, "*", ""},
		"all and named":         {crossOrigin{"*", app}, app, "GET", "", false, app, "true"},
		"all, preflight":        {crossOrigin{"*"}, "null", "OPTIONS", "POST", true, "*", ""},
		"an origin of *":        {crossOrigin{"*"}, "*", "GET", "", false, "*", ""},
		"a suffix":              {crossOrigin{app}, app + ".evil.example", "GET", "", false, "", ""},
	} {
		r := httptest.NewRequest(test.method, "/", nil)
		if test.origin != "" {
			r.Header.Set("Origin", test.origin)
		}
		if test.ask != "" {
			r.Header.Set("Access-Control-Request-Method", test.ask)
			r.Header.Add("Access-Control-Request-Headers", "x-a")
			r.Header.Add("Access-Control-Request-Headers", "x-b")
		}
		w := httptest.NewRecorder()
		preflight := test.allowed.allow(w, r, "GET, POST")
		h := w.Header()
		if preflight != test.preflight || h.Get("Access-Control-Allow-Origin") != test.allow || h.Get("Access-Control-Allow-Credentials") != test.credentials {
			t.Errorf("%s: %t, %v", name, preflight, h)
		}
		if varies := strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin"); varies != (test.allowed != nil) {
			t.Errorf("%s: Vary %v", name, h.Values("Vary"))
		}
		if preflight && (w.Code != 204 || h.Get("Access-Control-Allow-Methods") != "GET, POST" || h.Get("Access-Control-Allow-Headers") != "x-a,x-b") {
			t.Errorf("%s: %d, %v", name, w.Code, h)
		}
		if exposes := h.Get("Access-Control-Expose-Headers") != ""; exposes != (test.allow != "" && !test.preflight) {
			t.Errorf("%s: exposes %t", name, exposes)
		}
	}
}

func TestLongPreflight(t *testing.T) {
	r := httptest.NewRequest(http.MethodOptions, "/", nil)
	r.Header.Set("Origin", "https://app.example")
	r.Header.Set("Access-Control-Request-Method", "POST")
	r.Header.Set("Access-Control-Request-Headers", strings.Repeat("a", maxRequestHeaders+1))
	w := httptest.NewRecorder()
	if !(crossOrigin{"*"}).allow(w, r, "POST") || w.Header().Get("Access-Control-Allow-Headers") != "" {
		t.Errorf("%v", w.Header())
	}
}

// Two Origin headers are no browser's, and what they mean is anyone's guess.
func TestTwoOrigins(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "http://example.com/", nil)
	r.Header["Origin"] = []string{"http://example.com", "https://evil.example"}
	if (crossOrigin{"*"}).admits(r, false) {
		t.Error("admitted")
	}
}

// A WebSocket brings credentials along whatever the page, so "*" admits none where
// they count.
func TestAnyOrigin(t *testing.T) {
	for name, test := range map[string]struct {
		origins crossOrigin
		header  string
		bound   bool
		want    bool
	}{
		"any":               {crossOrigin{"*"}, "", false, true},
		"any, bound":        {crossOrigin{"*"}, "", true, false},
		"any, with cookies": {crossOrigin{"*"}, "Cookie", false, false},
		"any, with a login": {crossOrigin{"*"}, "Authorization", false, false},
		"named":             {crossOrigin{"*", "https://app.example"}, "Cookie", true, true},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://example.com/", nil)
		r.Header.Set("Origin", "https://app.example")
		if test.header != "" {
			r.Header.Set(test.header, "x")
		}
		if got := test.origins.admits(r, test.bound); got != test.want {
			t.Errorf("%s: admitted %t", name, got)
		}
	}
}

func TestVary(t *testing.T) {
	h := http.Header{"Vary": {"Accept, Prefer", "origin"}}
	vary(h, "Origin")
	vary(h, "Cookie")
	if got := strings.Join(h["Vary"], "|"); got != "Accept, Prefer|origin|Cookie" {
		t.Errorf("%q", got)
	}
	h = http.Header{"Vary": {"*"}}
	vary(h, "Origin")
	if len(h["Vary"]) != 1 {
		t.Errorf("%q", h["Vary"])
	}
}
