package osmosis

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// raw sends bytes as they are, and gives the answer to them.
func (s *gateway) raw(text string) *http.Response {
	s.t.Helper()
	conn, err := s.network.DialContext(s.t.Context(), "tcp", siteHost)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	go io.WriteString(conn, text)
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { response.Body.Close() })
	return response
}

// chunked is a body whose length is not said beforehand.
func (s *storefront) chunked(body string) *http.Request {
	r := s.post(body)
	r.ContentLength = -1
	return r
}

func TestBodyLimit(t *testing.T) {
	const limit = 1000
	queueing(t, &Handler{MaxBody: limit}, func(t *testing.T, s *storefront) {
		most := strings.Repeat("x", limit)
		s.send(s.post(most)).want(t, 202)
		s.send(s.chunked(most)).want(t, 202)
		s.send(s.post("")).want(t, 202)
		s.send(s.chunked("")).want(t, 202)
		for _, r := range []*http.Request{s.post(most + "x"), s.chunked(most + "x")} {
			s.send(r).refused(t, 413, "up to 1000 bytes")
		}
		// Refused for what it says, before any of it is sent.
		response := s.raw("POST /orders HTTP/1.1\r\nHost: " + siteHost + "\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Error(response.Status)
		}
		var sizes []int
		for _, r := range s.stored(testTopic) {
			sizes = append(sizes, len(r.Value))
		}
		if !slices.Equal(sizes, []int{limit, limit, 0, 0}) {
			t.Errorf("queued: %v", sizes)
		}
	})
}

// A limit that the site sets itself, with request_body, counts as well.
func TestBodyLimitOfTheSite(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		next := s.server.Handler
		s.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, 10)
			next.ServeHTTP(w, r)
		})
		s.send(s.post("0123456789")).want(t, 202)
		s.send(s.post("0123456789x")).refused(t, 413, "up to 10 bytes")
		s.send(s.chunked("0123456789x")).refused(t, 413, "up to 10 bytes")
	})
}

// What breaks off is not queued, and who still listens is told.
func TestBodyCutOff(t *testing.T) {
	const head = "POST /orders HTTP/1.1\r\nHost: " + siteHost + "\r\n"
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		response := s.raw(head + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nthis is no chunk\r\n")
		if response.StatusCode != http.StatusBadRequest {
			t.Error(response.Status)
		}
		conn, err := s.network.DialContext(t.Context(), "tcp", siteHost)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head+"Content-Length: 8\r\n\r\nhalf"); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		<-time.After(time.Minute)
		s.nothing()
	})
}

// A body that cannot be read to its end, however its length was told.
func TestBodyThatFails(t *testing.T) {
	h := &Handler{Topic: testTopic}
	h.settle(new(App))
	for _, length := range []int64{-1, 8} {
		r := httptest.NewRequest(http.MethodPost, "/orders", io.MultiReader(strings.NewReader("half"), failing{}))
		r.ContentLength = length
		w := httptest.NewRecorder()
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, new(caddyhttp.Server))
		if err := h.ServeHTTP(w, r, nil); err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusBadRequest {
			t.Errorf("length %d: %d %s", length, w.Code, w.Body)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestThousandHeaders(t *testing.T) {
	const many = 1000
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		r := s.post("x")
		for i := range many {
			r.Header.Set(fmt.Sprintf("Content-%d", i), "kept")
			r.Header.Add("Accept", fmt.Sprintf("text/n%d", i))
			r.Header.Set(fmt.Sprintf("X-%d", i), "not kept")
		}
		s.send(r).want(t, 202)
		rec, _ := s.only()
		kept, accepts := 0, 0
		for _, h := range rec.Headers {
			switch {
			case string(h.Value) == "kept":
				kept++
			case h.Key == "accept":
				accepts++
			case string(h.Value) == "not kept":
				t.Fatalf("%s was queued", h.Key)
			}
		}
		if kept != many || accepts != many {
			t.Errorf("%d and %d headers", kept, accepts)
		}
	})
}

