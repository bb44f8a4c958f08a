package autoscale

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestWorkerProcess is no test but what the tests below run as a worker: this
// test binary again, which behaves as its environment says.
func TestWorkerProcess(t *testing.T) {
	switch os.Getenv("WORKER_TEST") {
	case "":
		return
	case "crash":
		os.Exit(3)
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	fmt.Printf("worker %s of %s on %s at %s\n", os.Getenv("OSMOSIS_WORKER"), os.Getenv("OSMOSIS_GROUP"), os.Getenv("OSMOSIS_TOPIC"), os.Getenv("OSMOSIS_KAFKA"))
	fmt.Printf("secret %q\n", os.Getenv("WORKER_TEST_SECRET"))
	if os.Getenv("WORKER_TEST") == "stubborn" {
		for range asked {
		}
	}
	gone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(gone)
	}()
	select {
	case <-asked:
		fmt.Println("asked to stop")
		if gate := os.Getenv("WORKER_TEST_GATE"); gate != "" {
			conn, err := net.Dial("tcp", gate)
			if err == nil {
				_, _ = io.Copy(io.Discard, conn) // until the test closes it
				fmt.Println("finished")
			}
		}
	case <-gone:
		fmt.Println("gateway is gone")
	}
	os.Exit(0)
}

// crew makes processes of this test binary and hands out their log lines.
func crew(t *testing.T, behaviour string, drain time.Duration, command ...string) (*Processes, lines) {
	t.Helper()
	if command == nil {
		command = []string{os.Args[0], "-test.run=^TestWorkerProcess$"}
	}
	log := make(lines, 1000)
	p := NewProcesses(Job{Kafka: "127.0.0.1:9092", Topic: "orders", Group: "hello", Grace: drain, Env: []string{"WORKER_TEST=" + behaviour}, Logger: zap.New(log)}, command)
	t.Cleanup(p.Close)
	return p, log
}

// lines is a log core that hands out messages with their fields as text.
type lines chan string

func (l lines) Enabled(zapcore.Level) bool        { return true }
func (l lines) With([]zapcore.Field) zapcore.Core { return l }
func (l lines) Sync() error                       { return nil }
func (l lines) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.AddCore(e, l)
}

func (l lines) Write(e zapcore.Entry, fields []zapcore.Field) error {
	text := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(text)
	}
	l <- fmt.Sprint(e.Message, " ", text.Fields)
	return nil
}

// await reads lines until one contains the text.
func await(t *testing.T, lines lines, text string) {
	t.Helper()
	limit := time.After(30 * time.Second)
	var seen []string
	for {
		select {
		case line := <-lines:
			if strings.Contains(line, text) {
				return
			}
			seen = append(seen, line)
		case <-limit:
			t.Fatalf("no line with %q among %q", text, seen)
		}
	}
}

func TestWorkersAreToldWhatTheyAreForAndStopWhenAsked(t *testing.T) {
	p, lines := crew(t, "work", time.Minute)
	p.Scale(Order{Workers: 1})
	await(t, lines, "worker 0 of hello on orders at 127.0.0.1:9092")
	p.Scale(Order{Workers: 2})
	await(t, lines, "worker 1 of hello on orders at 127.0.0.1:9092")
	p.Scale(Order{Workers: 1})
	await(t, lines, "asked to stop")
	await(t, lines, "worker stopped")
	p.Close()
	await(t, lines, "worker stopped")
	p.Scale(Order{Workers: 3}) // too late: does nothing
}

func TestAWorkerThatCrashesIsStartedAgain(t *testing.T) {
	p, lines := crew(t, "crash", time.Minute)
	p.Scale(Order{Workers: 1})
	for range 3 {
		await(t, lines, "worker started")
		await(t, lines, "worker ended by itself")
	}
}

func TestAWorkerThatDoesNotStopIsKilled(t *testing.T) {
	p, lines := crew(t, "stubborn", 100*time.Millisecond)
	p.Scale(Order{Workers: 1})
	await(t, lines, "worker 0 of hello")
	p.Close()
	await(t, lines, "worker stopped")
}

// A worker has the grace period to finish what it works on.
func TestAWorkerFinishes(t *testing.T) {
	gate, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close()
	p, lines := crew(t, "work", time.Hour)
	p.job.Env = append(p.job.Env, "WORKER_TEST_GATE="+gate.Addr().String())
	p.Scale(Order{Workers: 1})
	await(t, lines, "worker 0 of hello")
	p.Scale(Order{})
	await(t, lines, "asked to stop")
	conn, err := gate.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	await(t, lines, "finished")
}

