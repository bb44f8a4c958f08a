package osmosis

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"golang.org/x/crypto/bcrypt"

	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// serve has Caddy run a Caddyfile: a site of these directives over plain HTTP,
// with these global options. It gives a way to the same site over HTTP/2 and TLS.
func (h *house) serve(options, directives string) (secure *house) {
	h.t.Helper()
	ca := newAuthority(h.t)
	cert, key := ca.issue("localhost")
	h.run(fmt.Sprintf(`{
	%s
	%s
}
http://localhost {
	bind unix/%s
	%s
}
https://localhost {
	bind unix/%s
	tls %s %s
	%[4]s
}
`, h.options(), options, h.socket(), directives, h.socket()+"s", cert, key))

	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", h.socket()+"s")
			if err == nil {
				// One whose last stream is about to end is not idle yet.
				h.t.Cleanup(func() { conn.Close() })
			}
			return conn, err
		},
	}
	secure = new(house)
	*secure = *h
	secure.client, secure.scheme = &http.Client{Transport: transport}, "https"
	return secure
}

// options are the global options that keep a Caddyfile's traces within the test.
func (h *house) options() string {
	return fmt.Sprintf(`admin off
	persist_config off
	storage file_system %s
	log {
		output discard
	}
	auto_https off`, h.storage())
}

// run has Caddy run a whole Caddyfile.
func (h *house) run(text string) {
	h.t.Helper()
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		h.t.Fatal(err)
	}
	h.client.CloseIdleConnections()
}

// answer produces a reply to the request that a 202 was given for.
func (h *house) answer(q accepted, reply record.Reply) {
	h.t.Helper()
	reply.StreamID = q.ID
	request := ingress.Request{Topic: defaultReplies, Record: reply.Record()}
	if _, err := only[*inside](h.t, insides).producer.Produce(h.t.Context(), request); err != nil {
		h.t.Fatal(err)
	}
}

// The server's timeouts are for requests that are answered at once, and so of
// no meaning to one that waits. Both are over long before the wait is.
func TestServerTimeouts(t *testing.T) {
	h := newHouse(t)
	secure := h.serve(`servers {
		timeouts {
			read_body 300ms
			write     300ms
		}
	}
	osmosis {
		kafka `+h.kafka().ListenAddrs()[0]+`
	}`, `osmosis /orders orders`)
	for name, way := range map[string]*house{"HTTP/1": h, "HTTP/2": secure} {
		location := way.do("POST", "/orders").want(t, 202).Header.Get("Location")
		events := way.listen(location)
		t.Run(name, func(t *testing.T) {
			for what, test := range map[string]struct {
				method, path string
				status       int
			}{"request": {"POST", "/orders", 202}, "JSON": {"GET", location, 200}, "result": {"GET", location + "/result", 202}} {
				t.Run(what, func(t *testing.T) {
					t.Parallel()
					way := *way
					way.t = t
					a := way.do(test.method, test.path, "Prefer", "wait=1").want(t, test.status, `"status":"queued"`)
					if a.Header.Get("Preference-Applied") != "wait=1" {
						t.Errorf("%v", a.Header)
					}
				})
			}
		})
		q := way.do("GET", location).want(t, 200).document(t)
		h.answer(accepted{ID: q.ID}, record.Reply{Body: []byte("after the wait")})
		if e := events.next(); e == nil || e.data != "after the wait" {
			t.Errorf("over %s: %+v", name, e)
		}
	}
}