// HTTP allows bytes in a header that are no UTF-8, and workers get them as they
// came. It does not allow NUL, CR and LF, which reach no record whoever lets them in.
func TestHeaderValues(t *testing.T) {
	queueing(t, &Handler{Headers: []string{"X-Raw"}, Key: "{http.request.header.X-Raw}"}, func(t *testing.T, s *storefront) {
		odd := "caf\xe9 \xff\xfe\tü"
		s.send(s.post("x", "X-Raw", odd)).want(t, 202)
		rec, _ := s.only()
		if got, _ := rec.Header("x-raw"); string(got) != odd || string(rec.Key) != odd {
			t.Errorf("%q under %q", got, rec.Key)
		}
		for _, value := range []string{"a\x00b", "a\rb", "a\x7fb"} {
			response := s.raw("POST /orders HTTP/1.1\r\nHost: " + siteHost + "\r\nContent-Length: 0\r\nX-Raw: " + value + "\r\n\r\n")
			if response.StatusCode != http.StatusBadRequest {
				t.Errorf("%q: %s", value, response.Status)
			}
		}
		s.only()
	})
	queueing(t, &Handler{Headers: []string{"X-Raw"}}, func(t *testing.T, s *storefront) {
		next := s.server.Handler
		s.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header["X-Raw"] = []string{"a\r\nset-cookie: x", "b\x00", "good"}
			r.Header["Content-Bad\r\nName"] = []string{"x"}
			next.ServeHTTP(w, r)
		})
		s.send(s.post("x")).want(t, 202)
		rec, _ := s.only()
		if got := rec.texts(); !slices.Contains(got, "x-raw: good") || strings.ContainsAny(strings.Join(got, ""), "\r\n\x00") {
			t.Errorf("%q", got)
		}
	})
}

// A Host that fits no token is refused before its request is queued: after
// that there would be no stream URL to give.
func TestLongHost(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		s.send(s.post("x", "Host", strings.Repeat("a", 3000)+".example")).refused(t, 400, "Host is too long")
		s.nothing()
		host := strings.Repeat("a", 500) + ".example"
		path := s.send(s.post("x", "Host", host)).want(t, 202).Header.Get("Location")
		s.get(path, "Host", host).want(t, 200)
	})
}

func TestOddPaths(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		paths := []string{"/a%20b%2Fc?q=%00&r=a+b", "//x//../y?", "/%ff?%zz", "/" + strings.Repeat("x", 100_000)}
		for _, path := range paths {
			if response := s.raw("POST " + path + " HTTP/1.1\r\nHost: " + siteHost + "\r\nContent-Length: 0\r\n\r\n"); response.StatusCode != http.StatusAccepted {
				t.Errorf("%.40q: %s", path, response.Status)
			}
		}
		for i, r := range s.stored(testTopic) {
			if got, _ := r.Header(record.HeaderPath); string(got) != paths[i] {
				t.Errorf("%.40q, want %.40q", got, paths[i])
			}
			if _, err := record.ParseRequest(r.Record.Record); err != nil {
				t.Error(err)
			}
		}
	})
}

// A wrong token is the same 404, whatever is wrong with it; the right one in
// another spelling is a wrong one.
func TestBadTokens(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		path := s.send(s.post("x")).want(t, 202).Header.Get("Location")
		token := strings.TrimPrefix(path, defaultStreams+"/")
		stranger, err := hub.NewKeyring("another secret, which nobody knows")
		if err != nil {
			t.Fatal(err)
		}
		claims, err := s.app.keys.Open(token)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := stranger.Seal(claims)
		if err != nil {
			t.Fatal(err)
		}
		flipped := []byte(token)
		flipped[len(flipped)/2] ^= 1
		for name, token := range map[string]string{
			"forged": forged, "cut": token[:len(token)-1], "cut in front": token[1:], "misspelt": string(flipped),
			"padded": token + "=", "with space": token + "%20", "with line end": token + "%0A", "empty": "", "twice": token + token,
			"standard alphabet": "+" + token[1:], "very long": strings.Repeat("A", 100_000), "not ASCII": "%ff%00",
		} {
			if a := s.get(defaultStreams + "/" + token); a.StatusCode != http.StatusNotFound || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %s %s", name, a.Status, a.body)
			}
		}
		s.get(path, "Host", "evil.example").want(t, 404)
		s.get(path).want(t, 200)
	})
}

func TestTokenPasses(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		path := s.send(s.post("x")).want(t, 202).Header.Get("Location")
		<-time.After(time.Hour + 30*time.Minute)
		s.get(path).want(t, 200, `"expired"`)
		s.get(path+"/result").want(t, 410)
		<-time.After(31 * time.Minute)
		for _, accept := range []string{"text/event-stream", "application/json", "text/html", "image/png"} {
			s.get(path, "Accept", accept).want(t, 410, `"status":410`)
		}
	}, func(a *App) { a.Token = &Token{TTL: caddyDuration(time.Hour)} })
}

