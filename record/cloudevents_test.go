package record

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// binaryEvent makes the headers of an event in binary mode; pairs add to the
// required ones, and an empty value takes one away.
func binaryEvent(pairs ...string) http.Header {
	h := http.Header{}
	for _, p := range [][2]string{{"ce-specversion", "1.0"}, {"ce-id", "e-1"}, {"ce-source", "/shop"}, {"ce-type", "com.example.order"}} {
		h.Set(p[0], p[1])
	}
	for i := 0; i < len(pairs); i += 2 {
		if h.Set(pairs[i], pairs[i+1]); pairs[i+1] == "" {
			h.Del(pairs[i])
		}
	}
	return h
}

// eventHeaders gives what a record says about the event and its data.
func eventHeaders(t *testing.T, r *http.Request, body string) (got []string, value string) {
	t.Helper()
	rec, err := FromHTTP(r, []byte(body), testMeta)
	if err != nil {
		t.Fatalf("%v: %v", r.Header, err)
	}
	for _, l := range lines(rec.Headers) {
		if strings.HasPrefix(l, "ce_") || strings.HasPrefix(l, "content-") {
			got = append(got, l)
		}
	}
	if id, _ := CorrelationID(rec.Headers); id != testMeta.StreamID {
		t.Errorf("correlation id %q, want the stream id", id)
	}
	return got, string(rec.Value)
}

