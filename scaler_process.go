package osmosis

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/osmosis-gateway/caddy-osmosis/autoscale"
)

func init() {
	caddy.RegisterModule(new(ProcessScaler))
}

// ProcessScaler runs workers as child processes of the gateway. Each finds
// what it is for in its environment: OSMOSIS_KAFKA, OSMOSIS_TOPIC,
// OSMOSIS_GROUP and OSMOSIS_WORKER, its number from 0. One that ends is started
// again after a pause; what it prints goes into Caddy's log. Its standard input
// ends when the gateway is gone.
type ProcessScaler struct {
	// Command is the program and its arguments. The working directory is
	// Caddy's. Required.
	Command []string `json:"command"`
}

// CaddyModule returns the Caddy module information.
func (*ProcessScaler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "osmosis.scalers.process",
		New: func() caddy.Module { return new(ProcessScaler) },
	}
}

// Validate refuses a scaler that has nothing to run.
func (p *ProcessScaler) Validate() error {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return errors.New("process scaler: no command; write how to run a worker, such as `process ./worker`")
	}
	return nil
}

// UnmarshalCaddyfile reads the scaler. Syntax:
//
//	process <command> <argument…>
func (p *ProcessScaler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	p.Command = d.RemainingArgs()
	if len(p.Command) == 0 || p.Command[0] == "" {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("process takes no block; write the command and its arguments on one line")
	}
	return nil
}

// Crew gives local processes for a job.
func (p *ProcessScaler) Crew(job autoscale.Job) (string, func() autoscale.Crew) {
	key := fmt.Sprintf("process %q %q %q %q %s", job.Kafka, job.Topic, job.Group, p.Command, job.Grace)
	return key, func() autoscale.Crew { return autoscale.NewProcesses(job, p.Command) }
}

// Interface guards
var (
	_ caddy.Validator       = (*ProcessScaler)(nil)
	_ caddyfile.Unmarshaler = (*ProcessScaler)(nil)
	_ Scaler                = (*ProcessScaler)(nil)
)