// A cursor that fits nothing costs a gap, and never a reply.
func TestBadCursors(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		other := s.send(s.post("other")).want(t, 202).Header.Get("Location")
		path := s.send(s.post("x")).want(t, 202).Header.Get("Location")
		otherClaims, _ := s.app.keys.Open(strings.TrimPrefix(other, defaultStreams+"/"))
		claims, _ := s.app.keys.Open(strings.TrimPrefix(path, defaultStreams+"/"))
		foreign := s.reply(otherClaims, record.Reply{Body: []byte("not yours")})
		own := s.reply(claims, record.Reply{Body: []byte("yours")})
		end := own
		end.Mark = hub.MarkEnd

		future := own
		future.Offset += 1000
		elsewhere := own
		elsewhere.Partition = 77
		foreignEnd := foreign
		foreignEnd.Mark = hub.MarkEnd
		for name, cursor := range map[string]string{
			"of another stream": foreign.String(), "end of another": foreignEnd.String(), "future": future.String(), "no partition": elsewhere.String(),
			"long": strings.Repeat("1", 4000), "text": "latest", "negative": "00000000-0--1",
		} {
			l := s.listen(path, "Last-Event-ID", cursor)
			e := l.next()
			if e == nil || e.name != "gap" || !useless(name, e.data) || e.id != "" {
				t.Errorf("%s: %+v", name, e)
				continue
			}
			l.want("message", own.String(), "yours")
			if e := l.next(); e == nil || e.name != "end" || e.id != end.String() {
				t.Errorf("%s: %+v", name, e)
			}
			l.ends()
			if a := s.get(path+"?last-event-id="+cursor, "Accept", "application/json").want(t, 200, "yours"); !useless(name, a.body) {
				t.Errorf("%s: %s", name, a.body)
			}
		}
	})
}

// useless tells whether a gap says what is wrong with a cursor. One from the
// future is also what a log that has lost its end would show.
func useless(name, data string) bool {
	return strings.Contains(data, `"reason":"cursor"`) || name == "future" && strings.Contains(data, `"reason":"truncated"`)
}

// put produces a record to the reply topic as it is.
func (s *gateway) put(rec record.Record) {
	s.t.Helper()
	if _, err := s.app.inside.producer.Produce(s.t.Context(), ingress.Request{Topic: defaultReplies, Record: rec}); err != nil {
		s.t.Fatal(err)
	}
}

// What no stream can make use of is passed over, and what follows is not.
func TestRepliesForNobody(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("x"))
		q := a.queued(t)
		l := s.listen(a.Header.Get("Location"))
		long := bytes.Repeat([]byte("x"), 100_000)
		for _, id := range [][]byte{[]byte("nobody"), nil, {}, {0}, []byte("a\nb"), {0xff, 0xfe}, long, []byte(q.ID + "x"), []byte(" " + q.ID)} {
			rec := record.Record{Value: []byte("lost"), Headers: []record.Header{{Key: record.HeaderCorrelationID, Value: id}}}
			s.put(rec)
		}
		s.put(record.Record{Value: []byte("lost")})
		s.put(record.Record{})
		s.put(record.Record{Key: []byte(q.ID), Value: []byte("lost")})
		s.put(record.Record{Value: []byte("{}"), Headers: []record.Header{
			{Key: record.HeaderCorrelationID, Value: []byte(q.ID)}, {Key: record.HeaderState, Value: []byte("dancing")}}})
		s.put(record.Record{Value: []byte("found"), Headers: []record.Header{{Key: record.HeaderCorrelationID, Value: []byte(q.ID)}}})
		e := l.next()
		if e == nil || e.name != "message" || e.data != "found" {
			t.Fatalf("%+v", e)
		}
		if e = l.next(); e == nil || e.name != "end" || !strings.Contains(e.data, `"code":200`) {
			t.Errorf("%+v", e)
		}
		l.ends()
	})
}

