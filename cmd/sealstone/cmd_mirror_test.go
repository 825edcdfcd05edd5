package main

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/internal/mirror"
	"github.com/sealstone/sealstone/ledger"
)

// A follower outlives pages that are none of the log's, and ends when what is
// shown stays wrong.
func TestAFollowingMirrorOutlivesAPassingFault(t *testing.T) {
	f := ledgertest.New(t)
	signed := func(key note.Signer) string {
		b, err := ledger.SignCheckpoint(f.Origin, ledger.Tree{Root: ledger.EmptyRoot()}, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	good, bad, page := signed(f.Log), strings.ReplaceAll(signed(f.Node), f.Origin+"/node", f.Origin), "<html>\n\n<form>"
	for name, c := range map[string]struct {
		shown []string
		code  int
		said  int // errors
	}{
		"a page for long":        {[]string{good, page, page, page, page, page, good}, exitOK, 1},
		"two bad signatures":     {[]string{good, bad, bad, good, bad, bad, good}, exitOK, 2},
		"a bad signature stays":  {[]string{good, bad, bad, bad}, exitProof, 1},
		"a page where trust was": {[]string{good}, exitOK, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				n := 0
				source := func(context.Context, string) ([]byte, error) {
					if n++; n > len(c.shown) {
						cancel()
						return nil, ctx.Err()
					}
					return []byte(c.shown[n-1]), nil
				}
				var out, said strings.Builder
				a := &app{out: &out, err: &said, output: "table"}
				m := &mirror.Mirror{Dir: t.TempDir(), Source: source, Trust: f.Trust, Shown: func(context.Context) ([]byte, error) { return []byte(page), nil }}
				err := a.follow(ctx, m, time.Second)
				if err != nil && codeOf(err) != c.code || err == nil && c.code != exitOK || strings.Count(said.String(), "sealstone: ") != c.said {
					t.Errorf("%v, want exit %d; said %s", err, c.code, said.String())
				}
			})
		})
	}
}
