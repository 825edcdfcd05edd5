package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/plan"
)

// turnFirstOn turns a file's first flag on: the banner, or the express checkout.
func turnFirstOn(file string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := bytes.Replace(old, []byte("defaultVariant: off"), []byte("defaultVariant: on"), 1)
	if bytes.Equal(text, old) {
		return errors.New("the example's flag is not where the story expects it")
	}
	return os.WriteFile(file, text, 0o644)
}

// flipFlag turns two flags on for everybody, by an ordinary commit.
func (d *demo) flipFlag(ctx context.Context) error {
	for _, name := range []string{"common/flags/common.yaml", "services/checkout/flags/checkout.yaml"} {
		if err := turnFirstOn(filepath.Join(d.path("shop"), filepath.FromSlash(name))); err != nil {
			return err
		}
	}
	commit, err := d.commit("Ada Editor", "Turn banner and express checkout on")
	if err != nil {
		return err
	}
	start := time.Now()
	d.node.server.Sync() // what the forge's webhook does
	n, err := d.wait(ctx, true, func(t api.Target) bool { return t.Scope == "staging" })
	if err != nil {
		return err
	}
	took := time.Since(start)
	d.say("commit %s by Ada Editor, to all %d services in staging in %s; prod is pinned and did not move", short(commit), n, span(took))
	return d.sayChanges(ctx, ledger.BundleActivated, n)
}

// promote pins prod to the new release, as a merged pull request does.
func (d *demo) promote(ctx context.Context) error {
	if err := d.service(demoTarget).sell(ctx); err != nil {
		return err
	}
	head, err := d.repo.Head()
	if err != nil {
		return err
	}
	for _, service := range demoNames {
		p, _, err := promoteIn(ctx, d.path("shop"), service, "prod", head.Hash().String(), "", plan.Options{})
		if err != nil {
			return err
		}
		d.say("%s: release %s, expect %s", p.File, short(p.Release), p.Expect.Short())
	}
	commit, err := d.commit("Olu Operator", "Promote "+short(head.Hash().String())+" to prod")
	if err != nil {
		return err
	}
	start := time.Now()
	d.node.server.Sync()
	n, err := d.wait(ctx, true, func(t api.Target) bool { return t.Scope != "staging" })
	if err != nil {
		return err
	}
	d.say("merged as %s: %d instances in two regions had it in %s", short(commit), n, span(time.Since(start)))
	if err := d.sayChanges(ctx, ledger.BundleActivated, len(demoNames)); err != nil {
		return err
	}
	return d.service(demoTarget).sell(ctx)
}

// sayChanges prints the newest changes of a kind with their indexes.
func (d *demo) sayChanges(ctx context.Context, kind ledger.Kind, n int) error {
	c, err := d.client()
	if err != nil {
		return err
	}
	var answer api.Changes
	if err := c.get(ctx, "/v1/changes", map[string][]string{"kind": {string(kind)}, "limit": {fmt.Sprint(n)}}, &answer); err != nil {
		return err
	}
	for _, r := range answer.Changes {
		e := eventOf(r)
		d.say("entry %-3d %s %s  %s", r.Index, e.Kind(), e.Subject, what(&e.Data.Fields))
	}
	return nil
}

func (d *demo) client() (*client, error) {
	a := app{server: d.url}
	return a.client()
}

// sre is the command line of the SRE: a key, a server, the trust file.
func (d *demo) sre(out *bytes.Buffer) *app {
	return &app{out: out, err: discard, output: "table", server: d.url, key: d.path("sre"), trust: d.trustPath()}
}

// safeMode enters a mode with the very command an SRE has.
func (d *demo) safeMode(ctx context.Context) error {
	d.say("$ sealstone safe-mode enter checkout degraded --scope prod/eu-west-1 --reason INC-123")
	var out bytes.Buffer
	o := safeModeOptions{kind: ledger.SafeModeEntered, mode: "degraded", scope: "prod/eu-west-1", reason: "INC-123", ttl: 4 * time.Hour, onExpiry: "hold", after: -1}
	start := time.Now()
	if err := d.sre(&out).safeMode(ctx, "checkout", o); err != nil {
		return err
	}
	eu, us := d.service("checkout@prod/eu-west-1"), d.service("checkout@prod/us-east-1")
	if err := eventually(ctx, "safe mode on the client", func() bool { return eu.client.Live().Mode == "degraded" }); err != nil {
		return err
	}
	took := time.Since(start)
	d.show(&out)
	l := eu.client.Live()
	d.say("%s is in mode %s, bundle %s, %s after the command", eu.target, l.Mode, l.Bundle.Short(), span(took))
	if m := us.client.Live().Mode; m != api.ModeNormal {
		return fmt.Errorf("%s is in mode %s", us.target, m)
	}
	d.say("%s stays in mode normal; the bundle was built, staged and dry-run before", us.target)
	return eu.sell(ctx)
}

