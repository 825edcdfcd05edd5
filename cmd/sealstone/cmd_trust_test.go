package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// From which entry on the new keys count alone, a root signs for good. A server
// is believed only what its log has signed.
func TestTrustUpdateBelievesOnlyASignedSize(t *testing.T) {
	f := ledgertest.New(t)
	absurd := int64(9007199254740000)
	signed := func(key note.Signer) string {
		b, err := ledger.SignCheckpoint(f.Origin, ledger.Tree{Size: 57, Root: tlog.Hash{1}}, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		checkpoint string
		flag, want int64
		err        string
	}{
		"what is signed counts":    {checkpoint: signed(f.Log), want: 57 + fromMargin},
		"signed by another key":    {checkpoint: signed(f.Node), err: "does not prove the log's size"},
		"no checkpoint":            {checkpoint: "<html>", err: "does not prove the log's size"},
		"a flag that fits":         {checkpoint: signed(f.Log), flag: 100, want: 100},
		"a flag far beyond":        {checkpoint: signed(f.Log), flag: absurd, err: "older keys count as well; make it with --from 121"},
		"a flag and nothing shown": {checkpoint: "<html>", flag: 100, want: 100},
	} {
		t.Run(name, func(t *testing.T) {
			serveIn(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/log/checkpoint" {
					_, _ = io.WriteString(w, c.checkpoint)
					return
				}
				_ = json.NewEncoder(w).Encode(api.Status{Origin: f.Origin, Trust: 1, Size: absurd})
			})
			var said strings.Builder
			o := trustEdit{from: c.flag}
			err := (&app{server: "http://server", err: &said}).chooseFrom(t.Context(), f.Trust, &o)
			if err == nil && (c.err != "" || o.from != c.want) || err != nil && (c.err == "" || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("from %d, %v; want %d, %q", o.from, err, c.want, c.err)
			}
			if noted := strings.Contains(said.String(), "nothing shows how long older keys count"); noted != (c.flag > 0 && c.checkpoint == "<html>") {
				t.Errorf("said %q", said.String())
			}
		})
	}
}