// The gateway's environment may hold secrets. Workers get what every program needs,
// and what the job has for them.
func TestTheEnvironmentOfAWorker(t *testing.T) {
	for name, value := range map[string]string{
		"WORKER_TEST_SECRET": "hush", "KAFKA_PASSWORD": "hush", "OSMOSIS_BROKER": "kafka of hush", "OSMOSIS_TOPIC": "other",
		"LC_WORKER_TEST": "C", "TZ": "Asia/Tokyo", "LANG": "de", "SSL_CERT_FILE": "/certificates",
	} {
		t.Setenv(name, value)
	}
	p, lines := crew(t, "work", time.Minute)
	p.Scale(Order{Workers: 1})
	await(t, lines, `secret ""`)

	p.job.Env = []string{"LANG=eo", "TOKEN=42"}
	got := make(map[string]string)
	for _, variable := range p.environment(3) {
		name, value, _ := strings.Cut(variable, "=")
		got[name] = value
	}
	for name, want := range map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": os.Getenv("HOME"), "LC_WORKER_TEST": "C", "TZ": "Asia/Tokyo", "SSL_CERT_FILE": "/certificates",
		"LANG": "eo", "TOKEN": "42", "KAFKA_PASSWORD": "", "OSMOSIS_BROKER": "",
		"OSMOSIS_KAFKA": "127.0.0.1:9092", "OSMOSIS_TOPIC": "orders", "OSMOSIS_GROUP": "hello", "OSMOSIS_WORKER": "3",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestACommandThatCannotStartIsTriedAgain(t *testing.T) {
	p, lines := crew(t, "work", time.Minute, "no-such-program-anywhere")
	p.Scale(Order{Workers: 1})
	for range 2 {
		await(t, lines, `worker not started; trying again map[error:start command: exec: "no-such-program-anywhere": executable file not found`)
	}
}

func TestRunningCountsWhatWorks(t *testing.T) {
	p, lines := crew(t, "stubborn", 5*time.Second)
	p.Scale(Order{Workers: 2})
	await(t, lines, "of hello on orders")
	await(t, lines, "of hello on orders")
	if n := p.Running(); n != 2 {
		t.Fatalf("%d of two run", n)
	}
	p.Scale(Order{Workers: 1})
	if n := p.Running(); n != 1 {
		t.Fatalf("%d run besides the one that was told to stop", n)
	}
	p.Release()
	p.Release()
	if n := p.Running(); n != 0 {
		t.Fatalf("%d run of none", n)
	}
	await(t, lines, "worker stopped")
	await(t, lines, "worker stopped")

	p, lines = crew(t, "crash", time.Second)
	p.Scale(Order{Workers: 1})
	await(t, lines, "worker ended by itself")
	if n := p.Running(); n != 0 {
		t.Fatalf("%d run while one waits to be started again", n)
	}
}

// Whatever goes by a worker's number, two do not have it at once.
func TestANumberIsFreeWhenItsWorkerHasEnded(t *testing.T) {
	p, lines := crew(t, "stubborn", 3*time.Second)
	p.Scale(Order{Workers: 2})
	for range 2 {
		await(t, lines, "of hello on orders")
	}
	p.Scale(Order{Workers: 1})
	p.Scale(Order{Workers: 2})
	await(t, lines, "worker 2 of hello")
	await(t, lines, "worker stopped") // number 1, killed
	p.Scale(Order{Workers: 3})
	await(t, lines, "worker 1 of hello")
}

// A cluster that has lost its groups, say one that was set up anew, counts the
// generations of the lease from 1 again.
func TestGenerationsThatBeginAnew(t *testing.T) {
	p, lines := crew(t, "work", time.Minute)
	p.Scale(Order{Workers: 1, Generation: 5})
	await(t, lines, "worker 0 of hello")
	p.Scale(Order{Workers: 2, Generation: 1})
	await(t, lines, "worker 1 of hello")
}

// A worker that ends whenever it is started is told of as the pauses grow.
func TestAWorkerThatOnlyEndsDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		p := NewProcesses(Job{Logger: zap.New(core)}, []string{"no-such-program-anywhere"})
		p.Scale(Order{Workers: 1})
		settle(10 * time.Minute)
		const growths = 7 // from 250ms to 15s
		if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n != growths {
			t.Errorf("%d warnings for %d growths", n, growths)
		}
		if n := logs.FilterMessageSnippet("not started").Len(); n < 40 || n > 100 {
			t.Errorf("tried %d times in ten minutes", n)
		}
		stopped := time.Now()
		p.Close() // in the middle of a pause
		if took := time.Since(stopped); took != 0 {
			t.Errorf("waited for a pause, %s", took)
		}
	})
}

// Whatever Scale does meanwhile, what it started is stopped by Close, which ends.
func TestCloseBesideScale(t *testing.T) {
	for range 20 {
		p := NewProcesses(Job{Logger: zap.NewNop(), Grace: time.Second}, []string{"no-such-program-anywhere"})
		closed, stop := make(chan struct{}), make(chan struct{})
		var setting, begun sync.WaitGroup
		for range 8 {
			begun.Add(1)
			setting.Go(func() {
				p.Scale(Order{Workers: 1})
				begun.Done()
				for {
					select {
					case <-stop:
						return
					default:
						p.Scale(Order{Workers: 1})
					}
				}
			})
		}
		begun.Wait()
		go func() { p.Close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(30 * time.Second):
			t.Error("Close waits for a worker that was started beside it")
		}
		close(stop)
		setting.Wait()
		if t.Failed() {
			return
		}
	}
}
