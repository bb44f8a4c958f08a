package hub

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleClaims() Claims {
	return Claims{
		ID: "0195f3c2-7d4e-7a61-b0c9-3f1e5a2d8b47", Scheme: "https", Host: "shop.example.com",
		Topic: "orders", Partition: 5, Offset: 123_456, Incarnation: 0x0badcafe, Group: "orders",
		ReplyTopic: "osmosis.replies", ReplyPartition: 17, ReplyPartitions: 32, Floor: 98_765, ReplyIncarnation: 0xfeedbeef,
		Issued:  time.UnixMilli(1_790_000_000_123).UTC(),
		Expires: time.UnixMilli(1_790_000_000_123).UTC().Add(12 * time.Hour),
		Bind:    "{http.auth.user.id}", BindHash: [16]byte{0: 1, 15: 0xff},
	}
}

// largestClaims are the longest that fit: every number takes the most bytes it
// can, every text needs two bytes for its length.
func largestClaims() Claims {
	c := Claims{
		Partition: math.MinInt32, Offset: math.MinInt64, Incarnation: math.MaxUint32,
		ReplyPartition: math.MinInt32, ReplyPartitions: math.MinInt32, Floor: math.MinInt64, ReplyIncarnation: math.MaxUint32,
		Issued: time.UnixMilli(math.MinInt64 / 2).UTC(), Expires: time.UnixMilli(math.MaxInt64/2 - 1).UTC(),
		BindHash: [16]byte{7},
	}
	texts := []*string{&c.ID, &c.Scheme, &c.Host, &c.Topic, &c.Group, &c.ReplyTopic, &c.Bind}
	for _, s := range texts {
		*s = strings.Repeat("x", maxTexts/len(texts))
	}
	c.Bind += strings.Repeat("x", maxTexts%len(texts))
	return c
}

