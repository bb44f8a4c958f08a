package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func TestParseReply(t *testing.T) {
	rec := Record{Value: []byte("done"), Headers: headers(
		"kafka_correlationId", "id-1", ":status", "201", "content-type", "text/plain", "x-a", "1", "X-A", "2", "x-empty", "",
		"osmosis-attempt", "2", "osmosis-part", "7", "osmosis-more", "true",
	)}
	got, err := ParseReply(rec)
	if err != nil {
		t.Fatal(err)
	}
	want := Reply{
		StreamID: "id-1", Status: 201, Body: []byte("done"), More: true, Attempt: 2, Part: 7,
		Header: http.Header{"Content-Type": {"text/plain"}, "X-A": {"1", "2"}, "X-Empty": {""}},
	}
	if g, w := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); g != w {
		t.Errorf("got  %s\nwant %s", g, w)
	}
	if got.Terminal() {
		t.Error("a reply that others follow ends the stream")
	}
}

// The least that a worker can write: its library copies the correlation id.
func TestParseReplyBare(t *testing.T) {
	got, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id-1")})
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != 200 || got.More || got.State != "" || len(got.Header) != 0 || !got.Terminal() {
		t.Errorf("got %+v", got)
	}
}

func TestParseReplyStatus(t *testing.T) {
	for status, want := range map[string]int{
		"200": 200, "204": 204, "299": 299, "304": 304, "404": 404, "599": 599,
		"100": 502, "101": 502, "199": 502, "600": 502, "999": 502, "0": 502, "": 502, "20": 502, "2000": 502, "0200": 502,
		"-200": 502, "+20": 502, " 200": 502, "200 ": 502, "200 OK": 502, "20x": 502, "\"200\"": 502, "2.0": 502,
		"two": 502, "2\x000": 502, "２００": 502, "\xff\xff\xff": 502, "\x00\x00\x00\xc8": 502,
	} {
		got, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id", ":status", status)})
		if err != nil || got.Status != want {
			t.Errorf(":status %q gives %d, %v; want %d", status, got.Status, err, want)
		}
	}
	first, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id", ":status", "404", ":status", "200")})
	if err != nil || first.Status != 404 {
		t.Errorf("two :status give %d, %v; want the first", first.Status, err)
	}
}

func TestParseReplyMore(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "false": false, "": false, "TRUE": false, "1": false, "true ": false} {
		got, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id", "osmosis-more", value)})
		if err != nil || got.More != want {
			t.Errorf("osmosis-more %q gives %t, %v; want %t", value, got.More, err, want)
		}
	}
}

func TestParseReplyEvent(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"token", "token"},
		{"content_block_delta", "content_block_delta"},
		{" spaced name ", " spaced name "},
		{"größe: 名前", "größe: 名前"},
		{"Status", "Status"},
		{"statuses", "statuses"},
		{strings.Repeat("x", 128), strings.Repeat("x", 128)},
		{strings.Repeat("x", 129), ""},
		{strings.Repeat("ä", 65), ""},
		{"", ""},
		{"a\nb", ""}, {"a\r", ""}, {"\x00", ""}, {"a\tb", ""}, {"\x1b", ""}, {"a\x7f", ""}, {"a\u0085b", ""},
		{"\xff", ""}, {"a\xc3", ""},
		{"status", ""}, {"end", ""}, {"gap", ""}, {"binary", ""}, {"message", ""}, {"error", ""}, {"open", ""},
	} {
		got, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id", "osmosis-event", tt.name, "osmosis-event", "second")})
		if err != nil || got.Event != tt.want || len(got.Header) != 0 {
			t.Errorf("osmosis-event %q gives %q, %v; want %q", tt.name, got.Event, err, tt.want)
		}
		v, ok := Reply{StreamID: "id", Event: tt.name}.Record().Header("osmosis-event")
		if string(v) != tt.want || ok != (tt.want != "") {
			t.Errorf("event %q is written as %q, %t; want %q", tt.name, v, ok, tt.want)
		}
	}
	got, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id", "osmosis-status", "retrying", "osmosis-event", "token")})
	if err != nil || got.Event != "" {
		t.Errorf("a life-cycle record gives event %q, %v", got.Event, err)
	}
	if _, ok := (Reply{StreamID: "id", State: StateRetrying, Event: "token"}).Record().Header("osmosis-event"); ok {
		t.Error("a life-cycle record is written with an event")
	}
}

