package record

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

var testMeta = Meta{
	StreamID: "id-1", Source: "//example.com/orders", Type: "osmosis.request",
	Time:   time.Date(2026, 11, 24, 18, 30, 0, 5e6, time.FixedZone("CET", 3600)),
	Scheme: "https", ClientIP: "192.0.2.7",
	ReplyTopic: "osmosis.replies", ReplyPartition: 0x01020304,
	Expires: time.UnixMilli(1_800_000_000_123),
}

func post(path string, header http.Header) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, nil)
	r.Host = "example.com:8443"
	if header != nil {
		r.Header = header
	}
	return r
}

// A scratch makes what FromHTTP makes, whatever was made in it before.
func TestScratch(t *testing.T) {
	requests := []*http.Request{
		post("/orders?rush=1", http.Header{"Content-Type": {"application/json"}, "Accept": {"text/html", "text/plain"}}),
		post("/", nil),
		post("/"+strings.Repeat("a", 3000), http.Header{"Baggage": slices.Repeat([]string{"x=1"}, 40)}),
		post("/orders", http.Header{"Content-Type": {"application/cloudevents+json"}}),
		post("/orders", http.Header{"Content-Type": {"text/plain"}}),
	}
	var s Scratch
	for range 2 {
		for _, r := range requests {
			body := []byte(`{"specversion":"1.0","id":"1","source":"/x","type":"y","data":{"z":1}}`)
			want, err := FromHTTP(r, body, testMeta)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.FromHTTP(r, body, testMeta)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Value, want.Value) || !slices.EqualFunc(got.Headers, want.Headers, func(a, b Header) bool { return a.Key == b.Key && bytes.Equal(a.Value, b.Value) }) {
				t.Errorf("%s: %q %q\nwant %q %q", r.URL, got.Headers, got.Value, want.Headers, want.Value)
			}
		}
	}
}

func TestFromHTTP(t *testing.T) {
	r := post("/orders/a%20b?rush=1&x=%2F", http.Header{
		"Content-Type":        {"application/json"},
		"Content-Length":      {"2"},
		"Accept":              {"text/html", "text/plain;q=0.5"},
		"Accept-Language":     {"en"},
		"User-Agent":          {"curl/8"},
		"Origin":              {"https://example.com"},
		"Referer":             {"https://example.com/"},
		"X-Requested-With":    {"XMLHttpRequest"},
		"Idempotency-Key":     {`"k"`},
		"Traceparent":         {"00-1-2-01"},
		"Tracestate":          {"a=b"},
		"Baggage":             {"c=d"},
		"Authorization":       {"Bearer secret"},
		"Cookie":              {"session=secret"},
		"Proxy-Authorization": {"Basic secret"},
		"X-Customer":          {"17"},
		"X-Other":             {"no"},
		"Forwarded":           {"for=203.0.113.66"},
		"Ce-Id":               {"no event without ce-specversion"},
		"Te":                  {"trailers"},
	})
	m := testMeta
	m.Names = []string{"x-CUSTOMER", "forwarded", "te", "osmosis-expires", "kafka_replytopic", "proxy-authorization", "content-length"}
	body := []byte("{}")
	rec, err := FromHTTP(r, body, m)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`:method: "POST"`,
		`:scheme: "https"`,
		`:authority: "example.com:8443"`,
		`:path: "/orders/a%20b?rush=1&x=%2F"`,
		`accept: "text/html"`,
		`accept: "text/plain;q=0.5"`,
		`accept-language: "en"`,
		`baggage: "c=d"`,
		`content-type: "application/json"`,
		`idempotency-key: "\"k\""`,
		`origin: "https://example.com"`,
		`referer: "https://example.com/"`,
		`traceparent: "00-1-2-01"`,
		`tracestate: "a=b"`,
		`user-agent: "curl/8"`,
		`x-customer: "17"`,
		`x-requested-with: "XMLHttpRequest"`,
		`forwarded: "for=192.0.2.7;proto=https;host=\"example.com:8443\""`,
		`ce_specversion: "1.0"`,
		`ce_id: "id-1"`,
		`ce_source: "//example.com/orders"`,
		`ce_type: "osmosis.request"`,
		`ce_time: "2026-11-24T17:30:00.005Z"`,
		`kafka_replyTopic: "osmosis.replies"`,
		`kafka_replyPartition: "\x01\x02\x03\x04"`,
		`kafka_correlationId: "id-1"`,
		`osmosis-expires: "1800000000123"`,
	}
	if got := lines(rec.Headers); !slices.Equal(got, want) {
		t.Errorf("headers:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if rec.Key != nil {
		t.Errorf("key %q, want none", rec.Key)
	}
	if &rec.Value[0] != &body[0] {
		t.Error("the body was copied")
	}
}

