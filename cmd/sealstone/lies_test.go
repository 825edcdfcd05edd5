package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// relay NAME puts the address of a relay into a variable. It passes on to the
// server whose address is in the file addr, and lies as the file lie says. It
// writes the file proofs once it has passed on any.
func cmdRelay(ts *testscript.TestScript, _ bool, args []string) {
	work := ts.Getenv("WORK")
	l := &liar{in: func(name string) string {
		b, _ := os.ReadFile(filepath.Join(work, name))
		return strings.TrimSpace(string(b))
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.pass(w, r)
		if r.URL.Query().Has("proof") {
			_ = os.WriteFile(filepath.Join(work, "proofs"), []byte("some\n"), 0o600)
		}
	}))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.URL)
}

type liar struct {
	in   func(file string) string
	page []byte // of changes, while it is frozen
}

func (l *liar) pass(w http.ResponseWriter, r *http.Request) {
	r.URL.Scheme, r.URL.Host, r.RequestURI = "http", l.in("addr"), ""
	if l.in("lie") == "noproof" && r.URL.Path == "/v1/evidence" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if r.Method == http.MethodGet && res.StatusCode == http.StatusOK {
		b = l.bend(r, b)
	}
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(b)
}

func (l *liar) bend(r *http.Request, b []byte) []byte {
	changes := strings.HasPrefix(r.URL.Path, "/v1/changes")
	switch lie := l.in("lie"); {
	case lie == "frozen" && r.URL.Path == "/v1/changes":
		if l.page == nil {
			l.page = b
		}
		return l.page
	case lie == "nomodes" && r.URL.Path == "/v1/safe-modes":
		return edited(b, func(m map[string]any) { m["safeModes"] = []any{} })
	case lie == "mymode" && r.URL.Path == "/v1/safe-modes":
		return edited(b, func(m map[string]any) { m["safeModes"].([]any)[0].(map[string]any)["mode"] = "other" })
	case lie == "keepback" && (changes || r.URL.Path == "/v1/evidence"):
		return edited(b, keepBack)
	}
	return b
}

// keepBack takes the details out of rows and proofs, and says that they were
// erased.
func keepBack(m map[string]any) {
	rows, list := m["changes"].([]any)
	if !list {
		rows = []any{m}
	}
	for _, row := range rows {
		row := row.(map[string]any)
		if row["event"] != nil && row["detail"] != nil {
			row["erased"] = true
		}
		delete(row, "detail")
		delete(row, "salt")
	}
}

func edited(b []byte, f func(map[string]any)) []byte {
	var m map[string]any
	if json.Unmarshal(b, &m) != nil {
		return b
	}
	f(m)
	b, _ = json.Marshal(m)
	return b
}
