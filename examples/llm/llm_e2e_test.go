//go:build e2e

package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/osmosis-gateway/caddy-osmosis/internal/browsertest"
	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

const prompt = "Why put a queue in front of a model?"

// pause makes the model quick for a test, and slow enough that a page which has
// lost its connection comes back before the last word.
const pause = "80ms"

// line is a network between the browser and the gateway that can be cut.
type line struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	conns map[net.Conn]struct{} // both ends of each
	tasks sync.WaitGroup
}

// newLine gives a line to an address, at one of its own.
func newLine(t *testing.T, to string) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{listener: listener, to: to, conns: make(map[net.Conn]struct{})}
	l.tasks.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.cut()
		l.tasks.Wait()
	})
	return l
}

// address is where the line begins, under the name that the site goes by.
func (l *line) address() string {
	_, port, _ := net.SplitHostPort(l.listener.Addr().String())
	return net.JoinHostPort("localhost", port)
}

func (l *line) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.to)
		if err != nil {
			near.Close()
			continue
		}
		l.mu.Lock()
		l.conns[near], l.conns[far] = struct{}{}, struct{}{}
		l.mu.Unlock()
		l.tasks.Go(func() { l.carry(near, far) })
		l.tasks.Go(func() { l.carry(far, near) })
	}
}

// carry copies until either side is closed, and closes both.
func (l *line) carry(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, to)
	delete(l.conns, from)
}

// cut breaks all connections off, and gives how many there were.
func (l *line) cut() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.conns) / 2
	for conn := range l.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset instead of an end
		}
		conn.Close()
	}
	return n
}

// newSite runs the example as its README says.
func newSite(t *testing.T) (e *exampletest.Example, model, gateway *exampletest.Process) {
	t.Helper()
	e = exampletest.New(t, "llm")
	model = e.StartApp([]string{e.Build("examples/llm")}, "LLM_ADDRESS="+e.App, "LLM_PAUSE="+pause)
	return e, model, e.StartGateway()
}

// ask opens the page and asks, and waits for a number of words.
func ask(b *browsertest.Browser, page string, words string) {
	b.Do(chromedp.Navigate(page), chromedp.Click(chromedp.CSS("button")))
	await(b, words)
}

// await waits until so many words stand on the page.
func await(b *browsertest.Browser, words string) {
	b.Await(words+" words", `document.querySelector("#answer").textContent.split(" ").length > `+words)
}

// complete waits for the end, and checks that all of the text stands on the page, once.
func complete(t *testing.T, b *browsertest.Browser) {
	t.Helper()
	b.Await("the end", `document.querySelector("#state").textContent === "complete"`)
	text := b.Evaluate(`document.querySelector("#answer").textContent`)
	if want := strings.Join(answer(prompt), ""); text != want {
		t.Errorf("the page shows %q\nwant %q", text, want)
	}
	t.Logf("%d words on the page; resumed from %q", len(answer(prompt)), b.Resumed())
}

// TestTheLLMExampleOverACutLineInRealChromium cuts the connection in the middle of
// the words, then closes the page and opens it again, and then once more when
// the answer is complete. All of the text stands there, once.
func TestTheLLMExampleOverACutLineInRealChromium(t *testing.T) {
	e, _, _ := newSite(t)
	l := newLine(t, e.Site)
	page := "http://" + l.address() + "/"
	b := browsertest.New(t)
	ask(b, page, "10")
	b.ExpectOutage(true)
	if l.cut() == 0 {
		t.Error("there was no connection to cut")
	}
	b.Await("word of the cut", `document.querySelector("#state").textContent.startsWith("the connection is interrupted")`)
	b.Await("more words", `document.querySelector("#state").textContent === "thinking"`)
	b.ExpectOutage(false)
	await(b, "80")
	if len(b.Resumed()) == 0 {
		t.Error("the browser has not resumed")
	}

	b.Do(chromedp.Navigate("about:blank"))
	b.Do(chromedp.Navigate(page))
	if state := b.Evaluate(`document.querySelector("#state").textContent`); state == "complete" {
		t.Error("the answer was complete too early for this test")
	}
	complete(t, b)

	b.Do(chromedp.Navigate(page))
	complete(t, b)
}

// TestTheLLMExampleOverAKilledGatewayInRealChromium kills the gateway, which is
// also what asks the model, in the middle of the words. The answer is given
// again, and all of it stands on the page, once.
func TestTheLLMExampleOverAKilledGatewayInRealChromium(t *testing.T) {
	e, _, gateway := newSite(t)
	b := browsertest.New(t)
	ask(b, e.URL("/"), "30")
	stream := b.Evaluate(`JSON.parse(localStorage.getItem("talk")).stream`)
	b.ExpectOutage(true)
	gateway.Kill()
	b.Await("word of the kill", `document.querySelector("#state").textContent.startsWith("the connection is interrupted")`)
	e.StartGateway()
	complete(t, b)
	b.ExpectOutage(false)

	// The response that the answer is, as one that was never cut would be.
	response, err := http.Get(e.URL(stream + "/result"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if kind, n, want := response.Header.Get("Content-Type"), strings.Count(string(body), "data: {"), len(answer(prompt)); kind != "text/event-stream" || n != want {
		t.Errorf("/result is %s of %d events, want %d:\n%s", kind, n, want, body)
	}
}

// TestTheLLMExampleStopsInRealChromium stops the answer in the middle of the words,
// and the model with it.
func TestTheLLMExampleStopsInRealChromium(t *testing.T) {
	e, model, _ := newSite(t)
	b := browsertest.New(t)
	ask(b, e.URL("/"), "10")
	b.Do(chromedp.Click(chromedp.CSS("#stop")))
	b.Await("the end", `document.querySelector("#state").textContent === "cancelled" && document.querySelector("#stop").hidden`)
	model.Await("nobody wants to know any more")
}