func TestFromHTTPNamedSecrets(t *testing.T) {
	m := testMeta
	m.Names = []string{"Authorization", "Cookie"}
	rec, err := FromHTTP(post("/", http.Header{"Authorization": {"Bearer s"}, "Cookie": {"a=b"}}), nil, m)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"authorization": "Bearer s", "cookie": "a=b"} {
		if v, ok := rec.Header(name); !ok || string(v) != want {
			t.Errorf("%s = %q, %t; want %q", name, v, ok, want)
		}
	}
}

func TestFromHTTPWithoutReply(t *testing.T) {
	r := post("/", nil)
	r.Method = "" // GET, as net/http has it
	rec, err := FromHTTP(r, nil, Meta{StreamID: "id"})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := rec.Header(HeaderMethod); string(v) != "GET" {
		t.Errorf(":method %q", v)
	}
	for _, name := range []string{HeaderReplyTopic, HeaderReplyPartition, HeaderExpires} {
		if v, ok := rec.Header(name); ok {
			t.Errorf("%s is there: %q", name, v)
		}
	}
	if rec.Value == nil {
		t.Error("an empty body became a null value, which is a tombstone")
	}
}

// Header values with CR, LF or NUL cannot come through net/http, but can be put
// into a request by a handler in front.
func TestFromHTTPBadHeaders(t *testing.T) {
	rec, err := FromHTTP(post("/", http.Header{
		"Accept":          {"ok", "a\r\nset-cookie: x", "a\nb", "a\rb", "a\x00b", "caf\xe9"},
		"Accept-Bad Name": {"x"},
		"Accept-B\r\nAd":  {"x"},
		"Accept-\xff":     {"x"},
		"Content-Empty":   {""},
		"Content-None":    {},
	}), nil, testMeta)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range lines(rec.Headers) {
		if strings.HasPrefix(l, "accept") || strings.HasPrefix(l, "content-") {
			got = append(got, l)
		}
	}
	want := []string{`accept: "ok"`, `accept: "caf\xe9"`, `content-empty: ""`}
	if !slices.Equal(got, want) {
		t.Errorf("headers %q, want %q", got, want)
	}
}

func TestFromHTTPConnectionNames(t *testing.T) {
	rec, err := FromHTTP(post("/", http.Header{
		"Connection":     {"close,, ACCEPT-language\t, accept languag", "X-Mine"},
		"Accept":         {"*/*"},
		"Accept-Languag": {"kept"}, "Accept-Language": {"en"}, "X-Mine": {"1"},
	}), nil, Meta{StreamID: "id", Names: []string{"X-Mine", "Connection"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"accept": true, "accept-languag": true, "accept-language": false, "x-mine": false, "connection": false} {
		if _, ok := rec.Header(name); ok != want {
			t.Errorf("%s is there: %t, want %t", name, ok, want)
		}
	}
}

func TestFromHTTPManyHeaders(t *testing.T) {
	header := http.Header{}
	for i := range 1000 {
		header.Set(fmt.Sprintf("Content-X-%04d", i), fmt.Sprint(i))
		header.Set(fmt.Sprintf("X-%04d", i), "no")
	}
	rec, err := FromHTTP(post("/", header), nil, testMeta)
	if err != nil {
		t.Fatal(err)
	}
	req, err := ParseRequest(rec)
	if err != nil {
		t.Fatal(err)
	}
	if len(req.Header) != 1000 || req.Header.Get("Content-X-0999") != "999" {
		t.Errorf("%d headers came through, want the 1000 of the allowlist", len(req.Header))
	}
	again, err := FromHTTP(post("/", header), nil, testMeta)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(lines(rec.Headers), lines(again.Headers)) {
		t.Error("equal requests made different records")
	}
}

func TestRequestPath(t *testing.T) {
	for _, tt := range []struct {
		url  url.URL
		want string
	}{
		{url.URL{}, "/"},
		{url.URL{Path: "/a b"}, "/a%20b"},
		{url.URL{Path: "/a", RawQuery: "q=1"}, "/a?q=1"},
		{url.URL{Path: "/a", ForceQuery: true}, "/a?"},
		{url.URL{Path: "/a/b", RawPath: "/a%2Fb"}, "/a%2Fb"},
		{url.URL{Path: "//a"}, "//a"},
		{url.URL{Path: "*"}, "*"},
		{url.URL{Path: "a"}, "/a"},
		{url.URL{Scheme: "mailto", Opaque: "x@example.com", RawQuery: "q"}, "/?q"},
		{url.URL{Path: "/a", RawQuery: "q=a b\r\n\x00\x7f€"}, "/a?q=a%20b%0D%0A%00%7F€"},
	} {
		if got := requestPath(&tt.url); got != tt.want {
			t.Errorf("path of %#v is %q, want %q", tt.url, got, tt.want)
		}
	}
}

func TestParseRequest(t *testing.T) {
	r := post("/orders?rush=1", http.Header{
		"Content-Type": {"application/json"}, "Accept": {"a/b", "c/d"}, "Traceparent": {"00-1-2-01"}, "X-Empty": {""},
	})
	m := testMeta
	m.ClientIP = "2001:db8::7"
	m.Names = []string{"X-Empty"}
	rec, err := FromHTTP(r, []byte("{}"), m)
	if err != nil {
		t.Fatal(err)
	}
	rec.Key = []byte("17")
	got, err := ParseRequest(rec)
	if err != nil {
		t.Fatal(err)
	}
	want := Request{
		StreamID: "id-1", Method: "POST", Scheme: "https", Authority: "example.com:8443", Path: "/orders?rush=1",
		Header:    r.Header,
		Forwarded: Forwarded{For: "2001:db8::7", Proto: "https", Host: "example.com:8443"},
		Event: Attributes{
			SpecVersion: "1.0", ID: "id-1", Source: m.Source, Type: m.Type, Time: m.Time.UTC(),
		},
		ReplyTopic: "osmosis.replies", ReplyPartition: 0x01020304, Expires: m.Expires,
		Key: []byte("17"), Body: []byte("{}"),
	}
	if g, w := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); g != w {
		t.Errorf("got  %s\nwant %s", g, w)
	}
}

func TestParseRequestForeign(t *testing.T) {
	got, err := ParseRequest(Record{Headers: headers(
		":method", "PUT", ":path", "/a", ":path", "/second is not read",
		"Content-Type", " text/plain ", "X-Bad", "a\nb", "bad name", "x", "x\xff", "x",
		"__TypeId__", "java.lang.String", "spring_json_header_types", "{}", "Osmosis-Replay", "x",
		"connection", "close", "content-length", "99", "", "x", "ce_", "x",
	)})
	if err != nil {
		t.Fatal(err)
	}
	if got.StreamID != "" || got.ReplyTopic != "" || got.ReplyPartition != -1 || !got.Expires.IsZero() {
		t.Errorf("a record that asks for no reply: %+v", got)
	}
	if len(got.Header) != 1 || got.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("headers %v, want the content type alone", got.Header)
	}
}