func TestParseReplyCounts(t *testing.T) {
	for value, want := range map[string]int{"1": 1, "2147483647": 2147483647, "2147483648": 0, "-1": 0, "": 0, "x": 0, "1.5": 0, "99999999999999999999": 0} {
		got, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id", "osmosis-attempt", value, "osmosis-part", value)})
		if err != nil || got.Attempt != want || got.Part != want {
			t.Errorf("%q gives attempt %d, part %d, %v; want %d", value, got.Attempt, got.Part, err, want)
		}
	}
}

func TestParseReplyHeaders(t *testing.T) {
	for _, tt := range []struct {
		name, value, want string // an empty want: left out
	}{
		{"content-type", "text/html; charset=utf-8", "text/html; charset=utf-8"},
		{"Location", "/a", "/a"},
		{"set-cookie", "a=b; HttpOnly", "a=b; HttpOnly"},
		{"x_underscore", "1", "1"},
		{"!#$%&'*+-.^_`|~", "1", "1"},
		{"x", "  padded\t", "padded"},
		{"x", "caf\xe9", "caf\xe9"},
		{"x", "tab\tinside", "tab\tinside"},
		{"x", "a\r\nset-cookie: evil=1", ""},
		{"x", "a\nb", ""},
		{"x", "a\rb", ""},
		{"x", "a\x00b", ""},
		{"x", "a\x7fb", ""},
		{"x y", "1", ""},
		{"x:", "1", ""},
		{"x\r\ny", "1", ""},
		{"x\x00", "1", ""},
		{"ünï", "1", ""},
		{"\xff", "1", ""},
		{"", "1", ""},
		{":path", "/", ""},
		{":x", "1", ""},
		{"kafka_x", "1", ""},
		{"KAFKA_X", "1", ""},
		{"ce_id", "1", ""},
		{"osmosis-x", "1", ""},
		{"Osmosis-Status", "failed", ""},
		{"spring_json_header_types", "{}", ""},
		{"__TypeId__", "x", ""},
		{"traceparent", "x", ""},
		{"Tracestate", "x", ""},
		{"baggage", "x", ""},
		{"content-length", "1", ""},
		{"Content-Length", "1", ""},
		{"date", "x", ""},
		{"connection", "close", ""},
		{"close", "1", ""},
		{"Keep-Alive", "1", ""},
		{"proxy-connection", "x", ""},
		{"proxy-authenticate", "x", ""},
		{"proxy-authorization", "x", ""},
		{"te", "x", ""},
		{"trailer", "x", ""},
		{"transfer-encoding", "chunked", ""},
		{"upgrade", "h2c", ""},
	} {
		got, err := ParseReply(Record{Headers: headers("x-before", "1", tt.name, tt.value, "kafka_correlationId", "id", "x-behind", "2")})
		if err != nil {
			t.Errorf("%q: %v", tt.name, err)
			continue
		}
		want := http.Header{"X-Before": {"1"}, "X-Behind": {"2"}}
		if tt.want != "" {
			want.Set(tt.name, tt.want)
		}
		if fmt.Sprint(got.Header) != fmt.Sprint(want) {
			t.Errorf("%q: %q gives %q, want %q", tt.name, tt.value, got.Header, want)
		}
	}
}

func TestParseReplyConnectionNames(t *testing.T) {
	got, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id", "x-a", "1", "x-b", "1", "x-c", "1", "Connection", "X-A, close", "connection", "x-c")})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Header) != 1 || got.Header.Get("X-B") != "1" {
		t.Errorf("headers %q, want x-b alone", got.Header)
	}
}

