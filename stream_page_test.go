package osmosis

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/record"
)

func TestPage(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		path := s.path(c)
		s.reply(c, record.Reply{Body: []byte("secret of a reply"), More: true})
		a := s.get(path, "Accept", "text/html,application/xhtml+xml,*/*;q=0.8").want(t, http.StatusOK, "<!doctype html>", "EventSource")
		if strings.Contains(a.body, "secret") || strings.Contains(a.body, c.ID) {
			t.Error("something of the stream is on the page")
		}
		if got := a.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
			t.Errorf("Content-Type %q", got)
		}
		if head := s.do(http.MethodHead, path, "Accept", "text/html").want(t, http.StatusOK); head.body != "" {
			t.Errorf("HEAD gave %q", head.body)
		}

		// Without scripts the page asks again, and is held a little where nothing is known.
		reloads := regexp.MustCompile(`<noscript><meta http-equiv="refresh" content="\d+;url=(\?[^"]+)"></noscript>`).FindStringSubmatch(a.body)
		if reloads == nil {
			t.Fatal("the page does not reload without scripts")
		}
		at := s.reply(c, record.Reply{Body: []byte("done")})
		for _, query := range []string{"", reloads[1]} {
			a = s.get(path+query, "Accept", "text/html").want(t, http.StatusSeeOther)
			if want := path + "/result?last-event-id=" + at.String() + "-end"; a.Header.Get("Location") != strings.TrimPrefix(want, defaultStreams+"/") {
				t.Errorf("Location %q", a.Header.Get("Location"))
			}
			to, err := a.Location()
			if err != nil {
				t.Fatal(err)
			}
			if a := s.get(to.RequestURI(), "Accept", "text/html").want(t, http.StatusOK); a.body != "done" {
				t.Errorf("%q", a.body)
			}
		}
		s.cut()
		begun := time.Now()
		s.get(s.path(c), "Accept", "text/html")
		if took := time.Since(begun); took > glance {
			t.Errorf("the page took %s", took)
		}
	})
}

// The policy lets the page's own script and style run, and nothing that could
// get into it besides: no other source, no handler in an attribute.
func TestPagePolicy(t *testing.T) {
	for element, directive := range map[string]string{"script": "script-src", "style": "style-src"} {
		all := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(page, -1)
		if len(all) != 1 {
			t.Fatalf("%d %s elements", len(all), element)
		}
		if want := directive + " '" + sourceHash(all[0][1]) + "'"; !strings.Contains(pagePolicy, want) {
			t.Errorf("%q is not in %q", want, pagePolicy)
		}
	}
	if !strings.HasPrefix(pagePolicy, "default-src 'none'; ") || strings.Contains(pagePolicy, "unsafe") {
		t.Errorf("policy %q", pagePolicy)
	}
	if found := regexp.MustCompile(`(?i)\son\w+\s*=\s*["']|javascript:|innerHTML|style="`).FindString(page); found != "" {
		t.Errorf("the policy forbids %q", found)
	}
	if len(page) > 4096 {
		t.Errorf("the page has %d bytes", len(page))
	}
}
