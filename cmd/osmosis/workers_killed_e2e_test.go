//go:build e2e && unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"
)

// gateVariable has this test binary be a worker that minds neither SIGTERM nor its
// standard input and has a child that does not either. Both are connected to this
// address for as long as they live.
const gateVariable = "OSMOSIS_TEST_GATE"

func init() {
	gate := os.Getenv(gateVariable)
	if gate == "" {
		return
	}
	signal.Ignore(syscall.SIGTERM)
	if len(os.Args) == 1 {
		child := exec.Command(os.Args[0], "child")
		if err := child.Start(); err != nil {
			panic(err)
		}
	}
	conn, err := net.Dial("tcp", gate)
	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, conn)
	os.Exit(0) // the test has ended
}

// living counts the processes that are connected to it.
type living struct {
	address string

	mu  sync.Mutex
	now int
}

func (l *living) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

func countLiving(t *testing.T) *living {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &living{address: listener.Addr().String()}
	add := func(n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now += n
	}
	var serving sync.WaitGroup
	done := make(chan struct{})
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			add(1)
			serving.Go(func() {
				_, _ = io.Copy(io.Discard, conn)
				add(-1)
			})
			go func() {
				<-done
				conn.Close()
			}()
		}
	})
	t.Cleanup(func() {
		close(done)
		listener.Close()
		serving.Wait()
	})
	return l
}

// TestWorkersEndWithAKilledGateway kills the gateway that has the workers. They end
// with what they have started, and the gateway that takes over starts as many as there
// are to be, no more and no fewer.
func TestWorkersEndWithAKilledGateway(t *testing.T) {
	t.Parallel()
	l := countLiving(t)
	global, address := embeddedBroker(t)
	home := newGateway(t, global, "\trespond ok")
	home.start()
	const workers, processes = 3, 6
	scaling := func() *gateway {
		return newGateway(t, fmt.Sprintf("\t\tkafka %s\n\t\tscale jobs jobs {\n\t\t\tmin %d\n\t\t\tmax %[2]d\n\t\t\tprocess %s {\n\t\t\t\tgrace_period 1s\n\t\t\t\tenv %s %s\n\t\t\t}\n\t\t}",
			address, workers, os.Args[0], gateVariable, l.address), "\trespond ok")
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(patience); !ok(); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("not within %s: %s; %d processes", patience, what, l.count())
			}
		}
	}
	first := scaling()
	first.start()
	until("the first gateway's workers", func() bool { return l.count() == processes })
	second := scaling()
	second.start()
	first.kill()
	until("they end with it", func() bool { return l.count() == 0 })
	until("the second gateway's workers", func() bool { return l.count() == processes })
	until("they are all that is wanted", func() bool { return running(t, second) == workers })
	if n := l.count(); n != processes {
		t.Errorf("%d processes of %d workers", n, workers)
	}
	second.kill()
	until("they end with it too", func() bool { return l.count() == 0 })
}

// running is how many workers a gateway has by its admin endpoint.
func running(t *testing.T, g *gateway) int {
	t.Helper()
	response, err := http.Get("http://" + g.Admin + "/osmosis/scale")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var reports []struct{ Running int }
	if err := json.NewDecoder(response.Body).Decode(&reports); err != nil || len(reports) != 1 {
		t.Fatalf("%v: %v", reports, err)
	}
	return reports[0].Running
}
