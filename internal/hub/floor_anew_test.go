package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

// A floor of another life of the topic is worth nothing in this one: the stream is
// read from the log's start, however long the log has become.
func TestFloorOfAnotherLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		for range 5 {
			r.put(0, part("x", "of another stream"))
		}
		s := r.stream("a")
		s.Floor = 5
		r.recreate(1)
		time.Sleep(2 * metadataTTL)
		r.put(0, part("a", "one"), part("a", "two"))
		for range 5 {
			r.put(0, part("x", "of another stream"))
		}
		r.put(0, last("a", "three"))
		expect(t, r.follow(s, nil), "gap recreated", "reply one @0/0", "reply two @0/1", "reply three @0/7", "end replied-end")
	})
}
