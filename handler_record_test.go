package osmosis

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func caddyDuration(d time.Duration) caddy.Duration { return caddy.Duration(d) }

// claimsOf gives the stream of a request as its worker knows it.
func claimsOf(r record.Request) hub.Claims {
	return hub.Claims{ID: r.StreamID, ReplyTopic: r.ReplyTopic, ReplyPartition: r.ReplyPartition}
}

// texts gives a record's headers as lines.
func (s stored) texts() []string {
	var lines []string
	for _, h := range s.Headers {
		value := string(h.Value)
		if h.Key == record.HeaderReplyPartition {
			value = fmt.Sprint(binary.BigEndian.Uint32(h.Value))
		}
		lines = append(lines, h.Key+": "+value)
	}
	return lines
}

// The record is the contract with workers in any language, so it is compared
// header by header.
func TestRecordOfARequest(t *testing.T) {
	keyed(t, &Handler{Headers: []string{"x-customer", "Cookie"}, Key: "{http.request.header.X-Customer}"}, func(t *testing.T, s *storefront) {
		now := time.Now().UTC()
		q := s.send(s.post(`{"n":1}`,
			"Content-Type", "application/json", "Content-Encoding", "identity",
			"Accept", "text/plain", "Accept", "application/json", "Accept-Language", "de",
			"User-Agent", "tests/1", "Origin", "http://"+siteHost, "Referer", "http://"+siteHost+"/", "X-Requested-With", "fetch",
			"Idempotency-Key", `"k1"`, "Traceparent", "00-11111111111111111111111111111111-2222222222222222-01", "Tracestate", "a=b", "Baggage", "c=d",
			"X-Customer", "ada", "Cookie", "session=1",
			// None of these.
			"Authorization", "Bearer secret", "Proxy-Authorization", "Basic secret", "X-Other", "secret", "Connection", "Accept-Charset",
			"Accept-Charset", "secret", "TE", "trailers", "Forwarded", "for=1.2.3.4", "X-Forwarded-For", "1.2.3.4", "X-Forwarded-Host", "evil.example",
			"Kafka_ReplyTopic", "stolen", "Osmosis-Expires", "0", "Ce_Id", "mine", "Prefer", "respond-async",
		)).queued(t)
		rec, request := s.only()
		want := []string{
			":method: POST", ":scheme: http", ":authority: " + siteHost, ":path: /orders?rush=1",
			"accept: text/plain", "accept: application/json", "accept-language: de", "baggage: c=d", "content-encoding: identity", "content-type: application/json",
			"cookie: session=1", `idempotency-key: "k1"`, "origin: http://" + siteHost, "referer: http://" + siteHost + "/",
			"traceparent: 00-11111111111111111111111111111111-2222222222222222-01", "tracestate: a=b", "user-agent: tests/1", "x-customer: ada", "x-requested-with: fetch",
			"forwarded: for=" + clientAddress + `;host="` + siteHost + `";proto=http`,
			"ce_specversion: 1.0", "ce_id: " + q.ID, "ce_source: http://" + siteHost, "ce_type: osmosis.request", "ce_time: " + now.Format(time.RFC3339Nano),
			"kafka_replyTopic: " + defaultReplies, "kafka_replyPartition: 0", "kafka_correlationId: " + q.ID,
			fmt.Sprintf("osmosis-expires: %d", now.Add(defaultTTL).UnixMilli()),
		}
		got := rec.texts()
		// Go's transport asks for gzip by itself.
		got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, "accept-encoding:") })
		slices.Sort(want)
		slices.Sort(got)
		if !slices.EqualFunc(got, want, sameHeader) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if string(rec.Key) != "ada" || string(rec.Value) != `{"n":1}` || request.StreamID != q.ID {
			t.Errorf("%q %q %q", rec.Key, rec.Value, request.StreamID)
		}
	})
}

// sameHeader compares two lines; what Forwarded holds may stand in any order.
func sameHeader(a, b string) bool {
	if !strings.HasPrefix(a, "forwarded: ") {
		return a == b
	}
	parts := func(s string) []string {
		p := strings.Split(strings.ReplaceAll(strings.TrimPrefix(s, "forwarded: "), `"`, ""), ";")
		slices.Sort(p)
		return p
	}
	return slices.Equal(parts(a), parts(b))
}

// Behind a proxy that Caddy trusts the record says what the client asked for.
func TestRecordBehindAProxy(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		a := s.send(s.post("x", "Trusted", "yes", "X-Forwarded-For", "2001:db8::1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example"))
		q := a.queued(t)
		rec, request := s.only()
		source, _ := rec.Header("ce_source")
		if request.Scheme != "https" || request.Forwarded.For != "2001:db8::1" || request.Forwarded.Proto != "https" || string(source) != "https://shop.example" {
			t.Errorf("%+v from %s", request, source)
		}
		if !strings.HasPrefix(q.Stream, "https://shop.example"+defaultStreams) {
			t.Errorf("%q", q.Stream)
		}
		path := a.Header.Get("Location")
		s.get(path).want(t, 404)
		s.get(path, "Trusted", "yes", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example").want(t, 200)
		// Who is not trusted cannot choose a host.
		s.get(path, "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example").want(t, 404)
	})
}

