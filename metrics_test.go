package osmosis

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// scrape gives what a configuration's registry tells, a line for each series:
// counters and gauges by their value, histograms by their count.
func scrape(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	for range 2 { // the second time as Caddy does that gives two apps one registry
		if err := registerMetrics(registry); err != nil {
			t.Fatal(err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]float64)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += fmt.Sprintf(" %s=%s", label.GetName(), label.GetValue())
			}
			series[name] = valueOf(family.GetType(), metric)
		}
	}
	return series
}

func valueOf(kind dto.MetricType, metric *dto.Metric) float64 {
	switch kind {
	case dto.MetricType_COUNTER:
		return metric.GetCounter().GetValue()
	case dto.MetricType_GAUGE:
		return metric.GetGauge().GetValue()
	default:
		return float64(metric.GetHistogram().GetSampleCount())
	}
}

// What is counted is counted once for the process, whichever registry asks.
func TestMetrics(t *testing.T) {
	queueing(t, &Handler{}, func(t *testing.T, s *storefront) {
		before := scrape(t)
		for range 3 {
			s.send(s.post("x")).want(t, http.StatusAccepted)
		}
		l := s.listen(s.path(s.accept()))
		synctest.Wait()
		open := scrape(t)["osmosis_streams_open"]
		s.cut()
		s.send(s.post("x")).want(t, http.StatusServiceUnavailable)
		s.mend()
		s.leave()
		l.ends()

		after := scrape(t)
		for name, want := range map[string]float64{
			"osmosis_requests_total outcome=queued topic=orders": 3,
			"osmosis_queue_duration_seconds topic=orders":        3,
		} {
			if got := after[name] - before[name]; got != want {
				t.Errorf("%s went up by %v, want %v", name, got, want)
			}
		}
		var failed float64
		for name, value := range after {
			if strings.Contains(name, "outcome=refused") || strings.Contains(name, "outcome=unclear") {
				failed += value - before[name]
			}
		}
		if failed != 1 || open != 1 {
			t.Errorf("%v requests failed and %v streams were open, want one of each", failed, open)
		}
	})
}
