package osmosis

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"time"
)

// glance is how long the page may take to look whether its stream has ended
// already. Without an answer it is shown all the same.
const glance = time.Second

// reload is the query by which a page without scripts asks again. It has
// nothing else to learn the end from, so that answer may take longer.
const reload = "reload"

// servePage gives a page that waits for the stream's end and then goes to
// …/result, so that the browser gets the application's own page, redirect and
// cookies. Without scripts it looks again every second: a page that goes on any
// later stands in the browser's way back. Nothing of a reply is on it.
func (v *visit) servePage(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	if r.Method != http.MethodHead {
		limit := glance
		if r.URL.Query().Has(reload) {
			limit = patience
		}
		if last := v.endWithin(r.Context(), limit); last != "" {
			// Relative to the page, because what the client calls it may differ
			// from the path that comes here (handle_path, rewrite).
			h.Set("Location", path.Base(r.URL.EscapedPath())+"/result?last-event-id="+url.QueryEscape(last))
			w.WriteHeader(http.StatusSeeOther)
			return nil
		}
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(page)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(page))
	}
	return nil
}

// endWithin gives the cursor of the stream's end if it has ended, and "" if it
// has not or nobody can say in time.
func (v *visit) endWithin(ctx context.Context, limit time.Duration) string {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	sub := v.hub.Follow(streamOf(v.claims), nil)
	defer sub.Close()
	s := newSnapshot(nil)
	if s.read(ctx, sub, func() bool { return s.caughtUp || s.end != nil }) != nil || s.end == nil {
		return ""
	}
	return s.last
}

// The page's style and script stand in it literally, and the policy names them
// by their hashes, so that nothing else can run there.
const (
	pageStyle = `
:root { color-scheme: light dark; }
body { font: 1.1rem/1.5 system-ui, sans-serif; display: grid; place-content: center; min-height: 90vh; margin: 0; padding: 1rem; text-align: center; }
p { margin: .25rem; }
#detail { opacity: .7; font-size: .9rem; min-height: 1.5em; }
progress { width: 16rem; max-width: 80vw; margin: 1rem auto; }
`
	pageScript = `
"use strict";
const state = document.getElementById("state"), detail = document.getElementById("detail");
const words = { queued: "Your request is in the queue", delivering: "Your request is being worked on", retrying: "Your request is being tried again" };
let events;
function follow() {
  events = new EventSource(location.pathname);
  events.onopen = () => { detail.textContent = ""; };
  events.onmessage = () => { state.textContent = "The answer is arriving"; };
  events.addEventListener("status", (e) => {
    const s = JSON.parse(e.data);
    state.textContent = words[s.status] || s.status;
    detail.textContent = s.attempt > 1 ? "Try " + s.attempt : "";
  });
  events.addEventListener("end", (e) => {
    events.close();
    location.replace(location.pathname + "/result?last-event-id=" + encodeURIComponent(e.lastEventId));
  });
  events.onerror = () => {
    detail.textContent = "The connection is interrupted; nothing is lost.";
    if (events.readyState === EventSource.CLOSED) setTimeout(again, 5000);
  };
}
// An EventSource gives up on an answer that is no stream. The page comes anew
// when the gateway answers, not for a proxy's word that it is away.
async function again() {
  const answer = await fetch(location.pathname, { method: "HEAD", headers: { Accept: "text/html" } }).catch(() => null);
  if (answer && answer.status < 500 && answer.status !== 429) location.reload();
  else setTimeout(again, 5000);
}
follow();
addEventListener("pagehide", () => events.close());
addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
`
	page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<noscript><meta http-equiv="refresh" content="1;url=?` + reload + `"></noscript>
<title>In the queue</title>
<style>` + pageStyle + `</style>
<main aria-live="polite">
<p id="state">Your request is in the queue</p>
<progress aria-label="Waiting"></progress>
<p id="detail"></p>
</main>
<script>` + pageScript + `</script>
</html>
`
)

// pagePolicy lets the page do what it does and nothing else.
var pagePolicy = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; style-src '" +
	sourceHash(pageStyle) + "'; script-src '" + sourceHash(pageScript) + "'"

// sourceHash names an inline element as Content-Security-Policy does (CSP 3, section 2.3.1).
func sourceHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