// Requests of one key lie where any Kafka client would put that key, and what
// expands to nothing is no key, which is not the same as an empty one.
func TestKey(t *testing.T) {
	const topic, partitions = "placed", 7
	several := func(a *App) { a.Create = &Create{Partitions: partitions} }
	queueing(t, &Handler{Topic: topic, Key: "{http.request.header.X-Customer}{http.request.header.X-Shop}"}, func(t *testing.T, s *storefront) {
		for i := range 20 {
			s.send(s.post("x", "X-Customer", fmt.Sprintf("customer %d", i))).want(t, 202)
		}
		s.send(s.post("x", "X-Shop", "ünïcode")).want(t, 202)
		s.send(s.post("x")).want(t, 202)
		s.send(s.post("x", "X-Customer", "")).want(t, 202)
		keyless, used := 0, make(map[int32]bool)
		for _, r := range s.stored(topic) {
			used[r.partition] = true
			if r.Key == nil {
				keyless++
			} else if want := record.Partition(r.Key, partitions); r.partition != want {
				t.Errorf("%q lies in %d, want %d", r.Key, r.partition, want)
			}
		}
		if keyless != 2 || len(used) < 4 {
			t.Errorf("%d without key, in %d partitions", keyless, len(used))
		}
	}, several)
}

// A key that is one placeholder is not parsed for every request, and is the same
// as if it were.
func TestOnlyPlaceholder(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/orders?n=1", nil)
	r.Header["X-Customer"] = []string{"ada", "bob"}
	repl := caddyhttp.NewTestReplacer(r)
	for text, want := range map[string]string{
		"{http.request.header.X-Customer}":                 "http.request.header.X-Customer",
		"{http.request.header.x-customer}":                 "http.request.header.x-customer",
		"{http.request.uri.query.n}":                       "http.request.uri.query.n",
		"{http.request.remote.host}":                       "http.request.remote.host",
		"{no.such}":                                        "no.such",
		"{http.request.body}":                              "", // would be read by Caddy
		"{http.request.body_base64}":                       "",
		"{http.request.method}-{http.request.uri.query.n}": "",
		"n {http.request.uri.query.n}":                     "",
		`\{http.request.uri.query.n\}`:                     "",
		`{http.request.header.X\}Y}`:                       "",
		"{{http.request.method}}":                          "",
		"plain":                                            "", "{": "", "}": "", "{}": "", "": "",
	} {
		got := onlyPlaceholder(text)
		if got != want {
			t.Errorf("onlyPlaceholder(%q) = %q, want %q", text, got, want)
		}
		if got == "" {
			continue
		}
		value, _ := repl.GetString(got)
		if parsed := repl.ReplaceAll(text, ""); value != parsed {
			t.Errorf("%q is %q, parsed %q", text, value, parsed)
		}
	}
}

// The body has been read when the key expands, and counts all the same.
func TestKeyOfTheBody(t *testing.T) {
	for key, want := range map[string]string{"{http.request.body}": "ada", "of {http.request.body_base64}": "of YWRh"} {
		queueing(t, &Handler{Key: key}, func(t *testing.T, s *storefront) {
			s.send(s.post("ada")).want(t, 202)
			if got, r := s.only(); string(got.Key) != want || string(r.Body) != "ada" {
				t.Errorf("key %q, want %q; body %q", got.Key, want, r.Body)
			}
			if left := s.placeholder("http.request.body"); left != "" {
				t.Errorf("the body is kept: %q", left)
			}
		})
	}
}

func TestPlaceholderOfPartition(t *testing.T) {
	several := func(a *App) { a.Create = &Create{Partitions: 5} }
	queueing(t, &Handler{Topic: "placed", Key: "ada"}, func(t *testing.T, s *storefront) {
		s.send(s.post("x")).want(t, 202)
		if got, want := s.placeholder("http.osmosis.partition"), fmt.Sprint(record.Partition([]byte("ada"), 5)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}, several)
}

// A request that is a CloudEvent keeps its attributes; the stream has an id of
// its own, since the client chose the event's.
func TestCloudEvents(t *testing.T) {
	for name, test := range map[string]struct {
		headers []string
		body    string
		value   string
	}{
		"binary": {
			[]string{"Ce-Specversion", "1.0", "Ce-Id", "e 1", "Ce-Source", "/shop", "Ce-Type", "order.made", "Ce-Tenant", "a", "Content-Type", "application/json"},
			`{"n":1}`, `{"n":1}`,
		},
		"structured": {
			[]string{"Content-Type", "application/cloudevents+json; charset=utf-8"},
			`{"specversion":"1.0","id":"e 1","source":"/shop","type":"order.made","tenant":"a","datacontenttype":"application/json","data":{"n":1}}`, `{"n":1}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
				q := s.send(s.post(test.body, test.headers...)).queued(t)
				rec, request := s.only()
				for name, want := range map[string]string{
					"ce_id": "e 1", "ce_source": "/shop", "ce_type": "order.made", "ce_tenant": "a", "content-type": "application/json", "kafka_correlationId": q.ID,
				} {
					if got, _ := rec.Header(name); string(got) != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
				if q.ID == "e 1" || request.StreamID != q.ID || string(rec.Value) != test.value {
					t.Errorf("%q %q %q", q.ID, request.StreamID, rec.Value)
				}
			})
		})
	}
}

func TestBrokenCloudEvents(t *testing.T) {
	structured := []string{"Content-Type", "application/cloudevents+json"}
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		for name, test := range map[string]struct {
			headers []string
			body    string
		}{
			"not JSON":        {structured, "{"},
			"nothing":         {structured, ""},
			"no type":         {structured, `{"specversion":"1.0","id":"1","source":"/s"}`},
			"another version": {structured, `{"specversion":"9","id":"1","source":"/s","type":"t"}`},
			"batch":           {[]string{"Content-Type", "application/cloudevents-batch+json"}, "[]"},
			"binary, no id":   {[]string{"Ce-Specversion", "1.0", "Ce-Source", "/s", "Ce-Type", "t"}, "x"},
		} {
			a := s.send(s.post(test.body, test.headers...))
			if a.StatusCode != http.StatusUnsupportedMediaType || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %s %s", name, a.Status, a.body)
			}
		}
		s.nothing()
	})
}
