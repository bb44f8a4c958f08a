package deliver

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// model is progress as a table would hold it.
type model struct {
	done  map[int64]bool
	tries map[int64]int
}

func (m model) base() int64 {
	var base int64
	for m.done[base] {
		base++
	}
	return base
}

// Whatever ends in whatever order, the progress says what a table would say,
// survives its commit, and fits into one.
func TestProgress(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test that can be repeated
		var p progress
		p.incarnation = random.Uint32()
		want := model{make(map[int64]bool), make(map[int64]int)}
		const reach = 60
		for range 300 {
			offset := want.base() + random.Int64N(reach)
			switch random.IntN(8) {
			case 0, 1:
				if !want.done[offset] {
					want.tries[offset]++
					if n := p.fail(offset); n != want.tries[offset] {
						t.Fatalf("seed %d: try %d, want %d", seed, n, want.tries[offset])
					}
				}
			case 2:
				to := offset + random.Int64N(10)
				for o := offset; o < to; o++ {
					want.done[o] = true
					delete(want.tries, o)
				}
				p.finish(offset, to)
			default:
				want.done[offset] = true
				delete(want.tries, offset)
				p.finish(offset, offset+1)
			}
			if p.base != want.base() {
				t.Fatalf("seed %d: base %d, want %d", seed, p.base, want.base())
			}
			for o := max(0, p.base-3); o < p.base+2*reach; o++ {
				if p.isDone(o) != want.done[o] {
					t.Fatalf("seed %d: offset %d done: %t, in %+v", seed, o, p.isDone(o), p)
				}
			}
			if !maps.Equal(counts(p), want.tries) {
				t.Fatalf("seed %d: tries %v, want %v", seed, p.tries, want.tries)
			}
			text := p.encode()
			back, err := parseProgress(p.base, text)
			if err != nil || back.encode() != text || !equalProgress(back, p) {
				t.Fatalf("seed %d: %+v came back as %+v, %v", seed, p, back, err)
			}
		}
	}
}

// counts are the failed tries by offset.
func counts(p progress) map[int64]int {
	failed := make(map[int64]int, len(p.tries))
	for offset, e := range p.tries {
		failed[offset] = e.failed
	}
	return failed
}

func equalProgress(a, b progress) bool {
	return a.incarnation == b.incarnation && a.base == b.base && maps.Equal(a.tries, b.tries) &&
		(len(a.done) == 0 && len(b.done) == 0 || reflect.DeepEqual(a.done, b.done))
}

// As long as tries begin only where the progress fits, it fits when they end,
// in the worst order too: every other record, each after failed tries.
func TestProgressFits(t *testing.T) {
	for _, atOnce := range []int{1, 50, 200} {
		p := progress{base: 1 << 40, incarnation: 1<<32 - 1}
		var under []int64
		begun := 0
		for offset := p.base + 1; offset < p.base+maxAhead; offset += 2 {
			if len(under) == atOnce {
				p.finish(under[0], under[0]+1)
				under = under[1:]
			}
			if !p.fits(len(under)+1, offset) {
				break
			}
			if begun++; begun%3 == 0 {
				p.fail(offset) // and it waits to be tried again
				continue
			}
			under = append(under, offset)
		}
		p.fail(p.base)
		for _, offset := range under {
			p.finish(offset, offset+1)
		}
		if n := len(p.encode()); n > maxMetadata || begun < 400 {
			t.Errorf("%d at once: %d bytes after %d tries", atOnce, n, begun)
		}
	}
}

func TestProgressOfOthers(t *testing.T) {
	// A plain consumer's commit, or a tool's.
	if p, err := parseProgress(7, ""); err != nil || p.base != 7 || len(p.done)+len(p.tries) > 0 {
		t.Errorf("%+v %v", p, err)
	}
	p := progress{base: 5, incarnation: 9}
	p.finish(7, 9)
	p.fail(6)
	text := p.encode()
	for name, test := range map[string]struct {
		offset int64
		text   string
		says   string
	}{
		"another's":  {5, "consumer-1", `it begins with "consumer-1"`},
		"newer":      {5, strings.Replace(text, "2:", "3:", 1), "it begins with"},
		"moved":      {6, text, "written for offset 5 and stands at 6"},
		"cut":        {5, text[:len(text)-4], "checksum"},
		"empty":      {5, metadataVersion, "checksum"},
		"no base64":  {5, text + "=", "illegal base64"},
		"one letter": {5, text[:12] + "_" + text[13:], "checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseProgress(test.offset, test.text); !errors.Is(err, errProgress) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

// What can be read is what was written, spelt in the one way there is.
func FuzzParseProgress(f *testing.F) {
	p := progress{base: 5, incarnation: 9}
	f.Add(int64(5), p.encode())
	p.finish(7, 9)
	p.finish(700, 1<<30)
	p.fail(6)
	p.fail(5)
	f.Add(int64(5), p.encode())
	f.Fuzz(func(t *testing.T, offset int64, text string) {
		// With the checksum right, the fuzzer gets to what lies behind it.
		p, err := parseProgress(offset, sealed(text))
		if err != nil {
			return
		}
		if again := p.encode(); text != "" && again != sealed(text) {
			t.Errorf("%q became %q", sealed(text), again)
		}
		p.finish(p.base, p.base+1)
		if p.base <= offset {
			t.Errorf("the base stays at %d", p.base)
		}
	})
}

// sealed puts the right checksum on metadata.
func sealed(text string) string {
	rest, ok := strings.CutPrefix(text, metadataVersion)
	b, err := base64.RawURLEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(b) < 4 {
		return text
	}
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return metadataVersion + base64.RawURLEncoding.EncodeToString(b)
}

// What is known beside the number of tries survives a commit, and a new count
// takes it away.
func TestMarks(t *testing.T) {
	p := progress{base: 3}
	p.start(3)
	p.fail(4)
	p.start(4)
	p.fail(5)
	p.fail(5)
	p.giveUp(5)
	back, err := parseProgress(3, p.encode())
	if err != nil {
		t.Fatal(err)
	}
	for offset, want := range map[int64]past{3: {started: true}, 4: {failed: 1, started: true}, 5: {failed: 2, givenUp: true}, 6: {}} {
		if got := back.past(offset); got != want {
			t.Errorf("%d: %+v, want %+v", offset, got, want)
		}
	}
	for range maxFailed + 5 {
		back.fail(4) // and never becomes a mark itself
	}
	if got := back.past(4); got != (past{failed: maxFailed}) {
		t.Errorf("%+v", got)
	}
}
