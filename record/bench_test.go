package record

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// The hot path: a body of 1 KiB and twelve headers, as a browser's script sends
// them. Allocations do not grow with the headers.

func benchRequest() (*http.Request, []byte, Meta) {
	r := httptest.NewRequest(http.MethodPost, "/orders?rush=1", nil)
	r.Header = http.Header{
		"Content-Type":     {"application/json"},
		"Content-Length":   {"1024"},
		"Accept":           {"application/json, text/event-stream;q=0.9"},
		"Accept-Encoding":  {"gzip, deflate, br, zstd"},
		"Accept-Language":  {"en-GB,en;q=0.5"},
		"User-Agent":       {"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"},
		"Origin":           {"https://example.com"},
		"Referer":          {"https://example.com/shop/cart"},
		"Cookie":           {"session=8f14e45fceea167a5a36dedd4bea2543"},
		"X-Requested-With": {"XMLHttpRequest"},
		"Idempotency-Key":  {`"8e03978e-40d5-43dd-bc93-6894a57f9324"`},
		"Traceparent":      {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
	return r, bytes.Repeat([]byte("x"), 1024), Meta{
		StreamID: NewID(3, 32), Source: "//example.com/orders", Type: "osmosis.request",
		Time: time.Date(2026, 11, 24, 17, 0, 0, 123e6, time.UTC), Scheme: "https", ClientIP: "2001:db8::1",
		ReplyTopic: "osmosis.replies", ReplyPartition: 3, Expires: time.Date(2026, 11, 25, 5, 0, 0, 0, time.UTC),
	}
}

// More headers cost no more allocations. The bounds leave room for the race
// detector, and none for an allocation a header.
func TestAllocations(t *testing.T) {
	r, body, m := benchRequest()
	fromHTTP := testing.AllocsPerRun(100, func() { _, _ = FromHTTP(r, body, m) })
	if fromHTTP > 10 {
		t.Errorf("FromHTTP allocates %.0f times", fromHTTP)
	}
	for _, name := range []string{"Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-Dest", "Dnt", "Priority", "Content-Language"} {
		r.Header.Set(name, "some text")
	}
	if more := testing.AllocsPerRun(100, func() { _, _ = FromHTTP(r, body, m) }); more > fromHTTP {
		t.Errorf("FromHTTP allocates %.0f times with more headers, %.0f with fewer", more, fromHTTP)
	}
	rec := benchReply()
	if n := testing.AllocsPerRun(100, func() { _, _ = ParseReply(rec) }); n > 10 {
		t.Errorf("ParseReply allocates %.0f times", n)
	}
	if n := testing.AllocsPerRun(100, func() { CorrelationID(rec.Headers) }); n > 1 {
		t.Errorf("CorrelationID allocates %.0f times", n)
	}
}

func BenchmarkFromHTTP(b *testing.B) {
	r, body, m := benchRequest()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FromHTTP(r, body, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScratchFromHTTP(b *testing.B) {
	r, body, m := benchRequest()
	var s Scratch
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.FromHTTP(r, body, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	r, body, m := benchRequest()
	rec, err := FromHTTP(r, body, m)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRequest(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func benchReply() Record {
	return Reply{
		StreamID: NewID(3, 32), Status: 201, Attempt: 1, Part: 1, More: true,
		Header: http.Header{
			"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "Vary": {"Accept"},
			"Location": {"/orders/17"}, "Etag": {`"17"`}, "Content-Language": {"en"}, "Server": {"shop/1"},
		},
		Body: append(append([]byte(`{"note":"`), bytes.Repeat([]byte("x"), 1024)...), `"}`...),
	}.Record()
}

func BenchmarkParseReply(b *testing.B) {
	rec := benchReply()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseReply(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCorrelationID(b *testing.B) {
	rec := benchReply()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := CorrelationID(rec.Headers); !ok {
			b.Fatal("no id")
		}
	}
}

func BenchmarkEventAppendJSON(b *testing.B) {
	reply, err := ParseReply(benchReply())
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		e := ReplyEvent("0a1b2c3d-3-1234567", reply)
		e.Topic = "orders"
		dst = e.AppendJSON(dst[:0])
	}
}
