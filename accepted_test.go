package osmosis

import (
	"encoding/json"
	"testing"
)

// The body of 202 is what encoding/json would write, whatever a host is called.
func FuzzAppendAccepted(f *testing.F) {
	f.Add("eH3jdQnJNWM1GdNZ39sLcq9XsBXQ", "https://example.com/-/streams/AQ-_x")
	f.Add("", "\"\\\x00\x1f\x7f<>&é\u2028\xff")
	f.Fuzz(func(t *testing.T, id, url string) {
		want, err := json.Marshal(accepted{ID: id, Status: "queued", Stream: url})
		if err != nil {
			t.Fatal(err)
		}
		if got := appendAccepted(nil, id, url); string(got) != string(want)+"\n" {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
}
