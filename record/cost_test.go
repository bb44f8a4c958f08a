package record

import (
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// numbered writes n pieces, each with its number in it.
func numbered(format string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// What strangers send costs in proportion to its size. Each of these is so large
// that the square of it would take minutes, and takes well under a second.
func TestCostOfLargeInputs(t *testing.T) {
	const many = 60_000
	names := make([]string, 0, many)
	header := make(http.Header, many)
	lines := headers(HeaderCorrelationID, "id", HeaderMethod, "POST", HeaderPath, "/")
	for i := range many {
		name := fmt.Sprintf("Accept-%x", i)
		names = append(names, name)
		header[http.CanonicalHeaderKey(name)] = []string{""}
		lines = append(lines, Header{Key: strings.ToLower(name)})
	}
	connection := strings.Repeat("a,", 10*many) + strings.Join(names[many/2:], ",")
	header["Connection"] = []string{connection}
	lines = append(lines, Header{Key: "connection", Value: []byte(connection)})

	for name, f := range map[string]func(t *testing.T){
		"request with a long connection field": func(t *testing.T) {
			rec, err := FromHTTP(post("/", header), nil, testMeta)
			if err != nil {
				t.Error(err)
			}
			count := 0
			for _, h := range rec.Headers {
				if strings.HasPrefix(h.Key, "accept-") {
					count++
				}
			}
			if count != many/2 {
				t.Errorf("%d fields are carried, want the %d that are not of the connection", count, many/2)
			}
		},
		"reply with a long connection field, written": func(t *testing.T) {
			if rec := (Reply{StreamID: "id", Header: header}).Record(); len(rec.Headers) != many/2+2 {
				t.Errorf("%d headers, want %d", len(rec.Headers), many/2+2)
			}
		},
		"reply with a long connection field, read": func(t *testing.T) {
			r, err := ParseReply(Record{Headers: lines})
			if err != nil || len(r.Header) != MaxReplyFields {
				t.Errorf("%d headers, %v; want %d", len(r.Header), err, MaxReplyFields)
			}
		},
		"request record with many fields": func(t *testing.T) {
			r, err := ParseRequest(Record{Headers: lines})
			if err != nil || len(r.Header) != many {
				t.Errorf("%d headers, %v; want %d", len(r.Header), err, many)
			}
		},
		"forwarded with many parameters": func(t *testing.T) {
			f, err := ParseForwarded("for=192.0.2.1" + numbered(";x%x=b", 5*many))
			if err != nil || f.For != "192.0.2.1" {
				t.Errorf("%+v, %v", f, err)
			}
		},
		"forwarded with many hops behind a long one": func(t *testing.T) {
			f, err := ParseForwarded("for=192.0.2.1" + numbered(";x%x=b", 2*many) + strings.Repeat(",a=b", 5*many))
			if err != nil || f.For != "192.0.2.1" {
				t.Errorf("%+v, %v", f, err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			go func() { defer close(done); f(t) }()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("not done in a minute: it costs more than in proportion")
			}
		})
	}
}

// allocated gives how many bytes f takes from memory, kept or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// What a reply's headers hold beyond the bounds takes no memory, neither where
// it is dropped for its size nor where it is dropped for what it is.
func TestCostOfDroppedReplyHeaders(t *testing.T) {
	for name, h := range map[string][]Header{
		"large":     headers("x-large", strings.Repeat("x", 8<<20)),
		"unfit":     headers("x-unfit", strings.Repeat("\n", 8<<20)),
		"padded":    headers("x-padded", strings.Repeat(" ", 8<<20)+"x"),
		"not known": headers("osmosis-status", "failed", "ce_large", strings.Repeat("x", 8<<20)),
		"many":      slices.Repeat(headers("x-many", ""), 200_000),
	} {
		rec := Record{Headers: append(headers(HeaderCorrelationID, "id"), h...)}
		if n := allocated(func() {
			if _, err := ParseReply(rec); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}); n > 1<<20 {
			t.Errorf("%s: reading it allocates %d bytes", name, n)
		}
	}
}

// A structured event of many members is refused before they are all read.
func TestCostOfManyMembers(t *testing.T) {
	h := http.Header{"Content-Type": {"application/cloudevents+json"}}
	read := func(n int) uint64 {
		body := []byte("{" + required + numbered(`,"x%d":1`, n) + "}")
		return allocated(func() { _, _ = FromHTTP(post("/", h), body, testMeta) })
	}
	few, many := read(2*maxMembers), read(200*maxMembers)
	// What grows is the decoder's buffer, which sees no more than the start.
	if many > 2*few {
		t.Errorf("reading 200 times too many members allocates %d bytes, twice too many %d", many, few)
	}
	most := []byte("{" + required + numbered(`,"x%d":1`, maxMembers-4) + "}")
	if _, err := FromHTTP(post("/", h), most, testMeta); err != nil {
		t.Errorf("an event of %d members: %v", maxMembers, err)
	}
}

// The words that most requests have in Connection cost nothing.
func TestCostOfKeepAlive(t *testing.T) {
	r, body, m := benchRequest()
	without := testing.AllocsPerRun(100, func() { _, _ = FromHTTP(r, body, m) })
	r.Header["Connection"] = []string{"keep-alive, close"}
	if with := testing.AllocsPerRun(100, func() { _, _ = FromHTTP(r, body, m) }); with > without {
		t.Errorf("FromHTTP allocates %.0f times with Connection: keep-alive, %.0f without", with, without)
	}
}

// Errors are logged and told to clients, so they repeat no megabytes.
func TestErrorsAreShort(t *testing.T) {
	long := strings.Repeat("x y/ä\xff", 1<<17)
	structured := http.Header{"Content-Type": {"application/cloudevents+json"}}
	request := func(name, value string) func() error {
		return func() error {
			_, err := ParseRequest(Record{Headers: headers(name, value)})
			return err
		}
	}
	event := func(h http.Header, body string) func() error {
		return func() error {
			_, err := FromHTTP(post("/", h), []byte(body), testMeta)
			return err
		}
	}
	for name, f := range map[string]func() error{
		"state": func() error {
			_, err := ParseReply(Record{Headers: headers(HeaderCorrelationID, "id", HeaderState, long)})
			return err
		},
		"method":          request(HeaderMethod, long),
		"path":            request(HeaderPath, long),
		"scheme":          request(HeaderScheme, "\n"+long),
		"expires":         request(HeaderExpires, long),
		"correlation id":  request(HeaderCorrelationID, long),
		"reply partition": request(HeaderReplyPartition, long),
		"forwarded":       request(HeaderForwarded, long),
		"forwarded for":   request(HeaderForwarded, `for="`+strings.Repeat("x", 1<<20)+`"`),
		"forwarded twice": request(HeaderForwarded, strings.Repeat(strings.Repeat("x", 1<<20)+"=1;", 2)),
		"forwarded value": request(HeaderForwarded, strings.Repeat("x", 1<<20)+"=/"),
		"forwarded end":   request(HeaderForwarded, "for=unknown "+long),
		"time":            request("ce_time", long),
		"content type":    event(http.Header{"Content-Type": {"application/cloudevents;" + long}}, "{}"),
		"attribute":       event(structured, "{"+required+`,"dataschema":"`+strings.Repeat("x", 1<<20)+`"}`),
		"name":            event(structured, "{"+required+`,"`+strings.Repeat("x_", 1<<20)+`":1}`),
		"binary":          event(http.Header{"Ce-Specversion": {long}}, ""),
	} {
		if err := f(); err == nil || len(err.Error()) > 16*maxClip {
			t.Errorf("%s: error of %d bytes: %.100v", name, len(fmt.Sprint(err)), err)
		}
	}
}

func TestClip(t *testing.T) {
	short := strings.Repeat("ä", maxClip/2)
	if got := clip(short); got != short {
		t.Errorf("%q became %q", short, got)
	}
	got := clip("begin" + strings.Repeat("ä", maxClip) + "end")
	if len(got) > maxClip || !strings.HasPrefix(got, "beginä") || !strings.HasSuffix(got, "äend") || !strings.Contains(got, "ä…ä") {
		t.Errorf("got %q", got)
	}
}