// A careless worker's reply reaches its client all the same, without what could
// do harm there.
func TestCarelessReplies(t *testing.T) {
	for status, want := range map[string]int{
		"": 502, "abc": 502, "200 OK": 502, "99": 502, "600": 502, "101": 502, "-200": 502, "0200": 502, "\xff": 502, "599": 599, "204": 204,
	} {
		t.Run(fmt.Sprintf("%q", status), func(t *testing.T) {
			queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
				a := s.send(s.post("x"))
				q := a.queued(t)
				s.put(record.Record{Value: []byte("<b>careless"), Headers: []record.Header{
					{Key: record.HeaderCorrelationID, Value: []byte(q.ID)}, {Key: ":status", Value: []byte(status)},
					{Key: "x-good", Value: []byte("good")}, {Key: "X-Split", Value: []byte("a\r\nSet-Cookie: stolen=1")},
					{Key: "bad name", Value: []byte("x")}, {Key: "x-nul", Value: []byte("a\x00")}, {Key: "", Value: []byte("x")}, {Key: "a\r\nb", Value: []byte("x")},
					{Key: "Content-Length", Value: []byte("1")}, {Key: "Transfer-Encoding", Value: []byte("chunked")}, {Key: "Connection", Value: []byte("close, x-hop")}, {Key: "x-hop", Value: []byte("x")},
					{Key: "Date", Value: []byte("yesterday")}, {Key: ":path", Value: []byte("/")}, {Key: "kafka_x", Value: []byte("x")}, {Key: "traceparent", Value: []byte("x")},
				}})
				result := s.get(a.Header.Get("Location")+"/result").want(t, want)
				h := result.Header
				if h.Get("X-Good") != "good" || h.Get("Set-Cookie") != "" || h.Get("X-Content-Type-Options") == "" && want != 204 {
					t.Errorf("%v", h)
				}
				for _, name := range []string{"X-Split", "Bad name", "X-Nul", "X-Hop", "Connection", "Kafka_x", "Traceparent", ":path"} {
					if _, ok := h[name]; ok {
						t.Errorf("%s got through: %v", name, h)
					}
				}
				if want != 204 && result.body != "<b>careless" || strings.Contains(h.Get("Content-Type"), "html") {
					t.Errorf("%q as %q", result.body, h.Get("Content-Type"))
				}
				l := s.listen(a.Header.Get("Location"))
				if e := l.next(); e == nil || e.data != "<b>careless" {
					t.Errorf("%+v", e)
				}
				if e := l.next(); e == nil || e.name != "end" || !strings.Contains(e.data, fmt.Sprintf(`"code":%d`, want)) || strings.Contains(e.data, "stolen") {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

// A megabyte on one line, and one on very many, come as they are.
func TestLargeReplies(t *testing.T) {
	const size = 1000 << 10
	for name, body := range map[string]string{
		"one line": strings.Repeat("x", size), "lines": strings.Repeat("x\n", size/2), "empty lines": strings.Repeat("\r\n", size/2),
		"not text": strings.Repeat("\x00\xff", size/2),
	} {
		t.Run(name, func(t *testing.T) {
			queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
				a := s.send(s.post("x"))
				l := s.listen(a.Header.Get("Location"))
				_, request := s.only()
				s.reply(claimsOf(request), record.Reply{Body: []byte(body)})
				e := l.next()
				switch {
				case e == nil:
					t.Fatal("no event")
				case name == "not text":
					if e.name != "binary" {
						t.Errorf("event %q", e.name)
					}
				case e.data != strings.ReplaceAll(body, "\r\n", "\n"):
					t.Errorf("%d bytes of %d, or others", len(e.data), len(body))
				}
				if e := l.next(); e == nil || e.name != "end" {
					t.Errorf("%+v", e)
				}
				if got := s.get(a.Header.Get("Location")+"/result").want(t, 200); got.body != body {
					t.Errorf("%d bytes of %d, or others", len(got.body), len(body))
				}
			})
		})
	}
}

// The first end counts. What comes behind it, a second answer or one that is
// late, changes nothing for anybody.
func TestAnswersTwice(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("x"))
		path := a.Header.Get("Location")
		l := s.listen(path)
		_, request := s.only()
		claims := claimsOf(request)
		first := s.reply(claims, record.Reply{Status: 201, Body: []byte("first")})
		s.reply(claims, record.Reply{Status: 500, Body: []byte("second")})
		s.reply(claims, record.Reply{State: record.StateFailed, Body: []byte(`{"attempt":9}`)})
		for _, l := range []*listener{l, s.listen(path)} {
			l.want("message", first.String(), "first")
			if e := l.next(); e == nil || e.name != "end" || e.id != first.String()+"-end" || !strings.Contains(e.data, `"code":201`) {
				t.Errorf("%+v", e)
			}
			l.ends()
		}
		s.get(path+"/result").want(t, 201, "first")
		if d := s.get(path).document(t); d.Status != "replied" || len(d.Replies) != 1 {
			t.Errorf("%+v", d)
		}
		s.get(path, "Accept", "text/event-stream", "Last-Event-ID", first.String()+"-end").want(t, 204)
	})
}

// An answer within a transaction that its worker took back was never given.
func TestAbortedTransaction(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("x"))
		l := s.listen(a.Header.Get("Location"))
		_, request := s.only()
		client, _ := s.admin(kgo.TransactionalID("worker"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
		answer := func(body string, commit kgo.TransactionEndTry) {
			t.Helper()
			if err := client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			rec := request.Reply(200, nil, []byte(body)).Record()
			out := &kgo.Record{Topic: request.ReplyTopic, Partition: request.ReplyPartition, Value: rec.Value}
			for _, h := range rec.Headers {
				out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			if err := client.ProduceSync(t.Context(), out).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := client.EndTransaction(t.Context(), commit); err != nil {
				t.Fatal(err)
			}
		}
		answer("taken back", kgo.TryAbort)
		<-time.After(time.Second)
		if d := s.get(a.Header.Get("Location")).document(t); d.Status != "queued" || len(d.Replies) != 0 {
			t.Errorf("%+v", d)
		}
		answer("given", kgo.TryCommit)
		if e := l.next(); e == nil || e.data != "given" {
			t.Errorf("%+v", e)
		}
		if e := l.next(); e == nil || e.name != "end" {
			t.Errorf("%+v", e)
		}
	})
}
