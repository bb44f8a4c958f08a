package hub

import (
	"testing"
	"testing/synctest"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func TestStreamFromItsFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1)
		sub := r.follow(r.stream("a"), nil)
		expect(t, sub, "caught up", "silence")

		r.put(0, part("a", "one"), part("b", "other"), state("a", record.StateRetrying), last("a", "two"), last("a", "never"))
		expect(t, sub, "reply one @0/0", "status retrying", "reply two @0/3", "end replied-end", "eof", "eof")
	})
}
