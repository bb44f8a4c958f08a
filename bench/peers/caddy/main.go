// Command caddy is Caddy with all that the benchmarks compare inside it:
// Osmosis, the naive handler, a site that is a handler, and Caddy's own `respond`.
// One program for all keeps everything equal but the handler.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/osmosis-gateway/caddy-osmosis"
	_ "github.com/osmosis-gateway/caddy-osmosis/bench/peers/inside"
	_ "github.com/osmosis-gateway/caddy-osmosis/bench/peers/naive"
)

func main() { caddycmd.Main() }