func TestBinaryEvent(t *testing.T) {
	h := binaryEvent(
		"ce-time", "2018-04-05T03:56:24Z", "ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80", "Ce-MyExtension", `"a \"quoted\" %25"`,
		"content-type", "application/json; charset=utf-8", "content-digest", "sha-256=:x:",
	)
	got, value := eventHeaders(t, post("/", h), "{}")
	want := []string{
		`content-digest: "sha-256=:x:"`,
		`content-type: "application/json; charset=utf-8"`,
		`ce_id: "e-1"`,
		`ce_myextension: "a \"quoted\" %"`,
		`ce_source: "/shop"`,
		`ce_specversion: "1.0"`,
		`ce_subject: "Euro € 😀"`,
		`ce_time: "2018-04-05T03:56:24Z"`,
		`ce_type: "com.example.order"`,
	}
	if !slices.Equal(got, want) || value != "{}" {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// An event without a time stays one without a time: it keeps its own attributes.
func TestBinaryEventWithoutTime(t *testing.T) {
	got, _ := eventHeaders(t, post("/", binaryEvent()), "")
	if want := []string{`ce_id: "e-1"`, `ce_source: "/shop"`, `ce_specversion: "1.0"`, `ce_type: "com.example.order"`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBinaryEventErrors(t *testing.T) {
	double := binaryEvent()
	double.Add("ce-id", "e-2")
	lost := binaryEvent("ce-x", "1")
	lost["Ce-X"] = nil
	for _, tt := range []struct {
		header http.Header
		want   string
	}{
		{binaryEvent("ce-specversion", "0.3"), `specversion "0.3" is not supported; send 1.0`},
		{binaryEvent("ce-specversion", " "), "specversion"},
		{binaryEvent("ce-id", ""), "attribute id is missing"},
		{binaryEvent("ce-source", ""), "attribute source is missing"},
		{binaryEvent("ce-type", ""), "attribute type is missing"},
		{binaryEvent("ce-type", `""`), "attribute type is missing"},
		{binaryEvent("ce-datacontenttype", "a/b"), "content-type says it"},
		{binaryEvent("ce-data", "x"), `attribute "data"`},
		{binaryEvent("ce-data_base64", "x"), "lower-case letters and digits"},
		{binaryEvent("ce-a-b", "x"), "lower-case letters and digits"},
		{binaryEvent("ce-", "x"), "lower-case letters and digits"},
		{double, "ce-id stands 2 times"},
		{lost, "ce-x stands 0 times"},
		{binaryEvent("ce-id", "100%"), "write a percent sign as %25"},
		{binaryEvent("ce-id", "%zz"), "write a percent sign as %25"},
		{binaryEvent("ce-id", `"open`), "write a double quote as %22"},
		{binaryEvent("ce-id", `"a" b`), "write a double quote as %22"},
		{binaryEvent("ce-id", "a%0D%0Ab"), "without control characters"},
		{binaryEvent("ce-id", "a%00b"), "without control characters"},
		{binaryEvent("ce-id", "a\r\nb"), "without control characters"},
		{binaryEvent("ce-id", "%C2%85"), "without control characters"},
		{binaryEvent("ce-subject", "%C0%A0"), "not utf-8"},
		{binaryEvent("ce-subject", "caf\xe9"), "not utf-8"},
		{binaryEvent("ce-subject", "%EF%BF%BF"), "not utf-8"},
		{binaryEvent("ce-subject", `""`), "leave it out"},
		{binaryEvent("ce-source", ":"), "attribute source"},
		{binaryEvent("ce-dataschema", "/relative"), "absolute URI"},
		{binaryEvent("ce-time", "yesterday"), "RFC 3339"},
	} {
		_, err := FromHTTP(post("/", tt.header), nil, testMeta)
		if !errors.Is(err, ErrEvent) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want ErrEvent with %q", tt.header, err, tt.want)
		}
	}
}

const required = `"specversion":"1.0","id":"e-1","source":"/shop","type":"t"`

func TestStructuredEvent(t *testing.T) {
	attributes := []string{`ce_id: "e-1"`, `ce_source: "/shop"`, `ce_specversion: "1.0"`, `ce_type: "t"`}
	for _, tt := range []struct {
		name, body  string
		contentType string
		value       string
		more        []string
	}{
		{"no data", `{` + required + `}`, "", "", nil},
		{"no data of a type", `{` + required + `,"datacontenttype":"a/b"}`, "a/b", "", nil},
		{"JSON of no type", `{` + required + `,"data":{"a": [1]}}`, "application/json", `{"a": [1]}`, nil},
		{"JSON string", `{` + required + `,"data":"I'm just a string"}`, "application/json", `"I'm just a string"`, nil},
		{"explicit null", `{` + required + `,"data":null}`, "application/json", `null`, nil},
		{"JSON suffix", `{` + required + `,"datacontenttype":"application/a+json","data":"\u0041"}`, "application/a+json", `"\u0041"`, nil},
		{"XML", `{` + required + `,"datacontenttype":"application/xml","data":"<much wow=\"xml\"/>"}`, "application/xml", `<much wow="xml"/>`, nil},
		{"a number as text", `{` + required + `,"datacontenttype":"text/plain","data":42}`, "text/plain", `42`, nil},
		{"bytes", `{` + required + `,"datacontenttype":"a/b","data_base64":"AP8="}`, "a/b", "\x00\xff", nil},
		{"bytes of no type", `{` + required + `,"data_base64":""}`, "", "", nil},
		{"attributes", ` { "data":1,` + required + `,"time":"2018-04-05t17:31:00z","subject":null,"comnumber":-5,"combool":true,"comtext":"é"} ` + "\n", "application/json", `1`,
			[]string{`ce_time: "2018-04-05t17:31:00z"`, `ce_comnumber: "-5"`, `ce_combool: "true"`, `ce_comtext: "é"`}},
	} {
		got, value := eventHeaders(t, post("/", http.Header{
			"Content-Type": {"Application/CloudEvents+JSON; charset=UTF-8"}, "Content-Encoding": {"identity"}, "Content-Digest": {"of the envelope"},
			"Content-Language": {"en"}, "Ce-Id": {"not read"}, "Ce-Specversion": {"0.1"},
		}), tt.body)
		want := append(append([]string{`content-language: "en"`}, attributes...), tt.more...)
		if tt.contentType != "" {
			want = append(want, `content-type: "`+tt.contentType+`"`)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) || value != tt.value {
			t.Errorf("%s: value %q, want %q, headers\n%s\nwant\n%s", tt.name, value, tt.value, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestStructuredEventErrors(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{``, "no JSON object"},
		{`[]`, "no JSON object"},
		{`"x"`, "no JSON object"},
		{`{`, "no JSON"},
		{`{` + required, "no JSON"},
		{`{` + required + `,}`, "no JSON"},
		{`{` + required + `,"a":}`, "no JSON"},
		{`{` + required + `} {}`, "behind the JSON object"},
		{`{` + required + `}x`, "behind the JSON object"},
		{`{` + required + `,"id":"e-2"}`, `"id" stands twice`},
		{`{` + required + ",\"data\":\"\xff\"}", "utf-8"},
		{`{}`, "specversion"},
		{`{"specversion":"1.0","id":null,"source":"/","type":"t"}`, "attribute id is missing"},
		{`{"specversion":1.0,"id":"1","source":"/","type":"t"}`, "32-bit integer"},
		{`{` + required + numbered(`,"x%d":1`, maxMembers-3) + `}`, "more than 1000 members"},
		{`{` + required + `,"datacontenttype":"a/b;c=` + strings.Repeat("d", maxMediaType) + `"}`, "no media type"},
		{`{` + required + `,"a":{}}`, "put objects into data"},
		{`{` + required + `,"a":[]}`, "put objects into data"},
		{`{` + required + `,"a":1.5}`, "32-bit integer"},
		{`{` + required + `,"a":2147483648}`, "32-bit integer"},
		{`{` + required + `,"A":1}`, "lower-case letters"},
		{`{` + required + `,"a_b":1}`, "lower-case letters"},
		{`{` + required + `,"":1}`, "lower-case letters"},
		{`{` + required + `,"a":"\r\n"}`, "control characters"},
		{`{` + required + `,"a":"\u0000"}`, "control characters"},
		{`{` + required + `,"time":"x"}`, "RFC 3339"},
		{`{` + required + `,"datacontenttype":"a/b\r\nx: y"}`, "no media type"},
		{`{` + required + `,"datacontenttype":""}`, "no media type"},
		{`{` + required + `,"data":1,"data_base64":""}`, "exclude each other"},
		{`{` + required + `,"data_base64":1}`, "no JSON string"},
		{`{` + required + `,"data_base64":"AA"}`, "with padding"},
		{`{` + required + `,"data_base64":"_w=="}`, "data_base64"},
		{`{` + required + `,"data":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "no JSON"},
	} {
		_, err := FromHTTP(post("/", http.Header{"Content-Type": {"application/cloudevents+json"}}), []byte(tt.body), testMeta)
		if !errors.Is(err, ErrEvent) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.80s: error %v, want ErrEvent with %q", tt.body, err, tt.want)
		}
	}
}

func TestEventFormats(t *testing.T) {
	body := []byte(`{` + required + `}`)
	for _, tt := range []struct {
		contentType, encoding, want string
	}{
		{"application/cloudevents-batch+json", "", "each event by itself"},
		{"application/cloudevents-batch", "", "each event by itself"},
		{"application/cloudevents+avro", "", "format application/cloudevents+avro is not supported"},
		{"application/cloudevents", "", "is not supported"},
		{"application/cloudevents+json; charset=utf-16", "", "charset"},
		{"application/cloudevents+json; charset", "", "content-type"},
		{"application/cloudevents+json; a=" + strings.Repeat("b", maxMediaType), "", "longer than 1024 bytes"},
		{"application/cloudevents+json", "gzip", "send it unencoded"},
	} {
		h := http.Header{"Content-Type": {tt.contentType}}
		if tt.encoding != "" {
			h.Set("Content-Encoding", tt.encoding)
		}
		if _, err := FromHTTP(post("/", h), body, testMeta); !errors.Is(err, ErrEvent) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: error %v, want ErrEvent with %q", h, err, tt.want)
		}
	}
}

func TestParseAttributes(t *testing.T) {
	h := binaryEvent("ce-time", "2018-04-05T03:56:24.5+02:00", "ce-subject", "s", "ce-dataschema", "https://example.com/s", "ce-ext", "1", "ce-ext2", "")
	rec, err := FromHTTP(post("/", h), nil, testMeta)
	if err != nil {
		t.Fatal(err)
	}
	rec.Headers = append(rec.Headers, headers("ce_id", "second", "ce_ext", "second", "ce_time", "2000-01-01T00:00:00Z")...)
	req, err := ParseRequest(rec)
	if err != nil {
		t.Fatal(err)
	}
	e := req.Event
	if e.SpecVersion != "1.0" || e.ID != "e-1" || e.Source != "/shop" || e.Type != "com.example.order" || e.Subject != "s" ||
		e.DataSchema != "https://example.com/s" || len(e.Extensions) != 1 || e.Extensions["ext"] != "1" ||
		!e.Time.Equal(time.Date(2018, 4, 5, 1, 56, 24, 5e8, time.UTC)) {
		t.Errorf("attributes %+v", e)
	}
}

// Percent-encoding an attribute and decoding it gives it back.
func FuzzDecodeHeader(f *testing.F) {
	f.Add("Euro € 😀")
	f.Add(`"a\"b"%25`)
	f.Add("%zz\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := decodeHeader(url.PathEscape(s)); err != nil || got != s {
			t.Errorf("%q comes back as %q, %v", s, got, err)
		}
		_, _ = decodeHeader(s)
	})
}

// A structured event becomes a record whose attributes are as CloudEvents has
// them, or it is refused.
func FuzzStructuredEvent(f *testing.F) {
	f.Add([]byte(`{` + required + `,"data":{"a":1},"time":"2018-04-05T17:31:00Z"}`))
	f.Add([]byte(`{` + required + `,"data_base64":"AP8=","a":5,"b":null,"c":true}`))
	f.Add([]byte(`{` + required + `,"datacontenttype":"text/plain","data":"\ud800\u0000"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		rec, err := FromHTTP(post("/", http.Header{"Content-Type": {"application/cloudevents+json"}}), body, testMeta)
		if err != nil {
			if !errors.Is(err, ErrEvent) {
				t.Errorf("error %v is not ErrEvent", err)
			}
			return
		}
		req, err := ParseRequest(rec)
		if err != nil {
			t.Fatalf("%q: %v", lines(rec.Headers), err)
		}
		if e := req.Event; e.SpecVersion != "1.0" || e.ID == "" || e.Source == "" || e.Type == "" {
			t.Errorf("attributes %+v", e)
		}
		for _, h := range rec.Headers {
			if strings.HasPrefix(h.Key, "ce_") && (!validAttributeName(h.Key[3:]) || !validText(string(h.Value))) {
				t.Errorf("attribute %q: %q", h.Key, h.Value)
			}
		}
	})
}
