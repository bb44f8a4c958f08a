// Package autoscale sizes the workers of a topic by what is waiting for them.
//
// It is made of three things: measure what flows in and out, decide how many
// workers that takes (Decide, a pure function), act on it (a Crew keeps a number of
// workers running). No loop joins them yet: a Crew is told one number by the
// configuration. The package knows no Caddy; the modules that a
// configuration names live in the root package.
//
// # Concurrency
//
// A Crew is safe for use by many goroutines. Processes keeps one goroutine a
// worker, and Close waits for all of them.
package autoscale

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Job says what workers are for.
type Job struct {
	// Kafka lists the brokers as host:port, separated by commas.
	Kafka string
	// Topic is what they consume, in the consumer group Group.
	Topic, Group string
	// Grace is how long a worker that is told to stop may take until it is killed.
	Grace time.Duration
	// Logger takes what workers print and when they start and end.
	Logger *zap.Logger
}

// Order is how many workers there should be.
type Order struct {
	// Workers is the whole number, not a change of it.
	Workers int
	// Generation is that of the lease under which it was decided. Who takes
	// orders from several gateways refuses those of an older one than it has seen.
	Generation int32
}

// Crew keeps workers running.
type Crew interface {
	// Scale has there be a number of workers. It does not wait for them, and
	// does nothing once Close was called.
	Scale(Order)
	// Release says that this process does not decide any more: workers that
	// belong to it are stopped, others are left to who decides now. It does not wait.
	Release()
	// Close ends it, and waits for the workers that belong to this process.
	Close()
}

// Counter is a Crew that can tell how many of its workers run.
type Counter interface {
	Running() int
}

// A worker that ends by itself is started again after a pause that doubles
// from the first figure to the second; one that ran for steady starts over.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 15 * time.Second
	steady     = 30 * time.Second
)

// maxLine bounds what one line of a worker's output may take in the log.
const maxLine = 8 << 10

// Processes is a Crew of local child processes, each the same command.
//
// A process finds what it is for in its environment: OSMOSIS_KAFKA,
// OSMOSIS_TOPIC, OSMOSIS_GROUP and OSMOSIS_WORKER, its number from 0. What it
// prints goes into the log, line by line. Told to stop, it and the processes it
// started get SIGTERM (where there is one), then have the job's Grace until
// they are killed. Its standard input is a pipe that ends when this process is
// gone, however it went, so that a worker can tell.
type Processes struct {
	job     Job
	command []string

	mu      sync.Mutex
	workers []context.CancelFunc
	running sync.WaitGroup
	closed  bool
}

// NewProcesses makes a Crew without workers. The command's first element is
// looked up in the PATH.
func NewProcesses(job Job, command []string) *Processes {
	return &Processes{job: job, command: command}
}

// Scale starts or stops processes until there are so many; the ones started
// last stop first.
func (p *Processes) Scale(o Order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.resize(o.Workers)
	}
}

// Release stops all processes: they are this process' own.
func (p *Processes) Release() { p.Scale(Order{}) }

// Close stops all processes and waits for them.
func (p *Processes) Close() {
	p.mu.Lock()
	// In one critical section: a Scale between the two would start workers that
	// nobody stops, and the wait for them would not end.
	p.closed = true
	p.resize(0)
	p.mu.Unlock()
	p.running.Wait()
}

// resize starts or stops processes until there are n. The caller holds mu.
func (p *Processes) resize(n int) {
	for len(p.workers) > n {
		last := len(p.workers) - 1
		p.workers[last]()
		p.workers = p.workers[:last]
	}
	for len(p.workers) < n {
		ctx, stop := context.WithCancel(context.Background())
		number := len(p.workers)
		p.workers = append(p.workers, stop)
		p.running.Go(func() { p.keep(ctx, number) })
	}
}

// keep runs one worker until ctx ends, again and again.
func (p *Processes) keep(ctx context.Context, number int) {
	log := p.job.Logger.With(zap.String("topic", p.job.Topic), zap.String("group", p.job.Group), zap.Int("worker", number))
	pause := firstPause
	for {
		began := time.Now()
		err := p.run(ctx, number, log)
		if ctx.Err() != nil {
			log.Info("worker stopped")
			return
		}
		if time.Since(began) >= steady {
			pause = firstPause
		}
		log.Warn("worker ended by itself; starting it again", zap.Error(err), zap.Duration("pause", pause))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, lastPause)
	}
}

// run starts the command once and waits for its end.
func (p *Processes) run(ctx context.Context, number int, log *zap.Logger) error {
	cmd := exec.CommandContext(ctx, p.command[0], p.command[1:]...)
	cmd.Env = append(os.Environ(),
		"OSMOSIS_KAFKA="+p.job.Kafka,
		"OSMOSIS_TOPIC="+p.job.Topic,
		"OSMOSIS_GROUP="+p.job.Group,
		"OSMOSIS_WORKER="+strconv.Itoa(number),
	)
	lifeline, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	defer lifeline.Close()
	output, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	setGroup(cmd)
	cmd.Cancel = func() error { return terminate(cmd) }
	cmd.WaitDelay = p.job.Grace

	var reading sync.WaitGroup
	reading.Go(func() { logLines(output, log) })
	defer reading.Wait()
	defer writer.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start worker: %w", err)
	}
	log.Info("worker started", zap.Int("pid", cmd.Process.Pid))
	err = cmd.Wait()
	killGroup(cmd) // what the command started and left behind
	if err == nil {
		err = errors.New("exit status 0")
	}
	return err
}

// logLines copies a worker's output into the log. A line that is too long is
// cut into several.
func logLines(r io.Reader, log *zap.Logger) {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		log.Info("worker output", zap.ByteString("line", line))
	}
}
