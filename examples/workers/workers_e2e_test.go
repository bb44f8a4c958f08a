//go:build e2e

// Package workers_test runs every worker in this folder as it stands, between
// real gateways and a real Kafka, stops it, kills it, and looks at what all
// clients have seen.
package workers_test

import (
	"flag"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/osmosis-gateway/caddy-osmosis/internal/broker/kafkatest"
	"github.com/osmosis-gateway/caddy-osmosis/internal/exampletest"
)

// patience bounds every wait of these tests. It is long because it is no
// promise: machines that build and test at once are slow.
const patience = 90 * time.Second

// language is one of the workers.
type language struct {
	name        string     // of its folder
	needs       string     // what to install by hand
	install     [][]string // commands to run in a copy of the folder
	run         []string   // the command that runs it there
	progress    int        // replies before the last
	code        int        // status of the last
	refusal     int        // status of the answer to what is no order
	exactlyOnce bool       // its replies and its commits are one transaction
	accidents   bool       // some of its transactions are aborted
}

// java says what the workers in Java need.
const java = "Maven and a JDK, 17 or newer (Debian: apt-get install maven openjdk-17-jdk-headless)"

var languages = []language{
	{name: "go", progress: 1, code: http.StatusCreated, refusal: http.StatusBadRequest},
	{
		name: "python", needs: "Python 3 with venv (Debian: apt-get install python3-venv)",
		install: [][]string{
			{"python3", "-m", "venv", "venv"},
			{"venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", "requirements.txt"},
		},
		run: []string{"venv/bin/python", "worker.py"}, progress: 1, code: http.StatusCreated, refusal: http.StatusBadRequest,
	},
	{
		name: "node", needs: "Node.js 18 or newer with npm",
		install: [][]string{{"npm", "ci", "--no-audit", "--no-fund"}},
		run:     []string{"node", "worker.js"}, progress: 1, code: http.StatusCreated, refusal: http.StatusBadRequest,
	},
	{
		name: "spring", needs: java,
		install: [][]string{{"mvn", "--batch-mode", "--quiet", "package"}},
		run:     []string{"java", "-jar", "target/worker.jar"}, code: http.StatusOK, refusal: http.StatusOK, exactlyOnce: true,
	},
	{
		name: "transactions", needs: java,
		install: [][]string{{"mvn", "--batch-mode", "--quiet", "package"}},
		run:     []string{"java", "-jar", "target/worker.jar"}, code: http.StatusCreated, refusal: http.StatusBadRequest,
		exactlyOnce: true, accidents: true,
	},
}

// TestMain lets all workers run at once, however few the cores are: most of their
// time they wait for a session to end.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(len(languages))); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestWorkersOnRealKafka gives each worker a gateway and a topic of its own; the
// gateways share the reply topic.
func TestWorkersOnRealKafka(t *testing.T) {
	cluster := kafkatest.Start(t, kafkatest.Options{})
	brokers := cluster.Addresses()
	gateway := exampletest.Build(t, t.TempDir(), "cmd/osmosis")
	t.Run("all", func(t *testing.T) { // ends when all have
		for _, l := range languages {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				l.hold(t, gateway, "kafka "+strings.Join(brokers, " "), brokers)
			})
		}
	})
}

// TestWorkersOnTheEmbeddedBroker does the same with the broker in the gateway.
func TestWorkersOnTheEmbeddedBroker(t *testing.T) {
	gateway := exampletest.Build(t, t.TempDir(), "cmd/osmosis")
	t.Run("all", func(t *testing.T) {
		for _, l := range languages {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				address := exampletest.FreeAddress(t)
				l.hold(t, gateway, "embedded {\nlisten "+address+"\n}", []string{address})
			})
		}
	})
}
