// Package embedded is the broker for the first minute, for development and for
// small sites: one node inside the gateway's own process, its data on disk with
// an fsync for every batch, speaking Kafka's protocol on a local port, so that
// workers in any language use it and moving to a real cluster is one line.
//
// It is kfake, which was written to test clients, kept within what it was found
// to survive. What that costs:
//
//   - One node. When the process is down, so is the queue; nothing is lost by it.
//   - Topics have to be made by CreateTopics. One that a client's metadata
//     request makes is forgotten by a kill, with its records, so that is off.
//   - No compacted topics (see guard). Old records are the janitor's, by the
//     retention of the broker or the topic's own; kfake's cleaner can empty a
//     partition, and never comes. When the data is over its bound, topics that
//     keep records for longer than the broker have a quarter of it (see shrink).
//   - It keeps the setting LogAppendTime and does nothing about it; see logTime.
//   - A full disk is seen before records are taken, and a write that fails is
//     told (see room); but kfake ignores errors of fsync, so a disk that takes
//     what it then loses is not noticed.
//   - After a crash it reads its log twice, once to repair what was left (see
//     recovery) and once to start, which needs memory of about its size.
//   - What was acknowledged survives a kill and a loss of power, on a file system
//     where a new file that was synced keeps its name. Where a partition starts
//     does not survive a crash: deleted records that are still on disk come back
//     until the janitor has run. A transaction that is open does not survive a
//     stop of any kind, and one over several partitions that is being committed
//     at a crash may be so in some of them only: its end is written to one after
//     the other. The list of topics is not checked for being written: with the
//     disk full beyond what is kept free, a topic can be acknowledged and gone.
//     The tests crash the broker at any write; OSMOSIS_CRASH_SEEDS=500 has them
//     do it for as many runs.
//   - No authentication: it listens on loopback unless told otherwise.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
)

// ErrInUse means that another process runs a broker on the same directory.
var ErrInUse = errors.New("another process uses this directory")

// Config says where the data is and where workers reach the broker.
type Config struct {
	// Directory holds the data; it is made where it is missing.
	Directory string
	// Listen is the address to listen on and the one that clients are told, as
	// host:port with a host that they can dial. Port 0 takes a free one.
	Listen string
	// Retention is how long records are kept, unless their topic has a
	// retention.ms of its own; 0 keeps them.
	Retention time.Duration
	// MaxBytes bounds the data on disk, in bytes; 0 does not. Each partition
	// keeps its newest record all the same.
	MaxBytes int64
	// KeepFree is how much of the disk stays free, in bytes; records that would
	// take more are refused until there is room. 0 is 32 MiB.
	KeepFree int64
	// Logger takes what happens; nil takes none of it.
	Logger *zap.Logger

	// Tests put others in the place of these.
	disk   disk
	listen func(network, address string) (net.Listener, error)
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	kfake  []kfake.Opt
}

// Broker is a running broker.
type Broker struct {
	cluster  *kfake.Cluster
	config   Config
	lock     *flock.Flock
	listener *listener
	address  string
	janitor  *janitor
	room     *room
	stop     context.CancelFunc
	tidying  sync.WaitGroup
}

// segmentShare divides MaxBytes into segments: space comes back a whole segment
// at a time, so a bound needs segments that are small against it.
const (
	segmentShare = 256
	minSegment   = 1 << 20
	maxSegment   = 64 << 20
)