func mustSeal(tb testing.TB, k *Keyring, c Claims) string {
	tb.Helper()
	token, err := k.Seal(c)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func TestTokenRoundTrip(t *testing.T) {
	k := mustKeyring(t, secretA)
	unknown := sampleClaims()
	unknown.Partition, unknown.Offset, unknown.ReplyPartition, unknown.Floor = -1, -1, -1, -1
	bearer := sampleClaims()
	bearer.Bind, bearer.BindHash = "", [16]byte{}
	odd := sampleClaims()
	odd.Host, odd.Bind = "\x00\xff\r\n", "{http.request.header.X-Ünit}"
	zero := Claims{}
	for name, c := range map[string]Claims{
		"sample": sampleClaims(), "unknown numbers": unknown, "bearer": bearer, "odd bytes": odd, "zero": zero, "largest": largestClaims(),
	} {
		t.Run(name, func(t *testing.T) {
			token := mustSeal(t, k, c)
			if len(token) > MaxToken {
				t.Fatalf("token has %d bytes, more than %d", len(token), MaxToken)
			}
			if strings.Trim(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				t.Errorf("token %q does not stand in a URL as it is", token)
			}
			got, err := k.Open(token)
			if err != nil || got != c {
				t.Errorf("Open = %+v, %v\nwant   %+v", got, err, c)
			}
			if mustSeal(t, k, c) == token {
				t.Error("two tokens of the same claims are the same")
			}
		})
	}
}

// TestClaimsFieldsInToken fails when a field of Claims does not reach the
// token: it gives one field after the other another value.
func TestClaimsFieldsInToken(t *testing.T) {
	k := mustKeyring(t, secretA)
	fields := reflect.TypeFor[Claims]()
	for i := range fields.NumField() {
		c := sampleClaims()
		switch f := reflect.ValueOf(&c).Elem().Field(i).Addr().Interface().(type) {
		case *string:
			*f += "x"
		case *int32:
			*f++
		case *int64:
			*f++
		case *uint32:
			*f++
		case *time.Time:
			*f = f.Add(time.Millisecond)
		case *[16]byte:
			f[3]++
		default:
			t.Fatalf("field %s has a type that this test does not know", fields.Field(i).Name)
		}
		if got, err := k.Open(mustSeal(t, k, c)); err != nil || got != c {
			t.Errorf("%s: Open = %+v, %v, want %+v", fields.Field(i).Name, got, err, c)
		}
	}
}

func TestTokenKeepsMilliseconds(t *testing.T) {
	k := mustKeyring(t, secretA)
	c := sampleClaims()
	want := c
	zone := time.FixedZone("", 3600)
	c.Issued, c.Expires = c.Issued.Add(999_999).In(zone), c.Expires.Add(1).In(zone)
	c.Bind, want.Bind = "", ""
	want.BindHash = [16]byte{} // without a bind text there is no hash to keep
	if got, err := k.Open(mustSeal(t, k, c)); err != nil || got != want {
		t.Errorf("Open = %+v, %v\nwant   %+v", got, err, want)
	}
}

// A token of an earlier release must open in a later one: streams outlive
// upgrades. If this fails the format or the keys changed, and tokenVersion must too.
func TestTokenOfVersion1(t *testing.T) {
	const token = "Afd5qFE7waCmyFtGgtl5AOifbeZOg68iQtpdrGho-q_5v4XH62_9VfntM0GnmpdrDpkk4ooJh57Yh-5oV-Avydt51ybR6Te60T31DkDWVCOY7ouz-Cgk2ZYT_DAUZdDao5Y3CZfH3SeKmi_LgrM-qhWoI1ywn7BN1hgyAkdl5BW1EA36x-pu_oiDPqZmMGXdnpUFe-XCFLivWkzaWj20VdsakTk9Tbj7ys4kl0IOYmADINB-_ZAehXDMv7FCdy-U06Q7j2Rb"
	got, err := mustKeyring(t, secretA).Open(token)
	if err != nil || got != sampleClaims() {
		t.Errorf("Open = %+v, %v\nwant   %+v", got, err, sampleClaims())
	}
	hash := [16]byte{0xfe, 0x07, 0x4c, 0x04, 0x79, 0xda, 0x61, 0xcc, 0xcb, 0xb2, 0x45, 0x59, 0x6a, 0x48, 0x12, 0x0f}
	if got := mustKeyring(t, secretA).BindHash("stream-1", "alice"); got != hash {
		t.Errorf("BindHash = %#v", got)
	}
}

// AppendSeal leaves what stands before the token as it is, and takes no memory
// where there is room.
func TestAppendSeal(t *testing.T) {
	k := mustKeyring(t, secretA)
	for _, c := range []Claims{{}, sampleClaims(), largestClaims()} {
		room := append(make([]byte, 0, 2*MaxToken), "https://example.com/"...)
		for _, dst := range [][]byte{nil, []byte("x"), room} {
			b, err := k.AppendSeal(dst, &c)
			if err != nil || string(b[:len(dst)]) != string(dst) {
				t.Fatalf("AppendSeal(%q) = %q, %v", dst, b, err)
			}
			if got, err := k.Open(string(b[len(dst):])); err != nil || got != c {
				t.Errorf("Open = %+v, %v\nwant   %+v", got, err, c)
			}
		}
		if n := testing.AllocsPerRun(10, func() { _, _ = k.AppendSeal(room, &c) }); n > 0 {
			t.Errorf("allocates %.0f times", n)
		}
	}
	long := largestClaims()
	long.Host += "x"
	if b, err := k.AppendSeal([]byte("x"), &long); !errors.Is(err, ErrClaimsTooLong) || string(b) != "x" {
		t.Errorf("AppendSeal = %q, %v", b, err)
	}
}

func TestSealRefusesLongTexts(t *testing.T) {
	k := mustKeyring(t, secretA)
	c := largestClaims()
	if err := c.Check(); err != nil {
		t.Fatalf("the largest claims do not fit: %v", err)
	}
	for _, text := range []*string{&c.ID, &c.Scheme, &c.Host, &c.Topic, &c.Group, &c.ReplyTopic, &c.Bind} {
		before := *text
		*text += "x"
		if err := c.Check(); !errors.Is(err, ErrClaimsTooLong) {
			t.Errorf("Check = %v", err)
		}
		if token, err := k.Seal(c); !errors.Is(err, ErrClaimsTooLong) || token != "" {
			t.Errorf("Seal = %q, %v", token, err)
		}
		*text = before
	}
	c.Host = strings.Repeat("h", 1<<20)
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "host (1048576)") || len(err.Error()) > 300 {
		t.Errorf("Check = %v, want an error that tells the length of the host", err)
	}
}

