// Command osmosis is Caddy with its standard modules and Osmosis. It takes
// Caddy's own commands: run, start, stop, reload, adapt, validate, fmt.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/osmosis-gateway/caddy-osmosis"
)

func main() { caddycmd.Main() }