func TestParseRequestErrors(t *testing.T) {
	line := []string{":method", "POST", ":path", "/"}
	for _, tt := range []struct {
		headers []string // before a good request line
		want    string
	}{
		{[]string{":method", "PO ST"}, "is no method"},
		{[]string{":method", ""}, "is no method"},
		{[]string{":path", "orders"}, "is no path"},
		{[]string{":path", "/a\r\nb"}, "is no path"},
		{[]string{":path", "/a b"}, "is no path"},
		{[]string{":path", ""}, "is no path"},
		{[]string{":authority", "a\nb"}, "control characters"},
		{[]string{":scheme", "a\x00b"}, "control characters"},
		{[]string{"forwarded", "for"}, "malformed forwarded"},
		{[]string{"kafka_replyTopic", "\n"}, "control characters"},
		{[]string{"kafka_replyPartition", "3"}, "want 4 bytes"},
		{[]string{"kafka_replyPartition", "\xff\xff\xff\xff"}, "not negative"},
		{[]string{"kafka_correlationId", ""}, "visible ASCII"},
		{[]string{"kafka_correlationId", "a\x00b"}, "visible ASCII"},
		{[]string{"kafka_correlationId", strings.Repeat("a", 257)}, "visible ASCII"},
		{[]string{"osmosis-expires", "soon"}, "no time in milliseconds"},
		{[]string{"ce_time", "yesterday"}, "RFC 3339"},
	} {
		_, err := ParseRequest(Record{Headers: headers(append(tt.headers, line...)...)})
		if !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want ErrRequest with %q", tt.headers, err, tt.want)
		}
	}
	for want, h := range map[string][]Header{
		"header :method is missing": headers(":path", "/", "accept", "*/*"),
		"header :path is missing":   headers(":method", "POST"),
	} {
		if _, err := ParseRequest(Record{Headers: h}); !errors.Is(err, ErrRequest) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want ErrRequest with %q", lines(h), err, want)
		}
	}
}

func TestRequestReply(t *testing.T) {
	req := Request{StreamID: "id-1"}
	reply := req.Reply(201, http.Header{"Location": {"/orders/17"}}, []byte("done"))
	got, err := ParseReply(reply.Record())
	if err != nil {
		t.Fatal(err)
	}
	if got.StreamID != "id-1" || got.Status != 201 || got.Header.Get("Location") != "/orders/17" || string(got.Body) != "done" || !got.Terminal() {
		t.Errorf("got %+v", got)
	}
}