// Every byte of a token counts: no other byte in any place opens it, and no byte
// may be missing, added or doubled.
func TestOpenRefusesChanges(t *testing.T) {
	k := mustKeyring(t, secretA)
	token := mustSeal(t, k, sampleClaims())
	refuse := func(what string, changed string) {
		t.Helper()
		if c, err := k.Open(changed); !errors.Is(err, ErrToken) || c != (Claims{}) {
			t.Fatalf("%s: Open(%q) = %+v, %v", what, changed, c, err)
		}
	}
	for i := range len(token) {
		b := []byte(token)
		for v := range 256 {
			if byte(v) == token[i] {
				continue
			}
			b[i] = byte(v)
			refuse("byte changed", string(b))
		}
		refuse("cut", token[:i])
		refuse("beginning cut", token[i+1:])
		refuse("byte missing", token[:i]+token[i+1:])
		refuse("byte doubled", token[:i+1]+token[i:])
		for _, more := range []string{"\n", "\r", "\r\n", " ", "=", "A", "%2D", "\x00"} {
			refuse("bytes added", token[:i]+more+token[i:])
		}
	}
	for _, more := range []string{"\n", "\r", "\r\n", " ", "=", "==", "A", "AA", "AAAA", "/", "#", "\x00"} {
		refuse("bytes added", token+more)
	}
	std := strings.NewReplacer("-", "+", "_", "/").Replace(token)
	if std != token {
		refuse("standard alphabet", std)
	}
	refuse("twice", token+token)
	refuse("lower case", strings.ToLower(token))
}

// Only the last character can hide bits that say nothing. There are such bits
// where the length leaves a remainder, so claims of three lengths are tried.
func TestOpenRefusesTrailingBits(t *testing.T) {
	k := mustKeyring(t, secretA)
	remainders := map[int]bool{}
	for _, id := range []string{"1", "12", "123"} {
		token := mustSeal(t, k, Claims{ID: id})
		remainders[len(token)%4] = true
		opened := 0
		for _, last := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			if _, err := k.Open(token[:len(token)-1] + string(last)); err == nil {
				opened++
			}
		}
		if opened != 1 {
			t.Errorf("a token of %d bytes opens with %d last characters", len(token), opened)
		}
	}
	if !remainders[0] || !remainders[2] || !remainders[3] {
		t.Errorf("lengths tried modulo 4: %v", remainders)
	}
}

func TestOpenSaysWhy(t *testing.T) {
	k := mustKeyring(t, secretA)
	token := mustSeal(t, k, sampleClaims())
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(f func(b []byte) []byte) string {
		return base64.RawURLEncoding.EncodeToString(f(bytes.Clone(raw)))
	}
	for _, c := range []struct{ token, says string }{
		{"", "too short"},
		{"AQ", "too short"},
		{strings.Repeat("A", MaxToken+1), "2049 bytes long"},
		{strings.Repeat("\n", 1<<20), "1048576 bytes long"},
		{"!", "not base64url"},
		{token + "\n", "line ends"},
		{edit(func(b []byte) []byte { b[0] = 2; return b }), "version 2 is not known"},
		{edit(func(b []byte) []byte { b[2]++; return b }), "not configured"},
		{edit(func(b []byte) []byte { b[tokenHead]++; return b }), "seal is broken"},
		{edit(func(b []byte) []byte { return b[:len(b)-1] }), "seal is broken"},
		{mustSeal(t, mustKeyring(t, secretB), sampleClaims()), "not configured"},
	} {
		_, err := k.Open(c.token)
		if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Open(%.40q) error = %v, want one that says %q", c.token, err, c.says)
		}
	}
}