// Open starts the broker on its directory, with what it held before. It returns
// when clients can connect: after a clean stop at once, after a kill when the
// log has been read.
func Open(c Config) (*Broker, error) {
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, fmt.Errorf("embedded broker: listen address %q: write it as host:port, such as 127.0.0.1:9092", c.Listen)
	}
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		return nil, fmt.Errorf("embedded broker: listen address %q: name the address that workers dial, since the broker tells it to them", c.Listen)
	}
	if c.disk == nil {
		c.disk = osDisk{}
	}
	if c.listen == nil {
		c.listen = net.Listen
	}
	if err := c.disk.MkdirAll(dataDirectory(c.Directory), 0o700); err != nil {
		return nil, fmt.Errorf("embedded broker: make the data directory: %w", err)
	}
	lock := flock.New(filepath.Join(c.Directory, "lock"))
	switch locked, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("embedded broker: lock %q: %w", c.Directory, err)
	case !locked:
		return nil, fmt.Errorf("embedded broker: data directory %q: %w: stop that one, give this one a directory of its own (`embedded <directory>`), or let both use one Kafka (`kafka <address>`)", c.Directory, ErrInUse)
	}
	b := &Broker{config: c, lock: lock, room: newRoom(c)}
	if err := b.start(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// start does what Open says, with the directory locked.
func (b *Broker) start() error {
	c := b.config
	began := time.Now()
	stopped := filepath.Join(c.Directory, markerName)
	r := recovery{disk: c.disk, directory: dataDirectory(c.Directory), logger: c.Logger}
	if err := r.run(stopped); err != nil {
		return fmt.Errorf("embedded broker: data directory %q: %w", c.Directory, err)
	}
	listen := func(network, _ string) (net.Listener, error) {
		l, err := c.listen(network, c.Listen)
		if err != nil {
			return nil, err
		}
		b.listener = newListener(l, b.syncDirectory, b.room.unsynced)
		b.room.drop = b.listener.drop
		// kfake listens first. From here on it uses up what a clean stop has left.
		if err := unmark(c.disk, stopped); err != nil {
			return nil, errors.Join(err, l.Close())
		}
		return b.listener, nil
	}
	var err error
	b.cluster, err = kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ClusterID(clusterID),
		kfake.DataDir(dataDirectory(c.Directory)),
		kfake.SyncWrites(),
		kfake.WithLogger(logger{c.Logger, b.room}),
		kfake.BrokerConfigs(inert),
		kfake.BrokerConfigs(map[string]string{"log.segment.bytes": strconv.FormatInt(segmentSize(c.MaxBytes), 10)}),
		kfake.ListenFn(listen),
	}, c.kfake...)...)
	if err != nil {
		return fmt.Errorf("embedded broker on %s: %w", c.Listen, err)
	}
	if err := b.begin(); err != nil {
		return fmt.Errorf("embedded broker: data directory %q: %w", c.Directory, err)
	}
	guard{b.cluster, c.disk, c.Directory}.install()
	b.room.install(b.cluster)
	(&logTime{cluster: b.cluster}).install()
	b.listener.install(b.cluster)
	b.address = b.cluster.ListenAddrs()[0]
	if b.janitor, err = newJanitor(c, b.cluster, b.address); err != nil {
		return err
	}
	close(b.listener.ready)
	c.Logger.Info("embedded broker started",
		zap.String("kafka", b.address), zap.String("directory", c.Directory), zap.Duration("took", time.Since(began)))
	ctx, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.tidying.Go(func() { b.janitor.run(ctx) })
	return nil
}

// begin makes what the start has done to the directories survive a loss of power,
// before clients come in: kfake removes what a clean stop has left it, and would
// take it again after the next crash.
func (b *Broker) begin() error {
	d := b.config.disk
	_ = d.SyncDirectory(filepath.Dir(b.config.Directory)) // others' own, which may not be readable
	return errors.Join(d.SyncDirectory(b.config.Directory), b.syncDirectory())
}

// syncDirectory makes the list of topics survive a loss of power, and that the
// records of those are gone that were deleted.
func (b *Broker) syncDirectory() error {
	data := dataDirectory(b.config.Directory)
	if err := b.config.disk.SyncDirectory(filepath.Join(data, "partitions")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return b.config.disk.SyncDirectory(data)
}

// segmentSize is the size of a segment file for a bound on all of them.
func segmentSize(maxBytes int64) int64 {
	if maxBytes <= 0 {
		return maxSegment
	}
	return min(max(maxBytes/segmentShare, minSegment), maxSegment)
}

// Address is where clients reach the broker, as host:port.
func (b *Broker) Address() string { return b.address }

// Close stops the broker and writes what makes the next start quick. What it
// acknowledged is on disk already.
func (b *Broker) Close() error {
	if b.stop != nil {
		b.stop()
		b.tidying.Wait()
	}
	if b.janitor != nil {
		b.janitor.close()
	}
	if b.listener != nil {
		b.listener.shut()
	}
	var err error
	if b.cluster != nil {
		b.cluster.Close()
		if b.room.whole() {
			err = b.markStopped()
		}
	}
	if unlock := b.lock.Close(); unlock != nil {
		err = errors.Join(err, fmt.Errorf("embedded broker: unlock the data directory: %w", unlock))
	}
	return err
}

// markStopped notes that all was written.
func (b *Broker) markStopped() error {
	err := b.syncDirectory()
	if err == nil {
		err = replace(b.config.disk, filepath.Join(b.config.Directory, markerName), nil)
	}
	if err != nil {
		return fmt.Errorf("embedded broker: note the clean stop: %w", err)
	}
	return nil
}

// clusterID is what clients are told that they speak to.
const clusterID = "osmosis-embedded"

// dataDirectory is where kfake's files are, beside the lock.
func dataDirectory(directory string) string { return filepath.Join(directory, "data") }

// logger puts kfake's lines into zap: its warnings are about refused requests,
// which are the business of whoever sent them.
type logger struct {
	*zap.Logger
	room *room // learns of writes that failed
}

// Logf implements kfake.Logger.
func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	l.room.heed(format, args)
	if level == kfake.LogLevelError {
		l.Error("embedded broker", zap.String("message", fmt.Sprintf(format, args...)))
		return
	}
	if c := l.Check(zap.DebugLevel, "embedded broker"); c != nil {
		c.Write(zap.String("message", fmt.Sprintf(format, args...)))
	}
}
