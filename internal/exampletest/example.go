// Package exampletest runs what stands under examples as its README says, in
// processes of its own: the gateway with the example's Caddyfile, and the
// example's application beside it.
//
//	example := exampletest.New(t, "legacy")
//	app := example.StartApp([]string{example.Build("examples/legacy")}, "LEGACY_ADDRESS="+example.App)
//	gateway := example.StartGateway()
//
// The Caddyfile is taken as it stands, but for the ports of the site, of the
// application and of Caddy's admin endpoint: tests run beside whatever else runs.
//
// # Concurrency
//
// The methods of an Example are for the test's own goroutine, those of a Process
// for any.
package exampletest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where the examples' Caddyfiles have the site, the application if they have one,
// and Caddy's admin endpoint if they say.
const (
	sitePort  = "localhost:8080"
	appPort   = "localhost:8081"
	adminPort = "localhost:2019"
)

// Example is one of the examples, with data and addresses of its own.
type Example struct {
	t         testing.TB
	folder    string
	caddyfile string
	gateway   string // the program

	// Site is the address of the site, App that of the application.
	Site, App string
}

// New prepares the example of that name, and builds the gateway.
func New(t testing.TB, name string) *Example {
	t.Helper()
	e := &Example{t: t, folder: t.TempDir(), Site: named(FreeAddress(t)), App: named(FreeAddress(t))}
	text, err := os.ReadFile(filepath.Join(Repository(), "examples", name, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), sitePort) {
		t.Fatalf("the Caddyfile of the example does not name %s", sitePort)
	}
	admin := FreeAddress(t)
	site := strings.NewReplacer(sitePort, e.Site, appPort, e.App, adminPort, admin).Replace(string(text))
	own := fmt.Sprintf("{\n\tadmin %s\n\tosmosis {\n\t\tembedded {\n\t\t\tlisten %s\n\t\t}\n\t}\n", admin, FreeAddress(t))
	if before, rest, ok := strings.Cut(site, "\n{\n"); ok { // it has global options
		site = before + "\n" + own + rest
	} else {
		site = own + "}\n" + site
	}
	e.caddyfile = filepath.Join(e.folder, "Caddyfile")
	if err := os.WriteFile(e.caddyfile, []byte(site), 0o600); err != nil {
		t.Fatal(err)
	}
	e.gateway = Gateway(t, e.folder)
	return e
}

// URL is a page of the site.
func (e *Example) URL(path string) string { return "http://" + e.Site + path }

// Build compiles a program of this repository and gives the file.
func (e *Example) Build(program string, flags ...string) string {
	e.t.Helper()
	return Build(e.t, e.folder, program, flags...)
}

// StartGateway runs the gateway until the test ends it, and waits until its site
// answers. Started again it finds the data that it had.
func (e *Example) StartGateway() *Process {
	e.t.Helper()
	p := Start(e.t, "the gateway", []string{e.gateway, "run", "--config", e.caddyfile},
		"XDG_DATA_HOME="+e.folder, "XDG_CONFIG_HOME="+e.folder, "HOME="+e.folder,
		"GOCACHE="+goEnv(e.t, "GOCACHE"), "GOMODCACHE="+goEnv(e.t, "GOMODCACHE")) // for workers that it starts by `go run`
	p.AwaitSite(e.URL("/"))
	return p
}

// StartApp runs the application, with environment besides the test's own, and
// waits until it listens at App.
func (e *Example) StartApp(command []string, environment ...string) *Process {
	e.t.Helper()
	p := Start(e.t, "the application", command, environment...)
	p.await("it listens", func() error {
		conn, err := net.Dial("tcp", e.App)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return p
}
