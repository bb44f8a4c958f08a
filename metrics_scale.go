package osmosis

import "github.com/prometheus/client_golang/prometheus"

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
	newScaleGauge("backlog_records", "Records that are not done, without those of poisoned and paused partitions.", func(r scaleReport) *float64 { return float(r.Backlog) }),
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
