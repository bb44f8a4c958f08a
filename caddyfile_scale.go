package osmosis

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func (a *App) unmarshalScale(d *caddyfile.Dispenser) error {
	scale := new(Scale)
	if err := scale.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
		return err
	}
	for _, other := range a.Scale {
		if other.Topic == scale.Topic && other.Group == scale.Group {
			return d.Errf("scale %s %s is given twice; put all of it into one block", scale.Topic, scale.Group)
		}
	}
	a.Scale = append(a.Scale, scale)
	return nil
}

// UnmarshalCaddyfile reads how the workers of a topic follow its load. Syntax:
//
//	scale <topic> <group> {
//		min         <n>
//		max         <n>
//		drain       <duration>
//		idle        <duration>
//		concurrency <n>
//		dry_run
//		<scaler> …
//	}
//
// The scaler is a module of the namespace osmosis.scalers with its own syntax,
// such as [ProcessScaler.UnmarshalCaddyfile].
func (s *Scale) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	if err := texts("<topic> <group>", &s.Topic, &s.Group)(d); err != nil {
		return err
	}
	if err := validTopic(s.Topic); err != nil {
		return d.WrapErr(err)
	}
	return s.unmarshalBlock(d)
}

func (s *Scale) unmarshalBlock(d *caddyfile.Dispenser) error {
	known := options{
		"min":         numberFrom(0, &s.Min),
		"max":         number(&s.Max),
		"drain":       duration(&s.Drain),
		"idle":        duration(&s.Idle),
		"concurrency": number(&s.Concurrency),
		"dry_run": func(d *caddyfile.Dispenser) error {
			s.DryRun = true
			return noArguments(d)
		},
	}
	for _, module := range caddy.GetModules(scalers) {
		known[module.ID.Name()] = s.unmarshalScaler
	}
	return known.read(d, "scale")
}

// scalers is the namespace of the modules that run workers.
const scalers = "osmosis.scalers"

func (s *Scale) unmarshalScaler(d *caddyfile.Dispenser) error {
	name := d.Val()
	if s.ScalerRaw != nil {
		return d.Errf("a second scaler, %s; workers are run in one way", name)
	}
	scaler, err := caddyfile.UnmarshalModule(d, scalers+"."+name)
	if err != nil {
		return err
	}
	s.ScalerRaw = caddyconfig.JSONModuleObject(scaler, "type", name, nil)
	return nil
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Scale)(nil)
