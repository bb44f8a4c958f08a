package osmosis

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// positionPatience is how long an answer waits to learn where its request
// stands. It is a courtesy, for which nobody should wait long.
const positionPatience = time.Second

// position tells how many requests are ahead of a queued one and how long they
// take; ok is false where that is not known, and then nothing is claimed. An
// eta below 0 is not known either.
func (a *App) position(ctx context.Context, lease *lease, c hub.Claims) (ahead int64, eta time.Duration, ok bool) {
	if c.Group == "" {
		return 0, 0, false
	}
	ctx, cancel := context.WithTimeout(ctx, positionPatience)
	defer cancel()
	at, ok, err := lease.meter.Position(ctx, c.Topic, c.Group, c.Partition, c.Offset)
	if err != nil {
		a.logger.Debug("position not known", zap.String("topic", c.Topic), zap.String("group", c.Group), zap.Error(err))
		return 0, 0, false
	}
	if !ok || at.Ahead < 0 {
		return 0, 0, false
	}
	return at.Ahead, at.ETA, true
}
