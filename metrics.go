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

// scaleGauges tells of the loops there are at the moment it is asked: so none is
// left behind by a loop that has ended, and one that takes over from another
// does not lose its own to the other's end.
type scaleGauges struct{}

// scaleGauge is one gauge, and where its value comes from; nil if nobody knows.
type scaleGauge struct {
	desc  *prometheus.Desc
	value func(scaleReport) *float64
}

func newScaleGauge(name, help string, value func(scaleReport) *float64) scaleGauge {
	return scaleGauge{prometheus.NewDesc("osmosis_scale_"+name, help, []string{"topic", "group"}, nil), value}
}

var allScaleGauges = []scaleGauge{
	newScaleGauge("inflow_records_per_second", "How many records come in.", func(r scaleReport) *float64 { return r.Inflow }),
	newScaleGauge("outflow_records_per_second", "How many records the consumer group gets done.", func(r scaleReport) *float64 { return r.Outflow }),
	newScaleGauge("backlog_records", "Records that are not done, without those of poisoned, slow and paused partitions.", func(r scaleReport) *float64 { return float(r.Backlog) }),
	newScaleGauge("oldest_seconds", "For how long the oldest record has waited.", func(r scaleReport) *float64 { return r.OldestSeconds }),
	newScaleGauge("workers_desired", "How many workers there should be.", func(r scaleReport) *float64 { return float(r.Desired) }),
	newScaleGauge("workers_running", "How many workers there are.", func(r scaleReport) *float64 { return float(r.Running) }),
	newScaleGauge("gradient", "Inflow against what the workers can do: above 1 the backlog grows.", func(r scaleReport) *float64 { return r.Gradient }),
	newScaleGauge("deciding", "1 where this gateway decides how many workers there are, else 0.", func(r scaleReport) *float64 {
		deciding := 0
		if r.Deciding {
			deciding = 1
		}
		return float(&deciding)
	}),
}

// float gives a number as a gauge has it.
func float[N int | int64](n *N) *float64 {
	if n == nil {
		return nil
	}
	value := float64(*n)
	return &value
}

// Describe implements prometheus.Collector.
func (scaleGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, gauge := range allScaleGauges {
		ch <- gauge.desc
	}
}

// Collect implements prometheus.Collector.
func (scaleGauges) Collect(ch chan<- prometheus.Metric) {
	for _, s := range scalings() {
		report := s.report()
		for _, gauge := range allScaleGauges {
			if value := gauge.value(report); value != nil {
				ch <- prometheus.MustNewConstMetric(gauge.desc, prometheus.GaugeValue, *value, report.Topic, report.Group)
			}
		}
	}
}
