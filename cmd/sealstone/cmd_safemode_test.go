package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// A file gets the time of the server that will take it, where one answers.
func TestAFileHasTheServersTime(t *testing.T) {
	f := ledgertest.New(t)
	block, err := ssh.MarshalPrivateKey(f.OperatorKey, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, trust, out := filepath.Join(dir, "sre"), filepath.Join(dir, "trust.json"), filepath.Join(dir, "enter.dsse")
	for name, b := range map[string][]byte{key: pem.EncodeToMemory(block), trust: f.Trust.Raw} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, off := range []time.Duration{-20 * time.Minute, 0, 20 * time.Minute} {
		after, at := int64(3), time.Now().Add(off)
		serveIn(t, func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(api.SafeModes{Time: api.FormatTime(at), After: &after, Available: []api.SafeMode{{Mode: "degraded"}}})
		})
		var said bytes.Buffer
		if run(t.Context(), []string{"safe-mode", "enter", "checkout", "degraded", "--scope", "prod", "--out", out, "--server", "http://server", "--key", key, "--trust", trust}, nil, &said, &said) != exitOK {
			t.Fatal(said.String())
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		st, err := ledger.ParseStatement(bytes.TrimSpace(raw))
		if err != nil || st.Time != api.FormatTime(at) {
			t.Errorf("%v: %v, time %s", off, err, st.Time)
		}
		if told := strings.Contains(said.String(), "clock and the server's are 20m apart; the statement has the server's time"); told != (off != 0) {
			t.Errorf("%v: said %s", off, said.String())
		}
	}
}
