package osmosis

import (
	"net/http"
	"testing"

	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
	"github.com/osmosis-gateway/caddy-osmosis/record"
)

// A request is cancelled once, as long as it has not ended; its stream says so,
// and those who deliver are told.
func TestCancel(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		c := s.accept()
		l := s.listen(s.path(c))
		for range 2 {
			s.do(http.MethodDelete, s.path(c)).want(t, http.StatusOK, `"status":"cancelled"`)
		}
		if e := l.next(); e == nil || e.name != "end" || e.data != `{"status":"cancelled","reason":"called off by its client"}` {
			t.Errorf("%+v", e)
		}
		l.ends()
		s.get(s.path(c)+"/result").want(t, http.StatusGone, "cancelled")
		s.get(s.path(c), "Accept", "application/json").want(t, http.StatusOK, `"status":"cancelled"`)
		if got := (&storefront{gateway: s}).stored(controlTopic); len(got) != 1 || string(got[0].Key) != c.ID {
			t.Errorf("%+v", got)
		}

		under := s.accept()
		s.reply(under, record.Reply{State: record.StateDelivering, Body: []byte(`{"attempt":1}`)})
		s.do(http.MethodDelete, s.path(under)).want(t, http.StatusOK, `"was":"delivering"`)
		s.reply(under, record.Reply{Body: []byte("too late")})
		s.get(s.path(under)+"/result").want(t, http.StatusGone)

		done := s.accept()
		s.reply(done, record.Reply{Body: []byte("done")})
		s.do(http.MethodDelete, s.path(done)).want(t, http.StatusConflict, "replied")
		s.get(s.path(done)+"/result").want(t, http.StatusOK)
	})
}

// What is not the one who asked cannot cancel, nor can anybody while the broker
// is away.
func TestCancelRefused(t *testing.T) {
	virtually(t, func(t *testing.T, s *gateway) {
		owned := s.accept(func(c *hub.Claims) { c.Bind, c.BindHash = "{test.user}", s.app.keys.BindHash(c.ID, "ada") })
		s.do(http.MethodDelete, s.path(owned), "User", "eve").want(t, http.StatusForbidden)
		s.do(http.MethodDelete, s.path(owned)).want(t, http.StatusUnauthorized)
		c := s.accept()
		s.do(http.MethodDelete, s.path(c)+"/result").want(t, http.StatusMethodNotAllowed)
		s.do(http.MethodDelete, s.path(c)[:len(s.path(c))-1]).want(t, http.StatusNotFound)
		s.cut()
		s.do(http.MethodDelete, s.path(c)).want(t, http.StatusServiceUnavailable, "may have been cancelled or not")
	})
}