// Values share memory, so a second value of one name must not reach into another.
func TestParseReplyManyValues(t *testing.T) {
	pairs := []string{"kafka_correlationId", "id"}
	want := http.Header{}
	for i := range 1000 {
		name, value := fmt.Sprintf("X-%d", i%300), fmt.Sprint(i)
		pairs = append(pairs, name, value)
		want.Add(name, value)
	}
	got, err := ParseReply(Record{Headers: headers(pairs...)})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.Header) != fmt.Sprint(want) {
		t.Errorf("got %v", got.Header)
	}
	for name, values := range got.Header {
		got.Header[name] = append(values, "appended")
	}
	for name, values := range got.Header {
		if !slices.Equal(values, append(want[name], "appended")) {
			t.Errorf("%s: %q after appending to all", name, values)
		}
	}
}

// A worker may send more than any client wants: what is within the bounds counts.
func TestParseReplyBounds(t *testing.T) {
	large := strings.Repeat("x", MaxReplyHeader/2)
	for _, tt := range []struct {
		name    string
		headers []Header
		want    []string // the names, sorted
	}{
		{"exactly the bytes", headers("aaaa", large[4:], "bbbb", large[4:]), []string{"Aaaa", "Bbbb"}},
		{"one more", headers("aaaa", large[4:], "bbbb", large[4:]+"x", "c", "1"), []string{"Aaaa", "C"}},
		{"none left", headers("aaaa", large[4:], "bbbb", large[4:], "c", ""), []string{"Aaaa", "Bbbb"}},
		{"names count", headers(large, "", large+"x", "", "c", "1"), []string{"C", http.CanonicalHeaderKey(large)}},
		{"padding does not", headers("aaaa", strings.Repeat(" ", MaxReplyHeader)+"x"), []string{"Aaaa"}},
		{"nor what is dropped anyway", headers("aaaa", large+large[4:]+"\n", "date", large+large[4:], "bbbb", "1"), []string{"Bbbb"}},
	} {
		got, err := ParseReply(Record{Headers: append(headers("kafka_correlationId", "id"), tt.headers...)})
		if names := sortedNames(got.Header); err != nil || !slices.Equal(names, tt.want) {
			t.Errorf("%s: %.100q, %v; want %.100q", tt.name, names, err, tt.want)
		}
	}

	many := headers("kafka_correlationId", "id", "date", "no", "x-bad", "\n", ":status", "201")
	for i := range MaxReplyFields + 10 {
		many = append(many, headers("set-cookie", fmt.Sprint(i))...)
	}
	got, err := ParseReply(Record{Headers: append(many, headers("osmosis-more", "true")...)})
	if cookies := got.Header["Set-Cookie"]; err != nil || len(cookies) != MaxReplyFields || cookies[MaxReplyFields-1] != fmt.Sprint(MaxReplyFields-1) {
		t.Errorf("%d cookies, %v; want the first %d", len(cookies), err, MaxReplyFields)
	}
	if !got.More || got.Status != 201 {
		t.Errorf("behind many fields the contract's own are lost: status %d, more %t", got.Status, got.More)
	}
}

func TestParseReplyCorrelation(t *testing.T) {
	for name, h := range map[string][]Header{
		"none":         nil,
		"other case":   headers("kafka_correlationid", "id"),
		"empty":        headers("kafka_correlationId", ""),
		"CR LF":        headers("kafka_correlationId", "a\r\nb"),
		"NUL":          headers("kafka_correlationId", "a\x00"),
		"a space":      headers("kafka_correlationId", "a b"),
		"not ASCII":    headers("kafka_correlationId", "ä"),
		"too long":     headers("kafka_correlationId", strings.Repeat("a", 257)),
		"bad is first": headers("kafka_correlationId", "", "kafka_correlationId", "id"),
	} {
		if _, err := ParseReply(Record{Headers: h}); !errors.Is(err, ErrReply) {
			t.Errorf("%s: error %v, want ErrReply", name, err)
		}
		if id, ok := CorrelationID(h); ok {
			t.Errorf("%s: CorrelationID gives %q", name, id)
		}
	}
	// Spring's JSON mappers may wrap a text: that is another id, of no stream.
	got, err := ParseReply(Record{Headers: headers("kafka_correlationId", `"id"`)})
	if err != nil || got.StreamID != `"id"` {
		t.Errorf("a quoted id gives %q, %v; want exactly its bytes", got.StreamID, err)
	}
}

