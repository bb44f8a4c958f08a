package record

import (
	"net/http"
	"reflect"
	"testing"
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
