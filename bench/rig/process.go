package rig

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// readyTimeout bounds the start of a program under test.
const readyTimeout = 60 * time.Second

// Process is a program under test.
type Process struct {
	// Name is what tables call it.
	Name string
	// Site is where it serves.
	Site netip.AddrPort
	// Admin is where it serves Go's profiles, under /debug/pprof/; empty if it
	// does not.
	Admin string

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	log  string        // file
}

// CaddyPackage is a Caddy with all that is compared inside Caddy: Osmosis, and
// the naive handler beside it, so that they share all but the handler.
const CaddyPackage = "./bench/peers/caddy"

// Caddy starts a Caddy and waits until it serves. global goes into the global
// options, site into the one site.
func (r *Rig) Caddy(ctx context.Context, name, global, site string) (*Process, error) {
	program, err := r.build(ctx, CaddyPackage)
	if err != nil {
		return nil, err
	}
	return r.caddy(ctx, program, name, global, site)
}

// caddy is Caddy with a program that is there.
func (r *Rig) caddy(ctx context.Context, program, name, global, site string) (*Process, error) {
	address, admin, err := twoAddresses()
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(r.folder, "caddy-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for Caddy: %w", err)
	}
	config := filepath.Join(folder, "Caddyfile")
	text := fmt.Sprintf("{\n\tadmin %s\n%s\n}\n\nhttp://%s {\n%s\n}\n", admin, global, address, site)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write a Caddyfile: %w", err)
	}
	cmd := exec.Command(program, "run", "--config", config)
	cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder, "HOME="+folder)
	return r.start(ctx, &Process{Name: name, Site: address, Admin: admin.String(), cmd: cmd})
}

// Peer starts a program of this module that takes -listen and -admin, with
// further arguments, and waits until it serves.
func (r *Rig) Peer(ctx context.Context, name, pkg string, args ...string) (*Process, error) {
	program, err := r.build(ctx, pkg)
	if err != nil {
		return nil, err
	}
	address, admin, err := twoAddresses()
	if err != nil {
		return nil, err
	}
	args = append([]string{"-listen", address.String(), "-admin", admin.String()}, args...)
	return r.start(ctx, &Process{Name: name, Site: address, Admin: admin.String(), cmd: exec.Command(program, args...)})
}

// start runs a prepared process and waits until its site accepts connections.
func (r *Rig) start(ctx context.Context, p *Process) (*Process, error) {
	out, err := os.CreateTemp(r.folder, "log-")
	if err != nil {
		return nil, fmt.Errorf("make a log for %s: %w", p.Name, err)
	}
	defer out.Close() // the child has its own
	p.log, p.done = out.Name(), make(chan struct{})
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = orphan()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // killed at the end
	}()
	r.onEnd(p.kill)
	return p, p.ready(ctx)
}

// Stop ends the process before the end of the run, so that it costs the others nothing.
func (p *Process) Stop() { p.kill() }

func (p *Process) kill() {
	_ = p.cmd.Process.Kill() // its one error says that it has ended already
	<-p.done
}

// ready waits until the site accepts connections.
func (p *Process) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.Site.String())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-pause.C:
		case <-p.done:
			return fmt.Errorf("%s has ended by itself:\n%s", p.Name, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to serve: %w:\n%s", p.Name, err, p.Log())
		}
	}
}

// Log gives what the process has printed.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// Ports are taken from below those from which systems serve outgoing
// connections, of which the benchmarks have thousands, and below kafkatest's.
const (
	firstPort = 10_000
	ports     = 10_000
)

// twoAddresses gives two loopback addresses that nobody listens on.
func twoAddresses() (a, b netip.AddrPort, err error) {
	var found []netip.AddrPort
	const tries = 100
	for range tries {
		address := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(firstPort+rand.IntN(ports))) //nolint:gosec // below 65,536
		l, listenErr := net.Listen("tcp", address.String())
		if listenErr != nil {
			err = listenErr
			continue
		}
		defer l.Close()
		if found = append(found, address); len(found) == 2 {
			return found[0], found[1], nil
		}
	}
	return a, b, fmt.Errorf("find a free address: %w", err)
}
