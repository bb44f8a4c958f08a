package osmosis

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/deliver"
	"github.com/osmosis-gateway/caddy-osmosis/internal/hub"
)

// site has Caddy run one site of these directives, with these global options.
func (h *house) site(options, directives string) {
	h.t.Helper()
	h.run(fmt.Sprintf("{\n%s\n%s\n}\nhttp://localhost {\nbind unix/%s\n%s\n}\n", h.options(), options, h.socket(), directives))
}

// What the Caddyfile says of a delivery arrives in it.
func TestDeliverOptionsThroughCaddy(t *testing.T) {
	h := newHouse(t)
	kafka := h.kafka().ListenAddrs()[0]
	serve := func(options string) deliver.Options {
		t.Helper()
		h.site("osmosis {\n\t\tkafka "+kafka+"\n\t}", "osmosis /orders orders {\n\t\tdeliver {\n"+options+"\n\t\t\trespond ok\n\t\t}\n\t}")
		o, ok := only[*delivery](t, deliveries).holds()
		if !ok {
			t.Fatal("nothing is said of the delivery")
		}
		return o
	}
	o := serve("")
	if o.DeadLetter != "orders.dlq" || o.Timeout != 5*time.Minute || o.Drain != 25*time.Second || o.Attempts != 10 ||
		o.BackoffMin != time.Second || o.BackoffMax != time.Minute || o.MaxResponse != 64<<20 || o.RetryStarted {
		t.Errorf("by default %+v", o)
	}
	o = serve("dead_letter off\ntimeout 7s\ndrain 40s\nattempts 3\nbackoff 2s 5s\nmax_response 1KiB\nretry_started\nconcurrency 9")
	if o.DeadLetter != "" || o.Timeout != 7*time.Second || o.Drain != 40*time.Second || o.Attempts != 3 ||
		o.BackoffMin != 2*time.Second || o.BackoffMax != 5*time.Second || o.MaxResponse != 1<<10 || !o.RetryStarted || o.Concurrency != 9 {
		t.Errorf("%+v", o)
	}
	if o = serve("dead_letter dead"); o.DeadLetter != "dead" {
		t.Errorf("%+v", o)
	}
}

// What a request waits for is the progress of the route's group: the one that is
// named, or that of its deliver, or the one named as the topic.
func TestGroupThroughCaddy(t *testing.T) {
	h := newHouse(t)
	kafka := h.kafka().ListenAddrs()[0]
	open := func(location string) hub.Claims {
		t.Helper()
		secret, err := os.ReadFile(filepath.Join(h.storage(), keyPath))
		if err != nil {
			t.Fatal(err)
		}
		keys, err := hub.NewKeyring(string(secret))
		if err != nil {
			t.Fatal(err)
		}
		c, err := keys.Open(location[strings.LastIndex(location, "/")+1:])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for options, want := range map[string]string{
		"":                                "orders",
		"group billing":                   "billing",
		"deliver {\nrespond ok\n}":        "orders",
		"deliver inside {\nrespond ok\n}": "inside",
		"group b\ndeliver inside {\nrespond ok\n}": "b",
	} {
		h.site("osmosis {\n\t\tkafka "+kafka+"\n\t}", "osmosis /orders orders {\n"+options+"\n}")
		location := h.do("POST", "/orders", "Prefer", "respond-async").want(t, 202).Header.Get("Location")
		if got := open(location).Group; got != want {
			t.Errorf("%q: group %q, want %q", options, got, want)
		}
	}
}

// Directives inside deliver see the client that the site has seen: behind proxies
// that it trusts, and not what a client says of itself.
func TestClientIPInsideDeliver(t *testing.T) {
	h := newHouse(t)
	h.site(`servers {
		trusted_proxies static 10.0.0.0/8
		trusted_proxies_strict
		trusted_proxies_unix
	}
	osmosis {
		kafka `+h.kafka().ListenAddrs()[0]+`
	}`, `osmosis /orders orders {
		wait 30s
		deliver {
			@known {
				client_ip 203.0.113.0/24
				remote_ip 203.0.113.0/24
			}
			respond @known "known {client_ip} at {remote_host}"
			respond "stranger {client_ip} at {remote_host}"
		}
	}`)
	for forwarded, want := range map[string]string{
		"203.0.113.7":               "known 203.0.113.7 at 203.0.113.7",
		"203.0.113.8, 10.0.0.1":     "known 203.0.113.8 at 203.0.113.8",
		"198.51.100.7":              "stranger 198.51.100.7 at 198.51.100.7",
		"203.0.113.7, 198.51.100.8": "stranger 198.51.100.8 at 198.51.100.8",
	} {
		if got := h.do("POST", "/orders", "X-Forwarded-For", forwarded).want(t, 200).body; got != want {
			t.Errorf("from %s: %q, want %q", forwarded, got, want)
		}
	}
}
