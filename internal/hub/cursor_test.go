package hub

import (
	"errors"
	"math"
	"strings"
	"testing"
)

var cursorTexts = []struct {
	text   string
	cursor Cursor
}{
	{"00000000-0-0", Cursor{}},
	{"0badcafe-3-42", Cursor{Incarnation: 0x0badcafe, Partition: 3, Offset: 42}},
	{"0badcafe-3-42-end", Cursor{Incarnation: 0x0badcafe, Partition: 3, Offset: 42, Mark: MarkEnd}},
	{"0badcafe-3-42-expired", Cursor{Incarnation: 0x0badcafe, Partition: 3, Offset: 42, Mark: MarkExpired}},
	{
		"ffffffff-2147483647-9223372036854775807-expired",
		Cursor{Incarnation: math.MaxUint32, Partition: math.MaxInt32, Offset: math.MaxInt64, Mark: MarkExpired},
	},
}

func TestCursorText(t *testing.T) {
	for _, c := range cursorTexts {
		if got := c.cursor.String(); got != c.text {
			t.Errorf("String of %+v = %q, want %q", c.cursor, got, c.text)
		}
		got, err := ParseCursor(c.text)
		if err != nil || got != c.cursor {
			t.Errorf("ParseCursor(%q) = %+v, %v, want %+v", c.text, got, err, c.cursor)
		}
	}
	if got := string(Cursor{Offset: 7}.AppendTo([]byte("id: "))); got != "id: 00000000-0-7" {
		t.Errorf("AppendTo = %q", got)
	}
}

func TestParseCursorRefuses(t *testing.T) {
	for _, c := range []struct{ text, says string }{
		{"", "is not <incarnation>-<partition>-<offset>"},
		{"0badcafe", "is not <incarnation>"},
		{"0badcafe-3", "is not <incarnation>"},
		{"0badcafe-3-", `offset "" is not a decimal number`},
		{"0badcafe--42", `partition "" is not a decimal number`},
		{"-3-42", `incarnation "" is not eight`},
		{"badcafe-3-42", "is not eight lower-case hexadecimal digits"},
		{"00badcafe-3-42", "is not eight"},
		{"0BADCAFE-3-42", "is not eight"},
		{"0x0badca-3-42", "is not eight"},
		{"+badcafe-3-42", "is not eight"},
		{"0badc_fe-3-42", "is not eight"},
		{"0badcafé-3-42", "is not eight"},
		{"0badcafe-03-42", `partition "03" has a leading zero`},
		{"0badcafe-3-042", `offset "042" has a leading zero`},
		{"0badcafe-3-00", "has a leading zero"},
		{"0badcafe-+3-42", "is not a decimal number"},
		{"0badcafe-3-+42", "is not a decimal number"},
		{"0badcafe-3-4_2", "is not a decimal number"},
		{"0badcafe-3-0x2a", "has a leading zero"},
		{"0badcafe-3-4٢", "is not a decimal number"},
		{"0badcafe--3-42", `partition "" is not`},
		{"0badcafe-3--42", `offset "" is not`},
		{"0badcafe-2147483648-42", `partition "2147483648" is too large`},
		{"0badcafe-3-9223372036854775808", "is too large"},
		{"0badcafe-3-42-", `mark "" is neither`},
		{"0badcafe-3-42-END", `mark "END" is neither`},
		{"0badcafe-3-42-none", "is neither"},
		{"0badcafe-3-42-end-end", "is neither"},
		{"0badcafe-3-42-end ", "is neither"},
		{" 0badcafe-3-42", "is not eight"},
		{"0badcafe-3-42\n", "is not a decimal number"},
		{"0badcafe-3-42\x00", "is not a decimal number"},
		{strings.Repeat("0", 65), "65 bytes long"},
		{"0badcafe-3-" + strings.Repeat("4", 4000), "4011 bytes long, at most 64"},
	} {
		got, err := ParseCursor(c.text)
		if !errors.Is(err, ErrCursor) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("ParseCursor(%q) error = %v, want one that says %q", c.text, err, c.says)
			continue
		}
		if got != (Cursor{}) {
			t.Errorf("ParseCursor(%q) = %+v beside its error", c.text, got)
		}
		if len(err.Error()) > 300 {
			t.Errorf("ParseCursor(%q) error has %d bytes", c.text, len(err.Error()))
		}
	}
}

// FuzzParseCursor: a text that parses is the one spelling of its cursor, and
// any cursor survives the way through its text.
func FuzzParseCursor(f *testing.F) {
	for _, c := range cursorTexts {
		f.Add(c.text)
	}
	f.Add("0badcafe-03-42-end")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor(s)
		if err != nil {
			if !errors.Is(err, ErrCursor) {
				t.Fatalf("error %v is no ErrCursor", err)
			}
			return
		}
		if got := c.String(); got != s {
			t.Fatalf("%q parses, but its cursor is spelt %q", s, got)
		}
		if c.Partition < 0 || c.Offset < 0 {
			t.Fatalf("%q parses as %+v", s, c)
		}
	})
}

func BenchmarkParseCursor(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseCursor("0badcafe-3-4200000-end"); err != nil {
			b.Fatal(err)
		}
	}
}
