package osmosis

import (
	"net/http"
	"testing"
	"time"
)

func TestParsePrefer(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  prefer
	}{
		{nil, prefer{}},
		{[]string{""}, prefer{}},
		{[]string{"respond-async"}, prefer{async: true}},
		{[]string{"Respond-Async, WAIT=10"}, prefer{async: true, waits: true, wait: 10 * time.Second}},
		{[]string{"respond-async", "wait=10"}, prefer{async: true, waits: true, wait: 10 * time.Second}},
		{[]string{`wait="10"`}, prefer{waits: true, wait: 10 * time.Second}},
		{[]string{" wait = 10 ; foo=bar , x"}, prefer{waits: true, wait: 10 * time.Second}},
		{[]string{"wait=0"}, prefer{waits: true}},
		{[]string{"wait=5, wait=10"}, prefer{waits: true, wait: 5 * time.Second}},
		{[]string{"wait=99999999999999999999"}, prefer{waits: true, wait: longestWait}},
		{[]string{`handling="a, wait=3", return=minimal`}, prefer{}},
		{[]string{`x="\", wait=3"`}, prefer{}},
		// What cannot be read is as if it were absent.
		{[]string{"wait"}, prefer{}},
		{[]string{"wait="}, prefer{}},
		{[]string{"wait=-1"}, prefer{}},
		{[]string{"wait=1.5"}, prefer{}},
		{[]string{"wait=soon, respond-async"}, prefer{async: true}},
		{[]string{`wait="`}, prefer{}},
	} {
		if got := parsePrefer(http.Header{"Prefer": test.lines}); got != test.want {
			t.Errorf("%q: %+v, want %+v", test.lines, got, test.want)
		}
	}
}
