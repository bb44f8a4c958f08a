//go:build e2e

// Package burst_test runs the example as its README says.
package burst_test

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/browsertest"
	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// patience bounds every wait of these tests. It is long because it is no
// promise: machines that build and test at once are slow.
const patience = 4 * time.Minute

// TestTheBurstExampleInRealChromium floods the example while its page is open.
// Nothing is lost, there was more than one worker, and none is left at the end.
func TestTheBurstExampleInRealChromium(t *testing.T) {
	e := exampletest.New(t, "burst")
	flood := e.Build("examples/burst/flood")
	gateway := e.StartGateway()
	b := browsertest.New(t)
	b.Do(chromedp.Navigate(e.URL("/")))
	b.Await("no workers", `document.querySelector("#running").textContent === "0"`)

	const requests = 500
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, flood, "-site", "http://"+e.Site, "-requests", strconv.Itoa(requests), "-seconds", "8")
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b.Await("workers", `Number(document.querySelector("#running").textContent) > 1`)
	b.Await("the reason", `document.querySelector("#reason").textContent.includes("for inflow")`)
	err := cmd.Wait()
	t.Logf("flood printed:\n%s", out)
	if err != nil {
		t.Errorf("flood: %v", err)
	}
	if want := fmt.Sprintf("jobs: %d accepted, 0 refused, %[1]d replied, 0 lost;", requests); !strings.Contains(out.String(), want) {
		t.Errorf("flood does not say %q", want)
	}
	workers := regexp.MustCompile(`workers: (\d+) at most, 0 at the end`).FindStringSubmatch(out.String())
	if workers == nil {
		t.Fatal("flood does not say that no worker is left")
	}
	if most, _ := strconv.Atoi(workers[1]); most < 2 || most > 8 {
		t.Errorf("there were %d workers at most", most)
	}
	// None is wanted any more; what they are at they may finish.
	for began := time.Now(); ; <-time.After(100 * time.Millisecond) {
		printed := gateway.Printed()
		started, stopped := strings.Count(printed, `"worker started"`), strings.Count(printed, `"worker stopped"`)
		if started == stopped {
			break
		}
		if time.Since(began) > time.Minute {
			t.Errorf("%d workers were started and %d stopped", started, stopped)
			break
		}
	}

	// From the page, and from none again.
	b.Await("no workers", `document.querySelector("#running").textContent === "0"`)
	b.Do(chromedp.Click(chromedp.CSS("form button")))
	b.Await("the jobs are queued", `document.querySelector("#posted").textContent === "20 accepted"`)
	b.Await("a worker", `Number(document.querySelector("#running").textContent) > 0`)
	b.Await("all is done", `document.querySelector("#backlog").textContent === "0"`)
}
