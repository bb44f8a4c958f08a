package osmosis

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// option reads the arguments of one option, and its block where it has one. The
// dispenser stands on the option's name.
type option func(d *caddyfile.Dispenser) error

// options are what a block may hold, by name.
type options map[string]option

// read reads the block that follows, if there is one. An option may be given
// once, except those named in repeats; what is not among the options is
// refused, and so is a block behind an option that has none.
func (o options) read(d *caddyfile.Dispenser, block string, repeats ...string) error {
	given := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := o[name]
		if !ok {
			return d.Errf("unknown option %q in the %s block; it takes %s", name, block, strings.Join(slices.Sorted(maps.Keys(o)), ", "))
		}
		if given[name] && !slices.Contains(repeats, name) {
			return d.Errf("%s is given twice in the %s block; keep one", name, block)
		}
		given[name] = true
		if err := parse(d); err != nil {
			return err
		}
		if opensBlock(d) {
			return d.Errf("%s takes no block; close the line after its arguments", name)
		}
	}
	return nil
}

// opensBlock tells whether an opening brace is next on the line. All arguments
// have been read by then, so that a quoted brace cannot be meant.
func opensBlock(d *caddyfile.Dispenser) bool {
	line := d.Line()
	if !d.Next() {
		return false
	}
	defer d.Prev()
	return d.Val() == "{" && d.Line() == line
}

// texts reads exactly one argument for every target, none of them empty. Usage
// is what the error shows behind the option's name.
func texts(usage string, targets ...*string) option {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if !d.AllArgs(targets...) {
			return d.Errf("wrong number of arguments for %s; write: %s %s", name, name, usage)
		}
		for _, target := range targets {
			if *target == "" {
				return d.Errf("an empty argument for %s; write: %s %s", name, name, usage)
			}
		}
		return nil
	}
}

// text reads one argument.
func text(target *string, usage string) option {
	return texts(usage, target)
}

// optionalText reads one argument or none.
func optionalText(target *string, usage string) option {
	return func(d *caddyfile.Dispenser) error {
		if d.CountRemainingArgs() == 0 {
			return nil
		}
		return text(target, usage)(d)
	}
}

// words reads one argument or more.
func words(target *[]string, usage string) option {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		*target = d.RemainingArgs()
		if len(*target) == 0 {
			return d.Errf("wrong number of arguments for %s; write: %s %s", name, name, usage)
		}
		if slices.Contains(*target, "") {
			return d.Errf("an empty argument for %s; write: %s %s", name, name, usage)
		}
		return nil
	}
}

// duration reads a duration of more than zero. Zero would be taken for an
// absent value further on, and so for the default.
func duration(target *caddy.Duration) option {
	return func(d *caddyfile.Dispenser) error {
		name, value := d.Val(), ""
		if err := text(&value, "<duration>")(d); err != nil {
			return err
		}
		parsed, err := caddy.ParseDuration(value)
		if err != nil || parsed <= 0 {
			return d.Errf("%q is no duration for %s; write one of more than zero, such as 500ms, 10s, 12h or 7d", value, name)
		}
		*target = caddy.Duration(parsed)
		return nil
	}
}

// number reads an integer of at least one, for the same reason as duration.
func number(target *int) option { return numberFrom(1, target) }

// numberFrom reads an integer of at least a first one, and of at most 32 bits,
// which is what Kafka's protocol has room for.
func numberFrom(first int, target *int) option {
	return func(d *caddyfile.Dispenser) error {
		name, value := d.Val(), ""
		if err := text(&value, "<n>")(d); err != nil {
			return err
		}
		parsed, err := strconv.ParseInt(value, 10, 32)
		if err != nil || int(parsed) < first {
			return d.Errf("%q is no number for %s; write an integer from %d to %d", value, name, first, math.MaxInt32)
		}
		*target = int(parsed)
		return nil
	}
}

// size reads a number of bytes of at least one, in people's units.
func size(target *int64) option {
	return func(d *caddyfile.Dispenser) error {
		name, value := d.Val(), ""
		if err := text(&value, "<size>")(d); err != nil {
			return err
		}
		parsed, err := humanize.ParseBytes(value)
		if err != nil || parsed < 1 || parsed > math.MaxInt64 {
			return d.Errf("%q is no size for %s; write one such as 512KiB, 1MiB or 20MB", value, name)
		}
		*target = int64(parsed)
		return nil
	}
}
