package osmosis

import (
	"errors"
	"fmt"
	"time"

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
//
// With several gateways, the workers run beside the one that decides. When it is
// gone, or cannot reach the broker, another one starts its own.
type ProcessScaler struct {
	// Command is the program and its arguments. The working directory is
	// Caddy's. Required.
	Command []string `json:"command"`

	// GracePeriod is how long a worker that is told to stop may take before it
	// is killed: to finish what it works on and to leave its group. Default: 10s.
	GracePeriod caddy.Duration `json:"grace_period,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*ProcessScaler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "osmosis.scalers.process",
		New: func() caddy.Module { return new(ProcessScaler) },
	}
}

// Validate refuses a scaler that has nothing to run, or no time to end it.
func (p *ProcessScaler) Validate() error {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return errors.New("process scaler: no command; write how to run a worker, such as `process ./worker`")
	}
	return validDurations("process scaler", map[string]time.Duration{"grace_period": time.Duration(p.GracePeriod)})
}

// UnmarshalCaddyfile reads the scaler. Syntax:
//
//	process <command> <argument…> {
//		grace_period <duration>
//	}
func (p *ProcessScaler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if p.Command = d.RemainingArgs(); len(p.Command) == 0 || p.Command[0] == "" {
		return d.Errf("process takes a command; write: process <command> <argument…>")
	}
	return options{
		"grace_period": duration(&p.GracePeriod),
	}.read(d, "process")
}

// Crew gives local processes for a job.
func (p *ProcessScaler) Crew(job autoscale.Job) (string, func() autoscale.Crew) {
	job.Grace = time.Duration(p.GracePeriod)
	key := fmt.Sprintf("process %q %q %q %q %s", job.Kafka, job.Topic, job.Group, p.Command, job.Grace)
	return key, func() autoscale.Crew { return autoscale.NewProcesses(job, p.Command) }
}

// Interface guards
var (
	_ caddy.Validator       = (*ProcessScaler)(nil)
	_ caddyfile.Unmarshaler = (*ProcessScaler)(nil)
	_ Scaler                = (*ProcessScaler)(nil)
)