func TestRequestReport(t *testing.T) {
	req := Request{StreamID: "id-1"}
	got, err := ParseReply(req.Report(Status{Status: StateFailed, Attempt: 3, Code: 503, Reason: "the shop is closed"}).Record())
	if err != nil {
		t.Fatal(err)
	}
	want := End{Status: StateFailed, Attempts: 3, Code: 503, Reason: "the shop is closed"}
	if end := got.End(); fmt.Sprint(end) != fmt.Sprint(want) || !got.Terminal() || got.StreamID != "id-1" {
		t.Errorf("got %+v, end %+v, want %+v", got, end, want)
	}
}

// What FromHTTP makes of any request that net/http lets in, ParseRequest reads,
// and nothing that the client sent gets into a name of the contract.
func FuzzFromHTTP(f *testing.F) {
	f.Add("POST /orders?rush=1 HTTP/1.1\r\nHost: example.com\r\nAccept: a\r\nAccept: b\r\n\r\n", []byte("{}"), "accept", "a\r\nb")
	f.Add("POST / HTTP/1.1\r\nHost: h\r\nCe-Specversion: 1.0\r\nCe-Id: %0D%0A\r\nCe-Source: /\r\nCe-Type: t\r\n\r\n", []byte{}, "ce-id", "\x00")
	f.Add("POST / HTTP/1.1\r\nHost: h\r\nContent-Type: application/cloudevents+json\r\n\r\n",
		[]byte(`{"specversion":"1.0","id":"1","source":"/","type":"t","data_base64":"AA=="}`), "osmosis-expires", "9")
	f.Add("POST mailto:x HTTP/1.0\r\nConnection: accept\r\nContent-Digest: x\r\n\r\n", []byte("\xff"), "kafka_replyTopic", "evil")
	f.Add("PUT //a/../b HTTP/1.1\r\nHost: [::1]:80\r\nForwarded: for=1.2.3.4\r\n\r\n", []byte(nil), "forwarded", "\xff\xfe")
	f.Fuzz(func(t *testing.T, head string, body []byte, name, value string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil {
			return
		}
		r.Header[name] = append(r.Header[name], value) // what a handler in front may do
		canonical := http.CanonicalHeaderKey(name)
		r.Header[canonical] = append(r.Header[canonical], value)
		m := testMeta
		m.Names = []string{name, "x-named"}
		m.ClientIP = value
		rec, err := FromHTTP(r, body, m)
		if err != nil {
			if !errors.Is(err, ErrEvent) {
				t.Fatalf("error %v is not ErrEvent", err)
			}
			return
		}
		req, err := ParseRequest(rec)
		if err != nil {
			t.Fatalf("ParseRequest of %q: %v", lines(rec.Headers), err)
		}
		if req.StreamID != m.StreamID || req.ReplyTopic != m.ReplyTopic || req.ReplyPartition != m.ReplyPartition ||
			!req.Expires.Equal(m.Expires) || req.Method != r.Method || req.Forwarded.Proto != m.Scheme {
			t.Errorf("the client changed the contract: %+v", req)
		}
		count := make(map[string]int)
		for _, h := range rec.Headers {
			if own(h.Key) || h.Key == HeaderForwarded {
				count[h.Key]++
			}
			if strings.ContainsAny(string(h.Value), "\r\n\x00") && h.Key != HeaderReplyPartition {
				t.Errorf("%s carries %q", h.Key, h.Value)
			}
		}
		for name, n := range count {
			if n > 1 {
				t.Errorf("%s stands %d times", name, n)
			}
		}
		for _, secret := range []string{"Authorization", "Cookie"} {
			if req.Header.Get(secret) != "" && canonical != secret {
				t.Errorf("%s is carried", secret)
			}
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add(":path", []byte("/"), "content-type", []byte("a/b"), []byte("body"))
	f.Add(":path", []byte("/a\x00"), "forwarded", []byte(`for="[::1]";by=x`), []byte(nil))
	f.Add("kafka_replyPartition", []byte{0, 0, 1}, "ce_time", []byte("2026-01-01T00:00:00Z"), []byte(nil))
	f.Add("osmosis-expires", []byte("-9223372036854775808"), "ce_x", []byte("\xff"), []byte(nil))
	f.Fuzz(func(t *testing.T, name1 string, value1 []byte, name2 string, value2 []byte, body []byte) {
		req, err := ParseRequest(Record{Value: body, Headers: headers(
			name1, string(value1), name2, string(value2), ":method", "POST", ":path", "/",
		)})
		if err != nil {
			if !errors.Is(err, ErrRequest) {
				t.Errorf("error %v is not ErrRequest", err)
			}
			return
		}
		checkHTTPHeader(t, req.Header)
		if req.Path != "*" && req.Path[0] != '/' || strings.ContainsFunc(req.Path, unfit) {
			t.Errorf("path %q", req.Path)
		}
		if !bytes.Equal(req.Body, body) {
			t.Errorf("body %q, want %q", req.Body, body)
		}
	})
}