func TestParseReplyState(t *testing.T) {
	for state, terminal := range map[State]bool{StateDelivering: false, StateRetrying: false, StateFailed: true, StateCancelled: true} {
		got, err := ParseReply(Record{Value: []byte("{}"), Headers: headers("kafka_correlationId", "id", "osmosis-status", string(state), "osmosis-more", "true", ":status", "404")})
		if err != nil || got.State != state || got.Terminal() != terminal || got.More || got.Status != 0 {
			t.Errorf("%s gives %+v, %v; terminal %t, want %t", state, got, err, got.Terminal(), terminal)
		}
	}
	for _, state := range []string{"", "paused", "Failed", "failed ", "queued", "replied", "expired", "a\nb"} {
		got, err := ParseReply(Record{Headers: headers("kafka_correlationId", "id", "osmosis-status", state)})
		if !errors.Is(err, ErrState) || got.StreamID != "id" || got.Terminal() != (state == "") {
			t.Errorf("state %q gives %+v, error %v; want ErrState", state, got, err)
		}
	}
}

func TestReplyRecord(t *testing.T) {
	rec := Reply{
		StreamID: "id-1", Status: 201, More: true, Attempt: 1, Part: 2, Body: []byte("x"),
		Header: http.Header{
			"X-B": {"1", "2"}, "Content-Type": {"text/plain"}, "Content-Length": {"1"}, "Osmosis-Status": {"failed"},
			"Connection": {"x-gone"}, "X-Gone": {"1"}, "X-Bad": {"a\nb", "good"}, "Bad Name": {"x"},
		},
	}.Record()
	want := []string{
		`kafka_correlationId: "id-1"`, `:status: "201"`, `osmosis-more: "true"`, `osmosis-attempt: "1"`, `osmosis-part: "2"`,
		`content-type: "text/plain"`, `x-bad: "good"`, `x-b: "1"`, `x-b: "2"`,
	}
	slices.Sort(want[5:])
	got := lines(rec.Headers)
	slices.Sort(got[5:])
	if !slices.Equal(got, want) {
		t.Errorf("headers %q, want %q", got, want)
	}
	if string(rec.Key) != "id-1" || string(rec.Value) != "x" {
		t.Errorf("key %q, value %q", rec.Key, rec.Value)
	}

	rec = Reply{StreamID: "id-1"}.Record()
	if got := lines(rec.Headers); !slices.Equal(got, []string{`kafka_correlationId: "id-1"`, `:status: "200"`}) || rec.Value == nil {
		t.Errorf("the zero reply: %q, value %#v", got, rec.Value)
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add("id", "200", "content-type", []byte("text/plain"), "x", []byte("a\r\nb"), []byte("body"))
	f.Add("id", "abc", "osmosis-status", []byte("failed"), "osmosis-attempt", []byte("9"), []byte(`{"reason":"x"}`))
	f.Add("id", "", "osmosis-status", []byte("retrying"), "", []byte(nil), []byte(`{"retry_at":"2026-11-24T18:00:01.2345+01:00","code":503}`))
	f.Add("id", "200", "osmosis-event", []byte("token"), "osmosis-status", []byte("failed"), []byte(nil))
	f.Add("id", "200", "osmosis-event", []byte("größe"), "osmosis-part", []byte("3"), []byte("x"))
	f.Add("a\x00", "", "osmosis-more", []byte("true"), "\xff", []byte("\xff"), []byte(nil))
	f.Add("id", "206", "osmosis-attempt", []byte("2147483647"), "osmosis-part", []byte("12"), []byte("piece"))
	f.Add("id", "700", "connection", []byte("x"), "X", []byte("1"), []byte("\xff"))
	f.Fuzz(func(t *testing.T, id, status, name1 string, value1 []byte, name2 string, value2, body []byte) {
		rec := Record{Value: body, Headers: headers(name1, string(value1), name2, string(value2), HeaderCorrelationID, id, HeaderStatus, status)}
		r, err := ParseReply(rec)
		if err != nil && !errors.Is(err, ErrReply) && !errors.Is(err, ErrState) {
			t.Fatalf("error %v is none of the contract's", err)
		}
		if errors.Is(err, ErrReply) {
			return
		}
		checkHTTPHeader(t, r.Header)
		if r.State == "" && err == nil && (r.Status < 200 || r.Status > 599) {
			t.Errorf("status %d", r.Status)
		}
		if r.Event != "" && (r.State != "" || !validEventName(r.Event)) {
			t.Errorf("event %q of state %q", r.Event, r.State)
		}
		progress := r.Progress()
		text := progress.AppendJSON(nil)
		if !json.Valid(text) || bytes.ContainsAny(text, "\r\n\x00") {
			t.Errorf("the progress %q is not one line of JSON", text)
		}
		if again := (Reply{State: r.State, Body: text}).Progress(); again != progress {
			t.Errorf("the progress %s reads as %+v, want %+v", text, again, progress)
		}
		if end := r.End().AppendJSON(nil); bytes.ContainsAny(end, "\r\n\x00") {
			t.Errorf("the end %q is not one line", end)
		}
		checkEventJSON(t, ReplyEvent("0-0-0", r))
		if err != nil {
			return
		}

		// What was read can be written, and reads the same again.
		again, err := ParseReply(r.Record())
		if err != nil {
			t.Fatalf("reading %+v again: %v", r, err)
		}
		if r.State != "" {
			r.Status = 0
		}
		if r.Body == nil {
			r.Body = []byte{}
		}
		if g, w := fmt.Sprintf("%#v", again), fmt.Sprintf("%#v", r); g != w {
			t.Errorf("read again %s\nwant       %s", g, w)
		}
	})
}

// The pieces of one response keep their numbers and all else that tells them
// apart: what Record writes, ParseReply reads.
func FuzzReplyRecord(f *testing.F) {
	f.Add("id", 200, int32(1), int32(1), true, "token", "text/event-stream", []byte("a"))
	f.Add("id", 502, int32(2), int32(2147483647), false, "", "", []byte(nil))
	f.Add("id", 0, int32(-1), int32(-2147483648), true, "status", "a\r\nb", []byte("\xff"))
	f.Add("\x00", 700, int32(0), int32(0), false, "\x00", "", []byte{})
	f.Fuzz(func(t *testing.T, id string, status int, attempt, part int32, more bool, event, contentType string, body []byte) {
		for _, state := range []State{"", StateRetrying, StateFailed} {
			in := Reply{
				StreamID: id, Status: status, Header: http.Header{"Content-Type": {contentType}}, Body: body,
				More: more, State: state, Attempt: int(attempt), Part: int(part), Event: event,
			}
			rec := in.Record()
			out, err := ParseReply(rec)
			if !validID([]byte(id)) {
				if !errors.Is(err, ErrReply) {
					t.Errorf("id %q gives %v", id, err)
				}
				return
			}
			want := in
			want.Header, want.Attempt, want.Part = http.Header{}, max(in.Attempt, 0), max(in.Part, 0)
			if v := strings.Trim(contentType, " \t"); httpguts.ValidHeaderFieldValue(contentType) && len("content-type")+len(v) <= MaxReplyHeader {
				want.Header.Set("Content-Type", v)
			}
			if want.Body == nil {
				want.Body = []byte{}
			}
			switch {
			case state != "":
				want.Status, want.More, want.Event = 0, false, ""
			case status == 0:
				want.Status = http.StatusOK
			case status < 200 || status > 599:
				want.Status = http.StatusBadGateway
			}
			if !validEventName(want.Event) {
				want.Event = ""
			}
			if g, w := fmt.Sprintf("%#v", out), fmt.Sprintf("%#v", want); err != nil || g != w {
				t.Errorf("written as %q it reads as %s, %v\nwant %s", lines(rec.Headers), g, err, w)
			}
		}
	})
}
