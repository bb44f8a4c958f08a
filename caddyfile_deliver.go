package osmosis

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterDirective("osmosis_deliver", parseDeliverDirective)
	httpcaddyfile.RegisterDirectiveOrder("osmosis_deliver", httpcaddyfile.Before, "invoke")
}

// deliverOptions are the options of a deliver block, whose names no directive has.
func deliverOptions(d *Deliver) options {
	return options{
		"attempts":     number(&d.Attempts),
		"timeout":      duration(&d.Timeout),
		"drain":        duration(&d.Drain),
		"concurrency":  number(&d.Concurrency),
		"dead_letter":  text(&d.DeadLetter, "<topic>|off"),
		"max_response": size(&d.MaxResponse),
		"retry_started": func(dispenser *caddyfile.Dispenser) error {
			d.RetryStarted = true
			return noArguments(dispenser)
		},
		"backoff": func(dispenser *caddyfile.Dispenser) error {
			return durations(&d.BackoffMin, &d.BackoffMax)(dispenser)
		},
	}
}

// noArguments reads none.
func noArguments(d *caddyfile.Dispenser) error {
	name := d.Val()
	if d.NextArg() {
		return d.Errf("%s takes no argument, found %q", name, d.Val())
	}
	return nil
}

// durations reads two of them, the first no longer than the second.
func durations(least, most *caddy.Duration) option {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var values [2]string
		if err := texts("<min> <max>", &values[0], &values[1])(d); err != nil {
			return err
		}
		for i, target := range []*caddy.Duration{least, most} {
			parsed, err := caddy.ParseDuration(values[i])
			if err != nil || parsed <= 0 {
				return d.Errf("%q is no duration for %s; write one of more than zero, such as 500ms, 10s, 12h or 7d", values[i], name)
			}
			*target = caddy.Duration(parsed)
		}
		if *least > *most {
			return d.Errf("%s goes from %s to %s; write the shorter one first", name, values[0], values[1])
		}
		return nil
	}
}

// notDelivered are the directives that mean nothing to a request that comes
// from a topic, because they are about a server, a site or a queue.
func notDelivered(directive string) bool {
	switch directive {
	case "log", "tls", "bind", "handle_errors":
		return true
	}
	return strings.HasPrefix(directive, "osmosis")
}

// deliverBlock reads a block that mixes the options of a delivery with the
// directives that answer. Syntax:
//
//	deliver [<group>] {
//		attempts     <n>
//		backoff      <min> <max>
//		timeout      <duration>
//		drain        <duration>
//		concurrency  <n>
//		dead_letter  <topic>|off
//		max_response <size>
//		retry_started
//		<any HTTP directive>
//	}
//
// Directives keep the place in the file that they have, so that an error in one
// of them names its line.
func deliverBlock(h httpcaddyfile.Helper, target **Deliver) option {
	return func(d *caddyfile.Dispenser) error {
		if *target != nil {
			return d.Errf("deliver is given twice; keep one")
		}
		*target = new(Deliver)
		inner := caddyfile.NewDispenser(d.NextSegment())
		inner.Next()
		if err := optionalText(&(*target).Group, "[<group>]")(inner); err != nil {
			return err
		}
		return readDeliver(h, inner, *target, "deliver")
	}
}

// readDeliver reads the block; the dispenser stands before it.
func readDeliver(h httpcaddyfile.Helper, d *caddyfile.Dispenser, target *Deliver, block string) error {
	known := deliverOptions(target)
	given := make(map[string]bool)
	name := d.Token()
	directives := []caddyfile.Token{{File: name.File, Line: name.Line, Text: block}, {File: name.File, Line: name.Line, Text: "{"}}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		word := d.Val()
		parse, ok := known[word]
		if !ok {
			if notDelivered(word) {
				return d.Errf("%s has no place inside %s; it takes the directives that answer a request, and %s", word, block, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			}
			directives = append(directives, d.NextSegment()...)
			continue
		}
		if given[word] {
			return d.Errf("%s is given twice in the %s block; keep one", word, block)
		}
		given[word] = true
		if err := parse(d); err != nil {
			return err
		}
	}
	if len(directives) == 2 {
		return d.Errf("%s has nothing that answers; write a directive into its block, such as reverse_proxy", block)
	}
	directives = append(directives, caddyfile.Token{File: name.File, Line: directives[len(directives)-1].Line + 1, Text: "}"})
	handler, err := httpcaddyfile.ParseSegmentAsSubroute(h.WithDispenser(caddyfile.NewDispenser(directives)))
	if err != nil {
		return err
	}
	target.Routes = handler.(*caddyhttp.Subroute).Routes
	return nil
}

// parseDeliverDirective reads an osmosis_deliver directive. Syntax:
//
//	osmosis_deliver <topic> <group> {
//		… as in deliver
//	}
func parseDeliverDirective(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	h.Next() // the directive's name
	handler := new(DeliverHandler)
	if err := texts("<topic> <group>", &handler.Topic, &handler.Group)(h.Dispenser); err != nil {
		return nil, err
	}
	if err := validTopic(handler.Topic); err != nil {
		return nil, h.WrapErr(err)
	}
	if err := readDeliver(h, h.Dispenser, &handler.Deliver, "osmosis_deliver"); err != nil {
		return nil, err
	}
	return h.NewRoute(nil, handler), nil
}
