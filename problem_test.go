package osmosis

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func TestWriteProblem(t *testing.T) {
	for name, test := range map[string]struct {
		problem    problem
		body       string
		retryAfter string
	}{
		"bare":     {problem{Status: 404}, `{"title":"Not Found","status":404}`, ""},
		"detailed": {problem{Status: 503, Detail: "No \"broker\".", RetryAfter: 1500 * time.Millisecond}, `{"title":"Service Unavailable","status":503,"detail":"No \"broker\"."}`, "2"},
		"titled":   {problem{Status: 429, Title: "Slow down", RetryAfter: time.Nanosecond}, `{"title":"Slow down","status":429}`, "1"},
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			w := httptest.NewRecorder()
			if err := writeProblem(w, httptest.NewRequest(method, "/", nil), test.problem); err != nil {
				t.Fatal(err)
			}
			want := test.body + "\n"
			if method == http.MethodHead {
				want = ""
			}
			h := w.Header()
			if w.Code != test.problem.Status || w.Body.String() != want || h.Get("Content-Type") != "application/problem+json" ||
				h.Get("Retry-After") != test.retryAfter || h.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %v %s", name, w.Code, h, w.Body)
			}
		}
	}
}

// A site's own error pages are for people, and only where there are any.
func TestProblemForErrorPages(t *testing.T) {
	withPages := &caddyhttp.Server{Errors: &caddyhttp.HTTPErrorConfig{Routes: caddyhttp.RouteList{{}}}}
	for name, test := range map[string]struct {
		server *caddyhttp.Server
		accept string
		passed bool
	}{
		"a browser":             {withPages, "text/html,*/*;q=0.8", true},
		"a program":             {withPages, "application/json", false},
		"a program, any type":   {withPages, "*/*", false},
		"a browser, no pages":   {new(caddyhttp.Server), "text/html", false},
		"a browser, empty list": {&caddyhttp.Server{Errors: new(caddyhttp.HTTPErrorConfig)}, "text/html", false},
		"no server":             {nil, "text/html", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept", test.accept)
		r = r.WithContext(context.WithValue(r.Context(), caddyhttp.ServerCtxKey, test.server))
		w := httptest.NewRecorder()
		err := writeProblem(w, r, problem{Status: 503, Detail: "Away.", RetryAfter: time.Second})
		var passed caddyhttp.HandlerError
		if errors.As(err, &passed) != test.passed || test.passed == (w.Body.Len() > 0) {
			t.Errorf("%s: %v, %q", name, err, w.Body)
		}
		if test.passed && (passed.StatusCode != http.StatusServiceUnavailable || passed.Err.Error() != "Away.") || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%s: %v %v", name, err, w.Header())
		}
	}
}
