package record

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// decoded is an event as encoding/json reads it.
type decoded struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         *string         `json:"subject"`
	Time            *time.Time      `json:"time"`
	Cursor          *string         `json:"cursor"`
	Status          *int            `json:"status"`
	Event           *string         `json:"event"`
	DataContentType *string         `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
	DataBase64      *[]byte         `json:"data_base64"`
}

// checkEventJSON holds the encoder against encoding/json and against the rules
// of the CloudEvents JSON format, and gives the payload that a consumer gets.
func checkEventJSON(t *testing.T, e Event) decoded {
	t.Helper()
	out := e.AppendJSON([]byte("before"))
	if !bytes.HasPrefix(out, []byte("before")) {
		t.Fatalf("AppendJSON wrote over what was there: %q", out)
	}
	out = out[len("before"):]
	if !utf8.Valid(out) || !json.Valid(out) {
		t.Fatalf("no JSON in UTF-8: %q", out)
	}
	var d decoded
	dec := json.NewDecoder(bytes.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	if d.SpecVersion != "1.0" || d.Type != e.Type || d.ID != string([]rune(e.ID)) ||
		(d.Event != nil) != (e.Name != "") || d.Event != nil && *d.Event != e.Name {
		t.Errorf("attributes of %+v: %s", e, out)
	}
	if d.Data != nil && d.DataBase64 != nil {
		t.Errorf("data and data_base64 exclude each other: %s", out)
	}
	var payload []byte
	switch {
	case d.DataBase64 != nil:
		payload = *d.DataBase64
	case d.Data == nil:
	case d.DataContentType == nil:
		t.Errorf("data without a media type would be read as JSON: %s", out)
	case isJSON(*d.DataContentType):
		payload = d.Data
	default:
		var text string
		if err := json.Unmarshal(d.Data, &text); err != nil {
			t.Errorf("data of %s is no string: %s", *d.DataContentType, out)
		}
		payload = []byte(text)
	}
	if !bytes.Equal(bytes.TrimSpace(payload), bytes.TrimSpace(e.Data)) {
		t.Errorf("a consumer gets %q of %q from %s", payload, e.Data, out)
	}
	return d
}

func TestReplyEvent(t *testing.T) {
	reply := Reply{StreamID: "id-1", Status: 201, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"a": 1}`)}
	e := ReplyEvent("0a1b2c3d-3-17", reply)
	e.Topic, e.Time = "orders", time.Date(2026, 11, 24, 18, 0, 0, 5e6, time.FixedZone("", 3600))
	checkEventJSON(t, e)
	want := `{"specversion":"1.0","id":"0a1b2c3d-3-17","source":"/osmosis/orders","type":"osmosis.reply","subject":"id-1",` +
		`"time":"2026-11-24T17:00:00.005Z","cursor":"0a1b2c3d-3-17","status":201,"datacontenttype":"application/json","data":{"a": 1}}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The name that an event had at the upstream is an extension attribute.
func TestReplyEventName(t *testing.T) {
	e := ReplyEvent("c", Reply{StreamID: "id-1", Status: 200, Event: "tok\"en"})
	checkEventJSON(t, e)
	want := `{"specversion":"1.0","id":"c","source":"/osmosis/","type":"osmosis.reply","subject":"id-1","cursor":"c","status":200,"event":"tok\"en"}`
	if got := string(e.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEventData(t *testing.T) {
	long := strings.Repeat("b", maxMediaType)
	for _, tt := range []struct {
		name, contentType, data string
		want                    string // what follows the attributes
	}{
		{"nothing", "", "", `}`},
		{"nothing, with a type", "application/json", "", `,"datacontenttype":"application/json"}`},
		{"JSON", "application/json", `[1,2]`, `,"datacontenttype":"application/json","data":[1,2]}`},
		{"JSON, charset", "Application/JSON; charset=utf-8", `1`, `,"datacontenttype":"Application/JSON; charset=utf-8","data":1}`},
		{"JSON suffix", "application/problem+json", `null`, `,"datacontenttype":"application/problem+json","data":null}`},
		{"JSON of another kind", "text/json", `"a"`, `,"datacontenttype":"text/json","data":"a"}`},
		{"no JSON", "application/json", `{a}`, `,"datacontenttype":"application/json","data_base64":"e2F9"}`},
		{"two JSON values", "application/json", `1 2`, `,"datacontenttype":"application/json","data_base64":"MSAy"}`},
		{"JSON with bad UTF-8", "application/json", "\"\xff\"", `,"datacontenttype":"application/json","data_base64":"Iv8i"}`},
		{"JSON in another type", "text/plain", `{"a":1}`, `,"datacontenttype":"text/plain","data":"{\"a\":1}"}`},
		{"JSON lines", "application/jsonl", `1`, `,"datacontenttype":"application/jsonl","data":"1"}`},
		{"text", "text/html; charset=utf-8", "<a>\r\n\tö&\u2028", `,"datacontenttype":"text/html; charset=utf-8","data":"<a>\r\n\tö&\u2028"}`},
		{"text with NUL", "text/plain", "a\x00b\x1b\x7f", `,"datacontenttype":"text/plain","data":"a\u0000b\u001b\u007f"}`},
		{"bytes", "image/png", "\x89PNG", `,"datacontenttype":"image/png","data_base64":"iVBORw=="}`},
		{"text of no type", "", "hello", `,"datacontenttype":"text/plain; charset=utf-8","data":"hello"}`},
		{"bytes of no type", "", "\xff", `,"datacontenttype":"application/octet-stream","data_base64":"/w=="}`},
		{"long type", "application/json;a=" + long, "1", `,"datacontenttype":"application/json;a=` + long + `","data":"1"}`},
		{"broken type", "json/", "1", `,"datacontenttype":"json/","data":"1"}`},
		{"type that is not UTF-8", "a/\xff", "1", `,"datacontenttype":"a/\ufffd","data":"1"}`},
	} {
		e := Event{Type: TypeReply, Topic: "t", ID: "i", ContentType: tt.contentType, Data: []byte(tt.data)}
		checkEventJSON(t, e)
		got := strings.TrimPrefix(string(e.AppendJSON(nil)), `{"specversion":"1.0","id":"i","source":"/osmosis/t","type":"osmosis.reply"`)
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// A megabyte of text on one line, and one of bytes, are events like others.
func TestEventLarge(t *testing.T) {
	for _, data := range []string{strings.Repeat("x", 1<<20), strings.Repeat("\n", 1<<20), strings.Repeat("\xff", 1<<20)} {
		checkEventJSON(t, Event{Type: TypeReply, ID: "i", ContentType: "text/plain", Data: []byte(data)})
	}
	// Nested deeper than parsers go, JSON is passed on as the bytes that it is.
	e := Event{Type: TypeReply, ID: "i", ContentType: "application/json", Data: []byte(strings.Repeat("[", 20000) + strings.Repeat("]", 20000))}
	if d := checkEventJSON(t, e); d.DataBase64 == nil {
		t.Error("deeply nested data stands in the event as JSON")
	}
}

func TestLifeEvents(t *testing.T) {
	for _, tt := range []struct {
		event  Event
		typ    string
		resume bool
		data   string
	}{
		{StatusEvent("i", Status{Status: StateRetrying, Attempt: 2, Code: 503, Reason: "no"}), "osmosis.status", false, `{"status":"retrying","attempt":2,"code":503,"reason":"no"}`},
		{EndEvent("i", End{Status: StateExpired}), "osmosis.end", true, `{"status":"expired"}`},
		{GapEvent("i", Gap{Reason: "retention", From: "a", To: "b"}), "osmosis.gap", false, `{"reason":"retention","from":"a","to":"b"}`},
	} {
		d := checkEventJSON(t, tt.event)
		if d.Type != tt.typ || d.ID != "i" || (d.Cursor != nil) != tt.resume || d.Status != nil || d.Data == nil || string(d.Data) != tt.data {
			t.Errorf("%+v: %s", tt.event, tt.event.AppendJSON(nil))
		}
	}
}

func TestEndJSON(t *testing.T) {
	end := End{
		Status: StateReplied, Code: 201, Attempts: 2,
		Headers: http.Header{
			"Content-Type": {"text/plain"}, "X-Two": {"1", "2"}, "X-Bad": {"caf\xe9"}, "X-None": {},
			"Set-Cookie": {"session=secret; HttpOnly"},
		},
	}
	want := `{"status":"replied","code":201,"headers":{"content-type":["text/plain"],"x-bad":["caf\ufffd"],"x-two":["1","2"]},"attempts":2}`
	if got := string(end.AppendJSON(nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	inside, err := json.Marshal(map[string]End{"end": end})
	if err != nil || string(inside) != `{"end":`+want+`}` {
		t.Errorf("inside of JSON: %s, %v", inside, err)
	}
	end.Headers = http.Header{"Set-Cookie": {"a=b"}}
	if got := string(end.AppendJSON(nil)); strings.Contains(got, "headers") {
		t.Errorf("an empty object of headers: %s", got)
	}
}

// encoding/json, by the types' tags, says the same as the encoders by hand.
func TestJSONAgainstTags(t *testing.T) {
	for _, s := range []Status{{}, {Status: StateDelivering, Attempt: 1}, {Status: StateRetrying, Attempt: -1, Code: 500, Reason: "a\"\\\u2028\xff\n"}, {RetryAt: time.UnixMilli(1).UTC()}} {
		var got, want Status
		tagged, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(tagged, &want) != nil || json.Unmarshal(s.AppendJSON(nil), &got) != nil || got != want {
			t.Errorf("%s, by the tags %s", s.AppendJSON(nil), tagged)
		}
	}
	for _, g := range []Gap{{}, {Reason: "cursor"}, {From: "a", To: "b\x00", Reason: "c"}} {
		var got, want Gap
		tagged, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(tagged, &want) != nil || json.Unmarshal(g.AppendJSON(nil), &got) != nil || got != want {
			t.Errorf("%s, by the tags %s", g.AppendJSON(nil), tagged)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\"\\\r\n\t\x00\x1f\x7f\u0080\u2028\u2029\ufffd\xff\xc0\xaf\xed\xa0\x80😀")
	f.Fuzz(func(t *testing.T, s string) {
		out := appendString([]byte("x"), s)[1:]
		var got, want string
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q becomes %q: %v", s, out, err)
		}
		standard, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(standard, &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%q becomes %q, by encoding/json %q", s, out, standard)
		}
		if !utf8.Valid(out) || bytes.ContainsAny(out, "\x00\r\n\u2028\u2029\x7f") {
			t.Errorf("%q is not one line of clean UTF-8", out)
		}
	})
}

func FuzzEvent(f *testing.F) {
	f.Add("id", "orders", "application/json", []byte(`{"a":1}`), int64(0))
	f.Add("\xff", "\n", "a/b+json", []byte("\xff"), int64(1e18))
	f.Add("", "", "", []byte(" "), int64(-1))
	f.Fuzz(func(t *testing.T, id, topic, contentType string, data []byte, nanos int64) {
		e := Event{Type: TypeReply, Topic: topic, ID: id, Cursor: id, Time: time.Unix(0, nanos), Status: 200, ContentType: contentType, Data: data}
		if !utf8.ValidString(contentType) {
			e.ContentType = "" // the consumer sees another type, so the payload cannot be compared
		}
		d := checkEventJSON(t, e)
		if d.Time == nil || !d.Time.Equal(e.Time) {
			t.Errorf("time %v, want %v", d.Time, e.Time)
		}
		if d.DataBase64 != nil && !bytes.Equal(*d.DataBase64, data) {
			t.Errorf("data_base64 is %q, want %q", *d.DataBase64, data)
		}
	})
}
