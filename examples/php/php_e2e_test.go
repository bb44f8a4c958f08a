//go:build e2e

// Package php_test runs the PHP example as its README says.
package php_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// site is the example.
type site struct {
	*exampletest.Example
	t *testing.T
}

// php starts PHP, which takes so many seconds over a line.
func (s site) php(pause string) *exampletest.Process {
	s.t.Helper()
	if _, err := exec.LookPath("php-cgi"); err != nil {
		s.t.Fatalf("%v: install PHP as a FastCGI program (Debian: apt-get install php-cgi)", err)
	}
	return s.StartApp([]string{"php-cgi", "-b", s.App}, "IMPORT_PAUSE="+pause)
}

// get gives status and body of a page.
func (s site) get(url string, header ...string) (*http.Response, string) {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do(request, header...)
}

// upload posts a file as the form does.
func (s site) upload(field, content string, header ...string) (*http.Response, string) {
	s.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile(field, "<orders>.csv")
	if err != nil {
		s.t.Fatal(err)
	}
	_, _ = io.WriteString(file, content)
	form.Close()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.URL("/import"), &body)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", form.FormDataContentType())
	return s.do(request, header...)
}

func (s site) do(request *http.Request, header ...string) (*http.Response, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(request.Context(), time.Minute)
	defer cancel()
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request.WithContext(ctx))
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response, string(body)
}

// check checks PHP's own page: what was imported, from whom, for which host.
func (s site) check(response *http.Response, page string, sums ...string) {
	s.t.Helper()
	sent := fmt.Sprintf("<p>&lt;orders&gt;.csv, sent to %s from ", s.Site)
	if kind := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || kind != "text/html; charset=utf-8" || !strings.Contains(page, sent) {
		s.t.Errorf("%s, %s:\n%s\nwant %s", response.Status, kind, page, sent)
	}
	table := page[max(strings.Index(page, "<table>"), 0):]
	for _, sum := range sums {
		name, amount, _ := strings.Cut(sum, "=")
		row := fmt.Sprintf("<tr><td>%s</td><td>%s</td></tr>", name, amount)
		if strings.Count(table, row) != 1 {
			s.t.Errorf("the table lacks %s: %s", row, table)
		}
	}
}

// TestThePHPExample has PHP answer through the queue, and everything that is not
// queued past it: pages, files, and what is wrong.
func TestThePHPExample(t *testing.T) {
	s := site{exampletest.New(t, "php"), t}
	s.php("0")
	s.StartGateway()
	for path, want := range map[string]string{"/": "<form ", "/import": "<form ", "/import.css": "color-scheme"} {
		if response, body := s.get(s.URL(path)); response.StatusCode != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %s: %s", path, response.Status, body)
		}
	}
	const lines = 10_000
	response, page := s.upload("file", strings.Repeat("tea,3\r\n\"flat <white>\",4\n", lines), "Prefer", "wait=50")
	s.check(response, page, fmt.Sprintf("tea=%d", 3*lines), fmt.Sprintf("flat &lt;white&gt;=%d", 4*lines))

	response, page = s.upload("another", "tea,3\n", "Prefer", "wait=50")
	if response.StatusCode != http.StatusBadRequest || !strings.Contains(page, "There is no file.") {
		t.Errorf("without a file: %s: %s", response.Status, page)
	}
}

// TestThePHPExampleIsTriedAgain kills PHP in the middle of an import and starts it
// again: the import is done, and its client has not had to ask twice.
func TestThePHPExampleIsTriedAgain(t *testing.T) {
	s := site{exampletest.New(t, "php"), t}
	slow := s.php("100")
	s.StartGateway()
	response, body := s.upload("file", "tea,3\ncake,4\ntea,2\n")
	if response.StatusCode != http.StatusAccepted {
		t.Fatalf("%s: %s", response.Status, body)
	}
	stream := s.URL(response.Header.Get("Location"))
	_, state := s.get(stream, "Accept", "application/json")
	for !strings.Contains(state, `"delivering"`) {
		response, state = s.get(stream, "Accept", "application/json", "Prefer", "wait=20", "If-None-Match", response.Header.Get("ETag"))
		if response.StatusCode != http.StatusOK {
			t.Fatalf("no try within the time: %s", response.Status)
		}
	}
	slow.Kill()
	s.php("0")
	response, page := s.get(stream+"/result", "Prefer", "wait=50")
	s.check(response, page, "cake=4", "tea=5")
	_, state = s.get(stream, "Accept", "application/json")
	if !strings.Contains(state, `"attempts":2`) {
		t.Errorf("not tried twice: %s", state)
	}
}
