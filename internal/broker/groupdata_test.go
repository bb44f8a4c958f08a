package broker

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestSubscription(t *testing.T) {
	for name, s := range map[string]subscription{
		"of a new member":    {topic: "orders", generation: -1, interrupted: true},
		"with claims":        {topic: "orders", owned: []int32{0, 3, 17}, generation: 5, fingerprint: "f"},
		"of a former member": {topic: "orders", owned: []int32{1 << 20}, generation: 5, interrupted: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeSubscription(s.encode())
			if err != nil || !reflect.DeepEqual(got, s) {
				t.Fatalf("%+v, %v, want %+v", got, err, s)
			}
			// As any other consumer writes it.
			var m kmsg.ConsumerMemberMetadata
			if err := m.ReadFrom(s.encode()); err != nil || m.Topics[0] != "orders" || m.Generation != s.generation {
				t.Fatalf("%+v, %v", m, err)
			}
		})
	}
	foreign := kmsg.ConsumerMemberMetadata{Version: 2, Topics: []string{"orders"}, UserData: []byte{dataVersion + 1, 0, 0}}
	many := kmsg.ConsumerMemberMetadata{Version: 2, Topics: []string{"a", "b"}, UserData: []byte{dataVersion, 0, 0}}
	old := kmsg.ConsumerMemberMetadata{Version: 1, Topics: []string{"orders"}, UserData: []byte{dataVersion, 0, 0}}
	bare := kmsg.ConsumerMemberMetadata{Version: 2, Topics: []string{"orders"}}
	long := kmsg.ConsumerMemberMetadata{Version: 2, Topics: []string{"orders"}, UserData: append([]byte{dataVersion, 0, maxFingerprint + 1}, make([]byte, 300)...)}
	for name, b := range map[string][]byte{
		"nothing": nil, "noise": []byte("hello"), "another version": foreign.AppendTo(nil), "many topics": many.AppendTo(nil),
		"without claims": old.AppendTo(nil), "without user data": bare.AppendTo(nil), "a long fingerprint": long.AppendTo(nil),
		"too much": make([]byte, maxGroupData+1),
	} {
		if s, err := decodeSubscription(b); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if s, err := decodeSubscription(subscription{topic: "t", owned: []int32{5, -1, 5, 2}}.encode()); err != nil || !slices.Equal(s.owned, []int32{2, 5}) {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := decodeSubscription(subscription{topic: "t", fingerprint: strings.Repeat("x", 1000)}.encode()); err != nil || len(s.fingerprint) != maxFingerprint {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestGrant(t *testing.T) {
	for name, g := range map[string]grant{
		"nothing":    {topic: "orders"},
		"partitions": {topic: "orders", owned: []int32{0, 2}, partitions: 3, fingerprints: []string{"a", "b"}},
		"a move":     {topic: "orders", owned: []int32{0}, revoke: []int32{1, 200}, partitions: 300, moving: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeGrant(g.encode(), "orders")
			if err != nil || !reflect.DeepEqual(got, g) {
				t.Fatalf("%+v, %v, want %+v", got, err, g)
			}
			if given := assigned(g.encode()); len(g.owned) > 0 && (len(given) != 1 || given[0].Topic != "orders" || !slices.Equal(given[0].Partitions, g.owned)) {
				t.Fatalf("tools read %+v", given)
			}
		})
	}
	for name, g := range map[string]grant{
		"a partition beyond the topic": {topic: "orders", owned: []int32{3}, partitions: 3},
		"many fingerprints":            {topic: "orders", fingerprints: make([]string, maxFingerprints+1)},
	} {
		if got, err := decodeGrant(g.encode(), "orders"); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	whole := grant{topic: "orders", revoke: []int32{1, 2}, partitions: 3, fingerprints: []string{"a"}}.encode()
	for n := range whole {
		if got, err := decodeGrant(whole[:n], "orders"); err == nil {
			t.Errorf("%d of %d bytes: %+v", n, len(whole), got)
		}
	}
}

func FuzzSubscription(f *testing.F) {
	f.Add(subscription{topic: "orders", owned: []int32{0, 3}, generation: 5, fingerprint: "f"}.encode())
	f.Add([]byte{0, 2, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSubscription(b)
		if err != nil {
			return
		}
		if !slices.IsSorted(s.owned) || len(s.owned) > 0 && s.owned[0] < 0 || len(s.fingerprint) > maxFingerprint {
			t.Fatalf("%+v", s)
		}
		again, err := decodeSubscription(s.encode())
		if err != nil || !bytes.Equal(again.encode(), s.encode()) {
			t.Fatalf("%+v, %v, want %+v", again, err, s)
		}
		share(8, []claimant{{id: "a", owned: s.owned, generation: s.generation, interrupted: s.interrupted}, {id: "b"}})
	})
}

func FuzzGrant(f *testing.F) {
	f.Add(grant{topic: "orders", owned: []int32{0, 2}, revoke: []int32{1}, partitions: 3, moving: true, fingerprints: []string{"a"}}.encode())
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeGrant(b, "orders")
		if err != nil {
			return
		}
		for _, list := range [][]int32{g.owned, g.revoke} {
			if !slices.IsSorted(list) || len(list) > 0 && list[0] < 0 {
				t.Fatalf("%+v", g)
			}
		}
		if len(g.fingerprints) > maxFingerprints || g.partitions < 0 || len(g.owned) > int(g.partitions) {
			t.Fatalf("%+v", g)
		}
		again, err := decodeGrant(g.encode(), "orders")
		if err != nil || !bytes.Equal(again.encode(), g.encode()) {
			t.Fatalf("%+v, %v, want %+v", again, err, g)
		}
	})
}
