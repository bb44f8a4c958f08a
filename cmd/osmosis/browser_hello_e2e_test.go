//go:build e2e

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/browsertest"
)

// TestTheHelloExampleInRealChromium does what the README's first minute says,
// with the example as it stands and on its fixed ports, first with scripts and
// then without. Where the worker is not compiled yet, the first order waits for it.
func TestTheHelloExampleInRealChromium(t *testing.T) {
	g := &gateway{
		t: t, folder: t.TempDir(), Caddyfile: "examples/hello/Caddyfile",
		Admin: "localhost:2019", URL: "http://localhost:8080",
	}
	g.endWithTest()
	g.start()
	b := browsertest.New(t)
	b.Do(chromedp.Navigate(g.URL+"/"), chromedp.Click(chromedp.CSS("form button")))
	began := time.Now()
	b.Await("the order is queued", `document.querySelector('#log [data-status="queued"]') !== null`)
	t.Logf("queued after %s", time.Since(began).Round(time.Millisecond))
	b.Await("the stream has ended", `document.querySelector('#log [data-status="replied"]') !== null`)
	t.Logf("replied after %s", time.Since(began).Round(time.Millisecond))
	for status, want := range map[string]string{"reply": "One espresso, coming up", "replied": "200"} {
		if text := b.Evaluate(`document.querySelector('#log [data-status="` + status + `"]').textContent`); !strings.Contains(text, want) {
			t.Errorf("%s: %q", status, text)
		}
	}
	if file := os.Getenv("OSMOSIS_SCREENSHOT"); file != "" {
		screenshot(t, b, file)
	}
	if pages := b.Pages(); pages[len(pages)-1] != g.URL+"/" {
		t.Errorf("the page was left: %q", pages)
	}

	plain := browsertest.New(t)
	plain.WithoutScripts()
	plain.Do(chromedp.Navigate(g.URL+"/"), chromedp.SetValue(chromedp.CSS("#item"), "flat <white>"), chromedp.Click(chromedp.CSS("form button")))
	plain.Await("the worker's page", `location.pathname.endsWith("/result")`)
	plain.Await("its text", `document.querySelector("h1")?.textContent === "One flat <white>, coming up"`)
	t.Logf("without scripts: %s", plain.Evaluate(`document.body.innerText`))
	t.Logf("stopped after %s", g.stop().Round(time.Millisecond))
}

// screenshot writes what the browser shows, in light mode, to a PNG file.
func screenshot(t testing.TB, b *browsertest.Browser, file string) {
	t.Helper()
	png, err := chromedp.Run(b.Context(), chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(file, png, 0o644)
	}
	if err != nil {
		t.Fatalf("take a screenshot: %v", err)
	}
}
