package bundle_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/ledger"
)

var (
	longName   = strings.Repeat("n", 40)
	longScope  = api.Scope(strings.Repeat("s", 39) + "/" + strings.Repeat("s", 40))
	longOrigin = strings.Repeat("o", 200)
	anyDigest  = api.DigestOf([]byte("x"))
	anyTime    = time.Date(2026, 11, 20, 10, 3, 0, 0, time.UTC)
)

const (
	anyID     = "019aa0ff-5ea0-7000-8000-000000000003"
	maxNumber = 1<<53 - 1
)

// seal makes the largest change of a kind that there is, with scopes of so many
// bytes in all, and returns how long its leaf is.
func seal(t *testing.T, kind ledger.Kind, bytes int) (int, error) {
	t.Helper()
	fields := ledger.Fields{Mode: api.Mode(longName)}
	if kind != ledger.SafeModeExited {
		fields.TTL, fields.OnExpiry = ledger.MaxTTL, "restore"
	}
	after := int64(maxNumber - 1)
	key := ledger.KeySigner{Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	st := ledger.Statement{After: &after, Detail: anyDigest, ID: anyID, Kind: kind, Log: longOrigin, Scope: longScope, Service: longName, Time: api.FormatTime(anyTime), Fields: fields}
	raw, err := st.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	fields.Resolved = resolvedOf(t, bytes)
	e := ledger.NewEvent(longOrigin, kind, anyID, anyTime, anyTime, ledger.Data{
		Detail: anyDigest, Generation: maxNumber, Operators: maxNumber, Prev: anyDigest, Scope: longScope, Service: longName, Statement: raw, Fields: fields,
	})
	change, err := e.Seal(nodeSigner(t), nil)
	if err != nil {
		return 0, err
	}
	return len(change.Leaf), nil
}

func nodeSigner(t *testing.T) ledger.Signer {
	t.Helper()
	skey, _, err := ledger.NewNoteKey(longOrigin+"/node", make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.NodeSigner{Signer: s}
}

// resolvedOf lists scopes that take so many bytes.
func resolvedOf(t *testing.T, bytes int) []ledger.Resolved {
	t.Helper()
	var out []ledger.Resolved
	for bytes > 0 {
		n := min(bytes-bundle.ResolvedSize(""), 80)
		if left := bytes - bundle.ResolvedSize("") - n; left > 0 && left <= bundle.ResolvedSize("") {
			n -= bundle.ResolvedSize("") + 1 - left // the last one has a name, too
		}
		out = append(out, ledger.Resolved{Bundle: anyDigest, Scope: api.Scope(strings.Repeat("s", n))})
		bytes -= bundle.ResolvedSize(out[len(out)-1].Scope)
	}
	return out
}

// What MaxResolved lets through fits a leaf, whatever the names, and not three
// bytes more, which is what one digit of base64 holds.
func TestTheLargestSafeModeChangeFitsALeaf(t *testing.T) {
	for _, kind := range []ledger.Kind{ledger.SafeModeEntered, ledger.SafeModeRenewed, ledger.SafeModeExited} {
		if n, err := seal(t, kind, bundle.MaxResolved); err != nil {
			t.Errorf("%s: %v", kind, err)
		} else {
			t.Logf("%s: leaf of %d bytes", kind, n)
		}
	}
	if n, err := seal(t, ledger.SafeModeEntered, bundle.MaxResolved+3); !errors.Is(err, ledger.ErrTooLarge) {
		t.Errorf("a leaf of %d bytes, %v: MaxResolved is too strict", n, err)
	}
}

func TestMostResolved(t *testing.T) {
	set := func(mode api.Mode, scopes ...api.Scope) (out []bundle.Entry) {
		for _, s := range scopes {
			out = append(out, bundle.Entry{Scope: s, Mode: api.ModeNormal}, bundle.Entry{Scope: s, Mode: mode})
		}
		return out
	}
	size := func(scopes ...api.Scope) (n int) {
		n = bundle.ResolvedSize(longScope)
		for _, s := range scopes {
			n += bundle.ResolvedSize(s)
		}
		return n
	}
	for name, c := range map[string]struct {
		sets [][]bundle.Entry
		want string
	}{
		"nothing":           {nil, " 0 0"},
		"no safe mode":      {[][]bundle.Entry{set("normal", "prod", "prod/a")}, " 0 0"},
		"two environments":  {[][]bundle.Entry{set("safe", "staging"), set("safe", "prod", "prod/a")}, fmt.Sprintf("prod 2 %d", size("prod", "prod/a"))},
		"overlapping sets":  {[][]bundle.Entry{set("safe", "prod", "prod/a"), set("normal", "prod/a", "prod/a/b")}, fmt.Sprintf("prod 3 %d", size("prod", "prod/a", "prod/a/b"))},
		"only deeper ones":  {[][]bundle.Entry{set("safe", "prod/a"), set("safe", "prod/b")}, fmt.Sprintf("prod 2 %d", size("prod/a", "prod/b"))},
		"the same of two":   {[][]bundle.Entry{set("safe", "b"), set("safe", "a")}, fmt.Sprintf("a 1 %d", size("a"))},
		"elsewhere no mode": {[][]bundle.Entry{set("safe", "b"), set("normal", "prod", "prod/a")}, fmt.Sprintf("b 1 %d", size("b"))},
	} {
		slices.Reverse(c.sets)
		at, scopes, bytes := bundle.MostResolved(c.sets)
		if got := fmt.Sprintf("%s %d %d", at, scopes, bytes); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
