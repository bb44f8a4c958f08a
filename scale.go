package osmosis

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

// Scale has the number of a topic's workers follow what waits for them.
type Scale struct {
	// Topic is what the workers consume. On a route it is the route's.
	Topic string `json:"topic,omitempty"`

	// Group is the consumer group that they consume in. On a route it is the
	// route's group.
	Group string `json:"group,omitempty"`

	// Min is the smallest number of workers. Default: 0, so that none runs while
	// there is nothing to do; the first one is started as soon as a record comes.
	// With the scaler `deliver`, which costs nothing while it waits, it is at least 1.
	Min int `json:"min,omitempty"`

	// Max is the largest number of workers. Default: 10. With the scaler
	// `deliver` they are tries at once, and the default is its `concurrency`.
	Max int `json:"max,omitempty"`

	// Drain is how long what waits may take until it is done. The shorter it is,
	// the more workers a backlog brings, and the sooner. Default: 10s.
	Drain caddy.Duration `json:"drain,omitempty"`

	// Idle is how long nothing must have happened until the last worker goes,
	// where Min is 0. Default: 1m.
	Idle caddy.Duration `json:"idle,omitempty"`

	// DryRun has decisions made, logged and told over the admin API and the
	// metrics, and nothing done; workers that a configuration before has started
	// stay. Default: false.
	DryRun bool `json:"dry_run,omitempty"`

	// Concurrency is how many records one worker works on at once. A worker that
	// takes several, and is not told here, looks slower than it is, and gets
	// company that it does not need. Default: 1.
	Concurrency int `json:"concurrency,omitempty"`

	// ScalerRaw is the module that starts and stops workers: `process` runs them
	// as child processes of this gateway, `deliver` sizes its own delivery.
	// Required.
	ScalerRaw json.RawMessage `json:"scaler,omitempty" caddy:"namespace=osmosis.scalers inline_key=type"`

	scaler Scaler
}

// Scaler is a guest module in the namespace osmosis.scalers: it knows how to
// have a number of workers run, and nothing of how the number comes about.
//
// Register a Caddy module with the ID osmosis.scalers.<name> that has the method
// below, and UnmarshalCaddyfile if it is to be written in a Caddyfile; `scale`
// then takes its name, and nothing else has to change. What it makes is an
// [autoscale.Crew]:
//
//   - Scale gets an [autoscale.Order]: the whole number of workers, not a change
//     of it, and the generation of the lease under which it was decided. It is
//     called again at every look, with the same number too, so that it can put
//     right what has changed outside. It does not wait: what takes time is done
//     in a goroutine of its own. With several gateways an
//     old one may still say something after a new one has begun to decide: who
//     is told from outside, as by a webhook, has to refuse a generation older
//     than one it has seen, so send it along.
//   - Release says that another gateway decides from now on. Workers that are
//     this process' own, as those of `process`, are stopped by it; a Crew whose
//     workers run elsewhere, as in a cluster, does nothing.
//   - Close ends the Crew when no configuration has it any more. It waits for
//     workers of this process, and leaves others as they are.
//   - A Crew that is an [autoscale.Counter] tells how many workers there really
//     are. Without that, the members of the consumer group are counted.
type Scaler interface {
	// Crew gives what keeps workers for a topic and group running. It is asked
	// when the configuration starts, and starts nothing before it is told a
	// number. Key tells equal crews of two configurations apart from others: a
	// reload keeps the workers of an equal one.
	Crew(autoscale.Job) (key string, start func() autoscale.Crew)
}

// errNoScaler is what is wrong with a scale that has no way to run workers.
var errNoScaler = errors.New("no scaler; write how to run a worker, such as `process ./worker`, or `deliver` for a route that delivers")

// provision loads the scaler and checks the numbers.
func (s *Scale) provision(ctx caddy.Context) error {
	if s.Topic == "" {
		return errors.New("scale: a topic is missing; write `scale <topic> <group>`")
	}
	if err := validTopic(s.Topic); err != nil {
		return fmt.Errorf("scale: %w", err)
	}
	if s.Group == "" {
		s.Group = s.Topic
	}
	if err := s.load(ctx); err != nil {
		return fmt.Errorf("scale %s %s: %w", s.Topic, s.Group, err)
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("scale %s %s: %w", s.Topic, s.Group, err)
	}
	return nil
}

// once refuses a topic and group that others scale too.
func (s *Scale) once(others []*Scale) error {
	for _, other := range others {
		if other.Topic == s.Topic && other.Group == s.Group {
			return fmt.Errorf("scale %s %s is given twice, and the two would undo each other's work; keep one, on a route or in the global block", s.Topic, s.Group)
		}
	}
	return nil
}

// load loads the scaler.
func (s *Scale) load(ctx caddy.Context) error {
	if s.ScalerRaw == nil {
		return errNoScaler
	}
	module, err := ctx.LoadModule(s, "ScalerRaw")
	if err != nil {
		return fmt.Errorf("load scaler: %w", err)
	}
	scaler, ok := module.(Scaler)
	if !ok {
		return fmt.Errorf("%T is no scaler, though it is in their namespace", module)
	}
	s.scaler = scaler
	return nil
}

// check refuses numbers that make no sense.
func (s *Scale) check() error {
	if s.Min < 0 || s.Max < 0 || s.Concurrency < 0 {
		return fmt.Errorf("min is %d, max %d and concurrency %d; none of them can be less than 0", s.Min, s.Max, s.Concurrency)
	}
	if err := validDurations("scale", map[string]time.Duration{"drain": time.Duration(s.Drain), "idle": time.Duration(s.Idle)}); err != nil {
		return err
	}
	if s.delivers() {
		if s.Concurrency > 0 {
			return errors.New("concurrency is for workers that take several records at once; what deliver scales are tries, so say how many with max")
		}
		return s.checkMax(s.Max)
	}
	return s.checkMax(or(s.Max, defaultMaxWorkers))
}

// checkMax refuses a range that is empty; most is 0 where it is not known yet.
func (s *Scale) checkMax(most int) error {
	if most > 0 && s.Min > most {
		return fmt.Errorf("min is %d and max is %d; write `max %d` or more", s.Min, most, s.Min)
	}
	return nil
}

// delivers tells whether the workers are the tries of a delivery.
func (s *Scale) delivers() bool {
	_, ok := s.scaler.(*DeliverScaler)
	return ok
}

// defaultMaxWorkers is the default of Max, as package autoscale has it.
const defaultMaxWorkers = 10

// downAfter is how long fewer workers must have been enough until their number
// is lowered: the default of package autoscale, which `idle` may cut short. Who
// has the last worker go after 5s does not mean to keep it for 30s.
const downAfter = 30 * time.Second

// limits are the bounds and the pace of the decisions. With deliver, own is the
// delivery's concurrency.
func (s *Scale) limits(own int) autoscale.Config {
	c := autoscale.Config{
		Min: s.Min, Max: or(s.Max, defaultMaxWorkers),
		Drain: time.Duration(s.Drain), Idle: time.Duration(s.Idle), Concurrency: s.Concurrency,
	}
	if s.Idle > 0 {
		c.DownAfter = min(time.Duration(s.Idle), downAfter)
	}
	if s.delivers() {
		// A try begins at once, and that there are more or fewer stops nobody.
		c.Lead, c.UpEvery, c.Rebalances = time.Second, time.Second, 100_000
		c.Keyed = true
		c.Min = max(s.Min, 1)
		c.Max = max(or(s.Max, own), c.Min)
	}
	return c
}
