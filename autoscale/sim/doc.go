// Package sim plays policies of scaling against traffic, in virtual time, and
// counts what they cost and how long records wait.
//
// A World has the partitions of one topic and the workers of one group: workers
// take time to start and to stop, each change of the group stops all of them
// for a moment, and a partition is worked on by one of them. A Trace says what
// arrives and what goes wrong. A Policy looks at the world as it could at a real one
// and says how many workers there should be: ours is autoscale.Decide itself.
//
// All is drawn from seeds, so that a run can be repeated: the same seed gives
// each policy the same arrivals, service times and start times.
//
// # What it does not do
//
// A worker works on one record at once. Partitions are shared as by Kafka's
// range assignor, and a rebalance is an eager one. Nothing fails but what the
// trace says. So the figures compare policies; they do not predict a cluster.
package sim
