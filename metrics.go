package osmosis

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/osmosis-gateway/caddy-osmosis/internal/ingress"
)

// The collectors are those of the process, as what they count outlives a
// configuration: each configuration's registry gets the same ones. Their labels
// are what the configuration names, never what a client sends.
var (
	requestsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "osmosis", Name: "requests_total",
		Help: "Requests that came to be queued, by what became of them: queued; refused, with nothing queued; unclear, when the broker did not answer in time.",
	}, []string{"topic", "outcome"})
	queueSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "osmosis", Name: "queue_duration_seconds",
		Help:    "How long it took until the broker had a request's record.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // half a millisecond to eight seconds
	}, []string{"topic"})
	streamsOpen = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "osmosis", Name: "streams_open",
		Help: "Streams that clients hold open, in any form, and requests that wait for their answer.",
	}, func() float64 { return float64(streams.count()) })
)

// registerMetrics puts the collectors into a configuration's registry.
func registerMetrics(registry *prometheus.Registry) error {
	for _, collector := range []prometheus.Collector{requestsTotal, queueSeconds, streamsOpen, scaleGauges{}} {
		var already prometheus.AlreadyRegisteredError
		if err := registry.Register(collector); err != nil && !errors.As(err, &already) {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// routeMetrics are a route's own, looked up once.
type routeMetrics struct {
	queued, refused, unclear prometheus.Counter
	seconds                  prometheus.Observer
}

func metricsOf(topic string) routeMetrics {
	return routeMetrics{
		queued:  requestsTotal.WithLabelValues(topic, "queued"),
		refused: requestsTotal.WithLabelValues(topic, "refused"),
		unclear: requestsTotal.WithLabelValues(topic, "unclear"),
		seconds: queueSeconds.WithLabelValues(topic),
	}
}

// count notes what became of a request, begun when its body had been read.
func (m *routeMetrics) count(begun time.Time, err error) {
	switch {
	case err == nil:
		m.queued.Inc()
		m.seconds.Observe(time.Since(begun).Seconds())
	case errors.Is(err, ingress.ErrUnclear):
		m.unclear.Inc()
	default:
		m.refused.Inc()
	}
}
