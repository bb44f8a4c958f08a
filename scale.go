package osmosis

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

// defaultDrain leaves a worker the time to finish a record and to leave its group.
const defaultDrain = 10 * time.Second

// Scale runs workers for a topic.
type Scale struct {
	// Topic is what the workers consume. On a route it is the route's.
	Topic string `json:"topic,omitempty"`

	// Group is the consumer group that they consume in. On a route it is the
	// route's group.
	Group string `json:"group,omitempty"`

	// Min is the number of workers that always run. Default: 1.
	Min int `json:"min,omitempty"`

	// Max is the largest number of workers. It has to equal Min: the number of
	// workers does not follow the load yet. Default: Min.
	Max int `json:"max,omitempty"`

	// Drain is how long a worker that is told to stop may take before it is
	// killed. Default: 10s.
	Drain caddy.Duration `json:"drain,omitempty"`

	// ScalerRaw is the module that starts and stops workers: `process` runs
	// them as child processes of this gateway. Required.
	ScalerRaw json.RawMessage `json:"scaler,omitempty" caddy:"namespace=osmosis.scalers inline_key=type"`

	scaler Scaler
}

// Scaler is a guest module in the namespace osmosis.scalers: it knows how to
// run a number of workers.
type Scaler interface {
	// Crew gives what keeps workers for a topic and group running. It is asked
	// when the configuration starts, and starts nothing before it is told a
	// number. Key tells equal crews of two configurations apart from others: a
	// reload keeps the workers of an equal one.
	Crew(autoscale.Job) (key string, start func() autoscale.Crew)
}

// provision loads the scaler and checks the numbers.
func (s *Scale) provision(ctx caddy.Context) error {
	if s.Topic == "" {
		return fmt.Errorf("scale: a topic is missing")
	}
	if err := validTopic(s.Topic); err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	if s.Group == "" {
		s.Group = s.Topic
	}
	if s.Min == 0 {
		s.Min = max(s.Max, 1)
	}
	if s.Max == 0 {
		s.Max = s.Min
	}
	if s.Min < 0 || s.Max != s.Min {
		return fmt.Errorf("scale %s %s: min is %d and max is %d; the number of workers does not follow the load yet, so give both the same number", s.Topic, s.Group, s.Min, s.Max)
	}
	if err := validDurations("scale", map[string]time.Duration{"drain": time.Duration(s.Drain)}); err != nil {
		return err
	}
	if s.Drain == 0 {
		s.Drain = caddy.Duration(defaultDrain)
	}
	if s.ScalerRaw == nil {
		return fmt.Errorf("scale %s %s: no scaler; write how to run a worker, such as `process ./worker`", s.Topic, s.Group)
	}
	module, err := ctx.LoadModule(s, "ScalerRaw")
	if err != nil {
		return fmt.Errorf("scale %s %s: load scaler: %w", s.Topic, s.Group, err)
	}
	s.scaler = module.(Scaler)
	return nil
}
