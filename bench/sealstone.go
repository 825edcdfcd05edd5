package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// The four ways to ask us for one flag. The first is the one that all ratios
// are to.
func sealstone(c *sdk.Client) []engine {
	keys := allKeys()
	return []engine{
		{
			name: "**sealstone**, handle",
			note: "`client.Bool(key).Get`; all flags: `client.Flags().EvaluateAll` into a reused buffer",
			for1: func(u map[string]any) asker {
				return asker{one: func(key string) loop { return getLoop(c.Bool(key), u) }, all: func() loop { return allLoop(c, u) }}
			},
		},
		{
			name: "sealstone, handle with details",
			note: "`client.Bool(key).Details`: value, variant, reason, metadata",
			for1: func(u map[string]any) asker {
				return asker{one: func(key string) loop { return detailsLoop(c.Bool(key), u) }}
			},
		},
		{
			name: "sealstone, set by key",
			note: "`flags.Set.Boolean(key)`, for those who hold a set without a client; all flags: one by one",
			for1: func(u map[string]any) asker {
				set, now := c.Flags(), time.Now()
				return asker{one: func(key string) loop { return setLoop(set, key, u, now) }, all: func() loop {
					return each(keys, func(k string) bool { on, _ := set.Boolean(k, u, false, now); return on })
				}}
			},
		},
	}
}

func getLoop(f *sdk.Flag[bool], u flags.Context) loop {
	return func(n int) (on int) {
		for range n {
			if f.Get(u, false) {
				on++
			}
		}
		return on
	}
}

func detailsLoop(f *sdk.Flag[bool], u flags.Context) loop {
	return func(n int) (on int) {
		for range n {
			if v, r := f.Details(u, false); v && r.ErrorCode == "" {
				on++
			}
		}
		return on
	}
}

func setLoop(set *flags.Set, key string, u flags.Context, now time.Time) loop {
	return func(n int) (on int) {
		for range n {
			if v, r := set.Boolean(key, u, false, now); v && r.ErrorCode == "" {
				on++
			}
		}
		return on
	}
}

func allLoop(c *sdk.Client, u flags.Context) loop {
	buf := make([]flags.Resolution, 0, numFlags)
	return func(n int) (on int) {
		for range n {
			buf = c.Flags().EvaluateAll(u, time.Time{}, buf[:0])
			for i := range buf {
				if buf[i].Value == true {
					on++
				}
			}
		}
		return on
	}
}

// openClient opens a client as a process does that has no server: from an export
// of a real ledger, verified up to the trust file. The folder dir is the
// caller's.
func openClient(dir string, doc []byte) (c *sdk.Client, err error) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(fault)
			if !ok {
				panic(r)
			}
			c, err = nil, f.error
		}
	}()
	f := ledgertest.New(helper{})
	x, err := export(f, dir, doc)
	if err != nil {
		return nil, fmt.Errorf("make an export: %w", err)
	}
	path := filepath.Join(dir, "export.json")
	if err := os.WriteFile(path, x, 0o600); err != nil {
		return nil, err
	}
	return sdk.Open(context.Background(), sdk.Config{Target: "checkout@prod", TrustData: f.Trust.Raw, Fallback: path,
		Logger: slog.New(slog.DiscardHandler)})
}

// export records the document's activation in a ledger and exports it.
func export(f *ledgertest.Fixture, dir string, doc []byte) ([]byte, error) {
	cfg := store.Config{Dir: filepath.Join(dir, "ledger"), Log: f.Log, Node: f.Node, Trust: f.Trust}
	if err := store.Init(cfg); err != nil {
		return nil, err
	}
	s, err := store.Open(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }()
	objects, set, err := content(doc)
	if err != nil {
		return nil, err
	}
	drafts := []store.Draft{
		{Kind: ledger.OperatorsChanged, Data: ledger.Data{Statement: f.OperatorsSig, Fields: ledger.Fields{Version: strconv.Itoa(1), Commit: ledgertest.Release(1).Commit}}},
		{Kind: ledger.BundleActivated, Data: ledger.Data{Service: "checkout", Scope: "prod", Fields: ledger.Fields{Release: ledgertest.Release(1), Set: set, Contract: 1}}},
	}
	for _, d := range drafts {
		_, err := s.Append(context.Background(), func(*ledger.State, time.Time) (store.Decision, error) {
			return store.Decision{Drafts: []store.Draft{d}}, nil
		})
		if err != nil {
			return nil, err
		}
	}
	e, err := s.Evidence("checkout", 0, nil, false, time.Now())
	if err != nil {
		return nil, err
	}
	return json.Marshal(sdk.Export{Version: 1, Target: api.Target{Service: "checkout", Scope: "prod"}, Evidence: e, Objects: objects})
}

// content is a set of one bundle of one document.
func content(doc []byte) (map[api.Digest][]byte, *ledger.SetRef, error) {
	v, err := canon.Parse(doc, canon.MaxDepth)
	if err != nil {
		return nil, nil, err
	}
	canonical, err := canon.Encode(v)
	if err != nil {
		return nil, nil, err
	}
	b, err := bundle.Build(bundle.Config{Contract: 1, Mode: api.ModeNormal, Service: "checkout"}, map[string][]byte{bundle.FlagsTitle: canonical})
	if err != nil {
		return nil, nil, err
	}
	set, err := bundle.BuildSet([]bundle.Entry{{Scope: "prod", Mode: api.ModeNormal, Digest: b.Digest, Size: int64(len(b.Manifest))}})
	if err != nil {
		return nil, nil, err
	}
	objects := map[api.Digest][]byte{}
	for _, blob := range b.Blobs {
		objects[api.DigestOf(blob)] = bytes.Clone(blob)
	}
	objects[b.Digest], objects[api.DigestOf(set)] = b.Manifest, set
	return objects, &ledger.SetRef{Digest: api.DigestOf(set), Size: int64(len(set))}, nil
}

// helper lets the ledger's test fixture run outside of a test.
type helper struct{ testing.TB }

type fault struct{ error }

func (helper) Helper()                   {}
func (helper) Fatal(args ...any)         { panic(fault{fmt.Errorf("%s", fmt.Sprint(args...))}) }
func (helper) Fatalf(f string, a ...any) { panic(fault{fmt.Errorf(f, a...)}) }
