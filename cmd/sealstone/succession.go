package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// tellEnding says which safe modes end with a log that another one succeeds: only
// the log ends a mode, and a new one begins with none. The old log's server is
// asked, else the mirror whose checkpoint is given.
func (a *app) tellEnding(ctx context.Context, old *ledger.Trust, checkpoint string) {
	modes, err := a.endingModes(ctx, old, checkpoint)
	switch {
	case err != nil:
		fmt.Fprintf(a.err, "note: every safe mode ends with %s; which are in force is not known here: %v\n", old.Origin, err)
	case len(modes) == 0:
		fmt.Fprintf(a.err, "note: no safe mode is in force in %s\n", old.Origin)
	}
	for _, m := range modes {
		fmt.Fprintf(a.err, "note: safe mode %s of %s@%s ends with %s\n", m.Mode, m.Service, m.Scope, old.Origin)
	}
	if err != nil || len(modes) > 0 {
		fmt.Fprintln(a.err, "  next: enter each anew in the new log, before clients reach it: docs/operations.md, Succession")
	}
}

func (a *app) endingModes(ctx context.Context, old *ledger.Trust, checkpoint string) ([]api.Held, error) {
	failed := errors.New("no --server")
	if a.server != "" {
		var answer struct {
			api.SafeModes
			Origin string
		}
		ctx, cancel := context.WithTimeout(ctx, fileTimeout)
		defer cancel()
		if failed = a.get(ctx, "/v1/status", nil, &answer); failed == nil && answer.Origin != old.Origin {
			failed = fmt.Errorf("%s serves %s", a.server, answer.Origin)
		}
		if failed == nil {
			failed = a.get(ctx, "/v1/safe-modes", nil, &answer)
		}
		if failed == nil {
			return answer.InForce, nil
		}
	}
	if log := filepath.Dir(checkpoint); filepath.Base(log) == "log" {
		return a.mirroredModes(ctx, filepath.Dir(log), old)
	}
	return nil, failed
}

// mirroredModes replays a mirror.
func (a *app) mirroredModes(ctx context.Context, dir string, trust *ledger.Trust) (modes []api.Held, err error) {
	l, trust, err := a.openCopy(ctx, dir, trust)
	if err != nil {
		return nil, err
	}
	r := ledger.NewReplay(trust)
	for n := range l.Pages() {
		leaves, err := l.Entries(ctx, n)
		if err == nil {
			err = r.Add(leaves...)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, service := range slices.Sorted(maps.Keys(r.State.Services)) {
		for _, c := range r.State.ServiceChains(service) {
			if c.Lane == ledger.LaneOverride && c.Kind != ledger.SafeModeExited {
				modes = append(modes, api.Held{Service: service, Scope: c.Scope, Mode: c.Mode})
			}
		}
	}
	return modes, nil
}