// tamper edits a copy of the store the way somebody with root could, and lets
// verify look at it.
func (d *demo) tamper(ctx context.Context) error {
	dir := d.path("tampered")
	if err := copyData(d.path("data"), dir); err != nil {
		return err
	}
	index, err := rewriteHistory(filepath.Join(dir, "ledger.db"), filepath.Join(keysDir("", d.path("data")), nodeKeyFile))
	if err != nil {
		return err
	}
	d.say("with root and the node's key: entry %d of a copy of the store now blames another commit, freshly signed", index)
	var out bytes.Buffer
	a := &app{out: &out, err: discard, output: "table", trust: d.trustPath()}
	v, err := a.verify(ctx, verifyOptions{data: dir}, nil)
	if err != nil {
		return err
	}
	code := a.verdict(v)
	if code == nil {
		return errors.New("the edit was not found")
	}
	d.show(&out)
	d.say("sealstone verify --data ends with %v", code)
	return nil
}

// rewriteHistory puts another commit into an activation and signs it anew with
// the node's own key: the best that somebody on the server can do.
func rewriteHistory(path, nodeKey string) (index uint64, err error) {
	node, err := readNoteKey(nodeKey)
	if err != nil {
		return 0, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return 0, err
	}
	defer db.Close()
	return index, db.Update(func(tx *bbolt.Tx) error {
		entries := tx.Bucket([]byte("e"))
		if entries == nil {
			return errors.New("the copy has no entries")
		}
		for k, leaf := entries.Cursor().First(); ; k, leaf = entries.Cursor().Seek(binary.BigEndian.AppendUint64(nil, index)) {
			if k == nil {
				return errors.New("the copy has no activation")
			}
			c, err := ledger.ParseLeaf(bytes.Clone(leaf))
			if err != nil {
				return err
			}
			if c.Kind() == ledger.BundleActivated {
				c.Data.Release.Commit = strings.Repeat("bad0", 10)
				forged, err := c.Event.Leaf(ledger.NodeSigner{Signer: node})
				if err != nil {
					return err
				}
				return entries.Put(bytes.Clone(k), forged)
			}
			index++
		}
	})
}

// copyData copies a data directory, as a backup would.
func copyData(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if rel == "git" {
				return filepath.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o600)
	})
}

// audit verifies a copy with the trust file alone, rebuilds every set from Git,
// and checks one proof as somebody without any of it would.
func (d *demo) audit(ctx context.Context) error {
	dir := d.path("audit")
	if err := copyData(d.path("data"), dir); err != nil {
		return err
	}
	var out bytes.Buffer
	a := &app{out: &out, err: discard, output: "table", trust: d.trustPath()}
	v, err := a.verify(ctx, verifyOptions{data: dir, repo: d.path("shop")}, nil)
	if err != nil {
		return err
	}
	if err := a.rebuild(ctx, d.path("shop"), v); err != nil {
		return err
	}
	if err := a.verdict(v); err != nil {
		return fmt.Errorf("%w: %s", err, out.String())
	}
	d.say("$ sealstone verify --data COPY --trust trust.json --rebuild --repo shop")
	d.show(&out)
	proof := d.path("proof.json")
	if err := d.writeProof(ctx, proof, v.Size-1); err != nil {
		return err
	}
	out.Reset()
	if v, err = a.verify(ctx, verifyOptions{}, []string{proof}); err != nil {
		return err
	}
	if err := a.verdict(v); err != nil {
		return fmt.Errorf("%w: %s", err, out.String())
	}
	d.say("$ sealstone verify proof.json --trust trust.json     (one change, and the operators set that allows it)")
	d.show(&out)
	return nil
}

func (d *demo) writeProof(ctx context.Context, path string, index int64) error {
	a := &app{out: discard, err: discard, output: "table", server: d.url}
	cmd := newChangesProof(a)
	cmd.SetArgs([]string{fmt.Sprint(index), "--out", path})
	return cmd.ExecuteContext(ctx)
}