// Claims that carry a good seal and cannot be read are refused too: that is what
// a token of another build with the same version would be.
func TestOpenRefusesUnreadableClaims(t *testing.T) {
	k := mustKeyring(t, secretA)
	c := sampleClaims()
	good := c.appendTo(nil)
	// The partition stands behind four texts, the topic's incarnation behind the offset.
	texts := []byte{0, 0, 0, 0}
	for name, claims := range map[string][]byte{
		"empty": {}, "cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0),
		"partition of 33 bits":  append(bytes.Clone(texts), 0x80, 0x80, 0x80, 0x80, 0x10),
		"incarnation cut":       append(bytes.Clone(texts), 0, 0, 1, 2, 3),
		"length spelt longer":   append([]byte{good[0] | 0x80, 0x00}, good[1:]...),
		"number of 65 bits":     append(bytes.Clone(texts), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"length beyond the end": {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		head := append([]byte{tokenVersion}, k.keys[0].id[:]...)
		nonce := make([]byte, tokenNonce-tokenHead)
		b := k.keys[0].token.Seal(append(bytes.Clone(head), nonce...), nonce, claims, head)
		_, err := k.Open(tokenEncoding.EncodeToString(b))
		if !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), "claims cannot be read") {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}

func TestClaimsTimes(t *testing.T) {
	issued := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c := Claims{Issued: issued, Expires: issued.Add(time.Hour)}
	for _, at := range []struct {
		after         time.Duration
		expired, gone bool
	}{
		{0, false, false},
		{time.Hour, false, false},
		{time.Hour + time.Millisecond, true, false},
		{2 * time.Hour, true, false},
		{2*time.Hour + time.Millisecond, true, true},
	} {
		now := issued.Add(at.after)
		if c.Expired(now) != at.expired || c.Gone(now) != at.gone {
			t.Errorf("after %v: expired %v, gone %v", at.after, c.Expired(now), c.Gone(now))
		}
	}
}

func TestClaimsFor(t *testing.T) {
	for _, c := range []struct {
		issuedScheme, issuedHost, scheme, host string
		want                                   bool
	}{
		{"https", "example.com", "https", "example.com", true},
		{"https", "Example.COM", "https", "eXample.com", true},
		{"https", "example.com", "https", "example.com:443", true},
		{"https", "example.com:443", "https", "example.com", true},
		{"http", "example.com:80", "http", "example.com", true},
		{"https", "example.com", "http", "example.com", true},
		{"https", "example.com", "http", "example.com:80", true},
		{"HTTPS", "example.com:443", "https", "example.com", true},
		{"http", "localhost:8080", "http", "localhost:8080", true},
		{"http", "[::1]:80", "http", "[::1]", true},
		{"http", "[::1]:8080", "http", "[::1]:8080", true},
		{"", "", "", "", true},
		{"https", "example.com", "https", "example.com:80", false},
		{"http", "example.com", "http", "example.com:443", false},
		{"https", "example.com", "https", "example.com:8443", false},
		{"http", "localhost:8080", "http", "localhost", false},
		{"https", "example.com", "https", "example.org", false},
		{"https", "example.com", "https", "www.example.com", false},
		{"https", "example.com", "https", "example.com.", false},
		{"https", "example.com", "https", "", false},
		{"https", "", "https", "example.com", false},
	} {
		claims := Claims{Scheme: c.issuedScheme, Host: c.issuedHost}
		if got := claims.For(c.scheme, c.host); got != c.want {
			t.Errorf("issued for %s://%s, asked for %s://%s: %v", c.issuedScheme, c.issuedHost, c.scheme, c.host, got)
		}
	}
}

// randomClaims gives claims of any numbers and of texts that fit.
func randomClaims(r *rand.Rand) Claims {
	text := func() string {
		b := make([]byte, r.IntN(maxTexts/7))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	// Numbers of every size, not only large ones.
	number := func() int64 { return int64(r.Uint64()) >> r.IntN(64) }
	c := Claims{
		ID: text(), Scheme: text(), Host: text(),
		Topic: text(), Partition: int32(number()), Offset: number(), Incarnation: r.Uint32(), Group: text(),
		ReplyTopic: text(), ReplyPartition: int32(number()), ReplyPartitions: int32(number()), Floor: number(), ReplyIncarnation: r.Uint32(),
		Issued: time.UnixMilli(number() >> 1).UTC(), Expires: time.UnixMilli(number() >> 1).UTC(),
	}
	if r.IntN(2) == 0 {
		c.Bind = "{" + text() + "}"
		for i := range c.BindHash {
			c.BindHash[i] = byte(r.Uint32())
		}
	}
	return c
}

func TestTokenProperty(t *testing.T) {
	k, other := mustKeyring(t, secretA), mustKeyring(t, secretB)
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		c := randomClaims(r)
		if c.Check() != nil {
			continue
		}
		token := mustSeal(t, k, c)
		if got, err := k.Open(token); err != nil || got != c {
			t.Fatalf("Open = %+v, %v\nwant   %+v", got, err, c)
		}
		if _, err := other.Open(token); !errors.Is(err, ErrToken) {
			t.Fatalf("opens under another secret: %v", err)
		}
	}
}

// FuzzOpen: no text makes Open panic, and none opens that Seal did not make. The
// fuzzer's processes each seal their seeds anew, so a text counts as made by
// Seal if sealing what it holds with the nonce it has gives that text again.
func FuzzOpen(f *testing.F) {
	k := mustKeyring(f, secretA)
	seeds := map[Claims]bool{}
	for _, c := range []Claims{{}, sampleClaims(), largestClaims()} {
		token := mustSeal(f, k, c)
		seeds[c] = true
		f.Add(token)
		f.Add(token + "\n")
		f.Add(token[:len(token)-1])
		f.Add(mustSeal(f, mustKeyring(f, secretC), c))
	}
	f.Add("")
	f.Add("AQ==")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := k.Open(token)
		if err != nil {
			if !errors.Is(err, ErrToken) || c != (Claims{}) {
				t.Fatalf("Open(%q) = %+v, %v", token, c, err)
			}
			return
		}
		if !seeds[c] {
			t.Fatalf("Open(%q) = %+v, which nobody sealed", token, c)
		}
		b, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			t.Fatal(err)
		}
		b = k.keys[0].token.Seal(b[:tokenNonce], b[tokenHead:tokenNonce], c.appendTo(nil), b[:tokenHead])
		if again := base64.RawURLEncoding.EncodeToString(b); again != token {
			t.Fatalf("%q opens, but is sealed as %q", token, again)
		}
	})
}

