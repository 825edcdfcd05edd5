package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/internal/gittest"
)

func setBranch(t testing.TB, repo *git.Repository, h plumbing.Hash) {
	t.Helper()
	if err := repo.Storer.SetReference(plumbing.NewHashReference(gittest.Branch, h)); err != nil {
		t.Fatal(err)
	}
}

// patience is how long a test waits for what must come, however slow the machine.
const patience = time.Minute

// streaming opens streams; an answer that doesn't begin is an error.
var streaming = &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: patience}}

// await receives from a channel, and names what did not come.
func await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come within %s", what, patience)
		panic("unreachable")
	}
}

// rest reads a channel to its end. What goes on coming, as keep-alives do, is no
// reason to wait longer.
func rest[T any](t testing.TB, what string, ch <-chan T) (out []T) {
	t.Helper()
	for late := time.After(patience); ; {
		select {
		case v, ok := <-ch:
			if !ok {
				return out
			}
			out = append(out, v)
		case <-late:
			t.Fatalf("%s goes on after %s", what, patience)
		}
	}
}

// ends runs f, which waits, and names what did not end.
func ends(t testing.TB, what string, f func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() { f(); close(ended) }()
	await(t, "the end of "+what, ended)
}

func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%s did not come within %s", what, patience)
		}
	}
}

func hmacHex(body, secret string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(body))
	return hex.EncodeToString(m.Sum(nil))
}
