package sdk

import (
	"errors"
	"slices"

	"github.com/sealstone/sealstone/ledger"
)

// behindError is in the refusal of a head that is older than the known one, and
// that nothing else speaks against: of a relay or a second server that lags.
type behindError struct{ error }

func (e *behindError) Unwrap() error { return e.error }

// orBehind marks a refusal for rollback when the evidence is good by itself and
// fits what is known. A log that was set back looks the same, so it is refused
// all the same; see lagging for what the difference is good for.
func (c *Client) orBehind(err error, a *answer, trust *ledger.Trust, known *ledger.Known) error {
	refused, ok := errors.AsType[*ledger.CheckError](err)
	if !ok || refused.Check != ledger.CheckHeadRollback {
		return err
	}
	alone := &ledger.Known{}
	if !a.full {
		alone.Changes = known.Changes
	}
	if p, bad := trust.Prove(a.evidence, c.target.Service, alone); bad != nil || !before(p, known) {
		return err
	}
	return ledger.Refuse(refused.Check, &behindError{refused.Err})
}

// before tells whether a head could have been on the way to what is known: no
// chain is further, and nothing that both name differs.
func before(p *ledger.Proven, known *ledger.Known) bool {
	if p.Tree.Size > known.Tree.Size || p.Tree.Size == known.Tree.Size && p.Tree != known.Tree {
		return false
	}
	for i, c := range p.Changes {
		if k := known.Changes[i]; k != nil && k.Hash != c.Hash {
			return false
		}
	}
	return !slices.ContainsFunc(p.Chains, func(c ledger.Chain) bool {
		return !slices.ContainsFunc(known.Chains, func(k ledger.Chain) bool {
			return k.Lane == c.Lane && k.Scope == c.Scope && (c.Generation < k.Generation || c.Generation == k.Generation && c.Hash == k.Hash)
		})
	})
}

// lagging tells whether a round failed because one server can't be asked while
// those that can are behind: no worse than when all are away. When all answer
// and are behind, the log was set back.
func lagging(err error) bool {
	all, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err)
	if !ok {
		return false
	}
	behind, away := false, false
	for _, e := range all.Unwrap() {
		if _, ok := errors.AsType[*behindError](e); ok {
			behind = true
		} else if _, ok := errors.AsType[*ledger.CheckError](e); ok {
			return false
		} else {
			away = true
		}
	}
	return behind && away
}