// FuzzSealedChange: what is sealed opens as it was, and not with one byte of it
// changed.
func FuzzSealedChange(f *testing.F) {
	f.Add("stream-1", "example.com", "{user}", int64(1), uint(3), byte('A'))
	f.Add("", "", "", int64(-1), uint(0), byte('\n'))
	k := mustKeyring(f, secretA)
	f.Fuzz(func(t *testing.T, id, host, bind string, offset int64, at uint, with byte) {
		c := sampleClaims()
		c.ID, c.Host, c.Bind, c.Offset = id, host, bind, offset
		if bind == "" {
			c.BindHash = [16]byte{}
		}
		token, err := k.Seal(c)
		if err != nil {
			if !errors.Is(err, ErrClaimsTooLong) || c.Check() == nil {
				t.Fatalf("Seal: %v", err)
			}
			return
		}
		if got, err := k.Open(token); err != nil || got != c {
			t.Fatalf("Open = %+v, %v, want %+v", got, err, c)
		}
		b := []byte(token)
		at %= uint(len(b))
		if b[at] == with {
			return
		}
		b[at] = with
		if _, err := k.Open(string(b)); !errors.Is(err, ErrToken) {
			t.Fatalf("opens with byte %d of %q changed to %q: %v", at, token, with, err)
		}
	})
}

// FuzzParseClaims looks behind the seal: no bytes make the decoder panic, and
// what it reads is what appendTo writes.
func FuzzParseClaims(f *testing.F) {
	for _, c := range []Claims{{}, sampleClaims(), largestClaims()} {
		f.Add(c.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parseClaims(b)
		if !ok {
			return
		}
		if again := c.appendTo(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x is read as %+v, which is written as %x", b, c, again)
		}
	})
}

// BenchmarkSeal is what a token costs each accepted request.
func BenchmarkSeal(b *testing.B) {
	k, c := mustKeyring(b, secretA), sampleClaims()
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n = len(mustSeal(b, k, c))
	}
	b.ReportMetric(float64(n), "token-bytes")
}

// BenchmarkOpen is what a token costs each subscriber, and a forged one whoever
// is asked to open it.
func BenchmarkOpen(b *testing.B) {
	k := mustKeyring(b, secretA, secretB)
	token := mustSeal(b, mustKeyring(b, secretB), sampleClaims())
	forged := token[:len(token)-2] + "AA"
	b.Run("sealed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := k.Open(token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("forged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := k.Open(forged); err == nil {
				b.Fatal("opens")
			}
		}
	})
}
