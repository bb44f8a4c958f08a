package rig

import (
	"slices"
	"time"
)

// Rounds calls measure for each of n contenders, once a round, and gives what
// it found as [contender][round]. Every round begins with another contender. So
// a machine that gets slower or faster in the meantime does so for all, and
// figures of one round can be compared.
func Rounds[T any](rounds, n int, measure func(round, contender int) (T, error)) ([][]T, error) {
	all := make([][]T, n)
	for i := range all {
		all[i] = make([]T, rounds)
	}
	for round := range rounds {
		for turn := range n {
			contender := (round + turn) % n
			found, err := measure(round, contender)
			if err != nil {
				return nil, err
			}
			all[contender][round] = found
		}
	}
	return all, nil
}

// Number is what can be measured.
type Number interface {
	~int | ~int64 | ~float64
}

// Median gives the middle of some figures; 0 of none.
func Median[N Number](all []N) N { return Quantile(all, 0.5) }

// Quantile gives the figure below which the given part of all lies; 0 of none.
func Quantile[N Number](all []N, q float64) N {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Ratio gives the median over the rounds of a figure against another's of the
// same round.
func Ratio[N Number](of, against []N) float64 {
	var ratios []float64
	for round := range of {
		if against[round] != 0 {
			ratios = append(ratios, float64(of[round])/float64(against[round]))
		}
	}
	return Median(ratios)
}

// Each takes one figure out of what was measured, round by round.
func Each[T any, N Number](all []T, figure func(T) N) []N {
	figures := make([]N, len(all))
	for i, a := range all {
		figures[i] = figure(a)
	}
	return figures
}

// Per10000 is what a process used for ten thousand requests, in CPU seconds.
func Per10000(used time.Duration, requests int) float64 {
	if requests == 0 {
		return 0
	}
	return used.Seconds() / float64(requests) * 10_000
}
