package hub

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

// Secrets that differ in nothing but their last byte.
const (
	secretA = "a secret for tests, long enough A"
	secretB = "a secret for tests, long enough B"
	secretC = "a secret for tests, long enough C"
)

func mustKeyring(tb testing.TB, secrets ...string) *Keyring {
	tb.Helper()
	k, err := NewKeyring(secrets...)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestNewKeyringRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		secrets []string
		says    string
	}{
		{"none", nil, "no token secret"},
		{"empty", []string{""}, "token secret 1 has 0 bytes, fewer than 16"},
		{"short", []string{"hunter2-hunter2"}, "token secret 1 has 15 bytes"},
		{"short second", []string{secretA, "hunter2"}, "token secret 2 has 7 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := NewKeyring(c.secrets...)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error = %v, want one that says %q", err, c.says)
			}
			if !strings.Contains(err.Error(), "openssl rand -hex 32") {
				t.Errorf("error %q does not say how to make a secret", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q shows the secret", err)
			}
		})
	}
	mustKeyring(t, strings.Repeat("x", minSecret))
}

func TestNewSecret(t *testing.T) {
	a, b := NewSecret(), NewSecret()
	if a == b {
		t.Error("two secrets are the same")
	}
	if len(a) != 64 || strings.Trim(a, "0123456789abcdef") != "" {
		t.Errorf("secret %q is not 32 bytes in hexadecimal", a)
	}
	mustKeyring(t, a)
}

func TestBind(t *testing.T) {
	k := mustKeyring(t, secretA)
	c := Claims{ID: "stream-1", Bind: "{http.auth.user.id}", BindHash: k.BindHash("stream-1", "alice")}
	if !k.CheckBind(c, "alice") {
		t.Error("the same value is refused")
	}
	for _, value := range []string{"", "bob", "Alice", "alice ", "alic", "alicea"} {
		if k.CheckBind(c, value) {
			t.Errorf("value %q passes for alice", value)
		}
	}
	other := c
	other.ID = "stream-2"
	if k.CheckBind(other, "alice") {
		t.Error("the hash of one stream passes for another")
	}
	if mustKeyring(t, secretB).CheckBind(c, "alice") {
		t.Error("the hash passes under another secret")
	}
}

func TestBindBearer(t *testing.T) {
	k := mustKeyring(t, secretA)
	for _, value := range []string{"", "anyone"} {
		if !k.CheckBind(Claims{ID: "stream-1"}, value) {
			t.Errorf("a token without bind text is refused for value %q", value)
		}
	}
}

// A stream that was accepted for nobody must not open for everybody who is
// nobody, even if somebody made such a token.
func TestBindEmptyValueNeverOpens(t *testing.T) {
	k := mustKeyring(t, secretA)
	c := Claims{ID: "stream-1", Bind: "{http.auth.user.id}", BindHash: k.BindHash("stream-1", "")}
	if k.CheckBind(c, "") {
		t.Error("an empty value opens a bound stream")
	}
}

// Id and value run together in no way: a byte that moves from one to the other
// changes the hash.
func TestBindHashSeparatesTexts(t *testing.T) {
	k := mustKeyring(t, secretA)
	if k.BindHash("ab", "c") == k.BindHash("a", "bc") {
		t.Error("(ab, c) and (a, bc) have the same hash")
	}
}

func TestRotation(t *testing.T) {
	const id, value = "stream-1", "alice"
	seal := func(k *Keyring) string {
		c := Claims{ID: id, Bind: "{user}", BindHash: k.BindHash(id, value)}
		token, err := k.Seal(c)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	opens := func(k *Keyring, token string) bool {
		c, err := k.Open(token)
		return err == nil && c.ID == id && k.CheckBind(c, value) && !k.CheckBind(c, "bob")
	}

	onlyA := mustKeyring(t, secretA)
	addedB := mustKeyring(t, secretA, secretB)
	firstB := mustKeyring(t, secretB, secretA)
	onlyB := mustKeyring(t, secretB)

	// Gateways are one step apart at most, and at each step whatever one of them
	// seals opens at the other.
	steps := []*Keyring{onlyA, addedB, firstB, onlyB}
	for i, k := range steps[:3] {
		for _, next := range []*Keyring{k, steps[i+1]} {
			if i == 2 && next == onlyB {
				continue // the last step waits until no token under A is left
			}
			if !opens(next, seal(k)) || !opens(k, seal(next)) {
				t.Errorf("step %d: tokens do not open on both sides", i+1)
			}
		}
	}
	if !opens(onlyA, seal(addedB)) {
		t.Error("the second secret seals")
	}
	if !opens(onlyB, seal(firstB)) {
		t.Error("the first secret does not seal")
	}
	if opens(onlyB, seal(onlyA)) {
		t.Error("a token opens under a secret that is gone")
	}
	if !opens(mustKeyring(t, secretC, secretB, secretA), seal(onlyA)) {
		t.Error("the third secret does not open")
	}
}

// Two secrets may get the same key id by chance; then both are tried.
func TestOpenWithEqualKeyIDs(t *testing.T) {
	k := mustKeyring(t, secretA, secretB)
	k.keys[1].id = k.keys[0].id
	for _, first := range []int{0, 1} {
		sealer := &Keyring{keys: k.keys[first : first+1]}
		token, err := sealer.Seal(Claims{ID: "stream-1"})
		if err != nil {
			t.Fatal(err)
		}
		if c, err := k.Open(token); err != nil || c.ID != "stream-1" {
			t.Errorf("secret %d: Open = %+v, %v", first+1, c, err)
		}
	}
}

func BenchmarkCheckBind(b *testing.B) {
	k := mustKeyring(b, secretA)
	c := Claims{ID: "stream-1", Bind: "{user}", BindHash: k.BindHash("stream-1", "alice")}
	b.ReportAllocs()
	for b.Loop() {
		if !k.CheckBind(c, "alice") {
			b.Fatal("refused")
		}
	}
}

// A fingerprint names each key as its tokens do, and has nothing of the secrets.
func TestFingerprint(t *testing.T) {
	one, two := mustKeyring(t, secretA).Fingerprint(), mustKeyring(t, secretB).Fingerprint()
	if got := mustKeyring(t, secretA, secretB).Fingerprint(); got != one+two || one == two || len(got) != 16 {
		t.Errorf("%q of both, %q and %q of each", got, one, two)
	}
	k := mustKeyring(t, secretB, secretA)
	token, err := k.Seal(Claims{ID: "id"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || !strings.HasPrefix(hex.EncodeToString(raw[1:]), two) {
		t.Errorf("%x, %v, sealed by %s", raw, err, two)
	}
}
