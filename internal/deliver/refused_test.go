package deliver

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// refusing is a Producer whose broker refuses a topic.
type refusing struct {
	*rig
	topic string
}

func (r refusing) Produce(ctx context.Context, topic string, partition int32, rec record.Record) error {
	if topic == r.topic {
		return fmt.Errorf("produce to %s: %w", topic, ErrRefused)
	}
	return r.rig.Produce(ctx, topic, partition, rec)
}

// An answer that the broker refuses for good is not sent for ever: the request is
// given up, though nobody can be told.
func TestRefusedReply(t *testing.T) {
	virtually(t, func(t *testing.T, r *rig) {
		r.deliver(options(echo), func(c *Config) { c.Producer = refusing{r, testReplies} })
		r.send(2, func(int) string { return "key" })
		r.done(2)
		dead := r.read(testDead)
		if len(dead) != 2 {
			t.Fatalf("%d dead letters", len(dead))
		}
		if reason, _ := dead[0].Header(HeaderDeadReason); !strings.Contains(string(reason), "refuses the answer") {
			t.Errorf("%s", reason)
		}
	})
}
