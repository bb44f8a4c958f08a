package autoscale

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/osmosis-gateway/caddy-osmosis/internal/supervisor"
)

// Job says what workers are for.
type Job struct {
	// Kafka lists the brokers as host:port, separated by commas.
	Kafka string
	// Topic is what they consume, in the consumer group Group.
	Topic, Group string
	// Grace is how long a worker that is told to stop may take until it is
	// killed. Default 10s.
	Grace time.Duration
	// Env lists variables, as NAME=value, that workers get in their environment
	// besides those that every program needs, such as PATH and HOME. They get no
	// other variable of this process, whose environment may hold secrets.
	Env []string
	// Logger takes what workers print and when they start and end. Default: nobody.
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
	// Scale has there be a number of workers. It comes after every look, mostly
	// with the number that there is already. It does not wait for workers, and
	// does nothing once Close was called.
	Scale(Order)
	// Release says that another process decides: workers that belong to this one
	// are stopped, others are left to it. It may come again. It does not wait.
	Release()
	// Close ends it, and waits for the workers that belong to this process.
	Close()
}

// Counter is a Crew that can tell how many of its workers run: not those that
// are to start again after a while, nor those that were told to stop.
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

// defaultGrace is the default of Job.Grace.
const defaultGrace = 10 * time.Second

// maxLine bounds what one line of a worker's output may take in the log.
const maxLine = 8 << 10

// Processes is a Crew of local child processes, each the same command.
//
// A process finds what it is for in its environment: OSMOSIS_KAFKA,
// OSMOSIS_TOPIC, OSMOSIS_GROUP and OSMOSIS_WORKER, its number: the smallest from
// 0 that no other one has, and the same when it is started again. What it
// prints goes into the log, line by line. Told to stop, it and the processes it
// started get SIGTERM (where there is one), then have the job's Grace until
// they are killed. On Unix the same happens when this process is gone, however it
// went; see package supervisor. Its standard input is a pipe that ends then.
type Processes struct {
	job     Job
	command []string

	mu      sync.Mutex
	workers []*worker // in the order in which they began
	numbers map[int]bool
	running sync.WaitGroup
	closed  bool
}

// worker is one that was not told to stop.
type worker struct {
	number int
	stop   context.CancelFunc
	up     bool // its process runs; under the mu of Processes
}

// NewProcesses makes a Crew without workers. The command's first element is
// looked up in the PATH.
func NewProcesses(job Job, command []string) *Processes {
	if job.Grace <= 0 {
		job.Grace = defaultGrace
	}
	if job.Logger == nil {
		job.Logger = zap.NewNop()
	}
	return &Processes{job: job, command: command, numbers: make(map[int]bool)}
}

// Scale starts or stops processes until there are so many; the ones started
// last stop first. Orders come from one Loop, one after the other, so that none is
// older than the one before, whatever its generation: they begin anew when a
// cluster has lost its groups, and who refused them would never start a worker again.
func (p *Processes) Scale(o Order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.resize(o.Workers)
}

// Running counts the processes that run.
func (p *Processes) Running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, w := range p.workers {
		if w.up {
			n++
		}
	}
	return n
}

// Release stops all processes: they are this process' own.
func (p *Processes) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resize(0)
}

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
	for len(p.workers) > max(n, 0) {
		last := len(p.workers) - 1
		p.workers[last].stop()
		p.workers = p.workers[:last]
	}
	for len(p.workers) < n {
		ctx, stop := context.WithCancel(context.Background())
		w := &worker{stop: stop}
		for p.numbers[w.number] {
			w.number++
		}
		p.numbers[w.number] = true
		p.workers = append(p.workers, w)
		p.running.Go(func() { p.keep(ctx, w) })
	}
}

// keep runs one worker until ctx ends, again and again.
func (p *Processes) keep(ctx context.Context, w *worker) {
	log := p.job.Logger.With(zap.String("topic", p.job.Topic), zap.String("group", p.job.Group), zap.Int("worker", w.number))
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.numbers, w.number) // only now: until it has ended, it may hold what goes by its number
	}()
	pause, told := firstPause, time.Duration(0)
	for {
		began := time.Now()
		err := p.run(ctx, w, log)
		if ctx.Err() != nil {
			log.Info("worker stopped")
			return
		}
		if time.Since(began) >= steady {
			pause, told = firstPause, 0
		}
		// One that does nothing but end would fill the log: it is news that the
		// pause has grown.
		level := zap.DebugLevel
		if pause > told {
			level, told = zap.WarnLevel, pause
		}
		what := "worker ended by itself; starting it again"
		if errors.Is(err, supervisor.ErrStart) {
			what = "worker not started; trying again"
		}
		log.Log(level, what, zap.Error(err), zap.Duration("pause", pause))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, lastPause)
	}
}

// run starts the command once and waits for its end.
func (p *Processes) run(ctx context.Context, w *worker, log *zap.Logger) error {
	path, err := exec.LookPath(p.command[0])
	if err != nil {
		return fmt.Errorf("%w: %w", supervisor.ErrStart, err)
	}
	output, writer := io.Pipe()
	var reading sync.WaitGroup
	reading.Go(func() { logLines(output, log) })
	defer reading.Wait()
	defer writer.Close()
	defer p.up(w, false)
	return supervisor.Run(ctx, supervisor.Command{
		Path: path, Args: p.command, Env: p.environment(w.number), Output: writer, Grace: p.job.Grace,
	}, func(pid int) {
		p.up(w, true)
		log.Info("worker started", zap.Int("pid", pid))
	})
}

// up notes whether a worker's process runs.
func (p *Processes) up(w *worker, runs bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.up = runs
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
