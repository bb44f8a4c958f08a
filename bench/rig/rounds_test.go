package rig

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRounds(t *testing.T) {
	var order []string
	found, err := Rounds(3, 2, func(round, contender int) (int, error) {
		order = append(order, fmt.Sprint(round, contender))
		return 10*round + contender, nil
	})
	if want := []string{"0 0", "0 1", "1 1", "1 0", "2 0", "2 1"}; err != nil || !slices.Equal(order, want) {
		t.Errorf("%q %v", order, err)
	}
	if !slices.Equal(found[0], []int{0, 10, 20}) || !slices.Equal(found[1], []int{1, 11, 21}) {
		t.Errorf("%v", found)
	}
	failure := errors.New("no")
	if _, err := Rounds(3, 2, func(int, int) (int, error) { return 0, failure }); !errors.Is(err, failure) {
		t.Errorf("%v", err)
	}
}

func TestFigures(t *testing.T) {
	if m := Median([]float64{3, 1, 2}); m != 2 {
		t.Errorf("median %v", m)
	}
	if q := Quantile([]time.Duration{4, 1, 3, 2}, 0.99); q != 4 {
		t.Errorf("quantile %v", q)
	}
	if m := Median([]int(nil)); m != 0 {
		t.Errorf("median of nothing %v", m)
	}
	// A machine that halves its speed in the second round changes no ratio.
	if r := Ratio([]float64{2, 4, 2}, []float64{1, 2, 1}); r != 2 {
		t.Errorf("ratio %v", r)
	}
	if p := Per10000(time.Second, 20_000); p != 0.5 {
		t.Errorf("%v s per 10,000", p)
	}
}

func TestTable(t *testing.T) {
	table := Table{Head: []string{"", "rate"}}
	table.Add("**ours**", 1.5)
	table.Add("a longer name", "12")
	var b strings.Builder
	table.Write(&b, "Speed")
	want := `
### Speed

|               |   rate |
| ------------- | -----: |
| **ours**      | 1.50 × |
| a longer name |     12 |

`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}
