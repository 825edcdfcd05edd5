package server

import (
	"context"
	"errors"
	"log/slog"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/ledger"
)

// demandSigned holds a tip that asks for signed commits, or that follows one
// which did, to the keys of the operators that will be in force: the set in
// force, or the newer one that the tip brings and the roots signed. So a branch
// alone can neither switch the demand off nor bring keys. An unsigned tip is
// refused and recorded; an unsigned release costs its service alone.
func (s *Server) demandSigned(ctx context.Context, u *unit, now accepted) error {
	if !u.tip.Config.RequireSigned && !now.Layout.RequireSigned {
		return nil
	}
	err := s.builder.SignedTip(u.tip, u.signers)
	if _, unsigned := bundler.FaultsOf(err); unsigned && now.Unsigned != u.tip.Commit {
		next := now
		next.Unsigned = u.tip.Commit
		return s.refuse(ctx, next, u.tip.Commit, err)
	}
	if err != nil {
		return err
	}
	err = s.builder.SignedReleases(u.tip, u.signers, s.runs)
	faults, ok := bundler.FaultsOf(err)
	for _, f := range faults {
		u.failed[f.Service] = append(u.failed[f.Service], f)
	}
	if ok {
		return nil
	}
	return err
}

// runs reports whether an activation asks for the release that runs already.
func (s *Server) runs(a bundler.Activation) bool {
	c, _ := s.store.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: a.Service, Scope: a.Scope})
	return c.Kind == ledger.BundleActivated && c.Release.Commit == a.Release
}

func signersOf(ops *ledger.Operators) bundler.Signers {
	out := bundler.Signers{}
	if ops == nil {
		return out
	}
	for _, o := range ops.OperatorsStatement.Operators {
		for _, key := range o.Keys {
			out[key] = o.ID
		}
	}
	return out
}

// signedBy adds to a detail who signed a commit, if an operator did.
func (s *Server) signedBy(detail map[string]any, name, commit string, keys bundler.Signers) {
	by, err := s.repo.Signer(commit, keys)
	if err == nil {
		detail[name], detail[name+"Key"] = by.Operator, by.Key
	} else if !errors.Is(err, bundler.ErrUnsigned) {
		s.log.Warn("can't read a commit's signature", slog.String("commit", commit), slog.Any("error", err))
	}
}
