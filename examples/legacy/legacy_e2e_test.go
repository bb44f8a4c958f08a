//go:build e2e

package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/browsertest"
	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// site is the example, run as its README says.
type site struct {
	*exampletest.Example
	open func() *exampletest.Process // the shop
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Example: exampletest.New(t, "legacy")}
	shop, books := s.Build("examples/legacy"), filepath.Join(t.TempDir(), "books.json")
	s.open = func() *exampletest.Process {
		return s.StartApp([]string{shop}, "LEGACY_ADDRESS="+s.App, "LEGACY_FILE="+books, "LEGACY_TILL=1500ms")
	}
	return s
}

// login opens the shop in a browser of a guest's own.
func (s *site) login(t *testing.T, guest string, scripts bool) *browsertest.Browser {
	t.Helper()
	b := browsertest.New(t)
	if !scripts {
		b.WithoutScripts()
	}
	b.Do(chromedp.Navigate(s.URL("/")), chromedp.SendKeys(chromedp.CSS("#name"), guest), chromedp.Click(chromedp.CSS("button")))
	b.Await("logged in", `document.querySelector("#item") !== null`)
	return b
}

// order sends the form and gives the stream's URL when the gateway's page is there.
func order(b *browsertest.Browser, item string) string {
	b.Do(chromedp.SetValue(chromedp.CSS("#item"), item), chromedp.Click(chromedp.CSS("button")))
	b.Await("the gateway's page", `document.title === "In the queue"`)
	return b.Evaluate(`location.origin + location.pathname`)
}

// served waits for the shop's own page and gives what stands on it.
func (s *site) served(t *testing.T, b *browsertest.Browser) (note, orders string) {
	t.Helper()
	b.Await("the shop's page", `location.pathname === "/" && document.querySelector(".note") !== null`)
	note = b.Evaluate(`document.querySelector(".note").textContent`)
	orders = b.Evaluate(`[...document.querySelectorAll("li")].map((e) => e.textContent).join(", ")`)
	t.Logf("%q; ordered so far: %s", note, orders)
	return note, orders
}

// TestTheLegacyExampleInRealChromium has two guests order in browsers of their
// own, one without scripts. Each ends on the shop's own page, with the cookie
// that the shop has set in its answer, and sees nothing of the other.
func TestTheLegacyExampleInRealChromium(t *testing.T) {
	s := newSite(t)
	s.open()
	s.StartGateway()
	alice, bob := s.login(t, "alice", false), s.login(t, "bob", true)

	stream := order(alice, "flat <white>")
	order(bob, "tea")
	note, orders := s.served(t, alice)
	if note != "Thank you, alice: one flat <white>, coming up." || orders != "flat <white>" {
		t.Errorf("alice sees %q and %q", note, orders)
	}
	note, orders = s.served(t, bob)
	if note != "Thank you, bob: one tea, coming up." || orders != "tea" {
		t.Errorf("bob sees %q and %q", note, orders)
	}
	for _, b := range []*browsertest.Browser{alice, bob} {
		if waited := b.Pages(); !strings.Contains(strings.Join(waited, " "), "/-/streams/") || waited[len(waited)-1] != s.URL("/") {
			t.Errorf("pages shown: %q", waited)
		}
	}

	// With alice's URL and bob's cookie nobody sees alice's order.
	for _, path := range []string{"", "/result"} {
		for cookie, want := range map[string]int{"session=another": http.StatusForbidden, "": http.StatusUnauthorized} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, stream+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			if cookie != "" {
				request.Header.Set("Cookie", cookie)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("the stream%s with the cookie %q: %s", path, cookie, response.Status)
			}
		}
	}
}

// TestTheLegacyExampleTakesOrdersWhileTheShopIsClosedInRealChromium orders while
// the application is down, and again while it is killed over an order.
func TestTheLegacyExampleTakesOrdersWhileTheShopIsClosedInRealChromium(t *testing.T) {
	s := newSite(t)
	shop := s.open()
	s.StartGateway()
	b := s.login(t, "carol", true)
	shop.Kill()

	order(b, "espresso")
	b.Await("word of a try", `document.getElementById("state").textContent.includes("tried again")`)
	shop = s.open()
	note, orders := s.served(t, b)
	if note != "Thank you, carol: one espresso, coming up." || orders != "espresso" {
		t.Errorf("carol sees %q and %q", note, orders)
	}

	order(b, "cake")
	b.Await("the till is at it", `document.getElementById("state").textContent.includes("worked on")`)
	shop.Kill()
	s.open()
	if _, orders = s.served(t, b); orders != "espresso, cake" {
		t.Errorf("carol sees %q", orders)
	}
}
