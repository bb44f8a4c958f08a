// Command legacy is a web application as they have been written for decades: a
// login that sets a cookie, a form, a redirect after the post, a page that lists
// what was ordered. It knows nothing of queues and nothing of Osmosis; its till
// is slow, and that is what a queue in front of it is for.
//
// It listens on LEGACY_ADDRESS (localhost:8081), takes LEGACY_TILL (2s) over each
// order, and keeps what it knows in the file LEGACY_FILE.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends, and lets the requests in hand be answered.
func run(ctx context.Context) error {
	till, err := time.ParseDuration(cmp.Or(os.Getenv("LEGACY_TILL"), "2s"))
	if err != nil {
		return fmt.Errorf("read LEGACY_TILL: %w", err)
	}
	books, err := openBooks(cmp.Or(os.Getenv("LEGACY_FILE"), filepath.Join(os.TempDir(), "osmosis-legacy.json")))
	if err != nil {
		return err
	}
	server := &http.Server{Addr: cmp.Or(os.Getenv("LEGACY_ADDRESS"), "localhost:8081"), Handler: newShop(books, till), ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Shutdown(context.Background()) })
	log.Printf("the shop is open at http://%s", server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// shop is the application.
type shop struct {
	books *books
	till  time.Duration
}

func newShop(b *books, till time.Duration) http.Handler {
	s := &shop{b, till}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /orders", s.order)
	return mux
}

// The session is whose it is; the note is shown once, on the next page.
const sessionCookie, noteCookie = "session", "note"

// guest tells who is logged in, "" for nobody.
func (s *shop) guest(r *http.Request) string {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	return s.books.guest(cookie.Value)
}

func (s *shop) home(w http.ResponseWriter, r *http.Request) {
	guest := s.guest(r)
	view := struct {
		Guest, Note string
		Orders      []string
	}{Guest: guest, Orders: s.books.orders(guest)}
	if cookie, err := r.Cookie(noteCookie); err == nil {
		view.Note, _ = url.QueryUnescape(cookie.Value) // what does not decode is no note
		http.SetCookie(w, &http.Cookie{Name: noteCookie, Path: "/", MaxAge: -1})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err := page.Execute(w, view); err != nil {
		log.Printf("write the page: %v", err)
	}
}

// login takes everyone at their word.
func (s *shop) login(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if name == "" {
		http.Error(w, "Who are you?", http.StatusBadRequest)
		return
	}
	session, err := s.books.login(name)
	if err != nil {
		log.Print(err)
		http.Error(w, "The books cannot be written.", http.StatusInternalServerError)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: session, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// order puts an order into the books, at the till's pace.
func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	guest, item := s.guest(r), r.FormValue("item")
	switch {
	case guest == "":
		http.Error(w, "Log in first.", http.StatusForbidden)
		return
	case item == "":
		http.Error(w, "An order names an item.", http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(s.till):
	case <-r.Context().Done():
		return // and nothing was ordered
	}
	if err := s.books.order(guest, item); err != nil {
		log.Print(err)
		http.Error(w, "The books cannot be written.", http.StatusInternalServerError)
		return
	}
	note := "Thank you, " + guest + ": one " + item + ", coming up."
	http.SetCookie(w, &http.Cookie{Name: noteCookie, Value: url.QueryEscape(note)})
	w.Header().Set("Location", "./")
	w.WriteHeader(http.StatusSeeOther)
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>The shop</title>
<link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 8vh auto; padding: 0 1rem; }
input, button { font: inherit; padding: .4rem .8rem; }
.note { padding: .6rem 1rem; border-left: .25rem solid #1a7f37; }
</style>
<h1>The shop</h1>
{{with .Note}}<p class="note">{{.}}</p>{{end}}
{{if .Guest}}
<form action="/orders" method="post">
  <label for="item">What would you like, {{.Guest}}?</label><br>
  <input id="item" name="item" value="tea" required maxlength="100" autocomplete="off">
  <button>Order</button>
</form>
<h2>Ordered so far</h2>
<ol>{{range .Orders}}<li>{{.}}</li>{{else}}Nothing yet{{end}}</ol>
{{else}}
<form action="/login" method="post">
  <label for="name">Your name</label><br>
  <input id="name" name="name" required maxlength="100" autocomplete="username">
  <button>Log in</button>
</form>
{{end}}
</html>
`))
