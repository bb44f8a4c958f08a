package osmosis

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

func init() {
	caddy.RegisterModule(new(DeliverScaler))
}

// DeliverScaler sizes the `deliver` of the same topic and group in this process:
// what it takes for workers are tries at once. Each gateway decides for itself,
// by the partitions that it has.
type DeliverScaler struct {
	delivery *delivery // the app sets it when all routes are known
	key      string    // the delivery's in the pool
}

// CaddyModule returns the Caddy module information.
func (*DeliverScaler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "osmosis.scalers.deliver",
		New: func() caddy.Module { return new(DeliverScaler) },
	}
}

// UnmarshalCaddyfile reads the scaler. Syntax:
//
//	deliver
func (*DeliverScaler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if d.NextArg() {
		return d.Errf("deliver takes no argument as a scaler, found %q: it scales the delivery of the same topic and group; write: deliver", d.Val())
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("deliver takes no block as a scaler; min, max and the rest stand beside it: scale { max 64 … deliver }")
	}
	return nil
}

// Crew sizes the delivery that the app has found for it.
func (s *DeliverScaler) Crew(autoscale.Job) (string, func() autoscale.Crew) {
	return "deliver " + s.key, func() autoscale.Crew { return &tries{of: s.delivery} }
}

// find looks for the delivery to size.
func (s *DeliverScaler) find(a *App, topic, group string) error {
	s.key = a.deliveryKey(topic, group)
	s.delivery = a.deliveries[s.key]
	if s.delivery == nil {
		return fmt.Errorf("nothing is delivered here; write `deliver { … }` on a route of %s with the group %s, or `osmosis_deliver %[1]s %[2]s`", topic, group)
	}
	return nil
}

// tries is the Crew of a delivery: its workers are tries at once. All of them
// are within this process, so that it has no lease to lose.
type tries struct {
	of  *delivery
	set atomic.Int64 // how many it was told, 0 for no word yet
}

// Scale has so many tries run at once. There is always one: it costs nothing.
func (t *tries) Scale(o autoscale.Order) {
	n := max(o.Workers, 1)
	t.set.Store(int64(n))
	t.of.SetConcurrency(n)
}

// Release does nothing: no other gateway decides for this one.
func (*tries) Release() {}

// Close leaves the delivery to its configuration.
func (t *tries) Close() { t.of.SetConcurrency(0) }

// Running implements autoscale.Counter.
func (t *tries) Running() int {
	if n := t.set.Load(); n > 0 {
		return int(n)
	}
	return t.of.concurrency()
}

// ownShare has a look tell of what this process delivers, and nothing else.
type ownShare struct {
	autoscale.Source
	tries *tries

	had  []int32 // the partitions it had last
	none int     // looks since then
}

// fewLooks is how many looks a change of the group may take.
const fewLooks = 15

// Next implements autoscale.Source.
func (s *ownShare) Next(ctx context.Context, want autoscale.Want) (autoscale.Measurement, error) {
	m, err := s.Source.Next(ctx, want)
	if err != nil {
		return m, err
	}
	load := s.tries.of.Load()
	m.Members = s.tries.Running()
	m.WorkTime, m.WorkSpread, m.Keys = load.WorkTime, load.WorkSpread, load.Keys
	s.none++
	if len(load.Partitions) > 0 || s.none > fewLooks {
		s.had, s.none = load.Partitions, 0
	} else {
		// Between two generations of the group it has none, for a moment: what it
		// had before is a better guess than nothing at all.
		m.Keys = autoscale.Unknown
	}
	m.Partitions = slices.Clone(m.Partitions) // others look at them too
	for i := range m.Partitions {
		m.Partitions[i].Elsewhere = !slices.Contains(s.had, int32(i)) //nolint:gosec // partition numbers are 32 bits
	}
	return m, nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*DeliverScaler)(nil)
	_ Scaler                = (*DeliverScaler)(nil)
	_ autoscale.Counter     = (*tries)(nil)
	_ autoscale.Source      = (*ownShare)(nil)
)
