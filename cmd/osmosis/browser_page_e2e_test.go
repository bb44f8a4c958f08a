//go:build e2e

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/browsertest"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// formRoute is a site whose pages have no scripts of their own: a form, and
// whatever the workers answer.
const formRoute = `	osmosis /orders orders
	header / Content-Type "text/html; charset=utf-8"
	respond / "<!doctype html><title>A form</title><link rel=icon href=data:,><form action=/orders method=post><input name=item value=tea><button>Order</button></form>"`

// waiting is true on the gateway's own page.
const waiting = `document.title === "In the queue" && location.pathname.startsWith("/-/streams/")`

// formSite starts a gateway with formRoute on an embedded broker, and gives the broker's address.
func formSite(t testing.TB) (g *gateway, brokers []string) {
	t.Helper()
	global, address := embeddedBroker(t)
	g = newGateway(t, global, formRoute)
	g.start()
	return g, []string{address}
}

// order opens the form at base, sends it and waits for the gateway's page.
func order(t testing.TB, b *browsertest.Browser, base string) {
	t.Helper()
	b.Do(chromedp.Navigate(base+"/"), chromedp.Click(chromedp.CSS("button")))
	b.Await("the gateway's page", waiting)
}

// htmlWorker answers orders with a page in two parts, of which the second
// comes when more is closed or the test ends.
func htmlWorker(t testing.TB, brokers []string, more <-chan struct{}) {
	t.Helper()
	work(t, brokers, "orders", 2, func(ctx context.Context, request record.Request, part int) record.Reply {
		if part > 0 {
			select {
			case <-more:
			case <-ctx.Done():
			}
		}
		page := fmt.Sprintf("<!doctype html><title>Done</title><link rel=icon href=data:,><h1>answer %d to %s</h1>", part, request.Body)
		return request.Reply(http.StatusOK, http.Header{"Content-Type": {"text/html; charset=utf-8"}}, []byte(page))
	})
}

// arrived checks that the browser shows the worker's page at …/result, and that
// the way back leads to the form and not to a page that waits.
func arrived(t testing.TB, b *browsertest.Browser, base string) {
	t.Helper()
	b.Await("the worker's page", `location.pathname.endsWith("/result") && document.querySelector("h1")?.textContent === "answer 1 to item=tea"`)
	history, err := chromedp.Run(b.Context(), chromedp.NavigationEntries())
	if err != nil {
		t.Fatal(err)
	}
	before := history.Entries[history.CurrentIndex-1].URL
	t.Logf("at the result; pages shown: %s", shorten(b.Pages()))
	if before != base+"/" {
		t.Errorf("the way back leads to %s", before)
	}
}

// shorten leaves tokens out of URLs.
func shorten(urls []string) string {
	var short []string
	for _, u := range urls {
		parts := strings.Split(u, "/")
		for i, part := range parts {
			if token, query, ok := strings.Cut(part, "?"); len(token) > 40 {
				parts[i] = token[:6] + "…"
				if ok {
					parts[i] += "?" + query
				}
			}
		}
		short = append(short, strings.Join(parts, "/"))
	}
	return strings.Join(short, " ")
}

// TestAFormFollowsItsStreamInRealChromium sends a form from a page without
// scripts. The gateway's page, which has one, follows the stream.
func TestAFormFollowsItsStreamInRealChromium(t *testing.T) {
	g, brokers := formSite(t)
	b := browsertest.New(t)
	order(t, b, g.URL)
	if redirects := b.Redirects(); len(redirects) != 1 || redirects[0] != g.URL+"/orders" {
		t.Errorf("303 from %q", redirects)
	}
	more := make(chan struct{})
	htmlWorker(t, brokers, more)
	b.Await("word of the first part", `document.getElementById("state").textContent === "The answer is arriving"`)
	if html := b.Evaluate(`document.documentElement.outerHTML`); strings.Contains(html, "answer 0") {
		t.Errorf("a reply stands in the gateway's page: %s", html)
	}
	close(more)
	arrived(t, b, g.URL)
}

// TestAFormWithoutScriptsInRealChromium does the same where no script runs: the
// gateway's page asks again by itself.
func TestAFormWithoutScriptsInRealChromium(t *testing.T) {
	g, brokers := formSite(t)
	b := browsertest.New(t)
	b.WithoutScripts()
	order(t, b, g.URL)
	more := make(chan struct{})
	close(more)
	b.Await("the page has come anew", `location.search === "?reload"`)
	htmlWorker(t, brokers, more)
	arrived(t, b, g.URL)
}

// TestAPageOutlivesItsGatewayInRealChromium kills the gateway under a page that
// waits, and starts it again. The page resumes where it was.
func TestAPageOutlivesItsGatewayInRealChromium(t *testing.T) {
	g, brokers := formSite(t)
	outlive(t, g, g.URL, brokers, nil)
}

// TestAPageOutlivesItsGatewayBehindAProxyInRealChromium does so where a proxy
// answers 502 meanwhile, on which an EventSource gives up.
func TestAPageOutlivesItsGatewayBehindAProxyInRealChromium(t *testing.T) {
	g, brokers := formSite(t)
	target, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan struct{}, 100)
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			w.WriteHeader(http.StatusBadGateway)
			refused <- struct{}{}
		},
	})
	t.Cleanup(proxy.Close)
	outlive(t, g, proxy.URL, brokers, refused)
}

// outlive restarts g under a page opened at base. Where refused is given, the
// gateway stays away until the page has been refused there twice.
func outlive(t *testing.T, g *gateway, base string, brokers []string, refused <-chan struct{}) {
	t.Helper()
	b := browsertest.New(t)
	order(t, b, base)
	// The first part gives the page a place to resume from. Its worker ends with
	// the broker, and another one takes over.
	first := make(chan struct{})
	part, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- answer(part, brokers, "orders", 2, func(ctx context.Context, request record.Request, part int) record.Reply {
			if part > 0 {
				close(first)
				<-ctx.Done()
			}
			return request.Reply(http.StatusOK, http.Header{"Content-Type": {"text/html"}}, []byte("a part"))
		})
	}()
	<-first
	b.Await("word of the first part", `document.getElementById("state").textContent === "The answer is arriving"`)
	b.ExpectOutage(true)
	g.kill()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Logf("the first worker ended: %v", err)
	}
	b.Await("word of the outage", `document.getElementById("detail").textContent.startsWith("The connection is interrupted")`)
	if refused != nil {
		<-refused
		<-refused
	}
	g.start()
	more := make(chan struct{})
	close(more)
	htmlWorker(t, brokers, more)
	arrived(t, b, base)
	b.ExpectOutage(false)
	t.Logf("Last-Event-ID %q", b.Resumed())
}
