// Package browsertest drives a real Chromium in tests.
//
//	b := browsertest.New(t)
//	b.Do(chromedp.Navigate(url), chromedp.Click(chromedp.CSS("button")))
//	b.Await("the answer", `document.querySelector("h1") !== null`)
//
// Where there is no Chromium the test fails and says what to install; it is never
// skipped. Tests that use it carry the build tag e2e and have RealChromium in
// their names.
//
// # Concurrency
//
// The methods of a Browser are for the test's own goroutine.
package browsertest

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds every wait. It is long because it is no promise: machines that
// build and test at once are slow.
const patience = 90 * time.Second

// chromium finds the browser. A test that needs it fails without.
func chromium(t testing.TB) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	if own := os.Getenv("CHROMIUM"); own != "" {
		names = []string{own}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("no browser found as %s: install Chromium (Debian: apt-get install chromium) or Google Chrome, or say where it is in CHROMIUM", strings.Join(names, ", "))
	return ""
}

// Browser is the one tab of a Chromium of its own.
type Browser struct {
	t   testing.TB
	ctx context.Context

	mu sync.Mutex
	// pages, redirects and resumed are what the methods of these names give.
	pages, redirects, resumed []string
	// complaints are errors and warnings in the console: exceptions of scripts,
	// violations of a Content-Security-Policy, requests that failed.
	complaints []string
	// outage says that requests may fail.
	outage bool
}

// New starts a browser that is closed at the end of the test. The test
// fails if anything complained in its console.
func New(t testing.TB) *Browser {
	t.Helper()
	b := &Browser{t: t}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)), chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.WSURLReadTimeout(patience))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // it refuses to run as root
	}
	allocator, free := chromedp.NewExecAllocator(context.Background(), options...)
	tab, _ := chromedp.NewContext(allocator, chromedp.WithListener(b.listen), chromedp.WithErrorf(t.Logf))
	b.ctx = tab
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(tab, patience)
		defer cancel()
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("close the browser: %v", err)
		}
		free()
		for _, complaint := range b.seen(&b.complaints) {
			t.Errorf("in the console: %s", complaint)
		}
	})
	// The browser lives as long as the context of its first action, which
	// therefore has no deadline.
	if err := chromedp.Do(tab, chromedp.EmulateViewport(1000, 620)); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	return b
}

// listen takes notes of what happens in the tab.
func (b *Browser) listen(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *page.EventFrameNavigated:
		if ev.Frame.ParentID == "" {
			b.pages = append(b.pages, ev.Frame.URL)
		}
	case *network.EventRequestWillBeSent:
		if ev.RedirectResponse != nil && ev.RedirectResponse.Status == 303 {
			b.redirects = append(b.redirects, ev.RedirectResponse.URL)
		}
	case *network.EventRequestWillBeSentExtraInfo:
		for name, value := range ev.Headers {
			if text, ok := value.(string); ok && strings.EqualFold(name, "Last-Event-ID") {
				b.resumed = append(b.resumed, text)
			}
		}
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, (&chromedp.ExceptionError{ExceptionDetails: ev.ExceptionDetails}).Error())
	case *runtime.EventConsoleAPICalled:
		if ev.Type == runtime.ConsoleAPICalledTypeError || ev.Type == runtime.ConsoleAPICalledTypeWarning || ev.Type == runtime.ConsoleAPICalledTypeAssert {
			b.complaints = append(b.complaints, string(ev.Args[0].Value))
		}
	case *cdplog.EventEntryAdded:
		e := ev.Entry
		if e.Level != cdplog.EntryLevelError && e.Level != cdplog.EntryLevelWarning {
			return
		}
		if b.outage && e.Source == cdplog.EntrySourceNetwork {
			return
		}
		b.complaints = append(b.complaints, string(e.Source)+": "+e.Text+" "+e.URL)
	}
}

// Pages gives the URLs of the documents that the tab showed.
func (b *Browser) Pages() []string { return b.seen(&b.pages) }

// Redirects gives the URLs that answered 303.
func (b *Browser) Redirects() []string { return b.seen(&b.redirects) }

// Resumed gives the values of Last-Event-ID that the browser sent.
func (b *Browser) Resumed() []string { return b.seen(&b.resumed) }

// Context is what actions of chromedp that give something run in; it ends with
// the test.
func (b *Browser) Context() context.Context { return b.ctx }

// seen gives a copy of some of the notes.
func (b *Browser) seen(notes *[]string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(*notes)
}

// ExpectOutage says whether requests may fail from here on because the gateway
// is away.
func (b *Browser) ExpectOutage(may bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outage = may
}

// Do runs actions.
func (b *Browser) Do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// WithoutScripts turns the pages' scripts off.
func (b *Browser) WithoutScripts() {
	b.t.Helper()
	b.Do(chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
}

// Await asks the page again and again until the expression is true. Errors on
// the way are those of a page that just goes away for another.
func (b *Browser) Await(what, expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		yes, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if err == nil && yes {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.href+'\\n'+document.body.innerText"))
			b.t.Fatalf("%s: not after %s (%v); the page is %s\nbefore it %q\nthe console says %q", what, patience, err, text, b.seen(&b.pages), b.seen(&b.complaints))
		}
	}
}

// Evaluate gives the text that the expression stands for.
func (b *Browser) Evaluate(expression string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return text
}
