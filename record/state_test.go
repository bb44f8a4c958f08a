package record

import (
	"net/http"
	"reflect"
	"testing"
	"time"
)

func TestReplyEnd(t *testing.T) {
	header := http.Header{"Content-Type": {"text/plain"}}
	for _, tt := range []struct {
		name  string
		reply Reply
		want  End
	}{
		{"a reply", Reply{Status: 404, Header: header, Attempt: 2, Body: []byte(`{"reason":"not read"}`)},
			End{Status: StateReplied, Code: 404, Headers: header, Attempts: 2}},
		{"failed", Reply{State: StateFailed, Body: []byte(`{"code":503,"attempts":5,"reason":"gone"}`)},
			End{Status: StateFailed, Code: 503, Attempts: 5, Reason: "gone"}},
		{"as Report writes it", Reply{State: StateFailed, Body: []byte(`{"status":"failed","attempt":3}`)},
			End{Status: StateFailed, Attempts: 3}},
		{"attempts in the header", Reply{State: StateFailed, Attempt: 4}, End{Status: StateFailed, Attempts: 4}},
		{"cancelled", Reply{State: StateCancelled, Body: []byte(`{}`)}, End{Status: StateCancelled}},
		{"no JSON", Reply{State: StateFailed, Body: []byte("out of paper")}, End{Status: StateFailed}},
		{"half JSON", Reply{State: StateFailed, Body: []byte(`{"reason":"x","code":"503"}`)}, End{Status: StateFailed}},
		{"no status code", Reply{State: StateFailed, Body: []byte(`{"code":-1,"attempts":-1}`)}, End{Status: StateFailed}},
	} {
		if got := tt.reply.End(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestReplyProgress(t *testing.T) {
	got := Reply{State: StateRetrying, Body: []byte(`{"status":"failed","attempt":2,"code":502,"reason":"refused"}`)}.Progress()
	// The header says the state, whatever the value says.
	if want := (Status{Status: StateRetrying, Attempt: 2, Code: 502, Reason: "refused"}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestStatusRetryAt(t *testing.T) {
	at := time.Date(2026, 11, 24, 18, 0, 1, 234_999_999, time.FixedZone("", 3600))
	for _, tt := range []struct {
		at   time.Time
		want string
	}{
		{at, `{"status":"retrying","attempt":2,"code":503,"reason":"busy","retry_at":"2026-11-24T17:00:01.234Z"}`},
		{time.Unix(0, 0), `{"status":"retrying","attempt":2,"code":503,"reason":"busy","retry_at":"1970-01-01T00:00:00.000Z"}`},
		{time.Time{}, `{"status":"retrying","attempt":2,"code":503,"reason":"busy"}`},
		// In UTC these have five digits and a sign.
		{time.Date(9999, 12, 31, 23, 30, 0, 0, time.FixedZone("", -3600)), `{"status":"retrying","attempt":2,"code":503,"reason":"busy"}`},
		{time.Date(0, 1, 1, 0, 30, 0, 0, time.FixedZone("", 3600)), `{"status":"retrying","attempt":2,"code":503,"reason":"busy"}`},
	} {
		status := Status{Status: StateRetrying, Attempt: 2, Code: 503, Reason: "busy", RetryAt: tt.at}
		text := status.AppendJSON(nil)
		if string(text) != tt.want {
			t.Errorf("%v is written as %s, want %s", tt.at, text, tt.want)
		}
		got := Request{StreamID: "id"}.Report(status).Progress()
		again := got.AppendJSON(nil)
		if string(again) != tt.want {
			t.Errorf("%s reads as %s", text, again)
		}
		if got.RetryAt != got.RetryAt.UTC().Truncate(time.Millisecond) {
			t.Errorf("%v is not in UTC and milliseconds", got.RetryAt)
		}
	}
}

// A time of another shape is as if it were missing, and nothing else is.
func TestProgressRetryAt(t *testing.T) {
	for value, want := range map[string]string{
		`"2026-11-24T18:00:01.2345+01:00"`: "2026-11-24T17:00:01.234Z",
		`"2026-11-24T17:00:01Z"`:           "2026-11-24T17:00:01.000Z",
		`null`:                             "", `""`: "", `"soon"`: "", `1764003601`: "", `{}`: "", `"2026-11-24"`: "",
		`"9999-12-31T23:59:59-01:00"`: "", `"0001-01-01T00:00:00Z"`: "",
	} {
		got := Reply{State: StateRetrying, Body: []byte(`{"attempt":2,"reason":"busy","retry_at":` + value + `}`)}.Progress()
		wanted := Status{Status: StateRetrying, Attempt: 2, Reason: "busy"}
		if want != "" {
			var err error
			if wanted.RetryAt, err = time.Parse(time.RFC3339, want); err != nil {
				t.Fatal(err)
			}
		}
		if got != wanted {
			t.Errorf("%s reads as %+v, want %+v", value, got, wanted)
		}
	}
}