// Compression holds no event back: each is there before the next is made.
func TestEncode(t *testing.T) {
	h := newHouse(t)
	h.serve(`osmosis {
		kafka `+h.kafka().ListenAddrs()[0]+`
	}`, `encode gzip
	osmosis /orders orders`)
	a := h.do("POST", "/orders")
	q := a.queued(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+a.Header.Get("Location"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Accept-Encoding", "gzip") // said by hand, so that the client decodes nothing
	response, err := h.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if encoding := response.Header.Get("Content-Encoding"); encoding != "gzip" {
		t.Fatalf("encoded as %q", encoding)
	}
	plain, err := gzip.NewReader(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	events := &listener{t: t, response: response, lines: bufio.NewReader(plain)}
	for _, text := range []string{"one", "two"} {
		h.answer(q, record.Reply{Body: []byte(text), More: true})
		if e := events.next(); e == nil || e.data != text {
			t.Fatalf("%+v, want %q", e, text)
		}
	}
}

// Who speaks HTTP/1.0 gets all of it too: there are no chunks, and the end of the
// connection is the end of the stream.
func TestHTTP10(t *testing.T) {
	h := newHouse(t)
	h.serve(`osmosis {
		kafka `+h.kafka().ListenAddrs()[0]+`
	}`, `osmosis /orders orders`)
	ask := func(text string) *http.Response {
		t.Helper()
		conn, err := new(net.Dialer).DialContext(t.Context(), "unix", h.socket())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		return response
	}
	response := ask("POST /orders HTTP/1.0\r\nHost: localhost\r\nContent-Length: 3\r\n\r\ntea")
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{response, string(body)}
	q := a.queued(t)
	response = ask("GET " + a.Header.Get("Location") + " HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
	if response.StatusCode != http.StatusOK || len(response.TransferEncoding) > 0 {
		t.Fatalf("%s %v", response.Status, response.TransferEncoding)
	}
	events := &listener{t: t, response: response, lines: bufio.NewReader(response.Body)}
	h.answer(q, record.Reply{Body: []byte("tea is coming")})
	if e := events.next(); e == nil || e.data != "tea is coming" {
		t.Errorf("%+v", e)
	}
	if e := events.next(); e == nil || e.name != "end" {
		t.Errorf("%+v", e)
	}
	events.ends()
}

// snippets gives the Caddyfiles of a section of the README.
func snippets(t *testing.T, section string) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := bytes.Cut(text, []byte("\n## "+section+"\n"))
	if !found {
		t.Fatalf("README has no section %q", section)
	}
	text, _, _ = bytes.Cut(text, []byte("\n## "))
	var all []string
	for _, block := range strings.Split(string(text), "\n```caddyfile\n")[1:] {
		snippet, _, _ := strings.Cut(block, "\n```")
		all = append(all, snippet+"\n")
	}
	return all
}

// The site of the README does what the README says: who is not known gets
// nothing, and who is gets their own streams.
func TestSiteOfTheREADME(t *testing.T) {
	h := newHouse(t)
	www := t.TempDir()
	if err := os.WriteFile(filepath.Join(www, "index.html"), []byte("welcome"), 0o600); err != nil {
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("wonderland"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	all := snippets(t, "In front of your site")
	if len(all) < 2 {
		t.Fatalf("%d snippets", len(all))
	}
	site := all[1]
	for _, s := range all[:2] {
		if formatted := string(caddyfile.Format([]byte(s))); formatted != s {
			t.Errorf("not as caddy fmt has it:\n%s", s)
		}
	}
	// What is the test's own in it.
	for _, change := range [][2]string{
		{"{\n\tosmosis", "{\n\t" + h.options() + "\n\tosmosis"},
		{"kafka1:9092 kafka2:9092", h.kafka().ListenAddrs()[0]},
		{"example.com {", "http://localhost {\n\tbind unix/" + h.socket()},
		{"alice $2a$14$…", "alice " + string(hash) + "\n\t\tbob " + string(hash)},
		{"/srv/www", www},
	} {
		if strings.Count(site, change[0]) != 1 {
			t.Fatalf("%q is not once in\n%s", change[0], site)
		}
		site = strings.Replace(site, change[0], change[1], 1)
	}
	h.run(site)

	as := func(name string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":wonderland"))
	}
	h.do("GET", "/").want(t, 200, "welcome")
	h.do("POST", "/orders").want(t, 401)
	location := h.do("POST", "/orders", "Authorization", as("alice"), "Prefer", "respond-async").want(t, 202).Header.Get("Location")
	h.do("GET", location, "Authorization", as("alice")).want(t, 200, `"status":"queued"`)
	h.do("GET", location, "Authorization", as("bob")).want(t, 403)
	if a := h.do("GET", location).want(t, 401); !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("the site's own authentication was not asked: %v", a.Header)
	}
}
