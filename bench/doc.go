// Package bench is where the benchmarks live: a command each in ingress,
// latency, roundtrip, streams, deliver, handover and survey. See README.md for
// what they measure and how to read it.
package bench
