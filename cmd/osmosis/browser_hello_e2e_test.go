//go:build e2e

package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
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
	b := newBrowser(t)
	b.do(chromedp.Navigate(g.URL+"/"), chromedp.Click(chromedp.CSS("form button")))
	began := time.Now()
	b.await("the order is queued", `document.querySelector('#log [data-status="queued"]') !== null`)
	t.Logf("queued after %s", time.Since(began).Round(time.Millisecond))
	b.await("the stream has ended", `document.querySelector('#log [data-status="replied"]') !== null`)
	t.Logf("replied after %s", time.Since(began).Round(time.Millisecond))
	for status, want := range map[string]string{"reply": "One espresso, coming up", "replied": "200"} {
		if text := b.evaluate(`document.querySelector('#log [data-status="` + status + `"]').textContent`); !strings.Contains(text, want) {
			t.Errorf("%s: %q", status, text)
		}
	}
	if file := os.Getenv("OSMOSIS_SCREENSHOT"); file != "" {
		screenshot(b, file)
	}
	if pages := b.seen(&b.pages); pages[len(pages)-1] != g.URL+"/" {
		t.Errorf("the page was left: %q", pages)
	}

	plain := newBrowser(t)
	plain.withoutScripts()
	plain.do(chromedp.Navigate(g.URL+"/"), chromedp.SetValue(chromedp.CSS("#item"), "flat <white>"), chromedp.Click(chromedp.CSS("form button")))
	plain.await("the worker's page", `location.pathname.endsWith("/result")`)
	plain.await("its text", `document.querySelector("h1")?.textContent === "One flat <white>, coming up"`)
	t.Logf("without scripts: %s", plain.evaluate(`document.body.innerText`))
	t.Logf("stopped after %s", g.stop().Round(time.Millisecond))
}

// screenshot writes what the browser shows, in light mode, to a PNG file.
func screenshot(b *browser, file string) {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(file, png, 0o644)
	}
	if err != nil {
		b.t.Fatalf("take a screenshot: %v", err)
	}
}
