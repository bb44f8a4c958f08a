package sim

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestCompareWritesATableAndAPlot(t *testing.T) {
	tr := always(8, 900)
	tr.Name = "a & b"
	c := Compare(Defaults(), tr, 1, 2)
	var table bytes.Buffer
	if err := WriteTable(&table, []Comparison{c}); err != nil {
		t.Fatal(err)
	}
	for _, r := range c.Rows {
		if !strings.Contains(table.String(), "| "+r.Policy+" |") {
			t.Errorf("no row of %s in\n%s", r.Policy, table.String())
		}
		if r.WorkerSeconds < c.Work {
			t.Errorf("%s paid %.0f for %.0f s of work", r.Policy, r.WorkerSeconds, c.Work)
		}
	}
	if best := c.Row(optimumRow); best.InTime < goodShare {
		t.Errorf("the clairvoyant has %.4f in time", best.InTime)
	}
	if v := c.Verdict(); !v.OptimumCan || v.Ratio <= 0 {
		t.Errorf("got %+v", v)
	}
	plot := xml.NewDecoder(bytes.NewReader(Plot(c)))
	for {
		if _, err := plot.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTableTellsItsWriterErrors(t *testing.T) {
	reader, writer := io.Pipe()
	if err := reader.Close(); err != nil {
		t.Fatal(err)
	}
	if err := WriteTable(writer, nil); err == nil {
		t.Fatal("no error")
	}
}

func TestTheBetterKEDA(t *testing.T) {
	c := Comparison{Rows: []Row{{Policy: "KEDA, defaults", InTime: 0.9, WorkerSeconds: 10}, {Policy: "KEDA, tuned", InTime: 0.95, WorkerSeconds: 20}}}
	if got := c.BetterKEDA().Policy; got != "KEDA, tuned" {
		t.Fatal(got)
	}
	c.Rows[0].InTime = 0.9495
	if got := c.BetterKEDA().Policy; got != "KEDA, defaults" {
		t.Fatal(got)
	}
}

// TestSmoothest checks that the taut string stays between what came and what
// may wait, and does all there is.
func TestSmoothest(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		demand := make([]float64, 300)
		for i := 1; i < len(demand); i++ {
			demand[i] = demand[i-1]
			if random.IntN(3) > 0 {
				demand[i] += 20 * random.Float64() * float64(1+i/100%2)
			}
		}
		wait := 1 + random.IntN(12)
		done := 0.0
		for i, slope := range smoothest(demand, float64(wait)) {
			if slope < -1e-9 {
				t.Fatalf("works backwards at %d", i)
			}
			done += slope
			if done > demand[i+1]+1e-6 || done < demand[max(0, i+1-wait)]-1e-6 {
				t.Fatalf("%.2f done at %d, between %.2f and %.2f", done, i+1, demand[max(0, i+1-wait)], demand[i+1])
			}
		}
		if math.Abs(done-demand[len(demand)-1]) > 1e-6 {
			t.Fatalf("%.2f of %.2f done", done, demand[len(demand)-1])
		}
	}
}
