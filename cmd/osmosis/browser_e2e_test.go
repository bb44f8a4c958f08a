//go:build e2e

package main

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

// browser is the one tab of a Chromium of its own.
type browser struct {
	t   testing.TB
	ctx context.Context

	mu sync.Mutex
	// pages are the URLs of the documents that the tab showed.
	pages []string
	// redirects are the URLs that answered 303.
	redirects []string
	// resumed are the values of Last-Event-ID that the browser sent.
	resumed []string
	// complaints are errors and warnings in the console: exceptions of scripts,
	// violations of a Content-Security-Policy, requests that failed.
	complaints []string
	// outage says that requests may fail.
	outage bool
}

// newBrowser starts a browser that is closed at the end of the test. The test
// fails if anything complained in its console.
func newBrowser(t testing.TB) *browser {
	t.Helper()
	b := &browser{t: t}
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
func (b *browser) listen(ev any) {
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

// seen gives a copy of some of the notes.
func (b *browser) seen(notes *[]string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(*notes)
}

// expectOutage says whether requests may fail from here on because the gateway
// is away.
func (b *browser) expectOutage(may bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outage = may
}

// do runs actions.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// withoutScripts turns the pages' scripts off.
func (b *browser) withoutScripts() {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
}

// await asks the page again and again until the expression is true. Errors on
// the way are those of a page that just goes away for another.
func (b *browser) await(what, expression string) {
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

// evaluate gives the text that the expression stands for.
func (b *browser) evaluate(expression string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return text
}
