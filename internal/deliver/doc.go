// Package deliver has the records of a topic answered by an HTTP handler: it is
// the inside of a gateway, for sites that have no workers. A consumer group
// shares the partitions among processes; each record is replayed through the
// handler, and what that answers is produced as the reply.
//
// Records of one key are tried in order, those of different keys side by side,
// inside a partition too. What failed is tried again after a pause, up to a
// number of attempts, and then goes to a dead-letter topic; either way the
// client's stream ends. What is done and how often something was tried is
// committed with the group's offsets, so that no restart and no rebalance
// forgets it.
//
// Tries outlive rebalances. A partition that goes to another process goes at
// once, and the tries of it that run stay where they are: the last commit says
// who has them, and the control topic how they have ended. DESIGN.md beside this
// file has the choices and what they cost.
//
// # Concurrency
//
// A Delivery is safe for use by many goroutines. Its queue has a mutex that
// guards all that is known of its partitions, and each try has a goroutine of its
// own. The queue's lock may be taken while one of these is held: the Delivery's,
// the handovers', and the reader's of assigned partitions. While it is held,
// nothing else is taken but the reader's lock of what it reads (mu) and those of
// windows.
//
// # What it does not do
//
// It knows nothing of Caddy: the handler is whatever answers requests. It fences
// no effects: a process that was frozen in the middle of a try may go on with it
// while another tries the same record, so upstreams that mind compare the
// headers Osmosis-Stream-Id and Osmosis-Attempt.
package deliver
