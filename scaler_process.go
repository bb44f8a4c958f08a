package osmosis

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
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
// again after a pause; what it prints goes into Caddy's log.
//
// On Unix, workers and the processes that they start end with the gateway, also
// when it is killed: they get SIGTERM, and SIGKILL after the grace period. On other
// systems a killed gateway leaves workers behind that do not end when their standard
// input does.
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

	// Env holds environment variables of the workers. Placeholders such as
	// {file./run/secrets/token} are replaced when the configuration is loaded.
	//
	// Of Caddy's own environment, which may hold secrets, workers get only what
	// every program needs: PATH, HOME, USER, LOGNAME, SHELL, TMPDIR, TMP, TEMP, LANG,
	// LANGUAGE, LC_*, TZ, SSL_CERT_FILE, SSL_CERT_DIR, and on Windows what its
	// programs expect.
	Env map[string]string `json:"env,omitempty"`

	// PassEnv names variables of Caddy's environment that workers get as well. A
	// variable that Caddy does not have is left out.
	PassEnv []string `json:"pass_env,omitempty"`

	environment []string // of Env and PassEnv, as NAME=value
}

// CaddyModule returns the Caddy module information.
func (*ProcessScaler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "osmosis.scalers.process",
		New: func() caddy.Module { return new(ProcessScaler) },
	}
}

// Provision finds the values of environment variables.
func (p *ProcessScaler) Provision(caddy.Context) error {
	p.environment = nil
	for _, name := range p.PassEnv {
		if value, ok := os.LookupEnv(name); ok {
			p.environment = append(p.environment, name+"="+value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		value := p.Env[name]
		if value != "" {
			var err error
			if value, err = expand("process scaler: env "+name, value); err != nil {
				return err
			}
		}
		p.environment = append(p.environment, name+"="+value)
	}
	return nil
}

// Validate refuses a scaler that has nothing to run, or no time to end it.
func (p *ProcessScaler) Validate() error {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return errors.New("process scaler: no command; write how to run a worker, such as `process ./worker`")
	}
	for _, name := range slices.Concat(p.PassEnv, slices.Collect(maps.Keys(p.Env))) {
		if err := validEnv(name); err != nil {
			return fmt.Errorf("process scaler: %w", err)
		}
	}
	return validDurations("process scaler", map[string]time.Duration{"grace_period": time.Duration(p.GracePeriod)})
}

// gatewaysEnv are the variables that the gateway itself sets.
var gatewaysEnv = []string{"OSMOSIS_KAFKA", "OSMOSIS_TOPIC", "OSMOSIS_GROUP", "OSMOSIS_WORKER"}

// validEnv refuses what is no name of a variable, or not the user's to set.
func validEnv(name string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		return fmt.Errorf("env %q: not the name of a variable; write `env <name>` or `env <name> <value>`", name)
	}
	if slices.Contains(gatewaysEnv, name) {
		return fmt.Errorf("env %s: set by the gateway; choose another name", name)
	}
	return nil
}

// UnmarshalCaddyfile reads the scaler. Syntax:
//
//	process <command> <argument…> {
//		grace_period <duration>
//		env          <name> [<value>]
//	}
//
// Without a value, env passes a variable of Caddy's environment on. It may be given
// several times.
func (p *ProcessScaler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	if p.Command = d.RemainingArgs(); len(p.Command) == 0 || p.Command[0] == "" {
		return d.Errf("process takes a command; write: process <command> <argument…>")
	}
	return options{
		"grace_period": duration(&p.GracePeriod),
		"env":          p.unmarshalEnv,
	}.read(d, "process", "env")
}

func (p *ProcessScaler) unmarshalEnv(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return d.Errf("wrong number of arguments for env; write: env <name> [<value>]")
	}
	name := args[0]
	if err := validEnv(name); err != nil {
		return d.WrapErr(err)
	}
	if _, given := p.Env[name]; given || slices.Contains(p.PassEnv, name) {
		return d.Errf("env %s is given twice in the process block; keep one", name)
	}
	if len(args) == 1 {
		p.PassEnv = append(p.PassEnv, name)
		return nil
	}
	if p.Env == nil {
		p.Env = make(map[string]string)
	}
	p.Env[name] = args[1]
	return nil
}

// Crew gives local processes for a job.
func (p *ProcessScaler) Crew(job autoscale.Job) (string, func() autoscale.Crew) {
	job.Grace, job.Env = time.Duration(p.GracePeriod), p.environment
	key := fmt.Sprintf("process %q %q %q %q %s %q", job.Kafka, job.Topic, job.Group, p.Command, job.Grace, job.Env)
	return key, func() autoscale.Crew { return autoscale.NewProcesses(job, p.Command) }
}

// Interface guards
var (
	_ caddy.Provisioner     = (*ProcessScaler)(nil)
	_ caddy.Validator       = (*ProcessScaler)(nil)
	_ caddyfile.Unmarshaler = (*ProcessScaler)(nil)
	_ Scaler                = (*ProcessScaler)(nil)
)
